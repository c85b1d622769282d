"""Were requests allowed and denied as the auth store of their time says? (AUTH-ALLOWED, AUTH-DENIED)

::

    changes      grant r1 to u ├────┤        revoke r1 ├─?───────────────── (no answer: may happen at any later time)
    time      ────────────────────────────────────────────────────────────>
    a request                        ├──┤ allowed?          ├──┤ denied?
    states possible                  {r1}                   {r1}, {}

    least   what is granted in every possible state ─── permits? ─> a denial is wrong   AUTH-DENIED
    most    what is granted in some possible state ──── denies? ──> an allowance is wrong   AUTH-ALLOWED

The auth store is taken apart into single facts (auth is on, u exists, u has r, r may do t on a range). Each change sets facts to values, so
the values that a fact can have during a request are those of the writes that may come before it and are not surely overwritten by then:
real time orders writes, and where both sides were answered with a revision of the key-value store, so does that. A decision is monotone in
the facts, so two states bound all the possible ones. The bounds treat facts as independent: they may contain states that cannot be, which
can only hide a finding and never make one.

Only linearizable requests are judged: a local answer may be as old as it likes. "user name is empty", "invalid auth token" and "revision
of auth store is old" say something about a token, never about a permission. Cost: one bisection an operation, one pass over the changes
for each distinct stretch of time between two of them.

Sources: etcd server/auth/store.go (isOpPermitted, IsAdminPermitted), server/etcdserver/v3_server.go (doSerialize: a read is decided after
its barrier, a write at apply). Known violations: #14571, #11651.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pekan.checkers.case import Case
from pekan.history.reading import UNKNOWN_USER
from pekan.history.types import FAILED, INDEFINITE, OK, Operation
from pekan.models.auth import (
    READ,
    READWRITE,
    ROOT,
    WRITE,
    AuthState,
    Needs,
    Permission,
    interval,
    is_change,
    is_local,
    needs_of,
    permits,
)
from pekan.verdict import CheckerReport, Exhibit, Finding
from pekan.wire import pb
from pekan.wire.errors import PERMISSION, PERMISSION_DENIED, WireError
from pekan.wire.messages import DeleteRangeRequest, PutRequest, RangeRequest, TxnRequest

NAME = "auth"
_ALWAYS = float("-inf")
_NEVER = float("inf")
_EVERYTHING = Permission(READWRITE, b"\0", b"\0")
"""What a permission on an odd range may be taken to grant: releases read such ranges differently, so `most` grants all."""

Fact = tuple[Hashable, ...]
"""("enabled",), ("user", name), ("has", user, role), ("may", role, key, range_end)."""


class _Write(NamedTuple):
    """A change setting one fact. `revision` is the key-value revision of its answer (None: unknown), `ret` inf where none came."""

    call: float
    ret: float
    value: object
    revision: int | None
    operation: Operation | None


class _Moment(NamedTuple):
    """When a request was decided: between `call` and `ret`, and, for a write answered at `revision`, at that revision."""

    call: float
    ret: float
    revision: int | None = None


def check_auth(case: Case) -> CheckerReport:
    """Judge every decision of the history; not applicable where nothing was asked of the auth store.

    Where the store was not proved empty at the start nothing is known of its users, and nothing is judged.
    """
    history = case.history
    changes = [op for op in history.operations if is_change(op.input) and op.outcome != FAILED]
    if not changes:
        return CheckerReport(NAME, applicable=False)
    judged = {"changes": len(changes), "allowed": 0, "denied": 0, "not_judged": 0}
    if history.start != "empty" or history.order != "real-time" or case.options.writers != "exclusive":
        judged["not_judged"] = sum(1 for op in history.operations if needs_of(op.input) is not None)
        return CheckerReport(NAME, applicable=True, judged=judged)
    store = _Store(changes)
    tls = history.plan is not None and history.plan.tls
    findings = []
    for op in history.operations:
        decision = _decision(op, tls)
        if decision is None:
            continue
        needs = needs_of(op.input)
        if needs is None or is_local(op.input) or (decision == "denied" and needs.keys_of_lease):
            judged["not_judged"] += 1
            continue
        judged[decision] += 1
        finding = _allowed(store, op, needs) if decision == "allowed" else _denied(store, op, needs)
        if finding is not None:
            findings.append(finding)
    return CheckerReport(NAME, applicable=True, judged=judged, findings=tuple(findings))


def _decision(op: Operation, tls: bool) -> str | None:
    """ "allowed", "denied", or None where the answer says nothing about a permission."""
    if op.user == UNKNOWN_USER:
        return None
    if op.outcome == OK:
        # With client certificates a request without a token has the certificate's user.
        return None if tls and not op.user else "allowed"
    error = op.output
    if op.outcome == FAILED and op.user and isinstance(error, WireError):
        return "denied" if error.code == PERMISSION_DENIED and error.message == PERMISSION else None
    return None


# ---- what is possible ----


@dataclass(slots=True)
class _Bounds:
    """`least` and `most` of the possible states, see the module's picture."""

    least: AuthState
    most: AuthState


