//! `myceliald run`: one workflow on this machine, without plane or bus, by the same engine. Positions and buffers are kept
//! in a state directory, so that a second run goes on where the first one stopped.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use bus_link::{
    home::{Home, HomeError, Membership},
    secure::Secure,
    settings::SettingsError,
};
use bus_schema::{
    api::Problem,
    id::{FleetId, NodeId},
    key::{Identity, SecretKey},
    member::{Certificate, DocumentError, GroupKey, Role, Roster, Signed},
    message::{RunState, StreamReport},
    plan::{Action, ComponentRole, Descriptor, Pipe, PlanWorkflow, Root},
    redact::Redact,
};
use connectors::CustomCode;
use flow::{Build, BuildContext, Registry};
use tokio::sync::watch;

use crate::{
    aside, assemble::Workshop, board::Board, clocks::Clocks, command, letters::Letters, marks::MarkFiles,
    streams::Streams, supervisor::Supervisor, taps::Taps,
};

/// The name of this machine in messages.
const LOCAL: &str = "local";
/// How often the end is looked for.
const LOOK: Duration = Duration::from_millis(50);

/// A run cannot start, or ended badly.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The file cannot be read.
    #[error(transparent)]
    Read(#[from] SettingsError),
    /// The workflow is wrong.
    #[error("{0}")]
    Problems(String),
    /// See [`HomeError`].
    #[error(transparent)]
    Home(#[from] HomeError),
    /// See [`DocumentError`].
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// A part of the workflow failed.
    #[error("the workflow failed: {0}")]
    Failed(String),
}

impl RunError {
    /// The exit code that tells this error from others.
    pub fn exit_code(&self) -> u8 {
        match self {
            RunError::Read(_) | RunError::Problems(_) => command::EXIT_USAGE,
            RunError::Home(_) | RunError::Document(_) | RunError::Failed(_) => command::EXIT_FAILED,
        }
    }
}

/// A fleet of one: its own root, for as long as there is nobody else.
pub fn alone(identity: &Identity) -> Membership {
    let keys = identity.public();
    let fleet = FleetId::of_root(&keys.sign);
    let me = Certificate {
        fleet,
        node: keys.node_id(),
        name: LOCAL.to_string(),
        role: Role::Daemon,
        keys,
        key_epoch: 0,
    };
    let roster = Roster {
        fleet,
        version: 1,
        members: vec![me.clone()],
        revoked: Vec::new(),
    };
    Membership {
        fleet,
        root: keys.sign,
        plane: me.node,
        certificate: Signed::new(&me, identity),
        roster: Signed::new(&roster, identity),
        group: GroupKey {
            key_epoch: 0,
            key: SecretKey::new([0; 32]),
        },
        login: None,
        bus: Vec::new(),
        ca: None,
    }
}

/// Every problem, one a line: `file:line: place: message`, the hint below.
fn listed(file: &Path, problems: &[Problem]) -> String {
    let count = match problems.len() {
        1 => "one problem".to_string(),
        count => format!("{count} problems"),
    };
    let mut text = format!("the workflow has {count}:");
    for problem in problems {
        let line = if problem.line > 0 {
            format!(":{}", problem.line)
        } else {
            String::new()
        };
        let place = if problem.place.is_empty() {
            String::new()
        } else {
            format!("{}: ", problem.place)
        };
        text.push_str(&format!("\n  {}{line}: {place}{}", file.display(), problem.message));
        if !problem.hint.is_empty() {
            text.push_str(&format!("\n    hint: {}", problem.hint));
        }
    }
    text
}

/// Where a workflow's positions, buffers and dead letters are kept when nothing else is said.
pub fn state_dir(file: &Path) -> PathBuf {
    file.with_extension("state")
}

/// Runs a workflow until its sources end, it fails, or it is told to stop.
pub async fn run(
    file: &Path,
    state: Option<PathBuf>,
    registry: Arc<Registry>,
    room: spool::Room,
    letters_bytes_max: u64,
    mut stop: watch::Receiver<bool>,
) -> Result<(), RunError> {
    let text = bus_link::settings::text(file)?;
    let components: Arc<[Descriptor]> = registry.descriptors().collect();
    // Before anything is made on disk. Whose id the nodes get does not matter for what is wrong.
    let nobody = workflow::Fleet::single(LOCAL, NodeId::of_key(&[0; 32]), Arc::clone(&components));
    let base_dir = file
        .canonicalize()
        .ok()
        .and_then(|path| path.parent().map(Path::to_path_buf))
        .unwrap_or_default();
    let wrong = |problems: Vec<Problem>| RunError::Problems(listed(file, &problems));
    let spec = workflow::validate(&text, &nobody).map_err(wrong)?;
    let misfits = misfits(&spec, &registry, &base_dir);
    if !misfits.is_empty() {
        return Err(wrong(misfits));
    }
    let state = state.unwrap_or_else(|| state_dir(file));
    let home = Arc::new(Home::open(&state)?);
    let identity = home.identity()?;
    let membership = alone(&identity);
    let fleet = workflow::Fleet::single(LOCAL, identity.public().node_id(), components);
    let plan = compile(&spec, &fleet).map_err(wrong)?;
    // The catalog with all its schemas has done its work, and so has the code that made it.
    drop((spec, fleet, nobody));
    resident::forget_code();

    let secure = Arc::new(Secure::new(identity, &membership, home.next_epoch()?, [])?);
    let streams = Streams::new(Arc::clone(&secure), None, Clocks::new(None, secure.epoch()));
    let board = Board::new(Arc::new(Taps::new(Redact::default()).0));
    let budget = spool::Budget::new(room);
    aside::count(home.dir(), &budget);
    let workshop = Workshop {
        registry,
        home: Arc::clone(&home),
        secure,
        streams: Arc::clone(&streams),
        budget,
        base_dir,
        started: Instant::now(),
        // Whoever runs this could run the code as well.
        custom_code: Arc::new(CustomCode::any()),
    };
    let letters = Letters::new(home.dir(), letters_bytes_max, workshop.secure.epoch(), workshop.started);
    let marks = Arc::new(MarkFiles::new(home)?);
    let mut supervisor = Supervisor::new(workshop, Arc::clone(&board), marks, letters, command::random);
    let sources: Vec<usize> = plan
        .pipes
        .iter()
        .enumerate()
        .filter(|(_, pipe)| ends(&plan, pipe))
        .map(|(number, _)| number)
        .collect();
    let id = plan.id;
    supervisor.converge(&[plan]).await;
    let mut look = tokio::time::interval(LOOK);
    let failed = loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break None,
            _ = look.tick() => {}
        }
        let pipes = board.pipes(&id);
        if let Some((_, cause)) = pipes.iter().find(|(state, _)| *state == RunState::Failed) {
            break Some(cause.clone());
        }
        let read = sources
            .iter()
            .all(|n| pipes.get(*n).is_some_and(|(state, _)| *state == RunState::Finished));
        let is_empty = |report: &StreamReport| report.ledger.buffered == 0;
        if read && streams.reports().iter().all(is_empty) && supervisor.direct_reports().await.0.iter().all(is_empty) {
            break None;
        }
    };
    let mut reports = streams.reports();
    reports.extend(supervisor.shut_down().await);
    eprint!("{}", ledger(&reports));
    failed.map_or(Ok(()), |cause| Err(RunError::Failed(cause)))
}

