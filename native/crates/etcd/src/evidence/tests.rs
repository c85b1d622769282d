//! Small streams by hand; that the whole of it agrees with the reference is what `tests/checkers/test_watch_engines.py` shows.

use pekan_history::{Columns, Glance, NEVER, Stream, StreamMessage, WATCH};

use super::*;

/// (ns, whether sent, encoded)
type Messages = Vec<(i64, bool, Vec<u8>)>;

fn varint(mut value: u64, into: &mut Vec<u8>) {
    while value >= 0x80 {
        into.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    into.push(value.to_le_bytes()[0]);
}

fn number(field: u8, value: u64) -> Vec<u8> {
    let mut bytes = vec![field << 3];
    varint(value, &mut bytes);
    if value == 0 { Vec::new() } else { bytes }
}

fn bytes(field: u8, inner: &[u8]) -> Vec<u8> {
    let mut bytes = vec![field << 3 | 2];
    varint(inner.len() as u64, &mut bytes);
    [bytes, inner.to_vec()].concat()
}

fn key_value(key: &[u8], revision: u64, value: &[u8]) -> Vec<u8> {
    [bytes(1, key), number(2, revision), number(3, revision), number(4, 1), bytes(5, value)].concat()
}

fn put(key: &[u8], revision: u64, value: &[u8], prev: Option<u64>) -> Vec<u8> {
    let prev = prev.map_or(Vec::new(), |revision| bytes(3, &key_value(key, revision, b"before")));
    [bytes(2, &key_value(key, revision, value)), prev].concat()
}

fn response(member: u64, revision: u64, rest: &[Vec<u8>]) -> Vec<u8> {
    let header = [number(1, 7), number(2, member), number(3, revision), number(4, 2)].concat();
    [vec![bytes(1, &header)], rest.to_vec()].concat().concat()
}

fn events(all: &[Vec<u8>]) -> Vec<Vec<u8>> {
    all.iter().map(|event| bytes(11, event)).collect()
}

/// A stream of one watch of everything from revision 2 on that receives `received` after its created reply, 10 ns apart.
fn told(member: u64, begin: i64, received: &[Vec<u8>]) -> Messages {
    let create = bytes(1, &[bytes(1, b"\0"), bytes(2, b"\0"), number(3, 2)].concat());
    let mut messages = vec![(begin, true, create), (begin + 10, false, response(member, 1, &[number(3, 1)]))];
    messages.extend(received.iter().zip(2..).map(|(data, at)| (begin + 10 * at, false, data.clone())));
    messages
}

fn columns<'a>(streams: &'a [Messages]) -> Columns<'a> {
    let stream = |(id, messages): (u64, &'a Messages)| Stream {
        id,
        method: 1,
        client: 0,
        member: if id == 1 { 2 } else { 3 },
        user: 0,
        messages: messages
            .iter()
            .map(|(time, sent, data)| StreamMessage { time: *time, sent: *sent, glance: Glance::default(), data })
            .collect(),
        ended: NEVER,
        code: 0,
        reason: "",
        by_client: false,
    };
    Columns { streams: (1..).zip(streams).map(stream).collect(), names: vec!["", WATCH, "m1", "m2"], ..Columns::default() }
}

/// What two members tell byte for byte is known once, whole, and seen when the first of them told it.
#[test]
fn the_same_telling_is_known_once() {
    let message = |member| response(member, 3, &events(&[put(b"b", 3, b"1", None), put(b"a", 3, b"2", None)]));
    let streams = [told(1, 100, &[message(1)]), told(2, 50, &[message(2)])];
    let columns = columns(&streams);
    let evidence = Evidence::of(&columns, true).expect("well formed");
    let watched = &evidence.watched;
    assert_eq!(watched.bounds(), (3, 3));
    assert_eq!(watched.events(3).map(|event| event.kv.key).collect::<Vec<_>>(), [b"a", b"b"]);
    assert_eq!(watched.seen(3), Some(Seen { time: 70, stream: 1 }));
    assert!(watched.is_whole(3) && !watched.differs(3) && watched.never_changed(3) && !watched.knows(2));
    assert!(evidence.watches.iter().all(|watch| watch.items[0].has(Item::EXACT) && watch.items[0].count() == 2));
    assert_eq!(watched.told_by(3, 3).map(<[_]>::len), Some(2));
}

