"""Is a snapshot what its member sent? (SNAPSHOT-DIGEST)

::

    Snapshot stream     piece, piece, ... the last one says that nothing remains; status OK
                        └──────────── the database ────────────┴─ 32 bytes: SHA-256 of what came before ─┘

A stream that broke, or that its reader closed, proves nothing. What a restored snapshot holds is judged beside the crash images.

Source: etcd server/etcdserver/api/v3rpc/maintenance.go (the digest is appended since 3.0, as its integrity check of backups).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from pekan.checkers.case import Case
from pekan.history.types import Stream
from pekan.verdict import CheckerReport, Exhibit, Finding
from pekan.wire.messages import SNAPSHOT

NAME = "snapshots"
DIGEST_BYTES = 32


def check_snapshots(case: Case) -> CheckerReport:
    """Compare the digest at the end of each whole snapshot with what came before it."""
    streams = [stream for stream in case.history.streams if stream.method == SNAPSHOT]
    if not streams:
        return CheckerReport(NAME, applicable=False)
    whole = [stream for stream in streams if _whole(stream)]
    findings = tuple(finding for stream in whole for finding in _digest(stream))
    return CheckerReport(NAME, applicable=True, judged={"snapshots": len(streams), "whole": len(whole)}, findings=findings)


def _whole(stream: Stream) -> bool:
    """Whether the member said that it had sent all of it."""
    received = [item.message for item in stream.messages if not item.sent]
    return bool(received) and received[-1].remaining_bytes == 0 and stream.ended is not None and stream.code == 0 and not stream.by_client


def _digest(stream: Stream) -> Iterator[Finding]:
    data = b"".join(item.message.blob for item in stream.messages if not item.sent)
    told, found = data[-DIGEST_BYTES:], hashlib.sha256(data[:-DIGEST_BYTES]).digest()
    if told == found:
        return
    what = f"a snapshot of {len(data)} bytes whose last {DIGEST_BYTES} are {told.hex()}"
    yield Finding(
        code="SNAPSHOT-DIGEST",
        summary=f"the snapshot that {stream.member} streamed has another digest than it ends with",
        explanation=(
            f"{stream.member} said that nothing of it remained and ended the stream with status OK. The SHA-256 of what came before the "
            f"last {DIGEST_BYTES} bytes is {found.hex()}."
        ),
        certificate=(Exhibit(what, stream=stream.id, member=stream.member, start=stream.messages[0].time, end=stream.ended),),
        subject={"member": stream.member},
        shape=("Snapshot",),
    )
