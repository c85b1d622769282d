//! Entries that invoke and complete, paired to operations by the rules of `pairing.py`.

use crate::Declined;
use crate::objects::{Mark, NONE, Objects, Outcome, Place, Value, Values};
use foldhash::fast::FixedState;
use hashbrown::HashMap;

/// What an entry says that its operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Invoke,
    Ok,
    Fail,
    Info,
}

impl Kind {
    /// By its name.
    pub fn of(name: &[u8]) -> Option<Self> {
        match name {
            b"invoke" => Some(Self::Invoke),
            b"ok" => Some(Self::Ok),
            b"fail" => Some(Self::Fail),
            b"info" => Some(Self::Info),
            _ => None,
        }
    }
}

/// Whose entry it is: a client's by number, or somebody's by name, which makes it a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Process(i64),
    Named,
}

/// One entry; values by their numbers, 0 is nil.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub who: Who,
    pub kind: Kind,
    pub f: u32,
    pub value: u32,
    pub key: u32,
    pub time: Option<i64>,
    pub start: usize,
    pub end: usize,
}

/// The number of nil.
pub const NIL: u32 = 0;
/// Numbers of processes up to here have their place in a table; higher ones are looked up.
const TABLE_MAX: i64 = 1 << 16;

/// Entries on their way to operations.
pub struct Pairing {
    pub objects: Objects,
    /// Index of the open operation of each process, [`NONE`] where there is none.
    open: Vec<u32>,
    /// The same of processes beyond the table.
    open_beyond: HashMap<i64, u32, FixedState>,
    /// Number of a value -> index in `Objects::names`, [`NONE`] where it has none yet.
    name_of: Vec<u32>,
    /// A failed compare-and-set is an operation that was answered false.
    failed_cas_is_answer: bool,
    keyed: bool,
    /// A key was seen that Python may take for equal to another one: whether keys agree is not settled here.
    strange: bool,
    timed: Option<bool>,
    now: i64,
    count: i64,
    no: u32,
}

impl Pairing {
    pub fn new(failed_cas_is_answer: bool) -> Self {
        let mut objects = Objects::default();
        let nil = objects.values.intern(Value::Nil);
        debug_assert_eq!(nil, NIL);
        let no = objects.values.intern(Value::Bool(false));
        Self {
            objects,
            open: Vec::new(),
            open_beyond: HashMap::default(),
            name_of: Vec::new(),
            failed_cas_is_answer,
            keyed: true,
            strange: false,
            timed: None,
            now: 0,
            count: 0,
            no,
        }
    }

    pub fn values(&mut self) -> &mut Values {
        &mut self.objects.values
    }

    /// Takes the next entry.
    pub fn add(&mut self, entry: &Entry) -> Result<(), Declined> {
        self.clock(entry.time)?;
        self.count += 1;
        let Who::Process(process) = entry.who else {
            self.objects.marks.push(Mark { start: entry.start, end: entry.end, time: self.now });
            return Ok(());
        };
        if process == i64::MAX {
            return Err(Declined("a process beyond 64 bits"));
        }
        if entry.kind == Kind::Invoke { self.invoked(process, entry) } else { self.completed(process, entry) }
    }

    fn clock(&mut self, time: Option<i64>) -> Result<(), Declined> {
        if *self.timed.get_or_insert(time.is_some()) != time.is_some() {
            return Err(Declined("times in some entries only"));
        }
        let now = time.unwrap_or(self.count);
        if now == i64::MAX || (now < self.now && self.count > 0) {
            return Err(Declined("time runs backwards"));
        }
        self.now = now;
        Ok(())
    }

    /// The place of the index of the open operation of `process`.
    fn slot(&mut self, process: i64) -> &mut u32 {
        if (0..TABLE_MAX).contains(&process) {
            let process = process as usize;
            if self.open.len() <= process {
                self.open.resize(process + 1, NONE);
            }
            &mut self.open[process]
        } else {
            self.open_beyond.entry(process).or_insert(NONE)
        }
    }

    fn invoked(&mut self, process: i64, entry: &Entry) -> Result<(), Declined> {
        let f = self.name(entry.f)?;
        let index = self.objects.len() as u32;
        let slot = self.slot(process);
        if *slot != NONE {
            return Err(Declined("two open operations of one process"));
        }
        *slot = index;
        self.keyed = self.keyed && entry.key == NIL && self.is_pair(f, entry.value);
        let objects = &mut self.objects;
        objects.process.push(process);
        objects.call.push(self.now);
        objects.ret.push(i64::MAX);
        objects.gave_up.push(i64::MAX);
        objects.outcome.push(Outcome::Indefinite as u8);
        objects.f.push(f);
        objects.key.push(if entry.key == NIL { NONE } else { entry.key });
        objects.input.push(entry.value);
        objects.output.push(NONE);
        objects.place.push(Place(entry.start as u32));
        Ok(())
    }

