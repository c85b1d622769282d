"""What is kept of a run's crash images when there is no room for all."""

from __future__ import annotations

import random
from pathlib import Path

from pekan.faults.images.album import Album, Image


def test_earlier_images_are_given_up_for_later_ones() -> None:
    """Nothing goes while there is room; then images go, restored snapshots stay, and what cannot fit makes no room beyond them."""
    album = Album()
    snapshot = Image(0, Path("0"), (), 1)
    album.images.append(snapshot)
    rng = random.Random(1)
    gone: list[Image] = []
    for number in range(1, 101):
        gone += album.make_room(10, 200, rng)
        album.images.append(Image(number, Path(str(number)), (), number, 10))
        album.bytes += 10
        assert album.bytes <= 200
        assert len(gone) == max(0, number - 20)
    assert album.images[0] is snapshot
    assert len(album.images) == 21
    assert min(image.number for image in album.images[1:]) < 90, "not only the latest stay"
    assert len(album.make_room(1_000, 200, rng)) == 20
    assert album.images == [snapshot]
    assert album.bytes == 0
