//! Rollouts: a revision goes to its daemons in waves. A wave is deployed, its daemons take it, it has to do well for a while,
//! and only then the next begins. Too many failures take everything back to what it was. Every phase ends: by itself, or by
//! its deadline, with a cause. Pure: what daemons do is looked at through [`Look`], and what to do comes out as [`Deed`].

use std::collections::{BTreeMap, BTreeSet};

use bus_schema::{
    id::NodeId,
    message::RunState,
    plan::PlanWorkflow,
    rollout::{OnFailure, RolloutCommand, RolloutPhase as Phase, RolloutPolicy},
};
use serde::{Deserialize, Serialize};

use super::{clip, views::span};

/// Most rollouts at one time.
pub const ACTIVE_MAX: usize = 16;
/// Most waves.
pub const WAVES_MAX: usize = 64;
/// A rollout that nobody looks after for this long ends, in milliseconds: a week.
const PAUSED_MS_MAX: u64 = 7 * 24 * 3_600_000;
/// Below this a wave is said to move nothing worth comparing, in records a second.
const RATE_MIN: u64 = 5;
/// So much of the time that a wave soaks a daemon's part may be tried again, of a hundred: more is an error rate that is too high,
/// even if it happens to run when the soak ends.
const RETRYING_PERCENT_MAX: u32 = 20;
/// Fewer looks at a daemon say nothing about its error rate.
const LOOKS_MIN: u32 = 5;

/// What one daemon had, and what it shall have of the workflow. `None` is nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exchange {
    /// Before.
    pub before: Option<PlanWorkflow>,
    /// After.
    pub after: Option<PlanWorkflow>,
}

/// The revision that was in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// Its number.
    pub number: u32,
    /// TOML.
    pub text: String,
    /// Who applied it.
    pub by: String,
    /// When, milliseconds since 1970.
    pub at_unix_ms: i64,
}

/// What was ordered; never changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// From 1.
    pub id: u64,
    /// The workflow's name.
    pub workflow: String,
    /// The revision.
    pub revision: u32,
    /// The revision before; `None` when there was no such workflow.
    pub before: Option<Before>,
    /// Who ordered it.
    pub by: String,
    /// When, milliseconds since 1970.
    pub at_unix_ms: i64,
    /// How it goes on.
    pub policy: RolloutPolicy,
    /// Who is in which wave.
    pub waves: Vec<Vec<NodeId>>,
    /// What changes for each.
    pub parts: BTreeMap<NodeId, Exchange>,
}

/// Where it stands; durable with every change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The phase.
    pub phase: Phase,
    /// The wave it is at, from 0. Waves before it are deployed; it is too, unless the phase is [`Phase::Ready`].
    pub wave: usize,
    /// Whether the wave is deployed: where a pause goes on.
    pub is_placed: bool,
    /// Why it is paused or over.
    pub cause: String,
    /// Who failed, and why.
    pub failed: Vec<(NodeId, String)>,
    /// So many of them somebody has put up with.
    pub forgiven: usize,
}

impl Default for Head {
    fn default() -> Self {
        Self {
            phase: Phase::Ready,
            wave: 0,
            is_placed: false,
            cause: String::new(),
            failed: Vec::new(),
            forgiven: 0,
        }
    }
}

impl Head {
    /// How many waves are deployed, completely or as far as it went.
    pub fn placed_waves(&self) -> usize {
        self.wave + usize::from(self.is_placed)
    }
}

/// How a daemon is, of the workflow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// Whether it was heard of lately.
    pub is_there: bool,
    /// Milliseconds since it was heard; `None` when never.
    pub silent_ms: Option<u64>,
    /// Whether it runs the plan it shall run.
    pub has_plan: bool,
    /// Why it does not; empty when it does, or that is on its way.
    pub plan_error: String,
    /// Revision and state of its part; `None` when it has none.
    pub part: Option<(u32, RunState)>,
    /// Why the part is in that state.
    pub cause: String,
    /// Dead letters so far.
    pub dead: u64,
    /// Records that were dropped so far.
    pub dropped: u64,
    /// Bytes in its buffers.
    pub buffered_bytes: u64,
    /// How long its oldest record has waited, in milliseconds: at least so long. What waits for the time at which it may be sent
    /// is not looked at.
    pub lag_ms: u64,
    /// Whether it has waited for longer than that: from before the plane has watched.
    pub lag_is_older: bool,
    /// Records a second.
    pub rate: u64,
}

