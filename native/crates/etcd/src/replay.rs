//! The store, revision by revision, and every answer held against it; the reference is `src/pekan/checkers/kv/replay.py`.
//!
//! ```text
//! for revision r:
//!     acknowledged write   its answer must be what the request gives at S(r-1), its events what a watch of everything saw
//!     no such write        a gap: events known: matching (pool)     else: search
//!     S(r)                 = S(r-1) with the events of r
//!     what saw r           must answer S(r)
//! ```
//!
//! Common answers are confirmed without making the right one (`confirm.rs`); what is not confirmed there goes the general way, which has the
//! last word. A contradiction that may rest on a guess takes the guess back; else it is a problem, told in Python.

use pekan_history::Kind;
use pekan_wire::{DELETE, Decoded, Event, Kv, LeaseGrant, PUT, Request, TxnRequest, TxnResponse, lease_revoke};

use pekan_wire::scan::event_parts;

use crate::case::Ops;
use crate::collect::Buckets;
use crate::confirm;
use crate::evidence::{Watched, decoded};
use crate::machine::{Evaluated, Held, State, Table, effect, evaluate, holds, in_key_order, range_answer, same_change};
use crate::matching::{Matching, WriterId};
use crate::order::Order;
use crate::pool::Pool;
use crate::problem::{Effect, Exhibit, Expected, Problem, Touched, Undecided, What};
use crate::refusals::Refusals;
use crate::request::{Answer, Asked, Declined, old_ranges};
use crate::search::Search;
use crate::timing::Timing;

/// Bytes of a cache line.
const LINE: usize = 64;
/// Lines of one message that are reached for: of a longer one the rest is read ahead by the CPU itself, and a list of everything must not
/// push the others out of the cache.
const LINES_MAX: usize = 64;
/// Revisions that are reached for at once: some hundred cache lines, far less than the nearest cache holds.
const AHEAD: i64 = 32;

/// Why a step of the replay did not go on.
enum Stop<'a> {
    /// A problem that may rest on a guess.
    Contradiction(Box<Problem<'a>>),
    Declined(Declined),
}

impl From<Declined> for Stop<'_> {
    fn from(declined: Declined) -> Self {
        Stop::Declined(declined)
    }
}

impl From<pekan_wire::Malformed> for Stop<'_> {
    fn from(malformed: pekan_wire::Malformed) -> Self {
        Stop::Declined(malformed.into())
    }
}

/// What the replay counted, as the report tells it.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)] // the report's words
pub struct Counts {
    pub revisions: i64,
    pub gaps: i64,
    pub gaps_matched: i64,
    pub gaps_searched: i64,
    pub search_nodes: i64,
}

/// What the replay established.
#[derive(Debug)]
pub struct Replayed<'a> {
    /// The revisions replayed.
    pub order: Order<'a>,
    /// The store after the last revision replayed.
    pub state: State<'a>,
    /// What was found, in order of revision; one of each kind and text is to be told.
    pub problems: Vec<Problem<'a>>,
    /// What was not decided.
    pub undecided: Vec<Undecided>,
    /// The first revision that was not replayed; None where all were.
    pub stopped: Option<i64>,
    /// For the report.
    pub counts: Counts,
}

impl Replayed<'_> {
    /// Whether every revision was replayed and every answer is right.
    pub fn clean(&self) -> bool {
        self.problems.is_empty() && self.undecided.is_empty() && self.stopped.is_none()
    }
}

/// One pass over the revisions from a state on. Everything it needs is given.
pub struct Replay<'v, 'a> {
    ops: Ops<'a>,
    b: &'v Buckets<'a>,
    timing: &'v Timing,
    evidence: &'v Watched<'a>,
    suspects: &'v mut Pool<'a>,
    pool: Pool<'a>,
    search: Search<'v, 'a>,
    refusals: Refusals<'v, 'a>,
    shared_writers: bool,
    cut: bool,
    go_on: &'v dyn Fn() -> bool,
    base: i64,
    state: State<'a>,
    matching: Matching,
    order: Order<'a>,
    problems: Vec<Problem<'a>>,
    undecided: Vec<Undecided>,
    stopped: Option<i64>,
    gaps: i64,
    put_by: Option<PutBy<'a>>,
    /// The events of the revision being made, and the encodings of what they put.
    events: Vec<Event<'a>>,
    encoded: Vec<&'a [u8]>,
}

