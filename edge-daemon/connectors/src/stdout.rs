//! Destination `stdout`: records as JSON lines, CSV or a table on the standard output, for pipelines on one machine and for
//! looking. Nothing but data goes there.

use std::io::{self, Write};

use async_trait::async_trait;
use bus_schema::{
    data::{Batch, Cell},
    plan::{ComponentRole, Descriptor},
};
use flow::{Build, BuildContext, Component, ConfigError, Delivery, Fault, Rejected, Sink, describe, parse_config};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::file::encode::{CsvRows, JsonRows, op_name, push_csv_header};

/// Widest column of a table, in characters; longer values are cut for the eye.
const COLUMN_CHARS_MAX: usize = 48;

/// Writes records to the standard output of the daemon. At least once: after a crash those of the last commit (up to about
/// 16,000) may come again.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// How records are written.
    #[serde(default)]
    format: Format,
    /// Adds a column of this name that says what each record does. Without it, JSON lines and CSV refuse deletions.
    op_column: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Format {
    /// One JSON object per line, as the destination `file` writes them.
    #[default]
    JsonLines,
    /// CSV, as the destination `file` writes it; a new header whenever the columns change.
    Csv,
    /// Columns one under the other, long values cut: for people.
    Table,
}

/// The registry line.
pub(crate) const SINK: Component = Component {
    descriptor,
    build: Build::Sink(build),
};

const EXAMPLE: &str = r#"name = "look"

[sources.host]
type = "host_metrics"

[destinations.out]
type = "stdout"
from = "host"
format = "table"
"#;

fn descriptor() -> Descriptor {
    let summary = "Writes records to the standard output";
    describe::<Config>(ComponentRole::Destination, "stdout", summary, EXAMPLE)
}

fn build(config: &str, _: &BuildContext) -> Result<Box<dyn Sink>, ConfigError> {
    let Config { format, op_column } = parse_config(config)?;
    if op_column.as_deref() == Some("") {
        return Err(ConfigError::at("op_column", "the name is empty"));
    }
    Ok(Box::new(Printer {
        format,
        op_column,
        columns: Vec::new(),
        pending: Vec::new(),
        out: io::stdout,
    }))
}

struct Printer<W> {
    format: Format,
    op_column: Option<String>,
    /// The columns of the last header.
    columns: Vec<String>,
    /// Written and not committed.
    pending: Vec<u8>,
    out: fn() -> W,
}

#[async_trait]
impl<W: Write + 'static> Sink for Printer<W> {
    async fn open(&mut self) -> Result<(), Fault> {
        self.pending.clear();
        Ok(())
    }

    async fn write(&mut self, deliveries: &[Delivery]) -> Result<Vec<Rejected>, Fault> {
        let mut rejected = Vec::new();
        for (index, delivery) in deliveries.iter().enumerate() {
            let refused = self.add(&delivery.batch);
            rejected.extend(refused.into_iter().map(|(row, reason)| Rejected {
                delivery: index,
                row,
                reason,
            }));
        }
        Ok(rejected)
    }

    async fn commit(&mut self) -> Result<(), Fault> {
        let (text, out) = (std::mem::take(&mut self.pending), self.out);
        // Whoever reads the other end may be slow.
        let written = tokio::task::spawn_blocking(move || {
            let mut out = out();
            out.write_all(&text).and_then(|()| out.flush())
        });
        match written.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
                Err(Fault::stop("nobody reads the standard output any more"))
            }
            Ok(Err(error)) => Err(Fault::retry(format!("cannot write to the standard output: {error}"))),
            Err(error) => Err(Fault::retry(format!(
                "writing to the standard output broke off: {error}"
            ))),
        }
    }
}

impl<W> Printer<W> {
    fn add(&mut self, batch: &Batch) -> Vec<(usize, String)> {
        let op_column = self.op_column.as_deref();
        let mut rejected = Vec::new();
        if batch.rows() == 0 {
            return rejected;
        }
        let columns = CsvRows::header_of(batch, op_column);
        let is_new = columns != self.columns;
        match self.format {
            Format::JsonLines => {
                let rows = JsonRows::new(batch, op_column);
                for row in 0..batch.rows() {
                    match rows.row(row, &mut self.pending) {
                        Ok(()) => self.pending.push(b'\n'),
                        Err(reason) => rejected.push((row, reason)),
                    }
                }
            }
            Format::Csv => {
                if is_new {
                    push_csv_header(&mut self.pending, &columns, b',');
                }
                let rows = CsvRows::new(batch, &columns, b',', op_column);
                for row in 0..batch.rows() {
                    if let Err(reason) = rows.row(row, &mut self.pending) {
                        rejected.push((row, reason));
                    }
                }
            }
            Format::Table => push_table(&mut self.pending, batch, &columns, is_new, op_column),
        }
        self.columns = columns;
        rejected
    }
}

