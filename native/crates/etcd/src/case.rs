//! What is judged, and how: the operations of the first epoch, and the circumstances that Python knows.

use pekan_history::{Columns, NEVER, NO_ERROR, Op, Outcome};

use crate::machine::Refusal;
use crate::request::{Answer, Asked, Declined};

/// The circumstances under which a history is judged.
#[derive(Clone, Debug)]
pub struct Circumstances {
    /// Whether all times are of one clock domain.
    pub real_time: bool,
    /// Whether the store was proved empty before traffic.
    pub start_empty: bool,
    /// Whether the record ends in mid-record.
    pub cut: bool,
    /// Whether somebody who is not in the record may write.
    pub shared_writers: bool,
    /// Seconds for the search; None: its own default.
    pub budget_s: Option<f64>,
    /// Whether a fault may have let leases end at any time.
    pub lease_time: bool,
    /// Whether etcd was told to compact without being asked.
    pub compacts_itself: bool,
    /// When a second epoch began (ns).
    pub ends: Option<i64>,
    /// What each of `Columns::errors` states, where that is one of the facts that can be held against states.
    pub refusals: Vec<Option<Refusal>>,
}

/// The operations that are judged. Those that were still open when the first epoch ended count as unanswered.
#[derive(Clone, Copy, Debug)]
pub struct Ops<'a> {
    all: &'a [Op<'a>],
    ends: i64,
}

impl<'a> Ops<'a> {
    /// The operations of `columns` that were called before `ends`.
    pub fn of(columns: &'a Columns<'a>, ends: Option<i64>) -> Result<Ops<'a>, Declined> {
        let ends = ends.unwrap_or(NEVER);
        // In order of call.
        let count = columns.ops.partition_point(|op| op.call < ends);
        if u32::try_from(count).is_err() {
            return Err(Declined::because("more operations than the core counts"));
        }
        Ok(Ops { all: &columns.ops[..count], ends })
    }

    /// How many there are.
    #[inline]
    pub fn len(&self) -> u32 {
        u32::try_from(self.all.len()).unwrap_or(u32::MAX)
    }

    /// True where there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The operation as recorded; its outcome and return are `outcome` and `ret`.
    #[inline]
    pub fn get(&self, op: u32) -> &'a Op<'a> {
        &self.all[op as usize]
    }

    #[inline]
    fn open_at_the_end(&self, op: &Op<'a>) -> bool {
        self.ends != NEVER && op.ret >= self.ends && op.ret != NEVER && op.outcome == Outcome::Ok
    }

    /// What became of it.
    #[inline]
    pub fn outcome(&self, op: u32) -> Outcome {
        let op = self.get(op);
        if self.open_at_the_end(op) { Outcome::Indefinite } else { op.outcome }
    }

    /// When it was called (ns).
    #[inline]
    pub fn call(&self, op: u32) -> i64 {
        self.get(op).call
    }

    /// When it returned what proves something (ns); `NEVER` where nothing did.
    #[inline]
    pub fn ret(&self, op: u32) -> i64 {
        let op = self.get(op);
        if self.open_at_the_end(op) { NEVER } else { op.ret }
    }

    /// Its request, decoded.
    #[inline]
    pub fn request(&self, op: u32) -> Result<Asked<'a>, Declined> {
        let op = self.get(op);
        Asked::decode(op.kind, op.request)
    }

    /// Its answer, decoded; of one whose outcome is `Ok`.
    pub fn answer(&self, op: u32) -> Result<Answer<'a>, Declined> {
        let op = self.get(op);
        Answer::decode(op.kind, op.response)
    }

    /// What its error states, of one that got an error.
    #[inline]
    pub fn refusal(&self, op: u32, circumstances: &Circumstances) -> Option<Refusal> {
        let error = self.get(op).error;
        if error == NO_ERROR { None } else { circumstances.refusals.get(error as usize).copied().flatten() }
    }
}
