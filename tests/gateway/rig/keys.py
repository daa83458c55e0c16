"""API keys of a test's organization, and what is revoked of its access, published as the control plane does it."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from redis.asyncio import Redis

from identity.api_key import generate, hash_of
from quota import keys
from quota.access import AccessChanges, KeyRecord, KeyState, Mark
from tests.gateway.rig.organization import Organization


class Key:
    """One, as whoever created it has it."""

    def __init__(self, organization: Organization, record: KeyRecord, text: str) -> None:
        self.organization = organization
        self.record = record
        self.text = text
        self.digest = hash_of(text.encode())[:16]
        self.auth = b"Authorization: Bearer %b\r\n" % text.encode()

    @property
    def id(self) -> str:
        return self.record.id

    async def change(self, **fields: Any) -> None:
        """Publishes the key with other fields."""
        self.record = replace(self.record, **fields)
        await publish(self.organization, [self])

    async def revoke(self) -> None:
        await self.change(state=KeyState.REVOKED)


class Keyring:
    """Makes keys."""

    def __init__(self) -> None:
        self._made = 0

    async def make(
        self, organization: Organization, text: str | None = None, environment: str = "live", **fields: Any
    ) -> Key:
        self._made += 1
        record = KeyRecord(f"K{self._made:011d}", environment=environment, **fields)
        key = Key(organization, record, text or generate("qg", environment))
        await publish(organization, [key])
        return key


async def publish(organization: Organization, changed: Iterable[Key]) -> None:
    records = {key.digest: key.record for key in changed}
    await organization.publish_access(AccessChanges(organization.version, records=records))


async def revoke(organization: Organization, mark: Mark, until_s: int | None = None) -> None:
    """Until it is lifted, or what was issued up to this second."""
    await organization.publish_access(AccessChanges(organization.version, marks={mark: until_s}))


async def lift(organization: Organization, mark: Mark) -> None:
    await organization.publish_access(AccessChanges(organization.version, lifted=frozenset({mark})))


async def complete_index(redis: Redis, shards: int = keys.SHARDS_DEFAULT) -> None:
    """As the control plane leaves it: what is not in the index does not exist."""
    run_id = (await redis.info("server"))["run_id"]
    for shard in range(shards):
        await redis.set(keys.generation_key(shard), f"{run_id}:0123")
        await redis.set(keys.key_index_marker(shard), f"{run_id}:0123")
