"""etcd's key-value machine answers as etcd's source says; each test names the rule."""

from __future__ import annotations

from typing import Any

import pytest

from pekan.models.etcd import (
    FROM_KEY,
    Evaluated,
    Refused,
    State,
    apply,
    branch_taken,
    effect,
    evaluate,
    is_compares_only,
    is_local,
    may_write,
)
from pekan.wire import errors
from pekan.wire.messages import (
    CREATE,
    DELETE,
    EQUAL,
    GREATER,
    LEASE,
    LESS,
    MOD,
    NOT_EQUAL,
    PUT,
    SORT_ASCEND,
    SORT_BY_CREATE,
    SORT_BY_MOD,
    SORT_BY_VALUE,
    SORT_BY_VERSION,
    SORT_DESCEND,
    VALUE,
    VERSION,
    CompactionRequest,
    Compare,
    DeleteRangeRequest,
    KeyValue,
    LeaseGrantRequest,
    LeaseRevokeRequest,
    PutRequest,
    RangeRequest,
    TxnRequest,
)


def run(state: State, request: Any, told: Any = None) -> Evaluated:
    outcome = apply(state, request, told)
    assert isinstance(outcome, Evaluated), outcome
    return outcome


def refusal(state: State, request: Any) -> str:
    outcome = evaluate(state, request)
    assert isinstance(outcome, Refused), outcome
    return outcome.text


def keys(state: State, request: RangeRequest) -> list[bytes]:
    return [kv.key for kv in run(state, request).answer.kvs]


@pytest.fixture
def state() -> State:
    """a=1 (revision 2), b=2 (3), c=0 (4), a=3 (5); the store stands at 5."""
    state = State()
    for key, value in ((b"a", b"1"), (b"b", b"2"), (b"c", b"0"), (b"a", b"3")):
        run(state, PutRequest(key, value))
    return state


def test_revisions_count_changes_only(state: State) -> None:
    """A put makes a revision; reads, empty deletes, failed guards and grants make none."""
    assert state.revision == 5
    run(state, RangeRequest(b"a"))
    assert run(state, DeleteRangeRequest(b"zz")).answer.header.revision == 5
    run(state, LeaseGrantRequest(10, 7))
    run(state, TxnRequest((Compare(EQUAL, VERSION, b"a", 9),), (PutRequest(b"a"),), ()))
    assert state.revision == 5
    assert run(state, DeleteRangeRequest(b"a", b"c")).answer.header.revision == 6


def test_put_counts_versions_and_starts_anew_after_a_delete(state: State) -> None:
    """Version and create revision go on while the key lives, and begin again after its deletion."""
    assert state.kvs[b"a"] == KeyValue(b"a", 2, 5, 2, b"3", 0)
    run(state, DeleteRangeRequest(b"a"))
    assert run(state, PutRequest(b"a", b"4")).events[0].kv == KeyValue(b"a", 7, 7, 1, b"4", 0)


def test_put_keeps_what_it_is_told_to_keep(state: State) -> None:
    """ignore_value and ignore_lease keep the old ones; without a key there is nothing to keep; prev_kv shows the old one."""
    run(state, LeaseGrantRequest(10, 7))
    run(state, PutRequest(b"a", b"5", lease=7))
    assert run(state, PutRequest(b"a", b"6", ignore_lease=True, prev_kv=True)).answer.prev_kv.value == b"5"
    assert run(state, PutRequest(b"a", ignore_value=True, lease=7)).events[0].kv[4:] == (b"6", 7)
    assert refusal(state, PutRequest(b"nobody", ignore_value=True)) == errors.KEY_NOT_FOUND
    assert refusal(state, PutRequest(b"a", lease=8)) == errors.LEASE_NOT_FOUND


@pytest.mark.parametrize(
    ("key", "end", "expected"),
    [
        (b"a", b"", [b"a"]),
        (b"a", b"c", [b"a", b"b"]),
        (b"b", FROM_KEY, [b"b", b"c"]),
        (b"\0", b"\0", [b"a", b"b", b"c"]),
        (b"c", b"a", []),
        (b"b", b"b", []),
    ],
)
def test_range_ends(state: State, key: bytes, end: bytes, expected: list[bytes]) -> None:
    """One key, half-open, from the key on, all, reversed, empty; a delete and a guard select the same."""
    assert keys(state, RangeRequest(key, end)) == expected
    assert evaluate(state, DeleteRangeRequest(key, end)).answer.deleted == len(expected)  # type: ignore[union-attr]


