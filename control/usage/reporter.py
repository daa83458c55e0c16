"""Usage that is reported -> charges, by the same script as the gateway's requests. Needs Redis, and not Postgres.

The key of a record is an idempotency key of the ledger. What was charged under it says, in its request id, of what
content the record was: so the script that lets one of many be charged also decides whose content holds, and whoever
comes with another one finds that out, at the same time or a day later.
"""

import asyncio
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from hashlib import blake2b

import structlog

from control.entitlements.publish import Publisher
from control.ids import uuid7
from control.usage.outcomes import CONFLICT, Charged, Outcome, outside_period, refused
from control.usage.records import UsageRecord
from quota.events import UsageEvent, parse
from quota.ledger import Ledger, LedgerUnavailable
from quota.model import Admitted, Decision, Entitlement, Report

log = structlog.get_logger()


class Reporter:
    def __init__(self, ledger: Ledger, publisher: Publisher) -> None:
        self._ledger = ledger
        self._publisher = publisher
        self._loading: dict[str, asyncio.Task[Entitlement]] = {}

    async def report(self, org: str, records: Sequence[UsageRecord]) -> list[Outcome]:
        """Charges each record on its own, and tells what became of each.

        Raises LedgerUnavailable, and StoreUnavailable where the organization must be loaded first. Nobody knows then
        what was charged: the same records may be sent again."""
        names = [_name_of(record.idempotency_key) for record in records]
        recalled = await self._ledger.recall(org, names)
        if recalled.unpublished and not all(recalled.receipts):
            await self._load(org)
            recalled = await self._ledger.recall(org, names)
        post = uuid7().hex
        outcomes: dict[int, Outcome] = {}
        reports: dict[int, Report] = {}
        for n, (record, name, receipt) in enumerate(zip(records, names, recalled.receipts, strict=True)):
            # A repetition first: what was charged stays charged, also when its period is over meanwhile.
            if receipt is not None:
                outcomes[n] = _repeated(record, receipt)
            elif recalled.period and (why := outside_period(record, recalled.period, recalled.now_us / 1_000_000)):
                outcomes[n] = why
            else:
                request_id = f"usage-{post}-{n}-{record.digest}"
                reports[n] = Report(request_id, record.meter, record.units, name)
        decisions = await self._ledger.report(org, list(reports.values()))
        failed = [decision for decision in decisions if isinstance(decision, LedgerUnavailable)]
        if failed and len(failed) == len(records):
            raise failed[0]
        for fault in failed[:1]:
            log.warning("the ledger refuses usage records", org=org, records=len(failed), reason=str(fault))
        for (n, report), decision in zip(reports.items(), decisions, strict=True):
            outcomes[n] = await self._outcome(org, records[n], report, decision)
        return [outcomes[n] for n in range(len(records))]

    async def _outcome(
        self, org: str, record: UsageRecord, report: Report, decision: Decision | LedgerUnavailable
    ) -> Outcome:
        if not isinstance(decision, Admitted):
            return refused(decision, record)
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


def _name_of(key: str) -> str:
    """128 bits, since a client chooses its keys; apart from the names that the gateway gives."""
    return "u." + urlsafe_b64encode(blake2b(key.encode(), digest_size=16).digest()).rstrip(b"=").decode()


def _event(receipt: bytes) -> UsageEvent:
    return parse(receipt.decode("ascii"))


def _repeated(record: UsageRecord, receipt: bytes) -> Outcome:
    event = _event(receipt)
    return Charged(event) if event.request_id.endswith(f"-{record.digest}") else CONFLICT
