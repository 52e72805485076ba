//! `myceliald spool`: looks at the buffers of a stopped daemon, repairs them, and writes out what they hold. Never touches a
//! daemon that runs, but for one thing: [`examine`] looks at its buffers while they are in use.

use std::{
    collections::HashMap,
    fmt::Write as _,
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bus_link::{
    home::{Home, HomeError},
    secure::Secure,
};
use bus_schema::{
    data::{Batch, Cell, Op},
    id::StreamId,
    member::Signed,
    message::Frame,
    plan::Plan,
    subject,
};
use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};
use spool::{Hole, Limits, Report, Spool};
use stream::frames;

use crate::{
    aside::{self, Aside, Kind},
    assemble::stream_specs,
    standalone,
    streams::outgoing::{EDGE, Lineage, lineage_of, spool_dir, stream_dir},
};

const EXAMPLES: &str = "\
Examples (the daemon must be stopped):
  myceliald spool list                          what is buffered, by stream
  myceliald spool check 'db->store'             look closely at one buffer; changes nothing
  myceliald spool repair                        set damaged parts aside and save the rest
  myceliald spool export 'db->store' --to out/  write what is readable as JSON lines
  myceliald spool forget --yes                  remove what was set aside as damaged

A stream is named by its edge, its id or the beginning of its id.";

const FORGET_EXAMPLES: &str = "\
Examples (the daemon must be stopped):
  myceliald spool forget                     show what would go
  myceliald spool forget --yes               remove all that was set aside
  myceliald spool forget 'db->store' --yes   only what was set aside of this stream";

const EXITS: &str = "\
Exit codes: 0 nothing is wrong, 1 it did not work or the daemon is running, 2 wrong command line or no such stream,
4 a buffer is damaged.";

/// `myceliald spool …`
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES, after_help = EXITS)]
pub struct SpoolArguments {
    #[command(subcommand)]
    command: SpoolCommand,
    /// How to show it.
    #[arg(short, long, global = true, value_enum, default_value = "table")]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

#[derive(Debug, Subcommand)]
enum SpoolCommand {
    /// Show what is buffered, by stream.
    List,
    /// Look closely at all buffers or one, without changing anything.
    Check {
        /// Which one.
        stream: Option<String>,
    },
    /// Set damaged parts aside, save what is intact around them, and say what is lost.
    Repair {
        /// Which one; all by default.
        stream: Option<String>,
    },
    /// Write the records a buffer holds as JSON lines. Changes nothing.
    Export {
        /// Which one.
        stream: String,
        /// Directory for the file, instead of stdout.
        #[arg(long, value_name = "DIR")]
        to: Option<PathBuf>,
    },
    /// Remove what was set aside because it was damaged. Buffers in use stay as they are.
    #[command(before_help = FORGET_EXAMPLES)]
    Forget {
        /// Of which stream; everything in the daemon's directory by default.
        stream: Option<String>,
        /// Do it, instead of showing what would go.
        #[arg(long)]
        yes: bool,
    },
}

/// A `spool` command cannot do what it should.
#[derive(Debug, thiserror::Error)]
pub enum BufferError {
    /// The daemon runs.
    #[error(
        "the daemon that owns {0} is running, and its buffers are its own while it does\n  \
         hint: stop it first; to look from afar use: mycelial ledger"
    )]
    Running(String),
    /// There is nothing.
    #[error("there are no buffers in {0}\n  hint: name the daemon's directory with --data-dir")]
    Nothing(String),
    /// Not one of those there are.
    #[error("there is no stream '{wanted}' in this directory\n  hint: {hint}")]
    Unknown {
        /// What was asked for.
        wanted: String,
        /// What there is.
        hint: String,
    },
    /// See [`HomeError`].
    #[error(transparent)]
    Home(#[from] HomeError),
    /// See [`spool::Error`].
    #[error(transparent)]
    Spool(#[from] spool::Error),
    /// The key is lost.
    #[error("the key of {0} is lost or damaged: what is in its buffer cannot be read by anybody")]
    Key(String),
    /// The membership does not verify.
    #[error("the membership is damaged: {0}; without it no frame can be opened")]
    Membership(#[from] bus_schema::member::DocumentError),
    /// The file system said no.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: String,
        /// Why not.
        source: io::Error,
    },
}

impl BufferError {
    /// Whether the command line is to blame.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Nothing(_) | Self::Unknown { .. })
    }
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BufferError {
    let path = path.display().to_string();
    move |source| BufferError::Io { what, path, source }
}

/// One stream's files.
struct Buffer {
    stream: StreamId,
    /// `workflow: from->to`, as far as the cached plan knows it.
    name: Option<(String, String)>,
    dir: PathBuf,
}

impl Buffer {
    fn edge(&self) -> &str {
        self.name.as_ref().map_or("?", |(_, edge)| edge)
    }

    fn workflow(&self) -> &str {
        self.name.as_ref().map_or("?", |(workflow, _)| workflow)
    }

    fn is(&self, wanted: &str) -> bool {
        self.edge() == wanted || (wanted.len() >= 4 && self.stream.to_string().starts_with(wanted))
    }
}

/// What was found of one stream.
struct Look<'a> {
    buffer: &'a Buffer,
    report: Report,
    epoch: Option<u64>,
    /// Buffers that were given up as a whole earlier.
    lost: Vec<Aside>,
}

