"""The server at the other end is looked at until the control plane vouches for it. Takes wait for that."""

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Protocol

import structlog

from gateway.redis.connection import Connection, Lost
from gateway.redis.pauses import PausableLink, Pause
from gateway.redis.vouching import Belief, SeenEpochs, VouchedServer
from gateway.redis.way import Generations, Way
from gateway.settings.intervals import Intervals
from quota.recovery_message import RecoveryMessage

log = structlog.get_logger()

LOOK_SECONDS = 0.1
ASKING = "whether this Redis is the one to believe is being asked"
REBUILDING = "what Redis has lost is being put back"


class WatchingLink(PausableLink, Protocol):
    def on_vouched(self) -> None:
        """Takes may be sent to this server from now on."""

    def on_unvouched(self) -> None:
        """What was answered lately is reported, since this server may lack it."""

    def on_decided(self) -> None:
        """It is known whether this server can be believed as it is."""


class ServerWatch:
    __slots__ = ("_link", "_loop", "_server", "_shards", "_way")

    def __init__(
        self,
        link: WatchingLink,
        loop: asyncio.AbstractEventLoop,
        shards: int,
        way: Way,
        seen: SeenEpochs,
        intervals: Intervals,
    ) -> None:
        self._link = link
        self._loop = loop
        self._way = way
        self._shards = shards
        self._server = VouchedServer(seen, shards, intervals)

    @property
    def epoch(self) -> int:
        """The highest in which a shard of the server was vouched for that is believed, or was."""
        return self._server.epoch

    @property
    def epochs(self) -> Mapping[int, int]:
        """The same, by shard."""
        return self._server.epochs

    @property
    def vouched(self) -> bool:
        return self._server.belief is Belief.VOUCHED

    async def check(self, connection: Connection) -> None:
        """In the handshake: whether this server is one to believe, and if not, whether it can become one."""
        try:
            about = await connection.ask("INFO", "server")
        except Lost as e:
            if connection.lost is not None:
                raise
            log.warning("redis does not tell its run id, so a restart that loses charges is not noticed", reason=str(e))
            self._server.connected(b"", {}, self._loop.time())
            return
        run_id = next(line[7:] for line in about.splitlines() if line.startswith(b"run_id:"))
        self._server.connected(run_id, await self._way.generations(connection), self._loop.time())

    def begin(self, connection: Connection) -> None:
        """The link uses this connection from now on."""
        self._show()
        if self._server.moved and (self.vouched or self._server.asking):
            self._link.on_unvouched()  # it was vouched for without what we were answered at the one before
        if self.vouched:
            return
        if not self._server.asking:
            if self._server.epoch:
                log.warning("redis is another server, or was restarted: takes wait until it is vouched for")
            else:  # as in each first start, if the gateway is quicker than the control plane
                log.info("redis is not vouched for yet: takes wait until it is")
            self._link.on_unvouched()
        self._look(connection)

    def end(self, read_at: float) -> None:
        """The connection is used no more; its last reply came then."""
        self._server.lost(read_at)
        self._link.pauses.end(Pause.ASKING, Pause.REBUILDING)

    def fence(self, reason: str) -> None:
        """Takes wait until the server is vouched for anew."""
        connection = self._link.connection
        if connection is not None and self.vouched:
            log.warning("takes wait until redis is vouched for", reason=reason)
            self._server.fence()
            self._show()
            self._look(connection)

    def recover(self, asked: RecoveryMessage) -> None:
        """The control plane puts together what a server has lost, of all shards."""
        if asked.over:
            self.put_aside(dict.fromkeys(range(self._shards), asked.over))
        if asked.fences:
            self.fence(REBUILDING)

    def put_aside(self, epochs: Mapping[int, int]) -> None:
        """By shard: the epochs up to these are over, whichever server holds them."""
        self._server.put_aside(epochs)

    def adopt(self, shard: int, generation: bytes | None) -> bool:
        """Whether a shard that has come to this server, which is vouched for, is vouched for there, too."""
        return self._server.adopt(shard, generation)

    def leave(self, shard: int) -> None:
        """A shard that this server does not hold any more."""
        self._server.leave(shard)

    def look_again(self, generations: Generations) -> None:
        """Another look at a server that is vouched for: it may have been replaced on the same connection."""
        if not self._server.is_still_vouched(generations):
            self.fence("redis is another server than it was on the same connection")

    # Until it is vouched for

    def _show(self) -> None:
        """The link's pauses follow what is believed."""
        if self.vouched:
            self._link.resume(Pause.ASKING)
            self._link.resume(Pause.REBUILDING)
        elif self._server.asking:
            if Pause.ASKING not in self._link.pauses:
                self._link.pause(Pause.ASKING, ASKING)
        elif Pause.REBUILDING not in self._link.pauses:
            self._link.pause(Pause.REBUILDING, REBUILDING)
            self._link.resume(Pause.ASKING)

    def _look(self, connection: Connection) -> None:
        if connection is self._link.connection and not self.vouched:
            self._way.look(connection, self._server.name, partial(self._on_looked, connection))

    def _on_looked(self, connection: Connection, generations: Generations | Lost, answer: bytes | None) -> None:
        if connection is not self._link.connection or self.vouched:
            return
        if isinstance(generations, Lost):
            if connection.lost is None:  # one of its shards is elsewhere, or it refuses for now
                self._loop.call_later(LOOK_SECONDS, self._look, connection)
            return
        now = self._loop.time()
        self._server.looked(generations, answer, now)
        if self.vouched:
            self._link.on_vouched()
            self._show()
            self._link.on_decided()
            log.info("redis is vouched for", epoch=self._server.epoch)
            return
        self._show()
        if not self._server.asking:
            self._link.on_decided()
        if (question := self._server.question(generations, now)) is not None:
            self._way.ask(connection, question)
        self._loop.call_later(LOOK_SECONDS, self._look, connection)
