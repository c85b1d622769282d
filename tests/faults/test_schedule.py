"""Schedules drawn from a seed: pure, in storms with calm between, within a budget, and fair to every kind."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Mapping
from typing import ClassVar, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pekan.errors import UsageError
from pekan.etcd.cluster import Member
from pekan.faults import CLASSES, INJECTORS, Armed, Injector, class_of, draw, kinds_of, parse, phases, with_faults
from pekan.faults.injector import PROCESS, Drawn, Parameter
from pekan.faults.process.pause import LONG_MS as PAUSE_LONG_MS
from pekan.faults.resources.memory import HOLD_MS
from pekan.faults.schedule import ALL_KILLED_SHARE, CALM_MS, FAULTS_MAX, LAST_FIFTH, QUORUM_LOSS_MS_MAX
from pekan.plan import Fault, Plan, Schedule, Trigger

MEMBERS = ("m1", "m2", "m3")
SEEDS = range(60)
INSIDE = kinds_of(("all",))
PROCESS_KINDS = ("kill", "pause", "restart")
HOUR_MS = 3_600_000


def held(fault: Fault) -> int:
    """How long the fault holds its victim as far as the schedule knows, ms; recovery included."""
    return INJECTORS[fault.kind].lasts_ms(fault.parameters)


def process_length(fault: Fault) -> int:
    """How long a kill, pause or restart keeps its victim from running at most, ms."""
    return sum(fault.parameters.values())


def down_at(schedule: Schedule, ms: int) -> list[Fault]:
    """The faults that take their victim down at `ms`, recovery included."""
    return [
        fault
        for fault in schedule.faults
        if fault.trigger.at_ms <= ms < fault.trigger.at_ms + INJECTORS[fault.kind].down_ms(fault.parameters)
    ]


@settings(max_examples=40)
@given(
    seed=st.integers(),
    members=st.sampled_from((1, 3, 5)),
    time_ms=st.integers(1_000, 200_000),
    name=st.sampled_from((*CLASSES, *INJECTORS)),
)
def test_a_schedule_is_a_function_of_its_arguments(seed: int, members: int, time_ms: int, name: str) -> None:
    """Drawn again it is the same, it survives the plan's JSON, and all of it happens between the quiet start and the heal."""
    kinds = kinds_of((name,))
    schedule = draw(seed, kinds, members, time_ms)
    assert schedule == draw(seed, tuple(reversed(kinds)), members, time_ms)
    plan = Plan(etcd="3.5.1", seed=seed, members=members, schedule=schedule)
    assert Plan.from_text(plan.to_text()) == plan
    assert 0 < schedule.quiet_ms < schedule.heal_ms < schedule.end_ms == time_ms
    for fault in schedule.faults:
        injector = INJECTORS[fault.kind]
        assert schedule.quiet_ms <= fault.trigger.at_ms < schedule.heal_ms
        if injector.duration:
            assert 0 <= int(fault.parameters[injector.duration]) <= schedule.heal_ms - fault.trigger.at_ms
        assert not fault.required
        assert fault.fault_class == class_of(injector)
        assert set(fault.parameters) == set(injector.parameters)
        assert parse(f"{fault.kind} {fault.target}").kind == fault.kind


def test_other_seeds_make_other_schedules() -> None:
    """Sixty seeds, sixty schedules."""
    assert len({repr(draw(seed, PROCESS_KINDS, 3, 60_000)) for seed in SEEDS}) == len(SEEDS)


@pytest.mark.parametrize(
    ("time_ms", "edges"),
    [(HOUR_MS, (60_000, HOUR_MS - 60_000)), (60_000, (6_000, 54_000)), (20_000, (3_000, 17_000)), (8_000, (2_000, 6_000))],
)
def test_edges_are_a_tenth_within_bounds(time_ms: int, edges: tuple[int, int]) -> None:
    """The quiet start and the healed end are a tenth, at least three seconds, at most a quarter of the time and a minute."""
    assert phases(time_ms) == edges


@pytest.mark.parametrize("kind", INJECTORS)
def test_a_kind_is_expected_in_every_run(kind: str) -> None:
    """Asked for alone, a kind comes several times in a minute for nearly every seed, and no other kind comes."""
    schedules = [draw(seed, (kind,), 3, 60_000) for seed in range(12)]
    assert all({fault.kind for fault in schedule.faults} <= {kind} for schedule in schedules)
    assert sum(len(schedule.faults) >= 3 for schedule in schedules) >= 11


def test_no_kind_no_fault() -> None:
    """No kind at all draws phases without faults."""
    assert draw(1, (), 3, 60_000).faults == ()


