"""The certificates of a run, tried in real handshakes."""

from __future__ import annotations

import asyncio
import ssl
import stat
import subprocess
import sys
from pathlib import Path

import cryptography
import pytest

import pekan
from pekan.errors import ClusterFailure
from pekan.etcd.spec import TlsFiles
from pekan.etcd.tls import make_certificates

HANDSHAKE_SECONDS = 20


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    return make_certificates(tmp_path_factory.mktemp("certificates") / "tls", client_user="alice", client_certificate_required=True)


def server_context(files: TlsFiles, role: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(
        *{"server": (files.server_certificate, files.server_key), "peer": (files.peer_certificate, files.peer_key)}[role]
    )
    context.load_verify_locations(files.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


async def shaken_hands(server: ssl.SSLContext, client: ssl.SSLContext, host: str) -> dict[str, object]:
    """The client's certificate as the server saw it. Raises what the client was told."""
    seen: dict[str, object] = {}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.update(writer.get_extra_info("peercert"))
        writer.write(b"!")
        writer.close()

    async with asyncio.timeout(HANDSHAKE_SECONDS), await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server) as listener:
        port = listener.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname=host)
        try:
            # TLS 1.3: a refused client certificate shows at the first read.
            if await reader.read(1) != b"!":
                raise ConnectionError("the server closed without a word")
        finally:
            writer.transport.abort()
    return seen


@pytest.mark.parametrize("role", ["server", "peer"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_client_and_server_accept_each_other(files: TlsFiles, role: str, host: str) -> None:
    """Both ends verify each other by the run's CA, by address and by name, and the server reads the client's user."""
    client = ssl.create_default_context(cafile=str(files.ca))
    client.load_cert_chain(files.client_certificate, files.client_key)
    seen = asyncio.run(shaken_hands(server_context(files, role), client, host))
    assert seen["subject"] == ((("commonName", "alice"),),)


def test_peers_accept_each_other(files: TlsFiles) -> None:
    """A peer's certificate serves at both ends, as etcd uses it, and names no user."""
    client = ssl.create_default_context(cafile=str(files.ca))
    client.load_cert_chain(files.peer_certificate, files.peer_key)
    assert asyncio.run(shaken_hands(server_context(files, "peer"), client, "127.0.0.1"))["subject"] == ()


def test_strangers_are_refused(files: TlsFiles, tmp_path: Path) -> None:
    """A client without a certificate, and one of another run, do not get in; nor is another run's server believed."""
    other = make_certificates(tmp_path)
    anonymous = ssl.create_default_context(cafile=str(files.ca))
    stranger = ssl.create_default_context(cafile=str(files.ca))
    stranger.load_cert_chain(other.client_certificate, other.client_key)
    for client in (anonymous, stranger):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            asyncio.run(shaken_hands(server_context(files, "server"), client, "127.0.0.1"))
    with pytest.raises(ssl.SSLCertVerificationError):
        asyncio.run(shaken_hands(server_context(files, "server"), ssl.create_default_context(cafile=str(other.ca)), "127.0.0.1"))


def test_nobody_else_reads_them(files: TlsFiles) -> None:
    """Every file has mode 0600."""
    paths = [path for path in vars(files).values() if isinstance(path, Path)]
    assert len(paths) == 7
    assert {stat.S_IMODE(path.stat().st_mode) for path in paths} == {0o600}


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    """A directory that cannot be made is a cluster failure that names it."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ClusterFailure, match="file/tls"):
        make_certificates(tmp_path / "file" / "tls")


def test_without_cryptography(tmp_path: Path) -> None:
    """Where the package cryptography is not installed, the error is the environment's and says what to install."""
    # This installation's packages, all but the one.
    packages = tmp_path / "packages"
    packages.mkdir()
    for package in Path(cryptography.__file__).parents[1].iterdir():
        if not package.name.startswith("cryptography"):
            (packages / package.name).symlink_to(package)
    program = (
        f"import sys; sys.path[:0] = [{str(Path(pekan.__file__).parents[1])!r}, {str(packages)!r}]\n"
        "from pathlib import Path\n"
        "from pekan.errors import EnvironmentFailure\n"
        "from pekan.etcd.tls import make_certificates\n"
        "try: make_certificates(Path(sys.argv[1]))\n"
        "except EnvironmentFailure as failure: print(failure)\n"
    )
    target = tmp_path / "tls"
    command = [sys.executable, "-I", "-S", "-c", program, str(target)]
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=60, check=True)
    assert "pip install 'pekan[hunt]'" in ran.stdout
    assert not target.exists()
