//! Reaching a PostgreSQL server: address, credentials, TLS. Knows no table.

use std::{
    error::Error as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use flow::{ConfigError, Fault};
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio_postgres::{Client, config::SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::secret::{Secret, SecretRef};

const CONNECT_WAIT: Duration = Duration::from_secs(10);
/// An idle connection is probed after this, so that a gateway behind a NAT notices a dead one.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;
/// Bytes nobody acknowledges for this long end the connection.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(30);
/// Where systems keep the authorities they trust.
const SYSTEM_AUTHORITIES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Where the server is and who we are there.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Server {
    pub url: Option<SecretRef>,
    pub host: Option<String>,
    pub port: Option<u16>,
    pub user: Option<String>,
    pub database: Option<String>,
    pub password: Option<SecretRef>,
    pub tls: Tls,
}

/// How the connection is protected.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tls {
    /// How much TLS to insist on.
    #[serde(default)]
    pub mode: TlsMode,
    /// PEM file with the authorities that may vouch for the server. Default: those the system trusts.
    /// A relative path starts in the daemon's directory.
    pub ca_file: Option<PathBuf>,
}

/// How much TLS to insist on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum TlsMode {
    /// None: everybody on the way can read and change everything.
    Disable,
    /// Encrypted, but to whoever answers: safe from listeners only.
    Require,
    /// Encrypted, and the server proves that it has the name we called.
    #[default]
    VerifyFull,
}

impl Server {
    /// Finds what can be found wrong without connecting.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let parts = [
            ("host", self.host.is_some()),
            ("port", self.port.is_some()),
            ("user", self.user.is_some()),
            ("database", self.database.is_some()),
            ("password", self.password.is_some()),
        ];
        match (&self.url, parts.iter().find(|(_, given)| *given)) {
            (Some(_), Some((key, _))) => {
                return Err(ConfigError::at(*key, "belongs into the url, or leave the url out"));
            }
            (Some(SecretRef::Plain(url)), None) => {
                parse_url(url).map_err(|message| ConfigError::at("url", message))?;
            }
            (Some(_), None) => {}
            (None, _) if self.host.as_deref().is_none_or(str::is_empty) => {
                return Err(ConfigError::at(
                    "host",
                    "is missing: give host, user and database, or a url",
                ));
            }
            (None, _) => {
                for (key, value) in [("user", &self.user), ("database", &self.database)] {
                    if value
                        .as_deref()
                        .is_none_or(|value| value.is_empty() || value.contains('\0'))
                    {
                        return Err(ConfigError::at(key, "is missing"));
                    }
                }
            }
        }
        self.tls.check()
    }

    fn config(&self, base_dir: &Path) -> Result<tokio_postgres::Config, Fault> {
        let fetch = |secret: &SecretRef| -> Result<Secret, Fault> {
            secret.fetch(base_dir).map_err(|error| Fault::retry(error.to_string()))
        };
        let mut config = match &self.url {
            Some(url) => {
                parse_url(fetch(url)?.expose()).map_err(|message| Fault::retry(format!("the url {message}")))?
            }
            None => {
                let mut config = tokio_postgres::Config::new();
                config.host(self.host.clone().unwrap_or_default());
                config.port(self.port.unwrap_or(5432));
                config.user(self.user.clone().unwrap_or_default());
                config.dbname(self.database.clone().unwrap_or_default());
                if let Some(password) = &self.password {
                    config.password(fetch(password)?.expose());
                }
                config
            }
        };
        config
            .ssl_mode(if self.tls.mode == TlsMode::Disable {
                SslMode::Disable
            } else {
                SslMode::Require
            })
            .connect_timeout(CONNECT_WAIT)
            .keepalives_idle(KEEPALIVE_IDLE)
            .keepalives_interval(KEEPALIVE_INTERVAL)
            .keepalives_retries(KEEPALIVE_RETRIES)
            .tcp_user_timeout(UNACKNOWLEDGED_MAX);
        Ok(config)
    }

    /// What a connection of another kind needs: settings, TLS, and the place for messages.
    pub(super) fn parts(
        &self,
        base_dir: &Path,
        name: &str,
    ) -> Result<(tokio_postgres::Config, ClientConfig, String), Fault> {
        let mut config = self.config(base_dir)?;
        config.application_name(name);
        let place = place(&config);
        Ok((config, self.tls.client_config(base_dir)?, place))
    }

    /// Connects, and names the place for messages. A task drives the connection until the client is dropped.
    pub(super) async fn connect(&self, base_dir: &Path, name: &str) -> Result<(Client, String), Fault> {
        let parts = self.parts(base_dir, name)?;
        let place = parts.2.clone();
        let client = dial(parts).await.map_err(|error| {
            let hint = match self.tls.mode {
                TlsMode::Disable => "",
                _ if error.to_string().contains("TLS") => {
                    " (a server without TLS needs tls.mode = \"disable\", one with a certificate of its own tls.ca_file)"
                }
                _ => "",
            };
            Fault::retry(format!("cannot connect to PostgreSQL at {place}: {}{hint}", explain(&error)))
        })?;
        Ok((client, place))
    }
}