impl Health {
    /// What a later look is compared with. How long something waits is not, where nobody knows how long it had waited.
    fn before(self) -> Self {
        let lag_ms = if self.lag_is_older { u64::MAX } else { self.lag_ms };
        Self { lag_ms, ..self }
    }
}

/// Looks at daemons.
pub trait Look {
    /// How one is; `None` when it is no member any more: nothing is wanted of it, and nothing is waited for.
    fn health(&self, node: &NodeId) -> Option<Health>;
}

/// What a rollout remembers of a wave while it runs; begins anew when the plane does.
#[derive(Debug, Clone, Default)]
pub struct Watch {
    /// When the phase began.
    pub since_ms: u64,
    /// How daemons were before they got the revision, or when this was begun anew.
    before: BTreeMap<NodeId, Health>,
    /// In this phase: how many times each was looked at, and in how many of them its part was tried again after an error.
    looks: BTreeMap<NodeId, (u32, u32)>,
}

/// What is to be done together with the new [`Head`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// Give the daemons of this wave what they shall have.
    Place(usize),
    /// Give the daemons of these waves back what they had.
    Restore(usize),
}

/// Cuts daemons into waves: those on whom others depend first, then by the order given. Sizes are of all.
pub fn waves(first: Vec<NodeId>, others: Vec<NodeId>, policy: &RolloutPolicy) -> Vec<Vec<NodeId>> {
    let (lead, all) = (first.len(), others.len());
    let mut rest = others.into_iter();
    let mut waves: Vec<Vec<NodeId>> = Vec::new();
    let mut done = 0;
    let sizes = policy.waves.iter().map(|size| size.of(all)).chain([all]);
    for size in sizes {
        let wave: Vec<_> = rest.by_ref().take(size.saturating_sub(done)).collect();
        done += wave.len();
        if !wave.is_empty() {
            waves.push(wave);
        }
    }
    if lead > 0 {
        match waves.first_mut() {
            Some(wave) => drop(wave.splice(0..0, first)),
            None => waves.push(first),
        }
    }
    waves
}

/// What a command makes of a rollout that stands there; the error says why nothing.
pub fn told(order: &Order, head: &Head, command: RolloutCommand, reason: &str) -> Result<(Head, Option<Deed>), String> {
    if head.phase.is_over() {
        return Err(format!("rollout {} is over: {}", order.id, head.cause));
    }
    let mut next = head.clone();
    next.cause = clip(reason);
    let mut deed = None;
    match (command, head.phase) {
        (_, Phase::RollingBack) if command != RolloutCommand::Abort => {
            return Err(format!("rollout {} is being rolled back", order.id));
        }
        (RolloutCommand::Pause, Phase::Paused) => return Err(format!("rollout {} is paused already", order.id)),
        (RolloutCommand::Pause, _) => next.phase = Phase::Paused,
        (RolloutCommand::Resume, Phase::Paused) => {
            next.phase = if head.is_placed { Phase::Taking } else { Phase::Ready };
            next.forgiven = head.failed.len();
            next.cause.clear();
        }
        (RolloutCommand::Resume, _) => return Err(format!("rollout {} is not paused", order.id)),
        (RolloutCommand::Abort, _) => next.phase = Phase::Aborted,
        (RolloutCommand::RollBack, _) => deed = roll_back(head, &mut next),
    }
    Ok((next, deed))
}

fn roll_back(head: &Head, next: &mut Head) -> Option<Deed> {
    next.phase = Phase::RollingBack;
    Some(Deed::Restore(head.placed_waves()))
}

