//! Values of the binary log as the server would write them in the text protocol, in a session of UTC and utf8mb4: so a value
//! is the same whichever way it came, and `form` reads it. Pure.

use std::{
    io::Write as _,
    net::{Ipv4Addr, Ipv6Addr},
};

use super::{
    bytes::{Broken, Bytes},
    charset::Charset,
    json::json,
    table_map::{Column, ty},
};

/// Decimals are written in groups of nine digits; how many bytes the digits that are left over take.
const DIGITS_PER_GROUP: usize = 9;
const BYTES_OF_DIGITS: [usize; 10] = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4];
/// Most digits of the server's decimals, and of seconds after the point.
const DIGITS_MAX: u8 = 65;
const FRACTION_MAX: u8 = 6;

/// What is more to know of a column than the log says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Plain,
    /// MariaDB's types that are bytes in the log.
    Uuid,
    Inet4,
    Inet6,
    /// `binary(n)`: zeros at the end are not in the log.
    Padded(usize),
}

/// What is wrong with a document that cannot be read.
const NO_JSON: &str = "a JSON document that is damaged, or has a value in it of a form that is not known";

/// Why a value could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Misread {
    /// Where it ends is not known either.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// The value alone: `bytes` are behind it.
    #[error("{0}")]
    Value(&'static str),
}

/// How values of a column are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Writing {
    pub column: Column,
    pub charset: Charset,
    pub kind: Kind,
}

impl Writing {
    /// Reads one value from the front of `bytes`, and appends its text to `out`.
    pub(super) fn value(&self, bytes: &mut Bytes<'_>, out: &mut Vec<u8>) -> Result<(), Misread> {
        if self.column.ty != ty::JSON {
            return Ok(self.simple(bytes, out)?);
        }
        let document = lengthy(bytes, self.column.meta[0])?;
        // What follows it is found whatever is in it.
        json(document, out).map_err(|_| Misread::Value(NO_JSON))
    }

    fn simple(&self, bytes: &mut Bytes<'_>, out: &mut Vec<u8>) -> Result<(), Broken> {
        let column = &self.column;
        let [first, second] = column.meta;
        match column.ty {
            ty::TINY => integer(bytes, 1, column.unsigned, out),
            ty::SHORT => integer(bytes, 2, column.unsigned, out),
            ty::INT24 => integer(bytes, 3, column.unsigned, out),
            ty::LONG => integer(bytes, 4, column.unsigned, out),
            ty::LONGLONG => integer(bytes, 8, column.unsigned, out),
            ty::FLOAT => written(out, format_args!("{}", f32::from_bits(bytes.number(4)? as u32))),
            ty::DOUBLE => written(out, format_args!("{:?}", f64::from_bits(bytes.number(8)?))),
            ty::NEWDECIMAL => decimal(bytes, first, second, out),
            ty::YEAR => match bytes.number(1)? {
                0 => written(out, format_args!("0000")),
                year => written(out, format_args!("{}", 1900 + year)),
            },
            ty::DATE | ty::NEWDATE => {
                let day = bytes.number(3)?;
                written(
                    out,
                    format_args!("{:04}-{:02}-{:02}", day >> 9, day >> 5 & 15, day & 31),
                )
            }
            ty::TIME2 => time(bytes, first, out),
            ty::DATETIME2 => datetime(bytes, first, out),
            ty::TIMESTAMP2 => timestamp(bytes, first, out),
            ty::BIT => {
                // Whole bytes, and the bits that are left over.
                let count = usize::from(second) + usize::from(first > 0);
                out.extend_from_slice(bytes.take(count)?);
                Ok(())
            }
            ty::ENUM => self.name(bytes, out),
            ty::SET => self.names(bytes, out),
            ty::VECTOR | ty::GEOMETRY | ty::TINY_BLOB..=ty::BLOB => self.text(lengthy(bytes, first)?, out),
            ty::VARCHAR | ty::VAR_STRING => {
                let max = u16::from_le_bytes(column.meta);
                self.text(lengthy(bytes, if max > 255 { 2 } else { 1 })?, out)
            }
            ty::STRING => self.text(lengthy(bytes, if column.fixed_bytes() > 255 { 2 } else { 1 })?, out),
            _ => Err(Broken("column of a type that is not known")),
        }
    }

