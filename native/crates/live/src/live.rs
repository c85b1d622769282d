//! The checker itself; see the crate's picture.

use std::collections::{BTreeMap, HashMap, VecDeque};

use pekan_wire::numbers as n;
use pekan_wire::{
    DELETE, DeleteRangeRequest, DeleteRangeResponse, Event, Fields, Kv, Malformed, PutRequest, PutResponse, RangeRequest, RangeResponse,
    Request, Response, TxnRequest, TxnResponse, WatchRequest, WatchResponse, header_of, utf8,
};

use crate::frames::{Damaged, Frames};
use crate::store::{Change, Store};
use crate::watches::Watches;

const PUT: &str = "/etcdserverpb.KV/Put";
const RANGE: &str = "/etcdserverpb.KV/Range";
const DELETE_RANGE: &str = "/etcdserverpb.KV/DeleteRange";
const TXN: &str = "/etcdserverpb.KV/Txn";
const LEASE_GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
const WATCH: &str = "/etcdserverpb.Watch/Watch";

/// Answers and revisions that may wait to be settled. At 10,000 operations a second and timeouts of 10 s there are 100,000; a store whose
/// watches say nothing for longer is judged by its times alone from then on.
const WINDOW_MAX: usize = 200_000;
/// Refused Puts that are remembered as suspects: their effect shows within moments or after a member's restart, not after so many others.
const REFUSED_MAX: usize = 100_000;
/// Revisions whose events are remembered for watches that lag, to see whether members tell the same.
const TOLD_MAX: usize = 200_000;

/// Where the whole checker should look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suspicion {
    /// Code of the promise that seems broken.
    pub code: &'static str,
    /// Time of the record that shows it, ns of the run's clock.
    pub time: i64,
    /// The revision concerned.
    pub revision: i64,
}

/// A request in flight: what of it may still matter.
#[derive(Debug)]
struct Open {
    method: Method,
    request: Box<[u8]>,
    /// Highest place in the order known when it was called: 2r for the write of revision r, 2r + 1 for what saw it.
    after: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Put,
    Range,
    DeleteRange,
    Txn,
    LeaseGrant,
    Other,
}

/// An answer that waits for its revision.
#[derive(Debug)]
struct Answered {
    method: Method,
    request: Box<[u8]>,
    response: Box<[u8]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contents {
    /// Until the start mark says how the store began.
    Unknown,
    /// The store holds the state of `Live::settled`.
    Followed,
    /// No longer followed: the start was not empty, a second epoch began, or the window overflowed.
    Lost,
}

/// Judges a record while it grows.
#[derive(Debug)]
pub struct Live {
    frames: Frames,
    /// Distinct (code, message) of errors: whether they are definite, as the caller says.
    definite: HashMap<(u32, Box<str>), bool>,
    open: BTreeMap<u64, Open>,
    /// Highest place in the order that any answer or watch has shown.
    reached: i64,
    contents: Contents,
    store: Store,
    settled: i64,
    writes: BTreeMap<i64, Answered>,
    readers: BTreeMap<i64, Vec<Answered>>,
    waiting: usize,
    told: BTreeMap<i64, Vec<Change>>,
    /// Events of settled revisions by hash, for watches that lag; the first is of `past_from`.
    past: VecDeque<u64>,
    past_from: i64,
    streams: HashMap<u64, Watches>,
    refused: HashMap<u64, ()>,
    refused_order: VecDeque<u64>,
    hasher: foldhash::fast::FixedState,
    time: i64,
    operations: u64,
    records: u64,
    suspicions: Vec<Suspicion>,
}

impl Default for Live {
    fn default() -> Self {
        Live {
            frames: Frames::default(),
            definite: HashMap::new(),
            open: BTreeMap::new(),
            reached: 0,
            contents: Contents::Unknown,
            store: Store::default(),
            settled: 1,
            writes: BTreeMap::new(),
            readers: BTreeMap::new(),
            waiting: 0,
            told: BTreeMap::new(),
            past: VecDeque::new(),
            past_from: 2,
            streams: HashMap::new(),
            refused: HashMap::new(),
            refused_order: VecDeque::new(),
            hasher: foldhash::fast::FixedState::default(),
            time: 0,
            operations: 0,
            records: 0,
            suspicions: Vec::new(),
        }
    }
}

impl Live {
    /// Takes `bytes` as they were appended to the file and returns what they make suspicious. `definite` says of an error (gRPC code,
    /// message) whether it promises that nothing happened; it is asked once for each distinct one.
    pub fn feed(&mut self, bytes: &[u8], definite: &mut dyn FnMut(u32, &str) -> bool) -> Result<Vec<Suspicion>, Damaged> {
        let mut frames = std::mem::take(&mut self.frames);
        frames.push(bytes);
        let mut taken = Ok(());
        loop {
            match frames.take() {
                Ok(Some(record)) => {
                    self.records += 1;
                    // A message that is none is for the reader of the whole record to refuse.
                    let _ = self.record(record, definite);
                }
                Ok(None) => break,
                Err(damaged) => {
                    taken = Err(damaged);
                    break;
                }
            }
        }
        self.frames = frames;
        taken.map(|()| std::mem::take(&mut self.suspicions))
    }

