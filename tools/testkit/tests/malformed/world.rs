//! A small fleet: a broker, a plane, an operator, and daemons.

use std::path::{Path, PathBuf};

use testkit::{Finished, Mosquitto, Proc, TempDir, temp_dir};

use crate::{SOON, program, text};

pub struct World {
    pub broker: Mosquitto,
    pub plane: Proc,
    pub dir: TempDir,
}

impl World {
    /// A broker, a plane that runs, and an operator.
    pub fn start(label: &str) -> Self {
        let (broker, dir) = (Mosquitto::start(), temp_dir(label));
        program(
            "mycelial-plane",
            &["init", "--dir", text(&dir.path().join("plane")), "--bus", &broker.url()],
        )
        .run(SOON)
        .ok();
        let plane = plane(dir.path());
        let world = Self { broker, plane, dir };
        let string = world.plane_token("operator", &[]);
        world.cli(&["init", &string, "--name", "me"]).ok();
        world
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The operator's command line.
    pub fn cli(&self, arguments: &[&str]) -> Finished {
        self.operator(arguments).run(SOON)
    }

    pub fn operator(&self, arguments: &[&str]) -> testkit::Cmd {
        let home = self.path("operator");
        program("mycelial", &[&["--home", text(&home)], arguments].concat())
    }

    /// An enrolment string, from the plane's own command.
    pub fn plane_token(&self, role: &str, more: &[&str]) -> String {
        let dir = self.path("plane");
        let arguments = [&["token", "--dir", text(&dir), "--role", role], more].concat();
        program("mycelial-plane", &arguments).run(SOON).ok().trim().to_string()
    }

    /// A daemon that is a member and runs.
    pub fn daemon(&self, name: &str) -> Proc {
        let string = self.plane_token("daemon", &["--name", name]);
        let dir = self.path(name);
        program("myceliald", &["enrol", &string, "--data-dir", text(&dir)])
            .run(SOON)
            .ok();
        let mut daemon = program("myceliald", &["start", "--data-dir", text(&dir)])
            .name(name)
            .spawn();
        daemon.wait_for_log("connected", SOON);
        daemon
    }
}

/// Runs the plane in `dir`.
pub fn plane(dir: &Path) -> Proc {
    let mut plane = program(
        "mycelial-plane",
        &["run", "--dir", text(&dir.join("plane")), "--http", "127.0.0.1:0"],
    )
    .spawn();
    plane.wait_for_log("the plane is running", SOON);
    plane.wait_for_log("connected", SOON);
    plane
}
