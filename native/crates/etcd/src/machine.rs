//! etcd's key-value machine: what every request answers and changes. The same machine as `src/pekan/models/etcd.py`, whose docstring has
//! the table and the places in etcd where each rule is decided.
//!
//! ```text
//! evaluate(state, request, told) ──> Answered(answer, events) | Refused(why)      changes nothing
//! effect(state, request)         ──> events, Ranges not looked at                 changes nothing
//! state.advance(revision, events)                                                 puts events into the state
//! ```
//!
//! Keys, values and key-values are views into the history file; the state owns nothing but its tables.

use std::collections::{BTreeMap, BTreeSet};

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use pekan_wire::{
    CREATE, Compare, DELETE, Decoded, DeleteRangeRequest, EQUAL, Event, GREATER, Header, Kv, LEASE, LESS, MOD, NOT_EQUAL, Operand, PUT,
    PutRequest, RangeRequest, Request, TxnRequest, VALUE, VERSION,
};

use crate::keys::{Keys, Span};
use crate::request::{Answer, Asked, Declined};

/// As `range_end`: every key from `key` on.
pub const FROM_KEY: &[u8] = b"\0";
/// etcd's initial compact revision: it lets revision 0 be compacted.
pub const NEVER_COMPACTED: i64 = -1;

/// A table with views as keys. The seed is fixed: a history gives the same tables, and takes the same time, every day.
pub type Table<K, V> = HashMap<K, V, FixedState>;

/// `RangeRequest.sort_order`: as it comes.
pub const SORT_NONE: i32 = 0;
/// `RangeRequest.sort_order`: the highest first.
pub const SORT_DESCEND: i32 = 2;
/// `RangeRequest.sort_target`
pub const SORT_BY_KEY: i32 = 0;
/// `RangeRequest.sort_target`
pub const SORT_BY_VERSION: i32 = 1;
/// `RangeRequest.sort_target`
pub const SORT_BY_CREATE: i32 = 2;
/// `RangeRequest.sort_target`
pub const SORT_BY_MOD: i32 = 3;
/// `RangeRequest.sort_target`
pub const SORT_BY_VALUE: i32 = 4;

/// A definite refusal: nothing happened. Its text is in `pekan.wire.errors`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names of the texts
pub enum Refusal {
    FutureRevision,
    Compacted,
    LeaseNotFound,
    KeyNotFound,
    LeaseExists,
}

/// What a request answers and changes, or why it is refused. The answer's header has its revision and zeros; events are in order of
/// execution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evaluated<'a> {
    /// With the answer and the events.
    Answered(Answer<'a>, Vec<Event<'a>>),
    /// With the reason.
    Refused(Refusal),
}

/// Leases and the keys attached to them, leases in the order in which they first got one. A lease stays when its last key goes.
#[derive(Clone, Debug, Default)]
pub struct Attached<'a> {
    leases: Vec<(i64, BTreeSet<&'a [u8]>)>,
    places: Table<i64, u32>,
}

impl<'a> Attached<'a> {
    /// The keys attached to `lease`, in byte order; None where it never had one.
    pub fn get(&self, lease: i64) -> Option<&BTreeSet<&'a [u8]>> {
        self.places.get(&lease).map(|&at| &self.leases[at as usize].1)
    }

    /// Every lease that ever had a key, in the order of its first one.
    pub fn iter(&self) -> impl Iterator<Item = (i64, &BTreeSet<&'a [u8]>)> {
        self.leases.iter().map(|(lease, keys)| (*lease, keys))
    }

    fn attach(&mut self, lease: i64, key: &'a [u8]) {
        let next = u32::try_from(self.leases.len()).unwrap_or(u32::MAX);
        let at = *self.places.entry(lease).or_insert(next);
        if at == next {
            self.leases.push((lease, BTreeSet::new()));
        }
        self.leases[at as usize].1.insert(key);
    }

    fn detach(&mut self, lease: i64, key: &[u8]) {
        if let Some(&at) = self.places.get(&lease) {
            self.leases[at as usize].1.remove(key);
        }
    }
}

