"""How fast a recorded run is read back, and how much memory it takes: `python benchmarks/reading.py [operations]`.

Writes a synthetic run (one process after the other on a store of 100 keys, three whole-keyspace watches that each show every write as a
message of its own, the way a member sends them under light load) and reads it with `pekan.history.load`. The peer in the same run is the
generated protobuf code alone, parsing the same records and the messages in them without making a history of them: the ratio says what
pairing, values and interning cost on top.

Budget: 14 us and 2 KB an operation, watches included (of the 20 us that a decision from the file may take).
"""

from __future__ import annotations

import argparse
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from google.protobuf.message import Message

from pekan.history import RecordFile, RecordWriter, load
from pekan.wire import pb
from pekan.wire._generated import pekan_record_pb2 as record_pb
from pekan.wire.messages import (
    EQUAL,
    MOD,
    PUT,
    PUT_METHOD,
    RANGE,
    TXN,
    WATCH,
    Compare,
    Event,
    Header,
    KeyValue,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    TxnRequest,
    TxnResponse,
    WatchCreateRequest,
    WatchResponse,
    encode,
)

KEYS = 100
LIST_KEYS = 20
WATCHES = 3
REPEATS = 3


def write_run(path: Path, operations: int, seed: int = 1) -> None:
    """A history file of `operations` calls: 50 % puts, 30 % gets, 10 % lists of up to 20 keys, 10 % guarded transactions."""
    rng = random.Random(seed)
    writer = RecordWriter(path)
    clock = 1_000_000_000
    store: dict[bytes, KeyValue] = {}
    revision = 1
    nothing = Header(0, 0, 0, 0)

    def put(record: record_pb.Record) -> None:
        nonlocal clock
        clock += 10_000
        record.time_ns = clock
        writer.write(record)

    def header() -> Header:
        return Header(0x1234567890ABCDEF, 0x0FEDCBA098765432, revision, 2)

    put(record_pb.Record(mark=record_pb.Mark(kind="start", detail='{"start":"empty","boot_id":"benchmark"}')))
    for watch in range(1, WATCHES + 1):
        create = encode(WatchCreateRequest(b"\0", b"\0", 1, prev_kv=True))
        sent = record_pb.StreamSent(stream=watch, request=create, method=WATCH, client=f"watch-m{watch}-0", member=f"m{watch}")
        put(record_pb.Record(stream_sent=sent))
    for number in range(1, operations + 1):
        key = b"key-%010d" % rng.randrange(KEYS)
        draw = rng.random()
        before = store.get(key)
        value = b"%032d" % number
        written = None
        if draw < 0.6:
            written = KeyValue(
                key, before.create_revision if before else revision + 1, revision + 1, before.version + 1 if before else 1, value, 0
            )
            store[key] = written
            revision += 1
        if draw < 0.5:
            method, request, response = PUT_METHOD, encode(PutRequest(key, value)), encode(PutResponse(header(), None))
        elif draw < 0.6:
            guard = Compare(EQUAL, MOD, key, before.mod_revision if before else 0)
            method, request = TXN, encode(TxnRequest((guard,), (PutRequest(key, value),), (RangeRequest(key),)))
            response = encode(TxnResponse(header(), True, (PutResponse(nothing._replace(revision=revision), None),)))
        elif draw < 0.9:
            found = (before,) if before else ()
            method, request, response = RANGE, encode(RangeRequest(key)), encode(RangeResponse(header(), found, False, len(found)))
        else:
            listed = tuple(store[k] for k in sorted(store)[:LIST_KEYS])
            method, request = RANGE, encode(RangeRequest(b"key-", b"key.", limit=LIST_KEYS))
            response = encode(RangeResponse(header(), listed, len(store) > LIST_KEYS, len(store)))
        client = number % 8
        invoked = record_pb.Invoked(
            operation=number, process=client, client=f"kv-{client}", member=f"m{number % 3}", method=method, request=request
        )
        put(record_pb.Record(invoked=invoked))
        put(record_pb.Record(completed=record_pb.Completed(operation=number, response=response)))
        if written is not None:
            message = encode(WatchResponse(header(), 0, False, False, 0, "", False, (Event(PUT, written, before),)))
            for watch in range(1, WATCHES + 1):
                put(record_pb.Record(stream_received=record_pb.StreamReceived(stream=watch, response=message)))
    put(record_pb.Record(mark=record_pb.Mark(kind="end", detail='{"reason":"finished"}')))
    writer.close()


REQUESTS: dict[str, type[Message]] = {PUT_METHOD: pb.PutRequest, RANGE: pb.RangeRequest, TXN: pb.TxnRequest}
RESPONSES: dict[str, type[Message]] = {PUT_METHOD: pb.PutResponse, RANGE: pb.RangeResponse, TXN: pb.TxnResponse}


def parse_only(path: Path) -> None:
    """The peer: generated protobuf code, each record and the message in it parsed once, nothing kept."""
    open_methods: dict[int, str] = {}
    for _, record in RecordFile(path):
        body = record.WhichOneof("body")
        if body == "invoked":
            open_methods[record.invoked.operation] = record.invoked.method
            REQUESTS[record.invoked.method].FromString(record.invoked.request)
        elif body == "completed":
            RESPONSES[open_methods.pop(record.completed.operation)].FromString(record.completed.response)
        elif body == "stream_received":
            pb.WatchResponse.FromString(record.stream_received.response)


def calibration() -> float:
    """CPU seconds of a fixed pure-Python loop, so that figures from different machines and moments can be compared."""
    begin = time.process_time()
    total = 0
    for i in range(5_000_000):
        total += i & 7
    return time.process_time() - begin


def resident() -> int:
    """Peak resident bytes of this process since its exec. Not getrusage: its maximum is inherited from the process that forked."""
    return next(int(line.split()[1]) * 1024 for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("operations", nargs="?", type=int, default=300_000)
    parser.add_argument("--memory-of", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of is not None:
        before = resident()
        history = load(options.memory_of)
        print((resident() - before) / len(history.operations))
        return
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "history.pb"
        write_run(path, options.operations)
        size = path.stat().st_size
        print(
            f"machine      {platform.processor() or platform.machine()}, Python {platform.python_version()}, "
            f"calibration {calibration():.3f} s"
        )
        print(
            f"run          {options.operations} operations, {WATCHES} watches, {size / 1e6:.1f} MB, "
            f"{size / options.operations:.0f} bytes/operation"
        )
        ours: list[float] = []
        peer: list[float] = []
        for _ in range(REPEATS):  # interleaved: a slow moment of the machine meets both
            begin = time.process_time()
            parse_only(path)
            peer.append(time.process_time() - begin)
            begin = time.process_time()
            history = load(path)
            ours.append(time.process_time() - begin)
            assert len(history.operations) == options.operations
            assert history.complete
            del history
        scale = 1e6 / options.operations
        print(
            f"load         {min(ours) * scale:.2f} us/operation CPU, best of {REPEATS} (all: {', '.join(f'{s * scale:.2f}' for s in ours)})"
        )
        print(f"parse only   {min(peer) * scale:.2f} us/operation CPU, best of {REPEATS}")
        print(f"ratio        {statistics.median(o / p for o, p in zip(ours, peer, strict=True)):.2f} (median of pairs)")
        # In a process of its own: peak memory never falls again.
        result = subprocess.run([sys.executable, __file__, "--memory-of", str(path)], check=True, capture_output=True, text=True)
        print(f"memory       {float(result.stdout):.0f} bytes/operation at the peak of loading")


if __name__ == "__main__":
    main()
