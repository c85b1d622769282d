"""Schedules drawn from a seed, and faults asked for in words."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pekan.errors import UsageError
from pekan.faults import CLASSES, INJECTORS, draw, kinds_of, parse, phases, show, with_faults
from pekan.faults.process.pause import LONG_MS as PAUSE_LONG_MS
from pekan.faults.schedule import ALL_KILLED_SHARE, AT_MS, LAST_FIFTH, QUORUM_LOSS_MS_MAX
from pekan.plan import Fault, Plan, Schedule, Trigger

MEMBERS = ("m1", "m2", "m3")
SEEDS = range(60)


def length(fault: Fault) -> int:
    """How long the fault itself lasts, ms."""
    return sum(fault.parameters.values())


def down_at(schedule: Schedule, ms: int) -> list[Fault]:
    """The faults that hold their victim at `ms`, recovery not counted."""
    return [fault for fault in schedule.faults if fault.trigger.at_ms <= ms < fault.trigger.at_ms + length(fault)]


@settings(deadline=None)
@given(seed=st.integers(), members=st.sampled_from((1, 3, 5)), time_ms=st.integers(1_000, 200_000))
def test_a_schedule_is_a_function_of_its_arguments(seed: int, members: int, time_ms: int) -> None:
    """Drawn again it is the same, it survives the plan's JSON, and all of it happens between the quiet start and the heal."""
    schedule = draw(seed, ("all",), members, time_ms)
    assert schedule == draw(seed, ("all",), members, time_ms)
    plan = Plan(etcd="3.5.1", seed=seed, members=members, schedule=schedule)
    assert Plan.from_text(plan.to_text()) == plan
    assert 0 < schedule.quiet_ms < schedule.heal_ms < schedule.end_ms == time_ms
    for fault in schedule.faults:
        assert schedule.quiet_ms <= fault.trigger.at_ms < schedule.heal_ms
        assert fault.trigger.at_ms + length(fault) <= schedule.heal_ms
        assert length(fault) >= 0
        assert not fault.required
        assert fault.fault_class == fault.kind
        assert set(fault.parameters) == set(INJECTORS[fault.kind].parameters)


def test_other_seeds_make_other_schedules() -> None:
    """Sixty seeds, sixty schedules."""
    assert len({repr(draw(seed, ("all",), 3, 60_000)) for seed in SEEDS}) == len(SEEDS)


@pytest.mark.parametrize(("time_ms", "edges"), [(60_000, (6_000, 54_000)), (20_000, (3_000, 17_000)), (8_000, (2_000, 6_000))])
def test_edges_are_a_tenth_or_three_seconds_or_a_quarter(time_ms: int, edges: tuple[int, int]) -> None:
    """The quiet start and the healed end are a tenth, at least three seconds, at most a quarter of the time."""
    assert phases(time_ms) == edges


@pytest.mark.parametrize("kind", INJECTORS)
def test_a_class_is_expected_in_every_run(kind: str) -> None:
    """Asked for alone, a class comes several times in a minute for nearly every seed, and no other kind comes."""
    schedules = [draw(seed, (kind,), 3, 60_000) for seed in SEEDS]
    assert all({fault.kind for fault in schedule.faults} <= {kind} for schedule in schedules)
    assert sum(len(schedule.faults) >= 3 for schedule in schedules) >= 55


def test_no_class_no_fault() -> None:
    """`none`, and no class at all, draw phases without faults."""
    assert draw(1, ("none",), 3, 60_000) == draw(1, (), 3, 60_000)
    assert draw(1, (), 3, 60_000).faults == ()


@pytest.mark.parametrize("members", [3, 5])
def test_a_majority_stays_up_but_for_moments(members: int) -> None:
    """More members are down at once than may fail only briefly, or where all are killed together; both happen."""
    losses = all_killed = 0
    for seed in SEEDS:
        schedule = draw(seed, ("all",), members, 60_000)
        for fault in schedule.faults:
            down = down_at(schedule, fault.trigger.at_ms)
            if len(down) <= (members - 1) // 2:
                continue
            if len(down) >= members:
                all_killed += 1
                continue
            losses += 1
            assert min(length(each) for each in down) <= QUORUM_LOSS_MS_MAX
    assert losses > 0
    assert all_killed > 60 * ALL_KILLED_SHARE


def test_faults_overlap() -> None:
    """A member is killed or restarted while another stands still, in several seeds."""
    met = 0
    for seed in SEEDS:
        schedule = draw(seed, ("all",), 3, 60_000)
        met += any(len({each.kind for each in down_at(schedule, fault.trigger.at_ms)}) > 1 for fault in schedule.faults)
    assert met > 5


def test_one_member_has_one_fault_at_a_time() -> None:
    """A cluster of one is never hit before it had time to come back."""
    for seed in SEEDS:
        faults = draw(seed, ("all",), 1, 60_000).faults
        assert faults
        for before, after in itertools.pairwise(faults):
            assert after.trigger.at_ms >= before.trigger.at_ms + INJECTORS[before.kind].down_ms(before.parameters)


