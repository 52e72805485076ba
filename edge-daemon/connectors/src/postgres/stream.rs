//! The changes of one table, as a slot sends them, made into records. Keeps count of what was given out; confirms nothing.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bus_schema::{
    data::{Batch, Column, Field, Op, Ops, Origin, Schema},
    limits::COLUMNS_MAX,
};
use flow::Fault;
use tokio::time::{Instant, timeout_at};
use tokio_postgres::{Client, types::Type as PgType};

use super::{
    form::Form,
    page::{Page, Slot, Written as _, shown},
    pgoutput::{Message, Old, Relation, parse},
    slot::{At, Mark},
    table::quote,
    walsender::{Feed, Lsn, Sent},
};

/// How long a batch that has records waits for more of them.
const LINGER: Duration = Duration::from_millis(5);

/// A slot that is being read.
pub(super) struct Stream {
    pub feed: Feed,
    /// To ask what types are.
    client: Client,
    schema: String,
    table: String,
    /// The primary key, for a table all of whose columns are sent before a change.
    primary_key: Vec<String>,
    chunk: VecDeque<Sent>,
    /// The table, once the server has said what it looks like.
    layout: Option<TableLayout>,
    transaction: Option<Transaction>,
    /// After the last record that was given out.
    pub mark: Mark,
    /// Everything before this place has been sent.
    reached: u64,
    /// The last place an idle stream has told of.
    said: u64,
    /// Told once what had come before it has been given out.
    fault: Option<Fault>,
    rows_max: usize,
}

/// What rows look like.
struct TableLayout {
    relation: Relation,
    schema: Arc<Schema>,
    forms: Arc<[Form]>,
    keys: Vec<usize>,
}

/// A transaction that has begun and not ended.
struct Transaction {
    xid: u32,
    commit: u64,
    /// Changes that have come.
    changes: u64,
    /// Of them, those that were given out by an earlier life.
    given: u64,
}

/// What became of a message.
enum Step {
    /// It is dealt with.
    Taken,
    /// The batch has to be given out first.
    Wait,
}

impl Stream {
    pub(super) fn new(
        feed: Feed,
        client: Client,
        (schema, table): (&str, &str),
        primary_key: Vec<String>,
        mark: Mark,
        rows_max: usize,
    ) -> Self {
        Self {
            feed,
            client,
            schema: schema.to_string(),
            table: table.to_string(),
            primary_key,
            chunk: VecDeque::new(),
            layout: None,
            transaction: None,
            reached: mark.lsn,
            said: mark.lsn,
            mark,
            fault: None,
            rows_max,
        }
    }

    /// The next records; `None` when none come until `give_up`. Then `mark` is after the last of them.
    pub(super) async fn read(&mut self, give_up: Instant) -> Result<Option<Page<Form>>, Fault> {
        let mut page = None;
        if let Some(fault) = self.fault.take() {
            return Err(fault);
        }
        loop {
            let Some(sent) = self.chunk.pop_front() else {
                if !self.receive(page.is_some(), give_up).await? {
                    break;
                }
                continue;
            };
            match &sent {
                Sent::Reached(lsn) if self.transaction.is_none() => self.reached = self.reached.max(*lsn),
                Sent::Reached(_) => {}
                Sent::Data(data) => {
                    let message = parse(data).map_err(|error| Fault::retry(format!("the slot sent {error}")))?;
                    if matches!(self.step(message, &mut page).await?, Step::Wait) {
                        self.chunk.push_front(sent);
                        break;
                    }
                }
            }
            if page.as_ref().is_some_and(Page::is_full) {
                break;
            }
        }
        Ok(page.filter(|page| !page.is_empty()))
    }

    /// Waits for more. `false`: it does not come in time.
    async fn receive(&mut self, has_page: bool, give_up: Instant) -> Result<bool, Fault> {
        let until = if has_page { Instant::now() + LINGER } else { give_up };
        let fault = match timeout_at(until, self.feed.receiver.recv()).await {
            Err(_) => return Ok(false),
            Ok(Some(Ok(chunk))) => {
                self.chunk = chunk.into();
                return Ok(true);
            }
            Ok(Some(Err(fault))) => fault,
            Ok(None) => Fault::retry("the replication connection has ended"),
        };
        if has_page {
            self.fault = Some(fault);
            return Ok(false);
        }
        Err(fault)
    }

    /// Where everything before has been sent and given out, if that is further than was said before.
    pub(super) fn idle_place(&mut self) -> Option<u64> {
        let is_between = self.transaction.is_none() && self.chunk.is_empty();
        let place = self.reached.max(self.mark.lsn);
        (is_between && place > self.said).then(|| {
            self.said = place;
            place
        })
    }

