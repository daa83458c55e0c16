"""A refusal as a gateway keeps it for those who ask why: its form on the wire, and what the ledger said in it.

A gateway sends what it kept once a second, as one entry of the stream `qg:refusals`: lines of JSON, the first of which
says who sends and how many were refused in all. Both planes read and write it here.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from quota.model import (
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

FIELD: Final = b"r"
"""The stream entry's only field."""
BATCHES_MAX: Final = 1000
"""Entries in Redis; what nobody fetched is then replaced by what is newer."""


class BatchMalformed(ValueError):
    """The text is no batch of refusals. The message says which part of it is wrong."""


class Refused(NamedTuple):
    """One request that was refused, or would have been (`shadow`)."""

    request_id: str
    correlation: str | None
    """The client's own X-Request-Id, which the answer has in place of ours."""
    at_us: int
    """Redis' time where the ledger decided; else the gateway's."""
    org: str | None
    """None: the request was refused before one was known."""
    key_id: str | None
    user: str | None
    route: str
    method: str
    status: int
    """Of the answer."""
    verdict: str
    """As in logs and metrics."""
    shadow: bool
    detail: str
    """The sentence that the client was told."""
    charges: Mapping[str, int]
    """Units by meter, in the order of the request."""
    version: int | None
    """Of the organization, as the take said it."""
    limits: str
    """Those of the principal's own, as in the take's version word (quota/access.py)."""
    said: Mapping[str, Any]
    """What the ledger said, by `words_of`; empty where it was not asked."""


@dataclass(frozen=True, slots=True)
class Batch:
    source: str
    """The worker that sends: one process has one name, and no other has it."""
    gateway: str
    """The host that it runs on."""
    sequence: int
    """Batches of this worker, from 1."""
    refused: int
    """All requests that this worker has refused so far, kept or not."""
    of_organizations: Mapping[str, int] = field(default_factory=dict)
    """Refused since the batch before, kept or not, of organizations that are told apart."""
    refusals: tuple[Refused, ...] = ()


def encode(batch: Batch) -> bytes:
    head = [batch.source, batch.gateway, batch.sequence, batch.refused, dict(batch.of_organizations)]
    return b"\n".join(json.dumps(line, separators=(",", ":")).encode() for line in (head, *batch.refusals))


def decode(text: bytes) -> Batch:
    """Raises BatchMalformed."""
    try:
        head, *lines = map(json.loads, text.split(b"\n"))
        source, gateway, sequence, refused, of_organizations = head
        return Batch(
            str(source),
            str(gateway),
            int(sequence),
            int(refused),
            {str(org): int(count) for org, count in of_organizations.items()},
            tuple(_checked(line) for line in lines),
        )
    except (ValueError, TypeError, AttributeError) as e:
        raise BatchMalformed(f"not a batch of refusals: {e}") from e


_TYPES: Final = (str, (str, None), int, (str, None), (str, None), (str, None), str, str, int, str, bool, str, dict)
_LAST_TYPES: Final = ((int, None), str, dict)


def _checked(line: Any) -> Refused:
    refused = Refused(*line)
    for value, kinds in zip(refused, (*_TYPES, *_LAST_TYPES), strict=True):
        allowed = tuple(
            type(None) if kind is None else kind for kind in (kinds if isinstance(kinds, tuple) else (kinds,))
        )
        if not isinstance(value, allowed):
            raise BatchMalformed(f"a refusal has {value!r} in place of {kinds}")
    return refused


# What the ledger said


def words_of(decision: Decision | None) -> dict[str, Any]:
    """A refusal as JSON; empty for none."""
    match decision:
        case Exhausted(period, now_us, balance, over_limit, level):
            return {
                "is": "exhausted",
                "level": level.name.lower(),
                "now_us": now_us,
                "period": [period.start, period.end],
                "meter": balance.meter,
                "limit": balance.limit,
                "remaining": balance.remaining,
                "overage": balance.overage,
                "over_limit": over_limit,
            }
        case RateLimited(period, now_us, retry_after_us, interval_us, burst_us, level):
            return {
                "is": "rate_limited",
                "level": level.name.lower(),
                "now_us": now_us,
                "period": [period.start, period.end],
                "retry_after_us": retry_after_us,
                "interval_us": interval_us,
                "burst_us": burst_us,
            }
        case ConcurrencyLimited(period, now_us, concurrent_max):
            return {
                "is": "concurrency_limited",
                "now_us": now_us,
                "period": [period.start, period.end],
                "concurrent_max": concurrent_max,
            }
        case NotEntitled(status):
            return {"is": "not_entitled", "status": status.word}
        case NotInPlan(meter):
            return {"is": "not_in_plan", "meter": meter}
        case Stale(version):
            return {"is": "stale", "version": version}
        case Unknown(lapsed):
            return {"is": "unknown", "lapsed": lapsed}
    return {}


def decision_of(said: Mapping[str, Any]) -> Decision | None:
    """The decision that `words_of` has written; None where the ledger was not asked. Raises BatchMalformed."""
    try:
        return _decision(said)
    except (KeyError, ValueError, TypeError) as e:
        raise BatchMalformed(f"not what a ledger says: {e}") from e


def _decision(said: Mapping[str, Any]) -> Decision | None:
    kind = said.get("is")
    if kind == "not_entitled":
        return NotEntitled(Status[said["status"].upper()])
    if kind == "not_in_plan":
        return NotInPlan(said["meter"])
    if kind == "stale":
        return Stale(said["version"])
    if kind == "unknown":
        return Unknown(said["lapsed"])
    if kind is None:
        return None
    start, end = said["period"]
    period, now_us = Period(start, end), said["now_us"]
    if kind == "concurrency_limited":
        return ConcurrencyLimited(period, now_us, said["concurrent_max"])
    level = Level[said["level"].upper()]
    if kind == "rate_limited":
        return RateLimited(period, now_us, said["retry_after_us"], said["interval_us"], said["burst_us"], level)
    if kind == "exhausted":
        balance = MeterBalance(said["meter"], said["limit"], said["remaining"], said["overage"])
        return Exhausted(period, now_us, balance, said["over_limit"], level)
    raise BatchMalformed(f"not what a ledger says: {kind!r}")
