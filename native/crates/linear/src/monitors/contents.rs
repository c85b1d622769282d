//! What queue and stack share: values with their insert and take, and when the object cannot have been empty.
//!
//! ```text
//! insert   [call ──── ret]
//! take                          [call ──── ret]
//! held                   (──────)                  from the insert's return to the take's call: certainly inside
//! ```
//!
//! A value that nobody took is taken after everything: `[NEVER, NEVER]`. That changes nothing, since what is left at the end can always be
//! taken out then, in the order that the object wants. A value whose indefinite insert nobody saw is left out: a queue or stack stays legal
//! when a value leaves it altogether.

use super::{Act, Answer, Contradiction, NEVER, Operation, REPEATED, Rule};

const NOBODY: u32 = u32::MAX;
const SEVERAL: u32 = u32::MAX - 1;

/// One value. `take` is its insert's place where nobody took it.
#[derive(Clone, Copy, Debug)]
pub struct Item {
    pub insert_call: i64,
    pub insert_ret: i64,
    pub take_call: i64,
    pub take_ret: i64,
    pub insert: u32,
    pub take: u32,
}

impl Item {
    /// Whether there is a time at which it is certainly inside.
    pub fn held(&self) -> bool {
        self.insert_ret < self.take_call
    }
}

/// All that a queue or stack was asked.
pub struct Contents {
    /// In order of the places of their inserts.
    pub items: Vec<Item>,
    /// Places of answers that there was nothing to take.
    pub empties: Vec<u32>,
    /// Places of takes that nobody saw answered, in order of call.
    pub lost: Vec<u32>,
}

/// What an unknown value's contradiction shows: who saw it, and who was refused to bring it in.
pub fn unknown(operations: &[Operation], place: u32) -> Contradiction {
    let value = operations[place as usize].value;
    let refused = (0..).zip(operations).find(|(_, o)| o.act == Act::Refused && o.value == value).map(|(place, _)| place);
    Contradiction { rule: Rule::Unknown, places: [place].into_iter().chain(refused).collect() }
}

/// Pairs inserts with takes. An answer comes back where that decides already.
pub fn contents(operations: &[Operation], values: usize) -> Result<Contents, Answer> {
    let mut inserted = vec![NOBODY; values];
    let (mut items, mut empties, mut lost) = (Vec::new(), Vec::new(), Vec::new());
    for (place, operation) in (0..).zip(operations) {
        match operation.act {
            Act::Insert => {
                let known = &mut inserted[operation.value as usize];
                *known = if *known == NOBODY { items.len() as u32 } else { SEVERAL };
                let Operation { call, ret, .. } = *operation;
                items.push(Item { insert_call: call, insert_ret: ret, take_call: NEVER, take_ret: NEVER, insert: place, take: place });
            }
            Act::Empty => empties.push(place),
            Act::Lost => lost.push(place),
            Act::Take | Act::Refused => {}
        }
    }
    let mut found = None;
    for (place, operation) in (0..).zip(operations).filter(|(_, o)| o.act == Act::Take) {
        match inserted[operation.value as usize] {
            SEVERAL => return Err(Answer::Declined(REPEATED)),
            NOBODY => found = found.or_else(|| Some(unknown(operations, place))),
            number => {
                let item: &mut Item = &mut items[number as usize];
                if item.take != item.insert {
                    found.get_or_insert_with(|| Contradiction { rule: Rule::Twice, places: vec![item.insert, item.take, place] });
                } else if operation.ret < item.insert_call {
                    found.get_or_insert_with(|| Contradiction { rule: Rule::Early, places: vec![place, item.insert] });
                }
                (item.take, item.take_call, item.take_ret) = (place, operation.call, operation.ret);
            }
        }
    }
    if let Some(contradiction) = found {
        return Err(Answer::Illegal(contradiction));
    }
    items.retain(|item| item.take != item.insert || item.insert_ret != NEVER);
    lost.sort_by_key(|&place| operations[place as usize].call);
    Ok(Contents { items, empties, lost })
}

/// The items that are certainly inside at some time, by the begin of that time.
pub fn held(items: &[Item]) -> Vec<Item> {
    let mut held: Vec<Item> = items.iter().copied().filter(Item::held).collect();
    held.sort_unstable_by_key(|item| (item.insert_ret, item.insert));
    held
}

