//! Where a destination's files stand: names below one directory, none of which leads out of it. Looks at names and at what
//! is in their way; reads and writes no file.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{ledger::sync_directory, siblings::parent};

/// Longest name of a file or directory, in bytes: what is added to it for a while still fits into 255.
const COMPONENT_BYTES_MAX: usize = 200;
/// Longest name below the directory, in bytes.
pub(crate) const NAME_BYTES_MAX: usize = 1024;
/// What no name may have in it on one system or another.
const FORBIDDEN: &[char] = &['\\', '<', '>', ':', '"', '|', '?', '*'];
/// Names of devices on Windows, with any ending.
const DEVICES: &[&str] = &["con", "prn", "aux", "nul", "conin$", "conout$"];

/// Whether a name can stand below a directory: on every system, and nowhere else.
pub(crate) fn check(name: &str) -> Result<(), String> {
    if name.len() > NAME_BYTES_MAX {
        return Err(format!("the name is longer than {NAME_BYTES_MAX} bytes"));
    }
    name.split('/').try_for_each(|component| {
        check_component(component).map_err(|cause| format!("'{}' is no name for a file: {cause}", name.escape_debug()))
    })
}

fn check_component(component: &str) -> Result<(), String> {
    if component.is_empty() {
        return Err("a part of it is empty".into());
    }
    if component.len() > COMPONENT_BYTES_MAX {
        return Err(format!("a part of it is longer than {COMPONENT_BYTES_MAX} bytes"));
    }
    if component.starts_with('.') {
        return Err("a part of it begins with a dot".into());
    }
    if component.ends_with(['.', ' ']) {
        return Err("a part of it ends with a dot or a space".into());
    }
    if let Some(bad) = component.chars().find(|c| c.is_control() || FORBIDDEN.contains(c)) {
        return Err(format!("'{}' cannot stand in it", bad.escape_debug()));
    }
    let stem = component.split('.').next().unwrap_or_default().trim_end();
    if is_device(&stem.to_lowercase()) {
        return Err(format!("'{stem}' is a device on some systems"));
    }
    Ok(())
}

fn is_device(stem: &str) -> bool {
    let numbered = |port: &str| {
        let number = stem.strip_prefix(port).map(|rest| rest.chars().collect::<Vec<_>>());
        matches!(number.as_deref(), Some(['0'..='9' | '¹' | '²' | '³']))
    };
    DEVICES.contains(&stem) || numbered("com") || numbered("lpt")
}

/// Why a name cannot be used.
#[derive(Debug)]
pub(crate) enum Barred {
    /// What stands there already is in its way, or leads away: no other try helps.
    Name(String),
    /// The system said no this time.
    System(io::Error),
}

impl From<io::Error> for Barred {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::InvalidFilename | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidInput => {
                Self::Name(error.to_string())
            }
            _ => Self::System(error),
        }
    }
}

