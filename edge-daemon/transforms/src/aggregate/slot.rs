//! What a window keeps of the records in it to give one value in the end. A record is checked against every slot before it
//! goes into any, so that it counts everywhere or nowhere.

use std::cmp::Ordering;

use bus_schema::data::{Cell, Type, Value};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::sketch::Sketch;
use crate::text::{SCALE_MAX, shifted, shorten};

/// Longest text or other value that a window keeps, in bytes.
const VALUE_BYTES_MAX: usize = 1024;
/// Most bytes by which a slot grows with one record, besides the value it keeps.
const GROWTH_BYTES_MAX: usize = 24;
const SECOND_NANOS: f64 = 1e9;

/// A value over the records of a window. Records without a value in the column do not count, but for `count`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Function {
    /// How many records.
    Count,
    /// The sum of a column; exact for whole numbers and decimals.
    Sum(String),
    /// The least value of a column.
    Min(String),
    /// The greatest value of a column.
    Max(String),
    /// The mean of a column.
    Mean(String),
    /// The number that so many hundredths of a column do not exceed, within 1 %.
    Percentile(Percentile),
    /// The value of the earliest record, by its own time.
    First(String),
    /// The value of the latest record, by its own time.
    Last(String),
    /// How much a column has changed a second, from the earliest to the latest record; null if there is one only.
    Rate(String),
}

/// Which percentile of which column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Percentile {
    /// The column.
    pub(super) column: String,
    /// From 0 to 100; 50 is the median.
    pub(super) percent: f64,
}

/// A number as it is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) enum Number {
    Whole(i128),
    Float(f64),
    Decimal(i128, u8),
}

/// What a record gives to one slot.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Input {
    /// It counts.
    Record,
    Number(Number),
    Value(Value),
}

/// What is kept. The order of the variants is on disks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Slot {
    Count(u64),
    Sum(Option<Number>),
    Min(Option<Value>),
    Max(Option<Value>),
    Mean(Option<Number>, u64),
    Percentile(Sketch),
    First(Option<(i64, Value)>),
    Last(Option<(i64, Value)>),
    /// The earliest and the latest.
    Rate(Option<[(i64, f64); 2]>),
}

impl Function {
    pub(super) fn column(&self) -> Option<&String> {
        match self {
            Function::Count => None,
            Function::Percentile(Percentile { column, .. })
            | Function::Sum(column)
            | Function::Min(column)
            | Function::Max(column)
            | Function::Mean(column)
            | Function::First(column)
            | Function::Last(column)
            | Function::Rate(column) => Some(column),
        }
    }

    pub(super) fn slot(&self) -> Slot {
        match self {
            Function::Count => Slot::Count(0),
            Function::Sum(_) => Slot::Sum(None),
            Function::Min(_) => Slot::Min(None),
            Function::Max(_) => Slot::Max(None),
            Function::Mean(_) => Slot::Mean(None, 0),
            Function::Percentile(_) => Slot::Percentile(Sketch::default()),
            Function::First(_) => Slot::First(None),
            Function::Last(_) => Slot::Last(None),
            Function::Rate(_) => Slot::Rate(None),
        }
    }

    /// What a record's cell gives; `None` for nothing. An error is the reason to reject the record.
    pub(super) fn input(&self, cell: Cell<'_>) -> Result<Option<Input>, String> {
        if *self == Function::Count {
            return Ok(Some(Input::Record));
        }
        if !cell.is_value() {
            return Ok(None);
        }
        let name = self.column().map(String::as_str).unwrap_or_default();
        match self {
            Function::Min(_) | Function::Max(_) | Function::First(_) | Function::Last(_) => {
                if cell.size_hint() > VALUE_BYTES_MAX {
                    return Err(format!("the value in '{name}' is over {VALUE_BYTES_MAX} bytes"));
                }
                let is_nan = matches!(cell, Cell::F64(v) if v.is_nan()) || matches!(cell, Cell::F32(v) if v.is_nan());
                let compares = matches!(self, Function::Min(_) | Function::Max(_));
                Ok((!(is_nan && compares)).then(|| Input::Value(cell.to_value())))
            }
            _ => {
                let no_number = || format!("column '{name}' is no number: '{}'", shorten(&cell.to_string()));
                let number = Number::of(cell).ok_or_else(no_number)?;
                let is_finite = number.to_f64().is_finite();
                if !is_finite && matches!(self, Function::Percentile(_)) {
                    return Err(no_number());
                }
                Ok(Some(Input::Number(number)))
            }
        }
    }

