"""The way to one target of an upstream: its address, and what a connection to it is secured with."""

import asyncio
from dataclasses import dataclass
from urllib.parse import urlsplit

from common.certificates import Certificates
from gateway.settings.upstreams import Tls, Upstream
from gateway.upstream.resolve import system_look_up

SOCKET_AUTHORITY = "localhost"  # what a socket is called where a host is asked for, as nginx and curl have it


@dataclass(frozen=True, slots=True)
class Way:
    scheme: str
    host: str
    """A socket's path is its one address."""
    port: int
    socket: str | None
    """The path of a Unix socket."""
    authority: str
    tls: Certificates | None
    server_name: str | None
    """Asked for and verified."""


def way_to(url: str, settings: Upstream) -> Way:
    """`url`: of one of the upstream's targets. Raises OSError for certificates that cannot be read."""
    parts = urlsplit(url)
    path = parts.path if parts.scheme == "unix" else None
    tls = (settings.tls or Tls()).certificates() if parts.scheme == "https" else None
    host = parts.hostname or path or ""
    return Way(
        scheme=parts.scheme,
        host=host,
        port=parts.port or (443 if tls else 80),
        socket=path,
        authority=parts.netloc if path is None else SOCKET_AUTHORITY,
        tls=tls,
        server_name=(settings.tls and settings.tls.server_name) or host if tls else None,
    )


async def connect_to_addresses(url: str, settings: Upstream) -> list[str]:
    """Connects to each address of the target and sends nothing; the addresses.

    Raises OSError (ssl.SSLError is one) and TimeoutError for the first that cannot be connected to."""
    way, loop, seconds = way_to(url, settings), asyncio.get_running_loop(), settings.connect_timeout_seconds
    if way.socket is not None:
        async with asyncio.timeout(seconds):
            transport, _ = await loop.create_unix_connection(asyncio.Protocol, way.socket)
        transport.close()
        return [way.socket]
    async with asyncio.timeout(seconds):
        addresses = await system_look_up(loop)(way.host, way.port)
    for address in addresses:
        async with asyncio.timeout(seconds):
            context = None if way.tls is None else await way.tls.current()
            transport, _ = await loop.create_connection(
                asyncio.Protocol, address, way.port, ssl=context, server_hostname=way.server_name
            )
        transport.close()
    return addresses
