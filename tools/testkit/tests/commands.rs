//! Commands that an operator gives to a daemon at work: paused sources read nothing and lose nothing, logs and reports are
//! there to be read, and every command says how it ended.

#![cfg(target_os = "linux")]

use std::{fs, io::Write as _, time::Duration};

use testkit::{Broker, Cmd, Finished, Fleet, wait_ok};

const SOON: Duration = Duration::from_secs(60);

fn cli(fleet: &Fleet, arguments: &[&str]) -> Finished {
    Cmd::bin("mycelial")
        .args(["--home", &fleet.path("operator")])
        .args(arguments)
        .run(SOON)
}

fn ok(fleet: &Fleet, arguments: &[&str]) -> String {
    let done = cli(fleet, arguments);
    assert_eq!(done.code(), Some(0), "{arguments:?}: {}{}", done.stdout, done.stderr);
    done.stdout
}

fn says(fleet: &Fleet, arguments: &[&str], part: &str) {
    wait_ok(&format!("{arguments:?} to say {part}"), SOON, || {
        let said = cli(fleet, arguments);
        let text = format!("{}{}", said.stdout, said.stderr);
        text.contains(part).then_some(()).ok_or(text)
    });
}

struct World {
    fleet: Fleet,
    lines: String,
    out: String,
}

impl World {
    fn new() -> Self {
        let fleet = Fleet::start(Broker::embedded(false), None);
        fleet.enrol("gateway");
        fleet.enrol("hub");
        let (lines, out) = (fleet.path("lines.jsonl"), fleet.path("out.jsonl"));
        fs::write(&lines, "").expect("a file");
        let text = format!(
            "name = \"copy\"\n[sources.lines]\ntype = \"file\"\ndaemon = \"gateway\"\npath = \"{lines}\"\nformat = \"json_lines\"\n\
             [destinations.out]\ntype = \"file\"\ndaemon = \"hub\"\nfrom = \"lines\"\npath = \"{out}\"\nformat = \"json_lines\"\n"
        );
        fs::create_dir(fleet.path("workflows")).expect("a directory");
        fs::write(fleet.path("workflows/copy.toml"), text).expect("a file");
        Self { fleet, lines, out }
    }

    /// Waits until the plane knows what both daemons can run.
    fn placeable(&self) {
        for daemon in ["gateway", "hub"] {
            wait_ok("the components to be known", SOON, || {
                let shown = ok(&self.fleet, &["daemon", "show", daemon, "-o", "json"]);
                shown.contains("\"sqlite\"").then_some(()).ok_or(shown)
            });
        }
    }

    fn append(&self, numbers: std::ops::Range<u32>) {
        let more: String = numbers.map(|n| format!("{{\"n\":{n}}}\n")).collect();
        let mut file = fs::OpenOptions::new().append(true).open(&self.lines).expect("lines");
        file.write_all(more.as_bytes()).expect("lines");
    }

    fn arrived(&self) -> usize {
        fs::read_to_string(&self.out).unwrap_or_default().lines().count()
    }

    fn arrives(&self, count: usize) {
        wait_ok(&format!("{count} lines to arrive"), SOON, || {
            let now = self.arrived();
            (now == count).then_some(()).ok_or(format!("{now} so far"))
        });
    }
}

