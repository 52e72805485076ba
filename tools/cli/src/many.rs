//! Which daemons a command is for, and asking many of them at the same time. Each is asked by itself and answers for itself; one
//! that is silent holds up nobody and is named; all such commands end with the same words and the same exit codes.

use std::{collections::BTreeSet, io::IsTerminal};

use bus_schema::{
    api::{ApiCall, ApiResult, DaemonDetail, DaemonView, Failure, Presence},
    id::NodeId,
};
use futures_util::{StreamExt as _, stream};
use serde::Serialize;
use tokio::time::{Duration, Instant, sleep};

use crate::{
    answer::Answer,
    arguments::{Keeper, Output, Part, Whom},
    ask,
    client::{CliError, Client},
    render,
};

/// Most daemons that are asked at the same time.
pub const AT_ONCE_MAX: usize = 32;
/// Most daemons that a question names, unless it is about what cannot be undone: that names all.
const NAMED_MAX: usize = 5;
/// How long the plane may take to tell of a daemon that this operator knows: after that the daemon is asked without it.
const KNOWN_WAIT: Duration = Duration::from_secs(3);
/// Until a daemon that is at it is asked again.
const AGAIN: Duration = Duration::from_secs(1);

/// On which daemons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Where {
    /// This one, by name or id.
    Daemon(String),
    /// All that a workflow runs on.
    Workflow(String),
    /// All that a selector chooses.
    Selector(String),
}

impl Where {
    /// Of the daemons of a workflow: this one, those that a selector chooses, or all.
    pub fn of(workflow: String, daemon: Option<String>, select: Option<String>) -> Self {
        match (daemon, select) {
            (Some(daemon), _) => Self::Daemon(daemon),
            (None, Some(select)) => Self::Selector(format!("runs:{workflow} {select}")),
            (None, None) => Self::Workflow(workflow),
        }
    }
}

impl From<Whom> for Where {
    fn from(whom: Whom) -> Self {
        match (whom.name, whom.select) {
            (Some(name), _) => Self::Daemon(name),
            (None, select) => Self::Selector(select.unwrap_or_default()),
        }
    }
}

impl From<Keeper> for Where {
    fn from(keeper: Keeper) -> Self {
        match (keeper.daemon, keeper.select) {
            (Some(name), _) => Self::Daemon(name),
            (None, select) => Self::Selector(select.unwrap_or_default()),
        }
    }
}

impl From<Part> for Where {
    fn from(part: Part) -> Self {
        Self::of(part.name, part.daemon, part.select)
    }
}

/// A daemon that is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// As it is called.
    pub name: String,
    /// Its id.
    pub node: NodeId,
    /// Whether it is there, as the plane sees it; `None`: the plane is away.
    pub presence: Option<Presence>,
}

/// A daemon by name or id, with a roster as new as the plane's. While the plane is away, as this operator knows it: that is when
/// somebody needs to ask a daemon itself.
pub async fn find(client: &Client, name: &str) -> Result<Target, CliError> {
    let known = client.known(name);
    let wait = if known.is_some() { KNOWN_WAIT } else { Duration::MAX };
    match (
        client.call_within(&ApiCall::DaemonShow(name.to_string()), wait).await,
        known,
    ) {
        (Ok(ApiResult::Daemon(DaemonDetail { view, .. })), _) => {
            if let ApiResult::Roster(put) = client.call(&ApiCall::Roster).await? {
                client.take_roster(&put);
            }
            client.know(&view.node).await?;
            Ok(Target {
                name: name.to_string(),
                node: view.node,
                presence: Some(view.presence),
            })
        }
        (Ok(_), _) => Err(CliError::Failed("the plane answered something else".to_string())),
        (Err(CliError::Unreachable(cause)), Some((_, node))) => {
            eprintln!("{cause}\nasking '{name}' itself, as it was known when the plane answered last");
            Ok(Target {
                name: name.to_string(),
                node,
                presence: None,
            })
        }
        (Err(error), _) => Err(error),
    }
}

/// The daemons that are meant, with a roster as new as the plane's.
pub async fn targets(client: &Client, place: Where) -> Result<Vec<Target>, CliError> {
    let chosen = match place {
        Where::Daemon(name) => return find(client, &name).await.map(|target| vec![target]),
        Where::Selector(selector) => choose(client, selector, None).await,
        Where::Workflow(name) => choose(client, String::new(), Some(name)).await,
    };
    chosen.map_err(|error| match error {
        CliError::Unreachable(cause) => CliError::Unreachable(format!(
            "{cause}\n  hint: the plane says whom a selector or a workflow means; a daemon that is named is asked without it"
        )),
        error => error,
    })
}

