//! From records to columns: pairs requests with their outcomes, gathers streams.
//!
//! The rules are those of `src/pekan/history/reading.py`, one function here for one there. What that refuses is declined here.

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use pekan_wire::numbers as n;
use pekan_wire::{Field, Fields, Malformed, utf8};

use crate::columns::{Columns, Glance, Kind, NEVER, NO_ERROR, Op, Outcome, Stream, StreamMessage};
use crate::frames::{Frame, Frames};
use crate::valid;

/// The core does not load this file: the reader in Python has the last word on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Declined {
    /// Byte of the file.
    pub at: usize,
    /// What is there.
    pub reason: &'static str,
}

impl Declined {
    /// Declines because of `reason`, seen at byte `at`.
    #[cold]
    pub fn new(at: usize, reason: &'static str) -> Declined {
        Declined { at, reason }
    }
}

impl From<Malformed> for Declined {
    #[cold]
    fn from(malformed: Malformed) -> Declined {
        Declined { at: 0, reason: malformed.expected }
    }
}

impl std::fmt::Display for Declined {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (byte {} of the record)", self.reason, self.at)
    }
}

/// gRPC paths of what the core reads; see `src/pekan/wire/messages.py` for all.
const KINDS: [(&str, Kind); 7] = [
    ("/etcdserverpb.KV/Range", Kind::Range),
    ("/etcdserverpb.KV/Put", Kind::Put),
    ("/etcdserverpb.KV/DeleteRange", Kind::DeleteRange),
    ("/etcdserverpb.KV/Txn", Kind::Txn),
    ("/etcdserverpb.KV/Compact", Kind::Compaction),
    ("/etcdserverpb.Lease/LeaseGrant", Kind::LeaseGrant),
    ("/etcdserverpb.Lease/LeaseRevoke", Kind::LeaseRevoke),
];
/// gRPC path of Watch streams: what comes on others is few, and judged in Python.
pub const WATCH: &str = "/etcdserverpb.Watch/Watch";
const AUTHENTICATE: &str = "/etcdserverpb.Auth/Authenticate";
/// The gRPC metadata key of etcd's auth token (etcd api/v3rpc/rpctypes/metadatafields.go).
const TOKEN: &[u8] = b"token";
/// `Operation.user` where a token was sent that no recorded Authenticate had returned.
const UNKNOWN_USER: &str = "?";

/// The columns of the record file `data`.
///
/// `definite` is asked once for each distinct (code, message) of an error whether it promises that nothing happened; None stops the loading.
pub fn load<'a>(data: &'a [u8], definite: &mut dyn FnMut(u32, &str) -> Option<bool>) -> Result<Columns<'a>, Declined> {
    let mut loading = Loading::new(data.len(), definite)?;
    let mut frames = Frames::new(data);
    while let Some(frame) = frames.step()? {
        loading.add(&frame).map_err(|declined| Declined { at: frame.offset, ..declined })?;
    }
    loading.columns.cut = frames.cut;
    loading.finish()
}

/// Bytes of a record file for each operation of ordinary traffic, at least: one allocation then holds all operations. What is not touched of
/// it costs nothing.
const BYTES_PER_OPERATION: usize = 300;

