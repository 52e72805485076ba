//! `cargo xtask fuzz`: feeds made-up bytes to every place that reads bytes from outside. The targets are in `tools/fuzz`; what
//! is found there stays in their corpora.

use anyhow::{Context, Result, bail};

use crate::cmd;

/// Longest that one input may take, seconds.
const INPUT_S_MAX: u32 = 30;
/// Most memory an input may take, MB.
const MEMORY_MB_MAX: u32 = 2_048;
/// Longest input, bytes: a frame.
const INPUT_BYTES_MAX: u32 = 96 * 1024;
/// Name in place of a target for all of them.
const ALL: &str = "all";

/// What `cargo xtask fuzz` can be told.
#[derive(clap::Args)]
pub struct Args {
    /// A target of tools/fuzz, or "all"
    #[arg(default_value = ALL)]
    target: String,
    /// Minutes for each target
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// Keep only the smallest inputs of the corpus that reach as much
    #[arg(long)]
    minimise: bool,
}

/// Runs the task.
pub fn run(args: &Args) -> Result<()> {
    if !cmd::has_cargo("fuzz") {
        bail!("cargo-fuzz is missing; `cargo install cargo-fuzz` brings it");
    }
    let known = targets()?;
    let chosen: Vec<&String> = known
        .iter()
        .filter(|name| args.target == ALL || **name == args.target)
        .collect();
    if chosen.is_empty() {
        bail!("there is no target {:?}; there are {}", args.target, known.join(", "));
    }
    for target in chosen {
        eprintln!("{target}:");
        if args.minimise {
            minimise(target)?;
        } else {
            fuzz(target, args.minutes)?;
        }
    }
    Ok(())
}

/// The folders of the corpora are the list of targets.
fn targets() -> Result<Vec<String>> {
    let dir = cmd::root().join("tools/fuzz/corpus");
    let entries = std::fs::read_dir(&dir).with_context(|| format!("cannot list {}", dir.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// cargo-fuzz wants flags that only a nightly compiler admits to having.
fn cargo_fuzz(command: &str, target: &str) -> std::process::Command {
    let mut fuzz = cmd::cargo();
    fuzz.args([
        "fuzz",
        command,
        "--fuzz-dir",
        "tools/fuzz/targets",
        "-s",
        "none",
        target,
    ])
    .env("RUSTC_BOOTSTRAP", "1");
    fuzz
}

fn fuzz(target: &str, minutes: u64) -> Result<()> {
    let work = cmd::root().join("target/fuzz").join(target);
    std::fs::create_dir_all(&work).with_context(|| format!("cannot create {}", work.display()))?;
    // New finds go to the first folder, so the corpus that is kept changes only by hand.
    cmd::run(
        cargo_fuzz("run", target)
            .arg(work)
            .arg(cmd::root().join("tools/fuzz/corpus").join(target))
            .arg("--")
            .arg(format!("-max_total_time={}", minutes * 60))
            .arg(format!("-timeout={INPUT_S_MAX}"))
            .arg(format!("-rss_limit_mb={MEMORY_MB_MAX}"))
            .arg(format!("-max_len={INPUT_BYTES_MAX}"))
            // Long inputs from the beginning: where an input takes long, it would never come to them.
            .arg("-len_control=0")
            .arg("-print_final_stats=1"),
    )
}

fn minimise(target: &str) -> Result<()> {
    let corpus = cmd::root().join("tools/fuzz/corpus").join(target);
    cmd::run(cargo_fuzz("cmin", target).arg(corpus))
}
