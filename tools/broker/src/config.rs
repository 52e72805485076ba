//! `broker.toml`: read strictly, and checked as far as that goes without opening a port.

use std::{
    fmt, fs,
    io::Read as _,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use bus_schema::id::{FleetId, NodeId, from_base32};
use serde::{Deserialize, Deserializer, de};
use zeroize::Zeroizing;

use crate::PACKET_BYTES_MAX;

/// Most connections `max_clients` may allow.
pub const CLIENTS_MAX: usize = 100_000;

/// Mode bits that let anyone but the owner at a file.
const OTHERS: u32 = 0o077;

/// A configuration or secret file that cannot be used: what is wrong, where, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1; 0 when the file as a whole is meant.
    pub line: usize,
    /// What is wrong, with the key.
    pub message: String,
    /// What to do about it; may be empty.
    pub hint: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        write!(f, ": {}", self.message)?;
        if !self.hint.is_empty() {
            write!(f, "\n  hint: {}", self.hint)?;
        }
        Ok(())
    }
}

/// What the broker serves, where, and within which limits.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The only fleet it serves.
    pub fleet: FleetId,
    /// The fleet's plane, which alone hears and answers candidates.
    pub plane: NodeId,
    /// A file with 32 random bytes in lower-case base32, readable by its owner only.
    pub secret_file: PathBuf,
    /// Where to listen without TLS; may be empty when there is TLS.
    #[serde(default = "loopback", deserialize_with = "addresses")]
    pub listen: Vec<SocketAddr>,
    /// Where to listen with TLS.
    #[serde(default)]
    pub tls: Option<Tls>,
    /// Where sessions outlive a restart. Without it no session outlives its connection.
    #[serde(default)]
    pub data_dir: Option<PathBuf>,
    /// Connections at a time.
    #[serde(default = "clients")]
    pub max_clients: usize,
    /// What may wait for one client that has stopped reading, in bytes.
    #[serde(default = "queued_bytes")]
    pub max_queued_bytes_per_client: usize,
    /// Logs.
    #[serde(default)]
    pub log: Log,
}

/// The TLS listener.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// Where to listen.
    #[serde(deserialize_with = "addresses")]
    pub listen: Vec<SocketAddr>,
    /// PEM file: the server's certificate first, then those that lead to the authority.
    pub cert: PathBuf,
    /// PEM file: its private key.
    pub key: PathBuf,
}

