//! Which revision of each workflow this operator has seen last, so that a file from last week does not take back, unseen, what
//! somebody else deployed since. Kept beside the operator's keys; without it nothing is guarded, and nothing fails.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use bus_schema::api::{ApiCall, ApiResult, Failure, FailureKind, RevisionView};

use crate::{
    client::{CliError, Client},
    render,
};

/// Beside the operator's keys: a number by the workflow's name.
const FILE: &str = "revisions.seen";

/// What was seen.
pub struct Seen {
    path: PathBuf,
    revisions: BTreeMap<String, u32>,
}

impl Seen {
    /// What is remembered in an operator's directory.
    pub fn of(dir: &Path) -> Self {
        let path = dir.join(FILE);
        let kept = std::fs::read(&path).ok();
        Self {
            revisions: kept
                .and_then(|kept| serde_json::from_slice(&kept).ok())
                .unwrap_or_default(),
            path,
        }
    }

    /// Remembers that this revision was shown or made here.
    pub fn note(&mut self, name: &str, revision: u32) {
        if revision == 0 || self.revisions.insert(name.to_string(), revision) == Some(revision) {
            return;
        }
        let text = serde_json::to_vec(&self.revisions).unwrap_or_default();
        if let Err(error) = bus_link::home::write_atomic(&self.path, &text) {
            eprintln!(
                "cannot remember which revision was seen, in {}: {error}",
                self.path.display()
            );
        }
    }

    /// Refuses to overwrite what somebody else has made since.
    pub fn guard(&self, name: &str, current: &RevisionView, me: &str) -> Result<(), CliError> {
        let Some(seen) = self.revisions.get(name).filter(|seen| **seen < current.number) else {
            return Ok(());
        };
        if current.by == me {
            return Ok(());
        }
        Err(CliError::Refused(Failure {
            kind: FailureKind::Conflict,
            message: format!(
                "'{name}' is at revision {}, and you have last seen {seen}; nothing was changed",
                whose(current)
            ),
            hint: "look at it with: mycelial workflow diff FILE; then apply again, or at once with --force".to_string(),
            problems: Vec::new(),
        }))
    }
}

/// `5 (bob, 1 h ago: the shop has moved)`
pub fn whose(revision: &RevisionView) -> String {
    format!("{} ({}, {})", revision.number, revision.by, when(revision))
}

/// `1 h ago: the shop has moved`
pub fn when(revision: &RevisionView) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
    let ago = render::ago(u64::try_from(now.saturating_sub(revision.at_unix_ms)).unwrap_or(0));
    let why = match revision.reason.as_str() {
        "" => String::new(),
        reason => format!(": {reason}"),
    };
    format!("{ago} ago{why}")
}

/// The current revision of a workflow, with who made it, when and why.
pub async fn current(client: &Client, name: &str) -> Result<Option<RevisionView>, CliError> {
    match client.call(&ApiCall::WorkflowHistory(name.to_string())).await? {
        ApiResult::History(all) => Ok(all.into_iter().find(|revision| revision.is_current)),
        _ => Err(CliError::Failed("the plane answered something else".to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_else_made_since_is_not_overwritten_unseen() {
        let dir = tempfile::tempdir().unwrap();
        let revision = |number, by: &str| RevisionView {
            number,
            by: by.into(),
            at_unix_ms: 0,
            is_current: true,
            reason: "it moved".into(),
        };
        let mut seen = Seen::of(dir.path());
        seen.note("orders", 3);
        seen.note("other", 0);
        let seen = Seen::of(dir.path());
        for (name, current, is_good) in [
            ("orders", revision(3, "bob"), true),
            ("orders", revision(5, "me"), true),
            // Others went back meanwhile.
            ("orders", revision(2, "bob"), true),
            ("orders", revision(5, "bob"), false),
            ("other", revision(5, "bob"), true),
        ] {
            match seen.guard(name, &current, "me") {
                Ok(()) => assert!(is_good, "{name} {current:?}"),
                Err(error) => {
                    assert_eq!((is_good, error.exit_code()), (false, 6), "{name} {current:?}");
                    let said = error.to_string();
                    assert!(
                        said.contains("revision 5 (bob, ") && said.contains("ago: it moved)"),
                        "{said}"
                    );
                    assert!(said.contains("last seen 3"), "{said}");
                }
            }
        }
        std::fs::write(dir.path().join(FILE), "{").unwrap();
        assert!(Seen::of(dir.path()).guard("orders", &revision(9, "bob"), "me").is_ok());
    }
}
