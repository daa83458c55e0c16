"""A Redis Cluster whose primaries fail, and whose slots move, while clients are served: no unit is given away twice,
and the shards of the other primaries go on."""

import asyncio
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from redis.exceptions import ResponseError

from common import redis_connections
from common.redis_cluster.client import ClusterClient
from common.redis_cluster.topology import Address, slot_of
from devstack import token_mint, valkey_cluster
from devstack.valkey_cluster import ClusterNode
from gateway.cluster.configured import way_of
from gateway.settings.redis import Redis
from quota import keys
from quota.keys import SHARDS_DEFAULT
from tests.cluster import SETTINGS, kill, migrate, migrate_by_keys
from tests.control.plane import JWT_SECRET
from tests.faults.running import CLIENTS, DEADLINE_SECONDS, Load, Planes, planes, used, written


class Cluster:
    def __init__(self, stack: Planes, nodes: list[ClusterNode], url: str) -> None:
        self.stack = stack
        self.nodes = nodes
        self.url = url

    def client(self) -> ClusterClient:
        client = redis_connections.client(self.url, socket_timeout=DEADLINE_SECONDS)
        assert isinstance(client, ClusterClient)
        return client

    async def owner(self, org: str) -> Address:
        async with self.client() as client:
            owner = (await client.ask_topology()).owner(slot_of(keys.org_key(org, SHARDS_DEFAULT)))
        assert owner is not None
        return owner

    async def two_apart(self, allowance: int) -> tuple[str, str]:
        """Organizations of two primaries."""
        one = self.stack.entitle(allowance)
        while await self.owner(other := self.stack.entitle(allowance)) == await self.owner(one):
            pass
        return one, other

    def node(self, address: Address) -> ClusterNode:
        return next(node for node in self.nodes if node.port == address.port)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, postgres_dsn: str, sample_upstream: str) -> Iterator[Cluster]:
    directory: Path = tmp_path_factory.mktemp("cluster")
    with valkey_cluster.running(directory / "nodes", settings=SETTINGS) as nodes:
        url = valkey_cluster.url(nodes)
        with planes(directory, url, postgres_dsn, sample_upstream) as stack:
            yield Cluster(stack, nodes, url)


async def nothing_is_given_away(cluster: Cluster, org: str, load: Load, allowance: int, lost_at_most: int) -> None:
    """Not one more than the allowance, and each with its row."""
    admitted = load.answers[200] + await cluster.stack.admitted_now(org)
    assert allowance - lost_at_most <= admitted <= allowance
    async with cluster.client() as redis:
        charged = await used(redis, org)
    assert admitted <= charged <= allowance
    assert await written(cluster.stack, org, charged) == charged


async def test_clients_of_all_shards_are_served_to_the_last_unit(cluster: Cluster) -> None:
    for org in await cluster.two_apart(300):
        load = Load(cluster.stack, org)
        await load.run(0, lambda: asyncio.sleep(0))
        assert load.answers[200] == 300
        assert not load.answers[503]
        await nothing_is_given_away(cluster, org, load, 300, 0)


async def test_a_slot_that_moves_under_load_costs_no_request_and_gives_nothing_away(cluster: Cluster) -> None:
    org, other = await cluster.two_apart(900)
    loads = Load(cluster.stack, org), Load(cluster.stack, other)
    source, target = await cluster.owner(org), await cluster.owner(other)
    slot = slot_of(keys.org_key(org, SHARDS_DEFAULT))

    async def there_and_back() -> None:
        async with cluster.client() as client:
            for old, new in ((source, target), (target, source)):
                await migrate(client, slot, old, new)
                await loads[0].admitted(loads[0].answers[200] + 200)

    await asyncio.gather(loads[0].run(200, there_and_back), loads[1].run(0, lambda: asyncio.sleep(0)))
    for load, of in zip(loads, (org, other), strict=True):
        assert load.answers[200] == 900
        assert load.answers[503] == 0
        await nothing_is_given_away(cluster, of, load, 900, 0)


