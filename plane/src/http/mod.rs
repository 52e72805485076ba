//! The web page and its JSON: what a browser on this machine may ask of the plane. Every call goes through the service;
//! nothing is decided here but who may ask: see `table.rs`.

mod about;
mod api_tokens;
mod ask;
mod assets;
mod attempts;
mod audit;
mod auth;
mod commands;
mod drafts;
mod fleet;
mod groups;
mod live;
mod metrics;
mod observe;
mod oidc;
#[cfg(feature = "schema")]
pub mod openapi;
mod operator;
mod operators;
mod pending;
mod port;
mod problem;
mod road;
mod rollouts;
pub mod table;
mod users;
mod workflows;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::Request,
    http::{HeaderValue, header},
    middleware::{Next, from_fn, from_fn_with_state},
    response::Response,
    routing::get,
};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle, time::timeout};
use tokio_rustls::TlsAcceptor;
use tracing::{error, warn};
use zeroize::Zeroizing;

use crate::{
    commands::Commands,
    live::Live,
    service::{Handle, stopped},
    web_operator::Standing,
};

pub use about::About;
pub use auth::{Auth, AuthError, Door, names};
use port::{Peer, Port};

/// Largest request body, in bytes: a workflow's text and a little around it.
const BODY_BYTES_MAX: usize = 512 * 1024;
/// How long open requests may take at shutdown.
const DRAIN_MAX: Duration = Duration::from_secs(2);

/// What the page is made of.
pub struct Parts {
    /// Who decides.
    pub service: Handle,
    /// The picture of the fleet.
    pub live: Live,
    /// Who may come in.
    pub auth: Auth,
    /// What daemons are told to do.
    pub commands: Arc<Commands>,
    /// Who asks daemons for records.
    pub operator: Standing,
    /// Where the plane is.
    pub about: About,
    /// What Prometheus has to show; `None`: metrics are off.
    pub metrics_token: Option<Zeroizing<String>>,
    /// TLS around every connection.
    pub tls: Option<TlsAcceptor>,
}

/// What every request can reach.
#[derive(Debug)]
pub struct Web {
    service: Handle,
    live: Live,
    auth: Auth,
    commands: Arc<Commands>,
    operator: Standing,
    about: About,
    metrics_token: Option<Zeroizing<String>>,
    stop: watch::Receiver<bool>,
}

/// Opens the port. The error says what to do.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => format!(
                "another program (another plane?) listens there; choose another port with --http {}:{}, or --http {}:0 for any",
                address.ip(),
                address.port().saturating_add(1),
                address.ip()
            ),
            io::ErrorKind::PermissionDenied => "ports below 1024 are for the system; choose a higher one".to_string(),
            _ => "see `http` in plane.toml, or --http".to_string(),
        };
        format!("cannot open the web page on {address}: {error}; {hint}")
    })
}

/// Serves until `stop` turns true.
pub fn serve(listener: TcpListener, parts: Parts, stop: watch::Receiver<bool>) -> JoinHandle<()> {
    let Parts {
        service,
        live,
        auth,
        commands,
        operator,
        about,
        metrics_token,
        tls,
    } = parts;
    let web = Arc::new(Web {
        service,
        live,
        auth,
        commands,
        operator,
        about,
        metrics_token,
        stop: stop.clone(),
    });
    let app = router(web);
    tokio::spawn(async move {
        let mut asked = stop.clone();
        let server = axum::serve(
            Port::new(listener, tls),
            app.into_make_service_with_connect_info::<Peer>(),
        )
        .with_graceful_shutdown(async move { stopped(&mut asked).await });
        let mut waiting = stop;
        tokio::select! {
            served = server.into_future() => {
                if let Err(cause) = served {
                    error!(%cause, "the web page stopped");
                }
            }
            () = async { stopped(&mut waiting).await; tokio::time::sleep(DRAIN_MAX).await } => {
                warn!("some web requests were cut off: they took longer than {DRAIN_MAX:?} to end");
            }
        }
    })
}

/// Waits for the server to end.
pub async fn finish(server: JoinHandle<()>) {
    // The server bounds its own end; this only guards against a bug in that.
    let _ = timeout(DRAIN_MAX * 2, server).await;
}

fn router(web: Arc<Web>) -> Router {
    Router::new()
        .nest(table::BASE, table::routes())
        .route("/metrics", get(metrics::metrics))
        // Who types these addresses wants the page, which knows what to do.
        .route("/login", get(assets::home))
        .route("/logout", get(assets::home))
        .fallback(assets::asset)
        .layer(from_fn_with_state(Arc::clone(&web), auth::require_own_origin))
        .layer(from_fn(assets::for_people))
        .layer(from_fn(protect))
        .with_state(web)
}

/// What browsers are told never to do with our answers.
async fn protect(request: Request, next: Next) -> Response {
    const HEADERS: [(header::HeaderName, &str); 6] = [
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (
            header::HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
        (
            header::HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
    ];
    let mut response = next.run(request).await;
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    let cache = response.headers_mut().entry(header::CACHE_CONTROL);
    cache.or_insert(HeaderValue::from_static("no-store"));
    response
}
