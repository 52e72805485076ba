//! Puts a frame together that travels in pieces. Holds at most one, of at most the size a frame may have. Believes nothing:
//! whether what came together is genuine is checked by whoever opens the frame. Pure.

use bus_schema::piece::Piece;

/// What a piece did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fitted {
    /// It is not wanted: of another frame, or here already.
    Nothing,
    /// It was added; the frame is not whole yet.
    Added,
    /// The frame is whole. Its pieces are kept no longer.
    Whole(Vec<u8>),
    /// Something before it is missing.
    Missing,
}

/// The frame that is being put together.
#[derive(Debug, Default)]
pub struct Pieces {
    epoch: u64,
    seq: u64,
    total: u32,
    bytes: Vec<u8>,
}

impl Pieces {
    /// Takes a piece, while the frame after `received` in `epoch` is what is wanted.
    pub fn take(&mut self, piece: &Piece<'_>, epoch: u64, received: u64) -> Fitted {
        let wanted = received + 1;
        if piece.epoch != epoch || piece.seq < wanted {
            return Fitted::Nothing;
        }
        if piece.seq > wanted {
            return Fitted::Missing;
        }
        if (self.epoch, self.seq, self.total) != (epoch, wanted, piece.total) {
            if piece.offset > 0 {
                // What is here may be of something else: then nothing would ever fit it again.
                *self = Self::default();
                return Fitted::Missing;
            }
            *self = Self {
                epoch,
                seq: wanted,
                total: piece.total,
                bytes: Vec::with_capacity(piece.total as usize),
            };
        }
        let (have, offset) = (self.bytes.len(), piece.offset as usize);
        if offset > have {
            return Fitted::Missing;
        }
        let Some(new) = piece.bytes.get(have - offset..).filter(|new| !new.is_empty()) else {
            return Fitted::Nothing;
        };
        self.bytes.extend_from_slice(new);
        if self.bytes.len() < self.total as usize {
            return Fitted::Added;
        }
        Fitted::Whole(std::mem::take(self).bytes)
    }

    /// How many bytes of the frame after `received` are here.
    pub fn bytes(&self, epoch: u64, received: u64) -> u32 {
        if (self.epoch, self.seq) == (epoch, received + 1) {
            self.bytes.len() as u32
        } else {
            0
        }
    }