def test_some_pauses_outlast_an_election() -> None:
    """Pauses come shorter and longer than etcd's election timeout."""
    pauses = [length(fault) for seed in SEEDS for fault in draw(seed, ("pause",), 3, 60_000).faults]
    assert sum(ms < 1_000 for ms in pauses) > len(pauses) / 4
    assert sum(ms >= PAUSE_LONG_MS[0] for ms in pauses) > len(pauses) / 6


def test_a_follower_is_paused_in_the_last_fifth() -> None:
    """Where pauses are asked for, a follower stands still when transactions of compares only are sent, and is healed in time."""
    for seed in SEEDS:
        schedule = draw(seed, ("kill", "pause"), 3, 60_000)
        late = [f for f in schedule.faults if f.kind == "pause" and f.target == "follower" and f.trigger.at_ms >= LAST_FIFTH * 60_000]
        assert late
        assert max(length(fault) for fault in late) >= 1_200


def test_classes_are_named_in_errors() -> None:
    """An unknown class names the known ones; `all` stands for every kind."""
    assert kinds_of(("all",)) == tuple(INJECTORS) == ("kill", "pause", "restart")
    assert kinds_of(("restart", "kill")) == ("kill", "restart")
    with pytest.raises(UsageError, match=r"'network'.*kill, pause, restart, all, none"):
        kinds_of(("network",))
    assert list(CLASSES) == ["kill", "pause", "restart", "all", "none"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("kill", Fault("kill", "any", Trigger(AT_MS), {"down_ms": 500}, required=True)),
        ("pause leader 2s at 10s", Fault("pause", "leader", Trigger(10_000), {"hold_ms": 2_000}, required=True)),
        ("pause at 10s 2s leader", Fault("pause", "leader", Trigger(10_000), {"hold_ms": 2_000}, required=True)),
        ("kill m2 down_ms=30 at 1.5s", Fault("kill", "m2", Trigger(1_500), {"down_ms": 30}, required=True)),
        (
            "restart follower down_ms=1s",
            Fault("restart", "follower", Trigger(AT_MS), {"grace_ms": 10_000, "down_ms": 1_000}, required=True),
        ),
    ],
)
def test_a_fault_in_words(text: str, expected: Fault) -> None:
    """Target, duration, settings and time, in any order after the kind; what is left out has a default."""
    assert parse(text, MEMBERS) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("explode", "no fault is called 'explode'; there are kill, pause, restart"),
        ("kill m9", "no member is called 'm9'; write leader, follower, any, m1, m2, m3"),
        ("kill leader follower", "two targets, 'leader' and 'follower'"),
        ("kill at", "'' is no length of time"),
        ("kill at soon", "'soon' is no length of time"),
        ("kill at 5s at 6s", "a time is given twice"),
        ("kill 5s down_ms=4", "down_ms is given twice"),
        ("kill speed=3", "kill takes no 'speed'; it takes down_ms"),
        ("kill down_ms=fast", "'fast' is no length of time"),
        ("kill at revision 5", "no trigger of this release"),
        ('kill on log "elected"', "no trigger of this release"),
        ("kill 50%", "'50%' is neither"),
    ],
)
def test_a_fault_that_makes_no_sense(text: str, message: str) -> None:
    """The message names the word that is wrong and what would be right."""
    with pytest.raises(UsageError, match=message.replace("(", r"\(")):
        parse(text, MEMBERS)


@settings(deadline=None)
@given(
    kind=st.sampled_from(sorted(INJECTORS)),
    target=st.sampled_from(("leader", "follower", "any", *MEMBERS)),
    at_ms=st.integers(0, 10_000_000),
    ms=st.integers(0, 100_000),
)
def test_what_is_shown_is_what_is_parsed(kind: str, target: str, at_ms: int, ms: int) -> None:
    """A fault printed by a plan can be pasted back."""
    fault = Fault(
        kind,
        target,
        Trigger(at_ms),
        {**{name: each.default for name, each in INJECTORS[kind].parameters.items()}, INJECTORS[kind].duration: ms},
        required=True,
    )
    assert parse(show(fault), MEMBERS) == fault
    assert parse(show(replace(fault, required=False)), MEMBERS) == fault


def test_faults_asked_for_join_the_drawn_ones() -> None:
    """They are merged in time; one that could not be healed in time is refused with the time that there is."""
    drawn = draw(1, ("kill",), 3, 60_000)
    wanted = parse("pause leader 2s at 10s", MEMBERS)
    merged = with_faults(drawn, (wanted,))
    assert set(map(repr, merged.faults)) == {*map(repr, drawn.faults), repr(wanted)}
    assert [fault.trigger.at_ms for fault in merged.faults] == sorted(fault.trigger.at_ms for fault in merged.faults)
    with pytest.raises(UsageError, match="healed at 54s, of 1m of traffic"):
        with_faults(drawn, (parse("kill at 54s"),))
