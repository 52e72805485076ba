//! What operators see, as metrics: told family by family to whoever writes them down. Here in the text format that Prometheus
//! scrapes (<https://prometheus.io/docs/instrumenting/exposition_formats/>, version 0.0.4); `otlp` has another.

use std::fmt::Write as _;

use bus_schema::{
    api::{ApiCall, ApiResult, DaemonView, NodeView, NoteView, Presence, StreamView, WorkflowView},
    message::RunState,
};

use crate::{domain::readings::is_there, permission::Caller, service::Handle};

/// The content type of [`text`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Writes metrics down, in one format or another.
pub trait Page {
    /// From here on samples are of this metric. `kind`: `gauge` or `counter`.
    fn metric(&mut self, name: &'static str, kind: &'static str, help: &'static str);
    /// One value.
    fn sample(&mut self, labels: &[(&str, &str)], value: f64);
}

/// The text for Prometheus.
#[derive(Debug, Default)]
struct Text {
    out: String,
    name: &'static str,
}

impl Page for Text {
    fn metric(&mut self, name: &'static str, kind: &'static str, help: &'static str) {
        let _ = write!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        self.name = name;
    }

    fn sample(&mut self, labels: &[(&str, &str)], value: f64) {
        let labels: Vec<String> = labels
            .iter()
            .map(|(key, value)| format!("{key}=\"{}\"", escaped(value)))
            .collect();
        let _ = writeln!(self.out, "{}{{{}}} {value}", self.name, labels.join(","));
    }
}

struct Metric<'a> {
    out: &'a mut dyn Page,
}

impl<'a> Metric<'a> {
    fn new(out: &'a mut dyn Page, name: &'static str, kind: &'static str, help: &'static str) -> Self {
        out.metric(name, kind, help);
        Self { out }
    }

