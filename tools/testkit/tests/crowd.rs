//! A fleet of many: a thousand simulated daemons and two real ones. They are enrolled and labelled, a workflow goes to all of
//! them in waves, a wave that fails takes all back, and a broker's restart in the middle of a rollout changes nothing.

#![cfg(target_os = "linux")]

use std::{fs, time::Duration};

use testkit::{Broker, Crowd, Fleet, Nats, shop, wait_ok};

const SOON: Duration = Duration::from_secs(60);
const DAEMONS: usize = 1_000;

/// Made anew for each revision: another rate is another config.
fn readings(fleet: &Fleet, rate: u32) -> String {
    format!(
        "name = \"readings\"\n\n[sources.sensor]\ntype = \"generator\"\ndaemon = \"label:site\"\nrate = {rate}\n\
         fields = {{ n = {{ kind = \"counter\" }}, site = {{ kind = \"text\", text = \"{{{{ label.site }}}}\" }} }}\n\n\
         [destinations.file]\ntype = \"file\"\ndaemon = \"label:site\"\nfrom = \"sensor\"\nformat = \"json_lines\"\npath = \"{}/{{{{ daemon.name }}}}.jsonl\"\n",
        fleet.path("out")
    )
}

fn write(fleet: &Fleet, name: &str, text: &str) -> String {
    let file = fleet.path(name);
    fs::write(&file, text).expect("a file can be written");
    file
}

fn rollout(fleet: &Fleet, id: &str) -> serde_json::Value {
    let text = fleet.cli(&["rollout", "show", id, "-o", "json"]).expect("a rollout");
    let all: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    all[0].clone()
}

/// Waits until the real daemons run a revision too, by the plane's word.
fn real_ones_run(fleet: &Fleet, revision: u64) {
    wait_ok("the real daemons to run it", SOON, || {
        for name in ["gateway", "hub"] {
            let text = fleet.cli(&["daemon", "show", name, "-o", "json"])?;
            let detail: serde_json::Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
            let part = &detail["parts"][0];
            if (&part["revision"], &part["state"]) != (&revision.into(), &"running".into()) {
                return Err(text);
            }
        }
        Ok(())
    });
}

#[test]
fn a_thousand_daemons_and_two() {
    let mut fleet = Fleet::start(Broker::Nats(Nats::start()), None);
    fs::create_dir(fleet.dir().join("out")).expect("a directory");
    fleet.enrol("gateway");
    fleet.enrol("hub");
    let _real = [fleet.daemon("gateway", None), fleet.daemon("hub", None)];
    let mut crowd = Crowd::start(&fleet, DAEMONS, SOON);
    for (selector, label) in [("name:sim-00*", "site=berlin"), ("-name:sim-00*", "site=bonn")] {
        fleet
            .cli(&["daemon", "label", selector, label, "--yes"])
            .expect("labels");
    }

    // What would happen is told before: all daemons, and what each would run.
    let first = write(&fleet, "readings.toml", &readings(&fleet, 1));
    let dry = wait_ok("every catalog to be known", SOON, || {
        fleet.cli(&["workflow", "apply", &first, "--dry-run", "-o", "json"])
    });
    let dry: serde_json::Value = serde_json::from_str(&dry).expect("JSON");
    let daemons = dry[0]["daemons"].as_array().expect("daemons");
    assert_eq!(daemons.len(), DAEMONS + 2);
    assert!(daemons.iter().all(|daemon| daemon["change"] == "added"));

    let waves = |file: &str| {
        [
            "rollout",
            "start",
            file,
            "--waves",
            "1,10%,100%",
            "--soak",
            "2s",
            "--take",
            "20s",
        ]
        .map(String::from)
    };
    let start = |file: &str, more: &[&str]| {
        let arguments = waves(file);
        let arguments: Vec<&str> = arguments
            .iter()
            .map(String::as_str)
            .chain(more.iter().copied())
            .collect();
        fleet.cli(&arguments)
    };
    start(&first, &["--watch"]).expect("the first revision goes to all");
    crowd.wait_all("readings@1 running", SOON);
    real_ones_run(&fleet, 1);

    // Some of the second wave fail: everybody goes back, and nobody of the third has ever had it.
    crowd.order("fail readings@2 sim-0005*");
    let second = write(&fleet, "readings.toml", &readings(&fleet, 2));
    let said = start(&second, &["--watch"]).expect_err("the second revision fails");
    assert!(
        said.contains("rolled back") && said.contains("it was ordered to fail"),
        "{said}"
    );
    crowd.wait_all("readings@1 running", SOON);
    real_ones_run(&fleet, 1);
    let view = rollout(&fleet, "2");
    assert_eq!(
        (&view["phase"], &view["wave"]),
        (&"rolled_back".into(), &2.into()),
        "{view}"
    );
    let shown = fleet
        .cli(&["workflow", "show", "readings", "-o", "json"])
        .expect("a workflow");
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!(shown["view"]["revision"], 1);

    // The broker goes in the middle of the next, and so does the plane: it goes on where it was.
    crowd.order("");
    let third = write(&fleet, "readings.toml", &readings(&fleet, 3));
    start(&third, &[]).expect("the third revision begins");
    wait_ok("the canary to be there", SOON, || {
        match rollout(&fleet, "3")["waves"][0]["taken"].as_u64() {
            Some(1) => Ok(()),
            taken => Err(format!("{taken:?}")),
        }
    });
    fleet.plane_away();
    fleet.broker.away();
    fleet.broker.back();
    fleet.plane_back();
    crowd.wait_all("readings@3 running", SOON);
    real_ones_run(&fleet, 3);
    wait_ok("the rollout to be done", SOON, || {
        match rollout(&fleet, "3")["phase"].as_str() {
            Some("done") => Ok(()),
            phase => Err(format!("{phase:?}")),
        }
    });
    for (name, site) in [("gateway", "bonn"), ("hub", "bonn")] {
        let text = fs::read_to_string(fleet.dir().join("out").join(format!("{name}.jsonl"))).expect("records");
        assert!(text.contains(&format!("\"site\":\"{site}\"")), "{name}: {text}");
    }
}

