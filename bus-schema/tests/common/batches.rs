//! Batches: fixed ones with every type in them, and random ones for property tests.

use std::sync::Arc;

use bus_schema::data::{Batch, BatchBuilder, Cell, Field, Op, Origin, Schema, Type, Value, Zone};
use proptest::prelude::*;

use super::{Sample, variants};

/// Every type.
pub fn types() -> Vec<Type> {
    variants!(Type {
        Type::Bool => Type::Bool,
        Type::I64 => Type::I64,
        Type::U64 => Type::U64,
        Type::F32 => Type::F32,
        Type::F64 => Type::F64,
        Type::Decimal { .. } => Type::Decimal { precision: 12, scale: 2 },
        Type::Text => Type::Text,
        Type::Bytes => Type::Bytes,
        Type::Date => Type::Date,
        Type::Time => Type::Time,
        Type::Timestamp(Zone::Naive) => Type::Timestamp(Zone::Naive),
        Type::Timestamp(Zone::Utc) => Type::Timestamp(Zone::Utc),
        Type::Timestamp(Zone::Offset) => Type::Timestamp(Zone::Offset),
        Type::Uuid => Type::Uuid,
        Type::Json => Type::Json,
        Type::List => Type::List,
        Type::Any => Type::Any,
    })
}

/// Every kind of value.
pub fn values() -> Vec<Value> {
    variants!(Value {
        Value::Null => Value::Null,
        Value::Missing => Value::Missing,
        Value::Unchanged => Value::Unchanged,
        Value::Bool(_) => Value::Bool(true),
        Value::I64(_) => Value::I64(i64::MIN),
        Value::U64(_) => Value::U64(u64::MAX),
        Value::F32(_) => Value::F32(-0.0),
        Value::F64(_) => Value::F64(0.1),
        Value::Decimal(..) => Value::Decimal(-12_345, 2),
        Value::Text(_) => Value::Text("grüße, 世界".into()),
        Value::Bytes(_) => Value::Bytes(vec![0, 0xff]),
        Value::Date(_) => Value::Date(-719_528),
        Value::Time(_) => Value::Time(86_399_999_999_999),
        Value::Timestamp(_) => Value::Timestamp(-1),
        Value::TimestampUtc(_) => Value::TimestampUtc(951_782_400_000_000_000),
        Value::TimestampOffset(..) => Value::TimestampOffset(7, -90),
        Value::Uuid(_) => Value::Uuid(*b"0123456789abcdef"),
        Value::Json(_) => Value::Json(r#"{"a": 1.0}"#.into()),
        Value::List(_) => Value::List(vec![Value::I64(1), Value::Null, Value::Text("x".into())]),
    })
}

/// Every operation.
pub fn ops() -> Vec<Op> {
    variants!(Op {
        Op::Insert => Op::Insert,
        Op::Update => Op::Update,
        Op::Delete => Op::Delete,
        Op::Upsert => Op::Upsert,
    })
}

pub fn origin() -> Origin {
    Origin {
        source: "db".into(),
        boot: 9,
        uptime_ms: 1_234,
        unix_ms: -5,
    }
}

/// Whether a column of this type takes this value.
pub fn fits(ty: &Type, value: &Value) -> bool {
    let found = value.as_cell().type_of();
    match (ty, found) {
        (_, None) | (Type::Any, _) => true,
        (Type::Decimal { scale, .. }, Some(Type::Decimal { scale: found, .. })) => *scale == found,
        (ty, Some(found)) => *ty == found,
    }
}

/// One column of every type, with a value, null, missing and unchanged in each; every operation; everything in `any`.
pub fn full() -> Batch {
    let types = types();
    let fields = types.iter().enumerate().map(|(at, ty)| {
        let field = Field::new(format!("c{at}"), ty.clone());
        if at == 0 {
            Field {
                nullable: false,
                ..field.key()
            }
        } else {
            field
        }
    });
    let schema = Schema {
        collection: "orders".into(),
        fields: fields.collect(),
    };
    let mut builder = BatchBuilder::new(Arc::new(schema));
    let values = values();
    for row in 0..values.len() {
        let absent = [Cell::Null, Cell::Missing, Cell::Unchanged][row % 3];
        let cells: Vec<Cell<'_>> = types
            .iter()
            .map(|ty| {
                match values
                    .iter()
                    .find(|value| value.as_cell().is_value() && fits(ty, value))
                {
                    _ if *ty == Type::Any => values[row].as_cell(),
                    Some(value) if row % 2 == 0 => value.as_cell(),
                    _ => absent,
                }
            })
            .collect();
        let op = ops()[row % 4];
        builder
            .push(op, &cells)
            .unwrap_or_else(|error| panic!("row {row}: {error}"));
    }
    builder.finish(origin())
}

/// Two rows of two columns.
pub fn small() -> Batch {
    let fields = vec![Field::new("id", Type::I64).key(), Field::new("name", Type::Text)];
    let mut builder = BatchBuilder::new(Arc::new(Schema {
        collection: "t".into(),
        fields,
    }));
    for (id, name) in [(1, Cell::Text("a")), (2, Cell::Null)] {
        builder
            .push(Op::Upsert, &[Cell::I64(id), name])
            .unwrap_or_else(|error| panic!("{error}"));
    }
    builder.finish(origin())
}

pub fn empty() -> Batch {
    BatchBuilder::new(Arc::new(Schema {
        collection: String::new(),
        fields: Vec::new(),
    }))
    .finish(Origin::default())
}

/// Batches read in their own way.
pub fn all() -> Vec<Sample> {
    let sample = |(name, batch): (&str, Batch)| {
        let bytes = batch.encode();
        let read = move |bytes: &[u8]| Batch::decode(bytes).ok().map(|read| read == batch);
        Sample {
            name: name.to_string(),
            bytes,
            read: Box::new(read),
        }
    };
    [
        ("batch full", full()),
        ("batch small", small()),
        ("batch empty", empty()),
    ]
    .map(sample)
    .into()
}

/// A batch as rows of values: what the columnar one must always agree with.
#[derive(Debug, Clone)]
pub struct Model {
    pub schema: Arc<Schema>,
    pub rows: Vec<(Op, Vec<Value>)>,
}

impl Model {
    pub fn batch(&self) -> Batch {
        let mut builder = BatchBuilder::new(Arc::clone(&self.schema));
        for (op, row) in &self.rows {
            let cells: Vec<Cell<'_>> = row.iter().map(Value::as_cell).collect();
            builder
                .push(*op, &cells)
                .unwrap_or_else(|error| panic!("{error}: {row:?}"));
        }
        builder.finish(origin())
    }
}

/// Any value that fits a column; absent ones now and then.
fn value(ty: &Type) -> BoxedStrategy<Value> {
    let present: BoxedStrategy<Value> = match ty {
        Type::Bool => any::<bool>().prop_map(Value::Bool).boxed(),
        Type::I64 => any::<i64>().prop_map(Value::I64).boxed(),
        Type::U64 => any::<u64>().prop_map(Value::U64).boxed(),
        Type::F32 => any::<u32>().prop_map(|bits| Value::F32(f32::from_bits(bits))).boxed(),
        Type::F64 => any::<u64>().prop_map(|bits| Value::F64(f64::from_bits(bits))).boxed(),
        Type::Decimal { scale, .. } => {
            let scale = *scale;
            any::<i128>()
                .prop_map(move |units| Value::Decimal(units, scale))
                .boxed()
        }
        Type::Text => any::<String>().prop_map(Value::Text).boxed(),
        Type::Bytes => any::<Vec<u8>>().prop_map(Value::Bytes).boxed(),
        Type::Date => any::<i32>().prop_map(Value::Date).boxed(),
        Type::Time => any::<u64>().prop_map(Value::Time).boxed(),
        Type::Timestamp(Zone::Naive) => any::<i128>().prop_map(Value::Timestamp).boxed(),
        Type::Timestamp(Zone::Utc) => any::<i128>().prop_map(Value::TimestampUtc).boxed(),
        Type::Timestamp(Zone::Offset) => any::<(i128, i16)>()
            .prop_map(|(nanos, offset)| Value::TimestampOffset(nanos, offset))
            .boxed(),
        Type::Uuid => any::<[u8; 16]>().prop_map(Value::Uuid).boxed(),
        Type::Json => any::<i64>().prop_map(|n| Value::Json(n.to_string())).boxed(),
        Type::List => prop::collection::vec(prop::sample::select(plain_values()), 0..4)
            .prop_map(Value::List)
            .boxed(),
        Type::Any => prop::sample::select(values()).boxed(),
    };
    prop_oneof![6 => present, 1 => Just(Value::Null), 1 => Just(Value::Missing), 1 => Just(Value::Unchanged)].boxed()
}

fn plain_values() -> Vec<Value> {
    values()
        .into_iter()
        .filter(|value| !matches!(value, Value::List(_)))
        .collect()
}

pub fn models() -> impl Strategy<Value = Model> {
    let columns = prop::collection::vec((prop::sample::select(types()), any::<bool>(), any::<bool>()), 1..6);
    let model = |columns: Vec<(Type, bool, bool)>| {
        let fields = columns.iter().enumerate().map(|(at, (ty, nullable, key))| Field {
            name: format!("c{at}"),
            ty: ty.clone(),
            nullable: *nullable,
            key: *key,
        });
        let schema = Arc::new(Schema {
            collection: "t".into(),
            fields: fields.collect(),
        });
        let row: Vec<BoxedStrategy<Value>> = columns.iter().map(|(ty, ..)| value(ty)).collect();
        // All alike most of the time, as in life.
        let op = prop_oneof![Just(Op::Insert), prop::sample::select(ops())];
        let rows = prop::collection::vec((op, row), 0..20);
        rows.prop_map(move |rows| Model {
            schema: Arc::clone(&schema),
            rows,
        })
    };
    columns.prop_flat_map(model)
}
