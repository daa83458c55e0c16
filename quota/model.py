"""The words of the ledger as values: what is published, and the outcomes of a charge. No I/O."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from itertools import pairwise
from typing import NamedTuple

from quota.keys import GRANT_PATTERN, METER_PATTERN, ORG_PATTERN, is_grant, is_meter, is_org
from quota.periods import Period

CONCURRENT_MAX = 10**6  # requests of one organization
UNITS_MAX = 10**15  # far below 2^53: Lua counts in doubles, and sums of a few of these stay exact
COST_MAX = 10**12  # one charge


class Status(IntEnum):
    """The status of an organization, with its number in Redis. Only those that are `served` are admitted."""

    NONE = 0  # the organization has never had a plan, or does not exist
    ACTIVE = 1
    TRIALING = 2
    GRACE = 3  # a payment is late; service continues for now
    SUSPENDED = 4
    ENDED = 5

    @property
    def served(self) -> bool:
        return Status.ACTIVE <= self <= Status.GRACE

    @property
    def word(self) -> str:
        return self.name.lower()


class OveragePolicy(StrEnum):
    HARD_STOP = "HARD_STOP"
    METERED = "METERED"


@dataclass(frozen=True, slots=True)
class MeterLimit:
    meter: str
    allowance: int
    """Units included in a period."""
    overage_max: int | None = None
    """Units beyond allowance and grants that METERED may sell in a period; None: no cap. HARD_STOP sells none."""

    def __post_init__(self) -> None:
        if not is_meter(self.meter):
            raise ValueError(f"a meter's name must match {METER_PATTERN}: {self.meter!r}")
        _check_units("allowance", self.allowance)
        if self.overage_max is not None:
            _check_units("overage_max", self.overage_max)


@dataclass(frozen=True, slots=True)
class Grant:
    """Extra units of one meter, burnt after the allowance, the earliest expiry first."""

    id: str
    meter: str
    units: int
    expires_at: int
    """Seconds since the epoch; what is left then is void."""

    def __post_init__(self) -> None:
        if not is_grant(self.id):
            raise ValueError(f"a grant's id must match {GRANT_PATTERN}: {self.id!r}")
        if not is_meter(self.meter):
            raise ValueError(f"a meter's name must match {METER_PATTERN}: {self.meter!r}")
        _check_units("units", self.units)


@dataclass(frozen=True, slots=True)
class RateLimit:
    """`requests` every `seconds` on average, at most `burst` at once (GCRA)."""

    requests: int
    seconds: float = 1.0
    burst: int = 1

    def __post_init__(self) -> None:
        if self.requests < 1 or self.burst < 1 or not 0 < self.seconds <= 86_400:
            raise ValueError("a rate limit needs requests >= 1, burst >= 1 and 0 < seconds <= 86400")

    @property
    def interval_us(self) -> float:
        """Microseconds between two requests at the sustained rate, in quarters.

        A double resolves the microseconds since 1970 to a quarter (until 2041). So sums of such intervals are exact,
        and a burst admits exactly its size."""
        return max(1, round(self.seconds * 4_000_000 / self.requests)) / 4


@dataclass(frozen=True, slots=True)
class Entitlement:
    """What an organization may use now, as it is published to Redis."""

    org: str
    version: int
    """Grows with every change; Redis installs only a newer one."""
    status: Status
    plan: str | None = None
    policy: OveragePolicy = OveragePolicy.HARD_STOP
    meters: tuple[MeterLimit, ...] = ()
    grants: tuple[Grant, ...] = ()
    periods: tuple[Period, ...] = ()
    """The current period and the next, contiguous or not, in order."""
    rate: RateLimit | None = None
    concurrent_max: int | None = None
    """The limit of concurrent requests; None: any number."""
    shadow: bool = False
    """What would be refused is recorded, and the request goes on."""

    def __post_init__(self) -> None:
        if not is_org(self.org):
            raise ValueError(f"an organization's id must match {ORG_PATTERN}: {self.org!r}")
        if not 0 <= self.version < 2**53:
            raise ValueError(f"a version must be a whole number from 0 to 2^53: {self.version}")
        if self.concurrent_max is not None and not 1 <= self.concurrent_max <= CONCURRENT_MAX:
            raise ValueError(f"concurrent_max must be a whole number from 1 to {CONCURRENT_MAX}: {self.concurrent_max}")
        if len({m.meter for m in self.meters}) != len(self.meters):
            raise ValueError("a meter is listed twice")
        if len({g.id for g in self.grants}) != len(self.grants):
            raise ValueError("a grant is listed twice")
        if self.status.served and not 1 <= len(self.periods) <= 2:
            raise ValueError("a served entitlement has the current period and at most the next")
        if list(self.periods) != sorted(self.periods) or any(a.end > b.start for a, b in pairwise(self.periods)):
            raise ValueError("periods must be in order and must not overlap")


class Elsewhere(NamedTuple):
    """What an organization has of a meter beside what one region holds, as far as that region's home knew it."""

    limit: int = 0
    """Units by which the organization's limit is higher."""
    remaining: int = 0
    """What of these no other region had charged."""
    overage_max: int = 0
    """Units by which its cap of overage is higher."""
    free: int = 0
    """Units that no region held, of any kind: the home could have given them."""
    unsold: int = 0
    """Those of them that are no overage: they are used up before any overage is sold."""


