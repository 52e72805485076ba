//! Contexts: one operator's keys for each of several fleets. The context `default` is the base directory itself; others
//! have a directory each below it. Which one is in use stands in a file there.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use bus_schema::member::is_name;
use serde_json::json;

use crate::{
    answer::Answer,
    arguments::{Context, Output},
    ask,
    client::{CliError, open_operator},
    render,
};

/// The context there always is.
const DEFAULT: &str = "default";
/// Where the others are.
const OTHERS: &str = "contexts";
/// Holds the name of the one in use.
const IN_USE: &str = "context";

/// Where contexts are: `$XDG_CONFIG_HOME/mycelial`, else `~/.config/mycelial`.
fn base() -> Result<PathBuf, CliError> {
    let variable = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let config = variable("XDG_CONFIG_HOME").or_else(|| Some(variable("HOME")?.join(".config")));
    config
        .or_else(|| variable("APPDATA"))
        .map(|dir| dir.join("mycelial"))
        .ok_or_else(|| CliError::Usage("no home directory; give one with --home DIR".to_string()))
}

fn dir_of(base: &Path, name: &str) -> Result<PathBuf, CliError> {
    match name {
        DEFAULT => Ok(base.to_path_buf()),
        name if is_name(name) => Ok(base.join(OTHERS).join(name)),
        name => Err(CliError::Usage(format!(
            "'{name}' cannot name a context: use 1 to 32 of a-z, 0-9, '_' and '-'"
        ))),
    }
}

/// The one that is used when none is named.
fn in_use(base: &Path) -> Result<String, CliError> {
    match fs::read_to_string(base.join(IN_USE)) {
        Ok(name) => Ok(name.trim().to_string()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(DEFAULT.to_string()),
        Err(error) => Err(CliError::Usage(format!(
            "cannot read {}: {error}",
            base.join(IN_USE).display()
        ))),
    }
}

/// The operator's directory: as told, else that of the named context, else that of the one in use.
pub fn home_dir(home: Option<PathBuf>, context: Option<&str>) -> Result<PathBuf, CliError> {
    match (home, context) {
        (Some(home), _) => Ok(home),
        (None, Some(name)) => dir_of(&base()?, name),
        (None, None) => {
            let base = base()?;
            dir_of(&base, &in_use(&base)?)
        }
    }
}

/// The names of all contexts.
pub fn all() -> Result<Vec<String>, CliError> {
    base().map(|base| names(&base))
}

fn names(base: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(base.join(OTHERS))
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| is_name(name))
        .collect();
    names.push(DEFAULT.to_string());
    names.sort();
    names
}

/// Does what was typed.
pub async fn run(output: Output, what: Context) -> Result<(), CliError> {
    let base = base()?;
    match what {
        Context::List => list(&base, output).await,
        Context::Use { name } => {
            is_there(&base, &name)?;
            let path = base.join(IN_USE);
            bus_link::home::write_atomic(&path, format!("{name}\n").as_bytes())
                .map_err(|error| CliError::Failed(format!("cannot write {}: {error}", path.display())))?;
            eprintln!("'{name}' is in use from now on");
            Ok(())
        }
        Context::Remove { name, yes } => {
            let dir = is_there(&base, &name)?;
            if name == DEFAULT {
                return Err(CliError::Usage(format!(
                    "'{DEFAULT}' cannot be removed\n  hint: its keys are in {}",
                    base.display()
                )));
            }
            ask::sure(&format!("forget the operator's keys of '{name}' for good?"), yes)?;
            fs::remove_dir_all(&dir)
                .map_err(|error| CliError::Failed(format!("cannot remove {}: {error}", dir.display())))?;
            if in_use(&base)? == name {
                fs::remove_file(base.join(IN_USE)).map_err(|error| CliError::Failed(error.to_string()))?;
                eprintln!("'{DEFAULT}' is in use from now on");
            }
            Ok(())
        }
    }
}

fn is_there(base: &Path, name: &str) -> Result<PathBuf, CliError> {
    let dir = dir_of(base, name)?;
    if names(base).iter().any(|known| known == name) {
        return Ok(dir);
    }
    Err(CliError::not_found(
        format!("there is no context '{name}'"),
        "make one with: mycelial init --context NAME myc1…   list them with: mycelial context list",
    ))
}

async fn list(base: &Path, output: Output) -> Result<(), CliError> {
    let current = in_use(base)?;
    let (mut rows, mut data) = (Vec::new(), Vec::new());
    let names = names(base);
    for name in &names {
        let dir = dir_of(base, name)?;
        let (operator, fleet, bus) = match open_operator(&dir).await {
            Ok((_, membership)) => {
                let operator = membership.certificate.open(&membership.root).map(|me| me.name);
                (
                    operator.unwrap_or_default(),
                    membership.fleet.to_string(),
                    membership.bus.join(", "),
                )
            }
            Err(_) => Default::default(),
        };
        let mark = if *name == current { "*" } else { "" };
        rows.push(vec![
            mark.to_string(),
            name.clone(),
            operator.clone(),
            fleet.clone(),
            bus.clone(),
        ]);
        data.push(json!({
            "name": name, "in_use": *name == current, "operator": operator, "fleet": fleet, "bus": bus,
            "home": dir.display().to_string(),
        }));
    }
    let text = render::table(&["", "name", "operator", "fleet", "bus"], &rows);
    Answer::new(&data, names, text).print(output);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_places() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path();
        assert_eq!(in_use(base).unwrap(), DEFAULT);
        assert_eq!(names(base), [DEFAULT]);
        assert_eq!(dir_of(base, DEFAULT).unwrap(), base);
        for wrong in ["", "..", "a/b", "Berlin"] {
            assert_eq!(dir_of(base, wrong).unwrap_err().exit_code(), 2, "{wrong}");
        }
        assert_eq!(is_there(base, "berlin").unwrap_err().exit_code(), 5);
        fs::create_dir_all(dir_of(base, "berlin").unwrap()).unwrap();
        fs::write(base.join(IN_USE), "berlin\n").unwrap();
        assert_eq!(in_use(base).unwrap(), "berlin");
        assert_eq!(names(base), ["berlin", DEFAULT]);
        assert_eq!(is_there(base, "berlin").unwrap(), base.join("contexts/berlin"));
    }
}
