"""Plans as they are sold, and what is changed about one for the sake of a question. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final, TypeVar

from control.billing.overage.overage_price import OveragePrice
from control.entitlements.derive import PlanVersion, Terms
from control.entitlements.rates import rate_of
from control.sql import what_if as rows
from quota.model import MeterLimit, OveragePolicy, RateLimit
from quota.terms import OwnLimits

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SoldMeter:
    allowance: int
    overage_max: int | None
    overage: OveragePrice | None


@dataclass(frozen=True, slots=True)
class SoldPlan:
    code: str
    version: int
    name: str
    policy: OveragePolicy
    currency: str
    meters: Mapping[str, SoldMeter]
    price_minor: Mapping[str, int]
    """By billing interval."""
    rate: RateLimit | None = None
    concurrent_max: int | None = None

    @classmethod
    def of(cls, row: rows.PlanVersion) -> "SoldPlan":
        meters = {}
        for meter, (allowance, overage_max, amount, units) in row.meters.items():
            price = None if amount is None or units is None else OveragePrice(amount, units)
            meters[meter] = SoldMeter(allowance or 0, overage_max, price)
        return cls(
            row.code,
            row.version,
            row.name,
            OveragePolicy(row.policy),
            row.currency,
            meters,
            row.price_minor,
            rate_of(row.rate_requests, row.rate_seconds, row.rate_burst),
            row.concurrent_max,
        )


class Lifted(Enum):
    """In place of a limit: there would have been none."""

    LIFTED = "none"


LIFTED: Final = Lifted.LIFTED


@dataclass(frozen=True, slots=True)
class MeterChange:
    """What is otherwise about a meter; None: as it was."""

    allowance: int | None = None
    overage: OveragePrice | None = None


@dataclass(frozen=True, slots=True)
class PlanChange:
    """The question: another plan, other terms of it, or both. Nothing: as it was."""

    plan: SoldPlan | None = None
    policy: OveragePolicy | None = None
    meters: Mapping[str, MeterChange] = field(default_factory=dict)
    price_minor: Mapping[str, int] = field(default_factory=dict)
    rate: RateLimit | Lifted | None = None
    concurrent_max: int | Lifted | None = None
    keys: Mapping[str, OwnLimits] = field(default_factory=dict)
    """Other limits of API keys' own, by key."""

    def sold(self, was: SoldPlan) -> SoldPlan:
        """The plan that the organization would have had."""
        plan = self.plan or was
        meters = dict(plan.meters)
        for meter, change in self.meters.items():
            own = meters.get(meter, SoldMeter(0, None, None))
            allowance = own.allowance if change.allowance is None else change.allowance
            meters[meter] = replace(own, allowance=allowance, overage=change.overage or own.overage)
        return replace(
            plan,
            policy=self.policy or plan.policy,
            meters=meters,
            price_minor={**plan.price_minor, **self.price_minor},
            rate=_limit(self.rate, plan.rate),
            concurrent_max=_limit(self.concurrent_max, plan.concurrent_max),
        )

    @property
    def is_none(self) -> bool:
        return self == PlanChange()

    def applied(self, terms: Terms, was: SoldPlan) -> Terms:
        """The terms that the organization would have had. What an admin overrides stays; an upgrade in the middle of a
        period is none where the plan was the same before."""
        if self.is_none:
            return terms
        plan = self.sold(was)
        limits = tuple(MeterLimit(name, m.allowance, m.overage_max) for name, m in sorted(plan.meters.items()))
        version = PlanVersion(plan.code, plan.version, plan.name, plan.policy, limits, plan.rate, plan.concurrent_max)
        units_change = self.plan is not None or self.meters
        return replace(terms, plan=version, prorated={} if units_change else terms.prorated)


def _limit(change: T | Lifted | None, was: T | None) -> T | None:
    if change is None:
        return was
    return None if isinstance(change, Lifted) else change
