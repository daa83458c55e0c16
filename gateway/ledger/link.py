"""The hot path's Redis connection: every take of one loop turn travels in one write, and in one script call.

It speaks RESP2 to the node that holds the shards and parses with hiredis. It never waits: a waiter is called back
with its reply, or told that the ledger was lost. A reply that does not come in time breaks the connection, since
what comes after it can no longer be told apart; everything under way is then lost together. Well before that a breaker
opens: while Redis owes a reply for longer than its budget, no further take is queued behind it. It opens, too, when
Redis answers that it cannot take now; `common/redis_server.py` says which of its words mean that, and what follows.
"""

import asyncio
import os
from collections import deque
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any, Protocol, cast

import hiredis
import structlog

from common import redis_server, redis_url
from common.certificates import Certificates
from common.redis_server import Course, Refused
from gateway.ledger.receipts import Receipts
from gateway.ledger.vouching import SeenEpoch, VouchedServer
from gateway.observe.tally import BUCKETS, histogram
from gateway.settings.intervals import DEFAULT_INTERVALS, Intervals
from quota import keys
from quota.calls.call import Call
from quota.calls.encoded import BOOKS_KEYS, TAKES_MAX, Batch, by_digest, by_text, command, join_takes
from quota.ledger import ShardMismatch
from quota.scripts import script

log = structlog.get_logger()

CONNECT_TIMEOUT_SECONDS = 2.0
READ_GRACE_SECONDS = 0.01
TIMER_SECONDS = 0.002  # by which a timer may be early
STABLE_SECONDS = 1.0  # a connection that refuses sooner is dialed again with backoff
VOUCHED_SECONDS = 0.1
PACK_SECONDS = 0.05
REBUILDING = "what Redis has lost is being put back"
REBUILDING_FAULT = "what redis has lost is being put back"
UNWRITTEN_FAULT = "what was charged is not written in time"
ASKING = "whether this Redis is the one to believe is being asked"
ASKING_FAULT = "whether redis is the one to believe is being asked"


class Lost(Exception):
    """No reply came, or Redis refused: whether the call took effect is unknown unless `applied` is False."""

    def __init__(self, reason: str, *, applied: bool | None = None) -> None:
        super().__init__(reason)
        self.applied = applied


class TakeWaiter(Protocol):
    def on_take(self, reply: bytes) -> None: ...
    def on_take_lost(self, lost: Lost) -> None: ...


Callback = Callable[[Any], None]
"""Called with the reply, or with Lost."""


