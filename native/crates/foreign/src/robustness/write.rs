//! A report as records, what it leaves out put back.

use super::facts::Facts;
use super::parse::{Condition, Event, Held, Kv, Op, Operation, Output, Range, Request, Response, Told, Watch};
use super::{Recorded, Report};
use crate::Declined;
use pekan_wire::numbers as n;

const RANGE: &str = "/etcdserverpb.KV/Range";
const PUT: &str = "/etcdserverpb.KV/Put";
const DELETE_RANGE: &str = "/etcdserverpb.KV/DeleteRange";
const TXN: &str = "/etcdserverpb.KV/Txn";
const COMPACT: &str = "/etcdserverpb.KV/Compact";
const LEASE_GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
const LEASE_REVOKE: &str = "/etcdserverpb.Lease/LeaseRevoke";
const DEFRAGMENT: &str = "/etcdserverpb.Maintenance/Defragment";
const WATCH: &str = "/etcdserverpb.Watch/Watch";

const UNKNOWN: u32 = 2;
const OUT_OF_RANGE: u32 = 11;
const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";
const FUTURE_REVISION: &str = "etcdserver: mvcc: required revision is a future revision";

/// The gRPC codes by Go's names of them, as they stand in the text of an error that etcd's client could not translate.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// The code that etcd gives to a text; its client drops it.
const TEXT_CODES: [(&str, u32); 6] = [
    (COMPACTED, OUT_OF_RANGE),
    (FUTURE_REVISION, OUT_OF_RANGE),
    ("etcdserver: requested lease not found", 5),
    ("etcdserver: duplicate key given in txn request", 3),
    ("context deadline exceeded", 4),
    ("context canceled", 1),
];

// ---- protobuf ----

/// Bytes of a message under construction.
#[derive(Default)]
struct Out(Vec<u8>);

