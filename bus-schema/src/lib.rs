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

/// Postcard bytes of plain data.
pub fn encode<T: serde::Serialize>(value: &T) -> alloc::vec::Vec<u8> {
    postcard::to_allocvec(value).expect("plain data, written to memory")
}

/// Reads postcard bytes; `None` when they are anything else.
pub fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    postcard::from_bytes(bytes).ok()
}
