"""Do members hold the same, and do they stay up? (MEMBER-REVISION, MEMBER-HASH, MEMBER-AUTH-REVISION,
MEMBER-EXIT, REMOVED-MEMBER-CRASH, MEMBER-CORRUPT-ALARM)

::

    one process of one member     Alarm(GET) ok ── Status A ── Status B          A.applied = B.applied = B.committed = i
                                                                                 => B's header revision is that of raft index i
    two members at one index      i: m1 stands at revision 40, m2 at 41          MEMBER-REVISION
    HashKV, asked for R           equal R, equal compact revision < R            MEMBER-HASH where hashes differ
    AuthStatus                    at one index, or across idle entries only      MEMBER-AUTH-REVISION where they differ

Why Alarm(GET) first: it goes through raft, so its answer shows that this process has applied everything before it. A process fresh from a
restart may hold a database ahead of the index that it reports. Why A and B: a member bumps its revision before it publishes its index, and
Status reads its parts one after the other (v3rpc/maintenance.go); nothing was committed in between where these three are equal.

Idle entries. Alarm(GET) and AuthStatus are raft entries themselves that change nothing. Asking moves the index, so two members are hardly
ever seen at the same one. An answered request is exactly one entry, above every index that was committed anywhere before it was sent and
at most the index that its member showed committed after its answer. Where as many such requests as there are indices lie in (i, k], all
entries of (i, k] are idle, and what holds at k holds at i: indices are compared after that reduction. An AuthStatus answer belongs to an
index where all entries around it are idle (or there are none).

Everything else is *not comparable*, which is no finding. Members are `header.member_id`; names are labels. Learners are compared too: what
they have applied they hold.

Where a member had refused writing transactions of the kind of #18667 before the members were seen to differ, and as many of them as it
takes, the difference is theirs: REFUSED-BUT-APPLIED is the root, and the difference follows it.

Sources: etcd server/etcdserver/server.go (apply order), corrupt.go, storage/mvcc/hash.go; version traps of HashKV: #14325, #14457, #15919.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from pekan.checkers import refused
from pekan.checkers.case import SUSPECTED_FORK, Case, Fork
from pekan.checkers.causes import follows
from pekan.checkers.evidence import compactions, leaving
from pekan.history.types import FAILED, OK, FaultSpan, History, Mark, Operation
from pekan.verdict import CheckerReport, Exhibit, Finding
from pekan.wire import pb

NAME = "members"
IDLE_RUN_MAX = 64
"""Longest run of idle entries that is looked for: a round asks each of at most 7 members (etcd's advice) at most twice, and rounds that
follow each other without traffic join up; beyond this nothing is lost but comparisons."""
LOG_LINES = 5
"""Log lines shown of a member that ended, besides the words with which it gave up; of a panic the last ones are a trace."""


class _Standing(NamedTuple):
    """A member's revision at a raft index, from two Status answers."""

    cluster: int
    member_id: int
    member: str
    raft_index: int
    revision: int
    first: Operation
    second: Operation


class _Hash(NamedTuple):
    """One comparable HashKV answer."""

    cluster: int
    member_id: int
    revision: int
    compact_revision: int
    hash: int
    operation: Operation


class _AuthStanding(NamedTuple):
    """A member's auth revision at a (reduced) raft index."""

    cluster: int
    member_id: int
    raft_index: int
    auth_revision: int
    operation: Operation


class _Difference(NamedTuple):
    """Two members that differ at `revision` or before, seen by `time`. `behind` are those that may have refused what others applied, and
    `refusals` how many refused writes it takes to explain the difference."""

    finding: Finding
    revision: int
    groups: tuple[tuple[str, ...], ...]
    time: int
    behind: tuple[str, ...]
    refusals: int


@dataclass(slots=True)
class _Asked:
    """The maintenance requests that were answered, in order of call."""

    statuses: list[Operation] = field(default_factory=list)
    idle: list[Operation] = field(default_factory=list)
    hashes: list[Operation] = field(default_factory=list)
    alarms: list[Operation] = field(default_factory=list)
    activations: list[Operation] = field(default_factory=list)


def check_members(case: Case) -> CheckerReport:
    """Compare members wherever that proves something, and report unasked exits and CORRUPT alarms.

    Sets `case.fork` where members differ and no earlier checker found a fork; follows it where one did and it explains the difference.
    """
    history = case.history
    asked = _asked(history)
    exits = [mark for mark in history.marks if mark.kind == "member" and mark.detail.get("state") == "exited"]
    if not (asked.statuses or asked.hashes or asked.alarms or exits):
        return CheckerReport(NAME, applicable=False)
    judged = {"exits": len(exits), "alarms": len(asked.alarms)}
    findings: list[Finding] = []
    log = _Log(asked, borders(history.marks)) if history.order == "real-time" else None
    differences = list(_hashes(_comparable_hashes(case, asked), judged))
    if log is not None:
        differences += _revisions((each._replace(raft_index=log.reduce(each.raft_index)) for each in _standings(asked, log)), judged)
    findings += _rooted(case, differences)
    if log is not None:
        findings += _auth_revisions(_auth_standings(asked, log), judged)
    findings += _alarms(case, asked)
    gone = leaving(history)
    for mark in exits:
        if not mark.detail.get("asked", True) and not _predicted(mark, history.faults):
            removed = gone.get(mark.member)
            findings.append(_exit(mark) if removed is None or mark.time < removed else _crash(mark, removed))
    return CheckerReport(NAME, applicable=True, judged=judged, findings=tuple(findings))


def _asked(history: History) -> _Asked:
    found = _Asked()
    for op in history.of(pb.AlarmRequest, pb.StatusRequest, pb.HashKVRequest, pb.AuthStatusRequest):
        kind = type(op.input)
        if kind is pb.AlarmRequest and op.input.action != pb.AlarmRequest.GET:
            if op.outcome != FAILED:
                found.activations.append(op)
            if op.outcome == OK:
                found.alarms.append(op)
            continue
        if op.outcome != OK or op.ret is None:
            continue
        if kind is pb.StatusRequest:
            found.statuses.append(op)
        elif kind is pb.HashKVRequest:
            found.hashes.append(op)
        elif kind is pb.AuthStatusRequest:
            found.idle.append(op)
        else:
            found.idle.append(op)
            found.alarms.append(op)
    return found


# ---- what is known of members ----


class _Log:
    """Processes of members, and what is known of the raft log between their answers (see the module's text on idle entries).

    `borders` maps a member to the times at which one process of it had surely ended.
    """

    def __init__(self, asked: _Asked, borders: dict[str, list[int]]) -> None:
        self._borders = borders
        by_ret = sorted((op.ret, op.output.header.cluster_id, op.output.raftIndex) for op in asked.statuses if op.ret is not None)
        self._committed: dict[int, tuple[list[int], list[int]]] = {}
        for ret, cluster, index in by_ret:
            times, highest = self._committed.setdefault(cluster, ([], []))
            times.append(ret)
            highest.append(max(index, highest[-1]) if highest else index)
        self._shown: dict[tuple[str, int, int], list[tuple[int, int]]] = {}
        for op in asked.statuses:
            process = self.process(op)
            if process is not None:
                self._shown.setdefault((*process, op.output.header.member_id), []).append((op.call, op.output.raftIndex))
        for shown in self._shown.values():
            shown.sort()
        self._idle = self._idle_entries(asked.idle)

    def process(self, op: Operation) -> tuple[str, int] | None:
        """(member, how many processes before it) that answered `op`; None where one ended meanwhile, or ends were not noted."""
        times = self._borders.get(op.member)
        if times is None or op.ret is None:
            return None
        before = bisect_right(times, op.call)
        return (op.member, before) if before == bisect_right(times, op.ret) else None

    def span(self, op: Operation) -> tuple[int, int] | None:
        """(low, high]: where in the log the entry of the answered request `op` lies."""
        header = op.output.header
        times, highest = self._committed.get(header.cluster_id, ([], []))
        before = bisect_right(times, op.call)
        process = self.process(op)
        if before == 0 or process is None or op.ret is None:
            return None
        shown = self._shown.get((*process, header.member_id), [])
        # The committed index of one process only rises, so its first Status after the answer is the tightest.
        after = bisect_left(shown, (op.ret, 0))
        return None if after == len(shown) else (highest[before - 1], shown[after][1])

    def reduce(self, index: int) -> int:
        """The lowest index with the same contents as `index`."""
        while index in self._idle:
            index -= 1
        return index

    def _idle_entries(self, requests: Iterable[Operation]) -> set[int]:
        spans = sorted(span for op in requests if (span := self.span(op)) is not None)
        lows = [low for low, _ in spans]
        idle: set[int] = set()
        for low in sorted(set(lows)):
            near = spans[bisect_left(lows, low) : bisect_left(lows, low + IDLE_RUN_MAX)]
            for count, high in enumerate(sorted(high for _, high in near if high <= low + IDLE_RUN_MAX), start=1):
                # `count` requests lie in (low, high]; as many as there are indices, so there is nothing else.
                if high - low == count:
                    idle.update(range(low + 1, high + 1))
        return idle


def borders(marks: Iterable[Mark]) -> dict[str, list[int]]:
    """Member -> times at which one process of it had surely ended and the next one not begun: an end is noted before the next start.

    A member of which a process began without the end of the one before being noted is left out: its processes cannot be told apart.
    """
    borders: dict[str, list[int]] = {}
    running: dict[str, Any] = {}
    unclear: set[str] = set()
    for mark in marks:
        if mark.kind != "member":
            continue
        times = borders.setdefault(mark.member, [])
        state, incarnation = mark.detail.get("state"), mark.detail.get("incarnation")
        if state == "exited":
            times.append(mark.time)
            running.pop(mark.member, None)
        elif state == "started":
            if running.get(mark.member, incarnation) != incarnation:
                unclear.add(mark.member)
            running[mark.member] = incarnation
    return {member: times for member, times in borders.items() if member not in unclear}


def _standings(asked: _Asked, log: _Log) -> Iterator[_Standing]:
    """Every (index, revision) that two Status answers of one process prove, that process having answered Alarm(GET) before."""
    proven: dict[tuple[str, int], int] = {}
    for op in asked.alarms:
        if op.input.action == pb.AlarmRequest.GET and (process := log.process(op)) is not None and op.ret is not None:
            proven[process] = min(op.ret, proven.get(process, op.ret))
    last: dict[tuple[str, int, int], Operation] = {}
    for second in sorted(asked.statuses, key=lambda op: op.call):
        process = log.process(second)
        if process is None or process not in proven or proven[process] > second.call:
            continue
        header = second.output.header
        key = (*process, header.member_id)
        first, last[key] = last.get(key), second
        if first is None or first.ret is None or first.ret > second.call:
            continue
        a, b = first.output, second.output
        if a.raftAppliedIndex == b.raftAppliedIndex == b.raftIndex:
            yield _Standing(header.cluster_id, header.member_id, second.member, b.raftIndex, header.revision, first, second)


def _auth_standings(asked: _Asked, log: _Log) -> Iterator[_AuthStanding]:
    for op in asked.idle:
        if type(op.input) is not pb.AuthStatusRequest:
            continue
        span = log.span(op)
        if span is not None and log.reduce(span[1]) <= span[0]:
            header = op.output.header
            yield _AuthStanding(header.cluster_id, header.member_id, log.reduce(span[1]), op.output.authRevision, op)


def _comparable_hashes(case: Case, asked: _Asked) -> Iterator[_Hash]:
    """HashKV answers of which it is known what was hashed, above the compact revision.

    At a revision at which a compaction was asked for, some releases answer from a hash stored then and others scan: left out.
    """
    compacted = {compaction.revision for compaction in compactions(case)}
    for op in asked.hashes:
        answer, header = op.output, op.output.header
        revision = op.input.revision or answer.hash_revision
        told_apart = answer.hash_revision not in (0, revision)
        if revision > max(0, answer.compact_revision) and not told_apart and revision not in compacted:
            yield _Hash(header.cluster_id, header.member_id, revision, answer.compact_revision, answer.hash, op)


# ---- comparisons ----


def _revisions(standings: Iterable[_Standing], judged: dict[str, int]) -> Iterator[_Difference]:
    at: dict[tuple[int, int], dict[int, _Standing]] = {}
    for standing in standings:
        at.setdefault((standing.cluster, standing.raft_index), {}).setdefault(standing.member_id, standing)
    judged["indices_compared"] = sum(1 for members in at.values() if len(members) > 1)
    for (_, index), members in sorted(at.items()):
        low = min(members.values(), key=lambda each: each.revision)
        high = max(members.values(), key=lambda each: each.revision)
        if low.revision == high.revision:
            continue
        first = low.revision + 1
        groups = _groups((each.revision, each.member) for each in members.values())
        finding = Finding(
            code="MEMBER-REVISION",
            summary=f"at raft index {index}, {low.member} stands at revision {low.revision} and {high.member} at {high.revision}",
            explanation=(
                f"Both have applied the same log up to index {index} (entries that change nothing left out), so both must stand at one "
                f"revision. Sides: {_told(groups)}. They differ at revision {first} or before."
            ),
            certificate=(_standing_exhibit(low), _standing_exhibit(high)),
            subject={"member": low.member, "other": high.member, "index": index, "revision": first},
            shape=("Status", "Status", "equal index"),
        )
        time = max(low.second.ret or 0, high.second.ret or 0)
        yield _Difference(finding, first, groups, time, (low.member,), high.revision - low.revision)


def _hashes(hashes: Iterable[_Hash], judged: dict[str, int]) -> Iterator[_Difference]:
    at: dict[tuple[int, int, int], dict[int, _Hash]] = {}
    for each in hashes:
        at.setdefault((each.cluster, each.revision, each.compact_revision), {}).setdefault(each.member_id, each)
    judged["hashes_compared"] = sum(1 for members in at.values() if len(members) > 1)
    for (_, revision, compact_revision), members in sorted(at.items()):
        distinct: dict[int, _Hash] = {}
        for each in members.values():
            distinct.setdefault(each.hash, each)
        if len(distinct) < 2:
            continue
        one, other = list(distinct.values())[:2]
        groups = _groups((each.hash, each.operation.member) for each in members.values())
        finding = Finding(
            code="MEMBER-HASH",
            summary=f"HashKV at revision {revision} differs between {one.operation.member} and {other.operation.member}",
            explanation=(
                f"Both were asked for the hash at revision {revision}, both with compact revision {compact_revision} below it, so both "
                f"hashed the same history and must agree. Sides: {_told(groups)}. They differ at revision {revision} or before."
            ),
            certificate=(_hash_exhibit(one), _hash_exhibit(other)),
            subject={"member": one.operation.member, "other": other.operation.member, "revision": revision},
            shape=("HashKV", "HashKV"),
        )
        time = max(one.operation.ret or 0, other.operation.ret or 0)
        yield _Difference(finding, revision, groups, time, (one.operation.member, other.operation.member), 1)


def _auth_revisions(standings: Iterable[_AuthStanding], judged: dict[str, int]) -> Iterator[Finding]:
    at: dict[tuple[int, int], dict[int, _AuthStanding]] = {}
    for each in standings:
        at.setdefault((each.cluster, each.raft_index), {}).setdefault(each.member_id, each)
    judged["auth_revisions_compared"] = sum(1 for members in at.values() if len(members) > 1)
    for (_, index), members in sorted(at.items()):
        low = min(members.values(), key=lambda each: each.auth_revision)
        high = max(members.values(), key=lambda each: each.auth_revision)
        if low.auth_revision == high.auth_revision:
            continue
        one, other = low.operation, high.operation
        # Not explained by a fork of the key-value store, but often its cause: a write refused here and applied there.
        yield Finding(
            code="MEMBER-AUTH-REVISION",
            summary=f"at raft index {index}, {one.member} has auth revision {low.auth_revision} and {other.member} {high.auth_revision}",
            explanation=(
                f"Both have applied the same log up to index {index} (entries that change nothing left out), so both must have counted the "
                "same changes of users, roles and permissions. Where the revision differs, one member may refuse what others apply."
            ),
            certificate=(
                _exhibit(one, f"AuthStatus -> auth revision {low.auth_revision}"),
                _exhibit(other, f"AuthStatus -> auth revision {high.auth_revision}"),
            ),
            subject={"member": one.member, "other": other.member, "index": index},
            shape=("AuthStatus", "AuthStatus", "equal index"),
        )


def _rooted(case: Case, differences: Iterable[_Difference]) -> Iterator[Finding]:
    """The findings of `differences`, the one with the lowest revision first. That one is the fork, unless a fork at or below it is known.

    Each says "at this revision or before", so the others of the same revision or above are explained by it. A fork that the key-value
    checker suspects (a refused write that was applied) is proven by the first of them at or above it.
    """
    suspected = case.shared.get(SUSPECTED_FORK)
    for difference in sorted(differences, key=lambda each: each.revision):
        finding, revision = difference.finding, difference.revision
        if case.fork is None and isinstance(suspected, Fork) and suspected.revision <= revision:
            case.fork = suspected
        if case.fork is None or revision < case.fork.revision:
            applied = _refused_but_applied(case.history, difference)
            root = finding if applied is None else applied
            case.fork = Fork(revision, root.code, root.summary, root.certificate, difference.groups, difference.time)
            yield root
            if root is finding:
                continue
        yield follows(case, finding, revision)


def _refused_but_applied(history: History, difference: _Difference) -> Finding | None:
    """The finding that enough refused writes explain `difference`; None where they do not.

    Where no watch or read shows the effect of such a write, the members' difference is all that can be seen of it (#18667).
    """
    suspects = refused.may_explain(history, difference.behind, difference.time, difference.revision)
    if not suspects or len(suspects) < difference.refusals:
        return None
    return refused.explains(suspects, difference.finding, "the members differ as if others had applied them")


def _groups(sides: Iterable[tuple[int, str]]) -> tuple[tuple[str, ...], ...]:
    by_value: dict[int, list[str]] = {}
    for value, member in sides:
        by_value.setdefault(value, []).append(member)
    return tuple(tuple(sorted(members)) for _, members in sorted(by_value.items()))


def _told(groups: tuple[tuple[str, ...], ...]) -> str:
    return " | ".join(", ".join(members) for members in groups)


def _standing_exhibit(standing: _Standing) -> Exhibit:
    status = standing.second.output
    what = (
        f"Status -> revision {standing.revision} at raft index {status.raftIndex}, applied {status.raftAppliedIndex}; the Status before it "
        f"(operation {standing.first.id}) had applied the same"
    )
    return Exhibit(what, operation=standing.second.id, member=standing.member, start=standing.first.call, end=standing.second.ret)


def _hash_exhibit(each: _Hash) -> Exhibit:
    return _exhibit(each.operation, f"HashKV({each.revision}) -> {each.hash:#010x}, compact revision {each.compact_revision}")


def _exhibit(op: Operation, what: str) -> Exhibit:
    return Exhibit(what, operation=op.id, member=op.member, start=op.call, end=op.ret)


# ---- alarms and exits ----


def _alarms(case: Case, asked: _Asked) -> Iterator[Finding]:
    reported: set[int] = set()
    for op in sorted(asked.alarms, key=lambda each: each.ret or 0):
        for alarm in op.output.alarms:
            if alarm.alarm != pb.CORRUPT or alarm.memberID in reported or _activated(asked, alarm.memberID, op):
                continue
            reported.add(alarm.memberID)
            finding = Finding(
                code="MEMBER-CORRUPT-ALARM",
                summary=f"etcd holds a CORRUPT alarm for member {alarm.memberID:x}",
                explanation="etcd compared its members itself and found that this one differs. Nobody had asked for that alarm.",
                certificate=(_exhibit(op, f"Alarm({_action(op)}) -> CORRUPT of member {alarm.memberID:x}"),),
                subject={"member": op.member, "member_id": f"{alarm.memberID:x}"},
                shape=("Alarm", "CORRUPT"),
            )
            yield follows(case, finding)


def _activated(asked: _Asked, member_id: int, op: Operation) -> bool:
    """True where a recorded request may have raised that alarm on purpose."""
    return any(
        each.input.action == pb.AlarmRequest.ACTIVATE
        and each.input.alarm == pb.CORRUPT
        and each.input.memberID in (0, member_id)
        and (op.ret is None or each.call < op.ret)
        for each in asked.activations
    )


def _action(op: Operation) -> str:
    return str(pb.AlarmRequest.AlarmAction.Name(op.input.action))


_ENDS: dict[str, tuple[int, ...]] = {"kill": (9,), "restart": (0, 9, 15)}
"""Fault kind -> wait statuses that its own work causes: SIGKILL; a graceful stop (etcd raises SIGTERM again when it has finished), or
SIGKILL where that took too long. A panic (2 << 8) or fatal error (1 << 8) is never among them."""


def _predicted(mark: Mark, faults: Iterable[FaultSpan]) -> bool:
    """True where a fault under way on that member at that time ends processes in that way."""
    return any(
        fault.target == mark.member
        and mark.detail.get("wait_status") in _ENDS.get(fault.kind, ())
        and fault.armed <= mark.time
        and (fault.healed is None or mark.time <= fault.healed)
        for fault in faults
    )


def _exit(mark: Mark) -> Finding:
    status = mark.detail.get("wait_status")
    ended = _wait_status(status)
    lines = [str(line) for line in mark.detail.get("log_tail", ())][-LOG_LINES:]
    words = str(mark.detail.get("crash") or "")
    if words and words not in lines:
        lines.insert(0, words)
    log = tuple(Exhibit(f"log: {line}", member=mark.member, start=mark.time, end=mark.time) for line in lines)
    return Finding(
        code="MEMBER-EXIT",
        summary=f"{mark.member} {ended}, and nobody had asked it to end",
        explanation=f"Process {mark.detail.get('pid')} of {mark.member} {ended}. No fault under way ends processes of this member so.",
        certificate=(Exhibit(f"{mark.member} {ended}", member=mark.member, start=mark.time, end=mark.time), *log),
        subject={"member": mark.member, "incarnation": mark.detail.get("incarnation"), "wait_status": status},
        shape=("exit", ended),
    )


def _crash(mark: Mark, removed: int) -> Finding:
    """What etcd does against its own intent, though nothing is lost by it: a code of its own, so that one may look past it."""
    finding = _exit(mark)
    return replace(
        finding,
        code="REMOVED-MEMBER-CRASH",
        summary=f"{mark.member}, which was being removed, {_wait_status(mark.detail.get('wait_status'))}",
        explanation=(
            f"The removal of {mark.member} began before. A member that learns of its removal ends by itself with exit code 0; this one was "
            "ended by something else on the way."
        ),
        certificate=(Exhibit(f"the removal of {mark.member} begins", member=mark.member, start=removed, end=removed), *finding.certificate),
    )


def _wait_status(status: Any) -> str:
    """A wait status as waitpid(2) gives it, in words."""
    if not isinstance(status, int):
        return "ended with an unknown status"
    if status & 0x7F:
        return f"was ended by signal {status & 0x7F}"
    return f"exited with code {status >> 8}"