/// A key-value of the store and its encoding, empty where none was seen: equal encodings are equal key-values, and most answers show it.
#[derive(Clone, Copy, Debug)]
pub struct Held<'a> {
    /// The key-value.
    pub kv: Kv<'a>,
    /// As some message had it.
    pub encoded: &'a [u8],
}

impl<'a> Held<'a> {
    /// Whether the encoded key-value `shown` is this one.
    #[inline]
    pub fn is(&self, shown: &'a [u8]) -> Decoded<bool> {
        Ok(if self.encoded.is_empty() { Kv::decode(shown)? == self.kv } else { self.encoded == shown || Kv::decode(shown)? == self.kv })
    }
}

/// The store after some revision.
#[derive(Clone, Debug)]
pub struct State<'a> {
    /// The store's revision.
    pub revision: i64,
    /// The revision it was compacted at.
    pub compacted: i64,
    /// Leases that are there, with their TTL (s); None: not tracked, every lease counts as granted.
    pub leases: Option<Table<i64, i64>>,
    /// A key's key-values by revision, a tombstone has version 0; None: not kept, and reads at older revisions are not answered.
    pub past: Option<BTreeMap<&'a [u8], Vec<Kv<'a>>>>,
    /// Leases and their keys.
    pub attached: Attached<'a>,
    table: Table<&'a [u8], u32>,
    slots: Vec<Held<'a>>,
    free: Vec<u32>,
    keys: Keys<'a>,
}

impl Default for State<'_> {
    fn default() -> Self {
        State {
            revision: 1,
            compacted: NEVER_COMPACTED,
            leases: Some(Table::default()),
            past: Some(BTreeMap::new()),
            attached: Attached::default(),
            table: Table::default(),
            slots: Vec::new(),
            free: Vec::new(),
            keys: Keys::default(),
        }
    }
}

