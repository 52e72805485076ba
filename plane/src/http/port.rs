//! Where the page listens: connections as they come, or with TLS around them. A handshake that takes long holds up nobody else.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tracing::warn;

/// Handshakes that go on at the same time; whoever comes then waits in the system's own queue.
const HANDSHAKES_MAX: usize = 32;
/// How long one may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// When no connection can be taken (too many files are open), how long to wait.
const REST: Duration = Duration::from_secs(1);

/// Where a request comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) SocketAddr);

impl Connected<IncomingStream<'_, Port>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Port>) -> Self {
        Self(*stream.remote_addr())
    }
}

/// The port.
pub(super) struct Port {
    tcp: TcpListener,
    tls: Option<TlsAcceptor>,
    handshakes: JoinSet<Option<(Line, SocketAddr)>>,
}

impl Port {
    pub(super) fn new(tcp: TcpListener, tls: Option<TlsAcceptor>) -> Self {
        Self {
            tcp,
            tls,
            handshakes: JoinSet::new(),
        }
    }

    /// Takes a connection, or lets its handshake begin.
    async fn take(&mut self, accepted: io::Result<(TcpStream, SocketAddr)>) -> Option<(Line, SocketAddr)> {
        match (accepted, self.tls.clone()) {
            (Ok((tcp, from)), None) => return Some((Line::Plain(tcp), from)),
            (Ok((tcp, from)), Some(acceptor)) => {
                self.handshakes.spawn(async move {
                    let tls = timeout(HANDSHAKE, acceptor.accept(tcp)).await.ok()?.ok()?;
                    Some((Line::Tls(Box::new(tls)), from))
                });
            }
            (Err(error), _) => {
                // Of one connection that was gone already: the next may be there.
                let is_its_own = matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionRefused
                        | io::ErrorKind::ConnectionAborted
                        | io::ErrorKind::ConnectionReset
                );
                if !is_its_own {
                    warn!(%error, "the web page cannot take a connection; trying again");
                    sleep(REST).await;
                }
            }
        }
        None
    }
}

impl Listener for Port {
    type Io = Line;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Line, SocketAddr) {
        loop {
            let taken = tokio::select! {
                Some(done) = self.handshakes.join_next() => done.ok().flatten(),
                accepted = self.tcp.accept(), if self.handshakes.len() < HANDSHAKES_MAX => self.take(accepted).await,
            };
            if let Some(taken) = taken {
                return taken;
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

/// A connection. One type for both, so that the server is in the program once.
pub(super) enum Line {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// The same call for either.
macro_rules! either {
    ($line:expr, $stream:ident => $call:expr) => {
        match $line.get_mut() {
            Line::Plain(stream) => {
                let $stream = Pin::new(stream);
                $call
            }
            Line::Tls(stream) => {
                let $stream = Pin::new(stream);
                $call
            }
        }
    };
}

impl AsyncRead for Line {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_read(context, buffer))
    }
}

impl AsyncWrite for Line {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        either!(self, stream => stream.poll_write(context, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_shutdown(context))
    }
}
