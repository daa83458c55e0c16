"""What is published of an organization, and the limits of a principal's own, as the rules of a take compare them.

Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from quota.access import KeyRecord, Quota
from quota.model import Entitlement, Grant, Level, OrganizationSnapshot, OveragePolicy, RateLimit, Status
from quota.periods import Period
from quota.wire import NODE_LETTERS


class Pace(NamedTuple):
    """A rate limit as it is published."""

    interval_us: float
    burst_us: float

    @classmethod
    def of(cls, rate: RateLimit | None) -> "Pace | None":
        return None if rate is None else cls(rate.interval_us, rate.interval_us * rate.burst)


class MeterTerms(NamedTuple):
    allowance: int
    overage_max: int | None = 0
    """Units that may be sold beyond; 0: none, None: without a cap."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What is published of an organization."""

    version: int
    status: Status
    periods: tuple[Period, ...] = ()
    meters: Mapping[str, MeterTerms] = field(default_factory=dict)
    grants: tuple[Grant, ...] = ()
    rate: Pace | None = None
    concurrent_max: int | None = None

    @classmethod
    def of(cls, entitlement: Entitlement) -> "Terms":
        sold = entitlement.policy is OveragePolicy.METERED
        meters = {m.meter: MeterTerms(m.allowance, m.overage_max if sold else 0) for m in entitlement.meters}
        return cls(
            entitlement.version,
            entitlement.status,
            entitlement.periods,
            meters,
            tuple(sorted(entitlement.grants, key=lambda g: (g.expires_at, g.id))),
            Pace.of(entitlement.rate),
            entitlement.concurrent_max,
        )

    @classmethod
    def of_snapshot(cls, read: OrganizationSnapshot) -> "Terms":
        sold = read.policy is OveragePolicy.METERED
        pace = Pace(read.rate_interval_us, read.rate_burst_us) if read.rate_interval_us else None
        meters = {m.meter: MeterTerms(m.allowance, m.overage_max if sold else 0) for m in read.meters}
        return cls(read.version, read.status, read.periods, meters, read.grants, pace, read.concurrent_max)


@dataclass(frozen=True, slots=True)
class OwnLimits:
    """Of one level below the organization."""

    node: str
    """As in a path: `k:<id of the API key>`."""
    quotas: tuple[Quota, ...] = ()
    rate: Pace | None = None

    @classmethod
    def of(cls, record: KeyRecord) -> "OwnLimits":
        return cls(f"k:{record.id}", record.quotas, Pace.of(record.rate))

    @classmethod
    def parse(cls, text: str) -> "tuple[OwnLimits, ...]":
        """The limits in a version word (`access.limits_text`), of each node. Raises ValueError."""
        nodes = list[OwnLimits]()
        for word in text.split():
            if word.startswith("@") and nodes:
                interval_us, burst_us = word[1:].split(",")
                nodes[-1] = replace(nodes[-1], rate=Pace(float(interval_us), float(burst_us)))
            elif "=" in word and nodes:
                meter, _, windows = word.partition("=")
                quotas = [window.split(":") for window in windows.split(",")]
                more = tuple(Quota(meter, int(units), int(seconds)) for seconds, units in quotas)
                nodes[-1] = replace(nodes[-1], quotas=nodes[-1].quotas + more)
            elif word[0] in NODE_LETTERS and word[1:2] == ":":
                nodes.append(cls(word))
            else:
                raise ValueError(f"not a limit: {word!r}")
        return tuple(nodes)

    @property
    def level(self) -> Level:
        return Level(NODE_LETTERS.index(self.node[0]) + 1)

    @property
    def in_order(self) -> Iterable[Quota]:
        """As the version word lists them: by meter, in the order in which the quotas first name it."""
        for meter in dict.fromkeys(quota.meter for quota in self.quotas):
            yield from (quota for quota in self.quotas if quota.meter == meter)


def window_of(seconds: int, now_s: int, period: Period) -> Period:
    """The window of a quota that holds that second."""
    start = now_s - now_s % seconds if seconds else period.start
    return Period(start, start + seconds) if seconds else period
