//! Who can have written a revision that nobody was acknowledged for: unanswered requests, and leases that ran out.
//!
//! ```text
//! gap r, its events known     candidates(...) looks up who could have had exactly that effect; matching.rs gives each gap one of them
//! gap r, its events unknown   everybody(...), for the search
//! ```
//!
//! The reference is `src/pekan/checkers/kv/pool.py`. Writers are numbers here, in order of their calls; ends of leases and acknowledged
//! revokes get theirs when they are first asked for. Lists of writers keep that order, so a look ends at the first that was called too late.

use pekan_wire::{DeleteRangeRequest, Event, PUT, PutRequest, Request};

use crate::machine::{State, Table, effect, in_key_order, revoke_events, same_change, within};
use crate::matching::WriterId;
use crate::request::{Asked, each_operation};

/// Call of the end of a lease that nobody recorded was granted: earlier than every time stamp.
const BEFORE_ALL: i64 = -(1 << 62);

/// Something that may have written once: an operation, or (`op` None) the end of a lease.
#[derive(Clone, Debug)]
pub struct Writer<'a> {
    /// When it can first have happened (ns).
    pub call: i64,
    /// Index of the operation.
    pub op: Option<u32>,
    /// What it does.
    pub what: Asked<'a>,
}

/// (key, range end) -> where in `Pool::by_range`.
type Ranges<'a> = Table<(&'a [u8], &'a [u8]), usize>;

/// Writers by what they can do. Who is taken is kept by `Matching`.
#[derive(Debug)]
pub struct Pool<'a> {
    /// False where times of different processes cannot be compared.
    pub real_time: bool,
    /// Every writer; the first `requests` are those that the pool was made of.
    pub writers: Vec<Writer<'a>>,
    /// How many of `writers` are requests of the pool.
    pub requests: usize,
    /// Puts by key and value.
    pub by_put: Table<(&'a [u8], &'a [u8]), Vec<WriterId>>,
    /// Puts that keep the value, by key.
    pub by_kept_value: Table<&'a [u8], Vec<WriterId>>,
    /// Deletions of one key.
    pub by_delete: Table<&'a [u8], Vec<WriterId>>,
    /// Deletions of ranges: few ranges, many writers each.
    pub by_range: Vec<(&'a [u8], &'a [u8], Vec<WriterId>)>,
    /// Revokes by lease.
    pub by_revoke: Table<i64, Vec<WriterId>>,
    /// Lease -> the revision before which it cannot have ended.
    pub there_until: Table<i64, i64>,
    granted: Table<i64, Vec<i64>>,
    ends: Table<i64, Vec<WriterId>>,
    of_op: Table<u32, WriterId>,
    seen: Vec<u32>,
    look: u32,
}

impl<'a> Pool<'a> {
    /// `requests`: (call, operation, what it asked) in any order; `grants`: lease and call of every grant that may have happened.
    pub fn new(mut requests: Vec<(i64, u32, Asked<'a>)>, grants: impl IntoIterator<Item = (i64, i64)>, real_time: bool) -> Self {
        requests.sort_by_key(|(call, _, _)| *call);
        let mut pool = Pool {
            real_time,
            requests: requests.len(),
            writers: Vec::with_capacity(requests.len()),
            by_put: Table::default(),
            by_kept_value: Table::default(),
            by_delete: Table::default(),
            by_range: Vec::new(),
            by_revoke: Table::default(),
            there_until: Table::default(),
            granted: Table::default(),
            ends: Table::default(),
            of_op: Table::default(),
            seen: Vec::new(),
            look: 0,
        };
        let mut ranges = Ranges::default();
        for (call, op, what) in requests {
            let id = pool.writers.len() as WriterId;
            match &what {
                Asked::LeaseRevoke(lease) => pool.by_revoke.entry(*lease).or_default().push(id),
                Asked::Put(put) => pool.puts(id, put),
                Asked::DeleteRange(delete) => pool.deletes(id, delete, &mut ranges),
                Asked::Txn(txn) => each_operation(txn, &mut |inner| match inner {
                    Request::Put(put) => pool.puts(id, put),
                    Request::DeleteRange(delete) => pool.deletes(id, delete, &mut ranges),
                    Request::Range(_) | Request::Txn(_) => {}
                }),
                Asked::Range(_) | Asked::Compaction(_) | Asked::LeaseGrant(_) => {}
            }
            pool.writers.push(Writer { call, op: Some(op), what });
        }
        for (lease, call) in grants {
            pool.granted.entry(lease).or_default().push(call);
        }
        pool
    }

    fn puts(&mut self, id: WriterId, put: &PutRequest<'a>) {
        let list = if put.ignore_value {
            self.by_kept_value.entry(put.key).or_default()
        } else {
            self.by_put.entry((put.key, put.value)).or_default()
        };
        once(list, id);
    }

    fn deletes(&mut self, id: WriterId, delete: &DeleteRangeRequest<'a>, ranges: &mut Ranges<'a>) {
        if delete.range_end.is_empty() {
            once(self.by_delete.entry(delete.key).or_default(), id);
        } else {
            let at = *ranges.entry((delete.key, delete.range_end)).or_insert_with(|| {
                self.by_range.push((delete.key, delete.range_end, Vec::new()));
                self.by_range.len() - 1
            });
            once(&mut self.by_range[at].2, id);
        }
    }

    /// The ends that `lease` can come to by itself; of a lease that nobody here was granted, one, at any time.
    pub fn ends_of(&mut self, lease: i64) -> &[WriterId] {
        let (granted, writers) = (&self.granted, &mut self.writers);
        self.ends.entry(lease).or_insert_with(|| {
            let calls = granted.get(&lease).map_or(&[BEFORE_ALL][..], Vec::as_slice);
            calls
                .iter()
                .map(|&call| {
                    writers.push(Writer { call, op: None, what: Asked::LeaseRevoke(lease) });
                    (writers.len() - 1) as WriterId
                })
                .collect()
        })
    }

    /// The acknowledged revoke `op`, which may own a revision, as a writer.
    pub fn revoker(&mut self, op: u32, call: i64, lease: i64) -> WriterId {
        let writers = &mut self.writers;
        *self.of_op.entry(op).or_insert_with(|| {
            writers.push(Writer { call, op: Some(op), what: Asked::LeaseRevoke(lease) });
            (writers.len() - 1) as WriterId
        })
    }

    /// Writers whose effect at `state` is exactly `events` (in key order), called by `latest`; the earliest call first.
    pub fn candidates(&mut self, state: &State<'a>, events: &[Event<'a>], latest: i64) -> Vec<WriterId> {
        let mut found = Vec::new();
        for writer in self.may(state, events, latest) {
            if !self.ends_too_early(writer, state) && same_change(&in_key_order(self.effect_of(state, writer)), events) {
                found.push(writer);
            }
        }
        found.sort_by_key(|&writer| self.writers[writer as usize].call);
        found
    }