impl<'a> State<'a> {
    /// The current key-value of `key`.
    #[inline]
    pub fn get(&self, key: &[u8]) -> Option<&Kv<'a>> {
        self.held(key).map(|held| &held.kv)
    }

    /// The same with its encoding.
    #[inline]
    pub fn held(&self, key: &[u8]) -> Option<&Held<'a>> {
        self.table.get(key).map(|&slot| &self.slots[slot as usize])
    }

    /// Where the keys of a range are; `range_end` is not empty.
    #[inline]
    pub fn span(&self, key: &[u8], range_end: &[u8]) -> Span {
        self.keys.span(key, range_end)
    }

    /// How many keys are in `span`.
    #[inline]
    pub fn count(&self, span: Span) -> usize {
        self.keys.count(span)
    }

    /// The key-values of `span`, in key order.
    #[inline]
    pub fn within(&self, span: Span) -> impl Iterator<Item = &Kv<'a>> + '_ {
        self.held_within(span).map(|held| &held.kv)
    }

    /// The same with their encodings.
    #[inline]
    pub fn held_within(&self, span: Span) -> impl Iterator<Item = &Held<'a>> + '_ {
        self.keys.within(span).map(|entry| &self.slots[entry.slot as usize])
    }

    /// The current key-values of a range, in key order.
    pub fn find(&self, key: &[u8], range_end: &[u8]) -> Vec<Kv<'a>> {
        if range_end.is_empty() {
            return self.get(key).copied().into_iter().collect();
        }
        self.within(self.span(key, range_end)).copied().collect()
    }

    /// The key-values that a range had at `revision`, in key order. Declines where the past is not kept.
    pub fn find_at(&self, key: &[u8], range_end: &[u8], revision: i64) -> Result<Vec<Kv<'a>>, Declined> {
        let past = self.past.as_ref().ok_or_else(|| Declined::because("a read of the past, which is not kept"))?;
        let at = |versions: &Vec<Kv<'a>>| {
            let above = versions.partition_point(|kv| kv.mod_revision <= revision);
            versions[..above].last().filter(|kv| kv.version != 0).copied()
        };
        if range_end.is_empty() {
            return Ok(past.get(key).and_then(at).into_iter().collect());
        }
        let from = past.range::<[u8], _>((std::ops::Bound::Included(key), std::ops::Bound::Unbounded));
        Ok(from.take_while(|(k, _)| range_end == FROM_KEY || **k < range_end).filter_map(|(_, versions)| at(versions)).collect())
    }

    /// Puts the `events` of `revision` into the state, in their order.
    pub fn advance(&mut self, revision: i64, events: &[Event<'a>]) {
        for event in events {
            self.replace_key(event.kv.key, (event.kind != DELETE).then_some(event.kv));
            self.remember(revision, event);
        }
        self.revision = revision;
    }

    /// Adds what `event` left at `revision` to the past, where that is kept.
    #[inline]
    pub fn remember(&mut self, revision: i64, event: &Event<'a>) {
        if let Some(past) = &mut self.past {
            let left = if event.kind == PUT { event.kv } else { tombstone(event.kv.key, revision) };
            past.entry(event.kv.key).or_default().push(left);
        }
    }

    /// Lets `key` have `new` (None: be absent), with index and attachments; what it had before.
    pub fn replace_key(&mut self, key: &'a [u8], new: Option<Kv<'a>>) -> Option<Kv<'a>> {
        self.replace_held(key, new.map(|kv| Held { kv, encoded: &[] }))
    }

    /// The same, with its encoding where that is known.
    pub fn replace_held(&mut self, key: &'a [u8], new: Option<Held<'a>>) -> Option<Kv<'a>> {
        let old = match new {
            None => {
                let slot = self.table.remove(key)?;
                self.keys.remove(key);
                self.free.push(slot);
                Some(self.slots[slot as usize].kv)
            }
            Some(held) => match self.table.entry(key) {
                hashbrown::hash_map::Entry::Occupied(found) => Some(std::mem::replace(&mut self.slots[*found.get() as usize], held).kv),
                hashbrown::hash_map::Entry::Vacant(place) => {
                    let slot = match self.free.pop() {
                        Some(slot) => {
                            self.slots[slot as usize] = held;
                            slot
                        }
                        None => {
                            self.slots.push(held);
                            // Keys are views into a file of less than 2^32 of them: each takes two bytes of it at least.
                            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
                        }
                    };
                    place.insert(slot);
                    self.keys.insert(key, slot);
                    None
                }
            },
        };
        let before = old.map_or(0, |kv| kv.lease);
        let after = new.map_or(0, |held| held.kv.lease);
        if before != after {
            if before != 0 {
                self.attached.detach(before, key);
            }
            if after != 0 {
                self.attached.attach(after, key);
            }
        }
        old
    }
}

/// What the past keeps of a deletion of `key` at `revision`, and what a DELETE event shows.
pub fn tombstone(key: &[u8], revision: i64) -> Kv<'_> {
    Kv { key, mod_revision: revision, ..Kv::default() }
}

/// The events of one revision by key; a key's own events stay in their order.
pub fn in_key_order(mut events: Vec<Event<'_>>) -> Vec<Event<'_>> {
    events.sort_by(|one, other| one.kv.key.cmp(other.kv.key));
    events
}

/// True where both tell the same writes; `prev_kv` may differ (who did not ask, or asked after a compaction, has none).
pub fn same_change(one: &[Event<'_>], other: &[Event<'_>]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(a, b)| a.kind == b.kind && a.kv == b.kv)
}

/// Whether `candidate` lies in the range that `key` and `range_end` name.
pub fn within(candidate: &[u8], key: &[u8], range_end: &[u8]) -> bool {
    if range_end.is_empty() {
        return candidate == key;
    }
    candidate >= key && (range_end == FROM_KEY || candidate < range_end)
}

/// Moves the state by `request`: its answer and events, which `state` has then taken in.
pub fn apply<'a>(state: &mut State<'a>, request: &Asked<'a>, told: Option<&Answer<'a>>) -> Result<Evaluated<'a>, Declined> {
    let outcome = evaluate(state, request, told)?;
    let Evaluated::Answered(answer, events) = &outcome else { return Ok(outcome) };
    if !events.is_empty() {
        state.advance(state.revision + 1, events);
    }
    match (request, answer, &mut state.leases) {
        (Asked::Compaction(r), ..) => state.compacted = r.revision,
        (Asked::LeaseGrant(_), Answer::LeaseGrant { id, ttl, .. }, Some(leases)) => {
            leases.insert(*id, *ttl);
        }
        (Asked::LeaseRevoke(id), _, Some(leases)) => {
            leases.remove(id);
        }
        _ => {}
    }
    Ok(outcome)
}

