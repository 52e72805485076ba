//! The stream protocol as pure state machines. No I/O, no clock, no bus: events and the time come in, decisions come out,
//! so that a simulation can run ten thousand lives of a stream in a second.
//!
//! | module | whose | what |
//! |---|---|---|
//! | [`flight`] | producer | open the stream, send, go back after a loss, wait |
//! | [`standing`] | consumer | take each frame once and in order, acknowledge, tell epochs apart |
//! | [`frames`] | both | batches to frames and back |
//! | [`clocks`] | both | when boots began, and what that makes of the times of records |

pub mod clocks;
pub mod flight;
pub mod frames;
pub mod standing;
