//! Commands in the store.

use bus_schema::{decode, encode};
use rusqlite::{OptionalExtension as _, params};

use super::{Store, StoreError};
use crate::domain::commands::Command;

/// Most commands that are remembered; the oldest are forgotten.
const KEPT_MAX: u32 = 100;

impl Store {
    /// Keeps a new command, and gives it its number.
    pub fn add_command(&self, mut command: Command) -> Result<Command, StoreError> {
        self.db
            .execute("INSERT INTO commands (body) VALUES (?1)", [encode(&command)])?;
        command.id = self.db.last_insert_rowid().cast_unsigned();
        self.end_command(&command)?;
        self.db.execute(
            "DELETE FROM commands WHERE id <= (SELECT max(id) FROM commands) - ?1",
            [KEPT_MAX],
        )?;
        Ok(command)
    }

    /// Keeps what became of it.
    pub fn end_command(&self, command: &Command) -> Result<(), StoreError> {
        let row = params![command.id.cast_signed(), encode(command)];
        self.db.execute("UPDATE commands SET body = ?2 WHERE id = ?1", row)?;
        Ok(())
    }

    /// One of them, as it was written last.
    pub fn command(&self, id: u64) -> Result<Option<Command>, StoreError> {
        let sql = "SELECT body FROM commands WHERE id = ?1";
        let body: Option<Vec<u8>> = self
            .db
            .query_row(sql, [id.cast_signed()], |row| row.get(0))
            .optional()?;
        body.map(|body| decode(&body).ok_or(StoreError::Damaged { table: "commands" }))
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_numbered_kept_and_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("plane.db")).unwrap();
        let command = Command {
            id: 0,
            what: "ping".into(),
            by: "anna".into(),
            at_unix_ms: 1,
            deadline_unix_ms: 2,
            daemons: Vec::new(),
        };
        let first = store.add_command(command.clone()).unwrap();
        assert_eq!((first.id, store.command(1).unwrap()), (1, Some(first.clone())));
        let ended = Command {
            what: "pinged".into(),
            ..first
        };
        store.end_command(&ended).unwrap();
        assert_eq!(store.command(1).unwrap(), Some(ended));
        for _ in 0..KEPT_MAX {
            store.add_command(command.clone()).unwrap();
        }
        assert_eq!(store.command(1).unwrap(), None);
        assert!(store.command(2).unwrap().is_some());
    }
}
