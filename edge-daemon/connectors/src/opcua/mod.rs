//! Source `opcua`: the values of an OPC UA server's nodes, as they change or at an interval. A server keeps a little of what
//! changes while nobody listens, and nothing of what changed before.

mod certificate;
mod channel;
mod data;
mod endpoint;
mod message;
mod node;
mod protection;
mod security;
mod session;
mod status;
#[cfg(test)]
mod tests;
mod wire;

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use bus_schema::{
    data::{Batch, BatchBuilder, Cell, Field, Op, Origin, Schema, Type, Value, Zone},
    plan::{ComponentRole, Descriptor},
};
use flow::{
    Build, BuildContext, Component, ConfigError, Fault, Position, READ_WAIT_MAX, Read, Source, SourceBatch, Trouble,
    TroubleKind, describe, parse_config,
};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, timeout};

use self::{
    channel::{ChannelError, aside},
    data::Datum,
    message::Item,
    node::NodeId,
    protection::{Protection, Security},
    session::{Server, Session},
    status::Status,
};
use crate::{
    clock::now_ns,
    reach,
    secret::{Secret, SecretRef},
};

/// Where servers listen.
const PORT: u16 = 4840;
/// Times between two reports, or two looks, in milliseconds.
const INTERVALS_MS: std::ops::RangeInclusive<u64> = 10..=86_400_000;
/// Values of a node that wait at the server.
const QUEUES: std::ops::RangeInclusive<u32> = 1..=10_000;
/// Nodes of one source.
const NODES_MAX: usize = 10_000;
/// Nodes that could not be watched are tried again after this.
const MISSING_PAUSE: Duration = Duration::from_secs(30);
/// Nodes that a message names; of more it says how many.
const NAMED_MAX: usize = 8;

/// Reads nodes of an OPC UA server: their changes (`mode = "subscribe"`), or their values at an interval (`mode = "read"`).
///
/// A row for each value, with the columns `node` (its id), `name`, `value` (each row of its own type), `status` (the quality:
/// `Good`, `BadSensorFailure`, …), `source_time` (of the device), `server_time` and `received_at` (all UTC; null where the server
/// says none). Integers are i64, UInt64 is u64, Float f32, Double f64, DateTime a UTC timestamp, Guid a uuid, ByteString bytes;
/// names, node ids and status codes are text; lists, and structures as their bytes, are JSON. A node that does not exist is
/// named in the log and in a row without value; the others are read all the same, and it is tried again every 30 seconds.
///
/// The server keeps up to `queue` changes of each node while the connection stands and nobody takes them; `(overflow)` behind a
/// status says that it had to forget older ones. When the connection breaks, what changed until it is back is lost: the
/// current values come first then. After a crash of the daemon, values that were not stored yet are lost.
///
/// Without `security` connections are not protected (security policy None), and a password crosses them in plain text: keep the
/// server on the machine's own network. With it, messages are signed and encrypted. That takes a certificate of this daemon's,
/// with its key, which the server is told to trust:
///
/// ```sh
/// openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -keyout opcua.key -out opcua.pem -subj "/CN=mycelial" \
///   -addext "subjectAltName=URI:urn:mycelial:daemon" -addext "extendedKeyUsage=clientAuth" \
///   -addext "keyUsage=digitalSignature,nonRepudiation,keyEncipherment,dataEncipherment,keyCertSign"
/// ```
///
/// and the server's own certificate, as a file or as its SHA-256. If neither is there, the connection is refused with the SHA-256
/// that was met: compare it at the server, and write it down. A server that shows another is not spoken with, nor one that
/// protects less than is wanted. Security policies are Aes256_Sha256_RsaPss, Basic256Sha256 and Aes128_Sha256_RsaOaep; a
/// password is encrypted on its own where the connection is not, if `security` is there.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Address of the server, such as `opc.tcp://10.0.0.5:4840/path`. Default port: 4840.
    url: String,
    /// User name. Without it, nobody in particular.
    user: Option<String>,
    /// The user's password.
    password: Option<SecretRef>,
    /// How the connection is protected. Without it, not at all.
    security: Option<Security>,
    /// Whether to listen for changes or to read at an interval.
    #[serde(default)]
    mode: Mode,
    /// What to read.
    nodes: Vec<NodeConfig>,
    /// How often the server reports changes, or how often to read, in milliseconds.
    #[serde(default = "default_interval_ms")]
    #[schemars(range(min = 10, max = 86_400_000))]
    interval_ms: u64,
    /// How often the server looks for changes itself, in milliseconds. Default: `interval_ms`.
    #[schemars(range(min = 0, max = 86_400_000))]
    sampling_ms: Option<u64>,
    /// How many changes of a node the server keeps between two reports, and while the pipe is full.
    #[serde(default = "default_queue")]
    #[schemars(range(min = 1, max = 10_000))]
    queue: u32,
}

