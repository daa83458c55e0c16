"""Where the primary is, by its Sentinels. Both planes ask here.

A failover has a number at the Sentinels (its configuration epoch), which a majority of them gave to the one that runs
it. So the newest configuration that one of a majority knows is the one to follow, although the others hear of it only
some tenths of a second later. With fewer than a majority nobody can tell whether there was a failover: no primary is
named then. https://valkey.io/topics/sentinel/ "Sentinels and replicas auto discovery", "Configuration epochs"
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple

import structlog
from redis.asyncio.connection import Connection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from common import redis_tls, redis_url
from common.redis_sentinel_url import taken_apart
from common.redis_tls import WithCertificates
from quota.ledger import UnsupportedServer

log = structlog.get_logger()

ASK_SECONDS: Final = 0.5
"""A Sentinel that does not answer for so long is away."""
OTHERS_SECONDS: Final = 0.05
"""Once a majority has answered, the others have so long: one that hangs holds up no failover."""
LOOK_SECONDS: Final = 0.5
"""Between two questions who the primary is. What the Sentinels announce has it asked at once."""
LISTEN_AGAIN_SECONDS: Final = 0.5
ANNOUNCED: Final = ("+switch-master", "+promoted-*", "+config-update-from")
"""Patterns of channels. The one that runs a failover knows the new primary some seconds before its +switch-master."""


class Primary(NamedTuple):
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class View:
    """What one Sentinel says."""

    sentinel: str
    primary: Primary
    epoch: int
    """Of this configuration: it grows with each failover."""
    others: tuple[Primary, ...] = ()
    """Servers that it knows as replicas, and that say that they are primaries. Asked for by `answers` alone."""
    quorum: int | None = None
    """So many Sentinels must miss the primary before one begins a failover."""


@dataclass(frozen=True, slots=True)
class NoView:
    sentinel: str
    reason: str
    for_good: bool
    """The settings are wrong: it is no Sentinel, or does not know this primary."""


def decide(name: str, asked: int, answers: Sequence[View | NoView]) -> Primary:
    """Whom the newest configuration names that a majority of `asked` Sentinels know of. Raises UnsupportedServer where
    that cannot change by itself, redis-py's ConnectionError."""
    views = [answer for answer in answers if isinstance(answer, View)]
    majority = asked // 2 + 1
    if len(views) >= majority:
        newest = max(view.epoch for view in views)
        agreed = [view for view in views if view.epoch == newest]
        if len({view.primary for view in agreed}) == 1:
            return agreed[0].primary
        raise UnsupportedServer(_disagreed(name, agreed))
    # In one order, by which the same reasons are the same text: whoever tells them tells them once.
    faults = sorted((answer for answer in answers if isinstance(answer, NoView)), key=lambda fault: fault.sentinel)
    wrong = [fault for fault in faults if fault.for_good]
    if asked - len(wrong) < majority:
        raise UnsupportedServer("; ".join(fault.reason for fault in wrong))
    reasons = "; ".join(f"{fault.sentinel}: {fault.reason}" for fault in faults)
    raise RedisConnectionError(
        f"{len(views)} of {asked} Sentinels name the primary {name}, and {majority} must ({reasons or 'no answer'})"
    )


def disagreement(name: str, answers: Sequence[View | NoView]) -> str | None:
    """That those who answer name different primaries or quorums, and which; None: they agree."""
    views = [answer for answer in answers if isinstance(answer, View)]
    if len({view.primary for view in views}) > 1:
        return _disagreed(name, views)
    if len({view.quorum for view in views}) > 1:
        each = "; ".join(f"{view.sentinel} has {view.quorum}" for view in views)
        return f"the Sentinels disagree on the quorum of the primary {name}: {each}"
    return None


