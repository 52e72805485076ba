//! How others do the file job. Each gets the input and an empty directory, and has to leave `out.jsonl` in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use testkit::{Cmd, find_program, free_port};

use super::Place;
use crate::suites::{Circumstances, tail};
use crate::usage::{self, Usage, Watch};

/// How long anybody may take.
const LATE: Duration = Duration::from_secs(900);
/// Between two looks at the output of one that does not end by itself.
const LOOK: Duration = Duration::from_millis(20);

/// Somebody else who does the job.
pub struct Peer {
    pub name: &'static str,
    pub note: &'static str,
    /// It is so slow that it gets only one row in so many, and its time, work and writing are multiplied.
    pub part: u64,
    pub run: fn(&Place, &Circumstances) -> Result<(f64, Usage)>,
}

/// All of them; the last is the ceiling.
pub const ALL: &[Peer] = &[
    Peer {
        name: "rsyslog",
        note: "imfile, mmjsonparse, omfile with `sync` on; it reckons with whole degrees only. Its input position is saved every thousand lines and not tied to what was written: a crash doubles some",
        part: 1,
        run: rsyslog,
    },
    Peer {
        name: "Node-RED",
        note: "file in, function, file; nothing is synced, and there is no position to go on from: a crash begins again. It is given a \
               tenth of the rows; what it takes, but for the memory, is multiplied by ten",
        part: 10,
        run: node_red,
    },
    Peer {
        name: "Python loop",
        note: "a script of ten lines with one fsync at the end; no position to go on from",
        part: 1,
        run: python,
    },
    Peer {
        name: "bare Rust loop",
        note: "the ceiling: serde_json in a loop on one thread, one fsync at the end, nothing to go on from",
        part: 1,
        run: ceiling,
    },
];

fn ceiling(place: &Place, _: &Circumstances) -> Result<(f64, Usage)> {
    let this = std::env::current_exe()?;
    usage::run(Command::new(this).arg("ceiling").arg(&place.input).arg(place.output()))
}

const SCRIPT: &str = r#"
import json, os, sys
with open(sys.argv[1]) as lines, open(sys.argv[2], "w") as out:
    for line in lines:
        row = json.loads(line)
        if row["temp_c"] > 10:
            row["temp_f"] = row["temp_c"] * 1.8 + 32
            del row["humidity"]
            out.write(json.dumps(row) + "\n")
    out.flush()
    os.fsync(out.fileno())
"#;

fn python(place: &Place, _: &Circumstances) -> Result<(f64, Usage)> {
    let python = find_program("python3", "python3");
    usage::run(
        Command::new(python)
            .args(["-c", SCRIPT])
            .arg(&place.input)
            .arg(place.output()),
    )
}

fn rsyslog(place: &Place, _: &Circumstances) -> Result<(f64, Usage)> {
    // Its lines may be as long as one of ours; its queue is in memory, as it is by default.
    let config = format!(
        r##"global(workDirectory="{dir}" maxMessageSize="64k")
module(load="imfile" mode="inotify")
module(load="mmjsonparse")
template(name="line" type="string" string="%$!all-json-plain%\n")
input(type="imfile" File="{input}" Tag="job" Ruleset="job" addMetadata="off" persistStateInterval="1000")
ruleset(name="job" queue.type="FixedArray" queue.size="50000" queue.dequeueBatchSize="1024") {{
  action(type="mmjsonparse" cookie="")
  set $.whole = cnum(field($!temp_c, 46, 1));
  if $.whole >= 10 and $!temp_c != "10" and $!temp_c != "10.0" and $!temp_c != "10.00" then {{
    set $!temp_f = $.whole * 9 / 5 + 32;
    unset $!humidity;
    action(type="omfile" file="{output}" template="line" sync="on" ioBufferSize="64k" flushOnTXEnd="on")
  }}
}}
"##,
        dir = place.dir.display(),
        input = place.input.display(),
        output = place.output().display(),
    );
    let path = place.dir.join("rsyslog.conf");
    fs::write(&path, config)?;
    let pid = place.dir.join("pid");
    let cmd = Cmd::new(find_program("rsyslogd", "rsyslog"))
        .args(["-n", "-f"])
        .arg(&path)
        .arg("-i")
        .arg(&pid)
        .log(place.dir.join("log"));
    until_last(&cmd, place)
}