/// What time, and what daemons do, make of a rollout; `None` when everything stays as it is.
pub fn step(
    order: &Order,
    head: &Head,
    watch: &mut Watch,
    now_ms: u64,
    look: &impl Look,
) -> Option<(Head, Option<Deed>)> {
    let waited = now_ms.saturating_sub(watch.since_ms);
    let take_ms = u64::from(order.policy.take_s) * 1_000;
    let mut next = head.clone();
    let deed = match head.phase {
        Phase::Done | Phase::RolledBack | Phase::Aborted => return None,
        Phase::Paused if waited < PAUSED_MS_MAX => return None,
        Phase::Paused => {
            next.phase = Phase::Aborted;
            next.cause = format!("nobody looked after it for {}: {}", span(waited), head.cause);
            None
        }
        Phase::Ready => {
            for node in order.waves.get(head.wave).into_iter().flatten() {
                watch
                    .before
                    .extend(look.health(node).map(|health| (*node, health.before())));
            }
            next.phase = Phase::Taking;
            next.is_placed = true;
            Some(Deed::Place(head.wave))
        }
        Phase::Taking => {
            let late = waited >= take_ms;
            let wave: BTreeSet<&NodeId> = order.waves.get(head.wave).into_iter().flatten().collect();
            let mut waiting = 0usize;
            for (node, health) in standing(order, head, look) {
                match judge(order, watch, node, &health) {
                    Ok(true) => {}
                    // What an earlier wave does badly without failing is no news.
                    Ok(false) if !wave.contains(node) => {}
                    Ok(false) if !late => waiting += 1,
                    Ok(false) => next.failed.push((*node, lateness(&health, take_ms))),
                    Err(cause) => next.failed.push((*node, cause)),
                }
            }
            if waiting == 0 {
                next.phase = Phase::Soaking;
            }
            None
        }
        Phase::Soaking => {
            let over = waited >= u64::from(order.policy.soak_s) * 1_000;
            for (node, health) in standing(order, head, look) {
                let errors_percent = watch.looked(node, &health);
                match judge(order, watch, node, &health) {
                    Ok(true) if over && errors_percent > RETRYING_PERCENT_MAX => {
                        let cause = format!("it was tried again after errors for {errors_percent} % of the time");
                        next.failed.push((*node, cause));
                    }
                    Ok(true) => {}
                    Ok(false) if over => next.failed.push((*node, lateness(&health, waited))),
                    Ok(false) => {}
                    Err(cause) => next.failed.push((*node, cause)),
                }
            }
            match collapsed(order, head, watch, look).filter(|_| over) {
                Some(cause) => return Some(give_up(order, head, next, cause)),
                None if over => go_on(order, &mut next),
                None => {}
            }
            None
        }
        Phase::RollingBack => {
            let placed = order.waves.iter().take(head.placed_waves()).flatten();
            let behind = placed
                .filter_map(|node| look.health(node))
                .filter(|health| !health.has_plan);
            let behind = behind.count();
            if behind > 0 && waited < take_ms {
                return None;
            }
            next.phase = Phase::RolledBack;
            if behind > 0 {
                let later = format!("; {behind} daemons have not said so yet and go back when they are there again");
                next.cause.push_str(&later);
            }
            None
        }
    };
    let counted = next.failed.len().saturating_sub(next.forgiven);
    let is_watched = matches!(head.phase, Phase::Taking | Phase::Soaking);
    if is_watched && counted > order.policy.failures_max.of(order.parts.len()) {
        let cause = next.failed.last().map_or(String::new(), |(_, cause)| cause.clone());
        let cause = format!("{counted} of {} daemons failed, the last: {cause}", order.parts.len());
        return Some(give_up(order, head, next, cause));
    }
    (next != *head).then_some((next, deed))
}

/// After a wave that has done well.
fn go_on(order: &Order, next: &mut Head) {
    if next.wave + 1 < order.waves.len() {
        next.wave += 1;
        next.is_placed = false;
        next.phase = Phase::Ready;
    } else {
        next.phase = Phase::Done;
        next.cause = match next.failed.len() {
            0 => "all daemons run it".to_string(),
            failed => format!("all daemons run it but {failed}"),
        };
    }
}

fn give_up(order: &Order, head: &Head, mut next: Head, cause: String) -> (Head, Option<Deed>) {
    // Whatever else was decided in this step is not: no next wave.
    next.wave = head.wave;
    next.is_placed = head.is_placed;
    next.cause = clip(&format!("wave {}: {cause}", head.wave + 1));
    match order.policy.on_failure {
        OnFailure::RollBack => {
            let deed = roll_back(head, &mut next);
            (next, deed)
        }
        OnFailure::Pause => {
            next.phase = Phase::Paused;
            (next, None)
        }
    }
}

/// Members that have the revision and have not failed, and how they are.
fn standing<'a>(order: &'a Order, head: &'a Head, look: &'a impl Look) -> impl Iterator<Item = (&'a NodeId, Health)> {
    let failed: BTreeSet<&NodeId> = head.failed.iter().map(|(node, _)| node).collect();
    let placed = order.waves.iter().take(head.placed_waves()).flatten();
    let standing = placed.filter(move |node| !failed.contains(node));
    standing.filter_map(|node| Some((node, look.health(node)?)))
}

