//! `mycelial audit`: who did what. Entries are fetched and their chain is recomputed here, so that nobody has to take the plane's
//! word for it; the last hash that was seen is remembered beside the operator's keys.

mod fleet;

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bus_schema::{
    api::{ApiCall, ApiResult, Failure, FailureKind},
    audit::{AUDIT_PAGE_MAX, AuditCall, AuditEntry, AuditFault, AuditHead, AuditOutcome, AuditPage, AuditWish},
    control::{ControlCall, ControlResult},
    id::NodeId,
};
use clap::Subcommand;
use serde::{Deserialize, Serialize};

use crate::{
    answer::Answer,
    arguments::{Output, duration_s},
    client::{CliError, Client},
    names,
    render::{clock_time, table},
    requests::find_daemon,
};

/// Beside the operator's keys: the last place of each audit that was verified.
const HEADS: &str = "audit.heads";
/// Who keeps the audit, when it is no daemon.
const PLANE: &str = "plane";

/// `mycelial audit`
#[derive(Debug, Subcommand)]
pub enum Audit {
    /// Who did what, the newest last.
    List {
        /// Only of this member, user or API token.
        #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
        by: String,
        /// Only the last 90s, 30m, 24h, 7d.
        #[arg(long, value_name = "TIME", value_parser = duration_s)]
        since: Option<u64>,
        /// Only entries in which this occurs.
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        search: String,
        /// At most so many, the newest.
        #[arg(short = 'n', long, default_value_t = 50, value_name = "N")]
        lines: usize,
        /// A daemon's own audit, not the plane's.
        #[arg(long, add = names::daemons())]
        daemon: Option<String>,
        /// The audits of all daemons that this chooses, together.
        #[arg(short = 'l', long, value_name = "SELECTOR", add = names::selectors(), allow_hyphen_values = true, conflicts_with = "daemon")]
        select: Option<String>,
    },
    /// Recompute the chain of hashes: was an entry altered, removed or put elsewhere? Exit code 3: one was.
    Verify {
        /// A daemon's own audit, not the plane's.
        #[arg(long, add = names::daemons())]
        daemon: Option<String>,
        /// The audits of all daemons that this chooses, together.
        #[arg(short = 'l', long, value_name = "SELECTOR", add = names::selectors(), allow_hyphen_values = true, conflicts_with = "daemon")]
        select: Option<String>,
        /// A file that `audit export` has written; asks nobody.
        #[arg(long, value_name = "FILE", conflicts_with_all = ["daemon", "select"])]
        file: Option<PathBuf>,
    },
    /// Write the whole audit, an object a line, so that it can be kept elsewhere and verified there.
    Export {
        /// Where to; stdout when it is left out.
        file: Option<PathBuf>,
        /// A daemon's own audit, not the plane's.
        #[arg(long, add = names::daemons())]
        daemon: Option<String>,
    },
    /// Who did how much of what, and how often it was refused or failed.
    Report {
        /// Of the last 90s, 30m, 24h, 7d.
        #[arg(long, default_value = "7d", value_name = "TIME", value_parser = duration_s)]
        since: u64,
        /// A daemon's own audit, not the plane's.
        #[arg(long, add = names::daemons())]
        daemon: Option<String>,
        /// The audits of all daemons that this chooses, together.
        #[arg(short = 'l', long, value_name = "SELECTOR", add = names::selectors(), allow_hyphen_values = true, conflicts_with = "daemon")]
        select: Option<String>,
    },
}

/// Whose audit is asked for.
struct Keeper<'a> {
    client: &'a Client,
    daemon: Option<(String, NodeId)>,
}

