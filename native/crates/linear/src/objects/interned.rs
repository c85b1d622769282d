//! States as words, each distinct one once.

use super::Native;
use crate::question::ILLEGAL;
use crate::transitions::Transitions;
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use std::hash::{BuildHasher, Hash};

/// What a step does.
pub enum Step {
    /// It is not possible.
    Illegal,
    /// It changes nothing.
    Same,
    /// The state is now what was written.
    Changed,
}

/// A sequential object whose state is a row of words.
pub trait Object {
    /// Two states are one where their words are.
    type Word: Copy + Eq + Hash;

    /// Take class `class` in `state`; `after` is empty and takes the next state.
    fn step(&self, state: &[Self::Word], class: u32, after: &mut Vec<Self::Word>) -> Step;

    /// See [`crate::Machine::viable`].
    fn viable(&self, _state: &[Self::Word], _class: u32) -> bool {
        true
    }
}

/// An object with its states numbered.
pub struct Interned<O: Object> {
    object: O,
    words: Vec<O::Word>,
    /// Where each state ends in `words`.
    ends: Vec<usize>,
    table: HashTable<u32>,
    hasher: FixedState,
    transitions: Transitions,
    after: Vec<O::Word>,
}

impl<O: Object> Interned<O> {
    /// State 0 is `init`.
    pub fn new(object: O, init: &[O::Word]) -> Self {
        let mut interned = Self {
            object,
            words: Vec::new(),
            ends: Vec::new(),
            table: HashTable::new(),
            hasher: FixedState::default(),
            transitions: Transitions::default(),
            after: Vec::new(),
        };
        interned.after.extend_from_slice(init);
        interned.number();
        interned
    }

    /// The number of the state that `words` picks.
    pub fn known(&mut self, words: impl FnOnce(&O) -> &[O::Word]) -> u32 {
        self.after.clear();
        self.after.extend_from_slice(words(&self.object));
        self.number()
    }

    /// What it is made from.
    pub fn object(&self) -> &O {
        &self.object
    }

    /// The words of a state.
    pub fn state(&self, number: u32) -> &[O::Word] {
        state(&self.words, &self.ends, number)
    }

    /// The number of what is in `after`.
    fn number(&mut self) -> u32 {
        let (words, ends, hasher, after) = (&mut self.words, &mut self.ends, &self.hasher, &self.after);
        let hash = hasher.hash_one(&after[..]);
        if let Some(&found) = self.table.find(hash, |&number| state(words, ends, number) == &after[..]) {
            return found;
        }
        let number = ends.len() as u32;
        words.extend_from_slice(after);
        ends.push(words.len());
        self.table.insert_unique(hash, number, |&number| hasher.hash_one(state(words, ends, number)));
        number
    }
}

fn state<'a, T>(words: &'a [T], ends: &[usize], number: u32) -> &'a [T] {
    let number = number as usize;
    let begin = if number == 0 { 0 } else { ends[number - 1] };
    &words[begin..ends[number]]
}

impl<O: Object> Native for Interned<O> {
    fn step(&mut self, from: u32, class: u32) -> u32 {
        if let Some(after) = self.transitions.get(from, class) {
            return after;
        }
        self.after.clear();
        let result = match self.object.step(state(&self.words, &self.ends, from), class, &mut self.after) {
            Step::Illegal => ILLEGAL,
            Step::Same => from,
            Step::Changed => self.number(),
        };
        self.transitions.put(from, class, result);
        result
    }

    fn viable(&mut self, from: u32, class: u32) -> bool {
        self.object.viable(self.state(from), class)
    }

    fn asked(&self) -> u64 {
        self.transitions.len() as u64
    }

    fn memory_bytes(&self) -> usize {
        self.words.len() * size_of::<O::Word>() + self.ends.len() * 16 + self.transitions.memory_bytes()
    }
}
