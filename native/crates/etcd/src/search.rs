//! Gaps whose events nobody showed: a guess, taken back when it contradicts what comes later.
//!
//! ```text
//! fill(gap)  ─ one way only, nothing guessed before ──> no guess
//!            ─ several ways ──> a guess: the best one first, the rest kept
//! a later contradiction that can rest on a guess ──> take_back: undo to the last guess that has another way, and go on from there
//! ```
//!
//! The reference, with the four rules that keep it small, is `src/pekan/checkers/kv/search.py`: both try the same ways in the same order and
//! count alike, so that they decide alike.

use std::time::{Duration, Instant};

use foldhash::fast::FixedState;
use hashbrown::HashSet;
use pekan_history::NEVER;
use pekan_wire::{DELETE, Event, Kv, PUT, Request, TxnRequest};

use crate::case::Ops;
use crate::collect::Buckets;
use crate::evidence::Watched;
use crate::facts::{Facts, Reach, Set, Shown, same_put};
use crate::machine::{State, in_key_order};
use crate::matching::{Matching, WriterId};
use crate::pool::Pool;
use crate::problem::{Problem, Touched, Undecided};
use crate::request::{Asked, Declined};
use crate::timing::Timing;

/// Gaps filled and fillings taken back in one history's search. Real histories need one or two a gap.
pub const NODES: i64 = 200_000;
/// Seconds for one history's search where the circumstances name none.
pub const SECONDS: f64 = 60.0;

/// One way to fill a gap.
#[derive(Clone, Debug)]
pub struct Way<'a> {
    /// Who.
    pub writer: WriterId,
    /// What that changes, in key order.
    pub events: Vec<Event<'a>>,
}

/// A gap filled with `way` while `others` remain; `mark`: the length of the trail before it.
#[derive(Debug)]
struct Guess<'a> {
    revision: i64,
    writer: WriterId,
    others: std::vec::IntoIter<Way<'a>>,
    mark: usize,
    touched: Vec<&'a [u8]>,
    several: bool,
}

/// The guesses of one replay and what is needed to make them.
#[derive(Debug)]
pub struct Search<'v, 'a> {
    ops: Ops<'a>,
    b: &'v Buckets<'a>,
    timing: &'v Timing,
    evidence: &'v Watched<'a>,
    budget: Duration,
    guesses: Vec<Guess<'a>>,
    trail: Vec<(&'a [u8], Option<Kv<'a>>)>,
    /// Gaps filled and fillings taken back.
    pub nodes: i64,
    /// Gaps filled, again after taking back.
    pub gaps: i64,
    /// The revision of the first guess.
    pub began: i64,
    /// The contradiction furthest on.
    pub deepest: Option<Problem<'a>>,
    /// Why the search ended without an answer.
    pub exhausted: Option<Undecided>,
    deadline: Option<Instant>,
    reach: Option<Reach<'a>>,
    facts: Option<Facts<'a>>,
}

/// Equal for writers that are the same to everything recorded.
#[derive(PartialEq, Eq, Hash)]
enum Shape<'a> {
    /// A Put whose value nothing shows: its key, lease, and whether it keeps value and lease.
    Put(&'a [u8], i64, bool, bool),
    Writer(WriterId),
}

impl<'v, 'a> Search<'v, 'a> {
    /// Nothing guessed yet.
    pub fn new(b: &'v Buckets<'a>, timing: &'v Timing, evidence: &'v Watched<'a>, budget_s: Option<f64>) -> Self {
        Search {
            ops: b.ops,
            b,
            timing,
            evidence,
            // A budget that is no time at all, or longer than a clock can say, is the nearest that is.
            budget: Duration::try_from_secs_f64(budget_s.unwrap_or(SECONDS).max(0.0)).unwrap_or(Duration::MAX),
            guesses: Vec::new(),
            trail: Vec::new(),
            nodes: 0,
            gaps: 0,
            began: 0,
            deepest: None,
            exhausted: None,
            deadline: None,
            reach: None,
            facts: None,
        }
    }

    /// Whether any guess stands.
    pub fn guesses(&self) -> bool {
        !self.guesses.is_empty()
    }

    // ---- filling ----

