//! Transactions without operations: asked as linearizable, answered by any member from its own state. Why they are judged apart is in
//! `src/pekan/checkers/kv/compares.py`.

use crate::collect::Buckets;
use crate::evidence::Watched;
use crate::problem::{Problem, Touched, What};
use crate::proofs::known_before;
use crate::timing::Timing;

/// Problems of time of every transaction without operations, by revision.
pub fn judge_compares<'a>(b: &Buckets<'a>, timing: &Timing, evidence: &Watched<'a>) -> Vec<Problem<'a>> {
    let mut found = Vec::new();
    if !timing.real_time {
        return found;
    }
    for (&revision, group) in &b.compares {
        let above = timing.latest_of(revision + 1);
        for &op in group {
            let call = b.ops.call(op);
            if call > above {
                let known = known_before(b, evidence, revision, call);
                found.push(Problem { revision, what: What::Stale { op, known }, touched: Touched::Ranges(Vec::new()) });
            }
        }
    }
    found
}
