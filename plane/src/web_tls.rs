//! The certificate of the web page: from files, or made here once and kept in the plane's directory. Opens no connection.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bus_link::home::write_atomic;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use sha2::{Digest as _, Sha256};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::ring},
};
use zeroize::Zeroizing;

/// Where a certificate that was made here is kept, inside the plane's directory.
pub const DIR: &str = "web-tls";
const CERTIFICATE: &str = "cert.pem";
const KEY: &str = "key.pem";
/// The names it was made for.
const NAMES: &str = "names";

/// Where the certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// From these PEM files: the chain, the page's own first, and its key.
    Files {
        /// The chain.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// Made here, for these names.
    Own {
        /// The plane's directory.
        dir: PathBuf,
        /// Host names and addresses.
        names: Vec<String>,
    },
}

/// There is no certificate to use.
#[derive(Debug, thiserror::Error)]
pub enum WebTlsError {
    /// A file cannot be used.
    #[error("{path}: {message}", path = .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// None could be made.
    #[error("cannot make a certificate for the web page: {0}")]
    Made(#[from] rcgen::Error),
    /// Certificate and key do not fit.
    #[error("{path}: this certificate and its key do not work together: {message}", path = .path.display())]
    Pair {
        /// The certificate's file.
        path: PathBuf,
        /// Why not.
        message: String,
    },
}

/// What the page shows to browsers.
pub struct WebTls {
    /// Takes their connections.
    pub acceptor: TlsAcceptor,
    /// SHA-256 of the certificate, as browsers show it.
    pub fingerprint: String,
}

impl std::fmt::Debug for WebTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebTls")
            .field("fingerprint", &self.fingerprint)
            .finish_non_exhaustive()
    }
}

/// Reads the certificate, and makes it first if it is to be made here.
pub fn load(source: &Source) -> Result<WebTls, WebTlsError> {
    let (cert, key) = match source {
        Source::Files { cert, key } => (cert.clone(), key.clone()),
        Source::Own { dir, names } => make(&dir.join(DIR), names)?,
    };
    let wrong = |path: &Path, message: String| WebTlsError::File {
        path: path.to_path_buf(),
        message,
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&cert)
        .and_then(Iterator::collect)
        .map_err(|error| wrong(&cert, format!("cannot read the certificate: {error}")))?;
    let Some(first) = chain.first() else {
        let message = "no certificate in it: it must be PEM, beginning with '-----BEGIN CERTIFICATE-----'";
        return Err(wrong(&cert, message.to_string()));
    };
    let digest = Sha256::digest(first);
    let fingerprint = digest
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect::<Vec<_>>()
        .join(":");
    let secret = PrivateKeyDer::from_pem_file(&key)
        .map_err(|error| wrong(&key, format!("cannot read the private key: {error}")))?;
    // The provider is named, so that nothing depends on which one the process took as its default.
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, secret))
        .map_err(|error| WebTlsError::Pair {
            path: cert,
            message: error.to_string(),
        })?;
    Ok(WebTls {
        acceptor: TlsAcceptor::from(Arc::new(config)),
        fingerprint,
    })
}

/// A certificate that vouches for itself, for these names. Kept as long as they are the same: people have told their browsers to
/// trust it.
fn make(dir: &Path, names: &[String]) -> Result<(PathBuf, PathBuf), WebTlsError> {
    let (cert, key) = (dir.join(CERTIFICATE), dir.join(KEY));
    let mut names = names.to_vec();
    names.sort();
    names.dedup();
    let list = names.join("\n");
    if fs::read_to_string(dir.join(NAMES)).is_ok_and(|made| made == list) && key.exists() {
        return Ok((cert, key));
    }
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |error: io::Error| WebTlsError::File {
            path,
            message: format!("cannot write it: {error}"),
        }
    };
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, "mycelial-plane");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    // Whoever trusts it compared its fingerprint: a date would only lock them out.
    params.not_before = rcgen::date_time_ymd(1970, 1, 1);
    params.not_after = rcgen::date_time_ymd(2100, 1, 1);
    let pair = KeyPair::generate()?;
    let certificate = params.self_signed(&pair)?;
    fs::create_dir_all(dir).map_err(failed(dir))?;
    let write = |path: &Path, text: &str| write_atomic(path, text.as_bytes()).map_err(failed(path));
    write(&key, &Zeroizing::new(pair.serialize_pem()))?;
    write(&cert, &certificate.pem())?;
    // Last: it says that the others are there.
    write(&dir.join(NAMES), &list)?;
    Ok((cert, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(dir: &Path, names: &[&str]) -> Source {
        Source::Own {
            dir: dir.to_path_buf(),
            names: names.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn it_is_made_once_and_again_for_other_names() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let first = load(&own(dir.path(), &["localhost", "127.0.0.1"])).unwrap().fingerprint;
        assert_eq!((first.len(), first.matches(':').count()), (95, 31), "{first}");
        let again = load(&own(dir.path(), &["127.0.0.1", "localhost"])).unwrap().fingerprint;
        assert_eq!(first, again, "the same names");
        let other = load(&own(dir.path(), &["127.0.0.1", "plane.example.org"]))
            .unwrap()
            .fingerprint;
        assert_ne!(first, other);
        let mode = fs::metadata(dir.path().join(DIR).join(KEY))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn files_that_do_not_work_are_named() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        load(&own(dir.path(), &["a"])).unwrap();
        load(&own(other.path(), &["a"])).unwrap();
        let (cert, key) = (dir.path().join(DIR).join(CERTIFICATE), dir.path().join(DIR).join(KEY));
        let foreign = other.path().join(DIR).join(KEY);
        let empty = dir.path().join("empty.pem");
        fs::write(&empty, "").unwrap();
        for (cert, key, said) in [
            (&cert, &key, ""),
            (
                &dir.path().join("none.pem"),
                &key,
                "none.pem: cannot read the certificate",
            ),
            (&empty, &key, "empty.pem: no certificate in it"),
            (&cert, &empty, "empty.pem: cannot read the private key"),
            (&cert, &foreign, "do not work together"),
        ] {
            let source = Source::Files {
                cert: cert.clone(),
                key: key.clone(),
            };
            let error = load(&source).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains(said) && error.is_empty() == said.is_empty(), "{error}");
        }
    }
}
