"""Redis owes a reply: every client gets a decision in time, and only Redis' own delay is held against it."""

import asyncio
import select
import time
from collections.abc import Callable

from gateway.redis.connection import Callback, Connection, ReplyTimes
from tests.gateway.outage.decisions import DECISION_SECONDS
from tests.gateway.outage.degraded import StartDegraded
from tests.gateway.rig import (
    Client,
    Organization,
    Peer,
    Until,
    Upstream,
    get,
)
from tests.gateway.store import Store


async def test_a_redis_that_owes_a_reply_gets_no_more_takes_and_they_are_decided_before_those_it_has(
    allow: StartDegraded, acme: Organization, store: Store, upstream: Upstream, until: Until
) -> None:
    await acme.publish(100)
    gateway = await allow()
    for path in ("/", "/strict"):
        assert (await gateway.get(path, acme)).status == 200
    sent, allowed, denied = [await gateway.connect() for _ in range(3)]
    order = []

    async def ask(name: str, client: Client, path: str = "/") -> int:
        answer = await client.ask(get(path, acme))
        order.append(name)
        return int(answer.status)

    loop = asyncio.get_running_loop()
    with store.hanging(), gateway.hurried(60.0, 0.02):
        began = loop.time()
        first = asyncio.create_task(ask("sent", sent))
        await until(lambda: not gateway.link.accepts)
        assert gateway.link.open
        assert await ask("denied", denied, "/strict") == 503
        assert await ask("allowed", allowed) == 200
        gateway.gives_redis(ReplyTimes(0.2, 0.02))
        assert await first == 503  # its take may have been applied: never forwarded, whatever the route allows
        assert loop.time() - began < 2 * DECISION_SECONDS
        assert order == ["denied", "allowed", "sent"]
        assert len(upstream.requests) == 3
    # The charge of the lost take is given back, that of the forwarded one comes.
    await acme.comes_to(3)
    await until(lambda: gateway.link.accepts)
    assert (await gateway.get("/strict", acme)).status == 200
    assert len(upstream.requests) == 4
    await acme.comes_to(4)


async def test_a_hung_redis_gives_every_client_a_decision_in_time_and_no_queue(
    allow: StartDegraded, acme: Organization, store: Store
) -> None:
    await acme.publish(100)
    gateway = await allow()
    await gateway.get("/", acme)
    loop = asyncio.get_running_loop()

    async def decided() -> int:
        client = await gateway.connect()
        began = loop.time()
        status = (await client.ask(get("/strict", acme))).status
        assert loop.time() - began < 2 * DECISION_SECONDS
        return int(status)

    with store.hanging(), gateway.hurried():
        for _ in range(5):
            assert set(await asyncio.gather(*(decided() for _ in range(10)))) == {503}


async def test_a_reply_closes_the_breaker_again(
    allow: StartDegraded, acme: Organization, store: Store, until: Until
) -> None:
    await acme.publish(100)
    gateway = await allow()
    await gateway.get("/strict", acme)
    with store.hanging(), gateway.hurried(60.0, 0.02):
        waiting = asyncio.create_task(gateway.get("/strict", acme))
        await until(lambda: not gateway.link.accepts)
        assert (await gateway.get("/strict", acme)).status == 503
    assert (await waiting).status == 200
    assert gateway.link.accepts
    assert (await gateway.get("/strict", acme)).status == 200
    assert gateway.link.breaks == 1


async def test_a_gateway_that_was_late_itself_does_not_blame_redis(allow: StartDegraded, acme: Organization) -> None:
    await acme.publish(100)
    gateway = await allow()
    client = await gateway.connect()
    assert (await client.ask(get("/", acme))).status == 200
    connection = gateway.link.connection
    assert connection is not None
    redis = connection._transport.get_extra_info("socket").fileno()
    late = []

    def be_late() -> None:
        time.sleep(0.1)  # the lateness itself: the loop stands still for twice the budget
        late.append(select.select([redis], [], [], DECISION_SECONDS)[0])  # and the reply is there

    class LateLoop:
        """The loop as the link sees it, which has to send a take."""

        def call_soon(self, send: Callable[[], None]) -> None:
            gateway.gives_redis(ReplyTimes(60.0, 0.05))
            loop = asyncio.get_running_loop()
            loop.call_soon(send)
            loop.call_soon(be_late)

    gateway.link._loop = LateLoop()  # type: ignore[assignment]  # all that it uses of it here
    assert (await client.ask(get("/", acme))).status == 200
    assert late == [[redis]]
    assert gateway.link.breaks == 0


class Owner:
    """Writes down what becomes of a connection."""

    def __init__(self) -> None:
        self.lost: list[str] = []
        self.owed: list[bool] = []

    def on_lost(self, connection: Connection, reason: str) -> None:
        self.lost.append(reason)

    def on_owing(self, connection: Connection, *, owing: bool) -> None:
        self.owed.append(owing)

    def on_error(self, connection: Connection, error: str, callback: Callback) -> None:
        pass


async def test_a_queue_that_moves_does_not_open_the_breaker(upstream: Upstream) -> None:
    async def slow(peer: Peer) -> None:
        for _ in range(4):
            await peer.until(b"PING\r\n")
        for _ in range(4):
            await asyncio.sleep(0.5)  # time itself: all four take longer than the budget, each takes less
            peer.send(b"+PONG\r\n")

    upstream.serve = slow
    loop = asyncio.get_running_loop()
    owner = Owner()
    connection = Connection(loop, owner, 60.0)
    await loop.create_connection(lambda: connection, "127.0.0.1", upstream.port)
    connection.answer_within(ReplyTimes(60.0, 1.5))  # a second more than between two replies, for a slow machine
    began = loop.time()
    assert await asyncio.gather(*(connection.ask("PING") for _ in range(4))) == 4 * ["PONG"] or owner.lost
    assert loop.time() - began > 1.5
    assert not owner.owed
    connection.abort("done")
