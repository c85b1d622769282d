//! The JSON of a report as requests, answers and watches.

use super::Report;
use crate::Declined;
use crate::json::{Cursor, once};
use std::borrow::Cow;

/// Nesting of what is passed over.
const DEPTH_MAX: usize = 100;

/// A value, or the hash of one that was too long to be kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Held<'a> {
    Text(Cow<'a, str>),
    Hash(u32),
}

impl Default for Held<'_> {
    fn default() -> Self {
        Held::Text(Cow::Borrowed(""))
    }
}

/// `RangeOptions`.
#[derive(Clone, Debug, Default)]
pub struct Range<'a> {
    pub start: Cow<'a, str>,
    pub end: Cow<'a, str>,
    pub limit: i64,
    pub keys_only: bool,
    pub revision: i64,
}

/// `PutOptions`.
#[derive(Clone, Debug, Default)]
pub struct Put<'a> {
    pub key: Cow<'a, str>,
    pub value: Held<'a>,
    pub lease: i64,
}

/// `EtcdOperation`.
#[derive(Clone, Debug)]
pub enum Op<'a> {
    Range(Range<'a>),
    Put(Put<'a>),
    Delete(Cow<'a, str>),
}

/// `EtcdCondition`: of the version where that is not zero, else of the revision.
#[derive(Clone, Debug, Default)]
pub struct Condition<'a> {
    pub key: Cow<'a, str>,
    pub revision: i64,
    pub version: i64,
}

/// `EtcdRequest`; a transaction of one write is that write.
#[derive(Clone, Debug)]
pub enum Request<'a> {
    Range(Range<'a>),
    Single(Op<'a>),
    Txn(Vec<Condition<'a>>, Vec<Op<'a>>, Vec<Op<'a>>),
    LeaseGrant(i64),
    LeaseRevoke(i64),
    Compact(i64),
    Defragment,
}

/// `KeyValue`, but for its key `ValueRevision`.
#[derive(Clone, Debug, Default)]
pub struct Kv<'a> {
    pub key: Cow<'a, str>,
    pub value: Held<'a>,
    pub modified: i64,
    pub version: i64,
}

/// `EtcdOperationResult`, and `RangeResponse`.
#[derive(Clone, Debug, Default)]
pub struct Told<'a> {
    pub kvs: Vec<Kv<'a>>,
    pub count: i64,
    pub deleted: i64,
}

/// `MaybeEtcdResponse`.
#[derive(Clone, Debug, Default)]
pub struct Output<'a> {
    pub range: Told<'a>,
    pub failure: bool,
    pub results: Vec<Told<'a>>,
    pub revision: i64,
    pub member: u64,
    pub error: Cow<'a, str>,
    pub client_error: Cow<'a, str>,
}

/// One line of operations.json. `end` is None where it never returned.
#[derive(Clone, Debug)]
pub struct Operation<'a> {
    pub process: i64,
    pub call: i64,
    pub end: Option<i64>,
    pub request: Request<'a>,
    pub output: Output<'a>,
    /// Index of its file.
    pub file: usize,
}

impl<'a> Operation<'a> {
    /// Whether it was answered by etcd.
    pub fn answered(&self) -> bool {
        self.output.error.is_empty() && self.output.client_error.is_empty()
    }

    /// What it was made of, where it is a put, a delete or a transaction: the operations of the branch taken, and their results.
    pub fn taken(&self) -> impl Iterator<Item = (&Op<'a>, &Told<'a>)> {
        let operations = match &self.request {
            Request::Single(op) => std::slice::from_ref(op),
            Request::Txn(_, _, failure) if self.output.failure => failure,
            Request::Txn(_, success, _) => success,
            _ => &[],
        };
        operations.iter().zip(&self.output.results)
    }

    /// Whether its answer shows that the store held nothing before the first write: it is of revision 1, or the write that made revision 2.
    pub fn shows_an_empty_store(&self) -> bool {
        let of_its_time = match &self.request {
            Request::Range(range) => range.revision == 0,
            Request::Compact(_) | Request::Defragment => false,
            _ => true,
        };
        let revision = self.output.revision;
        let writes = || self.taken().any(|(op, _)| matches!(op, Op::Put(_)));
        self.answered() && of_its_time && (revision == 1 || (revision == 2 && writes()))
    }
}

