//! `cargo xtask up`: builds everything, starts a broker, the plane and two daemons, moves real data between them, shows it,
//! and at the end checks that every row arrived. Leaves no process behind.

mod children;
mod demo;
mod ports;

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use self::children::Children;
use crate::{cmd, metadata::Metadata, setup, ui};

/// Marks a directory as one that `up` made and may empty.
const MARKER: &str = ".mycelial-up";
/// How often progress is shown.
const PROGRESS_EVERY: Duration = Duration::from_secs(3);
/// How long the rest may take to arrive once the writer has stopped.
const SETTLE_MAX: Duration = Duration::from_secs(120);

/// What `cargo xtask up` can be told.
#[derive(clap::Args)]
pub struct Args {
    /// Stop by itself after this long: 60s, 5m
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    time: Option<Duration>,
    /// Where everything lives; emptied first [default: target/demo]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Where the web page listens; the next free port if that one is taken
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7777")]
    http: String,
    /// Use this broker instead of the embedded one: nats://127.0.0.1:4222, mqtt://127.0.0.1:1883
    #[arg(long, value_name = "URL")]
    bus: Option<String>,
    /// Cargo profile of the binaries
    #[arg(long, default_value = "up")]
    profile: String,
}

static STOP: AtomicBool = AtomicBool::new(false);

/// Runs the task.
pub fn run(args: &Args) -> Result<()> {
    setup::ensure_build_tools()?;
    ctrlc::set_handler(|| STOP.store(true, Ordering::Relaxed)).context("cannot listen to Ctrl-C")?;
    // Before the build, which takes minutes. Not `target/up`: that is where cargo keeps the profile of that name.
    let dir = fresh_dir(args.dir.clone().unwrap_or_else(|| cmd::root().join("target/demo")))?;
    let bins = build(&args.profile)?;
    let mut children = Children::new(&bins, &dir)?;
    let outcome = show(args, &dir, &mut children);
    if outcome.is_err() {
        children.show_logs();
    }
    children.stop_all()?;
    outcome
}

fn build(profile: &str) -> Result<PathBuf> {
    ui::build()?;
    eprintln!("building (the first time takes some minutes) …");
    let packages = ["edge-daemon", "plane", "broker", "cli", "testkit"];
    let mut build = cmd::cargo();
    build.args(["build", "--bins", "--profile", profile]);
    for package in packages {
        build.args(["-p", package]);
    }
    cmd::run(&mut build)?;
    let folder = if profile == "dev" { "debug" } else { profile };
    Ok(Metadata::load()?.target_directory.join(folder))
}

/// An empty directory; refuses to empty one that `up` did not make.
fn fresh_dir(dir: PathBuf) -> Result<PathBuf> {
    if dir.exists() {
        let entries = std::fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))?;
        if entries.count() > 0 && !dir.join(MARKER).exists() {
            bail!("{} holds something else; choose an empty --dir", dir.display());
        }
        std::fs::remove_dir_all(&dir).with_context(|| format!("cannot empty {}", dir.display()))?;
    }
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    std::fs::write(dir.join(MARKER), "made by cargo xtask up; emptied by the next run\n")?;
    dir.canonicalize()
        .with_context(|| format!("cannot find {}", dir.display()))
}

fn show(args: &Args, dir: &Path, children: &mut Children) -> Result<()> {
    let bus = start_bus(args, dir, children)?;
    let http = ports::free_from(&args.http, "the web page")?;
    let page = start_plane(&bus, &http, dir, children)?;
    enrol_everybody(dir, children, &page.operator)?;
    demo::prepare(dir, children)?;
    children.start("gateway", "myceliald", &["start", "--data-dir", &text(dir, "gateway")])?;
    children.start("hub", "myceliald", &["start", "--data-dir", &text(dir, "hub")])?;
    demo::deploy(dir, children)?;
    where_to_look(dir, &page, children);
    let ended = watch(args.time, children)?;
    let checked = demo::finish(dir, children, SETTLE_MAX);
    println!("\n{}", children.cli(&["ledger"]).unwrap_or_default());
    checked?;
    ended.map_or(Ok(()), |name| {
        bail!("{name} ended by itself; its log is {}/{name}.log", dir.display())
    })
}

