//! Sealing and opening: the member's side of every envelope. Knows keys, the roster and the replay guard; no connection.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bus_schema::{
    envelope::{self, Envelope, EnvelopeError, Header, Lock, NONCE_BYTES, Verified},
    id::{FleetId, NodeId, StreamId},
    key::{Identity, PublicKeys, SecretKey},
    member::{Certificate, DocumentError, GroupKey, Role, Roster, Signed},
    subject::{Lane, Subject},
};

use crate::{
    guard::{Guard, Seen, Stale},
    home::Membership,
    rotation::Former,
};

/// Why a frame was refused or could not be sealed.
#[derive(Debug, thiserror::Error)]
pub enum SecureError {
    /// See [`EnvelopeError`].
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// See [`Stale`].
    #[error("from '{sender}': {cause}")]
    Stale {
        /// Who.
        sender: NodeId,
        /// Why.
        cause: Stale,
    },
    /// Not on the roster, or revoked.
    #[error("'{0}' is not a member of this fleet (unknown, or revoked)")]
    Stranger(NodeId),
    /// Published under another name, or addressed to somebody else.
    #[error("the message does not belong on subject '{0}'")]
    Misplaced(Subject),
    /// The group key it was sealed with is not at hand.
    #[error("sealed with group key {0}, which this member does not have (yet)")]
    GroupKey(u32),
    /// A stream frame on another lane, or the other way round.
    #[error("a lock of the wrong kind for its lane")]
    WrongLock,
    /// No randomness.
    #[error("the operating system gives no randomness: {0}")]
    Random(getrandom::Error),
}

/// Why a newer roster was not taken.
#[derive(Debug, thiserror::Error)]
pub enum RosterError {
    /// Not by the fleet's root key.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// Of another fleet.
    #[error("the roster is of another fleet")]
    Foreign,
}

/// A message that was opened and found genuine, fresh and in its place.
#[derive(Debug)]
pub struct Opened {
    /// Who sent it.
    pub sender: Arc<Certificate>,
    /// On which lane.
    pub lane: Lane,
    /// The subject's tokens after the sender.
    pub rest: Vec<String>,
    /// The sender's epoch.
    pub epoch: u64,
    /// The body's bytes.
    pub plaintext: Vec<u8>,
}

struct Trust {
    roster: Roster,
    signed: Signed<Roster>,
    members: HashMap<NodeId, Vec<Arc<Certificate>>>,
    /// The newest group key first; the one before it still opens what was under way.
    groups: Vec<GroupKey>,
    /// Derived keys: (generation of this member's keys, the peer's X25519 key, whether this member sends).
    pairs: HashMap<(u32, [u8; 32], bool), SecretKey>,
}

impl Trust {
    /// Whatever the roster says by now, a member believes itself: it opens frames of its own.
    fn new(roster: Roster, signed: Signed<Roster>, groups: Vec<GroupKey>, me: &Certificate) -> Self {
        let mut members: HashMap<NodeId, Vec<Arc<Certificate>>> = HashMap::new();
        for member in &roster.members {
            members.entry(member.node).or_default();
        }
        for (node, certificates) in &mut members {
            *certificates = roster.of(node).cloned().map(Arc::new).collect();
        }
        let mine = members.entry(me.node).or_default();
        if !mine.iter().any(|certificate| certificate.key_epoch >= me.key_epoch) {
            mine.insert(0, Arc::new(me.clone()));
        }
        Self {
            roster,
            signed,
            members,
            groups,
            pairs: HashMap::new(),
        }
    }

    fn certificates(&self, node: &NodeId) -> &[Arc<Certificate>] {
        self.members.get(node).map_or(&[], Vec::as_slice)
    }
}

/// This member's keys and everybody's certificates.
pub struct Secure {
    identity: Identity,
    /// Keys of this member from before: what is sealed for them is still read.
    former: Mutex<Vec<Former>>,
    /// Keys that it has offered to the plane: others may hear of them first.
    offered: Mutex<Option<Former>>,
    me: Certificate,
    root: [u8; 32],
    epoch: u64,
    counters: [AtomicU64; Lane::ALL.len()],
    trust: Mutex<Trust>,
    guard: Mutex<Guard>,
    refused: AtomicU64,
}

