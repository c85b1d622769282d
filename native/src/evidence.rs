//! `pekan._native.Evidence` and `pekan._native.Order`: what watches show, and what is proven with it, for checkers in the core and for Python.
//!
//! Both hold views into the record of their session, and hold the session too.

use pekan_etcd::evidence::Told;
use pekan_etcd::{Evidence as Shown, Order as Proven, evidence::Watch};
use pekan_history::Columns;
use pekan_wire::{Event, Kv};
use pyo3::exceptions::{PyIndexError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString};

use crate::guard::guarded;
use crate::session::{Declined, Session};

/// What all watches of a record show, merged. Watches and streams are named by their index, messages by their index in the stream.
#[pyclass(frozen, module = "pekan._native")]
pub struct Evidence {
    // Dropped before the session that it looks into.
    shown: Shown<'static>,
    session: Py<Session>,
}

/// An answer of the core as an exception of Python.
pub fn declined(path: &str, declined: &pekan_etcd::Declined) -> PyErr {
    Declined::new_err(format!("{path}: {}", declined.0))
}

impl Evidence {
    /// The evidence, for the checkers of the core. What comes from it must not outlive `self`.
    pub fn shown(&self) -> &Shown<'static> {
        &self.shown
    }

    /// The columns that it looks into. What comes from them must not outlive `self`.
    pub fn columns(&self) -> &Columns<'static> {
        columns(&self.session)
    }

    /// The record.
    pub fn session(&self) -> &Session {
        self.session.get()
    }

    /// Watch `index`.
    pub fn watch(&self, index: usize) -> PyResult<&Watch<'static>> {
        let watch = self.shown.watches.get(index);
        watch.ok_or_else(|| PyIndexError::new_err(format!("{}: has no watch at index {index}", self.session().path())))
    }

    fn told<'py>(&self, py: Python<'py>, told: &Told<'_>) -> (u32, i64, Vec<Bound<'py, PyBytes>>) {
        (told.watch, told.time, told.events.iter().map(|event| PyBytes::new(py, event)).collect())
    }

    fn names<'py>(&self, py: Python<'py>, names: &[u16]) -> Vec<Bound<'py, PyString>> {
        names.iter().map(|&name| self.session().name(py, name)).collect()
    }
}

/// The columns of `session` for as long as somebody holds it; callers keep a `Py<Session>` beside what they take from here.
fn columns(session: &Py<Session>) -> &Columns<'static> {
    let columns: &Columns<'_> = session.get().columns();
    // SAFETY: the columns are views into the map that the session owns; the session is frozen, so neither changes. Everything made from
    // what is returned lies in a structure that holds the session too and is dropped before it (`Evidence`, `Order`).
    #[allow(unsafe_code)]
    unsafe {
        std::mem::transmute::<&Columns<'_>, &Columns<'static>>(columns)
    }
}

#[pymethods]
impl Evidence {
    /// Merges what the watches of `session` show. `real_time`: all its times are of one clock. Raises Declined.
    #[new]
    fn new(py: Python<'_>, session: Py<Session>, real_time: bool) -> PyResult<Evidence> {
        let path = session.get().path().to_owned();
        let shown = guarded(py, &path, || Shown::of(columns(&session), real_time).map_err(|why| declined(&path, &why)))?;
        Ok(Evidence { shown, session })
    }

    /// How many watches there are.
    #[getter]
    fn watches(&self) -> usize {
        self.shown.watches.len()
    }

    /// The compactions that clients asked for, in order of call: (index of the operation, revision).
    #[getter]
    fn compactions(&self) -> Vec<(u32, i64)> {
        self.shown.compactions.iter().map(|compaction| (compaction.op, compaction.revision)).collect()
    }

    /// Watch `index`: (stream, id, asked, created, canceled, cancel sent (ns), pieces, how many pieces have no last one, late, floor).
    #[allow(clippy::type_complexity)] // the row of a table
    fn of_watch(&self, index: usize) -> PyResult<(u32, i64, u32, Option<u32>, Option<u32>, Option<i64>, Vec<u32>, u32, Vec<u32>, i64)> {
        let w = self.watch(index)?;
        let (fragments, late) = (w.fragments.clone(), w.late.clone());
        Ok((w.stream, w.id, w.asked, w.created, w.canceled, w.cancel_sent, fragments, w.unfinished, late, w.floor))
    }