def test_old_revisions(state: State) -> None:
    """A read at q answers the state of q under the present revision; at the compacted revision still, below not, above the present not."""
    answer = run(state, RangeRequest(b"\0", b"\0", revision=3)).answer
    assert (answer.header.revision, [kv.value for kv in answer.kvs]) == (5, [b"1", b"2"])
    run(state, CompactionRequest(4))
    assert keys(state, RangeRequest(b"\0", b"\0", revision=4)) == [b"a", b"b", b"c"]
    assert refusal(state, RangeRequest(b"a", revision=3)) == errors.COMPACTED
    assert refusal(state, RangeRequest(b"a", revision=6)) == errors.FUTURE_REVISION
    assert keys(state, RangeRequest(b"a", revision=-1)) == [b"a"]


def test_old_revisions_see_deleted_keys(state: State) -> None:
    """A deleted key is there at the revision before its deletion and not after."""
    run(state, DeleteRangeRequest(b"b"))
    assert keys(state, RangeRequest(b"b", revision=5)) == [b"b"]
    run(state, PutRequest(b"z"))
    assert keys(state, RangeRequest(b"b", revision=6)) == []


def test_compactions(state: State) -> None:
    """Revision 0 can be compacted once; at or below the compact revision and above the present one is refused."""
    run(state, CompactionRequest(0))
    assert refusal(state, CompactionRequest(0)) == errors.COMPACTED
    run(state, CompactionRequest(5))
    assert refusal(state, CompactionRequest(5)) == errors.COMPACTED
    assert refusal(state, CompactionRequest(6)) == errors.FUTURE_REVISION


def test_limit_count_and_more(state: State) -> None:
    """`count` ignores limit and filters, `more` says that the limit cut; count_only shows no keys."""
    answer = run(state, RangeRequest(b"\0", b"\0", limit=2)).answer
    assert ([kv.key for kv in answer.kvs], answer.more, answer.count) == ([b"a", b"b"], True, 3)
    answer = run(state, RangeRequest(b"\0", b"\0", limit=3)).answer
    assert (len(answer.kvs), answer.more, answer.count) == (3, False, 3)
    answer = run(state, RangeRequest(b"\0", b"\0", min_mod_revision=4, limit=1)).answer
    assert ([kv.key for kv in answer.kvs], answer.more, answer.count) == ([b"a"], True, 3)
    answer = run(state, RangeRequest(b"\0", b"\0", count_only=True, limit=1)).answer
    assert (answer.kvs, answer.more, answer.count) == ((), False, 3)


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"min_mod_revision": 4}, [b"a", b"c"]),
        ({"max_mod_revision": 4}, [b"b", b"c"]),
        ({"min_create_revision": 3}, [b"b", b"c"]),
        ({"max_create_revision": 2}, [b"a"]),
    ],
)
def test_revision_filters(state: State, filters: dict[str, int], expected: list[bytes]) -> None:
    """Filters keep what lies within, both ends included; zero means no filter."""
    assert keys(state, RangeRequest(b"\0", b"\0", **filters)) == expected


@pytest.mark.parametrize(
    ("target", "ascending"),
    [
        (SORT_BY_CREATE, [b"a", b"b", b"c"]),
        (SORT_BY_MOD, [b"b", b"c", b"a"]),
        (SORT_BY_VALUE, [b"c", b"b", b"a"]),
    ],
)
def test_sorting(state: State, target: int, ascending: list[bytes]) -> None:
    """Ascending and descending by each target; a target without an order sorts ascending."""
    assert keys(state, RangeRequest(b"\0", b"\0", sort_order=SORT_ASCEND, sort_target=target)) == ascending
    assert keys(state, RangeRequest(b"\0", b"\0", sort_order=SORT_DESCEND, sort_target=target)) == ascending[::-1]
    assert keys(state, RangeRequest(b"\0", b"\0", sort_target=target)) == ascending


