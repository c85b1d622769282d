"""How a cluster's own questions (ready? who leads?) are asked: through recorded gRPC clients, so that they are evidence too.

Two clients a member, named ``probe-<member>`` (does it serve?) and ``status-<member>`` (what it says of itself); a call at a time each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pekan.errors import ClusterFailure
from pekan.etcd.client import Client, Reply
from pekan.etcd.spec import MemberSpec, MemberStatus
from pekan.wire.errors import WireError, is_decided
from pekan.wire.messages import RangeRequest, Request, pb
from pekan.workloads.traffic import Caller, Traffic, token_refused

KEY = b"pekan/probe"
"""Read and never written."""


class Probe:
    """Asks members by gRPC. `open_client(name, spec)` makes a client that its owner closes."""

    def __init__(self, open_client: Callable[[str, MemberSpec], Client], timeout_s: float) -> None:
        self._open = open_client
        self._timeout_s = timeout_s
        self._clients: dict[str, tuple[Client, asyncio.Lock]] = {}
        self._traffic: Traffic | None = None
        self._callers: dict[str, Caller] = {}

    def speak_as_administrator(self, traffic: Traffic) -> None:
        """From now on ask with the token of `traffic`'s administrator, while there is one: with auth on, members from 3.5.35 on tell their
        status to nobody else, and nobody would know who leads."""
        self._traffic = traffic

    async def linearizable_read(self, member: MemberSpec) -> None:
        """Return once `member` has decided a linearizable read; TimeoutError or ClusterFailure otherwise.

        A refusal for want of permission counts: etcd waits for its read index before it looks at permissions (`EtcdServer.Range`). So it is
        asked as nobody: a login costs a member that has just been started more than such a read, and one that does not come to its end
        in time would have to be begun again with each try.
        """
        client, lock = self._client(f"probe-{member.name}", member)
        async with lock:
            reply = await client.call(RangeRequest(KEY), self._timeout_s)
        if reply.outcome != "ok" and not is_decided(reply.output):
            raise ClusterFailure(f"member {member.name} does not answer a linearizable read: {_said(reply.output)}")

    async def status(self, member: MemberSpec) -> MemberStatus:
        """What `member` says of itself."""
        reply = await self._call(member, pb.StatusRequest(), f"status-{member.name}", self._timeout_s)
        if reply.outcome != "ok":
            raise ClusterFailure(f"member {member.name} does not answer Status: {_said(reply.output)}")
        s = reply.output
        return MemberStatus(
            member_id=s.header.member_id,
            cluster_id=s.header.cluster_id,
            leader=s.leader,
            raft_term=s.raftTerm,
            raft_index=s.raftIndex,
            raft_applied_index=s.raftAppliedIndex,
            revision=s.header.revision,
            version=s.version,
        )

    async def ask(self, member: MemberSpec, request: Request, timeout_s: float) -> Reply:
        """One request to `member`, recorded, by a client of its own for what faults ask; as administrator where auth is on."""
        return await self._call(member, request, f"fault-{member.name}", timeout_s)

    def _client(self, name: str, member: MemberSpec) -> tuple[Client, asyncio.Lock]:
        if name not in self._clients:
            self._clients[name] = (self._open(name, member), asyncio.Lock())
        return self._clients[name]

    async def _call(self, member: MemberSpec, request: Request, name: str, timeout_s: float) -> Reply:
        client, lock = self._client(name, member)
        async with lock:
            if self._traffic is None:
                return await client.call(request, timeout_s)
            caller = self._callers.setdefault(name, Caller(self._traffic, client, administrator=True))
            await caller.authorize()
            reply = await client.call(request, timeout_s)
            if isinstance(reply.output, WireError) and token_refused(reply.output):
                caller.forget_token()
            return reply


def _said(output: object) -> str:
    return f"{output.message or output.code}" if isinstance(output, WireError) else "no answer"
