//! What the engine is asked and what it answers, in columns.

/// Of [`crate::Machine::step`]: the class is not possible in this state.
pub const ILLEGAL: u32 = u32::MAX;
/// Of a column `ret`: it never returned, may take effect at any time after its call, once, or never.
pub const NEVER: i64 = i64::MAX;
/// Of [`Hints::requires`]: legal in every state. Of [`Hints::produces`]: changes no state.
pub const ANY: i64 = -1;
/// Of [`Hints::requires`] and [`Hints::produces`]: nothing is promised.
pub const UNSAID: i64 = -2;
/// States that hints may name: tables are as long as the greatest of them.
pub const HINTED_STATES_MAX: i64 = 1 << 26;

/// What is known of classes beyond `step`; each vector is empty or has one entry a class. `pekan.checkers.linearizability.question`
/// says what each promises.
#[derive(Clone, Debug, Default)]
pub struct Hints {
    /// The one state in which the class is legal, [`ANY`], or [`UNSAID`].
    pub requires: Vec<i64>,
    /// The one state to which it leads, [`ANY`] for none, or [`UNSAID`].
    pub produces: Vec<i64>,
    /// Classes that [`crate::Machine::viable`] judges; empty: all.
    pub goals: Vec<bool>,
    /// Classes after which anything is possible again; empty: there is no `viable`.
    pub resets: Vec<bool>,
}

/// One object's operations.
#[derive(Clone, Debug, Default)]
pub struct Question {
    /// When it was called.
    pub call: Vec<i64>,
    /// When it returned, or [`NEVER`].
    pub ret: Vec<i64>,
    /// Its class.
    pub of: Vec<u32>,
    /// Of each class: it changes no state at all.
    pub readonly: Vec<bool>,
    /// The first state.
    pub init: u32,
    /// See there.
    pub hints: Hints,
}

impl Question {
    /// What is wrong with it, if anything is.
    pub fn fault(&self) -> Option<String> {
        let (count, classes) = (self.call.len(), self.readonly.len());
        if self.ret.len() != count || self.of.len() != count {
            return Some(format!("columns differ in length: {count} calls, {} returns, {} classes", self.ret.len(), self.of.len()));
        }
        if count.max(classes) >= (u32::MAX / 4) as usize {
            return Some(format!("{count} operations of {classes} classes are more than the engine counts"));
        }
        let hints = &self.hints;
        let lengths = [hints.requires.len(), hints.produces.len(), hints.goals.len(), hints.resets.len()];
        if let Some(length) = lengths.iter().find(|&&length| length != 0 && length != classes) {
            return Some(format!("hints with {length} entries for {classes} classes"));
        }
        if hints.requires.len() != hints.produces.len() {
            return Some("requires and produces are one hint: both or neither".into());
        }
        if hints.requires.iter().chain(&hints.produces).any(|state| !(UNSAID..HINTED_STATES_MAX).contains(state)) {
            return Some(format!("hints name states from 0 to {}", HINTED_STATES_MAX - 1));
        }
        for o in 0..count {
            if self.ret[o] < self.call[o] {
                return Some(format!("operation {o} returns at {}, before its call at {}", self.ret[o], self.call[o]));
            }
            if self.of[o] as usize >= classes {
                return Some(format!("operation {o} is of class {}; there are {classes}", self.of[o]));
            }
        }
        None
    }
}

/// Where the search gives up; `None`: no such bound.
#[derive(Clone, Copy, Debug, Default)]
pub struct Budget {
    /// Seconds for all questions together.
    pub time_s: Option<f64>,
    /// Steps for each.
    pub steps: Option<u64>,
    /// Bytes for all together.
    pub memory_bytes: Option<usize>,
}

/// The three answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order.
    Ok,
    /// There is none.
    Illegal,
    /// A bound was met first.
    Unknown,
}

/// The bound that was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// None.
    None,
    /// [`Budget::time_s`].
    Time,
    /// [`Budget::steps`].
    Steps,
    /// [`Budget::memory_bytes`].
    Memory,
    /// Another question was found illegal.
    Elsewhere,
}

/// What is known at the end of a search.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The answer.
    pub verdict: Verdict,
    /// A legal order of all, or the one that got furthest.
    pub order: Vec<u32>,
    /// The operation whose return that order cannot pass.
    pub blocked: Option<u32>,
    /// Why it is unknown.
    pub bound: Bound,
    /// Transitions looked at.
    pub steps: u64,
    /// Configurations remembered.
    pub configurations: u64,
    /// [`crate::Machine::asked`].
    pub asked: u64,
}

impl Answer {
    /// Of a question that was not looked at, for another was illegal.
    pub fn not_begun() -> Self {
        Self { verdict: Verdict::Unknown, order: Vec::new(), blocked: None, bound: Bound::Elsewhere, steps: 0, configurations: 0, asked: 0 }
    }
}
