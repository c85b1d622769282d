//! Which revisions a request has to see.

use std::ops::Range;
use std::rc::Rc;

use crate::evidence::{Bounds, Hashed};

/// The revisions with an event that a request matches, ascending.
#[derive(Clone, Debug)]
pub enum Due {
    /// All of these.
    Range(Range<i64>),
    /// These.
    List(Rc<[i64]>),
}

impl Due {
    /// How many there are.
    #[inline]
    pub fn len(&self) -> usize {
        match self {
            Due::Range(range) => usize::try_from(range.end - range.start).unwrap_or(0),
            Due::List(list) => list.len(),
        }
    }

    /// True where there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The one at `at`.
    #[inline]
    pub fn get(&self, at: usize) -> Option<i64> {
        match self {
            Due::Range(range) => i64::try_from(at).ok().and_then(|at| range.start.checked_add(at)).filter(|revision| *revision < range.end),
            Due::List(list) => list.get(at).copied(),
        }
    }

    /// How many lie below `revision`.
    #[inline]
    pub fn below(&self, revision: i64) -> usize {
        match self {
            Due::Range(range) => usize::try_from(revision.min(range.end) - range.start).unwrap_or(0),
            Due::List(list) => list.partition_point(|&due| due < revision),
        }
    }
}

/// Revisions by the keys that they touch.
#[derive(Debug, Default)]
pub(super) struct ByKey<'a> {
    keys: Vec<(&'a [u8], Vec<u32>)>,
}

impl<'a> ByKey<'a> {
    /// `touched`: (key, revision), revisions ascending.
    pub fn of(touched: impl Iterator<Item = (&'a [u8], u32)>) -> ByKey<'a> {
        let mut at: Hashed<&[u8], u32> = Hashed::default();
        let mut keys: Vec<(&[u8], Vec<u32>)> = Vec::new();
        for (key, revision) in touched {
            let index = *at.entry(key).or_insert_with(|| {
                keys.push((key, Vec::new()));
                u32::try_from(keys.len() - 1).unwrap_or(u32::MAX)
            });
            let revisions = &mut keys[index as usize].1;
            if revisions.last() != Some(&revision) {
                revisions.push(revision);
            }
        }
        keys.sort_unstable_by_key(|(key, _)| *key);
        ByKey { keys }
    }

    /// The revisions that touch a key inside `bounds`, ascending.
    pub fn inside(&self, bounds: &Bounds<'_>) -> Vec<i64> {
        let begin = self.keys.partition_point(|(key, _)| *key < bounds.low());
        let inside = self.keys[begin..].iter().take_while(|(key, _)| bounds.contains(key));
        let mut found: Vec<i64> = inside.flat_map(|(_, revisions)| revisions.iter().map(|&revision| i64::from(revision))).collect();
        found.sort_unstable();
        found.dedup();
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A range and a list of the same revisions answer alike.
    #[test]
    fn ranges_and_lists_agree() {
        let (range, list) = (Due::Range(2..6), Due::List([2, 3, 4, 5].into()));
        for due in [&range, &list] {
            assert_eq!(due.len(), 4);
            assert_eq!([0, 2, 3, 4, 9].map(|r| due.below(r)), [0, 0, 1, 2, 4]);
            assert_eq!([0, 3, 4].map(|at| due.get(at)), [Some(2), Some(5), None]);
        }
        assert!(Due::Range(2..2).is_empty() && Due::List([].into()).is_empty());
    }

    /// The revisions of a range of keys come once each, in order, whatever the order of the keys.
    #[test]
    fn finds_the_revisions_of_a_range() {
        let touched: [(&[u8], u32); 6] = [(b"b", 2), (b"a", 3), (b"c", 3), (b"b", 3), (b"a", 5), (b"d", 6)];
        let keys = ByKey::of(touched.into_iter());
        assert_eq!(keys.inside(&Bounds::new(b"a", b"")), [3, 5]);
        assert_eq!(keys.inside(&Bounds::new(b"a", b"c")), [2, 3, 5]);
        assert_eq!(keys.inside(&Bounds::new(b"b", b"\0")), [2, 3, 6]);
        assert!(keys.inside(&Bounds::new(b"x", b"")).is_empty());
    }
}
