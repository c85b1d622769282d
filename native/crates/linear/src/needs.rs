//! Who still needs a state and who can still produce it, among operations that are not yet in order.

use crate::lists::Lists;
use crate::question::{ANY, NEVER, Question, UNSAID};

/// What a class requires, produces and takes away.
#[derive(Clone, Copy, Debug)]
struct Effect {
    requires: i64,
    produces: i64,
    consumes: bool,
}

/// Of one state, operations still to put in order.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    /// Produce it.
    makers: i32,
    /// Returned, and require it.
    wanted: i32,
    /// Those among them that leave it.
    consumers: i32,
    /// Optional, and require it.
    takers: i32,
}

/// The counts of all states.
#[derive(Debug)]
pub struct Needs {
    effects: Vec<Effect>,
    counts: Vec<Counts>,
    /// Operations that might produce any state.
    wild: i32,
    /// Every class either keeps the state or replaces it by one that does not depend on it.
    forgetful: bool,
}

impl Needs {
    pub fn new(q: &Question, lists: &Lists) -> Self {
        let effect = |c: usize| {
            let requires = q.hints.requires[c];
            let produces = if q.readonly[c] { ANY } else { q.hints.produces[c] };
            Effect { requires, produces, consumes: requires >= 0 && !q.readonly[c] && produces != requires }
        };
        let effects: Vec<Effect> = (0..q.readonly.len()).map(effect).collect();
        let states = effects.iter().map(|e| e.requires.max(e.produces) + 1).max().unwrap_or(0).max(0) as usize;
        let forgetful = effects.iter().all(|e| e.requires != UNSAID && e.produces != UNSAID);
        let mut needs = Self { effects, counts: vec![Counts::default(); states], wild: 0, forgetful };
        for (o, &c) in q.of.iter().enumerate() {
            if q.ret[o] != NEVER {
                needs.count::<1>(c, false);
            }
        }
        for &o in &lists.optional {
            needs.count::<1>(q.of[o as usize], true);
        }
        needs
    }

    /// One operation of the class less (-1) or more (1) to put in order.
    #[inline]
    pub fn count<const BY: i32>(&mut self, class: u32, optional: bool) {
        let Effect { requires, produces, consumes } = self.effects[class as usize];
        if produces >= 0 {
            self.counts[produces as usize].makers += BY;
        } else if produces == UNSAID {
            self.wild += BY;
        }
        if requires >= 0 {
            let counts = &mut self.counts[requires as usize];
            if optional {
                counts.takers += BY;
            } else {
                counts.wanted += BY;
                counts.consumers += i32::from(consumes) * BY;
            }
        }
    }

    /// True where operations need `state`, and it cannot come often enough. `now`: it is the present state.
    #[inline]
    pub fn starved(&self, state: u32, now: bool) -> bool {
        match self.counts.get(state as usize) {
            Some(counts) => self.wild == 0 && counts.wanted > 0 && counts.makers + i32::from(now) < counts.consumers.max(1),
            None => false,
        }
    }

    /// True where an optional operation of the class would produce what nobody needs.
    #[inline]
    pub fn useless(&self, class: u32) -> bool {
        self.forgetful
            && match self.effects[class as usize].produces {
                produced if produced >= 0 => {
                    let counts = &self.counts[produced as usize];
                    counts.wanted == 0 && counts.takers == 0
                }
                _ => true,
            }
    }

    /// Whether operations of the class require a state that cannot come, with `init` the present one.
    pub fn hopeless(&self, class: u32, init: u32) -> bool {
        let requires = self.effects[class as usize].requires;
        requires >= 0 && self.starved(requires as u32, requires == i64::from(init))
    }

    /// Bytes held.
    pub fn memory_bytes(&self) -> usize {
        self.effects.len() * size_of::<Effect>() + self.counts.len() * size_of::<Counts>()
    }
}
