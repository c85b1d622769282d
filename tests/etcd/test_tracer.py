"""The tracer behind breakpoints with real processes: what may happen to a thread between two questions about it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pekan.faults.hooks import Breakpoints

DEADLINE_SECONDS = 60

# Traces a child with two threads, and has it killed when one of them has been seen to stand still.
KILLED_WHILE_LOOKED_AT = """
import os, signal, subprocess, sys, time
from pathlib import Path
from pekan.etcd.breakpoints import WALL, Tracer

THREADS = "import threading, time; threading.Thread(target=time.sleep, args=(600,)).start(); print('ready', flush=True)"
child = subprocess.Popen([sys.executable, "-c", THREADS], stdout=subprocess.PIPE)
child.stdout.readline()
tracer = Tracer(child.pid, lambda event, **details: print(event, flush=True))
tracer.arm((0x10000,), 2, 1, False)
(thread,) = (int(tid) for tid in os.listdir(f"/proc/{child.pid}/task") if int(tid) != child.pid)
seen = os.waitid(os.P_PID, thread, os.WSTOPPED | WALL | os.WNOWAIT)
os.kill(child.pid, signal.SIGKILL)
while Path(f"/proc/{child.pid}/task/{thread}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
    time.sleep(0.005)
tracer._take(seen.si_pid, seen.si_code)
tracer.bury()
print(child.wait(), tracer.active)
"""


@pytest.mark.skipif(not Breakpoints.probe().possible, reason="no process can be traced here")
def test_a_thread_that_is_killed_between_two_looks() -> None:
    """One that stood still and has been killed before it was waited for is no error, and its death is told as any other."""
    command = [sys.executable, "-c", KILLED_WHILE_LOOKED_AT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["-9 False"]
