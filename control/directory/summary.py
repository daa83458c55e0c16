"""What the directory shows of an organization: what it has, uses and pays. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from control.directory.terms import folded
from control.entitlements.derive import State, derive, renewal
from control.entitlements.restore import Counters
from control.entitlements.standing import standing_from_postgres
from control.moments import moment
from control.sql.directory import Facts, SummaryRow
from quota.model import OrganizationSnapshot, OveragePolicy
from quota.periods import Period

NEAR_FRACTION: Final = 0.8
STEPS: Final = 1_000  # of an allowance: smaller moves of a counter change no summary
NEVER: Final = datetime(9999, 1, 1, tzinfo=UTC)
DELETED: Final = "deleted"


@dataclass(frozen=True, slots=True)
class MeterStanding:
    meter: str
    allowance: int
    granted: int
    """What grants add to the allowance in this period."""
    used: int
    remaining: int
    overage: int
    """The part of `used` beyond allowance and grants."""

    @property
    def fraction(self) -> float:
        """Of allowance and grants; 0 of a meter that has neither."""
        limit = self.allowance + self.granted
        return self.used / limit if limit else 0.0


@dataclass(frozen=True, slots=True)
class Summary:
    org: str
    name: str
    created_at: datetime
    deleted_at: datetime | None
    mirrored: bool
    plan: str | None
    plan_name: str | None
    status: str
    policy: OveragePolicy
    period: Period | None
    meters: Sequence[MeterStanding]
    payment_failed: bool
    subscription_status: str | None
    renews_at: datetime | None
    """When the subscription is paid for again."""
    ends_at: datetime | None
    """When it ends instead."""
    mrr_minor: Mapping[str, int]
    """By currency, under Stripe's definition."""
    changes_at: float | None
    """When time alone makes it another."""
    shadow: bool = False

    @property
    def used_fraction(self) -> float:
        """Of the fullest meter."""
        return max((each.fraction for each in self.meters), default=0.0)


def summarize(facts: Facts, state: State, counters: Counters, mrr_minor: Mapping[str, int], now: float) -> Summary:
    entitlement = derive(state, now)
    standing = standing_from_postgres(state, counters, now)
    changes = [each for each in (renewal(state, entitlement, now),) if each is not None]
    changes += [grant.expires_at for grant in state.grants]
    period_end = None if facts.current_period_end is None else moment(facts.current_period_end)
    ends_at = None if facts.cancel_at is None else moment(facts.cancel_at)
    return Summary(
        org=facts.org,
        name=facts.name,
        created_at=facts.created_at,
        deleted_at=facts.deleted_at,
        mirrored=facts.mirrored,
        plan=state.terms.plan.code if state.terms else None,
        plan_name=state.terms.plan.name if state.terms else None,
        status=DELETED if facts.deleted_at is not None else standing.status.word,
        policy=standing.policy,
        period=standing.period,
        meters=_meters(standing),
        payment_failed=facts.payment_failed,
        subscription_status=facts.subscription_status,
        renews_at=None if period_end is None or (ends_at is not None and ends_at <= period_end) else period_end,
        ends_at=ends_at,
        mrr_minor=mrr_minor,
        changes_at=min(changes, default=None),
        shadow=state.shadow,
    )


def row_of(summary: Summary) -> SummaryRow:
    """As it is searched, filtered and sorted."""
    return SummaryRow(
        org=summary.org,
        name_key=folded(summary.name),
        created_at=summary.created_at,
        is_deleted=summary.deleted_at is not None,
        plan=summary.plan,
        status=summary.status,
        used_fraction=round(summary.used_fraction * STEPS) / STEPS,
        payment_failed=summary.payment_failed,
        mrr_minor=max(summary.mrr_minor.values(), default=0),
        renews_at=summary.renews_at or NEVER,
        stale_at=NEVER if summary.changes_at is None else moment(summary.changes_at),
    )


def _meters(standing: OrganizationSnapshot) -> list[MeterStanding]:
    period = standing.period
    if period is None:
        return []
    used = {each.meter: each.used for each in standing.usage if each.period_start == period.start}
    allowances = {each.meter: each.allowance for each in standing.meters}
    return [
        MeterStanding(
            meter=each.meter,
            allowance=allowances[each.meter],
            granted=each.limit - allowances[each.meter],
            used=used.get(each.meter, 0),
            remaining=each.remaining,
            overage=each.overage,
        )
        for each in standing.balances()
    ]