    fn text(&self, value: &[u8], out: &mut Vec<u8>) -> Result<(), Broken> {
        let padded = |length: usize| {
            let mut bytes = value.to_vec();
            bytes.resize(length.max(value.len()), 0);
            bytes
        };
        match &self.kind {
            Kind::Plain => {
                self.charset.write(value, out);
                Ok(())
            }
            Kind::Padded(length) => {
                out.extend_from_slice(&padded(*length));
                Ok(())
            }
            Kind::Uuid => {
                let bytes: [u8; 16] = padded(16).try_into().map_err(|_| Broken("uuid"))?;
                uuid(bytes, out)
            }
            Kind::Inet4 => {
                let bytes: [u8; 4] = padded(4).try_into().map_err(|_| Broken("inet4"))?;
                written(out, format_args!("{}", Ipv4Addr::from(bytes)))
            }
            Kind::Inet6 => {
                let bytes: [u8; 16] = padded(16).try_into().map_err(|_| Broken("inet6"))?;
                inet6(bytes, out)
            }
        }
    }

    /// The name of a value of an enum; what was no value of it is 0, and empty.
    fn name(&self, bytes: &mut Bytes<'_>, out: &mut Vec<u8>) -> Result<(), Broken> {
        let number = bytes.number(usize::from(self.column.meta[1]))? as usize;
        if number > 0 {
            let name = self.column.values.get(number - 1).ok_or(Broken("value of an enum"))?;
            self.charset.write(name, out);
        }
        Ok(())
    }

    /// The names of a set's values, in their order.
    fn names(&self, bytes: &mut Bytes<'_>, out: &mut Vec<u8>) -> Result<(), Broken> {
        let bits = bytes.number(usize::from(self.column.meta[1].min(8)))?;
        let start = out.len();
        for index in (0..64).filter(|index| bits >> index & 1 == 1) {
            if out.len() > start {
                out.push(b',');
            }
            let name = self.column.values.get(index).ok_or(Broken("value of a set"))?;
            self.charset.write(name, out);
        }
        Ok(())
    }
}

pub(super) fn written(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) -> Result<(), Broken> {
    // Memory takes all of it.
    out.write_fmt(text).map_err(|_| Broken("value"))
}

fn integer(bytes: &mut Bytes<'_>, count: usize, unsigned: bool, out: &mut Vec<u8>) -> Result<(), Broken> {
    let number = bytes.number(count)?;
    if unsigned {
        return written(out, format_args!("{number}"));
    }
    let empty = 64 - 8 * count as u32;
    written(out, format_args!("{}", (number << empty).cast_signed() >> empty))
}

/// Bytes after their number, which itself takes `length` bytes.
fn lengthy<'a>(bytes: &mut Bytes<'a>, length: u8) -> Result<&'a [u8], Broken> {
    if !(1..=4).contains(&length) {
        return Err(Broken("length"));
    }
    let count = bytes.number(usize::from(length))? as usize;
    bytes.take(count)
}

/// `strings/decimal.c`: digits in groups of nine, the sign inverted in the first bit, negative numbers inverted as a whole.
pub(super) fn decimal(bytes: &mut Bytes<'_>, precision: u8, scale: u8, out: &mut Vec<u8>) -> Result<(), Broken> {
    let broken = Broken("decimal");
    if precision > DIGITS_MAX || scale > precision || precision == 0 {
        return Err(broken);
    }
    let (whole, fraction) = (usize::from(precision - scale), usize::from(scale));
    let size = |digits: usize| digits / DIGITS_PER_GROUP * 4 + BYTES_OF_DIGITS[digits % DIGITS_PER_GROUP];
    let mut raw = bytes.take(size(whole) + size(fraction))?.to_vec();
    let is_negative = raw.first().ok_or(broken)? & 0x80 == 0;
    raw[0] ^= 0x80;
    if is_negative {
        raw.iter_mut().for_each(|byte| *byte = !*byte);
    }
    let mut raw = Bytes::new(&raw, "decimal");
    let mut digits = String::new();
    let mut group = |digits: &mut String, count: usize| {
        let number = raw.big_endian(BYTES_OF_DIGITS[count])?;
        let text = format!("{number:0count$}");
        if text.len() > count {
            return Err(broken);
        }
        digits.push_str(&text);
        Ok(())
    };
    // The group that is not full comes first before the point, and last after it.
    if !whole.is_multiple_of(DIGITS_PER_GROUP) {
        group(&mut digits, whole % DIGITS_PER_GROUP)?;
    }
    (0..whole / DIGITS_PER_GROUP).try_for_each(|_| group(&mut digits, DIGITS_PER_GROUP))?;
    let mut after = String::new();
    (0..fraction / DIGITS_PER_GROUP).try_for_each(|_| group(&mut after, DIGITS_PER_GROUP))?;
    if !fraction.is_multiple_of(DIGITS_PER_GROUP) {
        group(&mut after, fraction % DIGITS_PER_GROUP)?;
    }
    let digits = match digits.trim_start_matches('0') {
        "" => "0",
        digits => digits,
    };
    let sign = if is_negative { "-" } else { "" };
    let point = if fraction > 0 { "." } else { "" };
    written(out, format_args!("{sign}{digits}{point}{after}"))
}

