//! Messages in the form in which etcd and its clients write them, at a glance: one pass, fields in the order of their numbers, each at most
//! once.
//!
//! Everything here gives None for any other form, and for anything malformed: the general way (`WatchResponse`, `Event`) has the last word.
//! What it gives is what the general way would give; there is a test that says so of every cut and every flipped bit.

use crate::cursor::varint;
use crate::messages::{Enum, Header, Kv, PutRequest, RangeRequest};
use crate::numbers as n;

const VARINT: u8 = 0;
const BYTES: u8 = 2;

/// The first byte of a field; all of these have numbers below 16.
const fn tag(number: u32, kind: u8) -> u8 {
    #[allow(clippy::cast_possible_truncation)]
    let number = number as u8;
    number << 3 | kind
}

struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    /// Whether the next field is this one; it is then behind its tag.
    #[inline(always)]
    fn is(&mut self, tag: u8) -> bool {
        match self.0 {
            [first, rest @ ..] if *first == tag => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }

    #[inline(always)]
    fn varint(&mut self) -> Option<u64> {
        match self.0 {
            [first, rest @ ..] if *first < 0x80 => {
                self.0 = rest;
                Some(u64::from(*first))
            }
            long => {
                let (value, length) = varint(long)?;
                self.0 = &long[length..];
                Some(value)
            }
        }
    }

    #[inline(always)]
    fn int(&mut self) -> Option<i64> {
        self.varint().map(u64::cast_signed)
    }

    #[inline(always)]
    fn truth(&mut self) -> Option<bool> {
        self.varint().map(|value| value != 0)
    }

    #[inline(always)]
    fn enumeration(&mut self) -> Option<Enum> {
        Enum::try_from(self.varint()?).ok()
    }

    /// `value` where all has been read.
    #[inline(always)]
    fn end<T>(&self, value: T) -> Option<T> {
        self.0.is_empty().then_some(value)
    }

    #[inline(always)]
    fn bytes(&mut self) -> Option<&'a [u8]> {
        let (length, taken) = match self.0 {
            [first, ..] if *first < 0x80 => (u64::from(*first), 1),
            long => varint(long)?,
        };
        // As the general way has it: at most 31 bits in at most five bytes.
        if taken > 5 || length >> 31 != 0 {
            return None;
        }
        let (bytes, rest) = self.0[taken..].split_at_checked(usize::try_from(length).ok()?)?;
        self.0 = rest;
        Some(bytes)
    }
}

/// A `KeyValue`.
#[inline]
pub fn kv(data: &[u8]) -> Option<Kv<'_>> {
    use n::key_value as f;
    let mut rest = Rest(data);
    let mut kv = Kv::default();
    if rest.is(tag(f::KEY, BYTES)) {
        kv.key = rest.bytes()?;
    }
    if rest.is(tag(f::CREATE_REVISION, VARINT)) {
        kv.create_revision = rest.int()?;
    }
    if rest.is(tag(f::MOD_REVISION, VARINT)) {
        kv.mod_revision = rest.int()?;
    }
    if rest.is(tag(f::VERSION, VARINT)) {
        kv.version = rest.int()?;
    }
    if rest.is(tag(f::VALUE, BYTES)) {
        kv.value = rest.bytes()?;
    }
    if rest.is(tag(f::LEASE, VARINT)) {
        kv.lease = rest.int()?;
    }
    rest.end(kv)
}

/// A `ResponseHeader`.
#[inline]
pub fn header(data: &[u8]) -> Option<Header> {
    use n::response_header as f;
    let mut rest = Rest(data);
    let mut header = Header::default();
    if rest.is(tag(f::CLUSTER_ID, VARINT)) {
        header.cluster_id = rest.varint()?;
    }
    if rest.is(tag(f::MEMBER_ID, VARINT)) {
        header.member_id = rest.varint()?;
    }
    if rest.is(tag(f::REVISION, VARINT)) {
        header.revision = rest.int()?;
    }
    if rest.is(tag(f::RAFT_TERM, VARINT)) {
        header.raft_term = rest.varint()?;
    }
    rest.end(header)
}