fn at(revision: i64) -> Header {
    Header { revision, ..Header::default() }
}

/// What `request` answers and changes at `state`, which stays as it is.
///
/// Where etcd is free (order among equals of a sort, the lease under keys_only, headers inside a Txn, the id and TTL of a granted lease)
/// the answer follows `told`, an answer that was given, if it is one of those that etcd may give; so that comparing with it decides.
pub fn evaluate<'a>(state: &State<'a>, request: &Asked<'a>, told: Option<&Answer<'a>>) -> Result<Evaluated<'a>, Declined> {
    Ok(match request {
        Asked::Range(r) => {
            if r.revision > state.revision {
                return Ok(Evaluated::Refused(Refusal::FutureRevision));
            }
            if 0 < r.revision && r.revision < state.compacted {
                return Ok(Evaluated::Refused(Refusal::Compacted));
            }
            let found = if 0 < r.revision && r.revision < state.revision {
                state.find_at(r.key, r.range_end, r.revision)?
            } else {
                state.find(r.key, r.range_end)
            };
            Evaluated::Answered(range_answer(r, found, at(state.revision), told), Vec::new())
        }
        Asked::Put(r) => {
            if let Some(refusal) = put_refusal(state, r) {
                return Ok(Evaluated::Refused(refusal));
            }
            let revision = state.revision + 1;
            let event = put_event(r, state.get(r.key), revision);
            let prev_kv = if r.prev_kv { event.prev_kv } else { None };
            Evaluated::Answered(Answer::Put { header: at(revision), prev_kv }, vec![event])
        }
        Asked::DeleteRange(r) => {
            let found = state.find(r.key, r.range_end);
            let revision = state.revision + i64::from(!found.is_empty());
            let events = found.iter().map(|kv| delete_event(kv, revision)).collect();
            let deleted = count_of(found.len());
            let prev_kvs = if r.prev_kv { found } else { Vec::new() };
            Evaluated::Answered(Answer::DeleteRange { header: at(revision), deleted, prev_kvs }, events)
        }
        Asked::Txn(txn) => {
            let path = Path::of(state, txn);
            if let Some(refusal) = path.refusal(state, true) {
                return Ok(Evaluated::Refused(refusal));
            }
            let mut running = Running::new(state, true);
            let responses = running.execute(&path, told)?;
            let revision = state.revision + i64::from(!running.events.is_empty());
            Evaluated::Answered(Answer::Txn { header: at(revision), succeeded: path.succeeded, responses }, running.events)
        }
        Asked::Compaction(r) => {
            if r.revision <= state.compacted {
                Evaluated::Refused(Refusal::Compacted)
            } else if r.revision > state.revision {
                Evaluated::Refused(Refusal::FutureRevision)
            } else {
                Evaluated::Answered(Answer::Compaction { header: at(state.revision) }, Vec::new())
            }
        }
        Asked::LeaseGrant(r) => {
            // With id 0 etcd draws an id that is free, and it may raise a TTL below its minimum: both follow what was told.
            let (mut id, mut ttl) = (r.id, r.ttl);
            if let Some(Answer::LeaseGrant { id: told_id, ttl: told_ttl, .. }) = told {
                (id, ttl) = (if id == 0 { *told_id } else { id }, ttl.max(*told_ttl));
            }
            if state.leases.as_ref().is_some_and(|leases| leases.contains_key(&id)) {
                return Ok(Evaluated::Refused(Refusal::LeaseExists));
            }
            Evaluated::Answered(Answer::LeaseGrant { header: at(state.revision), id, ttl }, Vec::new())
        }
        Asked::LeaseRevoke(id) => {
            if state.leases.as_ref().is_some_and(|leases| !leases.contains_key(id)) {
                return Ok(Evaluated::Refused(Refusal::LeaseNotFound));
            }
            let events = revoke_events(state, *id);
            let revision = state.revision + i64::from(!events.is_empty());
            Evaluated::Answered(Answer::LeaseRevoke { header: at(revision) }, events)
        }
    })
}

