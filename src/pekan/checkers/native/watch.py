"""The watch checker over a history that the core holds.

::

    core: Watches.judge ──> watches without fault: counted     the others, one by one: walk.Walk, which the core moves over what is right
                                                                └─ asks `CoreFacts` what the reference asks `Truth`

A watch with a fault among a million messages costs what judging the messages around the fault costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pekan import native
from pekan.checkers.case import SUSPECTED_FORK, Case
from pekan.checkers.evidence import by_revision, leaving, matches
from pekan.checkers.native.evidence import Shown, difference, event, proven, shown, watch
from pekan.checkers.watch.check import NAME, diverged, fork_of, silence
from pekan.checkers.watch.truth import compacts_itself
from pekan.checkers.watch.walk import NO_CHANGES, Skip, Walk, walk
from pekan.history.types import Operation
from pekan.verdict import CheckerReport, Finding, Undecided, group
from pekan.wire.errors import COMPACTED, FUTURE_REVISION
from pekan.wire.messages import Decoder, Event, WatchCreateRequest


def check_watch(case: Case) -> CheckerReport:
    """Judge every watch of `case`: the report of `pekan.checkers.watch.check_watch`. Raises Declined."""
    evidence = shown(case)
    if not evidence.watches:
        return CheckerReport(NAME, applicable=False)
    findings: list[Finding] = []
    found = difference(case)
    if found is not None and case.fork is None:
        findings.append(diverged(found))
        case.fork = fork_of(found, findings[0])
    options, history = case.options, case.history
    judge = native.core.Watches(
        evidence,
        proven(case),
        limit=None if case.fork is None else case.fork.revision,
        real_time=history.order == "real-time",
        exclusive=options.writers == "exclusive",
        start_empty=history.start == "empty",
        compacts_itself=compacts_itself(case),
        suspected_fork=SUSPECTED_FORK in case.shared,
        spared=[COMPACTED, FUTURE_REVISION],
    )
    opened, events, progress, faulty = judge.judge()
    decoder = Decoder()
    for index in faulty:
        seen = walk(watch(case, index), CoreFacts(case, judge, index, decoder), _passing(judge, index))
        events += seen.events
        progress += seen.progress
        findings.extend(seen.broken)
    judged = {"watches": opened, "events": events, "progress": progress, "proven revisions": judge.proven}
    return CheckerReport(NAME, True, judged, group(findings), tuple(_silent(case, judge)))


def _passing(judge: Any, index: int) -> Skip:
    """The core's skip over watch `index`."""

    def skip(walk: Walk, begin: int) -> int:
        row = judge.skip(
            index,
            begin,
            walk.at if walk.at >= 0 else None,
            walk.last,
            walk.first,
            walk.last_index if walk.last_index >= 0 else None,
            walk.promised,
            walk.promise_index if walk.promise_index >= 0 else None,
        )
        stop: int
        stop, at, walk.last, walk.first, last_index, walk.promised, promise_index, events, progress = row
        walk.at = -1 if at is None else at
        walk.promise_index = -1 if promise_index is None else promise_index
        walk.seen.events += events
        walk.seen.progress += progress
        if last_index is not None and last_index != walk.last_index:
            walk.last_index, walk.last_changes = last_index, NO_CHANGES
            walk.last_group = by_revision(walk.watch.messages[last_index].message.events)[-1][1]
        return stop

    return skip


class _Proven:
    """Revision -> its events, where they are proven."""

    def __init__(self, judge: Any) -> None:
        self._judge = judge

    def get(self, revision: int, /) -> tuple[Event, ...] | None:
        made = self._judge.made(revision)
        return None if made is None else tuple(map(event, made))


class CoreFacts:
    """What the core knows, for a walk over watch `index`: `pekan.checkers.watch.truth.Facts`."""

    def __init__(self, case: Case, judge: Any, index: int, decoder: Decoder) -> None:
        self._case = case
        self._judge = judge
        self._index = index
        self.proven = _Proven(judge)
        self.watched = Shown(shown(case), decoder)
        self.limit = float("inf") if case.fork is None else case.fork.revision
        self.newest: int = judge.newest
        self.ordered: bool = judge.ordered
        self.closed: bool = judge.closed
        self.may_be_compacted = judge.may_be_compacted
        self.compacted_at = judge.compacted_at
        self.invoked_after = judge.invoked_after
        self.first_invoked_after = judge.first_invoked_after

    def due(self, _: WatchCreateRequest, /) -> Sequence[int]:
        """The revisions that the watch has to see."""
        due: Sequence[int] = self._judge.due(self._index)
        return due

    def expected(self, request: WatchCreateRequest, revision: int, /) -> tuple[Event, ...]:
        """The events of `revision` that `request` has to see."""
        return tuple(made for made in self.proven.get(revision) or () if matches(request, made))

    def compacted_above(self, revision: int, by: int, /) -> bool:
        """True where a compaction strictly above `revision` was invoked before `by` (ns), or cannot be excluded."""
        return bool(self._judge.may_be_compacted(revision + 1, by))

    def reachable(self, time: int, /, unseen_by: WatchCreateRequest | None = None) -> int | None:
        """The highest revision that can exist at `time` (ns)."""
        highest: int | None = self._judge.reachable(time, None if unseen_by is None else self._index)
        return highest

    def writer(self, revision: int, /) -> Operation | None:
        """The operation that wrote `revision`, where known."""
        order = proven(self._case)
        index = None if order is None else order.written_by(revision)
        return None if index is None else self._case.history.operations[index]


def _silent(case: Case, judge: Any) -> list[Undecided]:
    """As in the reference: members whose watches of everything received nothing of what was written while they were connected."""
    if proven(case) is None or case.history.order != "real-time":
        return []
    gone = leaving(case.history)
    missed: dict[str, int] = {}
    for member, silent, indexes in judge.whole_by_member():
        if silent and member not in gone:
            missed[member] = max(judge.missed(index) for index in indexes)
    return [silence(member, count) for member, count in missed.items() if count]
