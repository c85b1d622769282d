"""The account of unsynced writes against a model that remembers the whole file: what was synced is never lost, the rest is lost exactly."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from pekan.faults.disk.supervisor import LOOK_AHEAD, PAGE, SECTOR, Unsynced

SEGMENT = 40 * PAGE
"""A preallocated WAL segment, much smaller than etcd's 64 MB."""


def opened(path: Path, size: int = 0) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    os.ftruncate(fd, size)
    return fd


def content(fd: int) -> bytes:
    return os.pread(fd, os.fstat(fd).st_size, 0)


def write(fd: int, account: Unsynced, offset: int, data: bytes) -> None:
    """As the member does it: the supervisor hears of it first."""
    account.before_write(offset, len(data))
    os.pwrite(fd, data, offset)


@pytest.mark.parametrize("seed", range(60))
def test_a_database_rolls_back_to_its_last_sync(tmp_path: Path, seed: int) -> None:
    """Random writes, growth, cuts and syncs: after a roll-back the file is, byte for byte, what it was when it was synced last."""
    rng = random.Random(seed)
    fd = opened(tmp_path / "db", rng.randrange(12) * PAGE)
    os.pwrite(fd, rng.randbytes(os.fstat(fd).st_size), 0)
    account = Unsynced(os.dup(fd), "db")
    durable = content(fd)
    for _ in range(rng.randrange(1, 60)):
        match rng.randrange(8):
            case 0:
                account.synced(None)
                durable = content(fd)
            case 1:
                length = rng.randrange(20 * PAGE)
                account.before_truncate(length)
                os.ftruncate(fd, length)
            case 2:
                write(fd, account, rng.randrange(16 * PAGE), rng.randbytes(rng.randrange(1, 3 * PAGE)))
            case _:
                # bbolt's: whole pages.
                write(fd, account, rng.randrange(16) * PAGE, rng.randbytes(rng.randrange(1, 4) * PAGE))
    done = account.roll_back(rng)
    assert content(fd) == durable
    assert done["kept_pages"] == 0


@pytest.mark.parametrize("seed", range(60))
def test_a_page_is_lost_or_kept_as_a_whole(tmp_path: Path, seed: int) -> None:
    """With a chance for each page, every page is afterwards the synced one or the written one; what was not written is untouched."""
    rng = random.Random(seed)
    fd = opened(tmp_path / "db", 8 * PAGE)
    os.pwrite(fd, rng.randbytes(8 * PAGE), 0)
    account = Unsynced(os.dup(fd), "db")
    account.synced(None)
    durable = content(fd)
    touched: set[int] = set()
    for _ in range(rng.randrange(1, 12)):
        first, count = rng.randrange(14), rng.randrange(1, 4)
        write(fd, account, first * PAGE, rng.randbytes(count * PAGE))
        touched |= set(range(first, first + count))
    written = content(fd)
    done = account.roll_back(rng, kept_percent=50)
    left = content(fd)
    kept = 0
    assert done["lost_pages"] + done["kept_pages"] == len(touched)
    for number in range(max(len(written), len(left)) // PAGE):
        old, new, now = (each[number * PAGE : (number + 1) * PAGE] for each in (durable, written, left))
        if number not in touched:
            # Between the synced end and a page that was kept behind it: zeros, as a file with a hole reads.
            assert now == old.ljust(len(now), b"\0")
        elif now == new:
            kept += 1
        else:
            assert now == old.ljust(len(now), b"\0")
    assert kept == done["kept_pages"]


@pytest.mark.parametrize("seed", range(60))
def test_a_log_rolls_back_to_the_position_of_its_last_sync(tmp_path: Path, seed: int) -> None:
    """Appends that nobody hears of, syncs, and the cut at the end of a segment: what lies behind the synced position is zero again."""
    rng = random.Random(seed)
    fd = opened(tmp_path / "wal", SEGMENT)
    account = Unsynced(os.dup(fd), "wal")
    position = rng.randrange(2 * PAGE)
    os.pwrite(fd, rng.randbytes(position), 0)
    account.synced(position)
    durable = content(fd)
    for _ in range(rng.randrange(1, 30)):
        data = rng.randbytes(rng.randrange(1, 3000))
        os.pwrite(fd, data, position)
        position += len(data)
        if rng.randrange(3) == 0:
            account.synced(position)
            durable = content(fd)
    if rng.randrange(2):
        account.before_truncate(position)
        os.ftruncate(fd, position)
    account.roll_back(rng)
    assert content(fd) == durable


def test_a_log_that_is_not_only_appended_to_is_left_alone(tmp_path: Path) -> None:
    """Bytes behind the position of a sync, or a position that goes back, make everything count as synced."""
    fd = opened(tmp_path / "wal", SEGMENT)
    os.pwrite(fd, b"x" * (LOOK_AHEAD + 100), 0)
    account = Unsynced(os.dup(fd), "wal")
    account.synced(100)
    assert account.mark is None
    account.synced(LOOK_AHEAD + 100)
    assert account.mark == LOOK_AHEAD + 100
    account.synced(50)
    assert account.mark is None
    before = content(fd)
    account.roll_back(random.Random(1))
    assert content(fd) == before


def test_a_log_whose_position_goes_back_is_left_alone(tmp_path: Path) -> None:
    """Zeros may be data as well: a position before the synced one makes everything count as synced."""
    fd = opened(tmp_path / "wal", SEGMENT)
    account = Unsynced(os.dup(fd), "wal")
    account.synced(100)
    assert account.mark == 100
    account.synced(50)
    assert account.mark is None


def test_nothing_is_lost_where_nothing_is_unsynced(tmp_path: Path) -> None:
    """A log with nothing behind the position of its last sync loses no page, though that position lies inside one."""
    fd = opened(tmp_path / "wal", SEGMENT)
    os.pwrite(fd, b"a" * 700, 0)
    account = Unsynced(os.dup(fd), "wal")
    account.synced(700)
    done = account.roll_back(random.Random(1))
    assert (done["lost_bytes"], done["lost_pages"], done["kept_pages"]) == (0, 0, 0)


def test_what_was_all_written_back_is_all_there(tmp_path: Path) -> None:
    """With every page kept the file is as it was written; with none it is as it was synced."""
    fd = opened(tmp_path / "db", 4 * PAGE)
    account = Unsynced(os.dup(fd), "db")
    write(fd, account, PAGE, b"n" * 5 * PAGE)
    written = content(fd)
    done = account.roll_back(random.Random(1), kept_percent=100)
    assert content(fd) == written
    assert (done["lost_pages"], done["kept_pages"]) == (0, 5)


def test_a_torn_write_keeps_what_is_before_the_cut(tmp_path: Path) -> None:
    """Of what was appended since the last sync, everything from the cut on is zero, and nothing before it changes."""
    fd = opened(tmp_path / "wal", SEGMENT)
    os.pwrite(fd, b"a" * 700, 0)
    account = Unsynced(os.dup(fd), "wal")
    account.synced(700)
    os.pwrite(fd, b"b" * 9_000, 700)
    cut = (700 + 1024) // SECTOR * SECTOR
    assert account.tear(cut) == 9_700 - cut
    left = content(fd)
    assert left == b"a" * 700 + b"b" * (cut - 700) + bytes(SEGMENT - cut)
