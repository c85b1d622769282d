//! etcd's messages as views over the bytes of the wire: nothing is copied, nothing is allocated but the parts of a transaction.
//!
//! ```text
//! bytes ── Fields::new(bytes) ──> (number, Field) ...        the general way, one field after the other
//! bytes ── Put::decode(bytes) ──> Put { key, value, .. }     what the checkers read
//! bytes ── scan::watch_head(..)                              watch messages at a glance: there are millions
//! ```
//!
//! Field numbers come from `src/pekan/wire/proto` by `build.rs`. What is malformed, or is lawful and strange (one message field given
//! twice, which protobuf merges), is `Malformed`: the caller hands such a file to the reader in Python, which has the last word on what is
//! evidence.

/// Field and enumeration numbers, generated from the `.proto` files: one module for each message and enumeration.
#[allow(missing_docs, dead_code)]
pub mod numbers {
    include!(concat!(env!("OUT_DIR"), "/numbers.rs"));
}

mod cursor;
mod messages;
pub mod scan;

pub use cursor::{Field, Fields, Malformed, utf8, varint};
pub use messages::*;
