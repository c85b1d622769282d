//! Configurations seen before, and sets of optional operations.
//!
//! ```text
//! key (128 bits: what is in order and the state) ──> one or more sets of optional operations, none within another
//! ```

use hashbrown::HashTable;

/// A slot that holds nothing.
const EMPTY: u32 = u32::MAX;
/// The first table: small histories are many, and each has one of these.
const FIRST_SLOTS: usize = 64;

/// From here on the table doubles: four times as many slots would be mostly empty, and every page of them is touched.
const LARGE_SLOTS: usize = 1 << 16;

/// The halves of a key, and the smallest antichain in place: one set, and a list of further ones.
#[derive(Clone, Copy, Debug)]
struct Slot {
    low: u64,
    high: u64,
    used: u32,
    /// Index in `Seen::more`, or `EMPTY`.
    more: u32,
}

const FREE: Slot = Slot { low: 0, high: 0, used: EMPTY, more: EMPTY };

/// A hash table with open addressing.
#[derive(Debug)]
pub struct Seen {
    slots: Vec<Slot>,
    taken: usize,
    more: Vec<Vec<u32>>,
    sets: u64,
}

/// All bits of the result depend on all bits of the key.
#[inline]
fn mixed(low: u64, high: u64) -> usize {
    let product = u128::from(low ^ 0x9e37_79b9_7f4a_7c15) * u128::from(high ^ 0xd1b5_4a32_d192_ed03);
    let folded = (product as u64) ^ (product >> 64) as u64;
    (folded.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 17) as usize
}

impl Seen {
    pub fn new() -> Self {
        Self { slots: vec![FREE; FIRST_SLOTS], taken: 0, more: Vec::new(), sets: 0 }
    }

    /// True where `key` was seen with a subset of `used`; else it is remembered.
    #[inline]
    pub fn dominated(&mut self, key: u128, used: u32, sets: &Sets) -> bool {
        let (low, high) = (key as u64, (key >> 64) as u64);
        let mask = self.slots.len() - 1;
        let mut at = mixed(low, high) & mask;
        loop {
            let slot = self.slots[at];
            if slot.used == EMPTY {
                break;
            }
            if slot.low == low && slot.high == high {
                return self.merge(at, used, sets);
            }
            at = (at + 1) & mask;
        }
        self.slots[at] = Slot { low, high, used, more: EMPTY };
        self.taken += 1;
        self.sets += 1;
        if self.taken * 2 > self.slots.len() {
            self.grow();
        }
        false
    }

    fn merge(&mut self, at: usize, used: u32, sets: &Sets) -> bool {
        let slot = self.slots[at];
        if sets.within(slot.used, used) {
            return true;
        }
        if slot.more == EMPTY {
            if sets.within(used, slot.used) {
                self.slots[at].used = used;
                return false;
            }
            self.slots[at].more = self.more.len() as u32;
            self.more.push(vec![used]);
            self.sets += 1;
            return false;
        }
        let list = &mut self.more[slot.more as usize];
        if list.iter().any(|&other| sets.within(other, used)) {
            return true;
        }
        let before = list.len() as u64;
        list.retain(|&other| !sets.within(used, other));
        if sets.within(used, slot.used) {
            self.slots[at].used = used;
        } else {
            list.push(used);
        }
        self.sets = self.sets + list.len() as u64 - before;
        false
    }

    #[cold]
    fn grow(&mut self) {
        let times = if self.slots.len() < LARGE_SLOTS { 4 } else { 2 };
        let bigger = vec![FREE; self.slots.len() * times];
        let mask = bigger.len() - 1;
        for slot in std::mem::replace(&mut self.slots, bigger) {
            if slot.used != EMPTY {
                let mut at = mixed(slot.low, slot.high) & mask;
                while self.slots[at].used != EMPTY {
                    at = (at + 1) & mask;
                }
                self.slots[at] = slot;
            }
        }
    }

    /// Configurations remembered.
    pub fn len(&self) -> u64 {
        self.sets
    }

    /// Bytes held.
    pub fn memory_bytes(&self) -> usize {
        self.slots.len() * size_of::<Slot>() + self.more.len() * 64
    }
}

