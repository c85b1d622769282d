"""Do the members hold the same? Asked in the form that proves something, judged elsewhere (checkers/members.py).

::

    every member   Alarm(GET)            goes through raft: its answer shows that the member has applied up to here
    every member   Status, Status        until index, applied index and revision stand still on all
    every member   AuthStatus            goes through raft as well, so it comes between moments of rest and never within one
    every member   Status, Status        as before
    every member   HashKV(R)             R = the smallest revision seen, so that every member has it

Why in this form: a member's (index, revision) is known only from two Status answers of one process around a moment of rest, and an auth
revision only where nothing but such questions was committed between two of these moments.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from pekan.wire.errors import is_decided
from pekan.wire.messages import pb
from pekan.workloads.traffic import Caller

ROUNDS_MAX = 10
"""Rounds of Status before the members are taken as they are; at rest the first or second round is enough."""
ROUND_PAUSE_S = 0.1
ALARM_ATTEMPTS = 3
"""An invalid token, a login that meets an election, and one more."""


async def compare(callers: Mapping[str, Caller], *, rounds: int = ROUNDS_MAX, timeout_s: float | None = None) -> bool:
    """Ask every member as above. True where all of them stood at one index; the answers are in the record either way.

    `timeout_s`: of each question; without it the plan's.
    """
    if not all(await asyncio.gather(*(_caught_up(caller, timeout_s) for caller in callers.values()))):
        return False
    at_rest, revisions = await _rest(callers, rounds, timeout_s)
    answered = await asyncio.gather(*(caller.call(pb.AuthStatusRequest(), timeout_s) for caller in callers.values()))
    if any(reply.outcome == "ok" for reply in answered):  # 3.4 does not know the request.
        at_rest, revisions = await _rest(callers, rounds, timeout_s)
    if len(revisions) == len(callers):
        revision = min(revisions)
        # One after the other: a hash holds up the writes of its member.
        for caller in callers.values():
            await caller.call(pb.HashKVRequest(revision=revision), timeout_s)
    return at_rest


async def _caught_up(caller: Caller, timeout_s: float | None) -> bool:
    """Whether a member answered Alarm(GET). A first attempt may only find out that the token died with the member's last process, and
    several that it is being dialled: within `timeout_s`, where it is given, there are as many as it takes."""
    loop = asyncio.get_running_loop()
    end = loop.time() + (timeout_s or 0.0)
    attempts, refused = 0, False
    while attempts < ALARM_ATTEMPTS or (loop.time() < end and not refused):
        reply = await caller.call(pb.AlarmRequest(), timeout_s)
        if reply.outcome == "ok":
            return True
        attempts, refused = attempts + 1, is_decided(reply.output)
    return False


async def _rest(callers: Mapping[str, Caller], rounds: int, timeout_s: float | None) -> tuple[bool, list[int]]:
    """Whether all members stood still at one index, and the last revision of each that answered."""
    at_rest = False
    revisions: list[int] = []
    for number in range(rounds):
        if number:
            await asyncio.sleep(ROUND_PAUSE_S)
        found = await asyncio.gather(*(_state(caller, timeout_s) for caller in callers.values()))
        states = [state for state in found if state is not None]
        revisions = [revision for _, revision in states]
        at_rest = len(states) == len(callers) and None not in (indices := {index for index, _ in states}) and len(indices) == 1
        if at_rest:
            break
    return at_rest, revisions


async def _state(caller: Caller, timeout_s: float | None) -> tuple[int | None, int] | None:
    """(index, revision) of a member: the index None where it moved between two Status answers. None where it did not answer."""
    first = await caller.call(pb.StatusRequest(), timeout_s)
    second = await caller.call(pb.StatusRequest(), timeout_s)
    if first.outcome != "ok" or second.outcome != "ok":
        return None
    a, b = first.output, second.output
    still = a.raftAppliedIndex == b.raftAppliedIndex == b.raftIndex
    return (b.raftIndex if still else None), b.header.revision
