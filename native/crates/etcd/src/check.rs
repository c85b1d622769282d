//! The key-value checker: collect, time, replay, and what follows from them; the reference is `src/pekan/checkers/kv/check.py`.
//!
//! What is judged is decided here: from which state on, up to which revision. Which of the findings is the root that explains the others is
//! decided in Python, by the code that decides it for the reference.

use foldhash::fast::FixedState;
use hashbrown::HashSet;
use pekan_history::{Columns, Kind};
use pekan_wire::{RangeRequest, RangeResponse};

use crate::case::{Circumstances, Ops};
use crate::collect::{self, Buckets, REVISIONS_MAX, collect};
use crate::compaction::judge_compactions;
use crate::compares::judge_compares;
use crate::evidence::{Evidence, Watched};
use crate::forks;
use crate::leases::judge_leases;
use crate::machine::{State, has_filters};
use crate::order::Order;
use crate::pool::Pool;
use crate::problem::{Effect, Expected, Problem, Touched, Undecided, What};
use crate::proofs::known_before;
use crate::refusals::Refusals;
use crate::replay::{self, Replay, Replayed};
use crate::request::Declined;
use crate::search::Search;
use crate::timing::{FirstSeen, Timing, time_of};

/// Findings of time for which the proof is looked up: each look is a walk over the history, and one of a kind is shown.
const PROOFS_MAX: usize = 100;

/// What was found. Lists are in the order in which the reference finds their problems.
#[derive(Debug, Default)]
pub struct Report<'a> {
    /// False where the history holds nothing to judge.
    pub applicable: bool,
    /// What was looked at.
    pub counts: collect::Counts,
    /// What the replay counted; None where nothing was replayed.
    pub replayed: Option<replay::Counts>,
    /// Answers after the fork.
    pub beyond: usize,
    /// Problems found before the replay is told.
    pub before: Vec<Problem<'a>>,
    /// Problems of the replay; one of each kind and text is told.
    pub replay: Vec<Problem<'a>>,
    /// Problems found beside the replay.
    pub after: Vec<Problem<'a>>,
    /// Problems of transactions without operations.
    pub compares: Vec<Problem<'a>>,
    /// What was not decided.
    pub undecided: Vec<Undecided>,
    /// What was proven of each revision; None where nothing was replayed.
    pub order: Option<Order<'a>>,
    /// The first revision that is not judged as one order.
    pub limit: Option<i64>,
}

impl FirstSeen for Watched<'_> {
    #[inline]
    fn first_seen(&self, revision: i64) -> Option<i64> {
        self.seen(revision).map(|seen| seen.time)
    }
}

/// No watch at all.
struct Nothing;

impl FirstSeen for Nothing {
    fn first_seen(&self, _revision: i64) -> Option<i64> {
        None
    }
}

