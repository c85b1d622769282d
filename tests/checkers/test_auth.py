"""Auth decisions: what no possible state of the auth store permits, or denies, and everything that one does."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise, permutations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pekan.checkers.auth import check_auth
from pekan.checkers.case import Fork, Options
from pekan.history.types import INDEFINITE, OK, Operation
from pekan.models.auth import READ, READWRITE, WRITE, AuthState, Needs, Refused, permits, step
from pekan.plan import Plan
from pekan.wire import pb
from pekan.wire.errors import INVALID_ARGUMENT, UNAUTHENTICATED, WireError
from pekan.wire.messages import (
    EQUAL,
    PUT,
    VALUE,
    CompactionRequest,
    CompactionResponse,
    Compare,
    DeleteRangeRequest,
    DeleteRangeResponse,
    Event,
    Header,
    KeyValue,
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseRevokeRequest,
    LeaseRevokeResponse,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    TxnRequest,
    TxnResponse,
    WatchCreateRequest,
    WatchResponse,
)

from .judging import DENIED, LOST, Clock, case, codes, header, pb_header

ALLOWED = [("AUTH-ALLOWED", "counts")]
WRONGLY_DENIED = [("AUTH-DENIED", "counts")]


def grant(key: bytes = b"a", range_end: bytes = b"", kind: int = READWRITE) -> pb.AuthRoleGrantPermissionRequest:
    return pb.AuthRoleGrantPermissionRequest(name="r", perm=pb.Permission(permType=kind, key=key, range_end=range_end))


def revoke(key: bytes = b"a", range_end: bytes = b"") -> pb.AuthRoleRevokePermissionRequest:
    return pb.AuthRoleRevokePermissionRequest(role="r", key=key, range_end=range_end)


def change(clock: Clock, request: Any, *, answer: Any = "ok", revision: int = 1, user: str = "root", **how: Any) -> None:
    told = pb.AuthChangeResponse(header=pb_header(revision)) if answer == "ok" else answer
    clock.op("m1", request, told, user=user, client="auth-0", **how)


def enabled(*, role: bool = True) -> Clock:
    """root, and u with the role r, which has no permission; auth is on."""
    clock = Clock()
    for request in (
        pb.AuthUserAddRequest(name="root"),
        pb.AuthUserGrantRoleRequest(user="root", role="root"),
        pb.AuthUserAddRequest(name="u"),
        pb.AuthRoleAddRequest(name="r"),
    ):
        change(clock, request, user="")
    if role:
        change(clock, pb.AuthUserGrantRoleRequest(user="u", role="r"), user="")
    change(clock, pb.AuthEnableRequest(), user="")
    return clock


def put(clock: Clock, answer: Any = 2, *, user: str = "u", key: bytes = b"a", **how: Any) -> None:
    told = PutResponse(header(answer), None) if isinstance(answer, int) else answer
    clock.op("m2", PutRequest(key, b"v"), told, user=user, **how)


def found(clock: Clock, **options: Any) -> list[tuple[str, str]]:
    return codes(check_auth(case(clock, **options)))


NESTED = TxnRequest((), (PutRequest(b"d"),), ())
DONE = TxnResponse(Header(0, 0, 0, 0), True, (PutResponse(Header(0, 0, 2, 0), None),))
"""A nested transaction that writes what u may not, and the answer that it was done. Not done, it says nothing: releases differ."""


# ---- planted ----


def test_a_write_without_permission_is_caught() -> None:
    """u never had anything: its put may not succeed; with the grant it may."""
    clock = enabled()
    put(clock)
    assert found(clock) == ALLOWED
    clock = enabled()
    change(clock, grant())
    put(clock)
    assert found(clock) == []


def test_a_denial_against_a_permission_is_caught() -> None:
    """u has the permission for good: a denial is wrong (#14571); before the grant it is right."""
    clock = enabled()
    change(clock, grant())
    put(clock, DENIED)
    report = check_auth(case(clock))
    assert codes(report) == WRONGLY_DENIED
    told = [exhibit.what for exhibit in report.findings[0].certificate]
    assert ["put 'a'" in told[0], "Enable(" in told[1], "RoleGrantPermission(" in told[2]] == [True] * 3, told
    clock = enabled()
    put(clock, DENIED)
    change(clock, grant())
    assert found(clock) == []


def test_what_was_taken_away_is_gone() -> None:
    """After a revoke, a role revoked, a role deleted or a user deleted, success is wrong and denial right."""
    for taking in (
        revoke(),
        pb.AuthUserRevokeRoleRequest(name="u", role="r"),
        pb.AuthRoleDeleteRequest(role="r"),
        pb.AuthUserDeleteRequest(name="u"),
    ):
        for answer, expected in ((2, ALLOWED), (DENIED, [])):
            clock = enabled()
            change(clock, grant())
            change(clock, taking)
            put(clock, answer)
            assert found(clock) == expected


def test_requests_without_a_token() -> None:
    """With auth on a request without a token may not succeed; after auth was switched off it may; its refusal is never judged."""
    empty = WireError(INVALID_ARGUMENT, "etcdserver: user name is empty")
    clock = enabled()
    put(clock, user="")
    assert found(clock) == ALLOWED
    assert found(clock, plan=Plan("3.6", 1, tls=True)) == []
    clock = enabled()
    put(clock, empty, user="")
    change(clock, pb.AuthDisableRequest())
    put(clock, user="")
    put(clock, empty, user="")
    assert found(clock) == []


def test_administration_needs_root() -> None:
    """u adding a user is caught; root adding one is not, and root being denied is caught."""
    add = pb.AuthUserAddRequest(name="v")
    clock = enabled()
    change(clock, add, user="u")
    assert found(clock) == ALLOWED
    clock = enabled()
    change(clock, add)
    assert found(clock) == []
    clock = enabled()
    change(clock, add, answer=DENIED)
    assert found(clock) == WRONGLY_DENIED
    clock = enabled()
    change(clock, add, answer=DENIED, user="u")
    assert found(clock) == []


@pytest.mark.parametrize(
    ("request_", "answer", "kind", "expected"),
    [
        (RangeRequest(b"a", b"c"), RangeResponse(header(2), (), False, 0), READ, []),
        (RangeRequest(b"a", b"c"), RangeResponse(header(2), (), False, 0), WRITE, ALLOWED),
        (DeleteRangeRequest(b"a", b"c"), DeleteRangeResponse(header(2), 0, ()), WRITE, []),
        (DeleteRangeRequest(b"a", b"c"), DeleteRangeResponse(header(2), 0, ()), READ, ALLOWED),
        (DeleteRangeRequest(b"a", b"d"), DeleteRangeResponse(header(2), 0, ()), READWRITE, ALLOWED),
        (TxnRequest((), (), (PutRequest(b"d"),)), TxnResponse(header(2), True, ()), READWRITE, ALLOWED),
        (TxnRequest((), (PutRequest(b"b"),), ()), TxnResponse(header(2), True, ()), READWRITE, []),
        (TxnRequest((), (NESTED,), ()), TxnResponse(header(2), True, (DONE,)), READWRITE, ALLOWED),
        (TxnRequest((), (), (NESTED,)), TxnResponse(header(2), True, ()), READWRITE, []),
        (TxnRequest((), (NESTED,), ()), TxnResponse(header(2), True, (DONE._replace(succeeded=False, responses=()),)), READWRITE, []),
    ],
)
def test_each_kind_of_request_is_judged(request_: Any, answer: Any, kind: int, expected: Any) -> None:
    """Reads need READ and writes WRITE on the whole range, transactions for the branch not taken too."""
    clock = enabled()
    change(clock, grant(b"a", b"c", kind))
    clock.op("m2", request_, answer, user="u")
    assert found(clock) == expected


READS = TxnRequest((), (RangeRequest(b"d"),), ())
READ_DONE = TxnResponse(header(2), True, (TxnResponse(Header(0, 0, 0, 0), True, (RangeResponse(header(2), (), False, 0),)),))


@pytest.mark.parametrize(
    ("request_", "answer", "user", "part"),
    [
        (TxnRequest((), (NESTED,), ()), TxnResponse(header(2), True, (DONE,)), "u", "nested"),
        (TxnRequest((), (READS,), ()), READ_DONE, "u", "nested"),
        (TxnRequest((), (READS,), ()), READ_DONE, "", "nested"),
        (
            TxnRequest((), (TxnRequest((Compare(EQUAL, VALUE, b"d", b""),), (), ()),), ()),
            TxnResponse(header(2), True, (TxnResponse(Header(0, 0, 0, 0), False, ()),)),
            "u",
            "nested",
        ),
        (
            TxnRequest((), (PutRequest(b"w", prev_kv=True),), ()),
            TxnResponse(header(2), True, (PutResponse(header(2), None),)),
            "u",
            "prev_kv",
        ),
        (
            TxnRequest((), (TxnRequest((), (PutRequest(b"w", prev_kv=True),), ()),), ()),
            TxnResponse(header(2), True, (TxnResponse(Header(0, 0, 0, 0), True, (PutResponse(header(2), None),)),)),
            "u",
            "prev_kv",
        ),
        (TxnRequest((), (RangeRequest(b"d"), READS), ()), READ_DONE, "u", ""),
    ],
)
def test_a_finding_says_which_part_was_passed_over(request_: Any, answer: Any, user: str, part: str) -> None:
    """What nobody permitted is the request as such, what a transaction inside it did, or a previous value that a put in it returned; with
    the permission none of them is anything."""
    clock = enabled()
    change(clock, grant(b"w", kind=WRITE))
    clock.op("m2", request_, answer, user=user)
    (finding,) = check_auth(case(clock)).findings
    assert (finding.code, finding.shape) == ("AUTH-ALLOWED", ("allowed", "Txn", "user" if user else "no token", *filter(None, (part,))))
    clock = enabled()
    change(clock, grant(b"\0", b"\0"))
    clock.op("m2", request_, answer, user="u")
    assert found(clock) == []


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (TxnRequest((), (), (PutRequest(b"w", prev_kv=True),)), TxnResponse(header(2), True, ())),
        (TxnRequest((), (), (TxnRequest((Compare(EQUAL, VALUE, b"d", b""),), (NESTED,), ()),)), TxnResponse(header(2), True, ())),
        (TxnRequest((), (PutRequest(b"w"),), ()), TxnResponse(header(2), True, (PutResponse(header(2), None),))),
        (TxnRequest((), (TxnRequest(),), ()), TxnResponse(header(2), True, (TxnResponse(Header(0, 0, 0, 0), True, ()),))),
    ],
)
def test_what_was_not_done_is_not_judged(request_: Any, answer: Any) -> None:
    """A previous value or a nested transaction of the branch not taken has told and done nothing; nor has an empty transaction."""
    clock = enabled()
    change(clock, grant(b"w", kind=WRITE))
    clock.op("m2", request_, answer, user="u")
    assert found(clock) == []


