//! Code of a user's own in `myceliald run`: whatever ends its process, every record arrives once or is a dead letter, and
//! nothing of it is left when the daemon has gone.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use std::{fs, io::Write as _, path::Path, time::Duration};

use testkit::{Cmd, temp_dir, wait_until};

const SOON: Duration = Duration::from_secs(120);
const RECORDS: u64 = 5_000;

fn run(dir: &Path, file: &str, toml: &str) -> Cmd {
    fs::write(dir.join(file), toml).unwrap();
    ["MYCELIAL_CONFIG", "MYCELIAL_DATA_DIR"]
        .into_iter()
        .fold(Cmd::new(env!("CARGO_BIN_EXE_myceliald")), Cmd::env_remove)
        .arg("run")
        .arg(dir.join(file))
}

/// What the run says of one stream at its end: produced, delivered, buffered, dropped, dead.
fn account(log: &str, edge: &str) -> [u64; 5] {
    assert!(!log.contains("does not balance"), "{log}");
    let line = log.lines().rev().find(|line| line.starts_with(edge));
    let numbers = line.and_then(|line| {
        let numbers = line.split_whitespace().skip(1).map(|number| number.parse().ok());
        numbers.collect::<Option<Vec<u64>>>()?.try_into().ok()
    });
    numbers.unwrap_or_else(|| panic!("no account of {edge}: {log}"))
}

fn numbers(path: &Path) -> Vec<u64> {
    let text = fs::read_to_string(path).unwrap();
    let number = |line: &str| {
        serde_json::from_str::<serde_json::Value>(line).unwrap()["n"]
            .as_u64()
            .unwrap()
    };
    text.lines().map(number).collect()
}

fn is_alive(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    let state = stat.rsplit(')').next().unwrap_or_default().trim();
    !state.is_empty() && !state.starts_with('Z')
}

/// A file is read and written again; in between, Python refuses every hundredth record, and does harm to itself at some.
fn harmful(source: &str) -> String {
    format!(
        r#"
name = "harm"

[sources.numbers]
{source}

[transforms.mine]
type = "python"
from = "numbers"
answer_ms_max = 3000
memory_mib = 64
code = '''
import os, signal, sys, time

HARM = {{
    100: lambda: os.kill(os.getpid(), signal.SIGKILL),
    1300: lambda: os._exit(1),
    2400: lambda: time.sleep(1000),
    3300: lambda: bytearray(200 * 1024 * 1024),
    4200: lambda: sys.exit("done"),
}}

def transform(record):
    n = record["n"]
    if n in HARM:
        try:
            # Each harm is done once: after it, the file is there.
            os.close(os.open("harm-%d" % n, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            pass
        else:
            print("harm at", n, flush=True)
            HARM[n]()
    if n % 100 == 99:
        raise ValueError("a number I do not like")
    return record
'''

[destinations.lines]
type = "file"
from = "mine"
path = "out.jsonl"
format = "json_lines"
"#
    )
}

#[test]
fn harm_costs_no_record() {
    let dir = temp_dir("own-code");
    let lines: String = (0..RECORDS).map(|n| format!("{{\"n\": {n}}}\n")).collect();
    let wanted: Vec<u64> = (0..RECORDS).filter(|n| n % 100 != 99).collect();
    let (good, dead) = (wanted.len() as u64, RECORDS / 100);
    fs::write(dir.path().join("in.jsonl"), &lines).unwrap();
    let file = "type = \"file\"\npath = \"in.jsonl\"\nformat = \"json_lines\"\nmode = \"once\"";
    // A pipe cannot be read again.
    let pipe = "type = \"stdin\"";
    for (name, source) in [("file", file), ("pipe", pipe)] {
        for n in [100, 1300, 2400, 3300, 4200] {
            let _ = fs::remove_file(dir.path().join(format!("harm-{n}")));
        }
        let toml = harmful(source).replace("out.jsonl", &format!("{name}.out.jsonl"));
        let done = run(dir.path(), &format!("{name}.toml"), &toml)
            .stdin(lines.clone())
            .run(SOON);
        assert_eq!(done.code(), Some(0), "{name}: {done}");
        assert_eq!(
            numbers(&dir.path().join(format!("{name}.out.jsonl"))),
            wanted,
            "{name}: {done}"
        );
        let account = account(&done.stderr, "numbers->lines");
        assert_eq!(account, [RECORDS, good, 0, 0, dead], "{name}: {done}");
        for n in [100, 1300, 2400, 3300, 4200] {
            assert!(
                dir.path().join(format!("harm-{n}")).exists(),
                "{name}: no harm at {n}: {done}"
            );
        }
        assert!(
            done.stderr.contains("harm at 100"),
            "{name}: what is printed is logged: {done}"
        );
    }
}

