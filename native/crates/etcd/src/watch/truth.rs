//! What a watch can be held against; the rules are those of `src/pekan/checkers/watch/truth.py`.

use std::cell::{OnceCell, RefCell};

use pekan_history::{Columns, Kind, NEVER, NO_ERROR, Op, Outcome};
use pekan_wire::{DeleteRangeRequest, Enum, Event, PutRequest, Request, TxnRequest, WatchCreateRequest};

use super::keys::{ByKey, Due};
use crate::evidence::{Bounds, Evidence, Hashed, Watch, is_whole};
use crate::order::Order;
use crate::request::Declined;

/// `WatchCreateRequest.filters`: no puts.
const NOPUT: Enum = 0;
/// `WatchCreateRequest.filters`: no deletions.
const NODELETE: Enum = 1;

/// What Python knows of the case.
#[derive(Clone, Debug)]
pub struct Given {
    /// First revision that belongs to no common history (a fork); None where there is no fork.
    pub limit: Option<i64>,
    /// All times are of one clock.
    pub real_time: bool,
    /// Nobody who is not in the record writes.
    pub exclusive: bool,
    /// The store was proved empty before traffic.
    pub start_empty: bool,
    /// etcd was told to compact without being asked.
    pub compacts_itself: bool,
    /// A fork is suspected, though not shown.
    pub suspected_fork: bool,
    /// The errors' messages after which a refused Txn may have been applied by other members.
    pub spared: Vec<String>,
}

/// What is proven about a history, in the form in which watches are judged.
pub struct Truth<'e, 'a> {
    pub(super) columns: &'e Columns<'a>,
    pub(super) evidence: &'e Evidence<'a>,
    pub(super) order: Option<&'e Order<'a>>,
    given: Given,
    pub(super) limit: i64,
    pub(super) newest: i64,
    closed: bool,
    counted: bool,
    pub(super) timed: bool,
    compactions: Vec<(i64, i64)>,
    /// From the order's first revision on: the latest invocation of a writer at or below. Below it: 0, as nothing is known.
    invoked_by: Vec<i64>,
    by_key: OnceCell<ByKey<'a>>,
    due: RefCell<Hashed<(Bounds<'a>, Vec<Enum>), Due>>,
    existing: OnceCell<Due>,
    /// When each request that can have made a revision was called, in order.
    calls: OnceCell<Vec<i64>>,
    /// Those of them that have no place in the order: when called, and which.
    attempts: OnceCell<Result<Vec<(i64, u32)>, Declined>>,
}

impl<'e, 'a> Truth<'e, 'a> {
    /// The truth about a history with that evidence and order.
    pub fn new(
        columns: &'e Columns<'a>,
        evidence: &'e Evidence<'a>,
        order: Option<&'e Order<'a>>,
        given: Given,
    ) -> Result<Truth<'e, 'a>, Declined> {
        let exclusive = given.exclusive && given.start_empty;
        let parted = given.limit.is_some() || given.suspected_fork;
        // A refused compaction took nothing away; but once members have parted, the one that refuses it speaks only for itself.
        let mut compactions: Vec<(i64, i64)> = (evidence.compactions.iter())
            .filter(|compaction| parted || compaction.outcome != Outcome::Failed)
            .map(|compaction| (compaction.revision, if given.real_time { compaction.call } else { -1 }))
            .collect();
        compactions.sort_unstable();
        let mut truth = Truth {
            columns,
            evidence,
            order,
            limit: given.limit.unwrap_or(i64::MAX),
            newest: order.map_or(1, Order::last),
            closed: exclusive && !given.compacts_itself,
            counted: exclusive && given.real_time,
            timed: false,
            compactions,
            invoked_by: Vec::new(),
            by_key: OnceCell::new(),
            due: RefCell::default(),
            existing: OnceCell::new(),
            calls: OnceCell::new(),
            attempts: OnceCell::new(),
            given,
        };
        truth.invoked_by = truth.invocations()?;
        truth.timed = truth.counted || !truth.invoked_by.is_empty();
        Ok(truth)
    }

