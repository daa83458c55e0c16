"""A region with an agent and without a control plane: a test looks when it wants to."""

from collections.abc import Mapping
from itertools import count

from control.db import Database, StoreUnavailable
from control.entitlements import stored_state
from control.entitlements.derive import derive
from control.regions.agent import Agent
from control.regions.home import Answer, Home
from control.regions.terms import Report
from quota import generation, keys
from quota.ledger import Ledger
from quota.model import Decision, Exhausted
from tests import charging

CALLS = "api_calls"


class Way:
    """From a region to its home. It can be cut."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self.cut = False
        self.answers = 0

    async def answer(self, region: str, reports: Mapping[str, Report]) -> dict[str, Answer]:
        if self.cut:
            raise StoreUnavailable("the way to the home is cut")
        self.answers += 1
        return await self._home.answer(region, reports)


class Publishing:
    def __init__(self, db: Database, ledger: Ledger) -> None:
        self._db, self._ledger = db, ledger

    async def install(self, org: str) -> None:
        seconds, microseconds = await self._ledger.redis.time()
        now = seconds + microseconds / 1e6
        async with self._db.connection() as connection:
            state = await stored_state.load_state(connection, org, now)
        assert state is not None
        await self._ledger.publish(derive(state, now), leased=True)


class Region:
    def __init__(self, name: str, ledger: Ledger, home: Home, db: Database) -> None:
        self.ledger, self.way = ledger, Way(home)
        self.seconds = 0.0
        self.agent = Agent(name, self.way, ledger, Publishing(db, ledger), lambda: self.seconds)
        self._names = (f"{name}{n}" for n in count())
        self.refused: dict[str, int] = {}

    async def vouch(self, epoch: int) -> None:
        for shard in range(self.ledger.shards):
            await self.ledger.redis.set(keys.generation_key(shard), generation.made("server", epoch, "nonce"))

    async def take(self, org: str, units: int = 1) -> Decision:
        decision = await charging.take(self.ledger, org, next(self._names), {CALLS: units})
        if isinstance(decision, Exhausted):
            self.refused[CALLS] = max(units, self.refused.get(CALLS, 0))
        return decision

    async def look(self, org: str) -> bool:
        """As the agent does each second."""
        self.seconds += 1
        refused, self.refused = self.refused, {}
        return org in await self.agent.look({org: refused})

    async def used(self, org: str) -> int:
        snapshot = await self.ledger.peek(org)
        return 0 if snapshot is None else sum(u.used for u in snapshot.usage)