#[test]
fn what_is_paused_reads_nothing_and_loses_nothing() {
    let world = World::new();
    let fleet = &world.fleet;
    let mut gateway = fleet.daemon("gateway", None);
    let _hub = fleet.daemon("hub", None);
    let dir = fleet.path("workflows");
    world.placeable();
    let applied = ok(fleet, &["workflow", "apply", &dir, "--wait"]);
    assert!(applied.contains("created"), "{applied}");
    let again = ok(fleet, &["workflow", "apply", &dir]);
    assert!(again.contains("unchanged"), "{again}");
    world.append(0..5);
    world.arrives(5);

    // Twice is once.
    for _ in 0..2 {
        let paused = ok(fleet, &["workflow", "pause", "copy"]);
        assert_eq!(paused.matches("done").count(), 2, "on both daemons: {paused}");
    }
    says(fleet, &["workflow", "status", "copy"], "paused by an operator");
    world.append(5..9);
    // It stays so over a restart.
    gateway.kill9();
    gateway = fleet.daemon("gateway", None);
    says(fleet, &["daemon", "list"], "online");
    says(fleet, &["workflow", "status", "copy"], "paused by an operator");
    assert_eq!(world.arrived(), 5);
    ok(fleet, &["workflow", "resume", "copy", "--daemon", "gateway"]);
    world.arrives(9);

    ok(fleet, &["daemon", "pause", "gateway"]);
    world.append(9..12);
    says(fleet, &["workflow", "status", "copy"], "paused by an operator");
    ok(fleet, &["workflow", "restart", "copy"]);
    assert_eq!(world.arrived(), 9, "starting anew is no resuming");
    ok(fleet, &["daemon", "resume", "gateway"]);
    world.arrives(12);
    let lines = fs::read_to_string(&world.out).expect("lines");
    let numbers: Vec<&str> = lines.lines().collect();
    let wanted: Vec<String> = (0..12).map(|n| format!("{{\"n\":{n}}}")).collect();
    assert_eq!(numbers, wanted, "each once, in order");
    wait_ok("the books", SOON, || {
        let ledgers = fleet.ledgers();
        let all = ledgers
            .iter()
            .all(|(_, ledger)| ledger.produced == 12 && ledger.delivered == 12);
        (all && !ledgers.is_empty()).then_some(()).ok_or(format!("{ledgers:?}"))
    });
    drop(gateway);
}

#[test]
fn labels_choose_and_revisions_come_back() {
    let world = World::new();
    let fleet = &world.fleet;
    let _daemons = (fleet.daemon("gateway", None), fleet.daemon("hub", None));
    says(
        fleet,
        &["daemon", "list", "-l", "presence:online", "-o", "name"],
        "gateway\nhub\n",
    );
    ok(fleet, &["daemon", "label", "gateway", "site=berlin", "test=1"]);
    ok(fleet, &["daemon", "label", "name:*", "owner=ada", "--yes"]);
    let shown = ok(fleet, &["daemon", "label", "gateway", "test-"]);
    assert!(
        shown.contains("owner=ada site=berlin") && !shown.contains("test"),
        "{shown}"
    );
    for (selector, names) in [
        ("site=berlin", "gateway\n"),
        ("-site=berlin owner=ada", "hub\n"),
        ("label:test", ""),
        ("version:>=0.1 name:g*", "gateway\n"),
    ] {
        assert_eq!(
            ok(fleet, &["daemon", "list", "-l", selector, "-o", "name"]),
            names,
            "{selector}"
        );
    }
    let paused = ok(fleet, &["daemon", "pause", "-l", "site=berlin"]);
    assert!(paused.contains("gateway") && !paused.contains("hub"), "{paused}");
    ok(fleet, &["daemon", "resume", "-l", "owner=ada"]);

    world.placeable();
    let file = fleet.path("workflows/copy.toml");
    let first = fs::read_to_string(&file).expect("the text");
    let differs = cli(fleet, &["workflow", "diff", &file]);
    assert_eq!(differs.code(), Some(3), "nothing is there yet");
    ok(fleet, &["workflow", "apply", &file]);
    ok(fleet, &["workflow", "diff", &file]);
    fs::write(&file, first.replace("out.jsonl", "other.jsonl")).expect("a file");
    let differs = cli(fleet, &["workflow", "diff", &file]);
    assert_eq!(differs.code(), Some(3), "{}", differs.stderr);
    assert!(
        differs.stdout.contains("other.jsonl\"") && differs.stdout.contains("-path"),
        "{}",
        differs.stdout
    );
    assert!(ok(fleet, &["workflow", "apply", &file, "--wait"]).contains("updated"));
    ok(fleet, &["workflow", "rollback", "copy", "--yes"]);
    assert_eq!(ok(fleet, &["workflow", "show", "copy"]), first);
    assert!(ok(fleet, &["workflow", "show", "copy", "--revision", "2"]).contains("other.jsonl"));
    assert_eq!(ok(fleet, &["workflow", "revisions", "copy", "-o", "name"]), "3\n2\n1\n");

    let before = ok(fleet, &["token", "list", "-o", "name"]).lines().count();
    ok(fleet, &["token", "create", "--name", "spare"]);
    let listed: Vec<serde_json::Value> =
        serde_json::from_str(&ok(fleet, &["token", "list", "-o", "json"])).expect("JSON");
    assert_eq!(listed.len(), before + 1);
    let spare = listed
        .iter()
        .find(|token| token["name"] == "spare")
        .expect("the new one");
    let left = ok(
        fleet,
        &[
            "token",
            "revoke",
            spare["id"].as_str().expect("an id"),
            "--yes",
            "-o",
            "name",
        ],
    );
    assert_eq!(left.lines().count(), before);
    for (wrong, code) in [
        (&["token", "revoke", "nonsense"][..], 2),
        (&["daemon", "list", "-l", "color:red"], 3),
        (&["daemon", "label", "site=bonn", "a=b"], 5),
        (&["daemon", "label", "gateway", "berlin"], 2),
        (&["workflow", "rollback", "nothing"], 5),
        (&["workflow", "show", "copy", "--revision", "9"], 5),
        (&["daemon", "pause"], 2),
    ] {
        let done = cli(fleet, wrong);
        assert_eq!(done.code(), Some(code), "{wrong:?}: {}", done.stderr);
    }
}

