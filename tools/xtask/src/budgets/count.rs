//! Builds `hot` and counts the instructions of its cases with callgrind. Judges nothing.
//!
//! One iteration is the difference of two runs, one of them twice as long, so that starting up and preparing do not count.
//! Valgrind emulates a processor of its own, the same on every machine that has AVX2: code that picks instructions at run
//! time (ciphers, hashes, the C library) picks the same ones everywhere.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use crate::metadata::Metadata;
use crate::{cmd, setup};

/// Optimised, without the link-time optimisation that takes most of a release's build. `cargo xtask up` shares it.
const PROFILE: &str = "up";
/// How far most cases differ from run to run, in percent.
pub const SPREAD_PERCENT_USUAL: f64 = 0.5;
/// Runs at the same time.
const RUNS_AT_ONCE_MAX: usize = 4;

/// A case as `hot list` tells of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    pub name: String,
    pub iterations: u64,
    pub spread_percent: f64,
    pub main_thread_only: bool,
    pub iteration: String,
}

impl Case {
    fn parse(line: &str) -> Result<Self> {
        let parts: Vec<&str> = line.split('\t').collect();
        let [name, iterations, spread_percent, threads, iteration] = parts.as_slice() else {
            bail!("`hot list` said '{line}'");
        };
        Ok(Self {
            name: (*name).to_owned(),
            iterations: iterations.parse()?,
            spread_percent: spread_percent.parse()?,
            main_thread_only: *threads == "main",
            iteration: (*iteration).to_owned(),
        })
    }
}

/// What instructions depend on besides the source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MadeWith {
    pub rustc: String,
    /// A good part of the instructions copies, compares and allocates there.
    pub libc: String,
    /// Which processor it emulates.
    pub valgrind: String,
}

impl fmt::Display for MadeWith {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rustc {}, {}, {}", self.rustc, self.libc, self.valgrind)
    }
}

impl MadeWith {
    /// Those of this machine. Installs valgrind when it is missing.
    pub fn here() -> Result<Self> {
        setup::ensure_counting_tools()?;
        let rustc = said("rustc", &["-vV"])?;
        let release = rustc.lines().find_map(|line| line.strip_prefix("release: "));
        Ok(Self {
            rustc: release.context("`rustc -vV` names no release")?.to_owned(),
            libc: said("getconf", &["GNU_LIBC_VERSION"])?,
            valgrind: said("valgrind", &["--version"])?,
        })
    }
}

fn said(program: &str, arguments: &[&str]) -> Result<String> {
    let mut command = cmd::program(program);
    let output = cmd::output(command.args(arguments))?;
    if !output.status.success() {
        bail!("`{}` failed with {}", cmd::show(&command), output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Why this machine cannot count what the budgets are of.
pub fn impossible() -> Option<String> {
    if !cfg!(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu")) {
        return Some("budgets are for x86-64 Linux with glibc".to_owned());
    }
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let has_avx2 = cpu.split_whitespace().any(|flag| flag == "avx2");
    (!has_avx2).then(|| "budgets are for processors with AVX2".to_owned())
}

/// Builds `hot`; returns its cases.
pub fn build() -> Result<Vec<Case>> {
    eprintln!("building tools/micro (three minutes on two cores the first time) …");
    cmd::run(cmd::cargo().args([
        "build",
        "--quiet",
        "--locked",
        "--profile",
        PROFILE,
        "-p",
        "micro",
        "--bin",
        "hot",
    ]))?;
    let listed = cmd::output(cmd::program(hot()?).arg("list"))?;
    String::from_utf8_lossy(&listed.stdout)
        .lines()
        .map(Case::parse)
        .collect()
}

fn hot() -> Result<PathBuf> {
    Ok(Metadata::load()?.target_directory.join(PROFILE).join("hot"))
}

/// Instructions of one iteration of each case.
pub fn all(cases: &[&Case]) -> Result<BTreeMap<String, u64>> {
    let hot = hot()?;
    let at_once = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(RUNS_AT_ONCE_MAX);
    let (next, counts) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let count = per_iteration(&hot, case).with_context(|| format!("cannot count {}", case.name));
                    let entry = count.map(|count| (case.name.clone(), count));
                    // Nothing panics while it is held.
                    counts
                        .lock()
                        .unwrap_or_else(std::sync::PoisonError::into_inner)
                        .push(entry);
                }
            });
        }
    });
    counts
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .into_iter()
        .collect()
}

fn per_iteration(hot: &Path, case: &Case) -> Result<u64> {
    let once = instructions(hot, case, case.iterations)?;
    let twice = instructions(hot, case, case.iterations * 2)?;
    Ok(twice.saturating_sub(once) / case.iterations)
}

fn instructions(hot: &Path, case: &Case, iterations: u64) -> Result<u64> {
    let dir = Scratch::new(&format!("{}-{iterations}", case.name))?;
    let out = dir.0.join("callgrind.out");
    let mut valgrind = cmd::program("valgrind");
    valgrind
        .args([
            "--quiet",
            "--tool=callgrind",
            "--cache-sim=no",
            "--branch-sim=no",
            "--separate-threads=yes",
        ])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(hot)
        .args([&case.name, &iterations.to_string()])
        // What stands in the environment moves the stack, and with it what is aligned.
        .env_clear()
        .env("TMPDIR", &dir.0)
        // One heap, whichever thread allocates, as in the daemon.
        .env("MALLOC_ARENA_MAX", "1");
    let output = cmd::output(&mut valgrind)?;
    if !output.status.success() {
        bail!(
            "`{}` failed with {}:\n{}",
            cmd::show(&valgrind),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    let mut total = 0;
    for entry in fs::read_dir(&dir.0).context("cannot list what callgrind wrote")? {
        let path = entry?.path();
        // `callgrind.out-01` is of the main thread, and so on.
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match name.strip_prefix("callgrind.out-") {
            Some("01") => total += counted(&path)?,
            Some(_) if !case.main_thread_only => total += counted(&path)?,
            _ => {}
        }
    }
    Ok(total)
}

/// What stands in a file of callgrind's after `totals:`.
fn counted(path: &Path) -> Result<u64> {
    let text = fs::read_to_string(path).context("cannot read what callgrind wrote")?;
    total_in(&text).context("callgrind wrote no total")
}

fn total_in(text: &str) -> Option<u64> {
    let line = text.lines().rev().find_map(|line| line.strip_prefix("totals:"))?;
    line.trim().parse().ok()
}

/// A directory that is gone when its run is over.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Result<Self> {
        let dir = std::env::temp_dir().join(format!("mycelial-budgets-{}-{name}", std::process::id()));
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        Ok(Self(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // It lies in the system's own directory for what is temporary: nobody misses its removal.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_list() {
        let case = Case::parse("spool\t8\t3\tmain\teight frames").unwrap();
        assert_eq!(
            (case.name.as_str(), case.iterations, case.spread_percent),
            ("spool", 8, 3.0)
        );
        assert!(case.main_thread_only && case.iteration == "eight frames");
        assert!(!Case::parse("a\t1\t0.5\tall\tone").unwrap().main_thread_only);
        for wrong in ["", "a\t1\t0.5\tall", "a\tx\t0.5\tall\tone"] {
            assert!(Case::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn reads_totals() {
        let text = "version: 1\nevents: Ir\nsummary: 12\n\nfn=(1)\n1 5\n\ntotals: 34\n";
        assert_eq!(total_in(text), Some(34));
        assert_eq!(total_in("events: Ir\n"), None);
    }
}
