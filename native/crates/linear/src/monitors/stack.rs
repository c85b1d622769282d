//! A last-in, first-out stack whose values are distinct.

use super::contents::{Contents, Item, contents, cover, held, impossible_empty, roles, runs, with_lost};
use super::trees::{Covered, Greatest};
use super::{Answer, Contradiction, Operation, Rule};

/// Whether pushes, pops and empty answers can be put into an order in which each pop takes the youngest value.
///
/// *Condition, where every pop was answered.* Every value was pushed once, popped at most once, and no pop returned before its push was
/// called; no empty answer is impossible; and the held values (`contents`) can be taken away one by one as follows. They fall into runs
/// that overlap in time without a break. In a run that begins at F (the first return of a push) and ends at S (the last call of a pop), a
/// value may lie at the *bottom* where `push_call <= F` and `pop_ret >= S`. Take one away; what is left of the run falls into runs again. A
/// run without a possible bottom is illegal. (The idea of taking away values that preserve the answer is Lee and Mathur's, 2025.)
///
/// *Why.* By `contents` each strongly connected component of values can be judged by itself. One with two values or more is never empty
/// between its first and last operation in a legal order: an empty point would part it into two sets without an arrow back. So its order is
/// one bracket: some value is pushed first and popped last. Nothing of the component returned before that push was called, and nothing of
/// it was called after that pop returned. The earliest return is F and the latest call S: both belong to held values, and the values not
/// held lie between. Conversely, put such a value around any legal order of the others: legal; and a legal order of all is one of the
/// others when the value leaves it. Hence any possible bottom will do. A value that is not held changes no F, no S and no run, so it can be
/// left out from the start; a component of one value is legal.
///
/// *Cost.* A value becomes possible by its push once F has come up to `push_call`, and stays so: F only grows and S only falls in what is
/// left of a run. Trees over the values in order of their pushes' returns answer: who became possible, who of them pops last, when the run
/// ends, and where it broke. Each value enters and leaves each once: n log n.
///
/// *Pops that nobody saw answered.* Legal without them is legal. Illegal even where the earliest of them may take each value that nobody
/// was seen to pop is illegal. In between: declined.
pub fn stack(operations: &[Operation], values: usize) -> Answer {
    let Contents { mut items, empties, lost } = match contents(operations, values) {
        Ok(contents) => contents,
        Err(answer) => return answer,
    };
    let plain = decide(operations, &items, &empties);
    let Some(&first) = lost.first() else { return plain };
    if plain == Answer::Legal {
        return plain;
    }
    for item in items.iter_mut().filter(|item| item.take == item.insert) {
        item.take_call = operations[first as usize].call;
    }
    match decide(operations, &items, &empties) {
        Answer::Legal => Answer::Declined("a pop that nobody saw answered may have taken one of several values"),
        Answer::Illegal(contradiction) => Answer::Illegal(with_lost(contradiction, first)),
        declined => declined,
    }
}

fn decide(operations: &[Operation], items: &[Item], empties: &[u32]) -> Answer {
    let held = held(items);
    let runs = runs(&held);
    if let Some(contradiction) = impossible_empty(operations, &held, &runs, empties) {
        return Answer::Illegal(contradiction);
    }
    for &(first, end, _) in &runs {
        if let Some(contradiction) = bottomless(&held[first..end]) {
            return Answer::Illegal(contradiction);
        }
    }
    Answer::Legal
}

/// The part of a run that is left when bottoms are taken away until one has none; none where all could be taken. `run` is sorted by
/// `insert_ret`.
fn bottomless(run: &[Item]) -> Option<Contradiction> {
    // By itself, a value is its own bottom. The most frequent case.
    if run.len() == 1 {
        return None;
    }
    // A value covers the places after its own up to the last whose push returned before its pop was called: the run breaks before a place
    // that nothing covers.
    let ends: Vec<usize> = run.iter().map(|x| run.partition_point(|y| y.insert_ret < x.take_call)).collect();
    let mut counts = vec![0; run.len() + 1];
    for (place, &end) in ends.iter().enumerate() {
        counts[place + 1] += 1;
        counts[end.max(place + 1)] -= 1;
    }
    let mut sum = 0;
    for count in &mut counts {
        sum += *count;
        *count = sum;
    }
    let mut covered = Covered::new(&counts[..run.len()]);
    // Not yet possible by their push: the least push_call is the greatest of the complements.
    let mut waiting = Greatest::new(run.iter().map(|x| !x.insert_call));
    let mut possible = Greatest::new(run.iter().map(|_| i64::MIN));
    let mut ending = Greatest::new(run.iter().map(|x| x.take_call));
    let mut left: Vec<bool> = vec![true; run.len()];
    let mut open = vec![(0, run.len())];
    let mut bare = Vec::new();
    while let Some((mut first, end)) = open.pop() {
        while first < end && !left[first] {
            first += 1;
        }
        let Some((until, _)) = ending.greatest(first, end).filter(|_| first < end) else { continue };
        let begin = run[first].insert_ret;
        while let Some((_, place)) = waiting.greatest(first, end).filter(|&(complement, _)| !complement <= begin) {
            waiting.set(place, i64::MIN);
            possible.set(place, run[place].take_ret);
        }
        let Some((_, bottom)) = possible.greatest(first, end).filter(|&(take_ret, _)| take_ret >= until) else {
            let rest: Vec<Item> = (first..end).filter(|&place| left[place]).map(|place| run[place]).collect();
            let chain = cover(&rest, begin + 1, until - 1);
            return Some(Contradiction { rule: Rule::NoBottom, places: roles(&chain).collect() });
        };
        left[bottom] = false;
        possible.set(bottom, i64::MIN);
        ending.set(bottom, i64::MIN);
        bare.clear();
        covered.leave(bottom + 1, ends[bottom].max(bottom + 1), &mut bare);
        let mut high = end;
        for &cut in bare.iter().rev() {
            open.push((cut, high));
            high = cut;
        }
        open.push((first, high));
    }
    None
}
