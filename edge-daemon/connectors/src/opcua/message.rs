//! The services that reading needs, as requests and answers (OPC 10000-4, 5). Looks at the clock, and
//! performs no other I/O.

use zeroize::Zeroizing;

use super::{
    channel::ChannelError,
    data::{Datum, datum, diagnostics, extension, ticks},
    endpoint::{Endpoint, endpoints},
    node::NodeId,
    status::Status,
    wire::{Reader, WireError, Writer},
};
use crate::clock::now_ns;

/// The value of a node, among its attributes.
const ATTRIBUTE_VALUE: u32 = 13;
/// Times of both the device and the server.
const BOTH_TIMES: u32 = 2;
/// A monitored item tells of changes.
const REPORTING: u32 = 2;
/// How long the server may take, in milliseconds.
const TIMEOUT_HINT_MS: u32 = 10_000;
/// What we are: a client.
const CLIENT: u32 = 1;

/// A request's encoding, and its answer's.
pub(super) type Kind = (u32, u32);

/// The numbers of the encodings.
pub(super) mod kind {
    use super::Kind;

    pub(in super::super) const GET_ENDPOINTS: Kind = (428, 431);
    pub(in super::super) const OPEN_CHANNEL: Kind = (446, 449);
    pub(in super::super) const CLOSE_CHANNEL: Kind = (452, 455);
    pub(in super::super) const CREATE_SESSION: Kind = (461, 464);
    pub(in super::super) const ACTIVATE_SESSION: Kind = (467, 470);
    pub(in super::super) const CLOSE_SESSION: Kind = (473, 476);
    pub(in super::super) const READ: Kind = (631, 634);
    pub(in super::super) const CREATE_ITEMS: Kind = (751, 754);
    pub(in super::super) const CREATE_SUBSCRIPTION: Kind = (787, 790);
    pub(in super::super) const PUBLISH: Kind = (826, 829);
}

/// The answer to anything, when it is no.
const FAULT: u32 = 397;
/// In a publication: values have changed, or the subscription has.
const DATA_CHANGE: u32 = 811;
const STATUS_CHANGE: u32 = 820;
/// Who one is.
const ANONYMOUS: u32 = 321;
const USER_NAME: u32 = 324;

/// A session's name for itself, which every request in it carries.
pub(super) type Token = NodeId;

/// Begins a request.
pub(super) fn request(kind: Kind, token: Option<&Token>) -> Writer {
    let mut request = Writer::default();
    NodeId::own(kind.0).write(&mut request);
    match token {
        Some(token) => token.write(&mut request),
        None => NodeId::own(0).write(&mut request),
    }
    request.i64(ticks(now_ns()));
    // Handle, no diagnostics, no audit entry.
    request.u32(0).u32(0).nothing().u32(TIMEOUT_HINT_MS);
    nothing_more(&mut request);
    request
}

/// An extension that is not there.
fn nothing_more(to: &mut Writer) {
    NodeId::own(0).write(to);
    to.u8(0);
}

/// Reads an answer's head; what is left is its content.
pub(super) fn response<'a>(bytes: &'a [u8], kind: Kind, what: &'static str) -> Result<Reader<'a>, ChannelError> {
    let mut answer = Reader::new(bytes);
    let ty = NodeId::read(&mut answer)?;
    answer.i64()?;
    answer.u32()?;
    let status = Status(answer.u32()?);
    if status.is_bad() {
        return Err(ChannelError::Refused { what, status });
    }
    if ty != NodeId::own(kind.1) {
        let of = if ty == NodeId::own(FAULT) {
            "a fault"
        } else {
            "something else"
        };
        return Err(ChannelError::Broken(format!("{what} was answered with {of}")));
    }
    diagnostics(&mut answer, 0)?;
    answer.list(Reader::text)?;
    extension(&mut answer)?;
    Ok(answer)
}

/// Asks for the ways into a server.
pub(super) fn get_endpoints(url: &str) -> Vec<u8> {
    let mut request = request(kind::GET_ENDPOINTS, None);
    // In no language, by any transport.
    request.text(url).nothing().nothing();
    request.finish()
}

/// The ways into a server.
pub(super) fn endpoints_got(bytes: &[u8]) -> Result<Vec<Endpoint>, ChannelError> {
    let mut answer = response(bytes, kind::GET_ENDPOINTS, "asking for endpoints")?;
    Ok(endpoints(&mut answer)?)
}

/// What a daemon is called that has no certificate to say so.
pub(super) const NAME_URI: &str = "urn:mycelial:daemon";

/// A session that is wanted.
pub(super) struct Wanted<'a> {
    pub url: &'a str,
    /// What it is called.
    pub name: &'a str,
    /// Who asks.
    pub uri: &'a str,
    pub nonce: &'a [u8],
    /// Ours, on a protected channel.
    pub certificate: Option<&'a [u8]>,
    pub timeout_ms: f64,
}

