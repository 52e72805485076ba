//! Reaching a NATS server: addresses, credentials, TLS, and one connection that is not mended: the runner opens another.

use std::{path::PathBuf, time::Duration};

use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, ServerAddr};
use flow::{BuildContext, ConfigError, Fault, Trouble, TroubleKind};
use tokio::{sync::watch, time::timeout};

use crate::{mqtt::Urls, reach, secret::SecretRef, tls::TlsFiles};

/// How long reaching a server may take.
const CONNECT_WAIT: Duration = Duration::from_secs(10);
/// How often a quiet connection is tested.
const PING: Duration = Duration::from_secs(15);
/// Messages that may wait while it is checked.
const CHECK_MESSAGES_MAX: usize = 16;
/// Messages under way to the connection.
const SEND_MAX: usize = 64;

/// The settings both ends share, as they stand in a config.
pub(super) struct Settings {
    pub url: Urls,
    pub user: Option<String>,
    pub password: Option<SecretRef>,
    pub token: Option<SecretRef>,
    pub credentials: Option<SecretRef>,
    pub nkey: Option<SecretRef>,
    pub tls: Option<TlsFiles>,
}

/// Everything it takes to connect.
pub(super) struct Server {
    addresses: Vec<ServerAddr>,
    user: Option<String>,
    password: Option<SecretRef>,
    token: Option<SecretRef>,
    credentials: Option<SecretRef>,
    nkey: Option<SecretRef>,
    tls: Option<TlsFiles>,
    name: String,
    base_dir: PathBuf,
}

/// A connection, and whether it still is one.
pub(super) struct Connected {
    pub client: Client,
    pub alive: Alive,
}

/// Tells when a connection has ended.
#[derive(Clone)]
pub(super) struct Alive(watch::Receiver<Option<String>>);

impl Alive {
    /// Waits for the end of the connection.
    pub(super) async fn ended(&mut self) -> Fault {
        let cause = match self.0.wait_for(Option::is_some).await {
            Ok(cause) => cause.clone().unwrap_or_default(),
            Err(_) => "it has ended".to_string(),
        };
        Fault::retry(format!("the connection to the NATS server broke: {cause}"))
    }
}

impl Server {
    /// Checks the settings.
    pub(super) fn new(settings: Settings, context: &BuildContext) -> Result<Self, ConfigError> {
        let urls = settings.url.keyed();
        if urls.is_empty() {
            return Err(ConfigError::at("url", "name at least one server"));
        }
        let is_protected = settings.tls.is_some();
        let address =
            |(key, url): &(String, String)| address(url, is_protected).map_err(|cause| ConfigError::at(key, cause));
        let addresses = urls.iter().map(address).collect::<Result<_, _>>()?;
        if settings.user.is_some() != settings.password.is_some() {
            return Err(ConfigError::at("password", "user and password go together"));
        }
        let ways = [
            settings.user.is_some(),
            settings.token.is_some(),
            settings.credentials.is_some(),
            settings.nkey.is_some(),
        ];
        if ways.iter().filter(|is_set| **is_set).count() > 1 {
            return Err(ConfigError::at(
                "",
                "set one of user and password, token, credentials or nkey",
            ));
        }
        if let Some(tls) = &settings.tls {
            tls.check()?;
        }
        Ok(Self {
            addresses,
            user: settings.user,
            password: settings.password,
            token: settings.token,
            credentials: settings.credentials,
            nkey: settings.nkey,
            tls: settings.tls,
            name: format!("mycelial {} {} {}", context.daemon, context.workflow, context.node),
            base_dir: context.base_dir.clone(),
        })
    }

    /// Connects to one of the servers; `incoming`: messages of one subscription that may wait to be read.
    pub(super) async fn connect(&self, incoming: usize) -> Result<Connected, Fault> {
        let failed = |cause: String| Fault::retry(format!("cannot connect to NATS at {}: {cause}", self.place()));
        let options = self.options().map_err(failed)?;
        let (tell, alive) = watch::channel(None);
        let connecting = options
            .name(&self.name)
            .connection_timeout(CONNECT_WAIT)
            .ping_interval(PING)
            .client_capacity(SEND_MAX)
            .subscription_capacity(incoming)
            // One is the least. The runner opens a new connection, and knows what has to come again.
            .max_reconnects(1)
            .ignore_discovered_servers()
            .event_callback(move |event| {
                let cause = match event {
                    Event::Disconnected | Event::Closed => Some("the server closed it, or does not answer".to_string()),
                    Event::SlowConsumer(_) => Some("messages came faster than they could be taken".to_string()),
                    Event::ServerError(error) => Some(error.to_string()),
                    Event::ClientError(error) => Some(error.to_string()),
                    _ => None,
                };
                if cause.is_some() {
                    // The first cause is the one that explains.
                    tell.send_if_modified(|known| {
                        let is_news = known.is_none();
                        if is_news {
                            *known = cause;
                        }
                        is_news
                    });
                }
                std::future::ready(())
            })
            .connect(&self.addresses[..]);
        match timeout(CONNECT_WAIT, Box::pin(connecting)).await {
            Ok(Ok(client)) => Ok(Connected {
                client,
                alive: Alive(alive),
            }),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => Err(failed(format!("no answer for {} seconds", CONNECT_WAIT.as_secs()))),
        }
    }

