//! Requests and answers of the key-value machine, decoded, and what can be said of a request without a state.

use pekan_wire::{
    CompactionRequest, DeleteRangeRequest, DeleteRangeResponse, Header, Kv, LeaseGrant, Malformed, PutRequest, PutResponse, RangeRequest,
    RangeResponse, Request, Response, TxnRequest, TxnResponse, header_of, lease_revoke,
};

use pekan_history::Kind;

/// The core does not judge this history, the reference does; and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declined(pub String);

impl Declined {
    /// Declines for `reason`.
    #[cold]
    pub fn because(reason: impl Into<String>) -> Declined {
        Declined(reason.into())
    }
}

impl From<Malformed> for Declined {
    #[cold]
    fn from(malformed: Malformed) -> Declined {
        Declined(format!("a message that the core does not read: expected {}", malformed.expected))
    }
}

/// A request of the key-value machine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // etcd's names
pub enum Asked<'a> {
    Range(RangeRequest<'a>),
    Put(PutRequest<'a>),
    DeleteRange(DeleteRangeRequest<'a>),
    Txn(TxnRequest<'a>),
    Compaction(CompactionRequest),
    LeaseGrant(LeaseGrant),
    /// With the lease's id.
    LeaseRevoke(i64),
}

impl<'a> Asked<'a> {
    /// Decodes a request of `kind`.
    #[inline]
    pub fn decode(kind: Kind, data: &'a [u8]) -> Result<Asked<'a>, Declined> {
        Ok(match kind {
            Kind::Range => Asked::Range(RangeRequest::decode(data)?),
            Kind::Put => Asked::Put(PutRequest::decode(data)?),
            Kind::DeleteRange => Asked::DeleteRange(DeleteRangeRequest::decode(data)?),
            Kind::Txn => Asked::Txn(TxnRequest::decode(data)?),
            Kind::Compaction => Asked::Compaction(CompactionRequest::decode(data)?),
            Kind::LeaseGrant => Asked::LeaseGrant(LeaseGrant::request(data)?),
            Kind::LeaseRevoke => Asked::LeaseRevoke(lease_revoke(data)?),
            Kind::Other => return Err(Declined::because("a request that is not of the key-value machine")),
        })
    }

    /// The operation of a transaction as a request.
    pub fn inner(request: &Request<'a>) -> Asked<'a> {
        match request {
            Request::Range(r) => Asked::Range(*r),
            Request::Put(r) => Asked::Put(*r),
            Request::DeleteRange(r) => Asked::DeleteRange(*r),
            Request::Txn(r) => Asked::Txn((**r).clone()),
        }
    }
}

/// An answer of the key-value machine, with everything it shows.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // etcd's names
pub enum Answer<'a> {
    Range { header: Header, kvs: Vec<Kv<'a>>, more: bool, count: i64 },
    Put { header: Header, prev_kv: Option<Kv<'a>> },
    DeleteRange { header: Header, deleted: i64, prev_kvs: Vec<Kv<'a>> },
    Txn { header: Header, succeeded: bool, responses: Vec<Answer<'a>> },
    Compaction { header: Header },
    LeaseGrant { header: Header, id: i64, ttl: i64 },
    LeaseRevoke { header: Header },
}

impl<'a> Answer<'a> {
    /// Decodes the answer to a request of `kind`.
    pub fn decode(kind: Kind, data: &'a [u8]) -> Result<Answer<'a>, Declined> {
        Ok(match kind {
            Kind::Range => Answer::range(&RangeResponse::decode(data)?)?,
            Kind::Put => Answer::put(&PutResponse::decode(data)?),
            Kind::DeleteRange => Answer::delete_range(&DeleteRangeResponse::decode(data)?)?,
            Kind::Txn => Answer::txn(&TxnResponse::decode(data)?)?,
            Kind::Compaction => Answer::Compaction { header: header_of(data)? },
            Kind::LeaseGrant => {
                let LeaseGrant { id, ttl } = LeaseGrant::response(data)?;
                Answer::LeaseGrant { header: header_of(data)?, id, ttl }
            }
            Kind::LeaseRevoke => Answer::LeaseRevoke { header: header_of(data)? },
            Kind::Other => return Err(Declined::because("an answer that is not of the key-value machine")),
        })
    }

    /// A Range's.
    pub fn range(response: &RangeResponse<'a>) -> Result<Answer<'a>, Declined> {
        let mut kvs = Vec::with_capacity(response.len());
        for kv in response.kvs() {
            kvs.push(kv?);
        }
        Ok(Answer::Range { header: response.header, kvs, more: response.more, count: response.count })
    }

    /// A Put's.
    pub fn put(response: &PutResponse<'a>) -> Answer<'a> {
        Answer::Put { header: response.header, prev_kv: response.prev_kv }
    }

    /// A DeleteRange's.
    pub fn delete_range(response: &DeleteRangeResponse<'a>) -> Result<Answer<'a>, Declined> {
        let mut prev_kvs = Vec::new();
        for kv in response.prev_kvs() {
            prev_kvs.push(kv?);
        }
        Ok(Answer::DeleteRange { header: response.header, deleted: response.deleted, prev_kvs })
    }

    /// A transaction's.
    pub fn txn(response: &TxnResponse<'a>) -> Result<Answer<'a>, Declined> {
        let mut responses = Vec::with_capacity(response.responses.len());
        for inner in &response.responses {
            responses.push(match inner {
                Response::Range(r) => Answer::range(r)?,
                Response::Put(r) => Answer::put(r),
                Response::DeleteRange(r) => Answer::delete_range(r)?,
                Response::Txn(r) => Answer::txn(r)?,
            });
        }
        Ok(Answer::Txn { header: response.header, succeeded: response.succeeded, responses })
    }

    /// Its header.
    pub fn header(&self) -> Header {
        match self {
            Answer::Range { header, .. }
            | Answer::Put { header, .. }
            | Answer::DeleteRange { header, .. }
            | Answer::Txn { header, .. }
            | Answer::Compaction { header }
            | Answer::LeaseGrant { header, .. }
            | Answer::LeaseRevoke { header } => *header,
        }
    }

    /// Whether it says the same as `other`, their own headers apart (those of answers inside count).
    pub fn same_but_header(&self, other: &Answer<'a>) -> bool {
        match (self, other) {
            (Answer::Range { kvs, more, count, .. }, Answer::Range { kvs: k, more: m, count: c, .. }) => {
                kvs == k && more == m && count == c
            }
            (Answer::Put { prev_kv, .. }, Answer::Put { prev_kv: p, .. }) => prev_kv == p,
            (Answer::DeleteRange { deleted, prev_kvs, .. }, Answer::DeleteRange { deleted: d, prev_kvs: p, .. }) => {
                deleted == d && prev_kvs == p
            }
            (Answer::Txn { succeeded, responses, .. }, Answer::Txn { succeeded: s, responses: r, .. }) => succeeded == s && responses == r,
            (Answer::LeaseGrant { id, ttl, .. }, Answer::LeaseGrant { id: i, ttl: t, .. }) => id == i && ttl == t,
            (Answer::Compaction { .. }, Answer::Compaction { .. }) | (Answer::LeaseRevoke { .. }, Answer::LeaseRevoke { .. }) => true,
            _ => false,
        }
    }

    /// Whether an answer to a DeleteRange or Txn says that something was changed.
    pub fn wrote(&self) -> bool {
        match self {
            Answer::Txn { responses, .. } => responses.iter().any(|inner| matches!(inner, Answer::Put { .. }) || inner.wrote()),
            Answer::DeleteRange { deleted, .. } => *deleted > 0,
            _ => false,
        }
    }
}

fn both<'r, 'a>(txn: &'r TxnRequest<'a>) -> impl Iterator<Item = &'r Request<'a>> {
    txn.success.iter().chain(&txn.failure)
}

/// Whether a member answers from its own state because it was asked to: a serializable Range, or a Txn whose operations are all such.
pub fn is_local(request: &Asked<'_>) -> bool {
    match request {
        Asked::Range(r) => r.serializable,
        Asked::Txn(txn) => !is_compares_only(txn) && both(txn).all(|op| matches!(op, Request::Range(r) if r.serializable)),
        _ => false,
    }
}

/// A Txn without operations in either branch: etcd answers it like a serializable one (a known deviation).
pub fn is_compares_only(txn: &TxnRequest<'_>) -> bool {
    txn.success.is_empty() && txn.failure.is_empty()
}

/// Whether some state exists in which `request` changes a key.
pub fn may_write(request: &Asked<'_>) -> bool {
    fn txn_may(txn: &TxnRequest<'_>) -> bool {
        both(txn).any(|op| match op {
            Request::Put(_) | Request::DeleteRange(_) => true,
            Request::Txn(inner) => txn_may(inner),
            Request::Range(_) => false,
        })
    }
    match request {
        Asked::Put(_) | Asked::DeleteRange(_) | Asked::LeaseRevoke(_) => true,
        Asked::Txn(txn) => txn_may(txn),
        _ => false,
    }
}

/// Calls `each` with every operation of `txn` that is no transaction, in all branches: success before failure, nested ones in their place.
pub fn each_operation<'r, 'a>(txn: &'r TxnRequest<'a>, each: &mut impl FnMut(&'r Request<'a>)) {
    for op in both(txn) {
        match op {
            Request::Txn(inner) => each_operation(inner, each),
            _ => each(op),
        }
    }
}

/// Every Range in `request`, in all branches.
pub fn ranges<'a>(request: &Asked<'a>) -> Vec<RangeRequest<'a>> {
    let mut found = Vec::new();
    match request {
        Asked::Range(r) => found.push(*r),
        Asked::Txn(txn) => each_operation(txn, &mut |op| {
            if let Request::Range(r) = op {
                found.push(*r);
            }
        }),
        _ => {}
    }
    found
}

/// Every Put in `request`, in all branches.
pub fn puts<'a>(request: &Asked<'a>) -> Vec<PutRequest<'a>> {
    let mut found = Vec::new();
    match request {
        Asked::Put(r) => found.push(*r),
        Asked::Txn(txn) => each_operation(txn, &mut |op| {
            if let Request::Put(r) = op {
                found.push(*r);
            }
        }),
        _ => {}
    }
    found
}

/// Every DeleteRange in `request`, in all branches.
pub fn deletes<'a>(request: &Asked<'a>) -> Vec<DeleteRangeRequest<'a>> {
    let mut found = Vec::new();
    match request {
        Asked::DeleteRange(r) => found.push(*r),
        Asked::Txn(txn) => each_operation(txn, &mut |op| {
            if let Request::DeleteRange(r) = op {
                found.push(*r);
            }
        }),
        _ => {}
    }
    found
}

/// Ranges of a Txn that name a revision.
pub fn old_ranges<'a>(request: &Asked<'a>) -> Vec<RangeRequest<'a>> {
    match request {
        Asked::Txn(_) => ranges(request).into_iter().filter(|r| r.revision > 0).collect(),
        _ => Vec::new(),
    }
}
