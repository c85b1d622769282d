//! What answers show of keys, by revision: made when revisions have to be guessed, and not before.
//!
//! ```text
//! shown[r]            key-values with mod_revision r: what the gap r put there
//! next fact of key    the first answer about it at or after r:    its key-value, or its absence
//! puts between        acknowledged Puts of the key in (r, fact]:  they are counted in the version that the fact shows
//! ```
//!
//! The reference, which says how these refute a guess, is `src/pekan/checkers/kv/facts.py`.

use foldhash::fast::FixedState;
use hashbrown::HashSet;
use pekan_wire::{
    CREATE, Compare, DELETE, DeleteRangeRequest, EQUAL, Event, GREATER, Kv, LESS, MOD, Operand, RangeRequest, RangeResponse, Request,
    TxnRequest, VALUE, VERSION,
};

use crate::case::Ops;
use crate::collect::Buckets;
use crate::evidence::Watched;
use crate::machine::{SORT_BY_VALUE, Table, has_filters, within};
use crate::request::{Answer, Asked, Declined, deletes};

/// Lists looked at for the absence of one key; what later ones show is found by the replay itself.
const LISTS: usize = 60;

/// A set of views.
pub type Set<T> = HashSet<T, FixedState>;

/// What an answer shows of a key at `revision`: its key-value (value and lease only where `complete`); without one, that it was absent
/// (`complete`) or merely that it was there (not `complete`).
#[derive(Clone, Copy, Debug)]
struct Fact<'a> {
    revision: i64,
    kv: Option<Kv<'a>>,
    complete: bool,
}

/// What unacknowledged writers can touch: of what is outside, the replay knows everything.
#[derive(Debug, Default)]
pub struct Reach<'a> {
    /// Every key that some writer names, or that a lease may take away; sorted.
    pub keys: Vec<&'a [u8]>,
    /// The same.
    pub key_set: Set<&'a [u8]>,
    /// Every range that some writer names.
    pub spans: Vec<(&'a [u8], &'a [u8])>,
    /// Keys that some writer deletes by name.
    pub deleted: Set<&'a [u8]>,
    /// Keys that some request attaches to a lease.
    pub leased: Set<&'a [u8]>,
    /// Whether any lease can end.
    pub leases_end: bool,
}

impl Reach<'_> {
    /// Whether a writer, or the end of a lease, may delete `key`.
    pub fn may_vanish(&self, key: &[u8]) -> bool {
        self.deleted.contains(key)
            || self.spans.iter().any(|(start, end)| within(key, start, end))
            || (self.leases_end && self.leased.contains(key))
    }

    /// Whether anything in the range that `key` and `end` name can be touched.
    pub fn meets(&self, key: &[u8], end: &[u8]) -> bool {
        if end.is_empty() {
            if self.key_set.contains(key) {
                return true;
            }
        } else {
            let from = self.keys.partition_point(|k| *k < key);
            if self.keys.get(from).is_some_and(|k| within(k, key, end)) {
                return true;
            }
        }
        self.spans.iter().any(|&(other, other_end)| {
            within(key, other, other_end) || (!end.is_empty() && (within(other, key, end) || other_end == b"\0" || other_end > key))
        })
    }
}

/// A key-value that an answer shows of a revision that has to be guessed; `complete`: with its value and lease.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// As shown.
    pub kv: Kv<'a>,
    /// Whether its value and lease show.
    pub complete: bool,
}

/// The facts of one history.
#[derive(Debug)]
pub struct Facts<'a> {
    first: i64,
    gaps: Vec<bool>,
    /// Whether only the keys of `Reach::keys` matter: no writer names a range.
    only_named: bool,
    shown: Table<i64, Vec<Shown<'a>>>,
    by_key: Table<&'a [u8], Vec<Fact<'a>>>,
    puts: Table<&'a [u8], Vec<i64>>,
    deletes: Table<&'a [u8], Vec<i64>>,
    wide_deletes: Vec<(i64, &'a [u8], &'a [u8])>,
    lists: Vec<(i64, u32)>,
    put_at: Table<&'a [u8], Vec<(i64, i64)>>,
    touched: Table<i64, Set<&'a [u8]>>,
    /// Values of unacknowledged Puts, with whether anything shows them.
    values: Table<&'a [u8], bool>,
    values_ordered: bool,
    known: Table<(&'a [u8], i64), Option<Fact<'a>>>,
}

