"""The auth store: coverage of ranges, what requests need, decisions, changes."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pekan.models.auth import (
    READ,
    READWRITE,
    WRITE,
    AuthState,
    Needs,
    Permission,
    Refused,
    covers,
    interval,
    is_change,
    is_local,
    needs_of,
    permits,
    step,
)
from pekan.wire import pb
from pekan.wire.messages import (
    EQUAL,
    VALUE,
    Compare,
    DeleteRangeRequest,
    LeaseGrantRequest,
    PutRequest,
    RangeRequest,
    TxnRequest,
)

KEYS = [b"a", b"a\0", b"b", b"c", b"d"]


def store(*permissions: Permission, roles: frozenset[str] = frozenset({"r"}), enabled: bool = True) -> AuthState:
    return AuthState(enabled, {"root": frozenset({"root"}), "u": roles}, {"r": frozenset(permissions)})


def after(*requests: Any) -> AuthState | Refused:
    state: AuthState | Refused = AuthState()
    for request in requests:
        assert isinstance(state, AuthState), state
        state = step(state, request)
    return state


def grant(role: str, kind: int, key: bytes, range_end: bytes = b"") -> pb.AuthRoleGrantPermissionRequest:
    return pb.AuthRoleGrantPermissionRequest(name=role, perm=pb.Permission(permType=kind, key=key, range_end=range_end))


ROOTED = (
    pb.AuthUserAddRequest(name="root"),
    pb.AuthUserGrantRoleRequest(user="root", role="root"),
    pb.AuthEnableRequest(),
)


# ---- ranges ----


def test_a_range_is_read_as_etcd_reads_it() -> None:
    """No end is one key, a zero byte is "from here on", and ends at or below the key mean nothing."""
    assert interval(b"a", b"") == (b"a", b"a\0")
    assert interval(b"a", b"\0") == (b"a", None)
    assert interval(b"a", b"c") == (b"a", b"c")
    assert interval(b"c", b"a") is None
    assert interval(b"a", b"a") is None
    assert interval(b"", b"c") is None


def test_touching_ranges_cover_together() -> None:
    """[a, c) and [c, e) cover [b, d); with a hole between them they do not."""
    assert covers([(b"c", b"e"), (b"a", b"c")], (b"b", b"d"))
    assert not covers([(b"d", b"e"), (b"a", b"c")], (b"b", b"e"))
    assert not covers([(b"a", b"c")], (b"a", None))
    assert covers([(b"a", None)], (b"b", None))
    assert not covers([], (b"a", b"b"))


@given(
    st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from([*KEYS, None])), max_size=4),
    st.tuples(st.sampled_from(KEYS), st.sampled_from([*KEYS, None])),
)
def test_coverage_is_that_of_single_points(granted: list[tuple[bytes, bytes | None]], asked: tuple[bytes, bytes | None]) -> None:
    """A range is covered exactly where each smallest piece of it lies in some granted range."""
    if asked[1] is not None and asked[1] <= asked[0]:
        return
    pieces = [*pairwise(KEYS), (KEYS[-1], None)]

    def within(piece: tuple[bytes, bytes | None], of: tuple[bytes, bytes | None]) -> bool:
        return of[0] <= piece[0] and (of[1] is None or (piece[1] is not None and piece[1] <= of[1]))

    expected = all(any(within(piece, each) for each in granted) for piece in pieces if within(piece, asked))
    assert covers(granted, asked) is expected


# ---- what requests need ----


def test_what_plain_requests_need() -> None:
    """Reads need READ, writes WRITE, and asking for previous values READ as well."""
    a = (b"a", b"a\0")
    assert needs_of(RangeRequest(b"a", b"c")) == Needs(reads=((b"a", b"c"),))
    assert needs_of(PutRequest(b"a")) == Needs(writes=(a,))
    assert needs_of(PutRequest(b"a", prev_kv=True)) == Needs(reads=(a,), writes=(a,))
    assert needs_of(DeleteRangeRequest(b"a", b"c", prev_kv=True)) == Needs(reads=((b"a", b"c"),), writes=((b"a", b"c"),))
    assert needs_of(PutRequest(b"a", lease=7)) == Needs(writes=(a,), keys_of_lease=True)
    assert needs_of(pb.AuthUserAddRequest(name="u")) == Needs(admin=True)
    assert needs_of(LeaseGrantRequest(5)) is None
    assert needs_of(RangeRequest(b"c", b"a")) is None


def test_a_transaction_needs_its_guards_and_both_branches() -> None:
    """Whichever branch is taken; what is nested, or asked for by prev_kv in it, is checked by some releases only."""
    a, b, c, d = ((key, key + b"\0") for key in (b"a", b"b", b"c", b"d"))
    nested = TxnRequest((Compare(EQUAL, VALUE, b"c", b""),), (PutRequest(b"d"),), ())
    needs = needs_of(TxnRequest((Compare(EQUAL, VALUE, b"a", b""),), (PutRequest(b"b", prev_kv=True),), (RangeRequest(b"c"), nested)))
    assert needs == Needs(reads=(a, c), writes=(b,), sometimes=((READ, b), (READ, c), (WRITE, d)))


def test_which_requests_are_local() -> None:
    """Serializable reads and transactions of nothing else are answered from a member's own state; a nested one is not."""
    local = RangeRequest(b"a", serializable=True)
    assert is_local(local)
    assert not is_local(RangeRequest(b"a"))
    assert is_local(TxnRequest((), (local,), (local,)))
    assert is_local(TxnRequest((Compare(EQUAL, VALUE, b"a", b""),), (), ()))
    assert not is_local(TxnRequest((), (local,), (RangeRequest(b"a"),)))
    assert not is_local(TxnRequest((), (TxnRequest((), (local,), ()),), ()))
    assert not is_local(PutRequest(b"a"))