impl Look<'_> {
    fn trouble(&self) -> Vec<String> {
        let mut trouble = Vec::new();
        if self.epoch.is_none() {
            trouble.push("the key is lost: the next start sets the buffer aside and begins anew".to_string());
        }
        if self.report.lost_records > 0 {
            trouble.push(format!("{} records are lost to damage", self.report.lost_records));
        }
        if !self.report.is_clean() {
            let aside = self.report.quarantined.len();
            trouble.push(match aside {
                0 => "frames are missing; see: myceliald spool repair".to_string(),
                aside => format!("{aside} damaged segments were set aside as bad.*"),
            });
        }
        if !self.lost.is_empty() {
            trouble.push(format!(
                "{} whole buffers were set aside as spool.lost.*",
                self.lost.len()
            ));
        }
        trouble
    }

    /// What is wrong, each thing by itself.
    fn wrong(&self) -> Vec<String> {
        let report = &self.report;
        let holes = report.holes.iter().map(|hole| {
            let Hole {
                first_seq, last_seq, ..
            } = hole;
            format!("frames {first_seq} to {last_seq} are missing, {} records", hole.records)
        });
        let mut wrong: Vec<String> = holes.take(WRONG_MAX).collect();
        let end = report.segments.last().map(|tail| tail.end_seq);
        if let Some(acknowledged) = report
            .acknowledged_next_seq
            .filter(|next| end.is_some_and(|end| end < *next))
        {
            wrong.push(format!("frames before {acknowledged} were stored and are not there"));
        }
        if !report.quarantined.is_empty() {
            wrong.push(format!(
                "{} damaged segments were set aside as bad.*",
                report.quarantined.len()
            ));
        }
        if !self.lost.is_empty() {
            let lost = self.lost.len();
            wrong.push(format!("{lost} whole buffers were set aside as spool.lost.*"));
        }
        wrong
    }

    fn finding(&self) -> Finding {
        let (buffer, report) = (self.buffer, &self.report);
        let name = format!("{}: {}", buffer.workflow(), buffer.edge());
        let disk: u64 = report.segments.iter().map(|segment| segment.disk_bytes).sum();
        let (segments, held) = (report.segments.len(), report.held_records);
        Finding {
            text: format!(
                "{name}: good; {held} records wait in {segments} segments, {} KB on disk\n",
                disk / 1000
            ),
            name,
            trouble: self.wrong(),
        }
    }

    /// What of it was set aside, in parts or whole.
    fn aside(&self) -> impl Iterator<Item = &Path> {
        let whole = self.lost.iter().map(|aside| aside.path.as_path());
        self.report.quarantined.iter().map(PathBuf::as_path).chain(whole)
    }

    fn json(&self) -> Value {
        let report = &self.report;
        let segments = report.segments.iter();
        json!({
            "stream": self.buffer.stream.to_string(),
            "workflow": self.buffer.workflow(),
            "edge": self.buffer.edge(),
            "epoch": self.epoch,
            "watermark": report.watermark_seq,
            "next_seq": report.segments.last().map(|segment| segment.end_seq),
            "produced": report.produced_records,
            "delivered": report.delivered_records,
            "buffered": report.held_records,
            "dropped": report.dropped_records,
            "lost": report.lost_records,
            "disk_bytes": report.segments.iter().map(|segment| segment.disk_bytes).sum::<u64>(),
            "segments": segments.map(|segment| json!({
                "first_seq": segment.first_seq,
                "end_seq": segment.end_seq,
                "frames": segment.frames,
                "records": segment.records,
                "disk_bytes": segment.disk_bytes,
                "unfinished_frames": segment.unfinished_frames,
                "sealed": segment.sealed,
            })).collect::<Vec<_>>(),
            "holes": report.holes.iter().map(|hole| json!({
                "first_seq": hole.first_seq,
                "last_seq": hole.last_seq,
                "frames": hole.frames,
                "records": hole.records,
            })).collect::<Vec<_>>(),
            "set_aside": self.aside().map(|path| path.display().to_string()).collect::<Vec<_>>(),
            "trouble": self.trouble(),
        })
    }
}

