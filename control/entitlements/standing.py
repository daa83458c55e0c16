"""How an organization stands by what Postgres alone knows. Pure."""

from control.entitlements.derive import State, derive
from control.entitlements.restore import Counters
from quota.model import OrganizationSnapshot


def standing_from_postgres(state: State, counters: Counters, now: float) -> OrganizationSnapshot:
    """What Redis would hold if it had only what Postgres has counted."""
    entitlement = derive(state, now)
    return OrganizationSnapshot(
        now_us=int(now * 1_000_000),
        version=entitlement.version,
        status=entitlement.status,
        periods=entitlement.periods,
        rate_interval_us=entitlement.rate.interval_us if entitlement.rate else 0,
        meters=entitlement.meters,
        policy=entitlement.policy,
        usage=counters.usage,
        grants=entitlement.grants,
        grant_used=counters.grant_used,
        concurrent_max=entitlement.concurrent_max,
        shadow=entitlement.shadow,
    )
