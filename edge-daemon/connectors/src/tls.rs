//! Certificates of connections, as they stand in configs: of clients and of listeners. Knows no protocol.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use flow::ConfigError;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, ServerConfig, WantsVerifier, server::WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use schemars::JsonSchema;
use serde::Deserialize;

/// How the connection is protected.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TlsFiles {
    /// Certificates (PEM) of the authorities to trust. Without it, those the system trusts.
    ca_file: Option<PathBuf>,
    /// Certificate (PEM) to show to the server.
    cert_file: Option<PathBuf>,
    /// Its private key (PEM).
    key_file: Option<PathBuf>,
}

/// How those who connect are met.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListenTls {
    /// Certificate (PEM) to show, with those between it and the authority.
    cert_file: PathBuf,
    /// Its private key (PEM).
    key_file: PathBuf,
    /// Certificates (PEM) of the authorities whose clients are let in. Without it, clients need no certificate.
    client_ca_file: Option<PathBuf>,
}

impl TlsFiles {
    /// Whether the keys go together.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if self.cert_file.is_some() == self.key_file.is_some() {
            return Ok(());
        }
        Err(ConfigError::at("tls.key_file", "a certificate and its key go together"))
    }

    /// Reads the files, again each time: they may have been renewed.
    pub(crate) fn client_config(&self, base_dir: &Path) -> Result<ClientConfig, String> {
        let builder = with_provider(ClientConfig::builder_with_provider)?;
        let builder = builder.with_root_certificates(self.authorities(base_dir)?);
        let (Some(cert), Some(key)) = (&self.cert_file, &self.key_file) else {
            return Ok(builder.with_no_client_auth());
        };
        let chain = certificates(&base_dir.join(cert))?;
        builder
            .with_client_auth_cert(chain, private_key(&base_dir.join(key))?)
            .map_err(|error| format!("the client certificate: {error}"))
    }

    fn authorities(&self, base_dir: &Path) -> Result<RootCertStore, String> {
        let trusted = match &self.ca_file {
            Some(path) => certificates(&base_dir.join(path))?,
            None => rustls_native_certs::load_native_certs().certs,
        };
        store(trusted).ok_or_else(|| "there is no authority to trust: set tls.ca_file".to_string())
    }
}

impl ListenTls {
    /// Whether only clients with a certificate are let in.
    pub(crate) fn knows_clients(&self) -> bool {
        self.client_ca_file.is_some()
    }

    /// Reads the files.
    pub(crate) fn server_config(&self, base_dir: &Path) -> Result<ServerConfig, String> {
        let builder = with_provider(ServerConfig::builder_with_provider)?;
        let builder = match &self.client_ca_file {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let path = base_dir.join(path);
                let authorities = store(certificates(&path)?)
                    .ok_or_else(|| format!("{}: there is no usable certificate in it", path.display()))?;
                let provider = Arc::new(rustls::crypto::ring::default_provider());
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), provider).build();
                builder.with_client_cert_verifier(verifier.map_err(|error| format!("{}: {error}", path.display()))?)
            }
        };
        let chain = certificates(&base_dir.join(&self.cert_file))?;
        builder
            .with_single_cert(chain, private_key(&base_dir.join(&self.key_file))?)
            .map_err(|error| format!("the certificate: {error}"))
    }
}

fn with_provider<S: rustls::ConfigSide>(
    builder: fn(Arc<rustls::crypto::CryptoProvider>) -> ConfigBuilder<S, rustls::WantsVersions>,
) -> Result<ConfigBuilder<S, WantsVerifier>, String> {
    let builder = builder(Arc::new(rustls::crypto::ring::default_provider()));
    builder
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())
}

fn store(trusted: Vec<CertificateDer<'static>>) -> Option<RootCertStore> {
    let mut store = RootCertStore::empty();
    let (added, _) = store.add_parsable_certificates(trusted);
    (added > 0).then_some(store)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    read.map_err(|error| format!("{}: {error}", path.display()))
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| format!("{}: {error}", path.display()))
}
