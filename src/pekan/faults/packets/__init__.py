"""Packets of members lost, doubled, late and out of order, by a switch between network namespaces."""

from __future__ import annotations

from pekan.faults.equipment import Equipment
from pekan.faults.injector import Injector
from pekan.faults.packets.equipment import Packets
from pekan.faults.packets.injectors import PacketDelay, PacketDuplicate, PacketLoss, PacketReorder

INJECTORS: tuple[Injector, ...] = (PacketLoss(), PacketDuplicate(), PacketReorder(), PacketDelay())
EQUIPMENT: tuple[type[Equipment], ...] = (Packets,)
