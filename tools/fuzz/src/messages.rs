//! Messages in their bodies, documents, and the text that invites a member.

use bus_schema::{
    api::{ApiCall, ApiResult},
    carried::{Carried, LettersKept},
    control::{ControlCall, ControlResult},
    drift::Drifts,
    letter::{LetterCall, LetterResult},
    member::{Certificate, Invitation, Roster, Signed},
    message::*,
    pairing::{PairAsk, PairWait},
    plan::Plan,
    rotation::{CertificateShow, KeyOffer, RotateAnswer, RotateAsk, RotateDone},
    secret::{SecretCall, SecretResult},
    trial::{TrialCall, TrialResult},
};
use serde_free::again;

/// What decodes must come out the same once it is written again.
mod serde_free {
    use bus_schema::message::Message;

    pub fn again<M: Message>(kind: u16, ver: u8, payload: &[u8]) {
        let Ok(message) = M::from_payload(kind, ver, payload) else {
            return;
        };
        let written = message.to_payload();
        let read = M::from_payload(kind, ver, &written).expect("what was written reads back");
        assert_eq!(read.to_payload(), written);
    }
}

/// Reads the bytes as everything they could be.
pub fn feed(data: &[u8]) {
    if let Ok(body) = Body::decode(data) {
        let (kind, ver, payload) = (body.kind, body.ver, body.payload);
        assert_eq!(Body::decode(&body.encode()).map(|again| again.kind).ok(), Some(kind));
        each(kind, ver, payload);
    }
    // So that the fuzzer need not find out how a body is made.
    if let [kind, payload @ ..] = data {
        each(u16::from(*kind), 1, payload);
    }
    let _ = bus_schema::decode::<Signed<Certificate>>(data);
    let _ = bus_schema::decode::<Signed<Roster>>(data);
    let _ = bus_schema::decode::<Signed<Plan>>(data);
    let _ = bus_schema::decode::<Signed<KeyOffer>>(data);
    let _ = bus_schema::decode::<Plan>(data);
    if let Ok(text) = core::str::from_utf8(data) {
        let _ = Invitation::decode(text);
    }
}

fn each(kind: u16, ver: u8, payload: &[u8]) {
    again::<EnrolAsk>(kind, ver, payload);
    again::<EnrolAnswer>(kind, ver, payload);
    again::<Status>(kind, ver, payload);
    again::<StreamReports>(kind, ver, payload);
    again::<Carried>(kind, ver, payload);
    again::<LettersKept>(kind, ver, payload);
    again::<Drifts>(kind, ver, payload);
    again::<PlanPut>(kind, ver, payload);
    again::<RosterPut>(kind, ver, payload);
    again::<CatalogAsk>(kind, ver, payload);
    again::<CatalogPage>(kind, ver, payload);
    again::<StreamOpen>(kind, ver, payload);
    again::<StreamAck>(kind, ver, payload);
    again::<Frame>(kind, ver, payload);
    again::<ApiCall>(kind, ver, payload);
    again::<ApiResult>(kind, ver, payload);
    again::<TapOpen>(kind, ver, payload);
    again::<TapSample>(kind, ver, payload);
    again::<Text>(kind, ver, payload);
    again::<Ping>(kind, ver, payload);
    again::<Pong>(kind, ver, payload);
    again::<LetterCall>(kind, ver, payload);
    again::<LetterResult>(kind, ver, payload);
    again::<TimeHint>(kind, ver, payload);
    again::<SecretCall>(kind, ver, payload);
    again::<SecretResult>(kind, ver, payload);
    again::<ControlCall>(kind, ver, payload);
    again::<ControlResult>(kind, ver, payload);
    again::<TrialCall>(kind, ver, payload);
    again::<TrialResult>(kind, ver, payload);
    again::<RecallAsk>(kind, ver, payload);
    again::<RecallPage>(kind, ver, payload);
    again::<PairAsk>(kind, ver, payload);
    again::<PairWait>(kind, ver, payload);
    again::<RotateAsk>(kind, ver, payload);
    again::<RotateAnswer>(kind, ver, payload);
    again::<RotateDone>(kind, ver, payload);
    again::<CertificateShow>(kind, ver, payload);
}

/// The kinds that [`each`] reads: a test compares them with the catalogue.
#[cfg(test)]
const KINDS: &[u16] = &[
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33,
    40, 41, 42, 43, 44, 45, 46,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_message_is_read() {
        let kinds: Vec<u16> = CATALOG.iter().map(|(kind, ..)| *kind).collect();
        assert_eq!(kinds, KINDS, "add the new kind to `each`");
    }
}
