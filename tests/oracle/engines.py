"""Random histories, valid and mutated, judged twice: by the reference in Python and by the native core.

::

    python -m oracle.engines --cases 100000 --seed 1            (from the directory `tests`)
    python -m oracle.engines --locks --cases 10000 --seed 1     histories of locks and elections

Both read the same record file. Everything that the verdicts say has to be equal but for the time taken and the engine's name; a history
that the core declines is counted by its reason, and so is one for which it spends the whole search budget: how far a search comes by then
is a matter of the clock. A difference is shrunk by leaving out operations, streams and messages as long as it stays one.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any, Literal

from oracle.fuzz import config_of, reductions, tell
from oracle.locking import World
from pekan import check
from pekan.checkers.services import SERVICES, with_requests
from pekan.errors import EvidenceError
from pekan.history.types import History, Mark, Operation
from pekan.verdict import Verdict
from simulator.cluster import Config, Simulated, simulate
from simulator.mutations import MUTATIONS, Mutation
from simulator.recording import recordable, write_history

DECLINED = "judged by the reference, since the native engine did not take it: "
SPENT = "the search budget was spent"
OPERATIONS_MAX = 150
"""Of the larger histories: long enough for gaps that depend on each other, short enough for hundreds of them a minute."""


@dataclass(frozen=True)
class Recorded:
    """What is written to a file and judged. `cut`: bytes missing at its end."""

    history: History
    cut: int = 0
    writers: Literal["exclusive", "shared"] = "exclusive"


@dataclass(frozen=True)
class Difference:
    """Where the verdicts part: the place in their JSON, and what each says."""

    name: str
    recorded: Recorded
    place: str
    reference: Any
    native: Any

    def __str__(self) -> str:
        shown = f"{self.place}\n  reference: {self.reference}\n  native:    {self.native}"
        return f"{self.name} ({self.recorded.writers}, cut {self.recorded.cut}): {shown}\n{tell(self.recorded.history)}"


# ---- both verdicts ----


def record(recorded: Recorded, directory: Path) -> Path:
    """`recorded` as a file in `directory`, in place of the one before."""
    path = directory / "history.pb"
    path.unlink(missing_ok=True)
    write_history(replace(recorded.history, operations=tuple(map(_writable, recorded.history.operations))), path)
    if recorded.cut:
        os.truncate(path, max(0, path.stat().st_size - recorded.cut))
    return path


def _writable(op: Operation) -> Operation:
    """An operation that ended without an answer or an error is one that never ended: nothing is recorded of its end."""
    return op._replace(gave_up=None) if op.output is None else op


def said(verdict: Verdict) -> Any:
    """All that `verdict` says, as it reads in JSON, but for times, the engine and why it declined."""
    data = verdict.to_json()
    del data["seconds"], data["engine"]
    data["notes"] = [note for note in data["notes"] if not note.startswith(DECLINED)]
    for checker in data["checkers"].values():
        del checker["seconds"]
    return json.loads(json.dumps(data))


def declined(verdict: Verdict) -> str | None:
    """Why a verdict cannot be compared with the other engine's, None where it can."""
    if any("search budget" in undecided.reason for undecided in verdict.undecided):
        return SPENT
    if verdict.engine == "native":
        return None
    return next((note.removeprefix(DECLINED) for note in verdict.notes if note.startswith(DECLINED)), "without a reason")


