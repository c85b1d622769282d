//! Gaps and writers, one to one, kept maximal gap by gap: Kuhn's augmenting paths, one step where a gap has a free candidate.
//!
//! ```text
//! gap 7 ── a, b          add(9, [a]):  a is 7's, 7 can take b          7 ── b,  9 ── a
//! gap 9 ── a             reserve(b):   7 has nobody else               refused, nothing is changed
//! ```
//!
//! Gaps come in the order of revisions and are dropped from a revision on, so they are a stack. Writers are numbers: see `pool`.

/// A writer's number in its pool.
pub type WriterId = u32;

const NOBODY: u32 = u32::MAX;

#[derive(Debug)]
struct Gap {
    revision: i64,
    choices: Vec<WriterId>,
    writer: WriterId,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Matching {
    gaps: Vec<Gap>,
    /// Writer -> index of its gap in `gaps`.
    gap_of: Vec<u32>,
    reserved: Vec<bool>,
    /// Writer -> the search that looked at it last: nothing is cleared between searches.
    tried: Vec<u32>,
    search: u32,
}

impl Matching {
    /// No gaps yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives `revision` one of `choices`, moving others where needed. False, and nothing is changed, where that cannot be.
    ///
    /// Gaps are added in the order of revisions.
    pub fn add(&mut self, revision: i64, choices: Vec<WriterId>) -> bool {
        debug_assert!(self.gaps.last().is_none_or(|gap| gap.revision < revision));
        for &writer in &choices {
            self.know(writer);
        }
        self.gaps.push(Gap { revision, choices, writer: NOBODY });
        let placed = self.place(self.gaps.len() - 1);
        if !placed {
            self.gaps.pop();
        }
        placed
    }

    /// Takes `writer` out of the matching, giving its gap another; false, and nothing is changed, where that cannot be.
    pub fn reserve(&mut self, writer: WriterId) -> bool {
        self.know(writer);
        let at = writer as usize;
        if self.reserved[at] {
            return false;
        }
        self.reserved[at] = true;
        let gap = std::mem::replace(&mut self.gap_of[at], NOBODY);
        if gap == NOBODY || self.place(gap as usize) {
            return true;
        }
        self.gap_of[at] = gap;
        self.reserved[at] = false;
        false
    }

    /// Undoes `reserve`.
    pub fn release(&mut self, writer: WriterId) {
        self.know(writer);
        self.reserved[writer as usize] = false;
    }

    /// Forgets every gap at or above `revision`.
    pub fn drop_from(&mut self, revision: i64) {
        while let Some(gap) = self.gaps.pop_if(|gap| gap.revision >= revision) {
            let index = self.gaps.len() as u32;
            if gap.writer != NOBODY && self.gap_of[gap.writer as usize] == index {
                self.gap_of[gap.writer as usize] = NOBODY;
            }
        }
    }

    /// Whether `writer` is out of the matching.
    pub fn is_reserved(&self, writer: WriterId) -> bool {
        self.reserved.get(writer as usize).copied().unwrap_or(false)
    }

    /// Whether `writer` made some revision, matched or reserved.
    pub fn is_used(&self, writer: WriterId) -> bool {
        self.is_reserved(writer) || self.gap_of.get(writer as usize).is_some_and(|&gap| gap != NOBODY)
    }

    /// (revision, writer) of every gap, in order.
    pub fn writers(&self) -> impl Iterator<Item = (i64, WriterId)> + '_ {
        self.gaps.iter().map(|gap| (gap.revision, gap.writer))
    }

    /// How many gaps have a writer: all of them.
    pub fn len(&self) -> usize {
        self.gaps.len()
    }

    /// True without gaps.
    pub fn is_empty(&self) -> bool {
        self.gaps.is_empty()
    }

    fn know(&mut self, writer: WriterId) {
        let size = writer as usize + 1;
        if self.gap_of.len() < size {
            self.gap_of.resize(size, NOBODY);
            self.reserved.resize(size, false);
            self.tried.resize(size, 0);
        }
    }

