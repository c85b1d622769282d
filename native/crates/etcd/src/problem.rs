//! Contradictions as plain data: what Python needs to tell them with the functions of `src/pekan/checkers/kv/problems.py` and its
//! neighbours, and what the search needs to know about them.
//!
//! Operations are indexes in `Columns::ops`.

use pekan_wire::Event;

use crate::machine::Refusal;
use crate::request::Answer;

/// A finding at a revision, and what it rests on.
#[derive(Clone, Debug)]
pub struct Problem<'a> {
    /// Where it is.
    pub revision: i64,
    /// What it is.
    pub what: What<'a>,
    /// The ranges whose state it rests on.
    pub touched: Touched<'a>,
}

/// What a problem rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Touched<'a> {
    /// Everything before it.
    Everything,
    /// These (key, range_end).
    Ranges(Vec<(&'a [u8], &'a [u8])>),
}

/// The answer that would be right, or why there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected<'a> {
    /// This answer.
    Answer(Answer<'a>),
    /// A refusal.
    Refusal(Refusal),
    /// A refusal: the revision asked for is above the answer's own.
    InTheFuture,
    /// The store stands at revision 1 before any write.
    NothingWritten,
    /// The guards say otherwise: this is what `succeeded` should be.
    Succeeded(bool),
    /// So many keys are still attached to the lease, this one the first of them.
    StillAttached(usize, &'a [u8]),
}

/// One record of a certificate.
#[derive(Clone, Debug)]
pub enum Exhibit<'a> {
    /// An operation.
    Op(u32),
    /// An operation, told to show that a revision existed.
    Existed(u32, i64),
    /// The first delivery of a revision, with what it held: (ns, index of the stream).
    Seen {
        /// The revision.
        revision: i64,
        /// When and by which stream, where that is known.
        seen: Option<(i64, u32)>,
        /// What it held.
        events: Vec<Event<'a>>,
    },
    /// The first delivery of a revision: told without its content.
    Delivered {
        /// The revision.
        revision: i64,
        /// When (ns).
        time: i64,
        /// Index of the stream.
        stream: u32,
    },
    /// A delivery that shows the value of a refused request.
    Showing {
        /// The revision.
        revision: i64,
        /// When and by which stream, where that is known.
        seen: Option<(i64, u32)>,
        /// What it held.
        events: Vec<Event<'a>>,
    },
    /// One side of the difference of two watches.
    Told(Told<'a>),
}

/// What one watch delivered of one revision.
#[derive(Clone, Debug)]
pub struct Told<'a> {
    /// The revision.
    pub revision: i64,
    /// Index in `Columns::names`.
    pub member: u16,
    /// Index in `Columns::streams`.
    pub stream: u32,
    /// When (ns).
    pub time: i64,
    /// In key order.
    pub events: Vec<Event<'a>>,
}

/// What shows that a refused request was applied.
#[derive(Clone, Debug)]
pub enum Effect<'a> {
    /// These events.
    Events(Vec<Event<'a>>),
    /// This value of this key.
    Value(&'a [u8], &'a [u8]),
}

/// Why an answered compaction cannot be where the order of compactions has it.
#[derive(Clone, Debug)]
pub enum OutOfOrder {
    /// Its revision did not exist yet.
    TooEarly,
    /// This operation, called after it, read below it.
    ReadBelow(u32),
    /// This operation, called after it, compacted below it.
    CompactedBelow(u32),
    /// An answer that took place after it, by its revision, read below it.
    ReadBelowByRevision(Option<u32>),
}

/// How a lease was used against its grant or revoke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseMisuse {
    /// No recorded request granted it.
    NeverGranted,
    /// Before it was granted.
    BeforeGrant,
    /// After it was revoked.
    AfterRevoke,
    /// Revoked again.
    RevokedAgain,
}

/// Which problem; the fields are the arguments of the function in Python that tells it.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // named as those arguments
pub enum What<'a> {
    /// `local`: the code is LOCAL-CONTENT, else KV-CONTENT.
    WrongAnswer {
        local: bool,
        op: u32,
        expected: Expected<'a>,
        writer: Option<Exhibit<'a>>,
    },
    Unexplained {
        events: Vec<Event<'a>>,
        around: Vec<Exhibit<'a>>,
        tried: usize,
    },
    /// `at`: the revision at which `first` was answered.
    Twice {
        events: Vec<Event<'a>>,
        first: u32,
        at: i64,
        around: Vec<Exhibit<'a>>,
    },
    RefusedButApplied {
        op: u32,
        effect: Effect<'a>,
        evidence: Vec<Exhibit<'a>>,
    },
    LostWrite {
        op: u32,
        events: Vec<Event<'a>>,
        evidence: Exhibit<'a>,
    },
    Reused {
        first: u32,
        second: u32,
    },
    OutOfTime(Clash),
    Outrun {
        op: u32,
        of: i64,
        above: i64,
        future: bool,
        proof: Option<Exhibit<'a>>,
    },
    FutureFromTheStart {
        op: u32,
        base: i64,
    },
    /// `earliest`: when the revision can first have been (ns).
    BeforeItsTime {
        op: u32,
        earliest: i64,
    },
    /// COMPARES-ONLY-STALE
    Stale {
        op: u32,
        known: Option<Exhibit<'a>>,
    },
    CompactedTwice {
        first: u32,
        second: u32,
    },
    CompactedOutOfOrder {
        op: u32,
        why: OutOfOrder,
    },
    CompactedUnexplained {
        op: u32,
    },
    Lease {
        op: u32,
        other: Option<u32>,
        how: LeaseMisuse,
    },
    WrongRefusal {
        op: u32,
        evidence: Vec<u32>,
    },
    MemberDiverged {
        first: Told<'a>,
        second: Told<'a>,
    },
}

/// `late` was called after `early` had returned, and its place in the order is before it. The write of r is at 2r, what saw r at 2r + 1.
#[derive(Clone, Copy, Debug)]
pub struct Clash {
    /// The operation called later.
    pub late: u32,
    /// Its place.
    pub late_place: i64,
    /// The operation that had returned.
    pub early: u32,
    /// Its place.
    pub early_place: i64,
    /// Whether `late` is a refusal of a future revision.
    pub future: bool,
}

/// Why something was not decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undecided {
    /// The revision was made by someone who is not in the record.
    Foreign(i64),
    /// Nothing explains the revision, and the record was cut.
    LostTail(i64),
    /// The search's budget was spent: tries, gaps.
    Exhausted(i64, i64),
    /// So many revisions are more than are judged.
    TooFar(i64),
    /// The store began with unknown content, and no answer shows all of it.
    NoStart,
    /// Operations after a restore are not judged.
    Restored,
}