def first_difference(one: Any, other: Any, place: str = "") -> tuple[str, Any, Any] | None:
    """The first place at which two JSON values differ, and what is there."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in (*one, *(k for k in other if k not in one)):
            if key not in one or key not in other:
                return f"{place}.{key}", one.get(key), other.get(key)
            found = first_difference(one[key], other[key], f"{place}.{key}")
            if found is not None:
                return found
        return None
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = (first_difference(a, b, f"{place}[{at}]") for at, (a, b) in enumerate(zip(one, other, strict=True)))
        return next((found for found in pairs if found is not None), None)
    return None if one == other else (place, one, other)


def compare(name: str, recorded: Recorded, directory: Path) -> tuple[Verdict, Difference | None]:
    """The core's verdict, and how it differs from the reference's; that of the reference alone where it could not come as far in its time.

    Raises EvidenceError where no readable file can be made.
    """
    path = record(recorded, directory)
    native = check(path, engine="native", writers=recorded.writers)
    if declined(native) is not None:
        return native, None
    reference = check(path, engine="reference", writers=recorded.writers)
    if declined(reference) == SPENT:
        return reference, None
    found = first_difference(said(reference), said(native))
    return native, None if found is None else Difference(name, recorded, *found)


def shrink(difference: Difference, directory: Path) -> Difference:
    """A difference at the same kind of place over as little history as can be found by leaving things out."""
    best, progress = difference, True
    while progress:
        progress = False
        for smaller in reductions(best.recorded.history):
            try:
                _, found = compare(best.name, replace(best.recorded, history=smaller), directory)
            except EvidenceError:
                continue
            if found is not None and found.place.split("[")[0] == best.place.split("[")[0]:
                best, progress = found, True
                break
    return best


# ---- histories ----


def larger(seed: int) -> Config:
    """As `config_of`, with more of everything but watches: what nobody saw has to be searched for."""
    rng = Random(seed)
    config = config_of(seed)
    return replace(
        config,
        operations=rng.randint(20, OPERATIONS_MAX),
        clients=rng.randint(2, 12),
        keys=rng.randint(1, 6),
        indefinite=rng.choice((0.02, 0.1, 0.2)),
        outage=rng.choice((0.0, 0.02)),
        hidden=rng.choice((0, 0, 0, 20)),
    )


def samples(seed: int, cases: int) -> Iterator[tuple[str, Recorded]]:
    """`cases` histories to be recorded, each with what it was made of."""
    rng = Random(seed)
    found = 0
    while found < cases:
        number = rng.getrandbits(40)
        make = config_of if rng.random() < 0.6 else larger
        mutation = None if rng.random() < 0.3 else MUTATIONS[rng.randrange(len(MUTATIONS))]
        simulated = simulate(make(number))
        history = _mutated(simulated, mutation, Random(number))
        if history is None:
            continue
        found += 1
        name = f"{make.__name__}({number}), {mutation.name if mutation else 'valid'}"
        yield name, _varied(history, rng)


def _mutated(simulated: Simulated, mutation: Mutation | None, rng: Random) -> History | None:
    return simulated.history if mutation is None else mutation.change(simulated, rng)


def _varied(history: History, rng: Random) -> Recorded:
    """`history` as it might have been recorded too: with fewer watches, an unknown start, a restore, other writers, a lost tail."""
    watched = rng.random()
    if watched < 0.4:
        history = replace(history, streams=())
    elif watched < 0.6:
        history = replace(history, streams=tuple(stream for stream in history.streams if rng.random() < 0.5))
    return _otherwise(history, rng)


def _otherwise(history: History, rng: Random) -> Recorded:
    """The same with all its watches."""
    if rng.random() < 0.15:
        history = replace(history, marks=tuple(mark for mark in history.marks if mark.kind != "start"))
    if rng.random() < 0.05 and history.operations:
        middle = rng.choice(history.operations).call
        history = replace(history, marks=(*history.marks, Mark(middle, "epoch", "", {})))
    cut = rng.randint(1, 400) if rng.random() < 0.1 else 0
    return Recorded(history, cut, "shared" if rng.random() < 0.1 else "exclusive")


def locks(seed: int, cases: int) -> Iterator[tuple[str, Recorded]]:
    """`cases` histories of locks and elections. The core leaves calls to these services to the reference, so that most of them tell in
    their place what they come to: ordinary requests that nobody saw answered, by which somebody had keys, lost them, and got others."""
    found = number = 0
    while found < cases:
        number += 1
        rng = Random(seed * 1_000_003 + number)
        # Without a watch who wrote what has to be searched for, among all that was never answered.
        world = World(rng, forgetful=rng.random() < 0.4, blind=rng.random() < 0.1, watched=rng.random() < 0.9)
        history = world.run(rng.randint(2, 5), rng.randint(1, 7) if world.watched else rng.randint(1, 2))
        spelled_out = rng.random() < 0.9
        recorded = recordable(_spelled_out(history) if spelled_out else history)
        if recorded is None:
            continue
        found += 1
        yield f"locks({seed}), {number}{', spelled out' if spelled_out else ''}", _otherwise(recorded, rng)


def _spelled_out(history: History) -> History:
    served = with_requests(history).history
    clients = max((op.process for op in served.operations), default=0)
    # A member's request has a negative number, its caller's method, and is of nobody else's process.
    asked = [op if op.id >= 0 else op._replace(process=clients - op.id, method="") for op in served.operations]
    return replace(served, operations=tuple(op for op in asked if not isinstance(op.input, SERVICES)))


# ---- campaigns ----


@dataclass
class Tally:
    """What a campaign counted: cases, those that made no readable file, words, and reasons of the core to decline."""

    cases: int
    unreadable: int
    words: Counter[str]
    declined: Counter[str]


def campaign(found: Iterator[tuple[str, Recorded]], directory: Path, report: Callable[[Difference], None]) -> Tally:
    """Judges all in both engines, calling `report` with each difference, not yet shrunk."""
    tally = Tally(0, 0, Counter(), Counter())
    for name, recorded in found:
        tally.cases += 1
        try:
            native, difference = compare(name, recorded, directory)
        except EvidenceError:
            tally.unreadable += 1
            continue
        tally.words[native.verdict] += 1
        reason = declined(native)
        if reason is not None:
            tally.declined[reason] += 1
        if difference is not None:
            report(difference)
    return tally


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Differential fuzzing of the engines against each other.")
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--locks", action="store_true", help="histories of etcd's lock and election services")
    parser.add_argument("--stop-after", type=int, default=5, help="differences at different places to show before giving up")
    options = parser.parse_args(arguments)
    began = time.perf_counter()
    seen: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as directory:

        def report(difference: Difference) -> None:
            place = difference.place.split("[")[0]
            seen[place] += 1
            if seen[place] == 1:
                print(shrink(difference, Path(directory)), "\n", flush=True)
            if len(seen) >= options.stop_after:
                raise KeyboardInterrupt

        made = locks if options.locks else samples
        tally = campaign(made(options.seed, options.cases), Path(directory), report)
    seconds = time.perf_counter() - began
    print(f"{tally.cases} histories in {seconds:.1f} s; {tally.unreadable} unreadable; {dict(tally.words)}")
    for reason, count in tally.declined.most_common():
        print(f"declined {count}: {reason}")
    for place, count in seen.items():
        print(f"different {count}: {place}")
    return 1 if seen else 0


if __name__ == "__main__":
    sys.exit(main())
