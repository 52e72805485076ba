//! What operators ask of the daemon itself, and tell it to do. Each is answered, and what changes something is written to the
//! log with the operator's name.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bus_link::session::Incoming;
use bus_schema::{
    api::{Failure, FailureKind},
    audit::{AuditEvent, AuditOutcome},
    control::{ControlCall, ControlResult},
    letter::{LetterCall, LetterResult},
    limits::LEASE_MS,
    message::{PlanPut, TapOpen, TapSample},
    plan::PlanWorkflow,
    secret::{SecretCall, SecretResult},
    trial::{TrialCall, TrialResult},
};

use super::Agent;
use crate::{
    assemble::unix_ms,
    audit, buffers,
    control::{self, LOG_LEVEL_MS_MAX, LOG_LINES_MAX, Paused},
    letters::Desk,
    logging,
    permission::Asked,
    taps::Taps,
    trial::Trial,
};

/// A look at the buffers that takes no longer is answered at once.
const LOOK_SOON: Duration = Duration::from_millis(500);

impl Agent {
    /// Takes a plan, and writes into the audit by whom it was given.
    pub(super) async fn given_plan(&mut self, message: &Incoming, put: PlanPut) -> bool {
        let before = self.plan_error.clone();
        let is_taken = self.offered(put).await;
        if is_taken {
            let version = format!("version {}", self.plan_version());
            self.noted(message, "give a plan", &version, Ok(())).await;
        } else if !self.plan_error.is_empty() && self.plan_error != before {
            let result = Err((false, self.plan_error.clone()));
            self.noted(message, "give a plan", "", result).await;
        }
        is_taken
    }