    /// Depth first with a stack of its own: a chain of moves can be as long as there are gaps.
    fn place(&mut self, gap: usize) -> bool {
        self.search = self.search.wrapping_add(1);
        if self.search == 0 {
            self.tried.fill(0);
            self.search = 1;
        }
        // (gap, how many of its choices were looked at): the last one looked at is the one it would take.
        let mut path: Vec<(usize, usize)> = vec![(gap, 0)];
        'deeper: while let Some((at, looked_at)) = path.last_mut() {
            if *looked_at == 0 {
                // A free one is taken before anything is moved: without this look many gaps of one key would push each other on.
                if let Some(free) = self.gaps[*at].choices.iter().position(|&writer| self.is_free(writer)) {
                    *looked_at = free + 1;
                    self.settle(&path);
                    return true;
                }
            }
            while let Some(&writer) = self.gaps[*at].choices.get(*looked_at) {
                *looked_at += 1;
                let index = writer as usize;
                if self.tried[index] == self.search || self.reserved[index] {
                    continue;
                }
                self.tried[index] = self.search;
                path.push((self.gap_of[index] as usize, 0));
                continue 'deeper;
            }
            path.pop();
        }
        false
    }

    fn is_free(&self, writer: WriterId) -> bool {
        self.gap_of[writer as usize] == NOBODY && !self.reserved[writer as usize]
    }

    fn settle(&mut self, path: &[(usize, usize)]) {
        for &(gap, looked_at) in path {
            let chosen = self.gaps[gap].choices[looked_at - 1];
            self.gaps[gap].writer = chosen;
            self.gap_of[chosen as usize] = gap as u32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_moves_to_another_writer_for_one_that_has_no_choice() {
        let mut matching = Matching::new();
        assert!(matching.add(7, vec![0, 1]));
        assert!(matching.add(9, vec![0]));
        assert_eq!(matching.writers().collect::<Vec<_>>(), [(7, 1), (9, 0)]);
        assert!(!matching.add(10, vec![0, 1]));
        assert_eq!(matching.len(), 2);
        assert_eq!(matching.writers().collect::<Vec<_>>(), [(7, 1), (9, 0)]);
    }

    #[test]
    fn a_writer_is_reserved_only_where_its_gap_has_another() {
        let mut matching = Matching::new();
        assert!(matching.add(7, vec![0, 1]));
        assert!(matching.reserve(0));
        assert!(!matching.reserve(0));
        assert!(!matching.reserve(1));
        assert_eq!(matching.writers().collect::<Vec<_>>(), [(7, 1)]);
        matching.release(0);
        assert!(matching.reserve(1));
        assert_eq!(matching.writers().collect::<Vec<_>>(), [(7, 0)]);
        assert!(matching.is_used(0) && matching.is_used(1) && !matching.is_used(2));
    }

    #[test]
    fn dropped_gaps_free_their_writers() {
        let mut matching = Matching::new();
        assert!(matching.add(3, vec![0]) && matching.add(5, vec![1]) && matching.add(8, vec![2]));
        matching.drop_from(5);
        assert_eq!(matching.writers().collect::<Vec<_>>(), [(3, 0)]);
        assert!(matching.add(6, vec![2]) && matching.add(7, vec![1]));
        assert!(!matching.add(9, vec![0]));
    }

    #[test]
    fn a_chain_of_moves_may_be_as_long_as_there_are_gaps() {
        let mut matching = Matching::new();
        let size = 50_000;
        for gap in 0..size {
            assert!(matching.add(i64::from(gap), vec![gap, gap + 1]));
        }
        // The last free writer is at the far end: every gap has to move by one.
        assert!(matching.add(i64::from(size), vec![0]));
        assert!(!matching.add(i64::from(size) + 1, vec![0]));
        assert!(matching.writers().take(size as usize).all(|(gap, writer)| i64::from(writer) == gap + 1));
    }

    #[test]
    fn every_answer_is_that_of_trying_all_assignments() {
        fn possible(choices: &[Vec<WriterId>], taken: &mut Vec<WriterId>) -> bool {
            let Some((first, rest)) = choices.split_first() else { return true };
            first.iter().any(|writer| {
                !taken.contains(writer) && {
                    taken.push(*writer);
                    let right = possible(rest, taken);
                    taken.pop();
                    right
                }
            })
        }
        let mut random = 88_172_645_463_325_252_u64;
        let mut draw = move |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        for _ in 0..2_000 {
            let mut matching = Matching::new();
            let mut accepted: Vec<Vec<WriterId>> = Vec::new();
            let mut reserved: Vec<WriterId> = Vec::new();
            for revision in 0..7 {
                let choices: Vec<WriterId> = (0..5).filter(|_| draw(3) == 0).collect();
                let mut wanted = accepted.clone();
                wanted.push(choices.clone());
                let right = possible(&wanted, &mut reserved.clone());
                assert_eq!(matching.add(revision, choices), right);
                if right {
                    accepted = wanted;
                }
                let writer = draw(5) as WriterId;
                if !reserved.contains(&writer) && draw(4) == 0 {
                    reserved.push(writer);
                    let right = possible(&accepted, &mut reserved.clone());
                    assert_eq!(matching.reserve(writer), right);
                    if !right {
                        reserved.pop();
                    }
                }
            }
        }
    }
}
