//! A server in a thread of its own and a client, both by hyper. Neither knows what is said.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::header::{ETAG, HOST};
use hyper::{Method, Request, Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

/// A request, whole.
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) body: Bytes,
}

/// What is answered, always with 200.
#[derive(Default)]
pub(super) struct Answer {
    pub(super) body: Bytes,
    pub(super) tag: Option<&'static str>,
}

/// Listens until it is dropped.
pub(super) struct Server {
    addr: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens at a free port. A request that `answer` fails at ends its connection, with the cause on standard error.
    pub(super) fn start(answer: impl Fn(&Asked) -> Result<Answer> + Send + Sync + 'static) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("cannot listen")?;
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let served = super::runtime().block_on(async {
                tokio::select! {
                    served = serve(listener, Arc::new(answer)) => served,
                    _ = stopped => Ok(()),
                }
            });
            if let Err(error) = served {
                eprintln!("the bench's own server ends: {error:#}");
            }
        });
        Ok(Self {
            addr,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of its own has been printed.
            let _ = thread.join();
        }
    }
}

async fn serve<A>(listener: TcpListener, answer: Arc<A>) -> Result<()>
where
    A: Fn(&Asked) -> Result<Answer> + Send + Sync + 'static,
{
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let answer = Arc::clone(&answer);
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let answer = Arc::clone(&answer);
            async move {
                let (head, body) = request.into_parts();
                let asked = Asked {
                    method: head.method,
                    uri: head.uri,
                    body: body.collect().await?.to_bytes(),
                };
                let Answer { body, tag } = answer(&asked)?;
                let response = Response::builder();
                let response = match tag {
                    Some(tag) => response.header(ETAG, tag),
                    None => response,
                };
                Ok::<_, anyhow::Error>(response.body(Full::new(body))?)
            }
        });
        tokio::spawn(async move {
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await
                && error.is_user()
            {
                eprintln!("the bench's own server: {:#}", anyhow::Error::from(error));
            }
        });
    }
}

/// A connection to a server.
pub(super) struct Asker(SendRequest<Full<Bytes>>);

impl Asker {
    pub(super) async fn connect(addr: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    /// Sends a request and gives the body of its answer, which has to be a good one.
    pub(super) async fn ask(&mut self, method: Method, path: &str, body: Bytes) -> Result<Bytes> {
        let request = Request::builder().method(method).uri(path).header(HOST, "bench");
        let request = request.body(Full::new(body))?;
        self.0.ready().await?;
        let answer = self.0.send_request(request).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        ensure!(
            status.is_success(),
            "{path}: {status}: {}",
            String::from_utf8_lossy(&body)
        );
        Ok(body)
    }
}
