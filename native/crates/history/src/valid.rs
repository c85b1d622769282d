//! Are the bytes a message of their method? Asked once, at loading, so that whoever decodes them later finds them whole.

use pekan_wire::numbers as n;
use pekan_wire::{
    CompactionRequest, DeleteRangeRequest, DeleteRangeResponse, Event, Fields, LeaseGrant, Malformed, PutRequest, PutResponse,
    RangeRequest, RangeResponse, Request, Response, TxnRequest, TxnResponse, WatchRequest, WatchResponse, header_of, lease_revoke, utf8,
};

use crate::columns::Kind;

type Valid = Result<(), Malformed>;

/// Whether `data` is a request of `kind`; `Other` is left to Python.
pub fn request(kind: Kind, data: &[u8]) -> Valid {
    match kind {
        Kind::Range => RangeRequest::decode(data).map(drop),
        Kind::Put => PutRequest::decode(data).map(drop),
        Kind::DeleteRange => DeleteRangeRequest::decode(data).map(drop),
        Kind::Txn => TxnRequest::decode(data).map(drop),
        Kind::Compaction => CompactionRequest::decode(data).map(drop),
        Kind::LeaseGrant => LeaseGrant::request(data).map(drop),
        Kind::LeaseRevoke => lease_revoke(data).map(drop),
        Kind::Other => Ok(()),
    }
}

/// Whether `data` is a response to a request of `kind`; `Other` is left to Python.
pub fn response(kind: Kind, data: &[u8]) -> Valid {
    match kind {
        Kind::Range => range(&RangeResponse::decode(data)?),
        Kind::Put => PutResponse::decode(data).map(drop),
        Kind::DeleteRange => delete_range(&DeleteRangeResponse::decode(data)?),
        Kind::Txn => txn(&TxnResponse::decode(data)?),
        Kind::Compaction | Kind::LeaseRevoke => header_of(data).map(drop),
        Kind::LeaseGrant => {
            LeaseGrant::response(data)?;
            header_of(data)?;
            let mut fields = Fields::new(data);
            while let Some((number, field)) = fields.step()? {
                if number == n::lease_grant_response::ERROR {
                    utf8(field.bytes()?)?;
                }
            }
            Ok(())
        }
        Kind::Other => Ok(()),
    }
}

fn range(response: &RangeResponse<'_>) -> Valid {
    response.kvs().try_for_each(|kv| kv.map(drop))
}

fn delete_range(response: &DeleteRangeResponse<'_>) -> Valid {
    response.prev_kvs().try_for_each(|kv| kv.map(drop))
}

fn txn(response: &TxnResponse<'_>) -> Valid {
    response.responses.iter().try_for_each(|each| match each {
        Response::Range(inner) => range(inner),
        Response::Put(_) => Ok(()),
        Response::DeleteRange(inner) => delete_range(inner),
        Response::Txn(inner) => txn(inner),
    })
}

/// Whether `data` is what a client sends on a watch stream.
pub fn watch_request(data: &[u8]) -> Valid {
    WatchRequest::decode(data).map(drop)
}

/// Whether `data` is what a member sends on a watch stream.
pub fn watch_response(data: &[u8]) -> Valid {
    WatchResponse::decode(data)?.events().try_for_each(|event| Event::decode(event?).map(drop))
}

/// True for a request that cannot change anything: a Range, or a Txn of which every operation in both branches is one.
pub fn is_read(kind: Kind, data: &[u8]) -> Result<bool, Malformed> {
    Ok(match kind {
        Kind::Range => true,
        Kind::Txn => reads_only(&TxnRequest::decode(data)?),
        _ => false,
    })
}

fn reads_only(txn: &TxnRequest<'_>) -> bool {
    txn.success.iter().chain(&txn.failure).all(|op| match op {
        Request::Range(_) => true,
        Request::Txn(inner) => reads_only(inner),
        Request::Put(_) | Request::DeleteRange(_) => false,
    })
}