/// Does what is asked; true if everything is in order. Blocks.
pub fn run(arguments: &SpoolArguments, data_dir: &Path) -> Result<bool, BufferError> {
    let streams = data_dir.join("streams");
    if !streams.is_dir() {
        return Err(BufferError::Nothing(data_dir.display().to_string()));
    }
    let home = Home::open(data_dir).map_err(|error| match error {
        HomeError::InUse(dir) => BufferError::Running(dir),
        other => other.into(),
    })?;
    let buffers = find(&home, &streams)?;
    let chosen = |wanted: &Option<String>| match wanted {
        Some(wanted) => one(&buffers, wanted).map(|buffer| vec![buffer]),
        None => Ok(buffers.iter().collect()),
    };
    match &arguments.command {
        SpoolCommand::List => {
            let looks = look(&home, &buffers.iter().collect::<Vec<_>>())?;
            show(&looks, arguments.output, false);
            if arguments.output == Output::Table {
                print!("{}", set_aside(&aside::list(home.dir()), &buffers));
            }
            Ok(looks.iter().all(|look| look.trouble().is_empty()))
        }
        SpoolCommand::Check { stream } => {
            let looks = look(&home, &chosen(stream)?)?;
            show(&looks, arguments.output, true);
            Ok(looks.iter().all(|look| look.trouble().is_empty()))
        }
        SpoolCommand::Repair { stream } => {
            let chosen = chosen(stream)?;
            for buffer in &chosen {
                repair(buffer)?;
            }
            let looks = look(&home, &chosen)?;
            show(&looks, arguments.output, true);
            Ok(true)
        }
        SpoolCommand::Forget { stream, yes } => {
            let stream = stream.as_ref().map(|wanted| one(&buffers, wanted)).transpose()?;
            let mut all = aside::list(home.dir());
            all.retain(|aside| stream.is_none_or(|buffer| aside.stream == Some(buffer.stream)));
            forget(&all, &buffers, *yes, arguments.output).map(|()| true)
        }
        SpoolCommand::Export { stream, to } => export(&home, one(&buffers, stream)?, to.as_deref()).map(|()| true),
    }
}

fn find(home: &Home, streams: &Path) -> Result<Vec<Buffer>, BufferError> {
    let names = names(home);
    let mut found = Vec::new();
    let entries = fs::read_dir(streams).map_err(io_error("read", streams))?;
    for entry in entries.flatten() {
        let Ok(stream) = entry.file_name().to_string_lossy().parse::<StreamId>() else {
            continue;
        };
        let dir = stream_dir(home.dir(), &stream);
        if spool_dir(&dir).is_dir() {
            let name = names.get(&stream).cloned().or_else(|| {
                let edge = fs::read_to_string(dir.join(EDGE)).ok()?;
                Some(("?".to_string(), edge))
            });
            found.push(Buffer { stream, name, dir });
        }
    }
    found.sort_by_key(|buffer| (buffer.workflow().to_string(), buffer.edge().to_string()));
    Ok(found)
}

/// Workflow and edge of each stream, from the cached plan. The names are for people: nothing depends on the signature.
fn names(home: &Home) -> HashMap<StreamId, (String, String)> {
    let plan = home.load("plan").ok().flatten();
    let signed = plan.and_then(|bytes| bus_schema::decode::<Signed<Plan>>(&bytes));
    let plan = signed.and_then(|signed| {
        let secure = secure(home).ok()?;
        signed.open(&secure.plane()?.keys.sign).ok()
    });
    let workflows = plan.map(|plan| plan.workflows).unwrap_or_default();
    let named = workflows.iter().flat_map(|workflow| {
        let specs = stream_specs(workflow).into_iter();
        specs.map(|spec| (spec.stream, (workflow.name.clone(), spec.edge)))
    });
    named.collect()
}

