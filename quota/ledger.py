"""The ledger's calls over a redis-py client, for all code but the gateway's hot path, which has a link of its own.

`quota/calls/` builds the calls; `lua/README.md` describes the keys, fields and replies.
"""

from collections.abc import Iterable, Mapping, Sequence
from secrets import token_hex
from typing import Any, cast

from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import NoScriptError, RedisError, ResponseError

from quota import keys
from quota.access import OF_ORGANIZATION, AccessChanges, Mark
from quota.calls.call import Call
from quota.calls.corrections import Attempt, decode_settlement, settle_call
from quota.calls.leases import Holding, LeaseTerms, decode_holding, lapse_call, lease_call, lower_call
from quota.calls.look import (
    IndexMiss,
    Look,
    decode_look,
    decode_owner,
    is_complete,
    look_words,
    mark_index_call,
    owner_words,
)
from quota.calls.publication import counter_fields, decode_published, publish_call, seed_call
from quota.calls.repairs import advance_call, append_call, rebase_call
from quota.calls.snapshots import Tail, decode_peek, decode_recalled, decode_tail, peek_call, recall_call, tail_call
from quota.calls.take import Take, decode_take, take_call
from quota.model import (
    Decision,
    Entitlement,
    MeterUsage,
    NodeUsage,
    OrganizationSnapshot,
    Recalled,
    Report,
    Settlement,
)
from quota.scripts import script
from quota.wire import PublishOutcome

INDEXED_AT_ONCE = 2_000  # words of one command
PUBLISHED_AT_ONCE = 2_000  # keys and marks of one script call: some milliseconds
STAGED_SECONDS = 600  # what was written and never published is forgotten
REPORTED_AT_ONCE = 50  # in one script call: all gateways wait until it ends
ANOTHER = "Redis has lost its memory, is put together anew, or another server answered"


class LedgerError(Exception):
    """The ledger cannot be used as it is."""


class ShardMismatch(LedgerError):
    """Redis was installed with another number of shards."""

    def __init__(self, configured: int, installed: int) -> None:
        super().__init__(
            f"redis.shards is {configured}, but this Redis was installed with {installed}; "
            "with another number, organizations would be looked for in the wrong place"
        )


class UnsupportedServer(RedisError, LedgerError):
    """The Redis server is of a kind that cannot hold the ledger. It is a RedisError, since connecting fails with it."""


class LedgerUnavailable(LedgerError):
    """Redis did not answer, or answered with an error."""


class MemoryLost(LedgerUnavailable):
    """Redis was flushed, restarted or replaced: its counters must be rebuilt first."""


class AccessBehind(LedgerError):
    """Redis went back to an older version than the changes of access begin at: all of the access must be published."""


