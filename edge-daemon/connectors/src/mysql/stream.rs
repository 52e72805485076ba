//! The changes of one table, as the binary log has them, made into records. Keeps count of what was given out.

use std::{ops::Range, path::PathBuf, time::Duration};

use bus_schema::data::{Batch, Column, Op, Ops, Origin, Schema};
use flow::Fault;
use tokio::time::Instant;

use super::{
    binlog::{Bits, Kind, Query, Rows, has_rows, is_one_phase, is_standalone, kind, table_of},
    bytes::{Broken, Bytes},
    connect::Server,
    described::{Catalog, Described},
    dump::{Dump, FIRST_OFFSET, Sent, beyond, broken},
    form::Form,
    link::Link,
    mark::{At, Mark, Place},
    statement::{Effect, Table, effect},
    table_map::{self, TableMap},
    value::Misread,
};
use crate::postgres::{Page, Slot, shown};

/// How long a batch that has records waits for the next one.
const LINGER: Duration = Duration::from_millis(5);
/// And for all of them.
const LINGER_MAX: Duration = Duration::from_millis(50);

/// The log, as far as it is of a table.
pub(super) struct Stream {
    dump: Dump,
    /// To ask the catalog.
    server: Server,
    base_dir: PathBuf,
    table: Table,
    /// The table, once the log has said what it looks like.
    described: Option<Described>,
    group: Option<Group>,
    /// An event that waits for the batch before it to be given out.
    held: Option<Sent>,
    /// Rows of an event that are being read.
    rows: Option<Rows>,
    images: [Image; 2],
    /// After the last record that was given out.
    pub mark: Mark,
    /// The last place that was told of.
    said: Place,
    /// Told once what had come before it has been given out.
    fault: Option<Fault>,
    rows_max: usize,
}

/// A transaction, or a statement that is one.
#[derive(Debug, Default)]
struct Group {
    /// It has more than one statement, and a commit.
    has_begun: bool,
    /// Changes of the table that have come.
    changes: u64,
    /// Of them, those that were given out by an earlier life.
    given: u64,
    /// Where the log is after it, if what is in it does not say.
    end: Option<u64>,
    /// The name of an XA transaction that is about to be prepared.
    xa: Option<String>,
}

/// What became of an event.
enum Step {
    /// It is dealt with.
    Taken,
    /// The batch has to be given out first.
    Wait,
}

/// A row, as text.
#[derive(Debug, Default)]
struct Image {
    text: Vec<u8>,
    cells: Vec<Value>,
    /// Columns whose value cannot be read, and why; it counts as missing.
    unread: Vec<(usize, &'static str)>,
}

#[derive(Debug)]
enum Value {
    Missing,
    Null,
    Text(Range<usize>),
}

impl Image {
    /// Reads a row that has the columns `bits`.
    fn read(&mut self, described: &Described, bits: &Bits, bytes: &mut Bytes<'_>) -> Result<(), Broken> {
        self.text.clear();
        self.cells.clear();
        self.unread.clear();
        let nulls = Bits::take(bytes, bits.among(described.writings.len()))?;
        let mut number = 0;
        for (index, writing) in described.writings.iter().enumerate() {
            if !bits.has(index) {
                self.cells.push(Value::Missing);
                continue;
            }
            let is_null = nulls.has(number);
            number += 1;
            if is_null {
                self.cells.push(Value::Null);
                continue;
            }
            let start = self.text.len();
            self.cells.push(match writing.value(bytes, &mut self.text) {
                Ok(()) => Value::Text(start..self.text.len()),
                Err(Misread::Broken(broken)) => return Err(broken),
                Err(Misread::Value(cause)) => {
                    self.unread.push((index, cause));
                    Value::Missing
                }
            });
        }
        Ok(())
    }

    /// Why the row is no record, if so. Of a row that only says which one is meant, the key has to be there.
    fn trouble(&self, described: &Described, key_only: bool) -> Option<String> {
        let counts = |(index, _): &&(usize, &str)| !key_only || described.map.key.contains(index);
        let (index, cause) = self.unread.iter().find(counts)?;
        let name = described
            .schema
            .fields
            .get(*index)
            .map_or("?", |field| field.name.as_str());
        Some(format!("column '{name}' has {cause}"))
    }

