//! Which windows are open, which a record belongs to, and when one closes: by the times of records alone, one record after the
//! other, so that it does not matter how they are cut into batches. Knows no batch, no clock and no config.

use std::collections::BTreeMap;

use super::slot::{Function, Input, Slot};
use crate::{moment::MILLI_NANOS, pace::Pace};

/// What a window takes beside its group and its slots, in bytes: its ends and the lengths of both.
const WINDOW_BYTES: usize = 26;
/// What a new slot takes, in bytes.
const SLOT_BYTES: usize = 4;

/// How time is cut, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Span {
    /// Windows of one length that begin one after the other, perhaps before the last one ends.
    Fixed { every: i64, length: i64 },
    /// A window ends when nothing has come for so long.
    Session { gap: i64 },
}

/// The end, the beginning and the group of a window: in this order they close.
pub(super) type Key = (i64, i64, Vec<u8>);

/// The open windows.
pub(super) struct Windows {
    span: Span,
    /// How long after its end a window stays open, in nanoseconds.
    lateness: i64,
    /// How far ahead of the others a record may be and time still go by it, in nanoseconds.
    ahead_max: Option<i64>,
    pace: Pace,
    open: BTreeMap<Key, Window>,
    /// Windows that end here or before are closed.
    closed_to: i64,
    /// Whatever is open is to be closed.
    has_ended: bool,
    bytes: usize,
    room_bytes: usize,
}

struct Window {
    slots: Vec<Slot>,
    bytes: usize,
}

impl Window {
    fn new(key: &Key, slots: Vec<Slot>) -> Self {
        let bytes = WINDOW_BYTES + key.2.len() + bus_schema::encode(&slots).len();
        Self { slots, bytes }
    }
}

impl Windows {
    /// None is open yet. Time goes by one record that is ahead as far as a window is long, at least.
    pub(super) fn new(span: Span, lateness: i64, ahead_max: Option<i64>) -> Self {
        let length = match span {
            Span::Fixed { length, .. } => length,
            Span::Session { gap } => gap,
        };
        Self {
            span,
            lateness,
            ahead_max: ahead_max.map(|max| max.max(length)),
            pace: Pace::default(),
            open: BTreeMap::new(),
            closed_to: i64::MIN,
            has_ended: false,
            bytes: 0,
            room_bytes: usize::MAX,
        }
    }

    /// Goes on with these.
    pub(super) fn restore(&mut self, (closed_to, pace): (i64, Pace), open: Vec<(Key, Vec<Slot>)>, room_bytes: usize) {
        let open = open.into_iter().map(|(key, slots)| {
            let window = Window::new(&key, slots);
            (key, window)
        });
        self.open = open.collect();
        self.bytes = self.open.values().map(|window| window.bytes).sum();
        (self.closed_to, self.pace, self.room_bytes) = (closed_to, pace, room_bytes);
        self.has_ended = false;
    }

    pub(super) fn pace(&self) -> Pace {
        self.pace
    }

    pub(super) fn closed_to(&self) -> i64 {
        self.closed_to
    }

    pub(super) fn open(&self) -> impl Iterator<Item = (&Key, &Vec<Slot>)> {
        self.open.iter().map(|(key, window)| (key, &window.slots))
    }

    /// A record of this moment has come: windows that end long enough before where time is then can be closed. Comes before
    /// the record is put in, so that those make room for it.
    pub(super) fn advance(&mut self, at: i64) {
        // One that is late already is no witness of anything.
        if at >= self.closed_to {
            self.pace = self.pace.after(at, self.ahead_max);
            self.closed_to = self.closed_to.max(self.pace.youngest().saturating_sub(self.lateness));
        }
    }

    /// Puts a record into its windows, or says why it cannot be in any.
    pub(super) fn add(
        &mut self,
        at: i64,
        group: &[u8],
        inputs: Vec<Option<Input>>,
        functions: &[Function],
    ) -> Result<(), String> {
        match self.span {
            Span::Fixed { every, length } => self.add_fixed(at, group, inputs, functions, (every, length)),
            Span::Session { gap } => self.add_to_session(at, group, inputs, functions, gap),
        }
    }

    fn add_fixed(
        &mut self,
        at: i64,
        group: &[u8],
        inputs: Vec<Option<Input>>,
        functions: &[Function],
        (every, length): (i64, i64),
    ) -> Result<(), String> {
        let keys = self.keys_of(at, group, every, length);
        let growth: usize = inputs.iter().flatten().map(Slot::growth).sum();
        let mut room = 0;
        for key in &keys {
            match self.open.get(key) {
                Some(window) => check(&window.slots, &inputs)?,
                None => room += new_bytes(group, functions),
            }
            room += growth;
        }
        if keys.is_empty() {
            return Err(self.late(at));
        }
        self.has_room(at, room)?;
        for key in keys {
            let before = self.open.remove(&key);
            let (mut slots, bytes) = match before {
                Some(window) => (window.slots, window.bytes),
                None => (functions.iter().map(Function::slot).collect(), 0),
            };
            add(&mut slots, inputs.clone(), at);
            let window = Window::new(&key, slots);
            self.bytes = self.bytes - bytes + window.bytes;
            self.open.insert(key, window);
        }
        Ok(())
    }