impl Keeper<'_> {
    fn name(&self) -> String {
        self.daemon
            .as_ref()
            .map_or(PLANE.to_string(), |(_, node)| node.to_string())
    }

    async fn ask(&self, call: AuditCall) -> Result<AuditPage, CliError> {
        let other = || CliError::Failed("something else was answered".to_string());
        match &self.daemon {
            None => match self.client.call(&ApiCall::Audit(call)).await? {
                ApiResult::Audit(page) => Ok(page),
                _ => Err(other()),
            },
            Some((name, node)) => match self.client.ask(name, node, &ControlCall::Audit(call)).await? {
                ControlResult::Audit(page) => Ok(page),
                ControlResult::Failed(failure) => Err(CliError::Refused(failure)),
                _ => Err(other()),
            },
        }
    }

    /// All entries, the oldest first, as they come; the places before the first and at the end.
    async fn each(
        &self,
        mut take: impl FnMut(&AuditHead, &AuditEntry) -> Result<(), CliError>,
    ) -> Result<(AuditHead, AuditHead), CliError> {
        let mut after = 0;
        loop {
            let AuditPage { cut, entries, head } = self.ask(AuditCall::Chain { after }).await?;
            let Some(last) = entries.last().map(|entry| entry.number) else {
                return Ok((cut, head));
            };
            entries.iter().try_for_each(|entry| take(&cut, entry))?;
            if last <= after {
                return Err(CliError::Failed("the audit does not go on".to_string()));
            }
            after = last;
            if last >= head.number {
                return Ok((cut, head));
            }
        }
    }

    /// The newest entries that are wanted, the newest last.
    async fn newest(&self, wish: AuditWish, most: usize) -> Result<Vec<AuditEntry>, CliError> {
        let (mut found, mut before) = (Vec::new(), 0);
        while found.len() < most {
            let left = u16::try_from(most - found.len())
                .unwrap_or(u16::MAX)
                .min(AUDIT_PAGE_MAX);
            let call = AuditCall::Search {
                before,
                most: left,
                wish: wish.clone(),
            };
            let page = self.ask(call).await?;
            let is_last = page.entries.len() < usize::from(left);
            before = page.entries.last().map_or(0, |entry| entry.number);
            found.extend(page.entries);
            if is_last || before <= 1 {
                break;
            }
        }
        found.reverse();
        Ok(found)
    }
}

fn now_unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn ago_unix_ms(seconds: u64) -> i64 {
    now_unix_ms().saturating_sub_unsigned(seconds.saturating_mul(1_000))
}

/// Does what was typed.
pub async fn run(dir: &Path, timeout: Duration, output: Output, what: Audit) -> Result<(), CliError> {
    if let Audit::Verify { file: Some(file), .. } = &what {
        return verify_file(output, file);
    }
    let client = Client::connect(dir, timeout, Vec::new()).await?;
    let done = ask(&client, dir, output, what).await;
    client.close().await;
    done
}

async fn ask(client: &Client, dir: &Path, output: Output, what: Audit) -> Result<(), CliError> {
    let what = match of_many(what) {
        Ok((selector, what)) => return many(client, dir, output, selector, what).await,
        Err(what) => what,
    };
    let (Audit::List { daemon, .. }
    | Audit::Verify { daemon, .. }
    | Audit::Export { daemon, .. }
    | Audit::Report { daemon, .. }) = &what;
    let daemon = match daemon {
        Some(name) => Some((name.clone(), find_daemon(client, name).await?)),
        None => None,
    };
    let keeper = Keeper { client, daemon };
    match what {
        Audit::List {
            by,
            since,
            search,
            lines,
            ..
        } => {
            let wish = wish(by, since, search);
            let found = keeper.newest(wish, lines).await?;
            Answer::new(
                &found,
                found.iter().map(|entry| entry.number.to_string()),
                listed(&found),
            )
            .print(output);
            Ok(())
        }
        Audit::Verify { .. } => verify(&keeper, dir, output).await,
        Audit::Export { file, .. } => export(&keeper, file).await,
        Audit::Report { since, .. } => {
            let mut counts = Counts::default();
            let since = ago_unix_ms(since);
            keeper
                .each(|_, entry| {
                    counts.since(since, entry);
                    Ok(())
                })
                .await?;
            let report = counts.report();
            let names = report.iter().map(|line| format!("{}: {}", line.who, line.action));
            Answer::new(&report, names, reported(&report)).print(output);
            Ok(())
        }
    }
}