#[test]
fn a_record_that_kills_every_time_is_a_dead_letter_and_stops_nobody() {
    let dir = temp_dir("own-code");
    let lines: String = (0..10).map(|n| format!("{{\"n\": {n}}}\n")).collect();
    fs::write(dir.path().join("in.jsonl"), &lines).unwrap();
    let python = |harm: &str| {
        format!(
            "type = \"python\"\nanswer_ms_max = 500\ncode = '''\nimport os, time\n\ndef transform(record):\n    \
             if record[\"n\"] == 5:\n        {harm}\n    return record\n'''"
        )
    };
    let exec = |harm: &str| {
        format!(
            "type = \"exec\"\nanswer_ms_max = 500\ncommand = [\"sh\", \"-c\", 'while read line; do case $line in *:5}}) \
             {harm};; esac; echo \"$line\"; done']"
        )
    };
    let file = "type = \"file\"\npath = \"in.jsonl\"\nformat = \"json_lines\"\nmode = \"once\"";
    for (name, transform, source) in [
        ("python-ends", python("os._exit(1)"), file),
        ("python-ends-of-a-pipe", python("os._exit(1)"), "type = \"stdin\""),
        ("python-hangs", python("time.sleep(1000)"), file),
        ("python-takes-all", python("bytearray(1 << 40)"), file),
        ("exec-ends", exec("exit 1"), file),
        ("exec-hangs", exec("exec sleep 1000"), file),
    ] {
        let toml = format!(
            "name = \"poison\"\n\n[sources.numbers]\n{source}\n\n[transforms.mine]\nfrom = \"numbers\"\n{transform}\n\n\
             [destinations.lines]\ntype = \"file\"\nfrom = \"mine\"\npath = \"{name}.out\"\nformat = \"json_lines\"\n"
        );
        let done = run(dir.path(), &format!("{name}.toml"), &toml)
            .stdin(lines.clone())
            .run(SOON);
        assert_eq!(done.code(), Some(0), "{name}: {done}");
        let wanted: Vec<u64> = (0..10).filter(|n| *n != 5).collect();
        assert_eq!(
            numbers(&dir.path().join(format!("{name}.out"))),
            wanted,
            "{name}: {done}"
        );
        assert_eq!(
            account(&done.stderr, "numbers->lines"),
            [10, 9, 0, 0, 1],
            "{name}: {done}"
        );
    }
}

/// Destinations that add the numbers they get to `out`, and do harm to themselves at some of them.
fn destinations(harm: [&str; 2], more: &str) -> [String; 2] {
    let [python, exec] = harm;
    [
        format!(
            "type = \"python\"\nanswer_ms_max = 800\n{more}\ncode = '''\nimport json, os, time\n\ndef write(records):\n    \
             for record in records:\n        n = record[\"n\"]\n        {python}\n    \
             with open(\"out\", \"a\") as out:\n        for record in records:\n            \
             out.write(json.dumps(record) + \"\\n\")\n'''"
        ),
        format!(
            "type = \"exec\"\nanswer_ms_max = 800\n{more}\ncommand = [\"sh\", \"-c\", 'while read head; do \
             n=${{head##*:}}; n=${{n%\\}}}}; rm -f batch; for i in $(seq $n); do read line; echo \"$line\" >> batch; \
             case $line in {exec};; esac; done; cat batch >> out; echo \"${{head%%,*}}}}\"; done']"
        ),
    ]
}

