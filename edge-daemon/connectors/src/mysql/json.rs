//! Documents of MySQL's type JSON as they are in the log (`sql-common/json_binary.h`), as the text that the server would write.
//! Pure.
//!
//! MySQL keeps values in a document that JSON has no form for: decimals and moments, which it writes as a number or a text, and
//! bytes, which it writes as `base64:type` with the number of the column's type (`sql-common/json_dom.cc`).

use std::io;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use mysql_common::{
    binlog::jsonb::{ObjectKey, OpaqueValue, Value},
    constants::ColumnType,
    io::ParseBuf,
    proto::MyDeserialize as _,
};

use super::{
    bytes::{Broken, Bytes},
    value::{decimal, written},
};

const BROKEN: Broken = Broken("document");
/// How deep documents of the server are at most.
const DEPTH_MAX: usize = 100;
/// Characters of base64 after which the server begins another line.
const LINE_CHARS: usize = 76;

/// Appends the text of a document.
pub(super) fn json(document: &[u8], out: &mut Vec<u8>) -> Result<(), Broken> {
    // An empty one is what an update by IGNORE leaves: null.
    if document.is_empty() {
        return written(out, format_args!("null"));
    }
    let document = Value::deserialize((), &mut ParseBuf(document)).map_err(|_| BROKEN)?;
    value(&document, 0, out)
}

fn value(found: &Value<'_>, depth: usize, out: &mut Vec<u8>) -> Result<(), Broken> {
    if depth > DEPTH_MAX {
        return Err(BROKEN);
    }
    match found {
        Value::SmallArray(list) => items(list.iter(), depth, out),
        Value::LargeArray(list) => items(list.iter(), depth, out),
        Value::SmallObject(object) => members(object.iter(), depth, out),
        Value::LargeObject(object) => members(object.iter(), depth, out),
        Value::Opaque(opaque) => other(opaque, out),
        simple => {
            let simple = serde_json::Value::try_from(simple.clone()).map_err(|_| BROKEN)?;
            written(out, format_args!("{simple}"))
        }
    }
}

fn items<'a>(
    items: impl Iterator<Item = io::Result<Value<'a>>>,
    depth: usize,
    out: &mut Vec<u8>,
) -> Result<(), Broken> {
    out.push(b'[');
    for (index, item) in items.enumerate() {
        out.extend_from_slice(if index > 0 { b", " } else { b"" });
        value(&item.map_err(|_| BROKEN)?, depth + 1, out)?;
    }
    out.push(b']');
    Ok(())
}

fn members<'a>(
    members: impl Iterator<Item = io::Result<(ObjectKey<'a>, Value<'a>)>>,
    depth: usize,
    out: &mut Vec<u8>,
) -> Result<(), Broken> {
    out.push(b'{');
    for (index, member) in members.enumerate() {
        let (key, found) = member.map_err(|_| BROKEN)?;
        let key = std::str::from_utf8(key.value_raw()).map_err(|_| BROKEN)?;
        out.extend_from_slice(if index > 0 { b", " } else { b"" });
        text(key, out)?;
        out.extend_from_slice(b": ");
        value(&found, depth + 1, out)?;
    }
    out.push(b'}');
    Ok(())
}

fn text(text: &str, out: &mut Vec<u8>) -> Result<(), Broken> {
    serde_json::to_writer(out, text).map_err(|_| BROKEN)
}

