//! Real time along the revision order: when each revision can first and must last have been made. The rules, and why they are right, are in
//! `src/pekan/checkers/kv/timing.py`.
//!
//! ```text
//! T = earliest possible "now", carried up the order:   earliest[r] = T when r is made;   T > some return: not in order
//! latest[r] = the lowest return of everything at or after r, and of every proof that r or a later one existed
//! ```

use pekan_history::NEVER;

use crate::case::Ops;
use crate::collect::Buckets;
use crate::machine::Table;
use crate::problem::Clash;

/// Later than every time stamp in ns; its negative is earlier.
pub const ALWAYS: i64 = 1 << 62;

type Set = hashbrown::HashSet<u32, foldhash::fast::FixedState>;

/// `op`, of `revision`, was called after revision `above` or a later one had been shown.
#[derive(Clone, Copy, Debug)]
pub struct Outrun {
    /// The operation.
    pub op: u32,
    /// Its revision.
    pub revision: i64,
    /// What had been shown.
    pub above: i64,
}

/// Times in ns for revisions first..last.
#[derive(Clone, Debug)]
pub struct Timing {
    /// The first revision.
    pub first: i64,
    /// The last revision; below `first` where there is none.
    pub last: i64,
    /// By revision - first.
    pub earliest: Vec<i64>,
    /// By revision - first.
    pub latest: Vec<i64>,
    /// The real-time violations.
    pub clashes: Vec<Clash>,
    /// Whether all times are of one clock.
    pub real_time: bool,
    /// Exact operations that are older than what an inexact answer or a delivery had shown before their call.
    pub outrun: Vec<Outrun>,
}

impl Timing {
    #[inline]
    fn index(&self, revision: i64) -> Option<usize> {
        if self.first <= revision && revision <= self.last { usize::try_from(revision - self.first).ok() } else { None }
    }

    /// When `revision` can first have been made; before every time stamp for what was there from the start.
    #[inline]
    pub fn earliest_of(&self, revision: i64) -> i64 {
        self.index(revision).map_or(-ALWAYS, |at| self.earliest[at])
    }

    /// By when `revision` must have been made; later than every time stamp where nothing proves it.
    #[inline]
    pub fn latest_of(&self, revision: i64) -> i64 {
        self.index(revision).map_or(ALWAYS, |at| self.latest[at])
    }

    /// The lowest and the highest revision that can have been the present one between `call` and `ret` (ns).
    pub fn present_between(&self, call: i64, ret: i64) -> (i64, i64) {
        let count = |length: usize| i64::try_from(length).unwrap_or(i64::MAX);
        let lowest = self.first - 1 + count(self.latest.partition_point(|&time| time < call));
        let highest = self.first - 1 + count(self.earliest.partition_point(|&time| time <= ret));
        (lowest.min(highest), highest)
    }
}

/// When each revision was first delivered (ns): what timing needs of the watches.
pub trait FirstSeen {
    /// When `revision` was first delivered, None where it was not.
    fn first_seen(&self, revision: i64) -> Option<i64>;
}

/// Times over revisions first..last.
pub fn time_of(b: &Buckets<'_>, seen: &dyn FirstSeen, first: i64, last: i64, real_time: bool) -> Timing {
    let size = usize::try_from(last - first + 1).unwrap_or(0);
    if !real_time {
        return Timing {
            first,
            last,
            earliest: vec![-ALWAYS; size],
            latest: vec![ALWAYS; size],
            clashes: program_order(b),
            real_time: false,
            outrun: Vec::new(),
        };
    }
    let work = Work { b, ops: b.ops, seen, first, last, size };
    let soonest = work.soonest();
    let mut clashes = Vec::new();
    let mut blamed = Set::default();
    let mut timing = match work.pass(&soonest, &blamed) {
        Some(timing) => timing,
        None => {
            (clashes, blamed) = blame(b);
            // What is left after setting the blamed aside is in order.
            work.pass(&soonest, &blamed).unwrap_or_else(|| work.nothing_known())
        }
    };
    if timing.earliest.iter().zip(&soonest).any(|(earliest, soonest)| earliest > soonest) {
        let mut early = 0;
        work.each_proof(|revision, when| early += usize::from(timing.earliest_of(revision) > when));
        // Either these proofs speak of revisions before they can have been, or the exact operations behind them are too old.
        let proven = work.proven(&timing.earliest, false);
        let older: Vec<Outrun> = outrun(b, &timing, &proven).into_iter().filter(|found| !blamed.contains(&found.op)).collect();
        if older.len() <= early {
            blamed.extend(older.iter().map(|found| found.op));
            // Fewer operations that are in order are in order.
            timing = work.pass(&soonest, &blamed).unwrap_or_else(|| work.nothing_known());
            timing.outrun = older;
        }
    }
    timing.clashes = clashes;
    timing
}

