//! Live data first: an edge of two streams that take turns. After an outage, one of them holds the backlog and the other takes
//! what is produced now. Says which takes what comes next, and after a loss, whose word about the source still holds. Pure:
//! never looks at a spool or a clock.
//!
//! A track begins a turn only when everything it had is durable at the consumer. So there is never more than one backlog, and
//! what was read before a turn began is in the other track, or beyond it.

use bus_schema::message::{Resume, SourceMark};
use serde::{Deserialize, Serialize};

/// A backlog of fewer bytes than this is not worth a turn: it is through before anybody would notice.
pub const BACKLOG_BYTES_MIN: u64 = 256 * 1024;

/// What lies before a track's turn: the other track, up to a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Behind {
    /// The other track's epoch.
    pub epoch: u64,
    /// Its last seq when the turn began.
    pub seq: u64,
    /// What the last mark it had told the consumer then is known by ([`print`]).
    pub told: Option<u64>,
}

impl Behind {
    /// Where a track's epoch ended, by its consumer's word.
    pub fn of(resume: &Resume) -> Self {
        Self {
            epoch: resume.epoch,
            seq: resume.watermark,
            told: resume.mark.as_ref().map(print),
        }
    }
}

/// What a mark is known by: FNV-1a over it.
pub fn print(mark: &SourceMark) -> u64 {
    let bytes = bus_schema::encode(mark);
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

/// What a track tells its consumer as the source's position: with it, what has to be there besides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackPosition {
    /// The source's bookmark.
    pub position: Vec<u8>,
    /// See [`Behind`].
    pub behind: Option<Behind>,
}

/// The first bytes of a track's position: a source's bookmark does not begin like that.
const MAGIC: &[u8] = b"\0track\x01";

impl TrackPosition {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        [MAGIC, &bus_schema::encode(self)].concat()
    }

    /// Reads bytes. Those of a stream that was no track are a bookmark alone.
    pub fn decode(bytes: &[u8]) -> Self {
        let track = bytes.strip_prefix(MAGIC).and_then(bus_schema::decode);
        track.unwrap_or_else(|| Self {
            position: bytes.to_vec(),
            behind: None,
        })
    }
}

/// A track, as far as its turn depends on it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Track {
    /// The root's seq of its newest mark; 0 for none.
    pub newest: u64,
    /// Bytes that are not durable at the consumer.
    pub held_bytes: u64,
    /// All that it ever had is durable there or told as missing.
    pub is_drained: bool,
    /// Its consumer was away while a backlog grew.
    pub had_outage: bool,
    /// Its consumer makes records durable now.
    pub moves: bool,
}

impl Track {
    /// The outage left nothing behind, or nothing any more.
    pub fn has_caught_up(&self) -> bool {
        self.moves && self.held_bytes < BACKLOG_BYTES_MIN
    }
}

/// Which track has its turn: the one that was written to last.
pub fn current(newest: [u64; 2]) -> usize {
    usize::from(newest[1] > newest[0])
}

/// Which track takes what comes now.
pub fn turn(tracks: &[Track; 2]) -> usize {
    let now = current(tracks.map(|track| track.newest));
    let (this, other) = (&tracks[now], &tracks[1 - now]);
    let has_backlog = this.had_outage && this.moves && this.held_bytes >= BACKLOG_BYTES_MIN;
    // While the other one has a backlog of its own, this one just goes on: two outages, one after the other.
    if has_backlog && other.is_drained { 1 - now } else { now }
}

/// What is known of a track before the source goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Its epoch.
    pub epoch: u64,
    /// It lost its buffer, and what stands here of its mark is the consumer's word.
    pub asks: bool,
    /// The last seq it has used in this epoch.
    pub last_seq: u64,
    /// The root's seq of its newest mark; 0 for none.
    pub newest: u64,
    /// What lay before that mark's turn.
    pub behind: Option<Behind>,
    /// Where the epoch before this one ended at the consumer, if it was ever asked.
    pub ended: Option<Behind>,
    /// The other track's epoch when it last got a turn after this one; `None` if it never did.
    pub given: Option<u64>,
    /// What was before this epoch was an older copy: its seqs may stand for other records than they did.
    pub was_copy: bool,
}

