//! A session with a server: enters it, reads, and listens for changes. Holds one subscription at most, and asks for changes
//! only while somebody wants them: what comes meanwhile waits in the server's queues.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;

use super::{
    certificate::Own,
    channel::{Channel, ChannelError, aside},
    data::Datum,
    endpoint::{self, Endpoint, Login, Passwords},
    message::{self, Granted, Identity, Item, Pace, Token, Wanted},
    node::NodeId,
    protection::Protection,
    security::{Mode, NONCE_BYTES, Pair, SecurityError, nonce},
    status::Status,
};

/// Nodes in one request.
const NODES_AT_ONCE: usize = 500;
/// Requests for changes that wait at the server, so that one is there while another is answered.
const PUBLISHES: usize = 2;
/// Changes in one answer.
const NOTIFICATIONS_MAX: u32 = 1000;
/// How long a session may be silent, in milliseconds: as long as a destination may be away before it has to be begun anew.
const SESSION_MS: f64 = 3_600_000.0;
/// A subscription lives so long without a word, in milliseconds.
const SUBSCRIPTION_MS: f64 = 600_000.0;
/// It says that it is alive so often, in milliseconds.
const KEEP_ALIVE_MS: f64 = 5000.0;
/// What is added to the time after which a server has fallen silent.
const SILENCE: Duration = Duration::from_secs(10);

/// Where a server is, and who one is there.
#[derive(Debug, Clone)]
pub(super) struct Server {
    pub url: String,
    pub host: String,
    pub port: u16,
}

/// An open session.
pub(super) struct Session {
    channel: Channel,
    token: Token,
    subscription: u32,
    /// Requests for changes that were not answered yet.
    asked: usize,
    /// How many of them may be.
    publishes: usize,
    /// Changes that came and may be forgotten by the server.
    told: Vec<(u32, u32)>,
    /// For so long nothing has come while somebody listened.
    silent: Duration,
    silent_max: Duration,
}

impl Session {
    /// Connects and enters, as a user with this name and password or as nobody in particular.
    pub(super) async fn open(
        server: &Server,
        protection: &Protection,
        user: Option<(&str, &str)>,
        name: &str,
    ) -> Result<Self, ChannelError> {
        let pair = match &protection.own {
            None => None,
            Some(own) => Some(Arc::new(agree(server, protection, Arc::clone(own)).await?)),
        };
        let mut channel = Channel::open(&server.host, server.port, &server.url, pair.clone()).await?;
        let nonce = nonce()?;
        let wanted = message::create_session(&Wanted {
            url: &server.url,
            name,
            uri: pair.as_ref().map_or(message::NAME_URI, |pair| &pair.own.uri),
            nonce: &nonce,
            certificate: pair.as_ref().map(|pair| &pair.own.certificate[..]),
            timeout_ms: SESSION_MS,
        });
        let granted = message::session_created(&channel.call(&wanted).await?)?;
        let endpoint = match &pair {
            Some(pair) => confirmed(pair, protection, &granted, &nonce)?,
            None => endpoint::open(&granted.endpoints).ok_or_else(|| closed(&granted.endpoints))?,
        };
        let login = login(endpoint, pair.as_deref(), protection, user, &granted.nonce)?;
        let signature = match pair {
            None => None,
            Some(pair) => {
                let signed = [&pair.other.certificate[..], &granted.nonce].concat();
                let kind = pair.policy.signature_uri();
                let signature = aside(move || Ok(pair.policy.sign(&pair.own.key, &signed)?)).await?;
                Some((kind, signature))
            }
        };
        let signature = signature.as_ref().map(|(kind, signature)| (*kind, &signature[..]));
        let request = message::activate_session(&granted.token, login.identity(), signature);
        let entered = channel.call(&request).await?;
        message::response(&entered, message::kind::ACTIVATE_SESSION, "entering the session")?;
        Ok(Self {
            channel,
            token: granted.token,
            subscription: 0,
            asked: 0,
            publishes: PUBLISHES,
            told: Vec::new(),
            silent: Duration::ZERO,
            silent_max: SILENCE,
        })
    }

    /// Renews what protects the session when it is time, while nothing is asked for.
    pub(super) async fn keep_open(&mut self) -> Result<(), ChannelError> {
        self.channel.keep_open().await
    }