def test_nobody_is_asked_for_a_name_where_nothing_is_needed() -> None:
    """A transaction that holds but an empty one needs no permission, and etcd answers it without a token."""
    clock = enabled()
    request = TxnRequest((), (TxnRequest(),), ())
    clock.op("m2", request, TxnResponse(header(2), True, (TxnResponse(Header(0, 0, 0, 0), True, ()),)))
    assert found(clock) == []


# ---- keys of leases ----


def leased(*requests: tuple[Any, Any]) -> Clock:
    """u may write a, lease 7 is there, root does `requests`, and u puts a with the lease."""
    clock = enabled()
    change(clock, grant(b"a", kind=WRITE))
    clock.op("m1", LeaseGrantRequest(60, 7), LeaseGrantResponse(header(1), 7, 60, ""), user="root")
    for request, answer in requests:
        clock.op("m1", request, answer, user="root")
    clock.op("m2", PutRequest(b"a", b"v", 7), PutResponse(header(9), None), user="u")
    return clock


DID = PutResponse(header(2), None)
TAKEN = (PutRequest(b"x", b"v", 7), DID)
"""Root gives x to the lease."""


def test_a_lease_with_somebody_elses_key_is_not_to_be_given_another() -> None:
    """u may not write x, so may not give a to the lease that has x: alone, in a transaction, and wherever x was put in one."""
    report = check_auth(case(leased(TAKEN)))
    assert codes(report) == ALLOWED
    assert report.findings[0].shape == ("allowed", "Put", "user", "lease")
    assert found(leased((TxnRequest((), (TAKEN[0],), ()), TxnResponse(header(2), True, (DID,))))) == ALLOWED
    for inside, answer in ((PutRequest(b"a", b"v", 7), DID), (TxnRequest((), (PutRequest(b"a", b"v", 7),), ()), DONE)):
        clock = leased(TAKEN)
        clock.operations.pop()
        clock.op("m2", TxnRequest((), (inside,), ()), TxnResponse(header(3), True, (answer,)), user="u")
        (finding,) = check_auth(case(clock)).findings
        assert finding.shape == ("allowed", "Txn", "user", "lease")


