//! The audit: who did what from where, and what came of it, as a chain of hashes. Plane and daemons keep one each. Pure: stores
//! nothing, and knows neither what is worth an entry nor what time it is.
//!
//! Each entry's hash is over the hash of the one before it, so that an entry cannot be altered, left out or put elsewhere
//! without all that follow being made anew. That too is found by whoever remembers a hash from before: `mycelial audit verify`
//! does. What is too old is cut off at the beginning; the chain then goes on from the hash that is kept in its place.

use alloc::{
    string::{String, ToString as _},
    vec::Vec,
};

use serde::{Deserialize, Serialize};

use crate::{
    encode,
    id::{base32, hash},
};

/// Longest name, address or action in an entry, in characters.
pub const AUDIT_NAME_CHARS_MAX: usize = 64;
/// Longest subject or cause in an entry, in characters.
pub const AUDIT_TEXT_CHARS_MAX: usize = 256;
/// Most entries in one answer.
pub const AUDIT_PAGE_MAX: u16 = 200;

/// What came of it. Variants are only ever appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum AuditOutcome {
    /// It was done.
    Done,
    /// Whoever wanted it may not.
    Refused,
    /// It did not work.
    Failed,
}

/// Something that was done, or was not. Frozen: its bytes are what is hashed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AuditEvent {
    /// When, milliseconds since 1970, by the clock of whoever keeps the audit.
    pub at_unix_ms: i64,
    /// Who: a member, a user, an API token.
    pub who: String,
    /// From where: `bus`, `directory`, or an address of the network.
    pub from: String,
    /// What was done.
    pub action: String,
    /// To what. Never a secret, never a record.
    pub what: String,
    /// What came of it.
    pub outcome: AuditOutcome,
    /// Why not; empty when it was done.
    pub cause: String,
}

/// Cuts a text to so many characters, none of which does something to a terminal.
fn cut(text: &str, most: usize) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(most).map(plain).collect()
}

impl AuditEvent {
    /// An event within the limits.
    pub fn new(at_unix_ms: i64, who: &str, from: &str, action: &str, what: &str) -> Self {
        Self {
            at_unix_ms,
            who: cut(who, AUDIT_NAME_CHARS_MAX),
            from: cut(from, AUDIT_NAME_CHARS_MAX),
            action: cut(action, AUDIT_NAME_CHARS_MAX),
            what: cut(what, AUDIT_TEXT_CHARS_MAX),
            outcome: AuditOutcome::Done,
            cause: String::new(),
        }
    }

    /// The same, ended otherwise.
    #[must_use]
    pub fn but(self, outcome: AuditOutcome, cause: &str) -> Self {
        let cause = cut(cause, AUDIT_TEXT_CHARS_MAX);
        Self { outcome, cause, ..self }
    }

    /// Whether an entry about it is wanted.
    pub fn matches(&self, wish: &AuditWish) -> bool {
        let has = |text: &str| text.to_lowercase().contains(&wish.search.to_lowercase());
        let texts = [&self.who, &self.from, &self.action, &self.what, &self.cause];
        (wish.by.is_empty() || self.who == wish.by)
            && self.at_unix_ms >= wish.since_unix_ms
            && (wish.search.is_empty() || texts.into_iter().any(|text| has(text)))
    }
}

/// An entry of the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AuditEntry {
    /// From 1, one after the other.
    pub number: u64,
    /// What it says.
    pub event: AuditEvent,
    /// The hash of this and all before, in base32.
    pub hash: String,
}

/// A place in the chain: how many entries there are up to it, and the hash of them all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AuditHead {
    /// The last entry's number; 0 before the first.
    pub number: u64,
    /// Its hash.
    pub hash: String,
}

impl Default for AuditHead {
    fn default() -> Self {
        Self {
            number: 0,
            hash: base32(&hash("mycelial audit v1", &[])),
        }
    }
}

impl AuditHead {
    /// The entry that says this next.
    pub fn next(&self, event: AuditEvent) -> AuditEntry {
        let number = self.number.saturating_add(1);
        let parts: [&[u8]; 3] = [self.hash.as_bytes(), &number.to_le_bytes(), &encode(&event)];
        AuditEntry {
            number,
            hash: base32(&hash("mycelial audit v1", &parts)),
            event,
        }
    }

    /// Goes on to the entry that comes next, if it is that.
    pub fn take(&mut self, entry: &AuditEntry) -> Result<(), AuditFault> {
        let next = self.next(entry.event.clone());
        if entry.number != next.number {
            return Err(AuditFault::Order {
                expected: next.number,
                found: entry.number,
            });
        }
        if entry.hash != next.hash {
            return Err(AuditFault::Altered { number: next.number });
        }
        (self.number, self.hash) = (next.number, next.hash);
        Ok(())
    }

    /// Whether the chain ends where whoever keeps it says.
    pub fn ends(&self, said: &AuditHead) -> Result<(), AuditFault> {
        match self == said {
            true => Ok(()),
            false => Err(AuditFault::End {
                expected: said.number,
                found: self.number,
            }),
        }
    }
}

impl From<&AuditEntry> for AuditHead {
    fn from(entry: &AuditEntry) -> Self {
        Self {
            number: entry.number,
            hash: entry.hash.to_string(),
        }
    }
}

