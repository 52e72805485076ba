//! Sessions of people whom an OpenID Connect provider lets in. Knows them only as long as their sessions last.

use rusqlite::params;

use super::{Store, StoreError};
use crate::oidc::Somebody;

/// Of which settings those sessions are.
const SETTINGS: &str = "oidc";

impl Store {
    /// Keeps a session. More than `most` of these at a time are too many: the oldest end.
    pub fn add_oidc_session(
        &self,
        hash: &[u8; 32],
        somebody: &Somebody,
        expires_unix_ms: i64,
        most: u32,
    ) -> Result<(), StoreError> {
        let sql = "INSERT INTO sessions (hash, expires_unix_ms, name, role, scope) VALUES (?1, ?2, ?3, ?4, ?5)";
        let Somebody { name, rank, scope } = somebody;
        self.db
            .execute(sql, params![hash, expires_unix_ms, name, rank.word(), scope])?;
        let sql = "DELETE FROM sessions WHERE name IS NOT NULL AND hash NOT IN \
                   (SELECT hash FROM sessions WHERE name IS NOT NULL ORDER BY expires_unix_ms DESC, hash LIMIT ?1)";
        self.db.execute(sql, [most])?;
        Ok(())
    }

    /// Ends all sessions of one of them. `false`: there were none.
    pub fn end_oidc_sessions(&self, name: &str) -> Result<bool, StoreError> {
        Ok(self.db.execute("DELETE FROM sessions WHERE name = ?1", [name])? > 0)
    }

    /// Ends the sessions that were made under other settings; `None`: nobody comes in that way any more.
    pub fn keep_oidc_sessions_of(&self, settings: Option<&[u8; 32]>) -> Result<(), StoreError> {
        let settings = settings.map_or(&[][..], |settings| settings);
        if self.setting(SETTINGS)?.as_deref().unwrap_or_default() != settings {
            self.db.execute("DELETE FROM sessions WHERE name IS NOT NULL", [])?;
            self.set(SETTINGS, settings)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{permission::Rank, store::Person};

    #[test]
    fn they_last_as_long_as_the_settings() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("plane.db")).unwrap();
        store.keep_oidc_sessions_of(Some(&[1; 32])).unwrap();
        let anna = |rank| Somebody {
            name: "oidc:anna".into(),
            rank,
            scope: Some("site=berlin".into()),
        };
        store.add_session(&[9; 32], None, 1, 9).unwrap();
        for n in 1..=3 {
            let rank = if n == 3 { Rank::Viewer } else { Rank::Admin };
            store
                .add_oidc_session(&[n; 32], &anna(rank), 100 + i64::from(n), 2)
                .unwrap();
        }
        let ranks = |store: &Store| {
            [1, 2, 3].map(|n: u8| match store.session(&[n; 32], 0).unwrap() {
                Some(Person::User { name, rank, scope }) => {
                    assert_eq!((name.as_str(), scope.as_deref()), ("oidc:anna", Some("site=berlin")));
                    Some(rank)
                }
                _ => None,
            })
        };
        assert_eq!(
            ranks(&store),
            [None, Some(Rank::Admin), Some(Rank::Viewer)],
            "two at most"
        );
        assert_eq!(store.session(&[2; 32], 102).unwrap(), None, "it has expired");
        store.keep_oidc_sessions_of(Some(&[1; 32])).unwrap();
        assert!(ranks(&store)[2].is_some(), "the same settings");
        store.keep_oidc_sessions_of(None).unwrap();
        assert_eq!(ranks(&store), [None; 3], "other settings");
        store.add_oidc_session(&[1; 32], &anna(Rank::Viewer), 100, 2).unwrap();
        assert!(store.end_oidc_sessions("oidc:anna").unwrap() && !store.end_oidc_sessions("oidc:anna").unwrap());
        assert_eq!(store.session(&[9; 32], 0).unwrap(), Some(Person::Owner), "not of these");
        store.add_session(&[8; 32], None, 2, 1).unwrap();
        assert_eq!(
            store.session(&[9; 32], 0).unwrap(),
            None,
            "others make room among themselves"
        );
    }
}
