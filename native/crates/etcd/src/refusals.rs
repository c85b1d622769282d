//! Refusals that state a fact: was there a moment at which it was true? The table of facts is in `src/pekan/checkers/kv/refusals.py`.

use std::rc::Rc;

use pekan_history::{NEVER, Outcome};
use pekan_wire::{LeaseGrant, Request, lease_revoke};

use crate::case::Circumstances;
use crate::collect::Buckets;
use crate::machine::{Path, Refusal, State, Table};
use crate::problem::{Problem, Touched, What};
use crate::request::{Asked, Declined, deletes, puts, ranges};
use crate::timing::Timing;

const SECOND: i64 = 1_000_000_000;

/// A refusal that can be of any state up to that of revision `highest`.
#[derive(Clone, Debug)]
struct Waiting<'a> {
    highest: i64,
    op: u32,
    request: Rc<Asked<'a>>,
    refusal: Refusal,
}

/// A time to live that was granted, if it was.
#[derive(Clone, Copy, Debug)]
struct Grant {
    call: i64,
    /// When the answer came, of one that was answered.
    ret: Option<i64>,
    ttl: i64,
}

/// The refusals of one history that still wait for a state that they are right of.
#[derive(Debug)]
pub struct Refusals<'v, 'a> {
    b: &'v Buckets<'a>,
    complete: bool,
    lease_time: bool,
    grants: Table<i64, Vec<Grant>>,
    /// Lease -> the earliest call of a revoke of it.
    revoked: Table<i64, i64>,
    starting: Table<i64, Vec<Waiting<'a>>>,
    waiting: Vec<Waiting<'a>>,
    wrong: Vec<Waiting<'a>>,
    /// Those that can have seen a state after the last revision that anything shows.
    later: Vec<u32>,
}

impl<'v, 'a> Refusals<'v, 'a> {
    /// `complete`: every writer is recorded from an empty store on.
    pub fn new(b: &'v Buckets<'a>, timing: &Timing, complete: bool, circumstances: &Circumstances) -> Result<Self, Declined> {
        let mut refusals = Refusals {
            b,
            complete,
            lease_time: circumstances.lease_time,
            grants: Table::default(),
            revoked: Table::default(),
            starting: Table::default(),
            waiting: Vec::new(),
            wrong: Vec::new(),
            later: Vec::new(),
        };
        if !timing.real_time || b.refusals.is_empty() {
            return Ok(refusals);
        }
        refusals.know_leases()?;
        for &op in &b.refusals {
            let (call, ret) = (b.ops.call(op), b.ops.ret(op));
            let Some(refusal) = b.ops.refusal(op, circumstances) else { continue };
            if ret == NEVER || ret < call {
                continue;
            }
            let (lowest, highest) = timing.present_between(call, ret);
            if lowest < timing.first && !complete {
                continue; // It can be of a state before the first one that is known.
            }
            let request = Rc::new(b.ops.request(op)?);
            let may_be_later = refusals.may_be_later(op, &request, refusal);
            // One that may be of the last revision can be judged where there is no fork, and nobody unrecorded who may have gone on.
            if highest < timing.last || (b.limit.is_none() && (complete || !may_be_later)) {
                if highest == timing.last && may_be_later {
                    refusals.later.push(op);
                }
                refusals.starting.entry(lowest).or_default().push(Waiting { highest, op, request, refusal });
            }
        }
        Ok(refusals)
    }

    fn know_leases(&mut self) -> Result<(), Declined> {
        let b = self.b;
        for &op in b.pending.iter().chain(b.revokes.values().flatten()).chain(&b.later_revokes) {
            let recorded = b.ops.get(op);
            if recorded.kind == pekan_history::Kind::LeaseRevoke {
                let first = self.revoked.entry(lease_revoke(recorded.request)?).or_insert(i64::MAX);
                *first = recorded.call.min(*first);
            }
        }
        for (&lease, granted) in &b.grants {
            let mut grants = Vec::with_capacity(granted.len());
            for &op in granted {
                let recorded = b.ops.get(op);
                let answered = b.ops.outcome(op) == Outcome::Ok;
                let of = if answered { LeaseGrant::response(recorded.response)? } else { LeaseGrant::request(recorded.request)? };
                let ret = Some(b.ops.ret(op)).filter(|&ret| answered && ret != NEVER);
                grants.push(Grant { call: recorded.call, ret, ttl: of.ttl });
            }
            self.grants.insert(lease, grants);
        }
        Ok(())
    }

