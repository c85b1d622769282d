"""Locks: held by one at a time.

============  =========  ==================================================  ===========================================================
model         call       argument                                            answer
============  =========  ==================================================  ===========================================================
mutex         acquire    not looked at                                       not looked at
              release    not looked at                                       not looked at
fenced-lock   acquire    not looked at                                       its token, greater than every one before; nil: not told
              release    the token; anything else: not told                  not looked at
============  =========  ==================================================  ===========================================================

A lock is free at first. Who holds it is not modelled, as in Knossos: a release by anybody frees it. A failed acquire says nothing.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, NamedTuple

from pekan.models.object import ILLEGAL, Called, Model


class Mutex(Model):
    """A lock. Its state is whether it is held."""

    name = "mutex"
    calls: ClassVar = {"acquire": "", "release": ""}

    def init(self) -> bool:
        return False

    def step(self, state: bool, call: Called, output: Any) -> Any:
        wants = call.f == "acquire"
        return wants if state != wants else ILLEGAL

    def requires(self, call: Called, output: Any) -> bool:
        return call.f == "release"

    def produces(self, call: Called, output: Any) -> bool:
        return call.f == "acquire"


class Fence(NamedTuple):
    """The state of a fenced lock.

    held   "free", "known" where the holder's token is `token`, or "unseen" where nobody saw it: then it is `token` or greater
    token  the greatest token that must have been given so far; None: none was
    """

    held: Literal["free", "known", "unseen"]
    token: int | None


class FencedLock(Model):
    """A lock that gives every holder a greater token than all before."""

    name = "fenced-lock"
    calls: ClassVar = {"acquire": "-> token", "release": "token"}

    def init(self) -> Fence:
        return Fence("free", None)

    def step(self, state: Fence, call: Called, output: Any) -> Any:
        held, least = state
        if call.f == "acquire":
            if held != "free":
                return ILLEGAL
            if not is_token(output):
                return Fence("unseen", None if least is None else least + 1)
            return Fence("known", output) if least is None or output > least else ILLEGAL
        if held == "free":
            return ILLEGAL
        if not is_token(call.value):
            return Fence("free", least)
        if held == "known" and call.value != least:
            return ILLEGAL
        if least is not None and call.value < least:
            return ILLEGAL
        return Fence("free", call.value)

    def resets(self, call: Called, output: Any) -> bool:
        return False

    def viable(self, state: Fence, call: Called, output: Any) -> bool:
        return call.f != "acquire" or not is_token(output) or state.token is None or output > state.token


def is_token(value: Any) -> bool:
    """Whether `value` can be a token: a whole number."""
    return isinstance(value, int) and not isinstance(value, bool)
