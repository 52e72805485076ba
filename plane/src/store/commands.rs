//! Commands in the store.

use bus_schema::{decode, encode};
use rusqlite::{OptionalExtension as _, params};

use super::{Store, StoreError};
use crate::domain::commands::{Command, CommandOf, Standing};

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

    /// What `look` makes of each, the newest first, as they were written last. One that never ended is not known to have.
    pub fn commands(&self, look: impl Fn(Command) -> Option<CommandOf>) -> Result<Vec<CommandOf>, StoreError> {
        let mut statement = self.db.prepare("SELECT body FROM commands ORDER BY id DESC")?;
        let mut rows = statement.query([])?;
        let mut found = Vec::new();
        // One at a time: some hold reports.
        while let Some(row) = rows.next()? {
            let body = row.get_ref(0)?.as_blob().ok();
            let command: Option<Command> = body.and_then(decode);
            let command = command.ok_or(StoreError::Damaged { table: "commands" })?;
            found.extend(look(command.ended(Standing::Unknown)));
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use bus_schema::id::NodeId;

    use super::*;
    use crate::domain::commands::Target;

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
        let target = |n: u8| Target {
            daemon: format!("d{n}"),
            node: NodeId::from_hash(&[n; 32]),
            standing: Standing::Waiting,
            cause: String::new(),
            workflows: Vec::new(),
            report: Vec::new(),
        };
        for all in [&[1][..], &[1, 2], &[2]] {
            let daemons = all.iter().copied().map(target).collect();
            store
                .add_command(Command {
                    daemons,
                    ..command.clone()
                })
                .unwrap();
        }
        let of = |n: u8| {
            let node = NodeId::from_hash(&[n; 32]);
            store.commands(|command| command.of(&node)).unwrap()
        };
        let of = |n| of(n).iter().map(|of| (of.id, of.standing)).collect::<Vec<_>>();
        assert_eq!(of(1), [(3, Standing::Unknown), (2, Standing::Unknown)]);
        assert_eq!(of(2).len(), 2);
        assert_eq!(of(3), []);
        for _ in 0..KEPT_MAX {
            store.add_command(command.clone()).unwrap();
        }
        assert_eq!(store.command(1).unwrap(), None);
        assert!(store.command(5).unwrap().is_some());
    }
}
