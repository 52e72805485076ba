//! `plane.toml`, read strictly, and what follows from it: how the plane reaches the bus, and what members are told.
//! Opens no connection.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use bus_link::{
    BusAddress, BusConfig,
    place::{BusSection, Known, PlaceError},
    settings::{self, SettingsError},
};
use bus_schema::{
    access::User,
    id::{NodeId, from_base32},
    member::BrokerLogin,
    redact::{self, Redact},
};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::{
    invite::{Inviter, Logins},
    notify::AlertsSection,
    oidc::OidcSection,
    otlp::OtlpSection,
    store::history,
};

/// The settings' file name inside the plane's directory.
pub const FILE: &str = "plane.toml";
/// The store's.
pub const STORE: &str = "plane.db";
/// Shortest token for metrics, in bytes.
const TOKEN_BYTES_MIN: usize = 16;
/// Where the web page listens unless told.
pub const HTTP: &str = "127.0.0.1:7777";

/// `plane.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where the web page listens.
    pub http: String,
    /// Names besides the address itself under which browsers may open the page (a reverse proxy's).
    pub http_names: Vec<String>,
    /// A file whose first line Prometheus has to show at `/metrics`; without it there are no metrics.
    pub metrics_token_file: Option<PathBuf>,
    /// How the plane reaches the bus.
    pub bus: BusSection,
    /// The embedded broker, if there is one.
    pub broker: Option<BrokerSection>,
    /// What enrolment strings tell members.
    pub members: MembersSection,
    /// Logs.
    pub log: LogSection,
    /// History of metrics.
    pub metrics: MetricsSection,
    /// Whom alerts are told to.
    pub alerts: AlertsSection,
    /// What the page may beyond the plane's own business.
    pub web: WebSection,
}

/// `[web]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebSection {
    /// The plane holds the keys of an operator of its own, so that the page can show records and set secrets.
    pub operator: bool,
    /// Columns whose values the page never shows: names, with `*` at their beginning or end for anything.
    pub redact: Vec<String>,
    /// TLS with a certificate that is made here, and vouches for itself.
    pub tls: bool,
    /// TLS with the certificate in this PEM file: its chain, the page's own first.
    pub tls_cert: Option<PathBuf>,
    /// The certificate's private key, PEM.
    pub tls_key: Option<PathBuf>,
    /// Addresses of proxies before the page: these are believed when they say whose request it is (`X-Forwarded-For`) and whether it
    /// came with TLS (`X-Forwarded-Proto`).
    pub proxies: Vec<IpAddr>,
    /// People log in at an OpenID Connect provider.
    pub oidc: Option<OidcSection>,
}

impl WebSection {
    /// Whether browsers reach the page with TLS.
    pub fn has_tls(&self) -> bool {
        self.tls || self.tls_cert.is_some()
    }

    /// How addresses of the page begin.
    pub fn scheme(&self) -> &'static str {
        if self.has_tls() { "https" } else { "http" }
    }
}

impl Default for WebSection {
    fn default() -> Self {
        Self {
            operator: false,
            redact: redact::USUAL.map(str::to_string).to_vec(),
            tls: false,
            tls_cert: None,
            tls_key: None,
            proxies: Vec::new(),
            oidc: None,
        }
    }
}

/// `[metrics]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsSection {
    /// Bytes that the history of metrics may take on disk, in a file of its own.
    pub history_bytes: u64,
    /// Where metrics are pushed to.
    pub otlp: Option<OtlpSection>,
}

impl Default for MetricsSection {
    fn default() -> Self {
        Self {
            history_bytes: history::BUDGET_BYTES,
            otlp: None,
        }
    }
}

/// `[broker]`: the embedded broker, for which the plane makes log-ins.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrokerSection {
    /// The file with the secret it shares with the broker.
    pub secret_file: PathBuf,
}