#[test]
fn many_daemons_are_asked_at_once_and_each_answers_for_itself() {
    let world = World::new();
    let fleet = &world.fleet;
    let _gateway = fleet.daemon("gateway", None);
    let mut hub = fleet.daemon("hub", None);
    world.placeable();
    // One that was labelled with its string, and never ran.
    let string = ok(
        fleet,
        &[
            "token",
            "create",
            "--name",
            "pump",
            "--label",
            "owner=ada",
            "--label",
            "line=2",
        ],
    );
    assert!(ok(fleet, &["token", "list"]).contains("line=2 owner=ada"));
    Cmd::bin("myceliald")
        .args(["enrol", string.trim(), "--data-dir", &fleet.path("pump")])
        .run(SOON)
        .ok();
    assert_eq!(ok(fleet, &["daemon", "list", "-l", "line=2", "-o", "name"]), "pump\n");
    ok(fleet, &["daemon", "label", "gateway", "owner=ada", "site=berlin"]);
    ok(fleet, &["daemon", "label", "hub", "owner=ada"]);
    let file = fleet.path("workflows/copy.toml");
    ok(
        fleet,
        &["workflow", "apply", &file, "--wait", "--reason", "the shop has moved"],
    );
    world.append(0..5);
    world.arrives(5);

    let there = ["-l", "owner=ada presence:online"];
    let pinged = ok(fleet, &[&["daemon", "ping"][..], &there, &["-o", "json"]].concat());
    let pinged: Vec<serde_json::Value> = serde_json::from_str(&pinged).expect("JSON");
    let outcomes: Vec<_> = pinged.iter().map(|one| (&one["daemon"], &one["outcome"])).collect();
    assert_eq!(format!("{outcomes:?}").matches("\"done\"").count(), 2, "{outcomes:?}");
    let report = fleet.path("report.md");
    ok(
        fleet,
        &[&["daemon", "diagnose"][..], &there, &["--file", &report]].concat(),
    );
    let report = fs::read_to_string(report).expect("a report");
    for part in ["# gateway\n\n## daemon", "# hub\n\n## daemon"] {
        assert!(report.contains(part), "{part} is not in:\n{report}");
    }

    // A workflow's daemons, those of them that a selector chooses, and none.
    let restarted = ok(fleet, &["workflow", "restart", "copy", "-l", "site=berlin"]);
    assert!(
        restarted.contains("gateway") && !restarted.contains("hub"),
        "{restarted}"
    );
    let logged = ok(fleet, &["workflow", "logs", "copy", "--since", "1h"]);
    for part in ["  gateway  ", "  hub  ", "[copy] "] {
        assert!(logged.contains(part), "{part} is not in:\n{logged}");
    }
    let times: Vec<&str> = logged.lines().filter_map(|line| line.get(..23)).collect();
    assert!(times.is_sorted(), "{logged}");
    std::thread::sleep(Duration::from_secs(2));
    let newest = ok(fleet, &["workflow", "logs", "copy", "--since", "1s", "--daemon", "hub"]);
    assert!(newest.lines().count() < logged.lines().count(), "{newest}");
    let both = ok(fleet, &[&["logs"][..], &there, &["-n", "1", "-o", "jsonl"]].concat());
    assert_eq!(both.lines().count(), 2, "one line of each: {both}");

    let set = |sure: &[&str]| {
        Cmd::bin("mycelial")
            .args(["--home", &fleet.path("operator"), "secret", "set", "salt"])
            .args(there)
            .args(sure)
            .stdin("a secret\n")
            .run(SOON)
    };
    let asked = set(&[]);
    assert_eq!(asked.code(), Some(2), "{}", asked.stderr);
    assert!(asked.stderr.contains("on 2 daemons"), "{}", asked.stderr);
    let set = set(&["--yes"]);
    assert_eq!(set.code(), Some(0), "{}{}", set.stdout, set.stderr);
    assert!(set.stderr.contains("2 daemons: 2 done, 0 failed"), "{}", set.stderr);
    let kept = ok(fleet, &[&["secret", "list"][..], &there].concat());
    assert_eq!(kept.matches("salt").count(), 2, "{kept}");

    let revisions: Vec<serde_json::Value> =
        serde_json::from_str(&ok(fleet, &["workflow", "revisions", "copy", "-o", "json"])).expect("JSON");
    assert_eq!(revisions[0]["reason"], "the shop has moved");
    assert!(ok(fleet, &["audit", "list", "--search", "has moved"]).contains("deploy a workflow"));

    // What is tapped, and what of it is not shown.
    let mut tap = Cmd::bin("mycelial")
        .args([
            "--home",
            &fleet.path("operator"),
            "tap",
            "copy",
            "lines",
            "--count",
            "1",
            "--seconds",
            "30",
        ])
        .args(["--redact", "n", "-l", "site=berlin", "-o", "jsonl"])
        .spawn();
    tap.wait_for_log("tapping", SOON);
    std::thread::sleep(Duration::from_secs(1));
    world.append(5..9);
    assert!(
        tap.wait_exit(SOON).is_some_and(|status| status.success()),
        "{}",
        tap.log()
    );
    assert!(tap.log().contains("{\"n\":\"[redacted]\"}"), "{}", tap.log());

    // One is away: the others are done, and it is named.
    hub.kill9();
    for (arguments, code, out, err) in [
        (
            &["--timeout", "2", "daemon", "ping", "-l", "owner=ada -name:pump"][..],
            7,
            "unknown",
            "2 daemons: 1 done, 0 failed, 0 timed out, 1 unknown",
        ),
        (
            &["--timeout", "2", "workflow", "logs", "copy"],
            7,
            "[copy]",
            "1 of 2 daemons did not answer",
        ),
        (
            &["secret", "remove", "other", "-l", "site=berlin", "--yes"],
            1,
            "failed",
            "it failed on 1 of 1 daemons",
        ),
        (
            &["workflow", "pause", "copy", "-l", "site=bonn"],
            5,
            "",
            "no daemon is chosen by 'runs:copy site=bonn'",
        ),
        (&["daemon", "ping"], 2, "", "SELECTOR"),
        (
            &["workflow", "pause", "copy", "--daemon", "hub", "-l", "a=b"],
            2,
            "",
            "cannot be used with",
        ),
        (
            &["tap", "copy", "lines", "--redact", "a*b"],
            2,
            "",
            "'a*b' is no pattern",
        ),
        (
            &["token", "create", "--role", "operator", "--label", "a=b"],
            2,
            "",
            "only daemons have labels",
        ),
        (&["token", "create", "--label", "a b=c"], 3, "", "cannot be a label"),
    ] {
        let done = cli(fleet, arguments);
        assert!(
            done.code() == Some(code) && done.stdout.contains(out) && done.stderr.contains(err),
            "{arguments:?}: {:?} {}{}",
            done.code(),
            done.stdout,
            done.stderr
        );
    }
}

