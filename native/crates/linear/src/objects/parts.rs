//! A history's independent objects, and its calls as small numbers.

use super::Declined;
use super::values::Canon;
use crate::question::NEVER;
use foldhash::fast::FixedState;
use hashbrown::{HashMap, HashTable};
use pekan_foreign::{NONE, Objects, Outcome, Value};
use std::hash::BuildHasher;

/// A ready model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    Register,
    CasRegister,
    VersionedRegister,
    MultiRegister,
    KvAppend,
    Counter,
    Set,
    FifoQueue,
    Stack,
    Mutex,
    FencedLock,
    ListAppend,
}

impl Kind {
    /// The model of that name.
    pub fn of(name: &str) -> Option<Self> {
        use Kind::*;
        let all = [
            Register,
            CasRegister,
            VersionedRegister,
            MultiRegister,
            KvAppend,
            Counter,
            Set,
            FifoQueue,
            Stack,
            Mutex,
            FencedLock,
            ListAppend,
        ];
        super::MODELS.iter().position(|&model| model == name).map(|i| all[i])
    }
}

/// What a class does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Does {
    /// Answers `a` (of a versioned register at version `n`; of a set its elements).
    Read,
    /// A read that nobody saw answered.
    ReadUnseen,
    /// Makes it `a`, at version `n`.
    Write,
    /// Makes it `b` where it is `a`, at version `n`; elsewhere it is illegal.
    Cas,
    /// Makes it `b` where it is `a`, else nothing.
    CasUnseen,
    /// Found that it is not `a`.
    CasNot,
    /// Puts in or adds `a` or `n`.
    Add,
    /// Takes out `a`.
    Remove,
    /// Takes out whatever is next.
    RemoveUnseen,
    /// Found that `a` is there.
    Contains,
    /// Found that `a` is not there.
    ContainsNot,
    /// Takes the lock, with token `n`.
    Acquire,
    /// Frees it, by token `n`.
    Release,
    /// A transaction: `a` is its list of parts with what it read.
    Txn,
    /// The same, and nobody saw what it read.
    TxnUnseen,
}

/// No number.
pub const NO_NUMBER: i64 = i64::MIN;
/// Tokens, versions and summands from here on are left to Python's numbers, which have no end.
const NUMBER_MAX: i64 = 1 << 62;

/// A call with its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Class {
    pub does: Does,
    /// Changes no state at all.
    pub readonly: bool,
    pub a: u32,
    pub b: u32,
    pub n: i64,
}

impl Class {
    fn new(does: Does, a: u32) -> Self {
        Self { does, readonly: false, a, b: NONE, n: NO_NUMBER }
    }

    fn readonly(self, readonly: bool) -> Self {
        Self { readonly, ..self }
    }

    fn number(self, n: i64) -> Self {
        Self { n, ..self }
    }
}

/// Distinct classes of a part.
#[derive(Debug, Default)]
pub struct Classes {
    pub list: Vec<Class>,
    table: HashTable<u32>,
    hasher: FixedState,
}

impl Classes {
    fn number(&mut self, class: Class) -> u32 {
        let (list, hasher) = (&mut self.list, &self.hasher);
        let hash = hasher.hash_one(class);
        if let Some(&found) = self.table.find(hash, |&number| list[number as usize] == class) {
            return found;
        }
        let number = list.len() as u32;
        list.push(class);
        self.table.insert_unique(hash, number, |&number| hasher.hash_one(list[number as usize]));
        number
    }

    /// Of each class.
    pub fn readonly(&self) -> Vec<bool> {
        self.list.iter().map(|class| class.readonly).collect()
    }
}

/// One independent object.
#[derive(Debug, Default)]
pub struct Part {
    pub key: u32,
    pub operations: Vec<u32>,
    pub call: Vec<i64>,
    pub ret: Vec<i64>,
    pub of: Vec<u32>,
    pub classes: Classes,
}

