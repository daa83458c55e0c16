"""What an organization has used in all regions: what this region's Redis counts, and what Postgres has of others."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from control import sql
from control.db import Database
from control.entitlements.derive import State, derive
from control.entitlements.restore import SINCE_SECONDS
from control.moments import moment
from quota.model import MeterUsage, OrganizationSnapshot


async def with_other_regions(
    db: Database, org: str, usage: Iterable[MeterUsage], grant_used: Mapping[str, int], now: float
) -> tuple[tuple[MeterUsage, ...], dict[str, int]]:
    """The same usage with that of the others, as far as their writers are. Raises StoreUnavailable."""
    if not db.region.several:
        return tuple(usage), dict(grant_used)
    since = moment(max(0, now - SINCE_SECONDS))
    async with db.connection() as connection:
        others = await sql.usage.counted_elsewhere(connection, region=db.region.number, orgs=[org], since=since)
    counters: dict[tuple[int, str], MeterUsage] = {}
    for u in (*usage, *(MeterUsage(*counter) for _, *counter in others.usage)):
        known = counters.get((u.period_start, u.meter), MeterUsage(u.period_start, u.meter, 0))
        counters[u.period_start, u.meter] = MeterUsage(
            u.period_start, u.meter, known.used + u.used, known.burnt + u.burnt, known.overage + u.overage
        )
    grants = dict(grant_used)
    for _, grant, used in others.grant_used:
        grants[grant] = grants.get(grant, 0) + used
    return tuple(counters.values()), grants


async def everywhere(db: Database, snapshot: OrganizationSnapshot, state: State) -> OrganizationSnapshot:
    """What Redis would hold if there was one for all regions. Raises StoreUnavailable."""
    if not db.region.several or snapshot.version == 0:
        return snapshot
    now = snapshot.now_us / 1_000_000
    whole = derive(state, now)
    usage, grant_used = await with_other_regions(db, state.org, snapshot.usage, snapshot.grant_used, now)
    return replace(
        snapshot,
        meters=whole.meters,
        grants=whole.grants,
        concurrent_max=whole.concurrent_max,
        elsewhere={},
        usage=usage,
        grant_used=grant_used,
    )
