//! What becomes of each type, in columns created here and in columns that were there before.

use bus_schema::data::{Op::Insert, Type, Value, Zone};
use serde_json::json;

use super::{Database, deliver, rows, schema};

const UUID: [u8; 16] = *b"\x12\x34\x56\x78\x9a\xbc\xde\xf0\x01\x02\x03\x04\x05\x06\x07\x08";

fn text(text: &str) -> Value {
    Value::Text(text.into())
}

#[tokio::test]
async fn every_type_has_a_column() {
    let db = Database::new("types", "");
    let decimal = |precision, scale| Type::Decimal { precision, scale };
    let micros = 1_700_000_000_123_456_000i128;
    let cases = [
        (Type::Bool, Value::Bool(true), "boolean", "t"),
        (Type::I64, Value::I64(i64::MIN), "bigint", "-9223372036854775808"),
        (Type::I64, Value::I64(i64::MAX), "bigint", "9223372036854775807"),
        (Type::U64, Value::U64(u64::MAX), "numeric(20,0)", "18446744073709551615"),
        (Type::F32, Value::F32(0.1), "real", "0.1"),
        (Type::F64, Value::F64(0.1), "double precision", "0.1"),
        (Type::F64, Value::F64(-0.0), "double precision", "-0"),
        (Type::F64, Value::F64(f64::NAN), "double precision", "NaN"),
        (
            Type::F64,
            Value::F64(f64::NEG_INFINITY),
            "double precision",
            "-Infinity",
        ),
        (Type::F64, Value::F64(f64::from_bits(1)), "double precision", "5e-324"),
        (decimal(10, 2), Value::Decimal(-150, 2), "numeric(10,2)", "-1.50"),
        (
            decimal(0, 38),
            Value::Decimal(i128::MIN, 38),
            "numeric",
            "-1.70141183460469231731687303715884105728",
        ),
        (
            decimal(38, 0),
            Value::Decimal(10i128.pow(37), 0),
            "numeric(38,0)",
            "10000000000000000000000000000000000000",
        ),
        (Type::Text, text("grün 🌱 '\"\\"), "text", "grün 🌱 '\"\\"),
        (Type::Text, text(""), "text", ""),
        (Type::Bytes, Value::Bytes(vec![0, 255, 0x5c]), "bytea", "\\x00ff5c"),
        (Type::Date, Value::Date(11_016), "date", "2000-02-29"),
        (Type::Date, Value::Date(-719_528), "date", "0001-01-01 BC"),
        (
            Type::Time,
            Value::Time(86_399_999_999_000),
            "time without time zone",
            "23:59:59.999999",
        ),
        (
            Type::Timestamp(Zone::Naive),
            Value::Timestamp(micros),
            "timestamp without time zone",
            "2023-11-14 22:13:20.123456",
        ),
        (
            Type::Timestamp(Zone::Naive),
            Value::Timestamp(-1),
            "timestamp without time zone",
            "1969-12-31 23:59:59.999999",
        ),
        (
            Type::Timestamp(Zone::Utc),
            Value::TimestampUtc(micros),
            "timestamp with time zone",
            "2023-11-14 22:13:20.123456+00",
        ),
        (
            Type::Timestamp(Zone::Offset),
            Value::TimestampOffset(0, 330),
            "timestamp with time zone",
            "1970-01-01 00:00:00+00",
        ),
        (
            Type::Uuid,
            Value::Uuid(UUID),
            "uuid",
            "12345678-9abc-def0-0102-030405060708",
        ),
        (
            Type::Json,
            Value::Json("{\"a\":  1.50, \"a\": 2}".into()),
            "json",
            "{\"a\":  1.50, \"a\": 2}",
        ),
        (
            Type::List,
            Value::List(vec![Value::I64(1), text("x"), Value::Null]),
            "jsonb",
            "[1, \"x\", null]",
        ),
        (Type::Any, Value::I64(5), "numeric", "5"),
        (Type::Any, Value::F64(0.5), "double precision", "0.5"),
        (Type::Any, text("x"), "text", "x"),
        (Type::Any, Value::Bool(false), "boolean", "f"),
        (Type::I64, Value::Null, "bigint", testkit::NULL),
    ];
    for (index, (ty, value, declared, stored)) in cases.into_iter().enumerate() {
        let table = format!("t{index}");
        let mut sink = db.sink(json!({"table": table})).await;
        let batch = rows(&schema(&[("v", ty.clone())]), &[(Insert, &[value])]);
        assert_eq!(deliver(&mut *sink, batch).await, [], "{ty}");
        let sql = format!(
            "SET TimeZone = 'UTC'; SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attnum = 1"
        );
        assert_eq!(db.rows(&sql), [declared], "{ty}");
        assert_eq!(
            db.rows(&format!("SET TimeZone = 'UTC'; SELECT v FROM {table}")),
            [stored],
            "{ty}"
        );
    }
}

