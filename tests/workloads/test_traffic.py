"""What clients of a workload share: draws, limits, names, and the masks under which two runs of one plan are the same."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pekan.errors import UsageError
from pekan.etcd.client import Client
from pekan.plan import Plan
from pekan.wire.errors import AUTH_OLD_REVISION, INVALID_ARGUMENT, PERMISSION_DENIED, UNAUTHENTICATED, WireError
from pekan.wire.messages import CompactionRequest, PutRequest, RangeRequest, TxnRequest
from pekan.workloads import COMPANIONS, WORKLOADS, workload
from pekan.workloads.traffic import BURST_S, Limiter, Traffic, draws, masked, token_refused, unique_value, weighted


def no_client(name: str, member: str, *, metadata: tuple[tuple[str, str], ...] = (), slow: bool = False) -> Client:
    """For tests that send nothing."""
    raise AssertionError(f"{name} wanted a client of {member} ({metadata}, {slow})")


def make(**plan: Any) -> Traffic:
    return Traffic(Plan(etcd="3.5.1", seed=1, **plan), ("m1", "m2", "m3"), no_client)


def test_draws_are_a_function_of_seed_client_and_n() -> None:
    """The same three arguments give the same numbers, and changing any one of them gives others."""
    numbers = draws(7, "kv-0", 3).random()
    assert numbers == draws(7, "kv-0", 3).random()
    assert len({numbers, draws(8, "kv-0", 3).random(), draws(7, "kv-1", 3).random(), draws(7, "kv-0", 4).random()}) == 4


def test_draws_are_the_same_in_every_release() -> None:
    """A plan written today draws the same tomorrow: the first number of one choice is pinned."""
    assert draws(1, "kv-0", 0).randrange(1_000_000) == 513_302


def test_values_are_told_apart() -> None:
    """Seed, client, n and part each make another value, whatever it is padded to."""
    values = {
        unique_value(s, c, n, p, size) for s in (1, 2) for c in ("kv-1", "kv-11") for n in (1, 11) for p in (0, 1) for size in (0, 50)
    }
    assert len(values) == 32


def test_weighted_keeps_to_its_weights() -> None:
    """Ten thousand draws come within a fifth of what the weights say, and a weight of zero is never drawn."""
    rng = random.Random(1)
    counts = Counter(weighted(rng, {"often": 80, "seldom": 20, "never": 0}) for _ in range(10_000))
    assert counts["never"] == 0
    assert 1_600 < counts["seldom"] < 2_400


def test_weighted_uses_one_number() -> None:
    """What is drawn after it does not depend on which key was drawn."""
    one, two = random.Random(5), random.Random(5)
    weighted(one, {"a": 1})
    weighted(two, {"a": 1, "b": 1000})
    assert one.random() == two.random()


@given(rate=st.integers(1, 2_000), gaps=st.lists(st.floats(0, 0.05), min_size=5, max_size=200))
def test_a_limited_rate_is_kept(rate: int, gaps: list[float]) -> None:
    """Whenever clients ask, no window of time sees more operations than the rate, a short burst, and the one at its edge."""
    limiter = Limiter(rate)
    now, used = 100.0, []
    for gap in gaps:
        now += gap
        used.append(now + limiter.delay(now))
    assert all(later >= earlier for earlier, later in itertools.pairwise(used))
    for first in range(len(used)):
        operations = len(used) - first
        assert operations <= (used[-1] - used[first]) * rate + BURST_S * rate + 1.001


def test_no_rate_is_no_limit() -> None:
    """Rate 0 never waits."""
    limiter = Limiter(0)
    assert [limiter.delay(1.0) for _ in range(5)] == [0.0] * 5


def test_no_turn_after_the_end() -> None:
    """Once the traffic has ended no client gets another turn, not even one that waits for its share of the rate."""

    async def run() -> None:
        traffic = make(rate=1)
        traffic.begin()
        assert await traffic.turn()
        # One a second: the last has ten minutes to wait.
        waiting = [asyncio.create_task(traffic.turn()) for _ in range(600)]
        await asyncio.sleep(0)
        traffic.finished.set()
        async with asyncio.timeout(60):
            assert not any(await asyncio.gather(*waiting))
        assert not await traffic.turn()

    asyncio.run(run())


def test_clients_share_the_concurrency() -> None:
    """Each workload gets its part of the plan's concurrency, and never less than one client a member."""
    assert make(concurrency=8).clients() == 8
    assert make(concurrency=8, workloads=("kv", "auth")).clients() == 4
    assert make(concurrency=1).clients() == 3


