//! Random calls, clean reopens, kills and segments destroyed, against a model that keeps everything in a `Vec`. What is
//! missing is accounted for record by record.

#![allow(clippy::unwrap_used, reason = "a helper of a test may panic like the test itself")]

mod common;

use std::path::PathBuf;

use common::{LIMITS, assert_balanced, copy_tree, frame, mark, read_all, segments};
use proptest::prelude::*;
use spool::{Error, Frame, Group, Mark, Recovery, Spool, WayBack};

#[derive(Debug, Clone)]
enum Call {
    /// Groups, each with the sizes of its frames.
    Append(Vec<Vec<usize>>),
    /// Frames of these sizes, under the newest mark's root seq.
    Add(Vec<usize>),
    Read {
        from: u64,
        frames_max: usize,
        bytes_max: usize,
    },
    /// Up to this share of what is held, in percent.
    Trim(u64),
    /// Back by so many root seqs.
    Truncate(u64),
    /// So many bytes, when this share of what is held may have been sent, in percent.
    DropOldest(u64, u64),
    AdvanceBy(u64),
    Reopen,
    /// What a kill leaves: the files as they are, nothing closed.
    Kill,
    /// A closed segment is destroyed: which one, modulo their number.
    Damage(usize),
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let size = prop_oneof![3 => 0usize..300, 2 => 5_000usize..14_000, 1 => 60_000usize..98_304];
    let group = prop::collection::vec(size, 0..4);
    let added = prop::collection::vec(0usize..20_000, 1..3);
    let call = prop_oneof![
        8 => prop::collection::vec(group, 1..4).prop_map(Call::Append),
        1 => added.prop_map(Call::Add),
        4 => (any::<u16>(), 0usize..40, 0usize..300_000).prop_map(|(from, frames_max, bytes_max)| Call::Read {
            from: u64::from(from),
            frames_max,
            bytes_max
        }),
        3 => (0u64..=100).prop_map(Call::Trim),
        1 => (0u64..8).prop_map(Call::Truncate),
        2 => (0u64..500_000, 0u64..=60).prop_map(|(bytes, sent)| Call::DropOldest(bytes, sent)),
        1 => (0u64..20_000).prop_map(Call::AdvanceBy),
        1 => Just(Call::Reopen),
        2 => Just(Call::Kill),
        1 => (0usize..64).prop_map(Call::Damage),
    ];
    prop::collection::vec(call, 1..40)
}

#[derive(Debug, Clone)]
struct Kept {
    seq: u64,
    root_seq: u64,
    records: u64,
    bytes: Vec<u8>,
    gone: Gone,
}

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gone {
    Held,
    Dropped,
    Lost,
}

struct Model {
    dir: PathBuf,
    home: tempfile::TempDir,
    kills: u32,
    spool: Option<Spool>,
    /// Every frame ever appended and not rolled back.
    frames: Vec<Kept>,
    /// Root seqs stored, with what `next_seq` was after each.
    roots: Vec<(u64, u64)>,
    next_root: u64,
    next_seq: u64,
    watermark: u64,
    floor: u64,
    /// Seqs were given up by `advance_to`: what was before them may be used elsewhere, so there is no going back there.
    skipped: bool,
    tag: u64,
    /// Highest seq that may have been sent, or told of in a gap record.
    told: u64,
    /// Grows the seed of picks that need no shrinking.
    asked: u64,
}

