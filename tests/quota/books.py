"""One organization's ledger on a real Valkey, and what a test wants to see of it."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from quota import keys
from quota.calls.take import charge_argv, decode_take
from quota.events import FIELD, UsageEvent, parse
from quota.ledger import Ledger
from quota.model import (
    Admitted,
    Decision,
    Entitlement,
    MeterBalance,
    MeterLimit,
    OrganizationSnapshot,
    Settlement,
    Status,
)
from quota.periods import Period
from quota.scripts import script
from tests import charging
from tests.replies import as_entries, as_text

Kind = TypeVar("Kind")
COUNTERS = ("used", "burnt", "over", "grant")


def expect(kind: type[Kind], value: object) -> Kind:
    """The value, which is one of this kind."""
    assert isinstance(value, kind), value
    return value


class Books:
    """The organization `acme`: 10 api_calls with a hard stop, unless a test publishes something else."""

    org = "acme"

    def __init__(self, redis: Redis, now: int) -> None:
        self.redis = redis
        self.ledger = Ledger(redis)
        self.now = now  # Redis TIME when the test began, seconds
        self.periods = (Period(now - 1000, now + 100_000), Period(now + 100_000, now + 200_000))
        self.start = self.periods[0].start
        self.hash = keys.org_key(self.org, self.ledger.shards)
        self.stream = keys.events_key(keys.shard_of(self.org, self.ledger.shards))
        self.version = 0
        self.request_ids = map(str, count(1))

    def entitlement(self, **terms: Any) -> Entitlement:
        """The next version."""
        self.version += 1
        usual: dict[str, Any] = {"version": self.version, "status": Status.ACTIVE, "periods": self.periods}
        return Entitlement(self.org, **usual | {"meters": (MeterLimit("api_calls", 10),)} | terms)

    async def publish(self, *, leased: bool = False, **terms: Any) -> bool:
        return await self.ledger.publish(self.entitlement(**terms), leased=leased)

    async def take(self, api_calls: int = 1, /, **charges: int) -> Decision:
        return await charging.take(self.ledger, self.org, next(self.request_ids), charges or {"api_calls": api_calls})

    async def admitted(self, api_calls: int = 1, /, **charges: int) -> Admitted:
        return expect(Admitted, await self.take(api_calls, **charges))

    async def receipt(self, api_calls: int = 1, /, **charges: int) -> bytes:
        return (await self.admitted(api_calls, **charges)).receipt

    async def settle(self, receipt: bytes, /, **actual: int) -> Settlement:
        return await charging.settle(self.ledger, self.org, receipt, actual)

    async def take_at_once(self, *requests: Mapping[str, Any]) -> list[Decision | ResponseError]:
        """Several takes in one script call, as the gateway's link sends them; each is what `take` would say of it."""
        words = [[next(self.request_ids), self.org, "", *charge_argv(charges)] for charges in requests]
        return self.decode(await self.call([self.hash, self.stream] * len(requests), *words), *requests)

    async def call(self, names: list[str], *words: list[Any]) -> list[Any]:
        argv = [word for request in words for word in request]
        return expect(list, await self.redis.eval(script("take").source.decode(), len(names), *names, *argv))

    @staticmethod
    def decode(replies: list[Any], *requests: Mapping[str, Any]) -> list[Decision | ResponseError]:
        pairs = zip(replies, requests, strict=True)
        return [reply if isinstance(reply, ResponseError) else decode_take(reply, list(r)) for reply, r in pairs]

    async def counters(self) -> dict[str, int]:
        """What the hash counts, without zeros; the current period's counters without their start: `used:api_calls`."""
        fields = {as_text(name): value for name, value in (await self.redis.hgetall(self.hash)).items()}
        counted = {name: int(value) for name, value in fields.items() if name.partition(":")[0] in COUNTERS}
        return {name.replace(f":{self.start}:", ":"): units for name, units in counted.items() if units}

    async def snapshot(self, org: str = org) -> OrganizationSnapshot:
        return expect(OrganizationSnapshot, await self.ledger.peek(org))

    async def balance(self, meter: str = "api_calls") -> MeterBalance:
        return next(balance for balance in (await self.snapshot()).balances() if balance.meter == meter)

    async def texts(self) -> list[str]:
        return [fields[FIELD].decode() for _, fields in as_entries(await self.redis.xrange(self.stream))]

    async def events(self) -> list[UsageEvent]:
        return [parse(text) for text in await self.texts()]

    async def event_sums(self) -> dict[str, int]:
        """What the stream says `counters` must be."""
        sums: dict[str, int] = {}
        for event in await self.events():
            period = "" if event.period_start == self.start else f"{event.period_start}:"
            for charge in event.charges:
                burnt = dict(charge.burnt)
                moved = {"used": charge.units, "burnt": sum(burnt.values()), "over": charge.overage}
                for kind, units in moved.items():
                    name = f"{kind}:{period}{charge.meter}"
                    sums[name] = sums.get(name, 0) + units
                for grant, units in burnt.items():
                    sums[f"grant:{grant}"] = sums.get(f"grant:{grant}", 0) + units
        return {name: units for name, units in sums.items() if units}

    @asynccontextmanager
    async def unchanged(self) -> AsyncIterator[None]:
        """Whatever happens inside writes nothing: not to the organization's hash, not to the stream, not elsewhere."""
        before = await self._state()
        yield
        assert await self._state() == before

    async def _state(self) -> tuple[Any, ...]:
        return await self.redis.dump(self.hash), await self.redis.xlen(self.stream), await self.redis.dbsize()