/// `WatchEvent`.
#[derive(Clone, Debug, Default)]
pub struct Event<'a> {
    pub deletes: bool,
    pub key: Cow<'a, str>,
    pub value: Held<'a>,
    pub revision: i64,
    pub creates: bool,
    pub prev: Option<Kv<'a>>,
}

/// `WatchResponse`.
#[derive(Clone, Debug, Default)]
pub struct Response<'a> {
    pub events: Vec<Event<'a>>,
    pub revision: i64,
    pub time: i64,
    pub error: Cow<'a, str>,
}

/// `WatchOperation`.
#[derive(Clone, Debug, Default)]
pub struct Watch<'a> {
    pub key: Cow<'a, str>,
    pub revision: i64,
    pub prefix: bool,
    pub progress: bool,
    pub prev: bool,
    pub responses: Vec<Response<'a>>,
    /// Index of its file.
    pub file: usize,
}

/// Takes one file into `report`.
pub fn file<'a>(text: &'a str, number: usize, watches: bool, report: &mut Report<'a>) -> Result<(), Declined> {
    Cursor::new(text).values(|cursor| {
        if watches {
            report.watches.push(watch(cursor, number)?);
        } else {
            report.operations.push(operation(cursor, number)?);
        }
        Ok(())
    })
}

/// Goes through the object here, or past null; `field` gives each name its bit and reads its value.
fn fields<'a>(cursor: &mut Cursor<'a>, mut field: impl FnMut(&mut Cursor<'a>, &str) -> Result<u16, Declined>) -> Result<bool, Declined> {
    if cursor.null()? {
        return Ok(false);
    }
    let mut seen = 0;
    cursor.object(|cursor, name| {
        let bit = field(cursor, name)?;
        once(&mut seen, bit)
    })?;
    Ok(true)
}

fn list<'a, T>(cursor: &mut Cursor<'a>, mut part: impl FnMut(&mut Cursor<'a>) -> Result<T, Declined>) -> Result<Vec<T>, Declined> {
    let mut parts = Vec::new();
    if !cursor.null()? {
        cursor.array(|cursor| {
            parts.push(part(cursor)?);
            Ok(())
        })?;
    }
    Ok(parts)
}

fn number(cursor: &mut Cursor<'_>) -> Result<i64, Declined> {
    if cursor.null()? { Ok(0) } else { cursor.whole() }
}

const UNKNOWN: Declined = Declined("a field of a report that is not known");

fn operation<'a>(cursor: &mut Cursor<'a>, file: usize) -> Result<Operation<'a>, Declined> {
    let (mut process, mut call, mut end) = (0, 0, 0);
    let mut input = Input::default();
    let mut output = Output::default();
    fields(cursor, |cursor, name| {
        Ok(match name {
            "ClientId" => {
                process = number(cursor)?;
                1
            }
            "Input" => {
                input = request(cursor)?;
                2
            }
            "Call" => {
                call = number(cursor)?;
                4
            }
            "Output" => {
                output = answer(cursor)?;
                8
            }
            "Return" => {
                end = if cursor.null()? { 0 } else { cursor.whole_or_never()? };
                16
            }
            "Metadata" => {
                cursor.skip(DEPTH_MAX)?;
                32
            }
            _ => return Err(UNKNOWN),
        })
    })?;
    let end = if end == -1 || end == i64::MAX { None } else { Some(end) };
    let operation = Operation { process, call, end, request: input.request()?, output, file };
    if process < 0 || call < 0 || end.is_some_and(|end| end < call) || (operation.answered() && end.is_none()) {
        return Err(Declined("an operation that cannot be"));
    }
    Ok(operation)
}

