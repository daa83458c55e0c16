"""The effect of an action: the organization's entitlement and next invoice, before and after."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from control.actions.parts import ActionParts
from control.db import Connection
from control.documents import View
from control.entitlements import stored_state
from control.entitlements.derive import State, Terms, derive
from control.entitlements.everywhere import with_other_regions
from control.entitlements.restore import Counters, written_counters
from control.moments import moment
from control.organizations.store import OrganizationUnknown
from quota import keys
from quota.ledger import LedgerUnavailable
from quota.model import MeterUsage, OrganizationSnapshot


class Difference(View):
    """Something that changes beside the entitlement."""

    what: str
    before: Any
    after: Any
    currency: str | None = None
    """Of amounts, which are in minor units; null: these are none."""


class MeterEffect(View):
    meter: str
    allowance: int
    limit: int
    """The allowance, and what grants add to it in this period."""
    used: int
    remaining: int
    overage_max: int | None
    """null: no cap."""


class ScheduledEffect(View):
    at: datetime
    plan: str | None
    """null: the entitlement ends."""


class EnforcedView(View):
    """What gateways go by."""

    status: str
    plan: str | None
    plan_version: int | None
    policy: str
    meters: list[MeterEffect]
    rate: str | None
    concurrent_max: int | None
    shadow: bool
    """What would be refused is only recorded."""
    scheduled: list[ScheduledEffect]


class EntitlementEffect(View):
    before: EnforcedView
    after: EnforcedView
    changed: bool
    exact: bool
    """false: Redis is away, and `used` is what was written to the database."""


class ComingInvoiceView(View):
    """An invoice that is to come; amounts in minor units."""

    currency: str
    total_minor: int
    due_minor: int
    """What is left to pay when credit is used up."""
    at: datetime | None
    """When its period begins; null: now."""


class InvoiceEffect(View):
    """The next invoice. `says` tells what the figures cannot."""

    before: ComingInvoiceView | None
    """null: there is none, or it is not known."""
    after: ComingInvoiceView | None
    now: ComingInvoiceView | None
    """What is invoiced at once."""
    known: bool
    says: str

    @classmethod
    def none(cls, says: str = "This changes no invoice.") -> Self:
        return cls(before=None, after=None, now=None, known=True, says=says)


class UndoView(View):
    possible: bool
    says: str


class Effect(View):
    """What an action would do now. Nothing is done."""

    action: str
    organization: str
    entitlement: EntitlementEffect
    invoice: InvoiceEffect
    differences: list[Difference]
    warnings: list[str]
    undo: UndoView
    second_person: bool
    """Another admin has to approve it."""
    state: str
    """Sent with the action: it is done if the organization is still as it was when this was computed."""
    as_of: datetime


@dataclass(frozen=True, slots=True)
class Seen:
    """An organization at one moment."""

    state: State
    ahead: Sequence[tuple[float, Terms | None]]


@dataclass(frozen=True, slots=True)
class Used:
    """What is counted."""

    usage: tuple[MeterUsage, ...]
    grants: dict[str, int]
    exact: bool


async def see(connection: Connection, org: str, now: float) -> Seen:
    """Raises OrganizationUnknown."""
    state = await stored_state.load_state(connection, org, now)
    if state is None:
        raise OrganizationUnknown(org)
    return Seen(state, await stored_state.scheduled(connection, org, now) if state.next_change_at is not None else ())


async def used_by(parts: ActionParts, org: str, now: float) -> Used:
    """Raises StoreUnavailable."""
    try:
        snapshot = await parts.ledger.peek(org)
    except LedgerUnavailable:
        snapshot = None
    counted: OrganizationSnapshot | Counters
    if snapshot is not None and snapshot.version:
        counted = snapshot
    else:
        counted = (await written_counters(parts.db, [org], keys.shard_of(org, parts.ledger.shards), now))[org]
    usage, grant_used = await with_other_regions(parts.db, org, counted.usage, counted.grant_used, now)
    return Used(usage, grant_used, exact=snapshot is not None and not parts.db.region.several)


def entitlement_effect(before: Seen, after: Seen, used: Used, now: float) -> EntitlementEffect:
    was, is_ = enforced(before, used, now), enforced(after, used, now)
    return EntitlementEffect(before=was, after=is_, changed=was != is_, exact=used.exact)


def enforced(seen: Seen, used: Used, now: float) -> EnforcedView:
    entitlement, terms = derive(seen.state, now), seen.state.terms
    snapshot = OrganizationSnapshot(
        now_us=int(now * 1_000_000),
        version=entitlement.version,
        status=entitlement.status,
        periods=entitlement.periods,
        rate_interval_us=0,
        meters=entitlement.meters,
        policy=entitlement.policy,
        usage=used.usage,
        grants=entitlement.grants,
        grant_used=used.grants,
    )
    period, limits = snapshot.period, {each.meter: each for each in entitlement.meters}
    counted = {u.meter: u.used for u in snapshot.usage if period is not None and u.period_start == period.start}
    rate = entitlement.rate
    return EnforcedView(
        status=entitlement.status.word,
        plan=terms.plan.code if terms else None,
        plan_version=terms.plan.version if terms else None,
        policy=entitlement.policy.value,
        meters=[
            MeterEffect(
                meter=each.meter,
                allowance=limits[each.meter].allowance,
                limit=each.limit,
                used=counted.get(each.meter, 0),
                remaining=each.remaining,
                overage_max=limits[each.meter].overage_max,
            )
            for each in snapshot.balances()
        ],
        rate=None if rate is None else f"{rate.requests} in {rate.seconds:g} s, at most {rate.burst} at once",
        concurrent_max=entitlement.concurrent_max,
        shadow=entitlement.shadow,
        scheduled=[
            ScheduledEffect(at=moment(at), plan=coming.plan.code if coming else None) for at, coming in seen.ahead
        ],
    )
