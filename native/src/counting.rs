//! Whole-history loops of the checkers in Python, each beside the function there that says the same of a history in memory.

use pekan_etcd::Evidence as Shown;
use pekan_history::{Columns, Kind, NO_ERROR, Outcome, WATCH};
use pekan_wire::{DELETE, DeleteRangeResponse, Event, Malformed, Request, Response, TxnRequest, TxnResponse, header_of};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

use crate::evidence::{Evidence, Order};
use crate::guard::guarded;
use crate::session::moment;

/// `_served` of `pekan.checkers.run`: of the operations of clients whose names begin with none of `besides`: how many, how many of them
/// succeeded, how many were called in one of `spans` ([start, end), ascending, apart), how many of those succeeded. `decided`: by error.
pub fn served(columns: &Columns<'_>, besides: &[String], decided: &[bool], spans: &[(i64, i64)]) -> (usize, usize, usize, usize) {
    let traffic: Vec<bool> = columns.names.iter().map(|name| !besides.iter().any(|prefix| name.starts_with(prefix.as_str()))).collect();
    let (mut all, mut all_ok, mut inside, mut inside_ok) = (0, 0, 0, 0);
    for op in columns.ops.iter().filter(|op| traffic[usize::from(op.client)]) {
        let ok = match op.outcome {
            Outcome::Ok => true,
            Outcome::Failed => op.error != NO_ERROR && decided.get(op.error as usize).copied().unwrap_or(false),
            Outcome::Indefinite => false,
        };
        let before = spans.partition_point(|&(start, _)| start <= op.call);
        let within = before > 0 && op.call < spans[before - 1].1;
        all += 1;
        all_ok += usize::from(ok);
        inside += usize::from(within);
        inside_ok += usize::from(ok && within);
    }
    (all, all_ok, inside, inside_ok)
}

/// `_due` of `pekan.checkers.run`, for many watches: the acknowledged changes answered in (after, until] at or above a revision.
pub fn due(columns: &Columns<'_>, watches: &[(i64, i64, i64)]) -> Result<Vec<usize>, Malformed> {
    let mut writes = Vec::new();
    for op in columns.ops.iter().filter(|op| op.outcome == Outcome::Ok) {
        let wrote = match op.kind {
            Kind::Put => true,
            Kind::DeleteRange => DeleteRangeResponse::decode(op.response)?.deleted > 0,
            Kind::Txn => TxnResponse::decode(op.response)?.responses.iter().any(changed),
            _ => false,
        };
        if wrote {
            writes.push((op.ret, op.revision));
        }
    }
    writes.sort_unstable();
    Ok(watches
        .iter()
        .map(|&(after, until, start)| {
            let low = writes.partition_point(|&(ret, _)| ret <= after);
            let high = writes.partition_point(|&(ret, _)| ret <= until);
            writes.get(low..high).unwrap_or(&[]).iter().filter(|&&(_, revision)| revision >= start).count()
        })
        .collect())
}

fn changed(answer: &Response<'_>) -> bool {
    match answer {
        Response::Put(_) => true,
        Response::DeleteRange(inner) => inner.deleted > 0,
        Response::Txn(inner) => inner.responses.iter().any(changed),
        Response::Range(_) => false,
    }
}

/// Who showed a revision: an operation or a stream, by index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shower {
    /// An answer.
    Operation(usize),
    /// A message of a watch stream.
    Stream(usize),
}

/// The first time at which a reply showed a revision or a higher one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight {
    /// When (ns).
    pub time: i64,
    /// What it showed.
    pub revision: i64,
    /// Who did.
    pub by: Shower,
}

/// `_sights` of `pekan.checkers.leases`: for each revision of `wanted` (ascending), the earliest reply that shows it or a higher one; of
/// several at that moment the one that shows most.
pub fn sights(columns: &Columns<'_>, evidence: &Shown<'_>, wanted: &[i64]) -> Result<Vec<Option<Sight>>, Malformed> {
    // By the highest wanted revision that each shows; then what shows more stands in for what shows less.
    let mut best: Vec<Option<Sight>> = vec![None; wanted.len()];
    let mut take = |sight: Sight| {
        let shows = wanted.partition_point(|&revision| revision <= sight.revision);
        if shows > 0 {
            let best = &mut best[shows - 1];
            if best.is_none_or(|best| (sight.time, -sight.revision) < (best.time, -best.revision)) {
                *best = Some(sight);
            }
        }
    };
    for (index, op) in columns.ops.iter().enumerate() {
        if op.outcome == Outcome::Ok && matches!(op.kind, Kind::Range | Kind::Put | Kind::DeleteRange | Kind::Txn) {
            take(Sight { time: op.ret, revision: op.revision, by: Shower::Operation(index) });
        }
    }
    // What belongs to a watch has been looked at before, and its header noted.
    let mut noted: Vec<Vec<u32>> = columns.streams.iter().map(|stream| vec![0; stream.messages.len()]).collect();
    for watch in &evidence.watches {
        for item in &watch.items {
            noted[watch.stream as usize][item.index as usize] = item.header;
        }
    }
    for (index, (stream, noted)) in columns.streams.iter().zip(noted).enumerate() {
        if columns.names[usize::from(stream.method)] == WATCH {
            for (message, noted) in stream.messages.iter().zip(noted).filter(|(message, _)| !message.sent) {
                let revision = if noted == 0 { header_of(message.data)?.revision } else { i64::from(noted) };
                take(Sight { time: message.time, revision, by: Shower::Stream(index) });
            }
        }
    }
    for index in (1..best.len()).rev() {
        let (low, high) = (best[index - 1], best[index]);
        if let Some(high) = high.filter(|high| low.is_none_or(|low| high.time <= low.time)) {
            best[index - 1] = Some(high);
        }
    }
    Ok(best)
}

