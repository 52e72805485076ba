//! A whole plane on a memory bus and a free port, real members with real sessions, and a small browser.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bus_link::{
    BusConfig, Credentials, Tls,
    enrol::{EnrolError, enrol},
    home::Membership,
    secure::Secure,
    session::{Incoming, Session, SessionEvent},
};
use bus_schema::{
    api::{ApiCall, ApiResult},
    carried::{Carried, NodeCarried, StreamCarried},
    key::Identity,
    limits::LEASE_MS,
    member::{Invitation, Role},
    message::{CatalogAsk, CatalogPage, HostFacts, PlanPut, Resources, RosterPut, Status, StreamReport, StreamReports},
    plan::{ComponentRole, Descriptor, Plan},
};
use plane::{
    config::Config,
    init::{Wishes, init},
    invite::Wish,
    login::{login_command, token_command},
    run::Running,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::mpsc,
    time::{Instant, timeout, timeout_at},
};

/// How long anything may take on a busy machine.
pub const SOON: Duration = Duration::from_secs(20);
/// How long one try of a call may take.
const CALL: Duration = Duration::from_secs(3);

pub struct Plane {
    pub dir: TempDir,
    pub bus: String,
    pub http: String,
    pub greeting: String,
    running: Option<Running>,
}

impl Plane {
    /// Starts a new plane on a hub of its own.
    pub async fn start() -> Self {
        Self::start_with("").await
    }

    /// The same with more in its settings, before all sections.
    pub async fn start_with(settings: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let hub = format!("plane-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = tempfile::tempdir().unwrap();
        let bus = format!("memory://{hub}");
        init(
            dir.path(),
            &Wishes {
                bus: vec![bus.clone()],
                ..Wishes::default()
            },
        )
        .unwrap();
        let mut plane = Self {
            dir,
            bus,
            http: String::new(),
            greeting: String::new(),
            running: None,
        };
        plane.configure(settings);
        plane.start_again().await;
        plane
    }

    /// Writes something before all sections of the settings; holds from the next start on.
    pub fn configure(&self, settings: &str) {
        let path = self.dir.path().join("plane.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{settings}{text}")).unwrap();
    }

    pub async fn start_again(&mut self) {
        let config = Config::read(self.dir.path()).unwrap();
        let http = Some("127.0.0.1:0".parse().unwrap());
        let running = Running::start(self.dir.path(), &config, http).await.unwrap();
        (self.http, self.greeting) = (running.http.clone(), running.greeting.clone());
        self.running = Some(running);
    }

    pub async fn stop(&mut self) {
        self.running.take().unwrap().stop().await;
    }

    pub fn invitation(&self, role: Role, name: Option<&str>, uses: u32) -> Invitation {
        let wish = Wish {
            role,
            name: name.map(str::to_string),
            uses,
            ttl_s: 600,
            labels: Default::default(),
        };
        Invitation::decode(&token_command(self.dir.path(), wish).unwrap()).unwrap()
    }

    /// Enrols keys number `n` and connects them.
    pub async fn member(&self, role: Role, n: u8, name: &str) -> Member {
        let invitation = self.invitation(role, None, 1);
        let membership = self.enrol(&invitation, n, name).await.unwrap();
        Member::connect(&self.bus, n, membership, 1)
    }

    pub async fn enrol(&self, invitation: &Invitation, n: u8, name: &str) -> Result<Membership, EnrolError> {
        let config = bus_config(&self.bus, &format!("enrol-{n}"));
        let host = HostFacts {
            hostname: format!("host-{n}"),
            version: "0.0.1".into(),
            ..HostFacts::default()
        };
        enrol(invitation, config, &keys(n), name, host, SOON).await
    }

    /// A browser that has logged in with a fresh link.
    pub async fn browser(&self) -> Browser {
        let (link, running) = login_command(self.dir.path()).unwrap();
        assert!(running);
        let mut browser = Browser {
            http: self.http.clone(),
            cookie: None,
        };
        assert_eq!(browser.log_in(code_of(&link)).await.status, 204);
        browser
    }
}

pub fn code_of(link: &str) -> &str {
    link.trim().rsplit('/').next().unwrap()
}

pub fn keys(n: u8) -> Identity {
    Identity::from_bytes(&[n; Identity::BYTES])
}

pub fn bus_config(bus: &str, client: &str) -> BusConfig {
    BusConfig::new(vec![bus.parse().unwrap()], client, Credentials::None, Tls::default()).unwrap()
}

