"""Two servers behind one address: the first is replaced by its replica, and comes back as it was. No unit is given away
by what it does not know, and none is lost that only one of the two was told of."""

import asyncio
from collections.abc import Iterator

import pytest
from redis.asyncio import Redis

from devstack.ports import LOOPBACK
from tests.faults.address import Address
from tests.faults.running import DEADLINE_SECONDS, Load, Stack, running, used, written
from tests.gateway.store import Store


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
                while (await redis.info("replication"))["master_link_status"] != "up":  # noqa: ASYNC110
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


async def all_are_given(pair: Pair, org: str, load: Load, allowance: int) -> None:
    """Not one more than the allowance, and in the end all of it, each with its row: a take that one server applied and
    whose reply was lost is given back when it is found."""
    admitted = load.answers[200]
    async with asyncio.timeout(DEADLINE_SECONDS):
        while admitted < allowance:
            admitted += await pair.stack.admitted_now(org)
    admitted += await pair.stack.admitted_now(org)
    assert admitted == allowance
    async with Redis.from_url(pair.front.url) as redis:
        assert await used(redis, org) == allowance
    assert await written(pair.stack, org, allowance) == allowance


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
    await all_are_given(pair, org, load, 900)


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
    await all_are_given(pair, org, load, 1200)
