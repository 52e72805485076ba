//! `mycelial daemon list` and `show`: what is known of daemons, with their labels. Asks the plane.

use std::{collections::BTreeMap, path::Path, time::Duration};

use bus_schema::api::{ApiCall, ApiResult, DaemonDetail, DaemonView, Labelled};

use crate::{
    answer::Answer,
    arguments::Output,
    client::{CliError, Client},
    render,
};

type Labels = BTreeMap<String, String>;

fn something_else() -> CliError {
    CliError::Failed("the plane answered something else".to_string())
}

async fn labels(client: &Client, selector: String) -> Result<Vec<Labelled>, CliError> {
    match client.call(&ApiCall::DaemonLabels(selector)).await? {
        ApiResult::Labels(labelled) => Ok(labelled),
        _ => Err(something_else()),
    }
}

fn with_labels(data: serde_json::Value, labels: &Labels) -> serde_json::Value {
    let mut data = data;
    data["labels"] = serde_json::json!(labels);
    data
}

/// All daemons, or those that a selector chooses.
pub async fn list(
    dir: &Path,
    timeout: Duration,
    output: Output,
    select: String,
    is_labelled: bool,
) -> Result<(), CliError> {
    let client = Client::connect(dir, timeout, Vec::new()).await?;
    let asked = async {
        let ApiResult::Daemons(daemons) = client.call(&ApiCall::DaemonSelect(select.clone())).await? else {
            return Err(something_else());
        };
        let labelled = match is_labelled {
            true => Some(labels(&client, select.clone()).await?),
            false => None,
        };
        Ok((daemons, labelled))
    };
    let answered = asked.await;
    client.close().await;
    let (daemons, labelled) = answered?;
    let names = daemons.iter().map(|daemon| daemon.name.clone());
    match labelled {
        None => Answer::new(&daemons, names, render::daemons(&daemons)).print(output),
        Some(labelled) => {
            let by_name: BTreeMap<&str, &Labels> =
                labelled.iter().map(|one| (one.name.as_str(), &one.labels)).collect();
            let none = Labels::new();
            let of = |daemon: &DaemonView| by_name.get(daemon.name.as_str()).copied().unwrap_or(&none);
            let data = daemons
                .iter()
                .map(|daemon| with_labels(serde_json::to_value(daemon).unwrap_or_default(), of(daemon)));
            let data: Vec<_> = data.collect();
            let text = render::daemons_labelled(&daemons, |daemon| render::label_words(of(daemon)));
            Answer::new(&data, names, text).print(output);
        }
    }
    match (daemons.is_empty(), select.as_str()) {
        (false, _) => {}
        (true, "") => eprintln!("no daemons yet; make an enrolment string with: mycelial token create"),
        (true, selector) => eprintln!("no daemon is chosen by '{selector}'"),
    }
    Ok(())
}

/// Everything about one.
pub async fn show(dir: &Path, timeout: Duration, output: Output, name: String) -> Result<(), CliError> {
    let client = Client::connect(dir, timeout, Vec::new()).await?;
    let asked = async {
        let ApiResult::Daemon(detail) = client.call(&ApiCall::DaemonShow(name)).await? else {
            return Err(something_else());
        };
        let labelled = labels(&client, format!("name:{}", detail.view.name)).await?;
        Ok((detail, labelled))
    };
    let answered: Result<(DaemonDetail, Vec<Labelled>), CliError> = asked.await;
    client.close().await;
    let (detail, labelled) = answered?;
    let labels = labelled.into_iter().next().map(|one| one.labels).unwrap_or_default();
    let data = with_labels(serde_json::to_value(&detail).unwrap_or_default(), &labels);
    Answer::new(&data, [detail.view.name.clone()], render::daemon(&detail, &labels)).print(output);
    Ok(())
}
