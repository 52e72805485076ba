//! Subjects: validated lists of tokens, rendered for NATS (`.`) and MQTT (`/`).
//! Knows the layout of Mycelial's subjects, never a connection.

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::{fmt, str::FromStr};

use crate::{
    id::{FleetId, NodeId, StreamId, TokenId},
    limits::{SUBJECT_BYTES_MAX, SUBJECT_TOKENS_MAX, TOKEN_BYTES_MAX},
};

/// What is wrong with a subject or pattern, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    /// A token is empty, too long, or holds a character outside `[a-z0-9_-]`.
    #[error("'{token}' is not a subject token: use 1 to 32 of a-z, 0-9, '_' and '-'")]
    Token {
        /// The offending token.
        token: String,
    },
    /// Too many tokens or bytes.
    #[error("subject '{subject}' is too long: at most 8 tokens and 128 bytes")]
    TooLong {
        /// The offending subject.
        subject: String,
    },
    /// `>` somewhere but at the end.
    #[error("'>' may only be the last token of a pattern")]
    RestNotLast,
    /// Not one of Mycelial's subjects.
    #[error("'{subject}' is not below '{ROOT}.{VERSION}.<fleet>.<lane>.<sender>'")]
    Foreign {
        /// The offending subject.
        subject: String,
    },
}

const ROOT: &str = "myc";
const VERSION: &str = "v1";

/// Which separator and wildcards a broker uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `a.b`, `*`, `>`
    Nats,
    /// `a/b`, `+`, `#`
    Mqtt,
}

impl Dialect {
    const fn separator(self) -> char {
        match self {
            Dialect::Nats => '.',
            Dialect::Mqtt => '/',
        }
    }
}

/// One token: `[a-z0-9_-]{1,32}`.
pub fn check_token(token: &str) -> Result<(), SubjectError> {
    let fits = (1..=TOKEN_BYTES_MAX).contains(&token.len());
    if fits
        && token
            .bytes()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'))
    {
        Ok(())
    } else {
        Err(SubjectError::Token {
            token: token.chars().take(64).collect(),
        })
    }
}

fn check_len(text: &str, tokens: usize) -> Result<(), SubjectError> {
    if tokens > SUBJECT_TOKENS_MAX || text.len() > SUBJECT_BYTES_MAX {
        return Err(SubjectError::TooLong {
            subject: text.chars().take(160).collect(),
        });
    }
    Ok(())
}

/// A concrete subject one can publish on. Kept in its canonical text: tokens joined by `.`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject(String);

impl Subject {
    /// Parses the canonical (dotted) text.
    pub fn parse(text: &str) -> Result<Self, SubjectError> {
        text.split('.').try_for_each(check_token)?;
        check_len(text, text.split('.').count())?;
        Ok(Self(text.to_string()))
    }

    /// Parses what a broker delivered.
    pub fn from_wire(text: &str, dialect: Dialect) -> Result<Self, SubjectError> {
        match dialect {
            Dialect::Nats => Self::parse(text),
            Dialect::Mqtt => {
                if text.contains('.') {
                    return Err(SubjectError::Token {
                        token: text.chars().take(64).collect(),
                    });
                }
                Self::parse(&text.replace('/', "."))
            }
        }
    }

    /// The canonical text; also what signatures cover.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text a broker of this dialect expects.
    pub fn render(&self, dialect: Dialect) -> String {
        match dialect {
            Dialect::Nats => self.0.clone(),
            Dialect::Mqtt => self.0.replace('.', "/"),
        }
    }

    /// The tokens, in order.
    pub fn tokens(&self) -> impl Iterator<Item = &str> {
        self.0.split('.')
    }