fn default_interval_ms() -> u64 {
    1000
}

fn default_queue() -> u32 {
    100
}

/// How to read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Mode {
    /// Listen for changes.
    #[default]
    Subscribe,
    /// Read all values at the interval, changed or not.
    Read,
}

/// A node to read.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NodeConfig {
    /// Its id: `i=85`, `ns=2;s=Line1.Speed`, `ns=2;g=GUID` or `ns=2;b=HEX`.
    id: String,
    /// What to call it. Default: its id.
    name: Option<String>,
}

/// The registry line.
pub(crate) const SOURCE: Component = Component {
    descriptor,
    build: Build::Source(build),
};

const EXAMPLE: &str = r#"name = "line1"

[sources.plc]
type = "opcua"
url = "opc.tcp://10.0.0.5:4840"
interval_ms = 500
nodes = [
    { id = "ns=2;s=Line1.Speed", name = "speed" },
    { id = "ns=2;s=Line1.State", name = "state" },
]

[destinations.out]
type = "stdout"
from = "plc"
"#;

fn descriptor() -> Descriptor {
    let summary = "Reads nodes of an OPC UA server, as they change or at an interval";
    describe::<Config>(ComponentRole::Source, "opcua", summary, EXAMPLE)
}

fn build(config: &str, context: &BuildContext) -> Result<Box<dyn Source>, ConfigError> {
    let config: Config = parse_config(config)?;
    let server = server(&config.url).map_err(|message| ConfigError::at("url", message))?;
    for (key, ms) in [
        ("interval_ms", Some(config.interval_ms)),
        ("sampling_ms", config.sampling_ms),
    ] {
        let least = if key == "sampling_ms" { 0 } else { *INTERVALS_MS.start() };
        if ms.is_some_and(|ms| !(least..=*INTERVALS_MS.end()).contains(&ms)) {
            let message = format!("must be from {least} to {}", INTERVALS_MS.end());
            return Err(ConfigError::at(key, message));
        }
    }
    if config.mode == Mode::Read && config.sampling_ms.is_some() {
        return Err(ConfigError::at(
            "sampling_ms",
            "is of use only with mode = \"subscribe\"",
        ));
    }
    if !QUEUES.contains(&config.queue) {
        let message = format!("must be from {} to {}", QUEUES.start(), QUEUES.end());
        return Err(ConfigError::at("queue", message));
    }
    if config.user.is_none() && config.password.is_some() {
        return Err(ConfigError::at("user", "is missing: whose password is it?"));
    }
    if let Some(security) = &config.security {
        security.check()?;
    }
    if config.nodes.is_empty() || config.nodes.len() > NODES_MAX {
        return Err(ConfigError::at("nodes", format!("1 to {NODES_MAX} nodes")));
    }
    let mut nodes = Vec::with_capacity(config.nodes.len());
    for (index, node) in config.nodes.iter().enumerate() {
        let id = NodeId::parse(&node.id).map_err(|message| ConfigError::at(format!("nodes[{index}].id"), message))?;
        nodes.push(id);
    }
    let shown = nodes.iter().map(ToString::to_string).collect();
    let names = config
        .nodes
        .iter()
        .map(|node| node.name.clone().unwrap_or_else(|| node.id.clone()));
    Ok(Box::new(OpcUa {
        server,
        user: config.user,
        password: config.password,
        security: config.security,
        base_dir: context.base_dir.clone(),
        name: format!("mycelial {}/{}", context.workflow, context.node),
        interval: Duration::from_millis(config.interval_ms),
        sampling_ms: config.sampling_ms.unwrap_or(config.interval_ms) as f64,
        queue: config.queue,
        mode: config.mode,
        rows: Rows {
            shown,
            names: names.collect(),
            schema: Arc::new(schema()),
        },
        nodes,
        open: None,
    }))
}

/// Takes an address apart.
fn server(url: &str) -> Result<Server, String> {
    let wrong = || format!("'{url}' is none: write opc.tcp://HOST:PORT/PATH");
    let rest = url.strip_prefix("opc.tcp://").ok_or_else(wrong)?;
    let place = rest.split('/').next().unwrap_or_default();
    let (host, port) = match place.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| wrong())?),
        _ => (place, PORT),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() {
        return Err(wrong());
    }
    Ok(Server {
        url: url.to_string(),
        host: host.to_string(),
        port,
    })
}

fn schema() -> Schema {
    let utc = Type::Timestamp(Zone::Utc);
    let certain = |name: &str, ty| Field {
        nullable: false,
        ..Field::new(name, ty)
    };
    Schema {
        collection: "opcua".to_string(),
        fields: vec![
            certain("node", Type::Text),
            certain("name", Type::Text),
            Field::new("value", Type::Any),
            certain("status", Type::Text),
            Field::new("source_time", utc.clone()),
            Field::new("server_time", utc.clone()),
            certain("received_at", utc),
        ],
    }
}