/// A previous value that only the second telling has is taken over, and what the first remembers no longer holds.
#[test]
fn a_previous_value_is_taken_over() {
    let streams = [
        told(1, 100, &[response(1, 5, &events(&[put(b"a", 5, b"1", None)]))]),
        told(2, 200, &[response(2, 5, &events(&[put(b"a", 5, b"1", Some(2))]))]),
    ];
    let columns = columns(&streams);
    let evidence = Evidence::of(&columns, true).expect("well formed");
    let event = evidence.watched.events(5).next().expect("one event");
    assert_eq!(event.prev_kv.map(|kv| kv.mod_revision), Some(2));
    assert!(evidence.watched.difference().is_none() && !evidence.watched.never_changed(5));
}

/// The lowest revision told differently is the difference, with its sides in the order in which they were told.
#[test]
fn a_difference_has_two_sides() {
    let streams = [
        told(1, 100, &[response(1, 4, &events(&[put(b"a", 4, b"1", None)])), response(1, 5, &events(&[put(b"a", 5, b"1", None)]))]),
        told(2, 50, &[response(2, 4, &events(&[put(b"a", 4, b"2", None)])), response(2, 5, &events(&[put(b"a", 5, b"2", None)]))]),
    ];
    let columns = columns(&streams);
    let evidence = Evidence::of(&columns, true).expect("well formed");
    let difference = evidence.watched.difference().expect("they differ");
    assert_eq!((difference.revision, difference.first.watch, difference.second.watch), (4, 1, 0));
    assert_eq!(difference.groups, [[3], [2]]);
    assert_eq!(evidence.watched.differing().collect::<Vec<_>>(), [4, 5]);
}

/// Pieces are one message with the place of the last; a revision of which pieces came in two messages is not whole.
#[test]
fn pieces_are_put_together() {
    let piece = |all: &[Vec<u8>], last: bool| response(1, 4, &[vec![number(7, u64::from(!last))], events(all)].concat());
    let (a, b, c) = (put(b"a", 4, b"1", None), put(b"b", 4, b"1", None), put(b"c", 4, b"1", None));
    let together = [told(1, 100, &[piece(std::slice::from_ref(&b), false), piece(std::slice::from_ref(&a), true)])];
    let (known, apart) = (columns(&together), [told(1, 100, &[piece(&[a, b], true), piece(&[c], true)])]);
    let evidence = Evidence::of(&known, true).expect("well formed");
    assert_eq!(evidence.watches[0].items.len(), 1);
    assert_eq!(evidence.watches[0].pieces(0), [2]);
    assert!(evidence.watched.is_whole(4));
    assert_eq!(evidence.watched.events(4).map(|event| event.kv.key).collect::<Vec<_>>(), [b"a", b"b"]);
    let evidence_apart = columns(&apart);
    let evidence = Evidence::of(&evidence_apart, true).expect("well formed");
    assert!(!evidence.watched.is_whole(4) && evidence.watched.encoded(4).len() == 3);
}

/// No cut of a message is taken for another: it is well formed, or the history is declined.
#[test]
fn what_is_malformed_is_declined() {
    let whole = response(1, 4, &events(&[put(b"a", 4, b"1", Some(2))]));
    let mut declined = 0;
    for length in 0..whole.len() {
        let streams = [told(1, 100, &[whole[..length].to_vec()])];
        let columns = columns(&streams);
        match Evidence::of(&columns, true) {
            Ok(evidence) => assert!(evidence.watched.encoded(4).is_empty()),
            Err(_) => declined += 1,
        }
    }
    assert!(declined > whole.len() / 2);
}
