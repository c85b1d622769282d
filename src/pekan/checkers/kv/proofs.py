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
            return Exhibit(f"watch stream {seen[1]} delivered revision {r}", stream=seen[1], start=seen[0], end=seen[0])
    return None
