//! The columns themselves.

/// `ret` and `ended` of what never returned or ended. Later than any clock.
pub const NEVER: i64 = i64::MAX;
/// [`Op::error`] of an operation that got no error.
pub const NO_ERROR: u32 = u32::MAX;
/// [`Op::method`] where the kind says it all.
pub const NO_METHOD: u16 = u16::MAX;

/// What an operation asked for: the requests that the checkers in the core read. Everything else is `Other`, judged in Python.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Kind {
    Range,
    Put,
    DeleteRange,
    Txn,
    Compaction,
    LeaseGrant,
    LeaseRevoke,
    Other,
}

/// What became of an operation; see `pekan.history.types`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Outcome {
    /// Answered.
    Ok,
    /// Refused for good, or a read that got any error.
    Failed,
    /// May take effect at any time after the call, once, or never.
    Indefinite,
}

/// What is known of a request and its response since they were found decodable: so that whoever sorts operations need not decode them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape(u8);

impl Shape {
    /// The request may change a key in some state.
    pub const MAY_WRITE: Shape = Shape(1);
    /// The response says that something was changed.
    pub const WROTE: Shape = Shape(2);
    /// A member answers from its own state because it was asked to: a serializable Range, or a Txn whose operations are all such.
    pub const LOCAL: Shape = Shape(4);
    /// A Txn without operations in either branch.
    pub const COMPARES_ONLY: Shape = Shape(8);
    /// A Range in it names a revision.
    pub const NAMES_REVISION: Shape = Shape(16);
    /// A Put in it attaches its key to a lease.
    pub const ATTACHES: Shape = Shape(32);
    /// A Range in it asks for an order that etcd does not know.
    pub const UNSORTABLE: Shape = Shape(64);

    /// Whether it has all of `other`.
    #[inline]
    pub fn has(self, other: Shape) -> bool {
        self.0 & other.0 == other.0
    }

    /// Adds `other`.
    #[inline]
    pub fn add(&mut self, other: Shape) {
        self.0 |= other.0;
    }

    /// Adds `other` where `is`.
    #[inline]
    pub fn add_if(&mut self, is: bool, other: Shape) {
        if is {
            self.add(other);
        }
    }
}

/// One operation. Times are ns of the run's clock.
#[derive(Clone, Copy, Debug)]
pub struct Op<'a> {
    /// Its number in the record.
    pub id: u64,
    /// Jepsen's process.
    pub process: u64,
    /// When it was called.
    pub call: i64,
    /// When it returned what proves something; [`NEVER`] where nothing did.
    pub ret: i64,
    /// When its client stopped waiting, of an indefinite one that was answered by an error; else [`NEVER`].
    pub gave_up: i64,
    /// The encoded request.
    pub request: &'a [u8],
    /// The encoded response; empty but where the outcome is `Ok`.
    pub response: &'a [u8],
    /// Index in [`Columns::errors`], or [`NO_ERROR`].
    pub error: u32,
    /// Index in [`Columns::names`].
    pub client: u16,
    /// Index in [`Columns::names`].
    pub member: u16,
    /// Index in [`Columns::names`].
    pub user: u16,
    /// Index in [`Columns::names`] of the gRPC method.
    pub method: u16,
    /// What it asked for.
    pub kind: Kind,
    /// What became of it.
    pub outcome: Outcome,
    /// What request and response are like, of what the core reads.
    pub shape: Shape,
    /// The revision in the response's header, of what the core reads; 0 where there is none.
    pub revision: i64,
    /// Where its `Invoked` record begins in the file (its length varint).
    pub invoked_at: u64,
    /// Where its `Completed` record begins; `u64::MAX` where there is none.
    pub completed_at: u64,
}

/// Of a watch message that does nothing but deliver one event to watch 0, which nearly all do: what it takes to put it in its place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Glance {
    /// Its header's revision.
    pub header: u32,
    /// Its event's revision.
    pub revision: u32,
    /// Where the encoded event begins; it ends with the message. 0: it is another kind of message, or was not looked at.
    pub event: u16,
}

/// One message of a stream.
#[derive(Clone, Copy, Debug)]
pub struct StreamMessage<'a> {
    /// When it was sent or received.
    pub time: i64,
    /// From client to member.
    pub sent: bool,
    /// What was seen of it when it was loaded.
    pub glance: Glance,
    /// The encoded message.
    pub data: &'a [u8],
}

/// One gRPC stream.
#[derive(Clone, Debug)]
pub struct Stream<'a> {
    /// Its number in the record.
    pub id: u64,
    /// Index in [`Columns::names`] of the gRPC method.
    pub method: u16,
    /// Index in [`Columns::names`].
    pub client: u16,
    /// Index in [`Columns::names`].
    pub member: u16,
    /// Index in [`Columns::names`].
    pub user: u16,
    /// In the order in which this client sent and received them.
    pub messages: Vec<StreamMessage<'a>>,
    /// When it ended; [`NEVER`] where it was open at the end of the record.
    pub ended: i64,
    /// Its gRPC status code.
    pub code: u32,
    /// Its gRPC status message.
    pub reason: &'a str,
    /// Whether the client ended it.
    pub by_client: bool,
}

/// A whole history.
#[derive(Debug, Default)]
pub struct Columns<'a> {
    /// In order of call.
    pub ops: Vec<Op<'a>>,
    /// In order of their first message.
    pub streams: Vec<Stream<'a>>,
    /// Clients, members, users, methods: each name once. Index 0 is the empty name.
    pub names: Vec<&'a str>,
    /// Distinct errors: gRPC code, message.
    pub errors: Vec<(u32, &'a str)>,
    /// Where the records of faults and marks lie (offset of the record after its length, its length): they are few, and Python reads them.
    pub rest: Vec<(u64, u32)>,
    /// Bytes dropped at the end of a file that was cut in mid-record.
    pub cut: u64,
}
