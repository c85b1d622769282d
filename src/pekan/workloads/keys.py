"""Keys, ranges, and requests with holes: what a choice can say before any reply is known.

A choice is made before anything is known of the store, yet it says "read at an old revision" or "if nobody changed it since I looked".
So a choice carries a *template*: a request in which what replies will tell is a negative number (no field of etcd's requests is ever
negative) or the value `OBSERVED`. `resolve` fills them in::

    hole                 filled with
    old(f)               a revision between the highest compaction and the head, f/1000 of the way
    AT_COMPACTION        the highest compaction known (readable, and the edge of everything)
    below(j)             j below the highest compaction: refused as compacted
    ahead(j)             the head + j: refused as future, or for small j perhaps just there
    SEEN, SEEN_WRONG     in a compare: what this client last saw of the key, and that plus one
    OBSERVED             in a compare of values: the value this client last saw
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from pekan.wire.messages import (
    CREATE,
    LEASE,
    MOD,
    VALUE,
    VERSION,
    Compare,
    KeyValue,
    PutRequest,
    RangeRequest,
    TxnRequest,
    TxnResponse,
)

if TYPE_CHECKING:
    from pekan.etcd.client import Reply

_OLD_SCALE = 1000
AT_COMPACTION = -2000
_BELOW = -3000
_AHEAD = -5000
SEEN = -1
SEEN_WRONG = -2
OBSERVED = b"\0observed"
FAR = 1_000_000
"""So far ahead that no run writes its way there: refused as a future revision for certain. `ahead(FAR)`."""
KEPT_KEYS_MAX = 64
"""How many keys a client remembers of what it saw. The hot pools are smaller."""


def old(fraction: int) -> int:
    """The hole for a revision `fraction`/1000 of the way from the highest compaction (0) to the head (1000)."""
    assert 0 <= fraction <= _OLD_SCALE
    return -1 - fraction


def below(revisions: int) -> int:
    """The hole for `revisions` (1 to 999) below the highest compaction."""
    assert 1 <= revisions < 1000
    return _BELOW - revisions


def ahead(revisions: int) -> int:
    """The hole for `revisions` (1 or more) above the head."""
    assert revisions >= 1
    return _AHEAD - revisions


class Horizon(NamedTuple):
    """What is known of the store's revisions: the newest seen, and the highest compaction acknowledged (0: none)."""

    revision: int
    compacted: int


def revision_of(hole: int, horizon: Horizon) -> int:
    """The revision that fills `hole`; a number that is no hole stays."""
    if hole >= 0:
        return hole
    if hole <= _AHEAD:
        return horizon.revision + (_AHEAD - hole)
    if hole < _BELOW:
        # Nothing is compacted yet: revision 1 is readable on an empty start, and the nearest there is to it.
        return max(1, horizon.compacted - (_BELOW - hole))
    if hole == AT_COMPACTION:
        return max(1, horizon.compacted)
    low = max(1, horizon.compacted)
    return low + (max(low, horizon.revision) - low) * (-1 - hole) // _OLD_SCALE


class Memory:
    """What one client has seen: the last state of a few keys, as its own replies told."""

    def __init__(self) -> None:
        self.seen: dict[bytes, KeyValue] = {}

    def note_reply(self, request: Any, reply: Reply) -> None:
        """Remember what `reply` to `request` shows; nothing where it was an error."""
        if reply.outcome == "ok":
            self.note(request, reply.output)

    def note(self, request: Any, response: Any) -> None:
        """Remember what a reply shows of single keys."""
        if isinstance(request, RangeRequest):
            if request.keys_only or request.count_only:
                return
            if not request.range_end and not response.kvs and not request.revision:
                self.seen.pop(request.key, None)
            elif request.revision == 0:
                for kv in response.kvs[:KEPT_KEYS_MAX]:
                    self._keep(kv)
        elif isinstance(request, TxnRequest) and isinstance(response, TxnResponse):
            branch = request.success if response.succeeded else request.failure
            for op, answer in zip(branch, response.responses, strict=False):
                self.note(op, answer)

    def wrote(self, op: Any, revision: int) -> None:
        """Remember that `op`, a put or delete of one key, took effect at `revision`. What a put leaves out is kept as it was."""
        before = self.seen.get(op.key)
        if not isinstance(op, PutRequest):
            self.seen.pop(op.key, None)
        elif before is None:
            self._keep(KeyValue(op.key, revision, revision, 1, op.value, op.lease))
        else:
            self._keep(before._replace(mod_revision=revision, version=before.version + 1, value=op.value, lease=op.lease))

    def _keep(self, kv: KeyValue) -> None:
        if kv.key in self.seen or len(self.seen) < KEPT_KEYS_MAX:
            self.seen[kv.key] = kv


