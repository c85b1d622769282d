"""An hour under every fault inside etcd's promises: no false alarm, each class fired, nothing left over.

::

    make soak-faults TIME=1h ETCD=3.7
    .venv/bin/python tests/soak/all_faults.py --etcd 3.7 --time 1h

    1. hunt --faults all for that time            verdict holds (known deviations allowed), every class fired more than ten times
    2. look around                                no process, mount, namespace, control group, loop or network device, temporary file left
    3. hunt again, SIGKILL in the middle          the same, once the watchdog has done its work
    4. check of the killed run's record           the record is judged as far as it goes, and nothing in it is broken

Ends with 0 where all of it is so, else with 1 and what is not.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from leftovers import Aside

from pekan.durations import parse_ms, show_ms

FIRED_MIN = 10
"""Each class has to fire more often than this, in an hour; in shorter soaks its share of it."""
SETTLE_S = 30.0
"""For a watchdog, on a busy machine."""
KILLED_AFTER_S = 40.0
"""In the midst of the second run: quiet start over, a storm under way."""
STARTED_S = 180.0
"""For the start of the members with all their equipment."""
LOOK_S = 0.2
HOUR_MS = 3_600_000


def main() -> int:
    """Run the soak; the exit code says whether all of it was as it should be."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--etcd", default="3.7")
    asked.add_argument("--time", default="1h")
    asked.add_argument("--seed", default="1")
    asked.add_argument("--members", default="3")
    asked.add_argument("--workload", default="kv")
    asked.add_argument("--faults", default="all")
    asked.add_argument("--out", type=Path, help="where the runs are kept; a temporary directory otherwise")
    options = asked.parse_args()
    wrong: list[str] = []
    with tempfile.TemporaryDirectory(prefix="soak-faults-") as scratch:
        place = options.out or Path(scratch)
        place.mkdir(parents=True, exist_ok=True)
        aside = Aside(place.resolve())
        before = aside.look()
        document = _hunt(options, aside, place / "whole", wrong)
        _verdict(document, parse_ms(options.time, "--time"), wrong)
        _left(aside, before, "the hunt", wrong)
        _killed(options, aside, place / "killed", wrong)
        _left(aside, before, "a SIGKILL of Pekan", wrong)
    for each in wrong:
        print(f"WRONG  {each}")
    print("soak: " + (f"{len(wrong)} things are not as they should be" if wrong else "all as it should be"))
    return 1 if wrong else 0


def _command(options: argparse.Namespace, place: Path, time_text: str) -> list[str]:
    command = [sys.executable, "-m", "pekan", "hunt", "--json", "--etcd", options.etcd, "--members", options.members]
    command += ["--faults", options.faults, "--workload", options.workload, "--seed", options.seed, "--time", time_text]
    return [*command, "--allow", "known", "--budget", "15m", "--out", str(place)]


def _hunt(options: argparse.Namespace, aside: Aside, place: Path, wrong: list[str]) -> dict[str, Any]:
    began = time.monotonic()
    ended = subprocess.run(_command(options, place, options.time), stdout=subprocess.PIPE, text=True, check=False, env=aside.environment)
    print(f"hunted and judged in {time.monotonic() - began:.0f} s, exit code {ended.returncode}")
    try:
        document: dict[str, Any] = json.loads(ended.stdout)
    except ValueError:
        wrong.append(f"the hunt printed no JSON document (exit code {ended.returncode})")
        return {}
    if ended.returncode:
        wrong.append(f"the hunt ended with {ended.returncode}: {document.get('error', 'it tells no error')}")
    return document


def _verdict(document: dict[str, Any], time_ms: int, wrong: list[str]) -> None:
    if not document:
        return
    print(f"verdict {document.get('verdict')}, {document.get('operations', 0):,} operations judged in {document.get('seconds', 0):.0f} s")
    for finding in document.get("findings", ()):
        print(f"  {finding['code']} ({finding['status']}): {finding['summary']}")
        if finding["status"] == "counts":
            wrong.append(f"{finding['code']} counts: {finding['summary']}")
    wrong += [f"undecided: {reason['reason'] if isinstance(reason, dict) else reason}" for reason in document.get("undecided", ())]
    told = document.get("faults") or {"kinds": {}, "classes": {}, "at_once": {}, "left_out": {}}
    print(f"{'class':<8}{'kind':<26}{'armed':>7}{'fired':>7}{'expired':>9}{'healed':>8}")
    for kind, row in told["kinds"].items():
        print(f"{row['class']:<8}{kind:<26}{row['armed']:>7}{row['fired']:>7}{row['expired']:>9}{row['healed']:>8}")
        if row["fired"] != row["healed"]:
            wrong.append(f"{kind} fired {row['fired']} times and was healed {row['healed']} times")
        if not row["fired"]:
            wrong.append(f"{kind} was armed {row['armed']} times and never fired")
    print(f"at once: {told['at_once']}; not injected here: {told['left_out'] or 'nothing'}")
    enough = max(1, FIRED_MIN * time_ms // HOUR_MS)
    for name in ("day", "week", "year"):
        fired = told["classes"].get(name, {}).get("fired", 0)
        print(f"class {name}: fired {fired} times")
        if fired <= enough:
            wrong.append(f"the class {name} fired {fired} times, {enough + 1} at least are wanted in {show_ms(time_ms)}")


def _killed(options: argparse.Namespace, aside: Aside, place: Path, wrong: list[str]) -> None:
    """A hunt that is killed where it stands, and its record checked."""
    hunt = subprocess.Popen(_command(options, place, "2m"), stdout=subprocess.DEVNULL, env=aside.environment)
    try:
        # Its members are up when its record begins to grow; a busy machine takes its time for that.
        began = time.monotonic()
        while not _bytes(place / "history.pb") and hunt.poll() is None and time.monotonic() - began < STARTED_S:
            time.sleep(LOOK_S)
        hunt.wait(KILLED_AFTER_S)
        wrong.append(f"the second hunt ended by itself with {hunt.returncode}")
    except subprocess.TimeoutExpired:
        os.kill(hunt.pid, signal.SIGKILL)
        hunt.wait()
    command = [sys.executable, "-m", "pekan", "check", str(place), "--json", "--allow", "known"]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    verdict = json.loads(ended.stdout or "{}").get("verdict")
    print(f"the record of the killed run: {verdict}")
    # It has no end mark, so that more than undecided cannot be said of it.
    if verdict != "undecided":
        wrong.append(f"the record of the killed run is {verdict}")


def _bytes(path: Path) -> int:
    """How long a file is; 0 where there is none yet."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _left(aside: Aside, before: dict[str, set[str]], after: str, wrong: list[str]) -> None:
    more = aside.settle(before, SETTLE_S)
    print(f"left over after {after}: {more or 'nothing'}")
    wrong += [f"{kind} left over after {after}: {', '.join(sorted(found))}" for kind, found in more.items()]


if __name__ == "__main__":
    sys.exit(main())