def test_time_stands_still_before_the_traffic() -> None:
    """Before `begin` nothing has elapsed, so that no late client starts during the preparation."""
    traffic = make(time_ms=1)
    assert traffic.elapsed_ms() == 0
    assert not traffic.late


def test_refused_tokens_are_renewed() -> None:
    """A forgotten or outdated token is renewed; a denied permission is an answer."""
    assert token_refused(WireError(UNAUTHENTICATED, "etcdserver: invalid auth token"))
    assert token_refused(WireError(INVALID_ARGUMENT, "etcdserver: user name is empty"))
    assert token_refused(WireError(INVALID_ARGUMENT, AUTH_OLD_REVISION))
    assert not token_refused(WireError(PERMISSION_DENIED, "etcdserver: permission denied"))


def test_masks_hide_what_replies_decide_and_nothing_else() -> None:
    """Revisions and compared numbers are masked at every depth; keys, values, limits and options stay."""
    one = TxnRequest(
        (), (RangeRequest(b"a", revision=5, limit=3), TxnRequest((), (PutRequest(b"k", b"v"), RangeRequest(b"b", revision=1))))
    )
    two = TxnRequest(
        (), (RangeRequest(b"a", revision=9, limit=3), TxnRequest((), (PutRequest(b"k", b"v"), RangeRequest(b"b", revision=2))))
    )
    assert one != two
    assert masked(one) == masked(two)
    assert masked(CompactionRequest(3, True)) == masked(CompactionRequest(8, True)) != masked(CompactionRequest(3, False))
    assert masked(PutRequest(b"k", b"v")) != masked(PutRequest(b"k", b"w"))
    assert masked(RangeRequest(b"a", limit=1)) != masked(RangeRequest(b"a", limit=2))
    assert masked(RangeRequest(b"a\0", b"b", limit=1)) is None


def test_workloads_answer_to_their_names() -> None:
    """Each name makes a workload that calls itself so, companions have names of their own, and an unknown name lists the known ones."""
    assert [workload(name).name for name in WORKLOADS] == list(WORKLOADS) == ["kv", "kubernetes", "auth", "script"]
    assert not {make().name for make in COMPANIONS} & set(WORKLOADS)
    with pytest.raises(UsageError, match=r"'queue'.*kv, kubernetes, auth"):
        workload("queue")


def test_clients_stay_at_home_while_it_is_there() -> None:
    """Without newcomers no client moves, whoever else has departed; with nobody left it stays too."""
    traffic = make()
    assert [traffic.host(home, "kv-0") for home in traffic.members] == ["m1", "m2", "m3"]
    traffic.present = ("m1", "m3")
    assert [traffic.host(home, "kv-0") for home in ("m1", "m3")] == ["m1", "m3"]
    traffic.present = ()
    assert traffic.host("m2", "kv-0") == "m2"


def test_clients_of_a_departed_member_move_to_who_is_there() -> None:
    """To the newcomer where there is one, else to any; the same client always to the same."""
    traffic = make()
    traffic.present = ("m1", "m3")
    hosts = {traffic.host("m2", f"kv-{index}") for index in range(50)}
    assert hosts == {"m1", "m3"}
    assert len({traffic.host("m2", "kv-7") for _ in range(10)}) == 1
    traffic.present = ("m1", "m3", "m4")
    assert {traffic.host("m2", f"kv-{index}") for index in range(50)} == {"m4"}


def test_a_newcomer_gets_a_fair_share_of_all_clients() -> None:
    """Of 400 clients of three members a fourth one gets between an eighth and three eighths, and the others stay where they are."""
    traffic = make()
    traffic.present = ("m1", "m2", "m3", "m4")
    hosts = [traffic.host(traffic.members[index % 3], f"kv-{index}") for index in range(400)]
    moved = hosts.count("m4")
    assert 50 < moved < 150
    assert all(host in ("m4", traffic.members[index % 3]) for index, host in enumerate(hosts))
