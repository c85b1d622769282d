//! Transitions asked once.

/// (state, class) -> u32, in a hash table with open addressing.
#[derive(Debug, Default)]
pub struct Transitions {
    /// State and class in one number, plus one (0: free), and what it leads to.
    slots: Vec<(u64, u32)>,
    taken: usize,
}

#[inline]
fn mixed(key: u64) -> usize {
    let product = u128::from(key ^ 0x9e37_79b9_7f4a_7c15) * 0xd1b5_4a32_d192_ed03_u128;
    ((product as u64) ^ (product >> 64) as u64) as usize
}

#[inline]
fn key(state: u32, class: u32) -> u64 {
    (u64::from(state) << 32 | u64::from(class)) + 1
}

impl Transitions {
    /// What was remembered. `state` is not the greatest of all numbers.
    #[inline]
    pub fn get(&self, state: u32, class: u32) -> Option<u32> {
        if self.slots.is_empty() {
            return None;
        }
        let key = key(state, class);
        let mask = self.slots.len() - 1;
        let mut at = mixed(key) & mask;
        loop {
            let (found, after) = self.slots[at];
            if found == key {
                return Some(after);
            }
            if found == 0 {
                return None;
            }
            at = (at + 1) & mask;
        }
    }

    /// Remember what was not there.
    pub fn put(&mut self, state: u32, class: u32, after: u32) {
        if self.taken * 2 >= self.slots.len() {
            let bigger = vec![(0, 0); (self.slots.len() * 4).max(64)];
            for (key, after) in std::mem::replace(&mut self.slots, bigger) {
                if key != 0 {
                    self.place(key, after);
                }
            }
        }
        self.place(key(state, class), after);
        self.taken += 1;
    }

    fn place(&mut self, key: u64, after: u32) {
        let mask = self.slots.len() - 1;
        let mut at = mixed(key) & mask;
        while self.slots[at].0 != 0 {
            at = (at + 1) & mask;
        }
        self.slots[at] = (key, after);
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.taken
    }

    /// True where none is.
    pub fn is_empty(&self) -> bool {
        self.taken == 0
    }

    /// Bytes held.
    pub fn memory_bytes(&self) -> usize {
        self.slots.len() * size_of::<(u64, u32)>()
    }
}
