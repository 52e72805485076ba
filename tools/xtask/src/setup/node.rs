//! The Node of the tests: a directory of its own below `target`, with servers from npm in the versions that a lock file names.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cmd;
use crate::metadata::Metadata;

/// Where the lock file is.
const SOURCE: &str = "tools/testkit/src/oidc";
/// What npm reads.
const FILES: [&str; 2] = ["package.json", "package-lock.json"];

/// What setup calls it.
pub(super) const WHAT: &str = "Node's packages";

/// Whether it is there with all of its packages.
pub(super) fn is_ready() -> bool {
    directory().is_ok_and(|dir| holds(&dir, &cmd::root().join(SOURCE)))
}

/// Makes it, or brings it up to date. Quiet when there is nothing to do.
pub(super) fn ensure() -> Result<()> {
    let (dir, source) = (directory()?, cmd::root().join(SOURCE));
    if holds(&dir, &source) {
        return Ok(());
    }
    println!("setup: missing: {WHAT}");
    if dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    }
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    for file in FILES {
        fs::copy(source.join(file), dir.join(file)).with_context(|| format!("cannot copy {file}"))?;
    }
    let mut npm = cmd::program("npm");
    npm.current_dir(&dir)
        .args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"]);
    cmd::run(&mut npm)?;
    fs::write(stamp(&dir), wanted(&source)?).with_context(|| format!("cannot write into {}", dir.display()))?;
    println!("setup: installed {WHAT}");
    Ok(())
}

/// Where `testkit` looks for it.
fn directory() -> Result<PathBuf> {
    Ok(Metadata::load()?.target_directory.join("node"))
}

/// Says what is in it, and that it was finished.
fn stamp(dir: &Path) -> PathBuf {
    dir.join("packages")
}

fn wanted(source: &Path) -> Result<String> {
    let lock = source.join(FILES[1]);
    fs::read_to_string(&lock).with_context(|| format!("cannot read {}", lock.display()))
}

fn holds(dir: &Path, source: &Path) -> bool {
    let held = fs::read_to_string(stamp(dir));
    wanted(source).is_ok_and(|wanted| held.is_ok_and(|held| held == wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_or_unfinished_one_is_made_anew() {
        let dir = std::env::temp_dir().join(format!("mycelial-xtask-node-{}", std::process::id()));
        let source = dir.join("source");
        fs::create_dir_all(&source).unwrap();
        assert!(!holds(&dir, &source), "nothing there");
        fs::write(source.join(FILES[1]), "{}").unwrap();
        assert!(!holds(&dir, &source), "unfinished");
        fs::write(stamp(&dir), "{}").unwrap();
        assert!(holds(&dir, &source));
        fs::write(source.join(FILES[1]), "{ }").unwrap();
        assert!(!holds(&dir, &source), "another lock file");
        fs::remove_dir_all(dir).unwrap();
    }
}
