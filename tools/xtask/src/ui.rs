//! The web UI in `ui/`: built before the plane that embeds it, checked, and its own tests run. Knows npm, not the page.

use std::{
    collections::hash_map::DefaultHasher,
    fs,
    hash::{Hash as _, Hasher as _},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::cmd;

/// What is in `ui/` without going into the page.
const NOT_INPUT: &[&str] = &["node_modules", "dist", "tests"];
/// Beside what was built: of which inputs it was.
const STAMP: &str = "dist/.inputs";

fn dir() -> PathBuf {
    cmd::root().join("ui")
}

fn npm(arguments: &[&str]) -> Command {
    let mut npm = cmd::program("npm");
    npm.current_dir(dir()).args(arguments);
    npm
}

/// Fetches what the lock file names, unless it is there.
pub fn fetch() -> Result<()> {
    let changed = |path: &str| fs::metadata(dir().join(path)).and_then(|file| file.modified()).ok();
    if changed("node_modules/.package-lock.json") < changed("package-lock.json") {
        cmd::run(&mut npm(&["ci", "--no-audit", "--no-fund"]))?;
    }
    Ok(())
}

/// Builds the page for the plane to embed. Quick when nothing has changed.
pub fn build() -> Result<()> {
    let inputs = format!("{:016x}", inputs(&dir())?);
    let stamp = dir().join(STAMP);
    if fs::read_to_string(&stamp).is_ok_and(|built| built == inputs) {
        return Ok(());
    }
    eprintln!("building the web UI …");
    fetch()?;
    cmd::run(&mut npm(&["run", "--silent", "build"]))?;
    fs::write(&stamp, inputs).with_context(|| format!("cannot write {}", stamp.display()))
}

/// Prints what the page weighs beside what it may, as it was built last.
pub fn budgets() -> Result<()> {
    cmd::run(&mut npm(&["run", "--silent", "budgets"]))
}

/// Types, style and form of its sources, as one finding for each complaint.
pub fn check() -> Result<Option<String>> {
    fetch()?;
    let output = cmd::output(&mut npm(&["run", "--silent", "check"]))?;
    let said = [output.stdout, output.stderr].concat();
    Ok((!output.status.success()).then(|| String::from_utf8_lossy(&said).into_owned()))
}

/// Runs its unit tests.
pub fn test() -> Result<()> {
    fetch()?;
    cmd::run(&mut npm(&["test", "--silent"]))
}

/// Changes when a file that goes into the page does.
fn inputs(dir: &Path) -> Result<u64> {
    let mut files = Vec::new();
    walk(dir, &mut files)?;
    files.sort();
    let mut hasher = DefaultHasher::new();
    for file in files {
        file.strip_prefix(dir).unwrap_or(&file).hash(&mut hasher);
        let bytes = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        bytes.hash(&mut hasher);
    }
    Ok(hasher.finish())
}

fn walk(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let entry = entry?;
        let name = entry.file_name();
        if NOT_INPUT.iter().any(|other| *other == name) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            walk(&entry.path(), files)?;
        } else {
            files.push(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_built_or_fetched_is_no_input() {
        let root = std::env::temp_dir().join(format!("mycelial-xtask-ui-{}", std::process::id()));
        for (file, text) in [
            ("src/main.tsx", "a"),
            ("dist/index.html", "b"),
            ("node_modules/x/y.js", "c"),
        ] {
            fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
            fs::write(root.join(file), text).unwrap();
        }
        let first = inputs(&root).unwrap();
        fs::write(root.join("dist/index.html"), "other").unwrap();
        fs::write(root.join("node_modules/x/y.js"), "other").unwrap();
        assert_eq!(inputs(&root).unwrap(), first);
        fs::write(root.join("src/main.tsx"), "other").unwrap();
        assert_ne!(inputs(&root).unwrap(), first);
        fs::remove_dir_all(root).unwrap();
    }
}
