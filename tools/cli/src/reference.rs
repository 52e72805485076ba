//! What is made from the one definition of the command line: completions, manual pages, and `docs/CLI.md`.

use std::{fs, path::Path};

use clap::CommandFactory;
use clap_complete::env::Shells;

use crate::{
    arguments::{Arguments, Shell},
    client::CliError,
};

/// The program's name.
const NAME: &str = "mycelial";

/// Prints what a shell has to run once to complete commands.
pub fn completion(shell: Shell) -> Result<(), CliError> {
    let name = match shell {
        Shell::Bash => "bash",
        Shell::Elvish => "elvish",
        Shell::Fish => "fish",
        Shell::Powershell => "powershell",
        Shell::Zsh => "zsh",
    };
    let failed = |error: std::io::Error| CliError::Failed(format!("cannot write the completion: {error}"));
    let shells = Shells::builtins();
    let completer = shells
        .completer(name)
        .ok_or_else(|| CliError::Failed(format!("{name} cannot be completed")))?;
    completer
        .write_registration("COMPLETE", NAME, NAME, NAME, &mut std::io::stdout())
        .map_err(failed)?;
    eprintln!("put it where {name} reads it at its start, for example: source <({NAME} completion {name})");
    Ok(())
}

/// Writes the manual pages.
pub fn man(dir: &Path) -> Result<(), CliError> {
    let failed = |error: std::io::Error| CliError::Failed(format!("cannot write into {}: {error}", dir.display()));
    fs::create_dir_all(dir).map_err(failed)?;
    clap_mangen::generate_to(Arguments::command(), dir).map_err(failed)?;
    eprintln!("read one with: man {}/{NAME}.1", dir.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{env, fmt::Write as _, path::PathBuf};

    use clap::Command;

    use super::*;

    const HEAD: &str = "\
# `mycelial`, command by command

Made from the program's own help by `UPDATE=1 cargo test -p cli reference`; a test fails when it differs.

Every command takes `--output table|json|jsonl|yaml|name`. `table` is for people and may change; the fields of the others
stay as they are, and new ones may come. Data goes to stdout, everything else to stderr.

";

    /// What every command has is told once, with the first.
    fn without_common(command: &mut Command) {
        for common in ["output", "context", "home", "timeout", "verbose", "help"] {
            *command = std::mem::take(command).mut_arg(common, |argument| argument.hide(true));
        }
    }

    fn described(command: &mut Command, path: &str, out: &mut String) {
        if path != NAME {
            without_common(command);
        }
        let has_verbs = command.get_subcommands().next().is_some();
        if !has_verbs || path == NAME {
            let help = command.render_long_help().to_string();
            let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
            let _ = write!(out, "## `{path}`\n\n```text\n{}\n```\n\n", lines.join("\n").trim_end());
        }
        for verb in command.get_subcommands_mut().filter(|verb| verb.get_name() != "help") {
            let path = format!("{path} {}", verb.get_name());
            described(verb, &path, out);
        }
    }

    fn reference() -> String {
        let mut command = Arguments::command().term_width(110);
        command.build();
        let mut text = HEAD.to_string();
        described(&mut command, NAME, &mut text);
        format!("{}\n", text.trim_end())
    }

    #[test]
    fn the_reference_is_what_the_help_says() {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/CLI.md");
        let made = reference();
        if env::var_os("UPDATE").is_some() {
            fs::write(&path, &made).unwrap();
        }
        let kept = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            kept == made,
            "docs/CLI.md differs: UPDATE=1 cargo test -p cli reference"
        );
    }

    #[test]
    fn pages_for_every_command() {
        let dir = tempfile::tempdir().unwrap();
        man(dir.path()).unwrap();
        for page in ["mycelial.1", "mycelial-workflow-apply.1", "mycelial-secret-set.1"] {
            let text = fs::read_to_string(dir.path().join(page)).unwrap();
            assert!(text.contains(".SH SYNOPSIS"), "{page}");
        }
    }
}
