"""The access log: a line for each exchange, fit for a machine, with nothing secret in it."""

# ruff: noqa: ASYNC240 - a small local file is read at once

import asyncio
import json
import os
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import psutil
import pytest

from gateway.observe.access_log import AccessLog
from gateway.observe.record import json_text
from gateway.settings.intervals import Intervals
from tests.gateway.rig import Connect, MakeOrganization, Organization, Peer, StartGateway, StartProcess, Until, Upstream

TRACE = b"traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "access.log"


class Lines(Protocol):
    async def __call__(self, count: int) -> list[dict[str, Any]]: ...


@pytest.fixture
def lines(file: Path, until: Until) -> Lines:
    """The lines, as soon as there are so many."""

    async def read(count: int) -> list[dict[str, Any]]:
        await until(lambda: file.exists() and len(file.read_bytes().splitlines()) >= count)
        return [json.loads(line) for line in file.read_bytes().splitlines()]

    return read


def get(path: bytes, auth: bytes = b"", fields: bytes = b"") -> bytes:
    return b"GET %b HTTP/1.1\r\nHost: a\r\n%b%b\r\n" % (path, auth, fields)


async def test_an_admitted_request_is_one_line_that_tells_who_asked_what_and_what_came_of_it(
    start: StartGateway, acme: Organization, file: Path, lines: Lines
) -> None:
    gateway = await start(access_log={"path": str(file)})
    fields = b"X-Request-Id: order-7\r\nTraceparent: " + TRACE.split(b" ")[1]
    answer = await gateway.ask(get(b"/a/../v1?secret=1", acme.auth, fields))
    [line] = await lines(1)
    when = datetime.fromisoformat(line.pop("time"))
    assert abs(when.timestamp() - datetime.now(when.tzinfo).timestamp()) < 60
    assert line.pop("duration_us") >= line.pop("upstream_us") > 0
    assert len(line.pop("request_id")) == 20
    assert line.pop("bytes_out") > len(answer.body)
    assert line == {
        "client": "127.0.0.1",
        "correlation": "order-7",
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
        "org": "acme",
        "user": "demo@acme",
        "method": "GET",
        "path": "/v1",
        "route": "/",
        "status": 200,
        "verdict": "admitted",
        "meters": {"api_calls": 1},
        "bytes_in": 0,
    }


async def test_refusals_are_logged_with_their_verdict(
    start: StartGateway, organization: MakeOrganization, upstream: Upstream, file: Path, lines: Lines
) -> None:
    routes = [{"path": "/", "upstream": "api"}, {"path": "/free", "upstream": "api", "exempt": True}]
    gateway = await start(access_log={"path": str(file)}, routes=routes)
    empty, unpaid = await organization("empty", 1), await organization("unpaid", None)
    for request in (
        get(b"/", empty.auth),
        get(b"/", empty.auth),
        get(b"/", empty.auth),
        get(b"/", unpaid.auth),
        get(b"/"),
        get(b"/", b"Authorization: Bearer x.y.z\r\n"),
        get(b"/free"),
        get(b"/%zz"),
        b"junk\r\n\r\n",
        get(b"/-/health"),
    ):
        await gateway.ask(request, "GET")
    verdicts = [(line["verdict"], line["status"]) for line in await lines(10)]
    assert verdicts == [
        ("admitted", 200),
        ("exhausted", 429),
        ("refused_from_memory", 429),
        ("not_in_plan", 403),
        ("token_missing", 401),
        ("token_malformed", 401),
        ("exempt", 200),
        ("bad_request", 400),
        ("bad_request", 400),
        ("local", 200),
    ]


async def test_neither_token_nor_query_is_logged_by_default(
    start: StartGateway, acme: Organization, file: Path, lines: Lines
) -> None:
    gateway = await start(access_log={"path": str(file)})
    await gateway.ask(get(b"/v1?key=hush", acme.auth))
    await gateway.ask(get(b"/v1?key=hush"))
    await gateway.ask(get(b"/%zz?key=hush"))
    await lines(3)
    assert acme.token not in file.read_text()
    assert "hush" not in file.read_text()


