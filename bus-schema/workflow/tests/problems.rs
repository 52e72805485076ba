//! Every kind of mistake, from `problems.txt`: what is changed in a good workflow, and everything the user is told then.
//! `UPDATE=1 cargo test -p workflow --test problems` writes what is told now into the table; read the difference.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{fmt::Write as _, fs, path::PathBuf};

use common::{alone, fleet};
use workflow::{Fleet, PROBLEMS_MAX, TEXT_BYTES_MAX, check, compile, parse, validate};

/// One case of the table.
#[derive(Default)]
struct Case {
    title: String,
    fleet: String,
    /// Texts to replace, each with its replacement.
    swaps: Vec<(String, String)>,
    expected: String,
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/problems.txt")
}

/// The good workflow and the cases.
fn table() -> (String, Vec<Case>) {
    let text = fs::read_to_string(path()).unwrap();
    let mut parts = text.split("\n## ");
    let good = parts
        .next()
        .unwrap()
        .lines()
        .filter_map(|line| line.strip_prefix("| ").or_else(|| line.strip_prefix('|')));
    let good = good.fold(String::new(), |text, line| text + line + "\n");
    (good, parts.map(case).collect())
}

fn case(text: &str) -> Case {
    let (title, body) = text.split_once('\n').unwrap();
    let mut case = Case {
        title: title.to_string(),
        ..Case::default()
    };
    let mut last = ' ';
    for line in body.lines().filter(|line| !line.is_empty()) {
        let mark = line.chars().next().unwrap();
        let rest = line.get(2..).unwrap_or_default();
        match mark {
            '@' => case.fleet = rest.to_string(),
            '-' | '+' => {
                if last != '-' && (mark == '-' || last != '+') {
                    case.swaps.push((String::new(), String::new()));
                }
                let (this, that) = case.swaps.last_mut().unwrap();
                let side = if mark == '-' { this } else { that };
                *side += &format!("{rest}\n");
            }
            '!' | '?' => case.expected += &format!("{line}\n"),
            _ => panic!("{title}: what is '{line}'?"),
        }
        last = mark;
    }
    case
}

impl Case {
    fn text(&self, good: &str) -> String {
        self.swaps
            .iter()
            .fold(good.to_string(), |text, (this, that)| match this.as_str() {
                "" => that.clone(),
                this => {
                    assert_eq!(
                        text.matches(this).count(),
                        1,
                        "{}: stands once in the good workflow: {this}",
                        self.title
                    );
                    text.replace(this, that)
                }
            })
    }

    fn told(&self, good: &str) -> String {
        let fleet = match self.fleet.as_str() {
            "" => fleet(),
            "alone" => alone(),
            "empty" => Fleet::new(),
            other => panic!("{}: no fleet '{other}'", self.title),
        };
        let text = self.text(good);
        let problems = validate(&text, &fleet).err().unwrap_or_default();
        // The parts tell together what the whole tells.
        let apart = match parse(&text) {
            Ok(spec) => check(&spec, &fleet),
            Err(problems) => problems,
        };
        assert_eq!(
            apart.is_empty(),
            problems.is_empty(),
            "{}: {apart:?} {problems:?}",
            self.title
        );
        problems.iter().fold(String::new(), |mut out, problem| {
            writeln!(out, "! {} {}: {}", problem.line, problem.place, problem.message).unwrap();
            if !problem.hint.is_empty() {
                writeln!(out, "?    {}", problem.hint).unwrap();
            }
            out
        })
    }
}

#[test]
fn every_mistake_is_told_in_full() {
    let (good, cases) = table();
    let mut wrong = String::new();
    let mut updated = fs::read_to_string(path()).unwrap();
    for case in &cases {
        let told = case.told(&good);
        if told != case.expected {
            write!(
                wrong,
                "\n## {}\n{}--- expected\n{}--- told\n{told}",
                case.title,
                case.text(&good),
                case.expected
            )
            .unwrap();
            let at = updated.find(&format!("\n## {}\n", case.title)).unwrap();
            let end = updated[at + 1..]
                .find("\n## ")
                .map_or(updated.len(), |end| at + 1 + end);
            let body: Vec<&str> = updated[at..end]
                .lines()
                .filter(|line| !line.starts_with(['!', '?']))
                .collect();
            let block = format!("{}\n{told}", body.join("\n").trim_end());
            updated.replace_range(at..end, &block);
        }
    }
    if std::env::var_os("UPDATE").is_some() {
        fs::write(path(), updated).unwrap();
    } else {
        assert!(wrong.is_empty(), "{wrong}");
    }
}

