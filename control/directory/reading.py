"""Summaries as they are now, read from what they follow from."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import structlog

from control import sql
from control.db import Connection
from control.directory.summary import Summary, summarize
from control.entitlements.restore import Counters
from control.entitlements.stored_state import load_states
from control.moments import moment
from quota.model import MeterUsage

log = structlog.get_logger()

AT_ONCE: Final = 50  # then other requests have their turn


async def read_summaries(connection: Connection, orgs: Sequence[str], now: float) -> dict[str, Summary]:
    """Without those that nobody knows; usage as Postgres has it, which is half a second behind Redis."""
    found: dict[str, Summary] = {}
    for start in range(0, len(orgs), AT_ONCE):
        found |= await _read(connection, orgs[start : start + AT_ONCE], now)
        await asyncio.sleep(0)
    return found


async def _read(connection: Connection, orgs: Sequence[str], now: float) -> dict[str, Summary]:
    states = await load_states(connection, orgs, now)
    facts = await sql.directory.facts(connection, orgs=list(states))
    periods = {
        org: period.start
        for org, state in states.items()
        if state.terms is not None and (period := state.terms.schedule.period_at(now)) is not None
    }
    usage: defaultdict[str, list[MeterUsage]] = defaultdict(list)
    for row in await sql.directory.counters(
        connection, orgs=list(periods), period_starts=[moment(start) for start in periods.values()]
    ):
        usage[row.org].append(MeterUsage(row.period_start, row.meter, row.used, row.burnt, row.overage))
    burnt: defaultdict[str, dict[str, int]] = defaultdict(dict)
    granted = [org for org, state in states.items() if state.grants]
    for each in await sql.directory.grant_counters(connection, orgs=granted) if granted else ():
        burnt[each.org][each.grant_id] = each.used
    recurring: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for revenue in await sql.analytics.mrr_of(connection, orgs=list(states)):
        recurring[revenue.org][revenue.currency] = revenue.stripe_minor
    found = {}
    for fact in facts:
        try:
            counters = Counters(tuple(usage[fact.org]), burnt[fact.org])
            found[fact.org] = summarize(fact, states[fact.org], counters, recurring[fact.org], now)
        except ValueError as e:
            # One that cannot be read must not hide the others.
            log.error("an organization cannot be summarized", org=fact.org, reason=str(e))
    return found
