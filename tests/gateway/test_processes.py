"""The gateway as processes: started by its command, stopped by a signal, and more than one on one port."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import psutil
import pytest
from redis.asyncio import Redis

from devstack.child import Child, spawn
from devstack.ports import free_port
from devstack.sample_process import answers
from devstack.token_mint import AUDIENCE, ISSUER
from tests.gateway.rig import (
    OK,
    PATIENT,
    PROCESS_SECONDS,
    Client,
    Connect,
    MakeOrganization,
    Organization,
    Peer,
    Until,
    Upstream,
    is_alive,
    request,
)

SECRET = "a secret of the tests, 32 bytes and more"
START_SECONDS, STOP_SECONDS = PROCESS_SECONDS, PROCESS_SECONDS


class Running:
    """A gateway's processes."""

    def __init__(self, config: Path) -> None:
        self.port = free_port()
        self.log = config.with_suffix(".log")
        self.child: Child = spawn("gateway", command(config, self.port), log=self.log, grace_seconds=STOP_SECONDS)

    async def ready(self) -> None:
        await asyncio.to_thread(self.child.wait_until, lambda: answers(self.port, "/-/ready"), START_SECONDS)

    def terminate(self) -> None:
        os.kill(self.child.process.pid, signal.SIGTERM)

    def processes(self) -> list[psutil.Process]:
        return list(psutil.Process(self.child.process.pid).children(recursive=True))

    def serving(self, client: Client) -> psutil.Process:
        """The process that holds the other end of a client's connection."""
        port = client.writer.get_extra_info("sockname")[1]
        for process in self.processes():
            if any(connection.raddr and connection.raddr.port == port for connection in process.net_connections("tcp")):
                return process
        raise AssertionError("nobody holds the connection")

    async def exit_code(self) -> int:
        return await asyncio.to_thread(self.child.process.wait, STOP_SECONDS)


def of_python(running: Running) -> set[int]:
    """The workers, and who stands by."""
    processes = set()
    for process in running.processes():
        with suppress(psutil.Error):  # it has ended just now
            if "spawn_main" in " ".join(process.cmdline()):
                processes.add(process.pid)
    return processes


def command(config: Path, port: int) -> list[str]:
    return [sys.executable, "-m", "quotagate", "gateway", "--config", str(config), "--port", str(port)]


class WriteSettings(Protocol):
    def __call__(self, **changes: Any) -> Path: ...


@pytest.fixture
def settings(tmp_path: Path, redis_url: str, upstream: Upstream) -> WriteSettings:
    """A settings file."""

    def write(**changes: Any) -> Path:
        content = {
            "redis": {"url": redis_url, **PATIENT},
            "auth": {"algorithms": ["HS256"], "secret": SECRET, "issuer": ISSUER, "audience": AUDIENCE},
            "upstreams": {"api": {"url": upstream.url}},
            "routes": [{"path": "/", "upstream": "api"}],
            **changes,
        }
        file = tmp_path / "gateway.yaml"
        file.write_text(json.dumps(content))  # which is YAML
        return file

    return write


class Launch(Protocol):
    async def __call__(self, **changes: Any) -> Running: ...


@pytest.fixture
def launch(settings: WriteSettings) -> Iterator[Launch]:
    launched: list[Running] = []

    async def start(**changes: Any) -> Running:
        launched.append(Running(settings(**changes)))
        await launched[-1].ready()
        return launched[-1]

    yield start
    for each in launched:
        each.child.stop()


async def test_on_sigterm_what_is_under_way_is_answered_what_is_idle_ends_and_the_exit_code_is_0(
    launch: Launch, connect: Connect, acme: Organization, upstream: Upstream, until: Until
) -> None:
    running = await launch()
    release = asyncio.Event()

    async def slowly(peer: Peer, message: bytes) -> None:
        if b"X-Slow" in message:
            await release.wait()
        peer.send(OK)

    upstream.script = slowly
    idle, busy, silent = [await connect(running.port) for _ in range(3)]
    assert (await idle.ask(request(acme.auth))).status == 200
    busy.send(request(acme.auth, lines=b"X-Slow: 1\r\n"))
    await until(lambda: len(upstream.requests) == 2)
    running.terminate()
    assert await idle.ended(), "before what is under way"
    release.set()
    answer = await busy.answer()
    assert (answer.status, answer.body) == (200, b"ok")
    await silent.gone()
    assert await running.exit_code() == 0
    assert "Traceback" not in running.log.read_text()
    with pytest.raises(ConnectionRefusedError):
        await connect(running.port)
    assert await acme.used() == 2