    /// The last revision of the order, 1 without one.
    pub fn newest(&self) -> i64 {
        self.newest
    }

    /// Whether every compaction that can have happened is in the record.
    pub fn closed(&self) -> bool {
        self.closed
    }

    /// Whether it rests on an order.
    #[inline]
    pub fn ordered(&self) -> bool {
        self.order.is_some()
    }

    /// Whether it is proven what `revision` did.
    #[inline]
    pub fn proves(&self, revision: i64) -> bool {
        if revision >= self.limit {
            return false;
        }
        match self.order {
            Some(order) => order.proves(revision),
            None => self.evidence.watched.is_whole(revision) && !self.evidence.watched.differs(revision),
        }
    }

    /// Whether `revision`, which is proven, did nothing.
    fn is_empty(&self, revision: i64) -> bool {
        match self.order {
            Some(order) => order.events(&self.evidence.watched, revision).next().is_none(),
            None => self.evidence.watched.encoded(revision).is_empty(),
        }
    }

    /// The first and last revision that may be proven.
    fn span(&self) -> (i64, i64) {
        let (first, last) = match self.order {
            Some(order) => (order.first(), order.last()),
            None => self.evidence.watched.bounds(),
        };
        (first, last.min(self.limit.saturating_sub(1)))
    }

    /// How many revisions are proven.
    pub fn proven(&self) -> usize {
        let (first, last) = self.span();
        (first..=last).filter(|&revision| self.proves(revision)).count()
    }

    /// Into `into` (emptied first): what `revision`, which is proven, did, in key order.
    pub fn made(&self, revision: i64, into: &mut Vec<Event<'a>>) {
        into.clear();
        let watched = &self.evidence.watched;
        match self.order {
            Some(order) => into.extend(order.events(watched, revision)),
            None => into.extend(watched.events(revision)),
        }
    }

    /// Whether a proven `revision` did exactly what watches delivered of it, and what items remember of that still holds.
    #[inline]
    pub(super) fn as_told(&self, revision: i64) -> bool {
        self.order.is_some_and(|order| order.is_told(revision)) && self.evidence.watched.never_changed(revision)
    }

    // ---- what a request has to see ----

    /// The revisions with an event that `request` matches: those proven, and for a watch of everything all that exist.
    pub fn due(&self, request: &WatchCreateRequest<'a>) -> Due {
        if is_whole(request) {
            return self.existing.get_or_init(|| self.all_existing()).clone();
        }
        let mut filters = request.filters.clone();
        filters.sort_unstable();
        filters.dedup();
        let key = (Bounds::new(request.key, request.range_end), filters);
        let known = self.due.borrow().get(&key).cloned();
        known.unwrap_or_else(|| {
            let due = self.matching(request, &key.0);
            self.due.borrow_mut().insert(key, due.clone());
            due
        })
    }

    fn all_existing(&self) -> Due {
        if !self.given.start_empty {
            let (first, last) = self.span();
            return Due::List((first..=last).filter(|&revision| self.proves(revision) && !self.is_empty(revision)).collect());
        }
        let (_, highest) = self.evidence.watched.bounds();
        let top = self.order.map_or(1, Order::last).max(highest).max(1);
        Due::Range(2..(top + 1).min(self.limit))
    }

    fn matching(&self, request: &WatchCreateRequest<'a>, bounds: &Bounds<'a>) -> Due {
        let by_key = self.by_key.get_or_init(|| {
            let (first, last) = self.span();
            let mut events = Vec::new();
            ByKey::of((first..=last).filter(|&revision| self.proves(revision)).flat_map(|revision| {
                self.made(revision, &mut events);
                let revision = u32::try_from(revision).unwrap_or(u32::MAX);
                events.iter().map(|event| (event.kv.key, revision)).collect::<Vec<_>>()
            }))
        });
        let mut found = by_key.inside(bounds);
        if !request.filters.is_empty() {
            let mut events = Vec::new();
            found.retain(|&revision| {
                self.made(revision, &mut events);
                events.iter().any(|event| bounds.contains(event.kv.key) && !filtered(request, event))
            });
        }
        Due::List(found.into())
    }

