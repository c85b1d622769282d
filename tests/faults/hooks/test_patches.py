"""Plans of patches: what they replace, how they are kept, and what is done with a kept one that is damaged."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from iced_x86 import Decoder

from pekan.errors import UsageError
from pekan.faults.hooks import stub
from pekan.faults.hooks.patches import CELLS_ADDRESS, CODE_ADDRESS, PAGE_BYTES, Patches, plan_patches

from .executables import executable, points

NAMES = ["backend.(*batchTx).commit", "applierV3backend.Apply", "wal.(*WAL).Save"]


def placed(patches: Patches, address: int) -> bytes:
    """What is at `address` of the text after the writes."""
    for start, data in patches.writes:
        if start <= address < start + len(data):
            return data[address - start :]
    raise AssertionError(f"nothing is written at {address:#x}")


def test_each_point_jumps_to_a_stub_that_counts_into_its_own_cell() -> None:
    """From the jump in the text to the cell's address in the stub, for every name."""
    path = executable("3.5.1")
    here = points("3.5.1")
    patches = plan_patches(path, NAMES, release="3.5.1")
    assert list(patches.cells) == NAMES
    assert sorted(patches.cells.values()) == [0, 1, 2]
    assert patches.refused == {}
    assert len(patches.code) % PAGE_BYTES == 0
    assert patches.cells_bytes == PAGE_BYTES
    for name, cell in patches.cells.items():
        (address,) = here.find(name).addresses
        (jump,) = list(Decoder(64, placed(patches, address)[:5], ip=address))
        at = jump.near_branch_target - CODE_ADDRESS
        head = list(Decoder(64, patches.code[at : at + stub.STUB_HEAD_BYTES], ip=CODE_ADDRESS + at))
        assert [each.immediate(1) for each in head if str(each).startswith("mov ebx")] == [CELLS_ADDRESS + cell * stub.CELL_BYTES]
        assert [each.near_branch_target for each in head if str(each).startswith("call")] == [CODE_ADDRESS]


def test_bytes_between_patches_stay_as_they_are() -> None:
    """A write that joins near patches puts etcd's own bytes between them."""
    here = points("3.5.1")
    names = here.functions()[1000:1100]
    patches = plan_patches(executable("3.5.1"), names)
    covered = {
        address + offset
        for name in patches.cells
        for address in here.find(name).addresses
        for offset in range(16)  # no patch is longer: four bytes and then at most the longest instruction but one
    }
    changed = 0
    for start, data in patches.writes:
        original = here.binary.read(start, len(data))
        for offset, (new, old) in enumerate(zip(data, original, strict=True)):
            changed += new != old
            assert new == old or start + offset in covered
    assert changed >= len(patches.cells)
    assert len(patches.writes) < len(patches.cells)


def test_two_names_of_one_place_share_a_cell_and_neighbours_do_not_overlap() -> None:
    """A function's two names are one point; a place inside another's jump is refused with the reason."""
    here = points("3.5.1")
    full = here.find("applierV3backend.Apply").function
    patches = plan_patches(executable("3.5.1"), ["applierV3backend.Apply", full])
    assert patches.cells["applierV3backend.Apply"] == patches.cells[full]
    assert patches.cell_count == 1


def test_an_unknown_name_is_an_error_and_not_a_missing_hook() -> None:
    """Nothing is planned for a name that means nothing."""
    with pytest.raises(UsageError, match=r"is no point of etcd 3\.5\.1"):
        plan_patches(executable("3.5.1"), ["raftBeforeSave", "noSuchPlace"], release="3.5.1")


def test_a_kept_plan_is_the_same_plan(tmp_path: Path) -> None:
    """The second plan comes from the cache and equals the first."""
    first = plan_patches(executable("3.5.1"), NAMES, release="3.5.1", keep=tmp_path)
    (file,) = tmp_path.glob("*.patches")
    written = file.stat().st_mtime_ns
    assert plan_patches(executable("3.5.1"), NAMES, release="3.5.1", keep=tmp_path) == first
    assert file.stat().st_mtime_ns == written
    plan_patches(executable("3.5.1"), NAMES[:1], release="3.5.1", keep=tmp_path)
    assert len(list(tmp_path.glob("*.patches"))) == 2


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied"])
def test_a_damaged_kept_plan_is_made_again(tmp_path: Path, damage: str) -> None:
    """No byte of a file that is not what was written reaches a process."""
    first = plan_patches(executable("3.5.1"), NAMES, release="3.5.1", keep=tmp_path)
    (file,) = tmp_path.glob("*.patches")
    data = bytearray(file.read_bytes())
    if damage == "cut":
        del data[-100:]
    elif damage == "emptied":
        data.clear()
    else:
        data[len(data) // 2] ^= 1
    file.write_bytes(data)
    assert plan_patches(executable("3.5.1"), NAMES, release="3.5.1", keep=tmp_path) == first
    assert file.read_bytes() != bytes(data)


def test_a_place_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    """The plan is made all the same."""
    (tmp_path / "file").write_text("where the directory should be")
    assert plan_patches(executable("3.5.1"), NAMES, release="3.5.1", keep=tmp_path / "file").refused == {}


WITHOUT_ICED = """
import sys
sys.modules["iced_x86"] = None  # what Python itself notes of a module that cannot be imported
import subprocess
import sys
from pathlib import Path
from pekan.errors import EnvironmentFailure
from pekan.faults.hooks import Hooks
from pekan.faults.hooks.patches import plan_patches
assert not Hooks.probe().possible
try:
    plan_patches(Path(sys.argv[1]), ["wal.(*WAL).Save"], keep=Path(sys.argv[2]))
except EnvironmentFailure as failure:
    print(failure, failure.exit_code)
"""


def test_without_a_disassembler_the_message_says_what_to_install(tmp_path: Path) -> None:
    """In a Python without iced-x86 everything imports, hooks are told to be impossible, and planning one names the pip line."""
    arguments = [sys.executable, "-c", WITHOUT_ICED, str(executable("3.5.1")), str(tmp_path)]
    result = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=60)
    assert result.stderr == ""
    assert "pip install 'pekan[hunt]' 4" in result.stdout
