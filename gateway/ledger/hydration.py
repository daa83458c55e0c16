"""Organizations that Redis does not know: asked of the control plane once, whoever waits.

The question goes into a Redis list; the answer is a published entitlement, announced on a channel. The gateway
knows neither Postgres nor where the control plane runs.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import structlog
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, RedisError

from common.redis_closing import close_all
from common.redis_cluster.client import ClusterClient
from gateway.http.deadlines import NEVER, DeadlineSweep
from gateway.ledger.ledger_link import LedgerLink
from quota import keys
from quota.calls.encoded import command
from quota.recovery_message import RecoveryMessage

log = structlog.get_logger()

WAITING_MAX = 4096  # requests, in each worker; more are refused at once
RESUBSCRIBE_SECONDS = 0.5
STOP_SECONDS = 0.1

Answered = Callable[[bool], None]
"""Called with True when another take may be admitted, False when too many wait."""


class _Question:
    """One organization that is being asked for, and all that wait for it."""

    def __init__(self, hydrator: "HydrationClient", org: str) -> None:
        self.hydrator = hydrator
        self.org = org
        self.waiting: list[Answered] = []
        self.deadline = NEVER

    def on_deadline(self) -> None:
        # The announcement may have been missed while the listener was away: the next take shows that.
        self.hydrator.answer(self.org, published=True)


class HydrationClient:
    def __init__(self, link: LedgerLink, redis: "Redis", deadlines: DeadlineSweep, timeout_seconds: float) -> None:
        self._link = link
        self._redis = redis
        self._deadlines = deadlines
        self._timeout = timeout_seconds
        self._questions: dict[str, _Question] = {}
        self._waiting = 0
        self._listener: asyncio.Task[None] | None = None
        self._subscribed: asyncio.Task[None] | None = None
        self._moving: asyncio.Task[None] | None = None
        self._again = asyncio.Event()
        self._says_its_name = True
        link.on_moved.append(self._move)
        link.on_connected.append(self._again.set)
        self.on_published: list[Callable[[str], None]] = []
        """Called with each organization whose entitlement was published, asked for or not."""
        self.on_missed: list[Callable[[], None]] = []
        """Called when it is told again after it was not: what was published meanwhile was missed."""
        self._told = False

    def start(self) -> None:
        self._listener = asyncio.get_running_loop().create_task(self._listen(), name="hydrate-listener")

    def _move(self) -> None:
        """The link has left a server that could not take, or there is another one. The listener follows it."""
        self._moving = asyncio.get_running_loop().create_task(self._leave(), name="hydrate-move")

    async def _leave(self) -> None:
        try:
            if not isinstance(self._redis, ClusterClient):  # its pool is that of one of the servers
                await close_all(self._redis.connection_pool)
        except (RedisError, OSError) as e:
            log.debug("a connection could not be ended", reason=str(e))
        if self._subscribed is not None:
            self._again.set()
            await _end(self._subscribed)  # its server may hang, and would never be heard of again

    async def close(self) -> None:
        for task in (self._listener, self._subscribed):
            if task is not None:
                await _end(task)
        for org in list(self._questions):
            self.answer(org, published=False)

    def ask(self, org: str, answered: Answered, short: tuple[str, int] | None = None) -> None:
        """Asks for the organization, and calls back once: when it is there, or when the time is up. `short`: a meter
        that this region was short of, and the cost."""
        if self._waiting >= WAITING_MAX:
            answered(False)
            return
        self._waiting += 1
        question = self._questions.get(org)
        if question is None:
            question = self._questions[org] = _Question(self, org)
            question.deadline = self._deadlines.now + self._timeout
            self._deadlines.add(question)
            self._link.call(command("RPUSH", keys.HYDRATE, str(keys.Asked(org, *(short or ())))), _ignore)
        question.waiting.append(answered)

    def answer(self, org: str, *, published: bool) -> None:
        question = self._questions.pop(org, None)
        if question is None:
            return
        self._deadlines.discard(question)
        self._waiting -= len(question.waiting)
        for answered in question.waiting:
            answered(published)

    async def _listen(self) -> None:
        while True:
            self._again.clear()
            self._subscribed = asyncio.get_running_loop().create_task(self._hear(), name="hydrate-subscribed")
            await asyncio.wait([self._subscribed])
            # The link may be there sooner: a recovery that begins then waits for who listens.
            with suppress(TimeoutError):
                await asyncio.wait_for(self._again.wait(), RESUBSCRIBE_SECONDS)

    async def _hear(self) -> None:
        """As long as one server is listened to."""
        try:
            async with self._redis.pubsub() as pubsub:
                names = [keys.WORKERS + self._link.receipts_keeper.worker] if self._says_its_name else []
                await pubsub.subscribe(keys.CHANGED, keys.RECOVER, *names)
                async for message in pubsub.listen():
                    if message["type"] != "message":  # it is subscribed
                        self._on_subscribed()
                        continue
                    text = message["data"].decode()
                    if message["channel"] == keys.RECOVER.encode():
                        self._link.recover(RecoveryMessage.parse(text))
                        continue
                    for callback in self.on_published:
                        callback(text)
                    self.answer(text, published=True)
        except NoPermissionError as e:
            log.warning("a recovery cannot know that this worker is there, and waits longer", reason=str(e))
            self._says_its_name = False  # its channel may be the one that is forbidden
        except (RedisError, OSError) as e:
            log.debug("not listening for published entitlements", reason=str(e))

    def _on_subscribed(self) -> None:
        for missed in self.on_missed if self._told else ():
            missed()
        self._told = True


async def _end(task: asyncio.Task[None]) -> None:
    while not task.done():
        task.cancel()  # more than once: redis-py can swallow it while it connects
        await asyncio.wait([task], timeout=STOP_SECONDS)


def _ignore(reply: Any) -> None:
    """Whether the question arrived shows in its answer."""