impl Model {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("spool");
        let spool = Some(Spool::open(&dir, LIMITS).unwrap().0);
        let (frames, roots) = (Vec::new(), Vec::new());
        Self {
            dir,
            home,
            kills: 0,
            spool,
            frames,
            roots,
            next_root: 1,
            next_seq: 1,
            watermark: 0,
            floor: 0,
            skipped: false,
            tag: 0,
            told: 0,
            asked: 0,
        }
    }

    fn spool(&mut self) -> &mut Spool {
        self.spool.as_mut().unwrap()
    }

    fn run(&mut self, call: &Call) {
        match call {
            Call::Append(groups) => self.append(groups, 0),
            Call::Add(sizes) => {
                if !self.roots.is_empty() {
                    self.append(std::slice::from_ref(sizes), 1);
                }
            }
            Call::Read {
                from,
                frames_max,
                bytes_max,
            } => self.read(*from, *frames_max, *bytes_max),
            Call::Trim(percent) => {
                let watermark = self.confirmable(self.floor + (self.next_seq - 1 - self.floor) * percent / 100);
                self.spool().trim(watermark).unwrap();
                self.watermark = self.watermark.max(watermark);
                self.floor = self.floor.max(watermark);
            }
            Call::Truncate(back) => self.truncate(*back),
            Call::DropOldest(bytes, sent) => self.drop_oldest(*bytes, *sent),
            Call::Damage(which) => self.damage(*which),
            Call::AdvanceBy(seqs) => {
                let to = self.next_seq + seqs;
                self.spool().advance_to(to).unwrap();
                self.next_seq = to;
                self.skipped |= *seqs > 0;
            }
            Call::Reopen => {
                let state = self.spool().state();
                self.spool.take().unwrap().close().unwrap();
                self.check_closed(&state);
                self.open();
                assert_eq!(self.spool().state().watermark_seq, self.watermark);
            }
            Call::Kill => {
                self.kills += 1;
                let copy = self.home.path().join(format!("killed {}", self.kills));
                copy_tree(&self.dir, &copy);
                drop(self.spool.take());
                self.dir = copy;
                self.open();
                assert!(self.spool().state().watermark_seq <= self.watermark);
                let watermark = self.watermark;
                self.spool().trim(watermark).unwrap();
            }
        }
        self.compare();
    }

    /// Looking at the closed spool tells the same as the open one did, and reads the same frames.
    fn check_closed(&self, state: &spool::State) {
        let report = spool::check(&self.dir).unwrap();
        assert_eq!(
            (report.produced_records, report.delivered_records, report.watermark_seq),
            (state.produced_records, state.delivered_records, state.watermark_seq)
        );
        assert_eq!(
            (report.dropped_records, report.lost_records, report.held_records),
            (state.dropped_records, state.lost_records, state.held_records),
            "{report:?}"
        );
        let mut held = self.held();
        let salvaged = spool::salvage(&self.dir, |seq, records, bytes| {
            let kept = held.next().expect("a frame that is not held");
            assert_eq!((kept.seq, kept.records), (seq, records));
            assert!(kept.bytes == bytes);
            Ok::<_, Error>(())
        });
        salvaged.unwrap();
        assert!(held.next().is_none());
    }

    fn open(&mut self) {
        let (spool, recovery) = Spool::open(&self.dir, LIMITS).unwrap();
        assert_eq!(recovery, Recovery::default(), "nothing was interrupted or damaged");
        self.spool = Some(spool);
    }

    /// `back`: by how much the root seqs begin below the next one.
    fn append(&mut self, groups: &[Vec<usize>], back: u64) {
        self.next_root -= back;
        let mut bytes = Vec::new();
        for sizes in groups {
            bytes.push(
                sizes
                    .iter()
                    .map(|size| (frame(self.tag + *size as u64, *size), *size as u64 % 9))
                    .collect::<Vec<_>>(),
            );
            self.tag += 1;
        }
        let frames: Vec<Vec<Frame<'_>>> = bytes
            .iter()
            .map(|group| {
                group
                    .iter()
                    .map(|(bytes, records)| Frame {
                        bytes,
                        records: *records,
                    })
                    .collect()
            })
            .collect();
        let marks: Vec<Mark> = (0..groups.len() as u64)
            .map(|index| mark(self.next_root + index))
            .collect();
        let all: Vec<Group<'_>> = frames
            .iter()
            .zip(&marks)
            .map(|(frames, mark)| Group { frames, mark })
            .collect();
        let first = self.next_seq;
        let seqs = match back {
            0 => self.spool().append_groups(&all),
            _ => self.spool().add(all[0].frames, all[0].mark.position.clone()),
        };
        let seqs = seqs.unwrap();
        for (group, mark) in bytes.into_iter().zip(&marks) {
            for (bytes, records) in group {
                self.frames.push(Kept {
                    seq: self.next_seq,
                    root_seq: mark.root_seq,
                    records,
                    bytes,
                    gone: Gone::Held,
                });
                self.next_seq += 1;
            }
            self.roots.push((mark.root_seq, self.next_seq));
        }
        assert_eq!(seqs, first..self.next_seq);
        self.next_root += groups.len() as u64;
    }

    fn read(&mut self, from: u64, frames_max: usize, bytes_max: usize) {
        let from = from % (self.next_seq + 3);
        let got = self.spool().read(from, frames_max, bytes_max).unwrap();
        let mut bytes = 0;
        let mut expected = Vec::new();
        for kept in self.held().filter(|kept| kept.seq >= from) {
            if expected.len() >= frames_max || (!expected.is_empty() && bytes + kept.bytes.len() > bytes_max) {
                break;
            }
            bytes += kept.bytes.len();
            expected.push((kept.seq, &kept.bytes));
        }
        assert_eq!(
            got.iter().map(|stored| (stored.seq, &stored.bytes)).collect::<Vec<_>>(),
            expected
        );
    }

    fn truncate(&mut self, back: u64) {
        let root_seq = (self.next_root - 1).saturating_sub(back);
        let way = self.spool().way_back(root_seq).unwrap();
        match self.spool().truncate_after(root_seq) {
            Ok(removed) => {
                let kept_root = self.spool().state().mark.map_or(0, |mark| mark.root_seq);
                assert!(kept_root <= root_seq);
                let goes_too = |kept: &&Kept| (kept_root + 1..=root_seq).contains(&kept.root_seq);
                match way {
                    WayBack::Whole(found) => {
                        assert_eq!((found, self.frames.iter().filter(goes_too).count()), (kept_root, 0));
                    }
                    WayBack::Further(found) => assert_eq!(found, kept_root),
                    WayBack::Barred => panic!("barred, and yet it went to {kept_root}"),
                }
                let before = self.frames.len();
                // A mark may have been lost with the segment it was in; then an older one holds, and its groups only.
                // What was added to such a group and lost with its mark goes, too: nothing of it is there to go back to.
                let next_seq = self.spool().state().next_seq;
                let goes = |kept: &Kept| kept.root_seq > kept_root || (kept.gone == Gone::Lost && kept.seq >= next_seq);
                self.frames.retain(|kept| !goes(kept));
                assert_eq!(removed, (before - self.frames.len()) as u64);
                if before > self.frames.len() || kept_root < self.next_root - 1 {
                    self.roots.retain(|(root, _)| *root <= kept_root);
                    self.next_seq = self.spool().state().next_seq;
                    self.told = self.told.min(self.next_seq - 1);
                    assert!(self.frames.last().is_none_or(|kept| kept.seq < self.next_seq));
                    self.next_root = kept_root + 1;
                }
            }
            Err(Error::TruncateTooFar { .. }) => {
                assert_eq!(way, WayBack::Barred);
                // A group that is still held has its mark with it, so going back to it cannot be refused.
                let given_up = self.frames.iter().filter(|kept| kept.gone != Gone::Held);
                let behind = given_up.map(|kept| kept.seq).max().unwrap_or(0).max(self.floor);
                let held = self.held().find(|kept| kept.root_seq <= root_seq && kept.seq > behind);
                assert!(
                    held.is_none() && (behind > 0 || self.skipped),
                    "refused to go back to {root_seq}, held: {held:?}"
                );
            }
            Err(other) => panic!("{other}"),
        }
    }

    /// Frames that are there.
    fn held(&self) -> impl Iterator<Item = &Kept> {
        let floor = self.floor;
        self.frames
            .iter()
            .filter(move |kept| kept.seq > floor && kept.gone == Gone::Held)
    }

    /// A seq that a consumer may confirm: of a frame it got, or the end of what it was told is missing.
    fn confirmable(&self, seq: u64) -> u64 {
        let is_held = seq == self.floor || self.held().any(|kept| kept.seq == seq);
        let next = self.held().map(|kept| kept.seq).find(|held| *held > seq);
        if is_held {
            seq
        } else {
            next.unwrap_or(self.next_seq) - 1
        }
    }

    fn drop_oldest(&mut self, bytes: u64, sent_percent: u64) {
        let sent = self.floor + (self.next_seq - 1 - self.floor) * sent_percent / 100;
        let sent = self.told.max(self.confirmable(sent));
        self.told = sent;
        let dropped = self.spool().drop_oldest(bytes, sent).unwrap();
        let range = dropped.first_seq..=dropped.last_seq;
        let mut records = 0;
        for kept in &mut self.frames {
            if range.contains(&kept.seq) && kept.seq > 0 && kept.gone == Gone::Held {
                assert!(kept.seq > sent, "seq {} may have been sent", kept.seq);
                kept.gone = Gone::Dropped;
                records += kept.records;
            }
        }
        assert_eq!(dropped.records, records);
        if dropped.frames == 0 {
            // Whatever is held is partly on its way, or shares its segment with what is.
            assert_eq!(dropped, spool::Dropped { bytes: 0, ..dropped });
        }
    }

    /// The disk loses a segment that is not the newest while the spool is closed.
    fn damage(&mut self, which: usize) {
        self.run_reopen(|model| {
            let all = segments(&model.dir);
            let Some(closed) = all.len().checked_sub(1).filter(|closed| *closed > 0) else {
                return;
            };
            let index = which % closed;
            let first = |index: usize| -> u64 {
                let path: &PathBuf = &all[index];
                path.file_name().unwrap().to_str().unwrap().parse().unwrap()
            };
            let range = first(index)..first(index + 1);
            std::fs::write(all[index].join("db"), frame(7, 20_000)).unwrap();
            std::fs::remove_file(all[index].join("seal")).unwrap();
            let floor = model.floor;
            for kept in &mut model.frames {
                if range.contains(&kept.seq) && kept.seq > floor && kept.gone == Gone::Held {
                    kept.gone = Gone::Lost;
                }
            }
        });
    }

    fn run_reopen(&mut self, meanwhile: impl FnOnce(&mut Self)) {
        self.spool.take().unwrap().close().unwrap();
        meanwhile(self);
        self.spool = Some(Spool::open(&self.dir, LIMITS).unwrap().0);
        assert_eq!(self.spool().state().watermark_seq, self.watermark);
    }

    fn sum(&self, of: impl Fn(&Kept) -> bool) -> u64 {
        self.frames
            .iter()
            .filter(|kept| of(kept))
            .map(|kept| kept.records)
            .sum()
    }

    /// What the spool says is missing is what is missing, to the record, wherever one asks.
    fn compare_missing(&mut self) {
        let (floor, next_seq) = (self.floor, self.next_seq);
        // Every stretch between two frames that are there.
        let ends = self.held().map(|kept| kept.seq).chain([next_seq]);
        let starts = [floor].into_iter().chain(self.held().map(|kept| kept.seq));
        let stretches: Vec<(u64, u64)> = starts.map(|start| start + 1).zip(ends.map(|end| end - 1)).collect();
        let mut all = spool::Missing::default();
        for (first, last) in stretches {
            if first > last {
                continue;
            }
            let found = self.spool().missing(first, last, None).unwrap();
            let within = |gone| self.sum(|kept| kept.gone == gone && (first..=last).contains(&kept.seq));
            assert_eq!(
                (found.dropped_records, found.lost_records, found.settled_records),
                (within(Gone::Dropped), within(Gone::Lost), 0),
                "{first}..={last}"
            );
            assert!(found.exact);
            all.dropped_records += found.dropped_records;
            all.lost_records += found.lost_records;
        }
        // What was dropped behind what the consumer was told of comes on top.
        let told = self.told.max(floor);
        if told + 1 < next_seq {
            let found = self.spool().missing(told + 1, next_seq - 1, None).unwrap();
            let dropped = self.sum(|kept| kept.gone == Gone::Dropped && kept.seq > told);
            assert_eq!(found.dropped_records, dropped, "behind {told}");
        }
        // For a consumer that starts afresh, all of it; and it is what the state says.
        let state = self.spool().state();
        let whole = self.spool().missing(1, next_seq, None).unwrap();
        assert_eq!(
            (
                whole.dropped_records,
                whole.lost_records,
                whole.settled_records,
                whole.exact
            ),
            (state.dropped_records, state.lost_records, state.delivered_records, true)
        );
        // For a consumer that went back to an older state and tells what it has.
        if floor > 1 {
            self.asked += 7;
            let has = 1 + self.asked % (floor - 1).max(1);
            let accounted = self.sum(|kept| kept.seq <= has);
            let found = self.spool().missing(has + 1, next_seq, Some(accounted)).unwrap();
            let settled = self.sum(|kept| kept.seq > has && kept.seq <= floor);
            assert_eq!(
                (
                    found.settled_records,
                    found.dropped_records,
                    found.lost_records,
                    found.exact
                ),
                (settled, all.dropped_records, all.lost_records, true),
                "from {has} on"
            );
            assert!(has == floor || !self.spool().missing(has + 1, next_seq, None).unwrap().exact);
        }
    }

    fn compare(&mut self) {
        let (floor, next_seq) = (self.floor, self.next_seq);
        let produced = self.sum(|_| true);
        let delivered = self.sum(|kept| kept.seq <= floor && kept.gone == Gone::Held);
        let (dropped, lost) = (
            self.sum(|kept| kept.gone == Gone::Dropped),
            self.sum(|kept| kept.gone == Gone::Lost),
        );
        let held: Vec<&Kept> = self.held().collect();
        let (records, bytes) = held
            .iter()
            .fold((0, 0), |sum, kept| (sum.0 + kept.records, sum.1 + kept.bytes.len()));
        let frames = held.len() as u64;
        let root_seq = self.roots.last().map(|(root, _)| *root);
        let state = self.spool().state();
        assert_balanced(&state);
        assert_eq!(
            (state.next_seq, state.produced_records, state.delivered_records),
            (next_seq, produced, delivered)
        );
        assert_eq!((state.dropped_records, state.lost_records), (dropped, lost));
        assert_eq!(
            (state.held_frames, state.held_records, state.held_payload_bytes),
            (frames, records, bytes as u64)
        );
        assert_eq!(state.mark.as_ref().map(|mark| mark.root_seq), root_seq);
        if let Some(found) = &state.mark {
            assert_eq!(found, &mark(found.root_seq), "the position belongs to the root seq");
        }
        self.compare_missing();
    }

    fn finish(mut self) {
        self.run(&Call::Reopen);
        let got: Vec<(u64, Vec<u8>)> = read_all(self.spool())
            .into_iter()
            .map(|stored| (stored.seq, stored.bytes))
            .collect();
        let expected: Vec<_> = self.held().map(|kept| (kept.seq, kept.bytes.clone())).collect();
        assert_eq!(got, expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(32),
        max_shrink_iters: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_spool_behaves_like_a_list(calls in calls()) {
        let mut model = Model::new();
        for call in &calls {
            model.run(call);
        }
        model.finish();
    }
}

/// Found by the test above.
#[test]
fn going_back_over_what_was_added_and_lost() {
    let calls = [
        Call::Append(vec![vec![0]]),
        Call::Reopen,
        Call::Add(vec![0]),
        Call::Append(vec![vec![]]),
        Call::Append(vec![vec![]]),
        Call::AdvanceBy(1),
        Call::Damage(1),
        Call::Truncate(1),
        Call::Append(vec![vec![5]]),
    ];
    let mut model = Model::new();
    calls.iter().for_each(|call| model.run(call));
    model.finish();
}
