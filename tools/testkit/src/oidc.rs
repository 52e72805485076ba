//! A provider of OpenID Connect, played by `oidc-provider`, with its own log-in pages; people's browsers are played by curl.

use std::ops::Deref;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::{fs, time::Duration};

use tempfile::TempDir;

use crate::bins::node_packages;
use crate::proc::Cmd;
use crate::service::{Service, Spec};
use crate::{find_program, free_port, temp_dir};

/// What plays it.
const SCRIPT: &str = include_str!("oidc/provider.mjs");
/// How long one answer may take.
const ASKED_DEADLINE: Duration = Duration::from_secs(60);
/// Most pages between a name and the answer.
const STEPS_MAX: usize = 12;

/// A running provider with the clients `plane-rs`, `plane-es` and `plane-public`; start, stop and faults are on [`Service`]. What it
/// knows is lost when it ends.
#[derive(Debug)]
pub struct Oidc(Service);

impl Oidc {
    /// What `plane-rs` and `plane-es` prove themselves with.
    pub const SECRET: &str = "a secret: with/signs+and spaces";

    /// A fresh provider.
    #[must_use]
    #[track_caller]
    pub fn start() -> Self {
        let (dir, port) = (temp_dir("oidc"), free_port());
        let script = dir.path().join("provider.mjs");
        fs::write(&script, SCRIPT).unwrap_or_else(|e| panic!("cannot write {}: {e}", script.display()));
        let packages = dir.path().join("node_modules");
        symlink(node_packages(), &packages).unwrap_or_else(|e| panic!("cannot link {}: {e}", packages.display()));
        let cmd = Cmd::new(find_program("node", "nodejs"))
            .arg(script)
            .arg(port.to_string());
        Self(Service::launch(Spec {
            name: "oidc-provider",
            cmd,
            ports: vec![port],
            ready: "ready",
            family: false,
            dir,
        }))
    }

    /// What it calls itself.
    #[must_use]
    pub fn issuer(&self) -> String {
        format!("http://127.0.0.1:{}", self.port())
    }

    /// From now on its tokens are wrong: `nonce`, `audience`, `issuer`, `expired`, `none` (unsigned), `foreign` (by another key),
    /// or right again: `nothing`.
    #[track_caller]
    pub fn lie(&self, how: &str) {
        self.told(&format!("lie/{how}"));
    }

    /// It signs with new keys, and knows the old ones no more.
    #[track_caller]
    pub fn rotate(&self) {
        self.told("rotate");
    }

    /// Whether its tokens say themselves what is asked for, or only its userinfo endpoint.
    #[track_caller]
    pub fn inline(&self, is_inline: bool) {
        self.told(if is_inline { "inline/yes" } else { "inline/no" });
    }

    /// How often which of its addresses was asked for, as JSON.
    #[must_use]
    #[track_caller]
    pub fn asked(&self) -> String {
        self.told("asked")
    }

    #[track_caller]
    fn told(&self, wish: &str) -> String {
        Cmd::new(find_program("curl", "curl"))
            .args(["--silent", "--show-error", "--fail"])
            .arg(format!("{}/-control/{wish}", self.issuer()))
            .run(ASKED_DEADLINE)
            .ok()
    }
}

impl Deref for Oidc {
    type Target = Service;

    fn deref(&self) -> &Service {
        &self.0
    }
}

/// Somebody's browser, without a screen: keeps cookies.
#[derive(Debug)]
pub struct Walker {
    dir: TempDir,
}

/// A page that a [`Walker`] sees.
#[derive(Debug)]
pub struct Seen {
    /// The status.
    pub status: u16,
    /// Where it leads on to; empty when it does not.
    pub leads_to: String,
    /// What stands on it.
    pub body: String,
}

impl Walker {
    /// A browser that was nowhere yet.
    #[must_use]
    #[track_caller]
    #[allow(clippy::new_without_default, reason = "it makes a directory")]
    pub fn new() -> Self {
        Self {
            dir: temp_dir("walker"),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Opens an address as a browser's window does, or sends a form there. Goes nowhere by itself.
    #[track_caller]
    pub fn open(&self, url: &str, form: Option<&str>) -> Seen {
        let (jar, body) = (self.path("jar"), self.path("body"));
        let mut cmd = Cmd::new(find_program("curl", "curl"))
            .args(["--silent", "--show-error", "--header", "accept: text/html"])
            .arg("--cookie")
            .arg(&jar)
            .arg("--cookie-jar")
            .arg(&jar)
            .arg("--output")
            .arg(&body)
            .args(["--write-out", "%{http_code} %{redirect_url}"]);
        if let Some(form) = form {
            cmd = cmd.args(["--data", form]);
        }
        let said = cmd.arg(url).run(ASKED_DEADLINE).ok();
        let (status, leads_to) = said.trim_end().split_once(' ').unwrap_or((said.trim_end(), ""));
        Seen {
            status: status.parse().unwrap_or_default(),
            leads_to: leads_to.to_string(),
            body: fs::read_to_string(body).unwrap_or_default(),
        }
    }

    /// Logs in at the provider that `begin` leads to, under this name; where the provider leads back to.
    #[track_caller]
    pub fn log_in(&self, begin: &str, name: &str) -> String {
        let own = begin.split("/api/").next().unwrap_or_default().to_string();
        let (mut url, mut form) = (begin.to_string(), None);
        for _ in 0..STEPS_MAX {
            let seen = self.open(&url, form.take().as_deref());
            if !seen.leads_to.is_empty() {
                if seen.leads_to.starts_with(&own) {
                    return seen.leads_to;
                }
                url = seen.leads_to;
                continue;
            }
            assert_eq!(seen.status, 200, "{url}: {}", seen.body);
            let action = seen
                .body
                .split("action=\"")
                .nth(1)
                .and_then(|rest| rest.split('"').next());
            url = action
                .unwrap_or_else(|| panic!("{url} has no form: {}", seen.body))
                .to_string();
            let asks_name = seen.body.contains("name=\"login\"");
            form = Some(match asks_name {
                true => format!("prompt=login&login={name}&password=any"),
                false => "prompt=consent".to_string(),
            });
        }
        panic!("the provider does not lead back to {own}: still at {url}");
    }
}
