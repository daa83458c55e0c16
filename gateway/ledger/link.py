"""The hot path's way to Redis: every take of one loop turn travels in one write, and in one script call.

It goes to the node that holds the shards, by one connection (`connection.py`) that is dialed again whenever it breaks.
Takes are sent while there is no reason to hold them back (`pauses.py`); a take that is not sent is answered at once. A
breaker belongs to that: while Redis owes a reply for longer than its budget, no further take is queued behind it. So
does a Redis that answers that it cannot take now; `common/redis_server.py` says which of its words mean that, and what
follows.
"""

import asyncio
from contextlib import suppress
from time import monotonic
from typing import Any

import structlog

from common import redis_server
from common.redis_server import Course, Refused
from gateway.ledger.durability import InMemory, MakeDurability
from gateway.ledger.place import Place
from gateway.ledger.receipts import Receipts
from gateway.ledger.receipts_keeper import Keeper, ReceiptsKeeper
from gateway.ledger.takes import SentTakes, SentTurn, Take, TakeWaiter, encoded, parts_of, run_script
from gateway.ledger.unsent import Unsent
from gateway.observe.tally import BUCKETS, histogram
from gateway.redis.connection import Callback, Connection, Lost, ReplyTimes
from gateway.redis.dialer import Dialer
from gateway.redis.pauses import Pause, Pauses
from gateway.redis.probe import TakesProbe
from gateway.redis.reconnection import Reconnection
from gateway.redis.server_watch import ServerWatch
from gateway.redis.vouching import SeenEpochs
from gateway.redis.way import OneServer, Way
from gateway.settings.intervals import DEFAULT_INTERVALS, Intervals
from quota.calls.call import Call
from quota.calls.encoded import BOOKS_KEYS
from quota.recovery_message import RecoveryMessage

log = structlog.get_logger()


