"""The end of a member that has run out of something: told from every other end by what it wrote, and followed by a start.

A panic that happens to come while a limit is in force is a finding like any other. So an end counts as the fault's doing only where its
wait status is one that running out leads to *and*, where the program ends itself, the log since arming says that it ran out.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from pekan.etcd.spec import MemberState
from pekan.faults.injector import Armed, up_again

if TYPE_CHECKING:
    from pekan.etcd.cluster import Member

LOOK_S = 0.02
LAST_WORDS_S = 0.3
"""How long after a limit was lifted an end that it began may take to show: what the program writes first says why."""
END_S = 10.0
"""From its last words to its end: a dump of all goroutines, on a busy disk."""
LOG_BYTES_MAX = 1 << 20


class Exhaustion:
    """What one member says of running out, from now on."""

    def __init__(self, victim: Member, last_words: str, exit_codes: tuple[int, ...], signals: tuple[int, ...]) -> None:
        """It ends with one of `exit_codes`, and a line of its log matches `last_words`; or by one of `signals`, without a word."""
        self.victim = victim
        self.incarnation = victim.incarnation
        self._last_words = re.compile(last_words.encode())
        self._exit_codes = exit_codes
        self._signals = signals
        self._log = victim.spec.log
        self._offset = self._log.stat().st_size

    def said(self) -> str:
        """The first line of its log that says so; "" where none does."""
        with open(self._log, "rb") as file:
            file.seek(self._offset)
            for line in file.read(LOG_BYTES_MAX).splitlines():
                if self._last_words.pattern and self._last_words.search(line):
                    return line.decode(errors="replace")
        return ""

    def predicts(self, status: int | None) -> bool:
        """For `Member.expect_exit`."""
        if status is None:
            return False
        if os.WIFSIGNALED(status):
            return os.WTERMSIG(status) in self._signals
        return os.WEXITSTATUS(status) in self._exit_codes and self.said() != ""

    @property
    def ended(self) -> bool:
        """Whether this incarnation has ended."""
        return not self.victim.alive or self.victim.incarnation != self.incarnation

    @property
    def wait_status(self) -> int | None:
        """That of this incarnation's end, where it ended as predicted; else None."""
        exits = [end for end in self.victim.exits if end.incarnation == self.incarnation and end.asked]
        return exits[-1].wait_status if exits else None

    async def hold(self, armed: Armed, ms: int, look: Callable[[], None] | None = None) -> None:
        """Wait `ms`, not beyond the end of the faults' phase nor that of the victim."""
        deadline = asyncio.get_running_loop().time() + min(ms, armed.context.left_ms()) / 1000
        while not self.ended and asyncio.get_running_loop().time() < deadline:
            if look is not None:
                look()
            await asyncio.sleep(LOOK_S)

    async def settle(self, *, begun: bool = False) -> None:
        """After the limit was lifted: if its end has begun, as the kernel says or its log, wait for it.

        A prediction that asks for last words stays in force: who ran out in the last moment may take long to write them. One that does not
        is taken back.
        """
        deadline = asyncio.get_running_loop().time() + LAST_WORDS_S
        while not self.ended and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(LOOK_S)
        if not self.ended and (begun or self.said()):
            with contextlib.suppress(TimeoutError):
                await self.victim.wait_exit(END_S)
        if not self.ended and self._signals:
            self.victim.expect_exit(None)

    async def heal(self, armed: Armed, evidence: dict[str, object], down_ms: int = 0) -> None:
        """Where it ended as predicted that is the fault's firing, and it is started again. Another end is the hunt's to judge."""
        if (status := self.wait_status) is not None:
            armed.fired({**evidence, "wait_status": status, "incarnation": self.incarnation})
        if self.victim.state is MemberState.STOPPED:
            await armed.hold(down_ms)
        state = await up_again(self.victim)
        if armed.has_fired:
            armed.healed(state)