/// The chain does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuditFault {
    /// An entry is not what it was when it was written, or the one before it is not.
    #[error("entry {number} was altered, or what stood before it was")]
    Altered {
        /// Which.
        number: u64,
    },
    /// Entries are missing, or stand in another order.
    #[error("entry {expected} was removed, or put elsewhere: entry {found} stands in its place")]
    Order {
        /// The number that should come.
        expected: u64,
        /// The one that came.
        found: u64,
    },
    /// The chain ends elsewhere than it should.
    #[error(
        "the last entry should be {expected}, and the chain ends at {found}: entries were removed from its end, or altered"
    )]
    End {
        /// The number of the last entry there should be.
        expected: u64,
        /// The number of the last there is.
        found: u64,
    },
    /// Somebody remembers another chain.
    #[error("entry {number} is another than it was when it was last verified: the chain was made anew")]
    Remembered {
        /// Which.
        number: u64,
    },
}

/// Which entries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditWish {
    /// Only of this member, user or token; of all when empty.
    pub by: String,
    /// Only since then, milliseconds since 1970.
    pub since_unix_ms: i64,
    /// Only those in which this occurs, whatever its case.
    pub search: String,
}

/// What is asked about the audit. Variants are only ever appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum AuditCall {
    /// The entries after a number, the oldest first and none left out, to check the chain or to keep it elsewhere.
    Chain {
        /// 0 for all there are.
        after: u64,
    },
    /// Entries, the newest first.
    Search {
        /// Only those before this number; 0 for all.
        before: u64,
        /// At most so many.
        most: u16,
        /// Which.
        wish: AuditWish,
    },
}

/// Answers to [`AuditCall`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditPage {
    /// The place after which the chain begins: what was before it has been cut off.
    pub cut: AuditHead,
    /// As they were asked for, as many as fit.
    pub entries: Vec<AuditEntry>,
    /// The place at which it ends.
    pub head: AuditHead,
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;

    fn event(n: u64) -> AuditEvent {
        AuditEvent::new(n as i64, "anna", "bus", "deploy a workflow", &format!("orders {n}"))
    }

    fn chain(count: u64) -> Vec<AuditEntry> {
        let mut head = AuditHead::default();
        let mut all = Vec::new();
        for n in 1..=count {
            let entry = head.next(event(n));
            head = AuditHead::from(&entry);
            all.push(entry);
        }
        all
    }

    fn check(all: &[AuditEntry], said: &AuditHead) -> Result<(), AuditFault> {
        let mut head = AuditHead::default();
        all.iter().try_for_each(|entry| head.take(entry))?;
        head.ends(said)
    }

    #[test]
    fn what_is_altered_removed_or_reordered_is_found() {
        let whole = chain(5);
        let said = AuditHead::from(&whole[4]);
        assert_eq!(check(&whole, &said), Ok(()));
        type Spoil = fn(&mut Vec<AuditEntry>);
        let spoiled: [(&str, Spoil, AuditFault); 8] = [
            (
                "a text",
                |all| all[2].event.what = "nothing".into(),
                AuditFault::Altered { number: 3 },
            ),
            (
                "an outcome",
                |all| all[2].event.outcome = AuditOutcome::Failed,
                AuditFault::Altered { number: 3 },
            ),
            (
                "a time",
                |all| all[0].event.at_unix_ms = 0,
                AuditFault::Altered { number: 1 },
            ),
            (
                "a hash",
                |all| all[1].hash = all[0].hash.clone(),
                AuditFault::Altered { number: 2 },
            ),
            (
                "one removed",
                |all| drop(all.remove(1)),
                AuditFault::Order { expected: 2, found: 3 },
            ),
            (
                "the last removed",
                |all| drop(all.pop()),
                AuditFault::End { expected: 5, found: 4 },
            ),
            (
                "two in each other's place",
                |all| all.swap(1, 2),
                AuditFault::Order { expected: 2, found: 3 },
            ),
            (
                "two in each other's place, with their numbers put right",
                |all| {
                    all.swap(1, 2);
                    (all[1].number, all[2].number) = (2, 3);
                },
                AuditFault::Altered { number: 2 },
            ),
        ];
        for (what, spoil, fault) in spoiled {
            let mut all = whole.clone();
            spoil(&mut all);
            assert_eq!(check(&all, &said), Err(fault), "{what}");
        }
        // Made anew as a whole it holds in itself, and ends elsewhere than is remembered.
        let mut head = AuditHead::default();
        for n in [1, 2, 9, 4, 5] {
            head = AuditHead::from(&head.next(event(n)));
        }
        assert_ne!(head, said);
    }

    #[test]
    fn a_chain_goes_on_from_where_it_was_cut() {
        let whole = chain(5);
        let mut head = AuditHead::from(&whole[2]);
        whole[3..].iter().try_for_each(|entry| head.take(entry)).unwrap();
        assert_eq!(head, AuditHead::from(&whole[4]));
    }

    #[test]
    fn which_entries_are_wanted() {
        let entry = event(7).but(AuditOutcome::Failed, &"why ".repeat(200));
        assert_eq!(entry.cause.chars().count(), AUDIT_TEXT_CHARS_MAX);
        let wish = |by: &str, since_unix_ms, search: &str| AuditWish {
            by: by.into(),
            since_unix_ms,
            search: search.into(),
        };
        for (wish, is_wanted) in [
            (wish("", 0, ""), true),
            (wish("anna", 7, "ORDERS"), true),
            (wish("ann", 0, ""), false),
            (wish("", 8, ""), false),
            (wish("", 0, "WHY why"), true),
            (wish("", 0, "secret"), false),
        ] {
            assert_eq!(entry.matches(&wish), is_wanted, "{wish:?}");
        }
    }
}