/// How logs look.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// For people or for machines.
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,mqtt5=debug`.
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

impl Default for Log {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            level: "info".to_string(),
        }
    }
}

fn loopback() -> Vec<SocketAddr> {
    vec![SocketAddr::from(([127, 0, 0, 1], 1883))]
}

fn clients() -> usize {
    1_000
}

fn queued_bytes() -> usize {
    8 * 1024 * 1024
}

impl Config {
    /// A broker with the default limits, without TLS or kept sessions, on 127.0.0.1:1883.
    pub fn new(fleet: FleetId, plane: NodeId, secret_file: impl Into<PathBuf>) -> Self {
        Self {
            fleet,
            plane,
            secret_file: secret_file.into(),
            listen: loopback(),
            tls: None,
            data_dir: None,
            max_clients: clients(),
            max_queued_bytes_per_client: queued_bytes(),
            log: Log::default(),
        }
    }

    /// Reads `broker.toml`. Paths in it that are not absolute start at its directory.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|error| ConfigError {
            file: path.to_path_buf(),
            line: 0,
            message: format!("cannot read the configuration: {error}"),
            hint: "`mycelial-plane init` writes one; `mycelial-broker --help` shows what is in it".to_string(),
        })?;
        Self::parse(path, &text)
    }

    /// Reads a configuration from a text. `file` is for messages and to start relative paths from.
    pub fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        let mut config: Self = toml::from_str(text).map_err(|error| mistake(file, text, &error))?;
        config.check().map_err(|(key, message, hint)| ConfigError {
            file: file.to_path_buf(),
            line: line_of_key(text, key),
            message: format!("{key}: {message}"),
            hint: hint.to_string(),
        })?;
        let base = file.parent().unwrap_or(Path::new(""));
        let paths = [Some(&mut config.secret_file), config.data_dir.as_mut()];
        let tls_paths = config.tls.as_mut().map(|tls| [&mut tls.cert, &mut tls.key]);
        for path in paths.into_iter().flatten().chain(tls_paths.into_iter().flatten()) {
            *path = base.join(&*path);
        }
        Ok(config)
    }

    /// What no single value shows: key, what is wrong with it, and what to do.
    fn check(&self) -> Result<(), (&'static str, String, &'static str)> {
        if self.listen.is_empty() && self.tls.as_ref().is_none_or(|tls| tls.listen.is_empty()) {
            return Err((
                "listen",
                "there is nowhere to listen".into(),
                "name an address here or under `tls`",
            ));
        }
        if !(1..=CLIENTS_MAX).contains(&self.max_clients) {
            let message = format!("{} is not between 1 and {CLIENTS_MAX}", self.max_clients);
            return Err(("max_clients", message, "a daemon holds two connections"));
        }
        if self.max_queued_bytes_per_client < PACKET_BYTES_MAX {
            let message = format!(
                "{} bytes are less than one packet, {PACKET_BYTES_MAX} bytes",
                self.max_queued_bytes_per_client
            );
            return Err((
                "max_queued_bytes_per_client",
                message,
                "8388608 (8 MiB) is a good start",
            ));
        }
        Ok(())
    }

    /// Reads the secret file, refusing one that others may read.
    pub fn secret(&self) -> Result<Zeroizing<[u8; 32]>, ConfigError> {
        let path = &self.secret_file;
        let wrong = |message: String, hint: String| ConfigError {
            file: path.clone(),
            line: 0,
            message,
            hint,
        };
        let unreadable = |error: std::io::Error| {
            wrong(
                format!("cannot read the broker's secret: {error}"),
                "`secret_file` names it; `mycelial-plane init` makes one".to_string(),
            )
        };
        let mut file = fs::File::open(path).map_err(unreadable)?;
        // Of the open file, not of the path: it cannot be exchanged in between.
        let mode = file.metadata().map_err(unreadable)?.permissions().mode();
        if mode & OTHERS != 0 {
            return Err(wrong(
                format!("others can read the broker's secret (mode {:03o})", mode & 0o777),
                format!("chmod 600 {}", path.display()),
            ));
        }
        let mut text = Zeroizing::new(String::new());
        file.read_to_string(&mut text).map_err(unreadable)?;
        let bytes = from_base32(text.trim_end()).map(Zeroizing::new);
        bytes
            .and_then(|bytes| bytes.as_slice().try_into().ok())
            .map(Zeroizing::new)
            .ok_or_else(|| {
                wrong(
                    "this is not a broker's secret: expected 52 characters of a-z and 2-7".to_string(),
                    "`mycelial-plane init` makes one".to_string(),
                )
            })
    }
}

/// One address, or a list of them.
fn addresses<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<SocketAddr>, D::Error> {
    struct Addresses;
    impl<'de> de::Visitor<'de> for Addresses {
        type Value = Vec<SocketAddr>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an address such as \"127.0.0.1:1883\", or a list of them")
        }
        fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
            Ok(vec![address(text)?])
        }
        fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut all = Vec::new();
            while let Some(text) = list.next_element::<String>()? {
                all.push(address(&text)?);
            }
            Ok(all)
        }
    }
    deserializer.deserialize_any(Addresses)
}

fn address<E: de::Error>(text: &str) -> Result<SocketAddr, E> {
    let expected = "is not an address and a port, such as 127.0.0.1:1883 or [::]:1883";
    text.parse().map_err(|_| E::custom(format_args!("'{text}' {expected}")))
}

/// Turns the parser's error into one with line, key and the nearest right key.
fn mistake(file: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    let start = error.span().map(|span| span.start.min(text.len()));
    let said = error.message().lines().collect::<Vec<_>>().join("; ");
    let unknown = said.starts_with("unknown field") || said.starts_with("unknown variant");
    let missing = said.starts_with("missing field");
    let key = start
        .filter(|_| !unknown && !missing)
        .and_then(|start| key_before(text, start));
    ConfigError {
        file: file.to_path_buf(),
        line: match start {
            // A missing key is nowhere; the parser then points at the whole table.
            Some(start) if !(missing && start == 0) => text[..start].matches('\n').count() + 1,
            _ => 0,
        },
        hint: if unknown { nearest(&said) } else { String::new() },
        message: match key {
            Some(key) => format!("{key}: {said}"),
            None => said,
        },
    }
}

/// The key whose value stands at `start`.
fn key_before(text: &str, start: usize) -> Option<&str> {
    let line = text[..start].rsplit('\n').next()?;
    let (before, _) = line.rsplit_once('=')?;
    let key = before
        .trim_end()
        .rsplit(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-'))
        .next()?;
    (!key.is_empty()).then_some(key)
}

/// The line, from 1, that sets a top-level key; 0 when none does.
fn line_of_key(text: &str, key: &str) -> usize {
    let sets = |line: &str| {
        line.trim_start()
            .strip_prefix(key)
            .is_some_and(|rest| rest.trim_start().starts_with('='))
    };
    text.lines().position(sets).map_or(0, |index| index + 1)
}

/// serde lists what it would have taken, all in backticks: names the closest to what was there.
fn nearest(said: &str) -> String {
    let mut quoted = said.split('`').skip(1).step_by(2);
    let Some(wrong) = quoted.next() else {
        return String::new();
    };
    let close = quoted.map(|right| (edits(wrong, right), right)).min();
    match close {
        Some((distance, right)) if distance <= wrong.len().max(right.len()).div_ceil(3) => {
            format!("did you mean `{right}`?")
        }
        _ => String::new(),
    }
}

