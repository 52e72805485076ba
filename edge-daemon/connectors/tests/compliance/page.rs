//! `docs/COMPLIANCE.md` as text. Knows the table, runs nothing.

use std::{env, fmt::Write as _, fs, path::Path};

use crate::world::{Ask, Row, World};

/// How long runs for leaks came out, a line each; `cargo xtask compliance --leak` writes it.
const RUNS: &str = "tests/compliance/leaks.txt";
const RUNS_HEAD: &str = "
## Ten minutes and more

How the last long run for leaks came out (`cargo xtask compliance --leak 10`): the least memory that the process of the test had
in use in the second third of the run, and in the last third. Everything is in it: the runner, the connector, its client, and
what feeds or reads its system.

| | minutes | second third, KiB | last third, KiB |
|---|---|---|---|
";
const PAGE: &str = "../../docs/COMPLIANCE.md";
const HEAD: &str = "# What every connector was tested for

Written from the table of the suite that tests it (`edge-daemon/connectors/tests/compliance`), each connector against its real
system, under the runner that daemons have. `cargo nextest run -p connectors --test compliance` runs it; what is `yes` here fails
there if it is not so, and so does a test that was not told how to look at it.
`UPDATE=1 cargo test -p connectors --test compliance page` writes this page, and a test fails while it says anything else, or
while a connector has no line.

\"Everything arrives\" is said of sources whose system keeps what was not read. Of the others (`generator`, `host_metrics`,
`modbus`, `nats` with a subject, `opcua`, `syslog`) it is that they go on with what comes then, and that nothing comes twice.

- **untouched**: a `check` leaves everything as it was: what is there before and after it is compared as somebody else sees it,
  on a system where the connector has never been, and on one where it was.
- **check**: `check` finds nothing wrong where nothing is, and does not disturb the same connector at work.
- **wrong**: `check` names what is wrong where something is: a host that does not exist, a closed port, a missing table, a
  directory that is not there.
- **stop**: told to stop, it ends within ten seconds, and goes on later where it was.
- **kill**: dropped in the middle of a batch, five times. A source with positions and a destination with watermarks lose
  nothing and repeat nothing; the others do what their reference says.
- **pressure**: the other end takes nothing for a second or more while many records come. A source reads on until so many are
  under way, and then no more; a destination says of none that it is delivered. Then everything arrives.
- **bad record**: it goes to the dead letters, alone.
- **drift**: records get another column meanwhile, and arrive with what is in it.
- **reconnect**: the server is stopped and started again, twice. Everything arrives.
- **leak**: it runs, is stopped and begins anew again and again, and the process takes no more memory: three seconds in the
  tests, ten minutes with `cargo xtask compliance --leak 10`.

Sources whose system waits for an acknowledgement (`mqtt`, `nats` with a stream, `webhook`) are also run into a destination where
what is committed is durable only after a while, as in an object store: for longer than JetStream waits by itself, and with more
messages than it or the broker gives without an acknowledgement. Everything arrives, each record once.
";

/// How a run for leaks came out.
#[derive(Debug, PartialEq, Eq)]
pub struct Ran {
    /// How long it was.
    pub minutes: u64,
    /// The least memory in use in its second third.
    pub before_kib: u64,
    /// And in its last third.
    pub after_kib: u64,
}

impl Ran {
    /// As it is written down.
    pub fn line(&self, key: &str) -> String {
        format!("{key} {} {} {}\n", self.minutes, self.before_kib, self.after_kib)
    }

    /// What was written down of a key.
    fn find(text: &str, key: &str) -> Option<Self> {
        let rest = text
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))?;
        let numbers: Option<Vec<u64>> = rest.split(' ').map(|word| word.parse().ok()).collect();
        match numbers?[..] {
            [minutes, before_kib, after_kib] => Some(Self {
                minutes,
                before_kib,
                after_kib,
            }),
            _ => None,
        }
    }
}

#[test]
fn runs_are_written_and_found() {
    let ran = Ran {
        minutes: 10,
        before_kib: 7,
        after_kib: 8,
    };
    let text = format!("{}{}", ran.line("source-nats-JetStream"), ran.line("source-nats"));
    assert_eq!(Ran::find(&text, "source-nats"), Some(ran));
    assert_eq!(Ran::find(&text, "source-nat"), None);
    assert_eq!(Ran::find("source-nats x 1 2", "source-nats"), None);
}

fn name(ask: Ask) -> &'static str {
    match ask {
        Ask::Untouched => "untouched",
        Ask::Check => "check",
        Ask::Wrong => "wrong",
        Ask::Stop => "stop",
        Ask::Kill => "kill",
        Ask::Pressure => "pressure",
        Ask::BadRecord => "bad record",
        Ask::Drift => "drift",
        Ask::Reconnect => "reconnect",
        Ask::Leak => "leak",
    }
}

fn way(row: &Row) -> String {
    match row.way {
        "" => String::new(),
        way => format!(", {way}"),
    }
}

/// The page.
fn text(rows: &[Row], runs: &str) -> String {
    let mut reasons: Vec<&str> = Vec::new();
    let mut text = HEAD.to_string();
    for (heading, is_source) in [("Sources", true), ("Destinations", false)] {
        let heads: Vec<&str> = Ask::ALL.into_iter().map(name).collect();
        let lines: String = heads.iter().map(|_| "---|").collect();
        let _ = write!(text, "\n## {heading}\n\n| | {} |\n|---|{lines}\n", heads.join(" | "));
        for row in rows
            .iter()
            .filter(|row| matches!(row.world, World::Source(_)) == is_source)
        {
            let cell = |ask: Ask| match row.why_not(ask) {
                None => "yes".to_string(),
                Some(why) => {
                    let known = reasons.iter().position(|known| *known == why);
                    let number = known.unwrap_or_else(|| {
                        reasons.push(why);
                        reasons.len() - 1
                    });
                    format!("({})", number + 1)
                }
            };
            let cells: Vec<String> = Ask::ALL.into_iter().map(cell).collect();
            let _ = writeln!(text, "| `{}`{} | {} |", row.component, way(row), cells.join(" | "));
        }
    }
    text.push_str("\n## What does not apply\n\n");
    for (index, why) in reasons.iter().enumerate() {
        let _ = writeln!(text, "{}. {why}", index + 1);
    }
    text.push_str(RUNS_HEAD);
    for row in rows.iter().filter(|row| row.why_not(Ask::Leak).is_none()) {
        let role = match row.world {
            World::Source(_) => "source",
            World::Sink(_) => "destination",
        };
        let ran = match Ran::find(runs, &row.key()) {
            Some(ran) => format!("{} | {} | {}", ran.minutes, ran.before_kib, ran.after_kib),
            None => "not run yet | |".to_string(),
        };
        let _ = writeln!(text, "| {role} `{}`{} | {ran} |", row.component, way(row));
    }
    text
}

/// Compares the page with the table, or writes it.
pub fn check(rows: &[Row]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = text(rows, &fs::read_to_string(root.join(RUNS)).unwrap_or_default());
    let path = root.join(PAGE);
    if env::var_os("UPDATE").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == text,
        "docs/COMPLIANCE.md is not what the table says: UPDATE=1 cargo test -p connectors --test compliance page"
    );
}
