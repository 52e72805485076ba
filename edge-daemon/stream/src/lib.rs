//! The stream protocol as pure state machines. No I/O, no clock, no bus: events and the time come in, decisions come out,
//! so that a simulation can run ten thousand lives of a stream in a second.
//!
//! | module | whose | what |
//! |---|---|---|
//! | [`flight`] | producer | open the stream, send, go back after a loss, wait |
//! | [`pacer`] | producer | whose turn it is, and how much may be on the way |
//! | [`window`] | producer | how much that is: follows the delay |
//! | [`hours`] | producer | when a stream may send |
//! | [`lineage`] | producer | which epoch comes next, and how far back a stream goes after damage |
//! | [`tracks`] | producer | live data first: which of an edge's two streams takes what comes now |
//! | [`standing`] | consumer | take each frame once and in order, acknowledge, tell epochs apart |
//! | [`answers`] | consumer | how often to acknowledge while nothing asks for it |
//! | [`pieces`] | consumer | put a frame together that came in pieces |
//! | [`frames`] | both | batches to frames and back |
//! | [`compression`] | both | smaller batches, and back within bounds |
//! | [`clocks`] | both | when boots began, and what that makes of the times of records |

pub mod answers;
pub mod clocks;
pub mod compression;
pub mod flight;
pub mod frames;
pub mod hours;
pub mod lineage;
pub mod pacer;
pub mod pieces;
pub mod standing;
pub mod tracks;
pub mod window;
