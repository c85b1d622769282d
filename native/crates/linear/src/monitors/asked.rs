//! One object's history, and the monitor that it is for.

use super::{Act, Answer, Operation, Prefix, Read, prefix, queue, register, set, stack};

/// A monitored object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thing {
    /// Reads and writes.
    Register,
    /// Adds, and reads of the whole.
    Set,
    /// First in, first out.
    Queue,
    /// Last in, first out.
    Stack,
}

impl Thing {
    /// The one of that name in the reference.
    pub fn of(name: &str) -> Option<Self> {
        Some(match name {
            "register" => Self::Register,
            "set" => Self::Set,
            "queue" => Self::Queue,
            "stack" => Self::Stack,
            _ => return None,
        })
    }
}

/// One object's history in columns.
#[derive(Clone, Debug)]
pub struct Asked {
    /// What it is.
    pub thing: Thing,
    /// In order of call.
    pub operations: Vec<Operation>,
    /// Values are numbered below this.
    pub values: usize,
    /// What the reads of a set showed, each sorted; the value of such a read is a number here.
    pub shown: Vec<Vec<u32>>,
}

impl Asked {
    /// What the monitor says, and where that is illegal, how far the history is not.
    pub fn answer(&self) -> (Answer, Option<Prefix>) {
        let answer = self.monitor(&self.operations);
        let unseen = matches!(self.thing, Thing::Queue | Thing::Stack);
        let prefix = match &answer {
            Answer::Illegal(found) => prefix(&self.operations, &found.places, unseen, |operations| self.monitor(operations)),
            _ => None,
        };
        (answer, prefix)
    }

    fn monitor(&self, operations: &[Operation]) -> Answer {
        match self.thing {
            Thing::Register => register(operations, self.values),
            Thing::Queue => queue(operations, self.values),
            Thing::Stack => stack(operations, self.values),
            Thing::Set => {
                let takes = (0..).zip(operations).filter(|(_, o)| o.act == Act::Take);
                let reads: Vec<Read> = takes.map(|(place, o)| Read { call: o.call, ret: o.ret, shown: o.value, place }).collect();
                let shown: Vec<&[u32]> = self.shown.iter().map(Vec::as_slice).collect();
                set(operations, &reads, &shown, self.values)
            }
        }
    }
}
