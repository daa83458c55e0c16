"""Refused requests, for those who ask why: so many of each second are kept, and go to Redis once a second.

The request path appends to a list, and only of a request that is refused. Beyond the bounds of a second it counts. What
Redis does not take, since it is away, is dropped and counted.
"""

import asyncio
import os
import socket
from collections.abc import Callable, Mapping
from time import time_ns
from typing import Any, Final, NamedTuple, Protocol

from gateway.http.head import RequestHead
from gateway.settings.observing import Refusals
from identity.claims import Claims
from quota import keys
from quota.calls.encoded import command
from quota.kept_refusals import BATCHES_MAX, FIELD, Batch, Refused, encode, words_of
from quota.model import Decision

SECOND: Final = 1.0
ORGANIZATIONS_MAX: Final = 1000
"""Whose refusals are counted apart between two batches."""
_TRIMMED: Final = ("MAXLEN", "~", str(BATCHES_MAX))


class Sender(Protocol):
    """The link to Redis."""

    def call(self, data: bytes, callback: Callable[[Any], None], /) -> None: ...


class RefusedRequest(Protocol):
    @property
    def id(self) -> bytes: ...
    @property
    def head(self) -> RequestHead: ...
    @property
    def verdict(self) -> bytes: ...


class _Kept(NamedTuple):
    """What is known when it is refused. Its text is made once a second."""

    request_id: bytes
    correlation: bytes | None
    at_ns: int
    claims: Claims | None
    version: int
    route: str
    method: bytes
    status: int
    verdict: bytes
    shadow: bool
    detail: str
    charges: Mapping[str, int]
    decision: Decision | None
    remembered: bool


class RefusedLog:
    """Of one worker."""

    __slots__ = (
        "_by_org",
        "_counts",
        "_kept",
        "_loop",
        "_org_max",
        "_second_max",
        "_seconds",
        "_sender",
        "_sequence",
        "_source",
        "_timed",
        "lost",
        "refused",
        "skipped",
    )

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sender: Sender, settings: Refusals, seconds: float = SECOND
    ) -> None:
        self._loop = loop
        self._sender = sender
        self._second_max = settings.per_second
        self._org_max = settings.per_organization
        self._seconds = seconds
        self._source = f"{os.getpid()}-{os.urandom(6).hex()}"
        self._sequence = 0
        self._kept: list[_Kept] = []
        self._by_org: dict[str, int] = {}
        """How many of this second are kept."""
        self._counts: dict[str, int] = {}
        """How many were refused since the last batch."""
        self._timed = False
        self.refused = 0
        self.skipped = 0
        """Beyond the bounds."""
        self.lost = 0
        """That Redis did not take."""

    def keep(
        self,
        request: RefusedRequest,
        claims: Claims | None,
        route: str,
        method: bytes,
        status: int,
        detail: str,
        charges: Mapping[str, int],
        decision: Decision | None,
        shadow: bool = False,
        remembered: bool = False,
    ) -> None:
        """`remembered`: the decision is that of an earlier request of the same second."""
        org = "" if claims is None else claims.org
        self.refused += 1
        counts = self._counts
        if org in counts or len(counts) < ORGANIZATIONS_MAX:
            counts[org] = counts.get(org, 0) + 1
        if not self._timed:
            self._timed = True
            self._loop.call_later(self._seconds, self._on_time)
        kept, of_org = self._kept, self._by_org.get(org, 0)
        if of_org >= self._org_max or len(kept) >= self._second_max:
            self.skipped += 1
            return
        self._by_org[org] = of_org + 1
        kept.append(
            _Kept(
                request.id,
                request.head.request_id,
                time_ns(),
                claims,
                0 if claims is None else claims.version,
                route,
                method,
                status,
                request.verdict,
                shadow,
                detail,
                charges,
                decision,
                remembered,
            )
        )

    def _on_time(self) -> None:
        self._timed = False
        self.flush()

    def flush(self) -> None:
        """Sends what there is."""
        kept, self._kept = self._kept, []
        counts, self._counts = self._counts, {}
        self._by_org.clear()
        if not counts:
            return
        self._sequence += 1
        gateway = socket.gethostname()
        refusals = tuple(_told(each) for each in kept)
        text = encode(Batch(self._source, gateway, self._sequence, self.refused, counts, refusals))

        def on_reply(reply: Any) -> None:
            if isinstance(reply, Exception):
                self.lost += len(refusals)
                self._count_again(counts)

        self._sender.call(command("XADD", keys.REFUSALS, *_TRIMMED, "*", FIELD, text), on_reply)

    def _count_again(self, counts: Mapping[str, int]) -> None:
        """The next batch says how many there were."""
        for org, count in counts.items():
            if org in self._counts or len(self._counts) < ORGANIZATIONS_MAX:
                self._counts[org] = self._counts.get(org, 0) + count


def _told(kept: _Kept) -> Refused:
    claims, decision = kept.claims, kept.decision
    record = None if claims is None else claims.record
    now_us = getattr(decision, "now_us", None)
    return Refused(
        kept.request_id.decode("latin-1"),
        None if kept.correlation is None else kept.correlation.decode("latin-1"),
        now_us if now_us is not None and not kept.remembered else kept.at_ns // 1000,
        None if claims is None else claims.org,
        None if record is None else record.id,
        None if claims is None else claims.user,
        kept.route,
        kept.method.decode("latin-1"),
        kept.status,
        kept.verdict.decode(),
        kept.shadow,
        kept.detail,
        dict(kept.charges),
        kept.version or None,
        "" if record is None else record.limits,
        words_of(decision),
    )
