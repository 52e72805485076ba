//! `mycelial secret`: passwords and keys that daemons keep for their components. Tells the daemons themselves: the plane never
//! sees one. A value is typed or piped in, and never stands on a command line, where other users of the host could read it.

use std::{
    io::{IsTerminal, Read, Write},
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bus_schema::{
    api::FailureKind,
    id::NodeId,
    limits::SECRET_BYTES_MAX,
    member::is_name,
    secret::{SecretCall, SecretResult, SecretText, SecretView},
};
use serde::Serialize;
use serde_json::json;

use crate::{
    answer::Answer,
    arguments::{Output, Secret},
    ask,
    client::{CliError, Client},
    many::{self, Doubt, Said, Where},
    render,
    requests::find_daemon,
};

/// What a daemon of many did about a secret, or keeps.
#[derive(Debug, Default, Serialize)]
struct Kept {
    used_by: Vec<String>,
    secrets: Vec<serde_json::Value>,
}

/// Does what was typed.
pub async fn run(dir: &Path, timeout: Duration, output: Output, what: Secret) -> Result<(), CliError> {
    let (keeper, call, doubt) = match what {
        Secret::Set { name, keeper, yes } => {
            // Mistakes are told before a secret is asked for.
            if !is_name(&name) {
                let hint = "use 1 to 32 of a-z, 0-9, '_' and '-', starting with a letter or digit";
                return Err(CliError::Usage(format!("'{name}' cannot name a secret: {hint}")));
            }
            let value = value(&name)?;
            let what = format!("writes over what is kept as '{name}', which nobody can read out again,");
            let doubt = keeper.daemon.is_none().then_some((what, yes));
            (keeper, SecretCall::Set { name, value }, doubt)
        }
        Secret::Remove { name, keeper, yes } => {
            let what = format!("destroys the secret '{name}', which nobody can read out again,");
            (keeper, SecretCall::Remove { name }, Some((what, yes)))
        }
        Secret::List { keeper } => (keeper, SecretCall::List, None),
    };
    if let (Some(daemon), Some((what, yes))) = (&keeper.daemon, &doubt) {
        ask::sure(&format!("this {what} on '{daemon}'"), *yes)?;
    }
    let doubt = doubt.as_ref().map(|(what, yes)| Doubt {
        what,
        yes: *yes,
        is_final: matches!(call, SecretCall::Remove { .. }),
    });
    let client = Client::connect(dir, timeout, Vec::new()).await?;
    let done = match keeper.daemon.clone() {
        Some(daemon) => one(&client, output, &daemon, &call).await,
        None => several(&client, output, keeper.into(), &call, doubt).await,
    };
    client.close().await;
    done
}

/// One that was named is an answer of its own, and an error of its own.
async fn one(client: &Client, output: Output, daemon: &str, call: &SecretCall) -> Result<(), CliError> {
    let node = find_daemon(client, daemon).await?;
    match client.ask::<_, SecretResult>(daemon, &node, call).await? {
        SecretResult::Failed(failure) => Err(CliError::Refused(bus_schema::api::Failure {
            message: format!("{daemon}: {}", failure.message),
            ..failure
        })),
        SecretResult::Done { used_by } => {
            let data = json!({ "daemon": daemon, "used_by": used_by });
            Answer::new(&data, used_by.iter().cloned(), "").print(output);
            eprintln!("{}", said(call, daemon, &used_by));
            Ok(())
        }
        SecretResult::Names(views) => {
            show(output, daemon, &views);
            Ok(())
        }
    }
}

/// The same secret on many daemons: each is told by itself.
async fn several(
    client: &Client,
    output: Output,
    place: Where,
    call: &SecretCall,
    doubt: Option<Doubt<'_>>,
) -> Result<(), CliError> {
    let ask = async |daemon: &str, node: &NodeId| -> Result<Said<Kept>, CliError> {
        Ok(match client.ask(daemon, node, call).await? {
            SecretResult::Failed(failure) => Said::from(failure),
            SecretResult::Done { used_by } => Said::Done(Kept {
                used_by,
                secrets: Vec::new(),
            }),
            SecretResult::Names(views) => Said::Done(Kept {
                used_by: Vec::new(),
                secrets: views.iter().map(data).collect(),
            }),
        })
    };
    let all = many::each(client, place, None, doubt, ask).await?;
    match call {
        SecretCall::List => many::print(output, &all, "secrets", |kept: &Kept| {
            let names = kept.secrets.iter().map(|secret| {
                let missing = if secret["set_unix_ms"].is_null() {
                    " (missing)"
                } else {
                    ""
                };
                format!("{}{missing}", secret["name"].as_str().unwrap_or_default())
            });
            names.collect::<Vec<_>>().join(", ")
        }),
        _ => many::print(output, &all, "used by", |kept: &Kept| kept.used_by.join(", ")),
    }
    many::concluded(&all)
}

fn said(call: &SecretCall, daemon: &str, used_by: &[String]) -> String {
    let workflows = used_by.join(", ");
    match (call, used_by) {
        (SecretCall::Set { name, .. }, []) => {
            format!("{daemon} keeps '{name}'; no workflow there uses it yet: write {{ secret = \"{name}\" }} in one")
        }
        (SecretCall::Set { name, .. }, _) => format!("{daemon} keeps '{name}'; begun anew with it: {workflows}"),
        (SecretCall::Remove { name }, []) => format!("{daemon} has forgotten '{name}'"),
        (SecretCall::Remove { name }, _) => {
            format!("{daemon} has forgotten '{name}', which is missing now in: {workflows}")
        }
        (SecretCall::List, _) => String::new(),
    }
}

/// For programs.
fn data(view: &SecretView) -> serde_json::Value {
    json!({ "name": view.name, "set_unix_ms": view.set_unix_ms, "used_by": view.used_by })
}

fn show(output: Output, daemon: &str, views: &[SecretView]) {
    let data: Vec<_> = views.iter().map(data).collect();
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_millis();
    let set = |at: Option<i64>| match at {
        None => "never: missing".to_string(),
        Some(at) => {
            let since = i64::try_from(now).unwrap_or(i64::MAX).saturating_sub(at);
            format!("{} ago", render::ago(u64::try_from(since).unwrap_or(0)))
        }
    };
    let rows: Vec<_> = views
        .iter()
        .map(|view| vec![view.name.clone(), set(view.set_unix_ms), view.used_by.join(", ")])
        .collect();
    let text = render::table(&["secret", "set", "used by"], &rows);
    Answer::new(&data, views.iter().map(|view| view.name.clone()), text).print(output);
    if views.is_empty() {
        eprintln!("{daemon} keeps no secrets; give it one with: mycelial secret set NAME --daemon {daemon}");
    }
}

/// Asks for the value without showing it; from a pipe, reads it. One line end at the end is not part of it.
fn value(name: &str) -> Result<SecretText, CliError> {
    let failed = |error: std::io::Error| CliError::Usage(format!("cannot read the secret: {error}"));
    let text = if std::io::stdin().is_terminal() {
        let _shown = write!(std::io::stderr(), "secret '{name}' (not shown): ");
        let text = rpassword::read_password().map_err(failed)?;
        SecretText::new(text)
    } else {
        let mut text = String::new();
        // One byte and a line end more tell a secret that is too long from one that just fits.
        let most = SECRET_BYTES_MAX as u64 + 3;
        std::io::stdin().take(most).read_to_string(&mut text).map_err(failed)?;
        let cut = text
            .strip_suffix('\n')
            .map_or(text.len(), |line| line.strip_suffix('\r').unwrap_or(line).len());
        text.truncate(cut);
        SecretText::new(text)
    };
    match text.expose().len() {
        0 => Err(CliError::Usage(format!(
            "the secret is empty\n  hint: type it, or pipe it in: mycelial secret set {name} --daemon NAME < FILE"
        ))),
        bytes if bytes > SECRET_BYTES_MAX => Err(CliError::Refused(bus_schema::api::Failure {
            kind: FailureKind::Invalid,
            message: format!("the secret is longer than the {SECRET_BYTES_MAX} bytes that a daemon keeps"),
            hint: "put it into a file on the daemon, and name that: { file = \"PATH\" }".to_string(),
            problems: Vec::new(),
        })),
        _ => Ok(text),
    }
}