# ---- decisions ----


def test_permissions_decide() -> None:
    """A type and a range each have to fit; READWRITE is both."""
    read, write = needs_of(RangeRequest(b"a", b"c")), needs_of(PutRequest(b"b"))
    assert read is not None
    assert write is not None
    assert permits(store(Permission(READ, b"a", b"d")), "u", read)
    assert not permits(store(Permission(READ, b"a", b"b")), "u", read)
    assert not permits(store(Permission(READ, b"a", b"d")), "u", write)
    assert permits(store(Permission(WRITE, b"b")), "u", write)
    assert permits(store(Permission(READWRITE, b"\0", b"\0")), "u", read)
    assert permits(store(Permission(READWRITE, b"\0", b"\0")), "u", write)
    assert not permits(store(Permission(READ, b"c", b"a")), "u", read)


def test_who_may_do_everything_and_who_nothing() -> None:
    """Users of the role root may do everything; unknown users and requests without a token nothing; without auth everybody everything."""
    put, admin = Needs(writes=((b"a", b"b"),)), Needs(admin=True)
    for needs in (put, admin):
        assert permits(store(), "root", needs)
        assert permits(store(roles=frozenset({"root"})), "u", needs)
        assert not permits(store(), "u", needs)
        assert not permits(store(), "nobody", needs)
        assert not permits(store(), "", needs)
        assert permits(store(enabled=False), "", needs)
    assert not permits(store(Permission(READWRITE, b"\0", b"\0")), "u", admin)
    assert not permits(store(Permission(READWRITE, b"\0", b"\0"), roles=frozenset()), "u", put)


def test_strict_also_asks_for_what_some_releases_check() -> None:
    """A read that only some releases check is left out unless asked for."""
    needs = Needs(writes=((b"a", b"a\0"),), sometimes=((READ, (b"a", b"a\0")),))
    state = store(Permission(WRITE, b"a"))
    assert permits(state, "u", needs)
    assert not permits(state, "u", needs, strict=True)
    assert permits(store(Permission(READWRITE, b"a")), "u", needs, strict=True)


# ---- changes ----


def test_the_way_to_an_enabled_store() -> None:
    """Auth is enabled only with a root user that has the role root; a role named root need not exist."""
    assert after(pb.AuthEnableRequest()) == Refused("root user does not exist")
    assert after(ROOTED[0], pb.AuthEnableRequest()) == Refused("root user does not have root role")
    assert after(*ROOTED) == AuthState(True, {"root": frozenset({"root"})}, {})
    assert after(*ROOTED, pb.AuthDisableRequest()) == AuthState(False, {"root": frozenset({"root"})}, {})