struct Work<'b, 'a> {
    b: &'b Buckets<'a>,
    ops: Ops<'a>,
    seen: &'b dyn FirstSeen,
    first: i64,
    last: i64,
    size: usize,
}

impl Work<'_, '_> {
    fn nothing_known(&self) -> Timing {
        Timing {
            first: self.first,
            last: self.last,
            earliest: vec![-ALWAYS; self.size],
            latest: vec![ALWAYS; self.size],
            clashes: Vec::new(),
            real_time: true,
            outrun: Vec::new(),
        }
    }

    /// The times without the operations `aside`; None where the rest is not in order.
    fn pass(&self, soonest: &[i64], aside: &Set) -> Option<Timing> {
        let Work { b, ops, first, last, .. } = *self;
        let mut earliest = vec![-ALWAYS; self.size];
        let mut latest = vec![ALWAYS; self.size];
        let mut calls: Table<i64, i64> = Table::default();
        for &(revision, op) in &b.future {
            if revision >= first && !aside.contains(&op) {
                // "q is in the future" was said before q was made, and before everything above it.
                let call = calls.entry(revision).or_insert(-ALWAYS);
                *call = ops.call(op).max(*call);
            }
        }
        let mut now = -ALWAYS;
        // The state before `first` was there from the start, and may have been read.
        for revision in first - 1..=last {
            if !calls.is_empty()
                && let Some(&call) = calls.get(&revision)
            {
                now = now.max(call);
            }
            let mut lowest = ALWAYS;
            if let Some(write) = b.write(revision)
                && (aside.is_empty() || !aside.contains(&write))
            {
                let ret = ops.ret(write);
                now = now.max(ops.call(write));
                if ret != NEVER {
                    if now > ret {
                        return None;
                    }
                    lowest = ret;
                }
            }
            let at = usize::try_from(revision - first).ok();
            if let Some(at) = at {
                earliest[at] = now;
            }
            let mut after = now;
            let revokes = if b.revokes.is_empty() { None } else { b.revokes.get(&revision) };
            for &op in b.readers.get(revision).iter().chain(revokes.into_iter().flatten()) {
                if !aside.is_empty() && aside.contains(&op) {
                    continue;
                }
                let ret = ops.ret(op);
                if ret != NEVER {
                    if now > ret {
                        return None;
                    }
                    lowest = lowest.min(ret);
                }
                after = after.max(ops.call(op));
            }
            now = after;
            if let Some(at) = at {
                latest[at] = lowest;
            }
        }
        let proven;
        let soonest = if earliest.iter().zip(soonest).any(|(earliest, soonest)| earliest > soonest) {
            // A proof from before its revision can have been proves nothing; another one of the same revision may.
            proven = self.proven(&earliest, true);
            &proven[..]
        } else {
            soonest
        };
        for (latest, &soonest) in latest.iter_mut().zip(soonest) {
            *latest = soonest.min(*latest);
        }
        carry_down(&mut latest);
        Some(Timing { first, last, earliest, latest, clashes: Vec::new(), real_time: true, outrun: Vec::new() })
    }

    /// By when each of first..last is first proven to have existed by an inexact answer or a delivery.
    fn soonest(&self) -> Vec<i64> {
        let mut soonest = vec![ALWAYS; self.size];
        self.each_proof(|revision, when| {
            if let Ok(at) = usize::try_from(revision - self.first) {
                soonest[at] = when.min(soonest[at]);
            }
        });
        soonest
    }

    /// Calls `each` with (revision, ns by which it existed) of every inexact answer and delivery.
    fn each_proof(&self, mut each: impl FnMut(i64, i64)) {
        for &(revision, op) in &self.b.existed {
            let ret = self.ops.ret(op);
            if self.first <= revision && revision <= self.last && ret != NEVER {
                each(revision, ret);
            }
        }
        for revision in self.first..=self.last {
            if let Some(time) = self.seen.first_seen(revision) {
                each(revision, time);
            }
        }
    }

    /// By when proofs show each revision, or a higher one; `only_possible`: without those from before it can have been.
    fn proven(&self, earliest: &[i64], only_possible: bool) -> Vec<i64> {
        let mut proven = vec![ALWAYS; self.size];
        self.each_proof(|revision, when| {
            if let Ok(at) = usize::try_from(revision - self.first)
                && when < proven[at]
                && !(only_possible && earliest[at] > when)
            {
                proven[at] = when;
            }
        });
        carry_down(&mut proven);
        proven
    }
}

