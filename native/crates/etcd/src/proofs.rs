//! Who had been shown a revision, and when: the exhibit for "this was known before that was called".

use pekan_history::NEVER;

use crate::collect::Buckets;
use crate::evidence::Watched;
use crate::problem::Exhibit;

/// The first answer or delivery found that showed a revision above `revision` before `call` (ns).
pub fn known_before<'a>(b: &Buckets<'a>, evidence: &Watched<'a>, revision: i64, call: i64) -> Option<Exhibit<'a>> {
    let before = |op: u32| {
        let ret = b.ops.ret(op);
        ret != NEVER && ret < call
    };
    if let Some(&(r, op)) = b.existed.iter().find(|&&(r, op)| r > revision && before(op)) {
        return Some(Exhibit::Existed(op, r));
    }
    for r in revision + 1..=b.highest.max(revision + 1) {
        if let Some(op) = b.write(r).into_iter().chain(b.readers.get(r).iter().copied()).find(|&op| before(op)) {
            return Some(Exhibit::Op(op));
        }
        if let Some(seen) = evidence.seen(r).filter(|seen| seen.time < call) {
            return Some(Exhibit::Delivered { revision: r, time: seen.time, stream: seen.stream });
        }
    }
    None
}
