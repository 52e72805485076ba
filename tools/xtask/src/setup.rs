//! `cargo xtask setup`: installs what is missing when it may, else prints the exact command. Changes nothing when
//! everything is here, and never touches a service it did not install.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::cmd;

mod node;
mod python;

/// What `cargo xtask setup` can be told.
#[derive(clap::Args)]
pub struct Args {
    /// Only say what is missing; exit 1 when anything is
    #[arg(long)]
    check: bool,
}

/// Something development needs.
struct Need {
    what: &'static str,
    from: Source,
    /// What needs it first: whoever tests, builds.
    to: Purpose,
}

/// What somebody wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Purpose {
    Build,
    Test,
}

enum Source {
    Apt {
        /// All of these must be found. `a|b` is found when one of them is.
        programs: &'static [&'static str],
        /// The Debian packages that bring them.
        packages: &'static [&'static str],
        /// Debian starts this after installing it; we only want the programs.
        service: Option<&'static str>,
    },
    /// A component of the Rust toolchain. rustup leaves a program of its name in PATH even where it is not installed,
    /// so the cargo subcommand it brings is asked instead.
    Rustup {
        subcommand: &'static str,
        component: &'static str,
    },
}

/// Counts instructions for the budgets.
const COUNTER: &str = "Valgrind";

const NEEDS: &[Need] = &[
    Need {
        what: "C compiler",
        from: Source::Apt {
            programs: &["cc"],
            packages: &["gcc", "libc6-dev"],
            service: None,
        },
        to: Purpose::Build,
    },
    Need {
        what: "rustfmt",
        from: Source::Rustup {
            subcommand: "fmt",
            component: "rustfmt",
        },
        to: Purpose::Build,
    },
    Need {
        what: "clippy",
        from: Source::Rustup {
            subcommand: "clippy",
            component: "clippy",
        },
        to: Purpose::Build,
    },
    Need {
        what: COUNTER,
        from: Source::Apt {
            programs: &["valgrind"],
            packages: &["valgrind"],
            service: None,
        },
        to: Purpose::Test,
    },
    Need {
        what: "mosquitto",
        from: Source::Apt {
            programs: &["mosquitto", "mosquitto_passwd"],
            packages: &["mosquitto"],
            service: Some("mosquitto.service"),
        },
        to: Purpose::Test,
    },
    Need {
        what: "mosquitto's clients",
        from: Source::Apt {
            programs: &["mosquitto_sub"],
            packages: &["mosquitto-clients"],
            service: None,
        },
        to: Purpose::Test,
    },
    Need {
        what: "openssl",
        from: Source::Apt {
            programs: &["openssl"],
            packages: &["openssl"],
            service: None,
        },
        to: Purpose::Test,
    },
    Need {
        what: "nats-server",
        from: Source::Apt {
            programs: &["nats-server"],
            packages: &["nats-server"],
            service: Some("nats-server.service"),
        },
        to: Purpose::Test,
    },
    Need {
        what: "PostgreSQL",
        from: Source::Apt {
            programs: &["postgres", "initdb", "psql"],
            packages: &["postgresql"],
            service: Some("postgresql.service"),
        },
        to: Purpose::Test,
    },
    Need {
        what: "MariaDB",
        from: Source::Apt {
            // The programs without the package that makes a server of the machine's own of them.
            programs: &["mariadbd", "mariadb-install-db", "mariadb"],
            packages: &["mariadb-server-core", "mariadb-client-core"],
            service: None,
        },
        to: Purpose::Test,
    },
    Need {
        what: "InfluxDB",
        from: Source::Apt {
            programs: &["influxd"],
            packages: &["influxdb"],
            service: Some("influxdb.service"),
        },
        to: Purpose::Test,
    },
    Need {
        what: "curl",
        from: Source::Apt {
            programs: &["curl"],
            packages: &["curl"],
            service: None,
        },
        to: Purpose::Test,
    },
    Need {
        what: "iproute2",
        from: Source::Apt {
            programs: &["ip"],
            packages: &["iproute2"],
            service: None,
        },
        to: Purpose::Test,
    },
    Need {
        what: "libfaketime",
        from: Source::Apt {
            programs: &["faketime"],
            packages: &["faketime"],
            service: None,
        },
        to: Purpose::Test,
    },
    Need {
        what: "Chromium",
        from: Source::Apt {
            programs: &["chromium|chromium-browser|google-chrome"],
            packages: &["chromium"],
            service: None,
        },
        to: Purpose::Test,
    },
    Need {
        what: "Node.js",
        from: Source::Apt {
            programs: &["node", "npm"],
            packages: &["nodejs", "npm"],
            service: None,
        },
        // The plane embeds the web UI.
        to: Purpose::Build,
    },
    Need {
        what: "rsyslog",
        from: Source::Apt {
            programs: &["rsyslogd"],
            packages: &["rsyslog"],
            service: Some("rsyslog.service"),
        },
        to: Purpose::Test,
    },
    Need {
        what: "SQLite's shell",
        from: Source::Apt {
            programs: &["sqlite3"],
            packages: &["sqlite3"],
            service: None,
        },
        to: Purpose::Test,
    },
    Need {
        what: "Python",
        from: Source::Apt {
            programs: &["python3"],
            packages: &["python3-minimal"],
            service: None,
        },
        to: Purpose::Test,
    },
];

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

