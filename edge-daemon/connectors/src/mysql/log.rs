//! What a server says of its binary log: whether it can be read from, where it ends, which files there are. And what has to
//! be done where it cannot. Reads no event.

use flow::Fault;
use mysql_async::{Error, Row, prelude::Queryable as _};

use super::{
    connect::is_mariadb,
    link::{Link, answer},
    mark::Place,
};

/// The right to see where the log is, is missing.
const ACCESS_DENIED: [u16; 3] = [1227, 1045, 1142];
/// A statement that this server does not know.
const SYNTAX: u16 = 1064;

/// How a setting has to be, from when on it is there, and how to make it so.
struct Wanted {
    name: &'static str,
    value: &'static str,
    remedy: &'static str,
}

/// All but `log_bin`, which takes a restart. What a server does not have is as it should be, except for the last.
const WANTED: [Wanted; 3] = [
    Wanted {
        name: "binlog_format",
        value: "ROW",
        remedy: "SET GLOBAL binlog_format = 'ROW', write it into the server's configuration, and let the programs that write \
                 connect anew",
    },
    Wanted {
        name: "binlog_row_image",
        value: "FULL",
        remedy: "SET GLOBAL binlog_row_image = 'FULL', write it into the server's configuration, and let the programs that \
                 write connect anew",
    },
    Wanted {
        name: "binlog_row_metadata",
        value: "FULL",
        remedy: "SET GLOBAL binlog_row_metadata = 'FULL', and write it into the server's configuration: without it the log \
                 does not say what columns are called",
    },
];

/// Faults unless the log has what is needed, and says how to mend it.
pub(super) async fn check(link: &mut Link, database: &str) -> Result<(), Fault> {
    let sql = "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('log_bin', 'binlog_format', 'binlog_row_image', \
               'binlog_row_metadata', 'binlog_row_value_options')";
    let found: Vec<(String, String)> = link.rows("look at the server's settings", sql).await?;
    let missing = mistake(&found);
    if let Some(cause) = missing {
        return Err(Fault::retry(format!(
            "the binary log of MySQL at {} {cause}",
            link.place
        )));
    }
    let status = status(link).await?;
    let listed = |at: usize| {
        let text: Option<String> = status.get_opt(at).and_then(Result::ok);
        text.unwrap_or_default()
    };
    let names = |text: &str| text.split(',').any(|name| name.trim() == database);
    let (only, never) = (listed(2), listed(3));
    if !only.trim().is_empty() && !names(&only) || names(&never) {
        return Err(Fault::retry(format!(
            "the binary log of MySQL at {} leaves the database {database} out: take it out of binlog_ignore_db, or into \
             binlog_do_db, and restart the server",
            link.place
        )));
    }
    Ok(())
}

/// What is wrong with the settings.
fn mistake(found: &[(String, String)]) -> Option<String> {
    let value = |name: &str| found.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str());
    if !value("log_bin").is_some_and(|value| value == "ON" || value == "1") {
        return Some(
            "is not kept (log_bin is OFF): set log_bin, and a server_id of its own, in the server's configuration, and restart \
             it"
            .to_string(),
        );
    }
    for wanted in WANTED {
        match value(wanted.name) {
            Some(value) if value.eq_ignore_ascii_case(wanted.value) => {}
            Some(value) => return Some(format!("has {} = {value}: {}", wanted.name, wanted.remedy)),
            None if wanted.name == "binlog_row_metadata" => {
                return Some(
                    "does not say what columns are called: that takes MariaDB 10.5 or MySQL 8.0.1 (or mode = \"cursor\")"
                        .to_string(),
                );
            }
            None => {}
        }
    }
    let options = value("binlog_row_value_options").unwrap_or_default();
    (!options.is_empty()).then(|| {
        format!(
            "has binlog_row_value_options = {options}: SET GLOBAL binlog_row_value_options = '', and write it into the \
             server's configuration, because parts of documents cannot be delivered"
        )
    })
}

/// Where the log ends now.
pub(super) async fn end(link: &mut Link) -> Result<Place, Fault> {
    let status = status(link).await?;
    let file: Option<String> = status.get_opt(0).and_then(Result::ok);
    let offset: Option<u64> = status.get_opt(1).and_then(Result::ok);
    match file.zip(offset) {
        Some((file, offset)) if !file.is_empty() => Ok(Place { file, offset }),
        _ => Err(unsaid(link)),
    }
}

fn unsaid(link: &Link) -> Fault {
    Fault::retry(format!("MySQL at {} does not say where its binary log is", link.place))
}

/// What the server says of the end of its log. MySQL 8.4 has another word for it.
async fn status(link: &mut Link) -> Result<Row, Fault> {
    for sql in ["SHOW MASTER STATUS", "SHOW BINARY LOG STATUS"] {
        let place = link.place.clone();
        match answer(&place, link.conn.query_first(sql)).await? {
            Ok(Some(row)) => return Ok(row),
            Ok(None) => return Err(unsaid(link)),
            Err(Error::Server(error)) if error.code == SYNTAX => {}
            Err(error) => return Err(denied(link, "see where the log ends", &error)),
        }
    }
    Err(unsaid(link))
}

