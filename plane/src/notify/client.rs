//! An HTTP client for one thing: to POST JSON to a server of somebody else, a connection for each. Follows nothing, keeps nothing.

use std::path::Path;

use bus_link::Tls;
use http_body_util::Full;
use hyper::{Request, Uri, body::Bytes, header};
use hyper_util::rt::TokioIo;

use super::{
    NotifyError,
    road::{self, Stream},
    settings::tls_of,
};
use crate::config::ConfigError;

/// Where to POST to.
pub(crate) struct Client {
    uri: Uri,
    host: String,
    port: u16,
    tls: Option<Tls>,
}

impl Client {
    /// To a URL. `keys`: what the settings call the URL, and the authority's file.
    pub(crate) fn new(keys: [&'static str; 2], url: &str, ca: Option<&Path>) -> Result<Self, ConfigError> {
        let wrong = |message: &str| ConfigError::File {
            key: keys[0],
            path: url.into(),
            message: message.to_string(),
        };
        let uri: Uri = url.parse().map_err(|_| wrong("this is no URL"))?;
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong("it has to begin with https:// or http://")),
        };
        let host = uri.host().ok_or_else(|| wrong("it names no host"))?.to_string();
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let tls = is_tls.then(|| tls_of(keys[1], ca)).transpose()?;
        Ok(Self { uri, host, port, tls })
    }

    /// The server's name.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Sends a body of JSON; the status of the answer.
    pub(crate) async fn post(&self, body: Bytes, headers: &[(&str, String)]) -> Result<u16, NotifyError> {
        let stream = road::connect(&self.host, self.port).await?;
        match &self.tls {
            None => self.on(stream, body, headers).await,
            Some(tls) => {
                self.on(road::secure(stream, &self.host, tls).await?, body, headers)
                    .await
            }
        }
    }

    async fn on(
        &self,
        stream: impl Stream + 'static,
        body: Bytes,
        headers: &[(&str, String)],
    ) -> Result<u16, NotifyError> {
        let later = |error: hyper::Error| NotifyError::Later(error.to_string());
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(later)?;
        let authority = self.uri.authority().map_or("", |authority| authority.as_str());
        // Whatever stands before '@' is not for this header.
        let host = authority.rsplit('@').next().unwrap_or_default();
        let mut request = Request::post(self.uri.path_and_query().map_or("/", |path| path.as_str()))
            .header(header::HOST, host)
            .header(header::CONTENT_TYPE, "application/json")
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
        let answered = sender.send_request(request);
        tokio::pin!(answered);
        // A server that answers and hangs up at once has answered.
        let answer = tokio::select! {
            biased;
            answer = &mut answered => answer,
            ended = connection => match ended {
                Ok(()) => answered.await,
                Err(error) => Err(error),
            },
        };
        Ok(answer.map_err(later)?.status().as_u16())
    }
}