async def test_the_query_is_logged_where_the_settings_say_so(
    start: StartGateway, acme: Organization, file: Path, lines: Lines
) -> None:
    gateway = await start(access_log={"path": str(file), "query": True})
    await gateway.ask(get(b'/v1?a="b', acme.auth))
    assert [line["path"] for line in await lines(1)] == ['/v1?a="b']


async def test_what_a_client_writes_cannot_forge_a_line(
    start: StartGateway, acme: Organization, file: Path, lines: Lines
) -> None:
    gateway = await start(access_log={"path": str(file)})
    forged = b'/%zz","verdict":"admitted\\'
    await gateway.ask(get(forged, acme.auth, b'X-Request-Id: a"b\r\ntraceparent: 00-"-"-01\r\n'))
    [line] = await lines(1)
    assert (line["path"], line["verdict"]) == (forged.decode(), "bad_request")
    assert "correlation" not in line
    assert "trace_id" not in line


def test_any_bytes_become_a_json_string() -> None:
    for octet in range(256):
        text = b"a%bz" % bytes([octet])
        assert json.loads(b'"%b"' % json_text(text)).startswith("a")


async def test_a_client_that_leaves_is_logged_as_having_left(
    start: StartGateway, acme: Organization, upstream: Upstream, file: Path, lines: Lines
) -> None:
    asked = asyncio.Event()

    async def silent(*_: Any) -> None:
        asked.set()
        await asyncio.sleep(3600)

    upstream.script = silent
    gateway = await start(access_log={"path": str(file)})
    client = await gateway.connect()
    client.send(get(b"/slow", acme.auth))
    await asked.wait()
    await client.close()
    [line] = await lines(1)
    assert (line["status"], line["verdict"], line["aborted"]) == (499, "admitted", True)


async def test_lines_are_all_written_when_the_log_is_closed(file: Path) -> None:
    log = AccessLog(asyncio.get_running_loop(), file)
    for number in range(2000):
        log.add(b"%d\n" % number)
    log.close()
    assert file.read_bytes().split() == [b"%d" % number for number in range(2000)]


async def test_a_rotated_file_is_left_and_a_new_one_begun(file: Path) -> None:
    log = AccessLog(asyncio.get_running_loop(), file)
    log.add(b"before\n")
    log.flush()
    rotated = file.rename(file.with_suffix(".1"))
    log.reopen()
    log.add(b"after\n")
    log.close()
    assert (rotated.read_bytes(), file.read_bytes()) == (b"before\n", b"after\n")


async def test_every_line_that_a_full_disk_does_not_take_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    log = AccessLog(asyncio.get_running_loop(), Path("/dev/full"))
    for number in range(1000):
        log.add(b"%d\n" % number)
    log.close()
    assert log.dropped == 1000


@pytest.mark.parametrize("left", [b'{"cut": "by anoth', b"whole\n", b""])
async def test_a_line_that_was_cut_is_ended_before_the_next_whoever_wrote_it(file: Path, left: bytes) -> None:
    file.write_bytes(b"first\n" + left)
    log = AccessLog(asyncio.get_running_loop(), file)
    log.add(b"a\n")
    log.flush()
    log.add(b"b\n")
    log.close()
    ended = left if left.endswith(b"\n") or not left else left + b"\n"
    assert file.read_bytes() == b"first\n" + ended + b"a\nb\n"
    assert log.dropped == 0


