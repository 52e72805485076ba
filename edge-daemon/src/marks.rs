//! Checkpoints on disk: the watermarks of destinations that cannot keep them. A small file per lineage, replaced atomically.

use std::{fs, sync::Arc};

use async_trait::async_trait;
use bus_link::home::{Home, HomeError};
use bus_schema::id::StreamId;
use flow::{Checkpoints, Fault, Watermark};

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
        match self.home.load_or_set_aside(&mark_name(stream)) {
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