/// Judges every key-value operation. `go_on` is asked now and then, and at each step of a search, whether somebody still wants to know.
pub fn check_kv<'a>(
    columns: &'a Columns<'a>,
    evidence: &Evidence<'a>,
    circumstances: &Circumstances,
    go_on: &dyn Fn() -> bool,
) -> Result<Report<'a>, Declined> {
    let ops = Ops::of(columns, circumstances.ends)?;
    let mut report = Report::default();
    if circumstances.ends.is_some() {
        report.undecided.push(Undecided::Restored);
    }
    if (0..ops.len()).all(|op| ops.get(op).kind == Kind::Other) {
        return Ok(report);
    }
    report.applicable = true;
    let watched = &evidence.watched;
    let mut b = collect(ops, circumstances, None)?;
    let clash = b.clashes.iter().map(|&(revision, ..)| revision).min();
    let differing = watched.difference().map(|difference| difference.revision);
    let limit = [clash, differing].into_iter().flatten().min();
    let whole = match limit {
        None => None,
        Some(_) => {
            let limited = collect(ops, circumstances, limit)?;
            let whole = std::mem::replace(&mut b, limited);
            b.grants.clone_from(&whole.grants);
            Some(whole)
        }
    };
    let (b, whole) = (&b, whole.as_ref());
    let whole = whole.unwrap_or(b);
    report.limit = limit;
    report.counts = b.counts;
    let known_from_start = !circumstances.shared_writers && circumstances.start_empty;
    let Some(state) = start(b, circumstances, known_from_start)? else {
        without_start(b, watched, circumstances, go_on, &mut report);
        return Ok(report);
    };
    let last = last(b, watched, limit);
    if last - state.revision > REVISIONS_MAX {
        report.undecided.push(Undecided::TooFar(last - state.revision));
        return Ok(report);
    }
    let timing = time_of(b, watched, state.revision + 1, last, circumstances.real_time);
    let mut suspects = Pool::new(requests(b, &b.refused)?, [], timing.real_time);
    let refused = if known_from_start { forks::refused_values(whole)? } else { forks::Values::default() };
    let mut shown = Vec::new();
    if !refused.is_empty() && forks::delivers(watched, &refused) {
        shown = forks::shown_refusals(&ops, evidence, &refused)?;
    }
    let judging = Judging { b, timing: &timing, watched, circumstances, go_on };
    let mut replayed = judging.replay(state, &mut suspects, &shown)?;
    if !refused.is_empty() && shown.is_empty() && !(replayed.clean() && limit.is_none() && judging.all_replayed()) {
        // Where every answer was replayed and is right, each value shown is of a recorded writer that was not refused. Not so here.
        shown = forks::shown_refusals(&ops, evidence, &refused)?;
        if !shown.is_empty()
            && let Some(again) = start(b, circumstances, known_from_start)?
        {
            replayed = judging.replay(again, &mut suspects, &shown)?;
        }
    }
    report.before = shown
        .iter()
        .map(|shown| {
            let what = What::RefusedButApplied {
                op: shown.op,
                effect: Effect::Value(shown.key, shown.value),
                evidence: vec![shown.shown_by.clone()],
            };
            Problem { revision: shown.revision, what, touched: Touched::Everything }
        })
        .collect();
    judging.before_the_start(known_from_start, &mut report.before);
    report.replay = std::mem::take(&mut replayed.problems);
    judging.times(&mut report.after);
    report.after.extend(judge_compactions(b, &timing, known_from_start && !circumstances.compacts_itself)?);
    if known_from_start {
        report.after.extend(judge_leases(b)?);
    }
    if let Some(limit) = limit {
        report.after.push(limit_problem(limit, columns, evidence, whole, &mut suspects, &replayed)?);
    }
    report.undecided.append(&mut replayed.undecided);
    report.compares = judge_compares(b, &timing, watched);
    report.replayed = Some(replayed.counts);
    report.beyond = b.beyond;
    report.order = Some(replayed.order);
    Ok(report)
}

/// (call, operation, what it asked) of each, for a pool.
fn requests<'a>(b: &Buckets<'a>, listed: &[u32]) -> Result<Vec<(i64, u32, crate::Asked<'a>)>, Declined> {
    listed.iter().map(|&op| Ok((b.ops.call(op), op, b.ops.request(op)?))).collect()
}

// ---- what is judged ----

/// The store before the first revision that is judged; None where nothing shows it whole.
fn start<'a>(b: &Buckets<'a>, circumstances: &Circumstances, known_from_start: bool) -> Result<Option<State<'a>>, Declined> {
    let Some(mut state) = first_state(b, circumstances)? else { return Ok(None) };
    if known_from_start && !circumstances.cut {
        // A lease that nobody asked for is not there; when the others are, `Buckets::lives_after` says.
        state.leases = Some(b.leases_after(state.revision - 1)?);
    }
    Ok(Some(state))
}

