"""What the ledger's benchmark runs on: PostgreSQL and Valkey as `quotagate up` starts them, and control planes."""

import asyncio
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from importlib import resources
from itertools import count
from pathlib import Path
from typing import Any, Self

import asyncpg
import httpx
import yaml
from redis.asyncio import Redis

from bench.harness import exit_on_sigterm
from control import schema
from control.entitlements import catalogue
from devstack import demo, postgres, valkey
from devstack.child import Child, spawn, stopping
from devstack.ports import LOOPBACK, free_port
from devstack.sample_process import answers
from gateway.http.deadlines import DeadlineSweep
from gateway.ledger.hydration import HydrationClient
from gateway.ledger.link import Link
from gateway.redis.connection import ReplyTimes
from quota import keys

SHARDS = keys.SHARDS_DEFAULT
ADMIN_TOKEN = "admin-token-of-the-benchmarks"
START_SECONDS = 30.0
PATIENT_SECONDS = 5.0  # for a reply of Redis: a machine that stalls ends no run
TEMPLATE = "template"

COPY = """
local content = redis.call('DUMP', KEYS[1])
for i = 2, #KEYS do redis.call('RESTORE', KEYS[i], 0, content, 'REPLACE') end
"""


@dataclass(frozen=True, slots=True)
class Stores:
    """An empty Valkey and an empty database with the schema and the plans."""

    dsn: str
    url: str
    directory: Path

    @asynccontextmanager
    async def redis(self) -> AsyncIterator[Any]:
        async with Redis.from_url(self.url) as client:
            yield client

    @asynccontextmanager
    async def postgres(self) -> AsyncIterator[Any]:
        connection = await asyncpg.connect(self.dsn)
        try:
            yield connection
        finally:
            await connection.close()

    @asynccontextmanager
    async def linked(self) -> AsyncIterator[tuple[Link, HydrationClient]]:
        """The gateway's link and its questions for organizations that Redis does not know."""
        loop = asyncio.get_running_loop()
        link = Link(loop, self.url, SHARDS, ReplyTimes(PATIENT_SECONDS, PATIENT_SECONDS))
        async with Redis.from_url(self.url) as client:
            deadlines = DeadlineSweep(loop)
            hydrator = HydrationClient(link, client, deadlines, 2.0)
            link.start()
            hydrator.start()
            try:
                if not await link.wait_open(START_SECONDS):
                    raise SystemExit(f"no connection to Valkey: {link.down_reason}")
                yield link, hydrator
            finally:
                await hydrator.close()
                await link.close()
                deadlines.close()


