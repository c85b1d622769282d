"""What a plan may leave out of its traffic: named, drawn all the same, and not sent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from pekan.errors import UsageError
from pekan.etcd.client import Client
from pekan.hunt.planning import possible_here
from pekan.plan import Plan
from pekan.workloads import COMPANIONS, DRAWN, KINDS, auth, deviations, kinds_of, kubernetes, kv, left_in, maintenance, watching, works_of
from pekan.workloads.traffic import Choice, Traffic

CHOICES = 3_000
"""The rarest kind comes once in a hundred choices."""
PLAN = Plan(etcd="3.5.1", seed=1, workloads=("kv", "auth"))
DRAWS: dict[str, tuple[Callable[[int], Choice], ...]] = {
    "kv": (lambda n: kv.choose(1, "kv-0", n),),
    "kubernetes": (lambda n: kubernetes.choose(1, "kubernetes-0", n),),
    "auth": (
        lambda n: auth.choose(1, "auth-0", n, "alice"),
        lambda n: auth.choose_change(1, "auth-root", n),
        lambda n: auth.choose_denied(1, "late-denied-m1", n),
        lambda n: auth.choose_watch(1, "auth-watch-alice", n, "alice"),
    ),
    "watching": (lambda n: watching.choose(1, "watch-m1-0", n, ("kv",)),),
    "maintenance": (lambda n: maintenance.choose(1, "admin-m1", n),),
    "deviations": (
        lambda n: deviations.choose_ask(1, "late-ask-m1-0", n, ("m2",)),
        lambda n: deviations.choose_ranged(1, "late-range-m1", n),
    ),
}
NOT_DRAWN = {
    "kubernetes": {kubernetes.COMPACTION},
    "watching": {watching.WHOLE, watching.SLOW, watching.BULKY},
}
"""What a client of its own does, over and over."""


def no_client(name: str, member: str, *, metadata: tuple[tuple[str, str], ...] = (), slow: bool = False) -> Client:
    """For tests that send nothing."""
    raise AssertionError(f"{name} wanted a client of {member} ({metadata}, {slow})")


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_that_is_drawn_can_be_left_out(name: str) -> None:
    """The kinds of a workload are those that its clients draw, and those of clients that do one thing."""
    drawn = {draw(n).kind for draw in DRAWS[name] for n in range(CHOICES)}
    assert drawn | NOT_DRAWN.get(name, set()) == set(KINDS[name])
    assert len(set(KINDS[name])) == len(KINDS[name])


def test_every_workload_has_its_kinds() -> None:
    """Every workload whose traffic is drawn and every companion has kinds, under its own name."""
    assert set(KINDS) == {*DRAWN, *(make().name for make in COMPANIONS)}
    assert list(kinds_of(PLAN)) == ["kv", "auth", *(make().name for make in COMPANIONS)]
    assert kinds_of(replace(PLAN, workloads=("script",))) == {}


def test_what_is_left_out_is_not_run() -> None:
    """A workload of which nothing is left does not even prepare the store; of the others the kinds go."""
    plan = replace(PLAN, without=("auth", "watching", "kv:get", *(f"maintenance:{kind}" for kind in KINDS["maintenance"])))
    assert [work.name for work in works_of(plan)] == ["kv", "deviations"]
    assert left_in(plan)["kv"] == tuple(kind for kind in KINDS["kv"] if kind != "get")
    traffic = Traffic(plan, ("m1",), no_client)
    assert [traffic.sends("kv", "get"), traffic.sends("kv", "put"), traffic.sends("auth", "put")] == [False, True, False]


@pytest.mark.parametrize(
    ("without", "named"),
    [(("kubernetes",), "kv, auth"), (("kv:gets",), "get-local"), (("everything",), "watching")],
)
def test_wrong_names_are_refused(without: tuple[str, ...], named: str) -> None:
    """A name that says nothing in this plan is refused with those that do, before anything is started."""
    with pytest.raises(UsageError, match=f"plan.without.*{named}"):
        possible_here(replace(PLAN, without=without))


def test_a_plan_without_traffic_is_refused() -> None:
    """Leaving out everything leaves no run."""
    with pytest.raises(UsageError, match="some traffic"):
        left_in(replace(PLAN, without=tuple(kinds_of(PLAN))))


def test_whoever_only_skips_lets_the_others_go_on() -> None:
    """Skipped choices give everybody a turn, and a client that would do nothing else waits for the end."""

    async def run() -> list[str]:
        traffic = Traffic(replace(PLAN, without=("kv:get", "auth")), ("m1",), no_client)
        said: list[str] = []

        async def skipping() -> None:
            while not traffic.finished.is_set():
                assert await traffic.skips("kv", "get")
            said.append("skipped")

        async def idling() -> None:
            assert await traffic.idle("auth", KINDS["auth"])
            said.append("idle" if traffic.finished.is_set() else "early")

        async with asyncio.TaskGroup() as group:
            group.create_task(skipping())
            group.create_task(idling())
            assert not await traffic.skips("kv", "put")
            assert not await traffic.idle("kv", KINDS["kv"])
            await asyncio.sleep(0)
            traffic.finished.set()
        return said

    assert sorted(asyncio.run(run())) == ["idle", "skipped"]