class Link:
    """One connection that mends itself. `open`: it is there. `accepts`: takes are sent now; others are told at once."""

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
    ) -> None:
        """`seen` is shared by the workers of one gateway. `unwritten_seconds_max`: takes stop where one was answered so
        long ago that nobody has written yet; None: they go on."""
        self._loop = loop
        self._url = url
        self._intervals = intervals
        self._certificates: Certificates | None = None
        self._shards = shards
        self._timeout = timeout_seconds
        self._budget = timeout_seconds if budget_seconds is None else budget_seconds
        self._script = script("take")
        self._generation_keys = [keys.generation_key(shard) for shard in range(shards)]
        self._vouching = VouchedServer(SeenEpoch(None) if seen is None else seen, intervals)
        # Changes nothing, and is refused by whoever would refuse to write.
        self._probe = command("SET", keys.LAYOUT, shards, "NX")
        self._wire: _Wire | None = None
        self._taking: _Wire | None = None  # the wire, unless the breaker is open
        self._batch: list[_Take] = []
        self._answer: type[_Takes] = _Takes
        self._keyed = False  # a take of the batch has more than two keys
        self._flushing = False
        self._closing = False
        self._keeper: asyncio.Task[None] | None = None
        self._opened = asyncio.Event()  # once, for the start
        self._broken = asyncio.Event()
        self._refused: Refused | None = None  # what Redis answers instead of taking, while it does
        self._probes = 0  # how often it was asked since whether it takes again
        self._probing: asyncio.TimerHandle | None = None
        self._parked: list[_Take] = []  # refused by a server that was left: for the next one, if it is there in time
        self._parked_until = float("-inf")  # loop time
        self._looked_at = float("-inf")  # loop time
        self.answered_at = float("-inf")  # monotonic: the newest replies to takes
        self.on_moved: list[Callable[[], None]] = []
        """Called when another connection is there in place of one whose server could not take."""
        self._client_id: int | None = None  # of the newest connection, inside Redis
        self._name = b"quotagate-%b" % os.urandom(8).hex().encode()  # of its connections
        self._redis_ahead_ms: float | None = None  # of this loop's clock
        self.down_reason = "not connected yet"
        self.level_kept = True  # False: Redis holds too few copies of what it admits (durability.py)
        self.batches = 0  # script calls that were answered
        self.breaks = 0  # how often the breaker opened
        self.take_latency = histogram()
        self.receipts = Receipts(intervals=intervals) if receipts is None else receipts
        self._unwritten_max = unwritten_seconds_max
        self.receipts.confirms = unwritten_seconds_max is not None
        self._unwritten = False  # for too long
        self._ask_written = (
            command("TIME"),
            command("HMGET", keys.WRITTEN, *range(shards)),
            command("MGET", *self._generation_keys),
        )
        self._keeping: asyncio.TimerHandle | None = None

    @property
    def open(self) -> bool:
        return self._wire is not None

    @property
    def accepts(self) -> bool:
        return self._taking is not None

    @property
    def rebuilding(self) -> bool:
        """Redis is there, and has lost what it knew: takes wait until that was put back."""
        return self._wire is not None and not self._vouching.vouched and not self._vouching.asking

    @property
    def asking(self) -> bool:
        """Redis is there, and the control plane is asked whether it is the one that it vouched for last."""
        return self._wire is not None and self._vouching.asking

    @property
    def epoch(self) -> int:
        """In which the server was vouched for that is believed, or was."""
        return self._vouching.epoch

    @property
    def corrects(self) -> bool:
        """Whether a correction that is sent now may be applied."""
        return self._wire is not None and self._refused is None

    @property
    def fault(self) -> str | None:
        """Why takes are not sent now, None while they are. Clients can read it."""
        if self._taking is not None:
            return None
        if self._refused is not None:
            return self._refused.fault
        if self._wire is None:
            return "redis is away"
        if not self.level_kept:
            return "redis does not keep the durability level"
        if self.asking:
            return ASKING_FAULT
        if self._unwritten:
            return UNWRITTEN_FAULT
        return REBUILDING_FAULT if self.rebuilding else "redis answers too slowly"

    def start(self) -> None:
        self._keeping = self._loop.call_later(self._intervals.receipts_look_seconds, self._keep_receipts)
        self._keeper = self._loop.create_task(self._keep_connected(), name="redis-link")

    async def wait_open(self, seconds: float) -> bool:
        """Whether the connection is there, at the latest after so long."""
        try:
            await asyncio.wait_for(self._opened.wait(), seconds)
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        self._closing = True
        if self._keeping is not None:
            self._keeping.cancel()
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        self._unpark()
        if self._probing is not None:
            self._probing.cancel()
        if self._wire is not None:
            self._wire.abort("the gateway is stopping")

    # The hot path

    def take(
        self, keys_bulk: bytes, argv_bulk: bytes, argv_count: int, waiter: TakeWaiter, key_count: int = BOOKS_KEYS
    ) -> None:
        """Queues one take, in parts of `quota/calls/encoded.py`: its KEYS and its ARGV, and how many these are."""
        if self._taking is None:
            self.turn_away((keys_bulk, argv_bulk, argv_count, waiter, key_count), self.down_reason)
            return
        self._batch.append((keys_bulk, argv_bulk, argv_count, waiter, key_count))
        if key_count != BOOKS_KEYS:
            self._keyed = True
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        batch, self._batch = self._batch, []
        keyed, self._keyed = self._keyed, False
        wire = self._taking
        if wire is None:
            for take in batch:
                self.turn_away(take, self.down_reason)
            return
        for at in range(0, len(batch), TAKES_MAX):
            part = batch if len(batch) <= TAKES_MAX else batch[at : at + TAKES_MAX]
            encoded = join_takes(
                [take[0] for take in part],
                sum([take[4] for take in part]) if keyed else BOOKS_KEYS * len(part),
                [take[1] for take in part],
                sum([take[2] for take in part]),
            )
            wire.send(encoded.by_digest(), self._answer(self, wire, part, encoded))

    # Everything else

    def call(self, data: bytes, callback: Callback) -> None:
        """Sends one ready RESP command. The callback gets its reply (an error reply as Lost)."""
        if self._wire is None:
            callback(Lost(self.down_reason, applied=False))
        else:
            self._wire.send(data, callback)

    def run(self, call: Call, callback: Callback) -> None:
        """Runs a script by its digest, or by its text where Redis does not know it any more."""

        def on_reply(reply: Any) -> None:
            if isinstance(reply, Lost) and str(reply).startswith("NOSCRIPT"):
                self.call(by_text(call), callback)
            else:
                callback(reply)

        self.call(by_digest(call), on_reply)

    def _reload(self, takes: "_Takes") -> None:
        """Redis forgot the script (restart, SCRIPT FLUSH), so nothing ran: the batch is sent again with its text, since
        between a load and a call there could be another flush."""
        if self._wire is None:
            takes(Lost(self.down_reason, applied=False))
            return
        takes.reloaded, takes.wire = True, self._wire
        self._wire.send(takes.encoded.by_text(), takes)

    # Refused

    def on_refused(self, wire: "_Wire", error: str, *, of_take: bool) -> Refused | None:
        """Redis answers with an error: whether it cannot take now. If so, no further take is sent to it, and its course
        begins."""
        refused = redis_server.refused(error)
        # What is forbidden may be another command, and takes be allowed.
        if refused is not None and wire is self._wire and (of_take or refused.word != "NOPERM"):
            if refused.course is Course.DIAL_AGAIN:
                self._leave(wire, refused, error)
            else:
                self._stand_back(wire, refused, error)
        return refused

    def turn_away(self, take: "_Take", reason: str) -> None:
        """A take that was not applied. When a server was left just now, the next one may be found within the budget."""
        if self._loop.time() < self._parked_until:
            self._parked.append(take)
            self._send_parked()
        else:
            take[3].on_take_lost(Lost(reason, applied=False))

    def _leave(self, wire: "_Wire", refused: Refused, reason: str) -> None:
        self._wire = self._taking = None
        self._vouching.lost(self.answered_at)
        self._refused, self.down_reason = refused, reason
        self.breaks += 1
        now = self._loop.time()
        if now >= self._parked_until + STABLE_SECONDS:  # at the first of several refusals
            self._parked_until = now + self._budget
            self._loop.call_at(self._parked_until + TIMER_SECONDS, self._unpark)  # none is parked after it
        log.warning("redis refuses takes: it is dialed again", reason=reason)
        self._let_go(wire, reason)
        self._broken.set()

    def _let_go(self, wire: "_Wire", reason: str) -> None:
        wire.end_when_answered(reason)

    def _stand_back(self, wire: "_Wire", refused: Refused, reason: str) -> None:
        if self._refused is None:
            self._probes = 0
            self.breaks += 1
            log.warning("redis refuses takes: it is asked until it takes again", reason=reason)
        self._taking = None
        self._refused, self.down_reason = refused, reason
        if self._probing is None:
            delay = self._intervals.redis_again.seconds(self._probes + 1)
            self._probing = self._loop.call_later(delay, self._probe_again, wire)

    def _probe_again(self, wire: "_Wire") -> None:
        self._probing = None
        if wire is self._wire and self._refused is not None:
            self._probes += 1
            wire.send(self._probe, lambda reply: self._on_probed(wire, reply))

    def _on_probed(self, wire: "_Wire", reply: Any) -> None:
        if wire is not self._wire or (refused := self._refused) is None:
            return
        if isinstance(reply, Lost):
            self._stand_back(wire, refused, str(reply))
            return
        self._refused = None
        self._take_again(wire)
        log.info("redis takes again")

    def _send_parked(self) -> None:
        if self._parked and self._taking is not None:
            parked, self._parked = self._parked, []
            self._batch = parked + self._batch
            self._keyed = self._keyed or any(take[4] != BOOKS_KEYS for take in parked)
            if not self._flushing:
                self._flushing = True
                self._loop.call_soon(self._flush)

    def _unpark(self) -> None:
        parked, self._parked = self._parked, []
        for take in parked:
            take[3].on_take_lost(Lost(self.down_reason, applied=False))

    async def look(self) -> None:
        """Has Redis say whether it would take, unless it just did; `fault` knows then. That takes are answered does not
        show it: a replica refuses the exhausted as a primary does, since nothing is written for that."""
        wire, now = self._taking, self._loop.time()
        if wire is None or now - self._looked_at < self._intervals.link_look_seconds:
            return
        self._looked_at = now
        answered: asyncio.Future[None] = self._loop.create_future()
        wire.send(self._probe, lambda _: None if answered.done() else answered.set_result(None))
        await answered

    # Staying connected

    async def _keep_connected(self) -> None:
        failures = 0
        moved, left = False, 0  # whether the one before refused; how many in a row did soon after they were made
        while not self._closing:
            try:
                wire = await asyncio.wait_for(self._connect(), CONNECT_TIMEOUT_SECONDS)
            except (OSError, Lost, TimeoutError, ValueError) as e:
                reason = str(e) or "connection timed out"
                if failures == 0 or reason != self.down_reason:
                    log.warning("redis is away", reason=reason)
                self.down_reason = reason
                self._refused = redis_server.refused(reason) if isinstance(e, Lost) else None
                failures += 1
                await asyncio.sleep(self._intervals.redis_again.seconds(failures))
                continue
            if failures:
                log.info("redis is back", attempts=failures + 1)
            failures = 0
            if self._closing:  # before Python 3.12, wait_for swallows a cancellation that comes with the result
                wire.abort("the gateway is stopping")
                return
            self._broken.clear()
            opened_at = self._loop.time()
            self._wire, self._refused = wire, None
            self._taking = wire if self._vouching.vouched and not self._unwritten else None
            if not self._vouching.vouched:
                if self._vouching.asking:
                    self.down_reason = ASKING
                else:
                    self.down_reason = REBUILDING
                    if self._vouching.epoch:
                        log.warning("redis is another server, or was restarted: takes wait until it is vouched for")
                    else:  # as in each first start, if the gateway is quicker than the control plane
                        log.info("redis is not vouched for yet: takes wait until it is")
                    self.tell_receipts()
                self._look_again(wire)
            if wire.lost is not None:  # between the handshake's last reply and here
                self._on_lost(wire, wire.lost)
            if not self._vouching.asking:
                self._opened.set()
            self._send_parked()
            if moved:
                for callback in self.on_moved:
                    callback()
            await self._broken.wait()
            moved = self._refused is not None
            left = left + 1 if moved and self._loop.time() - opened_at < STABLE_SECONDS else 0
            if left:
                await asyncio.sleep(self._intervals.redis_again.seconds(left))

    async def _connect(self) -> "_Wire":
        options = redis_url.parts(self._url)
        if self._certificates is None:
            self._certificates = redis_url.certificates(self._url)
        tls = None if self._certificates is None else await self._certificates.current()
        wire = _Wire(self._loop, CONNECT_TIMEOUT_SECONDS, self._on_lost, self._on_owing, self.on_refused)
        if "path" in options:
            await self._loop.create_unix_connection(lambda: wire, options["path"])
        else:
            await self._loop.create_connection(
                lambda: wire, options.get("host", "localhost"), options.get("port", 6379), ssl=tls
            )
        try:
            await self._enter(wire, options.get("username"), options.get("password"))
            if database := options.get("db"):
                await wire.ask("SELECT", database)
            await wire.ask("SET", keys.LAYOUT, self._shards, "NX")
            await self._end_predecessor(wire)
            installed = int(await wire.ask("GET", keys.LAYOUT) or self._shards)
            if installed != self._shards:
                raise Lost(str(ShardMismatch(self._shards, installed)), applied=False)
            await wire.ask("SCRIPT", "LOAD", self._script.source)
            await wire.ask("EVALSHA", self._script.sha, 0)  # no take: whether they may be sent
            await self._check(wire)
            await self._judge_server(wire)
        except BaseException:
            wire.abort("handshake failed")
            raise
        wire.answer_within(self._timeout, self._budget)
        return wire

    async def _enter(self, wire: "_Wire", username: str | None, password: str | None) -> None:
        """Says who we are, and looks at who answers."""
        denied: Lost | None = None
        if username is not None or password is not None:
            try:
                await wire.ask("AUTH", username or "default", password or "")
            except Lost as e:  # a Sentinel knows no such password, and is better told by its name
                denied = e
        try:
            info = redis_server.fields_of(await wire.ask("INFO"))
        except Lost as e:
            if wire.lost is not None or denied is not None:
                raise denied or e from None
            log.warning("redis does not tell its role, so a replica shows only when it refuses", reason=str(e))
            return
        if reason := redis_server.unsupported(info):
            raise Lost(reason, applied=False)
        if denied is not None:
            raise denied
        if reason := redis_server.not_a_primary(info):
            raise Lost(reason, applied=False)

    async def _check(self, wire: "_Wire") -> None:
        """The last word of the handshake. Raises Lost where this Redis must not be used."""

    async def _end_predecessor(self, wire: "_Wire") -> None:
        """Ends the connection before this one inside Redis, too: a take that still lies in its socket there would be
        charged after it was looked for, and not found."""
        try:
            # Numbers begin anew with a Redis that was restarted, and may be those of others then.
            if self._client_id is not None and self._name in await wire.ask("CLIENT", "LIST", "ID", self._client_id):
                await wire.ask("CLIENT", "KILL", "ID", self._client_id)
            await wire.ask("CLIENT", "SETNAME", self._name)
            self._client_id = int(await wire.ask("CLIENT", "ID"))
            seconds, microseconds = await wire.ask("TIME")
        except Lost as e:
            if wire.lost is not None:
                raise
            log.warning("redis does not let the gateway end its old connections", reason=str(e))
            return
        self._redis_ahead_ms = int(seconds) * 1000 + int(microseconds) / 1000 - self._loop.time() * 1000

    async def _judge_server(self, wire: "_Wire") -> None:
        """Whether this server is one to believe, and if not, whether it can become one."""
        try:
            about = await wire.ask("INFO", "server")
        except Lost as e:
            if wire.lost is not None:
                raise
            log.warning("redis does not tell its run id, so a restart that loses charges is not noticed", reason=str(e))
            self._vouching.connected(b"", [], self._loop.time())
            return
        server = next(line[7:] for line in about.splitlines() if line.startswith(b"run_id:"))
        generations = await wire.ask("MGET", *self._generation_keys)
        self._vouching.connected(server, generations, self._loop.time())

    def _take_again(self, wire: "_Wire") -> None:
        """Nothing that was wrong with this connection is any more; whether something else still is."""
        if self._vouching.vouched and self.level_kept and self._refused is None and not self._unwritten:
            self._taking = wire
            self._send_parked()

    def recover(self, message: str) -> None:
        """The control plane puts together what Redis has lost, and asks with this message what is known here."""
        if message.startswith(keys.FENCE):
            self._fence(REBUILDING)
        self.receipts.anew()
        self.tell_receipts(message)

    def _fence(self, reason: str) -> None:
        if self._wire is not None and self._vouching.vouched:
            log.warning("takes wait until redis is vouched for", reason=reason)
            self._vouching.fence()
            self._taking, self.down_reason = None, REBUILDING
            self._look_again(self._wire)

    def _look_again(self, wire: "_Wire") -> None:
        if wire is self._wire and not self._vouching.vouched:
            look = command("MGET", *self._generation_keys, keys.answer_key(self._vouching.name))
            wire.send(look, lambda reply: self._on_generations(wire, reply))

    def _on_generations(self, wire: "_Wire", reply: Any) -> None:
        if wire is not self._wire or self._vouching.vouched or isinstance(reply, Lost):
            return
        *generations, answer = reply
        now = self._loop.time()
        self._vouching.looked(generations, answer, now)
        if self._vouching.vouched:
            self.receipts.anew()
            self._take_again(wire)
            self._opened.set()
            log.info("redis is vouched for", epoch=self._vouching.epoch)
            return
        if not self._vouching.asking:
            self.down_reason = REBUILDING
            self._opened.set()
        if (question := self._vouching.question(generations, now)) is not None:
            wire.send(command("RPUSH", keys.VOUCH, question), _ignored)
        self._loop.call_later(VOUCHED_SECONDS, self._look_again, wire)

    def tell_receipts(self, nonce: str | None = None) -> None:
        """Tells the control plane which takes were answered lately; `nonce` is what it asked with. A portion in each
        turn of the loop: a million takes hold up no request."""
        if self._wire is not None:
            self._tell_on(self._wire, self.receipts.told(), nonce)

    def _tell_on(self, wire: "_Wire", portions: Iterator[bytes], nonce: str | None) -> None:
        if wire is not self._wire:
            return  # no `end`: the portions that were on their way may be lost, and the next connection tells anew
        portion = next(portions, None)
        if portion is not None:
            if portion:
                wire.send(command("RPUSH", keys.RECEIPTS, portion), _ignored)
            self._loop.call_soon(self._tell_on, wire, portions, nonce)
        elif nonce is not None:
            wire.send(command("RPUSH", keys.RECEIPTS, f"end {nonce}"), _ignored)

    def _keep_receipts(self) -> None:
        """Looks how far the writer is, and keeps what may have to be told."""
        now = monotonic()
        more = self.receipts.tidy(now)
        self._fence_unwritten(now)
        if not more and self._wire is not None and self._vouching.vouched and self.receipts.held:
            wire, replies = self._wire, list[Any]()
            *others, last = self._ask_written
            for asked in others:
                wire.send(asked, replies.append)
            wire.send(last, lambda reply: self._on_written(wire, [*replies, reply]))
        self._keeping = self._loop.call_later(
            PACK_SECONDS if more else self._intervals.receipts_look_seconds, self._keep_receipts
        )

    def _on_written(self, wire: "_Wire", replies: list[Any]) -> None:
        if wire is not self._wire or not self._vouching.vouched or any(isinstance(reply, Lost) for reply in replies):
            return
        time, written, generations = replies
        if not self._vouching.stands(generations):
            self._fence("redis is another server than it was on the same connection")
            return
        # Of another epoch: told by a writer that reads another server, or of what is put together since.
        begins = b"%d " % self._vouching.epoch
        told = [int(each.split()[1]) for each in written if each is not None and each.startswith(begins)]
        redis_ms = int(time[0]) * 1000 + int(time[1]) // 1000
        self.receipts.mark(monotonic(), redis_ms, min(told) if len(told) == self._shards else None)
        self._fence_unwritten(monotonic())

    def _fence_unwritten(self, now: float) -> None:
        if self._unwritten_max is None:
            return
        late = self.receipts.full or self.receipts.unwritten_seconds(now) > self._unwritten_max
        if late == self._unwritten:
            return
        self._unwritten = late
        if late:
            self._taking, self.down_reason = None, UNWRITTEN_FAULT
            log.error("takes wait until what was charged is written", seconds=self._unwritten_max)
        elif self._wire is not None:
            self._take_again(self._wire)
            log.info("what was charged is written")

    def redis_ms(self) -> int:
        """Redis time now, as far as this gateway knows it: milliseconds since the epoch, or 0."""
        return int(self._loop.time() * 1000 + self._redis_ahead_ms) if self._redis_ahead_ms is not None else 0

    def _on_lost(self, wire: "_Wire", reason: str) -> None:
        if wire is not self._wire:
            return
        self._wire = self._taking = self._refused = None
        self._vouching.lost(wire.read_at)
        self.down_reason = reason
        if not self._closing:
            log.warning("redis connection lost", reason=reason)
        self._broken.set()

    def _on_owing(self, wire: "_Wire", owing: bool) -> None:
        """The breaker. What is under way waits on for its reply or its timeout, which closes it again."""
        if wire is not self._wire:
            return
        if owing:
            self.down_reason = f"Redis owes a reply for more than {self._budget * 1000:.0f} ms"
            self.breaks += 1
            self._taking = None
            log.warning("redis is slow", reason=self.down_reason)
        else:
            self._take_again(wire)