/// A panic while one of these locks was held cannot leave half a change behind: each change is one assignment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn nonce() -> Result<[u8; NONCE_BYTES], SecureError> {
    let mut nonce = [0; NONCE_BYTES];
    getrandom::fill(&mut nonce).map_err(SecureError::Random)?;
    Ok(nonce)
}

impl Secure {
    /// A member at the start of `epoch` (which must be higher than at any start before), having `seen` what it has seen.
    pub fn new(
        identity: Identity,
        membership: &Membership,
        epoch: u64,
        seen: impl IntoIterator<Item = Seen>,
    ) -> Result<Self, DocumentError> {
        let me = membership.certificate.open(&membership.root)?;
        let roster = membership.roster.open(&membership.root)?;
        let groups = vec![membership.group.clone()];
        let trust = Trust::new(roster, membership.roster.clone(), groups, &me);
        Ok(Self {
            identity,
            former: Mutex::default(),
            offered: Mutex::default(),
            me,
            root: membership.root,
            epoch,
            counters: Default::default(),
            trust: Mutex::new(trust),
            guard: Mutex::new(Guard::restore(seen)),
            refused: AtomicU64::new(0),
        })
    }

    /// With keys that were this member's before, the newest first.
    pub fn with_former(self, former: Vec<Former>) -> Self {
        Self {
            former: Mutex::new(former),
            ..self
        }
    }

    /// Whether there are keys from before.
    pub fn has_former(&self) -> bool {
        !lock(&self.former).is_empty()
    }

    /// Whether the roster in force still names this member with keys from before.
    pub fn is_believed_by_former(&self) -> bool {
        let trust = lock(&self.trust);
        let mine = trust.roster.members.iter().filter(|member| member.node == self.me.node);
        mine.into_iter().any(|member| member.key_epoch < self.me.key_epoch)
    }

    /// These keys are offered to the plane: what is sealed for them is read from now on.
    pub fn offer(&self, identity: Option<Identity>) {
        *lock(&self.offered) = identity.map(|identity| Former {
            key_epoch: self.me.key_epoch + 1,
            identity,
        });
    }

    /// Nobody uses the keys from before any more.
    pub fn forget_former(&self) {
        lock(&self.former).clear();
    }

    /// Others than this member, with one of these roles.
    pub fn others(&self, roles: &[Role]) -> Vec<NodeId> {
        let trust = lock(&self.trust);
        let others = trust.members.iter().filter(|(node, certificates)| {
            **node != self.me.node && certificates.first().is_some_and(|one| roles.contains(&one.role))
        });
        others.map(|(node, _)| *node).collect()
    }

    /// Certificates of a member before this generation are no good any more.
    pub fn forget_older(&self, node: &NodeId, key_epoch: u32) {
        if let Some(certificates) = lock(&self.trust).members.get_mut(node) {
            certificates.retain(|certificate| certificate.key_epoch >= key_epoch);
        }
    }

    /// This member's certificate.
    pub fn me(&self) -> &Certificate {
        &self.me
    }

    /// This member's id.
    pub fn node(&self) -> &NodeId {
        &self.me.node
    }

    /// The fleet.
    pub fn fleet(&self) -> &FleetId {
        &self.me.fleet
    }

    /// This start's epoch.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// This member's keys.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The roster in force: its version and its signed form.
    pub fn roster(&self) -> (u64, Signed<Roster>) {
        let trust = lock(&self.trust);
        (trust.roster.version, trust.signed.clone())
    }

    /// The newest group key.
    pub fn group(&self) -> Option<GroupKey> {
        lock(&self.trust).groups.first().cloned()
    }

    /// The newest certificate of a member; `None` when it is a stranger or revoked.
    pub fn member(&self, node: &NodeId) -> Option<Arc<Certificate>> {
        lock(&self.trust).certificates(node).first().cloned()
    }

