//! Commands that ask once and print the answer.

use std::{io::Read, path::Path, time::Duration};

use bus_link::{
    enrol::{EnrolError, client_name, enrol},
    place::{BusSection, Known},
};
use bus_schema::{
    api::{ApiCall, ApiResult, Failure, FailureKind},
    member::{Invitation, Role, is_name},
    message::{HostFacts, Ping, Pong},
};
use serde::Serialize;

use crate::{
    arguments::{Arguments, Command, Daemon, Output, Token, Workflow},
    client::{CliError, Client, home_dir, open_home},
    doctor, letters, live, render,
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
        home,
        timeout,
        ..
    } = arguments;
    let dir = home_dir(home)?;
    let told = timeout.map(|seconds| Duration::from_secs(seconds.max(1)));
    let timeout = told.unwrap_or(ANSWER_WAIT);
    match command {
        Command::Init { string, name } => init(&dir, &string, name, told.unwrap_or(ENROL_WAIT)).await,
        Command::Doctor => doctor::run(&dir, timeout).await,
        Command::Tap {
            workflow,
            node,
            daemon,
            rate,
            seconds,
            count,
        } => {
            let wish = live::Wish {
                workflow,
                node,
                daemon,
                rate,
                seconds,
                count,
            };
            live::tap(&dir, timeout, output, wish).await
        }
        Command::Dlq(what) => letters::run(&dir, timeout, output, what).await,
        Command::Pub { topic, message } => live::publish(&dir, timeout, &topic, message).await,
        Command::Sub { topic, count } => live::subscribe(&dir, timeout, output, &topic, count).await,
        Command::Daemon(Daemon::Ping { name }) => ping(&dir, timeout, &name).await,
        command => {
            let component = if let Command::Components { name } = &command {
                name.clone()
            } else {
                None
            };
            let file = match &command {
                Command::Workflow(Workflow::Validate { file } | Workflow::Apply { file, .. }) => Some(file.clone()),
                _ => None,
            };
            let call = call_of(command)?;
            let client = Client::connect(&dir, timeout, Vec::new()).await?;
            let answer = client.call(&call).await;
            client.close().await;
            let done = answer.and_then(|answer| print(answer, output, component.as_deref()));
            match (done, file) {
                // The plane does not know where the text came from.
                (Err(CliError::Refused(failure)), Some(file)) => Err(CliError::Workflow(file, failure)),
                (done, _) => done,
            }
        }
    }
}

fn call_of(command: Command) -> Result<ApiCall, CliError> {
    Ok(match command {
        Command::Token(Token::Create { role, name, uses, ttl }) => {
            if let Some(wrong) = name.as_ref().filter(|name| !is_name(name)) {
                let hint = "use 1 to 32 of a-z, 0-9, '_' and '-', starting with a letter or digit";
                return Err(CliError::Usage(format!("'{wrong}' cannot be a name: {hint}")));
            }
            ApiCall::TokenCreate {
                role: role.into(),
                name,
                uses,
                ttl_s: ttl,
            }
        }
        Command::Daemon(Daemon::List) => ApiCall::DaemonList,
        Command::Daemon(Daemon::Show { name }) => ApiCall::DaemonShow(name),
        Command::Workflow(Workflow::Validate { file }) => ApiCall::WorkflowValidate { text: read(&file)? },
        Command::Workflow(Workflow::Apply { file, expect }) => ApiCall::WorkflowApply {
            text: read(&file)?,
            expect_revision: expect,
        },
        Command::Workflow(Workflow::List) => ApiCall::WorkflowList,
        Command::Workflow(Workflow::Show { name }) => ApiCall::WorkflowShow(name),
        Command::Workflow(Workflow::Delete { name }) => ApiCall::WorkflowDelete(name),
        Command::Workflow(Workflow::Status { name }) => ApiCall::WorkflowStatus(name),
        Command::Ledger => ApiCall::Ledger,
        Command::Components { .. } => ApiCall::Components,
        Command::Acl { broker } => ApiCall::AccessList(broker.into()),
        _ => ApiCall::Info,
    })
}

fn read(file: &Path) -> Result<String, CliError> {
    if file == Path::new("-") {
        let mut text = String::new();
        return match std::io::stdin().read_to_string(&mut text) {
            Ok(_) => Ok(text),
            Err(error) => Err(CliError::Usage(format!("cannot read stdin: {error}"))),
        };
    }
    bus_link::settings::text(file).map_err(|error| CliError::Usage(error.to_string()))
}

fn show<T: Serialize>(output: Output, value: &T, text: impl FnOnce() -> String) {
    match output {
        Output::Table => print!("{}", text()),
        Output::Json => print!("{}", render::json(value)),
    }
}