    /// Takes one of Mycelial's subjects apart.
    pub fn address(&self) -> Result<Address, SubjectError> {
        let foreign = || SubjectError::Foreign {
            subject: self.0.clone(),
        };
        let mut tokens = self.tokens();
        let mut next = || tokens.next().ok_or_else(foreign);
        if next()? != ROOT || next()? != VERSION {
            return Err(foreign());
        }
        let fleet: FleetId = next()?.parse().map_err(|_| foreign())?;
        let lane = Lane::from_token(next()?).ok_or_else(foreign)?;
        let sender = next()?.to_string();
        let rest: Vec<String> = tokens.map(ToString::to_string).collect();
        if rest.is_empty() {
            return Err(foreign());
        }
        Ok(Address {
            fleet,
            lane,
            sender,
            rest,
        })
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Subject {
    type Err = SubjectError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

/// What one can subscribe to: tokens, `*` for exactly one, `>` last for one or more.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern(String);

impl Pattern {
    /// Parses the canonical text (`.`, `*`, `>`).
    pub fn parse(text: &str) -> Result<Self, SubjectError> {
        let count = text.split('.').count();
        for (index, token) in text.split('.').enumerate() {
            match token {
                "*" => {}
                ">" if index + 1 == count => {}
                ">" => return Err(SubjectError::RestNotLast),
                token => check_token(token)?,
            }
        }
        check_len(text, count)?;
        Ok(Self(text.to_string()))
    }

    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text a broker of this dialect expects. MQTT's `#` also matches the parent itself;
    /// nothing is ever published there, so the difference does not show.
    pub fn render(&self, dialect: Dialect) -> String {
        let mut out = String::with_capacity(self.0.len());
        for (index, token) in self.0.split('.').enumerate() {
            if index > 0 {
                out.push(dialect.separator());
            }
            out.push_str(match (dialect, token) {
                (Dialect::Mqtt, "*") => "+",
                (Dialect::Mqtt, ">") => "#",
                (_, token) => token,
            });
        }
        out
    }

    /// Whether a subject falls under this pattern.
    pub fn matches(&self, subject: &Subject) -> bool {
        self.covers(subject.as_str())
    }

    /// Whether everything `other` matches falls under this pattern: is a subscription allowed by a rule?
    pub fn contains(&self, other: &Pattern) -> bool {
        self.covers(other.as_str())
    }

    fn covers(&self, text: &str) -> bool {
        let mut theirs = text.split('.');
        for mine in self.0.split('.') {
            match (mine, theirs.next()) {
                (">", Some(_)) => return true,
                (_, None | Some(">")) => return false,
                ("*", Some(_)) => {}
                (mine, Some(token)) if mine == token => {}
                _ => return false,
            }
        }
        theirs.next().is_none()
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Subject> for Pattern {
    fn from(subject: Subject) -> Self {
        Self(subject.0)
    }
}

/// What a subject is for. The token after the lane is always the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Control, pairwise: `ctl.<sender>.<recipient>`.
    Control,
    /// Frames of a stream: `data.<producer>.<stream>`.
    Data,
    /// Watermark and credit: `ack.<consumer>.<stream>`.
    Ack,
    /// Users' own messages: `app.<sender>.<topic…>`.
    App,
    /// Before there is a certificate: `enrol.<token>.ask` and `.answer`.
    Enrol,
}

impl Lane {
    /// All lanes.
    pub const ALL: [Lane; 5] = [Lane::Control, Lane::Data, Lane::Ack, Lane::App, Lane::Enrol];

    /// The lane's token in a subject.
    pub const fn token(self) -> &'static str {
        match self {
            Lane::Control => "ctl",
            Lane::Data => "data",
            Lane::Ack => "ack",
            Lane::App => "app",
            Lane::Enrol => "enrol",
        }
    }

    fn from_token(token: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|lane| lane.token() == token)
    }
}

/// A Mycelial subject, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The fleet.
    pub fleet: FleetId,
    /// The lane.
    pub lane: Lane,
    /// Who publishes here: a node id, or a token id on the enrolment lane.
    pub sender: String,
    /// The tokens after the sender; never empty.
    pub rest: Vec<String>,
}

fn build(fleet: &FleetId, lane: Lane, sender: &str, rest: &str) -> Subject {
    Subject(format!("{ROOT}.{VERSION}.{fleet}.{}.{sender}.{rest}", lane.token()))
}

/// Control message from one member to another.
pub fn control(fleet: &FleetId, sender: &NodeId, recipient: &NodeId) -> Subject {
    build(fleet, Lane::Control, sender.as_str(), recipient.as_str())
}

/// Every control message to one member.
pub fn control_to(fleet: &FleetId, recipient: &NodeId) -> Pattern {
    Pattern(build(fleet, Lane::Control, "*", recipient.as_str()).0)
}

/// Frames of one stream.
pub fn data(fleet: &FleetId, producer: &NodeId, stream: &StreamId) -> Subject {
    build(fleet, Lane::Data, producer.as_str(), stream.as_str())
}

/// Acknowledgements of one stream.
pub fn ack(fleet: &FleetId, consumer: &NodeId, stream: &StreamId) -> Subject {
    build(fleet, Lane::Ack, consumer.as_str(), stream.as_str())
}

/// A user's message; `topic` is one or more tokens joined by `.`.
pub fn app(fleet: &FleetId, sender: &NodeId, topic: &str) -> Result<Subject, SubjectError> {
    Subject::parse(build(fleet, Lane::App, sender.as_str(), topic).as_str())
}

/// Users' messages from anyone; `topic` may hold `*` and `>`.
pub fn app_from_any(fleet: &FleetId, topic: &str) -> Result<Pattern, SubjectError> {
    Pattern::parse(build(fleet, Lane::App, "*", topic).as_str())
}

/// Where a candidate asks to be enrolled with this token.
pub fn enrol_ask(fleet: &FleetId, token: &TokenId) -> Subject {
    build(fleet, Lane::Enrol, token.as_str(), "ask")
}

/// Where the plane answers candidates with this token.
pub fn enrol_answer(fleet: &FleetId, token: &TokenId) -> Subject {
    build(fleet, Lane::Enrol, token.as_str(), "answer")
}

/// Every candidate of the fleet.
pub fn enrol_asks(fleet: &FleetId) -> Pattern {
    Pattern(build(fleet, Lane::Enrol, "*", "ask").0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_and_subjects() {
        let long_token = "a".repeat(33);
        let long = ["abcdefghijklmnopqrstuvwxyz012345"; 4].join(".");
        for (text, good) in [
            ("a", true),
            ("a.b-c_9", true),
            ("", false),
            ("a..b", false),
            ("a.B", false),
            ("a.$sys", false),
            ("a.*", false),
            ("a/b", false),
            ("a.b c", false),
            ("1.2.3.4.5.6.7.8", true),
            ("1.2.3.4.5.6.7.8.9", false),
            (long_token.as_str(), false),
            (long.as_str(), false),
        ] {
            assert_eq!(Subject::parse(text).is_ok(), good, "{text}");
        }
    }

    #[test]
    fn renders_for_both_dialects() {
        let subject = Subject::parse("a.b.c").unwrap();
        assert_eq!(subject.render(Dialect::Nats), "a.b.c");
        assert_eq!(subject.render(Dialect::Mqtt), "a/b/c");
        assert_eq!(Subject::from_wire("a/b/c", Dialect::Mqtt).unwrap(), subject);
        assert!(Subject::from_wire("a/b.c", Dialect::Mqtt).is_err());
        let pattern = Pattern::parse("a.*.>").unwrap();
        assert_eq!(pattern.render(Dialect::Mqtt), "a/+/#");
    }

    #[test]
    fn patterns_match() {
        for (pattern, subject, matches) in [
            ("a.b", "a.b", true),
            ("a.b", "a.c", false),
            ("a.*", "a.c", true),
            ("a.*", "a", false),
            ("a.*", "a.b.c", false),
            ("a.>", "a.b.c", true),
            ("a.>", "a", false),
            (">", "a", true),
            ("*.b", "a.b", true),
        ] {
            let found = Pattern::parse(pattern)
                .unwrap()
                .matches(&Subject::parse(subject).unwrap());
            assert_eq!(found, matches, "{pattern} {subject}");
        }
        for (rule, asked, inside) in [
            ("a.>", "a.*", true),
            ("a.>", "a.>", true),
            ("a.*", "a.>", false),
            ("a.b", "a.*", false),
            ("*.b", "*.b", true),
            ("a.*.c", "a.*.*", false),
        ] {
            let found = Pattern::parse(rule).unwrap().contains(&Pattern::parse(asked).unwrap());
            assert_eq!(found, inside, "{rule} {asked}");
        }
        assert!(Pattern::parse("a.>.b").is_err());
    }

    #[test]
    fn addresses_come_apart_again() {
        let fleet = FleetId::from_hash(&[1; 32]);
        let (a, b) = (NodeId::from_hash(&[2; 32]), NodeId::from_hash(&[3; 32]));
        let subject = control(&fleet, &a, &b);
        assert!(subject.as_str().len() <= SUBJECT_BYTES_MAX);
        assert!(control_to(&fleet, &b).matches(&subject));
        let address = subject.address().unwrap();
        assert_eq!((address.lane, address.sender.as_str()), (Lane::Control, a.as_str()));
        assert_eq!(address.rest, [b.as_str()]);
        assert!(Subject::parse("a.b.c.d.e.f").unwrap().address().is_err());
        assert!(app(&fleet, &a, "orders.new").is_ok());
        assert!(app(&fleet, &a, "orders.New").is_err());
    }
}
