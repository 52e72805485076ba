//! How a connection is to be protected, as it stands in configs, and what that takes from files. Speaks no protocol.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use flow::ConfigError;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    certificate::{Known, Own, Trust, Unusable, fingerprint},
    security::{Mode, POLICIES, Policy},
};

/// How the connection is protected.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Security {
    /// What is done with messages.
    #[serde(default)]
    mode: ModeWord,
    /// The security policy. Without it, the strongest that the server offers.
    policy: Option<PolicyWord>,
    /// Certificate (PEM or DER) to show to the server. Its alternative names have a URI.
    cert_file: Option<PathBuf>,
    /// Its private key (RSA; PEM or DER, without a password).
    key_file: Option<PathBuf>,
    /// The server's certificate (PEM or DER): nobody who shows another is spoken with.
    server_cert_file: Option<PathBuf>,
    /// SHA-256 of the server's certificate in hexadecimal, instead of the file.
    server_fingerprint: Option<String>,
}

/// What is done with messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum ModeWord {
    /// They are signed, and encrypted.
    #[default]
    SignAndEncrypt,
    /// They are signed: everybody on the line can read them, and nobody change them. A password is encrypted.
    Sign,
    /// Nothing. A password is encrypted.
    None,
}

/// A security policy, by the name that the specification has for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
enum PolicyWord {
    /// AES-256, RSA with PSS and OAEP (SHA-256).
    #[serde(rename = "Aes256_Sha256_RsaPss")]
    Aes256,
    /// AES-256, RSA with PKCS #1 and OAEP (SHA-1).
    Basic256Sha256,
    /// AES-128, RSA with PKCS #1 and OAEP (SHA-1).
    #[serde(rename = "Aes128_Sha256_RsaOaep")]
    Aes128,
}

impl Security {
    fn mode(&self) -> Mode {
        match self.mode {
            ModeWord::None => Mode::None,
            ModeWord::Sign => Mode::Sign,
            ModeWord::SignAndEncrypt => Mode::SignAndEncrypt,
        }
    }

    fn policy(&self) -> Option<&'static Policy> {
        let name = match self.policy? {
            PolicyWord::Aes256 => "Aes256_Sha256_RsaPss",
            PolicyWord::Basic256Sha256 => "Basic256Sha256",
            PolicyWord::Aes128 => "Aes128_Sha256_RsaOaep",
        };
        POLICIES.iter().find(|policy| policy.name == name)
    }

    /// Whether its keys go together. Which certificate is the server's may be left out: the connection is refused then, with
    /// the fingerprint that was met.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let at = |key: &str, message: &str| Err(ConfigError::at(format!("security.{key}"), message));
        let is_protected = self.mode() != Mode::None;
        for (key, is_there) in [
            ("cert_file", self.cert_file.is_some()),
            ("key_file", self.key_file.is_some()),
        ] {
            if is_protected && !is_there {
                return at(
                    key,
                    "is missing: servers take protected connections of those only who have a certificate",
                );
            }
            if !is_protected && is_there {
                return at(key, "is of no use with mode = \"none\"");
            }
        }
        if !is_protected && self.policy.is_some() {
            return at("policy", "is of no use with mode = \"none\"");
        }
        if let Some(text) = &self.server_fingerprint {
            if fingerprint(text).is_none() {
                return at("server_fingerprint", "is no SHA-256: write its 64 digits");
            }
            if self.server_cert_file.is_some() {
                return at(
                    "server_fingerprint",
                    "the certificate itself is named as well: one of them will do",
                );
            }
        }
        Ok(())
    }

    /// Reads the files, again each time: they may have been renewed.
    pub(super) fn load(&self, base_dir: &Path, now: SystemTime) -> Result<Protection, Unusable> {
        let mut trust = Trust::default();
        trust
            .fingerprints
            .extend(self.server_fingerprint.as_deref().and_then(fingerprint));
        if let Some(path) = &self.server_cert_file {
            trust.load(&base_dir.join(path))?;
        }
        let own = match (&self.cert_file, &self.key_file) {
            (Some(cert), Some(key)) => Some(Own::load(&base_dir.join(cert), &base_dir.join(key), now)?),
            _ => None,
        };
        Ok(Protection {
            mode: self.mode(),
            policy: self.policy(),
            own: own.map(Arc::new),
            trust: Some(trust),
        })
    }
}

/// How a connection is to be protected.
#[derive(Clone)]
pub(super) struct Protection {
    pub mode: Mode,
    /// Only with this one.
    pub policy: Option<&'static Policy>,
    /// There is one where there is a mode.
    pub own: Option<Arc<Own>>,
    /// Without it, passwords may be read by anybody.
    pub trust: Option<Trust>,
}

impl Protection {
    /// None at all.
    pub(super) fn none() -> Self {
        Self {
            mode: Mode::None,
            policy: None,
            own: None,
            trust: None,
        }
    }

    /// The server's certificate, if it is to be trusted.
    pub(super) fn known(&self, shown: &[u8]) -> Result<Known, Unusable> {
        let nobody = Trust::default();
        let trust = self.trust.as_ref().unwrap_or(&nobody);
        let known = Known::met(shown, trust, SystemTime::now());
        match self.trust {
            Some(_) => known,
            None => known.map_err(|error| Unusable {
                cause: format!("it wants passwords encrypted, and {}", error.cause),
                remedy: format!(
                    "{}; with mode = \"none\" in it, nothing but the password is encrypted",
                    error.remedy
                ),
            }),
        }
    }
}
