//! Makes what runs equal to what the plan says: starts, keeps and stops workflows by difference. Never talks to the bus.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use bus_link::essential;
use bus_schema::{
    carried::StreamCarried,
    id::WorkflowId,
    message::{RunState, Side, StreamReport},
    plan::PlanWorkflow,
};
use converge::difference;
use flow::{Backoff, Checkpoints, DeadLetters, Fault, Outcome, Surroundings};
use tokio::{
    sync::{Mutex, watch},
    task::{Id, JoinError, JoinHandle, JoinSet},
};

use crate::{
    assemble::{Assembled, Direct, Workshop, stream_specs},
    board::Board,
    control::Paused,
    letters::{Letters, PipeLetters},
    resting::{PAUSED, Quiet, Rest, Sleeping},
};

/// How long pipes may take to finish what is in their hands.
const DRAIN_MAX: Duration = Duration::from_secs(8);

struct Running {
    plan: PlanWorkflow,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    direct: Arc<Mutex<Vec<Direct>>>,
}

/// Runs workflows.
pub struct Supervisor {
    workshop: Workshop,
    board: Arc<Board>,
    checkpoints: Arc<dyn Checkpoints>,
    letters: Letters,
    random: fn() -> u64,
    paused: Paused,
    running: BTreeMap<WorkflowId, Running>,
}

impl Supervisor {
    /// Nothing runs yet.
    pub fn new(
        workshop: Workshop,
        board: Arc<Board>,
        checkpoints: Arc<dyn Checkpoints>,
        letters: Letters,
        random: fn() -> u64,
    ) -> Self {
        Self {
            workshop,
            board,
            checkpoints,
            letters,
            random,
            paused: Paused::default(),
            running: BTreeMap::new(),
        }
    }

    /// Makes exactly these workflows run.
    pub async fn converge(&mut self, wanted: &[PlanWorkflow]) {
        let difference = difference(self.running.values().map(|running| &running.plan), wanted);
        self.name_left_behind(wanted);
        self.stop(&difference.stop).await;
        for workflow in wanted {
            if difference.renumber.contains(&workflow.id)
                && let Some(running) = self.running.get_mut(&workflow.id)
            {
                running.plan.revision = workflow.revision;
                self.board.renumber(workflow.id, workflow.revision);
            }
            if difference.start.contains(&workflow.id) {
                self.start(workflow.clone());
            }
        }
    }

    /// Starts those of these workflows again of which a pipe has come to its end: they have something to do once more.
    pub async fn run_again(&mut self, names: &[String]) {
        let has_ended = |id: &WorkflowId| {
            let pipes = self.board.pipes(id);
            pipes.iter().any(|(state, _)| *state == RunState::Finished)
        };
        let ended = self.plans(names, has_ended);
        self.anew(ended).await;
    }

    /// Which workflows are paused.
    pub fn paused(&self) -> &Paused {
        &self.paused
    }

    /// Pauses exactly these from now on. Those that run and change begin anew.
    pub async fn pause(&mut self, paused: Paused) {
        let before = std::mem::replace(&mut self.paused, paused);
        let names: Vec<String> = self.running.values().map(|running| running.plan.name.clone()).collect();
        let changed = names
            .into_iter()
            .filter(|name| before.has(name) != self.paused.has(name));
        self.restart(&changed.collect::<Vec<_>>()).await;
    }

    /// Starts these workflows again, whatever they are doing.
    pub async fn restart(&mut self, names: &[String]) {
        let all = self.plans(names, |_| true);
        self.anew(all).await;
    }

    fn plans(&self, names: &[String], is_meant: impl Fn(&WorkflowId) -> bool) -> Vec<PlanWorkflow> {
        let named = self
            .running
            .iter()
            .filter(|(id, running)| names.contains(&running.plan.name) && is_meant(id));
        named.map(|(_, running)| running.plan.clone()).collect()
    }

    async fn anew(&mut self, plans: Vec<PlanWorkflow>) {
        for plan in plans {
            self.stop(&[plan.id]).await;
            self.start(plan);
        }
    }