async def test_lines_of_a_full_disk_are_counted_once_and_none_is_glued_to_the_next(
    run: StartProcess, connect: Connect, tmp_path: Path, until: Until
) -> None:
    file, asked = tmp_path / "shared.log", 0
    gateway = await run(workers=2, access_log={"path": str(file)})

    async def ask(count: int) -> None:
        nonlocal asked
        clients = [await connect(gateway.port) for _ in range(8)]
        for number in range(count):
            assert (await clients[number % 8].ask(get(b"/free"))).status == 200
        asked += count

    def whole() -> list[Any]:
        lines, entries = file.read_bytes().split(b"\n"), []
        for line in lines[:-1]:
            try:
                entries.append(json.loads(line))
            except ValueError:
                assert line.count(b'"time"') <= 1, "no line is glued to another"
        return entries

    def accounted_for() -> bool:
        return len(whole()) + gateway.metrics()["quotagate_access_log_dropped_total"] == asked

    await ask(200)
    await until(lambda: len(whole()) == asked)
    for more in (100, 450):  # cut within the first line, and within the second
        limit = file.stat().st_size + more
        for worker in gateway.workers():
            worker.rlimit(psutil.RLIMIT_FSIZE, (limit, psutil.RLIM_INFINITY))
        before = asked
        await ask(100)
        await until(accounted_for)
        assert len(whole()) < before + 50, "the disk was full"
        for worker in gateway.workers():
            worker.rlimit(psutil.RLIMIT_FSIZE, (psutil.RLIM_INFINITY, psutil.RLIM_INFINITY))
        written = len(whole())
        await ask(40)
        await until(partial(lambda expected: len(whole()) == expected, written + 40))
        assert accounted_for()
    text = file.read_bytes()
    assert text.endswith(b"\n")
    assert text.count(b"\n") == len(whole()) + 2, "two lines were cut, and each was ended"
    assert gateway.logged("access log not written") >= 1
    assert gateway.logged("access log is written again") >= 1


async def test_when_no_file_can_be_written_requests_are_answered_and_settled_all_the_same(
    run: StartProcess, connect: Connect, upstream: Upstream, acme: Organization
) -> None:
    gateway = await run()
    client = await connect(gateway.port)
    async with asyncio.timeout(60):
        while b'"listening"' not in gateway.log.read_bytes():  # noqa: ASYNC110 - the supervisor's last line of a start
            await asyncio.sleep(0.01)
    full = (gateway.log.stat().st_size + 30, psutil.RLIM_INFINITY)
    [worker] = gateway.workers()
    worker.rlimit(psutil.RLIMIT_FSIZE, full)

    async def junk(peer: Peer, _: bytes) -> None:
        peer.send(b"junk")
        await peer.close()

    well, upstream.script = upstream.script, junk
    for _ in range(3):  # each logs a warning, and a charge that is given back
        assert (await client.ask(get(b"/v1", acme.auth))).status == 502
    await acme.comes_to(0)
    upstream.script = well
    assert (await client.ask(get(b"/v1", acme.auth))).status == 200
    before = gateway.log.read_bytes()
    worker.rlimit(psutil.RLIMIT_FSIZE, (psutil.RLIM_INFINITY, psutil.RLIM_INFINITY))
    assert (await client.ask(get(b"/v1", acme.auth))).status == 200
    async with asyncio.timeout(60):
        while len(text := gateway.log.read_bytes()) == len(before):  # noqa: ASYNC110 - a file rings no bell
            await asyncio.sleep(0.01)
    assert text[len(before) :].startswith(b"\n{"), "what was cut is ended"


async def test_a_pipe_that_may_not_block_is_waited_for(tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    log = AccessLog(asyncio.get_running_loop(), pipe)
    os.set_blocking(log._sink.descriptor, False)
    lines = [b"%d %b\n" % (number, b"x" * 1000) for number in range(500)]
    for line in lines:
        log.add(line)
    log.flush()
    got = b""
    async with asyncio.timeout(60):
        while len(got) < sum(map(len, lines)):
            try:
                got += os.read(reader, 65_536)
            except BlockingIOError:
                await asyncio.sleep(0.005)
    assert got == b"".join(lines)
    log.close()
    os.close(reader)
    assert log.dropped == 0


async def test_lines_that_wait_for_a_hanging_disk_at_the_end_are_counted_as_lost(tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    log = AccessLog(asyncio.get_running_loop(), pipe, Intervals(access_log_close_seconds=0.05))
    log.add(b"x" * 200_000 + b"\n")  # more than a pipe holds
    log.flush()
    for _ in range(10):
        log.add(b"y\n")
    log.close()
    assert log.dropped == 11
    os.close(reader)


async def test_a_pipe_that_nobody_reads_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    log = AccessLog(asyncio.get_running_loop(), pipe, Intervals(access_log_close_seconds=0.05))
    line = b"x" * 1023 + b"\n"
    for _ in range(20_000):
        log.add(line)
    log.close()
    assert log.dropped > 0
    os.close(reader)  # the thread's write fails, and ends
