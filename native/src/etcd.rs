//! `pekan._native.Etcd`: one history of etcd under judgement, with what has been established about it so far.
//!
//! ```text
//! Etcd(session, real_time)    the evidence of its watches, merged          check_kv(..)    plain records, and the order, kept here
//! ```
//!
//! What is found goes to Python as plain tuples, which `src/pekan/checkers/native/` tells with the functions of the reference.

use pekan_etcd::check::{Report, check_kv};
use pekan_etcd::machine::Refusal;
use pekan_etcd::problem::{Clash, Effect, Exhibit, Expected, LeaseMisuse, OutOfOrder, Problem, Told, Undecided, What};
use pekan_etcd::{Answer, Circumstances, Evidence, Order};
use pekan_history::Columns;
use pekan_wire::{Event, Header, Kv};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple};

use crate::guard::guarded;
use crate::session::{Declined, Session};

/// One history of etcd under judgement.
#[pyclass(module = "pekan._native")]
pub struct Etcd {
    // Dropped in this order: views before what they look into.
    order: Option<Order<'static>>,
    evidence: Evidence<'static>,
    session: Py<Session>,
}

fn declined(session: &Session, why: &pekan_etcd::Declined) -> PyErr {
    Declined::new_err(format!("{}: {}", session.path(), why.0))
}

impl Etcd {
    /// The columns of its session.
    fn columns(&self) -> &'static Columns<'static> {
        columns_of(&self.session)
    }

    /// What its watches show.
    pub fn evidence(&self) -> &Evidence<'static> {
        &self.evidence
    }

    /// What was proven of each revision, once the key-value checker has run.
    pub fn order(&self) -> Option<&Order<'static>> {
        self.order.as_ref()
    }

    /// Its session.
    pub fn session(&self) -> &Session {
        self.session.get()
    }
}

fn columns_of(session: &Py<Session>) -> &'static Columns<'static> {
    // SAFETY: a session never changes (its class is frozen) nor moves (it lives in its Python object), and `Etcd`, which alone keeps what is
    // made of these columns, holds it until all of that is dropped.
    #[allow(unsafe_code)]
    unsafe {
        std::mem::transmute::<&Columns<'_>, &'static Columns<'static>>(session.get().columns())
    }
}

#[pymethods]
impl Etcd {
    /// Merges what the watches of `session` show. `real_time`: all times are of one clock. Raises Declined.
    #[new]
    fn new(py: Python<'_>, session: Py<Session>, real_time: bool) -> PyResult<Etcd> {
        guarded(py, session.get().path(), || {
            let evidence = Evidence::of(columns_of(&session), real_time).map_err(|why| declined(session.get(), &why))?;
            Ok(Etcd { order: None, evidence, session: session.clone_ref(py) })
        })
    }

    /// Runs the key-value checker; see `pekan.checkers.native.kv` for what it returns. `texts`: those of the refusals "future revision",
    /// "compacted", "lease not found", "key not found", "lease exists". Raises Declined.
    #[allow(clippy::too_many_arguments, clippy::fn_params_excessive_bools)] // the circumstances, one by one, by their names
    #[pyo3(signature = (*, real_time, start_empty, cut, shared_writers, budget_s, lease_time, compacts_itself, ends, texts))]
    fn check_kv<'py>(
        &mut self,
        py: Python<'py>,
        real_time: bool,
        start_empty: bool,
        cut: bool,
        shared_writers: bool,
        budget_s: Option<f64>,
        lease_time: bool,
        compacts_itself: bool,
        ends: Option<i64>,
        texts: [String; 5],
    ) -> PyResult<Bound<'py, PyDict>> {
        let columns = self.columns();
        let session = self.session.clone_ref(py);
        guarded(py, session.get().path(), || {
            let refusals = columns.errors.iter().map(|(_, text)| texts.iter().position(|each| each == text).map(refusal)).collect();
            let circumstances =
                Circumstances { real_time, start_empty, cut, shared_writers, budget_s, lease_time, compacts_itself, ends, refusals };
            let mut report = check_kv(columns, &self.evidence, &circumstances).map_err(|why| declined(session.get(), &why))?;
            self.order = report.order.take();
            Telling { py, columns }.report(&report)
        })
    }

    /// The members on each side of the first difference of two watches of everything, None without one: (revision, groups of names).
    fn sides(&self) -> Option<(i64, Vec<Vec<&'static str>>)> {
        let difference = self.evidence.watched.difference()?;
        let names = &self.columns().names;
        let groups = difference.groups.iter().map(|group| group.iter().map(|&member| names[usize::from(member)]).collect()).collect();
        Some((difference.revision, groups))
    }

    /// The first and the last revision of the order; None before the key-value checker has made one.
    #[getter]
    fn reach(&self) -> Option<(i64, i64)> {
        self.order.as_ref().map(|order| (order.first(), order.last()))
    }

    /// Lets the order end below `revision`.
    fn end_below(&mut self, revision: i64) {
        if let Some(order) = &mut self.order {
            order.end_below(revision);
        }
    }
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