#[test]
fn a_record_of_which_a_destination_dies_is_a_dead_letter_and_the_others_arrive_once() {
    let dir = temp_dir("own-code");
    let lines: String = (0..200).map(|n| format!("{{\"n\": {n}}}\n")).collect();
    fs::write(dir.path().join("in.jsonl"), &lines).unwrap();
    let ends = destinations(
        ["if n in (5, 130): os._exit(1)", "*:5}|*:130}) exit 1"],
        "failures_max = 2",
    );
    let hangs = destinations(
        ["if n in (5, 130): time.sleep(1000)", "*:5}|*:130}) exec sleep 1000"],
        "failures_max = 1",
    );
    let raises = destinations(
        ["if n in (5, 130): raise ValueError(n)", "*:5}|*:130}) echo no; exit 0"],
        "",
    );
    for (name, destination) in ends.iter().chain(&hangs).chain(&raises).enumerate() {
        let _ = fs::remove_file(dir.path().join("out"));
        let toml = format!(
            "name = \"poison\"\n\n[sources.numbers]\ntype = \"file\"\npath = \"in.jsonl\"\nformat = \"json_lines\"\n\
             mode = \"once\"\n\n[destinations.mine]\nfrom = \"numbers\"\n{destination}\n"
        );
        let done = run(dir.path(), &format!("{name}.toml"), &toml).run(SOON);
        assert_eq!(done.code(), Some(0), "{toml}: {done}");
        let mut arrived = numbers(&dir.path().join("out"));
        arrived.sort_unstable();
        let wanted: Vec<u64> = (0..200).filter(|n| ![5, 130].contains(n)).collect();
        assert_eq!(arrived, wanted, "{toml}: {done}");
        assert_eq!(
            account(&done.stderr, "numbers->mine"),
            [200, 198, 0, 0, 2],
            "{toml}: {done}"
        );
    }
}

/// Everything is refused by a server that is away, for longer than it takes to suspect records.
#[test]
fn a_destination_that_is_away_blames_no_record() {
    let dir = temp_dir("own-code");
    let lines: String = (0..50).map(|n| format!("{{\"n\": {n}}}\n")).collect();
    fs::write(dir.path().join("in.jsonl"), &lines).unwrap();
    let harm = [
        "if not os.path.exists(\"there\"): os._exit(1)",
        "*) [ -e there ] || exit 1",
    ];
    for (name, destination) in destinations(harm, "failures_max = 1").iter().enumerate() {
        let (out, there) = (dir.path().join("out"), dir.path().join("there"));
        let _ = (fs::remove_file(&out), fs::remove_file(&there));
        let toml = format!(
            "name = \"away\"\n\n[sources.numbers]\ntype = \"file\"\npath = \"in.jsonl\"\nformat = \"json_lines\"\n\n\
             [destinations.mine]\nfrom = \"numbers\"\n{destination}\n"
        );
        let mut daemon = run(dir.path(), &format!("{name}.toml"), &toml).spawn();
        wait_until("the search to be put off", SOON, || {
            (daemon.log().matches("cannot be told before others go through").count() > 3).then_some(())
        });
        fs::write(&there, "").unwrap();
        wait_until("all to arrive", SOON, || {
            (out.exists() && numbers(&out).len() >= 50).then_some(())
        });
        // One more comes after them: the batch before it is done with.
        let more = "{\"n\": 50}\n";
        fs::write(dir.path().join("in.jsonl"), format!("{lines}{more}")).unwrap();
        wait_until("the next to arrive", SOON, || (numbers(&out).len() > 50).then_some(()));
        assert!(daemon.term_and_wait(SOON).success(), "{}", daemon.log());
        fs::write(dir.path().join("in.jsonl"), &lines).unwrap();
        let mut arrived = numbers(&out);
        arrived.sort_unstable();
        assert_eq!(arrived, (0..51).collect::<Vec<_>>(), "{}", daemon.log());
        let account = account(&daemon.log(), "numbers->mine");
        assert_eq!(account, [51, 51, 0, 0, 0], "{}", daemon.log());
    }
}