/// Cuts `held` into runs whose times overlap one another without a break: `(first, end, last take_call)`. Times that only touch do not
/// overlap.
pub fn runs(held: &[Item]) -> Vec<(usize, usize, i64)> {
    let mut runs: Vec<(usize, usize, i64)> = Vec::new();
    for (number, item) in held.iter().enumerate() {
        match runs.last_mut() {
            Some((_, end, until)) if item.insert_ret < *until => (*end, *until) = (number + 1, item.take_call.max(*until)),
            _ => runs.push((number, number + 1, item.take_call)),
        }
    }
    runs
}

/// The fewest items of a run of which the first begins before `from`, each next one before the one before it ends, and the last ends after
/// `until`. The run must reach that far.
pub fn cover(run: &[Item], from: i64, until: i64) -> Vec<Item> {
    let mut chosen = Vec::new();
    let (mut reached, mut next) = (from, 0);
    loop {
        let mut best: Option<Item> = None;
        while let Some(item) = run.get(next).filter(|item| item.insert_ret < reached) {
            if best.is_none_or(|best| item.take_call > best.take_call) {
                best = Some(*item);
            }
            next += 1;
        }
        let Some(item) = best.filter(|item| chosen.is_empty() || item.take_call > reached) else { return chosen };
        chosen.push(item);
        reached = item.take_call;
        if reached > until {
            return chosen;
        }
    }
}

/// The roles of items in a contradiction: insert and take of each.
pub fn roles(items: &[Item]) -> impl Iterator<Item = u32> + '_ {
    items.iter().flat_map(|item| [item.insert, item.take])
}

/// A contradiction that stands although every value that nobody was seen to take may have been taken from the call of `first` on, which is
/// shown last where it matters.
pub fn with_lost(mut contradiction: Contradiction, first: u32) -> Contradiction {
    let pairs = match contradiction.rule {
        Rule::NeverEmpty => &contradiction.places[1..],
        _ => &contradiction.places[..],
    };
    if pairs.chunks_exact(2).any(|pair| pair[0] == pair[1]) {
        contradiction.places.push(first);
    }
    contradiction
}

/// The first empty answer that no order allows.
///
/// *Condition.* An empty answer is impossible exactly where a run begins before it is called and ends after it returns (`runs`: first
/// `insert_ret`, last `take_call`).
///
/// *Why.* At the point of an empty answer `e` every value is either altogether before it or altogether after it, and so are other empty
/// answers. Say a -> b where some operation of `a` returned before some operation of `b` was called (an empty answer is its own only
/// operation). If a -> b and `b` is before `e`, so is `a`; `a -> e` puts `a` before `e`, `e -> b` puts `b` after it. So a cycle through `e`
/// is impossible to order. With no cycle through any empty answer, the strongly connected components, each a single empty answer or some
/// values, can be sorted by ->; each component of values is ordered by itself, begins and ends empty, and the orders are put one after the
/// other: the whole history is legal if and only if each component is, and empty answers add nothing else. An operation of `a` returned
/// before one of `b` was called: `first_ret(a) < last_call(b)`, and on a cycle through `e` other empty answers can be left out (`x -> e' ->
/// y` gives `x -> y`, since `e'` was called no later than it returned). Values whose `last_call <= first_ret` can be left out in the same
/// way. For the others `first_ret = insert_ret` and `last_call = take_call`, because a take never returned before its insert was called
/// (checked before): they are the held ones. A cycle through `e` is thus held values with `insert_ret(x1) < call(e)`, each next one with
/// `insert_ret < take_call` of one before, and at last a `take_call > ret(e)`: one run around `e`.
pub fn impossible_empty(operations: &[Operation], held: &[Item], runs: &[(usize, usize, i64)], empties: &[u32]) -> Option<Contradiction> {
    empties.iter().find_map(|&place| {
        let Operation { call, ret, .. } = operations[place as usize];
        let after = runs.partition_point(|&(first, ..)| held[first].insert_ret < call);
        let &(first, end, until) = runs.get(after.checked_sub(1)?)?;
        (ret < until).then(|| {
            let run = &held[first..end];
            // From the first that is inside when the answer was asked for: nothing earlier is needed.
            let chain = cover(run, call, ret);
            Contradiction { rule: Rule::NeverEmpty, places: [place].into_iter().chain(roles(&chain)).collect() }
        })
    })
}
