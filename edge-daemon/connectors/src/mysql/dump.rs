//! A connection on which the server sends its binary log, one event after the other, from a place on. Knows no table.

use std::{path::Path, time::Duration};

use flow::Fault;
use futures_util::StreamExt as _;
use mysql_async::{BinlogStream, BinlogStreamRequest, Error, binlog::events::Event};
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    binlog::{kind, next_file},
    connect::Server,
    error::explain,
    link::Link,
    mark::{Made, Place},
};

/// The server speaks at least so often.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// And is taken for gone when it has not, for so long.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// How long the server may take to begin.
const BEGIN_WAIT: Duration = Duration::from_secs(30);
/// It waits for a destination that is away: a year, the longest there is.
const WRITE_WAIT_SECONDS: u32 = 31_536_000;
/// Where the first event of a file begins.
pub(super) const FIRST_OFFSET: u64 = 4;
/// Places of the protocol have 32 bits.
const OFFSET_MAX: u64 = u32::MAX as u64;
/// The header of an event says that it is none of the file.
const ARTIFICIAL: u16 = 0x20;

/// The log, being sent.
pub(super) struct Dump {
    stream: BinlogStream,
    /// `host:port/database`.
    place: String,
    /// The file that is being sent, and what is known of it.
    pub file: String,
    pub made: Option<Made>,
    heard: Instant,
}

/// What came.
pub(super) struct Sent {
    pub event: Event,
    /// Where the log is after it; `None` when it is none of the file.
    pub end: Option<u64>,
}

impl Sent {
    pub(super) fn kind(&self) -> u8 {
        self.event.header().event_type_raw()
    }
}

impl Dump {
    /// Lets the server send what comes after `from`. `id` is what it knows us by among its replicas.
    pub(super) async fn open(server: &Server, base_dir: &Path, id: u32, from: &Place) -> Result<Self, Fault> {
        let mut link = Link::open(server, base_dir).await?;
        if from.offset > OFFSET_MAX {
            return Err(beyond(&from.file));
        }
        // MySQL has had other names for its variables since 8.0.26. MariaDB sends its own kinds of events only to who
        // says that he knows them.
        let nanos = HEARTBEAT.as_nanos();
        let sql = format!(
            "SET @master_heartbeat_period = {nanos}, @source_heartbeat_period = {nanos}, \
             @source_binlog_checksum = 'ALL', @mariadb_slave_capability = 4"
        );
        link.run("prepare for the log", &sql).await?;
        let sql = format!("SET SESSION net_write_timeout = {WRITE_WAIT_SECONDS}");
        link.run("prepare for the log", &sql).await?;
        let Link { conn, place } = link;
        let request = BinlogStreamRequest::new(id)
            .with_filename(from.file.as_bytes())
            .with_pos(from.offset.max(FIRST_OFFSET));
        let asked = timeout(BEGIN_WAIT, conn.get_binlog_stream(request)).await;
        let stream = match asked {
            Ok(asked) => asked.map_err(|error| refused(&error, &place))?,
            Err(_) => return Err(silent(&place)),
        };
        let mut dump = Self {
            stream,
            place,
            file: from.file.clone(),
            made: None,
            heard: Instant::now(),
        };
        dump.begin().await?;
        Ok(dump)
    }

    /// Reads up to the description of the file.
    async fn begin(&mut self) -> Result<(), Fault> {
        let until = Instant::now() + BEGIN_WAIT;
        while self.made.is_none() {
            if self.next(until).await?.is_none() {
                return Err(silent(&self.place));
            }
        }
        Ok(())
    }

