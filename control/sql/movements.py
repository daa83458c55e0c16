"""The types of `movements.sql`."""

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal

from control.sql.statements import Connection, Statements

sql = Statements("movements")


@sql
async def currencies(connection: Connection) -> list[str]: ...


@sql
async def main_currency(connection: Connection) -> str | None: ...


@dataclass(frozen=True, slots=True)
class AtMoment:
    currency: str
    annual_stripe: Decimal
    annual_baremetrics: Decimal
    annual_chartmogul: Decimal
    organizations_stripe: int
    organizations_baremetrics: int
    organizations_chartmogul: int
    subscriptions_stripe: int
    subscriptions_baremetrics: int
    subscriptions_chartmogul: int
    discounted: int
    unpaid: int
    trialing: int
    unpriced: int


@sql
async def at_moment(connection: Connection, *, before: datetime) -> list[AtMoment]: ...


@dataclass(frozen=True, slots=True)
class Change:
    definition: str
    start: date
    kind: str
    annual: Decimal
    changes: int


@sql
async def movements(
    connection: Connection, *, definition: str | None, currency: str, bucket: str, since: date, until: date
) -> list[Change]: ...


@dataclass(frozen=True, slots=True)
class Balance:
    definition: str
    annual: Decimal
    organizations: int


@sql
async def balances(connection: Connection, *, definition: str | None, currency: str, before: date) -> list[Balance]: ...


@dataclass(frozen=True, slots=True)
class WorthSubscription:
    annual: Decimal
    org: str
    name: str
    subscription: str
    customer: str
    plan: str | None
    status: str
    valid_from: datetime
    priced: bool


@sql
async def subscriptions_at(
    connection: Connection,
    *,
    definition: str,
    currency: str,
    before: datetime,
    after_org: str,
    after_subscription: str,
    limit_rows: int,
) -> list[WorthSubscription]: ...


@dataclass(frozen=True, slots=True)
class MovedSubscription:
    day: date
    kind: str
    annual: Decimal
    org: str
    name: str
    subscription: str
    customer: str
    plan: str | None
    status: str


@sql
async def subscriptions_moved(
    connection: Connection,
    *,
    definition: str,
    currency: str,
    kind: str | None,
    since: date,
    until: date,
    after_day: date,
    after_org: str,
    after_subscription: str,
    limit_rows: int,
) -> list[MovedSubscription]: ...


@dataclass(frozen=True, slots=True)
class CohortChange:
    began: date
    start: date
    annual: Decimal
    organizations: int


@sql
async def cohorts(connection: Connection, *, definition: str, currency: str, since: date) -> list[CohortChange]: ...


@dataclass(frozen=True, slots=True)
class TrialMonth:
    start: date
    began: int
    running: int
    converted: int


@sql
async def trials(connection: Connection, *, currency: str, since: datetime, until: datetime) -> list[TrialMonth]: ...
