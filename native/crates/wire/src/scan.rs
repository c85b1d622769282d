//! Watch messages in the form in which etcd writes them, at a glance: one pass, fields in the order of their numbers, each at most once.
//!
//! Everything here gives None for any other form, and for anything malformed: the general way (`WatchResponse`, `Event`) has the last word.
//! What it gives is what the general way would give; there is a test that says so of every cut and every flipped bit.

use crate::cursor::varint;
use crate::messages::Enum;
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
    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.varint()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }
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
