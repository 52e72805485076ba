//! A file on its way as the records in it. Blocking; the formats are those of the source `file`.

use std::path::PathBuf;

use flow::{Fault, Position, SourceBatch};

use super::{chunk::Version, whole::Stamp};
use crate::file::{input::Input, reader::Got};

/// A file being read.
pub(super) struct Records {
    pub version: Version,
    path: PathBuf,
    stamp: Stamp,
    reader: Input,
    /// Read to see whether there is more.
    ahead: Option<SourceBatch>,
    /// After what was given away: the reader's own position.
    pub inner: Option<String>,
}

/// What [`Records::next`] gave.
pub(super) struct Next {
    pub batch: Option<SourceBatch>,
    /// Nothing comes after it.
    pub is_over: bool,
}

impl Records {
    /// After `inner`, or at the beginning.
    pub(super) fn open(
        version: Version,
        path: PathBuf,
        stamp: Stamp,
        mut reader: Input,
        inner: Option<String>,
    ) -> Result<Self, Fault> {
        let after = inner.clone().map(|inner| Position::new(inner.into_bytes()));
        reader.open(after.as_ref(), false)?;
        Ok(Self {
            version,
            path,
            stamp,
            reader,
            ahead: None,
            inner,
        })
    }

    /// The next records, and whether they are the last.
    pub(super) fn next(&mut self) -> Result<Next, Fault> {
        let batch = match self.ahead.take() {
            Some(batch) => Some(batch),
            None => self.more()?,
        };
        if let Some(batch) = &batch {
            self.inner = Some(String::from_utf8_lossy(batch.position.as_bytes()).into_owned());
            self.ahead = self.more()?;
        }
        let is_over = self.ahead.is_none();
        if is_over && !self.stamp.is_at(&self.path).unwrap_or(false) {
            tracing::warn!(
                name = self.version.name,
                "the file changed or vanished while it was read: what is there then is read as another file"
            );
        }
        Ok(Next { batch, is_over })
    }

    fn more(&mut self) -> Result<Option<SourceBatch>, Fault> {
        match self.reader.read()? {
            Got::Batch(batch) => Ok(Some(batch)),
            // It is read once; one that is waited for is not in its place any more.
            Got::End | Got::Wait => Ok(None),
        }
    }
}