/// `[members]`: how members reach the bus, where that differs from how the plane does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MembersSection {
    /// Bus addresses as members see them; the plane's own when empty.
    pub addresses: Vec<String>,
    /// A user all members share, at a broker of your own.
    pub user: Option<String>,
    /// A file whose first line is that user's password.
    pub password_file: Option<PathBuf>,
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogSection {
    /// `text` or `json`.
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,plane=debug`.
    pub level: String,
}

/// How a line of log looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines: a JSON object a line.
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            http: HTTP.to_string(),
            http_names: Vec::new(),
            metrics_token_file: None,
            bus: BusSection::default(),
            broker: None,
            members: MembersSection::default(),
            log: LogSection::default(),
            metrics: MetricsSection::default(),
            alerts: AlertsSection::default(),
            web: WebSection::default(),
        }
    }
}

impl Default for LogSection {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            level: "info".to_string(),
        }
    }
}

/// The settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not what `plane.toml` may hold.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// See [`PlaceError`].
    #[error("{file}: {source}")]
    Place {
        /// The settings' file.
        file: String,
        /// What is wrong.
        source: PlaceError,
    },
    /// A file that the settings name cannot be used.
    #[error("{key} = {path}: {message}", path = .path.display())]
    File {
        /// The key that names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        message: String,
    },
}

impl Config {
    /// Reads `plane.toml` in the plane's directory. Paths in it start there.
    pub fn read(dir: &Path) -> Result<Self, ConfigError> {
        let path = dir.join(FILE);
        let (file, text) = (path.display().to_string(), settings::text(&path)?);
        let mut config: Self = settings::parse(&file, &text)?;
        config.start_paths_at(dir);
        let wrong = |message| settings::mistake(&file, &text, message, "");
        config.check().map_err(wrong)?;
        Ok(config)
    }

    fn start_paths_at(&mut self, dir: &Path) {
        let bus = &mut self.bus;
        let optional = [
            &mut bus.password_file,
            &mut bus.nats_creds,
            &mut bus.ca,
            &mut bus.client_cert,
            &mut bus.client_key,
            &mut self.members.password_file,
            &mut self.metrics_token_file,
            &mut self.web.tls_cert,
            &mut self.web.tls_key,
        ];
        let secret = self.broker.as_mut().map(|broker| &mut broker.secret_file);
        for path in optional.into_iter().filter_map(Option::as_mut).chain(secret) {
            *path = dir.join(&*path);
        }
    }

    /// What is wrong with the settings as a whole, beginning with the key.
    fn check(&self) -> Result<(), String> {
        if self.bus.addresses.is_empty() {
            return Err("bus.addresses: name at least one broker, for example [\"mqtt://127.0.0.1:1883\"]".to_string());
        }
        self.bus.check().map_err(|error| error.to_string())?;
        for address in &self.members.addresses {
            if let Err(error) = address.parse::<BusAddress>() {
                return Err(format!("members.addresses: {error}"));
            }
        }
        if self.members.user.is_some() != self.members.password_file.is_some() {
            return Err("members.user and members.password_file belong together: set both or neither".to_string());
        }
        if self.broker.is_some() && (self.bus.user.is_some() || self.members.user.is_some()) {
            let message =
                "broker: with the embedded broker everybody has a log-in of its own: remove bus.user and members.user";
            return Err(message.to_string());
        }
        if self.metrics.history_bytes < history::BUDGET_BYTES_MIN {
            let least = history::BUDGET_BYTES_MIN;
            return Err(format!(
                "metrics.history_bytes: the history needs at least {least} bytes"
            ));
        }
        self.metrics.otlp.as_ref().map_or(Ok(()), OtlpSection::check)?;
        self.alerts.check()?;
        if self.web.tls_cert.is_some() != self.web.tls_key.is_some() {
            return Err("web.tls_cert and web.tls_key belong together: set both or neither".to_string());
        }
        self.web.oidc.as_ref().map_or(Ok(()), OidcSection::check)?;
        Redact::new(&self.web.redact).map_err(|wrong| format!("web.redact: {wrong}"))?;
        if self.http.parse::<std::net::SocketAddr>().is_err() {
            return Err(format!(
                "http: '{}' is not an address and a port, such as {HTTP}",
                self.http
            ));
        }
        Ok(())
    }

    /// Where members' log-ins come from.
    fn logins(&self) -> Result<Logins, ConfigError> {
        if let Some(broker) = &self.broker {
            return Ok(Logins::Embedded(read_secret(&broker.secret_file)?));
        }
        let (Some(user), Some(path)) = (&self.members.user, &self.members.password_file) else {
            return Ok(Logins::None);
        };
        let text = read("members.password_file", path)?;
        let password = text.lines().next().unwrap_or_default().to_string();
        Ok(Logins::Shared(BrokerLogin {
            user: user.clone(),
            password,
        }))
    }

    /// What Prometheus has to show.
    pub fn metrics_token(&self) -> Result<Option<Zeroizing<String>>, ConfigError> {
        let Some(path) = &self.metrics_token_file else {
            return Ok(None);
        };
        let text = Zeroizing::new(read("metrics_token_file", path)?);
        let token = text.lines().next().unwrap_or_default().trim();
        if token.len() < TOKEN_BYTES_MIN {
            return Err(ConfigError::File {
                key: "metrics_token_file",
                path: path.clone(),
                message: format!(
                    "its first line is no token: it needs at least {TOKEN_BYTES_MIN} characters; make one with: openssl rand -hex 16"
                ),
            });
        }
        Ok(Some(Zeroizing::new(token.to_string())))
    }

    /// What members are told.
    pub fn inviter(&self, public: &Public) -> Result<Inviter, ConfigError> {
        let Public {
            root,
            plane,
            plane_seal,
        } = *public;
        let own = &self.members.addresses;
        let bus = if own.is_empty() {
            self.bus.addresses.clone()
        } else {
            own.clone()
        };
        let ca = self.bus.ca.as_deref().map(read_ca).transpose()?;
        Ok(Inviter {
            root,
            plane,
            plane_seal,
            bus,
            ca,
            logins: self.logins()?,
        })
    }

    /// How the plane connects.
    pub fn bus_config(&self, dir: &Path, plane: &NodeId, inviter: &Inviter) -> Result<BusConfig, ConfigError> {
        // At the embedded broker the plane is a node like any other.
        let login = match &inviter.logins {
            Logins::Embedded(_) => inviter.logins.of_member(plane),
            Logins::Shared(_) | Logins::None => None,
        };
        let known = Known {
            addresses: Vec::new(),
            ca: None,
            login,
        };
        let file = || dir.join(FILE).display().to_string();
        let client = User::Node(*plane).name();
        self.bus
            .resolve(&known, &client)
            .map_err(|source| ConfigError::Place { file: file(), source })
    }
}

/// What anybody may know of the plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, Deserialize)]
pub struct Public {
    /// The fleet's root key.
    pub root: [u8; 32],
    /// The plane's id.
    pub plane: NodeId,
    /// The plane's X25519 key.
    pub plane_seal: [u8; 32],
}

fn file_error(key: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ConfigError {
    let path = path.to_path_buf();
    move |error| ConfigError::File {
        key,
        path,
        message: format!("cannot read it: {error}"),
    }
}

fn read(key: &'static str, path: &Path) -> Result<Zeroizing<String>, ConfigError> {
    fs::read_to_string(path)
        .map(Zeroizing::new)
        .map_err(file_error(key, path))
}

fn read_secret(path: &Path) -> Result<Zeroizing<[u8; 32]>, ConfigError> {
    let key = "broker.secret_file";
    let text = read(key, path)?;
    let bytes = from_base32(text.trim_end()).map(Zeroizing::new);
    let secret = bytes
        .and_then(|bytes| <[u8; 32]>::try_from(bytes.as_slice()).ok())
        .map(Zeroizing::new);
    secret.ok_or_else(|| {
        let message = "this is not a broker's secret: expected 52 characters of a-z and 2-7".to_string();
        ConfigError::File {
            key,
            path: path.to_path_buf(),
            message,
        }
    })
}

fn read_ca(path: &Path) -> Result<Vec<u8>, ConfigError> {
    let key = "bus.ca";
    let pem = fs::read(path).map_err(file_error(key, path))?;
    let certificate = CertificateDer::from_pem_slice(&pem).map_err(|_| ConfigError::File {
        key,
        path: path.to_path_buf(),
        message: "no certificate in it: it must be PEM, beginning with '-----BEGIN CERTIFICATE-----'".to_string(),
    })?;
    Ok(certificate.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Config, String> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), text).unwrap();
        Config::read(dir.path()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_mistake_names_file_line_key_and_the_nearest_right_key() {
        for (text, expected) in [
            ("", "plane.toml: bus.addresses: name at least one broker"),
            ("htpp = 'x'", "plane.toml:1: unknown field `htpp`"),
            ("htpp = 'x'", "did you mean `http`?"),
            (
                "[bus]\naddresses = ['mqtt://a']\n\n[log]\nlevle = 'x'",
                "plane.toml:5: unknown field `levle`",
            ),
            ("[log]\nformat = 'jsn'", "did you mean `json`?"),
            ("web.proxies = ['localhost']", "plane.toml:1: web.proxies"),
            (
                "[bus]\naddresses = ['127.0.0.1']",
                "bus.addresses: '127.0.0.1' has no scheme",
            ),
            (
                "http = 'localhost'\n[bus]\naddresses = ['mqtt://a']",
                "http: 'localhost' is not an address and a port",
            ),
            (
                "[bus]\naddresses = ['mqtt://a']\nuser = 'x'",
                "bus.user and bus.password_file belong together",
            ),
            (
                "[bus]\naddresses = ['mqtt://a']\n[members]\nuser = 'x'",
                "plane.toml:4: members.user and members.password_file belong together",
            ),
            (
                "[bus]\naddresses = ['mqtt://a']\n[members]\naddresses = ['a']",
                "members.addresses: 'a' has no scheme",
            ),
            (
                "broker.secret_file = 's'\n[bus]\naddresses = ['mqtt://a']\nuser = 'x'\npassword_file = 'y'",
                "broker: with the embedded broker everybody has a log-in of its own",
            ),
            (
                "[bus]\naddresses = ['mqtt://a']\n[web]\ntls_cert = 'a.pem'",
                "plane.toml:4: web.tls_cert and web.tls_key belong together",
            ),
            (
                "[bus]\naddresses = ['mqtt://a']\n[web]\nredact = ['a*b']",
                "plane.toml:4: web.redact: 'a*b' is no pattern",
            ),
            ("not toml", "plane.toml:1: "),
        ] {
            let error = read_text(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
        let missing = Config::read(Path::new("/nowhere")).unwrap_err().to_string();
        assert!(
            missing.contains("/nowhere/plane.toml: cannot read the file"),
            "{missing}"
        );
    }

    #[test]
    fn paths_start_at_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let text = "broker.secret_file = 's'\n[bus]\naddresses = ['mqtts://a']\nca = '/etc/ca.pem'\n";
        fs::write(dir.path().join(FILE), text).unwrap();
        let config = Config::read(dir.path()).unwrap();
        assert_eq!(
            config.broker.map(|broker| broker.secret_file),
            Some(dir.path().join("s"))
        );
        assert_eq!(config.bus.ca, Some("/etc/ca.pem".into()));
        assert_eq!(config.http, HTTP);
    }

    #[test]
    fn what_members_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let public = Public {
            root: [1; 32],
            plane: NodeId::from_hash(&[2; 32]),
            plane_seal: [3; 32],
        };
        let secret = bus_schema::id::base32(&[7; 32]);
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        let told = |text: &str| {
            write(FILE, text);
            Config::read(dir.path())
                .and_then(|config| config.inviter(&public))
                .map_err(|error| error.to_string())
        };
        let embedded = "broker.secret_file = 's'\n[bus]\naddresses = ['mqtt://127.0.0.1:1']\n";
        assert!(told(embedded).unwrap_err().contains("broker.secret_file = "));
        write("s", "short");
        assert!(told(embedded).unwrap_err().contains("not a broker's secret"));
        write("s", &secret);
        let inviter = told(embedded).unwrap();
        assert_eq!(inviter.bus, ["mqtt://127.0.0.1:1"]);
        assert!(inviter.logins.of_member(&public.plane).is_some());
        write("p", "hunter2\nrest");
        let shared = "[bus]\naddresses = ['mqtt://a']\n[members]\naddresses = ['mqtt://b']\nuser = 'fleet'\npassword_file = 'p'\n";
        let inviter = told(shared).unwrap();
        assert_eq!(inviter.bus, ["mqtt://b"]);
        let login = inviter.logins.of_member(&public.plane).unwrap();
        assert_eq!((login.user.as_str(), login.password.as_str()), ("fleet", "hunter2"));
        write("ca.pem", "nonsense");
        let ca = "[bus]\naddresses = ['mqtts://a']\nca = 'ca.pem'\n";
        assert!(told(ca).unwrap_err().contains("no certificate in it"));
    }
}
