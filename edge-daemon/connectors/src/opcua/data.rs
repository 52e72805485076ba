//! Values as servers send them, and as records hold them (OPC 10000-6, 5.2.2). Performs no I/O.

use bus_schema::data::Value;

use super::{
    node::{NodeId, guid},
    status::Status,
    wire::{Reader, WireError},
};
use crate::list::{cell_json, list_json};

/// Deepest nesting of values in values.
const DEPTH_MAX: u32 = 16;
/// 1970 in times of the protocol, which count tenths of microseconds from 1601 on.
const EPOCH_TICKS: i64 = 116_444_736_000_000_000;
/// Nanoseconds of such a tenth.
const TICK_NS: i128 = 100;
/// Picoseconds are given in tens of them.
const PICOSECOND_TENS_PER_NS: u16 = 100;
/// Set in a variant's first byte: a list of values.
const IS_LIST: u8 = 0x80;
/// Set there as well: how they are arranged follows.
const HAS_DIMENSIONS: u8 = 0x40;

/// A value with what the server knows about it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Datum {
    /// Null when there is none.
    pub value: Value,
    pub status: Status,
    /// When the device had it, in nanoseconds since 1970.
    pub source_ns: Option<i128>,
    /// When the server saw that.
    pub server_ns: Option<i128>,
}

/// Reads a value and what is known about it.
pub(super) fn datum(from: &mut Reader<'_>) -> Result<Datum, WireError> {
    datum_at(from, 0)
}

fn datum_at(from: &mut Reader<'_>, depth: u32) -> Result<Datum, WireError> {
    let mask = from.u8()?;
    let has = |bit: u8| mask & bit != 0;
    let value = if has(0x01) { variant(from, depth)? } else { Value::Null };
    let status = if has(0x02) { Status(from.u32()?) } else { Status::GOOD };
    let mut time = |ticks: u8, picoseconds: u8| -> Result<Option<i128>, WireError> {
        let ns = if has(ticks) { time_ns(from.i64()?) } else { None };
        let more = if has(picoseconds) { from.u16()? } else { 0 };
        Ok(ns.map(|ns| ns + i128::from(more / PICOSECOND_TENS_PER_NS)))
    };
    let source_ns = time(0x04, 0x10)?;
    let server_ns = time(0x08, 0x20)?;
    Ok(Datum {
        value,
        status,
        source_ns,
        server_ns,
    })
}

/// `None`: none is given.
fn time_ns(ticks: i64) -> Option<i128> {
    (ticks > 0).then(|| (i128::from(ticks) - i128::from(EPOCH_TICKS)) * TICK_NS)
}

/// A time as the protocol has it.
pub(super) fn ticks(ns_since_1970: i128) -> i64 {
    i64::try_from(ns_since_1970 / TICK_NS).map_or(0, |ticks| ticks.saturating_add(EPOCH_TICKS))
}

fn variant(from: &mut Reader<'_>, depth: u32) -> Result<Value, WireError> {
    if depth > DEPTH_MAX {
        return Err(WireError::Deep);
    }
    let first = from.u8()?;
    let kind = first & !(IS_LIST | HAS_DIMENSIONS);
    if first & IS_LIST == 0 {
        return scalar(kind, from, depth);
    }
    let items = from.list(|from| scalar(kind, from, depth))?;
    let dimensions = if first & HAS_DIMENSIONS != 0 {
        from.list(Reader::u32)?
    } else {
        Vec::new()
    };
    Ok(Value::Json(arranged(&items, &dimensions)))
}

/// Values as a JSON array, of arrays if they have several dimensions.
fn arranged(items: &[Value], dimensions: &[u32]) -> String {
    let sizes: Vec<usize> = dimensions.iter().map(|size| *size as usize).collect();
    let count = sizes.iter().try_fold(1, |count: usize, size| count.checked_mul(*size));
    if sizes.len() < 2 || count != Some(items.len()) || items.is_empty() {
        return list_json(items);
    }
    let mut parts: Vec<String> = items.iter().map(|item| cell_json(item.as_cell())).collect();
    // From the inside out; what is left at the end is the whole.
    for size in sizes.iter().rev() {
        parts = parts
            .chunks(*size)
            .map(|part| format!("[{}]", part.join(",")))
            .collect();
    }
    parts.concat()
}

fn scalar(kind: u8, from: &mut Reader<'_>, depth: u32) -> Result<Value, WireError> {
    let text = |text: Option<&str>| text.map_or(Value::Null, |text| Value::Text(text.to_string()));
    Ok(match kind {
        0 => Value::Null,
        1 => Value::Bool(from.u8()? != 0),
        2 => Value::I64(i8::from_le_bytes(from.array()?).into()),
        3 => Value::I64(from.u8()?.into()),
        4 => Value::I64(i16::from_le_bytes(from.array()?).into()),
        5 => Value::I64(from.u16()?.into()),
        6 => Value::I64(i32::from_le_bytes(from.array()?).into()),
        7 => Value::I64(from.u32()?.into()),
        8 => Value::I64(from.i64()?),
        9 => Value::U64(from.u64()?),
        10 => Value::F32(f32::from_le_bytes(from.array()?)),
        11 => Value::F64(from.f64()?),
        12 | 16 => text(from.text()?),
        13 => time_ns(from.i64()?).map_or(Value::Null, Value::TimestampUtc),
        14 => Value::Uuid(guid(from)?),
        15 => from.bytes()?.map_or(Value::Null, |bytes| Value::Bytes(bytes.to_vec())),
        17 => Value::Text(NodeId::read(from)?.to_string()),
        18 => Value::Text(NodeId::read_expanded(from)?.to_string()),
        19 => Value::Text(Status(from.u32()?).to_string()),
        20 => {
            let (namespace, name) = (from.u16()?, from.text()?.unwrap_or_default());
            Value::Text(format!("{namespace}:{name}"))
        }
        21 => text(localized(from)?),
        22 => {
            let (ty, body) = extension(from)?;
            let body = body.map_or(Value::Null, |body| Value::Bytes(body.to_vec()));
            let ty = Value::Text(ty.to_string());
            Value::Json(format!(
                "{{\"type\":{},\"body\":{}}}",
                cell_json(ty.as_cell()),
                cell_json(body.as_cell())
            ))
        }
        23 => datum_at(from, depth + 1)?.value,
        24 => variant(from, depth + 1)?,
        25 => {
            diagnostics(from, depth)?;
            Value::Null
        }
        _ => return Err(WireError::Unknown(format!("a value of type {kind}"))),
    })
}

