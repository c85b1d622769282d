"""The checker of objects: every independent object of the history, one verdict over all."""

from __future__ import annotations

import time
from collections.abc import Sequence

from pekan.checkers.case import Case
from pekan.checkers.linearizability import solve
from pekan.checkers.objects.choose import model_of, of_objects
from pekan.checkers.objects.core import Solve, core_of, core_seconds
from pekan.checkers.objects.decide import Decision, budget_of, by_columns, by_process, by_real_time, judged, sequential
from pekan.checkers.objects.explain import contradiction, finding, name_of
from pekan.checkers.objects.parts import Part, objects_of, part_of
from pekan.models.object import Model
from pekan.verdict import CheckerReport, Finding, Undecided

NAME = "objects"
SECONDS = 60.0
"""Time for deciding where `Options.budget_s` names none."""
CORES_MAX = 5
"""Objects of one history whose core is looked for: what breaks a sixth one is mostly the same."""


def check_objects(case: Case) -> CheckerReport:
    """Judge a history of calls on objects. Raises UsageError where no model fits its calls."""
    history = case.history
    if not of_objects(history, case.options.model):
        return CheckerReport(NAME, applicable=False)
    model = model_of(history, case.options.model)
    seconds = SECONDS if case.options.budget_s is None else case.options.budget_s
    budget, engine = budget_of(seconds), case.options.engine
    if history.order == "real-time":
        found = by_columns(history, model, engine, budget)
        if found is None:
            objects = objects_of(history.operations, model)
            found = judged(objects, by_real_time(objects, model, engine, budget))
    else:
        objects = objects_of(history.operations, model)
        found = judged(objects, by_process(objects, model, case.options.clock_skew_ns, engine, budget))
    return CheckerReport(
        NAME,
        applicable=True,
        judged={"objects": found.objects, "parts": found.parts, "operations": found.operations},
        findings=_findings(case, model, found.decisions, seconds),
        undecided=_undecided(model, found.decisions, seconds),
        engine=", ".join(found.engines),
    )


def _findings(case: Case, model: Model, decisions: Sequence[Decision], seconds: float) -> tuple[Finding, ...]:
    illegal = [decision for decision in decisions if decision.verdict == "illegal"]
    deadline = time.monotonic() + core_seconds(seconds)
    found = []
    for number, decision in enumerate(illegal):
        if decision.monitored is not None:
            found.append(contradiction(model, decision.key, decision.operations, decision.monitored))
            continue
        core = None
        real_time = case.history.order == "real-time"
        part = part_of(decision.key, decision.operations, model)
        if number < CORES_MAX:
            share = (deadline - time.monotonic()) / (min(len(illegal), CORES_MAX) - number)
            core = core_of(part, _again(case, part), share, decision.blocked, cut=real_time)
        found.append(finding(part, core, not real_time, decision.refused))
    return tuple(found)


def _again(case: Case, part: Part) -> Solve:
    """How questions about `part` are solved."""
    native = case.options.engine != "reference"
    if case.history.order == "real-time":
        return lambda question, chosen, budget: solve(question, budget, native=native)
    return lambda question, chosen, budget: sequential(question, part, chosen, case.options.clock_skew_ns, budget)


def _undecided(model: Model, decisions: Sequence[Decision], seconds: float) -> tuple[Undecided, ...]:
    """One reason for every bound that was met; parts left alone because another is broken need none."""
    met: dict[str, list[Decision]] = {}
    for decision in decisions:
        if decision.verdict == "unknown" and decision.bound != "elsewhere":
            met.setdefault(decision.bound, []).append(decision)
    reasons = []
    for bound, those in met.items():
        first = those[0]
        which = name_of(model, first.key) + (f" and {len(those) - 1} more" if len(those) > 1 else "")
        if bound == "memory":
            reason, remedy = f"{which}: the search for a legal order grew beyond the memory that it may use", "a machine with more memory"
        else:
            reason, remedy = f"{which}: no order found and none ruled out within {seconds:g} s", "a larger --budget"
        remedy += ", or a history with fewer concurrent or unanswered operations"
        reasons.append(Undecided(reason, remedy, NAME))
    return tuple(reasons)
