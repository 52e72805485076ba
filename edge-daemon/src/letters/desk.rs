//! Answers what operators ask about dead letters. Decides nothing about pipes: a letter that is to be tried again is marked,
//! and its pipe takes it when it runs. Blocks.

use bus_schema::{
    api::{Failure, FailureKind},
    letter::{
        LetterBoxView, LetterCall, LetterPage, LetterPlace, LetterResult, LetterSelect, LetterStage, LetterState,
        LetterView,
    },
    limits::{LETTER_PART_BYTES, LETTERS_PER_PAGE},
};
use flow::LetterPoint;

use super::{
    Letters, StoreError, mend,
    row::{Row, State},
    store::{Counters, Filter, Mended},
};

/// Where questions about letters are answered.
pub struct Desk {
    letters: Letters,
    /// Names of the workflows in the daemon's plan.
    planned: Vec<String>,
}

fn failure(kind: FailureKind, message: String, hint: &str) -> LetterResult {
    LetterResult::Failed(Failure {
        kind,
        message,
        hint: hint.to_string(),
        problems: Vec::new(),
    })
}

fn filter(select: &LetterSelect) -> Filter {
    Filter {
        node: select.node.clone(),
        ids: select.ids.clone(),
    }
}

/// A row as others see it.
fn view(workflow: &str, row: Row) -> LetterView {
    LetterView {
        place: LetterPlace {
            workflow: workflow.to_string(),
            id: row.id,
        },
        stage: match row.point {
            LetterPoint::Source => LetterStage::Source,
            LetterPoint::Transform => LetterStage::Transform,
            LetterPoint::Destination => LetterStage::Destination,
        },
        state: match row.state {
            State::Kept => LetterState::Kept,
            State::Queued => LetterState::Queued,
            State::Doubtful | State::DoubtfulQueued => LetterState::Doubtful,
        },
        node: row.node,
        path: row.path,
        reason: row.reason,
        refusal: row.refusal,
        replays: row.replays,
        boot: row.stamp.boot,
        uptime_ms: row.stamp.uptime_ms,
        unix_ms: row.stamp.unix_ms,
        record_bytes: row.record_bytes,
    }
}

impl Desk {
    /// Over these letters, of a daemon that has these workflows in its plan.
    pub fn new(letters: Letters, planned: Vec<String>) -> Self {
        Self { letters, planned }
    }

    /// Does what is asked. The second value names the workflows whose letters are to be tried again now.
    pub fn answer(&self, call: &LetterCall) -> (LetterResult, Vec<String>) {
        let answered = match call {
            LetterCall::List { select, after } => self.list(select, after.as_ref()).map(|page| (page, Vec::new())),
            LetterCall::Show { letter, offset } => self.show(letter, *offset).map(|shown| (shown, Vec::new())),
            LetterCall::Replay(select) => self.replay(select),
            LetterCall::Purge(select) => self.purge(select).map(|done| (done, Vec::new())),
            LetterCall::Mend { letter, values } => self.mend(letter, values).map(|done| (done, Vec::new())),
        };
        answered.unwrap_or_else(|error| {
            let hint = "see the daemon's log and its disk";
            let message = format!("the dead letters cannot be reached: {error}");
            (failure(FailureKind::Internal, message, hint), Vec::new())
        })
    }

    /// The selected workflows that have letters on disk.
    fn chosen(&self, select: &LetterSelect) -> Result<Vec<String>, StoreError> {
        let mut names = self.letters.workflows()?;
        names.retain(|name| select.workflow.is_empty() || *name == select.workflow);
        Ok(names)
    }

    fn list(&self, select: &LetterSelect, after: Option<&LetterPlace>) -> Result<LetterResult, StoreError> {
        let mut page = LetterPage::default();
        for name in self.chosen(select)? {
            let letters = self.letters.of(&name);
            if after.is_none() {
                let counters = letters.with_existing(|store| Ok(store.counters()))?;
                page.boxes
                    .extend(counters.map(|counters| self.box_view(&name, counters)));
            }
            if after.is_some_and(|after| name < after.workflow) || page.next.is_some() {
                continue;
            }
            let from = after.filter(|after| after.workflow == name).map_or(0, |after| after.id);
            let most = LETTERS_PER_PAGE - page.letters.len();
            // One more than fits shows whether there is more.
            let found = letters.with_existing(|store| store.list(&filter(select), from, most + 1))?;
            let mut found = found.unwrap_or_default();
            if found.len() > most {
                found.truncate(most);
                page.letters.extend(found.into_iter().map(|row| view(&name, row)));
                page.next = page.letters.last().map(|letter| letter.place.clone());
            } else {
                page.letters.extend(found.into_iter().map(|row| view(&name, row)));
            }
        }
        Ok(LetterResult::Page(page))
    }