    /// The first way to fill the gap at `revision`, its writer reserved; None where there is none.
    pub fn fill(
        &mut self,
        state: &State<'a>,
        revision: i64,
        own: Vec<WriterId>,
        pool: &mut Pool<'a>,
        matching: &mut Matching,
    ) -> Result<Option<Way<'a>>, Declined> {
        self.gaps += 1;
        if self.deadline.is_none() {
            self.deadline = Instant::now().checked_add(self.budget);
        }
        self.nodes += 1;
        let ways = self.ways(state, revision, own, pool, matching)?;
        let (only, several) = (ways.len() == 1, ways.len() > 1);
        let mut touched: Vec<&'a [u8]> = Vec::new();
        if several {
            touched.extend(ways.iter().flat_map(|way| way.events.iter().map(|event| event.kv.key)));
            touched.sort_unstable();
            touched.dedup();
        }
        let mut others = ways.into_iter();
        let Some(way) = others.find(|way| matching.reserve(way.writer)) else { return Ok(None) };
        if only && self.guesses.is_empty() {
            return Ok(Some(way));
        }
        if self.guesses.is_empty() {
            self.began = revision;
        }
        self.guesses.push(Guess { revision, writer: way.writer, others, mark: self.trail.len(), touched, several });
        Ok(Some(way))
    }

    fn ways(
        &mut self,
        state: &State<'a>,
        revision: i64,
        own: Vec<WriterId>,
        pool: &mut Pool<'a>,
        matching: &Matching,
    ) -> Result<Vec<Way<'a>>, Declined> {
        self.know(pool)?;
        let (Some(facts), Some(reach)) = (&mut self.facts, &self.reach) else { return Ok(Vec::new()) };
        let shown = facts.shown(revision).to_vec();
        let told: Vec<Event<'a>> = self.evidence.events(revision).collect();
        let (latest, earliest) = (self.timing.latest_of(revision), self.timing.earliest_of(revision));
        let mut shapes: HashSet<Shape<'a>, FixedState> = HashSet::default();
        let mut ways: Vec<(Rank, Way<'a>)> = Vec::new();
        // Where no value was shown of this revision, a Put of a key is refuted by what is known of the key, whatever it puts.
        let free = shown.is_empty() && told.is_empty();
        let mut refuted: Set<&'a [u8]> = Set::default();
        let mut writers = own;
        writers.extend(worth_trying(pool, state, latest, &shown, &told));
        for writer in writers {
            if matching.is_reserved(writer) {
                continue;
            }
            let shape = shape(facts, pool, writer);
            if shapes.contains(&shape) {
                continue;
            }
            let key = if free { only_key(pool, writer) } else { None };
            if key.is_some_and(|key| refuted.contains(key)) {
                continue;
            }
            let events = in_key_order(pool.effect_of(state, writer));
            if events.is_empty() || !agrees(facts, &self.ops, reach, revision, &events, &shown, &told) {
                refuted.extend(key);
                continue;
            }
            shapes.insert(shape);
            let way = Way { writer, events };
            ways.push((rank(facts, &self.ops, pool, &way, revision, earliest), way));
        }
        ways.sort_by_key(|(rank, _)| *rank);
        Ok(ways.into_iter().map(|(_, way)| way).collect())
    }

    // ---- what is known ----

    /// Puts together what answers show and what writers can touch, at the first gap.
    fn know(&mut self, pool: &Pool<'a>) -> Result<(), Declined> {
        self.know_reach(pool)?;
        let (None, Some(reach)) = (&self.facts, &self.reach) else { return Ok(()) };
        let Timing { first, last, .. } = *self.timing;
        let gaps = (first..=last).map(|r| self.b.write(r).is_none() && !self.evidence.is_whole(r)).collect();
        let pending = pool.writers[..pool.requests].iter().map(|writer| &writer.what);
        self.facts = Some(Facts::new(self.b, self.evidence, pending, first, gaps, reach)?);
        Ok(())
    }

    fn know_reach(&mut self, pool: &Pool<'a>) -> Result<(), Declined> {
        if self.reach.is_some() {
            return Ok(());
        }
        let mut reach = Reach { deleted: pool.by_delete.keys().copied().collect(), ..Reach::default() };
        for op in self.b.writes().map(|(_, op)| op).chain(self.b.pending.iter().copied()) {
            leased(&self.ops.request(op)?, &mut reach.leased);
        }
        reach.leases_end = !self.b.grants.is_empty() || !self.b.revokes.is_empty() || !pool.by_revoke.is_empty();
        reach.spans = pool.by_range.iter().map(|(start, end, _)| (*start, *end)).collect();
        let put = pool.by_put.keys().map(|(key, _)| *key);
        let named = put.chain(pool.by_kept_value.keys().copied()).chain(pool.by_delete.keys().copied());
        reach.key_set = named.chain(reach.leased.iter().copied()).collect();
        reach.keys = reach.key_set.iter().copied().collect();
        reach.keys.sort_unstable();
        self.reach = Some(reach);
        Ok(())
    }

    /// What is shown of `revision`, as events.
    pub fn shown_at(&self, revision: i64) -> Vec<Event<'a>> {
        let shown = self.facts.as_ref().map_or(&[][..], |facts| facts.shown(revision));
        let shown = shown.iter().map(|shown| Event { kind: PUT, kv: shown.kv, prev_kv: None });
        shown.chain(self.evidence.events(revision)).collect()
    }

    // ---- taking back ----

    /// Notes what `events` are about to replace.
    pub fn remember(&mut self, state: &State<'a>, events: &[Event<'a>]) {
        self.trail.extend(events.iter().map(|event| (event.kv.key, state.get(event.kv.key).copied())));
    }

    /// Whether another guess could make a problem go away that rests on `touched`.
    pub fn may_rest_on_guess(&mut self, pool: &Pool<'a>, touched: &Touched<'a>) -> Result<bool, Declined> {
        if self.guesses.is_empty() {
            return Ok(false);
        }
        let Touched::Ranges(touched) = touched else { return Ok(true) };
        self.know_reach(pool)?;
        Ok(self.reach.as_ref().is_some_and(|reach| touched.iter().any(|(key, end)| reach.meets(key, end))))
    }

    /// Undoes to the last guess with another way and takes that: its revision, and the way. None where none is left or the budget is spent.
    pub fn take_back(
        &mut self,
        state: &mut State<'a>,
        matching: &mut Matching,
        problem: &Problem<'a>,
    ) -> Result<Option<(i64, Way<'a>)>, Declined> {
        if self.deepest.as_ref().is_none_or(|deepest| problem.revision >= deepest.revision) {
            self.deepest = Some(problem.clone());
        }
        while let Some(mut guess) = self.guesses.pop() {
            self.undo(state, &guess);
            matching.drop_from(guess.revision);
            matching.release(guess.writer);
            if self.nodes > NODES || self.deadline.is_some_and(|deadline| Instant::now() > deadline) {
                self.exhausted = Some(Undecided::Exhausted(self.nodes, self.gaps));
                while let Some(guess) = self.guesses.pop() {
                    self.undo(state, &guess);
                    matching.release(guess.writer);
                }
                return Ok(None);
            }
            let Some(way) = guess.others.find(|way| matching.reserve(way.writer)) else { continue };
            self.nodes += 1;
            guess.writer = way.writer;
            let revision = guess.revision;
            self.guesses.push(guess);
            self.remember(state, &way.events);
            state.advance(revision, &way.events);
            if state.leases.is_some() {
                state.leases = Some(self.b.leases_after(revision - 1)?);
            }
            return Ok(Some((revision, way)));
        }
        Ok(None)
    }

    fn undo(&mut self, state: &mut State<'a>, guess: &Guess<'a>) {
        for (key, old) in self.trail.drain(guess.mark..).rev() {
            state.replace_key(key, old);
            if let Some(past) = &mut state.past
                && let Some(versions) = past.get_mut(key)
            {
                versions.pop();
            }
        }
        state.revision = guess.revision - 1;
    }

    /// The revisions up to `last` that are not proven: where a guess had several ways, and later ones that touch the same keys.
    ///
    /// `touches(revision, keys)`: whether its events touch one of `keys`.
    pub fn doubtful(&self, last: i64, touches: impl Fn(i64, &Set<&'a [u8]>) -> bool) -> Vec<i64> {
        let mut unproven = Vec::new();
        let mut starts = self.guesses.iter().filter(|guess| guess.several).peekable();
        let Some(first) = starts.peek().map(|guess| guess.revision) else { return unproven };
        let mut keys: Set<&'a [u8]> = Set::default();
        for revision in first..=last {
            if let Some(guess) = starts.next_if(|guess| guess.revision == revision) {
                keys.extend(guess.touched.iter().copied());
                unproven.push(revision);
            } else if touches(revision, &keys) {
                unproven.push(revision);
            }
        }
        unproven
    }
}

