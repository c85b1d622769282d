"""The run directory: made once, opened with a clear word for what is missing, derived files replaced and evidence never."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pekan.errors import EnvironmentFailure, EvidenceError, UsageError
from pekan.history import RunDirectory
from pekan.plan import Plan

PLAN = Plan(etcd="3.5.1", seed=7)


def test_a_new_run_holds_its_plan(tmp_path: Path) -> None:
    """`create` makes the directory with its parents, and the plan in it reads back equal."""
    run = RunDirectory.create(tmp_path / "a" / "run", PLAN)
    assert run.plan() == PLAN
    assert (run.path / "members").is_dir()
    assert run.member_path("m1") == run.path / "members" / "m1"


def test_a_run_is_never_put_over_something(tmp_path: Path) -> None:
    """A directory that holds anything, a file, and a path through a file are refused, and what was there stays."""
    run = RunDirectory.create(tmp_path / "run", PLAN)
    with pytest.raises(UsageError, match="is not empty"):
        RunDirectory.create(run.path, replace(PLAN, seed=8))
    assert run.plan() == PLAN
    with pytest.raises(UsageError, match="not an empty directory"):
        RunDirectory.create(run.plan_path, PLAN)
    with pytest.raises(UsageError, match="a part of this path is a file"):
        RunDirectory.create(run.plan_path / "run", PLAN)


def test_a_directory_that_cannot_be_made_is_the_environment_s_fault() -> None:
    """Where nobody, root included, can make a directory, the message names it and the reason."""
    with pytest.raises(EnvironmentFailure, match=r"/proc/pekan/run: cannot hold a run: "):
        RunDirectory.create("/proc/pekan/run", PLAN)


def test_opening_says_what_is_missing(tmp_path: Path) -> None:
    """No directory, a file in its place, no plan, no history: each is named."""
    with pytest.raises(EvidenceError, match="does not exist"):
        RunDirectory.open(tmp_path / "none")
    (tmp_path / "file").write_text("")
    with pytest.raises(EvidenceError, match="is not a directory"):
        RunDirectory.open(tmp_path / "file")
    with pytest.raises(EvidenceError, match=r"plan\.json and history\.pb missing"):
        RunDirectory.open(tmp_path)
    run = RunDirectory.create(tmp_path / "run", PLAN)
    with pytest.raises(EvidenceError, match=r": history\.pb missing"):
        RunDirectory.open(run.path)
    run.history_path.write_bytes(b"")
    assert RunDirectory.open(run.path) == run
    with pytest.raises(EvidenceError, match=rf"holds runs and is none itself .* the last is {run.path}$"):
        RunDirectory.open(tmp_path)


def test_history_files_are_listed_in_order(tmp_path: Path) -> None:
    """history.pb comes first, then history-N.pb by number, and nothing else."""
    for name in ("history-10.pb", "history-2.pb", "history.pb", "history-x.pb", "history.pb.bak", "myhistory.pb"):
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in RunDirectory(tmp_path).history_paths()] == ["history.pb", "history-2.pb", "history-10.pb"]


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"format": 99}', b"\xff\xfe"])
def test_a_plan_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    """A plan.json that is not JSON, not a plan, of an unknown format or not text is refused with its path."""
    run = RunDirectory(tmp_path)
    run.plan_path.write_bytes(content)
    with pytest.raises(EvidenceError, match=r"plan\.json: "):
        run.plan()


def test_derived_files_are_replaced_whole(tmp_path: Path) -> None:
    """A reader that has the old verdict open still has all of it after the new one is in place, and no temporary file stays."""
    run = RunDirectory(tmp_path)
    assert run.write_derived("verdict.json", "old" * 1000) is None
    with open(run.verdict_path, encoding="utf-8") as before:
        assert run.write_derived("verdict.json", "new") is None
        assert before.read() == "old" * 1000
    assert run.verdict_path.read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["verdict.json"]


def test_a_read_only_run_gives_a_note() -> None:
    """Where the directory is read-only, for root too, nothing is raised: the note names the file."""
    note = RunDirectory(Path("/sys/kernel")).write_derived("verdict.json", "{}")
    assert note is not None
    assert "/sys/kernel/verdict.json not written" in note


def test_a_derived_file_that_fails_otherwise_is_told(tmp_path: Path) -> None:
    """A run directory that is gone is no read-only one: the failure is raised with the path."""
    with pytest.raises(EnvironmentFailure, match=r"verdict\.json: cannot be written"):
        RunDirectory(tmp_path / "none").write_derived("verdict.json", "{}")


@pytest.mark.parametrize("name", ["plan.json", "history.pb", "history-2.pb", "members", "members/m1/etcd.log", "../verdict.json"])
def test_evidence_is_never_rewritten(tmp_path: Path, name: str) -> None:
    """No evidence, and nothing outside the run, can be written as a derived file."""
    with pytest.raises(UsageError, match="never rewritten"):
        RunDirectory(tmp_path).write_derived(name, "{}")
    assert list(tmp_path.iterdir()) == []


def test_images_that_show_nothing_wrong_are_dropped(tmp_path: Path) -> None:
    """The data of images goes, but for those that are named; what members answered on them stays, and is found by image and attempt."""
    run = RunDirectory.create(tmp_path / "run", PLAN)
    for image, attempt in ((2, 1), (10, 1), (10, 2)):
        (run.images_path / str(image) / "data" / "m1").mkdir(parents=True, exist_ok=True)
        (run.images_path / str(image) / str(attempt)).mkdir()
        (run.images_path / str(image) / str(attempt) / "history.pb").touch()
    run.drop_images([10])
    assert sorted(path.parent.name for path in run.images_path.glob("*/data")) == ["10"]
    assert [(image, attempt) for image, attempt, _ in run.epoch_paths()] == [(2, 1), (10, 1), (10, 2)]
    run.drop_record()
    assert not run.images_path.exists()