/// Those that a selector chooses, of a workflow's daemons if one is given.
async fn choose(client: &Client, selector: String, workflow: Option<String>) -> Result<Vec<Target>, CliError> {
    let other = || CliError::Failed("the plane answered something else".to_string());
    let of = match workflow {
        None => None,
        Some(name) => match client.call(&ApiCall::WorkflowShow(name)).await? {
            ApiResult::Workflow { view, .. } => Some(BTreeSet::from_iter(view.daemons)),
            _ => return Err(other()),
        },
    };
    let ApiResult::Daemons(mut daemons) = client.call(&ApiCall::DaemonSelect(selector.clone())).await? else {
        return Err(other());
    };
    match of {
        Some(names) => daemons.retain(|daemon| names.contains(&daemon.name)),
        None if daemons.is_empty() => {
            let message = format!("no daemon is chosen by '{selector}'");
            return Err(CliError::not_found(message, "mycelial daemon list"));
        }
        None => {}
    }
    let ApiResult::Roster(put) = client.call(&ApiCall::Roster).await? else {
        return Err(other());
    };
    client.take_roster(&put);
    let target = |daemon: DaemonView| Target {
        name: daemon.name,
        node: daemon.node,
        presence: Some(daemon.presence),
    };
    Ok(daemons.into_iter().map(target).collect())
}

/// How a command ended on one daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// As it was wanted.
    Done,
    /// It said no, and why.
    Failed,
    /// It was at it, and not done in time; the cause says what it waited for.
    TimedOut,
    /// No answer came: it may or may not have been done.
    Unknown,
}

impl Outcome {
    /// For people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::TimedOut => "timed out",
            Self::Unknown => "unknown",
        }
    }
}

/// What one daemon said.
pub enum Said<T> {
    /// It is done.
    Done(T),
    /// It will not, and why.
    Failed(String),
    /// It is at it, and what it waits for.
    Working(String),
}

impl<T> From<Failure> for Said<T> {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure.message)
    }
}

/// How it ended on one daemon, with what it gave.
#[derive(Debug, Serialize)]
pub struct Ended<T> {
    /// Its name.
    pub daemon: String,
    /// How.
    pub outcome: Outcome,
    /// What it gave; as good as empty when it is not done.
    #[serde(flatten)]
    pub gave: T,
    /// Why it is not done.
    pub cause: String,
}

/// What is asked about before it is done to many at once.
pub struct Doubt<'a> {
    /// `pauses`, `drains`: what is done to them.
    pub what: &'a str,
    /// Whether the answer was given with the command.
    pub yes: bool,
    /// Whether it is asked about also when a selector chooses only one: it cannot be undone.
    pub is_final: bool,
}

impl<'a> Doubt<'a> {
    /// About what can be undone.
    pub fn of(what: &'a str, yes: bool) -> Self {
        Self {
            what,
            yes,
            is_final: false,
        }
    }
}

/// Whoever is named, or is meant by a workflow's name, is meant; whoever a selector chooses may be more than was thought of: an
/// unset variable is an empty selector, and chooses all.
pub fn sure(selector: Option<&str>, names: &[&str], doubt: &Doubt<'_>) -> Result<(), CliError> {
    match selector {
        Some(selector) if names.len() > 1 || doubt.is_final || selector.trim().is_empty() => {
            ask::sure(&question(selector, names, doubt), doubt.yes)
        }
        _ => Ok(()),
    }
}

fn question(selector: &str, names: &[&str], doubt: &Doubt<'_>) -> String {
    let what = doubt.what;
    let named_max = if doubt.is_final { usize::MAX } else { NAMED_MAX };
    let (count, s) = (names.len(), if names.len() == 1 { "" } else { "s" });
    let named = names[..count.min(named_max)].join(", ");
    let more = match count.saturating_sub(named_max) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let by = match selector.trim() {
        "" => "an empty selector chooses all".to_string(),
        selector => format!("chosen by '{selector}'"),
    };
    format!("this {what} on {count} daemon{s} ({by}): {named}{more}")
}

