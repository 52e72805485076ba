//! Commands that ask once and print the answer.

use std::{collections::BTreeMap, path::Path, time::Duration};

use bus_link::{
    enrol::{EnrolError, client_name, enrol},
    place::{BusSection, Known},
};
use bus_schema::{
    api::{ApiCall, ApiResult, ComponentView, Failure, FailureKind, LabelledToken},
    control::ControlCall,
    id::NodeId,
    member::{Invitation, Role, is_name},
    message::HostFacts,
};

use crate::{
    answer::Answer,
    arguments::{Acl, Arguments, Command, Daemon, NewRole, Output, Token},
    ask::sure,
    audit, backup, bugreport,
    client::{CliError, Client, open_home},
    contexts, control, daemons, doctor, groups, letters, live, logs,
    many::{self, Doubt, Where},
    narrow::{self, Accounts},
    observe, operators, pending, reference, render, revoke, rollouts, secrets, top, workflows,
};

/// How long a command waits for an answer unless told.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// How long `init` waits for the plane unless told.
const ENROL_WAIT: Duration = Duration::from_secs(60);

/// Does what was typed.
pub async fn run(arguments: Arguments) -> Result<(), CliError> {
    let Arguments {
        command,
        output,
        context,
        home,
        timeout,
        ..
    } = arguments;
    let told = timeout.map(|seconds| Duration::from_secs(seconds.max(1)));
    let timeout = told.unwrap_or(ANSWER_WAIT);
    let dir = || contexts::home_dir(home.clone(), context.as_deref());
    match command {
        Command::Completion { shell } => reference::completion(shell),
        Command::Man { dir } => reference::man(&dir),
        Command::Context(what) => contexts::run(output, what).await,
        Command::Init { string, name } => init(&dir()?, &string, name, told.unwrap_or(ENROL_WAIT)).await,
        Command::Doctor { select } => doctor::run(&dir()?, timeout, output, select).await,
        Command::Bugreport { file } => bugreport::run(&dir()?, timeout, &bugreport::file(file)).await,
        Command::Top => top::run(&dir()?, timeout, output).await,
        Command::Tap {
            workflow,
            node,
            daemon,
            select,
            redact,
            show_all,
            rate,
            seconds,
            count,
        } => {
            let wish = live::Wish {
                place: Where::of(workflow.clone(), daemon, select),
                workflow,
                node,
                redact: live::redacted(redact, show_all)?,
                rate,
                seconds,
                count,
            };
            live::tap(&dir()?, timeout, output, wish).await
        }
        Command::Dlq(what) => letters::run(&dir()?, timeout, output, what).await,
        Command::Secret(what) => secrets::run(&dir()?, timeout, output, what).await,
        Command::Pub { topic, message } => live::publish(&dir()?, timeout, &topic, message).await,
        Command::Sub { topic, count } => live::subscribe(&dir()?, timeout, output, &topic, count).await,
        Command::Workflow(what) => workflows::run(&dir()?, timeout, output, what).await,
        Command::Rollout(what) => rollouts::run(&dir()?, timeout, output, what).await,
        Command::Daemon(what) => daemon(&dir()?, timeout, output, what).await,
        Command::Enrol(what) => pending::run(&dir()?, timeout, output, what).await,
        Command::Group(what) => groups::run(&dir()?, timeout, output, what).await,
        Command::Operator(what) => operators::run(&dir()?, timeout, output, what).await,
        Command::Token(what) => {
            let doubt = match &what {
                Token::Revoke { id, yes } => Some((
                    format!("this makes the enrolment string {id} useless to whoever has it"),
                    *yes,
                )),
                Token::Create { .. } | Token::List => None,
            };
            let call = token_call(what)?;
            if let Some((question, yes)) = doubt {
                sure(&question, yes)?;
            }
            ask(&dir()?, timeout, output, call).await
        }
        Command::Logs { whom, workflow, lines } => {
            let wish = logs::Wish {
                place: whom.into(),
                workflow: workflow.unwrap_or_default(),
                lines,
            };
            logs::run(&dir()?, timeout, output, wish).await
        }
        Command::Components { name } => components(&dir()?, timeout, output, name).await,
        Command::Metrics(what) => observe::metrics(&dir()?, timeout, output, what).await,
        Command::Audit(what) => audit::run(&dir()?, timeout, output, what).await,
        Command::Alert(what) => observe::alert(&dir()?, timeout, output, what).await,
        Command::Ledger {
            workflow,
            select,
            troubled,
        } => {
            let wish = Accounts {
                workflow,
                select,
                troubled,
            };
            narrow::ledger(&dir()?, timeout, output, wish).await
        }
        Command::Backup { arguments } => backup::run(&arguments),
        Command::Acl(Acl::Export { broker, member }) => {
            let broker = broker.into();
            let call = match member {
                None => ApiCall::AccessList(broker),
                Some(member) => ApiCall::AccessListOf { broker, member },
            };
            ask(&dir()?, timeout, output, call).await
        }
        Command::Info => ask(&dir()?, timeout, output, ApiCall::Info).await,
    }
}