#[tokio::test]
async fn floats_and_bytes_are_kept_bit_for_bit() {
    let db = Database::new("bits", "");
    let mut sink = db.sink(json!({})).await;
    let floats = [
        -0.0,
        0.1,
        f64::MAX,
        f64::MIN_POSITIVE,
        f64::from_bits(0x7ff8_0000_0000_0001),
        f64::INFINITY,
    ];
    let fields = schema(&[("f", Type::F64), ("b", Type::Bytes)]);
    let values = floats.map(|float| [Value::F64(float), Value::Bytes(float.to_be_bytes().to_vec())]);
    let records: Vec<_> = values.iter().map(|row| (Insert, &row[..])).collect();
    assert_eq!(deliver(&mut *sink, rows(&fields, &records)).await, []);
    let found = db.rows("SELECT count(*) FROM t WHERE float8send(f) = b");
    assert_eq!(found, [floats.len().to_string()]);
}

#[tokio::test]
async fn text_is_kept_byte_for_byte() {
    let db = Database::new("text", "");
    let mut sink = db.sink(json!({})).await;
    // psql leaves some of these out of what it prints, so the server compares.
    let texts = [
        "\u{10ffff}",
        "\u{fffe}",
        "\u{feff}",
        "\u{1}\t\r\n",
        "a\u{308}",
        "\u{202e}",
    ];
    let fields = schema(&[("s", Type::Text), ("b", Type::Bytes)]);
    let values = texts.map(|it| [text(it), Value::Bytes(it.as_bytes().to_vec())]);
    let records: Vec<_> = values.iter().map(|row| (Insert, &row[..])).collect();
    assert_eq!(deliver(&mut *sink, rows(&fields, &records)).await, []);
    let found = db.rows("SELECT count(*) FROM t WHERE convert_to(s, 'UTF8') = b");
    assert_eq!(found, [texts.len().to_string()]);
}