/// Calls of a history, as its model takes them.
struct Reader<'a> {
    objects: &'a Objects,
    canon: &'a Canon<'a>,
    kind: Kind,
    /// What each name of the history asks.
    calls: Vec<Option<Call>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Read,
    Write,
    Cas,
    Add,
    Remove,
    Contains,
    Acquire,
    Release,
    Txn,
}

impl Call {
    fn of(kind: Kind, name: &str) -> Option<Self> {
        use Kind::*;
        Some(match (kind, name) {
            (Register | CasRegister | VersionedRegister | Counter | Set, "read") | (KvAppend, "get") => Self::Read,
            (Register | CasRegister | VersionedRegister, "write") | (KvAppend, "put") => Self::Write,
            (CasRegister | VersionedRegister, "cas") => Self::Cas,
            (Counter | Set, "add") | (FifoQueue, "enqueue") | (Stack, "push") | (KvAppend, "append") => Self::Add,
            (Set, "remove") | (FifoQueue, "dequeue") | (Stack, "pop") => Self::Remove,
            (Set, "contains") => Self::Contains,
            (Mutex | FencedLock, "acquire") => Self::Acquire,
            (Mutex | FencedLock, "release") => Self::Release,
            (MultiRegister | ListAppend, "txn") => Self::Txn,
            _ => return None,
        })
    }
}

impl<'a> Reader<'a> {
    fn declined<T>(&self, o: usize, what: &str) -> Result<T, Declined> {
        let name = self.objects.names.get(self.objects.f[o] as usize).map_or("?", |name| name);
        Err(Declined(format!("operation {o}, {name}: {what}")))
    }

    fn number(&self, o: usize, value: u32, what: &str) -> Result<i64, Declined> {
        match self.canon.whole(value) {
            Some(number) if (-NUMBER_MAX..NUMBER_MAX).contains(&number) => Ok(number),
            _ => self.declined(o, what),
        }
    }

    /// A whole number, where it is one.
    fn token(&self, o: usize, value: u32) -> Result<i64, Declined> {
        if self.canon.whole(value).is_none() { Ok(NO_NUMBER) } else { self.number(o, value, "a token beyond 62 bits") }
    }