/// A `PutRequest`.
#[inline]
pub fn put_request(data: &[u8]) -> Option<PutRequest<'_>> {
    use n::put_request as f;
    let mut rest = Rest(data);
    let mut r = PutRequest::default();
    if rest.is(tag(f::KEY, BYTES)) {
        r.key = rest.bytes()?;
    }
    if rest.is(tag(f::VALUE, BYTES)) {
        r.value = rest.bytes()?;
    }
    if rest.0.is_empty() {
        return Some(r);
    }
    if rest.is(tag(f::LEASE, VARINT)) {
        r.lease = rest.int()?;
    }
    if rest.is(tag(f::PREV_KV, VARINT)) {
        r.prev_kv = rest.truth()?;
    }
    if rest.is(tag(f::IGNORE_VALUE, VARINT)) {
        r.ignore_value = rest.truth()?;
    }
    if rest.is(tag(f::IGNORE_LEASE, VARINT)) {
        r.ignore_lease = rest.truth()?;
    }
    rest.end(r)
}

/// A `RangeRequest`, of which filters are not seen at a glance.
#[inline]
pub fn range_request(data: &[u8]) -> Option<RangeRequest<'_>> {
    use n::range_request as f;
    let mut rest = Rest(data);
    let mut r = RangeRequest::default();
    if rest.is(tag(f::KEY, BYTES)) {
        r.key = rest.bytes()?;
    }
    if rest.is(tag(f::RANGE_END, BYTES)) {
        r.range_end = rest.bytes()?;
    }
    if rest.0.is_empty() {
        return Some(r);
    }
    if rest.is(tag(f::LIMIT, VARINT)) {
        r.limit = rest.int()?;
    }
    if rest.is(tag(f::REVISION, VARINT)) {
        r.revision = rest.int()?;
    }
    if rest.is(tag(f::SORT_ORDER, VARINT)) {
        r.sort_order = rest.enumeration()?;
    }
    if rest.is(tag(f::SORT_TARGET, VARINT)) {
        r.sort_target = rest.enumeration()?;
    }
    if rest.is(tag(f::SERIALIZABLE, VARINT)) {
        r.serializable = rest.truth()?;
    }
    if rest.is(tag(f::KEYS_ONLY, VARINT)) {
        r.keys_only = rest.truth()?;
    }
    if rest.is(tag(f::COUNT_ONLY, VARINT)) {
        r.count_only = rest.truth()?;
    }
    rest.end(r)
}

/// The type of an event and the encodings of its key-values, each empty where it is not there; whether those are well formed is not seen.
#[inline]
pub fn event_parts(data: &[u8]) -> Option<(Enum, &[u8], &[u8])> {
    use n::event as f;
    let mut rest = Rest(data);
    let (mut kind, mut kv, mut prev_kv) = (0, &data[..0], &data[..0]);
    if rest.is(tag(f::TYPE, VARINT)) {
        kind = rest.enumeration()?;
    }
    if rest.is(tag(f::KV, BYTES)) {
        kv = rest.bytes()?;
    }
    if rest.is(tag(f::PREV_KV, BYTES)) {
        prev_kv = rest.bytes()?;
    }
    rest.end((kind, kv, prev_kv))
}

/// The parts of an event that order it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventHead<'a> {
    /// `kv.mod_revision`
    pub revision: i64,
    /// `kv.key`
    pub key: &'a [u8],
    /// `type`
    pub kind: Enum,
}

/// The head of an encoded event, all of which is well formed.
#[inline]
pub fn event_head(data: &[u8]) -> Option<EventHead<'_>> {
    use n::event as f;
    let mut rest = Rest(data);
    let mut kind = 0;
    if rest.is(tag(f::TYPE, VARINT)) {
        kind = Enum::try_from(rest.varint()?).ok()?;
    }
    if !rest.is(tag(f::KV, BYTES)) {
        return None;
    }
    let (key, revision) = key_value(rest.bytes()?)?;
    if rest.is(tag(f::PREV_KV, BYTES)) {
        key_value(rest.bytes()?)?;
    }
    rest.0.is_empty().then_some(EventHead { revision, key, kind })
}

