"""The command line's promises that need no cluster: exit codes, messages, JSON, help that works."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pekan import native
from pekan.cli import pekan as cli
from pekan.faults import INJECTORS
from pekan.issues import ISSUES

PATIENCE_S = 300
"""A second is usual; `doctor` tries every mechanism, on a machine where other tests use all of them."""


def pekan(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run Pekan to its end."""
    command = [sys.executable, "-m", "pekan", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S, **options)


@pytest.mark.parametrize(
    "verb",
    [
        (),
        ("hunt",),
        ("check",),
        ("reproduce",),
        ("convert",),
        ("doctor",),
        ("etcd",),
        ("etcd", "list"),
        ("etcd", "install"),
        ("etcd", "path"),
    ],
)
def test_help_shows_an_example_that_parses(verb: tuple[str, ...]) -> None:
    """Every verb's help has an example whose options exist."""
    said = CliRunner().invoke(cli, [*verb, "--help"])
    assert said.exit_code == 0
    example = re.search(r"Example:\n((?: +.*\n)+)", said.output)
    assert example, said.output
    for called in re.findall(r"pekan ((?:hunt|check|reproduce|convert|doctor|etcd)[^;|&\n]*)", example.group(1)):
        options = re.findall(r"--[a-z-]+", called)
        words = called.split()
        depth = 2 if words[0] == "etcd" else 1
        known = CliRunner().invoke(cli, [*words[:depth], "--help"]).output
        assert all(option in known for option in options), called


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (("check", "no-such-run"), 2, "no-such-run"),
        (("check", "."), 2, "plan.json"),
        (("hunt", "--time", "soon"), 2, "--time"),
        (("hunt", "--time", "1s"), 2, "--time"),
        (("hunt", "--members", "4"), 2, "--members"),
        (("hunt", "--workload", "bank"), 2, "bank"),
        (("hunt", "--faults", "meteor"), 2, "meteor"),
        (("hunt", "--fault", "kill leader at noon"), 2, "noon"),
        (("hunt", "--fault", "kill m9 at 5s"), 2, "m9"),
        (("hunt", "--allow", "NO-SUCH-CODE"), 2, "NO-SUCH-CODE"),
        (("hunt", "--plan", "no-such-plan"), 2, "no-such-plan"),
        (("hunt", "--etcd-flag", "snapshot-count"), 2, "snapshot-count"),
        (("hunt", "--shrink", "no-such-run"), 2, "no-such-run"),
        (("hunt", "--shrink", "no-such-run", "--plan", "plan.json"), 2, "--plan; it goes with --etcd, --runs"),
        (("hunt", "--shrink", "no-such-run", "--time", "60s"), 2, "--time"),
        (("hunt", "--no-such-option"), 2, "--no-such-option"),
        (("hunt", "--etcd", "./no-such-binary"), 2, "no-such-binary"),
        (("reproduce",), 2, "--list"),
        (("reproduce", "4711"), 2, "4711"),
        (("reproduce", "4711", "--story"), 2, "there are"),
        (("reproduce", "all", "--bisect"), 2, "--bisect"),
        (("reproduce", "all", "--attempts", "0"), 2, "--attempts"),
        (("reproduce", "all", "--budget", "soon"), 2, "--budget"),
        (("frobnicate",), 2, "frobnicate"),
    ],
)
def test_bad_input_is_named(arguments: tuple[str, ...], code: int, named: str, tmp_path: Path) -> None:
    """What cannot be served is refused with the exit code of its kind, and the message names it; never a traceback."""
    ended = pekan(*arguments, cwd=tmp_path)
    assert (ended.returncode, "Traceback" in ended.stderr) == (code, False), ended.stderr
    assert named in ended.stderr
    assert ended.stdout == ""


def test_errors_are_json_where_json_was_asked_for(tmp_path: Path) -> None:
    """With --json an error is a document too."""
    ended = pekan("check", "no-such-run", "--json", cwd=tmp_path)
    assert json.loads(ended.stdout)["exit_code"] == ended.returncode == 2


def test_unreadable_history_names_file_and_byte(tmp_path: Path) -> None:
    """A history that is none is refused with its name and the byte."""
    (tmp_path / "history.pb").write_bytes(b"not a history at all")
    ended = pekan("check", "history.pb", cwd=tmp_path)
    assert ended.returncode == 2
    assert "history.pb" in ended.stderr
    assert "byte 0" in ended.stderr


def test_doctor_names_the_engine_and_what_would_help(tmp_path: Path) -> None:
    """Each thing that cannot be done here comes with the reason and a remedy, and the engine that judges is named either way."""
    # A cache of its own: tests beside this one fetch releases, so that two looks at the user's may differ. Nor is his data tidied up.
    environment = {**os.environ, "PEKAN_CACHE": str(tmp_path / "cache"), "PEKAN_DATA": str(tmp_path / "data")}
    ended = pekan("doctor", "--json", env=environment)
    assert ended.returncode == 0, ended.stderr
    abilities = json.loads(ended.stdout)["abilities"]
    assert [a["possible"] for a in abilities if a["name"] == "native core"] == [native.core is not None]
    assert {a["name"] for a in abilities if a["area"] == "fault"} == set(INJECTORS)
    assert all(a["possible"] or (a["why_not"] and a["remedy"]) for a in abilities)
    told = pekan("doctor", env=environment).stdout
    assert all(a["name"] in told for a in abilities)


def test_list_of_issues_is_complete() -> None:
    """--list names every issue with where it is fixed and what it needs, in text and as JSON; --story tells what happens inside."""
    listed = json.loads(pekan("reproduce", "--list", "--json").stdout)["issues"]
    assert [each["issue"] for each in listed] == list(ISSUES)
    assert all(each["story"] and each["needs"] and each["boundaries"] + [each["not_released"]] for each in listed)
    told = pekan("reproduce", "--list").stdout
    assert all(name in told for name in ISSUES)
    for name, issue in list(ISSUES.items())[:1]:
        story = pekan("reproduce", name, "--story").stdout
        assert issue.title in " ".join(story.split())
        assert all(link in story for link in issue.links)
