//! The requests to a store: uploads, whole or in parts, and what they are answered. Knows nothing of records.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use flow::{BuildContext, ConfigError, Fault, Trouble, TroubleKind};
use hyper::{
    Method, StatusCode,
    header::{ETAG, HeaderName, HeaderValue},
};
use md5::{Digest as _, Md5};
use rusty_s3::{
    Bucket, Credentials, S3Action, UrlStyle,
    actions::{CompleteMultipartUpload, CreateMultipartUpload},
};
use url::Url;

use super::{gather, pack::Packed};
use crate::{
    http::client::{Answer, Ask, Client, ClientError, Settings},
    reach,
    secret::SecretRef,
    tls::TlsFiles,
};

/// Bytes of a part, and of the largest object that is sent at once: the least that the protocol allows.
const PART_BYTES: usize = 5 * 1024 * 1024;
/// Most bytes of an answer: a list of a thousand uploads.
const ANSWER_BYTES_MAX: usize = 2 * 1024 * 1024;
/// How long a signature counts: the clocks of both sides may differ.
const SIGNED_FOR: Duration = Duration::from_secs(3600);
/// What the client is given before it is told its own.
const USUAL_WAIT_MS: u64 = 30_000;
/// Uploads that are asked for at once.
const UPLOADS_MAX: &str = "1000";

/// Uploads that are aborted at one start; the next one goes on.
const ABORTED_MAX: usize = 10_000;

/// Which bucket, and where it is.
pub(super) struct Where {
    pub endpoint: String,
    pub bucket: String,
    pub region: String,
    /// The bucket's name stands in the path.
    pub is_path: bool,
    pub tls: Option<TlsFiles>,
    pub wait: Duration,
}

/// The secrets of a config.
pub(super) struct Keys {
    pub access: SecretRef,
    pub secret: SecretRef,
    pub token: Option<SecretRef>,
}

/// A bucket and the way there.
pub(super) struct Store {
    bucket: Bucket,
    keys: Keys,
    /// While it is open.
    credentials: Option<Credentials>,
    client: Client,
    base_dir: PathBuf,
    /// It has been logged that the key may not list uploads.
    is_blind: bool,
}

impl Store {
    /// Checks the settings.
    pub(super) fn new(to: Where, keys: Keys, context: &BuildContext) -> Result<Self, ConfigError> {
        if to.bucket.is_empty() || to.bucket.contains(['/', '?', '#']) {
            return Err(ConfigError::at("bucket", "is no name of a bucket"));
        }
        if to.region.is_empty() {
            return Err(ConfigError::at(
                "region",
                "is empty; what stores have none often want us-east-1",
            ));
        }
        let wrong = |cause: String| ConfigError::at("endpoint", cause);
        let endpoint = Url::parse(&to.endpoint).map_err(|error| wrong(format!("is no address: {error}")))?;
        let style = if to.is_path {
            UrlStyle::Path
        } else {
            UrlStyle::VirtualHost
        };
        let bucket = Bucket::new(endpoint, style, to.bucket, to.region).map_err(|error| wrong(error.to_string()))?;
        let settings = Settings {
            url: bucket.base_url().to_string(),
            headers: BTreeMap::new(),
            authorization: None,
            tls: to.tls,
            timeout_ms: USUAL_WAIT_MS,
        };
        let client = Client::new(settings, context).map_err(|error| match error.key.as_str() {
            "url" => wrong(error.message),
            _ => error,
        })?;
        Ok(Self {
            bucket,
            keys,
            credentials: None,
            client: client.with_wait(to.wait),
            base_dir: context.base_dir.clone(),
            is_blind: false,
        })
    }

    /// Sees whether the key opens the bucket, and aborts the uploads of `owner` that were left behind, whose names all begin
    /// with `prefix`.
    pub(super) async fn open(&mut self, prefix: &str, owner: &str) -> Result<(), Fault> {
        let fetch = |secret: &SecretRef| {
            let fetched = secret.fetch(&self.base_dir);
            fetched.map(|secret| secret.expose().trim().to_string())
        };
        let failed = |error: crate::secret::SecretError| Fault::retry(error.to_string());
        let (access, secret) = (
            fetch(&self.keys.access).map_err(failed)?,
            fetch(&self.keys.secret).map_err(failed)?,
        );
        self.credentials = Some(match &self.keys.token {
            None => Credentials::new(access, secret),
            Some(token) => Credentials::new_with_token(access, secret, fetch(token).map_err(failed)?),
        });
        self.client.connect().await.map_err(ClientError::fault)?;
        let mut uploads = Vec::new();
        let mut after = None;
        loop {
            let url = self.uploads_url(prefix, after.as_ref());
            let answer = self.ask(Method::GET, url, Vec::new(), None).await?;
            let body = String::from_utf8_lossy(&answer.body).into_owned();
            // Whoever may write need not be allowed to list.
            if answer.status == StatusCode::FORBIDDEN && text_of(&body, "Code") == Some("AccessDenied") {
                if !std::mem::replace(&mut self.is_blind, true) {
                    let to_do = "allow s3:ListBucketMultipartUploads, or let the bucket's lifecycle abort them";
                    tracing::info!(
                        "uploads that a crash leaves behind stay, because the key may not list them: {to_do}"
                    );
                }
                break;
            }
            self.expect(&answer, "the bucket")?;
            let own = uploads_of(&body).filter(|upload| gather::is_of(&upload.name, owner));
            uploads.extend(own);
            let next = next_page(&body).filter(|next| after.as_ref() != Some(next));
            if next.is_none() || uploads.len() >= ABORTED_MAX {
                break;
            }
            after = next;
        }
        for Upload { name, id } in uploads {
            tracing::info!(name, "aborting an upload that was left behind");
            self.abort(&name, &id).await?;
        }
        Ok(())
    }