impl<'a> Facts<'a> {
    /// Of `b` and what watches saw. `gaps[r - first]`: whether revision r has to be guessed. `pending`: what the writers asked for.
    pub fn new<'p>(
        b: &Buckets<'a>,
        evidence: &Watched<'a>,
        pending: impl Iterator<Item = &'p Asked<'a>> + Clone,
        first: i64,
        gaps: Vec<bool>,
        reach: &Reach<'a>,
    ) -> Result<Self, Declined>
    where
        'a: 'p,
    {
        let ops = &b.ops;
        let mut facts = Facts {
            first,
            gaps,
            only_named: reach.spans.is_empty(),
            shown: Table::default(),
            by_key: Table::default(),
            puts: Table::default(),
            deletes: Table::default(),
            wide_deletes: Vec::new(),
            lists: Vec::new(),
            put_at: Table::default(),
            touched: Table::default(),
            values: Table::default(),
            values_ordered: false,
            known: Table::default(),
        };
        for asked in pending.clone() {
            if let Asked::Put(put) = asked {
                facts.values.insert(put.value, false);
            }
        }
        for (revision, op) in b.writes() {
            let (request, answer) = (ops.request(op)?, ops.answer(op)?);
            facts.acknowledged(&request, &answer, revision, reach);
            facts.request(&request);
        }
        for (revision, group) in b.readers.iter() {
            for &op in group {
                facts.answered(ops, op, revision, true, reach)?;
            }
        }
        for (revision, group) in b.old.iter().chain(b.local.iter()) {
            for &op in group {
                facts.answered(ops, op, revision, false, reach)?;
            }
        }
        for &op in b.compares.values().flatten().chain(&b.refusals) {
            facts.request(&ops.request(op)?);
        }
        for asked in pending {
            facts.request(asked);
        }
        let (low, high) = evidence.bounds();
        for event in (low..=high).flat_map(|revision| evidence.events(revision)) {
            facts.show(event.kv.value);
            if let Some(prev) = event.prev_kv {
                facts.show(prev.value);
            }
        }
        for listed in facts.by_key.values_mut() {
            listed.sort_by_key(|fact| fact.revision);
        }
        facts.lists.sort_by_key(|list| list.0);
        for pairs in facts.put_at.values_mut() {
            pairs.sort_unstable();
        }
        for revisions in facts.puts.values_mut().chain(facts.deletes.values_mut()) {
            revisions.sort_unstable();
        }
        Ok(facts)
    }

    // ---- collecting ----

    fn is_gap(&self, revision: i64) -> bool {
        usize::try_from(revision.wrapping_sub(self.first)).is_ok_and(|at| self.gaps.get(at).copied().unwrap_or(false))
    }

    fn show(&mut self, value: &[u8]) {
        if let Some(shown) = self.values.get_mut(value) {
            *shown = true;
        }
    }

    fn note(&mut self, kv: Kv<'a>, complete: bool) {
        self.show(kv.value);
        if self.is_gap(kv.mod_revision) {
            let known = self.shown.entry(kv.mod_revision).or_default();
            match known.iter_mut().find(|shown| shown.kv.key == kv.key) {
                Some(shown) if complete => *shown = Shown { kv, complete },
                Some(_) => {}
                None => known.push(Shown { kv, complete }),
            }
        }
    }

    fn matters(&self, key: &[u8], reach: &Reach<'a>) -> bool {
        !self.only_named || reach.key_set.contains(key)
    }

    fn fact(&mut self, key: &'a [u8], revision: i64, kv: Option<Kv<'a>>, complete: bool, reach: &Reach<'a>) {
        if self.matters(key, reach) {
            self.by_key.entry(key).or_default().push(Fact { revision, kv, complete });
        }
    }

    fn acknowledged(&mut self, request: &Asked<'a>, answer: &Answer<'a>, revision: i64, reach: &Reach<'a>) {
        noted(request, answer, &mut |kv, complete| self.note(kv, complete));
        let before = revision.saturating_sub(1);
        match (request, answer) {
            (Asked::Put(put), Answer::Put { prev_kv, .. }) if self.matters(put.key, reach) => {
                self.puts.entry(put.key).or_default().push(revision);
                if put.prev_kv {
                    self.fact(put.key, before, *prev_kv, true, reach);
                }
            }
            (Asked::DeleteRange(delete), Answer::DeleteRange { prev_kvs, .. }) => {
                for kv in prev_kvs {
                    self.fact(kv.key, before, Some(*kv), true, reach);
                }
                if delete.range_end.is_empty() && prev_kvs.is_empty() {
                    self.fact(delete.key, before, None, false, reach);
                }
                self.deleted(delete, revision);
            }
            (Asked::Txn(txn), Answer::Txn { succeeded, responses, .. }) => {
                self.put_in(txn, *succeeded, responses, revision, reach);
                for delete in deletes(request) {
                    self.deleted(&delete, revision);
                }
                if *succeeded {
                    self.guards(txn, before, reach);
                }
            }
            _ => {}
        }
    }

    /// What the true guards of a transaction say of single keys at `revision`: when they were last put, or that they were absent.
    fn guards(&mut self, request: &TxnRequest<'a>, revision: i64, reach: &Reach<'a>) {
        for compare in &request.compare {
            let Operand::Int(operand) = compare.operand else { continue };
            if compare.result != EQUAL || !compare.range_end.is_empty() || !self.matters(compare.key, reach) {
                continue;
            }
            if operand == 0 && matches!(compare.target, VERSION | CREATE | MOD) {
                self.fact(compare.key, revision, None, true, reach);
            } else if compare.target == MOD {
                self.put_at.entry(compare.key).or_default().push((revision, operand));
                if self.is_gap(operand) {
                    self.touched.entry(operand).or_default().insert(compare.key);
                }
            }
        }
    }

    /// The keys that an acknowledged transaction put.
    fn put_in(&mut self, request: &TxnRequest<'a>, succeeded: bool, answers: &[Answer<'a>], revision: i64, reach: &Reach<'a>) {
        for (op, inner) in taken(request, succeeded).iter().zip(answers) {
            match (op, inner) {
                (Request::Put(put), _) if self.matters(put.key, reach) => self.puts.entry(put.key).or_default().push(revision),
                (Request::Txn(nested), Answer::Txn { succeeded, responses, .. }) => {
                    self.put_in(nested, *succeeded, responses, revision, reach);
                }
                _ => {}
            }
        }
    }

    fn deleted(&mut self, delete: &DeleteRangeRequest<'a>, revision: i64) {
        if delete.range_end.is_empty() {
            self.deletes.entry(delete.key).or_default().push(revision);
        } else {
            self.wide_deletes.push((revision, delete.key, delete.range_end));
        }
    }

    fn answered(&mut self, ops: &Ops<'a>, op: u32, revision: i64, current: bool, reach: &Reach<'a>) -> Result<(), Declined> {
        let (request, answer) = (ops.request(op)?, ops.answer(op)?);
        noted(&request, &answer, &mut |kv, complete| self.note(kv, complete));
        match (&request, &answer) {
            (Asked::DeleteRange(delete), _) if delete.range_end.is_empty() => self.fact(delete.key, revision, None, true, reach),
            (Asked::Txn(txn), Answer::Txn { succeeded, responses, .. }) => {
                if *succeeded {
                    self.guards(txn, revision, reach);
                }
                for (inner, told) in taken(txn, *succeeded).iter().zip(responses) {
                    if let (Request::Range(range), Answer::Range { kvs, .. }) = (inner, told)
                        && range.revision <= 0
                    {
                        self.ranged(range, kvs, revision, None, reach);
                    }
                }
            }
            (Asked::Range(range), Answer::Range { header, kvs, .. })
                if !(current && 0 < range.revision && range.revision < header.revision) =>
            {
                self.ranged(range, kvs, revision, Some(op), reach);
            }
            _ => {}
        }
        self.request(&request);
        Ok(())
    }

    /// `op`: the operation, of a Range that is not inside a transaction.
    fn ranged(&mut self, request: &RangeRequest<'a>, kvs: &[Kv<'a>], revision: i64, op: Option<u32>, reach: &Reach<'a>) {
        for kv in kvs {
            self.fact(kv.key, revision, Some(*kv), !request.keys_only, reach);
        }
        if request.limit != 0 || request.count_only || has_filters(request) {
            return;
        }
        if !request.range_end.is_empty() {
            self.lists.extend(op.map(|op| (revision, op)));
        } else if kvs.is_empty() {
            self.fact(request.key, revision, None, true, reach);
        }
    }

    fn request(&mut self, request: &Asked<'a>) {
        match request {
            // An answer sorted by value, or a guard of order, tells values apart that are never shown.
            Asked::Range(range) => self.values_ordered |= range.sort_target == SORT_BY_VALUE,
            Asked::Txn(txn) => self.transaction(txn),
            _ => {}
        }
    }

    fn transaction(&mut self, txn: &TxnRequest<'a>) {
        for compare in &txn.compare {
            if let (VALUE, Operand::Bytes(value)) = (compare.target, compare.operand) {
                self.show(value);
            }
            self.values_ordered |= orders_values(compare);
        }
        for inner in txn.success.iter().chain(&txn.failure) {
            match inner {
                Request::Range(range) => self.values_ordered |= range.sort_target == SORT_BY_VALUE,
                Request::Txn(nested) => self.transaction(nested),
                _ => {}
            }
        }
    }

    // ---- asking ----

    /// What answers show of `revision`, by key.
    pub fn shown(&self, revision: i64) -> &[Shown<'a>] {
        self.shown.get(&revision).map_or(&[], Vec::as_slice)
    }

    /// Keys of which a guard says that they were put at `revision`.
    pub fn touched(&self, revision: i64) -> Option<&Set<&'a [u8]>> {
        self.touched.get(&revision)
    }

    /// Whether something recorded tells the unacknowledged Put of `value` from one of another value.
    pub fn tells_apart(&self, value: &[u8]) -> bool {
        self.values_ordered || self.values.get(value).copied().unwrap_or(true)
    }

    /// Whether the next fact about the event's key cannot be, if the event was made at `revision`.
    pub fn refuted(&mut self, ops: &Ops<'a>, event: &Event<'a>, revision: i64, reach: &Reach<'a>) -> bool {
        let key = event.kv.key;
        if let Some(pairs) = self.put_at.get(key) {
            let at = pairs.partition_point(|&pair| pair < (revision, 0));
            if let Some(&(_, put)) = pairs.get(at)
                && (put < revision || (put == revision && event.kind == DELETE))
            {
                return true; // A guard saw it last put before, at a time after.
            }
        }
        let Some(fact) = self.next(ops, key, revision) else { return false };
        let Some(kv) = fact.kv else {
            return event.kind != DELETE
                && fact.complete
                && (fact.revision == revision || !self.can_vanish(key, revision, fact.revision, reach));
        };
        if event.kind == DELETE {
            return kv.create_revision <= revision;
        }
        if kv.mod_revision <= revision {
            return kv.mod_revision < revision || !same_put(&kv, &event.kv) || (fact.complete && kv != event.kv);
        }
        if kv.create_revision > revision {
            return !self.can_vanish(key, revision, kv.create_revision, reach);
        }
        if kv.create_revision != event.kv.create_revision {
            return true;
        }
        let between = self.puts_between(key, revision, kv.mod_revision);
        let more = kv.version.wrapping_sub(event.kv.version);
        !(between.max(1) <= more && more <= kv.mod_revision - revision)
    }

    /// The revision by which something like `event`, not refuted at `revision`, must have happened; None where nothing says so.
    pub fn due(&mut self, ops: &Ops<'a>, event: &Event<'a>, revision: i64) -> Option<i64> {
        let key = event.kv.key;
        if self.touched.get(&revision).is_some_and(|keys| keys.contains(key)) {
            return Some(revision);
        }
        let fact = self.next(ops, key, revision)?;
        if event.kind == DELETE {
            let (until, gone) = match fact.kv {
                None => (fact.revision, fact.complete),
                Some(kv) => (kv.create_revision, kv.create_revision > revision),
            };
            let deletes = self.deletes.get(key).map_or(&[][..], Vec::as_slice);
            return (gone && at_or_below(deletes, until) == at_or_below(deletes, revision)).then_some(until);
        }
        match fact.kv {
            None => {
                let there = !fact.complete && event.prev_kv.is_none() && self.puts_between(key, revision, fact.revision) == 0;
                there.then_some(fact.revision)
            }
            Some(kv) => (kv.create_revision == event.kv.create_revision).then_some(kv.mod_revision),
        }
    }

    fn next(&mut self, ops: &Ops<'a>, key: &'a [u8], revision: i64) -> Option<Fact<'a>> {
        if let Some(known) = self.known.get(&(key, revision)) {
            return *known;
        }
        let listed = self.by_key.get(key).map_or(&[][..], Vec::as_slice);
        let mut found = listed.get(listed.partition_point(|fact| fact.revision < revision)).copied();
        let start = self.lists.partition_point(|list| list.0 < revision);
        for &(shown_at, op) in self.lists[start..].iter().take(LISTS) {
            if found.is_some_and(|fact| shown_at >= fact.revision) {
                break;
            }
            if lacks(ops, op, key) {
                found = Some(Fact { revision: shown_at, kv: None, complete: true });
                break;
            }
        }
        self.known.insert((key, revision), found);
        found
    }

    /// Whether `key` can have been deleted at a revision in (after, until].
    fn can_vanish(&self, key: &[u8], after: i64, until: i64, reach: &Reach<'a>) -> bool {
        let revisions = self.deletes.get(key).map_or(&[][..], Vec::as_slice);
        at_or_below(revisions, until) > at_or_below(revisions, after)
            || reach.may_vanish(key)
            || self.wide_deletes.iter().any(|&(r, start, end)| after < r && r <= until && within(key, start, end))
    }

    fn puts_between(&self, key: &[u8], after: i64, until: i64) -> i64 {
        let puts = self.puts.get(key).map_or(&[][..], Vec::as_slice);
        at_or_below(puts, until) as i64 - at_or_below(puts, after) as i64
    }
}

