"""Points drawn by the kind of operation that reaches them."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from pekan.faults.hooks.profile import Profile, draw_point, load, reached, weigh

HITS = {
    "put": {"wal.Save": 1.0, "kv.Put": 1.0, "raft.tick": 0.1},
    "range": {"kv.Range": 2.0, "raft.tick": -0.2},
    "txn": {"wal.Save": 1.0, "kv.Txn": 1.0},
}


def test_what_few_kinds_reach_weighs_more_and_chance_hits_do_not_count() -> None:
    """The log is shared by two kinds, a tick in ten operations is nobody's."""
    profile = weigh(HITS)
    assert set(profile.kinds["put"]) == {"wal.Save", "kv.Put"}
    assert set(profile.kinds["range"]) == {"kv.Range"}
    assert profile.kinds["put"]["kv.Put"] > profile.kinds["put"]["wal.Save"] > 0


def test_kinds_are_drawn_evenly_and_functions_by_weight() -> None:
    """Of three kinds each is drawn a third of the time, however many functions it has."""
    profile = weigh(HITS)
    rng = random.Random(1)
    drawn = Counter(draw_point(profile, rng) for _ in range(3_000))
    assert set(drawn) == {"wal.Save", "kv.Put", "kv.Range", "kv.Txn"}
    assert 900 < drawn["kv.Range"] < 1_100
    assert drawn["kv.Put"] > drawn["wal.Save"] / 2


def test_a_draw_keeps_to_its_kind_and_to_what_is_live() -> None:
    """Nothing else is drawn, the same seed draws the same, and where nothing fits nothing is."""
    profile = weigh(HITS)
    assert {draw_point(profile, random.Random(seed), "put") for seed in range(50)} == {"wal.Save", "kv.Put"}
    assert {draw_point(profile, random.Random(seed), among={"kv.Txn", "other"}) for seed in range(9)} == {"kv.Txn"}
    assert draw_point(profile, random.Random(7)) == draw_point(profile, random.Random(7))
    assert draw_point(profile, random.Random(1), "put", {"kv.Txn"}) is None
    assert draw_point(profile, random.Random(1), "compact") is None
    assert draw_point(Profile({}), random.Random(1)) is None


def test_reached_is_what_counted_between_two_readings() -> None:
    """Also for what the first reading does not have."""
    assert reached({"a": 1, "b": 2}, {"a": 1, "b": 5, "c": 1}) == {"b": 3, "c": 1}


@pytest.mark.parametrize("text", ["", "[]", "{", '{"put": 1}', '{"put": {"a": "much"}}'])
def test_a_damaged_profile_is_none(tmp_path: Path, text: str) -> None:
    """What is no profile is not read as one."""
    file = tmp_path / "profile"
    assert load(file) is None
    file.write_text(text)
    assert load(file) is None
