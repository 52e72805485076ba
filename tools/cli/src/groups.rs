//! `mycelial group`: selectors with a name.

use std::{path::Path, time::Duration};

use bus_schema::api::{ApiCall, ApiResult, GroupCall, GroupView};
use clap::Subcommand;

use crate::{
    answer::Answer,
    arguments::Output,
    ask::sure,
    client::{CliError, Client},
    names,
    render::table,
};

/// `mycelial group`
#[derive(Debug, Subcommand)]
pub enum Group {
    /// All groups, with how many daemons each chooses now.
    List,
    /// Make a group, or give it another selector. Workflows that name it are placed anew when they are applied again; what is
    /// shared by a group is moved at once.
    Set {
        /// Its name.
        #[arg(add = names::groups())]
        name: String,
        /// What it stands for.
        #[arg(allow_hyphen_values = true, add = names::selectors())]
        selector: String,
    },
    /// Forget a group. Not while an alert rule, a workflow or a rollout under way names it: the answer says which (exit code 6).
    Remove {
        /// Its name.
        #[arg(add = names::groups())]
        name: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

/// Does what was typed.
pub async fn run(dir: &Path, timeout: Duration, output: Output, what: Group) -> Result<(), CliError> {
    let call = match what {
        Group::List => GroupCall::List,
        Group::Set { name, selector } => GroupCall::Put { name, selector },
        Group::Remove { name, yes } => {
            let question =
                format!("this forgets the group '{name}': who types it from now on is told that there is none");
            sure(&question, yes)?;
            GroupCall::Remove(name)
        }
    };
    let client = Client::connect(dir, timeout, Vec::new()).await?;
    let answered = client.call(&ApiCall::Group(call)).await;
    client.close().await;
    let ApiResult::Groups(all) = answered? else {
        return Err(CliError::Failed("the plane answered something else".to_string()));
    };
    let row = |one: &GroupView| vec![one.name.clone(), one.daemons.to_string(), one.selector.clone()];
    let text = table(
        &["name", "daemons", "selector"],
        &all.iter().map(row).collect::<Vec<_>>(),
    );
    Answer::new(&all, all.iter().map(|one| one.name.clone()), text).print(output);
    Ok(())
}