/// `EtcdRequest` as it stands there.
#[derive(Default)]
struct Input<'a> {
    kind: Cow<'a, str>,
    range: Range<'a>,
    conditions: Vec<Condition<'a>>,
    success: Vec<Op<'a>>,
    failure: Vec<Op<'a>>,
    granted: i64,
    revoked: i64,
    compacted: i64,
}

impl<'a> Input<'a> {
    fn request(mut self) -> Result<Request<'a>, Declined> {
        Ok(match &*self.kind {
            "range" => Request::Range(self.range),
            "txn" => {
                let alone = self.conditions.is_empty() && self.failure.is_empty() && self.success.len() == 1;
                if alone && !matches!(self.success[0], Op::Range(_)) {
                    Request::Single(self.success.remove(0))
                } else {
                    Request::Txn(self.conditions, self.success, self.failure)
                }
            }
            "leaseGrant" => Request::LeaseGrant(self.granted),
            "leaseRevoke" => Request::LeaseRevoke(self.revoked),
            "compact" => Request::Compact(self.compacted),
            "defragment" => Request::Defragment,
            _ => return Err(Declined("a type of request that is not known")),
        })
    }
}

fn request<'a>(cursor: &mut Cursor<'a>) -> Result<Input<'a>, Declined> {
    let mut input = Input::default();
    let lease = |cursor: &mut Cursor<'a>| {
        let mut found = 0;
        fields(cursor, |cursor, name| {
            found = if name == "LeaseID" { number(cursor)? } else { return Err(UNKNOWN) };
            Ok(1)
        })?;
        Ok(found)
    };
    fields(cursor, |cursor, name| {
        Ok(match name {
            "Type" => {
                input.kind = cursor.string()?;
                1
            }
            "Range" => {
                input.range = range(cursor, true)?;
                2
            }
            "Txn" => {
                fields(cursor, |cursor, name| {
                    Ok(match name {
                        "Conditions" => {
                            input.conditions = list(cursor, condition)?;
                            1
                        }
                        "OperationsOnSuccess" => {
                            input.success = list(cursor, op)?;
                            2
                        }
                        "OperationsOnFailure" => {
                            input.failure = list(cursor, op)?;
                            4
                        }
                        _ => return Err(UNKNOWN),
                    })
                })?;
                4
            }
            "LeaseGrant" => {
                input.granted = lease(cursor)?;
                8
            }
            "LeaseRevoke" => {
                input.revoked = lease(cursor)?;
                16
            }
            "Compact" => {
                fields(cursor, |cursor, name| {
                    input.compacted = if name == "Revision" { number(cursor)? } else { return Err(UNKNOWN) };
                    Ok(1)
                })?;
                32
            }
            "Defragment" => {
                fields(cursor, |_, _| Err(UNKNOWN))?;
                64
            }
            _ => return Err(UNKNOWN),
        })
    })?;
    Ok(input)
}

fn range<'a>(cursor: &mut Cursor<'a>, with_revision: bool) -> Result<Range<'a>, Declined> {
    let mut found = Range::default();
    fields(cursor, |cursor, name| {
        Ok(match name {
            "Start" => {
                found.start = cursor.string()?;
                1
            }
            "End" => {
                found.end = cursor.string()?;
                2
            }
            "Limit" => {
                found.limit = number(cursor)?;
                4
            }
            "KeysOnly" => {
                found.keys_only = cursor.truth()?;
                8
            }
            "Revision" if with_revision => {
                found.revision = number(cursor)?;
                16
            }
            _ => return Err(UNKNOWN),
        })
    })?;
    Ok(found)
}

fn condition<'a>(cursor: &mut Cursor<'a>) -> Result<Condition<'a>, Declined> {
    let mut found = Condition::default();
    fields(cursor, |cursor, name| {
        Ok(match name {
            "Key" => {
                found.key = cursor.string()?;
                1
            }
            "ExpectedRevision" => {
                found.revision = number(cursor)?;
                2
            }
            "ExpectedVersion" => {
                found.version = number(cursor)?;
                4
            }
            _ => return Err(UNKNOWN),
        })
    })?;
    if found.revision != 0 && found.version != 0 {
        return Err(Declined("a condition on a revision and a version at once"));
    }
    Ok(found)
}