    fn sample(&mut self, labels: &[(&str, &str)], value: f64) {
        self.out.sample(labels, value);
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// What metrics are made of.
#[derive(Debug)]
pub struct Standing {
    /// All daemons.
    pub daemons: Vec<DaemonView>,
    /// All workflows.
    pub workflows: Vec<WorkflowView>,
    /// All accounts.
    pub streams: Vec<StreamView>,
    /// What all nodes do.
    pub nodes: Vec<NodeView>,
    /// What daemons note.
    pub notes: Vec<NoteView>,
}

impl Standing {
    /// Asks the plane how things are, in the name of a part of it.
    pub async fn ask(service: &Handle, name: &str) -> Result<Self, &'static str> {
        let caller = Caller::within(name);
        let ask = async |call| service.call(&caller, call).await;
        let answers = (
            ask(ApiCall::DaemonList).await,
            ask(ApiCall::WorkflowList).await,
            ask(ApiCall::Ledger).await,
            ask(ApiCall::Nodes(None)).await,
            ask(ApiCall::Notes(None)).await,
        );
        match answers {
            (
                ApiResult::Daemons(daemons),
                ApiResult::Workflows(workflows),
                ApiResult::Ledger(streams),
                ApiResult::Nodes(nodes),
                ApiResult::Notes(notes),
            ) => Ok(Self {
                daemons,
                workflows,
                streams,
                nodes,
                notes,
            }),
            _ => Err("the plane could not say how things are"),
        }
    }
}

/// All metrics, as Prometheus reads them.
pub fn text(standing: &Standing) -> String {
    let mut page = Text::default();
    tell(&mut page, standing);
    page.out
}

/// All metrics.
pub fn tell(out: &mut dyn Page, standing: &Standing) {
    let Standing {
        daemons,
        workflows,
        streams,
        nodes,
        notes,
    } = standing;
    of_daemons(out, daemons);
    let mut state = Metric::new(
        out,
        "mycelial_workflow_state",
        "gauge",
        "The worst state of a workflow's parts: 1 for the one it is in.",
    );
    for workflow in workflows {
        let word = match workflow.state {
            None => "unknown",
            Some(RunState::Starting) => "starting",
            Some(RunState::Running) => "running",
            Some(RunState::Retrying) => "retrying",
            Some(RunState::Failed) => "failed",
            Some(RunState::Finished) => "finished",
            Some(RunState::Stopping) => "stopping",
            Some(RunState::Paused) => "paused",
        };
        state.sample(&[("workflow", &workflow.name), ("state", word)], 1.0);
    }
    let mut revision = Metric::new(
        out,
        "mycelial_workflow_revision",
        "gauge",
        "The revision that daemons shall run.",
    );
    for workflow in workflows {
        revision.sample(&[("workflow", &workflow.name)], f64::from(workflow.revision));
    }
    let mut letters = Metric::new(
        out,
        "mycelial_workflow_letters_kept",
        "gauge",
        "Dead letters that a workflow's daemons keep: waiting for somebody, or to be tried again.",
    );
    for workflow in workflows {
        if let Some(kept) = workflow.letters_kept.get() {
            letters.sample(&[("workflow", &workflow.name)], *kept as f64);
        }
    }
    let mut drift = Metric::new(
        out,
        "mycelial_workflow_drift_batches_total",
        "counter",
        "Batches whose columns were not as agreed, where there was one within the last day.",
    );
    for note in notes {
        if let Some(met) = &note.drift {
            drift.sample(
                &[("workflow", &note.workflow), ("daemon", &note.daemon)],
                met.batches as f64,
            );
        }
    }
    of_streams(out, streams);
    of_nodes(out, nodes);
}

type Number<T, N = f64> = (&'static str, &'static str, &'static str, fn(&T) -> N);

fn of_daemons(out: &mut dyn Page, daemons: &[DaemonView]) {
    let is = |yes: bool| f64::from(u8::from(yes));
    let mut up = Metric::new(out, "mycelial_daemon_up", "gauge", "Whether a daemon's lease holds.");
    for daemon in daemons {
        up.sample(&[("daemon", &daemon.name)], is(daemon.presence == Presence::Online));
    }
    // What it said last is not how it is, once it is away. What the plane knows itself goes on.
    let numbers: [Number<DaemonView>; 8] = [
        ("mycelial_daemon_memory_bytes", "gauge", "Resident memory.", |daemon| {
            daemon.resources.rss_bytes as f64
        }),
        (
            "mycelial_daemon_memory_peak_bytes",
            "gauge",
            "Most resident memory since start.",
            |daemon| daemon.resources.rss_peak_bytes as f64,
        ),
        (
            "mycelial_daemon_cpu_seconds_total",
            "counter",
            "Processor time since start.",
            |daemon| daemon.resources.cpu_ms as f64 / 1e3,
        ),
        (
            "mycelial_daemon_buffer_bytes",
            "gauge",
            "Bytes in its buffers on disk.",
            |daemon| daemon.resources.spool_bytes as f64,
        ),
        (
            "mycelial_daemon_disk_free_bytes",
            "gauge",
            "Bytes free where its data is.",
            |daemon| daemon.resources.disk_free_bytes as f64,
        ),
        (
            "mycelial_daemon_workflows_troubled",
            "gauge",
            "Workflows on it that do not run well.",
            |daemon| f64::from(daemon.troubled),
        ),
        (
            "mycelial_daemon_damaged",
            "gauge",
            "Damaged things it has set aside.",
            |daemon| f64::from(daemon.damaged),
        ),
        ("mycelial_daemon_plan_version", "gauge", "The plan it runs.", |daemon| {
            daemon.plan_version as f64
        }),
    ];
    for (name, kind, help, number) in numbers {
        let mut metric = Metric::new(out, name, kind, help);
        for daemon in daemons.iter().filter(|daemon| is_there(daemon)) {
            metric.sample(&[("daemon", &daemon.name)], number(daemon));
        }
    }
    let mut wanted = Metric::new(out, "mycelial_daemon_plan_wanted", "gauge", "The plan it shall run.");
    for daemon in daemons {
        wanted.sample(&[("daemon", &daemon.name)], daemon.plan_wanted as f64);
    }
    let mut seen = Metric::new(
        out,
        "mycelial_daemon_last_seen_seconds",
        "gauge",
        "Since it was last heard; none when never since the plane started.",
    );
    for daemon in daemons {
        if let Some(ms) = daemon.last_seen_ms {
            seen.sample(&[("daemon", &daemon.name)], ms as f64 / 1e3);
        }
    }
}

fn of_streams(out: &mut dyn Page, streams: &[StreamView]) {
    let mut records = Metric::new(
        out,
        "mycelial_stream_records",
        "gauge",
        "Records of a stream's epoch: produced = delivered + buffered + dropped + dead.",
    );
    for stream in streams {
        let ledger = &stream.ledger;
        for (what, count) in [
            ("produced", ledger.produced),
            ("delivered", ledger.delivered),
            ("buffered", ledger.buffered),
            ("dropped", ledger.dropped),
            ("dead", ledger.dead),
            ("duplicates", ledger.duplicates),
        ] {
            records.sample(&[&ends(stream)[..], &[("what", what)]].concat(), count as f64);
        }
    }
    let numbers: [Number<StreamView>; 4] = [
        (
            "mycelial_stream_buffer_bytes",
            "gauge",
            "Bytes waiting in a stream's buffer.",
            |stream| stream.buffered_bytes as f64,
        ),
        (
            "mycelial_stream_records_per_second",
            "gauge",
            "Records a second over the last reports.",
            |stream| f64::from(stream.rate),
        ),
        (
            "mycelial_stream_balances",
            "gauge",
            "Whether its books balance.",
            |stream| f64::from(u8::from(stream.balances)),
        ),
        (
            "mycelial_stream_troubled",
            "gauge",
            "Whether something keeps it from flowing.",
            |stream| f64::from(u8::from(!stream.trouble.is_empty())),
        ),
    ];
    for (name, kind, help, number) in numbers {
        let mut metric = Metric::new(out, name, kind, help);
        streams
            .iter()
            .for_each(|stream| metric.sample(&ends(stream), number(stream)));
    }
    // Of these nothing is said where nothing is known.
    let numbers: [Number<StreamView, Option<f64>>; 4] = [
        (
            "mycelial_stream_lag_seconds",
            "gauge",
            "How long ago the oldest record that waits was taken; 0 when none waits.",
            |stream| Some(stream.lag_ms.get()?.unwrap_or(0) as f64 / 1e3),
        ),
        (
            "mycelial_stream_bytes_total",
            "counter",
            "Bytes that went this way since the producing daemon opened the stream.",
            |stream| Some(*stream.bytes.get()? as f64),
        ),
        (
            "mycelial_stream_bytes_per_second",
            "gauge",
            "Bytes a second over the last reports.",
            |stream| Some(*stream.bytes_per_s.get()? as f64),
        ),
        (
            "mycelial_stream_latency_seconds",
            "gauge",
            "Lately, on average, from where records went in until they were known to be durable at the destination.",
            |stream| Some((*stream.latency_ms.get()?)? as f64 / 1e3),
        ),
    ];
    for (name, kind, help, number) in numbers {
        let mut metric = Metric::new(out, name, kind, help);
        for stream in streams {
            if let Some(number) = number(stream) {
                metric.sample(&ends(stream), number);
            }
        }
    }
}

fn of_nodes(out: &mut dyn Page, nodes: &[NodeView]) {
    let numbers: [Number<NodeView>; 6] = [
        (
            "mycelial_node_records_total",
            "counter",
            "Records that left a node, or arrived at a destination.",
            |node| node.records as f64,
        ),
        (
            "mycelial_node_bytes_total",
            "counter",
            "About how many bytes they take.",
            |node| node.bytes as f64,
        ),
        (
            "mycelial_node_errors_total",
            "counter",
            "Records that a node could not take, which became dead letters.",
            |node| node.errors as f64,
        ),
        (
            "mycelial_node_faults_total",
            "counter",
            "How often a node failed and was tried again.",
            |node| node.faults as f64,
        ),
        (
            "mycelial_node_batches_total",
            "counter",
            "Batches that records came in.",
            |node| node.batches as f64,
        ),
        (
            "mycelial_node_busy_seconds_total",
            "counter",
            "How long a node was at work on them, waiting for its system included.",
            |node| node.busy_us as f64 / 1e6,
        ),
    ];
    for (name, kind, help, number) in numbers {
        let mut metric = Metric::new(out, name, kind, help);
        for node in nodes {
            let labels = [
                ("workflow", &*node.workflow),
                ("node", &*node.node),
                ("daemon", &*node.daemon),
            ];
            metric.sample(&labels, number(node));
        }
    }
}

fn ends(stream: &StreamView) -> [(&'static str, &str); 4] {
    [
        ("workflow", &stream.workflow),
        ("edge", &stream.edge),
        ("producer", &stream.producer),
        ("consumer", &stream.consumer),
    ]
}

#[cfg(test)]
mod tests {
    use bus_schema::message::Ledger;

    use super::*;
    use crate::domain::testing::node;

    #[test]
    fn samples_and_their_labels() {
        let daemon = |name: &str, presence| DaemonView {
            name: name.into(),
            node: node(1),
            presence,
            last_seen_ms: Some(1_500),
            version: "0.1.0".into(),
            plan_version: 3,
            plan_wanted: 4,
            troubled: 1,
            damaged: 0,
            resources: Default::default(),
        };
        let workflow = WorkflowView {
            name: "orders".into(),
            revision: 7,
            by: "ada".into(),
            at_unix_ms: 0,
            daemons: Vec::new(),
            state: Some(RunState::Paused),
            letters_kept: 3.into(),
        };
        let stream = StreamView {
            workflow: "or\"ders\\".into(),
            edge: "a->b".into(),
            producer: "gw".into(),
            consumer: "hub".into(),
            epoch: 1,
            ledger: Ledger {
                produced: 5,
                delivered: 5,
                ..Ledger::default()
            },
            balances: true,
            buffered_bytes: 0,
            rate: 2,
            lag_ms: Some(2_500).into(),
            bytes: 4_096.into(),
            bytes_per_s: 7.into(),
            latency_ms: Some(40).into(),
            dropped_lately: false.into(),
            has_letters: false.into(),
            trouble: String::new(),
        };
        let untold = StreamView {
            edge: "b->c".into(),
            lag_ms: None.into(),
            bytes: Default::default(),
            bytes_per_s: Default::default(),
            latency_ms: None.into(),
            ..stream.clone()
        };
        let node = NodeView {
            workflow: "orders".into(),
            node: "clean".into(),
            daemon: "gw".into(),
            records: 10,
            bytes: 900,
            errors: 2,
            faults: 1,
            batches: 5,
            busy_us: 1_500_000,
            rate: 3,
            bytes_per_s: 270,
        };
        let text = text(&Standing {
            daemons: vec![
                daemon("gw", Presence::Online),
                daemon("late", Presence::Late),
                daemon("away", Presence::Offline),
            ],
            workflows: vec![workflow],
            streams: vec![stream, untold],
            nodes: vec![node],
            notes: vec![NoteView {
                workflow: "orders".into(),
                daemon: "gw".into(),
                letters_kept: None,
                drift: Some(bus_schema::api::DriftView {
                    what: "column 'speed' is new".into(),
                    batches: 12,
                    ago_ms: 5,
                }),
            }],
        });
        for line in [
            "# TYPE mycelial_daemon_up gauge",
            "mycelial_daemon_up{daemon=\"gw\"} 1",
            "mycelial_daemon_last_seen_seconds{daemon=\"gw\"} 1.5",
            "mycelial_daemon_plan_wanted{daemon=\"gw\"} 4",
            "mycelial_workflow_state{workflow=\"orders\",state=\"paused\"} 1",
            "mycelial_workflow_letters_kept{workflow=\"orders\"} 3",
            "mycelial_workflow_drift_batches_total{workflow=\"orders\",daemon=\"gw\"} 12",
            "mycelial_stream_records{workflow=\"or\\\"ders\\\\\",edge=\"a->b\",producer=\"gw\",consumer=\"hub\",what=\"produced\"} 5",
            "mycelial_stream_lag_seconds{workflow=\"or\\\"ders\\\\\",edge=\"a->b\",producer=\"gw\",consumer=\"hub\"} 2.5",
            "mycelial_stream_lag_seconds{workflow=\"or\\\"ders\\\\\",edge=\"b->c\",producer=\"gw\",consumer=\"hub\"} 0",
            "mycelial_stream_bytes_total{workflow=\"or\\\"ders\\\\\",edge=\"a->b\",producer=\"gw\",consumer=\"hub\"} 4096",
            "mycelial_stream_latency_seconds{workflow=\"or\\\"ders\\\\\",edge=\"a->b\",producer=\"gw\",consumer=\"hub\"} 0.04",
            "mycelial_node_records_total{workflow=\"orders\",node=\"clean\",daemon=\"gw\"} 10",
            "mycelial_node_bytes_total{workflow=\"orders\",node=\"clean\",daemon=\"gw\"} 900",
            "mycelial_node_errors_total{workflow=\"orders\",node=\"clean\",daemon=\"gw\"} 2",
            "mycelial_node_faults_total{workflow=\"orders\",node=\"clean\",daemon=\"gw\"} 1",
            "mycelial_node_busy_seconds_total{workflow=\"orders\",node=\"clean\",daemon=\"gw\"} 1.5",
            "mycelial_stream_balances{workflow=\"or\\\"ders\\\\\",edge=\"a->b\",producer=\"gw\",consumer=\"hub\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in:\n{text}");
        }
        let of = |name: &str| {
            let label = format!("{{daemon=\"{name}\"}}");
            text.lines().filter(|line| line.contains(&label)).count()
        };
        // Up, since when, and what it shall run; not what it once said of itself.
        assert_eq!((of("away"), of("late"), of("gw")), (3, 11, 11), "{text}");
        for gone in ["memory_bytes", "disk_free_bytes", "buffer_bytes", "workflows_troubled"] {
            assert!(
                !text.contains(&format!("mycelial_daemon_{gone}{{daemon=\"away\"}}")),
                "{gone}"
            );
        }
        let untold = text.lines().filter(|line| line.contains("b->c"));
        let untold = untold.filter(|line| line.contains("stream_bytes") || line.contains("latency"));
        assert_eq!(untold.count(), 0, "what nobody has said is not made up");
        let names: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        let mut once = names.clone();
        once.dedup();
        assert_eq!(names, once, "each metric once, its samples together");
    }
}
