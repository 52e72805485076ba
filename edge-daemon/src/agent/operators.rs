//! What operators ask of the daemon itself, and tell it to do. Each is answered, and what changes something is written to the
//! log with the operator's name.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bus_link::session::Incoming;
use bus_schema::{
    api::{Failure, FailureKind},
    control::{ControlCall, ControlResult},
    letter::{LetterCall, LetterResult},
    limits::LEASE_MS,
    member::Role,
    message::{TapOpen, TapSample},
    secret::{SecretCall, SecretResult},
    trial::{TrialCall, TrialResult},
};

use super::Agent;
use crate::{
    control::{self, LOG_LEVEL_MS_MAX, LOG_LINES_MAX, Paused},
    letters::Desk,
    logging,
    trial::Trial,
};

impl Agent {
    pub(super) async fn tap(&self, message: &Incoming, wish: &TapOpen) {
        let known = self
            .plan
            .as_ref()
            .is_some_and(|plan| plan.workflows.iter().any(|w| w.id == wish.workflow));
        let refused = if message.sender.role != Role::Operator {
            Some("only operators may tap".to_string())
        } else if !known {
            Some("this daemon does not run that workflow".to_string())
        } else {
            self.taps.open(message.sender.node, wish, Instant::now()).err()
        };
        if let Some(refused) = refused {
            let (workflow, node) = (wish.workflow, wish.node.clone());
            let sample = TapSample {
                workflow,
                node,
                batch: Vec::new(),
                skipped: 0,
                refused,
            };
            let _ = self.session.send(&message.sender.node, &sample).await;
        } else {
            tracing::info!(operator = message.sender.name, node = wish.node, "tap opened");
        }
    }

    /// Answers an operator who asks about dead letters. What changes something is written to the log.
    pub(super) async fn letters(&mut self, message: &Incoming, call: &LetterCall) {
        let sender = &message.sender;
        if sender.role != Role::Operator {
            let result = LetterResult::Failed(forbidden("only operators may see dead letters"));
            let _ = self.session.reply(message, &result).await;
            return;
        }
        let planned = self.plan.iter().flat_map(|plan| &plan.workflows);
        let desk = Desk::new(
            self.letters.clone(),
            planned.map(|workflow| workflow.name.clone()).collect(),
        );
        let asked = call.clone();
        let answered = tokio::task::spawn_blocking(move || desk.answer(&asked)).await;
        let Ok((result, wished)) = answered else {
            tracing::error!(operator = sender.name, "a question about dead letters was not answered");
            return;
        };
        match (call, &result) {
            (LetterCall::Replay(select), LetterResult::Done { letters, .. }) => {
                tracing::info!(
                    operator = sender.name,
                    workflow = select.workflow,
                    letters,
                    "dead letters are tried again"
                );
            }
            (LetterCall::Purge(select), LetterResult::Done { letters, .. }) => {
                tracing::warn!(
                    operator = sender.name,
                    workflow = select.workflow,
                    letters,
                    "dead letters were purged"
                );
            }
            _ => {}
        }
        if let Err(error) = self.session.reply(message, &result).await {
            tracing::debug!(%error, "the answer about dead letters could not be sent");
        }
        self.supervisor.run_again(&wished).await;
    }

    /// Answers an operator who sets or looks after secrets. Workflows that name a changed one begin anew with it.
    pub(super) async fn secrets(&mut self, message: &Incoming, call: SecretCall) -> bool {
        let sender = &message.sender;
        if sender.role != Role::Operator {
            let result = SecretResult::Failed(forbidden("only operators may set secrets"));
            let _ = self.session.reply(message, &result).await;
            return false;
        }
        let did = match &call {
            SecretCall::Set { name, .. } => format!("set '{name}'"),
            SecretCall::Remove { name } => format!("removed '{name}'"),
            SecretCall::List => String::new(),
        };
        let (secrets, planned) = (
            Arc::clone(&self.secrets),
            self.plan.as_ref().map(|plan| plan.workflows.clone()),
        );
        let answer = move || secrets.answer(call, &planned.unwrap_or_default());
        let Ok(result) = tokio::task::spawn_blocking(answer).await else {
            tracing::error!(operator = sender.name, "a call about secrets was not answered");
            return false;
        };
        let used_by = match &result {
            SecretResult::Done { used_by } => used_by.clone(),
            _ => Vec::new(),
        };
        // Before the answer: who has it may count on the new secret.
        self.supervisor.restart(&used_by).await;
        if let Err(error) = self.session.reply(message, &result).await {
            tracing::debug!(%error, "the answer about secrets could not be sent");
        }
        if !matches!(result, SecretResult::Done { .. }) {
            return false;
        }
        tracing::info!(
            operator = sender.name,
            did,
            workflows = used_by.join(", "),
            "secrets changed"
        );
        !used_by.is_empty()
    }

