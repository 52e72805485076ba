//! `mycelial dlq`: dead letters. Asks the daemons themselves: the plane never sees a record. How letters look is in `show`.

mod show;

use std::{
    collections::BTreeMap,
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use bus_schema::{
    api::{ApiCall, ApiResult, Failure, FailureKind, Presence},
    id::NodeId,
    letter::{LetterCall, LetterPage, LetterPlace, LetterResult, LetterSelect},
};
use serde_json::json;

use crate::{
    answer::Answer,
    arguments::{Dlq, Output, Which},
    ask,
    client::{CliError, Client},
    requests::find_daemon,
};

/// Records up to this size are fetched to be shown; a larger one only with `--raw`.
const SHOWN_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// A letter's name: `daemon/workflow/id`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Name {
    daemon: String,
    workflow: String,
    id: u64,
}

impl Name {
    fn parse(text: &str) -> Result<Self, CliError> {
        let mut parts = text.split('/');
        let parsed = (|| {
            let (daemon, workflow, id) = (parts.next()?, parts.next()?, parts.next()?.parse().ok()?);
            let is_whole = parts.next().is_none() && !daemon.is_empty() && !workflow.is_empty();
            is_whole.then(|| Name {
                daemon: daemon.to_string(),
                workflow: workflow.to_string(),
                id,
            })
        })();
        parsed.ok_or_else(|| {
            CliError::Usage(format!(
                "'{text}' is no dead letter's name\n  hint: write DAEMON/WORKFLOW/NUMBER, as 'mycelial dlq list' shows it"
            ))
        })
    }
}

/// Does what was typed.
pub async fn run(dir: &Path, timeout: Duration, output: Output, what: Dlq) -> Result<(), CliError> {
    // Mistakes are told before anybody is asked.
    match &what {
        Dlq::Replay { which, .. } | Dlq::Purge { which, .. } => check(which)?,
        Dlq::Edit { letter, values, .. } => drop((Name::parse(letter)?, new_values(values)?)),
        Dlq::List { .. } | Dlq::Show { .. } => {}
    }
    let client = Client::connect(dir, timeout, Vec::new()).await?;
    let desk = Desk { client: &client };
    let done = match what {
        Dlq::List {
            workflow,
            daemon,
            select,
            node,
        } => desk.list(output, workflow, Place { daemon, select }, node).await,
        Dlq::Show { letter, raw } => desk.show(output, &letter, raw).await,
        Dlq::Edit { letter, values, replay } => desk.edit(output, &letter, &values, replay).await,
        Dlq::Replay { which, yes } => desk.change(output, which, yes, Change::Replay).await,
        Dlq::Purge { which, yes } => desk.change(output, which, yes, Change::Purge).await,
    };
    client.close().await;
    done
}

fn check(which: &Which) -> Result<(), CliError> {
    which.letters.iter().try_for_each(|name| Name::parse(name).map(drop))?;
    let is_placed = which.daemon.is_some() || which.select.is_some();
    let is_selected = which.workflow.is_some() || is_placed || which.node.is_some();
    let wrong = match (which.all, which.letters.is_empty()) {
        (true, false) => "name letters or say --all, not both",
        (false, true) => "name letters, or say --all",
        (false, false) if is_selected => "--workflow, --daemon, -l and --node go with --all",
        _ => return Ok(()),
    };
    Err(CliError::Usage(format!("{wrong}\n  hint: mycelial dlq list")))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Replay,
    Purge,
}

/// On which daemons: all, unless told.
struct Place {
    daemon: Option<String>,
    select: Option<String>,
}

/// What is to be changed at one daemon.
struct Errand {
    daemon: String,
    select: LetterSelect,
}

struct Desk<'a> {
    client: &'a Client,
}