    pub(super) async fn tap(&self, message: &Incoming, wish: &TapOpen) {
        let mut planned = self.plan.iter().flat_map(|plan| &plan.workflows);
        let part = planned.find(|workflow| workflow.id == wish.workflow);
        let mut is_new = true;
        let refused = if !Asked::Tap.is_for(message.sender.role) {
            Some("only operators may tap".to_string())
        } else if let Some(cause) = Taps::nothing_at(part, &wish.node) {
            Some(cause)
        } else {
            let opened = self.taps.open(message.sender.node, wish, Instant::now());
            opened.map(|new| is_new = new).err()
        };
        let forbidden = !Asked::Tap.is_for(message.sender.role);
        let result = refused
            .as_deref()
            .map_or(Ok(()), |cause| Err((forbidden, cause.to_string())));
        // Prolonged every few seconds: that would push everything else out of the audit.
        if is_new {
            self.noted(message, "tap records", &wish.node, result).await;
        }
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
        } else if is_new {
            tracing::info!(operator = message.sender.name, node = wish.node, "tap opened");
        }
    }

    /// Answers an operator who asks about dead letters. What changes something is written to the log.
    pub(super) async fn letters(&mut self, message: &Incoming, call: &LetterCall) {
        let sender = &message.sender;
        let (action, what) = asked_of_letters(call);
        if !Asked::Letters.is_for(sender.role) {
            let failure = forbidden("only operators may see dead letters");
            let action = if action.is_empty() {
                "look at dead letters"
            } else {
                action
            };
            self.noted(message, action, &what, Err((true, failure.message.clone())))
                .await;
            let _ = self.session.reply(message, &LetterResult::Failed(failure)).await;
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
        if !action.is_empty() {
            let result = match &result {
                LetterResult::Failed(failure) => Err((false, failure.message.clone())),
                _ => Ok(()),
            };
            self.noted(message, action, &what, result).await;
        }
        match (call, &result) {
            (LetterCall::Replay(select), LetterResult::Done { letters, .. }) => {
                tracing::info!(
                    operator = sender.name,
                    workflow = select.workflow,
                    letters,
                    "dead letters are tried again"
                );
            }
            (LetterCall::Mend { letter, .. }, LetterResult::Done { .. }) => {
                tracing::info!(
                    operator = sender.name,
                    workflow = letter.workflow,
                    letter = letter.id,
                    "a dead letter was changed"
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
        let (action, what) = match &call {
            SecretCall::Set { name, .. } => ("set a secret", name.clone()),
            SecretCall::Remove { name } => ("remove a secret", name.clone()),
            SecretCall::List => ("list secrets", String::new()),
        };
        if !Asked::Secrets.is_for(sender.role) {
            let failure = forbidden("only operators may set secrets");
            self.noted(message, action, &what, Err((true, failure.message.clone())))
                .await;
            let _ = self.session.reply(message, &SecretResult::Failed(failure)).await;
            return false;
        }
        let is_change = !matches!(call, SecretCall::List);
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
        if is_change {
            let result = match &result {
                SecretResult::Failed(failure) => Err((false, failure.message.clone())),
                _ => Ok(()),
            };
            self.noted(message, action, &what, result).await;
        }
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
            action,
            secret = what,
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
        let may = Asked::Trial.is_for(message.sender.role);
        let noted = if may {
            Ok(())
        } else {
            Err((true, "only operators may try workflows".to_string()))
        };
        self.noted(&message, "try a text", "", noted).await;
        if !may {
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
        let (custom_code, runtime) = (Arc::clone(&self.custom_code), tokio::runtime::Handle::current());
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
                    custom_code: &custom_code,
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
        let asked = Asked::by(&call);
        let (action, what) = commanded(&call);
        let may = asked.is_for(sender.role);
        // Whoever waits for the end of it asks again and again.
        let goes_on = match &call {
            ControlCall::Drain { workflow } => self.is_paused(workflow),
            ControlCall::Rotate { wish } => self.is_known_wish(*wish),
            _ => false,
        };
        let result = match may {
            true => self.command(&sender.name, call).await,
            false => ControlResult::Failed(forbidden("only operators and the plane may command daemons")),
        };
        // Who only looks at what a daemon says of itself leaves no trace, unless it may not.
        if (asked == Asked::Command && !goes_on) || !may {
            let noted = match &result {
                ControlResult::Failed(failure) => Err((!may, failure.message.clone())),
                _ => Ok(()),
            };
            self.noted(message, action, &what, noted).await;
        }
        if let Err(error) = self.session.reply(message, &result).await {
            tracing::debug!(%error, "the answer to a command could not be sent");
        }
        matches!(result, ControlResult::Done { .. }) || (matches!(result, ControlResult::Working { .. }) && !goes_on)
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
            ControlCall::Drain { workflow } => return self.drain(operator, &workflow, &planned).await,
            ControlCall::SpoolCheck => return self.spool_check().await,
            ControlCall::Rotate { wish } => return self.rotate(wish).await,
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
            ControlCall::Audit(call) => {
                let home = Arc::clone(&self.home);
                let read = tokio::task::spawn_blocking(move || audit::page(&home, &call)).await;
                return read.map_or_else(
                    |error| control::failed(FailureKind::Internal, error.to_string(), "see the daemon's log"),
                    ControlResult::Audit,
                );
            }
            ControlCall::Diagnose => {
                let mut streams = self.streams.reports();
                streams.extend(self.supervisor.direct_reports().await.0);
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

    /// Writes into the audit what somebody wanted, and why not if it was not done: `true` when it may not.
    pub(super) async fn noted(&self, message: &Incoming, action: &str, what: &str, result: Result<(), (bool, String)>) {
        let event = AuditEvent::new(unix_ms(), &message.sender.name, "bus", action, what);
        let event = match result {
            Ok(()) => event,
            Err((true, cause)) => event.but(AuditOutcome::Refused, &cause),
            Err((false, cause)) => event.but(AuditOutcome::Failed, &cause),
        };
        if let Err(error) = self.on_disk(move |home| audit::append(home, event)).await {
            tracing::error!(%error, "cannot write into the audit");
        }
    }

    /// Whether all workflows of the plan that are meant are paused already.
    fn is_paused(&self, workflow: &str) -> bool {
        let planned = self.plan.iter().flat_map(|plan| &plan.workflows);
        let mut meant = planned.filter(|plan| workflow.is_empty() || plan.name == workflow);
        meant.all(|plan| self.supervisor.paused().has(&plan.name))
    }

    /// Pauses, and says what still waits in the buffers: nothing, when it is done.
    async fn drain(&mut self, operator: &str, workflow: &str, planned: &[PlanWorkflow]) -> ControlResult {
        let workflows = match control::meant(workflow, planned) {
            Ok(workflows) => workflows,
            Err(failed) => return failed,
        };
        if !self.is_paused(workflow) {
            let paused = self.supervisor.paused().and(&workflows);
            if let Err(failed) = self.pause(operator, paused).await {
                return failed;
            }
        }
        match control::drained(&workflows, planned, &self.streams.reports()) {
            Ok(()) => ControlResult::Done { workflows },
            Err(what) => ControlResult::Working { what },
        }
    }

    /// Looks at the buffers, beside everything else. One look at a time; whoever asks while it goes on waits for the same.
    async fn spool_check(&mut self) -> ControlResult {
        let dir = self.home.dir().to_owned();
        let mut look = self
            .spool_look
            .take()
            .unwrap_or_else(|| tokio::task::spawn_blocking(move || buffers::examine(&dir)));
        let internal =
            |cause: String| control::failed(FailureKind::Internal, cause, "see the daemon's log and its disk");
        match tokio::time::timeout(LOOK_SOON, &mut look).await {
            Err(_) => {
                self.spool_look = Some(look);
                ControlResult::Working {
                    what: "it looks at its buffers".to_string(),
                }
            }
            Ok(Ok(Ok(found))) => control::checked(found),
            Ok(Ok(Err(error))) => internal(error.to_string()),
            Ok(Err(error)) => internal(error.to_string()),
        }
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

/// What a command is called in the audit, and what it is about.
fn commanded(call: &ControlCall) -> (&'static str, String) {
    let of = |workflow: &String| {
        if workflow.is_empty() {
            "all workflows".to_string()
        } else {
            workflow.clone()
        }
    };
    match call {
        ControlCall::Restart { workflow } => ("restart", of(workflow)),
        ControlCall::Pause { workflow } => ("pause", of(workflow)),
        ControlCall::Resume { workflow } => ("resume", of(workflow)),
        ControlCall::LogLevel { level, for_ms } => ("change the log level", format!("'{level}' for {for_ms} ms")),
        ControlCall::Logs { workflow, .. } => ("read the log", workflow.clone()),
        ControlCall::Diagnose => ("diagnose", String::new()),
        ControlCall::Audit(_) => ("read the audit", String::new()),
        ControlCall::Drain { workflow } => ("drain", of(workflow)),
        ControlCall::SpoolCheck => ("check the buffers", String::new()),
        ControlCall::Rotate { .. } => ("change its keys", String::new()),
    }
}

/// What a question about dead letters is called in the audit; empty for what reveals no record.
fn asked_of_letters(call: &LetterCall) -> (&'static str, String) {
    match call {
        LetterCall::Replay(select) => ("replay dead letters", select.workflow.clone()),
        LetterCall::Purge(select) => ("purge dead letters", select.workflow.clone()),
        LetterCall::Mend { letter, .. } => ("change a dead letter", format!("{}/{}", letter.workflow, letter.id)),
        // What follows of a long record is not another look at it.
        LetterCall::Show { letter, offset: 0 } => {
            ("look at a dead letter", format!("{}/{}", letter.workflow, letter.id))
        }
        LetterCall::Show { .. } | LetterCall::List { .. } => ("", String::new()),
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