    fn slots(&self) -> Vec<Slot<'_>> {
        let slot = |value: &Value| match value {
            Value::Missing => Slot::Missing,
            Value::Null => Slot::Null,
            Value::Text(range) => Slot::Text(&self.text[range.clone()]),
        };
        self.cells.iter().map(slot).collect()
    }
}

impl Stream {
    pub(super) fn new(
        dump: Dump,
        (server, base_dir): (Server, PathBuf),
        table: Table,
        mark: Mark,
        rows_max: usize,
    ) -> Self {
        Self {
            dump,
            server,
            base_dir,
            table,
            described: None,
            group: None,
            held: None,
            rows: None,
            images: Default::default(),
            said: mark.place.clone(),
            mark,
            fault: None,
            rows_max,
        }
    }

    /// The next records; `None` when none come until `give_up`. Then `mark` is after the last of them.
    pub(super) async fn read(&mut self, give_up: Instant) -> Result<Option<Page<Form>>, Fault> {
        if let Some(fault) = self.fault.take() {
            return Err(fault);
        }
        let (mut page, mut until, mut last) = (None, give_up, give_up);
        loop {
            let before = self.mark.at.clone();
            let step = match self.turn(&mut page, until).await {
                Ok(Some(step)) => step,
                Ok(None) => break,
                Err(fault) if page.is_some() => {
                    self.fault = Some(fault);
                    break;
                }
                Err(fault) => return Err(fault),
            };
            if matches!(step, Step::Wait) || page.as_ref().is_some_and(Page::is_full) {
                break;
            }
            // The rest of the log may never pause: records are waited for, not silence.
            let now = Instant::now();
            if page.is_some() && self.mark.at != before {
                last = last.min(now + LINGER_MAX);
                until = last.min(now + LINGER);
            }
            if now >= until {
                break;
            }
        }
        Ok(page.filter(|page| !page.is_empty()))
    }

    /// Reads one row or event. `None`: none comes in time.
    async fn turn(&mut self, page: &mut Option<Page<Form>>, until: Instant) -> Result<Option<Step>, Fault> {
        if self.rows.is_some() {
            return self.change(page).map(Some);
        }
        let sent = match self.held.take() {
            Some(sent) => sent,
            None => match self.dump.next(until).await? {
                Some(sent) => sent,
                None => return Ok(None),
            },
        };
        let step = self.step(&sent, page).await?;
        if matches!(step, Step::Wait) {
            self.held = Some(sent);
        }
        Ok(Some(step))
    }

    /// Whether `mark` is further than was said before. It may be within a transaction, whose changes it counts.
    pub(super) fn idle_place(&mut self) -> bool {
        let is_news = self.mark.place != self.said;
        if is_news {
            self.said = self.mark.place.clone();
        }
        is_news
    }

    /// A batch without records, as one with some would be if it is known.
    pub(super) fn empty(&self) -> Result<Batch, Fault> {
        let schema = match &self.described {
            Some(described) => described.schema.clone(),
            None => Schema {
                collection: self.table.name.clone(),
                fields: Vec::new(),
            }
            .into(),
        };
        let columns = schema.fields.iter().map(|field| Column::new(&field.ty)).collect();
        let batch = Batch::new(schema, columns, Ops::All(Op::Insert), Origin::default());
        batch.map_err(|error| Fault::stop(error.to_string()))
    }

    pub(super) async fn close(self) {
        self.dump.close().await;
    }