/// Asks for a session.
pub(super) fn create_session(wanted: &Wanted<'_>) -> Vec<u8> {
    let mut request = request(kind::CREATE_SESSION, None);
    // Who asks: application, product, its name in no language, what it is; no gateway, no discovery.
    request.text(wanted.uri).text("urn:mycelial").u8(2).text("Mycelial");
    request.u32(CLIENT).nothing().nothing().nothing();
    // Any server of this address.
    request.nothing().text(wanted.url).text(wanted.name).bytes(wanted.nonce);
    match wanted.certificate {
        Some(certificate) => request.bytes(certificate),
        None => request.nothing(),
    };
    request.f64(wanted.timeout_ms).u32(0);
    request.finish()
}

/// A session that was granted.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Granted {
    pub token: Token,
    /// What the server drew.
    pub nonce: Vec<u8>,
    /// The server's, if the channel is protected.
    pub certificate: Vec<u8>,
    /// The ways into it, as it says inside the channel.
    pub endpoints: Vec<Endpoint>,
    /// Of our certificate and nonce.
    pub signature: Vec<u8>,
}

/// Reads what a server grants.
pub(super) fn session_created(bytes: &[u8]) -> Result<Granted, ChannelError> {
    let mut answer = response(bytes, kind::CREATE_SESSION, "creating a session")?;
    NodeId::read(&mut answer)?;
    let token = NodeId::read(&mut answer)?;
    answer.f64()?;
    let nonce = answer.bytes()?.unwrap_or_default().to_vec();
    let certificate = answer.bytes()?.unwrap_or_default().to_vec();
    let endpoints = endpoints(&mut answer)?;
    // Certificates of software, with their signatures, that nobody has.
    answer.list(|from| {
        from.bytes()?;
        from.bytes()?;
        Ok(())
    })?;
    answer.text()?;
    let signature = answer.bytes()?.unwrap_or_default().to_vec();
    Ok(Granted {
        token,
        nonce,
        certificate,
        endpoints,
        signature,
    })
}

/// Who one is.
#[derive(Clone, Copy)]
pub(super) enum Identity<'a> {
    /// Nobody in particular, by the policy of this name.
    Anonymous(&'a str),
    /// A user.
    User {
        /// By the policy of this name.
        policy: &'a str,
        name: &'a str,
        password: &'a [u8],
        /// How the password is encrypted, if it is.
        encryption: Option<&'a str>,
    },
}

/// Enters a session. `signature`: what it is, and itself.
pub(super) fn activate_session(
    token: &Token,
    identity: Identity<'_>,
    signature: Option<(&str, &[u8])>,
) -> Zeroizing<Vec<u8>> {
    let mut request = request(kind::ACTIVATE_SESSION, Some(token));
    match signature {
        Some((kind, signature)) => request.text(kind).bytes(signature),
        None => request.nothing().nothing(),
    };
    // No certificates, no languages.
    request.nothing().nothing();
    let mut body = Writer::default();
    let ty = match identity {
        Identity::Anonymous(policy) => {
            body.text(policy);
            ANONYMOUS
        }
        Identity::User {
            policy,
            name,
            password,
            encryption,
        } => {
            body.text(policy).text(name).bytes(password);
            match encryption {
                Some(encryption) => body.text(encryption),
                None => body.nothing(),
            };
            USER_NAME
        }
    };
    NodeId::own(ty).write(&mut request);
    request.u8(1).bytes(&Zeroizing::new(body.finish()));
    request.nothing().nothing();
    Zeroizing::new(request.finish())
}

/// Ends a session with its subscriptions.
pub(super) fn close_session(token: &Token) -> Vec<u8> {
    let mut request = request(kind::CLOSE_SESSION, Some(token));
    request.u8(1);
    request.finish()
}

fn value_of(node: &NodeId, to: &mut Writer) {
    node.write(to);
    // All of it, in the usual encoding.
    to.u32(ATTRIBUTE_VALUE).nothing().u16(0).nothing();
}

/// Asks for values as they are.
pub(super) fn read(token: &Token, nodes: &[NodeId]) -> Vec<u8> {
    let mut request = request(kind::READ, Some(token));
    // Not older than now.
    request.f64(0.0).u32(BOTH_TIMES).u32(nodes.len() as u32);
    nodes.iter().for_each(|node| value_of(node, &mut request));
    request.finish()
}

/// The values, in the order in which they were asked for.
pub(super) fn values(bytes: &[u8]) -> Result<Vec<Datum>, ChannelError> {
    let mut answer = response(bytes, kind::READ, "reading")?;
    Ok(answer.list(datum)?)
}

/// How a subscription is kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Pace {
    /// How often changes are told, in milliseconds.
    pub interval_ms: f64,
    /// The server gives up after so many of them without a word from us.
    pub lifetime: u32,
    /// It says that nothing has happened after so many.
    pub keep_alive: u32,
}

