//! Checks of the files themselves: where they are, how long, and words that do not belong in them. Parses no language.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};

use super::{Report, read};
use crate::cmd;

/// The folders at the top. A new one is a decision, not an accident.
const FOLDERS: &[&str] = &[
    ".cargo",
    ".ci",
    ".config",
    ".github",
    "bus-schema",
    "docs",
    "edge-daemon",
    "firmware-targets",
    "plane",
    "tools",
    "ui",
];

/// What lies in a working copy without being part of the repository.
const NOT_OURS: &[&str] = &[".git", "node_modules", "dist", "target"];

/// A file longer than this wants to be two.
const LINES_MAX: usize = 800;
/// What counts as source.
const SOURCE_EXTENSIONS: &[&str] = &["rs", "ts", "tsx", "js", "css", "md"];

/// A word that must not appear.
struct Forbidden {
    /// Written in pieces, so that this table does not find itself.
    word: &'static str,
    /// Whether it must stand alone, not inside a longer word.
    whole: bool,
    /// Files where it is right, by their name.
    except: &'static [&'static str],
    why: &'static str,
}

const LOCK_FILES: &[&str] = &["Cargo.lock", "package-lock.json"];

const FORBIDDEN: &[Forbidden] = &[
    Forbidden {
        word: concat!("TO", "DO"),
        whole: true,
        except: &[],
        why: "do it, or open an issue",
    },
    Forbidden {
        word: concat!("FIX", "ME"),
        whole: true,
        except: &[],
        why: "fix it, or open an issue",
    },
    Forbidden {
        word: concat!("XX", "X"),
        whole: true,
        except: &[],
        why: "say what is wrong, or fix it",
    },
    Forbidden {
        word: concat!("/wo", "rk/"),
        whole: false,
        except: &[],
        why: "a path of one machine",
    },
    Forbidden {
        word: concat!("/ro", "ot/"),
        whole: false,
        except: &[],
        why: "a path of one machine",
    },
    Forbidden {
        word: concat!("<<<<", "<<<"),
        whole: false,
        except: &[],
        why: "a merge left unfinished",
    },
    Forbidden {
        word: concat!("static.", "crates.io"),
        whole: false,
        except: LOCK_FILES,
        why: REGISTRY,
    },
    Forbidden {
        word: concat!("index.", "crates.io"),
        whole: false,
        except: LOCK_FILES,
        why: REGISTRY,
    },
    Forbidden {
        word: concat!("registry.", "npmjs.org"),
        whole: false,
        except: LOCK_FILES,
        why: REGISTRY,
    },
    Forbidden {
        word: concat!("replace", "-with ="),
        whole: false,
        except: &[],
        why: REGISTRY,
    },
];

const REGISTRY: &str = "where packages come from is the machine's business, not the repository's";

/// Where Cargo.lock may say a crate comes from.
const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// The folders at the top are the known ones.
pub fn folders() -> Result<Report> {
    Ok(Report {
        findings: unknown_folders(&files()?),
        note: None,
    })
}

fn unknown_folders(files: &[String]) -> Vec<String> {
    let top: BTreeSet<&str> = files.iter().filter_map(|path| Some(path.split_once('/')?.0)).collect();
    let unknown = top.into_iter().filter(|folder| !FOLDERS.contains(folder));
    unknown
        .map(|folder| format!("{folder}/ is not one of the folders at the top"))
        .collect()
}

/// No source file is too long.
pub fn length() -> Result<Report> {
    let mut findings = Vec::new();
    for path in files()?.iter().filter(|path| is_source(path)) {
        findings.extend(too_long(path, &read(path)?));
    }
    Ok(Report { findings, note: None })
}

fn is_source(path: &str) -> bool {
    Path::new(path)
        .extension()
        .and_then(|e| e.to_str())
        .is_some_and(|e| SOURCE_EXTENSIONS.contains(&e))
}

fn too_long(path: &str, text: &str) -> Option<String> {
    let lines = text.lines().count();
    (lines > LINES_MAX).then(|| format!("{path} has {lines} lines; split it at {LINES_MAX} or before"))
}

/// No file has a word that does not belong there, and the lock file names no other registry.
pub fn words() -> Result<Report> {
    let mut findings = Vec::new();
    for path in files()? {
        // A file that is not text has no words.
        let Ok(text) = String::from_utf8(std::fs::read(cmd::root().join(&path))?) else {
            continue;
        };
        findings.extend(forbidden(&path, &text));
        if path == "Cargo.lock" {
            findings.extend(foreign_sources(&text));
        }
    }
    Ok(Report { findings, note: None })
}

