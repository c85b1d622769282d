"""Did the run test anything? Reasons to be undecided, and what was done, counted.

::

    armed ──── fired ──── healed ──── every member answers a linearizable read ("healthy")
      └──────────── fault window ───────────────┘
    quiet │ faults ...                          │ recovery │ final
          operations outside windows: half of them must have succeeded

=============================================  ====================================================================
undecided                                      because
=============================================  ====================================================================
a fault asked for by name did not fire         the run was to show what etcd does under it
no fault of a requested class fired            the same, of the class; single drawn ones that expire are only counted
a watch of everything saw nothing of a member  its silence would hide whatever that member told wrongly
under half of the operations succeeded         a cluster that does not serve breaks no promise
the record ends early                          its tail may hold the contradiction
not recovered in time                          what was not served cannot be judged
=============================================  ====================================================================

Only our own runs have faults, phases and members; of a foreign history nothing but its completeness is asked.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pekan import native
from pekan.checkers.case import Case
from pekan.checkers.causes import OUTSIDE
from pekan.checkers.evidence import leaving, watches
from pekan.checkers.native.evidence import shown
from pekan.checkers.services import caller_of
from pekan.history.types import FAILED, INDEFINITE, OK, FaultSpan, History, Operation
from pekan.verdict import CheckerReport, Undecided
from pekan.wire.errors import WireError, is_decided
from pekan.wire.messages import DeleteRangeResponse, PutResponse, TxnResponse

NAME = "run"
SUCCEEDED_SHARE_MIN = 0.5
"""Under this share of operations answered outside fault windows, the traffic counts as failed (judgement of what a test is)."""
OUTSIDE_SHARE_MIN = 0.05
"""Where fewer operations than this lie outside fault windows, the quiet start and the recovery phase are looked at instead."""
DELIVERY_NS = 2_000_000_000
"""A write counts as due to a watch only where the stream was open this long after it was answered: watchers that catch up are served every
100 ms, and a member that lost its leader is behind for an election or two of 1 s."""
NOT_TRAFFIC = ("probe-", "status-", "admin-", "check-", "start-", "watch-", "fault-")
"""Client name prefixes of the hunt's own questions and the faults': they ask members that are known to be down, and for what is refused."""
STEADY_PHASES = ("quiet", "recovery")


def check_run(case: Case) -> CheckerReport:
    """Count what was done, and name what was not tested."""
    history = case.history
    reasons: list[Undecided] = list(_record(history))
    own = history.plan is not None or bool(history.faults) or any(mark.kind == "phase" for mark in history.marks)
    if own:
        reasons += unmet(history)
        reasons += _classes(history)
        reasons += _silent_watches(case)
        # What has to be answered in a script, its steps say; what is meant to be refused is no traffic that failed.
        reasons += () if _scripted(history) else _traffic(history)
        reasons += _recovery(history)
    return CheckerReport(NAME, applicable=own or bool(reasons), judged=_counts(case), undecided=tuple(reasons))


def _counts(case: Case) -> dict[str, int]:
    history = case.history
    counts: dict[str, int] = _outcomes(history)
    for fault in history.faults:
        for kind, happened in (("armed", True), ("fired", fault.fired is not None), ("expired", fault.fired is None)):
            name = f"{fault.kind}_{kind}"
            counts[name] = counts.get(name, 0) + happened
    counts["watches"], counts["watch_events"] = _delivered(case)
    return counts


def _outcomes(history: History) -> dict[str, int]:
    """Outcome -> how many operations have it."""
    if history.session is not None:
        return dict(zip((OK, FAILED, INDEFINITE), history.session.outcomes(), strict=True))
    counts: dict[str, int] = {OK: 0, FAILED: 0, INDEFINITE: 0}
    for op in history.operations:
        counts[op.outcome] += caller_of(op.id) == op.id
    return counts


def _delivered(case: Case) -> tuple[int, int]:
    """How many watches there were, and how many events they delivered."""
    if case.history.session is not None:
        evidence = shown(case)
        return evidence.watches, sum(map(evidence.events_of, range(evidence.watches)))
    return len(watches(case)), sum(len(item.message.events) for watch in watches(case) for item in watch.messages)


def _reason(reason: str, would_decide: str) -> Undecided:
    return Undecided(reason, would_decide, NAME)


# ---- the record ----


def _record(history: History) -> Iterator[Undecided]:
    ends = [mark.detail.get("reason", "finished") for mark in history.marks if mark.kind == "end"]
    if not history.complete:
        yield _reason(
            "the record ends before its end mark: Pekan was killed, or the disk was full; what its lost tail held cannot be judged",
            "a run that ends by itself",
        )
    elif history.cut:
        yield _reason(f"the last {history.cut} bytes of the record are a record cut in the middle", "the whole file")
    elif ends and ends[-1] != "finished":
        why = {"interrupted": "it was interrupted", "recorder": "the record could no longer be written"}.get(str(ends[-1]), str(ends[-1]))
        yield _reason(f"the run did not come to its end ({why}): what it was still to do is not judged", "a run that ends by itself")


# ---- faults ----


def unmet(history: History) -> tuple[Undecided, ...]:
    """The conditions that the plan requires and that did not come about; none where the run met what it was made to meet."""
    return (*_required(history), *(_script(history) if _scripted(history) else ()))


def _scripted(history: History) -> bool:
    return history.plan is not None and bool(history.plan.script)


def _required(history: History) -> Iterator[Undecided]:
    asked: dict[str, int] = {}
    if history.plan is not None:
        for fault in history.plan.schedule.faults:
            asked[fault.kind] = asked.get(fault.kind, 0) + fault.required
    spans: dict[str, list[FaultSpan]] = {}
    for span in history.faults:
        if span.required:
            spans.setdefault(span.kind, []).append(span)
    for kind in dict.fromkeys((*asked, *spans)):
        of_kind = spans.get(kind, [])
        for span in of_kind:
            if span.fired is None:
                yield _reason(f"the fault {kind} on {span.target} was asked for by name and did not fire", f"a run in which {kind} fires")
        waited = [mark.detail for mark in history.marks if mark.kind == "untriggered"]
        never = [detail for detail in waited if detail.get("fault") == kind and detail.get("required")]
        for waited_for in never:
            yield _reason(
                f"the fault {kind} was asked for by name and its trigger never came ({_trigger(waited_for.get('trigger') or {})})",
                "a longer run, or a trigger that comes",
            )
        missing = asked.get(kind, 0) - len(of_kind) - len(never)
        if missing > 0:
            times = "" if missing == 1 else f" {missing} times"
            yield _reason(f"the fault {kind} was asked for by name and never armed{times}: the run ended before it was due", "a longer run")


def _script(history: History) -> Iterator[Undecided]:
    """A script that was not done to its end: what it was to bring about has not been."""
    told = next((mark.detail for mark in reversed(history.marks) if mark.kind == "script"), None)
    if told is None:
        yield _reason("the script was not done: the run ended before", "a run that goes on to the end of its script")
    elif not told.get("done"):
        for lane, why in (told.get("stopped") or {}).items():
            yield _reason(f"the script's lane {lane} ended early: {why}", "a run in which every step of the script is done")


def _trigger(trigger: Mapping[str, Any]) -> str:
    """What a trigger waited for, from its fields in the record."""
    told = {
        "revision": "a reply that names revision {}",
        "log": "a line with {!r} in a log",
        "after": "a fault {} that fires",
        "healed": "a fault {} that is healed",
        "step": "the step {!r} of the script",
    }
    for name, words in told.items():
        if trigger.get(name):
            return words.format(trigger[name])
    if trigger.get("failpoint"):
        return f"hit {trigger.get('hit', 1)} of {trigger['failpoint']}"
    return f"{trigger.get('at_ms', '?')} ms of traffic"


def _is_of(span: FaultSpan, name: str) -> bool:
    """Whether a drawn fault belongs to what `--faults name` asks for."""
    outside = span.promise == "outside"
    return (name == "all" and not outside) or (name in ("century", "outside") and outside) or name in (span.fault_class, span.kind)


def _classes(history: History) -> Iterator[Undecided]:
    fired = [span for span in history.faults if span.fired is not None]
    for name in history.plan.fault_classes if history.plan is not None else ():
        if name != "none" and not any(_is_of(span, name) for span in fired):
            tried = sum(1 for span in history.faults if _is_of(span, name))
            yield _reason(
                f"no fault of the class {name} fired ({tried} armed)", f"a longer run, or `pekan doctor` if {name} cannot be injected here"
            )


# ---- watches ----


def _silent_watches(case: Case) -> Iterator[Undecided]:
    """Members whose watches of everything, all together, received no event though writes were due to them while connected."""
    due: dict[str, int] = {}
    received: dict[str, int] = {}
    whole = _whole_watches(case)
    for watch, count in zip(whole, _due(case.history, whole), strict=True):
        received[watch.member] = received.get(watch.member, 0) + watch.events
        due[watch.member] = due.get(watch.member, 0) + count
    for member, count in due.items():
        if count and not received[member]:
            yield _reason(
                f"the watches of the whole keyspace on {member} received none of the {count} writes recorded while they were connected",
                f"a run in which {member} delivers events to its watches",
            )


class _Whole(NamedTuple):
    """A watch of the whole keyspace without filters: when it was created, cancelled and ended (ns, None: never), the lowest revision that
    it is to deliver, and how many events it delivered."""

    member: str
    created: int
    canceled: int | None
    ended: int | None
    start: int
    events: int


def _whole_watches(case: Case) -> list[_Whole]:
    """The watches of the whole keyspace that were created, not refused."""
    if case.history.session is not None:
        return [_Whole(*row) for row in native.core.whole_watches(shown(case))]
    found = []
    for watch in watches(case):
        if watch.whole and watch.created is not None and not watch.refused:
            start = watch.request.start_revision or watch.created.message.header.revision + 1
            canceled = None if watch.canceled is None else watch.canceled.time
            events = sum(len(item.message.events) for item in watch.messages)
            found.append(_Whole(watch.member, watch.created.time, canceled, watch.ended, start, events))
    return found


def _due(history: History, whole: Sequence[_Whole]) -> list[int]:
    """For each watch, how many writes were answered while it was connected, long enough before its end, at or above its start.

    A member that is being removed may hear of no further write, and not even of its removal.
    """
    open_at_end = _last_moment(history)
    gone = leaving(history)
    spans = []
    for watch in whole:
        end = min(watch.ended if watch.ended is not None else open_at_end, gone.get(watch.member, open_at_end))
        if watch.canceled is not None:
            end = min(end, watch.canceled)
        spans.append((watch.created, end - DELIVERY_NS, watch.start))
    if history.session is not None:
        return list(history.session.due(spans))
    writes = sorted(_writes(history))
    times = [time for time, _ in writes]
    return [
        sum(1 for _, revision in writes[bisect_right(times, after) : bisect_right(times, until)] if revision >= start)
        for after, until, start in spans
    ]


def _last_moment(history: History) -> int:
    """When the last operation was called or answered; 0 where there is none."""
    if history.session is not None:
        return int(history.session.last_moment())
    return max((op.ret or op.call for op in history.operations), default=0)


def _writes(history: History) -> Iterator[tuple[int, int]]:
    """(when answered, revision) of every acknowledged change."""
    for op in history.operations:
        if op.outcome == OK and op.ret is not None and _changed(op.output):
            yield op.ret, op.output.header.revision


def _changed(output: Any) -> bool:
    if isinstance(output, PutResponse):
        return True
    if isinstance(output, DeleteRangeResponse):
        return output.deleted > 0
    return isinstance(output, TxnResponse) and any(_changed(each) for each in output.responses)


# ---- traffic ----


def _traffic(history: History) -> Iterator[Undecided]:
    served = _served(history, _windows(history))
    if not served.all:
        yield _reason("no request was sent", "a run with traffic")
        return
    where = "outside fault windows"
    count, succeeded = served.all - served.within, served.all_ok - served.within_ok
    if count < OUTSIDE_SHARE_MIN * served.all:
        where = "in the quiet start and the recovery phase"
        steady = _served(history, _phases(history))
        count, succeeded = steady.within, steady.within_ok
    if not count:
        yield _reason(f"none of {served.all} operations was sent {where}", "a run with a quiet start or a recovery phase")
        return
    if succeeded < SUCCEEDED_SHARE_MIN * count:
        yield _reason(
            f"traffic failed: {succeeded} of {count} operations sent {where} succeeded, under half",
            "a cluster that serves; look at the first errors and at the members' logs",
        )


class _Served(NamedTuple):
    """Operations of the traffic, how many of them succeeded, and the same of those called within certain spans."""

    all: int
    all_ok: int
    within: int
    within_ok: int


def _served(history: History, spans: Sequence[tuple[int, float]]) -> _Served:
    """The traffic of `history`, and the part of it within `spans`, which ascend and do not overlap."""
    session = history.session
    if session is not None:
        decided = [is_decided(WireError(*error)) for error in session.errors()]
        ends = [(start, None if end == float("inf") else int(end)) for start, end in spans]
        return _Served(*session.served(NOT_TRAFFIC, decided, ends))
    traffic = [op for op in history.operations if caller_of(op.id) == op.id and not op.client.startswith(NOT_TRAFFIC)]
    within = [op for op in traffic if _inside(op.call, spans)]
    return _Served(len(traffic), sum(map(_succeeded, traffic)), len(within), sum(map(_succeeded, within)))


def _succeeded(op: Operation) -> bool:
    """An answer of any kind that etcd decided, deliberate refusals included."""
    if op.outcome == OK:
        return True
    return op.outcome == FAILED and isinstance(op.output, WireError) and is_decided(op.output)


def _windows(history: History) -> list[tuple[int, float]]:
    """[armed, healthy) of every fault that fired, joined where they overlap. One that never fired disturbed nothing."""
    healthy = sorted(mark.time for mark in history.marks if mark.kind == "healthy" or (mark.kind == "recovery" and mark.detail.get("ok")))
    windows: list[tuple[int, float]] = []
    for span in sorted(history.faults, key=lambda each: each.armed):
        if span.fired is None:
            continue
        end = float("inf") if span.healed is None else next((time for time in healthy if time >= span.healed), float("inf"))
        if windows and span.armed <= windows[-1][1]:
            windows[-1] = (windows[-1][0], max(windows[-1][1], end))
        else:
            windows.append((span.armed, end))
    return windows


def _inside(time: int, windows: Sequence[tuple[int, float]]) -> bool:
    at = bisect_right(windows, (time, float("inf"))) - 1
    return at >= 0 and time < windows[at][1]


def _phases(history: History) -> list[tuple[int, float]]:
    marks = [mark for mark in history.marks if mark.kind == "phase"]
    ends: list[float] = [*(mark.time for mark in marks[1:]), float("inf")]
    return [(mark.time, end) for mark, end in zip(marks, ends, strict=False) if mark.detail.get("phase") in STEADY_PHASES]


# ---- recovery ----


def _recovery(history: History) -> Iterator[Undecided]:
    for mark in history.marks:
        if mark.kind == "recovery" and not mark.detail.get("ok", True):
            states = mark.detail.get("states") or {}
            told = ", ".join(f"{member}: {state}" for member, state in states.items()) or "states unknown"
            outside = next((span for span in history.faults if span.promise == OUTSIDE and (span.fired or mark.time) < mark.time), None)
            because = f"; {outside.kind} on {outside.target}, for which etcd promises nothing, may be why" if outside else ""
            yield _reason(
                f"not recovered within {mark.detail.get('within_s', '?')} s after the last fault was healed ({told}){because}",
                "longer recovery; the members' logs say what they wait for",
            )
