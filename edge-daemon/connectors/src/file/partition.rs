//! Which file of a directory a record belongs to: a name with places for values and dates. Pure.

use bus_schema::data::{Batch, Cell, Type, Zone};
use flow::ConfigError;

use super::{place, text::parse};
use crate::publish::{Piece, pieces};

/// How much of a time stands in a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Span {
    Year,
    Month,
    Date,
    Hour,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Text(String),
    Value(String),
    Time(String, Span),
}

/// A file's name with places for what a record holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NameTemplate(Vec<Place>);

impl NameTemplate {
    /// Takes `{site}/{at:date}.jsonl` apart. `key` is where it stands in the config.
    pub(crate) fn parse(text: &str, key: &str) -> Result<Self, ConfigError> {
        let wrong = |cause: String| ConfigError::at(key, cause);
        let places: Vec<Place> = pieces(text).map_err(wrong)?.into_iter().map(place_of).collect();
        // With a value that fits anywhere, what is left is the config's own.
        let sample: String = places
            .iter()
            .map(|place| match place {
                Place::Text(text) => text.as_str(),
                Place::Value(_) | Place::Time(..) => "0",
            })
            .collect();
        place::check(&sample).map_err(wrong)?;
        if !places.iter().any(|place| !matches!(place, Place::Text(_))) {
            return Err(wrong(format!(
                "'{text}' is the same for all records: name a column, as in {{site}}.jsonl"
            )));
        }
        Ok(Self(places))
    }

    /// What all of its names begin with.
    pub(crate) fn fixed_start(&self) -> &str {
        match self.0.first() {
            Some(Place::Text(text)) => text,
            Some(Place::Value(_) | Place::Time(..)) | None => "",
        }
    }

    /// The name for a row, or why it has none. Not checked: see [`place::check`].
    pub(crate) fn fill(&self, batch: &Batch, row: usize) -> Result<String, String> {
        let mut name = String::new();
        for place in &self.0 {
            match place {
                Place::Text(text) => name.push_str(text),
                Place::Value(column) => {
                    let value = cell(batch, row, column).to_string();
                    if value.is_empty() {
                        return Err(format!("the file's name needs a value in column '{column}'"));
                    }
                    name.push_str(&value);
                }
                Place::Time(column, span) => {
                    let time = time(cell(batch, row, column))
                        .ok_or_else(|| format!("the file's name needs a time in column '{column}'"))?;
                    name.push_str(&span.of(&time));
                }
            }
        }
        Ok(name)
    }
}

fn place_of(piece: Piece) -> Place {
    match piece {
        Piece::Text(text) => Place::Text(text),
        Piece::Column(column) => {
            let span = column.rsplit_once(':').and_then(|(column, span)| {
                let span = match span {
                    "year" => Span::Year,
                    "month" => Span::Month,
                    "date" => Span::Date,
                    "hour" => Span::Hour,
                    _ => return None,
                };
                Some((column.to_string(), span))
            });
            span.map_or(Place::Value(column), |(column, span)| Place::Time(column, span))
        }
    }
}

fn cell<'a>(batch: &'a Batch, row: usize, column: &str) -> Cell<'a> {
    let column = batch.schema().index_of(column);
    column.map_or(Cell::Missing, |column| batch.cell(row, column))
}

/// A time as text, in UTC where its zone is known: `2026-01-31T10:00:00Z`, or a day without time. A text counts when it is
/// one; one without a zone is taken as it is.
fn time(cell: Cell<'_>) -> Option<String> {
    let text = match cell {
        Cell::Date(_) | Cell::Timestamp(_) | Cell::TimestampUtc(_) => cell.to_string(),
        Cell::TimestampOffset(nanos, _) => Cell::TimestampUtc(nanos).to_string(),
        Cell::Text(text) => parse(text, &Type::Timestamp(Zone::Utc)).ok()?.as_cell().to_string(),
        _ => return None,
    };
    // Outside every calendar it is only a number.
    text.contains('-').then_some(text)
}

impl Span {
    fn of(self, time: &str) -> String {
        let (date, clock) = time.split_once('T').unwrap_or((time, "00"));
        let month = date.rsplit_once('-').map_or(date, |(month, _)| month);
        match self {
            Self::Year => month.rsplit_once('-').map_or(month, |(year, _)| year).to_string(),
            Self::Month => month.to_string(),
            Self::Date => date.to_string(),
            Self::Hour => format!("{date}T{}", clock.split(':').next().unwrap_or("00")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bus_schema::data::{BatchBuilder, Field, Op, Origin, Schema, Value};

    use super::*;

    fn name(template: &str, value: Value) -> Result<String, String> {
        let schema = Schema {
            collection: "t".into(),
            fields: vec![Field::new("v", Type::Any)],
        };
        let mut builder = BatchBuilder::new(Arc::new(schema));
        builder.push(Op::Insert, &[value.as_cell()]).unwrap();
        let template = NameTemplate::parse(template, "partition").unwrap();
        template.fill(&builder.finish(Origin::default()), 0)
    }

    #[test]
    fn names() {
        const AT: i128 = 1_769_853_600_123_000_000;
        let text = |text: &str| Value::Text(text.into());
        for (template, value, wanted) in [
            ("a/{v}.csv", text("x"), "a/x.csv"),
            ("{v}", Value::I64(-7), "-7"),
            ("{v:date}.x", Value::TimestampUtc(AT), "2026-01-31.x"),
            ("{v:hour}", Value::TimestampUtc(AT), "2026-01-31T10"),
            ("{v:month}", Value::Timestamp(AT), "2026-01"),
            ("{v:year}/{v:month}", Value::Date(0), "1970/1970-01"),
            ("{v:hour}", Value::Date(0), "1970-01-01T00"),
            // Days are those of UTC.
            (
                "{v:date}",
                Value::TimestampOffset(AT - 3 * 3_600_000_000_000 * 4, 720),
                "2026-01-30",
            ),
            ("{v:date}", text("2026-01-31T23:30:00-02:00"), "2026-02-01"),
            ("{v:date}", text("2026-01-31"), "2026-01-31"),
            ("{v:date}", Value::TimestampUtc(-1), "1969-12-31"),
            (
                "{v:zone}",
                Value::Missing,
                "!the file's name needs a value in column 'v:zone'",
            ),
            ("{v}", Value::Null, "!the file's name needs a value in column 'v'"),
            ("{v}", text(""), "!the file's name needs a value in column 'v'"),
            (
                "{v:date}",
                text("yesterday"),
                "!the file's name needs a time in column 'v'",
            ),
            ("{v:date}", Value::I64(1), "!the file's name needs a time in column 'v'"),
        ] {
            let found = name(template, value.clone()).unwrap_or_else(|cause| format!("!{cause}"));
            assert_eq!(found, wanted, "{template} {value:?}");
        }
    }

    #[test]
    fn mistakes() {
        for (template, wanted) in [
            ("", "is no name"),
            ("x.csv", "is the same for all records"),
            ("../{v}", "begins with a dot"),
            ("/{v}", "a part of it is empty"),
            ("{v", "without }"),
            ("{}", "without the name"),
            ("a:{v}", "cannot stand in it"),
        ] {
            let error = NameTemplate::parse(template, "partition").unwrap_err();
            assert_eq!(error.key, "partition");
            assert!(error.message.contains(wanted), "{template}: {error}");
        }
    }
}
