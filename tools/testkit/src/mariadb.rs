//! A real MariaDB server of its own. Talks to it only through the `mariadb` client.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::ops::Deref;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tempfile::TempDir;

use crate::proc::{Cmd, Finished};
use crate::service::{Service, Spec};
use crate::tls::Tls;
use crate::{find_program, free_port, temp_dir};

const PACKAGE: &str = "mariadb-server-core";
const CLIENT_PACKAGE: &str = "mariadb-client-core";
const INSTALL_DEADLINE: Duration = Duration::from_secs(180);
const QUERY_DEADLINE: Duration = Duration::from_secs(120);

/// A running MariaDB; start, stop and faults are on [`Service`].
#[derive(Debug)]
pub struct Mariadb {
    service: Service,
    // Shared between the servers of this process, made by the first and removed with the last.
    _template: Arc<TempDir>,
}

impl Mariadb {
    /// A fresh server with full durability, where `root` without a password may do everything, and the same as `tester`
    /// with the password `tester` from 127.0.0.1.
    #[must_use]
    #[track_caller]
    pub fn start() -> Self {
        Self::builder().start()
    }

    /// To ask for more than [`Mariadb::start`] gives.
    #[must_use]
    pub fn builder() -> MariadbBuilder {
        MariadbBuilder {
            dir: temp_dir("mariadb"),
            config: String::new(),
        }
    }

    /// `mysql://tester:tester@127.0.0.1:port/database`.
    #[must_use]
    pub fn url_of(&self, database: &str) -> String {
        format!("mysql://tester:tester@127.0.0.1:{}/{database}", self.port())
    }

    /// Creates a database and returns its URL.
    #[track_caller]
    pub fn create_database(&self, name: &str) -> String {
        self.query_in("mysql", &format!("create database `{}`", name.replace('`', "``")));
        self.url_of(name)
    }

    /// Runs SQL and returns the rows as text: `NULL` for NULL, and control characters and backslashes escaped with
    /// backslashes. Panics with the client's message when it fails.
    #[track_caller]
    pub fn query_in(&self, database: &str, sql: &str) -> Vec<Vec<String>> {
        parse_rows(&self.try_query_in(database, sql).ok())
    }

    /// Runs SQL and returns how the client ended: to ask a server that may be down, or that should refuse.
    #[track_caller]
    pub fn try_query_in(&self, database: &str, sql: &str) -> Finished {
        Cmd::new(find_program("mariadb", CLIENT_PACKAGE))
            .args(["--no-defaults", "--batch", "--skip-column-names", "--user=root"])
            .args(["--default-character-set=utf8mb4", "--database", database])
            .arg(option("--socket=", &self.dir().join("socket")))
            .arg(format!("--execute={sql}"))
            .run(QUERY_DEADLINE)
    }
}

impl Deref for Mariadb {
    type Target = Service;

    fn deref(&self) -> &Service {
        &self.service
    }
}

/// What the MariaDB to start shall be like.
#[derive(Debug)]
pub struct MariadbBuilder {
    dir: TempDir,
    config: String,
}

impl MariadbBuilder {
    /// Sets a server variable, as in `my.cnf`: `config("max_allowed_packet", "1M")`.
    #[must_use]
    pub fn config(mut self, name: &str, value: &str) -> Self {
        let _ = writeln!(self.config, "{name} = {value}");
        self
    }

    /// Accepts TLS with `tls`'s server certificate, and nothing else on TCP.
    #[must_use]
    pub fn tls(mut self, tls: &Tls) -> Self {
        for (name, source) in [("ssl_cert", &tls.server().cert), ("ssl_key", &tls.server().key)] {
            let path = self.dir.path().join(name);
            fs::copy(source, &path).unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
            give(&path, 0o600);
            let _ = writeln!(self.config, "{name} = {}", path.display());
        }
        self.config("require_secure_transport", "ON")
    }