fn first_state<'a>(b: &Buckets<'a>, circumstances: &Circumstances) -> Result<Option<State<'a>>, Declined> {
    let mut state = State::default();
    state.leases = None;
    if !b.reads_the_past {
        state.past = None;
    }
    if circumstances.start_empty {
        return Ok(Some(state));
    }
    for bucket in [&b.readers, &b.local] {
        let mut best: Option<(i64, u32)> = None;
        let mut groups: Vec<&[u32]> = bucket.iter().map(|(_, group)| group).collect();
        // The first to be answered counts among those of one revision.
        groups.sort_by_key(|group| group[0]);
        for &op in groups.into_iter().flatten() {
            let recorded = b.ops.get(op);
            if recorded.kind != Kind::Range {
                continue;
            }
            let r = RangeRequest::decode(recorded.request)?;
            let everything = r.key == b"\0" && r.range_end == b"\0" && r.limit == 0;
            if !everything || r.keys_only || r.count_only || has_filters(&r) {
                continue;
            }
            let answer = RangeResponse::decode(recorded.response)?;
            let header = answer.header.revision;
            let at = if 0 < r.revision && r.revision < header { r.revision } else { header };
            if best.is_none_or(|(known, _)| at < known) && usize::try_from(answer.count) == Ok(answer.len()) {
                best = Some((at, op));
            }
        }
        if let Some((revision, op)) = best {
            state.revision = revision;
            for kv in RangeResponse::decode(b.ops.get(op).response)?.kvs() {
                let kv = kv?;
                if state.replace_key(kv.key, Some(kv)).is_some() {
                    return Err(Declined::because("an answer that shows a key twice"));
                }
                if let Some(past) = &mut state.past {
                    past.insert(kv.key, vec![kv]);
                }
            }
            return Ok(Some(state));
        }
    }
    Ok(None)
}

/// What can be judged of a store that began with unknown content and was never read whole: the times.
fn without_start<'a>(
    b: &Buckets<'a>,
    watched: &Watched<'a>,
    circumstances: &Circumstances,
    go_on: &dyn Fn() -> bool,
    report: &mut Report<'a>,
) {
    let lowest = [b.writes().next().map(|(revision, _)| revision), b.readers.lowest(), b.revokes.keys().next().copied()];
    let first = lowest.into_iter().flatten().min().unwrap_or(1);
    if b.highest - first <= REVISIONS_MAX {
        let timing = time_of(b, &Nothing, first, b.highest, circumstances.real_time);
        Judging { b, timing: &timing, watched, circumstances, go_on }.times(&mut report.after);
    }
    report.undecided.push(Undecided::NoStart);
}

/// The highest revision that anything shows, below `limit`.
fn last(b: &Buckets<'_>, watched: &Watched<'_>, limit: Option<i64>) -> i64 {
    let highest = b.highest.max(watched.bounds().1.max(0));
    limit.map_or(highest, |limit| highest.min(limit - 1))
}

// ---- the parts ----

/// What every part looks at.
struct Judging<'v, 'a> {
    b: &'v Buckets<'a>,
    timing: &'v Timing,
    watched: &'v Watched<'a>,
    circumstances: &'v Circumstances,
    go_on: &'v dyn Fn() -> bool,
}

