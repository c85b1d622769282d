//! The machine by its rules, and confirmed answers against those that it makes.

use pekan_history::{Kind, Op, Outcome, Shape};
use pekan_wire::numbers as n;
use pekan_wire::{Compare, DELETE, Event, Header, Kv, Operand, PUT, PutRequest, RangeRequest, Request, TxnRequest};

use crate::confirm;
use crate::machine::{Evaluated, FROM_KEY, Refusal, State, apply, effect, evaluate, holds};
use crate::request::{Answer, Asked};

const KEYS: [&[u8]; 6] = [b"/a", b"/b", b"/c", b"/d", b"0", b"/"];

fn put<'a>(key: &'a [u8], value: &'a [u8]) -> PutRequest<'a> {
    PutRequest { key, value, ..PutRequest::default() }
}

fn range<'a>(key: &'a [u8], range_end: &'a [u8]) -> RangeRequest<'a> {
    RangeRequest { key, range_end, ..RangeRequest::default() }
}

/// A store of /a (twice written), /b and /c at revision 5.
fn store() -> State<'static> {
    let mut state = State::default();
    for (key, value) in [(b"/a", b"1"), (b"/b", b"2"), (b"/a", b"3"), (b"/c", b"0")] {
        answered(&mut state, &Asked::Put(put(key, value)));
    }
    state
}

fn answered<'a>(state: &mut State<'a>, request: &Asked<'a>) -> (Answer<'a>, Vec<Event<'a>>) {
    match apply(state, request, None) {
        Ok(Evaluated::Answered(answer, events)) => (answer, events),
        other => panic!("{other:?}"),
    }
}

fn keys_of(answer: &Answer<'static>) -> (Vec<&'static [u8]>, bool, i64) {
    match answer {
        Answer::Range { kvs, more, count, .. } => (kvs.iter().map(|kv| kv.key).collect(), *more, *count),
        other => panic!("{other:?}"),
    }
}

/// A range end of one zero byte means every key from the key on, an end not above the key nothing, none the key alone.
#[test]
fn a_range_selects_by_its_end() {
    let mut state = store();
    for (key, end, found) in [
        (&b"/b"[..], FROM_KEY, vec![&b"/b"[..], b"/c"]),
        (b"/", b"0", vec![b"/a", b"/b", b"/c"]),
        (b"/b", b"/a", vec![]),
        (b"/b", b"", vec![b"/b"]),
        (b"/x", b"", vec![]),
    ] {
        assert_eq!(keys_of(&answered(&mut state, &Asked::Range(range(key, end))).0).0, found);
    }
}

/// Counts are of the range before filters and limit; `more` says that the limit cut; filters come before the order, the order before the limit.
#[test]
fn a_range_filters_sorts_and_cuts_in_that_order() {
    let mut state = store();
    let all = range(b"/", b"0");
    let limited = RangeRequest { limit: 2, ..all };
    assert_eq!(keys_of(&answered(&mut state, &Asked::Range(limited)).0), (vec![&b"/a"[..], b"/b"], true, 3));
    let newest = RangeRequest { limit: 1, sort_order: 2, sort_target: 3, ..all };
    assert_eq!(keys_of(&answered(&mut state, &Asked::Range(newest)).0), (vec![&b"/c"[..]], true, 3));
    let old = RangeRequest { max_mod_revision: 4, limit: 2, ..all };
    assert_eq!(keys_of(&answered(&mut state, &Asked::Range(old)).0), (vec![&b"/a"[..], b"/b"], false, 3));
    // Without an order but by value: the limit and one more are taken in key order first.
    let by_value = RangeRequest { limit: 1, sort_target: 4, ..all };
    assert_eq!(keys_of(&answered(&mut state, &Asked::Range(by_value)).0), (vec![&b"/b"[..]], true, 3));
    let counted = RangeRequest { count_only: true, limit: 1, min_mod_revision: 5, ..all };
    assert_eq!(keys_of(&answered(&mut state, &Asked::Range(counted)).0), (vec![], false, 3));
}

