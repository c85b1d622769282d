"""Every workload's choices: functions of seed, client and n, of all kinds that they promise, and of none that they must not send."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pekan.plan import Plan
from pekan.wire.messages import (
    EQUAL,
    LEASE,
    MOD,
    CompactionRequest,
    Compare,
    DeleteRangeRequest,
    LeaseGrantRequest,
    LeaseRevokeRequest,
    PutRequest,
    RangeRequest,
    TxnRequest,
    WatchCreateRequest,
    encode,
)
from pekan.workloads import auth, deviations, keys, kubernetes, kv, maintenance, watching
from pekan.workloads.keys import OBSERVED, Horizon, meets_known_deviation, put_values, resolve, revision_of, writes
from pekan.workloads.traffic import Choice, masked

CHOICES = 4_000
"""Enough that a kind of one in a thousand is missed by chance once in fifty runs of another seed; these seeds are fixed."""

Choose = Callable[[int, str, int], Choice]

WORKLOAD_CHOICES: dict[str, Choose] = {
    "kv": kv.choose,
    "kubernetes": kubernetes.choose,
    "auth": lambda seed, client, n: auth.choose(seed, client, n, "alice"),
}
ALL_CHOICES: dict[str, Choose] = {
    **WORKLOAD_CHOICES,
    "auth-root": auth.choose_change,
    "auth-watch": lambda seed, client, n: auth.choose_watch(seed, client, n, "carol"),
    "admin": maintenance.choose,
    "watch": lambda seed, client, n: watching.choose(seed, client, n, ("kv", "auth")),
    "late-ask": lambda seed, client, n: deviations.choose_ask(seed, client, n, ("m1", "m2")),
    "late-range": deviations.choose_ranged,
}


def ops_of(request: Any) -> Iterator[Any]:
    """Every operation of a request, at any depth, the request itself first."""
    yield request
    if isinstance(request, TxnRequest):
        for op in (*request.success, *request.failure):
            yield from ops_of(op)


def compares_of(request: Any) -> Iterator[Compare]:
    for op in ops_of(request):
        if isinstance(op, TxnRequest):
            yield from op.compare


@pytest.mark.parametrize("name", ALL_CHOICES)
def test_a_choice_is_a_function_of_seed_client_and_n(name: str) -> None:
    """Asked again, in any order, a choice is the same; another seed, client or n makes other ones."""
    choose = ALL_CHOICES[name]
    forwards = [choose(3, "c-0", n) for n in range(200)]
    backwards = [choose(3, "c-0", n) for n in reversed(range(200))]
    assert forwards == backwards[::-1]
    assert forwards != [choose(4, "c-0", n) for n in range(200)]
    assert forwards != [choose(3, "c-1", n) for n in range(200)]
    assert len({repr(choice) for choice in forwards}) > 5


@pytest.mark.parametrize("name", ["kv", "kubernetes", "auth", "late-range"])
def test_what_replies_tell_never_changes_more_than_the_masks_hide(name: str) -> None:
    """Filled in under two quite different stores, a choice sends the same request but for what is masked, and no hole is left."""
    choose = ALL_CHOICES[name]
    seen = {b"kv/h%02d" % i: keys.KeyValue(b"kv/h%02d" % i, 1, 50 + i, 3, b"x", 9) for i in range(0, 16, 2)}
    for n in range(2_000):
        template = choose(1, "kv-0", n).template
        if template is None:
            continue
        one = resolve(template, Horizon(100, 20), seen)
        two = resolve(template, Horizon(90_000, 80_000), {})
        assert masked(one) == masked(two)
        for request in (one, two):
            assert encode(request) is not None
            for op in ops_of(request):
                if isinstance(op, RangeRequest):
                    assert min(op.revision, op.min_mod_revision, op.max_mod_revision, op.min_create_revision, op.max_create_revision) >= 0
            for compare in compares_of(request):
                assert compare.operand != OBSERVED
                assert isinstance(compare.operand, bytes) or compare.operand >= 0


@pytest.mark.parametrize("name", WORKLOAD_CHOICES)
def test_values_are_written_once(name: str) -> None:
    """No value is written twice, by any client at any place of any request."""
    choose = WORKLOAD_CHOICES[name]
    values = [value for client in ("c-1", "c-11") for n in range(2_000) for value in put_values(choose(1, client, n).template)]
    assert len(values) > 1_000
    assert len(set(values)) == len(values)


@pytest.mark.parametrize("name", ["kv", "kubernetes", "auth"])
def test_known_deviations_are_no_part_of_the_main_traffic(name: str) -> None:
    """Nothing that etcd is known to answer wrongly is sent before its time."""
    choose = WORKLOAD_CHOICES[name]
    assert not [n for n in range(CHOICES) if meets_known_deviation(choose(1, "c-0", n).template)]


def test_the_late_classes_are_known_deviations_and_nothing_else() -> None:
    """What late clients send is exactly the two classes: compares only, and a write with a refused ranged revision, in both branches."""
    asks = [deviations.choose_ask(1, "late-ask-m1-0", n, ("m2", "m3")).template for n in range(300)]
    ranged = [deviations.choose_ranged(1, "late-range-m1", n).template for n in range(300)]
    assert all(meets_known_deviation(request) and not writes(request) for request in asks)
    assert all(meets_known_deviation(request) and writes(request) for request in ranged)
    assert {bool(request.failure) for request in ranged} == {True, False}
    horizon = Horizon(1_000, 500)
    read_at = {revision_of(op.revision, horizon) for request in ranged for op in ops_of(request) if isinstance(op, RangeRequest)}
    assert min(read_at) < horizon.compacted
    assert max(read_at) > horizon.revision
    assert not [revision for revision in read_at if horizon.compacted <= revision <= horizon.revision]


@pytest.mark.parametrize(
    ("choose", "weights"),
    [
        (kv.choose, kv.WEIGHTS),
        (kubernetes.choose, kubernetes.WEIGHTS),
        (ALL_CHOICES["auth"], auth.WEIGHTS),
        (auth.choose_change, auth.CHANGES),
        (maintenance.choose, maintenance.KINDS),
        (ALL_CHOICES["watch"], watching.KINDS),
    ],
)
def test_kinds_come_as_often_as_their_weights_say(choose: Choose, weights: dict[str, int]) -> None:
    """Every kind is drawn, none much more or less often than its weight, and no kind without one but those by position."""
    counts = Counter(choose(1, "c-0", n).kind for n in range(CHOICES))
    total = sum(weights.values())
    for kind, weight in weights.items():
        expected = CHOICES * weight / total
        assert expected * 0.6 - 8 < counts[kind] < expected * 1.4 + 8, kind
    assert set(counts) - set(weights) <= {"lease-grant", "lease-revoke"}


def test_kv_sends_everything_that_it_promises() -> None:
    """Each option, target, sort, edge and kind of lease use that the workload is there for occurs among its choices."""
    horizon = Horizon(10_000, 5_000)
    requests = [kv.choose(1, "kv-0", n).template for n in range(CHOICES)]
    ops = [op for request in requests for op in ops_of(request)]
    ranges = [op for op in ops if isinstance(op, RangeRequest)]
    puts = [op for op in ops if isinstance(op, PutRequest)]
    txns = [request for request in requests if isinstance(request, TxnRequest)]
    compares = [compare for txn in txns for compare in compares_of(txn)]
    assert {(compare.target, compare.result) for compare in compares} == {(target, result) for target in range(5) for result in range(4)}
    assert any(compare.range_end for compare in compares)
    assert any(compare.target == LEASE and isinstance(compare.operand, int) and compare.operand > 1 for compare in compares)
    alone = [revision_of(request.revision, horizon) for request in requests if isinstance(request, RangeRequest) and request.revision]
    inside = [revision_of(op.revision, horizon) for txn in txns for op in ops_of(txn) if isinstance(op, RangeRequest) and op.revision]
    for where in (alone, inside):
        assert min(where) < 5_000
        assert 5_000 in where
        assert any(5_000 < revision < 10_000 for revision in where)
        assert max(where) > 10_000
    assert {(r.sort_order, r.sort_target) for r in ranges if r.sort_order or r.sort_target} >= {(o, t) for o in (1, 2) for t in range(5)}
    for option in ("limit", "count_only", "keys_only", "serializable", "min_mod_revision", "max_mod_revision", "max_create_revision"):
        assert any(getattr(r, option) for r in ranges), option
    assert any(r.min_create_revision for r in ranges)
    for option in ("prev_kv", "ignore_value", "ignore_lease", "lease"):
        assert any(getattr(put, option) for put in puts), option
    deletes = [op for op in ops if isinstance(op, DeleteRangeRequest)]
    assert any(delete.range_end for delete in deletes)
    assert any(delete.prev_kv for delete in deletes)
    assert any(isinstance(op, TxnRequest) for txn in txns for op in (*txn.success, *txn.failure))
    assert any(put.lease for txn in txns for put in ops_of(txn) if isinstance(put, PutRequest))


def duplicates(txn: TxnRequest) -> bool:
    """Whether etcd refuses `txn` for writing a key twice: puts of one key, or a put under a delete, on one path or in a nested one.

    Source: etcd server/etcdserver/api/v3rpc/key.go, checkIntervals.
    """

    def check(ops: tuple[Any, ...]) -> tuple[list[bytes], list[tuple[bytes, bytes]], bool]:
        put_keys = [op.key for op in ops if isinstance(op, PutRequest)]
        deleted = [(op.key, op.range_end or op.key + b"\0") for op in ops if isinstance(op, DeleteRangeRequest)]
        bad = len(set(put_keys)) != len(put_keys)
        for op in ops:
            if isinstance(op, TxnRequest):
                for branch in (op.success, op.failure):
                    inner_puts, inner_deleted, inner_bad = check(branch)
                    bad = bad or inner_bad or bool(set(inner_puts) & set(put_keys))
                    put_keys = put_keys + [key for key in inner_puts if key not in put_keys]
                    deleted = deleted + inner_deleted
        bad = bad or any(low <= key and (end == b"\0" or key < end) for key in put_keys for low, end in deleted)
        return put_keys, deleted, bad

    return any(check(branch)[2] for branch in (txn.success, txn.failure))


def test_transactions_write_a_key_once_unless_they_mean_to() -> None:
    """etcd refuses a key that is written twice: transactions avoid it, and the kind that is there to be refused does not."""
    refused = 0
    for n in range(CHOICES):
        choice = kv.choose(1, "kv-0", n)
        if isinstance(choice.template, TxnRequest):
            if choice.kind == "txn-refused":
                refused += duplicates(choice.template)
            else:
                assert not duplicates(choice.template), choice
    assert refused > 5


def test_local_transactions_are_local_and_others_are_not() -> None:
    """Every operation of a local transaction is a serializable Range; every other transaction of reads has one that is not."""
    for n in range(CHOICES):
        choice = kv.choose(1, "kv-0", n)
        if choice.kind in ("txn-local", "txn-read"):
            serializable = [op.serializable for op in (*choice.template.success, *choice.template.failure)]
            assert serializable
            assert all(serializable) == (choice.kind == "txn-local")


def test_leases_of_an_era_are_granted_before_they_are_used() -> None:
    """Each era begins with its three grants, its puts name no lease but these, and one of them is revoked in it."""
    for era in range(3):
        first = [kv.choose(1, "kv-0", era * kv.ERA + n) for n in range(kv.ERA)]
        granted = [choice.template for choice in first[: kv.GRANTS]]
        assert all(isinstance(grant, LeaseGrantRequest) for grant in granted)
        ids = {grant.id for grant in granted}
        assert len(ids) == kv.GRANTS
        assert all(0 < lease < 1 << 63 for lease in ids)
        used = {op.lease for choice in first for op in ops_of(choice.template) if isinstance(op, PutRequest) and op.lease}
        meant = {
            op.lease for c in first if c.kind in ("txn-refused", "lease-unknown") for op in ops_of(c.template) if isinstance(op, PutRequest)
        }
        assert used - meant <= ids
        assert first[kv.REVOKE_AT].template == LeaseRevokeRequest(granted[kv.REVOKED].id)
    grants = [
        kv.choose(1, f"kv-{client}", era * kv.ERA + slot).template.id for client in range(8) for era in range(50) for slot in range(3)
    ]
    assert len(set(grants)) == len(grants)


def test_an_api_server_sends_its_shapes_and_nothing_else() -> None:
    """Every request has one of the forms of the table: no other compare, branch, option or range."""
    for n in range(CHOICES):
        choice = kubernetes.choose(1, "kubernetes-0", n)
        request = choice.template
        if isinstance(request, RangeRequest):
            single = not request.range_end and request.limit == 1
            listing = bool(request.range_end) and (request.limit > 0) + request.count_only + request.keys_only == 1
            assert single or listing
            plain = request._replace(key=b"", range_end=b"", limit=0, revision=0, count_only=False, keys_only=False)
            assert plain == RangeRequest(b"")
            continue
        (guard,) = request.compare
        assert (guard.result, guard.target, guard.range_end) == (EQUAL, MOD, b"")
        (op,) = request.success
        assert op.key == guard.key
        assert op in (PutRequest(guard.key, choice.value), DeleteRangeRequest(guard.key))
        assert request.failure == (() if choice.kind == "create" else (RangeRequest(guard.key),))


def test_watches_start_everywhere_with_every_option() -> None:
    """Past, compaction, below, now and future; prefix, single key and everything; each option on and off; several on one stream."""
    horizon = Horizon(10_000, 5_000)
    choices = [watching.choose(1, "watch-m1-0", n, ("kv",)) for n in range(1_000)]
    creates: list[WatchCreateRequest] = [create for choice in choices for create in choice.template]
    starts = [revision_of(create.start_revision, horizon) for create in creates]
    assert {0, 5_000} <= set(starts)
    assert any(0 < start < 5_000 for start in starts)
    assert any(5_000 < start < 10_000 for start in starts)
    assert {start - 10_000 for start in starts if start > 10_000} <= set(range(5, 101))
    assert {create.filters for create in creates} == {(), (0,), (1,)}
    for option in ("prev_kv", "progress_notify", "fragment"):
        assert {getattr(create, option) for create in creates} == {True, False}
    assert {create.range_end for create in creates} >= {b"", b"\0", b"kv0"}
    assert {len(choice.template) for choice in choices} == {1, 2, 3, 4, 5}
    for option in ("at-once", "bookmark", "cancel"):
        assert {choice.option(option) for choice in choices} == {True, False}


def test_progress_in_the_same_breath_is_asked_of_a_watch_on_the_past() -> None:
    """The sessions that ask at once watch everything from a revision that is behind the head."""
    at_once = [choice for n in range(500) if (choice := watching.choose(1, "watch-m1-0", n, ("kv",))).option("at-once")]
    assert at_once
    for choice in at_once:
        (create,) = choice.template
        assert (create.key, create.range_end) == (b"\0", b"\0")
        assert revision_of(create.start_revision, Horizon(10_000, 5_000)) <= 9_500


def test_compactions_leave_something_to_read() -> None:
    """Most compactions stay well behind the head; some are at it, some are refused; both ways of finishing are asked for."""
    horizon = Horizon(10_000, 5_000)
    choices = [maintenance.choose(1, "admin-m1", n) for n in range(1, 1_000)]
    assert maintenance.choose(1, "admin-m1", 0).kind == "tombstone"
    by_kind: dict[str, list[int]] = {}
    for choice in choices:
        if isinstance(choice.template, CompactionRequest) and choice.kind != "tombstone":
            by_kind.setdefault(choice.kind, []).append(revision_of(choice.template.revision, horizon))
    assert all(5_000 < revision < 9_500 for revision in by_kind["behind"])
    assert set(by_kind["head"]) == {10_000}
    assert all(revision < 5_000 or revision > 10_000 for revision in by_kind["refused"])
    assert {choice.template.physical for choice in choices if isinstance(choice.template, CompactionRequest)} == {True, False}


def test_auth_is_turned_on_last() -> None:
    """Root, roles and users are there before auth is on: afterwards nobody could make them."""
    names = [type(request).__name__ for request in auth.preparation()]
    assert names.index("AuthEnableRequest") == len(names) - 1
    assert names.count("AuthUserAddRequest") == 1 + len(auth.USERS)
    assert names.count("AuthRoleAddRequest") == 1 + len(auth.ROLES)


def test_every_user_reaches_every_member() -> None:
    """With the default plan each of three members is asked by several users."""
    plan = Plan(etcd="3.5.1", seed=1)
    seen = {(auth.USERS[i % 4].name, (i + i // 4) % 3) for i in range(plan.concurrency)}
    assert len({member for _, member in seen}) == 3
    assert len(seen) == plan.concurrency
