//! What the suite needs of a connector's system, and what it asks of every connector.

use std::{ops::Range, path::PathBuf};

use bus_schema::data::Op;
use bus_schema::plan::ComponentRole;
use flow::{Build, BuildContext, Registry, Sink, Source, TroubleKind};
use serde_json::Value as Json;

use crate::{bench::Plan, counter::Counter, sink_suite, source_suite};

/// Records that may be under way: those of a third of a megabyte, and of the batches on the way into and out of it.
const UNDER_WAY_MAX: u64 = 8_000;

/// What is asked of every connector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// `check` leaves everything as it was, before it ever ran and after that.
    Untouched,
    /// `check` says that all is well, and does not disturb the same connector at work.
    Check,
    /// `check` says what is wrong.
    Wrong,
    /// It is told to stop, ends in good order, and goes on later where it was.
    Stop,
    /// It is dropped in the middle of a batch, again and again.
    Kill,
    /// The other end takes nothing for a while.
    Pressure,
    /// One record is bad.
    BadRecord,
    /// Records get another column.
    Drift,
    /// The server goes away and comes back.
    Reconnect,
    /// It runs, is stopped and begins anew, and the process takes no more memory.
    Leak,
}

impl Ask {
    /// All, in the order in which they are asked.
    pub const ALL: [Ask; 10] = [
        Ask::Untouched,
        Ask::Check,
        Ask::Wrong,
        Ask::Stop,
        Ask::Kill,
        Ask::Pressure,
        Ask::BadRecord,
        Ask::Drift,
        Ask::Reconnect,
        Ask::Leak,
    ];
}

/// How a connector is met.
pub enum World {
    /// As a source.
    Source(fn() -> Box<dyn SourceWorld>),
    /// As a destination.
    Sink(fn() -> Box<dyn SinkWorld>),
}

/// A line of the table.
pub struct Row {
    /// Its type.
    pub component: &'static str,
    /// Which of its ways of working, if there are several.
    pub way: &'static str,
    /// Its system.
    pub world: World,
    /// What does not apply to it, and why.
    pub not: &'static [(Ask, &'static str)],
}

impl Row {
    /// Its role in the code's word.
    pub fn role(&self) -> &'static str {
        match self.world {
            World::Source(_) => "Source",
            World::Sink(_) => "Sink",
        }
    }

    /// What it is called where results are written down.
    pub fn key(&self) -> String {
        format!(
            "{} {} {}",
            self.role().to_lowercase(),
            self.component,
            self.way.replace(' ', "_")
        )
        .trim_end()
        .replace(' ', "-")
    }

    /// Whether it is this one.
    pub fn is(&self, component: &str, way: &str, role: &str) -> bool {
        self.component == component && self.way == way && self.role() == role
    }

    /// Why something does not apply to it.
    pub fn why_not(&self, ask: Ask) -> Option<&'static str> {
        let found = self.not.iter().find(|(not, _)| *not == ask);
        found.map(|(_, why)| *why)
    }

    /// Asks all that applies.
    pub fn prove(&self) {
        let asks: Vec<Ask> = Ask::ALL
            .into_iter()
            .filter(|ask| self.why_not(*ask).is_none())
            .collect();
        match self.world {
            World::Source(world) => source_suite::prove(self, &mut *world(), &asks),
            World::Sink(world) => sink_suite::prove(self, &mut *world(), &asks),
        }
    }

    fn context(base_dir: PathBuf) -> BuildContext {
        BuildContext {
            workflow: "compliance".into(),
            node: "node".into(),
            daemon: "here".into(),
            base_dir,
        }
    }

    /// The source of a config.
    pub fn source(&self, config: &Json, base_dir: PathBuf) -> Box<dyn Source> {
        let registry = Registry::new(connectors::components());
        let Some(Build::Source(build)) = registry.find(ComponentRole::Source, self.component) else {
            panic!("there is no source '{}'", self.component)
        };
        build(&config.to_string(), &Self::context(base_dir)).unwrap_or_else(|error| panic!("{config}: {error}"))
    }

    /// The destination of a config.
    pub fn sink(&self, config: &Json, base_dir: PathBuf) -> Box<dyn Sink> {
        let registry = Registry::new(connectors::components());
        let Some(Build::Sink(build)) = registry.find(ComponentRole::Destination, self.component) else {
            panic!("there is no destination '{}'", self.component)
        };
        build(&config.to_string(), &Self::context(base_dir)).unwrap_or_else(|error| panic!("{config}: {error}"))
    }
}