/// Runs the task.
pub fn run(args: &Args) -> Result<()> {
    let missing = missing(needs(Purpose::Test), &search_dirs());
    let packages = [(python::WHAT, python::is_ready()), (node::WHAT, node::is_ready())];
    if missing.is_empty() && packages.iter().all(|(_, is_ready)| *is_ready) {
        let here = names(needs(Purpose::Test));
        println!("setup: everything is here ({here}, {}, {})", python::WHAT, node::WHAT);
        return Ok(());
    }
    if args.check {
        let mut lacking = missing.iter().map(|need| need.what).collect::<Vec<_>>();
        lacking.extend(packages.iter().filter(|(_, is_ready)| !is_ready).map(|(what, _)| *what));
        bail!("missing: {}; `cargo xtask setup` installs it", lacking.join(", "));
    }
    if !missing.is_empty() {
        install(&missing)?;
    }
    python::ensure()?;
    node::ensure()
}

/// Makes sure of what building needs. Quiet when it is all here.
pub fn ensure_build_tools() -> Result<()> {
    ensure(Purpose::Build)
}

/// Makes sure of what counts instructions. Quiet when it is here.
pub fn ensure_counting_tools() -> Result<()> {
    install_missing(NEEDS.iter().filter(|need| need.what == COUNTER))
}

/// Makes sure of what building and testing need. Quiet when it is all here.
pub fn ensure_all() -> Result<()> {
    ensure(Purpose::Test)?;
    python::ensure()?;
    node::ensure()
}

/// Makes sure of a Python that can make environments.
pub fn ensure_python() -> Result<()> {
    let works = cmd::output(cmd::program("python3").args(["-c", "import ensurepip, venv"]));
    if works.is_ok_and(|output| output.status.success()) {
        return Ok(());
    }
    install_packages(&["python3", "python3-venv"])
}

/// Makes sure of a compiler whose standard library can be built for any target: Debian's own, with its sources.
pub fn ensure_debian_rust() -> Result<()> {
    let files = [
        "/usr/bin/rustc",
        "/usr/bin/cargo",
        "/usr/lib/rustlib/src/rust/library/std/Cargo.toml",
    ];
    if files.iter().all(|file| Path::new(file).is_file()) {
        return Ok(());
    }
    install_packages(&["rustc-web", "cargo-web", "rust-web-src"])
}

fn ensure(purpose: Purpose) -> Result<()> {
    install_missing(needs(purpose))
}

fn install_missing(needs: impl Iterator<Item = &'static Need>) -> Result<()> {
    let missing = missing(needs, &search_dirs());
    if missing.is_empty() { Ok(()) } else { install(&missing) }
}

fn needs(purpose: Purpose) -> impl Iterator<Item = &'static Need> {
    NEEDS.iter().filter(move |need| need.to <= purpose)
}

fn install(missing: &[&Need]) -> Result<()> {
    println!("setup: missing: {}", names(missing.iter().copied()));
    let (mut packages, mut components, mut services) = (Vec::new(), Vec::new(), Vec::new());
    for need in missing {
        match need.from {
            Source::Apt {
                packages: these,
                service,
                ..
            } => {
                packages.extend(these);
                services.extend(service);
            }
            Source::Rustup { component, .. } => components.push(component),
        }
    }
    // Both are tried, so that one run says everything there is to do by hand.
    let by_rustup = if components.is_empty() {
        Ok(())
    } else {
        install_components(&components)
    };
    let by_apt = if packages.is_empty() {
        Ok(())
    } else {
        install_packages(&packages)
    };
    if by_apt.is_ok() {
        silence(&services);
    }
    match (by_rustup, by_apt) {
        (Ok(()), Ok(())) => {}
        (Err(e), Ok(())) | (Ok(()), Err(e)) => return Err(e),
        (Err(first), Err(second)) => bail!("{first:#}\nand {second:#}"),
    }
    let still = self::missing(missing.iter().copied(), &search_dirs());
    if !still.is_empty() {
        bail!("installed without an error, but still not found: {}", names(still));
    }
    println!("setup: installed {}", names(missing.iter().copied()));
    Ok(())
}

fn install_components(components: &[&str]) -> Result<()> {
    let mut rustup = cmd::program("rustup");
    rustup.args(["component", "add"]).args(components);
    if cmd::run(&mut rustup).is_err() {
        bail!(
            "cannot install {} here; run:\n\n    rustup component add {}\n",
            components.join(", "),
            components.join(" ")
        );
    }
    Ok(())
}