fn count_of(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

/// Whether any revision filter is set.
pub fn has_filters(r: &RangeRequest<'_>) -> bool {
    r.min_mod_revision != 0 || r.max_mod_revision != 0 || r.min_create_revision != 0 || r.max_create_revision != 0
}

fn passes(r: &RangeRequest<'_>, kv: &Kv<'_>) -> bool {
    (r.max_mod_revision == 0 || kv.mod_revision <= r.max_mod_revision)
        && (r.min_mod_revision == 0 || kv.mod_revision >= r.min_mod_revision)
        && (r.max_create_revision == 0 || kv.create_revision <= r.max_create_revision)
        && (r.min_create_revision == 0 || kv.create_revision >= r.min_create_revision)
}

/// Orders key-values as `sort_target` names; an unknown target is declined when requests are collected.
fn ranked(target: i32, one: &Kv<'_>, other: &Kv<'_>) -> std::cmp::Ordering {
    match target {
        SORT_BY_VERSION => one.version.cmp(&other.version),
        SORT_BY_CREATE => one.create_revision.cmp(&other.create_revision),
        SORT_BY_MOD => one.mod_revision.cmp(&other.mod_revision),
        SORT_BY_VALUE => one.value.cmp(other.value),
        _ => one.key.cmp(other.key),
    }
}

/// What a Range answers over `found`, the key-values in its range at its revision, in key order.
pub fn range_answer<'a>(r: &RangeRequest<'a>, found: Vec<Kv<'a>>, header: Header, told: Option<&Answer<'a>>) -> Answer<'a> {
    let count = count_of(found.len());
    if r.count_only {
        return Answer::Range { header, kvs: Vec::new(), more: false, count };
    }
    let mut kvs = found;
    let filters = has_filters(r);
    if filters {
        kvs.retain(|kv| passes(r, kv));
    }
    let limit = usize::try_from(r.limit).unwrap_or(0);
    let by_key = r.sort_target == SORT_BY_KEY;
    let mut free = false;
    if !by_key || r.sort_order == SORT_DESCEND {
        if r.sort_order == SORT_NONE && limit > 0 && !filters {
            kvs.truncate(limit.saturating_add(1));
        }
        if r.sort_order == SORT_DESCEND {
            kvs.sort_by(|one, other| ranked(r.sort_target, other, one));
        } else {
            kvs.sort_by(|one, other| ranked(r.sort_target, one, other));
        }
        free = !by_key;
    }
    let more = 0 < limit && limit < kvs.len();
    let size = if more { limit } else { kvs.len() };
    if let Some(Answer::Range { kvs: told, .. }) = told {
        let as_it_is = if r.keys_only { same_but_blank(told, &kvs[..size]) } else { told[..] == kvs[..size] };
        if as_it_is || ((free || r.keys_only) && may_be_told(r, &kvs, size, told)) {
            return Answer::Range { header, kvs: told.clone(), more, count };
        }
    }
    kvs.truncate(size);
    if r.keys_only {
        for kv in &mut kvs {
            kv.value = b"";
        }
    }
    Answer::Range { header, kvs, more, count }
}

/// Whether `told` is `kvs` in their order as keys_only shows them: values blank, the leases of all or of none.
fn same_but_blank(told: &[Kv<'_>], kvs: &[Kv<'_>]) -> bool {
    told.len() == kvs.len()
        && told.iter().zip(kvs).all(|(one, other)| *one == Kv { value: b"", lease: one.lease, ..*other })
        && (told.iter().all(|kv| kv.lease == 0) || told.iter().zip(kvs).all(|(one, other)| one.lease == other.lease))
}

