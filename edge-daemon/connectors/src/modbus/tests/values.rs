//! What devices hold becomes what it is, over every line there is.

use testkit::Tls;

use super::*;

const ORDERS: [&str; 4] = ["ABCD", "CDAB", "BADC", "DCBA"];

/// Type, registers, value, and the value as a test shows it.
fn values() -> Vec<(&'static str, u16, Json, &'static str)> {
    vec![
        ("u16", 1, json!(0), "0"),
        ("u16", 1, json!(65_535), "65535"),
        ("u16", 1, json!(258), "258"),
        ("i16", 1, json!(-32_768), "-32768"),
        ("i16", 1, json!(-2), "-2"),
        ("u32", 2, json!(4_294_967_294_u32), "4294967294"),
        ("u32", 2, json!(16_909_060), "16909060"),
        ("i32", 2, json!(i32::MIN), "-2147483648"),
        ("i32", 2, json!(-2), "-2"),
        ("u64", 4, json!(u64::MAX - 1), "18446744073709551614"),
        ("u64", 4, json!(72_623_859_790_382_856_u64), "72623859790382856"),
        ("i64", 4, json!(i64::MIN), "-9223372036854775808"),
        ("i64", 4, json!(-2), "-2"),
        ("f32", 2, json!(1.5), "1.5"),
        ("f32", 2, json!(-0.15625), "-0.15625"),
        ("f32", 2, json!("NaN"), "NaN"),
        ("f32", 2, json!("-inf"), "-inf"),
        ("f64", 4, json!(std::f64::consts::PI), "3.141592653589793"),
        ("f64", 4, json!(-1e300), "-1e300"),
        ("text", 3, json!("Hä°"), "Hä°"),
    ]
}

/// Every type in every order, one register behind the other: the devices, the points, the row.
fn everything() -> (Json, Json, String) {
    let (mut entries, mut points, mut row) = (Vec::new(), Vec::new(), vec!["1".to_string()]);
    let mut address = 100;
    for order in ORDERS {
        for (number, (kind, registers, value, shown)) in values().into_iter().enumerate() {
            entries.push(json!([address, kind, order, value]));
            let mut point = json!({
                "name": format!("{order}{number}"), "table": "holding", "address": address, "type": kind, "order": order,
            });
            if kind == "text" {
                point["length"] = json!(registers * 2);
            }
            points.push(point);
            row.push(shown.to_string());
            address += registers;
        }
    }
    row.push("~".to_string());
    (json!([{"id": 1, "holding": entries}]), json!(points), row.join("|"))
}

/// Floats that differ only in how they are written are the same.
fn assert_same(found: &str, wanted: &str) {
    let values = |row: &str| -> Vec<String> {
        let value = |text: &str| match text.parse::<f64>() {
            Ok(float) if text.contains(['.', 'e']) => format!("{float:?}"),
            _ => text.to_string(),
        };
        row.split('|').map(value).collect()
    };
    assert_eq!(values(found), values(wanted));
}

#[tokio::test]
async fn every_type_in_every_order_over_tcp() {
    let (units, points, row) = everything();
    let devices = Modbus::start(&json!({"units": units}));
    let mut source = modbus(&at(&devices), &points);
    source.open(None).await.unwrap();
    assert_same(&look(&mut *source).await.unwrap(), &row);
    source.close().await;
    // 192 registers side by side are two questions; values are not torn.
    let asked = devices.asked();
    let registers: u16 = asked[..2]
        .iter()
        .map(|asked| asked.rsplit(' ').next().unwrap().parse::<u16>().unwrap())
        .sum();
    assert_eq!(registers, 192, "{asked:?}");
}

#[tokio::test]
async fn the_same_on_a_serial_line() {
    let (units, points, row) = everything();
    let devices = Modbus::start(&json!({"units": units, "serial": true}));
    let line = json!({"serial": {"device": devices.serial_port(), "parity": "none"}});
    let mut source = modbus(&line, &points);
    source.open(None).await.unwrap();
    for _ in 0..3 {
        assert_same(&look(&mut *source).await.unwrap(), &row);
    }
}

