//! Alerts reach people: over HTTP, by e-mail and on the bus, also when the other side was away; and history is there.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use std::{fs, time::Duration};

use serde_json::Value;
use testkit::{Broker, Cmd, Fleet, Script, Service, Smtp, Tls, temp_dir, wait_until};

const SOON: Duration = Duration::from_secs(60);
/// A step of the history, the rule's step, and the sender's pauses.
const LATER: Duration = Duration::from_secs(90);

/// Refuses the first message with 503, then takes all; prints headers and body of each.
const RECEIVER: &str = r#"
import http.server, json, sys
seen = 0
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        global seen
        seen += 1
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        print("got " + json.dumps({"headers": {k.lower(): v for k, v in self.headers.items()}, "body": body}), flush=True)
        self.send_response(503 if seen == 1 else 204)
        self.end_headers()
    def log_message(self, *_):
        pass
server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
print("listening", flush=True)
server.serve_forever()
"#;

fn got(receiver: &Service) -> Vec<Value> {
    let log = receiver.log();
    let lines = log.lines().filter_map(|line| line.strip_prefix("got "));
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn hmac(secret: &str, text: &str) -> String {
    let dir = temp_dir("hmac");
    let file = dir.path().join("text");
    fs::write(&file, text).unwrap();
    let said = Cmd::new("openssl")
        .args(["dgst", "-sha256", "-hmac", secret])
        .arg(&file)
        .run(SOON)
        .ok();
    said.split_whitespace().last().unwrap().to_string()
}

#[test]
fn a_daemon_that_goes_away_is_told_of_on_every_road() {
    let tls = Tls::new();
    let receiver = Script::start(RECEIVER, &[]);
    let smtp = Smtp::start(&tls);
    let mut fleet = Fleet::start(Broker::embedded(false), None);
    let plane = fleet.dir().join("plane");
    fs::write(plane.join("hook"), "a secret of both sides\n").unwrap();
    fs::write(plane.join("mail"), Smtp::PASSWORD).unwrap();
    let mut settings = fs::read_to_string(plane.join("plane.toml")).unwrap();
    settings.push_str(&format!(
        "\n[[alerts.webhook]]\nname = 'hook'\nurl = 'http://127.0.0.1:{}/alerts?x=1'\nsecret_file = 'hook'\n\
         [[alerts.email]]\nname = 'mail'\nserver = 'localhost:{}'\nuser = '{}'\npassword_file = 'mail'\n\
         from = 'plane@example.com'\nto = ['ops@example.com']\nca = '{}'\n\
         [[alerts.bus]]\nname = 'bus'\ntopic = 'alerts'\n",
        receiver.port(),
        smtp.port(),
        Smtp::USER,
        tls.ca().display(),
    ));
    fs::write(plane.join("plane.toml"), settings).unwrap();
    fleet.plane_away();
    fleet.plane_back();
    fleet.enrol("gateway");
    let mut daemon = fleet.daemon("gateway", None);
    wait_until("the daemon to be there", SOON, || {
        fleet.cli(&["daemon", "list"]).ok()?.contains("online").then_some(())
    });
    let rules = fleet.path("rules.toml");
    let rule = |name| {
        format!(
            "[[rule]]\nname = 'gone'\nwhen = 'offline'\nseverity = 'critical'\nselect = 'name:{name}'\nnotify = ['hook', 'mail', 'bus']\n"
        )
    };
    fs::write(&rules, rule("gateway")).unwrap();
    fleet.cli(&["alert", "apply", &rules]).unwrap();
    assert!(fleet.cli(&["alert", "rules"]).unwrap().contains("gone"));
    let listening = Cmd::bin("mycelial")
        .name("sub")
        .args([
            "--home",
            &fleet.path("operator"),
            "sub",
            "alerts",
            "--count",
            "1",
            "-o",
            "json",
        ])
        .spawn();

    assert!(daemon.term_and_wait(SOON).success());
    let alerts: Value = wait_until("the alert", LATER, || {
        let text = fleet.cli(&["alert", "list", "-o", "json"]).ok()?;
        let alerts: Value = serde_json::from_str(&text).ok()?;
        let gone = alerts.as_array()?.iter().find(|alert| alert["rule"] == "gone")?.clone();
        (gone["state"] == "firing").then_some(gone)
    });
    let id = alerts["id"].as_str().unwrap();
    assert!(fleet.cli(&["alert", "silence", "nonsense", "--reason", "x"]).is_err());
    let silenced = fleet
        .cli(&["alert", "silence", id, "--for", "1h", "--reason", "moving house"])
        .unwrap();
    assert!(silenced.contains("moving house"), "{silenced}");
    // It survives the plane's death, and nothing is told twice because of it.
    fleet.plane_away();
    fleet.plane_back();
    let told = wait_until("the webhook, again after it was refused", LATER, || {
        let got = got(&receiver);
        (got.len() >= 2).then_some(got)
    });
    let keys: Vec<&Value> = told.iter().map(|one| &one["headers"]["idempotency-key"]).collect();
    assert!(keys[0] == keys[1] && keys[0].is_string(), "{told:?}");
    let body = told[1]["body"].as_str().unwrap();
    let signature = told[1]["headers"]["mycelial-signature"].as_str().unwrap();
    let (at, mac) = signature.strip_prefix("t=").unwrap().split_once(",v1=").unwrap();
    assert_eq!(mac, hmac("a secret of both sides", &format!("{at}.{body}")));
    let body: Value = serde_json::from_str(body).unwrap();
    assert_eq!(
        (&body["id"], &body["severity"]),
        (&alerts["id"], &Value::from("critical"))
    );
    let mail = wait_until("the mail", LATER, || smtp.mails().first().cloned());
    assert_eq!(
        (&mail["tls"], &mail["login"]),
        (&Value::from(true), &Value::from(Smtp::USER)),
        "{mail}"
    );
    assert_eq!(mail["to"], serde_json::json!(["ops@example.com"]));
    wait_until("the word on the bus", LATER, || {
        listening.log().contains("gone").then_some(())
    });

    // What was told is told to be over, silenced or not.
    let _daemon = fleet.daemon("gateway", None);
    wait_until("the end to be told", LATER, || {
        got(&receiver)
            .iter()
            .any(|one| one["body"].as_str().unwrap().contains("resolved"))
            .then_some(())
    });

    // The past is there, and says when the rule would have fired.
    let series: Value =
        serde_json::from_str(&fleet.cli(&["metrics", "daemon", "gateway", "-o", "json"]).unwrap()).unwrap();
    let of = |metric: &str| {
        series
            .as_array()
            .unwrap()
            .iter()
            .find(|one| one["metric"] == metric)
            .unwrap()
            .clone()
    };
    assert!(of("memory")["points"][0]["mean"].as_f64().unwrap() > 1e6);
    assert!(
        of("online")["points"]
            .as_array()
            .unwrap()
            .iter()
            .any(|point| point["max"] == 0.0)
    );
    let preview = fleet
        .cli(&["alert", "apply", &rules, "--preview", "1h", "-o", "json"])
        .unwrap();
    assert!(preview.contains("daemon:gateway"), "{preview}");
    assert!(
        fleet
            .cli(&["alert", "test", "boss"])
            .unwrap_err()
            .contains("plane.toml names: bus, hook, mail")
    );
}