    async fn step(&mut self, sent: &Sent, page: &mut Option<Page<Form>>) -> Result<Step, Fault> {
        let data = sent.event.data();
        match sent.kind() {
            kind::GTID | kind::ANONYMOUS_GTID | kind::GTID_TAGGED => self.begin(false),
            kind::MARIADB_GTID => self.begin(!is_standalone(data)),
            kind::QUERY | kind::COMPRESSED_QUERY => {
                let query = Query::parse(sent.kind(), data).map_err(broken)?;
                return self.statement(&query, sent.end, page);
            }
            kind::XID => self.end(sent.end)?,
            kind::XA_PREPARE => {
                self.prepare(is_one_phase(data));
                self.end(sent.end)?;
            }
            // What is in it follows, and does not know where it stands.
            kind::PAYLOAD => self.group().end = sent.end,
            kind::TABLE_MAP => return self.describe(data, page).await,
            kind if has_rows(kind) => {
                let ours = self.described.as_ref().map(|described| described.map.id);
                if ours == Some(table_of(data).map_err(broken)?) {
                    self.rows = Some(Rows::parse(kind, data).map_err(broken)?);
                }
            }
            kind::FORMAT => {
                // No transaction goes on in the next file.
                self.group = None;
                self.mark.place = Place {
                    file: self.dump.file.clone(),
                    offset: sent.end.unwrap_or(FIRST_OFFSET),
                };
                self.mark.made = self.dump.made.unwrap_or(self.mark.made);
                self.mark.at = At::Stream { changes: 0 };
            }
            kind::PARTIAL_UPDATE => {
                return Err(Fault::stop(
                    "the log has a part of a document, which cannot be delivered: SET GLOBAL binlog_row_value_options = '', \
                     and give the node another name to begin with a new snapshot",
                ));
            }
            kind::INCIDENT => {
                return Err(Fault::stop(
                    "the server has lost something of its binary log, and says so in it: give the node another name to \
                     begin with a new snapshot",
                ));
            }
            kind::HEARTBEAT if self.group.is_none() => {
                if let Some(offset) = sent.end.filter(|offset| *offset > self.mark.place.offset) {
                    self.mark.place.offset = offset;
                    self.mark.at = At::Stream { changes: 0 };
                }
            }
            _ => {}
        }
        Ok(Step::Taken)
    }

    /// The transaction that is being read. The log says where each begins; if it did not, it would begin here.
    fn group(&mut self) -> &mut Group {
        if self.group.is_none() {
            self.begin(false);
        }
        self.group.get_or_insert_default()
    }

    fn begin(&mut self, has_begun: bool) {
        let given = match self.mark.at {
            At::Stream { changes } => changes,
            At::Snapshot(_) => 0,
        };
        self.group = Some(Group {
            has_begun,
            given,
            ..Group::default()
        });
    }

    /// An XA transaction is prepared. What it changed has been given out; whether it counts, the log says later.
    fn prepare(&mut self, is_committed: bool) {
        let Some(group) = self.group.as_mut().filter(|group| group.changes > 0) else {
            return;
        };
        let Some(name) = group.xa.take().filter(|_| !is_committed) else {
            return;
        };
        tracing::warn!(
            table = self.table.name,
            transaction = name,
            "an XA transaction has been prepared; its changes are delivered as if it were committed already"
        );
        if let Some(forgotten) = self.mark.prepare(name) {
            tracing::warn!(
                table = self.table.name,
                transaction = forgotten,
                "too many XA transactions are prepared: if this one is rolled back, nothing will tell of it"
            );
        }
    }

    /// A transaction has ended, or a statement that is one.
    fn end(&mut self, end: Option<u64>) -> Result<(), Fault> {
        let group = self.group.take().unwrap_or_default();
        if let Some(offset) = group.end.or(end) {
            if offset < self.mark.place.offset {
                return Err(beyond(&self.mark.place.file));
            }
            self.mark.place.offset = offset;
            self.mark.at = At::Stream { changes: 0 };
        }
        Ok(())
    }

    fn statement(&mut self, query: &Query, end: Option<u64>, page: &mut Option<Page<Form>>) -> Result<Step, Fault> {
        let effect = effect(&query.sql, &query.database, &self.table);
        match &effect {
            Effect::Begin => {
                match &mut self.group {
                    Some(group) => group.has_begun = true,
                    None => self.begin(true),
                }
                return Ok(Step::Taken);
            }
            Effect::Commit => return self.end(end).map(|()| Step::Taken),
            Effect::Rollback => {
                let has_changes = self.group.as_ref().is_some_and(|group| group.changes > 0);
                if has_changes && !self.tell(query, "was rolled back after changes of the table were logged", page) {
                    return Ok(Step::Wait);
                }
                return self.end(end).map(|()| Step::Taken);
            }
            Effect::XaEnd(name) => {
                self.group().xa = Some(name.clone());
                return Ok(Step::Taken);
            }
            Effect::XaCommit(name) => {
                self.mark.prepared.retain(|known| known != name);
                return self.end(end).map(|()| Step::Taken);
            }
            Effect::XaRollback(name) => {
                let cause = "an XA transaction was rolled back, whose changes were delivered when it was prepared; destinations \
                             keep them: undo them there, or empty the table there and begin with a new snapshot";
                if self.mark.prepared.contains(name) && !self.tell(query, cause, page) {
                    return Ok(Step::Wait);
                }
                self.mark.prepared.retain(|known| known != name);
                return self.end(end).map(|()| Step::Taken);
            }
            _ => {}
        }
        let cause = match &effect {
            Effect::Emptied => Some("the table was emptied; destinations keep its rows".to_string()),
            Effect::Dropped => Some("the table was dropped; destinations keep its rows".to_string()),
            Effect::Renamed(name) => Some(format!(
                "the table is now {name}, and changes of it are not read any more: rename it back, or set table"
            )),
            Effect::Unlogged => Some(
                "rows may have been changed, and the log has only the statement: somebody's session had another \
                 binlog_format than ROW"
                    .to_string(),
            ),
            _ => None,
        };
        if let Some(cause) = cause
            && !self.tell(query, &cause, page)
        {
            return Ok(Step::Wait);
        }
        if self.group.as_ref().is_none_or(|group| !group.has_begun) {
            self.end(end)?;
        }
        Ok(Step::Taken)
    }

