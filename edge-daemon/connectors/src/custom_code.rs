//! Code of the workflow's own: what it is called, and whether a daemon runs it. Runs nothing.
//!
//! Code is addressed by its content: the SHA-256 of its bytes, in hex. That is what a workflow can say of it, what a daemon's
//! settings can allow, and what the log names when it is started.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, de::IgnoredAny};
use sha2::{Digest as _, Sha256};

/// Components that run code of the user's own, whatever it is.
pub(crate) const COMPONENTS: &[&str] = &["exec", "python"];
/// Of these, the one whose code is known before it runs. A program of `exec` is the host's, and may be anything.
const ADDRESSED: &str = "python";
/// Digits of a SHA-256 in hex.
const DIGITS: usize = 64;

/// The SHA-256 of code, in hex.
pub(crate) fn sha256(code: &str) -> String {
    Sha256::digest(code).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether a text can be a SHA-256 in hex: 64 of 0-9 and a-f.
pub fn is_sha256(text: &str) -> bool {
    text.len() == DIGITS && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Which code of workflows' own a daemon runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CustomCode {
    /// All of it.
    pub all: bool,
    /// Code with one of these SHA-256, in hex.
    pub sha256: BTreeSet<String>,
    /// Environment variables that a workflow may give such code. With others it could make Python load something else.
    pub env: BTreeSet<String>,
}

impl CustomCode {
    /// Everything is run.
    pub fn any() -> Self {
        Self {
            all: true,
            ..Self::default()
        }
    }

    /// Whether a component with this config (JSON) is run. The error says why not, and what to do about it.
    pub fn admit(&self, component: &str, config: &str) -> Result<(), Refused> {
        if self.all || !COMPONENTS.contains(&component) {
            return Ok(());
        }
        let said: Said = serde_json::from_str(config).unwrap_or_default();
        let which = match (said.sha256, &said.code) {
            _ if component != ADDRESSED => None,
            // The component runs nothing that has another.
            (Some(said), _) => Some(said.to_ascii_lowercase()),
            (None, Some(code)) => Some(sha256(code)),
            // A file may hold anything.
            (None, None) => None,
        };
        if which.as_ref().is_some_and(|which| self.sha256.contains(which)) {
            return match said.env.keys().find(|name| !self.env.contains(*name)) {
                None => Ok(()),
                Some(name) => Err(Refused {
                    what: format!("the workflow gives the code env.{name}, which this daemon does not allow"),
                    remedy: format!(
                        "under [custom_code] in the daemon's config.toml, list that too, env = [\"{name}\"], or set allow = true"
                    ),
                }),
            };
        }
        let by_hash = match which {
            Some(which) => format!("list its SHA-256 there, sha256 = [\"{which}\"], or "),
            None if component == ADDRESSED => "say its sha256 in the workflow and list that there, or ".to_string(),
            None => String::new(),
        };
        Err(Refused {
            what: format!("'{component}' runs code of the workflow's own, which this daemon does not allow"),
            remedy: format!("under [custom_code] in the daemon's config.toml, {by_hash}set allow = true"),
        })
    }
}

/// What a daemon does not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// What, and by whom.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

/// What a config says of its code.
#[derive(Default, Deserialize)]
struct Said {
    code: Option<String>,
    sha256: Option<String>,
    #[serde(default)]
    env: BTreeMap<String, IgnoredAny>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `printf abc | sha256sum`
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn what_a_hash_is() {
        assert_eq!(sha256("abc"), ABC);
        assert!(is_sha256(ABC));
        for wrong in ["", &ABC[1..], &ABC.to_ascii_uppercase(), &ABC.replace('a', "g")] {
            assert!(!is_sha256(wrong), "{wrong}");
        }
    }

    #[test]
    fn who_may_run() {
        let listed = CustomCode {
            all: false,
            sha256: [ABC.to_string()].into(),
            env: ["TOKEN".to_string()].into(),
        };
        let (upper, none) = (ABC.to_ascii_uppercase(), CustomCode::default());
        for (allowed, component, config, refusal) in [
            (&none, "sqlite", r#"{"code": "abc"}"#.to_string(), None),
            (&CustomCode::any(), "python", r#"{"code": "x"}"#.into(), None),
            (&CustomCode::any(), "exec", "{}".into(), None),
            (&listed, "python", r#"{"code": "abc"}"#.into(), None),
            (
                &listed,
                "python",
                format!(r#"{{"file": "f.py", "sha256": "{ABC}"}}"#),
                None,
            ),
            (
                &listed,
                "python",
                format!(r#"{{"file": "f.py", "sha256": "{upper}"}}"#),
                None,
            ),
            (&none, "python", r#"{"code": "abc"}"#.into(), Some(ABC)),
            (
                &listed,
                "python",
                r#"{"code": "abcd"}"#.into(),
                Some("list its SHA-256"),
            ),
            (
                &listed,
                "python",
                r#"{"file": "f.py"}"#.into(),
                Some("say its sha256 in the workflow"),
            ),
            (
                &listed,
                "python",
                r#"{"code": "abc", "env": {"TOKEN": {"secret": "t"}}}"#.into(),
                None,
            ),
            // The loader would run whatever it names.
            (
                &listed,
                "python",
                r#"{"code": "abc", "env": {"TOKEN": "", "LD_PRELOAD": "/x.so"}}"#.into(),
                Some("env = [\"LD_PRELOAD\"]"),
            ),
            (
                &listed,
                "python",
                r#"{"code": "abc", "env": {"PATH": "/x"}}"#.into(),
                Some("env = [\"PATH\"]"),
            ),
            // A program is no code that anybody could have hashed.
            (
                &listed,
                "exec",
                format!(r#"{{"sha256": "{ABC}"}}"#),
                Some("set allow = true"),
            ),
            (&listed, "python", "nonsense".into(), Some("set allow = true")),
        ] {
            match (allowed.admit(component, &config), refusal) {
                (Ok(()), None) => {}
                (Err(refused), Some(part)) => assert!(refused.remedy.contains(part), "{config}: {refused:?}"),
                (found, _) => panic!("{component} {config}: {found:?}"),
            }
        }
    }
}
