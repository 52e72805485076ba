//! The store of dead letters against a model of itself, and against damage.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Instant};

use bus_schema::{
    api::FailureKind,
    letter::{LetterCall, LetterPlace, LetterResult, LetterSelect, LetterState},
};
use flow::{DeadLetter, LetterKey, LetterPoint, Stand};
use proptest::prelude::*;

use super::{
    Desk, LetterBox, Letters,
    row::{Row, Stamp, State},
    salvage,
    store::{Filter, Mended, Store},
};

const QUOTA: u64 = 1024 * 1024;
/// Header and schema of a store.
const FIRST_PAGE_BYTES: usize = 4096;

fn letter(seq: u64, row: u32, record: &[u8]) -> DeadLetter {
    DeadLetter {
        key: LetterKey {
            root: "source".into(),
            path: "source->sieve".into(),
            seq,
            row,
        },
        point: LetterPoint::Transform,
        node: "sieve".into(),
        reason: "it does not fit".into(),
        replays: 0,
        record: record.to_vec(),
    }
}

const STAMP: Stamp = Stamp {
    boot: 7,
    uptime_ms: 60_000,
    unix_ms: -1,
};

fn put(store: &mut Store, letters: &[DeadLetter]) {
    store.put(letters, STAMP).unwrap();
}

fn all(store: &Store) -> Vec<Row> {
    store.list(&Filter::default(), 0, usize::MAX).unwrap()
}

fn ids(store: &Store) -> Vec<u64> {
    all(store).iter().map(|row| row.id).collect()
}

fn only(ids: &[u64]) -> Filter {
    Filter {
        ids: ids.to_vec(),
        ..Filter::default()
    }
}

/// The store as it should be, in a few lines.
#[derive(Default, Debug)]
struct Model {
    letters: BTreeMap<u64, Kept>,
    next: u64,
    number: u64,
}

#[derive(Clone, Debug, PartialEq)]
struct Kept {
    key: Option<(u64, u32)>,
    record: Vec<u8>,
    doubtful: bool,
    queued: bool,
    number: Option<u64>,
}

#[derive(Debug, Clone)]
enum Op {
    Put(u64, u32, u8),
    Begin(u64, bool),
    TakeBack(u64, u32),
    Queue(Option<u8>),
    Replays { after: u64, floor: u64, committed: u64 },
    Settle(u8),
    Refuse(u8),
    Purge(u8),
    Reopen,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        6 => (0..8u64, 0..3u32, 0..4u8).prop_map(|(seq, row, record)| Op::Put(seq, row, record)),
        2 => (0..8u64, any::<bool>()).prop_map(|(seq, rereads)| Op::Begin(seq, rereads)),
        1 => (0..8u64, 0..3u32).prop_map(|(seq, row)| Op::TakeBack(seq, row)),
        2 => prop::option::of(0..20u8).prop_map(Op::Queue),
        3 => (0..6u64, 0..6u64, 0..9u64).prop_map(|(after, floor, committed)| Op::Replays { after, floor, committed }),
        1 => (0..20u8).prop_map(Op::Settle),
        1 => (0..20u8).prop_map(Op::Refuse),
        1 => (0..20u8).prop_map(Op::Purge),
        1 => Just(Op::Reopen),
    ];
    prop::collection::vec(op, 1..60)
}

impl Model {
    fn put(&mut self, key: (u64, u32), record: Vec<u8>) {
        if self.letters.values().any(|kept| kept.key == Some(key)) {
            return;
        }
        let former = self
            .letters
            .values_mut()
            .find(|kept| kept.doubtful && kept.record == record);
        if let Some(former) = former {
            (former.doubtful, former.key) = (false, Some(key));
            return;
        }
        self.next += 1;
        let kept = Kept {
            key: Some(key),
            record,
            doubtful: false,
            queued: false,
            number: None,
        };
        self.letters.insert(self.next, kept);
    }

    fn queue(&mut self, id: Option<u64>) {
        for (own, kept) in &mut self.letters {
            let is_meant = id.map_or(!kept.doubtful, |id| id == *own);
            if is_meant && (!kept.queued || kept.doubtful) {
                if kept.doubtful {
                    kept.key = None;
                }
                (kept.queued, kept.doubtful, kept.number) = (true, false, None);
            }
        }
    }

