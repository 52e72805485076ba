//! Secrets in configs: where a password comes from, and the password once it has been fetched. Neither prints itself,
//! and neither is ever written anywhere.

use std::{
    env, fmt, fs, io,
    path::{Path, PathBuf},
};

use flow::secrets::{self, Lookup};
use schemars::JsonSchema;
use serde::Deserialize;
use zeroize::Zeroizing;

/// Longest secret a file may hold, in bytes; anything longer is a wrong path.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// Where a secret comes from: `{ secret = "pg" }` (the daemon's own store, filled by `mycelial secret set`),
/// `{ env = "PGPASSWORD" }`, `{ file = "/run/secrets/pg" }` (a relative path starts in the daemon's directory; one line end
/// at the end of the file is cut off), or the secret itself as plain text.
#[derive(Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "a secret is { secret = \"NAME\" }, { env = \"NAME\" }, { file = \"PATH\" } or plain text"
)]
pub enum SecretRef {
    /// From the daemon's own store.
    Store(FromStore),
    /// From an environment variable of the daemon.
    Env(FromEnv),
    /// From a file.
    File(FromFile),
    /// Written into the config itself: whoever reads the workflow reads it too.
    Plain(String),
}

/// A secret in the daemon's own store.
#[derive(Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FromStore {
    /// Its name there.
    pub secret: String,
}

/// A secret in an environment variable.
#[derive(Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FromEnv {
    /// Name of the variable.
    pub env: String,
}

/// A secret in a file.
#[derive(Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FromFile {
    /// Path of the file.
    pub file: PathBuf,
}

/// A secret could not be fetched. Says where it was looked for, never what was found.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The store has no such secret.
    #[error("the secret '{0}' is not set on this daemon\n  hint: mycelial secret set {0} --daemon NAME")]
    Unset(String),
    /// The store cannot be read.
    #[error("cannot read the secret '{name}': {cause}")]
    Store {
        /// Which secret.
        name: String,
        /// Why not.
        cause: String,
    },
    /// This process has no store.
    #[error(
        "the secret '{0}' is in no store: only daemons of a fleet keep one; here use {{ env = … }} or {{ file = … }}"
    )]
    NoStore(String),
    /// The variable is not set, or is not text.
    #[error("the environment variable {0} is not set (or is not UTF-8): set it for the daemon and restart it")]
    Env(String),
    /// The file cannot be read.
    #[error("cannot read the secret from {path}: {cause}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why not.
        cause: io::Error,
    },
    /// The file is far too large for a secret.
    #[error("{0} is too large to hold a secret")]
    TooLarge(PathBuf),
}

impl SecretRef {
    /// Fetches the secret, again each time: files and variables may change while the daemon runs.
    /// `base_dir` is where relative paths start.
    pub fn fetch(&self, base_dir: &Path) -> Result<Secret, SecretError> {
        match self {
            SecretRef::Plain(text) => Ok(Secret::new(text.clone())),
            SecretRef::Store(from) => stored(secrets::store(), &from.secret),
            SecretRef::Env(from) => env::var(&from.env)
                .map(Secret::new)
                .map_err(|_| SecretError::Env(from.env.clone())),
            SecretRef::File(from) => read_file(&base_dir.join(&from.file)),
        }
    }
}

fn stored(store: Option<&Lookup>, name: &str) -> Result<Secret, SecretError> {
    let look_up = store.ok_or_else(|| SecretError::NoStore(name.to_string()))?;
    let found = look_up(name).map_err(|cause| SecretError::Store {
        name: name.to_string(),
        cause,
    })?;
    found.map(Secret).ok_or_else(|| SecretError::Unset(name.to_string()))
}

fn read_file(path: &Path) -> Result<Secret, SecretError> {
    let failed = |cause| SecretError::File {
        path: path.to_path_buf(),
        cause,
    };
    if fs::metadata(path).map_err(failed)?.len() > SECRET_BYTES_MAX {
        return Err(SecretError::TooLarge(path.to_path_buf()));
    }
    let text = Zeroizing::new(fs::read_to_string(path).map_err(failed)?);
    // Editors and `echo` end files with a line end that is not part of the password.
    let line = text
        .strip_suffix('\n')
        .map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
    Ok(Secret::new(line.to_string()))
}

impl fmt::Debug for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SecretRef::Store(from) => write!(f, "secret {}", from.secret),
            SecretRef::Env(from) => write!(f, "env {}", from.env),
            SecretRef::File(from) => write!(f, "file {}", from.file.display()),
            SecretRef::Plain(_) => f.write_str("[redacted]"),
        }
    }
}

/// A secret. Does not print, and is wiped from memory when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Wraps a secret.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The secret itself: for the one call that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fetched(json: &str, dir: &Path) -> Result<String, String> {
        let secret: SecretRef = serde_json::from_str(json).map_err(|error| error.to_string())?;
        assert!(!format!("{secret:?}").contains("hunter2"), "{secret:?}");
        let secret = secret.fetch(dir).map_err(|error| error.to_string())?;
        assert_eq!(format!("{secret:?}"), "[redacted]");
        Ok(secret.expose().to_string())
    }

    #[test]
    fn comes_from_where_it_is_said_to_be() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("line"), "hunter2\r\n").unwrap();
        fs::write(dir.path().join("two"), "hunter2\n\n").unwrap();
        fs::write(dir.path().join("huge"), vec![b'x'; SECRET_BYTES_MAX as usize + 1]).unwrap();
        for (config, wanted) in [
            (r#""hunter2""#, Ok("hunter2")),
            (r#"{"file": "line"}"#, Ok("hunter2")),
            (r#"{"file": "two"}"#, Ok("hunter2\n")),
            (r#"{"file": "none"}"#, Err("cannot read the secret from")),
            (r#"{"file": "huge"}"#, Err("too large")),
            (
                r#"{"env": "MYCELIAL_TEST_UNSET"}"#,
                Err("MYCELIAL_TEST_UNSET is not set"),
            ),
            (r#"{"env": "X", "file": "y"}"#, Err("a secret is { secret")),
            (r#"{"secret": "pg"}"#, Err("the secret 'pg' is in no store")),
            ("5", Err("a secret is { secret")),
        ] {
            match (fetched(config, dir.path()), wanted) {
                (Ok(found), Ok(wanted)) => assert_eq!(found, wanted),
                (Err(found), Err(wanted)) => assert!(found.contains(wanted), "{config}: {found}"),
                (found, wanted) => panic!("{config}: {found:?} instead of {wanted:?}"),
            }
        }
        assert!(fetched(r#"{"env": "PATH"}"#, dir.path()).is_ok());
    }

    #[test]
    fn the_store_has_it_or_says_why_not() {
        let store: Lookup = Box::new(|name| match name {
            "pg" => Ok(Some(Zeroizing::new("hunter2".to_string()))),
            "ill" => Err("the disk is gone".to_string()),
            _ => Ok(None),
        });
        let said = |name| {
            stored(Some(&store), name)
                .map(|secret| secret.expose().to_string())
                .map_err(|error| error.to_string())
        };
        assert_eq!(said("pg").unwrap(), "hunter2");
        assert_eq!(
            said("ill").unwrap_err(),
            "cannot read the secret 'ill': the disk is gone"
        );
        assert!(said("mail").unwrap_err().contains("mycelial secret set mail"));
    }
}
