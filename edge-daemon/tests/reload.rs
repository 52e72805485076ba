//! SIGHUP: a running daemon reads its settings again. What can change at once does, what needs a restart says so, and a
//! mistake changes nothing.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use std::{fs, path::Path, time::Duration};

use testkit::{Cmd, Mosquitto, Proc, Signal, temp_dir, wait_until};

const SOON: Duration = Duration::from_secs(60);

fn daemon(config: &Path, arguments: &[&str]) -> Cmd {
    ["MYCELIAL_CONFIG", "MYCELIAL_DATA_DIR", "MYCELIAL_ENROL"]
        .into_iter()
        .fold(Cmd::new(env!("CARGO_BIN_EXE_myceliald")), Cmd::env_remove)
        .arg("--config")
        .arg(config)
        .args(arguments)
}

/// What was logged after `from` bytes, once it holds `needle`.
fn said_after(process: &mut Proc, from: usize, needle: &str) -> String {
    wait_until(&format!("{needle:?} in the log"), SOON, || {
        assert!(process.is_running(), "it has ended: {}", process.log());
        process
            .log()
            .get(from..)
            .filter(|new| new.contains(needle))
            .map(ToString::to_string)
    })
}

#[test]
fn settings_are_read_again() {
    let (first, second) = (Mosquitto::start(), Mosquitto::start());
    let dir = temp_dir("reload");
    let dir = dir.path();
    let (plane_dir, data, config) = (dir.join("plane"), dir.join("data"), dir.join("config.toml"));
    let plane = |arguments: &[&str]| {
        let (command, rest) = arguments.split_first().unwrap();
        Cmd::bin("mycelial-plane")
            .arg(command)
            .arg("--dir")
            .arg(&plane_dir)
            .args(rest)
    };
    plane(&["init", "--bus", &first.url()]).run(SOON).ok();
    let mut running_plane = plane(&["run", "--http", "127.0.0.1:0"]).spawn();
    running_plane.wait_for_log("connected", SOON);
    let string = plane(&["token", "--role", "daemon"]).run(SOON).ok();

    let settings = |more: &str| format!("name = \"gateway\"\ndata_dir = \"{}\"\n{more}", data.display());
    let write = |text: &str| fs::write(&config, text).unwrap();
    write(&settings(""));
    daemon(&config, &["enrol", string.trim()]).run(SOON).ok();
    let mut process = daemon(&config, &["start"]).spawn();
    process.wait_for_log("connected", SOON);
    process.wait_for_log("data connection up", SOON);

    let log = process.log_path().to_path_buf();

    // Writes other settings, sends SIGHUP, and returns what is logged until `needle`.
    let mut again = |text: &str, needle: &str| {
        let before = process.log().len();
        write(text);
        process.signal(Signal::Hup);
        said_after(&mut process, before, needle)
    };

    // Logs change at once, in level and format.
    let said = again(&settings("[log]\nformat = \"json\"\n"), "settings read again");
    // Others may log meanwhile, before the switch or after it.
    let line = said.lines().find(|line| line.contains("settings read again")).unwrap();
    let line: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    assert_eq!(
        (&line["level"], &line["message"]),
        (&"INFO".into(), &"settings read again; the bus is the same".into())
    );
    again(&settings(""), "settings read again");
    // At this level a good reload is silent, and the mistake after it tells that it was heard. Twice, because the first one
    // may still be told of before the level changes.
    const WRONG: &str = "the settings are wrong";
    for _ in 0..2 {
        again(&settings("[log]\nlevel = \"error\"\n"), "");
        std::thread::sleep(Duration::from_millis(500));
        again(&settings("["), WRONG);
    }
    let text = fs::read_to_string(&log).unwrap();
    let between = text.split(WRONG).nth(1).unwrap();
    assert!(!between.contains(" INFO "), "{between}");
    again(&settings("[log]\nlevel = \"debug\"\n"), "settings read again");

    // A mistake is refused, with its place, and changes nothing: neither the bus nor the level.
    for (wrong, told) in [
        ("[log]\nlevle = \"error\"\n", "config.toml:4: unknown field `levle`"),
        ("[log]\nlevel = \"inof\"\n", "did you mean 'info'?"),
        ("[log]\nlevel = 5\n", "config.toml:4: log.level: invalid type"),
        (
            "[bus]\naddresses = [\"http://127.0.0.1\"]\n",
            "config.toml:4: bus.addresses",
        ),
        (
            "[bus]\nca = \"/nowhere/ca.pem\"\n",
            "bus.ca: cannot read /nowhere/ca.pem",
        ),
        ("[bus", "config.toml:3:"),
    ] {
        let said = again(&settings(wrong), "the settings are wrong; going on with the old ones");
        assert!(said.contains(told), "{wrong}: {said}");
        assert!(said.contains(" ERROR "), "{wrong}: still text: {said}");
        assert!(!said.contains("connected"), "{wrong}: {said}");
    }
    again(
        &settings("[log]\nlevel = \"debug\"\n"),
        "settings read again; the bus is the same",
    );

    // What needs a restart says so, and everything goes on.
    let moved = format!(
        "name = \"gateway\"\ndata_dir = \"{}\"\n",
        dir.join("elsewhere").display()
    );
    let said = again(&moved, "settings read again");
    assert!(
        said.contains("a new data_dir takes effect only after a restart"),
        "{said}"
    );
    let said = again(&settings("").replace("gateway", "other"), "settings read again");
    assert!(
        said.contains("a new name takes effect only when the daemon enrols"),
        "{said}"
    );

    // The bus changes by reconnecting.
    let elsewhere = settings(&format!("[bus]\naddresses = [\"{}\"]\n", second.url()));
    let said = again(&elsewhere, " connected ");
    assert!(said.contains("settings read again; reconnecting"), "{said}");
    assert!(said.contains(&second.url()), "{said}");
    assert!(!dir.join("elsewhere").exists());
    assert!(process.term_and_wait(SOON).success());
    assert!(running_plane.term_and_wait(SOON).success());
}