def test_limit_before_an_order_that_was_not_asked_for(state: State) -> None:
    """With a target but no order the limit and one more are taken by key, then sorted, then cut: etcd's rangeLimit."""
    assert keys(state, RangeRequest(b"\0", b"\0", limit=1, sort_target=SORT_BY_VALUE)) == [b"b"]
    assert keys(state, RangeRequest(b"\0", b"\0", limit=1, sort_order=SORT_ASCEND, sort_target=SORT_BY_VALUE)) == [b"c"]


def test_equals_come_in_the_order_that_was_told(state: State) -> None:
    """Among equals of a sort the told order is taken, and a told answer that shows another key is not."""
    request = RangeRequest(b"\0", b"\0", limit=1, sort_order=SORT_ASCEND, sort_target=SORT_BY_VERSION)
    first = run(state, request).answer
    told = first._replace(kvs=(state.kvs[b"c"],))
    assert run(state, request, told).answer == told
    wrong = first._replace(kvs=(state.kvs[b"a"],))
    assert run(state, request, wrong).answer != wrong


def test_keys_only_blanks_values(state: State) -> None:
    """keys_only leaves everything but the value; the lease may be missing (etcd 3.7), of all keys or of none."""
    run(state, LeaseGrantRequest(10, 7))
    run(state, PutRequest(b"b", b"x", lease=7))
    request = RangeRequest(b"\0", b"\0", keys_only=True)
    answer = run(state, request).answer
    assert [kv.value for kv in answer.kvs] == [b"", b"", b""]
    told = answer._replace(kvs=tuple(kv._replace(lease=0) for kv in answer.kvs))
    assert run(state, request, told).answer == told


def guard(state: State, *compare: Any) -> bool:
    return bool(evaluate(state, TxnRequest((Compare(*compare),))).answer.succeeded)  # type: ignore[union-attr]


def test_guards(state: State) -> None:
    """Each target with each relation; on no key VALUE is false whatever it asks, the others compare zero."""
    assert guard(state, EQUAL, VERSION, b"a", 2)
    assert guard(state, GREATER, MOD, b"a", 4)
    assert guard(state, LESS, CREATE, b"a", 3)
    assert guard(state, NOT_EQUAL, VALUE, b"a", b"1")
    assert guard(state, EQUAL, LEASE, b"a", 0)
    assert guard(state, EQUAL, VERSION, b"nobody", 0)
    assert not guard(state, EQUAL, VALUE, b"nobody", b"")
    assert not guard(state, NOT_EQUAL, VALUE, b"nobody", b"x")


def test_guards_over_ranges(state: State) -> None:
    """A guard over a range must be true of each key; over an empty range it is one over no key."""
    assert guard(state, GREATER, MOD, b"a", 2, b"d")
    assert not guard(state, GREATER, MOD, b"a", 3, b"d")
    assert guard(state, EQUAL, MOD, b"x", 0, FROM_KEY)
    assert not guard(state, EQUAL, VALUE, b"x", b"", FROM_KEY)


def test_transaction_runs_in_order_at_one_revision(state: State) -> None:
    """Operations see what earlier ones did; everything is at one revision, answers inside carry it as soon as something changed."""
    txn = TxnRequest(
        (),
        (
            RangeRequest(b"a"),
            PutRequest(b"a", b"9", prev_kv=True),
            RangeRequest(b"a"),
            RangeRequest(b"a", revision=5),
            DeleteRangeRequest(b"b", FROM_KEY),
            RangeRequest(b"\0", b"\0"),
        ),
    )
    outcome = run(state, txn)
    before, put, after, old, deleted, rest = outcome.answer.responses
    assert (before.header.revision, put.header.revision, after.header.revision) == (5, 6, 6)
    assert (before.kvs[0].value, put.prev_kv.value, after.kvs[0].value, old.kvs[0].value) == (b"3", b"3", b"9", b"3")
    assert (deleted.deleted, [kv.key for kv in rest.kvs]) == (2, [b"a"])
    assert [(e.type, e.kv.key, e.kv.mod_revision) for e in outcome.events] == [(PUT, b"a", 6), (DELETE, b"b", 6), (DELETE, b"c", 6)]
    assert state.revision == 6


