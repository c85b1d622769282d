//! Which operation proves what: the operations of a history by the revision that their answer names. The table of buckets is in
//! `src/pekan/checkers/kv/collect.py`; this is the same, with operations as indexes.
//!
//! ```text
//! writes[r]                  one index for each revision
//! readers, old, local [r]    starts ──> items      all indexes of one kind in one list, in order of revision, then of call
//! the rest                   few, in ordered maps and lists
//! ```

use std::collections::BTreeMap;

use pekan_history::{Kind, Outcome, Shape};
use pekan_wire::{CompactionRequest, LeaseGrant, RangeRequest, Request, TxnRequest, lease_revoke};

use crate::case::{Circumstances, Ops};
use crate::facts::taken;
use crate::machine::{Refusal, Table};
use crate::request::{Answer, Asked, Declined, is_compares_only, is_local, may_write, ranges};

/// No operation.
pub const NONE: u32 = u32::MAX;
/// Above every revision.
pub const NEVER: i64 = 1 << 62;
/// Revisions that one history may span; see `REVISIONS_MAX` of the reference, which also says what becomes of longer ones.
pub const REVISIONS_MAX: i64 = 20_000_000;

/// Operations by revision, in order of call where they share one.
#[derive(Clone, Debug, Default)]
pub struct ByRevision {
    base: i64,
    starts: Vec<u32>,
    items: Vec<u32>,
}

impl ByRevision {
    /// `pairs` of revision and operation by revision; their order is kept within one.
    fn of(pairs: &[(i64, u32)], base: i64, size: usize) -> ByRevision {
        if pairs.is_empty() {
            return ByRevision::default();
        }
        // Counting sort: counts, their running sum, then each to its place.
        let at = |revision: i64| usize::try_from(revision - base).unwrap_or(0);
        let mut starts = vec![0u32; size + 1];
        for &(revision, _) in pairs {
            starts[at(revision) + 1] += 1;
        }
        for index in 1..starts.len() {
            starts[index] += starts[index - 1];
        }
        let mut next = starts.clone();
        let mut items = vec![NONE; pairs.len()];
        for &(revision, op) in pairs {
            let place = &mut next[at(revision)];
            items[*place as usize] = op;
            *place += 1;
        }
        ByRevision { base, starts, items }
    }