/// The selector of what is asked of many daemons; what is asked of one, or of the plane, comes back.
fn of_many(mut what: Audit) -> Result<(String, Audit), Audit> {
    let select = match &mut what {
        Audit::List { select, .. } | Audit::Verify { select, .. } | Audit::Report { select, .. } => select.take(),
        Audit::Export { .. } => None,
    };
    match select {
        Some(select) => Ok((select, what)),
        None => Err(what),
    }
}

async fn many(client: &Client, dir: &Path, output: Output, selector: String, what: Audit) -> Result<(), CliError> {
    match what {
        Audit::List {
            by,
            since,
            search,
            lines,
            ..
        } => fleet::list(client, output, selector, &wish(by, since, search), lines).await,
        Audit::Report { since, .. } => fleet::report(client, output, selector, ago_unix_ms(since)).await,
        Audit::Verify { .. } | Audit::Export { .. } => fleet::verify(client, dir, output, selector).await,
    }
}

fn wish(by: String, since: Option<u64>, search: String) -> AuditWish {
    AuditWish {
        by,
        since_unix_ms: since.map_or(0, ago_unix_ms),
        search,
    }
}

fn word(outcome: AuditOutcome) -> &'static str {
    match outcome {
        AuditOutcome::Done => "done",
        AuditOutcome::Refused => "refused",
        AuditOutcome::Failed => "failed",
    }
}

fn cells(entry: &AuditEntry) -> Vec<String> {
    let event = &entry.event;
    vec![
        entry.number.to_string(),
        clock_time(event.at_unix_ms)[..19].to_string(),
        event.who.clone(),
        event.from.clone(),
        event.action.clone(),
        event.what.clone(),
        word(event.outcome).to_string(),
        event.cause.clone(),
    ]
}

fn listed(entries: &[AuditEntry]) -> String {
    let rows: Vec<_> = entries.iter().map(cells).collect();
    table(
        &["number", "when (UTC)", "who", "from", "did", "what", "outcome", "cause"],
        &rows,
    )
}

/// How often somebody did something.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Line {
    who: String,
    action: String,
    done: u64,
    refused: u64,
    failed: u64,
    last_unix_ms: i64,
}

#[derive(Default)]
struct Counts(BTreeMap<(String, String), ([u64; 3], i64)>);

impl Counts {
    /// Counts an entry, unless it is older.
    fn since(&mut self, since_unix_ms: i64, entry: &AuditEntry) {
        if entry.event.at_unix_ms >= since_unix_ms {
            self.add(entry);
        }
    }

    /// Counts what others have counted, too.
    fn join(&mut self, others: Self) {
        for (key, (more, later)) in others.0 {
            let (counts, last) = self.0.entry(key).or_default();
            counts.iter_mut().zip(more).for_each(|(count, more)| *count += more);
            *last = (*last).max(later);
        }
    }

    fn add(&mut self, entry: &AuditEntry) {
        let event = &entry.event;
        let (counts, last) = self.0.entry((event.who.clone(), event.action.clone())).or_default();
        let index = match event.outcome {
            AuditOutcome::Done => 0,
            AuditOutcome::Refused => 1,
            AuditOutcome::Failed => 2,
        };
        counts[index] += 1;
        *last = (*last).max(event.at_unix_ms);
    }

    fn report(self) -> Vec<Line> {
        type Counted = ((String, String), ([u64; 3], i64));
        let line = |((who, action), ([done, refused, failed], last_unix_ms)): Counted| Line {
            who,
            action,
            done,
            refused,
            failed,
            last_unix_ms,
        };
        self.0.into_iter().map(line).collect()
    }
}

fn counted(line: &Line) -> Vec<String> {
    vec![
        line.who.clone(),
        line.action.clone(),
        line.done.to_string(),
        line.refused.to_string(),
        line.failed.to_string(),
        clock_time(line.last_unix_ms)[..19].to_string(),
    ]
}

fn reported(report: &[Line]) -> String {
    let rows: Vec<_> = report.iter().map(counted).collect();
    table(&["who", "did", "done", "refused", "failed", "last (UTC)"], &rows)
}