/// Whether etcd may give `told` out of `ordered`, of which the first `size` are one right answer.
///
/// Another is right when it shows as many different key-values of `ordered` with the same ranks in the same places. Under keys_only the
/// lease may be left out, of all or of none.
fn may_be_told<'a>(r: &RangeRequest<'a>, ordered: &[Kv<'a>], size: usize, told: &[Kv<'a>]) -> bool {
    if told.len() != size {
        return false;
    }
    let without_lease = r.keys_only && told.iter().all(|kv| kv.lease == 0);
    let by_key: Table<&[u8], &Kv<'a>> = ordered.iter().map(|kv| (kv.key, kv)).collect();
    let mut seen: hashbrown::HashSet<&[u8], FixedState> = hashbrown::HashSet::default();
    told.iter().zip(ordered).all(|(kv, canonical)| {
        let Some(&whole) = by_key.get(kv.key) else { return false };
        if !seen.insert(kv.key) || ranked(r.sort_target, whole, canonical).is_ne() {
            return false;
        }
        let mut shown = *whole;
        if r.keys_only {
            shown.value = b"";
            if without_lease {
                shown.lease = 0;
            }
        }
        *kv == shown
    })
}

fn put_refusal(state: &State<'_>, r: &PutRequest<'_>) -> Option<Refusal> {
    if r.lease != 0 && state.leases.as_ref().is_some_and(|leases| !leases.contains_key(&r.lease)) {
        return Some(Refusal::LeaseNotFound);
    }
    ((r.ignore_value || r.ignore_lease) && state.get(r.key).is_none()).then_some(Refusal::KeyNotFound)
}

/// The event of `r` at `revision` where the key had `old`.
#[inline]
pub fn put_event<'a>(r: &PutRequest<'a>, old: Option<&Kv<'a>>, revision: i64) -> Event<'a> {
    let (create_revision, version, value, lease) = match old {
        None => (revision, 1, r.value, r.lease),
        Some(old) => {
            let value = if r.ignore_value { old.value } else { r.value };
            let lease = if r.ignore_lease { old.lease } else { r.lease };
            (old.create_revision, old.version.wrapping_add(1), value, lease)
        }
    };
    let kv = Kv { key: r.key, create_revision, mod_revision: revision, version, value, lease };
    Event { kind: PUT, kv, prev_kv: old.copied() }
}

/// The event of deleting `old` at `revision`.
#[inline]
pub fn delete_event<'a>(old: &Kv<'a>, revision: i64) -> Event<'a> {
    Event { kind: DELETE, kv: tombstone(old.key, revision), prev_kv: Some(*old) }
}

/// The events of a lease's end, revoked or expired: its keys go in one revision, in byte order (lessor.go, Revoke).
pub fn revoke_events<'a>(state: &State<'a>, lease: i64) -> Vec<Event<'a>> {
    let Some(keys) = state.attached.get(lease) else { return Vec::new() };
    keys.iter().filter_map(|key| state.get(key)).map(|kv| delete_event(kv, state.revision + 1)).collect()
}

// ---- transactions ----

/// Whether a guard is true of `state`.
#[inline]
pub fn holds(state: &State<'_>, compare: &Compare<'_>) -> bool {
    if compare.range_end.is_empty() {
        return match state.get(compare.key) {
            Some(kv) => true_of(compare, kv),
            None => true_of_nothing(compare),
        };
    }
    let span = state.span(compare.key, compare.range_end);
    if state.count(span) == 0 { true_of_nothing(compare) } else { state.within(span).all(|kv| true_of(compare, kv)) }
}

/// Of no key at all: a missing value cannot be told from an empty one on the wire, so etcd lets every VALUE compare fail.
fn true_of_nothing(compare: &Compare<'_>) -> bool {
    match compare.operand {
        Operand::Int(operand) if compare.target != VALUE => related(compare.result, &0, &operand),
        _ => false,
    }
}

fn true_of(compare: &Compare<'_>, kv: &Kv<'_>) -> bool {
    let have = match compare.target {
        VERSION => kv.version,
        CREATE => kv.create_revision,
        MOD => kv.mod_revision,
        LEASE => kv.lease,
        _ => {
            return match compare.operand {
                Operand::Bytes(operand) => related(compare.result, kv.value, operand),
                Operand::Int(_) => false,
            };
        }
    };
    match compare.operand {
        Operand::Int(operand) => related(compare.result, &have, &operand),
        Operand::Bytes(_) => false,
    }
}