/// A text in one of several languages.
pub(super) fn localized<'a>(from: &mut Reader<'a>) -> Result<Option<&'a str>, WireError> {
    let mask = from.u8()?;
    if mask & 1 != 0 {
        from.text()?;
    }
    if mask & 2 != 0 { from.text() } else { Ok(None) }
}

/// Something of a type that one has to know: the type's encoding, and its bytes.
pub(super) fn extension<'a>(from: &mut Reader<'a>) -> Result<(NodeId, Option<&'a [u8]>), WireError> {
    let ty = NodeId::read(from)?;
    let body = match from.u8()? {
        0 => None,
        1 | 2 => from.bytes()?,
        other => return Err(WireError::Unknown(format!("an encoding {other}"))),
    };
    Ok((ty, body))
}

/// Passes over what a server says about an error.
pub(super) fn diagnostics(from: &mut Reader<'_>, depth: u32) -> Result<(), WireError> {
    if depth > DEPTH_MAX {
        return Err(WireError::Deep);
    }
    let mask = from.u8()?;
    for bit in [0x01, 0x02, 0x04, 0x08] {
        if mask & bit != 0 {
            from.u32()?;
        }
    }
    if mask & 0x10 != 0 {
        from.text()?;
    }
    if mask & 0x20 != 0 {
        from.u32()?;
    }
    if mask & 0x40 != 0 {
        diagnostics(from, depth + 1)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8]) -> String {
        let mut reader = Reader::new(bytes);
        let value = variant(&mut reader, 0).map(|value| value.as_cell().to_string());
        assert!(value.is_err() || reader.rest().is_empty());
        value.unwrap_or_else(|error| error.to_string())
    }

    #[test]
    fn values() {
        for (bytes, wanted) in [
            (&[1, 1][..], "true"),
            (&[2, 0xff], "-1"),
            (&[3, 0xff], "255"),
            (&[6, 0xfe, 0xff, 0xff, 0xff], "-2"),
            (&[12, 2, 0, 0, 0, 0xc3, 0xa4], "ä"),
            (&[13, 0, 0x80, 0x3e, 0xd5, 0xde, 0xb1, 0x9d, 1], "1970-01-01T00:00:00Z"),
            (&[20, 2, 0, 1, 0, 0, 0, b'q'], "2:q"),
            (&[21, 3, 1, 0, 0, 0, b'd', 1, 0, 0, 0, b't'], "t"),
            (&[24, 1, 0], "false"),
            (&[0x83, 3, 0, 0, 0, 1, 2, 3], "[1,2,3]"),
            (&[0x83, 0xff, 0xff, 0xff, 0xff], "[]"),
            (
                &[0xc3, 4, 0, 0, 0, 1, 2, 3, 4, 2, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0],
                "[[1,2],[3,4]]",
            ),
            // Dimensions that do not agree are not believed.
            (&[0xc3, 2, 0, 0, 0, 1, 2, 2, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0], "[1,2]"),
            (&[22, 0, 7, 1, 1, 0, 0, 0, 0xab], r#"{"type":"i=7","body":"ab"}"#),
            (&[26], "the message has a value of type 26, which is not known"),
            (&[24; 40], "the message is nested too deeply"),
            (&[7, 1, 2], "the message ends where there should be more"),
        ] {
            assert_eq!(read(bytes), wanted, "{bytes:x?}");
        }
    }

    #[test]
    fn what_is_known_about_a_value() {
        let mut bytes = vec![0x3f, 1, 1];
        bytes.extend(0x8034_0480_u32.to_le_bytes());
        bytes.extend((EPOCH_TICKS + 3).to_le_bytes());
        bytes.extend(250_u16.to_le_bytes());
        bytes.extend((EPOCH_TICKS - 1).to_le_bytes());
        bytes.extend(0_u16.to_le_bytes());
        let datum = datum(&mut Reader::new(&bytes)).unwrap();
        assert_eq!((datum.source_ns, datum.server_ns), (Some(302), Some(-100)));
        assert_eq!(datum.status.to_string(), "BadNodeIdUnknown (overflow)");
        assert_eq!(ticks(302), EPOCH_TICKS + 3);
    }

    proptest! {
        /// Whatever a server sends: no panic, and no more memory than it took to send it.
        #[test]
        fn anything_may_come(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = datum(&mut Reader::new(&bytes));
            let _ = variant(&mut Reader::new(&bytes), 0);
            let _ = diagnostics(&mut Reader::new(&bytes), 0);
        }
    }
}
