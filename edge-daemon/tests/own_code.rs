//! Code of a user's own in `myceliald run`: whatever ends its process, every record arrives once or is a dead letter, and
//! nothing of it is left when the daemon has gone.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use std::{fs, path::Path, time::Duration};

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
