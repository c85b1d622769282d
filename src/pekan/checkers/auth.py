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
of auth store is old" say something about a token, never about a permission. Of a transaction, what releases have let pass is judged where
its answer shows that it was done: transactions inside it, previous values of puts, keys given to a lease (`attached.py`). Cost: one
bisection an operation, one pass over the changes for each distinct stretch of time between two of them.

Sources: etcd server/auth/store.go (isOpPermitted, IsAdminPermitted), server/etcdserver/v3_server.go (doSerialize: a read is decided after
its barrier, a write at apply), server/etcdserver/apply/auth.go (checkPutAuth, checkTxnPermission, read at 3.7.0; apply_auth.go before).
Watches (server/etcdserver/api/v3rpc/watch.go, isWatchPermitted) are decided once. Known violations: #14571, #11651, CVE-2026-33343,
CVE-2026-44283, CVE-2026-73499, CVE-2026-33413.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import accumulate
from typing import Any, NamedTuple

from pekan.checkers import telling
from pekan.checkers.attached import Attached
from pekan.checkers.case import SUSPECTED_FORK, Case
from pekan.checkers.evidence import Watch, bounds, split
from pekan.checkers.kv.collect import attached_by
from pekan.checkers.members import borders
from pekan.history.reading import UNKNOWN_USER
from pekan.history.types import FAILED, INDEFINITE, OK, History, Operation
from pekan.models.auth import (
    READ,
    READWRITE,
    ROOT,
    WRITE,
    AuthState,
    Needs,
    Permission,
    executed_inside,
    interval,
    is_local,
    needs_of,
    permits,
)
from pekan.models.auth import changes as kinds_of_change
from pekan.verdict import CheckerReport, Exhibit, Finding
from pekan.wire import pb
from pekan.wire.errors import PERMISSION, PERMISSION_DENIED, WireError
from pekan.wire.messages import (
    WATCH,
    CompactionRequest,
    DeleteRangeRequest,
    LeaseGrantRequest,
    LeaseRevokeRequest,
    LeaseTimeToLiveRequest,
    PutRequest,
    RangeRequest,
    TxnRequest,
)

NAME = "auth"
NESTED, PREV_KV, LEASE = "nested", "prev_kv", "lease"
"""Which part of a request it was that nobody permitted: the last word of a finding's shape, where it is not the request as such."""
FROM_KEY = "from key"
"""A watch of everything from a key on; the last word of its finding's shape."""
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
    changes = [op for op in history.of(*kinds_of_change()) if op.outcome != FAILED]
    if not changes:
        return CheckerReport(NAME, applicable=False)
    judged = {"changes": len(changes), "allowed": 0, "denied": 0, "not_judged": 0}
    if history.start != "empty" or history.order != "real-time" or case.options.writers != "exclusive":
        judged["not_judged"] = sum(1 for op in history.operations if needs_of(op.input) is not None)
        return CheckerReport(NAME, applicable=True, judged=judged)
    # Where members have parted each counts revisions of its own, and a fork is known only by a bound: the clock alone is left.
    together = case.fork is None and SUSPECTED_FORK not in case.shared
    changes.sort(key=lambda op: op.call)
    store = _Store(changes, by_revision=together)
    leases = cache(lambda: Attached(history.operations)) if together else None
    tls = history.plan is not None and history.plan.tls
    findings = []
    told: set[tuple[str, ...]] = set()
    for op in sorted(history.operations, key=lambda each: each.call):
        decision = _decision(op, tls)
        if decision is None:
            continue
        needs = needs_of(op.input)
        if needs is None or is_local(op.input) or (decision == "denied" and needs.keys_of_lease):
            judged["not_judged"] += 1
            continue
        judged[decision] += 1
        finding = _allowed(store, op, needs, leases) if decision == "allowed" else _denied(store, op, needs)
        if finding is not None:
            findings.append(_reasoned(finding, told, store, op.user, _moment(op), granted=decision == "denied"))
    known = _Known(history)
    findings += _watching(history, changes, known, judged)
    if not tls:
        findings += _nameless(history, changes, known, judged)
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


