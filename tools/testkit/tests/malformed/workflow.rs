//! Workflows: one table, told by `myceliald run` as by `mycelial workflow validate` and `apply`.

use std::fs;

use testkit::{temp_dir, wait_ok, wait_until};

use crate::{Case, SOON, check, program, text, world::World};

/// A good workflow. Its lines are counted below.
const GOOD: &str = r#"name = "orders"

[sources.db]
type = "sqlite"
daemon = "gateway"
path = "shop.db"
table = "orders"

[transforms.keep]
type = "filter"
from = "db"
where = "amount > 10"

[destinations.store]
type = "stdout"
daemon = "gateway"
from = "keep"
"#;

/// What is wrong; what stands in the good workflow, and what instead; what is told of it. `:10:` stands for the file and
/// its line.
const TABLE: &[(&str, &str, &str, &[&str])] = &[
    (
        "a cycle",
        "from = \"db\"\nwhere = \"amount > 10\"",
        "from = \"more\"\nwhere = \"amount > 10\"\n\n[transforms.more]\ntype = \"filter\"\nfrom = \"keep\"\nwhere = \"true\"",
        &[":11: transforms.keep.from: records would go round for ever: keep → more → keep"],
    ),
    (
        "an unknown component",
        "\"filter\"",
        "\"fliter\"",
        &[
            ":10: transforms.keep.type: there is no transform 'fliter'",
            "did you mean 'filter'?",
        ],
    ),
    (
        "a component of another role",
        "\"filter\"",
        "\"sqlite\"",
        &[":10: transforms.keep.type: 'sqlite' is a source and a destination, not a transform"],
    ),
    (
        "an unknown key",
        "table = ",
        "tabel = ",
        &[":7: sources.db.tabel: unknown key 'tabel'", "did you mean 'table'?"],
    ),
    (
        "a wrong type of value",
        "\"shop.db\"",
        "5",
        &[":6: sources.db.path: ", "text", "number"],
    ),
    (
        "a required key that is missing",
        "path = \"shop.db\"\n",
        "",
        &[":3: sources.db: ", "'path' is missing"],
    ),
    (
        "a value that is too small",
        "table = ",
        "poll_interval_ms = 1\ntable = ",
        &[":7: sources.db.poll_interval_ms", "10"],
    ),
    (
        "two writers to one input",
        "[transforms.keep]\ntype = \"filter\"\nfrom = \"db\"",
        "[sources.other]\ntype = \"host_metrics\"\ndaemon = \"gateway\"\n\n[transforms.keep]\ntype = \"filter\"\nfrom = [\"db\", \"other\"]",
        &[
            "transforms.keep.from: 'filter' takes one input",
            "put a 'merge' before it",
        ],
    ),
    (
        "no destination",
        "[destinations.store]\ntype = \"stdout\"\ndaemon = \"gateway\"\nfrom = \"keep\"\n",
        "",
        &["the workflow has no destination", "add a section [destinations.<name>]"],
    ),
    (
        "a source that leads nowhere",
        "[transforms.keep]",
        "[sources.other]\ntype = \"host_metrics\"\ndaemon = \"gateway\"\n\n[transforms.keep]",
        &[":9: sources.other: nothing reads from 'other'", "add from = \"other\""],
    ),
    (
        "an input that is not there",
        "from = \"keep\"",
        "from = \"kep\"",
        &[
            ":17: destinations.store.from: there is no node 'kep'",
            "did you mean 'keep'?",
        ],
    ),
    (
        "one name twice",
        "[destinations.store]",
        "[destinations.keep]",
        &[":14: destinations.keep: there is already a node 'keep': transforms.keep on line 9"],
    ),
    (
        "a key twice",
        "table = ",
        "path = \"x\"\ntable = ",
        &[":7: 'path' stands here twice", "remove one of them"],
    ),
    (
        "a name that is none",
        "\"orders\"\n\n",
        "\"My Orders\"\n\n",
        &[":1: name: 'My Orders' cannot be a workflow's name"],
    ),
    (
        "text without quotes",
        "\"filter\"",
        "filter",
        &[":10: 'filter' is not in quotes", "write \"filter\""],
    ),
    (
        "a heading that is not closed",
        "[transforms.keep]",
        "[transforms.keep",
        &[":9: the text is not TOML here"],
    ),
];

/// Cases of all commands that read a workflow file.
struct Reader {
    file: std::path::PathBuf,
    commands: Vec<(testkit::Cmd, i32)>,
}

impl Reader {
    fn check(&self, content: &[u8], what: &str, says: &[&str]) {
        fs::write(&self.file, content).unwrap();
        let name = self.file.display().to_string();
        let says: Vec<String> = says
            .iter()
            .map(|part| {
                if part.starts_with(':') {
                    format!("{name}{part}")
                } else {
                    part.to_string()
                }
            })
            .collect();
        let says: Vec<&str> = says.iter().map(String::as_str).chain(["orders.toml"]).collect();
        let case = |(cmd, code): &(testkit::Cmd, i32)| Case::new(what, cmd.clone(), *code, &says);
        check(self.commands.iter().map(case).collect());
    }