/// Whether a daemon does what it shall; the error says in what way it has failed.
fn judge(order: &Order, watch: &Watch, node: &NodeId, health: &Health) -> Result<bool, String> {
    if !health.is_there {
        return Ok(false);
    }
    if !health.plan_error.is_empty() {
        return Err(health.plan_error.clone());
    }
    let wants = order.parts.get(node).and_then(|part| part.after.as_ref());
    if wants.is_none() {
        return Ok(health.has_plan);
    }
    let Some((revision, state)) = health.part.filter(|(revision, _)| *revision == order.revision) else {
        return Ok(false);
    };
    if state == RunState::Failed {
        return Err(format!("revision {revision} failed: {}", health.cause));
    }
    let before = watch.before.get(node).cloned().unwrap_or_default();
    let dead = health.dead.saturating_sub(before.dead);
    if dead > order.policy.dead_max {
        return Err(format!("{dead} records went to the dead letters"));
    }
    // A stream that may drop its oldest did so before, too: that is not the revision's doing.
    if before.dropped == 0 && health.dropped > order.policy.dead_max {
        return Err(format!("{} records were dropped", health.dropped));
    }
    let grown = health.buffered_bytes.saturating_sub(before.buffered_bytes);
    if grown > order.policy.lag_bytes_max {
        return Err(format!("its buffers grew by {grown} bytes"));
    }
    let waits_s = health.lag_ms.saturating_sub(before.lag_ms) / 1_000;
    if order.policy.lag_s_max().is_some_and(|most| waits_s > u64::from(most)) {
        return Err(format!("its oldest record waits {waits_s} s longer than before"));
    }
    let does_well = matches!(state, RunState::Running | RunState::Finished | RunState::Paused);
    Ok(health.has_plan && does_well)
}

fn lateness(health: &Health, waited_ms: u64) -> String {
    if !health.is_there {
        return match health.silent_ms {
            Some(ms) => format!("silent for {}", span(ms)),
            None => "never heard of".to_string(),
        };
    }
    let cause = if health.cause.is_empty() {
        "no cause given"
    } else {
        &health.cause
    };
    match health.part {
        Some((revision, state)) => {
            format!("after {}: revision {revision} is {state:?} ({cause})", span(waited_ms)).to_lowercase()
        }
        None => format!("has not taken its plan within {}", span(waited_ms)),
    }
}

/// Whether a wave moves far less than its daemons did before.
fn collapsed(order: &Order, head: &Head, watch: &Watch, look: &impl Look) -> Option<String> {
    let wave = order.waves.get(head.wave)?;
    let stays = |node: &&NodeId| {
        let part = order.parts.get(*node);
        part.is_some_and(|part| part.before.is_some() && part.after.is_some())
    };
    let rates = wave.iter().filter(stays).filter_map(|node| {
        let before = watch.before.get(node).map_or(0, |health| health.rate);
        Some((before, look.health(node)?.rate))
    });
    let (before, now) = rates.fold((0, 0), |(b, n), (before, now)| (b + before, n + now));
    let least = before * u64::from(order.policy.throughput_percent_min) / 100;
    (before >= RATE_MIN && now < least).then(|| format!("it moves {now} records a second, and moved {before} before"))
}

impl Watch {
    /// A phase begins now.
    pub fn begins(&mut self, now_ms: u64) {
        self.since_ms = now_ms;
        self.looks.clear();
    }

    /// A daemon was looked at: for how much of the phase its part was tried again after errors, of a hundred. What was so before
    /// the revision came is not its doing.
    fn looked(&mut self, node: &NodeId, health: &Health) -> u32 {
        let retries = |health: &Health| matches!(health.part, Some((_, RunState::Retrying)));
        let was_ill = self.before.get(node).is_some_and(retries);
        let (looks, ill) = self.looks.entry(*node).or_default();
        *looks += 1;
        *ill += u32::from(retries(health) && !was_ill);
        if *looks < LOOKS_MIN { 0 } else { *ill * 100 / *looks }
    }

    /// After a restart nothing is known of how daemons were before: from now on counts. What they moved then, and how long it had
    /// waited, is not compared.
    pub fn restore(order: &Order, head: &Head, now_ms: u64, look: &impl Look) -> Self {
        let placed = order.waves.iter().take(head.placed_waves()).flatten();
        let before = placed.filter_map(|node| {
            let health = look.health(node)?;
            let (rate, lag_ms) = (0, u64::MAX);
            Some((*node, Health { rate, lag_ms, ..health }))
        });
        Self {
            since_ms: now_ms,
            before: before.collect(),
            looks: BTreeMap::new(),
        }
    }
}

#[cfg(test)]
#[path = "rollout_tests.rs"]
mod tests;
