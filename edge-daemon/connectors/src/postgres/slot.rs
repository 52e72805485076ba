//! A replication slot and its publication: made, looked at, dropped. And where in it a source is: the bytes of a position.

use std::time::Duration;

use flow::{Fault, Position};
use serde::{Deserialize, Serialize};
use tokio_postgres::Client;

use super::{
    error::fault,
    layout::TableInfo,
    table::quote,
    walsender::{Lsn, WalSender},
};
use crate::names::of_node;

/// First byte of a position of this mode.
const FORM: u8 = 2;
/// Longest name of a slot, in bytes.
pub(super) const SLOT_BYTES_MAX: usize = 63;
/// How long making one may take.
const MAKE_WAIT: Duration = Duration::from_secs(15 * 60);

/// What a position of this source holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// The slot the places are of.
    pub slot: String,
    /// Everything that was committed before this place in the log has been given out (or is in the snapshot).
    pub lsn: u64,
    /// Rows read at different times are in the snapshot: what was committed before this place may be in it, or not.
    pub settled: u64,
    /// Where it goes on.
    pub at: At,
}

/// Where it goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum At {
    /// In the snapshot, after the row of this key.
    Snapshot(Vec<String>),
    /// In the stream. Of the transaction `xid`, the first to come, so many changes have been given out.
    Stream { xid: u32, changes: u64 },
}

impl Mark {
    /// The bytes to store.
    pub(super) fn position(&self) -> Position {
        let start = vec![FORM];
        Position::new(postcard::to_extend(self, start).expect("a mark holds only types postcard can write"))
    }

    /// Reads a stored position of a source that reads this slot.
    pub(super) fn from_position(position: &Position, slot: &str) -> Result<Self, Fault> {
        let mark = position.as_bytes().split_first().filter(|(form, _)| **form == FORM);
        let mark: Option<Self> = mark.and_then(|(_, body)| postcard::from_bytes(body).ok());
        let mark = mark.ok_or_else(|| {
            Fault::stop(
                "the stored position is not one of a postgres source in replication mode; give the node another name to \
                 start over",
            )
        })?;
        if mark.slot != slot {
            return Err(Fault::stop(format!(
                "the stored position is one of slot '{0}', and slot is now '{slot}': set slot = \"{0}\" again, or give \
                 the node another name to start over",
                mark.slot
            )));
        }
        Ok(mark)
    }
}

/// The name of the slot of a source that was not given one.
pub(super) fn default_name(workflow: &str, node: &str) -> String {
    of_node("postgres slot", workflow, node)
}

/// A slot as the server describes it.
pub(super) struct Found {
    /// What was committed before this place the server may have forgotten.
    pub confirmed: u64,
}

/// A slot that was made just now.
pub(super) struct Made {
    /// The changes it sends begin here.
    pub lsn: u64,
    /// A snapshot of what was committed before that, for as long as the connection does nothing else.
    pub snapshot: Option<String>,
}

/// Looks a slot up. Faults if it is there and of no use.
pub(super) async fn find(client: &Client, slot: &str) -> Result<Option<Found>, Fault> {
    let sql = "SELECT plugin::text = 'pgoutput' AND database = current_database(), \
                   COALESCE(wal_status, '') = 'lost', COALESCE(confirmed_flush_lsn, '0/0')::text \
               FROM pg_replication_slots WHERE slot_name = $1";
    let row = client.query_opt(sql, &[&slot]).await;
    let Some(row) = row.map_err(|error| fault("look for the slot", &error))? else {
        return Ok(None);
    };
    if !row.get::<_, Option<bool>>(0).unwrap_or(false) {
        return Err(Fault::stop(format!(
            "the slot '{slot}' belongs to another database or plugin: choose another slot"
        )));
    }
    if row.get(1) {
        return Err(Fault::stop(format!(
            "the server has given up the slot '{slot}', because it kept more of the log than max_slot_wal_keep_size: what \
             was changed since is lost for it. Drop it (SELECT pg_drop_replication_slot('{slot}')) and give the node \
             another name to begin with a new snapshot"
        )));
    }
    Ok(Some(Found {
        confirmed: Lsn::parse(row.get(2)).map_or(0, |lsn| lsn.0),
    }))
}

