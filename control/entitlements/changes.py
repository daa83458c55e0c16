"""What an admin changes about an organization's entitlement.

Every change locks the organization first, is journaled, and draws a new version, all in one transaction. Publishing
comes after the commit, so that Redis never holds what Postgres could still refuse.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from control import journal, sql
from control.db import Connection, Transactions
from control.entitlements.derive import State, Terms
from control.entitlements.rates import rate_columns
from control.entitlements.schedule import columns
from control.entitlements.set_terms import SetTerms
from control.entitlements.stored_state import check_meters, load_state, scheduled
from control.ids import uuid7
from control.journal import Action, Author, Change
from control.moments import moment, rfc3339
from control.organizations.store import OrganizationUnknown
from quota.model import OveragePolicy, RateLimit, Status
from quota.periods import CALENDAR_ANCHOR, Rule, Schedule


class PlanUnknown(Exception):
    """No plan that can be given has this code."""


class BilledBySubscription(Exception):
    """The organization's plan follows its subscription: change, pause or cancel that."""


class EntitlementMissing(Exception):
    """The organization never had an entitlement."""


class VersionMismatch(Exception):
    """The entitlement was changed since it was read."""

    def __init__(self, current: int) -> None:
        super().__init__(
            f"The entitlement has the version {current}." if current else "The organization has no entitlement."
        )
        self.current = current


@dataclass(frozen=True, slots=True)
class Versions:
    """The versions that a change may change (If-Match, RFC 9110 section 13.1.1)."""

    tags: frozenset[str] | None
    """Their entity tags, without quotes; None: any, as long as there is one."""

    def hold(self, version: int) -> bool:
        return version > 0 and (self.tags is None or str(version) in self.tags)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an admin wants an organization to have. What is left out is the plan's.

    The status SUSPENDED overrides the terms: only an admin ends it, not a payment."""

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
"""Makes what an admin wants, from what was set before (None: nothing is in force) and from whether the organization is
suspended, which it can be without terms, too. If it raises, nothing changes."""


def wanted_of(terms: Terms) -> Wanted:
    """What an admin would have to set again. What payments do to the status is not part of it."""
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


async def set_entitlement(
    db: Transactions,
    org: str,
    edit: Edit,
    expected: Versions | None,
    now: float,
    author: Author,
    effective_at: float | None = None,
) -> bool:
    """Gives the organization what is wanted, now or from `effective_at` on; False where it has exactly that already.

    Overrides of the plan, and a suspension, hold from then on, whatever the terms are and become. If a subscription
    pays for the organization, only these can be set. A scheduled change replaces those that were scheduled before.
    Raises OrganizationUnknown, PlanUnknown, MeterUnknown, VersionMismatch, BilledBySubscription."""
    async with db.transaction() as connection:
        current = (await _locked(connection, org, expected, now)).terms
        suspended_before = bool(await sql.entitlements.is_admin_suspended(connection, org=org, at=moment(now)))
        wanted = edit(None if current is None else wanted_of(current), suspended_before)
        await check_meters(connection, {*wanted.allowances, *wanted.overage_max})
        plan = await _plan(connection, wanted.plan, current)
        before, after = _set_terms(current), terms_after(wanted, plan.version, current)
        if effective_at is None:
            if before == after:
                return False
        else:
            ahead = [(begins, _set_terms(terms)) for begins, terms in await scheduled(connection, org, now)]
            if ahead == [(effective_at, after)]:
                return False
            await _drop_scheduled(connection, org, now)
        await _write(connection, org, plan.id, current, after, moment(now if effective_at is None else effective_at))
        await sql.entitlements.open_publication(connection, org=org)
        change = _change(org, before, after, suspended_before, effective_at)
        await journal.record(connection, author, now, [change])
    return True


def terms_after(wanted: Wanted, plan_version: int, current: Terms | None) -> SetTerms:
    """The terms of the organization after the change. Pure. Raises BilledBySubscription."""
    schedule, status = _schedule(wanted, current), wanted.status
    admin_suspended = status is Status.SUSPENDED
    if current is not None and current.subscription is not None:
        if (wanted.plan, schedule) != (current.plan.code, current.schedule):
            raise BilledBySubscription(current.subscription)
        # An admin can block whoever pays; whether an organization is served otherwise, its payments decide.
        status = current.status
    elif admin_suspended:
        status = current.status if current is not None else Status.ACTIVE
    return SetTerms(
        plan=wanted.plan,
        plan_version=plan_version,
        status=status,
        policy=wanted.policy,
        allowances=wanted.allowances,
        overage_max=wanted.overage_max,
        rate=wanted.rate,
        concurrent_max=wanted.concurrent_max,
        schedule=schedule,
        admin_suspended=admin_suspended,
    )


async def _write(
    connection: Connection, org: str, plan_id: UUID, current: Terms | None, after: SetTerms, at: datetime
) -> None:
    """Writes the overrides, and the terms, if they differ from those in force."""
    if current is None or not after.has_plan_of(SetTerms.of(current)):
        closed = await sql.entitlements.close_entitlement(connection, org=org, at=at)
        await sql.entitlements.insert_entitlement(
            connection,
            id=uuid7(),
            org=org,
            plan_id=plan_id,
            status=after.status.word,
            **columns(after.schedule),
            effective_from=at,
            effective_to=closed.effective_to if closed else None,
            subscription=None,
            quantity=current.quantity if current else 1,
            prorated=dict(current.prorated) if current else {},
        )
    await sql.entitlements.set_overrides(
        connection,
        org=org,
        at=at,
        policy=after.policy,
        allowances=dict(after.allowances),
        overage_max=dict(after.overage_max),
        **rate_columns(after.rate),
        concurrent_max=after.concurrent_max,
        held=after.admin_suspended,
    )


def _change(
    org: str, before: SetTerms | None, after: SetTerms, suspended_before: bool, effective_at: float | None
) -> Change:
    journaled_before = before.journaled() if before else None
    if before is None and suspended_before:
        journaled_before = {"held": True}  # so that the journal shows where a suspension ends
    if effective_at is None:
        return Change("entitlement.set", org, journaled_before, after.journaled())
    journaled_after = after.journaled() | {"effective_at": rfc3339(int(effective_at))}
    return Change("entitlement.scheduled", org, journaled_before, journaled_after)


async def set_admin_suspended(
    db: Transactions,
    org: str,
    admin_suspended: bool,
    reason: str | None,
    expected: Versions | None,
    now: float,
    author: Author,
) -> bool:
    """Suspends the organization, or ends the suspension; False where it is so already. Nothing else of it changes, nor
    of what is scheduled. An organization that never had an entitlement can be suspended, too, for when it has one.

    Raises OrganizationUnknown, EntitlementMissing (where nothing is there to be resumed), VersionMismatch."""
    async with db.transaction() as connection:
        state = await _locked(connection, org, expected, now)
        if not state.entitled and not admin_suspended:
            raise EntitlementMissing(org)
        if await sql.entitlements.is_admin_suspended(connection, org=org, at=moment(now)) == admin_suspended:
            return False
        await sql.entitlements.set_admin_suspended(connection, org=org, at=moment(now), held=admin_suspended)
        await sql.entitlements.open_publication(connection, org=org)
        action: Action = "entitlement.suspended" if admin_suspended else "entitlement.resumed"
        after: dict[str, Any] = {"held": admin_suspended, **({"reason": reason} if reason else {})}
        await journal.record(connection, author, now, [Change(action, org, {"held": not admin_suspended}, after)])
    return True


async def drop_scheduled(db: Transactions, org: str, expected: Versions | None, now: float, author: Author) -> bool:
    """Cancels what an admin has scheduled; False where nothing is. What follows from a subscription stays.

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


