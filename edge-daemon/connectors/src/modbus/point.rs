//! A point: where a value stands in a device, and how registers become one. Performs no I/O.

use bus_schema::data::{Type, Value};
use flow::ConfigError;
use schemars::JsonSchema;
use serde::Deserialize;

use super::frame::{ADDRESSES, Span, Table};

/// Longest text, in bytes: what one question can ask for.
const TEXT_BYTES_MAX: u16 = 250;

/// A value to read.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PointConfig {
    /// Its column.
    name: String,
    /// Where it is.
    table: Table,
    /// Its first address as it is on the wire, which counts from 0: what a manual calls 40001 is 0 in `holding`.
    address: u16,
    /// What it is. Default: `bool` for coils and discrete inputs, `u16` for registers.
    #[serde(rename = "type")]
    kind: Option<Kind>,
    /// For a `bool` in a register: which bit, 0 is the least. Without it, any register but 0 is true.
    #[schemars(range(min = 0, max = 15))]
    bit: Option<u8>,
    /// How its bytes are arranged, see `Order`.
    #[serde(default)]
    order: Order,
    /// Of a text: how many bytes it has, two in each register.
    #[schemars(range(min = 1, max = 250))]
    length: Option<u16>,
    /// The number is multiplied by this. With `factor` or `offset` the column is f64.
    factor: Option<f64>,
    /// This is added then.
    offset: Option<f64>,
    /// The units that have it; all of the source by default.
    units: Option<Vec<u8>>,
}

/// What registers hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// A coil, a discrete input, or a bit of a register.
    Bool,
    /// One register.
    U16,
    /// One register, with sign.
    I16,
    /// Two registers.
    U32,
    /// Two registers, with sign.
    I32,
    /// Four registers.
    U64,
    /// Four registers, with sign.
    I64,
    /// Two registers: a float.
    F32,
    /// Four registers: a float.
    F64,
    /// Two letters (UTF-8) in each of so many registers. It ends at the first zero byte; spaces at its end are cut off.
    Text,
}

/// How the bytes of the registers are arranged; A is the most significant of two registers' four bytes, and it goes on in
/// the same way for four registers and for texts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub(super) enum Order {
    /// Most significant first, as the protocol has it.
    #[default]
    #[serde(rename = "ABCD")]
    Abcd,
    /// Least significant register first.
    #[serde(rename = "CDAB")]
    Cdab,
    /// Least significant byte of each register first.
    #[serde(rename = "BADC")]
    Badc,
    /// Least significant first, throughout.
    #[serde(rename = "DCBA")]
    Dcba,
}

impl Order {
    /// Most significant first.
    fn straighten(self, bytes: &mut [u8]) {
        if matches!(self, Order::Cdab | Order::Dcba) {
            bytes.reverse();
        }
        if matches!(self, Order::Cdab | Order::Badc) {
            bytes.chunks_exact_mut(2).for_each(<[u8]>::reverse);
        }
    }
}

/// A point that is right.
#[derive(Debug, Clone)]
pub(super) struct Point {
    pub name: String,
    pub span: Span,
    /// The units that have it.
    pub units: Vec<u8>,
    kind: Kind,
    bit: Option<u8>,
    order: Order,
    /// Bytes of a text; the last register may have one too many.
    length: u16,
    scale: Option<Scale>,
}

impl Point {
    /// Checks a point. `key` is where it stands; `units` are those of the source.
    pub(super) fn new(config: PointConfig, key: &str, units: &[u8]) -> Result<Self, ConfigError> {
        let wrong = |name: &str, message: &str| Err(ConfigError::at(format!("{key}.{name}"), message));
        let is_bits = config.table.is_bits();
        let kind = config.kind.unwrap_or(if is_bits { Kind::Bool } else { Kind::U16 });
        if config.name.is_empty() {
            return wrong("name", "is missing");
        }
        if is_bits && kind != Kind::Bool {
            return wrong("type", "coils and discrete inputs are bool");
        }
        if config.bit.is_some() && (is_bits || kind != Kind::Bool) {
            return wrong("bit", "is for a bool in a register");
        }
        if config.bit.is_some_and(|bit| bit > 15) {
            return wrong("bit", "a register has bits 0 to 15");
        }
        if is_bits && config.order != Order::Abcd {
            return wrong("order", "is for registers");
        }
        let count = match (kind, config.length) {
            (Kind::Text, Some(length @ 1..=TEXT_BYTES_MAX)) => length.div_ceil(2),
            (Kind::Text, _) => return wrong("length", "a text needs its length in bytes, from 1 to 250"),
            (_, Some(_)) => return wrong("length", "is for texts"),
            (Kind::Bool | Kind::U16 | Kind::I16, None) => 1,
            (Kind::U32 | Kind::I32 | Kind::F32, None) => 2,
            (Kind::U64 | Kind::I64 | Kind::F64, None) => 4,
        };
        let span = Span {
            table: config.table,
            start: config.address,
            count,
        };
        if span.end() > ADDRESSES {
            return wrong("address", "it reaches beyond the last address, 65535");
        }
        let scale = match (config.factor, config.offset) {
            (None, None) => None,
            _ if matches!(kind, Kind::Bool | Kind::Text) => return wrong("factor", "is for numbers"),
            (factor, offset) => Some(Scale::new(factor.unwrap_or(1.0), offset.unwrap_or(0.0))),
        };
        if scale.as_ref().is_some_and(|scale| !scale.is_sound()) {
            return wrong("factor", "must be a number but 0, and offset a number");
        }
        let units = config.units.unwrap_or_else(|| units.to_vec());
        Ok(Self {
            name: config.name,
            span,
            units,
            kind,
            bit: config.bit,
            order: config.order,
            length: config.length.unwrap_or(0),
            scale,
        })
    }

