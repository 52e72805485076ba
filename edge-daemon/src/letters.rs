//! Dead letters and checkpoints on disk. A dead letter is a line of JSON in a file of its workflow, bounded in bytes;
//! a checkpoint is a small file per lineage, replaced atomically.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use bus_link::home::{Home, HomeError, sync_dir};
use bus_schema::{data::Batch, id::StreamId};
use flow::{Checkpoints, DeadLetter, DeadLetters, Fault, TapPoint, Watermark};
use serde::Serialize;

/// Bytes of dead letters kept for one workflow; the older half goes when it is full.
const LETTERS_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// One line of a dead-letter file.
#[derive(Serialize)]
struct Line<'a> {
    at_unix_ms: u128,
    point: &'a str,
    node: &'a str,
    reason: &'a str,
    /// Column names and values as text, when it is a record.
    record: Option<serde_json::Map<String, serde_json::Value>>,
    /// The exact bytes: an encoded batch of one row, or the source's input. Hexadecimal.
    bytes: String,
}

/// The dead letters of one workflow.
#[derive(Clone)]
pub struct LetterBox {
    inner: Arc<Mutex<PathBuf>>,
}

impl LetterBox {
    /// Dead letters under `<data_dir>/dead/<workflow>.jsonl`.
    pub fn new(data_dir: &std::path::Path, workflow: &str) -> Self {
        let path = data_dir.join("dead").join(format!("{workflow}.jsonl"));
        Self {
            inner: Arc::new(Mutex::new(path)),
        }
    }

    fn append(&self, letters: &[DeadLetter]) -> std::io::Result<()> {
        // One writer at a time; a panic while writing leaves at worst a torn last line, which readers skip.
        let path = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = path.parent().unwrap_or(&path);
        fs::create_dir_all(dir)?;
        let mut file = OpenOptions::new().create(true).append(true).open(&*path)?;
        if file.metadata()?.len() > LETTERS_BYTES_MAX / 2 {
            drop(file);
            fs::rename(&*path, path.with_extension("jsonl.1"))?;
            tracing::warn!(path = %path.display(), "dead letters rotated; the older half is kept as .jsonl.1");
            file = OpenOptions::new().create(true).append(true).open(&*path)?;
        }
        // An earlier write may have been cut short: what is torn stays a line of its own, which readers skip.
        let torn = !ends_with_newline(&path)?;
        let text: String = letters.iter().map(line).collect();
        let text = if torn { format!("\n{text}") } else { text };
        file.write_all(text.as_bytes())?;
        crash_point::at!(LettersBeforeSync);
        File::sync_all(&file)?;
        sync_dir(dir)?;
        crash_point::at!(LettersAfterSync);
        Ok(())
    }
}

/// Whether a file is empty or its last byte ends a line.
fn ends_with_newline(path: &std::path::Path) -> std::io::Result<bool> {
    let mut file = File::open(path)?;
    if file.metadata()?.len() == 0 {
        return Ok(true);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

fn line(letter: &DeadLetter) -> String {
    let point = match letter.point {
        TapPoint::Source => "source",
        TapPoint::Transform => "transform",
        TapPoint::Destination => "destination",
    };
    let record = Batch::decode(&letter.record)
        .ok()
        .filter(|_| letter.point != TapPoint::Source)
        .map(|batch| {
            let fields = batch.schema().fields.iter().enumerate();
            fields
                .map(|(index, field)| (field.name.clone(), batch.cell(0, index).to_string().into()))
                .collect()
        });
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    let bytes = letter.record.iter().map(|byte| format!("{byte:02x}")).collect();
    let line = Line {
        at_unix_ms: now.as_millis(),
        point,
        node: &letter.node,
        reason: &letter.reason,
        record,
        bytes,
    };
    let mut text = serde_json::to_string(&line).unwrap_or_default();
    text.push('\n');
    text
}

#[async_trait]
impl DeadLetters for LetterBox {
    async fn put(&self, letters: Vec<DeadLetter>) -> Result<(), Fault> {
        if letters.is_empty() {
            return Ok(());
        }
        let (this, count) = (self.clone(), letters.len());
        let written = tokio::task::spawn_blocking(move || this.append(&letters)).await;
        let written = written.map_err(|error| Fault::retry(error.to_string()))?;
        written.map_err(|error| Fault::retry(format!("cannot keep dead letters: {error}")))?;
        tracing::warn!(records = count, "records went to the dead letters");
        Ok(())
    }
}

/// Checkpoints under `<data_dir>/marks/<lineage>`.
pub struct MarkFiles {
    home: Arc<Home>,
}

impl MarkFiles {
    /// In a member's directory.
    pub fn new(home: Arc<Home>) -> Result<Self, HomeError> {
        let dir = home.dir().join("marks");
        fs::create_dir_all(&dir).map_err(|source| HomeError::Io {
            what: "create",
            path: dir.display().to_string(),
            source,
        })?;
        Ok(Self { home })
    }
}

fn mark_name(stream: &StreamId) -> String {
    format!("marks/{stream}")
}

#[async_trait]
impl Checkpoints for MarkFiles {
    async fn load(&self, stream: &StreamId) -> Result<Option<Watermark>, Fault> {
        match self.home.load(&mark_name(stream)) {
            Ok(bytes) => Ok(bytes.and_then(|bytes| bus_schema::decode(&bytes))),
            Err(error @ HomeError::Damaged { .. }) => {
                tracing::error!(%error, "a checkpoint is lost: its source starts over");
                Ok(None)
            }
            Err(error) => Err(Fault::retry(error.to_string())),
        }
    }

    async fn save(&self, stream: &StreamId, mark: &Watermark) -> Result<(), Fault> {
        let (home, name, bytes) = (Arc::clone(&self.home), mark_name(stream), bus_schema::encode(mark));
        let saved = tokio::task::spawn_blocking(move || home.store(&name, &bytes)).await;
        saved
            .map_err(|error| Fault::retry(error.to_string()))?
            .map_err(|error| Fault::retry(error.to_string()))
    }
}
