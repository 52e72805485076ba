//! The help of the fleet's other programs, for manual pages and for the reference: `mycelial-plane`, `myceliald` and
//! `mycelial-broker` are asked themselves, so that they need not carry what makes pages.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The others.
pub const OTHERS: [&str; 3] = ["mycelial-plane", "myceliald", "mycelial-broker"];

/// The help of one command.
pub struct Help {
    /// `mycelial-plane backup create`
    pub path: String,
    /// As the program prints it.
    pub text: String,
}

/// A program: beside this one, else wherever the system finds it.
pub fn place(name: &str) -> PathBuf {
    let beside = std::env::current_exe().ok().map(|here| here.with_file_name(name));
    beside
        .filter(|path| path.is_file())
        .unwrap_or_else(|| PathBuf::from(name))
}

/// The help of a program, and of all its commands; `None` when there is no such program here.
pub fn helps(name: &str, program: &Path) -> Option<Vec<Help>> {
    let mut all = Vec::new();
    gather(name, program, &[], &mut all)?;
    Some(all)
}

fn gather(name: &str, program: &Path, verbs: &[String], all: &mut Vec<Help>) -> Option<()> {
    let mut command = Command::new(program);
    command.args(verbs).arg("--help").stdin(Stdio::null());
    // What is set here is no part of the page.
    for (key, _) in std::env::vars_os().filter(|(key, _)| key.to_string_lossy().starts_with("MYCELIAL_")) {
        command.env_remove(key);
    }
    let done = command.output().ok().filter(|done| done.status.success())?;
    let lines = String::from_utf8_lossy(&done.stdout);
    let lines: Vec<&str> = lines.lines().map(str::trim_end).collect();
    let text = lines.join("\n").trim_end().to_string();
    let below = commands(&text);
    all.push(Help {
        path: [&[name.to_string()], verbs].concat().join(" "),
        text,
    });
    for verb in below {
        gather(name, program, &[verbs, &[verb]].concat(), all)?;
    }
    Some(())
}

/// The commands that a help lists.
fn commands(help: &str) -> Vec<String> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    listed
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next())
        .filter(|verb| *verb != "help" && verb.starts_with(|c: char| c.is_ascii_lowercase()))
        .map(str::to_string)
        .collect()
}

/// A manual page of a program.
pub fn page(name: &str, helps: &[Help]) -> String {
    let mut page = format!(
        ".TH {name} 1\n.SH NAME\n{name} \\- part of Mycelial\n.SH SYNOPSIS\n\\fB{name}\\fR [\\fIOPTIONS\\fR] [\\fICOMMAND\\fR]\n"
    );
    for Help { path, text } in helps {
        page.push_str(&format!(".SH {}\n.nf\n", path.to_uppercase()));
        for line in text.lines() {
            // A line that begins with these would be a request.
            let guard = if line.starts_with(['.', '\'']) { "\\&" } else { "" };
            page.push_str(&format!("{guard}{}\n", line.replace('\\', "\\e").replace('-', "\\-")));
        }
        page.push_str(".fi\n");
    }
    page
}

#[cfg(test)]
mod tests {
    use std::{env, fmt::Write as _, fs};

    use super::*;

    #[test]
    fn the_reference_has_the_other_programs() {
        let mut made = "# The other programs, command by command\n\nMade from their own help by \
                        `UPDATE=1 cargo test -p cli programs`; a test fails when it differs. `mycelial man` makes manual pages of it.\n"
            .to_string();
        for name in OTHERS {
            let helps = helps(name, &testkit::bin(name)).expect("its help");
            for Help { path, text } in &helps {
                // What each says of `--help` itself is no news.
                let lines: Vec<&str> = text
                    .lines()
                    .filter(|line| !line.trim_start().starts_with("-h, --help"))
                    .collect();
                let said = lines.join("\n");
                let said = said.trim_end();
                let said = said.strip_suffix("\n\nOptions:").unwrap_or(said);
                let _ = write!(made, "\n## `{path}`\n\n```text\n{said}\n```\n");
            }
            let page = page(name, &helps);
            assert!(
                page.starts_with(&format!(".TH {name} 1\n")) && page.contains(".SH SYNOPSIS"),
                "{page}"
            );
            assert!(!page.lines().any(|line| line.starts_with('\'')), "{page}");
        }
        for part in [
            "## `mycelial-plane backup restore`",
            "## `myceliald spool ",
            "## `mycelial-broker`",
        ] {
            assert!(made.contains(part), "{part} in\n{made}");
        }
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli/PROGRAMS.md");
        if env::var_os("UPDATE").is_some() {
            fs::write(&path, &made).unwrap();
        }
        let kept = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            kept == made,
            "docs/cli/PROGRAMS.md differs: UPDATE=1 cargo test -p cli programs"
        );
    }

    #[test]
    fn what_is_not_here_has_no_page() {
        assert!(helps("nothing", Path::new("/nowhere/nothing")).is_none());
    }
}
