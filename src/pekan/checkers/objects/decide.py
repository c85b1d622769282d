"""An answer for every object, and who gave it.

::

    order        real-time                                  per-process
    ───────────  ─────────────────────────────────────────  ─────────────────────────────────────────────────────
    first        a monitor, where its conditions are met    the linearizability engine, as if clocks agreed:
                                                            an order that is legal by these times is by processes, too
    else         the linearizability engine                 the search of `partial`

With engine "generic" the monitors are not asked. Ready models are stepped over in the native core, where it is there; a file that the core
has read is judged there as a whole, and operations of Python are made only of what is not legal.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Literal, overload

from pekan.checkers.linearizability import Answer, Budget, Question, solve, solve_all
from pekan.checkers.linearizability.monitors import Monitored, monitor
from pekan.checkers.objects.partial import Chains, search
from pekan.checkers.objects.parts import Part, parts_of
from pekan.history.foreign.held import HeldOperations
from pekan.history.memory import SHARE, available_bytes
from pekan.history.types import FAILED, History, Operation
from pekan.models.object import Model
from pekan.models.ready import READY
from pekan.native import core

FIRST_LOOK_STEPS = 20_000
"""Steps that the engine may look for a legal order by time before the slower search begins: it finds one soon or hardly ever."""


def budget_of(seconds: float) -> Budget:
    """The bounds of a search that may take `seconds`, and the memory that judging may take."""
    there = available_bytes()
    return Budget(seconds) if there is None else Budget(seconds, memory_bytes=int(there * SHARE))


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer over one object, or a part of one, whose `Call.key` is `key`.

    engine     who gave it, as `Verdict.engine` shows it
    bound      of an unknown: what was met; "elsewhere": another part is illegal, and this one was left
    blocked    the operation where a search got stuck (its place in `operations`), -1 where none did
    monitored  what a monitor said of `operations`, None where none was asked or it declined
    refused    failed operations on the same object
    """

    key: Any
    operations: Sequence[Operation]
    verdict: Literal["ok", "illegal", "unknown"]
    engine: str
    bound: str = ""
    blocked: int = -1
    monitored: Monitored | None = None
    refused: Sequence[Operation] = ()


class Chosen(Sequence[Operation]):
    """Operations of a history that the core holds, made once somebody looks at one of them."""

    def __init__(self, held: HeldOperations, places: Sequence[int]) -> None:
        self._held, self._places = held, places
        self._made: tuple[Operation, ...] | None = None

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Operation: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Operation]: ...
    def __getitem__(self, index: int | slice) -> Operation | Sequence[Operation]:
        if self._made is None:
            self._made = tuple(self._held[place] for place in self._places)
        return self._made[index]


@dataclass(frozen=True, slots=True)
class Judged:
    """What is known of a whole history. Of legal objects there may be no decisions; `engines` names who decided, the busiest first."""

    decisions: Sequence[Decision]
    objects: int
    parts: int
    operations: int
    engines: tuple[str, ...]


def judged(objects: Mapping[Any, Sequence[Operation]], decisions: Sequence[Decision]) -> Judged:
    """All of it, where every object was decided by itself."""
    operations = sum(op.outcome != FAILED for group in objects.values() for op in group)
    engines = Counter(decision.engine for decision in decisions)
    return Judged(decisions, len(objects), len(decisions), operations, tuple(name for name, _ in engines.most_common()))


def by_columns(history: History, model: Model, engine: str, budget: Budget) -> Judged | None:
    """Judge a history that the native core has read; None where the core does not hold it or leaves it to the reference."""
    if engine == "reference" or not isinstance(history.operations, HeldOperations):
        return None
    operations = history.operations
    told = _told_by_core(operations, model, engine != "generic", budget)
    if told is None:
        return None
    objects, monitored, searched, total, found = told
    decisions = []
    for key, by_monitor, verdict, bound, blocked, answered, rule, places, refused in found:
        if by_monitor:
            made = {place: operations[place] for place in dict.fromkeys([*places, blocked])}
            mine = list(made.values())
            at_place = {place: i for i, place in enumerate(made)}
            told = Monitored(verdict, rule, tuple(at_place[place] for place in places), answered=answered, next=at_place[blocked])
            decisions.append(Decision(key, mine, verdict, _monitor_name(model, native=True), monitored=told))
        else:
            at = places.index(blocked) if blocked >= 0 else -1
            part, failed = Chosen(operations, places), Chosen(operations, refused)
            decisions.append(Decision(key, part, verdict, "generic (native)", bound, at, refused=failed))
    names = ((monitored, _monitor_name(model, native=True)), (searched, "generic (native)"))
    engines = tuple(name for count, name in sorted(names, key=itemgetter(0), reverse=True) if count)
    return Judged(decisions, objects, monitored + searched, total, engines)


