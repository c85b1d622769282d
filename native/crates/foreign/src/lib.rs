//! Histories that others recorded, in columns: operations on objects, their values interned.
//!
//! ```text
//! text ── reader of its format ──> Objects { process, call, ret, outcome, f, key, input, output } + names + values
//! ```

mod objects;

pub use objects::{NONE, Objects, Outcome, Place, Value, Values};
