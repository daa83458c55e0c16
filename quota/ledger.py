"""The ledger: typed calls of the Lua scripts, for everyone but the hot path.

`decode_take` and the wire forms are shared with the gateway's own link, so that both planes read one contract.
`lua/README.md` describes the keys, fields and replies.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from struct import Struct
from typing import Any, NamedTuple, cast

from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import NoScriptError, RedisError, ResponseError

from quota import keys
from quota.model import (
    COST_MAX,
    Admitted,
    ConcurrencyLimited,
    Decision,
    Entitlement,
    Exhausted,
    Grant,
    MeterBalance,
    MeterLimit,
    MeterUsage,
    NotEntitled,
    NotInPlan,
    OveragePolicy,
    RateLimited,
    Recalled,
    Report,
    Settlement,
    Standing,
    Status,
    Unknown,
)
from quota.periods import Period
from quota.scripts import script

_HEADER = Struct("<dBBdddddd")
"""The published entitlement: version, status, policy, rate interval us, rate burst us, two periods (start, end)."""
_CONCURRENT_MAX = Struct("<I")
"""Follows it where the number of requests under way is limited."""
_LIMIT = Struct("<dd")
"""A published meter: allowance, units of overage (0: none, -1: without a cap)."""
_REPLY = Struct("<BBdddd")
_BALANCE = Struct("<ddd")
_RATE = Struct("<dd")

_REQUEST_ID = re.compile(r"[!-~]{1,200}\Z")  # a blank would tear the event apart, and quota/events.py reads no more

SLOT_SECONDS = 60  # `take` holds a slot for so long; who is under way for longer renews it
SETTLED_SECONDS = 86_400  # a settlement that is repeated within a day is recognised
REPLAYED_SECONDS = 7 * 86_400  # a journal that is replayed again within a week is recognised
REPORTED_AT_ONCE = 50  # in one script call, which keeps every gateway waiting for as long as it lasts
PREVIOUS_PERIODS_SECONDS = 40 * 86_400  # counters of the period before stay for late settlements and comparisons


class LedgerError(Exception):
    """The ledger cannot be used as it is."""


class ShardMismatch(LedgerError):
    """Redis was installed with another number of shards."""

    def __init__(self, configured: int, installed: int) -> None:
        super().__init__(
            f"redis.shards is {configured}, but this Redis was installed with {installed}; "
            "another number would look for organizations where they are not"
        )


class UnsupportedServer(RedisError, LedgerError):
    """Redis is there, and of a kind that the ledger cannot be kept on. A RedisError, since connecting fails with it."""


class LedgerUnavailable(LedgerError):
    """Redis did not answer, or answered with an error."""


class MemoryLost(LedgerUnavailable):
    """Redis was flushed, restarted or replaced: what it lost is put back first."""


def charge_argv(charges: Mapping[str, int], *, once: bool = False) -> list[str | int]:
    """The part of `take`'s ARGV that tells what is charged: number of meters, then meter and cost of each.

    `once`: the request has a third key, that of its idempotency key."""
    for meter, cost in charges.items():
        if not keys.is_meter(meter):
            raise ValueError(f"a meter's name must match {keys.METER_PATTERN}: {meter!r}")
        if not 0 <= cost <= COST_MAX:
            raise ValueError(f"a cost must be a whole number from 0 to {COST_MAX}: {meter}={cost}")
    if not charges:
        raise ValueError("nothing is charged: name at least one meter")
    return [f"k{len(charges)}" if once else len(charges), *(part for pair in charges.items() for part in pair)]


def decode_take(reply: bytes, meters: Sequence[str]) -> Decision:
    """One reply of `take`. `meters` are those of the request, in the order they were sent."""
    verdict, index, now_us, start, end, detail = _REPLY.unpack_from(reply)
    if verdict in (1, 8):
        offset, balances = 34, []
        for meter in meters:
            limit, remaining, overage = _BALANCE.unpack_from(reply, offset)
            balances.append(MeterBalance(meter, int(limit), int(remaining), int(overage)))
            offset += 24
        period, more = Period(int(start), int(end)), index if verdict == 8 else 0
        return Admitted(period, int(now_us), balances, reply[offset:], bool(more & 1), bool(more & 2))
    if verdict == 2:
        limit, remaining, overage = _BALANCE.unpack_from(reply, 34)
        balance = MeterBalance(meters[index - 1], int(limit), int(remaining), int(overage))
        return Exhausted(Period(int(start), int(end)), int(now_us), balance, over_limit=detail == 1)
    if verdict == 3:
        return RateLimited(Period(int(start), int(end)), int(now_us), int(detail), *_RATE.unpack_from(reply, 34))
    if verdict == 4:
        return NotEntitled(Status(int(detail)))
    if verdict == 5:
        return NotInPlan(meters[index - 1])
    if verdict == 7:
        return ConcurrencyLimited(Period(int(start), int(end)), int(now_us), int(detail))
    return Unknown(lapsed=detail == 1)


def counter_fields(usage: Iterable[MeterUsage], grant_used: Mapping[str, int]) -> list[str | int]:
    """Counters as `seed` takes them: field, units, … without those that are 0."""
    pairs: list[str | int] = []
    for u in usage:
        for kind, units in (("used", u.used), ("burnt", u.burnt), ("over", u.overage)):
            if units:
                pairs += [f"{kind}:{u.period_start}:{u.meter}", units]
    for grant, units in grant_used.items():
        if units:
            pairs += [f"grant:{grant}", units]
    return pairs


class Tail(NamedTuple):
    """One shard beside its watermark."""

    last_id: str
    """Of the stream, also where its entries were trimmed."""
    events: list[list[bytes]] | None
    """Each as the stream's entry: field, value."""
    held: dict[str, dict[bytes, bytes]]
    """Hashes of the organizations that have one."""


