//! `myceliald test` and `myceliald check`: the tests that workflow files keep, and whether their sources and destinations
//! can be reached; here, without a fleet.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use bus_schema::api::Failure;
use connectors::CustomCode;
use flow::Registry;
use tokio::runtime::Handle;

use super::{
    Trial,
    checkup::{self, Checker},
};

/// The name of this machine.
const HERE: &str = "local";

/// Runs the tests of these files and says how each ended. Blocks, so not on the runtime's own thread. `Err` says what went wrong, once everything has been tried.
pub fn test(files: &[PathBuf], registry: &Registry, runtime: &Handle) -> Result<(), String> {
    let (mut passed, mut failed) = (0, 0);
    for file in files {
        match of_file(file, registry, runtime) {
            Ok(verdicts) => {
                for verdict in verdicts {
                    let is_good = verdict.differs.is_empty();
                    println!(
                        "{}  {}: {}",
                        if is_good { "ok  " } else { "FAIL" },
                        file.display(),
                        verdict.test
                    );
                    verdict.differs.iter().for_each(|wrong| println!("        {wrong}"));
                    *(if is_good { &mut passed } else { &mut failed }) += 1;
                }
            }
            Err(wrong) => {
                println!("FAIL  {}: {wrong}", file.display());
                failed += 1;
            }
        }
    }
    match failed {
        0 => {
            eprintln!("{passed} passed");
            Ok(())
        }
        failed => Err(format!("{failed} failed, {passed} passed")),
    }
}

fn of_file(file: &Path, registry: &Registry, runtime: &Handle) -> Result<Vec<bus_schema::trial::Verdict>, String> {
    let text = bus_link::settings::text(file).map_err(|error| error.to_string())?;
    let base_dir = base_dir(file);
    let trial = Trial {
        registry,
        daemon: HERE,
        base_dir: &base_dir,
        // Whoever runs this could run the code as well.
        custom_code: &CustomCode::any(),
        runtime: runtime.clone(),
        planned: &[],
    };
    trial.test(&text).map_err(|failure: Failure| told(&failure))
}

/// Checks the sources and destinations of a file, whatever daemon they are for, and says how each was found. `Ok(false)`:
/// something is wrong with one. `Err`: with the file.
pub async fn check(file: &Path, registry: &Registry) -> Result<bool, String> {
    let text = bus_link::settings::text(file).map_err(|error| error.to_string())?;
    let spec = workflow::parse(&text)
        .map_err(|problems| told(&super::invalid("the workflow has problems".to_string(), problems)))?;
    let base_dir = base_dir(file);
    // Each daemon that the text names stands for this machine once.
    let daemons: Vec<&str> = spec.daemons().collect();
    let (mut is_good, mut told_of) = (true, HashSet::new());
    for daemon in if daemons.is_empty() { vec![HERE] } else { daemons } {
        let checker = Checker {
            registry,
            daemon,
            base_dir: &base_dir,
            // Whoever runs this could run the code as well.
            custom_code: &CustomCode::any(),
        };
        for checkup in checker.text(&text).await.map_err(|failure| told(&failure))? {
            is_good &= checkup.trouble.is_none();
            // What may be on any of them is found again by each.
            if told_of.insert(checkup.node.clone()) {
                print!("{}", checkup::shown(&checkup));
            }
        }
    }
    Ok(is_good)
}

/// Where relative paths in a file's configs start.
fn base_dir(file: &Path) -> PathBuf {
    let path = file.canonicalize().ok();
    path.and_then(|path| path.parent().map(Path::to_path_buf))
        .unwrap_or_default()
}

fn told(failure: &Failure) -> String {
    let mut text = failure.message.clone();
    for problem in &failure.problems {
        text.push_str(&format!(
            "\n        line {}: {}: {}",
            problem.line, problem.place, problem.message
        ));
        if !problem.hint.is_empty() {
            text.push_str(&format!("\n          hint: {}", problem.hint));
        }
    }
    if !failure.hint.is_empty() {
        text.push_str(&format!("\n        hint: {}", failure.hint));
    }
    text
}