class Ledger:
    """The scripts over a redis-py client with `decode_responses` off. One for each process; it owns no connection."""

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

    async def run(self, call: Call) -> Any:
        """The reply of one call, for its decoder. Raises LedgerUnavailable."""
        s = script(call.script)
        try:
            try:
                return await cast("Any", self.redis.evalsha(s.sha, len(call.keys), *call.keys, *call.argv))
            except NoScriptError:
                # Redis was restarted, or its scripts were flushed: EVAL runs the script and stores it.
                return await cast("Any", self.redis.eval(s.source.decode(), len(call.keys), *call.keys, *call.argv))
        except RedisError as e:
            raise LedgerUnavailable(f"{call.script}: {e}") from e

    # Usage that is reported

    async def report(self, org: str, reports: Sequence[Report]) -> list[Decision | LedgerUnavailable]:
        """Charges reported usage, each report on its own and in order. No rate limit applies, and no permit is needed.

        An error of one report is in its place in the list. Raises LedgerUnavailable where it is not known what was
        charged: then the caller may send the same reports again. Raises ValueError as `take_call` does."""
        decisions = list[Decision | LedgerUnavailable]()
        for start in range(0, len(reports), REPORTED_AT_ONCE):
            some = reports[start : start + REPORTED_AT_ONCE]
            takes = [Take(org, r.request_id, {r.meter: r.units}, r.idempotency, reported=True) for r in some]
            for r, reply in zip(some, await self.run(take_call(takes, self.shards)), strict=True):
                failed = isinstance(reply, ResponseError)
                decisions.append(LedgerUnavailable(str(reply)) if failed else decode_take(reply, [r.meter]))
        return decisions

    async def recall(self, org: str, idempotency: Sequence[str]) -> Recalled:
        """What was charged under these idempotency keys, and the organization's status. Raises LedgerUnavailable."""
        return decode_recalled(await self.run(recall_call(org, idempotency, self.shards)))

    async def give_back(self, org: str, receipt: bytes, idempotency: str, request_id: str) -> Settlement:
        """Gives a whole charge back for one request of an idempotency key, if no other request of the key is open.

        `receipt` is that of the request's take. Raises LedgerUnavailable."""
        attempt = Attempt(idempotency, request_id)
        return decode_settlement(await self.run(settle_call(org, receipt, self.shards, attempt=attempt)))

    # Entitlements and counters of an organization

    async def publish(
        self,
        entitlement: Entitlement,
        ttl_seconds: int = 0,
        generation: str | None = None,
        access: AccessChanges | None = None,
        *,
        leased: bool = False,
    ) -> bool:
        """Installs the entitlement, and the changes of access, unless the installed one is at least as new. Either way
        waiting gateways try again.

        With `ttl_seconds` it expires: for organizations that do not exist. With `generation` it is installed only while
        the shard has that generation. `leased`: in a region, which admits nothing of it until it has a lease. Raises
        LedgerUnavailable, MemoryLost, AccessBehind."""
        if access is not None:
            # An index entry without its key does no harm; a key without its index entry cannot be found.
            await self.index(dict.fromkeys(access.records, entitlement.org))
        staged = None if access is None else await self._stage(entitlement.org, access)
        call = publish_call(entitlement, self.shards, ttl_seconds, generation, access, staged, leased)
        outcome = decode_published(await self.run(call))
        if staged is not None and outcome is not PublishOutcome.INSTALLED:
            await self._pipelined([("UNLINK", keys.staged_access_key(entitlement.org, self.shards, staged))])
        if outcome is PublishOutcome.MEMORY_LOST:
            raise MemoryLost("publish: Redis has lost its memory")
        if outcome is PublishOutcome.BEHIND:
            raise AccessBehind("publish: Redis holds an older version than the changes begin at")
        return outcome is PublishOutcome.INSTALLED

    async def seed(
        self,
        org: str,
        usage: Iterable[MeterUsage],
        grant_used: Mapping[str, int],
        generation: str | None = None,
        nodes: Iterable[NodeUsage] = (),
    ) -> int:
        """Puts back counters that are absent; returns how many were. Seed before you publish.

        With `generation`, only while the shard has that one. Raises LedgerUnavailable, MemoryLost."""
        counters = counter_fields(usage, grant_used, nodes)
        if not counters:
            return 0
        filled: int = await self.run(seed_call(org, counters, self.shards, generation))
        if filled == PublishOutcome.MEMORY_LOST:
            raise MemoryLost("seed: Redis has lost its memory")
        return filled

    async def generation(self, shard: int) -> str | None:
        """The shard's generation; None after a flush. Raises LedgerUnavailable."""
        try:
            value = await cast("Any", self.redis.get(keys.generation_key(shard)))
        except RedisError as e:
            raise LedgerUnavailable(f"generation: {e}") from e
        return None if value is None else value.decode()

    async def peek(self, org: str) -> OrganizationSnapshot | None:
        """What Redis holds of the organization; None where it does not know it. Raises LedgerUnavailable."""
        return decode_peek(await self.run(peek_call(org, self.shards)))

    # What a region holds

    async def holding(self, org: str) -> Holding | None:
        """None where the region does not know the organization. Raises LedgerUnavailable."""
        return decode_holding(await self.run(peek_call(org, self.shards)))

    async def lease(self, org: str, terms: LeaseTerms, generation: str) -> bool:
        """Makes the region enforce it; False where it enforces a later one, has lowered since, or holds another
        version.

        Raises LedgerUnavailable, MemoryLost."""
        outcome = PublishOutcome(await self.run(lease_call(org, terms, self.shards, generation)))
        if outcome is PublishOutcome.MEMORY_LOST:
            raise MemoryLost("lease: Redis has lost its memory")
        return outcome is PublishOutcome.INSTALLED

    async def lower(self, org: str, most: Mapping[str, int], generation: str, above: int = 0) -> int:
        """Gives units up; returns how often the region has, which is more than `above`. Raises LedgerUnavailable,
        MemoryLost."""
        returns: int = await self.run(lower_call(org, most, self.shards, generation, above))
        if returns == PublishOutcome.MEMORY_LOST:
            raise MemoryLost("lower: Redis has lost its memory")
        return returns

    async def announce(self, org: str) -> None:
        """Lets gateways that wait for the organization try again. Raises LedgerUnavailable."""
        try:
            await cast("Any", self.redis.publish(keys.CHANGED, org))
        except RedisError as e:
            raise LedgerUnavailable(f"announcing: {e}") from e

    async def lapse(self, orgs: Sequence[str], generation: str | None = None) -> int:
        """Ends the leases of organizations of one shard, which has lost its memory; returns how many had one.

        With `generation`, only while the shard has that one. Raises LedgerUnavailable, MemoryLost."""
        ended: int = await self.run(lapse_call(orgs, self.shards, generation))
        if ended == PublishOutcome.MEMORY_LOST:
            raise MemoryLost(f"lapse: {ANOTHER}")
        return ended

    async def under_way(self, org: str) -> int:
        """Requests with a permit, of an organization whose number is limited. Raises LedgerUnavailable."""
        try:
            seconds, _ = await cast("Any", self.redis.time())
            name = keys.permits_key(org, self.shards)
            return int(await cast("Any", self.redis.zcount(name, f"({seconds}", "+inf")))
        except RedisError as e:
            raise LedgerUnavailable(f"permits: {e}") from e

    # Access

    async def look(self, org: str, digest: bytes | None = None, marks: Sequence[Mark] = (OF_ORGANIZATION,)) -> Look:
        """What is published of a principal: its key, and those of the marks that are set.

        Raises LedgerUnavailable, RecordMalformed."""
        published, values = await self._pipelined(look_words(org, digest, self.shards, marks))
        return decode_look(published, values, digest, marks)

    async def owner(self, digest: bytes) -> str | IndexMiss:
        """The organization of a key. Raises LedgerUnavailable."""
        [reply] = await self._pipelined([owner_words(digest, self.shards)])
        return decode_owner(reply)

    async def index(self, owners: Mapping[bytes, str]) -> None:
        """Writes the organizations of keys, by their digests. A key is indexed before it is published.

        Raises LedgerUnavailable."""
        for names in self._by_shard(owners).values():
            pairs = [part for digest in names for part in (keys.key_index_key(digest, self.shards), owners[digest])]
            for at in range(0, len(pairs), INDEXED_AT_ONCE):
                await self._pipelined([("MSET", *pairs[at : at + INDEXED_AT_ONCE])])

    async def _stage(self, org: str, access: AccessChanges) -> str | None:
        """Writes all of an organization's access beside what is published, in parts, where it is too much for one call.
        The name of what was written. Raises LedgerUnavailable."""
        if access.since is not None or len(access.records) + len(access.marks) <= PUBLISHED_AT_ONCE:
            return None
        name = token_hex(8)
        key = keys.staged_access_key(org, self.shards, name)
        parts = [part for pair in access.written().items() for part in pair]
        for at in range(0, len(parts), INDEXED_AT_ONCE):
            words = ("HSET", key, *parts[at : at + INDEXED_AT_ONCE])
            await self._pipelined([words, ("EXPIRE", key, STAGED_SECONDS)])
        return name

    async def unindex(self, digests: Iterable[bytes]) -> None:
        """Removes keys that are gone for good, once the version without them is published. Raises LedgerUnavailable."""
        for names in self._by_shard(digests).values():
            index_keys = [keys.key_index_key(digest, self.shards) for digest in names]
            for at in range(0, len(index_keys), INDEXED_AT_ONCE):
                await self._pipelined([("DEL", *index_keys[at : at + INDEXED_AT_ONCE])])

    async def index_complete(self, shard: int) -> bool:
        """Whether a key that the shard's index lacks does not exist. Raises LedgerUnavailable."""
        names = keys.key_index_marker(shard), keys.generation_key(shard)
        [(marker, generation)] = await self._pipelined([("MGET", *names)])
        return is_complete(marker, generation)

    async def mark_index(self, shard: int, generation: str) -> bool:
        """Says that the shard's index is complete. `generation`: as it was before the index was filled; where Redis has
        lost its memory since, nothing changes, and it must be filled again. Raises LedgerUnavailable."""
        return bool(await self.run(mark_index_call(shard, generation)))

    def _by_shard(self, digests: Iterable[bytes]) -> dict[int, list[bytes]]:
        by_shard: dict[int, list[bytes]] = {}
        for digest in digests:
            by_shard.setdefault(keys.shard_of_digest(digest, self.shards), []).append(digest)
        return by_shard

    async def _pipelined(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Replies of commands of one slot, sent together over one connection. Raises LedgerUnavailable."""
        try:
            async with self.redis.pipeline(transaction=False) as pipe:
                for words in commands:
                    cast("Any", pipe).execute_command(*words)
                return cast("list[Any]", await cast("Any", pipe).execute())
        except RedisError as e:
            raise LedgerUnavailable(f"{commands[0][0]}: {e}") from e

    # Repairs

    async def append(
        self, org: str, events: Sequence[str], moves: Mapping[str, int], generation: str | None = None
    ) -> None:
        """Puts lost events back. `moves`: field of the hash -> what the events add to it.

        With `generation`, only while the shard has that one. Raises LedgerUnavailable, MemoryLost."""
        appended: int = await self.run(append_call(org, events, moves, self.shards, generation))
        if appended == PublishOutcome.MEMORY_LOST:
            raise MemoryLost(f"append: {ANOTHER}")

    async def advance(self, shard: int, watermark: str, generation: str | None = None) -> str:
        """Makes the shard's stream continue after the watermark; returns the last id that it had before, or ''.

        With `generation`, only while the shard has that one. Raises LedgerUnavailable, MemoryLost."""
        reply: bytes | int = await self.run(advance_call(shard, watermark, generation))
        if isinstance(reply, int):
            raise MemoryLost(f"advance: {ANOTHER}")
        return reply.decode()

    async def tail(self, shard: int, orgs: Sequence[str], after: str, events_max: int) -> Tail:
        """The hashes of organizations of one shard, and the events after `after`, read at one moment.

        `events` is None where there are more than `events_max`. Raises LedgerUnavailable."""
        return decode_tail(await self.run(tail_call(shard, orgs, after, events_max, self.shards)), orgs)

    async def rebase(self, org: str, generation: str, repairs: int, moves: Mapping[str, int]) -> bool:
        """Adds to counters, unless somebody else has repaired or rebuilt the organization since they were read.

        `moves`: field of the hash -> units. Raises LedgerUnavailable."""
        return bool(await self.run(rebase_call(org, generation, repairs, moves, self.shards)))
