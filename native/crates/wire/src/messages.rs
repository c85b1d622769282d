//! The messages of the data path, with etcd's own field names; see the crate's documentation.
//!
//! Equality is by value, as in the reference: a `Kv` that came in an answer equals one that was computed. Absent fields are zero or empty.

use crate::cursor::{Field, Fields, Malformed, utf8};
use crate::numbers as n;
use crate::scan;

/// `Event.type`, `WatchCreateRequest.filters` and the other enumerations are open in proto3: any 32-bit number may come.
pub type Enum = i32;

/// What decoding gives.
pub type Decoded<T> = Result<T, Malformed>;

#[inline]
fn enumeration(field: Field<'_>) -> Decoded<Enum> {
    // protobuf keeps the low 32 bits of an enumeration's varint.
    #[allow(clippy::cast_possible_truncation)]
    field.uint().map(|value| (value as u32).cast_signed())
}

#[cold]
fn twice() -> Malformed {
    Malformed { at: 0, expected: "a message field once" }
}

/// A message field that may be given once: a second one would have to be merged with it.
#[inline]
fn once<'a>(slot: &mut Option<&'a [u8]>, field: Field<'a>) -> Decoded<()> {
    let bytes = field.bytes()?;
    if slot.replace(bytes).is_some() { Err(twice()) } else { Ok(()) }
}

/// `ResponseHeader`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Which cluster answered.
    pub cluster_id: u64,
    /// Which member answered.
    pub member_id: u64,
    /// Its key-value store's revision.
    pub revision: i64,
    /// Its raft term.
    pub raft_term: u64,
}

impl Header {
    /// Decodes a `ResponseHeader`.
    #[inline]
    pub fn decode(data: &[u8]) -> Decoded<Header> {
        match scan::header(data) {
            Some(seen) => Ok(seen),
            None => Header::decode_any(data),
        }
    }

    pub(crate) fn decode_any(data: &[u8]) -> Decoded<Header> {
        let mut header = Header::default();
        let mut fields = Fields::new(data);
        while let Some((number, field)) = fields.step()? {
            match number {
                n::response_header::CLUSTER_ID => header.cluster_id = field.uint()?,
                n::response_header::MEMBER_ID => header.member_id = field.uint()?,
                n::response_header::REVISION => header.revision = field.int()?,
                n::response_header::RAFT_TERM => header.raft_term = field.uint()?,
                _ => {}
            }
        }
        Ok(header)
    }
}

/// `KeyValue`. In a DELETE event only `key` and `mod_revision` (the deletion's revision) are set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kv<'a> {
    /// The key.
    pub key: &'a [u8],
    /// Revision of the Put that made the key.
    pub create_revision: i64,
    /// Revision of the last Put.
    pub mod_revision: i64,
    /// Number of Puts since the key was made.
    pub version: i64,
    /// The value.
    pub value: &'a [u8],
    /// The lease that the key is attached to, 0 for none.
    pub lease: i64,
}