fn forbidden(path: &str, text: &str) -> Vec<String> {
    let name = Path::new(path)
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or(path);
    let words = FORBIDDEN.iter().filter(|rule| !rule.except.contains(&name));
    let mut findings = Vec::new();
    for rule in words.filter(|rule| text.contains(rule.word)) {
        for (number, line) in text.lines().enumerate().filter(|(_, line)| has(line, rule)) {
            findings.push(format!(
                "{path}:{}: `{}`: {}\n  {}",
                number + 1,
                rule.word,
                rule.why,
                line.trim()
            ));
        }
    }
    findings
}

fn has(line: &str, rule: &Forbidden) -> bool {
    let part_of_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(rule.word).any(|(at, word)| {
        let (before, after) = (line[..at].chars().next_back(), line[at + word.len()..].chars().next());
        !rule.whole || !(part_of_word(before) || part_of_word(after))
    })
}

fn foreign_sources(lock: &str) -> Vec<String> {
    let sources = lock.lines().filter_map(|line| line.strip_prefix("source = "));
    let foreign: BTreeSet<&str> = sources
        .map(|s| s.trim_matches('"'))
        .filter(|s| *s != CRATES_IO)
        .collect();
    foreign
        .into_iter()
        .map(|source| format!("Cargo.lock: crates come from {source}, not from crates.io"))
        .collect()
}

/// The files of the repository, tracked or about to be, relative to its root.
pub(super) fn files() -> Result<Vec<String>> {
    let listed =
        cmd::output(cmd::program("git").args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]));
    let mut files = match listed {
        Ok(output) if output.status.success() => {
            let paths = String::from_utf8_lossy(&output.stdout).into_owned();
            // A file that was deleted but not yet staged is still listed.
            let here = |path: &&str| !path.is_empty() && cmd::root().join(path).is_file();
            paths.split('\0').filter(here).map(str::to_owned).collect()
        }
        // No git, or not a clone: an unpacked archive has nothing in it but the files and what was built.
        _ => walk(&cmd::root(), "")?,
    };
    files.sort();
    files.dedup();
    Ok(files)
}

fn walk(dir: &Path, prefix: &str) -> Result<Vec<String>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if NOT_OURS.contains(&name.as_str()) {
            continue;
        }
        let path = format!("{prefix}{name}");
        let kind = entry.file_type()?;
        if kind.is_dir() {
            files.extend(walk(&entry.path(), &format!("{path}/"))?);
        } else if kind.is_file() {
            files.push(path);
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_at_the_top() {
        let files = ["Cargo.toml", "plane/src/main.rs", "playground/x.rs", ".ci/run"].map(str::to_owned);
        assert_eq!(
            unknown_folders(&files),
            ["playground/ is not one of the folders at the top"]
        );
    }

    #[test]
    fn walks_like_git() {
        let walked = walk(&cmd::root().join("tools/xtask"), "tools/xtask/").unwrap();
        assert!(
            walked.iter().any(|path| path == "tools/xtask/src/lint/files.rs"),
            "{walked:?}"
        );
        assert!(
            files()
                .unwrap()
                .iter()
                .any(|path| path == "tools/xtask/src/lint/files.rs")
        );
    }

    #[test]
    fn lengths() {
        let cases = [(800, true), (801, false)];
        for (lines, fine) in cases {
            assert_eq!(too_long("a.rs", &"x\n".repeat(lines)).is_none(), fine, "{lines}");
        }
        let sources = [
            ("a/b.rs", true),
            ("README.md", true),
            ("a.css", true),
            ("Cargo.lock", false),
            ("LICENSE", false),
        ];
        for (path, source) in sources {
            assert_eq!(is_source(path), source, "{path}");
        }
    }

    #[test]
    fn forbidden_words() {
        let (later, path, host) = (
            concat!("TO", "DO"),
            concat!("/wo", "rk/here"),
            concat!("registry.", "npmjs.org"),
        );
        let cases = [
            ("a.rs", format!("// {later}: later"), 1),
            ("a.rs", format!("one\n{later}\n({later})"), 2),
            ("a.rs", format!("{later}S and MY_{later}"), 0),
            ("a.rs", later.to_lowercase(), 0),
            ("docs/a.md", format!("see {path}"), 1),
            ("ui/.npmrc", format!("https://{host}/"), 1),
            ("ui/package-lock.json", format!("https://{host}/"), 0),
            ("a.rs", "nothing wrong".to_owned(), 0),
        ];
        for (path, text, want) in cases {
            assert_eq!(forbidden(path, &text).len(), want, "{path}: {text}");
        }
    }

    #[test]
    fn sources_in_the_lock_file() {
        let lock = format!("source = \"{CRATES_IO}\"\nsource = \"git+https://example.org/x\"\nname = \"x\"\n");
        assert_eq!(
            foreign_sources(&lock),
            ["Cargo.lock: crates come from git+https://example.org/x, not from crates.io"]
        );
    }
}