    /// The whole table, each text as `fit` makes it fit this command.
    fn check_all(&self, fit: impl Fn(String) -> String) {
        for (what, there, instead, says) in TABLE {
            assert!(GOOD.contains(there), "{what}: {there}");
            self.check(fit(GOOD.replacen(there, instead, 1)).as_bytes(), what, says);
        }
        self.check(
            b"",
            "an empty file",
            &["the workflow has no name", "begin the text with"],
        );
        // What cannot even be read is a mistake of the command line.
        let cannot = |what: &str, says: &[&str]| {
            let case = |(cmd, _): &(testkit::Cmd, i32)| Case::new(what, cmd.clone(), 2, says);
            check(self.commands.iter().map(case).collect());
        };
        fs::write(&self.file, b"name = \"a\"\n\xff").unwrap();
        cannot(
            "no text",
            &["orders.toml:2: the file is not UTF-8 text", "save it as UTF-8"],
        );
        fs::remove_file(&self.file).unwrap();
        cannot("no file", &["orders.toml: cannot read the file: No such file"]);
    }
}

#[test]
fn on_one_machine() {
    let dir = temp_dir("malformed-run");
    let file = dir.path().join("orders.toml");
    let reader = Reader {
        commands: vec![(program("myceliald", &["run", text(&file)]), 2)],
        file: file.clone(),
    };
    // The same lines, without daemons.
    let alone = |text: String| text.replace("daemon = \"gateway\"\n", "\n");
    reader.check_all(alone);
    // What only the components themselves can tell. (component, what stands there, what instead)
    for (component, there, instead, says) in [
        (
            "filter",
            "\"amount > 10\"",
            "\"amount >\"",
            &[":12: transforms.keep.where: ", "`amount >`"][..],
        ),
        (
            "filter",
            "\"amount > 10\"",
            "\"let x = 5; x\"",
            &[":12: transforms.keep.where: "],
        ),
        (
            "filter",
            "table = \"orders\"",
            "query = \"SELECT 1\"",
            &[":3: sources.db.cursor: is needed with query"],
        ),
        (
            "derive",
            "where = \"amount > 10\"",
            "columns = { a = \"1 +\" }",
            &[":12: transforms.keep.columns.a: "],
        ),
        (
            "cast",
            "where = \"amount > 10\"",
            "columns = { a = \"floaty\" }",
            &[":12: transforms.keep.columns.a: 'floaty' is no type"],
        ),
    ] {
        let wrong = alone(GOOD.replacen("filter", component, 1).replacen(there, instead, 1));
        reader.check(wrong.as_bytes(), instead, says);
    }
    let says = [
        ":5: sources.db.daemon: there is no daemon 'gateway'",
        "leave 'daemon' out",
    ];
    reader.check(GOOD.as_bytes(), "a daemon where there is none", &says);
    let made: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(made, ["orders.toml"], "a mistake makes nothing");
}

#[test]
fn in_a_fleet() {
    let world = World::start("malformed-workflow");
    let mut gateway = world.daemon("gateway");
    let file = world.path("orders.toml");
    let reader = Reader {
        commands: ["validate", "apply"]
            .map(|verb| (world.operator(&["workflow", verb, text(&file)]), 3))
            .into(),
        file: file.clone(),
    };
    fs::write(&file, GOOD).unwrap();
    wait_ok("the daemon's components", SOON, || {
        let done = world.cli(&["workflow", "validate", text(&file)]);
        if done.code() == Some(0) {
            Ok(())
        } else {
            Err(done.stderr)
        }
    });
    reader.check_all(|text| text);
    for (what, there, instead, says) in [
        (
            "an unknown daemon",
            "\"gateway\"",
            "\"gatewya\"",
            &[
                ":5: sources.db.daemon: there is no daemon 'gatewya'",
                "did you mean 'gateway'?",
            ][..],
        ),
        (
            "no daemon",
            "daemon = \"gateway\"\n",
            "",
            &[":3: sources.db: 'daemon' is missing", "daemon = \"gateway\""],
        ),
    ] {
        reader.check(GOOD.replacen(there, instead, 1).as_bytes(), what, says);
    }
    let none = world.cli(&["workflow", "list", "-o", "json"]).ok();
    assert_eq!(none.trim(), "[]", "what is wrong is not stored");

    // An expression is for the daemon to read: it says so where the operator looks.
    fs::write(&file, GOOD.replace("amount > 10", "amount >")).unwrap();
    world.cli(&["workflow", "apply", text(&file)]).ok();
    wait_until("the daemon's complaint", SOON, || {
        let status = world.cli(&["workflow", "status", "orders"]).ok();
        (status.contains("failed") && status.contains("keep: where: ") && status.contains("`amount >`")).then_some(())
    });
    check(vec![
        Case::new(
            "no such workflow",
            world.operator(&["workflow", "show", "orderz"]),
            5,
            &["orderz", "orders"],
        ),
        Case::new(
            "no such daemon",
            world.operator(&["daemon", "show", "gatewaz"]),
            5,
            &["gatewaz", "gateway"],
        ),
        Case::new(
            "no such component",
            world.operator(&["components", "sqlit"]),
            5,
            &["there is no component 'sqlit'", "did you mean 'sqlite'?"],
        ),
        Case::new(
            "a revision that is not the current one",
            world.operator(&["workflow", "apply", text(&file), "--expect", "7"]),
            6,
            &["7", "1"],
        ),
    ]);
    assert!(gateway.term_and_wait(SOON).success());
}
