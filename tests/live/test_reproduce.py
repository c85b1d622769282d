"""`pekan reproduce` as a user types it: shown where it is, not shown where it is mended, the same evidence as of every hunt."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pekan.history.reading import load
from stage.releases import provided

pytestmark = pytest.mark.live

DEADLINE_S = 300
"""Thirty times what it takes on an idle machine."""
QUICK = "18089"
"""One member, eight requests, no fault."""
AFFECTED, MENDED = "3.5.1", "3.5.16"


def pekan(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Pekan to its end."""
    command = [sys.executable, "-m", "pekan", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=DEADLINE_S)


def reproduce(version: str, out: Path, *more: str) -> tuple[int, dict[str, Any]]:
    """The exit code and the JSON document of two attempts."""
    provided(version)
    ended = pekan("reproduce", QUICK, "--etcd", version, "--attempts", "2", "--out", str(out), "--json", *more)
    assert "Traceback" not in ended.stderr
    document = json.loads(ended.stdout)
    assert document["exit_code"] == ended.returncode
    return ended.returncode, document


def test_shown_where_it_is(tmp_path: Path) -> None:
    """On an affected release the exit code is 1, every attempt shows the finding, and the record judges the same when checked again."""
    code, said = reproduce(AFFECTED, tmp_path / "runs")
    assert (code, said["answer"], said["shown"], said["fired"], said["counted"]) == (1, "shown", 2, 2, 2)
    attempts = [(attempt["seed"], attempt["answer"], attempt["verdict"]) for attempt in said["attempts"]]
    assert attempts == [(1, "shown", "broken"), (2, "shown", "broken")]
    assert {finding["code"] for finding in said["findings"]} <= {"WATCH-RESUMABLE", "WATCH-RELIABLE"}
    assert said["median_seconds"] > 0
    run = Path(said["attempts"][0]["run"])
    assert run == tmp_path / "runs" / "seed-1"
    again = pekan("check", str(run), "--json")
    assert again.returncode == 1
    (found,) = [finding for finding in json.loads(again.stdout)["findings"] if finding["signature"] == said["findings"][0]["signature"]]
    assert QUICK in [like["issue"] for like in found["like"] if like["affects"]], "checking says what it looks like"
    assert f"like #{QUICK}, which affects this version" in " ".join(pekan("check", str(run)).stdout.split())


def test_not_shown_where_it_is_mended(tmp_path: Path) -> None:
    """On the fixed release the exit code is 0: the script was done and nothing came of it. Records are dropped, plans stay."""
    code, said = reproduce(MENDED, tmp_path / "runs")
    assert (code, said["answer"], said["shown"], said["fired"]) == (0, "not shown", 0, 2)
    assert said["findings"] == []
    runs = [Path(attempt["run"]) for attempt in said["attempts"]]
    assert [sorted(path.name for path in run.iterdir()) for run in runs] == [["plan.json", "verdict.json"]] * 2


def test_first_that_shows_it_is_the_last(tmp_path: Path) -> None:
    """--until-shown ends with the attempt that shows it; with --keep all its record is there, script and all."""
    code, said = reproduce(AFFECTED, tmp_path / "runs", "--until-shown", "--keep", "all", "--seed", "7")
    assert (code, len(said["attempts"]), said["attempts"][0]["seed"]) == (1, 1, 7)
    history = load(said["attempts"][0]["run"])
    assert history.complete
    assert history.plan is not None
    assert history.plan.script
    assert (Path(said["attempts"][0]["run"]) / "members" / "m1" / "data").is_dir()


def test_what_is_told_on_a_terminal_names_the_run(tmp_path: Path) -> None:
    """Without --json: story in a line, each attempt, the finding in full, the answer; the last lines on stderr say where and what next."""
    provided(AFFECTED)
    ended = pekan("reproduce", QUICK, "--etcd", AFFECTED, "--attempts", "1", "--out", str(tmp_path / "runs"))
    assert ended.returncode == 1, ended.stderr
    text = " ".join(ended.stdout.split())
    for part in (f"#{QUICK}", "attempt 1 shown", "promised", "hence", f"#{QUICK} on etcd {AFFECTED}: shown in 1 of 1 attempt"):
        assert part in text
    run, following = ended.stderr.splitlines()[-2:]
    assert run == f"run: {tmp_path / 'runs' / 'seed-1'}"
    assert following.endswith(f"check {tmp_path / 'runs' / 'seed-1'}")
