"""An organization of a test, and what the ledger knows of it."""

import asyncio
import time
from datetime import timedelta
from typing import Any, Protocol

from redis.asyncio import Redis

from devstack.token_mint import mint
from quota import keys
from quota.access import AccessChanges
from quota.events import FIELD, parse
from quota.ledger import Ledger
from quota.model import Entitlement, MeterLimit, OrganizationSnapshot, Status
from quota.periods import Period
from tests.gateway.rig.patience import PATIENCE_SECONDS
from tests.replies import as_entries

SECRET = "a secret of the tests, 32 bytes and more"


class Organization:
    """What a test asks of an organization whose entitlement is published."""

    def __init__(self, redis: Redis, org: str) -> None:
        self.id = org
        self._redis = redis
        self.ledger = Ledger(redis)
        self.token = mint(org, SECRET, now=time.time(), ttl=timedelta(hours=1))
        self.auth = b"Authorization: Bearer %b\r\n" % self.token.encode()
        self.version = 0
        self._terms: dict[str, Any] = {}
        self._began: int | None = None  # the start of its period: another one would have counters of its own

    async def publish(self, api_calls: int | None = 100, /, **terms: Any) -> None:
        if self._began is None:
            self._began = (await self._redis.time())[0] - 1000
        ends = self._began + 101_000
        usual: dict[str, Any] = {
            "status": Status.ACTIVE,
            "meters": () if api_calls is None else (MeterLimit("api_calls", api_calls),),
            "periods": (Period(self._began, ends), Period(ends, ends + 100_000)),
        }
        self._terms = usual | terms
        await self.publish_access(None)

    async def publish_access(self, changes: AccessChanges | None) -> None:
        """The same terms in a new version, with what has changed of who may use them."""
        self.version += 1
        await self.ledger.publish(Entitlement(self.id, self.version, **self._terms), access=changes)

    async def standing(self) -> OrganizationSnapshot:
        standing = await self.ledger.peek(self.id)
        assert standing is not None
        return standing

    async def used(self, meter: str = "api_calls") -> int:
        return sum(usage.used for usage in (await self.standing()).usage if usage.meter == meter)

    async def event_texts(self) -> list[str]:
        """This organization's usage events, in order."""
        entries = as_entries(await self._redis.xrange(keys.events_key(keys.shard_of(self.id, self.ledger.shards))))
        texts = [fields[FIELD].decode() for _, fields in entries]
        return [text for text in texts if parse(text).org == self.id]

    async def events(self) -> list[str]:
        """Their kinds: t a take, s a settlement."""
        return [text[0] for text in await self.event_texts()]

    async def settled(self, events: str) -> bool:
        """Whether the organization's events become these: a settlement follows the answer it belongs to."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while "".join(await self.events()) != events:  # noqa: ASYNC110 - a stream rings no bell
                await asyncio.sleep(0.005)
        await self._redis.ping()  # by this reply the gateway, too, has read what Redis answered it before
        return True

    async def comes_to(self, used: int) -> None:
        """Waits until so many api_calls are charged."""
        async with asyncio.timeout(2 * PATIENCE_SECONDS):
            while await self.used() != used:  # noqa: ASYNC110 - the ledger calls nobody back
                await asyncio.sleep(0.01)
        await self._redis.ping()  # as in `settled`


class MakeOrganization(Protocol):
    """Publishes an organization: by default one with 100 api_calls."""

    async def __call__(self, org: str = "acme", api_calls: int | None = 100, /, **terms: Any) -> Organization: ...
