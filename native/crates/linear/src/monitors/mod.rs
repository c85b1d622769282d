//! Monitors: linearizability in near-linear time, for objects whose values are distinct.
//!
//! ```text
//! object     what decides                                                                             cost
//! register   the zones of two values contradict each other (Gibbons and Korach 1997)                   n log n
//! set        reads form a chain by inclusion; its levels order every operation                         n log n + what reads show
//! queue      x went in before y, and y came out before x; or an empty answer while it was never empty  n log n
//! stack      a value that can lie at the bottom is taken away, until none is left                      n log n
//! ```
//!
//! Each monitor decides exactly or declines: its condition is proved beside it, necessary and sufficient. What is assumed is checked first
//! (a value that two operations brought in and somebody saw is a reason to decline), and the generic engine decides what is declined.
//!
//! All of them see closed intervals: `a` comes *before* `b` only where `a` returned at a strictly smaller time than `b` was called. An
//! indefinite operation returns at `i64::MAX`. Where nobody saw its effect it may be left out of any legal order, since each of these
//! objects stays legal when a value leaves it together with everything that saw it; where somebody saw it, it must have happened.

mod asked;
mod contents;
mod history;
mod prefix;
mod queue;
mod register;
mod set;
mod stack;
#[cfg(test)]
mod tests;
mod trees;

pub use asked::{Asked, Thing};
pub use history::{Monitored, monitor};
pub use prefix::{Prefix, prefix};
pub use queue::queue;
pub use register::register;
pub use set::{Read, set};
pub use stack::stack;

/// Returned never.
pub const NEVER: i64 = i64::MAX;

/// What an operation did with its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Brought it in: write, add, enqueue, push; surely or perhaps.
    Insert,
    /// Was refused and changed nothing. It explains no legal order and is shown where its value was seen.
    Refused,
    /// Saw it (read) or took it out (dequeue, pop).
    Take,
    /// Saw an untouched register, or nothing to take out. Its value means nothing.
    Empty,
    /// A dequeue or pop of which nobody saw an answer. Its value means nothing.
    Lost,
}

/// One operation of the object, its value by number.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    /// When it was called.
    pub call: i64,
    /// When it returned; [`NEVER`] where it is indefinite.
    pub ret: i64,
    /// The value's number, below the count that is given beside the operations.
    pub value: u32,
    /// What it did.
    pub act: Act,
}

/// Why no order is legal. The operations of a [`Contradiction`] are told in the order of the roles written here; "values" are insert and
/// take of each, the insert twice where nobody was seen to take it, and then the first lost take, if there is any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A value was seen that nobody brought in: who saw it, who was refused it (if anybody).
    Unknown,
    /// A value was seen before it was brought in: who saw it, who brought it in.
    Early,
    /// One value was taken out twice: who brought it in, who took it, who took it again.
    Twice,
    /// Register: two values each precede the other: of A the first that returned, of B the last that was called, of B the first that
    /// returned, of A the last that was called.
    Zones,
    /// Register: an untouched register was read after a value was seen: the first of the value that returned, the last read of the
    /// untouched register.
    Untouched,
    /// Set: a read that shows an element more than once: it.
    Doubled,
    /// Set: two reads of which neither shows all that the other shows: they.
    Incomparable,
    /// Set: a read misses an element that was added, or shown by another read, before it was called: the earlier, the read.
    Missing,
    /// Set: y was added after x, and a read shows y without x: add of x, add of y, the read.
    Skipped,
    /// Queue: x went in before y, and y came out before x: x, y.
    Overtaken,
    /// Queue: more values had to come out than takes were called in time: for each such x the insert of x, the insert of a later y, the
    /// take of y; then the lost takes, one fewer than the values.
    Stuck,
    /// Queue and stack: an empty answer while values that overlap in time kept the object from ever being empty: who said so, then the
    /// values.
    NeverEmpty,
    /// Stack: values that overlap in time kept it from ever being empty, and none of them can lie below all others: the values.
    NoBottom,
}

impl Rule {
    /// Its name, the same in the reference.
    pub fn name(self) -> &'static str {
        match self {
            Rule::Unknown => "unknown",
            Rule::Early => "early",
            Rule::Twice => "twice",
            Rule::Zones => "zones",
            Rule::Untouched => "untouched",
            Rule::Doubled => "doubled",
            Rule::Incomparable => "incomparable",
            Rule::Missing => "missing",
            Rule::Skipped => "skipped",
            Rule::Overtaken => "overtaken",
            Rule::Stuck => "stuck",
            Rule::NeverEmpty => "never-empty",
            Rule::NoBottom => "no-bottom",
        }
    }
}

/// The few operations that no order can satisfy, by their places in what the monitor was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contradiction {
    /// Why.
    pub rule: Rule,
    /// Who, in the roles of the rule.
    pub places: Vec<u32>,
}

/// What a monitor says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Some order is legal.
    Legal,
    /// None is.
    Illegal(Contradiction),
    /// The monitor's conditions are not met: nothing is said.
    Declined(&'static str),
}

impl Answer {
    fn illegal(rule: Rule, places: &[u32]) -> Self {
        Answer::Illegal(Contradiction { rule, places: places.to_vec() })
    }
}

const REPEATED: &str = "a value that was seen was brought in more than once";
