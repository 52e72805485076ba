//! A webhook: an HTTP POST of the message's JSON. Signed with HMAC-SHA-256 under a shared secret over time and body, so that
//! the receiver can tell who speaks and refuse what is old; an idempotency key lets it recognise what comes twice.

use std::path::Path;

use hmac::{Hmac, KeyInit as _, Mac as _};
use hyper::body::Bytes;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{
    NotifyError,
    client::Client,
    settings::{WebhookSection, first_line},
};
use crate::{clock::unix_ms, config::ConfigError};

pub(super) struct Webhook {
    client: Client,
    secret: Option<Zeroizing<String>>,
}

impl Webhook {
    pub(super) fn new(section: &WebhookSection, dir: &Path) -> Result<Self, ConfigError> {
        let ca = section.ca.as_ref().map(|path| dir.join(path));
        let secret = section
            .secret_file
            .as_ref()
            .map(|path| first_line("alerts.webhook.secret_file", &dir.join(path)));
        Ok(Self {
            client: Client::new(["alerts.webhook.url", "alerts.webhook.ca"], &section.url, ca.as_deref())?,
            secret: secret.transpose()?,
        })
    }

    pub(super) async fn send(&self, body: &str, key: &str) -> Result<(), NotifyError> {
        let mut headers = vec![("idempotency-key", key.to_string())];
        if let Some(secret) = &self.secret {
            let at_s = unix_ms() / 1_000;
            headers.push(("mycelial-signature", signature(secret, at_s, body)));
        }
        let body = Bytes::copy_from_slice(body.as_bytes());
        match self.client.post(body, &headers).await? {
            200..300 => Ok(()),
            // These mean this message; anything else may be mended over there.
            code @ (400 | 410 | 413 | 415 | 422) => {
                Err(NotifyError::Never(format!("{} answered {code}", self.client.host())))
            }
            code => Err(NotifyError::Later(format!("{} answered {code}", self.client.host()))),
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
