//! The audit in the store: appended to, read, and cut at its beginning. Knows how entries hang together, not what they are about.

use bus_schema::{
    audit::{AUDIT_PAGE_MAX, AuditCall, AuditEntry, AuditEvent, AuditFault, AuditHead, AuditOutcome, AuditPage},
    decode, encode,
};
use rusqlite::{Connection, OptionalExtension as _, Row, TransactionBehavior, params};

use super::{Store, StoreError, set};

/// Most entries that are kept: about 20 MB.
pub const ENTRIES_MAX: u64 = 100_000;
/// So many are cut off at a time, so that it is not done at each entry.
const CUT: u64 = 1_000;
/// Entries read in one go to be checked.
const CHECKED_AT_ONCE: u16 = AUDIT_PAGE_MAX;

const HEAD: &str = "audit_head";
const CUT_AT: &str = "audit_cut";

const COLUMNS: &str = "number, at_unix_ms, who, origin, action, what, outcome, cause, hash";

fn word(outcome: AuditOutcome) -> &'static str {
    match outcome {
        AuditOutcome::Done => "done",
        AuditOutcome::Refused => "refused",
        AuditOutcome::Failed => "failed",
    }
}

fn entry(row: &Row<'_>) -> rusqlite::Result<AuditEntry> {
    let outcome: String = row.get(6)?;
    Ok(AuditEntry {
        number: row.get::<_, i64>(0)?.cast_unsigned(),
        event: AuditEvent {
            at_unix_ms: row.get(1)?,
            who: row.get(2)?,
            from: row.get(3)?,
            action: row.get(4)?,
            what: row.get(5)?,
            // What is none of these was altered: the hash says so.
            outcome: match outcome.as_str() {
                "done" => AuditOutcome::Done,
                "refused" => AuditOutcome::Refused,
                _ => AuditOutcome::Failed,
            },
            cause: row.get(7)?,
        },
        hash: row.get(8)?,
    })
}

fn place(db: &Connection, key: &str) -> Result<AuditHead, StoreError> {
    let sql = "SELECT value FROM settings WHERE key = ?1";
    let found: Option<Vec<u8>> = db.prepare_cached(sql)?.query_row([key], |row| row.get(0)).optional()?;
    Ok(match found {
        None => AuditHead::default(),
        Some(bytes) => decode(&bytes).ok_or(StoreError::Damaged { table: "settings" })?,
    })
}

/// Appends entries within whatever transaction is open.
pub(super) fn append(db: &Connection, events: &[AuditEvent], most: u64) -> Result<(), StoreError> {
    if events.is_empty() {
        return Ok(());
    }
    let mut head = place(db, HEAD)?;
    for event in events {
        let AuditEntry { number, event, hash } = head.next(event.clone());
        let sql = format!("INSERT INTO audit ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)");
        db.prepare_cached(&sql)?.execute(params![
            number.cast_signed(),
            event.at_unix_ms,
            event.who,
            event.from,
            event.action,
            event.what,
            word(event.outcome),
            event.cause,
            hash
        ])?;
        head = AuditHead { number, hash };
    }
    set(db, HEAD, &encode(&head))?;
    let cut = place(db, CUT_AT)?;
    if head.number - cut.number > most + CUT.min(most) {
        let sql = "SELECT hash FROM audit WHERE number = ?1";
        let number = head.number - most;
        let hash: Option<String> = db.query_row(sql, [number.cast_signed()], |row| row.get(0)).optional()?;
        // Where that one is missing the chain is broken, and is left as it is.
        if let Some(hash) = hash {
            db.execute("DELETE FROM audit WHERE number <= ?1", [number.cast_signed()])?;
            set(db, CUT_AT, &encode(&AuditHead { number, hash }))?;
        }
    }
    Ok(())
}

/// What came of checking the chain, or a part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checked {
    /// It holds up to here, and goes on.
    Further(AuditHead),
    /// It holds to its end.
    Whole(AuditHead),
    /// It does not.
    Broken(AuditFault),
}

impl Store {
    /// Appends entries to the audit.
    pub fn audit(&mut self, events: &[AuditEvent]) -> Result<(), StoreError> {
        let transaction = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        append(&transaction, events, ENTRIES_MAX)?;
        Ok(transaction.commit()?)
    }

    /// Makes a change and appends its entry, both or neither; the change may say more precisely in it what it is about. What
    /// turns out to be no change (`None`) has no entry.
    pub fn noted<T>(
        &mut self,
        mut event: AuditEvent,
        change: impl FnOnce(&mut Self, &mut AuditEvent) -> Result<Option<T>, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        self.db.execute_batch("BEGIN IMMEDIATE")?;
        let done = change(self, &mut event).and_then(|done| {
            if done.is_some() {
                append(&self.db, &[event], ENTRIES_MAX)?;
            }
            self.db.execute_batch("COMMIT")?;
            Ok(done)
        });
        if done.is_err() && !self.db.is_autocommit() {
            self.db.execute_batch("ROLLBACK")?;
        }
        done
    }

