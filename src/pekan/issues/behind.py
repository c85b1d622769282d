"""How a follower comes so far behind that only a snapshot of the whole database helps: what several issues begin with.

::

    leader     entries 1 ............................. 5300        kept: the newest of them, all else is in the snapshot
    follower   entries 1 .. 40 ── cut off ──                       its next entry is not kept any more: it is sent the database

A leader takes a snapshot every `--snapshot-count` entries and then keeps the newest `--snapshot-catchup-entries` for followers that are
slow. That second number can be set from 3.5.14 on; before, it is 5,000.
"""

from __future__ import annotations

from pekan.issues.issue import numbered
from pekan.plan import Step, Trigger

KEPT_BEFORE = 5_000
"""Entries that leaders keep where nobody can choose (DefaultSnapshotCatchUpEntries)."""
CLIENTS = 64
"""So that many writes share one sync of the log."""


def _can_choose(version: str) -> bool:
    return numbered(version) >= (3, 5, 14)


def flags(version: str, every: int = 10) -> tuple[tuple[str, str], ...]:
    """Flags of members by which a follower is soon left behind; where it can be chosen, by a snapshot after `every` entries."""
    if _can_choose(version):
        return (("snapshot-count", str(every)), ("snapshot-catchup-entries", "5"))
    return (("snapshot-count", "100"),)


def leave_behind(version: str, name: str, wait: Trigger | None = None, member: str = "", key: str = "busy-{client}") -> Step:
    """So many writes, each an entry, that whoever misses them needs a snapshot. The step is called `name`."""
    each = (120 if _can_choose(version) else KEPT_BEFORE + 400) // CLIENTS + 1
    return Step("Put", {"key": key, "value": "{n}"}, name=name, member=member, clients=CLIENTS, times=each, wait=wait, answer="ok")
