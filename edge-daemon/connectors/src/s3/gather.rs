//! What a destination has gathered of each lineage until it becomes objects: rows as text in unnamed files on disk, which a
//! crash removes. Names the objects. Sends nothing.

use std::{
    collections::BTreeMap,
    fs::File,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use bus_schema::{data::Batch, id::StreamId, limits::COLUMNS_MAX};
use flow::{Delivery, Fault, Gathered, Watermark};

use super::{
    Prefix,
    pack::{self, Form, Raw, Wider},
};
use crate::file::{
    encode::{CsvRows, JsonRows, push_csv_header},
    place,
    sink::Csv,
};

/// Objects after which what is gathered becomes objects, whatever its size.
const OBJECTS_MAX: usize = 64;
/// Objects that one commit may begin: each has a file open.
const COMMIT_OBJECTS_MAX: usize = 256;
/// Longest name of an object, in bytes.
const NAME_BYTES_MAX: usize = 1024;
/// Digits of a number in a name, so that names sort as numbers do.
const NUMBER_DIGITS: usize = 12;

/// How rows are written.
pub(super) enum Encoding {
    JsonLines,
    Csv(Csv),
}

/// When what is gathered becomes objects.
pub(super) struct Limits {
    pub bytes: u64,
    pub age: Duration,
}

/// How objects are called.
pub(super) struct Place {
    pub prefix: Option<Prefix>,
    /// Workflow and node, each with a dot behind it.
    pub owner: String,
    /// Without a dot before it.
    pub ending: String,
}

/// Whether an object of this name was made by the owner, whichever of its lineages it is.
pub(super) fn is_of(name: &str, owner: &str) -> bool {
    let file = name.rsplit('/').next().unwrap_or_default();
    // A prefix may end without a slash.
    let Some(at) = file.find(owner) else { return false };
    let mut rest = file[at + owner.len()..].split('.').skip(1);
    rest.next()
        .is_some_and(|number| number.len() >= NUMBER_DIGITS && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// What becomes one object.
struct Object {
    /// What its rows have for a prefix.
    prefix: String,
    name: String,
    file: Option<Arc<File>>,
    /// Bytes in the file: they are committed.
    length: u64,
    /// Rows that are not committed, behind the header of a new object.
    pending: Vec<u8>,
    /// Bytes of the header that it begins with.
    header: usize,
    /// The columns of CSV, and how many rows there are.
    columns: Vec<String>,
    rows: u64,
    /// Those that are committed.
    kept_columns: Vec<String>,
    kept_rows: u64,
    /// Rows that were written before there were so many columns, in order. They get the others when the object is made.
    narrow: Vec<Narrow>,
    is_stored: bool,
}

/// Rows of CSV with fewer columns than the object has now.
#[derive(Debug, Clone, Copy)]
struct Narrow {
    /// Bytes of the object up to the end of them.
    until: u64,
    rows: u64,
    columns: usize,
}

impl Object {
    fn is_empty(&self) -> bool {
        self.length == 0 && self.pending.len() <= self.header
    }

    /// Takes more columns from the next row on.
    fn grow(&mut self, added: Vec<String>) -> Result<(), String> {
        let count = self.columns.len() + added.len();
        if count > COLUMNS_MAX {
            return Err(format!(
                "its object would have {count} columns, and has {COLUMNS_MAX} at most: are names of columns data here?"
            ));
        }
        let before: u64 = self.narrow.iter().map(|narrow| narrow.rows).sum();
        self.narrow.push(Narrow {
            until: self.length + self.pending.len() as u64,
            rows: self.rows - before,
            columns: self.columns.len(),
        });
        self.columns.extend(added);
        Ok(())
    }

    /// How large it becomes, but for the names of columns that came later.
    fn bytes(&self) -> u64 {
        let missing = |narrow: &Narrow| narrow.rows * (self.columns.len() - narrow.columns) as u64;
        self.length + self.narrow.iter().map(missing).sum::<u64>()
    }

    /// How it is made of what is in the file; as it is, unless it got columns later.
    fn form(&self, encoding: &Encoding) -> Option<Form> {
        let Encoding::Csv(csv) = encoding else { return None };
        let wider = |narrow: &Narrow| Wider {
            until: narrow.until,
            more: empty_fields(csv, narrow.columns, self.columns.len() - narrow.columns),
        };
        (!self.narrow.is_empty()).then(|| Form {
            skip: self.header as u64,
            header: (self.header > 0).then(|| header_of(csv, &self.columns)),
            wider: self.narrow.iter().map(wider).collect(),
        })
    }

    /// What is to be done to commit it.
    fn work(&mut self) -> Work {
        Work {
            file: self.file.clone(),
            length: self.length,
            rows: std::mem::take(&mut self.pending),
        }
    }

    /// Forgets what is not committed.
    fn undo(&mut self) {
        self.pending.clear();
        self.columns.clone_from(&self.kept_columns);
        self.rows = self.kept_rows;
        // Where it grew, all rows before are committed; those of a longer one are not.
        self.narrow
            .retain(|narrow| narrow.until <= self.length && narrow.columns < self.columns.len());
    }
}

/// The line of column names.
fn header_of(csv: &Csv, columns: &[String]) -> Vec<u8> {
    let mut header = Vec::new();
    push_csv_header(&mut header, columns, csv.delimiter);
    header
}

/// What stands behind a row of so many fields when it gets more of them.
fn empty_fields(csv: &Csv, before: usize, added: usize) -> Vec<u8> {
    // The first field has no delimiter before it.
    vec![csv.delimiter; (before + added).saturating_sub(before.max(1))]
}

/// What one object gets with a commit.
struct Work {
    file: Option<Arc<File>>,
    length: u64,
    rows: Vec<u8>,
}

impl Work {
    /// Blocking. Until it is done the file has what it had.
    fn run(self, base_dir: &Path) -> std::io::Result<(Arc<File>, u64)> {
        let file = match self.file {
            Some(file) => file,
            None => Arc::new(pack::unnamed(base_dir)?),
        };
        file.write_all_at(&self.rows, self.length)?;
        Ok((file, self.length + self.rows.len() as u64))
    }
}

/// What is gathered of one lineage.
#[derive(Default)]
struct Gathering {
    /// Of what is committed.
    mark: Watermark,
    /// Of what is written.
    written: Watermark,
    objects: Vec<Object>,
    /// How many of them are committed.
    committed: usize,
    /// When the first of it was committed.
    since: Option<Instant>,
}

impl Gathering {
    /// The object that takes rows with this prefix.
    fn find(&self, prefix: &str) -> Option<usize> {
        let takes = |object: &Object| object.prefix == prefix && !object.is_stored;
        self.objects.iter().rposition(takes)
    }

    /// Begins another one.
    fn begin(&mut self, prefix: &str, name: String) -> Result<usize, String> {
        if self.objects.len() - self.committed >= COMMIT_OBJECTS_MAX {
            return Err(format!(
                "more than {COMMIT_OBJECTS_MAX} objects at once: its name changes too often"
            ));
        }
        self.objects.push(Object {
            prefix: prefix.to_string(),
            name,
            file: None,
            length: 0,
            pending: Vec::new(),
            header: 0,
            columns: Vec::new(),
            rows: 0,
            kept_columns: Vec::new(),
            kept_rows: 0,
            narrow: Vec::new(),
            is_stored: false,
        });
        Ok(self.objects.len() - 1)
    }

    fn is_due(&self, limits: &Limits) -> bool {
        let bytes: u64 = self.objects.iter().map(Object::bytes).sum();
        let is_old = self.since.is_some_and(|since| since.elapsed() >= limits.age);
        // One that is stored already: it was interrupted.
        let is_begun = self.objects.iter().any(|object| object.is_stored);
        bytes >= limits.bytes || is_old || is_begun || self.objects.len() > OBJECTS_MAX
    }
}

/// All lineages of a destination.
pub(super) struct Gatherings {
    encoding: Encoding,
    op_column: Option<String>,
    place: Place,
    limits: Limits,
    base_dir: PathBuf,
    lineages: BTreeMap<StreamId, Gathering>,
    /// It has been logged that fields without a value look like null.
    blurred: bool,
}

impl Gatherings {
    pub(super) fn new(
        encoding: Encoding,
        op_column: Option<String>,
        place: Place,
        limits: Limits,
        base_dir: PathBuf,
    ) -> Self {
        Self {
            encoding,
            op_column,
            place,
            limits,
            base_dir,
            lineages: BTreeMap::new(),
            blurred: false,
        }
    }

    /// How objects are called.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// A lineage goes on from this mark: what was gathered of it comes again.
    pub(super) fn begin(&mut self, stream: StreamId, mark: Watermark) {
        let gathering = Gathering {
            written: mark.clone(),
            mark,
            ..Gathering::default()
        };
        self.lineages.insert(stream, gathering);
    }

    /// Where a lineage stands.
    pub(super) fn gathered(&self, stream: &StreamId) -> Option<Gathered> {
        self.lineages.get(stream).map(|lineage| Gathered {
            mark: lineage.mark.clone(),
            is_durable: lineage.objects.is_empty(),
        })
    }

    /// Takes a delivery's rows, and returns those that cannot be written.
    pub(super) fn take(&mut self, delivery: &Delivery) -> Vec<(usize, String)> {
        let lineage = self.lineages.entry(delivery.stream).or_default();
        let (place, stream) = (&self.place, &delivery.stream);
        let mut rows = Rows {
            batch: &delivery.batch,
            op_column: self.op_column.as_deref(),
            encoding: &self.encoding,
            json: JsonRows::new(&delivery.batch, self.op_column.as_deref()),
            csv: BTreeMap::new(),
            blurs: None,
        };
        let (mut rejected, mut taken) = (Vec::new(), 0);
        for row in 0..delivery.batch.rows() {
            // The number a record has in its lineage, however that is cut into batches.
            let number = lineage.written.delivered + taken + 1;
            let prefix = place.prefix(&delivery.batch, row);
            let written = prefix.and_then(|prefix| {
                let name = place.name(&prefix, stream, number)?;
                rows.write(lineage, row, &prefix, name)
            });
            match written {
                Ok(()) => taken += 1,
                Err(reason) => rejected.push((row, reason)),
            }
        }
        if let Some(column) = rows.blurs.filter(|_| !self.blurred) {
            self.blurred = true;
            tracing::warn!(
                column,
                "a missing or unchanged field is an empty one, as null is: CSV has no other"
            );
        }
        // All of its rows were refused.
        lineage.objects.retain(|object| !object.is_empty());
        lineage.written = lineage.written.after(delivery, rejected.len() as u64);
        rejected
    }

    /// Keeps what is written.
    pub(super) async fn commit(&mut self) -> Result<(), Fault> {
        let objects = self.lineages.values_mut().flat_map(|lineage| &mut lineage.objects);
        let mut touched: Vec<&mut Object> = objects.filter(|object| !object.pending.is_empty()).collect();
        let works: Vec<Work> = touched.iter_mut().map(|object| object.work()).collect();
        let base_dir = self.base_dir.clone();
        let kept = tokio::task::spawn_blocking(move || {
            let kept = works.into_iter().map(|work| work.run(&base_dir));
            kept.collect::<std::io::Result<Vec<_>>>()
        });
        let kept = kept
            .await
            .map_err(|error| Fault::retry(format!("gathering broke off: {error}")))?;
        let failed = |error| Fault::retry(format!("cannot gather in {}: {error}", self.base_dir.display()));
        for (object, (file, length)) in touched.into_iter().zip(kept.map_err(failed)?) {
            (object.file, object.length, object.kept_rows) = (Some(file), length, object.rows);
            object.kept_columns.clone_from(&object.columns);
        }
        for lineage in self.lineages.values_mut() {
            lineage.committed = lineage.objects.len();
            lineage.mark.clone_from(&lineage.written);
            if lineage.committed > 0 {
                lineage.since.get_or_insert_with(Instant::now);
            }
        }
        Ok(())
    }

    /// Forgets what is written and not committed.
    pub(super) fn undo(&mut self) {
        for lineage in self.lineages.values_mut() {
            lineage.objects.truncate(lineage.committed);
            lineage.objects.iter_mut().for_each(Object::undo);
            lineage.written.clone_from(&lineage.mark);
        }
    }

    /// A lineage of which objects shall be made now.
    pub(super) fn due(&self) -> Option<StreamId> {
        let is_due = |lineage: &Gathering| !lineage.objects.is_empty() && lineage.is_due(&self.limits);
        let mut due = self.lineages.iter().filter(|(_, lineage)| is_due(lineage));
        due.next().map(|(stream, _)| *stream)
    }

    /// What becomes the next object of a lineage: its name, and what is gathered.
    pub(super) fn next(&self, stream: &StreamId) -> Option<(String, Raw)> {
        let lineage = self.lineages.get(stream)?;
        let object = lineage.objects.iter().find(|object| !object.is_stored)?;
        let raw = Raw {
            file: object.file.clone()?,
            length: object.length,
            form: object.form(&self.encoding),
        };
        Some((object.name.clone(), raw))
    }

    /// The object that was the next one is stored. Once all are, nothing is gathered any more.
    pub(super) fn stored(&mut self, stream: &StreamId) {
        let Some(lineage) = self.lineages.get_mut(stream) else {
            return;
        };
        if let Some(object) = lineage.objects.iter_mut().find(|object| !object.is_stored) {
            object.is_stored = true;
        }
        if lineage.objects.iter().all(|object| object.is_stored) {
            lineage.objects.clear();
            (lineage.committed, lineage.since) = (0, None);
        }
    }
}

impl Place {
    /// What all names begin with, whatever the record.
    pub(super) fn fixed_prefix(&self) -> &str {
        match &self.prefix {
            Some(Prefix::Fixed(text)) => text,
            Some(Prefix::Filled(template, _)) => template.fixed_start(),
            None => "",
        }
    }

    fn prefix(&self, batch: &Batch, row: usize) -> Result<String, String> {
        match &self.prefix {
            None => Ok(String::new()),
            Some(Prefix::Fixed(text)) => Ok(text.clone()),
            Some(Prefix::Filled(template, has_slash)) => {
                let name = template.fill(batch, row)?;
                place::check(&name)?;
                Ok(if *has_slash { format!("{name}/") } else { name })
            }
        }
    }

    fn name(&self, prefix: &str, stream: &StreamId, number: u64) -> Result<String, String> {
        let Self { owner, ending, .. } = self;
        let name = format!("{prefix}{owner}{stream}.{number:0NUMBER_DIGITS$}.{ending}");
        if name.len() > NAME_BYTES_MAX {
            return Err(format!("the object's name would be longer than {NAME_BYTES_MAX} bytes"));
        }
        Ok(name)
    }
}

/// The rows of one batch on their way into objects.
struct Rows<'a> {
    batch: &'a Batch,
    op_column: Option<&'a str>,
    encoding: &'a Encoding,
    json: JsonRows<'a>,
    /// For each object.
    csv: BTreeMap<usize, CsvRows<'a>>,
    /// A column in which something looks like null that is not.
    blurs: Option<String>,
}

impl Rows<'_> {
    /// Writes a row to the object of its prefix, or to a new one, which gets the name.
    fn write(&mut self, lineage: &mut Gathering, row: usize, prefix: &str, name: String) -> Result<(), String> {
        let found = lineage.find(prefix);
        // All that came for it was refused: what it has first is this.
        if let Some(object) = found
            .and_then(|at| lineage.objects.get_mut(at))
            .filter(|object| object.is_empty())
        {
            object.name.clone_from(&name);
        }
        match self.encoding {
            Encoding::JsonLines => {
                let at = found.map_or_else(|| lineage.begin(prefix, name), Ok)?;
                let pending = &mut lineage.objects[at].pending;
                self.json.row(row, pending).map(|()| pending.push(b'\n'))
            }
            Encoding::Csv(csv) => {
                let at = self.csv_object(lineage, csv, (prefix, name), found)?;
                let rows = self.csv.get(&at).ok_or("its columns are not known")?;
                let object = &mut lineage.objects[at];
                rows.row(row, &mut object.pending)?;
                object.rows += 1;
                Ok(())
            }
        }
    }

    /// The object for a row. Columns that it has not are added to it: which records are in an object, and so its name, must
    /// not depend on how they come in batches, because they may come in others after a crash.
    fn csv_object(
        &mut self,
        lineage: &mut Gathering,
        csv: &Csv,
        (prefix, name): (&str, String),
        found: Option<usize>,
    ) -> Result<usize, String> {
        if let Some(at) = found.filter(|at| self.csv.contains_key(at)) {
            return Ok(at);
        }
        let (batch, op_column) = (self.batch, self.op_column);
        let rows_of = |columns: &[String]| CsvRows::new(batch, columns, csv.delimiter, op_column);
        let at = match found {
            Some(at) => at,
            None => {
                let own = || CsvRows::header_of(batch, op_column);
                let at = lineage.begin(prefix, name)?;
                let object = &mut lineage.objects[at];
                object.columns = csv.columns.clone().unwrap_or_else(own);
                if csv.header {
                    object.pending = header_of(csv, &object.columns);
                }
                object.header = object.pending.len();
                at
            }
        };
        let object = &mut lineage.objects[at];
        let mut rows = rows_of(&object.columns);
        let added: Vec<String> = rows.strangers().map(str::to_string).collect();
        if csv.widen && csv.columns.is_none() && !added.is_empty() {
            object.grow(added)?;
            rows = rows_of(&object.columns);
        }
        self.blurs = rows.blurs().map(str::to_string).or(self.blurs.take());
        self.csv.insert(at, rows);
        Ok(at)
    }
}

#[cfg(test)]
mod tests {
    use bus_schema::data::{Field, Op, Type, Value};

    use super::*;
    use crate::file::testing::batch_of;

    fn csv() -> Gatherings {
        let encoding = Encoding::Csv(Csv {
            columns: None,
            header: true,
            delimiter: b',',
            widen: true,
        });
        let place = Place {
            prefix: None,
            owner: "w.n.".into(),
            ending: "csv".into(),
        };
        let limits = Limits {
            bytes: 4_000,
            age: Duration::from_secs(60),
        };
        Gatherings::new(encoding, None, place, limits, std::env::temp_dir())
    }

    /// One record with these columns.
    fn record(seq: u64, columns: std::ops::Range<usize>) -> Delivery {
        let fields = columns
            .clone()
            .map(|n| Field::new(format!("c{n}"), Type::I64))
            .collect();
        let values: Vec<Value> = columns.map(|_| Value::I64(7)).collect();
        Delivery {
            stream: StreamId::from_hash(&[1; 32]),
            seq,
            position: flow::Position::new(seq.to_be_bytes()),
            batch: batch_of(fields, &[(Op::Insert, &values)]),
            tally: flow::Tally::default(),
            bytes: 0,
        }
    }

    async fn text(gatherings: &Gatherings) -> String {
        let (_, raw) = gatherings.next(&StreamId::from_hash(&[1; 32])).unwrap();
        let packed = pack::pack(raw, pack::Packing::None, std::env::temp_dir()).await;
        let packed = packed.unwrap();
        let bytes = packed.part(0, packed.length() as usize).await.unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[tokio::test]
    async fn columns_come_later_are_undone_and_come_again() {
        let mut all = csv();
        for (seq, columns, is_kept) in [
            (1, 0..1, true),
            (2, 0..2, true),
            (3, 1..4, false),
            (3, 1..3, true),
            (4, 0..2, true),
        ] {
            assert_eq!(all.take(&record(seq, columns)), []);
            match is_kept {
                true => all.commit().await.unwrap(),
                false => all.undo(),
            }
        }
        assert_eq!(text(&all).await, "c0,c1,c2\n7,,\n7,7,\n,7,7\n7,7,\n");
    }

    #[tokio::test]
    async fn columns_without_end_make_no_object_without_end() {
        let mut all = csv();
        let mut refused = Vec::new();
        for seq in 0..COLUMNS_MAX + 2 {
            refused.extend(all.take(&record(seq as u64 + 1, seq..seq + 1)));
        }
        assert_eq!(refused.len(), 2);
        assert!(refused[0].1.contains("has 1024 at most"), "{refused:?}");
        all.commit().await.unwrap();
        // It is due by what it becomes.
        let text = text(&all).await;
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 1 + COLUMNS_MAX);
        assert!(lines.iter().all(|line| line.matches(',').count() == COLUMNS_MAX - 1));
        let about = all.lineages.values().next().unwrap().objects[0].bytes();
        let truly = text.len() as u64;
        assert!(
            (truly - 6_000..=truly).contains(&about),
            "{about} of {truly}: all but the header's names"
        );
        let mut few = csv();
        assert_eq!(few.take(&record(1, 0..1)), []);
        few.commit().await.unwrap();
        assert_eq!(few.due(), None);
        for seq in 2..200 {
            assert_eq!(few.take(&record(seq, 0..1)), []);
        }
        few.commit().await.unwrap();
        assert_eq!(few.due(), None, "400 bytes");
        assert_eq!(few.take(&record(200, 0..30)), []);
        few.commit().await.unwrap();
        assert!(few.due().is_some(), "6,000 bytes with all columns");
    }

    #[test]
    fn whose_an_object_is() {
        for (name, is_ours) in [
            ("w.n.abc.000000000001.jsonl", true),
            ("raw/x=1/w.n.abc.000000000001.jsonl.gz", true),
            ("raw-w.n.abc.1000000000001.csv", true),
            ("w.n.abc.1.jsonl", false),
            ("w.other.abc.000000000001.jsonl", false),
            ("w.n.abc", false),
            ("raw/", false),
        ] {
            assert_eq!(is_of(name, "w.n."), is_ours, "{name}");
        }
    }
}