def test_an_hour_has_every_kind_often() -> None:
    """An hour of everything inside etcd's promises draws each kind at least twenty times; what clusters meet each day more often."""
    counts = Counter(fault.kind for fault in draw(7, INSIDE, 3, HOUR_MS).faults)
    assert min(counts[kind] for kind in INSIDE) >= 20, counts
    means = {}
    for frequency in ("day", "week", "year"):
        of_class = [counts[kind] for kind in INSIDE if INJECTORS[kind].frequency == frequency]
        means[frequency] = sum(of_class) / len(of_class) if of_class else 0
    assert means["day"] > means["week"] > means["year"] > 0


def test_a_very_long_run_has_a_bounded_plan_and_faults_to_its_end() -> None:
    """A week draws no more faults than the bound, and draws in its last hour as well."""
    schedule = draw(1, PROCESS_KINDS, 3, 7 * 24 * HOUR_MS)
    assert len(schedule.faults) <= FAULTS_MAX
    assert schedule.faults[-1].trigger.at_ms > schedule.heal_ms - HOUR_MS


@pytest.mark.parametrize("members", [3, 5])
def test_storms_leave_calm_between_them(members: int) -> None:
    """Between two storms no fault holds anybody for at least the shortest calm, several times in five minutes."""
    for seed in range(4):
        faults = draw(seed, INSIDE, members, 300_000).faults
        # The pause of the last fifth may come into a calm.
        ends = list(itertools.accumulate((fault.trigger.at_ms + held(fault) for fault in faults), max))
        calms = [fault.trigger.at_ms - end for end, fault in zip(ends, faults[1:], strict=False)]
        assert sum(calm >= CALM_MS[0] for calm in calms) >= 5


@pytest.mark.parametrize("members", [3, 5])
def test_a_majority_stays_up_but_for_moments(members: int) -> None:
    """More victims are down at once than may fail only briefly, or where all are killed together; both happen."""
    losses = all_killed = 0
    for seed in SEEDS:
        schedule = draw(seed, PROCESS_KINDS, members, 60_000)
        for fault in schedule.faults:
            down = down_at(schedule, fault.trigger.at_ms)
            victims = sum(each.target not in MEMBERS for each in down) + len({each.target for each in down if each.target in MEMBERS})
            if victims <= (members - 1) // 2:
                continue
            if len(down) >= members:
                all_killed += 1
                continue
            losses += 1
            assert min(process_length(each) for each in down) <= QUORUM_LOSS_MS_MAX
    assert losses > 0
    assert all_killed > 60 * ALL_KILLED_SHARE


def test_patience_is_not_cut() -> None:
    """What takes its victim down beyond the failure budget does so briefly, and waits for its end as long as any other."""
    brief = 0
    for seed in SEEDS:
        schedule = draw(seed, ("memory-limit",), 3, 120_000)
        for fault in schedule.faults:
            assert int(fault.parameters["hold_ms"]) >= min(HOLD_MS[0], schedule.heal_ms - fault.trigger.at_ms)
            brief += int(fault.parameters["down_ms"]) <= QUORUM_LOSS_MS_MAX
    assert brief > 0


def test_faults_that_share_a_claim_never_meet_on_one_named_victim() -> None:
    """Where the schedule itself names a victim, what ends its process waits for what holds it."""
    met = 0
    for seed in SEEDS:
        named = [fault for fault in draw(seed, PROCESS_KINDS, 3, 120_000).faults if fault.target in ("m1", "m2", "m3")]
        for name in MEMBERS:
            for before, after in itertools.pairwise(fault for fault in named if fault.target == name):
                met += 1
                assert after.trigger.at_ms >= before.trigger.at_ms + held(before)
    assert met > 20


class Slow(Injector):
    """A fault that its victim lives with."""

    kind: ClassVar[str] = "slow"
    summary: ClassVar[str] = "for schedules only"
    frequency: ClassVar[Literal["day"]] = "day"
    parameters: ClassVar[Mapping[str, Parameter]] = {"hold_ms": Parameter(3_000, "ms", "how long")}
    duration: ClassVar[str] = "hold_ms"

    def draw(self, rng: random.Random) -> Drawn:
        return Drawn("any", {"hold_ms": rng.randint(1_000, 5_000)})

    async def inject(self, victim: Member, armed: Armed) -> None:
        raise AssertionError(f"{self.kind} is drawn and never carried out")


class Down(Slow):
    """A fault that takes its victim down, as a year brings it."""

    kind: ClassVar[str] = "down"
    frequency: ClassVar[Literal["year"]] = "year"  # type: ignore[assignment] # another of the same four
    claims: ClassVar[frozenset[str]] = frozenset({PROCESS})

    def down_ms(self, parameters: Mapping[str, int | str]) -> int:
        return int(parameters["hold_ms"]) + 1_000


def _many(slow: int, down: int) -> dict[str, Injector]:
    """That many kinds of each sort."""
    every: dict[str, Injector] = {}
    for base, count in ((Slow, slow), (Down, down)):
        for number in range(count):
            kind = f"{base.kind}-{number}"
            every[kind] = type(kind, (base,), {"kind": kind})()
    return every