/// (key, value) -> the acknowledged Puts of it with their revisions, in order of call.
type PutBy<'a> = Table<(&'a [u8], &'a [u8]), Vec<(u32, i64)>>;

impl<'v, 'a> Replay<'v, 'a> {
    /// A replay of `b` from `state` on. `suspects`: the refused writes; `pool`: those that may have happened.
    #[allow(clippy::too_many_arguments)] // one place makes it, and each is a thing of its own
    pub fn new(
        b: &'v Buckets<'a>,
        state: State<'a>,
        timing: &'v Timing,
        evidence: &'v Watched<'a>,
        pool: Pool<'a>,
        suspects: &'v mut Pool<'a>,
        search: Search<'v, 'a>,
        refusals: Refusals<'v, 'a>,
        shared_writers: bool,
        cut: bool,
        go_on: &'v dyn Fn() -> bool,
    ) -> Self {
        Replay {
            ops: b.ops,
            b,
            timing,
            evidence,
            suspects,
            pool,
            search,
            refusals,
            shared_writers,
            cut,
            go_on,
            base: state.revision,
            state,
            matching: Matching::new(),
            order: Order::new(timing.first),
            problems: Vec::new(),
            undecided: Vec::new(),
            stopped: None,
            gaps: 0,
            put_by: None,
            events: Vec::new(),
            encoded: Vec::new(),
        }
    }