    /// Starts it and waits until it answers.
    #[must_use]
    #[track_caller]
    pub fn start(self) -> Mariadb {
        let Self { dir, config } = self;
        let template = template();
        give(dir.path(), 0o755);
        let data = dir.path().join("data");
        Cmd::new("cp")
            .arg("-a")
            .arg(template.path().join("data"))
            .arg(&data)
            .run(INSTALL_DEADLINE)
            .ok();
        // Its own: a server that starts removes what others have open in a shared one.
        let tmp = dir.path().join("tmp");
        fs::create_dir(&tmp).unwrap_or_else(|e| panic!("cannot create {}: {e}", tmp.display()));
        give(&tmp, 0o700);
        let port = free_port();
        let grants = dir.path().join("grants.sql");
        write(
            &grants,
            "CREATE USER IF NOT EXISTS tester@'127.0.0.1' IDENTIFIED BY 'tester';\n\
             GRANT ALL ON *.* TO tester@'127.0.0.1';\n",
        );
        give(&grants, 0o644);
        let settings = format!(
            "[mariadbd]\nbind_address = 127.0.0.1\nport = {port}\nsocket = {0}/socket\ndatadir = {0}/data\n\
             pid_file = {0}/pid\ntmpdir = {0}/tmp\ninit_file = {0}/grants.sql\nskip_name_resolve\nskip_log_bin\n\
             innodb_buffer_pool_size = 16M\ninnodb_log_file_size = 16M\nkey_buffer_size = 64K\naria_pagecache_buffer_size = 1M\n\
             performance_schema = OFF\nmax_connections = 50\n{config}",
            dir.path().display()
        );
        let file = dir.path().join("my.cnf");
        write(&file, &settings);
        give(&file, 0o644);
        let cmd = Cmd::new(find_program("mariadbd", PACKAGE))
            .arg(option("--defaults-file=", &file))
            .dir("/")
            .user(server_user());
        let service = Service::launch(Spec {
            name: "mariadbd",
            cmd,
            ports: vec![port],
            ready: "ready for connections",
            family: false,
            dir,
        });
        Mariadb {
            service,
            _template: template,
        }
    }
}

/// An installed data directory to copy from: installing one takes seconds.
fn template() -> Arc<TempDir> {
    static TEMPLATE: Mutex<Weak<TempDir>> = Mutex::new(Weak::new());

    let mut slot = TEMPLATE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(template) = slot.upgrade() {
        return template;
    }
    let dir = temp_dir("mariadb-template");
    give(dir.path(), 0o755);
    // Not in the system's: a server that starts removes what another has there.
    let temporary = dir.path().join("tmp");
    fs::create_dir(&temporary).unwrap_or_else(|e| panic!("cannot create {}: {e}", temporary.display()));
    give(&temporary, 0o700);
    Cmd::new(find_program("mariadb-install-db", PACKAGE))
        .args([
            "--no-defaults",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
        ])
        .args([
            "--innodb-log-file-size=16M",
            "--innodb-buffer-pool-size=16M",
            "--innodb-flush-log-at-trx-commit=0",
        ])
        .arg(option("--datadir=", &dir.path().join("data")))
        .arg(option("--tmpdir=", &temporary))
        .dir("/")
        .user(server_user())
        .run(INSTALL_DEADLINE)
        .ok();
    let template = Arc::new(dir);
    *slot = Arc::downgrade(&template);
    template
}

fn option(name: &str, path: &Path) -> OsString {
    let mut option = OsString::from(name);
    option.push(path);
    option
}

/// Nobody in particular: MariaDB refuses to be root. `None` when we are somebody else already.
fn server_user() -> Option<(u32, u32)> {
    // `nobody` has these numbers everywhere.
    rustix::process::geteuid().is_root().then_some((65_534, 65_534))
}

/// Hands a file or directory of ours to the server's user.
fn give(path: &Path, mode: u32) {
    let given = fs::set_permissions(path, Permissions::from_mode(mode)).and_then(|()| match server_user() {
        Some((uid, gid)) => chown(path, Some(uid), Some(gid)),
        None => Ok(()),
    });
    given.unwrap_or_else(|e| panic!("cannot hand {} to the database's user: {e}", path.display()));
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
}

fn parse_rows(text: &str) -> Vec<Vec<String>> {
    let rows = text.strip_suffix('\n').into_iter().flat_map(|text| text.split('\n'));
    rows.map(|row| row.split('\t').map(str::to_owned).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows() {
        let cases: &[(&str, &[&[&str]])] = &[
            ("", &[]),
            ("\n", &[&[""]]),
            ("1\n", &[&["1"]]),
            ("a\tb\nc\\nd\tNULL\n", &[&["a", "b"], &["c\\nd", "NULL"]]),
        ];
        for (text, want) in cases {
            assert_eq!(parse_rows(text), *want, "{text:?}");
        }
    }
}