    /// Writers that have the first put, or else the first delete, of `events` in some branch; each once.
    fn may(&mut self, state: &State<'a>, events: &[Event<'a>], latest: i64) -> Vec<WriterId> {
        let latest = if self.real_time { latest } else { i64::MAX };
        let mut may = Vec::new();
        if let Some(event) = events.iter().find(|event| event.kind == PUT) {
            may.extend(self.by_put(event.kv.key, event.kv.value));
            self.until(&mut may, latest);
            return may;
        }
        let Some(event) = events.first() else { return may };
        let key = event.kv.key;
        may.extend(self.by_delete.get(key).into_iter().flatten());
        let ranged = may.len();
        for (start, end, writers) in &self.by_range {
            if within(key, start, end) {
                may.extend(writers);
            }
        }
        may[ranged..].sort_unstable();
        if let Some(lease) = state.get(key).map(|old| old.lease).filter(|&lease| lease != 0) {
            may.extend(self.by_revoke.get(&lease).into_iter().flatten());
            may.extend_from_slice(self.ends_of(lease));
        }
        self.until(&mut may, latest);
        may
    }

    /// Writers that put `value` to `key`, or keep what value it has.
    pub fn by_put(&self, key: &'a [u8], value: &'a [u8]) -> impl Iterator<Item = WriterId> + '_ {
        let kept = self.by_kept_value.get(key).into_iter().flatten();
        self.by_put.get(&(key, value)).into_iter().flatten().chain(kept).copied()
    }

    /// Keeps those of `writers` that were called by `latest`, each once, in their order.
    pub fn until(&mut self, writers: &mut Vec<WriterId>, latest: i64) {
        self.seen.resize(self.writers.len(), 0);
        self.look = self.look.wrapping_add(1);
        if self.look == 0 {
            self.seen.fill(0);
            self.look = 1;
        }
        writers.retain(|&writer| {
            let first = std::mem::replace(&mut self.seen[writer as usize], self.look) != self.look;
            first && self.writers[writer as usize].call <= latest
        });
    }

    /// Every writer called by `latest`, and the ends of the leases that hold keys.
    pub fn everybody(&mut self, state: &State<'a>, latest: i64) -> Vec<WriterId> {
        let latest = if self.real_time { latest } else { i64::MAX };
        let called = self.writers[..self.requests].partition_point(|writer| writer.call <= latest);
        let mut all: Vec<WriterId> = (0..called as WriterId).collect();
        for (lease, keys) in state.attached.iter() {
            if !keys.is_empty() {
                let from = all.len();
                all.extend_from_slice(self.ends_of(lease));
                let ends = all.split_off(from);
                all.extend(ends.into_iter().filter(|&end| self.writers[end as usize].call <= latest));
            }
        }
        if !self.there_until.is_empty() {
            all.retain(|&writer| !self.ends_too_early(writer, state));
        }
        all
    }

    /// Whether `writer` would end, in the revision after `state`, a lease that is there at a later one.
    fn ends_too_early(&self, writer: WriterId, state: &State<'a>) -> bool {
        match &self.writers[writer as usize].what {
            Asked::LeaseRevoke(lease) => self.there_until.get(lease).is_some_and(|&until| state.revision < until),
            _ => false,
        }
    }

    /// What `writer` would change at `state`, in order of execution.
    pub fn effect_of(&self, state: &State<'a>, writer: WriterId) -> Vec<Event<'a>> {
        match &self.writers[writer as usize].what {
            Asked::LeaseRevoke(lease) if self.writers[writer as usize].op.is_none() => revoke_events(state, *lease),
            what => effect(state, what),
        }
    }
}

