"""Which certificate a client is shown, and what upstreams are told of the one that the client shows."""

import asyncio
import base64
import hashlib
import ssl
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Final
from urllib.parse import quote

from common.certificates import Certificates
from common.x509 import matches, rfc4514
from gateway.settings.listener import Fact, ListenerTls, Served

REMEMBERED_MAX: Final = 1024  # clients' certificates whose fields are remembered; some 3 KiB each
BUFFERED_BYTES: Final = 65_536  # of a connection, above the socket: as one without TLS has it


class Tls:
    """What a listener secures connections with."""

    def __init__(self, settings: ListenerTls) -> None:
        """Raises OSError and ValueError for files that cannot be used."""
        self._files: Sequence[Certificates[Served]] = settings.served()
        asked = settings.client_certificates
        self._forwarded: frozenset[Fact] = frozenset(() if asked is None else asked.forward)

    async def context(self) -> ssl.SSLContext:
        """For a connection that was accepted now."""
        first, *_ = [await each.current() for each in self._files]
        first.context.sni_callback = self._choose if len(self._files) > 1 else None
        return first.context

    @property
    def forwards(self) -> bool:
        """Whether upstreams are told of clients' certificates."""
        return bool(self._forwarded)

    def certificate_fields(self, transport: asyncio.BaseTransport) -> bytes:
        """Header lines for upstreams, of the client at the other end."""
        if not self._forwarded:
            return b""
        shown = transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return b"" if shown is None else _fields(shown, self._forwarded)

    def _choose(self, asking: ssl.SSLObject, host: str | None, _: ssl.SSLContext) -> None:
        if host is not None:
            for each in self._files:
                if matches(each.made.names, host):
                    asking.context = each.made.context
                    return


@lru_cache(REMEMBERED_MAX)
def _fields(certificate: bytes, facts: frozenset[Fact]) -> bytes:
    lines = b""
    if "certificate" in facts:
        lines += b"Client-Cert: :%b:\r\n" % base64.b64encode(certificate)
    if "fingerprint" in facts:
        lines += b"X-Quota-Client-Fingerprint: %b\r\n" % hashlib.sha256(certificate).hexdigest().encode()
    if "subject" in facts:
        with suppress(ValueError):  # one that OpenSSL reads, and a stricter reader does not, has no subject
            lines += b"X-Quota-Client-Subject: %b\r\n" % quote(rfc4514(certificate), safe=",=+").encode()
    return lines


def bound_buffers(transport: asyncio.BaseTransport) -> None:
    """The TLS layer keeps no more of a slow client's answers, and of what is not read, than a socket's transport."""
    for name in ("set_write_buffer_limits", "set_read_buffer_limits"):
        getattr(transport, name)(BUFFERED_BYTES)
