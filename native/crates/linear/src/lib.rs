//! Linearizability of any sequential object: the generic engine, and monitors for objects with distinct values.
//!
//! ```text
//! question   operations in columns, hints      machine   the object: states and classes by number
//! search     is there a legal order?  ── lists, needs, seen ──>  engine: many questions, one budget
//! objects    the ready models over a history in columns
//! monitors   objects with distinct values: an answer without a search
//! ```

mod engine;
mod lists;
mod machine;
pub mod monitors;
mod needs;
pub mod objects;
mod question;
mod search;
mod seen;
mod transitions;

pub use engine::{Run, solve_all};
pub use machine::Machine;
pub use question::{ANY, Answer, Bound, Budget, Hints, ILLEGAL, NEVER, Question, UNSAID, Verdict};
pub use transitions::Transitions;
