//! The plane's disk is lost. From the key backup alone it comes back: its daemons tell it who belongs to the fleet and what they
//! run, and the workflow never noticed.

#![cfg(target_os = "linux")]

use std::{fs, io::Write as _, path::Path, time::Duration};

use testkit::{Broker, Cmd, Finished, Fleet, wait_ok};

const SOON: Duration = Duration::from_secs(90);

fn cli(fleet: &Fleet, arguments: &[&str]) -> Finished {
    Cmd::bin("mycelial")
        .args(["--home", &fleet.path("operator")])
        .args(arguments)
        .run(SOON)
}

fn says(fleet: &Fleet, arguments: &[&str], parts: &[&str]) {
    wait_ok(&format!("{arguments:?} to say {parts:?}"), SOON, || {
        let said = cli(fleet, arguments);
        let text = format!("{}{}", said.stdout, said.stderr);
        parts.iter().all(|part| text.contains(part)).then_some(()).ok_or(text)
    });
}

fn plane(arguments: &[&str], stdin: &str) -> Finished {
    Cmd::bin("mycelial-plane").args(arguments).stdin(stdin).run(SOON)
}

fn append(path: &str, numbers: std::ops::Range<u32>) {
    let more: String = numbers.map(|n| format!("{{\"n\":{n}}}\n")).collect();
    let file = fs::OpenOptions::new().append(true).open(path);
    file.and_then(|mut file| file.write_all(more.as_bytes()))
        .expect("lines");
}

fn arrives(path: &str, count: usize) {
    wait_ok(&format!("{count} lines to arrive"), SOON, || {
        let now = fs::read_to_string(path).unwrap_or_default().lines().count();
        (now == count).then_some(()).ok_or(format!("{now} so far"))
    });
}

fn text(lines: &str, out: &str) -> String {
    format!(
        "name = \"copy\"\n[sources.lines]\ntype = \"file\"\ndaemon = \"gateway\"\npath = \"{lines}\"\nformat = \"json_lines\"\n\
         [destinations.out]\ntype = \"file\"\ndaemon = \"hub\"\nfrom = \"lines\"\npath = \"{out}\"\nformat = \"json_lines\"\n"
    )
}

#[test]
fn a_plane_comes_back_from_its_key_backup_alone() {
    let mut fleet = Fleet::start(Broker::embedded(false), None);
    fleet.enrol("gateway");
    let (lines, out, file) = (
        fleet.path("lines.jsonl"),
        fleet.path("out.jsonl"),
        fleet.path("copy.toml"),
    );
    fs::write(&lines, "").expect("a file");
    fs::write(&file, text(&lines, &out)).expect("a file");
    let _gateway = fleet.daemon("gateway", None);
    says(&fleet, &["daemon", "list"], &["online"]);

    // The key backup is older than the hub, a revocation and the workflow.
    let (dir, keys) = (fleet.path("plane"), fleet.path("keys.myc"));
    let made = plane(&["backup", "create", "--dir", &dir, "--keys", &keys], "");
    assert_eq!(made.code(), Some(0), "{}", made.stderr);
    let code = made.stdout.clone();
    fleet.enrol("hub");
    fleet.enrol("traitor");
    let _hub = fleet.daemon("hub", None);
    says(&fleet, &["components"], &["sqlite"]);
    let revoked = cli(&fleet, &["daemon", "revoke", "traitor", "--yes"]);
    assert_eq!(revoked.code(), Some(0), "{}", revoked.stderr);
    wait_ok("the workflow to be taken", SOON, || {
        let applied = cli(&fleet, &["workflow", "apply", &file, "--wait"]);
        (applied.code() == Some(0)).then_some(()).ok_or(applied.stderr)
    });
    append(&lines, 0..5);
    arrives(&out, 5);

    fleet.plane_away();
    // All of it but what belongs to the broker, which has a disk of its own.
    for entry in fs::read_dir(&dir).expect("the plane's directory").flatten() {
        let name = entry.file_name().to_string_lossy().to_string();
        if !name.starts_with("broker") && name != "revoked" && entry.path().is_file() {
            fs::remove_file(entry.path()).expect("a file");
        }
    }
    assert!(!Path::new(&dir).join("plane.db").exists());
    append(&lines, 5..9);
    arrives(&out, 9);

    let wrong = plane(&["backup", "restore", "--dir", &dir, &keys], "aaaa-bbbb\n");
    assert_eq!(wrong.code(), Some(1), "{}", wrong.stderr);
    let restored = plane(&["backup", "restore", "--dir", &dir, &keys], &code);
    assert_eq!(restored.code(), Some(0), "{}", restored.stderr);
    fleet.plane_back();
    // Members and what they run, from the gateway's roster and from both plans.
    says(&fleet, &["daemon", "list"], &["gateway", "hub"]);
    says(&fleet, &["workflow", "status", "copy"], &["gateway", "hub", "running"]);
    says(&fleet, &["workflow", "show", "copy"], &["apply it again"]);
    says(
        &fleet,
        &["daemon", "show", "traitor"],
        &["there is no daemon 'traitor'"],
    );
    append(&lines, 9..12);
    arrives(&out, 12);
    // It is obeyed again: the next revision reaches both, and nothing comes twice.
    wait_ok("the workflow to be taken", SOON, || {
        let applied = cli(&fleet, &["workflow", "apply", &file, "--wait"]);
        (applied.code() == Some(0)).then_some(()).ok_or(applied.stderr)
    });
    says(&fleet, &["workflow", "list"], &["running", "2"]);
    append(&lines, 12..15);
    arrives(&out, 15);
    let ledger = cli(&fleet, &["ledger"]);
    assert!(!ledger.stdout.contains("NO"), "{}", ledger.stdout);
}

#[test]
fn a_full_backup_of_a_running_plane_is_verified_and_restored() {
    let mut fleet = Fleet::start(Broker::embedded(false), None);
    fleet.enrol("gateway");
    let (dir, full) = (fleet.path("plane"), fleet.path("full.myc"));
    let made = plane(&["backup", "create", "--dir", &dir, &full], "");
    assert_eq!(made.code(), Some(0), "{}", made.stderr);
    let verified = plane(&["backup", "verify", "--dir", &dir, &full], "");
    assert_eq!(verified.code(), Some(0), "{}", verified.stderr);
    assert!(verified.stdout.contains("plane.db\t"), "{}", verified.stdout);
    fleet.enrol("later");
    let refused = plane(&["backup", "restore", "--over", "--dir", &dir, &full], "");
    assert_eq!(refused.code(), Some(3), "over a running plane: {}", refused.stderr);
    fleet.plane_away();
    let refused = plane(&["backup", "restore", "--dir", &dir, &full], "");
    assert_eq!(refused.code(), Some(2), "over a live store: {}", refused.stderr);
    let restored = plane(&["backup", "restore", "--over", "--dir", &dir, &full], "");
    assert_eq!(restored.code(), Some(0), "{}", restored.stderr);
    fleet.plane_back();
    says(&fleet, &["daemon", "list"], &["gateway"]);
    says(&fleet, &["audit", "list"], &["make a backup", "restore a backup"]);
}
