//! The server's side of TLS: certificate chain and key from PEM files. Never asks a client for a certificate: users have
//! passwords.

use std::{path::Path, sync::Arc};

use rustls::{ServerConfig, crypto::ring};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio_rustls::TlsAcceptor;

use crate::{ConfigError, config::Tls};

/// Reads the files. TLS 1.2 and 1.3.
pub(crate) fn acceptor(tls: &Tls) -> Result<TlsAcceptor, ConfigError> {
    let wrong = |file: &Path, message: String, hint: &str| ConfigError {
        file: file.to_path_buf(),
        line: 0,
        message,
        hint: hint.to_string(),
    };
    let chain: Vec<CertificateDer> = CertificateDer::pem_file_iter(&tls.cert)
        .and_then(Iterator::collect)
        .map_err(|error| {
            wrong(
                &tls.cert,
                format!("cannot read the server's certificate: {error}"),
                "see `tls.cert`",
            )
        })?;
    if chain.is_empty() {
        return Err(wrong(
            &tls.cert,
            "there is no certificate in this file".to_string(),
            "see `tls.cert`",
        ));
    }
    let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(|error| {
        wrong(
            &tls.key,
            format!("cannot read the server's private key: {error}"),
            "see `tls.key`",
        )
    })?;
    // The provider is named, so that nothing depends on which one the process took as its default.
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| {
            let message = format!(
                "this certificate and {} do not work together: {error}",
                tls.key.display()
            );
            wrong(
                &tls.cert,
                message,
                "the private key must be the one the certificate was made for",
            )
        })?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn files_that_do_not_work_are_named() {
        let pki = testkit::Tls::new();
        let other = testkit::Tls::new();
        let dir = tempfile::tempdir().unwrap();
        let empty = dir.path().join("empty.pem");
        fs::write(&empty, "").unwrap();
        let (cert, key) = (&pki.server().cert, &pki.server().key);
        for (cert, key, expected) in [
            (cert, key, None),
            (
                &dir.path().join("none.pem"),
                key,
                Some("none.pem: cannot read the server's certificate"),
            ),
            (&empty, key, Some("empty.pem: there is no certificate")),
            (cert, &empty, Some("empty.pem: cannot read the server's private key")),
            (cert, &other.server().key, Some("do not work together")),
        ] {
            let tls = Tls {
                listen: vec![],
                cert: cert.clone(),
                key: key.clone(),
            };
            match (acceptor(&tls), expected) {
                (Ok(_), None) => {}
                (Err(error), Some(expected)) => assert!(error.to_string().contains(expected), "{error}"),
                (found, expected) => panic!("{:?}, not {expected:?}", found.err()),
            }
        }
    }
}
