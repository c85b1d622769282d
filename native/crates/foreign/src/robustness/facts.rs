//! What happened at each revision, and what each put left of its key, as far as a report tells.

use super::Report;
use super::parse::{Event, Held, Kv, Op, Operation, Request};
use crate::Declined;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

/// What a put at one revision left of a key. `lease` is None where nothing tells.
#[derive(Clone, Copy, Debug)]
pub struct Fact {
    pub create: i64,
    pub version: i64,
    pub lease: Option<i64>,
}

/// One key at one revision. `creates` and `lease` are None where nothing tells.
struct Change<'a> {
    key: &'a str,
    puts: bool,
    creates: Option<bool>,
    lease: Option<i64>,
    prev_mod: Option<i64>,
}

type Map<K, V> = HashMap<K, V, FixedState>;

/// What follows from a report.
pub struct Facts<'a> {
    known: Map<(&'a str, i64), Fact>,
    /// Up to this revision all is told: a key-value of it or below that no fact knows never was.
    whole: i64,
}

impl<'a> Facts<'a> {
    pub fn of(report: &'a Report<'_>, empty: bool) -> Result<Self, Declined> {
        let slots = slots(report);
        let mut revisions: Vec<i64> = slots.keys().copied().collect();
        revisions.sort_unstable();
        if revisions.first().is_some_and(|&first| first < 1) || revisions.last().is_some_and(|&last| last > i64::MAX / 2) {
            return Err(Declined("a revision that cannot be"));
        }
        let mut facts = Facts { known: Map::default(), whole: 1 };
        let mut now: Map<&str, (i64, Option<Fact>)> = Map::default();
        let mut gap = i64::from(!empty);
        let mut before = 1;
        for revision in revisions {
            if revision > before + 1 {
                gap = revision - 1;
            }
            before = revision;
            for change in &slots[&revision] {
                facts.take(change, revision, gap, &mut now);
            }
        }
        while empty && slots.contains_key(&(facts.whole + 1)) {
            facts.whole += 1;
        }
        Ok(facts)
    }

    fn take(&mut self, change: &Change<'a>, revision: i64, gap: i64, now: &mut Map<&'a str, (i64, Option<Fact>)>) {
        if !change.puts {
            now.insert(change.key, (revision, None));
            return;
        }
        let (since, old) = now.get(change.key).copied().unwrap_or((1, None));
        let sure = since > gap || (old.is_some() && change.prev_mod == Some(since)) || (since == 1 && gap == 0);
        let fact = match (change.creates, old) {
            (Some(true), _) => Fact { create: revision, version: 1, lease: change.lease },
            (None, None) if sure => Fact { create: revision, version: 1, lease: change.lease },
            (_, Some(old)) if sure => Fact { create: old.create, version: old.version + 1, lease: change.lease },
            _ => {
                now.remove(change.key);
                return;
            }
        };
        self.known.insert((change.key, revision), fact);
        now.insert(change.key, (revision, Some(fact)));
    }

    /// What the put of `key` at `revision` left.
    pub fn get(&self, key: &str, revision: i64) -> Option<Fact> {
        self.known.get(&(key, revision)).copied()
    }

    /// Create revision and lease of a key-value that an answer shows; None where they do not follow.
    pub fn follow(&self, key: &str, kv: &Kv<'_>) -> Option<(i64, i64)> {
        let fact = self.get(key, kv.modified).or_else(|| {
            (0 < kv.modified && kv.modified <= self.whole).then_some(Fact { create: kv.modified.min(2), version: 0, lease: Some(0) })
        })?;
        Some((if kv.version == 1 { kv.modified } else { fact.create }, fact.lease?))
    }
}

/// Revision -> all that it changed, where a watch of the whole keyspace or an acknowledged write tells it.
fn slots<'a>(report: &'a Report<'_>) -> Map<i64, Vec<Change<'a>>> {
    // (key, value) -> the lease that all puts of them name; None where they name several.
    let mut leases: Map<(&str, &Held<'_>), Option<i64>> = Map::default();
    let mut by_request: Map<i64, Vec<Change<'a>>> = Map::default();
    for operation in &report.operations {
        for op in puts(&operation.request) {
            if let Op::Put(put) = op {
                let lease = leases.entry((&put.key, &put.value)).or_insert(Some(put.lease));
                if *lease != Some(put.lease) {
                    *lease = None;
                }
            }
        }
        if operation.answered() {
            let changes = changes(operation);
            if !changes.is_empty() {
                by_request.entry(operation.output.revision).or_insert(changes);
            }
        }
    }
    let mut slots: Map<i64, Vec<Change<'a>>> = Map::default();
    for watch in report.watches.iter().filter(|watch| watch.prefix && watch.key.is_empty()) {
        for response in &watch.responses {
            // Only the first telling of a revision counts; one response may hold a revision in several places.
            let mut fresh: Vec<i64> = Vec::new();
            for event in &response.events {
                let changes = match slots.entry(event.revision) {
                    Entry::Vacant(slot) => {
                        fresh.push(event.revision);
                        slot.insert(Vec::new())
                    }
                    Entry::Occupied(slot) if fresh.contains(&event.revision) => slot.into_mut(),
                    Entry::Occupied(_) => continue,
                };
                changes.push(told(event, by_request.get(&event.revision), &leases));
            }
        }
    }
    for (revision, changes) in by_request {
        slots.entry(revision).or_insert(changes);
    }
    slots
}

fn told<'a>(event: &'a Event<'_>, mine: Option<&Vec<Change<'a>>>, leases: &Map<(&'a str, &'a Held<'_>), Option<i64>>) -> Change<'a> {
    let key: &str = &event.key;
    let prev_mod = event.prev.as_ref().map(|prev| prev.modified);
    if event.deletes {
        return Change { key, puts: false, creates: Some(false), lease: Some(0), prev_mod };
    }
    let of_writer = mine.and_then(|changes| changes.iter().rev().find(|change| change.puts && change.key == key)).and_then(|c| c.lease);
    let lease = of_writer.or_else(|| leases.get(&(key, &event.value)).copied().flatten());
    Change { key, puts: true, creates: Some(event.creates), lease, prev_mod }
}

fn puts<'a, 'b>(request: &'b Request<'a>) -> impl Iterator<Item = &'b Op<'a>> {
    let (single, both) = match request {
        Request::Single(op) => (Some(op), None),
        Request::Txn(_, success, failure) => (None, Some(success.iter().chain(failure))),
        _ => (None, None),
    };
    single.into_iter().chain(both.into_iter().flatten())
}

/// What an acknowledged write changed at its revision; empty where it changed nothing.
fn changes<'a>(operation: &'a Operation<'_>) -> Vec<Change<'a>> {
    operation
        .taken()
        .filter_map(|(op, result)| match op {
            Op::Put(put) => Some(Change { key: &put.key, puts: true, creates: None, lease: Some(put.lease), prev_mod: None }),
            Op::Delete(key) if result.deleted != 0 => {
                Some(Change { key, puts: false, creates: Some(false), lease: Some(0), prev_mod: None })
            }
            _ => None,
        })
        .collect()
}
