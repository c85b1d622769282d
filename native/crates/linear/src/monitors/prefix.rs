//! How far an illegal history can be put in order.

use super::{Act, Answer, NEVER, Operation};

/// The longest prefix of a history that a monitor calls legal. A prefix is the history as it was at some instant: what was answered by
/// then, and what was called and not answered counts as unanswered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// How many operations were answered in it.
    pub answered: u32,
    /// The place of the operation whose answer ends it: with that one it is illegal, or the monitor declines to say.
    pub next: u32,
}

/// Looks for it by halving: a prefix of a legal history is legal. `places` are the operations of a contradiction, with whose answers it is
/// illegal at the latest; `unseen` tells whether a take without an answer may have had an effect (queue, stack) or is to be left out
/// (register, set); `answer` is the monitor.
pub fn prefix(operations: &[Operation], places: &[u32], unseen: bool, answer: impl Fn(&[Operation]) -> Answer) -> Option<Prefix> {
    let told = |o: &Operation| o.ret != NEVER && o.act != Act::Refused;
    let mut times: Vec<i64> = operations.iter().filter(|o| told(o)).map(|o| o.ret).collect();
    times.sort_unstable();
    times.dedup();
    let at = |until: i64| -> Answer {
        let seen = operations.iter().filter(|o| o.call <= until).filter_map(|&o| match o.act {
            _ if o.ret <= until || o.act == Act::Refused => Some(o),
            Act::Insert => Some(Operation { ret: NEVER, ..o }),
            _ => unseen.then_some(Operation { ret: NEVER, act: Act::Lost, ..o }),
        });
        answer(&seen.collect::<Vec<_>>())
    };
    let last = places.iter().map(|&place| &operations[place as usize]).filter(|o| told(o)).map(|o| o.ret).max()?;
    // Legal before `low`, not legal from `high` on.
    let (mut low, mut high) = (0, times.partition_point(|&time| time < last));
    while low < high {
        let middle = low.midpoint(high);
        match at(times[middle]) {
            Answer::Legal => low = middle + 1,
            Answer::Illegal(_) | Answer::Declined(_) => high = middle,
        }
    }
    let &ends = times.get(high)?;
    let answered = operations.iter().filter(|o| told(o) && o.ret < ends).count() as u32;
    let next = operations.iter().position(|o| told(o) && o.ret == ends)? as u32;
    Some(Prefix { answered, next })
}