/// A chain that is being checked against itself, and against what is remembered of it.
struct Check {
    at: Option<AuditHead>,
    remembered: Option<AuditHead>,
    entries: u64,
}

impl Check {
    fn new(remembered: Option<AuditHead>) -> Self {
        Self {
            at: None,
            remembered,
            entries: 0,
        }
    }

    fn compare(&self, place: &AuditHead) -> Result<(), AuditFault> {
        match &self.remembered {
            Some(remembered) if remembered.number == place.number && remembered != place => {
                Err(AuditFault::Remembered { number: place.number })
            }
            _ => Ok(()),
        }
    }

    fn take(&mut self, cut: &AuditHead, entry: &AuditEntry) -> Result<(), AuditFault> {
        let mut at = match self.at.take() {
            Some(at) => at,
            None => {
                self.compare(cut)?;
                cut.clone()
            }
        };
        at.take(entry)?;
        self.compare(&at)?;
        self.entries += 1;
        self.at = Some(at);
        Ok(())
    }

    fn end(mut self, cut: AuditHead, head: &AuditHead) -> Result<Verified, AuditFault> {
        let at = match self.at.take() {
            Some(at) => at,
            None => {
                self.compare(&cut)?;
                cut.clone()
            }
        };
        at.ends(head)?;
        match &self.remembered {
            Some(remembered) if remembered.number > at.number => Err(AuditFault::End {
                expected: remembered.number,
                found: at.number,
            }),
            remembered => Ok(Verified {
                entries: self.entries,
                first: cut.number + 1,
                last: at.number,
                hash: at.hash,
                since: remembered
                    .as_ref()
                    .map(|remembered| remembered.number)
                    .filter(|number| *number >= cut.number),
                out_of_reach: remembered
                    .as_ref()
                    .map(|remembered| remembered.number)
                    .filter(|number| *number < cut.number),
            }),
        }
    }
}

/// A chain that holds.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Verified {
    /// How many entries there are.
    entries: u64,
    /// The first; those before were cut off because there were too many.
    first: u64,
    /// The last.
    last: u64,
    /// Its hash.
    hash: String,
    /// The last entry when it was verified before, from here; the chain contains it still.
    since: Option<u64>,
    /// The last entry when it was verified before, when it has been cut off meanwhile: nothing could be compared with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    out_of_reach: Option<u64>,
}

fn broken(fault: &AuditFault) -> CliError {
    CliError::Refused(Failure {
        kind: FailureKind::Invalid,
        message: format!("the audit does not hold: {fault}"),
        hint: "compare it with an export from before: mycelial audit verify --file FILE".to_string(),
        problems: Vec::new(),
    })
}

/// What can be said of a chain that holds.
fn holds(verified: &Verified) -> String {
    let cut = match verified.first {
        1 => String::new(),
        first => format!("; what was before entry {first} has been cut off"),
    };
    let since = match (verified.since, verified.out_of_reach) {
        (Some(number), _) => format!(" and continues what was verified before (entry {number})"),
        (None, Some(number)) => format!(
            ", but does not reach back to what was verified before (entry {number}): compare it with an export from before"
        ),
        (None, None) => String::new(),
    };
    format!("the chain of {} entries holds{since}{cut}", verified.entries)
}

fn told(output: Output, verified: &Verified) {
    let text = format!("{}\nlast  {}  {}\n", holds(verified), verified.last, verified.hash);
    Answer::new(verified, [verified.hash.clone()], text).print(output);
}

