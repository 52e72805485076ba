//! The table, walked over a bus: a member of each role says everything that a daemon takes, and the daemon answers only to those who
//! may. With the real programs; the members' keys are those that their own programs would use.

use std::{collections::BTreeSet, path::Path, sync::Arc, time::Duration};

use bus_link::{
    home::Home,
    place::{BusSection, Known},
    secure::Secure,
    session::{SendError, Session, SessionEvent},
};
use bus_schema::{
    api::FailureKind,
    audit::AuditCall,
    control::{ControlCall, ControlResult},
    id::{NodeId, WorkflowId},
    letter::{LetterCall, LetterResult, LetterSelect},
    member::Role,
    message::{Message, Ping, Pong, TapOpen, TapSample},
    secret::{SecretCall, SecretResult},
    trial::{TrialCall, TrialResult},
};
use serde::{Deserialize, Serialize};
use testkit::{Broker, Fleet, Mosquitto, wait_ok};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

use super::{Asked, TAKEN};

const SOON: Duration = Duration::from_secs(30);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(10);
/// A workflow that nobody runs.
const NONE: &str = "none";
/// What the log says of what was not heard.
const IGNORED: &str = "ignored a message that is not its sender's to send";

/// One of each: a command that is new does not compile until it stands here.
macro_rules! each {
    ($($pattern:pat => $call:expr,)*) => {{
        fn known(call: &ControlCall) {
            match call { $($pattern => {})* }
        }
        let all = vec![$($call,)*];
        all.iter().for_each(known);
        all
    }};
}

fn commands() -> Vec<ControlCall> {
    let workflow = || NONE.to_string();
    each! {
        ControlCall::Restart { .. } => ControlCall::Restart { workflow: workflow() },
        ControlCall::Pause { .. } => ControlCall::Pause { workflow: workflow() },
        ControlCall::Resume { .. } => ControlCall::Resume { workflow: workflow() },
        ControlCall::Drain { .. } => ControlCall::Drain { workflow: workflow() },
        ControlCall::LogLevel { .. } => ControlCall::LogLevel { level: "info".into(), for_ms: 1 },
        ControlCall::Logs { .. } => ControlCall::Logs { after: 0, lines_max: 1, workflow: workflow() },
        ControlCall::Diagnose => ControlCall::Diagnose,
        ControlCall::Audit(_) => ControlCall::Audit(AuditCall::Chain { after: 0 }),
        ControlCall::SpoolCheck => ControlCall::SpoolCheck,
        // The last: from then on it has other keys in mind.
        ControlCall::Rotate { .. } => ControlCall::Rotate { wish: 7 },
    }
}

/// A message of some kind that says nothing: whoever handles it does not understand it, and does nothing.
#[derive(Serialize, Deserialize)]
struct Empty<const KIND: u16>;

impl<const KIND: u16> Message for Empty<KIND> {
    const KIND: u16 = KIND;
    const VER: u8 = 1;
}

/// A member that says what it is told to.
struct Member {
    name: &'static str,
    role: Role,
    session: Arc<Session>,
    events: mpsc::Receiver<SessionEvent>,
    _home: Home,
}

impl Member {
    async fn connect(fleet: &Fleet, name: &'static str, dir: &str, role: Role) -> Self {
        let mut home = Home::open(Path::new(&fleet.path(dir))).unwrap();
        let membership = home.membership().unwrap().unwrap();
        let epoch = home.next_epoch().unwrap();
        let secure = Secure::new(home.identity().unwrap(), &membership, epoch, home.seen()).unwrap();
        assert_eq!(secure.me().role, role);
        home.share();
        let section = BusSection {
            addresses: vec![fleet.broker.url()],
            ..BusSection::default()
        };
        let place = section
            .resolve(&Known::from(&membership), &format!("walk-{name}"))
            .unwrap();
        let own = Session::own_control(&secure);
        let (session, mut events) = Session::start(Arc::new(secure), place, vec![own]);
        while !matches!(
            timeout(SOON, events.recv()).await.unwrap().unwrap(),
            SessionEvent::Up { .. }
        ) {}
        Self {
            name,
            role,
            session,
            events,
            _home: home,
        }
    }

    /// Says a kind of message that nobody answers.
    async fn says(&self, to: &NodeId, kind: u16) {
        macro_rules! says {
            ($($number:literal)*) => {
                match kind {
                    $($number => self.session.send(to, &Empty::<$number>).await,)*
                    other => panic!("add {other} to the numbers of this test"),
                }
            };
        }
        let said: Result<(), SendError> = says!(5 6 7 9 17 23 30 41 43);
        said.unwrap();
    }

    async fn asks<Q: Message, A: Message>(&self, to: &NodeId, call: &Q) -> A {
        self.session.request(to, call, ANSWER).await.unwrap()
    }

    /// Whether a tap is refused because of who wants it.
    async fn may_not_tap(&mut self, to: &NodeId) -> bool {
        let open = TapOpen {
            workflow: WorkflowId::of_name(NONE),
            node: NONE.into(),
            rate_max: 1,
            lease_ms: 1_000,
        };
        self.session.send(to, &open).await.unwrap();
        loop {
            match timeout(ANSWER, self.events.recv()).await.unwrap().unwrap() {
                SessionEvent::Message(message) if message.is::<TapSample>() => {
                    let refused = message.read::<TapSample>().unwrap().refused;
                    assert!(!refused.is_empty(), "nobody runs '{NONE}'");
                    return refused.contains("only operators");
                }
                _ => {}
            }
        }
    }
}

