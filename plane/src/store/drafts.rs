//! Drafts of workflows in the store: what the editor keeps while somebody writes. Deploying is something else.

use bus_schema::{audit::AuditEvent, decode, encode};
use rusqlite::{Connection, OptionalExtension as _, Row, TransactionBehavior, params};

use super::{
    Store, StoreError,
    audit::{ENTRIES_MAX, append},
    set,
};

/// Counts all changes of all drafts.
const COUNT: &str = "draft_changes";

/// A draft.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// Its name: the workflow's.
    pub name: String,
    /// What the workflow shall say; it need not be right.
    pub text: String,
    /// Where the page has put things, as JSON.
    pub layout: String,
    /// Another one after each change.
    pub revision: u32,
    /// Who began it: it stays theirs, whoever writes on.
    pub owner: String,
    /// Who changed it last.
    pub by: String,
    /// When, milliseconds since 1970.
    pub at_unix_ms: i64,
}

/// What became of a wish to change a draft.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// It has this revision now.
    As(u32),
    /// It is at this one, not at the one that was expected; 0: there is none.
    Moved(u32),
    /// There are too many.
    Full,
}

const COLUMNS: &str = "name, text, layout, revision, made_by, at_unix_ms, owner";

fn draft(row: &Row<'_>) -> rusqlite::Result<Draft> {
    Ok(Draft {
        name: row.get(0)?,
        text: row.get(1)?,
        layout: row.get(2)?,
        revision: row.get(3)?,
        by: row.get(4)?,
        at_unix_ms: row.get(5)?,
        owner: row.get(6)?,
    })
}

/// A draft's revision, and who changed it last; 0 when there is none.
fn before(db: &Connection, name: &str) -> Result<(u32, String), StoreError> {
    let sql = "SELECT revision, made_by FROM drafts WHERE name = ?1";
    let found = db.query_row(sql, [name], |row| Ok((row.get(0)?, row.get(1)?)));
    Ok(found.optional()?.unwrap_or_default())
}

impl Store {
    /// All drafts by name, without text and layout.
    pub fn drafts(&self) -> Result<Vec<Draft>, StoreError> {
        let sql = "SELECT name, '', '', revision, made_by, at_unix_ms, owner FROM drafts ORDER BY name";
        let mut statement = self.db.prepare(sql)?;
        let rows = statement.query_map([], draft)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// One of them.
    pub fn draft(&self, name: &str) -> Result<Option<Draft>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM drafts WHERE name = ?1");
        Ok(self.db.query_row(&sql, [name], draft).optional()?)
    }

    /// Keeps a draft, if it is at the expected revision (0: there is none) and there are less than `most` others. The editor does
    /// so every few seconds: there is an entry when a draft is begun, and when somebody else goes on with it.
    pub fn keep_draft(
        &mut self,
        draft: &Draft,
        expected: Option<u32>,
        most: u32,
        event: AuditEvent,
    ) -> Result<Kept, StoreError> {
        let transaction = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let (current, last_by) = before(&transaction, &draft.name)?;
        if expected.is_some_and(|expected| expected != current) {
            return Ok(Kept::Moved(current));
        }
        let count: u32 = transaction.query_row("SELECT count(*) FROM drafts", [], |row| row.get(0))?;
        if current == 0 && count >= most {
            return Ok(Kept::Full);
        }
        let sql = "SELECT value FROM settings WHERE key = ?1";
        let last: Option<Vec<u8>> = transaction.query_row(sql, [COUNT], |row| row.get(0)).optional()?;
        let next: u32 = last.and_then(|bytes| decode(&bytes)).unwrap_or(0) + 1;
        set(&transaction, COUNT, &encode(&next))?;
        // Whose it is, is said once.
        let sql = format!(
            "INSERT INTO drafts ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (name) DO UPDATE SET \
             text = ?2, layout = ?3, revision = ?4, made_by = ?5, at_unix_ms = ?6"
        );
        let Draft {
            name,
            text,
            layout,
            owner,
            by,
            at_unix_ms,
            revision: _,
        } = draft;
        transaction.execute(&sql, params![name, text, layout, next, by, at_unix_ms, owner])?;
        if current == 0 || last_by != *by {
            append(&transaction, &[event], ENTRIES_MAX)?;
        }
        transaction.commit()?;
        Ok(Kept::As(next))
    }

