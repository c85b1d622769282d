"""What a snapshot is restored from: checksums, and what is said of a file that cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from pekan.faults.maintenance.restoring import Source, Unfit, crc32c, restore, source
from pekan.faults.stored.files import in_memory


def test_checksums_are_castagnoli() -> None:
    """The check value that every description of CRC-32C gives, whole and in two parts."""
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(b"6789", crc32c(b"12345")) == 0xE3069283


@pytest.mark.parametrize("data", [b"", bytes(8192)])
def test_what_is_no_database_is_not_restored(data: bytes) -> None:
    """A file without a valid meta page is unfit, not a crash."""
    with pytest.raises(Unfit, match="meta"):
        source(in_memory(data), 2)


def test_only_a_voter_is_restored(tmp_path: Path) -> None:
    """A learner, or a stranger, cannot be the only member of a new cluster; nothing is written for one."""
    found = Source(7, 2, ({"id": 1, "peerURLs": ["http://a"]}, {"id": 2, "peerURLs": ["http://b"], "isLearner": True}), "3.7.0")
    assert (found.ids(learners=False), found.ids(learners=True)) == ((1,), (2,))
    for member in (2, 3):
        with pytest.raises(Unfit, match="vote"):
            restore(found, member, 9, b"", tmp_path / "data")
    assert not (tmp_path / "data").exists()