    /// Numbers and ids, and whether there is something later.
    fn replays(&mut self, stand: Stand) -> (Vec<(u64, u64)>, bool) {
        let due: Vec<u64> = {
            let is_due = |kept: &Kept| {
                let is_committed = kept.key.is_none_or(|(seq, _)| seq <= stand.committed);
                kept.queued && !kept.doubtful && is_committed && kept.number.is_none_or(|n| n > stand.after)
            };
            let mut due: Vec<_> = self.letters.iter().filter(|(_, kept)| is_due(kept)).collect();
            due.sort_by_key(|(id, kept)| (kept.number.is_none(), kept.number, **id));
            due.into_iter().map(|(id, _)| *id).take(16).collect()
        };
        let has_later = self
            .letters
            .values()
            .any(|kept| kept.queued && !kept.doubtful && kept.key.is_some_and(|(seq, _)| seq > stand.committed));
        if due.iter().any(|id| self.letters[id].number.is_none()) {
            self.number = self.number.max(stand.floor).max(stand.after);
        }
        let numbered = due.into_iter().map(|id| {
            let kept = self.letters.get_mut(&id).unwrap();
            let number = *kept.number.get_or_insert_with(|| {
                self.number += 1;
                self.number
            });
            (number, id)
        });
        (numbered.collect(), has_later)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(40) })]

    #[test]
    fn the_store_does_what_its_model_does(ops in ops()) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w.letters");
        let mut store = salvage::open(&path, QUOTA).unwrap();
        let mut model = Model::default();
        for op in ops {
            let nth = |model: &Model, n: u8| model.letters.keys().nth(usize::from(n)).copied();
            match op {
                Op::Put(seq, row, record) => {
                    put(&mut store, &[letter(seq, row, &[record])]);
                    model.put((seq, row), vec![record]);
                }
                Op::Begin(seq, rereads) => {
                    store.begin("source", seq, rereads).unwrap();
                    store.begin("another", 0, rereads).unwrap();
                    for kept in model.letters.values_mut().filter(|kept| kept.key.is_some_and(|key| key.0 > seq)) {
                        (kept.key, kept.number) = (None, None);
                        kept.doubtful |= rereads;
                    }
                }
                Op::TakeBack(seq, row) => {
                    store.take_back(&[letter(seq, row, &[]).key]).unwrap();
                    model.letters.retain(|_, kept| kept.key != Some((seq, row)));
                }
                Op::Queue(None) => {
                    store.queue(&Filter::default()).unwrap();
                    model.queue(None);
                }
                Op::Queue(Some(n)) => {
                    if let Some(id) = nth(&model, n) {
                        store.queue(&only(&[id])).unwrap();
                        model.queue(Some(id));
                    }
                }
                Op::Replays { after, floor, committed } => {
                    let stand = Stand { after, floor, committed };
                    let due = store.replays("source", stand).unwrap();
                    prop_assert_eq!(store.replays("another", stand).unwrap().replays, vec![]);
                    let found: Vec<(u64, u64)> = due.replays.iter().map(|replay| (replay.number, replay.id)).collect();
                    prop_assert_eq!((found, due.has_later), model.replays(stand));
                }
                Op::Settle(n) => {
                    if let Some(id) = nth(&model, n) {
                        store.settled(&[id, 9999]).unwrap();
                        model.letters.remove(&id);
                    }
                }
                Op::Refuse(n) => {
                    if let Some(id) = nth(&model, n) {
                        store.refuse(id, "no").unwrap();
                        let kept = model.letters.get_mut(&id).unwrap();
                        (kept.queued, kept.doubtful, kept.number) = (false, false, None);
                    }
                }
                Op::Purge(n) => {
                    if let Some(id) = nth(&model, n) {
                        prop_assert_eq!(store.purge(&only(&[id])).unwrap(), 1);
                        model.letters.remove(&id);
                    }
                }
                Op::Reopen => {
                    drop(store);
                    store = salvage::open(&path, QUOTA).unwrap();
                }
            }
            let found: BTreeMap<u64, Kept> = all(&store).iter().map(|row| (row.id, Kept {
                key: row.key,
                record: store.record(row).unwrap(),
                doubtful: row.state.is_doubtful(),
                queued: row.state.is_queued(),
                number: row.number,
            })).collect();
            prop_assert_eq!(&found, &model.letters);
        }
        prop_assert_eq!(store.counters().damaged, 0);
    }

    /// Whatever happens to the file: what is given out is what was put in, what is not is counted, and it goes on.
    #[test]
    fn damage_costs_what_it_hits(
        at in 0.0..1.0f64, schema in any::<bool>(), bit in 0..8u8, cut in any::<bool>(), size in 1..5000usize,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let letters = Letters::new(dir.path(), QUOTA, 7, Instant::now());
        let own = letters.of("w");
        let record = |n: u64| vec![n as u8; size + n as usize];
        let written: Vec<DeadLetter> = (1..=40).map(|n| letter(n, 0, &record(n))).collect();
        own.with(|store| { put(store, &written); Ok(()) }).unwrap();
        *own.lock() = None;
        let mut bytes = std::fs::read(&own.path).unwrap();
        let within = if schema { FIRST_PAGE_BYTES } else { bytes.len() };
        let place = ((within as f64) * at) as usize;
        if cut { bytes.truncate(place) } else { bytes[place] ^= 1 << bit }
        std::fs::write(&own.path, &bytes).unwrap();

        let look = |store: &mut Store| {
            let rows = store.list(&Filter::default(), 0, usize::MAX)?;
            for row in &rows {
                assert_eq!(store.record(row)?, record(row.id));
                assert_eq!((row.reason.as_str(), row.node.as_str()), ("it does not fit", "sieve"));
            }
            Ok(rows.len())
        };
        let found = own.with(look).unwrap();
        let damaged = own.with(|store| Ok(store.counters().damaged)).unwrap();
        prop_assert!(found == 40 || damaged > 0, "{found} letters, and nothing is said");
        // Some damage shows only when something is written: in an index, or in the list of free pages.
        let more = own.with(|store| {
            store.put(&[letter(99, 0, b"new")], STAMP)?;
            Ok(ids(store))
        }).unwrap();
        let damaged = own.with(|store| Ok(store.counters().damaged)).unwrap();
        let is_aside = std::fs::read_dir(dir.path().join("dead")).unwrap()
            .any(|entry| entry.unwrap().file_name().to_string_lossy().contains("damaged"));
        prop_assert_eq!(is_aside, damaged > 0);
        prop_assert_eq!(more.len(), found + 1, "{:?}", more);
        prop_assert!(*more.last().unwrap() > 40 || found == 0, "an id is used twice: {:?}", more);
    }
}

