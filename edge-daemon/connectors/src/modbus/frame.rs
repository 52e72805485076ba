//! Modbus as bytes: a question, and its answer found in what came. Two ways to frame them: MBAP over TCP, and RTU with a
//! checksum on serial lines (MODBUS Application Protocol V1.1b3, MODBUS over Serial Line V1.02). Performs no I/O.

use schemars::JsonSchema;
use serde::Deserialize;

/// Addresses of a table.
pub(super) const ADDRESSES: u32 = 65_536;
/// Registers one question can ask for.
const REGISTERS_MAX: u16 = 125;
/// Bits one question can ask for.
const BITS_MAX: u16 = 2000;
/// Set in the function of an answer that is a refusal.
const REFUSED: u8 = 0x80;
/// Bytes of an MBAP header: transaction, protocol, length, unit.
const HEADER_BYTES: usize = 7;
/// What a header may give as the length of what follows it there: the unit and 2 to 253 bytes.
const LENGTHS: std::ops::RangeInclusive<usize> = 3..=254;
/// Bytes of a refusal as an RTU frame.
const REFUSAL_BYTES: usize = 5;

/// A table of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Table {
    /// Bits that can be written (function 1; 00001 and up in manuals).
    Coil,
    /// Bits that cannot (function 2; 10001 and up).
    DiscreteInput,
    /// Registers that can be written (function 3; 40001 and up).
    Holding,
    /// Registers that cannot (function 4; 30001 and up).
    Input,
}

impl Table {
    fn function(self) -> u8 {
        match self {
            Table::Coil => 1,
            Table::DiscreteInput => 2,
            Table::Holding => 3,
            Table::Input => 4,
        }
    }

    /// Whether it holds single bits.
    pub(super) fn is_bits(self) -> bool {
        matches!(self, Table::Coil | Table::DiscreteInput)
    }

    /// Most of its values that one question can ask for.
    pub(super) fn most(self) -> u16 {
        if self.is_bits() { BITS_MAX } else { REGISTERS_MAX }
    }
}

/// A run of a table, and the question for it: from 1 to [`Table::most`] values, all of them within the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span {
    pub table: Table,
    pub start: u16,
    pub count: u16,
}

impl Span {
    /// The first address after it.
    pub(super) fn end(&self) -> u32 {
        u32::from(self.start) + u32::from(self.count)
    }

    /// Bytes of its values in an answer.
    pub(super) fn bytes(&self) -> usize {
        if self.table.is_bits() {
            usize::from(self.count).div_ceil(8)
        } else {
            usize::from(self.count) * 2
        }
    }

    /// Bytes that question and answer are on a serial line together.
    pub(super) fn rtu_bytes(&self) -> usize {
        8 + 5 + self.bytes()
    }

    fn question(&self) -> [u8; 5] {
        let ([a, b], [c, d]) = (self.start.to_be_bytes(), self.count.to_be_bytes());
        [self.table.function(), a, b, c, d]
    }
}

/// What a device says to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    /// The values, as many bytes as were asked for.
    Data(Vec<u8>),
    /// It will not, with the exception's code.
    Refused(u8),
}

/// What came is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    /// Nor is anything likely to be that comes after it.
    #[error("what came is not Modbus over TCP (a device behind a converter may need framing = \"rtu\")")]
    NotModbus,
    /// It is an answer, and not to this question.
    #[error("it answered something else than what it was asked")]
    OffTopic,
}

/// A question as a frame on TCP.
pub(super) fn tcp_question(transaction: u16, unit: u8, span: &Span) -> Vec<u8> {
    let question = span.question();
    let mut frame = transaction.to_be_bytes().to_vec();
    frame.extend([0, 0, 0, question.len() as u8 + 1, unit]);
    frame.extend(question);
    frame
}

/// A question as a frame on a serial line.
pub(super) fn rtu_question(unit: u8, span: &Span) -> Vec<u8> {
    let mut frame = vec![unit];
    frame.extend(span.question());
    frame.extend(checksum(&frame).to_le_bytes());
    frame
}

