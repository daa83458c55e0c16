"""Takes that are answered only when Redis says that they outlive it (docs/durability.md).

All takes of one turn of the loop are followed by one WAITAOF or WAIT: it says how many copies of what this connection
wrote are on a disk, or on replicas. Redis serves nothing else of the connection meanwhile. Takes that come in the
meantime are collected and go together, as databases commit groups. Where the copies are too few, the group's takes are
lost ones: not forwarded, looked for, and given back (docs/decisions/0006). No further take is sent then, until Redis
says that it holds the copies again. Corrections still are.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from gateway.ledger.takes import SentTakes
from gateway.redis.connection import Callback, Connection, Lost
from gateway.redis.pauses import PausableLink, Pause
from gateway.settings.intervals import Intervals
from quota.calls.encoded import command

log = structlog.get_logger()


class Durability(Protocol):
    """What must be so before a take is answered. A link has one."""

    @property
    def confirming(self) -> bool:
        """Whether takes that were sent wait for their confirmation. Those that come meanwhile are the next group."""

    async def check(self, connection: Connection) -> None:
        """The last word of a handshake. Raises Lost where this Redis must not be used."""

    def confirm(self, connection: Connection) -> None:
        """Takes were sent on this connection just now."""

    def hold(self, sent: SentTakes, replies: list[Any]) -> bool:
        """Whether these takes are answered later, when they are confirmed."""

    def leave(self, connection: Connection, reason: str) -> None:
        """Ends a connection whose server cannot take."""

    def close(self) -> None: ...


class DurableLink(PausableLink, Protocol):
    """What a level needs of the link that it serves."""

    def call(self, data: bytes, callback: Callback) -> None: ...
    def flush_waiting(self) -> None:
        """Sends the takes that wait, or refuses them while takes are paused."""


MakeDurability = Callable[[DurableLink], Durability]


class InMemory:
    """Level `memory`: an admitted take outlives what Redis' own settings let it outlive."""

    __slots__ = ("confirming",)

    def __init__(self, _: DurableLink) -> None:
        self.confirming = False

    async def check(self, connection: Connection) -> None:
        """Nothing is asked of it."""

    def confirm(self, connection: Connection) -> None:
        """Nothing confirms it."""

    def hold(self, sent: SentTakes, replies: list[Any]) -> bool:
        return False

    def leave(self, connection: Connection, reason: str) -> None:
        connection.end_when_answered(reason)

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Level:
    """`aof`: on the disk of the node that decides. `replica`: in the memory of so many others."""

    name: str
    copies: int
    wait_ms: int

    @property
    def words(self) -> tuple[str | int, ...]:
        # https://valkey.io/commands/waitaof/: local copies, those on disks of replicas, milliseconds.
        if self.name == "aof":
            return ("WAITAOF", self.copies, 0, self.wait_ms)
        return ("WAIT", self.copies, self.wait_ms)  # https://valkey.io/commands/wait/

    def shortfall(self, reply: Any) -> str:
        """Why the level is not kept, by the reply to `words`; empty where it is kept."""
        if isinstance(reply, Lost):
            return f"durability {self.name} is not kept: {reply}"
        copies = reply[0] if self.name == "aof" else reply
        if copies >= self.copies:
            return ""
        if self.name == "aof":
            return f"durability aof is not kept: not on the disk within {self.wait_ms} ms"
        return f"durability replica is not kept: {copies} of {self.copies} replicas had it within {self.wait_ms} ms"


class Confirmed:
    """Levels `aof` and `replica`: Redis confirms that so many copies are there."""

    __slots__ = ("_asking_again", "_intervals", "_level", "_link", "_loop", "_wait", "_waits", "held")

    def __init__(self, link: DurableLink, loop: asyncio.AbstractEventLoop, level: Level, intervals: Intervals) -> None:
        self._link = link
        self._loop = loop
        self._level = level
        self._intervals = intervals
        self._wait = command(*level.words)
        self._waits = 0  # that Redis has not answered
        self._asking_again: asyncio.TimerHandle | None = None
        self.held: list[tuple[SentTakes, list[Any]]] = []
        """Replies to takes, until the wait behind them is answered."""

    @property
    def confirming(self) -> bool:
        return self._waits > 0

    @property
    def _kept(self) -> bool:
        return Pause.LEVEL_NOT_KEPT not in self._link.pauses

    def confirm(self, connection: Connection) -> None:
        self._waits += 1
        connection.send(self._wait, self._on_waited)

    def hold(self, sent: SentTakes, replies: list[Any]) -> bool:
        self.held.append((sent, replies))
        return True

    def leave(self, connection: Connection, reason: str) -> None:
        # What is held is for the wait behind it, and must not meet a wait of the next connection.
        connection.abort(reason)

    def close(self) -> None:
        if self._asking_again is not None:
            self._asking_again.cancel()

    def _on_waited(self, reply: Any) -> None:
        """Replies come in order, so this one speaks of everything that is held by now: it was written before."""
        self._waits -= 1
        held, self.held = self.held, []
        shortfall = self._level.shortfall(reply)
        if shortfall and self._link.connection is not None:
            self._pause(shortfall)
        for sent, replies in held:
            # A take that was refused is no lost one.
            sent.answer([Lost(shortfall) if type(one) is bytes else one for one in replies] if shortfall else replies)
        if not self._waits:
            self._link.flush_waiting()

    # The level is not kept

    async def check(self, connection: Connection) -> None:
        try:
            reply: Any = await connection.ask(*self._level.words)
        except Lost as lost:
            reply = lost
        if self._level.name == "aof" and not isinstance(reply, Lost):
            _, policy = await connection.ask("CONFIG", "GET", "appendfsync")
            if policy != b"always":
                # WAITAOF then answers too early: https://github.com/redis/redis/pull/13793, and Valkey 9.1.
                reason = f"durability aof is not kept: appendfsync is {policy.decode()}, and must be always"
                raise Lost(reason, applied=False)
        if shortfall := self._level.shortfall(reply):
            raise Lost(shortfall, applied=False)
        self._link.resume(Pause.LEVEL_NOT_KEPT)

    def _pause(self, shortfall: str) -> None:
        if self._kept:
            log.error("redis does not keep the durability level", reason=shortfall)
        self._link.pause(Pause.LEVEL_NOT_KEPT, shortfall)
        self._link.flush_waiting()  # which refuses what was not sent
        if self._asking_again is None:
            self._asking_again = self._loop.call_later(self._intervals.level_look_seconds, self._ask_again)

    def _ask_again(self) -> None:
        self._asking_again = None
        if self._link.connection is not None and not self._kept:
            self._link.call(self._wait, self._on_asked)

    def _on_asked(self, reply: Any) -> None:
        if self._link.connection is None or self._kept:
            return  # a new connection was asked in its handshake
        if shortfall := self._level.shortfall(reply):
            self._pause(shortfall)
        else:
            self._link.resume(Pause.LEVEL_NOT_KEPT)
            log.info("redis keeps the durability level again")
