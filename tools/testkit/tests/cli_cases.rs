//! What the command line does when something is not as it was meant: two taps at once, a node that is not there, the plane that is
//! away, one bad file of several, somebody else's revision, a selector that chooses more than was thought of, an operator who was
//! taken out.

#![cfg(target_os = "linux")]

use std::{
    fs,
    io::Write as _,
    thread,
    time::{Duration, Instant},
};

use testkit::{Broker, Cmd, Finished, Fleet, Signal, bin, wait_ok};

const SOON: Duration = Duration::from_secs(60);

fn cli_of(fleet: &Fleet, home: &str) -> Cmd {
    Cmd::bin("mycelial").args(["--home", &fleet.path(home)]).stdin("")
}

fn cli(fleet: &Fleet, arguments: &[&str]) -> Finished {
    cli_of(fleet, "operator").args(arguments).run(SOON)
}

#[track_caller]
fn ok(fleet: &Fleet, arguments: &[&str]) -> String {
    let done = cli(fleet, arguments);
    assert_eq!(done.code(), Some(0), "{arguments:?}: {}{}", done.stdout, done.stderr);
    done.stdout
}

/// It ends with this code, and says each of these on stderr.
#[track_caller]
fn says(fleet: &Fleet, arguments: &[&str], code: i32, parts: &[&str]) {
    said(&cli(fleet, arguments), arguments, code, parts);
}

#[track_caller]
fn said(done: &Finished, arguments: &[&str], code: i32, parts: &[&str]) {
    let missing = parts.iter().find(|part| !done.stderr.contains(**part));
    assert!(
        done.code() == Some(code) && missing.is_none(),
        "{arguments:?}: {:?}, {missing:?} is not in:\n{}{}",
        done.code(),
        done.stdout,
        done.stderr
    );
}

/// A workflow that copies lines on one daemon, or from one to the other.
fn copying(fleet: &Fleet, name: &str, from: &str, to: &str) -> String {
    let (lines, out) = (
        fleet.path(&format!("{name}.jsonl")),
        fleet.path(&format!("{name}.out.jsonl")),
    );
    fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&lines)
        .expect("lines");
    format!(
        "name = \"{name}\"\n[sources.lines]\ntype = \"file\"\ndaemon = \"{from}\"\npath = \"{lines}\"\nformat = \"json_lines\"\n\
         [destinations.out]\ntype = \"file\"\ndaemon = \"{to}\"\nfrom = \"lines\"\npath = \"{out}\"\nformat = \"json_lines\"\n"
    )
}

fn append(fleet: &Fleet, name: &str, count: usize) {
    let path = fleet.path(&format!("{name}.jsonl"));
    let mut file = fs::OpenOptions::new().append(true).open(path).expect("lines");
    for _ in 0..count {
        writeln!(file, "{{\"of\":\"{name}\"}}").expect("a line");
    }
}

fn placeable(fleet: &Fleet, daemons: &[&str]) {
    for daemon in daemons {
        wait_ok("the components to be known", SOON, || {
            let shown = ok(fleet, &["daemon", "show", daemon, "-o", "json"]);
            shown.contains("\"sqlite\"").then_some(()).ok_or(shown)
        });
    }
}