async def test_two_workers_serve_one_port_and_one_that_is_killed_fails_only_what_it_held_and_is_replaced(
    launch: Launch, connect: Connect, organization: MakeOrganization, upstream: Upstream, until: Until
) -> None:
    acme = await organization("acme", 1_000_000)
    running = await launch(workers=2)

    async def served_by(client: Client) -> str:
        answer = await client.ask(request(acme.auth))
        assert answer.status == 200
        return str(answer["x-request-id"])[:10]  # all request ids of a process begin alike

    async def two_workers(but: str = "") -> dict[str, list[Any]]:
        by_worker: dict[str, list[Any]] = {}
        async with asyncio.timeout(START_SECONDS):
            while len(by_worker) < 2:
                client = await connect(running.port)
                if (worker := await served_by(client)) != but:
                    by_worker.setdefault(worker, []).append(client)
        return by_worker

    (dead, lost), (alive, kept) = (await two_workers()).items()
    running.serving(lost[0]).kill()
    assert {await served_by(client) for client in kept} == {alive}
    assert [await client.loses(request(acme.auth)) for client in lost] == [True] * len(lost)
    assert alive in await two_workers(but=dead)
    left = running.processes()
    running.terminate()
    assert await running.exit_code() == 0
    await until(lambda: not [process for process in left if is_alive(process)])
    assert await acme.used() == len(upstream.requests)


async def test_a_worker_that_is_killed_is_replaced_by_the_process_that_stood_by(
    launch: Launch, connect: Connect, organization: MakeOrganization, until: Until
) -> None:
    """So nobody waits for an interpreter to start, which takes longest."""
    acme = await organization("acme", 1_000_000)
    running = await launch()

    for _ in range(2):  # who took a place is replaced in turn
        client = await connect(running.port)
        assert (await client.ask(request(acme.auth))).status == 200
        worker = running.serving(client)
        await until(lambda: len(of_python(running)) == 2, START_SECONDS)
        [standby] = of_python(running) - {worker.pid}
        worker.kill()
        assert await client.loses(request(acme.auth))
        served = await connect(running.port)  # it waits in the queue of the port meanwhile
        assert (await served.ask(request(acme.auth))).status == 200
        assert running.serving(served).pid == standby


async def test_the_process_that_stands_by_has_the_settings_of_the_last_reload(
    launch: Launch, settings: WriteSettings, connect: Connect, organization: MakeOrganization, until: Until
) -> None:
    acme = await organization("acme", 1_000_000)
    running = await launch()

    await until(lambda: len(of_python(running)) == 2, START_SECONDS)
    before = of_python(running)
    settings(limits={"body_bytes_max": 7})
    os.kill(running.child.process.pid, signal.SIGHUP)
    await until(lambda: len(of_python(running)) == 2 and not of_python(running) & before, START_SECONDS)
    client = await connect(running.port)
    assert (await client.ask(request(acme.auth))).status == 200
    running.serving(client).kill()
    served = await connect(running.port)
    answer = await served.ask(b"POST / HTTP/1.1\r\nHost: a\r\n%bContent-Length: 8\r\n\r\n12345678" % acme.auth)
    assert answer.status == 413


async def test_nobody_stands_by_where_the_settings_say_so_and_a_killed_worker_is_replaced_all_the_same(
    launch: Launch, connect: Connect, organization: MakeOrganization, until: Until
) -> None:
    acme = await organization("acme", 1_000_000)
    running = await launch(standby=False)
    client = await connect(running.port)
    assert (await client.ask(request(acme.auth))).status == 200
    running.serving(client).kill()
    served = await connect(running.port)
    assert (await served.ask(request(acme.auth))).status == 200


async def test_a_wrong_number_of_shards_stops_the_start_with_one_plain_line(
    settings: WriteSettings, redis_url: str
) -> None:
    async with Redis.from_url(redis_url) as redis:
        await redis.set("qg:shards", 16)
    line = await refusal_of(settings(workers=2), free_port())
    assert "redis.shards is 32" in line
    assert "installed with 16" in line


async def test_a_port_in_use_stops_the_start_with_one_plain_line(settings: WriteSettings, upstream: Upstream) -> None:
    assert str(upstream.port) in await refusal_of(settings(), upstream.port)


async def refusal_of(config: Path, port: int) -> str:
    """The one line that tells why the gateway does not start."""
    process = await asyncio.create_subprocess_exec(
        *command(config, port), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    async with asyncio.timeout(START_SECONDS):
        output, errors = await process.communicate()
    assert process.returncode
    assert not output
    [line] = errors.decode().splitlines()
    return line


async def test_it_says_that_it_listens_when_connections_are_taken_and_not_before(
    settings: WriteSettings, until: Until
) -> None:
    running = Running(settings())
    try:
        await until(lambda: '"listening"' in running.log.read_text(), START_SECONDS)
        socket.create_connection(("127.0.0.1", running.port)).close()
    finally:
        running.child.stop()


async def test_it_tells_where_it_listens_and_that_a_sighup_arrived(launch: Launch, until: Until) -> None:
    running = await launch()

    def entries() -> list[dict[str, Any]]:
        return [json.loads(line) for line in running.log.read_text().splitlines() if line.startswith("{")]

    await until(lambda: any(each.get("message") == "listening" for each in entries()))
    assert [each["address"] for each in entries() if each.get("message") == "listening"] == [
        f"127.0.0.1:{running.port}"
    ]
    os.kill(running.child.process.pid, signal.SIGHUP)
    await until(lambda: any(each.get("message") == "SIGHUP: reading the settings again" for each in entries()))


async def test_a_taken_port_is_told_in_one_line(settings: WriteSettings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        argv = command(settings(), port)
        done = await asyncio.to_thread(subprocess.run, argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == f"cannot listen on 127.0.0.1:{port}: Address already in use"
