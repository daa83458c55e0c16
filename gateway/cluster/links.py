"""The links to all primaries of a Cluster, as callers have one link.

A shard that has come to a server on a connection that is there already waits until it is vouched for there
(docs/decisions/0057). One whose slot no server has waits likewise.
"""

import asyncio
import os
from collections.abc import Callable
from itertools import chain
from time import monotonic
from typing import Any, Final

from common import redis_server
from common.redis_cluster.client import ClusterClient
from common.redis_cluster.topology import Address, Topology, slot_of
from gateway.cluster.kept import ClusterReceiptsKeeper
from gateway.cluster.node_place import shard_in
from gateway.cluster.node_way import NodeWay
from gateway.cluster.topology_watch import TopologyWatch
from gateway.cluster.waiting import WaitingShard
from gateway.ledger.link import Link
from gateway.ledger.receipts import Receipts
from gateway.ledger.takes import Read, Take, TakeWaiter
from gateway.observe.tally import histogram
from gateway.redis.connection import Callback, Lost, ReplyTimes
from gateway.redis.pauses import Pause
from gateway.redis.server_watch import REBUILDING
from gateway.settings.intervals import Intervals
from quota import keys
from quota.calls.call import Call
from quota.calls.encoded import BOOKS_KEYS, command
from quota.recovery_message import RecoveryMessage

ARRIVAL_SECONDS: Final = 0.02
"""Between two looks whether a shard is vouched for where it has come to."""
ASK_AGAIN_SECONDS: Final = 0.5
"""Between two questions to the control plane about shards that have come elsewhere."""
UNSERVED: Final = "no server of the cluster has the slot of the shard"
RETIRED_SECONDS: Final = 0.4
"""The link to a server without slots gets the replies that it is owed for so long. What one says later that hung, and
wakes up beside the one that has taken over, is not believed: that one is vouched for a second after the failover."""

MakeLink = Callable[[Address, NodeWay, "Links"], Link]


