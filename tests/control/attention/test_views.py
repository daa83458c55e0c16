"""Servers that differ on who holds the ledger are an incident until they agree; so is a replica that could be promoted
and would lose what is charged."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, aclosing
from dataclasses import dataclass
from functools import partial

import pytest
from redis.asyncio import Redis

from common import redis_connections
from common.redis_cluster.client import ClusterClient
from common.redis_cluster.topology import disagreement, unserved
from common.redis_keeping import refuse_losses
from common.redis_sentinel import Sentinels
from control.attention.keeping import LOSES, KeepingWatch
from control.attention.standing import Standing
from control.attention.views import (
    CLUSTER,
    PRIMARIES,
    SENTINELS,
    SHARDS,
    UNSERVED,
    ViewsWatch,
    of_cluster,
    of_layout,
    of_sentinels,
    watches,
)
from control.http.context import Context
from control.ledger.primaries import several
from control.settings.control_plane import Redis as RedisSettings
from devstack import valkey, valkey_cluster
from devstack.child import stopping
from devstack.ports import LOOPBACK, free_port
from devstack.sentinels import NAME, Group
from devstack.valkey_cluster import ClusterNode
from quota import keys
from quota.ledger import UnsupportedServer
from tests.control.plane import MovedClock
from tests.faults.address import Address

PATIENCE_SECONDS = 60
SETTINGS = {"cluster-node-timeout": "60000", "repl-diskless-sync-delay": "0"}
"""Of the Cluster: no replica takes over, however busy the machine is."""


async def opened(context: Context, kind: str) -> dict[str, str]:
    async with context.db.connection() as connection:
        rows = await connection.fetch(
            "SELECT key, content ->> 'why' AS why FROM incident WHERE kind = $1 AND closed_at IS NULL", kind
        )
    return {row["key"]: row["why"] for row in rows}


async def reached(holds: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await holds():  # noqa: ASYNC110 - servers ring no bell
            await asyncio.sleep(0.05)


@dataclass(frozen=True)
class Watched:
    """Two groups, as of two installations, whose Sentinels know their primaries by the same name."""

    one: Group
    other: Group

    @property
    def url(self) -> str:
        hosts = ",".join(f"{LOOPBACK}:{port}" for port in (*self.one.sentinels, *self.other.sentinels))
        return f"redis+sentinel://{hosts}/{NAME}/0"


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    root = tmp_path_factory.mktemp("sentinels")
    one = Group(root / "one", [free_port(), free_port()], [free_port(), free_port()], root)
    other = Group(root / "other", [free_port()], [free_port()], root / "logs")
    (root / "logs").mkdir()
    with ExitStack() as stack:
        for group in (one, other):
            group.prepare()
            started = [(group.start_server(number), port) for number, port in enumerate(group.servers)]
            started += [(group.start_sentinel(number), port) for number, port in enumerate(group.sentinels)]
            for child, _ in started:
                stack.enter_context(stopping(child))
            for child, port in started:
                valkey.wait_ready(child, port)
        yield Watched(one, other)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[ClusterNode]]:
    with valkey_cluster.running(tmp_path_factory.mktemp("cluster"), 3, 1, SETTINGS) as started:
        yield started


@pytest.fixture
async def cluster(nodes: list[ClusterNode]) -> AsyncIterator[ClusterClient]:
    client = redis_connections.client(valkey_cluster.url(nodes), socket_timeout=10)
    assert isinstance(client, ClusterClient)
    await client.ask_topology()
    async with aclosing(client):
        yield client


async def test_sentinels_that_name_different_primaries_are_one_incident_until_they_agree(
    context: Context, clock: MovedClock, watched: Watched
) -> None:
    def watch() -> ViewsWatch:
        return ViewsWatch(Standing(SENTINELS, context.db, clock), NAME, of_sentinels(Sentinels(watched.url)))

    one, other = watch(), watch()
    await one.look()
    assert await opened(context, SENTINELS) == {}, "a failover has them differ for a moment"
    await one.look()
    await other.look()
    await other.look()
    first, second, astray = *watched.one.sentinels, *watched.other.sentinels
    mine, theirs = f"{LOOPBACK}:{watched.one.servers[0]}", f"{LOOPBACK}:{watched.other.servers[0]}"
    assert await opened(context, SENTINELS) == {
        NAME: f"the Sentinels disagree who the primary {NAME} is: {LOOPBACK}:{first} names {mine}; "
        f"{LOOPBACK}:{second} names {mine}; {LOOPBACK}:{astray} names {theirs}"
    }
    async with Redis(host=LOOPBACK, port=astray) as sentinel:
        await sentinel.execute_command("SENTINEL", "REMOVE", NAME)
        await sentinel.execute_command("SENTINEL", "MONITOR", NAME, LOOPBACK, watched.one.servers[0], 2)
        try:
            await one.look()
            assert await opened(context, SENTINELS) == {}
        finally:
            await sentinel.execute_command("SENTINEL", "REMOVE", NAME)
            await sentinel.execute_command("SENTINEL", "MONITOR", NAME, LOOPBACK, watched.other.servers[0], 1)


async def test_servers_of_a_cluster_that_differ_on_a_slot_are_one_incident_until_they_agree(
    context: Context, clock: MovedClock, nodes: list[ClusterNode], cluster: ClusterClient
) -> None:
    watch = ViewsWatch(Standing(CLUSTER, context.db, clock), "cluster", of_cluster(cluster, disagreement))
    await watch.look()
    await watch.look()
    assert await opened(context, CLUSTER) == {}
    ids = []
    for node in nodes[:2]:
        with node.redis as redis:
            ids.append(redis.execute_command("CLUSTER MYID"))
    slot = 100  # of the first node, which gives it to the second, and tells nobody
    with nodes[0].redis as redis:
        redis.execute_command("CLUSTER SETSLOT", slot, "NODE", ids[1])
    try:
        for _ in range(2):
            await watch.look()
        [(key, why)] = (await opened(context, CLUSTER)).items()
        assert key == "cluster"
        assert f"the servers of the Redis Cluster disagree whose slot {slot} is: " in why
        [mine] = [each for each in why.partition(" is: ")[2].split("; ") if each.endswith(nodes[1].address)]
        assert nodes[0].address in mine, "and its replica, if that has heard of it"
    finally:
        with nodes[0].redis as redis:
            redis.execute_command("CLUSTER SETSLOT", slot, "NODE", ids[0])
    await watch.look()
    assert await opened(context, CLUSTER) == {}


async def test_slots_that_lose_their_owner_are_one_incident_until_they_have_one_and_refuse_a_start(
    context: Context, clock: MovedClock, nodes: list[ClusterNode], cluster: ClusterClient
) -> None:
    watch = ViewsWatch(Standing(UNSERVED, context.db, clock), "cluster", of_cluster(cluster, unserved))
    for _ in range(2):
        await watch.look()
    assert await opened(context, UNSERVED) == {}
    for node in nodes:
        with node.redis as redis:
            redis.execute_command("CLUSTER DELSLOTS", 100)
    told = "the Redis Cluster does not cover all slots: no primary has 100"
    try:
        await watch.look()
        assert await opened(context, UNSERVED) == {}, "a failover takes a moment"
        await watch.look()
        assert await opened(context, UNSERVED) == {"cluster": told}
        with pytest.raises(UnsupportedServer, match=told):
            await refuse_losses(cluster, "none")
        assert await cluster.get("{another slot}") is None, "the others go on"
    finally:
        with nodes[0].redis as redis:
            redis.execute_command("CLUSTER ADDSLOTS", 100)
            owner = redis.execute_command("CLUSTER MYID")
        for node in nodes[1:3]:  # they would hear of it in seconds
            with node.redis as redis:
                redis.execute_command("CLUSTER SETSLOT", 100, "NODE", owner)

    async def all_know_of_it() -> bool:
        return all(view.topology.uncovered is None for view in (await cluster.views()).values())

    await reached(all_know_of_it)
    await watch.look()
    assert await opened(context, UNSERVED) == {}


async def test_a_primary_of_a_cluster_whose_settings_come_to_lose_is_named_by_the_incident_and_refuses_a_start(
    context: Context, clock: MovedClock, nodes: list[ClusterNode], cluster: ClusterClient
) -> None:
    watch, node = KeepingWatch(context.db, cluster, valkey_cluster.url(nodes), "required", clock), nodes[1]
    with node.redis as redis:
        before = redis.config_get("save")["save"]
        redis.config_set("maxmemory", 1 << 40)
        redis.config_set("maxmemory-policy", "allkeys-lru")
        redis.config_set("appendonly", "no")
        redis.config_set("save", "")
    evicts = f"{node.address}: Redis may remove counters when its memory is full (allkeys-lru)"
    try:
        await watch.look()
        told = await opened(context, LOSES)
        assert told.keys() == {f"eviction of {node.address}", f"persistence of {node.address}"}
        assert told[f"eviction of {node.address}"].startswith(evicts)
        with pytest.raises(UnsupportedServer, match=re.escape(evicts)):
            await refuse_losses(cluster, "required")
    finally:
        with node.redis as redis:
            redis.config_set("maxmemory-policy", "noeviction")
            redis.config_set("maxmemory", 0)
            redis.config_set("appendonly", "yes")
            redis.config_set("save", before)
    await watch.look()
    assert await opened(context, LOSES) == {}


async def test_a_redis_that_another_process_has_installed_with_other_shards_is_an_incident_until_it_is_not(
    context: Context, redis: Redis, clock: MovedClock
) -> None:
    watch = ViewsWatch(Standing(SHARDS, context.db, clock), "redis", of_layout(context.ledger), "redis_layout")
    await watch.look()
    await redis.set(keys.LAYOUT, 16)
    try:
        await watch.look()
        await watch.look()
        [(about, why)] = (await opened(context, SHARDS)).items()
        assert about == "redis"
        assert why.startswith("redis.shards is 32, but this Redis was installed with 16")
    finally:
        await redis.set(keys.LAYOUT, keys.SHARDS_DEFAULT)
    await watch.look()
    assert await opened(context, SHARDS) == {}


async def test_two_primaries_that_answer_at_one_address_in_turns_are_an_incident_until_one_does(
    context: Context, clock: MovedClock, watched: Watched
) -> None:
    """The primaries of two groups, behind a load balancer."""
    one, other = watched.one.servers[0], watched.other.servers[0]
    address = Address(one)
    try:
        watch = ViewsWatch(Standing(PRIMARIES, context.db, clock), "redis", partial(several, address.url))
        for _ in range(2):
            await watch.look()
        assert await opened(context, PRIMARIES) == {}
        address.alternate(one, other)
        for _ in range(2):
            await watch.look()
        [(about, why)] = (await opened(context, PRIMARIES)).items()
        assert about == "redis"
        assert why.startswith("2 primaries answer at the address of Redis in turns: ")
        assert f"(port {one})" in why
        assert f"(port {other})" in why
        address.lead(other)
        await watch.look()
        assert await opened(context, PRIMARIES) == {}
    finally:
        address.close()


async def test_a_reason_that_changes_is_told_anew_and_is_the_same_incident(context: Context, clock: MovedClock) -> None:
    incidents = Standing(UNSERVED, context.db, clock)
    for why in ("one slot", "two slots", "two slots"):
        await incidents.follow({"cluster": why})
    assert await opened(context, UNSERVED) == {"cluster": "two slots"}
    async with context.db.connection() as connection:
        assert (
            await connection.fetchval("SELECT count FROM incident WHERE kind = $1 AND closed_at IS NULL", UNSERVED) == 1
        )
    await incidents.follow({})


async def looks_at_a_replica(context: Context, watch: KeepingWatch, port: int) -> None:
    """It keeps no file for a while, and then it does not answer for a while."""
    address = f"{LOOPBACK}:{port}"
    await watch.look()
    assert await opened(context, LOSES) == {}
    async with Redis(host=LOOPBACK, port=port) as replica:
        before = str((await replica.config_get("save"))["save"])
        await replica.config_set("appendonly", "no")
        await replica.config_set("save", "")
        try:
            await watch.look()
            [(key, why)] = (await opened(context, LOSES)).items()
            assert key == f"persistence of {address}"
            assert why.startswith(f"{address} could be promoted, and Redis keeps nothing on its disk")
        finally:
            await replica.config_set("appendonly", "yes")
            await replica.config_set("save", before)
    await watch.look()
    assert await opened(context, LOSES) == {}


async def test_a_server_that_says_that_it_is_a_primary_beside_the_one_that_is_named_is_an_incident(
    context: Context, clock: MovedClock, watched: Watched
) -> None:
    primary, replica = watched.one.servers
    hosts = ",".join(f"{LOOPBACK}:{port}" for port in watched.one.sentinels)
    ask = of_sentinels(Sentinels(f"redis+sentinel://{hosts}/{NAME}/0"))
    watch = ViewsWatch(Standing(SENTINELS, context.db, clock), NAME, ask)
    for port in watched.one.sentinels:  # how often it asks its servers who they are
        async with Redis(host=LOOPBACK, port=port) as sentinel:
            await sentinel.execute_command("SENTINEL", "DEBUG", "INFO-PERIOD", 100)

    async def is_known() -> bool:
        why = await ask()
        return why is not None and "two primaries" in why

    async with Redis(host=LOOPBACK, port=replica) as other:
        await other.execute_command("REPLICAOF", "NO", "ONE")
        try:
            await reached(is_known)  # in the seconds in which the Sentinels wait for it to follow again
            await watch.look()
            await watch.look()
            told = await opened(context, SENTINELS)
        finally:
            await other.execute_command("REPLICAOF", LOOPBACK, primary)

    assert told.keys() == {NAME}
    assert f"the Sentinels name {LOOPBACK}:{primary}, and {LOOPBACK}:{replica} says that it is one, too" in told[NAME]

    async def is_over() -> bool:
        return await ask() is None

    await reached(is_over)
    await watch.look()
    assert await opened(context, SENTINELS) == {}


async def test_a_replica_that_sentinels_could_promote_and_keeps_no_file_is_an_incident(
    context: Context, clock: MovedClock, watched: Watched
) -> None:
    primary, replica = watched.one.servers
    async with Redis(host=LOOPBACK, port=primary) as redis:

        async def is_followed() -> bool:
            return "slave0" in await redis.info("replication")

        await reached(is_followed)
        await looks_at_a_replica(context, KeepingWatch(context.db, redis, watched.one.url, "required", clock), replica)


async def test_a_replica_of_a_cluster_that_keeps_no_file_is_an_incident(
    context: Context, clock: MovedClock, nodes: list[ClusterNode], cluster: ClusterClient
) -> None:
    async def all_know_of_it() -> bool:
        return all(view.topology.replicas for view in (await cluster.views()).values())

    await reached(all_know_of_it)
    url = valkey_cluster.url(nodes)
    await looks_at_a_replica(context, KeepingWatch(context.db, cluster, url, "required", clock), nodes[3].port)


async def test_a_replica_that_does_not_answer_ends_no_incident_of_its_own(context: Context, clock: MovedClock) -> None:
    incidents = Standing(LOSES, context.db, clock)
    await incidents.follow({"eviction of a": "why", "eviction of b": "why"})
    await incidents.follow({}, unknown={"eviction of a"})
    assert (await opened(context, LOSES)).keys() == {"eviction of a"}
    await incidents.follow({})
    assert await opened(context, LOSES) == {}


async def test_each_topology_has_its_watches(
    context: Context, redis: Redis, clock: MovedClock, cluster: ClusterClient
) -> None:
    def names(client: Redis, url: str) -> list[str]:
        settings = RedisSettings.model_validate({"url": url})
        return [each.name for each in watches(context.db, client, settings, clock)]

    of_all = ["redis_keeping", "redis_layout"]
    assert names(redis, "redis://127.0.0.1") == [*of_all, "redis_primaries"]
    assert names(redis, "redis+sentinel://127.0.0.1:1/main") == [*of_all, "redis_views"]
    assert names(cluster, "redis+cluster://127.0.0.1:1") == [*of_all, "redis_views", "redis_slots"]
