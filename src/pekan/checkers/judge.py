"""All checkers over one history, one verdict.

::

    kv ──> members ──> watch ──> leases, locks ──> auth ──> images, snapshots ──> run      a history of etcd
     │        │                                             each gives findings and reasons to be undecided
     └ order ─┴ fork                                        causes: excused (an `outside` fault), allowed (the user said so)
    objects                                                 a history of calls on objects

The order matters: the key-value checker replays the history that the others judge against, and the first proven divergence (`Case.fork`)
tells the later ones what it explains.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from pekan import native
from pekan.catalogue import allowed
from pekan.checkers.auth import check_auth
from pekan.checkers.case import Case, Checker, Options
from pekan.checkers.causes import excuse
from pekan.checkers.images import check_images
from pekan.checkers.kv import check_kv
from pekan.checkers.leases import check_leases
from pekan.checkers.locks import check_locks
from pekan.checkers.members import check_members
from pekan.checkers.native import kv as native_kv
from pekan.checkers.native import watch as native_watch
from pekan.checkers.noticed import noticed
from pekan.checkers.objects import check_generic, check_objects, of_objects
from pekan.checkers.run import check_run
from pekan.checkers.services import with_requests
from pekan.checkers.snapshots import check_snapshots
from pekan.checkers.watch import check_watch
from pekan.history.memory import too_large
from pekan.history.recorded import in_memory
from pekan.history.run import RunDirectory
from pekan.history.types import History
from pekan.verdict import CheckerReport, Finding, Status, Undecided, Verdict, group

CHECKERS: tuple[Checker, ...] = (
    check_kv,
    check_members,
    check_watch,
    check_leases,
    check_locks,
    check_auth,
    check_images,
    check_snapshots,
    check_run,
)
OBJECT_CHECKERS: tuple[Checker, ...] = (check_objects,)
"""Of a history of calls on objects; they choose between native and reference themselves."""
SECOND_OPINION: tuple[Checker, ...] = (check_generic,)
"""Of a history of etcd under `--engine generic`."""

NATIVE: tuple[Checker, ...] = (
    native_kv.check_kv,
    check_members,
    native_watch.check_watch,
    check_leases,
    check_locks,
    check_auth,
    check_images,
    check_snapshots,
    check_run,
)
"""As CHECKERS, of a history that the native core holds."""

_RANK: dict[Status, int] = {"counts": 0, "follows": 1, "excused": 2, "allowed": 3}


def judge(history: History, options: Options, engine: str = "auto") -> Verdict:
    """The verdict over `history`. Raises UsageError where `options.allow` names no code.

    The native checkers judge what the core holds, unless `engine` is "reference"; where one of them declines, all of it is judged by the
    reference, and under "native" a note says why.
    """
    allow = allowed(options.allow)
    began = time.perf_counter()
    try:
        with _without_collector():
            case, reports, declined = _judged(history, options, engine, began)
    except _TooLarge as reason:
        remedy = "a machine with more memory" + (", or the native core, which takes less" if native.core is None else "")
        undecided = (Undecided(str(reason), remedy),)
        return Verdict((), undecided, history.order, len(history.operations), time.perf_counter() - began, engine="none")
    findings = [finding for report in reports for finding in report.findings]
    findings = [_allow(finding, allow) for finding in excuse(case, findings)]
    notes: list[str] = list(case.history.notes)
    if history.cut:
        notes.append(f"the history file ends in mid-record; its last {history.cut} bytes were dropped")
    if declined and engine == "native":
        notes.append(f"judged by the reference, since the native engine did not take it: {declined}")
    if engine == "generic" and not of_objects(history, options.model):
        notes.append("only key-value operations were judged: the generic engine knows nothing of watches, members and auth")
    engines = dict.fromkeys(report.engine for report in reports if report.engine)
    return Verdict(
        findings=tuple(sorted(group(findings), key=lambda f: _RANK[f.status])),
        undecided=tuple(reason for report in reports for reason in report.undecided),
        order=history.order,
        operations=len(history.operations),
        seconds=time.perf_counter() - began,
        engine=", ".join(engines) or ("reference" if declined else "native"),
        checkers=reports,
        notes=tuple(notes),
        outside=noticed(history),
    )


def _judged(history: History, options: Options, engine: str, began: float) -> tuple[Case, tuple[CheckerReport, ...], str]:
    """What was established, the reports, and why the native engine did not judge (empty where it did)."""
    if history.too_large:
        raise _TooLarge(history.too_large)
    if of_objects(history, options.model):
        case = Case(history, options)
        return case, tuple(_timed(checker, case, began) for checker in OBJECT_CHECKERS), ""
    if engine == "generic":
        case = _case(_in_memory(history), options)
        return case, tuple(_timed(checker, case, began) for checker in SECOND_OPINION), ""
    if engine == "reference":
        declined = "the reference was asked for"
    elif history.session is None:
        declined = history.declined or "the history is not in a record file"
    else:
        try:
            case = Case(history, options)
            return case, tuple(_timed(checker, case, began) for checker in NATIVE), ""
        except native.core.Declined as reason:
            declined = str(reason)
    case = _case(_in_memory(history), options)
    return case, tuple(_timed(checker, case, began) for checker in CHECKERS), declined


def _case(history: History, options: Options) -> Case:
    """The case of a history in memory, with what members wrote on behalf of their callers. The native core leaves all such to us."""
    served = with_requests(history)
    if served.unknown is None:
        return Case(served.history, options)
    # Its writes are like those of somebody who is not in the record.
    op = served.unknown
    note = f"operation {op.id} may have written a key whose name nobody was told: judged as with --writers shared"
    return Case(replace(served.history, notes=(*history.notes, note)), replace(options, writers="shared"))


class _TooLarge(Exception):
    """There is not the memory to judge."""


def _in_memory(history: History) -> History:
    if history.session is None:
        return history
    if history.path is not None:
        files = RunDirectory(history.path).history_paths() if history.path.is_dir() else (history.path,)
        if why := too_large(files, "reference"):
            raise _TooLarge(why)
    return in_memory(history)


@contextmanager
def _without_collector() -> Iterator[None]:
    """No cyclic garbage collection meanwhile: it would walk a million recorded values again and again, and none is garbage."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _timed(checker: Checker, case: Case, judging_began: float) -> CheckerReport:
    began = time.perf_counter()
    budget_s = case.options.budget_s
    if budget_s is not None and began - judging_began > budget_s:
        # Searches keep their own share of the budget; this is for a history that is too long for what is left.
        name = checker.__name__.removeprefix("check_")
        reason = Undecided(f"{name} was not judged: the {budget_s:g} s given to judging were used up", "a larger --budget", name)
        return CheckerReport(name, applicable=False, undecided=(reason,))
    report = checker(case)
    return replace(report, seconds=round(time.perf_counter() - began, 6))


def _allow(finding: Finding, allow: tuple[str, ...]) -> Finding:
    if finding.code in allow and finding.status == "counts":
        return replace(finding, status="allowed", because=f"--allow {finding.code}")
    return finding