    /// Where the uploads are listed that have not been completed: those of a prefix, behind one of them.
    fn uploads_url(&self, prefix: &str, after: Option<&Upload>) -> Url {
        let mut action = self.bucket.get_object(self.credentials.as_ref(), "");
        action.query_mut().insert("uploads", "");
        action.query_mut().insert("max-uploads", UPLOADS_MAX);
        if !prefix.is_empty() {
            action.query_mut().insert("prefix", prefix.to_string());
        }
        if let Some(Upload { name, id }) = after {
            action.query_mut().insert("key-marker", name.clone());
            action.query_mut().insert("upload-id-marker", id.clone());
        }
        action.sign(SIGNED_FOR)
    }

    /// Sees whether the key opens the bucket. Changes nothing there.
    pub(super) async fn check(&mut self) -> Result<String, Trouble> {
        let fetched = |secret: &SecretRef| -> Result<String, Trouble> {
            Ok(reach::secret(secret, &self.base_dir)?.expose().trim().to_string())
        };
        let (access, secret) = (fetched(&self.keys.access)?, fetched(&self.keys.secret)?);
        self.credentials = Some(match &self.keys.token {
            None => Credentials::new(access, secret),
            Some(token) => Credentials::new_with_token(access, secret, fetched(token)?),
        });
        self.client.check().await?;
        let answer = self
            .ask(Method::GET, self.uploads_url("", None), Vec::new(), None)
            .await;
        let answer = answer.map_err(|fault| reach::as_trouble(&fault))?;
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        let (bucket, code) = (self.bucket.name(), text_of(&body, "Code").unwrap_or_default());
        let said = format!("the bucket '{bucket}': {} {code}", answer.status);
        match (answer.status, code) {
            (status, _) if status.is_success() => Ok(format!("the bucket '{bucket}' is there, and the key opens it")),
            // Whoever may write need not be allowed to list.
            (StatusCode::FORBIDDEN, "AccessDenied") => Ok(format!(
                "the bucket '{bucket}' is there; whether the key may write to it shows with the first object"
            )),
            (StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED, _) => Err(reach::refused(said)),
            (StatusCode::NOT_FOUND, _) => Err(reach::missing(said, "make the bucket, or correct its name")),
            (StatusCode::MOVED_PERMANENTLY | StatusCode::BAD_REQUEST, _) => Err(Trouble::new(
                TroubleKind::Config,
                said,
                "correct the region and the endpoint, and whether the bucket's name stands in the path",
            )),
            _ => Err(Trouble::new(TroubleKind::Other, said, "see what the store says to it")),
        }
    }

    /// Stores an object. When this returns it is there, whole; before that, nothing of it is.
    pub(super) async fn put(&mut self, name: &str, content: &Packed) -> Result<(), Fault> {
        if content.length() > PART_BYTES as u64 {
            return self.put_parts(name, content).await;
        }
        let body = content.part(0, PART_BYTES).await?;
        let url = self.bucket.put_object(self.credentials.as_ref(), name).sign(SIGNED_FOR);
        let sum = checksum(&body);
        let answer = self.ask(Method::PUT, url, body, sum).await?;
        self.expect(&answer, name)
    }

    async fn put_parts(&mut self, name: &str, content: &Packed) -> Result<(), Fault> {
        let url = self
            .bucket
            .create_multipart_upload(self.credentials.as_ref(), name)
            .sign(SIGNED_FOR);
        let answer = self.ask(Method::POST, url, Vec::new(), None).await?;
        self.expect(&answer, name)?;
        let begun = CreateMultipartUpload::parse_response(&String::from_utf8_lossy(&answer.body));
        let begun = begun.map_err(|error| self.strange(name, &error.to_string()))?;
        let done = self.fill(name, begun.upload_id(), content).await;
        if done.is_err() {
            // Should this fail as well, the next start finds it.
            drop(self.abort(name, begun.upload_id()).await);
        }
        done
    }