/// What values become.
struct Rows {
    /// The nodes' ids, as text.
    shown: Vec<String>,
    names: Vec<String>,
    schema: Arc<Schema>,
}

impl Rows {
    /// A row for each value of a node, by the node's index.
    fn batch(&self, values: &[(usize, Datum)]) -> Result<Batch, Fault> {
        let now = Cell::TimestampUtc(now_ns());
        let time = |ns: Option<i128>| ns.map_or(Cell::Null, Cell::TimestampUtc);
        let mut builder = BatchBuilder::new(Arc::clone(&self.schema));
        for (index, datum) in values {
            // A server may tell of what it was not asked for.
            let (Some(node), Some(name)) = (self.shown.get(*index), self.names.get(*index)) else {
                continue;
            };
            let status = datum.status.to_string();
            let row = [
                Cell::Text(node),
                Cell::Text(name),
                datum.value.as_cell(),
                Cell::Text(&status),
                time(datum.source_ns),
                time(datum.server_ns),
                now,
            ];
            let pushed = builder.push(Op::Insert, &row);
            pushed.map_err(|error| Fault::stop(error.to_string()))?;
        }
        Ok(builder.finish(Origin::default()))
    }

    /// Some of the nodes, for a person.
    fn listed(&self, nodes: &[usize]) -> String {
        let named = nodes.iter().take(NAMED_MAX).filter_map(|node| self.shown.get(*node));
        let named = named.map(String::as_str).collect::<Vec<_>>().join(", ");
        match nodes.len().saturating_sub(NAMED_MAX) {
            0 => named,
            more => format!("{named} and {more} more"),
        }
    }
}

/// A session, and what it does.
struct Open {
    session: Session,
    grid: Interval,
    /// Nodes that cannot be watched, with the reason.
    missing: Vec<(usize, Status)>,
    try_again_at: Instant,
    /// Values that come before what the server tells next.
    first: Vec<(usize, Datum)>,
}

struct OpcUa {
    server: Server,
    user: Option<String>,
    password: Option<SecretRef>,
    security: Option<Security>,
    base_dir: PathBuf,
    name: String,
    interval: Duration,
    sampling_ms: f64,
    queue: u32,
    mode: Mode,
    nodes: Vec<NodeId>,
    rows: Rows,
    open: Option<Open>,
}

impl OpcUa {
    fn fault(&self, error: &ChannelError) -> Fault {
        let hint = error.remedy().map(|remedy| format!("\n  hint: {remedy}"));
        Fault::retry(format!("{}: {error}{}", self.server.url, hint.unwrap_or_default()))
    }

    /// What the connection is protected with; reading keys takes its time.
    async fn protection(&self) -> Result<Protection, ChannelError> {
        let Some(security) = self.security.clone() else {
            return Ok(Protection::none());
        };
        let base_dir = self.base_dir.clone();
        aside(move || Ok(security.load(&base_dir, SystemTime::now())?)).await
    }

    async fn enter(&self, password: Option<&Secret>) -> Result<Session, ChannelError> {
        let password = password.map_or("", Secret::expose);
        let user = self.user.as_deref().map(|user| (user, password));
        Session::open(&self.server, &self.protection().await?, user, &self.name).await
    }

    /// Watches these nodes; those that cannot be are told apart.
    async fn watch(&self, session: &mut Session, wanted: &[usize]) -> Result<Vec<(usize, Status)>, ChannelError> {
        let item = |index: &usize| Item {
            node: &self.nodes[*index],
            handle: *index as u32,
            sampling_ms: self.sampling_ms,
            queue: self.queue,
        };
        let items: Vec<Item<'_>> = wanted.iter().map(item).collect();
        let statuses = session.watch(&items).await?;
        let told = wanted.iter().copied().zip(statuses);
        Ok(told.filter(|(_, status)| status.is_bad()).collect())
    }

    /// Values for nodes that have none, and a word in the log, where it is news.
    fn tell_missing(&self, before: &[(usize, Status)], now: &[(usize, Status)]) -> Vec<(usize, Datum)> {
        let news: Vec<(usize, Status)> = now.iter().filter(|entry| !before.contains(entry)).copied().collect();
        if let Some((_, status)) = news.first() {
            let nodes: Vec<usize> = news.iter().map(|(node, _)| *node).collect();
            let nodes = self.rows.listed(&nodes);
            tracing::warn!(server = self.server.url, nodes, %status, "nodes that cannot be watched");
        }
        let without = |(node, status)| {
            let datum = Datum {
                value: Value::Null,
                status,
                source_ns: None,
                server_ns: None,
            };
            (node, datum)
        };
        news.into_iter().map(without).collect()
    }

