//! A certificate authority for one test. Its files live in a temporary directory; nothing is trusted outside the test.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use tempfile::TempDir;

use crate::temp_dir;

/// The names the server certificate is good for.
const SERVER_NAMES: &[&str] = &["localhost", "127.0.0.1", "::1"];

/// A certificate and its private key, as PEM files.
#[derive(Debug, Clone)]
pub struct CertFiles {
    /// The certificate.
    pub cert: PathBuf,
    /// Its private key (PKCS #8).
    pub key: PathBuf,
}

/// A certificate authority, and a server certificate for `localhost`, `127.0.0.1` and `::1` signed by it.
///
/// Two of them do not trust each other, which is how a test gets a certificate that must be refused.
pub struct Tls {
    ca: CertifiedIssuer<'static, KeyPair>,
    server: CertFiles,
    dir: TempDir,
}

impl Tls {
    /// Makes fresh keys. ECDSA P-256, so it takes a millisecond.
    #[must_use]
    pub fn new() -> Self {
        Self::make(None)
    }

    /// The same, whose server certificate was made so long ago and ends after so long from now. One made by
    /// [`Self::new`] is always valid.
    #[must_use]
    pub fn valid(since: Duration, still: Duration) -> Self {
        Self::make(Some((since, still)))
    }

    fn make(validity: Option<(Duration, Duration)>) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Mycelial test CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca = CertifiedIssuer::self_signed(params, new_key()).expect("a CA certificate can be made");
        let dir = temp_dir("tls");
        write(&dir.path().join("ca.pem"), &ca.pem());
        let server = issue(
            &ca,
            dir.path(),
            "server",
            SERVER_NAMES,
            ExtendedKeyUsagePurpose::ServerAuth,
            validity,
        );
        Self { ca, server, dir }
    }

    /// The authority's certificate, which clients trust.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// The server certificate for `localhost`, `127.0.0.1` and `::1`.
    #[must_use]
    pub fn server(&self) -> &CertFiles {
        &self.server
    }

    /// A server certificate for other names: one a client of 127.0.0.1 must refuse.
    #[must_use]
    pub fn server_for(&self, names: &[&str]) -> CertFiles {
        let stem = format!("server-{}", names.join("-"));
        issue(
            &self.ca,
            self.dir.path(),
            &stem,
            names,
            ExtendedKeyUsagePurpose::ServerAuth,
            None,
        )
    }

    /// A client certificate whose common name is `name`. Asking twice for a name makes a second one in its place.
    #[must_use]
    pub fn client(&self, name: &str) -> CertFiles {
        issue(
            &self.ca,
            self.dir.path(),
            name,
            &[],
            ExtendedKeyUsagePurpose::ClientAuth,
            None,
        )
    }
}

impl Default for Tls {
    fn default() -> Self {
        Self::new()
    }
}

fn issue(
    ca: &CertifiedIssuer<'static, KeyPair>,
    dir: &Path,
    name: &str,
    alt_names: &[&str],
    usage: ExtendedKeyUsagePurpose,
    validity: Option<(Duration, Duration)>,
) -> CertFiles {
    let alt_names: Vec<String> = alt_names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(alt_names).expect("names a certificate can carry");
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    if let Some((since, still)) = validity {
        params.not_before = (SystemTime::now() - since).into();
        params.not_after = (SystemTime::now() + still).into();
    }
    let key = new_key();
    let cert = params.signed_by(&key, ca).expect("the CA can sign");
    let files = CertFiles {
        cert: dir.join(format!("{name}.pem")),
        key: dir.join(format!("{name}.key")),
    };
    write(&files.cert, &cert.pem());
    write(&files.key, &key.serialize_pem());
    files
}

fn new_key() -> KeyPair {
    KeyPair::generate().expect("the system has randomness")
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
}