class Links:
    __slots__ = (
        "_ask_at",
        "_loop",
        "_make",
        "_nodes",
        "_opened",
        "_owners",
        "_past_batches",
        "_past_breaks",
        "_retired",
        "_slots",
        "_tasks",
        "_topology",
        "_waiting",
        "_watch",
        "_ways",
        "node_ways",
        "on_connected",
        "on_moved",
        "receipts",
        "receipts_keeper",
        "take_latency",
        "times",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        redis: ClusterClient,
        make: MakeLink,
        shards: int,
        times: ReplyTimes,
        receipts: Receipts,
        unwritten_seconds_max: float | None,
        intervals: Intervals,
    ) -> None:
        """`redis` is asked for the topology. `make` makes the link to a server."""
        self._loop = loop
        self._make = make
        self.times = times
        self.receipts = receipts
        self.receipts_keeper = ClusterReceiptsKeeper(self, loop, shards, receipts, unwritten_seconds_max, intervals)
        self.take_latency = histogram()
        self.on_moved: list[Callable[[], None]] = []
        """Called when other servers hold the shards: one that hangs says nothing to who listens to it."""
        self.on_connected: list[Callable[[], None]] = []
        self._watch = TopologyWatch(redis, shards, self)
        self._slots = [slot_of(keys.generation_key(shard)) for shard in range(shards)]
        self._waiting = [WaitingShard(loop, times.timeout_seconds, self.look_now) for _ in range(shards)]
        self._ways: list[Link | WaitingShard] = list(self._waiting)  # by shard
        self._nodes: dict[Address, Link] = {}
        self.node_ways: dict[Link, NodeWay] = {}
        self._owners: list[Link | None] = [None] * shards  # by the topology, also of shards that wait
        self._retired: list[tuple[float, Link]] = []
        self._topology: Topology | None = None
        self._opened = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._ask_at = 0.0
        self._past_batches = self._past_breaks = 0  # of links that have ended

    # As one link

    def of(self, shard: int) -> Link | WaitingShard:
        """The way to a shard."""
        return self._ways[shard]

    @property
    def nodes(self) -> list[Link]:
        return list(self._nodes.values())

    @property
    def open(self) -> bool:
        return bool(self._nodes) and all(link.open for link in self._nodes.values())

    @property
    def accepts(self) -> bool:
        """Takes of all shards are sent."""
        return all(way.accepts for way in self._ways)

    @property
    def down_reason(self) -> str:
        links = (link.down_reason for link in self._nodes.values() if not link.accepts)
        waiting = (way.reason for way in self._ways if isinstance(way, WaitingShard))
        return self._watch.fault or next(chain(links, waiting), self._waiting[0].reason)

    @property
    def fault(self) -> str | None:
        """Why takes of no shard are sent; None while those of some are. Clients can read it."""
        if any(way.accepts for way in self._ways):
            return None
        told = self._watch.fault
        if told is not None and (refused := redis_server.refused(told)) is not None:
            return refused.fault
        return next((link.fault for link in self._nodes.values() if link.fault), Pause.AWAY.value)

    @property
    def asking(self) -> bool:
        return any(link.asking for link in self._nodes.values())

    @property
    def corrects(self) -> bool:
        return any(link.corrects for link in self._nodes.values())

    @property
    def batches(self) -> int:
        return self._past_batches + sum(link.batches for link in self.node_ways)

    @property
    def breaks(self) -> int:
        return self._past_breaks + sum(link.breaks for link in self.node_ways)

    @property
    def answered_at(self) -> float:
        return max((link.answered_at for link in self._nodes.values()), default=float("-inf"))

    @property
    def answered_sent_at(self) -> float:
        newest = max(self._nodes.values(), key=lambda link: link.answered_at, default=None)
        return float("-inf") if newest is None else newest.answered_sent_at

    def redis_ms(self) -> int:
        """Of the server whose clock is behind the others."""
        return min((link.redis_ms() for link in self._nodes.values()), default=0)

    def start(self) -> None:
        self.receipts_keeper.start()
        self._tasks.append(self._loop.create_task(self._watch.run(), name="redis-topology"))
        self._tasks.append(self._loop.create_task(self._watch.watch_layout(), name="redis-layout"))
        self._tasks.append(self._loop.create_task(self._keep_arrivals(), name="redis-arrivals"))

    async def wait_open(self, seconds: float) -> bool:
        """Whether all servers are connected to, and known to be believed or not, at the latest after so long."""
        until = monotonic() + seconds
        try:
            await asyncio.wait_for(self._opened.wait(), seconds)
        except TimeoutError:
            return False
        waits = [link.wait_open(max(0.0, until - monotonic())) for link in self._nodes.values()]
        return all(await asyncio.gather(*waits))

    async def close(self) -> None:
        self.receipts_keeper.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for link in (*self._nodes.values(), *(link for _, link in self._retired)):
            await link.close()
        for waiting in self._waiting:
            waiting.expire()

    async def look(self) -> None:
        await asyncio.gather(*(link.look() for link in self._nodes.values()))

    # The hot path

    def take(
        self, keys_bulk: bytes, argv_bulk: bytes, argv_count: int, waiter: TakeWaiter, key_count: int = BOOKS_KEYS
    ) -> None:
        self._ways[shard_in(keys_bulk)].take(keys_bulk, argv_bulk, argv_count, waiter, key_count)

    # Everything else

    def call(self, data: bytes, callback: Callback) -> None:
        """Sends one ready RESP command to the server that holds its key."""
        self._send(_key_in(data), lambda link: link.call(data, callback), callback)

    def run(self, call: Call, callback: Callback) -> None:
        """Runs a script where its keys are."""
        self._send(call.keys[0].encode(), lambda link: link.run(call, callback), callback)

    def recover(self, asked: RecoveryMessage) -> None:
        """The control plane puts together what a server has lost, and asks what is known here."""
        shards = set(range(len(self._slots)) if asked.shards is None else asked.shards)
        if asked.over:
            for link in self._nodes.values():
                link.server.put_aside(dict.fromkeys(shards, asked.over))
        if asked.fences:
            self._fence(shards)
        self.receipts.anew()
        self.receipts_keeper.report(asked)

    # What links say

    def wait(self, take: Take, reason: str) -> None:
        shard = shard_in(take[0])
        if self._ways[shard] is not self._waiting[shard]:
            self._begin_waiting(shard, reason)
        self._waiting[shard].accept(take)

    def wait_read(self, read: Read, reason: str) -> None:
        shard = shard_in(read[0])
        if self._ways[shard] is not self._waiting[shard]:
            self._begin_waiting(shard, reason)
        self._waiting[shard].read(*read)

    def look_now(self) -> None:
        self._watch.look_now()

    # Who holds what

    def apply(self, topology: Topology) -> None:
        """Takes go by this topology from now on."""
        created, replaced = list[Link](), False
        for address in topology.primaries:
            if address not in self._nodes:
                way = NodeWay([], self.call, self._begin_waiting)
                link = self._nodes[address] = self._make(address, way, self)
                link.take_latency = self.take_latency
                self.node_ways[link] = way
                link.on_connected += self.on_connected
                created.append(link)
        for shard, slot in enumerate(self._slots):
            owner = topology.owner(slot)
            holder = None if owner is None else self._nodes[owner]
            if holder is self._owners[shard]:
                continue
            before, self._owners[shard] = self._owners[shard], holder
            if holder is not None and self._topology is None:  # at the start: the handshake looks at the shard
                self.node_ways[holder].shards.append(shard)
                self._settle(shard, holder)
                continue
            self._begin_waiting(
                shard, UNSERVED if holder is None else "the shard moves to another server of the cluster"
            )
            if before is not None:
                before.server.leave(shard)
                replaced |= not before.open
        for address in self._nodes.keys() - set(topology.primaries):
            self._retired.append((self._loop.time() + RETIRED_SECONDS, self._nodes.pop(address)))
        for link in created:
            link.start()
        for moved in self.on_moved if self._topology is not None else ():
            moved()
        self._topology = topology
        self._opened.set()
        if replaced:  # the server that has taken over may lack what was answered lately
            self.receipts_keeper.report()

    def _begin_waiting(self, shard: int, reason: str) -> None:
        link, waiting = self._ways[shard], self._waiting[shard]
        if isinstance(link, Link):
            if shard in (shards := self.node_ways[link].shards):
                shards.remove(shard)
            self._ways[shard] = waiting
            waiting.begin(reason)

    def _settle(self, shard: int, link: Link) -> None:
        """Takes and reads of the shard go to this link from now on."""
        self._ways[shard] = link
        for take in self._waiting[shard].release():
            link.take(*take)
        for read in self._waiting[shard].release_reads():
            link.read(*read)

    def _fence(self, shards: set[int]) -> None:
        for link in self._nodes.values():
            own = set(self.node_ways[link].shards)
            if own <= shards:
                if own:
                    link.server.fence(REBUILDING)
                continue
            for shard in own & shards:
                self._begin_waiting(shard, REBUILDING)

    def refuse(self, reason: str) -> None:
        """Nothing may be taken from this Cluster."""
        for shard in range(len(self._slots)):
            self._begin_waiting(shard, reason)

    @property
    def are_settled(self) -> bool:
        """All servers are connected to, and no shard waits."""
        return self.open and not any(self._ways[n] is each for n, each in enumerate(self._waiting))

    async def close_retired(self) -> None:
        now = self._loop.time()
        due = [link for at, link in self._retired if at <= now]
        self._retired = [(at, link) for at, link in self._retired if at > now]
        for link in due:
            await link.close()
            del self.node_ways[link]
            self._past_batches += link.batches
            self._past_breaks += link.breaks

    # Shards that have come elsewhere

    async def _keep_arrivals(self) -> None:
        while True:
            await asyncio.sleep(ARRIVAL_SECONDS)
            if self._watch.refused is not None:
                continue
            for shard, waiting in enumerate(self._waiting):
                link = self._owners[shard]
                if self._ways[shard] is waiting and link is not None and link.connection is not None:
                    self._look_at_arrival(shard, link)

    def _look_at_arrival(self, shard: int, link: Link) -> None:
        def on_generation(reply: Any) -> None:
            if link is not self._owners[shard] or self._ways[shard] is link:
                return
            if not isinstance(reply, Lost) and link.server.adopt(shard, reply):
                self.node_ways[link].shards.append(shard)
                self._settle(shard, link)
            else:
                self._ask_control_plane()

        link.call(command("GET", keys.generation_key(shard)), on_generation)

    def _ask_control_plane(self) -> None:
        now = self._loop.time()
        if now >= self._ask_at:
            self._ask_at = now + ASK_AGAIN_SECONDS
            self.call(command("RPUSH", keys.VOUCH_IN_CLUSTER, f"{os.urandom(8).hex()} 0"), _ignore)

    def _send(self, key: bytes, send: Callable[[Link], None], callback: Callback) -> None:
        owner = None if self._topology is None else self._topology.owner(slot_of(key))
        link = None if owner is None else self._nodes.get(owner)
        if link is None:
            callback(Lost("no server of the cluster is known that holds the key", applied=False))
        else:
            send(link)


def _key_in(data: bytes) -> bytes:
    """The first key of a ready command: its second word."""
    _, _, rest = data.split(b"\r\n", 2)
    _, length, rest = rest.split(b"\r\n", 2)
    return rest[: int(length[1:])]


def _ignore(reply: Any) -> None:
    """The control plane finds the shard by itself, too."""
