//! Every monitor against every order, on small random histories, legal and not.

use super::{Act, Answer, NEVER, Operation, Read, monitor, queue, register, set, stack};
use pekan_foreign::{NONE, Objects, Outcome, Place, Value};
use std::collections::HashSet;

/// A small generator of its own (SplitMix64): tests need no crate for that.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }
}

/// Whether some order is legal: all orders, by configurations seen.
fn any_order(kind: Kind, operations: &[Operation], shown: &[Vec<u32>]) -> bool {
    let must: u32 =
        (0..operations.len()).filter(|&o| operations[o].ret != NEVER && operations[o].act != Act::Refused).map(|o| 1 << o).sum();
    let mut seen = HashSet::new();
    let mut open = vec![(0_u32, Vec::new())];
    while let Some((done, state)) = open.pop() {
        if done & must == must {
            return true;
        }
        let first_ret = (0..operations.len()).filter(|&o| must & !done & (1 << o) != 0).map(|o| operations[o].ret).min();
        for o in (0..operations.len()).filter(|&o| done & (1 << o) == 0 && operations[o].act != Act::Refused) {
            if first_ret.is_some_and(|ret| ret < operations[o].call) {
                continue;
            }
            if let Some(after) = step(kind, &operations[o], Some(&shown[o]), &state) {
                let next = (done | 1 << o, after);
                if seen.insert(next.clone()) {
                    open.push(next);
                }
            }
        }
    }
    false
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Kind {
    Register,
    Queue,
    Stack,
    Set,
}

fn step(kind: Kind, operation: &Operation, shown: Option<&[u32]>, state: &[u32]) -> Option<Vec<u32>> {
    let with = |value: u32| [state, &[value]].concat();
    match (kind, operation.act) {
        (_, Act::Refused) => None,
        (Kind::Register, Act::Insert) => Some(vec![operation.value]),
        (Kind::Register, Act::Take) => (state == [operation.value]).then(|| state.to_vec()),
        (Kind::Register, Act::Empty) => state.is_empty().then(Vec::new),
        (Kind::Register, Act::Lost) => Some(state.to_vec()),
        (Kind::Set, Act::Insert) => {
            let mut next = with(operation.value);
            next.sort_unstable();
            next.dedup();
            Some(next)
        }
        (Kind::Set, _) => (shown == Some(state)).then(|| state.to_vec()),
        (Kind::Queue | Kind::Stack, Act::Insert) => Some(with(operation.value)),
        (Kind::Queue | Kind::Stack, Act::Empty) => state.is_empty().then(Vec::new),
        (Kind::Queue, Act::Take) => (state.first() == Some(&operation.value)).then(|| state[1..].to_vec()),
        (Kind::Queue, Act::Lost) => Some(state.get(1..).unwrap_or_default().to_vec()),
        (Kind::Stack, Act::Take) => (state.last() == Some(&operation.value)).then(|| state[..state.len() - 1].to_vec()),
        (Kind::Stack, Act::Lost) => Some(state[..state.len().saturating_sub(1)].to_vec()),
    }
}

struct Sample {
    operations: Vec<Operation>,
    shown: Vec<Vec<u32>>,
}

/// A run of a real object, each operation around its own instant, with ties; then, half of the time, something wrong.
fn sample(random: &mut Random, kind: Kind) -> Sample {
    let most = if random.below(8) == 0 { 14 } else { 8 };
    let count = 2 + random.below(most) as i64;
    let (mut state, mut next) = (Vec::new(), 0);
    let (mut operations, mut shown): (Vec<Operation>, Vec<Vec<u32>>) = (Vec::new(), Vec::new());
    let spread = 1 + random.below(8);
    let fail = random.below(4) == 0;
    for at in 0..count {
        let (call, ret) = (2 * at - random.below(spread) as i64, 2 * at + random.below(spread) as i64);
        let indefinite = fail && random.below(4) == 0;
        let mut operation = Operation { call, ret: if indefinite { NEVER } else { ret }, value: next, act: Act::Insert };
        let mut saw = Vec::new();
        if random.below(2) == 0 {
            next += 1;
            if random.below(12) == 0 {
                operation.act = Act::Refused;
            }
        } else {
            operation.act = Act::Take;
            let told = match kind {
                Kind::Register | Kind::Stack => state.last(),
                Kind::Queue => state.first(),
                Kind::Set => None,
            };
            match told {
                Some(&value) => operation.value = value,
                None => operation.act = Act::Empty,
            }
            saw.clone_from(&state);
            if indefinite && kind != Kind::Register && kind != Kind::Set {
                operation.act = Act::Lost;
            }
        }
        let happens = !indefinite || random.below(2) == 0;
        if happens && let Some(after) = step(kind, &operation, Some(&saw), &state) {
            state = after;
        }
        if indefinite && matches!(operation.act, Act::Take | Act::Empty | Act::Refused) {
            continue; // nobody saw it
        }
        operations.push(operation);
        shown.push(saw);
    }
    if random.below(2) == 0 && !operations.is_empty() {
        let len = operations.len() as u64;
        let (a, b) = (random.below(len) as usize, random.below(len) as usize);
        match random.below(4) {
            0 if operations[a].act != Act::Insert && operations[b].act != Act::Insert => {
                (operations[a].value, operations[b].value) = (operations[b].value, operations[a].value);
                shown.swap(a, b);
            }
            1 if (operations[a].ret == NEVER) == (operations[b].ret == NEVER) => {
                let (one, other) = (operations[a], operations[b]);
                (operations[a].call, operations[a].ret) = (other.call, other.ret);
                (operations[b].call, operations[b].ret) = (one.call, one.ret);
            }
            2 if !shown[a].is_empty() => {
                operations[a].value = random.below(u64::from(next) + 1) as u32;
                let gone = random.below(shown[a].len() as u64) as usize;
                shown[a].remove(gone);
            }
            _ => operations[a].value = random.below(u64::from(next) + 1) as u32, // may be a value twice, which is to be noticed
        }
    }
    let mut order: Vec<usize> = (0..operations.len()).collect();
    order.sort_by_key(|&o| operations[o].call);
    Sample { operations: order.iter().map(|&o| operations[o]).collect(), shown: order.iter().map(|&o| shown[o].clone()).collect() }
}

fn answer(kind: Kind, sample: &Sample) -> Answer {
    let values = 16;
    match kind {
        Kind::Register => register(&sample.operations, values),
        Kind::Queue => queue(&sample.operations, values),
        Kind::Stack => stack(&sample.operations, values),
        Kind::Set => {
            let mut shown = Vec::new();
            let reads: Vec<Read> = (0..)
                .zip(&sample.operations)
                .filter(|(_, o)| !matches!(o.act, Act::Insert | Act::Refused))
                .map(|(place, o)| {
                    let saw = &sample.shown[place as usize][..];
                    let number = shown.iter().position(|&other| other == saw).unwrap_or_else(|| {
                        shown.push(saw);
                        shown.len() - 1
                    });
                    Read { call: o.call, ret: o.ret, shown: number as u32, place }
                })
                .collect();
            set(&sample.operations, &reads, &shown, values)
        }
    }
}

/// Two samples as one history of two objects, the second after the first in each instant; and the places of each.
fn history(kind: Kind, samples: [&Sample; 2]) -> (Objects, [Vec<u32>; 2]) {
    let names = match kind {
        Kind::Register => ["write", "read"],
        Kind::Queue => ["enqueue", "dequeue"],
        Kind::Stack => ["push", "pop"],
        Kind::Set => ["add", "read"],
    }
    .map(String::from)
    .to_vec();
    let mut objects = Objects { names, ..Objects::default() };
    let mut order: Vec<(i64, usize, usize)> = Vec::new();
    for (object, sample) in samples.iter().enumerate() {
        order.extend(sample.operations.iter().enumerate().map(|(place, o)| (o.call, object, place)));
    }
    order.sort_unstable();
    let mut places = [Vec::new(), Vec::new()];
    for (call, object, place) in order {
        let (operation, saw) = (&samples[object].operations[place], &samples[object].shown[place]);
        places[object].push(objects.len() as u32);
        let inserts = matches!(operation.act, Act::Insert | Act::Refused);
        let outcome = match operation.act {
            Act::Refused => Outcome::Failed,
            _ if operation.ret == NEVER => Outcome::Indefinite,
            _ => Outcome::Ok,
        };
        let values = &mut objects.values;
        let nil = values.intern(Value::Nil);
        // The keys have numbers among the values, and values of one object are those of the other, too.
        let key = values.intern(Value::Int(object as i64));
        let value = values.intern(Value::Int(i64::from(operation.value)));
        let elements = saw.iter().map(|&element| values.intern(Value::Int(i64::from(element)))).collect();
        let seen = match (kind, operation.act) {
            (Kind::Set, _) => values.intern(Value::List(elements)),
            (_, Act::Empty) => nil,
            _ => value,
        };
        objects.process.push(0);
        objects.call.push(call);
        objects.ret.push(operation.ret);
        objects.outcome.push(outcome as u8);
        objects.f.push(u32::from(!inserts));
        objects.key.push(key);
        objects.input.push(if inserts { value } else { nil });
        objects.output.push(if !inserts && outcome == Outcome::Ok { seen } else { NONE });
        objects.place.push(Place::default());
    }
    (objects, places)
}

/// A history of two objects is judged object by object, as each alone.
#[test]
fn objects_of_a_history_are_judged_each_alone() {
    let mut random = Random(77);
    for kind in [Kind::Register, Kind::Queue, Kind::Stack, Kind::Set] {
        let model = match kind {
            Kind::Register => "register",
            Kind::Queue => "fifo-queue",
            Kind::Stack => "stack",
            Kind::Set => "set",
        };
        for _ in 0..2_000 {
            let (one, other) = (sample(&mut random, kind), sample(&mut random, kind));
            let (objects, places) = history(kind, [&one, &other]);
            let judged = monitor(&objects, model).expect("nothing in it to decline");
            for (sample, places) in [&one, &other].into_iter().zip(places).filter(|(sample, _)| !sample.operations.is_empty()) {
                let found = judged.iter().find(|judged| judged.operations == places).expect("each object is judged");
                match (answer(kind, sample), &found.answer) {
                    (Answer::Illegal(alone), Answer::Illegal(among)) => {
                        let told: Vec<u32> = alone.places.iter().map(|&place| places[place as usize]).collect();
                        assert_eq!((alone.rule, &told), (among.rule, &among.places));
                    }
                    (alone, among) => assert_eq!(&alone, among),
                }
            }
        }
    }
    assert!(monitor(&Objects::default(), "counter").is_err());
}

/// How many rounds; `PEKAN_MONITOR_ROUNDS` for a long run.
fn rounds() -> u64 {
    std::env::var("PEKAN_MONITOR_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(20_000)
}

fn agree(kind: Kind) {
    let mut random = Random(kind as u64 + 1);
    let (mut legal, mut illegal, mut declined) = (0, 0, 0);
    for round in 0..rounds() {
        let sample = sample(&mut random, kind);
        let shown = format!("{kind:?} round {round}: {:#?} {:?}", sample.operations, sample.shown);
        match answer(kind, &sample) {
            Answer::Declined(_) => declined += 1,
            Answer::Legal => {
                assert!(any_order(kind, &sample.operations, &sample.shown), "legal? {shown}");
                legal += 1;
            }
            Answer::Illegal(contradiction) => {
                assert!(!any_order(kind, &sample.operations, &sample.shown), "illegal? {contradiction:?} {shown}");
                illegal += 1;
                // The few that are named cannot be ordered by themselves either.
                let mut keep: Vec<usize> = contradiction.places.iter().map(|&place| place as usize).collect();
                keep.sort_unstable();
                keep.dedup();
                let few: Vec<Operation> = keep.iter().map(|&place| sample.operations[place]).collect();
                let few_shown: Vec<Vec<u32>> = keep.iter().map(|&place| sample.shown[place].clone()).collect();
                if kind != Kind::Set {
                    assert!(!any_order(kind, &few, &few_shown), "the core can be ordered: {contradiction:?} {shown}");
                }
            }
        }
    }
    assert!(legal > rounds() / 10 && illegal > rounds() / 10 && declined < rounds() / 3, "{legal} {illegal} {declined}");
}

#[test]
fn register_agrees_with_every_order() {
    agree(Kind::Register);
}

#[test]
fn queue_agrees_with_every_order() {
    agree(Kind::Queue);
}

#[test]
fn stack_agrees_with_every_order() {
    agree(Kind::Stack);
}

#[test]
fn set_agrees_with_every_order() {
    agree(Kind::Set);
}
