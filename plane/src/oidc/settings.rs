//! `[web.oidc]` in `plane.toml`: who lets people in, and as what.

use std::{
    env,
    net::IpAddr,
    path::{Path, PathBuf},
};

use hyper::Uri;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::mapping::{RolesSection, ScopeSection};
use crate::{config::ConfigError, notify::first_line};

/// Longest name of a provider on the page, in characters.
const NAME_CHARS_MAX: usize = 40;
/// Where a provider sends people back to, below the page's address.
pub const ANSWER: &str = "/api/v1/session/oidc/answer";

/// `[web.oidc]`: people log in at an OpenID Connect provider.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OidcSection {
    /// What the page calls the provider; the issuer's host unless it is given.
    pub name: Option<String>,
    /// The provider's address, exactly as it calls itself.
    pub issuer: String,
    /// What the plane is called there.
    pub client_id: String,
    /// What it proves that with; a client without is a public one.
    pub client_secret: Option<SecretFrom>,
    /// What is asked for, besides `openid`.
    #[serde(default = "scopes")]
    pub scopes: Vec<String>,
    /// Where the provider sends people back to; made of the address in the browser unless it is given.
    pub redirect_uri: Option<String>,
    /// PEM file of the authority that vouches for the provider, unless the system trusts it.
    pub ca: Option<PathBuf>,
    /// The claim that says what somebody is called; `sub` where it is missing.
    #[serde(default = "user_claim")]
    pub user_claim: String,
    /// Which values of a claim give which role.
    pub roles: RolesSection,
    /// Which values of a claim show which part of the fleet; all see the whole of it without.
    pub fleet_scope: Option<ScopeSection>,
}

/// Where a secret is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretFrom {
    /// A variable of the environment that the plane is started in.
    pub env: Option<String>,
    /// A file whose first line it is.
    pub file: Option<PathBuf>,
}

fn scopes() -> Vec<String> {
    ["profile", "email"].map(str::to_string).to_vec()
}

fn user_claim() -> String {
    "preferred_username".to_string()
}

/// Whether the way to this address is protected, or does not leave this machine.
pub(super) fn is_safe(url: &str) -> bool {
    let Ok(uri) = url.parse::<Uri>() else { return false };
    let Some(host) = uri.host().filter(|host| !host.is_empty()) else {
        return false;
    };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let is_here = bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    match uri.scheme_str() {
        Some("https") => true,
        Some("http") => is_here,
        _ => false,
    }
}