@dataclass(slots=True)
class _Store:
    """The changes of a history as writes of facts, and the bounds of the states possible at a moment (kept per stretch of time)."""

    facts: dict[Fact, list[_Write]] = field(default_factory=dict)
    times: list[float] = field(default_factory=list)
    known: dict[tuple[int, int], _Bounds] = field(default_factory=dict)

    def __init__(self, changes: Iterable[Operation]) -> None:
        self.facts = {}
        self.known = {}
        self.times = []
        changes = list(changes)
        named = {fact for op in changes for fact, _ in _sets(op.input, ())}
        for fact in (("enabled",), *sorted(named, key=repr)):
            # Before everything: auth off, nobody there, nothing granted.
            self.facts[fact] = [_Write(_ALWAYS, _ALWAYS, False, None, None)]
        for op in changes:
            ret = _NEVER if op.outcome == INDEFINITE or op.ret is None else op.ret
            revision = op.output.header.revision if op.outcome == OK and op.output is not None else None
            for fact, value in _sets(op.input, named):
                self.facts[fact].append(_Write(op.call, ret, value, revision, op))
            self.times += [op.call, ret]
        self.times.sort()

    def bounds(self, moment: _Moment) -> _Bounds:
        """The bounds at `moment`, by real time alone."""
        # Writes called up to (and at) ret may come before; writes answered strictly before call surely do.
        stretch = (bisect_left(self.times, moment.call), bisect_right(self.times, moment.ret))
        found = self.known.get(stretch)
        if found is None:
            found = self.known[stretch] = self._bounds(_Moment(moment.call, moment.ret))
        return found

    def exact_bounds(self, moment: _Moment) -> _Bounds:
        """The bounds at `moment`, by real time and by revisions."""
        if moment.revision is None or bisect_left(self.times, moment.call) == bisect_right(self.times, moment.ret):
            return self.bounds(moment)
        return self._bounds(moment)

    def values(self, fact: Fact, moment: _Moment) -> set[object]:
        """The values that `fact` may have at `moment`."""
        writes = self.facts[fact]
        overwritten = max((write.call for write in writes if _surely_before(write, moment)), default=_ALWAYS)
        return {write.value for write in writes if write.ret >= overwritten and not _surely_after(write, moment)}

    def _bounds(self, moment: _Moment) -> _Bounds:
        least_users: dict[str, set[str]] = {}
        most_users: dict[str, set[str]] = {}
        least_roles: dict[str, set[Permission]] = {}
        most_roles: dict[str, set[Permission]] = {}
        least_enabled = most_enabled = False
        held: list[tuple[str, str, bool]] = []
        for fact in self.facts:
            values = self.values(fact, moment)
            if fact[0] == "enabled":
                # Auth switched off permits everything: the least that is permitted is what is permitted when it is on.
                least_enabled, most_enabled = True in values, values == {True}
            elif fact[0] == "user":
                if True in values:
                    most_users[str(fact[1])] = set()
                    if values == {True}:
                        least_users[str(fact[1])] = set()
            elif fact[0] == "has":
                if True in values:
                    held.append((str(fact[1]), str(fact[2]), values == {True}))
            else:
                _grant(fact, values, least_roles, most_roles)
        for user, role, surely in held:
            most_users.setdefault(user, set()).add(role)
            if surely and user in least_users:
                least_users[user].add(role)
        return _Bounds(
            AuthState(least_enabled, _frozen(least_users), _frozen(least_roles)),
            AuthState(most_enabled, _frozen(most_users), _frozen(most_roles)),
        )


