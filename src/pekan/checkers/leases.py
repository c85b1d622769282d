"""Did leases live as long as their replies promised? (LEASE-EARLY)

::

    client     ├─ KeepAlive ──> TTL 5 ─┤
               c                                          c + 5 s
    time       ●──────────────────────────────────────────●──────────────>
                                    ▲ t: some reply shows a revision at or above the one that deleted the key
                                    └─ t < c + 5 s, and nobody can have revoked or deleted: early

The renewal happened at c or later, so the lease lives at least until c + TTL of the reply, by one clock. Absence is only what the replayed
order proves: a deletion of a key that had this lease, at a revision that no request wrote. It was true when the first reply of any kind
arrived that shows a revision as high. "Not found" from KeepAlive and LeaseTimeToLive, and LeaseLeases, come from a member that only
believes to know, and prove nothing.

Explained, and so never a finding: a revoke that may have happened after the renewal; a delete or transaction that may have taken the key,
refused ones included (whether a refused request showed effect is the key-value checker's to say); a fault that moves clocks; foreign
writers; an expiry that is late. Cost: one pass over operations and messages, a look at the suspects for each early expiry only.

Sources: etcd server/lease/lessor.go (Grant, Renew, Promote extend by the whole TTL), https://etcd.io/docs/latest/learning/api/#lease-api.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pekan import native
from pekan.checkers.case import Case
from pekan.checkers.causes import follows, timing_waived
from pekan.checkers.native.evidence import proven, shown
from pekan.history.types import OK, History, Operation, Stream
from pekan.verdict import CheckerReport, Exhibit, Finding
from pekan.wire import messages as wire
from pekan.wire.messages import (
    DELETE,
    DeleteRangeRequest,
    DeleteRangeResponse,
    LeaseGrantRequest,
    LeaseKeepAliveRequest,
    LeaseKeepAliveResponse,
    LeaseRevokeRequest,
    PutResponse,
    RangeResponse,
    TxnRequest,
    TxnResponse,
)

NAME = "leases"
NS = 1_000_000_000


class Renewal(NamedTuple):
    """A grant or keepalive that succeeded: asked at `call`, answered at `ret` with `ttl` (s)."""

    call: int
    ret: int
    ttl: int
    what: str
    member: str
    operation: int | None
    stream: int | None


class Sight(NamedTuple):
    """The first time at which a reply showed `revision` or a higher one."""

    time: int
    revision: int
    what: str
    member: str
    operation: int | None
    stream: int | None


@dataclass(slots=True)
class Leases:
    """What the history says about leases."""

    renewals: dict[int, list[Renewal]]
    revokes: dict[int, list[Operation]]


def check_leases(case: Case) -> CheckerReport:
    """Judge every expiry that the replayed order shows; not applicable where no lease was ever granted or kept alive."""
    history = case.history
    leases = collect(history)
    judged = {"leases": len(leases.renewals), "renewals": sum(map(len, leases.renewals.values())), "expiries": 0}
    if not leases.renewals:
        return CheckerReport(NAME, applicable=False)
    expiries = list(_expiries(case)) if case.options.writers == "exclusive" and history.order == "real-time" else []
    judged["expiries"] = len(expiries)
    findings = []
    revisions = [revision for revision, _, _ in expiries]
    suspects: list[Operation] | None = None
    for (revision, lease, keys), sight in zip(expiries, _sights(case, revisions), strict=True):
        renewal = None if sight is None else alive(leases, lease, sight.time)
        if sight is None or renewal is None or timing_waived(case, sight.time):
            continue
        if suspects is None:
            suspects = _suspects(history, revisions)
        if not any(_may_delete(op, revision, keys, sight.time) for op in suspects):
            findings.append(follows(case, _early(renewal, sight, revision, lease, keys), revision))
    return CheckerReport(NAME, applicable=True, judged=judged, findings=tuple(findings))


def _expiries(case: Case) -> Iterator[tuple[int, int, tuple[bytes, ...]]]:
    """(revision, lease, keys) of every deletion of keys with one lease, at a proven revision that no recorded request wrote."""
    order = case.order
    if order is None:
        if (held := proven(case)) is not None:
            for revision, lease, names in native.core.expiries(held, shown(case)):
                yield revision, lease, tuple(names)
        return
    for revision, events in order.events.items():
        if events[:1] and events[0].type == DELETE and revision not in order.written_by and revision not in order.unknown:
            leases = {event.prev_kv.lease if event.type == DELETE and event.prev_kv is not None else 0 for event in events}
            if len(leases) == 1 and (lease := leases.pop()):
                yield revision, lease, tuple(event.kv.key for event in events)


def alive(leases: Leases, lease: int, time: int) -> Renewal | None:
    """The renewal by which `lease` lives on longest at `time`; None where it may have run out or been revoked."""
    renewals = [
        each
        for each in leases.renewals.get(lease, ())
        if each.call < time < each.call + each.ttl * NS and not _may_be_revoked(leases, lease, each.call, time)
    ]
    return max(renewals, key=lambda each: each.call + each.ttl * NS, default=None)


def _early(renewal: Renewal, sight: Sight, revision: int, lease: int, keys: tuple[bytes, ...]) -> Finding:
    left_ms = (renewal.call + renewal.ttl * NS - sight.time) // 1_000_000
    return Finding(
        code="LEASE-EARLY",
        summary=f"lease {lease:x} ended at least {left_ms} ms before its time, taking {_names(keys)} with it",
        explanation=(
            f"{renewal.what} was asked for and succeeded with a TTL of {renewal.ttl} s, so the lease lives at least that long from the "
            f"moment of asking. A reply that came {(sight.time - renewal.call) // 1_000_000} ms after that moment shows revision "
            f"{sight.revision}, and at revision {revision} {_names(keys)}, held by this lease, had been deleted. No recorded request wrote "
            "that revision, and none revoked the lease or can have deleted the key."
        ),
        certificate=(
            Exhibit(
                f"{renewal.what} -> TTL {renewal.ttl} s",
                operation=renewal.operation,
                stream=renewal.stream,
                member=renewal.member,
                start=renewal.call,
                end=renewal.ret,
            ),
            Exhibit(
                f"{sight.what} shows revision {sight.revision}; revision {revision} deleted {_names(keys)}",
                operation=sight.operation,
                stream=sight.stream,
                member=sight.member,
                start=sight.time,
                end=sight.time,
            ),
        ),
        subject={"lease": lease, "key": keys[0].decode(errors="backslashreplace"), "revision": revision},
        shape=("expiry", "grant" if renewal.stream is None and "Grant" in renewal.what else "keepalive"),
    )


def _names(keys: tuple[bytes, ...]) -> str:
    return ", ".join(map(repr, keys[:3])) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")


# ---- what else can have deleted the keys ----


def _may_be_revoked(leases: Leases, lease: int, since: int, before: int) -> bool:
    """True where a revoke may have ended the lease that a renewal asked for at `since` found alive. One answered before that was of an
    earlier lease with the same id; a refused one counts, to be safe."""
    return any(op.call < before and (op.ret is None or op.ret >= since) for op in leases.revokes.get(lease, ()))


def _suspects(history: History, revisions: Sequence[int]) -> list[Operation]:
    """The deletes and transactions that may have deleted something at one of `revisions`: what was answered at another did it there."""
    if history.session is not None:
        return [history.operations[index] for index in history.session.suspects(sorted(revisions))]
    at = set(revisions)
    asked = (op for op in history.of(DeleteRangeRequest, TxnRequest) if op.outcome != OK or op.output.header.revision in at)
    return [op for op in asked if _deletes(op.input)]


def _may_delete(op: Operation, revision: int, keys: tuple[bytes, ...], before: int) -> bool:
    if op.call >= before:
        return False
    if op.outcome == OK and op.output.header.revision != revision:
        return False  # What it changed, it changed at its own revision.
    return any(_takes(op.input, key) for key in keys)


def _takes(request: Any, key: bytes) -> bool:
    if isinstance(request, DeleteRangeRequest):
        if request.range_end == b"":
            return key == request.key
        return request.key <= key and (request.range_end == b"\0" or key < request.range_end)
    if isinstance(request, TxnRequest):
        return any(_takes(op, key) for op in (*request.success, *request.failure))
    return False


def _deletes(request: Any) -> bool:
    if type(request) is TxnRequest:
        return any(map(_deletes, request.success)) or any(map(_deletes, request.failure))
    return type(request) is DeleteRangeRequest


# ---- one pass over the history ----


def collect(history: History) -> Leases:
    """Every renewal and every attempt to revoke in `history`."""
    found = Leases({}, {})
    for op in history.of(LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest):
        kind = type(op.input)
        if kind is LeaseGrantRequest and op.outcome == OK and op.ret is not None:
            renewal = Renewal(op.call, op.ret, op.output.ttl, f"LeaseGrant({op.output.id:x})", op.member, op.id, None)
            found.renewals.setdefault(op.output.id, []).append(renewal)
        elif kind is LeaseKeepAliveRequest and op.outcome == OK and op.ret is not None and op.output.ttl > 0:
            renewal = Renewal(op.call, op.ret, op.output.ttl, f"KeepAlive({op.input.id:x})", op.member, op.id, None)
            found.renewals.setdefault(op.input.id, []).append(renewal)
        elif kind is LeaseRevokeRequest:
            found.revokes.setdefault(op.input.id, []).append(op)
    for stream in history.streams:
        if stream.method == wire.LEASE_KEEP_ALIVE:
            for lease, renewal in _keepalives(stream):
                found.renewals.setdefault(lease, []).append(renewal)
    return found


def _keepalives(stream: Stream) -> Iterator[tuple[int, Renewal]]:
    """The successful renewals of `stream`. The member answers each request in turn (v3rpc/lease.go), so each reply answers the oldest
    request for its lease that is still open."""
    asked: dict[int, deque[int]] = {}
    for time, sent, message in stream.messages:
        if sent and isinstance(message, LeaseKeepAliveRequest):
            asked.setdefault(message.id, deque()).append(time)
        elif isinstance(message, LeaseKeepAliveResponse):
            waiting = asked.get(message.id)
            if waiting:
                call = waiting.popleft()
                if message.ttl > 0:
                    yield message.id, Renewal(call, time, message.ttl, f"KeepAlive({message.id:x})", stream.member, None, stream.id)


def _sights(case: Case, revisions: Sequence[int]) -> list[Sight | None]:
    """For each of `revisions`, the earliest reply that shows it or a higher one."""
    if not revisions:
        return []
    if case.history.session is not None:
        return _sights_held(case, revisions)
    sights = all_sights(case.history)
    at = [sight.revision for sight in sights]
    indexes = (bisect_left(at, revision) for revision in revisions)
    return [sights[index] if index < len(sights) else None for index in indexes]


def _sights_held(case: Case, revisions: Sequence[int]) -> list[Sight | None]:
    """The same where the native core holds the history."""
    history = case.history
    ascending = sorted(set(revisions))
    found: dict[int, Sight] = {}
    for wanted, row in zip(ascending, native.core.first_sights(shown(case), ascending), strict=True):
        if row is not None:
            time, revision, operation, stream = row
            if operation is not None:
                op = history.operations[operation]
                found[wanted] = Sight(time, revision, f"the answer to {type(op.input).__name__}", op.member, op.id, None)
            else:
                told = history.streams[stream]
                found[wanted] = Sight(time, revision, "a watch message", told.member, None, told.id)
    return [found.get(revision) for revision in revisions]


def all_sights(history: History) -> list[Sight]:
    """For ascending revisions, the earliest reply that shows that revision or a higher one: times ascend too."""
    seen: dict[int, Sight] = {}
    for op in history.operations:
        if op.outcome == OK and op.ret is not None:
            revision = _shown(op.output)
            if revision and (revision not in seen or op.ret < seen[revision].time):
                seen[revision] = Sight(op.ret, revision, f"the answer to {type(op.input).__name__}", op.member, op.id, None)
    for stream in history.streams:
        if stream.method == wire.WATCH:
            for time, sent, message in stream.messages:
                revision = 0 if sent else message.header.revision
                if revision and (revision not in seen or time < seen[revision].time):
                    seen[revision] = Sight(time, revision, "a watch message", stream.member, None, stream.id)
    return _frontier(seen.values())


def _frontier(seen: Iterable[Sight]) -> list[Sight]:
    best: list[Sight] = []
    for sight in sorted(seen, key=lambda each: -each.revision):
        if not best or sight.time < best[-1].time:
            best.append(sight)
    best.reverse()
    return best


_REVEALING = (PutResponse, RangeResponse, DeleteRangeResponse, TxnResponse)


def _shown(output: Any) -> int:
    """The revision that existed when `output` was made; 0 for answers whose header is of another kind."""
    return output.header.revision if isinstance(output, _REVEALING) else 0
