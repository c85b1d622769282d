//! Is there a legal order? The search of `pekan.checkers.linearizability.search`, step by step the same: equal questions get equal
//! answers, orders and counts. The rules are told, and argued, there.

use crate::lists::{HEAD, LAST, Lists};
use crate::machine::Machine;
use crate::needs::Needs;
use crate::question::{Answer, Bound, ILLEGAL, NEVER, Question, UNSAID, Verdict};
use crate::seen::{Seen, Sets};

/// Events and goals that the viability rule looks ahead. Of 50 clients' texts, four goals leave as few configurations as any number of them
/// does, in two thirds of the time that sixteen take.
const EVENTS_AHEAD: usize = 64;
const GOALS_AHEAD: usize = 4;
/// Open operations that an exact key has room for, beside the front and the state.
const EXACT_PLACES: u32 = 64;

/// A configuration with several ways on: first those in the arena, then the optional operations behind `cursor`.
#[derive(Clone, Copy, Debug)]
struct Choice {
    state: u32,
    used: u32,
    length: u32,
    front: u32,
    ways: u32,
    tried: u32,
    cursor: u32,
}

/// What of a configuration's key says which mandatory operations are in order.
///
/// All that returned before the front are, so only those open at the front are in question, and operations open at one time have
/// different places: (front, flipped places) is the set itself. Where more than [`EXACT_PLACES`] are open at one time, the key is a sum of
/// random 128-bit tokens, and whoever needs certainty asks again with another seed.
#[derive(Debug)]
enum Inside {
    Exact { place: Vec<u8> },
    Tokens { seed: u64 },
}

fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn random(seed: u64, number: u64) -> u128 {
    let low = mix(seed ^ mix(number));
    u128::from(low) | u128::from(mix(low ^ seed.rotate_left(17) ^ number)) << 64
}

impl Inside {
    fn new(lists: &Lists, count: usize, tokens: Option<u64>) -> Self {
        if let Some(seed) = tokens {
            return Self::Tokens { seed };
        }
        let (mut place, mut free, mut places) = (vec![0_u8; count], Vec::new(), 0);
        let mut node = lists.nodes[HEAD as usize].next;
        while node != HEAD {
            let at = &lists.nodes[node as usize];
            if at.is_return() {
                free.push(place[at.operation as usize]);
            } else if let Some(place_free) = free.pop() {
                place[at.operation as usize] = place_free;
            } else if places == EXACT_PLACES {
                return Self::Tokens { seed: 0 };
            } else {
                place[at.operation as usize] = places as u8;
                places += 1;
            }
            node = at.next;
        }
        Self::Exact { place }
    }

    #[inline]
    fn token(&self, o: u32) -> u128 {
        match self {
            Self::Exact { place } => 1 << place[o as usize],
            Self::Tokens { seed } => random(*seed, u64::from(o)),
        }
    }

    #[inline]
    fn key(&self, inside: u128, front: u32, state: u32) -> u128 {
        match self {
            Self::Exact { .. } => inside | u128::from(front) << 64 | u128::from(state) << 96,
            Self::Tokens { seed } => inside ^ random(!*seed, u64::from(state)),
        }
    }
}

/// The legal order that got furthest. Only what changed since is copied.
#[derive(Debug, Default)]
struct Deepest {
    order: Vec<u32>,
    /// How much of the present order it begins with.
    common: usize,
    front: u32,
}

/// The search for one question; [`Search::run`] goes on where it stopped.
#[derive(Debug)]
pub struct Search<M> {
    q: Question,
    machine: M,
    lists: Lists,
    needs: Option<Needs>,
    goals: Option<Goals>,
    inside_of: Inside,
    seen: Seen,
    sets: Sets,
    choices: Vec<Choice>,
    arena: Vec<u32>,
    /// Of each class, the latest scan that saw it and where in the arena its way is.
    scanned: Vec<(u64, u32)>,
    scans: u64,
    /// States from which goals may be reached; room for one look ahead.
    starts: Vec<i64>,
    order: Vec<u32>,
    best: Deepest,
    state: u32,
    left: u32,
    used: u32,
    inside: u128,
    steps: u64,
    verdict: Verdict,
}

