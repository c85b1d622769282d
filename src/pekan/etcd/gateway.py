"""Asking a member over etcd's own HTTP gateway, with nothing but the standard library.

    cluster ──POST /v3/kv/range, /v3/maintenance/status──> gateway in etcd ──gRPC──> the same member

It is the cluster's default probe, so that a cluster can be started, watched and tested without gRPC. One connection a
question, HTTP/1.0 (the answer ends with the connection).
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from typing import Any

from pekan.etcd.spec import MemberSpec, MemberStatus, TlsFiles

# Both answers are under 1 kB; more is not a member that answers.
ANSWER_BYTES_MAX = 64 * 1024

# No workload writes it, and whether it exists is no matter.
PROBE_KEY = b"\0pekan-probe"

# gRPC codes that a refused Range carries in the gateway's JSON: InvalidArgument ("user name is empty"),
# PermissionDenied, Unauthenticated.
_AUTH_CODES = (3, 7, 16)


class GatewayProbe:
    """A `Probe` over the gateway. Raises `ConnectionError` for an answer that is none, `OSError` for a failed connection."""

    async def linearizable_read(self, member: MemberSpec) -> None:
        """A Range of one key that nobody writes.

        Where authentication is enabled the answer is a refusal. It is as good: etcd waits for the read index before it
        looks at the user (etcd server/etcdserver/v3_server.go, Range).
        """
        status, answer = await ask(member, "/v3/kv/range", {"key": base64.b64encode(PROBE_KEY).decode(), "count_only": True})
        if status != 200 and answer.get("code") not in _AUTH_CODES:
            raise ConnectionError(f"{member.name} refused a linearizable read: HTTP {status}, {_message(answer)}")

    async def status(self, member: MemberSpec) -> MemberStatus:
        """Maintenance/Status. Where authentication is enabled, releases from 3.4.42, 3.5.28 and 3.6.0 on refuse it without a user."""
        status, answer = await ask(member, "/v3/maintenance/status", {})
        header = answer.get("header")
        if status != 200 or not isinstance(header, dict):
            raise ConnectionError(f"{member.name} refused to tell its status: HTTP {status}, {_message(answer)}")
        return MemberStatus(
            member_id=int(header.get("member_id", 0)),
            cluster_id=int(header.get("cluster_id", 0)),
            leader=int(answer.get("leader", 0)),
            raft_term=int(answer.get("raftTerm", 0)),
            raft_index=int(answer.get("raftIndex", 0)),
            raft_applied_index=int(answer.get("raftAppliedIndex", 0)),
            revision=int(header.get("revision", 0)),
            version=str(answer.get("version", "")),
        )


def _message(answer: dict[str, Any]) -> str:
    return str(answer.get("message") or answer.get("error") or answer)[:200]


async def ask(member: MemberSpec, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """POST to the member's gateway: HTTP status and JSON answer. The caller sets the deadline. Raises as the probe does."""
    host, port = member.advertise_client
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.0\r\nHost: {member.advertise_client}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    context = _context(member.tls) if member.tls else None
    reader, writer = await asyncio.open_connection(host, port, ssl=context, limit=ANSWER_BYTES_MAX)
    try:
        writer.write(head.encode() + content)
        await writer.drain()
        status_line = await reader.readline()
        while (await reader.readline()).strip():
            continue
        text = await reader.read(ANSWER_BYTES_MAX)
        while more := await reader.read(ANSWER_BYTES_MAX - len(text)):
            text += more
    finally:
        writer.transport.abort()
    try:
        answer = json.loads(text)
        status = int(status_line.split()[1])
    except (ValueError, IndexError) as error:
        raise ConnectionError(f"{member.name} answered {path} with no JSON: {(status_line + text)[:100]!r}") from error
    return status, answer if isinstance(answer, dict) else {}


def _context(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(files.ca))
    context.load_cert_chain(files.client_certificate, files.client_key)
    return context
