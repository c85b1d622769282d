"""Whether a thing can be done on this machine, and what would make it possible.

An ability is found by *doing* it in a small way - a hook planted in a child that lives for a millisecond, a filter installed, a device
opened - because capabilities, profiles and kernel versions lie.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ability:
    """One thing that Pekan may be able to do here. `why_not` and `remedy` are empty where it is `possible`; `detail` is for a person."""

    area: str
    name: str
    possible: bool
    detail: str = ""
    why_not: str = ""
    remedy: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def once(find: Callable[[], T]) -> Callable[[], T]:
    """`find`, done once in a process, whoever asks first and however many ask at a time."""
    turn = threading.Lock()
    kept = functools.cache(find)

    @functools.wraps(find)
    def found() -> T:
        with turn:
            return kept()

    return found


def able(name: str, detail: str = "") -> Ability:
    """`name` can be injected, or put around members, here."""
    return Ability("fault", name, True, detail)


def unable(name: str, why_not: str, remedy: str) -> Ability:
    """`name` cannot; `why_not` names what refused and its errno, `remedy` what a person can do."""
    return Ability("fault", name, False, "", why_not, remedy)