fn print(result: ApiResult, output: Output, component: Option<&str>) -> Result<(), CliError> {
    match result {
        ApiResult::Failed(failure) => return Err(CliError::Refused(failure)),
        ApiResult::Info(info) => show(output, &info, || render::info(&info)),
        ApiResult::Token(token) => {
            show(output, &token, || format!("{token}\n"));
            eprintln!("use it once on the new host: myceliald enrol <string>   (or: mycelial init <string>)");
        }
        ApiResult::Daemons(daemons) => {
            show(output, &daemons, || render::daemons(&daemons));
            if daemons.is_empty() {
                eprintln!("no daemons yet; make an enrolment string with: mycelial token create");
            }
        }
        ApiResult::Daemon(detail) => show(output, &detail, || render::daemon(&detail)),
        ApiResult::Problems(problems) => {
            if output == Output::Json {
                print!("{}", render::json(&problems));
            }
            if !problems.is_empty() {
                let message = match problems.len() {
                    1 => "the workflow has one problem".to_string(),
                    count => format!("the workflow has {count} problems"),
                };
                return Err(CliError::Refused(Failure {
                    problems,
                    ..invalid(message)
                }));
            }
            eprintln!("the workflow is good");
        }
        ApiResult::Revision(revision) => show(output, &revision, || format!("revision {revision}\n")),
        ApiResult::Workflows(workflows) => {
            show(output, &workflows, || render::workflows(&workflows));
            if workflows.is_empty() {
                eprintln!("no workflows yet; deploy one with: mycelial workflow apply FILE");
            }
        }
        ApiResult::Workflow { view, text } => {
            show(output, &serde_json::json!({ "view": view, "text": text }), || {
                text.clone()
            });
        }
        ApiResult::Status { view, parts, streams } => {
            let all = serde_json::json!({ "view": view, "parts": parts, "streams": streams });
            show(output, &all, || {
                format!("{}\n{}", render::parts(&parts), render::streams(&streams))
            });
        }
        ApiResult::Ledger(streams) => show(output, &streams, || render::streams(&streams)),
        ApiResult::Components(all) => {
            let chosen: Vec<_> = all
                .iter()
                .filter(|c| component.is_none_or(|name| c.name == name))
                .collect();
            match component {
                None => show(output, &all, || render::components(&all)),
                Some(name) if chosen.is_empty() => {
                    let near = bus_link::settings::nearest(name, all.iter().map(|c| c.name.as_str()));
                    let hint = near.map_or("mycelial components".to_string(), |near| {
                        format!("did you mean '{near}'?")
                    });
                    return Err(CliError::Usage(format!(
                        "there is no component '{name}'\n  hint: {hint}"
                    )));
                }
                Some(_) => show(output, &chosen, || {
                    let one = |c: &&&bus_schema::api::ComponentView| {
                        format!(
                            "{} {}: {}\n\n{}\n\nsettings (JSON Schema): {}\n",
                            c.role, c.name, c.summary, c.example, c.schema
                        )
                    };
                    chosen.iter().map(|c| one(&c)).collect()
                }),
            }
        }
        ApiResult::AccessList(text) => show(output, &text, || text.clone()),
        ApiResult::Roster(_) => {}
    }
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

/// The id of a daemon by name or id, with a roster as new as the plane's.
pub async fn find_daemon(client: &Client, name: &str) -> Result<bus_schema::id::NodeId, CliError> {
    if let ApiResult::Roster(put) = client.call(&ApiCall::Roster).await? {
        client.take_roster(&put);
    }
    match client.call(&ApiCall::DaemonShow(name.to_string())).await? {
        ApiResult::Daemon(detail) => Ok(detail.view.node),
        _ => Err(CliError::Failed("the plane answered something else".to_string())),
    }
}

async fn ping(dir: &Path, timeout: Duration, name: &str) -> Result<(), CliError> {
    let client = Client::connect(dir, timeout, Vec::new()).await?;
    let node = find_daemon(&client, name).await?;
    let nonce = getrandom::u64().unwrap_or(1);
    let started = std::time::Instant::now();
    let answer = client
        .session
        .request::<Ping, Pong>(&node, &Ping { nonce }, timeout)
        .await;
    client.close().await;
    match answer {
        Ok(pong) if pong.nonce == nonce => {
            let version = pong.version;
            println!(
                "{name} ({node}, version {version}) answered in {:.1} ms",
                started.elapsed().as_secs_f64() * 1e3
            );
            Ok(())
        }
        Ok(_) => Err(CliError::Failed("the answer does not match the question".to_string())),
        Err(error) => Err(CliError::Unreachable(format!("{name}: {error}"))),
    }
}
