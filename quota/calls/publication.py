"""`publish` and `seed`: they install an entitlement, and put back counters that Redis has lost."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from quota import keys
from quota.calls.call import Call, Word
from quota.model import Entitlement, Grant, MeterUsage, OveragePolicy
from quota.wire import CONCURRENT_MAX, HEAD, LIMIT, PublishOutcome

PREVIOUS_PERIODS_SECONDS = 40 * 86_400  # older counters stay so long for late settlements and comparisons


def publish_call(e: Entitlement, shards: int, ttl_seconds: int = 0, generation: str | None = None) -> Call:
    """Installs the entitlement unless the installed one is at least as new.

    With `ttl_seconds` it expires after that time; with `generation` it is installed only while the shard has that
    generation."""
    argv: list[Word] = [_head(e), e.org, keys.CHANGED, ttl_seconds]
    argv += [e.periods[0].start - PREVIOUS_PERIODS_SECONDS if e.periods else 0, len(e.meters)]
    for m in e.meters:
        overage = -1 if m.overage_max is None else m.overage_max
        argv += [m.meter, LIMIT.pack(m.allowance, overage if e.policy is OveragePolicy.METERED else 0)]
    by_meter: dict[str, list[Grant]] = {}
    for g in sorted(e.grants, key=lambda g: (g.expires_at, g.id)):
        by_meter.setdefault(g.meter, []).append(g)
    for meter, grants in by_meter.items():
        argv += [meter, " ".join(f"{g.id} {g.units} {g.expires_at}" for g in grants)]
    return _within("publish", e.org, shards, generation, argv)


def _head(e: Entitlement) -> bytes:
    bounds = [bound for period in e.periods[:2] for bound in (period.start, period.end)]
    bounds += [0] * (4 - len(bounds))
    rate_us = (e.rate.interval_us, e.rate.interval_us * e.rate.burst) if e.rate else (0, 0)
    head = HEAD.pack(e.version, e.status, e.policy is OveragePolicy.METERED, *rate_us, *bounds)
    return head if e.concurrent_max is None else head + CONCURRENT_MAX.pack(e.concurrent_max)


def decode_published(reply: Sequence[Any]) -> PublishOutcome:
    return PublishOutcome(reply[0])


def seed_call(org: str, counters: Sequence[str | int], shards: int, generation: str | None = None) -> Call:
    """Puts back absent counters (`counter_fields`); with `generation`, only while the shard has that generation.

    The reply is the number of counters that were put back, or MEMORY_LOST."""
    return _within("seed", org, shards, generation, [*counters])


def counter_fields(usage: Iterable[MeterUsage], grant_used: Mapping[str, int]) -> list[str | int]:
    """The arguments of `seed`: field, units, …, without counters that are 0."""
    pairs: list[str | int] = []
    for u in usage:
        for kind, units in (("used", u.used), ("burnt", u.burnt), ("over", u.overage)):
            if units:
                pairs += [f"{kind}:{u.period_start}:{u.meter}", units]
    for grant, units in grant_used.items():
        if units:
            pairs += [f"grant:{grant}", units]
    return pairs


def _within(name: str, org: str, shards: int, generation: str | None, argv: list[Word]) -> Call:
    """A call of a script that can check the generation."""
    hash_key = keys.org_key(org, shards)
    if generation is None:
        return Call(name, [hash_key], argv)
    return Call(name, [hash_key, keys.generation_key(keys.shard_of(org, shards))], [*argv, generation])
