"""Names of places in real etcd executables of six releases and three generations of Go."""

from __future__ import annotations

import pytest

from pekan.errors import UsageError
from pekan.faults.hooks.patches import patches_for
from pekan.faults.hooks.points import Points
from stage.releases import RELEASES

from .executables import points

# How many gofail sites etcd's own source has at the release (without bbolt's, whose version is the builder's choice).
SITES = {"3.4.23": 16, "3.5.1": 15, "3.5.16": 23, "3.5.35": 45, "3.6.16": 44, "3.7.3": 47}


@pytest.mark.parametrize("version", [version for version in SITES if version in RELEASES])
def test_every_gofail_site_of_the_release_resolves_and_can_be_hooked(version: str) -> None:
    """Each site of the release's source has one place in the executable, and all places can be hooked together."""
    here = points(version)
    found = [here.find(name) for name in here.gofail_names()]
    assert len([point for point in found if "bbolt" not in point.file]) == SITES[version]
    assert {point.kind for point in found} == {"gofail"}
    assert [point.name for point in found if len(point.addresses) != 1] == []
    assert patches_for(here.binary, found).refused == {}


@pytest.mark.parametrize("version", [version for version in SITES if version in RELEASES])
@pytest.mark.parametrize("name", ["applierV3backend.Apply", "wal.(*WAL).Save", "wal.WAL.Save", "raftNode.start.func1"])
def test_a_function_is_found_by_an_end_of_its_name(version: str, name: str) -> None:
    """Packages move between releases and builders drop parts of their paths; type and method stay."""
    here = points(version)
    point = here.find(name)
    assert point.kind == "function"
    assert point.function.replace("(*", "").replace(")", "").endswith(name.replace("(*", "").replace(")", ""))
    assert here.find(point.function).addresses == point.addresses


def test_a_name_of_several_functions_lists_them() -> None:
    """`Save` says nothing; the answer names what it may be."""
    with pytest.raises(UsageError, match=r"'Save' may be .*wal\.\(\*WAL\)\.Save.*write more of the name"):
        points("3.7.3").find("Save")


def test_an_unknown_name_names_the_release_and_what_is_near() -> None:
    """A misspelt site leads to the right one."""
    with pytest.raises(UsageError, match=r"'raftBefreSave' is no point of etcd 3\.7\.3; near it are .*raftBeforeSave"):
        points("3.7.3").find("raftBefreSave")


def test_a_site_of_a_newer_release_is_taken_at_a_function_or_refused() -> None:
    """3.5.1 has no gofail comment where an entry is applied: the point is that function, and says so; inside a function there is none."""
    here = points("3.5.1")
    point = here.find("beforeApplyOneEntryNormal")
    assert point.kind == "alias"
    assert point.function.endswith("(*EtcdServer).applyEntryNormal")
    assert "etcd 3.5.1 has no gofail site of this name" in point.note
    with pytest.raises(UsageError, match=r"etcd 3\.5\.1 has no point 'raftBeforeAdvance': etcd 3\.5\.1 has no gofail site of this name"):
        here.find("raftBeforeAdvance")


def test_lines_of_another_release_are_never_used() -> None:
    """The same executable called by another release's number: its table rows do not fit, and sites without a function are no points."""
    wrong = Points(points("3.7.3").binary, "3.6.16")
    with pytest.raises(UsageError, match=r"was not built from the lines of etcd 3\.6\.16"):
        wrong.find("walAfterSync")
    unknown = Points(points("3.7.3").binary, "3.9.0")
    with pytest.raises(UsageError, match=r"the table of gofail sites does not have etcd 3\.9\.0"):
        unknown.find("walAfterSync")
    assert unknown.find("beforeCommit").kind == "alias"


def test_a_source_line_is_found_by_an_end_of_its_path() -> None:
    """A line with code has a place; one without names its neighbours; a file name that several files have asks for more of the path."""
    here = points("3.7.3")
    save = here.find("wal.(*WAL).Save")
    line = here.find("raftBeforeSave").line
    point = here.find(f"etcdserver/raft.go:{line}")
    assert point.addresses == here.find("raftBeforeSave").addresses
    with pytest.raises(UsageError, match=r"may be in .*etcdserver/raft\.go.*write more of the path"):
        here.find(f"raft.go:{line}")
    with pytest.raises(UsageError, match=r"no code of etcd 3\.7\.3 belongs to this line; lines near it that have are"):
        here.find(f"storage/wal/wal.go:{save.line - 1}")
    with pytest.raises(UsageError, match=r"comes from a file nowhere\.go"):
        here.find("nowhere.go:1")