    /// Operations invoked so far.
    pub fn operations(&self) -> u64 {
        self.operations
    }

    /// Highest revision whose contents have been judged; None where contents are not followed.
    pub fn settled(&self) -> Option<i64> {
        (self.contents == Contents::Followed).then_some(self.settled)
    }

    /// Highest revision that anything has shown.
    pub fn reached(&self) -> i64 {
        self.reached / 2
    }

    /// Answers and revisions kept until they can be settled, and requests in flight: what the memory beside the live keys goes to.
    pub fn window(&self) -> usize {
        self.waiting + self.told.len() + self.open.len()
    }

    /// Live keys.
    pub fn keys(&self) -> usize {
        self.store.len()
    }

    fn suspect(&mut self, code: &'static str, revision: i64) {
        self.suspicions.push(Suspicion { code, time: self.time, revision });
    }

    fn record(&mut self, data: &[u8], definite: &mut dyn FnMut(u32, &str) -> bool) -> Result<(), Malformed> {
        let mut fields = Fields::new(data);
        while let Some((number, field)) = fields.step()? {
            match number {
                n::record::TIME_NS => {
                    if let pekan_wire::Field::Fixed64(time) = field {
                        self.time = time.cast_signed();
                    }
                }
                n::record::INVOKED => self.invoked(field.bytes()?)?,
                n::record::COMPLETED => self.completed(field.bytes()?, definite)?,
                n::record::STREAM_SENT => self.sent(field.bytes()?)?,
                n::record::STREAM_RECEIVED => self.received(field.bytes()?)?,
                n::record::STREAM_ENDED => self.ended(field.bytes()?)?,
                n::record::MARK => self.mark(field.bytes()?)?,
                _ => {}
            }
        }
        self.settle()
    }

    fn mark(&mut self, data: &[u8]) -> Result<(), Malformed> {
        let (mut kind, mut detail) = ("", "");
        let mut fields = Fields::new(data);
        while let Some((number, field)) = fields.step()? {
            match number {
                n::mark::KIND => kind = utf8(field.bytes()?)?,
                n::mark::DETAIL => detail = utf8(field.bytes()?)?,
                _ => {}
            }
        }
        match (kind, self.contents) {
            ("start", Contents::Unknown) => {
                // Our recorder writes JSON without spaces, json.dumps with them.
                let empty = detail.contains("\"start\":\"empty\"") || detail.contains("\"start\": \"empty\"");
                self.contents = if empty { Contents::Followed } else { Contents::Lost };
            }
            ("epoch", _) => self.lose(),
            _ => {}
        }
        Ok(())
    }

    fn lose(&mut self) {
        self.contents = Contents::Lost;
        self.store = Store::default();
        self.writes.clear();
        self.readers.clear();
        self.told.clear();
        self.past.clear();
        self.waiting = 0;
    }

    // ---- requests and answers ----

    fn invoked(&mut self, data: &[u8]) -> Result<(), Malformed> {
        let (mut operation, mut method, mut request) = (0, Method::Other, &data[..0]);
        let mut fields = Fields::new(data);
        while let Some((number, field)) = fields.step()? {
            match number {
                n::invoked::OPERATION => operation = field.uint()?,
                n::invoked::METHOD => method = method_of(utf8(field.bytes()?)?),
                n::invoked::REQUEST => request = field.bytes()?,
                _ => {}
            }
        }
        self.operations += 1;
        if method != Method::Other {
            self.open.insert(operation, Open { method, request: request.into(), after: self.reached });
        }
        Ok(())
    }

