//! A real PostgreSQL cluster of its own. Talks to it only through psql.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::ops::Deref;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tempfile::TempDir;

use crate::proc::{Cmd, Finished, Signal};
use crate::service::{Service, Spec};
use crate::tls::Tls;
use crate::{find_program, free_port, temp_dir};

const PACKAGE: &str = "postgresql";
/// The superuser of every cluster.
const SUPERUSER: &str = "postgres";
const INITDB_DEADLINE: Duration = Duration::from_secs(120);
const QUERY_DEADLINE: Duration = Duration::from_secs(120);
/// What psql puts between fields and between rows: values may hold tabs and newlines, but hardly these.
const FIELD_SEPARATOR: char = '\u{1f}';
const ROW_SEPARATOR: char = '\u{1e}';

/// How [`Postgres::query`] writes an SQL NULL, to tell it from empty text.
pub const NULL: &str = "␀";

/// A running PostgreSQL; start, stop and faults are on [`Service`]. A kill or a freeze reaches every backend.
#[derive(Debug)]
pub struct Postgres {
    service: Service,
    password: Option<String>,
    // Shared between the clusters of this process, made by the first and removed with the last.
    _template: Arc<TempDir>,
}

impl Postgres {
    /// A fresh cluster with fsync on, where everybody on 127.0.0.1 is trusted.
    #[must_use]
    #[track_caller]
    pub fn start() -> Self {
        Self::builder().start()
    }

    /// To ask for more than [`Postgres::start`] gives.
    #[must_use]
    #[track_caller]
    pub fn builder() -> PostgresBuilder {
        PostgresBuilder {
            dir: temp_dir("postgres"),
            config: String::new(),
            password: None,
            tls: false,
        }
    }

    /// `postgres://postgres[:password]@127.0.0.1:port/postgres`.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// The URL of another database of this cluster.
    #[must_use]
    pub fn url_of(&self, database: &str) -> String {
        let password = self
            .password
            .as_ref()
            .map(|password| format!(":{password}"))
            .unwrap_or_default();
        format!("postgres://{SUPERUSER}{password}@127.0.0.1:{}/{database}", self.port())
    }

    /// Creates a database and returns its URL.
    #[track_caller]
    pub fn create_database(&self, name: &str) -> String {
        self.query(&format!("create database \"{}\"", name.replace('"', "\"\"")));
        self.url_of(name)
    }

    /// Runs SQL in the database `postgres`; see [`Postgres::query_in`].
    #[track_caller]
    pub fn query(&self, sql: &str) -> Vec<Vec<String>> {
        self.query_in("postgres", sql)
    }

    /// Runs SQL and returns the rows as text, [`NULL`] for NULL. Panics with psql's message when it fails.
    ///
    /// Several statements separated by `;` run in one transaction; at most one of them may return rows.
    #[track_caller]
    pub fn query_in(&self, database: &str, sql: &str) -> Vec<Vec<String>> {
        parse_rows(&self.try_query_in(database, sql).ok())
    }

    /// The one value of a query with one row of one column, in the database `postgres`.
    #[must_use]
    #[track_caller]
    pub fn query_one(&self, sql: &str) -> String {
        let mut rows = self.query(sql);
        match (rows.pop(), rows.is_empty()) {
            (Some(mut row), true) if row.len() == 1 => row.remove(0),
            (last, _) => panic!("wanted one value from `{sql}`, got {rows:?} and {last:?}"),
        }
    }

