"""The promise: the control plane does on a Redis Cluster what it does on one server, and what one primary loses
concerns its shards alone."""

import asyncio
import signal
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from redis.exceptions import RedisError
from typer.testing import CliRunner

from common import redis_connections
from common.redis_cluster.client import ClusterClient
from common.redis_cluster.topology import Address, slot_of
from control.entitlements.hydrate import Hydrator
from control.http.context import Context
from control.ledger.nodes import forget_idle
from control.ledger.streams import START
from control.metrics import reading
from control.settings.control_plane import Settings
from devstack.valkey_cluster import ClusterNode
from quota import generation, keys
from quota.keys import SHARDS_DEFAULT
from quota.ledger import LedgerError
from quota.model import Admitted
from quotagate.main import app
from tests import charging
from tests.cluster import SETTINGS, kill, migrate
from tests.control.cluster.shards import epochs, one_of_each, recoveries, shards_of
from tests.control.plane import Entitled
from tests.control.running import environment
from tests.control.usage import spend, used, write_all, written
from tests.replies import as_text


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
