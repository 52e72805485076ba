//! Python code of the user's own as source, transform and destination. `stub.py` runs it in a process of its own; `script`
//! starts that within limits, `cells` says what a value is there and here. Interprets no Python.

mod cells;
mod script;
mod sink;
mod source;
mod transform;

#[cfg(test)]
mod tests;

pub(crate) use sink::SINK;
pub(crate) use source::SOURCE;
pub(crate) use transform::TRANSFORM;
