//! A small HTTP client: asks a server of somebody else one thing, a connection for each. Follows nothing, keeps nothing.

use std::path::Path;

use bus_link::Tls;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, Uri, body::Bytes, header};
use hyper_util::rt::TokioIo;

use super::{
    NotifyError,
    road::{self, Stream},
    settings::tls_of,
};
use crate::config::ConfigError;

/// Whom to ask.
pub(crate) struct Client {
    uri: Uri,
    host: String,
    port: u16,
    tls: Option<Tls>,
}

impl Client {
    /// To a URL. `keys`: what the settings call the URL, and the authority's file.
    pub(crate) fn new(keys: [&'static str; 2], url: &str, ca: Option<&Path>) -> Result<Self, ConfigError> {
        let client = Self::to(url, Tls::default()).map_err(|message| ConfigError::File {
            key: keys[0],
            path: url.into(),
            message: message.to_string(),
        })?;
        let tls = client.tls.is_some().then(|| tls_of(keys[1], ca)).transpose()?;
        Ok(Self { tls, ..client })
    }

    /// To a URL, with TLS where it says so.
    pub(crate) fn to(url: &str, tls: Tls) -> Result<Self, &'static str> {
        let uri: Uri = url.parse().map_err(|_| "this is no URL")?;
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err("it has to begin with https:// or http://"),
        };
        let host = uri.host().ok_or("it names no host")?.to_string();
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let tls = is_tls.then_some(tls);
        Ok(Self { uri, host, port, tls })
    }

    /// The server's name.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Sends a body of JSON; the status of the answer.
    pub(crate) async fn post(&self, body: Bytes, headers: &[(&str, String)]) -> Result<u16, NotifyError> {
        let kind = ("content-type", "application/json".to_string());
        let headers: Vec<_> = std::iter::once(kind).chain(headers.iter().cloned()).collect();
        let (status, _) = self.ask(Method::POST, body, &headers, 0).await?;
        Ok(status)
    }

    /// Asks; the status of the answer, and its body of at most so many bytes. With 0 the body is not looked at.
    pub(crate) async fn ask(
        &self,
        method: Method,
        body: Bytes,
        headers: &[(&str, String)],
        most_bytes: usize,
    ) -> Result<(u16, Bytes), NotifyError> {
        let authority = self.uri.authority().map_or("", |authority| authority.as_str());
        // Whatever stands before '@' is not for this header.
        let host = authority.rsplit('@').next().unwrap_or_default();
        let mut request = Request::builder()
            .method(method)
            .uri(self.uri.path_and_query().map_or("/", |path| path.as_str()))
            .header(header::HOST, host)
            .header(
                header::USER_AGENT,
                concat!("mycelial-plane/", env!("CARGO_PKG_VERSION")),
            )
            .header(header::CONNECTION, "close");
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = request
            .body(Full::new(body))
            .map_err(|error| NotifyError::Never(error.to_string()))?;
        let stream = road::connect(&self.host, self.port).await?;
        match &self.tls {
            None => on(stream, request, most_bytes).await,
            Some(tls) => on(road::secure(stream, &self.host, tls).await?, request, most_bytes).await,
        }
    }
}

async fn on(
    stream: impl Stream + 'static,
    request: Request<Full<Bytes>>,
    most_bytes: usize,
) -> Result<(u16, Bytes), NotifyError> {
    let later = |error: hyper::Error| NotifyError::Later(error.to_string());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(later)?;
    let answered = async {
        let answer = sender.send_request(request).await.map_err(later)?;
        let status = answer.status().as_u16();
        if most_bytes == 0 {
            return Ok((status, Bytes::new()));
        }
        let body = Limited::new(answer.into_body(), most_bytes).collect().await;
        let body = body.map_err(|error| NotifyError::Never(format!("its answer cannot be read: {error}")))?;
        Ok((status, body.to_bytes()))
    };
    tokio::pin!(answered);
    // A server that answers and hangs up at once has answered.
    tokio::select! {
        biased;
        answer = &mut answered => answer,
        ended = connection => match ended {
            Ok(()) => answered.await,
            Err(error) => Err(later(error)),
        },
    }
}
