//! `cargo xtask lint`: everything that can be checked without running the product. Each step is one function that
//! returns all of its findings; this file runs them, and never stops at the first failure.

mod advisories;
mod files;
mod layering;
mod licences;
mod quotes;

use std::cell::OnceCell;
use std::io::{IsTerminal, Write};
use std::process::{Command, Output};
use std::time::Instant;
use std::{fs, iter};

use anyhow::{Context as _, Result, bail};

use crate::metadata::Metadata;
use crate::{budgets, cmd, setup, ui};

/// What `cargo xtask lint` can be told.
#[derive(clap::Args)]
pub struct Args {
    /// Run only these steps, in this order of the list; all of them when none is named
    #[arg(value_name = "STEP", value_parser = STEPS.iter().map(|step| step.name).collect::<Vec<_>>())]
    only: Vec<String>,
}

/// One check.
struct Step {
    name: &'static str,
    run: fn(&Shared) -> Result<Report>,
}

/// Quick ones first: they fail within a second.
const STEPS: &[Step] = &[
    Step {
        name: "fmt",
        run: |_| fmt(),
    },
    Step {
        name: "folders",
        run: |_| files::folders(),
    },
    Step {
        name: "length",
        run: |_| files::length(),
    },
    Step {
        name: "words",
        run: |_| files::words(),
    },
    Step {
        name: "quotes",
        run: |_| quotes::check(),
    },
    Step {
        name: "layering",
        run: |shared| Ok(layering::check(shared.metadata()?)),
    },
    Step {
        name: "licences",
        run: |shared| Ok(licences::check(shared.metadata()?)),
    },
    Step {
        name: "advisories",
        run: |shared| advisories::check(shared.metadata()?),
    },
    Step {
        name: "ui",
        run: |_| {
            Ok(Report {
                findings: ui::check()?.into_iter().collect(),
                note: None,
            })
        },
    },
    Step {
        name: "firmware",
        run: |_| firmware(),
    },
    Step {
        name: "clippy",
        run: |_| clippy(),
    },
    Step {
        name: "features",
        run: |_| features(),
    },
    Step {
        name: "budgets",
        run: |_| budgets::check(),
    },
];

/// What a step found. No finding means it passed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What is wrong, one entry for each thing to change.
    pub findings: Vec<String>,
    /// What the reader of a passed step should know: what was not checked, and why.
    pub note: Option<String>,
}

/// What several steps need and is asked for once.
#[derive(Default)]
struct Shared {
    metadata: OnceCell<Metadata>,
}

impl Shared {
    fn metadata(&self) -> Result<&Metadata> {
        if let Some(metadata) = self.metadata.get() {
            return Ok(metadata);
        }
        let metadata = Metadata::load()?;
        Ok(self.metadata.get_or_init(|| metadata))
    }
}

/// Runs the task.
pub fn run(args: &Args) -> Result<()> {
    setup::ensure_build_tools()?;
    let steps: Vec<&Step> = STEPS
        .iter()
        .filter(|step| args.only.is_empty() || args.only.iter().any(|name| name == step.name))
        .collect();
    let (start, shared) = (Instant::now(), Shared::default());
    let failed: Vec<&str> = steps
        .iter()
        .filter(|step| !run_step(step, &shared))
        .map(|step| step.name)
        .collect();
    let seconds = start.elapsed().as_secs_f64();
    if !failed.is_empty() {
        bail!(
            "{} of {} lint steps failed after {seconds:.1} s: {}",
            failed.len(),
            steps.len(),
            failed.join(", ")
        );
    }
    println!("lint: {} steps passed in {seconds:.1} s", steps.len());
    Ok(())
}

/// Runs a step, prints its line and its findings, and returns whether it passed.
fn run_step(step: &Step, shared: &Shared) -> bool {
    let live = std::io::stdout().is_terminal();
    if live {
        print!("{:<12} …", step.name);
        // Only cosmetic: the line is written again when the step is done.
        let _ = std::io::stdout().flush();
    }
    let start = Instant::now();
    let report = (step.run)(shared).unwrap_or_else(|e| Report {
        findings: vec![format!("cannot check: {e:#}")],
        note: None,
    });
    let (seconds, passed) = (start.elapsed().as_secs_f64(), report.findings.is_empty());
    let verdict = if passed {
        "ok".to_owned()
    } else {
        format!("FAILED ({})", report.findings.len())
    };
    let note = report.note.map(|note| format!("  {note}")).unwrap_or_default();
    println!(
        "{}{:<12} {seconds:>6.1} s  {verdict}{note}",
        if live { "\r" } else { "" },
        step.name
    );
    for finding in &report.findings {
        println!("    {}", finding.trim_end().replace('\n', "\n    "));
    }
    passed
}

fn fmt() -> Result<Report> {
    let output = cmd::output(cmd::cargo().args(["fmt", "--all", "--", "--check", "-l"]))?;
    if output.status.success() {
        return Ok(Report::default());
    }
    let root = format!("{}/", cmd::root().display());
    let listed = String::from_utf8_lossy(&output.stdout);
    let files = listed
        .lines()
        .map(|path| format!("{} is not formatted", path.replace(&root, "")));
    let mut findings: Vec<String> = files.collect();
    if findings.is_empty() {
        findings.push(text(&output.stderr));
    }
    Ok(Report { findings, note: None })
}

