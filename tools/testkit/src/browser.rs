//! A real browser in front of the plane's page. It is driven by scripts of `ui/tests`, which judge what it shows.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{Cmd, Fleet, find_program};

/// How long npm may take to fetch what the scripts need.
const FETCH: Duration = Duration::from_secs(300);
/// How long a look may take beyond what it shall last.
const LATE: Duration = Duration::from_secs(300);

/// Where the page's sources are.
#[must_use]
pub fn ui() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ui")
}

/// Fetches what the scripts need beside node, once for each state of the lock file.
#[track_caller]
pub fn fetch() {
    let ui = ui();
    let changed = |path: PathBuf| fs::metadata(path).and_then(|file| file.modified()).ok();
    let (installed, wanted) = (
        changed(ui.join("node_modules/.package-lock.json")),
        changed(ui.join("package-lock.json")),
    );
    if installed < wanted {
        Cmd::new(find_program("npm", "npm"))
            .args(["ci", "--no-audit", "--no-fund"])
            .dir(ui)
            .run(FETCH)
            .ok();
    }
}

/// Looks at a fleet of so many daemons for a while, as somebody does who leaves the page open. What it saw.
#[track_caller]
pub fn watch(fleet: &Fleet, daemons: usize, lasts: Duration) -> String {
    fetch();
    let link = fleet.plane_command(&["login"]);
    Cmd::new(find_program("node", "nodejs"))
        .arg("tests/watch.mjs")
        .dir(ui())
        .env("MYCELIAL_PAGE_LINK", link.trim())
        .env("MYCELIAL_PAGE_DAEMONS", daemons.to_string())
        .env("MYCELIAL_PAGE_SECONDS", lasts.as_secs().to_string())
        .run(lasts + LATE)
        .ok()
}
