"""What a decision looks like to the client: status, RateLimit fields, problem body. Pure.

The texts of refusals are in quota/refusals.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from quota import problems
from quota.model import (
    Decision,
)
from quota.problems import Problem
from quota.refusals import refusal_of
from quota.wire import BALANCE, ONE_METER_CHANGING, ONE_METER_LASTING, REPLY, REPLY_WITH_BALANCE, Verdict

if TYPE_CHECKING:
    from gateway.routing.destinations import MeteredRoute

STATUS_LINES = {s.value: b"HTTP/1.1 %d %b\r\n" % (s.value, s.phrase.encode()) for s in HTTPStatus}

_ONE_METER_SIZE = REPLY_WITH_BALANCE.size
_AS_ADMITTED = bytes((Verdict.ADMITTED, 0))
_ADMITTED = Verdict.ADMITTED.value  # without a look-up in an enum for each request


@dataclass(slots=True)
class RefusalAnswer:
    problem: Problem
    detail: str
    fields: bytes = b""
    """Header lines, each with its CRLF."""
    extensions: Mapping[str, object] | None = None
    """Members of the problem body beyond the standard ones."""


_POLICIES_MAX = 4096  # of a route


@dataclass(slots=True)
class RefusalText:
    """A refusal ready to be answered more than once: only Date and correlation id are missing."""

    refusal: RefusalAnswer
    start: bytes
    fields: bytes
    body_before: bytes
    """Up to the correlation id."""
    body_after: bytes

    @classmethod
    def of(cls, refusal: RefusalAnswer) -> "RefusalText":
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


def of_decision(decision: Decision, charges: Mapping[str, int], upgrade_url: str | None) -> RefusalAnswer:
    """How a decision other than Admitted is told."""
    refused = refusal_of(decision, charges, upgrade_url)
    fields = "".join(f"{name}: {value}\r\n" for name, value in refused.fields.items())
    return RefusalAnswer(refused.problem, refused.detail, fields.encode(), refused.members or None)