    /// A batch without records, as one with some would be if it is known.
    pub(super) fn empty(&self) -> Result<Batch, Fault> {
        let schema = match &self.layout {
            Some(layout) => Arc::clone(&layout.schema),
            None => Arc::new(Schema {
                collection: self.table.clone(),
                fields: Vec::new(),
            }),
        };
        let columns = schema.fields.iter().map(|field| Column::new(&field.ty)).collect();
        let batch = Batch::new(schema, columns, Ops::All(Op::Insert), Origin::default());
        batch.map_err(|error| Fault::stop(error.to_string()))
    }

    async fn step(&mut self, message: Message<'_>, page: &mut Option<Page<Form>>) -> Result<Step, Fault> {
        match message {
            Message::Begin { commit, xid } => {
                let given = match self.mark.at {
                    At::Stream { xid: of, changes } if of == xid => changes,
                    _ => 0,
                };
                self.transaction = Some(Transaction {
                    xid,
                    commit,
                    changes: 0,
                    given,
                });
            }
            Message::Commit { end } => {
                self.transaction = None;
                self.reached = self.reached.max(end);
                self.mark.lsn = end;
                self.mark.at = At::Stream { xid: 0, changes: 0 };
            }
            Message::Relation(relation) if relation.schema == self.schema && relation.name == self.table => {
                if self.layout.as_ref().is_none_or(|layout| layout.relation != relation) {
                    if page.is_some() {
                        return Ok(Step::Wait);
                    }
                    self.layout = Some(self.layout_of(relation).await?);
                }
            }
            Message::Relation(relation)
                if self
                    .layout
                    .as_ref()
                    .is_some_and(|layout| layout.relation.id == relation.id) =>
            {
                // Told when it is opened again, too: there is no table of the old name.
                return Err(Fault::retry(format!(
                    "the table {}.{} is now {}.{}: set schema and table, or rename it back",
                    self.schema, self.table, relation.schema, relation.name
                )));
            }
            Message::Relation(_) | Message::Other => {}
            Message::Insert { relation, new } => return self.change(relation, Change::Insert(new), page),
            Message::Update { relation, old, new } => return self.change(relation, Change::Update(old, new), page),
            Message::Delete { relation, old } => return self.change(relation, Change::Delete(old), page),
            Message::Truncate { relations } => {
                let ours = self.layout.as_ref().map(|layout| layout.relation.id);
                let relation = relations.into_iter().find(|id| Some(*id) == ours).unwrap_or_default();
                return self.change(relation, Change::Truncate, page);
            }
        }
        Ok(Step::Taken)
    }

    fn change(&mut self, relation: u32, change: Change<'_>, page: &mut Option<Page<Form>>) -> Result<Step, Fault> {
        let Some(transaction) = &mut self.transaction else {
            return Err(Fault::retry("the slot sent a change outside of a transaction"));
        };
        let number = transaction.changes + 1;
        let Some(layout) = self.layout.as_ref().filter(|layout| layout.relation.id == relation) else {
            transaction.changes = number;
            return Ok(Step::Taken);
        };
        if number > transaction.given {
            let has_room = page.as_ref().is_none_or(|page| page.has_room_for(change.longest()));
            if !has_room {
                return Ok(Step::Wait);
            }
            let page = page.get_or_insert_with(|| Page::new(&layout.schema, &layout.forms, self.rows_max));
            // The snapshot may have the change already, where it was read at different times.
            let is_settled = transaction.commit >= self.mark.settled;
            layout.put(change, is_settled, page, Lsn(transaction.commit))?;
            self.mark.at = At::Stream {
                xid: transaction.xid,
                changes: number,
            };
        }
        transaction.changes = number;
        Ok(Step::Taken)
    }

    async fn layout_of(&self, relation: Relation) -> Result<TableLayout, Fault> {
        if relation.columns.len() > COLUMNS_MAX {
            let (table, count) = (&relation.name, relation.columns.len());
            return Err(Fault::stop(format!(
                "'{table}' has {count} columns, and a record holds at most {COLUMNS_MAX}"
            )));
        }
        let mut forms = Vec::new();
        for column in &relation.columns {
            forms.push(Form::of(&self.type_of(column.type_oid).await, column.modifier));
        }
        let fields = relation.columns.iter().zip(&forms).map(|(column, form)| {
            let key = match relation.is_full {
                true => self.primary_key.contains(&column.name),
                false => column.is_key,
            };
            Field {
                name: column.name.clone(),
                ty: form.ty(),
                nullable: !key,
                key,
            }
        });
        let fields: Vec<Field> = fields.collect();
        Ok(TableLayout {
            keys: (0..fields.len()).filter(|index| fields[*index].key).collect(),
            schema: Arc::new(Schema {
                collection: relation.name.clone(),
                fields,
            }),
            forms: forms.into(),
            relation,
        })
    }

