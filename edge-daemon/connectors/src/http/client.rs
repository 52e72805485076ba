//! A client of one HTTP server: one connection that is used again, TLS, credentials, limits of time and size.
//! Sends nothing twice that may have arrived (that is for whoever knows what it was), and follows no redirect: it would
//! take the credentials along.

use std::{
    collections::BTreeMap,
    error::Error as _,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use flow::{BuildContext, ConfigError, Fault, Trouble, TroubleKind};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{
    HeaderMap, Method, Request, StatusCode,
    body::Incoming,
    client::conn::http1::{self, SendRequest},
    header::{AUTHORIZATION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use crate::{mqtt::Task, reach, secret::SecretRef, tls::TlsFiles};

/// How long reaching the server may take, TLS included.
const CONNECT_WAIT: Duration = Duration::from_secs(10);
/// A connection that has rested longer is not used again: servers close such ones, some after 5 seconds, and a request
/// that meets the closing may or may not have arrived.
const REST_MAX: Duration = Duration::from_secs(4);
/// Bytes a connection buffers at once.
const BUFFER_BYTES: usize = 64 * 1024;
/// Bounds of `timeout_ms`: the runner takes a minute's silence of a source for its end.
const TIMEOUT_MS: std::ops::RangeInclusive<u64> = 100..=50_000;

/// What of a config says how to reach a server.
pub(crate) struct Settings {
    pub url: String,
    pub headers: BTreeMap<String, SecretRef>,
    pub authorization: Option<Authorization>,
    pub tls: Option<TlsFiles>,
    pub timeout_ms: u64,
}

/// What stands in the header `Authorization`.
pub(crate) enum Authorization {
    /// A word, and the secret as it is.
    Token(&'static str, SecretRef),
    /// User and password.
    Basic(String, SecretRef),
}

impl Authorization {
    /// What three keys of a config say together.
    pub(crate) fn of(
        user: Option<String>,
        password: Option<SecretRef>,
        bearer: Option<SecretRef>,
    ) -> Result<Option<Self>, ConfigError> {
        match (user, password, bearer) {
            (None, None, None) => Ok(None),
            (None, None, Some(token)) => Ok(Some(Self::Token("Bearer", token))),
            (Some(user), Some(password), None) if !user.contains(':') => Ok(Some(Self::Basic(user, password))),
            (Some(_), Some(_), None) => Err(ConfigError::at("user", "has a colon, which HTTP does not allow")),
            (Some(_), Some(_), Some(_)) => Err(ConfigError::at("bearer", "set this, or user and password")),
            _ => Err(ConfigError::at("password", "user and password go together")),
        }
    }

    fn value(&self, base_dir: &std::path::Path) -> Result<HeaderValue, String> {
        let text = match self {
            Self::Token(word, secret) => {
                let secret = secret.fetch(base_dir).map_err(|error| error.to_string())?;
                format!("{word} {}", secret.expose().trim())
            }
            Self::Basic(user, password) => {
                let password = password.fetch(base_dir).map_err(|error| error.to_string())?;
                format!("Basic {}", STANDARD.encode(format!("{user}:{}", password.expose())))
            }
        };
        let mut value = HeaderValue::from_str(&text)
            .map_err(|_| "the credentials have characters that no header may have".to_string())?;
        value.set_sensitive(true);
        Ok(value)
    }
}

/// Why there is no answer. All of it may be better next time.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("cannot connect to {place}: {cause}")]
    Connect { place: String, cause: String },
    #[error("{place} has not answered within {} seconds", wait.as_secs_f32())]
    Timeout { place: String, wait: Duration },
    #[error("the connection to {place} broke: {cause}")]
    Broken { place: String, cause: String },
    #[error("the answer of {place} has more than {bytes_max} bytes")]
    TooLarge { place: String, bytes_max: usize },
    #[error("the request to {place} cannot be made: {cause}")]
    Request { place: String, cause: String },
}

impl ClientError {
    /// For the runner.
    pub(crate) fn fault(self) -> Fault {
        Fault::retry(self.to_string())
    }
}

/// A request.
#[derive(Clone)]
pub(crate) struct Ask {
    pub method: Method,
    /// Where to; scheme, host and port are those of the client.
    pub url: Url,
    /// Besides those of the config.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub body: Bytes,
    /// Most bytes of the answer's body.
    pub answer_bytes_max: usize,
}

/// The answer to one.
#[derive(Debug)]
pub(crate) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

struct Session {
    sender: SendRequest<Full<Bytes>>,
    _task: Task,
    used: Instant,
    /// Those of the config, with their secrets.
    headers: HeaderMap,
}

/// Everything it takes to ask, and the connection while there is one.
pub(crate) struct Client {
    url: Url,
    headers: Vec<(HeaderName, SecretRef)>,
    authorization: Option<Authorization>,
    tls: Option<TlsFiles>,
    wait: Duration,
    base_dir: PathBuf,
    session: Option<Session>,
}

impl Client {
    /// Checks the settings.
    pub(crate) fn new(settings: Settings, context: &BuildContext) -> Result<Self, ConfigError> {
        let url = address(&settings.url).map_err(|cause| ConfigError::at("url", cause))?;
        if settings.tls.is_some() && url.scheme() == "http" {
            return Err(ConfigError::at(
                "tls",
                "is of no use without TLS: write the address as https://…",
            ));
        }
        if let Some(tls) = &settings.tls {
            tls.check()?;
        }
        if !TIMEOUT_MS.contains(&settings.timeout_ms) {
            let bounds = format!("is {} to {}", TIMEOUT_MS.start(), TIMEOUT_MS.end());
            return Err(ConfigError::at("timeout_ms", bounds));
        }
        let header = |(name, value): (String, SecretRef)| {
            let at = format!("headers.{name}");
            match HeaderName::try_from(&name) {
                Ok(header) if header == AUTHORIZATION && settings.authorization.is_some() => {
                    Err(ConfigError::at(at, "is made of the credentials already"))
                }
                Ok(header) if header == HOST || header == CONTENT_LENGTH => {
                    Err(ConfigError::at(at, "is set by itself"))
                }
                Ok(header) => Ok((header, value)),
                Err(_) => Err(ConfigError::at("headers", format!("'{name}' is no name of a header"))),
            }
        };
        Ok(Self {
            headers: settings.headers.into_iter().map(header).collect::<Result<_, _>>()?,
            authorization: settings.authorization,
            tls: settings.tls,
            wait: Duration::from_millis(settings.timeout_ms),
            base_dir: context.base_dir.clone(),
            session: None,
            url,
        })
    }

    /// Waits so long for an answer instead.
    #[must_use]
    pub(crate) fn with_wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// The address of the config.
    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    /// Host and port, for messages.
    pub(crate) fn place(&self) -> String {
        let host = self.url.host_str().unwrap_or_default();
        match self.url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_string(),
        }
    }

    /// Connects, to say early what is wrong.
    pub(crate) async fn connect(&mut self) -> Result<(), ClientError> {
        self.session = None;
        let failed = |place: String, cause: String| ClientError::Connect { place, cause };
        let headers = self.fixed_headers().map_err(|cause| failed(self.place(), cause))?;
        let reached = timeout(CONNECT_WAIT, Box::pin(self.reach())).await;
        let silent = || format!("no answer for {} seconds", CONNECT_WAIT.as_secs());
        let (sender, task) = reached
            .unwrap_or_else(|_| Err(silent()))
            .map_err(|cause| failed(self.place(), cause))?;
        self.session = Some(Session {
            sender,
            _task: task,
            used: Instant::now(),
            headers,
        });
        Ok(())
    }

    /// Connects, or says what is wrong with the way there. Nothing is asked.
    pub(crate) async fn check(&mut self) -> Result<(), Trouble> {
        reach::secrets(self.headers.iter().map(|(_, secret)| secret), &self.base_dir)?;
        let ill = |cause: String| {
            Trouble::new(
                TroubleKind::Secret,
                cause,
                "set the secret anew, without line ends in it",
            )
        };
        match &self.authorization {
            Some(Authorization::Token(_, secret) | Authorization::Basic(_, secret)) => {
                reach::secret(secret, &self.base_dir)?;
            }
            None => {}
        }
        self.fixed_headers().map_err(ill)?;
        let (host, port) = (
            self.url.host_str().unwrap_or_default(),
            self.url.port_or_known_default(),
        );
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let stream = reach::tcp(host, port.unwrap_or(80)).await?;
        if self.url.scheme() == "https" {
            let config = self.tls.clone().unwrap_or_default().client_config(&self.base_dir);
            reach::tls(stream, host, config).await?;
        }
        let spoken = self.connect().await;
        spoken.map_err(|error| reach::as_trouble(&error.fault()))
    }

    /// Asks, or says what is wrong with the way there or with the answer's status. What is asked must change nothing.
    pub(crate) async fn check_with(&mut self, ask: &Ask) -> Result<Answer, Trouble> {
        self.check().await?;
        let answer = match self.send(ask).await {
            Ok(answer) => answer,
            Err(error @ ClientError::Timeout { .. }) => {
                return Err(Trouble::new(
                    TroubleKind::Silent,
                    error.to_string(),
                    "raise timeout_ms, or look at the server's load",
                ));
            }
            Err(error) => return Err(reach::as_trouble(&error.fault())),
        };
        let said = format!("{} answers {}", self.place(), answer.status);
        match answer.status {
            StatusCode::UNAUTHORIZED | StatusCode::PROXY_AUTHENTICATION_REQUIRED => Err(reach::refused(said)),
            StatusCode::FORBIDDEN => Err(reach::forbidden(said, "let this user or key do what is asked for")),
            StatusCode::NOT_FOUND | StatusCode::GONE => Err(reach::missing(said, "correct the address")),
            _ => Ok(answer),
        }
    }

    /// Lets go of the connection.
    pub(crate) fn close(&mut self) {
        self.session = None;
    }

    /// Asks, and reads the whole answer. After a failure there is no connection, and the next request makes one.
    pub(crate) async fn send(&mut self, ask: &Ask) -> Result<Answer, ClientError> {
        let (place, wait) = (self.place(), self.wait);
        let answered = timeout(wait, Box::pin(self.exchange(ask))).await;
        let answered = answered.unwrap_or(Err(ClientError::Timeout { place, wait }));
        if answered.is_err() {
            self.session = None;
        }
        answered
    }

    async fn exchange(&mut self, ask: &Ask) -> Result<Answer, ClientError> {
        let place = self.place();
        loop {
            let mut is_fresh = false;
            let rested = |session: &Session| session.sender.is_closed() || session.used.elapsed() > REST_MAX;
            if self.session.as_ref().is_none_or(rested) {
                self.connect().await?;
                is_fresh = true;
            }
            let Some(session) = &mut self.session else { continue };
            let request = request(ask, &session.headers, &place)?;
            let sent = match session.sender.ready().await {
                Ok(()) => session.sender.try_send_request(request).await,
                Err(_) if !is_fresh => {
                    self.session = None;
                    continue;
                }
                Err(error) => return Err(broken(place, &error)),
            };
            match sent {
                Ok(response) => {
                    let answer = read(response, ask.answer_bytes_max, &place).await?;
                    session.used = Instant::now();
                    return Ok(answer);
                }
                Err(mut error) => {
                    let is_unsent = error.take_message().is_some();
                    if is_fresh || !is_unsent {
                        return Err(broken(place, &error.into_error()));
                    }
                    self.session = None;
                }
            }
        }
    }

    fn fixed_headers(&self) -> Result<HeaderMap, String> {
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, HeaderValue::from_static("mycelial"));
        let host = HeaderValue::from_str(&self.place()).map_err(|error| error.to_string())?;
        headers.insert(HOST, host);
        for (name, secret) in &self.headers {
            let value = secret.fetch(&self.base_dir).map_err(|error| error.to_string())?;
            let mut value = HeaderValue::from_str(value.expose().trim())
                .map_err(|_| format!("the header {name} has characters that no header may have"))?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.value(&self.base_dir)?);
        }
        Ok(headers)
    }

    async fn reach(&self) -> Result<(SendRequest<Full<Bytes>>, Task), String> {
        let port = self.url.port_or_known_default().unwrap_or(80);
        let (host, name) = match self.url.host() {
            Some(Host::Domain(name)) => (name.to_string(), ServerName::try_from(name.to_string())),
            Some(Host::Ipv4(address)) => (
                address.to_string(),
                Ok(ServerName::from(std::net::IpAddr::from(address))),
            ),
            Some(Host::Ipv6(address)) => (
                address.to_string(),
                Ok(ServerName::from(std::net::IpAddr::from(address))),
            ),
            None => return Err("the address has no host".to_string()),
        };
        let stream = TcpStream::connect((host.as_str(), port)).await;
        let stream = stream.map_err(|error| error.to_string())?;
        // Requests go out whole, and are waited for.
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        if self.url.scheme() == "http" {
            return greet(stream).await;
        }
        let mut config = self.tls.clone().unwrap_or_default().client_config(&self.base_dir)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let name = name.map_err(|_| format!("'{host}' is no name a certificate can have"))?;
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
        greet(stream.map_err(|error| format!("TLS: {error}"))?).await
    }
}

