//! What can be typed about workflows and their rollouts.

use std::path::PathBuf;

use clap::Subcommand;

use super::{Lines, SELECTORS, duration_s, percent, size_bytes};
use crate::{files::Files, names};

/// `mycelial workflow`
#[derive(Debug, Subcommand)]
pub enum Workflow {
    /// Say everything that is wrong with workflows; change nothing.
    Validate {
        #[command(flatten)]
        files: Files,
    },
    /// Store workflows as new revisions and deploy them. What is as it should be is left alone; when one of several has a
    /// problem, none is changed. Refuses to overwrite what somebody else deployed since you looked last.
    Apply {
        #[command(flatten)]
        files: Files,
        /// Refuse if the current revision is another one (0: there is none yet). For one workflow only.
        #[arg(long, value_name = "REVISION", conflicts_with = "force")]
        expect: Option<u32>,
        /// Also over what somebody else deployed since you looked last.
        #[arg(long)]
        force: bool,
        /// Wait until every daemon runs it; fails when one does not.
        #[arg(long)]
        wait: bool,
        /// How long to wait: 90s, 5m.
        #[arg(long, default_value = "2m", value_parser = duration_s, value_name = "TIME", requires = "wait")]
        wait_max: u64,
        /// Only show what would change: nodes, and what each daemon would get.
        #[arg(long, conflicts_with_all = ["wait", "waves"])]
        dry_run: bool,
        /// Why, for those who look at the revisions later.
        #[arg(long, value_name = "TEXT", conflicts_with = "dry_run")]
        reason: Option<String>,
        #[command(flatten)]
        waves: Waves,
    },
    /// All workflows, or those that run on some daemons.
    #[command(after_help = SELECTORS)]
    List {
        /// Only those that run on a daemon that this chooses.
        #[arg(short = 'l', long, value_name = "SELECTOR", add = names::selectors(), allow_hyphen_values = true)]
        select: Option<String>,
    },
    /// A workflow's text.
    Show {
        /// Its name.
        #[arg(add = names::workflows())]
        name: String,
        /// Of an earlier revision.
        #[arg(long, value_name = "NUMBER")]
        revision: Option<u32>,
    },
    /// Run the tests that a workflow keeps (`[tests.NAME]`), on a daemon: nothing is read, written or deployed.
    Test {
        #[command(flatten)]
        files: Files,
        /// Where; the first daemon that the workflow names by default.
        #[arg(long, add = names::daemons())]
        daemon: Option<String>,
    },
    /// Show what each step makes of some records, on a daemon: no destination is written, nothing is deployed.
    Preview {
        /// TOML file; `-` reads stdin.
        file: PathBuf,
        /// Records for a source: a file with a JSON object a line, such as `mycelial tap -o jsonl` writes.
        #[arg(long, required = true, value_name = "SOURCE=FILE")]
        given: Vec<String>,
        /// The type of a column of the records, by a name that `cast` takes.
        #[arg(long = "type", value_name = "COLUMN=TYPE")]
        types: Vec<String>,
        /// Where; the first daemon that the workflow names by default.
        #[arg(long, add = names::daemons())]
        daemon: Option<String>,
    },
    /// Check the sources and destinations of a workflow from the daemons that have them: each is reached, and no data is
    /// touched. Exit code 3: something is wrong with one.
    #[command(group = clap::ArgGroup::new("which").required(true).args(["name", "file"]))]
    Check {
        /// Its name, of one that is deployed.
        #[arg(add = names::workflows())]
        name: Option<String>,
        /// TOML file instead; `-` reads stdin.
        #[arg(short, long)]
        file: Option<PathBuf>,
        /// Only from this daemon.
        #[arg(long, add = names::daemons())]
        daemon: Option<String>,
        /// Only from those of its daemons that this chooses.
        #[arg(short = 'l', long, value_name = "SELECTOR", add = names::selectors(), allow_hyphen_values = true, conflicts_with = "daemon")]
        select: Option<String>,
    },
    /// What would change if files were applied. Exit code 3: something would.
    Diff {
        #[command(flatten)]
        files: Files,
    },
    /// Who applied which revision when, and why.
    Revisions {
        /// Its name.
        #[arg(add = names::workflows())]
        name: String,
    },
    /// Apply the text of an earlier revision again, as a new one.
    Rollback {
        /// Its name.
        #[arg(add = names::workflows())]
        name: String,
        /// Which; the one before the current by default.
        #[arg(long, value_name = "NUMBER")]
        to: Option<u32>,
        /// Why, for those who look at the revisions later.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Stop a workflow and forget it. Its revisions are kept.
    Delete {
        /// Its name.
        #[arg(add = names::workflows())]
        name: String,
        /// Refuse if the current revision is another one.
        #[arg(long, value_name = "REVISION")]
        expect: Option<u32>,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Start a workflow anew on its daemons.
    #[command(after_help = SELECTORS)]
    Restart {
        #[command(flatten)]
        part: Part,
        /// Do not ask; a selector that chooses several daemons is asked about.
        #[arg(long)]
        yes: bool,
    },
    /// Let its sources read nothing more until it is resumed; what was read is still delivered.
    #[command(after_help = SELECTORS)]
    Pause {
        #[command(flatten)]
        part: Part,
        /// Do not ask; a selector that chooses several daemons is asked about.
        #[arg(long)]
        yes: bool,
    },
    /// Let its sources read again.
    #[command(after_help = SELECTORS)]
    Resume {
        #[command(flatten)]
        part: Part,
    },
    /// The last lines that its daemons logged about it, in the order of their times.
    #[command(after_help = SELECTORS)]
    Logs {
        #[command(flatten)]
        part: Part,
        #[command(flatten)]
        lines: Lines,
    },
    /// What each node of a workflow does, daemon by daemon: records, bytes, errors, and how long it is at work.
    Nodes {
        /// Its name.
        #[arg(add = names::workflows())]
        name: String,
    },
    /// How a workflow is doing, daemon by daemon, with its streams.
    Status {
        /// Its name.
        #[arg(add = names::workflows())]
        name: String,
    },
}

/// How a revision goes to its daemons in waves.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Waves {
    /// In waves: how many daemons have it after each. A wave has to do well before the next begins.
    #[arg(long, value_name = "1,10%,50%,100%")]
    pub waves: Option<String>,
    /// How long a wave has to do well: 30s, 10m [default: 30s].
    #[arg(long, value_parser = duration_s, value_name = "TIME")]
    pub soak: Option<u64>,
    /// How long a daemon may take to run it; one that is silent for so long has failed [default: 2m].
    #[arg(long, value_parser = duration_s, value_name = "TIME")]
    pub take: Option<u64>,
    /// How many daemons may fail before all go back: 3 or 5% [default: 0].
    #[arg(long, value_name = "NUMBER")]
    pub max_failures: Option<String>,
    /// New dead letters that a daemon may have [default: 0].
    #[arg(long, value_name = "NUMBER")]
    pub max_dead: Option<u64>,
    /// How much more a daemon's buffers may hold than before: 64MiB, 1GiB [default: 64MiB].
    #[arg(long, value_parser = size_bytes, value_name = "SIZE")]
    pub max_lag: Option<u64>,
    /// How much longer than before a daemon's oldest record may wait: 5m, 1h; 0s does not look [default: 15m].
    #[arg(long, value_parser = duration_s, value_name = "TIME")]
    pub max_wait: Option<u64>,
    /// How much of what its daemons moved before a wave has to move; 0% does not look [default: 20%].
    #[arg(long, value_parser = percent, value_name = "PERCENT")]
    pub min_throughput: Option<u8>,
    /// Wait for somebody to look instead of going back.
    #[arg(long)]
    pub pause_on_failure: bool,
}

/// `mycelial rollout`
#[derive(Debug, Subcommand)]
pub enum Rollout {
    /// Store a workflow as a new revision and deploy it in waves. When a wave fails, all go back to what they had.
    Start {
        /// TOML file; `-` reads stdin.
        file: PathBuf,
        /// Refuse if the current revision is another one (0: there is none yet).
        #[arg(long, value_name = "REVISION", conflicts_with = "force")]
        expect: Option<u32>,
        /// Also over what somebody else deployed since you looked last.
        #[arg(long)]
        force: bool,
        /// Why, for those who look at the revisions later.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        #[command(flatten)]
        waves: Waves,
        /// Print what happens until it is over; fails when it does not end well.
        #[arg(long)]
        watch: bool,
    },
    /// All rollouts, the newest first.
    List,
    /// One rollout, with the daemons that failed.
    Show {
        /// Its number.
        #[arg(add = names::rollouts())]
        id: u64,
    },
    /// Print what happens until it is over; fails when it does not end well.
    Watch {
        /// Its number.
        #[arg(add = names::rollouts())]
        id: u64,
    },
    /// Begin no new wave.
    Pause {
        /// Its number.
        #[arg(add = names::rollouts())]
        id: u64,
        /// Why.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Go on, whatever has failed so far.
    Resume {
        /// Its number.
        #[arg(add = names::rollouts())]
        id: u64,
        /// Why.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// End it; what was deployed stays.
    Abort {
        /// Its number.
        #[arg(add = names::rollouts())]
        id: u64,
        /// Why.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Give all that have the new revision back what they had before.
    Rollback {
        /// Its number.
        #[arg(add = names::rollouts())]
        id: u64,
        /// Why.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

/// A workflow, on all its daemons or on some.
#[derive(Debug, Clone, clap::Args)]
pub struct Part {
    /// Its name.
    #[arg(add = names::workflows())]
    pub name: String,
    /// Only on this daemon.
    #[arg(long, add = names::daemons(), conflicts_with = "select")]
    pub daemon: Option<String>,
    /// Only on those that this chooses.
    #[arg(short = 'l', long, value_name = "SELECTOR", add = names::selectors(), allow_hyphen_values = true)]
    pub select: Option<String>,
}
