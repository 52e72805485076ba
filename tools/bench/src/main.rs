//! The program behind `cargo xtask bench`, which builds what is measured and says where it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use bench::report::{Measured, Report};
use bench::suite::{Bound, Setting, Suite, number};
use bench::suites::{self, Circumstances, JOBS, Job};
use clap::{Parser, Subcommand};

/// Benchmarks side by side.
///
/// `cargo xtask bench --only file --only latency` measures two suites and leaves the others in the report as they are.
#[derive(Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench")]
struct Cli {
    #[command(subcommand)]
    task: Option<Task>,
    /// Only this suite; may be given again
    #[arg(long, value_name = "SUITE", value_parser = JOBS.iter().map(|job| job.name).collect::<Vec<_>>())]
    only: Vec<String>,
    /// A fiftieth of the data, once: shows that everything works, and measures nothing
    #[arg(long)]
    quick: bool,
    /// Counted rounds
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
    /// Where REPORT.md and report.json go; docs/bench unless told, a scratch directory when quick
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Where files are written meanwhile: on the disk to be measured
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    scratch: PathBuf,
    /// Say what suites there are
    #[arg(long)]
    list: bool,
}

#[derive(Subcommand)]
enum Task {
    /// The file job as a bare loop: what others are compared with
    #[command(hide = true)]
    Ceiling {
        /// JSON lines
        input: PathBuf,
        /// JSON lines
        output: PathBuf,
    },
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    match &cli.task {
        Some(Task::Ceiling { input, output }) => return suites::file::convert(input, output),
        None if cli.list => {
            for Job { name, what, .. } in JOBS {
                println!("{name:<12} {what}");
            }
            return Ok(());
        }
        None => {}
    }
    let out = cli.out.clone().unwrap_or_else(|| match cli.quick {
        true => cli.scratch.join("quick"),
        false => PathBuf::from("docs/bench"),
    });
    let wanted = |job: &&Job| {
        let named = cli.only.is_empty() || cli.only.iter().any(|name| name == job.name);
        named && (job.can_be_quick || !cli.quick)
    };
    let names: Vec<&str> = JOBS.iter().map(|job| job.name).collect();
    let mut report = read(&out.join("report.json"))?;
    let mut missed = Vec::new();
    for job in JOBS.iter().filter(wanted) {
        eprintln!("{}: {}", job.name, job.what);
        let circumstances = Circumstances {
            quick: cli.quick,
            rounds: usize::try_from(cli.rounds)?,
            dir: fs::canonicalize(fresh(&cli.scratch.join(job.name))?)?,
        };
        let suite = (job.run)(&circumstances).with_context(|| format!("the suite {} failed", job.name))?;
        fs::remove_dir_all(&circumstances.dir).context("cannot clear up")?;
        missed.extend(misses(&suite));
        let setting = setting()?;
        report.put(Measured { setting, suite }, &names);
        // After each suite: what was measured is not lost when a later one fails.
        write(&out, &report)?;
    }
    println!("{} and report.json beside it", out.join("REPORT.md").display());
    if !cli.quick {
        for miss in missed {
            println!("goal not met: {miss}");
        }
    }
    Ok(())
}

fn fresh(dir: &Path) -> Result<&Path> {
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| format!("cannot empty {}", dir.display()))?;
    }
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}

fn read(path: &Path) -> Result<Report> {
    if !path.exists() {
        return Ok(Report::default());
    }
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text)
        .with_context(|| format!("{} is not a report; remove it to begin a new one", path.display()))
}

fn write(dir: &Path, report: &Report) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let json = serde_json::to_string_pretty(report)? + "\n";
    for (name, text) in [("REPORT.md", report.to_markdown()), ("report.json", json)] {
        let path = dir.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn misses(suite: &Suite) -> impl Iterator<Item = String> {
    suite.goals.iter().filter_map(|goal| {
        let median = suite.median(&goal.entry, &goal.metric);
        let (side, bound) = match goal.bound {
            Bound::AtMost(bound) => ("at most", bound),
            Bound::AtLeast(bound) => ("at least", bound),
        };
        (!goal.bound.is_met(median)).then(|| {
            let (bound, median) = (number(bound, 1), number(median, 1));
            format!(
                "{}, {}: {} of {side} {bound}: {median}",
                suite.name, goal.entry, goal.metric
            )
        })
    })
}

fn setting() -> Result<Setting> {
    let first = |path: &str, key: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
        line.split_once(':').map_or(line, |(_, value)| value).trim().to_string()
    };
    let kib: f64 = first("/proc/meminfo", "MemTotal")
        .split_whitespace()
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or(0.0);
    let cores = std::thread::available_parallelism()?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let machine = format!(
        "{cores} cores of {}, {:.0} GB of memory, Linux {}",
        first("/proc/cpuinfo", "model name"),
        kib * 1024.0 / 1e9,
        kernel.trim()
    );
    let mut commit = said(Command::new("git").args(["describe", "--always", "--exclude=*"]))?;
    // The report itself, which another suite may just have written, is nothing that is measured.
    let changed = [
        "status",
        "--porcelain",
        "--untracked-files=no",
        "--",
        ":/",
        ":(top,exclude)docs/bench",
    ];
    if !said(Command::new("git").args(changed))?.is_empty() {
        commit.push_str("-dirty");
    }
    let day = said(Command::new("date").args(["--utc", "+%F"]))?;
    Ok(Setting { machine, commit, day })
}

fn said(command: &mut Command) -> Result<String> {
    let done = command.output().with_context(|| format!("cannot run {command:?}"))?;
    if !done.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&done.stderr));
    }
    Ok(String::from_utf8_lossy(&done.stdout).trim().to_string())
}
