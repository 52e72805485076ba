//! What `-o json` gives: every command of the command line is typed against a small fleet, and the fields of its answer are those that
//! `docs/cli/OUTPUT.md` promises. `UPDATE=1` writes the page anew.

#![cfg(target_os = "linux")]

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use serde_json::Value;
use testkit::{
    Broker, Cmd, Finished, Fleet, Proc,
    scenario::{refuse_every_tenth, shop_workflow},
    shop, wait_ok,
};

const SOON: Duration = Duration::from_secs(60);
/// How long an answer is waited for that is empty in the beginning.
const FILLED: Duration = Duration::from_secs(15);

const HEAD: &str = "\
# What `-o json` gives

Version 1. Made by `UPDATE=1 cargo nextest run -p testkit -E 'binary(cli_shapes)'`, which types each command against a fleet; without
`UPDATE` the same test fails when an answer is another one than this page promises.

Within a version fields stay as they are, and new ones may come: read those that you know. `any` is null or something else. `-o yaml`
gives the same fields; `-o jsonl` those of a list, an object a line. `items` come one after the other, an object a line in `json`, too;
those of `tap` are the records, by column. A `text` is JSON's, in quotes; `-o table` is for people and may change.
`-l` stands for the same command with a selector in the place of a name. `workflow diff` of several files or of a directory gives a list
of what it gives for one; `workflow apply --waves` gives the rollout that has begun, or what `workflow apply` gives when there is
nothing to do; `daemon list` has `labels` with `--labels`.

`-o name` gives the names of things alone, a line each, to be typed again: the table below says which field that is. Of what is no list of
things: `doctor`, `workflow check` and `workflow validate` give what is ill and nothing when all is well; `workflow test` the tests that
differ; `audit report` what was done, `who: action`; `logs` and `tap` the daemon of each line or record; `sub` the topic; commands
that daemons carry out, the daemons; `acl`, `dlq replay`, `dlq purge` and a workflow's text of an earlier revision have no names, and give
nothing.

| command | gives | fields |
|---|---|---|
";

/// Commands without an answer for programs, and what they do instead.
const SILENT: &[(&str, &str)] = &[
    ("init", "says on stderr what it made"),
    ("pub", "says nothing"),
    ("context use", "says on stderr which is used"),
    ("context remove", "says on stderr what is gone"),
    ("bugreport", "writes a JSON file"),
    ("completion", "prints a script for a shell"),
    ("man", "writes pages"),
    (
        "audit export",
        "writes a file with an object a line: the fields of `audit list`",
    ),
    ("backup", "what `mycelial-plane backup` says"),
    ("alert test", "says on stderr whether the message was taken"),
    ("workflow delete", "says on stderr what is gone"),
];

