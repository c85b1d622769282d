//! The revision-guided checkers of etcd over a history in columns.
//!
//! ```text
//! case      what is judged, and how            request   requests and answers, decoded; what can be said of a request alone
//! machine   the store: what a request answers and changes                    keys      keys in byte order, with ranks
//! problem   contradictions and what was not decided, as plain data
//! evidence  what watches show, merged: events by revision                    bits      sets of small numbers
//! collect   operations by what they prove      timing    when each revision can and must have been made
//! order     what the replies and watches prove of each revision
//! pool, matching      who can have written a revision that nobody was acknowledged for
//! search, facts       the same where nobody saw what it holds: a bounded search, led by what later answers show
//! compaction, compares, leases, refusals, proofs      side questions that only need the order
//! forks               where members' histories part
//! replay    the store, revision by revision, every answer held against it (confirm: common answers, seen at once to be right)
//! check     the key-value checker: all of these in their order
//! watch     did every watch deliver what it was asked for
//! ```

mod bits;
pub mod case;
pub mod check;
pub mod collect;
pub mod compaction;
pub mod compares;
mod confirm;
pub mod evidence;
pub mod facts;
pub mod forks;
mod keys;
pub mod leases;
pub mod machine;
pub mod matching;
pub mod order;
pub mod pool;
pub mod problem;
pub mod proofs;
pub mod refusals;
pub mod replay;
pub mod request;
pub mod search;
#[cfg(test)]
mod tests;
pub mod timing;
pub mod watch;

pub use bits::Bits;
pub use case::{Circumstances, Ops};
pub use evidence::{Evidence, Watched};
pub use order::Order;
pub use problem::{Problem, Undecided};
pub use request::{Answer, Asked, Declined};
