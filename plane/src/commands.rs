//! Carries out commands for daemons on behalf of the web page: asks each daemon until it has answered or the time is over. What the
//! plane may ask is what reveals and alters no data; whoever wants more needs an operator's keys. Decides nothing: see
//! `domain/commands.rs`.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bus_link::session::{RequestError, Session};
use bus_schema::{
    audit::AuditEvent,
    control::{ControlCall, ControlResult},
    id::NodeId,
    limits::NAME_BYTES_MAX,
    member::is_name,
    message::{Ping, Pong},
};
use futures_util::{StreamExt as _, stream};
use serde::Deserialize;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout_at},
};
use tracing::{error, info};

use crate::{
    clock::unix_ms,
    disk::Disk,
    domain::commands::{Answered, Command, CommandOf, REPORTS_MAX, Standing, Target},
    service::stopped,
};

/// Commands that are carried out at the same time.
const RUNNING_MAX: usize = 8;
/// Most daemons that one command asks at the same time.
const AT_ONCE_MAX: usize = 64;
/// How long one try may take; then the daemon is asked again.
const TRY: Duration = Duration::from_secs(5);
/// A daemon is not asked more often than this.
const AGAIN: Duration = Duration::from_secs(2);

/// A log level with its exceptions.
const LEVEL_BYTES_MAX: usize = 512;
/// For how long a log level may be another; a daemon goes back after that by itself.
const LEVEL_S_MAX: u64 = 24 * 3600;

/// What daemons shall do.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Order {
    /// Say that they are there.
    Ping,
    /// Start a workflow anew.
    Restart {
        /// Its name.
        workflow: String,
    },
    /// Let its sources read nothing more.
    Pause {
        /// Its name; empty for all.
        #[serde(default)]
        workflow: String,
    },
    /// Let them read again.
    Resume {
        /// Its name; empty for all that are paused.
        #[serde(default)]
        workflow: String,
    },
    /// Log more or less for a while.
    LogLevel {
        /// `debug`, `info,spool=debug`; empty goes back at once.
        level: String,
        /// For how long, in seconds.
        for_s: u64,
    },
    /// Collect what helps to find out what is wrong.
    Diagnose,
    /// Pause, and be done when nothing is buffered any more.
    Drain {
        /// Its name; empty for all.
        #[serde(default)]
        workflow: String,
    },
    /// Look closely at the buffers on disk; fails where something is damaged.
    SpoolCheck,
}

impl Order {
    /// In words.
    pub fn words(&self) -> String {
        let of = |verb: &str, workflow: &str| match workflow {
            "" => format!("{verb} all workflows"),
            workflow => format!("{verb} {workflow}"),
        };
        match self {
            Self::Ping => "ping".to_string(),
            Self::Restart { workflow } => of("restart", workflow),
            Self::Pause { workflow } => of("pause", workflow),
            Self::Resume { workflow } => of("resume", workflow),
            Self::LogLevel { level, for_s } => format!("log level '{level}' for {for_s} s"),
            Self::Diagnose => "diagnose".to_string(),
            Self::Drain { workflow } => of("drain", workflow),
            Self::SpoolCheck => "check the buffers".to_string(),
        }
    }

    /// What is wrong with it. A daemon looks once more.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Self::Restart { workflow } if workflow.is_empty() => {
                Err("workflow: name the one to start anew".to_string())
            }
            Self::Restart { workflow }
            | Self::Pause { workflow }
            | Self::Resume { workflow }
            | Self::Drain { workflow }
                if !workflow.is_empty() && !is_name(workflow) =>
            {
                let start: String = workflow.chars().take(NAME_BYTES_MAX).collect();
                Err(format!("workflow: '{start}' is not a name of a workflow"))
            }
            Self::LogLevel { level, .. } if level.len() > LEVEL_BYTES_MAX => {
                Err(format!("level: {} bytes; at most {LEVEL_BYTES_MAX} fit", level.len()))
            }
            Self::LogLevel { for_s, .. } if *for_s > LEVEL_S_MAX => {
                Err(format!("for_s: {for_s} seconds; at most {LEVEL_S_MAX}, a day"))
            }
            _ => Ok(()),
        }
    }

    /// As a daemon is told; `None`: a ping is a message of its own.
    fn call(&self) -> Option<ControlCall> {
        Some(match self.clone() {
            Self::Ping => return None,
            Self::Restart { workflow } => ControlCall::Restart { workflow },
            Self::Pause { workflow } => ControlCall::Pause { workflow },
            Self::Resume { workflow } => ControlCall::Resume { workflow },
            Self::LogLevel { level, for_s } => ControlCall::LogLevel {
                level,
                for_ms: for_s.saturating_mul(1_000),
            },
            Self::Diagnose => ControlCall::Diagnose,
            Self::Drain { workflow } => ControlCall::Drain { workflow },
            Self::SpoolCheck => ControlCall::SpoolCheck,
        })
    }
}

