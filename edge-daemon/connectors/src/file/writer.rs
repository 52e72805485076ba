//! A destination's files from a task that must not block: each step runs on a thread of its own. Knows no format.

use bus_schema::id::StreamId;
use flow::{Fault, Trouble, Watermark};

use super::{
    output::{Output, Target},
    part::Limits,
    siblings::parent,
};
use crate::reach;

/// The files, away while a thread works with them.
pub(crate) struct Writer {
    target: Target,
    limits: Limits,
    output: Option<Output>,
}

impl Writer {
    /// Opens nothing yet.
    pub(crate) fn new(target: Target, limits: Limits) -> Self {
        Self {
            target,
            limits,
            output: None,
        }
    }

    /// Opens them, and undoes what was not committed.
    pub(crate) async fn open(&mut self) -> Result<(), Fault> {
        // Lets go of the lock first, should it still be held.
        self.output = None;
        let (target, limits) = (self.target.clone(), self.limits);
        let opened = tokio::task::spawn_blocking(move || Output::open(&target, limits)).await;
        let opened = opened.map_err(|error| Fault::retry(format!("opening the file broke off: {error}")))?;
        self.output = Some(opened.map_err(|error| match error.kind() {
            std::io::ErrorKind::InvalidData => Fault::stop(error.to_string()),
            _ => self.failed(&error),
        })?);
        Ok(())
    }

    /// Whether files could be written there. Makes none.
    pub(crate) fn check(&self) -> Result<String, Trouble> {
        let path = self.target.path();
        match &self.target {
            Target::File(path) => {
                reach::writable_file(path)?;
                // The ledger and new files stand beside it.
                reach::writable_directory(parent(path))?;
            }
            Target::Directory(path) | Target::Whole { directory: path, .. } => {
                reach::readable_directory(path)?;
                reach::writable_directory(path)?;
            }
        }
        Ok(format!("{} can be written", path.display()))
    }

    /// The committed watermark of a lineage.
    pub(crate) fn mark(&self, stream: &StreamId) -> Option<Watermark> {
        self.output.as_ref().and_then(|output| output.mark(stream))
    }

    /// Whether one of them is complete by its age.
    pub(crate) fn is_due(&self) -> bool {
        self.output.as_ref().is_some_and(Output::is_due)
    }

    /// Does something with them.
    pub(crate) async fn with<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Output) -> std::io::Result<T> + Send + 'static,
    ) -> Result<T, Fault> {
        let Some(mut output) = self.output.take() else {
            return Err(Fault::retry("the file is not open"));
        };
        let done = tokio::task::spawn_blocking(move || {
            let result = work(&mut output);
            (output, result)
        });
        let (output, result) = done
            .await
            .map_err(|error| Fault::retry(format!("writing the file broke off: {error}")))?;
        self.output = Some(output);
        result.map_err(|error| self.failed(&error))
    }

    /// Lets go of them.
    pub(crate) fn close(&mut self) {
        self.output = None;
    }

    fn failed(&self, error: &std::io::Error) -> Fault {
        Fault::retry(format!("cannot write {}: {error}", self.target.path().display()))
    }
}