impl Out {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            #[allow(clippy::cast_possible_truncation)] // seven bits of it
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        #[allow(clippy::cast_possible_truncation)]
        self.0.push(value as u8);
    }

    fn uint(&mut self, number: u32, value: u64) {
        if value != 0 {
            self.varint(u64::from(number) << 3);
            self.varint(value);
        }
    }

    fn int(&mut self, number: u32, value: i64) {
        self.uint(number, value.cast_unsigned());
    }

    fn flag(&mut self, number: u32, value: bool) {
        self.uint(number, u64::from(value));
    }

    /// A field of bytes, also where it is empty.
    fn always(&mut self, number: u32, value: &[u8]) {
        self.varint(u64::from(number) << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    fn bytes(&mut self, number: u32, value: &[u8]) {
        if !value.is_empty() {
            self.always(number, value);
        }
    }

    /// A message in a message.
    fn message(&mut self, number: u32, fill: impl FnOnce(&mut Out)) {
        let mut inner = Out(Vec::with_capacity(64));
        fill(&mut inner);
        self.always(number, &inner.0);
    }

    fn held(&mut self, number: u32, value: &Held<'_>) {
        match value {
            Held::Text(text) => self.bytes(number, text.as_bytes()),
            Held::Hash(hash) => {
                let mut told = b"\xffhash ".to_vec();
                told.extend_from_slice(format!("{hash:08x}").as_bytes());
                self.bytes(number, &told);
            }
        }
    }

    /// A header with a member and a revision; left out where it says nothing and may be.
    fn header(&mut self, number: u32, member: u64, revision: i64, always: bool) {
        if always || member != 0 || revision != 0 {
            self.message(number, |out| {
                out.uint(n::response_header::MEMBER_ID, member);
                out.int(n::response_header::REVISION, revision);
            });
        }
    }
}

// ---- requests ----

fn range_request(out: &mut Out, range: &Range<'_>, reduced: bool) {
    use n::range_request as f;
    out.bytes(f::KEY, range.start.as_bytes());
    out.bytes(f::RANGE_END, range.end.as_bytes());
    if !reduced {
        out.int(f::LIMIT, range.limit);
    }
    out.int(f::REVISION, range.revision);
    out.flag(f::KEYS_ONLY, range.keys_only && !reduced);
    out.flag(f::COUNT_ONLY, reduced);
}

fn single(out: &mut Out, op: &Op<'_>, reduced: bool) {
    match op {
        Op::Range(range) => range_request(out, range, reduced),
        Op::Put(put) => {
            out.bytes(n::put_request::KEY, put.key.as_bytes());
            out.held(n::put_request::VALUE, &put.value);
            out.int(n::put_request::LEASE, put.lease);
        }
        Op::Delete(key) => out.bytes(n::delete_range_request::KEY, key.as_bytes()),
    }
}

fn request_op(out: &mut Out, number: u32, op: &Op<'_>, reduced: bool) {
    let kind = match op {
        Op::Range(_) => n::request_op::REQUEST_RANGE,
        Op::Put(_) => n::request_op::REQUEST_PUT,
        Op::Delete(_) => n::request_op::REQUEST_DELETE_RANGE,
    };
    out.message(number, |out| out.message(kind, |out| single(out, op, reduced)));
}

fn compare(out: &mut Out, condition: &Condition<'_>) {
    use n::compare as f;
    let of_version = condition.version != 0;
    let target = if of_version { f::compare_target::VERSION } else { f::compare_target::MOD };
    out.uint(f::RESULT, u64::from(f::compare_result::EQUAL));
    out.uint(f::TARGET, u64::from(target));
    out.bytes(f::KEY, condition.key.as_bytes());
    // (Of a union the member that is set is written even where it is zero.)
    let (number, operand) = if of_version { (f::VERSION, condition.version) } else { (f::MOD_REVISION, condition.revision) };
    out.varint(u64::from(number) << 3);
    out.varint(operand.cast_unsigned());
}

/// A transaction; `reduced` says of each operation of the branch taken whether it is a range reduced to its count.
fn txn_request(out: &mut Out, conditions: &[Condition<'_>], success: &[Op<'_>], failure: &[Op<'_>], succeeded: bool, reduced: &[bool]) {
    for condition in conditions {
        out.message(n::txn_request::COMPARE, |out| compare(out, condition));
    }
    for (branch, number, taken) in [(success, n::txn_request::SUCCESS, succeeded), (failure, n::txn_request::FAILURE, !succeeded)] {
        for (index, op) in branch.iter().enumerate() {
            request_op(out, number, op, taken && reduced.get(index).copied().unwrap_or(false));
        }
    }
}

// ---- answers ----

/// Writes records of a report.
struct Writer<'a> {
    facts: &'a Facts<'a>,
    weakened: u64,
    left_out: u64,
    /// Bodies of records, one after the other.
    bodies: Vec<u8>,
    moments: Vec<Moment>,
}

/// One record to be. `class` orders those of one moment: completions of calls made before, calls and streams, other completions.
struct Moment {
    time: i64,
    class: u8,
    start: usize,
    end: usize,
}

impl Writer<'_> {
    fn record(&mut self, time: i64, class: u8, number: u32, fill: impl FnOnce(&mut Out)) {
        let start = self.bodies.len();
        let mut out = Out(std::mem::take(&mut self.bodies));
        out.message(number, fill);
        self.bodies = out.0;
        self.moments.push(Moment { time, class, start, end: self.bodies.len() });
    }

    fn key_value(&self, out: &mut Out, number: u32, key: &str, kv: &Kv<'_>, keys_only: bool) -> Option<()> {
        let (create, lease) = self.facts.follow(key, kv)?;
        out.message(number, |out| {
            use n::key_value as f;
            out.bytes(f::KEY, key.as_bytes());
            out.int(f::CREATE_REVISION, create);
            out.int(f::MOD_REVISION, kv.modified);
            out.int(f::VERSION, kv.version);
            if !keys_only {
                out.held(f::VALUE, &kv.value);
            }
            out.int(f::LEASE, lease);
        });
        Some(())
    }

    /// The answer to a range, and whether it was reduced to its count.
    fn range_answer(&mut self, range: &Range<'_>, told: &Told<'_>, member: u64, revision: i64) -> (Out, bool) {
        use n::range_response as f;
        let mut out = Out::default();
        out.header(f::HEADER, member, revision, false);
        let whole = out.0.len();
        let followed = told.kvs.iter().all(|kv| self.key_value(&mut out, f::KVS, &kv.key, kv, range.keys_only).is_some());
        if followed {
            out.flag(f::MORE, range.limit > 0 && told.count > told.kvs.len() as i64);
        } else {
            self.weakened += 1;
            out.0.truncate(whole);
        }
        out.int(f::COUNT, told.count);
        (out, !followed)
    }

    /// Method, request and answer of an operation; the answer None where there was none.
    fn exchange(&mut self, operation: &Operation<'_>) -> (&'static str, Out, Option<Out>) {
        let output = &operation.output;
        let answered = operation.answered();
        let (member, revision) = (output.member, output.revision.max(0));
        let mut request = Out::default();
        let mut answer = Out::default();
        let method = match &operation.request {
            Request::Range(range) => {
                let mut reduced = false;
                if answered {
                    (answer, reduced) = self.range_answer(range, &output.range, member, revision);
                }
                range_request(&mut request, range, reduced);
                RANGE
            }
            Request::Single(op) if !answered || (!output.failure && output.results.len() == 1) => {
                single(&mut request, op, false);
                if let Op::Put(_) = op {
                    answer.header(n::put_response::HEADER, member, revision, false);
                    PUT
                } else {
                    answer.header(n::delete_range_response::HEADER, member, revision, false);
                    answer.int(n::delete_range_response::DELETED, output.results.first().map_or(0, |result| result.deleted));
                    DELETE_RANGE
                }
            }
            // No answer to a single put or delete: as the transaction that it was recorded as, it is one that the checkers can judge.
            Request::Single(op) => {
                self.transaction(&mut request, &mut answer, &[], std::slice::from_ref(op), &[], output, revision);
                TXN
            }
            Request::Txn(conditions, success, failure) => {
                if answered {
                    self.transaction(&mut request, &mut answer, conditions, success, failure, output, revision);
                } else {
                    txn_request(&mut request, conditions, success, failure, true, &[]);
                }
                TXN
            }
            Request::LeaseGrant(lease) => {
                answer.header(n::lease_grant_response::HEADER, member, revision, true);
                answer.int(n::lease_grant_response::ID, *lease);
                LEASE_GRANT
            }
            Request::LeaseRevoke(lease) => {
                request.int(n::lease_revoke_request::ID, *lease);
                answer.header(n::lease_revoke_response::HEADER, member, revision, true);
                LEASE_REVOKE
            }
            Request::Compact(at) => {
                request.int(n::compaction_request::REVISION, *at);
                answer.header(n::compaction_response::HEADER, member, revision, true);
                COMPACT
            }
            Request::Defragment => DEFRAGMENT,
        };
        (method, request, answered.then_some(answer))
    }

    #[allow(clippy::too_many_arguments)] // a transaction, its answer, and where both go
    fn transaction(
        &mut self,
        request: &mut Out,
        answer: &mut Out,
        conditions: &[Condition<'_>],
        success: &[Op<'_>],
        failure: &[Op<'_>],
        output: &Output<'_>,
        revision: i64,
    ) {
        let succeeded = !output.failure;
        let operations = if succeeded { success } else { failure };
        let mut reduced = vec![false; operations.len()];
        answer.header(n::txn_response::HEADER, output.member, revision, false);
        answer.flag(n::txn_response::SUCCEEDED, succeeded);
        for (index, result) in output.results.iter().enumerate() {
            let (kind, inner) = match operations.get(index) {
                Some(Op::Put(_)) => (n::response_op::RESPONSE_PUT, Out::default()),
                Some(Op::Delete(_)) => {
                    let mut inner = Out::default();
                    inner.int(n::delete_range_response::DELETED, result.deleted);
                    (n::response_op::RESPONSE_DELETE_RANGE, inner)
                }
                Some(Op::Range(range)) => {
                    let (inner, less) = self.range_answer(range, result, 0, 0);
                    reduced[index] = less;
                    (n::response_op::RESPONSE_RANGE, inner)
                }
                None => {
                    let mut inner = Out::default();
                    inner.int(n::range_response::COUNT, result.count);
                    (n::response_op::RESPONSE_RANGE, inner)
                }
            };
            answer.message(n::txn_response::RESPONSES, |out| out.always(kind, &inner.0));
        }
        txn_request(request, conditions, success, failure, succeeded, &reduced);
    }

    fn operation(
        &mut self,
        id: u64,
        operation: &Operation<'_>,
        client: &str,
        definite: &mut dyn FnMut(u32, &str) -> Option<bool>,
    ) -> Result<(), Declined> {
        let (method, request, answer) = self.exchange(operation);
        let output = &operation.output;
        let member = if output.member == 0 { String::new() } else { format!("{:x}", output.member) };
        let call = operation.call;
        self.record(call, 1, n::record::INVOKED, |out| {
            use n::invoked as f;
            out.uint(f::OPERATION, id);
            out.int(f::PROCESS, operation.process);
            out.bytes(f::CLIENT, client.as_bytes());
            out.bytes(f::MEMBER, member.as_bytes());
            out.bytes(f::METHOD, method.as_bytes());
            out.bytes(f::REQUEST, &request.0);
        });
        let (code, text) = error_of(output);
        let end = match operation.end {
            Some(end) => end,
            None => {
                let refused = is_read(&operation.request) || definite(code, text).ok_or(Declined("an error that nobody can tell"))?;
                if !refused {
                    return Ok(()); // It has no outcome.
                }
                call
            }
        };
        self.record(end, if end == call { 2 } else { 0 }, n::record::COMPLETED, |out| {
            use n::completed as f;
            out.uint(f::OPERATION, id);
            if let Some(answer) = answer {
                out.bytes(f::RESPONSE, &answer.0);
            } else {
                out.uint(f::CODE, u64::from(code));
                out.bytes(f::MESSAGE, text.as_bytes());
            }
        });
        Ok(())
    }

    // ---- watches ----

    /// The event on the wire; None where it cannot be put back.
    fn event(&self, out: &mut Out, event: &Event<'_>, with_prev: bool) -> Option<()> {
        let key: &str = &event.key;
        let mut inner = Out::default();
        if event.deletes {
            inner.uint(n::event::TYPE, u64::from(n::event::event_type::DELETE));
        }
        let (mut create, mut version, mut lease) = (0, 0, 0);
        if !event.deletes {
            let fact = self.facts.get(key, event.revision)?;
            lease = fact.lease?;
            (create, version) = if event.creates { (event.revision, 1) } else { (fact.create, fact.version.max(2)) };
        }
        inner.message(n::event::KV, |out| {
            use n::key_value as f;
            out.bytes(f::KEY, key.as_bytes());
            out.int(f::CREATE_REVISION, create);
            out.int(f::MOD_REVISION, event.revision);
            out.int(f::VERSION, version);
            if !event.deletes {
                out.held(f::VALUE, &event.value);
            }
            out.int(f::LEASE, lease);
        });
        if let Some(prev) = event.prev.as_ref().filter(|_| with_prev) {
            self.key_value(&mut inner, n::event::PREV_KV, key, prev, false)?;
        }
        out.always(n::watch_response::EVENTS, &inner.0);
        Some(())
    }

    /// One watch as streams: a new one begins behind events that cannot be put back.
    fn streams<'w>(&mut self, watch: &'w Watch<'_>) -> Result<Vec<Piece<'w>>, Declined> {
        let follows = |response: &Response<'_>| {
            response.events.iter().all(|event| event.prev.as_ref().is_none_or(|prev| self.facts.follow(&event.key, prev).is_some()))
        };
        let prev = watch.prev && watch.responses.iter().all(follows);
        let mut pieces = vec![Piece::new(watch, watch.revision, prev)];
        let (mut last, mut now) = (0, 0);
        for response in &watch.responses {
            if response.time < now {
                return Err(Declined("a watch whose time runs backwards"));
            }
            now = response.time;
            let newest = pieces.len() - 1;
            let piece = &mut pieces[newest];
            if !response.error.is_empty() {
                piece.ended = Some((now, UNKNOWN, &response.error, false));
                break;
            }
            let revision = response.revision.max(0);
            let mut message = Out::default();
            message.header(n::watch_response::HEADER, 0, revision, true);
            let Some((first, final_)) = response.events.first().zip(response.events.last()) else {
                if response.revision >= last.max(piece.start.saturating_sub(1)).max(1) {
                    piece.add(now, revision, message);
                    last = last.max(response.revision);
                }
                continue;
            };
            last = last.max(final_.revision);
            if response.events.iter().all(|event| self.event(&mut message, event, prev).is_some()) {
                piece.add(now, first.revision - 1, message);
            } else {
                self.left_out += response.events.len() as u64;
                if let Some(moment) = piece.messages.last().map(|&(time, _)| time) {
                    piece.ended = Some((moment, 0, "", true));
                }
                pieces.push(Piece::new(watch, last.checked_add(1).ok_or(Declined("a revision that cannot be"))?, prev));
            }
        }
        pieces.retain(|piece| !piece.messages.is_empty());
        Ok(pieces)
    }

    fn stream(&mut self, id: u64, piece: Piece<'_>, client: &str) {
        let began = piece.messages[0].0;
        self.record(began, 1, n::record::STREAM_SENT, |out| {
            use n::stream_sent as f;
            out.uint(f::STREAM, id);
            out.message(f::REQUEST, |out| out.message(n::watch_request::CREATE_REQUEST, |out| piece.request(out)));
            out.bytes(f::METHOD, WATCH.as_bytes());
            out.bytes(f::CLIENT, client.as_bytes());
            out.bytes(f::MEMBER, client.as_bytes());
        });
        let mut created = Out::default();
        created.header(n::watch_response::HEADER, 0, piece.created, true);
        created.flag(n::watch_response::CREATED, true);
        for (time, message) in std::iter::once((began, created)).chain(piece.messages) {
            self.record(time, 1, n::record::STREAM_RECEIVED, |out| {
                out.uint(n::stream_received::STREAM, id);
                out.bytes(n::stream_received::RESPONSE, &message.0);
            });
        }
        if let Some((time, code, text, by_client)) = piece.ended {
            self.record(time, 1, n::record::STREAM_ENDED, |out| {
                use n::stream_ended as f;
                out.uint(f::STREAM, id);
                out.uint(f::CODE, u64::from(code));
                out.bytes(f::MESSAGE, text.as_bytes());
                out.flag(f::BY_CLIENT, by_client);
            });
        }
    }
}

/// A stream of one watch.
struct Piece<'a> {
    watch: &'a Watch<'a>,
    start: i64,
    prev: bool,
    /// Revision in the header of the created reply.
    created: i64,
    messages: Vec<(i64, Out)>,
    /// When, the gRPC code, its text, and whether the client did it.
    ended: Option<(i64, u32, &'a str, bool)>,
}

impl<'a> Piece<'a> {
    fn new(watch: &'a Watch<'_>, start: i64, prev: bool) -> Self {
        Piece { watch, start, prev, created: 0, messages: Vec::new(), ended: None }
    }

    fn add(&mut self, time: i64, before: i64, message: Out) {
        if self.messages.is_empty() {
            self.created = if self.start > 0 { before.min(self.start - 1) } else { before };
        }
        self.messages.push((time, message));
    }

    fn request(&self, out: &mut Out) {
        use n::watch_create_request as f;
        let key = self.watch.key.as_bytes();
        if self.watch.prefix {
            out.bytes(f::KEY, if key.is_empty() { b"\0" } else { key });
            out.bytes(f::RANGE_END, &prefix_end(key));
        } else {
            out.bytes(f::KEY, key);
        }
        out.int(f::START_REVISION, self.start);
        out.flag(f::PROGRESS_NOTIFY, self.watch.progress);
        out.flag(f::PREV_KV, self.prev);
    }
}

/// The end of the range of all keys with `prefix`.
fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(&last) = end.last() {
        if last < 0xff {
            let at = end.len() - 1;
            end[at] = last + 1;
            return end;
        }
        end.pop();
    }
    vec![0]
}

/// Code and text of the error of an operation that was not answered.
fn error_of<'a>(output: &'a Output<'_>) -> (u32, &'a str) {
    match &*output.client_error {
        "mvcc: required revision has been compacted" => return (OUT_OF_RANGE, COMPACTED),
        "mvcc: required revision is a future revision" => return (OUT_OF_RANGE, FUTURE_REVISION),
        _ => {}
    }
    let text: &str = if output.error.is_empty() { &output.client_error } else { &output.error };
    if let Some((code, told)) = text.strip_prefix("rpc error: code = ").and_then(|rest| rest.split_once(" desc = "))
        && !code.is_empty()
        && code.chars().all(|letter| letter.is_alphanumeric() || letter == '_')
    {
        let known = (1_u32..).zip(&CODES[1..]).find(|&(_, &name)| name == code);
        return (known.map_or(UNKNOWN, |(number, _)| number), told);
    }
    (TEXT_CODES.iter().find(|&&(known, _)| known == text).map_or(UNKNOWN, |&(_, code)| code), text)
}