class Ledger:
    """The scripts over a redis-py client (its `decode_responses` off). One for each process; owns no connection."""

    def __init__(self, redis: Redis | RedisCluster, shards: int = keys.SHARDS_DEFAULT) -> None:
        if not 1 <= shards <= keys.SHARDS_MAX:
            raise ValueError(f"shards must be from 1 to {keys.SHARDS_MAX}: {shards}")
        self.redis = redis
        self.shards = shards

    async def check_layout(self) -> None:
        """Claims an empty Redis for this shard count, or compares with the one it was installed with.

        Raises ShardMismatch, UnsupportedServer, LedgerUnavailable."""
        try:
            await cast("Any", self.redis.set(keys.LAYOUT, self.shards, nx=True))
            installed = int(await cast("Any", self.redis.get(keys.LAYOUT)) or self.shards)
        except UnsupportedServer:
            raise
        except RedisError as e:
            raise LedgerUnavailable(f"Redis does not answer: {e}") from e
        if installed != self.shards:
            raise ShardMismatch(self.shards, installed)

    async def take(
        self, org: str, request_id: str, charges: Mapping[str, int], idempotency: str | None = None
    ) -> Decision:
        """Admits and charges one request: every meter, or none.

        Of all requests of a day with the same `idempotency` (any short name), one is charged.
        Raises LedgerUnavailable, and ValueError for what could not be written down as an event."""
        if not keys.is_org(org):
            raise ValueError(f"an organization's id must match {keys.ORG_PATTERN}: {org!r}")
        if not _REQUEST_ID.match(request_id):
            raise ValueError(f"a request id must be 1 to 200 printable ASCII characters: {request_id!r}")
        script_keys, argv = self._pair(org), charge_argv(charges, once=idempotency is not None)
        if idempotency is not None:
            script_keys.append(keys.idempotency_key(org, self.shards, idempotency))
        [reply] = await self._run("take", script_keys, [request_id, org, *argv])
        if isinstance(reply, ResponseError):
            raise LedgerUnavailable(str(reply)) from reply
        return decode_take(reply, list(charges))

    async def report(self, org: str, reports: Sequence[Report]) -> list[Decision | LedgerUnavailable]:
        """Charges usage that is reported, each on its own and in order; no rate limits it, and it needs no slot.

        An error that Redis tells of one report is its place in the list. Raises LedgerUnavailable where it is not
        known what was charged: the same reports may be sent again. Raises ValueError as `take` does."""
        if not keys.is_org(org):
            raise ValueError(f"an organization's id must match {keys.ORG_PATTERN}: {org!r}")
        pair, once = self._pair(org), keys.idempotency_key(org, self.shards, "")
        decisions = list[Decision | LedgerUnavailable]()
        for start in range(0, len(reports), REPORTED_AT_ONCE):
            some = reports[start : start + REPORTED_AT_ONCE]
            script_keys, argv = list[str](), list[str | int]()
            for r in some:
                if not _REQUEST_ID.match(r.request_id):
                    raise ValueError(f"a request id must be 1 to 200 printable ASCII characters: {r.request_id!r}")
                _, *charge = charge_argv({r.meter: r.units})
                script_keys += [*pair, once + r.idempotency]
                argv += [r.request_id, org, "u1", *charge]
            for r, reply in zip(some, await self._run("take", script_keys, argv), strict=True):
                failed = isinstance(reply, ResponseError)
                decisions.append(LedgerUnavailable(str(reply)) if failed else decode_take(reply, [r.meter]))
        return decisions

    async def recall(self, org: str, idempotency: Sequence[str]) -> Recalled:
        """What these idempotency keys were charged for, and where the organization stands. Raises LedgerUnavailable."""
        once = keys.idempotency_key(org, self.shards, "")
        script_keys = [keys.org_key(org, self.shards), *(once + name for name in idempotency)]
        seconds, microseconds, head, *receipts = await self._run("recall", script_keys, [])
        now_us, period = int(seconds) * 1_000_000 + int(microseconds), None
        if head is None:
            return Recalled(now_us, None, None, receipts)
        _, status, _, _, _, *bounds = _HEADER.unpack_from(head)
        for start, end in zip(bounds[::2], bounds[1::2], strict=True):
            if start * 1_000_000 <= now_us < end * 1_000_000:
                period = Period(int(start), int(end))
        return Recalled(now_us, Status(status), period, receipts)

    async def settle(
        self, org: str, receipt: bytes, actual: Mapping[str, int], refunds_max: int | None = None
    ) -> Settlement:
        """Sets a charge to the units really used, once for each receipt. `{meter: 0}` gives all of it back.

        With `refunds_max` it is a refund, which is counted, and refused when the receipt's period has had so many.
        Raises LedgerUnavailable, also where the receipt is none of this organization or has no such meter."""
        charge_argv(actual)
        _, _, after = receipt.partition(b" ")
        request_id, _, rest = after.partition(b" ")
        if not rest:
            raise ValueError(f"not a receipt: {receipt!r}")
        once = keys.once_key(org, self.shards, f"settle:{request_id.decode()}")
        pairs = [part for pair in actual.items() for part in pair]
        cap = "" if refunds_max is None else refunds_max
        reply = await self._run("settle", [*self._pair(org), once], [receipt, SETTLED_SECONDS, cap, *pairs])
        units, shortfall = {}, {}
        for i in range(1, len(reply), 3):
            meter = reply[i].decode()
            units[meter] = reply[i + 1]
            if reply[i + 2]:
                shortfall[meter] = reply[i + 2]
        return Settlement(reply[0] == 1, units, shortfall, capped=reply[0] == 3)

    async def give_back(self, org: str, receipt: bytes, idempotency: str, request_id: str) -> Settlement:
        """Gives a whole charge back for one request of an idempotency key: done when no other one is left.

        `receipt` is what the request's take came back with. Raises LedgerUnavailable."""
        words = receipt.decode().split(" ")
        script_keys = [
            *self._pair(org),
            keys.once_key(org, self.shards, f"settle:{words[1]}"),
            keys.idempotency_key(org, self.shards, idempotency),
        ]
        nothing = [part for charge in words[4:] for part in (charge.partition(":")[0], 0)]
        reply = await self._run("settle", script_keys, [receipt, SETTLED_SECONDS, "", *nothing, request_id])
        return Settlement(reply[0] == 1, {reply[i].decode(): reply[i + 1] for i in range(1, len(reply), 3)}, {})

    async def release(self, org: str, request_id: str) -> bool:
        """Frees the slot of a request that has ended; False where it has none. Raises LedgerUnavailable."""
        try:
            return bool(await cast("Any", self.redis.zrem(keys.slots_key(org, self.shards), request_id)))
        except RedisError as e:
            raise LedgerUnavailable(f"release: {e}") from e

    async def renew(self, org: str, request_ids: Sequence[str]) -> None:
        """Holds the slots of requests that are still under way for another SLOT_SECONDS. Raises LedgerUnavailable."""
        await self._run("renew", [keys.slots_key(org, self.shards)], [SLOT_SECONDS, *request_ids])

    async def replay(self, org: str, request_id: str, charges: Mapping[str, int]) -> bool | None:
        """Charges a request that was forwarded without a take, once, and beyond the limit if need be: it was used.

        False: it was charged before. None: the organization is not published for now, so try again when it is.
        Raises LedgerUnavailable, and ValueError as `take` does."""
        if not keys.is_org(org):
            raise ValueError(f"an organization's id must match {keys.ORG_PATTERN}: {org!r}")
        if not _REQUEST_ID.match(request_id):
            raise ValueError(f"a request id must be 1 to 200 printable ASCII characters: {request_id!r}")
        _, *pairs = charge_argv(charges)
        reply = await self._run(
            "replay", self.replay_keys(org, request_id), [request_id, org, REPLAYED_SECONDS, *pairs]
        )
        return None if reply[0] < 0 else reply[0] == 1

    def replay_keys(self, org: str, request_id: str) -> list[str]:
        """KEYS of `replay`."""
        return [*self._pair(org), keys.once_key(org, self.shards, f"replay:{request_id}")]

    async def publish(self, entitlement: Entitlement, ttl_seconds: int = 0, generation: str | None = None) -> bool:
        """Installs the entitlement unless one at least as new is there; tells waiting gateways either way.

        With `ttl_seconds` it is forgotten after that time: for organizations that nobody knows. With `generation` it is
        installed only while the shard has that one. Raises LedgerUnavailable, MemoryLost."""
        e = entitlement
        first, second = [*e.periods, None, None][:2]
        header = _HEADER.pack(
            e.version,
            e.status,
            e.policy is OveragePolicy.METERED,
            e.rate.interval_us if e.rate else 0,
            e.rate.interval_us * e.rate.burst if e.rate else 0,
            first.start if first else 0,
            first.end if first else 0,
            second.start if second else 0,
            second.end if second else 0,
        )
        if e.concurrent_max is not None:
            header += _CONCURRENT_MAX.pack(e.concurrent_max)
        argv: list[Any] = [header, e.org, keys.CHANGED, ttl_seconds]
        argv += [first.start - PREVIOUS_PERIODS_SECONDS if first else 0, len(e.meters)]
        for m in e.meters:
            overage = -1 if m.overage_max is None else m.overage_max
            argv += [m.meter, _LIMIT.pack(m.allowance, overage if e.policy is OveragePolicy.METERED else 0)]
        by_meter: dict[str, list[Grant]] = {}
        for g in sorted(e.grants, key=lambda g: (g.expires_at, g.id)):
            by_meter.setdefault(g.meter, []).append(g)
        for meter, grants in by_meter.items():
            argv += [meter, " ".join(f"{g.id} {g.units} {g.expires_at}" for g in grants)]
        installed, _ = await self._run("publish", *self._within(e.org, generation, argv))
        if installed < 0:
            raise MemoryLost("publish: Redis has lost its memory")
        return bool(installed)

    async def seed(
        self, org: str, usage: Iterable[MeterUsage], grant_used: Mapping[str, int], generation: str | None = None
    ) -> int:
        """Puts back counters that are absent; returns how many were. Seed before you publish.

        With `generation`, only while the shard has that one. Raises LedgerUnavailable, MemoryLost."""
        pairs = counter_fields(usage, grant_used)
        if not pairs:
            return 0
        filled = await self._run("seed", *self._within(org, generation, pairs))
        if filled < 0:
            raise MemoryLost("seed: Redis has lost its memory")
        return cast("int", filled)

    async def generation(self, shard: int) -> str | None:
        """What the shard's counters were vouched for with; None after a flush. Raises LedgerUnavailable."""
        try:
            held = await cast("Any", self.redis.get(keys.generation_key(shard)))
        except RedisError as e:
            raise LedgerUnavailable(f"generation: {e}") from e
        return None if held is None else held.decode()

    def _within(self, org: str, generation: str | None, argv: Sequence[Any]) -> tuple[list[str], list[Any]]:
        """KEYS and ARGV of a script that looks at the generation, where it shall."""
        hash_key = keys.org_key(org, self.shards)
        if generation is None:
            return [hash_key], [*argv]
        return [hash_key, keys.generation_key(keys.shard_of(org, self.shards))], [*argv, generation]

    async def append(self, org: str, events: Sequence[str], moves: Mapping[str, int]) -> None:
        """Puts events back that are nowhere any more; `moves`: field of the hash -> what they add to it.

        Raises LedgerUnavailable."""
        pairs = [part for pair in moves.items() for part in pair]
        await self._run("append", self._pair(org), [len(events), *events, *pairs])

    async def advance(self, shard: int, watermark: str) -> str:
        """Has the shard's stream continue after the watermark; returns its last id as it was, or ''.

        Raises LedgerUnavailable."""
        reply = await self._run("advance", [keys.events_key(shard)], [watermark])
        return cast("bytes", reply).decode()

    async def peek(self, org: str) -> Standing | None:
        """Where the organization stands, or None where Redis does not know it."""
        reply = await self._run("peek", [keys.org_key(org, self.shards)], [])
        fields = dict(zip(reply[2::2], reply[3::2], strict=True))
        if b"e" not in fields:
            return None
        return decode_standing(int(reply[0]) * 1_000_000 + int(reply[1]), fields)

    async def tail(self, shard: int, orgs: Sequence[str], after: str, events_max: int) -> "Tail":
        """What the organizations of one shard have been charged, and the events after `after`, read in one moment.

        `events` is None where there are more than `events_max`. Raises LedgerUnavailable."""
        script_keys = [keys.events_key(shard), *(keys.org_key(org, self.shards) for org in orgs)]
        last, *rest = await self._run("tail", script_keys, [after, events_max])
        if not rest:
            return Tail(last.decode(), None, {})
        events, *hashes = rest
        held = {}
        for org, flat in zip(orgs, hashes, strict=True):
            fields = dict(zip(flat[::2], flat[1::2], strict=True))
            if b"e" in fields:
                held[org] = fields
        return Tail(last.decode(), events, held)

    async def rebase(self, org: str, generation: str, repairs: int, moves: Mapping[str, int]) -> bool:
        """Adds to counters, unless somebody else has repaired or rebuilt the organization since they were read.

        `moves`: field of the hash -> units. Raises LedgerUnavailable."""
        shard = keys.shard_of(org, self.shards)
        script_keys = [keys.org_key(org, self.shards), keys.generation_key(shard)]
        pairs = [part for pair in moves.items() for part in pair]
        return bool(await self._run("rebase", script_keys, [generation, repairs, *pairs]))

    def _pair(self, org: str) -> list[str]:
        return [keys.org_key(org, self.shards), keys.events_key(keys.shard_of(org, self.shards))]

    async def _run(self, name: str, script_keys: Sequence[str], argv: Sequence[Any]) -> Any:
        s = script(name)
        try:
            try:
                return await cast("Any", self.redis.evalsha(s.sha, len(script_keys), *script_keys, *argv))
            except NoScriptError:
                # Redis was restarted or its scripts were flushed; EVAL runs it and keeps it.
                return await cast("Any", self.redis.eval(s.source.decode(), len(script_keys), *script_keys, *argv))
        except RedisError as e:
            raise LedgerUnavailable(f"{name}: {e}") from e


