//! A call: what its body holds, and whether it comes from whom it should. Performs no I/O.

use std::{borrow::Cow, net::SocketAddr, ops::Range, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bus_schema::data::Value;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use serde::{
    Deserializer as _,
    de::{Error as _, SeqAccess, Visitor},
};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;

use super::{Encoding, Format};
use crate::{
    file::{json, rows::Token},
    payload,
    secret::Secret,
};

/// Most records of one call: each takes more than its bytes.
pub(super) const RECORDS_MAX: usize = 10_000;
/// Bytes a record takes besides its payload.
const RECORD_BYTES: usize = 128;

/// Longest `Idempotency-Key`, in bytes: each record of a batch has it in a column.
pub(super) const KEY_BYTES_MAX: usize = 255;

/// Bytes of a key. Each record counts for it: each gets it into its column.
fn key_bytes(key: Option<&str>) -> usize {
    key.map_or(0, str::len)
}

/// Learns that the records of a call are durable.
pub(super) type Waiting = oneshot::Sender<()>;

/// What a call brought.
pub(super) struct Called {
    pub body: Bytes,
    /// Where in it the records are; never none.
    pub places: Vec<Range<usize>>,
    pub sender: SocketAddr,
    pub received_ns: i128,
    /// What all of its records share.
    pub key: Option<Arc<str>>,
    pub waiting: Waiting,
}

impl Called {
    /// Bytes it counts for.
    pub(super) fn weight(&self) -> usize {
        self.body.len() + self.places.len() * (RECORD_BYTES + key_bytes(self.key.as_deref()))
    }

    /// Its records; the last one has who waits for them.
    pub(super) fn records(self) -> impl Iterator<Item = Record> {
        let last = self.places.len().saturating_sub(1);
        let mut waiting = Some(self.waiting);
        let places = self.places.into_iter().enumerate();
        places.map(move |(index, place)| Record {
            payload: self.body.slice(place),
            item: index as u64,
            sender: self.sender,
            received_ns: self.received_ns,
            key: self.key.clone(),
            waiting: waiting.take_if(|_| index == last),
        })
    }
}

/// One of its records.
pub(super) struct Record {
    payload: Bytes,
    item: u64,
    sender: SocketAddr,
    received_ns: i128,
    key: Option<Arc<str>>,
    pub waiting: Option<Waiting>,
}

impl Record {
    /// Bytes it counts for.
    pub(super) fn weight(&self) -> usize {
        self.payload.len() + RECORD_BYTES + key_bytes(self.key.as_deref())
    }
}

impl payload::Message for Record {
    fn payload(&self) -> &[u8] {
        &self.payload
    }

    fn beside(&self) -> Vec<(&'static str, Token<'_>)> {
        let key = self
            .key
            .as_deref()
            .map_or(Token::Null, |key| Token::Text(Cow::Borrowed(key)));
        let sender = self.sender.ip().to_canonical().to_string();
        vec![
            ("_received_at", Token::Value(Value::TimestampUtc(self.received_ns))),
            ("_sender", Token::Text(Cow::Owned(sender))),
            ("_idempotency_key", key),
            ("_item", Token::Value(Value::U64(self.item))),
        ]
    }

    fn name(&self) -> String {
        format!("a request of {}", self.sender.ip().to_canonical())
    }
}

/// Why a body is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is not what it should be.
    Malformed(String),
    /// It has more records than are taken.
    TooMany,
}

/// All of a body as one record.
#[allow(clippy::single_range_in_vec_init, reason = "a list of places, of which there is one")]
fn whole(bytes: usize) -> Vec<Range<usize>> {
    vec![0..bytes]
}

/// Where the records of a body are.
pub(super) fn places(body: &[u8], format: Format) -> Result<Vec<Range<usize>>, Refusal> {
    let text =
        || std::str::from_utf8(body).map_err(|error| Refusal::Malformed(format!("the body is not UTF-8: {error}")));
    match format {
        Format::Bytes => Ok(whole(body.len())),
        Format::Text => text().map(|text| whole(text.len())),
        Format::JsonLines => lines(text()?),
        Format::Json => match text()? {
            list if list.trim_start().starts_with('[') => items(list),
            one => {
                check(one, || "the body".to_string())?;
                Ok(whole(one.len()))
            }
        },
    }
}

