"""One question about one organization: what is recorded of it is read, decided again twice, and compared."""

import asyncio
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from control import sql
from control.analytics.what_if import key_limits
from control.analytics.what_if.invoices import Catalogue, Remade, remake
from control.analytics.what_if.recorded import entries_of
from control.analytics.what_if.replay import Given, Replayed, Span, replay
from control.analytics.what_if.sold_plans import PlanChange, SoldPlan
from control.db import Connection
from control.entitlements import stored_state
from control.entitlements.derive import State, derive, renewal
from control.moments import moment
from control.sql.what_if import Anchor, KnownGrant
from quota.model import Grant
from quota.periods import PERIOD_SECONDS_MAX
from quota.terms import Terms

ROWS_MAX = 100_000  # of one organization that is asked about alone: some seconds


class TooMuch(Exception):
    """More is recorded of the organization than is looked at for one answer."""


@dataclass(frozen=True, slots=True)
class Compared:
    """What is recorded, and what would have been."""

    org: str
    since: datetime
    """Not before the period's start: a period is decided from its beginning."""
    rows: int
    recorded: Replayed
    """Decided again under the terms that were in force."""
    otherwise: Replayed
    invoices: Sequence[tuple[Remade, Remade]]
    """Each as it is recorded and made again; and made again otherwise."""


async def catalogue_of(connection: Connection) -> Catalogue:
    """All plans and prices that there ever were."""
    plans = [SoldPlan.of(row) for row in await sql.what_if.plans(connection)]
    prices = {row.id: row for row in await sql.what_if.prices(connection)}
    return Catalogue({(plan.code, plan.version): plan for plan in plans}, prices)


async def ask(
    connection: Connection,
    org: str,
    since: datetime,
    until: datetime,
    change: PlanChange,
    catalogue: Catalogue,
    rows_max: int = ROWS_MAX,
    request_seconds: float | None = None,
) -> Compared:
    """`connection`: in a snapshot, so that all of it is of one moment. `request_seconds`: how long each request is
    supposed to be under way; None: not known. Raises TooMuch where more rows are recorded."""
    grants = await sql.what_if.grants(connection, org=org)
    since = await _period_start(connection, org, since)
    states = await _states(connection, org, since, until, grants)
    rows = await sql.what_if.recorded(connection, org=org, since=since, until=until, limit_rows=rows_max + 1)
    refused = await sql.what_if.refused(connection, org=org, since=since, until=until, limit_rows=rows_max + 1)
    if len(rows) + len(refused) > rows_max:
        raise TooMuch(org)
    entries = entries_of(rows, refused)
    limits = await key_limits.read(connection, org, {each.key for each in entries if each.key is not None})
    given = Given(limits, await key_limits.windows_before(connection, org, limits, since))
    # In a thread, so that others are served meanwhile.
    recorded = await asyncio.to_thread(replay, [_span(each) for each in states], entries, given, as_recorded=True)
    if change.is_none and request_seconds is None:
        otherwise = recorded
    else:
        changed = [replace(each, state=_changed(each.state, change, catalogue)) for each in states]
        given = Given(limits.changed(change.keys), given.windows, request_seconds, frozenset(recorded.unpaced))
        otherwise = await asyncio.to_thread(replay, [_span(each) for each in changed], recorded.order, given)
    invoices = await _invoices(connection, org, since, until, (recorded, otherwise), change, catalogue)
    return Compared(org, since, len(rows) + len(refused), recorded, otherwise, invoices)


@dataclass(frozen=True, slots=True)
class _InForce:
    """What was in force, from when until when."""

    state: State
    starts: float
    ends: float


async def _period_start(connection: Connection, org: str, since: datetime) -> datetime:
    """Of the period in which the time begins."""
    at = since.timestamp()
    state = await stored_state.load_state(connection, org, at)
    period = None if state is None or state.terms is None else state.terms.schedule.period_at(at)
    return since if period is None else max(moment(period.start), moment(at - PERIOD_SECONDS_MAX))


async def _states(
    connection: Connection, org: str, since: datetime, until: datetime, grants: Sequence[KnownGrant]
) -> list[_InForce]:
    """One after the other: each until something changes, or its period ends."""
    points = [
        each.timestamp() for each in await sql.what_if.change_points(connection, org=org, since=since, until=until)
    ]
    spans, at, end = list[_InForce](), since.timestamp(), until.timestamp()
    state: State | None = None
    read_until = at
    while at < end:
        if state is None or at >= read_until:
            state = await stored_state.load_state(connection, org, at)
            if state is None:
                return spans
            state = replace(state, grants=_granted(grants, at))
            read_until = next((point for point in points if point > at), end)
        over = renewal(state, derive(state, at), at)
        ends = min(read_until, end, *([] if over is None or over <= at else [over]))
        spans.append(_InForce(state, at, ends))
        at = ends
    return spans


def _granted(grants: Sequence[KnownGrant], at: float) -> tuple[Grant, ...]:
    """Those that were there at that moment."""
    now = moment(at)
    return tuple(
        Grant(str(each.id), each.meter, each.units, int(each.expires_at.timestamp()))
        for each in grants
        if each.created_at <= now and (each.revoked_at is None or each.revoked_at > now) and each.expires_at > now
    )


def _changed(state: State, change: PlanChange, catalogue: Catalogue) -> State:
    if state.terms is None:
        return state
    was = catalogue.plans[state.terms.plan.code, state.terms.plan.version]
    return replace(state, terms=change.applied(state.terms, was))


def _span(each: _InForce) -> Span:
    return Span(each.starts, each.ends, Terms.of(derive(each.state, each.starts)))


async def _invoices(
    connection: Connection,
    org: str,
    since: datetime,
    until: datetime,
    decided: tuple[Replayed, Replayed],
    change: PlanChange,
    catalogue: Catalogue,
) -> list[tuple[Remade, Remade]]:
    invoices = await sql.what_if.invoices(connection, org=org, since=since, until=until)
    states = await sql.what_if.states(connection, org=org)
    anchors = _Anchors(await sql.what_if.anchors(connection, org=org))
    before = remake(invoices, states, anchors.of, decided[0].sold, catalogue, PlanChange().sold)
    after = remake(invoices, states, anchors.of, decided[1].sold, catalogue, change.sold)
    return list(zip(before, after, strict=True))


class _Anchors:
    """From where periods were counted."""

    def __init__(self, rows: Sequence[Anchor]) -> None:
        self._rows = rows
        self._starts = [row.effective_from.timestamp() for row in rows]

    def of(self, subscription: str, at: float) -> int | None:
        """Of the subscription's terms just before that moment."""
        for row in reversed(self._rows[: bisect_right(self._starts, at)]):
            if row.subscription == subscription and row.effective_from.timestamp() < at:
                return int(row.period_anchor.timestamp())
        return None