    fn text(&self, o: usize, value: u32, what: &str) -> Result<&'a str, Declined> {
        match self.canon.value(value) {
            Value::Text(text) | Value::Name(text) => Ok(text),
            _ => self.declined(o, what),
        }
    }

    /// What operation `o` did, as far as it was seen.
    fn class(&self, o: usize) -> Result<Class, Declined> {
        let Some(call) = self.calls[self.objects.f[o] as usize] else { return self.declined(o, "the model has no such call") };
        let (input, output) = (self.objects.input[o], self.objects.output[o]);
        let told = self.objects.outcome[o] == Outcome::Ok as u8;
        let a = self.canon.of(input);
        let seen = self.canon.of(output);
        let unseen = Class::new(Does::ReadUnseen, NONE).readonly(true);
        if self.kind == Kind::VersionedRegister {
            return self.versioned(o, call, told);
        }
        Ok(match (call, self.kind) {
            (Call::Read, _) if !told => unseen,
            (Call::Read, Kind::Counter) => {
                Class::new(Does::Read, NONE).number(self.number(o, output, "read answers a number")?).readonly(true)
            }
            (Call::Read, Kind::Set) => match self.canon.value(output) {
                Value::Nil | Value::List(_) | Value::Set(_) => Class::new(Does::Read, seen).readonly(true),
                _ => return self.declined(o, "read answers a set or a list"),
            },
            (Call::Read, Kind::KvAppend) => {
                let text = if seen == NONE { "" } else { self.text(o, output, "get answers a text")? };
                Class::new(Does::Read, if text.is_empty() { NONE } else { seen }).readonly(true)
            }
            (Call::Read, _) => Class::new(Does::Read, seen).readonly(true),
            (Call::Write, Kind::KvAppend) => {
                let text = self.text(o, input, "put takes a text")?;
                Class::new(Does::Write, if text.is_empty() { NONE } else { a })
            }
            (Call::Write, _) => Class::new(Does::Write, a),
            (Call::Cas, _) => {
                let Some((expected, new)) = self.canon.pair(input) else { return self.declined(o, "cas takes [expected new]") };
                let (expected, new) = (self.canon.of(expected), self.canon.of(new));
                if told && self.canon.is_false(output) {
                    return Ok(Class::new(Does::CasNot, expected).readonly(true));
                }
                let does = if told { Does::Cas } else { Does::CasUnseen };
                Class { b: new, ..Class::new(does, expected) }.readonly(expected == new)
            }
            (Call::Add, Kind::Counter) => {
                let n = self.number(o, input, "add takes a number")?;
                Class::new(Does::Add, NONE).number(n).readonly(n == 0)
            }
            (Call::Add, Kind::KvAppend) => {
                let text = self.text(o, input, "append takes a text")?;
                Class::new(Does::Add, a).readonly(text.is_empty())
            }
            (Call::Add, Kind::FifoQueue | Kind::Stack) if a == NONE => return self.declined(o, "takes an element, and nil is none"),
            (Call::Add, _) => Class::new(Does::Add, a),
            (Call::Remove, Kind::Set) => Class::new(Does::Remove, a),
            (Call::Remove, _) if !told => Class::new(Does::RemoveUnseen, NONE),
            (Call::Remove, _) => Class::new(Does::Remove, seen).readonly(seen == NONE),
            (Call::Contains, _) if !told => Class { a, ..unseen },
            (Call::Contains, _) => match self.canon.value(output) {
                Value::Bool(true) => Class::new(Does::Contains, a).readonly(true),
                Value::Bool(false) => Class::new(Does::ContainsNot, a).readonly(true),
                _ => return self.declined(o, "contains answers true or false"),
            },
            (Call::Acquire, Kind::FencedLock) if told => Class::new(Does::Acquire, NONE).number(self.token(o, output)?),
            (Call::Acquire, _) => Class::new(Does::Acquire, NONE),
            (Call::Release, Kind::FencedLock) => Class::new(Does::Release, NONE).number(self.token(o, input)?),
            (Call::Release, _) => Class::new(Does::Release, NONE),
            (Call::Txn, _) => return self.transaction(o, told),
        })
    }

    fn versioned(&self, o: usize, call: Call, told: bool) -> Result<Class, Declined> {
        let (input, output) = (self.objects.input[o], self.objects.output[o]);
        let answer = if told { self.canon.pair(output) } else { None };
        let asked = self.canon.pair(input);
        if call != Call::Read && asked.is_none() {
            return self.declined(o, "takes [version value]");
        }
        let version = [answer, asked].into_iter().flatten().map(|pair| pair.0).find(|&version| self.canon.of(version) != NONE);
        let n = version.map_or(Ok(NO_NUMBER), |version| self.number(o, version, "a version is a whole number"))?;
        if call == Call::Read {
            return match answer {
                _ if !told => Ok(Class::new(Does::ReadUnseen, NONE).readonly(true)),
                Some((_, value)) => Ok(Class::new(Does::Read, self.canon.of(value)).number(n).readonly(true)),
                None if self.canon.of(output) == NONE => Ok(Class::new(Does::Read, NONE).number(n).readonly(true)),
                None => self.declined(o, "read answers [version value]"),
            };
        }
        let new = asked.map_or(NONE, |pair| pair.1);
        if call == Call::Write {
            if told && self.canon.is_false(output) {
                return self.declined(o, "a write answers a version or nothing");
            }
            return Ok(Class::new(Does::Write, self.canon.of(new)).number(n));
        }
        let Some((expected, new)) = self.canon.pair(new) else { return self.declined(o, "cas takes [version [expected new]]") };
        let (expected, new) = (self.canon.of(expected), self.canon.of(new));
        if told && self.canon.is_false(output) {
            return Ok(Class::new(Does::CasNot, expected).readonly(true));
        }
        let does = if told { Does::Cas } else { Does::CasUnseen };
        Ok(Class { b: new, ..Class::new(does, expected) }.number(n))
    }

    fn transaction(&self, o: usize, told: bool) -> Result<Class, Declined> {
        let (input, output) = (self.objects.input[o], self.objects.output[o]);
        let Some(asked) = micro_operations(self.kind, self.canon, input) else {
            return self.declined(o, "txn takes a list of [f key value]");
        };
        let readonly = asked.iter().all(|part| part.reads);
        // An answer that is no list tells nothing.
        if !told || !matches!(self.canon.value(output), Value::List(_)) {
            return Ok(Class::new(Does::TxnUnseen, self.canon.of(input)).readonly(readonly));
        }
        let Some(answered) = micro_operations(self.kind, self.canon, output) else {
            return self.declined(o, "txn answers a list of [f key value]");
        };
        let same = |(asked, answered): (&Micro, &Micro)| {
            asked.name == answered.name && asked.key == answered.key && (asked.reads || asked.value == answered.value)
        };
        if asked.len() != answered.len() || !asked.iter().zip(&answered).all(same) {
            return self.declined(o, "txn answers the parts that it was asked for");
        }
        let lists = |part: &Micro| part.value == NONE || matches!(self.canon.value(part.value), Value::List(_));
        if self.kind == Kind::ListAppend && !answered.iter().filter(|part| part.reads).all(lists) {
            return self.declined(o, "txn answers a list for every r");
        }
        Ok(Class::new(Does::Txn, self.canon.of(output)).readonly(readonly))
    }
}

