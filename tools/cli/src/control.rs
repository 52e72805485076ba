//! Commands that daemons do at once or in a while: ping, restart, pause, resume, drain, log level, diagnosis. The plane has no part
//! in them but to say which daemons are meant.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use bus_schema::{
    control::{ControlCall, ControlResult, Section},
    id::NodeId,
    message::{Ping, Pong},
};
use serde::Serialize;
use tokio::time::Instant;

use crate::{
    answer::Answer,
    arguments::{Output, Whom, duration_s},
    client::{CliError, Client},
    many::{self, Doubt, Ended, Outcome, Said, Where},
    requests::find_daemon,
};

/// Which daemons, and how long what takes a while may take.
#[derive(Debug, Clone, clap::Args)]
pub struct Patient {
    #[command(flatten)]
    pub whom: Whom,
    /// How long to wait for the end of it: 90s, 10m, 2h.
    #[arg(long, default_value = "10m", value_parser = duration_s, value_name = "TIME")]
    pub wait_max: u64,
}

/// What a daemon was told to do and did.
#[derive(Debug, Default, Serialize)]
struct Commanded {
    workflows: Vec<String>,
    /// What it says of it, where it has more to say than that it is done.
    said: String,
}

/// Lets daemons do something, and says how it ended on each.
pub async fn command(
    dir: &Path,
    timeout: Duration,
    output: Output,
    place: Where,
    call: ControlCall,
    doubt: Option<Doubt<'_>>,
) -> Result<(), CliError> {
    carried_out(dir, timeout, output, place, call, None, doubt).await
}

/// The same of what takes a while: each daemon is asked until it is done, or the time is over.
pub async fn patiently(
    dir: &Path,
    timeout: Duration,
    output: Output,
    Patient { whom, wait_max }: Patient,
    call: ControlCall,
    doubt: Option<Doubt<'_>>,
) -> Result<(), CliError> {
    let until = Instant::now() + Duration::from_secs(wait_max);
    carried_out(dir, timeout, output, whom.into(), call, Some(until), doubt).await
}

async fn carried_out(
    dir: &Path,
    timeout: Duration,
    output: Output,
    place: Where,
    call: ControlCall,
    until: Option<Instant>,
    doubt: Option<Doubt<'_>>,
) -> Result<(), CliError> {
    let client = Client::connect(dir, timeout, Vec::new()).await?;
    let ask = async |daemon: &str, node: &NodeId| -> Result<Said<Commanded>, CliError> {
        Ok(match client.ask(daemon, node, &call).await? {
            ControlResult::Done { workflows } => Said::Done(Commanded {
                workflows,
                said: String::new(),
            }),
            ControlResult::Report(sections) => {
                let text: String = sections.into_iter().map(|section| section.text).collect();
                Said::Done(Commanded {
                    workflows: Vec::new(),
                    said: text.trim_end().to_string(),
                })
            }
            ControlResult::Failed(failure) => Said::from(failure),
            ControlResult::Working { what } => Said::Working(what),
            _ => Said::Failed("it answered something else".to_string()),
        })
    };
    let all = many::each(&client, place, until, doubt, ask).await;
    client.close().await;
    let all = all?;
    many::print(output, &all, "what", |gave: &Commanded| match gave.said.as_str() {
        "" => gave.workflows.join(", "),
        said => said.to_string(),
    });
    many::concluded(&all)
}

/// What a daemon that is there says of itself.
#[derive(Debug, Default, Serialize)]
struct Pinged {
    node: Option<NodeId>,
    version: Option<String>,
    ms: Option<f64>,
}

/// Asks daemons themselves whether they are there.
pub async fn ping(dir: &Path, timeout: Duration, output: Output, whom: Whom) -> Result<(), CliError> {
    let client = Client::connect(dir, timeout, Vec::new()).await?;
    let nonce = getrandom::u64().unwrap_or(1);
    let ask = async |daemon: &str, node: &NodeId| -> Result<Said<Pinged>, CliError> {
        let started = Instant::now();
        let pong = client.ask::<Ping, Pong>(daemon, node, &Ping { nonce }).await?;
        Ok(match pong.nonce == nonce {
            true => Said::Done(Pinged {
                node: Some(*node),
                version: Some(pong.version),
                ms: Some(started.elapsed().as_secs_f64() * 1e3),
            }),
            false => Said::Failed("the answer does not match the question".to_string()),
        })
    };
    // One that was named is an answer of its own, and an error of its own.
    if let Some(name) = &whom.name {
        let asked = async {
            let node = find_daemon(&client, name).await?;
            ask(name, &node).await
        };
        let answered: Result<Said<Pinged>, CliError> = asked.await;
        client.close().await;
        return match answered? {
            Said::Done(pinged) => {
                print_ping(output, name, &pinged);
                Ok(())
            }
            Said::Failed(cause) | Said::Working(cause) => Err(CliError::Failed(cause)),
        };
    }
    let all = many::each(&client, whom.into(), None, None, ask).await;
    client.close().await;
    let all = all?;
    many::print(output, &all, "answer", |gave: &Pinged| match (&gave.version, gave.ms) {
        (Some(version), Some(ms)) => format!("version {version}, in {ms:.1} ms"),
        _ => String::new(),
    });
    many::concluded(&all)
}

