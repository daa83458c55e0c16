"""`take`: charges requests, several in one call, or refuses them."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from quota import keys
from quota.calls.call import Call, Word, books_of, check_path, check_request_id
from quota.events import EventMalformed, UsageEvent, parse
from quota.model import (
    COST_MAX,
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
from quota.wire import BALANCE, LEVEL_FACTOR, MORE_ELSEWHERE, RATE, REPLY, Mark, More, Verdict

METERS_MAX = 64  # of one request
_ADMISSIONS: Final = frozenset({Verdict.ADMITTED.value, Verdict.ADMITTED_WITH_MORE.value})


class Take(NamedTuple):
    """One request of a call."""

    org: str
    request_id: str
    charges: Mapping[str, int]
    idempotency: str | None = None
    """Any short name: of all requests of a day that share it, one is charged."""
    reported: bool = False
    """Usage that is reported: no rate limit applies, and it needs no permit. It has an idempotency name."""
    path: str | None = None
    """Who is charged within the organization (`access.Path`); None: only the organization is known."""
    version: str = ""
    """A version word (`access.version_word`); empty: any version will do."""


def take_call(takes: Sequence[Take], shards: int) -> Call:
    """Raises ValueError for what cannot be an event."""
    script_keys, argv = list[str](), list[Word]()
    for take in takes:
        path = take.org if take.path is None else take.path
        if check_path(path) != take.org:
            raise ValueError(f"not a path of {take.org}: {path}")
        check_request_id(take.request_id)
        mark = None
        script_keys += books_of(take.org, shards)
        if take.idempotency is not None:
            mark = Mark.REPORTED if take.reported else Mark.KEYED
            script_keys.append(keys.idempotency_key(take.org, shards, take.idempotency))
        argv += [take.request_id, path, take.version, *charge_argv(take.charges, mark)]
    return Call("take", script_keys, argv)


def charge_argv(charges: Mapping[str, int], mark: Mark | None = None) -> list[Word]:
    """The part of ARGV that says what one request is charged: number of meters, then meter and cost of each.

    Raises ValueError for what cannot be an event."""
    for meter, cost in charges.items():
        if not keys.is_meter(meter):
            raise ValueError(f"a meter's name must match {keys.METER_PATTERN}: {meter!r}")
        if not 0 <= cost <= COST_MAX:
            raise ValueError(f"a cost must be a whole number from 0 to {COST_MAX}: {meter}={cost}")
    if not charges:
        raise ValueError("at least one meter must be charged")
    number: Word = len(charges) if mark is None else f"{mark.value}{len(charges)}"
    return [number, *(part for pair in charges.items() for part in pair)]


def decode_take(reply: bytes, meters: Sequence[str]) -> Decision:
    """One reply. `meters` are those of the request, in the order they were sent."""
    verdict, index, now_us, start, end, detail = REPLY.unpack_from(reply)
    if verdict in _ADMISSIONS:
        offset, balances = REPLY.size, []
        for meter in meters:
            balances.append(_balance(reply, offset, meter))
            offset += BALANCE.size
        period, more = Period(int(start), int(end)), index if verdict == Verdict.ADMITTED_WITH_MORE else 0
        replayed, permit = bool(more & More.REPLAYED), bool(more & More.PERMIT)
        return Admitted(period, int(now_us), balances, reply[offset:], replayed, permit)
    if verdict == Verdict.STALE:
        return Stale(int(detail))
    if verdict == Verdict.NOT_ENTITLED:
        return NotEntitled(Status(int(detail)))
    if verdict == Verdict.NOT_IN_PLAN:
        return NotInPlan(meters[index - 1])
    if verdict == Verdict.UNKNOWN:
        return Unknown(lapsed=detail == 1)
    period = Period(int(start), int(end))
    if verdict == Verdict.EXHAUSTED:
        balance = _balance(reply, REPLY.size, meters[index - 1])
        more, detail = divmod(int(detail), MORE_ELSEWHERE)
        level, never = divmod(detail, LEVEL_FACTOR)
        return Exhausted(period, int(now_us), balance, never == 1, Level(level), more == 1)
    if verdict == Verdict.RATE_LIMITED:
        interval_us, burst_us = RATE.unpack_from(reply, REPLY.size)
        return RateLimited(period, int(now_us), int(detail), interval_us, burst_us, Level(index))
    if verdict == Verdict.CONCURRENCY_LIMITED:
        return ConcurrencyLimited(period, int(now_us), int(detail))
    raise ValueError(f"no verdict of take: {verdict}")


def _balance(reply: bytes, offset: int, meter: str) -> MeterBalance:
    limit, remaining, overage = BALANCE.unpack_from(reply, offset)
    return MeterBalance(meter, int(limit), int(remaining), int(overage))


def find_receipt(reply: object) -> tuple[bytes, UsageEvent] | None:
    """The receipt in the reply to a request whose meters are not known, and its value; None in a refusal.

    It follows the balances, of which there is one for each meter."""
    if type(reply) is not bytes or reply[0] not in _ADMISSIONS:
        return None
    for meters in range(1, METERS_MAX + 1):
        at = REPLY.size + meters * BALANCE.size
        if reply.startswith(b"t ", at):
            try:
                event = parse(reply[at:].decode("ascii"))
            except (EventMalformed, UnicodeDecodeError):
                continue
            if len(event.charges) == meters:
                return reply[at:], event
    return None
