"""Did every lock have one holder at a time, and each holder a key? (LOCK-WITHOUT-KEY, LOCK-TWO-HOLDERS)

::

    revision       2          3             4               5
    A's key        ●━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━○ unlocked
    B's key                   ●─────────────○ lease ran out
    Lock by B            ├─ called ─────────────────────────────┤ answered ok at revision 5

A lock or an election is held as long as a key is there: the service's own words (etcd v3lock.proto, v3election.proto). So whoever is told
that he holds it had his key, while nobody else held it, at some moment of his call. In the picture there is no such moment:
LOCK-WITHOUT-KEY. Had B's key still been there at the revision of the answer, and A's too: LOCK-TWO-HOLDERS.

======================  ==================================================================================================================
moments of a call       revisions from the highest that was shown to anybody before the call, to the one in the answer's header. A Campaign
                        is answered with the revision of its put: there, every revision at which its key was
A holds                 from the revision that A was answered with (a Campaign: that was answered before B's call: from B's key on)
                        until A's key is deleted, whatever deleted it: a lease that ran out ends the holding
by revisions            of the proven order of a store that began empty, up to the first revision of which anything is unknown
by answers alone        without such an order: A was answered before B was called, and when B was answered A's lease lived (granted once,
                        renewed, nobody can have revoked it) and nobody can have deleted A's key
======================  ==================================================================================================================

A lease that a member calls gone (TimeToLive -1, KeepAlive 0) is no evidence either way. Faults that move clocks waive what rests on a
lease's time, and nothing that rests on revisions. Cost: one pass over the order, and over the holders of one lock at a time.

Sources: etcd client/v3/concurrency/mutex.go (3.4 waits for older keys and does not look at its own again, #11456; 3.5.0 and later do) and
election.go (no release does).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from pekan.checkers import telling
from pekan.checkers.case import Case, Order
from pekan.checkers.causes import follows, timing_waived
from pekan.checkers.evidence import watched
from pekan.checkers.kv.check import epoch_end
from pekan.checkers.leases import NS, Leases, alive, all_sights, collect
from pekan.history.types import FAILED, OK, History, Operation
from pekan.models.etcd import deletes, puts, within
from pekan.verdict import CheckerReport, Exhibit, Finding
from pekan.wire import pb
from pekan.wire.messages import PUT, DeleteRangeRequest, LeaseGrantRequest, PutRequest, TxnRequest

NAME = "locks"
NEVER = 1 << 62
"""Later than every revision and every time."""


class Grant(NamedTuple):
    """A Lock or Campaign that was answered ok: who was told to hold what.

    `revision`: of a Lock, that of the answer's header; of a Campaign, the one that created its key.
    """

    operation: Operation
    election: bool
    name: bytes
    key: bytes
    lease: int
    revision: int
    call: int
    ret: int


class Life(NamedTuple):
    """Revisions at which a key was there: from `first` to the one before `end` (NEVER: still there at the last that is known)."""

    first: int
    end: int


class Broken(NamedTuple):
    """`grant` had no moment to be given; `holder` held the last of those at which its key was there (None: there was none)."""

    grant: Grant
    life: Life | None
    holder: Grant | None
    shared: bool


def check_locks(case: Case) -> CheckerReport:
    """Judge every Lock and Campaign that was answered ok; not applicable where there is none."""
    grants = _grants(case.history)
    if not grants:
        return CheckerReport(NAME, applicable=False)
    lock_of: dict[tuple[bool, bytes], list[Grant]] = defaultdict(list)
    for grant in grants:
        lock_of[grant.election, grant.name].append(grant)
    found: dict[int, Finding] = {}
    placed = 0
    if (proven := _Proven.of(case, grants)) is not None:
        for of_lock in lock_of.values():
            for grant in of_lock:
                if proven.judges(grant):
                    placed += 1
                    if (broken := proven.contradiction(grant, of_lock)) is not None:
                        found[grant.operation.id] = follows(case, _by_revisions(case, broken), _upper(broken))
    for holder, grant, until in _together(case, lock_of.values()):
        found.setdefault(grant.operation.id, _by_answers(holder, grant, until))
    findings = tuple(found[grant.operation.id] for grant in grants if grant.operation.id in found)
    return CheckerReport(NAME, True, {"granted": len(grants), "placed": placed}, findings)


def _grants(history: History) -> list[Grant]:
    """In order of call; of the first epoch only: a restored store is another."""
    ends = epoch_end(history) or NEVER
    found = []
    for op in history.of(pb.LockRequest, pb.CampaignRequest):
        if op.outcome != OK or op.ret is None or op.ret >= ends:
            continue
        if isinstance(op.output, pb.LockResponse):
            key, lease, revision = op.output.key, op.input.lease, op.output.header.revision
        else:
            key, lease, revision = op.output.leader.key, op.output.leader.lease, op.output.leader.rev
        election = isinstance(op.input, pb.CampaignRequest)
        found.append(Grant(op, election, op.input.name, key, lease, revision, op.call, op.ret))
    return found


# ---- by revisions ----


class _Proven:
    """When the keys of all grants were there, by the proven order: revisions up to `last`."""

    def __init__(self, case: Case, order: Order, grants: Iterable[Grant]) -> None:
        self.real_time = case.history.order == "real-time"
        self.last = min(order.unknown, default=order.last + 1) - 1
        keys = {grant.key for grant in grants}
        self.lives = _lives(order, self.last, keys)
        self._sights = all_sights(case.history) if self.real_time else []
        self._shown_at = [sight.time for sight in self._sights]
        elections = {grant.key for grant in grants if grant.election} if self.real_time and case.options.writers == "exclusive" else set()
        self._puts: dict[bytes, int] = dict.fromkeys(elections, 0)
        for op in case.history.of(PutRequest, TxnRequest) if elections else ():
            if op.outcome != FAILED:
                for key in {put.key for put in puts(op.input)} & elections:
                    self._puts[key] += 1

    @classmethod
    def of(cls, case: Case, grants: Iterable[Grant]) -> _Proven | None:
        """None where no order is proven from an empty store on."""
        order = case.order
        if order is None or case.history.start != "empty" or order.first != 2:
            return None
        return cls(case, order, grants)

    def judges(self, grant: Grant) -> bool:
        """Whether every moment of the call is among the revisions that are known."""
        if not grant.election:
            return 0 < grant.revision <= self.last
        # No other put can bring the key back, and it is gone: these are all the revisions at which it can ever be there.
        lives = self.lives.get(grant.key, [])
        return self._puts.get(grant.key) == 1 and len(lives) == 1 and lives[0].first == grant.revision and lives[0].end <= self.last

    def contradiction(self, grant: Grant, of_lock: Iterable[Grant]) -> Broken | None:
        """Why `grant` had no moment to be given; None where it had one."""
        holds = [(other, hold) for other in of_lock if other.key != grant.key and (hold := self._hold(other, grant)) is not None]
        lower, upper = self._shown_before(grant.call), grant.revision
        blocked: tuple[Life, Grant] | None = None
        for life in self.lives.get(grant.key, []):
            at, end = max(life.first, lower), life.end
            if not grant.election:
                end = min(end, upper + 1)
            while at < end:
                holder = max(((hold.end, other) for other, hold in holds if hold.first <= at < hold.end), default=None, key=_end)
                if holder is None:
                    return None
                blocked = life, holder[1]
                at = holder[0]
        life_, holder_ = blocked or (self._last_life(grant), None)
        shared = not grant.election and life_ is not None and life_.first <= upper < life_.end
        return Broken(grant, life_, holder_, shared)

    def _hold(self, other: Grant, grant: Grant) -> Life | None:
        """From when to when `other` held the lock for sure, as far as it matters to `grant`."""
        for life in self.lives.get(other.key, ()):
            if life.first <= other.revision < life.end:
                if not other.election:
                    return Life(other.revision, life.end)
                # It was told to lead before the other was called, so it led when the other's key was put, which was no earlier.
                return Life(grant.revision, life.end) if grant.election and other.ret < grant.call and grant.revision > life.first else None
        return None

    def _shown_before(self, time: int) -> int:
        """The highest revision that anybody had been shown before `time` (ns)."""
        at = bisect_left(self._shown_at, time)
        return self._sights[at - 1].revision if at else 0

    def _last_life(self, grant: Grant) -> Life | None:
        lives = [life for life in self.lives.get(grant.key, ()) if life.first <= grant.revision]
        return lives[-1] if lives else None


def _end(held: tuple[int, Grant]) -> int:
    return held[0]


def _lives(order: Order, last: int, keys: set[bytes]) -> dict[bytes, list[Life]]:
    lives: dict[bytes, list[Life]] = defaultdict(list)
    began: dict[bytes, int] = {}
    for revision in range(order.first, last + 1):
        for event in order.events.get(revision, ()):
            key = event.kv.key
            if key not in keys:
                continue
            if event.type == PUT:
                began.setdefault(key, revision)
            elif (first := began.pop(key, revision)) < revision:
                lives[key].append(Life(first, revision))
    for key, first in began.items():
        lives[key].append(Life(first, NEVER))
    return lives


# ---- by answers alone ----


def _together(case: Case, locks: Iterable[Sequence[Grant]]) -> Iterator[tuple[Grant, Grant, int]]:
    """(who held, who was granted the same meanwhile, until when (ns) the former held at least)."""
    history = case.history
    if history.order != "real-time" or case.options.writers != "exclusive":
        return
    several = [grants for grants in locks if len({grant.key for grant in grants}) > 1]
    if not several:
        return
    leases, once, deletions = collect(history), _granted_once(history), _Deletions(history)
    for grants in several:
        # In order of call: who may hold it no longer when one is called does not when a later one is.
        holding: list[tuple[Grant, int]] = []
        for grant in grants:
            holding = [(holder, end) for holder, end in holding if end > grant.call]
            for holder, end in holding:
                if holder.key != grant.key and holder.ret < grant.call and grant.ret < end:
                    if alive(leases, holder.lease, grant.ret) is not None and not timing_waived(case, grant.ret):
                        yield holder, grant, end
                        break
            if grant.lease in once:
                holding.append((grant, min(_lease_ends(grant, leases), deletions.may_take(grant))))


def _granted_once(history: History) -> set[int]:
    """The leases with one life: granted, and nobody can have granted one of that number again."""
    ids: dict[int, list[bool]] = defaultdict(list)
    for op in history.of(LeaseGrantRequest):
        if op.outcome != FAILED:
            ids[op.output.id if op.outcome == OK else op.input.id].append(op.outcome == OK)
    return {lease for lease, grants in ids.items() if grants == [True]}


def _lease_ends(grant: Grant, leases: Leases) -> int:
    """The earliest time (ns) at which its lease may be over, if it is not revoked."""
    return max((each.call + each.ttl * NS for each in leases.renewals.get(grant.lease, ())), default=0)


class _Deletions:
    """Requests to delete keys, in order of call."""

    def __init__(self, history: History) -> None:
        self.of_key: dict[bytes, list[Operation]] = defaultdict(list)
        self.of_range: list[tuple[DeleteRangeRequest, Operation]] = []
        for op in history.of(DeleteRangeRequest, TxnRequest):
            for delete in deletes(op.input):
                if delete.range_end:
                    self.of_range.append((delete, op))
                else:
                    self.of_key[delete.key].append(op)

    def may_take(self, grant: Grant) -> int:
        """When (ns) the first was called that may delete the key of `grant` while it is held; NEVER where none was."""
        asked = [*self.of_key.get(grant.key, ()), *(op for delete, op in self.of_range if within(grant.key, delete.key, delete.range_end))]
        # What had been answered before the call took nothing of what was there at its end.
        return min((op.call for op in asked if op.outcome != OK or op.ret is None or op.ret >= grant.call), default=NEVER)


# ---- the findings ----


def _upper(broken: Broken) -> int:
    return broken.grant.revision if broken.life is None else max(broken.grant.revision, broken.life.first)


def _by_revisions(case: Case, broken: Broken) -> Finding:
    grant, life, holder, shared = broken
    what, told = _what(grant), telling.text(grant.key)
    exhibits = [telling.exhibit(holder.operation)] if holder is not None else []
    if holder is not None and shared:
        code, summary = (
            "LOCK-TWO-HOLDERS",
            f"{what} was given to operation {grant.operation.id} while operation {holder.operation.id} held it",
        )
    else:
        code, summary = "LOCK-WITHOUT-KEY", f"{what} was given to operation {grant.operation.id}, whose key was gone"
        if life is None:
            summary = f"{what} was given to operation {grant.operation.id}, whose key was never there"
    if life is None:
        story = f"Its key {told} was put at no revision up to {grant.revision}, that of the answer."
    else:
        story = f"Its key {told} was there from revision {life.first}" + (f" to {life.end - 1}" if life.end != NEVER else " on")
        story += ", before its call." if holder is None else f", and until then operation {holder.operation.id} held it."
        if shared and holder is not None:
            story = f"At revision {grant.revision}, that of the answer, the key of operation {holder.operation.id} was there too."
        elif life.end != NEVER:
            exhibits.append(_deletion(case, life.end, told))
    return Finding(
        code=code,
        summary=summary,
        explanation=f"Whoever holds {what} has a key that is there as long as he holds it, and nobody else has it then. {story} There is "
        "no moment of the call at which that was so.",
        certificate=(*exhibits, telling.exhibit(grant.operation)),
        subject=_subject(grant, holder),
        shape=("campaign" if grant.election else "lock", "holder" if holder is not None else "alone"),
    )


def _deletion(case: Case, revision: int, key: str) -> Exhibit:
    """Who showed the deletion of `key` first."""
    seen = watched(case).seen.get(revision)
    if seen is None:
        return Exhibit(f"revision {revision} deleted {key}")
    time, stream = seen
    return Exhibit(f"stream {stream} delivered revision {revision}: delete {key}", stream=stream, start=time, end=time)


def _by_answers(holder: Grant, grant: Grant, until: int) -> Finding:
    what = _what(grant)
    left_ms = (until - grant.ret) // 1_000_000
    return Finding(
        code="LOCK-TWO-HOLDERS",
        summary=f"{what} was given to operation {grant.operation.id} while operation {holder.operation.id} held it",
        explanation=f"Operation {holder.operation.id} had been told that it holds {what} when operation {grant.operation.id} was called. "
        f"For {left_ms} ms after the answer to that its lease {holder.lease:x} was still to live, and until then nobody asked for anything "
        f"that deletes its key {telling.text(holder.key)}. So it held {what} all the time, and nobody else can have got it.",
        certificate=(telling.exhibit(holder.operation), telling.exhibit(grant.operation)),
        subject=_subject(grant, holder),
        shape=("campaign" if grant.election else "lock", "answers"),
    )


def _what(grant: Grant) -> str:
    return f"the {'election' if grant.election else 'lock'} {telling.text(grant.name)}"


def _subject(grant: Grant, holder: Grant | None) -> dict[str, object]:
    operations = [grant.operation.id] if holder is None else [holder.operation.id, grant.operation.id]
    name = grant.name.decode(errors="backslashreplace")
    key = grant.key.decode(errors="backslashreplace")
    return {"lock": name, "key": key, "operations": operations, "member": grant.operation.member, "lease": grant.lease}
