"""Charges that must be corrected: sent at once, and again until the ledger has taken them.

Two kinds. What was charged and not delivered, or charged by an estimate, is set right: its receipt is known. What was
sent to Redis and never answered is voided: whether it was charged is looked up in the event stream, whose entries are
receipts, and if so it is given back. The script settles a receipt once, so sending it twice is harmless; that is what
makes retries safe. What is still open when the process ends is logged.
"""

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from gateway.ledger.ledger_link import LedgerLink
from gateway.redis.connection import Lost
from quota import keys
from quota.calls.corrections import Attempt, decode_settlement, decode_sought, seek_call, settle_call, withdraw_call
from quota.model import Settlement

log = structlog.get_logger()

OPEN_MAX = 100_000  # corrections kept for a ledger that is away, in each worker: some 20 MiB
RETRY_SECONDS = 0.5
SEEK_AT_ONCE_MAX = 256
SEEK_MARGIN_MS = 5_000  # looked for in events that are up to so much older: clocks differ, and failovers change them
# The link ends the old connection inside Redis before it opens a new one, so one look is enough. Where Redis forbids it
# that (an ACL), commands of the old connection may still run: a second look finds what the first came too early for.
LOOKS, LOOK_AGAIN_SECONDS = 2, 5.0


@dataclass(slots=True)
class _UnconfirmedTake:
    """A take of which nobody knows whether it was applied."""

    org: str
    request_id: bytes
    sent_ms: int
    """Redis time, as this gateway knows it."""
    idempotency_name: str | None
    """The name of its idempotency key."""
    looks: int = LOOKS
    not_before: float = 0.0
    """Loop time."""


@dataclass(slots=True)
class _Correction:
    org: str
    receipt: bytes
    reason: str
    idempotency_name: str | None = None
    """The name of the request's idempotency key: the charge may be that of another request with it."""
    request_id: bytes = b""
    """Of the request that gives the charge back, where it has an idempotency key."""
    units: Mapping[str, int] | None = None
    """Really used, by meter; None: nothing was delivered, and all of it is given back."""
    refunds_max: int | None = None
    """Of a refund: how many the organization may have in a period."""
    otherwise: Mapping[str, int] | None = None
    """Units used, should the period have had its refunds."""
    take: _UnconfirmedTake | None = None
    """Whose receipt was found in the stream. Another server may not have the charge, and then there is nothing to give
    back: it is looked for again."""


