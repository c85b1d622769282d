"""Clients of one member that ask for nothing, and cost it something all the same.

::

    Crowd      TCP and one byte, many times       waits to be accepted, or is and waits for the rest     a descriptor each
    endless    a request whose body does not end  the member keeps what has come of it, to decode it     3 to 4 times what is sent

One byte, because the proxy dials a member only for bytes that it has to bring there. A request that is not whole is never carried out.
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
AGAIN_S = 0.1
ONE_BYTE = b"P"
"""With it HTTP/2's preface begins (RFC 9113, section 3.4), and more than one method of HTTP/1.1."""
HEAD = b'POST /v3/kv/put HTTP/1.1\r\nHost: pekan\r\nContent-Type: application/json\r\nContent-Length: 1099511627776\r\n\r\n{"key":"'
"""To etcd's gateway for JSON, which reads a body to its end before it looks at it and sets it no bound."""
PIECE = b"A" * (1 << 20)


class Crowd:
    """So many connections; they are closed on leaving."""

    def __init__(self, member: MemberSpec) -> None:
        self._member = member
        self._open: list[asyncio.Transport] = []

    async def grow(self, number: int) -> None:
        """That many more, at once; fewer where some cannot be made in time."""
        await asyncio.gather(*(self._join() for _ in range(number)))

    async def _join(self) -> None:
        host, port = self._member.advertise_client
        with contextlib.suppress(OSError):
            async with asyncio.timeout(DIAL_S):
                transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, host, port)
            self._open.append(transport)
            transport.write(ONE_BYTE)

    async def __aenter__(self) -> Crowd:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for transport in self._open:
            transport.abort()


async def endless(member: MemberSpec, bytes_max: int) -> None:
    """Send a request that does not end, of up to `bytes_max`, as fast as the member takes it, and stay until cancelled.

    Begun again where the connection breaks, within the same bound. A member without the gateway (`--enable-grpc-gateway=false`) keeps none
    of it."""
    host, port = member.advertise_client
    tls = _context(member)
    sent = 0
    while True:
        writer: asyncio.StreamWriter | None = None
        try:
            async with asyncio.timeout(DIAL_S):
                _, writer = await asyncio.open_connection(host, port, ssl=tls)
            writer.write(HEAD)
            while sent < bytes_max:
                writer.write(PIECE)
                sent += len(PIECE)
                await writer.drain()
            await asyncio.Event().wait()
        except OSError:
            await asyncio.sleep(AGAIN_S)
        finally:
            if writer is not None:
                writer.transport.abort()


def _context(member: MemberSpec) -> ssl.SSLContext | None:
    """As the run's own clients; None where they speak plain text."""
    if member.tls is None:
        return None
    context = ssl.create_default_context(cafile=str(member.tls.ca))
    context.load_cert_chain(member.tls.client_certificate, member.tls.client_key)
    context.check_hostname = False  # of the run's own CA; in a network namespace members have other addresses
    context.set_alpn_protocols(["http/1.1"])
    return context
