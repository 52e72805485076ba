//! Benchmarks side by side: the same job done by Mycelial, by what else is used for it, and by hand as a ceiling. Rows are
//! counted and checked at the destination; a job that lost one has failed, however fast it was.

pub mod report;
pub mod stats;
pub mod suite;
pub mod suites;
pub mod usage;
