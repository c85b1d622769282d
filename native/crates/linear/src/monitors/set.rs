//! A set that only grows, its elements distinct, read as a whole.

use super::{Act, Answer, NEVER, Operation, REPEATED, Rule};

/// A read of the whole set: which of the `shown` it saw. Its elements are sorted and distinct.
#[derive(Clone, Copy, Debug)]
pub struct Read {
    /// When it was called.
    pub call: i64,
    /// When it returned.
    pub ret: i64,
    /// Number of what it saw.
    pub shown: u32,
    /// Its place among all operations.
    pub place: u32,
}

const NOBODY: u32 = u32::MAX;
const SEVERAL: u32 = u32::MAX - 1;

/// One operation at its level.
#[derive(Clone, Copy)]
struct Leveled {
    call: i64,
    ret: i64,
    level: u32,
    place: u32,
}

/// Whether adds ([`Act::Insert`]) and reads can be put into an order in which every read shows exactly what was added before it. `reads`
/// come in order of their places, `shown` are sorted, and `values` counts the elements.
///
/// *Condition.* Every element that a read shows was added by one operation, and is shown once. What reads show forms a chain S1 < S2 < ...
/// < Sm by inclusion. Give a read of Sj the level 2j, an add the level 2j - 1 where Sj is the first that shows its element, and an
/// acknowledged add whose element nobody saw the level 2m + 1. No operation returned before one of a lower level was called.
///
/// *Necessary.* A set that only grows shows a chain. An add is after the reads that do not show its element and before those that do.
///
/// *Sufficient.* Sort by level, within a level by call: real time is kept, since nothing returned before something sorted earlier was
/// called. Each read sees the adds of lower levels, which are its elements. An indefinite add that nobody saw is left out.
pub fn set(operations: &[Operation], reads: &[Read], shown: &[&[u32]], values: usize) -> Answer {
    let mut added = vec![NOBODY; values];
    for (place, operation) in (0..).zip(operations).filter(|(_, o)| o.act == Act::Insert) {
        let known = &mut added[operation.value as usize];
        *known = if *known == NOBODY { place } else { SEVERAL };
    }
    // Of each that was shown, the first read that shows it.
    let mut seer: Vec<Option<&Read>> = vec![None; shown.len()];
    for read in reads {
        seer[read.shown as usize].get_or_insert(read);
    }
    let mut chain: Vec<(usize, &Read, &[u32])> =
        seer.iter().zip(shown).filter_map(|(read, &elements)| read.map(|read| (elements.len(), read, elements))).collect();
    chain.sort_unstable_by_key(|&(length, read, _)| (length, read.place));
    let mut levels = vec![0; operations.len()];
    let mut found: Option<Answer> = None;
    for (level, &(_, read, elements)) in (1..).step_by(2).zip(&chain) {
        for &element in elements {
            match added[element as usize] {
                SEVERAL => return Answer::Declined(REPEATED),
                NOBODY => {
                    found.get_or_insert_with(|| {
                        let is_unknown = |value: u32| added[value as usize] == NOBODY && elements.binary_search(&value).is_ok();
                        let refused =
                            (0..).zip(operations).find(|(_, o)| o.act == Act::Refused && is_unknown(o.value)).map(|(place, _)| place);
                        Answer::illegal(Rule::Unknown, &[read.place].into_iter().chain(refused).collect::<Vec<u32>>())
                    });
                }
                place if levels[place as usize] == 0 => levels[place as usize] = level,
                _ => {}
            }
        }
        if elements.windows(2).any(|pair| pair[0] == pair[1]) {
            found.get_or_insert_with(|| Answer::illegal(Rule::Doubled, &[read.place]));
        }
    }
    if let Some(answer) = found {
        return answer;
    }
    if let Some(pair) = chain.windows(2).find(|pair| !includes(pair[1].2, pair[0].2)) {
        return Answer::illegal(Rule::Incomparable, &[pair[0].1.place, pair[1].1.place]);
    }
    let mut all = Vec::with_capacity(operations.len() + reads.len());
    let mut level_of = vec![0; shown.len()];
    for (level, &(_, read, _)) in (2..).step_by(2).zip(&chain) {
        level_of[read.shown as usize] = level;
    }
    all.extend(reads.iter().map(|read| Leveled {
        call: read.call,
        ret: read.ret,
        level: level_of[read.shown as usize],
        place: read.place,
    }));
    let unseen = 2 * chain.len() as u32 + 1;
    for (place, (operation, &level)) in (0..).zip(operations.iter().zip(&levels)).filter(|(_, (o, _))| o.act == Act::Insert) {
        if level > 0 || operation.ret != NEVER {
            all.push(Leveled { call: operation.call, ret: operation.ret, level: if level > 0 { level } else { unseen }, place });
        }
    }
    match backwards(all) {
        None => Answer::Legal,
        Some((a, b)) => match (a.level % 2 == 0, b.level % 2 == 0) {
            (_, true) => Answer::illegal(Rule::Missing, &[a.place, b.place]),
            (true, false) => Answer::illegal(Rule::Early, &[a.place, b.place]),
            (false, false) => Answer::illegal(Rule::Skipped, &[a.place, b.place, chain[b.level as usize / 2].1.place]),
        },
    }
}

/// The first operation, by call, that was called after one of a higher level had returned: (that one, it).
fn backwards(mut all: Vec<Leveled>) -> Option<(Leveled, Leveled)> {
    let mut returned = all.clone();
    returned.sort_unstable_by_key(|o| (o.ret, o.place));
    all.sort_unstable_by_key(|o| (o.call, o.place));
    let mut returned = returned.into_iter().peekable();
    let mut highest: Option<Leveled> = None;
    for b in all {
        while let Some(a) = returned.next_if(|a| a.ret < b.call) {
            if highest.is_none_or(|highest| a.level > highest.level) {
                highest = Some(a);
            }
        }
        if let Some(a) = highest.filter(|a| a.level > b.level) {
            return Some((a, b));
        }
    }
    None
}

/// Whether sorted `large` has all of sorted `small`.
fn includes(large: &[u32], small: &[u32]) -> bool {
    let mut rest = large.iter();
    small.iter().all(|element| rest.any(|other| other == element))
}