    /// How many messages watch `index` has, fragments put together.
    fn messages(&self, index: usize) -> PyResult<usize> {
        Ok(self.watch(index)?.items.len())
    }

    /// Message `at` of watch `index`: (its message of the stream, the last of them where it came in pieces; the pieces before).
    fn message(&self, index: usize, at: usize) -> PyResult<(u32, Vec<u32>)> {
        let watch = self.watch(index)?;
        let item = watch.items.get(at).ok_or_else(|| PyIndexError::new_err(format!("watch {index} has no message at index {at}")))?;
        Ok((item.index, watch.pieces(at).to_vec()))
    }

    /// How many events the messages of watch `index` carry, unfinished pieces apart.
    pub fn events_of(&self, index: usize) -> PyResult<u64> {
        let watch = self.watch(index)?;
        Ok(watch.items.iter().map(|item| u64::from(item.count())).sum())
    }

    /// The encoded events known of `revision`, in key order.
    fn encoded<'py>(&self, py: Python<'py>, revision: i64) -> Vec<Bound<'py, PyBytes>> {
        self.shown.watched.encoded(revision).iter().map(|event| PyBytes::new(py, event)).collect()
    }

    /// The encoded events that `member` told first of `revision`, whole; None where it told nothing.
    fn told_by<'py>(&self, py: Python<'py>, member: &str, revision: i64) -> Option<Vec<Bound<'py, PyBytes>>> {
        let names = &self.columns().names;
        let name = names.iter().position(|name| *name == member).and_then(|name| u16::try_from(name).ok())?;
        let events = self.shown.watched.told_by(name, revision)?;
        Some(events.iter().map(|event| PyBytes::new(py, event)).collect())
    }

    /// Whether whole deliveries of `revision` differ.
    fn differs(&self, revision: i64) -> bool {
        self.shown.watched.differs(revision)
    }

    /// Whether `revision` is known whole.
    fn is_whole(&self, revision: i64) -> bool {
        self.shown.watched.is_whole(revision)
    }

    /// The lowest and the highest revision of which anything may be known; (2, 1) where there is none.
    fn bounds(&self) -> (i64, i64) {
        self.shown.watched.bounds()
    }

    /// (ns, id of the stream) of the first delivery of `revision`.
    fn seen(&self, revision: i64) -> Option<(i64, u64)> {
        let seen = self.shown.watched.seen(revision)?;
        Some((seen.time, self.columns().streams[seen.stream as usize].id))
    }

    /// The first revision that two watches tell differently: (revision, the members on each side, first, second), both sides (watch, ns,
    /// encoded events).
    #[allow(clippy::type_complexity)] // as above
    fn difference<'py>(
        &self,
        py: Python<'py>,
    ) -> Option<(i64, Vec<Vec<Bound<'py, PyString>>>, (u32, i64, Vec<Bound<'py, PyBytes>>), (u32, i64, Vec<Bound<'py, PyBytes>>))> {
        let found = self.shown.watched.difference()?;
        let groups = found.groups.iter().map(|members| self.names(py, members)).collect();
        Some((found.revision, groups, self.told(py, &found.first), self.told(py, &found.second)))
    }
}

/// What is proven of each revision. Operations are named by their index.
#[pyclass(frozen, module = "pekan._native")]
pub struct Order {
    // Dropped before what it looks into.
    proven: Proven<'static>,
    evidence: Py<Evidence>,
    #[allow(dead_code)] // held, not read: `proven` looks into them
    kept: Vec<Py<PyBytes>>,
}

impl Order {
    /// An order that the core established on `evidence`; its events look into the record of that, and into nothing else.
    pub fn of(evidence: Py<Evidence>, proven: Proven<'static>) -> Order {
        Order { proven, evidence, kept: Vec::new() }
    }

    /// The order, for the checkers of the core. What comes from it must not outlive `self`.
    pub fn proven(&self) -> &Proven<'static> {
        &self.proven
    }
}

