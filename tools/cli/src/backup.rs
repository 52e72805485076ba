//! `mycelial backup`: backups of the plane are made on its host, from its directory, and not over the bus, where nothing may
//! carry its keys. Hands over to `mycelial-plane` where there is one.

use std::{io::ErrorKind, process::Command};

use crate::{client::CliError, programs};

/// Who makes them.
const PLANE: &str = "mycelial-plane";

/// Runs `mycelial-plane backup` with these arguments, in the place of this program.
pub fn run(arguments: &[String]) -> Result<(), CliError> {
    let program = programs::place(PLANE);
    let mut command = Command::new(&program);
    command.arg("backup").args(arguments);
    let error = hand_over(command);
    match error.kind() {
        ErrorKind::NotFound => Err(CliError::Usage(format!(
            "there is no {PLANE} on this host: backups are made where the plane runs, and beside it\n  \
             hint: there: {PLANE} backup create --keys --dir DIR FILE; all of it is in docs/OPERATING.md"
        ))),
        _ => Err(CliError::Failed(format!("cannot run {}: {error}", program.display()))),
    }
}

/// Returns only when that fails.
#[cfg(unix)]
fn hand_over(mut command: Command) -> std::io::Error {
    use std::os::unix::process::CommandExt as _;
    command.exec()
}

/// Returns only when that fails.
#[cfg(not(unix))]
fn hand_over(mut command: Command) -> std::io::Error {
    match command.status() {
        Ok(status) => std::process::exit(status.code().unwrap_or(1)),
        Err(error) => error,
    }
}