def _grant(fact: Fact, values: set[object], least: dict[str, set[Permission]], most: dict[str, set[Permission]]) -> None:
    _, role, key, range_end = fact
    assert isinstance(key, bytes)
    assert isinstance(range_end, bytes)
    kinds = {value for value in values if not isinstance(value, bool)}
    if not kinds:
        return
    if interval(key, range_end) is None:
        most.setdefault(str(role), set()).add(_EVERYTHING)
        return
    allowed = [{READ, WRITE} if kind == READWRITE else {kind} for kind in kinds]
    for kind in (READ, WRITE):
        if any(kind in each for each in allowed):
            most.setdefault(str(role), set()).add(Permission(kind, key, range_end))
        if len(kinds) == len(values) and all(kind in each for each in allowed):
            least.setdefault(str(role), set()).add(Permission(kind, key, range_end))


def _frozen(of: Mapping[str, set[Any]]) -> dict[str, frozenset[Any]]:
    return {name: frozenset(values) for name, values in of.items()}


def _surely_before(write: _Write, moment: _Moment) -> bool:
    return write.ret < moment.call or (write.call <= moment.ret and _by_revision(write, moment) is True)


def _surely_after(write: _Write, moment: _Moment) -> bool:
    return write.call > moment.ret or (write.ret >= moment.call and _by_revision(write, moment) is False)


def _by_revision(write: _Write, moment: _Moment) -> bool | None:
    """Whether `write` came before, None where revisions do not say. A change answered at revision r was applied after the write of
    revision r and before that of r + 1. The clock is asked first: an answer with an older revision than it can have is not for auth to
    judge."""
    if write.revision is None or moment.revision is None:
        return None
    return write.revision < moment.revision


def _sets(request: Any, named: Iterable[Fact]) -> Iterator[tuple[Fact, object]]:
    """The facts that `request` sets, with their values (False: not granted, not there). `named` are all facts of the history."""
    match request:
        case pb.AuthEnableRequest():
            yield ("enabled",), True
        case pb.AuthDisableRequest():
            yield ("enabled",), False
        case pb.AuthUserAddRequest():
            yield ("user", request.name), True
        case pb.AuthUserDeleteRequest():
            yield ("user", request.name), False
            yield from ((fact, False) for fact in named if fact[0] == "has" and fact[1] == request.name)
        case pb.AuthUserGrantRoleRequest():
            yield ("has", request.user, request.role), True
        case pb.AuthUserRevokeRoleRequest():
            yield ("has", request.name, request.role), False
        case pb.AuthRoleDeleteRequest():
            yield from ((fact, False) for fact in named if fact[0] == "has" and fact[2] == request.role)
            yield from ((fact, False) for fact in named if fact[0] == "may" and fact[1] == request.role)
        case pb.AuthRoleGrantPermissionRequest():
            perm = request.perm
            yield ("may", request.name, perm.key, perm.range_end), int(perm.permType)
        case pb.AuthRoleRevokePermissionRequest():
            yield ("may", request.role, request.key, request.range_end), False


# ---- findings ----


def _moment(op: Operation) -> _Moment:
    revision = None
    if op.outcome == OK and isinstance(op.input, PutRequest):
        # A put owns its revision. Other answers may stand at a revision that another request wrote.
        revision = op.output.header.revision
    return _Moment(op.call, _NEVER if op.ret is None else op.ret, revision)