#[test]
fn records_of_many_daemons_come_to_one_once_each() {
    const ROWS: u64 = 2_000;
    let mut fleet = Fleet::start(Broker::Nats(Nats::start()), None);
    let names = ["a", "b", "hub"];
    names.iter().for_each(|name| fleet.enrol(name));
    let mut daemons = names.map(|name| fleet.daemon(name, None));
    wait_ok("labels", SOON, || {
        fleet.cli(&["daemon", "label", "name:*", "line=1", "--yes"])
    });
    let copy = fleet.dir().join("all.db");
    let text = format!(
        "name = \"collect\"\n\n[sources.made]\ntype = \"generator\"\ndaemon = \"line=1\"\nrate = 500\ncount = {ROWS}\n\
         fields = {{ n = {{ kind = \"counter\" }}, daemon = {{ kind = \"text\", text = \"{{{{ daemon.name }}}}\" }} }}\n\n\
         [destinations.all]\ntype = \"sqlite\"\ndaemon = \"hub\"\nfrom = \"made\"\npath = \"{}\"\ntable = \"all_of_them\"\nkey = []\n",
        copy.display()
    );
    let file = write(&fleet, "collect.toml", &text);
    wait_ok("the workflow to be deployed", SOON, || {
        fleet.cli(&["workflow", "apply", &file])
    });
    // Those who send and the one who takes die in the middle of it; one of them is the hub itself.
    wait_ok("some rows", SOON, || match shop::count(&copy, "all_of_them") {
        0 => Err("none"),
        _ => Ok(()),
    });
    for (at, name) in names.iter().enumerate() {
        daemons[at].kill9();
        daemons[at] = fleet.daemon(name, None);
    }
    fleet.broker.away();
    fleet.broker.back();
    wait_ok("all rows", SOON, || match shop::count(&copy, "all_of_them") {
        count if count >= 3 * ROWS => Ok(()),
        count => Err(count),
    });
    let db = rusqlite::Connection::open(&copy).expect("a database");
    let sql = "SELECT daemon, count(*), count(DISTINCT n) FROM all_of_them GROUP BY daemon ORDER BY daemon";
    let mut statement = db.prepare(sql).expect("a statement");
    let rows = statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .expect("rows");
    let rows: Vec<(String, i64, i64)> = rows.collect::<Result<_, _>>().expect("rows");
    assert_eq!(rows, names.map(|name| (name.to_string(), ROWS as i64, ROWS as i64)));
}
