"""Refused writes that other members may have applied all the same (#18667).

::

    Txn(put, range at a compacted revision) ──> m1 executes the read, refuses          m2, m3 leave the read out, and apply the put
                                                answer: a definite error               their revision is one higher from there on

Before 3.7.0 such a transaction parts the members, and where no watch or read shows its effect, what follows is all that can be seen of it:
members that differ at one raft index, or two writes acknowledged at one revision. Both have their root here, where enough such
refusals were called before.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import takewhile

from pekan.checkers.telling import exhibit
from pekan.history.types import FAILED, OK, History, Mark, Operation
from pekan.verdict import Finding
from pekan.wire.errors import COMPACTED, FUTURE_REVISION, PERMISSION, WireError
from pekan.wire.messages import (
    DeleteRangeRequest,
    DeleteRangeResponse,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    RequestOp,
    TxnRequest,
    TxnResponse,
)

MENDED = (3, 7)
"""The first release in which members decide a transaction the same, asked or not (#18667, etcd CHANGELOG-3.7)."""


def may_explain(history: History, behind: Collection[str], time: int, revision: int) -> list[Operation]:
    """The refused transactions that can be why the members `behind` lack a revision at or below `revision`, seen by `time` (ns).

    Empty where every member is of a release in which that is mended, and where `revision` had been shown before the first was called:
    what a request makes lies above every revision that was shown before it.
    """
    if _mended(history.marks):
        return []
    suspects = [op for op in history.of(TxnRequest) if op.member in behind and op.call < time and _suspect(op)]
    if not suspects:
        return []
    first = min(suspects, key=lambda op: op.call)
    before = takewhile(lambda op: op.call <= first.call, history.operations)
    shown = (op.output.header.revision for op in before if op.ret is not None and op.ret <= first.call and _has_revision(op))
    return suspects if revision > max(shown, default=1) else []


def explains(suspects: Sequence[Operation], finding: Finding, seen: str) -> Finding:
    """The root of `finding`: one of `suspects` was applied by other members. `seen` ends the summary."""
    told = max(suspects, key=lambda op: (op.output.message != PERMISSION, op.call))
    return Finding(
        code="REFUSED-BUT-APPLIED",
        summary=f"{told.member} refused writing transactions for a read in them, and {seen}",
        explanation=(
            f"A definite error means that nothing happened. {finding.explanation} Before, {len(suspects)} transactions that "
            "write were refused for a read in them (at a compacted or future revision, or denied). Before 3.7.0 members that are not asked "
            "themselves leave such reads out and apply the rest (#18667)."
        ),
        certificate=(exhibit(told), *finding.certificate),
        subject={**finding.subject, "operations": [told.id]},
        shape=("refused Txn", *finding.shape),
    )


def first_refusal(history: History) -> int | None:
    """When the first writing transaction was called that was refused and may have been applied by other members all the same (ns, #18667).

    None where there is none, or where every member is of a release in which that is mended.
    """
    if _mended(history.marks):
        return None
    return min((op.call for op in history.of(TxnRequest) if _suspect(op)), default=None)


def _mended(marks: Iterable[Mark]) -> bool:
    """True where every member is known to be of a release with #18667 mended: there refused writes explain nothing."""
    versions = []
    for mark in marks:
        if mark.kind == "start":
            versions += [str(member.get("version")) for member in mark.detail.get("members", {}).values()]
        elif mark.kind == "joined":
            versions.append(str(mark.detail.get("version")))
    return bool(versions) and all(_release(version) >= MENDED for version in versions)


def _release(version: str) -> tuple[int, ...]:
    parts = version.split(".")[:2]
    return tuple(int(part) for part in parts) if len(parts) == 2 and all(part.isdigit() for part in parts) else (0, 0)


def _suspect(op: Operation) -> bool:
    """True for a refused transaction that writes beside the read that it was refused for.

    The member that is asked executes such a read, or checks whether the user may; before 3.7.0 the others leave reads out. Only those of
    the transaction itself: what a nested one reads stays in it everywhere, and everybody refuses it alike (`removeNeedlessRangeReqs`, 3.4
    to 3.6).
    """
    if op.outcome != FAILED or not isinstance(op.input, TxnRequest) or not isinstance(op.output, WireError):
        return False
    inside = list(_operations(op.input))
    if not any(isinstance(each, PutRequest | DeleteRangeRequest) for each in inside):
        return False
    reads = [each for each in (*op.input.success, *op.input.failure) if isinstance(each, RangeRequest)]
    if op.output.message in (COMPACTED, FUTURE_REVISION):
        return any(each.revision > 0 for each in reads)
    return op.output.message == PERMISSION and bool(reads)


def _operations(txn: TxnRequest) -> Iterator[RequestOp]:
    for op in (*txn.success, *txn.failure):
        if isinstance(op, TxnRequest):
            yield from _operations(op)
        else:
            yield op


def _has_revision(op: Operation) -> bool:
    return op.outcome == OK and isinstance(op.output, PutResponse | RangeResponse | DeleteRangeResponse | TxnResponse)