async def test_the_first_request_of_a_principal_waits_for_a_shard_that_moves_as_a_take_does(cluster: Cluster) -> None:
    org, other = await cluster.two_apart(100)
    source, target = await cluster.owner(org), await cluster.owner(other)
    slot, answers = slot_of(keys.org_key(org, SHARDS_DEFAULT)), list[int]()
    async with cluster.client() as client, httpx.AsyncClient(timeout=DEADLINE_SECONDS) as http:
        for number, (old, new) in enumerate(((source, target), (target, source))):
            minted = token_mint.mint(org, JWT_SECRET, now=time.time() + number, ttl=timedelta(hours=1))
            await migrate(client, slot, old, new)
            answer = await http.get(
                f"{cluster.stack.gateway}/status/200", headers={"authorization": f"Bearer {minted}"}
            )
            answers.append(answer.status_code)
    assert answers == [200, 200]


async def test_a_slot_that_is_moved_key_by_key_under_load_gives_nothing_away(cluster: Cluster) -> None:
    """As tools from before MIGRATESLOTS do it: some keys are here, some there, and nobody vouches for either half."""
    org, other = await cluster.two_apart(900)
    loads = Load(cluster.stack, org), Load(cluster.stack, other)
    source, target = await cluster.owner(org), await cluster.owner(other)
    slot = slot_of(keys.org_key(org, SHARDS_DEFAULT))

    async def moved() -> None:
        async with cluster.client() as client:
            await migrate_by_keys(client, slot, source, target)
        await loads[0].admitted(loads[0].answers[200] + 200)

    await asyncio.gather(loads[0].run(200, moved), loads[1].run(0, lambda: asyncio.sleep(0)))
    assert await cluster.owner(org) == target
    await nothing_is_given_away(cluster, org, loads[0], 900, CLIENTS)
    await nothing_is_given_away(cluster, other, loads[1], 900, 0)


async def test_a_slot_that_loses_its_owner_stops_its_shard_alone_and_gives_nothing_away(cluster: Cluster) -> None:
    org = cluster.stack.entitle(900)
    shard, owner = keys.shard_of(org, SHARDS_DEFAULT), await cluster.owner(org)
    while keys.shard_of(other := cluster.stack.entitle(900), SHARDS_DEFAULT) == shard or (
        await cluster.owner(other) != owner
    ):
        pass
    loads = Load(cluster.stack, org), Load(cluster.stack, other)
    slot = slot_of(keys.org_key(org, SHARDS_DEFAULT))

    async def lost_and_found() -> None:
        # The owner first: what it says of itself has the others give the slot to it again.
        for node in (cluster.node(owner), *cluster.nodes):
            with node.redis as redis, suppress(ResponseError):
                redis.execute_command("CLUSTER DELSLOTS", slot)
        before = loads[0].answers[200] + CLIENTS  # what is under way may have been charged
        await loads[1].admitted(loads[1].answers[200] + 200)
        assert loads[0].answers[200] <= before
        with cluster.node(owner).redis as redis:
            redis.execute_command("CLUSTER ADDSLOTS", slot)
        await loads[0].admitted(loads[0].answers[200] + 200)

    await asyncio.gather(loads[0].run(200, lost_and_found), loads[1].run(0, lambda: asyncio.sleep(0)))
    assert loads[1].answers[503] == 0, "its server has the other shards all the time"
    await nothing_is_given_away(cluster, org, loads[0], 900, CLIENTS)
    await nothing_is_given_away(cluster, other, loads[1], 900, 0)


async def test_a_gateway_that_finds_another_number_of_shards_later_takes_nothing_and_tells_it(cluster: Cluster) -> None:
    """At its start the Cluster may have been away."""
    settings = Redis.model_validate({"url": cluster.url, "shards": 16, "timeout_ms": 5000})
    async with cluster.client() as client:
        links = way_of(asyncio.get_running_loop(), settings, client)
        links.start()
        async with asyncio.timeout(DEADLINE_SECONDS):
            while links.fault != "redis was installed with other shards":  # noqa: ASYNC110 - it asks on its own
                await asyncio.sleep(0.02)
        assert links.down_reason.startswith("redis.shards is 16, but this Redis was installed with 32")
        assert not any(links.of(shard).accepts for shard in range(16))
        await links.close()


