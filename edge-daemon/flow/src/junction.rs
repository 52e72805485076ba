//! A node at which pipes end and another one begins: it needs records of several ways at once. To each pipe that ends here it
//! is a sink, to the one that begins a source, each with its own watermark or position, so that the runner knows nothing of it.

use std::path::PathBuf;

use crate::{sink::Sink, source::Source};

/// Holds records until others come that they belong to. What it holds is durable with the watermarks of its inputs, and what it
/// gives out stays until the position behind it is committed: both ends are exactly once.
pub trait Junction: Send + Sync {
    /// The file in which it keeps what it holds; `None`: nowhere, for as long as it lives. Called once, before anything else.
    fn settle(&mut self, file: Option<PathBuf>);

    /// The end of a pipe whose records come from this node. An error says what to do about one that is no input.
    fn input(&self, from: &str) -> Result<Box<dyn Sink>, String>;

    /// The source of the pipe that begins here. It ends when every input has ([`Sink::ended`]) and all is given out.
    fn output(&self) -> Box<dyn Source>;

    /// Tells at any time how many records are made and not yet read.
    fn waiting(&self) -> Box<dyn Fn() -> u64 + Send + Sync>;
}
