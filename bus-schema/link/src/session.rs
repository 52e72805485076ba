//! The secure session: typed messages between members over one bus connection. Seals and opens, ties replies to requests,
//! splits long messages and puts them together. Never blocks on a slow owner: control messages that nobody takes in time
//! are dropped and counted, and everything on the control lane is sent again by design: a request by the one who waits
//! for its answer, under the same number, by which who has it already knows it again, and says again what it has answered.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bus_schema::{
    id::NodeId,
    member::Certificate,
    message::{Body, BodyError, Exchange, Message, Status},
    subject::{self, Lane, Pattern, Subject, SubjectError},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use crate::{
    Bus, BusConfig, Event, PublishError, essential,
    heard::{Answer, Heard},
    parts::{Assembly, TooLarge, parts},
    secure::{Opened, Secure, SecureError},
};

/// Messages waiting for the owner: what a fleet of ten thousand says in a quarter of a second.
const INCOMING_MAX: usize = 1024;

/// Answers that wait to be given again.
const AGAIN_MAX: usize = 16;

/// How often a request is sent while its answer is waited for.
const ASKED: u32 = 4;
/// The least between two of them: an answer may simply take its time.
const ASK_AGAIN_MIN: Duration = Duration::from_secs(1);

/// A message could not be sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// See [`PublishError`].
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// See [`SecureError`].
    #[error(transparent)]
    Secure(#[from] SecureError),
    /// See [`SubjectError`].
    #[error(transparent)]
    Subject(#[from] SubjectError),
    /// Longer than any message may be.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
}

/// A request got no good answer.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// See [`SendError`].
    #[error(transparent)]
    Send(#[from] SendError),
    /// No answer within the deadline.
    #[error("no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// An answer of an unexpected kind.
    #[error(transparent)]
    Body(#[from] BodyError),
}

/// A message for the owner of the session.
#[derive(Debug, Clone)]
pub struct Incoming {
    /// Who sent it.
    pub sender: Arc<Certificate>,
    /// On which lane.
    pub lane: Lane,
    /// The subject's tokens after the sender (an app message's topic).
    pub rest: Vec<String>,
    /// The sender's epoch.
    pub epoch: u64,
    /// Which message.
    pub kind: u16,
    /// Which version of it.
    pub ver: u8,
    /// Its bytes.
    pub payload: Vec<u8>,
    /// Set when the sender waits for an answer.
    correlation: Option<u64>,
}

impl Incoming {
    /// Reads the message as an `M`; the error says so when it is another kind or version.
    pub fn read<M: Message>(&self) -> Result<M, BodyError> {
        M::from_payload(self.kind, self.ver, &self.payload)
    }

    /// Whether it is an `M`.
    pub fn is<M: Message>(&self) -> bool {
        (self.kind, self.ver) == (M::KIND, M::VER)
    }

    /// Whether the sender waits for an answer.
    pub fn wants_reply(&self) -> bool {
        self.correlation.is_some()
    }
}

/// What happens on a session.
#[derive(Debug)]
pub enum SessionEvent {
    /// Connected and subscribed.
    Up {
        /// Where.
        address: String,
    },
    /// Not connected any more, and why.
    Down {
        /// In words.
        cause: String,
    },
    /// A genuine, fresh message.
    Message(Incoming),
    /// A candidate's sealed box, unopened (planes only).
    Candidate {
        /// Its subject.
        subject: Subject,
        /// The frame.
        frame: Vec<u8>,
    },
    /// A frame of a stream or an acknowledgement, unopened (data connections only).
    Stream {
        /// Its subject.
        subject: Subject,
        /// The frame.
        frame: Vec<u8>,
    },
    /// A genuine status whose count had been used before: a repetition, or there are two with the same keys. Never act on it.
    Stale(Incoming),
    /// A frame was refused.
    Refused {
        /// Where it came in.
        subject: Subject,
        /// Why.
        cause: String,
    },
}

struct Reply {
    kind: u16,
    ver: u8,
    payload: Vec<u8>,
}

type Pending = Mutex<HashMap<u64, (NodeId, oneshot::Sender<Reply>)>>;

/// A connection on which members talk in typed messages.
pub struct Session {
    secure: Arc<Secure>,
    bus: Bus,
    pending: Arc<Pending>,
    heard: Arc<Mutex<Heard>>,
    correlation: AtomicU64,
}

/// An answer that has to be given again.
struct Again {
    to: Arc<Certificate>,
    correlation: u64,
    answer: Answer,
}

/// A panic while one of these locks was held leaves plain values behind.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Seals a message part by part, and hands it to the broker.
async fn publish(
    secure: &Secure,
    bus: &Bus,
    peer: &Certificate,
    subject: &Subject,
    bodies: &[Vec<u8>],
) -> Result<(), SendError> {
    for body in bodies {
        let frame = secure.seal_for(peer, Lane::Control, subject, body)?;
        bus.publish(subject, frame).await?;
    }
    Ok(())
}

/// Gives answers again, until nobody asks any more.
async fn answer_again(secure: Arc<Secure>, bus: Bus, mut again: mpsc::Receiver<Again>) {
    while let Some(Again {
        to,
        correlation,
        answer,
    }) = again.recv().await
    {
        let Answer { kind, ver, payload } = answer;
        let subject = subject::control(secure.fleet(), secure.node(), &to.node);
        let said = match parts(kind, ver, Exchange::Reply, correlation, &payload) {
            Ok(bodies) => publish(&secure, &bus, &to, &subject, &bodies).await,
            Err(too_large) => Err(too_large.into()),
        };
        if let Err(error) = said {
            tracing::debug!(%error, "an answer could not be given again");
        }
    }
}

impl Session {
    /// Starts connecting in the background. `subscriptions` besides what is addressed to this member.
    pub fn start(
        secure: Arc<Secure>,
        config: BusConfig,
        subscriptions: Vec<Pattern>,
    ) -> (Arc<Self>, mpsc::Receiver<SessionEvent>) {
        // Several processes may speak for one operator: a reply must not fit another's request.
        let first = getrandom::u64().unwrap_or(1) >> 1;
        let (bus, events) = Bus::start(config, subscriptions);
        let pending = Arc::new(Pending::default());
        let (out, incoming) = mpsc::channel(INCOMING_MAX);
        let (again, wanted) = mpsc::channel(AGAIN_MAX);
        let heard = Arc::new(Mutex::new(Heard::default()));
        let ears = Ears {
            secure: Arc::clone(&secure),
            pending: Arc::clone(&pending),
            heard: Arc::clone(&heard),
            again,
        };
        essential::spawn("session", receive(ears, events, out));
        essential::spawn("answers", answer_again(Arc::clone(&secure), bus.clone(), wanted));
        (
            Arc::new(Self {
                secure,
                bus,
                pending,
                heard,
                correlation: AtomicU64::new(first),
            }),
            incoming,
        )
    }

    /// The subscription every member has on its control connection.
    pub fn own_control(secure: &Secure) -> Pattern {
        subject::control_to(secure.fleet(), secure.node())
    }

    /// The keys behind it.
    pub fn secure(&self) -> &Arc<Secure> {
        &self.secure
    }

    /// The connection below it.
    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    fn next_correlation(&self) -> u64 {
        self.correlation.fetch_add(1, Ordering::Relaxed)
    }

    /// Sends a message to one member.
    pub async fn send<M: Message>(&self, to: &NodeId, message: &M) -> Result<(), SendError> {
        let peer = self.secure.member(to).ok_or(SecureError::Stranger(*to))?;
        self.put(
            &peer,
            None,
            M::KIND,
            M::VER,
            Exchange::OneWay,
            self.next_correlation(),
            &message.to_payload(),
        )
        .await
    }

    /// Sends a message to one member, signed by this member's keys before the newest; nothing when there are none.
    pub async fn send_by_former<M: Message>(&self, to: &NodeId, message: &M) -> Result<(), SendError> {
        let peer = self.secure.member(to).ok_or(SecureError::Stranger(*to))?;
        let subject = subject::control(self.secure.fleet(), self.secure.node(), &peer.node);
        let payload = message.to_payload();
        for body in parts(M::KIND, M::VER, Exchange::OneWay, self.next_correlation(), &payload)? {
            if let Some(frame) = self.secure.seal_by_former(&peer, Lane::Control, &subject, &body)? {
                self.bus.publish(&subject, frame).await?;
            }
        }
        Ok(())
    }

    /// Sends a message to the holder of a certificate on a subject of its own (an enrolment answer).
    pub async fn send_on<M: Message>(
        &self,
        peer: &Certificate,
        subject: Subject,
        message: &M,
    ) -> Result<(), SendError> {
        let payload = message.to_payload();
        self.put(
            peer,
            Some(subject),
            M::KIND,
            M::VER,
            Exchange::OneWay,
            self.next_correlation(),
            &payload,
        )
        .await
    }

    /// Sends a request and waits for its reply. Says it again while none comes: a bus that is busy loses messages.
    pub async fn request<M: Message, R: Message>(
        &self,
        to: &NodeId,
        message: &M,
        deadline: Duration,
    ) -> Result<R, RequestError> {
        let peer = self
            .secure
            .member(to)
            .ok_or(SecureError::Stranger(*to))
            .map_err(SendError::from)?;
        let correlation = self.next_correlation();
        let (answer, mut answered) = oneshot::channel();
        self.lock_pending().insert(correlation, (*to, answer));
        let exchange = Exchange::Request {
            deadline_ms: deadline.as_millis().min(u128::from(u32::MAX)) as u32,
        };
        let payload = message.to_payload();
        let patience = (deadline / ASKED).max(ASK_AGAIN_MIN);
        let asked = async {
            loop {
                self.put(&peer, None, M::KIND, M::VER, exchange, correlation, &payload)
                    .await?;
                if let Ok(answer) = tokio::time::timeout(patience, &mut answered).await {
                    return Ok(answer.ok());
                }
            }
        };
        let reply = tokio::time::timeout(deadline, asked).await;
        self.lock_pending().remove(&correlation);
        match reply {
            Ok(Ok(Some(reply))) => Ok(R::from_payload(reply.kind, reply.ver, &reply.payload)?),
            Ok(Err(error)) => Err(RequestError::Send(error)),
            Ok(Ok(None)) | Err(_) => Err(RequestError::Timeout(deadline)),
        }
    }

    /// Answers a request. Does nothing when the sender does not wait for an answer.
    pub async fn reply<M: Message>(&self, to: &Incoming, message: &M) -> Result<(), SendError> {
        let Some(correlation) = to.correlation else {
            return Ok(());
        };
        let payload: Arc<[u8]> = message.to_payload().into();
        let (kind, ver) = (M::KIND, M::VER);
        let answer = Answer {
            kind,
            ver,
            payload: Arc::clone(&payload),
        };
        // Before it is sent: it may be lost, and asked for again.
        lock(&self.heard).answered((to.sender.node, correlation), answer, Instant::now());
        self.put(&to.sender, None, kind, ver, Exchange::Reply, correlation, &payload)
            .await
    }

    /// Publishes a user's message to the fleet.
    pub async fn publish_app<M: Message>(&self, topic: &str, message: &M) -> Result<(), SendError> {
        let subject = subject::app(self.secure.fleet(), self.secure.node(), topic)?;
        let payload = message.to_payload();
        for body in parts(M::KIND, M::VER, Exchange::OneWay, self.next_correlation(), &payload)? {
            let frame = self.secure.seal_group(Lane::App, &subject, &body)?;
            self.bus.publish(&subject, frame).await?;
        }
        Ok(())
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "the one place where all of an outgoing message comes together"
    )]
    async fn put(
        &self,
        peer: &Certificate,
        subject: Option<Subject>,
        kind: u16,
        ver: u8,
        exchange: Exchange,
        correlation: u64,
        payload: &[u8],
    ) -> Result<(), SendError> {
        let subject = subject.unwrap_or_else(|| subject::control(self.secure.fleet(), self.secure.node(), &peer.node));
        let bodies = parts(kind, ver, exchange, correlation, payload)?;
        publish(&self.secure, &self.bus, peer, &subject, &bodies).await
    }

    fn lock_pending(&self) -> MutexGuard<'_, HashMap<u64, (NodeId, oneshot::Sender<Reply>)>> {
        lock(&self.pending)
    }

    /// Flushes and disconnects.
    pub async fn close(&self) {
        self.bus.close().await;
    }
}

