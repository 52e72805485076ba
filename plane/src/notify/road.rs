//! A connection to a server of somebody else, with or without TLS.

use std::sync::Arc;

use bus_link::Tls;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::NotifyError;

/// What all of them can do.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

fn later(what: &str) -> impl Fn(std::io::Error) -> NotifyError {
    move |error| NotifyError::Later(format!("{what}: {error}"))
}

/// Connects.
pub(super) async fn connect(host: &str, port: u16) -> Result<TcpStream, NotifyError> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let connected = TcpStream::connect((bare, port)).await;
    connected.map_err(later(&format!("cannot reach {host}:{port}")))
}

/// Talks TLS from now on.
pub(super) async fn secure(
    stream: TcpStream,
    host: &str,
    tls: &Tls,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, NotifyError> {
    let bare = host.trim_start_matches('[').trim_end_matches(']').to_string();
    let name = ServerName::try_from(bare).map_err(|_| NotifyError::Never(format!("'{host}' is no name of a host")))?;
    let tls = tls.clone();
    // The system's authorities are read from files, once.
    let config = tokio::task::spawn_blocking(move || tls.client_config()).await;
    let config = config
        .map_err(|error| NotifyError::Later(error.to_string()))?
        .map_err(|error| NotifyError::Later(error.to_string()))?;
    let connected = TlsConnector::from(Arc::clone(&config)).connect(name, stream).await;
    connected.map_err(later(&format!("TLS with {host}")))
}