/// Why a command cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum Unstartable {
    /// There are too many.
    #[error("{RUNNING_MAX} commands are on their way already")]
    Busy,
    /// It cannot be kept.
    #[error("{0}")]
    Store(String),
}

type Running = Arc<Mutex<Command>>;

/// The commands that are on their way, and access to those that were.
pub struct Commands {
    session: Arc<Session>,
    disk: Disk,
    stop: watch::Receiver<bool>,
    running: Mutex<BTreeMap<u64, Running>>,
}

impl std::fmt::Debug for Commands {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Commands")
            .field("running", &lock(&self.running).len())
            .finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Plain values: a panic leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Commands {
    /// None yet.
    pub fn new(session: Arc<Session>, disk: Disk, stop: watch::Receiver<bool>) -> Arc<Self> {
        Arc::new(Self {
            session,
            disk,
            stop,
            running: Mutex::default(),
        })
    }

    /// Begins a command; its number. Kept before anybody is asked, with its entry in the audit.
    pub async fn begin(
        self: &Arc<Self>,
        order: Order,
        event: AuditEvent,
        targets: Vec<(String, NodeId)>,
        deadline: Duration,
    ) -> Result<u64, Unstartable> {
        if lock(&self.running).len() >= RUNNING_MAX {
            return Err(Unstartable::Busy);
        }
        let at_unix_ms = unix_ms();
        let target = |(daemon, node)| Target {
            daemon,
            node,
            standing: Standing::Waiting,
            cause: String::new(),
            workflows: Vec::new(),
            report: Vec::new(),
        };
        let command = Command {
            id: 0,
            what: order.words(),
            by: event.who.clone(),
            at_unix_ms,
            deadline_unix_ms: at_unix_ms.saturating_add_unsigned(deadline.as_millis() as u64),
            daemons: targets.into_iter().map(target).collect(),
        };
        let kept = self.disk.run(move |files| {
            files
                .store
                .noted(event, |store, _| store.add_command(command).map(Some))
        });
        let kept = kept.await.map_err(|closed| Unstartable::Store(closed.to_string()))?;
        let kept = kept.map_err(|cause| Unstartable::Store(cause.to_string()))?;
        let command = kept.ok_or_else(|| Unstartable::Store("it was not kept".to_string()))?;
        let id = command.id;
        info!(
            id,
            by = command.by,
            what = command.what,
            daemons = command.daemons.len(),
            "a command begins"
        );
        let running = Arc::new(Mutex::new(command));
        lock(&self.running).insert(id, Arc::clone(&running));
        let (all, until) = (Arc::clone(self), Instant::now() + deadline);
        tokio::spawn(async move { all.carry_out(id, &running, &order, until).await });
        Ok(id)
    }

    /// How a command stands; `None`: it is not known, or not any more.
    pub async fn show(&self, id: u64) -> Result<Option<Command>, String> {
        let running = lock(&self.running).get(&id).cloned();
        if let Some(running) = running {
            return Ok(Some(lock(&running).clone()));
        }
        let kept = self.disk.run(move |files| files.store.command(id)).await;
        let kept = kept
            .map_err(|closed| closed.to_string())?
            .map_err(|cause| cause.to_string())?;
        // It was written at its end, unless the plane ended before.
        Ok(kept.map(|command| command.ended(Standing::Unknown)))
    }

    /// What `look` makes of each command that is kept, the newest first.
    pub async fn history(
        &self,
        look: Arc<dyn Fn(Command) -> Option<CommandOf> + Send + Sync>,
    ) -> Result<Vec<CommandOf>, String> {
        let looks = Arc::clone(&look);
        let kept = self
            .disk
            .run(move |files| files.store.commands(|command| looks(command)))
            .await;
        let mut all = kept
            .map_err(|closed| closed.to_string())?
            .map_err(|cause| cause.to_string())?;
        for one in &mut all {
            // Of those on their way, more is known than is kept.
            let running = lock(&self.running).get(&one.id).cloned();
            if let Some(now) = running.and_then(|running| look(lock(&running).clone())) {
                *one = now;
            }
        }
        Ok(all)
    }

    async fn carry_out(&self, id: u64, running: &Running, order: &Order, until: Instant) {
        let mut stop = self.stop.clone();
        tokio::select! {
            // Nobody knows then how it ends; what is kept says so.
            () = stopped(&mut stop) => return,
            _ = timeout_at(until, self.ask_all(running, order, until)) => {}
        }
        let ended = lock(running).clone().ended(Standing::TimedOut);
        let count = |standing| {
            ended
                .daemons
                .iter()
                .filter(|target| target.standing == standing)
                .count()
        };
        info!(
            id,
            done = count(Standing::Done),
            failed = count(Standing::Failed),
            timed_out = count(Standing::TimedOut),
            "a command is over"
        );
        let kept = self.disk.run(move |files| files.store.end_command(&ended)).await;
        if let Ok(Err(cause)) = kept {
            error!(%cause, id, "cannot keep how a command ended");
        }
        lock(&self.running).remove(&id);
    }

    /// Asks until all have answered.
    async fn ask_all(&self, running: &Running, order: &Order, until: Instant) {
        loop {
            let (waiting, many): (Vec<(usize, NodeId)>, bool) = {
                let command = lock(running);
                (command.waiting().collect(), command.daemons.len() > REPORTS_MAX)
            };
            if waiting.is_empty() {
                return;
            }
            let again = Instant::now() + AGAIN;
            let asked = waiting.into_iter().map(|(at, node)| async move {
                let patience = TRY.min(until.saturating_duration_since(Instant::now()));
                (at, self.ask(&node, order, patience).await)
            });
            let mut asked = stream::iter(asked).buffer_unordered(AT_ONCE_MAX);
            while let Some((at, answer)) = asked.next().await {
                match answer {
                    // Of many, only what is wrong is kept.
                    Some(Answered::Report(_)) if many => lock(running).answered(at, Answered::Done(Vec::new())),
                    Some(answer) => lock(running).answered(at, answer),
                    None => {}
                }
            }
            sleep_until(again).await;
        }
    }

    /// One try; `None`: it has not answered.
    async fn ask(&self, node: &NodeId, order: &Order, patience: Duration) -> Option<Answered> {
        let answered = match order.call() {
            None => {
                let nonce = getrandom::u64().unwrap_or(1);
                let pong = self
                    .session
                    .request::<Ping, Pong>(node, &Ping { nonce }, patience)
                    .await;
                pong.map(|_| Answered::Done(Vec::new()))
            }
            Some(call) => self
                .session
                .request(node, &call, patience)
                .await
                .map(|result| match result {
                    ControlResult::Done { workflows } => Answered::Done(workflows),
                    ControlResult::Failed(failure) => Answered::Failed(failure.message),
                    ControlResult::Report(sections) => Answered::Report(sections.into_iter().map(Into::into).collect()),
                    ControlResult::Working { what } => Answered::Working(what),
                    ControlResult::Lines { .. } | ControlResult::Audit(_) => {
                        Answered::Failed("it answered something else".to_string())
                    }
                }),
        };
        match answered {
            Ok(answer) => Some(answer),
            Err(RequestError::Body(cause)) => Some(Answered::Failed(cause.to_string())),
            // The bus is away, or the daemon is: it is asked again.
            Err(RequestError::Timeout(_) | RequestError::Send(_)) => None,
        }
    }

    /// Asks one daemon about itself, once.
    pub async fn about(
        &self,
        node: &NodeId,
        call: &ControlCall,
        patience: Duration,
    ) -> Result<ControlResult, RequestError> {
        self.session.request(node, call, patience).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_sense_is_not_asked() {
        let name = |text: &str| text.to_string();
        let cases = [
            (Order::Ping, ""),
            (Order::Restart { workflow: name("shop") }, ""),
            (Order::Restart { workflow: name("") }, "workflow: name the one"),
            (Order::Pause { workflow: name("") }, ""),
            (
                Order::Drain { workflow: name("../x") },
                "workflow: '../x' is not a name",
            ),
            (
                Order::Resume {
                    workflow: "ü".repeat(9_000),
                },
                "is not a name",
            ),
            (
                Order::LogLevel {
                    level: name("debug"),
                    for_s: 86_400,
                },
                "",
            ),
            (
                Order::LogLevel {
                    level: name("debug"),
                    for_s: 86_401,
                },
                "for_s: 86401 seconds; at most 86400",
            ),
            (
                Order::LogLevel {
                    level: "x".repeat(513),
                    for_s: 1,
                },
                "level: 513 bytes; at most 512",
            ),
        ];
        for (order, said) in cases {
            let wrong = order.check().err().unwrap_or_default();
            assert!(
                wrong.starts_with(said) || (!said.is_empty() && wrong.contains(said)),
                "{order:?}: {wrong}"
            );
            assert_eq!(wrong.is_empty(), said.is_empty(), "{order:?}: {wrong}");
            assert!(wrong.len() < 200, "{wrong}");
        }
    }
}