/// A store of three letters in a file, closed.
fn three_letters(dir: &Path) -> Arc<LetterBox> {
    let own = Letters::new(dir, QUOTA, 7, Instant::now()).of("w");
    own.with(|store| {
        put(store, &[letter(1, 0, b"a"), letter(2, 0, b"b"), letter(3, 0, b"c")]);
        Ok(())
    })
    .unwrap();
    *own.lock() = None;
    own
}

/// Letters left, and how often damage was found.
fn left(own: &LetterBox) -> (usize, u64) {
    own.with(|store| Ok((ids(store).len(), store.counters().damaged)))
        .unwrap()
}

/// Damage that SQLite itself does not see, or that is not where the letters are.
#[test]
fn damage_costs_only_the_letters_it_hits() {
    for (what, sound, damaged, expected) in [
        ("a column's name", &b"reason TEXT"[..], &b"seasonxTEXT"[..], 3),
        (
            "a column's name, which is no text",
            b"reason TEXT",
            b"reaso\xff TEXT",
            3,
        ),
        (
            "what makes the id the rowid",
            b"id INTEGER PRIMARY KEY, root",
            b"id INTEGES PRIMARY KEY, root",
            3,
        ),
        (
            "the header's word on writing",
            b"SQLite format 3\0\x10\0\x01",
            b"SQLite format 3\0\x10\0\x41",
            3,
        ),
        ("a column's name in an index", b"(digest)", b"(dige\x01t)", 3),
        ("one letter's reason", b"it does not fit", b"it does \xffot fit", 2),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let own = three_letters(dir.path());
        let mut bytes = std::fs::read(&own.path).unwrap();
        let at = bytes.windows(sound.len()).position(|bytes| bytes == sound).expect(what);
        bytes[at..at + sound.len()].copy_from_slice(damaged);
        std::fs::write(&own.path, &bytes).unwrap();
        assert_eq!(left(&own), (expected, 1), "{what}");
    }
}

