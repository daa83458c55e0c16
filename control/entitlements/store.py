"""What Postgres knows of entitlements: the state that is derived from, and the changes of it.

Every change locks the organization first, is journaled, and draws a new version, all in one transaction. Publishing
comes after the commit, so that Redis never holds what Postgres could still refuse.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from control import journal
from control.db import Connection, Database, Row, statements
from control.entitlements.derive import PlanVersion, State, Terms
from control.entitlements.schedule import columns, schedule_of, shown
from control.ids import uuid7
from control.journal import Author, Change
from control.moments import moment
from quota.model import Grant, MeterLimit, OveragePolicy, RateLimit, Status
from quota.periods import CALENDAR_ANCHOR, Rule, Schedule


class OrganizationUnknown(Exception):
    """No organization has this id."""


class PlanUnknown(Exception):
    """No plan that can be given has this code."""


class BilledBySubscription(Exception):
    """The organization's plan follows its subscription: change, pause or cancel that."""


class VersionMismatch(Exception):
    """The entitlement was changed since it was read."""

    def __init__(self, expected: int, found: int) -> None:
        super().__init__(f"the entitlement's version is {found}, not {expected}")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an admin wants an organization to have. What is left out is the plan's.

    A status of SUSPENDED is laid over the terms: nothing that is paid ends it, only an admin does."""

    plan: str
    status: Status = Status.ACTIVE
    policy: OveragePolicy | None = None
    allowances: Mapping[str, int] = field(default_factory=dict)
    overage_max: Mapping[str, int] = field(default_factory=dict)
    rate: RateLimit | None = None
    concurrent_max: int | None = None
    period: Rule | None = None
    """None: as it was; months for the first entitlement."""
    period_anchor: int | None = None
    """None: as it was, so that a plan change moves no period; the calendar month for the first entitlement."""


async def load_state(connection: Connection, org: str, now: float) -> State | None:
    """Everything about one organization at `now`; None where nobody knows it."""
    row = await statements("entitlements").state(connection, org=org, at=moment(now))
    if row is None:
        return None
    return State(
        org=row["id"],
        name=row["name"],
        version=row["version"],
        published_version=row["published_version"],
        renew_at=_seconds(row["renew_at"]),
        terms=_terms(row) if row["entitlement_id"] is not None else None,
        next_change_at=_seconds(row["next_change_at"]),
        grants=tuple(Grant(*grant) for grant in row["grants"]),
    )


async def set_entitlement(
    db: Database, org: str, wanted: Wanted, expected_version: int | None, now: float, author: Author
) -> bool:
    """Gives the organization what is wanted; False where it has exactly that already.

    What is laid over the plan, and whether the organization is suspended, holds from then on whatever its terms are and
    become. Of one that a subscription pays for, only these can be set.
    Raises OrganizationUnknown, PlanUnknown, VersionMismatch, BilledBySubscription."""
    sql = statements("entitlements")
    async with db.transaction() as connection:
        state = await _locked(connection, org, expected_version, now)
        current = state.terms
        plan = await _plan(connection, wanted.plan, current)
        schedule = _schedule(wanted, current)
        held, status = wanted.status is Status.SUSPENDED, wanted.status
        if current is not None and current.subscription is not None:
            if (wanted.plan, schedule) != (current.plan.code, current.schedule):
                raise BilledBySubscription(current.subscription)
            # An admin can block whoever pays; whether an organization is served otherwise, its payments decide.
            status = current.status
        elif held:
            status = current.status if current is not None else Status.ACTIVE
        after = _content(wanted.plan, plan["version"], replace(wanted, status=status), schedule, held)
        before = _before(current)
        if before == after:
            return False
        if current is None or (current.plan.code, current.plan.version, current.status, current.schedule) != (
            wanted.plan,
            plan["version"],
            status,
            schedule,
        ):
            closed = await sql.close_entitlement(connection, org=org, at=moment(now))
            await sql.insert_entitlement(
                connection,
                id=uuid7(),
                org=org,
                plan_id=plan["id"],
                status=status.word,
                **columns(schedule),
                effective_from=moment(now),
                effective_to=closed and closed["effective_to"],
                subscription=None,
                quantity=current.quantity if current else 1,
                prorated=dict(current.prorated) if current else {},
            )
        await sql.lay_over(connection, org=org, at=moment(now), **laid_over(wanted, held=held))
        await sql.open_publication(connection, org=org)
        await journal.record(connection, author, now, [Change("entitlement.set", org, before, after)])
    return True


def laid_over(wanted: Wanted | Terms, *, held: bool) -> dict[str, Any]:
    """As `lay_over` takes it."""
    rate = wanted.rate
    return {
        "policy": wanted.policy,
        "allowances": dict(wanted.allowances),
        "overage_max": dict(wanted.overage_max),
        "rate_requests": rate and rate.requests,
        "rate_seconds": rate and rate.seconds,
        "rate_burst": rate and rate.burst,
        "concurrent_max": wanted.concurrent_max,
        "held": held,
    }


async def end_entitlement(db: Database, org: str, expected_version: int | None, now: float, author: Author) -> bool:
    """Ends what is in force and drops what is scheduled and laid over it; False where there is nothing to end. Who is
    suspended stays so: what is bought afterwards does not end that.

    Raises OrganizationUnknown, VersionMismatch, BilledBySubscription."""
    sql = statements("entitlements")
    async with db.transaction() as connection:
        state = await _locked(connection, org, expected_version, now)
        if state.terms is not None and state.terms.subscription is not None:
            raise BilledBySubscription(state.terms.subscription)
        if state.terms is None and state.next_change_at is None:
            return False
        await sql.drop_scheduled(connection, org=org, at=moment(now))
        await sql.close_entitlement(connection, org=org, at=moment(now))
        await sql.drop_scheduled_overrides(connection, org=org, at=moment(now))
        await sql.take_off(connection, org=org, at=moment(now))
        await sql.open_publication(connection, org=org)
        change = Change("entitlement.ended", org, _before(state.terms), None)
        await journal.record(connection, author, now, [change])
    return True


async def mark_published(db: Database, org: str, version: int, renew_at: float | None, now: float) -> None:
    async with db.connection() as connection:
        await statements("entitlements").mark_published(
            connection,
            org=org,
            version=version,
            renew_at=None if renew_at is None else moment(renew_at),
            at=moment(now),
        )


def _schedule(wanted: Wanted, current: Terms | None) -> Schedule:
    before = current.schedule if current else Schedule(CALENDAR_ANCHOR)
    if wanted.period is None and wanted.period_anchor is None:
        return before
    anchor = before.anchor if wanted.period_anchor is None else wanted.period_anchor
    rule = before.rule if wanted.period is None else wanted.period
    return before if (anchor, rule) == (before.anchor, before.rule) else Schedule(anchor, rule)


async def _plan(connection: Connection, code: str, current: Terms | None) -> Row:
    """The version of a plan that an organization gets: of one that it pays for by a subscription, the one it bought."""
    sql = statements("plans")
    if current is not None and current.subscription is not None and current.plan.code == code:
        return await sql.version_of(connection, code=code, version=current.plan.version)
    found = await sql.newest_of(connection, code=code)
    if found is None or (found["archived_at"] and (current is None or current.plan.code != code)):
        raise PlanUnknown(code)
    return found


async def _locked(connection: Connection, org: str, expected_version: int | None, now: float) -> State:
    # Held until the end, so that versions grow in the order in which changes commit.
    locked = await statements("organizations").lock(connection, org=org)
    state = await load_state(connection, org, now) if locked else None
    if state is None:
        raise OrganizationUnknown(org)
    if expected_version is not None and expected_version != state.version:
        raise VersionMismatch(expected_version, state.version)
    return state


def _terms(row: Row) -> Terms:
    plan = PlanVersion(
        code=row["plan_code"],
        version=row["plan_version"],
        name=row["plan_name"],
        policy=OveragePolicy(row["plan_policy"]),
        meters=tuple(MeterLimit(*meter) for meter in row["plan_meters"]),
        rate=_rate(row, "plan_rate_"),
        concurrent_max=row["plan_concurrent_max"],
    )
    return Terms(
        plan=plan,
        status=Status[row["status"].upper()],
        schedule=schedule_of(row),
        policy=OveragePolicy(row["policy"]) if row["policy"] else None,
        allowances=row["allowances"],
        overage_max=row["overage_max"],
        rate=_rate(row, "rate_"),
        concurrent_max=row["concurrent_max"],
        subscription=row["subscription"],
        quantity=row["quantity"],
        prorated=row["prorated"],
        held=row["held"],
    )


def _rate(row: Row, prefix: str) -> RateLimit | None:
    if row[f"{prefix}requests"] is None:
        return None
    return RateLimit(row[f"{prefix}requests"], row[f"{prefix}seconds"], row[f"{prefix}burst"])


def _content(
    plan: str, plan_version: int, terms: Wanted | Terms, schedule: Schedule, held: bool = False
) -> dict[str, Any]:
    """An entitlement as the journal shows it; equal contents are equal entitlements."""
    rate = terms.rate
    return {
        "plan": plan,
        "plan_version": plan_version,
        "status": terms.status.word,
        "policy": terms.policy,
        "meters": dict(terms.allowances),
        "overage_max": dict(terms.overage_max),
        "rate": rate and {"requests": rate.requests, "seconds": rate.seconds, "burst": rate.burst},
        "concurrent_max": terms.concurrent_max,
        **shown(schedule),
        **({"held": True} if held else {}),
    }


def _before(terms: Terms | None) -> dict[str, Any] | None:
    if terms is None:
        return None
    return _content(terms.plan.code, terms.plan.version, terms, terms.schedule, terms.held)


def _seconds(at: Any) -> float | None:
    return None if at is None else at.timestamp()
