"""Contradictions between the replayed store and an answer, told as findings.

Each function takes what was found and gives a `Problem`: a finding, the revision it is at, and the keys whose state it rests on (so that
the search knows which of its guesses could have caused it).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from pekan.checkers import telling
from pekan.checkers.kv.timing import Clash
from pekan.history.types import Operation
from pekan.models.etcd import deletes, puts, ranges
from pekan.verdict import Exhibit, Finding
from pekan.wire.messages import (
    CompactionRequest,
    Event,
    LeaseGrantRequest,
    LeaseRevokeRequest,
    RangeRequest,
    RangeResponse,
    TxnRequest,
)


class Problem(NamedTuple):
    """A finding at a revision. `touched`: (key, range_end) pairs it rests on; None where it rests on everything before it."""

    revision: int
    finding: Finding
    touched: tuple[tuple[bytes, bytes], ...] | None


def touched_by(request: Any) -> tuple[tuple[bytes, bytes], ...] | None:
    """The ranges that the answer to `request` can depend on; None where that is not known without the state."""
    if type(request) is LeaseRevokeRequest:
        return None
    touched = [(r.key, r.range_end) for r in ranges(request)]
    touched += [(p.key, b"") for p in puts(request)]
    touched += [(d.key, d.range_end) for d in deletes(request)]
    if type(request) is TxnRequest:
        touched += _guarded(request)
    return tuple(touched)


def _guarded(request: TxnRequest) -> list[tuple[bytes, bytes]]:
    touched = [(c.key, c.range_end) for c in request.compare]
    for op in request.success + request.failure:
        if type(op) is TxnRequest:
            touched += _guarded(op)
    return touched


def wrong_answer(code: str, op: Operation, revision: int, expected: Any, writer: Exhibit | None) -> Problem:
    """An answer that is not what the history leaves at `revision`; `expected` is the answer that would be right, or why there is none."""
    said = f"the writes up to revision {revision} leave {expected}"
    shown, missing = _difference(op.output, expected) if type(op.input) is RangeRequest else ("", "")
    detail = f" The answer {shown}{' and ' if shown and missing else ''}{missing}." if shown or missing else ""
    whose = "a member's own answer" if code == "LOCAL-CONTENT" else "the answer"
    right = expected if isinstance(expected, str) else telling.answer(expected)
    finding = Finding(
        code=code,
        summary=f"{telling.request(op.input)} was answered with something that is not the state of revision {revision}",
        explanation=f"Replaying every write up to revision {revision} gives: {right}. "
        f"But {whose} was: {telling.answer(op.output)}.{detail}",
        certificate=tuple(e for e in (writer, telling.exhibit(op, said if isinstance(expected, str) else "")) if e is not None),
        subject={"operations": [op.id], "revision": revision, "member": op.member},
        shape=(telling.kind_of(op.input), *(("old revision",) if type(op.input) is RangeRequest and op.input.revision else ())),
    )
    return Problem(revision, finding, touched_by(op.input))


def seen_exhibit(revision: int, seen: tuple[int, int] | None, events: Sequence[Event]) -> Exhibit:
    """The first delivery of `revision`: `seen` (ns, stream), None where that is not known."""
    time, stream = seen or (None, None)
    what = f"watch stream {stream} delivered revision {revision}: {telling.events(events)}"
    return Exhibit(what, stream=stream, start=time, end=time)


def _difference(shown: Any, expected: Any) -> tuple[str, str]:
    """The first key-value that an answer shows and should not, and the first that it should show and does not."""
    if type(shown) is not RangeResponse or type(expected) is not RangeResponse:
        return "", ""
    extra = [kv for kv in shown.kvs if kv not in expected.kvs]
    absent = [kv for kv in expected.kvs if kv not in shown.kvs]
    return (
        f"shows {telling.key_value(extra[0])}" if extra else "",
        f"lacks {telling.key_value(absent[0])}" if absent else "",
    )


def first_difference_revision(shown: Any, expected: Any) -> int | None:
    """The revision of the write that two range answers disagree about, the higher of the two shown."""
    if type(shown) is not RangeResponse or type(expected) is not RangeResponse:
        return None
    differing = [kv.mod_revision for kv in expected.kvs if kv not in shown.kvs] or [kv.mod_revision for kv in shown.kvs]
    return max(differing, default=None)


def unexplained(revision: int, events: Sequence[Event] | None, around: Sequence[Exhibit], tried: int) -> Problem:
    """A revision that nobody can have made."""
    what = f" It holds {telling.events(events)}." if events else " What it holds was not seen by any watch."
    finding = Finding(
        code="KV-UNEXPLAINED",
        summary=f"nobody who was recorded can have made revision {revision}",
        explanation=f"Revision {revision} exists, no acknowledged write carries it.{what} No unanswered request called early enough and no "
        f"lease that held keys can have had that effect ({tried} could have, and are needed for other revisions).",
        certificate=tuple(around),
        subject={"revision": revision},
        shape=("revision", *sorted({"delete" if e.type else "put" for e in events or ()})),
    )
    return Problem(revision, finding, None)


def twice(revision: int, events: Sequence[Event], first: Operation, where: int, around: Sequence[Exhibit]) -> Problem:
    """A revision that repeats what an operation did at another one."""
    finding = Finding(
        code="KV-APPLIED-TWICE",
        summary=f"revision {revision} repeats what operation {first.id} did at revision {where}",
        explanation=f"{telling.request(first.input)} was made at revision {where}. Revision {revision} holds {telling.events(events)}, the "
        "same write again, and no other recorded request can have made it.",
        certificate=(telling.exhibit(first), *around),
        subject={"revision": revision, "operations": [first.id]},
        shape=(telling.kind_of(first.input),),
    )
    return Problem(revision, finding, None)


def refused_but_applied(op: Operation, revision: int, effect: str, evidence: Sequence[Exhibit]) -> Problem:
    """A definite refusal whose effect shows."""
    finding = Finding(
        code="REFUSED-BUT-APPLIED",
        summary=f"operation {op.id} was refused, and was applied at revision {revision}",
        explanation=f"{telling.request(op.input)} was answered with {telling.answer(op.output)}, which promises that nothing happened. "
        f"Yet revision {revision} holds {effect}, which is that request's effect and no other recorded request's.",
        certificate=(telling.exhibit(op), *evidence),
        subject={"operations": [op.id], "revision": revision, "member": op.member},
        shape=(telling.kind_of(op.input), getattr(op.output, "message", "")),
    )
    return Problem(revision, finding, None)


def lost_write(op: Operation, revision: int, events: Sequence[Event], evidence: Exhibit) -> Problem:
    """An acknowledged write at whose revision a watch shows something else."""
    finding = Finding(
        code="KV-LOST-WRITE",
        summary=f"operation {op.id} was acknowledged at revision {revision}, where the history holds something else",
        explanation=f"{telling.request(op.input)} was answered with revision {revision}. A watch of the whole keyspace delivered that "
        f"revision as {telling.events(events)}, which is not what the request does there.",
        certificate=(telling.exhibit(op), evidence),
        subject={"operations": [op.id], "revision": revision, "member": op.member},
        shape=(telling.kind_of(op.input), "watch"),
    )
    return Problem(revision, finding, None)


def reused(revision: int, first: Operation, second: Operation) -> Problem:
    """Two acknowledged writes at one revision."""
    members = f" by {first.member} and {second.member}" if first.member != second.member else f" by {first.member}" if first.member else ""
    finding = Finding(
        code="KV-REVISION-REUSED",
        summary=f"two writes were acknowledged at revision {revision}{members}",
        explanation=f"Operations {first.id} and {second.id} both changed something and were both answered with revision {revision}. "
        "A revision belongs to one write: one of them was lost, or members' histories have parted.",
        certificate=(telling.exhibit(first), telling.exhibit(second)),
        subject={"revision": revision, "operations": [first.id, second.id]},
        shape=("one member" if first.member == second.member else "two members",),
    )
    return Problem(revision, finding, None)


def out_of_time(clash: Clash, futures: frozenset[int], real_time: bool) -> Problem:
    """Two answers whose revisions contradict the clock."""
    late, early = clash.late, clash.early
    revision = clash.late_place // 2
    when = "was called after operation" if real_time else "was called by the same process after operation"
    if late.id in futures:
        asked = (clash.late_place + 1) // 2
        code, summary = "KV-FUTURE-REVISION", f"revision {asked} was said to be in the future after it had been acknowledged"
        story = f"Operation {late.id} {when} {early.id} had been answered with revision {early.output.header.revision}, yet was told that "
        story += f"revision {asked} is in the future."
    else:
        code, summary = (
            "KV-REAL-TIME",
            f"operation {late.id} took place at revision {_at(late)}, before what was acknowledged when it was called",
        )
        story = f"Operation {late.id} {when} {early.id} had been answered with revision {_at(early)}. Its own answer is of revision "
        story += f"{_at(late)}: "
        story += _kind_of_clash(late, early)
    finding = Finding(
        code=code,
        summary=summary,
        explanation=story,
        certificate=(telling.exhibit(early), telling.exhibit(late)),
        subject={"operations": [early.id, late.id], "revision": revision, "member": late.member},
        shape=(telling.kind_of(early.input), telling.kind_of(late.input)),
    )
    # Of a read, the first revision that its answer lacks: where members part at that one, it was answered by the other side.
    return Problem((clash.late_place + 1) // 2, finding, None)


def outrun(op: Operation, revision: int, above: int, future: bool, proof: Exhibit | None) -> Problem:
    """An exact operation that is older than what a local answer or a watch had shown before its call."""
    code = "KV-FUTURE-REVISION" if future else "KV-REAL-TIME"
    told = f"was told that revision {above} is in the future" if future else f"took place at revision {revision}"
    finding = Finding(
        code=code,
        summary=f"operation {op.id} {told}, after a later one had been shown",
        explanation=f"Operation {op.id} {told}. Before it was called, revision {above} or a later one had been shown to a client, so it "
        "had been committed; a linearizable request called after that cannot be older.",
        certificate=(*((proof,) if proof is not None else ()), telling.exhibit(op)),
        subject={"operations": [op.id], "revision": revision, "member": op.member},
        shape=("shown", telling.kind_of(op.input)),
    )
    return Problem(above, finding, None)


def _at(op: Operation) -> str:
    return str(op.output.header.revision)


def _kind_of_clash(late: Operation, early: Operation) -> str:
    if type(late.input) in (RangeRequest, LeaseGrantRequest, LeaseRevokeRequest, CompactionRequest):
        return "it saw a state older than one that had already been shown."
    return "the two took effect in another order than they happened."


def future_from_the_start(op: Operation, revision: int, base: int) -> Problem:
    """A revision that was there before any request was said to be in the future."""
    finding = Finding(
        code="KV-FUTURE-REVISION",
        summary=f"revision {revision} was said to be in the future, and was there from the start",
        explanation=f"The store stood at revision {base} before any request. Operation {op.id} was told that revision {revision} is in the "
        "future.",
        certificate=(telling.exhibit(op),),
        subject={"operations": [op.id], "revision": revision, "member": op.member},
        shape=(telling.kind_of(op.input), "from the start"),
    )
    return Problem(revision, finding, None)


def before_its_time(op: Operation, revision: int, earliest: int) -> Problem:
    """A local answer, or a compaction's, at a revision that can have existed at `earliest` (ns) and not before."""
    finding = Finding(
        code="KV-REAL-TIME" if type(op.input) is CompactionRequest else "LOCAL-CONTENT",
        summary=f"a member answered from revision {revision} before it can have existed",
        explanation=f"Operation {op.id} was answered at {op.ret} ns from revision {revision}. By the calls of the writes up to it that "
        f"revision cannot have existed before {earliest} ns.",
        certificate=(telling.exhibit(op),),
        subject={"operations": [op.id], "revision": revision, "member": op.member},
        shape=(telling.kind_of(op.input), "too early"),
    )
    return Problem(revision, finding, None)
