//! A command for many daemons: who has answered, whom to ask again, and how it ended for each. It always ends: by its deadline at
//! the latest. Pure: asks nobody, and reads no clock.

use bus_schema::{
    control::Section,
    id::NodeId,
    limits::{PLAN_WORKFLOWS_MAX, TEXT_BYTES_MAX},
};
use serde::{Deserialize, Serialize};

use super::{clip, clip_to};

/// Most daemons of one command.
pub const TARGETS_MAX: usize = 10_000;
/// Most daemons whose reports are collected by one command: each is some tens of kilobytes.
pub const REPORTS_MAX: usize = 16;
/// Most of one daemon's report that is kept, in bytes, headings included.
pub const REPORT_BYTES_MAX: usize = 192 * 1024;
/// Most of a workflow's name that is kept of an answer, in bytes: no workflow has a longer one.
const NAME_SHOWN_BYTES_MAX: usize = 64;
/// Most parts of a report that are kept.
const PARAGRAPHS_MAX: usize = 16;
/// Shortest and longest deadline, in seconds.
pub const DEADLINE_S: std::ops::RangeInclusive<u64> = 1..=3_600;

/// How a command stands with one daemon. Kept in the store: variants are only ever appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It has not answered yet.
    Waiting,
    /// It says that it is done.
    Done,
    /// It says why not.
    Failed,
    /// It did not answer in time; it may have done it all the same.
    TimedOut,
    /// The plane ended while it was waiting: nobody knows.
    Unknown,
}

/// One daemon of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Target {
    /// Its name.
    pub daemon: String,
    /// Its id.
    pub node: NodeId,
    /// How it stands.
    pub standing: Standing,
    /// Why it failed, or what it waits for; empty otherwise.
    pub cause: String,
    /// The workflows it was done to.
    pub workflows: Vec<String>,
    /// What it found out, when it was asked to.
    pub report: Vec<Paragraph>,
}

/// A part of a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Paragraph {
    /// What it is about.
    pub heading: String,
    /// For people.
    pub text: String,
}

/// As much of a report as is kept. What is cut off says so.
fn bounded(mut report: Vec<Paragraph>) -> Vec<Paragraph> {
    const CUT: &str = "\n(cut here: more than is kept; the daemon itself says it to: mycelial daemon)\n";
    report.truncate(PARAGRAPHS_MAX);
    let mut room = REPORT_BYTES_MAX.saturating_sub(PARAGRAPHS_MAX * CUT.len());
    for Paragraph { heading, text } in &mut report {
        *heading = clip_to(heading, TEXT_BYTES_MAX.min(room));
        room -= heading.len();
        if text.len() > room {
            *text = clip_to(text, room) + CUT;
            room = 0;
        } else {
            room -= text.len();
        }
    }
    report
}

impl From<Section> for Paragraph {
    fn from(Section { heading, text }: Section) -> Self {
        Self { heading, text }
    }
}

/// What a daemon answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answered {
    /// Done, to these workflows.
    Done(Vec<String>),
    /// Why not.
    Failed(String),
    /// What it found out.
    Report(Vec<Paragraph>),
    /// It is at it, and waits for this.
    Working(String),
}

/// A command, as it is kept in the store: the layout is frozen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Command {
    /// Its number.
    pub id: u64,
    /// What is to be done, in words.
    pub what: String,
    /// Who wants it.
    pub by: String,
    /// Since when, milliseconds since 1970.
    pub at_unix_ms: i64,
    /// Until when daemons may answer.
    pub deadline_unix_ms: i64,
    /// The daemons, by name.
    pub daemons: Vec<Target>,
}

/// A command as one of its daemons has it, or all of them together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CommandOf {
    /// Its number.
    pub id: u64,
    /// What is to be done, in words.
    pub what: String,
    /// Who wants it.
    pub by: String,
    /// Since when, milliseconds since 1970.
    pub at_unix_ms: i64,
    /// How it stands there; of several daemons, how it stands with the one that is worst off.
    pub standing: Standing,
    /// Why it failed, or what it waits for; of several daemons, how many stand how.
    pub cause: String,
}

