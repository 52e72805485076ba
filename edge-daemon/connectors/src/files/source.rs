//! Source `files`: the files of a directory, whole. The reading itself is in `reader` and `listing`.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use async_trait::async_trait;
use bus_schema::{
    data::Batch,
    plan::{ComponentRole, Descriptor},
};
use flow::{
    Build, BuildContext, Component, ConfigError, Fault, Position, READ_WAIT_MAX, Read, Source, Trouble, describe,
    parse_config,
};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    listing::Choice,
    reader::{Got, Reader, Settings, WhenSent},
};
#[cfg(feature = "excel")]
use crate::file::excel::ExcelConfig;
use crate::{
    file::source::{CsvConfig, FormatConfig, FormatName, Parsing},
    reach,
};

/// How often a directory without news is looked at.
const POLL: Duration = Duration::from_millis(250);
/// How long it waits at first for others to become durable before it asks again; then twice as long each time, up to [`POLL`].
const MOMENT: Duration = Duration::from_millis(5);

/// Sends the files of a directory, the oldest first, one after the other: the records in them, or the files as they are,
/// whatever is in them. It goes on where it was after a crash. A file that changes later is another file and sent again. What
/// begins with a dot, and links, are passed over. (A single file that grows is for the source `file`.) For records, files
/// whose names end with `.gz` are unpacked; what cannot be goes to the dead letters.
///
/// As they are, files go to a destination `files`, in chunks of at most 48 KB. A file that changes while it is sent is sent
/// again from its beginning. Each record has the file's `name` below the directory, its `size` and time of change (`modified`), and a `step`: `data`
/// with an `offset`, `end` with the `sha256` of the whole, or `dropped` when what was sent of it counts no more.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The directory. A relative path starts in the daemon's directory.
    path: PathBuf,
    /// What becomes of a file.
    #[serde(default)]
    format: Format,
    /// Only files with such a name: `*` stands for any text, `?` for one character.
    pattern: Option<String>,
    /// Whether the directories in it are meant, too.
    #[serde(default)]
    recursive: bool,
    /// How long a file must have stayed as it is, in milliseconds: somebody may still be writing it.
    #[serde(default = "settle_ms")]
    settle_ms: u64,
    /// Whether to wait for more files, or to send what is there and be done.
    #[serde(default)]
    mode: Mode,
    /// What becomes of a file once every destination, or a buffer on disk, has it.
    #[serde(default)]
    when_sent: When,
    /// Where to: a directory on the same file system, which is made if need be. A relative path starts in the daemon's
    /// directory.
    move_to: Option<PathBuf>,
    /// How the CSV is written.
    csv: Option<CsvConfig>,
    /// Which part of a workbook is read, as for the source `file`.
    #[cfg(feature = "excel")]
    excel: Option<ExcelConfig>,
    /// Column = type, as for the source `file`.
    #[serde(default)]
    types: BTreeMap<String, String>,
    /// Adds the columns `_file`, `_line` and `_offset` to records: where each stood.
    #[serde(default)]
    origin_columns: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Format {
    /// It is sent as it is.
    #[default]
    Whole,
    /// A record for each JSON object, one per line.
    JsonLines,
    /// A record for each one of comma separated values (RFC 4180).
    Csv,
    /// A record for each line; the column is called `line`.
    Lines,
    /// A record for each row of Apache Parquet.
    #[cfg(feature = "parquet")]
    Parquet,
    /// A record for each row of a sheet of an Excel workbook (`.xlsx`, `.xlsm`).
    #[cfg(feature = "excel")]
    Excel,
}

impl Format {
    /// How it becomes records, if it does.
    fn name(self) -> Option<FormatName> {
        match self {
            Self::Whole => None,
            Self::JsonLines => Some(FormatName::JsonLines),
            Self::Csv => Some(FormatName::Csv),
            Self::Lines => Some(FormatName::Lines),
            #[cfg(feature = "parquet")]
            Self::Parquet => Some(FormatName::Parquet),
            #[cfg(feature = "excel")]
            Self::Excel => Some(FormatName::Excel),
        }
    }
}