    fn completed(&mut self, data: &[u8], definite: &mut dyn FnMut(u32, &str) -> bool) -> Result<(), Malformed> {
        let (mut operation, mut response, mut code, mut message) = (0, &data[..0], 0, "");
        let mut fields = Fields::new(data);
        while let Some((number, field)) = fields.step()? {
            match number {
                n::completed::OPERATION => operation = field.uint()?,
                n::completed::RESPONSE => response = field.bytes()?,
                n::completed::CODE => code = u32::try_from(field.uint()?).unwrap_or(u32::MAX),
                n::completed::MESSAGE => message = utf8(field.bytes()?)?,
                _ => {}
            }
        }
        let Some(open) = self.open.remove(&operation) else { return Ok(()) };
        if code == 0 {
            return self.answered(open, response);
        }
        let known = self.definite.get(&(code, Box::from(message))).copied();
        let is_definite = known.unwrap_or_else(|| {
            let said = definite(code, message);
            self.definite.insert((code, message.into()), said);
            said
        });
        if is_definite { self.refused(&open) } else { Ok(()) }
    }

    /// Remembers what a refused request would have put.
    fn refused(&mut self, open: &Open) -> Result<(), Malformed> {
        let mut puts = Vec::new();
        match open.method {
            Method::Put => puts.push(PutRequest::decode(&open.request)?),
            Method::Txn => collect_puts(&TxnRequest::decode(&open.request)?, &mut puts),
            _ => {}
        }
        for put in puts {
            let name = self.name_of(put.key, put.value);
            if self.refused.insert(name, ()).is_none() {
                self.refused_order.push_back(name);
            }
        }
        while self.refused_order.len() > REFUSED_MAX {
            if let Some(oldest) = self.refused_order.pop_front() {
                self.refused.remove(&oldest);
            }
        }
        Ok(())
    }

    fn name_of(&self, key: &[u8], value: &[u8]) -> u64 {
        use std::hash::BuildHasher;
        self.hasher.hash_one((key, value))
    }

    fn answered(&mut self, open: Open, response: &[u8]) -> Result<(), Malformed> {
        let revision = header_of(response)?.revision;
        let (writes, local, empty) = match open.method {
            Method::Put => (true, false, false),
            Method::DeleteRange => (DeleteRangeResponse::decode(response)?.deleted > 0, false, false),
            Method::Txn => {
                let request = TxnRequest::decode(&open.request)?;
                let empty = request.success.is_empty() && request.failure.is_empty();
                (wrote(&TxnResponse::decode(response)?), empty || all_serializable(&request), empty)
            }
            Method::Range => (false, RangeRequest::decode(&open.request)?.serializable, false),
            Method::LeaseGrant | Method::Other => (false, false, false),
        };
        if local {
            // Answered by the member alone: it proves that the revision existed. Without an operation nobody asked for that.
            if empty && revision * 2 + 1 < open.after {
                self.suspect("COMPARES-ONLY-STALE", revision);
            }
            self.reached = self.reached.max(revision * 2);
            return Ok(());
        }
        let place = if writes { revision * 2 } else { revision * 2 + 1 };
        // A write after something that was at its revision is too late; a reader sees its revision with others.
        if place < open.after {
            self.suspect("KV-REAL-TIME", revision);
        }
        self.reached = self.reached.max(place);
        if self.contents != Contents::Followed || open.method == Method::LeaseGrant {
            return Ok(());
        }
        let answer = Answered { method: open.method, request: open.request, response: response.into() };
        if writes {
            if revision <= self.settled || self.writes.contains_key(&revision) {
                self.suspect("KV-REVISION-REUSED", revision);
            } else {
                self.writes.insert(revision, answer);
                self.waiting += 1;
            }
        } else if revision == self.settled {
            self.judge_reader(&answer, revision)?;
        } else if revision > self.settled {
            self.readers.entry(revision).or_default().push(answer);
            self.waiting += 1;
        }
        if self.waiting > WINDOW_MAX {
            self.lose();
        }
        Ok(())
    }

    // ---- watches ----

    fn sent(&mut self, data: &[u8]) -> Result<(), Malformed> {
        let (mut stream, mut method, mut request) = (0, None, &data[..0]);
        let mut fields = Fields::new(data);
        while let Some((number, field)) = fields.step()? {
            match number {
                n::stream_sent::STREAM => stream = field.uint()?,
                n::stream_sent::METHOD => method = Some(utf8(field.bytes()?)?),
                n::stream_sent::REQUEST => request = field.bytes()?,
                _ => {}
            }
        }
        if method == Some(WATCH) {
            self.streams.entry(stream).or_default();
        }
        if let Some(watches) = self.streams.get_mut(&stream) {
            watches.sent(&WatchRequest::decode(request)?);
        }
        Ok(())
    }

    fn ended(&mut self, data: &[u8]) -> Result<(), Malformed> {
        let mut fields = Fields::new(data);
        while let Some((number, field)) = fields.step()? {
            if number == n::stream_ended::STREAM {
                self.streams.remove(&field.uint()?);
            }
        }
        Ok(())
    }

