//! What is made from the one definition of the command line: completions, manual pages, and `docs/cli`.

use std::{fs, path::Path};

use clap_complete::env::Shells;

use crate::{arguments::Shell, client::CliError, programs};

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
    clap_mangen::generate_to(crate::examples::command(), dir).map_err(failed)?;
    for name in programs::OTHERS {
        match programs::helps(name, &programs::place(name)) {
            Some(helps) => fs::write(dir.join(format!("{name}.1")), programs::page(name, &helps)).map_err(failed)?,
            None => eprintln!("no page of {name}: it is not on this host"),
        }
    }
    eprintln!("read one with: man {}/{NAME}.1", dir.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{env, fmt::Write as _, path::PathBuf};

    use clap::Command;

    use super::*;

    const HEAD: &str = "\
Made from the program's own help by `UPDATE=1 cargo test -p cli reference`; a test fails when it differs.

Every command takes `--output table|json|jsonl|yaml|name`. `table` is for people and may change; the fields of the others
stay as they are, and new ones may come: [OUTPUT.md](OUTPUT.md) lists them. Data goes to stdout, everything else to stderr.
";

    /// What every command has is told once, with the first.
    fn without_common(command: &mut Command) {
        for common in ["output", "context", "home", "timeout", "verbose", "help"] {
            *command = std::mem::take(command).mut_arg(common, |argument| argument.hide(true));
        }
    }

    fn help(command: &mut Command, path: &str, out: &mut String) {
        let help = command.render_long_help().to_string();
        let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
        let _ = write!(out, "\n## `{path}`\n\n```text\n{}\n```\n", lines.join("\n").trim_end());
    }

    fn described(command: &mut Command, path: &str, out: &mut String) {
        without_common(command);
        if command.get_subcommands().next().is_none() {
            help(command, path, out);
        }
        for verb in command.get_subcommands_mut().filter(|verb| verb.get_name() != "help") {
            let path = format!("{path} {}", verb.get_name());
            described(verb, &path, out);
        }
    }

    /// The pages by file name: one for the whole, and one for each noun that has verbs.
    fn reference() -> Vec<(String, String)> {
        let mut command = crate::examples::command().term_width(110);
        command.build();
        let mut whole = format!("# `{NAME}`, command by command\n\n{HEAD}");
        help(&mut command, NAME, &mut whole);
        let mut pages = Vec::new();
        for noun in command.get_subcommands_mut().filter(|noun| noun.get_name() != "help") {
            let (name, path) = (noun.get_name().to_string(), format!("{NAME} {}", noun.get_name()));
            if noun.get_subcommands().next().is_none() {
                described(noun, &path, &mut whole);
                continue;
            }
            let mut page = format!("# `{path}`\n");
            described(noun, &path, &mut page);
            pages.push((format!("{name}.md"), page));
        }
        whole.push_str("\n## The others\n\n");
        for (file, _) in &pages {
            let _ = writeln!(whole, "- [`{NAME} {}`]({file})", file.trim_end_matches(".md"));
        }
        whole.push_str("- [the plane, the daemon, the broker](PROGRAMS.md)\n");
        pages.push(("README.md".to_string(), whole));
        pages
    }

    #[test]
    fn the_reference_is_what_the_help_says() {
        let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli");
        for (file, made) in reference() {
            let path = dir.join(&file);
            if env::var_os("UPDATE").is_some() {
                fs::create_dir_all(&dir).unwrap();
                fs::write(&path, &made).unwrap();
            }
            let kept = fs::read_to_string(&path).unwrap_or_default();
            assert!(
                kept == made,
                "docs/cli/{file} differs: UPDATE=1 cargo test -p cli reference"
            );
        }
    }

    /// What is wrong with a command that a page names: a verb or an option that there is not.
    fn misnamed(words: &str) -> Option<String> {
        let mut command = crate::examples::command();
        command.build();
        let mut here = &command;
        for word in words.split_whitespace().skip(1) {
            if let Some(option) = word.strip_prefix("--") {
                let option = option.split('=').next().unwrap_or_default();
                let known = |command: &Command| command.get_arguments().any(|known| known.get_long() == Some(option));
                if !["help", "version"].contains(&option) && !known(here) && !known(&command) {
                    return Some(format!("no option --{option}"));
                }
            } else if here.has_subcommands() && !word.starts_with('-') {
                match here.find_subcommand(word) {
                    Some(verb) => here = verb,
                    None => return Some(format!("no command '{word}'")),
                }
            }
        }
        None
    }

    #[test]
    fn pages_name_commands_that_there_are() {
        let docs = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs");
        let mut wrong = Vec::new();
        let mut found = 0;
        for entry in fs::read_dir(docs).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.extension().is_none_or(|extension| extension != "md") {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            for quoted in text.split('`').skip(1).step_by(2) {
                // `--for a` is given by its first words; what stands for something is upper case and no verb.
                let said = quoted.split(" # ").next().unwrap_or_default();
                if said.starts_with(&format!("{NAME} ")) && !said.contains('\n') {
                    found += 1;
                    if let Some(cause) = misnamed(said) {
                        wrong.push(format!("{}: `{said}`: {cause}", path.display()));
                    }
                }
            }
        }
        assert!(found > 30, "{found} commands were found: are the pages still there?");
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
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