fn print_ping(output: Output, name: &str, Pinged { node, version, ms }: &Pinged) {
    let text = format!(
        "{name} ({}, version {}) answered in {:.1} ms\n",
        node.map(|node| node.to_string()).unwrap_or_default(),
        version.as_deref().unwrap_or_default(),
        ms.unwrap_or_default()
    );
    let data = serde_json::json!({ "name": name, "node": node, "version": version, "ms": ms });
    Answer::new(&data, [name.to_string()], text).print(output);
}

/// A report on a daemon.
#[derive(Debug, Default, Serialize)]
struct Diagnosed {
    sections: Vec<Section>,
}

/// Fetches reports on daemons.
pub async fn diagnose(
    dir: &Path,
    timeout: Duration,
    output: Output,
    whom: Whom,
    file: Option<PathBuf>,
) -> Result<(), CliError> {
    let client = Client::connect(dir, timeout, Vec::new()).await?;
    if let Some(daemon) = &whom.name {
        let asked = async {
            let node = find_daemon(&client, daemon).await?;
            client.ask(daemon, &node, &ControlCall::Diagnose).await
        };
        let answered = asked.await;
        client.close().await;
        let sections = match answered? {
            ControlResult::Report(sections) => sections,
            ControlResult::Failed(failure) => return Err(CliError::Refused(failure)),
            _ => return Err(CliError::Failed(format!("{daemon} answered something else"))),
        };
        let names = sections.iter().map(|section| section.heading.clone());
        return report(file, output, &Answer::new(&sections, names, headed("#", &sections)));
    }
    let ask = async |daemon: &str, node: &NodeId| -> Result<Said<Diagnosed>, CliError> {
        Ok(match client.ask(daemon, node, &ControlCall::Diagnose).await? {
            ControlResult::Report(sections) => Said::Done(Diagnosed { sections }),
            ControlResult::Failed(failure) => Said::from(failure),
            _ => Said::Failed("it answered something else".to_string()),
        })
    };
    let all = many::each(&client, whom.into(), None, None, ask).await;
    client.close().await;
    let all: Vec<Ended<Diagnosed>> = all?;
    let text: String = all.iter().map(chapter).collect();
    let names = all.iter().map(|ended| ended.daemon.clone());
    report(file, output, &Answer::new(&all, names, text))?;
    many::concluded(&all)
}

fn headed(mark: &str, sections: &[Section]) -> String {
    let text = |section: &Section| format!("{mark} {}\n\n{}\n\n", section.heading, section.text.trim_end());
    sections.iter().map(text).collect()
}

/// What one of many says, under its name.
fn chapter(ended: &Ended<Diagnosed>) -> String {
    let Ended {
        daemon, outcome, gave, ..
    } = ended;
    match outcome {
        Outcome::Done => format!("# {daemon}\n\n{}", headed("##", &gave.sections)),
        outcome => format!("# {daemon}\n\n{}: {}\n\n", outcome.word(), ended.cause),
    }
}

/// To a file, in the form that people read, or to stdout.
fn report(file: Option<PathBuf>, output: Output, answer: &Answer) -> Result<(), CliError> {
    let Some(path) = file else {
        answer.print(output);
        return Ok(());
    };
    std::fs::write(&path, answer.text())
        .map_err(|error| CliError::Usage(format!("cannot write {}: {error}", path.display())))?;
    eprintln!("written to {}", path.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_many_has_a_chapter() {
        let ended = |outcome, cause: &str, sections| Ended {
            daemon: "gw".to_string(),
            outcome,
            gave: Diagnosed { sections },
            cause: cause.to_string(),
        };
        let section = Section {
            heading: "log".to_string(),
            text: "a line\n".to_string(),
        };
        assert_eq!(
            chapter(&ended(Outcome::Done, "", vec![section])),
            "# gw\n\n## log\n\na line\n\n"
        );
        assert_eq!(
            chapter(&ended(Outcome::Unknown, "no answer", Vec::new())),
            "# gw\n\nunknown: no answer\n\n"
        );
    }
}
