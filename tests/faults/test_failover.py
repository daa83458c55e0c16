"""Two servers behind one address: the first is replaced by its replica, and comes back as it was. No unit is given away
by what it does not know, and none is lost that only one of the two was told of."""

import asyncio
from collections.abc import Iterator

import pytest
from redis.asyncio import Redis

from devstack.ports import LOOPBACK
from tests.faults.address import Address
from tests.faults.running import CLIENTS, DEADLINE_SECONDS, Load, Stack, running, used, written
from tests.gateway.store import Store

FOUND_SECONDS = 20  # a take is looked for twice, five seconds apart


class Pair:
    def __init__(self, stack: Stack, address: Address, front: Store, other: Store) -> None:
        self.stack = stack
        self.front = front
        """The server that the address leads to."""
        self._address = address
        self._other = other

    async def follow(self) -> None:
        """The other one has all that the front is told."""
        async with Redis.from_url(self._other.url) as redis:
            await redis.replicaof(LOOPBACK, str(self.front.port))
            async with asyncio.timeout(DEADLINE_SECONDS):
                while (await redis.info("replication"))["master_link_status"] != "up":  # noqa: ASYNC110 - a role rings no bell
                    await asyncio.sleep(0.02)

    async def part(self) -> None:
        """The other one hears no more of what the front is told."""
        async with Redis.from_url(self._other.url) as redis:
            await redis.replicaof("NO", "ONE")

    def switch(self) -> None:
        """The other one is in front, as it is."""
        self.front, self._other = self._other, self.front
        self._address.lead(self.front.port)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, postgres_dsn: str, sample_upstream: str) -> Iterator[Pair]:
    directory = tmp_path_factory.mktemp("failover")
    stores = Store(directory / "one"), Store(directory / "other")
    for store in stores:
        store.directory.mkdir()
        store.start({"repl-diskless-sync-delay": "0"})
    address = Address(stores[0].port)
    try:
        with running(directory, stores[0], address.url, postgres_dsn, sample_upstream) as stack:
            yield Pair(stack, address, *stores)
    finally:
        for store in stores:
            store.end()
        address.close()


async def nothing_is_given_away(pair: Pair, org: str, load: Load, allowance: int, switches: int) -> None:
    """Not one more than the allowance, and each with its row. Takes whose replies were lost with a server are given
    back when they are found; the charge of one that was written before the next server knew of it may stay."""
    admitted, loop = load.answers[200], asyncio.get_running_loop()
    until = loop.time() + FOUND_SECONDS
    while admitted < allowance and loop.time() < until:
        admitted += await pair.stack.admitted_now(org)
    admitted += await pair.stack.admitted_now(org)
    assert allowance - CLIENTS * (switches + 1) <= admitted <= allowance
    async with Redis.from_url(pair.front.url) as redis:
        charged = await used(redis, org)
    assert admitted <= charged <= allowance
    assert await written(pair.stack, org, charged) == charged


async def test_an_old_primary_that_comes_back_gives_nothing_away_and_every_request_has_its_row(pair: Pair) -> None:
    await pair.follow()
    org = pair.stack.entitle(900)
    load = Load(pair.stack, org)

    async def there_and_back() -> None:
        await pair.part()
        pair.switch()
        await load.admitted(600)
        pair.switch()

    await load.run(200, there_and_back)
    await nothing_is_given_away(pair, org, load, 900, switches=2)


async def test_of_two_servers_that_both_took_requests_none_is_counted_twice_and_none_is_missing(pair: Pair) -> None:
    await pair.follow()
    org = pair.stack.entitle(1200)
    load = Load(pair.stack, org)

    async def there_and_back_and_there() -> None:
        await pair.part()
        await load.admitted(load.answers[200] + 100)  # which the other one never hears of
        for _ in range(3):
            pair.switch()
            await load.admitted(load.answers[200] + 200)

    await load.run(200, there_and_back_and_there)
    await nothing_is_given_away(pair, org, load, 1200, switches=3)
