//! Workflow texts to validated graphs to per-daemon plans. Pure: no I/O, no clock, no randomness.
//!
//! ```toml
//! name = "orders"
//!
//! [sources.db]
//! type = "sqlite"
//! daemon = "gateway"
//! path = "/data/shop.db"            # all other keys belong to the component
//!
//! [transforms.keep]
//! type = "filter"
//! from = "db"                       # a name, or a list of names; runs where its input is
//! where = "amount > 10"
//!
//! [destinations.warehouse]
//! type = "postgres"
//! daemon = "hub"
//! from = ["keep"]
//! spool = { quota = "1GiB", when_full = "block" }   # buffer of the stream into this node
//! send = { class = "bulk", rate = "50KB/s" }        # how that stream is sent
//! ```
//!
//! A transform with several outputs is read by the name of one: `from = "split.hot"` (see `outputs`).
//!
//! `daemon` may also choose many daemons, each of which gets a copy (see `many`), whose configs can name what differs from one
//! to the other: `daemon = "site=berlin"`, `path = "/data/{{ label.line }}.db"`.
//!
//! A destination on many daemons can be shared by them instead: each gets a part of the records (see `sharing`).
//!
//! [`validate`] tells everything that is wrong at once; [`compile`] cuts a workflow into one [`PlanWorkflow`] per daemon.
//!
//! [`PlanWorkflow`]: bus_schema::plan::PlanWorkflow

mod check;
mod compile;
mod diff;
mod fleet;
mod graph;
mod joins;
mod many;
mod outputs;
mod parse;
mod plain;
mod schema;
mod sharing;
mod spec;
mod template;
mod waits;
mod words;

use bus_schema::api::Problem;

pub use compile::{Compiled, Part};
pub use diff::diff;
pub use fleet::{Daemon, Fleet};
pub use many::is_selector;
pub use parse::RESERVED_KEYS;
pub use plain::plain_secrets;
pub use sharing::{is_misplaced, part_of, unchangeable};
pub use spec::{Node, Share, Spec, Test};
pub use template::Facts;
pub use words::{nearest, size_bytes, size_text};

/// Longest text of a workflow, in bytes.
pub const TEXT_BYTES_MAX: usize = 256 * 1024;
/// Most problems told at once.
pub const PROBLEMS_MAX: usize = 100;
/// Most ways from sources to nodes, counted over all nodes: a node behind a merge of three counts three times.
pub const WAYS_MAX: usize = 1024;
/// Largest part of one workflow on one daemon, encoded, in bytes: a daemon's whole plan must fit one message.
pub const PART_BYTES_MAX: usize = bus_schema::limits::MESSAGE_BYTES_MAX / 2;

/// Reads a text. Fails with everything that is wrong with it whoever shall run it, in the order of the text.
pub fn parse(text: &str) -> Result<Spec, Vec<Problem>> {
    let reading = parse::read(text);
    let mut problems = reading.problems;
    if reading.is_toml {
        problems.extend(graph::check(&reading.spec));
    }
    if problems.is_empty() {
        Ok(reading.spec)
    } else {
        Err(in_order(problems))
    }
}

/// The selectors a text has in the place of daemons' names, each once, as far as it can be read: what they choose has to be
/// said with [`Fleet::choose`] before the text is checked.
pub fn selectors(text: &str) -> Vec<String> {
    parse::read(text).spec.selectors().map(str::to_string).collect()
}

/// Everything that keeps this fleet from running the workflow, in the order of the text; empty when nothing does.
pub fn check(spec: &Spec, fleet: &Fleet) -> Vec<Problem> {
    in_order(wrong(spec, fleet))
}

/// What can run, and would do what its author wants: [`sound`] and without [`waits`].
pub fn validate(text: &str, fleet: &Fleet) -> Result<Spec, Vec<Problem>> {
    let spec = sound(text, fleet)?;
    let problems = waits(&spec, fleet);
    if problems.is_empty() { Ok(spec) } else { Err(problems) }
}

/// Sources of a sound text whose senders would wait for longer than they can. It runs all the same.
pub fn waits(spec: &Spec, fleet: &Fleet) -> Vec<Problem> {
    let compiled = compile(spec, fleet, 0);
    in_order(compiled.map_or_else(|problems| problems, |compiled| waits::check(spec, fleet, &compiled)))
}

/// [`parse`] and [`check`] in one, so that a text's own mistakes do not hide what the fleet cannot do. A spec that comes
/// back compiles.
pub fn sound(text: &str, fleet: &Fleet) -> Result<Spec, Vec<Problem>> {
    let reading = parse::read(text);
    let mut problems = reading.problems;
    if reading.is_toml {
        problems.extend(graph::check(&reading.spec));
        // Each copy would repeat the text's own mistakes.
        if problems.is_empty() || !is_for_many(&reading.spec, fleet) {
            problems.extend(wrong(&reading.spec, fleet));
        }
    }
    if !problems.is_empty() {
        return Err(in_order(problems));
    }
    Ok(reading.spec)
}

/// What keeps a fleet from running a workflow.
fn wrong(spec: &Spec, fleet: &Fleet) -> Vec<Problem> {
    let (spec, mut problems) = sharing::placed(spec, fleet);
    if is_for_many(&spec, fleet) {
        problems.extend(many::compile(&spec, fleet, 0).err().unwrap_or_default());
    } else {
        problems.extend(check::check(&spec, fleet, None).problems);
    }
    problems
}

/// Whether it has nodes on many daemons. Where there is only one, as without a plane, a selector is a name like others.
fn is_for_many(spec: &Spec, fleet: &Fleet) -> bool {
    fleet.default_daemon().is_none() && spec.selectors().next().is_some()
}

/// Cuts a workflow into what each daemon runs. Fails with the problems of [`check`], or when a part is too large.
pub fn compile(spec: &Spec, fleet: &Fleet, revision: u32) -> Result<Compiled, Vec<Problem>> {
    let (spec, problems) = sharing::placed(spec, fleet);
    if !problems.is_empty() {
        return Err(in_order(problems));
    }
    if is_for_many(&spec, fleet) {
        return many::compile(&spec, fleet, revision).map_err(in_order);
    }
    let checked = check::check(&spec, fleet, None);
    let sites: Option<Vec<_>> = checked.sites.into_iter().collect();
    match sites {
        Some(sites) if checked.problems.is_empty() => {
            compile::cut(&spec, &sites, &checked.configs, revision).map_err(in_order)
        }
        _ => Err(in_order(checked.problems)),
    }
}

/// Top to bottom, and not without end.
fn in_order(mut problems: Vec<Problem>) -> Vec<Problem> {
    problems.sort_by_key(|problem| problem.line);
    // Of several copies or parts, one is enough.
    problems.dedup();
    let more = problems.len().saturating_sub(PROBLEMS_MAX);
    if more > 0 {
        problems.truncate(PROBLEMS_MAX);
        let message = format!("and {more} more problems");
        problems.push(Problem {
            place: String::new(),
            line: 0,
            message,
            hint: String::new(),
        });
    }
    problems
}
