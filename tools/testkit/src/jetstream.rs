//! What an operator does with JetStream, through its API of requests and replies: create a stream, count its messages.
//! Speaks only as much NATS as that takes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

use crate::{Nats, wait_ok};

/// For one request on a busy machine.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// JetStream recovers its streams a while after the server listens.
const READY_MAX: Duration = Duration::from_secs(30);
const INBOX: &str = "_INBOX.testkit";

impl Nats {
    /// Creates a stream of that name over a subject, unless there is the same one. `more` is an object of JSON with
    /// further settings of the stream. Plain TCP without log-in only.
    #[track_caller]
    pub fn create_stream(&self, name: &str, subject: &str, more: &str) {
        let mut config = json!({
            "name": name, "subjects": [subject], "retention": "limits", "storage": "file", "num_replicas": 1,
        });
        let more: Value = serde_json::from_str(more).unwrap_or_else(|error| panic!("'{more}': {error}"));
        let (Value::Object(config_fields), Value::Object(more)) = (&mut config, more) else {
            panic!("the settings of a stream are an object of JSON");
        };
        config_fields.extend(more);
        let api = format!("$JS.API.STREAM.CREATE.{name}");
        wait_ok("JetStream to create the stream", READY_MAX, || {
            request(self.addr(), &api, &config)
        });
    }

    /// How many messages a stream holds.
    #[must_use]
    #[track_caller]
    pub fn stream_messages(&self, name: &str) -> u64 {
        let api = format!("$JS.API.STREAM.INFO.{name}");
        let info = wait_ok("JetStream to describe the stream", READY_MAX, || {
            request(self.addr(), &api, &json!({}))
        });
        info["state"]["messages"].as_u64().expect("a count of messages")
    }

    /// What a stream holds, and how far each of its consumers is, as JetStream says it.
    #[must_use]
    #[track_caller]
    pub fn stream_state(&self, name: &str) -> String {
        let ask = |api: &str| {
            let api = format!("$JS.API.{api}.{name}");
            wait_ok("JetStream to answer", READY_MAX, || {
                request(self.addr(), &api, &json!({}))
            })
        };
        let stream = &ask("STREAM.INFO")["state"];
        let consumers = ask("CONSUMER.LIST");
        let far = |consumer: &Value| {
            let keys = ["name", "delivered", "ack_floor", "num_ack_pending", "num_pending"];
            keys.map(|key| consumer[key].to_string()).join(" ")
        };
        let consumers = consumers["consumers"].as_array().map_or(&[][..], Vec::as_slice);
        let mut consumers: Vec<String> = consumers.iter().map(far).collect();
        consumers.sort();
        format!("{stream} {consumers:?}")
    }
}

fn request(server: SocketAddr, subject: &str, body: &Value) -> Result<Value, String> {
    let answer = ask(server, subject, &body.to_string()).map_err(|error| error.to_string())?;
    let answer: Value = serde_json::from_str(&answer).map_err(|error| format!("{error}: {answer}"))?;
    match answer.get("error") {
        Some(error) => Err(error.to_string()),
        None => Ok(answer),
    }
}

fn ask(server: SocketAddr, subject: &str, body: &str) -> std::io::Result<String> {
    let mut socket = TcpStream::connect(server)?;
    socket.set_read_timeout(Some(ANSWER_MAX))?;
    write!(
        socket,
        "CONNECT {{\"verbose\":false,\"pedantic\":false}}\r\nSUB {INBOX} 1\r\nPUB {subject} {INBOX} {}\r\n{body}\r\n",
        body.len()
    )?;
    let mut lines = BufReader::new(socket);
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        // `MSG <subject> <subscription> <bytes>`
        let length = line
            .strip_prefix("MSG ")
            .and_then(|rest| rest.trim_end().rsplit(' ').next());
        if let Some(length) = length.and_then(|length| length.parse().ok()) {
            let mut payload = vec![0; length];
            lines.read_exact(&mut payload)?;
            return Ok(String::from_utf8_lossy(&payload).into_owned());
        }
    }
}
