"""Any decision that was made explained, by the id of its request."""

from dataclasses import replace
from itertools import groupby

from common.clock import Clock
from control import sql
from control.db import Connection, Database
from control.decisions import books as counters
from control.decisions.books import Moment
from control.decisions.explained import Doubt, Explained, Source, explained_case
from control.decisions.published_key import published_key
from control.entitlements import published_terms, stored_state
from control.moments import moment
from control.sql.decisions import Event, Published, Refusal
from quota import keys
from quota.evaluation import Books, Request
from quota.kept_refusals import BatchMalformed, decision_of, words_of
from quota.ledger import Ledger
from quota.model import ConcurrencyLimited, Decision, Exhausted, Level, RateLimited, Unknown
from quota.periods import Period
from quota.remedies import Case
from quota.terms import OwnLimits, Terms

FOUND_MAX = 20
"""Requests of one id: a client may send its own again and again."""
EVENTS_MAX = 200


class Explainer:
    def __init__(self, db: Database, ledger: Ledger, kept_days: int, clock: Clock) -> None:
        self._db = db
        self._ledger = ledger
        self._clock = clock
        self.kept_days = kept_days
        """For how long refusals are."""

    async def find(self, request_id: str, org: str | None) -> list[Explained]:
        """What was decided of requests with this id, ours or the client's own. `org`: only of this organization.

        Raises StoreUnavailable; LedgerUnavailable where what is published now is all that there is."""
        async with self._db.snapshot() as connection:
            refusals = await sql.decisions.find_refusals(
                connection, request_id=request_id, org=org, limit_rows=FOUND_MAX
            )
            events = await sql.decisions.events_of(connection, request_id=request_id, org=org, limit_rows=EVENTS_MAX)
            explained = [await self._refused(connection, refusal) for refusal in refusals]
            for _, of_org in groupby(events, key=lambda event: event.org):
                explained.append(await self._charged(connection, tuple(of_org)))
        return explained

    # What was refused

    async def _refused(self, connection: Connection, refusal: Refusal) -> Explained:
        charges = {str(meter): int(units) for meter, units in refusal.charges}
        plain = Explained(
            Source.REFUSAL,
            refusal.at,
            refusal.org,
            admitted=refusal.shadow,
            charges=charges,
            refusal=refusal,
            key_id=refusal.key_id,
            user_id=refusal.user_id,
        )
        try:
            said, own = decision_of(refusal.said), OwnLimits.parse(refusal.limits)
        except (BatchMalformed, ValueError):
            return replace(plain, doubts=frozenset({Doubt.COUNTERS_DIFFER}))
        if said is None or refusal.org is None:
            return plain
        at = Moment(getattr(said, "now_us", int(refusal.at.timestamp() * 1_000_000)))
        doubts = set[Doubt]()
        period = await self._period(connection, refusal.org, at, said)
        terms, published = await self._terms(connection, refusal.org, refusal.version, at, period, doubts)
        if isinstance(said, Unknown):
            terms = None if not said.lapsed or terms is None else replace(terms, periods=())
        elif terms is None:
            return replace(plain, doubts=frozenset({Doubt.NO_TERMS}))
        request = Request(at.us, charges, refusal.version, own)
        behind = [Books()]
        if period is not None:
            behind = await counters.candidates(connection, refusal.org, period, at, own)
        found = [_with_what_was_said(books, said, request) for books in behind]
        cases = [Case(terms, books, request) for books in found]
        case = next((each for each in cases if words_of(each.evaluate().decision) == refusal.said), None)
        if case is None:
            doubts.add(Doubt.COUNTERS_DIFFER)
            shard = self._db.region.stored(keys.shard_of(refusal.org, self._ledger.shards))
            if not await sql.decisions.is_written(connection, shard=shard, ms=at.us // 1000 + 1):
                doubts.add(Doubt.NOT_WRITTEN)
            case = cases[-1]
        return replace(explained_case(plain, case, published, doubts), period=period, admitted=refusal.shadow)

    async def _period(self, connection: Connection, org: str, at: Moment, said: Decision | None) -> Period | None:
        """The organization's period of that moment."""
        if isinstance(said, RateLimited | ConcurrencyLimited) or (
            isinstance(said, Exhausted) and said.level is Level.ORGANIZATION
        ):
            return said.period
        state = await stored_state.load_state(connection, org, at.us / 1_000_000)  # it may begin in that second
        return None if state is None or state.terms is None else state.terms.schedule.period_at(at.second)

    async def _terms(
        self,
        connection: Connection,
        org: str,
        version: int | None,
        at: Moment,
        period: Period | None,
        doubts: set[Doubt],
    ) -> tuple[Terms | None, Published | None]:
        """What gateways decided by at that moment. Adds to `doubts`."""
        periods = () if period is None else (period,)
        published = await sql.decisions.published_at(connection, org=org, version=version, at=moment(at.us / 1_000_000))
        if published is not None:
            return published_terms.read(version or published.version, published.terms, periods), published
        snapshot = await self._ledger.peek(org)
        if snapshot is None:
            return None, None
        doubts.add(Doubt.TERMS_OF_NOW)
        terms = Terms.of_snapshot(snapshot)
        return replace(terms, version=version or terms.version, periods=periods or terms.periods), None

    # What was charged

    async def _charged(self, connection: Connection, events: tuple[Event, ...]) -> Explained:
        take = [event for event in events if event.kind == "take"]
        if not take:  # its day is in a file, and only a late correction is here
            first = events[0]
            return Explained(Source.USAGE_EVENT, first.occurred_at, first.org, True, {}, events=events)
        first = take[0]
        charges = {event.meter: event.units for event in take}
        plain = Explained(
            Source.USAGE_EVENT,
            first.occurred_at,
            first.org,
            admitted=True,
            charges=charges,
            events=events,
            key_id=first.key_id,
            user_id=first.user_id,
        )
        at, doubts = Moment(first.stream_ms * 1000), set[Doubt]()
        start = int(first.period_start.timestamp())
        period = await self._period(connection, first.org, at, None)
        if period is None or period.start != start:
            period = Period(start, max(at.second, start) + 1)
        terms, published = await self._terms(connection, first.org, None, at, period, doubts)
        if terms is None:
            return replace(plain, period=period, doubts=frozenset({Doubt.NO_TERMS}))
        own = await self._own_now(connection, first)
        if own:
            doubts.add(Doubt.LIMITS_OF_NOW)
        books = await counters.before_event(connection, first, period, own)
        case = Case(terms, books, Request(at.us, charges, None, own))
        paid = {step.paid.meter: step.paid for step in case.evaluate().steps if step.paid is not None}
        for event in take:
            told = (event.units, event.overage, {grant: int(n) for grant, n in (event.burnt or {}).items()})
            charge = paid.get(event.meter)
            if charge is None or told != (charge.units, charge.overage, dict(charge.burnt)):
                doubts.add(Doubt.COUNTERS_DIFFER)
        return replace(explained_case(plain, case, published, doubts), period=period)

    async def _own_now(self, connection: Connection, event: Event) -> tuple[OwnLimits, ...]:
        if event.key_id is None or event.taken_at is None:
            return ()
        key = await published_key(connection, self._ledger, event.org, event.key_id)
        return () if key is None else (OwnLimits.of(key.record),)


def _with_what_was_said(books: Books, said: Decision, request: Request) -> Books:
    """What no event tells is known of the limit that refused: the ledger has said it."""
    if isinstance(said, ConcurrencyLimited):
        return replace(books, under_way=said.concurrent_max)
    if isinstance(said, RateLimited):
        arrival_us = said.now_us + said.retry_after_us - said.interval_us + said.burst_us
        if said.level is Level.ORGANIZATION:
            return replace(books, arrival_us=arrival_us)
        return replace(books, own_arrivals_us={limits.node: arrival_us for limits in request.own})
    return books
