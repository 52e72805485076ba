//! The Python of the tests: an environment of its own below `target`, with servers from PyPI in fixed versions.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cmd;
use crate::metadata::Metadata;

/// What plays the other side where Debian has no server for it, or an old one.
const PACKAGES: &[&str] = &[
    // An OPC UA server.
    "asyncua==2.1.0",
    // A mail server.
    "aiosmtpd==1.4.6",
    // S3. It brings boto3, whose signatures it is compared with.
    "moto[server]==5.2.5",
    // Excel sheets.
    "openpyxl==3.1.5",
    // Parquet.
    "pyarrow==26.0.1",
    // Modbus devices.
    "pymodbus==3.16.1",
    // Its serial lines.
    "pyserial==3.5",
    // Fuzzes the web API by its description.
    "schemathesis==4.32.5",
];

/// What setup calls it.
pub(super) const WHAT: &str = "Python's packages";

/// Whether it is there with all of its packages.
pub(super) fn is_ready() -> bool {
    directory().is_ok_and(|dir| holds(&dir, &wanted()))
}

/// Makes it, or brings it up to date. Quiet when there is nothing to do.
pub(super) fn ensure() -> Result<()> {
    let dir = directory()?;
    if holds(&dir, &wanted()) {
        return Ok(());
    }
    super::ensure_python()?;
    println!("setup: missing: {WHAT}");
    // A half-made one, or one of another Python, is not worth mending.
    if dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    }
    cmd::run(cmd::program("python3").args(["-m", "venv"]).arg(&dir))?;
    let mut pip = cmd::program(dir.join("bin").join("pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check"])
        .args(PACKAGES);
    cmd::run(&mut pip)?;
    fs::write(stamp(&dir), wanted()).with_context(|| format!("cannot write into {}", dir.display()))?;
    println!("setup: installed {}", PACKAGES.join(", "));
    Ok(())
}

/// Where `testkit` looks for it.
fn directory() -> Result<PathBuf> {
    Ok(Metadata::load()?.target_directory.join("python"))
}

/// Says what is in it, and that it was finished.
fn stamp(dir: &Path) -> PathBuf {
    dir.join("packages")
}

fn wanted() -> String {
    PACKAGES.join("\n")
}

fn holds(dir: &Path, wanted: &str) -> bool {
    // The link to its Python leads nowhere when the system's is another by now.
    dir.join("bin").join("python").exists() && fs::read_to_string(stamp(dir)).is_ok_and(|held| held == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_or_unfinished_one_is_made_anew() {
        let dir = std::env::temp_dir().join(format!("mycelial-xtask-python-{}", std::process::id()));
        let bin = dir.join("bin");
        fs::create_dir_all(&bin).unwrap();
        assert!(!holds(&dir, "a==1"), "unfinished");
        fs::write(stamp(&dir), "a==1").unwrap();
        assert!(!holds(&dir, "a==1"), "without its Python");
        fs::write(bin.join("python"), "").unwrap();
        assert!(holds(&dir, "a==1"));
        assert!(!holds(&dir, "a==1\nb==2"), "without b");
        fs::remove_dir_all(dir).unwrap();
    }
}