@dataclass(frozen=True, slots=True)
class _Bounds:
    """`least` and `most` of the possible states, see the module's picture; they hold one user and what bears on it."""

    least: AuthState
    most: AuthState


class _Writes:
    """The writes of one fact, looked at by moments whose calls only ascend.

    `live` are those that may still be last, `later` those called after every moment so far. What is overwritten for one moment is
    overwritten for all later ones, so a long history costs no more than what is under way.
    """

    __slots__ = ("later", "live")

    def __init__(self) -> None:
        # Before everything: auth off, nobody there, nothing granted.
        self.live = [_Write(_ALWAYS, _ALWAYS, None, None, None)]
        self.later: deque[_Write] = deque()

    def advance(self, moment: _Moment) -> None:
        while self.later and self.later[0].call <= moment.ret:
            self.live.append(self.later.popleft())
        overwritten = max((write.call for write in self.live if write.ret < moment.call), default=_ALWAYS)
        if len(self.live) > 1:
            self.live = [write for write in self.live if write.ret >= overwritten]

    def values(self, moment: _Moment) -> set[object]:
        """The values that the fact may have at `moment`; None is among them where it may not hold."""
        overwritten = max((write.call for write in self.live if _surely_before(write, moment)), default=_ALWAYS)
        return {write.value for write in self.live if write.ret >= overwritten and not _surely_after(write, moment)}


class _Store:
    """The changes of a history as writes of facts, and the bounds of the states possible at a moment.

    Moments have to be asked for in order of their calls.
    """

    def __init__(self, changes: Sequence[Operation], *, by_revision: bool) -> None:
        self._by_revision = by_revision
        named = {fact for op in changes for fact, _ in _sets(op.input, ())}
        self.facts: dict[Fact, _Writes] = {fact: _Writes() for fact in (("enabled",), *sorted(named, key=repr))}
        self._of_user: dict[str, list[Fact]] = {}
        self._of_role: dict[str, list[Fact]] = {}
        for fact in self.facts:
            if fact[0] == "has":
                self._of_user.setdefault(str(fact[1]), []).append(fact)
            elif fact[0] == "may":
                self._of_role.setdefault(str(fact[1]), []).append(fact)
        self._times: list[float] = []
        for op in changes:
            ret = _NEVER if op.outcome == INDEFINITE or op.ret is None else op.ret
            revision = op.output.header.revision if op.outcome == OK and op.output is not None else None
            for fact, value in _sets(op.input, named):
                self.facts[fact].later.append(_Write(op.call, ret, value, revision, op))
            self._times += [op.call, ret]
        self._times.sort()
        self._known: dict[str, tuple[tuple[int, int], _Bounds]] = {}

    def bounds(self, moment: _Moment, user: str) -> _Bounds:
        """The bounds for `user` at `moment`, by real time alone."""
        # The same changes are surely before and surely after all moments of one stretch; neighbours mostly share it.
        stretch = self._stretch(moment)
        known = self._known.get(user)
        if known is None or known[0] != stretch:
            known = self._known[user] = (stretch, self._bounds(_Moment(moment.call, moment.ret), user))
        return known[1]

    def exact_bounds(self, moment: _Moment, user: str) -> _Bounds:
        """The bounds for `user` at `moment`, by real time and, while members hold the same, by revisions."""
        if not self._by_revision:
            return self.bounds(moment, user)
        low, high = self._stretch(moment)
        return self.bounds(moment, user) if moment.revision is None or low == high else self._bounds(moment, user)

    def concerning(self, user: str) -> Iterator[Fact]:
        """The facts that decide what `user` may do."""
        yield ("enabled",)
        if ("user", user) in self.facts:
            yield ("user", user)
        for fact in self._of_user.get(user, ()):
            yield fact
            yield from self._of_role.get(str(fact[2]), ())

    def _stretch(self, moment: _Moment) -> tuple[int, int]:
        return bisect_left(self._times, moment.call), bisect_right(self._times, moment.ret)

    def _bounds(self, moment: _Moment, user: str) -> _Bounds:
        least_roles: dict[str, set[Permission]] = {}
        most_roles: dict[str, set[Permission]] = {}
        least_has: set[str] = set()
        most_has: set[str] = set()
        there: set[object] = {None}
        on: set[object] = {None}
        for fact in self.concerning(user):
            writes = self.facts[fact]
            writes.advance(moment)
            values = writes.values(moment)
            if fact[0] == "enabled":
                on = values
            elif fact[0] == "user":
                there = values
            elif fact[0] == "has":
                if True in values:
                    most_has.add(str(fact[2]))
                if values == {True}:
                    least_has.add(str(fact[2]))
            else:
                _grant(fact, values, least_roles, most_roles)
        least_users = {user: frozenset(least_has)} if there == {True} else {}
        most_users = {user: frozenset(most_has)} if True in there else {}
        return _Bounds(
            # Auth switched off permits everything: the least that is permitted is what is permitted when it is on.
            AuthState(True in on, least_users, _frozen(least_roles)),
            AuthState(on == {True}, most_users, _frozen(most_roles)),
        )


