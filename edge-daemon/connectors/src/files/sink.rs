//! Destination `files`: puts whole files together again. Files and commits are in `file::output`.

use std::{
    io,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use bus_schema::{
    id::StreamId,
    plan::{ComponentRole, Descriptor},
};
use flow::{
    Build, BuildContext, Component, ConfigError, Delivery, Fault, Rejected, Sink, Trouble, Watermark, describe,
    parse_config,
};
use schemars::JsonSchema;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::chunk::{Chunk, Chunks, Step, hex};
use crate::file::{
    output::{Output, Target},
    part::{Limits, Part},
    partition::NameTemplate,
    writer::Writer,
};

/// Bytes read at once of a file that is checked.
const CHECK_BYTES: usize = 64 * 1024;

/// Writes the files that a source `files` sends into a directory, each exactly once: a file grows beside its place, is checked
/// against its SHA-256, made durable, and takes its place in one step, with its time of change. One that is not what was sent
/// goes to the dead letters with its last record. In the directory, `.mycelial` remembers how far it is. (Do not delete that
/// file while the workflow exists. One destination per directory.)
///
/// A name that leads out of the directory, or that cannot be one on every system (`..`, `C:`, `aux`, …), goes to the dead
/// letters. At most 64 files are on their way at a time; of more, the one longest without news is given up.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The directory, which must exist. A relative path starts in the daemon's directory.
    path: PathBuf,
    /// What a file is called: a name with columns in it, such as `{site}/{name}`. `{column:date}` is the day of a time (also
    /// `year`, `month`, `hour`), in UTC.
    #[serde(default = "name")]
    name: String,
    /// What happens when there is a file of this name.
    #[serde(default)]
    existing: Existing,
}