fn text(dir: &Path, name: &str) -> String {
    dir.join(name).display().to_string()
}

/// Where the bus is: a broker that is there, or the embedded one, which the plane's `init` configures.
fn start_bus(args: &Args, dir: &Path, children: &mut Children) -> Result<String> {
    let plane = text(dir, "plane");
    if let Some(bus) = &args.bus {
        children.run("mycelial-plane", &["init", "--dir", &plane, "--bus", bus])?;
        return Ok(bus.clone());
    }
    let address = ports::free_from("127.0.0.1:1883", "the broker")?;
    let bus = format!("mqtt://{address}");
    children.run("mycelial-plane", &["init", "--dir", &plane, "--embedded", &bus])?;
    let config = dir.join("plane").join("broker.toml").display().to_string();
    children.start("broker", "mycelial-broker", &["--config", &config])?;
    children.wait_for_log("broker", "listening")?;
    Ok(bus)
}

/// What the plane printed at its first start.
struct Page {
    operator: String,
    link: String,
    bus: String,
}

fn start_plane(bus: &str, http: &str, dir: &Path, children: &mut Children) -> Result<Page> {
    children.start(
        "plane",
        "mycelial-plane",
        &["run", "--dir", &text(dir, "plane"), "--http", http],
    )?;
    let operator = children.wait_for_word("plane", |word| word.starts_with("myc1") && word.len() > 64)?;
    let link = children.wait_for_word("plane", |word| word.starts_with("http://") && word.contains("login"))?;
    Ok(Page {
        operator,
        link,
        bus: bus.to_string(),
    })
}

fn enrol_everybody(dir: &Path, children: &Children, operator: &str) -> Result<()> {
    children.run(
        "mycelial",
        &["--home", &text(dir, "operator"), "init", operator, "--name", "me"],
    )?;
    for daemon in ["gateway", "hub"] {
        let string = children.cli(&["token", "create", "--name", daemon])?;
        children.run("myceliald", &["enrol", string.trim(), "--data-dir", &text(dir, daemon)])?;
    }
    Ok(())
}

fn where_to_look(dir: &Path, page: &Page, children: &Children) {
    let mycelial = children.cli_as_typed();
    println!(
        "
Data moves from 'gateway' to 'hub' over {bus}.

  web page     {link}
  fleet        {mycelial} daemon list
  workflow     {mycelial} workflow status shop
  accounts     {mycelial} ledger
  live rows    {mycelial} tap shop orders --count 5
  results      {dir}/out/
  logs         {dir}/*.log

Ctrl-C stops everything.
",
        bus = page.bus,
        link = page.link,
        dir = dir.display(),
    );
}

/// Shows progress until it is time to stop. `Some` names a process that ended by itself.
fn watch(time: Option<Duration>, children: &mut Children) -> Result<Option<String>> {
    let started = Instant::now();
    let mut shown = Instant::now();
    loop {
        if STOP.load(Ordering::Relaxed) || time.is_some_and(|time| started.elapsed() >= time) {
            return Ok(None);
        }
        if let Some(name) = children.ended() {
            return Ok(Some(name));
        }
        if shown.elapsed() >= PROGRESS_EVERY {
            shown = Instant::now();
            // The plane may be busy for a moment; the next line comes soon.
            if let Ok(json) = children.cli(&["ledger", "-o", "json"]) {
                println!("{:>4} s  {}", started.elapsed().as_secs(), demo::progress(&json));
            }
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("'{text}' is not a time: write for example 60s or 5m");
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(wrong()),
    };
    Ok(Duration::from_secs(
        number.parse::<u64>().map_err(|_| wrong())?.saturating_mul(seconds),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(duration("60s"), Ok(Duration::from_secs(60)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        assert!(duration("soon").is_err() && duration("").is_err());
    }

    #[test]
    fn somebody_elses_directory_is_not_emptied() {
        let dir = std::env::temp_dir().join(format!("mycelial-up-test-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("precious"), "x").unwrap();
        assert!(fresh_dir(dir.clone()).is_err());
        assert!(dir.join("precious").exists());
        std::fs::remove_file(dir.join("precious")).unwrap();
        assert!(fresh_dir(dir.clone()).is_ok());
        assert!(fresh_dir(dir.clone()).is_ok(), "and again, because it is marked");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