/// `_suspects` of `pekan.checkers.leases`: the operations that may delete something, and may have done so at one of `revisions` (ascending).
pub fn suspects(columns: &Columns<'_>, revisions: &[i64]) -> Result<Vec<usize>, Malformed> {
    let mut found = Vec::new();
    for (index, op) in columns.ops.iter().enumerate() {
        if !matches!(op.kind, Kind::DeleteRange | Kind::Txn)
            || (op.outcome == Outcome::Ok && revisions.binary_search(&op.revision).is_err())
        {
            continue;
        }
        if op.kind == Kind::DeleteRange || deletes(&TxnRequest::decode(op.request)?) {
            found.push(index);
        }
    }
    Ok(found)
}

fn deletes(txn: &TxnRequest<'_>) -> bool {
    txn.success.iter().chain(&txn.failure).any(|op| match op {
        Request::DeleteRange(_) => true,
        Request::Txn(inner) => deletes(inner),
        Request::Range(_) | Request::Put(_) => false,
    })
}

/// (time, revision, operation, stream): the last two as indexes, one of them None.
type SightRow = (i64, i64, Option<usize>, Option<usize>);

/// See [`sights`].
#[pyfunction]
#[allow(clippy::needless_pass_by_value)] // PyO3 gives it so
pub fn first_sights(py: Python<'_>, evidence: &Evidence, wanted: Vec<i64>) -> PyResult<Vec<Option<SightRow>>> {
    guarded(py, evidence.session().path(), || {
        let sights = sights(evidence.columns(), evidence.shown(), &wanted).map_err(|malformed| evidence.session().declined(malformed))?;
        let row = |sight: Sight| match sight.by {
            Shower::Operation(index) => (sight.time, sight.revision, Some(index), None),
            Shower::Stream(index) => (sight.time, sight.revision, None, Some(index)),
        };
        Ok(sights.into_iter().map(|sight| sight.map(row)).collect())
    })
}

/// (member, created, cancelled, ended, lowest revision that it is to deliver, events): times in ns.
type WholeWatch<'py> = (Bound<'py, PyString>, i64, Option<i64>, Option<i64>, i64, u64);

/// `_whole_watches` of `pekan.checkers.run`: the watches of the whole keyspace, without filters, that were created.
#[pyfunction]
pub fn whole_watches<'py>(py: Python<'py>, evidence: &Evidence) -> PyResult<Vec<WholeWatch<'py>>> {
    guarded(py, evidence.session().path(), || {
        let mut rows = Vec::new();
        for (index, watch) in evidence.shown().watches.iter().enumerate() {
            let Some(created) = watch.created.filter(|_| watch.whole() && !watch.refused) else { continue };
            let stream = &evidence.columns().streams[watch.stream as usize];
            let asked = watch.request.start_revision;
            rows.push((
                evidence.session().name(py, stream.member),
                stream.messages[created as usize].time,
                watch.canceled.map(|at| stream.messages[at as usize].time),
                moment(stream.ended),
                if asked == 0 { watch.created_header + 1 } else { asked },
                evidence.events_of(index)?,
            ));
        }
        Ok(rows)
    })
}

/// `_expiries` of `pekan.checkers.leases`: (revision, lease, keys) of every deletion of keys with one lease, at a proven revision that no
/// recorded request wrote. `evidence`: that of the same history.
#[pyfunction]
#[allow(clippy::type_complexity)] // the row of a table
pub fn expiries<'py>(py: Python<'py>, order: &Order, evidence: &Evidence) -> PyResult<Vec<(i64, i64, Vec<Bound<'py, PyBytes>>)>> {
    guarded(py, evidence.session().path(), || {
        let order = order.proven();
        let lease_of = |event: &Event<'_>| event.prev_kv.filter(|_| event.kind == DELETE).map_or(0, |before| before.lease);
        let mut found = Vec::new();
        for revision in (order.first()..=order.last()).filter(|&each| order.written_by(each).is_none() && order.proves(each)) {
            let events: Vec<_> = order.events(&evidence.shown().watched, revision).collect();
            let lease = events.first().map_or(0, lease_of);
            if lease != 0 && events.iter().all(|event| lease_of(event) == lease) {
                found.push((revision, lease, events.iter().map(|event| PyBytes::new(py, event.kv.key)).collect()));
            }
        }
        Ok(found)
    })
}
