"""A data directory that a stock etcd starts from, made from a snapshot alone: what `etcdutl snapshot restore` does, without etcdutl.

::

    the snapshot's db            consistent index i, its term, the members at i
      ──> member/snap/db         as it is
      ──> member/snap/T-i.snap   raft snapshot at i: who votes, and the members as releases before 3.6 read them (v2 store, JSON)
      ──> member/wal/0-0.wal     crc | metadata (member, cluster) | snapshot 0 | hard state (T, i) | snapshot i

etcdutl writes other members into the database and begins a log anew; here the database stays untouched, and the log is made to end
where the database stands. Started with `--force-new-cluster`, the member goes on from there as the only one: etcd removes the others.

Sources: etcd server/storage/wal/{wal,encoder}.go, api/snap/snapshotter.go, api/v2store/store.go, etcdserver/bootstrap.go.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any, NamedTuple

from pekan.faults.stored.bbolt import Database
from pekan.faults.stored.files import Read

METADATA, STATE, CRC, SNAPSHOT = 1, 3, 4, 5
"""Types of records in a log."""
NEVER = "0001-01-01T00:00:00Z"
"""Go's zero time: a node of the v2 store that does not expire."""
FILE_MODE = 0o600


class Source(NamedTuple):
    """What a database says of where it stands. `members` are as they are stored: id, name, peerURLs, clientURLs, isLearner."""

    raft_index: int
    raft_term: int
    members: tuple[dict[str, Any], ...]
    cluster_version: str

    def ids(self, *, learners: bool) -> tuple[int, ...]:
        """Member ids of those that learn, or of those that vote."""
        return tuple(int(each["id"]) for each in self.members if bool(each.get("isLearner")) is learners)


class Unfit(Exception):
    """A snapshot that cannot be restored, and why; nothing is wrong with it."""


def source(read: Read, term: int) -> Source:
    """What the database that `read` reads says; `term` where it does not say it (before 3.5). Raises Unfit."""
    try:
        database = Database(read)
    except ValueError as error:
        raise Unfit(str(error)) from None

    def value(bucket: bytes, key: bytes) -> bytes:
        place = database.value(bucket, key)
        return b"" if place is None else read(place.offset, place.size)

    index = int.from_bytes(value(b"meta", b"consistent_index"), "big")
    stored = value(b"meta", b"term")
    members = tuple(json.loads(read(place.offset, place.size)) for _, place in database.entries(b"members"))
    found = Source(index, int.from_bytes(stored, "big") if stored else term, members, value(b"cluster", b"clusterVersion").decode())
    voters = json.loads(value(b"meta", b"confState") or b"{}").get("voters")
    if not index or not members:
        raise Unfit("the database names no raft index or no members")
    if voters is not None and set(voters) != set(found.ids(learners=False)):
        raise Unfit("a change of the membership was under way")
    return found


def restore(found: Source, member_id: int, cluster_id: int, database: bytes, data: Path) -> None:
    """Make `data`, as the data directory of the member `member_id`, one of those that vote in `found`."""
    if member_id not in found.ids(learners=False):
        raise Unfit("the member is not one of those that vote")
    snap, wal = data / "member" / "snap", data / "member" / "wal"
    for directory in (data, snap, wal):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    (snap / "db").write_bytes(database)
    state = b"".join(_number(1, each) for each in found.ids(learners=False))
    state += b"".join(_number(2, each) for each in found.ids(learners=True))
    state += _number(5, 0)  # auto_leave, which etcd's decoder requires
    metadata = _bytes(1, state) + _number(2, found.raft_index) + _number(3, found.raft_term)
    raft = _bytes(1, _tree(found)) + _bytes(2, metadata)
    (snap / f"{found.raft_term:016x}-{found.raft_index:016x}.snap").write_bytes(_number(1, crc32c(raft)) + _bytes(2, raft))
    log = _Log()
    log.add(CRC, None)
    log.add(METADATA, _number(1, member_id) + _number(2, cluster_id))
    log.add(SNAPSHOT, _number(1, 0) + _number(2, 0))
    log.add(STATE, _number(1, found.raft_term) + _number(2, 0) + _number(3, found.raft_index))
    log.add(SNAPSHOT, _number(1, found.raft_index) + _number(2, found.raft_term) + _bytes(3, state))
    (wal / f"{0:016x}-{0:016x}.wal").write_bytes(log.frames)
    for path in (snap / "db", *snap.glob("*.snap"), *wal.iterdir()):
        path.chmod(FILE_MODE)


class _Log:
    """A write-ahead log: each record carries the running CRC-32C of all data so far, and is padded to 8 bytes."""

    def __init__(self) -> None:
        self.frames = b""
        self._crc = 0

    def add(self, kind: int, data: bytes | None) -> None:
        self._crc = crc32c(data or b"", self._crc)
        record = _number(1, kind) + _number(2, self._crc) + (b"" if data is None else _bytes(3, data))
        padding = -len(record) % 8
        self.frames += struct.pack("<Q", len(record) | ((0x80 | padding) << 56 if padding else 0)) + record + bytes(padding)


def _tree(found: Source) -> bytes:
    """The v2 store that holds the members, as JSON."""
    members = {}
    for each in found.members:
        name = f"{each['id']:x}"
        raft = {"peerURLs": each.get("peerURLs"), **({"isLearner": True} if each.get("isLearner") else {})}
        attributes = {"name": each.get("name", ""), "clientURLs": each.get("clientURLs")}
        place = f"/0/members/{name}"
        leaves = {
            "raftAttributes": _node(f"{place}/raftAttributes", json.dumps(raft)),
            "attributes": _node(f"{place}/attributes", json.dumps(attributes)),
        }
        members[name] = _node(place, children=leaves)
    stored = {"members": _node("/0/members", children=members)}
    if found.cluster_version:
        stored["version"] = _node("/0/version", found.cluster_version)
    root = _node("/", children={"0": _node("/0", children=stored), "1": _node("/1", children={})})
    return json.dumps({"Root": root, "CurrentIndex": 1, "CurrentVersion": 2}).encode()


def _node(path: str, value: str = "", children: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"Path": path, "CreatedIndex": 0, "ModifiedIndex": 0, "ExpireTime": NEVER, "Value": value, "Children": children}


def _varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes((value & 0x7F | 0x80,))
        value >>= 7
    return out + bytes((value,))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)  # the reversed Castagnoli polynomial
        table.append(byte)
    return tuple(table)


_TABLE = _table()


def crc32c(data: bytes, crc: int = 0) -> int:
    """CRC-32C (RFC 3720, B.4) of `data` after what `crc` is of. In Python, for some thousand bytes."""
    crc ^= 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF
