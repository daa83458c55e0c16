"""Hydration: organizations that a gateway needs and Redis does not know are loaded from Postgres, once for all waiters.

Gateways send their requests through a list in Redis. Through another list they ask whether to believe this Redis.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

import structlog
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import RedisError

from common.redis_cluster.client import ClusterClient
from control.db import StoreUnavailable
from control.entitlements.publish import Publisher
from quota import keys
from quota.ledger import LedgerUnavailable

log = structlog.get_logger()

BLOCK_SECONDS = 1.0
POPPED_AT_ONCE = 1000
AT_ONCE = 8


class VouchingAnswerer(Protocol):
    """Knows whether the Redis in front is the one to believe."""

    async def answer(self, question: str) -> None:
        """Answers a gateway that asks. Raises LedgerUnavailable."""


Refused = Mapping[str, int]
"""By meter, the cost of a request that was refused for want of units in this region."""


class Regional(Protocol):
    """Knows what this region holds of an organization, and asks its home."""

    async def ask(self, org: str, refused: Refused) -> None:
        """When it returns, gateways that wait for the organization were told to go on. Raises StoreUnavailable,
        LedgerUnavailable."""


class Hydrator:
    name = "hydrator"

    def __init__(
        self,
        redis: Redis | RedisCluster,
        publisher: Publisher,
        vouching: VouchingAnswerer,
        regional: Regional | None = None,
    ) -> None:
        """`redis` is blocked while it waits: a client of its own, whose socket timeout is above a second. `regional`:
        None where there is one region."""
        self._regional = regional
        self._redis: Any = redis
        self._publisher = publisher
        self._vouching = vouching
        self._free = asyncio.Semaphore(AT_ONCE)
        self._vouch = keys.VOUCH_IN_CLUSTER if isinstance(redis, ClusterClient) else keys.VOUCH
        self._at_work: set[str] = set()

    async def run(self) -> None:
        """Until it is cancelled. Raises LedgerUnavailable; whoever runs it starts it again."""
        tasks: set[asyncio.Task[None]] = set()
        try:
            while True:
                orgs, questions = await self.take_requests()
                # A gateway that asks while the organization is being loaded gets the same announcement.
                steps = [self._hydrate(org, refused) for org, refused in orgs.items() if org not in self._at_work]
                self._at_work |= orgs.keys()
                if questions:
                    steps.append(self._answer(questions))
                for step in steps:
                    task = asyncio.create_task(step)
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def take_requests(self) -> tuple[dict[str, Refused], list[str]]:
        """Waits up to a second for requests of gateways: the organizations to load, with what they were refused, and
        their questions about this Redis."""
        try:
            first = await self._redis.blpop([keys.HYDRATE, self._vouch], timeout=BLOCK_SECONDS)
            if first is None:
                return {}, []
            more = await self._redis.lpop(first[0], POPPED_AT_ONCE) or []
        except RedisError as e:
            raise LedgerUnavailable(f"waiting for organizations to hydrate: {e}") from e
        requests = [each.decode("utf-8", "replace") for each in (first[1], *more)]
        if first[0].decode() == self._vouch:
            return {}, requests
        orgs, strange = dict[str, dict[str, int]](), set[str]()
        for request in requests:
            asked = keys.asked_of(request)
            if asked is None:
                strange.add(request)
                continue
            refused = orgs.setdefault(asked.org, {})
            if asked.meter is not None:
                refused[asked.meter] = max(asked.units, refused.get(asked.meter, 0))
        if strange:
            log.warning("asked to hydrate what is no organization's id", ids=sorted(strange)[:10])
        return dict(orgs), []

    async def _answer(self, questions: list[str]) -> None:
        for question in questions:
            try:
                await self._vouching.answer(question)
            except LedgerUnavailable as e:
                log.warning("could not answer a gateway", reason=str(e))  # which asks again
            except Exception:
                log.exception("could not answer a gateway")

    async def _hydrate(self, org: str, refused: Refused) -> None:
        try:
            async with self._free:
                if self._regional is not None:
                    await self._regional.ask(org, refused)
                    return
                entitlement = await self._publisher.install(org)
            log.info("hydrated", org=org, status=entitlement.status.word, version=entitlement.version)
        except (StoreUnavailable, LedgerUnavailable) as e:
            # The gateway gives up waiting, answers 503, and asks again with the organization's next request.
            log.warning("could not hydrate", org=org, reason=str(e))
        except Exception:
            log.exception("could not hydrate", org=org)
        finally:
            self._at_work.discard(org)
