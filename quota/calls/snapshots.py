"""`peek`, `recall` and `tail`: what Redis holds at one moment."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from quota import keys
from quota.calls.call import Call
from quota.model import (
    Elsewhere,
    Grant,
    MeterLimit,
    MeterUsage,
    NodeUsage,
    OrganizationSnapshot,
    OveragePolicy,
    Recalled,
    Status,
)
from quota.periods import Period
from quota.wire import CONCURRENT_MAX, ELSEWHERE, HEAD, LEASE, LIMIT, SHADOW

_WINDOW = re.compile(r"([0-9]{1,16}):([0-9]{1,16}):([0-9]{1,16})")


class Tail(NamedTuple):
    """One shard beside its watermark."""

    last_id: str
    """Of the stream, also where its entries were trimmed."""
    generation: str
    """Of the shard, where all this was read; empty: it has none."""
    events: list[list[bytes]] | None
    """Each as the stream's entry: field, value."""
    hashes: dict[str, dict[bytes, bytes]]
    """Of the organizations that have a published entitlement."""


def peek_call(org: str, shards: int) -> Call:
    return Call("peek", [keys.org_key(org, shards)], [])


def decode_peek(reply: Sequence[Any]) -> OrganizationSnapshot | None:
    now_us, fields = peeked(reply)
    return decode_snapshot(now_us, fields) if b"e" in fields else None


def peeked(reply: Sequence[Any]) -> tuple[int, dict[bytes, bytes]]:
    """The time and the hash, as `peek` replies them."""
    seconds, microseconds, *flat = reply
    return _us(seconds, microseconds), _pairs(flat)


def recall_call(org: str, idempotency: Sequence[str], shards: int) -> Call:
    """Reads what was charged under these idempotency names, and the organization's status."""
    names = [keys.idempotency_key(org, shards, name) for name in idempotency]
    return Call("recall", [keys.org_key(org, shards), *names], [])


def decode_recalled(reply: Sequence[Any]) -> Recalled:
    seconds, microseconds, head, shadow, *receipts = reply
    now_us, period = _us(seconds, microseconds), None
    if head is None:
        return Recalled(now_us, None, None, receipts)
    _, status, _, _, _, *bounds = HEAD.unpack_from(head)
    for start, end in zip(bounds[::2], bounds[1::2], strict=True):
        if start * 1_000_000 <= now_us < end * 1_000_000:
            period = Period(int(start), int(end))
    return Recalled(now_us, Status(status), period, receipts, shadow is not None)


def tail_call(shard: int, orgs: Sequence[str], after: str, events_max: int, shards: int) -> Call:
    """Reads the hashes of organizations of one shard, and the events after `after`."""
    hashes = [keys.org_key(org, shards) for org in orgs]
    return Call("tail", [keys.events_key(shard), keys.generation_key(shard), *hashes], [after, events_max])


def decode_tail(reply: Sequence[Any], orgs: Sequence[str]) -> Tail:
    last, generation, *more = reply
    if not more:
        return Tail(last.decode(), generation.decode(), None, {})
    events, *flat_hashes = more
    hashes = {org: fields for org, flat in zip(orgs, flat_hashes, strict=True) if b"e" in (fields := _pairs(flat))}
    return Tail(last.decode(), generation.decode(), events, hashes)


def version_of(head: bytes) -> int:
    """Of a published entitlement: its hash's field `e`."""
    return int(HEAD.unpack_from(head)[0])


def decode_snapshot(now_us: int, fields: Mapping[bytes, bytes]) -> OrganizationSnapshot:
    """An organization's hash, read at `now_us`; it must hold an entitlement."""
    head = fields[b"e"]
    version, status, metered, interval_us, burst_us, *bounds = HEAD.unpack_from(head)
    head_bytes = HEAD.size + (LEASE.size if len(head) >= HEAD.size + LEASE.size else 0)
    limited = len(head) > head_bytes
    meters: list[MeterLimit] = []
    grants: list[Grant] = []
    elsewhere: dict[str, Elsewhere] = {}
    grant_used: dict[str, int] = {}
    refunds: dict[int, int] = {}
    nodes: list[NodeUsage] = []
    own_arrivals_us: dict[str, float] = {}
    usage: dict[tuple[int, str], dict[str, int]] = {}
    for name, value in fields.items():
        kind, _, suffix = name.decode().partition(":")
        if kind == "m":
            allowance, overage = LIMIT.unpack_from(value)
            if len(value) > LIMIT.size:
                elsewhere[suffix] = Elsewhere(*map(int, ELSEWHERE.unpack_from(value, LIMIT.size)))
            meters.append(MeterLimit(suffix, int(allowance), None if overage < 0 or not metered else int(overage)))
        elif kind == "g":
            words = value.decode().split()
            for grant, units, expires in zip(words[::3], words[1::3], words[2::3], strict=True):
                grants.append(Grant(grant, suffix, int(units), int(expires)))
        elif kind == "grant":
            grant_used[suffix] = int(value)
        elif kind in ("used", "burnt", "over"):
            start, _, meter = suffix.partition(":")
            usage.setdefault((int(start), meter), {})[kind] = int(value)
        elif kind == "refunds":
            refunds[int(suffix)] = int(value)
        elif kind == "nt":
            own_arrivals_us[suffix] = float(value)
        elif kind == "n":
            nodes += _node_usage(suffix, value.decode("ascii", "replace"))
    return OrganizationSnapshot(
        now_us=now_us,
        version=int(version),
        status=Status(status),
        periods=tuple(Period(int(a), int(b)) for a, b in zip(bounds[::2], bounds[1::2], strict=True) if b),
        rate_interval_us=interval_us,
        meters=tuple(sorted(meters, key=lambda m: m.meter)),
        policy=OveragePolicy.METERED if metered else OveragePolicy.HARD_STOP,
        usage=tuple(
            MeterUsage(start, meter, c.get("used", 0), c.get("burnt", 0), c.get("over", 0))
            for (start, meter), c in sorted(usage.items())
        ),
        grants=tuple(sorted(grants, key=lambda g: (g.expires_at, g.id))),
        grant_used=grant_used,
        concurrent_max=CONCURRENT_MAX.unpack_from(head, head_bytes)[0] if limited else None,
        refunds=refunds,
        nodes=tuple(sorted(nodes, key=lambda n: (n.node, n.meter, n.window_seconds))),
        rate_burst_us=burst_us,
        arrival_us=float(fields.get(b"tat", 0)),
        own_arrivals_us=own_arrivals_us,
        shadow=SHADOW.encode() in fields,
        elsewhere=elsewhere,
    )


def _node_usage(name: str, windows: str) -> list[NodeUsage]:
    """`name`: node and meter; `windows`: `window seconds:start:units …`."""
    node, _, meter = name.rpartition(":")
    # Somebody may have damaged the text: what is no window counts nothing, as for the scripts.
    found = [_WINDOW.fullmatch(word) for word in windows.split()]
    return [NodeUsage(node, meter, *map(int, match.groups())) for match in found if match is not None]


def _us(seconds: bytes, microseconds: bytes) -> int:
    """Redis TIME."""
    return int(seconds) * 1_000_000 + int(microseconds)


def _pairs(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))