/// Levenshtein distance in bytes: keys are ASCII.
fn edits(a: &str, b: &str) -> usize {
    let b = b.as_bytes();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = "fleet = 'aaaaaaaaaaaaaaaa'\nplane = 'bbbbbbbbbbbbbbbb'\nsecret_file = 's'\n";

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(Path::new("/etc/mycelial/broker.toml"), text)
    }

    #[test]
    fn defaults_and_relative_paths() {
        let config = parse(MINIMAL).unwrap();
        let mut expected = Config::new(config.fleet, config.plane, "/etc/mycelial/s");
        assert_eq!(config, expected);

        let rest = "listen = ['127.0.0.1:1', '[::1]:2']\ndata_dir = '/data'\nmax_clients = 3\n\
            tls = { listen = '127.0.0.1:3', cert = 'c.pem', key = 'tls/k.pem' }\nlog.format = 'json'\n";
        let config = parse(&format!("{MINIMAL}{rest}")).unwrap();
        expected.listen = vec!["127.0.0.1:1".parse().unwrap(), "[::1]:2".parse().unwrap()];
        expected.data_dir = Some("/data".into());
        expected.max_clients = 3;
        expected.tls = Some(Tls {
            listen: vec!["127.0.0.1:3".parse().unwrap()],
            cert: "/etc/mycelial/c.pem".into(),
            key: "/etc/mycelial/tls/k.pem".into(),
        });
        expected.log.format = LogFormat::Json;
        assert_eq!(config, expected);
    }

    #[test]
    fn the_example_is_complete_and_true() {
        let shown = parse(crate::EXAMPLE).unwrap();
        let expected = Config::new(shown.fleet, shown.plane, "/etc/mycelial/broker.secret");
        assert_eq!(shown, expected, "the example shows the defaults");
        let uncommented = crate::EXAMPLE
            .replace("# tls = ", "tls = ")
            .replace("# data_dir = ", "data_dir = ");
        let config = parse(&uncommented).unwrap();
        assert!(config.tls.is_some() && config.data_dir.is_some());
    }

    #[test]
    fn a_mistake_names_line_key_and_what_was_meant() {
        for (rest, line, message, hint) in [
            (
                "lisen = '127.0.0.1:1'",
                4,
                "unknown field `lisen`",
                "did you mean `listen`?",
            ),
            (
                "\nmax_client = 3",
                5,
                "unknown field `max_client`",
                "did you mean `max_clients`?",
            ),
            ("zzzzzzzzz = 3", 4, "unknown field `zzzzzzzzz`", ""),
            (
                "listen = 'localhost'",
                4,
                "listen: 'localhost' is not an address and a port",
                "",
            ),
            ("listen = ['127.0.0.1:1', 'x']", 4, "listen: 'x' is not an address", ""),
            ("listen = 1883", 4, "listen: invalid type", ""),
            ("listen = []", 4, "listen: there is nowhere to listen", "under `tls`"),
            (
                "listen = []\ntls = { listen = [], cert = 'c', key = 'k' }",
                4,
                "nowhere to listen",
                "under `tls`",
            ),
            (
                "tls = { listen = '127.0.0.1:1', cert = 'c' }",
                4,
                "missing field `key`",
                "",
            ),
            (
                "tls = { listen = 'x', cert = 'c', key = 'k' }",
                4,
                "listen: 'x' is not",
                "",
            ),
            (
                "tls = { lstn = 'x' }",
                4,
                "unknown field `lstn`",
                "did you mean `listen`?",
            ),
            (
                "max_clients = 0",
                4,
                "max_clients: 0 is not between 1 and 100000",
                "two connections",
            ),
            ("max_clients = -1", 4, "max_clients: invalid value", ""),
            ("max_clients = 'many'", 4, "max_clients: invalid type", ""),
            (
                "max_queued_bytes_per_client = 5",
                4,
                "max_queued_bytes_per_client: 5 bytes are less",
                "8388608",
            ),
            (
                "log = { format = 'jsn' }",
                4,
                "unknown variant `jsn`",
                "did you mean `json`?",
            ),
            (
                "[log]\nlevle = 'x'",
                5,
                "unknown field `levle`",
                "did you mean `level`?",
            ),
            ("fleet = 'x'", 4, "duplicate key", ""),
            ("listen = ", 4, "", ""),
        ] {
            let error = parse(&format!("{MINIMAL}{rest}")).unwrap_err();
            assert_eq!(error.line, line, "{rest}: {error}");
            assert!(error.message.contains(message), "{rest}: {error}");
            assert!(
                error.hint.contains(hint) && error.hint.is_empty() == hint.is_empty(),
                "{rest}: {error}"
            );
            assert!(
                error
                    .to_string()
                    .starts_with(&format!("/etc/mycelial/broker.toml:{line}: ")),
                "{error}"
            );
        }
        for (text, message) in [
            ("", "/etc/mycelial/broker.toml: missing field `fleet`"),
            (
                "fleet = 'Nope'",
                "/etc/mycelial/broker.toml:1: fleet: 'Nope' is not a fleet id",
            ),
            (
                "fleet = 'aaaaaaaaaaaaaaaa'\nplane = 7",
                "/etc/mycelial/broker.toml:2: plane: invalid type",
            ),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
        }
    }

    #[test]
    fn the_secret_is_whole_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let good = bus_schema::id::base32(&[7; 32]);
        for (text, mode, expected) in [
            (format!("{good}\n"), 0o600, None),
            (good.clone(), 0o400, None),
            (
                good.clone(),
                0o640,
                Some("others can read the broker's secret (mode 640)"),
            ),
            (good.clone(), 0o604, Some("chmod 600")),
            (good[1..].to_string(), 0o600, Some("not a broker's secret")),
            (format!("{good}{good}"), 0o600, Some("not a broker's secret")),
            (good.to_uppercase(), 0o600, Some("not a broker's secret")),
            (String::new(), 0o600, Some("not a broker's secret")),
        ] {
            let path = dir.path().join("secret");
            drop(fs::remove_file(&path));
            fs::write(&path, &text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let config = Config {
                secret_file: path,
                ..parse(MINIMAL).unwrap()
            };
            match (config.secret(), expected) {
                (Ok(secret), None) => assert_eq!(*secret, [7; 32]),
                (Err(error), Some(expected)) => {
                    let error = error.to_string();
                    assert!(error.contains(expected), "{error}");
                    assert!(text.is_empty() || !error.contains(&text), "the secret is not shown");
                }
                (found, expected) => panic!("{text} {mode:o}: {found:?}, not {expected:?}"),
            }
        }
        let error = parse(MINIMAL).unwrap().secret().unwrap_err().to_string();
        assert!(
            error.starts_with("/etc/mycelial/s: cannot read the broker's secret"),
            "{error}"
        );
    }
}
