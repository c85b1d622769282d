"""Small random histories of objects, judged by every engine that there is, and by the oracle that tries all orders.

::

    python -m oracle.objects --cases 1000000 --seed 1          (from the directory `tests`)

Each history is legal or not; an engine that says the other is a disagreement, and so is one that does not know: small histories are
decided. (A monitor may decline.) A disagreement is shrunk by leaving operations out as long as it stays one, and shown.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random

from oracle.objects import Sample, in_process, in_time, legal, samples, tell
from oracle.things import THINGS
from pekan.checkers.linearizability import Budget, Hints, Question, solve_all
from pekan.checkers.linearizability.monitors import monitor
from pekan.checkers.objects.decide import sequential
from pekan.checkers.objects.parts import Part, objects_of, parts_of
from pekan.history.types import Operation
from pekan.models.object import Model
from pekan.models.ready import ready
from pekan.native import core

BUDGET = Budget(time_s=20.0)
"""For one history of ten operations: far above what it needs, even on a machine with other work."""
CHUNK = 2_000
"""Histories of one piece of work: some seconds, so that several processes end together."""

Words = Iterable[str]
Engine = Callable[[Model, list[list[Operation]], bool], Words]
"""(model, the operations of each object, whether to divide objects) -> "ok", "illegal" or "unknown" of each object or part, "declined"
where the engine leaves one to others."""


def parts(model: Model, objects: list[list[Operation]], divide: bool) -> list[Part]:
    return [part for operations in objects for part in parts_of(None, operations, model, divide)]


def by_reference(model: Model, objects: list[list[Operation]], divide: bool) -> Words:
    return [answer.verdict for answer in solve_all([part.question for part in parts(model, objects, divide)], BUDGET, native=False)]


def without_hints(model: Model, objects: list[list[Operation]], divide: bool) -> Words:
    """The reference over models that tell nothing: what hints say must change no answer."""
    return [answer.verdict for answer in solve_all([bare(part) for part in parts(model, objects, divide)], BUDGET, native=False)]


def bare(part: Part) -> Question:
    return replace(part.question, hints=Hints(), readonly=[False] * len(part.question.readonly))


def by_process(model: Model, objects: list[list[Operation]], divide: bool) -> Words:
    """The search where clocks are not shared."""
    found = parts(model, objects, divide=False)
    return [sequential(part.question, part, range(len(part.operations)), None, BUDGET).verdict for part in found]


def by_monitor(model: Model, objects: list[list[Operation]], divide: bool) -> Words:
    """Monitors in Python."""
    return [monitor(model, operations, "reference").verdict for operations in objects]


def by_core(model: Model, objects: list[list[Operation]], divide: bool) -> Words:
    """The engine of the native core."""
    return [answer.verdict for answer in solve_all([part.question for part in parts(model, objects, divide)], BUDGET)]


def by_native_models(model: Model, objects: list[list[Operation]], divide: bool) -> Words:
    """The engine and the models of the native core."""
    operations = [o for group in objects for o in group]
    try:
        judged = core.linear_judge(operations, model.name, BUDGET.time_s, BUDGET.steps, BUDGET.memory_bytes)
    except core.Declined:
        return ["declined"]
    return [answer[0] for _, _, answer in judged]


def by_native_monitor(model: Model, objects: list[list[Operation]], divide: bool) -> Words:
    """Monitors of the native core."""
    return [monitor(model, operations).verdict for operations in objects]


ENGINES: dict[str, Engine] = {
    "reference": by_reference,
    "without hints": without_hints,
    "sequential": by_process,
    "monitor": by_monitor,
    **({"native": by_core, "native models": by_native_models, "native monitor": by_native_monitor} if core is not None else {}),
}
"""Those that are there: without the native core only the reference."""


def opinion(engine: Engine, name: str, operations: Sequence[Operation], divide: bool) -> str:
    """What `engine` says of the whole history."""
    model = ready(name)
    words = set(engine(model, list(objects_of(operations, model).values()), divide))
    return next((word for word in ("illegal", "unknown", "declined") if word in words), "ok")


@dataclass
class Tally:
    """What was counted. `said` by (engine, word); `found` are disagreements, shrunk, the first of each kind."""

    cases: int = 0
    illegal: int = 0
    said: Counter[tuple[str, str]] = field(default_factory=Counter)
    caught: Counter[tuple[str, bool]] = field(default_factory=Counter)
    found: dict[tuple[str, str, str], str] = field(default_factory=dict)
    disagreements: int = 0

    def add(self, other: Tally) -> None:
        self.cases += other.cases
        self.illegal += other.illegal
        self.said.update(other.said)
        self.caught.update(other.caught)
        self.disagreements += other.disagreements
        for kind, text in other.found.items():
            self.found.setdefault(kind, text)


def judge(one: Sample, tally: Tally, engines: dict[str, Engine] = ENGINES) -> None:
    """Ask everybody about one history."""
    right = legal(one.config.name, one.operations)
    right_by_process = legal(one.config.name, one.operations, in_process)
    tally.cases += 1
    tally.illegal += not right
    tally.caught[one.mutation, right] += 1
    divide = one.config.seed % 2 == 0
    for label, engine in engines.items():
        said = opinion(engine, one.config.name, one.operations, divide)
        tally.said[label, said] += 1
        if said != "declined" and (said == "ok") != (right_by_process if engine is by_process else right):
            tally.disagreements += 1
            kind = (label, one.config.name, said)
            if kind not in tally.found:
                small = shrink(one.operations, partial(disagrees, engine, one.config.name, divide))
                tally.found[kind] = f"{label} says {said} of a {one.config.name} ({one.mutation}, seed {one.config.seed}):\n{tell(small)}"


def disagrees(engine: Engine, name: str, divide: bool, operations: Sequence[Operation]) -> bool:
    said = opinion(engine, name, operations, divide)
    return said != "declined" and (said == "ok") != legal(name, operations, in_process if engine is by_process else in_time)


def shrink(operations: Sequence[Operation], bad: Callable[[Sequence[Operation]], bool]) -> Sequence[Operation]:
    """As few of `operations` as can be found that are still `bad`."""
    again = True
    while again:
        again = False
        for i in reversed(range(len(operations))):
            fewer = (*operations[:i], *operations[i + 1 :])
            if bad(fewer):
                operations, again = fewer, True
    return operations


def chunk(seed: int, cases: int, name: str | None) -> Tally:
    """Judge `cases` histories."""
    tally = Tally()
    for one in samples(seed, cases, name):
        judge(one, tally)
    return tally


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Differential fuzzing of the engines for objects against the oracle that tries all orders."
    )
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--model", choices=sorted(THINGS), default=None, help="only histories of this object (default: all)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args(arguments)
    began = time.perf_counter()
    rng = Random(options.seed)
    sizes = [min(CHUNK, options.cases - done) for done in range(0, options.cases, CHUNK)]
    tally = Tally()
    with ProcessPoolExecutor(options.jobs) as pool:
        for work in as_completed([pool.submit(chunk, rng.getrandbits(48), size, options.model) for size in sizes]):
            tally.add(work.result())
            if sys.stderr.isatty():
                print(f"\r{tally.cases} histories, {tally.disagreements} disagreements", end="", file=sys.stderr)
    for text in tally.found.values():
        print(text, "\n")
    seconds = time.perf_counter() - began
    print(f"{tally.cases} histories, {tally.illegal} of them illegal, in {seconds:.0f} s: {tally.disagreements} disagreements")
    for (label, said), count in sorted(tally.said.items()):
        print(f"  {label}: {said} {count}")
    for mutation in sorted({mutation for mutation, _ in tally.caught}):
        print(f"  {mutation}: {tally.caught[mutation, False]} illegal, {tally.caught[mutation, True]} legal all the same")
    return 1 if tally.found else 0


if __name__ == "__main__":
    sys.exit(main())
