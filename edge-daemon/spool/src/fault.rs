//! Tells a failing disk from damaged data, and keeps sled's panics inside.
//! Decides nothing about what to do next.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Linux error number of an unreadable block: the disk is there, this piece of it is not.
const EIO: i32 = 5;

/// Why an operation on a segment failed.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The disk refuses (full, read-only, no file handles…): the data is not to blame.
    Io(io::Error),
    /// What is on the disk makes no sense.
    Damaged(String),
}

impl Fault {
    /// True if more room on the disk would have helped.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Io(error) if is_disk_full(error))
    }
}

/// True for the error kinds of a disk, quota or file size limit that is used up.
pub(crate) fn is_disk_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind as Kind;
        let damaged = matches!(
            error.kind(),
            Kind::UnexpectedEof
                | Kind::NotFound
                | Kind::InvalidData
                | Kind::IsADirectory
                | Kind::NotADirectory
                | Kind::AlreadyExists
        ) || error.raw_os_error() == Some(EIO);
        if damaged {
            Self::Damaged(error.to_string())
        } else {
            Self::Io(error)
        }
    }
}

impl From<sled::Error> for Fault {
    fn from(error: sled::Error) -> Self {
        match error {
            sled::Error::Io(error) => error.into(),
            other => Self::Damaged(other.to_string()),
        }
    }
}

/// Runs a call into sled; a panic in it becomes [`Fault::Damaged`].
pub(crate) fn guarded<T>(call: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    // Unwind safety: after a panic the sled handle is only ever dropped, never used again.
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("unknown cause");
        Err(Fault::Damaged(format!("sled panicked: {text}")))
    })
}
