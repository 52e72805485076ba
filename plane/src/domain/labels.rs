//! Labels that people put on daemons, and selectors that choose daemons by them and by what is known of them.
//!
//! ```text
//! site=berlin            the label site has this value
//! site!=berlin           it has another one, or there is none
//! label:site             there is such a label
//! name:gw-*              the name; * stands for anything
//! presence:online        online, late, offline or unknown
//! version:<0.4           the version of myceliald: =, <, <=, >, >=
//! runs:orders            the workflow is in its plan
//! group:north            the group's own selector chooses it
//! -label:test            a minus turns a term around
//! ```
//!
//! Terms stand beside each other; a daemon is chosen when all of them hold. An empty selector chooses all.

use std::{cmp::Ordering, collections::BTreeMap, fmt};

use bus_schema::{
    api::{DaemonView, Presence},
    limits::NAME_BYTES_MAX,
};

use super::groups::Groups;

/// Most labels of one daemon.
pub const LABELS_MAX: usize = 32;
/// Longest value of a label, in bytes.
const VALUE_BYTES_MAX: usize = 64;
/// Longest selector, in bytes.
const SELECTOR_BYTES_MAX: usize = 1024;

/// A daemon's labels, by key.
pub type Labels = BTreeMap<String, String>;

/// What is wrong with a label, if anything.
pub fn mistake(key: &str, value: &str) -> Option<String> {
    let is_plain = |text: &str| {
        text.chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/'))
    };
    let begins_well = key.starts_with(|c: char| c.is_ascii_alphanumeric());
    if key.len() > NAME_BYTES_MAX || !begins_well || !is_plain(key) {
        return Some(format!(
            "'{}' cannot be a label: use 1 to {NAME_BYTES_MAX} letters, digits, '-', '_', '.' and '/', beginning with a letter or digit",
            key.escape_debug()
        ));
    }
    if value.is_empty() || value.len() > VALUE_BYTES_MAX || !is_plain(value) {
        return Some(format!(
            "'{}' cannot be the value of '{key}': use 1 to {VALUE_BYTES_MAX} letters, digits, '-', '_', '.' and '/'",
            value.escape_debug()
        ));
    }
    None
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    Label(String, String),
    NotLabel(String, String),
    HasLabel(String),
    Name(String),
    Presence(Presence),
    Version(Comparison, Vec<u64>),
    Runs(String),
    Group(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// Chooses daemons.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector(Vec<(bool, Test)>);

/// What a selector looks at.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// What is known of the daemon.
    pub view: &'a DaemonView,
    /// Its labels.
    pub labels: &'a Labels,
    /// Names of the workflows in its plan.
    pub runs: &'a [String],
    /// What groups stand for.
    pub groups: &'a Groups,
}

impl Selector {
    /// Reads a selector. The error says which term is wrong, and how to write it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > SELECTOR_BYTES_MAX {
            return Err(format!("the selector is longer than {SELECTOR_BYTES_MAX} bytes"));
        }
        text.split_whitespace().map(term).collect::<Result<_, _>>().map(Self)
    }

    /// Reads a selector that can be somebody's scope: one that says only what people have put there, and not what changes by
    /// itself.
    pub fn parse_scope(text: &str) -> Result<Self, String> {
        let selector = Self::parse(text)?;
        let lasts = |test: &Test| {
            matches!(
                test,
                Test::Label(..) | Test::NotLabel(..) | Test::HasLabel(_) | Test::Name(_)
            )
        };
        if selector.0.is_empty() || !selector.0.iter().all(|(_, test)| lasts(test)) {
            return Err(format!(
                "'{}' cannot be a scope: use labels and names, for example site=berlin",
                text.escape_debug()
            ));
        }
        Ok(selector)
    }

    /// Whether it names daemons or workflows.
    pub fn has_names(&self) -> bool {
        self.0
            .iter()
            .any(|(_, test)| matches!(test, Test::Name(_) | Test::Runs(_)))
    }

    /// The groups it names.
    pub fn groups(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|(_, test)| match test {
            Test::Group(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// Whether all terms hold.
    pub fn chooses(&self, candidate: &Candidate<'_>) -> bool {
        self.0
            .iter()
            .all(|(is_wanted, test)| holds(test, candidate) == *is_wanted)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (is_wanted, test)) in self.0.iter().enumerate() {
            let (space, minus) = (if at == 0 { "" } else { " " }, if *is_wanted { "" } else { "-" });
            write!(f, "{space}{minus}{test}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Label(key, value) => write!(f, "{key}={value}"),
            Self::NotLabel(key, value) => write!(f, "{key}!={value}"),
            Self::HasLabel(key) => write!(f, "label:{key}"),
            Self::Name(pattern) => write!(f, "name:{pattern}"),
            Self::Presence(presence) => write!(f, "presence:{}", format!("{presence:?}").to_lowercase()),
            Self::Runs(workflow) => write!(f, "runs:{workflow}"),
            Self::Group(name) => write!(f, "group:{name}"),
            Self::Version(comparison, numbers) => {
                let sign = match comparison {
                    Comparison::Equal => "=",
                    Comparison::Less => "<",
                    Comparison::LessOrEqual => "<=",
                    Comparison::Greater => ">",
                    Comparison::GreaterOrEqual => ">=",
                };
                let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
                write!(f, "version:{sign}{}", numbers.join("."))
            }
        }
    }
}

fn term(text: &str) -> Result<(bool, Test), String> {
    let (is_wanted, body) = match text.strip_prefix('-') {
        Some(body) => (false, body),
        None => (true, text),
    };
    let wrong = |how: &str| Err(format!("'{}' is no term of a selector: {how}", text.escape_debug()));
    // A field comes before a label, because versions may contain '='.
    let test = match (body.split_once(':'), body.split_once("!="), body.split_once('=')) {
        (Some(("label", key)), ..) if !key.is_empty() => Test::HasLabel(key.to_string()),
        (Some(("name", pattern)), ..) if !pattern.is_empty() => Test::Name(pattern.to_string()),
        (Some(("group", name)), ..) if !name.is_empty() => Test::Group(name.to_string()),
        (Some(("runs", workflow)), ..) if !workflow.is_empty() => Test::Runs(workflow.to_string()),
        (Some(("presence", word)), ..) => Test::Presence(match word {
            "online" => Presence::Online,
            "late" => Presence::Late,
            "offline" => Presence::Offline,
            "unknown" => Presence::Unknown,
            _ => return wrong("write presence:online, late, offline or unknown"),
        }),
        (Some(("version", version)), ..) => match comparison(version) {
            Some((comparison, version)) => Test::Version(comparison, version),
            None => return wrong("write for example version:<0.4"),
        },
        (Some(_), ..) => return wrong("write label:, name:, presence:, version:, runs: or group: and a value"),
        (None, Some((key, value)), _) if mistake(key, value).is_none() => Test::NotLabel(key.into(), value.into()),
        (None, None, Some((key, value))) if mistake(key, value).is_none() => Test::Label(key.into(), value.into()),
        _ => return wrong("write for example site=berlin, label:site or name:gw-*"),
    };
    Ok((is_wanted, test))
}

fn comparison(text: &str) -> Option<(Comparison, Vec<u64>)> {
    let (comparison, version) = [
        ("<=", Comparison::LessOrEqual),
        (">=", Comparison::GreaterOrEqual),
        ("<", Comparison::Less),
        (">", Comparison::Greater),
        ("=", Comparison::Equal),
        ("", Comparison::Equal),
    ]
    .into_iter()
    .find_map(|(sign, comparison)| text.strip_prefix(sign).map(|version| (comparison, version)))?;
    let numbers = numbers(version);
    (!numbers.is_empty()).then_some((comparison, numbers))
}

/// `1.20.3-rc1` as 1, 20, 3: what follows the numbers is not compared.
fn numbers(version: &str) -> Vec<u64> {
    version
        .split('.')
        .map_while(|part| {
            let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
            part[..digits].parse().ok()
        })
        .collect()
}

/// Compares as many numbers as the wanted version names, so that 0.4.7 is 0.4 and not above it.
fn compare(found: &[u64], wanted: &[u64]) -> Ordering {
    let found = found.iter().copied().chain(std::iter::repeat(0));
    found.take(wanted.len()).cmp(wanted.iter().copied())
}

fn holds(test: &Test, candidate: &Candidate<'_>) -> bool {
    match test {
        Test::Label(key, value) => candidate.labels.get(key) == Some(value),
        Test::NotLabel(key, value) => candidate.labels.get(key) != Some(value),
        Test::HasLabel(key) => candidate.labels.contains_key(key),
        Test::Name(pattern) => matches_pattern(&candidate.view.name, pattern),
        Test::Group(name) => candidate.groups.get(name).is_some_and(|group| group.chooses(candidate)),
        Test::Presence(presence) => candidate.view.presence == *presence,
        Test::Runs(workflow) => candidate.runs.iter().any(|name| matches_pattern(name, workflow)),
        Test::Version(comparison, wanted) => {
            let found = numbers(&candidate.view.version);
            let order = compare(&found, wanted);
            !found.is_empty()
                && match comparison {
                    Comparison::Equal => order.is_eq(),
                    Comparison::Less => order.is_lt(),
                    Comparison::LessOrEqual => order.is_le(),
                    Comparison::Greater => order.is_gt(),
                    Comparison::GreaterOrEqual => order.is_ge(),
                }
        }
    }
}

/// `*` stands for anything, nothing included. Each part between stars is taken where it first fits, the last at the end.
fn matches_pattern(text: &str, pattern: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::testing::node;

    fn view(name: &str, presence: Presence, version: &str) -> DaemonView {
        DaemonView {
            name: name.into(),
            node: node(1),
            presence,
            last_seen_ms: None,
            version: version.into(),
            plan_version: 0,
            plan_wanted: 0,
            troubled: 0,
            damaged: 0,
            resources: Default::default(),
        }
    }

    #[test]
    fn what_is_chosen() {
        let view = view("gw-7", Presence::Online, "0.3.12");
        let labels: Labels = [("site".to_string(), "berlin".to_string())].into();
        let runs = ["orders".to_string()];
        for (selector, is_chosen) in [
            ("", true),
            ("site=berlin", true),
            ("site=bonn", false),
            ("site!=bonn", true),
            ("line!=1", true),
            ("-site=berlin", false),
            ("label:site -label:test", true),
            ("label:test", false),
            ("name:gw-*", true),
            ("name:*7", true),
            ("name:g*-*7", true),
            ("name:gw", false),
            ("name:*8*", false),
            ("presence:online", true),
            ("-presence:offline site=berlin version:<0.4", true),
            ("version:<0.3", false),
            ("version:0.3", true),
            ("version:>0.3", false),
            ("version:>=0.3.12", true),
            ("version:>0.3.2", true),
            ("version:<=0.3.11", false),
            ("runs:orders", true),
            ("runs:stock", false),
        ] {
            let candidate = Candidate {
                view: &view,
                labels: &labels,
                runs: &runs,
                groups: &Groups::default(),
            };
            let parsed = Selector::parse(selector).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(parsed.chooses(&candidate), is_chosen, "{selector}");
        }
    }

    #[test]
    fn a_selector_is_written_as_it_is_read() {
        let text = "-presence:offline site=berlin line!=1 label:x -name:gw-* runs:o group:north version:>=0.3.12";
        let selector = Selector::parse(text).unwrap();
        assert_eq!(selector.to_string(), text);
        assert_eq!(Selector::parse(&selector.to_string()), Ok(selector));
    }

    #[test]
    fn a_scope_says_only_what_lasts() {
        for (text, may) in [
            ("site=berlin -label:test name:gw-*", true),
            ("", false),
            ("presence:online", false),
            ("site=berlin version:<1", false),
            ("runs:orders", false),
            ("group:north", false),
            ("berlin", false),
        ] {
            assert_eq!(Selector::parse_scope(text).is_ok(), may, "{text}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (selector, said) in [
            ("berlin", "site=berlin"),
            ("site=", "site=berlin"),
            ("color:red", "write label:"),
            ("presence:here", "online, late"),
            ("version:new", "version:<0.4"),
            ("label:", "write label:"),
            ("-", "site=berlin"),
        ] {
            let error = Selector::parse(selector).unwrap_err();
            assert!(error.contains(selector) && error.contains(said), "{selector}: {error}");
        }
        assert!(Selector::parse(&"a=b ".repeat(400)).is_err());
        for (key, value) in [
            ("", "x"),
            ("-a", "x"),
            ("a b", "x"),
            ("a", ""),
            ("a", "x y"),
            ("a", &"x".repeat(65)),
        ] {
            assert!(mistake(key, value).is_some(), "{key}={value}");
        }
        assert_eq!(mistake("plant/line", "7.b"), None);
    }
}
