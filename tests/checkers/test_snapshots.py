"""Snapshots: the digest at the end is of what came before it."""

from __future__ import annotations

import hashlib

import pytest

from pekan.checkers.snapshots import check_snapshots
from pekan.history.types import Stream, StreamMessage
from pekan.wire import pb
from pekan.wire.messages import SNAPSHOT

from .judging import Clock, case, codes

DATA = bytes(range(256)) * 20


def snapshot(data: bytes, *, code: int = 0, by_client: bool = False, remaining: int = 0) -> Clock:
    """One stream of `data` in pieces of a kilobyte."""
    clock = Clock()
    pieces = [data[at : at + 1024] for at in range(0, len(data), 1024)]
    told = [
        StreamMessage(2 + index, False, pb.SnapshotResponse(remaining_bytes=remaining or (len(pieces) - 1 - index), blob=piece))
        for index, piece in enumerate(pieces)
    ]
    messages = (StreamMessage(1, True, pb.SnapshotRequest()), *told)
    clock.streams.append(Stream(1, SNAPSHOT, "c", "m1", "", messages, 99, code, "", by_client))
    return clock


@pytest.mark.parametrize("wrong", [DATA[:-1], DATA[:100] + b"x" + DATA[101:]])
def test_a_wrong_digest_is_caught(wrong: bytes) -> None:
    """A byte that was lost or changed on the way shows; the right ones do not."""
    digest = hashlib.sha256(DATA).digest()
    assert codes(check_snapshots(case(snapshot(wrong + digest)))) == [("SNAPSHOT-DIGEST", "counts")]
    report = check_snapshots(case(snapshot(DATA + digest)))
    assert (codes(report), report.judged) == ([], {"snapshots": 1, "whole": 1})


def test_a_stream_that_did_not_come_to_its_end_proves_nothing() -> None:
    """Broken by the member, closed by the client, or ended with something left: no digest is expected."""
    for clock in (snapshot(DATA, code=14), snapshot(DATA, by_client=True), snapshot(DATA, remaining=5)):
        report = check_snapshots(case(clock))
        assert (codes(report), report.judged) == ([], {"snapshots": 1, "whole": 0})
    assert not check_snapshots(case(Clock())).applicable
