//! Are the bytes a message of their method, and what is it like? Asked once, at loading, so that whoever decodes them later finds them whole,
//! and whoever sorts them need not decode them.

use pekan_wire::{
    CompactionRequest, Compare, DEPTH_MAX, DeleteRangeRequest, DeleteRangeResponse, Event, Fields, Header, LeaseGrant, Malformed,
    PutRequest, PutResponse, RangeRequest, RangeResponse, WatchRequest, WatchResponse, header_of, lease_revoke, utf8,
};
use pekan_wire::{numbers as n, scan};

use crate::columns::{Glance, Kind, Shape};

type Valid = Result<(), Malformed>;

/// What `data` is like as a request of `kind`; `Other` is left to Python.
#[inline]
pub fn request(kind: Kind, data: &[u8]) -> Result<Shape, Malformed> {
    let mut shape = Shape::default();
    match kind {
        Kind::Range => {
            let r = RangeRequest::decode(data)?;
            range_asked(&r, &mut shape);
            shape.add_if(r.serializable, Shape::LOCAL);
        }
        Kind::Put => put_asked(&PutRequest::decode(data)?, &mut shape),
        Kind::DeleteRange => {
            DeleteRangeRequest::decode(data)?;
            shape.add(Shape::MAY_WRITE);
        }
        Kind::Txn => {
            let branches = txn_asked(data, 0, &mut shape)?;
            shape.add_if(branches.operations == 0, Shape::COMPARES_ONLY);
            shape.add_if(branches.operations > 0 && branches.operations == branches.local, Shape::LOCAL);
        }
        Kind::Compaction => CompactionRequest::decode(data).map(drop)?,
        Kind::LeaseGrant => LeaseGrant::request(data).map(drop)?,
        Kind::LeaseRevoke => {
            lease_revoke(data)?;
            shape.add(Shape::MAY_WRITE);
        }
        Kind::Other => {}
    }
    Ok(shape)
}

#[inline]
fn range_asked(r: &RangeRequest<'_>, shape: &mut Shape) {
    shape.add_if(r.revision > 0, Shape::NAMES_REVISION);
    // By key, version, create revision, mod revision, value.
    shape.add_if(!(0..=4).contains(&r.sort_target), Shape::UNSORTABLE);
}

#[inline]
fn put_asked(r: &PutRequest<'_>, shape: &mut Shape) {
    shape.add(Shape::MAY_WRITE);
    shape.add_if(r.lease != 0, Shape::ATTACHES);
}

/// How many operations a Txn has in both branches, and how many of them are serializable Ranges.
struct Branches {
    operations: usize,
    local: usize,
}

/// As `TxnRequest::decode` finds it, without keeping anything.
fn txn_asked(data: &[u8], depth: u32, shape: &mut Shape) -> Result<Branches, Malformed> {
    use n::txn_request as f;
    if depth > DEPTH_MAX {
        return Err(Malformed { at: 0, expected: "fewer transactions inside each other" });
    }
    let mut branches = Branches { operations: 0, local: 0 };
    let mut fields = Fields::new(data);
    while let Some((number, field)) = fields.step()? {
        match number {
            f::COMPARE => Compare::decode(field.bytes()?).map(drop)?,
            f::SUCCESS | f::FAILURE => {
                branches.operations += 1;
                branches.local += usize::from(operation_asked(field.bytes()?, depth, shape)?);
            }
            _ => {}
        }
    }
    Ok(branches)
}

/// Whether it is a serializable Range.
fn operation_asked(data: &[u8], depth: u32, shape: &mut Shape) -> Result<bool, Malformed> {
    use n::request_op as f;
    let mut found = None;
    let mut fields = Fields::new(data);
    while let Some((number, field)) = fields.step()? {
        let local = match number {
            f::REQUEST_RANGE => {
                let r = RangeRequest::decode(field.bytes()?)?;
                range_asked(&r, shape);
                r.serializable
            }
            f::REQUEST_PUT => {
                put_asked(&PutRequest::decode(field.bytes()?)?, shape);
                false
            }
            f::REQUEST_DELETE_RANGE => {
                DeleteRangeRequest::decode(field.bytes()?)?;
                shape.add(Shape::MAY_WRITE);
                false
            }
            f::REQUEST_TXN => {
                txn_asked(field.bytes()?, depth + 1, shape)?;
                false
            }
            _ => continue,
        };
        if found.replace(local).is_some() {
            return Err(Malformed { at: 0, expected: "one operation of a transaction" });
        }
    }
    found.ok_or(Malformed { at: 0, expected: "an operation of a transaction" })
}

