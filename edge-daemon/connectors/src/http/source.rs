//! Source `http`: asks an address again and again for records, and remembers how far it has come.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use bus_schema::{
    data::Batch,
    plan::{ComponentRole, Descriptor},
};
use bytes::Bytes;
use flow::{
    Build, BuildContext, Component, ConfigError, Fault, Position, READ_WAIT_MAX, Read, Source, SourceBatch, Trouble,
    TroubleKind, Undecodable, describe, parse_config,
};
use hyper::{
    HeaderMap, Method, StatusCode,
    header::{ETAG, HeaderName, HeaderValue, IF_NONE_MATCH},
};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::{
    sync::Mutex,
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};
use url::Url;

use super::{
    client::{Answer, Ask, Authorization, Client, ClientError, Settings, place_in},
    page::{Bookmark, Old, PLACE, fill, lines, link_next, short_tag, text_at},
    verdict::{hint, pause, said},
};
use crate::{
    feed::{Feed, FormatName as Lines},
    file::{hash, rows, source::CsvConfig},
    reach,
    secret::SecretRef,
    tls::TlsFiles,
};

/// Bounds of `poll_interval_ms`.
const POLL_MS: std::ops::RangeInclusive<u64> = 100..=86_400_000;
/// Bounds of `body_bytes_max`. The body is in memory as a whole, with JSON twice.
const BODY_BYTES: std::ops::RangeInclusive<usize> = 1024..=64 * 1024 * 1024;
/// Pages of one list. One with more goes in a circle.
const PAGES_MAX: u32 = 10_000;

/// Asks an HTTP server for records, again and again (GET). A record is delivered at least once; how often depends on what the
/// server can be asked for:
///
/// - With `cursor = { field = "id" }` and `{cursor}` in the address, only for those after the last one that was read: its
///   value of the field is what comes next. The server must give them in the order of the field. Whether it counts the last
///   one in or not, and how many records share a value (up to 512), doubles nothing, also after a crash.
/// - With `cursor = { pointer = "/next" }` or `{ header = "X-Next" }` the server says in each answer what to ask for next.
///   After a crash within an answer it is asked for again, and records of it that were read are passed over unless it has
///   changed meanwhile. An answer that leads nowhere is asked for again too, and read again when it has changed.
/// - Without a cursor the whole list is read each time it has changed (by its `ETag`, or its content), or with `repeat` each
///   time. A list of several pages is read each time.
///
/// `next` follows links to further pages. While an answer with a cursor brings something new, the next one is asked for at
/// once. An answer that is not 2xx, or not what `format` says, is an error and asked for again; a record in it that is
/// broken goes to the dead letters. Redirects, and links to other servers, are not followed.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// What to ask for: `https://host/path?since={cursor}`; `{cursor}` stands for the cursor.
    url: String,
    /// How often to ask, in milliseconds: 100 to 86,400,000.
    #[serde(default = "a_minute")]
    poll_interval_ms: u64,
    /// What an answer is.
    #[serde(default)]
    format: Format,
    /// For `json`: where the records are, as a JSON pointer such as `/data/items`: an array of objects, or one object. By
    /// default the answer itself.
    records: Option<String>,
    /// Column = type, as in the source `file`.
    #[serde(default)]
    types: BTreeMap<String, String>,
    /// For CSV: how it is written.
    csv: Option<CsvConfig>,
    /// Where the cursor comes from.
    cursor: Option<Cursor>,
    /// The first cursor. May be empty.
    start: Option<String>,
    /// Where the address of the next page is: `link` for the header `Link: <…>; rel="next"`, or a JSON pointer such as
    /// `/links/next`.
    next: Option<String>,
    /// Whether an answer that is the same as the last one is read again: for values of the moment.
    #[serde(default)]
    repeat: bool,
    /// Largest answer, in bytes: 1,024 to 67,108,864.
    #[serde(default = "four_mib")]
    body_bytes_max: usize,
    /// More headers; a value may be a secret.
    #[serde(default)]
    headers: BTreeMap<String, SecretRef>,
    /// User name (Basic).
    user: Option<String>,
    /// Password.
    password: Option<SecretRef>,
    /// Token (Bearer), instead of user and password.
    bearer: Option<SecretRef>,
    /// Certificates, for `https`.
    tls: Option<TlsFiles>,
    /// How long an answer may take, in milliseconds: 100 to 50,000.
    #[serde(default = "half_a_minute")]
    timeout_ms: u64,
}

