"""What a decision looks like to the client: status, RateLimit fields, problem body. Pure.

RateLimit fields follow draft-ietf-httpapi-ratelimit-headers: `RateLimit-Policy: "api_calls";q=10000;w=2592000` and
`RateLimit: "api_calls";r=42;t=86400`; q and r in units, w and t in seconds. A meter's policy has its name; that of the
rate limit is "request-rate", and that of requests under way "concurrent-requests".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from math import ceil, floor
from typing import TYPE_CHECKING

from quota import problems
from quota.model import (
    Admitted,
    ConcurrencyLimited,
    Decision,
    Exhausted,
    MeterBalance,
    NotEntitled,
    NotInPlan,
    RateLimited,
    Status,
    Unknown,
)
from quota.problems import Problem
from quota.wire import BALANCE, ONE_METER_CHANGING, ONE_METER_LASTING, REPLY, REPLY_WITH_BALANCE, Verdict

if TYPE_CHECKING:
    from gateway.destinations import MeteredRoute

STATUS_LINES = {s.value: b"HTTP/1.1 %d %b\r\n" % (s.value, s.phrase.encode()) for s in HTTPStatus}

_ONE_METER_SIZE = REPLY_WITH_BALANCE.size
_AS_ADMITTED = bytes((Verdict.ADMITTED, 0))
_ADMITTED = Verdict.ADMITTED.value  # without a look-up in an enum for each request


@dataclass(slots=True)
class Refusal:
    problem: Problem
    detail: str
    fields: bytes = b""
    """Header lines, each with its CRLF."""
    extensions: Mapping[str, object] | None = None
    """Members of the problem body beyond the standard ones."""


_POLICIES_MAX = 4096  # of a route
_RATE, _CONCURRENCY = b"request-rate", b"concurrent-requests"  # policies; no meter's name holds a dash


@dataclass(slots=True)
class RefusalText:
    """A refusal ready to be answered more than once: only Date and correlation id are missing."""

    refusal: Refusal
    start: bytes
    fields: bytes
    body_before: bytes
    """Up to the correlation id."""
    body_after: bytes

    @classmethod
    def of(cls, refusal: Refusal) -> "RefusalText":
        mark = "\0"  # no detail holds one
        body = problems.body(refusal.problem, refusal.detail, mark, refusal.extensions)
        before, _, after = body.partition(b"\\u0000")
        fields = b"Content-Type: application/problem+json\r\n%b" % refusal.fields
        return cls(refusal, STATUS_LINES[refusal.problem.status], fields, before, after)


def _policy(meter: bytes, limit: float, window_seconds: float) -> bytes:
    return b'"%b";q=%d;w=%d' % (meter, limit, window_seconds)


def admitted(reply: bytes, route: "MeteredRoute") -> tuple[bytes, bytes] | None:
    """The hot path's reading of `take`'s reply: (RateLimit lines, receipt), or None for a refusal.

    It says what `quota.calls.take.decode_take` says, without making values of it."""
    if reply[0] != _ADMITTED:
        return None
    meters = route.meters
    if len(meters) == 1:
        start, end = route.policies.get(reply[ONE_METER_LASTING]) or _policies_of(route, reply)
        now_us, remaining = ONE_METER_CHANGING.unpack_from(reply)
        return b"%b%d;t=%d\r\n" % (start, remaining, end - now_us / 1_000_000), reply[_ONE_METER_SIZE:]
    _, _, now_us, start, end, _ = REPLY.unpack_from(reply)
    seconds_left = int(end - now_us / 1_000_000) + 1
    offset = REPLY.size
    policies, limits = [], []
    for meter in meters:
        limit, remaining, _ = BALANCE.unpack_from(reply, offset)
        policies.append(_policy(meter, limit, end - start))
        limits.append(b'"%b";r=%d;t=%d' % (meter, remaining, seconds_left))
        offset += BALANCE.size
    return b"RateLimit-Policy: %b\r\nRateLimit: %b\r\n" % (b", ".join(policies), b", ".join(limits)), reply[offset:]


def admitted_with_more(reply: bytes, route: "MeteredRoute") -> tuple[bytes, bytes]:
    """`admitted`, of a reply that says more than that."""
    admission = admitted(_AS_ADMITTED + reply[2:], route)
    assert admission is not None  # noqa: S101 - the verdict says so
    return admission


def _policies_of(route: "MeteredRoute", reply: bytes) -> tuple[bytes, float]:
    """The RateLimit lines of a one-meter route up to the balance, and the second after the period's end."""
    _, _, _, start, end, _, limit, _, _ = REPLY_WITH_BALANCE.unpack_from(reply)
    meter = route.meters[0]
    lines = b'RateLimit-Policy: %b\r\nRateLimit: "%b";r=' % (_policy(meter, limit, end - start), meter)
    if len(route.policies) >= _POLICIES_MAX:
        route.policies.clear()
    found = route.policies[reply[ONE_METER_LASTING]] = (lines, end + 1)
    return found