/// An event as Python has it: (type, key-value, previous key-value or None), each (key, create, mod, version, value, lease).
pub type EventRow<'py> = (i32, KvRow<'py>, Option<KvRow<'py>>);
/// See there.
pub type KvRow<'py> = (Bound<'py, PyBytes>, i64, i64, i64, Bound<'py, PyBytes>, i64);

/// `event` for Python.
pub fn event_row<'py>(py: Python<'py>, event: &Event<'_>) -> EventRow<'py> {
    let row =
        |kv: &Kv<'_>| (PyBytes::new(py, kv.key), kv.create_revision, kv.mod_revision, kv.version, PyBytes::new(py, kv.value), kv.lease);
    (event.kind, row(&event.kv), event.prev_kv.as_ref().map(row))
}

#[pymethods]
impl Order {
    /// The order that Python gives: `events` are (revision, encoded events in key order), `written_by` (revision, index of the operation).
    #[new]
    fn new(
        evidence: Py<Evidence>,
        first: i64,
        last: i64,
        events: Vec<(i64, Vec<Bound<'_, PyBytes>>)>,
        unknown: Vec<i64>,
        written_by: Vec<(i64, u32)>,
    ) -> PyResult<Order> {
        let mut kept = Vec::new();
        let mut proven = Proven::new(first);
        let not_an_event = |_| PyValueError::new_err("not an event");
        for (revision, encoded) in events {
            let watched = &evidence.get().shown.watched;
            let mut made = Vec::with_capacity(encoded.len());
            for bytes in encoded {
                let data: &[u8] = bytes.as_bytes();
                // SAFETY: bytes of Python do not change, and `kept` keeps them for as long as the order lives.
                #[allow(unsafe_code)]
                let data: &'static [u8] = unsafe { &*std::ptr::from_ref(data) };
                made.push(Event::decode(data).map_err(not_an_event)?);
                kept.push(bytes.unbind());
            }
            if !made.is_empty() && watched.events(revision).eq(made.iter().copied()) {
                proven.set_told(revision, None);
            } else {
                proven.set(revision, &made, None);
            }
        }
        for revision in unknown {
            proven.set_unknown(revision);
        }
        if last >= first && last > proven.last() {
            proven.set_unknown(last);
        }
        for (revision, writer) in written_by {
            proven.set_writer(revision, Some(writer));
        }
        Ok(Order { proven, evidence, kept })
    }

    /// The same order, ending below `revision`: what is common to members whose histories part there.
    fn below(&self, py: Python<'_>, revision: i64) -> Order {
        let mut proven = self.proven.clone();
        proven.end_below(revision);
        Order { proven, evidence: self.evidence.clone_ref(py), kept: self.kept.iter().map(|bytes| bytes.clone_ref(py)).collect() }
    }

    /// The first and the last revision covered.
    fn bounds(&self) -> (i64, i64) {
        (self.proven.first(), self.proven.last())
    }

    /// What `revision` did, in key order; None where that is not proven.
    fn events<'py>(&self, py: Python<'py>, revision: i64) -> Option<Vec<EventRow<'py>>> {
        let watched = &self.evidence.get().shown.watched;
        self.proven.proves(revision).then(|| self.proven.events(watched, revision).map(|event| event_row(py, &event)).collect())
    }

    /// The revisions that are covered and not proven.
    fn unknown<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let all = self.proven.first()..=self.proven.last();
        PyList::new(py, all.filter(|&revision| self.proven.is_unknown(revision)).collect::<Vec<_>>())
    }

    /// The same order, ending below `revision`.
    fn ending_below(&self, py: Python<'_>, revision: i64) -> Order {
        let mut proven = self.proven.clone();
        proven.end_below(revision);
        let kept = self.kept.iter().map(|bytes| bytes.clone_ref(py)).collect();
        Order { proven, evidence: self.evidence.clone_ref(py), kept }
    }

    /// Index of the operation that wrote `revision`, None where that is not known.
    fn written_by(&self, revision: i64) -> Option<u32> {
        self.proven.written_by(revision)
    }
}