/// Takes the answer out of what came on TCP. `None`: it is not all there yet. Answers to earlier questions, for which nobody
/// waits any more, are thrown away.
pub(super) fn tcp_answer(bytes: &mut Vec<u8>, transaction: u16, span: &Span) -> Result<Option<Reply>, FrameError> {
    while let Some([a, b, protocol @ .., c, d, _]) = bytes.first_chunk::<HEADER_BYTES>() {
        let (number, length) = (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]).into());
        if *protocol != [0, 0] || !LENGTHS.contains(&length) {
            return Err(FrameError::NotModbus);
        }
        // The length counts from the unit on, which is the header's last byte.
        let end = HEADER_BYTES - 1 + length;
        if bytes.len() < end {
            return Ok(None);
        }
        let frame: Vec<u8> = bytes.drain(..end).collect();
        if number == transaction {
            // Devices are known that answer as another unit: the transaction says enough.
            return reply(&frame[HEADER_BYTES..], span).map(Some);
        }
    }
    Ok(None)
}

/// Finds the answer in what came on a serial line, wherever it stands: noise may come before it, or the question itself,
/// which some adapters hear. `None`: it is not there, or not all of it.
pub(super) fn rtu_answer(bytes: &[u8], unit: u8, span: &Span) -> Option<Reply> {
    let function = span.table.function();
    let at = |start: usize| {
        let rest = &bytes[start..];
        let length = match rest {
            [from, what, ..] if *from == unit && *what == function => 3 + span.bytes() + 2,
            [from, what, ..] if *from == unit && *what == function | REFUSED => REFUSAL_BYTES,
            _ => return None,
        };
        let (body, sum) = rest.get(..length)?.split_last_chunk::<2>()?;
        (checksum(body).to_le_bytes() == *sum).then(|| reply(&body[1..], span).ok())?
    };
    (0..bytes.len()).find_map(at)
}

fn reply(answer: &[u8], span: &Span) -> Result<Reply, FrameError> {
    let function = span.table.function();
    match answer {
        [what, code] if *what == function | REFUSED => Ok(Reply::Refused(*code)),
        [what, count, data @ ..]
            if *what == function && usize::from(*count) == span.bytes() && data.len() == span.bytes() =>
        {
            Ok(Reply::Data(data.to_vec()))
        }
        _ => Err(FrameError::OffTopic),
    }
}