/// The files of the log, and how long each is.
pub(super) async fn files(link: &mut Link) -> Result<Vec<(String, u64)>, Fault> {
    let place = link.place.clone();
    let found: Result<Vec<Row>, Error> = answer(&place, link.conn.query("SHOW BINARY LOGS")).await?;
    let rows = found.map_err(|error| denied(link, "list the files of the log", &error))?;
    let file = |row: &Row| {
        let name: Option<String> = row.get_opt(0).and_then(Result::ok);
        let size: Option<u64> = row.get_opt(1).and_then(Result::ok);
        name.zip(size)
    };
    Ok(rows.iter().filter_map(file).collect())
}

fn denied(link: &Link, doing: &str, error: &Error) -> Fault {
    match error {
        Error::Server(server) if ACCESS_DENIED.contains(&server.code) => Fault::retry(format!(
            "MySQL at {} does not show this user its log: GRANT REPLICATION CLIENT, REPLICATION SLAVE ON *.* TO it ({} [{}])",
            link.place, server.message, server.code
        )),
        error => link.failed(doing, error),
    }
}

/// Begins a transaction that sees what was committed before a place in the log, and says which.
pub(super) async fn begin_at_place(link: &mut Link, table: &str, locks: Locks<'_>) -> Result<Place, Fault> {
    let begin = "START TRANSACTION WITH CONSISTENT SNAPSHOT";
    let Locks::By(other) = locks else {
        link.run("begin the snapshot", begin).await?;
        // MariaDB says where in the log the snapshot was taken.
        let sql = "SHOW STATUS WHERE Variable_name IN ('binlog_snapshot_file', 'binlog_snapshot_position')";
        let found: Vec<(String, String)> = link.rows("see where the snapshot is", sql).await?;
        let value = |name: &str| {
            found
                .iter()
                .find(|(it, _)| it.eq_ignore_ascii_case(name))
                .map(|(_, value)| value)
        };
        let file = value("binlog_snapshot_file").filter(|file| !file.is_empty()).cloned();
        let offset = value("binlog_snapshot_position").and_then(|offset| offset.parse().ok());
        let (file, offset) = file.zip(offset).ok_or_else(|| unsaid(link))?;
        return Ok(Place { file, offset });
    };
    // Nobody has written to the table and not committed when the lock is there, and nobody does until it is gone.
    let lock = format!("LOCK TABLES {} READ", super::table::quote(table));
    let place = other.place.clone();
    let locked = answer(&place, other.conn.query_drop(&lock)).await?;
    locked.map_err(|error| match &error {
        Error::Server(server) if matches!(server.code, 1044 | 1142) => Fault::retry(format!(
            "the snapshot begins with a lock, for a moment: GRANT LOCK TABLES ON the database TO the user, or set snapshot = \
             false ({} [{}], at {place})",
            server.message, server.code
        )),
        error => other.failed("lock the table for a moment", error),
    })?;
    link.run("begin the snapshot", begin).await?;
    let end = end(link).await?;
    other.run("unlock the table", "UNLOCK TABLES").await?;
    Ok(end)
}

/// How a snapshot and a place in the log are brought together.
pub(super) enum Locks<'a> {
    /// The server does it.
    No,
    /// Another connection locks the table.
    By(&'a mut Link),
}

/// Whether the server knows where in the log a snapshot is.
pub(super) async fn knows_places(link: &mut Link) -> Result<bool, Fault> {
    let version: Vec<String> = link.rows("look at the server", "SELECT VERSION()").await?;
    Ok(version.first().is_some_and(|version| is_mariadb(version)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_have_remedies() {
        let right = [
            ("log_bin", "ON"),
            ("binlog_format", "ROW"),
            ("binlog_row_image", "FULL"),
            ("binlog_row_metadata", "FULL"),
        ];
        for (change, wanted) in [
            (None, None),
            (Some(("log_bin", "OFF")), Some("restart it")),
            (
                Some(("binlog_format", "MIXED")),
                Some("SET GLOBAL binlog_format = 'ROW'"),
            ),
            (
                Some(("binlog_row_image", "MINIMAL")),
                Some("SET GLOBAL binlog_row_image = 'FULL'"),
            ),
            (
                Some(("binlog_row_metadata", "NO_LOG")),
                Some("SET GLOBAL binlog_row_metadata = 'FULL'"),
            ),
            (Some(("binlog_row_metadata", "-")), Some("MariaDB 10.5 or MySQL 8.0.1")),
            (Some(("binlog_row_value_options", "PARTIAL_JSON")), Some("= ''")),
        ] {
            let mut found: Vec<(String, String)> = right.map(|(name, value)| (name.into(), value.into())).to_vec();
            if let Some((name, value)) = change {
                found.retain(|(it, _)| it != name);
                if value != "-" {
                    found.push((name.into(), value.into()));
                }
            }
            let said = mistake(&found);
            match wanted {
                None => assert_eq!(said, None),
                Some(wanted) => assert!(
                    said.as_ref().is_some_and(|said| said.contains(wanted)),
                    "{change:?}: {said:?}"
                ),
            }
        }
    }
}
