//! The live keys at one revision.

use std::collections::BTreeMap;
use std::ops::Bound;

use pekan_wire::{DELETE, Event, Kv, RangeRequest};

/// A key-value without its key, owned: the bytes of the record it came in are gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Revision of the Put that made the key.
    pub create_revision: i64,
    /// Revision of the last Put.
    pub mod_revision: i64,
    /// Number of Puts since the key was made.
    pub version: i64,
    /// The value.
    pub value: Box<[u8]>,
    /// The lease, 0 for none.
    pub lease: i64,
}

impl Held {
    /// Whether `kv` shows just this. `keys_only` answers show no value, and from 3.7 on no lease either.
    pub fn is(&self, kv: &Kv<'_>, keys_only: bool) -> bool {
        self.mod_revision == kv.mod_revision
            && self.version == kv.version
            && self.create_revision == kv.create_revision
            && if keys_only { kv.value.is_empty() } else { *self.value == *kv.value && self.lease == kv.lease }
    }
}

/// One change of a revision, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which key.
    pub key: Box<[u8]>,
    /// What it holds from then on; None where it was deleted.
    pub now: Option<Held>,
}

impl Change {
    /// The change that `event` tells.
    pub fn of(event: &Event<'_>) -> Change {
        let kv = &event.kv;
        let now = (event.kind != DELETE).then(|| Held {
            create_revision: kv.create_revision,
            mod_revision: kv.mod_revision,
            version: kv.version,
            value: kv.value.into(),
            lease: kv.lease,
        });
        Change { key: kv.key.into(), now }
    }
}

/// The live keys.
#[derive(Debug, Default)]
pub struct Store {
    keys: BTreeMap<Box<[u8]>, Held>,
}

impl Store {
    /// What `key` holds.
    pub fn get(&self, key: &[u8]) -> Option<&Held> {
        self.keys.get(key)
    }

    /// How many keys are live.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Keys in [`key`, `range_end`), as etcd reads these two.
    pub fn range<'s>(&'s self, key: &[u8], range_end: &[u8]) -> impl Iterator<Item = (&'s [u8], &'s Held)> {
        let single = range_end.is_empty();
        let low: Bound<&[u8]> = Bound::Included(key);
        let high: Bound<&[u8]> = match range_end {
            [] => Bound::Included(key),
            b"\0" => Bound::Unbounded,
            end => Bound::Excluded(end),
        };
        // A range that ends before it begins is empty, and BTreeMap would panic over it.
        let sensible = single || range_end == b"\0" || key < range_end;
        let inside = sensible.then(|| self.keys.range::<[u8], _>((low, high)));
        inside.into_iter().flatten().map(|(key, held)| (&**key, held))
    }

    /// Makes `change`. False where it does not follow from what is there: a version that jumps, a deletion of nothing.
    pub fn apply(&mut self, change: Change) -> bool {
        match change.now {
            None => self.keys.remove(&change.key).is_some(),
            Some(now) => {
                let follows = match self.keys.get(&change.key) {
                    Some(old) => now.version == old.version + 1 && now.create_revision == old.create_revision,
                    None => now.version == 1 && now.create_revision == now.mod_revision,
                };
                self.keys.insert(change.key, now);
                follows
            }
        }
    }

    /// Whether `shown` with `count` and `more` answers `request` here; None for requests that are left to the whole checker.
    pub fn answers<'a>(&self, request: &RangeRequest<'a>, mut shown: impl Iterator<Item = Kv<'a>>, count: i64, more: bool) -> Option<bool> {
        let plain = RangeRequest {
            key: request.key,
            range_end: request.range_end,
            limit: request.limit,
            revision: request.revision,
            keys_only: request.keys_only,
            count_only: request.count_only,
            serializable: request.serializable,
            ..RangeRequest::default()
        };
        if *request != plain || request.limit < 0 {
            return None;
        }
        let mut total = 0;
        for (key, held) in self.range(request.key, request.range_end) {
            total += 1;
            if !request.count_only && (request.limit == 0 || total <= request.limit) {
                match shown.next() {
                    Some(kv) if kv.key == key && held.is(&kv, request.keys_only) => {}
                    _ => return Some(false),
                }
            }
        }
        let cut = !request.count_only && request.limit > 0 && total > request.limit;
        Some(shown.next().is_none() && count == total && more == cut)
    }
}
