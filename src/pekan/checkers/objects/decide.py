"""An answer for every part, and who gave it.

::

    order        real-time                                  per-process
    ───────────  ─────────────────────────────────────────  ─────────────────────────────────────────────────
    first        a monitor, where its conditions are met    the linearizability engine, as if clocks agreed:
                                                            a legal order by these times is one by processes, too
    else         the linearizability engine                 the search of `partial`
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from pekan.checkers.linearizability import Answer, Budget, Question, solve, solve_all
from pekan.checkers.objects.partial import Chains, search
from pekan.checkers.objects.parts import Part
from pekan.native import core

FIRST_LOOK_STEPS = 20_000
"""Steps that the engine may look for a legal order by time before the slower search begins: it finds one soon or hardly ever."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer over one part. `engine` tells who gave it, as `Verdict.engine` shows it."""

    part: Part
    answer: Answer
    engine: str


def by_real_time(parts: Sequence[Part], engine: str, budget: Budget) -> list[Decision]:
    """Decide `parts` whose times are of one clock."""
    native = engine != "reference"
    answers = solve_all([part.question for part in parts], budget, native=native)
    name = "generic (native)" if native and core is not None else "generic (reference)"
    return [Decision(part, answer, name) for part, answer in zip(parts, answers, strict=True)]


def by_process(parts: Sequence[Part], skew_ns: int | None, engine: str, budget: Budget) -> list[Decision]:
    """Decide `parts` whose processes have clocks of their own, at most `skew_ns` apart (None: any)."""
    deadline = None if budget.time_s is None else time.monotonic() + budget.time_s
    decisions = []
    for part in parts:
        answer = solve(part.question, Budget(steps=FIRST_LOOK_STEPS), native=engine != "reference")
        if answer.verdict != "ok":
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            answer = sequential(part.question, part, range(len(part.operations)), skew_ns, Budget(left, budget.steps, budget.memory_bytes))
        decisions.append(Decision(part, answer, "sequential (reference)"))
    return decisions


def sequential(question: Question, part: Part, chosen: Sequence[int], skew_ns: int | None, budget: Budget) -> Answer:
    """`partial.search` over a question that is about `chosen` operations of `part`."""
    return search(question, Chains([part.operations[o].process for o in chosen], skew_ns), budget)