def test_open_delete_and_put_of_one_key(state: State) -> None:
    """A delete from a key on and a put of a later key are allowed together: two events, and the key begins anew."""
    outcome = run(state, TxnRequest((), (DeleteRangeRequest(b"b", FROM_KEY), PutRequest(b"c", b"new"))))
    assert [(e.type, e.kv.key) for e in outcome.events] == [(DELETE, b"b"), (DELETE, b"c"), (PUT, b"c")]
    assert state.kvs[b"c"] == KeyValue(b"c", 6, 6, 1, b"new", 0)


def test_nested_branches_are_chosen_beforehand(state: State) -> None:
    """A nested transaction's guards look at the state before the outer one began."""
    nested = TxnRequest((Compare(EQUAL, VERSION, b"n", 0),), (PutRequest(b"inner", b"then"),), (PutRequest(b"inner", b"else"),))
    run(state, TxnRequest((), (PutRequest(b"n", b"1"), nested)))
    assert state.kvs[b"inner"].value == b"then"


def test_refused_transactions_change_nothing(state: State) -> None:
    """Revisions, keys and leases of the branch taken are checked before anything runs; those of the other branch are not."""
    for op, text in (
        (RangeRequest(b"a", revision=6), errors.FUTURE_REVISION),
        (PutRequest(b"nobody", ignore_value=True), errors.KEY_NOT_FOUND),
        (PutRequest(b"a", lease=7), errors.LEASE_NOT_FOUND),
    ):
        txn = TxnRequest((), (PutRequest(b"z"), op), ())
        assert refusal(state, txn) == text
        assert isinstance(evaluate(state, txn._replace(success=(), failure=txn.success)), Evaluated)
    run(state, CompactionRequest(4))
    assert refusal(state, TxnRequest((), (RangeRequest(b"a", revision=3),))) == errors.COMPACTED


def test_effect_ignores_ranges(state: State) -> None:
    """What a member does that does not look at the ranges of a transaction (#18667): the writes, whatever revision a range names."""
    txn = TxnRequest((), (PutRequest(b"z", b"1"), RangeRequest(b"a", revision=99)))
    assert refusal(state, txn) == errors.FUTURE_REVISION
    assert [event.kv.key for event in effect(state, txn)] == [b"z"]
    assert effect(state, TxnRequest((), (PutRequest(b"z", lease=7),))) == ()


def test_leases(state: State) -> None:
    """A revoke takes all keys of its lease in one revision, in order; a put without the lease had let one go."""
    run(state, LeaseGrantRequest(10, 7))
    assert refusal(state, LeaseGrantRequest(10, 7)) == errors.LEASE_EXISTS
    for key in (b"y", b"x", b"w"):
        run(state, PutRequest(key, lease=7))
    run(state, PutRequest(b"w"))
    outcome = run(state, LeaseRevokeRequest(7))
    assert [event.kv.key for event in outcome.events] == [b"x", b"y"]
    assert outcome.answer.header.revision == state.revision == 10
    assert refusal(state, LeaseRevokeRequest(7)) == errors.LEASE_NOT_FOUND


def test_what_a_request_can_do() -> None:
    """Local: every operation a serializable Range, and at least one. Without operations: a class of its own."""
    own = RangeRequest(b"a", serializable=True)
    assert is_local(own)
    assert is_local(TxnRequest((), (own,), ()))
    assert not is_local(TxnRequest((), (own,), (RangeRequest(b"a"),)))
    assert not is_local(TxnRequest())
    assert is_compares_only(TxnRequest((Compare(EQUAL, VERSION, b"a", 0),)))
    assert may_write(TxnRequest((), (), (TxnRequest((), (PutRequest(b"a"),)),)))
    assert not may_write(TxnRequest((), (own,)))


def test_branch_taken_descends(state: State) -> None:
    """The operations of the branches taken, nested ones in their place."""
    nested = TxnRequest((Compare(EQUAL, VERSION, b"a", 9),), (PutRequest(b"p"),), (PutRequest(b"q"),))
    assert branch_taken(state, TxnRequest((), (RangeRequest(b"a"), nested))) == [RangeRequest(b"a"), PutRequest(b"q")]


def test_unknown_request_is_a_type_error() -> None:
    """What is no request of the machine is refused loudly."""
    with pytest.raises(TypeError, match="str is no request"):
        evaluate(State(), "put")