/// What JSON has no form for.
fn other(opaque: &OpaqueValue<'_>, out: &mut Vec<u8>) -> Result<(), Broken> {
    let bytes = opaque.data_raw();
    match opaque.value_type() {
        ColumnType::MYSQL_TYPE_NEWDECIMAL => {
            let mut bytes = Bytes::new(bytes, "decimal in a document");
            let (precision, scale) = (small(&mut bytes)?, small(&mut bytes)?);
            decimal(&mut bytes, precision, scale, out)?;
            if bytes.is_empty() { Ok(()) } else { Err(BROKEN) }
        }
        ColumnType::MYSQL_TYPE_DATE => {
            let (date, ..) = Packed::of(bytes)?.date();
            written(out, format_args!("\"{date}\""))
        }
        ColumnType::MYSQL_TYPE_DATETIME | ColumnType::MYSQL_TYPE_TIMESTAMP => {
            let packed = Packed::of(bytes)?;
            let (date, clock) = packed.date();
            written(out, format_args!("\"{date} {}\"", packed.clock(clock)))
        }
        ColumnType::MYSQL_TYPE_TIME => {
            let packed = Packed::of(bytes)?;
            let sign = if packed.is_negative { "-" } else { "" };
            // Ten bits of hours.
            written(
                out,
                format_args!("\"{sign}{}\"", packed.clock(packed.whole & 0x3f_ffff)),
            )
        }
        ty => {
            let encoded = STANDARD.encode(bytes);
            let lines: Vec<&str> = encoded
                .as_bytes()
                .chunks(LINE_CHARS)
                .filter_map(|line| std::str::from_utf8(line).ok())
                .collect();
            text(&format!("base64:type{}:{}", ty as u8, lines.join("\n")), out)
        }
    }
}

fn small(bytes: &mut Bytes<'_>) -> Result<u8, Broken> {
    u8::try_from(bytes.number(1)?).map_err(|_| BROKEN)
}

/// A moment as one number (`TIME_to_longlong_packed` in `mysys/my_time.cc`): years and months as one number, days, hours,
/// minutes and seconds in bits of their own, and 24 bits of microseconds.
struct Packed {
    is_negative: bool,
    /// Without the microseconds.
    whole: u64,
    micros: u64,
}

impl Packed {
    fn of(bytes: &[u8]) -> Result<Self, Broken> {
        let number = i64::from_le_bytes(bytes.try_into().map_err(|_| BROKEN)?);
        let size = number.unsigned_abs();
        let micros = size & 0xff_ffff;
        if micros >= 1_000_000 {
            return Err(BROKEN);
        }
        Ok(Self {
            is_negative: number < 0,
            whole: size >> 24,
            micros,
        })
    }

    /// The date, and what is left of the number.
    fn date(&self) -> (String, u64) {
        let (days, clock) = (self.whole >> 17, self.whole & 0x1_ffff);
        let months = days >> 5;
        let date = format!("{:04}-{:02}-{:02}", months / 13, months % 13, days & 31);
        (date, clock)
    }