#[inline]
fn related<T: Ord + ?Sized>(result: i32, have: &T, operand: &T) -> bool {
    match result {
        EQUAL => have == operand,
        GREATER => have > operand,
        LESS => have < operand,
        NOT_EQUAL => have != operand,
        // etcd takes any other relation for true.
        _ => true,
    }
}

/// Which branch a transaction takes, and those of the transactions nested in that branch, in order.
#[derive(Debug)]
pub struct Path<'r, 'a> {
    /// Whether all guards held.
    pub succeeded: bool,
    /// The branch taken.
    pub operations: &'r [Request<'a>],
    nested: Vec<Path<'r, 'a>>,
}

impl<'r, 'a> Path<'r, 'a> {
    /// The path of `request` at `state`.
    pub fn of(state: &State<'a>, request: &'r TxnRequest<'a>) -> Path<'r, 'a> {
        let succeeded = request.compare.iter().all(|compare| holds(state, compare));
        let operations = if succeeded { &request.success[..] } else { &request.failure[..] };
        let nested = operations.iter().filter_map(|op| match op {
            Request::Txn(inner) => Some(Path::of(state, inner)),
            _ => None,
        });
        Path { succeeded, operations, nested: nested.collect() }
    }

    /// Calls `each` with every operation that would run and is no transaction, in order.
    pub fn each(&self, each: &mut impl FnMut(&'r Request<'a>)) {
        let mut nested = self.nested.iter();
        for op in self.operations {
            match (op, matches!(op, Request::Txn(_)).then(|| nested.next()).flatten()) {
                (_, Some(inner)) => inner.each(each),
                (op, None) => each(op),
            }
        }
    }

    fn refusal(&self, state: &State<'a>, look_at_ranges: bool) -> Option<Refusal> {
        let mut nested = self.nested.iter();
        for op in self.operations {
            let refusal = match op {
                Request::Range(r) if r.revision != 0 && look_at_ranges => {
                    if r.revision > state.revision {
                        Some(Refusal::FutureRevision)
                    } else {
                        (r.revision < state.compacted).then_some(Refusal::Compacted)
                    }
                }
                Request::Put(r) => put_refusal(state, r),
                Request::Txn(_) => nested.next().and_then(|inner| inner.refusal(state, look_at_ranges)),
                _ => None,
            };
            if refusal.is_some() {
                return refusal;
            }
        }
        None
    }
}

/// What `request` would change at `state` if none of its Ranges were refused; nothing where another refusal forbids it.
///
/// This is what a member does that does not look at the Ranges of a Txn (etcd before 3.7, #18667), and what an unanswered request can have
/// done.
pub fn effect<'a>(state: &State<'a>, request: &Asked<'a>) -> Vec<Event<'a>> {
    match request {
        Asked::Put(r) => match put_refusal(state, r) {
            None => vec![put_event(r, state.get(r.key), state.revision + 1)],
            Some(_) => Vec::new(),
        },
        Asked::DeleteRange(r) => state.find(r.key, r.range_end).iter().map(|kv| delete_event(kv, state.revision + 1)).collect(),
        Asked::LeaseRevoke(id) => match &state.leases {
            Some(leases) if !leases.contains_key(id) => Vec::new(),
            _ => revoke_events(state, *id),
        },
        Asked::Txn(txn) => {
            let path = Path::of(state, txn);
            if path.refusal(state, false).is_some() {
                return Vec::new();
            }
            let mut running = Running::new(state, false);
            // Without answers nothing is looked up in the past, so nothing can be declined.
            match running.execute(&path, None) {
                Ok(_) => running.events,
                Err(_) => Vec::new(),
            }
        }
        Asked::Range(_) | Asked::Compaction(_) | Asked::LeaseGrant(_) => Vec::new(),
    }
}

/// A transaction in execution: the state before it, overlaid with what it has done so far. Without `answers` its Ranges are not run.
struct Running<'s, 'a> {
    state: &'s State<'a>,
    answers: bool,
    written: BTreeMap<&'a [u8], Option<Kv<'a>>>,
    events: Vec<Event<'a>>,
}

