"""The hot path's reading of `take`'s reply. Pure.

It says what `quota.calls.take.decode_take` says, without making values of it.
"""

from typing import Final

from gateway.routing.destinations import MeteredRoute
from quota.wire import BALANCE, LASTING_BEGIN, LASTING_END, ONE_METER_CHANGING, REPLY, REPLY_WITH_BALANCE, Verdict

ADMITTED: Final = Verdict.ADMITTED.value  # without a look-up in an enum for each request
ADMITTED_WITH_MORE: Final = Verdict.ADMITTED_WITH_MORE.value

_ONE_METER_SIZE = REPLY_WITH_BALANCE.size
_AS_ADMITTED = bytes((Verdict.ADMITTED, 0))
_POLICIES_MAX = 4096  # of a route


def admission_with_more(reply: bytes, route: MeteredRoute) -> tuple[bytes, bytes]:
    """Of a reply that says more than `admission` reads: its second byte says what."""
    return admission(_AS_ADMITTED + reply[2:], route)


def admission(reply: bytes, route: MeteredRoute) -> tuple[bytes, bytes]:
    """RateLimit lines and receipt, of a reply that admits."""
    meters = route.meters
    if len(meters) == 1:
        lines, reset_at = route.policies.get(reply[LASTING_BEGIN:LASTING_END]) or _policies_of(route, reply)
        now_us, remaining = ONE_METER_CHANGING.unpack_from(reply)
        return b"%b%d;t=%d\r\n" % (lines, remaining, reset_at - now_us / 1_000_000), reply[_ONE_METER_SIZE:]
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


def _policies_of(route: MeteredRoute, reply: bytes) -> tuple[bytes, float]:
    """The RateLimit lines of a one-meter route up to the balance, and the second after the period's end."""
    _, _, _, start, end, _, limit, _, _ = REPLY_WITH_BALANCE.unpack_from(reply)
    meter = route.meters[0]
    lines = b'RateLimit-Policy: %b\r\nRateLimit: "%b";r=' % (_policy(meter, limit, end - start), meter)
    if len(route.policies) >= _POLICIES_MAX:
        route.policies.clear()
    policy = route.policies[reply[LASTING_BEGIN:LASTING_END]] = (lines, end + 1)
    return policy


def _policy(meter: bytes, limit: float, window_seconds: float) -> bytes:
    return b'"%b";q=%d;w=%d' % (meter, limit, window_seconds)
