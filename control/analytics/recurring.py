"""Recurring revenue as it is read: balances, movements, retention, cohorts, trials."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from control import sql
from control.analytics.bridge import NOTHING, Bridge, bridges, joined, months_of
from control.analytics.periods import DAY, Bucket, midnight, month_of, starts_of
from control.analytics.retention import DailyChurn, Retention, daily_churn, retention_of
from control.billing.history.annual_value import Definition
from control.db import Reads
from control.sql.movements import AtMoment, TrialMonth


async def at_end_of(db: Reads, day: date) -> list[AtMoment]:
    """What recurring revenue was made of when the day was over. Raises StoreUnavailable."""
    async with db.connection() as connection:
        return await sql.movements.at_moment(connection, before=midnight(day + DAY))


async def main_currency(db: Reads) -> str | None:
    """What is meant where nobody names a currency: the one in which most changed lately. Raises StoreUnavailable."""
    async with db.connection() as connection:
        return await sql.movements.main_currency(connection)


async def currencies(db: Reads) -> list[str]:
    """Raises StoreUnavailable."""
    async with db.connection() as connection:
        return await sql.movements.currencies(connection)


async def read_bridges(
    db: Reads, definition: Definition | None, currency: str, since: date, until: date, bucket: Bucket
) -> dict[Definition, list[Bridge]]:
    """Of one definition, or of all. Raises StoreUnavailable."""
    word = None if definition is None else definition.value
    async with db.snapshot() as connection:
        balances = await sql.movements.balances(connection, definition=word, currency=currency, before=since)
        changes = await sql.movements.movements(
            connection, definition=word, currency=currency, bucket=bucket, since=since, until=until
        )
    balance_of = {each.definition: each for each in balances}
    return {
        each: bridges(
            balance_of.get(each.value), [row for row in changes if row.definition == each.value], since, until, bucket
        )
        for each in Definition
        if definition in (None, each)
    }


@dataclass(frozen=True, slots=True)
class RetentionMonth:
    definition: Definition
    bridge: Bridge
    rates: Retention
    daily: DailyChurn | None
    """Of ChartMogul's definition only, which has two formulas."""


async def retention(db: Reads, currency: str, since: date, until: date) -> list[RetentionMonth]:
    """By month and definition. Raises StoreUnavailable."""
    found = await read_bridges(db, None, currency, since, until, "day")
    months = [
        RetentionMonth(
            definition,
            month := joined(days),
            retention_of(definition, month),
            daily_churn(days) if definition is Definition.CHARTMOGUL else None,
        )
        for definition, of_definition in found.items()
        for days in months_of(of_definition)
    ]
    return sorted(months, key=lambda each: (each.bridge.start, list(Definition).index(each.definition)))


@dataclass(frozen=True, slots=True)
class Cohort:
    """Organizations that paid first in the same month, at the end of that month and of each later one."""

    began: date
    organizations: Sequence[int]
    annual: Sequence[Decimal]


async def cohorts(db: Reads, definition: Definition, currency: str, since: date, today: date) -> list[Cohort]:
    """Raises StoreUnavailable."""
    async with db.connection() as connection:
        changes = await sql.movements.cohorts(connection, definition=definition.value, currency=currency, since=since)
    by_cohort: dict[date, dict[date, tuple[Decimal, int]]] = {}
    for each in changes:
        by_cohort.setdefault(each.began, {})[each.start] = (each.annual, each.organizations)
    found = []
    for began, months in by_cohort.items():
        annual, organizations = NOTHING, 0
        balances = []
        for start in starts_of(began, max(month_of(today, 1), month_of(max(months), 1)), "month"):
            change, gained = months.get(start, (NOTHING, 0))
            annual, organizations = annual + change, organizations + gained
            balances.append((annual, organizations))
        found.append(Cohort(began, [each for _, each in balances], [each for each, _ in balances]))
    return found


async def trials(db: Reads, currency: str, since: date, until: date) -> list[TrialMonth]:
    """Raises StoreUnavailable."""
    async with db.connection() as connection:
        rows = await sql.movements.trials(connection, currency=currency, since=midnight(since), until=midnight(until))
    by_start = {row.start: row for row in rows}
    return [by_start.get(each, TrialMonth(each, 0, 0, 0)) for each in starts_of(since, until, "month")]
