//! Rollouts in the store.

use std::sync::Arc;

use bus_schema::encode;
use rusqlite::{Connection, params};

use super::{Store, StoreError, records::blob};
use crate::domain::{Change, rollout::Head, rollouts::PAST_MAX};

const TABLE: &str = "rollouts";

impl Store {
    /// Those under way, and those that are over and still shown, the oldest first.
    pub(super) fn rollouts(&self) -> Result<Vec<Change>, StoreError> {
        self.rows("SELECT ordered, head, view FROM rollouts ORDER BY id", |row| {
            if let Some(view) = row.get_ref(2)?.as_blob_or_null().unwrap_or(None) {
                return Ok(Change::RolloutEnded(Box::new(blob(TABLE, view)?)));
            }
            let order = blob(TABLE, row.get_ref(0)?.as_blob().unwrap_or(&[]))?;
            let head = blob(TABLE, row.get_ref(1)?.as_blob().unwrap_or(&[]))?;
            Ok(Change::RolloutKept(Arc::new(order), head))
        })
    }
}

/// Writes a change of a rollout.
pub(super) fn write(db: &Connection, change: &Change) -> Result<(), StoreError> {
    match change {
        Change::RolloutBegun(order) => {
            let sql = "INSERT INTO rollouts (id, ordered, head) VALUES (?1, ?2, ?3)";
            db.execute(
                sql,
                params![order.id.cast_signed(), encode(&**order), encode(&Head::default())],
            )?;
        }
        Change::RolloutHead { id, head } => {
            let sql = "UPDATE rollouts SET head = ?2 WHERE id = ?1";
            db.execute(sql, params![id.cast_signed(), encode(head)])?;
        }
        Change::RolloutEnded(view) => {
            let sql = "UPDATE rollouts SET ordered = NULL, head = NULL, view = ?2 WHERE id = ?1";
            db.execute(sql, params![view.id.cast_signed(), encode(&**view)])?;
            let sql = "DELETE FROM rollouts WHERE view IS NOT NULL AND id NOT IN \
                       (SELECT id FROM rollouts WHERE view IS NOT NULL ORDER BY id DESC LIMIT ?1)";
            db.execute(sql, [PAST_MAX as i64])?;
        }
        _ => {}
    }
    Ok(())
}