/// Whether it is one JSON object.
fn check(text: &str, name: impl Fn() -> String) -> Result<(), Refusal> {
    json::object(text, |_, _| Ok(())).map_err(|error| Refusal::Malformed(format!("{}: {error}", name())))
}

fn lines(text: &str) -> Result<Vec<Range<usize>>, Refusal> {
    let (mut places, mut at) = (Vec::new(), 0);
    for (index, line) in text.split('\n').enumerate() {
        let place = at..at + line.len();
        at = place.end + 1;
        if line.trim().is_empty() {
            continue;
        }
        if places.len() >= RECORDS_MAX {
            return Err(Refusal::TooMany);
        }
        check(line, || format!("line {}", index + 1))?;
        places.push(place);
    }
    Ok(places)
}

fn items(text: &str) -> Result<Vec<Range<usize>>, Refusal> {
    let mut places = Vec::new();
    let mut is_too_many = false;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let read = deserializer.deserialize_seq(Items {
        text,
        places: &mut places,
        is_too_many: &mut is_too_many,
    });
    if is_too_many {
        return Err(Refusal::TooMany);
    }
    let read = read.and_then(|()| deserializer.end());
    read.map_err(|error| Refusal::Malformed(format!("the body is not JSON: {error}")))?;
    for (index, place) in places.iter().enumerate() {
        check(&text[place.clone()], || format!("item {index}"))?;
    }
    Ok(places)
}

/// Where the items of an array are.
struct Items<'t, 'p> {
    text: &'t str,
    places: &'p mut Vec<Range<usize>>,
    is_too_many: &'p mut bool,
}

impl<'de> Visitor<'de> for Items<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while let Some(item) = list.next_element::<&'de RawValue>()? {
            if self.places.len() >= RECORDS_MAX {
                *self.is_too_many = true;
                return Err(A::Error::custom("too many"));
            }
            // It is a part of the text: both begin somewhere in the same bytes.
            let start = item.get().as_ptr() as usize - self.text.as_ptr() as usize;
            self.places.push(start..start + item.get().len());
        }
        Ok(())
    }
}

/// Whether a token is the right one. Takes as long for any that has the wrong content.
pub(super) fn is_token(said: &[u8], secret: &Secret) -> bool {
    // Digests differ everywhere or nowhere: where they first do says nothing of the token.
    Sha256::digest(said) == Sha256::digest(secret.expose().trim().as_bytes())
}

/// Whether a body is signed with the secret (HMAC-SHA256, RFC 2104).
pub(super) fn is_signed(body: &[u8], said: &[u8], prefix: &str, encoding: Encoding, secret: &Secret) -> bool {
    let Some(said) = said.strip_prefix(prefix.as_bytes()) else {
        return false;
    };
    let signature = match encoding {
        Encoding::Hex => hex(said),
        Encoding::Base64 => STANDARD.decode(said).ok(),
    };
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes()) else {
        return false;
    };
    mac.update(body);
    signature.is_some_and(|signature| mac.verify_slice(&signature).is_ok())
}

