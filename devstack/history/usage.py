"""Usage of the demo history: calls are charged under the entitlement of their time, and written as the writer does."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from common.clock import Clock
from control import incidents, sql
from control.db import Connection, Database
from control.entitlements import stored_state
from control.entitlements.derive import derive, renewal
from control.ledger.event_batch import EVENT_COLUMNS
from control.moments import moment, rfc3339
from control.usage.limits import EXHAUSTED
from control.usage.thresholds import Counter, Thresholds
from devstack.history.refusals import Refusals
from devstack.history.traffic import DAY, Call, Habits, calls_of_day
from quota.evaluation import Books, Evaluation, Request, evaluate
from quota.events import Charge
from quota.keys import shard_of
from quota.model import Admitted, Entitlement, Exhausted, MeterUsage, OveragePolicy
from quota.periods import Period
from quota.terms import Terms

_FOREVER = float("inf")


@dataclass(slots=True)
class _Subject:
    """An organization, as far as its usage goes."""

    org: str
    habits: Habits
    next_day: int
    """The first day whose calls are not drawn yet."""
    books: Books = field(default_factory=Books)
    waiting: list[Call] = field(default_factory=list)
    """Calls of the day that is drawn, the latest first."""
    entitlement: Entitlement | None = None
    terms: Terms | None = None
    holds_until: float = 0.0
    """So long the entitlement is in force."""
    exhausted: dict[str, float] = field(default_factory=dict)
    """Meter -> the end of the period in which nothing is left of it."""
    calls: int = 0


@dataclass(slots=True)
class _Unwritten:
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    counters: defaultdict[tuple[str, int, str], list[int]] = field(
        default_factory=lambda: defaultdict(lambda: [0, 0, 0])
    )
    grants: defaultdict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    incidents: list[tuple[float, str, str, dict[str, Any] | None]] = field(default_factory=list)
    """When, organization, meter, and content; None closes it."""


class Usage:
    """What all organizations use."""

    def __init__(self, db: Database, thresholds: Thresholds, refusals: Refusals, clock: Clock, shards: int) -> None:
        self._db = db
        self._refusals = refusals
        self._thresholds = thresholds
        self._clock = clock
        self._shards = shards
        self._subjects: dict[str, _Subject] = {}
        self._unwritten = _Unwritten()
        self.events = 0

    def begin(self, org: str, habits: Habits) -> None:
        """The organization calls from now on."""
        if org not in self._subjects:
            self._subjects[org] = _Subject(org, habits, habits.since - habits.since % DAY)

    def forget_entitlement(self, org: str) -> None:
        """It may be another one from now on."""
        if org in self._subjects:
            self._subjects[org].holds_until = 0.0

    async def period_end(self, org: str, at: float) -> int | None:
        """Of the organization's period at that moment; None: it has none, or does not call yet."""
        if (subject := self._subjects.get(org)) is None:
            return None
        periods = (await self._entitlement(subject, at)).periods
        return next((period.end for period in periods if at in period), None)

    async def advance_all(self, until: float) -> None:
        for subject in self._subjects.values():
            await self._advance(subject, until)

    async def advance(self, org: str, until: float) -> None:
        """Charges what the organization calls before that moment."""
        if org in self._subjects:
            await self._advance(self._subjects[org], until)

    async def _advance(self, subject: _Subject, until: float) -> None:
        while True:
            if not subject.waiting:
                if subject.next_day >= until:
                    return
                day, subject.next_day = subject.next_day, subject.next_day + DAY
                entitlement = await self._entitlement(subject, max(day, subject.habits.since))
                if entitlement.status.served:
                    allowances = {each.meter: each.allowance for each in entitlement.meters}
                    subject.waiting = list(calls_of_day(subject.habits, day, allowances))[::-1]
                continue
            at = subject.waiting[-1].at_ms / 1000
            if at >= until:
                return
            call = subject.waiting.pop()
            if at > subject.habits.since:
                self._charge(subject, await self._entitlement(subject, at), call)

    async def _entitlement(self, subject: _Subject, at: float) -> Entitlement:
        """As it was published then."""
        if subject.entitlement is None or at >= subject.holds_until:
            async with self._db.connection() as connection:
                state = await stored_state.load_state(connection, subject.org, at)
            if state is None:
                raise LookupError(subject.org)
            subject.entitlement = derive(state, at)
            subject.terms = Terms.of(subject.entitlement)
            subject.holds_until = renewal(state, subject.entitlement, at) or _FOREVER
        return subject.entitlement

    def _charge(self, subject: _Subject, entitlement: Entitlement, call: Call) -> None:
        at = call.at_ms / 1000
        for meter in [each for each, ends in subject.exhausted.items() if at >= ends]:
            del subject.exhausted[meter]
            self._unwritten.incidents.append((at, subject.org, meter, None))
        meters = {each.meter for each in entitlement.meters}
        costs = {meter: units for meter, units in call.costs.items() if meter in meters}
        if not costs:
            return
        charged = _charged(subject, call, costs)
        if isinstance(charged, str):
            # The call stands for many: those that are admitted use up what is left.
            meter, left = charged, self._left(subject, entitlement, at, charged)
            self._exhaust(subject, entitlement, at, meter)
            charged = _charged(subject, call, {meter: left}) if left else None
            self._refuse(subject, entitlement, call, {**costs, meter: costs[meter] - left})
        if charged is None or isinstance(charged, str):
            return
        for meter in costs.keys() & subject.exhausted.keys():  # there is more of it again: an upgrade, or a grant
            if self._left(subject, entitlement, at, meter) > 0:
                del subject.exhausted[meter]
                self._unwritten.incidents.append((at, subject.org, meter, None))
        self._note(subject, call, *charged)

    def _refuse(self, subject: _Subject, entitlement: Entitlement, call: Call, costs: dict[str, int]) -> None:
        decision = _decided(subject, call, costs).decision
        if isinstance(decision, Exhausted):
            self._refusals.note(call, entitlement, decision, costs)

    @staticmethod
    def _left(subject: _Subject, entitlement: Entitlement, at: float, meter: str) -> int:
        """Units, without overage."""
        period = next(each for each in entitlement.periods if at in each)
        limit = next(each for each in entitlement.meters if each.meter == meter)
        used = subject.books.usage.get((period.start, meter)) or MeterUsage(period.start, meter, 0)
        granted = sum(
            max(0, each.units - subject.books.grant_used.get(each.id, 0))
            for each in entitlement.grants
            if each.meter == meter and each.expires_at > at
        )
        return max(0, limit.allowance - (used.used - used.burnt - used.overage)) + granted

    def _exhaust(self, subject: _Subject, entitlement: Entitlement, at: float, meter: str) -> None:
        """An admin sees it, as `control/usage/limits.py` would have told."""
        if meter in subject.exhausted:
            return
        period = next(each for each in entitlement.periods if at in each)
        limit = next(each for each in entitlement.meters if each.meter == meter)
        subject.exhausted[meter] = period.end
        content = {
            "meter": meter,
            "policy": entitlement.policy.value,
            "limit": limit.allowance,
            "overage_max": limit.overage_max if entitlement.policy is OveragePolicy.METERED else None,
            "period_start": rfc3339(period.start),
            "period_end": rfc3339(period.end),
        }
        self._unwritten.incidents.append((at, subject.org, meter, content))

    def _note(self, subject: _Subject, call: Call, period: Period, charges: Sequence[Charge]) -> None:
        subject.calls += 1
        request_id = f"history-{subject.org}-{subject.calls}"
        occurred_at, starts = moment(call.at_ms / 1000), moment(period.start)
        for each in charges:
            row = (
                *(subject.org, occurred_at, 0, each.meter, shard_of(subject.org, self._shards), call.at_ms, "take"),
                *(request_id, starts, each.units, each.overage, dict(each.burnt) or None, call.key, call.user, None),
            )
            self._unwritten.rows.append(row)
            counter = self._unwritten.counters[subject.org, period.start, each.meter]
            counter[0] += each.units
            counter[1] += sum(units for _, units in each.burnt)
            counter[2] += each.overage
            for grant, units in each.burnt:
                self._unwritten.grants[subject.org, grant] += units

    async def write(self) -> None:
        """Rows, counters and thresholds, in one transaction."""
        new, self._unwritten = self._unwritten, _Unwritten()
        if not (new.rows or new.incidents or self._refusals.wait):
            return
        days = {row[1].date() for row in new.rows}
        async with self._db.transaction() as connection:
            for day in sorted(days):
                await sql.usage.create_day(connection, day=day)
            await connection.copy_records_to_table("usage_event", records=new.rows, columns=EVENT_COLUMNS)
            await self._move_counters(connection, new)
            await self._refusals.write(connection)
            for at, org, meter, content in sorted(new.incidents, key=lambda each: each[0]):
                key = f"{org}/{meter}"
                if content is None:
                    await incidents.close(connection, at, EXHAUSTED, key)
                else:
                    await incidents.open(connection, at, EXHAUSTED, key, org, content)
        self.events += len(new.rows)

    async def _move_counters(self, connection: Connection, new: _Unwritten) -> None:
        if not new.counters:
            return
        keys, values = list(new.counters), list(new.counters.values())
        moved = await sql.usage.add_usage(
            connection,
            region=0,
            orgs=[org for org, _, _ in keys],
            period_starts=[moment(start) for _, start, _ in keys],
            meters=[meter for _, _, meter in keys],
            used=[used for used, _, _ in values],
            burnt=[burnt for _, burnt, _ in values],
            overage=[overage for _, _, overage in values],
        )
        await sql.usage.add_grant_usage(
            connection,
            region=0,
            orgs=[org for org, _ in new.grants],
            grant_ids=[grant for _, grant in new.grants],
            used=list(new.grants.values()),
        )
        await self._thresholds.notice(connection, [Counter(row.org, row.period_start, row.meter) for row in moved])


def _charged(subject: _Subject, call: Call, costs: Mapping[str, int]) -> tuple[Period, Sequence[Charge]] | str | None:
    """Charges every meter, or none. A text is the meter of which too little is left; None: it is refused otherwise."""
    evaluation = _decided(subject, call, costs)
    match evaluation.decision:
        case Admitted(period=period):
            subject.books.charge(evaluation)
            return period, [step.paid for step in evaluation.steps if step.paid is not None]
        case Exhausted(balance=balance):
            return balance.meter
    return None


def _decided(subject: _Subject, call: Call, costs: Mapping[str, int]) -> Evaluation:
    # Calls of the history are drawn by the day, so no rate limit is asked.
    return evaluate(subject.terms, subject.books, Request(call.at_ms * 1000, costs, reported=True))
