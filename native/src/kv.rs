//! `pekan._native.check_kv`: the key-value checker.
//!
//! ```text
//! Evidence, circumstances ──> check_kv(..) ──> plain records: what was counted, found, not decided      and the Order that was proven
//! ```
//!
//! Records are tuples that begin with their kind; `src/pekan/checkers/native/kv.py` tells them with the functions of the reference.

use std::cell::RefCell;

use pekan_etcd::check::{Report, check_kv as judge};
use pekan_etcd::machine::Refusal;
use pekan_etcd::problem::{Clash, Effect, Exhibit, Expected, LeaseMisuse, OutOfOrder, Problem, Told, Undecided, What};
use pekan_etcd::{Answer, Circumstances};
use pekan_history::Columns;
use pekan_wire::{Event, Header, Kv};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple};

use crate::evidence::{Evidence, Order, declined};
use crate::guard::guarded;

/// Judges every key-value operation: the report, and the order that was proven (None where nothing was replayed).
///
/// `texts`: those of the refusals "future revision", "compacted", "lease not found", "key not found", "lease exists". `ends`: when a second
/// epoch began (ns). The others are as the checker in Python has them. Raises Declined.
#[pyfunction]
#[allow(clippy::too_many_arguments, clippy::fn_params_excessive_bools)] // named by the caller
#[pyo3(signature = (evidence, *, real_time, start_empty, cut, shared_writers, budget_s, lease_time, compacts_itself, ends, texts))]
pub fn check_kv<'py>(
    py: Python<'py>,
    evidence: Py<Evidence>,
    real_time: bool,
    start_empty: bool,
    cut: bool,
    shared_writers: bool,
    budget_s: Option<f64>,
    lease_time: bool,
    compacts_itself: bool,
    ends: Option<i64>,
    texts: [String; 5],
) -> PyResult<(Bound<'py, PyDict>, Option<Order>)> {
    let path = evidence.get().session().path().to_owned();
    guarded(py, &path, || {
        let (shown, columns) = (evidence.get().shown(), evidence.get().columns());
        // SAFETY: a frozen object of Python, which does not move and does not change; the only thing that outlives this call, the order, is
        // given `evidence` to hold.
        #[allow(unsafe_code)]
        let (shown, columns) = unsafe { (&*std::ptr::from_ref(shown), &*std::ptr::from_ref::<Columns<'static>>(columns)) };
        let refusals = columns.errors.iter().map(|(_, text)| texts.iter().position(|each| each == text).map(refusal)).collect();
        let circumstances =
            Circumstances { real_time, start_empty, cut, shared_writers, budget_s, lease_time, compacts_itself, ends, refusals };
        let interrupted = RefCell::new(None);
        let go_on = || match py.check_signals() {
            Ok(()) => true,
            Err(signal) => {
                interrupted.replace(Some(signal));
                false
            }
        };
        let judged = judge(columns, shown, &circumstances, &go_on);
        let mut report = judged.map_err(|why| interrupted.take().unwrap_or_else(|| declined(&path, &why)))?;
        let order = report.order.take().map(|proven| Order::of(evidence.clone_ref(py), proven));
        Ok((Telling { py, columns }.report(&report)?, order))
    })
}

fn refusal(index: usize) -> Refusal {
    match index {
        0 => Refusal::FutureRevision,
        1 => Refusal::Compacted,
        2 => Refusal::LeaseNotFound,
        3 => Refusal::KeyNotFound,
        _ => Refusal::LeaseExists,
    }
}

fn index_of(refusal: Refusal) -> usize {
    match refusal {
        Refusal::FutureRevision => 0,
        Refusal::Compacted => 1,
        Refusal::LeaseNotFound => 2,
        Refusal::KeyNotFound => 3,
        Refusal::LeaseExists => 4,
    }
}

/// Plain data of the core as tuples. Operations stay indexes; streams become their ids, members their names.
#[derive(Clone, Copy)]
struct Telling<'py> {
    py: Python<'py>,
    columns: &'static Columns<'static>,
}

type Any<'py> = Bound<'py, PyAny>;

impl<'py> Telling<'py> {
    fn report(self, report: &Report<'_>) -> PyResult<Bound<'py, PyDict>> {
        let told = PyDict::new(self.py);
        told.set_item("applicable", report.applicable)?;
        let c = report.counts;
        let counts = PyDict::new(self.py);
        counts.set_item("operations", c.operations)?;
        counts.set_item("acknowledged writes", c.acknowledged_writes)?;
        counts.set_item("readers", c.readers)?;
        counts.set_item("local answers", c.local_answers)?;
        counts.set_item("compares only", c.compares_only)?;
        counts.set_item("indefinite writes", c.indefinite_writes)?;
        counts.set_item("refused", c.refused)?;
        if let Some(r) = report.replayed {
            counts.set_item("revisions", r.revisions)?;
            counts.set_item("gaps", r.gaps)?;
            counts.set_item("gaps matched", r.gaps_matched)?;
            counts.set_item("gaps searched", r.gaps_searched)?;
            counts.set_item("search nodes", r.search_nodes)?;
            counts.set_item("after the fork", report.beyond)?;
        }
        told.set_item("counts", counts)?;
        told.set_item("before", self.problems(&report.before)?)?;
        told.set_item("replay", self.problems(&report.replay)?)?;
        told.set_item("after", self.problems(&report.after)?)?;
        told.set_item("compares", self.problems(&report.compares)?)?;
        let undecided: Vec<(&str, i64, i64)> = report.undecided.iter().map(|&each| undecided(each)).collect();
        told.set_item("undecided", undecided)?;
        told.set_item("limit", report.limit)?;
        told.set_item("replayed", report.replayed.is_some())?;
        Ok(told)
    }

    fn tuple<const N: usize>(self, items: [Any<'py>; N]) -> PyResult<Any<'py>> {
        Ok(PyTuple::new(self.py, items)?.into_any())
    }

    fn any(self, item: impl IntoPyObjectExt<'py>) -> PyResult<Any<'py>> {
        item.into_bound_py_any(self.py)
    }

    fn list<T>(self, items: &[T], each: impl Fn(&T) -> PyResult<Any<'py>>) -> PyResult<Any<'py>> {
        let items: Vec<Any<'py>> = items.iter().map(each).collect::<PyResult<_>>()?;
        Ok(PyTuple::new(self.py, items)?.into_any())
    }

    fn option<T>(self, item: Option<&T>, each: impl Fn(&T) -> PyResult<Any<'py>>) -> PyResult<Any<'py>> {
        match item {
            Some(item) => each(item),
            None => Ok(self.py.None().into_bound(self.py)),
        }
    }

    fn bytes(self, data: &[u8]) -> Any<'py> {
        PyBytes::new(self.py, data).into_any()
    }

    fn problems(self, problems: &[Problem<'_>]) -> PyResult<Bound<'py, PyList>> {
        let told: Vec<Any<'py>> = problems.iter().map(|problem| self.problem(problem)).collect::<PyResult<_>>()?;
        PyList::new(self.py, told)
    }

    /// (kind, revision, what else the kind needs, ...)
    fn problem(self, problem: &Problem<'_>) -> PyResult<Any<'py>> {
        let revision = problem.revision;
        let (kind, rest) = match &problem.what {
            What::WrongAnswer { local, op, expected, writer } => {
                let writer = self.option(writer.as_ref(), |writer| self.exhibit(writer))?;
                ("wrong answer", self.any((*local, *op, self.expected(expected)?, writer))?)
            }
            What::Unexplained { events, around, tried } => {
                ("unexplained", self.any((self.events(events)?, self.exhibits(around)?, *tried))?)
            }
            What::Twice { events, first, at, around } => ("twice", self.any((self.events(events)?, *first, *at, self.exhibits(around)?))?),
            What::RefusedButApplied { op, effect, evidence } => {
                ("refused but applied", self.any((*op, self.effect(effect)?, self.exhibits(evidence)?))?)
            }
            What::LostWrite { op, events, evidence } => ("lost write", self.any((*op, self.events(events)?, self.exhibit(evidence)?))?),
            What::Reused { first, second } => ("reused", self.any((*first, *second))?),
            What::OutOfTime(Clash { late, late_place, early, early_place, future }) => {
                ("out of time", self.any((*late, *late_place, *early, *early_place, *future))?)
            }
            What::Outrun { op, of, above, future, proof } => {
                let proof = self.option(proof.as_ref(), |proof| self.exhibit(proof))?;
                ("outrun", self.any((*op, *of, *above, *future, proof))?)
            }
            What::FutureFromTheStart { op, base } => ("future from the start", self.any((*op, *base))?),
            What::BeforeItsTime { op, earliest } => ("before its time", self.any((*op, *earliest))?),
            What::Stale { op, known } => ("stale", self.any((*op, self.option(known.as_ref(), |known| self.exhibit(known))?))?),
            What::CompactedTwice { first, second } => ("compacted twice", self.any((*first, *second))?),
            What::CompactedOutOfOrder { op, why } => {
                let (why, other) = match why {
                    OutOfOrder::TooEarly => ("too early", None),
                    OutOfOrder::ReadBelow(read) => ("read below", Some(*read)),
                    OutOfOrder::CompactedBelow(below) => ("compacted below", Some(*below)),
                    OutOfOrder::ReadBelowByRevision(read) => ("read below by revision", *read),
                };
                ("compacted out of order", self.any((*op, why, other))?)
            }
            What::CompactedUnexplained { op } => ("compacted unexplained", self.any((*op,))?),
            What::Lease { op, other, how } => {
                let how = match how {
                    LeaseMisuse::NeverGranted => "never granted",
                    LeaseMisuse::BeforeGrant => "before grant",
                    LeaseMisuse::AfterRevoke => "after revoke",
                    LeaseMisuse::RevokedAgain => "revoked again",
                };
                ("lease", self.any((*op, *other, how))?)
            }
            What::WrongRefusal { op, evidence } => ("wrong refusal", self.any((*op, evidence.clone()))?),
            What::MemberDiverged { first, second } => ("member diverged", self.any((self.told(first)?, self.told(second)?))?),
        };
        self.any((kind, revision, rest))
    }

    fn expected(self, expected: &Expected<'_>) -> PyResult<Any<'py>> {
        match expected {
            Expected::Answer(answer) => self.any(("answer", self.answer(answer)?)),
            Expected::Refusal(refusal) => self.any(("refusal", index_of(*refusal))),
            Expected::InTheFuture => self.any(("in the future",)),
            Expected::NothingWritten => self.any(("nothing written",)),
            Expected::Succeeded(succeeded) => self.any(("succeeded", *succeeded)),
            Expected::StillAttached(count, key) => self.any(("still attached", *count, self.bytes(key))),
        }
    }

    fn effect(self, effect: &Effect<'_>) -> PyResult<Any<'py>> {
        match effect {
            Effect::Events(events) => self.any(("events", self.events(events)?)),
            Effect::Value(key, value) => self.any(("value", self.bytes(key), self.bytes(value))),
        }
    }

    fn header(self, header: Header) -> PyResult<Any<'py>> {
        self.any((header.cluster_id, header.member_id, header.revision, header.raft_term))
    }

    fn answer(self, answer: &Answer<'_>) -> PyResult<Any<'py>> {
        let kvs = |kvs: &[Kv<'_>]| self.list(kvs, |kv| self.kv(kv));
        let header = self.header(answer.header())?;
        match answer {
            Answer::Range { kvs: shown, more, count, .. } => self.any(("Range", header, kvs(shown)?, *more, *count)),
            Answer::Put { prev_kv, .. } => self.any(("Put", header, self.option(prev_kv.as_ref(), |kv| self.kv(kv))?)),
            Answer::DeleteRange { deleted, prev_kvs, .. } => self.any(("DeleteRange", header, *deleted, kvs(prev_kvs)?)),
            Answer::Txn { succeeded, responses, .. } => {
                self.any(("Txn", header, *succeeded, self.list(responses, |inner| self.answer(inner))?))
            }
            Answer::Compaction { .. } => self.any(("Compaction", header)),
            Answer::LeaseGrant { id, ttl, .. } => self.any(("LeaseGrant", header, *id, *ttl)),
            Answer::LeaseRevoke { .. } => self.any(("LeaseRevoke", header)),
        }
    }

    fn kv(self, kv: &Kv<'_>) -> PyResult<Any<'py>> {
        self.any((self.bytes(kv.key), kv.create_revision, kv.mod_revision, kv.version, self.bytes(kv.value), kv.lease))
    }

    fn events(self, events: &[Event<'_>]) -> PyResult<Any<'py>> {
        self.list(events, |event| {
            let prev_kv = self.option(event.prev_kv.as_ref(), |kv| self.kv(kv))?;
            self.tuple([self.any(event.kind)?, self.kv(&event.kv)?, prev_kv])
        })
    }

    fn exhibits(self, exhibits: &[Exhibit<'_>]) -> PyResult<Any<'py>> {
        self.list(exhibits, |exhibit| self.exhibit(exhibit))
    }

    fn exhibit(self, exhibit: &Exhibit<'_>) -> PyResult<Any<'py>> {
        let seen_by = |seen: &Option<(i64, u32)>| seen.map(|(time, stream)| (time, self.stream(stream)));
        match exhibit {
            Exhibit::Op(op) => self.any(("operation", *op)),
            Exhibit::Existed(op, revision) => self.any(("existed", *op, *revision)),
            Exhibit::Seen { revision, seen, events } => self.any(("seen", *revision, seen_by(seen), self.events(events)?)),
            Exhibit::Delivered { revision, time, stream } => self.any(("delivered", *revision, *time, self.stream(*stream))),
            Exhibit::Showing { revision, seen, events } => self.any(("showing", *revision, seen_by(seen), self.events(events)?)),
            Exhibit::Told(told) => self.any(("told", self.told(told)?)),
        }
    }

    fn told(self, told: &Told<'_>) -> PyResult<Any<'py>> {
        let member = self.columns.names.get(usize::from(told.member)).copied().unwrap_or_default();
        self.any((told.revision, member, self.stream(told.stream), told.time, self.events(&told.events)?))
    }

    fn stream(self, index: u32) -> Option<u64> {
        self.columns.streams.get(index as usize).map(|stream| stream.id)
    }
}

/// (kind, its numbers; 0 where there is none).
fn undecided(each: Undecided) -> (&'static str, i64, i64) {
    match each {
        Undecided::Foreign(revision) => ("foreign", revision, 0),
        Undecided::LostTail(revision) => ("lost tail", revision, 0),
        Undecided::Exhausted(nodes, gaps) => ("exhausted", nodes, gaps),
        Undecided::TooFar(revisions) => ("too far", revisions, 0),
        Undecided::NoStart => ("no start", 0, 0),
        Undecided::Restored => ("restored", 0, 0),
    }
}