/// SQLite takes a file that was cut to nothing for a new one.
#[test]
fn an_empty_file_is_a_damaged_one() {
    for bytes in [0, 1] {
        let dir = tempfile::tempdir().unwrap();
        let own = three_letters(dir.path());
        let sound = std::fs::read(&own.path).unwrap();
        std::fs::write(&own.path, &sound[..bytes]).unwrap();
        assert_eq!(left(&own), (0, 1), "{bytes}");
    }
}

#[test]
fn the_oldest_make_room_and_those_that_wait_go_last() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = salvage::open(&dir.path().join("w.letters"), 10_000).unwrap();
    for n in 1..=4 {
        put(&mut store, &[letter(n, 0, &[0; 1800])]);
    }
    assert_eq!(ids(&store), [1, 2, 3, 4]);
    store.queue(&only(&[1])).unwrap();
    put(&mut store, &[letter(5, 0, &[0; 1800]), letter(6, 0, &[0; 1800])]);
    assert_eq!((ids(&store), store.counters().evicted), (vec![1, 4, 5, 6], 2));
    // Larger than everything together: it stays whole, and drives out no more than its share.
    put(&mut store, &[letter(7, 0, &[1; 50_000])]);
    assert_eq!((ids(&store), store.counters().evicted), (vec![1, 6, 7], 4));
    let (row, part) = store.show(7, 49_990, 100).unwrap().unwrap();
    assert_eq!((row.record_bytes, part), (50_000, vec![1; 10]));
    put(&mut store, &[letter(8, 0, &[2; 10])]);
    assert_eq!(ids(&store), [1, 7, 8]);
    // Of such only the newest stays, also after the store was opened anew.
    drop(store);
    let mut store = salvage::open(&dir.path().join("w.letters"), 10_000).unwrap();
    put(&mut store, &[letter(9, 0, &[3; 60_000])]);
    assert_eq!((ids(&store), store.counters().evicted), (vec![1, 8, 9], 6));
    put(&mut store, &[letter(10, 0, &[4; 1800]), letter(11, 0, &[4; 1800])]);
    assert_eq!((ids(&store), store.counters().evicted), (vec![1, 10, 11], 8));
}

/// A letter that came to nothing is known as one, and only whoever names it tries it again.
#[test]
fn a_letter_in_doubt_is_not_tried_with_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = salvage::open(&dir.path().join("w.letters"), QUOTA).unwrap();
    put(
        &mut store,
        &[letter(1, 0, b"a"), letter(2, 0, b"b"), letter(2, 1, b"b")],
    );
    store.begin("source", 1, true).unwrap();
    put(&mut store, &[letter(2, 5, b"b")]);
    let states = |store: &Store| all(store).iter().map(|row| row.state).collect::<Vec<_>>();
    assert_eq!(states(&store), [State::Kept, State::Kept, State::Doubtful]);
    let queued = store.queue(&Filter::default()).unwrap();
    assert_eq!((queued.queued, queued.doubtful), (2, 1));
    assert_eq!(store.queue(&only(&[3])).unwrap().queued, 1);
    assert_eq!(states(&store), [State::Queued; 3]);
}

