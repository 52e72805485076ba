//! Room for dead letters: what each counts, and who goes when the store is full. Never lets go of the newest.

use rusqlite::{OptionalExtension, Transaction, params};

use super::{row::Row, store::StoreError};

/// The part of the quota that one letter counts and is bounded by, so that no letter can drive out all others.
const SHARE: u64 = 2;

/// What a letter that costs so many bytes counts. A larger one than its share is kept whole: there may be no other copy of
/// the record.
pub(super) fn share(cost_bytes: u64, quota_bytes: u64) -> u64 {
    cost_bytes.min(quota_bytes / SHARE)
}

/// Lets the oldest go until all fits. Those that are to be tried again go last. Of those that are larger than a letter's share
/// only the newest stays: they take more than they count. Returns how many went.
pub(super) fn make(
    transaction: &Transaction<'_>,
    bytes: &mut u64,
    quota_bytes: u64,
    newest: &Row,
) -> Result<u64, StoreError> {
    let mut evicted = 0;
    let mut next = |sql: &str, bytes: &mut u64, least: u64| -> Result<bool, StoreError> {
        let oldest = transaction
            .prepare_cached(sql)?
            .query_row(params![newest.id as i64, least as i64], |row| row.get::<_, i64>(0))
            .optional()?;
        let Some(oldest) = oldest else { return Ok(false) };
        evicted += u64::from(remove(transaction, oldest as u64, bytes, quota_bytes)?);
        Ok(true)
    };
    let share_bytes = quota_bytes / SHARE;
    if newest.record_bytes > share_bytes {
        let sql = "SELECT id FROM letter WHERE id <> ?1 AND record_bytes > ?2 LIMIT 1";
        while next(sql, bytes, share_bytes)? {}
    }
    let sql = "SELECT id FROM letter WHERE id <> ?1 AND record_bytes >= ?2 ORDER BY state = 1, id LIMIT 1";
    while *bytes > quota_bytes && next(sql, bytes, 0)? {}
    Ok(evicted)
}

/// Removes a letter; `false` when there is none.
pub(super) fn remove(
    transaction: &Transaction<'_>,
    id: u64,
    bytes: &mut u64,
    quota_bytes: u64,
) -> Result<bool, StoreError> {
    let Some(row) = Row::load(transaction, id)? else {
        return Ok(false);
    };
    for table in ["letter", "record"] {
        transaction
            .prepare_cached(&format!("DELETE FROM {table} WHERE id = ?1"))?
            .execute([id as i64])?;
    }
    *bytes = bytes.saturating_sub(share(row.cost(), quota_bytes));
    Ok(true)
}
