//! Live data first: which of two tracks takes what comes now, and after a loss, from where the source goes on. Does what the
//! daemon's `streams/tracks.rs` does.

use bus_schema::message::Resume;
use stream::tracks::{self, BACKLOG_BYTES_MIN, Behind, Found, Track, Verdict};

use crate::{
    producer::told_position,
    setting::Mistake,
    spool::{Book, Group},
    world::{Stop, World},
};

/// Frames that are a backlog.
pub(crate) const BACKLOG_FRAMES_MIN: usize = 3;

impl World {
    /// After a loss: where the consumer is. False until it has said so, or when something has to begin anew first.
    pub(crate) fn settle(&mut self, leaf: usize) -> Result<bool, Stop> {
        let streams = self.setting.tracks_of(leaf * self.setting.tracks());
        let mut told = Vec::new();
        for stream in streams.clone() {
            match self.told(stream) {
                Some(resume) => told.push(resume),
                None => return Ok(false),
            }
        }
        let mut forgets = None;
        if self.setting.live_first && self.setting.replays {
            let first = streams.start;
            let found = [self.found(first, &told[0]), self.found(first + 1, &told[1])];
            match tracks::verdict(&found) {
                Verdict::Holds => {}
                Verdict::Forget(_) if self.setting.has(Mistake::BacklogForgotten) => {}
                Verdict::Forget(track) => {
                    let older = first + (1 - track);
                    let mark = told[1 - track]
                        .as_ref()
                        .map(|resume| resume.as_ref().and_then(|r| r.mark.as_ref()));
                    let place = match mark {
                        Some(mark) => mark.map_or(0, |mark| told_position(mark).0),
                        None => self.streams[older].spool.book().position,
                    };
                    self.say(|| format!("leaf {leaf} lost its backlog, and goes back to {place}"));
                    for stream in streams.clone() {
                        self.streams[stream].oracle.may_repeat_above(place);
                    }
                    if told[track].is_none() {
                        self.start_over(first + track, 0)?;
                        return Ok(false);
                    }
                    forgets = Some(track);
                }
                Verdict::Ask(track) => {
                    if let Some(lineage) = &mut self.streams[first + track].lineage {
                        (lineage.asks, lineage.begun, lineage.is_first) = (true, true, false);
                    }
                    return Ok(false);
                }
            }
        }
        for (track, (stream, told)) in streams.zip(told).enumerate() {
            if let Some(resume) = told {
                self.go_on_from(stream, resume, forgets != Some(track))?;
            }
        }
        Ok(true)
    }

    /// What the consumer said where an epoch before this one ended; `None` inside when nothing is asked, outside until it
    /// has said so.
    fn told(&mut self, stream: usize) -> Option<Option<Option<Resume>>> {
        let Some(lineage) = self.streams[stream].lineage.clone().filter(|lineage| lineage.asks) else {
            return Some(None);
        };
        let (epoch, resume) = self.out(stream)?.answer.clone()?;
        (epoch == lineage.epoch).then_some(Some(resume))
    }

    pub(crate) fn found(&self, stream: usize, told: &Option<Option<Resume>>) -> Found {
        let lanes = &self.streams[stream];
        let book = lanes.spool.book();
        let here = Found {
            epoch: lanes.lineage.as_ref().map_or(0, |lineage| lineage.epoch),
            asks: false,
            last_seq: lanes.spool.next_seq() - 1,
            newest: self.newest(stream),
            behind: book.behind,
            ended: book.ended,
            given: book.given,
            was_copy: lanes.lineage.as_ref().is_some_and(|lineage| lineage.was_copy),
        };
        let Some(told) = told else { return here };
        let mark = told.as_ref().and_then(|resume| resume.mark.as_ref());
        Found {
            asks: true,
            newest: mark.map_or(0, |mark| mark.root_seq),
            behind: mark.and_then(|mark| told_position(mark).1),
            ended: told.as_ref().map(Behind::of),
            ..here
        }
    }

    fn go_on_from(&mut self, stream: usize, resume: Option<Resume>, holds: bool) -> Result<(), Stop> {
        let mark = resume.as_ref().and_then(|resume| resume.mark.clone()).filter(|_| holds);
        self.say(|| {
            format!(
                "stream {stream} goes on from where the consumer is: {:?}",
                mark.as_ref().map(|mark| told_position(mark).0)
            )
        });
        // Without any mark it would pass for a new one.
        let lanes = &mut self.streams[stream];
        let root = mark.as_ref().map_or(1, |mark| mark.root_seq);
        if lanes.spool.mark().is_none_or(|(kept, _)| kept < root) {
            let (position, behind) = mark.as_ref().map(told_position).unwrap_or_default();
            let book = Book {
                position,
                // What came after it was in the buffer that is lost, and at siblings that have sent it.
                gone: root + 1,
                behind,
                ended: resume.as_ref().map(Behind::of),
                told: mark.as_ref().map(tracks::print),
                ..lanes.spool.book()
            };
            let entries = Vec::new();
            let _ = lanes.spool.append(vec![Group { entries, root, book }]);
            self.point("between a mark from the consumer and the note that it was asked for")?;
        }
        if let Some(lineage) = &mut self.streams[stream].lineage {
            (lineage.asks, lineage.begun) = (false, true);
        }
        Ok(())
    }

    /// Which track takes what comes now, and what its turn begins after, if one does.
    pub(crate) fn turn(&mut self, leaf: usize) -> (usize, Option<Behind>) {
        let current = self.current(leaf);
        if !self.setting.live_first {
            return (current, None);
        }
        let first = leaf * self.setting.tracks();
        let states = [0, 1].map(|track| {
            let lanes = &self.streams[first + track];
            let (watermark, held) = (lanes.spool.watermark(), lanes.spool.held().count());
            let mut state = Track {
                newest: self.newest(first + track),
                held_bytes: held as u64 * BACKLOG_BYTES_MIN.div_ceil(BACKLOG_FRAMES_MIN as u64),
                is_drained: watermark + 1 >= lanes.spool.next_seq() && lanes.spool.book().owed == 0,
                ..Track::default()
            };
            if let Some(out) = self.out(first + track) {
                (state.had_outage, state.moves) = (out.had_outage, out.moves);
                out.had_outage &= !state.has_caught_up();
            }
            state
        });
        let now = first + tracks::turn(&states);
        if now == current {
            return (now, None);
        }
        self.say(|| format!("stream {now} takes what comes now, stream {current} has the backlog"));
        let given = self.streams[now].lineage.as_ref().map(|lineage| lineage.epoch);
        let other = &mut self.streams[current];
        let book = Book {
            given,
            ..other.spool.book()
        };
        if let Some(root) = other.spool.mark().map(|(root, _)| root) {
            let entries = Vec::new();
            // Without frames, it always has room.
            let _ = other.spool.append(vec![Group { entries, root, book }]);
        }
        let behind = Behind {
            epoch: other.lineage.as_ref().map_or(0, |lineage| lineage.epoch),
            seq: other.spool.next_seq() - 1,
            told: other.spool.book().told,
        };
        (now, Some(behind))
    }
}