def _limit_fields(balance: MeterBalance, window_seconds: int, seconds_left: int) -> bytes:
    meter = balance.meter.encode()
    return b'RateLimit-Policy: %b\r\nRateLimit: "%b";r=%d;t=%d\r\n' % (
        _policy(meter, balance.limit, window_seconds),
        meter,
        balance.remaining,
        seconds_left,
    )


def of_decision(decision: Decision, charges: Mapping[str, int], upgrade_url: str | None) -> Refusal:
    """How a decision other than Admitted is told. Status by reason: 429 where waiting helps, 402 where paying does,
    403 for what the plan lacks, 503 where it is our fault."""
    match decision:
        case Exhausted():
            return _exhausted(decision, charges)
        case RateLimited():
            return _rate_limited(decision)
        case ConcurrencyLimited(concurrent_max=concurrent_max):
            return Refusal(
                problems.CONCURRENCY_LIMITED,
                f"The organization has {concurrent_max} requests under way, which is its limit; try again.",
                # Nobody knows when one of them ends, so the policy has no window and the balance no reset.
                b'RateLimit-Policy: "%b";q=%d;qu="concurrent-requests"\r\nRateLimit: "%b";r=0\r\nRetry-After: 1\r\n'
                % (_CONCURRENCY, concurrent_max, _CONCURRENCY),
                {problems.VIOLATED_POLICIES: [_CONCURRENCY.decode()], "limit": concurrent_max, "remaining": 0},
            )
        case NotEntitled(status=status):
            link = f'<{upgrade_url}>; rel="payment"\r\n'.encode() if upgrade_url else b""
            return Refusal(
                problems.NO_ENTITLEMENT,
                _NOT_ENTITLED[status],
                b"Link: " + link if link else b"",
                {"entitlement_status": status.word, **({"upgrade_url": upgrade_url} if upgrade_url else {})},
            )
        case NotInPlan(meter=meter):
            return Refusal(problems.METER_NOT_IN_PLAN, f"The plan has no {meter}.", extensions={"meter": meter})
        case Unknown():
            return Refusal(
                problems.ENTITLEMENT_PENDING,
                "The organization's plan was not loaded in time; try again.",
                b"Retry-After: 1\r\n",
            )
        case Admitted():
            raise AssertionError("an admitted request is not refused")


def _rate_limited(decision: RateLimited) -> Refusal:
    seconds = max(1, -(-decision.retry_after_us // 1_000_000))
    # A window has whole seconds, so it is the shortest of these that holds a burst.
    window = max(1, ceil(decision.burst_us / 1_000_000))
    # The interval was rounded, so 7 a second are 6.99998.
    limit = floor(window * 1_000_000 / decision.interval_us + 0.001)
    fields = b'RateLimit-Policy: %b\r\nRateLimit: "%b";r=0;t=%d\r\nRetry-After: %d\r\n' % (
        _policy(_RATE, limit, window),
        _RATE,
        seconds,
        seconds,
    )
    detail = (
        f"The organization's rate limit is reached; a request passes in {decision.retry_after_us / 1_000_000:.3f} s."
    )
    members = {
        problems.VIOLATED_POLICIES: [_RATE.decode()],
        "limit": limit,
        "remaining": 0,
        "reset_seconds": seconds,
    }
    return Refusal(problems.RATE_LIMITED, detail, fields, members)


def _exhausted(decision: Exhausted, charges: Mapping[str, int]) -> Refusal:
    balance, period = decision.balance, decision.period
    seconds_left = max(1, period.end - decision.now_us // 1_000_000)
    cost = charges[balance.meter]
    members = {
        problems.VIOLATED_POLICIES: [balance.meter],
        "limit": balance.limit,
        "remaining": balance.remaining,
        "cost": cost,
        "reset_seconds": seconds_left,
    }
    fields = _limit_fields(balance, period.seconds, seconds_left)
    if decision.over_limit:
        # No Retry-After: the next period's allowance is no larger.
        detail = f"The request costs {cost} {balance.meter}, which is more than a whole period's {balance.limit}."
        return Refusal(problems.COST_ABOVE_LIMIT, detail, fields, members)
    left = f"{balance.remaining} of {balance.limit} are left until the period ends"
    detail = f"The request costs {cost} {balance.meter}; {left}."
    return Refusal(problems.QUOTA_EXCEEDED, detail, fields + b"Retry-After: %d\r\n" % seconds_left, members)


_NOT_ENTITLED = {
    Status.NONE: "The organization has no plan.",
    Status.SUSPENDED: "The organization's plan is suspended.",
    Status.ENDED: "The organization's plan has ended.",
}