/// Asks for a subscription.
pub(super) fn create_subscription(token: &Token, pace: &Pace, notifications_max: u32) -> Vec<u8> {
    let mut request = request(kind::CREATE_SUBSCRIPTION, Some(token));
    request.f64(pace.interval_ms).u32(pace.lifetime).u32(pace.keep_alive);
    // At once, and as important as others.
    request.u32(notifications_max).u8(1).u8(0);
    request.finish()
}

/// The subscription's number, and the pace that the server keeps.
pub(super) fn subscription_created(bytes: &[u8]) -> Result<(u32, Pace), ChannelError> {
    let mut answer = response(bytes, kind::CREATE_SUBSCRIPTION, "creating a subscription")?;
    let id = answer.u32()?;
    let pace = Pace {
        interval_ms: answer.f64()?,
        lifetime: answer.u32()?,
        keep_alive: answer.u32()?,
    };
    Ok((id, pace))
}

/// A node to watch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Item<'a> {
    pub node: &'a NodeId,
    /// What its changes are told under.
    pub handle: u32,
    pub sampling_ms: f64,
    pub queue: u32,
}

/// Asks to watch nodes.
pub(super) fn create_items(token: &Token, subscription: u32, items: &[Item<'_>]) -> Vec<u8> {
    let mut request = request(kind::CREATE_ITEMS, Some(token));
    request.u32(subscription).u32(BOTH_TIMES).u32(items.len() as u32);
    for item in items {
        value_of(item.node, &mut request);
        request.u32(REPORTING).u32(item.handle).f64(item.sampling_ms);
        // Every change of value or status.
        nothing_more(&mut request);
        // The oldest go first when there are too many.
        request.u32(item.queue).u8(1);
    }
    request.finish()
}

/// Whether each can be watched.
pub(super) fn items_created(bytes: &[u8]) -> Result<Vec<Status>, ChannelError> {
    let mut answer = response(bytes, kind::CREATE_ITEMS, "watching nodes")?;
    let created = answer.list(|from| {
        let status = Status(from.u32()?);
        from.u32()?;
        from.f64()?;
        from.u32()?;
        extension(from)?;
        Ok(status)
    })?;
    Ok(created)
}

/// Lets the server tell what has changed, and forget what it has told.
pub(super) fn publish(token: &Token, told: &[(u32, u32)]) -> Vec<u8> {
    let mut request = request(kind::PUBLISH, Some(token));
    request.u32(told.len() as u32);
    for (subscription, sequence) in told {
        request.u32(*subscription).u32(*sequence);
    }
    request.finish()
}

/// What has changed.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Publication {
    pub subscription: u32,
    /// To be acknowledged; nothing has happened when there are no changes.
    pub sequence: u32,
    /// Handles, and what is there now.
    pub changes: Vec<(u32, Datum)>,
    /// The subscription has ended.
    pub ended: Option<Status>,
}

/// Reads what has changed.
pub(super) fn published(bytes: &[u8]) -> Result<Publication, ChannelError> {
    let mut answer = response(bytes, kind::PUBLISH, "listening for changes")?;
    let mut publication = Publication {
        subscription: answer.u32()?,
        ..Publication::default()
    };
    answer.list(Reader::u32)?;
    answer.u8()?;
    publication.sequence = answer.u32()?;
    answer.i64()?;
    answer.list(|from| notification(from, &mut publication))?;
    Ok(publication)
}

fn notification(from: &mut Reader<'_>, publication: &mut Publication) -> Result<(), WireError> {
    let (ty, body) = extension(from)?;
    let mut body = Reader::new(body.unwrap_or_default());
    if ty == NodeId::own(DATA_CHANGE) {
        let changes = body.list(|from| Ok((from.u32()?, datum(from)?)))?;
        publication.changes.extend(changes);
    } else if ty == NodeId::own(STATUS_CHANGE) {
        publication.ended = Some(Status(body.u32()?)).filter(|status| status.is_bad());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever a server answers: no panic.
        #[test]
        fn anything_may_come(bytes in proptest::collection::vec(any::<u8>(), 0..300), answer in 0_usize..7) {
            // A good head, so that the rest is looked at.
            let kinds = [
                kind::CREATE_SESSION, kind::READ, kind::CREATE_SUBSCRIPTION, kind::CREATE_ITEMS, kind::PUBLISH,
                kind::ACTIVATE_SESSION, kind::GET_ENDPOINTS,
            ];
            let mut head = Writer::default();
            NodeId::own(kinds[answer].1).write(&mut head);
            head.i64(0).u32(0).u32(0).u8(0).nothing();
            nothing_more(&mut head);
            let bytes = [head.finish(), bytes].concat();
            let _ = session_created(&bytes);
            let _ = endpoints_got(&bytes);
            let _ = values(&bytes);
            let _ = subscription_created(&bytes);
            let _ = items_created(&bytes);
            let _ = published(&bytes);
        }
    }
}
