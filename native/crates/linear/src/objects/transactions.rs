//! `multi-register` and `list-append`: several keys at one instant.

use super::interned::{Interned, Object, Step};
use super::parts::{Classes, Does, Kind, micro_operations};
use super::values::Canon;
use super::{Built, Declined};
use crate::question::Hints;
use pekan_foreign::{NONE, Objects, Value};

/// One part of a transaction.
enum Part {
    Reads { key: u32, saw: Option<Vec<u32>> },
    Writes { key: u32, value: u32 },
}

/// The parts of every class. What a read saw is one word for a register, the elements for a list.
fn parts(kind: Kind, classes: &Classes, objects: &Objects, canon: &Canon<'_>) -> Result<Vec<Vec<Part>>, Declined> {
    let elements = |value: u32| match kind {
        Kind::MultiRegister => vec![value],
        _ if value == NONE => Vec::new(),
        _ => match objects.values.get(value) {
            Value::List(parts) => parts.iter().map(|&part| canon.of(part)).collect(),
            _ => Vec::new(),
        },
    };
    let of = |class: &super::parts::Class| {
        let told = class.does == Does::Txn;
        let Some(micros) = micro_operations(kind, canon, class.a) else { return Err(Declined("a transaction is no list".into())) };
        let part = |micro: super::parts::Micro<'_>| match micro.reads {
            true => Part::Reads { key: micro.key, saw: told.then(|| elements(micro.value)) },
            false => Part::Writes { key: micro.key, value: micro.value },
        };
        Ok(micros.into_iter().map(part).collect())
    };
    classes.list.iter().map(of).collect()
}

// ---- registers ----

/// State: key, value, key, value, by ascending key; no nil.
pub struct Registers {
    classes: Vec<Vec<Part>>,
}

/// `multi-register`.
pub fn registers(classes: &Classes, objects: &Objects, canon: &Canon<'_>) -> Result<Built<Interned<Registers>>, Declined> {
    let object = Registers { classes: parts(Kind::MultiRegister, classes, objects, canon)? };
    Ok(Built { machine: Interned::new(object, &[]), readonly: classes.readonly(), hints: Hints::default() })
}

/// Where the pair of `key` begins, or would.
fn place(pairs: &[u32], key: u32) -> Result<usize, usize> {
    let at = 2 * pairs.chunks_exact(2).take_while(|pair| pair[0] < key).count();
    if pairs.get(at) == Some(&key) { Ok(at) } else { Err(at) }
}

impl Object for Registers {
    type Word = u32;

    fn step(&self, state: &[u32], class: u32, after: &mut Vec<u32>) -> Step {
        after.extend_from_slice(state);
        for part in &self.classes[class as usize] {
            match part {
                Part::Reads { key, saw: Some(saw) } => {
                    let value = place(after, *key).map_or(NONE, |at| after[at + 1]);
                    if saw[0] != value {
                        return Step::Illegal;
                    }
                }
                Part::Reads { .. } => {}
                Part::Writes { key, value } => match place(after, *key) {
                    Ok(at) if *value == NONE => drop(after.drain(at..at + 2)),
                    Ok(at) => after[at + 1] = *value,
                    Err(_) if *value == NONE => {}
                    Err(at) => drop(after.splice(at..at, [*key, *value])),
                },
            }
        }
        if after == state { Step::Same } else { Step::Changed }
    }
}

// ---- lists ----

/// State: key, length, elements, by ascending key; no empty list.
pub struct Lists {
    classes: Vec<Vec<Part>>,
}

/// `list-append`.
pub fn lists(classes: &Classes, objects: &Objects, canon: &Canon<'_>) -> Result<Built<Interned<Lists>>, Declined> {
    let object = Lists { classes: parts(Kind::ListAppend, classes, objects, canon)? };
    let hints = Hints { resets: vec![false; classes.list.len()], ..Hints::default() };
    Ok(Built { machine: Interned::new(object, &[]), readonly: classes.readonly(), hints })
}

/// Where the list of `key` lies in the state: the index of its key, and whether it is there.
fn find(state: &[u32], key: u32) -> (usize, bool) {
    let mut at = 0;
    while at < state.len() && state[at] < key {
        at += 2 + state[at + 1] as usize;
    }
    (at, at < state.len() && state[at] == key)
}

fn list(state: &[u32], key: u32) -> &[u32] {
    match find(state, key) {
        (at, true) => &state[at + 2..at + 2 + state[at + 1] as usize],
        _ => &[],
    }
}

impl Object for Lists {
    type Word = u32;

    fn step(&self, state: &[u32], class: u32, after: &mut Vec<u32>) -> Step {
        after.extend_from_slice(state);
        let mut changed = false;
        for part in &self.classes[class as usize] {
            match part {
                Part::Reads { key, saw: Some(saw) } if list(after, *key) != saw => return Step::Illegal,
                Part::Reads { .. } => {}
                Part::Writes { key, value } => {
                    changed = true;
                    match find(after, *key) {
                        (at, true) => {
                            let end = at + 2 + after[at + 1] as usize;
                            after.insert(end, *value);
                            after[at + 1] += 1;
                        }
                        (at, false) => drop(after.splice(at..at, [*key, 1, *value])),
                    }
                }
            }
        }
        if changed { Step::Changed } else { Step::Same }
    }

    fn viable(&self, state: &[u32], class: u32) -> bool {
        self.classes[class as usize].iter().all(|part| match part {
            Part::Reads { key, saw: Some(saw) } => saw.starts_with(list(state, *key)),
            _ => true,
        })
    }
}