/// What is typed, in this order. `@` stands for the fleet's directory, `$(…)` for the first line of what a command prints.
const TYPED: &[&str] = &[
    "info",
    "top",
    "doctor",
    "context list",
    "token create --name spare --label site=berlin",
    "token list",
    "token revoke $(token list -o name) --yes",
    "operator list",
    "group set south site=bonn",
    "group set north site=berlin",
    "group list",
    "group remove north --yes",
    "daemon label gateway site=berlin",
    "daemon list",
    "daemon list --labels",
    "daemon show gateway",
    "daemon pause gateway",
    "daemon resume gateway",
    "daemon drain gateway --wait-max 5s",
    "daemon resume gateway",
    "daemon spool-check gateway",
    "daemon log-level info gateway --for 1s",
    "daemon ping gateway",
    "daemon ping -l site=berlin",
    "daemon diagnose gateway",
    "daemon diagnose -l site=berlin",
    "secret set key --daemon gateway",
    "secret set key -l site=berlin --yes",
    "secret list --daemon gateway",
    "secret list -l site=berlin",
    "secret remove key --daemon gateway --yes",
    "workflow validate @/broken.toml",
    "workflow apply @/shop.workflow.toml --reason first",
    "workflow list",
    "workflow show shop",
    "workflow status shop",
    "workflow nodes shop",
    "workflow check shop",
    "workflow test @/tested.toml",
    "workflow preview @/tested.toml --given rows=@/rows.jsonl",
    "workflow diff @/tested.toml",
    "workflow restart shop",
    "workflow pause shop",
    "workflow resume shop",
    "workflow logs shop",
    "logs gateway -n 5",
    "ledger",
    "components sqlite",
    "tap shop orders --count 1 --seconds 30",
    "sub line1.> --count 1",
    "acl export --broker nats",
    "dlq list shop",
    "dlq show $(dlq list shop -o name)",
    "dlq edit $(dlq list shop -o name) --set quantity=5",
    "dlq replay $(dlq list shop -o name) --yes",
    "dlq purge --all --workflow shop --yes",
    "metrics daemon gateway",
    "metrics workflow shop",
    "metrics stream $(ledger -o name)",
    "metrics node $(workflow nodes shop -o name)",
    "alert rules",
    "alert apply @/rules.toml",
    "audit list",
    "audit list --daemon gateway",
    "audit list -l name:*",
    "audit verify",
    "audit verify -l name:*",
    "audit report",
    "audit report -l name:*",
    "rollout start @/changed.toml --waves 100% --soak 10m --reason second",
    "rollout list",
    "rollout show 1",
    "rollout pause 1",
    "rollout resume 1",
    "rollout rollback 1 --yes",
    "rollout start @/changed.toml --waves 100% --soak 10m",
    "rollout abort $(rollout list -o name) --yes",
    "rollout watch $(rollout list -o name)",
    "workflow revisions shop",
    "workflow rollback shop --to 1 --yes",
    "enrol open",
    "enrol pending",
    "enrol approve $(enrol pending -o name) --name pump",
    "enrol close",
    "alert list",
    "alert silence $(alert list -o name) --reason known",
    "daemon rotate gateway --wait-max 1s",
    "daemon revoke hub --yes",
    "daemon revoke -l name:pump --yes",
    "operator revoke anna --yes",
];

/// What `-o name` gives: this field of each of what `-o json` gives.
const NAMED: &[(&str, &str)] = &[
    ("alert rules", "name"),
    ("audit list", "number"),
    ("components", "name"),
    ("context list", "name"),
    ("daemon list", "name"),
    ("daemon show gateway", "name"),
    ("group list", "name"),
    ("metrics daemon gateway", "metric"),
    ("operator list", "name"),
    ("rollout list", "id"),
    ("token list", "id"),
    ("workflow list", "name"),
    ("workflow revisions shop", "number"),
];

/// Their likes were typed, and need somebody more than there is.
const LIKE: &[(&str, &str)] = &[("enrol reject", "enrol approve")];

#[derive(Debug, PartialEq, Eq)]
struct Shape {
    form: &'static str,
    fields: BTreeMap<String, &'static str>,
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "any",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "text",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    }
}

fn fields<'a>(items: impl Iterator<Item = &'a Value>) -> BTreeMap<String, &'static str> {
    let mut all: BTreeMap<String, &'static str> = BTreeMap::new();
    for (key, value) in items.filter_map(Value::as_object).flatten() {
        let known = all.entry(key.clone()).or_insert("any");
        if *known == "any" {
            *known = kind(value);
        }
    }
    all
}

fn shape(said: &str) -> Result<Shape, String> {
    let of = |form, items: &[Value]| Shape {
        form,
        fields: fields(items.iter()),
    };
    match serde_json::from_str::<Value>(said) {
        Ok(Value::Array(items)) => Ok(of("a list", &items)),
        Ok(one @ Value::Object(_)) => Ok(of("an object", &[one])),
        Ok(one) => Ok(Shape {
            form: kind(&one),
            fields: BTreeMap::new(),
        }),
        // What comes one after the other is an object a line.
        Err(_) => {
            let items = said
                .lines()
                .map(serde_json::from_str)
                .collect::<Result<Vec<Value>, _>>();
            items
                .map(|items| of("items", &items))
                .map_err(|error| format!("{error}: {said}"))
        }
    }
}

