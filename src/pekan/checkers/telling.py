"""Operations and events in words: what a certificate shows.

One line an operation: who asked which member for what, and what it was answered. Keys and values are shown as text where they are text, and
cut at SHOWN bytes, lists at SHOWN_ITEMS items: a certificate is for reading, the record has the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pekan.checkers.services import caller_of
from pekan.history.types import OK, Operation
from pekan.verdict import Exhibit
from pekan.wire import pb
from pekan.wire.errors import CODE_NAMES, WireError
from pekan.wire.messages import (
    DELETE,
    CompactionRequest,
    Compare,
    DeleteRangeRequest,
    DeleteRangeResponse,
    Event,
    KeyValue,
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseRevokeRequest,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    TxnRequest,
    TxnResponse,
)

SHOWN = 40
SHOWN_ITEMS = 6
_TARGETS = ("version", "create_revision", "mod_revision", "value", "lease")
_RELATIONS = ("=", ">", "<", "!=")


def text(data: bytes) -> str:
    """A key or value as it can be read, quoted."""
    cut = data[:SHOWN]
    try:
        shown = cut.decode()
        shown = repr(shown) if shown.isprintable() else repr(cut)[1:]
    except UnicodeDecodeError:
        shown = repr(cut)[1:]
    return shown if len(data) <= SHOWN else f"{shown}... ({len(data)} bytes)"


def key_range(key: bytes, range_end: bytes) -> str:
    """A key, or a range of keys."""
    if not range_end:
        return text(key)
    if range_end == b"\0":
        return "all keys" if key == b"\0" else f"[{text(key)}, end)"
    return f"[{text(key)}, {text(range_end)})"


def key_value(kv: KeyValue) -> str:
    """A KeyValue in words."""
    lease = f", lease {kv.lease:x}" if kv.lease else ""
    return f"{text(kv.key)}={text(kv.value)} (mod {kv.mod_revision}, version {kv.version}, created {kv.create_revision}{lease})"


def request(value: Any) -> str:
    """A request in words, its options named where they are not the default."""
    kind = type(value)
    if kind is PutRequest:
        return f"put {text(value.key)}={text(value.value)}{_options(value, 2)}"
    if kind is RangeRequest:
        return f"range {key_range(value.key, value.range_end)}{_options(value, 2)}"
    if kind is DeleteRangeRequest:
        return f"delete {key_range(value.key, value.range_end)}{_options(value, 2)}"
    if kind is TxnRequest:
        guards = " and ".join(map(_guard, value.compare)) or "true"
        return f"txn if {guards} then [{_several(request, value.success)}] else [{_several(request, value.failure)}]"
    if kind is CompactionRequest:
        return f"compact {value.revision}"
    if kind is LeaseGrantRequest:
        return f"grant lease {value.id:x} for {value.ttl} s"
    if kind is LeaseRevokeRequest:
        return f"revoke lease {value.id:x}"
    if kind is pb.LockRequest:
        return f"lock {text(value.name)} (lease {value.lease:x})"
    if kind is pb.UnlockRequest:
        return f"unlock {text(value.key)}"
    if kind is pb.CampaignRequest:
        return f"campaign for {text(value.name)} (lease {value.lease:x})"
    return kind.__name__


def _options(value: Any, start: int) -> str:
    defaults = type(value)._field_defaults
    shown = [_option(name, held) for name, held in value._asdict().items() if held != defaults.get(name, held)]
    shown = [each for each in shown if not each.startswith(("value ", "range_end "))]
    return f" ({', '.join(shown)})" if shown else ""


def _option(name: str, held: Any) -> str:
    if held is True:
        return name
    return f"lease {held:x}" if name == "lease" else f"{name} {held}"


def _guard(compare: Compare) -> str:
    operand = text(compare.operand) if isinstance(compare.operand, bytes) else str(compare.operand)
    return f"{_TARGETS[compare.target]} of {key_range(compare.key, compare.range_end)} {_RELATIONS[compare.result]} {operand}"


def _several(tell: Callable[[Any], str], items: Sequence[Any]) -> str:
    # Only what is shown is told: a watch's first message may hold a thousand revisions, and a finding is made for each that is missing.
    rest = f", and {len(items) - SHOWN_ITEMS} more" if len(items) > SHOWN_ITEMS else ""
    return ", ".join(map(tell, items[:SHOWN_ITEMS])) + rest


def answer(value: Any) -> str:
    """A response, or the error instead of one, in words."""
    kind = type(value)
    if value is None:
        return "no answer"
    if isinstance(value, WireError):
        name = CODE_NAMES[value.code] if 0 <= value.code < len(CODE_NAMES) else str(value.code)
        return f"error {name}: {value.message}"
    return f"{_content(value)} at revision {value.header.revision}" if kind is not dict else str(value)


def _content(value: Any) -> str:
    kind = type(value)
    if kind is RangeResponse:
        return f"[{_several(key_value, value.kvs)}] count {value.count}{', more' if value.more else ''}"
    if kind is PutResponse:
        return f"ok, replaced {key_value(value.prev_kv)}" if value.prev_kv is not None else "ok"
    if kind is DeleteRangeResponse:
        removed = f" [{_several(key_value, value.prev_kvs)}]" if value.prev_kvs else ""
        return f"deleted {value.deleted}{removed}"
    if kind is TxnResponse:
        return f"{'succeeded' if value.succeeded else 'not succeeded'} [{_several(_content, value.responses)}]"
    if kind is LeaseGrantResponse:
        return f"lease {value.id:x} for {value.ttl} s"
    if kind is pb.LockResponse:
        return f"ok, key {text(value.key)}"
    if kind is pb.CampaignResponse:
        return f"ok, key {text(value.leader.key)} (created {value.leader.rev})"
    return "ok"


def event(value: Event) -> str:
    """A watch event in words."""
    return f"delete {text(value.kv.key)}" if value.type == DELETE else f"put {key_value(value.kv)}"


def events(values: Sequence[Event]) -> str:
    """The events of one revision in words."""
    return f"[{_several(event, values)}]"


def exhibit(op: Operation, said: str = "") -> Exhibit:
    """One operation as an exhibit; `said` adds what matters about it."""
    number = caller_of(op.id)
    behalf = f" ({op.method.rpartition('/')[2]})" if number != op.id else ""
    who = f"operation {number}{behalf}, client {op.client or op.process}" + (f" at {op.member}" if op.member else "")
    what = f"{who}: {request(op.input)} -> {answer(op.output)}" + (f" ({said})" if said else "")
    return Exhibit(what, operation=number, member=op.member, start=op.call, end=op.ret if op.outcome == OK else op.gave_up or op.ret)


def kind_of(value: Any) -> str:
    """The kind of a request for a finding's shape: its method and the options set, nothing that names keys."""
    kind = type(value)
    name = kind.__name__.removesuffix("Request").lower()
    if kind is TxnRequest:
        inner = sorted({kind_of(op) for op in value.success + value.failure})
        return f"{name}({', '.join(inner)})"
    if kind in (PutRequest, RangeRequest, DeleteRangeRequest):
        defaults = kind._field_defaults
        options = [n for n, held in value._asdict().items() if n not in ("key", "value") and held != defaults.get(n, held)]
        return " ".join([name, *options])
    return name