/// A record comes alone, and its destination dies of it. Those that come later tell that it is to blame.
#[test]
fn a_record_that_came_alone_is_told_by_those_that_come_later() {
    let dir = temp_dir("own-code");
    let harm = ["if n == 0: os._exit(1)", "*:0}) exit 1"];
    for (name, destination) in destinations(harm, "failures_max = 2").iter().enumerate() {
        let (out, lines) = (dir.path().join("out"), dir.path().join(format!("{name}.jsonl")));
        let _ = fs::remove_file(&out);
        fs::write(&lines, "{\"n\": 0}\n").unwrap();
        let toml = format!(
            "name = \"alone\"\n\n[sources.numbers]\ntype = \"file\"\npath = \"{name}.jsonl\"\nformat = \"json_lines\"\n\n\
             [destinations.mine]\nfrom = \"numbers\"\n{destination}\n"
        );
        let mut daemon = run(dir.path(), &format!("{name}.toml"), &toml).spawn();
        wait_until("nobody to be blamed yet", SOON, || {
            daemon
                .log()
                .contains("cannot be told before others go through")
                .then_some(())
        });
        for n in 1..6 {
            let mut file = fs::OpenOptions::new().append(true).open(&lines).unwrap();
            file.write_all(format!("{{\"n\": {n}}}\n").as_bytes()).unwrap();
            std::thread::sleep(Duration::from_millis(300));
        }
        wait_until("the record to be rejected", SOON, || {
            daemon.log().contains("goes to the dead letters").then_some(())
        });
        wait_until("the others to arrive", SOON, || {
            (out.exists() && numbers(&out).len() >= 5).then_some(())
        });
        // What is told is committed a moment later.
        std::thread::sleep(Duration::from_secs(1));
        assert!(daemon.term_and_wait(SOON).success(), "{}", daemon.log());
        let mut arrived = numbers(&out);
        arrived.sort_unstable();
        assert_eq!(arrived, [1, 2, 3, 4, 5], "{}", daemon.log());
        let account = account(&daemon.log(), "numbers->mine");
        assert_eq!(account, [6, 5, 0, 0, 1], "{}", daemon.log());
    }
}

#[test]
fn a_source_that_gives_nothing_rests_and_is_not_given_up() {
    let dir = temp_dir("own-code");
    for (name, source) in [
        (
            "python",
            "type = \"python\"\nfailures_max = 2\ncode = '''\nimport os\n\ndef read(cursor):\n    \
             open(\"begun\", \"a\").write(\"x\")\n    if cursor is None and os.path.exists(\"there\"):\n        \
             yield {\"n\": 1}, 1\n    os._exit(3)\n'''",
        ),
        (
            "exec",
            "type = \"exec\"\nfailures_max = 2\ncursor = \"n\"\ncommand = [\"sh\", \"-c\", 'printf x >> begun; \
             if [ -z \"$MYCELIAL_CURSOR\" ]; then [ -e there ] && echo \"{\\\"n\\\": 1}\"; fi; sleep 0.7; exit 3']",
        ),
    ] {
        let (begun, there) = (dir.path().join("begun"), dir.path().join("there"));
        let _ = (fs::remove_file(&begun), fs::remove_file(&there));
        let toml = format!(
            "name = \"{name}\"\n\n[sources.numbers]\n{source}\n\n[destinations.lines]\ntype = \"file\"\nfrom = \"numbers\"\n\
             path = \"{name}.out\"\nformat = \"json_lines\"\n"
        );
        let mut daemon = run(dir.path(), &format!("{name}.toml"), &toml).spawn();
        wait_until("the source to rest", SOON, || {
            daemon
                .log()
                .contains("it failed 2 times in a row and gave nothing")
                .then_some(())
        });
        std::thread::sleep(Duration::from_secs(3));
        assert_eq!(fs::read(&begun).unwrap().len(), 2, "{}", daemon.log());
        assert!(daemon.term_and_wait(SOON).success(), "{}", daemon.log());
        // A record, and it is not counted with those that gave none.
        fs::write(&there, "").unwrap();
        let mut daemon = run(dir.path(), &format!("{name}.toml"), &toml).spawn();
        wait_until("the source to rest again", SOON, || {
            daemon
                .log()
                .contains("it failed 2 times in a row and gave nothing")
                .then_some(())
        });
        assert!(daemon.term_and_wait(SOON).success(), "{}", daemon.log());
        assert_eq!(
            numbers(&dir.path().join(format!("{name}.out"))),
            [1],
            "{}",
            daemon.log()
        );
        assert_eq!(
            account(&daemon.log(), "numbers->lines"),
            [1, 1, 0, 0, 0],
            "{}",
            daemon.log()
        );
    }
}