GONE = DeleteRangeResponse(header(3), 1, ())


@pytest.mark.parametrize(
    "requests",
    [
        (),
        ((PutRequest(b"x"), DID),),
        ((PutRequest(b"x", b"v", 8), DID),),
        (TAKEN, (PutRequest(b"x"), DID)),
        (TAKEN, (PutRequest(b"x"), LOST)),
        (TAKEN, (DeleteRangeRequest(b"x"), GONE)),
        (TAKEN, (DeleteRangeRequest(b"a", b"\0"), LOST)),
        (TAKEN, (TxnRequest((), (), (DeleteRangeRequest(b"x"),)), TxnResponse(header(3), True, ()))),
        (TAKEN, (TxnRequest((), (PutRequest(b"x"),), ()), WireError(INVALID_ARGUMENT, "refused"))),
        ((PutRequest(b"x"), LOST), TAKEN),
        ((PutRequest(b"x", b"v", 7), LOST),),
        (TAKEN, (LeaseGrantRequest(60, 7), LeaseGrantResponse(header(1), 7, 60, ""))),
        ((PutRequest(b"a", b"v", 7), DID),),
        (TAKEN, (grant(b"x", kind=WRITE), pb.AuthChangeResponse(header=pb_header(2)))),
        (TAKEN, (pb.LockRequest(name=b"x", lease=7), LOST)),
    ],
)
def test_a_lease_that_may_have_no_other_key_is_free(requests: tuple[Any, ...]) -> None:
    """x may never have had the lease, or have lost it, or be u's to write; another lease may have the number."""
    assert found(leased(*requests)) == []


