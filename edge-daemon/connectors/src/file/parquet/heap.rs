//! Records that are gathered until they become a file: batches one after the other in a file without a name, which a crash
//! removes. Blocking.

use std::{
    fs::{File, OpenOptions, remove_file},
    io,
    os::unix::fs::FileExt as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bus_schema::{
    data::{Batch, Schema},
    limits::COLUMNS_MAX,
};

use super::kind::Kind;

/// Bytes before a batch that say how many it has.
const LENGTH_BYTES: usize = 4;

/// What becomes one file.
pub(super) struct Heap {
    /// The name that the file has below the directory, before it gets its number.
    pub name: String,
    /// Its columns so far.
    pub columns: Vec<(String, Kind)>,
    file: Option<Arc<File>>,
    /// Bytes of the file that are committed.
    length: u64,
    /// What is not.
    pending: Vec<u8>,
    /// How many columns there were at the last commit.
    committed_columns: usize,
}

impl Heap {
    pub(super) fn new(name: String) -> Self {
        Self {
            name,
            columns: Vec::new(),
            file: None,
            length: 0,
            pending: Vec::new(),
            committed_columns: 0,
        }
    }

    /// Bytes that are committed.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Whether records like these have a place: no column is of another kind.
    pub(super) fn takes(&self, schema: &Schema) -> bool {
        let mut new = 0;
        for field in &schema.fields {
            match self.columns.iter().find(|(name, _)| *name == field.name) {
                Some((_, kind)) if *kind != Kind::of(&field.ty) => return false,
                Some(_) => {}
                None => new += 1,
            }
        }
        self.columns.len() + new <= COLUMNS_MAX
    }

    /// Adds records, of a schema that has a place.
    pub(super) fn add(&mut self, batch: &Batch) {
        for field in &batch.schema().fields {
            if !self.columns.iter().any(|(name, _)| *name == field.name) {
                self.columns.push((field.name.clone(), Kind::of(&field.ty)));
            }
        }
        let bytes = batch.encode();
        self.pending.extend((bytes.len() as u32).to_be_bytes());
        self.pending.extend(bytes);
    }

    /// Writes what was added behind what is committed. It counts once it is settled: several heaps are committed together.
    pub(super) fn save(&mut self, base_dir: &Path) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let file = match &self.file {
            Some(file) => Arc::clone(file),
            None => Arc::clone(self.file.insert(Arc::new(unnamed(base_dir)?))),
        };
        file.write_all_at(&self.pending, self.length)
    }

    /// Keeps what was saved.
    pub(super) fn settle(&mut self) {
        self.length += self.pending.len() as u64;
        self.pending = Vec::new();
        self.committed_columns = self.columns.len();
    }

    /// Forgets what was added and not kept.
    pub(super) fn undo(&mut self) {
        self.pending.clear();
        self.columns.truncate(self.committed_columns);
    }

    /// What was kept, from the beginning.
    pub(super) fn batches(&self) -> Batches {
        Batches {
            file: self.file.clone(),
            at: 0,
            length: self.length,
        }
    }
}

/// Gathered batches, in their order.
pub(super) struct Batches {
    file: Option<Arc<File>>,
    at: u64,
    length: u64,
}

impl Batches {
    /// The next one, and how many bytes it has.
    pub(super) fn next(&mut self) -> io::Result<Option<(Batch, usize)>> {
        let Some(file) = self.file.as_ref().filter(|_| self.at < self.length) else {
            return Ok(None);
        };
        let mut length = [0; LENGTH_BYTES];
        file.read_exact_at(&mut length, self.at)?;
        let length = u32::from_be_bytes(length) as usize;
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, self.at + LENGTH_BYTES as u64)?;
        self.at += (LENGTH_BYTES + length) as u64;
        let batch = Batch::decode(&bytes).map_err(io::Error::other)?;
        Ok(Some((batch, length)))
    }
}

/// A file that has no name, and so is gone with the process.
fn unnamed(base_dir: &Path) -> io::Result<File> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = base_dir.join(format!(".mycelial-parquet-{}-{count}", std::process::id()));
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)?;
    remove_file(&path)?;
    Ok(file)
}