#[test]
fn nothing_is_left_of_a_daemon_that_is_killed() {
    let dir = temp_dir("own-code");
    let code = |function: &str| {
        format!(
            "code = '''\nimport os\n\ndef {function}(value):\n    with open(\"{function}.new\", \"w\") as pid:\n        \
             pid.write(str(os.getpid()))\n    os.rename(\"{function}.new\", \"{function}.pid\")\n    while True:\n        pass\n'''"
        )
    };
    fs::write(dir.path().join("in.jsonl"), "{\"n\": 1}\n").unwrap();
    let file = "type = \"file\"\npath = \"in.jsonl\"\nformat = \"json_lines\"";
    let toml = format!(
        "name = \"busy\"\n\n[sources.reading]\ntype = \"python\"\n{}\n\n[sources.lines]\n{file}\n\n[sources.others]\n{file}\n\n\
         [transforms.changing]\ntype = \"python\"\nfrom = \"lines\"\n{}\n\n\
         [destinations.read]\ntype = \"stdout\"\nfrom = \"reading\"\n\n\
         [destinations.changed]\ntype = \"stdout\"\nfrom = \"changing\"\n\n\
         [destinations.writing]\ntype = \"python\"\nfrom = \"others\"\n{}\n",
        code("read"),
        code("transform"),
        code("write"),
    );
    let mut daemon = run(dir.path(), "busy.toml", &toml).spawn();
    let pids = ["read", "transform", "write"].map(|function| {
        let path = dir.path().join(format!("{function}.pid"));
        wait_until(&format!("{function} to be busy"), SOON, || {
            fs::read_to_string(&path).ok()
        })
    });
    assert!(pids.iter().all(|pid| is_alive(pid)), "{}", daemon.log());
    daemon.kill9();
    wait_until("the code to end with the daemon", SOON, || {
        (!pids.iter().any(|pid| is_alive(pid))).then_some(())
    });
}

#[test]
fn a_stop_does_not_wait_for_code_that_hangs() {
    let dir = temp_dir("own-code");
    fs::write(dir.path().join("in.jsonl"), "{\"n\": 1}\n").unwrap();
    let toml = "name = \"hangs\"\n\n[sources.lines]\ntype = \"file\"\npath = \"in.jsonl\"\nformat = \"json_lines\"\n\n\
                [transforms.mine]\ntype = \"python\"\nfrom = \"lines\"\nanswer_ms_max = 3_600_000\ncode = '''\nimport time\n\n\
                def transform(record):\n    open(\"began\", \"w\").close()\n    time.sleep(3600)\n'''\n\n\
                [destinations.out]\ntype = \"stdout\"\nfrom = \"mine\"\n";
    let mut daemon = run(dir.path(), "hangs.toml", toml).spawn();
    let began = dir.path().join("began");
    wait_until("the code to hang", SOON, || began.exists().then_some(()));
    let status = daemon.term_and_wait(SOON);
    assert!(status.success(), "{status}: {}", daemon.log());
}
