//! Where members' histories part, and why. The rules are in `src/pekan/checkers/kv/forks.py`.

use pekan_history::{Columns, NEVER, Outcome};
use pekan_wire::PUT;

use crate::case::Ops;
use crate::collect::Buckets;
use crate::evidence::{self, Evidence, Watched, decoded};
use crate::facts::noted;
use crate::machine::{State, Table, effect, in_key_order, same_change};
use crate::pool::Pool;
use crate::problem::{Effect, Exhibit, Problem, Told, Touched, What};
use crate::request::{Declined, puts};

/// (key, value) -> a refused request that would have put it.
pub type Values<'a> = Table<(&'a [u8], &'a [u8]), u32>;

/// A value that only the refused `op` wrote, as shown at `revision` by `shown_by`, first of that revision.
#[derive(Clone, Debug)]
pub struct Shown<'a> {
    /// The refused operation.
    pub op: u32,
    /// The key.
    pub key: &'a [u8],
    /// The value.
    pub value: &'a [u8],
    /// Its mod_revision.
    pub revision: i64,
    /// What shows it.
    pub shown_by: Exhibit<'a>,
}

/// (key, value) -> the first of the refused requests of `b` that would have put it.
pub fn refused_values<'a>(b: &Buckets<'a>) -> Result<Values<'a>, Declined> {
    let mut found = Values::default();
    for &op in &b.refused {
        for put in puts(&b.ops.request(op)?) {
            if !put.ignore_value {
                found.entry((put.key, put.value)).or_insert(op);
            }
        }
    }
    Ok(found)
}

/// Whether any watch may have delivered a put of one of `values`.
pub fn delivers(evidence: &Watched<'_>, values: &Values<'_>) -> bool {
    if values.is_empty() {
        return false;
    }
    if evidence.differing().next().is_some() {
        return true; // What was told otherwise is not in `events`: rare enough for the long look.
    }
    let (low, high) = evidence.bounds();
    (low..=high)
        .flat_map(|revision| evidence.events(revision))
        .any(|event| event.kind == PUT && values.contains_key(&(event.kv.key, event.kv.value)))
}

/// Those of the values `refused` that nobody else wrote and that are shown, the first showing of each request, in order of revision.
///
/// Sound only where every writer is recorded and the store began empty. Looks at every key-value of every answer, which is a third of what
/// judging a right history costs: it is asked only where one may be found.
pub fn shown_refusals<'a>(ops: &Ops<'a>, evidence: &Evidence<'a>, refused: &Values<'a>) -> Result<Vec<Shown<'a>>, Declined> {
    let mut refused = refused.clone();
    for op in 0..ops.len() {
        if ops.outcome(op) != Outcome::Failed && ops.get(op).kind != pekan_history::Kind::Other {
            for put in puts(&ops.request(op)?) {
                refused.remove(&(put.key, put.value));
            }
        }
    }
    let mut showings = Showings { ops, refused, found: Vec::new(), places: Table::default() };
    if showings.refused.is_empty() {
        return Ok(showings.found);
    }
    let watched = &evidence.watched;
    let (low, high) = watched.bounds();
    for revision in low..=high {
        showings.delivery(watched, revision, watched.encoded(revision));
    }
    for revision in watched.differing() {
        for member in watched.members() {
            if let Some(told) = watched.told_by(member, revision) {
                showings.delivery(watched, revision, told);
            }
        }
    }
    if let Some(difference) = watched.difference() {
        showings.delivery(watched, difference.revision, &difference.first.events);
        showings.delivery(watched, difference.revision, &difference.second.events);
    }
    for op in 0..ops.len() {
        if ops.outcome(op) == Outcome::Ok && ops.get(op).kind != pekan_history::Kind::Other {
            let (request, answer, time) = (ops.request(op)?, ops.answer(op)?, ops.ret(op));
            noted(&request, &answer, &mut |kv, complete| {
                if complete {
                    showings.note((kv.key, kv.value), kv.mod_revision, Some(time), &mut || Exhibit::Op(op));
                }
            });
        }
    }
    showings.found.sort_by_key(|shown| shown.revision);
    Ok(showings.found)
}

