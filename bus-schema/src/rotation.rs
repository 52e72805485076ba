//! A member changes its keys and stays who it is. It asks the plane, in a message that its keys so far have signed, for a
//! certificate of new ones; from then on both are good, until it says that nothing is left that the old ones have signed.

use alloc::string::String;

use serde::{Deserialize, Serialize};

use crate::{
    id::{FleetId, NodeId},
    key::PublicKeys,
    member::{Certificate, Document, Signed},
};

/// New keys for a member. Signed by themselves: whoever offers them holds them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyOffer {
    /// The fleet.
    pub fleet: FleetId,
    /// The member.
    pub node: NodeId,
    /// The new keys.
    pub keys: PublicKeys,
}

impl Document for KeyOffer {
    const WHAT: &'static str = "key offer";
}

/// A member asks for a certificate of new keys. Said again until it is answered; the same keys get the same answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotateAsk {
    /// The new keys, by which the offer has to be signed.
    pub keys: PublicKeys,
    /// The offer.
    pub offer: Signed<KeyOffer>,
}

/// The plane's answer to [`RotateAsk`]. Variants are only ever appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RotateAnswer {
    /// The new certificate. The one before stays good until [`RotateDone`].
    Granted(Signed<Certificate>),
    /// No, and why, for people.
    Refused(String),
}

/// Nothing is left that older keys of the sender have signed: nobody has to believe them any more. Said again until a roster says so too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotateDone {
    /// The generation of the keys that stay.
    pub key_epoch: u32,
}

/// A member shows its new certificate to those it has to do with, in a message that its old keys have signed: they may not have
/// heard of it, because the plane is away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateShow {
    /// Signed by the root key: nothing else has to be believed.
    pub certificate: Signed<Certificate>,
}
