//! When a record happened, by the record itself.

use bus_schema::data::{Cell, Value, Zone};

use crate::text::{shorten, timestamp};

pub(crate) const MILLI_NANOS: i64 = 1_000_000;

/// Nanoseconds since 1970 of the time in a record's column `name`, and whether it is one without a zone. Texts are read as
/// ISO 8601, without a zone as UTC. An error is the reason to reject the record.
pub(crate) fn moment(cell: Cell<'_>, name: &str) -> Result<(i64, bool), String> {
    let (nanos, is_naive) = match cell {
        Cell::Timestamp(nanos) => (nanos, true),
        Cell::TimestampUtc(nanos) | Cell::TimestampOffset(nanos, _) => (nanos, false),
        Cell::Text(text) => match timestamp(text, Zone::Utc) {
            Some(Value::TimestampUtc(nanos)) => (nanos, false),
            _ => return Err(format!("column '{name}' is no time: '{}'", shorten(text))),
        },
        cell if cell.is_value() => {
            let shown = shorten(&cell.to_string());
            return Err(format!(
                "column '{name}' is no time: '{shown}'; make it one with 'cast' before"
            ));
        }
        _ => return Err(format!("the record has no time in '{name}'")),
    };
    let nanos =
        i64::try_from(nanos).map_err(|_| format!("the time in '{name}' lies outside the years 1678 to 2261"))?;
    Ok((nanos, is_naive))
}
