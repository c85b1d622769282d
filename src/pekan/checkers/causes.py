"""Cause and consequence: which findings do not count because something else explains them.

::

    first divergence (Case.fork) ── everything from its revision on ──> follows
    a fault that is `outside`    ── everything seen after it fired ───> excused
    a fault that is `lease-time` ── early expiries after it was armed ─> not a finding at all (`timing_waived`)
    within, liveness             ── explain nothing: safety stands ───> counts

Source of the promises: what each fault declares when it is armed (`FaultSpan.promise`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from pekan.checkers.case import Case
from pekan.history.types import FaultSpan
from pekan.verdict import Exhibit, Finding

OUTSIDE = "outside"
"""Lost or altered stable storage, corrupted bytes between members: etcd promises nothing about what it may break."""
LEASE_TIME = "lease-time"
"""Clocks skewed or jumping: everything holds but the timing of leases."""


def follows(case: Case, finding: Finding, revision: int | None = None) -> Finding:
    """`finding`, following the fork of `case` where there is one and it explains what is seen at `revision` (None: at any revision)."""
    fork = case.fork
    if fork is None or (revision is not None and revision < fork.revision):
        return finding
    return replace(finding, status="follows", because=fork.code)


def excuse(case: Case, findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """`findings`, those excused whose evidence lies after the firing of an `outside` fault, or has no time at all in such a run."""
    outside = _first(fault for fault in case.history.faults if fault.promise == OUTSIDE)
    if outside is None or outside.fired is None:
        return tuple(findings)
    because = f"{outside.kind} on {outside.target}"
    fired = outside.fired
    return tuple(
        replace(finding, status="excused", because=because) if finding.status == "counts" and _after(finding, fired) else finding
        for finding in findings
    )


def timing_waived(case: Case, before: int) -> str:
    """The fault that may have moved a clock before `before` (ns), or "" where none can have. An armed fault may have fired unseen."""
    for fault in case.history.faults:
        if fault.promise == LEASE_TIME and fault.armed < before:
            return f"{fault.kind} on {fault.target}"
    return ""


def _first(faults: Iterable[FaultSpan]) -> FaultSpan | None:
    return min((fault for fault in faults if fault.fired is not None), key=lambda fault: fault.fired or 0, default=None)


def _after(finding: Finding, fired: int) -> bool:
    latest = [time for time in map(_latest, finding.certificate) if time is not None]
    return not latest or max(latest) >= fired


def _latest(exhibit: Exhibit) -> int | None:
    return exhibit.end if exhibit.end is not None else exhibit.start
