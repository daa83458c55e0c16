"""When a change of a subscription came into force: Stripe says so of some changes, and of others its events do. Pure.

A row holds from its moment until the next one's, which is never before it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from control.billing.history.record import Record
from control.billing.subscription_status import OVER
from control.moments import MICROSECOND, moment


@dataclass(frozen=True, slots=True)
class Since:
    """A state of a subscription, and since when it holds."""

    record: Record
    at: datetime
    assumed: bool = False
    """Nobody looked then: it follows from what was seen later."""


@dataclass(frozen=True, slots=True)
class Held:
    """What is kept of a subscription as its newest state."""

    status: str
    valid_from: datetime


def first_states(record: Record) -> list[Since]:
    """Of a subscription that nobody has seen before: what it must have been since it began."""
    created = moment(record.created)
    if record.status in ("trialing", "incomplete", "incomplete_expired"):
        return [Since(record, created)]
    steps: list[tuple[str, datetime]] = []
    paid_from = created
    if record.trial_end is not None and record.trial_end > record.created:
        steps.append(("trialing", created))
        paid_from = moment(record.trial_end)
    if record.status == "canceled" and record.ended_at is not None:
        ended = max(moment(record.ended_at), created + MICROSECOND)
        if ended > paid_from:
            steps.append(("active", paid_from))
        steps.append((record.status, ended))
    else:
        steps.append((record.status, paid_from))
    *before, (_, at) = steps
    assumed = [Since(replace(record, status=status, ended_at=None), at, assumed=True) for status, at in before]
    return [*assumed, Since(record, at)]


def changed_at(last: Held, record: Record, told_at: datetime) -> datetime:
    """When a subscription became what it is now. `told_at`: when Stripe told of it, or the look that showed it."""
    if record.status in OVER and record.ended_at is not None:
        at = moment(record.ended_at)
    elif last.status == "trialing" and record.status != "trialing" and record.trial_end is not None:
        at = moment(record.trial_end)
    else:
        at = told_at
    return max(at, last.valid_from + MICROSECOND)


def newest_events(events: Iterable[tuple[str | None, datetime]]) -> Mapping[str, datetime]:
    """By object: when the newest event about it was made."""
    newest: dict[str, datetime] = {}
    for object_id, at in events:
        if object_id is not None:
            newest[object_id] = max(at, newest.get(object_id, at))
    return newest
