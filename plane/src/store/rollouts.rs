//! Rollouts in the store.

use std::sync::Arc;

use bus_schema::{aside::Aside, encode, rollout::RolloutView};
use rusqlite::{Connection, params};

use super::{Store, StoreError, records::blob};
use crate::domain::{
    Change,
    rollout::{Head, Order},
    rollouts::PAST_MAX,
};

const TABLE: &str = "rollouts";

impl Store {
    /// Those under way, and those that are over and still shown, the oldest first.
    pub(super) fn rollouts(&self) -> Result<Vec<Change>, StoreError> {
        self.rows(
            "SELECT ordered, head, view, lag_s_max FROM rollouts ORDER BY id",
            |row| {
                // Nobody looked at it when there was no such column.
                let lag_s_max = Aside::from(row.get::<_, Option<u32>>(3)?.unwrap_or(0));
                if let Some(view) = row.get_ref(2)?.as_blob_or_null().unwrap_or(None) {
                    let mut view: RolloutView = blob(TABLE, view)?;
                    view.policy.lag_s_max = lag_s_max;
                    return Ok(Change::RolloutEnded(Box::new(view)));
                }
                let mut order: Order = blob(TABLE, row.get_ref(0)?.as_blob().unwrap_or(&[]))?;
                order.policy.lag_s_max = lag_s_max;
                let head = blob(TABLE, row.get_ref(1)?.as_blob().unwrap_or(&[]))?;
                Ok(Change::RolloutKept(Arc::new(order), head))
            },
        )
    }
}

/// Writes a change of a rollout.
pub(super) fn write(db: &Connection, change: &Change) -> Result<(), StoreError> {
    match change {
        Change::RolloutBegun(order) => {
            let sql = "INSERT INTO rollouts (id, ordered, head, lag_s_max) VALUES (?1, ?2, ?3, ?4)";
            let (head, lag_s_max) = (encode(&Head::default()), order.policy.lag_s_max().unwrap_or(0));
            db.execute(sql, params![order.id.cast_signed(), encode(&**order), head, lag_s_max])?;
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bus_schema::rollout::RolloutPolicy;

    use super::*;
    use crate::domain::{
        Now, State,
        testing::{fleet, node},
    };

    #[test]
    fn what_the_bytes_of_a_policy_do_not_say_is_kept_beside_them() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(&dir.path().join("plane.db")).unwrap();
        let told = |id, lag_s_max: Option<u32>| Order {
            id,
            workflow: "a".into(),
            revision: 2,
            before: None,
            by: "anna".into(),
            at_unix_ms: 0,
            policy: RolloutPolicy {
                lag_s_max: lag_s_max.map_or_else(Aside::default, Aside::from),
                ..RolloutPolicy::default()
            },
            waves: Vec::new(),
            parts: BTreeMap::new(),
        };
        let orders = [
            told(1, None),
            told(2, Some(60)),
            told(3, Some(0)),
            told(4, Some(7)),
            told(5, None),
            told(6, Some(60)),
        ];
        let begun = orders.clone().map(|order| Change::RolloutBegun(Arc::new(order)));
        store.commit(&begun).unwrap();
        let state = State::new(fleet(), node(100));
        let ended = [&orders[3], &orders[4]].map(|order| {
            let view = state.view_rollout(order, &Head::default(), Now::default());
            Change::RolloutEnded(Box::new(view))
        });
        store.commit(&ended).unwrap();
        let before = "UPDATE rollouts SET lag_s_max = NULL WHERE id = 6";
        store.db.execute(before, []).unwrap();
        let kept = store.rollouts().unwrap().into_iter().map(|change| match change {
            Change::RolloutKept(order, _) => (order.id, order.policy.lag_s_max()),
            Change::RolloutEnded(view) => (view.id, view.policy.lag_s_max()),
            other => panic!("{other:?}"),
        });
        let kept: Vec<_> = kept.collect();
        let expected = [Some(900), Some(60), None, Some(7), Some(900), None];
        assert_eq!(kept, (1..).zip(expected).collect::<Vec<_>>());
    }
}