impl Desk<'_> {
    async fn ask(&self, daemon: &str, node: &NodeId, call: &LetterCall) -> Result<LetterResult, CliError> {
        match self.client.ask(daemon, node, call).await? {
            LetterResult::Failed(failure) => Err(CliError::Refused(Failure {
                message: format!("{daemon}: {}", failure.message),
                ..failure
            })),
            result => Ok(result),
        }
    }

    /// The daemons to be asked, and what is wrong with those that cannot be.
    async fn daemons(&self, place: Place) -> Result<(Vec<(String, NodeId)>, Vec<String>), CliError> {
        if let Some(name) = place.daemon {
            let node = find_daemon(self.client, &name).await?;
            return Ok((vec![(name, node)], Vec::new()));
        }
        if let ApiResult::Roster(put) = self.client.call(&ApiCall::Roster).await? {
            self.client.take_roster(&put);
        }
        let call = ApiCall::DaemonSelect(place.select.unwrap_or_default());
        let ApiResult::Daemons(all) = self.client.call(&call).await? else {
            return Err(CliError::Failed("the plane answered something else".to_string()));
        };
        let (there, away): (Vec<_>, Vec<_>) = all.into_iter().partition(|view| view.presence != Presence::Offline);
        let away = away.into_iter().map(|view| format!("{} is offline", view.name));
        Ok((
            there.into_iter().map(|view| (view.name, view.node)).collect(),
            away.collect(),
        ))
    }

    async fn pages(&self, daemon: &str, node: &NodeId, select: &LetterSelect) -> Result<LetterPage, CliError> {
        let mut all = LetterPage::default();
        let mut after = None;
        loop {
            let call = LetterCall::List {
                select: select.clone(),
                after,
            };
            let LetterResult::Page(page) = self.ask(daemon, node, &call).await? else {
                return Err(something_else(daemon));
            };
            all.letters.extend(page.letters);
            all.boxes.extend(page.boxes);
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(all),
            }
        }
    }

    async fn list(
        &self,
        output: Output,
        workflow: Option<String>,
        place: Place,
        node: Option<String>,
    ) -> Result<(), CliError> {
        let select = LetterSelect {
            workflow: workflow.unwrap_or_default(),
            node: node.unwrap_or_default(),
            ids: Vec::new(),
        };
        let (daemons, mut silent) = self.daemons(place).await?;
        let (mut letters, mut boxes) = (Vec::new(), Vec::new());
        for (name, node) in daemons {
            match self.pages(&name, &node, &select).await {
                Ok(page) => {
                    letters.extend(page.letters.into_iter().map(|letter| (name.clone(), letter)));
                    boxes.extend(page.boxes.into_iter().map(|letters| (name.clone(), letters)));
                }
                Err(CliError::Unreachable(cause)) => silent.push(cause),
                Err(error) => return Err(error),
            }
        }
        let names = letters
            .iter()
            .map(|(daemon, letter)| show::full_name(daemon, &letter.place));
        let data = json!({
            "letters": letters.iter().map(|(daemon, letter)| show::as_json(daemon, letter)).collect::<Vec<_>>(),
            "boxes": boxes.iter().map(|(daemon, letters)| show::box_json(daemon, letters)).collect::<Vec<_>>(),
        });
        let text = if letters.is_empty() {
            String::new()
        } else {
            show::as_table(&letters)
        };
        Answer::new(&data, names, text).print(output);
        if output == Output::Table {
            if letters.is_empty() {
                eprintln!("no dead letters");
            }
            let notes = boxes
                .iter()
                .filter_map(|(daemon, letters)| show::box_note(daemon, letters));
            notes.for_each(|note| eprintln!("{note}"));
        }
        if silent.is_empty() {
            return Ok(());
        }
        Err(CliError::Unreachable(format!(
            "not all daemons were asked: {}",
            silent.join("; ")
        )))
    }

    async fn show(&self, output: Output, letter: &str, raw: Option<PathBuf>) -> Result<(), CliError> {
        let name = Name::parse(letter)?;
        let node = find_daemon(self.client, &name.daemon).await?;
        let call = |offset| LetterCall::Show {
            letter: LetterPlace {
                workflow: name.workflow.clone(),
                id: name.id,
            },
            offset,
        };
        let mut file = match &raw {
            Some(path) => Some(std::fs::File::create(path).map_err(|error| unwritable(path, &error))?),
            None => None,
        };
        let (mut record, mut offset) = (Vec::new(), 0);
        let view = loop {
            let LetterResult::Letter { letter, bytes } = self.ask(&name.daemon, &node, &call(offset)).await? else {
                return Err(something_else(&name.daemon));
            };
            offset += bytes.len() as u64;
            if let (Some(file), Some(path)) = (&mut file, &raw) {
                file.write_all(&bytes).map_err(|error| unwritable(path, &error))?;
            }
            let is_shown = letter.record_bytes <= SHOWN_BYTES_MAX;
            let is_all = bytes.is_empty() || offset >= letter.record_bytes;
            if is_shown {
                record.extend(bytes);
            }
            if is_all || (!is_shown && file.is_none()) {
                break letter;
            }
        };
        let record = (view.record_bytes <= SHOWN_BYTES_MAX).then_some(record);
        let text = show::described(&name.daemon, &view, record.as_deref());
        let mut data = show::as_json(&name.daemon, &view);
        data["record"] = record.map_or(serde_json::Value::Null, |record| show::record_json(&view, &record));
        Answer::new(&data, [letter.to_string()], text).print(output);
        if let Some(path) = raw {
            eprintln!("{offset} bytes written to {}", path.display());
        }
        Ok(())
    }

    async fn edit(&self, output: Output, letter: &str, values: &[String], replay: bool) -> Result<(), CliError> {
        let (Name { daemon, workflow, id }, values) = (Name::parse(letter)?, new_values(values)?);
        let node = find_daemon(self.client, &daemon).await?;
        let select = LetterSelect {
            workflow: workflow.clone(),
            ids: vec![id],
            ..LetterSelect::default()
        };
        let mend = LetterCall::Mend {
            letter: LetterPlace { workflow, id },
            values,
        };
        let calls = [Some(mend), replay.then_some(LetterCall::Replay(select))];
        for call in calls.into_iter().flatten() {
            let LetterResult::Done { .. } = self.ask(&daemon, &node, &call).await? else {
                return Err(something_else(&daemon));
            };
        }
        let data = json!({ "letter": letter, "replayed": replay });
        Answer::new(&data, [letter.to_string()], "").print(output);
        match replay {
            true => eprintln!("{letter} is changed and will be tried again; see what is left with: mycelial dlq list"),
            false => eprintln!("{letter} is changed; try it again with: mycelial dlq replay {letter}"),
        }
        Ok(())
    }

    async fn change(&self, output: Output, which: Which, yes: bool, change: Change) -> Result<(), CliError> {
        let mut silent = Vec::new();
        let errands = if which.all {
            let select = LetterSelect {
                workflow: which.workflow.unwrap_or_default(),
                node: which.node.unwrap_or_default(),
                ids: Vec::new(),
            };
            let place = Place {
                daemon: which.daemon,
                select: which.select,
            };
            let (daemons, away) = self.daemons(place).await?;
            silent = away;
            let errand = |(daemon, _)| Errand {
                daemon,
                select: select.clone(),
            };
            daemons.into_iter().map(errand).collect()
        } else {
            named(&which.letters)?
        };
        confirm(&errands, yes, change)?;
        let (mut letters, mut doubtful, mut notes) = (0, 0, Vec::new());
        for Errand { daemon, select } in errands {
            let node = find_daemon(self.client, &daemon).await?;
            let asked = select.ids.len() as u64;
            let call = match change {
                Change::Replay => LetterCall::Replay(select),
                Change::Purge => LetterCall::Purge(select),
            };
            match self.ask(&daemon, &node, &call).await {
                Ok(LetterResult::Done {
                    letters: done,
                    doubtful: left,
                    notes: told,
                }) => {
                    letters += done;
                    doubtful += left;
                    notes.extend(told.into_iter().map(|note| format!("{daemon}: {note}")));
                    if done < asked {
                        let rest = asked - done;
                        notes.push(format!(
                            "{daemon}: {rest} of those named are not there any more, or wait already"
                        ));
                    }
                }
                Ok(_) => return Err(something_else(&daemon)),
                Err(CliError::Unreachable(cause)) => silent.push(cause),
                Err(error) => return Err(error),
            }
        }
        let data = json!({ "letters": letters, "doubtful": doubtful, "notes": notes });
        Answer::new(&data, [], "").print(output);
        match change {
            Change::Replay => eprintln!(
                "{} will be tried again; see what is left with: mycelial dlq list",
                counted(letters)
            ),
            Change::Purge => eprintln!("{} purged", counted(letters)),
        }
        if output == Output::Table {
            notes.iter().for_each(|note| eprintln!("{note}"));
            if doubtful > 0 {
                eprintln!(
                    "{} in doubt left alone: what they stand for may have been delivered. To try them all the same, name them",
                    counted(doubtful)
                );
            }
        }
        if !silent.is_empty() {
            return Err(CliError::Unreachable(format!(
                "not all daemons were asked: {}",
                silent.join("; ")
            )));
        }
        if letters == 0 && !which.all {
            return Err(CliError::Refused(Failure {
                kind: FailureKind::NotFound,
                message: "none of these letters is there".to_string(),
                hint: "mycelial dlq list".to_string(),
                problems: Vec::new(),
            }));
        }
        Ok(())
    }
}