/// The fraction of a second, in as many digits as it has; one byte for two of them.
fn fraction(bytes: &mut Bytes<'_>, digits: u8, out: &mut Vec<u8>) -> Result<(), Broken> {
    if digits > FRACTION_MAX {
        return Err(Broken("time"));
    }
    let stored = digits.div_ceil(2);
    let number = bytes.big_endian(usize::from(stored))?;
    fraction_of(number, digits, out)
}

/// `number` has an even count of digits, of which the last may not be shown.
fn fraction_of(number: u64, digits: u8, out: &mut Vec<u8>) -> Result<(), Broken> {
    if digits == 0 {
        return Ok(());
    }
    let number = if digits % 2 == 1 { number / 10 } else { number };
    written(out, format_args!(".{number:0digits$}", digits = usize::from(digits)))
}

/// Years, months and all that are packed into one number of five bytes.
fn datetime(bytes: &mut Bytes<'_>, digits: u8, out: &mut Vec<u8>) -> Result<(), Broken> {
    let packed = bytes.big_endian(5)? & 0x7f_ffff_ffff;
    let (day, time) = (packed >> 17, packed & 0x1_ffff);
    let months = day >> 5;
    written(
        out,
        format_args!(
            "{:04}-{:02}-{:02} {:02}:{:02}:{:02}",
            months / 13,
            months % 13,
            day & 31,
            time >> 12,
            time >> 6 & 63,
            time & 63
        ),
    )?;
    fraction(bytes, digits, out)
}

fn timestamp(bytes: &mut Bytes<'_>, digits: u8, out: &mut Vec<u8>) -> Result<(), Broken> {
    let seconds = bytes.big_endian(4)?;
    if seconds == 0 {
        // No moment, as the server has it.
        written(out, format_args!("0000-00-00 00:00:00"))?;
    } else {
        let (year, month, day) = civil(seconds / 86_400);
        let time = seconds % 86_400;
        let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
        written(
            out,
            format_args!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}"),
        )?;
    }
    fraction(bytes, digits, out)
}

/// A time that may be negative and longer than a day: the whole number, fraction included, has half of its range added.
fn time(bytes: &mut Bytes<'_>, digits: u8, out: &mut Vec<u8>) -> Result<(), Broken> {
    if digits > FRACTION_MAX {
        return Err(Broken("time"));
    }
    let size = 3 + usize::from(digits.div_ceil(2));
    let bits = 8 * (size as u32 - 3);
    let number = bytes.big_endian(size)?.cast_signed() - (0x80_0000 << bits);
    let (sign, number) = (if number < 0 { "-" } else { "" }, number.unsigned_abs());
    let (whole, part) = (number >> bits, number & ((1 << bits) - 1));
    written(
        out,
        format_args!(
            "{sign}{:02}:{:02}:{:02}",
            whole >> 12 & 0x3ff,
            whole >> 6 & 63,
            whole & 63
        ),
    )?;
    fraction_of(part, digits, out)
}

/// The date of a day since 1970 (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (
        year + era * 400 + u64::from(month <= 2),
        month,
        of_year - (153 * shifted + 2) / 5 + 1,
    )
}

/// MariaDB keeps a UUID of RFC 4122 with its last part first, so that those made one after the other are neighbours; the
/// newer versions (from 6 on), whose first part does that, and what is none of the RFC, as they are.
fn uuid(bytes: [u8; 16], out: &mut Vec<u8>) -> Result<(), Broken> {
    // Turned, the variant is in byte 6, and the version in byte 8.
    let is_turned = bytes[6] & 0x80 != 0 && (1..0x60).contains(&bytes[8]);
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let parts = match is_turned {
        true => [&bytes[12..16], &bytes[10..12], &bytes[8..10], &bytes[6..8], &bytes[..6]],
        false => [&bytes[..4], &bytes[4..6], &bytes[6..8], &bytes[8..10], &bytes[10..]],
    };
    written(out, format_args!("{}", parts.map(hex).join("-")))
}

