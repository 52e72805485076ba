//! What crosses a line protected, where no other test of a connector has it: MQTT with certificates of both ends, and objects
//! over HTTPS. Passwords come from where configs can have them from.

use std::{fs, path::Path, time::Duration};

use flow::{TroubleKind, check};
use serde_json::{Value as Json, json};
use testkit::{Cmd, Mosquitto, S3, Tls, find_program, free_port, temp_dir, wait_until};

use crate::{
    bench::{Bench, Plan, Vault},
    counter::Counter,
    file_worlds::numbers_in,
    numbers::Numbers,
    world::{Row, World},
};

const SOON: Duration = Duration::from_secs(30);
const CLIENTS: &str = "mosquitto-clients";

/// A connector that is met without a world.
fn connector(component: &'static str) -> Row {
    Row {
        component,
        way: "",
        world: World::Source(|| panic!("it has none")),
        not: &[],
    }
}

/// A config with something else in a place of it.
fn with(config: &Json, key: &str, value: Json) -> Json {
    let mut config = config.clone();
    config[key] = value;
    config
}

#[test]
fn mqtt_with_certificates_of_both_ends() {
    let (tls, other, dir) = (Tls::new(), Tls::new(), temp_dir("protected"));
    let broker = Mosquitto::builder()
        .tls(&tls)
        .client_certs()
        .user("ann", "right")
        .start();
    let files = tls.client("gateway");
    fs::write(dir.path().join("password"), "right\n").unwrap();
    let base = json!({
        "url": broker.url(), "user": "ann", "password": {"file": "password"},
        "tls": {"ca_file": tls.ca(), "cert_file": files.cert, "key_file": files.key},
    });
    let source = with(&with(&base, "topics", json!(["in/#"])), "types", json!({"n": "i64"}));
    // Both have the same name here, by which the broker would take them for one.
    let sink = with(&with(&base, "topic", json!("in/a")), "client_id", json!("writer"));
    let row = connector("mqtt");

    // What one publishes, the other reads.
    let (mut reads, mut writes) = (Bench::new(), Bench::new());
    let (vault, plan) = (Vault::new("n", None), Plan::default());
    reads.start(row.source(&source, dir.path().into()), true, vault.door());
    wait_until("the source to be there", SOON, || {
        // It is there when a session with its subscription is.
        let checked = reads.wait_for(check::check_source(&mut *row.source(&source, dir.path().into())));
        checked.ok()
    });
    // Somebody else, who is not ours, sees them on the same line.
    let client = Cmd::new(find_program("mosquitto_sub", CLIENTS)).args(["-h", "localhost", "-p"]);
    let client = client
        .arg(broker.port().to_string())
        .args(["-u", "ann", "-P", "right", "--cafile"])
        .arg(tls.ca())
        .arg("--cert")
        .arg(&files.cert)
        .arg("--key")
        .arg(&files.key)
        .args(["-t", "in/a", "-C", "5"]);
    let sees = std::thread::spawn(move || client.run(SOON).ok());
    writes.start(
        Box::new(Counter::new(plan.clone())),
        true,
        row.sink(&sink, dir.path().into()),
    );
    wait_until("records to cross", SOON, || {
        // Those that came before the subscription are lost.
        plan.more(10);
        std::thread::sleep(Duration::from_millis(100));
        (vault.rows() >= 20).then_some(())
    });
    wait_until("somebody else to have seen some", SOON, || {
        plan.more(1);
        sees.is_finished().then_some(())
    });
    let seen = sees.join().unwrap();
    assert_eq!(numbers_in(&seen).len(), 5, "{seen}");
    writes.stop();
    reads.stop();
    // Whoever is wrong about the line is told so, and what a password is stays unsaid.
    for (wrong, kind) in [
        (
            with(
                &source,
                "tls",
                json!({"ca_file": other.ca(), "cert_file": files.cert, "key_file": files.key}),
            ),
            TroubleKind::Tls,
        ),
        (
            with(&source, "tls", json!({"ca_file": "/no/such/file"})),
            TroubleKind::Tls,
        ),
        (with(&source, "password", json!("a wrong secret")), TroubleKind::Login),
        (with(&source, "password", json!({"file": "none"})), TroubleKind::Secret),
        (
            with(&source, "url", json!(format!("mqtts://localhost:{}", free_port()))),
            TroubleKind::Unreachable,
        ),
    ] {
        let mut built = row.source(&wrong, dir.path().into());
        let trouble = reads.wait_for(check::check_source(&mut *built)).unwrap_err();
        assert_eq!(trouble.kind, kind, "{wrong}: {trouble:?}");
        let said = format!("{trouble:?}");
        assert!(!said.contains("right") && !said.contains("a wrong secret"), "{said}");
    }
    let mut unshown = row.source(&with(&source, "tls", json!({"ca_file": tls.ca()})), dir.path().into());
    let refused = reads.wait_for(check::check_source(&mut *unshown));
    assert!(refused.is_err(), "the broker wants a certificate: {refused:?}");
}

#[test]
fn objects_over_https() {
    let (tls, other, dir) = (Tls::new(), Tls::new(), temp_dir("protected"));
    let store = S3::start_with_tls(&tls);
    fs::write(dir.path().join("secret"), "a secret/with+signs").unwrap();
    let config = json!({
        "bucket": "plant", "region": "eu-central-1", "endpoint": store.url(), "access_key": "tester",
        "secret_key": {"file": "secret"}, "format": "json_lines", "max_age_s": 1, "tls": {"ca_file": tls.ca()},
    });
    let row = connector("s3");
    let (mut bench, plan) = (Bench::new(), Plan::default());
    bench.start(
        Box::new(Counter::new(plan.clone())),
        true,
        row.sink(&config, dir.path().into()),
    );
    plan.more(500);
    bench.until("the objects", |_| {
        let objects = store.objects();
        let numbers = objects
            .values()
            .flat_map(|bytes| numbers_in(&String::from_utf8_lossy(bytes)));
        Numbers::of(numbers).is_all(500)
    });
    bench.stop();
    let wrong = with(&config, "tls", json!({"ca_file": other.ca()}));
    let mut built = row.sink(&wrong, Path::new(dir.path()).into());
    let trouble = bench.wait_for(check::check_sink(&mut *built)).unwrap_err();
    assert_eq!(trouble.kind, TroubleKind::Tls, "{trouble:?}");
}