/// Connects. A task drives the connection until the client is dropped.
pub(super) async fn dial(
    (config, tls, place): (tokio_postgres::Config, ClientConfig, String),
) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = Box::pin(config.connect(MakeRustlsConnect::new(tls))).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(server = place, error = explain(&error), "connection ended");
        }
    });
    Ok(client)
}

/// Reads a URL. What is wrong with one is not repeated: it may be a part of the password.
fn parse_url(url: &str) -> Result<tokio_postgres::Config, String> {
    if url.contains("sslmode=") {
        return Err("has sslmode in it: set tls.mode instead".to_string());
    }
    let form = "postgres://USER:PASSWORD@HOST:PORT/DATABASE";
    let config: tokio_postgres::Config = url
        .parse()
        .map_err(|_| format!("is not of the form {form} (special characters in the password are written as %XX)"))?;
    if config.get_hosts().is_empty() || config.get_user().is_none() {
        return Err(format!("names no host or no user: it has to be of the form {form}"));
    }
    Ok(config)
}

/// `host:port/database`, without credentials.
fn place(config: &tokio_postgres::Config) -> String {
    let hosts = config.get_hosts().iter().enumerate().map(|(index, host)| {
        let port = config
            .get_ports()
            .get(index)
            .or(config.get_ports().first())
            .copied()
            .unwrap_or(5432);
        match host {
            tokio_postgres::config::Host::Tcp(host) => format!("{host}:{port}"),
            tokio_postgres::config::Host::Unix(path) => path.display().to_string(),
        }
    });
    let hosts = hosts.collect::<Vec<_>>().join(",");
    format!(
        "{hosts}/{}",
        config.get_dbname().or(config.get_user()).unwrap_or_default()
    )
}

/// An error with its causes: tokio-postgres says only "db error" by itself.
pub(super) fn explain(error: &tokio_postgres::Error) -> String {
    if let Some(error) = error.as_db_error() {
        let detail = error.detail().map(|detail| format!(" ({detail})")).unwrap_or_default();
        return format!("{}{detail}", error.message());
    }
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

impl Tls {
    fn client_config(&self, base_dir: &Path) -> Result<ClientConfig, Fault> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let algorithms = provider.signature_verification_algorithms;
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider) as Arc<CryptoProvider>)
            .with_safe_default_protocol_versions()
            .map_err(|error| Fault::stop(format!("TLS cannot be set up: {error}")))?;
        Ok(match self.mode {
            // The connector is made but not used for Disable.
            TlsMode::Disable | TlsMode::Require => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AnyServer(algorithms)))
                .with_no_client_auth(),
            TlsMode::VerifyFull => builder
                .with_root_certificates(self.authorities(base_dir)?)
                .with_no_client_auth(),
        })
    }

    /// Whether the settings go together.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if self.ca_file.is_some() && self.mode != TlsMode::VerifyFull {
            return Err(ConfigError::at(
                "tls.ca_file",
                "is of no use unless tls.mode = \"verify-full\"",
            ));
        }
        Ok(())
    }

    fn authorities(&self, base_dir: &Path) -> Result<RootCertStore, Fault> {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(self.usable(base_dir)?);
        Ok(store)
    }

    /// The certificates of the authorities to trust, each in DER; there is at least one.
    pub(crate) fn authorities_der(&self, base_dir: &Path) -> Result<Vec<Vec<u8>>, Fault> {
        let usable = self.usable(base_dir)?;
        Ok(usable.into_iter().map(|certificate| certificate.to_vec()).collect())
    }

    fn usable(&self, base_dir: &Path) -> Result<Vec<CertificateDer<'static>>, Fault> {
        let file = match &self.ca_file {
            Some(file) => base_dir.join(file),
            None => SYSTEM_AUTHORITIES
                .iter()
                .map(PathBuf::from)
                .find(|file| file.exists())
                .ok_or_else(|| Fault::retry("this system has no list of trusted authorities: set tls.ca_file"))?,
        };
        let shown = file.display();
        let mut certificates = CertificateDer::pem_file_iter(&file)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| Fault::retry(format!("cannot read authorities from {shown}: {error}")))?;
        certificates.retain(|certificate| RootCertStore::empty().add(certificate.clone()).is_ok());
        match certificates.is_empty() {
            true => Err(Fault::retry(format!("there is no usable certificate in {shown}"))),
            false => Ok(certificates),
        }
    }
}

/// Takes any certificate, but makes sure that the server has its key.
#[derive(Debug)]
struct AnyServer(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
