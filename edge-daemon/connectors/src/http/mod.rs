//! HTTP: the source that asks, the source that is called (webhook), and the destination; and the client that others may use.

pub(crate) mod client;
pub(crate) mod errand;
mod page;
mod sink;
mod source;
pub(crate) mod verdict;
mod webhook;

pub(crate) use sink::SINK;
pub(crate) use source::SOURCE;
pub(crate) use webhook::SOURCE as WEBHOOK;

#[cfg(test)]
mod tests;