/// Adds `id` to a list that is in order of ids, once.
fn once(list: &mut Vec<WriterId>, id: WriterId) {
    if list.last() != Some(&id) {
        list.push(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pekan_wire::{DELETE, Kv};

    fn put(key: &'static [u8], value: &'static [u8]) -> Asked<'static> {
        Asked::Put(PutRequest { key, value, ..PutRequest::default() })
    }

    fn delete(key: &'static [u8], range_end: &'static [u8]) -> Asked<'static> {
        Asked::DeleteRange(DeleteRangeRequest { key, range_end, prev_kv: false })
    }

    /// A store of the keys a, b and c at revision 4; b is attached to lease 7, which like all leases counts as granted.
    fn store() -> State<'static> {
        let mut state = State::default();
        state.leases = None;
        for (revision, key, lease) in [(2, b"a", 0), (3, b"b", 7), (4, b"c", 0)] {
            let kv = Kv { key, create_revision: revision, mod_revision: revision, version: 1, value: b"old", lease };
            state.advance(revision, &[Event { kind: PUT, kv, prev_kv: None }]);
        }
        state
    }

    fn gone(key: &'static [u8]) -> Event<'static> {
        Event { kind: DELETE, kv: Kv { key, mod_revision: 5, ..Kv::default() }, prev_kv: None }
    }

    fn calls(pool: &Pool<'_>, found: &[WriterId]) -> Vec<i64> {
        found.iter().map(|&writer| pool.writers[writer as usize].call).collect()
    }

    /// Of a put, those who put that value, and those who keep the value that the key has; the earliest call first, none after the latest.
    #[test]
    fn a_put_is_of_those_who_put_its_value() {
        let state = store();
        let kept = Asked::Put(PutRequest { key: b"a", ignore_value: true, ..PutRequest::default() });
        let requests = vec![(50, 0, put(b"a", b"old")), (20, 1, kept), (30, 2, put(b"a", b"new")), (10, 3, put(b"a", b"old"))];
        let mut pool = Pool::new(requests, [], true);
        let kv = Kv { key: b"a", create_revision: 2, mod_revision: 5, version: 2, value: b"old", lease: 0 };
        let events = [Event { kind: PUT, kv, prev_kv: None }];
        let found = pool.candidates(&state, &events, 100);
        assert_eq!(calls(&pool, &found), [10, 20, 50]);
        let found = pool.candidates(&state, &events, 20);
        assert_eq!(calls(&pool, &found), [10, 20]);
        pool.real_time = false;
        assert_eq!(pool.candidates(&state, &events, 0).len(), 3);
    }

    /// Of a deletion, those who delete just that: by name, by a range that holds no other key, by a revoke, or the lease's own end.
    #[test]
    fn a_deletion_is_of_those_who_delete_nothing_else() {
        let state = store();
        let requests = vec![
            (10, 0, delete(b"b", b"")),
            (20, 1, delete(b"b", b"c")),
            (30, 2, delete(b"a", b"c")),
            (40, 3, Asked::LeaseRevoke(7)),
            (50, 4, Asked::LeaseRevoke(8)),
        ];
        let mut pool = Pool::new(requests, [(7, 15), (7, 60)], true);
        let found = pool.candidates(&state, &[gone(b"b")], 55);
        assert_eq!(calls(&pool, &found), [10, 15, 20, 40]);
        let both = pool.candidates(&state, &[gone(b"a"), gone(b"b")], 55);
        assert_eq!(calls(&pool, &both), [30]);
        assert!(pool.candidates(&state, &[gone(b"c")], 55).is_empty());
    }

    /// Everybody is who was called in time, and each end of a lease that holds keys; of a lease that nobody was granted, one at any time.
    #[test]
    fn everybody_includes_the_ends_of_leases() {
        let state = store();
        let requests = vec![(30, 0, put(b"a", b"1")), (10, 1, put(b"a", b"2"))];
        let mut pool = Pool::new(requests.clone(), [(7, 5), (7, 25), (8, 1)], true);
        let all = pool.everybody(&state, 20);
        assert_eq!(calls(&pool, &all), [10, 5]);
        let mut pool = Pool::new(requests, [], true);
        let all = pool.everybody(&state, 40);
        assert_eq!(calls(&pool, &all), [10, 30, BEFORE_ALL]);
        pool.there_until.insert(7, 5);
        assert_eq!(pool.everybody(&state, 40).len(), 2);
        assert_eq!(pool.effect_of(&state, all[2]), [Event { prev_kv: state.get(b"b").copied(), ..gone(b"b") }]);
    }
}
