//! Tokens of programs that use the web API. Known by hash only: a token is shown once, when it is made.

use rusqlite::{OptionalExtension as _, Row, params};

use super::{Store, StoreError};
use crate::permission::Rank;

/// A token, without itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiToken {
    /// Its id.
    pub id: String,
    /// What it is for.
    pub name: String,
    /// How much it may.
    pub rank: Rank,
    /// Which daemons it sees, as a selector; `None`: all.
    pub scope: Option<String>,
    /// Who made it.
    pub by: String,
    /// When, milliseconds since 1970.
    pub made_unix_ms: i64,
    /// Until when it works.
    pub expires_unix_ms: i64,
}

const COLUMNS: &str = "id, name, role, scope, made_by, made_unix_ms, expires_unix_ms";

fn token(row: &Row<'_>) -> rusqlite::Result<Result<ApiToken, StoreError>> {
    let role: String = row.get(2)?;
    let Ok(rank) = role.parse() else {
        return Ok(Err(StoreError::Damaged { table: "api_tokens" }));
    };
    Ok(Ok(ApiToken {
        id: row.get(0)?,
        name: row.get(1)?,
        rank,
        scope: row.get(3)?,
        by: row.get(4)?,
        made_unix_ms: row.get(5)?,
        expires_unix_ms: row.get(6)?,
    }))
}

impl Store {
    /// Keeps a token, unless there is one of that name, or there are `most`. Those that have expired make room.
    pub fn add_api_token(&self, token: &ApiToken, hash: &[u8; 32], most: u32) -> Result<bool, StoreError> {
        let sql = "DELETE FROM api_tokens WHERE expires_unix_ms <= ?1";
        self.db.execute(sql, [token.made_unix_ms])?;
        let sql = format!(
            "INSERT INTO api_tokens ({COLUMNS}, hash) SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8 \
             WHERE (SELECT count(*) FROM api_tokens) < ?9 ON CONFLICT DO NOTHING"
        );
        let ApiToken {
            id,
            name,
            rank,
            scope,
            by,
            made_unix_ms,
            expires_unix_ms,
        } = token;
        let row = params![
            id,
            name,
            rank.word(),
            scope,
            by,
            made_unix_ms,
            expires_unix_ms,
            hash,
            most
        ];
        Ok(self.db.execute(&sql, row)? == 1)
    }

    /// All that can still be used, by name.
    pub fn api_tokens(&self, now_unix_ms: i64) -> Result<Vec<ApiToken>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM api_tokens WHERE expires_unix_ms > ?1 ORDER BY name");
        let mut statement = self.db.prepare(&sql)?;
        let rows: Vec<_> = statement.query_map([now_unix_ms], token)?.collect::<Result<_, _>>()?;
        rows.into_iter().collect()
    }

    /// The one with this hash, if it can still be used: asked at every request, so that it ends at once.
    pub fn api_token(&self, hash: &[u8; 32], now_unix_ms: i64) -> Result<Option<ApiToken>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM api_tokens WHERE hash = ?1 AND expires_unix_ms > ?2");
        let found = self
            .db
            .prepare_cached(&sql)?
            .query_row(params![hash, now_unix_ms], token)
            .optional()?;
        found.transpose()
    }

    /// Ends one; its name, if there was such a one.
    pub fn end_api_token(&self, id: &str) -> Result<Option<String>, StoreError> {
        let sql = "DELETE FROM api_tokens WHERE id = ?1 RETURNING name";
        Ok(self.db.query_row(sql, [id], |row| row.get(0)).optional()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_expire_end_and_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("plane.db")).unwrap();
        let one = |n: u8, made_unix_ms| ApiToken {
            id: format!("id{n}"),
            name: format!("ci-{n}"),
            rank: Rank::Viewer,
            scope: Some("site=berlin".into()),
            by: "anna".into(),
            made_unix_ms,
            expires_unix_ms: 100 * i64::from(n),
        };
        assert!(store.add_api_token(&one(1, 0), &[1; 32], 2).unwrap());
        assert!(
            !store.add_api_token(&one(1, 0), &[9; 32], 2).unwrap(),
            "the name is taken"
        );
        assert!(store.add_api_token(&one(2, 0), &[2; 32], 2).unwrap());
        assert!(!store.add_api_token(&one(3, 99), &[3; 32], 2).unwrap(), "too many");
        assert_eq!(store.api_token(&[1; 32], 99).unwrap(), Some(one(1, 0)));
        assert_eq!(store.api_token(&[1; 32], 100).unwrap(), None);
        assert!(
            store.add_api_token(&one(3, 100), &[3; 32], 2).unwrap(),
            "the first has expired"
        );
        assert_eq!(store.api_tokens(100).unwrap().len(), 2);
        assert_eq!(store.end_api_token("id2").unwrap().as_deref(), Some("ci-2"));
        assert_eq!(store.end_api_token("id2").unwrap(), None);
        assert_eq!(store.api_token(&[2; 32], 0).unwrap(), None);
    }
}