/// A read of an older revision shows the keys as they were then, deleted ones included; a compacted or a future one is refused.
#[test]
fn the_past_is_answered_and_refused() {
    let mut state = store();
    answered(&mut state, &Asked::DeleteRange(pekan_wire::DeleteRangeRequest { key: b"/b", ..Default::default() }));
    let at = |revision| Asked::Range(RangeRequest { revision, ..range(b"/", b"0") });
    assert_eq!(keys_of(&answered(&mut state, &at(3)).0).0, [&b"/a"[..], b"/b"]);
    assert_eq!(keys_of(&answered(&mut state, &at(6)).0).0, [&b"/a"[..], b"/c"]);
    assert_eq!(evaluate(&state, &at(7), None), Ok(Evaluated::Refused(Refusal::FutureRevision)));
    state.compacted = 4;
    assert_eq!(evaluate(&state, &at(3), None), Ok(Evaluated::Refused(Refusal::Compacted)));
    state.past = None;
    assert!(evaluate(&state, &at(5), None).is_err());
}

/// On no key at all a VALUE compare is false whatever it asks, any other compares zero; over a range it must be true of each key.
#[test]
fn guards_of_nothing_and_of_ranges() {
    let state = store();
    let guard = |key, range_end, target, result, operand| Compare { result, target, key, operand, range_end };
    for result in 0..4 {
        assert!(!holds(&state, &guard(b"/x", b"", pekan_wire::VALUE, result, Operand::Bytes(b""))));
    }
    assert!(holds(&state, &guard(b"/x", b"", pekan_wire::VERSION, pekan_wire::EQUAL, Operand::Int(0))));
    assert!(holds(&state, &guard(b"/", b"0", pekan_wire::MOD, pekan_wire::GREATER, Operand::Int(2))));
    assert!(!holds(&state, &guard(b"/", b"0", pekan_wire::MOD, pekan_wire::GREATER, Operand::Int(3))));
    assert!(holds(&state, &guard(b"/a", b"", pekan_wire::VALUE, 7, Operand::Bytes(b""))));
}

/// A transaction is one revision; each operation sees what the earlier ones did; nested branches are chosen from the state before it.
#[test]
fn a_transaction_runs_in_order_at_one_revision() {
    let mut state = store();
    let nested = TxnRequest {
        compare: vec![Compare { result: 0, target: pekan_wire::VERSION, key: b"/d", operand: Operand::Int(0), range_end: b"" }],
        success: vec![Request::Put(put(b"/c", b"nested"))],
        failure: vec![],
    };
    let txn = TxnRequest {
        compare: vec![],
        success: vec![
            Request::Put(put(b"/d", b"new")),
            Request::Range(range(b"/d", b"")),
            Request::DeleteRange(pekan_wire::DeleteRangeRequest { key: b"/a", range_end: b"/c", prev_kv: true }),
            Request::Put(PutRequest { prev_kv: true, ..put(b"/a", b"again") }),
            Request::Txn(Box::new(nested)),
        ],
        failure: vec![],
    };
    let (answer, events) = answered(&mut state, &Asked::Txn(txn));
    let Answer::Txn { responses, succeeded: true, .. } = &answer else { panic!("{answer:?}") };
    assert!(matches!(&responses[1], Answer::Range { kvs, .. } if kvs[0].value == b"new"));
    assert!(matches!(&responses[2], Answer::DeleteRange { deleted: 2, prev_kvs, .. } if prev_kvs.len() == 2));
    assert!(matches!(&responses[3], Answer::Put { prev_kv: None, .. }));
    assert!(matches!(&responses[4], Answer::Txn { succeeded: true, .. }));
    let what: Vec<_> = events.iter().map(|event| (event.kind, event.kv.key, event.kv.version, event.kv.mod_revision)).collect();
    assert_eq!(what, [(PUT, &b"/d"[..], 1, 6), (DELETE, b"/a", 0, 6), (DELETE, b"/b", 0, 6), (PUT, b"/a", 1, 6), (PUT, b"/c", 2, 6)]);
    assert_eq!((state.revision, state.get(b"/a").map(|kv| kv.create_revision)), (6, Some(6)));
}