impl<'a> Kv<'a> {
    /// Decodes a `KeyValue`.
    #[inline]
    pub fn decode(data: &'a [u8]) -> Decoded<Kv<'a>> {
        match scan::kv(data) {
            Some(seen) => Ok(seen),
            None => Kv::decode_any(data),
        }
    }

    pub(crate) fn decode_any(data: &'a [u8]) -> Decoded<Kv<'a>> {
        let mut kv = Kv::default();
        let mut fields = Fields::new(data);
        while let Some((number, field)) = fields.step()? {
            match number {
                n::key_value::KEY => kv.key = field.bytes()?,
                n::key_value::CREATE_REVISION => kv.create_revision = field.int()?,
                n::key_value::MOD_REVISION => kv.mod_revision = field.int()?,
                n::key_value::VERSION => kv.version = field.int()?,
                n::key_value::VALUE => kv.value = field.bytes()?,
                n::key_value::LEASE => kv.lease = field.int()?,
                _ => {}
            }
        }
        Ok(kv)
    }
}

/// `Event.type`: a Put.
pub const PUT: Enum = 0;
/// `Event.type`: a deletion.
pub const DELETE: Enum = 1;

/// `Event`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event<'a> {
    /// [`PUT`] or [`DELETE`].
    pub kind: Enum,
    /// What was put, or the key and revision of the deletion.
    pub kv: Kv<'a>,
    /// What was there before, where the message told.
    pub prev_kv: Option<Kv<'a>>,
}

impl<'a> Event<'a> {
    /// Decodes an `Event`.
    #[inline]
    pub fn decode(data: &'a [u8]) -> Decoded<Event<'a>> {
        let (mut kind, mut kv, mut prev_kv) = (PUT, None, None);
        let mut fields = Fields::new(data);
        while let Some((number, field)) = fields.step()? {
            match number {
                n::event::TYPE => kind = enumeration(field)?,
                n::event::KV => kv = Some(field.bytes()?),
                n::event::PREV_KV => prev_kv = Some(field.bytes()?).filter(|kv| !kv.is_empty()),
                _ => {}
            }
        }
        let prev_kv = prev_kv.map(Kv::decode).transpose()?;
        Ok(Event { kind, kv: Kv::decode(kv.unwrap_or_default())?, prev_kv })
    }
}

/// A request of the data path, or `Other`: asked for a few times a run, judged in Python.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// `RangeRequest`
    Range(RangeRequest<'a>),
    /// `PutRequest`
    Put(PutRequest<'a>),
    /// `DeleteRangeRequest`
    DeleteRange(DeleteRangeRequest<'a>),
    /// `TxnRequest`
    Txn(Box<TxnRequest<'a>>),
}

/// `RangeRequest`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // etcd's field names
pub struct RangeRequest<'a> {
    pub key: &'a [u8],
    pub range_end: &'a [u8],
    pub limit: i64,
    pub revision: i64,
    pub sort_order: Enum,
    pub sort_target: Enum,
    pub serializable: bool,
    pub keys_only: bool,
    pub count_only: bool,
    pub min_mod_revision: i64,
    pub max_mod_revision: i64,
    pub min_create_revision: i64,
    pub max_create_revision: i64,
}

impl<'a> RangeRequest<'a> {
    /// Decodes a `RangeRequest`.
    #[inline]
    pub fn decode(data: &'a [u8]) -> Decoded<RangeRequest<'a>> {
        match scan::range_request(data) {
            Some(seen) => Ok(seen),
            None => RangeRequest::decode_any(data),
        }
    }

    pub(crate) fn decode_any(data: &'a [u8]) -> Decoded<RangeRequest<'a>> {
        use n::range_request as f;
        let mut r = RangeRequest::default();
        let mut fields = Fields::new(data);
        while let Some((number, field)) = fields.step()? {
            match number {
                f::KEY => r.key = field.bytes()?,
                f::RANGE_END => r.range_end = field.bytes()?,
                f::LIMIT => r.limit = field.int()?,
                f::REVISION => r.revision = field.int()?,
                f::SORT_ORDER => r.sort_order = enumeration(field)?,
                f::SORT_TARGET => r.sort_target = enumeration(field)?,
                f::SERIALIZABLE => r.serializable = field.truth()?,
                f::KEYS_ONLY => r.keys_only = field.truth()?,
                f::COUNT_ONLY => r.count_only = field.truth()?,
                f::MIN_MOD_REVISION => r.min_mod_revision = field.int()?,
                f::MAX_MOD_REVISION => r.max_mod_revision = field.int()?,
                f::MIN_CREATE_REVISION => r.min_create_revision = field.int()?,
                f::MAX_CREATE_REVISION => r.max_create_revision = field.int()?,
                _ => {}
            }
        }
        Ok(r)
    }
}

/// `RangeResponse`; its key-values are decoded as they are asked for.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)]
pub struct RangeResponse<'a> {
    pub header: Header,
    pub more: bool,
    pub count: i64,
    data: &'a [u8],
    shown: usize,
}

impl<'a> RangeResponse<'a> {
    /// Decodes a `RangeResponse` but for its key-values.
    #[inline]
    pub fn decode(data: &'a [u8]) -> Decoded<RangeResponse<'a>> {
        use n::range_response as f;
        let mut r = RangeResponse { data, ..RangeResponse::default() };
        let mut header = None;
        let mut fields = Fields::new(data);
        while let Some((number, field)) = fields.step()? {
            match number {
                f::HEADER => once(&mut header, field)?,
                f::KVS => {
                    field.bytes()?;
                    r.shown += 1;
                }
                f::MORE => r.more = field.truth()?,
                f::COUNT => r.count = field.int()?,
                _ => {}
            }
        }
        r.header = Header::decode(header.unwrap_or_default())?;
        Ok(r)
    }

    /// How many key-values it shows.
    #[inline]
    pub fn len(&self) -> usize {
        self.shown
    }

    /// True where it shows none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.shown == 0
    }

    /// Its key-values in the order of the answer.
    #[inline]
    pub fn kvs(&self) -> Kvs<'a> {
        Kvs { fields: Fields::new(self.data), number: n::range_response::KVS }
    }
}

/// The key-values of an answer, decoded one by one.
#[derive(Clone, Debug)]
pub struct Kvs<'a> {
    fields: Fields<'a>,
    number: u32,
}

impl<'a> Iterator for Kvs<'a> {
    type Item = Decoded<Kv<'a>>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.fields.step() {
                Ok(None) => return None,
                Ok(Some((number, Field::Bytes(bytes)))) if number == self.number => return Some(Kv::decode(bytes)),
                Ok(Some(_)) => {}
                Err(malformed) => return Some(Err(malformed)),
            }
        }
    }
}

