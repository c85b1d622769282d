"""Makes the record of a simulated etcd run of any length, in memory that does not depend on it.

::

    python benchmarks/etcd_run.py FILE --operations 10000000 --clients 8      about 40 us an operation

One store, `clients` clients and three watchers of the whole keyspace on a virtual clock; each operation takes effect at one instant
between its call and its return, and every watcher hears of it within a few milliseconds. Records are written in order of time as the
simulation goes on. (The simulator of the tests makes far nastier histories, and keeps them whole in memory.)

The mix: 10 % lists of a prefix (limit 20), 40 % Puts, 22 % Gets (a quarter of them serializable), 8 % deletions, 12 % compare-and-swap,
8 % transactions of three operations. 1 % are indefinite: they are answered by a timeout, and half of them take effect.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import sys
from bisect import bisect_left, insort
from pathlib import Path
from typing import Any, NamedTuple

from pekan.history.records import RecordWriter
from pekan.wire import messages as wire
from pekan.wire import pb
from pekan.wire._generated import pekan_record_pb2 as record_pb
from pekan.wire.messages import Compare, DeleteRangeRequest, PutRequest, RangeRequest, TxnRequest, encode

MEMBERS = {"m1": 0x8E9E05C52164694D, "m2": 0xFD422379FDA50E48, "m3": 0x8211F1D0F64F3269}
CLUSTER = 0xCDF818194E3A8C32
LIST_LIMIT = 20
MEAN_NS = 1_000_000
TIMEOUT_NS = 200_000_000
"""An operation takes a millisecond on average; an indefinite one is given up after 200 ms."""


class Held(NamedTuple):
    """A key-value: what is stored, and its encoding."""

    create: int
    mod: int
    version: int
    value: bytes
    data: bytes


class Store:
    """etcd's key-value machine for what this mix asks of it."""

    def __init__(self) -> None:
        self.revision = 1
        self.keys: list[bytes] = []
        self.held: dict[bytes, Held] = {}

    def put(self, key: bytes, value: bytes, revision: int) -> bytes:
        """The event."""
        old = self.held.get(key)
        if old is None:
            insort(self.keys, key)
        create, version = (revision, 1) if old is None else (old.create, old.version + 1)
        data = pb.KeyValue(key=key, create_revision=create, mod_revision=revision, version=version, value=value).SerializeToString()
        self.held[key] = Held(create, revision, version, value, data)
        return pb.Event(kv=data, prev_kv=b"" if old is None else old.data).SerializeToString()

    def delete(self, key: bytes, revision: int) -> bytes | None:
        """The event, None where there was nothing to delete."""
        old = self.held.pop(key, None)
        if old is None:
            return None
        self.keys.pop(bisect_left(self.keys, key))
        gone = pb.KeyValue(key=key, mod_revision=revision).SerializeToString()
        return pb.Event(type=pb.Event.DELETE, kv=gone, prev_kv=old.data).SerializeToString()

    def range(self, request: RangeRequest, header: Any) -> Any:
        if not request.range_end:
            held = self.held.get(request.key)
            return pb.RangeResponse(header=header, kvs=[held.data] if held else [], count=1 if held else 0)
        low, high = bisect_left(self.keys, request.key), bisect_left(self.keys, request.range_end)
        shown = self.keys[low : min(high, low + request.limit)]
        return pb.RangeResponse(header=header, kvs=[self.held[k].data for k in shown], count=high - low, more=high - low > len(shown))

    def apply(self, request: Any, member: int) -> tuple[Any, list[bytes]]:
        """(response, events)"""
        after = self.revision + 1
        events: list[bytes] = []
        kind = type(request)
        if kind is PutRequest:
            events.append(self.put(request.key, request.value, after))
            response = pb.PutResponse()
        elif kind is DeleteRangeRequest:
            event = self.delete(request.key, after)
            events += [event] if event else []
            response = pb.DeleteRangeResponse(deleted=len(events))
        elif kind is TxnRequest:
            response = self.txn(request, after, events)
        else:
            return self.range(request, pb.ResponseHeader(cluster_id=CLUSTER, member_id=member, revision=self.revision, raft_term=2)), []
        if events:
            self.revision = after
        header = pb.ResponseHeader(cluster_id=CLUSTER, member_id=member, revision=self.revision, raft_term=2)
        response.header.CopyFrom(header)
        return response, events

    def txn(self, request: TxnRequest, after: int, events: list[bytes]) -> Any:
        guards = request.compare
        succeeded = all((held.mod if (held := self.held.get(c.key)) else 0) == c.operand for c in guards)
        response = pb.TxnResponse(succeeded=succeeded)
        for operation in request.success if succeeded else request.failure:
            inner = response.responses.add()
            at = pb.ResponseHeader(revision=after if events else self.revision)
            if type(operation) is PutRequest:
                events.append(self.put(operation.key, operation.value, after))
                inner.response_put.header.revision = after
            elif type(operation) is RangeRequest:
                inner.response_range.CopyFrom(self.range(operation, at))
        return response


