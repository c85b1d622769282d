//! A set of small numbers, one bit each: which revisions are whole, told, unknown.

/// A set of numbers below a bound that grows as needed; asking beyond it is asking for something that is not there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bits {
    words: Vec<u64>,
}

impl Bits {
    /// An empty set with room for the numbers below `size`.
    pub fn with_room(size: usize) -> Bits {
        Bits { words: vec![0; size.div_ceil(64)] }
    }

    /// Adds `index`; true where it was not there.
    #[inline]
    pub fn insert(&mut self, index: usize) -> bool {
        let word = index / 64;
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let bit = 1 << (index % 64);
        let new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        new
    }

    /// Takes `index` out.
    #[inline]
    pub fn remove(&mut self, index: usize) {
        if let Some(word) = self.words.get_mut(index / 64) {
            *word &= !(1 << (index % 64));
        }
    }

    /// Whether `index` is there.
    #[inline]
    pub fn contains(&self, index: usize) -> bool {
        self.words.get(index / 64).is_some_and(|word| word >> (index % 64) & 1 == 1)
    }

    /// Whether nothing is there.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|&word| word == 0)
    }

    /// How many are there.
    pub fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// What is there, ascending.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.words.iter().enumerate().flat_map(|(at, &word)| {
            let mut left = word;
            std::iter::from_fn(move || {
                if left == 0 {
                    return None;
                }
                let bit = left.trailing_zeros() as usize;
                left &= left - 1;
                Some(at * 64 + bit)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Bits;

    /// What was put in is there, in order, once, and nothing else is.
    #[test]
    fn holds_what_was_put_in() {
        let mut bits = Bits::with_room(10);
        assert!(bits.is_empty());
        assert!(bits.insert(3) && bits.insert(64) && bits.insert(700) && !bits.insert(64));
        assert_eq!(bits.iter().collect::<Vec<_>>(), [3, 64, 700]);
        assert_eq!(bits.count(), 3);
        bits.remove(64);
        bits.remove(100_000);
        assert!(bits.contains(3) && !bits.contains(64) && !bits.contains(100_000));
    }
}