/// Asks all that are meant, some at a time. One that is at it, or silent, is asked again until `until`; without that, once.
pub async fn each<T, F>(
    client: &Client,
    place: Where,
    until: Option<Instant>,
    doubt: Option<Doubt<'_>>,
    ask: F,
) -> Result<Vec<Ended<T>>, CliError>
where
    T: Default,
    F: AsyncFn(&str, &NodeId) -> Result<Said<T>, CliError>,
{
    let selector = match &place {
        Where::Selector(selector) => Some(selector.clone()),
        Where::Daemon(_) | Where::Workflow(_) => None,
    };
    let targets = targets(client, place).await?;
    if let Some(doubt) = doubt {
        let names: Vec<&str> = targets.iter().map(|target| target.name.as_str()).collect();
        sure(selector.as_deref(), &names, &doubt)?;
    }
    let count = targets.len();
    let asked = targets.into_iter().enumerate().map(|(at, target)| {
        let ask = &ask;
        async move { (at, one(client, target.name, target.node, until, ask).await) }
    });
    let mut asked = stream::iter(asked).buffer_unordered(AT_ONCE_MAX);
    let mut all = Vec::with_capacity(count);
    while let Some(ended) = asked.next().await {
        all.push(ended);
        progress(&all, count);
    }
    all.sort_by_key(|(at, _)| *at);
    Ok(all.into_iter().map(|(_, ended)| ended).collect())
}

async fn one<T, F>(client: &Client, daemon: String, node: NodeId, until: Option<Instant>, ask: &F) -> Ended<T>
where
    T: Default,
    F: AsyncFn(&str, &NodeId) -> Result<Said<T>, CliError>,
{
    let is_late = || until.is_none_or(|until| Instant::now() >= until);
    let mut waits_for = String::new();
    let (outcome, gave, cause) = loop {
        let said = match client.know(&node).await {
            Ok(()) => ask(&daemon, &node).await,
            Err(error) => Err(error),
        };
        match said {
            Ok(Said::Done(gave)) => break (Outcome::Done, gave, String::new()),
            Ok(Said::Failed(cause)) => break (Outcome::Failed, T::default(), cause),
            Ok(Said::Working(what)) if is_late() => break (Outcome::TimedOut, T::default(), what),
            Ok(Said::Working(what)) => waits_for = what,
            Err(CliError::Unreachable(cause)) if is_late() => {
                let cause = format!("{cause} {waits_for}").trim_end().to_string();
                break (Outcome::Unknown, T::default(), cause);
            }
            Err(CliError::Unreachable(_)) => {}
            Err(error) => break (Outcome::Failed, T::default(), error.to_string()),
        }
        sleep(AGAIN).await;
    };
    Ended {
        daemon,
        outcome,
        gave,
        cause,
    }
}

/// How many of many are done and which was the last, on a terminal.
fn progress<T>(all: &[(usize, Ended<T>)], count: usize) {
    if count < 2 || !std::io::stderr().is_terminal() {
        return;
    }
    match all.last() {
        Some((_, last)) if all.len() < count => eprint!(
            "\r\x1b[K{} of {count} daemons; last: {} {}",
            all.len(),
            last.daemon,
            last.outcome.word()
        ),
        _ => eprint!("\r\x1b[K"),
    }
}