struct Loading<'a, 'f> {
    columns: Columns<'a>,
    definite: &'f mut dyn FnMut(u32, &str) -> Option<bool>,
    /// By index in `columns.errors`.
    is_definite: Vec<bool>,
    time: u64,
    last_operation: u64,
    /// Operation -> its index, while it is open.
    open: HashMap<u64, u32, FixedState>,
    /// Process -> its open operation.
    busy: HashMap<u64, u64, FixedState>,
    streams: HashMap<u64, u32, FixedState>,
    names: HashMap<&'a [u8], u16, FixedState>,
    errors: HashMap<(u32, &'a [u8]), u32, FixedState>,
    /// By index in `columns.names`.
    kinds: Vec<Kind>,
    watch: u16,
    authenticate: u16,
    unknown_user: u16,
    tokens: HashMap<&'a [u8], u16, FixedState>,
    /// Operations and streams with a token that was not seen issued before.
    nameless: Vec<(u32, &'a [u8])>,
    nameless_streams: Vec<(u32, &'a [u8])>,
}

impl<'a, 'f> Loading<'a, 'f> {
    fn new(size: usize, definite: &'f mut dyn FnMut(u32, &str) -> Option<bool>) -> Result<Self, Declined> {
        let mut loading = Loading {
            columns: Columns { ops: Vec::with_capacity(size / BYTES_PER_OPERATION), ..Columns::default() },
            definite,
            is_definite: Vec::new(),
            time: 0,
            last_operation: 0,
            open: HashMap::default(),
            busy: HashMap::default(),
            streams: HashMap::default(),
            names: HashMap::default(),
            errors: HashMap::default(),
            kinds: Vec::new(),
            watch: 0,
            authenticate: 0,
            unknown_user: 0,
            tokens: HashMap::default(),
            nameless: Vec::new(),
            nameless_streams: Vec::new(),
        };
        loading.name(b"")?;
        for (method, kind) in KINDS {
            let index = loading.name(method.as_bytes())?;
            loading.kinds[usize::from(index)] = kind;
        }
        loading.watch = loading.name(WATCH.as_bytes())?;
        loading.authenticate = loading.name(AUTHENTICATE.as_bytes())?;
        loading.unknown_user = loading.name(UNKNOWN_USER.as_bytes())?;
        Ok(loading)
    }

    fn add(&mut self, frame: &Frame<'a>) -> Result<(), Declined> {
        if frame.time < self.time {
            return Err(Declined::new(0, "time runs backwards"));
        }
        self.time = frame.time;
        let Some(time) = i64::try_from(frame.time).ok().filter(|&time| time < NEVER) else {
            return Err(Declined::new(0, "a time beyond the year 2262"));
        };
        match u32::try_from(frame.field).unwrap_or(0) {
            n::record::INVOKED => self.invoked(frame, time),
            n::record::COMPLETED => self.completed(frame, time),
            n::record::STREAM_SENT => self.stream_sent(frame, time),
            n::record::STREAM_RECEIVED => self.stream_received(frame, time),
            n::record::STREAM_ENDED => self.stream_ended(frame, time),
            n::record::FAULT_ARMED | n::record::FAULT_FIRED | n::record::FAULT_HEALED | n::record::MARK => {
                // Python reads it, and declines it where it is not what it should be.
                let length = u32::try_from(frame.end - frame.start).map_err(|_| Declined::new(0, "a record of 4 GiB"))?;
                self.columns.rest.push((frame.start as u64, length));
                Ok(())
            }
            _ => Err(Declined::new(0, "a kind of record that this release does not know")),
        }
    }

    fn invoked(&mut self, frame: &Frame<'a>, time: i64) -> Result<(), Declined> {
        use n::invoked as f;
        let (mut id, mut process) = (0, 0);
        let (mut client, mut member, mut method) = (0, 0, 0);
        let mut request: &'a [u8] = &[];
        let mut token = None;
        let mut fields = Fields::new(frame.body);
        while let Some((number, field)) = fields.step()? {
            match number {
                f::OPERATION => id = field.uint()?,
                f::PROCESS => process = field.uint()?,
                f::CLIENT => client = self.name(field.bytes()?)?,
                f::MEMBER => member = self.name(field.bytes()?)?,
                f::METHOD => method = self.name(field.bytes()?)?,
                f::REQUEST => request = field.bytes()?,
                f::METADATA => metadata(field, &mut token)?,
                _ => {}
            }
        }
        if id <= self.last_operation {
            return Err(Declined::new(0, "numbers of operations must ascend"));
        }
        self.last_operation = id;
        let index = index(self.columns.ops.len())?;
        match self.busy.entry(process) {
            Entry::Occupied(_) => return Err(Declined::new(0, "a process invokes an operation while another one is open")),
            Entry::Vacant(free) => free.insert(id),
        };
        let kind = self.kinds[usize::from(method)];
        let shape = valid::request(kind, request)?;
        let (user, unresolved) = self.user(token);
        if let Some(token) = unresolved {
            self.nameless.push((index, token));
        }
        self.open.insert(id, index);
        self.columns.ops.push(Op {
            id,
            process,
            call: time,
            ret: NEVER,
            gave_up: NEVER,
            request,
            response: &[],
            error: NO_ERROR,
            client,
            member,
            user,
            method,
            kind,
            outcome: Outcome::Indefinite,
            shape,
            revision: 0,
            invoked_at: frame.offset as u64,
            completed_at: u64::MAX,
        });
        Ok(())
    }

    fn completed(&mut self, frame: &Frame<'a>, time: i64) -> Result<(), Declined> {
        use n::completed as f;
        let (mut id, mut code) = (0, 0);
        let (mut response, mut message): (&'a [u8], &'a [u8]) = (&[], &[]);
        let mut fields = Fields::new(frame.body);
        while let Some((number, field)) = fields.step()? {
            match number {
                f::OPERATION => id = field.uint()?,
                f::RESPONSE => response = field.bytes()?,
                f::CODE => code = uint32(field)?,
                f::MESSAGE => {
                    message = field.bytes()?;
                    utf8(message)?;
                }
                _ => {}
            }
        }
        let Some(index) = self.open.remove(&id) else {
            return Err(Declined::new(0, "an operation completes twice, or without having been invoked"));
        };
        let error = if code == 0 { NO_ERROR } else { self.error(code, message)? };
        let op = &mut self.columns.ops[index as usize];
        self.busy.remove(&op.process);
        op.completed_at = frame.offset as u64;
        op.error = error;
        if code == 0 {
            op.revision = valid::response(op.kind, response, &mut op.shape)?;
            op.ret = time;
            op.outcome = Outcome::Ok;
            op.response = response;
            if op.method == self.authenticate {
                let name = text_field(op.request, n::authenticate_request::NAME)?;
                let token = text_field(response, n::authenticate_response::TOKEN)?;
                let user = self.name(name)?;
                self.tokens.insert(token, user);
            }
        } else if self.is_definite[error as usize] || valid::is_read(op.kind, op.shape) {
            op.ret = time;
            op.outcome = Outcome::Failed;
        } else {
            op.gave_up = time;
        }
        Ok(())
    }

    fn stream_sent(&mut self, frame: &Frame<'a>, time: i64) -> Result<(), Declined> {
        use n::stream_sent as f;
        let mut id = 0;
        let (mut client, mut member, mut method) = (0, 0, 0);
        let mut data: &'a [u8] = &[];
        let mut token = None;
        let mut fields = Fields::new(frame.body);
        while let Some((number, field)) = fields.step()? {
            match number {
                f::STREAM => id = field.uint()?,
                f::REQUEST => data = field.bytes()?,
                f::METHOD => method = self.name(field.bytes()?)?,
                f::CLIENT => client = self.name(field.bytes()?)?,
                f::MEMBER => member = self.name(field.bytes()?)?,
                f::METADATA => metadata(field, &mut token)?,
                _ => {}
            }
        }
        let at = match self.streams.get(&id) {
            Some(&at) => at as usize,
            None => {
                if method == 0 {
                    return Err(Declined::new(0, "a stream begins without naming its method"));
                }
                let at = self.columns.streams.len();
                let (user, unresolved) = self.user(token);
                let short = index(at)?;
                if let Some(token) = unresolved {
                    self.nameless_streams.push((short, token));
                }
                self.streams.insert(id, short);
                let messages = Vec::new();
                let stream = Stream { id, method, client, member, user, messages, ended: NEVER, code: 0, reason: "", by_client: false };
                self.columns.streams.push(stream);
                at
            }
        };
        let stream = &mut self.columns.streams[at];
        if stream.ended != NEVER {
            return Err(Declined::new(0, "a stream sends after its end"));
        }
        if stream.method == self.watch {
            valid::watch_request(data)?;
        }
        stream.messages.push(StreamMessage { time, sent: true, glance: Glance::default(), data });
        Ok(())
    }

    fn stream_received(&mut self, frame: &Frame<'a>, time: i64) -> Result<(), Declined> {
        use n::stream_received as f;
        let mut id = 0;
        let mut data: &'a [u8] = &[];
        let mut fields = Fields::new(frame.body);
        while let Some((number, field)) = fields.step()? {
            match number {
                f::STREAM => id = field.uint()?,
                f::RESPONSE => data = field.bytes()?,
                _ => {}
            }
        }
        let watch = self.watch;
        let stream = self.open_stream(id)?;
        let glance = if stream.method == watch { valid::watch_response(data)? } else { Glance::default() };
        stream.messages.push(StreamMessage { time, sent: false, glance, data });
        Ok(())
    }

    fn stream_ended(&mut self, frame: &Frame<'a>, time: i64) -> Result<(), Declined> {
        use n::stream_ended as f;
        let (mut id, mut code, mut reason, mut by_client) = (0, 0, "", false);
        let mut fields = Fields::new(frame.body);
        while let Some((number, field)) = fields.step()? {
            match number {
                f::STREAM => id = field.uint()?,
                f::CODE => code = uint32(field)?,
                f::MESSAGE => reason = utf8(field.bytes()?)?,
                f::BY_CLIENT => by_client = field.truth()?,
                _ => {}
            }
        }
        let stream = self.open_stream(id)?;
        (stream.ended, stream.code, stream.reason, stream.by_client) = (time, code, reason, by_client);
        Ok(())
    }

    fn open_stream(&mut self, id: u64) -> Result<&mut Stream<'a>, Declined> {
        let Some(&at) = self.streams.get(&id) else {
            return Err(Declined::new(0, "a stream receives or ends before anything was sent on it"));
        };
        let stream = &mut self.columns.streams[at as usize];
        if stream.ended == NEVER { Ok(stream) } else { Err(Declined::new(0, "a stream receives or ends after its end")) }
    }

    /// The index of a name; each is kept, and found to be text, once.
    #[inline]
    fn name(&mut self, bytes: &'a [u8]) -> Result<u16, Declined> {
        if let Some(&known) = self.names.get(bytes) {
            return Ok(known);
        }
        let text = utf8(bytes)?;
        let index = u16::try_from(self.columns.names.len()).map_err(|_| Declined::new(0, "more than 65,536 names"))?;
        self.columns.names.push(text);
        self.kinds.push(Kind::Other);
        self.names.insert(bytes, index);
        Ok(index)
    }

    fn error(&mut self, code: u32, message: &'a [u8]) -> Result<u32, Declined> {
        if let Some(&known) = self.errors.get(&(code, message)) {
            return Ok(known);
        }
        let text = utf8(message)?;
        let Some(definite) = (self.definite)(code, text) else {
            return Err(Declined::new(0, "an error of which nothing is known"));
        };
        let index = index(self.columns.errors.len())?;
        self.columns.errors.push((code, text));
        self.is_definite.push(definite);
        self.errors.insert((code, message), index);
        Ok(index)
    }

    /// (user, token still to be resolved): no name and no token where none was sent.
    #[inline]
    fn user(&self, token: Option<&'a [u8]>) -> (u16, Option<&'a [u8]>) {
        match token {
            None => (0, None),
            Some(token) => match self.tokens.get(token) {
                Some(&user) => (user, None),
                None => (self.unknown_user, Some(token)),
            },
        }
    }

    /// What is still open has no outcome: it may take effect at any later time. Tokens issued after their first use get their user.
    fn finish(mut self) -> Result<Columns<'a>, Declined> {
        for (index, token) in self.nameless {
            // An empty token is no token that could be issued later.
            if let Some(&user) = self.tokens.get(token).filter(|_| !token.is_empty()) {
                self.columns.ops[index as usize].user = user;
            }
        }
        for (index, token) in self.nameless_streams {
            if let Some(&user) = self.tokens.get(token).filter(|_| !token.is_empty()) {
                self.columns.streams[index as usize].user = user;
            }
        }
        Ok(self.columns)
    }
}

fn index(length: usize) -> Result<u32, Declined> {
    // The last number marks what has none (NO_ERROR).
    u32::try_from(length).ok().filter(|&index| index != u32::MAX).ok_or(Declined::new(0, "more than 4,294,967,294 operations"))
}

/// A uint32 field: protobuf keeps the low 32 bits.
fn uint32(field: Field<'_>) -> Result<u32, Malformed> {
    #[allow(clippy::cast_possible_truncation)]
    field.uint().map(|value| value as u32)
}

/// Takes one entry of a call's metadata; the first token counts.
fn metadata<'a>(field: Field<'a>, token: &mut Option<&'a [u8]>) -> Result<(), Malformed> {
    let (mut key, mut value): (&[u8], &[u8]) = (&[], &[]);
    let mut fields = Fields::new(field.bytes()?);
    while let Some((number, field)) = fields.step()? {
        match number {
            n::metadata::KEY => key = field.bytes()?,
            n::metadata::VALUE => value = field.bytes()?,
            _ => continue,
        }
        utf8(field.bytes()?)?;
    }
    if key == TOKEN && token.is_none() {
        *token = Some(value);
    }
    Ok(())
}

/// The text field `wanted` of a message, empty where it is not there.
fn text_field(data: &[u8], wanted: u32) -> Result<&[u8], Malformed> {
    let mut found: &[u8] = &[];
    let mut fields = Fields::new(data);
    while let Some((number, field)) = fields.step()? {
        if number == wanted {
            found = field.bytes()?;
            utf8(found)?;
        }
    }
    Ok(found)
}
