//! What the suite needs of a connector's system, and what it asks of every connector.

use std::{ops::Range, path::PathBuf};

use bus_schema::data::Op;
use bus_schema::plan::ComponentRole;
use flow::{Build, BuildContext, Registry, Sink, Source, TroubleKind};
use serde_json::Value as Json;

use crate::{bench::Plan, counter::Counter, sink_suite, source_suite};

/// What is asked of every connector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// `check` says that all is well, and else what is not; it touches nothing.
    Check,
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
    pub const ALL: [Ask; 8] = [
        Ask::Check,
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

/// The system of a source. Records have a number in a column.
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

    /// Makes the system hold records with these numbers, from one on, each higher than those before; `pad` bytes of text in
    /// each. May return before the system has them.
    fn feed(&mut self, numbers: Range<u64>, pad: usize);

    /// Something that is no record, with this number if it has one: then `true`.
    fn feed_bad(&mut self, number: u64) -> bool {
        let _ = number;
        false
    }

    /// From now on records have a column `extra`.
    fn drift(&mut self) {}

    /// The server goes away.
    fn down(&mut self) {}

    /// It is back.
    fn up(&mut self) {}

    /// Configs that are wrong.
    fn wrong(&self) -> Vec<Wrong>;

    /// What a check must leave as it is.
    fn touched(&mut self) -> String {
        String::new()
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

    /// What a record has to say to be one the system does not take.
    fn bad(&self) -> Op {
        Op::Delete
    }

    /// The server goes away.
    fn down(&mut self) {}

    /// It is back.
    fn up(&mut self) {}

    /// The server takes nothing, and does not say so.
    fn freeze(&mut self) {}

    /// It goes on.
    fn thaw(&mut self) {}

    /// Configs that are wrong.
    fn wrong(&self) -> Vec<Wrong>;

    /// What a check must leave as it is.
    fn touched(&mut self) -> String {
        String::new()
    }
}