class Link:
    """One connection that mends itself. `open`: it is there. `accepts`: takes are sent now; others get an answer at
    once."""

    __slots__ = (
        "_batch",
        "_dialer",
        "_flushing",
        "_keyed",
        "_loop",
        "_opened",
        "_place",
        "_probe",
        "_reconnection",
        "_unsent",
        "answered_at",
        "answered_sent_at",
        "batches",
        "breaks",
        "connection",
        "durability",
        "on_connected",
        "on_moved",
        "pauses",
        "receipts",
        "receipts_keeper",
        "server",
        "take_latency",
        "taking",
        "times",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        url: str,
        shards: int,
        times: ReplyTimes,
        *,
        seen: SeenEpochs | None = None,
        receipts: Receipts | None = None,
        unwritten_seconds_max: float | None = None,
        durability: MakeDurability = InMemory,
        intervals: Intervals = DEFAULT_INTERVALS,
        way: Way | None = None,
        keeper: Keeper | None = None,
        place: Place | None = None,
    ) -> None:
        """`seen` is shared by the workers of one gateway. `unwritten_seconds_max`: takes wait while one that was
        answered so long ago is not written; None: they go on. The last three are of a server of a Cluster; the keeper
        is that of all its links."""
        self._loop = loop
        self.times = times
        """For connections that are made from now on."""
        self.pauses = Pauses()
        self.connection: Connection | None = None
        self.taking: Connection | None = None
        """The connection, while there is no pause."""
        self._batch: list[Take] = []
        self._keyed = False  # a take of the batch has more than two keys
        self._flushing = False
        self._unsent = Unsent(self, loop, place)
        self._opened = asyncio.Event()  # once, for the start
        self.answered_at = self.answered_sent_at = float("-inf")  # monotonic: the newest replies, and their takes
        self.batches = 0
        """Script calls that were answered."""
        self.breaks = 0
        """How often the breaker opened."""
        self.take_latency = histogram()
        self.receipts = Receipts(intervals=intervals) if receipts is None else receipts
        self.durability = durability(self)
        self._place = place
        self._dialer = Dialer(loop, url, shards, of_cluster=way is not None)
        way = OneServer(shards) if way is None else way
        self._reconnection = Reconnection(self, loop, intervals, self._dialer)
        self.on_moved, self.on_connected = self._reconnection.on_moved, self._reconnection.on_connected
        self._probe = TakesProbe(self, loop, way, intervals)
        self.server = ServerWatch(self, loop, shards, way, SeenEpochs(None) if seen is None else seen, intervals)
        self.receipts_keeper = keeper or ReceiptsKeeper(
            self, loop, shards, self.receipts, self.server, unwritten_seconds_max, intervals
        )

    @property
    def open(self) -> bool:
        return self.connection is not None

    @property
    def accepts(self) -> bool:
        return self.taking is not None

    @property
    def down_reason(self) -> str:
        """Why takes are not sent, or were not sent last."""
        return self.pauses.reason

    @property
    def fault(self) -> str | None:
        """Why takes are not sent now; None while they are. Clients can read it."""
        return self.pauses.fault

    @property
    def asking(self) -> bool:
        """Redis is there, and the control plane is asked whether it is the one that it vouched for last."""
        return Pause.ASKING in self.pauses

    def of(self, shard: int) -> "Link":
        """The way to a shard: this one."""
        return self

    @property
    def corrects(self) -> bool:
        """Whether a correction that is sent now may be applied."""
        unsure = Pause.ASKING in self.pauses or Pause.REBUILDING in self.pauses  # it may not know what is corrected
        return self.connection is not None and self.pauses.refused is None and not unsure

    def redis_ms(self) -> int:
        """Redis time now, as far as this gateway knows it: milliseconds since the epoch, or 0."""
        return self._dialer.redis_ms()

    def start(self) -> None:
        self.receipts_keeper.start()
        self._reconnection.start()

    async def wait_open(self, seconds: float) -> bool:
        """Whether the connection is there, at the latest after so long."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._opened.wait(), seconds)
        return self._opened.is_set()

    async def close(self) -> None:
        self.durability.close()
        self.receipts_keeper.close()
        await self._reconnection.close()
        self._unsent.expire()
        self._probe.close()
        if self.connection is not None:
            self.connection.abort("the gateway is stopping")

    # The hot path

    def take(
        self, keys_bulk: bytes, argv_bulk: bytes, argv_count: int, waiter: TakeWaiter, key_count: int = BOOKS_KEYS
    ) -> None:
        """Queues one take, in parts of `quota/calls/encoded.py`: its KEYS and its ARGV, and how many these are."""
        if self.taking is None:
            self._unsent.turn_away((keys_bulk, argv_bulk, argv_count, waiter, key_count), self.pauses.reason)
            return
        self._batch.append((keys_bulk, argv_bulk, argv_count, waiter, key_count))
        if key_count != BOOKS_KEYS:
            self._keyed = True
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        connection = self.taking
        if connection is not None and self.durability.confirming:
            return  # these takes are the next group
        self._flushing = False
        batch, self._batch = self._batch, []
        keyed, self._keyed = self._keyed, False
        if connection is None:
            for take in batch:
                self.turn_away(take, self.pauses.reason)
            return
        if self._place is not None:
            self._place.send(self, connection, batch)
        else:
            for part in parts_of(batch):
                connection.send(encoded(part, keyed=keyed).by_digest(), SentTakes(self, connection, part, monotonic()))
        if batch:
            self.durability.confirm(connection)

    def hold(self, sent: SentTakes, replies: list[Any]) -> bool:
        return self.durability.hold(sent, replies)

    def count(self, sent: SentTakes, replies: list[Any], now: float) -> None:
        us = int((now - sent.sent_at) * 1e6)
        self.take_latency[us.bit_length()] += len(replies)
        self.take_latency[BUCKETS] += us * len(replies)
        self.batches += sent.calls
        self.answered_at = now
        self.answered_sent_at = sent.sent_at
        self.receipts.add(now, replies)

    def queue(self, takes: list[Take]) -> None:
        """These are sent before the takes of this turn."""
        self._batch = takes + self._batch
        self._keyed = self._keyed or any(take[4] != BOOKS_KEYS for take in takes)
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def flush_waiting(self) -> None:
        """Sends the takes that wait, or refuses them while takes are paused."""
        if self._flushing:
            self._flush()

    # Everything else

    def call(self, data: bytes, callback: Callback) -> None:
        """Sends one ready RESP command. The callback gets its reply (an error reply as Lost)."""
        if self.connection is None:
            callback(Lost(self.pauses.reason, applied=False))
        else:
            self.connection.send(data, callback)

    def read(self, data: bytes, reply_count: int, callback: Callback) -> None:
        """Sends commands that change nothing, where takes are sent. The callback gets the list of their replies, or
        Lost. They wait as long as a take does."""
        self._unsent.read(data, reply_count, callback)

    def run(self, call: Call, callback: Callback) -> None:
        """Runs a script by its digest, or by its text where Redis does not know it any more."""
        run_script(self.call, call, callback)

    def send_with_text(self, sent: SentTakes) -> None:
        """Redis forgot the script (restart, SCRIPT FLUSH), so nothing ran: the batch is sent again with its text, since
        between a load and a call there could be another flush."""
        if self.connection is None:
            sent(Lost(self.pauses.reason, applied=False))
            return
        sent.with_text, sent.connection = True, self.connection
        self.connection.send(encoded(sent.takes).by_text(), sent)
        self.durability.confirm(self.connection)

    async def look(self) -> None:
        """Has Redis say whether it would take, unless it just did; `fault` knows then."""
        await self._probe.look()

    def recover(self, asked: RecoveryMessage) -> None:
        """The control plane puts together what Redis has lost, and asks what is known here."""
        self.server.recover(asked)
        self.receipts.anew()
        self.receipts_keeper.report(asked)

    # Pauses

    def pause(self, pause: Pause, reason: str) -> None:
        self.taking = None
        self.pauses.begin(pause, reason)

    def pause_refused(self, refused: Refused, reason: str) -> None:
        """Redis answers that it cannot take now."""
        if self.pauses.refused is None:
            self.breaks += 1
        self.taking = None
        self.pauses.refuse(refused, reason)

    def resume(self, pause: Pause) -> None:
        """Takes are sent again, unless there is another pause."""
        self.pauses.end(pause)
        if self.taking is None and not self.pauses:
            self.taking = self.connection
            self._unsent.resend()

    def on_vouched(self) -> None:
        self.receipts.anew()

    def on_unvouched(self) -> None:
        self.receipts_keeper.report()

    def on_decided(self) -> None:
        self._opened.set()

    # Refused

    def on_error(self, connection: Connection, error: str, callback: Callback) -> None:
        self._on_refused(connection, error, of_take=isinstance(callback, SentTakes | SentTurn))

    def refuse(self, connection: Connection, error: str) -> bool:
        return self._on_refused(connection, error, of_take=True) is not None

    def _on_refused(self, connection: Connection, error: str, *, of_take: bool) -> Refused | None:
        """Redis answers with an error: whether it cannot take now. If so, no further take is sent to it, and its course
        begins."""
        if self._place is not None and self._place.redirects(error):
            return None
        refused = redis_server.refused(error)
        # What is forbidden may be another command, and takes be allowed.
        if refused is not None and connection is self.connection and (of_take or refused.word != "NOPERM"):
            if refused.course is Course.DIAL_AGAIN:
                self._leave(connection, refused, error)
            else:
                self._probe.probe_until_it_takes(connection, refused, error)
        return refused

    def _leave(self, connection: Connection, refused: Refused, reason: str) -> None:
        """Another connection may reach a server that can take."""
        self.connection = self.taking = None
        self.server.end(self.answered_at)
        self.pauses.end(Pause.SLOW)
        self.pauses.begin(Pause.AWAY, reason)
        self.pauses.refuse(refused, reason)
        self.breaks += 1
        self._unsent.begin(self.times.budget_seconds)
        log.warning("redis refuses takes: it is dialed again", reason=reason)
        self.durability.leave(connection, reason)
        self._reconnection.on_broken()

    def turn_away(self, take: Take, reason: str) -> None:
        """A take that was not applied. When a server was left just now, the next one may be there within the budget."""
        self._unsent.turn_away(take, reason)

    # Staying connected

    async def connect(self) -> Connection:
        connection = await self._dialer.dial(self, self.durability.check, self.server.check)
        connection.answer_within(self.times)
        return connection

    def on_unreachable(self, error: Exception, *, first: bool) -> None:
        reason = str(error) or "connection timed out"
        if first or reason != self.pauses.reason:
            log.warning("redis is away", server=self._dialer.server, reason=reason)
        self.pauses.end(Pause.REFUSED)
        self.pauses.begin(Pause.AWAY, reason)
        if isinstance(error, Lost) and (refused := redis_server.refused(reason)) is not None:
            self.pauses.refuse(refused, reason)
        if self._place is not None:
            self._place.on_away()

    def use(self, connection: Connection) -> None:
        self.connection = connection
        self.pauses.end(Pause.REFUSED)
        self.server.begin(connection)
        self.resume(Pause.AWAY)
        if connection.lost is not None:  # between the handshake's last reply and here
            self.on_lost(connection, connection.lost)
        if not self.asking:
            self._opened.set()

    def on_lost(self, connection: Connection, reason: str) -> None:
        if connection is not self.connection:
            return
        self.connection = self.taking = None
        self.pauses.end(Pause.REFUSED, Pause.SLOW)
        self.pauses.begin(Pause.AWAY, reason)
        self.server.end(connection.read_at)
        if not self._reconnection.closing:
            log.warning("redis connection lost", reason=reason)
        self._reconnection.on_broken()
        if self._place is not None:
            self._place.on_away()

    def on_owing(self, connection: Connection, *, owing: bool) -> None:
        """The breaker. What is under way waits on for its reply or its timeout, which closes it again."""
        if connection is not self.connection or Pause.LEVEL_NOT_KEPT in self.pauses:
            return
        if not owing:
            self.resume(Pause.SLOW)
            return
        reason = f"Redis owes a reply for more than {self.times.budget_seconds * 1000:.0f} ms"
        self.breaks += 1
        self.pause(Pause.SLOW, reason)
        log.warning("redis is slow", reason=reason)
        if self.durability.confirming:
            self.flush_waiting()  # which refuses what was not sent
