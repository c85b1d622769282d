"""Small random histories, valid and mutated, judged twice: by Pekan's checkers and by the slow oracle.

::

    python -m oracle.fuzz --cases 100000 --seed 1          (from the directory `tests`)

===================  ========================================================  =====================================================
mode                 checkers                                                  oracle
===================  ========================================================  =====================================================
answers              `check_kv`, `check_leases` over the answers alone         `brute.legal(evidence=False)`
evidence             these and `check_members`, `check_watch` over all         `brute.legal(evidence=True)` and `watching.stories`
===================  ========================================================  =====================================================

A *false alarm* is a finding that counts where the oracle finds the history legal; a *miss* is `holds` where it finds none. Undecided is
neither; it is counted, and in evidence mode there must be none. One kind of miss is let pass: a history that is illegal only
because a lease would have to run out before its time though nobody looked (the lease checker judges absence that was seen).
A disagreement is shrunk by leaving out operations, streams and messages as long as it stays one.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Literal

from oracle.brute import TooBigError, legal
from oracle.watching import stories
from pekan.checkers.case import Case, Options
from pekan.checkers.kv import check_kv
from pekan.checkers.leases import check_leases
from pekan.checkers.members import check_members
from pekan.checkers.watch import check_watch
from pekan.history.types import History
from pekan.verdict import Finding, Word
from pekan.wire.messages import WATCH, WatchCreateRequest
from simulator.cluster import Config, Simulated, WatchPlan, simulate
from simulator.mutations import MUTATIONS, Mutation
from simulator.traffic import Mix

Mode = Literal["answers", "evidence"]

BUDGET_S = 2.0
"""For searches: far above what a small history needs, and a large one without watches shall end soon."""

MIXES = (
    Mix(compact=4, grant=4, put_lease=6, compares_only=1, ranged_txn=3, nested=4),
    # Leases: acknowledged revokes may or may not own a revision, lost ones too, and expiries come from nowhere.
    Mix(put=10, get=6, list=4, delete=2, cas=2, txn=2, nested=0, grant=15, put_lease=25, revoke=12, ignore=6, compact=0),
    # Deletes: what they leave is nothing, so little is seen of who did it.
    Mix(put=20, delete=20, delete_range=15, cas=5, txn=10, nested=2, get=10, list=10, grant=0, put_lease=0, revoke=0),
    # Compactions against reads at old revisions, alone and inside transactions.
    Mix(put=25, old=25, local=10, ranged_txn=15, compact=15, compact_refused=6, grant=0, put_lease=0, revoke=0),
    # Few reads, many guards: what was put shows in the branch that a transaction took, or in why it was refused.
    Mix(put=30, get=2, list=2, local=1, cas=6, txn=14, read_txn=4, compares_only=25, ignore=10, delete=5, grant=0, put_lease=0, revoke=0),
)


@dataclass(frozen=True)
class Sample:
    """One history to be judged, and where it came from."""

    seed: int
    mutation: Mutation | None
    simulated: Simulated
    history: History

    def __str__(self) -> str:
        return f"seed {self.seed}, {self.mutation.name if self.mutation else 'valid'}"


@dataclass(frozen=True)
class Disagreement:
    kind: Literal["false alarm", "miss", "crash"]
    mode: Mode
    sample: Sample
    history: History
    detail: str

    def __str__(self) -> str:
        return f"{self.kind} ({self.mode}) at {self.sample}: {self.detail}\n{tell(self.history)}"


def config_of(seed: int) -> Config:
    """A small cluster with few keys and much trouble, a function of `seed`."""
    rng = Random(seed)
    members = rng.randint(1, 3)
    return Config(
        seed=seed,
        operations=rng.randint(2, 12),
        clients=rng.randint(1, 5),
        members=members,
        keys=rng.randint(1, 3),
        mix=rng.choice(MIXES),
        # From quick to so slow that leases of a second expire between two operations.
        mean_ns=10 ** rng.randint(6, 9),
        pause_ns=10 ** rng.randint(5, 8),
        timeout_ns=10 ** rng.randint(7, 9),
        indefinite=rng.choice((0.0, 0.1, 0.3)),
        outage=rng.choice((0.0, 0.0, 0.2)),
        lag=rng.choice((0.0, 0.5, 0.9)),
        unique_values=rng.random() < 0.7,
        ttl=1,
        renew=rng.choice((0.0, 0.5)),
        hides_lease=rng.random() < 0.5,
        watch=members,
        reconnect=rng.choice((0.0, 0.1)),
        progress=rng.choice((0.0, 0.3)),
        fragment_of=1,
        watches=(
            WatchPlan(0, WatchCreateRequest(b"k00", b"", rng.randint(0, 4), prev_kv=True)),
            WatchPlan(
                members - 1,
                WatchCreateRequest(b"k", b"l", rng.randint(1, 6), True, rng.choice(((), (0,), (1,))), rng.random() < 0.5, 0, True),
                at_operation=rng.randint(0, 6),
                progress=0.2,
            ),
        ),
    )


def sample(seed: int, mutation: Mutation | None) -> Sample | None:
    """The history of `seed`, mutated; None where `mutation` finds nothing in it to change."""
    simulated = simulate(config_of(seed))
    history = simulated.history if mutation is None else mutation.change(simulated, Random(seed))
    return None if history is None else Sample(seed, mutation, simulated, history)


def samples(seed: int, cases: int) -> Iterator[Sample]:
    """`cases` samples: every third valid, the others mutated in every way in turn."""
    rng = Random(seed)
    found = 0
    while found < cases:
        mutation = None if found % 3 == 0 else MUTATIONS[rng.randrange(len(MUTATIONS))]
        one = sample(rng.getrandbits(40), mutation)
        if one is not None:
            found += 1
            yield one


# ---- both opinions ----


def without_watches(history: History) -> History:
    return replace(history, streams=tuple(s for s in history.streams if s.method != WATCH))


def checked(history: History, mode: Mode) -> tuple[Word, tuple[Finding, ...]]:
    """What Pekan's checkers say: the word, and the findings that count."""
    case = Case(history if mode == "evidence" else without_watches(history), Options(budget_s=BUDGET_S))
    checkers = (check_kv, check_members, check_watch, check_leases) if mode == "evidence" else (check_kv, check_leases)
    reports = [checker(case) for checker in checkers]
    findings = tuple(f for report in reports for f in report.findings if f.status == "counts")
    if findings:
        return "broken", findings
    # Only the key-value checker: others are undecided where there was too little to see, which small histories have a right to.
    return ("undecided" if reports[0].undecided else "holds"), ()


