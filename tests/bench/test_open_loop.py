"""A stall is seen by every request that was due in it, which a client that waits for answers would not have sent."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import repeat

import pytest

from bench.loadtest.callers import Caller, CallersUnreadable
from bench.open_loop.pacing import Outcome, paced, quantile
from bench.open_loop.targets import target
from devstack.ports import LOOPBACK

REQUEST = b"GET / HTTP/1.1\r\nHost: api.example.com\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Answered = Callable[[int], bytes]


@asynccontextmanager
async def server(stall: tuple[int, float] | None = None, answer: Answered = lambda _: ANSWER) -> AsyncIterator[int]:
    """Answers each request at once, but for a stall of all of them: from this request on, for so many seconds. An empty
    answer cuts the connection."""
    asked, stalled = 0, asyncio.Event()
    stalled.set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                asked += 1
                if stall is not None and asked == stall[0]:
                    stalled.clear()
                    asyncio.get_running_loop().call_later(stall[1], stalled.set)
                content = answer(asked)
                await stalled.wait()
                if not content:
                    break
                writer.write(content)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, LOOPBACK, 0)
    try:
        yield int(listening.sockets[0].getsockname()[1])
    finally:
        listening.close()


async def run(port: int, rate: float = 500, seconds: float = 1.0, connections: int = 4) -> Outcome:
    return await paced(LOOPBACK, port, repeat(REQUEST), rate, seconds, connections)


async def test_all_requests_that_were_due_in_a_stall_have_it_in_their_latency() -> None:
    stall_seconds, rate = 0.5, 500
    async with server(stall=(100, stall_seconds)) as port:
        outcome = await run(port, rate)
    assert outcome.statuses == {200: 500}
    # Each waited for what was left of the stall: half of them for longer than half of it.
    waited = sum(latency > stall_seconds / 2 for latency in outcome.latencies)
    assert waited >= stall_seconds / 2 * rate * 0.9
    # A client that waits for answers has met it once on each connection.
    met = sum(service > stall_seconds / 2 for service in outcome.service_times)
    assert 1 <= met < waited / 5


async def test_requests_are_due_evenly_and_so_many_as_the_rate_says() -> None:
    async with server() as port:
        outcome = await run(port, rate=200, seconds=0.5)
    assert outcome.statuses == {200: 100}
    assert outcome.ok()
    assert len(outcome.latencies) == len(outcome.service_times) == 100


async def test_what_is_cut_counts_as_lost_and_another_connection_goes_on() -> None:
    async with server(answer=lambda number: b"" if number % 10 == 0 else ANSWER) as port:
        outcome = await run(port, rate=200, seconds=0.5)
    assert outcome.lost == 10
    assert outcome.statuses.total() == 100
    assert not outcome.ok()
    assert len(outcome.latencies) == 100


def test_a_gateway_is_called_by_its_own_name_with_each_caller_in_turn() -> None:
    callers = [Caller("a", "token-a"), Caller("b", "token-b")]
    called = target("gateway", "http://gateway.example.com:8080", callers, "/api")
    requests = [called.traffic.request(number) for number in range(20)]
    assert all(b"\r\nHost: gateway.example.com:8080\r\n" in each for each in requests)
    assert all(each.split(b" ", 2)[1].startswith(b"/api/v1/") for each in requests)
    assert {b"token-a" in each for each in requests} == {True, False}
    with pytest.raises(CallersUnreadable, match="only http:// is measured here"):
        target("gateway", "https://gateway.example.com", callers, "")


def test_a_quantile_is_a_value_that_was_measured_and_never_a_smaller_one() -> None:
    values = [float(each) for each in range(1, 101)]
    assert [quantile(values, share) for share in (0.5, 0.95, 0.99, 1.0)] == [50, 95, 99, 100]
    assert quantile([1.0, 2.0], 0.51) == 2.0
    assert quantile([3.0], 0.001) == 3.0
    assert quantile([], 0.5) == 0.0
