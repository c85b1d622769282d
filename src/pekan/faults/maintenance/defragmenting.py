"""Defragmentation: the member copies its whole database into a new file, and answers nothing meanwhile.

`within`: it changes no content. A member that dies in the middle finds both files when it comes back (#14685).
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pekan.faults.injector import Armed, Drawn, Frequency, Injector, Parameter
from pekan.faults.maintenance.asking import ASK_S, repeat
from pekan.wire.messages import pb

if TYPE_CHECKING:
    from pekan.etcd.cluster import Member

DEFRAGMENT_S = 30.0
"""It takes a second a gigabyte or so."""
MS = 300
"""For a database of some megabytes."""


class Defragment(Injector):
    """Defragment."""

    kind: ClassVar[str] = "defragment"
    summary: ClassVar[str] = "the member copies its database into a new file, and stands still until that is done"
    frequency: ClassVar[Frequency] = "week"
    parameters: ClassVar[Mapping[str, Parameter]] = {}

    def draw(self, rng: random.Random) -> Drawn:
        return Drawn("any", {})

    def down_ms(self, parameters: Mapping[str, int | str]) -> int:
        return MS

    async def inject(self, victim: Member, armed: Armed) -> None:
        """Evidence of firing is the answer, and the file's size before and after."""
        await repeat(armed, lambda: self._once(victim, armed))

    @staticmethod
    async def _once(victim: Member, armed: Armed) -> bool:
        before = await armed.context.ask(victim.name, pb.StatusRequest(), ASK_S)
        reply = await armed.context.ask(victim.name, pb.DefragmentRequest(), DEFRAGMENT_S)
        if reply.outcome != "ok":
            return False
        after = await armed.context.ask(victim.name, pb.StatusRequest(), ASK_S)
        sizes = {
            name: {"bytes": status.output.dbSize, "in_use_bytes": status.output.dbSizeInUse}
            for name, status in (("before", before), ("after", after))
            if status.outcome == "ok"
        }
        armed.fired({"operation": reply.operation, **sizes})
        armed.healed({"nothing": "to undo"})
        return True