/// Which classes the viability rule looks at.
#[derive(Debug)]
struct Goals {
    goals: Vec<bool>,
    resets: Vec<bool>,
    /// Where a reset leads; negative where nobody said.
    lands: Vec<i64>,
}

impl Goals {
    fn new(q: &Question) -> Option<Self> {
        let hints = &q.hints;
        if hints.resets.is_empty() {
            return None;
        }
        let goals = if hints.goals.is_empty() { vec![true; q.readonly.len()] } else { hints.goals.clone() };
        let resets = hints.resets.iter().zip(&q.readonly).map(|(&resets, &readonly)| resets && !readonly).collect();
        let lands = if hints.produces.is_empty() { vec![UNSAID; q.readonly.len()] } else { hints.produces.clone() };
        Some(Self { goals, resets, lands })
    }
}

impl<M: Machine> Search<M> {
    /// Not begun. With `tokens`, configurations are told apart by tokens of that seed even where an exact key would do.
    pub fn new(question: Question, machine: M, tokens: Option<u64>) -> Self {
        let q = question;
        let lists = Lists::new(&q);
        Self {
            needs: (!q.hints.requires.is_empty()).then(|| Needs::new(&q, &lists)),
            goals: Goals::new(&q),
            inside_of: Inside::new(&lists, q.call.len(), tokens),
            seen: Seen::new(),
            sets: Sets::new(lists.optional.len()),
            choices: Vec::new(),
            arena: Vec::new(),
            scanned: vec![(0, 0); q.readonly.len()],
            scans: 0,
            starts: Vec::new(),
            order: Vec::with_capacity(lists.mandatory as usize),
            best: Deepest::default(),
            state: q.init,
            left: lists.mandatory,
            used: 0,
            inside: 0,
            steps: 0,
            verdict: Verdict::Unknown,
            q,
            machine,
            lists,
        }
    }

    /// Steps so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Calls and returns.
    pub fn events(&self) -> u64 {
        2 * self.q.call.len() as u64
    }

    /// What is known so far.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Whether configurations were told apart by tokens, so that an `Illegal` has to be asked again.
    pub fn by_tokens(&self) -> bool {
        matches!(self.inside_of, Inside::Tokens { .. })
    }

    /// The question and its machine, to be asked again.
    pub fn into_parts(self) -> (Question, M) {
        (self.q, self.machine)
    }

    /// Go on until the answer is known (true) or `steps` have been made since the beginning.
    pub fn run(&mut self, steps: u64) -> Result<bool, M::Error> {
        if self.verdict == Verdict::Unknown && self.steps == 0 && self.hopeless() {
            self.verdict = Verdict::Illegal;
        }
        while self.verdict == Verdict::Unknown {
            if self.steps >= steps {
                return Ok(false);
            }
            if self.arrive()? {
                self.verdict = Verdict::Ok;
            } else if !self.go_on()? {
                self.verdict = Verdict::Illegal;
            }
        }
        Ok(true)
    }

    /// A new configuration: commit reads, and keep it as a choice where it is worth one. True where everything is in order.
    fn arrive(&mut self) -> Result<bool, M::Error> {
        let state = self.state;
        let ways = self.arena.len();
        self.scans += 1;
        let mut node = self.lists.nodes[HEAD as usize].next;
        loop {
            let at = self.lists.nodes[node as usize];
            if at.is_return() {
                break;
            }
            if self.q.readonly[at.class as usize] {
                self.steps += 1;
                let after = self.machine.step(state, at.class)?;
                if after == state {
                    self.put_in(at.operation);
                    node = self.lists.nodes[node as usize].next;
                    continue;
                } else if after != ILLEGAL {
                    return Err(self.machine.contradiction(state, at.class, after));
                }
            } else {
                self.offer(at.class, at.operation);
            }
            node = at.next;
        }
        if self.left == 0 {
            return Ok(true);
        }
        self.keep_deepest(node);
        if self.goals.is_some() && self.lost(node, ways)? {
            self.arena.truncate(ways);
            return Ok(false);
        }
        let key = self.inside_of.key(self.inside, node, state);
        if self.seen.dominated(key, self.used, &self.sets) {
            self.arena.truncate(ways);
            return Ok(false);
        }
        let (length, ways) = (self.order.len() as u32, ways as u32);
        self.choices.push(Choice { state, used: self.used, length, front: node, ways, tried: ways, cursor: 0 });
        Ok(false)
    }