fn one<'a>(buffers: &'a [Buffer], wanted: &str) -> Result<&'a Buffer, BufferError> {
    let mut found = buffers.iter().filter(|buffer| buffer.is(wanted));
    match (found.next(), found.next()) {
        (Some(buffer), None) => Ok(buffer),
        (several, _) => {
            let ids: Vec<String> = match several {
                Some(_) => buffers
                    .iter()
                    .filter(|buffer| buffer.is(wanted))
                    .map(|b| b.stream.to_string())
                    .collect(),
                None => buffers.iter().map(|buffer| format!("'{}'", buffer.edge())).collect(),
            };
            let hint = match several {
                Some(_) => format!("several have this name, use an id: {}", ids.join(", ")),
                None => format!("there are: {}", ids.join(", ")),
            };
            Err(BufferError::Unknown {
                wanted: wanted.to_string(),
                hint,
            })
        }
    }
}

fn look<'a>(home: &Home, buffers: &[&'a Buffer]) -> Result<Vec<Look<'a>>, BufferError> {
    let mut looks = Vec::new();
    let aside = aside::list(home.dir());
    for buffer in buffers {
        let is_lost = |aside: &&Aside| aside.kind == Kind::Buffer && aside.stream == Some(buffer.stream);
        looks.push(Look {
            buffer,
            report: spool::check(&spool_dir(&buffer.dir))?,
            epoch: lineage_of(home, &buffer.stream).map(|lineage| lineage.epoch),
            lost: aside.iter().filter(is_lost).cloned().collect(),
        });
    }
    Ok(looks)
}

/// Looks at buffers that are in use before what is seen each time is believed.
const LOOKS: usize = 3;
/// Between two such looks.
const LOOK_AGAIN: Duration = Duration::from_millis(300);
/// Most things that are said to be wrong with one buffer.
const WRONG_MAX: usize = 8;

/// What [`examine`] found of one buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// `workflow: from->to`.
    pub name: String,
    /// A line for people.
    pub text: String,
    /// What is wrong; empty when nothing is.
    pub trouble: Vec<String>,
}

/// How many records wait in buffers of streams that are not among these: of workflows that are gone. Blocks.
pub fn waiting_beside(data_dir: &Path, planned: &[StreamId]) -> Result<u64, BufferError> {
    let streams = data_dir.join("streams");
    if !streams.is_dir() {
        return Ok(0);
    }
    let buffers = find(&Home::beside(data_dir), &streams)?;
    let others = buffers.iter().filter(|buffer| !planned.contains(&buffer.stream));
    let held = others.map(|buffer| Ok(spool::check(&spool_dir(&buffer.dir))?.held_records));
    held.sum()
}

/// Looks at the buffers of the daemon that runs. A buffer in use changes under the eye: only what is the same at several looks is
/// wrong. Changes nothing. Blocks.
pub fn examine(data_dir: &Path) -> Result<Vec<Finding>, BufferError> {
    let streams = data_dir.join("streams");
    if !streams.is_dir() {
        return Ok(Vec::new());
    }
    let home = Home::beside(data_dir);
    let buffers = find(&home, &streams)?;
    let all: Vec<&Buffer> = buffers.iter().collect();
    let mut found: Vec<Finding> = Vec::new();
    for number in 0..LOOKS {
        if number > 0 {
            std::thread::sleep(LOOK_AGAIN);
        }
        let looks = look(&home, &all)?;
        if number == 0 {
            found = looks.iter().map(Look::finding).collect();
        }
        for (one, look) in found.iter_mut().zip(&looks) {
            let still = look.wrong();
            one.trouble.retain(|wrong| still.contains(wrong));
        }
        if found.iter().all(|one| one.trouble.is_empty()) {
            break;
        }
    }
    Ok(found)
}

