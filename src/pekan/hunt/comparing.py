"""Do the members hold the same? Asked in the form that proves something, judged elsewhere (checkers/members.py).

::

    every member   Alarm(GET)            goes through raft: its answer shows that the member has applied up to here
    every member   Status, AuthStatus, Status     until index, applied index and revision stand still on all
    every member   HashKV(R)             R = the smallest revision seen, so that every member has it

Why in this form: a member's (index, revision) is known only from two Status answers of one process around a moment of rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from pekan.wire.messages import pb
from pekan.workloads.traffic import Caller

ROUNDS_MAX = 10
"""Rounds of Status before the members are taken as they are; at rest the first or second round is enough."""
ROUND_PAUSE_S = 0.1


async def compare(callers: Mapping[str, Caller], *, rounds: int = ROUNDS_MAX) -> bool:
    """Ask every member as above. True where all of them stood at one index; the answers are in the record either way."""
    alarms = await asyncio.gather(*(caller.call(pb.AlarmRequest()) for caller in callers.values()))
    if any(reply.outcome != "ok" for reply in alarms):
        return False
    at_rest = False
    revisions: list[int] = []
    for _ in range(rounds):
        states = await asyncio.gather(*(_state(caller) for caller in callers.values()))
        known = [state for state in states if state is not None]
        revisions = [revision for _, revision in known]
        at_rest = len(known) == len(callers) and len({index for index, _ in known}) == 1
        if at_rest:
            break
        await asyncio.sleep(ROUND_PAUSE_S)
    if len(revisions) == len(callers):
        revision = min(revisions)
        # One after the other: a hash holds up the writes of its member.
        for caller in callers.values():
            await caller.call(pb.HashKVRequest(revision=revision))
    return at_rest


async def _state(caller: Caller) -> tuple[int, int] | None:
    """(index, revision) of a member that stood still between two Status answers, else None."""
    first = await caller.call(pb.StatusRequest())
    await caller.call(pb.AuthStatusRequest())
    second = await caller.call(pb.StatusRequest())
    if first.outcome != "ok" or second.outcome != "ok":
        return None
    a, b = first.output, second.output
    if not a.raftAppliedIndex == b.raftAppliedIndex == b.raftIndex:
        return None
    return b.raftIndex, b.header.revision