def test_once_members_have_parted_nobody_knows_the_keys_of_a_lease() -> None:
    """After a fork one member may have deleted what another has."""
    parted = case(leased(TAKEN))
    parted.fork = Fork(9, "REFUSED-BUT-APPLIED", "members differ from revision 9 on, or before", ())
    assert codes(check_auth(parted)) == []


# ---- watches ----


def reader(*, started: bool = True) -> Clock:
    """u may read a, and the process of m2 is known."""
    clock = Clock()
    if started:
        clock.mark("member", "m2", state="started", incarnation=1)
    clock.operations = enabled().operations
    clock.now = clock.operations[-1].call // 1_000_000 + 20
    change(clock, grant(b"a", kind=READ))
    return clock


def login(clock: Clock, user: str = "u") -> Clock:
    """The member answers a request that went through raft: it knows all changes so far."""
    clock.op("m2", pb.AuthenticateRequest(name=user), pb.AuthenticateResponse(header=pb_header(1)))
    return clock


def watching(
    clock: Clock, key: bytes = b"z", *, range_end: bytes = b"\0", wait: int = 20, user: str = "u", during: Any = None, refused: bool = False
) -> Clock:
    """A watch from a on is created within 5 ms at m2, and `wait` ms later an event of `key` comes; `during`: a change in between."""
    now = clock.now
    created = WatchResponse(header(1), 0, True, refused, 0, "", False, ())
    messages: list[tuple[int, bool, Any]] = [(now, True, WatchCreateRequest(b"a", range_end)), (now + 5, False, created)]
    if not refused:
        event = Event(PUT, KeyValue(key, 2, 2, 1, b"v", 0), None)
        messages.append((now + 5 + wait, False, WatchResponse(header(2), 0, False, False, 0, "", False, (event,))))
    clock.watch("m2", messages, user=user)
    if during is not None:
        clock.now = now + 6
        change(clock, during)
    clock.now = now + 5 + wait + 10
    return clock


@pytest.mark.parametrize(("range_end", "key", "kind"), [(b"\0", b"z", "from key"), (b"c", b"b", "range"), (b"", b"a", "key")])
def test_a_watch_that_delivers_what_its_user_may_never_read_is_caught(range_end: bytes, key: bytes, kind: str) -> None:
    """u may read a: a watch of more that delivers more is wrong, so is one of a after u has lost that; the finding says which it was."""
    clock = reader()
    if key == b"a":
        change(clock, revoke())
    (finding,) = check_auth(case(watching(login(clock), key, range_end=range_end))).findings
    assert (finding.code, finding.shape) == ("AUTH-ALLOWED", ("allowed", "Watch", "user", kind))
    assert [exhibit.stream for exhibit in finding.certificate[:2]] == [0, 0]


def test_a_watch_may_deliver_what_was_permitted_at_some_moment() -> None:
    """etcd looks at a watch once, when it is created: a permission before its end counts, one taken away after its beginning does too."""
    z = grant(b"z", kind=READ)
    assert found(watching(login(reader()), b"a")) == []
    clock = reader()
    change(clock, z)
    assert found(watching(login(clock))) == []
    assert found(watching(login(reader()), during=z, wait=40)) == []
    clock = reader()
    change(clock, z)
    assert found(watching(login(clock), during=revoke(b"z"), wait=40)) == []
    clock = reader()
    change(clock, z, answer=LOST)
    assert found(watching(login(clock))) == []
    assert found(watching(login(reader()), during=pb.AuthDisableRequest(), wait=40)) == []


