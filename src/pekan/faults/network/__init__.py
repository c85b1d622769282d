"""Links between members, and between clients and members: cut, held, delayed, slowed, reset, by a proxy on each."""

from __future__ import annotations

from pekan.faults.equipment import Equipment
from pekan.faults.injector import Injector
from pekan.faults.network.clients import ClientCut, ClientDelay, ClientReset
from pekan.faults.network.cut import Cut, Isolate, Partition
from pekan.faults.network.equipment import Proxy
from pekan.faults.network.messages import Corrupt, Messages
from pekan.faults.network.slow import Delay, Hold, Rate, Reset

INJECTORS: tuple[Injector, ...] = (
    Cut(),
    Isolate(),
    Partition(),
    Hold(),
    Delay(),
    Rate(),
    Reset(),
    Messages(),
    ClientCut(),
    ClientDelay(),
    ClientReset(),
    Corrupt(),
)
EQUIPMENT: tuple[type[Equipment], ...] = (Proxy,)