/// What an answer is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Format {
    /// JSON with an array of objects in it. Their fields become columns.
    #[default]
    Json,
    /// One JSON object per line.
    JsonLines,
    /// Comma separated values (RFC 4180).
    Csv,
    /// Plain text; the column is called `line`.
    Lines,
}

/// Where the cursor comes from.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Cursor {
    /// From a field of the last record.
    Field(String),
    /// From a place in the answer, a JSON pointer.
    Pointer(String),
    /// From a header of the answer.
    Header(String),
}

/// Where the address of the next page is.
#[derive(Debug, Clone, PartialEq)]
enum Next {
    Link,
    Pointer(String),
}

fn a_minute() -> u64 {
    60_000
}

fn four_mib() -> usize {
    4 * 1024 * 1024
}

fn half_a_minute() -> u64 {
    30_000
}

/// The registry line.
pub(crate) const SOURCE: Component = Component {
    descriptor,
    build: Build::Source(build),
};

const EXAMPLE: &str = r#"name = "orders"

[sources.orders]
type = "http"
url = "https://api.example.org/orders?after={cursor}"
cursor = { field = "id" }
start = "0"
records = "/orders"
bearer = { env = "API_TOKEN" }

[destinations.out]
type = "stdout"
from = "orders"
"#;

fn descriptor() -> Descriptor {
    let summary = "Asks an HTTP server for records, again and again";
    let mut descriptor = describe::<Config>(ComponentRole::Source, "http", summary, EXAMPLE);
    descriptor.durable = true;
    descriptor
}

fn build(config: &str, context: &BuildContext) -> Result<Box<dyn Source>, ConfigError> {
    let config: Config = parse_config(config)?;
    if !POLL_MS.contains(&config.poll_interval_ms) {
        let bounds = format!("is {} to {}", POLL_MS.start(), POLL_MS.end());
        return Err(ConfigError::at("poll_interval_ms", bounds));
    }
    if !BODY_BYTES.contains(&config.body_bytes_max) {
        let bounds = format!("is {} to {}", BODY_BYTES.start(), BODY_BYTES.end());
        return Err(ConfigError::at("body_bytes_max", bounds));
    }
    let is_json = config.format == Format::Json;
    let pointer = |key: &str, pointer: &String| match pointer {
        _ if !is_json => Err(ConfigError::at(key, "a JSON pointer is for format = \"json\"")),
        pointer if pointer.is_empty() || pointer.starts_with('/') => Ok(()),
        pointer => Err(ConfigError::at(
            key,
            format!("a JSON pointer begins with /: '/{pointer}'"),
        )),
    };
    if let Some(records) = &config.records {
        pointer("records", records)?;
    }
    let next = match &config.next {
        None => None,
        Some(next) if next == "link" => Some(Next::Link),
        Some(next) => {
            pointer("next", next)?;
            Some(Next::Pointer(next.clone()))
        }
    };
    match (&config.cursor, config.url.contains(PLACE)) {
        (Some(_), false) => {
            return Err(ConfigError::at(
                "url",
                format!("has no {PLACE} in it, where the cursor should go"),
            ));
        }
        (None, true) => {
            return Err(ConfigError::at(
                "cursor",
                format!("say where {PLACE} in the address comes from"),
            ));
        }
        (Some(_), true) if config.start.is_none() => {
            return Err(ConfigError::at(
                "start",
                "say what the first cursor is (it may be empty)",
            ));
        }
        (None, false) if config.start.is_some() => {
            return Err(ConfigError::at("start", "is for a cursor: say where it comes from"));
        }
        (Some(Cursor::Pointer(place)), true) => pointer("cursor.pointer", place)?,
        (Some(Cursor::Header(name)), true) if HeaderName::try_from(name).is_err() => {
            return Err(ConfigError::at(
                "cursor.header",
                format!("'{name}' is no name of a header"),
            ));
        }
        _ => {}
    }
    let settings = Settings {
        url: fill(&config.url, "x"),
        headers: config.headers,
        authorization: Authorization::of(config.user, config.password, config.bearer)?,
        tls: config.tls,
        timeout_ms: config.timeout_ms,
    };
    let format = match config.format {
        Format::Json | Format::JsonLines => Lines::JsonLines,
        Format::Csv => Lines::Csv,
        Format::Lines => Lines::Lines,
    };
    Ok(Box::new(HttpSource {
        client: Arc::new(Mutex::new(Client::new(settings, context)?)),
        feed: Feed::new("http", format, config.csv, &config.types)?,
        settings: Wanted {
            url: config.url,
            poll_interval: Duration::from_millis(config.poll_interval_ms),
            records: is_json.then(|| config.records.unwrap_or_default()),
            cursor: config.cursor,
            next,
            repeat: config.repeat,
            body_bytes_max: config.body_bytes_max,
        },
        bookmark: Bookmark::start(config.start.clone()),
        offered: Bookmark::default(),
        start: config.start,
        state: State::Resting(Instant::now()),
        old: Old::default(),
        tag: None,
        pages: 0,
    }))
}