    /// The operations of `revision`.
    #[inline]
    pub fn get(&self, revision: i64) -> &[u32] {
        let Ok(at) = usize::try_from(revision.wrapping_sub(self.base)) else { return &[] };
        match self.starts.get(at..) {
            Some([start, end, ..]) => &self.items[*start as usize..*end as usize],
            _ => &[],
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// True where there is none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Every revision that has some, ascending, with them.
    pub fn iter(&self) -> impl Iterator<Item = (i64, &[u32])> {
        (self.base..)
            .zip(self.starts.windows(2))
            .filter(|(_, pair)| pair[0] != pair[1])
            .map(|(revision, pair)| (revision, &self.items[pair[0] as usize..pair[1] as usize]))
    }

    /// The lowest revision that has any.
    pub fn lowest(&self) -> Option<i64> {
        self.iter().next().map(|(revision, _)| revision)
    }
}

/// A compaction that was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Compaction {
    /// The operation.
    pub op: u32,
    /// Up to which revision.
    pub revision: i64,
    /// Whether it was answered, below the limit.
    pub answered: bool,
}

/// What was looked at, as the report counts it.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)] // the report's words
pub struct Counts {
    pub operations: usize,
    pub acknowledged_writes: usize,
    pub readers: usize,
    pub local_answers: usize,
    pub compares_only: usize,
    pub indefinite_writes: usize,
    pub refused: usize,
}

/// The operations of one history, sorted by what they prove.
#[derive(Clone, Debug)]
pub struct Buckets<'a> {
    /// All operations.
    pub ops: Ops<'a>,
    /// The first revision that is not looked at; None for all.
    pub limit: Option<i64>,
    base: i64,
    writes: Vec<u32>,
    /// Revision, the write of it, another write of it.
    pub clashes: Vec<(i64, u32, u32)>,
    /// What saw the state of a revision.
    pub readers: ByRevision,
    /// Ranges at an older revision, for their content.
    pub old: ByRevision,
    /// Local answers.
    pub local: ByRevision,
    /// Acknowledged revokes: the step to a revision or a reader at it.
    pub revokes: BTreeMap<i64, Vec<u32>>,
    /// Transactions without operations.
    pub compares: BTreeMap<i64, Vec<u32>>,
    /// Answers that prove that a revision existed before them.
    pub existed: Vec<(i64, u32)>,
    /// Every compaction.
    pub compactions: Vec<Compaction>,
    /// Writes that may have taken effect.
    pub pending: Vec<u32>,
    /// Writes that were refused for good.
    pub refused: Vec<u32>,
    /// "Future revision" to a linearizable request, with the revision.
    pub future: Vec<(i64, u32)>,
    /// "Compacted", with the revision.
    pub compacted: Vec<(i64, u32)>,
    /// Refusals that can be held against states.
    pub refusals: Vec<u32>,
    /// Revokes acknowledged at or above the limit.
    pub later_revokes: Vec<u32>,
    /// Lease -> the lowest revision of its acknowledged revokes.
    pub revoked_at: Table<i64, i64>,
    /// Those of `writes` that may attach a key to a lease.
    pub attaching: Vec<(i64, u32)>,
    /// Those of `readers` that are Ranges at a named revision.
    pub named: Vec<(i64, u32)>,
    /// Lease -> every grant that may have happened, in order of call.
    pub grants: Table<i64, Vec<u32>>,
    /// The highest revision that an answer shows.
    pub highest: i64,
    /// Answers at or above the limit.
    pub beyond: usize,
    /// Whether a transaction reads at a named revision.
    pub reads_the_past: bool,
    /// For the report.
    pub counts: Counts,
}

impl<'a> Buckets<'a> {
    /// The acknowledged write of `revision`.
    #[inline]
    pub fn write(&self, revision: i64) -> Option<u32> {
        let at = usize::try_from(revision.wrapping_sub(self.base)).ok()?;
        self.writes.get(at).copied().filter(|&op| op != NONE)
    }

    /// Every acknowledged write with its revision, ascending.
    pub fn writes(&self) -> impl Iterator<Item = (i64, u32)> + '_ {
        (self.base..).zip(self.writes.iter().copied()).filter(|&(_, op)| op != NONE)
    }

    /// The leases that a write above `revision` can attach to (values are not TTLs).
    ///
    /// A lease granted once is there after the revision of its grant and up to that of its acknowledged revoke; one that was granted
    /// without an answer, or again, may be there at any time.
    pub fn leases_after(&self, revision: i64) -> Result<Table<i64, i64>, Declined> {
        let mut leases = Table::default();
        for &lease in self.grants.keys() {
            if self.lives_after(lease, revision)? {
                leases.insert(lease, 0);
            }
        }
        Ok(leases)
    }

    /// Lease granted once -> the highest revision at which it was there: where an acknowledged write attached a key to it, or, where its
    /// revoke was acknowledged, `NEVER`: nothing else ended it. Sound where every grant is recorded.
    pub fn there_until(&self) -> Result<Table<i64, i64>, Declined> {
        let once = |lease: &i64| self.grants.get(lease).is_some_and(|granted| granted.len() == 1);
        let mut found: Table<i64, i64> = self.revoked_at.keys().filter(|lease| once(lease)).map(|&lease| (lease, NEVER)).collect();
        if self.grants.is_empty() {
            return Ok(found);
        }
        for &(revision, op) in &self.attaching {
            for lease in attached_by(&self.ops.request(op)?, &self.ops.answer(op)?) {
                if once(&lease) {
                    let until = found.entry(lease).or_insert(0);
                    *until = revision.max(*until);
                }
            }
        }
        Ok(found)
    }

    /// Whether a write above `revision` can attach to `lease`.
    pub fn lives_after(&self, lease: i64, revision: i64) -> Result<bool, Declined> {
        let &[grant] = self.grants.get(&lease).map_or(&[][..], Vec::as_slice) else { return Ok(true) };
        if self.ops.outcome(grant) != Outcome::Ok {
            return Ok(true);
        }
        let granted_at = self.ops.get(grant).revision;
        Ok(granted_at <= revision && revision < self.revoked_at.get(&lease).copied().unwrap_or(NEVER))
    }
}