def truly_legal(history: History, simulated: Simulated, mode: Mode, early_expiry: bool = False) -> bool:
    """What the oracle says. Raises TooBigError."""
    if mode == "evidence" and any(stories(history, simulated.truth)):
        return False
    return legal(history, evidence=mode == "evidence", hides_lease=simulated.config.hides_lease, early_expiry=early_expiry)


def compare(sample: Sample, history: History, mode: Mode) -> tuple[Word | None, Disagreement | None]:
    """The checkers' word (None where they crashed), and how it contradicts the oracle. Raises TooBigError."""
    right = truly_legal(history, sample.simulated, mode)
    try:
        word, findings = checked(history, mode)
    except Exception as error:  # whatever it is, it is the disagreement
        return None, Disagreement("crash", mode, sample, history, f"{type(error).__name__}: {error}")
    if right and word == "broken":
        first = findings[0]
        return word, Disagreement("false alarm", mode, sample, history, f"{first.code}: {first.summary}\n  {first.explanation}")
    if not right and word == "holds" and not truly_legal(history, sample.simulated, mode, early_expiry=True):
        untrue = next(stories(history, sample.simulated.truth), "no order explains the answers") if mode == "evidence" else "no order"
        return word, Disagreement("miss", mode, sample, history, untrue)
    return word, None


# ---- shrinking ----


def shrink(disagreement: Disagreement) -> Disagreement:
    """The same kind of disagreement over as little history as can be found by leaving things out."""
    best = disagreement
    progress = True
    while progress:
        progress = False
        for smaller in reductions(best.history):
            try:
                _, found = compare(best.sample, smaller, best.mode)
            except TooBigError:
                continue
            if found is not None and found.kind == best.kind and same_cause(found, best):
                best, progress = found, True
                break
    return best


def same_cause(a: Disagreement, b: Disagreement) -> bool:
    return a.detail.split(":")[0] == b.detail.split(":")[0]


