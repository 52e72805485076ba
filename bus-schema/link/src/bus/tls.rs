//! Whom to trust and who one is, for TLS. One configuration (rustls, ring) serves both NATS and MQTT. Reads no file but
//! the operating system's own list of authorities.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use super::trust::ClockTolerant;

/// What errors call the authority.
const AUTHORITY: &str = "the certificate authority";

/// TLS material cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// A text holds no certificate.
    #[error("{what} holds no certificate: it must be PEM, beginning with '-----BEGIN CERTIFICATE-----'")]
    NoCertificate {
        /// Which one.
        what: &'static str,
    },
    /// A text is PEM, but damaged.
    #[error("{what} cannot be read: {cause}")]
    Damaged {
        /// Which one.
        what: &'static str,
        /// In what way.
        cause: String,
    },
    /// A text holds no private key.
    #[error("the client key holds no private key: it must be PEM, beginning with '-----BEGIN PRIVATE KEY-----'")]
    NoKey,
    /// Certificate and key do not fit, or are of a kind not supported.
    #[error("the client certificate and its key cannot be used together: {cause}")]
    Client {
        /// Why not.
        cause: String,
    },
    /// The operating system trusts nobody.
    #[error(
        "this system's list of certificate authorities is empty{cause}: install ca-certificates, or give the broker's \
         authority"
    )]
    NoSystemRoots {
        /// What went wrong while reading it.
        cause: String,
    },
}

/// Whom to trust, and the certificate to show to the broker.
///
/// When an authority is given, only it is trusted. Else the operating system's list is: administrators already keep it
/// up to date, it may hold a company's own authority, and both clients link its reader anyway, while a built-in list
/// would add a quarter of a megabyte that grows old.
#[derive(Clone, Default)]
pub struct Tls {
    /// `None`: the system's authorities and no client certificate; read only when first needed.
    config: Option<Arc<ClientConfig>>,
}

impl Tls {
    /// From PEM texts. `ca`: one or more certificates. `client`: a certificate chain, leaf first, and its private key.
    pub fn from_pem(ca: Option<&[u8]>, client: Option<(&[u8], &[u8])>) -> Result<Self, TlsError> {
        let roots = match ca {
            Some(pem) => Some(roots_of(AUTHORITY, certificates(AUTHORITY, pem)?)?),
            None => None,
        };
        let client = match client {
            Some((chain, key)) => Some((certificates("the client certificate", chain)?, private_key(key)?)),
            None => None,
        };
        Self::build(roots, client)
    }

    /// Trusts only this authority, given as DER; shows no client certificate.
    pub fn from_ca_der(ca: &[u8]) -> Result<Self, TlsError> {
        let roots = roots_of(AUTHORITY, vec![CertificateDer::from(ca.to_vec())])?;
        Self::build(Some(roots), None)
    }

    fn build(
        given: Option<RootCertStore>,
        client: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    ) -> Result<Self, TlsError> {
        if given.is_none() && client.is_none() {
            return Ok(Self::default());
        }
        Ok(Self {
            config: Some(Arc::new(client_config(given, client)?)),
        })
    }

    /// Whether an authority or a client certificate was given.
    pub(crate) fn is_custom(&self) -> bool {
        self.config.is_some()
    }

    /// The configuration to connect with. May read files: call it where blocking is allowed.
    pub fn client_config(&self) -> Result<Arc<ClientConfig>, TlsError> {
        static SYSTEM: OnceLock<Arc<ClientConfig>> = OnceLock::new();
        if let Some(config) = self.config.as_ref().or_else(|| SYSTEM.get()) {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(client_config(None, None)?);
        Ok(Arc::clone(SYSTEM.get_or_init(|| config)))
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_custom() { "Tls(given)" } else { "Tls(system)" })
    }
}

/// Trusts the given authorities, or the system's.
fn client_config(
    given: Option<RootCertStore>,
    client: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
) -> Result<ClientConfig, TlsError> {
    let unusable = |error: rustls::Error| TlsError::Client {
        cause: error.to_string(),
    };
    // The provider is named, not looked up: a process may have none, or another one, installed as its default.
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?;
    let builder = match given {
        Some(roots) => {
            let verifier =
                ClockTolerant::new(roots, provider).map_err(|cause| TlsError::Damaged { what: AUTHORITY, cause })?;
            // Not dangerous: every check is rustls' own, see there.
            builder.dangerous().with_custom_certificate_verifier(verifier)
        }
        None => builder.with_root_certificates(system_roots()?),
    };
    match client {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(unusable),
        None => Ok(builder.with_no_client_auth()),
    }
}

fn certificates(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err(TlsError::NoCertificate { what }),
        Ok(found) => Ok(found),
        Err(error) => Err(TlsError::Damaged {
            what,
            cause: error.to_string(),
        }),
    }
}

fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| TlsError::NoKey)
}

fn roots_of(what: &'static str, certificates: Vec<CertificateDer<'static>>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate).map_err(|error| TlsError::Damaged {
            what,
            cause: error.to_string(),
        })?;
    }
    Ok(roots)
}

fn system_roots() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // One unreadable file in the system's list must not hide the others.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let cause = found
            .errors
            .first()
            .map_or(String::new(), |error| format!(" ({error})"));
        return Err(TlsError::NoSystemRoots { cause });
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_material_is_named() {
        let broken = "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n";
        let empty = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let tls = testkit::Tls::new();
        let read = |path: &std::path::Path| std::fs::read_to_string(path).unwrap();
        let (one, two) = (tls.client("one"), tls.client("two"));
        let (cert, key, other_key) = (read(&one.cert), read(&one.key), read(&two.key));
        for (ca, client, needle) in [
            (Some(""), None, "the certificate authority holds no certificate"),
            (Some("hello"), None, "-----BEGIN CERTIFICATE-----"),
            (Some(broken), None, "the certificate authority cannot be read"),
            (Some(empty), None, "the certificate authority cannot be read"),
            (
                None,
                Some(("", key.as_str())),
                "the client certificate holds no certificate",
            ),
            (None, Some((cert.as_str(), "")), "holds no private key"),
            (None, Some((cert.as_str(), cert.as_str())), "holds no private key"),
            (
                Some(cert.as_str()),
                Some((cert.as_str(), other_key.as_str())),
                "cannot be used together",
            ),
        ] {
            let client = client.map(|(chain, key)| (chain.as_bytes(), key.as_bytes()));
            let error = Tls::from_pem(ca.map(str::as_bytes), client).unwrap_err().to_string();
            assert!(error.contains(needle), "{error}");
        }
        let ca = read(&tls.ca());
        assert!(Tls::from_pem(Some(ca.as_bytes()), Some((cert.as_bytes(), key.as_bytes()))).is_ok());
        assert!(Tls::from_ca_der(b"no").is_err());
    }
}
