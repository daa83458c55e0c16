"""Stopping, replacing and reloading gateway processes under load: whoever was connected gets an answer."""

import asyncio
import signal
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn

from gateway.process.worker_process import Server
from tests.gateway.rig import PROCESS_SECONDS, Gateway, StartProcess, Until, Upstream, is_alive

CLIENTS = 6
KEPT = b"GET /free HTTP/1.1\r\nHost: a\r\n\r\n"
CLOSED = b"GET /free HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


class Load:
    """Clients that ask without a pause, half of them on a new connection each time, until the gateway is gone."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.answered = 0
        self.failed: list[str] = []
        self._over = False
        self._tasks = [asyncio.create_task(self._ask(KEPT if n % 2 else CLOSED)) for n in range(CLIENTS)]

    async def _ask(self, request: bytes) -> None:
        while not self._over:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                if self._over:
                    return
                await asyncio.sleep(0.01)
                continue
            try:
                while not self._over and await self._once(reader, writer, request):
                    pass
            except (OSError, EOFError) as e:
                self.failed.append(repr(e))
            finally:
                writer.transport.abort()

    async def _once(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> bool:
        """Whether the connection goes on."""
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            self.failed.append(head.decode())
        await reader.readexactly(2)
        self.answered += 1
        return b"connection: close" not in head.lower()

    async def more(self, count: int = 100) -> None:
        """Until so many more were answered."""
        target = self.answered + count
        async with asyncio.timeout(60):
            while self.answered < target:  # noqa: ASYNC110 - the tasks count
                await asyncio.sleep(0.005)

    async def end(self) -> None:
        self._over = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def test_a_worker_that_is_stopped_under_load_fails_nothing_and_is_replaced(
    run: StartProcess, until: Until
) -> None:
    gateway = await run(workers=2)
    load = Load(gateway.port)
    await load.more()
    gateway.workers()[0].send_signal(signal.SIGTERM)
    await until(lambda: gateway.logged("Started server process") == 3, PROCESS_SECONDS)
    await load.more()
    await load.end()
    assert load.failed == []


async def test_a_worker_that_is_killed_under_load_fails_only_what_it_held(run: StartProcess, until: Until) -> None:
    gateway = await run(workers=2)
    load = Load(gateway.port)
    await load.more()
    gateway.workers()[0].kill()
    await until(lambda: gateway.logged("Started server process") == 3, PROCESS_SECONDS)
    await load.more(200)
    await load.end()
    # A client has one connection at a time, so the worker held so many at most. They were cut: no answer is wrong.
    assert len(load.failed) <= CLIENTS
    assert not [failure for failure in load.failed if "HTTP/1.1" in failure]


async def test_a_rolling_restart_of_several_workers_under_load_fails_nothing(run: StartProcess, until: Until) -> None:
    gateway = await run(workers=2)
    before = gateway.workers()
    load = Load(gateway.port)
    await load.more()
    gateway.signal(signal.SIGHUP)
    await until(lambda: gateway.logged("Started server process") == 4, PROCESS_SECONDS)
    await until(lambda: not any(is_alive(worker) for worker in before), PROCESS_SECONDS)
    await load.more()
    await load.end()
    assert load.failed == []


async def test_a_stop_under_load_answers_whatever_was_sent_on_an_established_connection(
    run: StartProcess, until: Until
) -> None:
    gateway = await run(workers=2)
    load = Load(gateway.port)
    await load.more()
    gateway.signal(signal.SIGTERM)
    await until(lambda: gateway.process.poll() is not None, PROCESS_SECONDS)
    await load.end()
    assert load.failed == []
    assert gateway.process.returncode == 0


async def test_a_connection_that_was_silent_when_the_stop_came_is_still_answered(
    run: StartProcess, upstream: Upstream
) -> None:
    gateway = await run(drain={"idle_seconds": 60})
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    gateway.signal(signal.SIGTERM)
    async with asyncio.timeout(60):
        while not gateway.logged("Shutting down"):  # noqa: ASYNC110 - a file rings no bell
            await asyncio.sleep(0.01)
    writer.write(KEPT)
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    writer.close()


async def test_a_connection_that_is_accepted_while_the_worker_drains_is_answered_once(gateway: Gateway) -> None:
    gateway.worker.draining = True
    client = await gateway.connect()
    answer = await client.ask(b"GET /-/health HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (answer.status, answer["connection"]) == (200, "close")
    assert await client.ended()


async def test_a_worker_knows_that_it_drains_before_its_server_closes_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    draining: list[bool] = []

    async def closes(server: uvicorn.Server, sockets: Any = None) -> None:
        draining.append(server.lifespan.state["worker"].draining)

    monkeypatch.setattr(uvicorn.Server, "shutdown", closes)
    server = Server(uvicorn.Config("nothing:here"))
    teller = SimpleNamespace(close=lambda: None)
    worker = SimpleNamespace(draining=False, told_routes=teller, upstream_faults=teller)
    server.lifespan = SimpleNamespace(state={"worker": worker})
    await server.shutdown()
    assert draining == [True]


async def test_sighup_puts_new_settings_into_force_without_a_failed_request(
    run: StartProcess, until: Until, upstream: Upstream
) -> None:
    gateway = await run()
    load = Load(gateway.port)
    await load.more()
    routes = [*gateway.settings["routes"], {"path": "/new", "upstream": "api", "exempt": True}]
    gateway.write({**gateway.settings, "routes": routes})
    gateway.signal(signal.SIGHUP)
    await until(lambda: gateway.logged("settings read again") == 1, PROCESS_SECONDS)
    await load.more()
    await load.end()
    assert load.failed == []
    # The worker of before still takes a connection or two while it drains.
    async with asyncio.timeout(60):
        while not (await _head_of(gateway.port, "/new")).startswith(b"HTTP/1.1 200"):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)


async def _head_of(port: int, path: str) -> bytes:
    """The head of the answer; nothing where the connection was closed without one."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        return await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""
    finally:
        writer.close()


async def test_wrong_settings_are_refused_at_sighup_and_the_old_ones_go_on(run: StartProcess, until: Until) -> None:
    gateway = await run()
    before = gateway.workers()
    gateway.write({**gateway.settings, "workers": "many"})
    gateway.signal(signal.SIGHUP)
    await until(lambda: gateway.logged("settings refused") == 1)
    load = Load(gateway.port)
    await load.more()
    await load.end()
    assert load.failed == []
    assert gateway.workers() == before
