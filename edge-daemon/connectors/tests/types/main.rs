//! What becomes of every type in every destination that stores types: the real sink writes into the real server, something
//! that is not ours reads, and each value is found exactly, or converted as somebody was told, or was rejected with a reason.
//! Anything else fails.
//!
//! The result is `docs/TYPES.md`, and the test fails while the page says something else. `UPDATE=1 cargo test -p connectors
//! --test types` writes it; read the difference.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cases;
mod influx;
mod names;
mod page;
mod places;

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};

use bus_schema::{
    data::{BatchBuilder, Field, Op, Origin, Schema, Type, Value},
    id::StreamId,
};
use cases::{Case, Told};
use flow::{Delivery, Position, Sink};
use page::Outcome;
use places::{Place, Row};
use serde_json::json;

/// What the program logs.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Of the whole process: sinks write in threads of their own.
    fn install() -> Self {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::set_global_default(subscriber).unwrap();
        log
    }

    /// What was logged since the last time.
    fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes and commits one row; the reason when it is rejected.
async fn deliver(sink: &mut dyn Sink, fields: [Field; 2], op: Op, row: [Value; 2]) -> Result<(), String> {
    let stream = StreamId::from_hash(&bus_schema::id::hash("test", &[b"types"]));
    let seq = sink.watermark(&stream).await.unwrap().unwrap_or_default().seq + 1;
    let schema = Schema {
        collection: "types".into(),
        fields: fields.into(),
    };
    let mut builder = BatchBuilder::new(schema.into());
    builder.push(op, &row.each_ref().map(Value::as_cell)).unwrap();
    let delivery = Delivery {
        stream,
        seq,
        position: Position::new(seq.to_be_bytes()),
        batch: builder.finish(Origin::default()),
        tally: flow::Tally::default(),
        bytes: 0,
    };
    let rejected = sink.write(&[delivery]).await.unwrap();
    sink.commit().await.unwrap();
    // Of one that gathers.
    sink.complete(&stream).await.unwrap();
    rejected.into_iter().next().map_or(Ok(()), |row| Err(row.reason))
}

fn key() -> Field {
    Field::new("id", Type::I64).key()
}

/// What the reference of a component says, as one line.
fn reference(component: &str) -> String {
    let mut descriptors = connectors::components().into_iter().map(|it| (it.descriptor)());
    let found = descriptors.find(|descriptor| {
        descriptor.name == component && descriptor.role == bus_schema::plan::ComponentRole::Destination
    });
    found.unwrap().schema.replace("\\n", " ")
}

/// Puts one value into a table of its own, and says what came of it. `Err`: something that nobody was told.
async fn outcome(place: &dyn Place, table: &str, case: &Case, log: &Log) -> Result<Outcome, String> {
    let mut sink = place.sink(table, json!({}))?;
    sink.open().await.unwrap();
    log.take();
    let fields = [key(), Field::new("v", case.ty.clone())];
    let written = deliver(&mut *sink, fields, Op::Insert, [Value::I64(1), case.value.clone()]).await;
    let (logged, row) = (log.take(), place.read(table, "v"));
    let found = match (written, row) {
        (Err(reason), Row::None) => return Ok(Outcome::Rejected(reason)),
        (Err(reason), row) => return Err(format!("rejected ({reason}), and yet there is {row:?}")),
        (Ok(()), Row::Without) if case.exact.is_none() => return Ok(Outcome::NoColumn),
        (Ok(()), Row::With(found)) => found,
        (Ok(()), row) => return Err(format!("taken, and there is {row:?}")),
    };
    // Of a column of any type, each value brings its own.
    let ty = case.value.as_cell().type_of().filter(|_| case.ty == Type::Any);
    let plain = place.plain(ty.as_ref().unwrap_or(&case.ty), &found);
    if plain == case.exact {
        return Ok(Outcome::Exact(found.kind));
    }
    let told = |told: Told| match told {
        Told::Log(lines) => lines.iter().all(|line| logged.contains(line)),
        Told::Reference(text) => reference(place.component()).contains(text),
    };
    let loss = case.losses.iter().find(|loss| loss.left == plain && told(loss.told));
    match loss {
        Some(loss) => Ok(Outcome::Converted(loss.what, found.kind)),
        None => Err(format!("became {found:?} in silence; logged: {logged:?}")),
    }
}

#[tokio::test]
async fn nothing_is_converted_in_silence() {
    let log = Log::install();
    let (places, cases) = (places::places(), cases::cases());
    let (mut types, mut silent) = (Vec::new(), Vec::new());
    for (number, case) in cases.iter().enumerate() {
        let mut outcomes = Vec::new();
        for place in &places {
            match outcome(&**place, &format!("t{number}"), case, &log).await {
                Ok(outcome) => outcomes.push(outcome),
                Err(wrong) => silent.push(format!("{} {} into {}: {wrong}", case.ty, case.what, place.name())),
            }
        }
        types.push((case.ty.to_string(), case.what, outcomes));
    }
    let absent = names::absent(&places, &log, &mut silent).await;
    let named = names::named(&places, &log, &mut silent).await;
    assert!(silent.is_empty(), "{}", silent.join("\n"));
    let heads: Vec<&str> = places.iter().map(|place| place.name()).collect();
    page::check(&page::text(&heads, &types, &absent, &named));
}