/// What goes on for a while gives an object a line, also when it gave one; what a tap shows is the record itself.
fn one_by_one(command: &str, shape: Shape) -> Shape {
    match command {
        "tap" => Shape {
            form: "items",
            fields: BTreeMap::new(),
        },
        "sub" | "logs" | "workflow logs" | "rollout watch" => Shape { form: "items", ..shape },
        _ => shape,
    }
}

/// One line of the page.
fn row(command: &str, Shape { form, fields }: &Shape) -> String {
    let fields: Vec<String> = fields.iter().map(|(key, kind)| format!("{key} ({kind})")).collect();
    format!("| `{command}` | {form} | {} |\n", fields.join(", "))
}

/// Every command there is, from the pages that are made of the program's own help.
fn commands(docs: &std::path::Path) -> BTreeSet<String> {
    let pages = fs::read_dir(docs)
        .expect("docs/cli")
        .map(|entry| entry.expect("a page").path());
    let texts = pages.map(|path| fs::read_to_string(path).expect("a page"));
    let mut all = BTreeSet::new();
    for text in texts {
        let headings = text
            .lines()
            .filter_map(|line| line.strip_prefix("## `mycelial ")?.strip_suffix('`'));
        all.extend(headings.map(str::to_string));
    }
    all
}

struct World {
    fleet: Fleet,
    daemons: Vec<Proc>,
}

impl World {
    fn new() -> Self {
        let fleet = Fleet::start(Broker::embedded(false), None);
        for name in ["gateway", "hub"] {
            fleet.enrol(name);
        }
        let string = fleet.plane_command(&["token", "--role", "operator"]);
        Cmd::bin("mycelial")
            .args(["--home", &fleet.path("anna"), "init", string.trim(), "--name", "anna"])
            .run(SOON)
            .ok();
        shop::create(&fleet.dir().join("shop.db")).expect("a database");
        shop::add(&fleet.dir().join("shop.db"), 200).expect("rows");
        refuse_every_tenth(&fleet.dir().join("copy.db"));
        let daemons = vec![fleet.daemon("gateway", None), fleet.daemon("hub", None)];
        let shop = shop_workflow(&fleet);
        fleet.apply("shop", &shop);
        let tested = "name = \"tested\"\n[sources.rows]\ntype = \"file\"\ndaemon = \"gateway\"\npath = \"in.jsonl\"\n\
                      format = \"json_lines\"\n[transforms.large]\ntype = \"filter\"\nfrom = \"rows\"\nwhere = \"n > 1\"\n\
                      [destinations.out]\ntype = \"file\"\ndaemon = \"gateway\"\nfrom = \"large\"\npath = \"out.jsonl\"\n\
                      format = \"json_lines\"\n[tests.large]\ngiven.rows = [{ n = 1 }, { n = 2 }]\nexpect.out = [{ n = 2 }]\n";
        let rule = "[[rule]]\nname = \"gone\"\nwhen = \"offline\"\nover = 0\nfor = \"1s\"\nseverity = \"warning\"\n";
        for (name, text) in [
            ("broken.toml", shop.replace("sqlite", "sqlight")),
            ("changed.toml", format!("# another text\n{shop}")),
            ("tested.toml", tested.to_string()),
            ("rules.toml", rule.to_string()),
            ("rows.jsonl", "{\"n\":1}\n{\"n\":2}\n".to_string()),
        ] {
            fs::write(fleet.path(name), text).expect("a file");
        }
        Self { fleet, daemons }
    }

    fn cli(&self, words: &[&str]) -> Cmd {
        Cmd::bin("mycelial")
            .args(["--home", &self.fleet.path("operator")])
            .args(words)
            .env("XDG_CONFIG_HOME", self.fleet.path("config"))
            .env("NO_COLOR", "1")
            .stdin("a secret")
    }

