"""What a plan may leave out of its traffic (`Plan.without`): every kind of choice, by workload and companion.

A client draws its n-th choice all the same and does not send it, so that all other choices stay what they are, and come when they came:
where a rate is asked for, what is left out takes its share of it.
"""

from __future__ import annotations

from pekan.errors import UsageError
from pekan.plan import Plan
from pekan.workloads import auth, deviations, kubernetes, kv, maintenance, watching

COMPANIONS = ("watching", "maintenance", "deviations")
KINDS: dict[str, tuple[str, ...]] = {
    "kv": kv.KINDS,
    "kubernetes": kubernetes.KINDS,
    "auth": auth.KINDS,
    "watching": watching.ALL_KINDS,
    "maintenance": tuple(maintenance.KINDS),
    "deviations": deviations.KINDS,
}
"""A script is not among them: it has no choices, and what it leaves out is not written."""


def kinds_of(plan: Plan) -> dict[str, tuple[str, ...]]:
    """What the traffic of `plan` would draw from if nothing were left out: its workloads, and what runs beside them."""
    names = [name for name in plan.workloads if name in KINDS]
    return {name: KINDS[name] for name in (*names, *(COMPANIONS if names else ()))}


def left_in(plan: Plan) -> dict[str, tuple[str, ...]]:
    """What the traffic of `plan` sends: `kinds_of` without what is left out.

    Raises UsageError for a name that says nothing here, and where nothing is left.
    """
    known = kinds_of(plan)
    for text in plan.without:
        name, colon, kind = text.partition(":")
        if name not in known:
            raise UsageError(f"plan.without {text!r}: this plan draws from {', '.join(known) or 'nothing'}")
        if colon and kind not in known[name]:
            raise UsageError(f"plan.without {text!r}: {name} draws from {', '.join(known[name])}")
    left = {name: tuple(kind for kind in kinds if f"{name}:{kind}" not in plan.without) for name, kinds in known.items()}
    sent = {name: kinds for name, kinds in left.items() if kinds and name not in plan.without}
    if known and not sent:
        raise UsageError("plan.without: leaves out everything; a run needs some traffic")
    return sent
