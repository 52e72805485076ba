//! `cargo xtask cross`: the release programs for gateways, as static programs that need nothing of the system they run on.
//!
//! zig compiles the C code and links, because it brings musl for every target. The standard library is rustup's where it can
//! be had, else built from Debian's sources with Debian's compiler.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::metadata::Metadata;
use crate::programs::{self, PROGRAMS};
use crate::{cmd, setup};

/// What gateways are.
const TARGETS: &[&str] = &[
    "x86_64-unknown-linux-musl",
    "aarch64-unknown-linux-musl",
    "armv7-unknown-linux-musleabihf",
];
/// From PyPI, into an environment of their own.
const ZIG: &[&str] = &["ziglang==0.17.1", "cargo-zigbuild==0.24.1"];

/// What `cargo xtask cross` can be told.
#[derive(clap::Args)]
pub struct Args {
    /// Only these targets; all of them when none is named
    #[arg(value_name = "TARGET", value_parser = TARGETS.to_vec())]
    only: Vec<String>,
}

/// Runs the task.
pub fn run(args: &Args) -> Result<()> {
    let dir = Metadata::load()?.target_directory.join("cross");
    let zigbuild = zigbuild(&dir)?;
    let wanted = |target: &&&str| args.only.is_empty() || args.only.iter().any(|name| name == **target);
    for target in TARGETS.iter().filter(wanted) {
        eprintln!("building for {target} (up to half an hour on two cores the first time) …");
        for (package, _) in PROGRAMS {
            let mut build = build(&zigbuild, target)?;
            build
                .args(["zigbuild", "--release", "--target", target, "-p", package])
                .args(programs::settings(package))
                .env("CARGO_TARGET_DIR", &dir);
            cmd::run(&mut build)?;
        }
        for (_, program) in PROGRAMS {
            let path = dir.join(target).join("release").join(program);
            let bytes = fs::metadata(&path)
                .with_context(|| format!("{} was not built", path.display()))?
                .len();
            println!("{target:<32} {program:<16} {:>5.1} MB", bytes as f64 / 1e6);
        }
    }
    Ok(())
}

/// The program that makes cargo use zig.
fn zigbuild(dir: &Path) -> Result<PathBuf> {
    let environment = dir.join("python");
    let program = environment.join("bin").join("cargo-zigbuild");
    if !program.is_file() {
        setup::ensure_python()?;
        fs::create_dir_all(dir)?;
        cmd::run(cmd::program("python3").args(["-m", "venv"]).arg(&environment))?;
        cmd::run(
            cmd::program(environment.join("bin").join("pip"))
                .args(["install", "--quiet"])
                .args(ZIG),
        )?;
    }
    Ok(program)
}

/// With which compiler, and where its standard library comes from.
fn build(zigbuild: &Path, target: &str) -> Result<Command> {
    let mut build = cmd::program(zigbuild);
    // It looks for zig there.
    let mut path = vec![zigbuild.parent().unwrap_or(Path::new("/")).to_path_buf()];
    let added = cmd::output(cmd::program("rustup").args(["target", "add", target]));
    if added.is_ok_and(|output| output.status.success()) {
        path.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    } else {
        setup::ensure_debian_rust()?;
        path.extend(["/usr/bin", "/bin"].map(PathBuf::from));
        build
            .env("CARGO", "/usr/bin/cargo")
            .env("RUSTC", "/usr/bin/rustc")
            // Building the standard library is not stable yet; nothing else of it is used.
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_UNSTABLE_BUILD_STD", "std,panic_unwind")
            // The start files that rustup puts beside its musl are zig's here.
            .env("RUSTFLAGS", "-C link-self-contained=no");
        for name in ["RUSTUP_TOOLCHAIN", "RUSTUP_HOME"] {
            build.env_remove(name);
        }
    }
    build.env("PATH", env::join_paths(path)?);
    Ok(build)
}
