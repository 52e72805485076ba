//! What the command line says, word for word: a small fleet, a list of commands, and one file with all that they print.
//! What differs from run to run (ids, times, sizes, paths) is replaced by what it is. `UPDATE=1` writes the file anew.

#![cfg(target_os = "linux")]

use std::{env, fs, path::PathBuf, time::Duration};

use testkit::{Broker, Cmd, Fleet, bin, wait_ok};

const SOON: Duration = Duration::from_secs(60);

/// Commands, as they are typed. `@` stands for the fleet's directory.
const TYPED: &[&str] = &[
    "info",
    "token list",
    "daemon list",
    "daemon list -o name",
    "daemon list -l site=berlin",
    "daemon list -l colour=red",
    "daemon list -l version:abc",
    "daemon label gateway site=berlin",
    "daemon label gateway",
    "daemon show nobody",
    "daemon show gatewax",
    "workflow validate @/broken.toml",
    "workflow validate @/missing.toml",
    "workflow apply @/broken.toml",
    "workflow apply @/copy.toml",
    "workflow apply @/copy.toml",
    "workflow apply @/copy.toml --expect 7",
    "workflow list -o name",
    "workflow diff @/copy.toml",
    "workflow diff @/changed.toml",
    "workflow revisions copy -o name",
    "workflow show copi",
    "workflow status copy",
    "workflow check copy",
    "workflow test @/copy.toml",
    "workflow list -l site=bonn",
    "workflow rollback copy",
    "workflow pause copy -l site=bonn",
    "rollout list",
    "rollout show 7",
    "rollout rollback 7",
    "rollout start @/broken.toml",
    "rollout start @/copy.toml --waves 1,200%",
    "rollout start @/copy.toml --max-lag much",
    "alert list",
    "alert rules -o name",
    "alert apply @/rules.toml",
    "alert silence nothing --reason known",
    "alert test nowhere",
    "audit list --search nothing-like-it",
    "audit list -l site=bonn",
    "audit verify --file @/copy.toml",
    "metrics daemon nobody",
    "metrics stream copy/x",
    "group set north site=berlin",
    "group set north site",
    "group remove north",
    "group remove south --yes",
    "enrol pending",
    "enrol approve abcd-efgh",
    "operator revoke mee --yes",
    "context remove default",
    "context remove nowhere",
    "token revoke nonsense",
    "token create --label berlin",
    "daemon pause -l ",
    "daemon pause -l site=bonn",
    "daemon label name:* berlin",
    "daemon revoke -l name:gateway",
    "daemon revoke -l site=bonn --yes",
    "daemon ping nobody",
    "daemon drain gateway --wait-max never",
    "secret list --daemon gateway",
    "secret remove salt --daemon gateway",
    "logs nobody",
    "tap copy linse",
    "tap nothing lines",
    "acl export --broker mosquitto --member nobody",
    "ledger -l site=bonn",
    "backup verify @/missing.toml",
    "bugreport @/copy.toml",
    "init nonsense",
    "workflow delete copy",
    "workflow delete copy --yes",
    "components postgress",
    "secret set lower-case --daemon nobody",
    "dlq list",
    "dlq show x",
    "dlq replay",
    "tap copy lines --count 1",
    "ledger",
    "context list",
    "context use nowhere",
    "wurkflow list",
    "token create --ttl soon",
];

/// What differs, replaced by what it is.
fn steady(text: &str, fleet: &Fleet) -> String {
    let text = text.replace(&fleet.dir().display().to_string(), "@");
    let word = |word: &str| -> String {
        let (lead, rest) = word.split_at(word.find(|c: char| c.is_ascii_alphanumeric()).unwrap_or(0));
        let core = rest.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        let tail = &rest[core.len()..];
        let id = |c: char| c.is_ascii_lowercase() || ('2'..='7').contains(&c);
        let is_id = core.len() == 16 && core.chars().all(id);
        let is_version = core == env!("CARGO_PKG_VERSION");
        let is_number = core.chars().next().is_some_and(|c| c.is_ascii_digit())
            && core.chars().all(|c| c.is_ascii_digit() || ".:-".contains(c))
            && core.contains(['.', ':', '-']);
        let core = match () {
            () if is_id => "ID",
            () if is_version => "VERSION",
            () if core.starts_with("127.0.0.1:") => "ADDRESS",
            () if is_number => "N",
            () => core,
        };
        format!("{lead}{core}{tail}")
    };
    let line = |line: &str| -> String {
        let mut words: Vec<String> = line.split(' ').map(word).collect();
        for at in 1..words.len() {
            let unit = words[at].trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
            let number = words[at - 1].trim_start_matches('(');
            if ["ms", "s"].contains(&unit) && number.parse::<u64>().is_ok() {
                let (lead, tail) = (words[at - 1].replace(number, ""), words[at][unit.len()..].to_string());
                (words[at - 1], words[at]) = (format!("{lead}N"), format!("s{tail}"));
            }
        }
        // Columns are as wide as what was in them.
        let mut line = words.join(" ");
        while line.trim_start().contains("  ") {
            let start = line.len() - line.trim_start().len();
            line = format!("{}{}", &line[..start], line[start..].replace("  ", " "));
        }
        line.trim_end().to_string()
    };
    text.lines().map(|l| line(l) + "\n").collect()
}