    /// Where the audit ends; an error when it cannot be gone on with.
    pub fn audit_head(&self) -> Result<AuditHead, StoreError> {
        place(&self.db, HEAD)
    }

    /// Where the audit begins: what was before it has been cut off.
    pub fn audit_cut(&self) -> Result<AuditHead, StoreError> {
        place(&self.db, CUT_AT)
    }

    /// Entries of the audit.
    pub fn audit_page(&self, call: &AuditCall) -> Result<AuditPage, StoreError> {
        let entries = match call {
            AuditCall::Chain { after } => self.audit_after(*after, AUDIT_PAGE_MAX)?,
            AuditCall::Search { before, most, wish } => {
                let before = if *before == 0 { i64::MAX } else { before.cast_signed() };
                let sql = format!(
                    "SELECT {COLUMNS} FROM audit WHERE number < ?1 AND at_unix_ms >= ?2 AND (?3 = '' OR who = ?3) \
                     ORDER BY number DESC"
                );
                let mut statement = self.db.prepare_cached(&sql)?;
                let found = statement.query_map(params![before, wish.since_unix_ms, wish.by], entry)?;
                let most = usize::from((*most).clamp(1, AUDIT_PAGE_MAX));
                let wanted = found.filter(|entry| entry.as_ref().map_or(true, |entry| entry.event.matches(wish)));
                wanted.take(most).collect::<Result<_, _>>()?
            }
        };
        Ok(AuditPage {
            cut: place(&self.db, CUT_AT)?,
            entries,
            head: place(&self.db, HEAD)?,
        })
    }

    fn audit_after(&self, after: u64, most: u16) -> Result<Vec<AuditEntry>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM audit WHERE number > ?1 ORDER BY number LIMIT ?2");
        let mut statement = self.db.prepare_cached(&sql)?;
        let found = statement.query_map(params![after.cast_signed(), most], entry)?;
        Ok(found.collect::<Result<_, _>>()?)
    }

    /// Checks the chain a piece further: begin with [`Self::audit_cut`].
    pub fn audit_check(&self, mut from: AuditHead) -> Result<Checked, StoreError> {
        let piece = self.audit_after(from.number, CHECKED_AT_ONCE)?;
        if let Err(fault) = piece.iter().try_for_each(|entry| from.take(entry)) {
            return Ok(Checked::Broken(fault));
        }
        if piece.len() == usize::from(CHECKED_AT_ONCE) {
            return Ok(Checked::Further(from));
        }
        Ok(match from.ends(&place(&self.db, HEAD)?) {
            Ok(()) => Checked::Whole(from),
            Err(fault) => Checked::Broken(fault),
        })
    }
}

#[cfg(test)]
mod tests {
    use bus_schema::audit::AuditWish;

    use super::*;

    fn event(n: i64) -> AuditEvent {
        AuditEvent::new(
            n,
            if n % 2 == 0 { "anna" } else { "bert" },
            "bus",
            "deploy a workflow",
            &format!("orders-{n}"),
        )
    }