class Simulation:
    """What goes on: a heap of (time, order, what) that yields everything in time."""

    def __init__(self, seed: int, operations: int, clients: int, keys: int, indefinite: float) -> None:
        self.random = random.Random(seed)
        self.left = operations
        self.indefinite = indefinite
        self.store = Store()
        self.keys = [b"key/%04d" % n for n in range(keys)]
        self.heap: list[tuple[int, int, Any]] = []
        self.made = self.operations = self.processes = 0
        self.hears = dict.fromkeys(MEMBERS, 0)
        for client in range(clients):
            self.later(1_000_000 + client * 1_000, lambda now, c=client: self.call(now, c, self.process()))

    def process(self) -> int:
        self.processes += 1
        return self.processes

    def later(self, time: int, what: Any) -> None:
        self.made += 1
        heapq.heappush(self.heap, (time, self.made, what))

    def request(self, number: int) -> Any:
        choose, key = self.random.random(), self.random.choice(self.keys)
        value = b"value-%d" % number
        if choose < 0.10:
            return RangeRequest(b"key/", b"key0", limit=LIST_LIMIT)
        if choose < 0.50:
            return PutRequest(key, value)
        if choose < 0.72:
            return RangeRequest(key, serializable=choose > 0.665)
        if choose < 0.80:
            return DeleteRangeRequest(key)
        held = self.store.held.get(key)
        if choose < 0.92:
            guard = Compare(wire.EQUAL, wire.MOD, key, held.mod if held else 0)
            return TxnRequest((guard,), (PutRequest(key, value),), (RangeRequest(key),))
        other = self.random.choice(self.keys)
        while other == key:
            other = self.random.choice(self.keys)
        return TxnRequest((), (PutRequest(key, value), PutRequest(other, value), RangeRequest(self.random.choice(self.keys))), ())

    # ---- what happens; each returns the records of that instant ----

    def call(self, now: int, client: int, process: int) -> list[Any]:
        if self.left == 0:
            return []
        self.left -= 1
        self.operations += 1
        number = self.operations
        request = self.request(number)
        member = list(MEMBERS)[client % len(MEMBERS)]
        took = 100_000 + int(self.random.expovariate(1 / MEAN_NS))
        lost = self.random.random() < self.indefinite
        if not lost or self.random.random() < 0.5:
            self.later(
                now + self.random.randrange(1, took), lambda at: self.effect(at, number, request, member, lost, client, process, now + took)
            )
        if lost:
            self.later(now + TIMEOUT_NS, lambda at: self.give_up(at, number, client))
        invoked = record_pb.Invoked(
            operation=number, process=process, client=f"kv-{client}", member=member, method=wire.method_of(request), request=encode(request)
        )
        return [record_pb.Record(time_ns=now, invoked=invoked)]

    def effect(self, now: int, number: int, request: Any, member: str, lost: bool, client: int, process: int, ret: int) -> list[Any]:
        response, events = self.store.apply(request, MEMBERS[member])
        if events:
            for name, heard in self.hears.items():
                # In the order of the revisions: no message overtakes the one before it.
                at = max(now + self.random.randrange(100_000, 5_000_000), heard + 1)
                self.hears[name] = at
                self.later(at, lambda when, n=name, r=self.store.revision: self.hear(when, n, r, events))
        if not lost:
            self.later(ret, lambda at: self.answer(at, number, response.SerializeToString(), client, process))
        return []

    def answer(self, now: int, number: int, response: bytes, client: int, process: int) -> list[Any]:
        self.later(now + 10_000, lambda at: self.call(at, client, process))
        return [record_pb.Record(time_ns=now, completed=record_pb.Completed(operation=number, response=response))]

    def give_up(self, now: int, number: int, client: int) -> list[Any]:
        self.later(now + 10_000, lambda at: self.call(at, client, self.process()))
        completed = record_pb.Completed(operation=number, code=4, message="context deadline exceeded")
        return [record_pb.Record(time_ns=now, completed=completed)]

    def hear(self, now: int, member: str, revision: int, events: list[bytes]) -> list[Any]:
        header = pb.ResponseHeader(cluster_id=CLUSTER, member_id=MEMBERS[member], revision=revision, raft_term=2)
        message = pb.WatchResponse(header=header, events=events).SerializeToString()
        stream = list(MEMBERS).index(member) + 1
        return [record_pb.Record(time_ns=now, stream_received=record_pb.StreamReceived(stream=stream, response=message))]


