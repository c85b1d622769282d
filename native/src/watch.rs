//! `pekan._native.Watches`: the watch checker's view of one history.

use pekan_etcd::Declined;
use pekan_etcd::watch::{At, Due, Given, Truth};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyRange, PyString};

use crate::evidence::{EventRow, Evidence, Order, declined, event_row};
use crate::guard::guarded;

/// Judges the watches of `evidence` as far as they are without fault, and answers what the rules in Python ask about the rest.
///
/// Of one thread: it computes on demand and keeps what it computed.
#[pyclass(unsendable, module = "pekan._native")]
pub struct Watches {
    // Dropped before what it looks into.
    truth: Truth<'static, 'static>,
    evidence: Py<Evidence>,
    #[allow(dead_code)] // held, not read: `truth` looks into it
    order: Option<Py<Order>>,
}

/// Where a walk stands, as Python has it: (next message, place in due or None, last, first, last item or None, promised, promise or None,
/// events, progress).
type Row = (usize, Option<usize>, i64, i64, Option<usize>, i64, Option<usize>, u64, u64);

impl Watches {
    fn guarded<T>(&self, py: Python<'_>, work: impl FnOnce() -> Result<T, Declined>) -> PyResult<T> {
        let path = self.evidence.get().session().path();
        guarded(py, path, || work().map_err(|why| declined(path, &why)))
    }
}

#[pymethods]
impl Watches {
    /// `limit`: first revision of a fork. `spared`: messages of errors after which a refused Txn may have been applied elsewhere.
    #[new]
    #[pyo3(signature = (evidence, order, *, limit, real_time, exclusive, start_empty, compacts_itself, suspected_fork, spared))]
    #[allow(clippy::too_many_arguments)] // named by the caller
    fn new(
        py: Python<'_>,
        evidence: Py<Evidence>,
        order: Option<Py<Order>>,
        limit: Option<i64>,
        real_time: bool,
        exclusive: bool,
        start_empty: bool,
        compacts_itself: bool,
        suspected_fork: bool,
        spared: Vec<String>,
    ) -> PyResult<Watches> {
        let given = Given { limit, real_time, exclusive, start_empty, compacts_itself, suspected_fork, spared };
        let (shown, columns, proven) = (evidence.get().shown(), evidence.get().columns(), order.as_ref().map(|order| order.get().proven()));
        // SAFETY: evidence and order are frozen objects of Python, which do not move and do not change; both are held beside the truth and
        // dropped after it.
        #[allow(unsafe_code)]
        let (shown, columns, proven) =
            unsafe { (&*std::ptr::from_ref(shown), &*std::ptr::from_ref(columns), proven.map(|proven| &*std::ptr::from_ref(proven))) };
        let path = evidence.get().session().path();
        let truth = guarded(py, path, || Truth::new(columns, shown, proven, given).map_err(|why| declined(path, &why)))?;
        Ok(Watches { truth, evidence, order })
    }

    /// Judges every watch: (watches created, events and progress of those without fault, indexes of those that Python has to look at).
    fn judge(&self, py: Python<'_>) -> PyResult<(usize, u64, u64, Vec<u32>)> {
        let judged = self.guarded(py, || self.truth.judge())?;
        Ok((judged.opened, judged.events, judged.progress, judged.open))
    }

    /// How many revisions are proven.
    #[getter]
    fn proven(&self) -> usize {
        self.truth.proven()
    }

    /// The last revision of the order, 1 without one.
    #[getter]
    fn newest(&self) -> i64 {
        self.truth.newest()
    }

    /// Whether it rests on an order.
    #[getter]
    fn ordered(&self) -> bool {
        self.truth.ordered()
    }

    /// Whether every compaction that can have happened is in the record.
    #[getter]
    fn closed(&self) -> bool {
        self.truth.closed()
    }