fn settle_ms() -> u64 {
    2_000
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Mode {
    /// Wait for more.
    #[default]
    Watch,
    /// Send what is there, and finish.
    Once,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum When {
    /// It stays. A file `.mycelial-sent-…` in the directory remembers which have been sent.
    #[default]
    Keep,
    /// It is deleted.
    Delete,
    /// It is moved to `move_to`, with a number if its name is taken there.
    Move,
}

/// The registry line.
pub(crate) const SOURCE: Component = Component {
    descriptor,
    build: Build::Source(build),
};

const EXAMPLE: &str = r#"name = "photos"

[sources.camera]
type = "files"
path = "/var/spool/camera"
pattern = "*.jpg"
when_sent = "delete"

[destinations.archive]
type = "files"
from = "camera"
path = "/data/photos"
"#;

fn descriptor() -> Descriptor {
    let mut descriptor = describe::<Config>(
        ComponentRole::Source,
        "files",
        "Sends the files of a directory, as they are or as records",
        EXAMPLE,
    );
    descriptor.durable = true;
    descriptor
}

fn build(config: &str, context: &BuildContext) -> Result<Box<dyn Source>, ConfigError> {
    let config: Config = parse_config(config)?;
    if config.path.as_os_str().is_empty() {
        return Err(ConfigError::at("path", "name the directory"));
    }
    if config
        .pattern
        .as_deref()
        .is_some_and(|pattern| pattern.is_empty() || pattern.contains('/'))
    {
        return Err(ConfigError::at(
            "pattern",
            "is for the names of files, without directories",
        ));
    }
    let directory = context.base_dir.join(&config.path);
    let when_sent = match (config.when_sent, config.move_to) {
        (When::Move, None) => return Err(ConfigError::at("move_to", "name the directory")),
        (When::Move, Some(to)) => {
            let to = context.base_dir.join(to);
            if to == directory || config.recursive && to.starts_with(&directory) {
                return Err(ConfigError::at("move_to", "what is moved there would be sent again"));
            }
            WhenSent::Move { directory: to }
        }
        (_, Some(_)) => return Err(ConfigError::at("move_to", "only for when_sent = \"move\"")),
        (When::Delete, None) => WhenSent::Delete,
        // Of this source alone: another one has sent other files.
        (When::Keep, None) => WhenSent::Keep {
            list: directory.join(format!(".mycelial-sent-{}-{}", context.workflow, context.node)),
        },
    };
    let parsing = match config.format.name() {
        Some(name) => {
            let format = FormatConfig {
                name,
                csv: config.csv,
                #[cfg(feature = "excel")]
                excel: config.excel,
            };
            Some(Parsing::new(format, &config.types, config.origin_columns)?)
        }
        #[cfg(feature = "excel")]
        None if config.excel.is_some() => {
            return Err(ConfigError::at("excel", "only for format = \"excel\""));
        }
        None if config.csv.is_some() || !config.types.is_empty() || config.origin_columns => {
            return Err(ConfigError::at(
                "format",
                "csv, types and origin_columns are for records: name their format",
            ));
        }
        None => None,
    };
    let settings = Settings {
        parsing,
        choice: Choice {
            directory,
            pattern: config.pattern,
            recursive: config.recursive,
            settle: Duration::from_millis(config.settle_ms),
        },
        once: config.mode == Mode::Once,
        when_sent,
    };
    Ok(Box::new(FilesSource {
        settings,
        is_old: false,
        reader: None,
        moment: MOMENT,
    }))
}

struct FilesSource {
    settings: Settings,
    /// Was opened before: what it is opened with from then on may be on its way still.
    is_old: bool,
    /// Away while a thread works with it.
    reader: Option<Reader>,
    /// How long it waits the next time for others to become durable.
    moment: Duration,
}

impl FilesSource {
    async fn blocking<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Reader) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let Some(mut reader) = self.reader.take() else {
            return Err(Fault::retry("the files source is not open"));
        };
        let done = tokio::task::spawn_blocking(move || {
            let result = work(&mut reader);
            (reader, result)
        });
        let (reader, result) = done
            .await
            .map_err(|error| Fault::retry(format!("reading the files broke off: {error}")))?;
        self.reader = Some(reader);
        result
    }
}

#[async_trait]
impl Source for FilesSource {
    async fn open(&mut self, after: Option<&Position>) -> Result<(), Fault> {
        self.reader = None;
        let (settings, after) = (self.settings.clone(), after.cloned());
        // A first position comes from the destinations; after a fault it is that of what was read last.
        let is_durable = !std::mem::replace(&mut self.is_old, true);
        let open = move || Reader::open(settings, after.as_ref(), is_durable);
        let opened = tokio::task::spawn_blocking(open).await;
        self.reader = Some(opened.map_err(|error| Fault::retry(format!("opening the directory broke off: {error}")))??);
        Ok(())
    }

    async fn read(&mut self) -> Result<Read, Fault> {
        let give_up = tokio::time::Instant::now() + READ_WAIT_MAX;
        loop {
            match self.blocking(|reader| reader.read(std::time::Instant::now())).await? {
                Got::Batch(batch) => {
                    self.moment = MOMENT;
                    return Ok(Read::Batch(batch));
                }
                Got::End => return Ok(Read::End),
                Got::Full => {
                    // What makes room for the next one is heard of between two calls.
                    tokio::time::sleep(self.moment).await;
                    self.moment = POLL.min(self.moment * 2);
                    return Ok(Read::Idle);
                }
                Got::Wait => {}
            }
            if tokio::time::Instant::now() + POLL > give_up {
                return Ok(Read::Idle);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn decode(&mut self, bytes: &[u8]) -> Result<Batch, String> {
        match &self.settings.parsing {
            Some(parsing) => parsing.reader(&self.settings.choice.directory, true).decode(bytes),
            None => Err("a chunk of a file is not read again: mend the file".to_string()),
        }
    }

    async fn commit(&mut self, position: &Position) -> Result<(), Fault> {
        let position = position.clone();
        self.blocking(move |reader| reader.commit(&position)).await
    }

    async fn check(&mut self) -> Result<String, Trouble> {
        let directory = &self.settings.choice.directory;
        reach::readable_directory(directory)?;
        // What has been sent is remembered beside the files, deleted or moved.
        reach::writable_directory(directory)?;
        if let WhenSent::Move { directory: to } = &self.settings.when_sent {
            // It is made when it is missing.
            let there = to.ancestors().find(|place| place.exists());
            reach::writable_directory(there.unwrap_or(to))?;
        }
        Ok(format!("the files in {} can be read", directory.display()))
    }

    async fn close(&mut self) {
        self.reader = None;
    }
}
