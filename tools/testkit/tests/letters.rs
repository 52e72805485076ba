//! Dead letters from every stage, with the real binaries: they are listed and shown, and once the cause is mended they are
//! tried again and arrive once, whoever is killed meanwhile.

#![cfg(target_os = "linux")]

use std::{fs, time::Duration};

use rusqlite::Connection;
use serde_json::Value;
use testkit::{
    Broker, Cmd, Dice, Fleet, Ledger, Proc, fresh_seed,
    oracle::Produced,
    scenario::{COPY, letters, refuse_every_tenth, refuse_nothing, shop_workflow},
    shop, wait_ok,
};

const SOON: Duration = Duration::from_secs(60);
const LATE: Duration = Duration::from_secs(180);
const ROWS: u64 = 3_000;

/// Runs the command line and returns its exit code and what it said.
fn cli(fleet: &Fleet, arguments: &[&str]) -> (Option<i32>, String) {
    let done = Cmd::bin("mycelial")
        .args(["--home", &fleet.path("operator")])
        .args(arguments)
        .run(SOON);
    (done.code(), format!("{}{}", done.stdout, done.stderr))
}

#[track_caller]
fn books(fleet: &Fleet, what: &str, wanted: Ledger) {
    wait_ok(&format!("the books after {what}"), SOON, || {
        let ledgers = fleet.ledgers();
        let all = !ledgers.is_empty() && ledgers.iter().all(|(_, ledger)| *ledger == wanted);
        all.then_some(()).ok_or(format!("{ledgers:?} instead of {wanted:?}"))
    });
}

fn name(letter: &serde_json::Value) -> &str {
    letter["letter"].as_str().expect("a name")
}

/// Kills the hub at random moments while letters are tried again, until none is left.
fn replay_over_kills(fleet: &Fleet, mut hub: Proc, dice: &mut Dice) -> (Proc, u32) {
    let mut kills = 0;
    while !letters(fleet, "shop").is_empty() {
        let said = cli(
            fleet,
            &[
                "dlq",
                "replay",
                "--all",
                "--workflow",
                "shop",
                "--daemon",
                "hub",
                "--yes",
            ],
        );
        assert_eq!(said.0, Some(0), "{}", said.1);
        if kills < 6 {
            std::thread::sleep(Duration::from_millis(dice.roll(120)));
            hub.kill9();
            hub = fleet.daemon("hub", None);
            kills += 1;
        } else {
            std::thread::sleep(Duration::from_millis(500));
        }
    }
    (hub, kills)
}

