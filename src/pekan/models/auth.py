"""Who may do what: etcd's users, roles and permissions as a value, changes to it as transitions, decisions as a function of it.

::

    request ── needs_of ──> Needs(reads, writes, admin)           what it asks permission for
    AuthState ── step(state, request) ──> AuthState | Refused     a change, as etcd applies it
    permits(state, user, needs) ──> bool                          the decision

                 user ──has──> role ──has──> Permission(type, key, range_end)
                 any user of the role "root" may do everything

Sources: etcd server/auth/store.go and range_perm_cache.go (states, coverage of ranges), server/etcdserver/apply/apply_auth.go (what each
request needs), read at 3.5.35, 3.6.16 and 3.7.3.

`permits` is monotone, which the auth checker builds on: more users, roles and permissions never deny what fewer allow, and auth switched
off denies nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeAlias

from pekan.wire import pb
from pekan.wire.messages import DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, TxnResponse

READ, WRITE, READWRITE = 0, 1, 2
"""Permission.type (authpb.Permission.Type)."""
ROOT = "root"
"""Name of the user that auth cannot be enabled without, and of the role that may do everything."""
NO_END = b""
"""The range_end of a single key."""
OPEN_END = b"\0"
"""The range_end of "from this key on"."""

Interval: TypeAlias = tuple[bytes, bytes | None]
"""[first, end) of keys; end None means no upper bound."""


class Permission(NamedTuple):
    """What a role may do with the keys of [key, range_end), spelled as in a Range request."""

    type: int
    key: bytes
    range_end: bytes = NO_END


@dataclass(frozen=True, slots=True)
class AuthState:
    """The auth store. `users` maps a name to its roles, `roles` a name to its permissions: at most one per (key, range_end)."""

    enabled: bool = False
    users: Mapping[str, frozenset[str]] = field(default_factory=dict)
    roles: Mapping[str, frozenset[Permission]] = field(default_factory=dict)


class Refused(NamedTuple):
    """A change that etcd refuses in this state, and why."""

    reason: str


class Needs(NamedTuple):
    """What a request asks permission for.

    reads, writes  ranges that every release checks
    sometimes      (permission type, range) checked by some releases only: needed to say that a denial is wrong, not to say that an
                   allowance is
    admin          only a user of the role "root" may ask it
    keys_of_lease  also needs WRITE on whatever keys a lease has at that moment, so a denial proves nothing
    """

    reads: tuple[Interval, ...] = ()
    writes: tuple[Interval, ...] = ()
    sometimes: tuple[tuple[int, Interval], ...] = ()
    admin: bool = False
    keys_of_lease: bool = False


# ---- ranges ----


def interval(key: bytes, range_end: bytes) -> Interval | None:
    """The keys that (key, range_end) means; None where it means none (an empty key, or an end not above the key)."""
    if not key:
        return None
    if range_end == NO_END:
        return (key, key + b"\0")
    if range_end == OPEN_END:
        return (key, None)
    return (key, range_end) if key < range_end else None


def covers(granted: Iterable[Interval], asked: Interval) -> bool:
    """True where the union of `granted` holds every key of `asked` (ranges that only touch count as one, as in etcd's interval tree)."""
    low, high = asked
    for first, end in sorted(granted, key=lambda each: each[0]):
        if first > low:
            return False
        if end is None:
            return True
        low = max(low, end)
        if high is not None and low >= high:
            return True
    return False


# ---- what a request needs ----


class _Collector:
    """Fills a `Needs`; `odd` is set where a range means nothing, so that no decision about it is judged."""

    def __init__(self) -> None:
        self.reads: list[Interval] = []
        self.writes: list[Interval] = []
        self.sometimes: list[tuple[int, Interval]] = []
        self.keys_of_lease = False
        self.odd = False

    def add(self, kind: int, key: bytes, range_end: bytes, always: bool) -> None:
        asked = interval(key, range_end)
        if asked is None:
            self.odd = True
        elif not always:
            self.sometimes.append((kind, asked))
        else:
            (self.reads if kind == READ else self.writes).append(asked)

    def operation(self, op: RequestOp, *, inside: bool = False, nested: bool = False) -> None:
        if isinstance(op, RangeRequest):
            self.add(READ, op.key, op.range_end, not nested)
        elif isinstance(op, PutRequest):
            self.add(WRITE, op.key, NO_END, not nested)
            self.keys_of_lease |= op.lease != 0
            if op.prev_kv:
                # Inside a transaction only newer patch releases check it.
                self.add(READ, op.key, NO_END, not inside)
        elif isinstance(op, DeleteRangeRequest):
            self.add(WRITE, op.key, op.range_end, not nested)
            if op.prev_kv:
                self.add(READ, op.key, op.range_end, not nested)
        else:
            self.transaction(op, nested=inside)

    def transaction(self, txn: TxnRequest, *, nested: bool = False) -> None:
        """Every guard and both branches, whichever is taken. Older patch releases do not look into nested transactions."""
        for guard in txn.compare:
            self.add(READ, guard.key, guard.range_end, not nested)
        for op in (*txn.success, *txn.failure):
            self.operation(op, inside=True, nested=nested)


_ADMIN = (
    pb.AuthEnableRequest,
    pb.AuthDisableRequest,
    pb.AuthUserAddRequest,
    pb.AuthUserDeleteRequest,
    pb.AuthUserChangePasswordRequest,
    pb.AuthUserGrantRoleRequest,
    pb.AuthUserRevokeRoleRequest,
    pb.AuthUserListRequest,
    pb.AuthRoleAddRequest,
    pb.AuthRoleDeleteRequest,
    pb.AuthRoleGrantPermissionRequest,
    pb.AuthRoleRevokePermissionRequest,
    pb.AuthRoleListRequest,
)
"""Requests that etcd decides at apply, for users of the role "root" alone (apply_auth.go, needAdminPermission). AuthStatus is left out:
releases differ."""


def needs_of(request: Any) -> Needs | None:
    """What `request` needs, None where releases differ too much or the answer is a member's own (leases, maintenance, odd ranges)."""
    if isinstance(request, RangeRequest | PutRequest | DeleteRangeRequest | TxnRequest):
        collector = _Collector()
        collector.operation(request)
        if collector.odd:
            return None
        return Needs(
            tuple(collector.reads),
            tuple(collector.writes),
            tuple(collector.sometimes),
            keys_of_lease=collector.keys_of_lease,
        )
    if isinstance(request, _ADMIN):
        return Needs(admin=True)
    return None


class Inside(NamedTuple):
    """What the executed operations of a transaction needed, as far as releases have let it pass unchecked.

    nested   whatever stands in transactions nested in it: CVE-2026-33343, checked from 3.4.42, 3.5.28 and 3.6.9 on
    prev_kv  reading the keys whose previous values its puts asked for: CVE-2026-44283, checked from 3.4.44, 3.5.30 and 3.6.11 on
    """

    nested: Needs = Needs()
    prev_kv: Needs = Needs()


def executed_inside(request: TxnRequest, response: TxnResponse) -> Inside:
    """What the operations that `response` shows as executed in `request` needed and `needs_of` leaves to the releases that check it.

    An operation that was executed is past the question who checks it: whoever may not do it must not have had it done. A nested transaction
    that was executed has also answered its guards.
    """
    nested, prev_kv = _Collector(), _Collector()
    _execute(request, response, nested, prev_kv, depth=0)
    return Inside(Needs(tuple(nested.reads), tuple(nested.writes)), Needs(tuple(prev_kv.reads)))


def _execute(request: TxnRequest, response: TxnResponse, nested: _Collector, prev_kv: _Collector, *, depth: int) -> None:
    branch = request.success if response.succeeded else request.failure
    if len(branch) != len(response.responses):
        return
    if depth:
        for guard in request.compare:
            nested.add(READ, guard.key, guard.range_end, True)
    for op, answer in zip(branch, response.responses, strict=True):
        if isinstance(op, TxnRequest):
            if isinstance(answer, TxnResponse):
                _execute(op, answer, nested, prev_kv, depth=depth + 1)
        elif isinstance(op, PutRequest):
            if depth:
                nested.add(WRITE, op.key, NO_END, True)
            if op.prev_kv:
                prev_kv.add(READ, op.key, NO_END, True)
        elif depth:
            nested.operation(op)


def is_local(request: Any) -> bool:
    """True where any member answers from its own state, however old: a serializable Range, and a Txn of which every operation in both
    branches is one (with none at all it counts as such: etcd txn.IsTxnSerializable)."""
    if isinstance(request, RangeRequest):
        return request.serializable
    if isinstance(request, TxnRequest):
        return all(isinstance(op, RangeRequest) and op.serializable for op in (*request.success, *request.failure))
    return False


# ---- decisions ----


def permits(state: AuthState, user: str, needs: Needs, *, strict: bool = False) -> bool:
    """True where `state` lets `user` ("" for a request without a token) do what needs `needs`; `strict` also asks for `needs.sometimes`."""
    if not state.enabled:
        return True
    if not user:
        return False
    held = state.users.get(user)
    if held is None:
        return False
    if ROOT in held:
        return True
    if needs.admin:
        return False
    readable: list[Interval] = []
    writable: list[Interval] = []
    for role in held:
        for permission in state.roles.get(role, ()):
            granted = interval(permission.key, permission.range_end)
            if granted is None:
                continue
            if permission.type != WRITE:
                readable.append(granted)
            if permission.type != READ:
                writable.append(granted)
    if not all(covers(readable, asked) for asked in needs.reads) or not all(covers(writable, asked) for asked in needs.writes):
        return False
    return not strict or all(covers(readable if kind == READ else writable, asked) for kind, asked in needs.sometimes)


# ---- changes ----


def is_change(request: Any) -> bool:
    """True where `request`, when it succeeds, can change who may do what. Passwords and empty roles do not."""
    return type(request) in _STEPS


def changes() -> tuple[type, ...]:
    """The types of the requests of which `is_change` is true."""
    return tuple(_STEPS)


def step(state: AuthState, request: Any) -> AuthState | Refused:
    """`state` after `request` as etcd applies it, or why etcd refuses it. A request that changes nothing here returns `state` itself."""
    change = _STEPS.get(type(request))
    return state if change is None else change(state, request)


def _enable(state: AuthState, _: Any) -> AuthState | Refused:
    if state.enabled:
        return state
    if ROOT not in state.users:
        return Refused("root user does not exist")
    if ROOT not in state.users[ROOT]:
        return Refused("root user does not have root role")
    return replace(state, enabled=True)


def _disable(state: AuthState, _: Any) -> AuthState | Refused:
    return replace(state, enabled=False)


def _user_add(state: AuthState, request: pb.AuthUserAddRequest) -> AuthState | Refused:
    if not request.name:
        return Refused("user name is empty")
    if request.name in state.users:
        return Refused("user name already exists")
    return replace(state, users={**state.users, request.name: frozenset()})


def _user_delete(state: AuthState, request: pb.AuthUserDeleteRequest) -> AuthState | Refused:
    if state.enabled and request.name == ROOT:
        return Refused("invalid auth management")
    if request.name not in state.users:
        return Refused("user name not found")
    return replace(state, users={name: roles for name, roles in state.users.items() if name != request.name})


def _user_grant_role(state: AuthState, request: pb.AuthUserGrantRoleRequest) -> AuthState | Refused:
    if request.user not in state.users:
        return Refused("user name not found")
    if request.role != ROOT and request.role not in state.roles:
        return Refused("role name not found")
    return replace(state, users={**state.users, request.user: state.users[request.user] | {request.role}})


def _user_revoke_role(state: AuthState, request: pb.AuthUserRevokeRoleRequest) -> AuthState | Refused:
    if state.enabled and request.name == request.role == ROOT:
        return Refused("invalid auth management")
    if request.name not in state.users:
        return Refused("user name not found")
    if request.role not in state.users[request.name]:
        return Refused("role is not granted to the user")
    return replace(state, users={**state.users, request.name: state.users[request.name] - {request.role}})


def _role_add(state: AuthState, request: pb.AuthRoleAddRequest) -> AuthState | Refused:
    if not request.name:
        return Refused("role name is empty")
    if request.name in state.roles:
        return Refused("role name already exists")
    return replace(state, roles={**state.roles, request.name: frozenset()})


def _role_delete(state: AuthState, request: pb.AuthRoleDeleteRequest) -> AuthState | Refused:
    if state.enabled and request.role == ROOT:
        return Refused("invalid auth management")
    if request.role not in state.roles:
        return Refused("role name not found")
    return replace(
        state,
        roles={name: granted for name, granted in state.roles.items() if name != request.role},
        users={name: held - {request.role} for name, held in state.users.items()},
    )


def _role_grant(state: AuthState, request: pb.AuthRoleGrantPermissionRequest) -> AuthState | Refused:
    if request.name not in state.roles:
        return Refused("role name not found")
    given = Permission(request.perm.permType, request.perm.key, request.perm.range_end)
    others = {each for each in state.roles[request.name] if each[1:] != given[1:]}
    return replace(state, roles={**state.roles, request.name: frozenset(others | {given})})


def _role_revoke(state: AuthState, request: pb.AuthRoleRevokePermissionRequest) -> AuthState | Refused:
    if request.role not in state.roles:
        return Refused("role name not found")
    others = frozenset(each for each in state.roles[request.role] if each[1:] != (request.key, request.range_end))
    if others == state.roles[request.role]:
        return Refused("permission is not granted to the role")
    return replace(state, roles={**state.roles, request.role: others})


_STEPS: dict[type, Any] = {
    pb.AuthEnableRequest: _enable,
    pb.AuthDisableRequest: _disable,
    pb.AuthUserAddRequest: _user_add,
    pb.AuthUserDeleteRequest: _user_delete,
    pb.AuthUserGrantRoleRequest: _user_grant_role,
    pb.AuthUserRevokeRoleRequest: _user_revoke_role,
    pb.AuthRoleAddRequest: _role_add,
    pb.AuthRoleDeleteRequest: _role_delete,
    pb.AuthRoleGrantPermissionRequest: _role_grant,
    pb.AuthRoleRevokePermissionRequest: _role_revoke,
}