#[test]
fn taps_show_their_own_and_say_what_cannot_be_tapped() {
    let fleet = Fleet::start(Broker::embedded(false), None);
    for name in ["gateway", "hub"] {
        fleet.enrol(name);
    }
    let _gateway = fleet.daemon("gateway", None);
    let mut hub = fleet.daemon("hub", None);
    placeable(&fleet, &["gateway", "hub"]);
    fleet.apply("one", &copying(&fleet, "one", "gateway", "hub"));
    fleet.apply("two", &copying(&fleet, "two", "gateway", "gateway"));

    // Both at once, by the same operator, of the same daemon.
    let tap = |name: &'static str| {
        let command =
            cli_of(&fleet, "operator").args(["tap", name, "lines", "--count", "5", "--seconds", "40", "-o", "jsonl"]);
        thread::spawn(move || command.run(SOON))
    };
    let taps = ["one", "two"].map(|name| (name, tap(name)));
    let end = Instant::now() + Duration::from_secs(45);
    while Instant::now() < end && taps.iter().any(|(_, tap)| !tap.is_finished()) {
        append(&fleet, "one", 3);
        append(&fleet, "two", 3);
        thread::sleep(Duration::from_millis(500));
    }
    for (name, tap) in taps {
        let shown = tap.join().expect("a tap");
        assert_eq!(shown.code(), Some(0), "{name}: {}", shown.stderr);
        let wanted = format!("{{\"of\":\"{name}\"}}\n").repeat(5);
        assert_eq!(shown.stdout, wanted, "{name}");
    }
    // It is over at the daemon as well, and not only when its lease is.
    append(&fleet, "one", 3);
    let after = ok(&fleet, &["tap", "two", "out", "--seconds", "3"]);
    assert_eq!(after, "", "what passes elsewhere");

    says(
        &fleet,
        &["tap", "one", "linse"],
        5,
        &["no node 'linse' in 'one'", "did you mean 'lines'?"],
    );
    says(&fleet, &["tap", "none", "lines"], 5, &["none"]);
    let elsewhere = ["tap", "one", "out", "--daemon", "gateway", "--seconds", "30"];
    says(
        &fleet,
        &elsewhere,
        1,
        &["gateway: this daemon runs no 'out' of 'one'; it runs: lines"],
    );
    // Only who runs it was asked before.
    let noted = |fleet: &Fleet| {
        ok(
            fleet,
            &["audit", "list", "--daemon", "gateway", "--search", "tap records"],
        )
    };
    let failed = noted(&fleet).matches("failed").count();
    assert_eq!(failed, 1, "{}", noted(&fleet));
    assert!(noted(&fleet).contains("runs no 'out'"), "{}", noted(&fleet));

    hub.kill9();
    wait_ok("the hub to be missed", SOON, || {
        let list = ok(&fleet, &["daemon", "list", "-l", "presence:offline", "-o", "name"]);
        (list == "hub\n").then_some(()).ok_or(list)
    });
    let started = Instant::now();
    says(
        &fleet,
        &["tap", "one", "out", "--daemon", "hub"],
        7,
        &["not online", "hub"],
    );
    assert!(
        started.elapsed() < Duration::from_secs(20),
        "nobody waits for what cannot come"
    );
}

#[test]
fn a_daemon_is_asked_itself_while_the_plane_is_away() {
    let mut fleet = Fleet::start(Broker::embedded(false), None);
    fleet.enrol("gateway");
    let _gateway = fleet.daemon("gateway", None);
    placeable(&fleet, &["gateway"]);
    fleet.apply("one", &copying(&fleet, "one", "gateway", "gateway"));
    ok(&fleet, &["daemon", "ping", "gateway"]);
    fleet.plane_away();
    let away = "as it was known when the plane answered last";
    for arguments in [
        &["daemon", "ping", "gateway"][..],
        &["daemon", "pause", "gateway"],
        &["workflow", "resume", "one", "--daemon", "gateway"],
        &["logs", "gateway", "-n", "3"],
        &["daemon", "diagnose", "gateway"],
        &["secret", "list", "--daemon", "gateway"],
        &["audit", "list", "--daemon", "gateway"],
        &["tap", "one", "lines", "--daemon", "gateway", "--seconds", "1"],
    ] {
        let done = cli(&fleet, arguments);
        said(&done, arguments, 0, &["the plane did not answer", away]);
    }
    for arguments in [
        &["--timeout", "2", "daemon", "ping", "nobody"][..],
        &["--timeout", "2", "daemon", "ping", "-l", "name:gateway"],
    ] {
        says(&fleet, arguments, 7, &["the plane did not answer within 2 s"]);
    }
    says(
        &fleet,
        &["--timeout", "2", "workflow", "pause", "one"],
        7,
        &["hint: the plane says whom a selector or a workflow means"],
    );
}

