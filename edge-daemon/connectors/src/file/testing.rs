//! Sources and sinks run by hand, and batches as text, so that tests read as tables.

use bus_schema::{
    data::{Batch, BatchBuilder, Cell, Field, Op, Origin, Schema, Value},
    id::{StreamId, WorkflowId},
};
use flow::{Build, BuildContext, Component, Delivery, Position, Read, Sink, Source, Transform, Undecodable};

/// What a component of this config is built to. `path`s in it may be relative to `dir`.
pub(crate) fn source(component: &Component, config: &str, dir: &std::path::Path) -> Box<dyn Source> {
    let Build::Source(build) = component.build else {
        panic!("not a source")
    };
    build(config, &context(dir)).unwrap_or_else(|error| panic!("{config}: {error}"))
}

/// The sink of a config that must be right.
pub(crate) fn sink(component: &Component, config: &str, dir: &std::path::Path) -> Box<dyn Sink> {
    let Build::Sink(build) = component.build else {
        panic!("not a sink")
    };
    build(config, &context(dir)).unwrap_or_else(|error| panic!("{config}: {error}"))
}

/// The transform of a config that must be right.
pub(crate) fn transform(component: &Component, config: &str, dir: &std::path::Path) -> Box<dyn Transform> {
    let Build::Transform(build) = component.build else {
        panic!("not a transform")
    };
    build(config, &context(dir)).unwrap_or_else(|error| panic!("{config}: {error}"))
}

/// A batch of these columns and rows.
pub(crate) fn batch_of(fields: Vec<Field>, rows: &[(Op, &[Value])]) -> Batch {
    let schema = Schema {
        collection: "t".into(),
        fields,
    };
    let mut builder = BatchBuilder::new(schema.into());
    for (op, row) in rows {
        let cells: Vec<Cell<'_>> = row.iter().map(Value::as_cell).collect();
        builder.push(*op, &cells).unwrap();
    }
    builder.finish(Origin::default())
}

fn context(dir: &std::path::Path) -> BuildContext {
    BuildContext {
        workflow: "w".into(),
        node: "n".into(),
        daemon: "d".into(),
        base_dir: dir.to_path_buf(),
    }
}

/// Checks that a config is refused with a message that contains `wanted`.
pub(crate) fn refused(component: &Component, config: &str, wanted: &str) {
    let context = BuildContext::default();
    let error = match component.build {
        Build::Source(build) => build(config, &context).err(),
        Build::Sink(build) => build(config, &context).err(),
        Build::Transform(build) => build(config, &context).err(),
        Build::Junction(build) => build(config, &context).err(),
    };
    let error = error.unwrap_or_else(|| panic!("{config} was taken"));
    assert!(error.to_string().contains(wanted), "{config}: {error}");
}

/// Everything a source gave until it had nothing more.
#[derive(Debug, Default)]
pub(crate) struct Harvest {
    pub batches: Vec<Batch>,
    pub undecodable: Vec<Undecodable>,
    pub position: Option<Position>,
    pub ended: bool,
}

impl Harvest {
    /// Reads until the source is idle or at its end.
    pub(crate) async fn of(source: &mut dyn Source) -> Self {
        let mut harvest = Self::default();
        loop {
            match source.read().await.unwrap() {
                Read::Batch(read) => {
                    harvest.batches.push(read.batch);
                    harvest.undecodable.extend(read.undecodable);
                    harvest.position = Some(read.position);
                }
                Read::Idle => return harvest,
                Read::End => {
                    harvest.ended = true;
                    return harvest;
                }
            }
        }
    }

    /// All rows, a line each.
    pub(crate) fn rows(&self) -> String {
        let batches = self.batches.iter().filter(|batch| batch.rows() > 0);
        batches.map(shown).collect::<Vec<_>>().join("\n")
    }

    /// `name:type` of the last batch that has columns.
    pub(crate) fn schema(&self) -> String {
        let batch = self
            .batches
            .iter()
            .rev()
            .find(|batch| !batch.schema().fields.is_empty());
        let fields = batch.map(|batch| batch.schema().fields.iter()).into_iter().flatten();
        fields
            .map(|field| format!("{}:{}", field.name, field.ty))
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// The reasons, a line each.
    pub(crate) fn reasons(&self) -> String {
        self.undecodable
            .iter()
            .map(|input| input.reason.as_str())
            .collect::<Vec<_>>()
            .join("\n")
    }
}

/// The rows of a batch: values separated by `|`, `~` for null, `?` for missing, `=` for unchanged.
pub(crate) fn shown(batch: &Batch) -> String {
    let cell = |row, column| match batch.cell(row, column) {
        Cell::Null => "~".to_string(),
        Cell::Missing => "?".to_string(),
        Cell::Unchanged => "=".to_string(),
        cell => cell.to_string(),
    };
    let row = |row| {
        (0..batch.columns().len())
            .map(|column| cell(row, column))
            .collect::<Vec<_>>()
            .join("|")
    };
    (0..batch.rows()).map(row).collect::<Vec<_>>().join("\n")
}

/// The lineage called `name`.
pub(crate) fn stream(name: &str) -> StreamId {
    let node = bus_schema::id::NodeId::of_key(&[7; 32]);
    StreamId::of_edge(&WorkflowId::of_name("w"), name, &node, &node)
}

/// A delivery of a lineage whose position is its number.
pub(crate) fn delivery(lineage: &str, seq: u64, batch: Batch) -> Delivery {
    Delivery {
        stream: stream(lineage),
        seq,
        position: Position::new(seq.to_be_bytes()),
        batch,
        tally: flow::Tally::default(),
        bytes: 0,
    }
}