fn show(looks: &[Look<'_>], output: Output, closely: bool) {
    if output == Output::Json {
        let all: Vec<Value> = looks.iter().map(Look::json).collect();
        println!("{}", Value::Array(all));
        return;
    }
    let mut text = format!(
        "{:<16} {:<24} {:>10} {:>10} {:>10} {:>8} {:>10}  {}\n",
        "workflow", "stream", "buffered", "delivered", "dropped", "lost", "disk", "state"
    );
    for look in looks {
        let report = &look.report;
        let disk: u64 = report.segments.iter().map(|segment| segment.disk_bytes).sum();
        let trouble = look.trouble();
        let state = if trouble.is_empty() {
            "good".to_string()
        } else {
            trouble.join("; ")
        };
        let _infallible = writeln!(
            text,
            "{:<16} {:<24} {:>10} {:>10} {:>10} {:>8} {:>7} KB  {state}",
            look.buffer.workflow(),
            look.buffer.edge(),
            report.held_records,
            report.delivered_records,
            report.dropped_records,
            report.lost_records,
            disk / 1000,
        );
        if closely {
            let _infallible = write!(text, "{}", details(look));
        }
    }
    print!("{text}");
}

fn details(look: &Look<'_>) -> String {
    let mut text = format!("  id {}\n", look.buffer.stream);
    for segment in &look.report.segments {
        let sealed = match segment.sealed {
            Some(true) => "closed",
            Some(false) => "changed after it was closed, as reading does",
            None => "open when the daemon stopped",
        };
        let _infallible = writeln!(
            text,
            "  frames {:>8} to {:>8}: {} frames, {} records, {sealed}",
            segment.first_seq,
            segment.end_seq.saturating_sub(1),
            segment.frames,
            segment.records
        );
    }
    for hole in &look.report.holes {
        let _infallible = writeln!(
            text,
            "  frames {:>8} to {:>8}: lost, {} records",
            hole.first_seq, hole.last_seq, hole.records
        );
    }
    for path in look.aside() {
        let _infallible = writeln!(text, "  set aside: {}", path.display());
    }
    text
}

/// What was set aside, for people: nothing when there is nothing.
fn set_aside(all: &[Aside], buffers: &[Buffer]) -> String {
    let mut text = String::new();
    if !all.is_empty() {
        text.push_str("\nset aside as damaged, and in the way of nothing (remove with: myceliald spool forget)\n");
    }
    for aside in all {
        let of = |stream| buffers.iter().find(|buffer| buffer.stream == stream).map(Buffer::edge);
        let of = aside
            .stream
            .and_then(of)
            .map_or(String::new(), |edge| format!(" of {edge}"));
        let (bytes, what, path) = (aside.bytes / 1000, aside.kind.describe(), aside.path.display());
        let _infallible = writeln!(text, "{bytes:>8} KB  {what}{of}: {path}");
    }
    text
}

/// Removes what was set aside, or shows what would go.
fn forget(all: &[Aside], buffers: &[Buffer], is_meant: bool, output: Output) -> Result<(), BufferError> {
    if is_meant {
        for aside in all {
            aside::forget(aside).map_err(io_error("remove", &aside.path))?;
        }
    }
    let bytes: u64 = all.iter().map(|aside| aside.bytes).sum();
    if output == Output::Json {
        let paths = all.iter().map(|aside| aside.path.display().to_string());
        println!(
            "{}",
            json!({ "forgotten": is_meant, "bytes": bytes, "set_aside": paths.collect::<Vec<_>>() })
        );
        return Ok(());
    }
    if !is_meant {
        print!("{}", set_aside(all, buffers).trim_start());
    }
    match (all.len(), is_meant) {
        (0, _) => println!("nothing was set aside"),
        (count, true) => println!("forgotten: {count}, {} KB", bytes / 1000),
        (_, false) => eprintln!("hint: nothing was removed yet; to do it, add --yes"),
    }
    Ok(())
}

/// Opening mends what it finds; reading everything finds the rest.
fn repair(buffer: &Buffer) -> Result<(), BufferError> {
    let dir = spool_dir(&buffer.dir);
    // The real quota matters only for appending.
    let (mut spool, recovery) = Spool::open(&dir, Limits::default())?;
    let mut repairs = recovery.repairs;
    spool.take_repairs();
    let mut from = 0;
    while let Some(last) = spool.read(from, 64, 1024 * 1024)?.last() {
        from = last.seq + 1;
    }
    repairs.extend(spool.take_repairs());
    spool.close()?;
    for repair in repairs {
        eprintln!(
            "{}: segment {}: {}; {} frames saved{}",
            buffer.edge(),
            repair.first_seq,
            repair.reason,
            repair.saved_frames,
            repair.quarantined.map_or(String::new(), |path| format!(
                ", the damaged file is kept as {}",
                path.display()
            ))
        );
    }
    Ok(())
}

/// This daemon's keys and everybody's certificates, without counting a start.
fn secure(home: &Home) -> Result<Arc<Secure>, BufferError> {
    let membership = home.membership()?;
    let identity = home.identity()?;
    let membership = membership.unwrap_or_else(|| standalone::alone(&identity));
    Ok(Arc::new(Secure::new(identity, &membership, 0, [])?))
}

fn export(home: &Home, buffer: &Buffer, to: Option<&Path>) -> Result<(), BufferError> {
    let secure = secure(home)?;
    let lost = || BufferError::Key(buffer.edge().to_string());
    let lineage = lineage_of(home, &buffer.stream).ok_or_else(lost)?;
    let (mut out, path): (Box<dyn Write>, _) = match to {
        None => (Box::new(BufWriter::new(io::stdout().lock())), PathBuf::from("stdout")),
        Some(dir) => {
            fs::create_dir_all(dir).map_err(io_error("create", dir))?;
            let path = dir.join(format!("{}.jsonl", buffer.stream));
            let file = File::create_new(&path).map_err(io_error("create", &path))?;
            (Box::new(BufWriter::new(file)), path)
        }
    };
    let mut told = Told::default();
    let mut opener = Opener {
        secure: &secure,
        buffer,
        lineage: &lineage,
        assembly: frames::Assembly::default(),
    };
    spool::salvage(&spool_dir(&buffer.dir), |seq, _, bytes| {
        let lines = opener.lines(seq, bytes, &mut told);
        lines
            .iter()
            .try_for_each(|line| writeln!(out, "{line}"))
            .map_err(io_error("write", &path))
    })?;
    out.flush().map_err(io_error("write", &path))?;
    eprintln!("{} records written to {}", told.records, path.display());
    if told.unreadable > 0 {
        eprintln!("{} frames could not be opened and are left out", told.unreadable);
    }
    Ok(())
}

#[derive(Default)]
struct Told {
    records: u64,
    unreadable: u64,
}

struct Opener<'a> {
    secure: &'a Secure,
    buffer: &'a Buffer,
    lineage: &'a Lineage,
    assembly: frames::Assembly,
}

