//! A webhook: an HTTP POST of the message's JSON. Signed with HMAC-SHA-256 under a shared secret over time and body, so that
//! the receiver can tell who speaks and refuse what is old; an idempotency key lets it recognise what comes twice.

use std::path::Path;

use bus_link::Tls;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http_body_util::Full;
use hyper::{Request, Uri, body::Bytes, header};
use hyper_util::rt::TokioIo;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{
    NotifyError,
    road::{self, Stream},
    settings::{WebhookSection, first_line, tls_of},
};
use crate::{clock::unix_ms, config::ConfigError};

pub(super) struct Webhook {
    uri: Uri,
    host: String,
    port: u16,
    tls: Option<Tls>,
    secret: Option<Zeroizing<String>>,
}

impl Webhook {
    pub(super) fn new(section: &WebhookSection, dir: &Path) -> Result<Self, ConfigError> {
        let wrong = |message: &str| ConfigError::File {
            key: "alerts.webhook.url",
            path: section.url.clone().into(),
            message: message.to_string(),
        };
        let uri: Uri = section.url.parse().map_err(|_| wrong("this is no URL"))?;
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong("a webhook begins with https:// or http://")),
        };
        let host = uri.host().ok_or_else(|| wrong("it names no host"))?.to_string();
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let secret = section
            .secret_file
            .as_ref()
            .map(|path| first_line("alerts.webhook.secret_file", &dir.join(path)));
        let tls = is_tls.then(|| {
            tls_of(
                "alerts.webhook.ca",
                section.ca.as_ref().map(|path| dir.join(path)).as_deref(),
            )
        });
        Ok(Self {
            uri,
            host,
            port,
            tls: tls.transpose()?,
            secret: secret.transpose()?,
        })
    }

    pub(super) async fn send(&self, body: &str, key: &str) -> Result<(), NotifyError> {
        let stream = road::connect(&self.host, self.port).await?;
        match &self.tls {
            None => self.post(stream, body, key).await,
            Some(tls) => self.post(road::secure(stream, &self.host, tls).await?, body, key).await,
        }
    }

    async fn post(&self, stream: impl Stream + 'static, body: &str, key: &str) -> Result<(), NotifyError> {
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
            .header(header::CONNECTION, "close")
            .header("idempotency-key", key);
        if let Some(secret) = &self.secret {
            let at_s = unix_ms() / 1_000;
            request = request.header("mycelial-signature", signature(secret, at_s, body));
        }
        let request = request
            .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
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
        let status = answer.map_err(later)?.status();
        match status.as_u16() {
            200..300 => Ok(()),
            // These mean this message; anything else may be mended over there.
            code @ (400 | 410 | 413 | 415 | 422) => Err(NotifyError::Never(format!("{} answered {code}", self.host))),
            code => Err(NotifyError::Later(format!("{} answered {code}", self.host))),
        }
    }
}

/// `t=SECONDS,v1=HEX`: HMAC-SHA-256 of `SECONDS.BODY`.
fn signature(secret: &str, at_s: i64, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(format!("{at_s}.{body}").as_bytes());
    let hex: String = mac
        .finalize()
        .into_bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("t={at_s},v1={hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signed_over_time_and_body() {
        // As `printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac secret-of-the-test` says it.
        assert_eq!(
            signature("secret-of-the-test", 1_700_000_000, "{\"a\":1}"),
            "t=1700000000,v1=fa4d034609ae5829db20aaa6df2a8fdd027ce07018a9a15baef4420126cd00a5"
        );
    }
}
