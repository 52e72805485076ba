//! What can be typed.

mod workflow;

use std::path::PathBuf;

use bus_schema::{api::BrokerKind, member::Role};
use clap::{Parser, Subcommand, ValueEnum};
pub use workflow::{Part, Rollout, Waves, Workflow};

use crate::{
    audit::Audit,
    control::Patient,
    groups::Group,
    names,
    observe::{Alert, Metrics},
    operators::Operator,
    pending::Enrol,
};

const EXITS: &str = "\
Exit codes: 0 done, 1 failed, 2 wrong command line, file or enrolment string, or not an operator yet,
3 invalid (a workflow with mistakes), 4 not allowed, 5 no such thing, 6 somebody else changed it first,
7 no answer, or not in time, 130 interrupted.
Data goes to stdout, everything else to stderr.";

/// Runs a fleet from the command line.
#[derive(Debug, Parser)]
#[command(name = "mycelial", version, after_help = EXITS)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
    /// How results look.
    #[arg(short, long, global = true, value_enum, default_value = "table")]
    pub output: Output,
    /// Which of several fleets; see `mycelial context`.
    #[arg(
        long,
        global = true,
        env = "MYCELIAL_CONTEXT",
        hide_env_values = true,
        value_name = "NAME",
        add = names::contexts()
    )]
    pub context: Option<String>,
    /// Where the operator's keys are, instead of a context's.
    #[arg(
        long,
        global = true,
        env = "MYCELIAL_HOME",
        hide_env_values = true,
        value_name = "DIR"
    )]
    pub home: Option<PathBuf>,
    /// How long to wait for an answer, in seconds [default: 10, for init 60].
    #[arg(long, global = true, value_name = "S")]
    pub timeout: Option<u64>,
    /// Show what happens on the connection.
    #[arg(short, long, global = true)]
    pub verbose: bool,
}

