//! Did every watch deliver what it was asked for? The core passes over what is right; the rules in Python judge the rest.
//!
//! ```text
//! Truth ──> for each watch: skip from the first message
//!                     ├─ to the end, and nothing is missing ──> right: only counted
//!                     └─ stops at a message ──> Python (checkers/watch/walk.py) judges that one message, and skips on from the next
//! ```
//!
//! So each rule stands once, in `walk.py`, and here only what certainly breaks none of them: a message at which [`Truth::skip`] stops may
//! still be right. The state that both pass to each other is [`At`], the fields of `_Walk` in Python that a right message changes.

mod keys;
mod truth;
mod walk;

pub use keys::Due;
pub use truth::{Given, Truth};
pub use walk::{At, Judged};
