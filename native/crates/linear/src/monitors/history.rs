//! A whole history in columns, object by object, as the monitors see it. What Python's `classify` says of operations there, this says of
//! columns, to the letter.

use super::asked::{Asked, Thing};
use super::{Act, Answer, Contradiction, NEVER, Operation, Prefix};
use crate::objects::{Canon, Declined};
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use pekan_foreign::{NONE, Objects, Outcome, Value};

/// The monitor of a model, and how the model calls what puts in and what sees or takes out.
fn thing(model: &str) -> Option<(Thing, &'static str, &'static str)> {
    Some(match model {
        "register" | "cas-register" => (Thing::Register, "write", "read"),
        "set" => (Thing::Set, "add", "read"),
        "fifo-queue" => (Thing::Queue, "enqueue", "dequeue"),
        "stack" => (Thing::Stack, "push", "pop"),
        _ => return None,
    })
}

/// One independent object and what its monitor says.
#[derive(Clone, Debug)]
pub struct Monitored {
    /// Its `Objects::key`.
    pub key: u32,
    /// Its operations by their index in the history, failed ones among them.
    pub operations: Vec<u32>,
    /// Places in it are indexes in the history.
    pub answer: Answer,
    /// Where it is illegal, how far it is not; its place is an index in the history, too.
    pub prefix: Option<Prefix>,
}

/// What each name of the history is to the monitor.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Call {
    Puts,
    Gets,
    Other,
}

/// Numbers of one object's values, small ones whatever else the history holds.
struct Numbers {
    /// Of each value of the history: which object it was last met at, and its number there.
    known: Vec<(u32, u32)>,
    object: u32,
    count: u32,
}

impl Numbers {
    fn of(&mut self, value: u32) -> u32 {
        let (object, number) = &mut self.known[value as usize];
        if *object != self.object {
            (*object, *number) = (self.object, self.count);
            self.count += 1;
        }
        *number
    }
}

/// Ask the monitor of `model` about every object of a history whose objects are unset at first. Declined as a whole where there is none for
/// that model, or where values or calls are such that the model in Python has to look at them.
pub fn monitor(objects: &Objects, model: &str) -> Result<Vec<Monitored>, Declined> {
    let (thing, puts, gets) = thing(model).ok_or_else(|| Declined("no monitor for this model".into()))?;
    let canon = Canon::new(&objects.values)?;
    let call = |name: &String| {
        if name == puts {
            Call::Puts
        } else if name == gets {
            Call::Gets
        } else {
            Call::Other
        }
    };
    let calls: Vec<Call> = objects.names.iter().map(call).collect();
    let mut numbers = Numbers { known: vec![(u32::MAX, 0); objects.values.len() + 1], object: 0, count: 0 };
    by_key(objects, &canon)
        .into_iter()
        .map(|(key, operations)| {
            (numbers.object, numbers.count) = (numbers.object + 1, 0);
            let (answer, prefix) = one(objects, &canon, thing, &calls, &operations, &mut numbers)?;
            Ok(Monitored { key, operations, answer, prefix })
        })
        .collect()
}

/// Operations of each object, objects in order of their first operation.
fn by_key(objects: &Objects, canon: &Canon<'_>) -> Vec<(u32, Vec<u32>)> {
    let count = objects.len() as u32;
    if objects.key.iter().all(|&key| key == NONE) {
        return if count == 0 { Vec::new() } else { vec![(NONE, (0..count).collect())] };
    }
    let mut known: HashMap<u32, usize, FixedState> = HashMap::default();
    let mut groups: Vec<(u32, Vec<u32>)> = Vec::new();
    for o in 0..count {
        let key = objects.key[o as usize];
        let group = *known.entry(canon.of(key)).or_insert(groups.len());
        if group == groups.len() {
            groups.push((key, Vec::new()));
        }
        groups[group].1.push(o);
    }
    groups
}

fn one(
    objects: &Objects,
    canon: &Canon<'_>,
    thing: Thing,
    calls: &[Call],
    operations: &[u32],
    numbers: &mut Numbers,
) -> Result<(Answer, Option<Prefix>), Declined> {
    let mut asked: Vec<Operation> = Vec::with_capacity(operations.len());
    // Where operations are left out, the index of each that is not.
    let mut kept: Vec<u32> = Vec::with_capacity(operations.len());
    let mut shown: Vec<Vec<u32>> = Vec::new();
    let mut shown_numbers: HashMap<Vec<u32>, u32, FixedState> = HashMap::default();
    let (mut wrote_nil, mut read_nil) = (false, false);
    // Nil has the number behind all others.
    let nil = objects.values.len() as u32;
    for &index in operations {
        let o = index as usize;
        let outcome = objects.outcome[o];
        let (told, failed) = (outcome == Outcome::Ok as u8, outcome == Outcome::Failed as u8);
        let (act, value) = match calls[objects.f[o] as usize] {
            Call::Other if failed => continue,
            Call::Other => return Ok((Answer::Declined("a call that no monitor knows"), None)),
            Call::Puts => {
                let value = canon.of(objects.input[o]);
                match thing {
                    Thing::Register => wrote_nil |= value == NONE && !failed,
                    Thing::Set if value == NONE => return Ok((Answer::Declined("nil is put in"), None)),
                    Thing::Queue | Thing::Stack if value == NONE => return Err(Declined(format!("operation {o} puts nil in"))),
                    _ => {}
                }
                (if failed { Act::Refused } else { Act::Insert }, numbers.of(value.min(nil)))
            }
            Call::Gets if failed => continue,
            Call::Gets if !told => match thing {
                Thing::Register | Thing::Set => continue,
                Thing::Queue | Thing::Stack => (Act::Lost, 0),
            },
            Call::Gets if thing == Thing::Set => {
                let parts: &[u32] = match canon.value(objects.output[o]) {
                    Value::List(parts) | Value::Set(parts) => parts,
                    Value::Nil => &[],
                    _ => return Err(Declined(format!("operation {o}: read answers a set or a list"))),
                };
                let mut elements: Vec<u32> = parts.iter().map(|&part| numbers.of(canon.of(part).min(nil))).collect();
                elements.sort_unstable();
                let next = shown.len() as u32;
                let number = *shown_numbers.entry(elements).or_insert_with_key(|elements| {
                    shown.push(elements.clone());
                    next
                });
                (Act::Take, number)
            }
            Call::Gets => match canon.of(objects.output[o]) {
                NONE => {
                    read_nil = true;
                    (Act::Empty, 0)
                }
                value => (Act::Take, numbers.of(value)),
            },
        };
        let ret = if told { objects.ret[o] } else { NEVER };
        if told && ret == NEVER {
            return Err(Declined(format!("operation {o} returned at a time beyond 64 bits")));
        }
        asked.push(Operation { call: objects.call[o], ret, value, act });
        kept.push(index);
    }
    if thing == Thing::Register && wrote_nil && read_nil {
        return Ok((Answer::Declined("the value that the register held at first was written again"), None));
    }
    let question = Asked { thing, operations: asked, values: numbers.count as usize, shown };
    let (answer, prefix) = question.answer();
    let index = |place: u32| kept[place as usize];
    let answer = match answer {
        Answer::Illegal(Contradiction { rule, places }) => {
            Answer::Illegal(Contradiction { rule, places: places.into_iter().map(index).collect() })
        }
        other => other,
    };
    Ok((answer, prefix.map(|prefix| Prefix { next: index(prefix.next), ..prefix })))
}