/// A Put that keeps value or lease needs the key; one without a lease detaches it; a revoke takes its keys in byte order, in one revision.
#[test]
fn leases_hold_keys() {
    let mut state = store();
    let keeping = PutRequest { ignore_value: true, ..put(b"/x", b"") };
    assert_eq!(evaluate(&state, &Asked::Put(keeping), None), Ok(Evaluated::Refused(Refusal::KeyNotFound)));
    let leased = |key| Asked::Put(PutRequest { lease: 7, ..put(key, b"v") });
    assert_eq!(evaluate(&state, &leased(b"/a"), None), Ok(Evaluated::Refused(Refusal::LeaseNotFound)));
    answered(&mut state, &Asked::LeaseGrant(pekan_wire::LeaseGrant { id: 7, ttl: 9 }));
    for key in [&b"/c"[..], b"/a", b"/b"] {
        answered(&mut state, &leased(key));
    }
    answered(&mut state, &Asked::Put(put(b"/b", b"free")));
    let (_, events) = answered(&mut state, &Asked::LeaseRevoke(7));
    assert_eq!(events.iter().map(|event| event.kv.key).collect::<Vec<_>>(), [b"/a", b"/c"]);
    assert_eq!(evaluate(&state, &Asked::LeaseRevoke(7), None), Ok(Evaluated::Refused(Refusal::LeaseNotFound)));
    assert!(effect(&state, &Asked::LeaseRevoke(7)).is_empty());
}

// ---- confirmed answers ----

fn numbers(mut seed: u64) -> impl FnMut(u64) -> u64 {
    move |below| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    }
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn int(number: u32, value: i64, out: &mut Vec<u8>) {
    if value != 0 {
        varint(u64::from(number << 3), out);
        varint(value.cast_unsigned(), out);
    }
}

