"""Asks the monitor that fits: the native one where it is there, the reference where not. Both answer the same, to the operation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from pekan import native
from pekan.checkers.linearizability.monitors.asked import Asked, Monitored
from pekan.checkers.linearizability.monitors.classify import classify
from pekan.checkers.linearizability.monitors.prefix import with_prefix
from pekan.checkers.linearizability.monitors.queue import queue
from pekan.checkers.linearizability.monitors.register import register
from pekan.checkers.linearizability.monitors.set import grow_set
from pekan.checkers.linearizability.monitors.stack import stack
from pekan.history.types import Operation
from pekan.models.object import Model

MONITORS: dict[str, Callable[[Asked], Monitored]] = {"register": register, "set": grow_set, "queue": queue, "stack": stack}


def monitor(model: Model, operations: Sequence[Operation], engine: str = "auto") -> Monitored:
    """Whether `operations`, the calls of one object in order of call, can be put in an order that `model` allows.

    `engine` "reference" keeps the native core out. Places in the answer are those in `operations`.
    """
    asked = classify(model, operations)
    if isinstance(asked, str):
        return Monitored("declined", reason=asked)
    question, places = asked
    answer = decide(question, engine)
    if answer.verdict != "illegal":
        return answer
    return replace(answer, places=tuple(places[place] for place in answer.places), next=places[answer.next])


def decide(asked: Asked, engine: str = "auto") -> Monitored:
    """The answer to a question in columns."""
    if engine == "reference" or native.core is None:
        answer = MONITORS[asked.thing](asked)
        return with_prefix(asked, answer, MONITORS[asked.thing]) if answer.verdict == "illegal" else answer
    return Monitored(*native.core.monitor(asked))
