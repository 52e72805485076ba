//! Names of nodes, as a person writes them (`ns=2;s=Line1.Speed`) and as they are on the wire.

use std::fmt;

use super::wire::{Reader, WireError, Writer};

/// What a name may begin with that goes on to another server.
const URI_FOLLOWS: u8 = 0x80;
const SERVER_FOLLOWS: u8 = 0x40;

/// A node of a server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct NodeId {
    pub namespace: u16,
    pub id: Identifier,
}

/// What it is called in its namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Identifier {
    Number(u32),
    Text(String),
    /// As it is written: most significant first.
    Guid([u8; 16]),
    Bytes(Vec<u8>),
}

impl NodeId {
    /// A node of the specification's own.
    pub(super) fn own(number: u32) -> Self {
        Self {
            namespace: 0,
            id: Identifier::Number(number),
        }
    }

    /// Reads `i=85`, `ns=2;s=Line1.Speed`, `ns=2;g=…` or `ns=2;b=…` (hexadecimal).
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is no node id: write i=85, ns=2;s=Line1.Speed, ns=2;g=GUID or ns=2;b=HEX");
        let (namespace, rest) = match text.strip_prefix("ns=") {
            None => (0, text),
            Some(rest) => {
                let (namespace, rest) = rest.split_once(';').ok_or_else(wrong)?;
                (namespace.parse().map_err(|_| wrong())?, rest)
            }
        };
        let (kind, value) = rest.split_once('=').ok_or_else(wrong)?;
        let id = match kind {
            "i" => Identifier::Number(value.parse().map_err(|_| wrong())?),
            "s" if !value.is_empty() => Identifier::Text(value.to_string()),
            "g" => {
                let digits: String = value.chars().filter(|char| *char != '-').collect();
                let bytes = hex(&digits).and_then(|bytes| bytes.try_into().ok());
                Identifier::Guid(bytes.ok_or_else(wrong)?)
            }
            "b" => Identifier::Bytes(hex(value).ok_or_else(wrong)?),
            _ => return Err(wrong()),
        };
        Ok(Self { namespace, id })
    }

    pub(super) fn write(&self, to: &mut Writer) {
        match &self.id {
            Identifier::Number(number) => to.u8(2).u16(self.namespace).u32(*number),
            Identifier::Text(text) => to.u8(3).u16(self.namespace).text(text),
            Identifier::Guid(guid) => to.u8(4).u16(self.namespace).raw(&swapped(*guid)),
            Identifier::Bytes(bytes) => to.u8(5).u16(self.namespace).bytes(bytes),
        };
    }

    pub(super) fn read(from: &mut Reader<'_>) -> Result<Self, WireError> {
        let kind = from.u8()?;
        Self::read_as(kind, from)
    }

    /// With the name of its namespace or the number of its server, which are passed over.
    pub(super) fn read_expanded(from: &mut Reader<'_>) -> Result<Self, WireError> {
        let kind = from.u8()?;
        let node = Self::read_as(kind & !(URI_FOLLOWS | SERVER_FOLLOWS), from)?;
        if kind & URI_FOLLOWS != 0 {
            from.text()?;
        }
        if kind & SERVER_FOLLOWS != 0 {
            from.u32()?;
        }
        Ok(node)
    }

    fn read_as(kind: u8, from: &mut Reader<'_>) -> Result<Self, WireError> {
        let (namespace, id) = match kind {
            0 => (0, Identifier::Number(from.u8()?.into())),
            1 => (from.u8()?.into(), Identifier::Number(from.u16()?.into())),
            2 => (from.u16()?, Identifier::Number(from.u32()?)),
            3 => (
                from.u16()?,
                Identifier::Text(from.text()?.unwrap_or_default().to_string()),
            ),
            4 => (from.u16()?, Identifier::Guid(guid(from)?)),
            5 => (
                from.u16()?,
                Identifier::Bytes(from.bytes()?.unwrap_or_default().to_vec()),
            ),
            _ => return Err(WireError::Unknown(format!("a node id of kind {kind}"))),
        };
        Ok(Self { namespace, id })
    }
}

/// A GUID, most significant first.
pub(super) fn guid(from: &mut Reader<'_>) -> Result<[u8; 16], WireError> {
    from.array().map(swapped)
}

/// Its first three numbers are little-endian on the wire.
fn swapped(mut guid: [u8; 16]) -> [u8; 16] {
    for range in [0..4, 4..6, 6..8] {
        guid[range].reverse();
    }
    guid
}

fn hex(digits: &str) -> Option<Vec<u8>> {
    if !digits.len().is_multiple_of(2) || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).ok();
    (0..digits.len()).step_by(2).map(byte).collect()
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace != 0 {
            write!(f, "ns={};", self.namespace)?;
        }
        match &self.id {
            Identifier::Number(number) => write!(f, "i={number}"),
            Identifier::Text(text) => write!(f, "s={text}"),
            Identifier::Guid(guid) => {
                f.write_str("g=")?;
                for (at, byte) in guid.iter().enumerate() {
                    let dash = if matches!(at, 4 | 6 | 8 | 10) { "-" } else { "" };
                    write!(f, "{dash}{byte:02x}")?;
                }
                Ok(())
            }
            Identifier::Bytes(bytes) => {
                f.write_str("b=")?;
                bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written() {
        for name in [
            "i=85",
            "ns=2;i=4294967295",
            "ns=2;s=Line1.Speed",
            "ns=3;s=a;b=c",
            "ns=65535;g=72962b91-fa75-4ae6-8d28-b404dc7daf63",
            "ns=1;b=00ff",
        ] {
            let node = NodeId::parse(name).unwrap();
            assert_eq!(node.to_string(), name);
            let mut writer = Writer::default();
            node.write(&mut writer);
            let bytes = writer.finish();
            let mut reader = Reader::new(&bytes);
            assert_eq!((NodeId::read(&mut reader), reader.rest()), (Ok(node), &[][..]));
        }
        for name in [
            "",
            "85",
            "i=",
            "i=-1",
            "ns=2",
            "ns=70000;i=1",
            "x=1",
            "s=",
            "g=12",
            "b=1",
            "b=äa",
            "ns=2;Line1",
        ] {
            assert!(NodeId::parse(name).is_err(), "{name}");
        }
    }

    /// The examples of the specification.
    #[test]
    fn short_forms_and_guids() {
        for (bytes, name) in [
            (&[0, 0x72][..], "i=114"),
            (&[1, 5, 0x01, 0x04], "ns=5;i=1025"),
            (
                &[
                    4, 1, 0, 0x91, 0x2b, 0x96, 0x72, 0x75, 0xfa, 0xe6, 0x4a, 0x8d, 0x28, 0xb4, 4, 0xdc, 0x7d, 0xaf,
                    0x63,
                ],
                "ns=1;g=72962b91-fa75-4ae6-8d28-b404dc7daf63",
            ),
            (&[0xc0, 7, 1, 0, 0, 0, b'u', 9, 0, 0, 0], "i=7"),
        ] {
            let mut reader = Reader::new(bytes);
            assert_eq!(NodeId::read_expanded(&mut reader).unwrap().to_string(), name);
            assert!(reader.rest().is_empty());
        }
    }
}