    /// The values of nodes as they are, in the same order.
    pub(super) async fn read(&mut self, nodes: &[NodeId]) -> Result<Vec<Datum>, ChannelError> {
        self.channel.keep_open().await?;
        let mut values = Vec::with_capacity(nodes.len());
        for part in nodes.chunks(NODES_AT_ONCE) {
            let read = message::values(&self.channel.call(&message::read(&self.token, part)).await?)?;
            expect(part.len(), read.len())?;
            values.extend(read);
        }
        Ok(values)
    }

    /// Begins to listen, with changes told this often.
    pub(super) async fn subscribe(&mut self, interval: Duration) -> Result<(), ChannelError> {
        let interval_ms = interval.as_secs_f64() * 1000.0;
        let times = |ms: f64| (ms / interval_ms).ceil().max(1.0) as u32;
        let keep_alive = times(KEEP_ALIVE_MS);
        let wanted = Pace {
            interval_ms,
            lifetime: times(SUBSCRIPTION_MS).max(keep_alive.saturating_mul(3)),
            keep_alive,
        };
        let request = message::create_subscription(&self.token, &wanted, NOTIFICATIONS_MAX);
        let (id, pace) = message::subscription_created(&self.channel.call(&request).await?)?;
        self.subscription = id;
        let alive_ms = pace.interval_ms * f64::from(pace.keep_alive);
        self.silent_max = Duration::try_from_secs_f64(alive_ms * 2.0 / 1000.0).unwrap_or_default() + SILENCE;
        Ok(())
    }

    /// Watches nodes; says of each, in the same order, whether it can be.
    pub(super) async fn watch(&mut self, items: &[Item<'_>]) -> Result<Vec<Status>, ChannelError> {
        let mut statuses = Vec::with_capacity(items.len());
        for part in items.chunks(NODES_AT_ONCE) {
            let request = message::create_items(&self.token, self.subscription, part);
            let created = message::items_created(&self.channel.call(&request).await?)?;
            expect(part.len(), created.len())?;
            statuses.extend(created);
        }
        Ok(statuses)
    }

    /// What has changed, by handle; nothing when nothing has for `wait`. May be dropped while it waits.
    pub(super) async fn changes(&mut self, wait: Duration) -> Result<Vec<(u32, Datum)>, ChannelError> {
        self.channel.keep_open().await?;
        while self.asked < self.publishes {
            let request = message::publish(&self.token, &self.told);
            self.channel.ask(&request).await?;
            self.told.clear();
            self.asked += 1;
        }
        let Ok(answer) = timeout(wait, self.channel.next()).await else {
            self.silent += wait;
            if self.silent > self.silent_max {
                let cause = format!("it has said nothing for {} s", self.silent.as_secs());
                return Err(ChannelError::Broken(cause));
            }
            return Ok(Vec::new());
        };
        let (_, answer) = answer?;
        self.silent = Duration::ZERO;
        self.asked = self.asked.saturating_sub(1);
        let publication = match message::published(&answer) {
            Err(ChannelError::Refused { status, .. })
                if status == Status::BAD_TOO_MANY_PUBLISH && self.publishes > 1 =>
            {
                self.publishes -= 1;
                return Ok(Vec::new());
            }
            published => published?,
        };
        if let Some(status) = publication.ended {
            return Err(ChannelError::Refused {
                what: "the subscription",
                status,
            });
        }
        if !publication.changes.is_empty() {
            self.told.push((publication.subscription, publication.sequence));
        }
        Ok(publication.changes)
    }

    /// Ends the session, politely if the server still listens.
    pub(super) async fn close(mut self) {
        let request = message::close_session(&self.token);
        let _ = timeout(Duration::from_secs(1), self.channel.call(&request)).await;
        self.channel.close().await;
    }
}

fn expect(wanted: usize, found: usize) -> Result<(), ChannelError> {
    if wanted == found {
        return Ok(());
    }
    Err(ChannelError::Broken(format!(
        "it gave {found} answers to {wanted} questions"
    )))
}

/// Asks the server, on a channel that nothing protects, how it wants to be spoken with. What it says is believed only as far
/// as it is written down here, and asked again inside.
async fn agree(server: &Server, protection: &Protection, own: Arc<Own>) -> Result<Pair, ChannelError> {
    let mut channel = Channel::open(&server.host, server.port, &server.url, None).await?;
    let answer = channel.call(&message::get_endpoints(&server.url)).await?;
    channel.close().await;
    let endpoints = message::endpoints_got(&answer)?;
    let taken = endpoint::protected(&endpoints, protection.mode, protection.policy);
    let Some((endpoint, mode, policy)) = taken else {
        let with = protection
            .policy
            .map_or("a policy that is known here", |policy| policy.name);
        return Err(ChannelError::Unprotected {
            cause: format!(
                "it offers no connection with {} and {with}, but: {}",
                protection.mode.word(),
                endpoint::offered(&endpoints)
            ),
            remedy: "let the server offer it, or set security.mode and security.policy to what it offers".to_string(),
        });
    };
    Ok(Pair {
        policy,
        mode,
        own,
        other: protection.known(&endpoint.certificate)?,
    })
}

/// Whether the server is who it should be, and says inside the channel what it has said outside: the way that is then taken.
fn confirmed<'a>(
    pair: &Pair,
    protection: &Protection,
    granted: &'a Granted,
    nonce: &[u8],
) -> Result<&'a Endpoint, ChannelError> {
    let signed = [&pair.own.certificate[..], nonce].concat();
    if !granted.certificate.starts_with(&pair.other.certificate) {
        return Err(SecurityError::Other("a certificate").into());
    }
    pair.policy.verify(&pair.other.key, &signed, &granted.signature)?;
    if granted.nonce.len() < NONCE_BYTES {
        return Err(ChannelError::Broken("its nonce can be guessed".to_string()));
    }
    let taken = endpoint::protected(&granted.endpoints, protection.mode, protection.policy);
    match taken {
        Some((endpoint, mode, policy))
            if mode == pair.mode
                && policy == pair.policy
                && endpoint.certificate.starts_with(&pair.other.certificate) =>
        {
            Ok(endpoint)
        }
        _ => Err(ChannelError::Unprotected {
            cause: format!(
                "outside the protected channel it offered {} with {} at best, and inside: {}",
                pair.policy.name,
                pair.mode.word(),
                endpoint::offered(&granted.endpoints)
            ),
            remedy: "find out who on the way changes what it says, or set security.policy to what it offers inside"
                .to_string(),
        }),
    }
}