/// `PutRequest`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct PutRequest<'a> {
    pub key: &'a [u8],
    pub value: &'a [u8],
    pub lease: i64,
    pub prev_kv: bool,
    pub ignore_value: bool,
    pub ignore_lease: bool,
}

impl<'a> PutRequest<'a> {
    /// Decodes a `PutRequest`.
    #[inline]
    pub fn decode(data: &'a [u8]) -> Decoded<PutRequest<'a>> {
        match scan::put_request(data) {
            Some(seen) => Ok(seen),
            None => PutRequest::decode_any(data),
        }
    }

    pub(crate) fn decode_any(data: &'a [u8]) -> Decoded<PutRequest<'a>> {
        use n::put_request as f;
        let mut r = PutRequest::default();
        let mut fields = Fields::new(data);
        while let Some((number, field)) = fields.step()? {
            match number {
                f::KEY => r.key = field.bytes()?,
                f::VALUE => r.value = field.bytes()?,
                f::LEASE => r.lease = field.int()?,
                f::PREV_KV => r.prev_kv = field.truth()?,
                f::IGNORE_VALUE => r.ignore_value = field.truth()?,
                f::IGNORE_LEASE => r.ignore_lease = field.truth()?,
                _ => {}
            }
        }
        Ok(r)
    }
}

/// `PutResponse`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct PutResponse<'a> {
    pub header: Header,
    pub prev_kv: Option<Kv<'a>>,
}

impl<'a> PutResponse<'a> {
    /// Decodes a `PutResponse`.
    #[inline]
    pub fn decode(data: &'a [u8]) -> Decoded<PutResponse<'a>> {
        use n::put_response as f;
        let (mut header, mut prev_kv) = (None, None);
        let mut fields = Fields::new(data);
        while let Some((number, field)) = fields.step()? {
            match number {
                f::HEADER => once(&mut header, field)?,
                // An empty one is none: etcd leaves the field out, and a key-value without a key is not there.
                f::PREV_KV => prev_kv = Some(field.bytes()?).filter(|kv| !kv.is_empty()),
                _ => {}
            }
        }
        Ok(PutResponse { header: Header::decode(header.unwrap_or_default())?, prev_kv: prev_kv.map(Kv::decode).transpose()? })
    }
}

/// `DeleteRangeRequest`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct DeleteRangeRequest<'a> {
    pub key: &'a [u8],
    pub range_end: &'a [u8],
    pub prev_kv: bool,
}

impl<'a> DeleteRangeRequest<'a> {
    /// Decodes a `DeleteRangeRequest`.
    #[inline]
    pub fn decode(data: &'a [u8]) -> Decoded<DeleteRangeRequest<'a>> {
        use n::delete_range_request as f;
        let mut r = DeleteRangeRequest::default();
        let mut fields = Fields::new(data);
        while let Some((number, field)) = fields.step()? {
            match number {
                f::KEY => r.key = field.bytes()?,
                f::RANGE_END => r.range_end = field.bytes()?,
                f::PREV_KV => r.prev_kv = field.truth()?,
                _ => {}
            }
        }
        Ok(r)
    }
}

/// `DeleteRangeResponse`; its previous key-values are decoded as they are asked for.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)]
pub struct DeleteRangeResponse<'a> {
    pub header: Header,
    pub deleted: i64,
    data: &'a [u8],
}

impl<'a> DeleteRangeResponse<'a> {
    /// Decodes a `DeleteRangeResponse` but for its previous key-values.
    #[inline]
    pub fn decode(data: &'a [u8]) -> Decoded<DeleteRangeResponse<'a>> {
        use n::delete_range_response as f;
        let mut r = DeleteRangeResponse { data, ..DeleteRangeResponse::default() };
        let mut header = None;
        let mut fields = Fields::new(data);
        while let Some((number, field)) = fields.step()? {
            match number {
                f::HEADER => once(&mut header, field)?,
                f::DELETED => r.deleted = field.int()?,
                _ => {}
            }
        }
        r.header = Header::decode(header.unwrap_or_default())?;
        Ok(r)
    }

    /// What was deleted, where the request asked to be told.
    #[inline]
    pub fn prev_kvs(&self) -> Kvs<'a> {
        Kvs { fields: Fields::new(self.data), number: n::delete_range_response::PREV_KVS }
    }
}

/// What a [`Compare`] compares with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand<'a> {
    /// For every target but the value.
    Int(i64),
    /// For the value.
    Bytes(&'a [u8]),
}

/// `Compare`: one guard of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Compare<'a> {
    pub result: Enum,
    pub target: Enum,
    pub key: &'a [u8],
    pub operand: Operand<'a>,
    pub range_end: &'a [u8],
}