    // ---- compactions ----

    /// True where a compaction at or above `revision` was invoked before `by` (ns), or cannot be excluded.
    pub fn may_be_compacted(&self, revision: i64, by: i64) -> bool {
        if !self.closed {
            return true;
        }
        let at = self.compactions.partition_point(|&(compacted, _)| compacted < revision);
        self.compactions[at..].iter().any(|&(_, call)| call <= by)
    }

    /// True where a compaction of exactly `revision` was invoked before `by` (ns), or cannot be excluded.
    pub fn compacted_at(&self, revision: i64, by: i64) -> bool {
        if !self.closed {
            return true;
        }
        let at = self.compactions.partition_point(|&(compacted, _)| compacted < revision);
        self.compactions[at..].iter().take_while(|&&(compacted, _)| compacted == revision).any(|&(_, call)| call <= by)
    }

    // ---- when a revision can have existed ----

    fn invocations(&self) -> Result<Vec<i64>, Declined> {
        let Some(order) = self.order.filter(|_| self.given.real_time) else { return Ok(Vec::new()) };
        let mut calls = Vec::new();
        let (mut latest, mut any) = (0, false);
        for revision in order.first()..=order.last() {
            if let Some(writer) = order.written_by(revision) {
                any = true;
                if revision < self.limit {
                    let Some(op) = self.columns.ops.get(writer as usize) else {
                        return Err(Declined::because("an order of another history"));
                    };
                    if op.outcome == Outcome::Ok && op.revision == revision {
                        latest = latest.max(op.call);
                    }
                }
            }
            calls.push(latest);
        }
        Ok(if any { calls } else { Vec::new() })
    }

    /// True where some revision at or below `revision` was written by an operation that was invoked only after `time` (ns).
    #[inline]
    pub fn invoked_after(&self, revision: i64, time: i64) -> bool {
        if self.invoked_by.is_empty() || revision >= self.limit {
            return false;
        }
        let Some(order) = self.order else { return false };
        let index = revision.min(self.newest) - order.first();
        usize::try_from(index).is_ok_and(|index| self.invoked_by[index] > time)
    }

    /// The lowest revision whose acknowledged writer was invoked after `time` (ns); meaningful where `invoked_after` holds.
    pub fn first_invoked_after(&self, time: i64) -> i64 {
        self.order.map_or(0, Order::first) + self.invoked_by.partition_point(|&call| call <= time) as i64
    }

    /// The highest revision that can exist at `time` (ns); None where others may write too, or times cannot be compared.
    pub fn reachable(&self, time: i64, unseen_by: Option<&WatchCreateRequest<'a>>) -> Result<Option<i64>, Declined> {
        if !self.counted {
            return Ok(None);
        }
        let attempts = self.attempts.get_or_init(|| self.without_place()).as_ref().map_err(Clone::clone)?;
        let invoked = attempts.partition_point(|&(call, _)| call <= time);
        let mut seen = 0;
        if let Some(watch) = unseen_by {
            for &(_, op) in &attempts[..invoked] {
                seen += i64::from(self.seen(watch, &self.columns.ops[op as usize])?);
            }
        }
        Ok(self.asked_by(time).map(|asked| asked.min(self.newest + invoked as i64 - seen)))
    }

    /// The highest revision for which enough requests had been sent at `time` (ns), whatever they did; None as for `reachable`.
    pub(super) fn asked_by(&self, time: i64) -> Option<i64> {
        if !self.counted {
            return None;
        }
        let calls = self.calls.get_or_init(|| self.may_write().map(|(_, op)| op.call).collect());
        Some(1 + calls.partition_point(|&call| call <= time) as i64)
    }

