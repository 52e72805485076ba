//! Against servers written in Python, which know HTTP from its standard library, and against curl.

mod sink;
mod source;
mod webhook;