    /// Of each member whose watches of everything were created: (name, whether none of them received an event, their indexes).
    fn whole_by_member<'py>(&self, py: Python<'py>) -> Vec<(Bound<'py, PyString>, bool, Vec<usize>)> {
        let (evidence, columns) = (self.evidence.get(), self.evidence.get().columns());
        let mut members: Vec<(u16, bool, Vec<usize>)> = Vec::new();
        for (index, watch) in evidence.shown().watches.iter().enumerate() {
            if !watch.whole() || watch.created.is_none() || watch.refused {
                continue;
            }
            let member = columns.streams[watch.stream as usize].member;
            let silent = watch.items.iter().all(|item| item.count() == 0);
            match members.iter_mut().find(|(name, _, _)| *name == member) {
                Some((_, all_silent, indexes)) => {
                    *all_silent &= silent;
                    indexes.push(index);
                }
                None => members.push((member, silent, vec![index])),
            }
        }
        members.into_iter().map(|(member, silent, indexes)| (evidence.session().name(py, member), silent, indexes)).collect()
    }

    /// The revisions that watch `index` has to see: a range where it is all of them, else a list.
    fn due<'py>(&self, py: Python<'py>, index: usize) -> PyResult<Bound<'py, PyAny>> {
        let watch = self.evidence.get().watch(index)?;
        match self.truth.due_of(watch) {
            Due::Range(range) => Ok(PyRange::new(py, range.start as isize, range.end as isize)?.into_any()),
            Due::List(list) => Ok(PyList::new(py, list.iter())?.into_any()),
        }
    }

    /// Passes over the messages of watch `index` that break no rule, from where the walk stands; where it stands then.
    #[pyo3(signature = (index, next, due, last, first, last_item, promised, promise))]
    #[allow(clippy::too_many_arguments)] // the row
    fn skip(
        &self,
        py: Python<'_>,
        index: usize,
        next: usize,
        due: Option<usize>,
        last: i64,
        first: i64,
        last_item: Option<usize>,
        promised: i64,
        promise: Option<usize>,
    ) -> PyResult<Row> {
        let watch = self.evidence.get().watch(index)?;
        let from = At { next, due, last, first, last_item, promised, promise, events: 0, progress: 0 };
        let at = self.guarded(py, || self.truth.skip(watch, &self.truth.due_of(watch), from))?;
        Ok((at.next, at.due, at.last, at.first, at.last_item, at.promised, at.promise, at.events, at.progress))
    }

    /// What `revision` did, in key order; None where that is not proven.
    fn made<'py>(&self, py: Python<'py>, revision: i64) -> Option<Vec<EventRow<'py>>> {
        if !self.truth.proves(revision) {
            return None;
        }
        let mut events = Vec::new();
        self.truth.made(revision, &mut events);
        Some(events.iter().map(|event| event_row(py, event)).collect())
    }

    /// Whether a compaction at or above `revision` was invoked before `by` (ns), or cannot be excluded.
    fn may_be_compacted(&self, revision: i64, by: i64) -> bool {
        self.truth.may_be_compacted(revision, by)
    }

    /// Whether a compaction of exactly `revision` was invoked before `by` (ns), or cannot be excluded.
    fn compacted_at(&self, revision: i64, by: i64) -> bool {
        self.truth.compacted_at(revision, by)
    }

    /// Whether some revision at or below `revision` was written by an operation that was invoked only after `time` (ns).
    fn invoked_after(&self, revision: i64, time: i64) -> bool {
        self.truth.invoked_after(revision, time)
    }

    /// The lowest revision whose acknowledged writer was invoked after `time` (ns).
    fn first_invoked_after(&self, time: i64) -> i64 {
        self.truth.first_invoked_after(time)
    }

    /// The highest revision that can exist at `time` (ns); with `unseen_by`, if that watch had nothing to see above the newest.
    #[pyo3(signature = (time, unseen_by=None))]
    fn reachable(&self, py: Python<'_>, time: i64, unseen_by: Option<usize>) -> PyResult<Option<i64>> {
        let watch = unseen_by.map(|index| self.evidence.get().watch(index)).transpose()?;
        self.guarded(py, || self.truth.reachable(time, watch.map(|watch| &watch.request)))
    }

    /// Revisions that an acknowledged request wrote while watch `index` was connected, at or above its start.
    fn missed(&self, py: Python<'_>, index: usize) -> PyResult<usize> {
        let watch = self.evidence.get().watch(index)?;
        self.guarded(py, || Ok(self.truth.due_while_connected(watch)))
    }
}
