//! HTTP by hyper: services that take lines or give them, played in a thread of this process so that they are never what
//! is waited for, and the destinations and sources that speak to them.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use hyper::Method;
use testkit::{Cmd, bin, free_port};
use tokio::runtime::Runtime;

use super::web::{Answer, Asked, Asker, Server};
use super::{
    Lines, Race, generator, generator_with, into_file, json, memchr_lines, out, push_json, row, timed, to_its_end,
    until_lines,
};

/// Records in a request: what the destination sends unless told, and what the service gives at once.
const REQUEST_ROWS: u64 = 1_000;
/// Points in a request: what the destination `influxdb` sends unless told.
const POINTS: u64 = 5_000;
/// Those who call a webhook at once.
const CALLERS: usize = 8;
/// Bytes of an object and of its parts: what the destination `s3` makes unless told.
const OBJECT_BYTES: usize = 16_000_000;
const PART_BYTES: usize = 5 * 1024 * 1024;
/// The time of the first point, in nanoseconds and as the generator is told it.
const POINTS_START_NS: u64 = 1_767_225_600_000_000_000;
const POINTS_START: &str = "2026-01-01T00:00:00Z";
const MS: u64 = 1_000_000;
/// How long a daemon may take until it listens, and until it has stopped.
const SOON: Duration = Duration::from_secs(20);

/// The services.
pub(super) struct Services {
    server: Server,
    /// Lines that were posted or put so far.
    taken: Arc<AtomicU64>,
    /// All records in the order of their numbers, so many in a page.
    pages: Arc<Vec<Bytes>>,
    runtime: Runtime,
}

impl Services {
    /// Starts them, with so many records to give.
    pub(super) fn start(rows: u64) -> Result<Self> {
        let pages: Vec<Bytes> = (1..=rows)
            .step_by(REQUEST_ROWS as usize)
            .map(|first| page(first, rows))
            .collect();
        let (taken, pages) = (Arc::new(AtomicU64::new(0)), Arc::new(pages));
        let (counter, given) = (Arc::clone(&taken), Arc::clone(&pages));
        Ok(Self {
            server: Server::start(move |asked| Ok(answer(asked, &counter, &given)))?,
            taken,
            pages,
            runtime: super::runtime(),
        })
    }

    /// Runs what posts so many lines, and sees whether they have come.
    fn counted(&self, rows: u64, work: impl FnOnce() -> Result<f64>) -> Result<f64> {
        let before = self.taken.load(Ordering::Relaxed);
        let seconds = work()?;
        let found = self.taken.load(Ordering::Relaxed) - before;
        ensure!(found == rows, "{found} of {rows} lines were taken");
        Ok(seconds)
    }