/// Prints how it ended on each: `heading` and `cell` say what stands between the outcome and its cause.
pub fn print<T: Serialize>(output: Output, all: &[Ended<T>], heading: &str, cell: impl Fn(&T) -> String) {
    let row = |ended: &Ended<T>| {
        vec![
            ended.daemon.clone(),
            ended.outcome.word().to_string(),
            cell(&ended.gave),
            ended.cause.clone(),
        ]
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    let text = render::table(&["daemon", "outcome", heading, "cause"], &rows);
    Answer::new(&all, all.iter().map(|ended| ended.daemon.clone()), text).print(output);
}

/// Says how it ended on all of them, and fails when it is not done on each.
pub fn concluded<T>(all: &[Ended<T>]) -> Result<(), CliError> {
    let count = |outcome| all.iter().filter(|ended| ended.outcome == outcome).count();
    let (failed, late, unknown) = (
        count(Outcome::Failed),
        count(Outcome::TimedOut),
        count(Outcome::Unknown),
    );
    if all.len() > 1 {
        eprintln!(
            "{} daemons: {} done, {failed} failed, {late} timed out, {unknown} unknown",
            all.len(),
            count(Outcome::Done)
        );
    }
    let all = all.len();
    match (failed, unknown, late) {
        (0, 0, 0) => Ok(()),
        (0, 0, late) => Err(CliError::Unreachable(format!(
            "{late} of {all} daemons were not done in time: say it again to wait on, it does no harm"
        ))),
        (0, unknown, _) => Err(CliError::Unreachable(format!(
            "{unknown} of {all} daemons did not answer: say it again, it does no harm"
        ))),
        (failed, ..) => Err(CliError::Failed(format!("it failed on {failed} of {all} daemons"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, Serialize)]
    struct Nothing {}

    #[test]
    fn what_came_of_many_is_one_exit_code() {
        use Outcome::{Done, Failed, TimedOut, Unknown};
        for (outcomes, code, part) in [
            (&[][..], 0, ""),
            (&[Done, Done], 0, ""),
            (&[Done, TimedOut], 7, "1 of 2 daemons were not done in time"),
            (&[Unknown, TimedOut, Done], 7, "1 of 3 daemons did not answer"),
            (&[Unknown, Failed, TimedOut, Failed], 1, "failed on 2 of 4 daemons"),
        ] {
            let ended = |outcome: &Outcome| Ended {
                daemon: "gw".into(),
                outcome: *outcome,
                gave: Nothing {},
                cause: String::new(),
            };
            let all: Vec<_> = outcomes.iter().map(ended).collect();
            match concluded(&all) {
                Ok(()) => assert_eq!(code, 0, "{outcomes:?}"),
                Err(error) => {
                    assert_eq!(error.exit_code(), code, "{outcomes:?}");
                    assert!(error.to_string().contains(part), "{error}");
                }
            }
        }
    }

    #[test]
    fn what_is_asked_about() {
        let doubt = Doubt::of("pauses all workflows", false);
        // No terminal is here: what would be asked is refused, with the way to say it.
        for (selector, names, asked) in [
            (None, &["a", "b"][..], None),
            (Some("site=berlin"), &["a"], None),
            (
                Some("site=berlin"),
                &["a", "b"],
                Some("this pauses all workflows on 2 daemons (chosen by 'site=berlin'): a, b\n  hint: say --yes"),
            ),
            (
                Some(" "),
                &["a"],
                Some("this pauses all workflows on 1 daemon (an empty selector chooses all): a\n  hint: say --yes"),
            ),
            (
                Some("name:*"),
                &["a", "b", "c", "d", "e", "f", "g"],
                Some("on 7 daemons (chosen by 'name:*'): a, b, c, d, e and 2 more\n"),
            ),
        ] {
            match (sure(selector, names, &doubt), asked) {
                (Ok(()), None) => {}
                (Err(error), Some(asked)) => {
                    assert_eq!(error.exit_code(), 2);
                    assert!(error.to_string().contains(asked), "{error}");
                }
                other => panic!("{selector:?} {names:?}: {other:?}"),
            }
        }
        let last = Doubt {
            is_final: true,
            ..Doubt::of("destroys it", false)
        };
        assert!(sure(Some("site=berlin"), &["a"], &last).is_err());
        let many = ["a", "b", "c", "d", "e", "f", "g"];
        let asked = sure(Some("name:*"), &many, &last).unwrap_err().to_string();
        assert!(
            asked.contains("on 7 daemons (chosen by 'name:*'): a, b, c, d, e, f, g\n"),
            "{asked}"
        );
        let yes = Doubt { yes: true, ..last };
        assert!(sure(Some("site=berlin"), &["a"], &yes).is_ok());
        assert!(sure(Some(""), &["a", "b"], &yes).is_ok());
    }

    #[test]
    fn where_a_workflow_is_meant() {
        let of = |daemon: Option<&str>, select: Option<&str>| {
            Where::of("orders".into(), daemon.map(Into::into), select.map(Into::into))
        };
        assert_eq!(of(None, None), Where::Workflow("orders".into()));
        assert_eq!(of(Some("hub"), None), Where::Daemon("hub".into()));
        let chosen = "runs:orders site=berlin -label:test";
        assert_eq!(
            of(None, Some("site=berlin -label:test")),
            Where::Selector(chosen.into()),
            "only where it runs"
        );
    }
}