#[test]
fn a_drained_daemon_has_delivered_all_that_it_had_read() {
    let world = World::new();
    let fleet = &world.fleet;
    let _gateway = fleet.daemon("gateway", None);
    let mut hub = fleet.daemon("hub", None);
    world.placeable();
    ok(fleet, &["workflow", "apply", &fleet.path("workflows"), "--wait"]);
    world.append(0..5);
    world.arrives(5);
    let says = |key: &str, count: u8| {
        wait_ok("the ledger to say it", SOON, || {
            let ledger = ok(fleet, &["ledger", "-o", "json"]);
            let said = ledger.contains(&format!("\"{key}\": {count},"));
            said.then_some(()).ok_or(ledger)
        });
    };
    // What has arrived may not have been acknowledged yet.
    says("delivered", 5);
    says("buffered", 0);
    hub.kill9();
    world.append(5..9);
    says("buffered", 4);
    // The other end is away: it says what waits, and that the time is over.
    let late = cli(fleet, &["daemon", "drain", "gateway", "--wait-max", "2s"]);
    assert_eq!(late.code(), Some(7), "{}{}", late.stdout, late.stderr);
    assert!(
        late.stdout.contains("timed out") && late.stdout.contains("4 records"),
        "{}",
        late.stdout
    );
    world.append(9..12);
    let _hub = fleet.daemon("hub", None);
    let drained = ok(fleet, &["daemon", "drain", "gateway", "--wait-max", "60s"]);
    assert!(drained.contains("done") && drained.contains("copy"), "{drained}");
    assert_eq!(world.arrived(), 9, "all that was read, and nothing that was not");
    let noted = ok(fleet, &["audit", "list", "--daemon", "gateway", "--search", "drain"]);
    assert_eq!(noted.matches("drain").count(), 1, "however often it was asked: {noted}");

    let checked = ok(fleet, &["daemon", "spool-check", "gateway"]);
    assert!(checked.contains("good"), "{checked}");
    let streams = fs::read_dir(fleet.dir().join("gateway/streams")).expect("streams");
    let spool = streams
        .flatten()
        .map(|entry| entry.path().join("spool"))
        .find(|path| path.is_dir());
    fs::create_dir(spool.expect("a spool").join("bad.0000000000000001.1")).expect("a directory");
    let damaged = cli(fleet, &["daemon", "spool-check", "gateway"]);
    assert_eq!(damaged.code(), Some(1), "{}{}", damaged.stdout, damaged.stderr);
    assert!(damaged.stdout.contains("set aside as bad"), "{}", damaged.stdout);

    ok(fleet, &["daemon", "resume", "gateway"]);
    world.arrives(12);
}

