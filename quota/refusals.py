"""What a client is answered when a decision is not an admission. The same for both planes. Pure.

Status by reason: 429 where waiting helps, 402 where paying does, 403 for what the plan lacks, 503 where we
are at fault.

RateLimit fields follow draft-ietf-httpapi-ratelimit-headers: `RateLimit-Policy: "api_calls";q=10000;w=2592000` and
`RateLimit: "api_calls";r=42;t=86400`; q and r in units, w and t in seconds. A meter's policy has its name; that of the
rate limit is "request-rate", and that of requests under way "concurrent-requests".
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil, floor

from quota import problems
from quota.model import (
    Admitted,
    ConcurrencyLimited,
    Decision,
    Exhausted,
    Level,
    MeterBalance,
    NotEntitled,
    NotInPlan,
    RateLimited,
    Stale,
    Status,
    Unknown,
)
from quota.periods import Period
from quota.problems import Problem

RATE_POLICY, CONCURRENCY_POLICY = "request-rate", "concurrent-requests"  # no meter's name holds a dash
RETRY_SECONDS = 1  # where nobody knows how long the client must wait


@dataclass(frozen=True, slots=True)
class RefusedDecision:
    problem: Problem
    detail: str
    members: Mapping[str, object] = field(default_factory=dict)
    """Of the problem document, beside the standard ones."""
    fields: Mapping[str, str] = field(default_factory=dict)
    """Header fields, in order."""


def rate_limit_fields(period: Period, now_us: int, balance: MeterBalance) -> dict[str, str]:
    """The limit and the balance of one meter."""
    return {
        "RateLimit-Policy": f'"{balance.meter}";q={balance.limit};w={period.seconds}',
        "RateLimit": f'"{balance.meter}";r={balance.remaining};t={_seconds_left(period, now_us)}',
    }


def refusal_of(
    decision: Decision, charges: Mapping[str, int], upgrade_url: str | None = None, charged: str = "The request costs"
) -> RefusedDecision:
    """`charged`: the words before the cost in the sentence for the client."""
    match decision:
        case Exhausted():
            return _exhausted(decision, charges, charged)
        case RateLimited():
            return _rate_limited(decision)
        case ConcurrencyLimited(concurrent_max=concurrent_max):
            return RefusedDecision(
                problems.CONCURRENCY_LIMITED,
                f"The organization already has {concurrent_max} concurrent requests, which is its limit. Try again.",
                {problems.VIOLATED_POLICIES: [CONCURRENCY_POLICY], "limit": concurrent_max, "remaining": 0},
                {
                    # Nobody knows when one of them ends, so the policy has no window and the balance no reset.
                    "RateLimit-Policy": f'"{CONCURRENCY_POLICY}";q={concurrent_max};qu="concurrent-requests"',
                    "RateLimit": f'"{CONCURRENCY_POLICY}";r=0',
                    "Retry-After": str(RETRY_SECONDS),
                },
            )
        case NotEntitled(status=status):
            return RefusedDecision(
                problems.NO_ENTITLEMENT,
                _NOT_ENTITLED[status],
                {"entitlement_status": status.word, **({"upgrade_url": upgrade_url} if upgrade_url else {})},
                {"Link": f'<{upgrade_url}>; rel="payment"'} if upgrade_url else {},
            )
        case NotInPlan(meter=meter):
            return RefusedDecision(
                problems.METER_NOT_IN_PLAN, f"The plan does not include the meter {meter}.", {"meter": meter}
            )
        case Stale():
            return RefusedDecision(
                problems.ENTITLEMENT_PENDING,
                "The organization's plan or access changed while the request was checked. Try again.",
                fields={"Retry-After": str(RETRY_SECONDS)},
            )
        case Unknown():
            return RefusedDecision(
                problems.ENTITLEMENT_PENDING,
                "The organization's plan was not loaded in time. Try again.",
                fields={"Retry-After": str(RETRY_SECONDS)},
            )
        case Admitted():
            raise AssertionError("an admitted request is not refused")


def _rate_limited(decision: RateLimited) -> RefusedDecision:
    seconds = max(1, -(-decision.retry_after_us // 1_000_000))
    # A window has whole seconds: this is the shortest one that holds a burst.
    window = max(1, ceil(decision.burst_us / 1_000_000))
    # The interval was rounded: 7 a second became 6.99998.
    limit = floor(window * 1_000_000 / decision.interval_us + 0.001)
    fields = {
        "RateLimit-Policy": f'"{RATE_POLICY}";q={limit};w={window}',
        "RateLimit": f'"{RATE_POLICY}";r=0;t={seconds}',
        "Retry-After": str(seconds),
    }
    wait_seconds = decision.retry_after_us / 1_000_000
    return RefusedDecision(
        problems.RATE_LIMITED,
        f"{_OWNERS[decision.level]} has reached its rate limit. The next request can pass in {wait_seconds:.3f} s.",
        {
            problems.VIOLATED_POLICIES: [RATE_POLICY],
            "level": decision.level.name.lower(),
            "limit": limit,
            "remaining": 0,
            "reset_seconds": seconds,
        },
        fields,
    )


def _exhausted(decision: Exhausted, charges: Mapping[str, int], charged: str) -> RefusedDecision:
    balance, cost = decision.balance, charges[decision.balance.meter]
    seconds_left = _seconds_left(decision.period, decision.now_us)
    members = {
        problems.VIOLATED_POLICIES: [balance.meter],
        "level": decision.level.name.lower(),
        "limit": balance.limit,
        "remaining": balance.remaining,
        "cost": cost,
        "reset_seconds": seconds_left,
    }
    fields = rate_limit_fields(decision.period, decision.now_us, balance)
    if decision.over_limit:
        # No Retry-After: the next period's allowance is no larger.
        limit = f"the limit of {balance.limit} for a whole {_WINDOW[decision.level]}{_OF[decision.level]}"
        detail = f"{charged} {cost} {balance.meter}, which is more than {limit}."
        return RefusedDecision(problems.COST_ABOVE_LIMIT, detail, members, fields)
    left = f"only {balance.remaining} of {balance.limit} are left{_OF[decision.level]}"
    detail = f"{charged} {cost} {balance.meter}, but {left} until the {_WINDOW[decision.level]} ends."
    return RefusedDecision(problems.QUOTA_EXCEEDED, detail, members, {**fields, "Retry-After": str(seconds_left)})


def _seconds_left(period: Period, now_us: int) -> int:
    return max(1, period.end - now_us // 1_000_000)


_OWNERS = {
    Level.ORGANIZATION: "The organization",
    Level.KEY: "The API key",
    Level.USER: "The user",
    Level.TEAM: "The team",
}
_WINDOW = {level: "period" if level is Level.ORGANIZATION else "window" for level in Level}
_OF = {
    Level.ORGANIZATION: "",
    Level.KEY: " of the API key",
    Level.USER: " of the user",
    Level.TEAM: " of the team",
}

_NOT_ENTITLED = {
    Status.NONE: "The organization has no plan.",
    Status.SUSPENDED: "The organization's plan is suspended.",
    Status.ENDED: "The organization's plan has ended.",
}
