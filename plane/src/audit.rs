//! What the plane's audit says about a call, and how often it says that somebody was refused. Pure: the service and the web API
//! write it down, the store keeps it. Never a secret: of a call only what is named here.

use bus_schema::{
    api::{ApiCall, ApiResult, FailureKind, GroupCall},
    audit::{AuditEvent, AuditOutcome},
    member::is_name,
    observe::ObserveCall,
    pairing::PairingCall,
};

use crate::permission::Caller;

/// Calls that came to nothing and are written down in an hour: a month of them pushes nothing out.
const REFUSALS_PER_HOUR: u32 = 120;

/// What a call does, and to what.
fn described(call: &ApiCall) -> (&'static str, String) {
    let some = |name: &Option<String>| name.clone().unwrap_or_else(|| "any name".to_string());
    match call {
        ApiCall::TokenCreate { role, name, uses, .. } => (
            "make an enrolment string",
            format!("for {role} {}, {uses} uses", some(name)),
        ),
        ApiCall::TokenMint { name, uses, labels, .. } => {
            let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            (
                "make an enrolment string",
                format!("for daemon {}, {uses} uses, {}", some(name), labels.join(" ")),
            )
        }
        ApiCall::TokenRevoke(id) => ("revoke an enrolment string", id.to_string()),
        ApiCall::WorkflowApply { text, .. } => ("deploy a workflow", name_in(text)),
        ApiCall::WorkflowDelete(name) | ApiCall::WorkflowRemove { name, .. } => ("delete a workflow", name.clone()),
        ApiCall::RolloutStart { text, .. } => ("begin a rollout", name_in(text)),
        ApiCall::Deploy {
            text,
            reason,
            waves: None,
            ..
        } => ("deploy a workflow", name_and_reason(text, reason)),
        ApiCall::Deploy { text, reason, .. } | ApiCall::RolloutBegin { text, reason, .. } => {
            ("begin a rollout", name_and_reason(text, reason))
        }
        ApiCall::RolloutTell { id, command, reason } => (
            "tell a rollout",
            format!("{id}: {}: {reason}", format!("{command:?}").to_lowercase()),
        ),
        ApiCall::DaemonLabel { selector, set, unset } => {
            let set = set.iter().map(|(key, value)| format!("{key}={value}"));
            let all: Vec<String> = set.chain(unset.iter().map(|key| format!("{key}-"))).collect();
            ("label daemons", format!("'{selector}': {}", all.join(" ")))
        }
        ApiCall::Group(GroupCall::Put { name, selector }) => ("change a group", format!("{name}: '{selector}'")),
        ApiCall::Group(GroupCall::Remove(name)) => ("forget a group", name.clone()),
        ApiCall::OperatorRevoke(node) => ("revoke an operator", node.to_string()),
        ApiCall::DaemonRevoke(node) => ("revoke a daemon", node.to_string()),
        ApiCall::Observe(ObserveCall::PutRules(rules)) => ("change the alert rules", format!("{} rules", rules.len())),
        ApiCall::Observe(ObserveCall::Silence { id, for_s, reason }) => {
            ("silence an alert", format!("{id} for {for_s} s: {reason}"))
        }
        ApiCall::Observe(ObserveCall::Test { channel }) => ("test a channel", channel.clone()),
        ApiCall::Pairing(PairingCall::Open { ttl_s }) => ("let daemons wait without a token", format!("for {ttl_s} s")),
        ApiCall::Pairing(PairingCall::Close) => ("let no daemon wait without a token", String::new()),
        ApiCall::Pairing(PairingCall::Approve { code, .. }) => ("approve a daemon", code.chars().take(16).collect()),
        ApiCall::Pairing(PairingCall::Reject { code }) => ("reject a daemon", code.chars().take(16).collect()),
        // What changes nothing has no entry, whatever it would be.
        _ => ("ask", String::new()),
    }
}

/// Which workflow a text is of, and why it is deployed.
fn name_and_reason(text: &str, reason: &str) -> String {
    match reason {
        "" => name_in(text),
        reason => format!("{} ({reason})", name_in(text)),
    }
}

/// The name that a workflow's text gives itself, as far as a glance shows it: whether the text is right is found out elsewhere.
fn name_in(text: &str) -> String {
    let value = |line: &str| {
        let (key, value) = line.split_once('=')?;
        let value = value.split('#').next()?.trim().trim_matches(['"', '\'']);
        (key.trim() == "name" && is_name(value)).then(|| value.to_string())
    };
    let found = text.lines().take_while(|line| !line.starts_with('[')).find_map(value);
    found.unwrap_or_else(|| "a text without a name".to_string())
}