#[test]
fn the_good_one_reads_as_written() {
    let (good, _) = table();
    let spec = parse(&good).unwrap();
    assert_eq!(spec.name(), "orders");
    assert_eq!(spec.daemons().collect::<Vec<_>>(), ["gateway", "hub"]);
    assert_eq!(
        spec.nodes().iter().map(|node| node.id.as_str()).collect::<Vec<_>>(),
        ["db", "keep", "store"]
    );
    assert_eq!(compile(&spec, &fleet(), 7).unwrap().parts[0].workflow.revision, 7);
    assert!(compile(&spec, &Fleet::new(), 7).is_err());
}

#[test]
fn limits_hold() {
    let (good, _) = table();
    let first = |text: &str| validate(text, &fleet()).unwrap_err().remove(0).message;
    let long = format!("{good}#{}", "x".repeat(TEXT_BYTES_MAX));
    assert_eq!(
        first(&long),
        format!(
            "the text has {} bytes; a workflow has at most {TEXT_BYTES_MAX}",
            long.len()
        )
    );

    let sinks = |count: usize| {
        (0..count).fold(good.clone(), |text, n| {
            text + &format!("[destinations.d{n}]\ntype = \"stdout\"\ndaemon = \"hub\"\nfrom = \"keep\"\n")
        })
    };
    assert_eq!(validate(&sinks(253), &fleet()), parse(&sinks(253)));
    assert_eq!(first(&sinks(254)), "the workflow has 257 nodes; at most 256 fit");

    let unknown = (0..PROBLEMS_MAX + 5).fold(good.clone(), |text, n| text + &format!("unknown_{n} = 1\n"));
    let problems = validate(&unknown, &fleet()).unwrap_err();
    assert_eq!(problems.len(), PROBLEMS_MAX + 1);
    assert_eq!(problems[PROBLEMS_MAX].message, "and 5 more problems");

    // Each merge after two transforms doubles the ways.
    let filter = |name: &str, from: &str| {
        format!("[transforms.{name}]\ntype = \"filter\"\nfrom = \"{from}\"\nexpression = \"x\"\n")
    };
    let diamond = |n: usize, from: &str| {
        let merge = format!("[transforms.m{n}]\ntype = \"merge\"\nfrom = [\"a{n}\", \"b{n}\"]\n");
        filter(&format!("a{n}"), from) + &filter(&format!("b{n}"), from) + &merge
    };
    let end = |from: &str| format!("[destinations.end]\ntype = \"stdout\"\ndaemon = \"hub\"\nfrom = \"{from}\"\n");
    let diamonds = (1..10).fold(good.clone() + &diamond(0, "db"), |text, n| {
        text + &diamond(n, &format!("m{}", n - 1))
    });
    let message = "records would have more than 1024 ways through the workflow: merges and 'live_first' multiply them";
    assert_eq!(first(&(diamonds + &end("m9"))), message);

    // Many streams, each with a long way in its name, do not fit a message.
    let name = |n: usize| format!("a-transform-with-a-long-name-{n:03}");
    let chain = (1..150).fold(filter(&name(0), "m0"), |text, n| text + &filter(&name(n), &name(n - 1)));
    let first_two = good.clone() + &diamond(0, "db") + &chain + &diamond(1, &name(149));
    let long_way = (2..7).fold(first_two, |text, n| text + &diamond(n, &format!("m{}", n - 1))) + &end("m6");
    assert!(parse(&long_way).is_ok());
    assert_eq!(first(&long_way), "what daemon 'gateway' would run is over 524288 bytes");
}