class Level(IntEnum):
    """Whose limit refused, with its number in Redis."""

    ORGANIZATION = 0
    KEY = 1
    USER = 2
    TEAM = 3


@dataclass(slots=True)
class MeterBalance:
    """The balance of one meter in the current period, after the decision that contains it."""

    meter: str
    limit: int
    """Units: the allowance, what grants paid for in this period, and what is left of grants that have not expired."""
    remaining: int
    """Units that are left of it, without overage."""
    overage: int
    """Units that were sold beyond it in this period."""


@dataclass(slots=True)
class Admitted:
    period: Period
    now_us: int
    balances: list[MeterBalance]
    receipt: bytes
    """What was charged, and what paid for it, for `settle`. A repetition has that of the charged request."""
    replayed: bool = False
    """Not charged: another request with this idempotency key was."""
    permit: bool = False
    """It holds a concurrency permit, until that is released or not renewed."""


@dataclass(slots=True)
class Exhausted:
    period: Period
    now_us: int
    balance: MeterBalance
    """Of the violated meter; the request's other meters are not charged either."""
    over_limit: bool
    """The cost is above the meter's whole limit: waiting for the next period does not help."""
    level: Level = Level.ORGANIZATION
    """Of a limit below the organization's, `period` is its window, and `balance` what is left in that."""
    more_elsewhere: bool = False
    """The region is short of units, and its home may have some: it is asked before the request is refused."""


@dataclass(slots=True)
class RateLimited:
    period: Period
    now_us: int
    retry_after_us: int
    interval_us: float
    """Between two requests at the sustained rate."""
    burst_us: float
    """That times the burst."""
    level: Level = Level.ORGANIZATION


@dataclass(slots=True)
class ConcurrencyLimited:
    period: Period
    now_us: int
    concurrent_max: int
    """The limit, which is reached."""


@dataclass(slots=True)
class NotEntitled:
    status: Status


@dataclass(slots=True)
class NotInPlan:
    meter: str


@dataclass(slots=True)
class Unknown:
    """Redis holds no entitlement, or none for this moment: the control plane must hydrate the organization."""

    lapsed: bool
    """An entitlement is published, but its periods are over; or, in a region, its lease is."""


@dataclass(slots=True)
class Stale:
    """Another version is published than the one that the take said: what is remembered must be read again."""

    version: int
    """The one that is published."""


Decision = Admitted | Exhausted | RateLimited | ConcurrencyLimited | NotEntitled | NotInPlan | Unknown | Stale


@dataclass(frozen=True, slots=True)
class Report:
    """Usage that a client reports to the control plane, instead of a request that the gateway saw."""

    request_id: str
    meter: str
    units: int
    idempotency: str
    """Any short name: of all reports of a day that share it, one is charged."""