#[test]
fn files_are_applied_all_or_none_and_nobody_is_overtaken_unseen() {
    let fleet = Fleet::start(Broker::embedded(false), None);
    fleet.enrol("gateway");
    let _gateway = fleet.daemon("gateway", None);
    placeable(&fleet, &["gateway"]);
    let put = |name: &str, text: &str| fs::write(fleet.path(&format!("flows/{name}.toml")), text).expect("a file");
    fs::create_dir_all(fleet.path("flows/below")).expect("a directory");
    let (dir, file) = (fleet.path("flows"), fleet.path("flows/a.toml"));
    let first = copying(&fleet, "a", "gateway", "gateway");
    put("a", &first);
    put(
        "b",
        &copying(&fleet, "b", "gateway", "gateway").replace("format", "formt"),
    );
    put("c", &copying(&fleet, "c", "nobody", "gateway"));

    // One is good, and is not deployed either; what is wrong with the others is all told.
    for verb in ["apply", "validate"] {
        says(
            &fleet,
            &["workflow", verb, &dir],
            3,
            &["2 of 3 workflows have problems", "b.toml:", "c.toml:", "nobody"],
        );
    }
    says(
        &fleet,
        &["workflow", "apply", "-f", &dir],
        3,
        &["nothing was changed", "not looked into", "flows/below"],
    );
    assert_eq!(ok(&fleet, &["workflow", "list", "-o", "name"]), "");
    put("b", &copying(&fleet, "a", "gateway", "gateway"));
    says(
        &fleet,
        &["workflow", "apply", &dir],
        2,
        &["workflow 'a' is in", "leave one out"],
    );
    for name in ["b", "c"] {
        put(name, &copying(&fleet, name, "gateway", "gateway"));
    }
    let applied = ok(&fleet, &["workflow", "apply", "--file", &dir, "--wait"]);
    assert_eq!(applied.matches("created").count(), 3, "{applied}");
    ok(&fleet, &["workflow", "diff", &dir]);
    ok(&fleet, &["workflow", "validate", "-f", &file]);

    // Twice is once, in waves as well.
    let waves = ["workflow", "apply", &file, "--waves", "100%", "--soak", "1s", "--wait"];
    assert!(ok(&fleet, &waves).contains("unchanged"));
    let second = first.replace("a.out.jsonl", "other.jsonl");
    put("a", &second);
    ok(
        &fleet,
        &[&waves[..], &["--max-lag", "1GiB", "--min-throughput", "0%"]].concat(),
    );
    assert!(ok(&fleet, &waves).contains("unchanged"));

    // Somebody else comes between.
    let string = ok(&fleet, &["token", "create", "--role", "operator"]);
    let bob = |arguments: &[&str]| {
        let done = cli_of(&fleet, "bob").args(arguments).run(SOON);
        assert_eq!(done.code(), Some(0), "{arguments:?}: {}", done.stderr);
        done.stdout
    };
    bob(&["init", string.trim(), "--name", "bob"]);
    put("a", &first);
    let replaced = bob(&["workflow", "apply", &file, "--reason", "the old place"]);
    assert!(
        replaced.contains("updated") && replaced.contains("2 (me, "),
        "{replaced}"
    );
    put("a", &first.replace("a.out.jsonl", "third.jsonl"));
    let overtaken = ["revision 3 (bob, ", "ago: the old place)", "last seen 2", "--force"];
    says(&fleet, &["workflow", "apply", &file], 6, &overtaken);
    says(&fleet, &["workflow", "apply", &file, "--waves", "100%"], 6, &overtaken);
    says(&fleet, &["rollout", "start", &file], 6, &overtaken);
    says(
        &fleet,
        &["workflow", "apply", &file, "--expect", "2"],
        6,
        &["by bob, not 2", "ago: the old place)"],
    );
    // Once it was looked at, it is seen.
    says(&fleet, &["workflow", "diff", &file], 3, &["differs from revision 3"]);
    let applied = ok(&fleet, &["workflow", "apply", &file]);
    assert!(
        applied.contains("3 (bob, ") && applied.contains("the old place"),
        "{applied}"
    );
    bob(&["workflow", "show", "a"]);
    put("a", &second);
    bob(&["workflow", "apply", &file]);
    put("a", &first);
    ok(&fleet, &["workflow", "apply", &file, "--force"]);
}

#[test]
fn who_is_interrupted_says_so() {
    let fleet = Fleet::start(Broker::embedded(false), None);
    fleet.enrol("gateway");
    let _gateway = fleet.daemon("gateway", None);
    placeable(&fleet, &["gateway"]);
    fleet.apply("one", &copying(&fleet, "one", "gateway", "gateway"));
    for arguments in [
        &["tap", "one", "lines"][..],
        &["logs", "gateway", "-f"],
        &["sub", "line1.>"],
    ] {
        let mut going = cli_of(&fleet, "operator").args(arguments).spawn();
        thread::sleep(Duration::from_secs(3));
        going.signal(Signal::Int);
        let ended = going.wait_exit(SOON).expect("an end");
        assert_eq!(ended.code(), Some(130), "{arguments:?}");
    }
}

