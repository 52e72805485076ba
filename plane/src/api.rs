//! The one place where an operator's call becomes a decision, whether it came over the bus or from the web page.
//! Decides only: what changes is made durable and applied by the caller.

mod deploy;
mod groups;
mod sharing;

use bus_schema::{
    api::{ApiCall, ApiResult, Failure, FailureKind, Problem},
    member::{GroupKey, Role, Signed},
    message::RosterPut,
    observe::AlertRule,
};
use workflow::nearest;

pub(crate) use sharing::rebalance;

use crate::{
    domain::{
        Change, Now, State,
        change::Signer,
        labels::{self, LABELS_MAX, Labels, Selector},
        sight::{Hidden, Sight},
        workflows::{Moved, Revision},
    },
    invite::{Inviter, TOKEN_RANDOM_BYTES, Wish, mint},
    permission::Caller,
};

/// For those who have a scope.
const ASK_OTHERS: &str = "ask somebody whose role has no scope";

/// What a decision may use besides the state.
#[derive(Debug)]
pub struct Env<'a> {
    /// The time.
    pub now: Now,
    /// Who signs.
    pub signer: &'a Signer,
    /// The fleet's group key.
    pub group: &'a GroupKey,
    /// Who invites.
    pub inviter: &'a Inviter,
    /// Where the web page listens.
    pub http: &'a str,
    /// Fresh randomness, used at most once.
    pub random: &'a [u8; TOKEN_RANDOM_BYTES],
    /// What the caller sees.
    pub sight: &'a Sight,
    /// The alerts' rules.
    pub rules: &'a [AlertRule],
}

/// The answer to a call, true once `changes` are durable.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What changes.
    pub changes: Vec<Change>,
    /// The answer.
    pub result: ApiResult,
}

impl From<ApiResult> for Outcome {
    fn from(result: ApiResult) -> Self {
        Self {
            changes: Vec::new(),
            result,
        }
    }
}

fn failure(kind: FailureKind, message: String, hint: String) -> Failure {
    Failure {
        kind,
        message,
        hint,
        problems: Vec::new(),
    }
}

/// A failure as a whole answer.
pub fn failed(kind: FailureKind, message: impl Into<String>, hint: impl Into<String>) -> ApiResult {
    ApiResult::Failed(failure(kind, message.into(), hint.into()))
}

/// What everybody gets who is not an operator.
pub fn forbidden(role: Role) -> ApiResult {
    failed(
        FailureKind::Forbidden,
        format!("a {role} may not do this"),
        "use an operator's identity: mycelial init",
    )
}

/// Answers a call by `caller` (an operator's name).
pub fn handle(state: &State, caller: &Caller, call: ApiCall, env: &Env<'_>) -> Outcome {
    let outcome = decide(state, caller, call, env).unwrap_or_else(|failure| ApiResult::Failed(failure).into());
    if !env.sight.covers(&outcome.changes) {
        let message = "this would change daemons outside of your scope; nothing was changed";
        return failed(FailureKind::Forbidden, message, ASK_OTHERS).into();
    }
    outcome
}

/// What somebody with a scope is told of what it does not see.
pub fn hidden(hidden: Hidden) -> ApiResult {
    ApiResult::Failed(match hidden {
        Hidden::Daemon(key) => not_found("daemon", &key, [], "daemon list"),
        Hidden::Workflow(name) => not_found("workflow", &name, [], "workflow list"),
        Hidden::Elsewhere(name) => {
            let message = format!("workflow '{name}' also runs on daemons outside of your scope");
            failure(FailureKind::Forbidden, message, ASK_OTHERS.into())
        }
        Hidden::Past(name, number) => {
            let message =
                format!("revision {number} of workflow '{name}' is for daemons outside of your scope, or gone");
            failure(FailureKind::Forbidden, message, ASK_OTHERS.into())
        }
        Hidden::Rollout(id) => deploy::no_rollout(id),
    })
}

/// The revision whose text a call asks for.
pub fn revision_in(call: &ApiCall) -> Option<(String, u32)> {
    match call {
        ApiCall::WorkflowText { name, revision } => Some((name.clone(), *revision)),
        _ => None,
    }
}

/// The text of a revision, if whoever asks may read it.
pub fn readable(
    state: &State,
    sight: &Sight,
    revision: Option<(String, u32)>,
    result: ApiResult,
    now: Now,
) -> ApiResult {
    match (&result, revision) {
        (ApiResult::Text(text), Some((name, number))) => match sight.reads(state, (&name, number), text, now) {
            Ok(()) => result,
            Err(hides) => hidden(hides),
        },
        _ => result,
    }
}

