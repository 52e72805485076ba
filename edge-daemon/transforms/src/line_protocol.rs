//! InfluxDB's line protocol: reading one line, `measurement,tag=value field=1i,other="text" 1700000000000000000`.
//! After InfluxData, "Line protocol reference" (InfluxDB OSS v2). Writing one is in `line`.

use bus_schema::data::Value;

use crate::{
    line::{ESCAPED, Precision},
    spread::{FIELDS_MAX, Found},
    text::shorten,
};

/// The column with the name of a measurement that is read.
const MEASUREMENT: &str = "measurement";
/// The column with the time of a line that is read.
const TIME: &str = "time";
/// The measurement, the tags, the fields and the time of a line.
pub(crate) fn read(line: &str, precision: Precision) -> Result<Found, String> {
    let wrong = |what: &str| format!("is no line protocol: {what} in '{}'", shorten(line));
    let mut scanner = Scanner { rest: line.trim() };
    let measurement = scanner.token(", ", ", ");
    if measurement.is_empty() || measurement.starts_with('#') {
        return Err(wrong("there is no measurement"));
    }
    let mut found = vec![(MEASUREMENT.to_string(), Value::Text(measurement))];
    while scanner.takes(',') {
        let name = scanner.token("=, ", ESCAPED);
        if !scanner.takes('=') {
            return Err(wrong("a tag has no value"));
        }
        let value = scanner.token(", ", ESCAPED);
        push(&mut found, name, Value::Text(value))?;
    }
    if !scanner.takes(' ') {
        return Err(wrong("there are no fields"));
    }
    loop {
        let name = scanner.token("=, ", ESCAPED);
        if !scanner.takes('=') {
            return Err(wrong("a field has no value"));
        }
        let value = scanner
            .value()
            .ok_or_else(|| wrong("a field has no value that can be read"))?;
        push(&mut found, name, value)?;
        if !scanner.takes(',') {
            break;
        }
    }
    if !scanner.rest.is_empty() {
        let ticks: Option<i128> = scanner
            .takes(' ')
            .then(|| scanner.rest.trim().parse::<i64>().ok())
            .flatten()
            .map(i128::from);
        let ticks = ticks.ok_or_else(|| wrong("the time is no whole number"))?;
        push(
            &mut found,
            TIME.to_string(),
            Value::TimestampUtc(ticks * precision.nanos()),
        )?;
    }
    Ok(found)
}

fn push(found: &mut Found, name: String, value: Value) -> Result<(), String> {
    if found.len() >= FIELDS_MAX {
        return Err(format!("has more than {FIELDS_MAX} fields"));
    }
    found.push((name, value));
    Ok(())
}

struct Scanner<'a> {
    rest: &'a str,
}

