"""What Postgres knows of entitlements: the state that is derived from, and the changes of it.

Every change locks the organization first, is journaled, and draws a new version, all in one transaction. Publishing
comes after the commit, so that Redis never holds what Postgres could still refuse.
"""

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from control import journal, sql
from control.db import Connection, Database
from control.entitlements.derive import PlanVersion, State, Terms
from control.entitlements.rates import rate_columns, rate_of
from control.entitlements.schedule import columns, joined_schedule
from control.entitlements.set_terms import SetTerms
from control.ids import uuid7
from control.journal import Action, Author, Change
from control.moments import moment, rfc3339
from control.organizations.store import OrganizationUnknown
from quota.model import Grant, MeterLimit, OveragePolicy, RateLimit, Status
from quota.periods import CALENDAR_ANCHOR, Rule, Schedule


class PlanUnknown(Exception):
    """No plan that can be given has this code."""


class BilledBySubscription(Exception):
    """The organization's plan follows its subscription: change, pause or cancel that."""


class EntitlementMissing(Exception):
    """The organization never had an entitlement."""


class MeterUnknown(Exception):
    """No plan has this meter."""

    def __init__(self, meter: str, known: Sequence[str]) -> None:
        close = difflib.get_close_matches(meter, known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
        super().__init__(f"no plan has a meter {meter} ({hint})")


class VersionMismatch(Exception):
    """The entitlement was changed since it was read."""

    def __init__(self, found: int) -> None:
        super().__init__(f"the entitlement's version is {found}" if found else "there is no entitlement")
        self.found = found


@dataclass(frozen=True, slots=True)
class Versions:
    """Those of which a change is meant to change one (If-Match, RFC 9110 section 13.1.1)."""

    tags: frozenset[str] | None
    """Their entity tags, without quotes; None: any, as long as there is one."""

    def hold(self, version: int) -> bool:
        return version > 0 and (self.tags is None or str(version) in self.tags)


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


Edit = Callable[[Wanted | None, bool], Wanted]
"""What an admin wants, made of what was set before (None: nothing is in force) and of whether the organization is
suspended, which it may be without terms, too. Where it raises, nothing changes."""


def wanted_of(terms: Terms) -> Wanted:
    """What was set: as an admin would have to say it again. What payments do to the status is not among it."""
    status = terms.status if terms.status in (Status.TRIALING, Status.GRACE) else Status.ACTIVE
    return Wanted(
        plan=terms.plan.code,
        status=Status.SUSPENDED if terms.admin_suspended else status,
        policy=terms.policy,
        allowances=terms.allowances,
        overage_max=terms.overage_max,
        rate=terms.rate,
        concurrent_max=terms.concurrent_max,
        period=terms.schedule.rule,
        period_anchor=terms.schedule.anchor,
    )


async def load_state(connection: Connection, org: str, now: float) -> State | None:
    """Everything about one organization at `now`; None where nobody knows it."""
    row = await sql.entitlements.state(connection, org=org, at=moment(now))
    if row is None:
        return None
    return State(
        org=row.id,
        name=row.name,
        version=row.version,
        renew_at=_seconds(row.renew_at),
        terms=_terms(row),
        next_change_at=_seconds(row.next_change_at),
        grants=tuple(Grant(*grant) for grant in row.grants),
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


async def set_entitlement(
    db: Database,
    org: str,
    edit: Edit,
    expected: Versions | None,
    now: float,
    author: Author,
    effective_at: float | None = None,
) -> bool:
    """Gives the organization what is wanted, now or from `effective_at` on; False where it has exactly that already.

    What is laid over the plan, and whether the organization is suspended, holds from then on whatever its terms are and
    become. Of one that a subscription pays for, only these can be set. A change that is scheduled takes the place of
    those that were scheduled before.
    Raises OrganizationUnknown, PlanUnknown, MeterUnknown, VersionMismatch, BilledBySubscription."""
    async with db.transaction() as connection:
        state = await _locked(connection, org, expected, now)
        current = state.terms
        suspended_before = bool(await sql.entitlements.is_admin_suspended(connection, org=org, at=moment(now)))
        wanted = edit(None if current is None else wanted_of(current), suspended_before)
        await check_meters(connection, {*wanted.allowances, *wanted.overage_max})
        plan = await _plan(connection, wanted.plan, current)
        schedule = _schedule(wanted, current)
        admin_suspended, status = wanted.status is Status.SUSPENDED, wanted.status
        if current is not None and current.subscription is not None:
            if (wanted.plan, schedule) != (current.plan.code, current.schedule):
                raise BilledBySubscription(current.subscription)
            # An admin can block whoever pays; whether an organization is served otherwise, its payments decide.
            status = current.status
        elif admin_suspended:
            status = current.status if current is not None else Status.ACTIVE
        after = SetTerms(
            wanted.plan,
            plan.version,
            status,
            wanted.policy,
            wanted.allowances,
            wanted.overage_max,
            wanted.rate,
            wanted.concurrent_max,
            schedule,
            admin_suspended,
        )
        before = SetTerms.of(current)
        if before == after and effective_at is None:
            return False
        action: Action = "entitlement.set"
        at = moment(now)
        if effective_at is not None:
            at, action = moment(effective_at), "entitlement.scheduled"
            ahead = [(begins, SetTerms.of(terms)) for begins, terms in await scheduled(connection, org, now)]
            if ahead == [(effective_at, after)]:
                return False
            await _drop_scheduled(connection, org, now)
        if current is None or (current.plan.code, current.plan.version, current.status, current.schedule) != (
            wanted.plan,
            plan.version,
            status,
            schedule,
        ):
            closed = await sql.entitlements.close_entitlement(connection, org=org, at=at)
            await sql.entitlements.insert_entitlement(
                connection,
                id=uuid7(),
                org=org,
                plan_id=plan.id,
                status=status.word,
                **columns(schedule),
                effective_from=at,
                effective_to=closed.effective_to if closed else None,
                subscription=None,
                quantity=current.quantity if current else 1,
                prorated=dict(current.prorated) if current else {},
            )
        await sql.entitlements.lay_over(
            connection,
            org=org,
            at=at,
            policy=wanted.policy,
            allowances=dict(wanted.allowances),
            overage_max=dict(wanted.overage_max),
            **rate_columns(wanted.rate),
            concurrent_max=wanted.concurrent_max,
            held=admin_suspended,
        )
        await sql.entitlements.open_publication(connection, org=org)
        told_before = before.journaled() if before else None
        if before is None and suspended_before:
            told_before = {"held": True}  # so that the journal tells where a suspension ends
        told_after = after.journaled()
        if effective_at is not None:
            told_after["effective_at"] = rfc3339(int(effective_at))
        await journal.record(connection, author, now, [Change(action, org, told_before, told_after)])
    return True


async def set_admin_suspended(
    db: Database,
    org: str,
    admin_suspended: bool,
    reason: str | None,
    expected: Versions | None,
    now: float,
    author: Author,
) -> bool:
    """Suspends the organization, or ends that; nothing else of it changes, nor of what is scheduled. False where it is
    so already. One that never had an entitlement is suspended, too, for when it has one.

    Raises OrganizationUnknown, EntitlementMissing (where nothing is there to be resumed), VersionMismatch."""
    async with db.transaction() as connection:
        state = await _locked(connection, org, expected, now)
        if state.version == 0 and not admin_suspended:
            raise EntitlementMissing(org)
        if await sql.entitlements.is_admin_suspended(connection, org=org, at=moment(now)) == admin_suspended:
            return False
        await sql.entitlements.set_admin_suspended(connection, org=org, at=moment(now), held=admin_suspended)
        await sql.entitlements.open_publication(connection, org=org)
        action: Action = "entitlement.suspended" if admin_suspended else "entitlement.resumed"
        after: dict[str, Any] = {"held": admin_suspended, **({"reason": reason} if reason else {})}
        await journal.record(connection, author, now, [Change(action, org, {"held": not admin_suspended}, after)])
    return True


async def drop_scheduled(db: Database, org: str, expected: Versions | None, now: float, author: Author) -> bool:
    """Takes back what an admin has scheduled; False where nothing is. What follows from a subscription stays.

    Raises OrganizationUnknown, VersionMismatch."""
    async with db.transaction() as connection:
        await _locked(connection, org, expected, now)
        if not await sql.entitlements.is_scheduled(connection, org=org, at=moment(now)):
            return False
        ahead = await scheduled(connection, org, now)
        await _drop_scheduled(connection, org, now)
        await sql.entitlements.open_publication(connection, org=org)
        before = {rfc3339(int(at)): _journaled(terms) for at, terms in ahead}
        await journal.record(connection, author, now, [Change("entitlement.unscheduled", org, before, None)])
    return True


async def _drop_scheduled(connection: Connection, org: str, now: float) -> None:
    await sql.entitlements.drop_scheduled_by_admin(connection, org=org, at=moment(now))
    await sql.entitlements.drop_scheduled_overrides(connection, org=org, at=moment(now))
    await sql.entitlements.keep_in_force(connection, org=org, at=moment(now))


async def end_entitlement(db: Database, org: str, expected: Versions | None, now: float, author: Author) -> bool:
    """Ends what is in force and drops what is scheduled and laid over it; False where there is nothing to end. Who is
    suspended stays so: what is bought afterwards does not end that.

    Raises OrganizationUnknown, VersionMismatch, BilledBySubscription."""
    async with db.transaction() as connection:
        state = await _locked(connection, org, expected, now)
        if state.terms is not None and state.terms.subscription is not None:
            raise BilledBySubscription(state.terms.subscription)
        if state.terms is None and state.next_change_at is None:
            return False
        await sql.entitlements.drop_scheduled(connection, org=org, at=moment(now))
        await sql.entitlements.close_entitlement(connection, org=org, at=moment(now))
        await sql.entitlements.drop_scheduled_overrides(connection, org=org, at=moment(now))
        await sql.entitlements.take_off(connection, org=org, at=moment(now))
        await sql.entitlements.open_publication(connection, org=org)
        change = Change("entitlement.ended", org, _journaled(state.terms), None)
        await journal.record(connection, author, now, [change])
    return True


async def mark_published(db: Database, org: str, version: int, renew_at: float | None) -> None:
    async with db.connection() as connection:
        await sql.entitlements.mark_published(
            connection,
            org=org,
            version=version,
            renew_at=None if renew_at is None else moment(renew_at),
        )


def _schedule(wanted: Wanted, current: Terms | None) -> Schedule:
    before = current.schedule if current else Schedule(CALENDAR_ANCHOR)
    if wanted.period is None and wanted.period_anchor is None:
        return before
    anchor = before.anchor if wanted.period_anchor is None else wanted.period_anchor
    rule = before.rule if wanted.period is None else wanted.period
    return before if (anchor, rule) == (before.anchor, before.rule) else Schedule(anchor, rule)


async def _plan(connection: Connection, code: str, current: Terms | None) -> sql.plans.PlanVersion:
    """The version of a plan that an organization gets: of one that it pays for by a subscription, the one it bought."""
    if current is not None and current.subscription is not None and current.plan.code == code:
        found = await sql.plans.version_of(connection, code=code, version=current.plan.version)
    else:
        found = await sql.plans.newest_of(connection, code=code)
    if found is None or (found.archived_at and (current is None or current.plan.code != code)):
        raise PlanUnknown(code)
    return found


async def _locked(connection: Connection, org: str, expected: Versions | None, now: float) -> State:
    # Held until the end, so that versions grow in the order in which changes commit.
    locked = await sql.organizations.lock(connection, org=org)
    state = await load_state(connection, org, now) if locked else None
    if state is None:
        raise OrganizationUnknown(org)
    if expected is not None and not expected.hold(state.version):
        raise VersionMismatch(state.version)
    return state


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


def _journaled(terms: Terms | None) -> dict[str, Any] | None:
    found = SetTerms.of(terms)
    return found.journaled() if found else None


def _seconds(at: Any) -> float | None:
    return None if at is None else at.timestamp()
