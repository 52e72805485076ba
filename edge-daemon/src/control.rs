//! Does what operators command a daemon: which workflows are meant, what is paused, what a report says. The agent asks and
//! answers; the supervisor starts and stops.

use std::collections::BTreeSet;

use bus_link::home::{Home, HomeError};
use bus_schema::{
    api::{Failure, FailureKind},
    control::{ControlResult, Section},
    message::{Side, Status, StreamReport},
    plan::PlanWorkflow,
};

use crate::buffers::Finding;

/// The file in the member's directory.
const FILE: &str = "paused";
/// Most lines of the log in one answer.
pub const LOG_LINES_MAX: u16 = 500;
/// Longest time that another log level holds, in milliseconds: a day.
pub const LOG_LEVEL_MS_MAX: u64 = 86_400_000;

/// The workflows whose sources read nothing, by name. They stay so over restarts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Paused(BTreeSet<String>);

impl Paused {
    /// As it was before the restart. What cannot be read is as good as nothing paused, and said in the log.
    pub fn load(home: &Home) -> Self {
        let bytes = home.load_or_set_aside(FILE).unwrap_or_else(|error| {
            tracing::error!(%error, "which workflows are paused is lost: none is");
            None
        });
        Self(bytes.and_then(|bytes| bus_schema::decode(&bytes)).unwrap_or_default())
    }

    /// Makes it last.
    pub fn store(&self, home: &Home) -> Result<(), HomeError> {
        home.store(FILE, &bus_schema::encode(&self.0))
    }

    /// Whether this one is paused.
    pub fn has(&self, workflow: &str) -> bool {
        self.0.contains(workflow)
    }

    /// With these paused too.
    pub fn and(&self, workflows: &[String]) -> Self {
        Self(self.0.iter().chain(workflows).cloned().collect())
    }

    /// Without these.
    pub fn without(&self, workflows: &[String]) -> Self {
        Self(
            self.0
                .iter()
                .filter(|name| !workflows.contains(name))
                .cloned()
                .collect(),
        )
    }

    /// All of them.
    pub fn names(&self) -> Vec<String> {
        self.0.iter().cloned().collect()
    }
}

/// The planned workflows that a name means; an empty one means all.
pub fn meant(name: &str, planned: &[PlanWorkflow]) -> Result<Vec<String>, ControlResult> {
    let all = planned.iter().map(|workflow| workflow.name.clone());
    let found: Vec<String> = all.filter(|known| name.is_empty() || known == name).collect();
    if found.is_empty() && !name.is_empty() {
        let message = format!("this daemon has no workflow '{name}' in its plan");
        return Err(failed(FailureKind::NotFound, message, "mycelial workflow list"));
    }
    Ok(found)
}

/// Whether nothing waits any more in the buffers of these workflows. If something does, what it is.
pub fn drained(workflows: &[String], planned: &[PlanWorkflow], streams: &[StreamReport]) -> Result<(), String> {
    let meant = planned.iter().filter(|workflow| workflows.contains(&workflow.name));
    let steps = meant.flat_map(|workflow| &workflow.pipes).flat_map(|pipe| &pipe.steps);
    let specs = steps.flat_map(|step| step.action.streams());
    let (mut records, mut bytes, mut buffers, mut trouble) = (0u64, 0u64, 0, String::new());
    for spec in specs {
        let is_it = |report: &&StreamReport| report.stream == spec.stream && report.side == Side::Producer;
        let Some(report) = streams.iter().find(is_it) else {
            return Err(format!("the buffer of {} is not open yet", spec.edge));
        };
        if report.ledger.buffered > 0 {
            records = records.saturating_add(report.ledger.buffered);
            bytes = bytes.saturating_add(report.buffered_bytes);
            buffers += 1;
            trouble = report.trouble.clone();
        }
    }
    match (records, trouble.as_str()) {
        (0, _) => Ok(()),
        (records, "") => Err(format!("{records} records ({bytes} bytes) wait in {buffers} buffers")),
        (records, trouble) => Err(format!(
            "{records} records ({bytes} bytes) wait in {buffers} buffers: {trouble}"
        )),
    }
}

/// What was found of the buffers, as it is answered.
pub fn checked(found: Vec<Finding>) -> ControlResult {
    let bad: Vec<String> = found
        .iter()
        .filter(|one| !one.trouble.is_empty())
        .map(|one| format!("{}: {}", one.name, one.trouble.join("; ")))
        .collect();
    if !bad.is_empty() {
        let hint = "stop the daemon, then: myceliald spool repair";
        return failed(FailureKind::Internal, bad.join("\n"), hint);
    }
    let text = match found.is_empty() {
        true => "there are no buffers\n".to_string(),
        false => found.into_iter().map(|one| one.text).collect(),
    };
    let heading = "buffers".to_string();
    ControlResult::Report(vec![Section { heading, text }])
}

/// It did not work.
pub fn failed(kind: FailureKind, message: String, hint: &str) -> ControlResult {
    ControlResult::Failed(Failure {
        kind,
        message,
        hint: hint.to_string(),
        problems: Vec::new(),
    })
}