#[test]
fn who_was_taken_out_is_told_so() {
    let fleet = Fleet::start(Broker::embedded(false), None);
    let string = ok(&fleet, &["token", "create", "--role", "operator"]);
    let bob = |arguments: &[&str]| cli_of(&fleet, "bob").args(arguments).run(SOON);
    assert_eq!(bob(&["init", string.trim(), "--name", "bob"]).code(), Some(0));
    assert_eq!(bob(&["info"]).code(), Some(0));
    ok(&fleet, &["operator", "revoke", "bob", "--yes"]);
    let hint = "hint: were you taken out of the fleet?";
    said(&bob(&["info"]), &["info"], 4, &[hint]);
    thread::sleep(Duration::from_secs(2));
    said(&bob(&["info"]), &["info"], 4, &["refused", hint]);
    let doctor = bob(&["doctor"]);
    said(&doctor, &["doctor"], 4, &[hint]);
    assert!(
        doctor.stdout.contains("do: were you taken out of the fleet?"),
        "{}",
        doctor.stdout
    );
}

#[test]
fn what_many_would_suffer_is_asked_about() {
    let fleet = Fleet::start(Broker::embedded(false), None);
    for name in ["gateway", "hub"] {
        fleet.enrol(name);
    }
    let _daemons = ["gateway", "hub"].map(|name| fleet.daemon(name, None));
    placeable(&fleet, &["gateway", "hub"]);
    fleet.apply("one", &copying(&fleet, "one", "gateway", "hub"));
    let both = ["2 daemons", "gateway, hub", "--yes"];
    for (arguments, parts) in [
        (&["daemon", "pause", "-l", ""][..], &both[..]),
        (&["daemon", "drain", "-l", "presence:online"], &both),
        (&["daemon", "rotate", "-l", "name:*"], &both),
        (&["daemon", "label", "name:*", "site=berlin"], &both),
        (&["secret", "remove", "key", "-l", "name:*"], &both),
        (
            &["secret", "remove", "key", "--daemon", "hub"],
            &["'key'", "on 'hub'", "--yes"],
        ),
        (&["workflow", "pause", "one", "-l", "name:*"], &both),
        (&["workflow", "restart", "one", "-l", ""], &both),
        (&["rollout", "rollback", "1"], &["rollout 1", "--yes"]),
        (&["rollout", "abort", "1"], &["rollout 1", "--yes"]),
    ] {
        says(&fleet, arguments, 2, parts);
    }
    let paused = ok(&fleet, &["workflow", "status", "one"]);
    assert!(!paused.contains("paused"), "nothing was done: {paused}");
    // One that is named, and one that is chosen, are meant.
    ok(&fleet, &["daemon", "label", "gateway", "site=berlin"]);
    ok(&fleet, &["daemon", "pause", "-l", "site=berlin"]);
    ok(&fleet, &["daemon", "resume", "-l", ""]);

    // On a terminal somebody is asked.
    let mycelial = bin("mycelial").display().to_string();
    let typed = |answer: &str| {
        let line = format!(
            "(sleep 2; echo {answer}) | script -qec \"'{mycelial}' --home '{}' daemon pause -l ''\" /dev/null",
            fleet.path("operator")
        );
        Cmd::new("sh").args(["-c", &line]).run(SOON)
    };
    let no = typed("n");
    assert!(
        no.stdout.contains("[y/N]") && no.stdout.contains("nothing was changed"),
        "{}",
        no.stdout
    );
    let yes = typed("y");
    assert!(yes.stdout.contains("2 daemons: 2 done"), "{}", yes.stdout);

    // Who paused that line? It is in the audits of the daemons, and all of them are asked.
    let who = ok(&fleet, &["audit", "list", "-l", "", "--search", "pause", "--by", "me"]);
    let lines: Vec<&str> = who.lines().filter(|line| line.contains("pause")).collect();
    assert!(
        lines.iter().any(|line| line.starts_with("gateway ")) && lines.iter().any(|line| line.starts_with("hub ")),
        "{who}"
    );
    let report = ok(&fleet, &["audit", "report", "-l", "name:*", "-o", "json"]);
    assert!(report.contains("\"daemons\": 2"), "{report}");
    for again in ["", "continues what was verified before"] {
        let verified = ok(&fleet, &["audit", "verify", "-l", "name:*"]);
        assert_eq!(verified.matches("holds").count(), 2, "{verified}");
        assert!(verified.contains(again), "{verified}");
    }

    // The account of some, and what runs there.
    let edges = |arguments: &[&str]| ok(&fleet, &[&["ledger", "-o", "name"][..], arguments].concat());
    assert_eq!(edges(&["one"]), "one/lines->out\n");
    assert_eq!(edges(&["-l", "site=berlin"]), "one/lines->out\n");
    assert_eq!(edges(&["-l", "site=bonn"]), "");
    assert_eq!(edges(&["--troubled"]), "");
    assert_eq!(
        ok(&fleet, &["workflow", "list", "-l", "site=berlin", "-o", "name"]),
        "one\n"
    );
    assert_eq!(ok(&fleet, &["workflow", "list", "-l", "site=bonn", "-o", "name"]), "");
    assert_eq!(ok(&fleet, &["alert", "list", "-l", "site=bonn", "-o", "name"]), "");
    let healthy = cli(&fleet, &["doctor", "-l", "site=berlin"]).stdout;
    assert!(
        healthy.contains("1 of 1 online") && healthy.contains("1 daemon at most"),
        "{healthy}"
    );
    let shown = ok(&fleet, &["daemon", "show", "gateway"]);
    assert!(shown.contains("labels       site=berlin\n"), "{shown}");
    let listed = ok(&fleet, &["daemon", "list", "--labels"]);
    assert!(listed.contains("LABELS") && listed.contains("site=berlin"), "{listed}");
    completes(&fleet);
}

