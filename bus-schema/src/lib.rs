//! The wire contract.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod access;
pub mod api;
pub mod data;
pub mod envelope;
pub mod id;
pub mod key;
pub mod limits;
pub mod member;
pub mod message;
pub mod plan;
pub mod subject;