/// What helps to find out what is wrong, from what the daemon reports of itself anyhow: no config, no record, no secret.
pub fn report(status: &Status, planned: &[PlanWorkflow], streams: &[StreamReport], log: &str) -> ControlResult {
    let section = |heading: &str, text: String| Section {
        heading: heading.to_string(),
        text,
    };
    let resources = &status.resources;
    let daemon = format!(
        "version        {}\nstart          {}\nup             {} s\nplan           {}{}\nroster         {}\n\
         memory         {} bytes now, {} at most\nprocessor      {} ms\nbuffers        {} bytes\ndisk free      {} bytes\n\
         refused        {} messages\nset aside      {} damaged\n",
        status.version,
        status.boot,
        status.uptime_ms / 1000,
        status.plan_version,
        match status.plan_error.as_str() {
            "" => String::new(),
            error => format!(" (the newest is not applied: {error})"),
        },
        status.roster_version,
        resources.rss_bytes,
        resources.rss_peak_bytes,
        resources.cpu_ms,
        resources.spool_bytes,
        resources.disk_free_bytes,
        status.refused,
        status.damaged,
    );
    let mut workflows = String::new();
    for workflow in planned {
        let state = status.workflows.iter().find(|state| state.workflow == workflow.id);
        let (state, cause) = state.map_or(("not there".to_string(), ""), |state| {
            (format!("{:?}", state.state).to_lowercase(), state.cause.as_str())
        });
        workflows.push_str(&format!(
            "{} revision {}: {state} {cause}\n",
            workflow.name, workflow.revision
        ));
        for node in &workflow.nodes {
            workflows.push_str(&format!("  {} {} ({})\n", node.role, node.id, node.component));
        }
    }
    let mut accounts = String::new();
    for stream in streams {
        let ledger = &stream.ledger;
        accounts.push_str(&format!(
            "{} ({:?}, epoch {}): produced {}, delivered {}, buffered {} ({} bytes), dropped {}, dead {}, gaps {} {}{}\n",
            stream.edge,
            stream.side,
            stream.epoch,
            ledger.produced,
            ledger.delivered,
            ledger.buffered,
            stream.buffered_bytes,
            ledger.dropped,
            ledger.dead,
            stream.gaps,
            if ledger.balances() { "" } else { "DOES NOT BALANCE " },
            stream.trouble,
        ));
    }
    ControlResult::Report(vec![
        section("daemon", daemon),
        section("workflows", workflows),
        section("streams", accounts),
        section("log", log.to_string()),
    ])
}

#[cfg(test)]
mod tests {
    use bus_schema::{
        id::{NodeId, StreamId, WorkflowId},
        message::Ledger,
        plan::{Action, Pipe, Root, SendPolicy, SpoolPolicy, Step, StreamSpec, WhenFull},
    };

    use super::*;

    fn workflow(name: &str) -> PlanWorkflow {
        PlanWorkflow {
            id: WorkflowId::of_name(name),
            name: name.to_string(),
            revision: 1,
            nodes: Vec::new(),
            pipes: Vec::new(),
        }
    }

    #[test]
    fn names_mean_planned_workflows() {
        let planned = [workflow("a"), workflow("b")];
        assert_eq!(meant("b", &planned).unwrap(), ["b"]);
        assert_eq!(meant("", &planned).unwrap(), ["a", "b"]);
        assert!(meant("", &[]).unwrap().is_empty());
        let ControlResult::Failed(failure) = meant("c", &planned).unwrap_err() else {
            panic!("found")
        };
        assert_eq!(failure.kind, FailureKind::NotFound);
    }

    #[test]
    fn what_waits_is_named_until_nothing_does() {
        let [me, other] = [1, 2].map(|n| NodeId::from_hash(&[n; 32]));
        let mut planned = workflow("a");
        let spec = StreamSpec {
            stream: StreamId::of_edge(&planned.id, "in->out", &me, &other),
            edge: "in->out".into(),
            producer: me,
            consumer: other,
            spool: SpoolPolicy {
                quota_bytes: 1 << 20,
                when_full: WhenFull::Block,
            },
            send: SendPolicy::default(),
        };
        let report = |buffered| StreamReport {
            stream: spec.stream,
            workflow: planned.id,
            edge: spec.edge.clone(),
            side: Side::Producer,
            epoch: 1,
            watermark: 0,
            ledger: Ledger {
                produced: buffered,
                buffered,
                ..Ledger::default()
            },
            dead_before: 0,
            settled_earlier: 0,
            dropped_earlier: 0,
            buffered_bytes: buffered * 10,
            gaps: 0,
            trouble: String::new(),
        };
        let [empty, full] = [report(0), report(7)];
        planned.pipes = vec![Pipe {
            root: Root::Source(0),
            steps: vec![Step {
                after: None,
                action: Action::Stream(spec.clone()),
            }],
        }];
        let (planned, names) = ([planned], ["a".to_string()]);
        let drained = |streams: &[StreamReport]| drained(&names, &planned, streams);
        assert!(drained(&[]).unwrap_err().contains("not open yet"));
        assert_eq!(drained(&[full]).unwrap_err(), "7 records (70 bytes) wait in 1 buffers");
        assert_eq!(drained(&[empty]), Ok(()));
        assert_eq!(
            super::drained(&[], &planned, &[]),
            Ok(()),
            "other workflows do not count"
        );
    }

    #[test]
    fn what_is_paused_lasts() {
        let dir = testkit::temp_dir("paused");
        let home = Home::open(dir.path()).unwrap();
        let none = Paused::load(&home);
        assert_eq!(none, Paused::default());
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let two = none.and(&names(&["a", "b"])).and(&names(&["a"]));
        two.store(&home).unwrap();
        let again = Paused::load(&home);
        assert_eq!(again.names(), ["a", "b"]);
        assert!(again.has("b") && !again.without(&names(&["b", "c"])).has("b"));
        std::fs::write(dir.path().join(FILE), b"rubbish").unwrap();
        assert_eq!(Paused::load(&home), Paused::default());
    }
}