#[tokio::test]
async fn the_same_behind_a_converter() {
    let (units, points, row) = everything();
    let devices = Modbus::start(&json!({"units": units, "framing": "rtu"}));
    let mut place = at(&devices);
    place["framing"] = json!("rtu");
    let mut source = modbus(&place, &points);
    source.open(None).await.unwrap();
    assert_same(&look(&mut *source).await.unwrap(), &row);
}

#[tokio::test]
async fn the_same_under_tls() {
    let ((units, points, row), tls) = (everything(), Tls::new());
    let devices = Modbus::start_with_tls(&json!({"units": units}), &tls);
    let client = tls.client("gateway");
    let place = json!({
        "host": "localhost", "port": devices.port(),
        "tls": {"ca_file": tls.ca(), "cert_file": client.cert, "key_file": client.key},
    });
    let mut source = modbus(&place, &points);
    source.open(None).await.unwrap();
    assert_same(&look(&mut *source).await.unwrap(), &row);
    source.close().await;
    let stranger = json!({"host": "localhost", "port": devices.port(), "tls": {"ca_file": tls.ca()}});
    let mut source = modbus(&stranger, &points);
    let fault = match source.open(None).await {
        Err(fault) => fault.to_string(),
        Ok(()) => broken(&mut *source).await,
    };
    assert!(fault.contains("localhost"), "{fault}");
}

#[tokio::test]
async fn tables_bits_and_scales() {
    let devices = Modbus::start(&json!({"units": [{
        "id": 1,
        "coil": [[3, [true, false, true]]],
        "discrete_input": [[1999, true]],
        "input": [[0, "u16", "ABCD", 5], [1, "i16", "ABCD", -123]],
        "holding": [[0, "u16", "ABCD", 9]],
    }]}));
    let points = json!([
        {"name": "c3", "table": "coil", "address": 3},
        {"name": "c4", "table": "coil", "address": 4},
        {"name": "c5", "table": "coil", "address": 5},
        {"name": "d", "table": "discrete_input", "address": 1999},
        {"name": "bit0", "table": "input", "address": 0, "type": "bool", "bit": 0},
        {"name": "bit1", "table": "input", "address": 0, "type": "bool", "bit": 1},
        {"name": "any", "table": "input", "address": 0, "type": "bool"},
        {"name": "raw", "table": "input", "address": 1, "type": "i16"},
        {"name": "degrees", "table": "input", "address": 1, "type": "i16", "factor": 0.1, "offset": 0.2},
        {"name": "plain", "table": "holding", "address": 0},
    ]);
    let mut source = modbus(&at(&devices), &points);
    source.open(None).await.unwrap();
    let row = look(&mut *source).await.unwrap();
    let wanted = "1|true|false|true|true|true|false|true|-123|-12.1|9|~";
    assert_eq!(row, wanted);
    source.close().await;
    assert_eq!(
        devices.asked()[..4],
        ["1 coil 3 3", "1 discrete_input 1999 1", "1 holding 0 1", "1 input 0 2"]
    );
}

#[tokio::test]
async fn several_units_and_rows_of_single_points() {
    let devices = Modbus::start(&json!({"units": [
        {"id": 7, "holding": [[0, "u16", "ABCD", 70], [1, "text", "ABCD", "ab"]]},
        {"id": 9, "holding": [[0, "u16", "ABCD", 90]]},
    ]}));
    let points = json!([
        {"name": "n", "table": "holding", "address": 0},
        {"name": "t", "table": "holding", "address": 1, "type": "text", "length": 2, "units": [7]},
    ]);
    let mut place = at(&devices);
    place["units"] = json!([7, 9]);
    let mut wide = modbus(&place, &points);
    wide.open(None).await.unwrap();
    assert_eq!(look(&mut *wide).await.unwrap(), "7|70|ab|~\n9|90|?|~");
    wide.close().await;
    place["rows"] = json!("long");
    let mut long = modbus(&place, &points);
    long.open(None).await.unwrap();
    assert_eq!(look(&mut *long).await.unwrap(), "7|n|70|~\n7|t|ab|~\n9|n|90|~");
}