fn clippy() -> Result<Report> {
    let mut command = cmd::cargo();
    // --keep-going: the findings of every crate, not only of the first that has some.
    command.args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--keep-going",
        "--quiet",
        "--",
    ]);
    Ok(verdict(&cmd::output(command.args(["-D", "warnings"]))?))
}

/// What can be left out of the daemon can be left out: without any feature of its connectors, and with each alone.
fn features() -> Result<Report> {
    let manifest = cmd::root().join("edge-daemon/connectors/Cargo.toml");
    let text = fs::read_to_string(&manifest).with_context(|| manifest.display().to_string())?;
    let names = feature_names(&text);
    let mut findings = Vec::new();
    for chosen in iter::once("").chain(names.iter().map(String::as_str)) {
        let mut command = cmd::cargo();
        command.args(["clippy", "-p", "connectors", "--all-targets", "--locked", "--quiet"]);
        command.args(["--no-default-features", "--features", chosen, "--", "-D", "warnings"]);
        let found = verdict(&cmd::output(&mut command)?).findings;
        findings.extend(found.into_iter().map(|found| format!("with '{chosen}' alone: {found}")));
    }
    Ok(Report {
        findings,
        note: Some(format!("none, {}", names.join(", "))),
    })
}

/// The features that a manifest names, without `default`.
fn feature_names(manifest: &str) -> Vec<String> {
    let lines = manifest.lines().skip_while(|line| *line != "[features]").skip(1);
    let lines = lines.take_while(|line| !line.starts_with('['));
    let names = lines.filter_map(|line| Some(line.split_once('=')?.0.trim().to_string()));
    names
        .filter(|name| name != "default" && !name.starts_with('#'))
        .collect()
}

/// The wire contract must compile without a standard library, for a target that has none.
fn firmware() -> Result<Report> {
    const TARGETS: [&str; 2] = ["thumbv7em-none-eabi", "thumbv7m-none-eabi"];
    let sysroot = cmd::output(
        Command::new("rustc")
            .args(["--print", "sysroot"])
            .current_dir(cmd::root()),
    )?;
    let lib = std::path::PathBuf::from(text(&sysroot.stdout)).join("lib/rustlib");
    let Some(target) = TARGETS.into_iter().find(|target| lib.join(target).is_dir()) else {
        let note = format!("skipped: no such target here (`rustup target add {}`)", TARGETS[0]);
        return Ok(Report {
            findings: Vec::new(),
            note: Some(note),
        });
    };
    let output = cmd::output(cmd::cargo().args(["check", "-p", "bus-schema", "--quiet", "--target", target]))?;
    Ok(Report {
        note: Some(format!("on {target}")),
        ..verdict(&output)
    })
}

/// One finding for each error or warning of a failed cargo command.
fn verdict(output: &Output) -> Report {
    if output.status.success() {
        return Report::default();
    }
    Report {
        findings: split_diagnostics(&text(&output.stderr)),
        note: None,
    }
}

fn split_diagnostics(stderr: &str) -> Vec<String> {
    let mut findings: Vec<String> = Vec::new();
    for part in stderr.split("\n\n").filter(|part| !part.trim().is_empty()) {
        let summary = part.starts_with("error: could not compile") || part.starts_with("warning: build failed");
        let starts = part.starts_with("error") || part.starts_with("warning");
        match findings.last_mut() {
            Some(_) if summary => {}
            Some(last) if !starts => *last = format!("{last}\n\n{part}"),
            _ => findings.push(part.to_owned()),
        }
    }
    findings
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end().to_owned()
}

/// The text of a file of the repository.
fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(cmd::root().join(path)).with_context(|| format!("cannot read {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_those_of_the_manifest() {
        let manifest = "[package]\nname = \"x\"\n\n[features]\n# Large.\ndefault = [\"a\"]\na = [\"dep:a\"]\nb-c = []\n\n\
                        [dependencies]\nd = \"1\"\n";
        assert_eq!(feature_names(manifest), ["a", "b-c"]);
        let ours = fs::read_to_string(cmd::root().join("edge-daemon/connectors/Cargo.toml")).unwrap();
        assert_eq!(feature_names(&ours), ["excel", "parquet"]);
    }

    #[test]
    fn one_finding_per_diagnostic() {
        let cases: &[(&str, usize)] = &[
            (
                "error: a\n --> x.rs:1:1\n\nerror: b\n --> y.rs:1:1\n\nerror: could not compile `x` due to 2 errors",
                2,
            ),
            ("error: a\n\n  = note: part of a\n\nerror: could not compile `x`", 1),
            ("error: no such command", 1),
            ("error: could not compile `x`", 1),
        ];
        for (stderr, want) in cases {
            assert_eq!(split_diagnostics(stderr).len(), *want, "{stderr}");
        }
    }
}