/// A member that speaks the protocol by hand.
pub struct Member {
    pub session: Arc<Session>,
    pub membership: Membership,
    pub events: mpsc::Receiver<SessionEvent>,
    /// What it would do as a daemon.
    pub status: Status,
    pub catalog: Vec<Descriptor>,
    pub plan: Option<Plan>,
}

impl Member {
    pub fn connect(bus: &str, n: u8, membership: Membership, epoch: u64) -> Self {
        let secure = Arc::new(Secure::new(keys(n), &membership, epoch, []).unwrap());
        let own = Session::own_control(&secure);
        let (session, events) = Session::start(secure, bus_config(bus, &format!("member-{n}")), vec![own]);
        let status = Status {
            version: "0.0.2".into(),
            boot: epoch,
            uptime_ms: 0,
            unix_ms: plane::clock::unix_ms(),
            lease_ms: LEASE_MS,
            plan_version: 0,
            plan_error: String::new(),
            roster_version: 0,
            catalog: [n; 32],
            workflows: Vec::new(),
            resources: Resources::default(),
            refused: 0,
            damaged: 0,
            began_unix_ms: None,
        };
        Self {
            session,
            membership,
            events,
            status,
            catalog: catalog(),
            plan: None,
        }
    }

    pub async fn up(&mut self) {
        while !matches!(self.event().await, SessionEvent::Up { .. }) {}
    }

    pub async fn event(&mut self) -> SessionEvent {
        timeout(SOON, self.events.recv())
            .await
            .expect("an event in time")
            .expect("the session is open")
    }

    /// An operator's call. Made again when nobody answers: a plane that is just starting does not hear the first one.
    pub async fn call(&self, call: ApiCall) -> ApiResult {
        let deadline = Instant::now() + SOON;
        loop {
            match self.session.request(&self.membership.plane, &call, CALL).await {
                Ok(result) => return result,
                Err(error) => assert!(Instant::now() < deadline, "{call:?}: {error}"),
            }
        }
    }

    /// A daemon's heartbeat.
    pub async fn beat(&mut self) {
        self.status.uptime_ms += 1;
        let (version, _) = self.session.secure().roster();
        self.status.roster_version = version;
        self.status.plan_version = self.plan.as_ref().map_or(0, |plan| plan.version);
        self.session.send(&self.membership.plane, &self.status).await.unwrap();
    }

    pub async fn report(&self, streams: Vec<StreamReport>) {
        let reports = StreamReports {
            boot: self.status.boot,
            streams,
        };
        self.session.send(&self.membership.plane, &reports).await.unwrap();
    }

    pub async fn carried(&self, nodes: Vec<NodeCarried>, streams: Vec<StreamCarried>) {
        let carried = Carried {
            boot: self.status.boot,
            nodes,
            streams,
        };
        self.session.send(&self.membership.plane, &carried).await.unwrap();
    }

    /// Behaves as a daemon does: beats, and takes rosters, plans and questions, until `enough`.
    pub async fn behave(&mut self, mut enough: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + SOON;
        let mut beat = tokio::time::interval(Duration::from_millis(200));
        while !enough(self) {
            assert!(
                Instant::now() < deadline,
                "it did not come to that in time: {:?}",
                self.status
            );
            tokio::select! {
                _ = beat.tick() => {
                    if self.session.bus().is_up() {
                        self.beat().await;
                    }
                }
                event = self.events.recv() => {
                    if let Some(SessionEvent::Message(message)) = event {
                        self.take(&message).await;
                    }
                }
            }
        }
    }

    async fn take(&mut self, message: &Incoming) {
        if let Ok(PlanPut { plan }) = message.read::<PlanPut>() {
            let plane = self.session.secure().plane().unwrap();
            let plan = plan.open(&plane.keys.sign).unwrap();
            if self.plan.as_ref().is_none_or(|before| plan.version > before.version) {
                self.plan = Some(plan);
            }
        } else if let Ok(RosterPut { roster, group }) = message.read::<RosterPut>() {
            self.session.secure().update(roster, group).unwrap();
        } else if let Ok(CatalogAsk { catalog }) = message.read::<CatalogAsk>() {
            let page = CatalogPage {
                catalog,
                components: self.catalog.clone(),
            };
            self.session.send(&self.membership.plane, &page).await.unwrap();
        }
    }

