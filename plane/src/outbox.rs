//! What the plane has to say, on its way to the bus: sealed and sent by a task of its own, so that the service never waits
//! for the network. Bounded; what finds no room is dropped, because everything on the control lane is said again.

use std::{sync::Arc, time::Duration};

use bus_link::{
    essential,
    session::{Incoming, SendError, Session},
};
use bus_schema::{
    api::{ApiResult, FailureKind},
    id::NodeId,
    limits::MESSAGE_BYTES_MAX,
    member::{Certificate, Signed},
    message::{CatalogAsk, EnrolAnswer, Message as _, PlanPut, Pong, RecallAsk, RosterPut, TimeHint},
    pairing::PairWait,
    plan::Plan,
    rotation::RotateAnswer,
    subject::Subject,
};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{error::Elapsed, timeout},
};
use tracing::{debug, warn};

use crate::api::failed;

/// Answers waiting to be sent: somebody is waiting for them.
const ANSWERS_MAX: usize = 256;
/// Other messages waiting to be sent, behind the answers.
const WAITING_MAX: usize = 256;
/// How long one message may take to be handed to the broker.
const SEND_MAX: Duration = Duration::from_secs(5);
/// How long the last messages may take at shutdown.
const FINISH_MAX: Duration = Duration::from_secs(1);

/// One message.
#[derive(Debug)]
pub enum Outgoing {
    /// A plan.
    Plan {
        /// For whom.
        to: NodeId,
        /// Signed.
        plan: Signed<Plan>,
    },
    /// What a daemon is told of the fleet.
    Roster {
        /// For whom.
        to: NodeId,
        /// The roster and the group key.
        put: Box<RosterPut>,
    },
    /// The question for a catalog.
    CatalogAsk {
        /// For whom.
        to: NodeId,
        /// Which.
        hash: [u8; 32],
    },
    /// What comes of new keys.
    Rotation {
        /// For whom, by which keys.
        to: Arc<Certificate>,
        /// Where.
        subject: Subject,
        /// What comes of it.
        answer: Box<RotateAnswer>,
    },
    /// The question for what was lost.
    Recall {
        /// For whom.
        to: NodeId,
        /// The newest roster that is known here.
        roster_version: u64,
    },
    /// The time.
    Time {
        /// For whom.
        to: NodeId,
        /// When it was asked for.
        hint: TimeHint,
    },
    /// The answer to an operator's call.
    Answer {
        /// The call.
        to: Box<Incoming>,
        /// The answer.
        result: Box<ApiResult>,
    },
    /// The answer to a ping.
    Pong {
        /// The ping.
        to: Box<Incoming>,
        /// The answer.
        pong: Pong,
    },
    /// The answer to a candidate.
    Enrolment {
        /// Its keys, as a certificate nobody signed.
        to: Box<Certificate>,
        /// Where it listens.
        subject: Subject,
        /// The answer.
        answer: Box<EnrolAnswer>,
    },
    /// To a candidate without a token: to wait.
    PairWait {
        /// Its keys, as a certificate nobody signed.
        to: Box<Certificate>,
        /// Where it listens.
        subject: Subject,
        /// The plane's number for it.
        wait: PairWait,
    },
}

/// The queues. A plan for a thousand daemons must not push out the answer to whoever deployed it.
#[derive(Debug)]
pub struct Outbox {
    answers: mpsc::Sender<Outgoing>,
    others: mpsc::Sender<Outgoing>,
    task: JoinHandle<()>,
}

impl Outbox {
    /// Starts sending.
    pub fn start(session: Arc<Session>) -> Self {
        let (answers, mut first) = mpsc::channel(ANSWERS_MAX);
        let (others, mut then) = mpsc::channel(WAITING_MAX);
        let task = essential::spawn("outbox", async move {
            loop {
                let message = tokio::select! {
                    biased;
                    Some(answer) = first.recv() => answer,
                    Some(other) = then.recv() => other,
                    else => return,
                };
                match send(&session, message).await {
                    Ok(Ok(())) => {}
                    Ok(Err(cause)) => debug!(%cause, "could not send"),
                    Err(_) => warn!("the broker took longer than {SEND_MAX:?} for one message; it will be sent again"),
                }
            }
        });
        Self { answers, others, task }
    }

    /// Waits until there is room for messages that are no answers.
    pub async fn room(&self) {
        // Closed at shutdown only: then nothing is sent, and nobody waits.
        let _ = self.others.reserve().await;
    }

    /// For how many of them there is.
    pub fn free(&self) -> usize {
        self.others.capacity()
    }

    /// Sends a message some time soon, or not at all.
    pub fn put(&self, message: Outgoing) {
        let queue = match message {
            Outgoing::Answer { .. }
            | Outgoing::Pong { .. }
            | Outgoing::Enrolment { .. }
            | Outgoing::PairWait { .. } => &self.answers,
            _ => &self.others,
        };
        if queue.try_send(message).is_err() {
            debug!("dropped a message: too many are waiting to be sent");
        }
    }

    /// Sends what is waiting, for a moment, and ends.
    pub async fn finish(self) {
        let Self {
            answers,
            others,
            mut task,
        } = self;
        drop((answers, others));
        if timeout(FINISH_MAX, &mut task).await.is_err() {
            task.abort();
        }
    }
}

async fn send(session: &Session, message: Outgoing) -> Result<Result<(), SendError>, Elapsed> {
    match message {
        Outgoing::Plan { to, plan } => timeout(SEND_MAX, session.send(&to, &PlanPut { plan })).await,
        Outgoing::Roster { to, put } => timeout(SEND_MAX, session.send(&to, &*put)).await,
        Outgoing::CatalogAsk { to, hash } => timeout(SEND_MAX, session.send(&to, &CatalogAsk { catalog: hash })).await,
        Outgoing::Rotation { to, subject, answer } => timeout(SEND_MAX, session.send_on(&to, subject, &*answer)).await,
        Outgoing::Recall { to, roster_version } => {
            timeout(SEND_MAX, session.send(&to, &RecallAsk { roster_version })).await
        }
        Outgoing::Time { to, hint } => timeout(SEND_MAX, session.send(&to, &hint)).await,
        Outgoing::Answer { to, result } => timeout(SEND_MAX, session.reply(&to, &fitting(*result))).await,
        Outgoing::Pong { to, pong } => timeout(SEND_MAX, session.reply(&to, &pong)).await,
        Outgoing::Enrolment { to, subject, answer } => timeout(SEND_MAX, session.send_on(&to, subject, &*answer)).await,
        Outgoing::PairWait { to, subject, wait } => timeout(SEND_MAX, session.send_on(&to, subject, &wait)).await,
    }
}

/// An answer that is too long for one message says so instead of not coming at all.
fn fitting(result: ApiResult) -> ApiResult {
    let bytes = result.to_payload().len();
    if bytes <= MESSAGE_BYTES_MAX {
        return result;
    }
    let hint = match &result {
        ApiResult::Ledger(_) => "ask for one workflow: mycelial workflow status NAME",
        _ => "the web page shows all of it",
    };
    failed(
        FailureKind::Internal,
        format!("the answer has {bytes} bytes, {MESSAGE_BYTES_MAX} fit into a message"),
        hint,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_does_not_fit_says_so() {
        let long = ApiResult::AccessList("x".repeat(MESSAGE_BYTES_MAX));
        assert!(matches!(fitting(long), ApiResult::Failed(failure) if failure.message.contains("fit into a message")));
        let short = ApiResult::AccessList("x".repeat(1_000));
        assert_eq!(fitting(short.clone()), short);
    }
}