/// What the log says was not heard, by sender and kind.
async fn ignored(operator: &Member, to: &NodeId) -> BTreeSet<(String, u16)> {
    let call = ControlCall::Logs {
        after: 0,
        lines_max: u16::MAX,
        workflow: String::new(),
    };
    let ControlResult::Lines { lines, .. } = operator.asks(to, &call).await else {
        panic!("an operator may read the log")
    };
    let value = |text: &str, key: &str| {
        let rest = text.split(&format!(" {key}=")).nth(1)?;
        Some(rest.split(' ').next()?.trim_matches('"').to_string())
    };
    lines
        .iter()
        .filter(|line| line.text.starts_with(IGNORED))
        .map(|line| {
            let from = value(&line.text, "from").unwrap();
            (from, value(&line.text, "kind").unwrap().parse().unwrap())
        })
        .collect()
}

fn is_forbidden(kind: FailureKind) -> bool {
    kind == FailureKind::Forbidden
}

/// Whether each command is refused to whom it is not for, and to nobody else.
async fn answers_only_those_who_may(member: &mut Member, gateway: &NodeId) {
    let role = member.role;
    for call in commands() {
        let answer = member.asks(gateway, &call).await;
        let refused = matches!(&answer, ControlResult::Failed(failure) if is_forbidden(failure.kind));
        assert_eq!(refused, !Asked::by(&call).is_for(role), "{role}: {call:?}: {answer:?}");
    }
    let call = LetterCall::List {
        select: LetterSelect::default(),
        after: None,
    };
    let answer = member.asks(gateway, &call).await;
    let refused = matches!(&answer, LetterResult::Failed(failure) if is_forbidden(failure.kind));
    assert_eq!(refused, !Asked::Letters.is_for(role), "{role}: {answer:?}");
    let answer = member.asks(gateway, &SecretCall::List).await;
    let refused = matches!(&answer, SecretResult::Failed(failure) if is_forbidden(failure.kind));
    assert_eq!(refused, !Asked::Secrets.is_for(role), "{role}: {answer:?}");
    let call = TrialCall::CheckPlanned { workflow: NONE.into() };
    let answer = member.asks(gateway, &call).await;
    let refused = matches!(&answer, TrialResult::Failed(failure) if is_forbidden(failure.kind));
    assert_eq!(refused, !Asked::Trial.is_for(role), "{role}: {answer:?}");
    assert_eq!(member.may_not_tap(gateway).await, !Asked::Tap.is_for(role), "{role}");
}

#[test]
fn a_daemon_answers_only_to_those_who_may() {
    let mut fleet = Fleet::start(Broker::Mosquitto(Mosquitto::start()), None);
    for name in ["gateway", "neighbour"] {
        fleet.enrol(name);
    }
    let _gateway = fleet.daemon("gateway", None);
    let mut neighbour = fleet.daemon("neighbour", None);
    // A daemon hears only daemons that it has to do with.
    let (lines, out) = (fleet.path("lines.jsonl"), fleet.path("out.jsonl"));
    std::fs::write(&lines, "").unwrap();
    let text = format!(
        "name = \"copy\"\n[sources.lines]\ntype = \"file\"\ndaemon = \"gateway\"\npath = \"{lines}\"\nformat = \"json_lines\"\n\
         [destinations.out]\ntype = \"file\"\ndaemon = \"neighbour\"\nfrom = \"lines\"\npath = \"{out}\"\nformat = \"json_lines\"\n"
    );
    fleet.apply("copy", &text);
    let pinged = wait_ok("the gateway to answer", SOON, || {
        fleet.cli(&["daemon", "ping", "gateway", "-o", "json"])
    });
    let pinged: serde_json::Value = serde_json::from_str(&pinged).unwrap();
    let gateway: NodeId = pinged["node"].as_str().unwrap().parse().unwrap();
    // From here on this test speaks for them.
    neighbour.kill9();
    fleet.plane_away();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut members = vec![
            Member::connect(&fleet, "neighbour", "neighbour", Role::Daemon).await,
            Member::connect(&fleet, "plane", "plane", Role::Plane).await,
            Member::connect(&fleet, "me", "operator", Role::Operator).await,
        ];
        let mut expected = BTreeSet::new();
        for member in &mut members {
            for row in TAKEN.iter().filter(|row| !row.tells) {
                member.says(&gateway, row.kind).await;
                if !row.from.contains(&member.role) {
                    expected.insert((member.session.secure().me().name.clone(), row.kind));
                }
            }
            // Everybody may, and by then all before it was heard or not.
            let pong: Pong = member.asks(&gateway, &Ping { nonce: 7 }).await;
            assert_eq!((pong.nonce, pong.role), (7, Role::Daemon), "{}", member.name);
        }
        let operator = &members[2];
        let until = Instant::now() + SOON;
        let mut found = ignored(operator, &gateway).await;
        while found != expected && Instant::now() < until {
            sleep(Duration::from_millis(200)).await;
            found = ignored(operator, &gateway).await;
        }
        assert_eq!(
            found, expected,
            "what is not its sender's to send is ignored, and nothing else"
        );
        for member in &mut members {
            answers_only_those_who_may(member, &gateway).await;
        }
    });
}
