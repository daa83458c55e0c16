"""Charges that must be corrected: sent at once, and again until the ledger has taken them.

The script settles a receipt once, so sending it twice is harmless; that is what makes the retry safe when a reply
was lost. What is still open when the process ends is logged with its receipt.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog

from gateway.link import Link, Lost
from quota import keys
from quota.ledger import SETTLED_SECONDS

log = structlog.get_logger()

OPEN_MAX = 100_000  # receipts kept for a ledger that is away, in each worker: some 20 MiB
RETRY_SECONDS = 0.5


@dataclass(slots=True)
class _Correction:
    org: str
    receipt: bytes
    meters: tuple[str, ...]
    reason: str


class Settlements:
    def __init__(
        self, loop: asyncio.AbstractEventLoop, link: Link, shards: int, on_given_back: Callable[[str], None]
    ) -> None:
        self._loop = loop
        self._on_given_back = on_given_back
        self._link = link
        self._shards = shards
        self._retry: deque[_Correction] = deque()
        self._under_way = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def open(self) -> int:
        """Corrections that the ledger has not confirmed."""
        return len(self._retry) + self._under_way

    def give_back(self, org: str, receipt: bytes, meters: tuple[str, ...], reason: str) -> None:
        """Undoes a charge: nothing was delivered for it."""
        self._send(_Correction(org, receipt, meters, reason))

    async def drain(self, seconds: float) -> None:
        """Waits for what is under way, at most so long; logs what stays open."""
        deadline = self._loop.time() + seconds
        while self.open and self._loop.time() < deadline:  # noqa: ASYNC110 - once, at the end of a process
            await asyncio.sleep(0.02)
        if self._timer is not None:
            self._timer.cancel()
        for correction in self._retry:
            log.error("charge not given back", org=correction.org, receipt=correction.receipt.decode())

    def _send(self, correction: _Correction) -> None:
        request_id = correction.receipt.split(b" ", 2)[1].decode()
        shard = keys.shard_of(correction.org, self._shards)
        script_keys = [
            keys.org_key(correction.org, self._shards),
            keys.events_key(shard),
            keys.once_key(correction.org, self._shards, f"settle:{request_id}"),
        ]
        argv: list[bytes | str | int] = [correction.receipt, SETTLED_SECONDS]
        for meter in correction.meters:
            argv += [meter, 0]
        self._under_way += 1

        def on_reply(reply: Any) -> None:
            self._under_way -= 1
            if isinstance(reply, Lost):
                self._keep(correction, str(reply))
            elif reply[0]:
                self._on_given_back(correction.org)
                log.info("charge given back", org=correction.org, request_id=request_id, reason=correction.reason)

        self._link.call_script("settle", script_keys, argv, on_reply)

    def _keep(self, correction: _Correction, reason: str) -> None:
        if len(self._retry) >= OPEN_MAX:
            log.error("charge not given back", org=correction.org, receipt=correction.receipt.decode(), reason=reason)
            return
        self._retry.append(correction)
        if self._timer is None:
            self._timer = self._loop.call_later(RETRY_SECONDS, self._send_again)

    def _send_again(self) -> None:
        self._timer = None
        if not self._link.open:
            self._timer = self._loop.call_later(RETRY_SECONDS, self._send_again)
            return
        waiting, self._retry = self._retry, deque()
        for correction in waiting:
            self._send(correction)