#[test]
fn logs_reports_and_refusals() {
    let world = World::new();
    let fleet = &world.fleet;
    let gateway = fleet.daemon("gateway", None);
    let mut hub = fleet.daemon("hub", None);
    world.placeable();
    ok(fleet, &["workflow", "apply", &fleet.path("workflows")]);
    hub.kill9();
    says(fleet, &["logs", "gateway", "--workflow", "copy"], "starting");
    let newest = ok(fleet, &["logs", "gateway", "-n", "1", "-o", "jsonl"]);
    assert_eq!(newest.lines().count(), 1, "{newest}");
    let line: serde_json::Value = serde_json::from_str(&newest).expect("JSON");
    assert_eq!(line["daemon"], "gateway");

    let restart = || ok(fleet, &["workflow", "restart", "copy", "--daemon", "gateway"]);
    restart();
    assert!(!ok(fleet, &["logs", "gateway", "-n", "500"]).contains("DEBUG"));
    ok(fleet, &["daemon", "log-level", "debug", "gateway", "--for", "1m"]);
    restart();
    says(fleet, &["logs", "gateway", "-n", "500"], "DEBUG  pipe ended");
    ok(fleet, &["daemon", "log-level", "-", "gateway"]);
    let report = ok(fleet, &["daemon", "diagnose", "gateway"]);
    for part in [
        "# daemon",
        "# workflows",
        "copy revision 1",
        "source lines (file)",
        "# log",
    ] {
        assert!(report.contains(part), "{part} is not in:\n{report}");
    }

    // The hub does not run: what is known is told, and the exit code says which kind of failure it is.
    for (arguments, code, said) in [
        (&["workflow", "pause", "nothing"][..], 5, "nothing"),
        (&["daemon", "pause", "nobody"], 5, "nobody"),
        (&["daemon", "log-level", "loud", "gateway"], 1, "failed on 1 of 1"),
        (
            &["--timeout", "1", "workflow", "pause", "copy"],
            7,
            "1 of 2 daemons did not answer",
        ),
        (&["--timeout", "1", "logs", "hub"], 7, "did not answer"),
        (&["workflow", "delete", "copy"], 2, "--yes"),
        (&["context", "use", "nowhere"], 5, "no context"),
    ] {
        let done = cli(fleet, arguments);
        assert!(
            done.code() == Some(code) && done.stderr.contains(said),
            "{arguments:?}: {:?} {}",
            done.code(),
            done.stderr
        );
    }
    ok(fleet, &["daemon", "resume", "gateway"]);

    // Every form of every list.
    for command in [
        &["daemon", "list"][..],
        &["daemon", "show", "gateway"],
        &["workflow", "list"],
        &["workflow", "show", "copy"],
        &["workflow", "status", "copy"],
        &["ledger"],
        &["components"],
        &["dlq", "list", "--daemon", "gateway"],
        &["info"],
        &["secret", "list", "--daemon", "gateway"],
        &["daemon", "ping", "gateway"],
    ] {
        for form in ["json", "jsonl", "yaml", "name", "table"] {
            let said = ok(fleet, &[command, &["-o", form]].concat());
            match form {
                "json" => drop(serde_json::from_str::<serde_json::Value>(&said).expect("JSON")),
                "jsonl" => said
                    .lines()
                    .for_each(|line| drop(serde_json::from_str::<serde_json::Value>(line).expect("JSON"))),
                _ => {}
            }
        }
    }
    assert_eq!(ok(fleet, &["workflow", "list", "-o", "name"]), "copy\n");
    drop(gateway);
}

