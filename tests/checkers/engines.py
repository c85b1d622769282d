"""One history under both engines: what Python's objects say of it, and what the native core says of its record.

::

    Case ──> recorded(case) ──> the same case twice: in memory, and held by the core (its record written, loaded, its order handed over)
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pekan import native
from pekan.checkers.case import Case, Fork, Order
from pekan.checkers.evidence import watched
from pekan.checkers.native.evidence import PROVEN, Shown, difference, shown
from pekan.checkers.native.watch import check_watch as check_watch_natively
from pekan.checkers.watch import check_watch
from pekan.history.reading import load
from pekan.verdict import CheckerReport
from pekan.wire.messages import Decoder, Event, encode
from simulator.recording import recordable, write_history


def recorded(case: Case, directory: Path) -> tuple[Case, Case] | None:
    """`case` in memory, and as the core holds it; None for a history that no recorder can have written.

    Operations and streams get new numbers, as a recorder would have given them.
    """
    history = case.history
    renumbered = recordable(history)
    if renumbered is None:
        return None
    first = len(renumbered.operations) - len(history.operations) + 1
    numbers = {op.id: number for number, op in enumerate(sorted(history.operations, key=lambda op: op.call), first)}
    path = directory / "history.pb"
    path.unlink(missing_ok=True)
    write_history(renumbered, path)
    held = load(path)
    assert held.session is not None, held.declined
    held = replace(held, start=history.start, order=history.order, plan=history.plan, faults=renumbered.faults, marks=renumbered.marks)
    order = case.order
    if order is not None:
        written_by = {revision: numbers[id_] for revision, id_ in order.written_by.items() if id_ in numbers}
        order = Order(order.first, order.last, order.events, order.unknown, written_by)
    there = replace(case, history=renumbered, order=order, shared=dict(case.shared))
    core = replace(case, history=held, order=None, shared=dict(case.shared))
    if order is not None:
        core.shared[PROVEN] = core_order(core, order)
    return there, core


def core_order(case: Case, order: Order) -> Any:
    """`order` as the core has it; its operations are numbered from 1 in order of call."""
    events = [(revision, [encode(event) for event in made]) for revision, made in sorted(order.events.items())]
    written_by = [(revision, number - 1) for revision, number in order.written_by.items()]
    return native.core.Order(shown(case), order.first, order.last, events, sorted(order.unknown), written_by)


def said(report: CheckerReport) -> tuple[Any, ...]:
    """Everything that a report says but how long it took."""
    return report.name, report.applicable, report.judged, [repr(finding) for finding in report.findings], report.undecided


def check_watch_twice(case: Case) -> CheckerReport:
    """The reference's report on `case`. Where the core is there, it has to say the same of the record of it, and to find the same fork."""
    if native.core is not None:
        with TemporaryDirectory() as directory:
            twice = recorded(copied(case), Path(directory))
            if twice is not None:
                there, core = twice
                assert said(check_watch_natively(core)) == said(check_watch(there))
                assert core.fork == there.fork
    return check_watch(case)


def copied(case: Case) -> Case:
    """A case to be judged apart from `case`."""
    shared = {key: value for key, value in case.shared.items() if isinstance(value, Fork)}
    return Case(case.history, case.options, case.order, case.fork, shared)


def evidence_twice(there: Case, core: Case) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the watches of a case show, merged: by the reference, and by the core."""
    known, merged = watched(there), shown(core)
    low, high = merged.bounds()
    revisions = sorted({*known.events, *range(low, high + 1)})
    held = Shown(merged, Decoder())
    members = sorted(known.by_member)
    reference = {
        "events": {revision: known.events.get(revision) for revision in revisions},
        "whole": sorted(known.whole),
        "seen": {revision: known.seen.get(revision) for revision in revisions},
        "differing": sorted(known.differing),
        "told": {(member, revision): changes(known.by_member[member].get(revision)) for member in members for revision in revisions},
        "difference": known.difference,
    }
    native_ = {
        "events": {revision: held.events.get(revision) for revision in revisions},
        "whole": [revision for revision in revisions if merged.is_whole(revision)],
        "seen": {revision: held.seen.get(revision) for revision in revisions},
        "differing": [revision for revision in revisions if revision in held.differing],
        "told": {(member, revision): changes(held.by_member[member].get(revision)) for member in members for revision in revisions},
        "difference": difference(core),
    }
    return reference, native_


def changes(events: tuple[Event, ...] | None) -> tuple[Any, ...] | None:
    """Events without what was there before: of a member's telling the core keeps the change only."""
    return None if events is None else tuple(event[:2] for event in events)
