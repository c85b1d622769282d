//! The ready models in the core, over a history in columns.
//!
//! ```text
//! Objects ── failed ones left out, by key, by the model's partition ──> parts
//! part    ── calls as small numbers (kind, a, b), each distinct one a class ──> Question + Machine ──> the engine
//! ```
//!
//! The models are those of `pekan.models`, to the letter; whatever they would have to think about (a value of another shape than expected,
//! numbers that are no 64-bit integers) is declined, and the model in Python judges.

mod containers;
mod interned;
mod parts;
mod registers;
mod transactions;
mod values;

use crate::engine::{Run, solve_all};
use crate::machine::Machine;
use crate::question::{Answer, Hints, Question};
pub use parts::Kind;
use parts::{Classes, Part};
use pekan_foreign::Objects;
use std::fmt;
pub use values::Canon;

/// The core leaves this history to the model in Python, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declined(pub String);

impl fmt::Display for Declined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why there are no answers.
#[derive(Debug)]
pub enum Stopped<E> {
    /// The model in Python is to judge.
    Declined(Declined),
    /// The caller ended it.
    Interrupted(E),
}

/// One independent object of the history and the answer over it.
#[derive(Clone, Debug)]
pub struct Judged {
    /// Its `Objects::key`.
    pub key: u32,
    /// Its operations by their index in the history, in order of call; those that failed and unanswered reads are not among them.
    pub operations: Vec<u32>,
    /// In it, operations are indexes in the history, too.
    pub answer: Answer,
}

/// The models that the core knows.
pub const MODELS: [&str; 12] = [
    "register",
    "cas-register",
    "versioned-register",
    "multi-register",
    "kv-append",
    "counter",
    "set",
    "fifo-queue",
    "stack",
    "mutex",
    "fenced-lock",
    "list-append",
];

/// Judge `objects` by the ready model of that name, its objects unset at first; with `among`, only the operations that it says true of.
pub fn judge<E>(objects: &Objects, model: &str, among: Option<&[bool]>, run: &mut Run<'_, E>) -> Result<Vec<Judged>, Stopped<E>> {
    let canon = Canon::new(&objects.values).map_err(Stopped::Declined)?;
    let kind = Kind::of(model).ok_or_else(|| Stopped::Declined(Declined(format!("the core has no model {model}"))))?;
    let parts = parts::divided(objects, among, &canon, kind).map_err(Stopped::Declined)?;
    match kind {
        Kind::Register | Kind::CasRegister | Kind::Mutex => {
            let mut room = registers::Room::new(objects);
            solve(parts, run, |classes| Ok(registers::build(classes, &mut room)))
        }
        Kind::VersionedRegister => solve(parts, run, |classes| Ok(registers::versioned(classes))),
        Kind::FencedLock => solve(parts, run, |classes| Ok(registers::fenced(classes))),
        Kind::Counter => solve(parts, run, |classes| Ok(containers::counter(classes))),
        Kind::Set => solve(parts, run, |classes| Ok(containers::set(classes, objects, &canon))),
        Kind::FifoQueue | Kind::Stack => solve(parts, run, |classes| Ok(containers::line(classes, kind))),
        Kind::KvAppend => solve(parts, run, |classes| Ok(containers::text(classes, objects))),
        Kind::MultiRegister => solve(parts, run, |classes| transactions::registers(classes, objects, &canon)),
        Kind::ListAppend => solve(parts, run, |classes| transactions::lists(classes, objects, &canon)),
    }
}

/// A machine and what is known of its classes.
struct Built<M> {
    machine: M,
    readonly: Vec<bool>,
    hints: Hints,
}

/// A machine that cannot fail but by being interrupted.
trait Native {
    fn step(&mut self, state: u32, class: u32) -> u32;
    fn viable(&mut self, _state: u32, _class: u32) -> bool {
        true
    }
    fn asked(&self) -> u64 {
        0
    }
    fn memory_bytes(&self) -> usize {
        0
    }
}

/// A [`Native`] machine as the engine takes it.
struct Carried<M, E>(M, std::marker::PhantomData<E>);

impl<M: Native, E> Machine for Carried<M, E> {
    type Error = E;

    #[inline]
    fn step(&mut self, state: u32, class: u32) -> Result<u32, E> {
        Ok(self.0.step(state, class))
    }

    #[inline]
    fn viable(&mut self, state: u32, class: u32) -> Result<bool, E> {
        Ok(self.0.viable(state, class))
    }

    /// A model of ours that declares wrongly is a bug of ours.
    fn contradiction(&self, state: u32, class: u32, after: u32) -> E {
        panic!("class {class} is declared read-only and leads from state {state} to {after}")
    }

    fn asked(&self) -> u64 {
        self.0.asked()
    }

    fn memory_bytes(&self) -> usize {
        self.0.memory_bytes()
    }
}

/// Build every part's question, have them answered, and tell the answers by the operations of the history.
fn solve<M: Native, E>(
    parts: Vec<Part>,
    run: &mut Run<'_, E>,
    mut build: impl FnMut(&Classes) -> Result<Built<M>, Declined>,
) -> Result<Vec<Judged>, Stopped<E>> {
    let mut questions = Vec::with_capacity(parts.len());
    let mut told = Vec::with_capacity(parts.len());
    for part in parts {
        let Built { machine, readonly, hints } = build(&part.classes).map_err(Stopped::Declined)?;
        let question = Question { call: part.call, ret: part.ret, of: part.of, readonly, init: 0, hints };
        if let Some(fault) = question.fault() {
            return Err(Stopped::Declined(Declined(fault)));
        }
        questions.push((question, Carried(machine, std::marker::PhantomData)));
        told.push((part.key, part.operations));
    }
    let answers = solve_all(questions, run).map_err(Stopped::Interrupted)?;
    let named = |((key, operations), mut answer): ((u32, Vec<u32>), Answer)| {
        for o in &mut answer.order {
            *o = operations[*o as usize];
        }
        answer.blocked = answer.blocked.map(|o| operations[o as usize]);
        Judged { key, operations, answer }
    };
    Ok(told.into_iter().zip(answers).map(named).collect())
}