struct Wanted {
    url: String,
    poll_interval: Duration,
    /// With JSON: where the records are.
    records: Option<String>,
    cursor: Option<Cursor>,
    next: Option<Next>,
    repeat: bool,
    body_bytes_max: usize,
}

/// A request that is on its way, by itself: a slow answer holds up nobody.
struct Fetch(JoinHandle<Result<Answer, ClientError>>);

impl Drop for Fetch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// An answer whose records are being read.
struct Page {
    fingerprint: u64,
    /// Records of it to pass over.
    skip: u64,
    /// It brought something new.
    is_news: bool,
    cursor: Option<String>,
    next: Option<String>,
    etag: Option<String>,
}

enum State {
    /// Nothing to do before this.
    Resting(Instant),
    Asking(Url, Fetch),
    Reading(Page),
}

struct HttpSource {
    client: Arc<Mutex<Client>>,
    feed: Feed,
    settings: Wanted,
    start: Option<String>,
    bookmark: Bookmark,
    /// The one that went out last: what only repeats it is no news.
    offered: Bookmark,
    state: State,
    old: Old,
    /// The last answer's tag, and what was asked for.
    tag: Option<(Url, String)>,
    /// Pages of the list that is being read.
    pages: u32,
}

impl HttpSource {
    fn has_field_cursor(&self) -> bool {
        matches!(self.settings.cursor, Some(Cursor::Field(_)))
    }

    /// What is asked for at the beginning of a poll.
    fn address(&self) -> Result<Url, Fault> {
        let address = match &self.bookmark.page {
            Some(page) => page.clone(),
            None => fill(&self.settings.url, self.bookmark.cursor.as_deref().unwrap_or_default()),
        };
        Url::parse(&address).map_err(|error| Fault::stop(format!("'{}' is no address: {error}", place_in(&address))))
    }

    /// Begins a poll: from the first page, or from the one in the bookmark.
    fn poll(&mut self) -> Result<(), Fault> {
        self.pages = 0;
        self.old = Old::of(&self.bookmark);
        let url = self.address()?;
        self.ask(url);
        Ok(())
    }

    fn ask(&mut self, url: Url) {
        let known = self
            .tag
            .as_ref()
            .filter(|(asked, _)| *asked == url && !self.settings.repeat);
        let tag = known.and_then(|(_, tag)| HeaderValue::from_str(tag).ok());
        let ask = Ask {
            method: Method::GET,
            url: url.clone(),
            headers: tag.map(|tag| (IF_NONE_MATCH, tag)).into_iter().collect(),
            body: Bytes::new(),
            answer_bytes_max: self.settings.body_bytes_max,
        };
        let client = Arc::clone(&self.client);
        let task = tokio::spawn(async move { client.lock().await.send(&ask).await });
        self.state = State::Asking(url, Fetch(task));
    }

    fn rest(&mut self) {
        self.state = State::Resting(Instant::now() + self.settings.poll_interval);
    }