    /// How many revisions an acknowledged request wrote from begin to end while `watch` was connected, at or above its start.
    pub fn due_while_connected(&self, watch: &Watch<'a>) -> usize {
        let (Some(order), Some(created)) = (self.order, watch.created) else { return 0 };
        let stream = &self.columns.streams[watch.stream as usize];
        let time = |message: u32| stream.messages[message as usize].time;
        // A stream without end was open to the end of the record, as NEVER says.
        let (begin, end) = (time(created), watch.canceled.map_or(stream.ended, time));
        let from = order.first().max(watch.request.start_revision);
        let writers = (from..=order.last()).filter_map(|revision| order.written_by(revision));
        let ops = writers.filter_map(|writer| self.columns.ops.get(writer as usize));
        ops.filter(|op| op.outcome == Outcome::Ok && op.ret != NEVER && op.call >= begin && op.ret <= end).count()
    }

    fn may_write(&self) -> impl Iterator<Item = (usize, &Op<'a>)> {
        self.columns.ops.iter().enumerate().filter(|(_, op)| {
            let makes = matches!(op.kind, Kind::Put | Kind::DeleteRange | Kind::Txn | Kind::LeaseGrant | Kind::LeaseRevoke);
            makes && !self.refused(op)
        })
    }

    fn without_place(&self) -> Result<Vec<(i64, u32)>, Declined> {
        let mut placed = crate::bits::Bits::with_room(self.columns.ops.len());
        if let Some(order) = self.order {
            for revision in order.first()..=order.last() {
                if let Some(writer) = order.written_by(revision) {
                    placed.insert(writer as usize);
                }
            }
        }
        let mut attempts = Vec::new();
        for (index, op) in self.may_write() {
            if !placed.contains(index) && !self.answered(op) {
                attempts.push((op.call, crate::evidence::as_u32(index)?));
            }
        }
        Ok(attempts)
    }

    fn refused(&self, op: &Op<'_>) -> bool {
        if op.outcome != Outcome::Failed {
            return false;
        }
        let message = if op.error == NO_ERROR { None } else { self.columns.errors.get(op.error as usize).map(|error| error.1) };
        op.kind != Kind::Txn || !message.is_some_and(|message| self.given.spared.iter().any(|spared| spared == message))
    }

    fn answered(&self, op: &Op<'_>) -> bool {
        op.outcome == Outcome::Ok && op.kind != Kind::LeaseGrant && op.revision <= self.newest
    }

    /// True where whatever revision `op` makes has an event that `watch` matches.
    fn seen(&self, watch: &WatchCreateRequest<'a>, op: &Op<'a>) -> Result<bool, Declined> {
        let bounds = Bounds::new(watch.key, watch.range_end);
        Ok(match op.kind {
            Kind::Put => put_seen(watch, &bounds, &PutRequest::decode(op.request)?),
            Kind::DeleteRange => delete_seen(watch, &bounds, &DeleteRangeRequest::decode(op.request)?),
            Kind::Txn => txn_seen(watch, &bounds, &TxnRequest::decode(op.request)?),
            _ => false,
        })
    }
}

/// Whether `request` filters events of this type out.
#[inline]
pub(super) fn filtered(request: &WatchCreateRequest<'_>, event: &Event<'_>) -> bool {
    request.filters.contains(if event.kind == pekan_wire::PUT { &NOPUT } else { &NODELETE })
}

fn put_seen(watch: &WatchCreateRequest<'_>, bounds: &Bounds<'_>, put: &PutRequest<'_>) -> bool {
    !watch.filters.contains(&NOPUT) && bounds.contains(put.key)
}

fn delete_seen(watch: &WatchCreateRequest<'_>, bounds: &Bounds<'_>, delete: &DeleteRangeRequest<'_>) -> bool {
    !watch.filters.contains(&NODELETE) && bounds.covers(&Bounds::new(delete.key, delete.range_end))
}

fn txn_seen(watch: &WatchCreateRequest<'_>, bounds: &Bounds<'_>, txn: &TxnRequest<'_>) -> bool {
    txn.success.iter().chain(&txn.failure).all(|op| match op {
        Request::Range(_) => true,
        Request::Put(put) => put_seen(watch, bounds, put),
        Request::DeleteRange(delete) => delete_seen(watch, bounds, delete),
        Request::Txn(inner) => txn_seen(watch, bounds, inner),
    })
}
