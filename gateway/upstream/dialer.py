"""New connections to one target: its addresses are tried one after the other."""

import asyncio
import ssl
from collections.abc import Callable

from gateway.upstream.connection.upstream_connection import UpstreamConnection
from gateway.upstream.endpoint import Endpoint
from gateway.upstream.resolve import Addresses


class Dialer:
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        endpoint: Endpoint,
        addresses: Addresses,
        timeout_seconds: float,
        make: Callable[[], UpstreamConnection],
    ) -> None:
        self._loop = loop
        self._endpoint = endpoint
        self._addresses = addresses
        self._timeout_seconds = timeout_seconds
        self._make = make

    async def connect(self, seconds: float) -> UpstreamConnection:
        """Tries the addresses, each but the last for half of the time that is left. Raises OSError and TimeoutError."""
        ends = self._loop.time() + min(self._timeout_seconds, seconds)
        async with asyncio.timeout_at(ends):
            *others, last = await self._addresses.in_turn()
        for address in others:
            try:
                return await self._connect_to(address, (ends + self._loop.time()) / 2)
            except (OSError, TimeoutError):
                self._addresses.refused(address)
        return await self._connect_to(last, ends)

    async def _connect_to(self, address: str, ends: float) -> UpstreamConnection:
        endpoint = self._endpoint
        async with asyncio.timeout_at(ends):
            if endpoint.socket is not None:
                _, connection = await self._loop.create_unix_connection(self._make, address)
            elif endpoint.tls is None:
                _, connection = await self._loop.create_connection(self._make, address, endpoint.port)
            else:
                connection = await self._connect_tls(address, await endpoint.tls.current())
        connection.address = address
        return connection

    async def _connect_tls(self, address: str, context: ssl.SSLContext) -> UpstreamConnection:
        """In two steps, so that the connection knows the socket below its TLS layer."""
        plain, _ = await self._loop.create_connection(asyncio.Protocol, address, self._endpoint.port)
        connection = self._make()
        connection.transport = connection.socket = plain  # for bytes that come unasked before the next line is done
        server_name = self._endpoint.server_name
        transport = await self._loop.start_tls(plain, connection, context, server_hostname=server_name)
        if transport is None:  # typeshed: never
            raise ConnectionAbortedError("the connection ended within its handshake")
        connection.connection_made(transport)
        return connection
