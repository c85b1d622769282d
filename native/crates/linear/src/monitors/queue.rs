//! A first-in, first-out queue whose values are distinct.

use super::contents::{Contents, Item, contents, held, impossible_empty, runs, with_lost};
use super::{Answer, Contradiction, NEVER, Operation, Rule};

/// Whether enqueues, dequeues and empty answers can be put into an order in which each dequeue takes the oldest value.
///
/// *Condition, where every dequeue was answered.* Every value was inserted once, taken at most once, and no take returned before its insert
/// was called; there are no values x and y with `insert_ret(x) < insert_call(y)` and `take_ret(y) < take_call(x)` (Henzinger, Sezgin,
/// Vafeiadis 2013); and no empty answer is impossible (`contents`).
///
/// *Necessary.* x goes in before y, so it comes out before y.
///
/// *Sufficient.* By `contents` it is enough to order values without empty answers. Write x -> y where insert x returned before insert y was
/// called (I), take x before take y (T), or take x before insert y (B). Of a shortest cycle, two arrows in a row can be made one, for a
/// take never returns before its insert is called: II is I, TT is T, BI, TB, BB, BT are B or T, and IB is I: `insert_ret(x) <
/// insert_call(y) <= take_ret(y) < insert_call(z)`. So I and T alternate, and B is in none (B alone would need a take before its own
/// insert). Two arrows: the forbidden pair. More: I x1 -> x2, T x2 -> x3, I x3 -> x4, and so on; of two intervals each before another,
/// insert x1 is before insert x4 or insert x3 is before insert x2: the second is a forbidden pair with T x2 -> x3, the first a shorter
/// cycle. So the values can be sorted by ->. Insert them in that order, take them in that order, merge: an insert before its take, and
/// everything after what returned before its call. The merge could only fail on a cycle of such demands, and every demand from a take to an
/// insert, `take x` before `insert y`, gives x before y in the order, while a demand from an insert to a take, `insert z` before `take w`
/// with w before z in the order, together with it gives `take x` before `take w` or `insert z` before `insert y`: round the cycle, values
/// only grow in the order.
///
/// *Takes that nobody saw answered.* Each takes one of the values that nobody was seen to take, at any time from its call, or nothing.
/// Legal without them is legal. If it is illegal even where the earliest of them may take each of these values, it is illegal. In between,
/// without empty answers, such a value x must be taken no later than the first `take_ret(y)` of the y that were inserted after it; which
/// one takes it changes nothing else, since none of them ever returned: the values in order of that time, each with the earliest unused, is
/// the best choice (and that the takes are then left in the order of the values costs nothing: each may happen later than its call). With
/// empty answers as well: declined.
pub fn queue(operations: &[Operation], values: usize) -> Answer {
    let Contents { mut items, empties, lost } = match contents(operations, values) {
        Ok(contents) => contents,
        Err(answer) => return answer,
    };
    let plain = decide(operations, &items, &empties);
    let Some(&first) = lost.first() else { return plain };
    if plain == Answer::Legal {
        return plain;
    }
    let limits = limits(&items);
    for item in items.iter_mut().filter(|item| item.take == item.insert) {
        item.take_call = operations[first as usize].call;
    }
    match decide(operations, &items, &empties) {
        Answer::Legal if empties.is_empty() => stuck(operations, &limits, &lost),
        Answer::Legal => Answer::Declined("a dequeue that nobody saw answered, and answers that the queue was empty"),
        Answer::Illegal(contradiction) => Answer::Illegal(with_lost(contradiction, first)),
        declined => declined,
    }
}

/// The answer by the condition alone.
fn decide(operations: &[Operation], items: &[Item], empties: &[u32]) -> Answer {
    if let Some((x, y)) = overtaken(items) {
        return Answer::illegal(Rule::Overtaken, &[x.insert, x.take, y.insert, y.take]);
    }
    let held = held(items);
    match impossible_empty(operations, &held, &runs(&held), empties) {
        Some(contradiction) => Answer::Illegal(contradiction),
        None => Answer::Legal,
    }
}

/// Items in order of the return of their insert.
fn by_return(items: &[Item]) -> Vec<&Item> {
    let mut sorted: Vec<&Item> = items.iter().filter(|item| item.insert_ret != NEVER).collect();
    sorted.sort_unstable_by_key(|item| (item.insert_ret, item.insert));
    sorted
}

/// Items in order of the call of their insert.
fn by_call(items: &[Item]) -> Vec<&Item> {
    let mut sorted: Vec<&Item> = items.iter().collect();
    sorted.sort_by_key(|item| (item.insert_call, item.insert));
    sorted
}

/// The first pair that came out against its order: (earlier in, later in).
fn overtaken(items: &[Item]) -> Option<(&Item, &Item)> {
    let sorted = by_return(items);
    let mut before = sorted.iter().peekable();
    let mut latest: Option<&Item> = None;
    for y in by_call(items) {
        while let Some(x) = before.next_if(|x| x.insert_ret < y.insert_call) {
            if latest.is_none_or(|latest| x.take_call > latest.take_call) {
                latest = Some(x);
            }
        }
        if let Some(x) = latest.filter(|x| y.take_ret < x.take_call) {
            return Some((x, y));
        }
    }
    None
}

/// Of each item that nobody was seen to take: when it must have been taken, and because of whom; those that need not be left out, the most
/// urgent first.
fn limits<'a>(items: &'a [Item]) -> Vec<(i64, u32, [u32; 2])> {
    let sorted = by_call(items);
    // The earliest return of a take among those inserted from here on.
    let mut soonest: Vec<&'a Item> = sorted.clone();
    for number in (1..soonest.len()).rev() {
        if soonest[number].take_ret < soonest[number - 1].take_ret {
            soonest[number - 1] = soonest[number];
        }
    }
    let mut limits: Vec<_> = items
        .iter()
        .filter(|item| item.take == item.insert)
        .filter_map(|x| {
            let y = soonest.get(sorted.partition_point(|y| y.insert_call <= x.insert_ret))?;
            (y.take_ret != NEVER).then_some((y.take_ret, x.insert, [y.insert, y.take]))
        })
        .collect();
    limits.sort_unstable();
    limits
}

/// Gives each value, the most urgent first, the earliest take that is left.
fn stuck(operations: &[Operation], limits: &[(i64, u32, [u32; 2])], lost: &[u32]) -> Answer {
    for (number, &(limit, ..)) in limits.iter().enumerate() {
        if lost.get(number).is_none_or(|&place| operations[place as usize].call > limit) {
            let values = limits[..=number].iter().flat_map(|&(_, x, [y, take])| [x, y, take]);
            return Answer::Illegal(Contradiction { rule: Rule::Stuck, places: values.chain(lost[..number].iter().copied()).collect() });
        }
    }
    Answer::Legal
}
