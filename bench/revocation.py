"""Whether a revocation is a fact: what is admitted after the call that revokes is answered.

    python -m bench.revocation [--revocations 1000] [--rate 2000] [--quick]

A whole installation runs: PostgreSQL, Valkey, a control plane, a gateway of four processes, and an nginx that answers
at once. Half of the principals are API keys, the others tokens. All processes have met each of them, and clients go on
asking for all of them, at `--rate` requests a second, while the control API revokes one after the other. A request
counts as begun later when its first byte was sent after the last byte of that answer was read; right after each answer
the revoked principal is tried on many connections at once. Not one of those requests may be admitted.
"""

import argparse
import asyncio
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles

import httptools
import httpx
import jwt

from bench.harness import TOOLS, require
from bench.site import Site
from control import schema
from devstack import demo, postgres, valkey
from devstack.child import Child, spawn, stopping
from devstack.ports import LOOPBACK, free_port
from devstack.sample_process import answers

PROCESSES, CONNECTIONS, ORGANIZATIONS, REVOKERS = 4, 64, 50, 4
TRIES = 16  # of a principal that was revoked just now, on as many connections
MET = 12  # requests of each principal before, so that each process remembers it
TICK_SECONDS = 0.005
START_SECONDS = 60
SECRET, ADMIN_TOKEN, ISSUER = "a secret for benchmarks, forty characters", "an-admin-token-of-a-benchmark", "bench"
GATEWAY = """
redis: {{url: "{redis}", timeout_ms: 5000, budget_ms: 5000}}
auth: {{algorithms: [HS256], secret: "{secret}", issuer: {issuer}}}
access_log: {{path: "{log}"}}
upstreams: {{api: {{url: "http://127.0.0.1:{upstream}"}}}}
routes: [{{path: /, upstream: api}}]
"""


@dataclass(slots=True)
class Principal:
    """A token or an API key, and the call that revokes it."""

    request: bytes
    call: tuple[str, str, dict[str, str] | None]
    revoked: bool = False
    """The answer was read."""


class Client(asyncio.Protocol):
    """One connection, with one request at a time."""

    def __init__(self, load: "Load") -> None:
        self._load = load
        self._parser = httptools.HttpResponseParser(self)
        self._later = False
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # always a socket

    def ask(self, principal: Principal) -> None:
        self._later = principal.revoked
        self._transport.write(principal.request)

    def close(self) -> None:
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        self._load.on_answer(self, self._parser.get_status_code(), later=self._later)


class Load:
    """Requests at a rate, of all principals in turn, and at once of those that were revoked just now."""

    def __init__(self, principals: Sequence[Principal], rate: int) -> None:
        self._principals = principals
        self._rate = rate
        self._free: deque[Client] = deque()
        self.due: deque[Principal] = deque()
        self.before: Counter[int] = Counter()
        """Answers by status, to requests that were begun before the principal's revocation was answered."""
        self.later: Counter[int] = Counter()

    async def connect(self, port: int) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(CONNECTIONS):
            _, client = await loop.create_connection(lambda: Client(self), LOOPBACK, port)
            self._free.append(client)

    def on_answer(self, client: Client, status: int, *, later: bool) -> None:
        (self.later if later else self.before)[status] += 1
        self._free.append(client)

    def send(self, requests: int) -> None:
        while self._free and requests > 0:
            principal = self.due.popleft() if self.due else random.choice(self._principals)  # noqa: S311 - no secret
            self._free.popleft().ask(principal)
            requests -= 1

    async def run(self) -> None:
        """Until it is cancelled. What could not be sent in time is not made up for."""
        last = time.perf_counter()
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now = time.perf_counter()
            self.send(round((now - last) * self._rate))
            last = now

    def close(self) -> None:
        for client in self._free:
            client.close()

    async def drained(self, *, answered: bool) -> None:
        """All that was due is sent, or answered, too."""
        while self.due or (answered and len(self._free) < CONNECTIONS):  # noqa: ASYNC110 - `run` sends by the clock
            await asyncio.sleep(TICK_SECONDS)


@contextmanager
def installation(directory: Path) -> Iterator[tuple[int, str]]:
    """The gateway's port, and the control API's address."""
    with ExitStack() as stack:
        dsn = stack.enter_context(postgres.running(directory))
        redis_url = stack.enter_context(valkey.running(directory / "valkey"))
        upstream = stack.enter_context(Site()).upstream()
        schema.migrate(dsn)
        apply = [sys.executable, "-m", "quotagate", "plans", "apply", "--dsn", dsn, "--plans", str(demo.PLANS)]
        subprocess.run(apply, check=True, stdout=subprocess.DEVNULL)
        secrets = {"POSTGRES_DSN": dsn, "REDIS_URL": redis_url, "ADMIN_TOKEN": ADMIN_TOKEN, "JWT_SECRET": SECRET}
        port, control_port = free_port(), free_port()
        env = {f"QUOTAGATE_{name}": value for name, value in secrets.items()}
        control = _started(stack, directory, ["control", "--port", str(control_port)], env)
        control.wait_until(lambda: answers(control_port, "/-/ready"), START_SECONDS)
        config = directory / "gateway.yaml"
        config.write_text(
            GATEWAY.format(
                redis=redis_url, secret=SECRET, issuer=ISSUER, upstream=upstream.port, log=directory / "access.log"
            )
        )
        argv = ["gateway", "--config", str(config), "--port", str(port), "--workers", str(PROCESSES)]
        gateway = _started(stack, directory, argv, {})
        gateway.wait_until(lambda: answers(port, "/-/ready"), START_SECONDS)
        yield port, f"http://{LOOPBACK}:{control_port}"