def resolve(request: Any, horizon: Horizon, seen: Mapping[bytes, KeyValue]) -> Any:
    """`request` with every hole filled."""
    if isinstance(request, RangeRequest):
        return request._replace(
            revision=revision_of(request.revision, horizon),
            min_mod_revision=revision_of(request.min_mod_revision, horizon),
            max_mod_revision=revision_of(request.max_mod_revision, horizon),
            min_create_revision=revision_of(request.min_create_revision, horizon),
            max_create_revision=revision_of(request.max_create_revision, horizon),
        )
    if isinstance(request, TxnRequest):
        return TxnRequest(
            tuple(_compare(compare, seen) for compare in request.compare),
            tuple(resolve(op, horizon, seen) for op in request.success),
            tuple(resolve(op, horizon, seen) for op in request.failure),
        )
    return request


_FIELD = {VERSION: "version", CREATE: "create_revision", MOD: "mod_revision", LEASE: "lease"}


def _compare(compare: Compare, seen: Mapping[bytes, KeyValue]) -> Compare:
    kv = seen.get(compare.key)
    if compare.target == VALUE:
        return compare._replace(operand=kv.value if kv else b"") if compare.operand == OBSERVED else compare
    if compare.operand not in (SEEN, SEEN_WRONG):
        return compare
    value: int = getattr(kv, _FIELD[compare.target]) if kv else 0
    return compare._replace(operand=value + (compare.operand == SEEN_WRONG))


def prefix_end(prefix: bytes) -> bytes:
    """The `range_end` of every key that starts with `prefix`; b"\\0" (no end) where there is none."""
    for index in range(len(prefix) - 1, -1, -1):
        if prefix[index] < 0xFF:
            return prefix[:index] + bytes([prefix[index] + 1])
    return b"\0"


EVERYTHING = (b"\0", b"\0")
"""key and range_end of the whole keyspace."""


def pool(prefix: bytes, size: int) -> tuple[bytes, ...]:
    """`size` keys under `prefix`, in key order."""
    return tuple(b"%s%02d" % (prefix, index) for index in range(size))


def recent(rng: random.Random) -> int:
    """A hole for an old revision, nearer the head more often: most watches and lists of real clients start close behind it."""
    return old(int(_OLD_SCALE * (1 - rng.random() ** 3)))


def writes(request: Any) -> bool:
    """Whether `request` (or a part of it, in any branch) may change the store."""
    if isinstance(request, TxnRequest):
        return any(writes(op) for op in (*request.success, *request.failure))
    return not isinstance(request, RangeRequest)


def ranged_at_revision(request: Any) -> bool:
    """Whether `request` holds a Range at a given revision, at any depth."""
    if isinstance(request, TxnRequest):
        return any(ranged_at_revision(op) for op in (*request.success, *request.failure))
    return isinstance(request, RangeRequest) and request.revision != 0


def meets_known_deviation(request: Any) -> bool:
    """Whether etcd is known to answer `request` against its own documentation: a Range at a revision in a transaction that writes
    (#18667, mended in 3.7.0), or a transaction with no operation in either branch (no read barrier up to 3.7.3)."""
    if not isinstance(request, TxnRequest):
        return False
    if not request.success and not request.failure:
        return True
    return writes(request) and ranged_at_revision(request)


def put_values(request: Any) -> list[bytes]:
    """Every value that `request` writes, at any depth."""
    if isinstance(request, TxnRequest):
        return [value for op in (*request.success, *request.failure) for value in put_values(op)]
    return [request.value] if isinstance(request, PutRequest) and not request.ignore_value else []