    async fn listen(&self, open: &mut Open) -> Result<Vec<(usize, Datum)>, ChannelError> {
        if !open.first.is_empty() {
            return Ok(std::mem::take(&mut open.first));
        }
        if !open.missing.is_empty() && Instant::now() >= open.try_again_at {
            open.try_again_at = Instant::now() + MISSING_PAUSE;
            let wanted: Vec<usize> = open.missing.iter().map(|(node, _)| *node).collect();
            let missing = self.watch(&mut open.session, &wanted).await?;
            open.first = self.tell_missing(&open.missing, &missing);
            open.missing = missing;
        }
        let changes = open.session.changes(READ_WAIT_MAX).await?;
        Ok(changes
            .into_iter()
            .map(|(handle, datum)| (handle as usize, datum))
            .collect())
    }

    async fn look(&self, open: &mut Open) -> Result<Vec<(usize, Datum)>, ChannelError> {
        if timeout(READ_WAIT_MAX, open.grid.tick()).await.is_err() {
            open.session.keep_open().await?;
            return Ok(Vec::new());
        }
        let values = open.session.read(&self.nodes).await?;
        Ok(values.into_iter().enumerate().collect())
    }
}

#[async_trait]
impl Source for OpcUa {
    async fn open(&mut self, _: Option<&Position>) -> Result<(), Fault> {
        self.close().await;
        let password = self.password.as_ref().map(|password| password.fetch(&self.base_dir));
        let password = password.transpose().map_err(|error| Fault::retry(error.to_string()))?;
        let entered = self.enter(password.as_ref()).await;
        let mut session = entered.map_err(|error| self.fault(&error))?;
        let (mut missing, mut first) = (Vec::new(), Vec::new());
        if self.mode == Mode::Subscribe {
            let subscribed = session.subscribe(self.interval).await;
            subscribed.map_err(|error| self.fault(&error))?;
            let all: Vec<usize> = (0..self.nodes.len()).collect();
            let watched = self.watch(&mut session, &all).await;
            missing = watched.map_err(|error| self.fault(&error))?;
            first = self.tell_missing(&[], &missing);
        }
        let mut grid = interval(self.interval);
        grid.set_missed_tick_behavior(MissedTickBehavior::Skip);
        self.open = Some(Open {
            session,
            grid,
            missing,
            try_again_at: Instant::now() + MISSING_PAUSE,
            first,
        });
        Ok(())
    }

    async fn read(&mut self) -> Result<Read, Fault> {
        let Some(mut open) = self.open.take() else {
            return Err(Fault::retry("the session is closed"));
        };
        let values = match self.mode {
            Mode::Subscribe => self.listen(&mut open).await,
            Mode::Read => self.look(&mut open).await,
        };
        let values = values.map_err(|error| self.fault(&error))?;
        self.open = Some(open);
        if values.is_empty() {
            return Ok(Read::Idle);
        }
        Ok(Read::Batch(SourceBatch {
            batch: self.rows.batch(&values)?,
            position: Position::default(),
            undecodable: Vec::new(),
        }))
    }

    async fn check(&mut self) -> Result<String, Trouble> {
        reach::secrets(&self.password, &self.base_dir)?;
        reach::tcp(&self.server.host, self.server.port).await?;
        let password = self
            .password
            .as_ref()
            .map(|password| reach::secret(password, &self.base_dir));
        let password = password.transpose()?;
        let url = &self.server.url;
        let mut session = self.enter(password.as_ref()).await.map_err(|error| {
            let (cause, remedy) = (format!("{url}: {error}"), error.remedy());
            match (&error, remedy) {
                (ChannelError::Unprotected { .. } | ChannelError::Ended { .. }, Some(remedy))
                | (ChannelError::Refused { .. }, Some(remedy)) => Trouble::new(TroubleKind::Tls, cause, remedy),
                (ChannelError::Refused { .. }, None) => reach::refused(cause),
                _ => Trouble::new(TroubleKind::Setup, cause, "see the cause, and the server's log"),
            }
        })?;
        let read = session.read(&self.nodes).await;
        session.close().await;
        let read = read.map_err(|error| reach::as_trouble(&self.fault(&error)))?;
        let bad: Vec<usize> = read
            .iter()
            .enumerate()
            .filter(|(_, datum)| datum.status.is_bad())
            .map(|(node, _)| node)
            .collect();
        match bad.first() {
            None => Ok(format!("{url}: all {} nodes can be read", self.nodes.len())),
            Some(first) => Err(reach::missing(
                format!(
                    "{url}: {} cannot be read: {}",
                    self.rows.listed(&bad),
                    read[*first].status
                ),
                "correct the node's id, or let the user read it",
            )),
        }
    }

    async fn close(&mut self) {
        if let Some(open) = self.open.take() {
            open.session.close().await;
        }
    }
}