    /// The type of its results, for a column of this type.
    pub(super) fn result_type(&self, column: Option<&Type>) -> Option<Type> {
        match self {
            Function::Count => Some(Type::I64),
            Function::Mean(_) | Function::Percentile(_) | Function::Rate(_) => Some(Type::F64),
            Function::Min(_) | Function::Max(_) | Function::First(_) | Function::Last(_) => column.cloned(),
            Function::Sum(_) => match column? {
                Type::I64 | Type::U64 => Some(Type::I64),
                Type::F32 | Type::F64 => Some(Type::F64),
                Type::Decimal { scale, .. } => Some(Type::Decimal {
                    precision: 0,
                    scale: *scale,
                }),
                _ => None,
            },
        }
    }
}

impl Number {
    fn of(cell: Cell<'_>) -> Option<Self> {
        Some(match cell {
            Cell::I64(v) => Number::Whole(v.into()),
            Cell::U64(v) => Number::Whole(v.into()),
            Cell::F32(v) => Number::Float(v.into()),
            Cell::F64(v) => Number::Float(v),
            Cell::Decimal(units, scale) => Number::Decimal(units, scale),
            _ => return None,
        })
    }

    fn to_f64(self) -> f64 {
        match self {
            Number::Whole(v) => v as f64,
            Number::Float(v) => v,
            Number::Decimal(units, scale) => units as f64 / 10f64.powi(scale.into()),
        }
    }

    /// The sum; `None` when it would not be exact any more where it should be.
    fn plus(self, other: Self) -> Option<Self> {
        Some(match (self, other) {
            (Number::Whole(a), Number::Whole(b)) => Number::Whole(a.checked_add(b)?),
            (Number::Float(_), _) | (_, Number::Float(_)) => Number::Float(self.to_f64() + other.to_f64()),
            _ => {
                let ((a, from), (b, to)) = (self.units(), other.units());
                let scale = from.max(to).min(SCALE_MAX);
                let at = |units, from: u8| shifted(units, i64::from(scale) - i64::from(from));
                Number::Decimal(at(a, from)?.checked_add(at(b, to)?)?, scale)
            }
        })
    }

    fn units(self) -> (i128, u8) {
        match self {
            Number::Decimal(units, scale) => (units, scale),
            Number::Whole(v) => (v, 0),
            // Never asked for.
            Number::Float(_) => (0, 0),
        }
    }

    fn to_value(self) -> Value {
        match self {
            // Held within these bounds by `Slot::check`.
            Number::Whole(v) => i64::try_from(v).map_or(Value::Null, Value::I64),
            Number::Float(v) => Value::F64(v),
            Number::Decimal(units, scale) => Value::Decimal(units, scale),
        }
    }
}

impl Slot {
    /// Whether a record's input can go in. An error is the reason to reject the record.
    pub(super) fn check(&self, input: &Input) -> Result<(), String> {
        match (self, input) {
            (Slot::Sum(sum), Input::Number(number)) => {
                let sum = sum.map_or(Some(*number), |sum| sum.plus(*number));
                let fits = |sum: &Number| !matches!(sum, Number::Whole(v) if i64::try_from(*v).is_err());
                sum.filter(fits)
                    .map(drop)
                    .ok_or_else(|| "the sum of its window would be too large".to_string())
            }
            (Slot::Mean(Some(sum), _), Input::Number(number)) => {
                let sum = sum.plus(*number);
                sum.map(drop)
                    .ok_or_else(|| "the sum of its window would be too large".to_string())
            }
            (Slot::Min(Some(kept)) | Slot::Max(Some(kept)), Input::Value(value)) => {
                let compared = compare(value, kept);
                compared.map(drop).ok_or_else(|| {
                    let (value, kept) = (value.as_cell().to_string(), kept.as_cell().to_string());
                    format!("'{}' cannot be compared with '{}'", shorten(&value), shorten(&kept))
                })
            }
            _ => Ok(()),
        }
    }

    /// Most bytes by which it grows.
    pub(super) fn growth(input: &Input) -> usize {
        match input {
            Input::Value(value) => GROWTH_BYTES_MAX + value.as_cell().size_hint(),
            Input::Record | Input::Number(_) => GROWTH_BYTES_MAX,
        }
    }

