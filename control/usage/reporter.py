"""Charges reported usage by the same script as the gateway's requests. This needs Redis, and not Postgres.

The key of a record is an idempotency key of the ledger. The request id of its charge holds a digest of the record. So
the script that charges one of several records with the same key also decides whose content is valid, and a record with
other content finds that out, at the same time or a day later.
"""

import asyncio
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Protocol

import structlog

from control.entitlements.publish import Publisher
from control.ids import uuid7
from control.usage.outcomes import CONFLICT, Charged, LetPass, Outcome, outside_period, refused
from control.usage.records import UsageRecord
from quota.events import REPORTED, UsageEvent, parse
from quota.ledger import Ledger, LedgerUnavailable
from quota.model import Admitted, Decision, Entitlement, Exhausted, Recalled, Report, Unknown

log = structlog.get_logger()

_SURE = (Admitted, LedgerUnavailable)
"""Decisions that took the key into account, or that leave open whether it was."""


class Regional(Protocol):
    """Knows what this region holds of an organization, and asks its home."""

    async def ask(self, org: str, refused: Mapping[str, int]) -> None:
        """`refused`: by meter, the units that were refused. Raises StoreUnavailable, LedgerUnavailable."""


class Reporter:
    def __init__(self, ledger: Ledger, publisher: Publisher, regional: Regional | None = None) -> None:
        """`regional`: None where there is one region."""
        self._regional = regional
        self._ledger = ledger
        self._publisher = publisher
        self._loading: dict[str, asyncio.Task[Entitlement]] = {}

    async def report(self, org: str, records: Sequence[UsageRecord]) -> list[Outcome]:
        """Charges each record on its own; returns the outcome of each.

        Raises LedgerUnavailable, and StoreUnavailable where the organization must be loaded first. Then nobody knows
        what was charged, and the same records may be sent again."""
        names = [_name_of(record.idempotency_key) for record in records]
        post = uuid7().hex
        outcomes: dict[int, Outcome] = {}
        if timed := [n for n, record in enumerate(records) if record.timestamp is not None]:
            recalled = await self._recall(org, [names[n] for n in timed])
            for n, receipt in zip(timed, recalled.receipts, strict=True):
                # A repetition first: what was charged stays charged, also when its period is over meanwhile.
                if receipt is not None:
                    outcomes[n] = _repeated(records[n], receipt)
                elif recalled.period and (
                    why := outside_period(records[n], recalled.period, recalled.now_us / 1_000_000)
                ):
                    outcomes[n] = why
        reports = {
            n: Report(f"{REPORTED}{post}-{n}-{record.digest}", record.meter, record.units, names[n])
            for n, record in enumerate(records)
            if n not in outcomes
        }
        decisions, shadow = await self._charge(org, reports), False
        if refused_records := [n for n, decision in decisions.items() if not isinstance(decision, _SURE)]:
            # Refused before the key was looked at: perhaps it was charged when the plan still allowed it.
            recalled = await self._recall(org, [names[n] for n in refused_records])
            shadow = recalled.shadow
            held = zip(refused_records, recalled.receipts, strict=True)
            outcomes |= {n: _repeated(records[n], receipt) for n, receipt in held if receipt is not None}
            loaded = {n: reports[n] for n in refused_records if isinstance(decisions[n], Unknown) and n not in outcomes}
            decisions |= await self._charge(org, loaded)
        failed = [decision for decision in decisions.values() if isinstance(decision, LedgerUnavailable)]
        if failed and len(failed) == len(records):
            raise failed[0]
        for fault in failed[:1]:
            log.warning("the ledger refuses usage records", org=org, records=len(failed), reason=str(fault))
        for n, decision in decisions.items():
            if n not in outcomes:
                outcomes[n] = await self._outcome(org, records[n], reports[n], decision, shadow=shadow)
        return [outcomes[n] for n in range(len(records))]

    async def _charge(self, org: str, reports: Mapping[int, Report]) -> dict[int, Decision | LedgerUnavailable]:
        decisions = dict(zip(reports, await self._ledger.report(org, list(reports.values())), strict=True))
        again = [n for n, decision in decisions.items() if _may_pass_elsewhere(decision)]
        if self._regional is None or not again:
            return decisions
        refused = dict[str, int]()
        for n in again:
            refused[reports[n].meter] = refused.get(reports[n].meter, 0) + reports[n].units
        await self._regional.ask(org, refused)
        some = [reports[n] for n in again]
        return decisions | dict(zip(again, await self._ledger.report(org, some), strict=True))

    async def _recall(self, org: str, names: Sequence[str]) -> Recalled:
        """What was charged under these keys. If one of them is unknown and Redis does not know the organization, it is
        loaded."""
        recalled = await self._ledger.recall(org, names)
        if recalled.unpublished and not all(recalled.receipts):
            await self._load(org)
            recalled = await self._ledger.recall(org, names)
        return recalled

    async def _outcome(
        self, org: str, record: UsageRecord, report: Report, decision: Decision | LedgerUnavailable, *, shadow: bool
    ) -> Outcome:
        if not isinstance(decision, Admitted):
            refusal = refused(decision, record)
            return LetPass(refusal) if shadow and not isinstance(decision, LedgerUnavailable) else refusal
        if decision.replayed:
            return _repeated(record, decision.receipt)
        if late := outside_period(record, decision.period, decision.now_us / 1_000_000):
            # The period ended since the timestamp was compared with it.
            await self._ledger.give_back(org, decision.receipt, report.idempotency, report.request_id)
            return late
        return Charged(_event(decision.receipt), decision)

    async def _load(self, org: str) -> None:
        """Once for all who wait."""
        loading = self._loading.get(org)
        if loading is None:
            loading = self._loading[org] = asyncio.create_task(self._publisher.install(org))
            loading.add_done_callback(lambda _: self._loading.pop(org))
        await asyncio.shield(loading)


def _may_pass_elsewhere(decision: Decision | LedgerUnavailable) -> bool:
    """Whether the region was short of a lease, or of units that its home may have."""
    if isinstance(decision, Exhausted):
        return decision.more_elsewhere
    return isinstance(decision, Unknown) and decision.lapsed


def _name_of(key: str) -> str:
    """The idempotency name in Redis: 128 bits, since clients choose their keys; distinct from the gateway's names."""
    return "u." + urlsafe_b64encode(blake2b(key.encode(), digest_size=16).digest()).rstrip(b"=").decode()


def _event(receipt: bytes) -> UsageEvent:
    return parse(receipt.decode("ascii"))


def _repeated(record: UsageRecord, receipt: bytes) -> Outcome:
    event = _event(receipt)
    return Charged(event) if event.request_id.endswith(f"-{record.digest}") else CONFLICT
