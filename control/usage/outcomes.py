"""What became of one reported record, and how a refusal is told. Pure.

Status by reason, as the gateway tells it: 429 where waiting helps, 402 where paying does, 403 for what the plan lacks,
503 where it is our fault.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from control.moments import rfc3339
from control.usage.records import Invalid, UsageRecord
from quota import problems
from quota.events import UsageEvent
from quota.ledger import LedgerUnavailable
from quota.model import Admitted, Decision, Exhausted, MeterBalance, NotEntitled, NotInPlan, Status
from quota.periods import Period
from quota.problems import Problem

FUTURE_SECONDS = 60  # a timestamp may be ahead of Redis' clock by this: clocks differ
RETRY_SECONDS = "1"


@dataclass(frozen=True, slots=True)
class Charged:
    event: UsageEvent
    """As it was recorded the first time."""
    admission: Admitted | None = None
    """By which it was charged just now; None for a repetition."""

    @property
    def headers(self) -> Mapping[str, str]:
        """How the meter stands, where the ledger has just said so."""
        if self.admission is None:
            return {}
        return rate_limit_fields(self.admission.period, self.admission.now_us, self.admission.balances[0])


@dataclass(frozen=True, slots=True)
class RecordRefused:
    problem: Problem
    detail: str
    members: Mapping[str, object] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    errors: tuple[tuple[str, str], ...] = ()
    """Field of the record, and what is wrong there."""

    @property
    def is_unknown(self) -> bool:
        """Whether the ledger has no entitlement of the organization, as of one that nobody knows."""
        return self.members.get("entitlement_status") == Status.NONE.word


Outcome = Charged | RecordRefused

CONFLICT = RecordRefused(problems.CONFLICT, "The idempotency key was used for another record.")


def invalid(record: Invalid) -> RecordRefused:
    return RecordRefused(problems.INVALID, "", errors=record.errors)


def outside_period(record: UsageRecord, period: Period, now: float) -> RecordRefused | None:
    """Refuses a timestamp that is not inside the open period, or ahead of the clock. Seconds since the epoch."""
    if record.timestamp is None:
        return None
    at = record.timestamp.timestamp()
    if at not in period:
        message = f"must be inside the open period, from {rfc3339(period.start)} to before {rfc3339(period.end)}"
    elif at > now + FUTURE_SECONDS:
        message = f"must be at most {FUTURE_SECONDS} seconds ahead; it is {rfc3339(now)}"
    else:
        return None
    return RecordRefused(problems.INVALID, "", errors=(("timestamp", message),))


def rate_limit_fields(period: Period, now_us: int, balance: MeterBalance) -> dict[str, str]:
    """draft-ietf-httpapi-ratelimit-headers, as the gateway sends them."""
    seconds_left = max(1, period.end - now_us // 1_000_000)
    return {
        "RateLimit-Policy": f'"{balance.meter}";q={balance.limit};w={period.seconds}',
        "RateLimit": f'"{balance.meter}";r={balance.remaining};t={seconds_left}',
    }


def refused(decision: Decision | LedgerUnavailable, record: UsageRecord) -> RecordRefused:
    """Of any decision but an admission."""
    match decision:
        case Exhausted():
            return _exhausted(decision, record.units)
        case NotEntitled(status=status):
            detail = f"The organization has no plan in force: {status.word}."
            return RecordRefused(problems.NO_ENTITLEMENT, detail, {"entitlement_status": status.word})
        case NotInPlan(meter=meter):
            return RecordRefused(problems.METER_NOT_IN_PLAN, f"The plan has no {meter}.", {"meter": meter})
        case LedgerUnavailable():
            # The reason is in the log; a client has no use for it.
            detail = "Try again in a moment."
            return RecordRefused(problems.LEDGER_UNAVAILABLE, detail, headers={"Retry-After": RETRY_SECONDS})
        case _:
            detail = "The organization's plan was not loaded in time; try again."
            return RecordRefused(problems.ENTITLEMENT_PENDING, detail, headers={"Retry-After": RETRY_SECONDS})


def _exhausted(decision: Exhausted, units: int) -> RecordRefused:
    balance, period = decision.balance, decision.period
    seconds_left = max(1, period.end - decision.now_us // 1_000_000)
    members = {
        problems.VIOLATED_POLICIES: [balance.meter],
        "limit": balance.limit,
        "remaining": balance.remaining,
        "cost": units,
        "reset_seconds": seconds_left,
    }
    headers = rate_limit_fields(period, decision.now_us, balance)
    if decision.over_limit:
        # No Retry-After: the next period's allowance is no larger.
        detail = f"The record has {units} {balance.meter}, which is more than a whole period's {balance.limit}."
        return RecordRefused(problems.COST_ABOVE_LIMIT, detail, members, headers)
    left = f"{balance.remaining} of {balance.limit} are left until the period ends"
    detail = f"The record has {units} {balance.meter}; {left}."
    return RecordRefused(problems.QUOTA_EXCEEDED, detail, members, {**headers, "Retry-After": str(seconds_left)})