    /// The time of day that stands in these bits, with all of its microseconds.
    fn clock(&self, bits: u64) -> String {
        let (hours, minutes, seconds) = (bits >> 12, bits >> 6 & 63, bits & 63);
        format!("{hours:02}:{minutes:02}:{seconds:02}.{:06}", self.micros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(document: &[u8]) -> Result<String, Broken> {
        let mut out = Vec::new();
        json(document, &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    /// A document that is nothing else than this, by `serialize_opaque`: a mark, the column's type, how many bytes, and these.
    fn opaque(ty: u8, bytes: &[u8]) -> Vec<u8> {
        let mut document = vec![0x0f, ty, u8::try_from(bytes.len()).unwrap()];
        document.extend_from_slice(bytes);
        document
    }

    /// As `TIME_to_longlong_datetime_packed` does it.
    fn packed([year, month, day]: [i64; 3], [hour, minute, second, micro]: [i64; 4]) -> [u8; 8] {
        let date = ((year * 13 + month) << 5) | day;
        let time = (hour << 12) | (minute << 6) | second;
        ((((date << 17) | time) << 24) + micro).to_le_bytes()
    }

    #[test]
    fn what_json_has_no_form_for_is_as_the_server_writes_it() {
        let time = |sign: i64, hms: [i64; 3], micro: i64| {
            let size = i64::from_le_bytes(packed([0; 3], [hms[0], hms[1], hms[2], micro]));
            (sign * size).to_le_bytes()
        };
        let new_year = [2024, 1, 2];
        for (ty, bytes, wanted) in [
            // Digits, of which some are behind the point, and the decimal.
            (246, &[3, 2, 0x81, 0x32][..], "1.50"),
            (246, &[3, 2, 0x7e, 0xcd], "-1.50"),
            (246, &[2, 2, 0x85], "0.05"),
            (246, &[1, 0, 0x87], "7"),
            (246, &[10, 0, 0x81, 0, 0, 0, 7], "1000000007"),
            (10, &packed(new_year, [0; 4]), "\"2024-01-02\""),
            (10, &packed([0; 3], [0; 4]), "\"0000-00-00\""),
            (12, &packed(new_year, [3, 4, 5, 0]), "\"2024-01-02 03:04:05.000000\""),
            (
                7,
                &packed([9999, 12, 31], [23, 59, 59, 999_999]),
                "\"9999-12-31 23:59:59.999999\"",
            ),
            (11, &time(1, [3, 4, 5], 0), "\"03:04:05.000000\""),
            (11, &time(-1, [838, 59, 59], 1), "\"-838:59:59.000001\""),
            // Bytes and bits.
            (15, b"\0\xff", "\"base64:type15:AP8=\""),
            (16, b"\x05", "\"base64:type16:BQ==\""),
            (252, b"", "\"base64:type252:\""),
        ] {
            assert_eq!(text_of(&opaque(ty, bytes)), Ok(wanted.to_string()), "{ty} {bytes:?}");
        }
        // The layout by hand: 2015-01-15 23:24:25.000012.
        let number: i64 = (((2015 * 13 + 1) << 5 | 15) << 17 | 23 << 12 | 24 << 6 | 25) << 24 | 12;
        assert_eq!(number.to_le_bytes(), [12, 0, 0, 0x19, 0x76, 0x1f, 0x95, 0x19]);
        let lines = format!("\"base64:type252:{}\\n{}\"", "AAAA".repeat(19), "AAAA");
        assert_eq!(text_of(&opaque(252, &[0; 60])), Ok(lines));
    }

    #[test]
    fn whatever_is_in_it_has_its_place() {
        // `{"a": 1, "b": [1.50, "x"]}`: small offsets, from the beginning of each object or list.
        let list = [
            &[2, 0, 19, 0][..],
            &[0x0f, 10, 0],
            &[0x0c, 16, 0],
            &[246, 4, 3, 2, 0x81, 0x32],
            &[1, b'x', 0],
        ]
        .concat();
        let document = [
            &[0x00][..],
            &[2, 0, 39, 0],
            &[18, 0, 1, 0],
            &[19, 0, 1, 0],
            &[0x05, 1, 0],
            &[0x02, 20, 0],
            b"ab",
            &list,
        ]
        .concat();
        assert_eq!(text_of(&document), Ok(r#"{"a": 1, "b": [1.50, "x"]}"#.to_string()));
        assert_eq!(text_of(b""), Ok("null".to_string()));
        assert_eq!(text_of(b"\x04\x01"), Ok("true".to_string()));
        assert_eq!(text_of(b"\x0c\x03\"\n\xc3"), Err(BROKEN));
        assert_eq!(text_of(b"\x0c\x02\"\n"), Ok(r#""\"\n""#.to_string()));
    }

    #[test]
    fn what_is_damaged_is_no_value() {
        for (ty, bytes) in [
            (246, &[][..]),
            (246, &[3]),
            (246, &[3, 2, 0x81]),
            (246, &[3, 2, 0x81, 0x32, 0]),
            (246, &[2, 3, 0x81, 0x32]),
            (10, &[0; 7]),
            (12, &[0; 9]),
            (12, &[0xff, 0xff, 0xff, 0, 0, 0, 0, 0]),
        ] {
            assert!(text_of(&opaque(ty, bytes)).is_err(), "{ty} {bytes:?}");
        }
        // Shorter than it says.
        assert!(text_of(&[0x0f, 246, 5, 3, 2, 0x81, 0x32]).is_err());
        // Lists in lists: each has one item, which begins seven bytes further.
        let deep = |levels: u16| {
            let mut document = vec![0x02];
            for level in 0..levels {
                let size = 7 * (levels - level) + 4;
                document.extend([1, 0]);
                document.extend(size.to_le_bytes());
                document.extend([0x02, 7, 0]);
            }
            document.extend([0, 0, 4, 0]);
            document
        };
        assert_eq!(text_of(&deep(3)), Ok("[[[[]]]]".to_string()));
        assert!(text_of(&deep(100)).is_ok());
        assert!(text_of(&deep(101)).is_err());
    }
}