impl Command {
    /// Those that have to be asked, again or for the first time.
    pub fn waiting(&self) -> impl Iterator<Item = (usize, NodeId)> {
        let all = self.daemons.iter().enumerate();
        all.filter(|(_, target)| target.standing == Standing::Waiting)
            .map(|(at, target)| (at, target.node))
    }

    /// What it is to one of its daemons; `None`: it is not for that one.
    pub fn of(&self, node: &NodeId) -> Option<CommandOf> {
        let target = self.daemons.iter().find(|target| target.node == *node)?;
        Some(CommandOf {
            id: self.id,
            what: self.what.clone(),
            by: self.by.clone(),
            at_unix_ms: self.at_unix_ms,
            standing: target.standing,
            cause: target.cause.clone(),
        })
    }

    /// What it is to all its daemons together; `None`: there are none.
    pub fn of_all(&self) -> Option<CommandOf> {
        // What is worse comes later.
        const WORDS: [(Standing, &str); 5] = [
            (Standing::Done, "done"),
            (Standing::Unknown, "unknown"),
            (Standing::TimedOut, "timed out"),
            (Standing::Failed, "failed"),
            (Standing::Waiting, "waiting"),
        ];
        let (mut worst, mut counts) = (None, Vec::new());
        for (standing, word) in WORDS {
            let count = self.daemons.iter().filter(|target| target.standing == standing).count();
            if count > 0 {
                worst = Some(standing);
                counts.push(format!("{count} {word}"));
            }
        }
        Some(CommandOf {
            id: self.id,
            what: self.what.clone(),
            by: self.by.clone(),
            at_unix_ms: self.at_unix_ms,
            standing: worst?,
            cause: counts.join(", "),
        })
    }

    /// Whether nothing more happens.
    pub fn is_over(&self) -> bool {
        self.waiting().next().is_none()
    }

    /// One has answered. What comes after the end changes nothing.
    pub fn answered(&mut self, at: usize, answer: Answered) {
        let Some(target) = self
            .daemons
            .get_mut(at)
            .filter(|target| target.standing == Standing::Waiting)
        else {
            return;
        };
        target.cause.clear();
        match answer {
            Answered::Working(what) => target.cause = clip(&what),
            Answered::Done(workflows) => {
                let names = workflows.iter().take(PLAN_WORKFLOWS_MAX);
                target.workflows = names.map(|name| clip_to(name, NAME_SHOWN_BYTES_MAX)).collect();
                target.standing = Standing::Done;
            }
            Answered::Report(report) => (target.standing, target.report) = (Standing::Done, bounded(report)),
            Answered::Failed(cause) => (target.standing, target.cause) = (Standing::Failed, clip(&cause)),
        }
    }

    /// Whoever has not answered is not waited for any longer.
    #[must_use]
    pub fn ended(mut self, as_what: Standing) -> Self {
        for target in &mut self.daemons {
            if target.standing == Standing::Waiting {
                target.standing = as_what;
            }
        }
        self
    }

