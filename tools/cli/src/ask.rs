//! Asking before something is done that cannot be undone.

use std::io::{BufRead, IsTerminal};

use crate::client::CliError;

/// Asks on a terminal; elsewhere nobody answers, and `--yes` has to be said.
pub fn sure(question: &str, yes: bool) -> Result<(), CliError> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(CliError::Usage(format!("{question}\n  hint: say --yes")));
    }
    eprint!("{question} [y/N] ");
    let mut answer = String::new();
    let _ = std::io::stdin().lock().read_line(&mut answer);
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(CliError::Failed("nothing was changed".to_string())),
    }
}