/// What is needed to hear.
struct Ears {
    secure: Arc<Secure>,
    pending: Arc<Pending>,
    heard: Arc<Mutex<Heard>>,
    again: mpsc::Sender<Again>,
}

impl Ears {
    /// Whether a message is a request that came before. Then it is not the owner's any more: it has an answer, which goes out once
    /// more, or is about to be answered.
    fn has_heard(&self, message: &Incoming) -> bool {
        let Some(correlation) = message.correlation else {
            return false;
        };
        let request = (message.sender.node, correlation);
        let heard = lock(&self.heard);
        if let Some(answer) = heard.answer(&request).cloned() {
            let to = Arc::clone(&message.sender);
            // Without room it is asked for once more.
            let _ = self.again.try_send(Again {
                to,
                correlation,
                answer,
            });
            return true;
        }
        heard.has(&request)
    }
}

async fn receive(ears: Ears, mut events: mpsc::Receiver<Event>, out: mpsc::Sender<SessionEvent>) {
    let mut assembly = Assembly::default();
    while let Some(event) = events.recv().await {
        lock(&ears.heard).forget_old(Instant::now());
        let event = match event {
            Event::Up { address } => SessionEvent::Up {
                address: address.to_string(),
            },
            Event::Down { cause } => SessionEvent::Down { cause },
            Event::Message { subject, payload } => {
                match message(&ears.secure, &ears.pending, &mut assembly, subject, payload) {
                    Some(event) => event,
                    None => continue,
                }
            }
        };
        let request = match &event {
            SessionEvent::Message(incoming) => incoming.correlation.map(|number| (incoming.sender.node, number)),
            _ => None,
        };
        if let SessionEvent::Message(incoming) = &event
            && ears.has_heard(incoming)
        {
            continue;
        }
        // Frames of streams wait for their owner (that is back-pressure); nothing else may be held up by it.
        let waits = matches!(
            event,
            SessionEvent::Up { .. } | SessionEvent::Down { .. } | SessionEvent::Stream { .. }
        );
        let sent = if waits {
            out.send(event).await.is_ok()
        } else {
            // Before its owner has it: it may be answered at once, and what has a long answer is forgotten then.
            match out.try_reserve() {
                Ok(room) => {
                    if let Some(request) = request {
                        lock(&ears.heard).note(request);
                    }
                    room.send(event);
                    true
                }
                Err(error) => matches!(error, mpsc::error::TrySendError::Full(())),
            }
        };
        if !sent {
            return;
        }
    }
}