/// Key and revision of an encoded key-value.
#[inline(always)]
fn key_value(data: &[u8]) -> Option<(&[u8], i64)> {
    use n::key_value as f;
    let mut rest = Rest(data);
    let key = if rest.is(tag(f::KEY, BYTES)) { rest.bytes()? } else { &data[..0] };
    if rest.is(tag(f::CREATE_REVISION, VARINT)) {
        rest.varint()?;
    }
    let revision = if rest.is(tag(f::MOD_REVISION, VARINT)) { rest.int()? } else { 0 };
    if rest.is(tag(f::VERSION, VARINT)) {
        rest.varint()?;
    }
    if rest.is(tag(f::VALUE, BYTES)) {
        rest.bytes()?;
    }
    if rest.is(tag(f::LEASE, VARINT)) {
        rest.varint()?;
    }
    rest.0.is_empty().then_some((key, revision))
}

/// The revision of an encoded `ResponseHeader`.
#[inline]
pub fn header_revision(data: &[u8]) -> Option<i64> {
    use n::response_header as f;
    let mut rest = Rest(data);
    if rest.is(tag(f::CLUSTER_ID, VARINT)) {
        rest.varint()?;
    }
    if rest.is(tag(f::MEMBER_ID, VARINT)) {
        rest.varint()?;
    }
    let revision = if rest.is(tag(f::REVISION, VARINT)) { rest.int()? } else { 0 };
    if rest.is(tag(f::RAFT_TERM, VARINT)) {
        rest.varint()?;
    }
    rest.0.is_empty().then_some(revision)
}

/// A message that delivers events or announces progress, and does nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchHead<'a> {
    /// `header.revision`
    pub header: i64,
    /// `watch_id`
    pub watch_id: i64,
    /// `fragment`
    pub fragment: bool,
    /// Its events and nothing more: to the end of the message.
    pub events: &'a [u8],
}

/// The head of an encoded `WatchResponse`; holds only where [`next_event`] then finds events and nothing else up to the end.
#[inline]
pub fn watch_head(data: &[u8]) -> Option<WatchHead<'_>> {
    use n::watch_response as f;
    let mut rest = Rest(data);
    if !rest.is(tag(f::HEADER, BYTES)) {
        return None;
    }
    let header = header_revision(rest.bytes()?)?;
    let watch_id = if rest.is(tag(f::WATCH_ID, VARINT)) { rest.int()? } else { 0 };
    let fragment = rest.is(tag(f::FRAGMENT, VARINT)) && rest.varint()? != 0;
    (rest.0.is_empty() || rest.0[0] == tag(f::EVENTS, BYTES)).then_some(WatchHead { header, watch_id, fragment, events: rest.0 })
}

