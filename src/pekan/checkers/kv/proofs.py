"""Who had been shown a revision, and when: the exhibit for "this was known before that was called"."""

from __future__ import annotations

from pekan.checkers import telling
from pekan.checkers.evidence import Watched
from pekan.checkers.kv.collect import Buckets
from pekan.verdict import Exhibit


def known_before(b: Buckets, evidence: Watched, revision: int, call: int) -> Exhibit | None:
    """The first answer or delivery found that showed a revision above `revision` before `call` (ns)."""
    for r, op in b.existed:
        if r > revision and op.ret is not None and op.ret < call:
            return telling.exhibit(op, f"revision {r} existed")
    for r in range(revision + 1, max(b.highest, revision + 1) + 1):
        write = b.writes.get(r)
        for op in ([write] if write is not None else []) + b.readers.get(r, []):
            if op.ret is not None and op.ret < call:
                return telling.exhibit(op)
        seen = evidence.seen.get(r)
        if seen is not None and seen[0] < call:
            return delivered(r, *seen)
    return None


def delivered(revision: int, time: int, stream: int) -> Exhibit:
    """The delivery of `revision` by `stream` at `time` (ns), without what it held."""
    return Exhibit(f"watch stream {stream} delivered revision {revision}", stream=stream, start=time, end=time)