/// Whether a pipe comes to its end by itself, if the sources do: one behind a join does unless a stream goes into that.
fn ends(plan: &PlanWorkflow, pipe: &Pipe) -> bool {
    let Root::Source(index) = pipe.root else { return false };
    let is_join = plan
        .nodes
        .get(usize::from(index))
        .is_some_and(|node| node.role == ComponentRole::Transform);
    let goes_in = |other: &&Pipe| other.steps.iter().any(|step| step.action == Action::Sink(index));
    // A workflow has no cycles: this comes to an end.
    !is_join || plan.pipes.iter().filter(goes_in).all(|other| ends(plan, other))
}

/// What the components themselves find wrong with their configs, and no schema can tell: an expression that does not
/// parse, two keys that exclude each other, a password that is not there.
fn misfits(spec: &workflow::Spec, registry: &Registry, base_dir: &Path) -> Vec<Problem> {
    let misfit = |node: &workflow::Node| {
        let config = serde_json::to_string(&node.config).unwrap_or_default();
        let context = BuildContext {
            workflow: spec.name().to_string(),
            node: node.id.clone(),
            daemon: LOCAL.to_string(),
            base_dir: base_dir.to_path_buf(),
        };
        let built = match registry.find(node.role, &node.component)? {
            Build::Source(build) => build(&config, &context).map(drop),
            Build::Transform(build) => build(&config, &context).map(drop),
            Build::Sink(build) => build(&config, &context).map(drop),
            Build::Junction(build) => build(&config, &context).map(drop),
        };
        let error = built.err()?;
        Some(spec.config_problem(node, &error.key, error.message))
    };
    spec.nodes().iter().filter_map(misfit).collect()
}

fn compile(spec: &workflow::Spec, fleet: &workflow::Fleet) -> Result<PlanWorkflow, Vec<Problem>> {
    let compiled = workflow::compile(spec, fleet, 1)?;
    let local = compiled.parts.into_iter().next().map(|part| part.workflow);
    local.ok_or_else(|| {
        vec![Problem {
            place: String::new(),
            line: 0,
            message: "nothing to run".into(),
            hint: String::new(),
        }]
    })
}

/// The streams' accounts as a table.
fn ledger(reports: &[StreamReport]) -> String {
    let mut text = format!(
        "{:<32} {:>12} {:>12} {:>10} {:>10} {:>10}\n",
        "stream", "produced", "delivered", "buffered", "dropped", "dead"
    );
    for report in reports {
        let account = &report.ledger;
        text.push_str(&format!(
            "{:<32} {:>12} {:>12} {:>10} {:>10} {:>10}{}\n",
            report.edge,
            account.produced,
            account.delivered,
            account.buffered,
            account.dropped,
            account.dead,
            if account.balances() { "" } else { "   does not balance" },
        ));
    }
    text
}