def test_a_watch_is_judged_by_what_its_member_surely_knew() -> None:
    """A member that may not have heard of a revoke yet may let the watch in; one that has answered since may not."""
    clock = reader()
    change(clock, grant(b"z", kind=READ))
    login(clock)
    change(clock, revoke(b"z"))
    assert found(watching(clock)) == []
    clock = reader()
    change(clock, grant(b"z", kind=READ))
    change(clock, revoke(b"z"))
    assert found(watching(login(clock))) == ALLOWED


def test_a_member_that_nothing_is_known_of_is_not_judged() -> None:
    """Without an answer before, across the end of a process, and where processes were not recorded, it may know as little as it likes."""
    assert found(watching(reader())) == []
    assert found(watching(login(reader(started=False)))) == []
    clock = login(reader())
    clock.mark("member", "m2", state="exited", incarnation=1, asked=True)
    clock.mark("member", "m2", state="started", incarnation=2, asked=True)
    clock.now += 10
    assert found(watching(clock)) == []
    assert found(watching(login(clock))) == ALLOWED
    clock = reader()
    clock.op("m2", RangeRequest(b"a", serializable=True), RangeResponse(header(2), (), False, 0), user="u")
    assert found(watching(clock)) == []


def test_which_watches_are_not_judged() -> None:
    """Those of root, of nobody and of a token nobody knows, and those that were refused."""
    for user in ("root", "", "?"):
        assert found(watching(login(reader()), user=user)) == []
    assert found(watching(login(reader()), refused=True)) == []


# ---- nobody ----

ASKED_BY_NOBODY = (
    (LeaseGrantRequest(60, 7), LeaseGrantResponse(header(1), 7, 60, "")),
    (LeaseRevokeRequest(7), LeaseRevokeResponse(header(2))),
    (CompactionRequest(2), CompactionResponse(header(2))),
    (pb.AlarmRequest(), pb.AlarmResponse(header=pb_header(2))),
    (pb.LeaseLeasesRequest(), pb.LeaseLeasesResponse(header=pb_header(2))),
    (pb.MemberListRequest(), pb.MemberListResponse(header=pb_header(2))),
)


@pytest.mark.parametrize(("request_", "answer"), ASKED_BY_NOBODY)
def test_what_takes_a_user_is_not_for_nobody(request_: Any, answer: Any) -> None:
    """Answered without a token by a member that surely knows that auth is on, it is caught; for a user, with a certificate, or where auth
    may be off, it is not."""
    clock = login(reader())
    clock.op("m2", request_, answer)
    report = check_auth(case(clock))
    assert codes(report) == ALLOWED
    assert report.findings[0].shape[-1] == "no token"
    assert found(clock, plan=Plan("3.6", 1, tls=True)) == []
    clock = login(reader())
    clock.op("m2", request_, answer, user="u")
    assert found(clock) == []
    clock = login(reader())
    change(clock, pb.AuthDisableRequest(), answer=LOST)
    clock.op("m2", request_, answer)
    assert found(clock) == []


def test_a_member_that_may_not_know_of_auth_answers_anybody() -> None:
    """One that was cut off while auth was turned on decides by what it knows, also of what the others then apply."""
    request, answer = ASKED_BY_NOBODY[0]
    clock = reader()
    clock.op("m2", request, answer)
    assert found(clock) == []


# ---- what is possible ----


@pytest.mark.parametrize("answer", [2, DENIED])
def test_a_change_under_way_permits_both_answers(answer: Any) -> None:
    """While a grant is in flight, success and denial are both legal."""
    clock = enabled()
    change(clock, grant(), took=100, stay=True)
    put(clock.at(clock.now + 20), answer)
    clock.at(clock.now + 100)
    assert found(clock) == []


@pytest.mark.parametrize("answer", [2, DENIED])
def test_an_unanswered_change_permits_both_answers_for_ever(answer: Any) -> None:
    """A revoke without an answer may take effect at any later time, or never."""
    clock = enabled()
    change(clock, grant())
    change(clock, revoke(), answer=LOST)
    put(clock.at(60_000), answer)
    assert found(clock) == []


def test_a_refused_change_did_not_happen() -> None:
    """A grant that was refused permits nothing."""
    clock = enabled()
    change(clock, grant(), answer=DENIED, user="u")
    put(clock)
    assert found(clock) == ALLOWED


