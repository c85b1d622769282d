//! Common answers, seen at once to be right: nine in ten are of a few shapes, and a few comparisons do without making the right answer.
//! What is not confirmed here is no finding; it goes the general way of the replay.

use pekan_history::{Kind, Op};
use pekan_wire::{
    Compare, DELETE, DeleteRangeRequest, DeleteRangeResponse, Event, Kv, PutRequest, PutResponse, RangeRequest, RangeResponse, Request,
    Response, TxnRequest, TxnResponse,
};

use crate::machine::{State, has_filters, holds, put_event, tombstone};
use crate::request::Declined;

/// The one event of a common write (a Put, a deletion of one key, a Txn that did one of these) whose answer is right; else None.
#[inline]
pub fn write<'a>(state: &State<'a>, op: &Op<'a>, revision: i64) -> Result<Option<Event<'a>>, Declined> {
    match op.kind {
        Kind::Put => put(state, &PutRequest::decode(op.request)?, &PutResponse::decode(op.response)?, revision),
        Kind::DeleteRange => delete(state, &DeleteRangeRequest::decode(op.request)?, &DeleteRangeResponse::decode(op.response)?, revision),
        Kind::Txn => {
            let (request, response) = (TxnRequest::decode(op.request)?, TxnResponse::decode(op.response)?);
            let taken = if response.succeeded { &request.success } else { &request.failure };
            let ([taken], [answer]) = (&taken[..], &response.responses[..]) else { return Ok(None) };
            if guarded(state, &request.compare) != response.succeeded {
                return Ok(None);
            }
            match (taken, answer) {
                (Request::Put(r), Response::Put(a)) if ours(a.header.revision, revision) => put(state, r, a, revision),
                (Request::DeleteRange(r), Response::DeleteRange(a)) if ours(a.header.revision, revision) => delete(state, r, a, revision),
                _ => Ok(None),
            }
        }
        _ => Ok(None),
    }
}

/// Whether the header of an answer inside a Txn is one that etcd gives at `revision`.
#[inline]
fn ours(header: i64, revision: i64) -> bool {
    header == 0 || header == revision
}

/// Which branch a Txn takes here.
#[inline]
fn guarded(state: &State<'_>, compares: &[Compare<'_>]) -> bool {
    compares.iter().all(|guard| holds(state, guard))
}

#[inline]
fn put<'a>(state: &State<'a>, r: &PutRequest<'a>, answer: &PutResponse<'a>, revision: i64) -> Result<Option<Event<'a>>, Declined> {
    if r.ignore_value || r.ignore_lease {
        return Ok(None);
    }
    let old = state.get(r.key);
    let right = if r.prev_kv { answer.prev_kv.as_ref() == old } else { answer.prev_kv.is_none() };
    Ok(right.then(|| put_event(r, old, revision)))
}

#[inline]
fn delete<'a>(
    state: &State<'a>,
    r: &DeleteRangeRequest<'a>,
    answer: &DeleteRangeResponse<'a>,
    revision: i64,
) -> Result<Option<Event<'a>>, Declined> {
    if !r.range_end.is_empty() || answer.deleted != 1 {
        return Ok(None);
    }
    let Some(old) = state.get(r.key) else { return Ok(None) };
    let mut shown = answer.prev_kvs();
    let right = match shown.next().transpose()? {
        Some(kv) => r.prev_kv && kv == *old && shown.next().is_none(),
        None => !r.prev_kv,
    };
    Ok(right.then(|| Event { kind: DELETE, kv: tombstone(old.key, revision), prev_kv: Some(*old) }))
}

/// Whether a DeleteRange was of one key that was not there, and says so.
#[inline]
pub fn nothing_deleted<'a>(state: &State<'a>, op: &Op<'a>) -> Result<bool, Declined> {
    let (r, answer) = (DeleteRangeRequest::decode(op.request)?, DeleteRangeResponse::decode(op.response)?);
    Ok(r.range_end.is_empty() && answer.deleted == 0 && state.get(r.key).is_none() && answer.prev_kvs().next().is_none())
}

/// Whether a Txn at most read single keys, and saw what is there.
#[inline]
pub fn reads<'a>(state: &State<'a>, op: &Op<'a>, revision: i64) -> Result<bool, Declined> {
    let (request, response) = (TxnRequest::decode(op.request)?, TxnResponse::decode(op.response)?);
    let taken = if response.succeeded { &request.success } else { &request.failure };
    if taken.len() != response.responses.len() || guarded(state, &request.compare) != response.succeeded {
        return Ok(false);
    }
    for (asked, answer) in taken.iter().zip(&response.responses) {
        let (Request::Range(r), Response::Range(answer)) = (asked, answer) else { return Ok(false) };
        let plain = r.range_end.is_empty() && r.limit == 0 && r.revision == 0 && r.sort_order == 0 && r.sort_target == 0;
        if !plain
            || r.keys_only
            || r.count_only
            || has_filters(r)
            || !ours(answer.header.revision, revision)
            || !shows_one(state.get(r.key), answer)?
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether `answer` shows `kv` and nothing else.
#[inline]
fn shows_one<'a>(kv: Option<&Kv<'a>>, answer: &RangeResponse<'a>) -> Result<bool, Declined> {
    if answer.more {
        return Ok(false);
    }
    let mut shown = answer.kvs();
    Ok(match kv {
        None => answer.is_empty() && answer.count == 0,
        Some(kv) => answer.len() == 1 && answer.count == 1 && shown.next().transpose()?.as_ref() == Some(kv),
    })
}

/// Whether a Range that asks for nothing that changes the shape of its answer shows what is there. `old`: the state is that of the revision
/// that it named, else of its header's.
#[inline]
pub fn range<'a>(state: &State<'a>, op: &Op<'a>, old: bool) -> Result<bool, Declined> {
    let (r, answer) = (RangeRequest::decode(op.request)?, RangeResponse::decode(op.response)?);
    if r.revision != 0 {
        if 0 < r.revision && r.revision < answer.header.revision && !old {
            return Ok(true);
        }
        if r.revision > answer.header.revision {
            return Ok(false);
        }
    }
    if r.count_only {
        // Counted before filters, order and limit.
        let count =
            if r.range_end.is_empty() { usize::from(state.get(r.key).is_some()) } else { state.count(state.span(r.key, r.range_end)) };
        return Ok(usize::try_from(answer.count) == Ok(count) && answer.is_empty() && !answer.more);
    }
    if r.sort_order != 0 || r.sort_target != 0 || has_filters(&r) || r.keys_only {
        return Ok(false);
    }
    if r.range_end.is_empty() {
        return shows_one(state.get(r.key), &answer);
    }
    let span = state.span(r.key, r.range_end);
    let count = state.count(span);
    let limit = usize::try_from(r.limit).unwrap_or(0);
    let cut = 0 < limit && limit < count;
    let size = if cut { limit } else { count };
    if usize::try_from(answer.count) != Ok(count) || answer.more != cut || answer.len() != size {
        return Ok(false);
    }
    for (shown, kv) in answer.kvs().zip(state.within(span)) {
        if shown? != *kv {
            return Ok(false);
        }
    }
    Ok(true)
}
