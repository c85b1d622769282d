"""What can be done on this machine, and what would make the rest possible.

::

    judging    which engine judges: the native core, or the reference in Python
    hunting    can a real cluster be driven here: platform, gRPC
    etcd       which releases are there without asking anybody
    left       what earlier runs, killed with their watchdogs, left behind; it is removed now
    mechanism  each thing that faults are injected with: can it be put around members here
    fault      each kind of fault: can it be injected here

Nothing is fetched.
"""

from __future__ import annotations

import importlib.util
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace

from pekan import native
from pekan.errors import PekanError
from pekan.etcd import binaries
from pekan.faults import EQUIPMENT, INJECTORS, Ability, ability_of, class_of, equipment_ability, probe, sweep
from pekan.faults.ability import unable

MECHANISM = "mechanism"
"""The area of equipment."""


def examine() -> tuple[Ability, ...]:
    """Everything that is worth knowing, in the order of the module's table."""
    drives = _platform()
    return (_core(), drives, _grpc(), *_releases(), _left_behind(), *_faults(drives))


def _core() -> Ability:
    if native.core is None:
        detail = "the reference in Python judges: the same answers, slower"
        return Ability("judging", "native core", False, detail, native.reason, native.remedy)
    return Ability("judging", "native core", True, f"release {native.core.__version__}")


def _platform() -> Ability:
    here = f"{sys.platform} {platform.machine()}"
    if sys.platform == "linux" and platform.machine() == "x86_64":
        return Ability("hunting", "platform", True, here)
    why = f"etcd binaries for Linux x86-64 are driven, and this is {here}"
    return Ability("hunting", "platform", False, here, why, "a Linux machine; `pekan check` judges recorded runs here")


def _grpc() -> Ability:
    if importlib.util.find_spec("grpc") is None:
        return Ability("hunting", "gRPC", False, "", "grpcio is not installed", "pip install 'pekan[hunt]'")
    return Ability("hunting", "gRPC", True)


def _releases() -> list[Ability]:
    found = []
    on_path = shutil.which("etcd")
    if on_path is not None:
        found.append(Ability("etcd", "on PATH", True, on_path))
    try:
        cached = binaries.installed()
    except PekanError as error:
        return [*found, Ability("etcd", "cache", False, "", str(error), "make the cache readable")]
    found += [Ability("etcd", binary.version, True, f"from {binary.origin}") for binary in cached]
    if not found:
        found.append(Ability("etcd", "any release", False, "", "none on PATH, none in the cache", "pekan etcd install 3.5.1"))
    return found


def _left_behind() -> Ability:
    swept = sweep()
    if swept.left:
        why = f"earlier runs left {'; '.join(swept.left)}"
        return Ability("left", "behind", False, "", why, "end what uses it, then pekan doctor as the user whose run it was")
    return Ability("left", "behind", True, f"removed now: {'; '.join(swept.undone)}" if swept.undone else "nothing")


def _faults(drives: Ability) -> Iterator[Ability]:
    """Mechanisms first, with what is lost without them; then each kind of fault."""
    if drives.possible:
        probe(EQUIPMENT)
    for name in EQUIPMENT:
        found = equipment_ability(name) if drives.possible else unable(name, drives.why_not, drives.remedy)
        lost = [kind for kind, injector in INJECTORS.items() if name in injector.needs]
        detail = found.detail if found.possible else f"lost without it: {', '.join(lost) or EQUIPMENT[name].loss or 'nothing yet'}"
        yield replace(found, area=MECHANISM, detail=detail)
    for kind, injector in INJECTORS.items():
        found = ability_of(kind) if drives.possible else unable(kind, drives.why_not, drives.remedy)
        partly = found.detail if not found.possible else ""
        yield replace(found, area="fault", detail="; ".join(filter(None, (partly, f"{class_of(injector)}: {injector.summary}"))))
