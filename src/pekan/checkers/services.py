"""What members write on behalf of their callers: calls to etcd's lock and election services, as the ordinary requests that they come to.

::

    call                       requests of the member, in this order                                       when
    =========================  ==========================================================================  ======================
    Lock(name, lease)          put NAME/LEASE "" unless it is there, with the lease                        always
    Campaign(name, lease, v)   the same with v; or put v where it is there with another value              always
                               delete NAME/LEASE                                                           the wait failed
    Unlock(key)                delete key                                                                  always
    Proclaim(leader, v)        put leader.key=v with leader.lease if its create revision is leader.rev     always
    Resign(leader)             delete leader.key if its create revision is leader.rev                      always
    any with lease 0           grant a lease of 60 s, before anything else                                 always

Nobody recorded these requests, so each is one that may have taken effect once, at any time after the call, or never. A call that was
answered did more than that; not to use it makes checkers see less and never wrongly. `with_requests` adds them to a history, and every
checker then finds who wrote what it sees written. They have negative numbers, and `caller_of` leads back to the call; what counts the
client's own requests leaves them out.

Sources: etcd server/etcdserver/api/v3lock/lock.go and v3election/election.go, client/v3/concurrency/{session,mutex,election}.go (3.4.3 to
3.7.1; the member's own client sends each request once: client/v3/kv.go NewKVFromKVClient).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from pekan.history.types import FAILED, INDEFINITE, OK, History, Operation
from pekan.wire import pb
from pekan.wire.messages import CREATE, EQUAL, Compare, DeleteRangeRequest, LeaseGrantRequest, PutRequest, Request, TxnRequest

SESSION_TTL_S = 60
"""TTL of the lease that a member grants where the caller names none (client/v3/concurrency/session.go)."""
_REQUESTS_MAX = 4
"""Requests of one call have numbers of their own: no call comes to more."""
SERVICES = (pb.LockRequest, pb.UnlockRequest, pb.CampaignRequest, pb.ProclaimRequest, pb.ResignRequest)


class Served(NamedTuple):
    """A history with the requests of its members. `unknown`: a call that may have put a key whose name nobody here can know, or None."""

    history: History
    unknown: Operation | None


def with_requests(history: History) -> Served:
    """`history`, which lives in memory, with what its members wrote on behalf of their callers; itself where they did not."""
    calls = history.of(*SERVICES)
    if not calls:
        return Served(history, None)
    operations: list[Operation] = []
    unknown = None
    for op in history.operations:
        operations.append(op)
        if type(op.input) in SERVICES and op.outcome != FAILED:
            if _writes_unknown_key(op):
                unknown = unknown or op
            else:
                operations += _unanswered(op)
    return Served(replace(history, operations=tuple(operations)), unknown)


def caller_of(number: int) -> int:
    """The number of the operation that a client called: `number` itself, or that of the call which a member's request was for."""
    return number if number >= 0 else (-number - 1) // _REQUESTS_MAX


def waiting_key(name: bytes, lease: int) -> bytes:
    """The key by which the owner of `lease` waits for the lock or election `name`, and holds it."""
    return b"%s/%s" % (name, format(lease, "x").encode())


def _unanswered(op: Operation) -> Iterator[Operation]:
    gave_up = op.gave_up if op.outcome != OK else op.ret
    for index, request in enumerate(_requests(op)):
        assert index < _REQUESTS_MAX
        number = -op.id * _REQUESTS_MAX - index - 1
        # A process of its own: what comes next in the caller's does not wait for it.
        yield op._replace(id=number, process=number, ret=None, outcome=INDEFINITE, input=request, output=None, gave_up=gave_up)


def _writes_unknown_key(op: Operation) -> bool:
    """Whether the key or its lease was chosen by the member and not told."""
    if isinstance(op.input, pb.ProclaimRequest):
        return op.input.leader.lease == 0
    return isinstance(op.input, pb.LockRequest | pb.CampaignRequest) and op.input.lease == 0 and _told(op) is None


def _told(op: Operation) -> tuple[bytes, int] | None:
    """Key and lease as the answer tells; None where there is none that does."""
    if isinstance(op.output, pb.CampaignResponse):
        return op.output.leader.key, op.output.leader.lease
    if isinstance(op.output, pb.LockResponse):
        try:
            return op.output.key, int(op.output.key.rpartition(b"/")[2], 16)
        except ValueError:
            return None
    return None


def _requests(op: Operation) -> Iterator[Request]:
    asked = op.input
    if isinstance(asked, pb.LockRequest | pb.CampaignRequest):
        key, lease = _told(op) or (waiting_key(asked.name, asked.lease), asked.lease)
        if not asked.lease:
            yield LeaseGrantRequest(SESSION_TTL_S, lease)
        if isinstance(asked, pb.LockRequest):
            yield TxnRequest((Compare(EQUAL, CREATE, key, 0),), (PutRequest(key, b"", lease),))
        else:
            yield PutRequest(key, asked.value, lease)
        if op.outcome != OK:
            yield DeleteRangeRequest(key)
    elif isinstance(asked, pb.UnlockRequest):
        yield DeleteRangeRequest(asked.key)
    elif isinstance(asked, pb.ProclaimRequest):
        leader = asked.leader
        yield TxnRequest((Compare(EQUAL, CREATE, leader.key, leader.rev),), (PutRequest(leader.key, asked.value, leader.lease),))
    elif isinstance(asked, pb.ResignRequest):
        leader = asked.leader
        yield TxnRequest((Compare(EQUAL, CREATE, leader.key, leader.rev),), (DeleteRangeRequest(leader.key),))