    /// Looks at an answer, and begins to read it if there is something in it.
    fn receive(&mut self, url: &Url, answer: &Answer) -> Result<(), Fault> {
        if answer.status == StatusCode::NOT_MODIFIED {
            self.rest();
            return Ok(());
        }
        if !answer.status.is_success() {
            return Err(Fault::Retry {
                cause: format!("{} answers {}{}", place(url), said(answer), hint(answer)),
                after: pause(&answer.headers, SystemTime::now()),
            });
        }
        let wrong = |cause: String| Fault::retry(format!("the answer of {} {cause}", place(url)));
        let fingerprint = hash(&answer.body);
        let is_first = self.bookmark.page.is_none() && self.pages == 0;
        let is_same = fingerprint == self.bookmark.body;
        let is_list = self.settings.cursor.is_none();
        let etag = header(&answer.headers, &ETAG).and_then(short_tag);
        self.tag = etag.clone().map(|etag| (url.clone(), etag));
        if is_first && is_same && self.bookmark.is_whole && !self.settings.repeat && !self.has_field_cursor() {
            self.rest();
            return Ok(());
        }
        let text = || std::str::from_utf8(&answer.body).map_err(|error| wrong(format!("is not UTF-8: {error}")));
        let cursor = match &self.settings.cursor {
            Some(Cursor::Pointer(pointer)) => text_at(text()?, pointer).map_err(wrong)?,
            Some(Cursor::Header(name)) => answer
                .headers
                .get(name)
                .and_then(|value| value.to_str().ok())
                .map(str::to_string),
            _ => None,
        };
        let next = match &self.settings.next {
            Some(Next::Link) => link_next(&answer.headers),
            Some(Next::Pointer(pointer)) => text_at(text()?, pointer).map_err(wrong)?,
            None => None,
        };
        let next = next.map(|next| linked(url, &next)).transpose().map_err(wrong)?;
        self.feed.restart();
        match &self.settings.records {
            Some(pointer) => {
                let mut records = lines(text()?, pointer).map_err(wrong)?;
                self.feed.buffer().append(&mut records);
            }
            None => self.feed.buffer().extend_from_slice(&answer.body),
        }
        self.feed.end();
        let is_going_on = is_same && !self.bookmark.is_whole && !self.has_field_cursor();
        if !self.has_field_cursor() {
            let rows = if is_going_on { self.bookmark.rows } else { 0 };
            (self.bookmark.rows, self.bookmark.body, self.bookmark.is_whole) = (rows, fingerprint, false);
            self.bookmark.etag = None;
        }
        self.state = State::Reading(Page {
            fingerprint,
            skip: if is_going_on { self.bookmark.rows } else { 0 },
            is_news: false,
            cursor,
            next,
            etag: etag.filter(|_| is_list && is_first),
        });
        Ok(())
    }

    /// What of a batch has not been read before. `None`: nothing.
    fn news(
        &mut self,
        batch: Batch,
        undecodable: Vec<Undecodable>,
    ) -> Result<Option<(Batch, Vec<Undecodable>)>, Fault> {
        let State::Reading(page) = &mut self.state else {
            return Ok(Some((batch, undecodable)));
        };
        let (kept, undecodable) = match &self.settings.cursor {
            Some(Cursor::Field(field)) => self.old.leave_out(&batch, undecodable, field, &mut self.bookmark)?,
            _ => {
                let count = batch.rows() + undecodable.len();
                let skip = page.skip.min(count as u64);
                page.skip -= skip;
                self.bookmark.rows += count as u64 - skip;
                // Batches of the same page fall the same way: it is all of one, nearly always.
                let skip = skip as usize;
                let broken = undecodable
                    .into_iter()
                    .skip(skip.saturating_sub(batch.rows()))
                    .collect();
                ((skip.min(batch.rows())..batch.rows()).collect::<Vec<_>>(), broken)
            }
        };
        if kept.is_empty() && undecodable.is_empty() {
            return Ok(None);
        }
        page.is_news = true;
        let batch = match kept.len() {
            0 => rows::empty("http"),
            all if all == batch.rows() => batch,
            _ => batch.take(&kept),
        };
        Ok(Some((batch, undecodable)))
    }

    /// The page has been read: goes on to the next one, or rests. The bookmark tells so.
    fn turn(&mut self) -> Result<(), Fault> {
        let State::Reading(page) = std::mem::replace(&mut self.state, State::Resting(Instant::now())) else {
            return Ok(());
        };
        self.pages += 1;
        let has_field_cursor = self.has_field_cursor();
        if let Some(next) = page.next {
            if self.pages >= PAGES_MAX {
                return Err(Fault::retry(format!(
                    "the list has more than {PAGES_MAX} pages, or leads back to itself"
                )));
            }
            let url = Url::parse(&next)
                .map_err(|error| Fault::retry(format!("'{}' is no address: {error}", place_in(&next))))?;
            if !has_field_cursor {
                self.bookmark.set_page(next)?;
            }
            self.ask(url);
            return Ok(());
        }
        let is_one_page = self.pages == 1 && self.bookmark.page.is_none();
        let before = self.bookmark.cursor.clone();
        if !has_field_cursor {
            let body = if is_one_page { page.fingerprint } else { 0 };
            let etag = page.etag.filter(|_| is_one_page);
            (self.bookmark.page, self.bookmark.rows, self.bookmark.body) = (None, 0, body);
            (self.bookmark.is_whole, self.bookmark.etag) = (true, etag);
            if let Some(cursor) = page.cursor {
                self.bookmark.set_cursor(cursor)?;
            }
            if before != self.bookmark.cursor {
                // Something else is asked for now, and may be answered with the same.
                self.bookmark.body = 0;
            }
        }
        let is_further = match self.settings.cursor {
            None => false,
            Some(Cursor::Field(_)) => page.is_news,
            // An answer that leads to another one, but holds nothing, is the end for now.
            Some(_) => page.is_news && before != self.bookmark.cursor,
        };
        if !is_one_page {
            // The tag of one page says nothing of the list.
            self.tag = None;
        }
        if is_further {
            self.poll()
        } else {
            self.rest();
            Ok(())
        }
    }