#[test]
fn a_letter_that_waits_gets_another_record() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.letters");
    let mut store = salvage::open(&path, QUOTA).unwrap();
    let source = DeadLetter {
        point: LetterPoint::Source,
        ..letter(3, 0, b"raw")
    };
    put(&mut store, &[letter(1, 0, b"old"), letter(2, 0, b"queued"), source]);
    store.queue(&only(&[2])).unwrap();
    let longer = |record: &[u8]| Ok([record, b", and more"].concat());
    assert_eq!(store.mend(1, longer).unwrap(), Mended::Done);
    assert_eq!(store.mend(2, longer).unwrap(), Mended::Busy);
    assert_eq!(store.mend(3, longer).unwrap(), Mended::Busy);
    assert_eq!(store.mend(4, longer).unwrap(), Mended::None);
    assert_eq!(store.mend(1, |_| Err("no".into())).unwrap(), Mended::Wrong("no".into()));
    // On disk, and sound.
    drop(store);
    let mut store = salvage::open(&path, QUOTA).unwrap();
    let (row, record) = store.show(1, 0, 100).unwrap().unwrap();
    assert_eq!((record.as_slice(), row.record_bytes), (&b"old, and more"[..], 13));
    store.queue(&only(&[1])).unwrap();
    let stand = Stand {
        after: 0,
        floor: 0,
        committed: 9,
    };
    let due = store.replays("source", stand).unwrap().replays;
    assert_eq!(
        due.iter().map(|replay| replay.record.as_slice()).collect::<Vec<_>>()[0],
        b"old, and more"
    );
}

#[test]
fn the_desk_gives_pages() {
    let dir = tempfile::tempdir().unwrap();
    let letters = Letters::new(dir.path(), QUOTA, 7, Instant::now());
    for (workflow, count) in [("a", 100u64), ("b", 1), ("c", 150)] {
        let all: Vec<_> = (1..=count).map(|n| letter(n, 0, &n.to_le_bytes())).collect();
        letters
            .of(workflow)
            .with(|store| {
                put(store, &all);
                Ok(())
            })
            .unwrap();
    }
    let desk = Desk::new(letters, vec!["a".into(), "b".into()]);
    let (mut after, mut found, mut pages) = (None, Vec::new(), 0);
    loop {
        let call = LetterCall::List {
            select: LetterSelect::default(),
            after,
        };
        let (LetterResult::Page(page), _) = desk.answer(&call) else {
            panic!()
        };
        assert_eq!(page.boxes.len(), if pages == 0 { 3 } else { 0 });
        assert!(bus_schema::encode(&page).len() <= bus_schema::limits::MESSAGE_BYTES_MAX);
        pages += 1;
        found.extend(page.letters.into_iter().map(|letter| letter.place));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let expected = [("a", 100), ("b", 1), ("c", 150)]
        .into_iter()
        .flat_map(|(workflow, count)| {
            (1..=count).map(move |id| LetterPlace {
                workflow: workflow.to_string(),
                id,
            })
        });
    assert_eq!(found, expected.collect::<Vec<_>>());
    assert!((3..=4).contains(&pages), "{pages}");

    let place = |workflow: &str, id| LetterPlace {
        workflow: workflow.to_string(),
        id,
    };
    for (missing, id) in [("a", 101), ("x", 1), ("../a", 1)] {
        let call = LetterCall::Show {
            letter: place(missing, id),
            offset: 0,
        };
        let (LetterResult::Failed(failure), _) = desk.answer(&call) else {
            panic!("{missing}/{id}")
        };
        assert_eq!(failure.kind, FailureKind::NotFound);
    }
    let select = |workflow: &str, ids: &[u64]| LetterSelect {
        workflow: workflow.into(),
        node: String::new(),
        ids: ids.to_vec(),
    };
    let (done, wished) = desk.answer(&LetterCall::Replay(select("", &[1])));
    let LetterResult::Done { letters: 3, notes, .. } = done else {
        panic!("{done:?}")
    };
    assert_eq!((notes.len(), wished), (1, vec!["a".to_string(), "b".to_string()]));
    let (shown, _) = desk.answer(&LetterCall::Show {
        letter: place("a", 1),
        offset: 3,
    });
    let LetterResult::Letter { letter: shown, bytes } = shown else {
        panic!("{shown:?}")
    };
    assert_eq!((shown.state, bytes.len(), shown.boot), (LetterState::Queued, 5, 7));
    let (done, _) = desk.answer(&LetterCall::Purge(LetterSelect {
        node: "sieve".into(),
        ..select("c", &[])
    }));
    assert_eq!(
        done,
        LetterResult::Done {
            letters: 150,
            doubtful: 0,
            notes: vec![]
        }
    );
}
