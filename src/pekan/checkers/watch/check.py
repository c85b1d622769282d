"""The checker: every watch of a history, and what watches of different members say of each other."""

from __future__ import annotations

from pekan.checkers import telling
from pekan.checkers.case import Case, Fork
from pekan.checkers.evidence import Difference, Told, Watch, first_difference, leaving, watched, watches
from pekan.checkers.watch.truth import Truth
from pekan.checkers.watch.walk import passing, walk
from pekan.history.types import OK
from pekan.verdict import CheckerReport, Exhibit, Finding, Undecided, group

NAME = "watch"


def check_watch(case: Case) -> CheckerReport:
    """Judge every watch of `case` by the rules of the package. Reads `case.order` and `case.fork`; sets `case.fork` where it finds one."""
    all_watches = watches(case)
    if not all_watches:
        return CheckerReport(NAME, applicable=False)
    findings: list[Finding] = []
    difference = first_difference(watched(case))
    if difference is not None and case.fork is None:
        findings.append(diverged(difference))
        case.fork = fork_of(difference, findings[0])
    truth = Truth(case, case.fork.revision if case.fork is not None else None)
    events = progress = 0
    skip = passing(truth)
    for watch in all_watches:
        seen = walk(watch, truth, skip)
        events += seen.events
        progress += seen.progress
        findings.extend(seen.broken)
    opened = sum(1 for watch in all_watches if watch.created is not None and not watch.refused)
    judged = {"watches": opened, "events": events, "progress": progress, "proven revisions": len(truth.proven)}
    return CheckerReport(NAME, True, judged, group(findings), tuple(_silent(truth, all_watches)))


def fork_of(difference: Difference, root: Finding) -> Fork:
    """Where members' histories part by `difference`, which is the finding `root`."""
    time = max(difference.first.time, difference.second.time)
    return Fork(difference.revision, root.code, root.summary, root.certificate, difference.groups, time)


def diverged(difference: Difference) -> Finding:
    """The finding that `difference` is."""
    first, second = difference.first, difference.second
    same = first.member == second.member
    if same:
        summary = f"member {first.member} told two stories of revision {difference.revision}"
    else:
        summary = f"members {first.member} and {second.member} tell different stories of revision {difference.revision}"
    sides = "; ".join(", ".join(members) or "?" for members in difference.groups)
    return Finding(
        "MEMBER-DIVERGED",
        summary,
        f"Both streams watch the whole keyspace and delivered revision {difference.revision} complete, and the events differ. A revision "
        f"is made once, by one request, for every member. On each side: {sides}.",
        (_told(difference.revision, first), _told(difference.revision, second)),
        {"revision": difference.revision, "member": second.member, "members": [first.member, second.member]},
        ("watch", "watch", "same member" if same else "members"),
    )


def _told(revision: int, told: Told) -> Exhibit:
    what = f"watch {told.watch_id} delivered revision {revision}: {telling.events(told.events)}"
    return Exhibit(what, stream=told.stream, member=told.member, start=told.time, end=told.time)


def _silent(truth: Truth, all_watches: tuple[Watch, ...]) -> list[Undecided]:
    """Members whose watches of everything received nothing of what was written while they were connected: watched in name only.

    Not those that were removed: some were there for a moment only, and a removed one hears of nothing any more. The checker of the run
    itself says so of them, where they had time.
    """
    order = truth.case.order
    if order is None or not truth.real_time:
        return []
    gone = leaving(truth.case.history)
    by_member: dict[str, list[Watch]] = {}
    for watch in all_watches:
        if watch.whole and watch.created is not None and not watch.refused and watch.member not in gone:
            by_member.setdefault(watch.member, []).append(watch)
    silent = [member for member, mine in by_member.items() if not any(item.message.events for watch in mine for item in watch.messages)]
    if not silent:
        return []
    written = [
        (revision, op.call, op.ret)
        for revision in order.written_by
        if (op := truth.writer(revision)) is not None and op.outcome == OK and op.ret is not None
    ]
    reasons = []
    for member in silent:
        missed = max(_due_while_connected(watch, written) for watch in by_member[member])
        if missed:
            reasons.append(silence(member, missed))
    return reasons


def silence(member: str, missed: int) -> Undecided:
    """Why watches of `member` that received none of `missed` revisions decide nothing."""
    return Undecided(
        f"the watches of {member} received none of the {missed} revisions written while they were connected",
        "a longer run, or a look at why that member did not follow (its lag is no fault by itself)",
        NAME,
    )


def _due_while_connected(watch: Watch, written: list[tuple[int, int, int]]) -> int:
    assert watch.created is not None
    begin, end = watch.created.time, watch.canceled.time if watch.canceled is not None else watch.ended
    start = watch.request.start_revision
    return sum(1 for revision, call, ret in written if revision >= start and call >= begin and (end is None or ret <= end))