/// What the shell is offered at the end of a line.
fn offered(fleet: &Fleet, line: &[&str]) -> Vec<String> {
    let index = line.len().to_string();
    let done = Cmd::bin("mycelial")
        .args(["--", "mycelial"])
        .args(line)
        .env("COMPLETE", "bash")
        .env("_CLAP_COMPLETE_INDEX", &index)
        .env("_CLAP_COMPLETE_COMP_TYPE", "9")
        .env("_CLAP_COMPLETE_SPACE", "true")
        .env("_CLAP_IFS", "\n")
        .env("XDG_CONFIG_HOME", fleet.path("config"))
        .run(SOON);
    done.stdout.lines().map(str::to_string).collect()
}

fn completes(fleet: &Fleet) {
    ok(fleet, &["group", "set", "north", "site=berlin"]);
    ok(fleet, &["token", "create", "--name", "spare"]);
    let token = ok(fleet, &["token", "list", "-o", "name"]);
    let token = token.lines().next().expect("an enrolment string");
    let home = fleet.path("operator");
    let home = home.as_str();
    for (line, wanted) in [
        (&["daemon", "show", "ga"][..], "gateway"),
        (&["workflow", "show", ""], "one"),
        (&["group", "remove", ""], "north"),
        (&["operator", "revoke", ""], "me"),
        (&["token", "revoke", ""], token),
        (&["components", "sqli"], "sqlite"),
        (&["tap", "one", "li"], "lines"),
        (&["metrics", "stream", ""], "one/lines->out"),
        (&["daemon", "list", "-l", "group:"], "group:north"),
        (
            &["daemon", "list", "-l", "presence:online si"],
            "presence:online site=berlin",
        ),
        (&["audit", "list", "-l", "-label:"], "-label:site"),
        (&["context", "use", ""], "default"),
    ] {
        let found = offered(fleet, &[&["--home", home][..], line].concat());
        assert!(found.iter().any(|name| name == wanted), "{line:?}: {found:?}");
    }
    let elsewhere = offered(fleet, &["daemon", "show", "ga"]);
    assert!(
        !elsewhere.iter().any(|name| name == "gateway"),
        "no operator is there: {elsewhere:?}"
    );
    // The context is where it was said, not where the environment has it.
    let kept = fleet.path("config/mycelial/contexts/berlin");
    fs::create_dir_all(&kept).expect("a directory");
    for entry in fs::read_dir(home).expect("the operator's directory").flatten() {
        if entry.path().is_file() {
            fs::copy(entry.path(), format!("{kept}/{}", entry.file_name().to_string_lossy())).expect("a copy");
        }
    }
    let found = offered(fleet, &["--context", "berlin", "daemon", "show", "ga"]);
    assert_eq!(found, ["gateway"]);
    assert!(offered(fleet, &["context", "use", "b"]).contains(&"berlin".to_string()));
}