/// The pairs of one pass, before they are sorted by revision.
#[derive(Default)]
struct Pairs {
    /// With whether it may attach a key to a lease.
    writes: Vec<(i64, u32, bool)>,
    readers: Vec<(i64, u32)>,
    old: Vec<(i64, u32)>,
    local: Vec<(i64, u32)>,
}

/// Sorts `ops` into buckets; those that name a revision at or above `limit` are only counted (`beyond`).
pub fn collect<'a>(ops: Ops<'a>, circumstances: &Circumstances, limit: Option<i64>) -> Result<Buckets<'a>, Declined> {
    let mut b = Buckets {
        ops,
        limit,
        base: 0,
        writes: Vec::new(),
        clashes: Vec::new(),
        readers: ByRevision::default(),
        old: ByRevision::default(),
        local: ByRevision::default(),
        revokes: BTreeMap::new(),
        compares: BTreeMap::new(),
        existed: Vec::new(),
        compactions: Vec::new(),
        pending: Vec::new(),
        refused: Vec::new(),
        future: Vec::new(),
        compacted: Vec::new(),
        refusals: Vec::new(),
        later_revokes: Vec::new(),
        revoked_at: Table::default(),
        attaching: Vec::new(),
        named: Vec::new(),
        grants: Table::default(),
        highest: 0,
        beyond: 0,
        reads_the_past: false,
        counts: Counts::default(),
    };
    let mut pairs = Pairs::default();
    let top = limit.unwrap_or(NEVER);
    for op in 0..ops.len() {
        let kind = ops.get(op).kind;
        if kind == Kind::Other {
            continue;
        }
        b.counts.operations += 1;
        if ops.outcome(op) != Outcome::Ok {
            b.unanswered(op, circumstances)?;
            continue;
        }
        let revision = sane(ops.get(op).revision)?;
        if revision < top {
            b.highest = b.highest.max(revision);
            b.answered(op, kind, revision, &mut pairs)?;
        } else {
            b.beyond += 1;
            b.past_the_limit(op, kind)?;
        }
    }
    b.sort(&pairs)?;
    b.counts.readers = b.readers.len();
    b.counts.local_answers = b.local.len();
    b.counts.compares_only = b.compares.values().map(Vec::len).sum();
    b.counts.indefinite_writes = b.pending.len();
    b.counts.refused = b.refused.len() + b.future.len() + b.compacted.len();
    Ok(b)
}

