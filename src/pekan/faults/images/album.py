"""The crash images of a run: what faults keep and what members are started on afterwards."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from pekan.etcd.spec import MemberSpec


class Image(NamedTuple):
    """What all members' files held at one moment.

    specs     of the members at that moment; their data is in `directory`/data/NAME
    revision  one that a member had told before any member was stopped
    bytes     what it takes of the disk; 0 for one that is not given up for others (a restored snapshot)
    """

    number: int
    directory: Path
    specs: tuple[MemberSpec, ...]
    revision: int
    bytes: int = 0


@dataclass
class Album:
    """What has been kept. `digests` are of their content: of equal images one is kept. `bytes` is what they take of the disk."""

    images: list[Image] = field(default_factory=list)
    digests: set[tuple[str, ...]] = field(default_factory=set)
    bytes: int = 0

    def make_room(self, size: int, limit: int, rng: random.Random) -> tuple[Image, ...]:
        """Give images up, drawn evenly, until `size` bytes more are within `limit`; their files are the caller's to remove.

        A long run would otherwise keep those of its beginning alone. Empty where nothing had to go, or nothing could.
        """
        given_up = []
        while self.bytes + size > limit:
            candidates = [image for image in self.images if image.bytes]
            if not candidates:
                break
            image = rng.choice(candidates)
            self.images.remove(image)
            self.bytes -= image.bytes
            given_up.append(image)
        return tuple(given_up)