/// Sets of optional operations, each distinct one once. Number 0 is the empty set.
#[derive(Debug)]
pub struct Sets {
    width: usize,
    words: Vec<u64>,
    hashes: Vec<u64>,
    table: HashTable<u32>,
}

fn token(rank: u32) -> u64 {
    let mut x = u64::from(rank).wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

impl Sets {
    /// Sets of up to `count` members.
    pub fn new(count: usize) -> Self {
        let width = count.div_ceil(64);
        let mut table = HashTable::new();
        table.insert_unique(0, 0, |_| 0);
        Self { width, words: vec![0; width], hashes: vec![0], table }
    }

    fn words(&self, set: u32) -> &[u64] {
        &self.words[set as usize * self.width..][..self.width]
    }

    /// Whether `rank` is a member.
    #[inline]
    pub fn has(&self, set: u32, rank: u32) -> bool {
        self.words[set as usize * self.width + rank as usize / 64] >> (rank % 64) & 1 != 0
    }

    /// Whether all members of `a` are members of `b`.
    #[inline]
    pub fn within(&self, a: u32, b: u32) -> bool {
        a == b || a == 0 || self.words(a).iter().zip(self.words(b)).all(|(a, b)| a & !b == 0)
    }

    /// The set with the member `rank` more.
    pub fn with(&mut self, set: u32, rank: u32) -> u32 {
        let from = set as usize * self.width;
        let (place, bit) = (rank as usize / 64, 1 << (rank % 64));
        let hash = self.hashes[set as usize] ^ token(rank);
        let number = self.hashes.len() as u32;
        self.words.extend_from_within(from..from + self.width);
        let fresh = number as usize * self.width;
        self.words[fresh + place] |= bit;
        let (words, width, hashes) = (&self.words, self.width, &self.hashes);
        let same = |&other: &u32| words[other as usize * width..][..width] == words[fresh..];
        if let Some(&found) = self.table.find(hash, same) {
            self.words.truncate(fresh);
            return found;
        }
        self.table.insert_unique(hash, number, |&other| hashes[other as usize]);
        self.hashes.push(hash);
        number
    }

    /// Bytes held.
    pub fn memory_bytes(&self) -> usize {
        self.words.len() * 8 + self.hashes.len() * 16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_one_whatever_the_order_in_which_they_grew() {
        let mut sets = Sets::new(130);
        let (a, b) = (sets.with(0, 3), sets.with(0, 129));
        let (ab, ba) = (sets.with(a, 129), sets.with(b, 3));
        assert_eq!(ab, ba);
        assert!(sets.within(a, ab) && sets.within(0, a) && !sets.within(ab, a) && !sets.within(a, b));
        assert!(sets.has(ab, 129) && !sets.has(a, 129));
    }

    #[test]
    fn a_configuration_is_dominated_by_one_that_used_no_more() {
        let mut sets = Sets::new(3);
        let (a, b, c) = (sets.with(0, 0), sets.with(0, 1), sets.with(0, 2));
        let (ab, bc) = (sets.with(a, 1), sets.with(b, 2));
        let mut seen = Seen::new();
        assert!(!seen.dominated(7, ab, &sets));
        assert!(!seen.dominated(7, bc, &sets));
        assert!(!seen.dominated(7, a, &sets));
        assert!(seen.dominated(7, ab, &sets));
        assert!(!seen.dominated(8, ab, &sets));
        assert!(!seen.dominated(7, c, &sets));
        assert!(seen.dominated(7, bc, &sets));
        assert!(!seen.dominated(7, 0, &sets));
        assert!(seen.dominated(7, b, &sets));
    }

    #[test]
    fn nothing_is_forgotten_when_the_table_grows() {
        let sets = Sets::new(0);
        let mut seen = Seen::new();
        for key in 0..200_000_u128 {
            assert!(!seen.dominated(key << 60, 0, &sets));
        }
        assert!((0..200_000_u128).all(|key| seen.dominated(key << 60, 0, &sets)));
        assert_eq!(seen.len(), 200_000);
    }
}
