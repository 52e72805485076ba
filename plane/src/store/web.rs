//! Web log-ins in the store: one-time codes and sessions, by hash only.

use rusqlite::params;

use super::{Store, StoreError};

impl Store {
    /// Keeps a one-time code.
    pub fn add_login(&self, hash: &[u8; 32], expires_unix_ms: i64) -> Result<(), StoreError> {
        let sql = "INSERT OR REPLACE INTO logins (hash, expires_unix_ms) VALUES (?1, ?2)";
        self.db.execute(sql, params![hash, expires_unix_ms])?;
        Ok(())
    }

    /// Uses a one-time code up: `true` once for each that has not expired.
    pub fn use_login(&self, hash: &[u8; 32], now_unix_ms: i64) -> Result<bool, StoreError> {
        let used = self.db.execute(
            "DELETE FROM logins WHERE hash = ?1 AND expires_unix_ms > ?2",
            params![hash, now_unix_ms],
        )?;
        Ok(used == 1)
    }

    /// Keeps a session.
    pub fn add_session(&self, hash: &[u8; 32], expires_unix_ms: i64) -> Result<(), StoreError> {
        let sql = "INSERT OR REPLACE INTO sessions (hash, expires_unix_ms) VALUES (?1, ?2)";
        self.db.execute(sql, params![hash, expires_unix_ms])?;
        Ok(())
    }

    /// Ends a session.
    pub fn end_session(&self, hash: &[u8; 32]) -> Result<(), StoreError> {
        self.db.execute("DELETE FROM sessions WHERE hash = ?1", params![hash])?;
        Ok(())
    }

    /// All sessions that have not expired; forgets everything that has.
    pub fn sessions(&self, now_unix_ms: i64) -> Result<Vec<([u8; 32], i64)>, StoreError> {
        for table in ["logins", "sessions"] {
            self.db.execute(
                &format!("DELETE FROM {table} WHERE expires_unix_ms <= ?1"),
                [now_unix_ms],
            )?;
        }
        let mut statement = self.db.prepare("SELECT hash, expires_unix_ms FROM sessions")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_work_once_and_sessions_expire() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plane.db");
        let store = Store::open(&path).unwrap();
        // Another process makes the code.
        Store::open(&path).unwrap().add_login(&[1; 32], 100).unwrap();
        store.add_login(&[2; 32], 100).unwrap();
        for (hash, now, good) in [
            ([9; 32], 0, false),
            ([1; 32], 99, true),
            ([1; 32], 99, false),
            ([2; 32], 100, false),
        ] {
            assert_eq!(store.use_login(&hash, now).unwrap(), good, "{hash:?} {now}");
        }
        for (n, expires) in [(1, 50), (2, 150), (3, 200)] {
            store.add_session(&[n; 32], expires).unwrap();
        }
        store.end_session(&[3; 32]).unwrap();
        assert_eq!(store.sessions(100).unwrap(), [([2; 32], 150)]);
        assert_eq!(
            store.sessions(0).unwrap(),
            [([2; 32], 150)],
            "the expired one is forgotten"
        );
    }
}
