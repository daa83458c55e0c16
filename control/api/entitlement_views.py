"""An organization's entitlement as the API shows it. Pure, apart from the pydantic models."""

from collections.abc import Sequence
from datetime import datetime
from math import ceil
from typing import Literal

from control.documents import View
from control.entitlements.changes import Wanted, wanted_of
from control.entitlements.derive import State, Terms
from control.moments import moment
from quota.model import Grant, OrganizationSnapshot, OveragePolicy, RateLimit
from quota.periods import CALENDAR_ANCHOR, Period, Rule, Unit


class PeriodView(View):
    start: datetime
    end: datetime
    """The first moment after the period."""


class PeriodRuleView(View):
    """How long periods are."""

    every: int | None = None
    unit: Unit | None = None
    bounds: list[datetime] | None = None
    """The times at which periods begin and end, in place of `every` and `unit`."""


class ResetView(View):
    at: datetime
    seconds: int
    """Seconds from now until `at`, rounded up."""


class MeterView(View):
    meter: str
    allowance: int
    """Units included in a period."""
    limit: int
    """The allowance, and what grants add to it in this period."""
    used: int
    remaining: int
    """What is left of the limit."""
    overage: int
    """The part of `used` beyond the limit."""


class RateView(View):
    requests: int
    seconds: float
    burst: int


class GrantBalanceView(View):
    id: str
    meter: str
    units: int
    remaining: int
    expires_at: datetime


class SetView(View):
    """What is set for the organization, in the form that PUT takes and PATCH changes. null, or a meter that is not
    named, means: as the plan has it."""

    plan: str
    status: str
    policy: OveragePolicy | None
    meters: dict[str, int]
    overage_max: dict[str, int]
    rate: RateView | None
    concurrent_max: int | None
    period_anchor: datetime
    period: PeriodRuleView | None


class ScheduledView(View):
    """An entitlement that is scheduled, as far as it is known now."""

    at: datetime
    set: SetView | None
    """null: the entitlement ends."""


class EntitlementView(View):
    """What an organization may use, and what it has used, in the current period."""

    org: str
    plan: str | None
    """Code of the plan; null after the entitlement's end."""
    plan_name: str | None
    plan_version: int | None
    status: str
    policy: OveragePolicy
    period: PeriodView | None
    period_anchor: datetime | None
    """Periods are counted from here."""
    period_rule: PeriodRuleView | None
    reset: ResetView | None
    """When the allowances are full again."""
    meters: list[MeterView]
    rate: RateView | None
    concurrent_max: int | None
    """The number of requests that may be under way at once; null: any number."""
    shadow: bool
    """In shadow mode: what gateways would refuse is only recorded, and the request goes on without a charge."""
    grants: list[GrantBalanceView]
    caps: dict[str, int]
    """The organization's own caps: units of a meter that it buys beyond the allowance at most."""
    set: SetView | None
    """null after the end."""
    scheduled: list[ScheduledView]
    version: int
    """Grows with every change. It is the ETag, too, for If-Match."""
    published: bool
    """Whether the gateways enforce this version already."""
    source: Literal["redis", "postgres"]
    """redis: exact. postgres: Redis is not available, and this is what was written until `as_of`."""
    as_of: datetime | None


def view(
    state: State,
    ahead: Sequence[tuple[float, Terms | None]],
    snapshot: OrganizationSnapshot,
    source: Literal["redis", "postgres"],
    as_of: float | None,
) -> EntitlementView:
    terms, period, now = state.terms, snapshot.period, snapshot.now_us / 1_000_000
    return EntitlementView(
        org=state.org,
        plan=terms.plan.code if terms else None,
        plan_name=terms.plan.name if terms else None,
        plan_version=terms.plan.version if terms else None,
        status=snapshot.status.word,
        policy=snapshot.policy,
        period=PeriodView(start=moment(period.start), end=moment(period.end)) if period else None,
        period_anchor=moment(terms.schedule.anchor) if terms else None,
        period_rule=_rule(terms.schedule.rule) if terms else None,
        reset=ResetView(at=moment(period.end), seconds=ceil(period.end - now)) if period else None,
        meters=_meters(snapshot, period) if period else [],
        rate=rate_view(terms.rate or terms.plan.rate) if terms else None,
        concurrent_max=snapshot.concurrent_max,
        shadow=snapshot.shadow,
        grants=[_grant(grant, snapshot) for grant in snapshot.grants if grant.expires_at > now],
        caps=dict(state.caps),
        set=set_of(wanted_of(terms)) if terms else None,
        scheduled=[
            ScheduledView(at=moment(at), set=set_of(wanted_of(coming)) if coming else None) for at, coming in ahead
        ],
        version=snapshot.version,
        published=snapshot.version >= state.version and source == "redis",
        source=source,
        as_of=None if as_of is None else moment(as_of),
    )


def set_of(wanted: Wanted) -> SetView:
    return SetView(
        plan=wanted.plan,
        status=wanted.status.word,
        policy=wanted.policy,
        meters=dict(wanted.allowances),
        overage_max=dict(wanted.overage_max),
        rate=rate_view(wanted.rate),
        concurrent_max=wanted.concurrent_max,
        period_anchor=moment(CALENDAR_ANCHOR if wanted.period_anchor is None else wanted.period_anchor),
        period=_rule(wanted.period) if wanted.period else None,
    )


def _rule(rule: Rule) -> PeriodRuleView:
    if rule.bounds:
        return PeriodRuleView(bounds=[moment(bound) for bound in rule.bounds])
    return PeriodRuleView(every=rule.every, unit=rule.unit)


def rate_view(rate: RateLimit | None) -> RateView | None:
    return RateView(requests=rate.requests, seconds=rate.seconds, burst=rate.burst) if rate else None


def _meters(snapshot: OrganizationSnapshot, period: Period) -> list[MeterView]:
    used = {u.meter: u.used for u in snapshot.usage if u.period_start == period.start}
    allowances = {m.meter: m.allowance for m in snapshot.meters}
    return [
        MeterView(
            meter=b.meter,
            allowance=allowances[b.meter],
            limit=b.limit,
            used=used.get(b.meter, 0),
            remaining=b.remaining,
            overage=b.overage,
        )
        for b in snapshot.balances()
    ]


def _grant(grant: Grant, snapshot: OrganizationSnapshot) -> GrantBalanceView:
    remaining = max(0, grant.units - snapshot.grant_used.get(grant.id, 0))
    return GrantBalanceView(
        id=grant.id, meter=grant.meter, units=grant.units, remaining=remaining, expires_at=moment(grant.expires_at)
    )
