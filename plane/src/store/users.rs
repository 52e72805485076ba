//! Users of the web page in the store. Knows passwords by hash only, and does not check them.

use rusqlite::{OptionalExtension as _, Row, params};

use super::{Store, StoreError};
use crate::permission::Rank;

/// A user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its name.
    pub name: String,
    /// How much it may.
    pub rank: Rank,
    /// Which daemons it sees, as a selector; `None`: all.
    pub scope: Option<String>,
    /// Its password's hash.
    pub password: String,
    /// Since when there is such a user, milliseconds since 1970.
    pub made_unix_ms: i64,
}

/// Whose a session is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Person {
    /// Whoever came with a code from the plane's directory.
    Owner,
    /// A user.
    User {
        /// Its name.
        name: String,
        /// How much it may now.
        rank: Rank,
        /// Which daemons it sees, as a selector; `None`: all.
        scope: Option<String>,
    },
}

type Found = (String, String, String, i64, Option<String>);

fn read(row: &Row<'_>) -> rusqlite::Result<Found> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
}

fn user((name, role, password, made_unix_ms, scope): Found) -> Result<User, StoreError> {
    let rank = role.parse().map_err(|_| StoreError::Damaged { table: "users" })?;
    Ok(User {
        name,
        rank,
        scope,
        password,
        made_unix_ms,
    })
}

impl Store {
    /// All users, by name.
    pub fn users(&self) -> Result<Vec<User>, StoreError> {
        let sql = "SELECT name, role, password, made_unix_ms, scope FROM users ORDER BY name";
        let mut statement = self.db.prepare(sql)?;
        let rows: Vec<_> = statement.query_map([], read)?.collect::<Result<_, _>>()?;
        rows.into_iter().map(user).collect()
    }

    /// One user.
    pub fn user(&self, name: &str) -> Result<Option<User>, StoreError> {
        let sql = "SELECT name, role, password, made_unix_ms, scope FROM users WHERE name = ?1";
        self.db.query_row(sql, [name], read).optional()?.map(user).transpose()
    }

    /// Adds a user, unless there is one of that name, or there are `most`. With `most` 1 it can only be the first.
    pub fn add_user(&self, user: &User, most: u32) -> Result<bool, StoreError> {
        let sql = "INSERT INTO users (name, role, password, made_unix_ms, scope) SELECT ?1, ?2, ?3, ?4, ?6 \
                   WHERE (SELECT count(*) FROM users) < ?5 ON CONFLICT (name) DO NOTHING";
        let row = params![
            user.name,
            user.rank.word(),
            user.password,
            user.made_unix_ms,
            most,
            user.scope
        ];
        Ok(self.db.execute(sql, row)? == 1)
    }

    /// Changes a user's role, scope or password, where there is another; an empty scope takes it off. A new password ends the user's sessions, except `but`. `false`: no such user.
    pub fn change_user(
        &mut self,
        name: &str,
        rank: Option<Rank>,
        scope: Option<&str>,
        password: Option<&str>,
        but: Option<&[u8; 32]>,
    ) -> Result<bool, StoreError> {
        let change = self.db.savepoint()?;
        let sql = "UPDATE users SET role = coalesce(?2, role), password = coalesce(?3, password), \
                   scope = nullif(coalesce(?4, scope), '') WHERE name = ?1";
        let is_known = change.execute(sql, params![name, rank.map(Rank::word), password, scope])? == 1;
        if password.is_some() {
            let sql = "DELETE FROM sessions WHERE user = ?1 AND (?2 IS NULL OR hash <> ?2)";
            change.execute(sql, params![name, but])?;
        }
        change.commit()?;
        Ok(is_known)
    }

    /// Removes a user, and with it its sessions. `false`: no such user.
    pub fn remove_user(&self, name: &str) -> Result<bool, StoreError> {
        Ok(self.db.execute("DELETE FROM users WHERE name = ?1", [name])? == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_follow_their_users() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(&dir.path().join("plane.db")).unwrap();
        let anna = User {
            name: "anna".into(),
            rank: Rank::Operator,
            scope: None,
            password: "hash".into(),
            made_unix_ms: 1,
        };
        assert!(store.add_user(&anna, 1).unwrap());
        let bert = User {
            name: "bert".into(),
            ..anna.clone()
        };
        assert!(!store.add_user(&bert, 1).unwrap(), "not the first");
        assert!(!store.add_user(&anna, 9).unwrap(), "the name is taken");
        assert_eq!(store.users().unwrap(), [anna]);
        for n in [1, 2] {
            store.add_session(&[n; 32], Some("anna"), 100, 9).unwrap();
        }
        let rank = |store: &Store, n: u8| match store.session(&[n; 32], 0).unwrap() {
            Some(Person::User { rank, .. }) => Some(rank),
            _ => None,
        };
        assert!(
            store
                .change_user("anna", Some(Rank::Viewer), Some("site=a"), None, None)
                .unwrap()
        );
        assert_eq!([1, 2].map(|n| rank(&store, n)), [Some(Rank::Viewer); 2]);
        assert!(
            store
                .change_user("anna", None, None, Some("new"), Some(&[2; 32]))
                .unwrap()
        );
        assert_eq!([1, 2].map(|n| rank(&store, n)), [None, Some(Rank::Viewer)]);
        let scope = |store: &Store| store.user("anna").unwrap().unwrap().scope;
        assert_eq!(scope(&store).as_deref(), Some("site=a"));
        assert!(store.change_user("anna", None, Some(""), None, None).unwrap());
        assert_eq!(scope(&store), None);
        assert!(store.remove_user("anna").unwrap() && !store.remove_user("anna").unwrap());
        assert_eq!(rank(&store, 2), None);
    }
}
