"""Holes and what fills them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pekan.wire.messages import (
    CREATE,
    EQUAL,
    LEASE,
    MOD,
    VALUE,
    VERSION,
    Compare,
    Header,
    KeyValue,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    TxnRequest,
    TxnResponse,
)
from pekan.workloads.keys import (
    AT_COMPACTION,
    FAR,
    KEPT_KEYS_MAX,
    OBSERVED,
    SEEN,
    SEEN_WRONG,
    Horizon,
    Memory,
    ahead,
    below,
    meets_known_deviation,
    old,
    pool,
    prefix_end,
    resolve,
    revision_of,
)

HEADER = Header(1, 2, 30, 4)
KV = KeyValue(b"k", 3, 9, 4, b"seen", 77)
horizons = st.integers(0, 10_000).flatmap(lambda compacted: st.builds(Horizon, st.integers(max(1, compacted), 20_000), st.just(compacted)))


@given(horizon=horizons, fraction=st.integers(0, 1000))
def test_old_revisions_are_readable(horizon: Horizon, fraction: int) -> None:
    """An old revision lies between the highest compaction and the head, both included."""
    assert max(1, horizon.compacted) <= revision_of(old(fraction), horizon) <= horizon.revision


@given(horizon=horizons, by=st.integers(1, 999))
def test_compacted_and_future_revisions_lie_outside(horizon: Horizon, by: int) -> None:
    """Below the compaction and ahead of the head are what they say; with nothing compacted there is nothing below."""
    assert revision_of(ahead(by), horizon) == horizon.revision + by
    assert revision_of(ahead(FAR), horizon) > horizon.revision
    assert revision_of(below(by), horizon) == max(1, horizon.compacted - by)
    assert revision_of(AT_COMPACTION, horizon) == max(1, horizon.compacted)


@given(horizon=horizons, revision=st.integers(0, 1 << 62))
def test_what_is_no_hole_stays(horizon: Horizon, revision: int) -> None:
    """A given revision is sent as it is given."""
    assert revision_of(revision, horizon) == revision


def test_holes_of_different_kinds_never_meet() -> None:
    """Every hole has a number of its own."""
    holes = [old(f) for f in range(1001)] + [AT_COMPACTION] + [below(j) for j in range(1, 1000)] + [ahead(j) for j in range(1, 1000)]
    assert len(set(holes)) == len(holes)


def test_compares_are_filled_from_what_was_seen() -> None:
    """Each target takes the field that it compares; a key never seen counts as absent."""
    guards = tuple(Compare(EQUAL, target, b"k", SEEN) for target in (VERSION, CREATE, MOD, LEASE))
    wrong = Compare(EQUAL, MOD, b"k", SEEN_WRONG)
    value = Compare(EQUAL, VALUE, b"k", OBSERVED)
    known = resolve(TxnRequest((*guards, wrong, value)), Horizon(10, 0), {b"k": KV})
    unknown = resolve(TxnRequest((*guards, wrong, value)), Horizon(10, 0), {})
    assert [compare.operand for compare in known.compare] == [4, 3, 9, 77, 10, b"seen"]
    assert [compare.operand for compare in unknown.compare] == [0, 0, 0, 0, 1, b""]


def test_memory_follows_replies() -> None:
    """Values come from reads, at any place of a transaction; a read that finds nothing forgets; reads of the past teach nothing."""
    memory = Memory()
    memory.note(RangeRequest(b"k", revision=5), RangeResponse(HEADER, (KV,), False, 1))
    assert memory.seen == {}
    memory.note(
        TxnRequest((), (PutRequest(b"x"), RangeRequest(b"k"))),
        TxnResponse(HEADER, True, (PutResponse(HEADER, None), RangeResponse(HEADER, (KV,), False, 1))),
    )
    assert memory.seen == {b"k": KV}
    memory.note(RangeRequest(b"k"), RangeResponse(HEADER, (), False, 0))
    assert memory.seen == {}


def test_memory_is_bounded() -> None:
    """However many keys come by, a client remembers a few."""
    memory = Memory()
    for index in range(10):
        kvs = tuple(KV._replace(key=b"%d/%d" % (index, number)) for number in range(50))
        memory.note(RangeRequest(b"a", b"b"), RangeResponse(HEADER, kvs, False, 50))
    assert len(memory.seen) == KEPT_KEYS_MAX


@given(prefix=st.binary(max_size=6), suffix=st.binary(max_size=4), other=st.binary(max_size=6))
def test_prefix_end_bounds_the_prefix(prefix: bytes, suffix: bytes, other: bytes) -> None:
    """A key lies in [prefix, end) exactly when it starts with the prefix; an end of NUL is no end."""
    end = prefix_end(prefix)
    for key in (prefix + suffix, other):
        assert (key >= prefix and (end == b"\0" or key < end)) == key.startswith(prefix)


def test_pools_are_in_key_order() -> None:
    """Sub-ranges of a pool are what their indices say."""
    keys = pool(b"k", 16)
    assert list(keys) == sorted(keys)
    assert len(set(keys)) == 16


def test_known_deviations_are_recognized() -> None:
    """A ranged revision counts only beside a write, at any depth; no operation at all counts, nested ones do not."""
    read, put = RangeRequest(b"k", revision=3), PutRequest(b"k")
    assert meets_known_deviation(TxnRequest((), (put, read)))
    assert meets_known_deviation(TxnRequest((), (put,), (TxnRequest((), (read,)),)))
    assert meets_known_deviation(TxnRequest((Compare(EQUAL, MOD, b"k", 0),)))
    assert not meets_known_deviation(TxnRequest((), (read,), (read,)))
    assert not meets_known_deviation(TxnRequest((), (put, RangeRequest(b"k"))))
    assert not meets_known_deviation(TxnRequest((), (TxnRequest(),)))
    assert not meets_known_deviation(read)