fn op<'a>(cursor: &mut Cursor<'a>) -> Result<Op<'a>, Declined> {
    let mut kind = Cow::Borrowed("");
    let (mut of_range, mut of_put, mut of_delete) = (Range::default(), Put::default(), Cow::Borrowed(""));
    fields(cursor, |cursor, name| {
        Ok(match name {
            "Type" => {
                kind = cursor.string()?;
                1
            }
            "Range" => {
                of_range = range(cursor, false)?;
                2
            }
            "Put" => {
                fields(cursor, |cursor, name| {
                    Ok(match name {
                        "Key" => {
                            of_put.key = cursor.string()?;
                            1
                        }
                        "Value" => {
                            of_put.value = held(cursor)?;
                            2
                        }
                        "LeaseID" => {
                            of_put.lease = number(cursor)?;
                            4
                        }
                        _ => return Err(UNKNOWN),
                    })
                })?;
                4
            }
            "Delete" => {
                fields(cursor, |cursor, name| {
                    of_delete = if name == "Key" { cursor.string()? } else { return Err(UNKNOWN) };
                    Ok(1)
                })?;
                8
            }
            _ => return Err(UNKNOWN),
        })
    })?;
    match &*kind {
        "range-operation" => Ok(Op::Range(of_range)),
        "put-operation" => Ok(Op::Put(of_put)),
        "delete-operation" => Ok(Op::Delete(of_delete)),
        _ => Err(Declined("a type of operation that is not known")),
    }
}

/// `ValueOrHash`.
fn held<'a>(cursor: &mut Cursor<'a>) -> Result<Held<'a>, Declined> {
    let (mut text, mut hash) = (Cow::Borrowed(""), 0);
    fields(cursor, |cursor, name| {
        Ok(match name {
            "Value" => {
                text = cursor.string()?;
                1
            }
            "Hash" => {
                hash = number(cursor)?;
                2
            }
            _ => return Err(UNKNOWN),
        })
    })?;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // the lowest 32 bits are what a hash has
    Ok(if hash == 0 { Held::Text(text) } else { Held::Hash(hash as u32) })
}

fn answer<'a>(cursor: &mut Cursor<'a>) -> Result<Output<'a>, Declined> {
    let mut output = Output::default();
    fields(cursor, |cursor, name| {
        Ok(match name {
            "Txn" => {
                fields(cursor, |cursor, name| {
                    Ok(match name {
                        "Failure" => {
                            output.failure = cursor.truth()?;
                            1
                        }
                        "Results" => {
                            output.results = list(cursor, told)?;
                            2
                        }
                        _ => return Err(UNKNOWN),
                    })
                })?;
                1
            }
            "Range" => {
                output.range = told(cursor)?;
                2
            }
            "Revision" => {
                output.revision = number(cursor)?;
                4
            }
            "MemberID" => {
                let text = cursor.string()?;
                let hexadecimal = text.len() <= 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
                if !hexadecimal {
                    return Err(Declined("a member id that is none"));
                }
                output.member = if text.is_empty() { 0 } else { u64::from_str_radix(&text, 16).map_err(|_| UNKNOWN)? };
                8
            }
            "Error" => {
                output.error = cursor.string()?;
                16
            }
            "ClientError" => {
                output.client_error = cursor.string()?;
                32
            }
            "LeaseGrant" => {
                cursor.skip(DEPTH_MAX)?;
                64
            }
            "LeaseRevoke" => {
                cursor.skip(DEPTH_MAX)?;
                128
            }
            "Defragment" => {
                cursor.skip(DEPTH_MAX)?;
                256
            }
            "Compact" => {
                cursor.skip(DEPTH_MAX)?;
                512
            }
            "Persisted" => {
                cursor.skip(DEPTH_MAX)?;
                1024
            }
            "PersistedRevision" => {
                cursor.skip(DEPTH_MAX)?;
                2048
            }
            _ => return Err(UNKNOWN),
        })
    })?;
    Ok(output)
}