fn decide(state: &State, caller: &Caller, call: ApiCall, env: &Env<'_>) -> Result<Outcome, Failure> {
    let now = env.now;
    let result = match call {
        ApiCall::Info => ApiResult::Info(state.info(env.http)),
        ApiCall::TokenCreate {
            role,
            name,
            uses,
            ttl_s,
        } => {
            return invite(
                state,
                Wish {
                    role,
                    name,
                    uses,
                    ttl_s,
                    labels: Labels::new(),
                },
                env,
            );
        }
        ApiCall::TokenMint {
            name,
            uses,
            ttl_s,
            labels,
        } => {
            return invite(
                state,
                Wish {
                    role: Role::Daemon,
                    name,
                    uses,
                    ttl_s,
                    labels,
                },
                env,
            );
        }
        ApiCall::DaemonList => ApiResult::Daemons(state.daemon_views(now)),
        ApiCall::DaemonShow(key) => {
            let detail = state.daemon_detail(&key, now);
            ApiResult::Daemon(detail.ok_or_else(|| {
                let names = state.daemons().map(|(member, _)| member.certificate.name.as_str());
                not_found("daemon", &key, names, "daemon list")
            })?)
        }
        ApiCall::WorkflowValidate { text } => {
            let fleet = fleet(state, &text, env.sight, env.now);
            let found = deploy::comes_in(state, &text, &fleet);
            ApiResult::Problems(found.err().unwrap_or_default())
        }
        ApiCall::WorkflowApply { text, expect_revision } => {
            return apply(state, &caller.name, text, expect_revision, "", env);
        }
        ApiCall::Deploy {
            text,
            expect_revision,
            reason,
            waves: None,
        } => return apply(state, &caller.name, text, expect_revision, &reason, env),
        ApiCall::WorkflowList => ApiResult::Workflows(state.workflow_views(now)),
        ApiCall::WorkflowShow(name) => {
            let revision = current(state, &name)?;
            ApiResult::Workflow {
                view: state.workflow_view(revision, now),
                text: revision.text.clone(),
            }
        }
        ApiCall::WorkflowDelete(name) => return delete(state, &name, None, env),
        ApiCall::WorkflowRemove { name, expect_revision } => return delete(state, &name, expect_revision, env),
        ApiCall::WorkflowStatus(name) => {
            let revision = current(state, &name)?;
            ApiResult::Status {
                view: state.workflow_view(revision, now),
                parts: state.parts_of(&name, now),
                streams: state.stream_views(Some(&name), now),
            }
        }
        ApiCall::DaemonSelect(selector) => ApiResult::Daemons(state.chosen(&select(state, &selector)?, now)),
        ApiCall::DaemonLabels(selector) => {
            let chosen = state.chosen(&select(state, &selector)?, now);
            ApiResult::Labels(state.labelled(&chosen))
        }
        ApiCall::DaemonLabel { selector, set, unset } => return label(state, &selector, &set, &unset, now),
        // What is in the store alone is answered by the service.
        ApiCall::WorkflowRevisions(_)
        | ApiCall::WorkflowHistory(_)
        | ApiCall::WorkflowText { .. }
        | ApiCall::TokenList
        | ApiCall::TokenLabels
        | ApiCall::TokenRevoke(_)
        | ApiCall::Observe(_)
        | ApiCall::Audit(_)
        | ApiCall::DaemonRevoke(_)
        | ApiCall::Pairing(_)
        | ApiCall::OperatorRevoke(_) => {
            let message = "this is not known here".to_string();
            return Err(failure(FailureKind::Internal, message, String::new()));
        }
        ApiCall::WorkflowDiff { text } => ApiResult::Diff(deploy::diff(state, &text, env)?),
        ApiCall::Certificate(key) => ApiResult::Certificate(deploy::certificate(state, &key)?),
        ApiCall::RolloutStart {
            text,
            expect_revision,
            policy,
        } => return deploy::start(state, &caller.name, (text, ""), expect_revision, policy, env),
        ApiCall::Deploy {
            text,
            expect_revision,
            reason,
            waves: Some(policy),
        } => return deploy::start(state, &caller.name, (text, &reason), expect_revision, policy, env),
        ApiCall::RolloutBegin {
            text,
            expect_revision,
            reason,
            mut policy,
            lag_s_max,
        } => {
            policy.lag_s_max = lag_s_max.into();
            return deploy::start(state, &caller.name, (text, &reason), expect_revision, policy, env);
        }
        ApiCall::RolloutList => ApiResult::Rollouts(state.rollout_views(now)),
        ApiCall::RolloutShow(id) => ApiResult::Rollouts(vec![deploy::rollout(state, id, now)?]),
        ApiCall::RolloutTell { id, command, reason } => return deploy::tell(state, id, command, &reason, env),
        ApiCall::Ledger => ApiResult::Ledger(state.stream_views(None, now)),
        ApiCall::Nodes(workflow) => {
            if let Some(name) = &workflow {
                current(state, name)?;
            }
            ApiResult::Nodes(state.node_views(workflow.as_deref(), now))
        }
        ApiCall::Notes(workflow) => {
            if let Some(name) = &workflow {
                current(state, name)?;
            }
            ApiResult::Notes(state.note_views(workflow.as_deref(), now))
        }
        ApiCall::Group(call) => return groups::group(state, call, env),
        ApiCall::OperatorList => ApiResult::Operators(state.operator_views()),
        ApiCall::Components => ApiResult::Components(state.component_views()),
        ApiCall::Carriers => ApiResult::Carriers(state.carriers()),
        ApiCall::AccessList(broker) => ApiResult::AccessList(state.access_list(broker, None)),
        ApiCall::AccessListOf { broker, member } => {
            let by_id = member.parse().ok().filter(|node| state.members.get(node).is_some());
            let node = state
                .members
                .named(&member)
                .map(|found| found.certificate.node)
                .or(by_id);
            let names = state.daemons().map(|(member, _)| member.certificate.name.as_str());
            let node = node.ok_or_else(|| not_found("member", &member, names, "daemon list"))?;
            ApiResult::AccessList(state.access_list(broker, Some(&node)))
        }
        ApiCall::Roster => {
            let roster = Signed::new(&state.members.roster_for_operator(), &env.signer.root);
            ApiResult::Roster(RosterPut {
                roster,
                group: env.group.clone(),
            })
        }
    };
    Ok(result.into())
}