impl<'s, 'a> Running<'s, 'a> {
    fn new(state: &'s State<'a>, answers: bool) -> Self {
        Running { state, answers, written: BTreeMap::new(), events: Vec::new() }
    }

    fn execute(&mut self, path: &Path<'_, 'a>, told: Option<&Answer<'a>>) -> Result<Vec<Answer<'a>>, Declined> {
        let given: &[Answer<'a>] = match told {
            Some(Answer::Txn { responses, .. }) if responses.len() == path.operations.len() => responses,
            _ => &[],
        };
        let mut nested = path.nested.iter();
        let mut responses = Vec::new();
        for (at, op) in path.operations.iter().enumerate() {
            let told = given.get(at);
            match op {
                Request::Range(r) => {
                    if self.answers {
                        responses.push(self.range(r, told)?);
                    }
                }
                Request::Put(r) => responses.push(self.put(r, told)),
                Request::DeleteRange(r) => responses.push(self.delete_range(r, told)),
                Request::Txn(_) => {
                    let Some(inner) = nested.next() else { continue };
                    let header = match told {
                        Some(Answer::Txn { header, .. }) => *header,
                        _ => Header::default(),
                    };
                    let inside = self.execute(inner, told)?;
                    responses.push(Answer::Txn { header, succeeded: inner.succeeded, responses: inside });
                }
            }
        }
        Ok(responses)
    }

    fn current(&self, key: &[u8]) -> Option<Kv<'a>> {
        match self.written.get(key) {
            Some(kv) => *kv,
            None => self.state.get(key).copied(),
        }
    }

    fn find(&self, key: &[u8], range_end: &[u8]) -> Vec<Kv<'a>> {
        if self.written.is_empty() {
            return self.state.find(key, range_end);
        }
        if range_end.is_empty() {
            return self.current(key).into_iter().collect();
        }
        let mut merged: BTreeMap<&[u8], Kv<'a>> = self.state.find(key, range_end).into_iter().map(|kv| (kv.key, kv)).collect();
        for (&k, kv) in &self.written {
            if within(k, key, range_end) {
                match kv {
                    Some(kv) => merged.insert(k, *kv),
                    None => merged.remove(k),
                };
            }
        }
        merged.into_values().collect()
    }

    /// A revision and nothing else; one that was told without a revision is taken as it is.
    fn header(&self, told: Option<&Answer<'a>>) -> Header {
        let revision = self.state.revision + i64::from(!self.events.is_empty());
        match told.map(Answer::header) {
            Some(header) if header.revision == 0 || header.revision == revision => header,
            _ => at(revision),
        }
    }

    fn range(&mut self, r: &RangeRequest<'a>, told: Option<&Answer<'a>>) -> Result<Answer<'a>, Declined> {
        let found = if 0 < r.revision && r.revision < self.state.revision {
            self.state.find_at(r.key, r.range_end, r.revision)?
        } else if r.revision > 0 && !self.events.is_empty() {
            self.state.find(r.key, r.range_end)
        } else {
            self.find(r.key, r.range_end)
        };
        Ok(range_answer(r, found, self.header(told), told))
    }

    fn put(&mut self, r: &PutRequest<'a>, told: Option<&Answer<'a>>) -> Answer<'a> {
        let event = put_event(r, self.current(r.key).as_ref(), self.state.revision + 1);
        self.written.insert(r.key, Some(event.kv));
        self.events.push(event);
        Answer::Put { header: self.header(told), prev_kv: if r.prev_kv { event.prev_kv } else { None } }
    }

    fn delete_range(&mut self, r: &DeleteRangeRequest<'a>, told: Option<&Answer<'a>>) -> Answer<'a> {
        let found = self.find(r.key, r.range_end);
        for kv in &found {
            self.written.insert(kv.key, None);
            self.events.push(delete_event(kv, self.state.revision + 1));
        }
        let deleted = count_of(found.len());
        Answer::DeleteRange { header: self.header(told), deleted, prev_kvs: if r.prev_kv { found } else { Vec::new() } }
    }
}