/// A server that takes nobody without security.
fn closed(endpoints: &[Endpoint]) -> ChannelError {
    ChannelError::Unprotected {
        cause: format!("it takes only connections with security ({})", endpoint::offered(endpoints)),
        remedy: "add security = { … } with a certificate and its key, as the reference of this source says; or let the server \
                 offer the policy None too, on a network of its own"
            .to_string(),
    }
}

/// Who one is, with what proves it.
enum Proof<'a> {
    Anonymous(&'a str),
    Plain(&'a str, &'a str, &'a str),
    Encrypted(&'a str, &'a str, Vec<u8>, &'static str),
}

impl Proof<'_> {
    fn identity(&self) -> Identity<'_> {
        match self {
            Proof::Anonymous(policy) => Identity::Anonymous(policy),
            Proof::Plain(policy, name, password) => Identity::User {
                policy,
                name,
                password: password.as_bytes(),
                encryption: None,
            },
            Proof::Encrypted(policy, name, password, encryption) => Identity::User {
                policy,
                name,
                password,
                encryption: Some(encryption),
            },
        }
    }
}

/// How somebody gets in by a way.
fn login<'a>(
    endpoint: &'a Endpoint,
    pair: Option<&Pair>,
    protection: &Protection,
    user: Option<(&'a str, &'a str)>,
    nonce: &[u8],
) -> Result<Proof<'a>, ChannelError> {
    let refused = |cause: &str| Err(ChannelError::Broken(cause.to_string()));
    let Some((name, password)) = user else {
        return match endpoint.anonymous() {
            Some(policy) => Ok(Proof::Anonymous(policy)),
            None => refused("it lets nobody in without a user name: set user and password"),
        };
    };
    let passwords = match (pair.map(|pair| pair.mode), &protection.trust) {
        (Some(Mode::SignAndEncrypt), _) => Passwords::Either,
        (None, None) => Passwords::Readable,
        _ => Passwords::Encrypted,
    };
    match endpoint.user(passwords) {
        Some(Login::Plain(policy)) => Ok(Proof::Plain(policy, name, password)),
        Some(Login::Encrypted(policy, by)) => {
            let known = match pair {
                Some(pair) => pair.other.clone(),
                None => protection.known(&endpoint.certificate)?,
            };
            let sealed = by.password(&known, password.as_bytes(), nonce)?;
            Ok(Proof::Encrypted(policy, name, sealed, by.encryption_uri()))
        }
        None if endpoint.has_users() => Err(ChannelError::Unprotected {
            cause: "it takes passwords only in a way that is not safe, or not known here".to_string(),
            remedy: "let the server take them encrypted, by one of the policies that the reference of this source has; or use \
                     mode = \"sign_and_encrypt\""
                .to_string(),
        }),
        None => refused("it has no users on connections like this one"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use sha2::{Digest as _, Sha256};

    use super::{
        super::{certificate::Trust, endpoint::tests::offer, security::POLICIES},
        *,
    };

    /// What is said outside and inside may differ by somebody on the way; whoever answers may be another.
    #[test]
    fn nothing_is_believed_that_was_said_outside() {
        let dir = tempfile::tempdir().unwrap();
        let made = |name: &str| {
            let files = testkit::rsa_certificate(dir.path(), name, 2048, "urn:test");
            Arc::new(Own::load(&files.cert, &files.key, SystemTime::now()).unwrap())
        };
        let (ours, server, stranger) = (made("ours"), made("server"), made("stranger"));
        let trust = Trust {
            fingerprints: vec![Sha256::digest(&server.certificate).into()],
        };
        let protection = Protection {
            mode: Mode::Sign,
            policy: None,
            own: Some(Arc::clone(&ours)),
            trust: Some(trust),
        };
        let basic = POLICIES.iter().find(|policy| policy.name == "Basic256Sha256").unwrap();
        let pair = Pair {
            policy: basic,
            mode: Mode::Sign,
            own: Arc::clone(&ours),
            other: protection.known(&server.certificate).unwrap(),
        };
        let nonce = [3; 32];
        let signed = |by: &Own, nonce: &[u8]| {
            let signed = [&ours.certificate[..], nonce].concat();
            basic.sign(&by.key, &signed).unwrap()
        };
        let offer = |mode, policy| {
            let mut offered = offer(mode, policy, &[]);
            offered.certificate.clone_from(&server.certificate);
            offered
        };
        let honest = Granted {
            token: NodeId::own(1),
            nonce: vec![4; 32],
            certificate: server.certificate.clone(),
            endpoints: vec![offer(1, "None"), offer(2, "Basic256Sha256"), offer(3, "Basic256Sha256")],
            signature: signed(&server, &nonce),
        };
        let taken = confirmed(&pair, &protection, &honest, &nonce);
        assert_eq!(taken, Ok(&honest.endpoints[1]));

        let changed = |change: &dyn Fn(&mut Granted)| {
            let mut granted = honest.clone();
            change(&mut granted);
            let refused = confirmed(&pair, &protection, &granted, &nonce);
            refused.expect_err("it is taken").to_string()
        };
        let struck_out = changed(&|granted| granted.endpoints.push(offer(2, "Aes256_Sha256_RsaPss")));
        assert!(
            struck_out.starts_with("outside the protected channel it offered Basic256Sha256 with sign at best"),
            "{struck_out}"
        );
        for (said, wanted) in [
            (changed(&|granted| granted.endpoints.clear()), "and inside: nothing"),
            (
                changed(&|granted| granted.endpoints[1].certificate.clone_from(&stranger.certificate)),
                "outside the protected channel",
            ),
            (
                changed(&|granted| granted.certificate.clone_from(&stranger.certificate)),
                "a certificate that was not asked for",
            ),
            (
                changed(&|granted| granted.certificate.clear()),
                "a certificate that was not asked for",
            ),
            (
                changed(&|granted| granted.signature = signed(&stranger, &nonce)),
                "not from whom it should be",
            ),
            (
                changed(&|granted| granted.signature = signed(&server, &[5; 32])),
                "not from whom it should be",
            ),
            (
                changed(&|granted| granted.signature.clear()),
                "not from whom it should be",
            ),
            (
                changed(&|granted| granted.nonce.truncate(31)),
                "its nonce can be guessed",
            ),
        ] {
            assert!(said.contains(wanted), "{said} instead of {wanted}");
        }
        // Somebody else's certificate does not get as far as that.
        assert!(protection.known(&stranger.certificate).is_err());
    }
}
