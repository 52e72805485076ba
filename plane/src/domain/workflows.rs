//! Workflows and their revisions. A revision is never changed; a deleted workflow's numbers are never used again.
//! Knows texts, not graphs.

use std::collections::BTreeMap;

use bus_schema::id::WorkflowId;

/// Most workflows in a fleet.
pub const WORKFLOWS_MAX: usize = 1_024;

/// One text of one workflow, for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision {
    /// The workflow's name.
    pub workflow: String,
    /// From 1.
    pub number: u32,
    /// TOML.
    pub text: String,
    /// Who applied it.
    pub by: String,
    /// When, milliseconds since 1970.
    pub at_unix_ms: i64,
}

/// Somebody else was faster: the current revision is another one than was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moved {
    /// The current revision; 0 when there is none.
    pub current: u32,
}

/// The workflows there are.
#[derive(Debug, Clone, Default)]
pub struct Workflows {
    current: BTreeMap<String, Revision>,
    last: BTreeMap<String, u32>,
    by_id: BTreeMap<WorkflowId, String>,
}

impl Workflows {
    /// All current revisions, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Revision> {
        self.current.values()
    }

    /// How many workflows there are.
    pub fn len(&self) -> usize {
        self.current.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.current.is_empty()
    }

    /// The current revision of a workflow.
    pub fn get(&self, name: &str) -> Option<&Revision> {
        self.current.get(name)
    }

    /// The name of a workflow, deleted ones included.
    pub fn name_of(&self, id: &WorkflowId) -> Option<&str> {
        self.by_id.get(id).map(String::as_str)
    }

    /// Names near to which a mistyped one may be meant.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.current.keys().map(String::as_str)
    }

    /// Checks an expectation: `None` expects nothing, `Some(0)` that there is no such workflow yet.
    pub fn expect(&self, name: &str, revision: Option<u32>) -> Result<(), Moved> {
        let current = self.get(name).map_or(0, |revision| revision.number);
        match revision {
            Some(expected) if expected != current => Err(Moved { current }),
            _ => Ok(()),
        }
    }

    /// The number the next revision gets.
    pub fn next_number(&self, name: &str) -> u32 {
        self.last.get(name).map_or(1, |last| last.saturating_add(1))
    }

    /// A revision is current and durable.
    pub fn put(&mut self, revision: Revision) {
        self.remember(&revision.workflow, revision.number);
        self.current.insert(revision.workflow.clone(), revision);
    }

    /// Numbers of a (perhaps deleted) workflow are taken up to this one.
    pub fn remember(&mut self, name: &str, number: u32) {
        self.by_id
            .entry(WorkflowId::of_name(name))
            .or_insert_with(|| name.to_string());
        let last = self.last.entry(name.to_string()).or_default();
        *last = (*last).max(number);
    }

    /// A workflow is deleted. Its revisions stay in the store.
    pub fn retire(&mut self, name: &str) {
        self.current.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revision(name: &str, number: u32) -> Revision {
        Revision {
            workflow: name.into(),
            number,
            text: String::new(),
            by: "anna".into(),
            at_unix_ms: 0,
        }
    }

    #[test]
    fn expectations_and_numbers() {
        let mut workflows = Workflows::default();
        let moved = |current| Err(Moved { current });
        assert_eq!(workflows.expect("a", Some(0)), Ok(()));
        assert_eq!(workflows.expect("a", Some(1)), moved(0));
        for number in 1..=2 {
            assert_eq!(workflows.next_number("a"), number);
            workflows.put(revision("a", number));
        }
        for (expected, result) in [
            (None, Ok(())),
            (Some(2), Ok(())),
            (Some(1), moved(2)),
            (Some(0), moved(2)),
        ] {
            assert_eq!(workflows.expect("a", expected), result, "{expected:?}");
        }
        workflows.retire("a");
        assert_eq!(
            (workflows.get("a"), workflows.next_number("a")),
            (None, 3),
            "numbers are never used again"
        );
        assert_eq!(workflows.expect("a", Some(0)), Ok(()));
        assert_eq!(workflows.name_of(&WorkflowId::of_name("a")), Some("a"));
        assert_eq!(workflows.name_of(&WorkflowId::of_name("b")), None);
    }
}