def beginning() -> list[Any]:
    """The start mark, and the watches asked for and created."""
    mark = record_pb.Mark(kind="start", detail=json.dumps({"start": "empty", "boot_id": "simulated"}))
    records = [record_pb.Record(time_ns=1, mark=mark)]
    for stream, (member, number) in enumerate(MEMBERS.items(), 1):
        create = pb.WatchRequest(create_request=pb.WatchCreateRequest(key=b"\0", range_end=b"\0", start_revision=1, prev_kv=True))
        sent = record_pb.StreamSent(
            stream=stream, request=create.SerializeToString(), method=wire.WATCH, client=f"watch-{member}-all", member=member
        )
        header = pb.ResponseHeader(cluster_id=CLUSTER, member_id=number, revision=1, raft_term=2)
        created = pb.WatchResponse(header=header, created=True).SerializeToString()
        records.append(record_pb.Record(time_ns=2, stream_sent=sent))
        records.append(record_pb.Record(time_ns=3, stream_received=record_pb.StreamReceived(stream=stream, response=created)))
    return sorted(records, key=lambda record: record.time_ns)


def make(
    path: Path, operations: int, *, clients: int = 8, keys: int = 100, indefinite: float = 0.01, seed: int = 1, store: Store | None = None
) -> None:
    """Writes the record of a run to the new file `path`; `store` is one of the caller's, where it is to be another."""
    simulation = Simulation(seed, operations, clients, keys, indefinite)
    if store is not None:
        simulation.store = store
    writer = RecordWriter(path)
    now = 0
    try:
        for record in beginning():
            writer.write(record)
        while simulation.heap:
            now, _, what = heapq.heappop(simulation.heap)
            for record in what(now):
                writer.write(record)
        end = record_pb.Mark(kind="end", detail=json.dumps({"reason": "finished"}))
        writer.write(record_pb.Record(time_ns=now + 1, mark=end))
    finally:
        writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the record of a simulated etcd run.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--operations", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--keys", type=int, default=100)
    parser.add_argument("--indefinite", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    make(options.file, options.operations, clients=options.clients, keys=options.keys, indefinite=options.indefinite, seed=options.seed)
    print(f"{options.file}: {options.file.stat().st_size / 1e6:.1f} MB", file=sys.stderr)


if __name__ == "__main__":
    main()
