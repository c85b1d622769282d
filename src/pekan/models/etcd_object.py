"""etcd as one sequential object, for the engine that knows nothing of revisions.

::

    call                                 answer that fits
    ===================================  =======================================================================================
    Asked(request)                       the response: its header's revision and all content, as `pekan.models.etcd` evaluates it;
                                         of a compaction nothing, of a lease grant its id; UNKNOWN: whatever
    Asked(request), WireError            the refusal, where it states a fact that is true now (see FACTS); anything else is no call
    Expiry(lease, grant)                 UNKNOWN: the lease that operation `grant` granted runs out, and takes its keys along
    Exists(revision)                     True: that revision has been reached

A state is a `pekan.models.etcd.State` that is never changed once it is made; its leases remember which operation granted them in place of
their TTL. Small histories only: every step copies the store.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, NamedTuple

from pekan.models.etcd import Evaluated, Refused, State, apply, branch_taken, evaluate, may_write
from pekan.models.object import ILLEGAL, UNKNOWN, Called, Model
from pekan.wire import errors
from pekan.wire.errors import WireError
from pekan.wire.messages import (
    CompactionRequest,
    CompactionResponse,
    DeleteRangeResponse,
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseRevokeRequest,
    PutResponse,
    TxnRequest,
    TxnResponse,
)

FACTS = frozenset({errors.COMPACTED, errors.FUTURE_REVISION, errors.LEASE_NOT_FOUND, errors.LEASE_EXISTS, errors.KEY_NOT_FOUND})
"""Refusals that say something about the state of the store."""


class Asked(NamedTuple):
    """A request to the store. `by` is the operation of a lease grant (0 of all others): which grant it was matters when it runs out."""

    value: Any
    by: int = 0
    key: None = None

    @property
    def f(self) -> str:
        """What was asked."""
        return type(self.value).__name__.removesuffix("Request").lower()


class Expiry(NamedTuple):
    """The end of the lease `value` that operation `by` granted."""

    value: int
    by: int
    f: str = "expiry"
    key: None = None


class Exists(NamedTuple):
    """Somebody saw that revision `value` exists."""

    value: int
    f: str = "exists"
    key: None = None


class EtcdModel(Model):
    """The key-value machine of etcd. `past`: some request reads at older revisions, so they are kept."""

    name = "etcd"

    def __init__(self, past: bool = True) -> None:
        self.past = past

    def init(self) -> State:
        return State(past={} if self.past else None)

    def key(self, state: State) -> Hashable:
        past = None if state.past is None else frozenset((key, tuple(versions)) for key, versions in state.past.items())
        leases = frozenset((state.leases or {}).items())
        return state.revision, state.compacted, frozenset(state.kvs.values()), leases, past

    def step(self, state: State, call: Called, output: Any) -> Any:
        if isinstance(call, Exists):
            return state if state.revision >= call.value else ILLEGAL
        if isinstance(call, Expiry):
            ends = state.leases is not None and state.leases.get(call.value) == call.by
            return _applied(state, LeaseRevokeRequest(call.value)) if ends else ILLEGAL
        assert isinstance(call, Asked)
        if isinstance(output, WireError):
            return state if refuses(state, call.value, output.message) else ILLEGAL
        told = None if output is UNKNOWN else output
        outcome = evaluate(state, call.value, told)
        if isinstance(outcome, Refused) or not (told is None or same(outcome.answer, told)):
            return ILLEGAL
        if not outcome.events and not isinstance(call.value, CompactionRequest | LeaseGrantRequest | LeaseRevokeRequest):
            return state
        return _applied(state, call.value, told, call.by)

    def readonly(self, call: Called, output: Any) -> bool:
        if isinstance(call, Exists) or isinstance(output, WireError):
            return True
        if not isinstance(call, Asked) or isinstance(call.value, CompactionRequest | LeaseGrantRequest | LeaseRevokeRequest):
            return False
        return not may_write(call.value) or (output is not UNKNOWN and not wrote(output))

    def resets(self, call: Called, output: Any) -> bool:
        return False

    def viable(self, state: State, call: Called, output: Any) -> bool:
        # Revisions only grow, and an answer (but that to a compaction) names its own.
        if not isinstance(call, Asked) or isinstance(output, WireError | CompactionResponse) or output is UNKNOWN:
            return True
        return bool(state.revision <= output.header.revision)


def _applied(state: State, request: Any, told: Any = None, by: int = 0) -> State:
    """The state after `request`, which it does not refuse."""
    after = State(
        state.revision,
        state.compacted,
        dict(state.kvs),
        list(state.keys),
        {lease: set(keys) for lease, keys in state.attached.items()},
        dict(state.leases or {}),
        None if state.past is None else {key: list(versions) for key, versions in state.past.items()},
    )
    outcome = apply(after, request, told)
    assert isinstance(outcome, Evaluated)
    if isinstance(request, LeaseGrantRequest) and after.leases is not None:
        after.leases[outcome.answer.id] = by
    return after


def refuses(state: State, request: Any, text: str) -> bool:
    """Whether `state` gives a reason to refuse `request` for `text`. Of several reasons in a Txn, releases name different ones."""
    if not isinstance(request, TxnRequest):
        return evaluate(state, request) == Refused(text)
    return any(evaluate(state, inner) == Refused(text) for inner in branch_taken(state, request))


def same(ours: Any, theirs: Any) -> bool:
    """Whether two answers agree in all that etcd can be held to."""
    if type(ours) is not type(theirs):
        return False
    if isinstance(ours, CompactionResponse):
        return True
    if ours.header.revision != theirs.header.revision:
        return False
    return bool(ours.id == theirs.id) if isinstance(ours, LeaseGrantResponse) else bool(ours[1:] == theirs[1:])


def wrote(answer: Any) -> bool:
    """Whether an answer says that something was changed."""
    if isinstance(answer, TxnResponse):
        return any(wrote(inner) for inner in answer.responses)
    return isinstance(answer, PutResponse) or (isinstance(answer, DeleteRangeResponse) and answer.deleted > 0)