    /// Lets go of what is of no use any more, once everything up to `received` has come.
    pub fn settle(&mut self, epoch: u64, received: u64) {
        if (self.epoch, self.seq) != (epoch, received + 1) {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EPOCH: u64 = 3;

    /// A frame's bytes, different for each seq.
    fn frame(seq: u64, len: usize) -> Vec<u8> {
        (0..len).map(|at| (at as u64 * 7 + seq * 31) as u8).collect()
    }

    fn piece(seq: u64, frame: &[u8], from: usize, to: usize) -> Vec<u8> {
        let to = to.min(frame.len());
        Piece {
            epoch: EPOCH,
            seq,
            total: frame.len() as u32,
            offset: from as u32,
            bytes: &frame[from..to],
        }
        .encode()
    }

    /// What a line does to what is sent, and what others put on it.
    #[derive(Debug, Clone)]
    enum Event {
        Arrives,
        IsLost,
        ComesTwice,
        /// The producer begins again where the consumer says it is.
        Reconnects,
        /// Somebody sends what is no piece, or a piece of something else.
        Noise(Vec<u8>),
        Foreign {
            seq: u64,
            epoch: u64,
            offset: u32,
        },
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            8 => Just(Event::Arrives),
            2 => Just(Event::IsLost),
            1 => Just(Event::ComesTwice),
            1 => Just(Event::Reconnects),
            1 => proptest::collection::vec(any::<u8>(), 0..64).prop_map(Event::Noise),
            1 => (0u64..6, 2u64..4, 1u32..300).prop_map(|(seq, epoch, offset)| Event::Foreign { seq, epoch, offset }),
        ]
    }

    #[test]
    fn a_beginning_of_something_else_does_not_stand_in_the_way() {
        let mut pieces = Pieces::default();
        let (true_one, other) = (frame(1, 100), frame(1, 80));
        let mut give = |bytes: &[u8]| {
            let fitted = pieces.take(&Piece::decode(bytes).unwrap(), EPOCH, 0);
            (fitted, pieces.bytes(EPOCH, 0))
        };
        assert_eq!(give(&piece(1, &true_one, 0, 40)), (Fitted::Added, 40));
        assert_eq!(give(&piece(1, &other, 0, 30)), (Fitted::Added, 30));
        assert_eq!(give(&piece(1, &true_one, 40, 100)), (Fitted::Missing, 0));
        assert_eq!(give(&piece(1, &true_one, 0, 100)), (Fitted::Whole(true_one), 0));
    }

    proptest! {
        /// A producer that goes back to where the consumer says it is gets every frame through, byte for byte, whatever is
        /// lost, doubled or thrown in. Foreign pieces here are honest about the size or do not begin a frame: one that lies
        /// spoils the frame, and its signature tells.
        #[test]
        fn every_frame_comes_together(
            sizes in proptest::collection::vec(1usize..400, 1..5),
            cut in 1usize..150,
            events in proptest::collection::vec(event(), 0..200),
        ) {
            let mut pieces = Pieces::default();
            let (mut received, mut at) = (0u64, 0usize);
            let mut events = events.into_iter().chain(std::iter::repeat(Event::Arrives));
            for _ in 0..5_000 {
                let Some(len) = sizes.get(received as usize).copied() else { break };
                let whole = frame(received + 1, len);
                let mut arrive = |bytes: &[u8]| {
                    match Piece::decode(bytes).map(|piece| pieces.take(&piece, EPOCH, received)) {
                        Some(Fitted::Whole(bytes)) => Some(bytes),
                        _ => None,
                    }
                };
                // As the producer's patience does it: nothing more to send, and yet no answer.
                if at >= len {
                    at = pieces.bytes(EPOCH, received) as usize;
                    continue;
                }
                let next = piece(received + 1, &whole, at, at + cut);
                let came = match events.next() {
                    Some(Event::Arrives) => { at += cut; arrive(&next) }
                    Some(Event::ComesTwice) => { at += cut; let first = arrive(&next); first.or_else(|| arrive(&next)) }
                    Some(Event::IsLost) => { at += cut; None }
                    Some(Event::Reconnects) => { at = pieces.bytes(EPOCH, received) as usize; None }
                    Some(Event::Noise(bytes)) => { arrive(&bytes); None }
                    Some(Event::Foreign { seq, epoch, offset }) => {
                        let other = Piece { epoch, seq, total: 399, offset, bytes: &[1] };
                        if (epoch, seq) != (EPOCH, received + 1) { arrive(&other.encode()); }
                        None
                    }
                    None => unreachable!("without end"),
                };
                if let Some(bytes) = came {
                    prop_assert_eq!(bytes, whole);
                    received += 1;
                    at = 0;
                    pieces.settle(EPOCH, received);
                }
            }
            prop_assert_eq!(received, sizes.len() as u64);
            prop_assert_eq!(pieces.bytes(EPOCH, received), 0);
        }

        #[test]
        fn no_bytes_make_it_panic_or_grow(noise in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..80), 0..50)) {
            let mut pieces = Pieces::default();
            for mut bytes in noise {
                if let Some(first) = bytes.first_mut() { *first = bus_schema::piece::PIECE; }
                if let Some(piece) = Piece::decode(&bytes) {
                    pieces.take(&piece, piece.epoch, piece.seq.saturating_sub(1).min(u64::MAX - 1));
                }
                prop_assert!(pieces.bytes.capacity() <= 2 * bus_schema::limits::FRAME_BYTES_MAX);
            }
        }
    }

    #[test]
    fn pieces_are_taken_in_order_and_once() {
        let whole = frame(1, 10);
        let mut pieces = Pieces::default();
        let mut take = |epoch, seq, from: usize, to: usize, received| {
            let piece = Piece {
                epoch,
                seq,
                total: 10,
                offset: from as u32,
                bytes: &whole[from..to],
            };
            pieces.take(&piece, EPOCH, received)
        };
        for (step, (epoch, seq, from, to, received, expected)) in [
            (EPOCH, 1, 4, 6, 0, Fitted::Missing),
            (EPOCH, 1, 0, 4, 0, Fitted::Added),
            (EPOCH, 1, 0, 4, 0, Fitted::Nothing),
            (EPOCH, 1, 5, 6, 0, Fitted::Missing),
            (EPOCH - 1, 1, 4, 6, 0, Fitted::Nothing),
            (EPOCH, 2, 0, 6, 0, Fitted::Missing),
            (EPOCH, 1, 2, 8, 0, Fitted::Added),
            // Meanwhile it came whole.
            (EPOCH, 1, 8, 10, 1, Fitted::Nothing),
            (EPOCH, 1, 8, 10, 0, Fitted::Whole(whole.clone())),
            (EPOCH, 1, 8, 10, 0, Fitted::Missing),
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(take(epoch, seq, from, to, received), expected, "step {step}");
        }
    }
}
