//! Listens, lets in whom the rules allow, and answers. Knows no record from the inside.

use std::{convert::Infallible, net::SocketAddr, path::Path, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::{Body as _, Incoming},
    header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use super::{
    Config, Encoding, Format,
    request::{Called, KEY_BYTES_MAX, RECORDS_MAX, Refusal, is_signed, is_token, places},
};
use crate::{clock::now_ns, inbox::Door, secret::Secret};

/// Connections at once; others wait.
const CONNECTIONS_MAX: usize = 64;
/// Bodies in memory at once, in bytes; one that is larger has the room for itself.
const BODIES_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of them that one permit stands for.
const PERMIT_BYTES: usize = 1024;
/// Bytes a connection buffers, and so the longest head of a request.
const BUFFER_BYTES: usize = 64 * 1024;
/// How long greeting each other may take with TLS.
const GREETING_MAX: Duration = Duration::from_secs(10);
/// How long the head of the next request may take.
const HEAD_WAIT: Duration = Duration::from_secs(30);
/// How long a body may take.
const BODY_WAIT: Duration = Duration::from_secs(10);
/// How long a request waits for room before its sender is told to come again.
const ROOM_WAIT: Duration = Duration::from_secs(2);
/// When senders may come again, in seconds.
const AGAIN_S: &str = "5";
/// A moment for whoever holds what is short (open files, mostly) to let go.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// The header by which a sender tells the same request from another.
const KEY_HEADER: &str = "idempotency-key";

/// Who is let in, and with what.
pub(super) struct Rules {
    path: String,
    format: Format,
    bearer: Option<Secret>,
    signature: Option<Signed>,
    body_bytes_max: usize,
    answer_max: Duration,
}

struct Signed {
    header: HeaderName,
    prefix: String,
    encoding: Encoding,
    secret: Secret,
}

impl Rules {
    /// Fetches the secrets.
    pub(super) fn new(config: &Config, base_dir: &Path) -> Result<Self, String> {
        let fetch = |secret: &crate::SecretRef| match secret.fetch(base_dir) {
            Ok(secret) if secret.expose().trim().is_empty() => Err("the secret is empty".to_string()),
            Ok(secret) => Ok(secret),
            Err(error) => Err(error.to_string()),
        };
        let signature = config.signature.as_ref().map(|signature| {
            Ok::<_, String>(Signed {
                header: HeaderName::try_from(&signature.header).map_err(|error| error.to_string())?,
                prefix: signature.prefix.clone(),
                encoding: signature.encoding,
                secret: fetch(&signature.secret)?,
            })
        });
        Ok(Self {
            path: config.path.clone(),
            format: config.format,
            bearer: config.bearer.as_ref().map(fetch).transpose()?,
            signature: signature.transpose()?,
            body_bytes_max: config.body_bytes_max,
            answer_max: Duration::from_millis(config.answer_ms_max),
        })
    }

    fn has_token(&self, headers: &HeaderMap) -> bool {
        let Some(secret) = &self.bearer else { return true };
        let said = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.as_bytes().split_at_checked(7));
        said.is_some_and(|(word, token)| word.eq_ignore_ascii_case(b"Bearer ") && is_token(token.trim_ascii(), secret))
    }

    fn is_signed(&self, headers: &HeaderMap, body: &[u8]) -> bool {
        let Some(signed) = &self.signature else { return true };
        let Signed {
            header,
            prefix,
            encoding,
            secret,
        } = signed;
        let said = headers.get(header);
        said.is_some_and(|said| is_signed(body, said.as_bytes().trim_ascii(), prefix, *encoding, secret))
    }
}

/// What all connections have.
struct Shared {
    rules: Rules,
    door: Door<Called>,
    /// Room for bodies.
    room: Arc<Semaphore>,
}

/// Accepts connections.
pub(super) struct Listener {
    shared: Arc<Shared>,
    tls: Option<TlsAcceptor>,
}