fn push_table(out: &mut Vec<u8>, batch: &Batch, columns: &[String], with_header: bool, op_column: Option<&str>) {
    let places: Vec<Option<usize>> = columns
        .iter()
        .map(|name| {
            (op_column != Some(name))
                .then(|| batch.schema().index_of(name))
                .flatten()
        })
        .collect();
    let cell = |row: usize, place: Option<usize>| match place {
        None => op_name(batch.op(row)).to_string(),
        Some(column) => match batch.cell(row, column) {
            Cell::Null => "null".to_string(),
            cell => for_the_eye(&cell.to_string()),
        },
    };
    let mut lines: Vec<Vec<String>> = Vec::with_capacity(batch.rows() + 1);
    lines.push(columns.iter().map(|name| for_the_eye(name)).collect());
    lines.extend((0..batch.rows()).map(|row| places.iter().map(|place| cell(row, *place)).collect()));
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    for line in lines.iter().skip(usize::from(!with_header)) {
        let padded = line
            .iter()
            .zip(&widths)
            .map(|(text, width)| format!("{text:<width$}"))
            .collect::<Vec<_>>();
        out.extend_from_slice(padded.join("  ").trim_end().as_bytes());
        out.push(b'\n');
    }
}

/// On one line, without control characters, not too long.
fn for_the_eye(text: &str) -> String {
    let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    if text.chars().count() <= COLUMN_CHARS_MAX {
        return clean.collect();
    }
    clean.take(COLUMN_CHARS_MAX - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use bus_schema::data::{BatchBuilder, Field, Op, Origin, Schema, Type, Value};

    use super::*;
    use crate::file::testing::{delivery, refused};

    static WRITTEN: Mutex<Vec<u8>> = Mutex::new(Vec::new());

    struct Captured;

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            WRITTEN.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn batch(columns: &[&str], rows: &[(Op, &[Value])]) -> Batch {
        let fields = columns.iter().map(|name| Field::new(*name, Type::Any)).collect();
        let mut builder = BatchBuilder::new(
            Schema {
                collection: "t".into(),
                fields,
            }
            .into(),
        );
        for (op, row) in rows {
            builder
                .push(*op, &row.iter().map(Value::as_cell).collect::<Vec<_>>())
                .unwrap();
        }
        builder.finish(Origin::default())
    }

    #[tokio::test]
    async fn formats() {
        let text = |text: &str| Value::Text(text.into());
        let long = text(&"x".repeat(60));
        let first = batch(
            &["a", "long name"],
            &[
                (Op::Insert, &[Value::I64(1), text("é\n")]),
                (Op::Delete, &[Value::Null, Value::Missing]),
            ],
        );
        let second = batch(&["b"], &[(Op::Insert, &[long])]);
        let cut = "x".repeat(47) + "…";
        for (format, op_column, wanted, wanted_rejected) in [
            (
                Format::JsonLines,
                None,
                format!("{{\"a\":1,\"long name\":\"é\\n\"}}\n{{\"b\":\"{}\"}}\n", "x".repeat(60)),
                1,
            ),
            (
                Format::Csv,
                Some("op"),
                format!(
                    "a,long name,op\n1,\"é\n\",insert\n,,delete\nb,op\n{},insert\n",
                    "x".repeat(60)
                ),
                0,
            ),
            (
                Format::Table,
                None,
                format!("a     long name\n1     é\nnull\nb\n{cut}\n"),
                0,
            ),
            (
                Format::Table,
                Some("op"),
                format!(
                    "a     long name  op\n1     é          insert\nnull             delete\nb{}  op\n{cut}  insert\n",
                    " ".repeat(47)
                ),
                0,
            ),
        ] {
            WRITTEN.lock().unwrap().clear();
            let op_column = op_column.map(str::to_string);
            let mut printer = Printer {
                format,
                op_column,
                columns: Vec::new(),
                pending: Vec::new(),
                out: || Captured,
            };
            printer.open().await.unwrap();
            let deliveries = [delivery("a", 1, first.clone()), delivery("a", 2, second.clone())];
            let rejected = printer.write(&deliveries).await.unwrap();
            assert!(WRITTEN.lock().unwrap().is_empty());
            printer.commit().await.unwrap();
            assert_eq!(String::from_utf8(WRITTEN.lock().unwrap().clone()).unwrap(), wanted);
            assert_eq!(rejected.len(), wanted_rejected);
        }
    }

    #[tokio::test]
    async fn mistakes_are_named() {
        refused(&SINK, r#"{"format": "xml"}"#, "format: unknown variant `xml`");
        refused(&SINK, r#"{"op_column": ""}"#, "op_column: the name is empty");
    }
}
