"""What is recorded of an organization's requests, one entry after the other. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import groupby
from typing import Final

from control.sql.what_if import Charged, KeptRefusal
from quota.evaluation import Rule
from quota.events import REPORTED
from quota.kept_refusals import BatchMalformed, decision_of
from quota.model import ConcurrencyLimited, Exhausted, Level, NotEntitled, NotInPlan, RateLimited
from quota.terms import Pace

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_MILLISECOND_US: Final = 1000


@dataclass(frozen=True, slots=True)
class Part:
    """One meter's part of what is recorded."""

    meter: str
    units: int
    overage: int
    burnt: Mapping[str, int]


class Entry(StrEnum):
    """What is recorded."""

    TAKE = "take"
    CORRECTION = "settle"
    REFUSAL = "refusal"


@dataclass(frozen=True, slots=True)
class Said:
    """What the ledger said of a refused request."""

    rule: Rule
    pace: Pace | None = None
    """Of a rate limit: which one."""
    arrival_us: float = 0.0
    """Of a rate limit: when its bucket would have been full again."""
    concurrent_max: int | None = None


@dataclass(frozen=True, slots=True)
class Recorded:
    """A request that was charged or refused, or the correction of one."""

    at: datetime
    request_id: str
    kind: Entry
    parts: tuple[Part, ...]
    period_start: int = 0
    """Of a charge or a correction: that of the request, seconds since 1970."""
    key: str | None = None
    """The id of its API key."""
    taken_s: int | None = None
    """The second of the take, where it was charged to quotas of the key's own."""
    said: Said | None = None
    """Of a refusal."""

    @property
    def costs(self) -> dict[str, int]:
        return {part.meter: part.units for part in self.parts}

    @property
    def earliest_us(self) -> int:
        """When it was decided, by Redis' clock; an event tells the millisecond."""
        return (self.at - _EPOCH) // _MICROSECOND

    @property
    def latest_us(self) -> int:
        return self.earliest_us + (0 if self.kind is Entry.REFUSAL else _MILLISECOND_US - 1)

    @property
    def millisecond(self) -> int:
        return self.earliest_us // _MILLISECOND_US

    @property
    def is_reported(self) -> bool:
        """It is usage that was reported: no rate limit applied, and it needed no permit."""
        return self.request_id.startswith(REPORTED)


def entries_of(charged: Sequence[Charged], refused: Iterable[KeptRefusal]) -> list[Recorded]:
    """In the order of their times. Rows of one entry of the ledger follow each other."""
    entries = []
    for (at, _), group in groupby(charged, key=lambda row: (row.occurred_at, row.stream_seq)):
        rows = list(group)
        first = rows[0]
        entries.append(
            Recorded(
                at,
                first.request_id,
                Entry(first.kind),
                tuple(Part(row.meter, row.units, row.overage, row.burnt or {}) for row in rows),
                int(first.period_start.timestamp()),
                first.key_id,
                None if first.taken_at is None else int(first.taken_at.timestamp()),
            )
        )
    entries += [each for row in refused if (each := _refusal(row)) is not None]
    return sorted(entries, key=lambda each: each.at)


def _refusal(row: KeptRefusal) -> Recorded | None:
    """None: it says nothing of what the organization may use."""
    said = _said(row)
    parts = tuple(Part(str(meter), int(units), 0, {}) for meter, units in row.charges)
    return None if said is None else Recorded(row.at, row.request_id, Entry.REFUSAL, parts, key=row.key_id, said=said)


def _said(row: KeptRefusal) -> Said | None:
    try:
        decision = decision_of(row.said)
    except BatchMalformed:
        return None
    match decision:
        case Exhausted(level=level):
            return Said(Rule.METER if level is Level.ORGANIZATION else Rule.OWN_QUOTA)
        case NotInPlan():
            return Said(Rule.METER)
        case NotEntitled():
            return Said(Rule.STATUS)
        case RateLimited(now_us=now_us, retry_after_us=wait_us, interval_us=interval_us, burst_us=burst_us):
            rule = Rule.RATE if decision.level is Level.ORGANIZATION else Rule.OWN_RATE
            return Said(rule, Pace(interval_us, burst_us), now_us + wait_us - interval_us + burst_us)
        case ConcurrencyLimited(concurrent_max=concurrent_max):
            return Said(Rule.CONCURRENCY, concurrent_max=concurrent_max)
    return None
