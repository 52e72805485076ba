//! The destination `file` with `format = "parquet"`: records are gathered until they become a file, which is there whole or
//! not at all. What is gathered is in `heap`, how it is written in `write`, files and commits are in `output`.
//!
//! A file is written, sealed and recorded with the watermark in one commit of the ledger. Until then the records are with the
//! source or in the buffer of the stream, as with an object store.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bus_schema::{
    data::{Batch, Cell, Column, Type, Zone},
    id::StreamId,
};
use flow::{Delivery, Fault, Gathered, Rejected, Sink, Watermark};

use super::{
    heap::Heap,
    kind::Kind,
    write::{Packing, write},
};
use crate::file::{encode::refuse_delete, output::Output, sink::Names, writer::Writer};

/// Files after which what is gathered becomes files, whatever its size.
const HEAPS_MAX: usize = 64;
/// Files that one commit may begin: each has one open.
const COMMIT_HEAPS_MAX: usize = 256;

/// When what is gathered becomes files.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub bytes: u64,
    pub age: Duration,
}

/// What is gathered of one lineage.
#[derive(Default)]
struct Lineage {
    /// Of what is committed.
    mark: Watermark,
    /// Of what is written.
    written: Watermark,
    heaps: Vec<Heap>,
    /// How many of them are committed.
    committed: usize,
    /// When the first of it was committed.
    since: Option<Instant>,
}

impl Lineage {
    fn is_due(&self, limits: &Limits) -> bool {
        let bytes: u64 = self.heaps.iter().map(Heap::length).sum();
        let is_old = self.since.is_some_and(|since| since.elapsed() >= limits.age);
        !self.heaps.is_empty() && (bytes >= limits.bytes || is_old || self.heaps.len() > HEAPS_MAX)
    }

    /// The heap that takes records like these, which is begun if there is none.
    fn heap(&mut self, name: &str, batch: &Batch) -> Result<&mut Heap, String> {
        let found = self.heaps.iter().rposition(|heap| heap.name == name);
        let found = found.filter(|at| self.heaps[*at].takes(batch.schema()));
        if found.is_none() {
            if self.heaps.len() - self.committed >= COMMIT_HEAPS_MAX {
                return Err(format!(
                    "more than {COMMIT_HEAPS_MAX} files at once: its name changes too often"
                ));
            }
            self.heaps.push(Heap::new(name.to_string()));
        }
        let at = found.unwrap_or(self.heaps.len() - 1);
        Ok(&mut self.heaps[at])
    }
}

/// The sink.
pub(crate) struct ParquetSink {
    names: Names,
    op_column: Option<String>,
    packing: Packing,
    limits: Limits,
    base_dir: PathBuf,
    writer: Writer,
    lineages: BTreeMap<StreamId, Lineage>,
    /// What was gathered is gone, of lineages that are not there: they have to come again from their watermarks.
    has_lost: bool,
    /// It has been logged that fields without a value look like null, and that offsets are not kept.
    blurred: Arc<AtomicBool>,
    shifted: Arc<AtomicBool>,
}

impl ParquetSink {
    pub(crate) fn new(
        names: Names,
        op_column: Option<String>,
        packing: Packing,
        limits: Limits,
        (base_dir, writer): (PathBuf, Writer),
    ) -> Self {
        Self {
            names,
            op_column,
            packing,
            limits,
            base_dir,
            writer,
            lineages: BTreeMap::new(),
            has_lost: false,
            blurred: Arc::default(),
            shifted: Arc::default(),
        }
    }