impl Listener {
    pub(super) fn new(rules: Rules, door: Door<Called>, tls: Option<TlsAcceptor>) -> Self {
        let room = BODIES_BYTES_MAX.max(rules.body_bytes_max).div_ceil(PERMIT_BYTES);
        let room = Arc::new(Semaphore::new(room));
        Self {
            shared: Arc::new(Shared { rules, door, room }),
            tls,
        }
    }

    /// Until it is told to stop, and those who are being answered have their answers.
    pub(super) async fn run(self, socket: TcpListener, mut stopped: watch::Receiver<bool>) {
        let Self { shared, tls } = self;
        let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        // They end with this task.
        let mut talks = JoinSet::new();
        loop {
            while talks.try_join_next().is_some() {}
            let accepted = tokio::select! {
                biased;
                _ = stopped.wait_for(|stopped| *stopped) => break,
                accepted = accept(&socket, &connections) => accepted,
            };
            let Some((stream, sender, permit)) = accepted else {
                break;
            };
            let (shared, tls, stopped) = (Arc::clone(&shared), tls.clone(), stopped.clone());
            talks.spawn(async move {
                if let Err(cause) = Box::pin(talk(stream, sender, tls, shared, stopped)).await {
                    tracing::debug!(%sender, cause, "an HTTP connection was closed");
                }
                drop(permit);
            });
        }
        drop((socket, shared));
        while talks.join_next().await.is_some() {}
    }
}

async fn accept(
    socket: &TcpListener,
    connections: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    // Nobody closes the semaphore.
    let permit = Arc::clone(connections).acquire_owned().await.ok()?;
    loop {
        match socket.accept().await {
            Ok((stream, sender)) => return Some((stream, sender, permit)),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn talk(
    stream: TcpStream,
    sender: SocketAddr,
    tls: Option<TlsAcceptor>,
    shared: Arc<Shared>,
    stopped: watch::Receiver<bool>,
) -> Result<(), String> {
    // An answer is one small packet, and is waited for.
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let Some(tls) = tls else {
        return serve(stream, sender, shared, stopped).await;
    };
    let greeted = timeout(GREETING_MAX, tls.accept(stream)).await;
    let stream = greeted.map_err(|_| "it did not greet in time".to_string())?;
    serve(stream.map_err(|error| error.to_string())?, sender, shared, stopped).await
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    sender: SocketAddr,
    shared: Arc<Shared>,
    mut stopped: watch::Receiver<bool>,
) -> Result<(), String> {
    let service = service_fn(|request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(Box::pin(shared.answer(request, sender)).await) }
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT)
        .max_buf_size(BUFFER_BYTES);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        _ = stopped.wait_for(|stopped| *stopped) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    ended.map_err(|error| error.to_string())
}

type Answer = Response<Full<Bytes>>;

impl Shared {
    async fn answer(&self, request: Request<Incoming>, sender: SocketAddr) -> Answer {
        match self.take(request, sender).await {
            Ok(records) => say(StatusCode::OK, &json!({ "records": records })),
            Err(answer) => *answer,
        }
    }

    /// Takes what a request brings, and waits until it is durable.
    async fn take(&self, request: Request<Incoming>, sender: SocketAddr) -> Result<usize, Box<Answer>> {
        let rules = &self.rules;
        if request.uri().path() != rules.path {
            return Err(refuse(StatusCode::NOT_FOUND, "there is nothing here"));
        }
        if !matches!(*request.method(), Method::POST | Method::PUT) {
            return Err(refuse(StatusCode::METHOD_NOT_ALLOWED, "POST or PUT records here"));
        }
        if !rules.has_token(request.headers()) {
            return Err(refuse(StatusCode::UNAUTHORIZED, "the token is not the right one"));
        }
        let (head, body) = request.into_parts();
        let bytes_max = body.size_hint().upper().unwrap_or(u64::MAX);
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        if bytes_max > rules.body_bytes_max && body.size_hint().exact().is_some() {
            return Err(too_large(rules.body_bytes_max));
        }
        let key = key(&head.headers)?;
        let permits = bytes_max.min(rules.body_bytes_max).div_ceil(PERMIT_BYTES).max(1);
        let permits = u32::try_from(permits).unwrap_or(u32::MAX);
        let Ok(Ok(_room)) = timeout(ROOM_WAIT, self.room.acquire_many(permits)).await else {
            return Err(busy("there is no room for more requests"));
        };
        let body = self.read(body).await?;
        if !rules.is_signed(&head.headers, &body) {
            return Err(refuse(StatusCode::UNAUTHORIZED, "the signature is not the right one"));
        }
        let places = places(&body, rules.format).map_err(|refusal| match refusal {
            Refusal::Malformed(cause) => refuse(StatusCode::BAD_REQUEST, &cause),
            Refusal::TooMany => refuse(
                StatusCode::PAYLOAD_TOO_LARGE,
                &format!("a request has at most {RECORDS_MAX} records"),
            ),
        })?;
        let records = places.len();
        if records == 0 {
            return Ok(0);
        }
        let (waiting, durable) = oneshot::channel();
        let called = Called {
            body,
            places,
            sender,
            received_ns: now_ns(),
            key,
            waiting,
        };
        let weight = called.weight();
        match timeout(ROOM_WAIT, self.door.bring(called, weight)).await {
            Ok(true) => {}
            Ok(false) => return Err(busy("the daemon is about to stop, or to start anew")),
            Err(_) => return Err(busy("there is no room for more records")),
        }
        match timeout(rules.answer_max, durable).await {
            Ok(Ok(())) => Ok(records),
            Ok(Err(_)) => Err(busy("the daemon is about to stop, or to start anew")),
            Err(_) => Err(busy("the destination takes long; the records may arrive all the same")),
        }
    }

    async fn read(&self, body: Incoming) -> Result<Bytes, Box<Answer>> {
        let bytes_max = self.rules.body_bytes_max;
        match timeout(BODY_WAIT, Limited::new(body, bytes_max).collect()).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large(bytes_max)),
            Ok(Err(error)) => Err(refuse(StatusCode::BAD_REQUEST, &format!("the body broke off: {error}"))),
            Err(_) => Err(refuse(StatusCode::REQUEST_TIMEOUT, "the body comes too slowly")),
        }
    }
}