#[test]
fn workflows_are_tried_before_they_run() {
    let world = World::new();
    let fleet = &world.fleet;
    let _gateway = fleet.daemon("gateway", None);
    says(
        fleet,
        &["daemon", "list", "-l", "presence:online", "-o", "name"],
        "gateway",
    );
    let file = fleet.path("workflows/copy.toml");
    let text = fs::read_to_string(&file)
        .expect("the text")
        .replace("from = \"lines\"", "from = \"large\"");
    let text = format!("{text}[transforms.large]\ntype = \"filter\"\nfrom = \"lines\"\nwhere = \"n * 1 > 1\"\n");
    let tests = "[tests.large]\ngiven.lines = [{ n = 1 }, { n = 2 }]\nexpect.out = [{ n = 2 }]\n";
    fs::write(&file, format!("{text}{tests}")).expect("a file");
    assert!(ok(fleet, &["workflow", "test", &file]).contains("ok    "));
    let rows = fleet.path("rows.jsonl");
    fs::write(&rows, "{\"n\": 1}\n{\"n\": 7}\n{\"n\": \"x\"}\n").expect("a file");
    let given = format!("lines={rows}");
    let steps = ok(
        fleet,
        &["workflow", "preview", &file, "--given", &given, "--daemon", "gateway"],
    );
    assert!(
        steps.contains("lines -> large: 3 came, 1 go on, 1 would be dead letters"),
        "{steps}"
    );
    assert!(
        steps.contains("large -> out: 1 came") && steps.contains("n=7"),
        "{steps}"
    );
    assert!(!std::path::Path::new(&world.out).exists(), "nothing is written");

    // The same with records that a tap has captured.
    fs::write(
        fleet.path("small.toml"),
        text.replace("\"copy\"", "\"small\"").replace("\"hub\"", "\"gateway\""),
    )
    .expect("a file");
    wait_ok("the workflow to be deployed", SOON, || {
        fleet.cli(&["workflow", "apply", &fleet.path("small.toml")])
    });
    let captured = fleet.path("captured.jsonl");
    let mut tap = Cmd::bin("mycelial")
        .args(["--home", &fleet.path("operator"), "tap", "small", "lines"])
        .args(["--count", "3", "--seconds", "30", "-o", "jsonl"])
        .stdout_to(&captured)
        .spawn();
    tap.wait_for_log("tapping", SOON);
    std::thread::sleep(Duration::from_secs(1));
    world.append(0..3);
    assert!(
        tap.wait_exit(SOON).is_some_and(|status| status.success()),
        "{}",
        tap.log()
    );
    let given = format!("lines={captured}");
    let steps = ok(fleet, &["workflow", "preview", &file, "--given", &given]);
    assert!(
        steps.contains("lines -> large: 3 came, 1 go on, 0 would be dead letters") && steps.contains("n=2"),
        "{steps}"
    );

    fs::write(
        &file,
        format!(
            "{text}{}",
            tests.replace("expect.out = [{ n = 2 }]", "expect.out = [{ n = 3 }]")
        ),
    )
    .expect("a file");
    for (arguments, code, said) in [
        (&["workflow", "test", &file][..], 3, "1 of 1 tests differ"),
        (&["workflow", "test", &file, "--daemon", "nobody"], 5, "nobody"),
        (&["workflow", "preview", &file, "--given", "lines"], 2, "SOURCE=FILE"),
        (
            &["workflow", "preview", &file, "--given", "rows=/dev/null"],
            3,
            "no source 'rows'",
        ),
    ] {
        let done = cli(fleet, arguments);
        assert!(
            done.code() == Some(code) && done.stderr.contains(said),
            "{arguments:?}: {:?} {}",
            done.code(),
            done.stderr
        );
    }
    let here = Cmd::bin("myceliald").args(["test", &file]).run(SOON);
    assert!(
        here.code() == Some(1) && here.stdout.contains("'n' is 2 instead of 3"),
        "{}{}",
        here.stdout,
        here.stderr
    );
}