/// Runs one that does not end by itself until the last line is in the output.
fn until_last(cmd: &Cmd, place: &Place) -> Result<(f64, Usage)> {
    let started = Instant::now();
    let mut process = cmd.spawn();
    let watch = Watch::new(process.pid());
    let last = format!("\"id\":{},", place.last_id);
    loop {
        // Spaces are a matter of taste, and so is the order of the fields.
        let end = tail(&place.output()).replace(' ', "").replace('}', ",}");
        if end.ends_with('\n') && end.contains(&last) {
            break;
        }
        ensure!(process.is_running(), "it has ended: {}", process.log());
        ensure!(started.elapsed() < LATE, "not done after {LATE:?}: {}", process.log());
        std::thread::sleep(LOOK);
    }
    let (seconds, usage) = (started.elapsed().as_secs_f64(), watch.usage());
    drop(process);
    Ok((seconds, usage))
}

fn node_red(place: &Place, _: &Circumstances) -> Result<(f64, Usage)> {
    let program = install_node_red()?;
    let node = |id: &str, kind: &str, more: &str, wires: &str| {
        format!(r#"{{"id":"{id}","z":"tab","type":"{kind}","x":0,"y":0,{more},"wires":[{wires}]}}"#)
    };
    let function = r#""func":"const row = JSON.parse(msg.payload); if (!(row.temp_c > 10)) return null; row.temp_f = row.temp_c * 1.8 + 32; delete row.humidity; msg.payload = JSON.stringify(row); return msg;","outputs":1"#;
    let input = serde_json::Value::from(place.input.display().to_string());
    let output = serde_json::Value::from(place.output().display().to_string());
    let nodes = [
        r#"{"id":"tab","type":"tab","label":"job","disabled":false}"#.to_string(),
        node(
            "go",
            "inject",
            r#""props":[{"p":"payload"}],"payload":"","payloadType":"date","once":true,"onceDelay":0.1"#,
            r#"["in"]"#,
        ),
        node(
            "in",
            "file in",
            &format!(r#""filename":{input},"filenameType":"str","format":"lines","allProps":false"#),
            r#"["job"]"#,
        ),
        node("job", "function", function, r#"["out"]"#),
        node(
            "out",
            "file",
            &format!(
                r#""filename":{output},"filenameType":"str","appendNewline":true,"createDir":false,"overwriteFile":"false","encoding":"none""#
            ),
            "",
        ),
    ];
    let flow = place.dir.join("flow.json");
    fs::write(&flow, format!("[{}]", nodes.join(",")))?;
    let settings = place.dir.join("settings.js");
    fs::write(
        &settings,
        "module.exports = { httpAdminRoot: false, httpNodeRoot: false, diagnostics: { enabled: false } }\n",
    )?;
    let cmd = Cmd::new(find_program("node", "nodejs"))
        // As much as it wants: its queue of lines is in memory.
        .arg("--max-old-space-size=12000")
        .arg(program)
        .arg("--userDir")
        .arg(&place.dir)
        .arg("--settings")
        .arg(&settings)
        .args(["--port", &free_port().to_string()])
        .arg(&flow)
        .log(place.dir.join("log"));
    until_last(&cmd, place)
}

/// The version in the lock file, once for each state of it.
fn install_node_red() -> Result<PathBuf> {
    let peers = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers");
    let changed = |name: &str| fs::metadata(peers.join(name)).and_then(|file| file.modified()).ok();
    if changed("node_modules/.package-lock.json") < changed("package-lock.json") {
        eprintln!("installing Node-RED …");
        let mut npm = Command::new(find_program("npm", "npm"));
        npm.args(["ci", "--no-audit", "--no-fund", "--silent"])
            .current_dir(&peers);
        let done = npm.stdin(Stdio::null()).output().context("cannot run npm")?;
        if !done.status.success() {
            bail!("npm cannot install Node-RED: {}", String::from_utf8_lossy(&done.stderr));
        }
    }
    Ok(peers.join("node_modules/node-red/red.js"))
}
