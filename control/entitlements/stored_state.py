"""What Postgres knows of an organization's entitlement at a moment: the state that is published and shown."""

import difflib
from collections.abc import Iterable, Sequence
from datetime import datetime

from control import sql
from control.db import Connection, Database
from control.entitlements import published_terms
from control.entitlements.derive import PlanVersion, State, Terms
from control.entitlements.rates import rate_of
from control.entitlements.schedule import joined_schedule
from control.moments import moment
from quota.model import Entitlement, Grant, MeterLimit, OveragePolicy, Status


class MeterUnknown(Exception):
    """No plan has this meter."""

    def __init__(self, meter: str, known: Sequence[str]) -> None:
        close = difflib.get_close_matches(meter, known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
        super().__init__(f"No plan has the meter {meter} ({hint})")


async def load_state(connection: Connection, org: str, now: float) -> State | None:
    """Everything about one organization at `now`; None where nobody knows it."""
    return (await load_states(connection, [org], now)).get(org)


async def load_states(connection: Connection, orgs: Sequence[str], now: float) -> dict[str, State]:
    """The same of several organizations, without those that nobody knows."""
    rows = await sql.entitlements.states(connection, orgs=list(orgs), at=moment(now))
    return {row.id: _state(row) for row in rows}


def _state(row: sql.entitlements.State) -> State:
    return State(
        org=row.id,
        name=row.name,
        version=row.version,
        entitled=row.entitled,
        renew_at=_seconds(row.renew_at),
        terms=_terms(row),
        next_change_at=_seconds(row.next_change_at),
        grants=tuple(Grant(*grant) for grant in row.grants),
        shadow=row.shadow,
        caps=row.caps,
    )


async def scheduled(connection: Connection, org: str, now: float) -> list[tuple[float, Terms | None]]:
    """What the organization will have, and from when on, as far as it is known now."""
    rows = await sql.entitlements.changes_ahead(connection, org=org, at=moment(now))
    ahead = []
    for at in [row.timestamp() for row in rows]:
        state = await load_state(connection, org, at)
        ahead.append((at, state.terms if state else None))
    return ahead


async def check_meters(connection: Connection, meters: Iterable[str]) -> None:
    """Raises MeterUnknown for one that no plan has: a misspelled one would be granted and never used."""
    known = await _known_meters(connection)
    for meter in meters:
        if meter not in known:
            raise MeterUnknown(meter, known)


async def known_meters(db: Database) -> list[str]:
    """Every meter that a plan has or had."""
    async with db.connection() as connection:
        return await _known_meters(connection)


async def _known_meters(connection: Connection) -> list[str]:
    return await sql.plans.meters(connection)


async def mark_published(db: Database, entitlement: Entitlement, renew_at: float | None, now: float) -> None:
    """The Redis of this region holds it. What gateways decide by from now on is kept, for those who ask later why they
    decided so."""
    async with db.connection() as connection:
        await sql.decisions.keep_published(
            connection,
            org=entitlement.org,
            version=entitlement.version,
            at=moment(now),
            terms=published_terms.stored(entitlement),
        )
        await sql.entitlements.mark_published(
            connection,
            region=db.region.number,
            org=entitlement.org,
            version=entitlement.version,
            renew_at=None if renew_at is None else moment(renew_at),
        )


def _terms(row: sql.entitlements.State) -> Terms | None:
    plan, schedule = _plan_version(row), joined_schedule(row)
    if plan is None or schedule is None or row.status is None or row.quantity is None or row.prorated is None:
        return None  # nothing is in force
    return Terms(
        plan=plan,
        status=Status[row.status.upper()],
        schedule=schedule,
        policy=OveragePolicy(row.policy) if row.policy else None,
        allowances=row.allowances,
        overage_max=row.overage_max,
        rate=rate_of(row.rate_requests, row.rate_seconds, row.rate_burst),
        concurrent_max=row.concurrent_max,
        subscription=row.subscription,
        quantity=row.quantity,
        prorated=row.prorated,
        admin_suspended=row.held,
    )


def _plan_version(row: sql.entitlements.State) -> PlanVersion | None:
    if row.plan_code is None or row.plan_version is None or row.plan_name is None:
        return None
    if row.plan_policy is None or row.plan_meters is None:
        return None
    return PlanVersion(
        code=row.plan_code,
        version=row.plan_version,
        name=row.plan_name,
        policy=OveragePolicy(row.plan_policy),
        meters=tuple(MeterLimit(*meter) for meter in row.plan_meters),
        rate=rate_of(row.plan_rate_requests, row.plan_rate_seconds, row.plan_rate_burst),
        concurrent_max=row.plan_concurrent_max,
    )


def _seconds(at: datetime | None) -> float | None:
    return None if at is None else at.timestamp()