impl<'a> Buckets<'a> {
    #[inline]
    fn answered(&mut self, op: u32, kind: Kind, revision: i64, pairs: &mut Pairs) -> Result<(), Declined> {
        let recorded = self.ops.get(op);
        let shape = recorded.shape;
        if shape.has(Shape::UNSORTABLE) {
            return Err(unsortable());
        }
        match kind {
            Kind::Put => pairs.writes.push((revision, op, shape.has(Shape::ATTACHES))),
            Kind::Range => {
                let asked = if shape.has(Shape::NAMES_REVISION) { RangeRequest::decode(recorded.request)?.revision } else { 0 };
                let older = 0 < asked && asked < revision;
                if shape.has(Shape::LOCAL) {
                    pairs.local.push((if older { asked } else { revision }, op));
                    self.existed.push((revision, op));
                } else {
                    pairs.readers.push((revision, op));
                    if asked > 0 {
                        self.named.push((revision, op));
                    }
                    if older {
                        pairs.old.push((asked, op));
                    }
                }
            }
            Kind::DeleteRange if shape.has(Shape::WROTE) => pairs.writes.push((revision, op, false)),
            Kind::DeleteRange => pairs.readers.push((revision, op)),
            Kind::Txn => {
                self.reads_the_past |= shape.has(Shape::NAMES_REVISION);
                if shape.has(Shape::WROTE) {
                    pairs.writes.push((revision, op, shape.has(Shape::ATTACHES)));
                } else if shape.has(Shape::COMPARES_ONLY) {
                    self.compares.entry(revision).or_default().push(op);
                    self.existed.push((revision, op));
                } else if shape.has(Shape::LOCAL) {
                    pairs.local.push((revision, op));
                    self.existed.push((revision, op));
                } else {
                    pairs.readers.push((revision, op));
                }
            }
            Kind::Compaction => {
                let asked = sane(CompactionRequest::decode(recorded.request)?.revision)?;
                self.compactions.push(Compaction { op, revision: asked, answered: true });
                self.existed.push((revision.max(asked), op));
                self.highest = self.highest.max(asked);
            }
            Kind::LeaseGrant => {
                pairs.readers.push((revision, op));
                let lease = LeaseGrant::response(recorded.response)?.id;
                self.grants.entry(lease).or_default().push(op);
            }
            Kind::LeaseRevoke => {
                self.revokes.entry(revision).or_default().push(op);
                let first = self.revoked_at.entry(lease_revoke(recorded.request)?).or_insert(NEVER);
                *first = revision.min(*first);
            }
            Kind::Other => {}
        }
        Ok(())
    }

    fn past_the_limit(&mut self, op: u32, kind: Kind) -> Result<(), Declined> {
        let recorded = self.ops.get(op);
        match kind {
            Kind::LeaseGrant => self.grants.entry(LeaseGrant::response(recorded.response)?.id).or_default().push(op),
            Kind::Compaction => {
                let revision = CompactionRequest::decode(recorded.request)?.revision;
                self.compactions.push(Compaction { op, revision, answered: false });
            }
            Kind::LeaseRevoke => self.later_revokes.push(op),
            _ => {}
        }
        Ok(())
    }

    fn unanswered(&mut self, op: u32, circumstances: &Circumstances) -> Result<(), Declined> {
        let request = self.ops.request(op)?;
        if self.ops.get(op).shape.has(Shape::UNSORTABLE) {
            return Err(unsortable());
        }
        if self.ops.outcome(op) == Outcome::Failed {
            let refusal = self.ops.refusal(op, circumstances);
            let local = is_local(&request);
            let compares_only = matches!(&request, Asked::Txn(txn) if is_compares_only(txn));
            match refusal {
                Some(Refusal::FutureRevision) if !local && !compares_only => self.future.push((sane(named_revision(&request, true))?, op)),
                Some(Refusal::Compacted) => self.compacted.push((named_revision(&request, false), op)),
                _ => {}
            }
            if !local && refusal.is_some_and(|refusal| judges(&request, refusal)) {
                self.refusals.push(op);
            }
            if may_write(&request) {
                self.refused.push(op);
            }
        } else if may_write(&request) {
            self.pending.push(op);
        } else if let Asked::Compaction(r) = request {
            self.compactions.push(Compaction { op, revision: r.revision, answered: false });
        } else if let Asked::LeaseGrant(LeaseGrant { id, .. }) = request
            && id != 0
        {
            self.grants.entry(id).or_default().push(op);
        }
        Ok(())
    }

