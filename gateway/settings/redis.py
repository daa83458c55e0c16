"""`redis`: the ledger's Redis."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from common.redis_keeping import Persistence
from common.redis_url import RedisUrl
from common.settings_file import Location, SettingsConflict, SettingsModel
from gateway.settings.values import Milliseconds
from quota.keys import SHARDS_DEFAULT, SHARDS_MAX


class Redis(SettingsModel):
    """The ledger's Redis."""

    url: RedisUrl
    """redis://, rediss:// (TLS) or unix://, with redis-py's options for the database and TLS (`db`, `ssl_certfile`, …).
    redis+sentinel://host,host/NAME (rediss+sentinel://): the primary that these Sentinels name; options of the
    Sentinels themselves begin with `sentinel_`. redis+cluster://host,host (rediss+cluster://): all primaries of the
    Cluster that one of these servers belongs to. It is kept out of logs, since it can hold a password."""
    timeout_ms: Milliseconds = 200
    """After so long without a reply, what is under way is refused with 503: beyond this the gateway would be the
    outage. What was charged without a reply is given back when Redis answers again."""
    budget_ms: Milliseconds = 50
    """While Redis owes a reply for longer than this, further requests are not queued behind it: they are decided at
    once, as their route's `degraded` says. Keep it above the pauses that Redis makes under your load."""
    shards: Annotated[int, Field(ge=1, le=SHARDS_MAX)] = SHARDS_DEFAULT
    """It is fixed at installation and compared at start: with another number, organizations would be looked for where
    they are not."""
    persistence: Persistence = "required"
    """required: a start is refused where Redis keeps neither an append-only file nor snapshots. none: that is wanted,
    and a restart of Redis forgets what is not in PostgreSQL yet."""
    durability: Literal["memory", "aof", "replica"] = "memory"
    """What an admitted request outlives (docs/durability.md). memory: what Redis' own settings keep. aof: it is on the
    disk before it is forwarded. replica: it is in the memory of replicas."""
    replicas: Annotated[int, Field(ge=1, le=16)] = 1
    """With durability replica: how many must have it."""
    durability_ms: Milliseconds = 100
    """With durability aof and replica: what is not confirmed within this time is not forwarded, and given back."""
    receipts_max: Annotated[int, Field(ge=1000)] = 1_000_000
    """Takes that a worker remembers until they are in PostgreSQL, some 30 bytes each. What a Redis that is flushed or
    replaced forgets is put back from them. Beyond this number the oldest are forgotten, and counted."""
    unwritten_seconds_max: Annotated[float, Field(ge=10, le=86_400)] | None = None
    """While a take waits for longer than this to be written to PostgreSQL, or `receipts_max` of them wait, requests get
    503, so that a flush loses none. null: the gateway goes on, and events wait in Redis."""

    @model_validator(mode="after")
    def _waits_less_than_it_times_out(self) -> Self:
        if self.durability != "memory" and self.durability_ms >= self.timeout_ms:
            raise SettingsConflict(
                [(("durability_ms",), f"must be less than timeout_ms ({self.timeout_ms}), which ends a wait")]
            )
        return self

    @model_validator(mode="after")
    def _is_honoured(self) -> Self:
        faults: list[tuple[Location, str]] = []
        if self.replicas > 1 and self.durability != "replica":
            faults.append((("replicas",), f"is for durability replica, and it is {self.durability}"))
        if self.budget_ms > self.timeout_ms and "budget_ms" in self.model_fields_set:
            faults.append((("budget_ms",), f"must not be more than timeout_ms ({self.timeout_ms}), which ends a wait"))
        if faults:
            raise SettingsConflict(faults)
        return self