struct Showings<'o, 'a> {
    ops: &'o Ops<'a>,
    refused: Values<'a>,
    found: Vec<Shown<'a>>,
    places: Table<u32, usize>,
}

impl<'a> Showings<'_, 'a> {
    fn delivery(&mut self, watched: &Watched<'a>, revision: i64, told: &[&'a [u8]]) {
        for event in told.iter().map(|event| decoded(event)).filter(|event| event.kind == PUT) {
            let seen = watched.seen(revision).map(|seen| (seen.time, seen.stream));
            let events = || told.iter().map(|event| decoded(event)).collect();
            self.note((event.kv.key, event.kv.value), event.kv.mod_revision, seen.map(|seen| seen.0), &mut || Exhibit::Showing {
                revision,
                seen,
                events: events(),
            });
        }
    }

    fn note(&mut self, what: (&'a [u8], &'a [u8]), revision: i64, time: Option<i64>, by: &mut dyn FnMut() -> Exhibit<'a>) {
        let Some(&op) = self.refused.get(&what) else { return };
        if time.is_some_and(|time| time != NEVER && time < self.ops.call(op)) {
            return;
        }
        let (key, value) = what;
        match self.places.get(&op) {
            None => {
                self.places.insert(op, self.found.len());
                self.found.push(Shown { op, key, value, revision, shown_by: by() });
            }
            Some(&at) if revision < self.found[at].revision => self.found[at] = Shown { op, key, value, revision, shown_by: by() },
            Some(_) => {}
        }
    }
}

/// The finding that the difference between watches is. `state`: the store before it, None where it is not known.
pub fn root_of_difference<'a>(
    columns: &Columns<'a>,
    evidence: &Evidence<'a>,
    difference: &evidence::Difference<'a>,
    state: Option<&State<'a>>,
    suspects: &mut Pool<'a>,
    b: &Buckets<'a>,
) -> Result<Problem<'a>, Declined> {
    let revision = difference.revision;
    let problem = |what| Problem { revision, what, touched: Touched::Everything };
    let told = |side: &evidence::Told<'a>| {
        let stream = evidence.watches[side.watch as usize].stream;
        let member = columns.streams[stream as usize].member;
        Told { revision, member, stream, time: side.time, events: side.events.iter().map(|event| decoded(event)).collect() }
    };
    let sides = [told(&difference.first), told(&difference.second)];
    if let Some(state) = state {
        for (side, other) in [(&sides[0], &sides[1]), (&sides[1], &sides[0])] {
            let candidates = suspects.candidates(state, &side.events, crate::timing::ALWAYS);
            if let Some(op) = candidates.iter().find_map(|&writer| suspects.writers[writer as usize].op) {
                let evidence = vec![Exhibit::Told(side.clone()), Exhibit::Told(other.clone())];
                return Ok(problem(What::RefusedButApplied { op, effect: Effect::Events(side.events.clone()), evidence }));
            }
        }
    }
    if sides[0].member == sides[1].member {
        if let Some(&(_, first, second)) = b.clashes.iter().find(|(r, ..)| *r == revision) {
            return Ok(problem(What::Reused { first, second }));
        }
        if let Some(op) = b.write(revision) {
            let known = match state {
                None => &sides[0],
                Some(state) => {
                    let events = in_key_order(effect(state, &b.ops.request(op)?));
                    sides.iter().find(|side| !same_change(&events, &side.events)).unwrap_or(&sides[1])
                }
            };
            let (events, evidence) = (known.events.clone(), Exhibit::Told(known.clone()));
            return Ok(problem(What::LostWrite { op, events, evidence }));
        }
    }
    let [first, second] = sides;
    Ok(problem(What::MemberDiverged { first, second }))
}
