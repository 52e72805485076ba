//! E-mail over SMTP (RFC 5321) with STARTTLS (RFC 3207) or TLS from the beginning, and AUTH PLAIN (RFC 4954). A client of
//! one message a connection; it never sends a password in the clear.

use std::path::Path;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bus_link::Tls;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use zeroize::Zeroizing;

use super::{
    NotifyError,
    road::{self, Stream},
    settings::{EmailSection, SmtpTls, first_line, tls_of},
    subject_of,
};
use crate::config::ConfigError;

/// Longest answer of a server, in bytes.
const ANSWER_BYTES_MAX: u64 = 16 * 1024;

pub(super) struct Email {
    host: String,
    port: u16,
    mode: SmtpTls,
    tls: Tls,
    login: Option<(String, Zeroizing<String>)>,
    from: String,
    to: Vec<String>,
}

struct Conversation {
    stream: BufReader<Box<dyn Stream>>,
}

impl Email {
    pub(super) fn new(section: &EmailSection, dir: &Path) -> Result<Self, ConfigError> {
        let wrong = |message: String| ConfigError::File {
            key: "alerts.email",
            path: section.name.clone().into(),
            message,
        };
        let (host, port) = section
            .server
            .rsplit_once(':')
            .and_then(|(host, port)| Some((host.to_string(), port.parse().ok()?)))
            .ok_or_else(|| wrong("server: give a host and a port, such as smtp.example.com:587".to_string()))?;
        for address in section.to.iter().chain([&section.from]) {
            let is_plain =
                address.contains('@') && !address.contains(|c: char| c.is_whitespace() || "<>,;\"".contains(c));
            if !is_plain || !address.is_ascii() {
                return Err(wrong(format!(
                    "'{address}' is no address: write it as name@example.com"
                )));
            }
        }
        if section.to.is_empty() {
            return Err(wrong("to: name at least one address".to_string()));
        }
        let password = section
            .password_file
            .as_ref()
            .map(|path| first_line("alerts.email.password_file", &dir.join(path)));
        let login = match (&section.user, password.transpose()?) {
            (None, None) => None,
            (Some(_), Some(_)) if section.tls == SmtpTls::None => {
                return Err(wrong(
                    "tls: a password is not sent in the clear; use starttls or tls".to_string(),
                ));
            }
            (Some(user), Some(password)) => Some((user.clone(), password)),
            _ => {
                return Err(wrong(
                    "user and password_file belong together: set both or neither".to_string(),
                ));
            }
        };
        Ok(Self {
            host,
            port,
            mode: section.tls,
            tls: tls_of(
                "alerts.email.ca",
                section.ca.as_ref().map(|path| dir.join(path)).as_deref(),
            )?,
            login,
            from: section.from.clone(),
            to: section.to.clone(),
        })
    }

    pub(super) async fn send(&self, body: &str, key: &str) -> Result<(), NotifyError> {
        let stream = road::connect(&self.host, self.port).await?;
        let mut talk = match self.mode {
            SmtpTls::None => Conversation::new(stream),
            SmtpTls::Tls => Conversation::new(road::secure(stream, &self.host, &self.tls).await?),
            SmtpTls::Starttls => {
                let mut plain = BufReader::new(stream);
                let mut hello = Plain(&mut plain);
                hello.expect(220).await?;
                hello.say("EHLO mycelial").await?;
                let can = hello.expect(250).await?;
                if !can.lines().any(|line| line.eq_ignore_ascii_case("STARTTLS")) {
                    let cause = format!("{} offers no STARTTLS; nothing was sent in the clear", self.host);
                    return Err(NotifyError::Later(cause));
                }
                hello.say("STARTTLS").await?;
                hello.expect(220).await?;
                if !plain.buffer().is_empty() {
                    // Words put in before the handshake are not the server's.
                    return Err(NotifyError::Later("somebody speaks before TLS is there".to_string()));
                }
                Conversation::new(road::secure(plain.into_inner(), &self.host, &self.tls).await?)
            }
        };
        if self.mode != SmtpTls::Starttls {
            talk.expect(220).await?;
        }
        talk.say("EHLO mycelial").await?;
        talk.expect(250).await?;
        if let Some((user, password)) = &self.login {
            let plain = Zeroizing::new(format!("\0{user}\0{}", password.as_str()));
            let line = Zeroizing::new(format!("AUTH PLAIN {}", STANDARD.encode(plain.as_bytes())));
            talk.say(&line).await?;
            talk.expect(235).await?;
        }
        talk.say(&format!("MAIL FROM:<{}>", self.from)).await?;
        talk.expect(250).await?;
        for to in &self.to {
            talk.say(&format!("RCPT TO:<{to}>")).await?;
            talk.expect(250).await?;
        }
        talk.say("DATA").await?;
        talk.expect(354).await?;
        talk.say(&format!("{}\r\n.", message(&self.from, &self.to, body, key)))
            .await?;
        talk.expect(250).await?;
        // It is the server's now, whatever it says to this.
        let _ = talk.say("QUIT").await;
        Ok(())
    }
}