    /// The type of its column.
    pub(super) fn ty(&self) -> Type {
        match self.kind {
            _ if self.scale.is_some() => Type::F64,
            Kind::Bool => Type::Bool,
            Kind::U16 | Kind::I16 | Kind::U32 | Kind::I32 | Kind::I64 => Type::I64,
            Kind::U64 => Type::U64,
            Kind::F32 => Type::F32,
            Kind::F64 => Type::F64,
            Kind::Text => Type::Text,
        }
    }

    /// Its value in the answer to a question for `asked`.
    pub(super) fn decode(&self, data: &[u8], asked: &Span) -> Result<Value, String> {
        let missing = || "the answer does not hold it".to_string();
        let at = usize::from(self.span.start.checked_sub(asked.start).ok_or_else(missing)?);
        if self.span.table.is_bits() {
            let byte = data.get(at / 8).ok_or_else(missing)?;
            return Ok(Value::Bool(byte >> (at % 8) & 1 == 1));
        }
        let registers = data.get(at * 2..at * 2 + self.span.bytes()).ok_or_else(missing)?;
        let mut bytes = registers.to_vec();
        self.order.straighten(&mut bytes);
        self.value(&bytes)
    }

    /// `bytes` are as many as the kind has, most significant first.
    fn value(&self, bytes: &[u8]) -> Result<Value, String> {
        let raw = bytes.iter().fold(0, |raw: u64, byte| raw << 8 | u64::from(*byte));
        let integer = |raw: i64| match &self.scale {
            Some(scale) => Value::F64(scale.of_integer(raw.into())),
            None => Value::I64(raw),
        };
        let scaled = |raw: f64| self.scale.as_ref().map(|scale| Value::F64(scale.of_float(raw)));
        // The casts cut off bytes that are not there.
        Ok(match self.kind {
            Kind::Bool => Value::Bool(self.bit.map_or(raw != 0, |bit| raw >> bit & 1 == 1)),
            Kind::U16 | Kind::U32 => integer(raw as i64),
            Kind::I16 => integer((raw as i16).into()),
            Kind::I32 => integer((raw as i32).into()),
            Kind::I64 => integer(raw as i64),
            Kind::U64 => match &self.scale {
                Some(scale) => Value::F64(scale.of_integer(raw.into())),
                None => Value::U64(raw),
            },
            Kind::F32 => {
                let float = f32::from_bits(raw as u32);
                scaled(float.into()).unwrap_or(Value::F32(float))
            }
            Kind::F64 => {
                let float = f64::from_bits(raw);
                scaled(float).unwrap_or(Value::F64(float))
            }
            Kind::Text => return text(&bytes[..bytes.len().min(self.length.into())]),
        })
    }
}

fn text(bytes: &[u8]) -> Result<Value, String> {
    let end = memchr::memchr(0, bytes).unwrap_or(bytes.len());
    match std::str::from_utf8(&bytes[..end]) {
        Ok(text) => Ok(Value::Text(text.trim_end_matches(' ').to_string())),
        Err(_) => Err("not a UTF-8 text".to_string()),
    }
}

/// `units × 10^-places`.
type Decimal = (i128, u32);

/// What becomes of a raw number: `raw × factor + offset`.
#[derive(Debug, Clone)]
struct Scale {
    factor: f64,
    offset: f64,
    /// Both as they were written, so that 3 × 0.1 is 0.3 and not 0.30000000000000004.
    decimals: Option<(Decimal, Decimal)>,
}