    /// Connects, or says what is wrong with the way there.
    pub(super) async fn check(&self) -> Result<Connected, Trouble> {
        let secrets = [&self.password, &self.token, &self.credentials, &self.nkey];
        reach::secrets(secrets.into_iter().flatten(), &self.base_dir)?;
        let options = self.options().map_err(|cause| reach::certificates(&cause))?;
        let mut reached = Ok(());
        for address in &self.addresses {
            reached = reach::tcp(address.host(), address.port()).await.map(drop);
            if reached.is_ok() {
                break;
            }
        }
        reached?;
        let connecting = options
            .name(&self.name)
            .connection_timeout(CONNECT_WAIT)
            .connect(&self.addresses[..]);
        let error = match timeout(CONNECT_WAIT, Box::pin(connecting)).await {
            Ok(Ok(client)) => {
                drop(client);
                return self
                    .connect(CHECK_MESSAGES_MAX)
                    .await
                    .map_err(|fault| reach::as_trouble(&fault));
            }
            Ok(Err(error)) => error,
            Err(_) => {
                let cause = format!("{} takes the connection and says nothing", self.place());
                return Err(Trouble::new(TroubleKind::Silent, cause, "is there a NATS server?"));
            }
        };
        let cause = format!("{}: {error}", self.place());
        Err(match error.kind() {
            ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => reach::refused(cause),
            ConnectErrorKind::Tls => reach::unprotected(&cause),
            _ if reach::is_of_tls(&error) => reach::unprotected(&cause),
            ConnectErrorKind::TimedOut => Trouble::new(TroubleKind::Silent, cause, "is there a NATS server?"),
            _ => Trouble::new(
                TroubleKind::Other,
                cause,
                "is there a NATS server, and does it want TLS (tls://) or a certificate?",
            ),
        })
    }

    fn options(&self) -> Result<ConnectOptions, String> {
        let fetch = |secret: &SecretRef| secret.fetch(&self.base_dir).map_err(|error| error.to_string());
        let mut options = match (&self.user, &self.password, &self.token, &self.credentials, &self.nkey) {
            (Some(user), Some(password), ..) => {
                ConnectOptions::with_user_and_password(user.clone(), fetch(password)?.expose().to_string())
            }
            (_, _, Some(token), ..) => ConnectOptions::with_token(fetch(token)?.expose().to_string()),
            (_, _, _, Some(credentials), _) => ConnectOptions::with_credentials(fetch(credentials)?.expose())
                .map_err(|_| "the credentials cannot be read: are they the text of a .creds file?".to_string())?,
            (_, _, _, _, Some(nkey)) => ConnectOptions::with_nkey(fetch(nkey)?.expose().trim().to_string()),
            _ => ConnectOptions::new(),
        };
        let is_protected = self.addresses.iter().any(ServerAddr::tls_required);
        if is_protected {
            let tls = self.tls.clone().unwrap_or_default().client_config(&self.base_dir)?;
            options = options.tls_client_config(tls).require_tls(true);
        }
        Ok(options)
    }

    /// The servers, for a person.
    pub(super) fn place(&self) -> String {
        let places = self
            .addresses
            .iter()
            .map(|address| format!("{}:{}", address.host(), address.port()));
        places.collect::<Vec<_>>().join(", ")
    }
}

fn address(url: &str, is_protected: bool) -> Result<ServerAddr, String> {
    let form = "an address is nats://host:4222, or tls://host:4222 with TLS";
    let scheme = url.split_once("://").map(|(scheme, _)| scheme);
    match scheme {
        Some("nats") if is_protected => {
            return Err("is without TLS: write tls://… to use the settings of tls".to_string());
        }
        Some("nats" | "tls") => {}
        _ => return Err(format!("'{url}' is none: {form}")),
    }
    let address: ServerAddr = url.parse().map_err(|_| format!("'{url}' is none: {form}"))?;
    if address.has_user_pass() {
        return Err("write user and password into keys of their own, not into the address".to_string());
    }
    Ok(address)
}
