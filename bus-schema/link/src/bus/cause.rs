//! Why a connection failed, in words for the person who has to mend it. Looks through the clients' errors for what really
//! happened; pure.

use std::{
    error::Error,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use async_nats::{ConnectError, ConnectErrorKind};
use rumqttc::{ConnectReturnCode, ConnectionError, StateError, mqttbytes};
use rustls::{AlertDescription, CertificateError};

use super::BusAddress;

/// Who could not talk to whom.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub address: BusAddress,
    pub user: Option<String>,
    /// Set when the broker says that this client may not come in.
    pub refused: Arc<AtomicBool>,
}

impl Peer {
    /// Silence for longer than a living broker could be silent.
    pub(super) fn silent(&self) -> String {
        format!("the broker at {} has stopped answering", self.address)
    }

    /// An orderly or disorderly end without a reason given.
    pub(super) fn hung_up(&self) -> String {
        format!("the broker at {} closed the connection", self.address)
    }

    /// The time for connecting is over.
    pub(super) fn no_answer(&self) -> String {
        format!("{} does not answer", self.address)
    }

    /// The broker does not let this client subscribe.
    pub(super) fn subscription_refused(&self, what: &str) -> String {
        format!(
            "the broker at {} refused the subscription to {what}: its access list must allow it",
            self.address
        )
    }

    /// The broker does not let this client in.
    fn login_refused(&self) -> String {
        self.refused.store(true, Ordering::Relaxed);
        match &self.user {
            Some(user) => format!(
                "the broker at {} refused user '{user}': wrong password, unknown user, or not allowed to connect",
                self.address
            ),
            None => format!(
                "the broker at {} refused to let this client in: it wants other credentials",
                self.address
            ),
        }
    }

    /// What an MQTT connection died of.
    pub(super) fn mqtt(&self, error: &ConnectionError) -> String {
        let address = &self.address;
        match error {
            ConnectionError::ConnectionRefused(code) => match code {
                ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized => self.login_refused(),
                ConnectReturnCode::BadClientId => format!("the broker at {address} refused the client name"),
                ConnectReturnCode::ServiceUnavailable => format!("the broker at {address} says it is unavailable"),
                ConnectReturnCode::RefusedProtocolVersion | ConnectReturnCode::Success => {
                    format!("the broker at {address} does not speak MQTT 3.1.1")
                }
            },
            ConnectionError::NetworkTimeout => self.no_answer(),
            ConnectionError::FlushTimeout | ConnectionError::MqttState(StateError::AwaitPingResp) => self.silent(),
            ConnectionError::MqttState(StateError::ConnectionAborted) => self.hung_up(),
            ConnectionError::MqttState(StateError::Deserialization(mqttbytes::Error::PayloadSizeLimitExceeded(
                bytes,
            ))) => format!("the broker at {address} sent a message of {bytes} bytes, more than any member may send"),
            error => self.any(error),
        }
    }

    /// What connecting to a NATS server failed of.
    pub(super) fn nats(&self, error: &ConnectError) -> String {
        match error.kind() {
            ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => self.login_refused(),
            ConnectErrorKind::TimedOut => self.no_answer(),
            _ => self.any(error),
        }
    }