impl<'v, 'a> Judging<'v, 'a> {
    fn replay(&self, state: State<'a>, suspects: &'v mut Pool<'a>, shown: &[forks::Shown<'a>]) -> Result<Replayed<'a>, Declined> {
        let Judging { b, timing, watched, circumstances, go_on } = *self;
        // A refused request whose effect shows is a finding already; the replay takes it for a writer, so as not to find the same again.
        let mut writers = requests(b, &b.pending)?;
        writers.extend(requests(b, &shown.iter().map(|shown| shown.op).collect::<Vec<u32>>())?);
        let complete = !circumstances.shared_writers && circumstances.start_empty && !circumstances.cut;
        let grants = b.grants.iter().flat_map(|(&lease, ops)| ops.iter().map(move |&op| (lease, b.ops.call(op))));
        let mut pool = Pool::new(writers, grants, timing.real_time);
        if complete {
            pool.there_until = b.there_until()?;
        }
        let search = Search::new(b, timing, watched, circumstances.budget_s);
        let refusals = Refusals::new(b, timing, complete, circumstances)?;
        Replay::new(b, state, timing, watched, pool, suspects, search, refusals, circumstances.shared_writers, circumstances.cut, go_on)
            .run()
    }

    /// Whether no answer is of a revision before those that are replayed (an answer with header revision 0, say).
    fn all_replayed(&self) -> bool {
        let first = self.timing.first;
        let seen =
            [&self.b.readers, &self.b.old, &self.b.local].iter().all(|bucket| bucket.lowest().is_none_or(|lowest| lowest >= first - 1));
        seen && self.b.writes().next().is_none_or(|(lowest, _)| lowest >= first)
    }

    /// Writes acknowledged at a revision that an empty store has before any write, and revisions it has that were said to be in the future.
    fn before_the_start(&self, known_from_start: bool, found: &mut Vec<Problem<'a>>) {
        if self.circumstances.start_empty {
            let mut below: Vec<(u32, i64)> = self.b.writes().take_while(|&(revision, _)| revision < 2).map(|(r, op)| (op, r)).collect();
            below.sort_unstable();
            for (op, revision) in below {
                let what = What::WrongAnswer { local: false, op, expected: Expected::NothingWritten, writer: None };
                found.push(Problem { revision, what, touched: Touched::Everything });
            }
        }
        if known_from_start {
            let base = self.timing.first - 1;
            for &(revision, op) in self.b.future.iter().filter(|&&(revision, _)| revision <= base) {
                found.push(Problem { revision, what: What::FutureFromTheStart { op, base }, touched: Touched::Everything });
            }
        }
    }

    fn times(&self, found: &mut Vec<Problem<'a>>) {
        let Judging { b, timing, .. } = *self;
        for clash in &timing.clashes {
            found.push(Problem { revision: clash.late_place.div_euclid(2), what: What::OutOfTime(*clash), touched: Touched::Everything });
        }
        let futures: HashSet<u32, FixedState> = b.future.iter().map(|&(_, op)| op).collect();
        for (number, outrun) in timing.outrun.iter().enumerate() {
            let (op, above) = (outrun.op, outrun.above);
            let proof = if number < PROOFS_MAX { known_before(b, self.watched, above - 1, b.ops.call(op)) } else { None };
            let future = futures.contains(&op);
            let what = What::Outrun { op, of: outrun.revision, above, future, proof };
            found.push(Problem { revision: above, what, touched: Touched::Everything });
        }
        if timing.real_time {
            for &(revision, op) in &b.existed {
                let earliest = timing.earliest_of(revision);
                if earliest > b.ops.ret(op) {
                    found.push(Problem { revision, what: What::BeforeItsTime { op, earliest }, touched: Touched::Everything });
                }
            }
        }
    }
}

/// The finding that ends the common order at `limit`.
fn limit_problem<'a>(
    limit: i64,
    columns: &Columns<'a>,
    evidence: &Evidence<'a>,
    whole: &Buckets<'a>,
    suspects: &mut Pool<'a>,
    replayed: &Replayed<'a>,
) -> Result<Problem<'a>, Declined> {
    if let Some(difference) = evidence.watched.difference().filter(|difference| difference.revision == limit) {
        let state = (replayed.stopped.is_none() && replayed.state.revision == limit - 1).then_some(&replayed.state);
        return forks::root_of_difference(columns, evidence, difference, state, suspects, whole);
    }
    let clash = whole.clashes.iter().find(|clash| clash.0 == limit);
    let &(revision, first, second) = clash.ok_or_else(|| Declined::because("a limit without a reason"))?;
    Ok(Problem { revision, what: What::Reused { first, second }, touched: Touched::Everything })
}