impl OidcSection {
    /// What is wrong with it, beginning with the key.
    pub fn check(&self) -> Result<(), String> {
        let unsafe_url = |key: &str, url: &str| {
            let url: String = url.chars().take(200).collect();
            format!(
                "web.oidc.{key}: '{url}' has to begin with https:// and name a host; http:// is for this very machine (127.0.0.1, localhost)"
            )
        };
        if !is_safe(&self.issuer) || self.issuer.contains(['?', '#', '@']) {
            return Err(unsafe_url("issuer", &self.issuer));
        }
        if let Some(uri) = &self.redirect_uri {
            if !is_safe(uri) {
                return Err(unsafe_url("redirect_uri", uri));
            }
            if !uri.ends_with(ANSWER) {
                return Err(format!("web.oidc.redirect_uri: '{uri}' has to end in {ANSWER}"));
            }
        }
        if self.client_id.is_empty() {
            return Err("web.oidc.client_id: name what the plane is called at the provider".into());
        }
        let is_word =
            |word: &String| !word.is_empty() && word.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '"' | '\\'));
        if let Some(wrong) = self.scopes.iter().find(|scope| !is_word(scope)) {
            return Err(format!("web.oidc.scopes: '{wrong}' is none: it has to be one word"));
        }
        let is_shown = |name: &String| (1..=NAME_CHARS_MAX).contains(&name.chars().count());
        if self.name.as_ref().is_some_and(|name| !is_shown(name)) {
            return Err(format!(
                "web.oidc.name: it has to have 1 to {NAME_CHARS_MAX} characters"
            ));
        }
        if self
            .client_secret
            .as_ref()
            .is_some_and(|from| from.env.is_some() == from.file.is_some())
        {
            let message = "web.oidc.client_secret: say where it is: { file = \"oidc.secret\" }, or { env = \"NAME\" }";
            return Err(message.into());
        }
        self.roles.check()?;
        self.fleet_scope.as_ref().map_or(Ok(()), ScopeSection::check)
    }

    /// What the page calls the provider.
    pub fn shown(&self) -> String {
        let host = || {
            let uri = self.issuer.parse::<Uri>().ok();
            uri.and_then(|uri| uri.host().map(str::to_string)).unwrap_or_default()
        };
        self.name.clone().unwrap_or_else(host)
    }

    /// Reads the secret. Paths begin in `dir`.
    pub(super) fn secret(&self, dir: &Path) -> Result<Option<Zeroizing<String>>, ConfigError> {
        let key = "web.oidc.client_secret";
        match &self.client_secret {
            None => Ok(None),
            Some(SecretFrom { file: Some(file), .. }) => first_line(key, &dir.join(file)).map(Some),
            Some(SecretFrom { env: name, .. }) => {
                let name = name.clone().unwrap_or_default();
                match env::var(&name) {
                    Ok(secret) if !secret.is_empty() => Ok(Some(Zeroizing::new(secret))),
                    _ => Err(ConfigError::File {
                        key,
                        path: name.into(),
                        message: "there is no such variable in the environment of the plane".into(),
                    }),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_named() {
        let roles = "[roles]\nadmin = ['ops']\n";
        for (text, said) in [
            ("issuer = 'https://id.example.com/realms/a'\nclient_id = 'p'\n", ""),
            ("issuer = 'http://127.0.0.1:8080'\nclient_id = 'p'\n", ""),
            ("issuer = 'http://[::1]:8080'\nclient_id = 'p'\n", ""),
            (
                "issuer = 'http://localhost/a'\nclient_id = 'p'\nclient_secret = { file = 'a' }\n",
                "",
            ),
            (
                "issuer = 'http://id.example.com'\nclient_id = 'p'\n",
                "issuer: 'http://id.example.com' has to begin with https",
            ),
            (
                "issuer = 'http://127.0.0.1.example.com'\nclient_id = 'p'\n",
                "has to begin with https",
            ),
            (
                "issuer = 'http://127.0.0.1@example.com'\nclient_id = 'p'\n",
                "has to begin with https",
            ),
            (
                "issuer = 'id.example.com'\nclient_id = 'p'\n",
                "has to begin with https",
            ),
            ("issuer = 'https://id?x'\nclient_id = 'p'\n", "has to begin with https"),
            ("issuer = 'https://id'\nclient_id = ''\n", "client_id"),
            (
                "issuer = 'https://id'\nclient_id = 'p'\nscopes = ['a b']\n",
                "'a b' is none",
            ),
            ("issuer = 'https://id'\nclient_id = 'p'\nname = ''\n", "oidc.name"),
            (
                "issuer = 'https://id'\nclient_id = 'p'\nclient_secret = {}\n",
                "say where it is",
            ),
            (
                "issuer = 'https://id'\nclient_id = 'p'\nclient_secret = { env = 'A', file = 'b' }\n",
                "say where it is",
            ),
            (
                "issuer = 'https://id'\nclient_id = 'p'\nredirect_uri = 'https://plane.example.com/'\n",
                "has to end in",
            ),
            (
                "issuer = 'https://id'\nclient_id = 'p'\nredirect_uri = 'http://p.example.com/api/v1/session/oidc/answer'\n",
                "redirect_uri",
            ),
        ] {
            let section: OidcSection = toml::from_str(&format!("{text}{roles}")).unwrap();
            let wrong = section.check().err().unwrap_or_default();
            assert!(
                wrong.contains(said) && wrong.is_empty() == said.is_empty(),
                "{text}: {wrong}"
            );
        }
        let nobody: OidcSection = toml::from_str("issuer = 'https://id'\nclient_id = 'p'\n[roles]\n").unwrap();
        assert!(nobody.check().unwrap_err().contains("nobody gets a role"));
        assert_eq!(nobody.shown(), "id");
    }
}
