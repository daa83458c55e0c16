"""The home of all regions: PostgreSQL, where it is written what each region may draw."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from control import sql
from control.db import Connection, Database
from control.entitlements import stored_state
from control.entitlements.derive import derive
from control.regions.book import WAITS_SECONDS, Book, Holder, answer, forget
from control.regions.terms import ALWAYS, Account, Late, Lease, Report, Slot, Source
from quota.model import Entitlement, OveragePolicy

KEPT_SECONDS: Final = 2 * 86_400
"""After its end a period's reservations stay so long, for a region whose clock is behind."""


@dataclass(frozen=True, slots=True)
class Answer:
    entitlement: Entitlement
    lease: Lease | Late | None
    """None: the organization may use nothing at the region's time."""


class Home:
    def __init__(self, db: Database, lease_seconds: int) -> None:
        """`lease_seconds`: also how long a region that is cut off goes on under terms that have changed."""
        self._db = db
        self._lease_seconds = lease_seconds

    async def answer(self, region: str, reports: Mapping[str, Report]) -> dict[str, Answer]:
        """What each of these organizations may use, and what the region may draw of it, in one transaction; without
        those that nobody knows.

        Periods are those of the region's own time, as everywhere. Raises StoreUnavailable."""
        answers, changed = dict[str, Answer](), dict[str, Book]()
        async with self._db.transaction() as connection:
            known = await sql.regions.lock_organizations(connection, orgs=list(reports))
            if not known:
                return {}
            now = await sql.regions.now(connection)
            at = max(reports[org].asked_at for org in known)
            states = await stored_state.load_states(connection, known, at)
            books = await _load(connection, known)
            for org, state in states.items():
                entitlement, book = derive(state, at), books[org]
                limits, periods = limits_of(entitlement), entitlement.periods
                lease = answer(book, region, reports[org], limits, periods, self._lease_seconds, now)
                if periods:
                    forget(book, periods[0].start - KEPT_SECONDS - periods[0].seconds)
                answers[org] = Answer(entitlement, lease)
                changed[org] = book
            await _save(connection, region, changed, answers)
        return answers

    async def waited_for(self, region: str, orgs_max: int) -> list[str]:
        """Organizations of which this region holds units that it may not need, while another waits for some.

        Raises StoreUnavailable."""
        async with self._db.connection() as connection:
            return await sql.regions.waited_for(connection, region=region, limit_rows=orgs_max)


def limits_of(entitlement: Entitlement) -> dict[Account, int]:
    """The limits that regions share. Overage without a cap is for sale in each of them."""
    limits = {}
    for m in entitlement.meters:
        limits[Account(Source.ALLOWANCE, m.meter)] = m.allowance
        if entitlement.policy is OveragePolicy.METERED and m.overage_max is not None:
            limits[Account(Source.OVERAGE, m.meter)] = m.overage_max
    return limits | {Account(Source.GRANT, g.id): g.units for g in entitlement.grants}


async def _load(connection: Connection, orgs: list[str]) -> dict[str, Book]:
    books = {org: Book() for org in orgs}
    for row in await sql.regions.leases(connection, orgs=orgs):
        books[row.org].holders[row.region] = Holder(
            row.epoch,
            row.returns,
            row.number,
            {_slot(text): units for text, units in row.reserved.items()},
            {_account(text): at for text, at in row.waits.items()},
            {_slot(text): units for text, units in row.drawn.items()},
        )
    return books


async def _save(connection: Connection, region: str, books: Mapping[str, Book], answers: Mapping[str, Answer]) -> None:
    holders = {org: book.holders[region] for org, book in books.items()}
    await sql.regions.keep_leases(
        connection,
        region=region,
        orgs=list(holders),
        epochs=[h.epoch for h in holders.values()],
        returns=[h.returns for h in holders.values()],
        numbers=[h.number for h in holders.values()],
        reserved=[{f"{s.account}@{s.period}": units for s, units in h.reserved.items()} for h in holders.values()],
        drawn=[{f"{s.account}@{s.period}": units for s, units in h.drawn.items()} for h in holders.values()],
        waits=[{str(account): at for account, at in h.waits.items()} for h in holders.values()],
        waiting=[max(h.waits.values(), default=-WAITS_SECONDS) + WAITS_SECONDS for h in holders.values()],
        idle=[_is_idle(h, answers[org].lease) for org, h in holders.items()],
    )


def _is_idle(holder: Holder, lease: Lease | Late | None) -> bool:
    starts = {ALWAYS, *(p.start for p in lease.periods)} if isinstance(lease, Lease) else None
    return any(
        units > holder.drawn.get(s, 0) for s, units in holder.reserved.items() if starts is None or s.period in starts
    )


def _account(text: str) -> Account:
    source, _, name = text.partition(":")
    return Account(Source(source), name)


def _slot(text: str) -> Slot:
    account, _, start = text.partition("@")
    return Slot(_account(account), int(start))