/// The entry about a call, as long as nothing went wrong.
pub fn event(caller: &Caller, call: &ApiCall, now_unix_ms: i64) -> AuditEvent {
    let (action, what) = described(call);
    AuditEvent::new(now_unix_ms, &caller.name, &caller.from, action, &what)
}

/// The same with what came of it.
pub fn ended(event: AuditEvent, result: &ApiResult) -> AuditEvent {
    match result {
        ApiResult::Failed(failure) => {
            let outcome = match failure.kind {
                FailureKind::Forbidden => AuditOutcome::Refused,
                _ => AuditOutcome::Failed,
            };
            event.but(outcome, &failure.message)
        }
        ApiResult::Revision(number) if *number > 0 => {
            let what = format!("{} revision {number}", event.what);
            AuditEvent { what, ..event }
        }
        ApiResult::Pairing(result) if !result.done.is_empty() => {
            let what = format!("{} {}", event.what, result.done);
            AuditEvent { what, ..event }
        }
        _ => event,
    }
}

/// The entry about a call that is being carried out. Whoever changes the store for it writes it in the same transaction, and says
/// so; what is left of it is written when the call is over.
#[derive(Debug, Default)]
pub struct Entry(Option<AuditEvent>);

impl Entry {
    /// Nothing of it is written. `None`: the call changes nothing.
    pub fn new(event: Option<AuditEvent>) -> Self {
        Self(event)
    }

    /// What to write with the change.
    pub fn event(&self) -> Option<AuditEvent> {
        self.0.clone()
    }

    /// It is durable, with the change.
    pub fn written(&mut self) {
        self.0 = None;
    }

    /// What is still to be written, now that this came of the call.
    pub fn left(self, result: &ApiResult) -> Option<AuditEvent> {
        self.0.map(|event| ended(event, result))
    }
}

/// Counts refusals, so that the audit cannot be filled with them.
#[derive(Debug, Default)]
pub struct Sparing {
    hour: i64,
    count: u32,
}

impl Sparing {
    /// Whether one more is written down.
    pub fn may(&mut self, now_unix_ms: i64) -> bool {
        let hour = now_unix_ms / 3_600_000;
        if hour != self.hour {
            (self.hour, self.count) = (hour, 0);
        }
        self.count = self.count.saturating_add(1);
        self.count <= REFUSALS_PER_HOUR
    }
}

#[cfg(test)]
mod tests {
    use bus_schema::member::Role;

    use super::*;
    use crate::{api::failed, permission::Rank};

    #[test]
    fn what_the_entry_of_a_call_says() {
        let caller = Caller::whole("anna", Rank::Admin, "10.0.0.7:1");
        let text = |text: &str| ApiCall::WorkflowApply {
            text: text.into(),
            expect_revision: None,
        };
        for (call, result, expected) in [
            (
                text(
                    "name = \"orders\"\n[sources.a]\ntype = \"x\"\ndaemon = \"d\"\n[destinations.b]\ntype = \"y\"\ndaemon = \"d\"\nfrom = \"a\"\n",
                ),
                ApiResult::Revision(7),
                "deploy a workflow: orders revision 7: Done: ",
            ),
            (
                ApiCall::Deploy {
                    text: "name = 'orders'".into(),
                    expect_revision: None,
                    reason: "the shop moves".into(),
                    waves: None,
                },
                ApiResult::Revision(8),
                "deploy a workflow: orders (the shop moves) revision 8: Done: ",
            ),
            (
                text("password = \"hunter2\""),
                failed(FailureKind::Invalid, "the workflow has a problem", ""),
                "deploy a workflow: a text without a name: Failed: the workflow has a problem",
            ),
            (
                ApiCall::TokenCreate {
                    role: Role::Daemon,
                    name: None,
                    uses: 3,
                    ttl_s: 9,
                },
                ApiResult::Token("myc1secret".into()),
                "make an enrolment string: for daemon any name, 3 uses: Done: ",
            ),
            (
                ApiCall::WorkflowDelete("orders".into()),
                failed(FailureKind::Forbidden, "this needs the role operator", ""),
                "delete a workflow: orders: Refused: this needs the role operator",
            ),
        ] {
            let event = ended(event(&caller, &call, 5), &result);
            let said = format!("{}: {}: {:?}: {}", event.action, event.what, event.outcome, event.cause);
            assert_eq!(said, expected);
            assert_eq!(
                (event.who.as_str(), event.from.as_str(), event.at_unix_ms),
                ("anna", "10.0.0.7:1", 5)
            );
        }
    }

    #[test]
    fn refusals_are_written_down_sparingly() {
        let mut sparing = Sparing::default();
        let written = (0..500).filter(|n| sparing.may(n * 10)).count();
        assert_eq!(written, REFUSALS_PER_HOUR as usize);
        assert!(sparing.may(3_600_000));
    }
}