    /// Only what somebody with a scope may see of it.
    #[must_use]
    pub fn narrowed(mut self, sees: impl Fn(&NodeId) -> bool) -> Self {
        self.daemons.retain(|target| sees(&target.node));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command() -> Command {
        let target = |n: u8| Target {
            daemon: format!("d{n}"),
            node: NodeId::from_hash(&[n; 32]),
            standing: Standing::Waiting,
            cause: String::new(),
            workflows: Vec::new(),
            report: Vec::new(),
        };
        Command {
            id: 1,
            what: "restart".into(),
            by: "anna".into(),
            at_unix_ms: 1,
            deadline_unix_ms: 2,
            daemons: (0..4).map(target).collect(),
        }
    }

    #[test]
    fn it_ends_for_each_and_once() {
        let mut command = command();
        assert_eq!(command.waiting().count(), 4);
        command.answered(0, Answered::Done(vec!["shop".into()]));
        command.answered(1, Answered::Failed("no such workflow".into()));
        // Said twice, and by nobody.
        command.answered(0, Answered::Failed("late".into()));
        command.answered(9, Answered::Done(Vec::new()));
        assert_eq!(command.waiting().map(|(at, _)| at).collect::<Vec<_>>(), [2, 3]);
        command.answered(3, Answered::Report(Vec::new()));
        assert!(!command.is_over());
        let mut ended = command.ended(Standing::TimedOut);
        assert!(ended.is_over());
        ended.answered(2, Answered::Done(Vec::new()));
        let standings: Vec<_> = ended.daemons.iter().map(|target| target.standing).collect();
        assert_eq!(
            standings,
            [Standing::Done, Standing::Failed, Standing::TimedOut, Standing::Done]
        );
    }

    #[test]
    fn what_an_answer_may_take() {
        let mut command = command();
        let long = "ä".repeat(REPORT_BYTES_MAX);
        command.answered(0, Answered::Failed(long.clone()));
        command.answered(1, Answered::Done(vec![long.clone(); 10 * PLAN_WORKFLOWS_MAX]));
        let paragraph = |text: &str| Paragraph {
            heading: text.into(),
            text: text.into(),
        };
        command.answered(2, Answered::Report(vec![paragraph(&long); 100]));
        command.answered(3, Answered::Report(vec![paragraph("fine"); 3]));
        let [failed, done, report, fine] = &command.daemons[..] else {
            panic!("four")
        };
        assert!(failed.cause.len() <= TEXT_BYTES_MAX && failed.cause.starts_with('ä'));
        assert_eq!(done.workflows.len(), PLAN_WORKFLOWS_MAX);
        assert!(done.workflows.iter().all(|name| name.len() <= NAME_SHOWN_BYTES_MAX));
        let bytes = |target: &Target| {
            let each = target.report.iter().map(|part| part.heading.len() + part.text.len());
            each.sum::<usize>()
        };
        assert!(
            (REPORT_BYTES_MAX / 2..=REPORT_BYTES_MAX).contains(&bytes(report)),
            "{}",
            bytes(report)
        );
        assert!(report.report[0].text.ends_with("mycelial daemon)\n"));
        assert_eq!(fine.report, vec![paragraph("fine"); 3]);
    }

    #[test]
    fn one_daemon_has_its_own_standing() {
        let mut command = command();
        command.answered(1, Answered::Failed("no such workflow".into()));
        let nodes: Vec<_> = command.daemons.iter().map(|target| target.node).collect();
        let of = |at: usize| command.of(&nodes[at]).map(|of| (of.id, of.standing, of.cause));
        assert_eq!(of(0), Some((1, Standing::Waiting, String::new())));
        assert_eq!(of(1), Some((1, Standing::Failed, "no such workflow".into())));
        assert_eq!(command.of(&NodeId::from_hash(&[99; 32])), None);
    }

    #[test]
    fn all_daemons_together_stand_as_the_worst() {
        let mut command = command();
        let of = |command: &Command| command.of_all().map(|of| (of.standing, of.cause));
        command.answered(0, Answered::Done(Vec::new()));
        command.answered(1, Answered::Failed("no".into()));
        assert_eq!(
            of(&command),
            Some((Standing::Waiting, "1 done, 1 failed, 2 waiting".into()))
        );
        let ended = command.ended(Standing::TimedOut);
        assert_eq!(
            of(&ended),
            Some((Standing::Failed, "1 done, 2 timed out, 1 failed".into()))
        );
        assert_eq!(of(&ended.narrowed(|_| false)), None);
    }

    #[test]
    fn a_scope_hides_the_others() {
        let command = command();
        let seen = command.daemons[2].node;
        let narrow = command.narrowed(|node| *node == seen);
        assert_eq!(narrow.daemons.len(), 1);
    }
}