fn install_packages(packages: &[&str]) -> Result<()> {
    let by_hand = format!(
        "    sudo apt-get update\n    sudo apt-get install -y --no-install-recommends {}\n",
        packages.join(" ")
    );
    if find("apt-get", &search_dirs()).is_none() {
        bail!(
            "this system has no apt-get. Install the equivalents of these Debian packages with its own package \
             manager, then run this again: {}",
            packages.join(" ")
        );
    }
    let Some(prefix) = privileged() else {
        bail!("this needs root, and sudo asks for a password. Run:\n\n{by_hand}\nthen this again");
    };
    let apt = |args: &[&str]| {
        // Arguments of `env`, because sudo passes no environment on.
        let line = [prefix, &["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"], args].concat();
        let mut command = cmd::program(line[0]);
        command.args(&line[1..]);
        cmd::run(&mut command)
    };
    // Without a network the packages may still be in apt's cache.
    if let Err(e) = apt(&["update", "-q"]) {
        eprintln!("setup: {e:#}; trying to install anyway");
    }
    if let Err(e) = apt(&[&["install", "-y", "-q", "--no-install-recommends"], packages].concat()) {
        bail!("{e:#}. To see why, run:\n\n{by_hand}");
    }
    Ok(())
}

/// How to become root without being asked anything: nothing to do, sudo, or not at all.
fn privileged() -> Option<&'static [&'static str]> {
    let is_root = || {
        let status = fs::read_to_string("/proc/self/status").ok()?;
        let uids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
        Some(uids.split_whitespace().nth(1)? == "0")
    };
    if is_root().unwrap_or(false) {
        return Some(&[]);
    }
    let sudo = cmd::output(cmd::program("sudo").args(["-n", "true"]));
    sudo.is_ok_and(|output| output.status.success())
        .then_some(&["sudo", "-n"])
}

/// Stops and disables services Debian started for the packages just installed.
fn silence(services: &[&str]) {
    if !Path::new("/run/systemd/system").exists() {
        return;
    }
    let Some(prefix) = privileged() else { return };
    for service in services {
        let line = [prefix, &["systemctl", "disable", "--now", "--quiet", service]].concat();
        if let Err(e) = cmd::run(cmd::program(line[0]).args(&line[1..])) {
            eprintln!("setup: {service} runs though nothing here needs it to: {e:#}");
        }
    }
}

fn missing<'n>(needs: impl Iterator<Item = &'n Need>, dirs: &[PathBuf]) -> Vec<&'n Need> {
    needs
        .filter(|need| match need.from {
            Source::Apt { programs, .. } => !programs
                .iter()
                .all(|names| names.split('|').any(|name| find(name, dirs).is_some())),
            Source::Rustup { subcommand, .. } => !cmd::has_cargo(subcommand),
        })
        .collect()
}

fn find(program: &str, dirs: &[PathBuf]) -> Option<PathBuf> {
    dirs.iter().map(|dir| dir.join(program)).find(|path| path.is_file())
}

fn search_dirs() -> Vec<PathBuf> {
    let mut dirs: Vec<PathBuf> = env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect();
    dirs.extend(EXTRA_DIRS.iter().map(PathBuf::from));
    let versions = fs::read_dir(POSTGRES_ROOT).into_iter().flatten().flatten();
    dirs.extend(versions.map(|entry| entry.path().join("bin")));
    dirs
}

fn names<'n>(needs: impl IntoIterator<Item = &'n Need>) -> String {
    needs.into_iter().map(|need| need.what).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_is_missing() {
        let root = env::temp_dir().join(format!("mycelial-xtask-setup-{}", std::process::id()));
        let (bin, sbin) = (root.join("bin"), root.join("sbin"));
        for dir in [&bin, &sbin] {
            fs::create_dir_all(dir).unwrap();
        }
        let dirs = [bin.clone(), sbin.clone()];
        let from_apt = || needs(Purpose::Test).filter(|need| matches!(need.from, Source::Apt { .. }));

        assert_eq!(
            names(missing(from_apt(), &dirs)),
            "C compiler, Valgrind, mosquitto, mosquitto's clients, openssl, nats-server, PostgreSQL, MariaDB, InfluxDB, curl, iproute2, libfaketime, \
             Chromium, Node.js, rsyslog, SQLite's shell, Python"
        );
        for path in [
            bin.join("cc"),
            sbin.join("nats-server"),
            sbin.join("mosquitto"),
            bin.join("mosquitto_passwd"),
            // One of several names is enough.
            bin.join("google-chrome"),
        ] {
            fs::write(path, "").unwrap();
        }
        // Half of a package is not the package.
        fs::write(bin.join("psql"), "").unwrap();
        fs::write(bin.join("node"), "").unwrap();
        // A directory of that name is not the program.
        fs::create_dir(bin.join("ip")).unwrap();
        assert_eq!(
            names(missing(from_apt(), &dirs)),
            "Valgrind, mosquitto's clients, openssl, PostgreSQL, MariaDB, InfluxDB, curl, iproute2, libfaketime, Node.js, rsyslog, SQLite's shell, Python"
        );
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn building_needs_no_server() {
        assert_eq!(names(needs(Purpose::Build)), "C compiler, rustfmt, clippy, Node.js");
    }
}