    /// The plane's certificate.
    pub fn plane(&self) -> Option<Arc<Certificate>> {
        let trust = lock(&self.trust);
        let plane = trust
            .roster
            .members
            .iter()
            .find(|member| member.role == Role::Plane)?
            .node;
        trust.certificates(&plane).first().cloned()
    }

    /// Frames refused since start.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Takes a newer roster and group key. `false` when the one in force is as new.
    pub fn update(&self, signed: Signed<Roster>, group: GroupKey) -> Result<bool, RosterError> {
        let roster = signed.open(&self.root)?;
        if roster.fleet != self.me.fleet {
            return Err(RosterError::Foreign);
        }
        let mut trust = lock(&self.trust);
        if roster.version <= trust.roster.version {
            return Ok(false);
        }
        let mut groups = std::mem::take(&mut trust.groups);
        groups.retain(|old| old.key_epoch < group.key_epoch);
        groups.insert(0, group);
        groups.truncate(2);
        *trust = Trust::new(roster, signed, groups, &self.me);
        lock(&self.guard).forget(|node| trust.certificates(node).iter().map(|one| one.key_epoch).min());
        Ok(true)
    }

    /// Takes the certificate of one more member, or a newer one of a member, signed by the root key; `false` when it is
    /// known, or the roster says that the member was revoked. For whoever signs rosters, or is shown certificates one by one.
    pub fn admit(&self, signed: &Signed<Certificate>) -> Result<bool, RosterError> {
        let certificate = signed.open(&self.root)?;
        if certificate.fleet != self.me.fleet {
            return Err(RosterError::Foreign);
        }
        let mut trust = lock(&self.trust);
        let known = trust.certificates(&certificate.node);
        let is_old = known.iter().any(|known| known.key_epoch >= certificate.key_epoch);
        if is_old || trust.roster.revoked.contains(&certificate.node) {
            return Ok(false);
        }
        let of_node = trust.members.entry(certificate.node).or_default();
        of_node.insert(0, Arc::new(certificate));
        Ok(true)
    }

    /// The same for what a member shows of itself. Nobody shows another's: one that was revoked could come back by it.
    pub fn admit_own(&self, from: &NodeId, signed: &Signed<Certificate>) -> Result<bool, RosterError> {
        match signed.open(&self.root)?.node == *from {
            true => self.admit(signed),
            false => Err(RosterError::Foreign),
        }
    }

    /// What the replay guard has to remember over a restart, if that changed.
    pub fn seen_changes(&self) -> Option<Vec<Seen>> {
        lock(&self.guard).changes()
    }

    fn header(&self, lock: Lock, epoch: u64, counter: u64) -> Result<Header, SecureError> {
        Ok(Header {
            version: envelope::VERSION,
            suite: envelope::SUITE,
            lock,
            sender: self.me.node,
            key_epoch: self.me.key_epoch,
            epoch,
            counter,
            nonce: nonce()?,
        })
    }

    fn count(&self, lane: Lane) -> u64 {
        let index = Lane::ALL.iter().position(|each| *each == lane).unwrap_or(0);
        self.counters[index].fetch_add(1, Ordering::Relaxed) + 1
    }

    fn pair_key(&self, own: (&Identity, u32), peer: &Certificate, sending: bool) -> Result<SecretKey, SecureError> {
        let (identity, key_epoch) = own;
        let which = (key_epoch, peer.keys.seal, sending);
        let mut trust = lock(&self.trust);
        if let Some(key) = trust.pairs.get(&which) {
            return Ok(key.clone());
        }
        let (sender, recipient) = if sending {
            (&self.me.node, &peer.node)
        } else {
            (&peer.node, &self.me.node)
        };
        let key = identity.pair_key(&peer.keys, sender, recipient);
        let key = key.ok_or(EnvelopeError::Key { sender: *sender })?;
        trust.pairs.insert(which, key.clone());
        Ok(key)
    }

    /// Seals for one member.
    pub fn seal_pair(
        &self,
        recipient: &NodeId,
        lane: Lane,
        subject: &Subject,
        plaintext: &[u8],
    ) -> Result<Vec<u8>, SecureError> {
        let peer = self.member(recipient).ok_or(SecureError::Stranger(*recipient))?;
        self.seal_for(&peer, lane, subject, plaintext)
    }

