"""The types of `directory.sql`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from control.sql.statements import Connection, Statements

sql = Statements("directory")


@sql
async def hold(connection: Connection, *, orgs: Sequence[str]) -> None: ...


@dataclass(frozen=True, slots=True)
class Facts:
    org: str
    name: str
    created_at: datetime
    deleted_at: datetime | None
    mirrored: bool
    payment_failed: bool
    subscription_status: str | None
    """Of the subscription that is not over; NULL: there is none."""
    current_period_end: int | None
    cancel_at: int | None


@sql
async def facts(connection: Connection, *, orgs: Sequence[str]) -> list[Facts]: ...


@dataclass(frozen=True, slots=True)
class Counter:
    org: str
    period_start: int
    meter: str
    used: int
    burnt: int
    overage: int


@sql
async def counters(
    connection: Connection, *, orgs: Sequence[str], period_starts: Sequence[datetime]
) -> list[Counter]: ...


@dataclass(frozen=True, slots=True)
class GrantCounter:
    org: str
    grant_id: str
    used: int


@sql
async def grant_counters(connection: Connection, *, orgs: Sequence[str]) -> list[GrantCounter]: ...


@dataclass(frozen=True, slots=True)
class Texts:
    org: str
    name: str
    emails: list[str]
    customers: list[str]


@sql
async def texts(connection: Connection, *, orgs: Sequence[str], emails_max: int) -> list[Texts]: ...


@dataclass(frozen=True, slots=True)
class SummaryRow:
    org: str
    name_key: str
    created_at: datetime
    is_deleted: bool
    plan: str | None
    status: str
    used_fraction: float
    payment_failed: bool
    mrr_minor: int
    renews_at: datetime
    stale_at: datetime


@sql
async def put_summary(connection: Connection, rows: Sequence[SummaryRow]) -> None: ...


@dataclass(frozen=True, slots=True)
class TermsRow:
    org: str
    terms: Sequence[str]
    trigrams: Sequence[str]


@sql
async def put_terms(connection: Connection, rows: Sequence[TermsRow]) -> None: ...


@sql
async def take_reviews(connection: Connection, *, limit_rows: int) -> list[str]: ...


@sql
async def orgs_of_beginnings(connection: Connection, *, begin: str, limit_rows: int) -> list[str]: ...


@sql
async def orgs_of_insides(
    connection: Connection, *, inside: str, short: str | None, patterns: Sequence[str], limit_rows: int
) -> list[str]: ...


@sql
async def matches_more(connection: Connection, *, begin: str, inside: str | None, beyond: int) -> bool: ...


@sql
async def orgs_of_keys(connection: Connection, *, first: str, behind: str, limit_rows: int) -> list[str]: ...


@sql
async def is_due(connection: Connection, *, at: datetime) -> bool: ...


@sql
async def defer(connection: Connection, *, orgs: Sequence[str], until: datetime) -> None: ...


@sql
async def stale(connection: Connection, *, at: datetime, limit_rows: int) -> list[str]: ...


@sql
async def walk(connection: Connection, *, after: str, limit_rows: int) -> list[str]: ...


@sql
async def is_listed(connection: Connection, *, org: str) -> bool: ...


@sql
async def plans(connection: Connection) -> list[str]: ...


@sql
async def moments(connection: Connection, *, org: str, before: datetime | None, limit_rows: int) -> list[datetime]: ...


@dataclass(frozen=True, slots=True)
class Counts:
    people: int
    keys: int
    sites: int
    open_incidents: int


@sql
async def counts(connection: Connection, *, org: str, bound: int) -> Counts: ...