/// A new enrolment string.
fn invite(state: &State, wish: Wish, env: &Env<'_>) -> Result<Outcome, Failure> {
    let token = mint(wish, env.random, env.now.unix_ms)?;
    if let Some(taken) = token.name.as_deref().filter(|name| state.members.named(name).is_some()) {
        let message = format!("the name '{taken}' is taken");
        return Err(failure(FailureKind::Conflict, message, "choose another".into()));
    }
    let text = env.inviter.invitation(&token).encode();
    Ok(Outcome {
        changes: vec![Change::Token(token)],
        result: ApiResult::Token(text),
    })
}

fn select(state: &State, text: &str) -> Result<Selector, Failure> {
    state
        .groups
        .parse(text)
        .map_err(|wrong| failure(FailureKind::Invalid, wrong, String::new()))
}

/// New labels of the daemons that a selector chooses.
fn label(
    state: &State,
    selector: &str,
    set: &[(String, String)],
    unset: &[String],
    now: Now,
) -> Result<Outcome, Failure> {
    let chosen = state.chosen(&select(state, selector)?, now);
    if chosen.is_empty() {
        let message = format!("no daemon is chosen by '{selector}'");
        return Err(failure(
            FailureKind::NotFound,
            message,
            "see: mycelial daemon list".into(),
        ));
    }
    if let Some(wrong) = set.iter().find_map(|(key, value)| labels::mistake(key, value)) {
        return Err(failure(FailureKind::Invalid, wrong, String::new()));
    }
    let (mut changes, mut labelled) = (Vec::new(), state.labelled(&chosen));
    for one in &mut labelled {
        one.labels.retain(|key, _| !unset.contains(key));
        one.labels.extend(set.iter().cloned());
        if one.labels.len() > LABELS_MAX {
            let message = format!("'{}' would have more than {LABELS_MAX} labels", one.name);
            return Err(failure(
                FailureKind::Invalid,
                message,
                "take some off first: KEY-".into(),
            ));
        }
        if one.labels != *state.labels(&one.node) {
            changes.push(Change::Labels {
                node: one.node,
                labels: one.labels.clone(),
            });
        }
    }
    Ok(Outcome {
        changes,
        result: ApiResult::Labels(labelled),
    })
}

