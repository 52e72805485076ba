//! One log-in on its way through a provider. The browser carries it, in a cookie that only we can read back from it; nothing is kept
//! here, so nobody can fill anything up. Everything that is shown to others is derived from the cookie in one direction. Pure.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bus_schema::id::hash;
use sha2::{Digest as _, Sha256};

/// How long somebody may take to log in at the provider, in seconds.
pub const FLOW_S: i64 = 10 * 60;
/// Longest cookie that is looked at, in bytes.
const COOKIE_BYTES_MAX: usize = 128;

/// A log-in that was begun in a browser.
#[derive(Clone, PartialEq, Eq)]
pub struct Flow {
    cookie: String,
}

impl std::fmt::Debug for Flow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Flow [redacted]")
    }
}

impl Flow {
    /// Begins one, with a secret that nobody can guess.
    pub fn begin(secret: &str, now_s: i64) -> Self {
        // The time is part of what everything is derived from: another time would be another log-in.
        Self {
            cookie: format!("{now_s}.{secret}"),
        }
    }

    /// The one that this cookie carries, unless it is too old.
    pub fn read(cookie: &str, now_s: i64) -> Option<Self> {
        let (begun_s, _) = cookie.split_once('.').filter(|_| cookie.len() <= COOKIE_BYTES_MAX)?;
        let age_s = now_s.checked_sub(begun_s.parse().ok()?)?;
        let cookie = cookie.to_string();
        (0..=FLOW_S).contains(&age_s).then_some(Self { cookie })
    }

    /// What the browser carries.
    pub fn cookie(&self) -> &str {
        &self.cookie
    }

    fn derived(&self, what: &str) -> String {
        URL_SAFE_NO_PAD.encode(hash(what, &[self.cookie.as_bytes()]))
    }

    /// Comes back with the provider's answer: it belongs to this browser.
    pub fn state(&self) -> String {
        self.derived("mycelial oidc state v1")
    }

    /// Comes back inside the token: it was made for this log-in.
    pub fn nonce(&self) -> String {
        self.derived("mycelial oidc nonce v1")
    }

    /// Shown when the code is exchanged (RFC 7636).
    pub fn verifier(&self) -> String {
        self.derived("mycelial oidc verifier v1")
    }

    /// What the provider is told of the verifier before.
    pub fn challenge(&self) -> String {
        URL_SAFE_NO_PAD.encode(Sha256::digest(self.verifier().as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_is_read_back_while_it_is_young() {
        let flow = Flow::begin("secret", 1_000);
        for (cookie, now_s, is_good) in [
            (flow.cookie(), 1_000, true),
            (flow.cookie(), 1_000 + FLOW_S, true),
            (flow.cookie(), 1_001 + FLOW_S, false),
            (flow.cookie(), 999, false),
            ("secret", 1_000, false),
            ("x.secret", 1_000, false),
            (&format!("1000.{}", "x".repeat(128)), 1_000, false),
        ] {
            assert_eq!(Flow::read(cookie, now_s).is_some(), is_good, "{cookie} {now_s}");
        }
        let other = Flow::begin("secret", 1_001);
        let parts = |flow: &Flow| [flow.state(), flow.nonce(), flow.verifier(), flow.challenge()];
        let all: std::collections::BTreeSet<String> = parts(&flow).into_iter().chain(parts(&other)).collect();
        assert_eq!(all.len(), 8, "all differ");
        assert!(all.iter().all(|part| part.len() == 43));
    }
}
