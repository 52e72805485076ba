//! What is gathered as an object has it: packed, and read in parts. Blocking work on threads of its own; sends nothing.

use std::{
    fs::{File, OpenOptions, remove_file},
    io::{self, Read, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use flow::Fault;
use schemars::JsonSchema;
use serde::Deserialize;

use super::wider::widen;

/// The level at which Zstandard packs: its own default.
const ZSTD_LEVEL: i32 = 3;

/// How an object is packed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Packing {
    /// As it is.
    #[default]
    None,
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
}

impl Packing {
    /// What is added to a name.
    pub(super) fn ending(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Gzip => ".gz",
            Self::Zstd => ".zst",
        }
    }
}

/// A file that has no name, and so is gone with the process.
pub(super) fn unnamed(base_dir: &Path) -> io::Result<File> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = base_dir.join(format!(".mycelial-s3-{}-{count}", std::process::id()));
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)?;
    remove_file(&path)?;
    Ok(file)
}

/// What is gathered for an object.
pub(super) struct Raw {
    pub file: Arc<File>,
    /// Bytes of it.
    pub length: u64,
    /// How the object is made of them; `None`: it is just them.
    pub form: Option<Form>,
}

/// How an object is made of rows of CSV that were gathered before it had all its columns.
pub(super) struct Form {
    /// Bytes at the beginning that are left out: the header of then.
    pub skip: u64,
    pub header: Option<Vec<u8>>,
    /// In order.
    pub wider: Vec<Wider>,
}

/// Rows up to here get this at their ends.
pub(super) struct Wider {
    pub until: u64,
    pub more: Vec<u8>,
}

/// The rows in their form.
fn formed(base_dir: &Path, (file, length): (Arc<File>, u64), form: &Form) -> io::Result<(File, u64)> {
    let wide = unnamed(base_dir)?;
    let mut to = io::BufWriter::new(&wide);
    to.write_all(form.header.as_deref().unwrap_or_default())?;
    let mut at = form.skip;
    for Wider { until, more } in &form.wider {
        let (file, length) = (Arc::clone(&file), *until);
        widen(Section { file, at, length }, &mut to, more)?;
        at = at.max(*until);
    }
    io::copy(&mut Section { file, at, length }, &mut to)?;
    to.flush()?;
    drop(to);
    let length = wide.metadata()?.len();
    Ok((wide, length))
}

/// The content of an object.
pub(super) struct Packed {
    file: Arc<File>,
    length: u64,
}

impl Packed {
    /// Bytes in it.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Some of it: the same whenever it is asked for.
    pub(super) async fn part(&self, offset: u64, bytes: usize) -> Result<Vec<u8>, Fault> {
        let (file, length) = (
            Arc::clone(&self.file),
            (self.length - offset).min(bytes as u64) as usize,
        );
        on_a_thread(move || {
            let mut part = vec![0; length];
            file.read_exact_at(&mut part, offset)?;
            Ok(part)
        })
        .await
    }
}

/// Packs what is gathered: the same rows become the same bytes.
pub(super) async fn pack(
    Raw { file, length, form }: Raw,
    packing: Packing,
    base_dir: PathBuf,
) -> Result<Packed, Fault> {
    if packing == Packing::None && form.is_none() {
        return Ok(Packed { file, length });
    }
    on_a_thread(move || {
        let (file, length) = match form {
            Some(form) => {
                let (file, length) = formed(&base_dir, (file, length), &form)?;
                (Arc::new(file), length)
            }
            None => (file, length),
        };
        if packing == Packing::None {
            return Ok(Packed { file, length });
        }
        let (mut rows, packed) = (Section { file, at: 0, length }, unnamed(&base_dir)?);
        match packing {
            Packing::None => {}
            Packing::Gzip => {
                // Without a time: it would make other bytes each time.
                let mut encoder = flate2::write::GzEncoder::new(&packed, flate2::Compression::default());
                io::copy(&mut rows, &mut encoder)?;
                encoder.finish()?;
            }
            Packing::Zstd => zstd::stream::copy_encode(&mut rows, &packed, ZSTD_LEVEL)?,
        }
        Ok(Packed {
            length: packed.metadata()?.len(),
            file: Arc::new(packed),
        })
    })
    .await
}

async fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, Fault> {
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.map_err(|error| Fault::retry(format!("making an object broke off: {error}")))?;
    done.map_err(|error| Fault::retry(format!("cannot make an object: {error}")))
}

/// A file's bytes from the beginning, up to a length.
struct Section {
    file: Arc<File>,
    at: u64,
    length: u64,
}

impl Read for Section {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let wanted = (self.length - self.at).min(bytes.len() as u64) as usize;
        let read = self.file.read_at(&mut bytes[..wanted], self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}
