"""Traffic against a cluster: one file a workload, weights as data at its top.

::

    kv           every request of the key-value and lease API          ┐
    kubernetes   the eleven shapes that an API server sends            ├ WORKLOADS: a plan names them
    auth         users, roles, permissions; allowed and denied         │
    script       what the plan spells out, step by step                ┘
    watching     watchers on every member                              ┐
    maintenance  compaction and defragmentation                        ├ COMPANIONS: run beside every workload but a script alone
    deviations   what etcd is known to answer wrongly, late in a run   ┘

A workload never chooses its judge, and knows nothing of faults.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pekan.errors import UsageError
from pekan.plan import Plan
from pekan.workloads.auth import Auth
from pekan.workloads.deviations import Deviations
from pekan.workloads.kinds import KINDS, kinds_of, left_in
from pekan.workloads.kubernetes import Kubernetes
from pekan.workloads.kv import Kv
from pekan.workloads.maintenance import Maintenance
from pekan.workloads.script import Script
from pekan.workloads.script import check as check_script
from pekan.workloads.traffic import Traffic, Workload
from pekan.workloads.watching import Watching

WORKLOADS: dict[str, Callable[[], Workload]] = {"kv": Kv, "kubernetes": Kubernetes, "auth": Auth, Script.name: Script}
DRAWN = tuple(name for name in WORKLOADS if name != Script.name)
"""Workloads whose traffic the seed draws."""
COMPANIONS: tuple[Callable[[], Workload], ...] = (Watching, Maintenance, Deviations)

FLAGS: dict[str, dict[str, str]] = {"auth": {"bcrypt-cost": "4"}}
"""Flags of etcd, by their newest names, that a workload is better served with. A login costs a member 60 ms of processor by default; after
a restart some twenty clients log in again at once, and nothing else gets a turn. 4 is the least that etcd takes."""


def flags_of(names: Sequence[str]) -> dict[str, str]:
    """The flags that the workloads called `names` want; whoever starts the cluster lets the user's own ones go before."""
    return {flag: value for name in names for flag, value in FLAGS.get(name, {}).items()}


def companions_of(names: Sequence[str]) -> list[Workload]:
    """What runs beside the workloads called `names`: nothing beside a script alone, which says everything itself."""
    return [make() for make in COMPANIONS] if any(name in DRAWN for name in names) else []


def works_of(plan: Plan) -> list[Workload]:
    """All traffic of `plan`: its workloads and what runs beside them, without those that it leaves out altogether."""
    sent = left_in(plan)
    works = [workload(name) for name in plan.workloads] + companions_of(plan.workloads)
    return [work for work in works if work.name in sent or work.name not in KINDS]


def workload(name: str) -> Workload:
    """The workload called `name`, made anew. Raises `UsageError` naming those that exist."""
    make = WORKLOADS.get(name)
    if make is None:
        raise UsageError(f"no workload is called {name!r}; there are {', '.join(WORKLOADS)}")
    return make()


__all__ = [
    "COMPANIONS",
    "DRAWN",
    "FLAGS",
    "KINDS",
    "WORKLOADS",
    "Traffic",
    "Workload",
    "check_script",
    "companions_of",
    "flags_of",
    "kinds_of",
    "left_in",
    "workload",
    "works_of",
]
