"""The models that have a name, and which of them a history looks like."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

from pekan.models.containers import Counter, FifoQueue, KvAppend, ListAppend, Set, Stack
from pekan.models.locks import FencedLock, Mutex, is_token
from pekan.models.object import UNKNOWN, Called, Model
from pekan.models.registers import WRITES, CasRegister, MultiRegister, Register, VersionedRegister, is_pair

_WITH_INITIAL: tuple[Callable[[Any], Model], ...] = (Register, CasRegister, VersionedRegister, Counter, Set, FifoQueue, Stack, KvAppend)
READY: dict[str, type[Model]] = {
    model.name: model
    for model in (
        Register,
        CasRegister,
        VersionedRegister,
        MultiRegister,
        KvAppend,
        Counter,
        Set,
        FifoQueue,
        Stack,
        Mutex,
        FencedLock,
        ListAppend,
    )
}
"""Models of objects by the name that `--model` takes. (etcd has a checker of its own and is not among them.)"""


def ready(name: str, initial: Any = None) -> Model:
    """The model of that name. `initial` is what the object holds at first; None: it is unset.

    Raises KeyError for an unknown name, ValueError where such an object has no initial value.
    """
    model = READY[name]
    if initial is None:
        return model()
    if model not in _WITH_INITIAL:
        raise ValueError(f"a {name} has no initial value")
    return model(initial)  # type: ignore[call-arg]


def guess(names: Collection[str], some: Iterable[tuple[Called, Any]]) -> str | None:
    """The name of the model that a history looks like; None where it tells nothing or could be of several.

    `names` are those of all its calls, `some` are (call, output) of its first ones, whose values tell apart what names do not. Outputs are
    UNKNOWN where nobody saw an answer.
    """
    names, seen = set(names), list(some)
    if not names:
        return None
    if names <= {"read", "write", "cas"} and names != {"read"}:
        pairs = [call.value for call, _ in seen if call.f != "read"]
        if all(is_pair(pair) and pair[0] is None for pair in pairs):
            return VersionedRegister.name
        return CasRegister.name if "cas" in names else Register.name
    if names <= {"acquire", "release"}:
        told = any(is_token(output) for call, output in seen if call.f == "acquire")
        return FencedLock.name if told else Mutex.name
    if names == {"txn"}:
        kinds = {part[0] for call, _ in seen for part in call.value or () if isinstance(part, tuple) and part}
        if "append" in kinds:
            return ListAppend.name
        return MultiRegister.name if kinds & set(WRITES) else None
    if names <= {"add", "read"} and "add" in names:
        outputs = [output for call, output in seen if call.f == "read" and output is not UNKNOWN and output is not None]
        if outputs and all(isinstance(output, tuple | frozenset) for output in outputs):
            return Set.name
        return Counter.name if outputs and all(isinstance(output, int | float) for output in outputs) else None
    for model in (Set, KvAppend, FifoQueue, Stack):
        if names <= set(model.calls) and names != {"read"}:
            return model.name
    return None