impl Opener<'_> {
    /// A frame as lines: a record each, or what a gap record says.
    fn lines(&mut self, seq: u64, bytes: &[u8], told: &mut Told) -> Vec<Value> {
        let stream = &self.buffer.stream;
        let subject = subject::data(self.secure.fleet(), self.secure.node(), stream);
        let opened = self.secure.open_frame(&subject, bytes, stream, &self.lineage.key).ok();
        let Some(frame) = opened.and_then(|(.., plaintext)| frames::read(&plaintext).ok()) else {
            told.unreadable += 1;
            return Vec::new();
        };
        if let Frame::Gap { dropped, lost, .. } = &frame {
            return vec![json!({ "seq": seq, "gap": { "dropped": dropped, "lost": lost } })];
        }
        match self.assembly.take(frame) {
            Ok(Some(arrived)) => {
                told.records += arrived.batch.rows() as u64;
                let rows = 0..arrived.batch.rows();
                rows.map(|row| line(seq, &arrived.batch, row)).collect()
            }
            Ok(None) => Vec::new(),
            Err(_) => {
                told.unreadable += 1;
                Vec::new()
            }
        }
    }
}

fn line(seq: u64, batch: &Batch, row: usize) -> Value {
    let fields = batch.schema().fields.iter().enumerate();
    let mut record = serde_json::Map::new();
    for (column, field) in fields {
        let value = match batch.cell(row, column) {
            // What is missing or unchanged is no null.
            Cell::Missing | Cell::Unchanged => continue,
            Cell::Null => Value::Null,
            Cell::Bool(v) => v.into(),
            Cell::I64(v) => v.into(),
            Cell::U64(v) => v.into(),
            Cell::F32(v) => v.into(),
            Cell::F64(v) => v.into(),
            Cell::Json(text) => serde_json::from_str(text).unwrap_or_else(|_| text.into()),
            cell => cell.to_string().into(),
        };
        record.insert(field.name.clone(), value);
    }
    let op = match batch.op(row) {
        Op::Insert => "insert",
        Op::Update => "update",
        Op::Delete => "delete",
        Op::Upsert => "upsert",
    };
    json!({
        "seq": seq,
        "collection": batch.schema().collection,
        "op": op,
        "record": record,
    })
}