#[test]
fn workflows_are_checked_where_they_would_run() {
    let world = World::new();
    let fleet = &world.fleet;
    let _gateway = fleet.daemon("gateway", None);
    let _hub = fleet.daemon("hub", None);
    world.placeable();
    let file = fleet.path("workflows/copy.toml");
    // Before it runs, from the daemons that the file names.
    let said = ok(fleet, &["workflow", "check", "-f", &file]);
    assert!(
        said.contains("ok    gateway/lines (file, ") && said.contains("ok    hub/out (file, "),
        "{said}"
    );
    assert!(!std::path::Path::new(&world.out).exists(), "nothing is written");

    let broken = fleet.path("broken.toml");
    let text = fs::read_to_string(&file).expect("the text");
    fs::write(&broken, text.replace(&world.out, &fleet.path("none/out.jsonl"))).expect("a file");
    let done = cli(fleet, &["workflow", "check", "-f", &broken]);
    assert_eq!(done.code(), Some(3), "{}{}", done.stdout, done.stderr);
    assert!(
        done.stdout.contains("FAIL  hub/out (file, ") && done.stdout.contains("path: there is no directory"),
        "{}",
        done.stdout
    );
    assert!(done.stderr.contains("1 of 2 nodes would not work"), "{}", done.stderr);
    let named = cli(fleet, &["workflow", "check", "-f", &broken, "-o", "name"]);
    assert_eq!(named.stdout, "hub/out\n");
    ok(fleet, &["workflow", "check", "-f", &broken, "--daemon", "gateway"]);

    // While it runs, from the daemons that run it.
    ok(fleet, &["workflow", "apply", &file, "--wait"]);
    world.append(0..3);
    world.arrives(3);
    let json = ok(fleet, &["workflow", "check", "copy", "-o", "json"]);
    let checked: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let nodes: Vec<_> = checked
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| (&one["daemon"], &one["node"], &one["ok"]))
        .collect();
    assert_eq!(format!("{nodes:?}").matches("Bool(true)").count(), 2, "{json}");
    world.append(3..5);
    world.arrives(5);
    for (arguments, code, said) in [
        (&["workflow", "check", "none"][..], 5, "none"),
        (&["workflow", "check"], 2, "<NAME|--file <FILE>>"),
        (&["workflow", "check", "copy", "--daemon", "nobody"], 5, "nobody"),
    ] {
        let done = cli(fleet, arguments);
        assert!(
            done.code() == Some(code) && done.stderr.contains(said),
            "{arguments:?}: {:?} {}",
            done.code(),
            done.stderr
        );
    }

    // And without any plane.
    for (file, code, said) in [
        (&file, 0, "ok    lines (file): "),
        (&broken, 1, "FAIL  out (file): path: "),
        (&world.lines, 2, ""),
    ] {
        let here = Cmd::bin("myceliald").args(["check", file]).run(SOON);
        assert!(
            here.code() == Some(code) && here.stdout.contains(said),
            "{file}: {:?} {}{}",
            here.code(),
            here.stdout,
            here.stderr
        );
    }
}