    /// Runs SQL and returns how psql ended: to ask a server that may be down, or that should refuse.
    #[track_caller]
    pub fn try_query_in(&self, database: &str, sql: &str) -> Finished {
        let (field, row) = (FIELD_SEPARATOR.to_string(), ROW_SEPARATOR.to_string());
        Cmd::new(find_program("psql", PACKAGE))
            .args([
                "-X",
                "-q",
                "-A",
                "-t",
                "-v",
                "ON_ERROR_STOP=1",
                "-F",
                &field,
                "-R",
                &row,
            ])
            .args([
                "-P",
                &format!("null={NULL}"),
                "-U",
                SUPERUSER,
                "-p",
                &self.port().to_string(),
                "-d",
                database,
            ])
            // The socket, because its directory is ours alone and it needs no password.
            .arg("-h")
            .arg(self.dir())
            .args(["-c", sql])
            .env("PGCLIENTENCODING", "UTF8")
            .run(QUERY_DEADLINE)
    }
}

impl Deref for Postgres {
    type Target = Service;

    fn deref(&self) -> &Service {
        &self.service
    }
}

/// What the PostgreSQL to start shall be like.
#[derive(Debug)]
pub struct PostgresBuilder {
    dir: TempDir,
    config: String,
    password: Option<String>,
    tls: bool,
}

impl PostgresBuilder {
    /// Sets a server parameter, as in `postgresql.conf`: `config("wal_level", "logical")`.
    #[must_use]
    pub fn config(mut self, name: &str, value: &str) -> Self {
        let _ = writeln!(self.config, "{name} = '{}'", value.replace('\'', "''"));
        self
    }

    /// Asks for this password (SCRAM-SHA-256) on TCP. Only letters and digits, as it becomes part of the URL.
    #[must_use]
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self
    }

    /// Accepts nothing but TLS on TCP, with `tls`'s server certificate.
    #[must_use]
    pub fn tls(mut self, tls: &Tls) -> Self {
        for (name, source) in [("server.pem", &tls.server().cert), ("server.key", &tls.server().key)] {
            let path = self.dir.path().join(name);
            fs::copy(source, &path).unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
            give(&path, 0o600);
            let option = if name == "server.key" {
                "ssl_key_file"
            } else {
                "ssl_cert_file"
            };
            let _ = writeln!(self.config, "{option} = '{}'", path.display());
        }
        self.config.push_str("ssl = on\n");
        self.tls = true;
        self
    }

    /// Starts it and waits until it answers.
    #[must_use]
    #[track_caller]
    pub fn start(self) -> Postgres {
        let Self {
            dir,
            config,
            password,
            tls,
        } = self;
        let template = template();
        let data = dir.path().join("data");
        give(dir.path(), 0o700);
        // `-a` keeps the owner, and the kernel shares the blocks where the file system can.
        run_tool(
            Path::new("cp"),
            &[
                OsStr::new("-a"),
                template.path().join("data").as_os_str(),
                data.as_os_str(),
            ],
            None,
        );

        let port = free_port();
        let settings = format!(
            "listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = '{}'\nshared_buffers = '16MB'\n\
             max_connections = 50\nlogging_collector = off\nlog_destination = 'stderr'\n{config}",
            dir.path().display()
        );
        let (host, method) = (
            if tls { "hostssl" } else { "host" },
            if password.is_some() { "scram-sha-256" } else { "trust" },
        );
        let access = format!("local all all trust\n{host} all all 127.0.0.1/32 {method}\n");
        // The files in the template belong to the server's user already; writing into them keeps that.
        write(&data.join("postgresql.auto.conf"), &settings);
        write(&data.join("pg_hba.conf"), &access);

        let cmd = Cmd::new(find_program("postgres", PACKAGE))
            .arg("-D")
            .arg(&data)
            .env("LC_ALL", "C.UTF-8")
            // It looks up its working directory, and its user may not read ours.
            .dir("/")
            .user(server_user())
            // SIGTERM would wait for every client to leave.
            .stop_signal(Signal::Int);
        let ready = "database system is ready to accept connections";
        let service = Service::launch(Spec {
            name: "postgres",
            cmd,
            ports: vec![port],
            ready,
            family: true,
            dir,
        });
        let postgres = Postgres {
            service,
            password,
            _template: template,
        };
        if let Some(password) = &postgres.password {
            postgres.query(&format!(
                "alter user {SUPERUSER} password '{}'",
                password.replace('\'', "''")
            ));
        }
        postgres
    }
}