fn name() -> String {
    "{name}".to_string()
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Existing {
    /// The new one takes its place.
    #[default]
    Replace,
    /// The new one gets a number: `name-000001.ext`.
    Number,
}

/// The registry line.
pub(crate) const SINK: Component = Component {
    descriptor,
    build: Build::Sink(build),
};

const EXAMPLE: &str = r#"name = "recipes"

[sources.folder]
type = "files"
path = "recipes"

[destinations.machine]
type = "files"
from = "folder"
path = "/data/recipes"
"#;

fn descriptor() -> Descriptor {
    let mut descriptor = describe::<Config>(
        ComponentRole::Destination,
        "files",
        "Puts whole files into a directory",
        EXAMPLE,
    );
    descriptor.durable = true;
    descriptor
}

fn build(config: &str, context: &BuildContext) -> Result<Box<dyn Sink>, ConfigError> {
    let config: Config = parse_config(config)?;
    if config.path.as_os_str().is_empty() {
        return Err(ConfigError::at("path", "name the directory"));
    }
    let target = Target::Whole {
        directory: context.base_dir.join(&config.path),
        replace: config.existing == Existing::Replace,
    };
    Ok(Box::new(FilesSink {
        names: NameTemplate::parse(&config.name, "name")?,
        writer: Writer::new(target, Limits::default()),
    }))
}

struct FilesSink {
    names: NameTemplate,
    writer: Writer,
}

#[async_trait]
impl Sink for FilesSink {
    async fn open(&mut self) -> Result<(), Fault> {
        self.writer.open().await
    }

    async fn watermark(&mut self, stream: &StreamId) -> Result<Option<Watermark>, Fault> {
        Ok(self.writer.mark(stream))
    }

    fn keeps_watermark(&self) -> bool {
        true
    }

    async fn write(&mut self, deliveries: &[Delivery]) -> Result<Vec<Rejected>, Fault> {
        let mut rejected = Vec::new();
        for (index, delivery) in deliveries.iter().enumerate() {
            let (names, delivery) = (self.names.clone(), delivery.clone());
            let refused = self.writer.with(move |output| write(&names, output, &delivery)).await?;
            rejected.extend(refused.into_iter().map(|(row, reason)| Rejected {
                delivery: index,
                row,
                reason,
            }));
        }
        Ok(rejected)
    }

    async fn commit(&mut self) -> Result<(), Fault> {
        self.writer.with(Output::commit).await
    }

    async fn check(&mut self) -> Result<String, Trouble> {
        self.writer.check()
    }

    async fn close(&mut self) {
        self.writer.close();
    }
}

/// Writes one delivery, and returns the rows that cannot be written.
fn write(names: &NameTemplate, output: &mut Output, delivery: &Delivery) -> io::Result<Vec<(usize, String)>> {
    let chunks = Chunks::of(&delivery.batch);
    let mut rejected = Vec::new();
    for row in 0..delivery.batch.rows() {
        let chunk = chunks
            .row(row)
            .and_then(|chunk| Ok((chunk, names.fill(&delivery.batch, row)?)));
        let done = match chunk {
            Ok((chunk, name)) => put(output, &name, &chunk)?,
            Err(reason) => Err(reason),
        };
        rejected.extend(done.err().map(|reason| (row, reason)));
    }
    let mark = output
        .pending_mark(&delivery.stream)
        .after(delivery, rejected.len() as u64);
    output.set_mark(delivery.stream, &mark);
    Ok(rejected)
}

/// Puts one record where it belongs; the inner error is why it cannot be.
fn put(output: &mut Output, name: &str, chunk: &Chunk<'_>) -> io::Result<Result<(), String>> {
    match chunk.step {
        Step::Data { offset: 0, data } => begin(output, name, chunk, data),
        Step::Data { offset, data } => match under_way(output, name, chunk) {
            Some(part) if part.length() == offset => {
                output.part(name)?.write(data)?;
                Ok(Ok(()))
            }
            Some(part) => Ok(Err(format!(
                "it begins at byte {offset} of '{name}', of which {} are here",
                part.length()
            ))),
            None => Ok(Err(format!("the beginning of '{name}' is not here"))),
        },
        Step::End { sha256 } => {
            if chunk.size == 0
                && let Err(cause) = begin(output, name, chunk, &[])?
            {
                return Ok(Err(cause));
            }
            end(output, name, chunk, sha256)
        }
        Step::Dropped => {
            if under_way(output, name, chunk).is_some() {
                output.discard(name);
            }
            Ok(Ok(()))
        }
    }
}

fn begin(output: &mut Output, name: &str, chunk: &Chunk<'_>, data: &[u8]) -> io::Result<Result<(), String>> {
    if let Err(cause) = output.admit(name)? {
        return Ok(Err(cause));
    }
    // What there is of another version is worth nothing any more.
    output.discard(name);
    let part = output.part(name)?;
    part.transfer = Some(chunk.transfer.to_string());
    part.write(data)?;
    Ok(Ok(()))
}

/// The file that the record belongs to, as far as it has come.
fn under_way<'a>(output: &'a mut Output, name: &str, chunk: &Chunk<'_>) -> Option<&'a mut Part> {
    let part = output.known(name)?;
    (part.transfer.as_deref() == Some(chunk.transfer)).then_some(part)
}

/// A complete file takes its place, if it is what was sent.
fn end(output: &mut Output, name: &str, chunk: &Chunk<'_>, sha256: &str) -> io::Result<Result<(), String>> {
    let again = "to have it sent again, change its time there (touch)";
    let Some(part) = under_way(output, name, chunk) else {
        return Ok(Err(format!("nothing of '{name}' is here: {again}")));
    };
    let found = digest(part)?;
    if part.length() != chunk.size || found != sha256 {
        let cause = format!(
            "'{name}' is left out, it is not what was sent: {} of {} bytes, SHA-256 {found} instead of {sha256}; {again}",
            part.length(),
            chunk.size
        );
        output.discard(name);
        return Ok(Err(cause));
    }
    if let Some(time) = chunk.modified.and_then(system_time) {
        part.set_modified(time)?;
    }
    output.seal(name)?;
    Ok(Ok(()))
}

/// SHA-256 of what the file system gives back, in hexadecimal.
fn digest(part: &mut Part) -> io::Result<String> {
    let mut digest = Sha256::new();
    let mut bytes = vec![0; CHECK_BYTES];
    let mut offset = 0;
    while offset < part.length() {
        let wanted = (part.length() - offset).min(CHECK_BYTES as u64) as usize;
        part.read_at(&mut bytes[..wanted], offset)?;
        digest.update(&bytes[..wanted]);
        offset += wanted as u64;
    }
    Ok(hex(&digest.finalize()))
}

/// A time of the system's kind; `None` when it has none so far away.
fn system_time(nanos: i128) -> Option<SystemTime> {
    let distance = u64::try_from(nanos.unsigned_abs()).ok().map(Duration::from_nanos)?;
    if nanos < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    }
}
