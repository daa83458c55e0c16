"""What tests do to a Redis Cluster of their own."""

import asyncio
import signal
from typing import Final

from common.redis_cluster.client import ClusterClient
from common.redis_cluster.topology import Address
from devstack.valkey_cluster import ClusterNode
from tests.replies import as_text

SETTINGS: Final = {"cluster-node-timeout": "2000", "repl-diskless-sync-delay": "0"}
"""Of each server: a replica takes over soon."""
MIGRATED_SECONDS: Final = 60


def kill(node: ClusterNode) -> None:
    assert node.child is not None
    node.child.process.send_signal(signal.SIGKILL)
    node.child.process.wait()


async def migrate(client: ClusterClient, slot: int, source: Address, target: Address) -> None:
    """By Valkey's own migration, in which a slot has one owner at each moment."""
    node = as_text(await client.at(target).execute_command("CLUSTER MYID"))
    await client.at(source).execute_command("CLUSTER MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", node)
    async with asyncio.timeout(MIGRATED_SECONDS):
        while (await client.ask_topology()).owner(slot) != target:  # noqa: ASYNC110 - it calls nobody back
            await asyncio.sleep(0.01)


async def migrate_by_keys(client: ClusterClient, slot: int, source: Address, target: Address) -> None:
    """As `valkey-cli --cluster reshard` does: the slot has its keys at both servers for a while."""
    old, new = client.at(source), client.at(target)
    old_id, new_id = [as_text(await each.execute_command("CLUSTER MYID")) for each in (old, new)]
    await new.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", old_id)
    await old.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", new_id)
    while names := await old.execute_command("CLUSTER GETKEYSINSLOT", slot, 1):
        await old.execute_command("MIGRATE", target.host, target.port, "", 0, 5000, "KEYS", *names)
    for each in (new, old):
        await each.execute_command("CLUSTER SETSLOT", slot, "NODE", new_id)
    async with asyncio.timeout(MIGRATED_SECONDS):
        while (await client.ask_topology()).owner(slot) != target:  # noqa: ASYNC110 - it calls nobody back
            await asyncio.sleep(0.01)
