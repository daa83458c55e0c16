"""What tests compare with: the text of a usage event, as a script writes it, and a period of the calendar."""

from quota.events import Charge, Kind, UsageEvent
from quota.periods import Period, monthly_periods

_LETTERS = {Kind.TAKE: "t", Kind.SETTLE: "s"}


def format_event(event: UsageEvent) -> str:
    """The inverse of `quota.events.parse`."""
    charges = " ".join(map(_format_charge, event.charges))
    at = "" if event.at is None else f"@{event.at}"
    return f"{_LETTERS[event.kind]} {event.request_id} {event.path} {event.period_start}{at} {charges}"


def _format_charge(charge: Charge) -> str:
    text = f"{charge.meter}:{charge.units}"
    if charge.overage or charge.burnt:
        text += f":{charge.overage}"
    if charge.burnt:
        text += ":" + ",".join(f"{grant}={units}" for grant, units in charge.burnt)
    return text


def monthly_period(anchor: int, now: float) -> Period:
    """The monthly period of `anchor` that holds `now`, both in seconds since the epoch."""
    return monthly_periods(anchor, now, 1)[0]