async fn daemon(dir: &Path, timeout: Duration, output: Output, what: Daemon) -> Result<(), CliError> {
    let all = String::new;
    let (whom, call) = match what {
        Daemon::List { select, labels } => return daemons::list(dir, timeout, output, select, labels).await,
        Daemon::Show { name } => return daemons::show(dir, timeout, output, name).await,
        Daemon::Label { select, changes, yes } => return label(dir, timeout, output, select, &changes, yes).await,
        Daemon::Revoke { whom, yes } => return revoke::run(dir, timeout, output, whom, yes).await,
        Daemon::Ping { whom } => return control::ping(dir, timeout, output, whom).await,
        Daemon::Diagnose { whom, file } => return control::diagnose(dir, timeout, output, whom, file).await,
        Daemon::Drain { patient, yes } => {
            let what = "pauses all workflows, and waits until nothing is buffered,";
            let call = ControlCall::Drain { workflow: all() };
            return control::patiently(dir, timeout, output, patient, call, Some(Doubt::of(what, yes))).await;
        }
        Daemon::SpoolCheck(patient) => {
            return control::patiently(dir, timeout, output, patient, ControlCall::SpoolCheck, None).await;
        }
        Daemon::Rotate { patient, yes } => {
            let wish = getrandom::u64().map_err(|error| CliError::Failed(error.to_string()))?;
            let what = "makes new keys";
            let call = ControlCall::Rotate { wish };
            return control::patiently(dir, timeout, output, patient, call, Some(Doubt::of(what, yes))).await;
        }
        Daemon::Pause { whom, yes } => {
            let what = "pauses all workflows";
            let call = ControlCall::Pause { workflow: all() };
            return control::command(dir, timeout, output, whom.into(), call, Some(Doubt::of(what, yes))).await;
        }
        Daemon::Resume { whom } => (whom, ControlCall::Resume { workflow: all() }),
        Daemon::LogLevel { level, whom, for_s } => {
            let level = if level == "-" { String::new() } else { level };
            let for_ms = for_s.saturating_mul(1000);
            (whom, ControlCall::LogLevel { level, for_ms })
        }
    };
    control::command(dir, timeout, output, whom.into(), call, None).await
}

/// Shows labels, or changes them: on several daemons once somebody is sure.
async fn label(
    dir: &Path,
    timeout: Duration,
    output: Output,
    select: String,
    changes: &[String],
    yes: bool,
) -> Result<(), CliError> {
    let call = label_call(select.clone(), changes)?;
    if let ApiCall::DaemonLabel { selector, .. } = &call
        && !yes
    {
        let client = Client::connect(dir, timeout, Vec::new()).await?;
        let chosen = client.call(&ApiCall::DaemonSelect(selector.clone())).await;
        client.close().await;
        if let ApiResult::Daemons(daemons) = chosen? {
            let names: Vec<&str> = daemons.iter().map(|daemon| daemon.name.as_str()).collect();
            let what = format!("changes labels ({})", changes.join(" "));
            many::sure(Some(&select), &names, &Doubt::of(&what, yes))?;
        }
    }
    ask(dir, timeout, output, call).await
}

fn token_call(what: Token) -> Result<ApiCall, CliError> {
    Ok(match what {
        Token::Create {
            role,
            name,
            labels,
            uses,
            ttl,
        } => {
            if let Some(wrong) = name.as_ref().filter(|name| !is_name(name)) {
                let hint = "use 1 to 32 of a-z, 0-9, '_' and '-', starting with a letter or digit";
                return Err(CliError::Usage(format!("'{wrong}' cannot be a name: {hint}")));
            }
            let labels = preset(&labels)?;
            match (role, labels.is_empty()) {
                (NewRole::Daemon, false) => ApiCall::TokenMint {
                    name,
                    uses,
                    ttl_s: ttl,
                    labels,
                },
                (NewRole::Operator, false) => {
                    let message = "only daemons have labels\n  hint: leave --label out, or make a token for a daemon";
                    return Err(CliError::Usage(message.to_string()));
                }
                (role, true) => ApiCall::TokenCreate {
                    role: role.into(),
                    name,
                    uses,
                    ttl_s: ttl,
                },
            }
        }
        Token::List => ApiCall::TokenLabels,
        Token::Revoke { id, .. } => ApiCall::TokenRevoke(id.parse().map_err(|_| {
            CliError::Usage(format!(
                "'{id}' is no id of an enrolment string\n  hint: mycelial token list"
            ))
        })?),
    })
}