    async fn fill(&mut self, name: &str, id: &str, content: &Packed) -> Result<(), Fault> {
        let mut tags = Vec::new();
        let mut offset = 0;
        while offset < content.length() {
            let body = content.part(offset, PART_BYTES).await?;
            offset += body.len() as u64;
            let number = tags.len() as u16 + 1;
            let action = self.bucket.upload_part(self.credentials.as_ref(), name, number, id);
            let (url, sum) = (action.sign(SIGNED_FOR), checksum(&body));
            let answer = self.ask(Method::PUT, url, body, sum).await?;
            self.expect(&answer, name)?;
            let tag = answer.headers.get(ETAG).and_then(|tag| tag.to_str().ok());
            tags.push(
                tag.ok_or_else(|| self.strange(name, "a part without an ETag"))?
                    .to_string(),
            );
        }
        let (url, body) = {
            let tags = tags.iter().map(String::as_str);
            let action = self
                .bucket
                .complete_multipart_upload(self.credentials.as_ref(), name, id, tags);
            let action: CompleteMultipartUpload<'_, _> = action;
            (action.sign(SIGNED_FOR), action.body())
        };
        crash_point::at!(S3BeforeComplete);
        let answer = self.ask(Method::POST, url, body.into_bytes(), None).await?;
        self.expect(&answer, name)?;
        // The answer begins before it is known how it ends.
        let body = String::from_utf8_lossy(&answer.body);
        if !body.contains("<CompleteMultipartUploadResult") {
            return Err(self.strange(name, text_of(&body, "Message").unwrap_or("no result")));
        }
        crash_point::at!(S3AfterComplete);
        Ok(())
    }

    async fn abort(&mut self, name: &str, id: &str) -> Result<(), Fault> {
        let url = self
            .bucket
            .abort_multipart_upload(self.credentials.as_ref(), name, id)
            .sign(SIGNED_FOR);
        let answer = self.ask(Method::DELETE, url, Vec::new(), None).await?;
        // Gone already is as well.
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(());
        }
        self.expect(&answer, name)
    }

    /// Lets go of the connection.
    pub(super) fn close(&mut self) {
        self.client.close();
        self.credentials = None;
    }

    async fn ask(&mut self, method: Method, url: Url, body: Vec<u8>, sum: Option<String>) -> Result<Answer, Fault> {
        let sum = sum.and_then(|sum| HeaderValue::try_from(sum).ok());
        let ask = Ask {
            method,
            url,
            headers: sum
                .map(|sum| (HeaderName::from_static("content-md5"), sum))
                .into_iter()
                .collect(),
            body: body.into(),
            answer_bytes_max: ANSWER_BYTES_MAX,
        };
        self.client.send(&ask).await.map_err(ClientError::fault)
    }

    fn strange(&self, name: &str, cause: &str) -> Fault {
        Fault::retry(format!("{}: {name}: {cause}", self.client.place()))
    }

    /// What an answer other than yes means. All of it may be better once somebody, or time, has mended it.
    fn expect(&self, answer: &Answer, what: &str) -> Result<(), Fault> {
        if answer.status.is_success() {
            return Ok(());
        }
        let body = String::from_utf8_lossy(&answer.body);
        let code = text_of(&body, "Code").unwrap_or_default();
        let hint = match code {
            "InvalidAccessKeyId" => " (is access_key right?)",
            "SignatureDoesNotMatch" => " (is secret_key right?)",
            "ExpiredToken" | "InvalidToken" => " (session_token has expired, or belongs to another key)",
            "AccessDenied" | "AllAccessDisabled" => " (the key needs s3:PutObject and s3:AbortMultipartUpload here)",
            "NoSuchBucket" => " (the bucket has to exist)",
            "RequestTimeTooSkewed" => " (this machine's clock is wrong)",
            "AuthorizationHeaderMalformed" | "AuthorizationQueryParametersError" | "PermanentRedirect" => {
                " (is region right?)"
            }
            _ => "",
        };
        let message = text_of(&body, "Message").map(unescaped).unwrap_or_default();
        let cause = format!(
            "{}: {what}: {} {code}: {message}{hint}",
            self.client.place(),
            answer.status.as_u16()
        );
        Err(Fault::retry(cause))
    }
}

/// An upload that has not been completed.
#[derive(Debug, PartialEq)]
struct Upload {
    name: String,
    id: String,
}

/// Those of a page of the list.
fn uploads_of(page: &str) -> impl Iterator<Item = Upload> {
    page.split("<Upload>").skip(1).filter_map(|upload| {
        Some(Upload {
            name: unescaped(text_of(upload, "Key")?),
            id: unescaped(text_of(upload, "UploadId")?),
        })
    })
}

/// The last upload of a page, if another page follows it.
fn next_page(page: &str) -> Option<Upload> {
    if text_of(page, "IsTruncated")?.trim() != "true" {
        return None;
    }
    Some(Upload {
        name: unescaped(text_of(page, "NextKeyMarker")?),
        id: unescaped(text_of(page, "NextUploadIdMarker")?),
    })
}

/// Of a body, so that the store refuses what was altered on its way.
fn checksum(body: &[u8]) -> Option<String> {
    Some(STANDARD.encode(Md5::digest(body)))
}

/// The text of the first element of this name. S3's answers are flat enough for it.
fn text_of<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(text, _)| text)
}

/// Names may have characters that XML writes in another way.
fn unescaped(text: &str) -> String {
    let pairs = [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&apos;", "'"),
        ("&#39;", "'"),
        ("&amp;", "&"),
    ];
    pairs
        .iter()
        .fold(text.to_string(), |text, (from, to)| text.replace(from, to))
}
