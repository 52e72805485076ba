//! Examples at the beginning of every help, in one table: `mycelial workflow apply --help` begins with the lines of
//! `workflow apply`. A test parses each of them. A noun that has verbs shows the first example of each.

use clap::{Command, CommandFactory};

use crate::arguments::Arguments;

/// By command: what to type, and what it does.
const EXAMPLES: &[(&str, &[(&str, &str)])] = &[
    (
        "",
        &[
            (
                "mycelial init myc1…",
                "become an operator, with the string the plane printed",
            ),
            ("mycelial token create", "make a string that enrols one daemon"),
            ("mycelial workflow apply orders.toml", "deploy a workflow"),
            ("mycelial top", "see the fleet move"),
        ],
    ),
    (
        "init",
        &[
            ("mycelial init myc1…", "with the login name"),
            (
                "mycelial init myc1… --name anna --context berlin",
                "one fleet of several",
            ),
        ],
    ),
    ("info", &[("mycelial info", "")]),
    (
        "top",
        &[
            ("mycelial top", "q ends it"),
            ("mycelial top -o json", "once, for programs"),
        ],
    ),
    ("context list", &[("mycelial context list", "")]),
    ("context use", &[("mycelial context use berlin", "")]),
    ("context remove", &[("mycelial context remove berlin", "")]),
    (
        "token create",
        &[
            ("mycelial token create --name gateway-7", "for one daemon"),
            (
                "mycelial token create --uses 50 --ttl 7d",
                "for fifty of them, within a week",
            ),
            (
                "mycelial token create --uses 9 --label site=berlin",
                "each is labelled from its first moment",
            ),
            ("mycelial token create --role operator", "for a colleague"),
        ],
    ),
    (
        "enrol open",
        &[
            ("mycelial enrol open", "for an hour"),
            ("mycelial enrol open --for 7d", "for a week of building gateways"),
        ],
    ),
    ("enrol close", &[("mycelial enrol close", "")]),
    ("enrol pending", &[("mycelial enrol pending", "")]),
    (
        "enrol approve",
        &[
            ("mycelial enrol approve k7qm-x2ad", "the code that the daemon shows"),
            ("mycelial enrol approve k7qm-x2ad --name pump-3", ""),
        ],
    ),
    ("enrol reject", &[("mycelial enrol reject k7qm-x2ad", "")]),
    ("group list", &[("mycelial group list", "")]),
    (
        "group set",
        &[(
            "mycelial group set north 'site=berlin -label:test'",
            "then: daemon list -l group:north",
        )],
    ),
    ("group remove", &[("mycelial group remove north", "")]),
    ("operator list", &[("mycelial operator list", "")]),
    (
        "operator revoke",
        &[("mycelial operator revoke anna", "says what it does, and asks")],
    ),
    ("token list", &[("mycelial token list", "")]),
    ("token revoke", &[("mycelial token revoke ID", "as the list shows it")]),
    (
        "metrics daemon",
        &[
            ("mycelial metrics daemon gateway-7", "the last hour"),
            (
                "mycelial metrics daemon gateway-7 --last 7d --metric memory -o json",
                "a week of one, for programs",
            ),
        ],
    ),
    (
        "metrics workflow",
        &[("mycelial metrics workflow orders --last 24h", "the last day")],
    ),
    (
        "metrics node",
        &[(
            "mycelial metrics node orders/clean --metric busy",
            "how long it is at work on a batch",
        )],
    ),
    (
        "metrics stream",
        &[("mycelial metrics stream 'orders/db->hub' --metric lag", "")],
    ),
    (
        "audit list",
        &[
            ("mycelial audit list --by anna --since 24h", "what anna did today"),
            ("mycelial audit list --search orders", "all about one workflow"),
            ("mycelial audit list --daemon gateway-7", "what a daemon was told"),
            (
                "mycelial audit list -l site=berlin --search pause --since 24h",
                "who paused something there",
            ),
        ],
    ),
    (
        "audit verify",
        &[
            ("mycelial audit verify", "the plane's"),
            ("mycelial audit verify --daemon gateway-7", "a daemon's own"),
            ("mycelial audit verify -l ''", "those of all daemons"),
            (
                "mycelial audit verify --file audit.jsonl",
                "one that was kept elsewhere",
            ),
        ],
    ),
    (
        "audit export",
        &[("mycelial audit export audit.jsonl", "to keep it elsewhere")],
    ),
    (
        "audit report",
        &[
            ("mycelial audit report --since 7d", "the last week, by person"),
            ("mycelial audit report -l site=berlin", "what daemons there were told"),
        ],
    ),
    (
        "alert list",
        &[
            ("mycelial alert list", ""),
            (
                "mycelial alert list -l site=berlin",
                "of daemons there, and their workflows",
            ),
        ],
    ),
    ("alert rules", &[("mycelial alert rules", "")]),
    (
        "alert apply",
        &[
            (
                "mycelial alert apply rules.toml --preview 24h",
                "when would they have fired?",
            ),
            (
                "mycelial alert apply rules.toml",
                "take them; asks when others are forgotten",
            ),
        ],
    ),
    (
        "alert silence",
        &[
            (
                "mycelial alert silence k3j2qw7a --for 2h --reason 'new disk is on its way'",
                "",
            ),
            ("mycelial alert silence k3j2qw7a --end", "tell of it again"),
        ],
    ),
    (
        "alert test",
        &[("mycelial alert test ops", "ops is a channel of plane.toml")],
    ),
    (
        "daemon revoke",
        &[
            ("mycelial daemon revoke gateway-7", "asks first; --yes does not"),
            (
                "mycelial daemon revoke -l site=berlin",
                "names all that it means, and asks",
            ),
        ],
    ),
    (
        "daemon list",
        &[
            ("mycelial daemon list", "all of them"),
            (
                "mycelial daemon list -l 'site=berlin -presence:online'",
                "those in Berlin that are not there",
            ),
        ],
    ),
    (
        "daemon label",
        &[
            ("mycelial daemon label gateway-7 site=berlin", "put one on"),
            (
                "mycelial daemon label 'site=berlin' test-",
                "take one off, wherever it is",
            ),
        ],
    ),
    ("daemon show", &[("mycelial daemon show gateway-7", "")]),
    (
        "daemon drain",
        &[
            (
                "mycelial daemon drain gateway-7 --wait-max 2h",
                "then: daemon resume, or daemon revoke",
            ),
            ("mycelial daemon drain -l site=berlin", ""),
        ],
    ),
    (
        "daemon spool-check",
        &[("mycelial daemon spool-check -l site=berlin", "")],
    ),
    (
        "daemon rotate",
        &[
            (
                "mycelial daemon rotate pump-3",
                "new keys; waits until the old ones are gone",
            ),
            ("mycelial daemon rotate -l site=berlin --wait-max 1h", ""),
        ],
    ),
    (
        "daemon pause",
        &[
            ("mycelial daemon pause gateway-7", ""),
            ("mycelial daemon pause -l site=berlin", "all of them"),
        ],
    ),
    ("daemon resume", &[("mycelial daemon resume gateway-7", "")]),
    (
        "daemon log-level",
        &[
            (
                "mycelial daemon log-level debug gateway-7 --for 30m",
                "more, for a while",
            ),
            ("mycelial daemon log-level - gateway-7", "back at once"),
        ],
    ),
    (
        "daemon diagnose",
        &[
            ("mycelial daemon diagnose gateway-7 --file gateway-7.txt", ""),
            (
                "mycelial daemon diagnose -l 'version:<0.4' --file old.txt",
                "a chapter each",
            ),
        ],
    ),
    (
        "daemon ping",
        &[
            ("mycelial daemon ping gateway-7", ""),
            ("mycelial daemon ping -l site=berlin", "all of them, each by itself"),
        ],
    ),
    ("workflow validate", &[("mycelial workflow validate orders.toml", "")]),
    (
        "workflow apply",
        &[
            (
                "mycelial workflow apply orders.toml --wait",
                "and see it run everywhere",
            ),
            ("mycelial workflow apply workflows/", "all in a directory"),
            (
                "mycelial workflow apply orders.toml --dry-run",
                "which daemons would get what",
            ),
            (
                "mycelial workflow apply orders.toml --waves 1,10%,50%,100% --soak 30s",
                "one daemon first, then more and more",
            ),
            (
                "mycelial workflow apply orders.toml --dry-run",
                "only show what would change, where",
            ),
            ("mycelial workflow apply orders.toml --expect 7", "only over revision 7"),
            (
                "mycelial workflow apply orders.toml --reason 'the shop has moved'",
                "shown in its revisions and the audit",
            ),
        ],
    ),
    (
        "workflow list",
        &[
            ("mycelial workflow list", ""),
            ("mycelial workflow list -l site=berlin", "what runs there"),
        ],
    ),
    (
        "workflow show",
        &[("mycelial workflow show orders --revision 3 > orders.toml", "as it was")],
    ),
    ("workflow test", &[("mycelial workflow test orders.toml", "")]),
    (
        "workflow preview",
        &[("mycelial workflow preview orders.toml --given db=rows.jsonl", "")],
    ),
    (
        "workflow check",
        &[
            ("mycelial workflow check orders", "from the daemons that run it"),
            (
                "mycelial workflow check -f orders.toml",
                "before it runs, from the daemons that it names",
            ),
        ],
    ),
    (
        "workflow diff",
        &[
            ("mycelial workflow diff orders.toml", ""),
            ("mycelial workflow diff workflows", "all in a directory"),
        ],
    ),
    ("workflow revisions", &[("mycelial workflow revisions orders", "")]),
    ("workflow rollback", &[("mycelial workflow rollback orders --to 3", "")]),
    ("workflow delete", &[("mycelial workflow delete orders", "")]),
    (
        "workflow restart",
        &[
            ("mycelial workflow restart orders --daemon gateway-7", ""),
            (
                "mycelial workflow restart orders -l site=berlin",
                "where it runs in Berlin",
            ),
        ],
    ),
    (
        "workflow pause",
        &[
            ("mycelial workflow pause orders", ""),
            ("mycelial workflow pause orders -l group:north", ""),
        ],
    ),
    ("workflow resume", &[("mycelial workflow resume orders", "")]),
    (
        "workflow logs",
        &[
            (
                "mycelial workflow logs orders --since 10m",
                "of all its daemons, by time",
            ),
            (
                "mycelial workflow logs orders -f -l site=berlin",
                "go on with what comes",
            ),
        ],
    ),
    (
        "workflow nodes",
        &[(
            "mycelial workflow nodes orders",
            "where it is slow, and where records die",
        )],
    ),
    ("workflow status", &[("mycelial workflow status orders", "")]),
    (
        "rollout start",
        &[
            (
                "mycelial rollout start orders.toml --watch",
                "one daemon, a tenth, half, all",
            ),
            (
                "mycelial rollout start orders.toml --waves 5,100% --soak 10m --max-failures 2%",
                "five first; a few may fail",
            ),
            (
                "mycelial rollout start orders.toml --reason 'the shop has moved'",
                "kept with the revision",
            ),
        ],
    ),
    ("rollout list", &[("mycelial rollout list", "")]),
    (
        "rollout show",
        &[("mycelial rollout show 7", "with the daemons that failed")],
    ),
    ("rollout watch", &[("mycelial rollout watch 7", "")]),
    (
        "rollout pause",
        &[("mycelial rollout pause 7 --reason 'the line is being cleaned'", "")],
    ),
    (
        "rollout resume",
        &[("mycelial rollout resume 7", "whatever has failed")],
    ),
    (
        "rollout abort",
        &[("mycelial rollout abort 7", "what was deployed stays")],
    ),
    ("rollout rollback", &[("mycelial rollout rollback 7", "all go back")]),
    (
        "ledger",
        &[
            ("mycelial ledger", ""),
            ("mycelial ledger orders", "of one workflow"),
            (
                "mycelial ledger -l site=berlin --troubled",
                "what does not flow from or to Berlin",
            ),
        ],
    ),
    (
        "components",
        &[("mycelial components postgres", "its settings, with an example")],
    ),
    (
        "logs",
        &[
            ("mycelial logs gateway-7 -f", "go on with what comes"),
            ("mycelial logs gateway-7 -n 20 --workflow orders", ""),
            ("mycelial logs -l site=berlin --since 10m", "of many, by time"),
        ],
    ),
    (
        "tap",
        &[
            ("mycelial tap orders large --count 5", "five records that pass a node"),
            ("mycelial tap orders db -o jsonl > rows.jsonl", "to try changes on"),
            (
                "mycelial tap orders db --redact iban,card_*",
                "not for everybody's eyes",
            ),
        ],
    ),
    (
        "dlq list",
        &[
            ("mycelial dlq list orders", ""),
            ("mycelial dlq list -l site=berlin", "on daemons there"),
        ],
    ),
    ("dlq show", &[("mycelial dlq show hub/orders/12", "")]),
    (
        "dlq replay",
        &[
            ("mycelial dlq replay hub/orders/12", ""),
            (
                "mycelial dlq replay --all --workflow orders",
                "once the cause is mended",
            ),
        ],
    ),
    (
        "dlq edit",
        &[(
            "mycelial dlq edit hub/orders/12 --set quantity=5 --replay",
            "and tries it again",
        )],
    ),
    ("dlq purge", &[("mycelial dlq purge --all --workflow orders", "")]),
    (
        "secret set",
        &[
            ("mycelial secret set shop --daemon hub", "asks for it"),
            ("mycelial secret set shop --daemon hub < password.txt", ""),
            (
                "mycelial secret set shop -l site=berlin < password.txt",
                "the same on many",
            ),
        ],
    ),
    ("secret list", &[("mycelial secret list --daemon hub", "")]),
    ("secret remove", &[("mycelial secret remove shop --daemon hub", "")]),
    (
        "pub",
        &[
            ("mycelial pub line1.recipe 'number 7'", ""),
            ("mycelial pub line1.recipe < recipe.json", ""),
        ],
    ),
    ("sub", &[("mycelial sub 'line1.>' --count 1", "")]),
    (
        "acl export",
        &[
            ("mycelial acl export --broker mosquitto > acl_file", ""),
            (
                "mycelial acl export --broker nats-account --member gateway-7",
                "what one may, in an account",
            ),
        ],
    ),
    (
        "backup",
        &[(
            "mycelial backup create --keys --dir /var/lib/mycelial/plane keys.backup",
            "on the plane's host",
        )],
    ),
    (
        "doctor",
        &[
            ("mycelial doctor", ""),
            ("mycelial doctor -l site=berlin", "of daemons, those in Berlin"),
        ],
    ),
    ("bugreport", &[("mycelial bugreport report.json", "")]),
    ("completion", &[("mycelial completion bash >> ~/.bashrc", "")]),
    ("man", &[("mycelial man ~/.local/share/man/man1", "")]),
];