    /// Whether `op` can have seen a state after the last revision that anything shows, and depends on what that state is.
    fn may_be_later(&self, op: u32, request: &Asked<'a>, refusal: Refusal) -> bool {
        let of_revisions = matches!(refusal, Refusal::FutureRevision | Refusal::Compacted);
        if of_revisions && ranges(request).iter().all(|range| range.revision == 0) {
            return false;
        }
        if !self.complete {
            return true;
        }
        match request {
            Asked::LeaseGrant(_) | Asked::LeaseRevoke(_) => false,
            Asked::Put(put) if put.lease != 0 => false,
            _ => !self.b.grants.is_empty() || self.b.pending.iter().any(|&write| self.b.ops.call(write) <= self.b.ops.ret(op)),
        }
    }

    /// Whether [`Refusals::look`] has anything to do at `revision`.
    #[inline]
    pub fn wait_for(&self, revision: i64) -> bool {
        !self.waiting.is_empty() || (!self.starting.is_empty() && self.starting.contains_key(&revision))
    }

    /// Holds the refusals that can be of `revision` against it.
    pub fn look(&mut self, revision: i64, state: &State<'a>) {
        if let Some(starting) = self.starting.get(&revision) {
            self.waiting.extend(starting.iter().cloned());
        }
        for each in std::mem::take(&mut self.waiting) {
            if !self.right(state, &each) {
                if each.highest > revision { &mut self.waiting } else { &mut self.wrong }.push(each);
            }
        }
    }

    /// The refusals that were right at no state they can be of; those whose states were not all replayed are left out.
    ///
    /// `all_used`: every write that may have happened has its revision, so that there is no unseen state after the last.
    pub fn problems(&self, all_used: bool) -> Vec<Problem<'a>> {
        let wrong = self.wrong.iter().filter(|each| all_used || !self.later.contains(&each.op));
        wrong
            .map(|each| {
                let puts = puts(&each.request);
                let mut leases: Vec<i64> = puts.iter().map(|put| put.lease).filter(|&lease| lease != 0).collect();
                if let Asked::LeaseRevoke(lease) = &*each.request {
                    leases.push(*lease);
                }
                leases.sort_unstable();
                leases.dedup();
                let evidence = leases.iter().filter_map(|lease| self.b.grants.get(lease)?.first().copied()).collect();
                let touched = puts.iter().map(|put| (put.key, &put.key[..0]));
                let touched = touched.chain(deletes(&each.request).iter().map(|delete| (delete.key, delete.range_end))).collect();
                let what = What::WrongRefusal { op: each.op, evidence };
                Problem { revision: each.highest, what, touched: Touched::Ranges(touched) }
            })
            .collect()
    }

    fn right(&self, state: &State<'a>, each: &Waiting<'a>) -> bool {
        let end = self.b.ops.ret(each.op);
        match &*each.request {
            Asked::LeaseGrant(r) => {
                !self.complete || self.grants.get(&r.id).is_some_and(|grants| grants.iter().any(|other| other.call <= end))
            }
            Asked::LeaseRevoke(lease) => self.may_lack(*lease, each.op),
            Asked::Txn(txn) => {
                let mut right = false;
                Path::of(state, txn).each(&mut |inner| right |= self.right_of(state, inner, each));
                right
            }
            Asked::Put(put) => self.right_of(state, &Request::Put(*put), each),
            _ => false,
        }
    }

    /// Whether an operation of the branch taken is one to be refused so.
    fn right_of(&self, state: &State<'a>, inner: &Request<'a>, each: &Waiting<'a>) -> bool {
        match (inner, each.refusal) {
            (Request::Range(r), Refusal::FutureRevision) => r.revision > state.revision,
            (Request::Range(r), Refusal::Compacted) => r.revision != 0,
            (Request::Put(r), Refusal::KeyNotFound) => (r.ignore_value || r.ignore_lease) && state.get(r.key).is_none(),
            (Request::Put(r), Refusal::LeaseNotFound) => r.lease != 0 && self.may_lack(r.lease, each.op),
            _ => false,
        }
    }

    /// Whether `lease` can have been absent at some time in which `op` was under way.
    fn may_lack(&self, lease: i64, op: u32) -> bool {
        if !self.complete || self.lease_time {
            return true;
        }
        let (call, end) = (self.b.ops.call(op), self.b.ops.ret(op));
        let grants = self.grants.get(&lease).map_or(&[][..], Vec::as_slice);
        if !grants.iter().any(|grant| grant.ret.is_some_and(|ret| ret < call)) {
            return true;
        }
        if self.revoked.get(&lease).is_some_and(|&revoked| revoked <= end) {
            return true;
        }
        // Renewals only move the deadline on; without them the lease may be thought to end too early here, never too late.
        grants.iter().any(|grant| grant.call.saturating_add(grant.ttl.saturating_mul(SECOND)) <= end)
    }
}