    /// Says which streams the new plan has no more although they hold records. Their files stay.
    fn name_left_behind(&self, wanted: &[PlanWorkflow]) {
        let kept: HashSet<_> = wanted.iter().flat_map(stream_specs).map(|spec| spec.stream).collect();
        for report in self.workshop.streams.reports() {
            if report.side == Side::Producer && report.ledger.buffered > 0 && !kept.contains(&report.stream) {
                tracing::warn!(
                    edge = report.edge,
                    records = report.ledger.buffered,
                    "this stream is no longer in the plan: what it has not delivered stays in its buffer on disk"
                );
            }
        }
    }

    fn start(&mut self, plan: PlanWorkflow) {
        tracing::info!(workflow = plan.name, revision = plan.revision, "starting");
        self.board.begin(plan.id, plan.revision, plan.pipes.len());
        let (stop, stopped) = watch::channel(false);
        let direct = Arc::<Mutex<Vec<Direct>>>::default();
        let work = Work {
            workshop: self.workshop.clone(),
            board: Arc::clone(&self.board),
            checkpoints: Arc::clone(&self.checkpoints),
            random: self.random,
            is_paused: self.paused.has(&plan.name),
            plan: plan.clone(),
            stop: stopped,
            direct: Arc::clone(&direct),
            letters: Arc::new(PipeLetters(self.letters.of(&plan.name))),
        };
        let task = essential::spawn("workflow", work.run());
        self.running.insert(
            plan.id,
            Running {
                plan,
                stop,
                task,
                direct,
            },
        );
    }

    /// Returns the last accounts of pipes without streams: with what was delivered while draining.
    async fn stop(&mut self, workflows: &[WorkflowId]) -> Vec<StreamReport> {
        let stopping: Vec<_> = workflows.iter().filter_map(|id| self.running.remove(id)).collect();
        for running in &stopping {
            tracing::info!(workflow = running.plan.name, "stopping");
            running.stop.send_replace(true);
        }
        let mut accounts = Vec::new();
        for running in stopping {
            // The task bounds its own draining; this only guards against a bug in it.
            let mut task = running.task;
            if tokio::time::timeout(DRAIN_MAX * 2, &mut task).await.is_err() {
                tracing::error!(workflow = running.plan.name, "did not stop in time and was cut off");
                task.abort();
                let _ = task.await;
                let specs = stream_specs(&running.plan);
                self.workshop.streams.remove(&specs).await;
            }
            accounts.extend(running.direct.lock().await.iter().map(Direct::report));
            self.board.remove(&running.plan.id);
        }
        accounts
    }

    /// Stops everything, in its own time. Returns the last accounts of pipes without streams.
    pub async fn shut_down(&mut self) -> Vec<StreamReport> {
        let all: Vec<_> = self.running.keys().copied().collect();
        self.stop(&all).await
    }

    /// Accounts of pipes without streams, and what they have carried.
    pub async fn direct_reports(&self) -> (Vec<StreamReport>, Vec<StreamCarried>) {
        let (mut reports, mut carried) = (Vec::new(), Vec::new());
        for running in self.running.values() {
            let direct = running.direct.lock().await;
            reports.extend(direct.iter().map(Direct::report));
            carried.extend(direct.iter().map(Direct::carried));
        }
        (reports, carried)
    }
}

/// One workflow at work.
struct Work {
    workshop: Workshop,
    board: Arc<Board>,
    checkpoints: Arc<dyn Checkpoints>,
    random: fn() -> u64,
    /// Its sources read nothing: see [`Rest`].
    is_paused: bool,
    plan: PlanWorkflow,
    stop: watch::Receiver<bool>,
    direct: Arc<Mutex<Vec<Direct>>>,
    /// One for all pipes.
    letters: Arc<dyn DeadLetters>,
}

