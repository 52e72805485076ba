//! Secrets with the real binaries: an operator gives one to a daemon, a workflow that waited for it begins, and nobody else
//! ever holds it.

#![cfg(target_os = "linux")]

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use testkit::{Broker, Cmd, Finished, Fleet, wait_ok};

const SOON: Duration = Duration::from_secs(60);
const VALUE: &str = "correct horse battery staple";

fn cli(fleet: &Fleet, arguments: &[&str], stdin: &str) -> Finished {
    Cmd::bin("mycelial")
        .args(["--home", &fleet.path("operator")])
        .args(arguments)
        .stdin(stdin)
        .run(SOON)
}

/// The files below a directory that hold the value.
fn holding(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            holding(&path, found);
        } else if let Ok(bytes) = fs::read(&path)
            && bytes.windows(VALUE.len()).any(|part| part == VALUE.as_bytes())
        {
            found.push(path);
        }
    }
}

#[test]
fn a_workflow_begins_once_its_secret_is_there() {
    let fleet = Fleet::start(Broker::embedded(false), None);
    fleet.enrol("gateway");
    let mut gateway = fleet.daemon("gateway", None);
    let (names, out) = (fleet.path("names.jsonl"), fleet.path("out.jsonl"));
    fs::write(&names, "{\"name\": \"anna\"}\n").expect("a file");
    let text = format!(
        r#"name = "people"
[sources.names]
type = "file"
daemon = "gateway"
path = "{names}"
format = "json_lines"
[transforms.hidden]
type = "hash"
from = "names"
columns = ["name"]
key = {{ secret = "salt" }}
[destinations.out]
type = "file"
daemon = "gateway"
from = "hidden"
path = "{out}"
format = "json_lines"
"#
    );
    let file = fleet.path("people.toml");
    fs::write(&file, text).expect("a file");
    wait_ok("the workflow to be taken", SOON, || {
        let applied = cli(&fleet, &["workflow", "apply", &file], "");
        (applied.code() == Some(0)).then_some(()).ok_or(applied.stderr)
    });
    wait_ok("the workflow to miss its secret", SOON, || {
        let said = cli(&fleet, &["workflow", "status", "people"], "").stdout;
        said.contains("the secret 'salt' is not set on this daemon")
            .then_some(())
            .ok_or(said)
    });
    let listed = || cli(&fleet, &["secret", "list", "--daemon", "gateway"], "").stdout;
    let missing = listed();
    assert!(
        missing.contains("salt") && missing.contains("never: missing") && missing.contains("people"),
        "{missing}"
    );
    assert!(!Path::new(&out).exists(), "nothing goes out without it");

    for (arguments, stdin, code, said) in [
        (
            &["secret", "set", "Salt", "--daemon", "gateway"][..],
            "x",
            2,
            "cannot name a secret",
        ),
        (
            &["secret", "set", "salt", "--daemon", "gateway"],
            "\n",
            2,
            "the secret is empty",
        ),
        (&["secret", "set", "salt", "--daemon", "nobody"], "x", 5, "nobody"),
        (
            &["secret", "remove", "salt", "--daemon", "gateway", "--yes"],
            "",
            5,
            "has no secret 'salt'",
        ),
    ] {
        let done = cli(&fleet, arguments, stdin);
        assert!(
            done.code() == Some(code) && done.stderr.contains(said),
            "{arguments:?}: {}",
            done.stderr
        );
    }

    let set = |value: &str| {
        let done = cli(&fleet, &["secret", "set", "salt", "--daemon", "gateway"], value);
        assert_eq!(done.code(), Some(0), "{}", done.stderr);
        assert!(done.stderr.contains("begun anew with it: people"), "{}", done.stderr);
    };
    set(&format!("{VALUE}\n"));
    let first = wait_ok("the name under its digest", SOON, || {
        let lines = fs::read_to_string(&out).map_err(|error| error.to_string())?;
        lines.ends_with('\n').then(|| lines.clone()).ok_or(lines)
    });
    assert!(!first.contains("anna"), "{first}");
    let set_ago = listed();
    assert!(set_ago.contains("ago") && !set_ago.contains("missing"), "{set_ago}");

    // It is there after a restart; another one is used from then on.
    gateway.kill9();
    gateway = fleet.daemon("gateway", None);
    // Appended: a file written anew is empty for a moment, which is another file to whoever follows it.
    let append = |line: &str| {
        let mut file = fs::OpenOptions::new().append(true).open(&names).expect("names");
        writeln!(file, "{line}").expect("a line");
    };
    let lines = |count: usize| {
        wait_ok(&format!("{count} lines"), SOON, || {
            let text = fs::read_to_string(&out).map_err(|error| error.to_string())?;
            let lines: Vec<String> = text.lines().map(str::to_string).collect();
            (lines.len() == count).then(|| lines.clone()).ok_or(text)
        })
    };
    append("{\"name\": \"anna\"}");
    let two = lines(2);
    assert_eq!(two[0], two[1], "the same key after a restart");
    set("another");
    append("{\"name\": \"anna\"}");
    let three = lines(3);
    assert_ne!(three[1], three[2], "another key");

    wait_ok("the books", SOON, || {
        let ledgers = fleet.ledgers();
        let all = ledgers
            .iter()
            .all(|(_, ledger)| ledger.produced == 3 && ledger.delivered == 3);
        (all && !ledgers.is_empty()).then_some(()).ok_or(format!("{ledgers:?}"))
    });

    // Only sealed on disk, and the plane and the operator do not have it at all.
    set(VALUE);
    let mut found = Vec::new();
    holding(fleet.dir(), &mut found);
    assert_eq!(found, Vec::<PathBuf>::new());
    let removed = cli(
        &fleet,
        &["secret", "remove", "salt", "--daemon", "gateway", "--yes"],
        "",
    );
    assert!(
        removed.code() == Some(0) && removed.stderr.contains("missing now in: people"),
        "{}",
        removed.stderr
    );
    wait_ok("the workflow to miss its secret again", SOON, || {
        let said = cli(&fleet, &["workflow", "status", "people"], "").stdout;
        said.contains("is not set on this daemon").then_some(()).ok_or(said)
    });
    drop(gateway);
}