fn bytes(number: u32, value: &[u8], out: &mut Vec<u8>) {
    varint(u64::from(number << 3 | 2), out);
    varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

fn encoded_kv(kv: &Kv<'_>) -> Vec<u8> {
    use n::key_value as f;
    let mut out = Vec::new();
    bytes(f::KEY, kv.key, &mut out);
    int(f::CREATE_REVISION, kv.create_revision, &mut out);
    int(f::MOD_REVISION, kv.mod_revision, &mut out);
    int(f::VERSION, kv.version, &mut out);
    bytes(f::VALUE, kv.value, &mut out);
    int(f::LEASE, kv.lease, &mut out);
    out
}

fn encoded_request(request: &Asked<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    match request {
        Asked::Put(r) => {
            use n::put_request as f;
            bytes(f::KEY, r.key, &mut out);
            bytes(f::VALUE, r.value, &mut out);
            int(f::PREV_KV, r.prev_kv.into(), &mut out);
            int(f::IGNORE_LEASE, r.ignore_lease.into(), &mut out);
        }
        Asked::DeleteRange(r) => {
            use n::delete_range_request as f;
            bytes(f::KEY, r.key, &mut out);
            bytes(f::RANGE_END, r.range_end, &mut out);
            int(f::PREV_KV, r.prev_kv.into(), &mut out);
        }
        Asked::Range(r) => {
            use n::range_request as f;
            bytes(f::KEY, r.key, &mut out);
            bytes(f::RANGE_END, r.range_end, &mut out);
            int(f::LIMIT, r.limit, &mut out);
            int(f::COUNT_ONLY, r.count_only.into(), &mut out);
            int(f::KEYS_ONLY, r.keys_only.into(), &mut out);
        }
        Asked::Txn(txn) => {
            use n::{compare as c, request_op as o, txn_request as f};
            for guard in &txn.compare {
                let mut inner = Vec::new();
                int(c::RESULT, guard.result.into(), &mut inner);
                int(c::TARGET, guard.target.into(), &mut inner);
                bytes(c::KEY, guard.key, &mut inner);
                if let Operand::Int(operand) = guard.operand {
                    int(c::VERSION, operand, &mut inner);
                }
                bytes(f::COMPARE, &inner, &mut out);
            }
            for (branch, operations) in [(f::SUCCESS, &txn.success), (f::FAILURE, &txn.failure)] {
                for op in operations {
                    let number = match op {
                        Request::Range(_) => o::REQUEST_RANGE,
                        Request::Put(_) => o::REQUEST_PUT,
                        Request::DeleteRange(_) => o::REQUEST_DELETE_RANGE,
                        Request::Txn(_) => o::REQUEST_TXN,
                    };
                    let mut inner = Vec::new();
                    bytes(number, &encoded_request(&Asked::inner(op)), &mut inner);
                    bytes(branch, &inner, &mut out);
                }
            }
        }
        other => panic!("{other:?}"),
    }
    out
}

fn encoded_answer(answer: &Answer<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    let header = answer.header();
    if header != Header::default() {
        let mut inner = Vec::new();
        int(n::response_header::REVISION, header.revision, &mut inner);
        bytes(n::range_response::HEADER, &inner, &mut out);
    }
    match answer {
        Answer::Range { kvs, more, count, .. } => {
            use n::range_response as f;
            kvs.iter().for_each(|kv| bytes(f::KVS, &encoded_kv(kv), &mut out));
            int(f::MORE, (*more).into(), &mut out);
            int(f::COUNT, *count, &mut out);
        }
        Answer::Put { prev_kv, .. } => prev_kv.iter().for_each(|kv| bytes(n::put_response::PREV_KV, &encoded_kv(kv), &mut out)),
        Answer::DeleteRange { deleted, prev_kvs, .. } => {
            use n::delete_range_response as f;
            int(f::DELETED, *deleted, &mut out);
            prev_kvs.iter().for_each(|kv| bytes(f::PREV_KVS, &encoded_kv(kv), &mut out));
        }
        Answer::Txn { succeeded, responses, .. } => {
            use n::{response_op as o, txn_response as f};
            int(f::SUCCEEDED, (*succeeded).into(), &mut out);
            for response in responses {
                let number = match response {
                    Answer::Range { .. } => o::RESPONSE_RANGE,
                    Answer::Put { .. } => o::RESPONSE_PUT,
                    Answer::DeleteRange { .. } => o::RESPONSE_DELETE_RANGE,
                    _ => o::RESPONSE_TXN,
                };
                let mut inner = Vec::new();
                bytes(number, &encoded_answer(response), &mut inner);
                bytes(f::RESPONSES, &inner, &mut out);
            }
        }
        other => panic!("{other:?}"),
    }
    out
}

fn some_request(next: &mut impl FnMut(u64) -> u64, inside: bool) -> Asked<'static> {
    let key = KEYS[next(6) as usize];
    let end: &[u8] = [&b""[..], b"", b"", b"0", FROM_KEY][next(5) as usize];
    let value = KEYS[next(6) as usize];
    let flag = next(3) == 0;
    match next(if inside { 8 } else { 12 }) {
        0..=3 => Asked::Put(PutRequest { prev_kv: flag, ignore_lease: next(8) == 0, ..put(key, value) }),
        4..=5 => Asked::DeleteRange(pekan_wire::DeleteRangeRequest { key, range_end: end, prev_kv: flag }),
        6..=7 => {
            let (limit, keys_only, count_only) = (next(3) as i64, next(6) == 0, next(6) == 0);
            Asked::Range(RangeRequest { limit, keys_only, count_only, ..range(key, end) })
        }
        _ => {
            let compare = vec![Compare {
                result: next(4) as i32,
                target: pekan_wire::VERSION,
                key: KEYS[next(6) as usize],
                operand: Operand::Int(next(3) as i64),
                range_end: b"",
            }];
            let mut branch = || {
                let size = next(4);
                (0..size)
                    .map(|_| match some_request(next, true) {
                        Asked::Put(r) => Request::Put(r),
                        Asked::DeleteRange(r) => Request::DeleteRange(r),
                        Asked::Range(r) => Request::Range(r),
                        other => panic!("{other:?}"),
                    })
                    .collect()
            };
            let (success, failure) = (branch(), branch());
            Asked::Txn(TxnRequest { compare, success, failure })
        }
    }
}