class Settlements:
    def __init__(
        self, loop: asyncio.AbstractEventLoop, link: LedgerLink, shards: int, on_given_back: Callable[[str], None]
    ) -> None:
        self._loop = loop
        self._link = link
        self._shards = shards
        self._on_given_back = on_given_back
        self._corrections: deque[_Correction] = deque()
        self._unconfirmed: deque[_UnconfirmedTake] = deque()
        self._under_way = 0
        self.given_back = self.capped = 0
        """Charges that were given back, and those that were not since the period had had its refunds."""
        self.shortfall: Counter[str] = Counter()
        """Units by meter that were used and could not be charged: a hard limit is never exceeded."""
        self._draining = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def open(self) -> int:
        """Corrections that the ledger has not confirmed."""
        return len(self._corrections) + len(self._unconfirmed) + self._under_way

    def give_back(
        self,
        org: str,
        receipt: bytes,
        reason: str,
        idempotency_name: str | None = None,
        request_id: bytes = b"",
        refunds_max: int | None = None,
        otherwise: Mapping[str, int] | None = None,
    ) -> None:
        """Undoes a charge: nothing was delivered for it. With the name of an idempotency key, the charge stays as long
        as other requests with the key were or may be delivered. With `refunds_max`, it is given back only while the
        receipt's period has had fewer refunds than that; beyond it the charge becomes `otherwise`, or stays."""
        self._settle(_Correction(org, receipt, reason, idempotency_name, request_id, None, refunds_max, otherwise))

    def correct(self, org: str, receipt: bytes, units: Mapping[str, int]) -> None:
        """Sets the charge of these meters to the units that were used."""
        self._settle(_Correction(org, receipt, "the upstream reported it", units=units))

    def void(self, org: str, request_id: bytes, idempotency_name: str | None = None) -> None:
        """Undoes a take that was sent and never answered, if it was applied."""
        if len(self._unconfirmed) >= OPEN_MAX:
            log.error("take not voided", org=org, request_id=request_id.decode(), reason="too many are open")
            return
        self._unconfirmed.append(_UnconfirmedTake(org, request_id, self._link.redis_ms(), idempotency_name))
        self._later()

    async def drain(self, seconds: float) -> None:
        """Waits for what is under way, at most so long; logs what stays open."""
        deadline = self._loop.time() + seconds
        self._draining = True  # one look must do: nobody is here for a second
        for take in self._unconfirmed:
            take.not_before = 0.0
        while self.open and self._loop.time() < deadline:  # noqa: ASYNC110 - once, at the end of a process
            await asyncio.sleep(0.02)
        if self._timer is not None:
            self._timer.cancel()
        for correction in self._corrections:
            self._give_up(correction, "the gateway ends")
        for take in self._unconfirmed:
            log.error("take not voided", org=take.org, request_id=take.request_id.decode())

    # Giving back

    def _settle(self, correction: _Correction) -> None:
        org, receipt = correction.org, correction.receipt
        if not self._link.of(keys.shard_of(org, self._shards)).corrects:
            self._keep(correction, self._link.down_reason)
            return
        attempt = (
            None
            if correction.idempotency_name is None
            else Attempt(correction.idempotency_name, correction.request_id.decode())
        )
        call = settle_call(
            org, receipt, self._shards, correction.units, refunds_max=correction.refunds_max, attempt=attempt
        )
        self._under_way += 1

        def on_reply(reply: Any) -> None:
            self._under_way -= 1
            if isinstance(reply, Lost):
                self._keep(correction, str(reply))
            else:
                self._on_settled(correction, receipt.split(b" ", 2)[1].decode(), decode_settlement(reply))

        self._link.run(call, on_reply)

    def _on_settled(self, correction: _Correction, request_id: str, settlement: Settlement) -> None:
        org = correction.org
        if settlement.capped:
            self.capped += 1
            log.info("refund refused", org=org, request_id=request_id, refunds_max=correction.refunds_max)
            if correction.otherwise:
                self.correct(org, correction.receipt, correction.otherwise)
            return
        if not settlement.applied:
            return
        if any(units < 0 for units in settlement.units.values()):
            self._on_given_back(org)
        for meter, shortfall in settlement.shortfall.items():
            self.shortfall[meter] += shortfall
            log.warning("used beyond the limit", org=org, request_id=request_id, meter=meter, units=shortfall)
        if correction.units is None:
            self._link.receipts.given_back(request_id.encode())
            self.given_back += 1
            log.info("charge given back", org=org, request_id=request_id, reason=correction.reason)

    def _keep(self, correction: _Correction, reason: str) -> None:
        if correction.take is not None:
            self._unconfirmed.append(correction.take)
            self._later()
            return
        if len(self._corrections) >= OPEN_MAX:
            self._give_up(correction, reason)
            return
        self._corrections.append(correction)
        self._later()

    @staticmethod
    def _give_up(correction: _Correction, reason: str) -> None:
        org, receipt, units = correction.org, correction.receipt.decode(), correction.units
        if units is None:
            log.error("charge not given back", org=org, receipt=receipt, reason=reason)
        else:
            log.error("charge not corrected", org=org, receipt=receipt, reason=reason, used=dict(units))

    # Looking up

    def _seek(self, takes: list[_UnconfirmedTake]) -> None:
        """Looks for takes of one shard."""
        shard = keys.shard_of(takes[0].org, self._shards)
        from_ms = max(0, min(take.sent_ms for take in takes) - SEEK_MARGIN_MS)
        ids = [take.request_id for take in takes]
        self._under_way += len(takes)

        def on_reply(reply: Any) -> None:
            self._under_way -= len(takes)
            receipts = {} if isinstance(reply, Lost) else decode_sought(reply)
            for take in takes:
                if isinstance(reply, Lost):
                    self._unconfirmed.append(take)
                elif (receipt := receipts.get(take.request_id)) is not None:
                    self._settle_unconfirmed(take, receipt)
                elif take.idempotency_name is not None:
                    self._withdraw(take, take.idempotency_name)
                elif take.looks > 1 and not self._draining:
                    take.looks -= 1
                    take.not_before = self._loop.time() + LOOK_AGAIN_SECONDS
                    self._unconfirmed.append(take)
                else:
                    self._link.receipts.not_found(take.request_id)
            self._later()

        self._link.run(seek_call(shard, from_ms, ids), on_reply)

    def _settle_unconfirmed(self, take: _UnconfirmedTake, receipt: bytes) -> None:
        reason = "the reply to its take was lost"
        self._settle(_Correction(take.org, receipt, reason, take.idempotency_name, take.request_id, take=take))

    def _withdraw(self, take: _UnconfirmedTake, idempotency_name: str) -> None:
        """A take with an idempotency key that is not among the events: if it was applied, it was not charged."""
        self._under_way += 1

        def on_reply(reply: Any) -> None:
            self._under_way -= 1
            if isinstance(reply, Lost):
                self._unconfirmed.append(take)
            elif reply is not None:
                self._settle_unconfirmed(take, reply)
            elif take.looks > 1 and not self._draining:
                take.looks -= 1
                take.not_before = self._loop.time() + LOOK_AGAIN_SECONDS
                self._unconfirmed.append(take)
            else:
                self._link.receipts.not_found(take.request_id)
            self._later()

        self._link.run(withdraw_call(take.org, take.request_id, idempotency_name, self._shards), on_reply)

    # Again

    def _later(self) -> None:
        if self._timer is None and (self._corrections or self._unconfirmed):
            self._timer = self._loop.call_later(RETRY_SECONDS, self._again)

    def _again(self) -> None:
        self._timer = None
        if self._link.corrects:
            corrections, self._corrections = self._corrections, deque()
            for correction in corrections:
                self._settle(correction)
            now = self._loop.time()
            takes, self._unconfirmed = self._unconfirmed, deque()
            by_shard: defaultdict[int, list[_UnconfirmedTake]] = defaultdict(list)
            for take in takes:
                if take.not_before > now:
                    self._unconfirmed.append(take)
                else:
                    by_shard[keys.shard_of(take.org, self._shards)].append(take)
            for due in by_shard.values():
                for at in range(0, len(due), SEEK_AT_ONCE_MAX):
                    self._seek(due[at : at + SEEK_AT_ONCE_MAX])
        self._later()
