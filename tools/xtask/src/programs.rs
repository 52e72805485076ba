//! The programs that users run, and how tasks build them. Runs none of them.

use anyhow::Result;

use crate::{cmd, ui};

/// By package.
pub const PROGRAMS: [(&str, &str); 4] = [
    ("edge-daemon", "myceliald"),
    ("plane", "mycelial-plane"),
    ("cli", "mycelial"),
    ("broker", "mycelial-broker"),
];

/// What cargo is told about the release build of one program beside the workspace's profile. The plane's database is built to be
/// small: it takes a few records a second, and the daemons' thousands.
pub fn settings(package: &str) -> &'static [&'static str] {
    match package {
        "plane" => &["--config", "profile.release.package.libsqlite3-sys.opt-level=\"s\""],
        _ => &[],
    }
}

/// Builds all of them for this machine.
pub fn build_all(profile: &str) -> Result<()> {
    build(profile, &PROGRAMS.map(|(package, _)| package))
}

/// Builds those of some packages.
pub fn build(profile: &str, packages: &[&str]) -> Result<()> {
    if packages.contains(&"plane") {
        ui::build()?;
    }
    let how_long = match profile {
        "release" => " (ten minutes on two cores the first time)",
        _ => "",
    };
    eprintln!("building the {profile} programs{how_long} …");
    // What users run is built program by program: built together, each has in it what any of them wants of a library.
    let together = if profile == "release" { 1 } else { packages.len() };
    for packages in packages.chunks(together.max(1)) {
        let mut build = cmd::cargo();
        build.args(["build", "--profile", profile, "--bins"]);
        for package in packages {
            build.args(["-p", package]);
            if profile == "release" {
                build.args(settings(package));
            }
        }
        cmd::run(&mut build)?;
    }
    Ok(())
}