def _ignored(reply: Any) -> None:
    """What does not arrive is told again when it is asked for, or with the next connection."""


_Take = tuple[bytes, bytes, int, TakeWaiter, int]
"""What `take` was called with: RESP words of keys and ARGV, the number of these, the waiter, the number of those."""


class _Takes:
    """The waiters of one script call, in order. Called with the reply to the batch."""

    __slots__ = ("encoded", "link", "part", "reloaded", "sent_at", "wire")

    def __init__(self, link: Link, wire: "_Wire", part: list[_Take], encoded: Batch) -> None:
        self.link = link
        self.wire = wire
        self.part = part
        self.encoded = encoded
        self.reloaded = False
        self.sent_at = monotonic()

    def __call__(self, reply: Any) -> None:
        if type(reply) is list:
            now = monotonic()
            latency, us = self.link.take_latency, int((now - self.sent_at) * 1e6)
            latency[us.bit_length()] += len(self.part)
            latency[BUCKETS] += us * len(self.part)
            self.link.batches += 1
            self.link.answered_at = now
            self.link.receipts.add(now, reply)
            for take, one in zip(self.part, reply, strict=True):
                if type(one) is bytes:
                    take[3].on_take(one)
                else:
                    self._failed(take, one)
            return
        if str(reply).startswith("NOSCRIPT") and not self.reloaded:
            self.link._reload(self)
            return
        for take in self.part:
            if reply.applied is False:
                self.link.turn_away(take, str(reply))
            else:
                take[3].on_take_lost(reply)

    def _failed(self, take: _Take, one: Any) -> None:
        """An error in place of one reply. Nothing of that take was charged, if it is Redis' own."""
        if isinstance(one, Lost):
            take[3].on_take_lost(one)
            return
        refused = self.link.on_refused(self.wire, str(one), of_take=True)
        if refused is not None:
            self.link.turn_away(take, str(one))
            return
        log.error("take failed", reason=str(one))
        take[3].on_take_lost(Lost(str(one)))