    /// The races.
    pub(super) fn races(&self, rows: u64) -> Vec<Race<'_>> {
        let port = self.server.addr().port();
        vec![
            Race {
                name: "http source",
                note: "hyper, a page of a thousand records after the other",
                rows,
                ours: Box::new(move |dir| {
                    let text = format!(
                        "name = \"job\"\n\n[sources.in]\ntype = \"http\"\nurl = \"http://127.0.0.1:{port}/rows?after={{cursor}}\"\n\
                         cursor = {{ field = \"id\" }}\nstart = \"0\"\nformat = \"json_lines\"\n"
                    );
                    until_lines(dir, &format!("{text}{}", into_file(&out(dir))), &out(dir), rows)
                }),
                bare: Box::new(move |dir| timed(|| self.runtime.block_on(self.read(&out(dir), rows)))),
            },
            Race {
                name: "http destination",
                note: "hyper, a thousand records in a request",
                rows,
                ours: Box::new(move |dir| {
                    let place = format!("url = \"http://127.0.0.1:{port}/in\"\nformat = \"json_lines\"\n");
                    self.counted(rows, || deliver(dir, "http", &generator(rows), &place))
                }),
                bare: Box::new(move |_| self.counted(rows, || timed(|| self.runtime.block_on(self.post_rows(rows))))),
            },
            Race {
                name: "webhook source",
                note: "a hyper server; eight callers, a thousand records in a request, each answered when it is on disk \
                       (the loop answers at once)",
                rows,
                ours: Box::new(move |dir| self.webhook(dir, rows)),
                bare: Box::new(move |dir| self.bare_webhook(&out(dir), rows)),
            },
            Race {
                name: "influxdb destination",
                note: "hyper, five thousand points in a request",
                rows,
                ours: Box::new(move |dir| {
                    let place = format!(
                        "url = \"http://127.0.0.1:{port}\"\ndatabase = \"bench\"\nmeasurement = \"readings\"\n"
                    );
                    let more = format!("time = {{ kind = \"time\", start = \"{POINTS_START}\", step_ms = 1 }}\n");
                    self.counted(rows, || deliver(dir, "influxdb", &generator_with(rows, &more), &place))
                }),
                bare: Box::new(move |_| self.counted(rows, || timed(|| self.runtime.block_on(self.post_points(rows))))),
            },
            Race {
                name: "s3 destination",
                note: "hyper, objects of 16 MB in parts of 5 MiB; what the connector does besides, the loop does not: a \
                       copy on disk until the object is there, signatures and checksums",
                rows,
                ours: Box::new(move |dir| {
                    let place = format!(
                        "endpoint = \"http://127.0.0.1:{port}\"\nbucket = \"bench\"\nregion = \"eu-central-1\"\n\
                         access_key = \"key\"\nsecret_key = \"secret\"\nformat = \"json_lines\"\n"
                    );
                    self.counted(rows, || deliver(dir, "s3", &generator(rows), &place))
                }),
                bare: Box::new(move |_| self.counted(rows, || timed(|| self.runtime.block_on(self.put(rows))))),
            },
        ]
    }

    async fn read(&self, out: &Path, rows: u64) -> Result<()> {
        let mut asker = Asker::connect(self.server.addr()).await?;
        let (mut lines, mut last) = (Lines::create(out)?, 0);
        while last < rows as i64 {
            let page = asker
                .ask(Method::GET, &format!("/rows?after={last}"), Bytes::new())
                .await?;
            ensure!(!page.is_empty(), "nothing comes after {last}");
            for line in page.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                last = push_json(&mut lines, line)?;
            }
        }
        lines.finish()
    }

    async fn post_rows(&self, rows: u64) -> Result<()> {
        let mut asker = Asker::connect(self.server.addr()).await?;
        for first in (1..=rows).step_by(REQUEST_ROWS as usize) {
            asker.ask(Method::POST, "/in", page(first, rows)).await?;
        }
        Ok(())
    }

    async fn post_points(&self, rows: u64) -> Result<()> {
        let mut asker = Asker::connect(self.server.addr()).await?;
        for first in (1..=rows).step_by(POINTS as usize) {
            let mut body = String::new();
            for id in first..=rows.min(first + POINTS - 1) {
                let (row, time) = (row(id), POINTS_START_NS + (id - 1) * MS);
                writeln!(
                    body,
                    "readings id={}i,name=\"{}\",value={:?} {time}",
                    row.id, row.name, row.value
                )?;
            }
            asker.ask(Method::POST, "/write?db=bench", body.into()).await?;
        }
        Ok(())
    }

    /// Objects with the requests of the protocol, but for the signatures.
    async fn put(&self, rows: u64) -> Result<()> {
        let mut asker = Asker::connect(self.server.addr()).await?;
        let (mut id, mut object) = (0, Vec::new());
        while id < rows {
            object.clear();
            while id < rows && object.len() < OBJECT_BYTES {
                id += 1;
                object.extend_from_slice(json(&row(id)).as_bytes());
                object.push(b'\n');
            }
            let path = format!("/bench/{id}.jsonl");
            if object.len() <= PART_BYTES {
                asker.ask(Method::PUT, &path, Bytes::copy_from_slice(&object)).await?;
                continue;
            }
            asker
                .ask(Method::POST, &format!("{path}?uploads="), Bytes::new())
                .await?;
            for (at, part) in object.chunks(PART_BYTES).enumerate() {
                let path = format!("{path}?partNumber={}&uploadId=1", at + 1);
                asker.ask(Method::PUT, &path, Bytes::copy_from_slice(part)).await?;
            }
            asker
                .ask(Method::POST, &format!("{path}?uploadId=1"), Bytes::new())
                .await?;
        }
        Ok(())
    }

    /// The daemon listens, and is done when the last request was answered: then all of it is on disk.
    fn webhook(&self, dir: &Path, rows: u64) -> Result<f64> {
        let (port, job) = (free_port(), dir.join("job.toml"));
        let destination = into_file(&out(dir)).replace("\"in\"", "\"slim\"");
        let text = format!(
            "name = \"job\"\n\n[sources.in]\ntype = \"webhook\"\nlisten = \"127.0.0.1:{port}\"\npath = \"/in\"\n\
             format = \"json_lines\"\nanybody = true\n\n[transforms.slim]\ntype = \"select\"\nfrom = \"in\"\n\
             columns = [\"id\", \"name\", \"value\"]\n{destination}"
        );
        std::fs::write(&job, text)?;
        let started = Instant::now();
        let mut daemon = Cmd::new(bin("myceliald"))
            .arg("run")
            .arg(&job)
            .log(dir.join("log"))
            .spawn();
        let called = self.runtime.block_on(self.call(([127, 0, 0, 1], port).into()));
        called.with_context(|| format!("the webhook: {}", daemon.log()))?;
        let seconds = started.elapsed().as_secs_f64();
        daemon.term_and_wait(SOON);
        let found = memchr_lines(&out(dir))?;
        ensure!(found == rows, "{found} of {rows} lines");
        Ok(seconds)
    }

    fn bare_webhook(&self, out: &Path, rows: u64) -> Result<f64> {
        let lines = Arc::new(Mutex::new(Some(Lines::create(out)?)));
        let written = Arc::clone(&lines);
        let seconds = timed(|| {
            let server = Server::start(move |asked| {
                let mut lines = written.lock().unwrap_or_else(PoisonError::into_inner);
                let lines = lines.as_mut().context("it is over")?;
                for line in asked.body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                    push_json(lines, line)?;
                }
                Ok(Answer::default())
            })?;
            self.runtime.block_on(self.call(server.addr()))?;
            let lines = lines.lock().unwrap_or_else(PoisonError::into_inner).take();
            lines.context("it is over already")?.finish()
        })?;
        let found = memchr_lines(out)?;
        ensure!(found == rows, "{found} of {rows} lines");
        Ok(seconds)
    }

    /// Posts all pages, several at once, to who listens there or soon will.
    async fn call(&self, addr: std::net::SocketAddr) -> Result<()> {
        let give_up = Instant::now() + SOON;
        let callers = (0..CALLERS).map(|caller| async move {
            let mut asker = loop {
                match Asker::connect(addr).await {
                    Err(_) if Instant::now() < give_up => tokio::time::sleep(super::LOOK).await,
                    tried => break tried?,
                }
            };
            for page in self.pages.iter().skip(caller).step_by(CALLERS) {
                asker.ask(Method::POST, "/in", page.clone()).await?;
            }
            Ok::<(), anyhow::Error>(())
        });
        futures_util::future::try_join_all(callers).await?;
        Ok(())
    }
}