/// How results look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For programs: one document.
    Json,
    /// For programs: an object a line.
    Jsonl,
    /// For programs that read YAML.
    Yaml,
    /// Names only, a line each.
    Name,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Become an operator with the string the plane printed (or `token create --role operator`).
    Init {
        /// The enrolment string.
        #[arg(value_name = "STRING")]
        string: String,
        /// The operator's name; the login name by default.
        #[arg(long)]
        name: Option<String>,
    },
    /// Which fleet and plane is this?
    Info,
    /// Watch the whole fleet on one screen, worst first.
    Top,
    /// Choose between several fleets.
    #[command(subcommand)]
    Context(Context),
    /// Make enrolment strings.
    #[command(subcommand)]
    Token(Token),
    /// Let daemons in that have no enrolment string of their own.
    #[command(subcommand)]
    Enrol(Enrol),
    /// Give selectors names, to be used as group:NAME.
    #[command(subcommand)]
    Group(Group),
    /// Look at operators, and take them out of the fleet.
    #[command(subcommand)]
    Operator(Operator),
    /// Look at daemons.
    #[command(subcommand)]
    Daemon(Daemon),
    /// Write, deploy and watch workflows.
    #[command(subcommand)]
    Workflow(Workflow),
    /// Deploy workflows in waves, and look after it.
    #[command(subcommand)]
    Rollout(Rollout),
    /// Show what daemons, workflows and streams did over time.
    #[command(subcommand)]
    Metrics(Metrics),
    /// See what is wrong, say when to be told, and silence it.
    #[command(subcommand)]
    Alert(Alert),
    /// See who did what, and check that nobody altered the record of it.
    #[command(subcommand)]
    Audit(Audit),
    /// Show every stream's account: produced = delivered + buffered + dropped + dead.
    #[command(after_help = SELECTORS)]
    Ledger {
        /// Only of this workflow.
        #[arg(add = names::workflows())]
        workflow: Option<String>,
        /// Only streams that begin or end at a daemon that this chooses.
        #[arg(short = 'l', long, value_name = "SELECTOR", add = names::selectors(), allow_hyphen_values = true)]
        select: Option<String>,
        /// Only streams that do not flow, or whose books do not balance.
        #[arg(long)]
        troubled: bool,
    },
    /// Show the components the fleet's daemons have, or one of them with its settings and an example.
    Components {
        /// Its type name.
        #[arg(add = names::components())]
        name: Option<String>,
    },
    /// Show the last lines of a daemon's log.
    #[command(after_help = SELECTORS)]
    Logs {
        #[command(flatten)]
        whom: Whom,
        /// Only lines about this workflow.
        #[arg(long, add = names::workflows())]
        workflow: Option<String>,
        #[command(flatten)]
        lines: Lines,
    },
    /// Watch records pass a node of a workflow. Columns that are named like passwords are not shown.
    #[command(after_help = SELECTORS)]
    Tap {
        /// The workflow.
        #[arg(add = names::workflows())]
        workflow: String,
        /// The node, as the workflow names it.
        #[arg(add = names::nodes())]
        node: String,
        /// The daemon; all daemons of the workflow by default.
        #[arg(long, add = names::daemons(), conflicts_with = "select")]
        daemon: Option<String>,
        /// Of the workflow's daemons those that this chooses.
        #[arg(short = 'l', long, value_name = "SELECTOR", add = names::selectors(), allow_hyphen_values = true)]
        select: Option<String>,
        /// Columns whose values are not shown, besides those named like passwords; `*` at the beginning or end stands for anything.
        #[arg(long, value_name = "COLUMN", value_delimiter = ',')]
        redact: Vec<String>,
        /// Show columns that are named like passwords, too.
        #[arg(long)]
        show_all: bool,
        /// Most records a second.
        #[arg(long, default_value_t = 5)]
        rate: u32,
        /// End after this long, in seconds.
        #[arg(long, default_value_t = 60, value_name = "S")]
        seconds: u64,
        /// End after this many records.
        #[arg(long, value_name = "N")]
        count: Option<u64>,
    },
    /// Look after dead letters: records that could not be delivered, with the reason.
    #[command(subcommand)]
    Dlq(Dlq),
    /// Give a daemon passwords and keys that its workflows name: `{ secret = "NAME" }`. The plane never sees them.
    #[command(subcommand)]
    Secret(Secret),
    /// Publish a message on a topic, to everybody in the fleet.
    Pub {
        /// One or more tokens joined by '.': `line1.recipe`.
        topic: String,
        /// The message; read from stdin when it is left out.
        message: Option<String>,
    },
    /// Print messages on topics until Ctrl-C. `*` stands for one token, `>` for all that follow.
    Sub {
        /// The topic.
        topic: String,
        /// End after this many messages.
        #[arg(long, value_name = "N")]
        count: Option<u64>,
    },
    /// The broker's access list, for brokers of your own.
    #[command(subcommand)]
    Acl(Acl),
    /// Check keys, connection, plane and daemons, and say what is wrong.
    #[command(after_help = SELECTORS)]
    Doctor {
        /// Of daemons and streams only these.
        #[arg(
            short = 'l',
            long,
            value_name = "SELECTOR",
            add = names::selectors(),
            allow_hyphen_values = true
        )]
        select: Option<String>,
    },
    /// Write what somebody who helps needs to know into a file: no records, no secrets.
    Bugreport {
        /// Where to; mycelial-report.json by default.
        file: Option<PathBuf>,
    },
    /// Make a backup of the plane, look at one, or make a plane out of it: on the plane's host, this runs `mycelial-plane backup`.
    Backup {
        /// As `mycelial-plane backup --help` lists them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
        arguments: Vec<String>,
    },
    /// Print what makes the shell complete commands, with the names of what there is: daemons, workflows, groups, rollouts.
    Completion {
        /// For which shell.
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Write the manual pages into a directory, those of the other programs on this host too.
    Man {
        /// Where to; made when missing.
        dir: PathBuf,
    },
}