async def test_a_primary_that_hangs_is_left_at_the_failover_and_wakes_up_beside_the_next_one_with_nothing_given_away(
    cluster: Cluster,
) -> None:
    """The gateway has a minute for a reply, and one of its listeners may hear nothing from the server that hangs."""
    org, other = await cluster.two_apart(1500)
    hanging = cluster.node(await cluster.owner(org))
    assert hanging.child is not None
    process = hanging.child.process
    loads = Load(cluster.stack, org), Load(cluster.stack, other)

    async def hangs() -> None:
        process.send_signal(signal.SIGSTOP)
        try:
            await loads[0].admitted(loads[0].answers[200] + 100)
        finally:
            process.send_signal(signal.SIGCONT)
        await loads[0].admitted(loads[0].answers[200] + 100)

    await asyncio.gather(loads[0].run(200, hangs), loads[1].run(0, lambda: asyncio.sleep(0)))
    assert loads[1].answers[503] == 0, "the other primary was there all the time"
    await nothing_is_given_away(cluster, org, loads[0], 1500, CLIENTS)
    await nothing_is_given_away(cluster, other, loads[1], 1500, 0)
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not await asyncio.to_thread(valkey_cluster.is_formed, cluster.nodes, 3):  # noqa: ASYNC110 - no bell
            await asyncio.sleep(0.05)


async def test_what_a_primary_says_late_that_hung_and_was_replaced_is_not_believed(cluster: Cluster) -> None:
    """It wakes up, charges requests that waited for it, and is forgotten: nobody else knows of these charges."""
    org = cluster.stack.entitle(1500)
    hanging = cluster.node(await cluster.owner(org))
    assert hanging.child is not None
    process = hanging.child.process
    token = token_mint.mint(org, JWT_SECRET, now=time.time(), ttl=timedelta(hours=1))
    headers, limits = {"authorization": f"Bearer {token}"}, httpx.Limits(max_connections=None)
    url, admitted = f"{cluster.stack.gateway}/status/200", 0
    async with httpx.AsyncClient(headers=headers, limits=limits, timeout=DEADLINE_SECONDS) as client:
        process.send_signal(signal.SIGSTOP)
        try:
            waiting = [asyncio.create_task(client.get(url)) for _ in range(2 * CLIENTS)]
            while not admitted:
                with suppress(httpx.TimeoutException):
                    admitted += (await client.get(url, timeout=0.5)).status_code == 200
                await asyncio.sleep(0.05)
        finally:
            process.send_signal(signal.SIGCONT)
        admitted += [(await each).status_code for each in waiting].count(200)
    async with cluster.client() as redis:
        assert await used(redis, org) >= admitted
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not await asyncio.to_thread(valkey_cluster.is_formed, cluster.nodes, 3):  # noqa: ASYNC110 - no bell
            await asyncio.sleep(0.05)


async def test_a_primary_that_is_killed_stops_its_shards_alone_and_gives_nothing_away(cluster: Cluster) -> None:
    org, other = await cluster.two_apart(1500)
    gone = cluster.node(await cluster.owner(org))
    loads = Load(cluster.stack, org), Load(cluster.stack, other)

    async def killed() -> None:
        kill(gone)
        await loads[0].admitted(loads[0].answers[200] + 100)

    await asyncio.gather(loads[0].run(200, killed), loads[1].run(0, lambda: asyncio.sleep(0)))
    assert loads[0].answers[503], "while its shards had no primary"
    assert loads[1].answers[503] == 0, "the other primary was there all the time"
    assert loads[1].answers[200] == 1500
    await nothing_is_given_away(cluster, org, loads[0], 1500, CLIENTS)
    await nothing_is_given_away(cluster, other, loads[1], 1500, 0)
    gone.start(SETTINGS)
    gone.wait_ready()
