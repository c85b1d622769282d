//! The one history that the replies and watches prove, revision by revision: what the key-value checker establishes and the others read.
//!
//! ```text
//! first .. last     a revision is   told      exactly what watches delivered of it: nothing is kept but a bit
//!                                   own       kept here, with full prev_kv
//!                                   unknown   not proven; nothing may be concluded about it
//! ```

use pekan_wire::Event;

use crate::bits::Bits;
use crate::evidence::Watched;

/// No operation.
const NOBODY: u32 = u32::MAX;
/// Where a revision has no events of its own.
const NOTHING: (u32, u32) = (u32::MAX, 0);

/// See `pekan.checkers.case.Order`. Operations are indexes in `Columns::ops`.
#[derive(Clone, Debug, Default)]
pub struct Order<'a> {
    first: i64,
    /// Of each revision from `first` on: where its own events lie, and how many.
    own: Vec<(u32, u32)>,
    events: Vec<Event<'a>>,
    told: Bits,
    unknown: Bits,
    writers: Vec<u32>,
}

impl<'a> Order<'a> {
    /// An order that covers nothing yet; its first revision will be `first`.
    pub fn new(first: i64) -> Order<'a> {
        Order { first, ..Order::default() }
    }

    /// The first revision covered; 2 for a store proved empty.
    #[inline]
    pub fn first(&self) -> i64 {
        self.first
    }

    /// The last revision covered; below `first` where none is.
    #[inline]
    pub fn last(&self) -> i64 {
        self.first + self.own.len() as i64 - 1
    }

    #[inline]
    fn index(&self, revision: i64) -> Option<usize> {
        let index = usize::try_from(revision.checked_sub(self.first)?).ok()?;
        (index < self.own.len()).then_some(index)
    }

    /// Room for `revision`: what lies between is covered and nothing is known of it. None below `first`.
    fn cover(&mut self, revision: i64) -> Option<usize> {
        let index = usize::try_from(revision.checked_sub(self.first)?).ok()?;
        if index >= self.own.len() {
            self.own.resize(index + 1, NOTHING);
            self.writers.resize(index + 1, NOBODY);
        }
        Some(index)
    }

    /// `revision` did exactly what `Watched` has of it, `prev_kv` included; written by operation `writer`, where known.
    #[inline]
    pub fn set_told(&mut self, revision: i64, writer: Option<u32>) {
        if let Some(index) = self.cover(revision) {
            self.own[index] = NOTHING;
            self.told.insert(index);
            self.unknown.remove(index);
            self.writers[index] = writer.unwrap_or(NOBODY);
        }
    }

    /// `revision` did `events`: in key order, each with its full `prev_kv`.
    pub fn set(&mut self, revision: i64, events: &[Event<'a>], writer: Option<u32>) {
        if let Some(index) = self.cover(revision) {
            let (first, count) = (self.events.len(), events.len());
            self.events.extend_from_slice(events);
            // A revision is at most a transaction of 128 operations times its keys; more than 32 bits count is more than memory holds.
            self.own[index] = (u32::try_from(first).unwrap_or(u32::MAX), u32::try_from(count).unwrap_or(u32::MAX));
            self.told.remove(index);
            self.unknown.remove(index);
            self.writers[index] = writer.unwrap_or(NOBODY);
        }
    }

    /// Who wrote `revision`, learnt later.
    pub fn set_writer(&mut self, revision: i64, writer: Option<u32>) {
        if let Some(index) = self.index(revision) {
            self.writers[index] = writer.unwrap_or(NOBODY);
        }
    }

    /// Nothing is proven of `revision`, neither what it did nor who did it.
    pub fn set_unknown(&mut self, revision: i64) {
        if let Some(index) = self.cover(revision) {
            self.own[index] = NOTHING;
            self.told.remove(index);
            self.unknown.insert(index);
            self.writers[index] = NOBODY;
        }
    }

    /// Lets the order end below `revision`.
    pub fn end_below(&mut self, revision: i64) {
        let length = usize::try_from(revision.saturating_sub(self.first)).unwrap_or(0);
        for index in length..self.own.len() {
            self.told.remove(index);
            self.unknown.remove(index);
        }
        self.own.truncate(length);
        self.writers.truncate(length);
    }

    /// Whether `revision` did exactly what watches told of it, so that `Watched` has its events.
    #[inline]
    pub fn is_told(&self, revision: i64) -> bool {
        self.index(revision).is_some_and(|index| self.told.contains(index))
    }

    /// Whether `revision` is covered and not proven.
    #[inline]
    pub fn is_unknown(&self, revision: i64) -> bool {
        self.index(revision).is_some_and(|index| self.unknown.contains(index))
    }

    /// How many revisions are covered and not proven.
    pub fn unknown(&self) -> usize {
        self.unknown.count()
    }

    /// Whether it is proven what `revision` did.
    #[inline]
    pub fn proves(&self, revision: i64) -> bool {
        self.index(revision).is_some_and(|index| self.told.contains(index) || self.own[index] != NOTHING)
    }

    /// What `revision` did, in key order; nothing where that is not proven. `watched`: that of the same history.
    pub fn events<'o>(&'o self, watched: &'o Watched<'a>, revision: i64) -> impl Iterator<Item = Event<'a>> + 'o {
        let index = self.index(revision);
        let told = index.is_some_and(|index| self.told.contains(index)).then(|| watched.events(revision));
        let (first, count) = index.map_or(NOTHING, |index| self.own[index]);
        let own = self.events.get(first as usize..first as usize + count as usize).unwrap_or(&[]);
        told.into_iter().flatten().chain(own.iter().copied())
    }

    /// The operation that wrote `revision`, where known.
    #[inline]
    pub fn written_by(&self, revision: i64) -> Option<u32> {
        self.index(revision).map(|index| self.writers[index]).filter(|&writer| writer != NOBODY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pekan_wire::Kv;

    fn put(revision: i64) -> Event<'static> {
        let kv = Kv { key: b"k", create_revision: revision, mod_revision: revision, version: 1, value: b"v", lease: 0 };
        Event { kind: pekan_wire::PUT, kv, prev_kv: None }
    }

    /// What was set is told back, an unknown revision proves nothing, and what lies beyond the end is gone.
    #[test]
    fn keeps_what_is_proven() {
        let watched = Watched::default();
        let mut order = Order::new(2);
        assert_eq!((order.first(), order.last()), (2, 1));
        order.set(2, &[put(2)], Some(7));
        order.set(3, &[put(3), put(3)], None);
        order.set(4, &[put(4)], Some(9));
        order.set_unknown(3);
        order.set_told(6, Some(1));
        assert_eq!(order.last(), 6);
        assert_eq!(order.events(&watched, 2).collect::<Vec<_>>(), [put(2)]);
        assert_eq!((order.written_by(2), order.written_by(3), order.written_by(5)), (Some(7), None, None));
        assert!(order.proves(2) && !order.proves(3) && !order.proves(5) && order.proves(6) && order.is_told(6));
        assert!(order.is_unknown(3) && order.unknown() == 1);
        order.end_below(4);
        assert_eq!((order.last(), order.written_by(4), order.is_told(6)), (3, None, false));
        order.set(1, &[put(1)], None);
        assert!(!order.proves(1));
    }
}