def _started(stack: ExitStack, directory: Path, argv: Sequence[str], env: dict[str, str]) -> Child:
    log = directory / f"{argv[0]}.log"
    child = spawn(argv[0], [sys.executable, "-m", "quotagate", *argv], log=log, env=env)
    return stack.enter_context(stopping(child))


async def made(control: httpx.AsyncClient, count: int) -> list[Principal]:
    """Half of them keys. An organization has its share of both, so each revocation changes it for all others."""
    orgs = [f"org-{at}" for at in range(min(ORGANIZATIONS, count))]
    for org in orgs:
        (await control.put(f"/v1/organizations/{org}", json={"name": org})).raise_for_status()
        terms = {"plan": "bulk", "meters": {"api_calls": 10**9}, "policy": "HARD_STOP"}
        (await control.put(f"/v1/entitlements/{org}", json=terms)).raise_for_status()
    principals = []
    now = int(time.time())
    for at in range(count):
        org = orgs[at // 2 % len(orgs)]
        if at % 2:
            key = (await control.post(f"/v1/organizations/{org}/keys", json={})).raise_for_status().json()
            credential, call = key["key"], ("DELETE", f"/v1/organizations/{org}/keys/{key['id']}", None)
        else:
            claims = {"org_id": org, "iss": ISSUER, "jti": f"t{at}", "iat": now, "exp": now + 86_400}
            credential = jwt.encode(claims, SECRET, "HS256")
            body = {"kind": "token", "subject": f"t{at}"}
            call = ("POST", f"/v1/organizations/{org}/revocations", body)
        request = f"GET /v1/things HTTP/1.1\r\nHost: api.example.com\r\nAuthorization: Bearer {credential}\r\n\r\n"
        principals.append(Principal(request.encode(), call))
    return principals


async def revoke_all(control: httpx.AsyncClient, principals: Sequence[Principal], load: Load) -> list[float]:
    """Seconds from each call to its answer."""
    left, latencies = deque(principals), list[float]()

    async def revoke() -> None:
        while left:
            principal = left.popleft()
            method, path, body = principal.call
            began = time.perf_counter()
            answer = await control.request(method, path, json=body)
            latencies.append(time.perf_counter() - began)
            answer.raise_for_status()
            principal.revoked = True
            load.due.extend([principal] * TRIES)
            load.send(TRIES)

    await asyncio.gather(*(revoke() for _ in range(REVOKERS)))
    return latencies


async def measure(port: int, control_url: str, revocations: int, rate: int) -> tuple[Load, list[float], float]:
    headers = {"authorization": f"Bearer {ADMIN_TOKEN}"}
    async with httpx.AsyncClient(base_url=control_url, headers=headers, timeout=30) as control:
        principals = await made(control, revocations)
        load = Load(principals, rate)
        await load.connect(port)
        running = asyncio.create_task(load.run())
        load.due.extend(principal for principal in principals for _ in range(MET))
        await load.drained(answered=False)
        if load.before.keys() - {200}:
            raise SystemExit(f"Before anything was revoked, not all were admitted: {dict(load.before)}")
        began, asked = time.perf_counter(), load.before.total()
        latencies = await revoke_all(control, principals, load)
        await load.drained(answered=False)
        seconds = time.perf_counter() - began
        running.cancel()
        await load.drained(answered=True)
        load.close()
        reached = (load.before.total() + load.later.total() - asked) / seconds
    return load, latencies, reached


def main(revocations: int, rate: int) -> None:
    require({tool: TOOLS[tool] for tool in ("nginx", "taskset")})
    with tempfile.TemporaryDirectory(prefix="quotagate-bench-") as name:
        directory = Path(name)
        directory.chmod(0o755)  # nginx's worker and PostgreSQL may be other users
        with installation(directory) as (port, control):
            load, latencies, reached = asyncio.run(measure(port, control, revocations, rate))
    cuts = quantiles(latencies, n=100, method="inclusive")
    admitted, later = load.later[200], load.later.total()
    statuses = f"before {dict(load.before)}, later {dict(load.later)}"
    print(
        f"{PROCESSES} processes, {reached:,.0f} requests/s, {revocations:,} revocations; answers by status: {statuses}"
    )
    p50_ms, p99_ms = cuts[49] * 1000, cuts[98] * 1000
    print(f"admitted after revocation {admitted} of {later:,}, p99 {p99_ms:.1f} ms (p50 {p50_ms:.1f} ms)")
    if admitted or load.later.keys() - {401}:
        raise SystemExit(1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--revocations", type=int, default=1_000)
    parser.add_argument("--rate", type=int, default=2_000, help="requests a second")
    parser.add_argument("--quick", action="store_true", help="100 revocations")
    options = parser.parse_args()
    main(100 if options.quick else options.revocations, options.rate)