/// A JSON object out of `COLUMN=VALUE`s: what is no JSON is a text.
fn new_values(values: &[String]) -> Result<String, CliError> {
    let one = |text: &String| {
        let (column, value) = text.split_once('=').filter(|(column, _)| !column.is_empty())?;
        let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
        Some((column.to_string(), value))
    };
    let wrong = |text: &String| CliError::Usage(format!("'{text}' must be COLUMN=VALUE, such as quantity=5"));
    let values = values.iter().map(|text| one(text).ok_or_else(|| wrong(text)));
    let values: serde_json::Map<String, serde_json::Value> = values.collect::<Result<_, _>>()?;
    Ok(serde_json::Value::Object(values).to_string())
}

fn something_else(daemon: &str) -> CliError {
    CliError::Failed(format!("{daemon} answered something else"))
}

fn unwritable(path: &Path, error: &std::io::Error) -> CliError {
    CliError::Usage(format!("{}: {error}", path.display()))
}

fn counted(letters: u64) -> String {
    match letters {
        1 => "1 letter".to_string(),
        count => format!("{count} letters"),
    }
}

/// One errand for each daemon and workflow.
fn named(names: &[String]) -> Result<Vec<Errand>, CliError> {
    let mut errands: BTreeMap<(String, String), Vec<u64>> = BTreeMap::new();
    for name in names {
        let Name { daemon, workflow, id } = Name::parse(name)?;
        let ids = errands.entry((daemon, workflow)).or_default();
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    let errand = |((daemon, workflow), ids)| Errand {
        daemon,
        select: LetterSelect {
            workflow,
            node: String::new(),
            ids,
        },
    };
    Ok(errands.into_iter().map(errand).collect())
}

/// Asks before something happens to letters nobody has named, or that cannot be undone.
fn confirm(errands: &[Errand], yes: bool, change: Change) -> Result<(), CliError> {
    let names_none = errands.iter().any(|errand| errand.select.ids.is_empty());
    if yes || (change == Change::Replay && !names_none) {
        return Ok(());
    }
    let daemons: Vec<&str> = errands.iter().map(|errand| errand.daemon.as_str()).collect();
    let count: usize = errands.iter().map(|errand| errand.select.ids.len()).sum();
    let letters = if names_none {
        "all selected letters".to_string()
    } else {
        counted(count as u64)
    };
    let question = match change {
        Change::Replay => format!("try {letters} of {} again?", daemons.join(", ")),
        Change::Purge => format!(
            "forget {letters} of {} for good? Their records are then nowhere else.",
            daemons.join(", ")
        ),
    };
    ask::sure(&question, yes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_have_names() {
        let name = Name::parse("gateway/orders/17").unwrap();
        assert_eq!(
            (name.daemon.as_str(), name.workflow.as_str(), name.id),
            ("gateway", "orders", 17)
        );
        for wrong in [
            "",
            "17",
            "orders/17",
            "gateway/orders/",
            "gateway/orders/x",
            "//1",
            "a/b/1/2",
            "a/b/-1",
        ] {
            assert!(Name::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn new_values_are_json_or_text() {
        let values = ["n=5", "t=five", "q=\"5\"", "x=", "nothing=null", "e=a=b"].map(String::from);
        let expected = json!({ "e": "a=b", "n": 5, "nothing": null, "q": "5", "t": "five", "x": "" });
        let found: serde_json::Value = serde_json::from_str(&new_values(&values).unwrap()).unwrap();
        assert_eq!(found, expected);
        assert!(new_values(&["n".to_string()]).is_err() && new_values(&["=5".to_string()]).is_err());
    }

    #[test]
    fn one_errand_for_each_daemon_and_workflow() {
        let names = ["a/x/1", "b/x/1", "a/x/2", "a/y/3", "a/x/1"].map(String::from);
        let errands: Vec<_> = named(&names)
            .unwrap()
            .into_iter()
            .map(|errand| (errand.daemon, errand.select.workflow, errand.select.ids))
            .collect();
        let expected = [("a", "x", vec![1, 2]), ("a", "y", vec![3]), ("b", "x", vec![1])];
        let expected = expected.map(|(daemon, workflow, ids)| (daemon.to_string(), workflow.to_string(), ids));
        assert_eq!(errands, expected);
    }

    #[test]
    fn nothing_is_changed_by_mistake() {
        let which = |letters: &[&str], all, daemon: Option<&str>| Which {
            letters: letters.iter().map(ToString::to_string).collect(),
            all,
            workflow: None,
            daemon: daemon.map(String::from),
            select: None,
            node: None,
        };
        assert!(check(&which(&["a/x/1"], false, None)).is_ok());
        assert!(check(&which(&[], true, Some("a"))).is_ok());
        for wrong in [
            which(&[], false, None),
            which(&["a/x/1"], true, None),
            which(&["a/x/1"], false, Some("a")),
            which(&["x"], false, None),
        ] {
            assert!(matches!(check(&wrong), Err(CliError::Usage(_))), "{wrong:?}");
        }
        let all = [Errand {
            daemon: "a".into(),
            select: LetterSelect::default(),
        }];
        let one = [Errand {
            daemon: "a".into(),
            select: LetterSelect {
                ids: vec![1],
                ..LetterSelect::default()
            },
        }];
        assert!(confirm(&all, true, Change::Purge).is_ok());
        assert!(confirm(&one, false, Change::Replay).is_ok());
    }
}