/// The next of the encoded events that `events` begins with, and what follows it; None at the end, and where something else follows.
#[inline]
pub fn next_event(events: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut rest = Rest(events);
    if !rest.is(tag(n::watch_response::EVENTS, BYTES)) {
        return None;
    }
    let event = rest.bytes()?;
    Some((event, rest.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Event, WatchResponse};

    /// A watch message with two events, as etcd writes one.
    const MESSAGE: &[u8] = &[
        0x0a, 0x0a, 0x08, 0x07, 0x10, 0x81, 0x01, 0x18, 0x85, 0x02, 0x20, 0x02, // header, revision 261
        0x10, 0x03, 0x38, 0x01, // watch 3, a fragment
        0x5a, 0x17, 0x12, 0x0c, 0x0a, 0x01, b'a', 0x10, 0x02, 0x18, 0x85, 0x02, 0x20, 0x02, 0x30, 0x09, // put a
        0x1a, 0x07, 0x0a, 0x01, b'a', 0x10, 0x02, 0x18, 0x02, // over revision 2
        0x5a, 0x0a, 0x08, 0x01, 0x12, 0x06, 0x0a, 0x01, b'b', 0x18, 0x85, 0x02, // delete b
    ];

    fn agrees(data: &[u8]) -> bool {
        let Some(head) = watch_head(data) else { return false };
        let mut left = head.events;
        let mut seen = 0;
        while let Some((event, rest)) = next_event(left) {
            left = rest;
            seen += 1;
            if let Some(found) = event_head(event) {
                let whole = Event::decode(event).expect("what is seen at a glance is well formed");
                assert_eq!((found.revision, found.key, found.kind), (whole.kv.mod_revision, whole.kv.key, whole.kind));
            }
        }
        if left.is_empty() {
            let m = WatchResponse::decode(data).expect("what is seen at a glance is well formed");
            assert_eq!((head.header, head.watch_id, head.fragment), (m.header.revision, m.watch_id, m.fragment));
            assert_eq!((m.created, m.canceled, m.len()), (false, false, seen));
        }
        left.is_empty()
    }

    /// What is seen at a glance of key-values, headers and requests is what the general way decodes, for each cut and each changed byte.
    #[test]
    fn values_agree_with_the_general_way() {
        const KV: &[u8] = &[0x0a, 2, b'k', b'1', 0x10, 0x81, 0x01, 0x18, 0x85, 0x02, 0x20, 2, 0x2a, 3, 1, 2, 3, 0x30, 9];
        const HEADER: &[u8] = &[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0x10, 7, 0x18, 0x85, 0x02, 0x20, 2];
        const PUT: &[u8] = &[0x0a, 1, b'k', 0x12, 2, b'v', b'w', 0x18, 9, 0x20, 1, 0x28, 1, 0x30, 1];
        const RANGE: &[u8] = &[0x0a, 1, b'a', 0x12, 1, b'b', 0x18, 20, 0x20, 0x81, 0x01, 0x28, 2, 0x30, 3, 0x38, 1, 0x40, 1, 0x48, 1];
        fn agree(data: &[u8]) -> usize {
            let mut seen = 0;
            let mut same = |is: bool| {
                assert!(is, "{data:x?}");
                seen += 1;
            };
            if let Some(kv) = kv(data) {
                same(Kv::decode_any(data) == Ok(kv));
            }
            if let Some(header) = header(data) {
                same(Header::decode_any(data) == Ok(header));
            }
            if let Some(put) = put_request(data) {
                same(PutRequest::decode_any(data) == Ok(put));
            }
            if let Some(range) = range_request(data) {
                same(RangeRequest::decode_any(data) == Ok(range));
            }
            if let Some((kind, kv, prev_kv)) = event_parts(data)
                && let Ok(event) = Event::decode(data)
            {
                let prev_kv = if prev_kv.is_empty() { None } else { Some(Kv::decode(prev_kv)) };
                same((event.kind, Ok(event.kv), event.prev_kv.map(Ok)) == (kind, Kv::decode(kv), prev_kv));
            }
            seen
        }
        let event = [&[0x08, 1, 0x12, 19], KV, &[0x1a, 19], KV].concat();
        for message in [KV, HEADER, PUT, RANGE, &event] {
            assert!(agree(message) > 0);
            for cut in 0..message.len() {
                agree(&message[..cut]);
            }
            for at in 0..message.len() {
                for byte in 0..=u8::MAX {
                    let mut changed = message.to_vec();
                    changed[at] = byte;
                    agree(&changed);
                    changed.insert(at, byte);
                    agree(&changed);
                }
            }
        }
        // A length in more bytes than a length may take is no length, though the number is small.
        assert!(kv(&[0x0a, 0x81, 0x80, 0x80, 0x80, 0x80, 0x00, b'k']).is_none());
    }

    /// What is seen at a glance is what the general way decodes, for the message, for each of its cuts and for each flipped bit.
    #[test]
    fn agrees_with_the_general_way() {
        assert!(agrees(MESSAGE));
        for cut in 0..MESSAGE.len() {
            agrees(&MESSAGE[..cut]);
        }
        for bit in 0..MESSAGE.len() * 8 {
            let mut changed = MESSAGE.to_vec();
            changed[bit / 8] ^= 1 << (bit % 8);
            agrees(&changed);
        }
    }
}