def test_overlapping_changes_leave_either_last() -> None:
    """Grant and revoke in flight together: afterwards the key may be granted or not."""
    for answer in (2, DENIED):
        clock = enabled()
        change(clock, grant(), took=100, stay=True)
        change(clock, revoke(), took=100)
        put(clock.at(clock.now + 50), answer)
        assert found(clock) == []


def test_revisions_order_what_the_clock_does_not() -> None:
    """A put answered at revision 5 was applied before a grant answered at 5, and after one answered at 4, though all overlap."""
    for revision, expected in ((5, ALLOWED), (4, [])):
        clock = enabled()
        change(clock, grant(), revision=revision, took=100, stay=True)
        put(clock, 5, took=100)
        assert found(clock) == expected


def test_revisions_order_nothing_once_members_have_parted() -> None:
    """After a fork each member counts revisions of its own, so a put and a grant that overlap may have happened in either order."""
    clock = enabled()
    change(clock, grant(), revision=5, took=100, stay=True)
    put(clock, 5, took=100)
    parted = case(clock)
    parted.fork = Fork(9, "REFUSED-BUT-APPLIED", "members differ from revision 9 on, or before", ())
    assert codes(check_auth(parted)) == []


def test_a_revision_that_contradicts_the_clock_orders_nothing() -> None:
    """A revoke called after the put was answered comes after it, whatever old revision its answer bears."""
    clock = enabled()
    change(clock, grant())
    put(clock, 5)
    change(clock, revoke(), revision=3)
    assert found(clock) == []


def test_a_narrowed_permission_leaves_what_both_grant() -> None:
    """While READWRITE on a range is replaced by READ, reading stays permitted throughout and writing may be either."""
    for request, answer, expected in (
        (RangeRequest(b"a"), DENIED, WRONGLY_DENIED),
        (PutRequest(b"a"), DENIED, []),
        (PutRequest(b"a"), PutResponse(header(2), None), []),
    ):
        clock = enabled()
        change(clock, grant())
        change(clock, grant(kind=READ), took=100, stay=True)
        clock.at(clock.now + 20).op("m2", request, answer, user="u")
        assert found(clock) == expected


# ---- what says nothing ----


def test_local_answers_say_nothing() -> None:
    """Serializable reads and transactions of them may be decided by an old state."""
    local = RangeRequest(b"a", serializable=True)
    for request, answer in (
        (local, RangeResponse(header(2), (), False, 0)),
        (TxnRequest((), (local,), ()), TxnResponse(header(2), True, ())),
        (TxnRequest(), TxnResponse(header(2), True, ())),
    ):
        clock = enabled()
        clock.op("m2", request, answer, user="u")
        assert found(clock) == []
        clock = enabled()
        change(clock, grant())
        clock.op("m2", request, DENIED, user="u")
        assert found(clock) == []


def test_answers_about_tokens_say_nothing() -> None:
    """An invalid token, an old auth revision, an empty user name, and a token of nobody known."""
    for error in (
        WireError(UNAUTHENTICATED, "etcdserver: invalid auth token"),
        WireError(INVALID_ARGUMENT, "etcdserver: revision of auth store is old"),
        WireError(INVALID_ARGUMENT, "etcdserver: user name is empty"),
    ):
        clock = enabled()
        change(clock, grant())
        put(clock, error)
        assert found(clock) == []
    clock = enabled()
    put(clock, user="?")
    assert found(clock) == []


def test_a_denied_write_with_a_lease_says_nothing() -> None:
    """It also needs every key that the lease has; its success still needs its own key."""
    clock = enabled()
    change(clock, grant())
    clock.op("m2", PutRequest(b"a", b"v", 7), DENIED, user="u")
    assert found(clock) == []
    clock = enabled()
    clock.op("m2", PutRequest(b"a", b"v", 7), PutResponse(header(2), None), user="u")
    assert found(clock) == ALLOWED


def test_nothing_is_judged_where_the_store_is_not_known() -> None:
    """An unknown start or other writers may have granted anything."""
    clock = enabled()
    put(clock)
    assert found(clock, start="unknown") == []
    assert found(clock, options=Options(writers="shared")) == []
    assert check_auth(case(clock, start="unknown")).judged["not_judged"] > 0


def test_not_applicable_without_changes() -> None:
    """A history that never touched the auth store has nothing to judge."""
    clock = Clock()
    put(clock, user="")
    assert not check_auth(case(clock)).applicable


# ---- against the obvious reference ----