    /// Replays every revision that can be.
    pub fn run(mut self) -> Result<Replayed<'a>, Declined> {
        let Timing { first, last, .. } = *self.timing;
        match self.observe_all(first - 1) {
            Err(Stop::Declined(declined)) => return Err(declined),
            // Nothing is guessed yet that a contradiction could rest on.
            Err(Stop::Contradiction(problem)) => self.problems.push(*problem),
            Ok(()) => {}
        }
        let (mut revision, mut ahead) = (first, first);
        while revision <= last {
            if revision >= ahead {
                ahead = revision + AHEAD;
                self.reach_for(revision, ahead.min(last));
                self.ask()?;
            }
            let step = match self.write(revision) {
                Ok(true) => self.observe_all(revision),
                Ok(false) => {
                    self.stopped = Some(revision);
                    break;
                }
                Err(stop) => Err(stop),
            };
            match step {
                Ok(()) => {}
                Err(Stop::Declined(declined)) => return Err(declined),
                Err(Stop::Contradiction(problem)) => match self.back(*problem)? {
                    Some(back) => revision = back,
                    None => break,
                },
            }
            revision += 1;
        }
        let end = self.stopped.unwrap_or(revision);
        self.finish(end)
    }

    /// Stops where nobody wants to know any more.
    #[inline]
    fn ask(&self) -> Result<(), Declined> {
        if (self.go_on)() { Ok(()) } else { Err(Declined::because("nobody wants to know any more")) }
    }

    /// Looks at a byte of each cache line that the revisions from..=to will look at. These loads wait for memory together, where those of the
    /// replay would wait one after the other.
    fn reach_for(&self, from: i64, to: i64) {
        let mut seen = 0;
        let mut look = |bytes: &[u8]| seen = bytes.iter().step_by(LINE).take(LINES_MAX).fold(seen, |seen, byte| seen ^ byte);
        for revision in from..=to {
            for &op in self.b.write(revision).as_slice().iter().chain(self.b.readers.get(revision)).chain(self.b.local.get(revision)) {
                let op = self.ops.get(op);
                look(op.request);
                look(op.response);
            }
            for event in self.evidence.encoded(revision) {
                look(event);
            }
        }
        std::hint::black_box(seen);
    }

    fn finish(mut self, end: i64) -> Result<Replayed<'a>, Declined> {
        self.order.end_below(end);
        let last = end - 1;
        for (gap, writer) in self.matching.writers() {
            if let Some(op) = self.pool.writers.get(writer as usize).and_then(|writer| writer.op) {
                self.order.set_writer(gap, Some(op));
            }
        }
        let doubtful = self
            .search
            .doubtful(last, |revision, keys| self.order.events(self.evidence, revision).any(|event| keys.contains(event.kv.key)));
        for revision in doubtful {
            self.order.set_unknown(revision);
        }
        if !self.search.guesses() && self.search.exhausted.is_none() {
            // After guesses a refusal may have been held against states that were not.
            let attached = self.state.attached.iter().any(|(_, keys)| !keys.is_empty());
            let requests = WriterId::try_from(self.pool.requests).unwrap_or(WriterId::MAX);
            let all_used = !attached && (0..requests).all(|writer| self.matching.is_used(writer));
            let refused = self.refusals.problems(all_used);
            self.problems.extend(refused.into_iter().filter(|problem| problem.revision <= last));
        }
        let counts = Counts {
            revisions: (last - self.order.first() + 1).max(0),
            gaps: self.gaps,
            gaps_matched: i64::try_from(self.matching.len()).unwrap_or(i64::MAX),
            gaps_searched: self.search.gaps,
            search_nodes: self.search.nodes,
        };
        let Replay { order, state, problems, undecided, stopped, .. } = self;
        Ok(Replayed { order, state, problems, undecided, stopped, counts })
    }

    /// Takes back the last guess that has another way: the revision settled then. None where there is none, or the budget is spent.
    fn back(&mut self, mut problem: Problem<'a>) -> Result<Option<i64>, Declined> {
        while let Some((revision, way)) = self.search.take_back(&mut self.state, &mut self.matching, &problem)? {
            self.ask()?;
            let writer = self.pool.writers.get(way.writer as usize).and_then(|writer| writer.op);
            self.order.set(revision, &way.events, writer);
            match self.observe_all(revision) {
                Ok(()) => return Ok(Some(revision)),
                Err(Stop::Contradiction(found)) => problem = *found,
                Err(Stop::Declined(declined)) => return Err(declined),
            }
        }
        self.stopped = Some(self.search.began);
        match self.search.exhausted {
            Some(exhausted) => self.undecided.push(exhausted),
            None => self.problems.push(self.search.deepest.take().unwrap_or(problem)),
        }
        Ok(None)
    }

    /// A problem is a finding unless a guess may be behind it.
    fn report(&mut self, revision: i64, touched: Touched<'a>, what: What<'a>) -> Result<(), Stop<'a>> {
        let problem = Problem { revision, what, touched };
        if self.search.may_rest_on_guess(&self.pool, &problem.touched)? {
            return Err(Stop::Contradiction(Box::new(problem)));
        }
        self.problems.push(problem);
        Ok(())
    }

    // ---- writes ----

    /// Makes `revision`. False where its effect cannot be told, and everything after it therefore not judged.
    fn write(&mut self, revision: i64) -> Result<bool, Stop<'a>> {
        let evidence = self.evidence;
        let known = evidence.is_whole(revision).then(|| evidence.encoded(revision));
        let Some(op) = self.b.write(revision) else { return self.gap(revision, known) };
        if confirm::write(&self.state, self.ops.get(op), revision, &mut self.events)? && !self.events.is_empty() {
            // Each has its prev_kv.
        } else {
            self.events = match self.evaluated(op, revision)? {
                Some(events) if events.is_empty() => return Err(Stop::Declined(Declined::because("a write whose effect is not known"))),
                Some(events) => in_key_order(events),
                None => match known {
                    None => return Ok(false),
                    Some(known) => all(known),
                },
            };
            self.with_prev();
        }
        let told = match known {
            None => Told::Nothing,
            Some(known) => compared(&self.state, known, &self.events, &mut self.encoded)?,
        };
        if told == Told::Otherwise {
            self.contradicted(op, revision, known.unwrap_or_default())?;
            return Ok(false);
        }
        self.make(revision, told, Some(op));
        Ok(true)
    }

    /// The events of an acknowledged write; None, and a problem, where its answer is not the right one or it writes nothing here.
    fn evaluated(&mut self, op: u32, revision: i64) -> Result<Option<Vec<Event<'a>>>, Stop<'a>> {
        let request = self.ops.request(op)?;
        if !self.answerable(&request) {
            return Ok(Some(effect(&self.state, &request)));
        }
        let answer = self.ops.answer(op)?;
        // Whether its leases were there is judged apart (leases.rs); what the write does is the same.
        let leases = self.state.leases.take();
        let outcome = evaluate(&self.state, &request, Some(&answer));
        self.state.leases = leases;
        match outcome? {
            Evaluated::Refused(refusal) => {
                self.wrong(op, &request, &answer, revision, Expected::Refusal(refusal), false)?;
                Ok(None)
            }
            Evaluated::Answered(right, _) if !right.same_but_header(&answer) || right.header().revision != revision => {
                self.wrong(op, &request, &answer, revision, Expected::Answer(right), false)?;
                Ok(None)
            }
            Evaluated::Answered(_, events) => Ok(Some(events)),
        }
    }

    /// False for a Txn that reads below the revision at which the replay began.
    fn answerable(&self, request: &Asked<'a>) -> bool {
        self.base <= 1 || !old_ranges(request).iter().any(|r| r.revision < self.base)
    }

    #[cold]
    fn wrong(
        &mut self,
        op: u32,
        request: &Asked<'a>,
        answer: &Answer<'a>,
        revision: i64,
        expected: Expected<'a>,
        local: bool,
    ) -> Result<(), Stop<'a>> {
        let writer = first_difference_revision(answer, &expected).and_then(|about| self.writer_exhibit(about));
        self.report(revision, touched_by(request), What::WrongAnswer { local, op, expected, writer })
    }

    #[cold]
    fn contradicted(&mut self, op: u32, revision: i64, known: &[&'a [u8]]) -> Result<(), Stop<'a>> {
        let events = all(known);
        let seen = self.seen_exhibit(revision, events.clone());
        let what = match self.suspect(&events, revision) {
            Some(suspect) => What::RefusedButApplied { op: suspect, effect: Effect::Events(events), evidence: vec![seen, Exhibit::Op(op)] },
            None => What::LostWrite { op, events, evidence: seen },
        };
        self.report(revision, Touched::Everything, what)
    }

    fn suspect(&mut self, known: &[Event<'a>], revision: i64) -> Option<u32> {
        let found = self.suspects.candidates(&self.state, known, self.timing.latest_of(revision));
        found.into_iter().find_map(|writer| self.suspects.writers.get(writer as usize).and_then(|writer| writer.op))
    }

    /// Gives each event the `prev_kv` of the store. A watch tells what a key was before the revision, also for the second event of a key.
    fn with_prev(&mut self) {
        for event in &mut self.events {
            event.prev_kv = self.state.get(event.kv.key).copied();
        }
    }

    /// S(revision) from S(revision - 1) by `self.events`: in key order, each with its `prev_kv`. `told`: how they compare with what watches
    /// told; where that is the same, `self.encoded` has the encodings of what they put.
    #[inline]
    fn make(&mut self, revision: i64, told: Told, writer: Option<u32>) {
        if self.search.guesses() {
            self.search.remember(&self.state, &self.events);
        }
        for (at, event) in self.events.iter().enumerate() {
            let encoded = if told == Told::Nothing { &[] } else { self.encoded.get(at).copied().unwrap_or_default() };
            self.state.replace_held(event.kv.key, (event.kind != DELETE).then_some(Held { kv: event.kv, encoded }));
            if self.state.past.is_some() {
                self.state.remember(revision, event);
            }
        }
        self.state.revision = revision;
        if told == Told::Exactly {
            self.order.set_told(revision, writer);
        } else {
            self.order.set(revision, &self.events, writer);
        }
    }

    // ---- gaps ----

    fn gap(&mut self, revision: i64, known: Option<&[&'a [u8]]>) -> Result<bool, Stop<'a>> {
        self.gaps += 1;
        let Some(known) = known else {
            if self.shared_writers {
                self.undecided.push(Undecided::Foreign(revision));
                return Ok(false);
            }
            return self.guess(revision);
        };
        self.events = all(known);
        if !self.shared_writers {
            let events = self.events.clone();
            let mut choices = self.revokers(revision)?;
            choices.retain(|&writer| same_change(&in_key_order(self.pool.effect_of(&self.state, writer)), &events));
            choices.extend(self.pool.candidates(&self.state, &events, self.timing.latest_of(revision)));
            let tried = choices.len();
            if !self.matching.add(revision, choices) {
                self.unexplained(revision, &events, tried)?;
            }
        }
        self.with_prev();
        let told = compared(&self.state, known, &self.events, &mut self.encoded)?;
        self.make(revision, told, None);
        Ok(true)
    }

    /// The acknowledged revokes that can have been the step to `revision`.
    fn revokers(&mut self, revision: i64) -> Result<Vec<WriterId>, Declined> {
        let latest = self.timing.latest_of(revision);
        let mut found = Vec::new();
        for &op in self.b.revokes.get(&revision).into_iter().flatten() {
            let call = self.ops.call(op);
            if call <= latest {
                let lease = lease_revoke(self.ops.get(op).request)?;
                found.push(self.pool.revoker(op, call, lease));
            }
        }
        Ok(found)
    }

    #[cold]
    fn unexplained(&mut self, revision: i64, known: &[Event<'a>], tried: usize) -> Result<(), Stop<'a>> {
        let seen = self.seen_exhibit(revision, known.to_vec());
        let what = if let Some(suspect) = self.suspect(known, revision) {
            What::RefusedButApplied { op: suspect, effect: Effect::Events(known.to_vec()), evidence: vec![seen] }
        } else if let Some((first, at)) = self.repeated(known, revision)? {
            What::Twice { events: known.to_vec(), first, at, around: vec![seen] }
        } else {
            let mut around = self.around(revision);
            around.push(seen);
            What::Unexplained { events: known.to_vec(), around, tried }
        };
        self.report(revision, Touched::Everything, what)
    }

    /// An acknowledged write of another revision that puts the same value to the same key.
    fn repeated(&mut self, known: &[Event<'a>], revision: i64) -> Result<Option<(u32, i64)>, Declined> {
        if self.put_by.is_none() {
            let mut put_by = PutBy::default();
            for (at, op) in self.b.writes() {
                if self.ops.get(op).kind == Kind::Put
                    && let Asked::Put(put) = self.ops.request(op)?
                    && !put.ignore_value
                {
                    put_by.entry((put.key, put.value)).or_default().push((op, at));
                }
            }
            for puts in put_by.values_mut() {
                puts.sort_unstable();
            }
            self.put_by = Some(put_by);
        }
        let Some(put_by) = &self.put_by else { return Ok(None) };
        let puts = known.iter().filter(|event| event.kind == PUT).filter_map(|event| put_by.get(&(event.kv.key, event.kv.value)));
        Ok(puts.flatten().copied().find(|&(_, at)| at != revision))
    }

    /// The nearest acknowledged writes below and above.
    fn around(&self, revision: i64) -> Vec<Exhibit<'a>> {
        let Timing { first, last, .. } = *self.timing;
        let near = |r: &i64| first <= *r && *r <= last;
        let below = (revision - 999..revision).rev().take_while(near).find_map(|r| self.b.write(r));
        let above = (revision + 1..revision + 1000).take_while(near).find_map(|r| self.b.write(r));
        below.into_iter().chain(above).map(Exhibit::Op).collect()
    }

    /// A gap that no watch of everything showed. False where the budget is spent.
    fn guess(&mut self, revision: i64) -> Result<bool, Stop<'a>> {
        self.ask()?;
        let own = self.revokers(revision)?;
        let Some(way) = self.search.fill(&self.state, revision, own, &mut self.pool, &mut self.matching)? else {
            let problem = self.nobody(revision)?;
            if self.search.may_rest_on_guess(&self.pool, &problem.touched)? {
                return Err(Stop::Contradiction(Box::new(problem)));
            }
            if self.cut {
                self.undecided.push(Undecided::LostTail(revision));
            } else {
                self.problems.push(problem);
            }
            return Ok(false);
        };
        let writer = self.pool.writers.get(way.writer as usize).and_then(|writer| writer.op);
        self.events = way.events;
        self.with_prev();
        self.make(revision, Told::Nothing, writer);
        Ok(true)
    }

    #[cold]
    fn nobody(&mut self, revision: i64) -> Result<Problem<'a>, Declined> {
        let events = self.search.shown_at(revision);
        let around = self.around(revision);
        let suspect = events.iter().find_map(|event| {
            let writers = self.suspects.by_put.get(&(event.kv.key, event.kv.value));
            writers.into_iter().flatten().find_map(|&writer| self.suspects.writers.get(writer as usize).and_then(|writer| writer.op))
        });
        let what = if let Some(op) = suspect {
            What::RefusedButApplied { op, effect: Effect::Events(events), evidence: around }
        } else if let Some((first, at)) = self.repeated(&events, revision)? {
            What::Twice { events, first, at, around }
        } else {
            What::Unexplained { events, around, tried: 0 }
        };
        Ok(Problem { revision, what, touched: Touched::Everything })
    }

    // ---- answers ----

    /// Holds everything that shows the state of `revision` against it.
    fn observe_all(&mut self, revision: i64) -> Result<(), Stop<'a>> {
        let b = self.b;
        for &op in b.readers.get(revision) {
            self.observe(op, revision, false, false)?;
        }
        for &op in b.old.get(revision) {
            self.observe(op, revision, true, false)?;
        }
        for &op in b.local.get(revision) {
            self.observe(op, revision, true, true)?;
        }
        if !b.revokes.is_empty()
            && let Some(group) = b.revokes.get(&revision)
        {
            for &op in group {
                self.revoked(op, revision)?;
            }
        }
        if self.refusals.wait_for(revision) {
            self.refusals.look(revision, &self.state);
        }
        if !b.compares.is_empty()
            && let Some(group) = b.compares.get(&revision)
        {
            for &op in group {
                self.compares_only(op, revision)?;
            }
        }
        Ok(())
    }

    #[inline]
    fn observe(&mut self, op: u32, revision: i64, old: bool, local: bool) -> Result<(), Stop<'a>> {
        let recorded = self.ops.get(op);
        let right = match recorded.kind {
            Kind::Range => confirm::range(&self.state, recorded, old)?,
            Kind::DeleteRange | Kind::Txn => confirm::nothing_changed(&self.state, recorded, &mut self.events)?,
            Kind::LeaseGrant => {
                let lease = LeaseGrant::response(recorded.response)?.id;
                if self.state.leases.is_some() && self.b.lives_after(lease, revision)? {
                    self.state.leases.get_or_insert_default().insert(lease, 0);
                }
                true
            }
            _ => false,
        };
        if right { Ok(()) } else { self.look_closer(op, revision, old, local) }
    }

    /// Holds an answer that was not confirmed against the right one.
    fn look_closer(&mut self, op: u32, revision: i64, old: bool, local: bool) -> Result<(), Stop<'a>> {
        let (request, answer) = (self.ops.request(op)?, self.ops.answer(op)?);
        if let Asked::Range(r) = &request {
            let header = answer.header();
            if r.revision != 0 {
                if 0 < r.revision && r.revision < header.revision && !old {
                    return Ok(());
                }
                if r.revision > header.revision {
                    return self.wrong(op, &request, &answer, revision, Expected::InTheFuture, local);
                }
            }
            let right = range_answer(r, self.state.find(r.key, r.range_end), header, Some(&answer));
            if !right.same_but_header(&answer) {
                return self.wrong(op, &request, &answer, revision, Expected::Answer(right), local);
            }
            return Ok(());
        }
        if !self.answerable(&request) {
            return Ok(());
        }
        match evaluate(&self.state, &request, Some(&answer))? {
            Evaluated::Refused(refusal) => self.wrong(op, &request, &answer, revision, Expected::Refusal(refusal), local),
            Evaluated::Answered(right, events) if !right.same_but_header(&answer) || !events.is_empty() => {
                self.wrong(op, &request, &answer, revision, Expected::Answer(right), local)
            }
            Evaluated::Answered(..) => Ok(()),
        }
    }

    /// An acknowledged revoke leaves no key attached at its revision, whether or not it made that revision.
    fn revoked(&mut self, op: u32, revision: i64) -> Result<(), Stop<'a>> {
        let lease = lease_revoke(self.ops.get(op).request)?;
        let left = self.state.attached.get(lease).and_then(|keys| keys.first().map(|&first| (keys.len(), first)));
        if let Some((count, first)) = left {
            let (request, answer) = (self.ops.request(op)?, self.ops.answer(op)?);
            self.wrong(op, &request, &answer, revision, Expected::StillAttached(count, first), false)?;
        }
        if self.state.leases.as_ref().is_some_and(|leases| leases.contains_key(&lease))
            && !self.b.lives_after(lease, revision)?
            && let Some(leases) = &mut self.state.leases
        {
            leases.remove(&lease);
        }
        Ok(())
    }

    /// A Txn without operations: its guards decide, and nothing else.
    fn compares_only(&mut self, op: u32, revision: i64) -> Result<(), Stop<'a>> {
        let recorded = self.ops.get(op);
        let (txn, response) = (TxnRequest::decode(recorded.request)?, TxnResponse::decode(recorded.response)?);
        if txn.compare.iter().all(|guard| holds(&self.state, guard)) != response.succeeded || !response.responses.is_empty() {
            let (request, answer) = (self.ops.request(op)?, self.ops.answer(op)?);
            return self.wrong(op, &request, &answer, revision, Expected::Succeeded(!response.succeeded), false);
        }
        Ok(())
    }

    // ---- exhibits ----

    fn writer_exhibit(&self, revision: i64) -> Option<Exhibit<'a>> {
        match self.b.write(revision) {
            Some(op) => Some(Exhibit::Op(op)),
            None => self.evidence.knows(revision).then(|| self.seen_exhibit(revision, self.evidence.events(revision).collect())),
        }
    }

    fn seen_exhibit(&self, revision: i64, events: Vec<Event<'a>>) -> Exhibit<'a> {
        let seen = self.evidence.seen(revision).map(|seen| (seen.time, seen.stream));
        Exhibit::Seen { revision, seen, events }
    }
}

