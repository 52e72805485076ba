//! `cargo xtask new-connector NAME`: a source and a destination to begin with, in one file with its tests, and its lines in
//! the registry, among what destinations promise and in the compliance suite. What is to be done with them is in `docs/CONNECTOR.md`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::cmd;

/// What is written. `@name@` stands for the name.
const TEMPLATE: &str = include_str!("new_connector/connector.rs.in");
/// What the compliance suite needs of it.
const WORLDS: &str = include_str!("new_connector/worlds.rs.in");
/// Longest name, in bytes: that of a component.
const NAME_BYTES_MAX: usize = 32;
/// Where the connectors of the daemon are.
const CONNECTORS: &str = "edge-daemon/connectors";
/// Where the compliance suite is.
const SUITE: &str = "edge-daemon/connectors/tests/compliance";
/// Where its table begins.
const SUITE_HEADING: &str = "rows! {";
/// Where the table of promises is, in which every destination must stand.
const PROMISES: &str = "docs/RELIABILITY.md";
const PROMISES_HEADING: &str = "| destination | promise | how, and what may come again |";

/// What `cargo xtask new-connector` can be told.
#[derive(clap::Args)]
pub struct Args {
    /// What it is called in workflows: `a` to `z`, digits and `_`
    name: String,
    /// The crate it is put into, if not the daemon's connectors
    #[arg(long = "crate", value_name = "DIR")]
    crate_dir: Option<PathBuf>,
}

/// Runs the task.
pub fn run(args: &Args) -> Result<()> {
    let name = args.name.as_str();
    check(name)?;
    let is_ours = args.crate_dir.is_none();
    let dir = args.crate_dir.clone().unwrap_or_else(|| cmd::root().join(CONNECTORS));
    let (file, lib) = (dir.join(format!("src/{name}.rs")), dir.join("src/lib.rs"));
    if file.exists() || dir.join("src").join(name).exists() {
        bail!("there is a '{name}' already: {}", file.display());
    }
    // Everything is read and made before anything is written.
    let registry = registered(&read(&lib)?, name).with_context(|| lib.display().to_string())?;
    let promises = cmd::root().join(PROMISES);
    let suite = cmd::root().join(SUITE);
    let (main, worlds) = (suite.join("main.rs"), suite.join(format!("{name}_worlds.rs")));
    let tables = match is_ours {
        true => Some((
            promised(&read(&promises)?, name).with_context(|| promises.display().to_string())?,
            complying(&read(&main)?, name).with_context(|| main.display().to_string())?,
        )),
        false => None,
    };
    write(&file, &TEMPLATE.replace("@name@", name))?;
    write(&lib, &registry)?;
    println!("{}: a source and a destination that work, with tests", file.display());
    println!("{}: their lines in the registry", lib.display());
    if let Some((promised, complying)) = tables {
        write(&promises, &promised)?;
        println!("{}: what the destination promises", promises.display());
        write(&worlds, &WORLDS.replace("@name@", name))?;
        write(&main, &complying)?;
        println!("{}: what the compliance suite needs of them", worlds.display());
        println!("{}: their lines in the suite", main.display());
        println!("next: UPDATE=1 cargo test -p connectors --test compliance page, which writes docs/COMPLIANCE.md;");
        println!("      cargo test -p connectors {name}; then docs/CONNECTOR.md");
    }
    Ok(())
}

/// That a name can be a module's and a component's.
fn check(name: &str) -> Result<()> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if name.len() > NAME_BYTES_MAX || !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.chars().all(fits) {
        bail!("'{name}' cannot be a connector's name: up to {NAME_BYTES_MAX} of a-z, 0-9 and '_', a letter first");
    }
    Ok(())
}

/// The registry with two lines and a module more, each where the alphabet wants it.
fn registered(lib: &str, name: &str) -> Result<String> {
    let module = format!("mod {name};");
    let lines: Vec<&str> = lib.lines().collect();
    let is_module = |line: &&str| line.starts_with("mod ") && line.ends_with(';');
    let list = lines.iter().position(|line| line.trim() == "vec![");
    let list = list.context("it has no list of components: `vec![` on a line of its own")? + 1;
    let end = lines[list..].iter().position(|line| line.trim().starts_with(']'));
    let end = list + end.context("its list of components has no end")?;
    let later = lines[list..end].iter().position(|line| line.trim() > name);
    let entry = list + later.unwrap_or(end - list);
    let later = lines.iter().position(|line| is_module(line) && **line > *module);
    // What is said about a module stays with it.
    let is_about = |line: &str| line.starts_with("#[") || line.starts_with("// ");
    let before = later.map(|at| at - lines[..at].iter().rev().take_while(|line| is_about(line)).count());
    let last = lines.iter().rposition(is_module).map(|last| last + 1);
    let place = before.or(last);
    let indent: String = " ".repeat(8);
    let mut out = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        if place == Some(at) {
            out.push(module.clone());
        }
        if at == entry {
            out.push(format!("{indent}{name}::SOURCE,"));
            out.push(format!("{indent}{name}::SINK,"));
        }
        out.push((*line).to_string());
    }
    if place.is_none() {
        // After the comment the file opens with.
        let opening = out
            .iter()
            .take_while(|line| line.starts_with("//!") || line.is_empty())
            .count();
        out.splice(opening..opening, [module, String::new()]);
    }
    Ok(out.join("\n") + "\n")
}

