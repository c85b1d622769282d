"""What watches show, merged once and shared by all checkers."""

from __future__ import annotations

from dataclasses import dataclass, field

from pekan.checkers.case import Case
from pekan.wire.messages import Event


@dataclass(slots=True)
class Watched:
    """Events seen by any watch of the history, by revision.

    events    revision -> the events known of it in key order (`prev_kv` as received by anyone, else None)
    whole     revisions whose complete write set is known: delivered by a watch of the whole keyspace without filters
              (fragments reassembled), on a message boundary
    seen      revision -> (time ns, stream id) of the first delivery
    by_member member name -> revision -> events, for streams of the whole keyspace
    """

    events: dict[int, tuple[Event, ...]] = field(default_factory=dict)
    whole: set[int] = field(default_factory=set)
    seen: dict[int, tuple[int, int]] = field(default_factory=dict)
    by_member: dict[str, dict[int, tuple[Event, ...]]] = field(default_factory=dict)


def watched(case: Case) -> Watched:
    """The merged watch evidence of `case`, computed at the first call."""
    known = case.shared.get("watched")
    if not isinstance(known, Watched):
        known = Watched()
        case.shared["watched"] = known
    return known
