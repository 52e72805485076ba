//! What becomes of each type, in columns created here and in columns that were there before.

use bus_schema::data::{Op::Insert, Type, Value, Zone};
use serde_json::json;

use super::{Database, deliver, rows, schema};

const UUID: [u8; 16] = *b"\x12\x34\x56\x78\x9a\xbc\x4e\xf0\x81\x02\x03\x04\x05\x06\x07\x08";

fn text(text: &str) -> Value {
    Value::Text(text.into())
}

#[tokio::test]
async fn every_type_has_a_column() {
    let db = Database::new("types", "");
    let decimal = |precision, scale| Type::Decimal { precision, scale };
    let micros = 1_700_000_000_123_456_000i128;
    let refused = "";
    let cases = [
        (Type::Bool, Value::Bool(true), "tinyint(1)", "1"),
        (Type::I64, Value::I64(i64::MIN), "bigint(20)", "-9223372036854775808"),
        (Type::I64, Value::I64(i64::MAX), "bigint(20)", "9223372036854775807"),
        (
            Type::U64,
            Value::U64(u64::MAX),
            "bigint(20) unsigned",
            "18446744073709551615",
        ),
        (Type::F32, Value::F32(0.1), "float", "0.1"),
        (Type::F64, Value::F64(0.1), "double", "0.1"),
        (Type::F64, Value::F64(-0.0), "double", "0"),
        (Type::F64, Value::F64(f64::from_bits(1)), "double", "5e-324"),
        (Type::F64, Value::F64(f64::NAN), "double", refused),
        (Type::F64, Value::F64(f64::NEG_INFINITY), "double", refused),
        (Type::F32, Value::F32(f32::INFINITY), "float", refused),
        (decimal(10, 2), Value::Decimal(-150, 2), "decimal(10,2)", "-1.50"),
        (
            decimal(0, 30),
            Value::Decimal(i128::MIN, 30),
            "decimal(65,30)",
            "-170141183.460469231731687303715884105728",
        ),
        (
            decimal(0, 38),
            Value::Decimal(i128::MIN, 38),
            "longtext",
            "-1.70141183460469231731687303715884105728",
        ),
        (
            decimal(38, 0),
            Value::Decimal(10i128.pow(37), 0),
            "decimal(38,0)",
            "10000000000000000000000000000000000000",
        ),
        (Type::Text, text("grün 🌱 '\""), "longtext", "grün 🌱 '\""),
        (Type::Text, text(""), "longtext", ""),
        (Type::Date, Value::Date(11_016), "date", "2000-02-29"),
        (Type::Date, Value::Date(-719_162), "date", "0001-01-01"),
        (Type::Date, Value::Date(2_932_896), "date", "9999-12-31"),
        (Type::Date, Value::Date(-719_528), "date", refused),
        (
            Type::Time,
            Value::Time(86_399_999_999_999),
            "time(6)",
            "23:59:59.999999",
        ),
        (
            Type::Timestamp(Zone::Naive),
            Value::Timestamp(micros),
            "datetime(6)",
            "2023-11-14 22:13:20.123456",
        ),
        (
            Type::Timestamp(Zone::Naive),
            Value::Timestamp(-1),
            "datetime(6)",
            "1969-12-31 23:59:59.999999",
        ),
        (
            Type::Timestamp(Zone::Utc),
            Value::TimestampUtc(micros + 999),
            "datetime(6)",
            "2023-11-14 22:13:20.123456",
        ),
        (
            Type::Timestamp(Zone::Offset),
            Value::TimestampOffset(0, 330),
            "datetime(6)",
            "1970-01-01 00:00:00.000000",
        ),
        (
            Type::Timestamp(Zone::Utc),
            Value::TimestampUtc(i128::MAX),
            "datetime(6)",
            refused,
        ),
        (
            Type::Uuid,
            Value::Uuid(UUID),
            "char(36)",
            "12345678-9abc-4ef0-8102-030405060708",
        ),
        (
            Type::Json,
            Value::Json("{\"a\":  1.50, \"a\": 2}".into()),
            "longtext",
            "{\"a\":  1.50, \"a\": 2}",
        ),
        (Type::Json, Value::Json("{broken".into()), "longtext", refused),
        (
            Type::List,
            Value::List(vec![Value::I64(1), text("x"), Value::Null]),
            "longtext",
            "[1,\"x\",null]",
        ),
        (
            Type::Any,
            Value::I64(5),
            "decimal(65,30)",
            "5.000000000000000000000000000000",
        ),
        (Type::Any, Value::F64(0.5), "double", "0.5"),
        (Type::Any, text("x"), "longtext", "x"),
        (Type::Any, Value::Bool(false), "tinyint(1)", "0"),
        (Type::I64, Value::Null, "bigint(20)", "NULL"),
    ];
    let mut failed = Vec::new();
    for (index, (ty, value, declared, stored)) in cases.into_iter().enumerate() {
        let table = format!("t{index}");
        let mut sink = db.sink(json!({"table": table})).await;
        let batch = rows(
            &schema(&[("id", Type::I64), ("v", ty.clone())]),
            &[(Insert, &[Value::I64(1), value.clone()])],
        );
        let rejected = deliver(&mut *sink, batch).await;
        let sql = format!(
            "SELECT COLUMN_TYPE FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = 'types' AND TABLE_NAME = '{table}' \
             AND COLUMN_NAME = 'v'"
        );
        let found = (db.rows(&sql), db.rows(&format!("SELECT v FROM {table}")));
        // Bytes the client would escape are left out here.
        let is_refused = stored == refused && value != text("");
        let wanted = if is_refused { vec![] } else { vec![stored.to_string()] };
        if found != (vec![declared.to_string()], wanted) || rejected.len() != usize::from(is_refused) {
            failed.push(format!("{ty} {value:?}: {found:?} {rejected:?}"));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[tokio::test]
async fn floats_bytes_and_text_are_kept_bit_for_bit() {
    let db = Database::new("bits", "");
    let mut sink = db.sink(json!({})).await;
    let all: Vec<u8> = (0..=255).collect();
    // Every byte before and after every other, quotes and backslashes among them.
    let pairs: Vec<u8> = (0..=255u8)
        .flat_map(|a| (0..=255u8).flat_map(move |b| [a, b]))
        .collect();
    let texts = [
        "\u{10ffff}",
        "\u{fffe}\u{feff}",
        "\0\u{1}\t\r\n\u{1a}",
        "a\u{308} \\'\"`%_\\0 ",
        "\u{202e} ",
    ];
    let fields = schema(&[
        ("*id", Type::I64),
        ("b", Type::Bytes),
        ("s", Type::Text),
        ("f", Type::F64),
        ("g", Type::F32),
    ]);
    let floats = [f64::MAX, f64::MIN_POSITIVE, 0.1 + 0.2, 1.0 / 3.0, 1e22];
    let singles = [f32::MAX, f32::MIN_POSITIVE, 0.1, 1.0 / 3.0, 16_777_217.0];
    let bytes = [
        all.clone(),
        pairs,
        vec![],
        b"'\\'".to_vec(),
        vec![0xf0, 0x9f, 0x27, 0x5c],
    ];
    let values: Vec<Vec<Value>> = (0..5)
        .map(|at| {
            vec![
                Value::I64(at as i64),
                Value::Bytes(bytes[at].clone()),
                text(texts[at]),
                Value::F64(floats[at]),
                Value::F32(singles[at]),
            ]
        })
        .collect();
    let records: Vec<_> = values.iter().map(|row| (Insert, &row[..])).collect();
    assert_eq!(deliver(&mut *sink, rows(&fields, &records)).await, []);
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02X}")).collect::<String>();
    for at in 0..5 {
        let found = db.rows(&format!("SELECT HEX(b) FROM t WHERE id = {at}"));
        assert_eq!(found, [hex(&bytes[at])], "{at}");
        let found = db.rows(&format!("SELECT HEX(s) FROM t WHERE id = {at}"));
        assert_eq!(found, [hex(texts[at].as_bytes())], "{at}");
        let found = db.rows(&format!(
            "SELECT f = {:e}, g = {:e} FROM t WHERE id = {at}",
            floats[at],
            f64::from(singles[at])
        ));
        assert_eq!(found, ["1|1"], "{at}");
    }
}

#[tokio::test]
async fn existing_columns_take_what_they_can_hold_exactly() {
    let refused = "";
    let db = Database::new("existing", "");
    let cases = [
        ("int", Value::I64(5), "5"),
        ("int", Value::I64(1 << 40), refused),
        ("smallint", Value::U64(32_767), "32767"),
        ("smallint", Value::I64(-32_769), refused),
        ("tinyint unsigned", Value::I64(-1), refused),
        ("bigint", Value::U64(u64::MAX), refused),
        ("bigint unsigned", Value::U64(u64::MAX), "18446744073709551615"),
        ("bigint", Value::F64(3.0), "3"),
        ("bigint", Value::F64(3.5), refused),
        ("bigint", Value::F64(-0.0), refused),
        ("bigint", Value::Decimal(1200, 2), "12"),
        ("bigint", text("12"), "12"),
        ("bigint", text("12.5"), refused),
        ("bigint", text("twelve"), refused),
        ("bigint", Value::Bool(true), refused),
        ("year", Value::I64(24), refused),
        ("year", Value::I64(2024), "2024"),
        ("boolean", Value::I64(1), "1"),
        ("boolean", Value::Bool(true), "1"),
        ("float", Value::F64(0.5), "0.5"),
        ("float", Value::F64(0.1), refused),
        ("float(7,2)", Value::F32(1.255), refused),
        ("double(7,2)", Value::F64(1.25), "1.25"),
        ("float", Value::I64(16_777_217), refused),
        ("double", Value::I64((1 << 53) + 1), refused),
        ("double", Value::Decimal(15, 1), "1.5"),
        ("double", Value::Decimal(10i128.pow(30) + 1, 30), refused),
        ("double", text("1e999"), refused),
        ("double", text("1.5x"), refused),
        ("double", text("-1e-400"), refused),
        ("float", text("1e-60"), refused),
        ("double", text(" 1.5"), "1.5"),
        ("decimal(65,30)", Value::F64(0.1), "0.100000000000000000000000000000"),
        ("decimal(65,30)", Value::F64(1e300), refused),
        ("decimal(10)", Value::F64(f64::NAN), refused),
        ("decimal(10,3)", text("-12.500"), "-12.500"),
        ("decimal(10,3)", text("1,5"), refused),
        ("decimal(6,2)", Value::Decimal(12_500, 4), "1.25"),
        ("decimal(6,2)", Value::F64(1.255), refused),
        ("decimal(6,2)", text("1.255"), refused),
        ("decimal(6,2)", Value::I64(12_345), refused),
        ("text", Value::F64(0.1), "0.1"),
        ("text", Value::Date(0), "1970-01-01"),
        ("text", Value::F64(f64::NAN), "NaN"),
        ("text", Value::Bytes(vec![1]), refused),
        ("varchar(3)", text("abc"), "abc"),
        ("varchar(3)", text("abcd"), refused),
        ("varchar(3)", text("abc "), refused),
        ("varchar(3) CHARACTER SET latin1", text("🌱"), refused),
        ("varchar(3) CHARACTER SET utf8mb3", text("🌱"), refused),
        ("tinytext", Value::Text("x".repeat(256)), refused),
        ("tinytext", Value::Text(format!("x{}", " ".repeat(255))), refused),
        ("varbinary(3)", text("abc"), refused),
        ("varbinary(3)", Value::Bytes(b"abcd".to_vec()), refused),
        ("binary(3)", Value::Bytes(b"ab".to_vec()), refused),
        ("binary(3)", Value::Bytes(b"abc".to_vec()), "abc"),
        ("date", text("2000-02-29"), "2000-02-29"),
        ("date", text("2001-02-29"), refused),
        ("date", text("0000-00-00"), refused),
        ("date", Value::Date(i32::MIN), refused),
        ("date", Value::TimestampUtc(0), refused),
        ("datetime", Value::TimestampUtc(1_999_999_999), "1970-01-01 00:00:01"),
        ("datetime(3)", Value::Timestamp(1_999_999), "1970-01-01 00:00:00.001"),
        ("datetime(6)", text("1970-01-01 00:00:00.1234567"), refused),
        ("timestamp NULL", Value::Timestamp(1_000_000_000), refused),
        (
            "timestamp(6) NULL",
            Value::TimestampUtc(1_000_001_000),
            "1970-01-01 00:00:01.000001",
        ),
        (
            "timestamp NULL",
            Value::TimestampUtc(i128::from(u32::MAX) * 1_000_000_000),
            refused,
        ),
        (
            "uuid",
            text("12345678-9ABC-4EF0-8102-030405060708"),
            "12345678-9abc-4ef0-8102-030405060708",
        ),
        ("uuid", Value::Uuid(UUID), "12345678-9abc-4ef0-8102-030405060708"),
        ("uuid", text("1234"), refused),
        ("json", text("{\"a\" :1}"), "{\"a\" :1}"),
        ("json", text("{"), refused),
        ("json", Value::F64(f64::NAN), refused),
        ("enum('sad','ok','2')", text("ok"), "ok"),
        ("enum('sad','ok','2')", text("2"), "2"),
        ("enum('sad','ok','2')", text("1"), refused),
        ("enum('sad','ok','2')", text("fine"), refused),
        ("set('a','b')", text("a,b"), "a,b"),
        ("set('a','b')", text("a,c"), refused),
        ("set('a','b')", text("3"), refused),
        ("bit(4)", Value::I64(16), refused),
        ("inet6", text("10::1"), "10::1"),
        ("inet6", text("x"), refused),
        ("int GENERATED ALWAYS AS (5) STORED", Value::I64(42), "5"),
        ("int NOT NULL", Value::Null, refused),
        ("timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP", Value::Null, refused),
        ("int AUTO_INCREMENT PRIMARY KEY", Value::Null, refused),
        ("int AUTO_INCREMENT PRIMARY KEY", Value::I64(0), "0"),
        ("int CHECK (v < 10)", Value::I64(10), refused),
    ];
    let mut failed = Vec::new();
    for (index, (declared, value, stored)) in cases.into_iter().enumerate() {
        let table = format!("t{index}");
        db.rows(&format!("CREATE TABLE {table} (v {declared}, other int)"));
        let mut sink = db.sink(json!({"table": table})).await;
        let fields = schema(&[("v", Type::Any), ("other", Type::I64)]);
        let rejected = deliver(&mut *sink, rows(&fields, &[(Insert, &[value.clone(), Value::I64(1)])])).await;
        let found = db.rows(&format!("SET time_zone = '+00:00'; SELECT v FROM {table}"));
        let wanted: &[&str] = if stored == refused { &[] } else { &[stored] };
        if found != wanted || rejected.len() != 1 - wanted.len() {
            failed.push(format!("{value:?} into {declared}: {found:?} {rejected:?}"));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[tokio::test]
async fn columns_of_any_type_wait_for_values_and_then_keep_to_them() {
    let db = Database::new("any_type", "");
    let mut sink = db.sink(json!({})).await;
    let fields = schema(&[("*id", Type::I64), ("a", Type::Any), ("b", Type::Any)]);
    let first: &[Value] = &[Value::I64(1), Value::Null, Value::F64(3.5)];
    assert_eq!(deliver(&mut *sink, rows(&fields, &[(Insert, first)])).await, []);
    assert_eq!(db.rows("SELECT * FROM t"), ["1|3.5"]);
    let second: &[Value] = &[Value::I64(2), text("now"), Value::I64(4)];
    assert_eq!(deliver(&mut *sink, rows(&fields, &[(Insert, second)])).await, []);
    let third: &[Value] = &[Value::I64(3), Value::Bytes(vec![1]), text("4.25")];
    let fourth: &[Value] = &[Value::I64(4), Value::I64(4), text("four")];
    let rejected = deliver(&mut *sink, rows(&fields, &[(Insert, third), (Insert, fourth)])).await;
    assert_eq!(
        rejected.iter().map(|r| r.row).collect::<Vec<_>>(),
        [0, 1],
        "{rejected:?}"
    );
    assert!(
        rejected[0]
            .reason
            .contains("a bytes does not fit a column of type longtext"),
        "{rejected:?}"
    );
    assert_eq!(db.rows("SELECT id, a, b FROM t ORDER BY id"), ["1|NULL|3.5", "2|now|4"]);
}
