//! `pekan.models.registers` and `pekan.models.locks`: what holds one value.

use super::interned::{Interned, Object, Step};
use super::parts::{Class, Classes, Does, NO_NUMBER};
use super::{Built, Native};
use crate::question::{ANY, Hints, ILLEGAL, UNSAID};
use pekan_foreign::{NONE, Objects};

/// Values of the part at hand by small numbers; one table for all parts, for they may be many.
pub struct Room {
    numbers: Vec<(u32, u32)>,
    part: u32,
    next: u32,
}

impl Room {
    pub fn new(objects: &Objects) -> Self {
        Self { numbers: vec![(0, 0); objects.values.len() + 1], part: 0, next: 0 }
    }

    /// Another part: no value has a number but nil, whose is 0.
    fn clear(&mut self) {
        self.part += 1;
        self.next = 0;
        self.number(NONE);
    }

    fn number(&mut self, value: u32) -> u32 {
        let last = self.numbers.len() - 1;
        let entry = &mut self.numbers[(value as usize).min(last)];
        if entry.0 != self.part {
            *entry = (self.part, self.next);
            self.next += 1;
        }
        entry.1
    }
}

/// A register whose states are numbers of values.
pub struct Register {
    rows: Vec<Row>,
}

#[derive(Clone, Copy)]
struct Row {
    does: Does,
    a: u32,
    b: u32,
}

const FREE: u32 = 0;
const HELD: u32 = 1;

/// `register`, `cas-register` and `mutex`.
pub fn build(classes: &Classes, room: &mut Room) -> Built<Register> {
    room.clear();
    let mut hints = Hints::default();
    let mut row = |class: &Class| {
        let row = match class.does {
            Does::Acquire => Row { does: Does::Cas, a: FREE, b: HELD },
            Does::Release => Row { does: Does::Cas, a: HELD, b: FREE },
            Does::Read | Does::Write | Does::CasNot => Row { does: class.does, a: room.number(class.a), b: 0 },
            Does::Cas | Does::CasUnseen => Row { does: class.does, a: room.number(class.a), b: room.number(class.b) },
            _ => Row { does: Does::ReadUnseen, a: 0, b: 0 },
        };
        let (a, b) = (i64::from(row.a), i64::from(row.b));
        let (requires, produces) = match row.does {
            Does::Read => (a, ANY),
            Does::Write => (ANY, a),
            Does::Cas | Does::CasUnseen => (a, if class.readonly { ANY } else { b }),
            Does::CasNot => (UNSAID, ANY),
            _ => (ANY, ANY),
        };
        hints.requires.push(requires);
        hints.produces.push(produces);
        row
    };
    let rows = classes.list.iter().map(&mut row).collect();
    Built { machine: Register { rows }, readonly: classes.readonly(), hints }
}

impl Native for Register {
    #[inline]
    fn step(&mut self, state: u32, class: u32) -> u32 {
        let Row { does, a, b } = self.rows[class as usize];
        match does {
            Does::Read if state == a => state,
            Does::Read => ILLEGAL,
            Does::Write => a,
            Does::Cas if state == a => b,
            Does::Cas => ILLEGAL,
            Does::CasUnseen if state == a => b,
            Does::CasNot if state == a => ILLEGAL,
            _ => state,
        }
    }
}

// ---- versions ----

/// State: the version in two words, the value.
pub struct Versioned {
    classes: Vec<Class>,
}

fn split(number: i64) -> [u32; 2] {
    [(number >> 32) as u32, number as u32]
}

fn joined(high: u32, low: u32) -> i64 {
    i64::from(high as i32) << 32 | i64::from(low)
}

/// `versioned-register`.
pub fn versioned(classes: &Classes) -> Built<Interned<Versioned>> {
    let object = Versioned { classes: classes.list.clone() };
    let hints = Hints { resets: vec![false; classes.list.len()], ..Hints::default() };
    Built { machine: Interned::new(object, &[0, 0, NONE]), readonly: classes.readonly(), hints }
}

impl Object for Versioned {
    type Word = u32;

    fn step(&self, state: &[u32], class: u32, after: &mut Vec<u32>) -> Step {
        let Class { does, a, b, n, .. } = self.classes[class as usize];
        let (version, value) = (joined(state[0], state[1]), state[2]);
        let new = match does {
            Does::Read => return if value == a && (n == NO_NUMBER || n == version) { Step::Same } else { Step::Illegal },
            Does::CasNot => return if value == a { Step::Illegal } else { Step::Same },
            Does::Cas if value != a => return Step::Illegal,
            Does::CasUnseen if value != a => return Step::Same,
            Does::Cas | Does::CasUnseen => b,
            Does::Write => a,
            _ => return Step::Same,
        };
        if n != NO_NUMBER && n != version + 1 {
            return Step::Illegal;
        }
        after.extend_from_slice(&split(version + 1));
        after.push(new);
        Step::Changed
    }

    fn viable(&self, state: &[u32], class: u32) -> bool {
        let Class { does, n, .. } = self.classes[class as usize];
        let version = joined(state[0], state[1]);
        match does {
            _ if n == NO_NUMBER => true,
            Does::Read => version <= n,
            Does::Write | Does::Cas => version < n,
            _ => true,
        }
    }
}

// ---- fences ----

/// State: who holds it, whether a token was given, the greatest that must have been.
pub struct Fenced {
    classes: Vec<Class>,
}

const KNOWN: u32 = 1;
const UNSEEN: u32 = 2;

/// `fenced-lock`.
pub fn fenced(classes: &Classes) -> Built<Interned<Fenced>> {
    let object = Fenced { classes: classes.list.clone() };
    let hints = Hints { resets: vec![false; classes.list.len()], ..Hints::default() };
    Built { machine: Interned::new(object, &[FREE, 0, 0, 0]), readonly: classes.readonly(), hints }
}

fn least(state: &[u32]) -> Option<i64> {
    (state[1] != 0).then(|| joined(state[2], state[3]))
}

impl Object for Fenced {
    type Word = u32;

    fn step(&self, state: &[u32], class: u32, after: &mut Vec<u32>) -> Step {
        let Class { does, n, .. } = self.classes[class as usize];
        let (held, least) = (state[0], least(state));
        let (held, least) = match (does, held) {
            (Does::Acquire, FREE) if n == NO_NUMBER => (UNSEEN, least.map(|least| least + 1)),
            (Does::Acquire, FREE) if least.is_none_or(|least| n > least) => (KNOWN, Some(n)),
            (Does::Acquire, _) | (_, FREE) => return Step::Illegal,
            (_, _) if n == NO_NUMBER => (FREE, least),
            (_, KNOWN) if least != Some(n) => return Step::Illegal,
            (_, _) if least.is_some_and(|least| n < least) => return Step::Illegal,
            (_, _) => (FREE, Some(n)),
        };
        after.extend_from_slice(&[held, u32::from(least.is_some())]);
        after.extend_from_slice(&split(least.unwrap_or(0)));
        Step::Changed
    }

    fn viable(&self, state: &[u32], class: u32) -> bool {
        let Class { does, n, .. } = self.classes[class as usize];
        does != Does::Acquire || n == NO_NUMBER || least(state).is_none_or(|least| n > least)
    }
}