fn kind_of(request: &Asked<'_>) -> Kind {
    match request {
        Asked::Put(_) => Kind::Put,
        Asked::DeleteRange(_) => Kind::DeleteRange,
        Asked::Range(_) => Kind::Range,
        _ => Kind::Txn,
    }
}

fn recorded<'a>(kind: Kind, request: &'a [u8], response: &'a [u8], revision: i64) -> Op<'a> {
    Op {
        id: 1,
        process: 1,
        call: 0,
        ret: 1,
        gave_up: pekan_history::NEVER,
        request,
        response,
        error: pekan_history::NO_ERROR,
        client: 0,
        member: 0,
        user: 0,
        method: 0,
        kind,
        outcome: Outcome::Ok,
        shape: Shape::default(),
        revision,
        invoked_at: 0,
        completed_at: 0,
    }
}

/// What is confirmed at once is what the machine answers, with the same events; of answers changed in one byte too; and most right ones are.
#[test]
fn confirmed_answers_are_those_of_the_machine() {
    let mut next = numbers(11);
    let (mut right, mut confirmed) = (0, 0);
    for _ in 0..400 {
        let mut state = State::default();
        for _ in 0..40 {
            let request = some_request(&mut next, false);
            let Ok(Evaluated::Answered(answer, events)) = evaluate(&state, &request, None) else { continue };
            let kind = kind_of(&request);
            let (asked, mut told) = (encoded_request(&request), encoded_answer(&answer));
            right += 1;
            confirmed += usize::from(agrees(&state, &request, recorded(kind, &asked, &told, answer.header().revision)));
            if !told.is_empty() {
                let at = next(told.len() as u64) as usize;
                told[at] ^= 1 << next(8);
                if Answer::decode(kind, &told).is_ok() {
                    agrees(&state, &request, recorded(kind, &asked, &told, answer.header().revision));
                }
            }
            if !events.is_empty() {
                state.advance(state.revision + 1, &events);
            }
        }
    }
    assert!(confirmed * 2 > right, "{confirmed} of {right} confirmed");
}

/// Whether `op` is confirmed, which it may be only if the machine says the same.
fn agrees<'a>(state: &State<'a>, request: &Asked<'a>, op: Op<'a>) -> bool {
    let told = Answer::decode(op.kind, op.response).expect("decodable");
    let machine = evaluate(state, request, Some(&told));
    let Ok(Evaluated::Answered(answer, mut expected)) = machine else { panic!("{machine:?}") };
    let mut events = Vec::new();
    let seen_right = match op.kind {
        Kind::Range => confirm::range(state, &op, false),
        _ => confirm::write(state, &op, state.revision + 1, &mut events),
    };
    // A field of another wire type than it has is left to the reference.
    let seen_right = seen_right.unwrap_or(false);
    if seen_right {
        assert!(answer.same_but_header(&told), "{request:?}\n{told:?}\n{answer:?}");
        expected.sort_by(|one, other| one.kv.key.cmp(other.kv.key));
        assert_eq!(events, expected);
    }
    seen_right
}