/// Lowers each to the lowest of all after it.
fn carry_down(times: &mut [i64]) {
    let mut lowest = ALWAYS;
    for time in times.iter_mut().rev() {
        lowest = lowest.min(*time);
        *time = lowest;
    }
}

/// Exact operations that are older than what a proof had shown before their call.
fn outrun(b: &Buckets<'_>, timing: &Timing, proven: &[i64]) -> Vec<Outrun> {
    let mut found = Vec::new();
    for (place, op) in placed(b) {
        // A write at 2r is held against proofs of r, what saw r against those of r + 1.
        let above = (place + 1).div_euclid(2);
        if let Some(at) = timing.index(above)
            && b.ops.call(op) > proven[at]
        {
            found.push(Outrun { op, revision: place.div_euclid(2), above });
        }
    }
    found
}

/// Every exact operation with its place, in order: the write of r at 2r, what saw r at 2r + 1.
fn placed(b: &Buckets<'_>) -> Vec<(i64, u32)> {
    let mut placed: Vec<(i64, u32)> = b.writes().map(|(r, op)| (2 * r, op)).collect();
    placed.extend(b.readers.iter().flat_map(|(r, ops)| ops.iter().map(move |&op| (2 * r + 1, op))));
    placed.extend(b.revokes.iter().flat_map(|(&r, ops)| ops.iter().map(move |&op| (2 * r + 1, op))));
    placed.extend(b.future.iter().map(|&(q, op)| (2 * q - 1, op)));
    placed.sort_by_key(|&(place, _)| place);
    placed
}

fn futures(b: &Buckets<'_>) -> Set {
    b.future.iter().map(|&(_, op)| op).collect()
}

/// The clashes by the cheaper way of blaming, one for each blamed operation, and the blamed.
fn blame(b: &Buckets<'_>) -> (Vec<Clash>, Set) {
    let (placed, futures, ops) = (placed(b), futures(b), b.ops);
    let clash = |late: (i64, u32), early: (i64, u32)| Clash {
        late: late.1,
        late_place: late.0,
        early: early.1,
        early_place: early.0,
        future: futures.contains(&late.1),
    };
    let groups: Vec<&[(i64, u32)]> = placed.chunk_by(|one, other| one.0 == other.0).collect();
    let mut late = Vec::new();
    let mut first_return: Option<(i64, (i64, u32))> = None;
    for group in groups.iter().rev() {
        for &(place, op) in *group {
            if let Some((ret, early)) = first_return
                && ops.call(op) > ret
            {
                late.push(clash((place, op), early));
            }
        }
        for &(place, op) in *group {
            // A refusal has no place of its own that anything must come after: it was merely before its revision.
            let ret = ops.ret(op);
            if ret != NEVER && !futures.contains(&op) && first_return.is_none_or(|(first, _)| ret < first) {
                first_return = Some((ret, (place, op)));
            }
        }
    }
    let mut early = Vec::new();
    let mut last_call: Option<(i64, (i64, u32))> = None;
    for group in &groups {
        for &(place, op) in *group {
            let ret = ops.ret(op);
            if let Some((call, late)) = last_call
                && ret != NEVER
                && ret < call
                && !futures.contains(&op)
            {
                early.push(clash(late, (place, op)));
            }
        }
        for &(place, op) in *group {
            let call = ops.call(op);
            if last_call.is_none_or(|(last, _)| call > last) {
                last_call = Some((call, (place, op)));
            }
        }
    }
    if late.len() <= early.len() {
        let blamed = late.iter().map(|clash| clash.late).collect();
        (late, blamed)
    } else {
        let blamed = early.iter().map(|clash| clash.early).collect();
        (early, blamed)
    }
}

/// Operations of one process that took place in another order than they were issued.
fn program_order(b: &Buckets<'_>) -> Vec<Clash> {
    let (mut placed, futures, ops) = (placed(b), futures(b), b.ops);
    placed.sort_by_key(|&(_, op)| (ops.get(op).process, ops.call(op)));
    let mut found = Vec::new();
    let mut highest: Option<(u64, i64, u32)> = None;
    for (place, op) in placed {
        let process = ops.get(op).process;
        match highest.filter(|&(of, ..)| of == process) {
            Some((_, known, early)) if place < known => {
                found.push(Clash { late: op, late_place: place, early, early_place: known, future: futures.contains(&op) });
            }
            known if known.is_none_or(|(_, known, _)| place > known) && !futures.contains(&op) => highest = Some((process, place, op)),
            _ => {}
        }
    }
    found
}