impl<'a> Compare<'a> {
    /// Decodes a `Compare`. The operand is that of the target; absent on the wire means zero or empty, as etcd reads it.
    pub fn decode(data: &'a [u8]) -> Decoded<Compare<'a>> {
        use n::compare as f;
        let (mut result, mut target, mut key, mut range_end) = (0, 0, &data[..0], &data[..0]);
        // The members of a oneof exclude each other: the last one on the wire is the one that is there.
        let mut given: Option<(u32, Operand<'a>)> = None;
        let mut fields = Fields::new(data);
        while let Some((number, field)) = fields.step()? {
            match number {
                f::RESULT => result = enumeration(field)?,
                f::TARGET => target = enumeration(field)?,
                f::KEY => key = field.bytes()?,
                f::VERSION | f::CREATE_REVISION | f::MOD_REVISION | f::LEASE => given = Some((number, Operand::Int(field.int()?))),
                f::VALUE => given = Some((number, Operand::Bytes(field.bytes()?))),
                f::RANGE_END => range_end = field.bytes()?,
                _ => {}
            }
        }
        let wanted = match target {
            VERSION => f::VERSION,
            CREATE => f::CREATE_REVISION,
            MOD => f::MOD_REVISION,
            VALUE => f::VALUE,
            LEASE => f::LEASE,
            _ => return Err(Malformed { at: 0, expected: "a known target of a compare" }),
        };
        let operand = match given {
            Some((number, operand)) if number == wanted => operand,
            _ if target == VALUE => Operand::Bytes(&data[..0]),
            _ => Operand::Int(0),
        };
        Ok(Compare { result, target, key, operand, range_end })
    }
}

/// `Compare.result`
pub const EQUAL: Enum = 0;
/// `Compare.result`
pub const GREATER: Enum = 1;
/// `Compare.result`
pub const LESS: Enum = 2;
/// `Compare.result`
pub const NOT_EQUAL: Enum = 3;
/// `Compare.target`
pub const VERSION: Enum = 0;
/// `Compare.target`
pub const CREATE: Enum = 1;
/// `Compare.target`
pub const MOD: Enum = 2;
/// `Compare.target`
pub const VALUE: Enum = 3;
/// `Compare.target`
pub const LEASE: Enum = 4;

/// `TxnRequest`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct TxnRequest<'a> {
    pub compare: Vec<Compare<'a>>,
    pub success: Vec<Request<'a>>,
    pub failure: Vec<Request<'a>>,
}

/// How deep transactions may be nested here; etcd's own limit on the operations of one transaction (128) is never near.
pub const DEPTH_MAX: u32 = 32;

impl<'a> TxnRequest<'a> {
    /// Decodes a `TxnRequest` with everything inside.
    pub fn decode(data: &'a [u8]) -> Decoded<TxnRequest<'a>> {
        TxnRequest::nested(data, 0)
    }

    fn nested(data: &'a [u8], depth: u32) -> Decoded<TxnRequest<'a>> {
        use n::txn_request as f;
        if depth > DEPTH_MAX {
            return Err(Malformed { at: 0, expected: "fewer transactions inside each other" });
        }
        let mut r = TxnRequest::default();
        let mut fields = Fields::new(data);
        while let Some((number, field)) = fields.step()? {
            match number {
                f::COMPARE => r.compare.push(Compare::decode(field.bytes()?)?),
                f::SUCCESS => r.success.push(Request::operation(field.bytes()?, depth)?),
                f::FAILURE => r.failure.push(Request::operation(field.bytes()?, depth)?),
                _ => {}
            }
        }
        Ok(r)
    }
}

impl<'a> Request<'a> {
    fn operation(data: &'a [u8], depth: u32) -> Decoded<Request<'a>> {
        use n::request_op as f;
        let mut found = None;
        let mut fields = Fields::new(data);
        while let Some((number, field)) = fields.step()? {
            let request = match number {
                f::REQUEST_RANGE => Request::Range(RangeRequest::decode(field.bytes()?)?),
                f::REQUEST_PUT => Request::Put(PutRequest::decode(field.bytes()?)?),
                f::REQUEST_DELETE_RANGE => Request::DeleteRange(DeleteRangeRequest::decode(field.bytes()?)?),
                f::REQUEST_TXN => Request::Txn(Box::new(TxnRequest::nested(field.bytes()?, depth + 1)?)),
                _ => continue,
            };
            if found.replace(request).is_some() {
                return Err(twice());
            }
        }
        found.ok_or(Malformed { at: 0, expected: "an operation of a transaction" })
    }
}

/// `ResponseOp`: the answer to one operation of a transaction.
#[derive(Clone, Debug)]
pub enum Response<'a> {
    /// `RangeResponse`
    Range(RangeResponse<'a>),
    /// `PutResponse`
    Put(PutResponse<'a>),
    /// `DeleteRangeResponse`
    DeleteRange(DeleteRangeResponse<'a>),
    /// `TxnResponse`
    Txn(Box<TxnResponse<'a>>),
}

/// `TxnResponse`.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct TxnResponse<'a> {
    pub header: Header,
    pub succeeded: bool,
    pub responses: Vec<Response<'a>>,
}

impl<'a> TxnResponse<'a> {
    /// Decodes a `TxnResponse` with everything inside.
    pub fn decode(data: &'a [u8]) -> Decoded<TxnResponse<'a>> {
        TxnResponse::nested(data, 0)
    }

    fn nested(data: &'a [u8], depth: u32) -> Decoded<TxnResponse<'a>> {
        use n::txn_response as f;
        if depth > DEPTH_MAX {
            return Err(Malformed { at: 0, expected: "fewer transactions inside each other" });
        }
        let mut r = TxnResponse::default();
        let mut header = None;
        let mut fields = Fields::new(data);
        while let Some((number, field)) = fields.step()? {
            match number {
                f::HEADER => once(&mut header, field)?,
                f::SUCCEEDED => r.succeeded = field.truth()?,
                f::RESPONSES => r.responses.push(Response::operation(field.bytes()?, depth)?),
                _ => {}
            }
        }
        r.header = Header::decode(header.unwrap_or_default())?;
        Ok(r)
    }
}

impl<'a> Response<'a> {
    fn operation(data: &'a [u8], depth: u32) -> Decoded<Response<'a>> {
        use n::response_op as f;
        let mut found = None;
        let mut fields = Fields::new(data);
        while let Some((number, field)) = fields.step()? {
            let response = match number {
                f::RESPONSE_RANGE => Response::Range(RangeResponse::decode(field.bytes()?)?),
                f::RESPONSE_PUT => Response::Put(PutResponse::decode(field.bytes()?)?),
                f::RESPONSE_DELETE_RANGE => Response::DeleteRange(DeleteRangeResponse::decode(field.bytes()?)?),
                f::RESPONSE_TXN => Response::Txn(Box::new(TxnResponse::nested(field.bytes()?, depth + 1)?)),
                _ => continue,
            };
            if found.replace(response).is_some() {
                return Err(twice());
            }
        }
        found.ok_or(Malformed { at: 0, expected: "the answer to an operation of a transaction" })
    }
}

/// The header of any answer: its first field in every response of etcd that has one.
pub fn header_of(data: &[u8]) -> Decoded<Header> {
    let mut header = None;
    let mut fields = Fields::new(data);
    while let Some((number, field)) = fields.step()? {
        if number == n::range_response::HEADER {
            once(&mut header, field)?;
        }
    }
    Header::decode(header.unwrap_or_default())
}

/// `CompactionRequest`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct CompactionRequest {
    pub revision: i64,
    pub physical: bool,
}

impl CompactionRequest {
    /// Decodes a `CompactionRequest`.
    pub fn decode(data: &[u8]) -> Decoded<CompactionRequest> {
        let mut r = CompactionRequest::default();
        let mut fields = Fields::new(data);
        while let Some((number, field)) = fields.step()? {
            match number {
                n::compaction_request::REVISION => r.revision = field.int()?,
                n::compaction_request::PHYSICAL => r.physical = field.truth()?,
                _ => {}
            }
        }
        Ok(r)
    }
}

/// `LeaseGrantRequest` and `LeaseGrantResponse` alike: an id and a time to live (s).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct LeaseGrant {
    pub id: i64,
    pub ttl: i64,
}

impl LeaseGrant {
    /// Decodes a `LeaseGrantRequest`.
    pub fn request(data: &[u8]) -> Decoded<LeaseGrant> {
        LeaseGrant::with(data, n::lease_grant_request::ID, n::lease_grant_request::TTL)
    }

    /// Decodes a `LeaseGrantResponse`.
    pub fn response(data: &[u8]) -> Decoded<LeaseGrant> {
        LeaseGrant::with(data, n::lease_grant_response::ID, n::lease_grant_response::TTL)
    }

    fn with(data: &[u8], id: u32, ttl: u32) -> Decoded<LeaseGrant> {
        let mut r = LeaseGrant::default();
        let mut fields = Fields::new(data);
        while let Some((number, field)) = fields.step()? {
            if number == id {
                r.id = field.int()?;
            } else if number == ttl {
                r.ttl = field.int()?;
            }
        }
        Ok(r)
    }
}

/// The id of a `LeaseRevokeRequest`.
pub fn lease_revoke(data: &[u8]) -> Decoded<i64> {
    let mut id = 0;
    let mut fields = Fields::new(data);
    while let Some((number, field)) = fields.step()? {
        if number == n::lease_revoke_request::ID {
            id = field.int()?;
        }
    }
    Ok(id)
}

/// `WatchCreateRequest`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct WatchCreateRequest<'a> {
    pub key: &'a [u8],
    pub range_end: &'a [u8],
    pub start_revision: i64,
    pub progress_notify: bool,
    pub filters: Vec<Enum>,
    pub prev_kv: bool,
    pub watch_id: i64,
    pub fragment: bool,
}

/// `WatchRequest`: what a client sends on a watch stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchRequest<'a> {
    /// `create_request`
    Create(WatchCreateRequest<'a>),
    /// `cancel_request`, with its watch id
    Cancel(i64),
    /// `progress_request`
    Progress,
}

impl<'a> WatchRequest<'a> {
    /// Decodes a `WatchRequest`.
    pub fn decode(data: &'a [u8]) -> Decoded<WatchRequest<'a>> {
        use n::watch_request as f;
        let mut found = None;
        let mut fields = Fields::new(data);
        while let Some((number, field)) = fields.step()? {
            let request = match number {
                f::CREATE_REQUEST => WatchRequest::Create(WatchCreateRequest::decode(field.bytes()?)?),
                f::CANCEL_REQUEST => WatchRequest::Cancel(cancelled(field.bytes()?)?),
                f::PROGRESS_REQUEST => {
                    field.bytes()?;
                    WatchRequest::Progress
                }
                _ => continue,
            };
            if found.replace(request).is_some() {
                return Err(twice());
            }
        }
        found.ok_or(Malformed { at: 0, expected: "a request to create or cancel a watch, or for progress" })
    }
}

fn cancelled(data: &[u8]) -> Decoded<i64> {
    let mut id = 0;
    let mut fields = Fields::new(data);
    while let Some((number, field)) = fields.step()? {
        if number == n::watch_cancel_request::WATCH_ID {
            id = field.int()?;
        }
    }
    Ok(id)
}

impl<'a> WatchCreateRequest<'a> {
    /// Decodes a `WatchCreateRequest`.
    pub fn decode(data: &'a [u8]) -> Decoded<WatchCreateRequest<'a>> {
        use n::watch_create_request as f;
        let mut r = WatchCreateRequest::default();
        let mut fields = Fields::new(data);
        while let Some((number, field)) = fields.step()? {
            match number {
                f::KEY => r.key = field.bytes()?,
                f::RANGE_END => r.range_end = field.bytes()?,
                f::START_REVISION => r.start_revision = field.int()?,
                f::PROGRESS_NOTIFY => r.progress_notify = field.truth()?,
                f::FILTERS => match field {
                    Field::Bytes(mut packed) => {
                        while let Some((value, length)) = crate::cursor::varint(packed) {
                            r.filters.push(enumeration(Field::Varint(value))?);
                            packed = &packed[length..];
                        }
                        if !packed.is_empty() {
                            return Err(Malformed { at: 0, expected: "packed varints" });
                        }
                    }
                    other => r.filters.push(enumeration(other)?),
                },
                f::PREV_KV => r.prev_kv = field.truth()?,
                f::WATCH_ID => r.watch_id = field.int()?,
                f::FRAGMENT => r.fragment = field.truth()?,
                _ => {}
            }
        }
        Ok(r)
    }
}

/// `WatchResponse`; its events are decoded as they are asked for.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)]
pub struct WatchResponse<'a> {
    pub header: Header,
    pub watch_id: i64,
    pub created: bool,
    pub canceled: bool,
    pub compact_revision: i64,
    pub cancel_reason: &'a str,
    pub fragment: bool,
    data: &'a [u8],
    held: usize,
}

impl<'a> WatchResponse<'a> {
    /// Decodes a `WatchResponse` but for its events.
    #[inline]
    pub fn decode(data: &'a [u8]) -> Decoded<WatchResponse<'a>> {
        use n::watch_response as f;
        let mut r = WatchResponse { data, ..WatchResponse::default() };
        let mut header = None;
        let mut fields = Fields::new(data);
        while let Some((number, field)) = fields.step()? {
            match number {
                f::HEADER => once(&mut header, field)?,
                f::WATCH_ID => r.watch_id = field.int()?,
                f::CREATED => r.created = field.truth()?,
                f::CANCELED => r.canceled = field.truth()?,
                f::COMPACT_REVISION => r.compact_revision = field.int()?,
                f::CANCEL_REASON => r.cancel_reason = utf8(field.bytes()?)?,
                f::FRAGMENT => r.fragment = field.truth()?,
                f::EVENTS => {
                    field.bytes()?;
                    r.held += 1;
                }
                _ => {}
            }
        }
        r.header = Header::decode(header.unwrap_or_default())?;
        Ok(r)
    }

    /// How many events it holds.
    #[inline]
    pub fn len(&self) -> usize {
        self.held
    }

    /// True where it holds no event.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// The encodings of its events in order: equal encodings are equal events, and most are told by several members.
    #[inline]
    pub fn events(&self) -> Events<'a> {
        Events { fields: Fields::new(self.data) }
    }
}

/// The encoded events of a watch response, one by one.
#[derive(Clone, Debug)]
pub struct Events<'a> {
    fields: Fields<'a>,
}

impl<'a> Iterator for Events<'a> {
    type Item = Decoded<&'a [u8]>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.fields.step() {
                Ok(None) => return None,
                Ok(Some((n::watch_response::EVENTS, field))) => return Some(field.bytes()),
                Ok(Some(_)) => {}
                Err(malformed) => return Some(Err(malformed)),
            }
        }
    }
}
