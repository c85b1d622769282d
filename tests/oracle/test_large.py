"""Histories as large as real ones: what is right holds, what is wrong is found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from oracle.fuzz import checked, without_watches
from pekan.history.reading import load
from pekan.history.types import History
from pekan.verdict import Finding
from pekan.wire.messages import WatchCreateRequest
from simulator.cluster import Config, Simulated, WatchPlan, simulate
from simulator.mutations import MUTATIONS, Mutation
from simulator.recording import write_history
from simulator.traffic import Mix

WATCHES = (
    WatchPlan(0, WatchCreateRequest(b"k00", b"k05", 3, prev_kv=True), reconnect=0.01),
    WatchPlan(1, WatchCreateRequest(b"\x00", b"\x00", 0, True, (0,)), at_operation=700),
    WatchPlan(2, WatchCreateRequest(b"\x00", b"\x00", -20, False, (1,), True, 0, True), relative=True, at_operation=1100, reconnect=0.01),
    WatchPlan(0, WatchCreateRequest(b"k", b"l", 40, True, (), True), relative=True, at_operation=1300, progress=0.05),
)
TROUBLED = Config(
    operations=2_500, clients=12, keys=12, watch=3, watches=WATCHES, indefinite=0.02, outage=0.004, reconnect=0.002, progress=0.02,
    fragment_of=2, mix=Mix(compact=1, compares_only=1, nested=3), lag=0.4,
)  # fmt: skip
CONFIGS = {
    "kill and pause": replace(TROUBLED, seed=1, operations=10_000),
    "leases run out": replace(TROUBLED, seed=2, mean_ns=100_000_000, ttl=2, renew=0.5, mix=Mix(grant=6, put_lease=15, revoke=2)),
    "values repeat": replace(TROUBLED, seed=3, unique_values=False),
    "many keys, unstable sorts": replace(TROUBLED, seed=4, keys=80, mix=Mix(list=30)),
    "one hot key": replace(TROUBLED, seed=5, keys=1),
    "one client": replace(TROUBLED, seed=6, clients=1),
    "sixty-four clients": replace(TROUBLED, seed=7, clients=64),
    "as of 3.7": replace(TROUBLED, seed=8, hides_lease=True),
    "much compaction": replace(TROUBLED, seed=9, mix=Mix(compact=8, compact_refused=4, old=15)),
    "found running": replace(TROUBLED, seed=10, hidden=500, watches=()),
    "found running, with leases": replace(
        TROUBLED, seed=11, hidden=500, watches=(), mean_ns=50_000_000, ttl=2, mix=Mix(grant=6, put_lease=15)
    ),
}


def counting(findings: tuple[Finding, ...]) -> str:
    return "\n".join(f"{f.code}: {f.summary}\n  {f.explanation}\n  {f.certificate}" for f in findings[:3])


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_right_holds(name: str) -> None:
    """Thousands of operations with lost answers, outages and lagging members: no finding, and with watches nothing undecided."""
    word, findings = checked(simulate(CONFIGS[name]).history, "evidence")
    assert word == "holds", counting(findings) or word


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_right_is_never_called_broken_from_answers_alone(name: str) -> None:
    """The same without any watch: a bound may be met, a finding may not."""
    word, findings = checked(simulate(CONFIGS[name]).history, "answers")
    assert word != "broken", counting(findings)


@pytest.fixture(scope="module")
def troubled() -> Simulated:
    return simulate(replace(TROUBLED, operations=1_500))


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_one_lie_among_thousands_is_found(mutation: Mutation, troubled: Simulated) -> None:
    """One illegal change is found and named with a fitting code; a legal one is let pass."""
    changed = 0
    for seed in range(20):
        history = mutation.change(troubled, Random(seed))
        if history is None:
            continue
        word, findings = checked(history, "evidence")
        if mutation.kind == "legal":
            assert word == "holds", f"seed {seed}: {counting(findings) or word}"
        else:
            assert word == "broken", f"seed {seed}: {word}"
            codes = {f.code for f in findings}
            assert codes & set(mutation.codes), f"seed {seed}: {codes}\n{counting(findings)}"
        changed += 1
        if changed == 2:
            break
    assert changed, f"{mutation.name} found nothing to change in {len(troubled.history.operations)} operations"


def test_a_recorded_history_is_the_simulated_one(troubled: Simulated, tmp_path: Path) -> None:
    """Written as records and read again, nothing of operations, streams and marks is different."""
    path = tmp_path / "history.pb"
    write_history(troubled.history, path)
    again: History = load(path)
    assert again.operations == troubled.history.operations
    assert again.streams == troubled.history.streams
    assert again.marks == troubled.history.marks
    assert (again.start, again.complete, again.cut) == ("empty", True, 0)
    assert not without_watches(again).streams