    /// The next batch of the page that is being read. `None`: nothing came of it, or it has been read.
    fn next_of_page(&mut self) -> Result<Option<SourceBatch>, Fault> {
        let (batch, undecodable) = match self.feed.batch()? {
            Some((batch, undecodable)) => match self.news(batch, undecodable)? {
                Some(news) => news,
                None => (rows::empty("http"), Vec::new()),
            },
            None => (rows::empty("http"), Vec::new()),
        };
        if self.feed.is_at_end() {
            self.turn()?;
        }
        if batch.rows() == 0 && undecodable.is_empty() && self.bookmark == self.offered {
            return Ok(None);
        }
        self.offered.clone_from(&self.bookmark);
        Ok(Some(SourceBatch {
            batch,
            position: self.bookmark.position(),
            undecodable,
        }))
    }
}

#[async_trait]
impl Source for HttpSource {
    async fn open(&mut self, after: Option<&Position>) -> Result<(), Fault> {
        self.close().await;
        self.bookmark = match after {
            Some(position) => Bookmark::read(position)?,
            None => Bookmark::start(self.start.clone()),
        };
        if self.settings.cursor.is_some() && self.bookmark.cursor.is_none() {
            self.bookmark.cursor.clone_from(&self.start);
        }
        self.offered.clone_from(&self.bookmark);
        let url = self.address()?;
        self.tag = self.bookmark.etag.clone().map(|etag| (url, etag));
        self.client.lock().await.connect().await.map_err(ClientError::fault)
    }

    async fn read(&mut self) -> Result<Read, Fault> {
        let until = Instant::now() + READ_WAIT_MAX;
        loop {
            match &mut self.state {
                State::Resting(then) if *then <= Instant::now() => self.poll()?,
                State::Resting(then) if *then > until => {
                    sleep_until(until).await;
                    return Ok(Read::Idle);
                }
                State::Resting(then) => sleep_until(*then).await,
                State::Asking(url, fetch) => {
                    let Ok(answered) = timeout(until.saturating_duration_since(Instant::now()), &mut fetch.0).await
                    else {
                        return Ok(Read::Idle);
                    };
                    let url = url.clone();
                    let answer = answered.map_err(|error| Fault::retry(format!("the request ended: {error}")))?;
                    let answer = answer.map_err(ClientError::fault)?;
                    self.receive(&url, &answer)?;
                }
                State::Reading(_) => {
                    if let Some(batch) = self.next_of_page()? {
                        return Ok(Read::Batch(batch));
                    }
                }
            }
        }
    }

    async fn check(&mut self) -> Result<String, Trouble> {
        self.bookmark = Bookmark::start(self.start.clone());
        self.bookmark.cursor.clone_from(&self.start);
        let url = self.address().map_err(|fault| reach::as_trouble(&fault))?;
        // What GET asks for changes nothing at the server, by what HTTP says of it.
        let ask = Ask {
            method: Method::GET,
            url: url.clone(),
            headers: Vec::new(),
            body: Bytes::new(),
            answer_bytes_max: self.settings.body_bytes_max,
        };
        let answer = self.client.lock().await.check_with(&ask).await?;
        let said = format!("{} answers {}", place(&url), answer.status);
        match answer.status.is_success() {
            true => Ok(said),
            false => Err(Trouble::new(
                TroubleKind::Other,
                said,
                "see what the server says to a GET of this address",
            )),
        }
    }

    async fn close(&mut self) {
        // What is on its way lets go of the client first.
        self.state = State::Resting(Instant::now());
        self.client.lock().await.close();
        self.feed.restart();
        self.tag = None;
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Address without its query, which may hold what nobody else should see.
fn place(url: &Url) -> String {
    format!("{}{}", url.origin().ascii_serialization(), url.path())
}

/// Where a link on a page leads to.
fn linked(page: &Url, link: &str) -> Result<String, String> {
    let url = page
        .join(link)
        .map_err(|error| format!("has a link to '{}', which is none: {error}", place_in(link)))?;
    if url.origin() != page.origin() {
        return Err(format!(
            "leads on to {}, another server, which is not followed",
            url.origin().ascii_serialization()
        ));
    }
    if url == *page {
        return Err("leads on to itself".to_string());
    }
    Ok(url.into())
}