def _grant(fact: Fact, values: set[object], least: dict[str, set[Permission]], most: dict[str, set[Permission]]) -> None:
    _, role, key, range_end = fact
    assert isinstance(key, bytes)
    assert isinstance(range_end, bytes)
    kinds = values - {None}
    if not kinds:
        return
    if interval(key, range_end) is None:
        most.setdefault(str(role), set()).add(_EVERYTHING)
        return
    allowed = [{READ, WRITE} if kind == READWRITE else {kind} for kind in kinds]
    for kind in (READ, WRITE):
        if any(kind in each for each in allowed):
            most.setdefault(str(role), set()).add(Permission(kind, key, range_end))
        if None not in values and all(kind in each for each in allowed):
            least.setdefault(str(role), set()).add(Permission(kind, key, range_end))


def _frozen(of: Mapping[str, set[Permission]]) -> dict[str, frozenset[Permission]]:
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
    """The facts that `request` sets, with their values (None: does not hold). `named` are all facts of the history."""
    match request:
        case pb.AuthEnableRequest():
            yield ("enabled",), True
        case pb.AuthDisableRequest():
            yield ("enabled",), None
        case pb.AuthUserAddRequest():
            yield ("user", request.name), True
        case pb.AuthUserDeleteRequest():
            yield ("user", request.name), None
            yield from ((fact, None) for fact in named if fact[0] == "has" and fact[1] == request.name)
        case pb.AuthUserGrantRoleRequest():
            yield ("has", request.user, request.role), True
        case pb.AuthUserRevokeRoleRequest():
            yield ("has", request.name, request.role), None
        case pb.AuthRoleDeleteRequest():
            yield from ((fact, None) for fact in named if fact[0] == "has" and fact[2] == request.role)
            yield from ((fact, None) for fact in named if fact[0] == "may" and fact[1] == request.role)
        case pb.AuthRoleGrantPermissionRequest():
            perm = request.perm
            yield ("may", request.name, perm.key, perm.range_end), int(perm.permType)
        case pb.AuthRoleRevokePermissionRequest():
            yield ("may", request.role, request.key, request.range_end), None


# ---- watches ----


class _Seen(NamedTuple):
    """The first event of a key that a watch delivered at `time`, and when its member had surely known all that was answered before."""

    known: int
    watch: Watch
    key: bytes
    time: int