    fn received(&mut self, data: &[u8]) -> Result<(), Malformed> {
        let (mut stream, mut response) = (0, &data[..0]);
        let mut fields = Fields::new(data);
        while let Some((number, field)) = fields.step()? {
            match number {
                n::stream_received::STREAM => stream = field.uint()?,
                n::stream_received::RESPONSE => response = field.bytes()?,
                _ => {}
            }
        }
        let Some(mut watches) = self.streams.remove(&stream) else { return Ok(()) };
        let done = self.message(&mut watches, &WatchResponse::decode(response)?);
        self.streams.insert(stream, watches);
        done
    }

    fn message(&mut self, watches: &mut Watches, message: &WatchResponse<'_>) -> Result<(), Malformed> {
        let mut groups: Vec<(i64, Vec<Change>)> = Vec::new();
        for encoded in message.events() {
            let event = Event::decode(encoded?)?;
            let revision = event.kv.mod_revision;
            match groups.last_mut() {
                Some((last, changes)) if *last == revision => changes.push(Change::of(&event)),
                _ => groups.push((revision, vec![Change::of(&event)])),
            }
            if event.kind != DELETE && self.refused.contains_key(&self.name_of(event.kv.key, event.kv.value)) {
                self.suspect("REFUSED-BUT-APPLIED", revision);
            }
        }
        let ends = groups.iter().map(|(revision, _)| *revision).fold(None, |ends, revision| {
            let (low, high) = ends.unwrap_or((revision, revision));
            Some((revision.min(low), revision.max(high)))
        });
        let told = watches.received(message, ends);
        if let Some((code, revision)) = told.suspicion {
            self.suspect(code, revision);
        }
        if let Some((_, high)) = ends {
            self.reached = self.reached.max(high * 2);
        }
        if !told.whole {
            return Ok(());
        }
        let mut last = None;
        for (revision, mut changes) in groups {
            if last.is_some_and(|last| revision != last + 1) {
                self.suspect("WATCH-RELIABLE", revision);
            }
            last = Some(revision);
            changes.sort_by(|a, b| a.key.cmp(&b.key));
            self.whole(revision, changes);
        }
        if self.told.len() > WINDOW_MAX {
            self.lose();
        }
        Ok(())
    }

    /// All events of a revision: the first telling is kept, every further one is compared with it.
    fn whole(&mut self, revision: i64, changes: Vec<Change>) {
        if self.contents != Contents::Followed {
            return;
        }
        if revision > self.settled {
            match self.told.get(&revision) {
                None => {
                    self.told.insert(revision, changes);
                }
                Some(first) if *first != changes => self.suspect("MEMBER-DIVERGED", revision),
                Some(_) => {}
            }
        } else if revision >= self.past_from {
            let known = usize::try_from(revision - self.past_from).ok().and_then(|index| self.past.get(index)).copied();
            if known.is_some_and(|known| known != self.digest(&changes)) {
                self.suspect("MEMBER-DIVERGED", revision);
            }
        }
    }

    fn digest(&self, changes: &[Change]) -> u64 {
        use std::hash::{BuildHasher, Hash, Hasher};
        let mut state = self.hasher.build_hasher();
        for change in changes {
            change.key.hash(&mut state);
            if let Some(now) = &change.now {
                (now.mod_revision, now.create_revision, now.version, now.lease, &now.value).hash(&mut state);
            }
        }
        state.finish()
    }

    // ---- settling ----

    /// Goes on to the next revision while its events are known and nothing in flight can still be answered from before it.
    fn settle(&mut self) -> Result<(), Malformed> {
        while self.contents == Contents::Followed {
            let next = self.settled + 1;
            if self.open.first_key_value().is_some_and(|(_, open)| open.after < next * 2) {
                return Ok(());
            }
            let Some(changes) = self.told.remove(&next) else { return Ok(()) };
            if let Some(write) = self.writes.remove(&next) {
                self.waiting -= 1;
                if !self.confirms(&write, &changes, next)? {
                    self.suspect("KV-CONTENT", next);
                }
            }
            self.past.push_back(self.digest(&changes));
            let oldest = self.streams.values().filter_map(Watches::slowest).min().unwrap_or(next);
            while self.past.len() > TOLD_MAX || (self.past_from < oldest && !self.past.is_empty()) {
                self.past.pop_front();
                self.past_from += 1;
            }
            let mut follows = true;
            for change in changes {
                follows &= self.store.apply(change);
            }
            if !follows {
                self.suspect("KV-CONTENT", next);
            }
            self.settled = next;
            for reader in self.readers.remove(&next).unwrap_or_default() {
                self.waiting -= 1;
                self.judge_reader(&reader, next)?;
            }
        }
        Ok(())
    }

