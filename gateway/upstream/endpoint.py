"""Where one target of an upstream is, and what secures a connection to it."""

import asyncio
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

from common.certificates import Certificates
from gateway.settings.upstreams import Tls, Upstream
from gateway.upstream.resolve import system_look_up

SOCKET_AUTHORITY = "localhost"  # what a socket is called where a host is asked for, as nginx and curl have it


@dataclass(frozen=True, slots=True)
class Endpoint:
    url: str
    scheme: str
    host: str
    """A socket's path is its one address."""
    port: int
    socket: str | None
    """The path of a Unix socket."""
    authority: str
    tls: Certificates[ssl.SSLContext] | None
    server_name: str | None
    """Asked for and verified."""


def endpoint_of(url: str, settings: Upstream) -> Endpoint:
    """`url`: of one of the upstream's targets. Raises OSError for certificates that cannot be read."""
    parts = urlsplit(url)
    path = parts.path if parts.scheme == "unix" else None
    tls = (settings.tls or Tls()).certificates() if parts.scheme == "https" else None
    host = parts.hostname or path or ""
    return Endpoint(
        url=url,
        scheme=parts.scheme,
        host=host,
        port=parts.port or (443 if tls else 80),
        socket=path,
        authority=parts.netloc if path is None else SOCKET_AUTHORITY,
        tls=tls,
        server_name=(settings.tls and settings.tls.server_name) or host if tls else None,
    )


@dataclass(frozen=True, slots=True)
class Reached:
    addresses: list[str]
    certificate_ends: float | None = None
    """Of the certificates that they have shown and that are verified, the first to end: Unix time."""


async def connect_to_addresses(url: str, settings: Upstream) -> Reached:
    """Connects to each address of the target and sends nothing.

    Raises OSError (ssl.SSLError is one) and TimeoutError for the first that cannot be connected to."""
    endpoint, loop, seconds = endpoint_of(url, settings), asyncio.get_running_loop(), settings.connect_timeout_seconds
    if endpoint.socket is not None:
        async with asyncio.timeout(seconds):
            transport, _ = await loop.create_unix_connection(asyncio.Protocol, endpoint.socket)
        transport.close()
        return Reached([endpoint.socket])
    ends: list[float] = []
    async with asyncio.timeout(seconds):
        addresses = await system_look_up(loop)(endpoint.host, endpoint.port)
    for address in addresses:
        async with asyncio.timeout(seconds):
            context = None if endpoint.tls is None else await endpoint.tls.current()
            transport, _ = await loop.create_connection(
                asyncio.Protocol, address, endpoint.port, ssl=context, server_hostname=endpoint.server_name
            )
        if shown := transport.get_extra_info("peercert"):  # which is empty where it was not verified
            ends.append(ssl.cert_time_to_seconds(shown["notAfter"]))
        transport.close()
    return Reached(addresses, min(ends, default=None))
