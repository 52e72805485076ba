//! What one step of the hot path costs. One table of cases, run by two programs: `cargo bench -p micro` times them, and
//! `hot`, under callgrind, counts their instructions for the budgets in `budgets.toml` (`cargo xtask budgets`).
//!
//! A case does the same work at every run: fixed data, fixed keys, one thread of ours. It asserts that the work was done
//! (rows counted, bytes made), and never what it costs: that is the budgets' business.

mod connector;
mod data;
mod pipe;
mod store;
mod transform;
mod wire;

use std::path::Path;

use anyhow::Result;

/// How far the instructions of most cases differ from run to run, in percent. Measured: below 0.1.
pub const SPREAD_PERCENT: f64 = 0.5;

/// One iteration. Returns how much it handled (rows, or bytes where there are no rows): the same at every call.
pub type Body = Box<dyn FnMut() -> Result<u64>>;

/// Something that is worth a budget.
pub struct Case {
    /// Its name, in both programs and in the budgets.
    pub name: &'static str,
    /// What one iteration is.
    pub iteration: &'static str,
    /// How many are counted; twice as many in the second run, whose difference is what counts.
    pub iterations: u64,
    /// How far its instructions differ from run to run, in percent.
    pub spread_percent: f64,
    /// Whether only the main thread counts: others do what depends on when they wake up.
    pub main_thread_only: bool,
    /// Prepares it in an empty directory.
    pub prepare: fn(&Path) -> Result<Body>,
}

/// All of them, in the order of a record's way.
pub fn cases() -> impl Iterator<Item = &'static Case> {
    let parts = [
        connector::SOURCES,
        transform::CASES,
        wire::CASES,
        store::CASES,
        connector::SINKS,
        pipe::CASES,
    ];
    parts.into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_every_case_does_its_work_each_time() {
        let mut names = BTreeSet::new();
        for case in cases() {
            assert!(names.insert(case.name), "{} stands there twice", case.name);
            let dir = tempfile::tempdir().unwrap();
            let mut body = (case.prepare)(dir.path()).unwrap();
            let first = body().unwrap();
            assert!(first > 0, "{} does nothing", case.name);
            for _ in 0..2 {
                assert_eq!(body().unwrap(), first, "{}", case.name);
            }
        }
    }
}
