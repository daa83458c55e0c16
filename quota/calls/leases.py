"""`lease`, `lower` and `lapse`: what a region holds of an organization's limits, and for how long."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from quota import keys
from quota.calls.call import Call, Word
from quota.calls.snapshots import decode_snapshot, peeked
from quota.model import Elsewhere, Grant, MeterLimit, OrganizationSnapshot
from quota.periods import Period
from quota.wire import ELSEWHERE, HEAD, LEASE, LIMIT, PERIODS

NO_CAP = -1
NOTHING = Elsewhere()


@dataclass(frozen=True, slots=True)
class LeaseTerms:
    """What a region is to enforce."""

    version: int
    """Of the entitlement that it is for."""
    returns: int
    """How often the region had lowered, as its home knew."""
    number: int
    asked_s: int
    """By the region's own clock, whole seconds since 1970; from then on it is in force."""
    lasts_s: int
    """At most 65535."""
    periods: tuple[Period, ...]
    meters: tuple[MeterLimit, ...]
    """Units of the allowance, and of the overage, that the region may draw in a period. `overage_max` None: any
    number."""
    grants: tuple[Grant, ...] = ()
    """Units of each that the region may draw in all."""
    elsewhere: Mapping[str, Elsewhere] = field(default_factory=dict)
    """By meter: what the organization has beside that."""


@dataclass(frozen=True, slots=True)
class Holding:
    """What a region's ledger holds of an organization: its limits are what the region may draw."""

    snapshot: OrganizationSnapshot
    returns: int
    """How often it has lowered."""
    number: int
    """Of the lease that it enforces; 0: it never had one."""
    asked_s: int
    lasts_s: int


def lease_call(org: str, terms: LeaseTerms, shards: int, generation: str) -> Call:
    """The reply is a PublishOutcome: INSTALLED, NOT_NEWER or MEMORY_LOST."""
    bounds = [bound for period in terms.periods for bound in (period.start, period.end)]
    bounds += [0] * (4 - len(bounds))
    argv: list[Word] = [generation, terms.returns, terms.number, terms.version]
    argv.append(PERIODS.pack(*bounds) + LEASE.pack(terms.asked_s, terms.lasts_s))
    for m in terms.meters:
        limits = LIMIT.pack(m.allowance, NO_CAP if m.overage_max is None else m.overage_max)
        argv += [f"m:{m.meter}", limits + ELSEWHERE.pack(*terms.elsewhere.get(m.meter, NOTHING))]
    by_meter: dict[str, list[Grant]] = {}
    for g in sorted(terms.grants, key=lambda g: (g.expires_at, g.id)):
        by_meter.setdefault(g.meter, []).append(g)
    for meter, grants in by_meter.items():
        argv += [f"g:{meter}", " ".join(f"{g.id} {g.units} {g.expires_at}" for g in grants)]
    return Call("lease", [keys.org_key(org, shards), keys.generation_key(keys.shard_of(org, shards))], argv)


def lower_call(org: str, most: Mapping[str, int], shards: int, generation: str, above: int = 0) -> Call:
    """`most`: units by account, `m:<meter>`, `o:<meter>` or `g:<id of the grant>`. The reply is how often the region
    has lowered, which is more than `above`; or MEMORY_LOST."""
    argv: list[Word] = [generation, above, *(part for pair in most.items() for part in pair)]
    return Call("lower", [keys.org_key(org, shards), keys.generation_key(keys.shard_of(org, shards))], argv)


def lapse_call(orgs: Sequence[str], shards: int, generation: str | None = None) -> Call:
    """Ends the leases of organizations of one shard. The reply is how many had one. With `generation`, only while the
    shard has that one; else the reply is MEMORY_LOST."""
    hashes = [keys.org_key(org, shards) for org in orgs]
    if generation is None:
        return Call("lapse", hashes, [])
    return Call("lapse", [keys.generation_key(keys.shard_of(orgs[0], shards)), *hashes], [generation])


def decode_holding(reply: Sequence[Any]) -> Holding | None:
    """Of `peek`. None where nothing is published, or what is published is not leased."""
    now_us, fields = peeked(reply)
    head = fields.get(b"e", b"")
    if len(head) < HEAD.size + LEASE.size:
        return None
    returns, number = map(int, fields.get(b"lease", b"0 0").split())
    return Holding(decode_snapshot(now_us, fields), returns, number, *LEASE.unpack_from(head, HEAD.size))
