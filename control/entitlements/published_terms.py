"""What gateways decide by, as it is kept: the terms of each version that changed them. Pure.

Periods are not among them: a version that only renews them would be kept each month for each organization.
"""

from typing import Any

from quota.model import Entitlement, Grant, Status
from quota.periods import Period
from quota.terms import MeterTerms, Pace, Terms


def stored(entitlement: Entitlement) -> dict[str, Any]:
    terms = Terms.of(entitlement)
    return {
        "plan": entitlement.plan,
        "status": terms.status.word,
        "meters": {meter: [limit.allowance, limit.overage_max] for meter, limit in terms.meters.items()},
        "grants": [[grant.id, grant.meter, grant.units, grant.expires_at] for grant in terms.grants],
        "rate": None if terms.rate is None else [terms.rate.interval_us, terms.rate.burst_us],
        "concurrent_max": terms.concurrent_max,
    }


def read(version: int, kept: dict[str, Any], periods: tuple[Period, ...]) -> Terms:
    return Terms(
        version,
        Status[kept["status"].upper()],
        periods,
        {meter: MeterTerms(*limit) for meter, limit in kept["meters"].items()},
        tuple(Grant(*grant) for grant in kept["grants"]),
        None if kept["rate"] is None else Pace(*kept["rate"]),
        kept["concurrent_max"],
    )
