//! Members that change their keys: what they offer is answered here, and what was decided about it is done.

use std::sync::Arc;

use bus_link::session::Incoming;
use bus_schema::{
    message::BodyError,
    rotation::{CertificateShow, RotateAnswer, RotateAsk, RotateDone},
    subject,
};
use tracing::{error, info, warn};

use super::Service;
use crate::{
    disk::Closed,
    domain::{Change, rotation::Rotating},
    outbox::Outgoing,
};

impl Service {
    /// Takes what a daemon says about its keys; `None`: this message is about something else.
    pub(super) async fn keys(&mut self, message: &Incoming) -> Result<Option<Result<(), BodyError>>, Closed> {
        if message.is::<RotateAsk>() {
            return match message.read::<RotateAsk>() {
                Ok(ask) => self.offered(message, &ask).await.map(|()| Some(Ok(()))),
                Err(cause) => Ok(Some(Err(cause))),
            };
        }
        let now = self.parts.clock.now();
        let changes = if message.is::<RotateDone>() {
            let done = message.read::<RotateDone>();
            done.map(|done| self.parts.state.on_rotate_done(&message.sender, done, now))
        } else if message.is::<CertificateShow>() {
            message.read::<CertificateShow>().map(|show| self.shown(message, show))
        } else {
            return Ok(None);
        };
        match changes {
            Ok(changes) => {
                if !changes.is_empty() && self.decide(changes).await?.is_ok() {
                    info!(daemon = message.sender.name, "its certificates have changed");
                }
                Ok(Some(Ok(())))
            }
            Err(cause) => Ok(Some(Err(cause))),
        }
    }

    fn shown(&self, message: &Incoming, CertificateShow { certificate }: CertificateShow) -> Vec<Change> {
        match certificate.open(&self.parts.inviter.root) {
            Ok(opened) => self.parts.state.on_shown(&message.sender, opened, certificate),
            Err(cause) => {
                warn!(sender = message.sender.name, %cause, "refused a certificate that was shown");
                Vec::new()
            }
        }
    }

    async fn offered(&mut self, message: &Incoming, ask: &RotateAsk) -> Result<(), Closed> {
        let (sender, now) = (Arc::clone(&message.sender), self.parts.clock.now());
        let rotating = self.parts.state.on_rotate(&sender, ask, &self.parts.signer, now);
        let answer = match rotating {
            Rotating::Granted(certificate, changes) if changes.is_empty() => RotateAnswer::Granted(certificate),
            Rotating::Granted(certificate, changes) => match self.decide(changes).await? {
                Ok(()) => {
                    info!(daemon = sender.name, "signed new keys of a daemon");
                    RotateAnswer::Granted(certificate)
                }
                Err(cause) => {
                    // It asks again.
                    error!(cause, daemon = sender.name, "cannot store a daemon's new keys");
                    return Ok(());
                }
            },
            Rotating::Refused(why) => {
                warn!(daemon = sender.name, why, "refused new keys");
                RotateAnswer::Refused(why)
            }
        };
        // Sealed for the keys it has asked by: it may not have the new ones in use yet.
        let subject = subject::control(&self.parts.state.fleet, &self.parts.state.plane, &sender.node);
        self.outbox.put(Outgoing::Rotation {
            to: sender,
            subject,
            answer: Box::new(answer),
        });
        Ok(())
    }
}