    /// Tries a text for an operator, beside everything else: it may take a while.
    pub(super) async fn trial(&self, message: Incoming) {
        let call = match message.read::<TrialCall>() {
            Ok(call) => call,
            Err(error) => {
                tracing::warn!(from = message.sender.name, %error, "a message was not understood");
                return;
            }
        };
        let refused = |failure| TrialResult::Failed(failure);
        if message.sender.role != Role::Operator {
            let result = refused(forbidden("only operators may try workflows"));
            let _ = self.session.reply(&message, &result).await;
            return;
        }
        let Ok(turn) = Arc::clone(&self.trying).try_acquire_owned() else {
            let result = refused(Failure {
                kind: FailureKind::Conflict,
                message: "another text is being tried on this daemon".to_string(),
                hint: "try again in a moment".to_string(),
                problems: Vec::new(),
            });
            let _ = self.session.reply(&message, &result).await;
            return;
        };
        let (registry, base_dir) = (Arc::clone(&self.registry), self.base_dir.clone());
        let (session, daemon) = (Arc::clone(&self.session), self.secure.me().name.clone());
        let (allows_code, runtime) = (self.allows_code, tokio::runtime::Handle::current());
        let planned = match &call {
            TrialCall::CheckPlanned { workflow } => {
                let planned = self.plan.iter().flat_map(|plan| &plan.workflows);
                planned.filter(|plan| plan.name == *workflow).cloned().collect()
            }
            _ => Vec::new(),
        };
        tokio::spawn(async move {
            let tried = tokio::task::spawn_blocking(move || {
                let trial = Trial {
                    registry: &registry,
                    daemon: &daemon,
                    base_dir: &base_dir,
                    allows_code,
                    runtime: runtime.clone(),
                    planned: &planned,
                };
                trial.answer(&call)
            });
            match tried.await {
                Ok(result) => {
                    if let Err(error) = session.reply(&message, &result).await {
                        tracing::debug!(%error, "what came of a trial could not be sent");
                    }
                }
                Err(error) => tracing::error!(%error, "a text could not be tried"),
            }
            drop(turn);
        });
    }

    /// Does what an operator commands. What changes something is written to the log.
    pub(super) async fn control(&mut self, message: &Incoming, call: ControlCall) -> bool {
        let sender = &message.sender;
        let result = match sender.role {
            Role::Operator => self.command(&sender.name, call).await,
            _ => ControlResult::Failed(forbidden("only operators may command daemons")),
        };
        if let Err(error) = self.session.reply(message, &result).await {
            tracing::debug!(%error, "the answer to a command could not be sent");
        }
        matches!(result, ControlResult::Done { .. })
    }

    async fn command(&mut self, operator: &str, call: ControlCall) -> ControlResult {
        let planned = self
            .plan
            .as_ref()
            .map(|plan| plan.workflows.clone())
            .unwrap_or_default();
        let done = match call {
            ControlCall::Restart { workflow } => {
                let workflows = match control::meant(&workflow, &planned) {
                    Ok(workflows) => workflows,
                    Err(failed) => return failed,
                };
                tracing::info!(operator, workflow, "an operator starts workflows anew");
                self.supervisor.restart(&workflows).await;
                workflows
            }
            ControlCall::Pause { workflow } => match control::meant(&workflow, &planned) {
                Err(failed) => return failed,
                Ok(workflows) => {
                    let paused = self.supervisor.paused().and(&workflows);
                    if let Err(failed) = self.pause(operator, paused).await {
                        return failed;
                    }
                    workflows
                }
            },
            ControlCall::Resume { workflow } => {
                let mut names = self.supervisor.paused().names();
                names.retain(|name| workflow.is_empty() || *name == workflow);
                // Nothing to resume is done already, unless there is no such workflow at all.
                if names.is_empty()
                    && let Err(failed) = control::meant(&workflow, &planned)
                {
                    return failed;
                }
                let paused = self.supervisor.paused().without(&names);
                if let Err(failed) = self.pause(operator, paused).await {
                    return failed;
                }
                names
            }
            ControlCall::LogLevel { level, for_ms } => {
                if let Err(wrong) = logging::check(if level.is_empty() { "info" } else { &level }) {
                    return control::failed(FailureKind::Invalid, wrong, "");
                }
                tracing::info!(operator, level, for_ms, "an operator changes the log level");
                self.log_level(&level, for_ms);
                Vec::new()
            }
            ControlCall::Logs {
                after,
                lines_max,
                workflow,
            } => {
                let most = usize::from(lines_max.min(LOG_LINES_MAX));
                let (lines, newest) = self.log.recent().after(after, most, &workflow);
                return ControlResult::Lines { lines, newest };
            }
            ControlCall::Diagnose => {
                let mut streams = self.streams.reports();
                streams.extend(self.supervisor.direct_reports().await);
                let (lines, _) = self.log.recent().after(0, usize::from(LOG_LINES_MAX), "");
                let log: String = lines
                    .iter()
                    .map(|line| format!("{} {} {} {}\n", line.unix_ms, line.level, line.workflow, line.text))
                    .collect();
                return control::report(&self.status(&streams, LEASE_MS), &planned, &streams, &log);
            }
        };
        ControlResult::Done { workflows: done }
    }

    /// Durable before it is done.
    async fn pause(&mut self, operator: &str, paused: Paused) -> Result<(), ControlResult> {
        let kept = paused.clone();
        let stored = self.on_disk(move |home| kept.store(home)).await;
        stored.map_err(|error| {
            let hint = "see the daemon's log and its disk";
            control::failed(FailureKind::Internal, format!("it could not be stored: {error}"), hint)
        })?;
        tracing::info!(
            operator,
            paused = paused.names().join(", "),
            "an operator pauses or resumes workflows"
        );
        self.supervisor.pause(paused).await;
        Ok(())
    }

    /// Another level for a while; an empty one goes back to the settings'.
    pub(super) fn log_level(&mut self, level: &str, for_ms: u64) {
        let (level, back) = match level {
            "" => (self.log_level.clone(), None),
            level => {
                let wait = Duration::from_millis(for_ms.min(LOG_LEVEL_MS_MAX));
                (level.to_string(), Some(tokio::time::Instant::now() + wait))
            }
        };
        self.log_back = back;
        if let Err(error) = self.log.set_level(&level) {
            tracing::error!(error, "the log level could not be changed");
        }
    }
}

fn forbidden(message: &str) -> Failure {
    Failure {
        kind: FailureKind::Forbidden,
        message: message.to_string(),
        hint: String::new(),
        problems: Vec::new(),
    }
}