def _watching(history: History, changes: Sequence[Operation], known: _Known, judged: dict[str, int]) -> Iterator[Finding]:
    """Watches that delivered events of keys which their user could not read at any moment that matters.

    A member decides about a watch when it is created, by what it knows itself, and never again. So a permission counts that was there at
    any moment between the one that the member had surely come to by then and the delivery: it had answered a request through raft in that
    same process. Watches of root, and without a token, are left out.
    """
    store = _Store(changes, by_revision=False)
    seen: list[_Seen] = []
    for stream in history.streams:
        if stream.method == WATCH and stream.user not in ("", UNKNOWN_USER) and ("has", stream.user, ROOT) not in store.facts:
            for watch in split(stream):
                seen += _firsts(watch, known)
    judged["watched_keys"] = len(seen)
    told: set[tuple[int, int]] = set()
    shapes: set[tuple[str, ...]] = set()
    for each in sorted(seen, key=lambda every: (every.known, every.time)):
        watch = each.watch
        moment = _Moment(each.known, each.time)
        if (watch.stream, watch.asked) in told or _may_be_permitted(
            store, moment, watch.user, Needs(reads=((each.key, each.key + b"\0"),))
        ):
            continue
        told.add((watch.stream, watch.asked))  # Of one watch the first key is enough.
        yield _reasoned(_wrongly_watched(each), shapes, store, watch.user, moment)


def _firsts(watch: Watch, known: _Known) -> Iterator[_Seen]:
    """The first event of each key that `watch` delivered; none where it is not known what its member knew."""
    since = None if watch.created is None or watch.refused else known.since(watch.member, watch.asked, watch.created.time)
    if since is None:
        return
    keys: set[bytes] = set()
    for message in sorted((*watch.messages, *watch.unfinished, *watch.late), key=lambda each: each.time):
        for event in message.message.events:
            if event.kv.key not in keys:
                keys.add(event.kv.key)
                yield _Seen(since, watch, event.kv.key, message.time)


def _nameless(history: History, changes: Sequence[Operation], known: _Known, judged: dict[str, int]) -> Iterator[Finding]:
    """Requests without a token that only a user may ask, and that were answered with auth on for as long as matters: from what the member
    surely knew, since it decides by that alone, to the answer."""
    store = _Store(changes, by_revision=False)
    asked: list[tuple[_Moment, Operation]] = []
    for op in history.of(*_NAMED):
        if not op.user and op.outcome == OK and op.ret is not None:
            since = known.since(op.member, op.call, op.ret)
            if since is not None:
                asked.append((_Moment(since, op.ret), op))
    judged["nameless"] = len(asked)
    shapes: set[tuple[str, ...]] = set()
    for moment, op in sorted(asked, key=lambda each: each[0].call):
        if store.bounds(moment, "").most.enabled:
            yield _reasoned(_wrongly_allowed(op, "", Needs()), shapes, store, "", moment)


_NAMED = (
    CompactionRequest,
    LeaseGrantRequest,
    LeaseRevokeRequest,
    LeaseTimeToLiveRequest,
    pb.AlarmRequest,
    pb.LeaseLeasesRequest,
    pb.MemberListRequest,
)
"""What takes a user of some kind, from 3.4.42, 3.5.28 and 3.6.9 on: before, anybody was answered (CVE-2026-33413). Whether it takes more,
a role or the permission for certain keys, differs."""