#[test]
fn word_for_word() {
    let fleet = Fleet::start(Broker::embedded(false), None);
    fleet.enrol("gateway");
    let _gateway = fleet.daemon("gateway", None);
    let good = "name = \"copy\"\n[sources.lines]\ntype = \"file\"\ndaemon = \"gateway\"\npath = \"in.jsonl\"\nformat = \"json_lines\"\n\
                [destinations.out]\ntype = \"file\"\ndaemon = \"gateway\"\nfrom = \"lines\"\npath = \"out.jsonl\"\nformat = \"json_lines\"\n";
    for (name, text) in [
        ("copy", good.to_string()),
        ("changed", good.replace("out.jsonl", "other.jsonl")),
        (
            "broken",
            good.replace("format", "formt")
                .replace("from = \"lines\"", "from = \"line\""),
        ),
        ("rules", "[[rule]]\nname = \"a\"\nwhen = \"lagg\"\n".to_string()),
    ] {
        fs::write(fleet.path(&format!("{name}.toml")), text).expect("a file");
    }
    let cli = |words: &[String]| {
        Cmd::bin("mycelial")
            .args(["--home", &fleet.path("operator")])
            .args(words)
            .env("XDG_CONFIG_HOME", fleet.path("config"))
            .env("NO_COLOR", "1")
            .stdin("")
            .run(SOON)
    };
    wait_ok("the components to be known", SOON, || {
        let shown = cli(&[
            "daemon".into(),
            "show".into(),
            "gateway".into(),
            "-o".into(),
            "json".into(),
        ])
        .stdout;
        shown.contains("\"sqlite\"").then_some(()).ok_or(shown)
    });
    let mut said = String::new();
    for typed in TYPED {
        if *typed == "workflow status copy" {
            wait_ok("the workflow to run", SOON, || {
                let words = ["workflow", "status", "copy", "-o", "json"].map(String::from);
                let shown = cli(&words).stdout;
                let is_there = shown.contains("\"running\"") && shown.contains("\"edge\"");
                is_there.then_some(()).ok_or(shown)
            });
        }
        let words: Vec<String> = typed
            .split(' ')
            .map(|word| word.replace('@', &fleet.dir().display().to_string()))
            .collect();
        let done = cli(&words);
        said += &format!("$ mycelial {typed}\n{}", steady(&done.stdout, &fleet));
        for line in steady(&done.stderr, &fleet).lines() {
            said += format!("! {line}").trim_end();
            said.push('\n');
        }
        if done.code() != Some(0) {
            said += &format!(
                "= {}\n",
                done.code().map_or("killed".to_string(), |code| code.to_string())
            );
        }
        said.push('\n');
    }
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/cli_says.txt");
    if env::var_os("UPDATE").is_some() {
        fs::write(&path, &said).expect("the file");
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    let differs = kept.lines().zip(said.lines()).find(|(kept, said)| kept != said);
    assert!(
        kept == said,
        "the command line says something else: {differs:?}\nlook at it, then: UPDATE=1 cargo nextest run -p testkit -E 'binary(cli_says)'\n{said}"
    );
}

#[test]
fn no_colours_where_none_are_wanted() {
    let fleet = Fleet::start(Broker::embedded(false), None);
    let mycelial = bin("mycelial").display().to_string();
    // In a terminal, where there would be colours and bars.
    let typed = |command: &str| {
        let line = format!("'{mycelial}' --home '{}' {command}", fleet.path("operator"));
        let seen = Cmd::new("script")
            .args(["-qec", &line, "/dev/null"])
            .env("TERM", "xterm-256color")
            .env("NO_COLOR", "1")
            .run(SOON);
        format!("{}{}", seen.stdout, seen.stderr)
    };
    for command in ["daemon list", "doctor", "daemon --help", "daemon lst", "info -o json"] {
        let said = typed(command);
        assert!(!said.contains('\u{1b}'), "{command}: {said:?}");
        assert!(!said.is_empty(), "{command}");
    }
}

#[test]
fn the_screen_comes_and_goes() {
    let fleet = Fleet::start(Broker::embedded(false), None);
    // A terminal of its own, in which somebody looks at the daemons and then leaves.
    let mycelial = bin("mycelial").display().to_string();
    let top = format!(
        "stty rows 24 cols 100; '{mycelial}' --home '{}' top",
        fleet.path("operator")
    );
    let seen = Cmd::new("sh")
        .args([
            "-c",
            &format!("(sleep 2; printf d; sleep 2; printf q) | script -qefc \"{top}\" /dev/null"),
        ])
        .env("TERM", "xterm")
        .run(SOON);
    assert_eq!(seen.code(), Some(0), "{}{}", seen.stdout, seen.stderr);
    for part in ["\u{1b}[?1049h", "[streams]", "[daemons]", "records/s", "\u{1b}[?1049l"] {
        assert!(seen.stdout.contains(part), "{part:?} in {}", seen.stdout);
    }
}