class OnRefused(Protocol):
    def __call__(self, wire: "_Wire", error: str, *, of_take: bool) -> object: ...


class _Wire(asyncio.Protocol):
    """One TCP connection: commands out, replies in, in order. Fails everything under way when it breaks."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        timeout_seconds: float,
        on_lost: Callable[["_Wire", str], None],
        on_owing: Callable[["_Wire", bool], None],
        on_refused: "OnRefused",
    ) -> None:
        self._loop = loop
        self.timeout_seconds = timeout_seconds
        self._budget = timeout_seconds
        self._on_lost = on_lost
        self._on_owing = on_owing
        self._on_refused = on_refused
        self._ending: str | None = None  # why, once all is answered
        self._owing = False  # told to `on_owing`
        self.read_at = 0.0  # loop time: when Redis answered last
        self._reader = hiredis.Reader()
        self._pending: deque[tuple[Callback, float]] = deque()
        self._transport: asyncio.Transport
        self._watchdog: asyncio.TimerHandle | None = None
        self.lost: str | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def answer_within(self, seconds: float, budget_seconds: float) -> None:
        """From now on, the time that Redis has for a reply, and after which `on_owing` is told that it owes one."""
        self.timeout_seconds = seconds
        self._budget = min(budget_seconds, seconds)
        if self._watchdog is not None:  # it was set for the time before
            self._watchdog.cancel()
            self._watchdog = None
            self._check()

    def send(self, data: bytes, callback: Callback) -> None:
        if self.lost is not None:
            callback(Lost(self.lost, applied=False))
            return
        now = self._loop.time()
        self._pending.append((callback, now))
        if self._watchdog is None:
            self._watchdog = self._loop.call_at(now + self._budget, self._check)
        self._transport.write(data)

    async def ask(self, *words: bytes | str | int) -> Any:
        """One command and its reply, for the handshake. Raises Lost."""
        answer: asyncio.Future[Any] = self._loop.create_future()
        self.send(command(*words), lambda reply: None if answer.done() else answer.set_result(reply))
        reply = await answer
        if isinstance(reply, Lost):
            raise reply
        return reply

    def data_received(self, data: bytes) -> None:
        self.read_at = self._loop.time()
        if self._owing:
            self._owing = False
            self._on_owing(self, False)
        self._reader.feed(data)
        gets, pending = self._reader.gets, self._pending
        try:
            while (reply := gets()) is not False:
                if not pending:
                    self.abort("Redis sent a reply that nobody asked for")
                    return
                callback, _ = pending.popleft()
                if isinstance(reply, hiredis.ReplyError):
                    self._on_refused(self, str(reply), of_take=isinstance(callback, _Takes))
                    callback(Lost(str(reply), applied=False))
                else:
                    callback(reply)
        except hiredis.ProtocolError as e:
            self.abort(f"Redis sent what is no reply: {e}")
        if self._ending is not None and not pending:
            self.abort(self._ending)

    def end_when_answered(self, reason: str) -> None:
        """Nothing more is sent; what is under way has its replies first, or its timeout."""
        self._ending = reason

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(str(exc) if exc else "Redis closed the connection")

    def abort(self, reason: str) -> None:
        self._transport.abort()
        self._fail(reason)

    def _check(self) -> None:
        """The oldest command decides: replies come in order, so when it is in time, all are. Its budget begins anew
        with every reply to one before it: what stands in a queue that moves is not owed."""
        self._watchdog = None
        if not self._pending:
            return
        oldest, now = self._pending[0], self._loop.time()
        overdue_at = oldest[1] + self.timeout_seconds
        owing_at = overdue_at if self._owing else max(oldest[1], self.read_at) + self._budget
        if now >= overdue_at or now >= owing_at:
            # This loop may have been the late one: what lies in the socket is read before the judgement.
            self._watchdog = self._loop.call_later(READ_GRACE_SECONDS, self._judge, oldest, now >= overdue_at)
        else:
            self._watchdog = self._loop.call_at(min(owing_at, overdue_at), self._check)

    def _judge(self, oldest: tuple[Callback, float], overdue: bool) -> None:
        self._watchdog = None
        if self._pending and self._pending[0] is oldest:
            if overdue:
                self.abort(f"Redis did not answer within {self.timeout_seconds * 1000:.0f} ms")
                return
            self._owing = True
            self._on_owing(self, True)
        self._check()

    def _fail(self, reason: str) -> None:
        if self.lost is not None:
            return
        self.lost = reason
        if self._watchdog is not None:
            self._watchdog.cancel()
        self._on_lost(self, reason)
        pending, self._pending = self._pending, deque()
        for callback, _ in pending:
            callback(Lost(reason))