    /// Forgets one, if it is at the expected revision, with the entry about it.
    pub fn forget_draft(&mut self, name: &str, expected: Option<u32>, event: AuditEvent) -> Result<Kept, StoreError> {
        let transaction = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let (current, _) = before(&transaction, name)?;
        if current == 0 || expected.is_some_and(|expected| expected != current) {
            return Ok(Kept::Moved(current));
        }
        transaction.execute("DELETE FROM drafts WHERE name = ?1", [name])?;
        append(&transaction, &[event], ENTRIES_MAX)?;
        transaction.commit()?;
        Ok(Kept::As(0))
    }
}

#[cfg(test)]
mod tests {
    use bus_schema::audit::AuditCall;

    use super::*;

    #[test]
    fn nobody_overwrites_what_it_has_not_seen() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(&dir.path().join("plane.db")).unwrap();
        let draft = |name: &str| Draft {
            name: name.into(),
            text: "half a workfl".into(),
            layout: "{}".into(),
            revision: 0,
            owner: "anna".into(),
            by: "anna".into(),
            at_unix_ms: 5,
        };
        let event = |what: &str| AuditEvent::new(5, "anna", "page", "draft", what);
        for (name, expected, kept) in [
            ("a", Some(0), Kept::As(1)),
            ("a", Some(0), Kept::Moved(1)),
            ("a", Some(1), Kept::As(2)),
            ("a", None, Kept::As(3)),
            ("b", Some(7), Kept::Moved(0)),
            ("b", None, Kept::As(4)),
            ("c", None, Kept::Full),
        ] {
            assert_eq!(
                store.keep_draft(&draft(name), expected, 2, event(name)).unwrap(),
                kept,
                "{name} {expected:?}"
            );
        }
        assert_eq!(
            store.draft("a").unwrap(),
            Some(Draft {
                revision: 3,
                ..draft("a")
            })
        );
        assert_eq!(store.drafts().unwrap().len(), 2);
        let forget = |store: &mut Store, expected| store.forget_draft("a", expected, event("a, forgotten")).unwrap();
        assert_eq!(forget(&mut store, Some(2)), Kept::Moved(3));
        assert_eq!(forget(&mut store, Some(3)), Kept::As(0));
        assert_eq!(forget(&mut store, None), Kept::Moved(0));
        // A tag from before the removal fits nothing that is made after it.
        assert_eq!(
            store.keep_draft(&draft("a"), None, 2, event("a, anew")).unwrap(),
            Kept::As(5)
        );
        let other = Draft {
            owner: "bert".into(),
            by: "bert".into(),
            ..draft("a")
        };
        for revision in [6, 7] {
            let kept = store.keep_draft(&other, None, 2, event("a, by bert")).unwrap();
            assert_eq!(kept, Kept::As(revision));
        }
        let now = store.draft("a").unwrap().unwrap();
        assert_eq!((now.owner.as_str(), now.by.as_str()), ("anna", "bert"), "it stays hers");
        let listed = store.drafts().unwrap();
        assert_eq!((listed[0].owner.as_str(), listed[0].by.as_str()), ("anna", "bert"));
        let page = store.audit_page(&AuditCall::Chain { after: 0 }).unwrap();
        let noted: Vec<_> = page.entries.iter().map(|entry| entry.event.what.as_str()).collect();
        assert_eq!(
            noted,
            ["a", "b", "a, forgotten", "a, anew", "a, by bert"],
            "begun, forgotten and taken over; what is kept every few seconds has none"
        );
    }
}