impl Work {
    async fn run(mut self) {
        let Some(assembled) = self.assemble().await else { return };
        let Assembled {
            pipes,
            sinks,
            outgoing,
            incoming,
            direct,
        } = assembled;
        *self.direct.lock().await = direct;
        let specs = stream_specs(&self.plan);
        let streams = Arc::clone(&self.workshop.streams);
        for stream in incoming {
            streams.add_incoming(stream).await;
        }
        // A set, so that they end with this task however it ends: each keeps its spool open.
        let mut couriers = JoinSet::new();
        for stream in outgoing {
            couriers.spawn(essential::watched("courier", streams.add_outgoing(stream).await));
        }
        let mut tasks = JoinSet::new();
        let mut numbers = HashMap::new();
        for (number, mut pipe) in pipes.into_iter().enumerate() {
            let planned = self.plan.pipes.get(number).filter(|_| self.is_paused);
            let mut around = self.surroundings(number);
            match planned.map_or(Rest::GoesOn, |planned| Rest::of(planned, &self.plan)) {
                Rest::GoesOn => {}
                Rest::Sleeps => {
                    pipe.source = Box::new(Sleeping(pipe.source));
                    around.observer = Arc::new(Quiet(around.observer));
                }
                Rest::Stands => {
                    self.board.set(self.plan.id, number, RunState::Paused, PAUSED);
                    continue;
                }
            }
            let task = tasks.spawn(flow::run(pipe, around));
            numbers.insert(task.id(), number);
        }
        let mut stop = self.stop.clone();
        loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break,
                Some(ended) = tasks.join_next_with_id() => self.ended(&numbers, ended),
            }
        }
        self.drain(&mut tasks).await;
        couriers.shutdown().await;
        streams.remove(&specs).await;
        for sink in sinks {
            sink.close().await;
        }
    }

    /// A pipe reports its own end; only a panic has to be told for it.
    fn ended(&self, numbers: &HashMap<Id, usize>, ended: Result<(Id, Outcome), JoinError>) {
        if let Err(error) = ended
            && let Some(number) = numbers.get(&error.id())
        {
            tracing::error!(workflow = self.plan.name, %error, "a component panicked");
            self.board.set(
                self.plan.id,
                *number,
                RunState::Failed,
                "a component panicked; see the daemon's log",
            );
        }
    }

    fn surroundings(&self, pipe: usize) -> Surroundings {
        Surroundings {
            dead_letters: Arc::clone(&self.letters),
            checkpoints: Arc::clone(&self.checkpoints),
            observer: self.board.observer(self.plan.id, pipe),
            random: self.random,
            stop: self.stop.clone(),
        }
    }

    /// Builds the pipes, trying again while that may help. `None` when told to stop.
    async fn assemble(&mut self) -> Option<Assembled> {
        let mut backoff = Backoff::default();
        loop {
            let (workshop, plan) = (self.workshop.clone(), self.plan.clone());
            let built = tokio::task::spawn_blocking(move || workshop.assemble(&plan)).await;
            let fault = match built {
                Ok(Ok(assembled)) => return Some(assembled),
                Ok(Err(fault)) => fault,
                Err(panic) => Fault::stop(format!("a component could not be built: {panic}")),
            };
            let wait = match &fault {
                Fault::Retry { cause, .. } | Fault::Moved { cause } => {
                    tracing::warn!(workflow = self.plan.name, cause, "cannot start yet");
                    self.board.set(self.plan.id, 0, RunState::Retrying, cause);
                    Some(backoff.next((self.random)()))
                }
                Fault::Stop { cause } => {
                    tracing::error!(workflow = self.plan.name, cause, "cannot start");
                    self.board.set(self.plan.id, 0, RunState::Failed, cause);
                    None
                }
            };
            tokio::select! {
                stopped = self.stop.wait_for(|stop| *stop) => { drop(stopped); return None; }
                () = async { match wait { Some(wait) => tokio::time::sleep(wait).await, None => std::future::pending().await } } => {}
            }
        }
    }

    /// Waits for the pipes to finish what they hold; cuts off and names those that do not.
    async fn drain(&self, tasks: &mut JoinSet<Outcome>) {
        let drained = tokio::time::timeout(DRAIN_MAX, async { while tasks.join_next().await.is_some() {} }).await;
        if drained.is_err() {
            tracing::warn!(
                workflow = self.plan.name,
                pipes = tasks.len(),
                "did not drain in time; what was under way is still at the source or in the buffer"
            );
            tasks.shutdown().await;
        }
    }
}