/// As the server writes it: with the last part as in IPv4 also where nothing but that is there.
fn inet6(bytes: [u8; 16], out: &mut Vec<u8>) -> Result<(), Broken> {
    let is_compatible = bytes[..12] == [0; 12] && bytes[12..14] != [0; 2];
    if is_compatible {
        let last: [u8; 4] = [bytes[12], bytes[13], bytes[14], bytes[15]];
        return written(out, format_args!("::{}", Ipv4Addr::from(last)));
    }
    written(out, format_args!("{}", Ipv6Addr::from(bytes)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn writing(ty: u8, meta: [u8; 2], unsigned: bool) -> Writing {
        Writing {
            column: Column {
                ty,
                meta,
                unsigned,
                values: vec![b"x".to_vec(), b"y".to_vec(), b"z".to_vec()],
                ..Column::default()
            },
            charset: Charset::Utf8,
            kind: Kind::Plain,
        }
    }

    fn text(writing: &Writing, bytes: &[u8]) -> Result<String, Misread> {
        let mut out = Vec::new();
        let mut bytes = Bytes::new(bytes, "test");
        writing.value(&mut bytes, &mut out)?;
        assert!(bytes.is_empty(), "{writing:?}: {} bytes are left", bytes.len());
        Ok(String::from_utf8_lossy(&out).into_owned())
    }

    #[test]
    fn after_a_document_that_cannot_be_read_the_next_value_is() {
        // A decimal that is shorter than it says.
        let document = b"\x0f\xf6\x05\x03\x02\x81\x32";
        let mut row = (document.len() as u32).to_le_bytes().to_vec();
        row.extend_from_slice(document);
        row.push(5);
        let (mut bytes, mut out) = (Bytes::new(&row, "test"), Vec::new());
        let read = writing(ty::JSON, [4, 0], false).value(&mut bytes, &mut out);
        assert_eq!(read, Err(Misread::Value(NO_JSON)));
        writing(ty::TINY, [0, 0], false).value(&mut bytes, &mut out).unwrap();
        assert_eq!((out.as_slice(), bytes.is_empty()), (&b"5"[..], true));
        // Where even its end is not known.
        let mut cut = Bytes::new(&row[..3], "test");
        let read = writing(ty::JSON, [4, 0], false).value(&mut cut, &mut Vec::new());
        assert!(matches!(read, Err(Misread::Broken(_))), "{read:?}");
    }

    #[test]
    fn values_are_written_as_the_server_does() {
        for (ty, meta, unsigned, bytes, wanted) in [
            (ty::TINY, [0, 0], false, &b"\xff"[..], "-1"),
            (ty::TINY, [0, 0], true, b"\xff", "255"),
            (ty::INT24, [0, 0], false, b"\x00\x00\x80", "-8388608"),
            (ty::LONGLONG, [0, 0], true, &[255; 8], "18446744073709551615"),
            (ty::FLOAT, [4, 0], false, &0.1f32.to_le_bytes(), "0.1"),
            (ty::DOUBLE, [8, 0], false, &1e300f64.to_le_bytes(), "1e300"),
            (ty::NEWDECIMAL, [10, 2], false, b"\x80\x00\x00\x01\x32", "1.50"),
            (ty::NEWDECIMAL, [10, 2], false, b"\x7f\xff\xff\xfe\xcd", "-1.50"),
            (ty::NEWDECIMAL, [2, 2], false, b"\x85", "0.05"),
            (ty::YEAR, [0, 0], false, b"\x7c", "2024"),
            (ty::YEAR, [0, 0], false, b"\x00", "0000"),
            (ty::DATE, [0, 0], false, b"\x5d\xd0\x0f", "2024-02-29"),
            (ty::TIME2, [0, 0], false, b"\x80\x10\x83", "01:02:03"),
            (ty::TIME2, [0, 0], false, b"\x7f\xff\xff", "-00:00:01"),
            (ty::TIME2, [1, 0], false, b"\x7f\xff\xfe\xce", "-00:00:01.5"),
            (
                ty::TIMESTAMP2,
                [0, 0],
                false,
                b"\x00\x01\x51\x80",
                "1970-01-02 00:00:00",
            ),
            (
                ty::TIMESTAMP2,
                [3, 0],
                false,
                b"\x00\x01\x51\x80\x04\xce",
                "1970-01-02 00:00:00.123",
            ),
            (
                ty::TIMESTAMP2,
                [0, 0],
                false,
                b"\x00\x00\x00\x00",
                "0000-00-00 00:00:00",
            ),
            (ty::BIT, [1, 1], false, b"\x01\x02", "\u{1}\u{2}"),
            (ty::ENUM, [ty::ENUM, 1], false, b"\x02", "y"),
            (ty::ENUM, [ty::ENUM, 1], false, b"\x00", ""),
            (ty::SET, [ty::SET, 1], false, b"\x05", "x,z"),
            (ty::VARCHAR, [255, 0], false, b"\x01a", "a"),
            (ty::VARCHAR, [0, 1], false, b"\x01\x00a", "a"),
            (ty::BLOB, [2, 0], false, b"\x01\x00a", "a"),
            (ty::STRING, [0xce, 0xfc], false, b"\x01\x00a", "a"),
            (ty::STRING, [0xfe, 10], false, b"\x01a", "a"),
        ] {
            assert_eq!(
                text(&writing(ty, meta, unsigned), bytes),
                Ok(wanted.to_string()),
                "{ty} {meta:?}"
            );
        }
        assert!(text(&writing(ty::ENUM, [ty::ENUM, 1], false), b"\x04").is_err());
        assert!(text(&writing(7, [0, 0], false), b"\x04\0\0\0").is_err());
    }

    /// How `strings/decimal.c` packs digits.
    fn packed(digits: &str, whole: usize, is_negative: bool) -> Vec<u8> {
        let (before, after) = digits.split_at(whole);
        let mut groups: Vec<&str> = Vec::new();
        let (rest, full) = before.split_at(before.len() % 9);
        groups.push(rest);
        groups.extend((0..full.len() / 9).map(|at| &full[at * 9..at * 9 + 9]));
        groups.extend((0..after.len().div_ceil(9)).map(|at| &after[at * 9..(at * 9 + 9).min(after.len())]));
        let mut out: Vec<u8> = Vec::new();
        for group in groups.into_iter().filter(|group| !group.is_empty()) {
            let number: u32 = group.parse().unwrap();
            out.extend(&number.to_be_bytes()[4 - BYTES_OF_DIGITS[group.len()]..]);
        }
        if is_negative {
            out.iter_mut().for_each(|byte| *byte = !*byte);
        }
        out[0] ^= 0x80;
        out
    }

    proptest! {
        #[test]
        fn decimals_come_back(digits in "[0-9]{1,65}", scale in 0usize..31, is_negative: bool) {
            let scale = scale.min(digits.len());
            let whole = digits.len() - scale;
            let found = text(
                &writing(ty::NEWDECIMAL, [digits.len() as u8, scale as u8], false),
                &packed(&digits, whole, is_negative),
            ).unwrap();
            let point = if scale > 0 { "." } else { "" };
            let before = match digits[..whole].trim_start_matches('0') { "" => "0", it => it };
            let sign = if is_negative { "-" } else { "" };
            prop_assert_eq!(found, format!("{sign}{before}{point}{}", &digits[whole..]));
        }

        #[test]
        fn moments_come_back(seconds in 1u32.., micros in 0u32..1_000_000) {
            let mut bytes = seconds.to_be_bytes().to_vec();
            bytes.extend(&micros.to_be_bytes()[1..]);
            let found = text(&writing(ty::TIMESTAMP2, [6, 0], false), &bytes).unwrap();
            let nanos = i128::from(seconds) * 1_000_000_000 + i128::from(micros) * 1000;
            prop_assert_eq!(crate::postgres::timestamp(&found), Some(nanos));
        }

        #[test]
        fn times_come_back(micros in -3_020_399_000_000i64..3_020_399_000_000) {
            let (size, whole) = (micros.unsigned_abs(), micros.unsigned_abs() / 1_000_000);
            let clock = ((whole / 3600) << 12) | ((whole / 60 % 60) << 6) | (whole % 60);
            let packed = ((clock << 24) | (size % 1_000_000)) as i64;
            let stored = (if micros < 0 { -packed } else { packed }) + (0x80_0000 << 24);
            let found = text(&writing(ty::TIME2, [6, 0], false), &stored.to_be_bytes()[2..]).unwrap();
            let sign = if micros < 0 { "-" } else { "" };
            let wanted = format!(
                "{sign}{:02}:{:02}:{:02}.{:06}", whole / 3600, whole / 60 % 60, whole % 60, size % 1_000_000
            );
            prop_assert_eq!(found, wanted);
        }

        #[test]
        fn no_bytes_make_it_panic(
            ty: u8, meta: [u8; 2], unsigned: bool, bytes in proptest::collection::vec(any::<u8>(), 0..80)
        ) {
            let mut writing = writing(ty, meta, unsigned);
            for kind in [Kind::Plain, Kind::Uuid, Kind::Inet4, Kind::Inet6, Kind::Padded(4)] {
                writing.kind = kind;
                let _ = writing.value(&mut Bytes::new(&bytes, "test"), &mut Vec::new());
            }
        }
    }
}