/// A token for programs: its labels stand beside what else is known of it.
fn labelled_token(LabelledToken { token, labels }: &LabelledToken) -> serde_json::Value {
    let mut data = serde_json::to_value(token).unwrap_or_default();
    data["labels"] = serde_json::json!(labels);
    data
}

/// Labels that each daemon of a token has from the beginning.
fn preset(labels: &[String]) -> Result<BTreeMap<String, String>, CliError> {
    let mut all = BTreeMap::new();
    for label in labels {
        let Some((key, value)) = label.split_once('=') else {
            let hint = "write KEY=VALUE, such as site=berlin";
            return Err(CliError::Usage(format!("'{label}' is no label\n  hint: {hint}")));
        };
        if all.insert(key.to_string(), value.to_string()).is_some() {
            return Err(CliError::Usage(format!("the label '{key}' is there twice")));
        }
    }
    Ok(all)
}

/// `site=berlin` sets a label, `test-` takes one off; without any, they are shown.
fn label_call(selector: String, changes: &[String]) -> Result<ApiCall, CliError> {
    // A bare name is meant as one.
    let selector = match selector.contains([':', '=']) || selector.is_empty() {
        true => selector,
        false => format!("name:{selector}"),
    };
    if changes.is_empty() {
        return Ok(ApiCall::DaemonLabels(selector));
    }
    let (mut set, mut unset) = (Vec::new(), Vec::new());
    for change in changes {
        match (change.split_once('='), change.strip_suffix('-')) {
            (Some((key, value)), _) => set.push((key.to_string(), value.to_string())),
            (None, Some(key)) => unset.push(key.to_string()),
            (None, None) => {
                return Err(CliError::Usage(format!(
                    "'{change}' changes no label\n  hint: write KEY=VALUE, or KEY- to take it off"
                )));
            }
        }
    }
    Ok(ApiCall::DaemonLabel { selector, set, unset })
}

/// Asks the plane and prints what it answers.
async fn ask(dir: &Path, timeout: Duration, output: Output, call: ApiCall) -> Result<(), CliError> {
    let client = Client::connect(dir, timeout, Vec::new()).await?;
    let mut answered = client.call(&call).await;
    // Those that are left once one is revoked are shown as they are listed.
    if matches!(answered, Ok(ApiResult::Tokens(_))) {
        answered = client.call(&ApiCall::TokenLabels).await;
    }
    client.close().await;
    match answered? {
        ApiResult::Info(info) => {
            Answer::new(&info, [info.fleet.to_string()], render::info(&info)).print(output);
        }
        ApiResult::Token(token) => {
            Answer::new(&token, [token.clone()], format!("{token}\n")).print(output);
            eprintln!("use it once on the new host: myceliald enrol <string>   (or: mycelial init <string>)");
        }
        ApiResult::Labels(labelled) => {
            let names = labelled.iter().map(|one| one.name.clone());
            Answer::new(&labelled, names, render::labels(&labelled)).print(output);
        }
        ApiResult::TokenLabels(tokens) => {
            let data: Vec<_> = tokens.iter().map(labelled_token).collect();
            let names = tokens.iter().map(|one| one.token.id.to_string());
            Answer::new(&data, names, render::tokens(&tokens)).print(output);
        }
        ApiResult::AccessList(text) => Answer::new(&text, [], text.as_str()).print(output),
        _ => return Err(CliError::Failed("the plane answered something else".to_string())),
    }
    Ok(())
}

