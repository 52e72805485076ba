//! The data of all cases: made from fixed seeds, about as large as a batch is when it is closed. Reads and writes nothing.

use std::{fmt::Write as _, sync::Arc};

use anyhow::Result;
use bus_schema::data::{Batch, BatchBuilder, Cell, Field, Op, Origin, Schema, Type};

/// Rows of a table that make a full batch (54 KB).
pub const TABLE_ROWS: usize = 1_000;
/// JSON records that make a full batch (57 KB of lines).
pub const RECORD_ROWS: usize = 270;

/// Numbers that look random, the same at every run.
pub struct Noise(u64);

impl Noise {
    /// `seed` is not 0.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next one.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Bytes that cannot be compressed.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let words = (0..count.div_ceil(8)).flat_map(|_| self.next().to_le_bytes());
        words.take(count).collect()
    }
}

/// One row of a table of orders.
pub struct Order {
    pub id: i64,
    pub name: String,
    pub price: f64,
    pub quantity: i64,
    /// Every tenth is null.
    pub note: Option<String>,
}

/// Orders as a shop has them: short texts, some beyond ASCII, numbers, a few nulls.
pub fn orders() -> Vec<Order> {
    const NAMES: [&str; 4] = ["Grüße", "東京", "naïve café", "O'Brien \"quoted\", comma"];
    let mut noise = Noise::new(7);
    let order = |row: usize| Order {
        id: row as i64 + 1,
        name: format!("{} {row}", NAMES[row % NAMES.len()]),
        price: (noise.next() % 100_000) as f64 / 100.0,
        quantity: (noise.next() % 40) as i64,
        note: (!row.is_multiple_of(10)).then(|| format!("note {row}")),
    };
    (0..TABLE_ROWS).map(order).collect()
}

/// The orders as a batch.
pub fn table() -> Result<Batch> {
    let fields = vec![
        Field::new("id", Type::I64).key(),
        Field::new("name", Type::Text),
        Field::new("price", Type::F64),
        Field::new("quantity", Type::I64),
        Field::new("note", Type::Text),
    ];
    let schema = Schema {
        collection: "orders".into(),
        fields,
    };
    let mut builder = BatchBuilder::new(Arc::new(schema));
    for order in orders() {
        let note = order.note.as_deref().map_or(Cell::Null, Cell::Text);
        let cells = [
            Cell::I64(order.id),
            Cell::Text(&order.name),
            Cell::F64(order.price),
            Cell::I64(order.quantity),
            note,
        ];
        builder.push(Op::Insert, &cells)?;
    }
    Ok(builder.finish(Origin::default()))
}

/// Lines of sensors: 211 bytes each, one nested value.
pub fn lines() -> String {
    let mut noise = Noise::new(11);
    let mut text = String::new();
    for row in 0..RECORD_ROWS {
        let (device, tenths) = (noise.next() % 500, noise.next() % 400);
        let state = ["running", "idle", "maintenance"][(noise.next() % 3) as usize];
        // Writing into a text cannot fail.
        let _ = writeln!(
            text,
            "{{\"ts\":\"2026-01-01T00:{:02}:{:02}Z\",\"device\":\"press-{device:03}\",\"seq\":{row},\"temp_c\":{}.{},\
             \"pressure\":{:.3},\"state\":\"{state}\",\"ok\":{},\"tags\":{{\"line\":{},\"plant\":\"north\"}},\
             \"comment\":\"nothing \\\"unusual\\\" on this shift\"}}",
            row / 60,
            row % 60,
            tenths / 10,
            tenths % 10,
            (noise.next() % 9_000) as f64 / 1000.0,
            !row.is_multiple_of(9),
            device % 8,
        );
    }
    text
}

/// The same records as the file source makes a batch of them.
pub fn records() -> Result<Batch> {
    let named = [
        ("ts", Type::Text),
        ("device", Type::Text),
        ("seq", Type::I64),
        ("temp_c", Type::F64),
        ("pressure", Type::F64),
        ("state", Type::Text),
        ("ok", Type::Bool),
        ("tags", Type::Json),
        ("comment", Type::Text),
    ];
    let schema = Schema {
        collection: "sensors".into(),
        fields: named.into_iter().map(|(name, ty)| Field::new(name, ty)).collect(),
    };
    let mut builder = BatchBuilder::new(Arc::new(schema));
    for line in lines().lines() {
        let value: serde_json::Value = serde_json::from_str(line)?;
        let text = |name: &str| Cell::Text(value[name].as_str().unwrap_or_default());
        let float = |name: &str| Cell::F64(value[name].as_f64().unwrap_or_default());
        let tags = value["tags"].to_string();
        let cells = [
            text("ts"),
            text("device"),
            Cell::I64(value["seq"].as_i64().unwrap_or_default()),
            float("temp_c"),
            float("pressure"),
            text("state"),
            Cell::Bool(value["ok"].as_bool().unwrap_or_default()),
            Cell::Json(&tags),
            text("comment"),
        ];
        builder.push(Op::Insert, &cells)?;
    }
    Ok(builder.finish(Origin::default()))
}
