//! Common answers, seen at once to be right: nearly all are of a few shapes, and a few comparisons do without making the right answer.
//! What is not confirmed here is no finding; it goes the general way of the replay.
//!
//! Nothing is decoded that need not be: a key-value of an answer whose bytes are those that the store's key-value came with is equal.

use pekan_history::{Kind, Op};
use pekan_wire::numbers as n;
use pekan_wire::{Compare, DELETE, Decoded, DeleteRangeRequest, Event, Field, Fields, Header, PutRequest, RangeRequest};

use crate::machine::{Held, State, has_filters, holds, put_event, tombstone};

/// Operations of a Txn beyond which it is judged the general way: what one of them sees of the others is searched for one by one.
const OPERATIONS_MAX: usize = 16;

/// Whether the answer to a common write (a Put, a deletion of one key, a Txn of these and of reads of single keys) is right. Fills `events`:
/// in key order, of different keys, each with its `prev_kv`; empty where the answer is right and nothing was changed.
#[inline]
pub fn write<'a>(state: &State<'a>, op: &Op<'a>, revision: i64, events: &mut Vec<Event<'a>>) -> Decoded<bool> {
    events.clear();
    match op.kind {
        Kind::Put => put(state, op.request, op.response, revision, events).map(|done| done.is_some()),
        Kind::DeleteRange => delete(state, op.request, op.response, revision, events).map(|done| done.is_some()),
        Kind::Txn => {
            let right = txn(state, op.request, op.response, revision, events)?;
            if events.len() > 1 {
                events.sort_unstable_by_key(|event| event.kv.key);
            }
            Ok(right)
        }
        _ => Ok(false),
    }
}

/// What `key` has by now: what the transaction made of it, else what the store has.
enum Now<'s, 'a> {
    Absent,
    Stored(&'s Held<'a>),
    /// Written by the transaction before: left to the general way, which knows what a second write of a key means.
    Written,
}

#[inline]
fn now<'s, 'a>(state: &'s State<'a>, events: &[Event<'a>], key: &[u8]) -> Now<'s, 'a> {
    if events.iter().any(|event| event.kv.key == key) {
        return Now::Written;
    }
    state.held(key).map_or(Now::Absent, Now::Stored)
}

/// The encoded header of an answer the rest of which is right; None where that is not confirmed.
type Confirmed<'a> = Option<&'a [u8]>;

#[inline]
fn put<'a>(state: &State<'a>, request: &'a [u8], response: &'a [u8], revision: i64, events: &mut Vec<Event<'a>>) -> Decoded<Confirmed<'a>> {
    use n::put_response as f;
    let r = PutRequest::decode(request)?;
    let (mut header, mut shown): (&'a [u8], &'a [u8]) = (&[], &[]);
    let mut fields = Fields::new(response);
    while let Some((number, field)) = fields.step()? {
        match number {
            f::HEADER => header = field.bytes()?,
            f::PREV_KV => shown = field.bytes()?,
            _ => {}
        }
    }
    if r.ignore_value || r.ignore_lease {
        return Ok(None);
    }
    let old = match now(state, events, r.key) {
        Now::Absent => None,
        Now::Stored(held) => Some(held),
        Now::Written => return Ok(None),
    };
    let right = match old {
        Some(held) if r.prev_kv => !shown.is_empty() && held.is(shown)?,
        _ => shown.is_empty(),
    };
    if !right {
        return Ok(None);
    }
    events.push(put_event(&r, old.map(|held| &held.kv), revision));
    Ok(Some(header))
}

#[inline]
fn delete<'a>(
    state: &State<'a>,
    request: &'a [u8],
    response: &'a [u8],
    revision: i64,
    events: &mut Vec<Event<'a>>,
) -> Decoded<Confirmed<'a>> {
    use n::delete_range_response as f;
    let r = DeleteRangeRequest::decode(request)?;
    let (mut header, mut deleted, mut shown, mut more): (&'a [u8], i64, Option<&'a [u8]>, bool) = (&[], 0, None, false);
    let mut fields = Fields::new(response);
    while let Some((number, field)) = fields.step()? {
        match number {
            f::HEADER => header = field.bytes()?,
            f::DELETED => deleted = field.int()?,
            f::PREV_KVS => more |= shown.replace(field.bytes()?).is_some(),
            _ => {}
        }
    }
    if !r.range_end.is_empty() || more {
        return Ok(None);
    }
    match now(state, events, r.key) {
        Now::Absent if deleted == 0 && shown.is_none() => {}
        Now::Stored(held) => {
            let right = deleted == 1
                && match shown {
                    Some(shown) => r.prev_kv && held.is(shown)?,
                    None => !r.prev_kv,
                };
            if !right {
                return Ok(None);
            }
            events.push(Event { kind: DELETE, kv: tombstone(held.kv.key, revision), prev_kv: Some(held.kv) });
        }
        _ => return Ok(None),
    }
    Ok(Some(header))
}

