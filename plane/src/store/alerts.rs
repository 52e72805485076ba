//! Alerts in the store: rules and the alerts' state as settings, and what is still to be delivered.

use bus_schema::{audit::AuditEvent, decode, encode, observe::AlertRule};
use rusqlite::{TransactionBehavior, params};

use super::{
    Store, StoreError,
    audit::{ENTRIES_MAX, append},
    set,
};
use crate::domain::alerts::Alerts;

const RULES: &str = "alert_rules";
const STATE: &str = "alert_state";
/// Most messages waiting to be delivered; the oldest give way.
pub const DELIVERIES_MAX: u32 = 1_000;

/// A message on its way to a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Counts up, never reused.
    pub id: i64,
    /// To which channel.
    pub channel: String,
    /// JSON.
    pub body: String,
    /// Failed attempts so far.
    pub attempts: u32,
}

impl Store {
    /// An operator's rules, and how alerts stood.
    pub fn alerts(&self) -> Result<(Vec<AlertRule>, Alerts), StoreError> {
        let damaged = StoreError::Damaged { table: "settings" };
        let rules = match self.setting(RULES)? {
            Some(bytes) => decode(&bytes).ok_or(damaged)?,
            None => Vec::new(),
        };
        // The state is worth less than a start: what is so is found out again.
        let state = self
            .setting(STATE)?
            .and_then(|bytes| decode(&bytes))
            .unwrap_or_default();
        Ok((rules, state))
    }

    /// Keeps an operator's rules.
    /// With the audit's entry about it, both or neither.
    pub fn save_rules(&mut self, rules: &[AlertRule], entry: Option<AuditEvent>) -> Result<(), StoreError> {
        let transaction = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        set(&transaction, RULES, &encode(&rules.to_vec()))?;
        append(&transaction, entry.as_slice(), ENTRIES_MAX)?;
        Ok(transaction.commit()?)
    }

    /// Keeps the alerts' state, what is to be delivered because of it, and the audit's entry if somebody's call did it, together or
    /// not at all. Returns how many older deliveries gave way.
    pub fn save_alerts(
        &mut self,
        alerts: &Alerts,
        deliveries: &[(String, String)],
        entry: Option<AuditEvent>,
        now_unix_ms: i64,
    ) -> Result<usize, StoreError> {
        let transaction = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        set(&transaction, STATE, &encode(alerts))?;
        for (channel, body) in deliveries {
            let sql = "INSERT INTO deliveries (channel, body, due_unix_ms) VALUES (?1, ?2, ?3)";
            transaction
                .prepare_cached(sql)?
                .execute(params![channel, body, now_unix_ms])?;
        }
        let sql = "DELETE FROM deliveries WHERE id NOT IN (SELECT id FROM deliveries ORDER BY id DESC LIMIT ?1)";
        let gave_way = match deliveries {
            [] => 0,
            _ => transaction.execute(sql, [DELIVERIES_MAX])?,
        };
        append(&transaction, entry.as_slice(), ENTRIES_MAX)?;
        transaction.commit()?;
        Ok(gave_way)
    }

    /// What is to be delivered now, the oldest of each channel first.
    pub fn deliveries_due(&self, now_unix_ms: i64, most: u32) -> Result<Vec<Delivery>, StoreError> {
        let sql = "SELECT id, channel, body, attempts FROM deliveries WHERE due_unix_ms <= ?1 ORDER BY id LIMIT ?2";
        let mut statement = self.db.prepare_cached(sql)?;
        let rows = statement.query_map(params![now_unix_ms, most], |row| {
            Ok(Delivery {
                id: row.get(0)?,
                channel: row.get(1)?,
                body: row.get(2)?,
                attempts: row.get(3)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// It was delivered, or given up.
    pub fn delivered(&self, id: i64) -> Result<(), StoreError> {
        self.db.execute("DELETE FROM deliveries WHERE id = ?1", [id])?;
        Ok(())
    }

    /// It is to be tried again later.
    pub fn postpone(&self, id: i64, due_unix_ms: i64) -> Result<(), StoreError> {
        let sql = "UPDATE deliveries SET attempts = attempts + 1, due_unix_ms = ?2 WHERE id = ?1";
        self.db.execute(sql, params![id, due_unix_ms])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bus_schema::observe::built_in_rules;

    #[test]
    fn kept_over_a_restart_and_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plane.db");
        let mut store = Store::open(&path).unwrap();
        assert_eq!(store.alerts().unwrap(), (Vec::new(), Alerts::default()));
        store.save_rules(&built_in_rules(), None).unwrap();
        let mut alerts = Alerts::default();
        alerts.silence("a", 60, "x", 0).unwrap();
        let one = |n: u32| ("ops".to_string(), format!("{n}"));
        assert_eq!(store.save_alerts(&alerts, &[one(0), one(1)], None, 5).unwrap(), 0);
        drop(store);
        let mut store = Store::open(&path).unwrap();
        assert_eq!(store.alerts().unwrap(), (built_in_rules(), alerts.clone()));
        assert_eq!(store.deliveries_due(4, 9).unwrap(), []);
        let due = store.deliveries_due(5, 9).unwrap();
        assert_eq!(due.iter().map(|one| one.body.as_str()).collect::<Vec<_>>(), ["0", "1"]);
        store.delivered(due[0].id).unwrap();
        store.postpone(due[1].id, 100).unwrap();
        assert_eq!(store.deliveries_due(99, 9).unwrap(), []);
        assert_eq!(store.deliveries_due(100, 9).unwrap()[0].attempts, 1);
        let many: Vec<_> = (0..DELIVERIES_MAX).map(one).collect();
        assert_eq!(
            store.save_alerts(&alerts, &many, None, 200).unwrap(),
            1,
            "the oldest gave way"
        );
    }

    #[test]
    fn what_has_no_entry_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(&dir.path().join("plane.db")).unwrap();
        let event = AuditEvent::new(5, "anna", "bus", "change the alert rules", "");
        store
            .set("audit_head", b"no head of a chain, whatever reads it")
            .unwrap();
        let (none, some) = (Alerts::default(), [("hook".to_string(), "{}".to_string())]);
        assert!(store.save_rules(&built_in_rules(), Some(event.clone())).is_err());
        assert!(store.save_alerts(&none, &some, Some(event.clone()), 9).is_err());
        assert_eq!(store.alerts().unwrap().0, []);
        assert_eq!(store.deliveries_due(9, 9).unwrap(), []);
        // What nobody asked for goes on.
        assert_eq!(store.save_alerts(&none, &some, None, 9).unwrap(), 0);
        assert_eq!(store.deliveries_due(9, 9).unwrap().len(), 1);
    }
}
