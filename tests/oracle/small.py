"""Small histories by hand: operations of a process each, on a store that starts empty."""

from __future__ import annotations

from pekan.history.types import History, Operation, Outcome, Stream, StreamMessage
from pekan.wire.errors import WireError
from pekan.wire.messages import WATCH, Event, Header, Request, Response, WatchCreateRequest, WatchResponse, method_of

Row = tuple[int, int | None, Outcome, Request, Response | WireError | None]
"""Call, return, outcome, request, answer. Times in ns."""


def at(revision: int) -> Header:
    return Header(1, 1, revision, 1)


def history(*rows: Row, streams: tuple[Stream, ...] = ()) -> History:
    made = [
        Operation(number, number, call, ret, outcome, request, answer, method_of(request), f"kv-{number}", "m1")
        for number, (call, ret, outcome, request, answer) in enumerate(rows, 1)
    ]
    return History(tuple(sorted(made, key=lambda o: o.call)), streams, start="empty")


def watch_of_all(*told: tuple[int, int, tuple[Event, ...]]) -> Stream:
    """A watch of the whole keyspace from the first revision, with previous values: (time, header revision, events) of each message."""
    create = WatchCreateRequest(b"\x00", b"\x00", 1, prev_kv=True)
    messages = [
        StreamMessage(0, True, create),
        StreamMessage(1, False, WatchResponse(at(1), 0, True, False, 0, "", False, ())),
        *(
            StreamMessage(time, False, WatchResponse(at(revision), 0, False, False, 0, "", False, events))
            for time, revision, events in told
        ),
    ]
    return Stream(1, WATCH, "watch-m1-1", "m1", "", tuple(messages), None, 0, "", False)