CHANGES = (
    grant(),
    grant(kind=READ),
    revoke(),
    pb.AuthUserGrantRoleRequest(user="u", role="r"),
    pb.AuthUserRevokeRoleRequest(name="u", role="r"),
    pb.AuthUserDeleteRequest(name="u"),
    pb.AuthUserAddRequest(name="u"),
    pb.AuthDisableRequest(),
)
A = (b"a", b"a\0")
ASKED = (
    (RangeRequest(b"a"), RangeResponse(header(2), (), False, 0), Needs(reads=(A,))),
    (PutRequest(b"a", b"v"), PutResponse(header(2), None), Needs(writes=(A,))),
    (PutRequest(b"a", b"v", prev_kv=True), PutResponse(header(2), None), Needs(reads=(A,), writes=(A,))),
    (TxnRequest((), (PutRequest(b"a"),), ()), TxnResponse(header(2), True, (PutResponse(header(2), None),)), Needs(writes=(A,))),
    (TxnRequest((Compare(EQUAL, VALUE, b"a", b""),), (), ()), TxnResponse(header(2), False, ()), Needs(reads=(A,))),
)
"""An operation of a transaction, what it is answered where it is carried out, and what it needs, written down one by one."""


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(st.sampled_from(CHANGES), st.sampled_from(["ok", "lost"]), st.integers(1, 60), st.integers(0, 40)), min_size=1, max_size=4
    ),
    st.lists(
        st.tuples(st.sampled_from(["ok", "denied"]), st.sampled_from(ASKED), st.integers(0, 150), st.integers(1, 40)),
        min_size=1,
        max_size=3,
    ),
)
def test_every_finding_is_confirmed_by_trying_all_orders(changes: list[Any], requests: list[Any]) -> None:
    """In small histories each finding is one by brute force too; where nothing overlaps and all is answered, each of those is found."""
    clock = enabled()
    made = len(clock.operations)
    base = clock.now
    for request, answer, took, gap in changes:
        change(clock, request, answer="ok" if answer == "ok" else LOST, took=took, stay=True)
        clock.now += gap
    asked = []
    for answer, (each, told, needs), offset, took in requests:
        clock.now = base + offset
        # A transaction: its revision may be another's, so that real time alone orders it.
        answered = TxnResponse(header(2), True, (told,)) if answer == "ok" else DENIED
        asked.append((clock.op("m2", TxnRequest((), (each,), ()), answered, user="u", took=took, stay=True), needs))
    report = check_auth(case(clock))
    caught = {finding.subject["operations"][0] for finding in report.findings}
    setup = AuthState()
    for op in clock.operations[:made]:
        after = step(setup, op.input)
        assert isinstance(after, AuthState)
        setup = after
    free = clock.operations[made : made + len(changes)]
    plain = all(op.outcome != INDEFINITE for op in free) and _apart([*free, *(op for op, _ in asked)])
    for op, needs in asked:
        states = list(_from(setup, free, op))
        decisions = {permits(state, "u", needs) for state in states}
        wrong = bool(states) and (decisions == {False} if op.outcome == OK else decisions == {True})
        if op.id in caught and states:
            assert wrong
        if plain and states and wrong:
            assert op.id in caught


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(CHANGES), st.sampled_from(["ok", "lost"]), st.integers(1, 60), st.integers(0, 40)), min_size=1, max_size=4
    ),
    st.integers(0, 120),
    st.integers(1, 30),
    st.integers(0, 60),
)
def test_every_finding_about_a_watch_is_confirmed_by_trying_all_orders(changes: list[Any], known: int, gap: int, wait: int) -> None:
    """None of the states possible from the last answer of the member to the delivery lets the user read; and where there is none although
    nothing overlaps and all is answered, it is found."""
    clock = reader()
    if known % 2:
        change(clock, revoke())
    made = list(clock.operations)
    base = clock.now
    for request, answer, took, pause in changes:
        change(clock, request, answer="ok" if answer == "ok" else LOST, took=took, stay=True)
        clock.now += pause
    free = clock.operations[len(made) :]
    clock.now = base + known
    login(clock)
    asked = clock.operations[-1]
    clock.now += gap
    watching(clock, b"a", wait=wait)
    window = asked._replace(ret=clock.streams[-1].messages[-1].time)
    caught = bool(check_auth(case(clock)).findings)
    setup = AuthState()
    for op in made:
        after = step(setup, op.input)
        assert isinstance(after, AuthState)
        setup = after
    states = list(_from(setup, free, window))
    permitted = [permits(state, "u", Needs(reads=(A,))) for state in states]
    if caught:
        assert not any(permitted)
    if all(op.outcome == OK for op in free) and _apart([*free, window]) and states and not any(permitted):
        assert caught


