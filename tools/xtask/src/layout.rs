//! `cargo xtask layout`: runs the release programs under callgrind through the footprint's scenarios, small, and writes down
//! which functions ran. The next release build puts these beside each other (see the crate `layout`). To be run when
//! `cargo xtask footprint` says that memory has grown, or after much has moved; a list that is old only helps less.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use anyhow::{Context, Result, ensure};

use crate::metadata::Metadata;
use crate::{cmd, footprint, programs, setup};

/// What `cargo xtask layout` can be told.
#[derive(clap::Args)]
pub struct Args {}

/// The programs that are laid out: package (and its directory), program.
const PROGRAMS: &[(&str, &str)] = &[("edge-daemon", "myceliald"), ("plane", "mycelial-plane")];
/// Those that take part.
const OTHERS: [(&str, &str); 2] = [("cli", "mycelial"), ("broker", "mycelial-broker")];
/// The list beside the package's manifest.
const LIST: &str = "ran.txt";
/// Calls in one run from which on a function is one that works, and not one that only starts and ends: the scenarios have a
/// few hundred batches.
const OFTEN: u64 = 50;
/// What stands above the names.
const HEAD: &str = "# Written by `cargo xtask layout`: the functions that ran in its scenarios.\n";

/// Runs the task.
pub fn run(_: &Args) -> Result<()> {
    setup::ensure_all()?;
    for program in ["valgrind", "nm"] {
        cmd::output(cmd::program(program).arg("--version")).with_context(|| {
            format!(
                "install it: apt-get install {}",
                if program == "nm" { "binutils" } else { program }
            )
        })?;
    }
    programs::build("release", &OTHERS.map(|(package, _)| package))?;
    let release = Metadata::load()?.target_directory.join("release");
    let dir = release.join("layout");
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir_all(&dir)?;
    for (_, program) in OTHERS {
        fs::copy(release.join(program), dir.join(program))?;
    }
    for (package, program) in PROGRAMS {
        eprintln!("linking {program} with its symbols …");
        let mut build = cmd::cargo();
        build.args(["rustc", "--release", "-p", package, "--bin", program]);
        build.args(programs::settings(package)).args(["--", "-Cstrip=none"]);
        build.env(layout::OFF, "1");
        cmd::run(&mut build)?;
        let named = dir.join(format!("{program}.named"));
        fs::copy(release.join(program), &named)?;
        wrap(&dir, program, &named)?;
    }
    footprint::measure(&dir, &["--small"])?;
    for (package, program) in PROGRAMS {
        let names = ran(&dir, program)?;
        ensure!(!names.is_empty(), "{program} did not run");
        let list = cmd::root().join(package).join(LIST);
        fs::write(&list, format!("{HEAD}{}\n", names.join("\n")))?;
        eprintln!("{}: {} names", list.display(), names.len());
    }
    Ok(())
}

/// Puts a script in the program's place that runs it under callgrind.
fn wrap(dir: &Path, program: &str, named: &Path) -> Result<()> {
    let script = format!(
        "#!/bin/sh\nexec valgrind -q --tool=callgrind --dump-instr=yes --callgrind-out-file={}/{program}.%p.calls {} \"$@\"\n",
        dir.display(),
        named.display()
    );
    let path = dir.join(program);
    fs::write(&path, script)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// The names of the functions that ran, as the list has them. What is called again and again while records move stands first,
/// and what ran in the same runs together: a daemon that only sends needs nothing of what only a receiving one does.
fn ran(dir: &Path, program: &str) -> Result<Vec<String>> {
    let named = dir.join(format!("{program}.named"));
    let symbols = cmd::output(cmd::program("nm").args(["--print-size", "--defined-only"]).arg(&named))?;
    let symbols = symbols_of(&String::from_utf8_lossy(&symbols.stdout));
    let mut runs = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let is_ours = path.file_name().and_then(|name| name.to_str()).is_some_and(|name| {
            name.strip_prefix(program)
                .is_some_and(|rest| rest.starts_with('.') && rest.ends_with(".calls"))
        });
        if is_ours {
            let calls = fs::read_to_string(&path)?;
            let addresses = addresses(&calls, &named.display().to_string());
            let mut names = Run::new();
            for (address, times) in addresses {
                if let Some((start, name)) = function_at(&symbols, address) {
                    // How often its first instruction ran is how often it was called.
                    let calls = if start == address { times } else { 0 };
                    let known = names.entry(layout::stable(name)).or_default();
                    *known = calls.max(*known);
                }
            }
            runs.push(names);
        }
    }
    Ok(together(runs))
}

/// What ran in a process: functions, and how often each was called.
type Run = BTreeMap<String, u64>;