/// A read of one key as it is.
#[inline]
fn read<'a>(state: &State<'a>, request: &'a [u8], response: &'a [u8], events: &[Event<'a>]) -> Decoded<Confirmed<'a>> {
    let r = RangeRequest::decode(request)?;
    let plain = r.range_end.is_empty() && r.limit == 0 && r.revision == 0 && r.sort_order == 0 && r.sort_target == 0;
    if !plain || r.keys_only || r.count_only || has_filters(&r) {
        return Ok(None);
    }
    let held = match now(state, events, r.key) {
        Now::Absent => None,
        Now::Stored(held) => Some(held),
        Now::Written => return Ok(None),
    };
    let (right, header) = shows(response, held.into_iter(), i64::from(held.is_some()), false)?;
    Ok(right.then_some(header))
}

/// Whether the answer to a Txn is right; fills `events`, of different keys, in order of execution.
#[inline]
fn txn<'a>(state: &State<'a>, request: &'a [u8], response: &'a [u8], revision: i64, events: &mut Vec<Event<'a>>) -> Decoded<bool> {
    use n::txn_request as f;
    let mut succeeded = false;
    let mut fields = Fields::new(response);
    while let Some((number, field)) = fields.step()? {
        if number == n::txn_response::SUCCEEDED {
            succeeded = field.truth()?;
        }
    }
    let taken = if succeeded { f::SUCCESS } else { f::FAILURE };
    let (mut held, mut asked) = (true, 0);
    let mut fields = Fields::new(request);
    while let Some((number, field)) = fields.step()? {
        if number == f::COMPARE {
            held = held && holds(state, &Compare::decode(field.bytes()?)?);
        } else if number == taken {
            asked += 1;
        }
    }
    if held != succeeded || asked > OPERATIONS_MAX {
        return Ok(false);
    }
    let (mut requests, mut responses) = (Fields::new(request), Fields::new(response));
    loop {
        match (next(&mut requests, taken)?, next(&mut responses, n::txn_response::RESPONSES)?) {
            (None, None) => return Ok(true),
            (Some(request), Some(response)) => {
                let (Some((asked, request)), Some((answered, response))) = (operation(request)?, operation(response)?) else {
                    return Ok(false);
                };
                let confirmed = match (asked, answered) {
                    (n::request_op::REQUEST_PUT, n::response_op::RESPONSE_PUT) => put(state, request, response, revision, events)?,
                    (n::request_op::REQUEST_DELETE_RANGE, n::response_op::RESPONSE_DELETE_RANGE) => {
                        delete(state, request, response, revision, events)?
                    }
                    (n::request_op::REQUEST_RANGE, n::response_op::RESPONSE_RANGE) => read(state, request, response, events)?,
                    _ => None,
                };
                // A revision and nothing else, or nothing at all.
                let Some(header) = confirmed else { return Ok(false) };
                let header = Header::decode(header)?.revision;
                if header != 0 && header != state.revision + i64::from(!events.is_empty()) {
                    return Ok(false);
                }
            }
            _ => return Ok(false),
        }
    }
}

