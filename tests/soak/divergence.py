"""etcd #13766 by its recipe, in every attempt: as the user who runs this, and as a plain user in a default container.

::

    make divergence
    .venv/bin/python tests/soak/divergence.py [--attempts 10] [--controls 5] [--only self|plain|controls]

    this user                 3.5.1    shown in all of --attempts
    plain user, container     3.5.1    shown in all of --attempts
    this user                 3.5.35   shown in none of --controls, and the conditions met in each

SIGKILL at random times did not show it in 120 attempts (3.5.0 and 3.5.1); a thread that is held at its apply and then killed does, which is
why this is run on machines whose hooks are new to us. How a container is emulated tells `tests/stage/container.py`, what happens inside
etcd `pekan reproduce 13766 --story`. Prints a line of JSON for each series; exit code 1 where one of them is not as above.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from pekan.etcd.binaries import find

sys.path.append(str(Path(__file__).parent.parent / "stage"))

from container import environment, plain_python

ISSUE = "13766"
DIVERGING, MENDED = "3.5.1", "3.5.35"
ATTEMPT_SECONDS_MAX = 120.0
"""Ten times what one takes on an idle machine."""


def series(name: str, python: list[str], version: str, attempts: int, seed: int) -> dict[str, Any]:
    """What so many attempts came to. Raises `RuntimeError` where there is no answer."""
    with tempfile.TemporaryDirectory(prefix="pekan-divergence-") as place:
        directory = Path(place)
        directory.chmod(0o777)  # the plain user's runs go here too
        etcd = Path(shutil.copy2(find(version).path, directory / "etcd"))
        etcd.chmod(0o755)
        command = [*python, "-m", "pekan", "reproduce", ISSUE, "--etcd", str(etcd), "--attempts", str(attempts), "--seed", str(seed)]
        command += ["--out", str(directory / "runs"), "--json"]
        variables = {**environment(), "HOME": place}
        timeout = ATTEMPT_SECONDS_MAX * attempts
        done = subprocess.run(command, check=False, env=variables, cwd=place, stdout=subprocess.PIPE, text=True, timeout=timeout)
    if not done.stdout:
        raise RuntimeError(f"{name}, {version}: exit {done.returncode}")
    found = json.loads(done.stdout)
    told = {key: found[key] for key in ("answer", "asked", "fired", "shown", "median_seconds")}
    print(json.dumps({"as": name, "etcd": version, **told}), flush=True)
    return told


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attempts", type=int, default=10)
    parser.add_argument("--controls", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=("self", "plain", "controls"))
    arguments = parser.parse_args()
    ok = True
    if arguments.only in (None, "self"):
        ok &= series("this user", [sys.executable], DIVERGING, arguments.attempts, arguments.seed)["shown"] == arguments.attempts
    plain = plain_python()
    if plain is None:
        print("no interpreter that a plain user can read: not tried in an emulated container", file=sys.stderr)
    elif arguments.only in (None, "plain"):
        ok &= series("plain user, container", plain, DIVERGING, arguments.attempts, arguments.seed)["shown"] == arguments.attempts
    if arguments.only in (None, "controls"):
        ok &= series("this user", [sys.executable], MENDED, arguments.controls, arguments.seed)["answer"] == "not shown"
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
