//! Soaks, and writes down what came of it. `cargo xtask soak` builds the programs and runs it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use testkit::fresh_seed;
use testkit::soak::{Bus, Goal, Options, Report, between_marks, run};

/// When neither time nor kills are asked for.
const MINUTES_DEFAULT: f64 = 2.0;

/// Two daemons, a real broker, SQLite, PostgreSQL and files; everything fails at random. Exits with 1 when anything is
/// lost, doubled, altered, invented or out of order, or the books do not balance.
#[derive(Parser)]
#[command(name = "cargo xtask soak", disable_version_flag = true)]
struct Arguments {
    /// Go on for so many minutes (2 when --kills is not given either)
    #[arg(long)]
    minutes: Option<f64>,
    /// Go on until so many processes were killed
    #[arg(long)]
    kills: Option<u64>,
    /// Which broker: embedded, mosquitto, nats, nats-jetstream or nats-mqtt
    #[arg(long, value_parser = bus, default_value = "mosquitto", conflicts_with = "all")]
    bus: Bus,
    /// One soak over each kind of broker, one after the other
    #[arg(long)]
    all: bool,
    /// What all that is random follows from; chosen and printed when not given
    #[arg(long)]
    seed: Option<u64>,
    /// Rows produced each second
    #[arg(long, default_value_t = 150)]
    rows_per_s: u64,
    /// Write what came of it into this file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the table into this document, between its marks
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Leave the directory of a soak that failed
    #[arg(long)]
    keep: bool,
    /// How the programs were built; for the report
    #[arg(long, hide = true, default_value = "dev")]
    profile: String,
}

fn bus(name: &str) -> Result<Bus, String> {
    Bus::of(name).ok_or_else(|| {
        let names: Vec<_> = Bus::ALL.iter().map(|bus| bus.name()).collect();
        format!("use one of {}", names.join(", "))
    })
}

impl Arguments {
    fn goal(&self) -> Goal {
        let minutes = match (self.minutes, self.kills) {
            (None, None) => MINUTES_DEFAULT,
            (minutes, _) => minutes.unwrap_or(0.0),
        };
        Goal {
            time: Duration::from_secs_f64(minutes.max(0.0) * 60.0),
            kills: self.kills.unwrap_or(0),
        }
    }

    /// The command, for the report: without the seed, which stands in the table.
    fn command(&self) -> String {
        let mut command = "cargo xtask soak".to_string();
        if self.all {
            command.push_str(" --all");
        } else {
            command.push_str(&format!(" --bus {}", self.bus.name()));
        }
        let asked = [
            self.kills.map(|kills| format!(" --kills {kills}")),
            self.minutes.map(|minutes| format!(" --minutes {minutes}")),
            self.report.as_ref().map(|file| format!(" --report {}", file.display())),
        ];
        command.extend(asked.into_iter().flatten());
        command
    }
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let buses = if arguments.all {
        Bus::ALL.to_vec()
    } else {
        vec![arguments.bus]
    };
    let mut reports = Vec::new();
    let mut broken = false;
    for bus in buses {
        let options = Options {
            rows_per_s: arguments.rows_per_s,
            keep: arguments.keep,
            profile: arguments.profile.clone(),
            ..Options::new(bus, arguments.seed.unwrap_or_else(fresh_seed), arguments.goal())
        };
        // One that cannot be finished must not take the others with it. It has printed why.
        match catch_unwind(AssertUnwindSafe(|| run(&options))) {
            Ok(report) => {
                if !report.is_clean() {
                    eprintln!("{}repeat with: {}", report.accusation(), options.command());
                }
                eprintln!("{}", report.row());
                reports.push(report);
            }
            Err(_) => {
                eprintln!("the soak over {} broke; repeat with: {}", bus.name(), options.command());
                broken = true;
            }
        }
    }
    println!("{}", table(&reports));
    if let Some(path) = &arguments.json {
        let values: Vec<_> = reports.iter().map(Report::json).collect();
        std::fs::write(path, format!("{:#}\n", serde_json::Value::Array(values)))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    if let Some(path) = &arguments.report {
        let document = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let text = format!(
            "`{}` with programs of the profile `{}` made this:\n\n{}",
            arguments.command(),
            arguments.profile,
            table(&reports)
        );
        let changed = between_marks(&document, &text);
        let changed = changed.with_context(|| format!("{} has no marks to write between", path.display()))?;
        std::fs::write(path, changed).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let is_clean = !broken && reports.iter().all(Report::is_clean);
    Ok(if is_clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn table(reports: &[Report]) -> String {
    let rows: Vec<String> = reports.iter().map(Report::row).collect();
    format!("{}\n{}", Report::HEAD, rows.join("\n"))
}
