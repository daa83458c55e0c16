"""What a call is charged: the rules of `take` (quota/README.md) on counters in memory. Pure."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from quota.model import Entitlement, OveragePolicy
from quota.periods import Period


@dataclass(slots=True)
class Used:
    """Of one meter in one period."""

    units: int = 0
    burnt: int = 0
    overage: int = 0


@dataclass(frozen=True, slots=True)
class Charged:
    """One meter's part of a charge."""

    meter: str
    units: int
    overage: int
    burnt: Mapping[str, int]


@dataclass(slots=True)
class Books:
    """An organization's counters."""

    used: defaultdict[tuple[int, str], Used] = field(default_factory=lambda: defaultdict(Used))
    """By the period's start and the meter."""
    grants: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))

    def charge(
        self, entitlement: Entitlement, at: float, costs: Mapping[str, int]
    ) -> tuple[Period, list[Charged]] | str | None:
        """Charges every meter, or none. A text is the meter of which too little is left; None: it is not entitled."""
        period = next((each for each in entitlement.periods if at in each), None)
        if not entitlement.status.served or period is None:
            return None
        charges = []
        for meter, units in costs.items():
            charged = self._split(entitlement, period, at, meter, units)
            if charged is None:
                return meter
            charges.append(charged)
        for each in charges:
            used = self.used[period.start, each.meter]
            used.units += each.units
            used.overage += each.overage
            for grant, units in each.burnt.items():
                used.burnt += units
                self.grants[grant] += units
        return period, charges

    def _split(self, entitlement: Entitlement, period: Period, at: float, meter: str, units: int) -> Charged | None:
        limit = next((each for each in entitlement.meters if each.meter == meter), None)
        if limit is None:
            return None
        used = self.used[period.start, meter]
        left = units - min(units, max(0, limit.allowance - (used.units - used.burnt - used.overage)))
        burnt: dict[str, int] = {}
        for grant in sorted(entitlement.grants, key=lambda each: (each.expires_at, each.id)):
            if left and grant.meter == meter and grant.expires_at > at:
                part = min(left, max(0, grant.units - self.grants[grant.id]))
                if part:
                    burnt[grant.id], left = part, left - part
        if left and entitlement.policy is OveragePolicy.HARD_STOP:
            return None
        if left and limit.overage_max is not None and used.overage + left > limit.overage_max:
            return None
        return Charged(meter, units, left, burnt)