fn told<'a>(cursor: &mut Cursor<'a>) -> Result<Told<'a>, Declined> {
    let mut found = Told::default();
    fields(cursor, |cursor, name| {
        Ok(match name {
            "KVs" => {
                found.kvs = list(cursor, |cursor| {
                    let (kv, present) = kv(cursor)?;
                    if present { Ok(kv) } else { Err(Declined("a key-value that is null")) }
                })?;
                1
            }
            "Count" => {
                found.count = number(cursor)?;
                2
            }
            "Deleted" => {
                found.deleted = number(cursor)?;
                4
            }
            _ => return Err(UNKNOWN),
        })
    })?;
    Ok(found)
}

/// A key-value, and whether there was one rather than null.
fn kv<'a>(cursor: &mut Cursor<'a>) -> Result<(Kv<'a>, bool), Declined> {
    let mut found = Kv::default();
    let present = fields(cursor, |cursor, name| {
        Ok(match name {
            "Key" => {
                found.key = cursor.string()?;
                1
            }
            "Value" => {
                found.value = held(cursor)?;
                2
            }
            "ModRevision" => {
                found.modified = number(cursor)?;
                4
            }
            "Version" => {
                found.version = number(cursor)?;
                8
            }
            _ => return Err(UNKNOWN),
        })
    })?;
    Ok((found, present))
}

fn watch<'a>(cursor: &mut Cursor<'a>, file: usize) -> Result<Watch<'a>, Declined> {
    let mut found = Watch { file, ..Watch::default() };
    fields(cursor, |cursor, name| {
        Ok(match name {
            "Request" => {
                fields(cursor, |cursor, name| {
                    Ok(match name {
                        "Key" => {
                            found.key = cursor.string()?;
                            1
                        }
                        "Revision" => {
                            found.revision = number(cursor)?;
                            2
                        }
                        "WithPrefix" => {
                            found.prefix = cursor.truth()?;
                            4
                        }
                        "WithProgressNotify" => {
                            found.progress = cursor.truth()?;
                            8
                        }
                        "WithPrevKV" => {
                            found.prev = cursor.truth()?;
                            16
                        }
                        _ => return Err(UNKNOWN),
                    })
                })?;
                1
            }
            "Responses" => {
                found.responses = list(cursor, response)?;
                2
            }
            _ => return Err(UNKNOWN),
        })
    })?;
    Ok(found)
}

fn response<'a>(cursor: &mut Cursor<'a>) -> Result<Response<'a>, Declined> {
    let mut found = Response::default();
    fields(cursor, |cursor, name| {
        Ok(match name {
            "Events" => {
                found.events = list(cursor, event)?;
                1
            }
            "IsProgressNotify" => {
                cursor.truth()?;
                2
            }
            "Revision" => {
                found.revision = number(cursor)?;
                4
            }
            "Time" => {
                found.time = number(cursor)?;
                8
            }
            "Error" => {
                found.error = cursor.string()?;
                16
            }
            _ => return Err(UNKNOWN),
        })
    })?;
    if found.time < 0 {
        return Err(Declined("a time before the start"));
    }
    Ok(found)
}

fn event<'a>(cursor: &mut Cursor<'a>) -> Result<Event<'a>, Declined> {
    let mut found = Event::default();
    let mut kind = Cow::Borrowed("");
    fields(cursor, |cursor, name| {
        Ok(match name {
            "Type" => {
                kind = cursor.string()?;
                1
            }
            "Key" => {
                found.key = cursor.string()?;
                2
            }
            "Value" => {
                found.value = held(cursor)?;
                4
            }
            "Revision" => {
                found.revision = number(cursor)?;
                8
            }
            "IsCreate" => {
                found.creates = cursor.truth()?;
                16
            }
            "PrevValue" => {
                let (kv, present) = kv(cursor)?;
                found.prev = present.then_some(kv);
                32
            }
            _ => return Err(UNKNOWN),
        })
    })?;
    found.deletes = match &*kind {
        "put-operation" => false,
        "delete-operation" => true,
        _ => return Err(Declined("a type of event that is not known")),
    };
    Ok(found)
}