/// The command line, with its examples.
pub fn command() -> Command {
    with_examples(Arguments::command(), "")
}

fn with_examples(mut command: Command, path: &str) -> Command {
    let verbs: Vec<String> = command
        .get_subcommands()
        .map(|verb| verb.get_name().to_string())
        .collect();
    let below = |verb: &str| match path {
        "" => verb.to_string(),
        noun => format!("{noun} {verb}"),
    };
    let lines: Vec<(&str, &str)> = match examples(path) {
        [] => verbs
            .iter()
            .filter_map(|verb| examples(&below(verb)).first().copied())
            .collect(),
        found => found.to_vec(),
    };
    if !lines.is_empty() {
        command = command.before_help(text(&lines));
    }
    for verb in verbs {
        let path = below(&verb);
        command = command.mut_subcommand(verb, |verb| with_examples(verb, &path));
    }
    command
}

fn examples(path: &str) -> &'static [(&'static str, &'static str)] {
    let found = EXAMPLES.iter().find(|(command, _)| *command == path);
    found.map_or(&[], |(_, examples)| examples)
}

fn text(lines: &[(&str, &str)]) -> String {
    let width = lines.iter().map(|(typed, _)| typed.chars().count()).max().unwrap_or(0);
    let line = |(typed, does): &(&str, &str)| format!("  {typed:<width$}  {does}").trim_end().to_string();
    let lines: Vec<String> = lines.iter().map(line).collect();
    format!("Examples:\n{}", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a shell would make of it, as far as the examples need.
    fn words(typed: &str) -> Vec<String> {
        let typed = typed.split([' ']).take_while(|word| !matches!(*word, ">" | ">>" | "<"));
        let joined = typed.collect::<Vec<_>>().join(" ");
        let parts = joined.split('\'').enumerate();
        parts
            .flat_map(|(n, part)| match n % 2 {
                1 => vec![part.to_string()],
                _ => part.split_whitespace().map(str::to_string).collect(),
            })
            .collect()
    }

    #[test]
    fn every_example_can_be_typed() {
        for (path, examples) in EXAMPLES {
            for (typed, _) in *examples {
                let parsed = command().try_get_matches_from(words(typed));
                let mut matches = parsed.unwrap_or_else(|error| panic!("{typed}: {error}"));
                let mut came_to = Vec::new();
                while let Some((verb, inner)) = matches.remove_subcommand() {
                    came_to.push(verb);
                    matches = inner;
                }
                let wanted = came_to.join(" ");
                assert!(
                    path.is_empty() || wanted == *path,
                    "{typed} is an example of '{wanted}', not of '{path}'"
                );
            }
        }
    }

    #[test]
    fn every_help_begins_with_an_example() {
        fn check(command: &mut Command, path: &str) {
            let help = command.render_long_help().to_string();
            assert!(help.starts_with("Examples:\n"), "{path}:\n{help}");
            for verb in command.get_subcommands_mut().filter(|verb| verb.get_name() != "help") {
                let path = format!("{path} {}", verb.get_name());
                check(verb, &path);
            }
        }
        let mut command = command();
        command.build();
        check(&mut command, "mycelial");
    }
}
