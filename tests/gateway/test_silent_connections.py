"""A worker that takes no further connections: those that are silent have one more answer, which says that it is the
last. Closed without a word, a request that is on its way would find no one."""

import asyncio

from tests.gateway.rig import Gateway, Peer, StartGateway, Until, Upstream

HEALTH = b"GET /-/health HTTP/1.1\r\nHost: a\r\n\r\n"
FREE = b"GET /free HTTP/1.1\r\nHost: a\r\n\r\n"
ROUTES = [{"path": "/free", "upstream": "api", "exempt": True}]
TICKS = 5  # of deadlines: long after anything was due


async def some_ticks(gateway: Gateway) -> None:
    await asyncio.sleep(TICKS * gateway.worker.deadlines.tick_seconds)


async def drains(gateway: Gateway) -> None:
    """As at a reload."""
    gateway.worker.draining = True
    for connection in gateway.connections:
        connection.shutdown()
    await some_ticks(gateway)


async def test_a_reload_closes_no_silent_connection_and_its_next_answer_is_the_last(
    gateway: Gateway, until: Until
) -> None:
    client = await gateway.connect()
    assert (await client.ask(HEALTH))["connection"] is None
    silent = await gateway.connect()
    await until(lambda: len(gateway.connections) == 2)
    await drains(gateway)
    assert len(gateway.connections) == 2
    for each in (client, silent):
        answer = await each.ask(HEALTH)
        assert (answer.status, answer["connection"]) == (200, "close")
        assert await each.ended()


async def test_a_silent_connection_is_kept_no_longer_than_without_a_reload(start: StartGateway) -> None:
    gateway = await start(timeouts={"idle_seconds": 0.2, "head_seconds": 0.2})
    client, silent = await gateway.connect(), await gateway.connect()
    await client.ask(HEALTH)
    await drains(gateway)
    assert await client.ended()
    assert await silent.ended()


async def test_before_a_worker_stops_a_silent_connection_has_its_time_and_is_closed_then(
    gateway: Gateway,
) -> None:
    client = await gateway.connect()
    await client.ask(HEALTH)
    gateway.worker.idle_end = gateway.worker.loop.time() + 3600
    await drains(gateway)
    assert gateway.connections
    gateway.worker.idle_end = gateway.worker.loop.time()
    await drains(gateway)
    assert await client.ended()


async def test_an_answer_that_began_before_promised_another_one_which_is_given(
    start: StartGateway, upstream: Upstream
) -> None:
    goes_on = asyncio.Event()

    async def serve(peer: Peer) -> None:
        while await peer.request() is not None:
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
            await goes_on.wait()
            peer.send(b"cd")

    upstream.serve = serve
    gateway = await start(routes=ROUTES)
    client = await gateway.connect()
    client.send(FREE)
    assert b"connection:" not in (await client.until(b"ab")).lower()
    await drains(gateway)
    goes_on.set()
    await client.until(b"cd")
    await some_ticks(gateway)
    answer = await client.ask(FREE)
    assert (answer.status, answer["connection"]) == (200, "close")
    assert await client.ended()