/// Whether a request cannot change anything.
fn is_read(request: &Request<'_>) -> bool {
    match request {
        Request::Range(_) => true,
        Request::Txn(_, success, failure) => success.iter().chain(failure).all(|op| matches!(op, Op::Range(_))),
        _ => false,
    }
}

/// The records of `report`.
pub fn records(
    report: &Report<'_>,
    facts: &Facts<'_>,
    clients: &[&str],
    empty: bool,
    definite: &mut dyn FnMut(u32, &str) -> Option<bool>,
) -> Result<Recorded, Declined> {
    let mut writer = Writer { facts, weakened: 0, left_out: 0, bodies: Vec::new(), moments: Vec::new() };
    for (id, operation) in (1..).zip(&report.operations) {
        writer.operation(id, operation, clients[operation.file], definite)?;
    }
    let mut pieces = Vec::new();
    for watch in &report.watches {
        pieces.extend(writer.streams(watch)?);
    }
    pieces.sort_by_key(|piece| piece.messages[0].0);
    for (id, piece) in (0..).zip(pieces) {
        let client = clients[piece.watch.file];
        writer.stream(id, piece, client);
    }
    let Writer { weakened, left_out, bodies, mut moments, .. } = writer;
    moments.sort_by_key(|moment| (moment.time, moment.class));
    let mut records = Out(Vec::with_capacity(bodies.len() + moments.len() * 20));
    for moment in moments {
        let body = &bodies[moment.start..moment.end];
        records.varint(9 + body.len() as u64 + 5);
        let covered = records.0.len();
        records.0.push(0x09);
        records.0.extend_from_slice(&moment.time.to_le_bytes());
        records.0.extend_from_slice(body);
        let crc = crc32fast::hash(&records.0[covered..]);
        records.0.push(0x7d);
        records.0.extend_from_slice(&crc.to_le_bytes());
    }
    Ok(Recorded { records: records.0, empty, weakened, left_out })
}