    /// What is known of a type. One that is gone, or cannot be asked for, is text, which every type has.
    async fn type_of(&self, oid: u32) -> PgType {
        if let Some(known) = PgType::from_oid(oid) {
            return known;
        }
        let sql = "SELECT n.nspname::text, t.typname::text FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace \
                   WHERE t.oid = $1";
        let Ok(Some(row)) = self.client.query_opt(sql, &[&oid]).await else {
            return PgType::TEXT;
        };
        let name = format!("{}.{}", quote(row.get(0)), quote(row.get(1)));
        match self.client.prepare(&format!("SELECT NULL::{name}")).await {
            Ok(statement) => statement.columns()[0].type_().clone(),
            Err(_) => PgType::TEXT,
        }
    }
}

/// What happened to a row.
enum Change<'a> {
    Insert(Vec<Slot<'a>>),
    Update(Option<Old<'a>>, Vec<Slot<'a>>),
    Delete(Old<'a>),
    Truncate,
}

impl<'a> Change<'a> {
    /// The row that decides whether there is room.
    fn longest(&self) -> &[Slot<'a>] {
        match self {
            Change::Insert(row) | Change::Update(_, row) | Change::Delete(Old::Key(row) | Old::Row(row)) => row,
            Change::Truncate => &[],
        }
    }
}

impl TableLayout {
    /// Puts the records of a change into a page.
    fn put(&self, change: Change<'_>, is_settled: bool, page: &mut Page<Form>, commit: Lsn) -> Result<(), Fault> {
        let place = || format!("{}, committed at {commit}", self.schema.collection);
        let op = |op| if is_settled { op } else { Op::Upsert };
        match change {
            Change::Insert(new) => page.push(op(Op::Insert), self.whole(&new)?, place),
            Change::Delete(old) => page.push(Op::Delete, &self.identity(old)?, place),
            Change::Update(old, mut new) => {
                self.whole(&new)?;
                let moved = match old {
                    None => None,
                    Some(old) => {
                        if let Old::Row(row) = &old {
                            let row = self.whole(row)?;
                            for (new, old) in new.iter_mut().zip(row).filter(|(new, _)| **new == Slot::Unchanged) {
                                *new = *old;
                            }
                        }
                        let old = self.identity(old)?;
                        let is_other = self
                            .keys
                            .iter()
                            .any(|key| new[*key] != Slot::Unchanged && new[*key] != old[*key]);
                        is_other.then_some(old)
                    }
                };
                match moved {
                    None => page.push(op(Op::Update), &new, place),
                    Some(_) if new.contains(&Slot::Unchanged) => {
                        let reason = format!(
                            "{}: the key of a row was changed, and a large value of it, which was not, is not sent: set \
                             REPLICA IDENTITY FULL for the table, and write this row once more",
                            place()
                        );
                        page.refuse(shown(&self.schema, &new), reason);
                    }
                    // Another key is another row.
                    Some(old) => {
                        page.push(Op::Delete, &old, place);
                        page.push(op(Op::Insert), &new, place);
                    }
                }
            }
            Change::Truncate => {
                let reason = format!("{}: the table was truncated; destinations keep its rows", place());
                tracing::warn!("{reason}");
                page.refuse(b"TRUNCATE".to_vec(), reason);
            }
        }
        Ok(())
    }

    /// A row as wide as the table.
    fn whole<'r, 'a>(&self, row: &'r [Slot<'a>]) -> Result<&'r [Slot<'a>], Fault> {
        if row.len() == self.forms.len() {
            return Ok(row);
        }
        let (found, wanted) = (row.len(), self.forms.len());
        Err(Fault::retry(format!(
            "the slot sent a row of {found} values for {wanted} columns"
        )))
    }

    /// What identifies a row; the rest of it was not sent.
    fn identity<'a>(&self, old: Old<'a>) -> Result<Vec<Slot<'a>>, Fault> {
        match old {
            Old::Row(row) => self.whole(&row).map(<[_]>::to_vec),
            Old::Key(row) => {
                let row = self.whole(&row)?.iter().enumerate();
                let slot = |(index, slot): (usize, &Slot<'a>)| match self.keys.contains(&index) {
                    true => *slot,
                    false => Slot::Missing,
                };
                Ok(row.map(slot).collect())
            }
        }
    }
}