impl Scale {
    fn new(factor: f64, offset: f64) -> Self {
        Self {
            factor,
            offset,
            decimals: decimal(factor).zip(decimal(offset)),
        }
    }

    fn is_sound(&self) -> bool {
        self.factor.is_finite() && self.factor != 0.0 && self.offset.is_finite()
    }

    fn of_float(&self, raw: f64) -> f64 {
        raw * self.factor + self.offset
    }

    /// The number nearest to the exact result.
    fn of_integer(&self, raw: i128) -> f64 {
        self.exactly(raw).unwrap_or_else(|| self.of_float(raw as f64))
    }

    fn exactly(&self, raw: i128) -> Option<f64> {
        let ((factor, factor_places), (offset, offset_places)) = self.decimals?;
        let places = factor_places.max(offset_places);
        let shifted = |units: i128, by: u32| units.checked_mul(10_i128.checked_pow(by)?);
        let product = shifted(raw.checked_mul(factor)?, places - factor_places)?;
        let sum = product.checked_add(shifted(offset, places - offset_places)?)?;
        format!("{sum}e-{places}").parse().ok()
    }
}

/// The shortest decimal that is this number; none when it is far too long.
fn decimal(number: f64) -> Option<Decimal> {
    let text = number.to_string();
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let units = format!("{whole}{fraction}").parse().ok()?;
    Some((units, fraction.len() as u32))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn point(config: &str) -> Point {
        let config = serde_json::from_str(config).unwrap();
        Point::new(config, "points[0]", &[1]).unwrap_or_else(|error| panic!("{error}"))
    }

    fn decoded(config: &str, data: &[u8]) -> String {
        let point = point(&format!(
            r#"{{"name": "p", "table": "holding", "address": 5, {config}}}"#
        ));
        let asked = Span {
            start: 4,
            count: point.span.count + 1,
            ..point.span
        };
        let data = [&[0xee, 0xee], data].concat();
        match point.decode(&data, &asked) {
            Ok(value) => format!("{} {}", point.ty(), value.as_cell()),
            Err(cause) => cause,
        }
    }

    #[test]
    fn registers_become_values() {
        for (config, data, wanted) in [
            (r#""type": "u16""#, &[0xff, 0xfe][..], "i64 65534"),
            (r#""type": "u16", "order": "BADC""#, &[0xff, 0xfe], "i64 65279"),
            (r#""type": "u16", "order": "CDAB""#, &[0xff, 0xfe], "i64 65534"),
            (r#""type": "i16""#, &[0xff, 0xfe], "i64 -2"),
            (r#""type": "u32""#, &[1, 2, 3, 4], "i64 16909060"),
            (r#""type": "u32", "order": "ABCD""#, &[1, 2, 3, 4], "i64 16909060"),
            (r#""type": "u32", "order": "CDAB""#, &[3, 4, 1, 2], "i64 16909060"),
            (r#""type": "u32", "order": "BADC""#, &[2, 1, 4, 3], "i64 16909060"),
            (r#""type": "u32", "order": "DCBA""#, &[4, 3, 2, 1], "i64 16909060"),
            (r#""type": "u32""#, &[0xff; 4], "i64 4294967295"),
            (r#""type": "i32""#, &[0xff; 4], "i64 -1"),
            (r#""type": "u64""#, &[0xff; 8], "u64 18446744073709551615"),
            (
                r#""type": "i64""#,
                &[0x80, 0, 0, 0, 0, 0, 0, 0],
                "i64 -9223372036854775808",
            ),
            (
                r#""type": "i64", "order": "CDAB""#,
                &[7, 8, 5, 6, 3, 4, 1, 2],
                "i64 72623859790382856",
            ),
            (
                r#""type": "i64", "order": "BADC""#,
                &[2, 1, 4, 3, 6, 5, 8, 7],
                "i64 72623859790382856",
            ),
            (r#""type": "f32""#, &[0x3f, 0xc0, 0, 0], "f32 1.5"),
            (r#""type": "f32""#, &[0x7f, 0xc0, 0, 0], "f32 NaN"),
            (r#""type": "f64""#, &[0xbf, 0xf8, 0, 0, 0, 0, 0, 0], "f64 -1.5"),
            (r#""type": "bool""#, &[0, 0], "bool false"),
            (r#""type": "bool""#, &[0, 4], "bool true"),
            (r#""type": "bool", "bit": 2"#, &[0, 4], "bool true"),
            (r#""type": "bool", "bit": 15"#, &[0x7f, 0xff], "bool false"),
            (r#""type": "bool", "bit": 10, "order": "BADC""#, &[0, 4], "bool true"),
            (r#""type": "text", "length": 4"#, b"AB\0C", "text AB"),
            (r#""type": "text", "length": 3"#, b"AB  ", "text AB"),
            (r#""type": "text", "length": 3"#, b"ABCD", "text ABC"),
            (r#""type": "text", "length": 4, "order": "BADC""#, b"BADC", "text ABCD"),
            (r#""type": "text", "length": 2"#, b"\xff\xff", "not a UTF-8 text"),
        ] {
            assert_eq!(decoded(config, data), wanted, "{config}");
        }
    }

    #[test]
    fn scaled_numbers_are_what_one_would_write() {
        for (config, raw, wanted) in [
            (r#""factor": 0.1"#, 3_u16, "f64 0.3"),
            (r#""factor": 0.1, "offset": -40"#, 1234, "f64 83.4"),
            (r#""factor": 1e-3"#, 65_535, "f64 65.535"),
            (r#""offset": 0.5"#, 1, "f64 1.5"),
            (r#""factor": -2"#, 5, "f64 -10.0"),
            (r#""factor": 1e300"#, 2, "f64 2e300"),
            (r#""type": "i16", "factor": 0.1"#, 65_535, "f64 -0.1"),
        ] {
            let shown = decoded(config, &raw.to_be_bytes());
            let number = |text: &str| {
                text.split_once(' ')
                    .map(|(ty, number)| (ty.to_string(), number.parse::<f64>()))
            };
            assert_eq!(number(&shown), number(wanted), "{config}: {shown}");
        }
        assert_eq!(decoded(r#""type": "f32", "factor": 2"#, &[0x3f, 0xc0, 0, 0]), "f64 3.0");
    }

    #[test]
    fn coils_are_counted_from_the_least_bit() {
        let point = point(r#"{"name": "c", "table": "coil", "address": 19}"#);
        let asked = Span {
            start: 10,
            count: 10,
            ..point.span
        };
        for (data, wanted) in [([0, 2], Ok(Value::Bool(true))), ([0xff, 1], Ok(Value::Bool(false)))] {
            assert_eq!(point.decode(&data, &asked), wanted);
        }
        assert!(point.decode(&[0], &asked).is_err());
    }

    #[test]
    fn mistakes_are_named() {
        for (config, wanted) in [
            (r#""table": "coil", "type": "u16""#, "points[0].type: coils"),
            (r#""table": "coil", "bit": 1"#, "points[0].bit: is for"),
            (r#""table": "coil", "order": "BADC""#, "points[0].order: is for"),
            (r#""table": "input", "bit": 1"#, "points[0].bit: is for"),
            (
                r#""table": "input", "type": "bool", "bit": 16"#,
                "points[0].bit: a register has",
            ),
            (r#""table": "input", "type": "text""#, "points[0].length: a text needs"),
            (
                r#""table": "input", "type": "text", "length": 251"#,
                "points[0].length: a text needs",
            ),
            (r#""table": "input", "length": 2"#, "points[0].length: is for"),
            (
                r#""table": "input", "type": "bool", "factor": 2"#,
                "points[0].factor: is for",
            ),
            (r#""table": "input", "factor": 0"#, "points[0].factor: must be"),
            (
                r#""table": "input", "type": "u32", "address": 65535"#,
                "points[0].address: it reaches",
            ),
        ] {
            let address = if config.contains("address") {
                ""
            } else {
                r#""address": 0, "#
            };
            let config = serde_json::from_str(&format!(r#"{{"name": "p", {address}{config}}}"#)).unwrap();
            let error = Point::new(config, "points[0]", &[1]).unwrap_err();
            assert!(error.to_string().starts_with(wanted), "{error}");
        }
    }

    proptest! {
        /// Decimal arithmetic differs from floats by rounding only.
        #[test]
        fn scaling_is_near_and_never_fails(raw: i64, factor in -1e6..1e6_f64, offset in -1e6..1e6_f64) {
            let scale = Scale::new(factor, offset);
            let (exact, near) = (scale.of_integer(raw.into()), scale.of_float(raw as f64));
            let size = (raw as f64 * factor).abs() + offset.abs();
            prop_assert!((exact - near).abs() <= size * 1e-14, "{exact} {near}");
        }

        #[test]
        fn orders_are_their_own_inverse(bytes in proptest::collection::vec(any::<u8>(), 1..9), order in 0..4) {
            let order = [Order::Abcd, Order::Cdab, Order::Badc, Order::Dcba][order as usize];
            let bytes = [&bytes[..], &bytes[..]].concat();
            let mut twice = bytes.clone();
            order.straighten(&mut twice);
            order.straighten(&mut twice);
            prop_assert_eq!(twice, bytes);
        }
    }
}