    /// Takes a delivery's rows, and returns those that cannot be written.
    async fn take(&mut self, delivery: &Delivery) -> Result<Vec<(usize, String)>, Fault> {
        if self.has_lost && !self.lineages.contains_key(&delivery.stream) {
            return Err(Fault::Moved {
                cause: "records that were gathered for a Parquet file are lost: they are read again".to_string(),
            });
        }
        let batch = &delivery.batch;
        let mut rejected = Vec::new();
        let refused: Vec<usize> = (0..batch.rows())
            .filter(|row| match self.writable(batch, *row) {
                Ok(()) => false,
                Err(cause) => {
                    rejected.push((*row, cause));
                    true
                }
            })
            .collect();
        let mut groups = self.names.groups(batch, &mut rejected);
        for (_, rows) in &mut groups {
            rows.retain(|row| !refused.contains(row));
        }
        groups.retain(|(_, rows)| !rows.is_empty());
        rejected.sort_by_key(|(row, _)| *row);
        rejected.dedup_by_key(|(row, _)| *row);
        let wanted: Vec<String> = groups.iter().map(|(name, _)| name.clone()).collect();
        let admit = move |output: &mut Output| {
            wanted
                .iter()
                .map(|name| output.admit(name))
                .collect::<io::Result<Vec<_>>>()
        };
        let admitted = self.writer.with(admit).await?;
        let known = self.writer.mark(&delivery.stream);
        let lineage = self.lineages.entry(delivery.stream).or_insert_with(|| {
            let mark = known.unwrap_or_default();
            Lineage {
                written: mark.clone(),
                mark,
                ..Lineage::default()
            }
        });
        for ((name, rows), admitted) in groups.into_iter().zip(admitted) {
            let taken = admitted.and_then(|()| {
                let part = batch.take(&rows);
                lineage.heap(&name, &part).map(|heap| heap.add(&part))
            });
            if let Err(cause) = taken {
                rejected.extend(rows.into_iter().map(|row| (row, cause.clone())));
            }
        }
        rejected.sort_by_key(|(row, _)| *row);
        lineage.written = lineage.written.after(delivery, rejected.len() as u64);
        self.tell(batch);
        Ok(rejected)
    }

    /// Whether a row can be written exactly.
    fn writable(&self, batch: &Batch, row: usize) -> Result<(), String> {
        refuse_delete(batch, row, self.op_column.as_deref())?;
        for (column, field) in batch.schema().fields.iter().enumerate() {
            if field.name.is_empty() {
                return Err("a column without a name has no place in Parquet".to_string());
            }
            let checked = Kind::of(&field.ty).check(batch.cell(row, column));
            checked.map_err(|cause| format!("column '{}' {cause}", field.name))?;
        }
        Ok(())
    }

    /// Says once what looks like something else in the file.
    fn tell(&self, batch: &Batch) {
        let any = |may_have: fn(&Column, &Type) -> bool, is_such: fn(Cell<'_>) -> bool| {
            let columns = batch.schema().fields.iter().enumerate();
            columns
                .filter(|(column, field)| may_have(&batch.columns()[*column], &field.ty))
                .find(|(column, _)| (0..batch.rows()).any(|row| is_such(batch.cell(row, *column))))
                .map(|(_, field)| field.name.clone())
        };
        if !self.blurred.load(Ordering::Relaxed)
            && let Some(column) = any(
                |column, _| !column.is_told(),
                |cell| matches!(cell, Cell::Missing | Cell::Unchanged),
            )
            && !self.blurred.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                column,
                "a missing or unchanged field is null in Parquet, which has no other"
            );
        }
        if !self.shifted.load(Ordering::Relaxed)
            && let Some(column) = any(
                |_, ty| matches!(ty, Type::Timestamp(Zone::Offset) | Type::Any),
                |cell| matches!(cell, Cell::TimestampOffset(_, offset) if offset != 0),
            )
            && !self.shifted.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(column, "the offset of a timestamp is not kept: Parquet has UTC");
        }
    }

    /// Keeps what is written.
    async fn keep(&mut self) -> Result<(), Fault> {
        let mut lineages = std::mem::take(&mut self.lineages);
        let base_dir = self.base_dir.clone();
        let kept = tokio::task::spawn_blocking(move || {
            let mut heaps = lineages.values_mut().flat_map(|lineage| &mut lineage.heaps);
            let done = heaps.try_for_each(|heap| heap.save(&base_dir));
            (lineages, done)
        });
        let (lineages, done) = kept.await.map_err(|error| {
            self.has_lost = true;
            Fault::retry(format!("gathering broke off: {error}"))
        })?;
        self.lineages = lineages;
        done.map_err(|error| Fault::retry(format!("cannot gather in {}: {error}", self.base_dir.display())))?;
        for lineage in self.lineages.values_mut() {
            lineage.heaps.iter_mut().for_each(Heap::settle);
            lineage.committed = lineage.heaps.len();
            lineage.mark.clone_from(&lineage.written);
            if lineage.committed > 0 {
                lineage.since.get_or_insert_with(Instant::now);
            }
        }
        Ok(())
    }

    /// Makes files of what is gathered of a lineage: all of them and the watermark in one commit.
    async fn store(&mut self, stream: StreamId) -> Result<(), Fault> {
        let Some(lineage) = self.lineages.get_mut(&stream) else {
            return Ok(());
        };
        let (heaps, mark) = (std::mem::take(&mut lineage.heaps), lineage.mark.clone());
        let (packing, op_column) = (self.packing, self.op_column.clone());
        let work = move |output: &mut Output| {
            let written = write_all(output, &heaps, packing, op_column.as_deref()).and_then(|()| {
                output.set_mark(stream, &mark);
                output.commit()
            });
            Ok((heaps, written))
        };
        let done = self.writer.with(work).await;
        let Some(lineage) = self.lineages.get_mut(&stream) else {
            return Ok(());
        };
        match done {
            Ok((_, Ok(()))) => {
                (lineage.committed, lineage.since) = (0, None);
                Ok(())
            }
            Ok((heaps, Err(error))) => {
                // Tried again, unless it turns out that the commit was made: see `open`.
                lineage.heaps = heaps;
                Err(Fault::retry(format!("cannot write Parquet: {error}")))
            }
            Err(fault) => {
                // What was gathered is gone with the thread.
                self.lineages.remove(&stream);
                self.has_lost = true;
                Err(fault)
            }
        }
    }
}