/// `mycelial context`
#[derive(Debug, Subcommand)]
pub enum Context {
    /// All contexts; a `*` stands at the one in use.
    List,
    /// Use this one from now on.
    Use {
        /// Its name; `default` is the one there always is.
        #[arg(add = names::contexts())]
        name: String,
    },
    /// Forget one, with its keys: you are no operator of that fleet any more.
    Remove {
        /// Its name.
        #[arg(add = names::contexts())]
        name: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

/// A shell that can complete commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    Bash,
    Elvish,
    Fish,
    Powershell,
    Zsh,
}

/// `mycelial token`
#[derive(Debug, Subcommand)]
pub enum Token {
    /// Make an enrolment string.
    Create {
        /// What its holder becomes.
        #[arg(long, value_enum, default_value = "daemon")]
        role: NewRole,
        /// The name its holder gets; its own choice by default.
        #[arg(long)]
        name: Option<String>,
        /// A label that each daemon has from its enrolment on: site=berlin. Can be said more than once.
        #[arg(long = "label", value_name = "KEY=VALUE")]
        labels: Vec<String>,
        /// How often it can be used.
        #[arg(long, default_value_t = 1)]
        uses: u32,
        /// How long it can be used: 30m, 24h, 7d.
        #[arg(long, default_value = "24h", value_parser = duration_s)]
        ttl: u64,
    },
    /// Those that can still be used. Their secrets are not shown again.
    List,
    /// Make one useless.
    Revoke {
        /// Its id, as the list shows it.
        #[arg(add = names::tokens())]
        id: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

/// What a token makes of its holder.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum NewRole {
    /// Runs workflows.
    Daemon,
    /// Gives commands.
    Operator,
}

impl From<NewRole> for Role {
    fn from(role: NewRole) -> Self {
        match role {
            NewRole::Daemon => Role::Daemon,
            NewRole::Operator => Role::Operator,
        }
    }
}

const SELECTORS: &str = "\
A selector is one or more terms in quotes; a daemon is chosen when all of them hold:
  site=berlin  site!=berlin  label:site  name:gw-*  presence:online  version:<0.4  runs:orders  group:north
A minus turns a term around: -label:test. An empty selector chooses all.
Example: mycelial daemon list -l 'site=berlin version:<0.4 -label:test'";

/// Which daemons a command is for.
#[derive(Debug, Clone, clap::Args)]
#[group(required = true, multiple = false)]
pub struct Whom {
    /// Its name or id.
    #[arg(add = names::daemons())]
    pub name: Option<String>,
    /// All that this chooses.
    #[arg(short = 'l', long, value_name = "SELECTOR", add = names::selectors(), allow_hyphen_values = true)]
    pub select: Option<String>,
}

/// Lines of a log that are shown unless something is said.
const LINES: u16 = 100;

/// Which lines of logs.
#[derive(Debug, Clone, clap::Args)]
pub struct Lines {
    /// At most so many of each daemon, the newest [default: 100; with --since all there are].
    #[arg(short = 'n', long = "lines", value_name = "N")]
    pub most: Option<u16>,
    /// Only those of the last 90s, 10m, 2h: the daemon's clock against that of this host.
    #[arg(long, value_parser = duration_s, value_name = "TIME")]
    pub since: Option<u64>,
    /// Go on with what is logged from now on.
    #[arg(short, long)]
    pub follow: bool,
}

impl Lines {
    /// At most so many of each daemon.
    pub fn most(&self) -> u16 {
        let unless_told = if self.since.is_some() { u16::MAX } else { LINES };
        self.most.unwrap_or(unless_told)
    }
}

/// Which daemons keep a secret.
#[derive(Debug, Clone, clap::Args)]
#[group(required = true, multiple = false)]
pub struct Keeper {
    /// Which daemon, by name or id.
    #[arg(long, add = names::daemons())]
    pub daemon: Option<String>,
    /// All that this chooses.
    #[arg(short = 'l', long, value_name = "SELECTOR", add = names::selectors(), allow_hyphen_values = true)]
    pub select: Option<String>,
}

/// `mycelial daemon`
#[derive(Debug, Subcommand)]
pub enum Daemon {
    /// All daemons, or those that a selector chooses.
    #[command(after_help = SELECTORS)]
    List {
        /// Only these.
        #[arg(
            short = 'l',
            long,
            value_name = "SELECTOR",
            add = names::selectors(),
            allow_hyphen_values = true,
            default_value = "",
            hide_default_value = true
        )]
        select: String,
        /// With their labels.
        #[arg(long)]
        labels: bool,
    },
    /// Show labels, put some on, or take some off: `site=berlin` sets, `test-` takes off.
    #[command(after_help = SELECTORS)]
    Label {
        /// Which daemons.
        #[arg(value_name = "SELECTOR", add = names::selectors(), allow_hyphen_values = true)]
        select: String,
        /// `KEY=VALUE` or `KEY-`; shows the labels when there is none.
        changes: Vec<String>,
        /// Do not ask; a selector that chooses several daemons is asked about.
        #[arg(long)]
        yes: bool,
    },
    /// Everything about one daemon.
    Show {
        /// Its name or id.
        #[arg(add = names::daemons())]
        name: String,
    },
    /// Let the sources of all its workflows read nothing more; what was read is still delivered.
    #[command(after_help = SELECTORS)]
    Pause {
        #[command(flatten)]
        whom: Whom,
        /// Do not ask; a selector that chooses several daemons is asked about.
        #[arg(long)]
        yes: bool,
    },
    /// Let the sources of all its paused workflows read again.
    #[command(after_help = SELECTORS)]
    Resume {
        #[command(flatten)]
        whom: Whom,
    },
    /// Pause all its workflows and wait until its buffers are empty: before it is moved, repaired or taken out of the fleet.
    #[command(after_help = SELECTORS)]
    Drain {
        #[command(flatten)]
        patient: Patient,
        /// Do not ask; a selector that chooses several daemons is asked about.
        #[arg(long)]
        yes: bool,
    },
    /// Look closely at its buffers on disk while it runs, and say what is damaged.
    #[command(after_help = SELECTORS)]
    SpoolCheck(Patient),
    /// Give it new keys, and wait until the old ones are no good any more: every so often, or when somebody may have seen them.
    #[command(after_help = SELECTORS)]
    Rotate {
        #[command(flatten)]
        patient: Patient,
        /// Do not ask; a selector that chooses several daemons is asked about.
        #[arg(long)]
        yes: bool,
    },
    /// Log more or less for a while; afterwards what its settings say holds again.
    #[command(after_help = SELECTORS)]
    LogLevel {
        /// error, warn, info, debug, trace, or such as info,spool=debug; `-` goes back at once.
        level: String,
        #[command(flatten)]
        whom: Whom,
        /// For how long: 90s, 30m, 24h.
        #[arg(long = "for", default_value = "10m", value_parser = duration_s, value_name = "TIME")]
        for_s: u64,
    },
    /// Collect what helps to find out what is wrong: no records, no secrets.
    #[command(after_help = SELECTORS)]
    Diagnose {
        #[command(flatten)]
        whom: Whom,
        /// Write it to this file.
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Take a daemon out of the fleet for good: nobody believes it any more, and it reads nothing more. Its data stays on its
    /// disk; workflows that name it have to be changed.
    #[command(after_help = SELECTORS)]
    Revoke {
        #[command(flatten)]
        whom: Whom,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Ask a daemon itself, not the plane, whether it is there.
    #[command(after_help = SELECTORS)]
    Ping {
        #[command(flatten)]
        whom: Whom,
    },
}

/// `mycelial acl`
#[derive(Debug, Subcommand)]
pub enum Acl {
    /// Print it in another broker's language.
    Export {
        /// For which broker.
        #[arg(long, value_enum)]
        broker: Broker,
        /// Only what is about this member, by name or id.
        #[arg(long, add = names::daemons())]
        member: Option<String>,
    },
}

/// `mycelial secret`
#[derive(Debug, Subcommand)]
pub enum Secret {
    /// Keep a secret on a daemon; asks for it, or reads it from stdin. Workflows that name it begin anew.
    #[command(after_help = SELECTORS)]
    Set {
        /// How workflows call it.
        name: String,
        #[command(flatten)]
        keeper: Keeper,
        /// Do not ask, whomever a selector chooses.
        #[arg(long)]
        yes: bool,
    },
    /// Which secrets a daemon keeps and which it misses; never their values.
    #[command(after_help = SELECTORS)]
    List {
        #[command(flatten)]
        keeper: Keeper,
    },
    /// Make a daemon forget a secret.
    #[command(after_help = SELECTORS)]
    Remove {
        /// Which secret.
        name: String,
        #[command(flatten)]
        keeper: Keeper,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

/// `mycelial dlq`
#[derive(Debug, Subcommand)]
pub enum Dlq {
    /// List them.
    List {
        /// Only of this workflow.
        #[arg(add = names::workflows())]
        workflow: Option<String>,
        /// Only on this daemon.
        #[arg(long, add = names::daemons())]
        daemon: Option<String>,
        /// Only on those that this chooses.
        #[arg(short = 'l', long, value_name = "SELECTOR", add = names::selectors(), allow_hyphen_values = true, conflicts_with = "daemon")]
        select: Option<String>,
        /// Only of this node.
        #[arg(long)]
        node: Option<String>,
    },
    /// Why one died, where, and its record.
    Show {
        /// DAEMON/WORKFLOW/NUMBER, as the list shows it.
        letter: String,
        /// Write the exact bytes to this file: what the source gave, or an encoded batch of one row.
        #[arg(long, value_name = "FILE")]
        raw: Option<PathBuf>,
    },
    /// Try them again where they died. Each arrives once where the destination keeps its watermark.
    Replay {
        #[command(flatten)]
        which: Which,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Give one's record other values, so that it can be tried again. Columns that are not named stay.
    Edit {
        /// DAEMON/WORKFLOW/NUMBER, as the list shows it.
        letter: String,
        /// A column and its new value: JSON, or text.
        #[arg(long = "set", value_name = "COLUMN=VALUE", required = true)]
        values: Vec<String>,
        /// Try it again at once.
        #[arg(long)]
        replay: bool,
    },
    /// Forget them for good. The ledger goes on counting them as dead.
    Purge {
        #[command(flatten)]
        which: Which,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

/// Which dead letters.
#[derive(Debug, Clone, clap::Args)]
pub struct Which {
    /// DAEMON/WORKFLOW/NUMBER, as the list shows it.
    pub letters: Vec<String>,
    /// All of them, or all that --workflow, --daemon, -l and --node select.
    #[arg(long)]
    pub all: bool,
    /// Of this workflow.
    #[arg(long, add = names::workflows())]
    pub workflow: Option<String>,
    /// On this daemon.
    #[arg(long, add = names::daemons())]
    pub daemon: Option<String>,
    /// On those that this chooses.
    #[arg(short = 'l', long, value_name = "SELECTOR", add = names::selectors(), allow_hyphen_values = true, conflicts_with = "daemon")]
    pub select: Option<String>,
    /// That died at this node.
    #[arg(long)]
    pub node: Option<String>,
}

/// For whom to write an access list.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Broker {
    /// Eclipse Mosquitto.
    Mosquitto,
    /// nats-server: its authorization block.
    Nats,
    /// nats-server that others use too: an account of its accounts block.
    NatsAccount,
}

impl From<Broker> for BrokerKind {
    fn from(broker: Broker) -> Self {
        match broker {
            Broker::Mosquitto => BrokerKind::Mosquitto,
            Broker::Nats => BrokerKind::Nats,
            Broker::NatsAccount => BrokerKind::NatsAccount,
        }
    }
}

/// `90s`, `30m`, `24h`, `7d` in seconds.
pub(crate) fn duration_s(text: &str) -> Result<u64, String> {
    let wrong = || format!("'{text}' is not a time: write for example 30m, 24h or 7d");
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let unit_s = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    number
        .checked_mul(unit_s)
        .filter(|seconds| *seconds > 0)
        .ok_or_else(wrong)
}

/// `512KiB`, `64MiB`, `1GiB` in bytes.
pub(crate) fn size_bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("'{text}' is not a size: write for example 512KiB, 64MiB or 1GiB");
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let unit_bytes = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(wrong()),
    };
    number.checked_mul(unit_bytes).ok_or_else(wrong)
}

/// `20%` or `20`.
pub(crate) fn percent(text: &str) -> Result<u8, String> {
    let number = text.strip_suffix('%').unwrap_or(text).parse().ok();
    let wrong = || format!("'{text}' is no share: write 0% to 100%");
    number.filter(|percent| *percent <= 100).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definitions_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn sizes_and_shares() {
        for (text, bytes) in [
            ("64MiB", Some(64 << 20)),
            ("512KiB", Some(512 << 10)),
            ("0B", Some(0)),
            ("1GiB", Some(1 << 30)),
            ("64", None),
            ("MiB", None),
            ("1.5GiB", None),
            ("64MB", None),
            ("99999999999GiB", None),
        ] {
            assert_eq!(size_bytes(text).ok(), bytes, "{text}");
        }
        for (text, share) in [
            ("20%", Some(20)),
            ("0", Some(0)),
            ("101%", None),
            ("x", None),
            ("-1%", None),
        ] {
            assert_eq!(percent(text).ok(), share, "{text}");
        }
    }

    #[test]
    fn durations() {
        for (text, seconds) in [
            ("90s", Some(90)),
            ("24h", Some(86_400)),
            ("7d", Some(604_800)),
            ("0s", None),
        ] {
            assert_eq!(duration_s(text).ok(), seconds, "{text}");
        }
        for wrong in ["", "h", "1w", "1.5h", "99999999999999999999d", "ü"] {
            assert!(duration_s(wrong).is_err(), "{wrong}");
        }
    }
}
