"""redis-py's connections with TLS, whose certificates follow their files; and what it means when TLS comes to nothing.

A server without TLS waits for more of a handshake that it does not understand. One with TLS closes a connection that
begins with a command; and in TLS 1.3 one whose certificate it refuses, when the client thinks that it is through.
"""

import errno
import ssl
from typing import Any, ClassVar, Final, cast
from urllib.parse import parse_qs, urlsplit

from redis.exceptions import ConnectionError as RedisConnectionError

from common import redis_url
from common.certificates import Certificates

_HANDSHAKE_SHARE: Final = 0.8  # of the time for a connection: a port without TLS is told from a server that is away
CERTIFICATE: Final = "ssl_certfile"
NO_HANDSHAKE: Final = "no TLS handshake came about: does this port speak TLS?"


class WithCertificates:
    """Before a connection class with TLS: redis-py itself reads the files once for each object, although that
    may connect again and again."""

    url: ClassVar[str]
    certificates: ClassVar[Certificates[ssl.SSLContext] | None] = None

    def _connection_arguments(self) -> dict[str, Any]:
        connection = cast("Any", self)
        arguments = dict(cast("Any", super())._connection_arguments())
        if connection.socket_connect_timeout is not None:
            arguments["ssl_handshake_timeout"] = handshake_seconds(connection.socket_connect_timeout)
        return arguments

    async def _connect(self) -> None:
        kind = type(self)
        try:
            if kind.certificates is None:
                kind.certificates = redis_url.certificates(kind.url)
            if kind.certificates is not None:
                cast("Any", self).ssl_context.context = await kind.certificates.current()
        except ValueError as e:
            raise RedisConnectionError(str(e)) from None
        try:
            await cast("Any", super())._connect()
        except ConnectionAbortedError as e:
            if e.errno is not None:  # by the network, and not by the event loop after its time for the handshake
                raise
            raise OSError(errno.EPROTO, NO_HANDSHAKE) from None


def handshake_seconds(connect_seconds: float) -> float:
    """How long a handshake may take, of the time for a connection."""
    return connect_seconds * _HANDSHAKE_SHARE


async def first_commands(connection: Any, url: str) -> None:
    """Those of redis-py on a new connection of this URL. Raises its errors."""
    try:
        await connection.on_connect()
    except RedisConnectionError as e:
        if type(e) is not RedisConnectionError:  # the server has answered, and this is its answer
            raise
        raise RedisConnectionError(f"{where(connection)} {closed(url)}") from None


def where(connection: Any) -> str:
    """Whom a connection of redis-py leads to: host:port, or a path."""
    return getattr(connection, "path", None) or f"{connection.host}:{connection.port}"


def closed(url: str) -> str:
    """What to say of a server that ends a connection of this URL at the first command. TLS' alert may be lost by then,
    so that it is the same text with it and without."""
    what, parts = "closed the connection at the first command", urlsplit(url)
    if parts.scheme == "unix":
        return what
    if not redis_url.has_tls(url):
        return f"{what}: it is not ready, or speaks TLS alone (rediss://)"
    if CERTIFICATE not in parse_qs(parts.query):
        return f"{what}: it is not ready, or asks for a certificate ({CERTIFICATE})"
    return f"{what}: it is not ready, or does not believe the certificate of {CERTIFICATE}"