async fn greet<S>(stream: S) -> Result<(SendRequest<Full<Bytes>>, Task), String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut builder = http1::Builder::new();
    let greeted = builder.max_buf_size(BUFFER_BYTES).handshake(TokioIo::new(stream)).await;
    let (sender, connection) = greeted.map_err(|error| error.to_string())?;
    // How it ended is told to whoever asks on it.
    let task = Task(tokio::spawn(async move { drop(connection.await) }));
    Ok((sender, task))
}

fn request(ask: &Ask, fixed: &HeaderMap, place: &str) -> Result<Request<Full<Bytes>>, ClientError> {
    let target = match ask.url.query() {
        Some(query) => format!("{}?{query}", ask.url.path()),
        None => ask.url.path().to_string(),
    };
    let mut request = Request::builder().method(ask.method.clone()).uri(target);
    if let Some(headers) = request.headers_mut() {
        headers.extend(ask.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
        // Those of the config are the last word.
        for (name, value) in fixed {
            headers.insert(name, value.clone());
        }
    }
    let request = request.body(Full::new(ask.body.clone()));
    request.map_err(|error| ClientError::Request {
        place: place.to_string(),
        cause: error.to_string(),
    })
}

async fn read(response: hyper::Response<Incoming>, bytes_max: usize, place: &str) -> Result<Answer, ClientError> {
    let (parts, body) = response.into_parts();
    let body = Limited::new(body, bytes_max).collect().await.map_err(|error| {
        let place = place.to_string();
        if error.is::<LengthLimitError>() {
            ClientError::TooLarge { place, bytes_max }
        } else {
            ClientError::Broken {
                place,
                cause: error.to_string(),
            }
        }
    })?;
    Ok(Answer {
        status: parts.status,
        headers: parts.headers,
        body: body.to_bytes(),
    })
}

fn broken(place: String, error: &hyper::Error) -> ClientError {
    let mut cause = error.to_string();
    if let Some(deeper) = error.source() {
        cause = format!("{cause}: {deeper}");
    }
    ClientError::Broken { place, cause }
}

/// What of an address that cannot be read may stand in an error: nothing that may be a log-in, and no query, which may hold a key.
pub(super) fn place_in(text: &str) -> &str {
    let before = text.split(['?', '#']).next().unwrap_or_default();
    match text.rsplit_once('@') {
        None => before,
        Some((login, place)) if login.len() < before.len() => place.split(['?', '#']).next().unwrap_or_default(),
        // Whether it ends a log-in with such a sign in its password or stands in a query, nobody knows.
        Some(_) => before.split_once("://").map_or("", |(scheme, _)| scheme),
    }
}

/// An address that can be asked.
fn address(text: &str) -> Result<Url, String> {
    let form = "an address is https://host/path or http://host:8080/path";
    let url = Url::parse(text).map_err(|_| format!("'{}' is none: {form}", place_in(text)))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(format!("'{}' is none: {form}", place_in(text)));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("write user and password into keys of their own, not into the address".to_string());
    }
    if url.fragment().is_some() {
        return Err("has a # in it, which is not sent: write it as %23".to_string());
    }
    Ok(url)
}
