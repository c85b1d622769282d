"""Compactions: a second order, by compacted revision, beside the order of revisions.

::

    compact(5) ok ──> compact(9) ok ──> compact(20) ok        each above the one before, each at a revision that existed
         │                 │
         └ after every answer that read below 5
                           └ before every "compacted" for a revision below 9

    earliest(c) = max(call, earliest of revision c, of answers that read below c, of compactions below c)      must be <= its return

"compacted" for revision q: to a Range, some compaction above q had happened; to a Compaction, one at or above q. Unanswered compactions may
have happened, at the time that this order leaves them. A member that answers for itself may know of any compaction that was asked for by
then (etcd server/storage/mvcc/kvstore.go, updateCompactRev and rangeKeys). The header of a Compaction's answer is filled after the fact: it
proves only that its revision existed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate
from typing import Literal, NamedTuple

from pekan.checkers import telling
from pekan.checkers.kv.collect import Buckets
from pekan.checkers.kv.problems import Problem
from pekan.checkers.kv.timing import ALWAYS, Timing
from pekan.history.types import OK, Operation
from pekan.models.etcd import is_compares_only, is_local
from pekan.verdict import Finding
from pekan.wire.messages import CompactionRequest


class _Done(NamedTuple):
    """A compaction and the earliest time at which it can have happened."""

    revision: int
    earliest: int
    op: Operation


def judge_compactions(b: Buckets, timing: Timing, refusals: bool) -> Iterator[Problem]:
    """Problems of the compaction order. `refusals`: also judge "compacted" answers, which needs every compaction to be recorded."""
    answered = sorted((op for op in b.compactions if op.outcome == OK), key=lambda op: (op.input.revision, op.call))
    reads = _old_reads(b, timing) if b.compactions else []
    done: list[_Done] = []
    before, at = -ALWAYS, 0
    last_read: Operation | None = None
    for op in answered:
        q = op.input.revision
        if done and done[-1].revision == q:
            yield twice(done[-1].op, op)
            continue
        while at < len(reads) and reads[at][0] < q:
            if reads[at][1] > before:
                before, last_read = reads[at][1], reads[at][2]
            at += 1
        earliest = max(before, op.call, timing.earliest_of(q))
        if timing.real_time and op.ret is not None and earliest > op.ret:
            yield out_of_order(op, *_why(op, timing, last_read, done[-1].op if done else None))
            continue
        before = max(before, earliest)
        done.append(_Done(q, earliest, op))
    if refusals:
        yield from _refusals(b, timing, done, reads)


def _old_reads(b: Buckets, timing: Timing) -> list[tuple[int, int, Operation]]:
    """(revision asked for, earliest time, operation) of every linearizable answer that read at a named revision, in order of the first."""
    found = [(op.input.revision, max(timing.earliest_of(revision), op.call), op) for revision, op in b.named]
    found.sort(key=lambda item: item[:2])
    return found


def _refusals(b: Buckets, timing: Timing, done: list[_Done], reads: list[tuple[int, int, Operation]]) -> Iterator[Problem]:
    possible = [*done, *_unanswered(b, timing, done, reads)]
    possible.sort(key=lambda item: item.revision)
    revisions = [item.revision for item in possible]
    # The earliest of all at or above each place: a refusal asks for any of them.
    soonest = [ALWAYS] * (len(possible) + 1)
    for index in range(len(possible) - 1, -1, -1):
        soonest[index] = min(soonest[index + 1], possible[index].earliest)
    calls = sorted((op.input.revision, op.call) for op in b.compactions)
    for q, op in b.compacted:
        lowest = q if type(op.input) is CompactionRequest else q + 1
        if lowest <= 0 and type(op.input) is CompactionRequest:
            continue  # etcd begins with the compact revision -1 and refuses what is not above it.
        if is_local(op.input) or is_compares_only(op.input):
            explained = any(revision >= lowest and (call <= _end(op) or not timing.real_time) for revision, call in calls)
        else:
            explained = soonest[bisect_left(revisions, lowest)] <= _end(op)
        if not explained:
            yield unexplained(op, q)


def _end(op: Operation) -> int:
    return ALWAYS - 1 if op.ret is None else op.ret


def _unanswered(b: Buckets, timing: Timing, done: list[_Done], reads: list[tuple[int, int, Operation]]) -> Iterator[_Done]:
    asked = [revision for revision, _, _ in reads]
    read_by = list(accumulate((earliest for _, earliest, _ in reads), max))
    reached = [item.revision for item in done]
    done_by = list(accumulate((item.earliest for item in done), max))
    # Nobody can have compacted a revision that even all unseen writes together would not reach.
    # (Revision 1 is there before any write, also where no answer shows it.)
    reachable = max(timing.last, timing.first - 1) + len(b.pending) + sum(map(len, b.grants.values())) if b.limit is None else ALWAYS
    for op in b.compactions:
        if op.outcome != OK and op.input.revision <= reachable:
            q = op.input.revision
            below, above = bisect_left(asked, q), bisect_left(reached, q)
            earlier = max(read_by[below - 1] if below else -ALWAYS, done_by[above - 1] if above else -ALWAYS)
            yield _Done(q, max(op.call, timing.earliest_of(q), earlier), op)


def twice(first: Operation, second: Operation) -> Problem:
    """Two answered compactions of one revision."""
    return Problem(
        first.input.revision,
        Finding(
            code="KV-COMPACTED",
            summary=f"revision {first.input.revision} was compacted twice",
            explanation=f"Operations {first.id} and {second.id} both compacted revision {first.input.revision} and were both answered "
            "without an error. Compacting at or below the compact revision is refused.",
            certificate=(telling.exhibit(first), telling.exhibit(second)),
            subject={"revision": first.input.revision, "operations": [first.id, second.id]},
            shape=("compaction", "twice"),
        ),
        None,
    )


Why = Literal["too early", "read below", "compacted below", "read below by revision"]
"""What an answered compaction contradicts: that its revision existed; an operation called after it that read below it, or compacted below
it; an answer that took place after it, by its revision, and read below it."""


def _why(op: Operation, timing: Timing, read: Operation | None, below: Operation | None) -> tuple[Why, Operation | None]:
    if timing.earliest_of(op.input.revision) > _end(op):
        return "too early", None
    if read is not None and read.call > _end(op):
        return "read below", read
    if below is not None and below.call > _end(op):
        return "compacted below", below
    return "read below by revision", read


def out_of_order(op: Operation, why: Why, other: Operation | None) -> Problem:
    """An answered compaction that cannot be where the order of compactions has it; `other`: the operation that shows it."""
    q = op.input.revision
    if why == "read below" and other is not None:
        story = f"Yet operation {other.id}, called after that, read at revision {other.input.revision}, which is below it."
    elif why == "compacted below" and other is not None:
        story = (
            f"Yet operation {other.id}, called after that, compacted revision {other.input.revision}, which is below it, without an error."
        )
    elif why == "read below by revision":
        story = "Yet an answer that took place after it, by its revision, read below it."
    else:
        story = f"Revision {q} cannot have existed when it was answered."
    exhibits = () if other is None else (telling.exhibit(other),)
    return Problem(
        q,
        Finding(
            code="KV-COMPACTED",
            summary=f"the compaction of revision {q} contradicts what was answered after it",
            explanation=f"Operation {op.id} compacted revision {q} and was answered. {story}",
            certificate=(telling.exhibit(op), *exhibits),
            subject={"revision": q, "operations": [op.id]},
            shape=("compaction", "order"),
        ),
        None,
    )


def unexplained(op: Operation, q: int) -> Problem:
    """ "Compacted" for revision `q`, which no compaction can have reached."""
    return Problem(
        q,
        Finding(
            code="KV-COMPACTED",
            summary=f"revision {q} was said to be compacted, and no compaction can have reached it",
            explanation=f"Operation {op.id} was refused: the revision it named has been compacted. No recorded compaction that reaches it "
            "can have happened before that answer.",
            certificate=(telling.exhibit(op),),
            subject={"revision": q, "operations": [op.id], "member": op.member},
            shape=(telling.kind_of(op.input), "compacted"),
        ),
        None,
    )