#[tokio::test]
async fn existing_columns_take_what_they_can_hold_exactly() {
    let refused = "";
    let sql = "CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN small AS int CHECK (VALUE < 10)";
    let db = Database::new("existing", sql);
    let cases = [
        ("integer", Value::I64(5), "5"),
        ("integer", Value::I64(1 << 40), refused),
        ("smallint", Value::U64(32_767), "32767"),
        ("smallint", Value::I64(-32_769), refused),
        ("bigint", Value::U64(u64::MAX), refused),
        ("bigint", Value::F64(3.0), "3"),
        ("bigint", Value::F64(3.5), refused),
        ("bigint", Value::F64(-0.0), refused),
        ("bigint", Value::Decimal(1200, 2), "12"),
        ("bigint", text("12"), "12"),
        ("bigint", text("twelve"), refused),
        ("bigint", Value::Bool(true), refused),
        ("boolean", Value::I64(1), "t"),
        ("boolean", Value::I64(2), refused),
        ("boolean", text("yes"), "t"),
        ("real", Value::F64(0.5), "0.5"),
        ("real", Value::F64(0.1), refused),
        ("real", Value::I64(16_777_217), refused),
        ("double precision", Value::I64((1 << 53) + 1), refused),
        ("double precision", Value::Decimal(15, 1), "1.5"),
        ("double precision", Value::Decimal(10i128.pow(30) + 1, 30), refused),
        ("numeric", Value::F64(0.1), "0.1"),
        ("numeric", Value::F64(1e300), &format!("1{}", "0".repeat(300))),
        ("numeric", Value::F64(f64::NAN), "NaN"),
        ("numeric", text("-12.500"), "-12.500"),
        ("numeric", text("1,5"), refused),
        ("numeric(6,2)", Value::Decimal(12_500, 4), "1.25"),
        ("numeric(6,2)", Value::F64(1.255), refused),
        ("numeric(6,2)", text("1.255"), refused),
        ("numeric(6,2)", Value::I64(12_345), refused),
        ("text", Value::F64(0.1), "0.1"),
        ("text", Value::Date(0), "1970-01-01"),
        ("text", Value::Bytes(vec![1]), refused),
        ("text", text("nul\0"), refused),
        ("varchar(3)", text("abc"), "abc"),
        ("varchar(3)", text("abcd"), refused),
        ("bytea", text("\\x00"), refused),
        ("date", text("2000-02-29"), "2000-02-29"),
        ("date", text("2001-02-29"), refused),
        ("date", Value::Date(i32::MIN), refused),
        ("timestamp", Value::TimestampUtc(0), "1970-01-01 00:00:00"),
        ("timestamp", Value::Timestamp(i128::MAX), refused),
        ("timestamptz", Value::Timestamp(0), refused),
        (
            "timestamptz",
            text("1970-01-01T02:00:00+02:00"),
            "1970-01-01 00:00:00+00",
        ),
        (
            "timestamptz",
            Value::TimestampUtc(1_999),
            "1970-01-01 00:00:00.000001+00",
        ),
        (
            "uuid",
            text("12345678-9ABC-DEF0-0102-030405060708"),
            "12345678-9abc-def0-0102-030405060708",
        ),
        ("uuid", text("1234"), refused),
        ("json", text("{\"a\" :1}"), "{\"a\" :1}"),
        ("json", text("{"), refused),
        ("jsonb", Value::Json("{\"a\" :1}".into()), "{\"a\": 1}"),
        ("jsonb", Value::Json("\"\\u0000\"".into()), refused),
        ("jsonb", Value::I64(7), "7"),
        ("json", Value::F64(f64::NAN), refused),
        ("mood", text("ok"), "ok"),
        ("mood", text("fine"), refused),
        ("small", Value::I64(9), "9"),
        ("small", Value::I64(10), refused),
        ("inet", text("10.0.0.1"), "10.0.0.1"),
        ("interval", text("1 day"), "1 day"),
        ("int[]", text("{1,2}"), "{1,2}"),
        (
            "int[]",
            Value::List(vec![Value::I64(1), Value::Null, Value::I64(-3)]),
            "{1,NULL,-3}",
        ),
        ("int[]", Value::List(vec![text("one")]), refused),
        (
            "text[]",
            Value::List(vec![text("a\"b\\,{}"), text(""), text("NULL")]),
            r#"{"a\"b\\,{}","","NULL"}"#,
        ),
        (
            "bytea[]",
            Value::List(vec![Value::Bytes(vec![0, 255])]),
            r#"{"\\x00ff"}"#,
        ),
        ("numeric", text("-Infinity"), "-Infinity"),
        ("numeric", text("infinite"), refused),
        ("int GENERATED ALWAYS AS IDENTITY", Value::I64(42), "42"),
        ("int GENERATED ALWAYS AS (5) STORED", Value::I64(42), "5"),
        ("int NOT NULL", Value::Null, refused),
    ];
    for (index, (declared, value, stored)) in cases.into_iter().enumerate() {
        let table = format!("t{index}");
        db.rows(&format!("CREATE TABLE {table} (v {declared}, other int)"));
        let mut sink = db.sink(json!({"table": table})).await;
        let fields = schema(&[("v", Type::Any), ("other", Type::I64)]);
        let rejected = deliver(&mut *sink, rows(&fields, &[(Insert, &[value.clone(), Value::I64(1)])])).await;
        let found = db.rows(&format!("SET TimeZone = 'UTC'; SELECT v FROM {table}"));
        let wanted: &[&str] = if stored == refused { &[] } else { &[stored] };
        assert_eq!(found, wanted, "{value:?} into {declared}: {rejected:?}");
        assert_eq!(rejected.len(), 1 - wanted.len());
    }
}

#[tokio::test]
async fn columns_of_any_type_wait_for_values_and_then_keep_to_them() {
    let db = Database::new("any_type", "");
    let mut sink = db.sink(json!({})).await;
    let fields = schema(&[("*id", Type::I64), ("a", Type::Any), ("b", Type::Any)]);
    let first: &[Value] = &[Value::I64(1), Value::Null, Value::I64(3)];
    assert_eq!(deliver(&mut *sink, rows(&fields, &[(Insert, first)])).await, []);
    assert_eq!(db.rows("SELECT * FROM t"), ["1|3"]);
    let second: &[Value] = &[Value::I64(2), text("now"), Value::F64(3.5)];
    assert_eq!(deliver(&mut *sink, rows(&fields, &[(Insert, second)])).await, []);
    let third: &[Value] = &[Value::I64(3), Value::Bytes(vec![1]), text("4.25")];
    let fourth: &[Value] = &[Value::I64(4), Value::I64(4), text("four")];
    let rejected = deliver(&mut *sink, rows(&fields, &[(Insert, third), (Insert, fourth)])).await;
    let reasons: Vec<_> = rejected.iter().map(|r| format!("{} {}", r.row, r.reason)).collect();
    assert_eq!(
        reasons,
        [
            "0 column 'a': a bytes does not fit a column of type text",
            "1 column 'b': the text 'four' is not a number"
        ]
    );
    assert_eq!(
        db.rows("SELECT id, a, b FROM t ORDER BY id"),
        [format!("1|{}|3", testkit::NULL), "2|now|3.5".into()]
    );
}
