"""What a plan asks of the mechanisms that act at points of etcd's program: which points, what is reached, how long it holds.

**Long holds.** A held thread keeps its share of Go's scheduler. So there has to be another share (GOMAXPROCS), and a garbage collection,
which first stops all threads, would stand still with it until the release. Where the plan holds a thread for longer than `LONG_HOLD_MS`,
members get an environment in which none is due: no collection below a limit of memory, or, before Go 1.19 knew such a limit, a rare one.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Final

from pekan.etcd.binaries.binary import Binary
from pekan.faults.triggers import points_of

if TYPE_CHECKING:
    from pekan.etcd.spec import EtcdBinary
    from pekan.plan import Fault, Plan

KIND: Final = "failpoint"
HOOK: Final = "hook"
ANY: Final = "any"
"""Of mechanisms: the first that can be at the point, in their order."""
REACHED: Final = "reached"
"""The point of a fault that wants any function that the run has reached."""

LONG_HOLD_MS: Final = 250
"""Two collections a second are usual under load; a hold of this length meets one more often than not."""
PROCESSORS_MIN: Final = 4
"""One share of Go's scheduler for a held thread, one for another one, and two to go on with."""
GO_WITH_LIMIT: Final = (1, 19)
MEMORY_LIMIT: Final = "1GiB"
RARE_COLLECTION: Final = "1000"
"""In percent: at ten times what is alive, some hundred MB for a member of a hunt. Without a limit, none at all would be too much."""


def points_of_faults(plan: Plan, mechanisms: Collection[str]) -> Iterable[str]:
    """The points of faults that may use one of `mechanisms`."""
    for fault in plan.schedule.faults:
        if fault.kind == KIND and fault.parameters.get("mechanism", ANY) in mechanisms:
            yield str(fault.parameters.get("point", REACHED))


def points_by(plan: Plan) -> dict[str, tuple[str, ...]]:
    """By mechanism as faults ask for it, the points that they name."""
    asked = {str(fault.parameters.get("mechanism", ANY)) for fault in plan.schedule.faults if fault.kind == KIND}
    return {each: tuple(point for point in points_of_faults(plan, (each,)) if not is_reached(point)) for each in sorted(asked)}


def is_reached(point: str) -> bool:
    """Whether that is no point but the wish for one that is reached."""
    return point == REACHED or point.startswith(f"{REACHED}:")


def names_of(plan: Plan) -> tuple[str, ...]:
    """The points for hooks that the faults and triggers of `plan` name, each once."""
    return tuple(
        dict.fromkeys((*(point for point in points_of_faults(plan, (ANY, HOOK)) if not is_reached(point)), *points_of(plan.schedule)))
    )


def wants_reached(plan: Plan) -> bool:
    """Whether a fault of `plan` wants what is reached."""
    return any(is_reached(point) for point in points_of_faults(plan, (ANY, HOOK)))


def holds(fault: Fault) -> bool:
    """Whether that fault holds a thread at its point."""
    return fault.kind == KIND and "hold" in str(fault.parameters.get("action", "hold"))


def _holds_long(plan: Plan) -> bool:
    return any(holds(fault) and int(fault.parameters.get("hold_ms", 0)) > LONG_HOLD_MS for fault in plan.schedule.faults)


def for_long_holds(plan: Plan, binary: EtcdBinary) -> dict[str, str]:
    """The environment in which a thread can be held for as long as `plan` wants; empty where it holds none for long."""
    if not _holds_long(plan):
        return {}
    version = binary.go_version if isinstance(binary, Binary) else ""
    number = tuple(int(part) for part in version.removeprefix("go").split(".")[:2] if part.isdecimal())
    environment = {"GOMAXPROCS": str(max(PROCESSORS_MIN, os.cpu_count() or 1))}
    if number >= GO_WITH_LIMIT:
        return {**environment, "GOGC": "off", "GOMEMLIMIT": MEMORY_LIMIT}
    return {**environment, "GOGC": RARE_COLLECTION}
