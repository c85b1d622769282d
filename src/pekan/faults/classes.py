"""Classes of faults, and which kinds of a class can be injected here.

======================  ===================================================================================
`day` `week` `year`     how often a cluster meets them; what leaves etcd's promises standing
`all`                   every fault inside etcd's promises: `within`, `liveness`, `lease-time`
`century` `outside`     what etcd promises nothing under: storage that lies or is altered, corrupted bytes
`none`                  no fault
KIND                    that one kind, by its own name
======================  ===================================================================================

What a machine can do is found by doing it (`Injector.probe`, `Equipment.probe`), once in a process: a kernel does not change its mind while
a hunt goes on, and a series of hunts should not pay for it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache

from pekan.errors import UsageError
from pekan.faults.ability import Ability, able, unable
from pekan.faults.equipment import probed
from pekan.faults.injector import Injector
from pekan.faults.registry import EQUIPMENT, INJECTORS, needs_of
from pekan.plan import Fault

CLASSES = ("day", "week", "year", "century", "all", "outside", "none")
"""What `--faults` takes besides the names of kinds."""
OUTSIDE = "outside"


def class_of(injector: Injector) -> str:
    """Under which class a fault of this kind is counted: how often it is met, or `outside` etcd's promises."""
    return OUTSIDE if injector.promise == OUTSIDE else injector.frequency


def kinds_of(names: Iterable[str], injectors: Mapping[str, Injector] = INJECTORS) -> tuple[str, ...]:
    """The kinds in the classes (or of the kinds) `names`, each once, in the registry's order. Raises `UsageError` for an unknown name."""
    wanted: set[str] = set()
    for name in names:
        if name not in CLASSES and name not in injectors:
            raise UsageError(f"no fault and no class of faults is called {name!r}; there are {', '.join((*CLASSES, *injectors))}")
        wanted.update(kind for kind, injector in injectors.items() if _belongs(injector, name))
    return tuple(kind for kind in injectors if kind in wanted)


def _belongs(injector: Injector, name: str) -> bool:
    if name in ("century", OUTSIDE):
        return injector.promise == OUTSIDE
    if name in ("all", "day", "week", "year"):
        return injector.promise != OUTSIDE and name in ("all", injector.frequency)
    return name == injector.kind


def equipment_ability(name: str) -> Ability:
    """Whether that equipment can be put around members here."""
    return probed(EQUIPMENT[name])


def probe(names: Iterable[str]) -> None:
    """Probe all of that equipment at once, so that whoever asks has the answer: most of a probe is waiting for processes of its own."""
    wanted = tuple(dict.fromkeys(names))
    with ThreadPoolExecutor(max(1, len(wanted)), "probe") as threads:
        tuple(threads.map(equipment_ability, wanted))


@cache
def ability_of(kind: str) -> Ability:
    """Whether a fault of `kind` can be injected here, its equipment included. Where it cannot be drawn, `detail` is what can be had by
    name all the same."""
    found = INJECTORS[kind].probe()
    for name in INJECTORS[kind].needs if found.possible else ():
        needed = equipment_ability(name)
        if not needed.possible:
            missing = unable(kind, f"it needs {name}: {needed.why_not}", needed.remedy)
            return replace(missing, detail=INJECTORS[kind].without_equipment())
    return able(kind, found.detail) if found.possible else found


def fault_ability(fault: Fault) -> Ability:
    """Whether exactly that fault can be injected here, what its trigger needs included."""
    found = INJECTORS[fault.kind].probe()
    if not found.possible:
        return found
    for names, what in ((INJECTORS[fault.kind].needs_for(fault.parameters), "it"), (sorted(needs_of(fault)), "its trigger")):
        for name in names:
            needed = equipment_ability(name)
            if not needed.possible:
                return unable(fault.kind, f"{what} needs {name}: {needed.why_not}", needed.remedy)
    return able(fault.kind, found.detail)


def left_out(names: Iterable[str]) -> tuple[Ability, ...]:
    """Of the kinds in the classes `names`, those that cannot be injected here, and why."""
    return tuple(found for found in map(ability_of, kinds_of(names)) if not found.possible)
