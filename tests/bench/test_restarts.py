"""A silent client finds out what a gateway did to its connection meanwhile, and a request that is lost counts."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from bench.restarts.distant import SilentClients
from bench.restarts.rolling import taken
from bench.soak.traffic import Books, said_of
from devstack.ports import LOOPBACK

REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
LAST = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
CLIENTS = 8


@asynccontextmanager
async def gateway(answer: Callable[[int], bytes], closes_after: float | None = None) -> AsyncIterator[int]:
    """Answers the requests of each connection by their number, with nothing to cut it; `closes_after`: so many seconds
    of silence."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = 0
        try:
            while await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), closes_after):
                asked += 1
                if not (content := answer(asked)):
                    break
                writer.write(content)
                if content == LAST:
                    break
        except (asyncio.IncompleteReadError, ConnectionError, TimeoutError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, LOOPBACK, 0)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()


async def asked(port: int, calls: int, seconds: float = 0.05) -> tuple[SilentClients, Counter[int | str]]:
    """When the clients have made so many calls."""
    books = Books()
    clients = SilentClients(
        [port], {"a": REQUEST}, lambda _, __, status: books.statuses.update([status]), CLIENTS, seconds
    )
    clients.start()
    async with asyncio.timeout(60):
        while books.statuses.total() < calls:  # noqa: ASYNC110 - the clients count
            await asyncio.sleep(0.01)
    await clients.stop()
    return clients, books.statuses


async def test_a_connection_that_is_kept_has_another_request_after_each_silence() -> None:
    async with gateway(lambda _: ANSWER) as port:
        clients, statuses = await asked(port, 80)
    assert set(statuses) == {200}
    assert clients.silences.closed == 0
    assert clients.silences.kept == statuses.total() - CLIENTS


async def test_an_end_that_an_answer_told_of_is_no_silence_that_was_cut() -> None:
    async with gateway(lambda number: LAST if number == 2 else ANSWER) as port:
        clients, statuses = await asked(port, 80)
    assert set(statuses) == {200}
    assert clients.silences.closed == 0


async def test_an_end_without_a_word_is_seen_by_the_client_or_costs_a_request_that_was_on_its_way() -> None:
    async with gateway(lambda _: ANSWER, closes_after=0.02) as port:
        clients, statuses = await asked(port, 200, seconds=0.1)
    assert clients.silences.closed > 0
    assert set(statuses) <= {200, "silent, cut"}


async def test_a_request_without_an_answer_counts() -> None:
    async with gateway(lambda number: b"" if number == 3 else ANSWER) as port:
        _, statuses = await asked(port, 80)
    assert statuses["silent, cut"] > 0


async def test_a_step_counts_the_calls_that_failed_while_it_lasted() -> None:
    books = Books()
    books.statuses.update([200, 503])

    async def restart() -> None:
        books.statuses.update([200, 429, "cut", 503])

    step = await taken("a restart", books, 0.0, restart)
    assert (step.calls, step.failed) == (4, 2)


def test_a_failure_is_told_with_what_its_problem_document_says() -> None:
    assert said_of(503, b'{"detail": "try again"}') == "503 try again"
    assert said_of(503, b"no document") == 503
    assert said_of(429, b'{"detail": "as it must be"}') == 429