    /// Whether an acknowledged write can have made `changes` out of the store before it.
    fn confirms(&self, write: &Answered, changes: &[Change], revision: i64) -> Result<bool, Malformed> {
        match write.method {
            Method::Put => {
                let (put, answer) = (PutRequest::decode(&write.request)?, PutResponse::decode(&write.response)?);
                let [Change { key, now: Some(now) }] = changes else { return Ok(false) };
                let told = answer.prev_kv.is_none_or(|kv| self.store.get(put.key).is_some_and(|held| held.is(&kv, false)));
                Ok(told && **key == *put.key && (put.ignore_value || *now.value == *put.value) && now.mod_revision == revision)
            }
            Method::DeleteRange => {
                let (request, answer) = (DeleteRangeRequest::decode(&write.request)?, DeleteRangeResponse::decode(&write.response)?);
                Ok(i64::try_from(changes.len()) == Ok(answer.deleted)
                    && changes.iter().all(|change| change.now.is_none())
                    && self.store.range(request.key, request.range_end).map(|(key, _)| key).eq(changes.iter().map(|change| &*change.key)))
            }
            Method::Txn => {
                let (request, answer) = (TxnRequest::decode(&write.request)?, TxnResponse::decode(&write.response)?);
                let mut puts = Vec::new();
                collect_puts(&request, &mut puts);
                let asked = changes.iter().all(|change| {
                    change
                        .now
                        .as_ref()
                        .is_none_or(|now| puts.iter().any(|p| *p.key == *change.key && (p.ignore_value || *p.value == *now.value)))
                });
                Ok(asked && self.reads(&request, &answer)?)
            }
            Method::Range | Method::LeaseGrant | Method::Other => Ok(true),
        }
    }

    fn judge_reader(&mut self, reader: &Answered, revision: i64) -> Result<(), Malformed> {
        let right = match reader.method {
            Method::Range => {
                let (request, answer) = (RangeRequest::decode(&reader.request)?, RangeResponse::decode(&reader.response)?);
                // Of the past only the whole checker knows.
                (request.revision > 0 && request.revision != revision) || self.range(&request, &answer)?
            }
            Method::Txn => self.reads(&TxnRequest::decode(&reader.request)?, &TxnResponse::decode(&reader.response)?)?,
            _ => true,
        };
        if !right {
            self.suspect("KV-CONTENT", revision);
        }
        Ok(())
    }

    fn range(&self, request: &RangeRequest<'_>, answer: &RangeResponse<'_>) -> Result<bool, Malformed> {
        let kvs: Vec<Kv<'_>> = answer.kvs().collect::<Result<_, _>>()?;
        Ok(self.store.answers(request, kvs.into_iter(), answer.count, answer.more).unwrap_or(true))
    }

    /// The ranges of a transaction before it changes anything.
    fn reads(&self, request: &TxnRequest<'_>, answer: &TxnResponse<'_>) -> Result<bool, Malformed> {
        let taken = if answer.succeeded { &request.success } else { &request.failure };
        for pair in taken.iter().zip(&answer.responses) {
            match pair {
                (Request::Range(range), Response::Range(shown)) if range.revision == 0 => {
                    if !self.range(range, shown)? {
                        return Ok(false);
                    }
                }
                (Request::Range(_), Response::Range(_)) => {}
                _ => break,
            }
        }
        Ok(true)
    }
}

fn method_of(name: &str) -> Method {
    match name {
        PUT => Method::Put,
        RANGE => Method::Range,
        DELETE_RANGE => Method::DeleteRange,
        TXN => Method::Txn,
        LEASE_GRANT => Method::LeaseGrant,
        _ => Method::Other,
    }
}

fn wrote(answer: &TxnResponse<'_>) -> bool {
    answer.responses.iter().any(|response| match response {
        Response::Put(_) => true,
        Response::DeleteRange(inner) => inner.deleted > 0,
        Response::Txn(inner) => wrote(inner),
        Response::Range(_) => false,
    })
}

fn all_serializable(request: &TxnRequest<'_>) -> bool {
    request.success.iter().chain(&request.failure).all(|operation| matches!(operation, Request::Range(range) if range.serializable))
}

fn collect_puts<'a>(request: &TxnRequest<'a>, puts: &mut Vec<PutRequest<'a>>) {
    for operation in request.success.iter().chain(&request.failure) {
        match operation {
            Request::Put(put) => puts.push(*put),
            Request::Txn(inner) => collect_puts(inner, puts),
            Request::Range(_) | Request::DeleteRange(_) => {}
        }
    }
}