    fn box_view(&self, workflow: &str, counters: Counters) -> LetterBoxView {
        LetterBoxView {
            workflow: workflow.to_string(),
            is_planned: self.planned.iter().any(|name| name == workflow),
            evicted: counters.evicted,
            purged: counters.purged,
            replayed: counters.replayed,
            damaged: counters.damaged,
        }
    }

    fn show(&self, letter: &LetterPlace, offset: u64) -> Result<LetterResult, StoreError> {
        let LetterPlace { workflow, id } = letter;
        // A name from outside names a file only if there is one.
        let is_there = self.letters.workflows()?.contains(workflow);
        let letters = is_there.then(|| self.letters.of(workflow));
        let shown = letters.map(|letters| letters.with_existing(|store| store.show(*id, offset, LETTER_PART_BYTES)));
        Ok(match shown.transpose()?.flatten().flatten() {
            Some((row, bytes)) => LetterResult::Letter {
                letter: view(workflow, row),
                bytes,
            },
            None => failure(
                FailureKind::NotFound,
                format!("there is no dead letter {id} of workflow '{workflow}' here"),
                "it may have been tried again, purged, or gone for want of room; see: mycelial dlq list",
            ),
        })
    }

    fn mend(&self, letter: &LetterPlace, values: &str) -> Result<LetterResult, StoreError> {
        let LetterPlace { workflow, id } = letter;
        // A name from outside names a file only if there is one.
        let is_there = self.letters.workflows()?.contains(workflow);
        let letters = is_there.then(|| self.letters.of(workflow));
        let done = letters
            .map(|letters| letters.with_existing(|store| store.mend(*id, |record| mend::mended(record, values))));
        Ok(match done.transpose()?.flatten().unwrap_or(Mended::None) {
            Mended::Done => LetterResult::Done {
                letters: 1,
                doubtful: 0,
                notes: Vec::new(),
            },
            Mended::Wrong(wrong) => failure(FailureKind::Invalid, wrong, "nothing was changed"),
            Mended::Busy => failure(
                FailureKind::Conflict,
                "only a letter that waits for a person can be changed, and only if it is a record".to_string(),
                "this one is to be tried again, is in doubt, or is what a source could not read",
            ),
            Mended::None => failure(
                FailureKind::NotFound,
                format!("there is no dead letter {id} of workflow '{workflow}' here"),
                "it may have been tried again, purged, or gone for want of room; see: mycelial dlq list",
            ),
        })
    }

    fn replay(&self, select: &LetterSelect) -> Result<(LetterResult, Vec<String>), StoreError> {
        let (mut count, mut doubtful, mut notes, mut wished) = (0, 0, Vec::new(), Vec::new());
        for name in self.chosen(select)? {
            let letters = self.letters.of(&name);
            let Some(queued) = letters.with_existing(|store| store.queue(&filter(select)))? else {
                continue;
            };
            count += queued.queued;
            doubtful += queued.doubtful;
            if queued.queued == 0 {
                continue;
            }
            letters.wish();
            if self.planned.contains(&name) {
                wished.push(name);
            } else {
                notes.push(format!(
                    "workflow '{name}' does not run here: its letters wait until it does"
                ));
            }
        }
        let done = LetterResult::Done {
            letters: count,
            doubtful,
            notes,
        };
        Ok((done, wished))
    }

    fn purge(&self, select: &LetterSelect) -> Result<LetterResult, StoreError> {
        let mut letters = 0;
        for name in self.chosen(select)? {
            let purged = self
                .letters
                .of(&name)
                .with_existing(|store| store.purge(&filter(select)))?;
            letters += purged.unwrap_or(0);
        }
        Ok(LetterResult::Done {
            letters,
            doubtful: 0,
            notes: Vec::new(),
        })
    }
}