class Site:
    """All of it ends with the benchmark."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._numbers = count()

    def __enter__(self) -> Self:
        exit_on_sigterm()
        self.directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="quotagate-bench-")))
        self.directory.chmod(0o711)  # under root, PostgreSQL runs as another user
        self._postgres = postgres.start(self.directory / "postgres", free_port(), log=self.directory / "postgres.log")
        self._stack.callback(shutil.rmtree, self._postgres.home, ignore_errors=True)
        self._stack.enter_context(stopping(self._postgres.child))
        self._postgres.wait_ready()
        dsn = postgres.create_database(self._postgres, TEMPLATE)
        schema.migrate(dsn)
        catalogue.apply(dsn, None, demo.PLANS)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @contextmanager
    def stores(self) -> Iterator[Stores]:
        name = f"bench_{next(self._numbers)}"
        admin = self._postgres.dsn(postgres.SUPERUSER)
        postgres.execute(admin, f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
        port, directory = free_port(), self.directory / name
        with stopping(valkey.start(directory, port, log=directory / "valkey.log")) as child:
            valkey.wait_ready(child, port)
            yield Stores(self._postgres.dsn(name), valkey.url(port), directory)
        postgres.execute(admin, f"DROP DATABASE {name} WITH (FORCE)")
        shutil.rmtree(directory)


@dataclass(frozen=True, slots=True)
class Control:
    child: Child
    url: str

    def kill(self) -> None:
        os.kill(self.child.process.pid, signal.SIGKILL)
        self.child.process.wait()

    def entitle(self, org: str, allowance: int) -> None:
        with httpx.Client(base_url=self.url, headers={"authorization": f"Bearer {ADMIN_TOKEN}"}) as client:
            client.put(f"/v1/organizations/{org}", json={"name": org}).raise_for_status()
            content = {"plan": "tiny", "meters": {"api_calls": allowance}}
            client.put(f"/v1/entitlements/{org}", json=content).raise_for_status()


def start_control(stores: Stores, **changes: Any) -> Control:
    """A control plane that is ready; whoever starts it stops or kills it. `changes`: parts of its settings."""
    port, config = free_port(), stores.directory / "control.yaml"
    packaged = yaml.safe_load((resources.files("config") / "control.yaml").read_text())
    config.write_text(yaml.safe_dump(packaged | changes))
    argv = [sys.executable, "-m", "quotagate", "control", "--config", str(config)]
    argv += ["--host", LOOPBACK, "--port", str(port)]
    env = {
        "QUOTAGATE_POSTGRES_DSN": stores.dsn,
        "QUOTAGATE_REDIS_URL": stores.url,
        "QUOTAGATE_ADMIN_TOKEN": ADMIN_TOKEN,
        "QUOTAGATE_JWT_SECRET": "a secret for benchmarks, forty characters",
    }
    child = spawn("control", argv, log=stores.directory / "control.log", env=env)
    try:
        child.wait_until(lambda: answers(port, "/-/ready"), START_SECONDS)
    except BaseException:
        child.stop()
        raise
    return Control(child, f"http://{LOOPBACK}:{port}")


async def clone(stores: Stores, template: str, orgs: Sequence[str], *, rows: bool = True) -> None:
    """Makes organizations that have what another has, in Redis and, with `rows`, in PostgreSQL."""
    async with stores.redis() as redis:
        copy = redis.register_script(COPY)
        for at in range(0, len(orgs), 1000):
            of = [keys.org_key(org, SHARDS) for org in (template, *orgs[at : at + 1000])]
            await copy(keys=of)
    if not rows:
        return
    async with stores.postgres() as connection:
        for table, field in (("organization", "id"), ("entitlement", "org"), ("publication", "org")):
            fresh = "|| jsonb_build_object('id', gen_random_uuid())" if table == "entitlement" else ""
            await connection.execute(
                f"""
                INSERT INTO {table} SELECT (jsonb_populate_record(t, jsonb_build_object('{field}', copy) {fresh})).*
                FROM {table} t, unnest($1::text[]) AS copy WHERE t.{field} = $2
                """,  # noqa: S608 - names of our own
                list(orgs),
                template,
            )


@dataclass(frozen=True, slots=True)
class Books:
    """Three counts of the same units, when the writer has written all."""

    lost: int
    duplicated: int
    over: int
    drift: int
    """Organizations whose counters in Redis, counters in PostgreSQL and sum of events are not one number."""

    def __add__(self, other: "Books") -> "Books":
        pairs = zip(
            (self.lost, self.duplicated, self.over, self.drift),
            (other.lost, other.duplicated, other.over, other.drift),
            strict=True,
        )
        return Books(*(a + b for a, b in pairs))

    def __str__(self) -> str:
        return f"lost {self.lost}, duplicated {self.duplicated}, over-admitted {self.over}, drift {self.drift}"


async def books(stores: Stores, admitted: Sequence[str], by_org: dict[str, int], limit: int | None) -> Books:
    """`admitted`: request ids, one unit each. `by_org`: how many, for each organization there is; `limit`: of each."""
    async with stores.postgres() as connection:
        rows = [row["request_id"] for row in await connection.fetch("SELECT request_id FROM usage_event")]
        sums = dict(await connection.fetch("SELECT org, sum(units)::bigint FROM usage_event GROUP BY org"))
        counted = dict(await connection.fetch("SELECT org, sum(used)::bigint FROM usage_counter GROUP BY org"))
    used: dict[str, int] = {}
    async with stores.redis() as redis:
        orgs = list(by_org)
        for at in range(0, len(orgs), 1000):
            async with redis.pipeline(transaction=False) as pipeline:
                for org in orgs[at : at + 1000]:
                    pipeline.hgetall(keys.org_key(org, SHARDS))
                for org, fields in zip(orgs[at : at + 1000], await pipeline.execute(), strict=True):
                    used[org] = sum(int(value) for field, value in fields.items() if field.startswith(b"used:"))
    over = sum(max(0, count - limit) for count in by_org.values()) if limit is not None else 0
    drift = sum(not used[org] == counted.get(org, 0) == sums.get(org, 0) for org in by_org)
    return Books(len(set(admitted) - set(rows)), len(rows) - len(set(rows)), over, drift)


async def drained(stores: Stores, events: int) -> None:
    """Returns when at least so many events are rows, or when no more come."""
    deadline, before = time.monotonic() + START_SECONDS, -1
    async with stores.postgres() as connection:
        while (rows := await connection.fetchval("SELECT count(*) FROM usage_event")) < events:
            if rows > before:
                deadline, before = time.monotonic() + START_SECONDS, rows
            if time.monotonic() > deadline:
                return
            await asyncio.sleep(0.1)