    /// Takes in what has been checked, of a record of this time.
    pub(super) fn add(&mut self, input: Input, at: i64) {
        match (self, input) {
            (Slot::Count(count), Input::Record) => *count += 1,
            (Slot::Sum(sum), Input::Number(number)) => *sum = plus(*sum, number),
            (Slot::Mean(sum, count), Input::Number(number)) => {
                *sum = plus(*sum, number);
                *count += 1;
            }
            (Slot::Min(kept), Input::Value(value)) => keep(kept, value, Ordering::Less),
            (Slot::Max(kept), Input::Value(value)) => keep(kept, value, Ordering::Greater),
            (Slot::Percentile(sketch), Input::Number(number)) => sketch.add(number.to_f64()),
            (Slot::First(first), Input::Value(value)) => {
                let is_first = first.as_ref().is_none_or(|(before, _)| at < *before);
                *first = if is_first { Some((at, value)) } else { first.take() };
            }
            (Slot::Last(last), Input::Value(value)) => {
                let is_last = last.as_ref().is_none_or(|(before, _)| at >= *before);
                *last = if is_last { Some((at, value)) } else { last.take() };
            }
            (Slot::Rate(ends), Input::Number(number)) => {
                let new = (at, number.to_f64());
                let [first, last] = ends.get_or_insert([new, new]);
                if at < first.0 {
                    *first = new;
                }
                if at >= last.0 {
                    *last = new;
                }
            }
            // `Function::input` gives each its own.
            _ => {}
        }
    }