    /// Seals for the holder of a certificate, on the roster or not yet (an enrolment answer).
    pub fn seal_for(
        &self,
        peer: &Certificate,
        lane: Lane,
        subject: &Subject,
        plaintext: &[u8],
    ) -> Result<Vec<u8>, SecureError> {
        let key = self.pair_key((&self.identity, self.me.key_epoch), peer, true)?;
        let header = self.header(Lock::Pair { recipient: peer.node }, self.epoch, self.count(lane))?;
        Ok(envelope::seal(subject, &header, &key, &self.identity, plaintext)?)
    }

    /// The same by the keys before the newest; `None` when there are none.
    pub fn seal_by_former(
        &self,
        peer: &Certificate,
        lane: Lane,
        subject: &Subject,
        plaintext: &[u8],
    ) -> Result<Option<Vec<u8>>, SecureError> {
        let Some(former) = lock(&self.former).first().cloned() else {
            return Ok(None);
        };
        let key = self.pair_key((&former.identity, former.key_epoch), peer, true)?;
        let header = self.header(Lock::Pair { recipient: peer.node }, self.epoch, self.count(lane))?;
        let header = Header {
            key_epoch: former.key_epoch,
            ..header
        };
        let sealed = envelope::seal(subject, &header, &key, &former.identity, plaintext)?;
        Ok(Some(sealed))
    }

    /// Seals for everybody in the fleet.
    pub fn seal_group(&self, lane: Lane, subject: &Subject, plaintext: &[u8]) -> Result<Vec<u8>, SecureError> {
        let group = self.group().ok_or(SecureError::GroupKey(0))?;
        let header = self.header(
            Lock::Group {
                key_epoch: group.key_epoch,
            },
            self.epoch,
            self.count(lane),
        )?;
        Ok(envelope::seal(subject, &header, &group.key, &self.identity, plaintext)?)
    }

    /// Seals a frame of a stream.
    pub fn seal_frame(
        &self,
        subject: &Subject,
        stream: &StreamId,
        key: &SecretKey,
        epoch: u64,
        seq: u64,
        plaintext: &[u8],
    ) -> Result<Vec<u8>, SecureError> {
        let header = self.header(Lock::Stream { stream: *stream }, epoch, seq)?;
        Ok(envelope::seal(subject, &header, key, &self.identity, plaintext)?)
    }

    /// Opens a control, acknowledgement or app message: genuine, by a member, for this member, in its place, and fresh.
    pub fn open(&self, subject: &Subject, frame: &[u8]) -> Result<Opened, SecureError> {
        self.counted(self.try_open(subject, frame))
    }

