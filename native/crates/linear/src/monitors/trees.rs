//! Two trees over a fixed row of places, each step `log n`.

/// The greatest value of any range, and where. Values are i64; `i64::MIN` is none.
pub struct Greatest {
    width: usize,
    /// `tree[width + place]` is the value of a place; each inner node the greater of its two.
    tree: Vec<i64>,
}

impl Greatest {
    /// A row with these values.
    pub fn new(values: impl ExactSizeIterator<Item = i64>) -> Self {
        let width = values.len().next_power_of_two();
        let mut tree = vec![i64::MIN; 2 * width];
        for (slot, value) in tree[width..].iter_mut().zip(values) {
            *slot = value;
        }
        for node in (1..width).rev() {
            tree[node] = tree[2 * node].max(tree[2 * node + 1]);
        }
        Self { width, tree }
    }

    /// Sets one value.
    pub fn set(&mut self, place: usize, value: i64) {
        let mut node = self.width + place;
        self.tree[node] = value;
        while node > 1 {
            node /= 2;
            let greater = self.tree[2 * node].max(self.tree[2 * node + 1]);
            if self.tree[node] == greater {
                return;
            }
            self.tree[node] = greater;
        }
    }

    /// The greatest value in `begin..end` and the first place that has it; none where all are `i64::MIN`.
    pub fn greatest(&self, begin: usize, end: usize) -> Option<(i64, usize)> {
        let (mut best, mut at) = (i64::MIN, 0);
        // Nodes of the left border are met from left to right, those of the right border from right to left.
        let (mut left, mut right) = (self.width + begin, self.width + end);
        let (mut tail, mut tail_at) = (i64::MIN, 0);
        while left < right {
            if left & 1 == 1 {
                if self.tree[left] > best {
                    (best, at) = (self.tree[left], left);
                }
                left += 1;
            }
            if right & 1 == 1 {
                right -= 1;
                if self.tree[right] >= tail {
                    (tail, tail_at) = (self.tree[right], right);
                }
            }
            left /= 2;
            right /= 2;
        }
        if tail > best {
            (best, at) = (tail, tail_at);
        }
        if best == i64::MIN {
            return None;
        }
        while at < self.width {
            at = if self.tree[2 * at] == best { 2 * at } else { 2 * at + 1 };
        }
        Some((best, at - self.width))
    }
}

/// How many intervals cover each place; intervals only leave.
pub struct Covered {
    width: usize,
    /// Each node: the least count below it, with what was added to nodes above it left out.
    least: Vec<i32>,
    added: Vec<i32>,
}

impl Covered {
    /// A row with these counts.
    pub fn new(counts: &[i32]) -> Self {
        let width = counts.len().next_power_of_two();
        let mut least = vec![i32::MAX / 2; 2 * width];
        least[width..width + counts.len()].copy_from_slice(counts);
        for node in (1..width).rev() {
            least[node] = least[2 * node].min(least[2 * node + 1]);
        }
        Self { width, least, added: vec![0; width] }
    }

    /// One interval less over `begin..end`; calls `bare` with each place of it that nothing covers now, in ascending order.
    pub fn leave(&mut self, begin: usize, end: usize, bare: &mut Vec<usize>) {
        if begin < end {
            self.below(1, 0, self.width, begin, end, 0, bare);
        }
    }

    /// `above`: what was added to the nodes above `node`.
    #[allow(clippy::too_many_arguments)] // the place in a recursion: node, its range, the range asked for
    fn below(&mut self, node: usize, low: usize, high: usize, begin: usize, end: usize, above: i32, bare: &mut Vec<usize>) {
        if begin <= low && high <= end {
            self.least[node] -= 1;
            if node < self.width {
                self.added[node] -= 1;
            }
            if self.least[node] + above == 0 {
                self.collect(node, low, high, above, bare);
            }
            return;
        }
        let middle = low.midpoint(high);
        let above = above + self.added[node];
        if begin < middle {
            self.below(2 * node, low, middle, begin, end, above, bare);
        }
        if middle < end {
            self.below(2 * node + 1, middle, high, begin, end, above, bare);
        }
        self.least[node] = self.least[2 * node].min(self.least[2 * node + 1]) + self.added[node];
    }

    fn collect(&self, node: usize, low: usize, high: usize, above: i32, bare: &mut Vec<usize>) {
        if self.least[node] + above > 0 {
            return;
        }
        if node >= self.width {
            bare.push(low);
            return;
        }
        let middle = low.midpoint(high);
        let above = above + self.added[node];
        self.collect(2 * node, low, middle, above, bare);
        self.collect(2 * node + 1, middle, high, above, bare);
    }
}
