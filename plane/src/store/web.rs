//! Web log-ins in the store: one-time codes and sessions, by hash only.

use rusqlite::{OptionalExtension as _, Row, params};

use super::{Person, Store, StoreError};

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

    /// Keeps a session: of a user, or of whoever came with a code. More than `most` at a time are too many: the oldest end.
    pub fn add_session(
        &self,
        hash: &[u8; 32],
        user: Option<&str>,
        expires_unix_ms: i64,
        most: u32,
    ) -> Result<(), StoreError> {
        let sql = "INSERT INTO sessions (hash, user, expires_unix_ms) VALUES (?1, ?2, ?3)";
        self.db.execute(sql, params![hash, user, expires_unix_ms])?;
        let sql = "DELETE FROM sessions WHERE name IS NULL AND hash NOT IN \
                   (SELECT hash FROM sessions WHERE name IS NULL ORDER BY expires_unix_ms DESC, hash LIMIT ?1)";
        self.db.execute(sql, [most])?;
        Ok(())
    }

    /// Ends a session.
    pub fn end_session(&self, hash: &[u8; 32]) -> Result<(), StoreError> {
        self.db.execute("DELETE FROM sessions WHERE hash = ?1", params![hash])?;
        Ok(())
    }

    /// Forgets codes and sessions that have expired.
    pub fn forget_expired(&self, now_unix_ms: i64) -> Result<(), StoreError> {
        for table in ["logins", "sessions"] {
            let sql = format!("DELETE FROM {table} WHERE expires_unix_ms <= ?1");
            self.db.execute(&sql, [now_unix_ms])?;
        }
        Ok(())
    }

    /// Whose session this is: asked at every request, so that it ends at once when the user is removed.
    pub fn session(&self, hash: &[u8; 32], now_unix_ms: i64) -> Result<Option<Person>, StoreError> {
        // Whoever is no user of ours may what stands with the session.
        let sql = "SELECT coalesce(s.user, s.name), coalesce(u.role, s.role), \
                   CASE WHEN s.name IS NULL THEN u.scope ELSE s.scope END FROM sessions s LEFT JOIN users u ON u.name = s.user \
                   WHERE s.hash = ?1 AND s.expires_unix_ms > ?2";
        type Found = (Option<String>, Option<String>, Option<String>);
        let read = |row: &Row<'_>| -> rusqlite::Result<Found> { Ok((row.get(0)?, row.get(1)?, row.get(2)?)) };
        let found = self.db.query_row(sql, params![hash, now_unix_ms], read).optional()?;
        Ok(match found {
            None => None,
            Some((None, ..)) => Some(Person::Owner),
            // A user without a role that is known may nothing.
            Some((Some(name), role, scope)) => {
                role.and_then(|role| role.parse().ok())
                    .map(|rank| Person::User { name, rank, scope })
            }
        })
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
            store.add_session(&[n; 32], None, expires, 9).unwrap();
        }
        store.end_session(&[3; 32]).unwrap();
        for (n, now, is_open) in [(1, 49, true), (1, 50, false), (2, 149, true), (3, 0, false)] {
            let found = store.session(&[n; 32], now).unwrap();
            assert_eq!(found, is_open.then_some(Person::Owner), "{n} {now}");
        }
        store.forget_expired(100).unwrap();
        assert_eq!(
            store.session(&[1; 32], 0).unwrap(),
            None,
            "the expired one is forgotten"
        );
        store.add_session(&[4; 32], None, 160, 1).unwrap();
        assert_eq!(store.session(&[2; 32], 0).unwrap(), None, "it made room");
    }
}
