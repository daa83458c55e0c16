"""What a region and the home say to each other about one organization. No I/O.

docs/decisions/0059 has the words: an account is one limit that the regions share, and a region holds a part of it, up
to a ceiling that only grows within a period, unless the region itself lowers it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from quota.periods import Period


class Source(StrEnum):
    """What pays for a unit."""

    ALLOWANCE = "m"
    OVERAGE = "o"
    GRANT = "g"


class Account(NamedTuple):
    source: Source
    name: str
    """The meter, or the id of the grant."""

    def __str__(self) -> str:
        return f"{self.source}:{self.name}"


ALWAYS = 0
"""In place of a period's start: a grant belongs to no period."""


class Slot(NamedTuple):
    """An account in one period: what its ceilings add up to is limited."""

    account: Account
    period: int
    """Its start, seconds since 1970; ALWAYS for a grant."""


def slot(account: Account, period: int) -> Slot:
    return Slot(account, ALWAYS if account.source is Source.GRANT else period)


@dataclass(frozen=True, slots=True)
class Report:
    """What a region says of one organization, read from its ledger in one step."""

    asked_at: float
    """The ledger's own time at that step, seconds since 1970."""
    epoch: int
    """Grows each time that the region's ledger has lost its memory and was put right (quota/generation.py)."""
    returns: int
    """How often the region has lowered ceilings."""
    number: int
    """Of the lease that the ledger enforces; 0: it never had one."""
    since: int
    """Of periods that began before this second, the ledger may have dropped what was drawn."""
    held: Mapping[Account, int] = field(default_factory=dict)
    """The ceilings that the ledger enforces: units of each account that this region may draw in all."""
    drawn: Mapping[Slot, int] = field(default_factory=dict)
    """Units that were drawn, read after `held`; what is not here is zero."""
    wanted: Mapping[Account, int] = field(default_factory=dict)
    """Ceilings that it would like. An account that is not here needs nothing."""
    least: Mapping[Account, int] = field(default_factory=dict)
    """Units that are of use at all: the cost of one request that was refused for want of units."""
    first: Mapping[Account, int] = field(default_factory=dict)
    """Units that are wanted now, before overage is sold instead; any part of them is of use."""


@dataclass(frozen=True, slots=True)
class Late:
    """The answer to a report that the home has heard a later one of."""

    epoch: int
    returns: int
    """How often the region had lowered, by that one. A ledger of the same epoch that has lowered less has lost what it
    held: it goes on above this number."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The home's answer: what the region's ledger is to enforce, if it is newer than what that enforces."""

    epoch: int
    """As the report said. A ledger of another epoch does not install it."""
    returns: int
    """How many returns of the region the home knew. A lease that does not know of the last one is void."""
    number: int
    """Grows with each lease of the organization in this region."""
    asked_at: float
    """As the report said."""
    ends_at: float
    """By the region's own clock: what it was when the region asked, and the length of the lease."""
    periods: tuple[Period, ...]
    """Those in which the ceilings are reserved, the region's current one first. It charges in no other."""
    ceilings: Mapping[Account, int] = field(default_factory=dict)
    spare: Mapping[Account, int] = field(default_factory=dict)
    """Units that the region keeps beyond what is drawn, while no other waits for them: more while much is free."""
    recalled: frozenset[Account] = frozenset()
    """Accounts whose ceiling is below what is reserved: the region returns the rest, so that the home can count on
    it."""
    pressed: frozenset[Account] = frozenset()
    """Accounts that another region waits for."""
    free: Mapping[Account, int] = field(default_factory=dict)
    """Units that no region holds, after this lease."""
    drawn_elsewhere: Mapping[Account, int] = field(default_factory=dict)
    """Units that the other regions have drawn in the current period, by what they said last."""
    short: Mapping[Account, int] = field(default_factory=dict)
    """Units that the region wanted and did not get."""

    def replaces(self, epoch: int, returns: int, number: int) -> bool:
        """Whether a ledger in that epoch, which has lowered so often and enforces the lease of that number, installs
        it."""
        return (self.epoch, self.returns) == (epoch, returns) and self.number > number