    /// What records cannot express goes to the dead letters, as a change of its own. `false`: there is no room for it now.
    fn tell(&mut self, query: &Query, cause: &str, page: &mut Option<Page<Form>>) -> bool {
        let (given, number) = (self.group().given, self.group().changes + 1);
        if number > given {
            if page.as_ref().is_some_and(Page::is_full) {
                return false;
            }
            let (schema, forms) = match &self.described {
                Some(described) => (described.schema.clone(), described.forms.clone()),
                None => {
                    let schema = Schema {
                        collection: self.table.name.clone(),
                        fields: Vec::new(),
                    };
                    (schema.into(), [].into())
                }
            };
            let page = page.get_or_insert_with(|| Page::new(&schema, &forms, self.rows_max));
            let reason = format!("{}, after {}: {cause}", self.table.name, self.mark.place);
            tracing::warn!("{reason}");
            page.refuse(
                query.sql.chars().take(SHOWN_CHARS).collect::<String>().into_bytes(),
                reason,
            );
            self.mark.at = At::Stream { changes: number };
        }
        self.group().changes = number;
        true
    }

    /// What a table looks like; ours, perhaps.
    async fn describe(&mut self, data: &[u8], page: &Option<Page<Form>>) -> Result<Step, Fault> {
        let (id, database, name) = table_map::name(data).map_err(broken)?;
        if !self.table.is(&database, &name) {
            // Numbers are given anew when a server restarts.
            if let Some(described) = &mut self.described
                && described.map.id == id
            {
                described.map.id = u64::MAX;
            }
            return Ok(Step::Taken);
        }
        let map = TableMap::parse(data).map_err(broken)?;
        if let Some(described) = &mut self.described
            && (&described.map.columns, &described.map.key) == (&map.columns, &map.key)
        {
            described.map.id = id;
            return Ok(Step::Taken);
        }
        if page.is_some() {
            return Ok(Step::Wait);
        }
        let mut link = Link::open(&self.server, &self.base_dir).await?;
        let catalog = Catalog::load(&mut link, &map).await?;
        self.described = Some(Described::new(map, &catalog, &self.table.name));
        Ok(Step::Taken)
    }