fn at_or_below(sorted: &[i64], revision: i64) -> usize {
    sorted.partition_point(|&r| r <= revision)
}

/// Whether two key-values of one key agree in revisions and version.
pub fn same_put(one: &Kv<'_>, other: &Kv<'_>) -> bool {
    (one.create_revision, one.mod_revision, one.version) == (other.create_revision, other.mod_revision, other.version)
}

/// Whether the Range `op` asked for `key` among others and its answer does not show it.
fn lacks(ops: &Ops<'_>, op: u32, key: &[u8]) -> bool {
    let recorded = ops.get(op);
    // Both were read before: what cannot be read was declined then.
    let (Ok(range), Ok(answer)) = (RangeRequest::decode(recorded.request), RangeResponse::decode(recorded.response)) else { return false };
    within(key, range.key, range.range_end) && !answer.kvs().flatten().any(|kv| kv.key == key)
}

/// The operations of the branch that was taken.
pub fn taken<'r, 'a>(request: &'r TxnRequest<'a>, succeeded: bool) -> &'r [Request<'a>] {
    if succeeded { &request.success } else { &request.failure }
}

/// Gives `note` every key-value that `answer` shows, with whether its value and lease show.
pub fn noted<'a>(request: &Asked<'a>, answer: &Answer<'a>, note: &mut dyn FnMut(Kv<'a>, bool)) {
    match (request, answer) {
        (Asked::Txn(txn), Answer::Txn { succeeded, responses, .. }) => noted_inside(txn, *succeeded, responses, note),
        (Asked::Range(range), _) => shown_by(answer, !range.keys_only, note),
        _ => shown_by(answer, true, note),
    }
}

fn noted_inside<'a>(txn: &TxnRequest<'a>, succeeded: bool, answers: &[Answer<'a>], note: &mut dyn FnMut(Kv<'a>, bool)) {
    for (op, answer) in taken(txn, succeeded).iter().zip(answers) {
        match (op, answer) {
            (Request::Txn(nested), Answer::Txn { succeeded, responses, .. }) => noted_inside(nested, *succeeded, responses, note),
            (Request::Range(range), _) => shown_by(answer, !range.keys_only, note),
            _ => shown_by(answer, true, note),
        }
    }
}

fn shown_by<'a>(answer: &Answer<'a>, complete: bool, note: &mut dyn FnMut(Kv<'a>, bool)) {
    match answer {
        Answer::Range { kvs, .. } => kvs.iter().for_each(|kv| note(*kv, complete)),
        Answer::Put { prev_kv: Some(kv), .. } => note(*kv, true),
        Answer::DeleteRange { prev_kvs, .. } => prev_kvs.iter().for_each(|kv| note(*kv, true)),
        _ => {}
    }
}

fn orders_values(compare: &Compare<'_>) -> bool {
    compare.target == VALUE && matches!(compare.result, GREATER | LESS)
}
