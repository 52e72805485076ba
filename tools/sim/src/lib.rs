//! A simulation of buffers, streams and plans without network or disk: thousands of lives with partitions, crashes,
//! reorderings, duplicates, losses, delays, torn writes, damage, and files that vanish or come back older.
//!
//! The decisions are the real ones (`stream`, `flow::levelling`, `converge`); what the daemon does around them is done here
//! step by step, over a [model of the spool](spool) and of [the broker](net). An [oracle](oracle) that takes part in nothing
//! knows what was produced and looks into the destinations.
//!
//! Everything comes from the seed: a run that fails fails again.

pub mod batches;
pub mod consumer;
mod courier;
pub mod dice;
mod mishaps;
pub mod net;
pub mod oracle;
pub mod plans;
pub mod producer;
pub mod setting;
pub mod spool;
mod tracks;
pub mod world;

use dice::Dice;
use setting::{Mistake, Setting};
use world::World;

/// What broke in a run, in words.
pub type Broken = String;

/// Runs the life of a stream, and of a plan, that belong to a seed. `tells`: prints what happens.
pub fn run(seed: u64, mistake: Option<Mistake>, tells: bool) -> Result<(), Broken> {
    let mut dice = Dice::new(seed);
    let setting = Setting::draw(&mut dice, mistake);
    if tells {
        println!("{setting:#?}");
    }
    World::new(setting, dice.clone(), tells).run()?;
    plans::run(&mut dice, mistake, tells)
}
