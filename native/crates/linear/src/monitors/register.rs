//! A register whose writes are distinct: zones.

use super::{Act, Answer, Contradiction, Operation, REPEATED, Rule};

const NOBODY: u32 = u32::MAX;
const SEVERAL: u32 = u32::MAX - 1;

/// A cluster: a write and the reads that saw it. It must hold the register alone from the first return to the last call among its
/// operations.
struct Cluster {
    /// The earliest return, and whose.
    first_ret: i64,
    first: u32,
    /// The latest call, and whose.
    last_call: i64,
    last: u32,
}

impl Cluster {
    fn include(&mut self, operation: &Operation, place: u32) {
        if operation.ret < self.first_ret {
            (self.first_ret, self.first) = (operation.ret, place);
        }
        if operation.call > self.last_call {
            (self.last_call, self.last) = (operation.call, place);
        }
    }
}

/// Whether reads and writes of one register can be put into an order in which every read sees the last write, or the untouched register
/// ([`Act::Empty`]) before any.
///
/// *Condition.* Every read sees a value that was written, by a write that was not called after the read returned; and no two clusters A and
/// B have `first_ret(A) < last_call(B)` and `first_ret(B) < last_call(A)`. The untouched register is a cluster whose write returned before
/// everything.
///
/// *Necessary.* In a legal order the operations of a cluster stand together but for reads of other values, which there cannot be: the
/// clusters are disjoint blocks. `first_ret(A) < last_call(B)` puts an operation of A before one of B, hence the block A before the block
/// B.
///
/// *Sufficient.* Say A -> B where `first_ret(A) < last_call(B)`. If this relation has a cycle, let B be the cluster with the latest
/// `last_call` in it and C the one after B: C's own arrow goes to something called no later than B's last call, so `first_ret(C) <
/// last_call(B)`, C -> B, and B -> C is a pair that the condition forbids. So clusters can be sorted by it. Put each down as a block, its
/// write first, then its reads in order of call: no read of it returned before the write was called, and an operation of an earlier block
/// called after one of a later block returned would be an arrow backwards.
///
/// *Pairs.* Where `first_ret < last_call` the cluster's zone is the open interval between the two ("forward"), else the closed interval
/// from call to return ("backward"). Two clusters contradict each other where two forward zones overlap, or a backward one lies inside a
/// forward one; two backward ones never do. Sorted forward zones overlap only if two neighbours do; and once they do not, the last that
/// begins before a backward zone is the one to look at.
///
/// An indefinite write that nobody saw has a backward zone that never ends, which no forward zone holds: it needs no case of its own. A
/// value written twice that nobody saw is two clusters.
pub fn register(operations: &[Operation], values: usize) -> Answer {
    let mut writer = vec![NOBODY; values];
    let mut clusters: Vec<Cluster> = Vec::new();
    let mut untouched: Option<(i64, u32)> = None;
    for (place, operation) in (0..).zip(operations) {
        if operation.act == Act::Insert {
            let known = &mut writer[operation.value as usize];
            *known = if *known == NOBODY { clusters.len() as u32 } else { SEVERAL };
            clusters.push(Cluster { first_ret: operation.ret, first: place, last_call: operation.call, last: place });
        }
    }
    let wrote: Vec<u32> = clusters.iter().map(|cluster| cluster.first).collect();
    let mut found = None;
    for (place, operation) in (0..).zip(operations) {
        match operation.act {
            Act::Take => match writer[operation.value as usize] {
                SEVERAL => return Answer::Declined(REPEATED),
                NOBODY => {
                    found.get_or_insert((Rule::Unknown, place, operation.value));
                }
                cluster => {
                    clusters[cluster as usize].include(operation, place);
                    if operation.ret < operations[wrote[cluster as usize] as usize].call {
                        found.get_or_insert((Rule::Early, place, wrote[cluster as usize]));
                    }
                }
            },
            Act::Empty if untouched.is_none_or(|(call, _)| operation.call > call) => untouched = Some((operation.call, place)),
            Act::Empty | Act::Insert | Act::Refused | Act::Lost => {}
        }
    }
    if let Some((rule, place, other)) = found {
        return Answer::Illegal(match rule {
            Rule::Early => Contradiction { rule, places: vec![place, other] },
            _ => super::contents::unknown(operations, place),
        });
    }
    if let Some((call, place)) = untouched {
        // The zone of the untouched register reaches from before everything to here: whatever returned earlier is inside it or overlaps it.
        if let Some(cluster) =
            clusters.iter().filter(|cluster| cluster.first_ret < call).min_by_key(|cluster| (cluster.first_ret, cluster.first))
        {
            return Answer::illegal(Rule::Untouched, &[cluster.first, place]);
        }
    }
    let mut forward: Vec<(i64, u32)> =
        (0..).zip(&clusters).filter(|(_, c)| c.first_ret < c.last_call).map(|(number, c)| (c.first_ret, number)).collect();
    forward.sort_unstable();
    let contradict = |a: u32, b: u32| {
        let (a, b) = (&clusters[a as usize], &clusters[b as usize]);
        Answer::illegal(Rule::Zones, &[a.first, b.last, b.first, a.last])
    };
    if let Some(pair) = forward.windows(2).find(|pair| clusters[pair[0].1 as usize].last_call > pair[1].0) {
        return contradict(pair[0].1, pair[1].1);
    }
    for (number, b) in (0..).zip(&clusters) {
        if b.last_call <= b.first_ret {
            let after = forward.partition_point(|&(begin, _)| begin < b.last_call);
            if after > 0 && clusters[forward[after - 1].1 as usize].last_call > b.first_ret {
                return contradict(forward[after - 1].1, number);
            }
        }
    }
    Answer::Legal
}