    fn completed(&mut self, process: i64, entry: &Entry) -> Result<(), Declined> {
        let now = self.now;
        let index = std::mem::replace(self.slot(process), NONE) as usize;
        if index == NONE as usize {
            return Err(Declined("a completion without its invocation"));
        }
        let f = self.objects.f[index];
        if entry.f != NIL && self.name(entry.f)? != f {
            return Err(Declined("a completion of another function"));
        }
        if entry.kind == Kind::Info {
            self.objects.gave_up[index] = now;
            return Ok(());
        }
        self.objects.ret[index] = now;
        if entry.kind == Kind::Ok {
            self.objects.outcome[index] = Outcome::Ok as u8;
            self.objects.output[index] = entry.value;
            // (The function of a pair is looked at as the entry names it: one without a name is none of a transaction's.)
            let f = if entry.f == NIL { NONE } else { f };
            self.keyed = self.keyed && self.is_pair(f, entry.value) && self.same_key(self.objects.input[index], entry.value);
        } else if self.failed_cas_is_answer && self.objects.names[f as usize] == "cas" {
            self.objects.outcome[index] = Outcome::Ok as u8;
            self.objects.output[index] = self.no;
        } else {
            self.objects.outcome[index] = Outcome::Failed as u8;
        }
        Ok(())
    }

    /// The index in `Objects::names` of the text with that number.
    fn name(&mut self, value: u32) -> Result<u32, Declined> {
        if self.name_of.len() <= value as usize {
            self.name_of.resize(value as usize + 1, NONE);
        }
        let known = self.name_of[value as usize];
        if known != NONE {
            return Ok(known);
        }
        let (Value::Text(text) | Value::Name(text)) = self.objects.values.get(value) else {
            return Err(Declined("a function that is no name"));
        };
        let names = &mut self.objects.names;
        let index = names.iter().position(|name| **name == **text).unwrap_or_else(|| {
            names.push(text.to_string());
            names.len() - 1
        });
        self.name_of[value as usize] = index as u32;
        Ok(index as u32)
    }

    /// Whether a value is a key and a value of an independent object; see `pairing.py`.
    fn is_pair(&mut self, f: u32, value: u32) -> bool {
        let f = self.objects.names.get(f as usize).map_or("", String::as_str);
        let Value::List(parts) = self.objects.values.get(value) else { return false };
        let [key, inner] = parts[..] else { return false };
        if f == "txn" || matches!(self.objects.values.get(key), Value::List(_) | Value::Nil) {
            return false;
        }
        self.strange |= matches!(self.objects.values.get(key), Value::Bool(_) | Value::Map(_) | Value::Set(_));
        f != "cas" || matches!(self.objects.values.get(inner), Value::List(inner) if inner.len() == 2)
    }

    /// Whether two pairs have equal keys, as Python compares them.
    fn same_key(&self, asked: u32, told: u32) -> bool {
        let values = &self.objects.values;
        let (Value::List(asked), Value::List(told)) = (values.get(asked), values.get(told)) else { return false };
        let (asked, told) = (asked[0], told[0]);
        asked == told
            || self.strange
            || match (values.get(asked), values.get(told)) {
                (Value::Text(a) | Value::Name(a), Value::Text(b) | Value::Name(b)) => a == b,
                _ => false,
            }
    }

    /// All of it: what is open has no outcome.
    pub fn finish(mut self) -> Result<Objects, Declined> {
        if self.keyed && self.strange {
            return Err(Declined("keys that are no numbers and no texts"));
        }
        if self.keyed {
            let first = |values: &Values, of: u32, part: usize| match values.get(of) {
                Value::List(parts) => parts[part],
                _ => NIL,
            };
            let objects = &mut self.objects;
            for index in 0..objects.call.len() {
                let pair = objects.input[index];
                objects.key[index] = first(&objects.values, pair, 0);
                objects.input[index] = first(&objects.values, pair, 1);
                let output = objects.output[index];
                if output != NONE && output != self.no {
                    objects.output[index] = first(&objects.values, output, 1);
                }
            }
        }
        Ok(self.objects)
    }
}
