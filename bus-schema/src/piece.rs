//! A piece of a stream's sealed frame. On a slow line a whole frame would hold up everything behind it for many seconds, so
//! it travels in pieces there. A piece is neither sealed nor signed itself: the frame is, and is checked once it is whole.
//! Whoever tampers with a piece spoils the frame, which is no more than dropping it.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::limits::FRAME_BYTES_MAX;

/// The first byte of a piece. An envelope begins with its version, which is far below it.
pub const PIECE: u8 = 0xf0;
/// Most bytes a piece has besides those of the frame.
pub const PIECE_AROUND_BYTES: usize = 1 + 10 + 10 + 5 + 5 + 5;

/// Some of the bytes of a sealed frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece<'a> {
    /// The stream's epoch.
    pub epoch: u64,
    /// The frame's seq.
    pub seq: u64,
    /// Bytes of the whole frame.
    pub total: u32,
    /// Bytes of the frame before these.
    pub offset: u32,
    /// The bytes.
    #[serde(borrow, with = "serde_bytes")]
    pub bytes: &'a [u8],
}

impl<'a> Piece<'a> {
    /// Whether what came on a stream's subject is a piece, and not a whole frame.
    pub fn is_one(bytes: &[u8]) -> bool {
        bytes.first() == Some(&PIECE)
    }

    /// Wire bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bytes.len() + PIECE_AROUND_BYTES);
        out.push(PIECE);
        postcard::to_extend(self, out).expect("a piece is plain data, written to memory")
    }

    /// Reads wire bytes. `None` unless they are a piece that lies within a frame of a possible size.
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (PIECE, rest) = bytes.split_first().map(|(first, rest)| (*first, rest))? else {
            return None;
        };
        let piece: Self = crate::exactly(rest).ok()?;
        let end = (piece.offset as usize).checked_add(piece.bytes.len())?;
        let fits = !piece.bytes.is_empty() && end <= piece.total as usize && piece.total as usize <= FRAME_BYTES_MAX;
        fits.then_some(piece)
    }
}