impl Conversation {
    fn new(stream: impl Stream + 'static) -> Self {
        Self {
            stream: BufReader::new(Box::new(stream)),
        }
    }

    async fn say(&mut self, line: &str) -> Result<(), NotifyError> {
        Plain(&mut self.stream).say(line).await
    }

    async fn expect(&mut self, code: u16) -> Result<String, NotifyError> {
        Plain(&mut self.stream).expect(code).await
    }
}

/// Lines to and fro.
struct Plain<'a, S>(&'a mut BufReader<S>);

impl<S: Stream> Plain<'_, S> {
    async fn say(&mut self, line: &str) -> Result<(), NotifyError> {
        let later = |error: std::io::Error| NotifyError::Later(error.to_string());
        let line = Zeroizing::new(format!("{line}\r\n"));
        self.0.write_all(line.as_bytes()).await.map_err(later)?;
        self.0.flush().await.map_err(later)
    }

    /// The answer's lines without their codes, if it has the right one.
    async fn expect(&mut self, code: u16) -> Result<String, NotifyError> {
        let mut text = String::new();
        let mut limited = (&mut *self.0).take(ANSWER_BYTES_MAX);
        loop {
            let mut line = String::new();
            let read = limited.read_line(&mut line).await;
            let read = read.map_err(|error| NotifyError::Later(error.to_string()))?;
            if read == 0 {
                return Err(NotifyError::Later("the server closed the connection".to_string()));
            }
            let line = line.trim_end();
            let said = line.get(..3).and_then(|code| code.parse::<u16>().ok());
            let rest = line.get(4..).unwrap_or_default();
            match said {
                Some(said) if said == code => text.push_str(rest),
                // A 5xx is for good by the book; but mailboxes and passwords are mended by people, so only the message
                // itself being refused is.
                Some(552 | 554) if code == 250 => return Err(NotifyError::Never(line.to_string())),
                _ => return Err(NotifyError::Later(format!("the server said: {line}"))),
            }
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(text);
            }
            text.push('\n');
        }
    }
}

/// Headers and text; lines that begin with a dot get another one.
fn message(from: &str, to: &[String], body: &str, key: &str) -> String {
    let json: Value = serde_json::from_str(body).unwrap_or_default();
    let subject = subject_of(&json);
    let mut text = vec![
        format!("From: {from}"),
        format!("To: {}", to.join(", ")),
        // Encoded, whatever is in it: a name can neither break the header nor begin another one.
        format!(
            "Subject: =?utf-8?B?{}?=",
            STANDARD.encode(subject.chars().take(180).collect::<String>())
        ),
        format!("Date: {}", httpdate::fmt_http_date(std::time::SystemTime::now())),
        format!("Message-ID: <{key}@mycelial>"),
        "MIME-Version: 1.0".to_string(),
        "Content-Type: text/plain; charset=utf-8".to_string(),
        "Content-Transfer-Encoding: base64".to_string(),
        "Auto-Submitted: auto-generated".to_string(),
        String::new(),
    ];
    let pretty = serde_json::to_string_pretty(&json).unwrap_or_default();
    let content = STANDARD.encode(format!("{subject}\r\n\r\n{pretty}\r\n"));
    let lines = content.as_bytes().chunks(76).map(String::from_utf8_lossy);
    text.extend(lines.map(std::borrow::Cow::into_owned));
    text.join("\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_message_becomes_a_header() {
        let body = serde_json::json!({ "severity": "info", "state": "firing", "summary": "x\r\nBcc: all@example.com\r\n.\r\n" });
        let text = message("a@b.c", &["d@e.f".to_string()], &body.to_string(), "key");
        let (headers, content) = text.split_once("\r\n\r\n").unwrap();
        assert_eq!(headers.lines().count(), 9, "{headers}");
        assert!(!text.contains("Bcc:") && content.lines().all(|line| line != "." && line.len() <= 76));
    }
}
