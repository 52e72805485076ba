//! Times every case with criterion: `cargo bench -p micro [-- <part of a name>]`. Good for comparing on a quiet machine;
//! what must not get worse is counted in instructions instead (`cargo xtask budgets`).

use std::time::{Duration, Instant};

use criterion::Criterion;
use micro::Case;

/// Short: files that a case writes grow as long as it is warmed up.
const WARM_UP: Duration = Duration::from_millis(500);
const MEASURE: Duration = Duration::from_secs(3);
const SAMPLES: usize = 20;

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(WARM_UP)
        .measurement_time(MEASURE)
        .sample_size(SAMPLES)
        .configure_from_args();
    for case in micro::cases() {
        criterion.bench_function(case.name, |bencher| bencher.iter_custom(|times| time(case, times)));
    }
    criterion.final_summary();
}

/// In a fresh directory each, so that no sample inherits the files of the one before.
fn time(case: &Case, times: u64) -> Duration {
    let dir = tempfile::tempdir().expect("a benchmark needs a directory to work in");
    let mut body = (case.prepare)(dir.path()).unwrap_or_else(|error| panic!("{}: {error:#}", case.name));
    let started = Instant::now();
    for _ in 0..times {
        body().unwrap_or_else(|error| panic!("{}: {error:#}", case.name));
    }
    started.elapsed()
}
