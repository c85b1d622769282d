"""The oracle itself: what is plainly legal it accepts, what is plainly not it refuses."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from oracle.brute import legal
from oracle.fuzz import config_of
from oracle.small import at, history
from oracle.watching import stories
from pekan.history.types import FAILED, INDEFINITE, OK
from pekan.wire import errors
from pekan.wire.errors import WireError
from pekan.wire.messages import (
    CompactionRequest,
    DeleteRangeRequest,
    DeleteRangeResponse,
    KeyValue,
    LeaseGrantRequest,
    LeaseGrantResponse,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
)
from simulator.cluster import simulate
from simulator.mutations import MUTATIONS, Mutation

SECOND = 1_000_000_000


PUT = PutRequest(b"k", b"1")
ONE = KeyValue(b"k", 2, 2, 1, b"1", 0)
GET = RangeRequest(b"k")
FOUND = RangeResponse(at(2), (ONE,), False, 1)
NOTHING = RangeResponse(at(1), (), False, 0)
LOST = WireError(errors.UNAVAILABLE, "lost")
COMPACTED = WireError(errors.OUT_OF_RANGE, errors.COMPACTED)

LEGAL = {
    "read after write": history((0, 1, OK, PUT, PutResponse(at(2), None)), (2, 3, OK, GET, FOUND)),
    "read beside write": history((0, 5, OK, PUT, PutResponse(at(2), None)), (2, 3, OK, GET, NOTHING)),
    "lost answer that was applied": history((0, None, INDEFINITE, PUT, LOST), (2, 3, OK, GET, FOUND)),
    "lost answer that was applied late": history((0, None, INDEFINITE, PUT, LOST), (2, 3, OK, GET, NOTHING), (4, 5, OK, GET, FOUND)),
    "a member that lags": history((0, 1, OK, PUT, PutResponse(at(2), None)), (2, 3, OK, GET._replace(serializable=True), NOTHING)),
    "a lease that ran out": history(
        (0, 1, OK, LeaseGrantRequest(1, 7), LeaseGrantResponse(at(1), 7, 1, "")),
        (2, 3, OK, PUT._replace(lease=7), PutResponse(at(2), None)),
        (2 * SECOND, 3 * SECOND, OK, GET, RangeResponse(at(3), (), False, 0)),
    ),
}
ILLEGAL = {
    "stale read": history((0, 1, OK, PUT, PutResponse(at(2), None)), (2, 3, OK, GET, NOTHING)),
    "one revision twice": history((0, 1, OK, PUT, PutResponse(at(2), None)), (2, 3, OK, PUT, PutResponse(at(2), None))),
    "a value nobody wrote": history(
        (0, 1, OK, PUT, PutResponse(at(2), None)), (2, 3, OK, GET, FOUND._replace(kvs=(ONE._replace(value=b"2"),)))
    ),
    "read from before the call": history((4, None, INDEFINITE, PUT, LOST), (2, 3, OK, GET, FOUND)),
    "a refused write that shows": history((0, 1, FAILED, PUT, WireError(errors.NOT_FOUND, "no")), (2, 3, OK, GET, FOUND)),
    "an indefinite write that shows twice": history(
        (0, 1, OK, DeleteRangeRequest(b"k"), DeleteRangeResponse(at(1), 0, ())),
        (0, None, INDEFINITE, PUT, LOST),
        (2, 3, OK, DeleteRangeRequest(b"k"), DeleteRangeResponse(at(3), 1, ())),
        (4, 5, OK, GET, RangeResponse(at(4), (KeyValue(b"k", 4, 4, 1, b"1", 0),), False, 1)),
    ),
    "compacted without a compaction": history((0, 1, FAILED, GET._replace(revision=1), COMPACTED)),
    "compacted by a later call": history(
        (0, 1, OK, PUT, PutResponse(at(2), None)),
        (2, 3, FAILED, GET._replace(revision=1), COMPACTED),
        (4, None, INDEFINITE, CompactionRequest(2), LOST),
    ),
    "a lease that ran out early": history(
        (0, 1, OK, LeaseGrantRequest(5, 7), LeaseGrantResponse(at(1), 7, 5, "")),
        (2, 3, OK, PUT._replace(lease=7), PutResponse(at(2), None)),
        (2 * SECOND, 3 * SECOND, OK, GET, RangeResponse(at(3), (), False, 0)),
    ),
}


@pytest.mark.parametrize("name", LEGAL)
def test_oracle_accepts_what_is_plainly_legal(name: str) -> None:
    """The history has an order by construction, and the oracle finds one."""
    assert legal(LEGAL[name], evidence=False)


@pytest.mark.parametrize("name", ILLEGAL)
def test_oracle_refuses_what_is_plainly_illegal(name: str) -> None:
    """The history has no order by construction, and the oracle finds none."""
    assert not legal(ILLEGAL[name], evidence=False)


SEEDS = range(80)


def test_simulated_histories_are_legal() -> None:
    """What the simulator makes is legal to the oracle, with and without what watches saw."""
    for seed in SEEDS:
        s = simulate(config_of(seed))
        assert legal(s.history, evidence=False, hides_lease=s.config.hides_lease), seed
        assert legal(s.history, evidence=True, hides_lease=s.config.hides_lease), seed
        assert not list(stories(s.history, s.truth)), seed


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_mutations_are_what_they_say(mutation: Mutation) -> None:
    """With all watches recorded and unique values, the oracle calls every illegal mutation illegal and every legal one legal."""
    changed = 0
    for seed in range(1_000):
        s = simulate(replace(config_of(seed), unique_values=True))
        history = mutation.change(s, Random(seed))
        if history is None:
            continue
        right = legal(history, evidence=True, hides_lease=s.config.hides_lease) and not any(stories(history, s.truth))
        assert right == (mutation.kind == "legal"), f"{mutation.name} at seed {seed}"
        changed += 1
        if changed == 8:
            break
    assert changed, f"{mutation.name} never found anything to change"
