"""Takes that are answered only when Redis says that they outlive it (docs/durability.md).

All takes of one turn of the loop, then one WAITAOF or WAIT, in one write: it says how many copies of what this
connection wrote are on a disk, or on replicas. Redis serves nothing else of the connection meanwhile, so takes that
come in the meantime are collected and go together, as databases commit groups. Where the copies are too few, the
group's takes are lost ones: not forwarded, looked for, and given back (docs/decisions/0006). No further take is sent
then, until Redis says that it holds the copies again; corrections still are.
"""

import asyncio
from dataclasses import dataclass
from typing import Any

import structlog

from gateway.ledger.link import Link, Lost, _Takes, _Wire
from gateway.ledger.receipts import Receipts
from gateway.ledger.vouching import SeenEpoch
from gateway.settings.intervals import DEFAULT_INTERVALS, Intervals
from gateway.settings.root import Redis
from quota.calls.encoded import command

log = structlog.get_logger()


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

    def lacking(self, reply: Any) -> str:
        """Why the level is not kept, by the reply to `words`; empty where it is."""
        if isinstance(reply, Lost):
            return f"durability {self.name} is not kept: {reply}"
        copies = reply[0] if self.name == "aof" else reply
        if copies >= self.copies:
            return ""
        if self.name == "aof":
            return f"durability aof is not kept: not on the disk within {self.wait_ms} ms"
        return f"durability replica is not kept: {copies} of {self.copies} replicas had it within {self.wait_ms} ms"


def link_of(
    loop: asyncio.AbstractEventLoop,
    settings: Redis,
    seen: SeenEpoch | None = None,
    intervals: Intervals = DEFAULT_INTERVALS,
) -> Link:
    """The link that keeps the level of the settings."""
    url, shards = settings.url.get_secret_value(), settings.shards
    receipts = Receipts(settings.receipts_max, intervals)
    times = settings.timeout_ms / 1000, settings.budget_ms / 1000
    if settings.durability == "memory":
        return Link(loop, url, shards, *times, seen, receipts, settings.unwritten_seconds_max, intervals)
    copies = settings.replicas if settings.durability == "replica" else 1
    level = Level(settings.durability, copies, settings.durability_ms)
    return DurableLink(
        loop, url, shards, *times, seen, receipts, settings.unwritten_seconds_max, intervals, level=level
    )


class DurableLink(Link):
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        url: str,
        shards: int,
        timeout_seconds: float,
        budget_seconds: float | None = None,
        seen: SeenEpoch | None = None,
        receipts: Receipts | None = None,
        unwritten_seconds_max: float | None = None,
        intervals: Intervals = DEFAULT_INTERVALS,
        *,
        level: Level,
    ) -> None:
        super().__init__(
            loop, url, shards, timeout_seconds, budget_seconds, seen, receipts, unwritten_seconds_max, intervals
        )
        self._answer = _Held
        self._level = level
        self._wait = command(*level.words)
        self._waits = 0  # that Redis has not answered
        self.held: list[tuple[_Held, list[Any]]] = []  # replies to takes, until the wait behind them is answered
        self._asking_level: asyncio.TimerHandle | None = None

    async def close(self) -> None:
        if self._asking_level is not None:
            self._asking_level.cancel()
        await super().close()

    def _flush(self) -> None:
        if not self._batch or (self._waits and self._taking is not None):
            return  # `_on_waited` has sent them, or will
        super()._flush()
        self._send_wait()

    def _reload(self, takes: _Takes) -> None:
        super()._reload(takes)
        self._send_wait()

    def _send_wait(self) -> None:
        if self._wire is not None:
            self._waits += 1
            self._wire.send(self._wait, self._on_waited)

    def _on_waited(self, reply: Any) -> None:
        """Replies come in order, so what is held by now was written before this wait, and is spoken of by it."""
        self._waits -= 1
        held, self.held = self.held, []
        lacking = self._level.lacking(reply)
        if lacking and self._wire is not None:
            self._stop_taking(lacking)
        for takes, replies in held:
            # A take that was refused is no lost one.
            takes.settled([Lost(lacking) if type(one) is bytes else one for one in replies] if lacking else replies)
        if not self._waits and self._flushing:
            self._flush()

    # The level is not kept

    async def _check(self, wire: _Wire) -> None:
        try:
            reply: Any = await wire.ask(*self._level.words)
        except Lost as lost:
            reply = lost
        if self._level.name == "aof" and not isinstance(reply, Lost):
            _, policy = await wire.ask("CONFIG", "GET", "appendfsync")
            if policy != b"always":
                # WAITAOF then answers too early: https://github.com/redis/redis/pull/13793, and Valkey 9.1.
                reason = f"durability aof is not kept: appendfsync is {policy.decode()}, and must be always"
                raise Lost(reason, applied=False)
        if lacking := self._level.lacking(reply):
            raise Lost(lacking, applied=False)
        self.level_kept = True

    def _stop_taking(self, reason: str) -> None:
        self._taking = None
        self.down_reason = reason
        if self.level_kept:
            self.level_kept = False
            log.error("redis does not keep the durability level", reason=reason)
        if self._flushing:
            super()._flush()  # which refuses what was not sent
        if self._asking_level is None:
            self._asking_level = self._loop.call_later(self._intervals.level_look_seconds, self._ask_again)

    def _ask_again(self) -> None:
        self._asking_level = None
        if self._wire is not None and not self.level_kept:
            self.call(self._wait, self._on_asked)

    def _on_asked(self, reply: Any) -> None:
        if self._wire is None or self.level_kept:
            return  # a new connection was asked in its handshake
        if lacking := self._level.lacking(reply):
            self._stop_taking(lacking)
        else:
            self.level_kept = True
            self._take_again(self._wire)
            log.info("redis keeps the durability level again")

    def _let_go(self, wire: _Wire, reason: str) -> None:
        # What is held is for the wait behind it, and must not meet one of the next connection.
        wire.abort(reason)

    def _on_owing(self, wire: _Wire, owing: bool) -> None:
        if not self.level_kept:
            return
        super()._on_owing(wire, owing)
        if owing and self._flushing:
            super()._flush()  # which refuses what was not sent


class _Held(_Takes):
    __slots__ = ()
    link: DurableLink

    def __call__(self, reply: Any) -> None:
        if type(reply) is list:
            self.link.held.append((self, reply))
        else:
            super().__call__(reply)

    def settled(self, reply: Any) -> None:
        super().__call__(reply)
