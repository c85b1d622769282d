//! A record judged while it grows, in memory bounded by rate x timeout: suspicions at once, findings by the whole check afterwards.
//!
//! ```text
//! bytes appended ── frames ──> records ── Live ──> Suspicion { code, time, revision }      the caller judges the record so far
//! ```
//!
//! What is kept: the live keys at the last revision that no request in flight can still be answered from, answers and watched events above
//! it, and a few numbers for each open watch. A revision is settled when a watch of the whole keyspace has told its events and every request
//! in flight was called after it: so nothing waits longer than the clients' timeout, and the window holds what happened in that time.
//!
//! A suspicion is no finding. It says where the whole checker should look, so it may rest on less than a proof, and what is rare or needs
//! the past (old revisions, sorted or filtered ranges, nested transactions, leases, permissions) is left to that checker.

mod frames;
mod live;
mod store;
mod watches;

pub use frames::{Damaged, Frames};
pub use live::{Live, Suspicion};