def decode_standing(now_us: int, fields: Mapping[bytes, bytes]) -> Standing:
    """An organization's hash, read at `now_us`; it must hold an entitlement."""
    head = fields[b"e"]
    version, status, metered, interval_us, _, *bounds = _HEADER.unpack_from(head)
    limited = len(head) > _HEADER.size
    meters: list[MeterLimit] = []
    grants: list[Grant] = []
    grant_used: dict[str, int] = {}
    refunds: dict[int, int] = {}
    usage: dict[tuple[int, str], dict[str, int]] = {}
    for name, value in fields.items():
        kind, _, rest = name.decode().partition(":")
        if kind == "m":
            allowance, overage = _LIMIT.unpack(value)
            meters.append(MeterLimit(rest, int(allowance), None if overage < 0 or not metered else int(overage)))
        elif kind == "g":
            words = value.decode().split()
            for grant, units, expires in zip(words[::3], words[1::3], words[2::3], strict=True):
                grants.append(Grant(grant, rest, int(units), int(expires)))
        elif kind == "grant":
            grant_used[rest] = int(value)
        elif kind in ("used", "burnt", "over"):
            start, _, meter = rest.partition(":")
            usage.setdefault((int(start), meter), {})[kind] = int(value)
        elif kind == "refunds":
            refunds[int(rest)] = int(value)
    return Standing(
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
        concurrent_max=_CONCURRENT_MAX.unpack_from(head, _HEADER.size)[0] if limited else None,
        refunds=refunds,
    )