@dataclass(frozen=True, slots=True)
class Recalled:
    """What was charged under idempotency keys, and the status of their organization at that moment."""

    now_us: int
    status: Status | None
    """None: Redis does not know the organization."""
    period: Period | None
    """The published period that holds `now_us`."""
    receipts: list[bytes | None]
    """For each key the receipt of its charge; None: there was none, or it is more than a day old."""
    shadow: bool = False
    """The organization is in shadow mode."""

    @property
    def unpublished(self) -> bool:
        """The control plane must load the organization before anything can be charged."""
        return self.status is None or (self.status.served and self.period is None)


@dataclass(frozen=True, slots=True)
class MeterUsage:
    """One meter's counters in one period. `used = from allowance + burnt + overage`."""

    period_start: int
    meter: str
    used: int
    burnt: int = 0
    """The part of `used` that grants paid for."""
    overage: int = 0
    """The part of `used` that was sold beyond allowance and grants."""


@dataclass(frozen=True, slots=True)
class NodeUsage:
    """Units that a principal with a quota of its own used in one window."""

    node: str
    """As a path has it: `k:<id of the key>`."""
    meter: str
    window_seconds: int
    """0: the organization's period."""
    start: int
    """Of the window, seconds since 1970."""
    used: int


@dataclass(frozen=True, slots=True)
class OrganizationSnapshot:
    """Everything that Redis holds of one organization, read by one script at `now_us`."""

    now_us: int
    version: int
    status: Status
    periods: tuple[Period, ...]
    rate_interval_us: float
    meters: tuple[MeterLimit, ...]
    policy: OveragePolicy
    usage: tuple[MeterUsage, ...] = ()
    grants: tuple[Grant, ...] = ()
    grant_used: dict[str, int] = field(default_factory=dict)
    concurrent_max: int | None = None
    refunds: dict[int, int] = field(default_factory=dict)
    """Start of a period -> its settlements that were counted as refunds."""
    nodes: tuple[NodeUsage, ...] = ()
    rate_burst_us: float = 0.0
    arrival_us: float = 0.0
    """When the rate limit's bucket is full again."""
    own_arrivals_us: dict[str, float] = field(default_factory=dict)
    """The same of principals with a rate limit of their own, by node."""
    shadow: bool = False
    """What would be refused is recorded, and the request goes on."""
    elsewhere: dict[str, Elsewhere] = field(default_factory=dict)
    """In a region, where meters and grants have what it holds: what the organization has beside that, by meter."""

    @property
    def period(self) -> Period | None:
        """The period that holds `now_us`."""
        return next((p for p in self.periods if self.now_us / 1_000_000 in p), None)

    def balances(self) -> Iterator[MeterBalance]:
        """Each meter in the current period, by the arithmetic of `take`; nothing where no period is current."""
        period = self.period
        if period is None:
            return
        counters = {u.meter: u for u in self.usage if u.period_start == period.start}
        for limit in self.meters:
            c = counters.get(limit.meter, MeterUsage(period.start, limit.meter, 0))
            granted = sum(
                max(0, g.units - self.grant_used.get(g.id, 0))
                for g in self.grants
                if g.meter == limit.meter and g.expires_at * 1_000_000 > self.now_us
            )
            left = max(0, limit.allowance - (c.used - c.burnt - c.overage))
            more = self.elsewhere.get(limit.meter, Elsewhere())
            whole = limit.allowance + granted + c.burnt
            yield MeterBalance(limit.meter, whole + more.limit, left + granted + more.remaining, c.overage)


@dataclass(frozen=True, slots=True)
class Settlement:
    """The outcome of `settle` for one receipt."""

    applied: bool
    """False: this receipt was settled before, and nothing changed."""
    units: dict[str, int]
    """Meter -> units added (or, negative, given back)."""
    shortfall: dict[str, int]
    """Meter -> units that were used but could not be charged, since a hard limit is never exceeded."""
    capped: bool = False
    """It was a refund, and the period has had its maximum: nothing changed, and the receipt is not settled."""


def _check_units(name: str, value: int) -> None:
    if not 0 <= value <= UNITS_MAX:
        raise ValueError(f"{name} must be a whole number from 0 to {UNITS_MAX}: {value}")