/// CRC-16/MODBUS: polynomial 0x8005, reflected, from 0xFFFF.
pub(super) fn checksum(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0xffff, |sum, byte| {
        (0..8).fold(sum ^ u16::from(*byte), |sum, _| {
            if sum & 1 == 1 { (sum >> 1) ^ 0xa001 } else { sum >> 1 }
        })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOLDING: Span = Span {
        table: Table::Holding,
        start: 0x006b,
        count: 3,
    };
    const COILS: Span = Span {
        table: Table::Coil,
        start: 0x0013,
        count: 0x13,
    };

    /// The examples of the specification.
    #[test]
    fn questions_and_answers_of_the_specification() {
        assert_eq!(HOLDING.question(), [3, 0, 0x6b, 0, 3]);
        assert_eq!(
            tcp_question(0x0102, 0x11, &HOLDING),
            [1, 2, 0, 0, 0, 6, 0x11, 3, 0, 0x6b, 0, 3]
        );
        assert_eq!(rtu_question(0x11, &HOLDING), [0x11, 3, 0, 0x6b, 0, 3, 0x76, 0x87]);
        assert_eq!(checksum(b"123456789"), 0x4b37);
        let data = |bytes: &[u8]| Ok(Reply::Data(bytes.to_vec()));
        for (answer, span, wanted) in [
            (
                &[3, 6, 2, 0x2b, 0, 0, 0, 0x64][..],
                &HOLDING,
                data(&[2, 0x2b, 0, 0, 0, 0x64]),
            ),
            (&[1, 3, 0xcd, 0x6b, 5], &COILS, data(&[0xcd, 0x6b, 5])),
            (&[0x83, 2], &HOLDING, Ok(Reply::Refused(2))),
            (&[0x81, 2], &HOLDING, Err(FrameError::OffTopic)),
            (&[4, 6, 0, 0, 0, 0, 0, 0], &HOLDING, Err(FrameError::OffTopic)),
            (&[3, 4, 0, 0, 0, 0], &HOLDING, Err(FrameError::OffTopic)),
            (&[3, 6, 0, 0, 0, 0], &HOLDING, Err(FrameError::OffTopic)),
            (&[], &HOLDING, Err(FrameError::OffTopic)),
        ] {
            assert_eq!(reply(answer, span), wanted, "{answer:x?}");
        }
    }

    fn tcp_frame(transaction: u16, answer: &[u8]) -> Vec<u8> {
        let mut frame = transaction.to_be_bytes().to_vec();
        frame.extend([0, 0, 0, answer.len() as u8 + 1, 7]);
        frame.extend(answer);
        frame
    }

    #[test]
    fn late_answers_are_not_taken_for_this_one() {
        let mut bytes = tcp_frame(8, &[3, 6, 9, 9, 9, 9, 9, 9]);
        bytes.extend(tcp_frame(9, &[3, 6, 1, 1, 1, 1, 1, 1]));
        assert_eq!(tcp_answer(&mut bytes, 9, &HOLDING), Ok(Some(Reply::Data(vec![1; 6]))));
        assert!(bytes.is_empty());
        let mut bytes = b"HTTP/1.1 400 Bad Request".to_vec();
        assert_eq!(tcp_answer(&mut bytes, 9, &HOLDING), Err(FrameError::NotModbus));
    }

    #[test]
    fn an_answer_is_found_behind_noise_and_echo() {
        let mut bytes = vec![0x11, 3, 0, 0xff];
        bytes.extend(rtu_question(0x11, &HOLDING));
        let mut frame = vec![0x11, 3, 6, 2, 0x2b, 0, 0, 0, 0x64];
        frame.extend(checksum(&frame).to_le_bytes());
        for end in 0..frame.len() {
            let mut part = bytes.clone();
            part.extend(&frame[..end]);
            assert_eq!(rtu_answer(&part, 0x11, &HOLDING), None);
        }
        bytes.extend(&frame);
        let data = Reply::Data(vec![2, 0x2b, 0, 0, 0, 0x64]);
        assert_eq!(rtu_answer(&bytes, 0x11, &HOLDING), Some(data));
        assert_eq!(rtu_answer(&bytes, 0x12, &HOLDING), None);
        *bytes.last_mut().unwrap() ^= 1;
        assert_eq!(rtu_answer(&bytes, 0x11, &HOLDING), None);
    }

    proptest! {
        /// Whatever comes: no panic, nothing that is longer than asked, and the end is found piece by piece.
        #[test]
        fn anything_may_come(bytes in proptest::collection::vec(any::<u8>(), 0..600), count in 1_u16..=125, unit: u8) {
            let span = Span { table: Table::Input, start: 0, count };
            for reply in [rtu_answer(&bytes, unit, &span), tcp_answer(&mut bytes.clone(), 1, &span).ok().flatten()] {
                if let Some(Reply::Data(data)) = reply {
                    prop_assert_eq!(data.len(), span.bytes());
                }
            }
        }

        #[test]
        fn what_is_framed_is_found(data in proptest::collection::vec(any::<u8>(), 2..=250), unit: u8, cut: usize) {
            let data = &data[..data.len() / 2 * 2];
            let span = Span { table: Table::Holding, start: 1, count: data.len() as u16 / 2 };
            let mut answer = vec![3, data.len() as u8];
            answer.extend(data);
            let mut rtu = vec![unit];
            rtu.extend(&answer);
            rtu.extend(checksum(&rtu).to_le_bytes());
            prop_assert_eq!(rtu_answer(&rtu, unit, &span), Some(Reply::Data(data.to_vec())));
            let tcp = tcp_frame(77, &answer);
            let cut = cut % tcp.len();
            let mut bytes = tcp[..cut].to_vec();
            prop_assert_eq!(tcp_answer(&mut bytes, 77, &span), Ok(None));
            bytes.extend(&tcp[cut..]);
            prop_assert_eq!(tcp_answer(&mut bytes, 77, &span), Ok(Some(Reply::Data(data.to_vec()))));
        }
    }
}
