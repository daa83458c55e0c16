"""The entitlement to publish for an organization, derived from plan version, overrides, grants and time. Pure.

The laws it keeps:
- A plan change is another limit for the same period: nothing here knows or touches usage.
- The period that holds `now` and the one after it are published, so that the boundary needs no control plane. Before
  the first of agreed periods an organization is suspended, after the last it is at its end.
- What an organization caps itself is never above what its terms allow: its caps only lower `overage_max`.
- A grant of a meter that the plan lacks opens that meter for the grant's units, and for nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from control.region import Region
from quota.model import UNITS_MAX, Entitlement, Grant, MeterLimit, OveragePolicy, RateLimit, Status
from quota.periods import Schedule


@dataclass(frozen=True, slots=True)
class PlanVersion:
    code: str
    version: int
    name: str
    policy: OveragePolicy
    meters: tuple[MeterLimit, ...]
    rate: RateLimit | None
    concurrent_max: int | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms of an organization: a plan version, and overrides of the plan's own terms."""

    plan: PlanVersion
    status: Status
    schedule: Schedule
    policy: OveragePolicy | None = None
    allowances: Mapping[str, int] = field(default_factory=dict)
    overage_max: Mapping[str, int] = field(default_factory=dict)
    rate: RateLimit | None = None
    concurrent_max: int | None = None
    subscription: str | None = None
    """The Stripe id of the subscription that these terms follow from; None: an admin gave them."""
    quantity: int = 1
    """The number of seats, which multiplies the plan's own allowances."""
    prorated: Mapping[str, int] = field(default_factory=dict)
    """The plan's allowances until the end of the period in which it was upgraded."""
    admin_suspended: bool = False
    """An admin suspended the organization, whatever its terms say and whoever pays for them."""


@dataclass(frozen=True, slots=True)
class State:
    """All that Postgres knows of an organization's entitlement at one moment."""

    org: str
    name: str
    version: int
    """Of what is published; 0: nothing ever was."""
    entitled: bool
    """Whether it has or had an entitlement, or was suspended. What has only keys is published, too."""
    renew_at: float | None
    terms: Terms | None
    """Those in force; None before the first and after the end."""
    next_change_at: float | None
    """When terms that are scheduled come into force, or these end."""
    grants: tuple[Grant, ...]
    """Neither revoked nor expired."""
    shadow: bool = False
    """What gateways would refuse is only recorded."""
    caps: Mapping[str, int] = field(default_factory=dict)
    """The organization's own: units of a meter beyond its allowance. They come from no plan, and no plan drops them."""


def derive(state: State, now: float) -> Entitlement:
    """The entitlement to publish at `now`, seconds since the epoch."""
    return replace(_derive(state, now), shadow=state.shadow)


def _derive(state: State, now: float) -> Entitlement:
    terms = state.terms
    if terms is None:
        return Entitlement(state.org, state.version, Status.ENDED if state.entitled else Status.NONE)
    periods = terms.schedule.periods(now)
    if not periods:
        return Entitlement(state.org, state.version, Status.ENDED)
    if now not in periods[0]:
        return Entitlement(state.org, state.version, Status.SUSPENDED, terms.plan.code)
    return Entitlement(
        org=state.org,
        version=state.version,
        status=Status.SUSPENDED if terms.admin_suspended else terms.status,
        plan=terms.plan.code,
        policy=_policy(terms),
        meters=_meters(terms, state.grants, state.caps),
        grants=state.grants,
        periods=periods,
        rate=terms.rate or terms.plan.rate,
        concurrent_max=terms.concurrent_max or terms.plan.concurrent_max,
    )


def share_of(entitlement: Entitlement, region: Region) -> Entitlement:
    """What is published of it in one of several regions: its part of the rate and of the concurrent requests."""
    rate, most = entitlement.rate, entitlement.concurrent_max
    if rate is not None:
        rate = replace(rate, requests=region.share(rate.requests), burst=region.share(rate.burst))
    return replace(entitlement, rate=rate, concurrent_max=None if most is None else region.share(most))


def renewal(state: State, entitlement: Entitlement, now: float) -> float | None:
    """When `entitlement` becomes outdated by time alone: its first period ends (or begins), or other terms come into
    force."""
    moments = [p.end for p in entitlement.periods[:1]]
    if not moments and state.terms is not None:
        moments = [p.start for p in state.terms.schedule.periods(now, 1)]
    return min([*moments, *([] if state.next_change_at is None else [state.next_change_at])], default=None)


def _policy(terms: Terms) -> OveragePolicy:
    # Stripe bills no usage of a trial, so there is none to sell beyond the allowance.
    if terms.policy is None and terms.subscription is not None and terms.status is Status.TRIALING:
        return OveragePolicy.HARD_STOP
    return terms.policy or terms.plan.policy


def _meters(terms: Terms, grants: tuple[Grant, ...], caps: Mapping[str, int]) -> tuple[MeterLimit, ...]:
    limits = {
        m.meter: MeterLimit(
            m.meter, terms.prorated.get(m.meter, min(m.allowance * terms.quantity, UNITS_MAX)), m.overage_max
        )
        for m in terms.plan.meters
    }
    for meter in {*terms.allowances, *terms.overage_max, *(g.meter for g in grants)}:
        own = limits.get(meter, MeterLimit(meter, 0, 0))
        limits[meter] = MeterLimit(
            meter, terms.allowances.get(meter, own.allowance), terms.overage_max.get(meter, own.overage_max)
        )
    return tuple(_capped(limits[meter], caps.get(meter)) for meter in sorted(limits))


def _capped(limit: MeterLimit, cap: int | None) -> MeterLimit:
    if cap is None or (limit.overage_max is not None and limit.overage_max <= cap):
        return limit
    return replace(limit, overage_max=cap)