/// What the sender tells the request by.
fn key(headers: &HeaderMap) -> Result<Option<Arc<str>>, Box<Answer>> {
    let Some(key) = headers.get(KEY_HEADER) else {
        return Ok(None);
    };
    // What is no UTF-8 becomes longer.
    let key = String::from_utf8_lossy(key.as_bytes());
    if key.len() > KEY_BYTES_MAX {
        let (bytes, reason) = (key.len(), "send a shorter one, such as a hash of it");
        let cause = format!("Idempotency-Key has {bytes} bytes, and at most {KEY_BYTES_MAX} are taken: {reason}");
        return Err(refuse(StatusCode::BAD_REQUEST, &cause));
    }
    Ok(Some(Arc::from(key)))
}

fn say(status: StatusCode, body: &serde_json::Value) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(format!("{body}\n"))));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    match status {
        StatusCode::METHOD_NOT_ALLOWED => drop(headers.insert(ALLOW, HeaderValue::from_static("POST, PUT"))),
        StatusCode::UNAUTHORIZED => drop(headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))),
        StatusCode::SERVICE_UNAVAILABLE => drop(headers.insert(RETRY_AFTER, HeaderValue::from_static(AGAIN_S))),
        _ => {}
    }
    answer
}

fn refuse(status: StatusCode, error: &str) -> Box<Answer> {
    Box::new(say(status, &json!({ "error": error })))
}

fn busy(error: &str) -> Box<Answer> {
    refuse(
        StatusCode::SERVICE_UNAVAILABLE,
        &format!("{error}: send the same again"),
    )
}

fn too_large(bytes_max: usize) -> Box<Answer> {
    refuse(
        StatusCode::PAYLOAD_TOO_LARGE,
        &format!("a body has at most {bytes_max} bytes"),
    )
}