/// The next field `wanted`, which has bytes.
#[inline]
fn next<'a>(fields: &mut Fields<'a>, wanted: u32) -> Decoded<Option<&'a [u8]>> {
    while let Some((number, field)) = fields.step()? {
        if number == wanted {
            return field.bytes().map(Some);
        }
    }
    Ok(None)
}

/// The one field of an operation of a Txn, or of its answer; None where there is more.
#[inline]
fn operation(data: &[u8]) -> Decoded<Option<(u32, &[u8])>> {
    let mut fields = Fields::new(data);
    let first = fields.step()?;
    let alone = fields.step()?.is_none();
    Ok(match first {
        Some((number, Field::Bytes(bytes))) if alone => Some((number, bytes)),
        _ => None,
    })
}

/// Whether an answer that changed nothing is right: of a deletion of one key that was not there, or of a Txn.
#[inline]
pub fn nothing_changed<'a>(state: &State<'a>, op: &Op<'a>, events: &mut Vec<Event<'a>>) -> Decoded<bool> {
    Ok(write(state, op, state.revision + 1, events)? && events.is_empty())
}

/// Whether a Range's answer shows `count` keys, and of them these, in this order; and its header.
#[inline]
fn shows<'s, 'a: 's>(response: &'a [u8], mut held: impl Iterator<Item = &'s Held<'a>>, count: i64, cut: bool) -> Decoded<(bool, &'a [u8])> {
    use n::range_response as f;
    let (mut header, mut more, mut counted): (&'a [u8], bool, i64) = (&[], false, 0);
    let mut right = true;
    let mut fields = Fields::new(response);
    while let Some((number, field)) = fields.step()? {
        match number {
            f::HEADER => header = field.bytes()?,
            f::KVS => {
                let shown = field.bytes()?;
                match held.next() {
                    Some(held) if held.is(shown)? => {}
                    _ => {
                        right = false;
                        break;
                    }
                }
            }
            f::MORE => more = field.truth()?,
            f::COUNT => counted = field.int()?,
            _ => {}
        }
    }
    Ok((right && counted == count && more == cut && held.next().is_none(), header))
}

/// Whether a Range that asks for nothing that changes the shape of its answer shows what is there. `old`: the state is that of the revision
/// that it named, else of its header's.
#[inline]
pub fn range<'a>(state: &State<'a>, op: &Op<'a>, old: bool) -> Decoded<bool> {
    let r = RangeRequest::decode(op.request)?;
    if r.revision != 0 {
        if 0 < r.revision && r.revision < op.revision && !old {
            return Ok(true);
        }
        if r.revision > op.revision {
            return Ok(false);
        }
    }
    let signed = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    if r.count_only {
        // Counted before filters, order and limit.
        let count =
            if r.range_end.is_empty() { usize::from(state.get(r.key).is_some()) } else { state.count(state.span(r.key, r.range_end)) };
        return Ok(shows(op.response, std::iter::empty(), signed(count), false)?.0);
    }
    if r.sort_order != 0 || r.sort_target != 0 || has_filters(&r) || r.keys_only {
        return Ok(false);
    }
    if r.range_end.is_empty() {
        let held = state.held(r.key);
        return Ok(shows(op.response, held.into_iter(), i64::from(held.is_some()), false)?.0);
    }
    let span = state.span(r.key, r.range_end);
    let count = state.count(span);
    let limit = usize::try_from(r.limit).unwrap_or(0);
    let cut = 0 < limit && limit < count;
    let size = if cut { limit } else { count };
    Ok(shows(op.response, state.held_within(span).take(size), signed(count), cut)?.0)
}
