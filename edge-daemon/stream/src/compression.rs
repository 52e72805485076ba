//! Compresses packed batches before they are sealed, where a stream asks for it, and unpacks them again within the bounds a
//! batch has. Pure.

use bus_schema::{
    limits::RECORD_BYTES_MAX,
    message::{Codec, Packed},
};

/// Measured on batches of 56 KB (`cargo run --release -p stream --example compression`): higher levels pack no better.
const LEVEL: i32 = 1;

/// What is packed cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// It says it is more than a batch may be.
    #[error("{raw_bytes} bytes once unpacked are over the limit of {RECORD_BYTES_MAX}")]
    TooLarge {
        /// What it says.
        raw_bytes: u32,
    },
    /// It is no Zstandard frame, or one of another size.
    #[error("the compressed bytes are damaged")]
    Damaged,
}

/// Compresses the bytes of a batch, if that makes them fewer.
pub fn compress(packed: &mut Packed) {
    let Ok(raw_bytes) = u32::try_from(packed.bytes.len()) else {
        return;
    };
    if packed.codec != Codec::Plain {
        return;
    }
    // It fails only for want of memory; then the batch goes as it is.
    if let Ok(bytes) = zstd::bulk::compress(&packed.bytes, LEVEL)
        && bytes.len() < packed.bytes.len()
    {
        packed.codec = Codec::Zstd { raw_bytes };
        packed.bytes = bytes;
    }
}

/// The bytes of a batch, from those that travelled. Takes no more memory than a batch may have.
pub fn unpack(codec: Codec, bytes: &[u8]) -> Result<Vec<u8>, UnpackError> {
    match codec {
        Codec::Plain => Ok(bytes.to_vec()),
        Codec::Zstd { raw_bytes } if raw_bytes as usize > RECORD_BYTES_MAX => Err(UnpackError::TooLarge { raw_bytes }),
        Codec::Zstd { raw_bytes } => {
            let raw = zstd::bulk::decompress(bytes, raw_bytes as usize).map_err(|_| UnpackError::Damaged)?;
            (raw.len() == raw_bytes as usize)
                .then_some(raw)
                .ok_or(UnpackError::Damaged)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packed(bytes: Vec<u8>) -> Packed {
        Packed {
            records: 1,
            codec: Codec::Plain,
            bytes,
            mark: None,
        }
    }

    proptest! {
        #[test]
        fn what_is_compressed_comes_out_again(word in proptest::collection::vec(any::<u8>(), 1..20), times in 1usize..5_000) {
            let bytes = word.repeat(times);
            let mut packed = packed(bytes.clone());
            compress(&mut packed);
            prop_assert!(packed.bytes.len() <= bytes.len());
            prop_assert_eq!(packed.codec == Codec::Plain, packed.bytes.len() == bytes.len());
            prop_assert_eq!(unpack(packed.codec, &packed.bytes).unwrap(), bytes);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), raw_bytes: u32) {
            let _ = unpack(Codec::Zstd { raw_bytes }, &bytes);
        }
    }

    #[test]
    fn a_bomb_is_not_unpacked() {
        let bomb = zstd::bulk::compress(&vec![0; 64 * 1024 * 1024], 19).unwrap();
        assert!(bomb.len() < 16 * 1024);
        for raw_bytes in [u32::MAX, RECORD_BYTES_MAX as u32 + 1] {
            let refused = unpack(Codec::Zstd { raw_bytes }, &bomb);
            assert!(matches!(refused, Err(UnpackError::TooLarge { .. })), "{raw_bytes}");
        }
        for raw_bytes in [0, 1, 100_000] {
            let refused = unpack(Codec::Zstd { raw_bytes }, &bomb);
            assert!(matches!(refused, Err(UnpackError::Damaged)), "{raw_bytes}");
        }
        // One that says it is larger than it is.
        let small = zstd::bulk::compress(b"small", 1).unwrap();
        assert!(matches!(
            unpack(Codec::Zstd { raw_bytes: 6 }, &small),
            Err(UnpackError::Damaged)
        ));
        assert_eq!(unpack(Codec::Zstd { raw_bytes: 5 }, &small).unwrap(), b"small");
    }
}
