"""Crash images: what a SIGKILL at that moment would have left, copied without killing."""

from __future__ import annotations

from pekan.faults.equipment import Equipment
from pekan.faults.images.crash_image import CrashImage
from pekan.faults.injector import Injector

INJECTORS: tuple[Injector, ...] = (CrashImage(),)
EQUIPMENT: tuple[type[Equipment], ...] = ()