    fn counted<T>(&self, result: Result<T, SecureError>) -> Result<T, SecureError> {
        if result.is_err() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    fn try_open(&self, subject: &Subject, frame: &[u8]) -> Result<Opened, SecureError> {
        let (opened, counter) = self.open_any(subject, frame)?;
        let (sender, key_epoch) = (opened.sender.node, opened.sender.key_epoch);
        lock(&self.guard)
            .accept((sender, key_epoch), opened.lane, opened.epoch, counter)
            .map_err(|cause| SecureError::Stale { sender, cause })?;
        Ok(opened)
    }

    /// Opens what was refused as stale: genuine, but its count had been used before. It is a repetition, or there are two
    /// with the same keys; never act on it.
    pub fn open_stale(&self, subject: &Subject, frame: &[u8]) -> Option<Opened> {
        self.open_any(subject, frame).ok().map(|(opened, _)| opened)
    }

    fn open_any(&self, subject: &Subject, frame: &[u8]) -> Result<(Opened, u64), SecureError> {
        let misplaced = || SecureError::Misplaced(subject.clone());
        let address = subject.address().map_err(|_| misplaced())?;
        let envelope = Envelope::parse(frame)?;
        let Header {
            sender,
            epoch,
            counter,
            lock: sealed_with,
            ..
        } = envelope.header().clone();
        if address.fleet != self.me.fleet || address.sender != sender.as_str() {
            return Err(misplaced());
        }
        let certificate = self.certificate_of(envelope.header())?;
        let verified = envelope.verify(subject, &certificate.keys)?;
        let plaintext = match (&sealed_with, address.lane) {
            (Lock::Pair { recipient }, Lane::Control | Lane::Ack) => {
                if *recipient != self.me.node {
                    return Err(misplaced());
                }
                self.open_pair(&verified, &certificate)?
            }
            (Lock::Group { key_epoch }, Lane::App) => {
                let trust = lock(&self.trust);
                let group = trust.groups.iter().find(|group| group.key_epoch == *key_epoch);
                let key = group.ok_or(SecureError::GroupKey(*key_epoch))?.key.clone();
                drop(trust);
                verified.open(&key)?
            }
            _ => return Err(SecureError::WrongLock),
        };
        let opened = Opened {
            sender: certificate,
            lane: address.lane,
            rest: address.rest,
            epoch,
            plaintext,
        };
        Ok((opened, counter))
    }

    /// Opens what was sealed for this member: for its keys as they are, or for those from before.
    fn open_pair(&self, sealed: &Verified<'_>, sender: &Certificate) -> Result<Vec<u8>, SecureError> {
        let own = (&self.identity, self.me.key_epoch);
        let opened = sealed.open(&self.pair_key(own, sender, false)?);
        let Err(error) = opened else { return Ok(opened?) };
        let others: Vec<Former> = lock(&self.offered)
            .iter()
            .chain(lock(&self.former).iter())
            .cloned()
            .collect();
        for other in &others {
            let own = (&other.identity, other.key_epoch);
            if let Ok(plaintext) = sealed.open(&self.pair_key(own, sender, false)?) {
                return Ok(plaintext);
            }
        }
        Err(error.into())
    }

    fn certificate_of(&self, header: &Header) -> Result<Arc<Certificate>, SecureError> {
        let trust = lock(&self.trust);
        let found = trust
            .certificates(&header.sender)
            .iter()
            .find(|c| c.key_epoch == header.key_epoch);
        found.cloned().ok_or(SecureError::Stranger(header.sender))
    }

    /// Opens a frame of a stream whose key is at hand. Freshness is the stream's own business: frames are replayed on
    /// purpose, and its seq tells. Returns the stream's epoch, the frame's seq, and the plaintext.
    pub fn open_frame(
        &self,
        subject: &Subject,
        frame: &[u8],
        stream: &StreamId,
        key: &SecretKey,
    ) -> Result<(u64, u64, Vec<u8>), SecureError> {
        self.counted(self.try_open_frame(subject, frame, stream, key))
    }

    fn try_open_frame(
        &self,
        subject: &Subject,
        frame: &[u8],
        stream: &StreamId,
        key: &SecretKey,
    ) -> Result<(u64, u64, Vec<u8>), SecureError> {
        let envelope = Envelope::parse(frame)?;
        let header = envelope.header().clone();
        let address = subject.address().map_err(|_| SecureError::Misplaced(subject.clone()))?;
        if address.lane != Lane::Data || address.sender != header.sender.as_str() {
            return Err(SecureError::Misplaced(subject.clone()));
        }
        if header.lock != (Lock::Stream { stream: *stream }) {
            return Err(SecureError::WrongLock);
        }
        let certificate = self.certificate_of(&header)?;
        let plaintext = envelope.verify(subject, &certificate.keys)?.open(key)?;
        Ok((header.epoch, header.counter, plaintext))
    }

    /// Opens a candidate's sealed box. `keys` reads the candidate's keys out of the plaintext.
    pub fn open_box<T>(
        &self,
        subject: &Subject,
        frame: &[u8],
        keys: impl FnOnce(&[u8]) -> Option<(PublicKeys, T)>,
    ) -> Result<(PublicKeys, T), SecureError> {
        let open = || Ok(Envelope::parse(frame)?.open_box(subject, &self.identity, keys)?);
        self.counted(open())
    }
}