/// What becomes of what is under way when something goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// Everything arrives, each once.
    Exactly,
    /// Everything arrives, some of it twice.
    AtLeast,
    /// What was under way is lost, and it goes on with what comes then: there is nothing to read again.
    GoesOn,
}

/// A config that is wrong, and how a check has to call that.
pub type Wrong = (Json, TroubleKind);

/// What a world does when it is asked for what it cannot do: a line of the table must not say yes where nothing is looked at.
#[track_caller]
fn cannot(what: &str) -> ! {
    panic!("this world cannot {what}: teach it to, or say in its line why that does not apply")
}

/// The system of a source. Records have a number in a column. What a world has not, its line has to leave out.
pub trait SourceWorld {
    /// Its config.
    fn config(&self) -> Json;

    /// Where relative paths start.
    fn base_dir(&self) -> PathBuf {
        PathBuf::from("/")
    }

    /// See [`Promise`].
    fn promise(&self) -> Promise {
        Promise::Exactly
    }

    /// Whether the source reads again what was not committed.
    fn rereads(&self) -> bool {
        true
    }

    /// The column with the number.
    fn column(&self) -> &'static str {
        "n"
    }

    /// Which records count, if not all: those with this text in this column.
    fn counted(&self) -> Option<(&'static str, &'static str)> {
        None
    }

    /// What a check finds while the same connector is at work, if that has what the other needs for itself alone.
    fn taken(&self) -> Option<TroubleKind> {
        None
    }

    /// How many records may be under way to somebody who takes none. It has to be less than a flood of 12,000, or than what
    /// it makes up by itself within some seconds.
    fn under_way_max(&self) -> u64 {
        UNDER_WAY_MAX
    }

    /// Makes the system hold records with these numbers, from one on, each higher than those before; `pad` bytes of text in
    /// each. May return before the system has them.
    fn feed(&mut self, numbers: Range<u64>, pad: usize);

    /// Something that is no record, with this number if it has one: then `true`.
    fn feed_bad(&mut self, _: u64) -> bool {
        cannot("feed what is bad")
    }

    /// From now on records have a column `extra`.
    fn drift(&mut self) {
        cannot("give records another column")
    }

    /// The server goes away.
    fn down(&mut self) {
        cannot("stop a server")
    }

    /// It is back.
    fn up(&mut self) {
        cannot("start a server")
    }

    /// Configs that are wrong.
    fn wrong(&self) -> Vec<Wrong> {
        cannot("name a config that is wrong")
    }

    /// What a check must leave as it is: what somebody else sees of the system.
    fn touched(&mut self) -> String {
        cannot("tell what a check has touched")
    }
}

/// The system of a destination. Records have their number in a column `n`.
pub trait SinkWorld {
    /// Its config.
    fn config(&self) -> Json;

    /// Where relative paths start.
    fn base_dir(&self) -> PathBuf {
        PathBuf::from("/")
    }

    /// See [`Promise`].
    fn promise(&self) -> Promise {
        Promise::Exactly
    }

    /// What gives it the records of a plan.
    fn source(&mut self, plan: &Plan) -> Box<dyn Source> {
        Box::new(Counter::new(plan.clone()))
    }

    /// Whether it costs little to look at what has arrived. It has to be so where a record is no number.
    fn is_cheap(&self) -> bool {
        false
    }

    /// The numbers that are there, in any order, as something else than the destination reads them.
    fn arrived(&mut self) -> Vec<u64>;

    /// How many of them have their text in the column `extra`.
    fn extras(&mut self) -> u64 {
        cannot("tell what has arrived in the new column")
    }

    /// What a record has to say to be one the system does not take.
    fn bad(&self) -> Op {
        Op::Delete
    }

    /// The server goes away.
    fn down(&mut self) {
        cannot("stop a server")
    }

    /// It is back.
    fn up(&mut self) {
        cannot("start a server")
    }

    /// The server takes nothing, and does not say so.
    fn freeze(&mut self) {
        cannot("freeze a server")
    }

    /// It goes on.
    fn thaw(&mut self) {
        cannot("thaw a server")
    }

    /// Configs that are wrong.
    fn wrong(&self) -> Vec<Wrong> {
        cannot("name a config that is wrong")
    }

    /// What a check must leave as it is: what somebody else sees of the system.
    fn touched(&mut self) -> String {
        cannot("tell what a check has touched")
    }
}