/// The catalogue, or what is known of one type name.
async fn components(dir: &Path, timeout: Duration, output: Output, name: Option<String>) -> Result<(), CliError> {
    let client = Client::connect(dir, timeout, Vec::new()).await?;
    let answered = client.call(&ApiCall::Components).await;
    client.close().await;
    let ApiResult::Components(all) = answered? else {
        return Err(CliError::Failed("the plane answered something else".to_string()));
    };
    let names = |all: &[ComponentView]| -> Vec<String> { all.iter().map(|one| one.name.clone()).collect() };
    let Some(name) = name else {
        Answer::new(&all, names(&all), render::components(&all)).print(output);
        return Ok(());
    };
    let near = bus_link::settings::nearest(&name, all.iter().map(|one| one.name.as_str())).map(str::to_string);
    let chosen: Vec<ComponentView> = all.into_iter().filter(|one| one.name == name).collect();
    if chosen.is_empty() {
        let hint = near.map_or("mycelial components".to_string(), |near| {
            format!("did you mean '{near}'?")
        });
        return Err(CliError::not_found(format!("there is no component '{name}'"), &hint));
    }
    let text: String = chosen.iter().map(render::component).collect();
    Answer::new(&chosen, names(&chosen), text).print(output);
    Ok(())
}

fn invalid(message: String) -> Failure {
    Failure {
        kind: FailureKind::Invalid,
        message,
        hint: String::new(),
        problems: Vec::new(),
    }
}

async fn init(dir: &Path, string: &str, name: Option<String>, wait: Duration) -> Result<(), CliError> {
    let invitation = Invitation::decode(string).map_err(|error| CliError::Usage(error.to_string()))?;
    if invitation.role != Role::Operator {
        let text = format!("this string enrols a {}, not an operator", invitation.role);
        return Err(CliError::Usage(format!(
            "{text}\n  hint: use it on the new host: myceliald enrol myc1…"
        )));
    }
    let home = open_home(dir).await?;
    if let Some(member) = home.membership()? {
        let text = format!("{} holds an operator of fleet {} already", dir.display(), member.fleet);
        return Err(CliError::Usage(format!(
            "{text}\n  hint: choose another --home, or remove that directory"
        )));
    }
    let login = || {
        std::env::var("USER")
            .ok()
            .filter(|user| is_name(user))
            .unwrap_or_else(|| "operator".to_string())
    };
    let name = name.unwrap_or_else(login);
    if !is_name(&name) {
        return Err(CliError::Usage(format!(
            "'{name}' cannot be a name: use 1 to 32 of a-z, 0-9, '_' and '-'"
        )));
    }
    let identity = home.identity()?;
    let client = client_name(&invitation, &identity);
    let place = BusSection::default().resolve(&Known::from(&invitation), &client);
    let place = place.map_err(|error| CliError::Usage(error.to_string()))?;
    let host = HostFacts {
        version: env!("CARGO_PKG_VERSION").to_string(),
        ..HostFacts::default()
    };
    eprintln!("asking the plane at {} …", invitation.bus.join(", "));
    let membership = enrol(&invitation, place, &identity, &name, host, wait)
        .await
        .map_err(|error| {
            let text = error.to_string();
            match error {
                EnrolError::Timeout { .. } => CliError::Unreachable(text),
                EnrolError::Refused(_) => CliError::Refused(invalid(text)),
                EnrolError::NotThePlane(_) | EnrolError::Ask(_) => CliError::Failed(text),
            }
        })?;
    home.save_membership(&membership)?;
    eprintln!(
        "you are operator '{name}' of fleet {}; your keys are in {}",
        membership.fleet,
        dir.display()
    );
    eprintln!("next: mycelial token create   (makes a string that enrols a daemon)");
    Ok(())
}

/// The id of a daemon by name or id, with a roster as new as the plane's while it is there.
pub async fn find_daemon(client: &Client, name: &str) -> Result<NodeId, CliError> {
    many::find(client, name).await.map(|target| target.node)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(role: NewRole, labels: &[&str]) -> Result<ApiCall, CliError> {
        token_call(Token::Create {
            role,
            name: None,
            labels: labels.iter().map(ToString::to_string).collect(),
            uses: 2,
            ttl: 60,
        })
    }

    #[test]
    fn labels_of_tokens() {
        let call = token(NewRole::Daemon, &["site=berlin", "test=1"]).unwrap();
        let ApiCall::TokenMint { labels, uses: 2, .. } = call else {
            panic!("{call:?}")
        };
        assert_eq!(labels, preset(&["test=1".into(), "site=berlin".into()]).unwrap());
        // A plane of an earlier version knows these.
        let plain = token(NewRole::Operator, &[]).unwrap();
        assert!(matches!(plain, ApiCall::TokenCreate { uses: 2, .. }), "{plain:?}");
        for (role, labels, part) in [
            (NewRole::Daemon, &["berlin"][..], "'berlin' is no label"),
            (NewRole::Daemon, &["site=a", "site=b"], "'site' is there twice"),
            (NewRole::Operator, &["site=a"], "only daemons have labels"),
        ] {
            let error = token(role, labels).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(part), "{error}");
        }
    }
}