def _told_by_core(operations: HeldOperations, model: Model, monitored: bool, budget: Budget) -> Any:
    """What the core says with a model that it has, or by asking one in Python; None where it declines."""
    bounds = (budget.time_s, budget.steps, budget.memory_bytes)
    try:
        if _in_core(model):
            return core.judge_objects(operations.objects, model.name, monitored, *bounds)
        # A ready model that begins otherwise may have a monitor, in Python.
        if monitored and READY.get(model.name) is type(model):
            return None
        return core.judge_model(operations.objects, model, *bounds)
    except core.Declined:
        return None


def _monitor_name(model: Model, native: bool) -> str:
    return f"monitor {model.name} ({'native' if native else 'reference'})"


def _in_core(model: Model) -> bool:
    """Whether the core has this very model, with objects that begin unset."""
    return core is not None and READY.get(model.name) is type(model) and model.key(model.init()) == model.key(type(model)().init())


def by_real_time(objects: Mapping[Any, Sequence[Operation]], model: Model, engine: str, budget: Budget) -> list[Decision]:
    """Decide `objects` whose times are of one clock."""
    native = engine != "reference" and core is not None
    decisions = []
    declined: dict[Any, Sequence[Operation]] = {}
    for key, operations in objects.items():
        told = Monitored("declined") if engine == "generic" else monitor(model, operations, engine)
        if told.verdict == "declined":
            declined[key] = operations
        else:
            decisions.append(Decision(key, operations, told.verdict, _monitor_name(model, native), monitored=told))
    if declined:
        found = _by_core(declined, model, budget) if native else None
        decisions += _by_model(declined, model, native, budget) if found is None else found
    return decisions


def _by_core(objects: Mapping[Any, Sequence[Operation]], model: Model, budget: Budget) -> list[Decision] | None:
    """Decide `objects` by the models of the native core; None where the model in Python has to judge."""
    if not _in_core(model):
        return None
    operations = [operation for group in objects.values() for operation in group]
    operations.sort(key=lambda operation: operation.call)
    try:
        judged = core.linear_judge(operations, model.name, budget.time_s, budget.steps, budget.memory_bytes)
    except core.Declined:
        return None
    decisions = []
    for key, places, (verdict, _, blocked, bound, *_) in judged:
        at = places.index(blocked) if blocked >= 0 else -1
        mine = [operations[place] for place in places]
        decisions.append(Decision(key, mine, verdict, "generic (native)", bound, at, refused=_failed(objects[key], verdict)))
    return decisions


def _by_model(objects: Mapping[Any, Sequence[Operation]], model: Model, native: bool, budget: Budget) -> list[Decision]:
    """Decide `objects` by asking the model in Python."""
    parts = [part for key, operations in objects.items() for part in parts_of(key, operations, model)]
    answers = solve_all([part.question for part in parts], budget, native=native)
    name = "generic (native)" if native else "generic (reference)"
    return [_searched(part, answer, name, objects[part.key]) for part, answer in zip(parts, answers, strict=True)]


def _searched(part: Part, answer: Answer, engine: str, whole: Sequence[Operation]) -> Decision:
    refused = _failed(whole, answer.verdict)
    return Decision(part.key, part.operations, answer.verdict, engine, answer.bound, answer.blocked, refused=refused)


def _failed(operations: Sequence[Operation], verdict: str) -> Sequence[Operation]:
    return [op for op in operations if op.outcome == FAILED] if verdict == "illegal" else ()


def by_process(
    objects: Mapping[Any, Sequence[Operation]], model: Model, skew_ns: int | None, engine: str, budget: Budget
) -> list[Decision]:
    """Decide `objects` whose processes have clocks of their own, at most `skew_ns` apart (None: any)."""
    deadline = None if budget.time_s is None else time.monotonic() + budget.time_s
    decisions = []
    for key, operations in objects.items():
        (part,) = parts_of(key, operations, model, divide=False)
        answer = solve(part.question, Budget(steps=FIRST_LOOK_STEPS), native=engine != "reference")
        if answer.verdict != "ok":
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            answer = sequential(part.question, part, range(len(part.operations)), skew_ns, Budget(left, budget.steps, budget.memory_bytes))
        decisions.append(_searched(part, answer, "sequential (reference)", operations))
    return decisions


def sequential(question: Question, part: Part, chosen: Sequence[int], skew_ns: int | None, budget: Budget) -> Answer:
    """`partial.search` over a question that is about `chosen` operations of `part`."""
    return search(question, Chains([part.operations[o].process for o in chosen], skew_ns), budget)
