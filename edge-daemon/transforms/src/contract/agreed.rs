//! What a collection's records look like by agreement, and in what a batch differs from that. Pure.

use bus_schema::data::{Batch, Cell, Field, Op, Schema, Type};

/// The agreed columns of one collection.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Agreed {
    pub columns: Vec<Known>,
}

/// One agreed column.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Known {
    pub name: String,
    pub ty: Type,
    /// For [`Type::Any`], the kinds of values met so far, as bits of [`kind`]; of other types their own.
    pub kinds: u16,
    /// Records may come without it.
    pub optional: bool,
}

/// What is different about a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Finding {
    /// A column that was not agreed, by its index in the batch, with a value in some record.
    Added(usize),
    /// An agreed column that some record does not have, by its index in the agreement.
    Gone(usize),
    /// A column of another type than agreed: its index in the batch, and in the agreement.
    Retyped(usize, usize),
}

/// The bit of values of this type. Numbers are of one kind: where a source does not say that they are whole, the next may not
/// be.
fn kind(ty: &Type) -> u16 {
    match ty {
        Type::Bool => 1,
        Type::I64 | Type::U64 | Type::F32 | Type::F64 | Type::Decimal { .. } => 1 << 1,
        Type::Text => 1 << 2,
        Type::Bytes => 1 << 3,
        Type::Date => 1 << 4,
        Type::Time => 1 << 5,
        Type::Timestamp(_) => 1 << 6,
        Type::Uuid => 1 << 7,
        Type::Json => 1 << 8,
        Type::List => 1 << 9,
        Type::Any => 0,
    }
}

fn kind_of(cell: &Cell<'_>) -> u16 {
    cell.type_of().map_or(0, |ty| kind(&ty))
}

impl Known {
    /// A column of a declared type.
    pub(super) fn declared(name: &str, ty: Type, optional: bool) -> Self {
        Self {
            name: name.to_string(),
            kinds: kind(&ty),
            ty,
            optional,
        }
    }

    /// As a batch has it.
    fn met(batch: &Batch, column: usize) -> Self {
        let Field { name, ty, .. } = &batch.schema().fields[column];
        let mut known = Self::declared(name, ty.clone(), false);
        known.kinds |= cells(batch, column).fold(0, |kinds, cell| kinds | kind_of(&cell));
        known.optional |= (0..batch.rows()).any(|row| lacks(batch, row, Some(column)));
        known
    }

    /// Whether a value of the batch's column, of type `ty` there, is as agreed.
    pub(super) fn takes(&self, cell: &Cell<'_>, ty: &Type) -> bool {
        let kind = kind_of(cell);
        match (&self.ty, ty) {
            (known, ty) if known == ty && *ty != Type::Any => true,
            (known, ty) if *known != Type::Any && *ty != Type::Any => kind == 0,
            // Nothing was met yet that would say what it is.
            (Type::Any, _) if self.kinds == 0 => true,
            _ => kind & !self.kinds == 0,
        }
    }
}

fn cells(batch: &Batch, column: usize) -> impl Iterator<Item = Cell<'_>> {
    (0..batch.rows()).map(move |row| batch.cell(row, column))
}

/// Whether a record should have the column, which may be none of its batch, and does not. Updates and deletes bring what they
/// need.
pub(super) fn lacks(batch: &Batch, row: usize, column: Option<usize>) -> bool {
    let is_whole = matches!(batch.op(row), Op::Insert | Op::Upsert);
    is_whole && column.is_none_or(|column| batch.cell(row, column) == Cell::Missing)
}

impl Agreed {
    /// What a first batch looks like. Records may lack what one of the first lacks.
    pub(super) fn of(batch: &Batch) -> Self {
        let columns = 0..batch.schema().fields.len();
        Self {
            columns: columns.map(|column| Known::met(batch, column)).collect(),
        }
    }