def reductions(history: History) -> Iterator[History]:
    for i in range(len(history.streams)):
        yield replace(history, streams=history.streams[:i] + history.streams[i + 1 :])
    for i in reversed(range(len(history.operations))):
        yield replace(history, operations=history.operations[:i] + history.operations[i + 1 :])
    for i, stream in enumerate(history.streams):
        if len(stream.messages) > 2:
            for cut in ({len(stream.messages) // 2, len(stream.messages) - 1}) - {1}:
                shorter = replace(stream, messages=stream.messages[:cut])
                yield replace(history, streams=(*history.streams[:i], shorter, *history.streams[i + 1 :]))


# ---- telling ----


def tell(history: History) -> str:
    """The history as text, one line an operation or stream message, times in µs."""
    lines = []
    for o in history.operations:
        ret = "?" if o.ret is None else f"{o.ret / 1000:.1f}"
        lines.append(f"#{o.id:<3} p{o.process:<3} {o.member} [{o.call / 1000:.1f}, {ret}] {o.outcome:10} {o.input}\n      -> {o.output}")
    for s in history.streams:
        lines.append(f"stream {s.id} {s.client} {s.method}")
        lines += [f"   {m.time / 1000:.1f} {'>' if m.sent else '<'} {m.message}" for m in s.messages]
    return "\n".join(lines)


REPRODUCTION = '''"""{title}

{detail}

Seen by: PYTHONPATH=tests python -m oracle.fuzz; run this file to see the findings.
"""
from pekan.checkers.case import Case, Options
from pekan.history.types import *
from pekan.wire.errors import WireError
from pekan.wire.messages import *

history = {history!r}

if __name__ == "__main__":
    from oracle.fuzz import checked, tell

    print(tell(history))
    print(*checked(history, {mode!r}), sep="\\n")
'''


def save(disagreement: Disagreement, directory: Path, name: str) -> None:
    """The disagreement as a Python file that shows it."""
    title = f"{disagreement.kind} ({disagreement.mode}), {disagreement.sample}"
    text = REPRODUCTION.format(title=title, detail=disagreement.detail, history=disagreement.history, mode=disagreement.mode)
    (directory / name).write_text(text, encoding="utf-8")


# ---- campaigns ----


@dataclass
class Tally:
    """What a campaign counted. `undecided` by mode; `skipped` were too big for the oracle."""

    cases: int = 0
    legal: int = 0
    skipped: int = 0
    undecided: Counter[str] = None  # type: ignore[assignment]
    words: Counter[str] = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        self.undecided, self.words = Counter(), Counter()


def campaign(
    found: Iterator[Sample], tally: Tally, report: Callable[[Disagreement], None], modes: tuple[Mode, ...] = ("answers", "evidence")
) -> None:
    """Judges all samples in every mode, calling `report` with each disagreement, not yet shrunk."""
    for one in found:
        for mode in modes:
            if mode == "answers" and one.mutation is not None and one.mutation.of_watch:
                continue
            tally.cases += 1
            try:
                word, disagreement = compare(one, one.history, mode)
            except TooBigError:
                tally.skipped += 1
                continue
            tally.words[f"{mode} {word}"] += 1
            if word == "undecided":
                tally.undecided[mode] += 1
            if disagreement is not None:
                report(disagreement)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Differential fuzzing of the checkers against the brute-force oracle.")
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--mode", choices=("answers", "evidence"), default=None, help="only this mode (default: both)")
    parser.add_argument("--stop-after", type=int, default=5, help="disagreements of different kinds to show before giving up")
    parser.add_argument("--save", type=Path, default=None, help="directory for reproductions")
    options = parser.parse_args(arguments)
    began = time.perf_counter()
    tally = Tally()
    seen: Counter[tuple[str, ...]] = Counter()

    def report(disagreement: Disagreement) -> None:
        mutation = disagreement.sample.mutation
        told = disagreement.detail.split(":")[0] if disagreement.kind != "miss" else mutation.name if mutation else "valid"
        key = (disagreement.kind, disagreement.mode, told)
        seen[key] += 1
        if seen[key] > 1:
            return
        small = shrink(disagreement)
        print(small, "\n", flush=True)
        if options.save is not None:
            save(small, options.save, f"{small.kind.replace(' ', '_')}_{small.mode}_{small.sample.seed}.py")
        if len(seen) >= options.stop_after:
            raise KeyboardInterrupt

    try:
        modes: tuple[Mode, ...] = ("answers", "evidence") if options.mode is None else (options.mode,)
        campaign(samples(options.seed, options.cases), tally, report, modes)
    except KeyboardInterrupt:
        print("stopped early", file=sys.stderr)
    seconds = time.perf_counter() - began
    print(f"{tally.cases} judgements in {seconds:.1f} s; {tally.skipped} too big for the oracle; {dict(tally.words)}")
    for key, count in seen.items():
        print(count, *key)
    return 1 if seen else 0


if __name__ == "__main__":
    sys.exit(main())