    /// Whatever is at the bottom of an error.
    pub(super) fn any(&self, error: &(dyn Error + 'static)) -> String {
        let mut next = Some(error);
        while let Some(link) = next {
            let found = match (link.downcast_ref::<io::Error>(), link.downcast_ref::<rustls::Error>()) {
                (Some(error), _) => self.io(error),
                (_, Some(error)) => Some(self.tls(error)),
                _ => None,
            };
            if let Some(found) = found {
                return found;
            }
            next = link.source();
        }
        format!("{}: {error}", self.address)
    }

    fn io(&self, error: &io::Error) -> Option<String> {
        // `source()` of an io::Error skips the error inside it.
        if let Some(inner) = error.get_ref() {
            if let Some(tls) = inner.downcast_ref::<rustls::Error>() {
                return Some(self.tls(tls));
            }
            if let Some(inner) = inner.downcast_ref::<io::Error>() {
                return self.io(inner);
            }
        }
        let address = &self.address;
        Some(match error.kind() {
            io::ErrorKind::ConnectionRefused => format!("nothing listens at {address} (connection refused)"),
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable | io::ErrorKind::NetworkDown => {
                format!("there is no way to {address} ({error}): is the network up?")
            }
            io::ErrorKind::TimedOut => self.no_answer(),
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof => self.hung_up(),
            // The standard library has no kind for it.
            _ if error.to_string().contains("failed to lookup address") => {
                format!("cannot find the host of {address}: {error}")
            }
            io::ErrorKind::Other | io::ErrorKind::InvalidData => return None,
            _ => format!("{address}: {error}"),
        })
    }

    fn tls(&self, error: &rustls::Error) -> String {
        let address = &self.address;
        match error {
            rustls::Error::InvalidCertificate(cause) => match cause {
                CertificateError::UnknownIssuer | CertificateError::BadSignature => format!(
                    "the certificate of {address} was issued by nobody trusted here: give the broker's certificate \
                     authority"
                ),
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                    format!("the certificate of {address} is for another host name")
                }
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => format!(
                    "the certificate of {address} has expired by this host's clock ({cause}): if the clock is ahead, set \
                     it right; if not, renew the certificate"
                ),
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => format!(
                    "the certificate of {address} is not valid yet by this host's clock ({cause}): the clock is behind, \
                     set it right"
                ),
                cause => format!("the certificate of {address} is not acceptable: {cause}"),
            },
            rustls::Error::AlertReceived(
                AlertDescription::CertificateRequired
                | AlertDescription::BadCertificate
                | AlertDescription::UnknownCA
                | AlertDescription::CertificateUnknown
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateRevoked
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::AccessDenied
                | AlertDescription::HandshakeFailure,
            ) => format!("{address} refused the client certificate, or wants one ({error})"),
            rustls::Error::InvalidMessage(_) => {
                format!("{address} does not speak TLS ({error}): is it the right port?")
            }
            error => format!("no TLS connection to {address}: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_read_well() {
        let peer = Peer {
            address: "mqtts://broker".parse().unwrap(),
            user: Some("ann".into()),
            refused: Arc::default(),
        };
        let tls = |error: rustls::Error| ConnectionError::Io(io::Error::new(io::ErrorKind::InvalidData, error));
        let kind = |kind: io::ErrorKind| ConnectionError::Io(kind.into());
        let state = ConnectionError::MqttState;
        for (error, expected) in [
            (
                ConnectionError::ConnectionRefused(ConnectReturnCode::NotAuthorized),
                "the broker at mqtts://broker:8883 refused user 'ann'",
            ),
            (
                kind(io::ErrorKind::ConnectionRefused),
                "nothing listens at mqtts://broker:8883",
            ),
            (
                tls(rustls::Error::InvalidCertificate(CertificateError::Expired)),
                "has expired by this host's clock",
            ),
            (
                tls(rustls::Error::InvalidCertificate(CertificateError::NotValidYet)),
                "the clock is behind",
            ),
            (
                kind(io::ErrorKind::ConnectionReset),
                "the broker at mqtts://broker:8883 closed the connection",
            ),
            (
                kind(io::ErrorKind::NetworkUnreachable),
                "there is no way to mqtts://broker:8883",
            ),
            (
                ConnectionError::Io(io::Error::other("failed to lookup address information: x")),
                "cannot find the host of mqtts://broker:8883",
            ),
            (
                ConnectionError::Io(io::Error::other("whatever")),
                "mqtts://broker:8883: I/O: whatever",
            ),
            (
                state(StateError::AwaitPingResp),
                "the broker at mqtts://broker:8883 has stopped answering",
            ),
            (
                state(StateError::Io(io::ErrorKind::BrokenPipe.into())),
                "the broker at mqtts://broker:8883 closed",
            ),
            (
                state(StateError::Deserialization(mqttbytes::Error::Io(
                    io::ErrorKind::ConnectionReset.into(),
                ))),
                "the broker at mqtts://broker:8883 closed",
            ),
            (
                tls(CertificateError::UnknownIssuer.into()),
                "the certificate of mqtts://broker:8883 was issued by nobody",
            ),
            (
                tls(CertificateError::NotValidForName.into()),
                "the certificate of mqtts://broker:8883 is for another",
            ),
            (
                tls(rustls::Error::AlertReceived(AlertDescription::CertificateRequired)),
                "or wants one",
            ),
        ] {
            let cause = peer.mqtt(&error);
            assert!(cause.contains(expected), "{cause}");
            let is_refused = peer.refused.swap(false, Ordering::Relaxed);
            assert_eq!(is_refused, expected.contains("refused user"), "{cause}");
        }
    }
}