/// One part of a transaction, its values by their representatives.
#[derive(Clone, Copy, Debug)]
pub struct Micro<'a> {
    pub name: &'a str,
    pub reads: bool,
    pub key: u32,
    pub value: u32,
}

/// The parts of a transaction; `None` where it is no list of them.
pub fn micro_operations<'a>(kind: Kind, canon: &Canon<'a>, number: u32) -> Option<Vec<Micro<'a>>> {
    let Value::List(parts) = canon.value(number) else { return None };
    let read = |&part: &u32| {
        let Value::List(part) = canon.value(part) else { return None };
        let [f, key, value] = part[..] else { return None };
        let (Value::Name(name) | Value::Text(name)) = canon.value(f) else { return None };
        let reads = matches!(&name[..], "r" | "read");
        let writes = if kind == Kind::ListAppend { &name[..] == "append" } else { matches!(&name[..], "w" | "write") };
        (reads || writes).then(|| Micro { name, reads, key: canon.of(key), value: canon.of(value) })
    };
    parts.iter().map(read).collect()
}

/// The independent objects of a history, or of the operations `among` it: by key, in order of the keys' first operations, and within a key
/// by the parts of the model.
pub fn divided(objects: &Objects, among: Option<&[bool]>, canon: &Canon<'_>, kind: Kind) -> Result<Vec<Part>, Declined> {
    let calls = objects.names.iter().map(|name| Call::of(kind, name)).collect();
    let reader = Reader { objects, canon, kind, calls };
    let kept = |&o: &u32| objects.outcome[o as usize] != Outcome::Failed as u8 && among.is_none_or(|among| among[o as usize]);
    let operations: Vec<u32> = (0..objects.len() as u32).filter(kept).collect();
    let classes = operations.iter().map(|&o| reader.class(o as usize)).collect::<Result<Vec<_>, _>>()?;
    let groups = grouped(&operations, &classes, objects, canon, kind, among);
    let mut parts: Vec<Part> = Vec::new();
    let mut place: Vec<u32> = vec![NONE; groups.count];
    for &(group, key) in &groups.order {
        place[group as usize] = parts.len() as u32;
        parts.push(Part { key, ..Part::default() });
    }
    for ((&o, &class), &group) in operations.iter().zip(&classes).zip(&groups.of) {
        let ok = objects.outcome[o as usize] == Outcome::Ok as u8;
        if !ok && class.readonly {
            continue;
        }
        let part = &mut parts[place[group as usize] as usize];
        part.operations.push(o);
        part.call.push(objects.call[o as usize]);
        part.ret.push(if ok { objects.ret[o as usize] } else { NEVER });
        let of = part.classes.number(class);
        part.of.push(of);
    }
    Ok(parts)
}