class _Known:
    """What members surely knew: whoever answers a request that goes through raft knows all that was answered before that request."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._borders = borders(history.marks)
        self._answers: dict[str, tuple[list[int], list[int]]] | None = None

    def since(self, member: str, before: int, until: int) -> int | None:
        """The latest time of which `member` surely knew all that had been answered by then, when it took a request at `before`; None where
        none is known, or where that was another process than the one that answered at `until`."""
        if member not in self._borders:
            return None
        returns, calls = self._of(member)
        count = bisect_left(returns, before)
        if not count:
            return None
        known = calls[count - 1]
        ends = self._borders[member]
        return known if bisect_left(ends, known) == bisect_right(ends, until) else None

    def _of(self, member: str) -> tuple[list[int], list[int]]:
        """When `member` answered requests through raft, ascending, and the latest call of those answered by then."""
        if self._answers is None:
            found: dict[str, list[tuple[int, int]]] = {}
            for op in self._history.of(*_THROUGH_RAFT):
                if op.outcome == OK and op.ret is not None and not is_local(op.input):
                    found.setdefault(op.member, []).append((op.ret, op.call))
            self._answers = {}
            for name, answers in found.items():
                answers.sort()
                self._answers[name] = ([ret for ret, _ in answers], list(accumulate((call for _, call in answers), max)))
        return self._answers.get(member, ([], []))


_THROUGH_RAFT = (
    PutRequest,
    RangeRequest,
    DeleteRangeRequest,
    TxnRequest,
    LeaseGrantRequest,
    LeaseRevokeRequest,
    pb.AuthenticateRequest,
    *kinds_of_change(),
)
"""Who answers one of these has applied everything that was answered anywhere before it was asked."""


def _wrongly_watched(seen: _Seen) -> Finding:
    watch, key = seen.watch, telling.text(seen.key)
    low, high = bounds(watch.request)
    asked = _range((low, high))
    return Finding(
        code="AUTH-ALLOWED",
        summary=f"a watch of {asked} by user {watch.user!r} on {watch.member} delivered {key}, which no possible auth state permits",
        explanation=(
            f"Auth is on, and whatever order the overlapping and unanswered changes took effect in, user {watch.user!r} may not read {key} "
            f"in any state that {watch.member} may have known when it created the watch, nor in any later one until it delivered the "
            "event. It created the watch all the same."
        ),
        certificate=(
            Exhibit(
                f"{watch.client} as {watch.user}: watch {asked} -> created",
                stream=watch.stream,
                member=watch.member,
                start=watch.asked,
                end=watch.created.time if watch.created is not None else None,
            ),
            Exhibit(f"event of {key}", stream=watch.stream, member=watch.member, start=seen.time, end=seen.time),
        ),
        subject={"user": watch.user, "member": watch.member, "stream": watch.stream, "key": key},
        shape=("allowed", "Watch", "user", "key" if high == low + b"\0" else "range" if high is not None else FROM_KEY),
    )


# ---- findings ----


class _Part(NamedTuple):
    """A part of a request in words: in a summary, and as the subject of what an explanation says."""

    whole: str
    told: str


_PARTS = {
    "": _Part("it", "this request needs"),
    NESTED: _Part("what a transaction inside it did", "the operations need that a transaction inside it has carried out"),
    PREV_KV: _Part("reading the previous value that a put inside it asked for", "reading previous values needs, as puts inside it do"),
    LEASE: _Part("writing all keys of the lease that it names", "naming this lease needs, which another key has been given to"),
}


def _moment(op: Operation) -> _Moment:
    revision = None
    if op.outcome == OK and isinstance(op.input, PutRequest):
        # A put owns its revision. Other answers may stand at a revision that another request wrote.
        revision = op.output.header.revision
    return _Moment(op.call, _NEVER if op.ret is None else op.ret, revision)


def _allowed(store: _Store, op: Operation, needs: Needs, leases: Callable[[], Attached] | None) -> Finding | None:
    parts = [("", needs)]
    if isinstance(op.input, TxnRequest):
        inside = executed_inside(op.input, op.output)
        parts += [(name, part) for name, part in zip((NESTED, PREV_KV), inside, strict=True) if part.reads or part.writes]
    for name, part in parts:
        if not _may_be_permitted(store, _moment(op), op.user, part):
            return _wrongly_allowed(op, name, part)
    return _attached(store, op, leases()) if leases is not None and attached_by(op.input, op.output) else None


def _attached(store: _Store, op: Operation, leases: Attached) -> Finding | None:
    """A put gave a key to a lease, and among the keys that the lease has is one that the user may not write (checkLeasePuts)."""
    if permits(store.bounds(_moment(op), op.user).least, op.user, Needs(admin=True)):
        return None
    for _, lease in attached_by(op.input, op.output):
        for key, put in leases.surely(op, lease):
            needs = Needs(writes=((key, key + b"\0"),))
            if not _may_be_permitted(store, _moment(op), op.user, needs) and leases.keeps(key, lease, put, op):
                finding = _wrongly_allowed(op, LEASE, needs)
                return replace(
                    finding, certificate=(*finding.certificate, _exhibit(put, "ok")), subject={**finding.subject, "lease": lease}
                )
    return None


def _may_be_permitted(store: _Store, moment: _Moment, user: str, needs: Needs) -> bool:
    """Whether some possible state at `moment` permits `user` what `needs` says. Of who needs nothing, etcd does not ask who it is."""
    if not (needs.reads or needs.writes or needs.admin):
        return True
    coarse = store.bounds(moment, user)
    if permits(coarse.least, user, needs):
        return True  # By far the most common, and revisions can only narrow what is possible.
    return permits(coarse.most, user, needs) and permits(store.exact_bounds(moment, user).most, user, needs)


def _wrongly_allowed(op: Operation, inside: str, needs: Needs) -> Finding:
    """`inside`: which part of a transaction it is that needs `needs`; "" for the request as such."""
    who = f"user {op.user!r}" if op.user else "a request without a token"
    return Finding(
        code="AUTH-ALLOWED",
        summary=(
            f"{_kind(op)} by {who} on {op.member or 'a member'} was answered, and no possible auth state of its time permits "
            f"{_PARTS[inside].whole}"
        ),
        explanation=(
            f"Auth is on, and whatever order the overlapping and unanswered changes took effect in, {who} does not have what "
            f"{_PARTS[inside].told} ({_needed(needs)}) at any moment between its call and its answer. It was answered all the same."
        ),
        certificate=(_exhibit(op, "allowed"),),
        subject={"user": op.user, "member": op.member, "operations": [op.id]},
        shape=("allowed", _kind(op), "user" if op.user else "no token", *filter(None, (inside,))),
    )


def _denied(store: _Store, op: Operation, needs: Needs) -> Finding | None:
    moment = _moment(op)
    if not permits(store.bounds(moment, op.user).least, op.user, needs, strict=True):
        return None
    return Finding(
        code="AUTH-DENIED",
        summary=f"{_kind(op)} by user {op.user!r} on {op.member or 'a member'} was denied, and every possible auth state permits it",
        explanation=(
            f"Whatever order the overlapping and unanswered changes took effect in, user {op.user!r} has what this request needs "
            f"({_needed(needs)}) at every moment between its call and its answer. It was denied all the same."
        ),
        certificate=(_exhibit(op, "permission denied"),),
        subject={"user": op.user, "member": op.member, "operations": [op.id]},
        shape=("denied", _kind(op), "user"),
    )


def _reasoned(finding: Finding, told: set[tuple[str, ...]], store: _Store, user: str, moment: _Moment, *, granted: bool = False) -> Finding:
    """`finding` with its reasons where it is the first of its shape, which alone is told in full; `told` are the shapes so far."""
    if finding.shape in told:
        return finding
    told.add(finding.shape)
    return replace(finding, certificate=finding.certificate + _reasons(store, user, moment, granted=granted))


def _reasons(store: _Store, user: str, moment: _Moment, *, granted: bool) -> tuple[Exhibit, ...]:
    """The last two changes before the decision that the user's rights rest on: what granted them, or what took them away."""
    found: dict[int, Operation] = {}
    for fact in store.concerning(user):
        before = [write for write in store.facts[fact].live if _surely_before(write, moment)]
        last = max(before, key=lambda write: write.call, default=None)
        if last is not None and last.operation is not None and (fact[0] == "enabled" or (last.value is not None) is granted):
            found[last.operation.id] = last.operation
    latest = sorted(found.values(), key=lambda each: each.call)[-2:]
    return tuple(_exhibit(each, "ok" if each.outcome == OK else "no answer") for each in latest)


def _exhibit(op: Operation, answer: str) -> Exhibit:
    who = f"{op.client or f'process {op.process}'}" + (f" as {op.user}" if op.user else " without a token")
    return Exhibit(f"{who}: {_told(op.input)} -> {answer}", operation=op.id, member=op.member, start=op.call, end=op.ret)


def _kind(op: Operation) -> str:
    return type(op.input).__name__.removesuffix("Request").removeprefix("Auth")


def _told(request: Any) -> str:
    if isinstance(request, tuple):
        return telling.request(request)
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
        return telling.text(first)
    return f"[{telling.text(first)}, {'end' if end is None else telling.text(end)})"
