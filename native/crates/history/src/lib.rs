//! A record file in columns: what happened, in the order of the calls, as views into the mapped file.
//!
//! ```text
//! bytes of history.pb ── load(..) ──> Columns { ops, streams, rest, names, errors }
//! ```
//!
//! The rules of pairing are those of `src/pekan/history/reading.py`; whatever that refuses, this refuses too, without saying why as well:
//! `Declined` sends the caller to the reader in Python, whose message is the one that users see.

mod columns;
mod frames;
mod load;
mod mapped;
mod valid;

pub use columns::{Columns, Glance, Kind, NEVER, NO_ERROR, NO_METHOD, Op, Outcome, Shape, Stream, StreamMessage};
pub use load::{Declined, WATCH, load};
pub use mapped::{NotLoaded, Recorded};
