//! Workflow texts out of files, directories and stdin. Talks to nobody.

use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use crate::{client::CliError, code_from};

/// Which files.
#[derive(Debug, Clone, clap::Args)]
pub struct Files {
    /// TOML files, directories with such, or `-` for stdin.
    #[arg(required_unless_present = "file", value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// The same, for who writes it so.
    #[arg(short, long, value_name = "FILE")]
    pub file: Vec<PathBuf>,
}

/// Texts that belong together.
#[derive(Debug)]
pub struct Texts {
    /// By file, in the order in which they were named; those of a directory by name.
    pub all: Vec<(PathBuf, String)>,
    /// Whether it is one file that was named, and no directory.
    pub is_one: bool,
}

impl Files {
    /// Their texts.
    pub fn read(self) -> Result<Texts, CliError> {
        let named: Vec<PathBuf> = self.files.into_iter().chain(self.file).collect();
        let is_one = named.len() == 1 && !named[0].is_dir();
        Ok(Texts {
            all: texts(&named)?,
            is_one,
        })
    }
}

/// A file's text, or stdin's, with the code that it takes from other files.
pub fn read(file: &Path) -> Result<String, CliError> {
    let dir = file.parent().unwrap_or(Path::new(""));
    code_from::fill_in(read_only(file)?, dir).map_err(|cause| CliError::Usage(format!("{}: {cause}", file.display())))
}

fn read_only(file: &Path) -> Result<String, CliError> {
    if file == Path::new("-") {
        let mut text = String::new();
        return match std::io::stdin().read_to_string(&mut text) {
            Ok(_) => Ok(text),
            Err(error) => Err(CliError::Usage(format!("cannot read stdin: {error}"))),
        };
    }
    bus_link::settings::text(file).map_err(|error| CliError::Usage(error.to_string()))
}

/// The files, and the TOML files in the directories, by name.
fn texts(named: &[PathBuf]) -> Result<Vec<(PathBuf, String)>, CliError> {
    let mut all = Vec::new();
    for file in named {
        match file.is_dir() {
            true => all.extend(in_dir(file)?),
            false => all.push(file.clone()),
        }
    }
    all.into_iter()
        .map(|file| read(&file).map(|text| (file, text)))
        .collect()
}

/// The TOML files in a directory. What is below it may be code of components, with files of the same kind: it is named, not read.
fn in_dir(dir: &Path) -> Result<Vec<PathBuf>, CliError> {
    let failed = |error: std::io::Error| CliError::Usage(format!("cannot read {}: {error}", dir.display()));
    let (mut found, mut below) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let is_hidden = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if path.is_dir() && !is_hidden {
            below.push(path);
        } else if path.extension().is_some_and(|extension| extension == "toml") && path.is_file() {
            found.push(path);
        }
    }
    below.sort();
    for path in below {
        eprintln!(
            "not looked into: {} (name it too, if workflows are in it)",
            path.display()
        );
    }
    if found.is_empty() {
        return Err(CliError::Usage(format!("there is no .toml file in {}", dir.display())));
    }
    found.sort();
    Ok(found)
}

/// The name that a text gives its workflow; empty when it is no TOML, and the plane says what is wrong with it.
pub fn name_in(text: &str) -> String {
    let table = toml::from_str::<toml::Table>(text).ok();
    let name = table.and_then(|table| table.get("name")?.as_str().map(str::to_string));
    name.unwrap_or_default()
}

/// Two files with one workflow would take turns in overwriting each other.
pub fn each_its_own(texts: &[(PathBuf, String)]) -> Result<(), CliError> {
    let mut known: BTreeMap<String, &Path> = BTreeMap::new();
    for (file, text) in texts {
        let name = name_in(text);
        match known.get(&name) {
            Some(first) if !name.is_empty() => {
                let both = format!("{} and {}", first.display(), file.display());
                return Err(CliError::Usage(format!(
                    "workflow '{name}' is in {both}: leave one out"
                )));
            }
            _ => drop(known.insert(name, file)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_directories() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["b.toml", "a.toml", "notes.md"] {
            fs::write(path(name), name).unwrap();
        }
        fs::create_dir(path("empty")).unwrap();
        let read = |files: &[PathBuf], file: &[PathBuf]| {
            let texts = Files {
                files: files.to_vec(),
                file: file.to_vec(),
            }
            .read()?;
            let names = texts.all.into_iter().map(|(_, text)| text).collect::<Vec<_>>();
            Ok::<_, CliError>((names.join(" "), texts.is_one))
        };
        let whole = dir.path().to_path_buf();
        for (files, file, names, is_one) in [
            (&[whole.clone()][..], &[][..], "a.toml b.toml", false),
            (&[], &[whole], "a.toml b.toml", false),
            (&[path("notes.md"), path("a.toml")], &[], "notes.md a.toml", false),
            (&[path("b.toml")], &[path("a.toml")], "b.toml a.toml", false),
            (&[], &[path("a.toml")], "a.toml", true),
        ] {
            assert_eq!(
                read(files, file).unwrap(),
                (names.to_string(), is_one),
                "{files:?} {file:?}"
            );
        }
        let empty = read(&[path("empty")], &[]).unwrap_err().to_string();
        assert!(empty.contains("no .toml file"), "{empty}");
        assert_eq!(read(&[path("none.toml")], &[]).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn one_workflow_is_in_one_file() {
        let texts = |names: [&str; 2]| {
            let text = |name: &&str| (PathBuf::from(format!("{name}.toml")), format!("name = '{name}'"));
            names.iter().map(text).collect::<Vec<_>>()
        };
        assert!(each_its_own(&texts(["a", "b"])).is_ok());
        assert!(
            each_its_own(&texts(["'", "'"])).is_ok(),
            "the plane says what is wrong with these"
        );
        let error = each_its_own(&texts(["a", "a"])).unwrap_err();
        assert!(error.to_string().contains("'a' is in a.toml and a.toml"), "{error}");
    }
}