/// Records from a number on, as JSON lines.
fn page(first: u64, rows: u64) -> Bytes {
    let mut lines = String::new();
    for id in first..=rows.min(first + REQUEST_ROWS - 1) {
        lines.push_str(&json(&row(id)));
        lines.push('\n');
    }
    lines.into()
}

fn deliver(dir: &Path, kind: &str, source: &str, place: &str) -> Result<f64> {
    let text = format!("{source}[destinations.out]\ntype = \"{kind}\"\nfrom = \"in\"\n{place}");
    to_its_end(dir, &text)
}

/// What the services say: pages of records to who gets, and to who posts or puts what a store, a database or any other
/// service answers.
fn answer(asked: &Asked, taken: &AtomicU64, pages: &[Bytes]) -> Answer {
    let query = asked.uri.query().unwrap_or_default();
    let xml = |text: &'static str| Answer {
        body: Bytes::from_static(text.as_bytes()),
        ..Answer::default()
    };
    match asked.method {
        Method::GET if asked.uri.path() == "/rows" => {
            let after = query
                .strip_prefix("after=")
                .and_then(|after| after.parse::<usize>().ok());
            // Whoever goes on within a page gets the whole of it.
            let page = pages.get(after.unwrap_or(0) / REQUEST_ROWS as usize);
            Answer {
                body: page.cloned().unwrap_or_default(),
                ..Answer::default()
            }
        }
        Method::GET => xml("<ListMultipartUploadsResult><IsTruncated>false</IsTruncated></ListMultipartUploadsResult>"),
        Method::POST if query.starts_with("uploads") => xml(
            "<InitiateMultipartUploadResult><Bucket>bench</Bucket><Key>object</Key><UploadId>1</UploadId>\
             </InitiateMultipartUploadResult>",
        ),
        Method::POST if query.contains("uploadId=") => {
            xml("<CompleteMultipartUploadResult><ETag>\"whole\"</ETag></CompleteMultipartUploadResult>")
        }
        _ => {
            let lines = asked.body.iter().filter(|byte| **byte == b'\n').count();
            taken.fetch_add(lines as u64, Ordering::Relaxed);
            Answer {
                tag: Some("\"part\""),
                ..Answer::default()
            }
        }
    }
}
