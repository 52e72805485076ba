//! Finding programs: our own binaries and the servers. Never builds and never installs anything.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// Where servers live that are not in an ordinary user's PATH.
const EXTRA_DIRS: &[&str] = &[
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
];
/// Debian keeps the database's own programs beside each version.
const POSTGRES_ROOT: &str = "/usr/lib/postgresql";

/// The path of one of the workspace's binaries: `myceliald`, `mycelial-plane`, `mycelial` or `mycelial-broker`.
///
/// Looked for in `$MYCELIAL_BIN_DIR` (which `cargo xtask test` sets), else beside the test executable, in the profile
/// directory cargo put it in. Panics with the command to build it when it is not there. It is not rebuilt: a plain
/// `cargo test -p …` runs whatever was built last.
#[must_use]
#[track_caller]
pub fn bin(name: &str) -> PathBuf {
    let path = bins_dir().join(name);
    assert!(
        path.is_file(),
        "{} is not built: run `cargo build --workspace --bins`",
        path.display()
    );
    path
}

fn bins_dir() -> PathBuf {
    env::var_os("MYCELIAL_BIN_DIR").map_or_else(profile_dir, PathBuf::from)
}

/// The Python with the packages that tests need, in `target/python`.
///
/// Panics with the command to make it when it is not there.
#[must_use]
#[track_caller]
pub fn python() -> PathBuf {
    let target = bins_dir().parent().map(Path::to_path_buf).unwrap_or_default();
    let path = target.join("python").join("bin").join("python");
    assert!(
        path.is_file(),
        "{} is not there: run `cargo xtask setup`",
        path.display()
    );
    path
}

/// The packages of Node that tests need, in `target/node`.
///
/// Panics with the command to make it when they are not there.
#[must_use]
#[track_caller]
pub fn node_packages() -> PathBuf {
    let target = bins_dir().parent().map(Path::to_path_buf).unwrap_or_default();
    let path = target.join("node").join("node_modules");
    assert!(
        path.is_dir(),
        "{} is not there: run `cargo xtask setup`",
        path.display()
    );
    path
}

/// `target/debug` for a test at `target/debug/deps/name-hash`.
fn profile_dir() -> PathBuf {
    let exe = env::current_exe().expect("a test has an executable");
    let dir = exe.parent().expect("an executable is in a directory");
    match dir.file_name() {
        Some(name) if name == "deps" => dir.parent().expect("deps is inside a profile directory").to_path_buf(),
        _ => dir.to_path_buf(),
    }
}

/// The path of an installed program, from PATH and the directories where Debian puts servers.
///
/// Panics with the command to install `package` when it is missing, so that its test fails instead of passing unrun.
#[must_use]
#[track_caller]
pub fn find_program(program: &str, package: &str) -> PathBuf {
    candidate_dirs()
        .into_iter()
        .map(|dir| dir.join(program))
        .find(|path| path.is_file())
        .unwrap_or_else(|| {
            panic!("{program} is not installed: run `cargo xtask setup` (or `apt-get install {package}`)")
        })
}

fn candidate_dirs() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = postgres_dirs(Path::new(POSTGRES_ROOT));
    dirs.extend(env::split_paths(&path));
    dirs.extend(EXTRA_DIRS.iter().map(PathBuf::from));
    dirs
}

/// The newest version first. These come before PATH because Debian's wrappers in /usr/bin choose a version by cluster.
fn postgres_dirs(root: &Path) -> Vec<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir(root)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    versions.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    versions.into_iter().map(|(_, dir)| dir).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_postgres_first() {
        let root = crate::temp_dir("bins");
        for version in ["9", "15", "17", "common"] {
            fs::create_dir(root.path().join(version)).unwrap();
        }
        let dirs = postgres_dirs(root.path());
        let want: Vec<PathBuf> = ["17", "15", "9"]
            .iter()
            .map(|v| root.path().join(v).join("bin"))
            .collect();
        assert_eq!(dirs, want);
    }

    #[test]
    fn finds_the_shell() {
        assert!(find_program("sh", "dash").is_file());
    }

    #[test]
    #[should_panic(expected = "cargo xtask setup")]
    fn says_how_to_install() {
        let _ = find_program("no-such-server", "no-such-package");
    }

    #[test]
    #[should_panic(expected = "cargo build --workspace --bins")]
    fn says_how_to_build() {
        let _ = bin("mycelial-no-such-binary");
    }
}