    /// Behaves until the plane knows what it can run.
    pub async fn announce(&mut self, operator: &Member) {
        let name = self.session.secure().me().name.clone();
        let deadline = Instant::now() + SOON;
        loop {
            let until = Instant::now() + Duration::from_millis(300);
            let _ = timeout_at(until, self.behave(|_| false)).await;
            if let ApiResult::Daemon(detail) = operator.call(ApiCall::DaemonShow(name.clone())).await
                && !detail.components.is_empty()
            {
                return;
            }
            assert!(Instant::now() < deadline, "{name} is not known in time");
        }
    }
}

/// Two components with a path, and a secret.
pub fn catalog() -> Vec<Descriptor> {
    let schema = r##"{"type":"object","properties":{"path":{"type":"string"},"token":{"$ref":"#/$defs/SecretRef"}},
        "additionalProperties":false,"$defs":{"SecretRef":{"anyOf":[{"type":"string"},{"type":"object"}]}}}"##;
    let one = |role, name: &str| Descriptor {
        role,
        name: name.into(),
        summary: format!("a {role}"),
        schema: schema.into(),
        example: String::new(),
        inputs_max: 0,
        durable: true,
    };
    vec![
        one(ComponentRole::Source, "ticks"),
        one(ComponentRole::Destination, "shelf"),
    ]
}

/// A workflow from one daemon to another.
pub fn text(name: &str, from: &str, to: &str, path: &str) -> String {
    format!(
        "name = \"{name}\"\n\n[sources.clock]\ntype = \"ticks\"\ndaemon = \"{from}\"\npath = \"{path}\"\n\n\
         [destinations.shop]\ntype = \"shelf\"\ndaemon = \"{to}\"\nfrom = \"clock\"\n"
    )
}

/// Asks over and over until the answer is the right one.
pub async fn wait_for<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + SOON;
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(Instant::now() < deadline, "no {what} in time");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Just enough HTTP.
#[derive(Debug, Clone)]
pub struct Browser {
    pub http: String,
    pub cookie: Option<String>,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl Browser {
    pub async fn log_in(&mut self, code: &str) -> Answer {
        let body = serde_json::json!({ "code": code }).to_string();
        let answer = self.send("POST", "/api/v1/session", &[], Some(&body)).await;
        if let Some(cookie) = answer.headers.get("set-cookie") {
            self.cookie = cookie.split(';').next().map(str::to_string);
        }
        answer
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], None).await
    }

    /// Whatever is there.
    pub async fn put(&self, path: &str, body: serde_json::Value) -> Answer {
        self.send("PUT", path, &[("if-match", "*")], Some(&body.to_string()))
            .await
    }

    pub async fn post(&self, path: &str, body: serde_json::Value) -> Answer {
        self.send("POST", path, &[], Some(&body.to_string())).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, &[], None).await
    }

    /// `extra` headers replace the usual ones of the same name; an empty value leaves one out.
    pub async fn send(&self, method: &str, path: &str, extra: &[(&str, &str)], body: Option<&str>) -> Answer {
        let mut stream = self.open(method, path, extra, body).await;
        let mut bytes = Vec::new();
        timeout(SOON, stream.read_to_end(&mut bytes)).await.unwrap().unwrap();
        parse(&String::from_utf8_lossy(&bytes))
    }

    pub async fn open(&self, method: &str, path: &str, extra: &[(&str, &str)], body: Option<&str>) -> TcpStream {
        let mut headers: BTreeMap<String, String> = [("host", self.http.as_str()), ("connection", "close")]
            .map(|(k, v)| (k.into(), v.into()))
            .into();
        if let Some(cookie) = &self.cookie {
            headers.insert("cookie".into(), cookie.clone());
        }
        if let Some(body) = body {
            headers.insert("content-type".into(), "application/json".into());
            headers.insert("content-length".into(), body.len().to_string());
        }
        for (name, value) in extra {
            headers.insert(name.to_string(), value.to_string());
        }
        let mut request = format!("{method} {path} HTTP/1.1\r\n");
        for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        request.push_str(body.unwrap_or_default());
        let mut stream = TcpStream::connect(&self.http).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }
}

fn parse(text: &str) -> Answer {
    let (head, body) = text
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("not an answer: {text:?}"));
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1))
        .unwrap()
        .parse()
        .unwrap();
    let pairs = lines.filter_map(|line| line.split_once(": "));
    let headers: BTreeMap<_, _> = pairs
        .map(|(name, value)| (name.to_lowercase(), value.to_string()))
        .collect();
    Answer {
        status,
        headers,
        body: body.to_string(),
    }
}
