//! What can be typed.

use std::path::PathBuf;

use bus_schema::{api::BrokerKind, member::Role};
use clap::{Parser, Subcommand, ValueEnum};

const EXAMPLES: &str = "\
Examples:
  mycelial init myc1…                      become an operator, with the string the plane printed
  mycelial token create                    make a string that enrols one daemon
  mycelial workflow apply orders.toml      deploy a workflow
  mycelial workflow status orders          see it run
";

const EXITS: &str = "\
Exit codes: 0 done, 1 failed, 2 wrong command line, file or enrolment string, or not an operator yet,
3 no answer from the bus or the plane, 4 no such thing, 5 refused (invalid, conflict or forbidden).
Data goes to stdout, everything else to stderr.";

/// Runs a fleet from the command line.
#[derive(Debug, Parser)]
#[command(name = "mycelial", version, before_help = EXAMPLES, after_help = EXITS)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
    /// How results look.
    #[arg(short, long, global = true, value_enum, default_value = "table")]
    pub output: Output,
    /// Where the operator's keys are.
    #[arg(long, global = true, env = "MYCELIAL_HOME", value_name = "DIR")]
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
    /// For programs.
    Json,
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
    /// Make enrolment strings.
    #[command(subcommand)]
    Token(Token),
    /// Look at daemons.
    #[command(subcommand)]
    Daemon(Daemon),
    /// Write, deploy and watch workflows.
    #[command(subcommand)]
    Workflow(Workflow),
    /// Show every stream's account: produced = delivered + buffered + dropped + dead.
    Ledger,
    /// Show the components the fleet's daemons have, or one of them with its settings and an example.
    Components {
        /// Its type name.
        name: Option<String>,
    },
    /// Watch records pass a node of a workflow.
    Tap {
        /// The workflow.
        workflow: String,
        /// The node, as the workflow names it.
        node: String,
        /// The daemon; all daemons of the workflow by default.
        #[arg(long)]
        daemon: Option<String>,
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
    /// Print the broker's access list in another broker's language.
    Acl {
        /// For which broker.
        #[arg(long = "for", value_enum)]
        broker: Broker,
    },
    /// Check keys, connection, plane and daemons, and say what is wrong.
    Doctor,
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
        /// How often it can be used.
        #[arg(long, default_value_t = 1)]
        uses: u32,
        /// How long it can be used: 30m, 24h, 7d.
        #[arg(long, default_value = "24h", value_parser = duration_s)]
        ttl: u64,
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

/// `mycelial daemon`
#[derive(Debug, Subcommand)]
pub enum Daemon {
    /// All daemons.
    List,
    /// Everything about one daemon.
    Show {
        /// Its name or id.
        name: String,
    },
    /// Ask a daemon itself, not the plane, whether it is there.
    Ping {
        /// Its name or id.
        name: String,
    },
}

/// `mycelial workflow`
#[derive(Debug, Subcommand)]
pub enum Workflow {
    /// Say everything that is wrong with a workflow; change nothing.
    Validate {
        /// TOML file; `-` reads stdin.
        file: PathBuf,
    },
    /// Store a workflow as a new revision and deploy it.
    Apply {
        /// TOML file; `-` reads stdin.
        file: PathBuf,
        /// Refuse if the current revision is another one (0: there is none yet).
        #[arg(long, value_name = "REVISION")]
        expect: Option<u32>,
    },
    /// All workflows.
    List,
    /// A workflow's text.
    Show {
        /// Its name.
        name: String,
    },
    /// Stop a workflow and forget it.
    Delete {
        /// Its name.
        name: String,
    },
    /// How a workflow is doing, daemon by daemon, with its streams.
    Status {
        /// Its name.
        name: String,
    },
}

/// `mycelial dlq`
#[derive(Debug, Subcommand)]
pub enum Dlq {
    /// List them.
    List {
        /// Only of this workflow.
        workflow: Option<String>,
        /// Only on this daemon.
        #[arg(long)]
        daemon: Option<String>,
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
    /// All of them, or all that --workflow, --daemon and --node select.
    #[arg(long)]
    pub all: bool,
    /// Of this workflow.
    #[arg(long)]
    pub workflow: Option<String>,
    /// On this daemon.
    #[arg(long)]
    pub daemon: Option<String>,
    /// That died at this node.
    #[arg(long)]
    pub node: Option<String>,
}

/// For whom to write an access list.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Broker {
    /// Eclipse Mosquitto.
    Mosquitto,
    /// nats-server.
    Nats,
}

impl From<Broker> for BrokerKind {
    fn from(broker: Broker) -> Self {
        match broker {
            Broker::Mosquitto => BrokerKind::Mosquitto,
            Broker::Nats => BrokerKind::Nats,
        }
    }
}

/// `90s`, `30m`, `24h`, `7d` in seconds.
fn duration_s(text: &str) -> Result<u64, String> {
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definitions_are_consistent() {
        Arguments::command().debug_assert();
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