fn write_all(output: &mut Output, heaps: &[Heap], packing: Packing, op_column: Option<&str>) -> io::Result<()> {
    for heap in heaps {
        write(heap, output.begin(&heap.name)?, packing, op_column)?;
        output.seal(&heap.name)?;
    }
    Ok(())
}

#[async_trait]
impl Sink for ParquetSink {
    async fn open(&mut self) -> Result<(), Fault> {
        self.writer.open().await?;
        for (stream, lineage) in &mut self.lineages {
            let durable = self.writer.mark(stream).map_or(0, |mark| mark.seq);
            if !lineage.heaps.is_empty() && durable >= lineage.mark.seq {
                lineage.heaps.clear();
                (lineage.committed, lineage.since) = (0, None);
            }
        }
        Ok(())
    }

    async fn watermark(&mut self, stream: &StreamId) -> Result<Option<Watermark>, Fault> {
        Ok(self.writer.mark(stream))
    }

    fn keeps_watermark(&self) -> bool {
        true
    }

    fn begin(&mut self, stream: &StreamId, mark: &Watermark) {
        let lineage = Lineage {
            mark: mark.clone(),
            written: mark.clone(),
            ..Lineage::default()
        };
        self.lineages.insert(*stream, lineage);
    }

    fn gathered(&self, stream: &StreamId) -> Option<Gathered> {
        self.lineages.get(stream).map(|lineage| Gathered {
            mark: lineage.mark.clone(),
            is_durable: lineage.heaps.is_empty(),
        })
    }

    async fn write(&mut self, deliveries: &[Delivery]) -> Result<Vec<Rejected>, Fault> {
        let mut rejected = Vec::new();
        for (index, delivery) in deliveries.iter().enumerate() {
            let refused = self.take(delivery).await?;
            rejected.extend(refused.into_iter().map(|(row, reason)| Rejected {
                delivery: index,
                row,
                reason,
            }));
        }
        Ok(rejected)
    }

    async fn commit(&mut self) -> Result<(), Fault> {
        self.keep().await?;
        // Rows may all have been refused: then the watermark alone goes on.
        let idle: Vec<(StreamId, Watermark)> = self
            .lineages
            .iter()
            .filter(|(_, lineage)| lineage.heaps.is_empty())
            .map(|(stream, lineage)| (*stream, lineage.mark.clone()))
            .collect();
        let changed = move |output: &mut Output| {
            let is_behind =
                |(stream, mark): &&(StreamId, Watermark)| output.mark(stream).is_none_or(|known| known.seq < mark.seq);
            let behind: Vec<_> = idle.iter().filter(is_behind).cloned().collect();
            if behind.is_empty() {
                return Ok(());
            }
            for (stream, mark) in &behind {
                output.set_mark(*stream, mark);
            }
            output.commit()
        };
        self.writer.with(changed).await?;
        let due = |(stream, lineage): (&StreamId, &Lineage)| lineage.is_due(&self.limits).then_some(*stream);
        let due: Vec<StreamId> = self.lineages.iter().filter_map(due).collect();
        for stream in due {
            self.store(stream).await?;
        }
        Ok(())
    }

    async fn complete(&mut self, stream: &StreamId) -> Result<(), Fault> {
        self.keep().await?;
        self.store(*stream).await
    }

    async fn close(&mut self) {
        for lineage in self.lineages.values_mut() {
            lineage.heaps.truncate(lineage.committed);
            lineage.heaps.iter_mut().for_each(Heap::undo);
            lineage.written.clone_from(&lineage.mark);
        }
        self.writer.close();
    }
}
