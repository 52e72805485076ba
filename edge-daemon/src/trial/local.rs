//! `myceliald test`: the tests that workflow files keep, here, without a fleet.

use std::path::{Path, PathBuf};

use bus_schema::api::Failure;
use flow::Registry;
use tokio::runtime::Handle;

use super::Trial;

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
    let base_dir = file
        .canonicalize()
        .ok()
        .and_then(|path| path.parent().map(Path::to_path_buf))
        .unwrap_or_default();
    let trial = Trial {
        registry,
        daemon: "local",
        base_dir: &base_dir,
        // Whoever runs this could run the code as well.
        allows_code: true,
        runtime: runtime.clone(),
    };
    trial.test(&text).map_err(|failure: Failure| told(&failure))
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