    /// The windows around a moment that are not closed.
    fn keys_of(&self, at: i64, group: &[u8], every: i64, length: i64) -> Vec<Key> {
        let last = at.div_euclid(every).checked_mul(every);
        let starts = std::iter::successors(last, |start| start.checked_sub(every));
        let around = starts.take_while(|start| at.saturating_sub(*start) < length);
        let keys = around.map(|start| (start.saturating_add(length), start, group.to_vec()));
        keys.filter(|(end, ..)| *end > self.closed_to).collect()
    }

    fn add_to_session(
        &mut self,
        at: i64,
        group: &[u8],
        inputs: Vec<Option<Input>>,
        functions: &[Function],
        gap: i64,
    ) -> Result<(), String> {
        let end = at.saturating_add(gap);
        let touches = |(_, start, of): &Key| of == group && start.saturating_sub(at) < gap;
        let later = self.open.range((at.saturating_add(1), i64::MIN, Vec::new())..);
        let touched: Vec<Key> = later.map(|(key, _)| key).filter(|key| touches(key)).cloned().collect();
        if touched.is_empty() && end <= self.closed_to {
            return Err(self.late(at));
        }
        let mut key = (end, at, group.to_vec());
        let mut slots: Vec<Slot> = functions.iter().map(Function::slot).collect();
        for one in &touched {
            key = (key.0.max(one.0), key.1.min(one.1), key.2);
            let others = self.open.get(one).map(|window| window.slots.clone());
            for (slot, other) in slots.iter_mut().zip(others.into_iter().flatten()) {
                slot.merge(other)?;
            }
        }
        check(&slots, &inputs)?;
        let growth: usize = inputs.iter().flatten().map(Slot::growth).sum();
        let new = if touched.is_empty() {
            new_bytes(group, functions)
        } else {
            0
        };
        self.has_room(at, growth + new)?;
        for one in &touched {
            self.bytes -= self.open.remove(one).map_or(0, |window| window.bytes);
        }
        add(&mut slots, inputs, at);
        let window = Window::new(&key, slots);
        self.bytes += window.bytes;
        self.open.insert(key, window);
        Ok(())
    }

    /// The next window that is closed by now, in the order of their ends.
    pub(super) fn close(&mut self) -> Option<(Key, Vec<Slot>)> {
        let Some(first) = self.open.first_entry() else {
            self.has_ended = false;
            return None;
        };
        if first.key().0 > self.closed_to && !self.has_ended {
            return None;
        }
        let (key, window) = first.remove_entry();
        self.bytes -= window.bytes;
        Some((key, window.slots))
    }

    /// Nothing will come any more: all that are open are closed. Those far ahead of where time is may be of a wrong clock, and
    /// do not make everything late that comes when the source goes on.
    pub(super) fn end(&mut self) {
        (self.pace, self.has_ended) = (self.pace.ended(), true);
        let near = self
            .open
            .keys()
            .filter(|(_, start, _)| !self.pace.is_ahead(*start, self.ahead_max));
        if let Some(end) = near.map(|(end, ..)| *end).max() {
            self.closed_to = self.closed_to.max(end);
        }
    }

    /// Records that are far ahead have half the room: with wrong clocks there may be many, whose windows stay.
    fn has_room(&self, at: i64, more: usize) -> Result<(), String> {
        let is_ahead = self.pace.is_ahead(at, self.ahead_max);
        let room_bytes = if is_ahead { self.room_bytes / 2 } else { self.room_bytes };
        if self.bytes + more <= room_bytes {
            return Ok(());
        }
        let by_ms = at.saturating_sub(self.pace.youngest()) / MILLI_NANOS;
        let open = self.open.len();
        Err(if is_ahead {
            format!(
                "it is {by_ms} ms ahead of the others, {open} windows are open, and what is kept of them may not pass \
                 {room_bytes} bytes for such a record: set the clock it has its time from, or see `ahead_max_ms`"
            )
        } else {
            format!(
                "{open} windows are open, and what is kept of them may not pass {room_bytes} bytes: fewer groups, shorter \
                 windows or less lateness"
            )
        })
    }

    fn late(&self, at: i64) -> String {
        let by_ms = self.closed_to.saturating_sub(at) / MILLI_NANOS;
        format!("it comes too late: its window is closed, and records up to {by_ms} ms younger have come")
    }
}

fn new_bytes(group: &[u8], functions: &[Function]) -> usize {
    WINDOW_BYTES + group.len() + SLOT_BYTES * functions.len()
}

