"""Raft messages between members, by their kind: dropped, held, late - or altered.

::

    m1 ── App, Heartbeat, App, ReadIndexResp, Heartbeat ──> m2         messages kind=MsgReadIndexResp action=hold
    m1 ── App, Heartbeat, App,                Heartbeat ──> m2         the others overtake it; in order among themselves at the end

Of two that concern one message the one that was armed first decides: `kind=any action=drop`, armed second, leaves a member with what the
first is still to deliver. Raft is written for messages that are lost, late and out of order: `messages` is `within`. It is not written
for altered ones, and between members without TLS nothing checks them: `corrupt` is `outside`, and asks what etcd notices.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, ClassVar

from pekan.errors import UsageError
from pekan.faults.drawing import weighted
from pekan.faults.injector import Armed, Drawn, Frequency, Parameter
from pekan.faults.network.links import DIRECTION, DIRECTIONS, RECOVERY_MS, LinkFault, hold, peer, some_time
from pekan.faults.network.rafthttp import KINDS

DROP, HOLD, DELAY = "drop", "hold", "delay"
ANY = "any"
SENT = {
    "MsgApp": 20,
    "MsgAppResp": 15,
    "MsgHeartbeat": 15,
    "MsgHeartbeatResp": 15,
    "MsgReadIndex": 10,
    "MsgReadIndexResp": 10,
    "MsgProp": 10,
    "MsgVote": 3,
    "MsgVoteResp": 3,
    "MsgPreVote": 3,
    "MsgPreVoteResp": 3,
    "MsgSnap": 3,
    "MsgTimeoutNow": 1,
}
"""Weights of the kinds that members send each other: what flows all the time rather than what needs an election, a lagging member or a
handover, because a fault on those seldom meets one."""
FLOWING = ("MsgApp", "MsgAppResp", "MsgHeartbeat", "MsgHeartbeatResp")
"""Without these a follower is left behind, or deposes its leader."""


def _kinds(armed: Armed) -> list[str]:
    """What `kind` names: one, several with commas, or any. Raises `UsageError`."""
    text = armed.text("kind")
    wanted = [] if text == ANY else text.split(",")
    if unknown := [kind for kind in wanted if kind not in KINDS]:
        raise UsageError(
            f"kind={text}: no raft message is called {unknown[0]}; write {ANY}, or of {', '.join(SENT)} one or more with commas"
        )
    return wanted


class Messages(LinkFault):
    """Messages of one kind dropped, held or late."""

    kind: ClassVar[str] = "messages"
    does: ClassVar[str] = "messages"
    summary: ClassVar[str] = (
        "raft messages of a kind are dropped, held until the end, or late; the others overtake them. Of two such faults for a message the "
        "one armed first decides"
    )
    frequency: ClassVar[Frequency] = "year"
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "hold_ms": hold(3_000),
        "kind": Parameter("MsgApp", "text", "which: names of raft's messages with commas, or any"),
        "action": Parameter(DROP, "text", "what becomes of them", (DROP, HOLD, DELAY)),
        "delay_ms": Parameter(300, "ms", "action=delay: how late they are"),
        "jitter_ms": Parameter(0, "ms", "action=delay: and up to so much more, uniformly"),
        "percent": Parameter(100, "percent", "of them, drawn one by one"),
        "peer": peer("all"),
        "direction": DIRECTION,
    }

    def draw(self, rng: random.Random) -> Drawn:
        return Drawn(
            weighted(rng, {"leader": 50, "follower": 25, "any": 25}),
            {
                "hold_ms": some_time(rng),
                "kind": weighted(rng, SENT),
                "action": rng.choice((DROP, HOLD, DELAY)),
                "delay_ms": rng.randint(20, 1_500),
                "jitter_ms": rng.choice((0, 100, 500)),
                "percent": rng.choice((100, 100, 50, 10)),
                "peer": "all",
                "direction": weighted(rng, DIRECTIONS),
            },
        )

    def down_ms(self, parameters: Mapping[str, int | str]) -> int:
        kinds = str(parameters.get("kind", "MsgApp")).split(",")
        stops = ANY in kinds or any(kind in FLOWING for kind in kinds)
        return int(parameters["hold_ms"]) + RECOVERY_MS if stops else 0

    def settings(self, armed: Armed) -> Mapping[str, Any]:
        action = armed.text("action")
        if action not in (DROP, HOLD, DELAY):
            raise UsageError(f"action={action}: write {DROP}, {HOLD} or {DELAY}")
        return {
            "kinds": _kinds(armed),
            "action": action,
            "delay_ms": armed.number("delay_ms"),
            "jitter_ms": armed.number("jitter_ms"),
            "percent": armed.number("percent"),
        }


class Corrupt(LinkFault):
    """A byte of a message altered."""

    kind: ClassVar[str] = "corrupt"
    does: ClassVar[str] = "corrupt"
    summary: ClassVar[str] = "one byte of some raft messages is altered on the way; nothing but TLS would notice"
    promise: ClassVar[str] = "outside"
    frequency: ClassVar[Frequency] = "century"
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "hold_ms": hold(1_000),
        "kind": Parameter("MsgApp", "text", "which: names of raft's messages with commas, or any"),
        "percent": Parameter(5, "percent", "of them, drawn one by one"),
        "peer": peer("any"),
        "direction": DIRECTION,
    }

    def draw(self, rng: random.Random) -> Drawn:
        kind = rng.choice(("MsgApp", "MsgApp", ANY))
        return Drawn("leader", {"hold_ms": rng.randint(300, 2_000), "kind": kind, "percent": rng.randint(1, 20)})

    def down_ms(self, parameters: Mapping[str, int | str]) -> int:
        return int(parameters["hold_ms"]) + RECOVERY_MS

    def settings(self, armed: Armed) -> Mapping[str, Any]:
        return {"kinds": _kinds(armed), "percent": armed.number("percent")}