def _allowed(store: _Store, op: Operation, needs: Needs) -> Finding | None:
    moment = _moment(op)
    coarse = store.bounds(moment)
    if permits(coarse.least, op.user, needs):
        return None  # By far the most common, and revisions can only narrow what is possible.
    if permits(coarse.most, op.user, needs) and permits(store.exact_bounds(moment).most, op.user, needs):
        return None
    who = f"user {op.user!r}" if op.user else "a request without a token"
    return Finding(
        code="AUTH-ALLOWED",
        summary=f"{_kind(op)} by {who} on {op.member or 'a member'} was answered, and no possible auth state of its time permits it",
        explanation=(
            f"Auth is on, and whatever order the overlapping and unanswered changes took effect in, {who} does not have what this request "
            f"needs ({_needed(needs)}) at any moment between its call and its answer. It was answered all the same."
        ),
        certificate=(_exhibit(op, "allowed"), *_reasons(store, op, moment, granted=False)),
        subject={"user": op.user, "member": op.member, "operations": [op.id]},
        shape=("allowed", _kind(op), "user" if op.user else "no token"),
    )


def _denied(store: _Store, op: Operation, needs: Needs) -> Finding | None:
    moment = _moment(op)
    if not permits(store.bounds(moment).least, op.user, needs, strict=True):
        return None
    return Finding(
        code="AUTH-DENIED",
        summary=f"{_kind(op)} by user {op.user!r} on {op.member or 'a member'} was denied, and every possible auth state permits it",
        explanation=(
            f"Whatever order the overlapping and unanswered changes took effect in, user {op.user!r} has what this request needs "
            f"({_needed(needs)}) at every moment between its call and its answer. It was denied all the same."
        ),
        certificate=(_exhibit(op, "permission denied"), *_reasons(store, op, moment, granted=True)),
        subject={"user": op.user, "member": op.member, "operations": [op.id]},
        shape=("denied", _kind(op), "user"),
    )


def _reasons(store: _Store, op: Operation, moment: _Moment, *, granted: bool) -> tuple[Exhibit, ...]:
    """The last two changes before the decision that the user's rights rest on: what granted them, or what took them away."""
    rights = store.exact_bounds(moment).most
    roles = rights.users.get(op.user, frozenset())
    found: dict[int, Operation] = {}
    for fact, writes in store.facts.items():
        concerns = fact[0] == "enabled" or fact[1] == op.user or (fact[0] == "may" and (fact[1] in roles or not granted))
        last = max((write for write in writes if _surely_before(write, moment)), key=lambda write: write.call)
        if concerns and last.operation is not None and (bool(last.value is not False) is granted or fact[0] == "enabled"):
            found[last.operation.id] = last.operation
    latest = sorted(found.values(), key=lambda each: each.call)[-2:]
    return tuple(_exhibit(each, "ok" if each.outcome == OK else "no answer") for each in latest)


def _exhibit(op: Operation, answer: str) -> Exhibit:
    who = f"{op.client or f'process {op.process}'}" + (f" as {op.user}" if op.user else " without a token")
    return Exhibit(f"{who}: {_told(op.input)} -> {answer}", operation=op.id, member=op.member, start=op.call, end=op.ret)


def _kind(op: Operation) -> str:
    return type(op.input).__name__.removesuffix("Request").removeprefix("Auth")


def _told(request: Any) -> str:
    match request:
        case RangeRequest() | DeleteRangeRequest():
            end = f", {request.range_end!r}" if request.range_end else ""
            return f"{type(request).__name__.removesuffix('Request')}({request.key!r}{end})"
        case PutRequest():
            return f"Put({request.key!r})"
        case TxnRequest():
            return f"Txn({len(request.compare)} compares, {len(request.success)} + {len(request.failure)} operations)"
    fields = []
    for descriptor, value in request.ListFields():
        if descriptor.name != "password":
            fields.append(
                f"{descriptor.name}={value}".replace("\n", " ").strip() if descriptor.name == "perm" else f"{descriptor.name}={value!r}"
            )
    return f"{type(request).__name__.removesuffix('Request').removeprefix('Auth')}({', '.join(fields)})"


def _needed(needs: Needs) -> str:
    if needs.admin:
        return f"the role {ROOT}"
    parts = [f"read {_range(each)}" for each in needs.reads] + [f"write {_range(each)}" for each in needs.writes]
    return "; ".join(parts[:4]) + (f"; and {len(parts) - 4} more" if len(parts) > 4 else "") if parts else "nothing but a user"


def _range(asked: tuple[bytes, bytes | None]) -> str:
    first, end = asked
    if end == first + b"\0":
        return repr(first)
    return f"[{first!r}, {'end' if end is None else repr(end)})"
