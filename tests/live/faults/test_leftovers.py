"""A whole hunt with things around its members that the kernel does not undo, ended by SIGKILL."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pekan.faults.packets import Packets
from pekan.faults.resources.groups import Hierarchy, hierarchy
from soak.leftovers import Aside

pytestmark = pytest.mark.live

VERSION = "3.7.3"
DEADLINE_S = 90
SETTLE_S = 45.0
"""The watchdog's own patience of 30 s, and a busy machine."""


def test_a_killed_hunt_leaves_nothing(tmp_path: Path) -> None:
    """After a SIGKILL of a hunt in the midst of its faults no process, namespace, device, control group, temporary file or journal of it
    is there, and what it has recorded is."""
    if not Packets.probe().possible or not isinstance(hierarchy("cpu"), Hierarchy):
        pytest.skip("neither namespaces nor control groups can be made here")
    aside = Aside(tmp_path)
    before = aside.look()
    run = tmp_path / "run"
    faults = ("packet-loss m1 60s at 1s", "cpu-starve m2 60s at 1s", "cut m3 60s at 1s")
    command = [
        sys.executable,
        "-m",
        "pekan",
        "hunt",
        "--etcd",
        VERSION,
        "--time",
        "60s",
        "--seed",
        "1",
        "--out",
        str(run),
        "--faults",
        "none",
    ]
    for fault in faults:
        command += ["--fault", fault]
    environment = {**aside.environment, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as hunt:
        deadline = time.monotonic() + DEADLINE_S
        group = f"pekan-{hunt.pid}-"  # other hunts on this machine have theirs
        more = aside.look()
        while not any(group in each for each in more["control groups"]) or not more["journals"]:
            assert hunt.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
            more = aside.look()
        # Looked at anew: in one look, what takes long to be there may have come between two of its kinds.
        assert len(aside.look()["processes"]) >= 3 + 3 + 4  # launchers, members; Pekan, switch, relay, proxy
        hunt.kill()
    left = aside.settle(before, SETTLE_S)
    assert not any(group in each for each in left.pop("control groups", ()))
    assert left == {}
    assert (run / "history.pb").stat().st_size > 0