impl Scanner<'_> {
    fn takes(&mut self, char: char) -> bool {
        let after = self.rest.strip_prefix(char);
        self.rest = after.unwrap_or(self.rest);
        after.is_some()
    }

    /// Everything up to one of `stops` that no backslash stands before. Before anything but those `escaped` a backslash is one.
    fn token(&mut self, stops: &str, escaped: &str) -> String {
        let mut out = String::new();
        let mut chars = self.rest.char_indices().peekable();
        while let Some((at, char)) = chars.next() {
            if stops.contains(char) {
                self.rest = &self.rest[at..];
                return out;
            }
            match chars.peek() {
                Some((_, next)) if char == '\\' && escaped.contains(*next) => {
                    out.push(*next);
                    chars.next();
                }
                _ => out.push(char),
            }
        }
        self.rest = "";
        out
    }

    fn value(&mut self) -> Option<Value> {
        if self.takes('"') {
            return self.quoted().map(Value::Text);
        }
        let text = self.token(", ", ESCAPED);
        Some(match text.as_str() {
            "t" | "T" | "true" | "True" | "TRUE" => Value::Bool(true),
            "f" | "F" | "false" | "False" | "FALSE" => Value::Bool(false),
            text => match text.as_bytes().last()? {
                b'i' => Value::I64(text[..text.len() - 1].parse().ok()?),
                b'u' => Value::U64(text[..text.len() - 1].parse().ok()?),
                _ => Value::F64(text.parse().ok().filter(|float: &f64| float.is_finite())?),
            },
        })
    }

    fn quoted(&mut self) -> Option<String> {
        let mut out = String::new();
        let mut chars = self.rest.char_indices().peekable();
        while let Some((at, char)) = chars.next() {
            match (char, chars.peek()) {
                ('"', _) => {
                    self.rest = &self.rest[at + 1..];
                    return Some(out);
                }
                ('\\', Some((_, escaped @ ('"' | '\\')))) => {
                    out.push(*escaped);
                    chars.next();
                }
                _ => out.push(char),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use bus_schema::data::Cell;

    use super::*;
    use crate::line::Line;

    fn shown(line: &str, precision: Precision) -> String {
        match read(line, precision) {
            Ok(found) => {
                let shown = found.iter().map(|(name, value)| format!("{name}={}", value.as_cell()));
                shown.collect::<Vec<_>>().join("|")
            }
            Err(_) => "-".to_string(),
        }
    }

    #[test]
    fn lines_are_read() {
        for (line, precision, wanted) in [
            ("m f=1", Precision::Nanos, "measurement=m|f=1.0"),
            (
                "my\\ m,a\\=b=c\\,d f=1i,g=2u,h=t,s=\"x\\\" y,\" 1500",
                Precision::Millis,
                "measurement=my m|a=b=c,d|f=1|g=2|h=true|s=x\" y,|time=1970-01-01T00:00:01.500Z",
            ),
            (
                "m,t=1 f=1e3 -1",
                Precision::Seconds,
                "measurement=m|t=1|f=1000.0|time=1969-12-31T23:59:59Z",
            ),
            ("m", Precision::Nanos, "-"),
            ("m,t f=1", Precision::Nanos, "-"),
            ("m f", Precision::Nanos, "-"),
            ("m f=x", Precision::Nanos, "-"),
            ("m f=1.5i", Precision::Nanos, "-"),
            ("m f=nan", Precision::Nanos, "-"),
            ("m f=\"x", Precision::Nanos, "-"),
            ("m f=1 x", Precision::Nanos, "-"),
            ("m f=1 1 2", Precision::Nanos, "-"),
            ("# m f=1", Precision::Nanos, "-"),
            ("", Precision::Nanos, "-"),
        ] {
            assert_eq!(shown(line, precision), wanted, "{line}");
        }
    }

    #[test]
    fn what_cannot_be_said_is_refused() {
        let line = || Line::of("m").unwrap();
        assert!(Line::of("").is_err() && Line::of("a\\").is_err() && Line::of("a\nb").is_err());
        assert!(line().field("f", Cell::F64(f64::NAN)).is_err());
        assert!(line().field("f", Cell::Decimal(i128::MAX, 3)).is_err());
        assert!(line().finish(Cell::Null, Precision::Nanos).is_err());
        let mut timed = line();
        timed.field("f", Cell::Bool(true)).unwrap();
        assert!(timed.finish(Cell::Timestamp(0), Precision::Nanos).is_err());
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_is_read(measurement in "[a-z ,=\\\\]{0,5}[a-z]", tag in "[a-z ,=\\\\é]{0,5}[a-z]",
                                   text in "[^\\n\\r]*", int: i64, unsigned: u64, float in -1e300..1e300f64, time: i64) {
            let mut line = Line::of(&measurement).unwrap();
            line.tag("a b", Cell::Text(&tag)).unwrap();
            let fields = [Value::Text(text), Value::I64(int), Value::U64(unsigned), Value::F64(float), Value::Bool(true)];
            for (index, value) in fields.iter().enumerate() {
                line.field(&format!("f={index}"), value.as_cell()).unwrap();
            }
            let written = line.finish(Cell::TimestampUtc(i128::from(time)), Precision::Nanos).unwrap();
            let mut wanted = vec![("measurement".to_string(), Value::Text(measurement)), ("a b".to_string(), Value::Text(tag))];
            wanted.extend(fields.into_iter().enumerate().map(|(index, value)| (format!("f={index}"), value)));
            wanted.push(("time".to_string(), Value::TimestampUtc(i128::from(time))));
            proptest::prop_assert_eq!(read(&written, Precision::Nanos), Ok(wanted), "{}", written);
        }

        #[test]
        fn any_line_is_read_or_refused(line in "[a-c,= \\\\\"0-9itu.\\n]{0,40}") {
            if let Ok(found) = read(&line, Precision::Nanos) {
                proptest::prop_assert!(found.len() >= 2, "{}", line);
            }
        }
    }
}
