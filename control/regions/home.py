"""The home of all regions: PostgreSQL, where it is written what each region may draw."""

from control import sql
from control.db import Connection, Database
from control.entitlements import stored_state
from control.entitlements.derive import derive
from control.regions.book import Book, Holder, answer, forget
from control.regions.terms import Account, Lease, Report, Slot, Source
from quota.model import Entitlement, OveragePolicy

KEPT_SECONDS = 2 * 86_400
"""After its end a period's reservations stay so long, for a region whose clock is behind."""


class Home:
    def __init__(self, db: Database, lease_seconds: int) -> None:
        """`lease_seconds`: also how long a region that is cut off goes on under terms that have changed."""
        self._db = db
        self._lease_seconds = lease_seconds

    async def answer(self, org: str, region: str, report: Report) -> tuple[Entitlement, Lease | None] | None:
        """What the organization may use, and what the region may draw of it. None for one that nobody knows; no lease
        for a report that came late, and where the organization may use nothing at the region's time.

        Periods are those of the region's own time, as everywhere. Raises StoreUnavailable."""
        async with self._db.transaction() as connection:
            now = await sql.regions.lock_organization(connection, org=org)
            state = await stored_state.load_state(connection, org, report.asked_at)
            if now is None or state is None:
                return None
            entitlement = derive(state, report.asked_at)
            book = await _load(connection, org)
            lease = answer(book, region, report, limits_of(entitlement), entitlement.periods, self._lease_seconds, now)
            if entitlement.periods:
                forget(book, entitlement.periods[0].start - KEPT_SECONDS - entitlement.periods[0].seconds)
            await _save(connection, org, region, book.holders[region])
            return entitlement, lease


def limits_of(entitlement: Entitlement) -> dict[Account, int]:
    """The limits that regions share. Overage without a cap is for sale in each of them."""
    limits = {}
    for m in entitlement.meters:
        limits[Account(Source.ALLOWANCE, m.meter)] = m.allowance
        if entitlement.policy is OveragePolicy.METERED and m.overage_max is not None:
            limits[Account(Source.OVERAGE, m.meter)] = m.overage_max
    return limits | {Account(Source.GRANT, g.id): g.units for g in entitlement.grants}


async def _load(connection: Connection, org: str) -> Book:
    return Book(
        {
            row.region: Holder(
                row.epoch,
                row.returns,
                row.number,
                {_slot(text): units for text, units in row.reserved.items()},
                {_account(text): at for text, at in row.waits.items()},
            )
            for row in await sql.regions.leases(connection, org=org)
        }
    )


async def _save(connection: Connection, org: str, region: str, holder: Holder) -> None:
    await sql.regions.keep_lease(
        connection,
        org=org,
        region=region,
        epoch=holder.epoch,
        returns=holder.returns,
        number=holder.number,
        reserved={f"{s.account}@{s.period}": units for s, units in holder.reserved.items()},
        waits={str(account): at for account, at in holder.waits.items()},
    )


def _account(text: str) -> Account:
    source, _, name = text.partition(":")
    return Account(Source(source), name)


def _slot(text: str) -> Slot:
    account, _, start = text.partition("@")
    return Slot(_account(account), int(start))