    /// The next change of the event that is being read.
    fn change(&mut self, page: &mut Option<Page<Form>>) -> Result<Step, Fault> {
        if self.group.is_none() {
            self.begin(false);
        }
        let (Some(rows), Some(described), Some(group)) = (&mut self.rows, &self.described, &mut self.group) else {
            self.rows = None;
            return Ok(Step::Taken);
        };
        let number = group.changes + 1;
        let place = format!("{}, after {}, change {number}", self.table.name, self.mark.place);
        let mut bytes = Bytes::new(rows.body.get(rows.at..).unwrap_or_default(), "row");
        let has_width = rows.width == described.writings.len();
        let [first, second] = &mut self.images;
        let mut cause = described.unreadable.clone();
        if cause.is_none() && !has_width {
            cause = Some("it has other columns".to_string());
        }
        if cause.is_none() {
            let mut read = first.read(described, &rows.first, &mut bytes);
            if read.is_ok() && rows.kind == Kind::Update {
                read = second.read(described, &rows.second, &mut bytes);
            }
            // It would be no better when it came again: the log's sums are checked.
            cause = read.err().map(|broken| broken.to_string());
        }
        if let Some(cause) = cause {
            // None of the rows of the event, or of those that are left of it.
            if number > group.given {
                if page.as_ref().is_some_and(Page::is_full) {
                    return Ok(Step::Wait);
                }
                let page = page.get_or_insert_with(|| Page::new(&described.schema, &described.forms, self.rows_max));
                page.refuse(Vec::new(), format!("{place}: changed rows cannot be read: {cause}"));
                self.mark.at = At::Stream { changes: number };
            }
            group.changes = number;
            self.rows = None;
            return Ok(Step::Taken);
        }
        if number > group.given {
            let change = Change {
                kind: rows.kind,
                old: first.slots(),
                new: if rows.kind == Kind::Update {
                    second.slots()
                } else {
                    Vec::new()
                },
            };
            if !page.as_ref().is_none_or(|page| page.has_room_for(change.longest())) {
                return Ok(Step::Wait);
            }
            let page = page.get_or_insert_with(|| Page::new(&described.schema, &described.forms, self.rows_max));
            // The snapshot may have the change already, where it was read at different times.
            let settled = self.mark.settled.as_ref();
            let is_settled = settled.is_none_or(|settled| !self.mark.place.is_before(settled));
            let is_update = rows.kind == Kind::Update;
            let trouble = first.trouble(described, rows.kind != Kind::Insert);
            match trouble.or_else(|| is_update.then(|| second.trouble(described, false)).flatten()) {
                Some(cause) => page.refuse(shown(&described.schema, change.longest()), format!("{place}: {cause}")),
                None => change.put(described, is_settled, page, &place),
            }
            self.mark.at = At::Stream { changes: number };
        }
        group.changes = number;
        rows.at = rows.body.len() - bytes.len();
        if rows.is_over() {
            self.rows = None;
        }
        Ok(Step::Taken)
    }
}

/// How much of a statement is shown.
const SHOWN_CHARS: usize = 4096;

/// What happened to a row.
struct Change<'a> {
    kind: Kind,
    /// Of an insert: the new one.
    old: Vec<Slot<'a>>,
    /// Of an update.
    new: Vec<Slot<'a>>,
}

impl Change<'_> {
    /// The row that decides whether there is room.
    fn longest(&self) -> &[Slot<'_>] {
        if self.new.is_empty() { &self.old } else { &self.new }
    }

    /// Puts the records of a change into a page.
    fn put(mut self, described: &Described, is_settled: bool, page: &mut Page<Form>, place: &str) {
        let op = |op| if is_settled { op } else { Op::Upsert };
        let key = &described.map.key;
        let refused = |row: &[Slot<'_>], cause: &str| (shown(&described.schema, row), format!("{place}: {cause}"));
        if key.is_empty() && (self.kind != Kind::Insert || !is_settled) {
            let (bytes, reason) = refused(
                &self.old,
                "the table has no primary key, and nothing else tells its rows apart",
            );
            return page.refuse(bytes, reason);
        }
        match self.kind {
            Kind::Insert => {
                let is_short = |(index, slot): (usize, &Slot<'_>)| *slot == Slot::Missing && !described.virtuals[index];
                if self.old.iter().enumerate().any(is_short) {
                    let cause = "the log does not have the whole row: somebody's session had another binlog_row_image than FULL";
                    let (bytes, reason) = refused(&self.old, cause);
                    return page.refuse(bytes, reason);
                }
                page.push(op(Op::Insert), &self.old, || place.to_string());
            }
            Kind::Delete => page.push(Op::Delete, &self.old, || place.to_string()),
            Kind::Update => {
                for (new, old) in self.new.iter_mut().zip(&self.old) {
                    if *new == Slot::Missing {
                        *new = if *old == Slot::Missing { Slot::Unchanged } else { *old };
                    }
                }
                let is_moved = key.iter().any(|at| self.new[*at] != self.old[*at]);
                if !is_moved {
                    page.push(op(Op::Update), &self.new, || place.to_string());
                } else if self.new.contains(&Slot::Unchanged) {
                    let cause = "the key of a row was changed, and the log does not have the whole row: somebody's session had \
                                 another binlog_row_image than FULL";
                    let (bytes, reason) = refused(&self.new, cause);
                    page.refuse(bytes, reason);
                } else {
                    // Another key is another row.
                    page.push(Op::Delete, &self.old, || place.to_string());
                    page.push(op(Op::Insert), &self.new, || place.to_string());
                }
            }
        }
    }
}