#[test]
fn what_a_destination_refused_arrives_once_when_it_is_mended() {
    // MYCELIAL_SEED=N repeats a run.
    let told = std::env::var("MYCELIAL_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = told.unwrap_or_else(fresh_seed);
    eprintln!("seed {seed}");
    let mut dice = Dice::new(seed);
    let fleet = Fleet::start(Broker::embedded(false), None);
    fleet.enrol("gateway");
    fleet.enrol("hub");
    let (source, copy) = (fleet.dir().join("shop.db"), fleet.dir().join("copy.db"));
    shop::create(&source).expect("a database");
    shop::add(&source, ROWS).expect("rows");
    refuse_every_tenth(&copy);
    let _gateway = fleet.daemon("gateway", None);
    let mut hub = fleet.daemon("hub", None);
    fleet.apply("shop", &shop_workflow(&fleet));
    let refused = ROWS / 10;
    let ledger = |dead_lettered| Ledger {
        produced: ROWS,
        delivered: ROWS - dead_lettered,
        dead_lettered,
        ..Ledger::default()
    };
    books(&fleet, "the refusal", ledger(refused));
    assert_eq!(letters(&fleet, "shop").len() as u64, refused);

    // Killed in between, and once more: the list stays as it is.
    hub.kill9();
    hub = fleet.daemon("hub", None);
    let listed = letters(&fleet, "shop");
    assert_eq!(listed.len() as u64, refused);
    let first = name(&listed[0]).to_string();
    assert_eq!(first, "hub/shop/1");
    let (code, shown) = cli(&fleet, &["dlq", "show", &first]);
    assert_eq!(code, Some(0), "{shown}");
    for part in ["destination 'copy'", "CHECK", "quantity", "🚀 rocket 10"] {
        assert!(shown.contains(part), "{part} is not in:\n{shown}");
    }
    // Tried again too early it dies again, as another letter.
    let (code, said) = cli(&fleet, &["dlq", "replay", &first]);
    assert_eq!(code, Some(0), "{said}");
    let again = wait_ok("the letter to die again", SOON, || {
        let now = letters(&fleet, "shop");
        let again = now.iter().find(|letter| letter["replays"] == 1).cloned();
        again.filter(|_| now.len() as u64 == refused).ok_or("not yet")
    });
    assert!(again["id"].as_u64() > Some(refused), "{again}");
    books(&fleet, "dying again", ledger(refused));
    let (code, _) = cli(&fleet, &["dlq", "show", &first]);
    assert_eq!(code, Some(5), "the first one is gone");
    let (code, _) = cli(&fleet, &["dlq", "replay", &first]);
    assert_eq!(code, Some(5));
    for (wrong, said) in [
        (&["dlq", "show", "1"][..], "DAEMON/WORKFLOW/NUMBER"),
        (&["dlq", "purge", "--all"], "--yes"),
        (&["dlq", "replay"], "--all"),
    ] {
        let (code, text) = cli(&fleet, wrong);
        assert!(code == Some(2) && text.contains(said), "{wrong:?}: {text}");
    }

    refuse_nothing(&copy);
    let (_hub, kills) = replay_over_kills(&fleet, hub, &mut dice);
    let verdict = Produced::all(&source)
        .and_then(|produced| produced.judge_sqlite(&copy, COPY))
        .expect("a verdict");
    let counts = verdict.offences().map(|(_, offence)| offence.count);
    assert_eq!(counts[..4], [0; 4], "after {kills} kills: {verdict}");
    books(&fleet, "the replay", ledger(0));
}

/// On the gateway, before a stream: what a transform failed on goes into the stream, what the source could not read says
/// why it cannot.
#[test]
fn what_died_before_a_stream_goes_into_it() {
    let fleet = Fleet::start(Broker::embedded(false), None).with_metrics();
    // What somebody has still to look at: the books go on counting what was discarded.
    let kept = |wanted: u64| {
        wait_ok(&format!("{wanted} letters kept"), SOON, || {
            let page = fleet.metrics()?;
            let found = page
                .lines()
                .find(|line| line.starts_with("mycelial_workflow_letters_kept{"));
            let wanted = format!("mycelial_workflow_letters_kept{{workflow=\"parts\"}} {wanted}");
            (found == Some(&wanted)).then_some(()).ok_or(format!("{found:?}"))
        });
    };
    // As the rule that comes with the plane, and fires at once.
    let rules = fleet.path("rules.toml");
    let rule = "[[rule]]\nname = \"letters\"\nwhen = \"dead_letters\"\n";
    fs::write(&rules, rule).expect("a file");
    fleet.cli(&["alert", "apply", &rules, "--yes"]).expect("rules");
    let alert = |is_wanted: bool| {
        let what = if is_wanted { "the alert" } else { "the alert to be over" };
        wait_ok(what, LATE, || {
            let said = fleet.cli(&["alert", "list", "-o", "json"])?;
            let alerts: Vec<Value> = serde_json::from_str(&said).map_err(|error| error.to_string())?;
            let mut own = alerts.iter().filter(|alert| alert["rule"] == "letters");
            let is_so = own.any(|alert| alert["state"] == "firing");
            (is_so == is_wanted).then_some(()).ok_or(said)
        });
    };
    fleet.enrol("gateway");
    fleet.enrol("hub");
    let lines = "{\"n\": 1}\n{\"n\": 0}\nnonsense\n{\"n\": 2}\n{\"n\": 0}\n";
    fs::write(fleet.dir().join("in.jsonl"), lines).expect("a file");
    let mut gateway = fleet.daemon("gateway", None);
    let _hub = fleet.daemon("hub", None);
    let workflow = |expression: &str| {
        format!(
            "name = \"parts\"\n\n[sources.lines]\ntype = \"file\"\ndaemon = \"gateway\"\npath = \"{}\"\nformat = \
             \"json_lines\"\n\n[transforms.share]\ntype = \"derive\"\nfrom = \"lines\"\n[transforms.share.columns]\nshare = \
             \"{expression}\"\n\n[destinations.copy]\ntype = \"sqlite\"\ndaemon = \"hub\"\nfrom = \"share\"\npath = \
             \"{}\"\ntable = \"{COPY}\"\nkey = []\n",
            fleet.path("in.jsonl"),
            fleet.path("copy.db"),
        )
    };
    fleet.apply("parts", &workflow("100 / n"));
    let ledger = |delivered, dead_lettered| Ledger {
        produced: 5,
        delivered,
        dead_lettered,
        ..Ledger::default()
    };
    books(&fleet, "the failures", ledger(2, 3));
    kept(3);
    alert(true);
    let listed = letters(&fleet, "parts");
    let stages: Vec<_> = listed
        .iter()
        .map(|letter| letter["stage"].as_str().expect("a stage"))
        .collect();
    assert_eq!(
        stages.iter().filter(|stage| **stage == "source").count(),
        1,
        "{listed:?}"
    );
    assert_eq!(
        stages.iter().filter(|stage| **stage == "transform").count(),
        2,
        "{listed:?}"
    );
    let unread = listed.iter().find(|letter| letter["stage"] == "source").expect("one");
    let raw = fleet.path("raw");
    let (_, shown) = cli(&fleet, &["dlq", "show", name(unread), "--raw", &raw]);
    assert!(shown.contains("nonsense") && shown.contains("in.jsonl:3"), "{shown}");
    assert_eq!(fs::read(&raw).expect("the bytes"), b"nonsense");

    // The workflow is mended: what died comes through, also over a kill; what is nonsense stays so.
    fleet.apply("parts", &workflow("if n == 0 { 0 } else { 100 / n }"));
    let (code, said) = cli(&fleet, &["dlq", "replay", "--all", "--daemon", "gateway", "--yes"]);
    assert_eq!(code, Some(0), "{said}");
    gateway.kill9();
    let _gateway = fleet.daemon("gateway", None);
    wait_ok("the transform's letters to come through", LATE, || {
        let left = letters(&fleet, "parts");
        let refused = left.len() == 1 && left[0]["refusal"].as_str().is_some_and(|text| !text.is_empty());
        refused.then_some(()).ok_or(format!("{left:?}"))
    });
    books(&fleet, "the replay", ledger(4, 1));
    kept(1);
    let found: Vec<i64> = Connection::open(fleet.dir().join("copy.db"))
        .and_then(|db| {
            let mut statement = db.prepare(&format!("SELECT n FROM {COPY} ORDER BY n"))?;
            let rows = statement.query_map([], |row| row.get(0))?;
            rows.collect()
        })
        .expect("the copy");
    assert_eq!(found, [0, 0, 1, 2]);
    let (code, said) = cli(&fleet, &["dlq", "purge", "--all", "--workflow", "parts", "--yes"]);
    assert!(code == Some(0) && said.contains("1 letter purged"), "{said}");
    let (_, said) = cli(&fleet, &["dlq", "list", "parts"]);
    assert!(said.contains("no dead letters") && said.contains("1 purged"), "{said}");
    books(&fleet, "the purge", ledger(4, 1));
    kept(0);
    alert(false);
}
