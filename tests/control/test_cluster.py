"""The promise: the control plane does on a Redis Cluster what it does on one server, and what one primary loses
concerns its shards alone."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest
from redis.exceptions import RedisError
from typer.testing import CliRunner

from common import redis_connections
from common.redis_cluster.client import ClusterClient
from common.redis_cluster.topology import Address, slot_of
from control.app import opened
from control.entitlements.hydrate import Hydrator
from control.http.context import Context
from control.ledger.nodes import forget_idle
from control.ledger.streams import START
from control.ledger.vouched import vouch
from control.metrics import reading
from control.settings.control_plane import Settings
from devstack import valkey_cluster
from devstack.valkey_cluster import ClusterNode
from quota import generation, keys
from quota.keys import SHARDS_DEFAULT
from quota.ledger import Ledger, LedgerError, LedgerUnavailable
from quota.model import Admitted, Report, Unknown
from quotagate.main import app
from tests import charging
from tests.cluster import SETTINGS, kill, migrate, migrate_by_keys
from tests.control.plane import Entitled, MovedClock
from tests.control.running import environment
from tests.control.usage import spend, used, write_all, written
from tests.replies import as_text

Move = Callable[[ClusterClient, int, Address, Address], Awaitable[None]]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[ClusterNode]]:
    with valkey_cluster.running(tmp_path_factory.mktemp("cluster"), settings=SETTINGS) as started:
        yield started


@pytest.fixture
def redis_url(nodes: list[ClusterNode]) -> str:
    return valkey_cluster.url(nodes)


@pytest.fixture
async def cluster(redis_url: str) -> AsyncIterator[ClusterClient]:
    client = redis_connections.client(redis_url, socket_timeout=60)
    assert isinstance(client, ClusterClient)
    yield client
    await client.aclose()


@pytest.fixture
async def context(settings: Settings, clock: MovedClock) -> AsyncIterator[Context]:
    async with opened(settings, clock) as opened_context:
        await opened_context.recovery.round()
        yield opened_context


async def epochs(cluster: ClusterClient) -> Mapping[int, int]:
    async with cluster.pipeline(transaction=False) as pipeline:
        for shard in range(SHARDS_DEFAULT):
            pipeline.get(keys.generation_key(shard))
        held = await pipeline.execute()
    return {shard: generation.epoch_of(text) for shard, text in enumerate(held) if text is not None}


async def shards_of(cluster: ClusterClient, address: Address) -> set[int]:
    topology = await cluster.ask_topology()
    return {s for s in range(SHARDS_DEFAULT) if topology.owner(slot_of(keys.generation_key(s))) == address}


async def one_of_each(context: Context, cluster: ClusterClient, entitled: Entitled) -> dict[Address, str]:
    """An organization with allowance in the shards of each primary, published."""
    topology, orgs = await cluster.ask_topology(), dict[Address, str]()
    while len(orgs) < len(topology.primaries):
        org = await entitled("bulk")
        owner = topology.owner(slot_of(keys.org_key(org, SHARDS_DEFAULT)))
        assert owner is not None
        orgs[owner] = org
    for org in orgs.values():
        await context.publisher.install(org)
    return orgs


async def wait_for_replica(cluster: ClusterClient, old: Address, context: Context) -> Address:
    """Until another server has the slots of one that is gone, and is vouched for."""
    before = await cluster.topology()
    slot = next(each.first for each in before.ranges if each.primary == old)
    async with asyncio.timeout(60):
        while True:
            with suppress(LedgerError, RedisError):
                owner = (await cluster.ask_topology()).owner(slot)
                if owner is not None and owner != old:
                    await context.recovery.round()
                    if min((await epochs(cluster)).values()) > 0:
                        return owner
            await asyncio.sleep(0.05)


async def test_what_organizations_of_all_primaries_use_is_charged_once_and_written(
    context: Context, cluster: ClusterClient, entitled: Entitled
) -> None:
    orgs = (await one_of_each(context, cluster, entitled)).values()
    ids = {org: sorted(await spend(context, org, times=5, units=2)) for org in orgs}
    for org in orgs:
        assert await used(context, org) == 10
        assert await written(context, org) == ids[org]
    assert await context.writer.lag_seconds() == 0
    assert await context.scan.check(orgs) == []
    await context.streams.announce_written(dict.fromkeys(range(SHARDS_DEFAULT), START))
    async with cluster.pipeline(transaction=False) as pipeline:
        for org in orgs:
            pipeline.get(keys.written_key(keys.shard_of(org, SHARDS_DEFAULT)))
        told = await pipeline.execute()
    held = await epochs(cluster)
    assert [int(each.split()[0]) for each in told] == [held[keys.shard_of(org, SHARDS_DEFAULT)] for org in orgs]


async def test_one_primary_that_is_flushed_is_put_together_and_the_others_keep_their_epochs(
    context: Context, cluster: ClusterClient, entitled: Entitled
) -> None:
    orgs = await one_of_each(context, cluster, entitled)
    for org in orgs.values():
        await spend(context, org, times=4)
    await write_all(context)
    flushed, before = next(iter(orgs)), await epochs(cluster)
    await cluster.at(flushed).flushall()
    await context.recovery.round()
    after, lost = await epochs(cluster), await shards_of(cluster, flushed)
    assert {shard for shard in after if after[shard] != before[shard]} == lost
    assert len({after[shard] for shard in lost}) == 1
    for org in orgs.values():
        await context.publisher.install(org)
        assert await used(context, org) == 4
        await spend(context, org)
        assert await used(context, org) == 5


async def test_a_replica_that_takes_over_is_vouched_for_with_its_shards_alone_and_counts_what_the_rows_say(
    context: Context, cluster: ClusterClient, entitled: Entitled, nodes: list[ClusterNode]
) -> None:
    orgs = await one_of_each(context, cluster, entitled)
    for org in orgs.values():
        await spend(context, org, times=4)
    await write_all(context)
    gone = next(iter(orgs))
    before, lost = await epochs(cluster), await shards_of(cluster, gone)
    # Its replica hears no more of it, so it lacks what comes now: the rows have it.
    await cluster.at(gone).execute_command("ACL SETUSER", "default", "-sync", "-psync", "-replconf")
    await cluster.at(gone).execute_command("CLIENT KILL", "TYPE", "replica")
    await spend(context, orgs[gone])
    await write_all(context)
    node = next(each for each in nodes if each.port == gone.port)
    kill(node)
    try:
        # Their servers are there: what they use is charged and written all the time.
        for org in (org for owner, org in orgs.items() if owner != gone):
            await spend(context, org)
            assert len(await written(context, org)) == 5
        await context.writer.trim()
        await context.streams.announce_written(dict.fromkeys(range(SHARDS_DEFAULT), START))
        taken_over_by = await wait_for_replica(cluster, gone, context)
        after = await epochs(cluster)
        assert {shard for shard in after if after[shard] != before[shard]} == lost
        assert await shards_of(cluster, taken_over_by) == lost
        for org in orgs.values():
            assert await used(context, org) == 5
    finally:
        node.start(SETTINGS)
        node.wait_ready()
    async with asyncio.timeout(60):
        while gone not in (await cluster.ask_topology()).replicas:  # noqa: ASYNC110 - it calls nobody back
            await asyncio.sleep(0.05)


async def test_a_shard_that_is_handed_over_is_vouched_for_in_place_and_no_other_shard_notices(
    context: Context, cluster: ClusterClient, entitled: Entitled
) -> None:
    orgs = await one_of_each(context, cluster, entitled)
    (source, org), (target, _) = list(orgs.items())[:2]
    for each in orgs.values():
        await spend(context, each, times=3)
    await context.recovery.round()
    before, shard = await epochs(cluster), keys.shard_of(org, SHARDS_DEFAULT)
    recovered = await recoveries(context)
    await migrate(cluster, slot_of(keys.generation_key(shard)), source, target)
    await context.recovery.round()
    after = await epochs(cluster)
    assert {each for each in after if after[each] != before[each]} == {shard}
    assert shard in await shards_of(cluster, target)
    assert await recoveries(context) == recovered, "nothing was lost, so nothing is put together"
    assert await used(context, org) == 3
    await spend(context, org)
    assert len(await written(context, org)) == 4
    await migrate(cluster, slot_of(keys.generation_key(shard)), target, source)
    await context.recovery.round()


async def test_a_client_that_was_led_to_another_server_knows_the_way_from_then_on(
    cluster: ClusterClient, redis_url: str
) -> None:
    source, target = (await cluster.ask_topology()).primaries[:2]
    key = keys.generation_key(min(await shards_of(cluster, source)))
    async with redis_connections.client(redis_url, socket_timeout=60) as other:
        assert isinstance(other, ClusterClient)
        assert (await other.topology()).owner(slot_of(key)) == source
        await migrate(cluster, slot_of(key), source, target)
        async with asyncio.timeout(30):  # the other servers hear of it from these two
            while (await other.topology()).owner(slot_of(key)) != target:
                await other.get(key)
    await migrate(cluster, slot_of(key), target, source)


async def test_what_is_forgotten_of_a_cluster_is_asked_anew_and_the_server_before_is_not_waited_for(
    cluster: ClusterClient, redis_url: str, nodes: list[ClusterNode]
) -> None:
    source, target = (await cluster.ask_topology()).primaries[:2]
    key = keys.generation_key(min(await shards_of(cluster, source)))
    [hanging] = [node.child for node in nodes if node.port == source.port]
    assert hanging is not None
    async with redis_connections.client(redis_url, socket_timeout=60) as other:
        held = await other.get(key)
        await migrate(cluster, slot_of(key), source, target)
        hanging.process.send_signal(signal.SIGSTOP)
        try:
            await forget_idle(other)
            async with asyncio.timeout(30):
                assert await other.get(key) == held
        finally:
            hanging.process.send_signal(signal.SIGCONT)
    await migrate(cluster, slot_of(key), target, source)


async def test_a_gateway_that_asks_is_told_the_epoch_of_each_shard(context: Context, cluster: ClusterClient) -> None:
    flushed = (await cluster.ask_topology()).primaries[1]
    await cluster.at(flushed).flushall()
    await context.recovery.round()
    await cluster.rpush(keys.VOUCH_IN_CLUSTER, "a 0")
    hydrator = Hydrator(cluster, context.publisher, context.recovery)
    _, questions = await hydrator.take_requests()
    await hydrator._answer(questions)
    answer = as_text(await cluster.get(keys.answer_key("a")) or b"")
    told = generation.epochs_from(answer, SHARDS_DEFAULT)
    assert told is not None
    assert dict(enumerate(told)) == await epochs(cluster)
    assert len(set(told)) > 1


async def test_a_recovery_is_concluded_also_where_the_receipts_cannot_be_released(
    context: Context, cluster: ClusterClient
) -> None:
    topology = await cluster.ask_topology()
    holder = topology.owner(slot_of(keys.RECEIPTS_ASKED))
    assert holder is not None
    damaged = next(each for each in topology.primaries if each != holder)
    recovered = await recoveries(context)
    for shard in await shards_of(cluster, damaged):
        await cluster.set(keys.generation_key(shard), "another:1:0123")
    await cluster.at(holder).execute_command("ACL SETUSER", "default", "-del")
    try:
        await context.recovery.round()
        assert await recoveries(context) == recovered + 1
        assert await cluster.ttl(keys.RECEIPTS_ASKED) > 0, "it ends by itself"
    finally:
        await cluster.at(holder).execute_command("ACL SETUSER", "default", "+del")
        await cluster.delete(keys.RECEIPTS_ASKED)


async def test_usage_is_reported_to_each_primary_that_is_vouched_for_and_to_no_other(
    context: Context, cluster: ClusterClient, entitled: Entitled
) -> None:
    orgs = await one_of_each(context, cluster, entitled)
    unvouched = next(iter(orgs))
    own = await shards_of(cluster, unvouched)
    [server] = {as_text(await cluster.get(keys.generation_key(s)) or b"").partition(":")[0] for s in own}
    for shard in own:
        await cluster.set(keys.generation_key(shard), f"{'0' * len(server)}:1:0123")
    await cluster.at(unvouched).client_kill_filter(_type="normal", skipme=True)  # as when a server begins anew
    charged = context.reporter._ledger
    for owner, org in orgs.items():
        report = [Report("r1", "api_calls", 1, "k1")]
        if owner == unvouched:
            with pytest.raises(LedgerUnavailable, match="another server"):
                await charged.report(org, report)
        else:
            assert isinstance((await charged.report(org, report))[0], Admitted)
    await context.recovery.round()
    assert isinstance((await charged.report(orgs[unvouched], [Report("r1", "api_calls", 1, "k1")]))[0], Admitted)


async def test_usage_of_a_shard_that_has_come_to_a_server_is_held_back_until_it_is_vouched_for_there(
    context: Context, cluster: ClusterClient, entitled: Entitled
) -> None:
    (source, org), (target, other) = list((await one_of_each(context, cluster, entitled)).items())[:2]
    await context.recovery.round()
    charged, slot = context.reporter._ledger, slot_of(keys.org_key(org, SHARDS_DEFAULT))

    assert isinstance((await charged.report(other, [Report("r1", "api_calls", 1, "k1")]))[0], Admitted)
    before = await connections_to(cluster, target)
    assert isinstance((await charged.report(other, [Report("r2", "api_calls", 1, "k2")]))[0], Admitted)
    assert await connections_to(cluster, target) == before, "a connection is used again"
    await migrate(cluster, slot, source, target)  # to a server to which that connection is there already
    try:
        with pytest.raises(LedgerUnavailable, match="not vouched for where it is looked for"):
            await charged.report(org, [Report("r2", "api_calls", 1, "k2")])
        assert await used(context, org) == 0
        assert isinstance((await charged.report(other, [Report("r3", "api_calls", 1, "k3")]))[0], Admitted), (
            "the server's own shards go on"
        )
        await context.recovery.round()
        assert isinstance((await charged.report(org, [Report("r2", "api_calls", 1, "k2")]))[0], Admitted)
        assert await used(context, org) == 1
    finally:
        await migrate(cluster, slot, target, source)
        await context.recovery.round()


@pytest.mark.parametrize("move", [migrate, migrate_by_keys])
async def test_usage_of_a_slot_that_went_away_and_came_back_is_held_back_on_a_connection_that_was_there_before(
    context: Context, cluster: ClusterClient, redis_url: str, entitled: Entitled, move: Move
) -> None:
    """What came back may lack what was charged elsewhere: a replica of that server may have taken over there."""
    (source, org), (target, _) = list((await one_of_each(context, cluster, entitled)).items())[:2]
    await context.recovery.round()
    slot = slot_of(keys.org_key(org, SHARDS_DEFAULT))
    async with redis_connections.client(redis_url, socket_timeout=60) as client:
        vouch(client, SHARDS_DEFAULT, context.recovery.believed)  # as another control plane, which notices no move
        charged = Ledger(client, SHARDS_DEFAULT)
        assert isinstance((await charged.report(org, [Report("r1", "api_calls", 1, "k1")]))[0], Admitted)
        await move(cluster, slot, source, target)
        await context.recovery.round()
        await spend(context, org)
        await move(cluster, slot, target, source)
        before = await connections_to(cluster, source)
        with pytest.raises(LedgerUnavailable, match="not vouched for where it is looked for"):
            await charged.report(org, [Report("r2", "api_calls", 1, "k2")])
        assert await connections_to(cluster, source) > before, "the one from before was there until then"
        assert await used(context, org) == 2
        await context.recovery.round()
        assert isinstance((await charged.report(org, [Report("r2", "api_calls", 1, "k2")]))[0], Admitted)
    assert await used(context, org) == 3


async def connections_to(cluster: ClusterClient, address: Address) -> int:
    return int((await cluster.at(address).info("stats"))["total_connections_received"])


async def test_usage_of_a_slot_that_is_moved_key_by_key_is_not_charged_where_nobody_vouches_for_it(
    context: Context, cluster: ClusterClient
) -> None:
    await context.recovery.round()
    topology = await cluster.ask_topology()
    # Of the keys that a charge needs only the generation is there.
    shard, *_ = [s for s in range(SHARDS_DEFAULT) if not await cluster.exists(keys.events_key(s))]
    org = next(f"org-{n}" for n in range(10_000) if keys.shard_of(f"org-{n}", SHARDS_DEFAULT) == shard)
    slot = slot_of(keys.generation_key(shard))
    source = topology.owner(slot)
    target = next(each for each in topology.primaries if each != source)
    assert source is not None
    charged, report = context.reporter._ledger, [Report("r1", "api_calls", 1, "k1")]
    ids = [as_text(await cluster.at(each).execute_command("CLUSTER MYID")) for each in (source, target)]
    try:
        # With the generation, and without: then the server leads to where the slot goes.
        for told in ("during rehashing", "key by key"):
            assert await charged.report(org, report) == [Unknown(lapsed=False)]
            await cluster.at(target).execute_command("CLUSTER SETSLOT", slot, "IMPORTING", ids[0])
            await cluster.at(source).execute_command("CLUSTER SETSLOT", slot, "MIGRATING", ids[1])
            with pytest.raises(LedgerUnavailable, match=told):
                await charged.report(org, report)
            for each in (source, target):
                await cluster.at(each).execute_command("CLUSTER SETSLOT", slot, "STABLE")
            await cluster.at(source).delete(keys.generation_key(shard))
    finally:
        for each in (source, target):
            await cluster.at(each).execute_command("CLUSTER SETSLOT", slot, "STABLE")
        await context.recovery.round()
    assert await charged.report(org, report) == [Unknown(lapsed=False)]


async def test_a_backup_of_a_cluster_has_what_is_not_written_yet_and_the_doctor_finds_it_good(
    context: Context, cluster: ClusterClient, entitled: Entitled, settings: Settings, tmp_path: Path
) -> None:
    await write_all(context)
    for org in (await one_of_each(context, cluster, entitled)).values():
        await context.publisher.install(org)
        assert isinstance(await charging.take(context.ledger, org, uuid4().hex, {"api_calls": 1}, "once"), Admitted)
    env = environment(settings)
    done = await asyncio.to_thread(CliRunner(env=env).invoke, app, ["backup", str(tmp_path / "taken")])
    assert done.exit_code == 0, done.output
    assert "3 events that were not written yet" in done.output
    looked = await asyncio.to_thread(CliRunner(env=env).invoke, app, ["doctor"])
    assert "WRONG  redis" not in looked.output
    scraped = {metric.name for metric in await reading.read(context)}
    assert {"quotagate_control_redis_memory_bytes", "quotagate_control_redis_replicas"} <= scraped


async def recoveries(context: Context) -> int:
    async with context.db.connection() as connection:
        return int(await connection.fetchval("SELECT count(*) FROM audit_journal WHERE action = 'usage.recovered'"))