/// Makes a slot. It begins when all transactions have ended that are open now.
pub(super) async fn make(sender: &mut WalSender, slot: &str, with_snapshot: bool) -> Result<Made, Fault> {
    let snapshot = if with_snapshot {
        "EXPORT_SNAPSHOT"
    } else {
        "NOEXPORT_SNAPSHOT"
    };
    let sql = format!("CREATE_REPLICATION_SLOT {} LOGICAL pgoutput {snapshot}", quote(slot));
    let rows = sender.query_within(&sql, MAKE_WAIT).await?;
    let value = |at: usize| rows.first().and_then(|row| row.get(at)).cloned().flatten();
    let lsn = value(1).and_then(|lsn| Lsn::parse(&lsn));
    let lsn = lsn.ok_or_else(|| Fault::retry(format!("the server did not say where the slot '{slot}' begins")))?;
    Ok(Made {
        lsn: lsn.0,
        snapshot: value(2),
    })
}

/// Makes sure that a publication has the table. Made if it is missing.
pub(super) async fn publish(client: &Client, publication: &str, schema: &str, table: &str) -> Result<(), Fault> {
    // Faults with a hint when there is no such table.
    TableInfo::load(client, schema, table).await?;
    let failed = |error| fault("look at the publication", &error);
    let sql = "SELECT EXISTS (SELECT FROM pg_publication WHERE pubname = $1), EXISTS (SELECT FROM pg_publication_tables \
               WHERE pubname = $1 AND schemaname = $2 AND tablename = $3)";
    let row = client
        .query_one(sql, &[&publication, &schema, &table])
        .await
        .map_err(failed)?;
    match (row.get(0), row.get(1)) {
        (true, true) => Ok(()),
        (true, false) => Err(Fault::retry(format!(
            "the publication '{publication}' does not have the table {schema}.{table}: ALTER PUBLICATION {} ADD TABLE {}.{}",
            quote(publication),
            quote(schema),
            quote(table)
        ))),
        (false, _) => {
            let sql = format!(
                "CREATE PUBLICATION {} FOR TABLE {}.{} WITH (publish_via_partition_root = true)",
                quote(publication),
                quote(schema),
                quote(table)
            );
            client.batch_execute(&sql).await.map_err(|error| {
                let doing = format!("make the publication '{publication}' (let the table's owner run: {sql})");
                fault(&doing, &error)
            })
        }
    }
}

/// Drops a slot.
pub(super) async fn drop(client: &Client, slot: &str) -> Result<(), Fault> {
    let dropped = client.query("SELECT pg_drop_replication_slot($1)", &[&slot]).await;
    dropped
        .map(|_| ())
        .map_err(|error| fault(&format!("drop the slot '{slot}'"), &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_come_back_exactly() {
        for at in [
            At::Snapshot(vec!["7".into(), "ä'".into()]),
            At::Stream {
                xid: u32::MAX,
                changes: 3,
            },
        ] {
            let mark = Mark {
                slot: "s".into(),
                lsn: u64::MAX,
                settled: 1,
                at,
            };
            assert_eq!(Mark::from_position(&mark.position(), "s").unwrap(), mark);
            let fault = Mark::from_position(&mark.position(), "other").unwrap_err();
            assert!(fault.to_string().contains("set slot = \"s\" again"), "{fault}");
        }
        for bytes in [&b""[..], b"\x01", b"\x02\x05", b"offset"] {
            let fault = Mark::from_position(&Position::new(bytes), "s").unwrap_err();
            assert!(matches!(fault, Fault::Stop { .. }), "{fault}");
        }
    }

    #[test]
    fn names_of_slots_are_names_to_postgresql() {
        assert_eq!(default_name("orders", "db_1"), "mycelial_orders_db_1");
        let names = [
            default_name("Orders", "db"),
            default_name("orders", "db-1"),
            default_name("orders", &"ä".repeat(30)),
        ];
        for name in &names {
            let allowed = |char: char| matches!(char, 'a'..='z' | '0'..='9' | '_');
            assert!(name.len() <= SLOT_BYTES_MAX && name.chars().all(allowed), "{name}");
        }
        assert_ne!(default_name("a-b", "c"), default_name("a_b", "c"));
        assert_ne!(default_name("a-b", "c"), default_name("a", "b-c"));
    }
}