    /// Types it once, having put in what other commands say.
    fn typed(&self, line: &str, form: &str) -> Finished {
        let mut line = line.replace('@', &self.fleet.dir().display().to_string());
        if let Some((before, rest)) = line.split_once("$(") {
            let (inner, after) = rest.split_once(')').expect("an end");
            let words: Vec<&str> = inner.split(' ').collect();
            let found = wait_ok(&format!("something from: {inner}"), SOON, || {
                let done = self.cli(&words).run(SOON);
                let first = done.stdout.lines().next().map(str::to_string);
                first.ok_or(done.stderr)
            });
            line = format!("{before}{found}{after}");
        }
        let words: Vec<&str> = line.split(' ').collect();
        self.cli(&[&words[..], &["-o", form]].concat()).run(SOON)
    }

    /// Types it until the answer is not empty, or that takes too long.
    fn answer(&self, line: &str) -> Result<Shape, String> {
        let end = Instant::now() + FILLED;
        loop {
            let done = self.typed(line, "json");
            let failed = |error: String| format!("mycelial {line}: {error}: {:?} {}", done.code(), done.stderr);
            if done.stdout.is_empty() {
                // What was told before may not be over.
                if Instant::now() < end {
                    std::thread::sleep(Duration::from_millis(500));
                    continue;
                }
                return Err(failed("no answer for programs".to_string()));
            }
            let found = shape(&done.stdout).map_err(failed)?;
            if !found.fields.is_empty() || found.form == "text" || Instant::now() > end {
                return Ok(found);
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// Whether `-o name` gives that field of each, and something at all.
    fn names(&self, line: &str, field: &str) -> Result<(), String> {
        let [json, name] = ["json", "name"].map(|form| self.typed(line, form).stdout);
        let all: Value = serde_json::from_str(&json).map_err(|error| format!("{line}: {error}: {json}"))?;
        let items = match all {
            Value::Array(items) => items,
            one => vec![one],
        };
        let of = |item: &Value| match item.get(field).or_else(|| item["view"].get(field)) {
            Some(Value::String(text)) => format!("{text}\n"),
            other => format!("{}\n", other.unwrap_or(&Value::Null)),
        };
        let wanted: String = items.iter().map(of).collect();
        match wanted == name && !name.is_empty() {
            true => Ok(()),
            false => Err(format!("{line} -o name: {name:?} and not {wanted:?}")),
        }
    }

    /// What has to be so before a command is typed.
    fn prepare(&mut self, line: &str) -> Option<std::thread::JoinHandle<()>> {
        let (source, operator) = (self.fleet.dir().join("shop.db"), self.fleet.path("operator"));
        if line.starts_with("tap ") {
            return Some(std::thread::spawn(move || {
                std::thread::sleep(Duration::from_secs(2));
                shop::add(&source, 50).expect("rows");
            }));
        }
        if line.starts_with("sub ") {
            return Some(std::thread::spawn(move || {
                std::thread::sleep(Duration::from_secs(2));
                let said = Cmd::bin("mycelial").args(["--home", &operator, "pub", "line1.recipe", "7"]);
                said.run(SOON).ok();
            }));
        }
        if line == "enrol pending" {
            let door = self.fleet.cli(&["enrol", "open"]).expect("a string");
            let mut pump = Cmd::bin("myceliald")
                .args(["start", "--data-dir", &self.fleet.path("pump"), "--enrol", door.trim()])
                .spawn();
            pump.wait_for_log("this daemon's code is", SOON);
            self.daemons.push(pump);
        }
        if line == "alert list" {
            self.daemons[1].kill9();
        }
        None
    }
}

/// The command of a line that is typed; with `-l` for its other form.
fn command_of(line: &str, all: &BTreeSet<String>) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    let found = [2, 1]
        .into_iter()
        .map(|count| words[..count.min(words.len())].join(" "));
    let command = found.clone().find(|words| all.contains(words));
    let command = command.unwrap_or_else(|| panic!("'{line}' is no command"));
    match (words.contains(&"-l"), command.as_str()) {
        (true, _) => format!("{command} -l"),
        _ => command,
    }
}

#[test]
fn every_answer_is_as_it_is_promised() {
    let docs = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli");
    let all = commands(&docs);
    let mut world = World::new();
    let (mut found, mut silent): (BTreeMap<String, Shape>, Vec<String>) = Default::default();
    for line in TYPED {
        let beside = world.prepare(line);
        let answered = world.answer(line);
        if let Some(beside) = beside {
            beside.join().expect("what happens beside it");
        }
        let shape = match answered {
            Ok(shape) => shape,
            Err(error) => {
                silent.push(error);
                continue;
            }
        };
        let command = command_of(line, &all);
        let shape = one_by_one(&command, shape);
        match found.get_mut(&command) {
            Some(known) => {
                assert_eq!(known.form, shape.form, "{line}");
                for (key, kind) in shape.fields {
                    let known = known.fields.entry(key).or_insert(kind);
                    if *known == "any" {
                        *known = kind;
                    }
                }
            }
            None => drop(found.insert(command, shape)),
        }
    }
    assert!(silent.is_empty(), "{}", silent.join("\n"));
    let misnamed = NAMED.iter().filter_map(|(line, field)| world.names(line, field).err());
    let misnamed: Vec<String> = misnamed.collect();
    assert!(misnamed.is_empty(), "{}", misnamed.join("\n"));
    let is_told = |command: &&String| {
        let told = |table: &[(&str, &str)]| table.iter().any(|(name, _)| name == command);
        !found.contains_key(*command) && !told(SILENT) && !told(LIKE)
    };
    let forgotten: Vec<&String> = all.iter().filter(is_told).collect();
    assert!(forgotten.is_empty(), "type these too, or say why not: {forgotten:?}");
    let path = docs.join("OUTPUT.md");
    if env::var_os("UPDATE").is_some() {
        let mut page = HEAD.to_string();
        page.extend(found.iter().map(|(command, shape)| row(command, shape)));
        page.extend(
            LIKE.iter()
                .map(|(command, other)| format!("| `{command}` | as `{other}` | |\n")),
        );
        page.extend(
            SILENT
                .iter()
                .map(|(command, does)| format!("| `{command}` | nothing: {does} | |\n")),
        );
        page += "\n| `-o name` of | gives |\n|---|---|\n";
        page.extend(NAMED.iter().map(|(line, field)| format!("| `{line}` | `{field}` |\n")));
        fs::write(&path, page).expect("the page");
    }
    let page = fs::read_to_string(&path).unwrap_or_default();
    let differs: Vec<String> = found
        .iter()
        .filter_map(|(command, shape)| disagreement(&page, command, shape))
        .collect();
    assert!(
        differs.is_empty(),
        "{}\nlook at it, then: UPDATE=1 cargo nextest run -p testkit -E 'binary(cli_shapes)'",
        differs.join("\n")
    );
}

/// Where an answer is another than the page says.
fn disagreement(page: &str, command: &str, shape: &Shape) -> Option<String> {
    let start = format!("| `{command}` | ");
    let Some(line) = page.lines().find_map(|line| line.strip_prefix(&start)) else {
        return Some(format!("{command}: is not there"));
    };
    let (form, rest) = line.split_once(" | ").unwrap_or((line, ""));
    let promised = rest.trim_end_matches('|').trim().split(", ").filter_map(|field| {
        let (key, kind) = field.split_once(" (")?;
        Some((key, kind.trim_end_matches(')')))
    });
    let promised: BTreeMap<&str, &str> = promised.collect();
    if form != shape.form {
        return Some(format!("{command}: gives {} and not {form}", shape.form));
    }
    // An empty list says nothing of its fields.
    if shape.fields.is_empty() {
        return None;
    }
    let missing = promised.iter().find(|(key, kind)| match shape.fields.get(**key) {
        None => true,
        Some(found) => *found != **kind && *found != "any" && **kind != "any",
    });
    let new = shape.fields.keys().find(|key| !promised.contains_key(key.as_str()));
    match (missing, new) {
        (Some((key, kind)), _) => Some(format!("{command}: {key} ({kind}) is promised, and is not there")),
        (None, Some(key)) => Some(format!("{command}: {key} is new and not in the page")),
        (None, None) => None,
    }
}
