"""Concurrency permits: requests under way of organizations that may have only so many at once.

`take` gives a permit for a minute. The permit is released when the exchange ends, and renewed as long as it lasts. The
permits of a worker that was killed are free when their minute is over. Releasing a permit twice is harmless.
"""

import asyncio
from collections import defaultdict, deque
from typing import Any

import structlog

from gateway.ledger.ledger_link import LedgerLink
from gateway.redis.connection import Lost
from gateway.settings.intervals import DEFAULT_INTERVALS, Intervals
from quota.calls.encoded import command
from quota.calls.permits import release_words, renew_call
from quota.wire import PERMIT_SECONDS

log = structlog.get_logger()

RENEW_AT_ONCE_MAX = 256
RETRY_SECONDS = 0.5
OPEN_MAX = 100_000  # releases kept for a ledger that is away


class Permits:
    def __init__(
        self, loop: asyncio.AbstractEventLoop, link: LedgerLink, shards: int, intervals: Intervals = DEFAULT_INTERVALS
    ) -> None:
        self._loop = loop
        self._link = link
        self._shards = shards
        self._renew_seconds = intervals.permit_renew_seconds
        self.held: dict[bytes, str] = {}
        """Request id -> organization."""
        self._unsent: deque[tuple[str, bytes, float]] = deque()  # and when the permit is free anyway
        self._under_way = 0
        self._renewal: asyncio.TimerHandle | None = None
        self._retry: asyncio.TimerHandle | None = None

    def hold(self, org: str, request_id: bytes) -> None:
        """The ledger has given this request a permit."""
        self.held[request_id] = org
        if self._renewal is None:
            self._renewal = self._loop.call_later(self._renew_seconds, self._renew)

    def release(self, org: str, request_id: bytes) -> None:
        """The request has ended, or was never begun; it need not have a permit."""
        self.held.pop(request_id, None)
        self._release(org, request_id, self._loop.time() + PERMIT_SECONDS)

    async def drain(self, seconds: float) -> None:
        """Waits for what is under way, at most so long."""
        deadline = self._loop.time() + seconds
        while (self._under_way or self._unsent) and self._loop.time() < deadline:  # noqa: ASYNC110 - once, at the end
            await asyncio.sleep(0.02)
        for timer in (self._renewal, self._retry):
            if timer is not None:
                timer.cancel()

    def _release(self, org: str, request_id: bytes, free_at: float) -> None:
        self._under_way += 1

        def on_reply(reply: Any) -> None:
            self._under_way -= 1
            if isinstance(reply, Lost) and len(self._unsent) < OPEN_MAX:
                self._unsent.append((org, request_id, free_at))
                if self._retry is None:
                    self._retry = self._loop.call_later(RETRY_SECONDS, self._again)

        self._link.call(command(*release_words(org, request_id, self._shards)), on_reply)

    def _again(self) -> None:
        self._retry = None
        unsent, self._unsent = self._unsent, deque()
        now = self._loop.time()
        for org, request_id, free_at in unsent:
            if free_at > now:
                self._release(org, request_id, free_at)

    def _renew(self) -> None:
        self._renewal = None
        if not self.held:
            return
        by_org: defaultdict[str, list[bytes]] = defaultdict(list)
        for request_id, org in self.held.items():
            by_org[org].append(request_id)
        for org, ids in by_org.items():
            for at in range(0, len(ids), RENEW_AT_ONCE_MAX):
                part = ids[at : at + RENEW_AT_ONCE_MAX]
                self._link.run(renew_call(org, part, self._shards), _note_renewal)
        self._renewal = self._loop.call_later(self._renew_seconds, self._renew)


def _note_renewal(reply: Any) -> None:
    if isinstance(reply, Lost):
        log.warning("slots not renewed", reason=str(reply))
