//! Reaching a MySQL or MariaDB server: address, credentials, TLS. Knows no table.

use std::{path::Path, time::Duration};

use flow::{ConfigError, Fault};
use mysql_async::{Conn, Opts, OptsBuilder, SslOpts, prelude::Queryable};
use tokio::time::timeout;

use super::error::explain;
use crate::{
    postgres::{Tls, TlsMode},
    secret::{Secret, SecretRef},
};

pub(super) const CONNECT_WAIT: Duration = Duration::from_secs(10);
/// An idle connection is probed after this, so that a gateway behind a NAT notices a dead one.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const PORT: u16 = 3306;
const FORM: &str = "mysql://USER:PASSWORD@HOST:PORT/DATABASE";

/// Where the server is and who we are there.
#[derive(Debug, Clone, Default)]
pub(super) struct Server {
    pub url: Option<SecretRef>,
    pub host: Option<String>,
    pub port: Option<u16>,
    pub user: Option<String>,
    pub database: Option<String>,
    pub password: Option<SecretRef>,
    pub tls: Tls,
}

impl Server {
    /// Finds what can be found wrong without connecting.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let parts = [
            ("host", self.host.is_some()),
            ("port", self.port.is_some()),
            ("user", self.user.is_some()),
            ("database", self.database.is_some()),
            ("password", self.password.is_some()),
        ];
        match (&self.url, parts.iter().find(|(_, given)| *given)) {
            (Some(_), Some((key, _))) => {
                return Err(ConfigError::at(*key, "belongs into the url, or leave the url out"));
            }
            (Some(SecretRef::Plain(url)), None) => {
                parse_url(url).map_err(|message| ConfigError::at("url", message))?;
            }
            (Some(_), None) => {}
            (None, _) => {
                let required = [("host", &self.host), ("user", &self.user), ("database", &self.database)];
                for (key, value) in required {
                    if value
                        .as_deref()
                        .is_none_or(|value| value.is_empty() || value.contains('\0'))
                    {
                        return Err(ConfigError::at(
                            key,
                            "is missing: give host, user and database, or a url",
                        ));
                    }
                }
            }
        }
        self.tls.check()
    }

    pub(super) fn options(&self, base_dir: &Path) -> Result<OptsBuilder, Fault> {
        let fetch = |secret: &SecretRef| -> Result<Secret, Fault> {
            secret.fetch(base_dir).map_err(|error| Fault::retry(error.to_string()))
        };
        let options = match &self.url {
            Some(url) => OptsBuilder::from_opts(
                parse_url(fetch(url)?.expose()).map_err(|message| Fault::retry(format!("the url {message}")))?,
            ),
            None => {
                let host = self.host.clone().unwrap_or_default();
                let options = if host.starts_with('/') {
                    OptsBuilder::default().socket(Some(host))
                } else {
                    OptsBuilder::default().ip_or_hostname(host)
                };
                let password = self.password.as_ref().map(fetch).transpose()?;
                options
                    .tcp_port(self.port.unwrap_or(PORT))
                    .user(self.user.clone())
                    .db_name(self.database.clone())
                    .pass(password.map(|password| password.expose().to_string()))
            }
        };
        Ok(options
            .prefer_socket(false)
            .tcp_keepalive(Some(KEEPALIVE_IDLE))
            // An update that changes nothing has found its row all the same.
            .client_found_rows(true)
            .stmt_cache_size(0)
            .ssl_opts(self.ssl(base_dir)?))
    }

    fn ssl(&self, base_dir: &Path) -> Result<Option<SslOpts>, Fault> {
        Ok(match self.tls.mode {
            TlsMode::Disable => None,
            TlsMode::Require => Some(
                SslOpts::default()
                    .with_danger_accept_invalid_certs(true)
                    .with_danger_skip_domain_validation(true),
            ),
            TlsMode::VerifyFull => {
                let authorities = self.tls.authorities_der(base_dir)?;
                Some(
                    SslOpts::default()
                        .with_disable_built_in_roots(true)
                        .with_root_certs(authorities.into_iter().map(Into::into).collect()),
                )
            }
        })
    }

    /// Connects, and names the place for messages.
    pub(super) async fn connect(&self, base_dir: &Path) -> Result<(Conn, String), Fault> {
        let options = Opts::from(self.options(base_dir)?);
        let place = place(&options);
        let failed = |cause: String| {
            let hint = match self.tls.mode {
                TlsMode::Disable => "",
                _ if cause.to_lowercase().contains("tls") || cause.to_lowercase().contains("ssl") => {
                    " (a server without TLS needs tls.mode = \"disable\", one with a certificate of its own tls.ca_file)"
                }
                _ => "",
            };
            Fault::retry(format!("cannot connect to MySQL at {place}: {cause}{hint}"))
        };
        let mut conn = match timeout(CONNECT_WAIT, Conn::new(options)).await {
            Ok(conn) => conn.map_err(|error| failed(explain(&error)))?,
            Err(_) => return Err(failed(format!("no answer for {} s", CONNECT_WAIT.as_secs()))),
        };
        let prepared = timeout(CONNECT_WAIT, set_up(&mut conn)).await;
        match prepared {
            Ok(Ok(())) => Ok((conn, place)),
            Ok(Err(error)) => Err(failed(explain(&error))),
            Err(_) => Err(failed(format!("no answer for {} s", CONNECT_WAIT.as_secs()))),
        }
    }
}

/// Whatever the server's settings and `init_connect` say: text is read by one rule, and nothing is made to fit in silence.
pub(super) async fn set_up(conn: &mut Conn) -> mysql_async::Result<()> {
    conn.query_drop("SET NAMES utf8mb4").await?;
    // NO_BACKSLASH_ESCAPES: only quotes have to be doubled in literals. NO_AUTO_VALUE_ON_ZERO: 0 is a value.
    conn.query_drop(
        "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_BACKSLASH_ESCAPES,NO_AUTO_VALUE_ON_ZERO,NO_ENGINE_SUBSTITUTION,\
         NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO', time_zone = '+00:00', foreign_key_checks = 1, \
         unique_checks = 1, autocommit = 1, sql_notes = 1, sql_safe_updates = 0",
    )
    .await?;
    let version: Option<String> = conn.query_first("SELECT VERSION()").await?;
    if is_mariadb(&version.unwrap_or_default()) {
        // A transaction we lost sight of must not hold its locks for hours. MySQL has no such setting.
        conn.query_drop("SET SESSION idle_transaction_timeout = 60").await?;
    }
    Ok(())
}

/// Whether a version is one of MariaDB.
pub(super) fn is_mariadb(version: &str) -> bool {
    version.to_ascii_lowercase().contains("mariadb")
}

/// Reads a URL. What is wrong with one is not repeated: it may be a part of the password.
fn parse_url(url: &str) -> Result<Opts, String> {
    if url.contains('?') {
        return Err("has parameters in it: leave them out, and set tls.mode".to_string());
    }
    let options = Opts::from_url(url)
        .map_err(|_| format!("is not of the form {FORM} (special characters in the password are written as %XX)"))?;
    if options.ip_or_hostname().is_empty() || options.user().is_none() || options.db_name().is_none_or(str::is_empty) {
        return Err(format!(
            "names no host, user or database: it has to be of the form {FORM}"
        ));
    }
    Ok(options)
}

/// `host:port/database`, without credentials.
pub(super) fn place(options: &Opts) -> String {
    let database = options.db_name().unwrap_or_default();
    match options.socket() {
        Some(socket) => format!("{socket}/{database}"),
        None => format!("{}:{}/{database}", options.ip_or_hostname(), options.tcp_port()),
    }
}