    /// The next event; `None` when none comes in time.
    pub(super) async fn next(&mut self, until: Instant) -> Result<Option<Sent>, Fault> {
        let event = match timeout_at(until, self.stream.next()).await {
            Err(_) if self.heard.elapsed() > SILENCE_MAX => return Err(silent(&self.place)),
            Err(_) => return Ok(None),
            Ok(None) => {
                let place = &self.place;
                return Err(Fault::retry(format!(
                    "MySQL at {place} has ended the log: it shuts down, or another replica has the same server_id"
                )));
            }
            Ok(Some(Err(error))) => return Err(refused(&error, &self.place)),
            Ok(Some(Ok(event))) => event,
        };
        self.heard = Instant::now();
        let header = event.header();
        let is_own = header.flags_raw() & ARTIFICIAL == 0 && header.log_pos() > 0;
        match header.event_type_raw() {
            kind::FORMAT => {
                self.made = Some(Made {
                    server_id: header.server_id(),
                    second: header.timestamp(),
                });
            }
            // The first one, before the file's description, says what we asked for, and whether it ends with a checksum
            // is not known yet.
            kind::ROTATE if self.made.is_some() => self.file = next_file(event.data()).map_err(broken)?,
            _ => {}
        }
        let end = is_own.then(|| u64::from(header.log_pos()));
        Ok(Some(Sent { event, end }))
    }

    /// Ends it.
    pub(super) async fn close(self) {
        // The server notices by itself, too.
        let _ = timeout(Duration::from_secs(1), self.stream.close()).await;
    }
}

/// An event that makes no sense.
pub(super) fn broken(error: super::bytes::Broken) -> Fault {
    Fault::retry(format!("MySQL: {error}"))
}

/// A file whose places the protocol cannot name any more.
pub(super) fn beyond(file: &str) -> Fault {
    Fault::stop(format!(
        "the file {file} of the binary log is longer than 4 GB (a transaction is that large), and places beyond that cannot \
         be asked for: give the node another name to begin with a new snapshot"
    ))
}

fn silent(place: &str) -> Fault {
    Fault::retry(format!("MySQL at {place} sends no log, and does not say why"))
}

fn refused(error: &Error, place: &str) -> Fault {
    let said = explain(error);
    match error {
        // No right (1227, 1045, 1142).
        Error::Server(error) if matches!(error.code, 1227 | 1045 | 1142) => Fault::retry(format!(
            "MySQL at {place} does not give the log to this user: GRANT REPLICATION SLAVE ON *.* TO it ({said})"
        )),
        // 1236: what was asked for is not there.
        Error::Server(error) if error.code == 1236 && says_gone(&error.message) => Fault::stop(gone(place, &said)),
        _ => Fault::retry(format!("MySQL at {place}: the log broke off: {said}")),
    }
}

fn says_gone(message: &str) -> bool {
    let message = message.to_lowercase();
    [
        "could not find first log file",
        "impossible position",
        "purged",
        "could not find file",
    ]
    .iter()
    .any(|words| message.contains(words))
}

/// The server does not have what comes next any more.
pub(super) fn gone(place: &str, cause: &str) -> String {
    format!(
        "the binary log of MySQL at {place} does not have what comes next any more ({cause}): what was changed in between is \
         lost for this source. Give the node another name to begin with a new snapshot, and let the server keep its log for \
         longer than the source may be away (binlog_expire_logs_seconds)"
    )
}

#[cfg(test)]
mod tests {
    use mysql_async::ServerError;

    use super::*;

    #[test]
    fn what_is_gone_is_told_from_what_passes() {
        for (code, message, is_final) in [
            (
                1236,
                "Could not find first log file name in binary log index file",
                true,
            ),
            (
                1236,
                "Client requested master to start replication from impossible position",
                true,
            ),
            (
                1236,
                "A slave with the same server_uuid/server_id as this slave has connected",
                false,
            ),
            (1053, "Server shutdown in progress", false),
            (
                1227,
                "Access denied; you need (at least one of) the REPLICATION SLAVE",
                false,
            ),
        ] {
            let error = Error::Server(ServerError {
                code,
                message: message.into(),
                state: "HY000".into(),
            });
            let fault = refused(&error, "h:1/d");
            assert_eq!(matches!(fault, Fault::Stop { .. }), is_final, "{fault}");
        }
    }
}