/// All names of all runs: what was called often first; those that ran in the same runs beside each other, what ran in most of
/// them first.
fn together(mut runs: Vec<Run>) -> Vec<String> {
    // However the processes were numbered.
    runs.sort_by_key(|names| Reverse(names.len()));
    let mut ran: BTreeMap<String, (bool, Vec<usize>)> = BTreeMap::new();
    for (run, names) in runs.into_iter().enumerate() {
        for (name, calls) in names {
            let (often, runs) = ran.entry(name).or_default();
            *often |= calls >= OFTEN;
            runs.push(run);
        }
    }
    let mut names: Vec<(String, (bool, Vec<usize>))> = ran.into_iter().collect();
    names.sort_by_key(|(name, (often, runs))| (Reverse(*often), Reverse(runs.len()), runs.clone(), name.clone()));
    names.into_iter().map(|(name, _)| name).collect()
}

/// Functions by address: their size and name.
type Symbols = BTreeMap<u64, (u64, String)>;

fn symbols_of(nm: &str) -> Symbols {
    let mut symbols = Symbols::new();
    for line in nm.lines() {
        let mut words = line.split_whitespace();
        let (Some(address), Some(size), Some(kind), Some(name)) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            continue;
        };
        if let (Ok(address), Ok(size), "t" | "T" | "w" | "W") =
            (u64::from_str_radix(address, 16), u64::from_str_radix(size, 16), kind)
        {
            symbols.insert(address, (size, name.to_string()));
        }
    }
    symbols
}

/// The function an address is in: where it starts, and its name.
fn function_at(symbols: &Symbols, address: u64) -> Option<(u64, &str)> {
    let (start, (size, name)) = symbols.range(..=address).next_back()?;
    (address < start + size).then_some((*start, name.as_str()))
}

/// The addresses of instructions of one object that ran, and how often, out of a file of callgrind's. It writes an address as
/// such, or as its distance from the one before, or `*` for the same one; objects by a number after they were named once.
/// The line after `calls=` has what the callee cost, and only says where it was called.
fn addresses(calls: &str, object: &str) -> BTreeMap<u64, u64> {
    let mut found = BTreeMap::new();
    let mut is_call = false;
    let mut objects: HashMap<&str, &str> = HashMap::new();
    let (mut current, mut last) = ("", 0_u64);
    for line in calls.lines() {
        let called = line.strip_prefix("cob=");
        if let Some(named) = called.or_else(|| line.strip_prefix("ob=")) {
            let (id, name) = named.split_once(' ').unwrap_or((named, ""));
            if !name.is_empty() {
                objects.insert(id, name);
            }
            if called.is_none() {
                current = objects.get(id).copied().unwrap_or_default();
            }
            continue;
        }
        if line.starts_with("calls=") {
            is_call = true;
            continue;
        }
        let mut words = line.split(' ');
        let word = words.next().unwrap_or_default();
        // Only small distances are decimal.
        let number = |text: &str| match text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16).ok(),
            None => text.parse().ok(),
        };
        let next = match word.as_bytes().first() {
            Some(b'+') => number(&word[1..]).map(|by| last.wrapping_add(by)),
            Some(b'-') => number(&word[1..]).map(|by| last.wrapping_sub(by)),
            Some(b'*') => Some(last),
            Some(b'0') => number(word),
            _ => None,
        };
        if let Some(address) = next {
            last = address;
            let times = words.nth(1).and_then(|times| times.parse().ok());
            if current == object && !is_call {
                *found.entry(address).or_default() += times.unwrap_or(0);
            }
            is_call = false;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_object() {
        let calls = "version: 1\npositions: instr line\n\nob=(1) /x/a\nfn=(1) f\n0x1000 0 3\n+4 0 1\n* 0 2\ncob=(2) /lib/c\n\
                     calls=2 0x9000 0\n-0x2 0 500\n-0x2 0 5\n\nob=(2)\n0x2000 0 1\nob=(1)\n+16 0 1\n";
        let found: Vec<(u64, u64)> = addresses(calls, "/x/a").into_iter().collect();
        assert_eq!(found, [(0x1000, 8), (0x1004, 3), (0x2010, 1)]);
    }

    #[test]
    fn what_works_stands_first_and_what_ran_in_the_same_runs_together() {
        let run = |names: &str| {
            let named = |name: &str| match name.strip_suffix('!') {
                Some(name) => (name.to_string(), OFTEN),
                None => (name.to_string(), OFTEN - 1),
            };
            names.split(' ').map(named).collect::<Run>()
        };
        let names = together(vec![
            run("all! hub often"),
            run("all gateway both zebra! often!"),
            run("all both cat often"),
        ]);
        assert_eq!(names.join(" "), "all often zebra both gateway cat hub");
    }

    #[test]
    fn the_function_an_address_is_in() {
        let symbols =
            symbols_of("0000000000001000 0000000000000010 t f\n0000000000002000 0000000000000010 D data\nbad\n");
        let cases = [
            (0xfff, None),
            (0x1000, Some((0x1000, "f"))),
            (0x100f, Some((0x1000, "f"))),
            (0x1010, None),
            (0x2000, None),
        ];
        for (address, want) in cases {
            assert_eq!(function_at(&symbols, address), want, "{address:x}");
        }
    }
}