    /// A way on, unless another of its class returns earlier.
    #[inline]
    fn offer(&mut self, class: u32, o: u32) {
        let (scan, at) = self.scanned[class as usize];
        if scan != self.scans {
            self.scanned[class as usize] = (self.scans, self.arena.len() as u32);
            self.arena.push(o);
        } else {
            let other = self.arena[at as usize];
            if self.lists.return_node[o as usize] < self.lists.return_node[other as usize] {
                self.arena[at as usize] = o;
            }
        }
    }

    #[inline]
    fn keep_deepest(&mut self, front: u32) {
        let best = &mut self.best;
        if (front, self.order.len()) > (best.front, best.order.len()) {
            best.front = front;
            best.order.truncate(best.common);
            best.order.extend_from_slice(&self.order[best.common..]);
            best.common = self.order.len();
        }
    }

    /// To the next way of the latest choice that has one; false where there is none left.
    fn go_on(&mut self) -> Result<bool, M::Error> {
        while let Some(&choice) = self.choices.last() {
            self.take_back(choice.length as usize);
            (self.state, self.used) = (choice.state, choice.used);
            let last = self.choices.len() - 1;
            let mut tried = choice.tried as usize;
            while tried < self.arena.len() {
                self.earliest_to(tried);
                let o = self.arena[tried];
                tried += 1;
                if self.attempt(o)? {
                    self.choices[last].tried = tried as u32;
                    return Ok(true);
                }
            }
            self.choices[last].tried = tried as u32;
            while let Some(o) = self.next_optional(last) {
                if self.attempt(o)? {
                    return Ok(true);
                }
            }
            self.choices.pop();
            self.arena.truncate(choice.ways as usize);
        }
        Ok(false)
    }

    /// Of the ways from `at` on, the one that returns first to `at`: most choices need no more of them in order.
    #[inline]
    fn earliest_to(&mut self, at: usize) {
        let returns = &self.lists.return_node;
        let mut earliest = at;
        for other in at + 1..self.arena.len() {
            if returns[self.arena[other] as usize] < returns[self.arena[earliest] as usize] {
                earliest = other;
            }
        }
        self.arena.swap(at, earliest);
    }

    /// The next optional operation worth trying at the latest choice.
    fn next_optional(&mut self, last: usize) -> Option<u32> {
        let choice = &mut self.choices[last];
        while let Some(&o) = self.lists.optional.get(choice.cursor as usize) {
            if self.lists.call_node[o as usize] > choice.front {
                break;
            }
            let rank = choice.cursor;
            choice.cursor += 1;
            let class = self.q.of[o as usize];
            let twin = self.lists.twin[rank as usize];
            if self.sets.has(self.used, rank)
                || (twin != crate::lists::NOBODY && !self.sets.has(self.used, twin))
                || self.needs.as_ref().is_some_and(|needs| needs.useless(class))
                || self.arena[choice.ways as usize..].iter().any(|&way| self.q.of[way as usize] == class)
            {
                continue;
            }
            return Some(o);
        }
        None
    }

    /// Put `o` in order; false (and nothing done) where that is illegal or leads nowhere.
    fn attempt(&mut self, o: u32) -> Result<bool, M::Error> {
        let state = self.state;
        let class = self.q.of[o as usize];
        self.steps += 1;
        let after = self.machine.step(state, class)?;
        if after == ILLEGAL || (after == state && self.q.ret[o as usize] == NEVER) {
            return Ok(false);
        }
        let used = self.used;
        self.put_in(o);
        if self.needs.as_ref().is_some_and(|needs| needs.starved(state, state == after)) {
            self.take_back(self.order.len() - 1);
            self.used = used;
            return Ok(false);
        }
        self.state = after;
        Ok(true)
    }

    #[inline]
    fn put_in(&mut self, o: u32) {
        self.order.push(o);
        let optional = self.lists.return_node[o as usize] == LAST;
        if optional {
            self.used = self.sets.with(self.used, self.lists.rank[o as usize]);
        } else {
            self.lists.take(self.lists.return_node[o as usize]);
            self.lists.take(self.lists.call_node[o as usize]);
            self.inside ^= self.inside_of.token(o);
            self.left -= 1;
        }
        if let Some(needs) = &mut self.needs {
            needs.count::<-1>(self.q.of[o as usize], optional);
        }
    }

