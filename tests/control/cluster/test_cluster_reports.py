"""The promise: usage that is reported is charged where its shard is vouched for, and nowhere else."""

from collections.abc import Awaitable, Callable

import pytest

from common import redis_connections
from common.redis_cluster.client import ClusterClient
from common.redis_cluster.topology import Address, slot_of
from control.http.context import Context
from control.ledger.vouched import vouch
from quota import keys
from quota.keys import SHARDS_DEFAULT
from quota.ledger import Ledger, LedgerUnavailable
from quota.model import Admitted, Report, Unknown
from tests.cluster import migrate, migrate_by_keys
from tests.control.cluster.shards import one_of_each, shards_of
from tests.control.plane import Entitled
from tests.control.usage import spend, used
from tests.replies import as_text

Move = Callable[[ClusterClient, int, Address, Address], Awaitable[None]]


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
