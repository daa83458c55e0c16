"""From a balance of recurring revenue to the next one: what it grew and shrank by. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from enum import StrEnum

from control.analytics.amounts import monthly_minor, monthly_steps
from control.analytics.periods import Bucket, month_of, starts_of
from control.sql.movements import Balance, Change

NOTHING = Decimal(0)


class Kind(StrEnum):
    """How an organization's recurring revenue changed on a day, in the order in which it is shown."""

    NEW = "new"
    REACTIVATION = "reactivation"
    EXPANSION = "expansion"
    CONTRACTION = "contraction"
    CHURN = "churn"


@dataclass(frozen=True, slots=True)
class Bridge:
    """One period: start + movements = end, exactly, and as it is shown. Amounts `annual_…` are those of a year."""

    start: date
    annual_start: Decimal
    organizations_start: int
    annual: Mapping[Kind, Decimal] = field(default_factory=dict)
    changes: Mapping[Kind, int] = field(default_factory=dict)

    @property
    def annual_end(self) -> Decimal:
        return self.annual_start + sum((self.annual.get(kind, NOTHING) for kind in Kind), NOTHING)

    @property
    def organizations_end(self) -> int:
        gained = self.changes.get(Kind.NEW, 0) + self.changes.get(Kind.REACTIVATION, 0)
        return self.organizations_start + gained - self.changes.get(Kind.CHURN, 0)

    @property
    def start_minor(self) -> int:
        return monthly_minor(self.annual_start)

    @property
    def end_minor(self) -> int:
        return monthly_minor(self.annual_end)

    def steps_minor(self) -> dict[Kind, int]:
        """What is shown of each kind, for a month."""
        steps = monthly_steps(self.annual_start, [self.annual.get(kind, NOTHING) for kind in Kind])
        return dict(zip(Kind, steps, strict=True))


def bridges(
    balance: Balance | None, changes: Iterable[Change], since: date, until: date, bucket: Bucket
) -> list[Bridge]:
    """Those of all periods, one after the other. `balance`: before the first; `changes`: of one definition."""
    by_start: dict[date, list[Change]] = {}
    for change in changes:
        by_start.setdefault(change.start, []).append(change)
    annual, organizations = (NOTHING, 0) if balance is None else (balance.annual, balance.organizations)
    found = []
    for start in starts_of(since, until, bucket):
        of_period = by_start.get(start, [])
        bridge = Bridge(
            start,
            annual,
            organizations,
            {Kind(each.kind): each.annual for each in of_period},
            {Kind(each.kind): each.changes for each in of_period},
        )
        found.append(bridge)
        annual, organizations = bridge.annual_end, bridge.organizations_end
    return found


def months_of(days: Iterable[Bridge]) -> list[list[Bridge]]:
    """Bridges of days, by the month that they belong to."""
    months: dict[date, list[Bridge]] = {}
    for each in days:
        months.setdefault(month_of(each.start), []).append(each)
    return list(months.values())


def joined(days: Sequence[Bridge]) -> Bridge:
    """Several periods that follow one another as one."""
    annual: dict[Kind, Decimal] = {}
    changes: dict[Kind, int] = {}
    for each in days:
        for kind, amount in each.annual.items():
            annual[kind] = annual.get(kind, NOTHING) + amount
            changes[kind] = changes.get(kind, 0) + each.changes[kind]
    return Bridge(days[0].start, days[0].annual_start, days[0].organizations_start, annual, changes)