/// How events compare with what watches told of their revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// They told nothing that is whole.
    Nothing,
    /// Another change.
    Otherwise,
    /// The same change; some `prev_kv` is missing or not that of the store.
    Same,
    /// The same, `prev_kv` included.
    Exactly,
}

/// Compares `events`, in key order, each with the `prev_kv` of the store, with what watches told of their revision. Fills `encoded` with the
/// encodings of their key-values.
#[inline]
fn compared<'a>(state: &State<'a>, known: &[&'a [u8]], events: &[Event<'a>], encoded: &mut Vec<&'a [u8]>) -> Decoded<Told> {
    encoded.clear();
    if known.len() != events.len() {
        return Ok(Told::Otherwise);
    }
    let mut told = Told::Exactly;
    for (seen, event) in known.iter().zip(events) {
        let Some((kind, kv, prev)) = event_parts(seen) else {
            let seen = decoded(seen);
            if seen.kind != event.kind || seen.kv != event.kv {
                return Ok(Told::Otherwise);
            }
            encoded.push(&[]);
            if seen.prev_kv != event.prev_kv {
                told = Told::Same;
            }
            continue;
        };
        if kind != event.kind || Kv::decode(kv)? != event.kv {
            return Ok(Told::Otherwise);
        }
        encoded.push(kv);
        let right = match event.prev_kv {
            None => prev.is_empty(),
            Some(_) if prev.is_empty() => false,
            Some(_) => state.held(event.kv.key).map_or(Ok(false), |held| held.is(prev))?,
        };
        if !right {
            told = Told::Same;
        }
    }
    Ok(told)
}

