"""What the connections of a listener have to show, and how many did not."""

import time
from collections import Counter
from collections.abc import Callable
from enum import Enum
from typing import Final

import structlog

from gateway.listener.tls import Tls
from gateway.routing.forwarded import Trust
from gateway.settings.intervals import Intervals
from gateway.settings.root import GatewaySettings

log = structlog.get_logger()

LOG_SECONDS: Final = 60.0  # between two log lines of one reason: whoever is refused may come again at once


class Turned(Enum):
    """Why a connection was closed before its first request."""

    PROXY_UNTRUSTED = "proxy_untrusted"
    PROXY_HEADER = "proxy_header"
    TLS = "tls"
    TIMEOUT = "timeout"


class Entrance:
    def __init__(
        self, settings: GatewaySettings, intervals: Intervals, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Raises OSError and ValueError for certificates that cannot be used."""
        listen = settings.listen
        expected = listen.proxy_protocol
        self.proxies = None if expected is None else Trust(expected.trusted, rfc7239=False)
        """Who writes PROXY headers. Each connection has one then."""
        self.tls = None if listen.tls is None else Tls(listen.tls)
        self.forwards_certificates = self.tls is not None and self.tls.forwards
        self.seconds = settings.timeouts.handshake_seconds
        self.connections_max = settings.limits.connections_max
        self.closing_seconds = intervals.client_linger_seconds_max
        self.turned: Counter[Turned] = Counter()
        self._clock = clock
        self._logged: dict[Turned, tuple[float, int]] = {}  # when last, and how many there were by then

    def turn_away(self, why: Turned, peer: bytes, detail: str) -> None:
        self.turned[why] += 1
        now, count = self._clock(), self.turned[why]
        logged_at, before = self._logged.get(why, (float("-inf"), 0))
        if now - logged_at >= LOG_SECONDS:
            self._logged[why] = now, count
            log.warning(
                "connections closed before a request",
                why=why.value,
                count=count - before,
                last_peer=peer.decode(),
                last_reason=detail,
            )
