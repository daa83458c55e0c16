"""The terms that are set for an organization, as values: equal values are the same entitlement. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from control.entitlements.derive import Terms
from control.entitlements.rates import rate_content
from control.entitlements.schedule import journaled_schedule
from control.moments import rfc3339
from quota.model import OveragePolicy, RateLimit, Status
from quota.periods import Schedule


@dataclass(frozen=True, slots=True)
class SetTerms:
    """A plan version, and what an admin laid over it."""

    plan: str
    plan_version: int
    status: Status
    policy: OveragePolicy | None
    allowances: Mapping[str, int]
    overage_max: Mapping[str, int]
    rate: RateLimit | None
    concurrent_max: int | None
    schedule: Schedule
    admin_suspended: bool

    @classmethod
    def of(cls, terms: Terms) -> "SetTerms":
        return cls(
            plan=terms.plan.code,
            plan_version=terms.plan.version,
            status=terms.status,
            policy=terms.policy,
            allowances=terms.allowances,
            overage_max=terms.overage_max,
            rate=terms.rate,
            concurrent_max=terms.concurrent_max,
            schedule=terms.schedule,
            admin_suspended=terms.admin_suspended,
        )

    def has_plan_of(self, other: "SetTerms") -> bool:
        """Whether only what is laid over the plan may differ."""
        return (self.plan, self.plan_version, self.status, self.schedule) == (
            other.plan,
            other.plan_version,
            other.status,
            other.schedule,
        )

    def journaled(self) -> dict[str, Any]:
        return {
            "plan": self.plan,
            "plan_version": self.plan_version,
            "status": self.status.word,
            "policy": self.policy,
            "meters": dict(self.allowances),
            "overage_max": dict(self.overage_max),
            "rate": rate_content(self.rate),
            "concurrent_max": self.concurrent_max,
            **journaled_schedule(self.schedule),
            **({"held": True} if self.admin_suspended else {}),
        }


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """A part of a timeline: terms that follow from a subscription, from a time to a time."""

    starts: int
    """Seconds since the epoch."""
    ends: int | None
    """None: until further notice."""
    plan: str
    plan_version: int
    status: str
    quantity: int
    schedule: Schedule
    subscription: str | None

    def has_terms_of(self, other: "TimelineEntry") -> bool:
        return replace(self, starts=0, ends=None) == replace(other, starts=0, ends=None)

    def journaled(self) -> dict[str, Any]:
        return {
            "from": rfc3339(self.starts),
            "to": None if self.ends is None else rfc3339(self.ends),
            "plan": self.plan,
            "plan_version": self.plan_version,
            "status": self.status,
            "quantity": self.quantity,
            **journaled_schedule(self.schedule),
            "subscription": self.subscription,
        }