    fn sort(&mut self, pairs: &Pairs) -> Result<(), Declined> {
        let lists = [&pairs.readers, &pairs.old, &pairs.local];
        let revisions = pairs.writes.iter().map(|&(r, ..)| r).chain(lists.into_iter().flatten().map(|&(r, _)| r));
        let (mut low, mut high) = (i64::MAX, i64::MIN);
        for revision in revisions {
            (low, high) = (low.min(revision), high.max(revision));
        }
        if low > high {
            return Ok(());
        }
        // Tables by revision: what would make them too large is left to the reference, which has tables by what there is.
        let size = high.checked_sub(low).filter(|&span| span <= REVISIONS_MAX).and_then(|span| usize::try_from(span + 1).ok());
        let Some(size) = size else { return Err(Declined::because("the answers span too many revisions")) };
        self.base = low;
        self.writes = vec![NONE; size];
        for &(revision, op, attaches) in &pairs.writes {
            let place = &mut self.writes[usize::try_from(revision - low).unwrap_or(0)];
            if *place != NONE {
                self.clashes.push((revision, *place, op));
                continue;
            }
            *place = op;
            self.counts.acknowledged_writes += 1;
            if attaches {
                self.attaching.push((revision, op));
            }
        }
        self.readers = ByRevision::of(&pairs.readers, low, size);
        self.old = ByRevision::of(&pairs.old, low, size);
        self.local = ByRevision::of(&pairs.local, low, size);
        Ok(())
    }
}

/// Declines a revision that no store reaches, so that what is computed from the others stays in range.
fn sane(revision: i64) -> Result<i64, Declined> {
    if revision.unsigned_abs() < 1 << 60 { Ok(revision) } else { Err(Declined::because("a revision beyond all stores")) }
}

/// An order that etcd does not know: the reference cannot judge it either.
#[cold]
fn unsortable() -> Declined {
    Declined::because("a Range sorted by something unknown")
}

/// The revision that a refusal is about. Of several in a Txn it may be any: for "future" the highest proves least, else the lowest.
fn named_revision(request: &Asked<'_>, highest: bool) -> i64 {
    if let Asked::Compaction(r) = request {
        return r.revision;
    }
    let named = ranges(request).into_iter().map(|r| r.revision).filter(|&r| r != 0);
    if highest { named.max() } else { named.min() }.unwrap_or(0)
}

/// Whether `refusal` of `request` states a fact that can be held against the states of its time (refusals.rs).
fn judges(request: &Asked<'_>, refusal: Refusal) -> bool {
    match (refusal, request) {
        (Refusal::KeyNotFound | Refusal::LeaseNotFound, Asked::Put(_) | Asked::Txn(_)) => true,
        (Refusal::LeaseNotFound, Asked::LeaseRevoke(_)) => true,
        (Refusal::LeaseExists, Asked::LeaseGrant(r)) => r.id != 0,
        (Refusal::FutureRevision | Refusal::Compacted, Asked::Txn(txn)) => !is_compares_only(txn),
        _ => false,
    }
}

/// The leases that an acknowledged write attached a key to.
pub fn attached_by(request: &Asked<'_>, answer: &Answer<'_>) -> Vec<i64> {
    let mut leases = Vec::new();
    match (request, answer) {
        (Asked::Put(put), _) if put.lease != 0 => leases.push(put.lease),
        (Asked::Txn(txn), Answer::Txn { succeeded, responses, .. }) => attached_inside(txn, *succeeded, responses, &mut leases),
        _ => {}
    }
    leases
}

fn attached_inside(txn: &TxnRequest<'_>, succeeded: bool, answers: &[Answer<'_>], leases: &mut Vec<i64>) {
    for (op, answer) in taken(txn, succeeded).iter().zip(answers) {
        match (op, answer) {
            (Request::Put(put), _) if put.lease != 0 => leases.push(put.lease),
            (Request::Txn(nested), Answer::Txn { succeeded, responses, .. }) => attached_inside(nested, *succeeded, responses, leases),
            _ => {}
        }
    }
}
