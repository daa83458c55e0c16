"""Clients that keep books: what they were admitted, and of what they do not know what became."""

import asyncio
import json
import time
from array import array
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

import httpx

from bench.soak.processes import ADMIN_TOKEN, SECRET
from devstack import token_mint
from devstack.ports import LOOPBACK

CLIENTS = 32
ORDINARY, LIMITED = 40, 10
STEP = 500  # units that an organization with few gets when it has none left
UNLIMITED = 10**12
ANSWER_SECONDS = 20.0
CONTROL_SECONDS = 10.0
AGAIN_SECONDS = 0.5
EVEN_SECONDS = 0.005
TOKEN_LIFE = timedelta(days=30)
NOT_CONNECTED = "not connected"


class Writer(Protocol):
    def write(self, data: bytes) -> None: ...


@dataclass(frozen=True, slots=True)
class Answer:
    status: int | str
    keep: bool
    """The connection."""
    request_id: str


CUT = Answer("cut", keep=False, request_id="")


@dataclass
class Books:
    admitted: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)
    """Calls that were cut, or failed by the gateway: they may have been charged, and may not."""
    allowance: dict[str, int] = field(default_factory=dict)
    """Of the organizations that have few units, at the moment."""
    over: int = 0
    """Calls that were admitted beyond it."""
    statuses: Counter[int | str] = field(default_factory=Counter)
    latencies: "array[float]" = field(default_factory=lambda: array("d"))
    """Of what was admitted, from when it was due."""
    answered: dict[str, float] | None = None
    """By the request id of each call that was admitted: when it was answered, as seconds since 1970. None: they are not
    kept."""

    def admit(self, org: str, seconds: float, request_id: str) -> None:
        self.admitted[org] += 1
        if self.answered is not None and request_id:
            self.answered[request_id] = time.time()
        if org in self.allowance and self.admitted[org] > self.allowance[org]:
            self.over += 1
        self.latencies.append(seconds)

    @property
    def failed(self) -> int:
        return sum(count for status, count in self.statuses.items() if status not in (200, 402, 429))


class Traffic:
    """`rate` calls a second, due at even times whatever became of those before, in turn at each gateway."""

    def __init__(self, gateways: Sequence[int], controls: Sequence[int], rate: float, clients: int = CLIENTS) -> None:
        self.books = Books()
        self._clients = clients
        self._gateways = gateways
        self._controls = [f"http://{LOOPBACK}:{port}" for port in controls]
        self._rate = rate
        self._due: asyncio.Queue[tuple[str, float]] = asyncio.Queue()
        self._exhausted: set[str] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self.requests: dict[str, bytes] = {}
        self._pacing: asyncio.Task[None] | None = None

    async def prepare(self) -> None:
        orgs = [*(f"ordinary-{at}" for at in range(ORDINARY)), *(f"limited-{at}" for at in range(LIMITED))]
        for org in orgs:
            limited = org.startswith("limited")
            if limited:
                self.books.allowance[org] = STEP
            await self._call("PUT", f"/v1/organizations/{org}", {"name": org})
            await self._entitle(org, STEP if limited else UNLIMITED)
            token = token_mint.mint(org, SECRET, now=time.time(), ttl=TOKEN_LIFE)
            request = f"GET /status/200 HTTP/1.1\r\nHost: api.example.com\r\nAuthorization: Bearer {token}\r\n\r\n"
            self.requests[org] = request.encode()

    def start(self) -> None:
        self._pacing = asyncio.create_task(self._pace())
        self._tasks = [
            asyncio.create_task(self._client(self._gateways[at % len(self._gateways)])) for at in range(self._clients)
        ]
        self._tasks.append(asyncio.create_task(self._renew()))

    async def stop(self) -> None:
        """When each call that was due has its answer."""
        if self._pacing is not None:
            self._pacing.cancel()
        async with asyncio.timeout(2 * ANSWER_SECONDS):
            await self._due.join()
        for task in self._tasks:
            task.cancel()

    async def _pace(self) -> None:
        orgs, started, sent = list(self.requests), time.perf_counter(), 0
        while True:
            now = time.perf_counter()
            while sent <= (now - started) * self._rate:
                self._due.put_nowait((orgs[sent % len(orgs)], started + sent / self._rate))
                sent += 1
            await asyncio.sleep(EVEN_SECONDS)

    async def _client(self, port: int) -> None:
        connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while True:
            org, due = await self._due.get()
            try:
                connection = connection or await self._connected(port)
            except OSError:
                self.note(org, due, NOT_CONNECTED)
                self._due.task_done()
                await asyncio.sleep(AGAIN_SECONDS / 10)
                continue
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    answer = await asked(*connection, self.requests[org])
            except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
                answer = CUT
            self.note(org, due, answer.status, answer.request_id)
            if not answer.keep:
                connection[1].close()
                connection = None
            self._due.task_done()

    async def _connected(self, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """To that gateway, or to another one where it is away, as a balancer does. Raises OSError."""
        for each in (port, *(other for other in self._gateways if other != port)):
            with suppress(OSError):
                return await asyncio.open_connection(LOOPBACK, each)
        raise ConnectionRefusedError

    def note(self, org: str, due: float, status: int | str, request_id: str = "") -> None:
        """Of a call of the organization, when it was due, and how it was answered."""
        self.books.statuses[status] += 1
        if status == 200:
            self.books.admit(org, time.perf_counter() - due, request_id)
        elif status in (402, 429):
            self._exhausted.add(org)
        elif status != NOT_CONNECTED:  # then nobody can have charged it
            self.books.unknown[org] += 1

    async def _renew(self) -> None:
        """Gives those more that have used up what they had."""
        while True:
            await asyncio.sleep(AGAIN_SECONDS)
            for org in tuple(self._exhausted & self.books.allowance.keys()):
                more = self.books.allowance[org] + STEP
                self.books.allowance[org] = more  # before anybody can be admitted by it
                await self._entitle(org, more)
                self._exhausted.discard(org)

    async def _entitle(self, org: str, allowance: int) -> None:
        content = {"plan": "bulk", "policy": "HARD_STOP", "meters": {"api_calls": allowance}}
        await self._call("PUT", f"/v1/entitlements/{org}", content)

    async def _call(self, method: str, path: str, content: object) -> None:
        """Until one of the control planes has done it: each may be away."""
        headers = {"authorization": f"Bearer {ADMIN_TOKEN}"}
        async with httpx.AsyncClient(headers=headers, timeout=CONTROL_SECONDS) as client:
            while True:
                for control in self._controls:
                    with suppress(httpx.TransportError):
                        answer = await client.request(method, control + path, json=content)
                        if answer.is_success:
                            return
                        if answer.status_code < 500:
                            raise SystemExit(f"{method} {path} was answered {answer.status_code}: {answer.text}")
                await asyncio.sleep(AGAIN_SECONDS)


async def asked(reader: asyncio.StreamReader, writer: Writer, request: bytes) -> Answer:
    """Raises OSError, IncompleteReadError, LimitOverrunError, ValueError."""
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    body = await reader.readexactly(int(_field(head, b"content-length")))
    status = said_of(int(head[9:12]), body)
    return Answer(status, b"connection: close" not in head, _field(head, b"x-request-id").decode())


def _field(head: bytes, name: bytes) -> bytes:
    return head.partition(b"\r\n" + name + b":")[2].partition(b"\r\n")[0].strip()


def said_of(status: int, body: bytes) -> int | str:
    """The status; of a failure, with what the problem document says."""
    if status < 500:
        return status
    try:
        return f"{status} {json.loads(body)['detail']}"
    except (ValueError, KeyError, TypeError):
        return status