/// What a text is checked against: all daemons that the caller sees, and what its selectors choose of them.
fn fleet(state: &State, text: &str, sight: &Sight, now: Now) -> workflow::Fleet {
    let mut fleet = workflow::Fleet::new();
    for (name, node, components) in state.placeable().filter(|(_, node, _)| sight.sees(node)) {
        fleet.insert(name, node, components);
    }
    let seen = state
        .daemons()
        .filter(|(member, _)| sight.sees(&member.certificate.node));
    for (member, _) in seen {
        let facts = workflow::Facts {
            labels: state.labels(&member.certificate.node).clone(),
            host: member.host.clone(),
        };
        fleet.describe(&member.certificate.name, facts);
    }
    for selector in workflow::selectors(text) {
        let chosen = state.groups.parse(&selector).map(|parsed| {
            let chosen = state.chosen(&parsed, now).into_iter();
            chosen
                .filter(|view| sight.sees(&view.node))
                .map(|view| view.name)
                .collect()
        });
        fleet.choose(&selector, chosen);
    }
    sharing::describe(&mut fleet, state, now);
    fleet
}

fn not_found<'a>(what: &str, key: &str, known: impl IntoIterator<Item = &'a str>, list: &str) -> Failure {
    let key: String = key.chars().take(64).collect();
    let hint = match nearest(&key, known) {
        Some(name) => format!("did you mean '{name}'?"),
        None => format!("see: mycelial {list}"),
    };
    failure(FailureKind::NotFound, format!("there is no {what} '{key}'"), hint)
}

fn current<'a>(state: &'a State, name: &str) -> Result<&'a Revision, Failure> {
    state
        .workflows
        .get(name)
        .ok_or_else(|| not_found("workflow", name, state.workflows.names(), "workflow list"))
}

fn faulty(problems: Vec<Problem>) -> Failure {
    let message = match problems.len() {
        1 => "the workflow has a problem; nothing was changed".to_string(),
        count => format!("the workflow has {count} problems; nothing was changed"),
    };
    Failure {
        kind: FailureKind::Invalid,
        message,
        hint: String::new(),
        problems,
    }
}

fn apply(
    state: &State,
    caller: &str,
    text: String,
    expected: Option<u32>,
    reason: &str,
    env: &Env<'_>,
) -> Result<Outcome, Failure> {
    let deploy::Ready {
        name,
        number,
        id,
        parts,
        revision,
    } = deploy::prepare(state, caller, text, expected, env)?;
    deploy::not_rolling(state, &name)?;
    let mut changes = state.place(&id, parts, env.signer).map_err(|large| {
        let message = format!("daemon '{}' cannot take it: {}", large.daemon, large.cause);
        failure(
            FailureKind::Invalid,
            message,
            "place some of it on another daemon".into(),
        )
    })?;
    changes.extend(deploy::revised(revision, reason));
    Ok(Outcome {
        changes,
        result: ApiResult::Revision(number),
    })
}

fn conflict(state: &State, name: &str, expected: Option<u32>, moved: Moved) -> Failure {
    let expected = expected.unwrap_or_default();
    let message = match (moved.current, state.workflows.get(name)) {
        (0, _) => format!("there is no workflow '{name}' (any more); revision {expected} was expected"),
        (current, Some(revision)) if expected == 0 => {
            format!(
                "workflow '{name}' exists already: revision {current} by {}",
                revision.by
            )
        }
        (current, Some(revision)) => format!(
            "workflow '{name}' was changed meanwhile: it is at revision {current} by {}, not {expected}",
            revision.by
        ),
        (current, None) => format!("workflow '{name}' is at revision {current}"),
    };
    failure(
        FailureKind::Conflict,
        message,
        "look at what is there now, then apply again".into(),
    )
}

fn delete(state: &State, name: &str, expected: Option<u32>, env: &Env<'_>) -> Result<Outcome, Failure> {
    let revision = current(state, name)?;
    let as_seen = state.workflows.expect(name, expected);
    as_seen.map_err(|moved| conflict(state, name, expected, moved))?;
    deploy::not_rolling(state, name)?;
    let id = bus_schema::id::WorkflowId::of_name(name);
    let too_large = |_| {
        failure(
            FailureKind::Internal,
            "the smaller plan is too large".into(),
            String::new(),
        )
    };
    let mut changes = state.place(&id, Default::default(), env.signer).map_err(too_large)?;
    changes.push(Change::Retired(revision.workflow.clone()));
    Ok(Outcome {
        changes,
        result: ApiResult::Revision(0),
    })
}