/// The revision in the header of `data`, a response to a request of `kind`, of which `shape` then knows whether it wrote; `Other` is left to
/// Python.
#[inline]
pub fn response(kind: Kind, data: &[u8], shape: &mut Shape) -> Result<i64, Malformed> {
    let header = match kind {
        Kind::Range => range(data)?,
        Kind::Put => {
            shape.add(Shape::WROTE);
            PutResponse::decode(data)?.header
        }
        Kind::DeleteRange => {
            let (header, deleted) = delete_range(data)?;
            shape.add_if(deleted, Shape::WROTE);
            header
        }
        Kind::Txn => {
            let (header, wrote) = txn(data, 0)?;
            shape.add_if(wrote, Shape::WROTE);
            header
        }
        Kind::Compaction | Kind::LeaseRevoke => header_of(data)?,
        Kind::LeaseGrant => {
            LeaseGrant::response(data)?;
            let mut fields = Fields::new(data);
            while let Some((number, field)) = fields.step()? {
                if number == n::lease_grant_response::ERROR {
                    utf8(field.bytes()?)?;
                }
            }
            header_of(data)?
        }
        Kind::Other => Header::default(),
    };
    Ok(header.revision)
}

#[inline]
fn range(data: &[u8]) -> Result<Header, Malformed> {
    let response = RangeResponse::decode(data)?;
    response.kvs().try_for_each(|kv| kv.map(drop))?;
    Ok(response.header)
}

/// With whether anything was deleted.
#[inline]
fn delete_range(data: &[u8]) -> Result<(Header, bool), Malformed> {
    let response = DeleteRangeResponse::decode(data)?;
    response.prev_kvs().try_for_each(|kv| kv.map(drop))?;
    Ok((response.header, response.deleted > 0))
}

/// With whether anything was changed; as `TxnResponse::decode` finds it, without keeping anything.
fn txn(data: &[u8], depth: u32) -> Result<(Header, bool), Malformed> {
    use n::txn_response as f;
    if depth > DEPTH_MAX {
        return Err(Malformed { at: 0, expected: "fewer transactions inside each other" });
    }
    let (mut header, mut twice, mut wrote) = (None, false, false);
    let mut fields = Fields::new(data);
    while let Some((number, field)) = fields.step()? {
        match number {
            f::HEADER => twice |= header.replace(field.bytes()?).is_some(),
            f::SUCCEEDED => {
                field.truth()?;
            }
            f::RESPONSES => wrote |= operation(field.bytes()?, depth)?,
            _ => {}
        }
    }
    if twice {
        return Err(Malformed { at: 0, expected: "a message field once" });
    }
    Ok((Header::decode(header.unwrap_or_default())?, wrote))
}

/// Whether the answer to one operation of a transaction says that something was changed.
fn operation(data: &[u8], depth: u32) -> Result<bool, Malformed> {
    use n::response_op as f;
    let mut found = None;
    let mut fields = Fields::new(data);
    while let Some((number, field)) = fields.step()? {
        let wrote = match number {
            f::RESPONSE_RANGE => {
                range(field.bytes()?)?;
                false
            }
            f::RESPONSE_PUT => {
                PutResponse::decode(field.bytes()?)?;
                true
            }
            f::RESPONSE_DELETE_RANGE => delete_range(field.bytes()?)?.1,
            f::RESPONSE_TXN => txn(field.bytes()?, depth + 1)?.1,
            _ => continue,
        };
        if found.replace(wrote).is_some() {
            return Err(Malformed { at: 0, expected: "one answer to an operation of a transaction" });
        }
    }
    found.ok_or(Malformed { at: 0, expected: "the answer to an operation of a transaction" })
}

/// Whether `data` is what a client sends on a watch stream.
pub fn watch_request(data: &[u8]) -> Valid {
    WatchRequest::decode(data).map(drop)
}

/// Whether `data` is what a member sends on a watch stream.
pub fn watch_response(data: &[u8]) -> Result<Glance, Malformed> {
    if let Some(glance) = at_a_glance(data) {
        return Ok(glance);
    }
    WatchResponse::decode(data)?.events().try_for_each(|event| Event::decode(event?).map(drop))?;
    Ok(Glance::default())
}

/// A message with events or progress in the form in which etcd writes it, and whole.
#[inline]
fn at_a_glance(data: &[u8]) -> Option<Glance> {
    let head = scan::watch_head(data)?;
    let mut glance = Glance::default();
    let mut left = head.events;
    while let Some((event, rest)) = scan::next_event(left) {
        let seen = scan::event_head(event)?;
        let alone = left.len() == head.events.len() && rest.is_empty() && head.watch_id == 0 && !head.fragment;
        if let (true, Ok(header), Ok(revision)) = (alone, u32::try_from(head.header), u32::try_from(seen.revision)) {
            glance = Glance { header, revision, event: u16::try_from(data.len() - event.len()).unwrap_or(0) };
        }
        left = rest;
    }
    left.is_empty().then_some(glance)
}

/// True for a request that cannot change anything: a Range, or a Txn of which every operation in both branches is one.
#[inline]
pub fn is_read(kind: Kind, shape: Shape) -> bool {
    matches!(kind, Kind::Range | Kind::Txn) && !shape.has(Shape::MAY_WRITE)
}
