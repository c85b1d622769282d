"""A record file that the native core holds: operations and messages are made when they are looked at.

::

    history.pb ── core.Session.open ──> columns ── operation(i) ──> bytes ── Decoder ──> Operation
                                                ── message(i, j) ─> bytes ── Decoder ──> StreamMessage
                                                ── rest() ────────> the few records that `reading` reads itself: faults, marks

The core pairs requests with their outcomes by the rules of `reading`, and declines a file of which that would refuse anything. What it says
is decodable is not decoded before somebody asks; what it does not read itself (auth, maintenance, streams other than Watch) is decoded when
the file is opened, since it is little and may be no message at all.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from pekan.history.types import OK, History, Made, Operation, Operations, RecordedStreams, Stream, StreamMessage
from pekan.wire import messages as wire
from pekan.wire.errors import WireError
from pekan.wire.messages import Decoder

READ_BY_THE_CORE = frozenset({wire.RANGE, wire.PUT_METHOD, wire.DELETE_RANGE, wire.TXN, wire.COMPACT, wire.LEASE_GRANT, wire.LEASE_REVOKE})
"""gRPC paths whose requests and responses the core has found decodable; of streams, that of Watch."""


class RecordedOperations(Operations):
    """The operations of a session. Those that were selected by kind are kept: they are few, and asked for again."""

    def __init__(self, session: Any, decoder: Decoder) -> None:
        self.session = session
        self._request = decoder.request
        self._response = decoder.response
        self._methods = frozenset(method for method, _ in session.methods())
        self._selected: dict[str, tuple[list[int], list[Operation]]] = {}

    def __len__(self) -> int:
        return len(self.session)

    def make(self, index: int) -> Operation:
        id_, process, call, ret, outcome, method, request, response, error, client, member, user, gave_up = self.session.operation(index)
        asked = self._request(method, request)
        if outcome == OK:
            answer = self._response(method, response)
        else:
            answer = None if error is None else WireError(*error)
        return Operation(id_, process, call, ret, outcome, asked, answer, method, client, member, user, gave_up)

    def of(self, kinds: frozenset[type]) -> Sequence[Operation]:
        methods = {wire.method_of_type(kind) for kind in kinds}
        parts = [self._of_method(method) for method in sorted(methods)]
        if len(parts) == 1:
            found = parts[0][1]
        else:
            merged = sorted(zip((i for part in parts for i in part[0]), (op for part in parts for op in part[1]), strict=True), key=_index)
            found = [op for _, op in merged]
        return [op for op in found if type(op.input) in kinds]

    def _of_method(self, method: str) -> tuple[list[int], list[Operation]]:
        known = self._selected.get(method)
        if known is None:
            # Most checkers ask for what most histories do not hold.
            indexes: list[int] = self.session.select([method]) if method in self._methods else []
            known = self._selected[method] = (indexes, [self.make(index) for index in indexes])
        return known

    def decode_what_the_core_does_not(self) -> None:
        """Raises ValueError where a request or response is no message of its method."""
        for method in self._methods - READ_BY_THE_CORE:
            self._of_method(method)


def _index(pair: tuple[int, Operation]) -> int:
    return pair[0]


class RecordedMessages(Made[StreamMessage]):
    """The messages of one stream of a session."""

    def __init__(self, session: Any, stream: int, size: int, method: str, decoder: Decoder) -> None:
        self._message = session.message
        self._stream = stream
        self._size = size
        self._method = method
        self._request = decoder.request
        self._response: Callable[[str, bytes], Any] = decoder.response

    def __len__(self) -> int:
        return self._size

    def make(self, index: int) -> StreamMessage:
        time, sent, data = self._message(self._stream, index)
        return StreamMessage(time, sent, (self._request if sent else self._response)(self._method, data))


def recorded_streams(session: Any, decoder: Decoder) -> RecordedStreams:
    """The streams of `session`. Raises ValueError where one that the core does not read holds what is no message of its method."""
    found = RecordedStreams(_stream(session, index, decoder) for index in range(session.streams))
    found.session = session
    return found


def _stream(session: Any, index: int, decoder: Decoder) -> Stream:
    id_, method, client, member, user, ended, code, reason, by_client, size = session.stream(index)
    messages: Sequence[StreamMessage] = RecordedMessages(session, index, size, method, decoder)
    if method != wire.WATCH:
        messages = tuple(messages)
    return Stream(id_, method, client, member, user, messages, ended, code, reason, by_client)


def in_memory(history: History) -> History:
    """`history` with every value made: for whoever goes through all of it more than once."""
    with bulk():
        streams = tuple(replace(stream, messages=tuple(stream.messages)) for stream in history.streams)
        return replace(history, operations=tuple(history.operations), streams=streams)


@contextmanager
def bulk() -> Iterator[None]:
    """No cyclic garbage collection while millions of values without cycles are made: it would walk them again and again.

    Afterwards they count as old, which is what freezing and unfreezing does to them; the first collection of the young would walk them
    all otherwise. (Not where the caller has frozen objects of its own: unfreezing would undo that.)
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            if gc.get_freeze_count() == 0:
                gc.freeze()
                gc.unfreeze()
            gc.enable()
