"""The outcome of one reported record. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from control.moments import rfc3339
from control.usage.records import Invalid, UsageRecord
from quota import problems
from quota.events import UsageEvent
from quota.ledger import LedgerUnavailable
from quota.model import Admitted, Decision, Status
from quota.periods import Period
from quota.problems import Problem
from quota.refusals import RETRY_SECONDS, rate_limit_fields, refusal_of

FUTURE_SECONDS = 60  # a timestamp may be ahead of Redis' clock by this: clocks differ


@dataclass(frozen=True, slots=True)
class Charged:
    event: UsageEvent
    """As it was recorded the first time."""
    admission: Admitted | None = None
    """By which it was charged just now; None for a repetition."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The meter's RateLimit fields, if the ledger has just told them."""
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


@dataclass(frozen=True, slots=True)
class LetPass:
    """It would be refused. Its organization is in shadow mode, so it is accepted, and nothing is charged."""

    refusal: RecordRefused


Outcome = Charged | RecordRefused | LetPass

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


def refused(decision: Decision | LedgerUnavailable, record: UsageRecord) -> RecordRefused:
    """Of any decision but an admission."""
    if isinstance(decision, LedgerUnavailable):
        # The reason is in the log; a client has no use for it.
        detail = "Try again in a moment."
        return RecordRefused(problems.LEDGER_UNAVAILABLE, detail, headers={"Retry-After": str(RETRY_SECONDS)})
    refusal = refusal_of(decision, {record.meter: record.units}, charged="The record has")
    return RecordRefused(refusal.problem, refusal.detail, refusal.members, refusal.fields)
