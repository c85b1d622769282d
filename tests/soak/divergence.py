"""etcd #13766 on stock binaries: a write is held at its apply, then the member is killed, and the members differ.

::

    make divergence
    .venv/bin/python tests/soak/divergence.py [--attempts 10] [--controls 5]

    the backend's commit   ──── held ────┐ goes on: what is pending is committed, with the consistent index of the write that is held
    a write at its apply        └─ held ─┼──────── killed
                                         └ after the restart only what is beyond that index is applied: the held write is lost here

Up to 3.5.2 the consistent index was set before the write it belongs to; a commit in between and a crash lose the write. SIGKILL at random
times did not find it in 120 attempts (3.5.0 and 3.5.1). Done four times in a run: a put that etcd refuses anyway (`ignore_value` for a key
that there is not) is missed by nobody, and one in five of this workload is such a one.

An attempt is one `pekan hunt`, and it counts where its verdict is *broken* by members that differ. It is made as the user who runs this,
and as a plain user under the system call filter of a default container (`tests/stage/container.py`). Prints a line of JSON for each series.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from pekan.etcd.binaries import find

sys.path.append(str(Path(__file__).parent.parent / "stage"))

from container import environment, plain_python

DIVERGING, MENDED = "3.5.1", "3.5.35"
COMMIT = "backend.batchTxBuffered.Commit"
PUT = "etcdserver/apply.go:268"
"""Where a put opens its transaction, in both releases: after the consistent index is set, before the backend is locked."""
VICTIMS = ("m2", "m1", "m3", "m2")
EVERY_S = 8
"""From one victim to the next: held, killed and back, on a busy machine."""
FAULTS = tuple(
    fault
    for start, victim in enumerate(VICTIMS)
    for fault in (
        f"failpoint {victim} point={COMMIT} action=hold 3s at {5 + start * EVERY_S}s",
        # By then a commit is held: there is one every 100 ms where anything was written.
        f"failpoint {victim} point={PUT} action=hold-kill 4500ms at {5500 + 1000 * start * EVERY_S}ms",
    )
)
KNOWN = "REFUSED-BUT-APPLIED,COMPARES-ONLY-STALE"
"""What docs/known-deviations.md explains; drawn in the last fifth of the traffic."""
TIME = "48s"
RUN_SECONDS_MAX = 300.0
RUN_CODES = (0, 1, 3)


def hunt(python: list[str], etcd: Path, seed: int, directory: Path) -> dict[str, object]:
    """What one hunt prints as JSON. Raises `RuntimeError` where it did not come to a verdict."""
    out = directory / f"run-{seed}"
    command = [*python, "-m", "pekan", "hunt", "--etcd", str(etcd), "--workload", "kv", "--time", TIME, "--seed", str(seed)]
    command += ["--faults", "none", "--allow", KNOWN, "--out", str(out), "--json"]
    for fault in FAULTS:
        command += ["--fault", fault]
    variables = {**environment(), "HOME": str(directory)}
    done = subprocess.run(command, check=False, env=variables, cwd=directory, capture_output=True, text=True, timeout=RUN_SECONDS_MAX)
    shutil.rmtree(out, ignore_errors=True)
    if done.returncode not in RUN_CODES:
        raise RuntimeError(f"exit {done.returncode}: {done.stderr[-2000:]}")
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def diverged(answer: dict[str, object]) -> bool:
    findings = answer["findings"]
    assert isinstance(findings, list)
    return any(finding["code"].startswith("MEMBER-") and finding["status"] == "counts" for finding in findings)


def series(name: str, python: list[str], version: str, attempts: int, first_seed: int) -> int:
    """How many of the attempts showed members that differ."""
    shown = undecided = 0
    with tempfile.TemporaryDirectory(prefix="pekan-divergence-") as place:
        directory = Path(place)
        directory.chmod(0o777)  # the plain user's runs go here too
        etcd = Path(shutil.copy2(find(version).path, directory / "etcd"))
        etcd.chmod(0o755)
        for number in range(attempts):
            answer = hunt(python, etcd, first_seed + number, directory)
            shown += diverged(answer)
            undecided += bool(answer["undecided"])
            print(f"{name} {version}: attempt {number + 1}, shown {shown}", file=sys.stderr, flush=True)
    print(json.dumps({"as": name, "etcd": version, "attempts": attempts, "shown": shown, "undecided": undecided}), flush=True)
    return shown


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attempts", type=int, default=10)
    parser.add_argument("--controls", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=("self", "plain", "controls"))
    arguments = parser.parse_args()
    ok = True
    if arguments.only in (None, "self"):
        ok &= series("this user", [sys.executable], DIVERGING, arguments.attempts, arguments.seed) == arguments.attempts
    plain = plain_python()
    if plain is None:
        print("no interpreter that a plain user can read: not tried in an emulated container", file=sys.stderr)
    elif arguments.only in (None, "plain"):
        ok &= series("plain user, container", plain, DIVERGING, arguments.attempts, arguments.seed) == arguments.attempts
    if arguments.only in (None, "controls"):
        ok &= series("this user", [sys.executable], MENDED, arguments.controls, arguments.seed) == 0
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