/// A status that was refused as stale: the plane can tell from it whether there are two.
fn stale(secure: &Secure, subject: &Subject, frame: &[u8]) -> Option<SessionEvent> {
    let Opened {
        sender,
        lane,
        rest,
        epoch,
        plaintext,
    } = secure.open_stale(subject, frame)?;
    let body = Body::decode(&plaintext).ok()?;
    let is_status = (body.kind, body.ver) == (Status::KIND, Status::VER) && body.parts == 1;
    (is_status && lane == Lane::Control).then(|| {
        SessionEvent::Stale(Incoming {
            sender,
            lane,
            rest,
            epoch,
            kind: body.kind,
            ver: body.ver,
            payload: body.payload.to_vec(),
            correlation: None,
        })
    })
}

fn message(
    secure: &Secure,
    pending: &Pending,
    assembly: &mut Assembly,
    subject: Subject,
    frame: Vec<u8>,
) -> Option<SessionEvent> {
    match subject.address().map(|address| address.lane) {
        Ok(Lane::Enrol) => return Some(SessionEvent::Candidate { subject, frame }),
        Ok(Lane::Data | Lane::Ack) => return Some(SessionEvent::Stream { subject, frame }),
        Ok(Lane::Control | Lane::App) => {}
        Err(error) => {
            return Some(SessionEvent::Refused {
                subject,
                cause: error.to_string(),
            });
        }
    }
    let refused = |cause: String| {
        Some(SessionEvent::Refused {
            subject: subject.clone(),
            cause,
        })
    };
    let opened = match secure.open(&subject, &frame) {
        Ok(opened) => opened,
        Err(error) => {
            let stale = matches!(error, SecureError::Stale { .. }).then(|| stale(secure, &subject, &frame));
            return stale.flatten().or_else(|| refused(error.to_string()));
        }
    };
    let Opened {
        sender,
        lane,
        rest,
        epoch,
        plaintext,
    } = opened;
    let body = match Body::decode(&plaintext) {
        Ok(body) => body,
        Err(error) => return refused(error.to_string()),
    };
    let payload = assembly.take(sender.node, &body, Instant::now())?;
    let (kind, ver) = (body.kind, body.ver);
    let correlation = match body.exchange {
        Exchange::OneWay => None,
        Exchange::Request { .. } => Some(body.correlation),
        Exchange::Reply => {
            let mut pending = lock(pending);
            // Only the one who was asked may answer.
            if pending
                .get(&body.correlation)
                .is_some_and(|(asked, _)| *asked == sender.node)
                && let Some((_, answer)) = pending.remove(&body.correlation)
            {
                let _ = answer.send(Reply { kind, ver, payload });
            }
            return None;
        }
    };
    Some(SessionEvent::Message(Incoming {
        sender,
        lane,
        rest,
        epoch,
        kind,
        ver,
        payload,
        correlation,
    }))
}