    /// The last operations, until `length` are in order. What was `used` before them is the caller's to restore.
    #[inline]
    fn take_back(&mut self, length: usize) {
        self.best.common = self.best.common.min(length);
        while self.order.len() > length {
            let Some(o) = self.order.pop() else { return };
            let optional = self.lists.return_node[o as usize] == LAST;
            if !optional {
                self.lists.put_back(self.lists.call_node[o as usize]);
                self.lists.put_back(self.lists.return_node[o as usize]);
                self.inside ^= self.inside_of.token(o);
                self.left += 1;
            }
            if let Some(needs) = &mut self.needs {
                needs.count::<1>(self.q.of[o as usize], optional);
            }
        }
    }

    /// True where some operation needs a state that nobody can produce; the first of them to return is then in the way.
    fn hopeless(&mut self) -> bool {
        let Some(needs) = &self.needs else { return false };
        let returns = self.lists.return_node.iter().zip(&self.q.of);
        let front = returns.filter(|&(&node, &class)| node != LAST && needs.hopeless(class, self.q.init)).map(|(&node, _)| node).min();
        self.best.front = front.unwrap_or(0);
        front.is_some()
    }

    /// True where some goal can be reached neither from the present state nor from where a reset that comes before it may lead.
    fn lost(&mut self, front: u32, ways: usize) -> Result<bool, M::Error> {
        let Some(goals) = &self.goals else { return Ok(false) };
        let of = |o: u32| self.q.of[o as usize] as usize;
        self.starts.clear();
        self.starts.push(i64::from(self.state));
        self.starts.extend(self.arena[ways..].iter().filter(|&&o| goals.resets[of(o)]).map(|&o| goals.lands[of(o)]));
        let unused = |&(rank, &o): &(usize, &u32)| goals.resets[of(o)] && !self.sets.has(self.used, rank as u32);
        let mut unused = self.lists.optional.iter().enumerate().filter(unused).peekable();
        let mut node = front;
        let mut goals_left = GOALS_AHEAD;
        for _ in 0..EVENTS_AHEAD {
            if node == HEAD {
                break;
            }
            while let Some((_, &o)) = unused.next_if(|&(_, &o)| self.lists.call_node[o as usize] < node) {
                self.starts.push(goals.lands[of(o)]);
            }
            let at = &self.lists.nodes[node as usize];
            let class = of(at.operation);
            if !at.is_return() {
                if goals.resets[class] {
                    self.starts.push(goals.lands[class]);
                }
            } else if goals.goals[class] {
                let mut reached = false;
                for &start in &self.starts {
                    reached = match u32::try_from(start) {
                        Ok(state) => self.machine.viable(state, class as u32)?,
                        Err(_) => true, // It may lead anywhere.
                    };
                    if reached {
                        break;
                    }
                }
                if !reached {
                    return Ok(true);
                }
                goals_left -= 1;
                if goals_left == 0 {
                    break;
                }
            }
            node = at.next;
        }
        Ok(false)
    }

    /// Bytes held.
    pub fn memory_bytes(&self) -> usize {
        let needs = self.needs.as_ref().map_or(0, Needs::memory_bytes);
        let columns = self.q.call.len() * 32 + self.order.capacity() * 8 + self.choices.capacity() * size_of::<Choice>();
        columns + needs + self.lists.memory_bytes() + self.seen.memory_bytes() + self.sets.memory_bytes() + self.machine.memory_bytes()
    }

    /// What is known now; `bound` says why no more.
    pub fn answer(&self, bound: Bound) -> Answer {
        let (order, blocked, bound) = match self.verdict {
            Verdict::Ok => (&self.order, HEAD, Bound::None),
            Verdict::Illegal => (&self.best.order, self.best.front, Bound::None),
            Verdict::Unknown => (&self.best.order, self.best.front, bound),
        };
        Answer {
            verdict: self.verdict,
            order: order.clone(),
            blocked: (blocked != HEAD).then(|| self.lists.nodes[blocked as usize].operation),
            bound,
            steps: self.steps,
            configurations: self.seen.len(),
            asked: self.machine.asked(),
        }
    }
}
