"""Did etcd notice? What became of each fault for which it promises nothing.

::

    fired ── CORRUPT alarm ──────────────────────────────> noticed, by etcd's own comparison of members
          ── its member panics, or refuses to start ─────> noticed, with the words it gave up with
          ── its member complains in the log ────────────> noticed, where the fault looked for that
          ── none of these ──────────────────────────────> silent

What such a fault may have broken is excused (`causes.excuse`) and is no answer to this question: a member that serves what nobody wrote
has not noticed anything. Of several such faults each has its own answer, except that an alarm is everybody's before it.
"""

from __future__ import annotations

from collections.abc import Iterator

from pekan.checkers.causes import OUTSIDE
from pekan.history.types import OK, FaultSpan, History
from pekan.verdict import Noticed
from pekan.wire import pb

WORDS_MAX = 300


def noticed(history: History) -> tuple[Noticed, ...]:
    """One answer for each fault of `history` that is outside etcd's promises and fired, in order of firing."""
    faults = [fault for fault in history.faults if fault.promise == OUTSIDE and fault.fired is not None]
    return tuple(_answer(history, fault) for fault in sorted(faults, key=lambda each: each.fired or 0))


def _answer(history: History, fault: FaultSpan) -> Noticed:
    healed = fault.evidence.get("healed")
    told = healed if isinstance(healed, dict) else {}
    words = [str(told["how"])] if told.get("noticed") and told.get("how") else []
    words = words or list(_ends(history, fault))
    words = words or list(_alarms(history, fault))
    how = words[0][:WORDS_MAX] if words else str(told.get("how") or "")
    return Noticed(f"{fault.kind} on {fault.target}", bool(words), how, str(told.get("left") or ""), fault.fired)


def _ends(history: History, fault: FaultSpan) -> Iterator[str]:
    """Panics and fatal errors of the member that it happened to, from its firing on; of others, those that nobody had asked for."""
    for mark in history.marks:
        if mark.kind != "member" or mark.detail.get("state") != "exited" or mark.time < (fault.fired or 0):
            continue
        crash = mark.detail.get("crash")
        if crash and (mark.member == fault.target or not mark.detail.get("asked", True)):
            yield f"{mark.member} ended: {crash}"


def _alarms(history: History, fault: FaultSpan) -> Iterator[str]:
    for op in history.of(pb.AlarmRequest):
        if op.outcome == OK and op.ret is not None and op.ret >= (fault.fired or 0) and op.input.action == pb.AlarmRequest.GET:
            for alarm in op.output.alarms:
                if alarm.alarm == pb.CORRUPT:
                    yield f"a CORRUPT alarm for member {alarm.memberID:x}"
