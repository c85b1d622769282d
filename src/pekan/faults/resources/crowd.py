"""Connections to one member that ask for nothing, and cost it what a connection costs: a descriptor, and where they greet, some memory.

::

    silent     TCP and one byte         waits to be accepted, or is and waits for the rest      a descriptor
    greeting   TLS, HTTP/2's preface    the member makes its buffers for a client               a descriptor, some 100 KiB

One byte, because the proxy dials a member only for bytes that it has to bring there.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

    from pekan.etcd.spec import MemberSpec

DIAL_S = 1.0
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""RFC 9113, section 3.4; after it comes a frame of settings, empty here."""
SETTINGS = b"\0\0\0\x04\0\0\0\0\0"


class Crowd:
    """So many connections; they are closed on leaving."""

    def __init__(self, member: MemberSpec, *, greets: bool = False) -> None:
        self._member = member
        self._greets = greets
        self._open: list[asyncio.Transport] = []
        self._tls = _context(member) if greets else None

    async def grow(self, number: int) -> None:
        """That many more, at once; fewer where some cannot be made in time."""
        await asyncio.gather(*(self._join() for _ in range(number)))

    async def _join(self) -> None:
        host, port = self._member.advertise_client
        with contextlib.suppress(OSError):
            async with asyncio.timeout(DIAL_S):
                transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, host, port, ssl=self._tls)
            self._open.append(transport)
            transport.write(PREFACE + SETTINGS if self._greets else PREFACE[:1])

    async def __aenter__(self) -> Crowd:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for transport in self._open:
            transport.abort()


def _context(member: MemberSpec) -> ssl.SSLContext | None:
    """What the run's own clients speak; None where that is plain text."""
    if member.tls is None:
        return None
    context = ssl.create_default_context(cafile=str(member.tls.ca))
    context.load_cert_chain(member.tls.client_certificate, member.tls.client_key)
    context.check_hostname = False  # of the run's own CA; in a network namespace members have other addresses
    context.set_alpn_protocols(["h2"])
    return context
