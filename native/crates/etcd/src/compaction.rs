//! Compactions: a second order, by compacted revision, beside the order of revisions. The picture and the rules are in
//! `src/pekan/checkers/kv/compaction.py`.

use pekan_history::{Kind, NEVER};
use pekan_wire::RangeRequest;

use crate::collect::{Buckets, Compaction};
use crate::problem::{OutOfOrder, Problem, Touched, What};
use crate::request::{Asked, Declined, is_compares_only, is_local};
use crate::timing::{ALWAYS, Timing};

/// A compaction and the earliest time at which it can have happened.
#[derive(Clone, Copy)]
struct Done {
    revision: i64,
    earliest: i64,
    op: u32,
}

/// An answer that read at a named revision, and the earliest time at which it can have.
#[derive(Clone, Copy)]
struct OldRead {
    asked: i64,
    earliest: i64,
    op: u32,
}

/// Problems of the compaction order. `refusals`: also judge "compacted" answers, which needs every compaction to be recorded.
pub fn judge_compactions<'a>(b: &Buckets<'a>, timing: &Timing, refusals: bool) -> Result<Vec<Problem<'a>>, Declined> {
    let mut found = Vec::new();
    let mut answered: Vec<Compaction> = b.compactions.iter().copied().filter(|compaction| compaction.answered).collect();
    answered.sort_by_key(|compaction| (compaction.revision, b.ops.call(compaction.op)));
    let reads = if b.compactions.is_empty() { Vec::new() } else { old_reads(b, timing)? };
    let mut done: Vec<Done> = Vec::new();
    let (mut before, mut at) = (-ALWAYS, 0);
    let mut last_read = None;
    for Compaction { op, revision: q, .. } in answered {
        if let Some(last) = done.last()
            && last.revision == q
        {
            found.push(problem(q, What::CompactedTwice { first: last.op, second: op }));
            continue;
        }
        while let Some(read) = reads.get(at).filter(|read| read.asked < q) {
            if read.earliest > before {
                before = read.earliest;
                last_read = Some(read.op);
            }
            at += 1;
        }
        let earliest = before.max(b.ops.call(op)).max(timing.earliest_of(q));
        let ret = b.ops.ret(op);
        if timing.real_time && ret != NEVER && earliest > ret {
            let below = done.last().map(|last| last.op);
            found.push(problem(q, What::CompactedOutOfOrder { op, why: why(b, timing, q, op, last_read, below) }));
            continue;
        }
        before = before.max(earliest);
        done.push(Done { revision: q, earliest, op });
    }
    if refusals {
        unexplained(b, timing, &done, &reads, &mut found)?;
    }
    Ok(found)
}

fn problem(revision: i64, what: What<'_>) -> Problem<'_> {
    Problem { revision, what, touched: Touched::Everything }
}

fn why(b: &Buckets<'_>, timing: &Timing, q: i64, op: u32, read: Option<u32>, below: Option<u32>) -> OutOfOrder {
    let end = end(b, op);
    let later = |other: &u32| b.ops.call(*other) > end;
    if timing.earliest_of(q) > end {
        OutOfOrder::TooEarly
    } else if let Some(read) = read.filter(later) {
        OutOfOrder::ReadBelow(read)
    } else if let Some(below) = below.filter(later) {
        OutOfOrder::CompactedBelow(below)
    } else {
        OutOfOrder::ReadBelowByRevision(read)
    }
}

/// Every linearizable answer that read at a named revision, in order of that and of time.
fn old_reads(b: &Buckets<'_>, timing: &Timing) -> Result<Vec<OldRead>, Declined> {
    let mut found = Vec::with_capacity(b.named.len());
    for &(revision, op) in &b.named {
        let asked = RangeRequest::decode(b.ops.get(op).request)?.revision;
        found.push(OldRead { asked, earliest: timing.earliest_of(revision).max(b.ops.call(op)), op });
    }
    found.sort_by_key(|read| (read.asked, read.earliest));
    Ok(found)
}

/// The "compacted" answers that no compaction explains.
fn unexplained<'a>(
    b: &Buckets<'a>,
    timing: &Timing,
    done: &[Done],
    reads: &[OldRead],
    found: &mut Vec<Problem<'a>>,
) -> Result<(), Declined> {
    if b.compacted.is_empty() {
        return Ok(());
    }
    let mut possible = done.to_vec();
    possible.extend(unanswered(b, timing, done, reads));
    possible.sort_by_key(|each| each.revision);
    // The earliest of all at or above each place: a refusal asks for any of them.
    let mut soonest = vec![ALWAYS; possible.len() + 1];
    for index in (0..possible.len()).rev() {
        soonest[index] = soonest[index + 1].min(possible[index].earliest);
    }
    for &(q, op) in &b.compacted {
        let request = b.ops.request(op)?;
        let compaction = b.ops.get(op).kind == Kind::Compaction;
        let lowest = if compaction { q } else { q.saturating_add(1) };
        if lowest <= 0 && compaction {
            continue; // etcd begins with the compact revision -1 and refuses what is not above it.
        }
        let end = end(b, op);
        let explained = if is_local(&request) || matches!(&request, Asked::Txn(txn) if is_compares_only(txn)) {
            b.compactions.iter().any(|each| each.revision >= lowest && (!timing.real_time || b.ops.call(each.op) <= end))
        } else {
            soonest[possible.partition_point(|each| each.revision < lowest)] <= end
        };
        if !explained {
            found.push(problem(q, What::CompactedUnexplained { op }));
        }
    }
    Ok(())
}

fn end(b: &Buckets<'_>, op: u32) -> i64 {
    let ret = b.ops.ret(op);
    if ret == NEVER { ALWAYS - 1 } else { ret }
}

/// Compactions that may have happened, at the earliest time that the order leaves them.
fn unanswered(b: &Buckets<'_>, timing: &Timing, done: &[Done], reads: &[OldRead]) -> Vec<Done> {
    let read_by = running_max(reads.iter().map(|read| read.earliest));
    let done_by = running_max(done.iter().map(|each| each.earliest));
    // Nobody can have compacted a revision that even all unseen writes together would not reach.
    // (Revision 1 is there before any write, also where no answer shows it.)
    let reachable = if b.limit.is_none() {
        let unseen = b.pending.len() + b.grants.values().map(Vec::len).sum::<usize>();
        timing.last.max(timing.first - 1).saturating_add(i64::try_from(unseen).unwrap_or(i64::MAX))
    } else {
        ALWAYS
    };
    let by = |sums: &[i64], below: usize| if below > 0 { sums[below - 1] } else { -ALWAYS };
    let possible = b.compactions.iter().filter(|each| !each.answered && each.revision <= reachable);
    possible
        .map(|&Compaction { op, revision: q, .. }| {
            let read = by(&read_by, reads.partition_point(|read| read.asked < q));
            let compacted = by(&done_by, done.partition_point(|each| each.revision < q));
            Done { revision: q, earliest: b.ops.call(op).max(timing.earliest_of(q)).max(read).max(compacted), op }
        })
        .collect()
}

fn running_max(times: impl Iterator<Item = i64>) -> Vec<i64> {
    times
        .scan(-ALWAYS, |highest, time| {
            *highest = time.max(*highest);
            Some(*highest)
        })
        .collect()
}
