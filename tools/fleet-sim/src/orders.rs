//! What goes wrong, to order: a file with an order a line, read again whenever it changes.
//!
//! ```text
//! fail orders@2 sim-01*     the workflow's revision 2 fails on these
//! dead orders@2 sim-02*     on these it runs, and sends records to the dead letters
//! slow 3 sim-03*            these take 3 s to do what a plan says
//! silent sim-04*            these do nothing and say nothing
//! gone sim-05*              these have stopped with a goodbye; without the line they start anew
//! ```

use anyhow::{Context as _, Result, bail};

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Order {
    what: What,
    whom: String,
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    Fail(String, u32),
    Dead(String, u32),
    Slow(u64),
    Silent,
    Gone,
}

/// How a revision of a workflow does on one daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Well.
    Runs,
    /// It does not start.
    Fails,
    /// It runs, and its destination takes no record.
    Dies,
}

/// All orders in force.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Orders(Vec<Order>);

impl Orders {
    /// Reads a file's text. Empty lines and what follows a '#' say nothing.
    pub fn parse(text: &str) -> Result<Self> {
        let lines = text.lines().enumerate();
        let said = lines.map(|(at, line)| (at + 1, line.split('#').next().unwrap_or_default().trim()));
        let orders = said.filter(|(_, line)| !line.is_empty());
        let orders = orders.map(|(at, line)| order(line).with_context(|| format!("line {at}: '{line}'")));
        orders.collect::<Result<_>>().map(Self)
    }

    fn of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a What> {
        let meant = self.0.iter().filter(move |order| is_meant(&order.whom, name));
        meant.map(|order| &order.what)
    }

    /// How a revision of a workflow does on a daemon.
    pub fn fate(&self, name: &str, workflow: &str, revision: u32) -> Fate {
        let is_it = |of: &str, number: u32| of == workflow && number == revision;
        let fates = self.of(name).filter_map(|what| match what {
            What::Fail(of, number) if is_it(of, *number) => Some(Fate::Fails),
            What::Dead(of, number) if is_it(of, *number) => Some(Fate::Dies),
            _ => None,
        });
        fates.last().unwrap_or(Fate::Runs)
    }

    /// How long a daemon takes to do what a plan says, in milliseconds, besides what all take.
    pub fn slow_ms(&self, name: &str) -> u64 {
        let slow = self.of(name).filter_map(|what| match what {
            What::Slow(ms) => Some(*ms),
            _ => None,
        });
        slow.last().unwrap_or(0)
    }

    /// Whether a daemon says nothing.
    pub fn is_silent(&self, name: &str) -> bool {
        self.of(name).any(|what| *what == What::Silent)
    }

    /// Whether a daemon has stopped.
    pub fn is_gone(&self, name: &str) -> bool {
        self.of(name).any(|what| *what == What::Gone)
    }
}

fn order(line: &str) -> Result<Order> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let revision = |text: &str| -> Result<(String, u32)> {
        let (workflow, number) = text.split_once('@').context("write WORKFLOW@REVISION")?;
        Ok((
            workflow.to_string(),
            number.parse().context("the revision is a number")?,
        ))
    };
    let (what, whom) = match words[..] {
        ["fail", which, whom] => revision(which).map(|(workflow, number)| (What::Fail(workflow, number), whom))?,
        ["dead", which, whom] => revision(which).map(|(workflow, number)| (What::Dead(workflow, number), whom))?,
        ["slow", seconds, whom] => (What::Slow(seconds.parse::<u64>()?.saturating_mul(1_000)), whom),
        ["silent", whom] => (What::Silent, whom),
        ["gone", whom] => (What::Gone, whom),
        _ => bail!("write fail or dead WORKFLOW@REVISION NAMES, slow SECONDS NAMES, silent NAMES or gone NAMES"),
    };
    Ok(Order {
        what,
        whom: whom.to_string(),
    })
}

/// A name, or the beginning of names with a '*' behind it.
fn is_meant(whom: &str, name: &str) -> bool {
    match whom.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => whom == name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_for_those_they_name() {
        let text =
            "# for the second wave\nfail a@2 sim-1*\nslow 3 sim-12\n\nsilent sim-3\ngone sim-4 # for good\ndead b@1 *";
        let orders = Orders::parse(text).unwrap();
        for (name, workflow, revision, fate) in [
            ("sim-1", "a", 2, Fate::Fails),
            ("sim-12", "a", 2, Fate::Fails),
            ("sim-12", "a", 1, Fate::Runs),
            ("sim-2", "a", 2, Fate::Runs),
            ("sim-2", "b", 1, Fate::Dies),
        ] {
            assert_eq!(
                orders.fate(name, workflow, revision),
                fate,
                "{name} {workflow}@{revision}"
            );
        }
        assert_eq!(["sim-1", "sim-12"].map(|name| orders.slow_ms(name)), [0, 3_000]);
        assert_eq!(["sim-3", "sim-4"].map(|name| orders.is_silent(name)), [true, false]);
        assert_eq!(["sim-3", "sim-4"].map(|name| orders.is_gone(name)), [false, true]);
        for wrong in ["fail a sim-1", "fail a@x sim-1", "slow sim-1", "burn sim-1"] {
            assert!(Orders::parse(wrong).is_err(), "{wrong}");
        }
    }
}
