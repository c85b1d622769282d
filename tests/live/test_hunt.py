"""Whole hunts by the command line, as a user types them: what they leave behind, also when they end badly."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pekan import native
from pekan.etcd import binaries
from pekan.history.reading import load

pytestmark = pytest.mark.live

DEADLINE_S = 300
"""For anything awaited here: twenty times what it takes on an idle machine."""


def pekan(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run Pekan to its end."""
    command = [sys.executable, "-m", "pekan", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=DEADLINE_S, **options)


def start(*arguments: str) -> subprocess.Popen[str]:
    """Start Pekan and go on."""
    command = [sys.executable, "-m", "pekan", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for `condition`."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"still not: {what}"
        time.sleep(0.05)


def processes_of(run: Path) -> list[int]:
    """Pids of processes whose command line names `run`."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and int(entry.name) != os.getpid() and str(run).encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


def recorded(run: Path, size: int = 100_000) -> Callable[[], bool]:
    """Whether traffic is well under way: the history has grown to `size` bytes."""
    history = run / "history.pb"
    return lambda: history.exists() and history.stat().st_size > size


@pytest.fixture(scope="module")
def etcd() -> str:
    """The newcomer's etcd, fetched once."""
    return str(binaries.find("3.5.1").path)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Path]:
    """Where a run goes; afterwards no process may name it."""
    path = tmp_path / "run"
    yield path
    until(lambda: not processes_of(path), f"every process of {path} has ended")


def test_hunt_from_start_to_verdict(etcd: str, run: Path) -> None:
    """A hunt of three members under faults ends with a verdict, one JSON document on stdout, and a run that judges the same again."""
    ended = pekan("hunt", "--etcd", etcd, "--time", "15s", "--seed", "3", "--rate", "400", "--out", str(run), "--json")
    assert ended.returncode in (0, 1, 3), ended.stderr
    said = json.loads(ended.stdout)
    assert {"verdict", "order", "findings", "undecided", "operations", "seconds"} <= said.keys()
    assert said["operations"] > 0
    assert ended.stderr.rstrip().endswith(str(run)), "the last line names the place of the run"
    again = pekan("check", str(run), "--json")
    assert again.returncode == ended.returncode
    told = [(f["code"], f["summary"], f["status"]) for f in json.loads(again.stdout)["findings"]]
    assert told == [(f["code"], f["summary"], f["status"]) for f in said["findings"]]
    history = load(run)
    assert history.complete
    assert len([operation for operation in history.operations if operation.client.startswith("kv-")]) > 0
    assert history.start == "empty"
    assert {fault.kind for fault in history.faults} <= {"kill", "pause", "restart"}
    assert any(fault.fired is not None for fault in history.faults)
    assert not list(run.glob("members/*/data")), "data directories are kept only where --keep asks for it"
    moved = run.with_name("moved")
    shutil.copytree(run, moved)
    assert pekan("check", str(moved), "--json").returncode == ended.returncode, "a run is complete evidence wherever it lies"


def test_sigkill_of_pekan_leaves_no_process_and_a_run_that_can_be_judged(etcd: str, run: Path) -> None:
    """After a SIGKILL in mid-run nothing of it goes on, and what was recorded is judged."""
    hunting = start("hunt", "--etcd", etcd, "--time", "10m", "--seed", "1", "--rate", "300", "--out", str(run))
    until(recorded(run), "traffic is recorded")
    hunting.kill()
    hunting.communicate(timeout=DEADLINE_S)
    until(lambda: not processes_of(run), "members and launchers have ended")
    judged = pekan("check", str(run), "--json")
    assert judged.returncode in (1, 3), "a record without its end cannot hold"
    assert json.loads(judged.stdout)["operations"] > 0


def test_interrupt_stops_everything_and_ends_with_130(etcd: str, run: Path) -> None:
    """Ctrl-C ends a hunt with 130, its members stopped, its record closed, and what was judged so far in the JSON."""
    hunting = start("hunt", "--etcd", etcd, "--time", "10m", "--seed", "1", "--rate", "300", "--out", str(run), "--json")
    until(recorded(run), "traffic is recorded")
    hunting.send_signal(signal.SIGINT)
    out, _ = hunting.communicate(timeout=DEADLINE_S)
    assert hunting.returncode == 130
    assert json.loads(out)["ended"] == "interrupted"
    history = load(run)
    assert not history.complete
    assert history.marks[-1].detail["reason"] == "interrupted"


def test_disk_full_ends_the_run_and_keeps_the_record(etcd: str, tmp_path: Path) -> None:
    """Where the history cannot be written, traffic stops, the message names the file, and what was recorded can be judged."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=700m", "tmpfs", str(place)], capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"no privilege to mount a small file system: {mounted.stderr.strip()}")
    run = place / "run"
    try:
        hunting = start("hunt", "--etcd", etcd, "--members", "1", "--faults", "none", "--time", "10m", "--rate", "300", "--out", str(run))
        until(recorded(run), "traffic is recorded")
        with (place / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
            while True:
                filler.write(b"\0" * 4096)
        _, err = hunting.communicate(timeout=DEADLINE_S)
        assert "Traceback" not in err
        assert hunting.returncode in (1, 4), err
        assert "history.pb" in err
        assert "No space left" in err
        judged = pekan("check", str(run), "--json")
        assert judged.returncode in (1, 3), judged.stderr
        assert json.loads(judged.stdout)["operations"] > 0
        until(lambda: not processes_of(run), "every process has ended")
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_etcd_that_will_not_start_shows_its_log(etcd: str, run: Path) -> None:
    """An etcd that exits at once is an environment failure with its own last words."""
    ended = pekan("hunt", "--etcd", etcd, "--time", "10s", "--etcd-flag", "quota-backend-bytes=lots", "--out", str(run))
    assert ended.returncode == 4
    assert "Traceback" not in ended.stderr
    assert "lots" in ended.stderr


def test_plan_is_replayed(etcd: str, run: Path, tmp_path: Path) -> None:
    """--plan makes the same schedule for the same seed, with the release that was asked for."""
    arguments = ("--etcd", etcd, "--time", "8s", "--seed", "5", "--rate", "200", "--members", "1", "--faults", "kill")
    assert pekan("hunt", *arguments, "--out", str(run)).returncode in (0, 1, 3)
    again = tmp_path / "again"
    assert pekan("hunt", "--plan", str(run / "plan.json"), "--out", str(again)).returncode in (0, 1, 3)
    assert load(again).plan == load(run).plan
    until(lambda: not processes_of(again), "every process has ended")


@pytest.mark.skipif(native.core is None, reason=f"the native core is not there: {native.reason}")
def test_until_broken_stops_the_run_itself(etcd: str, tmp_path: Path) -> None:
    """With --until-broken a run ends as soon as a promise is seen broken, whole and judged, long before its time."""
    ended = pekan(
        *("hunt", "--etcd", etcd, "--workload", "kv", "--seed", "1", "--time", "10m", "--until-broken", "--json"),
        *("--out", str(tmp_path / "runs")),
    )
    assert ended.returncode == 1, ended.stderr
    (run,) = json.loads(ended.stdout)["runs"] if "runs" in json.loads(ended.stdout) else [json.loads(ended.stdout)]
    history = load(run["run"])
    assert history.complete
    assert any(mark.kind == "stopped" for mark in history.marks)