impl Found {
    /// It lost every trace of itself, and passes for a new one; `other` knows better.
    fn is_traceless(&self, other: &Found) -> bool {
        let is_new = !self.asks && self.newest == 0 && self.ended.is_none();
        let known = other.behind.filter(|behind| behind.seq > 0).map(|behind| behind.epoch);
        is_new && [other.given, known].iter().flatten().any(|epoch| *epoch != self.epoch)
    }
}

/// Whether a track that was written to last is lost. From a source that cannot read again nothing more of it comes: what
/// sibling streams have of that turn must stay there.
pub fn has_lost_a_turn(tracks: &[Found; 2]) -> bool {
    let now = current(tracks.map(|track| track.newest));
    let given = tracks[now].given;
    given.is_some_and(|epoch| epoch != tracks[1 - now].epoch)
}

/// What to do with the marks of two tracks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The newer one holds: what was read before it is in the tracks, or delivered.
    Holds,
    /// Which track must forget its mark: the other one lost records that were read before it, and they are read again. What
    /// this track had comes again with them.
    Forget(usize),
    /// Which track has to ask the consumer first how far it was.
    Ask(usize),
}

/// Decides it.
pub fn verdict(tracks: &[Found; 2]) -> Verdict {
    if let Some(track) = [0, 1]
        .into_iter()
        .find(|track| tracks[*track].is_traceless(&tracks[1 - *track]))
    {
        return Verdict::Ask(track);
    }
    let now = current(tracks.map(|track| track.newest));
    let (newer, older) = (&tracks[now], &tracks[1 - now]);
    let Some(behind) = newer.behind.filter(|behind| behind.seq > 0) else {
        return Verdict::Holds;
    };
    let is_there = !older.asks && older.epoch == behind.epoch && older.last_seq >= behind.seq;
    let was_durable = |ended: &Behind| match older.was_copy {
        true => ended.told == behind.told,
        false => ended.epoch == behind.epoch && ended.seq >= behind.seq,
    };
    if is_there || older.ended.as_ref().is_some_and(was_durable) {
        Verdict::Holds
    } else {
        Verdict::Forget(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MUCH: u64 = BACKLOG_BYTES_MIN;

    #[test]
    fn a_track_takes_its_turn_after_an_outage() {
        let full = |newest| Track {
            newest,
            held_bytes: MUCH,
            is_drained: false,
            had_outage: true,
            moves: true,
        };
        let empty = |newest| Track {
            newest,
            is_drained: true,
            ..Track::default()
        };
        for (what, tracks, expected) in [
            ("the beginning", [empty(0), empty(0)], 0),
            ("nothing waits", [empty(9), empty(4)], 0),
            ("a backlog after an outage", [full(9), empty(0)], 1),
            ("the other way round", [empty(9), full(20)], 0),
            ("both have one", [full(9), full(20)], 1),
            (
                "one that is not drained, though nearly",
                [
                    Track {
                        held_bytes: 1,
                        ..full(9)
                    },
                    full(20),
                ],
                1,
            ),
            (
                "the consumer is still away",
                [
                    Track {
                        moves: false,
                        ..full(9)
                    },
                    empty(0),
                ],
                0,
            ),
            (
                "much at once, without an outage",
                [
                    Track {
                        had_outage: false,
                        ..full(9)
                    },
                    empty(0),
                ],
                0,
            ),
            (
                "a small one",
                [
                    Track {
                        held_bytes: MUCH - 1,
                        ..full(9)
                    },
                    empty(0),
                ],
                0,
            ),
        ] {
            assert_eq!(turn(&tracks), expected, "{what}");
        }
    }

    #[test]
    fn a_mark_holds_as_long_as_what_was_before_it_is_somewhere() {
        let behind = |epoch, seq| {
            let told = Some(epoch * 100 + seq);
            Some(Behind { epoch, seq, told })
        };
        let here = |epoch, newest, behind| Found {
            epoch,
            asks: false,
            last_seq: 70,
            newest,
            behind,
            ended: None,
            given: None,
            was_copy: false,
        };
        let asks = |epoch, newest, behind, ended| Found {
            epoch,
            asks: true,
            last_seq: 0,
            newest,
            behind,
            ended,
            given: None,
            was_copy: false,
        };
        for (what, tracks, expected) in [
            ("the beginning", [here(1, 0, None), here(1, 0, None)], Verdict::Holds),
            (
                "the first turn of the second",
                [here(1, 5, None), here(1, 9, behind(1, 70))],
                Verdict::Holds,
            ),
            (
                "the live one lost its buffer, having delivered some",
                [here(1, 5, None), asks(2, 8, behind(1, 70), behind(1, 3))],
                Verdict::Holds,
            ),
            (
                "the live one lost its buffer, having delivered nothing",
                [here(1, 5, None), asks(2, 0, None, None)],
                Verdict::Holds,
            ),
            (
                "the backlog is lost, and was through",
                [asks(2, 5, None, behind(1, 70)), here(1, 9, behind(1, 70))],
                Verdict::Holds,
            ),
            (
                "the backlog is lost on its way",
                [asks(2, 4, None, behind(1, 69)), here(1, 9, behind(1, 70))],
                Verdict::Forget(1),
            ),
            (
                "both are lost, and the backlog was through",
                [asks(2, 5, None, behind(1, 70)), asks(2, 8, behind(1, 70), behind(1, 3))],
                Verdict::Holds,
            ),
            (
                "both are lost on their way",
                [asks(2, 4, None, behind(1, 60)), asks(2, 8, behind(1, 70), behind(1, 3))],
                Verdict::Forget(1),
            ),
            (
                "the same, the first one being settled already",
                [
                    Found {
                        last_seq: 0,
                        ended: behind(1, 60),
                        ..here(2, 4, None)
                    },
                    asks(2, 8, behind(1, 70), behind(1, 3)),
                ],
                Verdict::Forget(1),
            ),
            (
                "no trace is left of the backlog",
                [here(2, 0, None), here(1, 9, behind(1, 70))],
                Verdict::Ask(0),
            ),
            (
                "no trace is left of the live one, which had its first turn",
                [
                    Found {
                        given: Some(1),
                        ..here(1, 5, None)
                    },
                    here(2, 0, None),
                ],
                Verdict::Ask(1),
            ),
            (
                "the live one got its first turn, and a crash came before it had anything",
                [
                    Found {
                        given: Some(1),
                        ..here(1, 5, None)
                    },
                    here(1, 0, None),
                ],
                Verdict::Holds,
            ),
            (
                "an older copy of the backlog was put back",
                [
                    Found {
                        last_seq: 60,
                        ..here(1, 4, None)
                    },
                    here(1, 9, behind(1, 70)),
                ],
                Verdict::Forget(1),
            ),
            (
                "an older copy went on under the same seqs, and is noticed",
                [
                    Found {
                        was_copy: true,
                        ..asks(2, 4, None, behind(1, 71))
                    },
                    asks(2, 8, behind(1, 70), behind(1, 3)),
                ],
                Verdict::Forget(1),
            ),
            (
                "it had not gone on",
                [
                    Found {
                        was_copy: true,
                        ..asks(2, 4, None, behind(1, 70))
                    },
                    asks(2, 8, behind(1, 70), behind(1, 3)),
                ],
                Verdict::Holds,
            ),
            (
                "nothing was ever in the other one",
                [here(1, 9, behind(7, 0)), here(2, 0, None)],
                Verdict::Holds,
            ),
        ] {
            assert_eq!(verdict(&tracks), expected, "{what}");
        }
    }

    #[test]
    fn a_turn_that_is_lost_is_missed() {
        let track = |epoch, newest, given| Found {
            epoch,
            asks: false,
            last_seq: 9,
            newest,
            behind: None,
            ended: None,
            given,
            was_copy: false,
        };
        for (tracks, expected) in [
            ([track(1, 5, None), track(1, 0, None)], false),
            ([track(1, 5, Some(1)), track(1, 8, None)], false),
            // A crash between the turn and its first append.
            ([track(1, 5, Some(1)), track(1, 0, None)], false),
            ([track(1, 5, Some(1)), track(2, 0, None)], true),
            ([track(2, 0, None), track(1, 5, Some(1))], true),
        ] {
            assert_eq!(has_lost_a_turn(&tracks), expected, "{tracks:?}");
        }
    }

    #[test]
    fn a_position_of_a_stream_that_was_no_track_is_read() {
        let track = TrackPosition {
            position: b"row 7".to_vec(),
            behind: Some(Behind {
                epoch: 3,
                seq: 9,
                told: None,
            }),
        };
        assert_eq!(TrackPosition::decode(&track.encode()), track);
        for plain in [&b""[..], b"{\"line\":1}", b"row 7"] {
            let read = TrackPosition::decode(plain);
            assert_eq!((read.position.as_slice(), read.behind), (plain, None));
        }
    }
}