fn check(slots: &[Slot], inputs: &[Option<Input>]) -> Result<(), String> {
    let inputs = slots.iter().zip(inputs);
    inputs
        .filter_map(|(slot, input)| Some((slot, input.as_ref()?)))
        .try_for_each(|(slot, input)| slot.check(input))
}

fn add(slots: &mut [Slot], inputs: Vec<Option<Input>>, at: i64) {
    for (slot, input) in slots.iter_mut().zip(inputs) {
        if let Some(input) = input {
            slot.add(input, at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts; shows each window as `group start-end:count` when it closes.
    fn closed(span: Span, lateness: i64, records: &[(&str, i64)]) -> (Vec<String>, Vec<usize>) {
        let mut windows = Windows::new(span, lateness, None);
        let (mut shown, mut late) = (Vec::new(), Vec::new());
        let mut show = |windows: &mut Windows| {
            while let Some(((end, start, group), slots)) = windows.close() {
                let count = slots[0].result(&Function::Count).as_cell().to_string();
                shown.push(format!("{} {start}-{end}:{count}", String::from_utf8(group).unwrap()));
            }
        };
        for (row, (group, at)) in records.iter().enumerate() {
            let input = vec![Some(Input::Record)];
            windows.advance(*at);
            show(&mut windows);
            if windows.add(*at, group.as_bytes(), input, &[Function::Count]).is_err() {
                late.push(row);
            }
        }
        windows.end();
        show(&mut windows);
        assert_eq!((windows.bytes, windows.open.len()), (0, 0));
        (shown, late)
    }

    #[test]
    fn windows_close_by_the_times_of_records() {
        let tumbling = Span::Fixed { every: 10, length: 10 };
        let sliding = Span::Fixed { every: 5, length: 10 };
        let session = Span::Session { gap: 5 };
        for (span, lateness, records, expected, late) in [
            (
                tumbling,
                0,
                &[("a", 1), ("b", 2), ("a", 9), ("a", 10), ("a", 3), ("a", 35)][..],
                &["a 0-10:2", "b 0-10:1", "a 10-20:1", "a 30-40:1"][..],
                &[4][..],
            ),
            // Those that are late, but not too late.
            (
                tumbling,
                5,
                &[("a", 1), ("a", 14), ("a", 9), ("a", 15), ("a", 8)],
                &["a 0-10:2", "a 10-20:2"],
                &[4],
            ),
            // Before 1970, and exactly between two.
            (
                tumbling,
                0,
                &[("a", -1), ("a", 0), ("a", -10)],
                &["a -10-0:1", "a 0-10:1"],
                &[2],
            ),
            (
                sliding,
                0,
                &[("a", 7), ("a", 12), ("a", 11)],
                &["a 0-10:1", "a 5-15:3", "a 10-20:2"],
                &[],
            ),
            // Counts in the windows that are still open.
            (
                sliding,
                0,
                &[("a", 11), ("a", 9), ("a", 3)],
                &["a 5-15:2", "a 10-20:1"],
                &[2],
            ),
            (
                session,
                0,
                &[("a", 1), ("b", 3), ("a", 4), ("a", 9), ("a", 30)],
                &["b 3-8:1", "a 1-9:2", "a 9-14:1", "a 30-35:1"],
                &[],
            ),
            // One that joins two, one that comes before, one that is too late.
            (
                session,
                10,
                &[("a", 1), ("a", 8), ("b", 2), ("a", 5), ("a", -2), ("a", 22), ("c", 2)],
                &["b 2-7:1", "a -2-13:4", "a 22-27:1"],
                &[6],
            ),
        ] {
            let (shown, too_late) = closed(span, lateness, records);
            assert_eq!(
                (shown.as_slice(), too_late.as_slice()),
                (
                    expected.iter().map(|s| s.to_string()).collect::<Vec<_>>().as_slice(),
                    late
                ),
                "{span:?} {records:?}"
            );
        }
    }

    #[test]
    fn only_so_many_are_open() {
        let mut windows = Windows::new(Span::Fixed { every: 10, length: 10 }, 0, None);
        windows.restore((i64::MIN, Pace::default()), Vec::new(), 200);
        let mut add =
            |group: &str, at| windows.add(at, group.as_bytes(), vec![Some(Input::Record)], &[Function::Count]);
        let taken = (0..10).take_while(|n| add(&format!("group {n}"), 1).is_ok()).count();
        assert!((3..8).contains(&taken), "{taken}");
        let refused = add("group x", 1).unwrap_err();
        assert!(refused.starts_with(&format!("{taken} windows are open")), "{refused}");
        // What closes gives its room back.
        assert!(add("group 0", 11).is_err());
        windows.end();
        while windows.close().is_some() {}
        assert_eq!(windows.bytes, 0);
        windows
            .add(11, b"group x", vec![Some(Input::Record)], &[Function::Count])
            .unwrap();
    }
}
