//! Source `stdin`: what is piped into the daemon. A thread reads ahead, a little; the standard input is there once.

use std::{
    collections::BTreeMap,
    io::{self, Read as _},
    sync::{Mutex, PoisonError},
    thread,
};

use async_trait::async_trait;
use bus_schema::plan::{ComponentRole, Descriptor};
use flow::{
    Build, BuildContext, Component, ConfigError, Fault, Position, READ_WAIT_MAX, Read, Source, SourceBatch, Trouble,
    describe, parse_config,
};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};

use crate::{
    feed::{Feed, FormatName},
    file::source::CsvConfig,
};

/// Bytes read at once.
const CHUNK_BYTES: usize = 64 * 1024;
/// Chunks read ahead.
const CHUNKS_MAX: usize = 2;

/// Reads what is piped into the daemon (`some-program | myceliald run workflow.toml`), as it comes, to its end. A pipe
/// cannot be read twice: what was read and is not yet stored when the daemon is killed is lost. Only one source of a daemon
/// can read it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// What its lines are.
    #[serde(default)]
    format: FormatName,
    /// How the CSV is written.
    csv: Option<CsvConfig>,
    /// Column = type, as in the source `file`.
    #[serde(default)]
    types: BTreeMap<String, String>,
}

/// The registry line.
pub(crate) const SOURCE: Component = Component {
    descriptor,
    build: Build::Source(build),
};

const EXAMPLE: &str = r#"name = "pipe"

[sources.in]
type = "stdin"
format = "lines"

[destinations.out]
type = "stdout"
from = "in"
"#;

fn descriptor() -> Descriptor {
    let summary = "Reads what is piped into the daemon";
    describe::<Config>(ComponentRole::Source, "stdin", summary, EXAMPLE)
}

fn build(config: &str, _: &BuildContext) -> Result<Box<dyn Source>, ConfigError> {
    let Config { format, csv, types } = parse_config(config)?;
    Ok(Box::new(StdinSource {
        feed: Feed::new("stdin", format, csv, &types)?,
        chunks: None,
        place: &PLACE,
    }))
}

type Chunks = mpsc::Receiver<io::Result<Vec<u8>>>;

/// Where what was read ahead waits for whoever opens the source next.
static PLACE: Place = Place(Mutex::new(Ahead::Unread));

struct Place(Mutex<Ahead>);

enum Ahead {
    /// Nobody has read anything.
    Unread,
    /// Somebody is reading.
    Taken,
    /// Somebody has read and gone.
    Waiting(Chunks),
}

impl Place {
    /// `None`: another source has it.
    fn take(&self, input: fn() -> Box<dyn io::Read>) -> io::Result<Option<Chunks>> {
        let mut ahead = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *ahead, Ahead::Taken) {
            Ahead::Taken => Ok(None),
            Ahead::Waiting(chunks) => Ok(Some(chunks)),
            Ahead::Unread => {
                let (sender, chunks) = mpsc::channel(CHUNKS_MAX);
                // Not of the runtime: it may wait for input for ever, and the daemon ends without it.
                let started = thread::Builder::new()
                    .name("stdin".to_string())
                    .spawn(move || pump(input(), &sender));
                if started.is_err() {
                    *ahead = Ahead::Unread;
                }
                started.map(|_| Some(chunks))
            }
        }
    }

    fn give_back(&self, chunks: Chunks) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Ahead::Waiting(chunks);
    }
}

fn pump(mut input: Box<dyn io::Read>, sender: &mpsc::Sender<io::Result<Vec<u8>>>) {
    loop {
        let mut chunk = vec![0; CHUNK_BYTES];
        let read = match input.read(&mut chunk) {
            Ok(0) => return,
            Ok(bytes) => {
                chunk.truncate(bytes);
                Ok(chunk)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
        let failed = read.is_err();
        if sender.blocking_send(read).is_err() || failed {
            return;
        }
    }
}

struct StdinSource {
    feed: Feed,
    chunks: Option<Chunks>,
    place: &'static Place,
}

impl StdinSource {
    fn let_go(&mut self) {
        if let Some(chunks) = self.chunks.take() {
            self.place.give_back(chunks);
        }
    }
}

impl Drop for StdinSource {
    fn drop(&mut self) {
        self.let_go();
    }
}

#[async_trait]
impl Source for StdinSource {
    async fn open(&mut self, _: Option<&Position>) -> Result<(), Fault> {
        self.let_go();
        let taken = self.place.take(|| Box::new(io::stdin()));
        match taken.map_err(|error| Fault::retry(format!("cannot read the standard input: {error}")))? {
            Some(chunks) => self.chunks = Some(chunks),
            None => {
                return Err(Fault::stop(
                    "another source of this daemon reads the standard input already",
                ));
            }
        }
        Ok(())
    }

    async fn read(&mut self) -> Result<Read, Fault> {
        let give_up = Instant::now() + READ_WAIT_MAX;
        let Some(chunks) = &mut self.chunks else {
            return Err(Fault::retry("the standard input is not open"));
        };
        loop {
            if let Some((batch, undecodable)) = self.feed.batch()? {
                return Ok(Read::Batch(SourceBatch {
                    batch,
                    position: Position::default(),
                    undecodable,
                }));
            }
            if self.feed.is_at_end() {
                return Ok(Read::End);
            }
            match timeout_at(give_up, chunks.recv()).await {
                Err(_) => return Ok(Read::Idle),
                Ok(Some(Ok(chunk))) => self.feed.buffer().extend_from_slice(&chunk),
                Ok(Some(Err(error))) => {
                    return Err(Fault::stop(format!(
                        "the standard input cannot be read any more: {error}"
                    )));
                }
                Ok(None) => self.feed.end(),
            }
        }
    }

    /// Looking would take what comes.
    async fn check(&mut self) -> Result<String, Trouble> {
        Ok("the standard input is always there; whether anything comes shows when it is read".to_string())
    }

    async fn close(&mut self) {
        self.let_go();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::testing::refused;

    #[test]
    fn only_one_reads_and_nothing_is_lost_between_two() {
        let place = Place(Mutex::new(Ahead::Unread));
        let input: fn() -> Box<dyn io::Read> = || Box::new(&b"some bytes"[..]);
        let mut chunks = place.take(input).unwrap().unwrap();
        assert!(place.take(input).unwrap().is_none());
        assert_eq!(chunks.blocking_recv().unwrap().unwrap(), b"some bytes");
        place.give_back(chunks);
        let mut chunks = place.take(input).unwrap().unwrap();
        assert!(chunks.blocking_recv().is_none(), "it was read once, to its end");
    }

    #[test]
    fn mistakes_are_named() {
        refused(&SOURCE, r#"{"csv": {}}"#, "csv: only for format");
        refused(&SOURCE, r#"{"format": "xml"}"#, "format: unknown variant `xml`");
    }
}