/// An initialised cluster to copy from: initdb takes most of a second, a copy a twentieth of one.
fn template() -> Arc<TempDir> {
    static TEMPLATE: Mutex<Weak<TempDir>> = Mutex::new(Weak::new());

    let mut slot = TEMPLATE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(template) = slot.upgrade() {
        return template;
    }
    let dir = temp_dir("postgres-template");
    give(dir.path(), 0o700);
    let data = dir.path().join("data");
    let mut args: Vec<&OsStr> = [
        "--username",
        SUPERUSER,
        "--auth",
        "trust",
        "--encoding",
        "UTF8",
        "--locale",
        "C.UTF-8",
    ]
    .iter()
    .map(OsStr::new)
    .collect();
    // The template needs no fsync; the servers that run on copies of it have theirs on.
    args.extend([OsStr::new("--no-sync"), OsStr::new("-D"), data.as_os_str()]);
    run_tool(&find_program("initdb", PACKAGE), &args, server_user());
    let template = Arc::new(dir);
    *slot = Arc::downgrade(&template);
    template
}

#[track_caller]
fn run_tool(program: &Path, args: &[&OsStr], user: Option<(u32, u32)>) {
    Cmd::new(program)
        .args(args)
        .dir("/")
        .user(user)
        .run(INITDB_DEADLINE)
        .ok();
}

/// The user and group the server runs as: PostgreSQL refuses to be root. `None` when we are somebody else already.
fn server_user() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let passwd = fs::read_to_string("/etc/passwd").expect("a system has users");
    let found = ["postgres", "nobody"].iter().find_map(|name| user_ids(&passwd, name));
    Some(found.unwrap_or_else(|| panic!("PostgreSQL refuses to run as root, and there is no user postgres or nobody")))
}

fn user_ids(passwd: &str, name: &str) -> Option<(u32, u32)> {
    let mut fields = passwd
        .lines()
        .map(|line| line.split(':'))
        .find(|fields| fields.clone().next() == Some(name))?;
    Some((fields.nth(2)?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// Hands a file or directory of ours to the server's user.
fn give(path: &Path, mode: u32) {
    let given = fs::set_permissions(path, Permissions::from_mode(mode)).and_then(|()| match server_user() {
        Some((uid, gid)) => chown(path, Some(uid), Some(gid)),
        None => Ok(()),
    });
    given.unwrap_or_else(|e| panic!("cannot hand {} to the database's user: {e}", path.display()));
}

fn write(path: &PathBuf, text: &str) {
    fs::write(path, text).unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
}

pub(crate) fn parse_rows(text: &str) -> Vec<Vec<String>> {
    // psql ends its output with a newline, which belongs to no value, unless there is no row at all.
    let Some(text) = text.strip_suffix('\n') else {
        return Vec::new();
    };
    text.split(ROW_SEPARATOR)
        .map(|row| row.split(FIELD_SEPARATOR).map(str::to_owned).collect())
        .collect()
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
            ("a\u{1f}b\u{1e}c\nd\u{1f}␀\n", &[&["a", "b"], &["c\nd", "␀"]]),
            ("\u{1f}\n", &[&["", ""]]),
        ];
        for (text, want) in cases {
            assert_eq!(parse_rows(text), *want, "{text:?}");
        }
    }

    #[test]
    fn users() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\npostgres:x:101:104:admin:/var/lib/postgresql:/bin/bash\nbad:x\n";
        assert_eq!(user_ids(passwd, "postgres"), Some((101, 104)));
        assert_eq!(user_ids(passwd, "root"), Some((0, 0)));
        assert_eq!(user_ids(passwd, "bad"), None);
        assert_eq!(user_ids(passwd, "post"), None);
    }
}
