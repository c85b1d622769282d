"""The crash images of a run: what faults keep and what members are started on afterwards."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from pekan.etcd.spec import MemberSpec


class Image(NamedTuple):
    """What all members' files held at one moment.

    specs     of the members at that moment; their data is in `directory`/data/NAME
    revision  one that a member had told before any member was stopped
    """

    number: int
    directory: Path
    specs: tuple[MemberSpec, ...]
    revision: int


@dataclass
class Album:
    """What has been kept. `digests` are of their content: of equal images one is kept. `bytes` is what they take of the disk."""

    images: list[Image] = field(default_factory=list)
    digests: set[tuple[str, ...]] = field(default_factory=set)
    bytes: int = 0