/// The table of promises with a row more.
fn promised(text: &str, name: &str) -> Result<String> {
    let heading = text.lines().position(|line| line == PROMISES_HEADING);
    let heading = heading.context("it has no table of what destinations promise")?;
    let rows = text
        .lines()
        .skip(heading)
        .take_while(|line| line.starts_with('|'))
        .count();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let how = "the watermark is kept by the daemon, after the commit: after a crash one commit may be written again";
    lines.insert(heading + rows, format!("| `{name}` | at least once | {how} |"));
    Ok(lines.join("\n") + "\n")
}

/// The compliance suite with a module and two lines more.
fn complying(main: &str, name: &str) -> Result<String> {
    let mut lines: Vec<String> = main.lines().map(str::to_owned).collect();
    let first = lines.iter().position(|line| line.starts_with("mod "));
    let first = first.context("it has no module")?;
    let module = format!("mod {name}_worlds;");
    let modules = lines[first..].iter().take_while(|line| line.starts_with("mod "));
    let before = first + modules.take_while(|line| **line < module).count();
    lines.insert(before, module);
    let table = lines.iter().position(|line| line == SUITE_HEADING);
    let table = table.with_context(|| format!("it has no table: '{SUITE_HEADING}' on a line of its own"))? + 1;
    let rows = [
        (
            "source",
            format!(
                "    source_{name}: Source \"{name}\" \"\" = {name}_worlds::Counting, not: [\n        (Ask::Reconnect, \"there is no \
                 server: it counts\"), NEVER_BAD, NO_COLUMNS, NOTHING_WRONG, NOTHING_THERE];"
            ),
        ),
        (
            "sink",
            format!(
                "    sink_{name}: Sink \"{name}\" \"\" = {name}_worlds::Written::new(), not: [\n        NO_SERVER, ON_DISK, \
                 (Ask::Drift, \"it writes the first column\")];"
            ),
        ),
    ];
    for (role, row) in rows {
        let start = format!("    {role}_");
        let (own, mut place) = (format!("{start}{name}:"), None);
        for (at, line) in lines
            .iter()
            .enumerate()
            .skip(table)
            .take_while(|(_, line)| *line != "}")
        {
            if line.starts_with(&start) && *line < own {
                place = Some(at);
            }
        }
        // Behind the one before it in the alphabet, which may have more lines than one.
        let place = place.map_or(table, |at| {
            at + 1
                + lines[at + 1..]
                    .iter()
                    .take_while(|line| line.starts_with("        "))
                    .count()
        });
        lines.splice(place..place, row.lines().map(str::to_owned));
    }
    Ok(lines.join("\n") + "\n")
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for name in ["opc_ua", "s3", "x"] {
            check(name).unwrap();
        }
        for name in ["", "3s", "a-b", "A", "a/b", "_a", &"a".repeat(33)] {
            assert!(check(name).is_err(), "{name}");
        }
    }

    #[test]
    fn the_registry_stays_in_order() {
        let lib = "//! All.\n\nmod alpha;\n// One file for both.\n#[path = \"x.rs\"]\nmod ordered;\n\npub fn components() -> \
                   Vec<Component> {\n    vec![\n        alpha::SINK,\n        ordered::SINK,\n    ]\n}\n";
        for (name, module, entry) in [
            (
                "beta",
                "mod alpha;\nmod beta;\n",
                "alpha::SINK,\n        beta::SOURCE,\n        beta::SINK,\n        ordered",
            ),
            (
                "zeta",
                "mod ordered;\nmod zeta;\n",
                "ordered::SINK,\n        zeta::SOURCE,\n        zeta::SINK,\n    ]",
            ),
            (
                "aa",
                "\nmod aa;\nmod alpha;\n",
                "vec![\n        aa::SOURCE,\n        aa::SINK,\n        alpha::SINK",
            ),
        ] {
            let made = registered(lib, name).unwrap();
            assert!(made.contains(module) && made.contains(entry), "{name}: {made}");
            assert_eq!(made.lines().count(), lib.lines().count() + 3);
        }
        let empty = "//! None yet.\n\nfn components() {\n    vec![\n    ]\n}\n";
        assert!(
            registered(empty, "x")
                .unwrap()
                .starts_with("//! None yet.\n\nmod x;\n\nfn")
        );
        assert!(registered("fn main() {}\n", "x").is_err());
    }

    #[test]
    fn this_repository_can_take_one() {
        let root = cmd::root();
        let lib = registered(&read(&root.join(CONNECTORS).join("src/lib.rs")).unwrap(), "zz").unwrap();
        assert!(
            lib.contains("\nmod zz;\n") && lib.contains("        zz::SOURCE,\n        zz::SINK,\n"),
            "{lib}"
        );
        let table = promised(&read(&root.join(PROMISES)).unwrap(), "zz").unwrap();
        assert!(table.contains("\n| `zz` | at least once | the watermark"), "{table}");
        let suite = complying(&read(&root.join(SUITE).join("main.rs")).unwrap(), "mz").unwrap();
        for wanted in [
            "mod live_worlds;\nmod mz_worlds;\nmod numbers;\n",
            "    source_mz: Source \"mz\" \"\" = mz_worlds::Counting, not: [\n        (Ask::Reconnect, \"there is no server: it counts\"), \
             NEVER_BAD, NO_COLUMNS, NOTHING_WRONG, NOTHING_THERE];\n    source_nats:",
            "    sink_mz: Sink \"mz\" \"\" = mz_worlds::Written::new(), not: [\n        NO_SERVER, ON_DISK, (Ask::Drift, \"it writes the \
             first column\")];\n    sink_nats:",
        ] {
            assert!(suite.contains(wanted), "{suite}");
        }
        assert!(complying("mod a;\n", "zz").is_err());
    }
}
