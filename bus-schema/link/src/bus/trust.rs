//! Trusting a broker without trusting the clock. A gateway without a battery boots in 1970 and may never learn better; a
//! certificate that is "not valid yet" there says nothing about the certificate.

use std::{sync::Arc, time::Duration};

use rustls::{
    CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
};

/// A clock before this is wrong: 2026-01-01, when this was written, in seconds since 1970.
const CLOCK_MIN_S: u64 = 1_767_225_600;
/// A chain is at most this long: each of its certificates may once move the time forward.
const CHAIN_MAX: usize = 4;

/// Checks certificates as usual, except that with a clock that is certainly wrong they may begin in the future. Only for
/// authorities that were given: who they sign for is known.
#[derive(Debug)]
pub(super) struct ClockTolerant {
    strict: Arc<WebPkiServerVerifier>,
}

impl ClockTolerant {
    pub(super) fn new(roots: RootCertStore, provider: Arc<CryptoProvider>) -> Result<Arc<Self>, String> {
        let strict = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
        Ok(Arc::new(Self {
            strict: strict.map_err(|error| error.to_string())?,
        }))
    }
}

impl ServerCertVerifier for ClockTolerant {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verify = |now| self.strict.verify_server_cert(leaf, intermediates, name, ocsp, now);
        let mut outcome = verify(now);
        if now.as_secs() >= CLOCK_MIN_S {
            return outcome;
        }
        for _ in 0..CHAIN_MAX {
            let Err(Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. })) = outcome
            else {
                break;
            };
            outcome = verify(UnixTime::since_unix_epoch(Duration::from_secs(not_before.as_secs())));
        }
        outcome
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.strict.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.strict.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.strict.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rustls::{crypto::ring, pki_types::pem::PemObject};

    use super::*;

    /// The testkit's certificates are valid from 1975 to 4096.
    #[test]
    fn only_a_wrong_clock_is_forgiven() {
        const YEAR_S: u64 = 31_557_600;
        let (ours, theirs) = (testkit::Tls::new(), testkit::Tls::new());
        let read = |path: &std::path::Path| CertificateDer::from_pem_file(path).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(read(&ours.ca())).unwrap();
        let verifier = ClockTolerant::new(roots, Arc::new(ring::default_provider())).unwrap();
        let (good, foreign) = (read(&ours.server().cert), read(&theirs.server().cert));
        for (what, certificate, name, years, accepted) in [
            ("now", &good, "localhost", 57, true),
            ("just booted", &good, "localhost", 0, true),
            ("just booted, foreign authority", &foreign, "localhost", 0, false),
            ("just booted, other host", &good, "elsewhere", 0, false),
            ("expired", &good, "localhost", 2200, false),
        ] {
            let name = ServerName::try_from(name).unwrap();
            let now = UnixTime::since_unix_epoch(Duration::from_secs(years * YEAR_S));
            let outcome = verifier.verify_server_cert(certificate, &[], &name, &[], now);
            assert_eq!(outcome.is_ok(), accepted, "{what}: {outcome:?}");
        }
        let early = UnixTime::since_unix_epoch(Duration::ZERO);
        let name = ServerName::try_from("localhost").unwrap();
        assert!(
            verifier
                .strict
                .verify_server_cert(&good, &[], &name, &[], early)
                .is_err(),
            "the test proves nothing"
        );
    }
}
