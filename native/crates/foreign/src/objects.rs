//! Operations on objects in columns.

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use std::hash::{BuildHasher, Hash, Hasher};

/// No value: no answer came, or the operation names no key.
pub const NONE: u32 = u32::MAX;

/// What became of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Outcome {
    /// It took effect, once, between call and return.
    Ok,
    /// It had and will have no effect.
    Failed,
    /// It may take effect at any time after the call, once, or never.
    Indefinite,
}

/// One value of a history, its parts by their numbers in [`Values`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Value {
    /// EDN nil, JSON null.
    Nil,
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number that is no 64-bit integer, as it is written.
    Number(Box<str>),
    /// A string.
    Text(Box<str>),
    /// A keyword or symbol, without its colon.
    Name(Box<str>),
    /// A vector, list or JSON array.
    List(Box<[u32]>),
    /// A set, its parts in ascending order of their numbers.
    Set(Box<[u32]>),
    /// A map: key, value, key, value, in ascending order of the keys' numbers.
    Map(Box<[u32]>),
}

/// Each distinct value once.
#[derive(Default)]
pub struct Values {
    list: Vec<Value>,
    table: HashTable<u32>,
    hasher: FixedState,
}

impl std::fmt::Debug for Values {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(&self.list).finish()
    }
}

impl Values {
    /// The number of `value`, which is its own from now on.
    pub fn intern(&mut self, value: Value) -> u32 {
        let hasher = &self.hasher;
        let list = &mut self.list;
        let hash = hasher.hash_one(&value);
        if let Some(&found) = self.table.find(hash, |&number| list[number as usize] == value) {
            return found;
        }
        let number = u32::try_from(list.len()).expect("fewer than 4 billion values");
        list.push(value);
        self.table.insert_unique(hash, number, |&number| hasher.hash_one(&list[number as usize]));
        number
    }

    /// The number of a text, which is copied only where it is new.
    pub fn text(&mut self, text: &str) -> u32 {
        self.named(text, Value::Text)
    }

    /// The number of a keyword or symbol.
    pub fn name(&mut self, name: &str) -> u32 {
        self.named(name, Value::Name)
    }

    fn named(&mut self, text: &str, kind: fn(Box<str>) -> Value) -> u32 {
        // (An empty box allocates nothing; the hash of a value is that of its kind, then of its text.)
        let of_kind = std::mem::discriminant(&kind(Box::default()));
        let mut state = self.hasher.build_hasher();
        of_kind.hash(&mut state);
        text.hash(&mut state);
        let hash = state.finish();
        let list = &mut self.list;
        let same = |number: &u32| match &list[*number as usize] {
            value @ (Value::Text(known) | Value::Name(known)) => std::mem::discriminant(value) == of_kind && **known == *text,
            _ => false,
        };
        if let Some(&found) = self.table.find(hash, same) {
            return found;
        }
        self.intern(kind(text.into()))
    }

    /// The value of a number.
    pub fn get(&self, number: u32) -> &Value {
        &self.list[number as usize]
    }

    /// How many distinct values there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// True where there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

/// Where an operation stands in its file, for messages: line (from 1) or byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place(pub u32);

/// An entry that is a mark: where it stands in its text, and when it was. Marks are few, and Python reads them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Its first byte.
    pub start: usize,
    /// The byte behind it.
    pub end: usize,
    /// As the times of operations.
    pub time: i64,
}

/// A history of operations on objects. All columns have one entry an operation, in order of call.
#[derive(Debug, Default)]
pub struct Objects {
    /// Jepsen's process.
    pub process: Vec<i64>,
    /// ns, or the place in the order of lines where the file has no times.
    pub call: Vec<i64>,
    /// As `call`; `i64::MAX` where nothing came back that proves anything.
    pub ret: Vec<i64>,
    /// What became of it.
    pub outcome: Vec<u8>,
    /// What was asked: index in `names`.
    pub f: Vec<u32>,
    /// Of which of several independent objects: index in `values`, or [`NONE`].
    pub key: Vec<u32>,
    /// The argument: index in `values`.
    pub input: Vec<u32>,
    /// The answer: index in `values`, or [`NONE`].
    pub output: Vec<u32>,
    /// When its client stopped waiting, of an indefinite one; `i64::MAX` where it never did. Empty where nobody needs it.
    pub gave_up: Vec<i64>,
    /// Where its invocation stands.
    pub place: Vec<Place>,
    /// Names of what was asked.
    pub names: Vec<String>,
    /// All values.
    pub values: Values,
    /// What is worth knowing and no operation.
    pub marks: Vec<Mark>,
}

impl Objects {
    /// How many operations there are.
    pub fn len(&self) -> usize {
        self.call.len()
    }

    /// True where there is none.
    pub fn is_empty(&self) -> bool {
        self.call.is_empty()
    }
}
