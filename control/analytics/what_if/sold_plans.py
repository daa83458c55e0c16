"""Plans as they are sold, and what is changed about one for the sake of a question. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from control.billing.overage.overage_price import OveragePrice
from control.entitlements.derive import PlanVersion, Terms
from control.sql import what_if as rows
from quota.model import MeterLimit, OveragePolicy


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

    @classmethod
    def of(cls, row: rows.PlanVersion) -> "SoldPlan":
        meters = {}
        for meter, (allowance, overage_max, amount, units) in row.meters.items():
            price = None if amount is None or units is None else OveragePrice(amount, units)
            meters[meter] = SoldMeter(allowance or 0, overage_max, price)
        return cls(row.code, row.version, row.name, OveragePolicy(row.policy), row.currency, meters, row.price_minor)


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

    def sold(self, was: SoldPlan) -> SoldPlan:
        """The plan that the organization would have had."""
        plan = self.plan or was
        meters = dict(plan.meters)
        for meter, change in self.meters.items():
            own = meters.get(meter, SoldMeter(0, None, None))
            allowance = own.allowance if change.allowance is None else change.allowance
            meters[meter] = replace(own, allowance=allowance, overage=change.overage or own.overage)
        return replace(
            plan, policy=self.policy or plan.policy, meters=meters, price_minor={**plan.price_minor, **self.price_minor}
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
        version = PlanVersion(plan.code, plan.version, plan.name, plan.policy, limits, terms.plan.rate)
        return replace(terms, plan=version, prorated={})
