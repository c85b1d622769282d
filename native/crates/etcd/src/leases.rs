//! Leases in the order of revisions: granted before they are used, not used after they are revoked, revoked once. Only of leases that were
//! granted once; see `src/pekan/checkers/kv/leases.py`.

use pekan_history::Outcome;
use pekan_wire::{header_of, lease_revoke};

use crate::collect::{Buckets, attached_by};
use crate::machine::Table;
use crate::problem::{LeaseMisuse, Problem, Touched, What};
use crate::request::Declined;

/// Acknowledged uses of a lease that contradict its acknowledged grant or revoke.
pub fn judge_leases<'a>(b: &Buckets<'a>) -> Result<Vec<Problem<'a>>, Declined> {
    let mut found = Vec::new();
    let mut wrong = |op: u32, revision: i64, other: Option<u32>, how: LeaseMisuse| {
        found.push(Problem { revision, what: What::Lease { op, other, how }, touched: Touched::Everything });
    };
    // Revokes by lease, leases in the order of their first one.
    let mut revoked: Vec<(i64, Vec<(i64, u32)>)> = Vec::new();
    let mut places: Table<i64, usize> = Table::default();
    for (&revision, group) in &b.revokes {
        for &op in group {
            let lease = lease_revoke(b.ops.get(op).request)?;
            let at = *places.entry(lease).or_insert_with(|| {
                revoked.push((lease, Vec::new()));
                revoked.len() - 1
            });
            revoked[at].1.push((revision, op));
        }
    }
    for (lease, ends) in &revoked {
        let Some((grant, granted_at)) = single(b, *lease)? else { continue };
        for &(revision, op) in ends {
            if revision < granted_at {
                wrong(op, revision, Some(grant), LeaseMisuse::BeforeGrant);
            }
        }
        for pair in ends.windows(2) {
            wrong(pair[1].1, pair[1].0, Some(pair[0].1), LeaseMisuse::RevokedAgain);
        }
    }
    for &(revision, op) in &b.attaching {
        for lease in attached_by(&b.ops.request(op)?, &b.ops.answer(op)?) {
            let Some((grant, granted_at)) = single(b, lease)? else {
                if !b.grants.contains_key(&lease) {
                    wrong(op, revision, None, LeaseMisuse::NeverGranted);
                }
                continue;
            };
            if revision <= granted_at {
                wrong(op, revision, Some(grant), LeaseMisuse::BeforeGrant);
            }
            let ends = places.get(&lease).map_or(&[][..], |&at| &revoked[at].1);
            for &(ended, end) in ends.iter().filter(|(ended, _)| revision > *ended) {
                debug_assert!(ended < revision);
                wrong(op, revision, Some(end), LeaseMisuse::AfterRevoke);
            }
        }
    }
    Ok(found)
}

/// The one grant of `lease`, which was answered, and the revision it was answered at.
fn single(b: &Buckets<'_>, lease: i64) -> Result<Option<(u32, i64)>, Declined> {
    match b.grants.get(&lease).map_or(&[][..], Vec::as_slice) {
        &[grant] if b.ops.outcome(grant) == Outcome::Ok => Ok(Some((grant, header_of(b.ops.get(grant).response)?.revision))),
        _ => Ok(None),
    }
}