fn hex(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = text.as_chunks::<2>();
    let byte = |[high, low]: &[u8; 2]| Some(digit(*high)? << 4 | digit(*low)?);
    rest.is_empty().then(|| pairs.iter().map(byte).collect()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(body: &str, format: Format) -> Result<Vec<&str>, String> {
        match places(body.as_bytes(), format) {
            Ok(places) => Ok(places.into_iter().map(|place| &body[place]).collect()),
            Err(Refusal::Malformed(cause)) => Err(cause),
            Err(Refusal::TooMany) => Err("too many".to_string()),
        }
    }

    #[test]
    fn bodies_are_taken_apart() {
        for (body, format, wanted) in [
            (r#" {"a": 1} "#, Format::Json, Ok(vec![r#" {"a": 1} "#])),
            (
                " [ {\"a\": \"é\"} ,\n{} ] ",
                Format::Json,
                Ok(vec!["{\"a\": \"é\"}", "{}"]),
            ),
            ("[]", Format::Json, Ok(vec![])),
            ("[1]", Format::Json, Err("item 0: JSON, but not an object")),
            ("[{}", Format::Json, Err("the body is not JSON: EOF")),
            ("[{}] x", Format::Json, Err("the body is not JSON: trailing")),
            ("5", Format::Json, Err("the body: JSON, but not an object")),
            ("", Format::Json, Err("the body: not JSON")),
            ("{}\r\n\n{\"a\": 1}", Format::JsonLines, Ok(vec!["{}\r", "{\"a\": 1}"])),
            ("{}\nx\n", Format::JsonLines, Err("line 2: not JSON")),
            ("", Format::JsonLines, Ok(vec![])),
            ("a\nb", Format::Text, Ok(vec!["a\nb"])),
            ("", Format::Bytes, Ok(vec![""])),
        ] {
            match (found(body, format), wanted) {
                (Ok(found), Ok(wanted)) => assert_eq!(found, wanted, "{body}"),
                (Err(found), Err(wanted)) => assert!(found.starts_with(wanted), "{body}: {found}"),
                (found, wanted) => panic!("{body}: {found:?} instead of {wanted:?}"),
            }
        }
        assert!(matches!(places(b"\xff", Format::Text), Err(Refusal::Malformed(_))));
        assert_eq!(places(b"\xff", Format::Bytes), Ok(whole(1)));
        let many = format!("[{}{{}}]", "{},".repeat(RECORDS_MAX));
        assert_eq!(found(&many, Format::Json), Err("too many".into()));
        assert_eq!(
            found(&"{}\n".repeat(RECORDS_MAX + 1), Format::JsonLines),
            Err("too many".into())
        );
        assert_eq!(
            found(&"{}\n".repeat(RECORDS_MAX), Format::JsonLines).map(|found| found.len()),
            Ok(RECORDS_MAX)
        );
    }

    #[test]
    fn a_key_counts_for_each_record() {
        let called = |key: Option<&str>| Called {
            body: Bytes::from_static(b"{}{}{}"),
            places: vec![0..2, 2..4, 4..6],
            sender: ([127, 0, 0, 1], 80).into(),
            received_ns: 0,
            key: key.map(Arc::from),
            waiting: oneshot::channel().0,
        };
        let (without, with) = (called(None), called(Some("0123456789")));
        assert_eq!(with.weight() - without.weight(), 30);
        let weights = |called: Called| called.records().map(|record| record.weight()).collect::<Vec<_>>();
        let wanted: Vec<usize> = weights(without).into_iter().map(|weight| weight + 10).collect();
        assert_eq!(weights(with), wanted);
        let records: Vec<Record> = called(Some("k")).records().collect();
        let keys: Vec<*const u8> = records
            .iter()
            .filter_map(|record| record.key.as_deref())
            .map(str::as_ptr)
            .collect();
        assert!(
            keys.len() == 3 && keys.iter().all(|key| *key == keys[0]),
            "one key for all"
        );
    }

    #[test]
    fn signatures() {
        // RFC 4231, test case 2.
        let secret = Secret::new("Jefe".to_string());
        let body = b"what do ya want for nothing?";
        let hex = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        let base64 = "W9zBRr9gdU5qBCQmCJV1x1oAPwidJzmDnexYuWTsOEM=";
        let signed = |said: &str, encoding| is_signed(body, said.as_bytes(), "v1=", encoding, &secret);
        assert!(signed(&format!("v1={hex}"), Encoding::Hex));
        assert!(signed(&format!("v1={}", hex.to_uppercase()), Encoding::Hex));
        assert!(signed(&format!("v1={base64}"), Encoding::Base64));
        for wrong in [
            hex.to_string(),
            format!("v1={}", &hex[2..]),
            format!("v1={hex}0"),
            "v1=".into(),
            "v1=zz".into(),
        ] {
            assert!(!signed(&wrong, Encoding::Hex), "{wrong}");
        }
        assert!(!is_signed(
            b"other",
            format!("v1={hex}").as_bytes(),
            "v1=",
            Encoding::Hex,
            &secret
        ));
        assert!(is_token(b"Jefe", &secret) && !is_token(b"jefe", &secret) && !is_token(b"", &secret));
    }
}
