//! NATS: subjects, and JetStream streams on top. JetStream is spoken as what it is, messages to `$JS.API`: three of them are
//! needed here, and async-nats' own client for it brings loops of its own and four more crates.

mod check;
mod connect;
mod held;
mod sink;
mod source;

pub(crate) use sink::SINK;
pub(crate) use source::SOURCE;

use serde::Deserialize;

/// What JetStream says when something is wrong.
#[derive(Debug, Deserialize)]
struct ApiError {
    #[serde(default)]
    code: u32,
    #[serde(default)]
    err_code: u32,
    #[serde(default)]
    description: String,
}

/// Whether messages can be sent to it (or, with wildcards, received from it).
fn check_subject(subject: &str, wildcards: bool) -> Result<(), String> {
    let tokens: Vec<&str> = subject.split('.').collect();
    let last = tokens.len() - 1;
    let wrong = |(at, token): (usize, &&str)| match *token {
        "" => true,
        "*" => !wildcards,
        ">" => !wildcards || at < last,
        token => token.contains(|c: char| c.is_whitespace() || c.is_control() || c == '*' || c == '>'),
    };
    if !tokens.iter().enumerate().any(wrong) {
        return Ok(());
    }
    let form = if wildcards {
        ", with * for one token and > for the rest"
    } else {
        ""
    };
    Err(format!(
        "'{subject}' is no subject: tokens between dots, without spaces{form}"
    ))
}

/// Whether it can be the name of a stream or a consumer.
fn check_name(name: &str) -> Result<(), String> {
    let bad = |c: char| c.is_whitespace() || c.is_control() || ".*>/\\".contains(c);
    if name.is_empty() || name.contains(bad) {
        return Err(format!(
            "'{name}' is no name of JetStream: without spaces, dots, *, > and slashes"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
