//! Identifiers: lower-case base32 of a hash, so that each is a valid subject token and none can be confused with another.

use alloc::{
    string::{String, ToString},
    vec::Vec,
};
use core::{fmt, str::FromStr};

use blake2::{Blake2b, Digest, digest::consts::U32};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes of a hash an id keeps: 80 bits.
const ID_HASH_BYTES: usize = 10;
/// Length of an id's text.
pub const ID_CHARS: usize = 16;

const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// Lower-case base32 without padding (RFC 4648 alphabet).
pub fn base32(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(5) * 8);
    let (mut bits, mut held) = (0u32, 0u32);
    for byte in bytes {
        bits = (bits << 8) | u32::from(*byte);
        held += 8;
        while held >= 5 {
            held -= 5;
            out.push(char::from(ALPHABET[((bits >> held) & 31) as usize]));
        }
    }
    if held > 0 {
        out.push(char::from(ALPHABET[((bits << (5 - held)) & 31) as usize]));
    }
    out
}

/// Reverses [`base32`]; `None` when a character is foreign or the left-over bits are not zero.
pub fn from_base32(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() * 5 / 8);
    let (mut bits, mut held) = (0u32, 0u32);
    for byte in text.bytes() {
        let value = match byte {
            b'a'..=b'z' => byte - b'a',
            b'2'..=b'7' => byte - b'2' + 26,
            _ => return None,
        };
        bits = ((bits << 5) | u32::from(value)) & 0xffff;
        held += 5;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
        }
    }
    let leftover = bits & ((1 << held) - 1);
    (held < 5 && leftover == 0).then_some(out)
}

/// 32-byte BLAKE2b of several parts, each length-prefixed, under a context that keeps uses apart.
pub fn hash(context: &str, parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Blake2b::<U32>::new();
    for part in core::iter::once(&context.as_bytes()).chain(parts) {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// The text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not {what}: expected 16 characters of a-z and 2-7")]
pub struct IdError {
    what: &'static str,
    text: String,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; ID_CHARS]);

        impl $name {
            /// From a 32-byte hash (or random bytes).
            pub fn from_hash(hash: &[u8; 32]) -> Self {
                let mut text = [0; ID_CHARS];
                text.copy_from_slice(base32(&hash[..ID_HASH_BYTES]).as_bytes());
                Self(text)
            }

            /// The 16 characters.
            pub fn as_str(&self) -> &str {
                core::str::from_utf8(&self.0).expect("an id holds ASCII only: every constructor checks it")
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                let error = || IdError { what: $what, text: text.chars().take(64).collect() };
                let bytes: [u8; ID_CHARS] = text.as_bytes().try_into().map_err(|_| error())?;
                from_base32(text).ok_or_else(error)?;
                Ok(Self(bytes))
            }
        }

        #[cfg(feature = "schema")]
        impl schemars::JsonSchema for $name {
            fn schema_name() -> alloc::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "pattern": "^[a-z2-7]{16}$" })
            }
        }

        /// Ten bytes on the wire.
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    return serializer.serialize_str(self.as_str());
                }
                let bytes = from_base32(self.as_str()).unwrap_or_default();
                let fixed: [u8; ID_HASH_BYTES] = bytes.try_into().unwrap_or_default();
                fixed.serialize(serializer)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    let text = <alloc::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                    return text.parse().map_err(|error: IdError| serde::de::Error::custom(error.to_string()));
                }
                let fixed = <[u8; ID_HASH_BYTES]>::deserialize(deserializer)?;
                let mut text = [0; ID_CHARS];
                text.copy_from_slice(base32(&fixed).as_bytes());
                Ok(Self(text))
            }
        }
    };
}

id!(
    /// A fleet: the hash of its root key.
    FleetId,
    "a fleet id"
);
id!(
    /// A member of a fleet: the hash of its signing key, so an id cannot be claimed without the key.
    NodeId,
    "a node id"
);
id!(
    /// A stream: one edge of one workflow from one producer to one consumer.
    StreamId,
    "a stream id"
);
id!(
    /// An enrolment token's public half.
    TokenId,
    "a token id"
);
id!(
    /// A workflow. Stable over its revisions and renamings.
    WorkflowId,
    "a workflow id"
);

impl NodeId {
    /// The id of the holder of this Ed25519 public key.
    pub fn of_key(sign_public: &[u8; 32]) -> Self {
        Self::from_hash(&hash("mycelial node v1", &[sign_public]))
    }
}

impl FleetId {
    /// The id of the fleet with this Ed25519 root key.
    pub fn of_root(root_public: &[u8; 32]) -> Self {
        Self::from_hash(&hash("mycelial fleet v1", &[root_public]))
    }
}

impl StreamId {
    /// The stream of one edge. `edge` is `<from>-><to>` in the workflow's own node names.
    pub fn of_edge(workflow: &WorkflowId, edge: &str, producer: &NodeId, consumer: &NodeId) -> Self {
        let parts = [workflow.as_str(), edge, producer.as_str(), consumer.as_str()].map(str::as_bytes);
        Self::from_hash(&hash("mycelial stream v1", &parts))
    }
}

impl WorkflowId {
    /// A workflow is known by its name within a fleet.
    pub fn of_name(name: &str) -> Self {
        Self::from_hash(&hash("mycelial workflow v1", &[name.as_bytes()]))
    }
}

/// Shows bytes as grouped base32, for people to compare: `abcd-efgh-…`.
pub fn fingerprint(bytes: &[u8; 32]) -> String {
    let text = base32(&hash("mycelial fingerprint v1", &[bytes])[..15]);
    let groups: Vec<String> = text
        .as_bytes()
        .chunks(4)
        .map(|chunk| chunk.iter().map(|b| char::from(*b)).collect())
        .collect();
    groups.join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base32_reads_back() {
        for (bytes, text) in [
            (&b""[..], ""),
            (b"f", "my"),
            (b"foobar", "mzxw6ytboi"),
            (&[0xff; 5], "77777777"),
        ] {
            assert_eq!(base32(bytes), text);
            assert_eq!(from_base32(text).as_deref(), Some(bytes));
        }
        for bad in ["m", "mz", "MY", "m1", "my="] {
            assert_eq!(from_base32(bad), None, "{bad}");
        }
    }

    #[test]
    fn ids_read_back_and_stay_apart() {
        let id = NodeId::of_key(&[7; 32]);
        assert_eq!(id.as_str().parse::<NodeId>(), Ok(id));
        assert_ne!(id.as_str(), FleetId::of_root(&[7; 32]).as_str());
        assert!("short".parse::<NodeId>().is_err());
        assert!("ABCDEFGHIJKLMNOP".parse::<NodeId>().is_err());
        let bytes = postcard::to_allocvec(&id).unwrap();
        assert_eq!(bytes.len(), 10);
        assert_eq!(postcard::from_bytes::<NodeId>(&bytes), Ok(id));
    }
}