/// The group of each operation, and the groups with their keys in the order of their first operations, those of one key together.
struct Groups {
    of: Vec<u32>,
    count: usize,
    order: Vec<(u32, u32)>,
}

fn grouped(operations: &[u32], classes: &[Class], objects: &Objects, canon: &Canon<'_>, kind: Kind, among: Option<&[bool]>) -> Groups {
    let mut keys: HashMap<u32, u32, FixedState> = HashMap::default();
    let mut key_list: Vec<u32> = Vec::new();
    let mut last = None;
    let mut rank_of = |key: u32| match last {
        Some((same, rank)) if same == key => rank,
        _ => {
            let rank = *keys.entry(canon.of(key)).or_insert_with(|| {
                key_list.push(key);
                key_list.len() as u32 - 1
            });
            last = Some((key, rank));
            rank
        }
    };
    // Failed operations, too, tell of an object.
    for (o, &key) in objects.key.iter().enumerate() {
        if among.is_none_or(|among| among[o]) {
            rank_of(key);
        }
    }
    let ranks: Vec<u32> = operations.iter().map(|&o| rank_of(objects.key[o as usize])).collect();
    if !matches!(kind, Kind::Set | Kind::MultiRegister | Kind::ListAppend) {
        let order = (0..).zip(key_list.iter().copied()).collect();
        return Groups { of: ranks, count: key_list.len(), order };
    }
    let (of, count) = by_parts(classes, &ranks, key_list.len(), canon, kind);
    let mut firsts: Vec<(u32, u32, u32)> = Vec::new(); // Rank of the key, place of the group's first operation, group.
    let mut met = vec![false; count];
    for (i, &group) in of.iter().enumerate() {
        if !std::mem::replace(&mut met[group as usize], true) {
            firsts.push((ranks[i], i as u32, group));
        }
    }
    firsts.sort_unstable();
    let order = firsts.into_iter().map(|(rank, _, group)| (group, key_list[rank as usize])).collect();
    Groups { of, count, order }
}

/// Groups of operations that share a part of their object, over however many steps.
fn by_parts(classes: &[Class], ranks: &[u32], keys: usize, canon: &Canon<'_>, kind: Kind) -> (Vec<u32>, usize) {
    // A read of the whole set touches every element: then all of that key is one.
    let mut whole = vec![false; keys];
    for (class, &rank) in classes.iter().zip(ranks) {
        // (What nobody saw answered and names no element is a read.)
        whole[rank as usize] |= kind == Kind::Set && (class.does == Does::Read || (class.does == Does::ReadUnseen && class.a == NONE));
    }
    let mut nodes: HashMap<(u32, Option<u32>), u32, FixedState> = HashMap::default();
    let mut leader: Vec<u32> = Vec::new();
    let mut of: Vec<u32> = Vec::with_capacity(classes.len());
    for (class, &rank) in classes.iter().zip(ranks) {
        let mut node = |part: Option<u32>, leader: &mut Vec<u32>| {
            *nodes.entry((rank, part)).or_insert_with(|| {
                leader.push(leader.len() as u32);
                leader.len() as u32 - 1
            })
        };
        if kind == Kind::Set {
            let part = if whole[rank as usize] { None } else { Some(class.a) };
            of.push(node(part, &mut leader));
            continue;
        }
        let parts = micro_operations(kind, canon, class.a).unwrap_or_default();
        let mut first = None;
        for part in parts {
            let node = node(Some(part.key), &mut leader);
            let first = *first.get_or_insert(node);
            let (one, other) = (find(&mut leader, first), find(&mut leader, node));
            leader[other as usize] = one;
        }
        of.push(first.unwrap_or_else(|| node(None, &mut leader)));
    }
    for group in &mut of {
        *group = find(&mut leader, *group);
    }
    (of, leader.len())
}

fn find(leader: &mut [u32], mut node: u32) -> u32 {
    while leader[node as usize] != node {
        leader[node as usize] = leader[leader[node as usize] as usize];
        node = leader[node as usize];
    }
    node
}