    /// The column of that name.
    pub(super) fn index_of(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|known| known.name == name)
    }

    /// In what a batch differs.
    pub(super) fn findings(&self, batch: &Batch) -> Vec<Finding> {
        let schema = batch.schema();
        let mut findings = Vec::new();
        for (column, field) in schema.fields.iter().enumerate() {
            match self.index_of(&field.name) {
                None if cells(batch, column).any(|cell| cell.is_value()) => findings.push(Finding::Added(column)),
                None => {}
                Some(known) if self.differs(known, batch, column) => findings.push(Finding::Retyped(column, known)),
                Some(_) => {}
            }
        }
        let is_gone = |known: &Known| {
            let column = schema.index_of(&known.name);
            let is_dense = column.is_some_and(|column| batch.columns()[column].is_dense());
            !known.optional && !is_dense && (0..batch.rows()).any(|row| lacks(batch, row, column))
        };
        let gone = self.columns.iter().enumerate().filter(|(_, known)| is_gone(known));
        findings.extend(gone.map(|(known, _)| Finding::Gone(known)));
        findings
    }

    fn differs(&self, known: usize, batch: &Batch, column: usize) -> bool {
        let (known, ty) = (&self.columns[known], &batch.schema().fields[column].ty);
        // Nearly always: nothing to look at.
        if known.ty == *ty && *ty != Type::Any {
            return false;
        }
        cells(batch, column).any(|cell| !known.takes(&cell, ty))
    }

    /// Takes note of the first values of columns of which nothing was known but the name.
    pub(super) fn learn(&mut self, batch: &Batch) {
        for known in self.columns.iter_mut().filter(|known| known.kinds == 0) {
            let Some(column) = batch.schema().index_of(&known.name) else {
                continue;
            };
            known.kinds = cells(batch, column).fold(0, |kinds, cell| kinds | kind_of(&cell));
        }
    }

    /// Agrees to what was found.
    pub(super) fn evolve(&mut self, batch: &Batch, findings: &[Finding]) {
        for finding in findings {
            match finding {
                // Records were without it before.
                Finding::Added(column) => self.columns.push(Known {
                    optional: true,
                    ..Known::met(batch, *column)
                }),
                // It may come back, and be no news then.
                Finding::Gone(known) => self.columns[*known].optional = true,
                Finding::Retyped(column, known) => {
                    let met = Known::met(batch, *column);
                    let known = &mut self.columns[*known];
                    known.kinds |= met.kinds;
                    known.ty = Type::Any;
                }
            }
        }
    }
}

/// What was found, for people.
pub(super) fn said(findings: &[Finding], agreed: &Agreed, schema: &Schema) -> Vec<String> {
    let field = |column: &usize| &schema.fields[*column];
    let added: Vec<&usize> = of(findings, |finding| match finding {
        Finding::Added(column) => Some(column),
        _ => None,
    });
    let gone: Vec<&usize> = of(findings, |finding| match finding {
        Finding::Gone(known) => Some(known),
        _ => None,
    });
    // One goes and one comes: a new name for the same thing, most likely.
    if let ([new], [old], 2) = (&added[..], &gone[..], findings.len()) {
        let (new, old) = (field(new), &agreed.columns[**old].name);
        return vec![format!(
            "column '{old}' is gone and '{}' ({}) is new: perhaps renamed",
            new.name, new.ty
        )];
    }
    let one = |finding: &Finding| match finding {
        Finding::Added(column) => format!("column '{}' ({}) is new", field(column).name, field(column).ty),
        Finding::Gone(known) => format!("column '{}' is gone", agreed.columns[*known].name),
        Finding::Retyped(column, known) => {
            let (was, is) = (&agreed.columns[*known].ty, &field(column).ty);
            match was == is {
                true => format!("column '{}' has values of another type than before", field(column).name),
                false => format!("column '{}' was {was} and is {is}", field(column).name),
            }
        }
    };
    findings.iter().map(one).collect()
}

fn of<'a>(findings: &'a [Finding], pick: impl Fn(&'a Finding) -> Option<&'a usize>) -> Vec<&'a usize> {
    findings.iter().filter_map(pick).collect()
}
