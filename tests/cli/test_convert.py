"""`pekan convert`: histories from one format to another, by files and by pipes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pekan.history.foreign import load_any

JSONL = """{"pekan": 1, "model": "register"}
{"process": 0, "f": "write", "value": 1, "call": 1, "return": 4}
{"process": 1, "f": "read", "call": 2, "return": 5, "output": 1}
{"process": 1, "f": "write", "value": 2, "call": 7, "return": 9, "outcome": "indefinite"}
{"process": 1, "f": "read", "call": 11}
{"mark": "kill n1", "time": 6}
"""


def pekan(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run Pekan to its end."""
    return subprocess.run([sys.executable, "-m", "pekan", *arguments], capture_output=True, text=True, check=False, timeout=60, **options)


@pytest.fixture
def history(tmp_path: Path) -> Path:
    """A history in JSON Lines."""
    path = tmp_path / "h.jsonl"
    path.write_text(JSONL)
    return path


def test_there_and_back_again(history: Path, tmp_path: Path) -> None:
    """JSON Lines to EDN to JSON Lines says the same; the process of an unanswered operation goes on under a fresh number."""
    edn = tmp_path / "h.edn"
    done = pekan("convert", str(history), "--to", "edn", "--out", str(edn), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["operations"] == 4
    back = tmp_path / "back.jsonl"
    assert pekan("convert", str(edn), "--to", "jsonl", "--out", str(back)).returncode == 0
    first, second = load_any(history).operations, load_any(back).operations
    assert [op.process for op in second] == [0, 1, 1, 2]
    assert [op._replace(process=0) for op in second] == [op._replace(process=0) for op in first]


def test_standard_output_is_the_history(history: Path) -> None:
    """Without --out the history itself is printed, and nothing else."""
    done = pekan("convert", str(history), "--to", "edn")
    assert done.returncode == 0
    assert done.stdout.splitlines()[0] == "{:process 0, :type :invoke, :f :write, :value 1, :time 1}"
    assert done.stdout.splitlines()[-3] == "{:process 1, :type :invoke, :f :write, :value 2, :time 7}"
    assert "{:process :nemesis, :type :info" in done.stdout


def test_porcupine_visualisation(history: Path) -> None:
    """The visualisation has an element an operation, each in the row of its client, and the marks as annotations."""
    done = pekan("convert", str(history), "--to", "porcupine-viz")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    (partition,) = told["Partitions"]
    assert [(each["ClientId"], each["Start"], each["End"]) for each in partition["History"]] == [
        (0, 0, 200),
        (1, 100, 300),
        (1, 500, 700),
        (2, 600, 700),
    ]
    assert partition["History"][1]["Description"] == "read() -> 1"
    assert partition["History"][2]["OriginalEnd"] == "never"
    assert [each["Description"] for each in told["Annotations"]] == ["kill n1"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--to", "xml"), "--to xml"),
        ((), "--to"),
        (("--to", "edn", "--json"), "--json needs --out"),
        (("--to", "edn", "--out", "h.jsonl"), "exists already"),
        (("--to", "edn", "--out", "no/such/dir"), "cannot be written"),
        (("--to", "edn", "--format", "pekan"), "h.jsonl"),
    ],
)
def test_what_cannot_be_served_is_named(arguments: tuple[str, ...], named: str, history: Path) -> None:
    """Bad options end with exit 2 and name what is wrong; the file that is there stays as it is."""
    done = pekan("convert", history.name, *arguments, cwd=history.parent)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
    assert named in done.stderr
    assert history.read_text() == JSONL


def test_a_history_of_requests_is_refused(tmp_path: Path) -> None:
    """etcd's requests have no notation in Jepsen's EDN; nothing is left behind."""
    (tmp_path / "report" / "client-1").mkdir(parents=True)
    read = {
        "ClientId": 0,
        "Input": {"Type": "range", "Range": {"Start": "a"}},
        "Call": 1,
        "Output": {"Range": {}, "Revision": 1},
        "Return": 2,
    }
    (tmp_path / "report" / "client-1" / "operations.json").write_text(json.dumps(read))
    done = pekan("convert", "report", "--to", "edn", "--out", "h.edn", cwd=tmp_path)
    assert (done.returncode, "etcd's requests" in done.stderr) == (2, True), done.stderr
    assert not (tmp_path / "h.edn").exists()
    assert pekan("convert", "report", "--to", "porcupine-viz", cwd=tmp_path).returncode == 0