def test_a_permission_on_the_same_range_is_replaced() -> None:
    """A role holds at most one permission for a range: granting anew changes its type, another range adds."""
    state = after(pb.AuthRoleAddRequest(name="r"), grant("r", READ, b"a"), grant("r", WRITE, b"a"), grant("r", READ, b"a", b"b"))
    assert isinstance(state, AuthState)
    assert state.roles["r"] == {Permission(WRITE, b"a"), Permission(READ, b"a", b"b")}


def test_deleting_a_role_takes_it_from_its_users() -> None:
    """And a role of the same name made later starts with nothing."""
    made = (pb.AuthUserAddRequest(name="u"), pb.AuthRoleAddRequest(name="r"), grant("r", READ, b"a"))
    state = after(
        *made, pb.AuthUserGrantRoleRequest(user="u", role="r"), pb.AuthRoleDeleteRequest(role="r"), pb.AuthRoleAddRequest(name="r")
    )
    assert state == AuthState(False, {"u": frozenset()}, {"r": frozenset()})


@pytest.mark.parametrize(
    ("requests", "reason"),
    [
        ((pb.AuthUserAddRequest(),), "user name is empty"),
        ((pb.AuthUserAddRequest(name="u"), pb.AuthUserAddRequest(name="u")), "user name already exists"),
        ((pb.AuthUserDeleteRequest(name="u"),), "user name not found"),
        ((*ROOTED, pb.AuthUserDeleteRequest(name="root")), "invalid auth management"),
        ((pb.AuthUserGrantRoleRequest(user="u", role="root"),), "user name not found"),
        ((pb.AuthUserAddRequest(name="u"), pb.AuthUserGrantRoleRequest(user="u", role="r")), "role name not found"),
        ((pb.AuthUserAddRequest(name="u"), pb.AuthUserRevokeRoleRequest(name="u", role="r")), "role is not granted to the user"),
        ((*ROOTED, pb.AuthUserRevokeRoleRequest(name="root", role="root")), "invalid auth management"),
        ((pb.AuthUserRevokeRoleRequest(name="u", role="r"),), "user name not found"),
        ((pb.AuthRoleAddRequest(),), "role name is empty"),
        ((pb.AuthRoleAddRequest(name="r"), pb.AuthRoleAddRequest(name="r")), "role name already exists"),
        ((pb.AuthRoleDeleteRequest(role="r"),), "role name not found"),
        ((*ROOTED, pb.AuthRoleDeleteRequest(role="root")), "invalid auth management"),
        ((grant("r", READ, b"a"),), "role name not found"),
        ((pb.AuthRoleRevokePermissionRequest(role="r", key=b"a"),), "role name not found"),
        (
            (pb.AuthRoleAddRequest(name="r"), grant("r", READ, b"a", b"b"), pb.AuthRoleRevokePermissionRequest(role="r", key=b"a")),
            "permission is not granted to the role",
        ),
    ],
)
def test_what_etcd_refuses(requests: tuple[Any, ...], reason: str) -> None:
    """Changes of what is not there, or of what auth stands on, are refused."""
    assert after(*requests) == Refused(reason)


def test_what_is_taken_away_is_gone() -> None:
    """Deleting a user, revoking a role and revoking a permission undo what granted them."""
    added = after(pb.AuthUserAddRequest(name="u"), pb.AuthRoleAddRequest(name="r"))
    assert isinstance(added, AuthState)
    for do, undo in (
        (pb.AuthUserAddRequest(name="v"), pb.AuthUserDeleteRequest(name="v")),
        (pb.AuthUserGrantRoleRequest(user="u", role="r"), pb.AuthUserRevokeRoleRequest(name="u", role="r")),
        (grant("r", READ, b"a", b"b"), pb.AuthRoleRevokePermissionRequest(role="r", key=b"a", range_end=b"b")),
    ):
        done = step(added, do)
        assert isinstance(done, AuthState)
        assert done != added
        assert step(done, undo) == added


def test_other_requests_change_nothing() -> None:
    """Reads, passwords and data are no changes of who may do what."""
    state = store()
    for request in (RangeRequest(b"a"), pb.AuthUserListRequest(), pb.AuthUserChangePasswordRequest(name="u"), pb.AuthStatusRequest()):
        assert not is_change(request)
        assert step(state, request) is state