    /// Takes in another slot of the same function, whose records came before or beside.
    pub(super) fn merge(&mut self, other: Slot) -> Result<(), String> {
        match (self, other) {
            (Slot::Count(count), Slot::Count(more)) => *count += more,
            (Slot::Percentile(sketch), Slot::Percentile(more)) => sketch.merge(&more),
            (Slot::Mean(sum, count), Slot::Mean(Some(number), more)) => {
                Slot::Mean(*sum, 0).check(&Input::Number(number))?;
                *sum = plus(*sum, number);
                *count += more;
            }
            (slot @ Slot::Sum(_), Slot::Sum(Some(number))) => {
                slot.check(&Input::Number(number))?;
                slot.add(Input::Number(number), 0);
            }
            (slot @ Slot::Min(_), Slot::Min(Some(value))) | (slot @ Slot::Max(_), Slot::Max(Some(value))) => {
                let input = Input::Value(value);
                slot.check(&input)?;
                slot.add(input, 0);
            }
            (slot @ Slot::First(_), Slot::First(Some((at, value))))
            | (slot @ Slot::Last(_), Slot::Last(Some((at, value)))) => slot.add(Input::Value(value), at),
            (slot @ Slot::Rate(_), Slot::Rate(Some(ends))) => {
                for (at, number) in ends {
                    slot.add(Input::Number(Number::Float(number)), at);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The value it comes to.
    pub(super) fn result(&self, function: &Function) -> Value {
        match (self, function) {
            (Slot::Count(count), _) => i64::try_from(*count).map_or(Value::Null, Value::I64),
            (Slot::Sum(sum), _) => sum.map_or(Value::Null, Number::to_value),
            (Slot::Mean(sum, count), _) => sum.map_or(Value::Null, |sum| Value::F64(sum.to_f64() / *count as f64)),
            (Slot::Min(value) | Slot::Max(value), _) => value.clone().unwrap_or(Value::Null),
            (Slot::First(kept) | Slot::Last(kept), _) => kept.clone().map_or(Value::Null, |(_, value)| value),
            (Slot::Percentile(sketch), Function::Percentile(Percentile { percent, .. })) => {
                sketch.percentile(*percent).map_or(Value::Null, Value::F64)
            }
            (Slot::Rate(Some([(begin, from), (end, to)])), _) if begin < end => {
                Value::F64((to - from) / ((end - begin) as f64 / SECOND_NANOS))
            }
            _ => Value::Null,
        }
    }
}

fn plus(sum: Option<Number>, number: Number) -> Option<Number> {
    // What would overflow has been refused by `Slot::check`.
    sum.map_or(Some(number), |sum| sum.plus(number).or(Some(sum)))
}

fn keep(kept: &mut Option<Value>, value: Value, wanted: Ordering) {
    if kept.as_ref().is_none_or(|kept| compare(&value, kept) == Some(wanted)) {
        *kept = Some(value);
    }
}

/// The order of two values of one kind; `None` for those that have none.
fn compare(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Text(a), Value::Text(b)) => Some(a.cmp(b)),
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        (Value::Bytes(a), Value::Bytes(b)) => Some(a.cmp(b)),
        (Value::Date(a), Value::Date(b)) => Some(a.cmp(b)),
        (Value::Time(a), Value::Time(b)) => Some(a.cmp(b)),
        (Value::Timestamp(a), Value::Timestamp(b))
        | (
            Value::TimestampUtc(a) | Value::TimestampOffset(a, _),
            Value::TimestampUtc(b) | Value::TimestampOffset(b, _),
        ) => Some(a.cmp(b)),
        (Value::Uuid(a), Value::Uuid(b)) => Some(a.cmp(b)),
        _ => match (Number::of(a.as_cell())?, Number::of(b.as_cell())?) {
            (Number::Whole(a), Number::Whole(b)) => Some(a.cmp(&b)),
            (a, b) => {
                let exact = || {
                    let ((a, from), (b, to)) = (a.units(), b.units());
                    let scale = from.max(to);
                    let at = |units, from: u8| shifted(units, i64::from(scale) - i64::from(from));
                    Some(at(a, from)?.cmp(&at(b, to)?))
                };
                let is_float = matches!(a, Number::Float(_)) || matches!(b, Number::Float(_));
                let exact = if is_float { None } else { exact() };
                exact.or_else(|| a.to_f64().partial_cmp(&b.to_f64()))
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str) -> String {
        name.to_string()
    }

    #[test]
    fn values_come_to_this() {
        use Value::{Decimal, F64, I64, Null, Text, U64};
        let text = |text: &str| Text(text.to_string());
        let percentile = Function::Percentile(Percentile {
            column: column("n"),
            percent: 50.0,
        });
        for (function, inputs, expected) in [
            (Function::Count, vec![Null, I64(1)], I64(2)),
            (Function::Sum(column("n")), vec![I64(1), Null, I64(2)], I64(3)),
            (Function::Sum(column("n")), vec![Null], Null),
            (Function::Sum(column("n")), vec![F64(0.5), I64(2)], F64(2.5)),
            (
                Function::Sum(column("n")),
                vec![Decimal(15, 1), Decimal(225, 2), I64(1)],
                Decimal(475, 2),
            ),
            (Function::Mean(column("n")), vec![I64(1), I64(2)], F64(1.5)),
            (
                Function::Mean(column("n")),
                vec![U64(u64::MAX), U64(u64::MAX)],
                F64(u64::MAX as f64),
            ),
            (
                Function::Min(column("n")),
                vec![I64(3), I64(-2), F64(f64::NAN), I64(4)],
                I64(-2),
            ),
            (
                Function::Max(column("n")),
                vec![Decimal(31, 1), I64(3), Decimal(305, 2)],
                Decimal(31, 1),
            ),
            (
                Function::Max(column("n")),
                vec![text("a"), text("c"), text("b")],
                text("c"),
            ),
            (Function::First(column("n")), vec![text("x"), I64(1)], text("x")),
            (Function::Last(column("n")), vec![text("x"), I64(1), Null], I64(1)),
            (Function::Rate(column("n")), vec![I64(5)], Null),
            (Function::Rate(column("n")), vec![I64(5), I64(9), I64(8)], F64(1.5)),
            (percentile, vec![I64(0), I64(0), I64(7)], F64(0.0)),
        ] {
            // One slot takes all, a second second one is put in halves: the same. A record a second.
            let mut slot = function.slot();
            let (mut early, mut late) = (function.slot(), function.slot());
            for (at, value) in inputs.iter().enumerate() {
                let Some(input) = function.input(value.as_cell()).unwrap() else {
                    continue;
                };
                let second = at as i64 * 1_000_000_000;
                slot.check(&input).unwrap();
                slot.add(input.clone(), second);
                if at == 0 { &mut early } else { &mut late }.add(input, second);
            }
            early.merge(late).unwrap();
            assert_eq!(slot.result(&function), expected, "{function:?} of {inputs:?}");
            assert_eq!(
                early.result(&function),
                expected,
                "{function:?} of {inputs:?}, in two parts"
            );
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        use Value::{Bool, F64, I64, Text};
        for (function, before, value, wanted) in [
            (Function::Sum(column("n")), Some(I64(i64::MAX)), I64(1), "too large"),
            (Function::Sum(column("n")), None, Text("1".into()), "is no number: '1'"),
            (Function::Mean(column("n")), None, Bool(true), "is no number: 'true'"),
            (
                Function::Max(column("n")),
                Some(I64(1)),
                Text("a".into()),
                "cannot be compared",
            ),
            (
                Function::First(column("n")),
                None,
                Text("a".repeat(2000)),
                "over 1024 bytes",
            ),
            (
                Function::Percentile(Percentile {
                    column: column("n"),
                    percent: 1.0,
                }),
                None,
                F64(f64::INFINITY),
                "is no number: 'inf'",
            ),
        ] {
            let mut slot = function.slot();
            if let Some(before) = before {
                slot.add(function.input(before.as_cell()).unwrap().unwrap(), 0);
            }
            let found = function
                .input(value.as_cell())
                .and_then(|input| slot.check(&input.unwrap()));
            let error = found.unwrap_err();
            assert!(error.contains(wanted), "{function:?}: {error}");
        }
    }
}