LEASED = (
    PutRequest(b"x", b"v", 7),
    PutRequest(b"x", b"v", 8),
    PutRequest(b"x", b"v"),
    PutRequest(b"x", b"v", ignore_lease=True),
    DeleteRangeRequest(b"x"),
    DeleteRangeRequest(b"\0", b"\0"),
    TxnRequest((), (PutRequest(b"x", b"v", 7),), (DeleteRangeRequest(b"x"),)),
    LeaseRevokeRequest(7),
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(LEASED), st.sampled_from(["ok", "ok", "lost"]), st.integers(1, 60), st.integers(0, 40)),
        min_size=1,
        max_size=5,
    ),
    st.integers(0, 150),
    st.integers(1, 40),
)
def test_every_finding_about_a_lease_is_confirmed_by_trying_all_orders(requests: list[Any], offset: int, took: int) -> None:
    """There is no order of the requests, with an expiry at any moment, in which u's put finds the lease there and without x; and where
    there is none although nothing overlaps and all is answered, it is found."""
    clock = leased()
    u = clock.operations.pop()
    clock.now = base = u.call // 1_000_000
    for request, outcome, long, gap in requests:
        answer: Any = LOST
        if outcome == "ok":
            answer = TxnResponse(header(2), True, (DID,)) if isinstance(request, TxnRequest) else header_only(request)
        clock.op("m1", request, answer, user="root", took=long, stay=True)
        clock.now += gap
    clock.now = base + offset
    put = clock.op("m2", u.input, u.output, user="u", took=took, stay=True)
    caught = bool(check_auth(case(clock)).findings)
    free = clock.operations[-len(requests) - 1 :]
    orders = list(_ends(free, put, {7: set(), 8: set()}))
    if caught:
        assert not any(permitted for permitted in orders)
    if all(op.outcome == OK for op in free) and _apart(free) and orders and not any(orders):
        assert caught


def header_only(request: Any) -> Any:
    match request:
        case PutRequest():
            return DID
        case DeleteRangeRequest():
            return GONE
        case _:
            return LeaseRevokeResponse(header(2))


def _ends(left: list[Operation], put: Operation, leases: dict[int, set[bytes]]) -> Iterator[bool]:
    """For each legal way to go on until `put` has been done: whether nobody's key but a is with its lease then."""
    if 7 in leases:
        # The lease runs out.
        yield from _ends(left, put, {each: keys for each, keys in leases.items() if each != 7})
    for op in left:
        if any(other.ret is not None and other.ret < op.call for other in left if other is not op):
            continue
        rest = [each for each in left if each is not op]
        if op.outcome == INDEFINITE:
            yield from _ends(rest, put, leases)
        after = _applied(op.input, leases)
        if after is None:
            continue
        if op is put:
            yield leases[7] <= {b"a"}
        else:
            yield from _ends(rest, put, after)


def _applied(request: Any, leases: dict[int, set[bytes]]) -> dict[int, set[bytes]] | None:
    """Which keys leases have after `request`; None where etcd refuses it."""
    match request:
        case TxnRequest():
            return _applied(request.success[0], leases)
        case DeleteRangeRequest():
            return {each: set() if request.range_end else keys - {request.key} for each, keys in leases.items()}
        case PutRequest(lease=0):
            return leases if request.ignore_lease else {each: keys - {request.key} for each, keys in leases.items()}
        case PutRequest():
            if request.lease not in leases:
                return None
            return {each: keys | {request.key} if each == request.lease else keys - {request.key} for each, keys in leases.items()}
        case _:
            return {each: keys for each, keys in leases.items() if each != request.id}


def _from(setup: AuthState, changes: list[Operation], op: Operation) -> Iterator[AuthState]:
    for count in range(len(changes) + 1):
        for order in permutations(changes, count):
            if _legal(changes, order, op):
                state: AuthState | Refused = setup
                for each in order:
                    state = step(state, each.input)
                    if isinstance(state, Refused):
                        break
                if isinstance(state, AuthState):
                    yield state


def _legal(changes: list[Operation], order: tuple[Operation, ...], op: Operation) -> bool:
    done = {each.id for each in order}
    assert op.ret is not None
    if any(each.ret is not None and each.ret < op.call and each.id not in done for each in changes):
        return False
    if any(each.call > op.ret for each in order):
        return False
    return not any(b.ret is not None and b.ret < a.call for at, a in enumerate(order) for b in order[at + 1 :])


def _apart(operations: list[Operation]) -> bool:
    """True where no two operations overlap."""
    ordered = sorted(operations, key=lambda op: op.call)
    return all(a.ret is not None and a.ret < b.call for a, b in pairwise(ordered))