def two_primaries(answers: Sequence[View | NoView]) -> str | None:
    """That servers say that they are primaries beside the one that the Sentinels name, and which; None: no other."""
    for view in answers:
        if isinstance(view, View) and view.others:
            others = ", ".join(f"{other.host}:{other.port}" for other in view.others)
            named = f"{view.primary.host}:{view.primary.port}"
            return (
                f"there are two primaries: the Sentinels name {named}, and {others} says that it is one, too: what it "
                "takes is lost when it follows again"
            )
    return None


def _disagreed(name: str, views: Sequence[View]) -> str:
    each = "; ".join(f"{view.sentinel} names {view.primary.host}:{view.primary.port}" for view in views)
    return f"the Sentinels disagree who the primary {name} is: {each}"


class Sentinels:
    """Those of one URL. It belongs to one event loop."""

    def __init__(self, url: str, ask_seconds: float = ASK_SECONDS) -> None:
        apart = taken_apart(url)
        self.name = apart.name
        self._each = [_Sentinel(plain, apart.name, ask_seconds) for plain in apart.sentinels]
        self._asking = asyncio.Lock()

    async def primary(self) -> Primary:
        """Asks all of them. Raises UnsupportedServer, redis-py's ConnectionError."""
        async with self._asking:
            named = decide(self.name, len(self._each), await self._views())
            for each in self._each:
                each.tell()
            return named

    async def answers(self) -> list[View | NoView]:
        """What each of them says, also one that is slow."""
        async with self._asking:
            return await asyncio.gather(*(each.view(with_others=True) for each in self._each))

    async def _views(self) -> list[View | NoView]:
        """Of a majority, and of the others if they are quick."""
        waiting = {asyncio.create_task(each.view()) for each in self._each}
        try:
            answers = list[View | NoView]()
            while waiting:
                views = sum(isinstance(answer, View) for answer in answers)
                patience = OTHERS_SECONDS if views > len(self._each) // 2 else None
                done, waiting = await asyncio.wait(waiting, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    break
                answers += [task.result() for task in done]
            return answers
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def listen(self, on_announced: Callable[[], None]) -> None:
        """Calls back whenever one of them announces something about a primary; until it is cancelled."""
        async with asyncio.TaskGroup() as listening:
            for each in self._each:
                listening.create_task(each.listen(on_announced))

    async def aclose(self) -> None:
        for each in self._each:
            await each.aclose()


class SentinelWatch:
    """Tells again and again who the primary is, and at once when there is another one."""

    def __init__(self, sentinels: Sentinels, on_named: Callable[[Primary], None]) -> None:
        """`on_named` gets each answer, also one that is as before."""
        self._sentinels = sentinels
        self._on_named = on_named
        self._announced = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Again and again is the same as once."""
        if not self._tasks:
            self._tasks = [
                asyncio.create_task(self._sentinels.listen(self._announced.set), name="sentinels-listen"),
                asyncio.create_task(self._look(), name="sentinels-look"),
            ]

    async def aclose(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _look(self) -> None:
        told = ""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._announced.wait(), LOOK_SECONDS)
            self._announced.clear()
            try:
                primary = await self._sentinels.primary()
            except RedisError as e:
                if str(e) != told:
                    log.warning("the sentinels do not tell the primary", reason=str(e))
                told = str(e)
                continue
            if told:
                log.info("the sentinels tell the primary again", primary=f"{primary.host}:{primary.port}")
            told = ""
            self._on_named(primary)


class _Sentinel:
    """One of them, with a connection that is made again when it has failed."""

    def __init__(self, url: str, name: str, ask_seconds: float) -> None:
        self._name = name
        parts = redis_url.parts(url)
        self.address = f"{parts['host']}:{parts['port']}"
        kind: type[Any] = parts.pop("connection_class", Connection)
        if redis_url.has_tls(url):
            kind = type("SentinelConnection", (WithCertificates, kind), {"url": url})
        # RESP2, since a reply of RESP3 may be a map, and a message may come between two replies.
        times = {"socket_timeout": ask_seconds, "socket_connect_timeout": ask_seconds}
        options = {**parts, **times, "protocol": 2, "retry": Retry(NoBackoff(), 0), "decode_responses": True}
        options["redis_connect_func"] = partial(redis_tls.first_commands, url=url)
        self._make: Callable[..., Any] = lambda **more: kind(**(options | more))
        self._connection = self._make()
        self._reason = ""  # why it does not tell
        self._told = ""  # and what of this is in the log

    async def view(self, *, with_others: bool = False) -> View | NoView:
        try:
            view = await self._ask(with_others=with_others)
        except asyncio.CancelledError:
            await self._connection.disconnect(nowait=True)  # its reply may still come
            raise
        except (RedisError, OSError) as e:
            await self._connection.disconnect(nowait=True)
            view = self._judged(e)
        self._reason = view.reason if isinstance(view, NoView) else ""
        return view

    def tell(self) -> None:
        """In the log, where the others were enough: a Sentinel that is of no use is one fewer to be lost."""
        reason = self._reason
        if reason and reason != self._told:
            log.warning("a sentinel does not tell the primary", sentinel=self.address, reason=reason)
        elif self._told and not reason:
            log.info("a sentinel tells the primary again", sentinel=self.address)
        self._told = reason

    async def _ask(self, *, with_others: bool) -> View | NoView:
        connection = self._connection
        await connection.connect()
        # Together in one write, which one turn of the Sentinel answers.
        words = [("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._name), ("SENTINEL", "MASTER", self._name)]
        words += [("SENTINEL", "REPLICAS", self._name)] if with_others else []
        await connection.send_packed_command(connection.pack_commands(words))
        address, about, *lists = [await _reply(connection) for _ in words]
        if address is None:
            return NoView(self.address, f"the Sentinel {self.address} knows no primary {self._name}", for_good=True)
        for reply in (address, about, *lists):
            if isinstance(reply, ResponseError):
                return self._judged(reply)
        replicas = [_fields(each) for of_list in lists for each in of_list]
        others = tuple(Primary(each["ip"], int(each["port"])) for each in replicas if _is_primary(each))
        told = _fields(about)
        named = Primary(address[0], int(address[1]))
        return View(self.address, named, int(told["config-epoch"]), others, int(told["quorum"]))

    def _judged(self, error: Exception) -> NoView:
        text = str(error).removeprefix(f"{self.address} ")  # which the reader is told anyway
        if "unknown command" in text.lower():
            return NoView(self.address, f"{self.address} is no Sentinel, but a server that holds data", for_good=True)
        return NoView(self.address, text or type(error).__name__, for_good=False)

    async def listen(self, on_announced: Callable[[], None]) -> None:
        while True:
            connection = self._make(socket_timeout=None)
            try:
                await connection.connect()
                await connection.send_command("PSUBSCRIBE", *ANNOUNCED)
                while True:
                    message = await connection.read_response()
                    if message[0] == "pmessage":
                        on_announced()
            except (RedisError, OSError) as e:
                log.debug("a sentinel is not heard", sentinel=self.address, reason=str(e))
            finally:
                await connection.disconnect(nowait=True)
            await asyncio.sleep(LISTEN_AGAIN_SECONDS)

    async def aclose(self) -> None:
        await self._connection.disconnect(nowait=True)


def _fields(reply: Sequence[str]) -> dict[str, str]:
    return dict(zip(reply[::2], reply[1::2], strict=True))


def _is_primary(replica: Mapping[str, str]) -> bool:
    """Of the fields of a replica, by what it said of itself last. One that is away is none."""
    return replica.get("role-reported") == "master" and "down" not in replica.get("flags", "")


async def _reply(connection: Any) -> Any:
    """The next reply, which may be an error: the one behind it is still to be read."""
    try:
        return await connection.read_response()
    except ResponseError as e:
        return e
