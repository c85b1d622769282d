"""The key-value checker of the core: its records told with the functions of the reference.

::

    core.check_kv(evidence, circumstances) ──> report   {"counts", "before", "replay", "after", "compares", "undecided", "limit", ...}
                                               order    kept for all checkers: `evidence.proven`
    (kind, revision, arguments) ──TOLD[kind]──> Problem ──settle──> findings, fork

A record has indexes of operations, not operations: those that a certificate shows are decoded here, and no others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pekan import native
from pekan.checkers import telling
from pekan.checkers.case import Case
from pekan.checkers.evidence import Told
from pekan.checkers.kv import check, compaction, compares, forks, leases, problems, proofs, refusals, replay, search
from pekan.checkers.kv.problems import Problem
from pekan.checkers.kv.timing import Clash
from pekan.checkers.native.evidence import PROVEN, shown
from pekan.history.types import Operation
from pekan.verdict import CheckerReport, Exhibit, Undecided, group
from pekan.wire import errors
from pekan.wire.messages import (
    CompactionResponse,
    DeleteRangeResponse,
    Event,
    Header,
    KeyValue,
    LeaseGrantResponse,
    LeaseRevokeResponse,
    PutResponse,
    RangeResponse,
    TxnResponse,
)

REFUSALS = (errors.FUTURE_REVISION, errors.COMPACTED, errors.LEASE_NOT_FOUND, errors.KEY_NOT_FOUND, errors.LEASE_EXISTS)
"""The refusals that state a fact, in the order in which the core numbers them."""


def check_kv(case: Case) -> CheckerReport:
    """The report of the reference's `check_kv` over a history that the core holds; establishes `proven(case)`, sets `case.fork`.

    Raises Declined where the core leaves the history to the reference.
    """
    history, evidence = case.history, shown(case)
    ends = check.epoch_end(history)
    report, order = native.core.check_kv(
        evidence,
        real_time=history.order == "real-time",
        start_empty=history.start == "empty",
        cut=bool(history.cut),
        shared_writers=case.options.writers == "shared",
        budget_s=case.options.budget_s,
        lease_time=any(fault.promise == "lease-time" for fault in history.faults),
        compacts_itself=check.compacts_itself(history),
        ends=ends,
        texts=REFUSALS,
    )
    if not report["applicable"]:
        return CheckerReport(check.NAME, applicable=False)
    told = _Telling(case, ends)
    undecided = tuple(_UNDECIDED[kind](*numbers) for kind, *numbers in report["undecided"])
    before, after = told.problems(report["before"]), told.problems(report["after"])
    if not report["replayed"]:
        # Times alone are judged where nothing shows the store whole: there is no root to follow.
        return CheckerReport(check.NAME, True, report["counts"], group(p.finding for p in after), undecided)
    found = [*before, *_each_text_once(told.problems(report["replay"])), *after]
    difference = evidence.difference()
    sides = None if difference is None else (difference[0], tuple(tuple(members) for members in difference[1]))
    findings, parted = check.settle(case, found, told.problems(report["compares"]), report["limit"], sides)
    case.shared[PROVEN] = order if parted is None else order.ending_below(parted)
    return CheckerReport(check.NAME, True, report["counts"], group(findings), undecided)


def _each_text_once(found: Sequence[Problem]) -> list[Problem]:
    """The first of each code and summary, as the replay of the reference reports them."""
    first: dict[tuple[str, str], Problem] = {}
    for problem in found:
        first.setdefault((problem.finding.code, problem.finding.summary), problem)
    return list(first.values())


_UNDECIDED: dict[str, Callable[[int, int], Undecided]] = {
    "foreign": lambda revision, _: replay.foreign(revision),
    "lost tail": lambda revision, _: replay.lost_tail(revision),
    "exhausted": search.exhausted,
    "too far": lambda revisions, _: check.too_far(revisions),
    "no start": lambda *_: check.no_start(),
    "restored": lambda *_: check.restored(),
}

_MISUSES = {
    "never granted": leases.NEVER_GRANTED,
    "before grant": leases.BEFORE_GRANT,
    "after revoke": leases.AFTER_REVOKE,
    "revoked again": leases.REVOKED_AGAIN,
}


class _Telling:
    """Records of one history as problems."""

    def __init__(self, case: Case, ends: int | None) -> None:
        self.operations = case.history.operations
        self.real_time = case.history.order == "real-time"
        self.ends = ends

    def problems(self, records: Sequence[tuple[str, int, tuple[Any, ...]]]) -> list[Problem]:
        return [_TOLD[kind](self, revision, *rest) for kind, revision, rest in records]

    # ---- parts ----

    def op(self, index: int) -> Operation:
        op = self.operations[index]
        return op if self.ends is None else check.within_epoch(op, self.ends)

    def maybe(self, index: int | None) -> Operation | None:
        return None if index is None else self.op(index)

    def exhibits(self, records: Sequence[tuple[Any, ...]]) -> list[Exhibit]:
        return [self.exhibit(record) for record in records]

    def exhibit(self, record: tuple[Any, ...]) -> Exhibit:
        kind, *rest = record
        if kind == "operation":
            return telling.exhibit(self.op(rest[0]))
        if kind == "existed":
            return telling.exhibit(self.op(rest[0]), f"revision {rest[1]} existed")
        if kind == "delivered":
            return proofs.delivered(*rest)
        if kind == "told":
            told, revision = _told(rest[0])
            return forks.told_exhibit(told, revision)
        revision, seen, events = rest
        return (problems.seen_exhibit if kind == "seen" else forks.showing)(revision, seen, _events(events))

    def maybe_exhibit(self, record: tuple[Any, ...] | None) -> Exhibit | None:
        return None if record is None else self.exhibit(record)

    # ---- problems ----

    def wrong_answer(self, revision: int, local: bool, op: int, expected: tuple[Any, ...], writer: tuple[Any, ...] | None) -> Problem:
        code = "LOCAL-CONTENT" if local else "KV-CONTENT"
        return problems.wrong_answer(code, self.op(op), revision, _expected(expected), self.maybe_exhibit(writer))

    def unexplained(self, revision: int, events: Sequence[Any], around: Sequence[Any], tried: int) -> Problem:
        return problems.unexplained(revision, _events(events), self.exhibits(around), tried)

    def twice(self, revision: int, events: Sequence[Any], first: int, at: int, around: Sequence[Any]) -> Problem:
        return problems.twice(revision, _events(events), self.op(first), at, self.exhibits(around))

    def refused_but_applied(self, revision: int, op: int, effect: tuple[Any, ...], evidence: Sequence[Any]) -> Problem:
        exhibits = self.exhibits(evidence)
        if effect[0] == "value":
            return forks.refused_and_shown(self.op(op), effect[1], effect[2], revision, exhibits[0])
        return problems.refused_but_applied(self.op(op), revision, telling.events(_events(effect[1])), exhibits)

    def lost_write(self, revision: int, op: int, events: Sequence[Any], evidence: tuple[Any, ...]) -> Problem:
        return problems.lost_write(self.op(op), revision, _events(events), self.exhibit(evidence))

    def reused(self, revision: int, first: int, second: int) -> Problem:
        return problems.reused(revision, self.op(first), self.op(second))

    def out_of_time(self, revision: int, late: int, late_place: int, early: int, early_place: int, future: bool) -> Problem:
        clash = Clash(self.op(late), late_place, self.op(early), early_place)
        return problems.out_of_time(clash, frozenset({clash.late.id}) if future else frozenset(), self.real_time)

    def outrun(self, revision: int, op: int, of: int, above: int, future: bool, proof: tuple[Any, ...] | None) -> Problem:
        return problems.outrun(self.op(op), of, above, future, self.maybe_exhibit(proof))

    def future_from_the_start(self, revision: int, op: int, base: int) -> Problem:
        return problems.future_from_the_start(self.op(op), revision, base)

    def before_its_time(self, revision: int, op: int, earliest: int) -> Problem:
        return problems.before_its_time(self.op(op), revision, earliest)

    def stale(self, revision: int, op: int, known: tuple[Any, ...] | None) -> Problem:
        return compares.stale(self.op(op), revision, self.maybe_exhibit(known))

    def compacted_twice(self, revision: int, first: int, second: int) -> Problem:
        return compaction.twice(self.op(first), self.op(second))

    def compacted_out_of_order(self, revision: int, op: int, why: compaction.Why, other: int | None) -> Problem:
        return compaction.out_of_order(self.op(op), why, self.maybe(other))

    def compacted_unexplained(self, revision: int, op: int) -> Problem:
        return compaction.unexplained(self.op(op), revision)

    def lease(self, revision: int, op: int, other: int | None, how: str) -> Problem:
        return leases.misused(self.op(op), revision, self.maybe(other), _MISUSES[how])

    def wrong_refusal(self, revision: int, op: int, evidence: Sequence[int]) -> Problem:
        return refusals.wrong(self.op(op), revision, [telling.exhibit(self.op(grant)) for grant in evidence])

    def member_diverged(self, revision: int, first: tuple[Any, ...], second: tuple[Any, ...]) -> Problem:
        return forks.diverged(_told(first)[0], _told(second)[0], revision)


_TOLD: dict[str, Callable[..., Problem]] = {
    "wrong answer": _Telling.wrong_answer,
    "unexplained": _Telling.unexplained,
    "twice": _Telling.twice,
    "refused but applied": _Telling.refused_but_applied,
    "lost write": _Telling.lost_write,
    "reused": _Telling.reused,
    "out of time": _Telling.out_of_time,
    "outrun": _Telling.outrun,
    "future from the start": _Telling.future_from_the_start,
    "before its time": _Telling.before_its_time,
    "stale": _Telling.stale,
    "compacted twice": _Telling.compacted_twice,
    "compacted out of order": _Telling.compacted_out_of_order,
    "compacted unexplained": _Telling.compacted_unexplained,
    "lease": _Telling.lease,
    "wrong refusal": _Telling.wrong_refusal,
    "member diverged": _Telling.member_diverged,
}


# ---- values ----


def _events(records: Sequence[tuple[int, tuple[Any, ...], tuple[Any, ...] | None]]) -> tuple[Event, ...]:
    return tuple(Event(kind, KeyValue(*kv), None if prev_kv is None else KeyValue(*prev_kv)) for kind, kv, prev_kv in records)


def _told(record: tuple[int, str, int, int, Sequence[Any]]) -> tuple[Told, int]:
    """What one watch told (its watch id is not shown, and not known here), and the revision."""
    revision, member, stream, time, events = record
    return Told(member, stream, 0, time, _events(events)), revision


def _expected(record: tuple[Any, ...]) -> Any:
    """The answer that would be right, or why there is none, as the replay of the reference puts it."""
    kind, *rest = record
    if kind == "answer":
        return _answer(rest[0])
    if kind == "refusal":
        return f"a refusal: {REFUSALS[rest[0]]}"
    if kind == "succeeded":
        return f"succeeded {rest[0]}"
    if kind == "still attached":
        return replay.still_attached(*rest)
    return replay.IN_THE_FUTURE if kind == "in the future" else check.NOTHING_WRITTEN


def _answer(record: tuple[Any, ...]) -> Any:
    kind, header, *rest = record
    header = Header(*header)
    if kind == "Range":
        kvs, more, count = rest
        return RangeResponse(header, tuple(KeyValue(*kv) for kv in kvs), more, count)
    if kind == "Put":
        return PutResponse(header, None if rest[0] is None else KeyValue(*rest[0]))
    if kind == "DeleteRange":
        return DeleteRangeResponse(header, rest[0], tuple(KeyValue(*kv) for kv in rest[1]))
    if kind == "Txn":
        return TxnResponse(header, rest[0], tuple(_answer(inner) for inner in rest[1]))
    if kind == "LeaseGrant":
        id_, ttl = rest
        return LeaseGrantResponse(header, id_, ttl, "")
    return (CompactionResponse if kind == "Compaction" else LeaseRevokeResponse)(header)
