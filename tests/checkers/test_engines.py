"""Both engines say the same: a native verdict is the reference's, word for word, over what is right and over what was made wrong."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest

import pekan
from oracle.both import both
from oracle.engines import SPENT, Difference, campaign, locks, said, samples
from pekan import native
from pekan.checkers.case import Options
from pekan.errors import CoreFailure, EvidenceError
from simulator.cluster import Config, simulate
from simulator.damage import changed
from simulator.recording import write_history
from simulator.traffic import Mix

pytestmark = pytest.mark.skipif(native.core is None, reason=f"the native core is not there: {native.reason}")

CASES = 400
"""What fits into some seconds; `python -m oracle.engines` goes on."""
LOCKS = 60
"""Histories of locks: the others are in `python -m oracle.engines --locks`."""
SPENT_SHARE_MAX = 0.01
"""Of those cases: in so many the search may spend its whole budget. The core leaves no other to the reference."""
CHANGED = 400
"""Files changed at random; two judgements each."""
CONFIGS = {
    "kills and pauses": Config(seed=1, operations=600, clients=8, keys=8, watch=3, indefinite=0.03, outage=0.01, reconnect=0.01, lag=0.4),
    "leases run out": Config(
        seed=2, operations=400, clients=6, keys=6, watch=3, mean_ns=10**8, ttl=1, mix=Mix(grant=8, put_lease=20, revoke=3)
    ),
    "answers alone": Config(seed=3, operations=400, clients=4, keys=5, watch=0, indefinite=0.01),
    "much compaction": Config(seed=4, operations=500, clients=6, watch=2, mix=Mix(compact=8, compact_refused=4, old=15)),
    "found running": Config(seed=5, operations=500, clients=6, hidden=200),
}


def test_both_engines_say_the_same_of_random_histories(tmp_path: Path) -> None:
    """Over a fixed campaign of histories, right and mutated, the verdicts are equal."""
    found: list[Difference] = []
    tally = campaign(samples(7, CASES), tmp_path, found.append)
    assert not found, f"{len(found)} differences; the first:\n{found[0]}"
    assert set(tally.declined) <= {SPENT}, tally.declined
    assert tally.declined[SPENT] <= SPENT_SHARE_MAX * CASES
    # A campaign in which nothing is broken, or nothing holds, compares too little.
    assert all(tally.words[word] > CASES / 20 for word in ("holds", "broken", "undecided")), tally.words


def test_both_engines_say_the_same_of_locks_spelled_out(tmp_path: Path) -> None:
    """What members wrote for callers of the lock and election services, as requests of unknown outcome: the verdicts are equal."""
    found: list[Difference] = []
    tally = campaign(locks(1, LOCKS), tmp_path, found.append)
    assert not found, f"{len(found)} differences; the first:\n{found[0]}"
    assert tally.declined.total() < LOCKS / 3, tally.declined
    assert tally.words["holds"] > LOCKS / 3, tally.words


def test_both_engines_say_the_same_of_changed_files(tmp_path: Path) -> None:
    """A small file changed at random under right checksums: the same verdict or the same refusal by both, and no crash."""
    path = tmp_path / "history.pb"
    config = Config(seed=3, operations=12, clients=3, keys=2, watch=1, mix=Mix(compact=4, grant=4, put_lease=6, nested=4))
    write_history(simulate(config).history, path)
    whole = path.read_bytes()
    rng = Random(1)
    taken = 0
    for turn in range(CHANGED):
        path.write_bytes(changed(whole, rng))
        answers = [_answer(path, engine) for engine in ("reference", "native")]
        assert answers[0][0] == answers[1][0], f"turn {turn}"
        taken += answers[1][1] == "native"
    assert taken > CHANGED / 10, "the native engine judged hardly any: nothing was compared"


def _answer(path: Path, engine: str) -> tuple[Any, str]:
    """What is said of the file, or why it is none, and by which engine."""
    try:
        verdict = pekan.check(path, engine=engine)
    except EvidenceError as error:
        return str(error), ""
    return said(verdict), verdict.engine


def test_a_panic_names_the_input() -> None:
    """A bug in the core becomes an exception that names what was looked at and how to do without the core."""
    with pytest.raises(CoreFailure, match=r"run-7/history\.pb.*--engine reference"):
        native.core.panics("run-7/history.pb")


@pytest.mark.parametrize("writers", ["exclusive", "shared"])
@pytest.mark.parametrize("name", CONFIGS)
def test_both_engines_say_the_same_of_larger_histories(name: str, writers: str) -> None:
    """The same of some hundred operations with lost answers, lagging members, compactions and leases."""
    found = both(simulate(CONFIGS[name]).history, Options(writers=writers))  # type: ignore[arg-type]
    assert found is not None
    assert found.difference is None
    assert found.declined is None