/// Everybody, or where a value was shown only those who put it.
fn worth_trying<'a>(pool: &mut Pool<'a>, state: &State<'a>, latest: i64, shown: &[Shown<'a>], told: &[Event<'a>]) -> Vec<WriterId> {
    let told = told.iter().filter(|event| event.kind == PUT).map(|event| event.kv);
    let mut whole = told.chain(shown.iter().filter(|shown| shown.complete).map(|shown| shown.kv));
    let Some(kv) = whole.find(|kv| kv.version != 0) else { return pool.everybody(state, latest) };
    let mut found: Vec<WriterId> = pool.by_put(kv.key, kv.value).collect();
    pool.until(&mut found, latest);
    found
}

fn shape<'a>(facts: &Facts<'a>, pool: &Pool<'a>, writer: WriterId) -> Shape<'a> {
    let Asked::Put(put) = &pool.writers[writer as usize].what else { return Shape::Writer(writer) };
    if facts.tells_apart(put.value) {
        return Shape::Writer(writer);
    }
    Shape::Put(put.key, put.lease, put.ignore_value, put.ignore_lease)
}

fn agrees<'a>(
    facts: &mut Facts<'a>,
    ops: &Ops<'a>,
    reach: &Reach<'a>,
    revision: i64,
    events: &[Event<'a>],
    shown: &[Shown<'a>],
    told: &[Event<'a>],
) -> bool {
    if !told.iter().all(|told| events.iter().any(|event| event.kind == told.kind && event.kv == told.kv)) {
        return false;
    }
    // Of a key put and deleted in one Txn, what is left of it: its last event.
    let last = |key: &[u8]| events.iter().rev().find(|event| event.kv.key == key);
    for Shown { kv, complete } in shown {
        match last(kv.key) {
            Some(event) if event.kind != DELETE && same_put(&event.kv, kv) && (!complete || event.kv == *kv) => {}
            _ => return false,
        }
    }
    if facts.touched(revision).is_some_and(|keys| keys.iter().any(|key| last(key).is_none_or(|event| event.kind == DELETE))) {
        return false;
    }
    for (at, event) in events.iter().enumerate() {
        let key = event.kv.key;
        let is_last = events.get(at + 1).is_none_or(|next| next.kv.key != key);
        if is_last && !shown.iter().any(|shown| shown.kv.key == key) && facts.refuted(ops, event, revision, reach) {
            return false;
        }
    }
    true
}

type Rank = (u8, i64, i64);

/// What is due first comes first, then what its caller was still waiting for, then the rest; a lease's own end last.
fn rank<'a>(facts: &mut Facts<'a>, ops: &Ops<'a>, pool: &Pool<'a>, way: &Way<'a>, revision: i64, earliest: i64) -> Rank {
    let writer = &pool.writers[way.writer as usize];
    if let Some(due) = way.events.iter().filter_map(|event| facts.due(ops, event, revision)).min() {
        return (0, due, writer.call);
    }
    let Some(op) = writer.op else { return (3, 0, writer.call) };
    let recorded = ops.get(op);
    let waited = if recorded.gave_up == NEVER { recorded.call } else { recorded.gave_up };
    (if waited >= earliest { 1 } else { 2 }, 0, writer.call)
}

/// The key of a writer that does nothing but put it, None of any other.
fn only_key<'a>(pool: &Pool<'a>, writer: WriterId) -> Option<&'a [u8]> {
    match &pool.writers[writer as usize].what {
        Asked::Put(put) if put.lease == 0 && !put.ignore_value && !put.ignore_lease => Some(put.key),
        _ => None,
    }
}

/// Adds the keys that `request` attaches to a lease.
fn leased<'a>(request: &Asked<'a>, keys: &mut Set<&'a [u8]>) {
    match request {
        Asked::Put(put) if put.lease != 0 || put.ignore_lease => {
            keys.insert(put.key);
        }
        Asked::Txn(txn) => leased_inside(txn, keys),
        _ => {}
    }
}

fn leased_inside<'a>(txn: &TxnRequest<'a>, keys: &mut Set<&'a [u8]>) {
    crate::request::each_operation(txn, &mut |op| {
        if let Request::Put(put) = op
            && (put.lease != 0 || put.ignore_lease)
        {
            keys.insert(put.key);
        }
    });
}