def test_many_kinds_overlap_and_none_starves() -> None:
    """Of sixty kinds, a third of which take their victim down, each is drawn at least twenty times in an hour, and in storms it is normal
    that three or more overlap."""
    injectors = _many(40, 20)
    schedule = draw(3, tuple(injectors), 3, HOUR_MS, injectors)
    counts = Counter(fault.kind for fault in schedule.faults)
    assert min(counts[kind] for kind in injectors) >= 20, counts
    spans = [
        (fault.trigger.at_ms, fault.trigger.at_ms + max(int(fault.parameters["hold_ms"]), injectors[fault.kind].down_ms(fault.parameters)))
        for fault in schedule.faults
    ]
    overlaps = [sum(start <= at < end for start, end in spans) for at, _ in spans]
    assert sorted(overlaps)[len(overlaps) // 2] >= 3


def test_one_member_has_one_fault_at_a_time() -> None:
    """A cluster of one is never hit before it had time to come back."""
    for seed in SEEDS:
        faults = draw(seed, PROCESS_KINDS, 1, 60_000).faults
        assert faults
        for before, after in itertools.pairwise(faults):
            assert after.trigger.at_ms >= before.trigger.at_ms + INJECTORS[before.kind].down_ms(before.parameters)


def test_some_pauses_outlast_an_election() -> None:
    """Pauses come shorter and longer than etcd's election timeout."""
    pauses = [process_length(fault) for seed in SEEDS for fault in draw(seed, ("pause",), 3, 60_000).faults]
    assert sum(ms < 1_000 for ms in pauses) > len(pauses) / 4
    assert sum(ms >= PAUSE_LONG_MS[0] for ms in pauses) > len(pauses) / 6


def test_a_follower_is_paused_in_the_last_fifth() -> None:
    """Where pauses are asked for, a follower stands still when transactions of compares only are sent, and is healed in time."""
    for seed in SEEDS:
        schedule = draw(seed, ("kill", "pause"), 3, 60_000)
        late = [f for f in schedule.faults if f.kind == "pause" and f.target == "follower" and f.trigger.at_ms >= LAST_FIFTH * 60_000]
        assert late
        assert max(process_length(fault) for fault in late) >= 1_200


def test_classes_stand_for_kinds() -> None:
    """Each inside kind is in `all` and in the class of its frequency; what etcd promises nothing under is in `outside` only."""
    by_frequency = [kind for name in ("day", "week", "year") for kind in kinds_of((name,))]
    assert sorted(by_frequency) == sorted(INSIDE)
    assert kinds_of(("outside",)) == kinds_of(("century",)) == tuple(kind for kind in INJECTORS if kind not in INSIDE)
    assert kinds_of(("none",)) == ()
    assert kinds_of(("restart", "kill")) == ("kill", "restart")
    assert not set(CLASSES) & set(INJECTORS)


def test_an_unknown_class_is_named_in_the_error() -> None:
    """The message names the classes and the kinds that there are."""
    with pytest.raises(UsageError, match=r"'earthquake'.*day, week, year, century, all, outside, none, kill, pause, restart"):
        kinds_of(("earthquake",))


def test_faults_asked_for_join_the_drawn_ones() -> None:
    """They are merged in time; one that could not be healed in time is refused with the time that there is."""
    drawn = draw(1, ("kill",), 3, 60_000)
    wanted = parse("pause leader 2s at 10s", MEMBERS)
    merged = with_faults(drawn, (wanted,))
    assert set(map(repr, merged.faults)) == {*map(repr, drawn.faults), repr(wanted)}
    assert [fault.trigger.at_ms for fault in merged.faults] == sorted(fault.trigger.at_ms for fault in merged.faults)
    with pytest.raises(UsageError, match="healed at 54s, of 1m of traffic"):
        with_faults(drawn, (parse("kill at 54s"),))


def test_waiting_for_a_fault_that_is_not_there_is_refused() -> None:
    """`after` names a kind of which there are enough besides the fault itself."""
    nothing = Schedule(0, 50_000, 60_000)
    with_faults(nothing, (parse("pause"), parse("pause at 9s"), parse("kill after pause#2")))
    for faults in ((parse("kill after kill"),), (parse("pause"), parse("kill after pause#2"))):
        with pytest.raises(UsageError, match=r"it waits for (kill|pause#2), and there are [01] of (kill|pause) besides"):
            with_faults(nothing, faults)


def test_a_trigger_without_a_time_waits_from_the_start() -> None:
    """`at_ms` is 0 where another trigger is given alone, and the usual time where none is."""
    assert parse("kill after pause").trigger == Trigger(after="pause")
    assert parse("kill").trigger.at_ms > 0
