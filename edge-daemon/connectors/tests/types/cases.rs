//! The values of the matrix: every type, and of each what is hard to keep. What a value is exactly stands beside it, written
//! by hand: what the product prints is under test as well.

use bus_schema::data::{Type, Value, Zone};

/// What a destination may make of a value that it cannot keep, if it says so.
pub struct Loss {
    /// What it is, for the page.
    pub what: &'static str,
    /// What is left; `None` is null.
    pub left: Option<String>,
    /// Where it says so.
    pub told: Told,
}

/// Where a user learns of a loss.
#[derive(Clone, Copy)]
pub enum Told {
    /// In log lines that contain these.
    Log(&'static [&'static str]),
    /// In the component's reference, which contains this: for what a format cannot have, ever.
    Reference(&'static str),
}

/// One value of one type.
pub struct Case {
    /// The column's type.
    pub ty: Type,
    /// What is hard about it.
    pub what: &'static str,
    /// The value.
    pub value: Value,
    /// What it is: digits, ISO 8601, hexadecimal; the items of a list joined by `|`; `None` for null.
    pub exact: Option<String>,
    /// What may be left of it.
    pub losses: Vec<Loss>,
}

impl Case {
    fn or(mut self, what: &'static str, left: &str, logged: &'static [&'static str]) -> Self {
        let (left, told) = (Some(left.to_string()), Told::Log(logged));
        self.losses.push(Loss { what, left, told });
        self
    }

    fn or_null(mut self, reference: &'static str) -> Self {
        self.losses.push(Loss {
            what: "null",
            left: None,
            told: Told::Reference(reference),
        });
        self
    }
}

fn case(ty: Type, what: &'static str, value: Value, exact: &str) -> Case {
    Case {
        ty,
        what,
        value,
        exact: Some(exact.to_string()),
        losses: Vec::new(),
    }
}

fn null(ty: Type) -> Case {
    Case {
        ty,
        what: "null",
        value: Value::Null,
        exact: None,
        losses: Vec::new(),
    }
}

fn text(text: &str) -> Value {
    Value::Text(text.into())
}

/// All of them, grouped by type.
pub fn cases() -> Vec<Case> {
    let groups = [
        numbers(),
        decimals(),
        texts(),
        times(),
        moments(),
        structures(),
        anything(),
    ];
    groups.into_iter().flatten().collect()
}

fn numbers() -> Vec<Case> {
    let zero = |case: Case| case.or("0", "0.0", &["-0.0 is stored as 0"]);
    vec![
        case(Type::Bool, "true", Value::Bool(true), "true"),
        case(Type::Bool, "false", Value::Bool(false), "false"),
        null(Type::Bool),
        case(Type::I64, "smallest", Value::I64(i64::MIN), "-9223372036854775808"),
        case(Type::I64, "largest", Value::I64(i64::MAX), "9223372036854775807"),
        null(Type::I64),
        case(Type::U64, "2^63 - 1", Value::U64((1 << 63) - 1), "9223372036854775807"),
        case(Type::U64, "largest", Value::U64(u64::MAX), "18446744073709551615"),
        case(Type::F32, "0.1", Value::F32(0.1), "0.1"),
        case(Type::F32, "largest", Value::F32(f32::MAX), "3.4028235e38"),
        case(Type::F32, "smallest above 0", Value::F32(f32::from_bits(1)), "1e-45"),
        case(Type::F32, "NaN", Value::F32(f32::NAN), "NaN"),
        case(Type::F64, "0.1 + 0.2", Value::F64(0.1 + 0.2), "0.30000000000000004"),
        case(Type::F64, "largest", Value::F64(f64::MAX), "1.7976931348623157e308"),
        case(Type::F64, "smallest above 0", Value::F64(f64::from_bits(1)), "5e-324"),
        zero(case(Type::F64, "-0.0", Value::F64(-0.0), "-0.0")),
        case(Type::F64, "NaN", Value::F64(f64::NAN), "NaN"),
        case(Type::F64, "infinity", Value::F64(f64::INFINITY), "inf"),
        case(Type::F64, "-infinity", Value::F64(f64::NEG_INFINITY), "-inf"),
    ]
}

fn decimals() -> Vec<Case> {
    let decimal = |precision, scale| Type::Decimal { precision, scale };
    let nines = "99999999999999999999999999999.999999999";
    vec![
        case(decimal(38, 9), "largest", Value::Decimal(10i128.pow(38) - 1, 9), nines),
        case(
            decimal(38, 9),
            "smallest",
            Value::Decimal(1 - 10i128.pow(38), 9),
            &format!("-{nines}"),
        ),
        case(decimal(38, 9), "next below 0", Value::Decimal(-1, 9), "-0.000000001"),
        case(decimal(10, 2), "ends in 0", Value::Decimal(150, 2), "1.5"),
        case(
            decimal(0, 38),
            "smallest i128, all digits after the point",
            Value::Decimal(i128::MIN, 38),
            "-1.70141183460469231731687303715884105728",
        ),
    ]
}

fn texts() -> Vec<Case> {
    let long = "x".repeat(100_000);
    let all: Vec<u8> = (0..=255).collect();
    let hex: String = all.iter().map(|byte| format!("{byte:02x}")).collect();
    let keep = |what, value: &str| case(Type::Text, what, text(value), value);
    vec![
        keep("empty", ""),
        null(Type::Text),
        keep("the word NULL", "NULL"),
        keep("4-byte characters", "grün 🌱 \u{10ffff}"),
        keep("combining and direction marks", "a\u{308} \u{202e}\u{feff}"),
        keep("quotes, backslash, SQL", "'\"\\`; -- \\' \\0 %s ${x}"),
        keep("line ends and tab", "a\r\nb\nc\rd\te"),
        keep("spaces at both ends", "  x  "),
        keep("looks like a number", "007"),
        keep("looks like a float", "1e5"),
        keep("NUL", "a\0b"),
        keep("100,000 characters", &long),
        case(Type::Bytes, "empty", Value::Bytes(vec![]), ""),
        null(Type::Bytes),
        case(Type::Bytes, "every byte", Value::Bytes(all), &hex),
    ]
}

fn times() -> Vec<Case> {
    let date = |what, days, exact: &str| case(Type::Date, what, Value::Date(days), exact);
    let time = |what, nanos, exact: &str| case(Type::Time, what, Value::Time(nanos), exact);
    vec![
        date("leap day", 11_016, "2000-02-29"),
        date("before 1970", -1, "1969-12-31"),
        date("before 1582", -141_438, "1582-10-04"),
        date("year 0", -719_528, "0000-01-01"),
        date("year -43", -735_160, "-0043-03-15"),
        date("year 9999", 2_932_896, "9999-12-31"),
        date("year 10000", 2_932_897, "10000-01-01"),
        date("smallest", i32::MIN, "-5877641-06-23"),
        time("midnight", 0, "00:00:00"),
        time("microseconds", 86_399_999_999_000, "23:59:59.999999"),
        time("nanoseconds", 86_399_999_999_999, "23:59:59.999999999").or(
            "cut to microseconds",
            "23:59:59.999999",
            &["cut off"],
        ),
    ]
}

const MICROS: i128 = 1_700_000_000_123_456_000;
const CUT: &str = "cut to microseconds";
const INSTANT: &str = "the instant, without the offset";
const BOTH: &str = "the instant, without the offset, cut to microseconds";

fn moments() -> Vec<Case> {
    let naive = |what, nanos, exact: &str| case(Type::Timestamp(Zone::Naive), what, Value::Timestamp(nanos), exact);
    let utc = |what, nanos, exact: &str| case(Type::Timestamp(Zone::Utc), what, Value::TimestampUtc(nanos), exact);
    let offset = |what, nanos, minutes, exact: &str| {
        let value = Value::TimestampOffset(nanos, minutes);
        case(Type::Timestamp(Zone::Offset), what, value, exact)
    };
    let before_zero = -735_160 * 86_400 * 1_000_000_000;
    vec![
        naive("microseconds", MICROS, "2023-11-14T22:13:20.123456"),
        naive("nanoseconds", MICROS + 789, "2023-11-14T22:13:20.123456789").or(
            CUT,
            "2023-11-14T22:13:20.123456",
            &["cut off"],
        ),
        naive("1 ns before 1970", -1, "1969-12-31T23:59:59.999999999").or(
            CUT,
            "1969-12-31T23:59:59.999999",
            &["cut off"],
        ),
        naive("year -43", before_zero, "-0043-03-15T00:00:00"),
        naive(
            "beyond every calendar",
            i128::MAX,
            "170141183460469231731687303715884105727ns",
        ),
        null(Type::Timestamp(Zone::Naive)),
        utc("microseconds", MICROS, "2023-11-14T22:13:20.123456Z"),
        utc("nanoseconds", MICROS + 789, "2023-11-14T22:13:20.123456789Z").or(
            CUT,
            "2023-11-14T22:13:20.123456Z",
            &["cut off"],
        ),
        utc("before 1970", -1_000_000_000, "1969-12-31T23:59:59Z"),
        utc("year -43", before_zero, "-0043-03-15T00:00:00Z"),
        offset("+05:30", MICROS, 330, "2023-11-15T03:43:20.123456+05:30").or(
            INSTANT,
            "2023-11-14T22:13:20.123456Z",
            &["ffset"],
        ),
        offset(
            "-11:00 and nanoseconds",
            MICROS + 789,
            -660,
            "2023-11-14T11:13:20.123456789-11:00",
        )
        .or(BOTH, "2023-11-14T22:13:20.123456Z", &["cut off", "ffset"])
        .or(INSTANT, "2023-11-14T22:13:20.123456789Z", &["ffset"]),
        offset("before 1970, +14:00", -1_000, 840, "1970-01-01T13:59:59.999999+14:00").or(
            INSTANT,
            "1969-12-31T23:59:59.999999Z",
            &["ffset"],
        ),
        case(
            Type::Uuid,
            "any",
            Value::Uuid(*b"\x12\x34\x56\x78\x9a\xbc\xde\xf0\x01\x02\x03\x04\x05\x06\x07\x08"),
            "12345678-9abc-def0-0102-030405060708",
        ),
    ]
}

fn structures() -> Vec<Case> {
    let json = |what, text: &str| case(Type::Json, what, Value::Json(text.into()), text);
    let list = |what, items, exact: &str| case(Type::List, what, Value::List(items), exact);
    let deep = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
    vec![
        json(
            "spaces, a digit that ends in 0, a name twice",
            "{\"a\":  1.50, \"a\": 2}",
        ),
        json("null of JSON", "null").or_null("JSON's own null is null"),
        null(Type::Json),
        json("more digits than a float", "[12345678901234567890.123456789]"),
        json("NUL and 4-byte characters, escaped", "\"\\u0000\\ud83c\\udf31\""),
        json("20 levels deep", &deep(20)),
        json("100 levels deep", &deep(100)),
        json("1,000 levels deep", &deep(1_000)),
        json("not JSON", "{\"a\":"),
        list("empty", vec![], ""),
        list(
            "of a number, a text, null",
            vec![Value::I64(i64::MAX), text("a|\"b\",c"), Value::Null],
            "9223372036854775807|a|\"b\",c|null",
        ),
        list(
            "of a decimal, bytes, a time, NaN",
            vec![
                Value::Decimal(-15, 1),
                Value::Bytes(vec![0, 255]),
                Value::TimestampUtc(MICROS + 789),
                Value::F64(f64::NAN),
            ],
            "-1.5|00ff|2023-11-14T22:13:20.123456789Z|NaN",
        ),
    ]
}

/// Columns of sources that do not say what type they have.
fn anything() -> Vec<Case> {
    let any = |what, value, exact: &str| case(Type::Any, what, value, exact);
    vec![
        any("i64", Value::I64(i64::MIN), "-9223372036854775808"),
        any("u64", Value::U64(u64::MAX), "18446744073709551615"),
        any("f64", Value::F64(0.1), "0.1"),
        any("text", text("007"), "007"),
        any("bytes", Value::Bytes(vec![0, 255]), "00ff"),
        any("bool", Value::Bool(true), "true"),
        any(
            "timestamp_utc",
            Value::TimestampUtc(MICROS),
            "2023-11-14T22:13:20.123456Z",
        ),
        null(Type::Any),
    ]
}