/// The last place of each audit that was verified.
fn remembered(path: &Path) -> Result<BTreeMap<String, AuditHead>, CliError> {
    let cannot = |cause: String| {
        CliError::Failed(format!(
            "cannot read {}, which says what was verified before: {cause}; without it nothing would be compared: restore it, or \
             move it aside to begin anew",
            path.display()
        ))
    };
    match fs::read(path) {
        Ok(kept) => serde_json::from_slice(&kept).map_err(|error| cannot(error.to_string())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(cannot(error.to_string())),
    }
}

async fn verify(keeper: &Keeper<'_>, dir: &Path, output: Output) -> Result<(), CliError> {
    let path = dir.join(HEADS);
    let mut heads = remembered(&path)?;
    let name = keeper.name();
    let mut check = Check::new(heads.get(&name).cloned());
    let (cut, head) = keeper
        .each(|cut, entry| check.take(cut, entry).map_err(|fault| broken(&fault)))
        .await?;
    // While it was read, entries may have been added: the chain is as good up to where it was read.
    let verified = check.end(cut, &head).map_err(|fault| broken(&fault))?;
    told(output, &verified);
    heads.insert(name, head);
    remember(&path, &heads)
}

/// Keeps the last place of each audit for the next time.
fn remember(path: &Path, heads: &BTreeMap<String, AuditHead>) -> Result<(), CliError> {
    let text = serde_json::to_vec_pretty(heads).unwrap_or_default();
    let saved = bus_link::home::write_atomic(path, &text);
    saved.map_err(|error| {
        CliError::Failed(format!(
            "cannot remember what was verified in {}: {error}",
            path.display()
        ))
    })
}

/// The first and the last line of an export.
#[derive(Serialize, Deserialize)]
struct Edge {
    /// After which place it begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cut: Option<AuditHead>,
    /// Where it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    head: Option<AuditHead>,
}

async fn export(keeper: &Keeper<'_>, file: Option<PathBuf>) -> Result<(), CliError> {
    let cannot = |error: std::io::Error| match &file {
        Some(path) => CliError::Usage(format!("cannot write {}: {error}", path.display())),
        None => CliError::Failed(format!("cannot write: {error}")),
    };
    let mut out: Box<dyn std::io::Write> = match &file {
        Some(path) => Box::new(std::io::BufWriter::new(fs::File::create(path).map_err(cannot)?)),
        None => Box::new(std::io::stdout().lock()),
    };
    let mut begun = false;
    let (cut, head) = keeper
        .each(|cut, entry| {
            if !std::mem::replace(&mut begun, true) {
                writeln!(out, "{}", line(&begins(cut))?).map_err(cannot)?;
            }
            writeln!(out, "{}", line(entry)?).map_err(cannot)
        })
        .await?;
    if !begun {
        writeln!(out, "{}", line(&begins(&cut))?).map_err(cannot)?;
    }
    let end = Edge {
        cut: None,
        head: Some(head.clone()),
    };
    writeln!(out, "{}", line(&end)?)
        .and_then(|()| out.flush())
        .map_err(cannot)?;
    if let Some(path) = &file {
        eprintln!("{} entries are in {}", head.number - cut.number, path.display());
    }
    Ok(())
}

fn line(value: &impl Serialize) -> Result<String, CliError> {
    serde_json::to_string(value).map_err(|error| CliError::Failed(error.to_string()))
}

fn begins(cut: &AuditHead) -> Edge {
    Edge {
        cut: Some(cut.clone()),
        head: None,
    }
}

fn verify_file(output: Output, path: &Path) -> Result<(), CliError> {
    let wrong = |what: String| CliError::Usage(format!("{}: {what}", path.display()));
    let text = fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let lines: Vec<&str> = text.lines().collect();
    let edge = |line: Option<&&str>| line.and_then(|line| serde_json::from_str::<Edge>(line).ok());
    let not_whole = || wrong("this is no whole export; make one with: mycelial audit export FILE".to_string());
    let cut = edge(lines.first()).and_then(|edge| edge.cut).ok_or_else(not_whole)?;
    let head = edge(lines.last()).and_then(|edge| edge.head).ok_or_else(not_whole)?;
    let mut check = Check::new(None);
    for (at, line) in lines[1..lines.len() - 1].iter().enumerate() {
        let entry: AuditEntry =
            serde_json::from_str(line).map_err(|error| wrong(format!("line {} is no entry: {error}", at + 2)))?;
        check.take(&cut, &entry).map_err(|fault| broken(&fault))?;
    }
    let verified = check.end(cut, &head).map_err(|fault| broken(&fault))?;
    told(output, &verified);
    Ok(())
}

#[cfg(test)]
mod tests {
    use bus_schema::audit::AuditEvent;

    use super::*;

    fn entries(from: AuditHead, count: i64) -> Vec<AuditEntry> {
        let mut head = from;
        let mut all = Vec::new();
        for n in 1..=count {
            let event = AuditEvent::new(n, "anna", "bus", "deploy a workflow", "orders");
            let event = if n == 2 {
                event.but(AuditOutcome::Failed, "no room")
            } else {
                event
            };
            let entry = head.next(event);
            head = AuditHead::from(&entry);
            all.push(entry);
        }
        all
    }

    fn check(remembered: Option<AuditHead>, cut: &AuditHead, all: &[AuditEntry]) -> Result<Verified, AuditFault> {
        let mut check = Check::new(remembered);
        all.iter().try_for_each(|entry| check.take(cut, entry))?;
        check.end(cut.clone(), &all.last().map_or(cut.clone(), AuditHead::from))
    }

    #[test]
    fn what_is_remembered_has_to_be_in_the_chain() {
        let (none, whole) = (AuditHead::default(), entries(AuditHead::default(), 5));
        let place = |n: usize| AuditHead::from(&whole[n - 1]);
        assert_eq!(check(None, &none, &whole).unwrap().last, 5);
        for n in 1..=5 {
            assert_eq!(
                check(Some(place(n)), &none, &whole).unwrap().since,
                Some(n as u64),
                "{n}"
            );
        }
        // Made anew, and consistent in itself.
        let other = AuditHead {
            number: 0,
            hash: "elsewhere".to_string(),
        };
        let anew = entries(other.clone(), 5);
        assert_eq!(
            check(Some(place(3)), &other, &anew),
            Err(AuditFault::Remembered { number: 3 })
        );
        assert_eq!(
            check(Some(place(5)), &none, &whole[..3]),
            Err(AuditFault::End { expected: 5, found: 3 })
        );
        // What was cut off can only be compared at the place of the cut, and before that nothing is claimed.
        let cut = |n: usize| check(Some(place(n)), &place(2), &whole[2..]).map(|it| (it.since, it.out_of_reach));
        assert_eq!(cut(1), Ok((None, Some(1))));
        assert_eq!(cut(2), Ok((Some(2), None)));
        assert_eq!(cut(4), Ok((Some(4), None)));
    }

    #[test]
    fn what_was_remembered_and_cannot_be_read_is_no_beginning() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(HEADS);
        assert_eq!(remembered(&path).unwrap(), BTreeMap::new());
        fs::write(&path, "{").unwrap();
        let error = remembered(&path).unwrap_err().to_string();
        assert!(error.contains("move it aside"), "{error}");
    }

    #[test]
    fn an_export_is_verified_without_anybody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let whole = entries(AuditHead::default(), 3);
        let edge = |cut, head| serde_json::to_string(&Edge { cut, head }).unwrap();
        let mut lines = vec![edge(Some(AuditHead::default()), None)];
        lines.extend(whole.iter().map(|entry| serde_json::to_string(entry).unwrap()));
        lines.push(edge(None, Some(AuditHead::from(&whole[2]))));
        fs::write(&path, lines.join("\n")).unwrap();
        verify_file(Output::Name, &path).unwrap();
        for (from, to, said) in [
            ("anna", "bert", "entry 1 was altered"),
            (lines[2].as_str(), "", "no entry"),
            ("no room", "some room", "entry 2 was altered"),
        ] {
            fs::write(&path, lines.join("\n").replacen(from, to, 1)).unwrap();
            let error = verify_file(Output::Name, &path).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        fs::write(&path, lines[..4].join("\n")).unwrap();
        assert_eq!(verify_file(Output::Name, &path).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn a_report_counts() {
        let mut counts = Counts::default();
        for entry in entries(AuditHead::default(), 3) {
            counts.add(&entry);
        }
        let report = counts.report();
        assert_eq!((report[0].done, report[0].refused, report[0].failed), (2, 0, 1));
        assert!(reported(&report).contains("deploy a workflow"), "{}", reported(&report));
    }
}