/// Makes the directories that a checked name needs below `root`, durably, and sees that no link leads out on the way. What
/// has the name already, if anything has, is a file. `root` itself must be there.
pub(crate) fn prepare(root: &Path, name: &str) -> Result<PathBuf, Barred> {
    let mut path = root.to_path_buf();
    let mut components = name.split('/').peekable();
    while let Some(component) = components.next() {
        path.push(component);
        let is_last = components.peek().is_none();
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_symlink() => {
                return Err(Barred::Name(format!("{} is a symbolic link", path.display())));
            }
            Ok(found) if is_last && !found.is_file() => {
                return Err(Barred::Name(format!("{} is no file", path.display())));
            }
            Ok(found) if !is_last && !found.is_dir() => {
                return Err(Barred::Name(format!("{} is no directory", path.display())));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound && is_last => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir(&path)?;
                sync_directory(&path)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(path)
}

/// The name with a number: `out.csv` and 7 make `out-000007.csv`.
pub(crate) fn numbered(name: &str, number: u64) -> String {
    let (directory, file) = name
        .rsplit_once('/')
        .map_or(("", name), |(directory, file)| (directory, file));
    let slash = if directory.is_empty() { "" } else { "/" };
    match split_ending(file) {
        (stem, Some(ending)) => format!("{directory}{slash}{stem}-{number:0NUMBER_DIGITS$}.{ending}"),
        (stem, None) => format!("{directory}{slash}{stem}-{number:0NUMBER_DIGITS$}"),
    }
}

/// Digits of the number of a complete file.
const NUMBER_DIGITS: usize = 6;

fn split_ending(file: &str) -> (&str, Option<&str>) {
    match file.rsplit_once('.').filter(|(stem, _)| !stem.is_empty()) {
        Some((stem, ending)) => (stem, Some(ending)),
        None => (file, None),
    }
}

/// One more than the highest number of a complete file beside `path`.
pub(crate) fn next_number(path: &Path) -> io::Result<u64> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let (stem, ending) = split_ending(&name);
    let mut highest = 0;
    for entry in fs::read_dir(parent(path))? {
        let entry = entry?.file_name();
        let Some(middle) = entry
            .to_str()
            .and_then(|other| other.strip_prefix(stem)?.strip_suffix(ending.unwrap_or_default()))
        else {
            continue;
        };
        let digits = middle
            .trim_end_matches('.')
            .strip_prefix('-')
            .filter(|digits| digits.len() >= NUMBER_DIGITS);
        highest = highest.max(digits.and_then(|digits| digits.parse().ok()).unwrap_or(0));
    }
    Ok(highest + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_stay_below() {
        for name in [
            "a",
            "a.jsonl",
            "plant-1/2026-01-31.jsonl",
            "größe 7/x",
            "common",
            "a..b",
            "com10",
            "aux1",
        ] {
            assert_eq!(check(name), Ok(()), "{name}");
        }
        let long = "x".repeat(201);
        let deep = "x/".repeat(600) + "x";
        for (name, wanted) in [
            ("", "is empty"),
            ("/etc/passwd", "is empty"),
            ("a//b", "is empty"),
            ("a/", "is empty"),
            ("..", "begins with a dot"),
            ("a/../../b", "begins with a dot"),
            ("./a", "begins with a dot"),
            (".mycelial", "begins with a dot"),
            ("a\0b", "cannot stand in it"),
            ("a\nb", "cannot stand in it"),
            ("C:\\x", "cannot stand in it"),
            ("..\\x", "begins with a dot"),
            ("a\\..\\x", "cannot stand in it"),
            ("a?b", "cannot stand in it"),
            ("nul", "is a device"),
            ("a/CON.txt", "is a device"),
            ("Lpt1 .x", "is a device"),
            ("com¹", "is a device"),
            ("a.", "ends with a dot"),
            ("a /b", "ends with a dot or a space"),
            (long.as_str(), "longer than 200 bytes"),
            (deep.as_str(), "longer than 1024 bytes"),
        ] {
            let cause = check(name).expect_err(name);
            assert!(cause.contains(wanted), "{name}: {cause}");
            assert!(!cause.contains(['\0', '\n']), "{cause:?}");
        }
    }

    #[test]
    fn nothing_in_the_way_leads_out() {
        let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let root = dir.path();
        assert_eq!(prepare(root, "a/b/c").unwrap(), root.join("a/b/c"));
        assert!(root.join("a/b").is_dir() && !root.join("a/b/c").exists());
        fs::write(root.join("file"), "").unwrap();
        fs::write(elsewhere.path().join("theirs"), "").unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), root.join("away")).unwrap();
        std::os::unix::fs::symlink(elsewhere.path().join("theirs"), root.join("a/link")).unwrap();
        std::os::unix::fs::symlink("nowhere", root.join("dangling")).unwrap();
        for (name, wanted) in [
            ("away/x", "is a symbolic link"),
            ("a/link", "is a symbolic link"),
            ("dangling", "is a symbolic link"),
            ("dangling/x", "is a symbolic link"),
            ("file/x", "is no directory"),
            ("a/b", "is no file"),
        ] {
            match prepare(root, name) {
                Err(Barred::Name(cause)) => assert!(cause.contains(wanted), "{name}: {cause}"),
                other => panic!("{name}: {other:?}"),
            }
        }
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 1);
    }

    #[test]
    fn numbers() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(numbered("out.csv", 7), "out-000007.csv");
        assert_eq!(numbered("a.b/out", 7), "a.b/out-000007");
        for name in ["out-000003.csv", "out-12.csv", "out-000009.txt", "other-000010.csv"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        assert_eq!(next_number(&dir.path().join("out.csv")).unwrap(), 4);
        assert_eq!(next_number(&dir.path().join("new")).unwrap(), 1);
    }
}
