//! No bytes panic: noise, and every valid message and batch with a few bytes changed, are read or refused.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use bus_schema::{
    access::User,
    data::{Batch, Cell, Value},
    id::{NodeId, base32, from_base32},
    member::{Invitation, Roster, Signed},
    message::Body,
    plan::Plan,
    subject::{Dialect, Pattern, Subject},
};
use common::{Sample, all, batches, invitation};
use proptest::{prelude::*, sample::Index};

/// Changes bytes, cuts or lengthens.
#[derive(Debug, Clone)]
enum Change {
    Set(Index, u8),
    Cut(Index),
    Insert(Index, u8),
    Remove(Index),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => any::<(Index, u8)>().prop_map(|(at, byte)| Change::Set(at, byte)),
        1 => any::<Index>().prop_map(Change::Cut),
        1 => any::<(Index, u8)>().prop_map(|(at, byte)| Change::Insert(at, byte)),
        1 => any::<Index>().prop_map(Change::Remove),
    ]
}

fn changed(bytes: &[u8], changes: &[Change]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for change in changes {
        let len = bytes.len();
        match change {
            _ if len == 0 => {}
            Change::Set(at, byte) => bytes[at.index(len)] = *byte,
            Change::Cut(at) => bytes.truncate(at.index(len)),
            Change::Insert(at, byte) => bytes.insert(at.index(len), *byte),
            Change::Remove(at) => drop(bytes.remove(at.index(len))),
        }
    }
    bytes
}

/// Does with a batch whatever one can do with it. Whoever decoded it relies on its columns being as long as it says.
fn use_it(batch: &Batch) {
    let every: Vec<usize> = (0..batch.rows()).collect();
    for part in [
        batch.take(&every),
        batch.slice(1..batch.rows() + 5),
        batch.take(&[0, batch.rows(), usize::MAX]),
    ] {
        for column in part.columns() {
            assert_eq!(column.len(), part.rows(), "a column lost rows");
        }
    }
    for row in 0..batch.rows() {
        batch.op(row);
        for column in 0..batch.columns().len() {
            let cell = batch.cell(row, column);
            let _ = (cell.to_string(), cell.size_hint(), cell.type_of());
            let _: Value = cell.to_value();
        }
    }
    let again = Batch::decode(&batch.take(&every).encode()).unwrap();
    assert_eq!(again.rows(), batch.rows());
}

fn samples() -> Vec<Sample> {
    all()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn noise_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        thread_local!(static SAMPLES: Vec<Sample> = samples());
        SAMPLES.with(|samples| {
            for sample in samples {
                let _ = (sample.read)(&bytes);
            }
        });
        let _ = Body::decode(&bytes);
        if let Ok(batch) = Batch::decode(&bytes) {
            use_it(&batch);
        }
    }

    #[test]
    fn changed_messages_are_read_or_refused(
        changes in prop::collection::vec(change(), 1..6),
        which in any::<Index>(),
    ) {
        thread_local!(static SAMPLES: Vec<Sample> = samples());
        SAMPLES.with(|samples| {
            let sample = which.get(samples);
            let bytes = changed(&sample.bytes, &changes);
            let _ = (sample.read)(&bytes);
            let _ = Body::decode(&bytes);
        });
    }

    #[test]
    fn changed_batches_are_whole_or_refused(
        changes in prop::collection::vec(change(), 1..6),
        model in batches::models(),
        use_full in any::<bool>(),
    ) {
        let batch = if use_full { batches::full() } else { model.batch() };
        if let Ok(batch) = Batch::decode(&changed(&batch.encode(), &changes)) {
            use_it(&batch);
        }
    }

    #[test]
    fn changed_documents_are_refused(changes in prop::collection::vec(change(), 1..6), which in any::<bool>()) {
        let sample = if which { "signed roster" } else { "signed plan" };
        let sample = common::documents().into_iter().find(|document| document.name == sample).unwrap();
        let bytes = changed(&sample.bytes, &changes);
        prop_assume!(bytes != sample.bytes);
        // What still reads as a signed document is not believed, unless only the spelling of a length has changed.
        if let Some(signed) = bus_schema::decode::<Signed<Roster>>(&bytes)
            && let Ok(roster) = signed.open(&common::root().public().sign)
        {
            prop_assert_eq!(roster, common::roster());
        }
        if let Some(signed) = bus_schema::decode::<Signed<Plan>>(&bytes)
            && let Ok(plan) = signed.open(&common::identity(30).public().sign)
        {
            prop_assert_eq!(plan, common::plan());
        }
    }

    #[test]
    fn any_text_is_an_invitation_or_refused(text in any::<String>(), changes in prop::collection::vec(change(), 1..4)) {
        prop_assert!(Invitation::decode(&text).is_err());
        let text = format!("myc1{text}");
        prop_assert!(Invitation::decode(&text).is_err());
        let damaged = changed(invitation().encode().as_bytes(), &changes);
        if let Ok(read) = Invitation::decode(&String::from_utf8_lossy(&damaged)) {
            prop_assert_eq!(read, invitation());
        }
        // Past the check, noise is another version at most.
        let noise = bus_schema::id::hash("mycelial invitation v1", &[text.as_bytes()]);
        let noise = [text.as_bytes(), &noise[..5]].concat();
        let _ = Invitation::decode(&format!("myc1{}", base32(&noise)));
    }

    #[test]
    fn any_text_is_a_subject_or_refused(text in "[a-z0-9_./$*>+# \u{e4}-]{0,40}|.*") {
        for dialect in [Dialect::Nats, Dialect::Mqtt] {
            if let Ok(subject) = Subject::from_wire(&text, dialect) {
                prop_assert_eq!(subject.render(dialect), text.clone());
                prop_assert_eq!(Subject::parse(subject.as_str()), Ok(subject.clone()));
                prop_assert!(Pattern::from(subject.clone()).matches(&subject));
                let _ = subject.address();
            }
        }
        if let Ok(pattern) = Pattern::parse(&text) {
            prop_assert!(pattern.contains(&pattern));
            let _ = pattern.render(Dialect::Mqtt);
        }
        let _ = (text.parse::<NodeId>(), User::parse(&text), from_base32(&text));
    }

    #[test]
    fn base32_reads_back(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        prop_assert_eq!(from_base32(&base32(&bytes)), Some(bytes));
    }
}

/// A hostile producer nests lists; taking rows of such a column would lose some of them.
#[test]
fn a_list_inside_a_list_is_refused() {
    use bus_schema::data::{BatchBuilder, Field, Op, Schema, Type};
    let schema = Schema {
        collection: String::new(),
        fields: vec![Field::new("l", Type::List)],
    };
    let mut builder = BatchBuilder::new(schema.clone().into());
    let inner = [Value::List(vec![Value::Null])];
    assert!(builder.push(Op::Insert, &[Cell::List(&inner)]).is_err());
    assert_eq!(builder.rows(), 0);
    builder
        .push(Op::Insert, &[Cell::List(&[Value::List(vec![])][..0])])
        .unwrap();
    let mut bytes = builder.finish(batches::origin()).encode();
    // One empty list becomes one list of one empty list: counts 1, 0 become 1, 1, list, 0.
    let values_of_one_empty_list = [14, 1, 0];
    let at = bytes
        .windows(3)
        .position(|window| window == values_of_one_empty_list)
        .unwrap();
    let list_variant = bus_schema::encode(&Value::List(vec![]))[0];
    bytes.splice(at..at + 3, [14, 1, 1, list_variant, 0]);
    let error = Batch::decode(&bytes).unwrap_err();
    assert!(error.to_string().contains("a list inside a list"), "{error}");
}