    fn filled(count: i64) -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(&dir.path().join("plane.db")).unwrap();
        for n in 1..=count {
            store.audit(&[event(n)]).unwrap();
        }
        (dir, store)
    }

    fn check(store: &Store) -> Result<u64, AuditFault> {
        let mut from = store.audit_cut().unwrap();
        loop {
            match store.audit_check(from).unwrap() {
                Checked::Further(further) => from = further,
                Checked::Whole(head) => return Ok(head.number),
                Checked::Broken(fault) => return Err(fault),
            }
        }
    }

    #[test]
    fn a_change_and_its_entry_are_both_or_neither() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(&dir.path().join("plane.db")).unwrap();
        let user = |name: &str| crate::store::User {
            name: name.into(),
            rank: crate::permission::Rank::Viewer,
            scope: None,
            password: "hash".into(),
            made_unix_ms: 1,
        };
        let event = AuditEvent::new(1, "anna", "", "add a user", "somebody");
        let said = |store: &Store| {
            store
                .users()
                .unwrap()
                .into_iter()
                .map(|user| user.name)
                .collect::<Vec<_>>()
        };
        let entries = |store: &Store| place(&store.db, HEAD).unwrap().number;
        let add = |store: &mut Store, name: &str| {
            store.noted(event.clone(), |store, event| {
                event.what = name.to_string();
                Ok(store.add_user(&user(name), 9)?.then_some(()))
            })
        };
        assert_eq!(add(&mut store, "bert").unwrap(), Some(()));
        assert_eq!((said(&store), entries(&store)), (vec!["bert".to_string()], 1));
        assert_eq!(add(&mut store, "bert").unwrap(), None, "the name is taken");
        assert_eq!(entries(&store), 1);
        // A change that is a transaction of its own elsewhere is a part of this one.
        let changed = store.noted(event.clone(), |store, _| {
            store.change_user("bert", None, None, Some("new"), None)?;
            Err::<Option<()>, _>(StoreError::Damaged { table: "users" })
        });
        assert!(changed.is_err());
        assert_eq!(
            (store.user("bert").unwrap().unwrap().password.as_str(), entries(&store)),
            ("hash", 1)
        );
        let no_entry = "CREATE TEMP TRIGGER no_entry BEFORE INSERT ON audit BEGIN SELECT raise(ABORT, 'disk'); END";
        store.db.execute_batch(no_entry).unwrap();
        assert!(add(&mut store, "carl").is_err());
        assert_eq!((said(&store), entries(&store)), (vec!["bert".to_string()], 1));
        store.db.execute_batch("DROP TRIGGER no_entry").unwrap();
        assert_eq!(
            add(&mut store, "carl").unwrap(),
            Some(()),
            "no transaction is left open"
        );
    }

    #[test]
    fn what_somebody_does_to_the_file_is_found() {
        for (sql, fault) in [
            ("", None),
            (
                "UPDATE audit SET what = 'other' WHERE number = 3",
                Some(AuditFault::Altered { number: 3 }),
            ),
            (
                "UPDATE audit SET outcome = 'refused' WHERE number = 6",
                Some(AuditFault::Altered { number: 6 }),
            ),
            (
                "DELETE FROM audit WHERE number = 4",
                Some(AuditFault::Order { expected: 4, found: 5 }),
            ),
            (
                "DELETE FROM audit WHERE number = 6",
                Some(AuditFault::End { expected: 6, found: 5 }),
            ),
            ("DELETE FROM audit", Some(AuditFault::End { expected: 6, found: 0 })),
            (
                "UPDATE audit SET number = 99 WHERE number = 2; UPDATE audit SET number = 2 WHERE number = 3; \
                 UPDATE audit SET number = 3 WHERE number = 99;",
                Some(AuditFault::Altered { number: 2 }),
            ),
        ] {
            let (_dir, store) = filled(6);
            store.db.execute_batch(sql).unwrap();
            assert_eq!(check(&store), fault.map_or(Ok(6), Err), "{sql}");
        }
    }

    #[test]
    fn the_beginning_is_cut_and_the_chain_goes_on() {
        let (_dir, mut store) = filled(0);
        for n in 1..=25 {
            append(&store.db, &[event(n)], 10).unwrap();
        }
        let cut = store.audit_cut().unwrap();
        assert_eq!(check(&store), Ok(25));
        assert!(cut.number >= 5 && 25 - cut.number <= 20, "{cut:?}");
        let page = store.audit_page(&AuditCall::Chain { after: 0 }).unwrap();
        assert_eq!(page.entries.first().map(|entry| entry.number), Some(cut.number + 1));
        assert_eq!((page.cut, page.head.number), (cut, 25));
        store.audit(&[event(26)]).unwrap();
        assert_eq!(check(&store), Ok(26));
    }

    #[test]
    fn a_long_chain_is_checked_piece_by_piece_and_searched_backwards() {
        let (_dir, mut store) = filled(0);
        let events: Vec<_> = (1..=1_200).map(event).collect();
        store.audit(&events).unwrap();
        assert_eq!(check(&store), Ok(1_200));
        let search = |before, most, by: &str, since_unix_ms, search: &str| {
            let wish = AuditWish {
                by: by.into(),
                since_unix_ms,
                search: search.into(),
            };
            let page = store.audit_page(&AuditCall::Search { before, most, wish }).unwrap();
            page.entries.iter().map(|entry| entry.number).collect::<Vec<_>>()
        };
        assert_eq!(search(0, 2, "", 0, ""), [1_200, 1_199]);
        assert_eq!(search(1_199, 2, "anna", 0, ""), [1_198, 1_196]);
        assert_eq!(
            search(0, 9, "", 0, "ORDERS-77"),
            [779, 778, 777, 776, 775, 774, 773, 772, 771]
        );
        assert_eq!(search(771, 9, "", 0, "ORDERS-77"), [770, 77]);
        assert_eq!(search(0, 9, "bert", 1_198, ""), [1_199]);
    }
}
