"""A second opinion on a small history of etcd: is there any legal order, whatever the revisions suggest?

Nothing here knows that a reply's revision is a place in the order. Every fact of the history is one operation on `EtcdModel`::

    fact                                        placed  may stand
    ==========================================  ======  ==========================================================================
    acknowledged operation                      once    between call and return
    refusal that states a fact                  once    between call and return
    answer from one member's own state          once    anywhere before its return: the state of its revision, however old
    revision in a compaction's header           once    anywhere before its return
    indefinite operation                        0 or 1  anywhere after its call
    expiry of a lease                           0 or 1  from the deadline of its last renewal; anywhere after its grant where a fault
                                                        may have moved a clock
    ==========================================  ======  ==========================================================================

Watches, members and auth are not judged here. Codes that the user allows are allowed by letting what they stand for be legal.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import Any

from pekan.checkers import telling
from pekan.checkers.case import Case
from pekan.checkers.causes import timing_waived
from pekan.checkers.kv.check import epoch_end
from pekan.checkers.kv.collect import JUDGED
from pekan.checkers.linearizability import solve
from pekan.checkers.objects.core import core_of, core_seconds
from pekan.checkers.objects.decide import budget_of
from pekan.checkers.objects.explain import by_time, count, others
from pekan.checkers.objects.parts import Part, parts_of
from pekan.history.types import FAILED, INDEFINITE, OK, History, Operation
from pekan.models.etcd import is_compares_only, is_local, may_write, ranges
from pekan.models.etcd_object import FACTS, Asked, EtcdModel, Exists, Expiry
from pekan.native import core
from pekan.verdict import CheckerReport, Finding, Undecided
from pekan.wire import errors
from pekan.wire.errors import WireError
from pekan.wire.messages import CompactionRequest, LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse

NAME = "generic"
SECONDS = 60.0
"""Time for deciding where `Options.budget_s` names none."""
NS = 1_000_000_000


def check_generic(case: Case) -> CheckerReport:
    """Judge the key-value operations of `case` without looking at revisions as places."""
    history = case.history
    total = sum(type(op.input) in JUDGED for op in history.operations)
    if not total:
        return CheckerReport(NAME, applicable=False)
    unfit = _unfit(case)
    if unfit is not None:
        return CheckerReport(NAME, True, {"operations": total}, (), (unfit,))
    part = part_of(history, case.options.allow, bool(timing_waived(case, 1 << 62)))
    native = case.options.engine != "reference"
    seconds = SECONDS if case.options.budget_s is None else case.options.budget_s
    answer = solve(part.question, budget_of(seconds), native=native)
    findings: tuple[Finding, ...] = ()
    undecided: tuple[Undecided, ...] = ()
    if answer.verdict == "illegal":
        findings = (_finding(part, seconds, answer.blocked, native),)
    elif answer.verdict == "unknown":
        what = "no order found and none ruled out"
        bound = "the memory that may be used" if answer.bound == "memory" else f"{seconds:g} s"
        undecided = (Undecided(f"{what} within {bound}", "--engine auto, which takes revisions for what they are", NAME),)
    engine = "generic (native)" if native and core is not None else "generic (reference)"
    return CheckerReport(NAME, True, {"operations": total}, findings, undecided, engine=engine)


def _unfit(case: Case) -> Undecided | None:
    """Why the history is none that this checker can judge."""
    history = case.history
    if history.start != "empty":
        return Undecided("the store began with unknown content", "a store that is empty at the start, or --engine auto", NAME)
    if history.cut or epoch_end(history) is not None:
        what = "the end of the record is missing" if history.cut else "the store was restored"
        return Undecided(f"{what}: what is not recorded may have changed it", "--engine auto", NAME)
    if case.options.writers == "shared":
        return Undecided("others write to the same store", "--engine auto, which knows their changes by the revisions", NAME)
    if history.order != "real-time":
        return Undecided("the times of the history are not of one clock", "--engine auto", NAME)
    return None


# ---- facts ----


def part_of(history: History, allow: tuple[str, ...] = (), early: bool = False) -> Part:
    """The whole store as one object. `early`: leases may run out at any time."""
    facts = sorted((*_operations(history, allow), *_expiries(history, early)), key=lambda op: op.call)
    # Before everything: what local answers show may be as old as the store.
    first = min((op.call for op in facts), default=0)
    facts = sorted((_from(op, first) for op in facts), key=lambda op: op.call)
    past = any(read.revision for op in facts if isinstance(op.input, Asked) for read in ranges(op.input.value))
    (part,) = parts_of(None, facts, EtcdModel(past), divide=False)
    return part


def _from(op: Operation, first: int) -> Operation:
    anytime = isinstance(op.input, Exists) or (isinstance(op.input, Asked) and op.client == LOCAL)
    return op._replace(call=min(op.call, first)) if anytime else op


LOCAL = "local"
"""In `Operation.client` of a fact: it may stand anywhere before its return."""


def _operations(history: History, allow: tuple[str, ...]) -> Iterator[Operation]:
    for op in history.operations:
        request, answer = op.input, op.output
        if type(request) not in JUDGED:
            continue
        local = is_local(request) or ("COMPARES-ONLY-STALE" in allow and is_compares_only(request))
        grant = isinstance(request, LeaseGrantRequest)
        fact = op._replace(input=Asked(request, op.id if grant else 0), client=LOCAL if local else "", gave_up=None)
        if op.outcome == OK and answer is not None:
            if isinstance(answer, LeaseGrantResponse):
                fact = fact._replace(input=Asked(request._replace(id=answer.id), op.id))
            yield fact
            if isinstance(request, CompactionRequest):
                yield fact._replace(input=Exists(answer.header.revision), output=True)
        elif op.outcome == FAILED:
            stated = isinstance(answer, WireError) and answer.message in FACTS
            if stated and not (local and answer.message == errors.FUTURE_REVISION):
                yield fact._replace(outcome=OK)
            if "REFUSED-BUT-APPLIED" in allow and may_write(request):
                yield fact._replace(outcome=INDEFINITE, ret=None, output=None)
        elif may_write(request) or isinstance(request, CompactionRequest) or (grant and request.id):
            yield fact._replace(outcome=INDEFINITE, ret=None, output=None)


def _expiries(history: History, early: bool) -> Iterator[Operation]:
    """One for each grant that may have happened: an id can be granted again, and then has a deadline of its own."""
    grants = [op for op in history.operations if isinstance(op.input, LeaseGrantRequest) and op.outcome != FAILED]
    renewals = list(_renewals(history))
    for grant in grants:
        lease, ttl = _granted(grant)
        again = min((other.call for other in grants if _granted(other)[0] == lease and other.call > grant.call), default=inf)
        renewed = [asked + lasts * NS for of, asked, lasts in renewals if of == lease and grant.call <= asked < again]
        deadline = grant.call if early else max([grant.call + ttl * NS, *renewed])
        yield grant._replace(call=deadline, ret=None, outcome=INDEFINITE, input=Expiry(lease, grant.id), output=None, gave_up=None)


def _granted(grant: Operation) -> tuple[int, int]:
    """Id and TTL (s) of a lease."""
    told = grant.output if isinstance(grant.output, LeaseGrantResponse) else grant.input
    return told.id, told.ttl


def _renewals(history: History) -> Iterator[tuple[int, int, int]]:
    """(lease, when its renewal was asked for, TTL in s of the answer) of every renewal that succeeded."""
    for stream in history.streams:
        asked: dict[int, int] = {}
        for time, sent, message in stream.messages:
            if isinstance(message, LeaseKeepAliveRequest) and sent:
                asked[message.id] = time
            elif isinstance(message, LeaseKeepAliveResponse) and message.ttl > 0 and message.id in asked:
                yield message.id, asked[message.id], message.ttl


# ---- the finding ----


def _finding(part: Part, seconds: float, blocked: int, native: bool) -> Finding:
    found = core_of(part, lambda question, _, budget: solve(question, budget, native=native), core_seconds(seconds), blocked, cut=True)
    subject: dict[str, Any] = {"model": "etcd"}
    if found is None:
        text = "No order of the operations is one that etcd allows. There was no time to find out which few of them say so."
        return Finding("NOT-LINEARIZABLE", f"etcd: no order explains {len(part.operations)} operations", text, (), subject, ("etcd",))
    ops = [part.operations[o] for o in found.operations]
    lines = [
        *by_time(ops),
        others(found),
        f"What was answered before operation {part.operations[found.last].id} can be put in order.",
    ]
    shown = tuple(telling.exhibit(op._replace(input=op.input.value)) for op in ops if isinstance(op.input, Asked))
    return Finding(
        "NOT-LINEARIZABLE",
        f"etcd: no order explains {count(len(ops), 'operation')}",
        " ".join(lines),
        shown,
        subject | {"operations": [op.id for op in ops]},
        ("etcd", *(op.input.f for op in ops)),
    )