fn all<'a>(known: &[&'a [u8]]) -> Vec<Event<'a>> {
    known.iter().map(|event| decoded(event)).collect()
}

/// The ranges that the answer to `request` can depend on.
pub fn touched_by<'a>(request: &Asked<'a>) -> Touched<'a> {
    fn of_txn<'a>(txn: &TxnRequest<'a>, touched: &mut Vec<(&'a [u8], &'a [u8])>) {
        touched.extend(txn.compare.iter().map(|compare| (compare.key, compare.range_end)));
        for op in txn.success.iter().chain(&txn.failure) {
            match op {
                Request::Range(r) => touched.push((r.key, r.range_end)),
                Request::Put(r) => touched.push((r.key, b"")),
                Request::DeleteRange(r) => touched.push((r.key, r.range_end)),
                Request::Txn(inner) => of_txn(inner, touched),
            }
        }
    }
    Touched::Ranges(match request {
        Asked::LeaseRevoke(_) => return Touched::Everything,
        Asked::Range(r) => vec![(r.key, r.range_end)],
        Asked::Put(r) => vec![(r.key, b"")],
        Asked::DeleteRange(r) => vec![(r.key, r.range_end)],
        Asked::Txn(txn) => {
            let mut touched = Vec::new();
            of_txn(txn, &mut touched);
            touched
        }
        Asked::Compaction(_) | Asked::LeaseGrant(_) => Vec::new(),
    })
}

/// The revision of the write that two range answers disagree about, the higher of the two shown.
fn first_difference_revision<'a>(shown: &Answer<'a>, expected: &Expected<'a>) -> Option<i64> {
    let (Answer::Range { kvs: shown, .. }, Expected::Answer(Answer::Range { kvs: expected, .. })) = (shown, expected) else { return None };
    let by_key: Table<&[u8], Vec<&Kv<'a>>> = shown.iter().fold(Table::default(), |mut by_key, kv| {
        by_key.entry(kv.key).or_default().push(kv);
        by_key
    });
    let is_shown = |kv: &&Kv<'a>| by_key.get(kv.key).is_some_and(|kvs| kvs.contains(kv));
    let differing = expected.iter().filter(|kv| !is_shown(kv)).map(|kv| kv.mod_revision).max();
    differing.or_else(|| shown.iter().map(|kv| kv.mod_revision).max())
}