async def end_entitlement(db: Transactions, org: str, expected: Versions | None, now: float, author: Author) -> bool:
    """Ends the entitlement in force, and drops what is scheduled and all overrides; False where there is nothing to
    end. A suspension stays: what is bought afterwards does not end it.

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
        await sql.entitlements.drop_overrides(connection, org=org, at=moment(now))
        await sql.entitlements.open_publication(connection, org=org)
        change = Change("entitlement.ended", org, _journaled(state.terms), None)
        await journal.record(connection, author, now, [change])
    return True


def _schedule(wanted: Wanted, current: Terms | None) -> Schedule:
    before = current.schedule if current else Schedule(CALENDAR_ANCHOR)
    if wanted.period is None and wanted.period_anchor is None:
        return before
    anchor = before.anchor if wanted.period_anchor is None else wanted.period_anchor
    rule = before.rule if wanted.period is None else wanted.period
    return before if (anchor, rule) == (before.anchor, before.rule) else Schedule(anchor, rule)


async def _plan(connection: Connection, code: str, current: Terms | None) -> sql.plans.PlanVersion:
    """The version of a plan that an organization gets. If it pays for the plan by a subscription, it keeps that
    version."""
    if current is not None and current.subscription is not None and current.plan.code == code:
        version = await sql.plans.version_of(connection, code=code, version=current.plan.version)
    else:
        version = await sql.plans.newest_of(connection, code=code)
    if version is None or (version.archived_at and (current is None or current.plan.code != code)):
        raise PlanUnknown(code)
    return version


async def _locked(connection: Connection, org: str, expected: Versions | None, now: float) -> State:
    # Held until the end, so that versions grow in the order in which changes commit.
    locked = await sql.organizations.lock(connection, org=org)
    state = await load_state(connection, org, now) if locked else None
    if state is None:
        raise OrganizationUnknown(org)
    version = state.version if state.entitled else 0
    if expected is not None and not expected.hold(version):
        raise VersionMismatch(version)
    return state


def _set_terms(terms: Terms | None) -> SetTerms | None:
    return None if terms is None else SetTerms.of(terms)


def _journaled(terms: Terms | None) -> dict[str, Any] | None:
    return None if terms is None else SetTerms.of(terms).journaled()
