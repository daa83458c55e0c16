"""`publish` and `seed`: they install an entitlement, and put back counters that Redis has lost."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from quota import keys
from quota.access import AccessChanges
from quota.calls.call import Call, Word
from quota.model import Entitlement, Grant, MeterUsage, NodeUsage, OveragePolicy
from quota.wire import CONCURRENT_MAX, ELSEWHERE, HEAD, LEASE, LIMIT, SHADOW, PublishOutcome

PREVIOUS_PERIODS_SECONDS = 40 * 86_400  # older counters stay so long for late settlements and comparisons


def publish_call(
    e: Entitlement,
    shards: int,
    ttl_seconds: int = 0,
    generation: str | None = None,
    access: AccessChanges | None = None,
    staged: str | None = None,
    leased: bool = False,
) -> Call:
    """Installs the entitlement, and the changes of access, unless the installed one is at least as new.

    With `ttl_seconds` it expires after that time; with `generation` it is installed only while the shard has that
    generation. `leased`: in a region, which admits nothing of it until it has a lease. `staged`: the name under which
    all of the access was written before (`keys.staged_access_key`)."""
    by_meter: dict[str, list[Grant]] = {}
    for g in sorted(e.grants, key=lambda g: (g.expires_at, g.id)):
        by_meter.setdefault(g.meter, []).append(g)
    argv: list[Word] = [_head(e, leased), e.org, keys.CHANGED, ttl_seconds]
    argv += [e.periods[0].start - PREVIOUS_PERIODS_SECONDS if e.periods else 0, len(e.meters), len(by_meter)]
    if access is None:
        written, removed, gone = dict[bytes, bytes](), list[bytes](), list[str]()
        argv.append("")
    elif staged is not None:
        written, removed, gone = {}, [], [f"k:{key_id}" for key_id in access.gone]
        argv.append(-2)
    else:
        written, removed, gone = access.written(), access.removed(), [f"k:{key_id}" for key_id in access.gone]
        argv.append(-1 if access.since is None else access.since)
    argv += [len(written), len(removed), len(gone), SHADOW if e.shadow else ""]
    for m in e.meters:
        overage = -1 if m.overage_max is None else m.overage_max
        limits = LIMIT.pack(m.allowance, overage if e.policy is OveragePolicy.METERED else 0)
        argv += [m.meter, limits + ELSEWHERE.pack(0, 0, 0, 0, 0) if leased else limits]
    for meter, grants in by_meter.items():
        argv += [meter, " ".join(f"{g.id} {g.units} {g.expires_at}" for g in grants)]
    argv += [part for pair in written.items() for part in pair]
    argv += [*removed, *gone]
    script_keys = [
        keys.org_key(e.org, shards),
        keys.access_key(e.org, shards),
        keys.staged_access_key(e.org, shards, staged or ""),
    ]
    return _within("publish", script_keys, keys.shard_of(e.org, shards), generation, argv)


def _head(e: Entitlement, leased: bool) -> bytes:
    bounds = [bound for period in e.periods[:2] for bound in (period.start, period.end)]
    bounds += [0] * (4 - len(bounds))
    rate_us = (e.rate.interval_us, e.rate.interval_us * e.rate.burst) if e.rate else (0, 0)
    head = HEAD.pack(e.version, e.status, e.policy is OveragePolicy.METERED, *rate_us, *bounds)
    if leased:
        head += LEASE.pack(0, 0)
    return head if e.concurrent_max is None else head + CONCURRENT_MAX.pack(e.concurrent_max)


def decode_published(reply: Sequence[Any]) -> PublishOutcome:
    return PublishOutcome(reply[0])


def seed_call(org: str, counters: Sequence[str | int], shards: int, generation: str | None = None) -> Call:
    """Puts back absent counters (`counter_fields`); with `generation`, only while the shard has that generation.

    The reply is the number of counters that were put back, or MEMORY_LOST."""
    return _within("seed", [keys.org_key(org, shards)], keys.shard_of(org, shards), generation, [*counters])


def counter_fields(
    usage: Iterable[MeterUsage], grant_used: Mapping[str, int], nodes: Iterable[NodeUsage] = ()
) -> list[str | int]:
    """The arguments of `seed`: field, units, …, without counters that are 0."""
    pairs: list[str | int] = []
    for u in usage:
        for kind, units in (("used", u.used), ("burnt", u.burnt), ("over", u.overage)):
            if units:
                pairs += [f"{kind}:{u.period_start}:{u.meter}", units]
    for grant, units in grant_used.items():
        if units:
            pairs += [f"grant:{grant}", units]
    windows: dict[str, list[str]] = {}
    for n in nodes:
        windows.setdefault(f"n:{n.node}:{n.meter}", []).append(f"{n.window_seconds}:{n.start}:{n.used}")
    return pairs + [part for field, texts in windows.items() for part in (field, " ".join(texts))]


def _within(name: str, script_keys: list[str], shard: int, generation: str | None, argv: list[Word]) -> Call:
    """A call of a script that can check the generation."""
    if generation is None:
        return Call(name, script_keys, argv)
    return Call(name, [*script_keys, keys.generation_key(shard)], [*argv, generation])
