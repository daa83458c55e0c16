"""How long the console's pages take, and how large they are, with 100,000 organizations and 10,000,000 events.

    python -m bench.console [--organizations 100000] [--events 10000000] [--rounds 30] [--data DIR] [--only TEXT]

It fills the embedded PostgreSQL, starts a control plane on it, and asks for every page that the router has, for the
endpoint that answers the same as JSON, and for searches. `--data`: the database stays there for the next run; without
it, it is made each time (six minutes and 3 GB) and deleted. Each address is asked for by itself, for other
organizations each time, and the time is that until its answer is here.
"""

import argparse
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from fastapi.routing import APIRoute

from bench import console_data
from bench.report import number, table
from control import roles, schema
from control.console.frame.guards import PageGuard
from control.routers import ROUTERS
from devstack import console, postgres, valkey
from devstack.child import stopping
from devstack.endpoints import APPLICATION, DATABASE
from devstack.ports import LOOPBACK, free_port

ADMIN_TOKEN = "qga_admin-token-of-the-benchmarks-0123456789"
PAGE_MS, ANALYTICS_MS, PAGE_BYTES = 100.0, 1000.0, 100_000
START_SECONDS = 120.0
DIRECTORY_SECONDS = 3600.0
PARAMETERS: dict[str, tuple[dict[str, str], ...]] = {
    "/console/organizations": (
        {}, {"q": "amber"}, {"q": "org-0123"}, {"q": "person1@org-05"}, {"q": "cus_77"}, {"q": "zzzz"},
        {"sort": "-mrr"}, {"sort": "name"}, {"plan": "growth"}, {"status": "grace"}, {"near_quota": "true"},
        {"payment_failed": "true"}, {"plan": "team", "sort": "-used"},
    ),
    "/console/journal": ({}, {"action": "invoice.paid"}, {"org": "org-000001"}),
    "/console/webhooks": ({}, {"state": "dead"}),
    "/console/incidents": ({}, {"status": "closed"}, {"kind": "payment_failed"}),
}  # fmt: skip
"""States of pages that are worth a line of their own; for all others, the address alone."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One kind of address, and what it costs."""

    address: str
    is_analytics: bool
    statuses: Sequence[int]
    milliseconds: Sequence[float]
    size: int = 0
    """Bytes of the answer; of a page, with what it loads."""

    @property
    def p95(self) -> float:
        return statistics.quantiles(self.milliseconds, n=20)[-1] if len(self.milliseconds) > 1 else self.milliseconds[0]

    @property
    def bound(self) -> float:
        return ANALYTICS_MS if self.is_analytics else PAGE_MS

    @property
    def is_page(self) -> bool:
        return not self.address.startswith("/v1/")

    @property
    def met(self) -> bool:
        # An endpoint that needs more than its path says so; what there is none of here is not found.
        answered = {200} if self.is_page else {200, 404, 422}
        return self.p95 <= self.bound and not (self.is_page and self.size > PAGE_BYTES) and {*self.statuses} <= answered

    def row(self) -> list[str]:
        statuses = ", ".join(str(each) for each in sorted(set(self.statuses)))
        verdict = "" if self.met else "**missed**"
        middle, size = number(statistics.median(self.milliseconds)), f"{self.size / 1000:.1f}"
        return [self.address, statuses, middle, number(self.p95), number(self.bound), size, verdict]


@contextmanager
def stores(directory: Path, organizations: int, events: int, days: int) -> Iterator[tuple[str, str]]:
    """The DSN of the application's role, and the address of an empty Valkey."""
    with ExitStack() as stack:
        database = postgres.start(directory / "postgres", free_port(), log=directory / "postgres.log", durable=False)
        stack.enter_context(stopping(database.child))
        database.wait_ready()
        owner = postgres.create_database(database, DATABASE)
        port = free_port()
        cache = valkey.start(Path(tempfile.mkdtemp(dir=directory)), port, log=directory / "valkey.log")
        stack.enter_context(stopping(cache))
        valkey.wait_ready(cache, port)
        if not postgres.execute(owner, "SELECT to_regclass('usage_event')"):
            print(f"filling the database with {organizations:,} organizations and {events:,} events", flush=True)
            console_data.make(owner, organizations, events, days)
        schema.migrate(owner)  # what was made by an earlier release
        postgres.create_login(database, APPLICATION, roles.APPLICATION_ROLE)
        yield postgres.dsn(database.port, DATABASE, APPLICATION), valkey.url(port)


@contextmanager
def control_plane(dsn: str, redis: str, directory: Path) -> Iterator[str]:
    """A control plane that is ready; its address."""
    port = free_port()
    environment = {
        "QUOTAGATE_REDIS_URL": redis,
        "QUOTAGATE_POSTGRES_DSN": dsn,
        "QUOTAGATE_JWT_SECRET": "secret-of-the-benchmarks-with-32-bytes-and-more",
        "QUOTAGATE_CONTROL_EXPOSE": "true",
        "QUOTAGATE_ADMIN_TOKEN": ADMIN_TOKEN,
        "QUOTAGATE_CONTROL_URL": f"http://{LOOPBACK}:{port}",
    }
    argv = [sys.executable, "-m", "quotagate", "control", "--host", LOOPBACK, "--port", str(port)]
    with (directory / "control.log").open("wb") as log:
        process = subprocess.Popen(argv, env={**os.environ, **environment}, stdout=log, stderr=log)
        address = f"http://{LOOPBACK}:{port}"
        try:
            _wait_ready(process, address, directory)
            yield address
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def _wait_ready(process: "subprocess.Popen[bytes]", address: str, directory: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            if httpx.get(f"{address}/-/ready", timeout=5).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"the control plane did not start; its log is {directory / 'control.log'}")
        time.sleep(0.2)


def wait_for_directory(dsn: str) -> None:
    """Until what organizations are searched and sorted by is there: some minutes where the database is new."""
    began = time.monotonic()
    waiting = (
        "SELECT (SELECT count(*) FROM organization_review) + count(*) FROM organization_summary WHERE stale_at <= now()"
    )
    while (left := int(postgres.execute(dsn, waiting))) > 100:
        if time.monotonic() - began > DIRECTORY_SECONDS:
            raise SystemExit(f"{left} organizations are not in the directory after {DIRECTORY_SECONDS:.0f} s")
        time.sleep(5)
    print(f"the directory is there after {time.monotonic() - began:.0f} s", flush=True)


def pages() -> Iterator[tuple[str, str | None]]:
    """The path of each page of the console, and of its twin."""
    for router in ROUTERS:
        for route in router.routes:
            if not isinstance(route, APIRoute) or "GET" not in (route.methods or ()) or "{path" in route.path:
                continue
            for depends in route.dependencies:
                if isinstance(depends.dependency, PageGuard) and route.path.startswith("/console"):
                    yield route.path, depends.dependency.twin


class Addresses:
    """Values for what paths name."""

    def __init__(self, dsn: str) -> None:
        def values(query: str) -> list[str]:
            return postgres.execute(dsn, query).splitlines() or ["none"]

        every = "SELECT id FROM organization WHERE substr(id, 5)::int % 500 = 1 ORDER BY id LIMIT 40"
        self._values = {
            "org": values(every),  # the busiest organization is the first
            "incident": values("SELECT id FROM incident ORDER BY id DESC LIMIT 40"),
            "request_id": values("SELECT request_id FROM usage_event ORDER BY occurred_at DESC LIMIT 40"),
            "entry": values("SELECT id FROM audit_journal ORDER BY id DESC LIMIT 40"),
            "event": values("SELECT id FROM webhook_event ORDER BY received_at DESC LIMIT 40"),
            "name": ["grant", "credit", "suspend"],
            "kind": ["payment_failed", "quota_exhausted"],
        }

    def of(self, path: str, number: int) -> str | None:
        """None where nothing is known for a name in it."""
        filled = path
        for name in re.findall(r"\{(\w+)[^}]*\}", path):
            values = self._values.get(name) or self._values.get(name.removesuffix("_id"))
            if values is None:
                return None
            filled = re.sub(rf"\{{{name}[^}}]*\}}", values[number % len(values)], filled)
        return filled


def measure(client: httpx.Client, addresses: Addresses, path: str, query: dict[str, str], rounds: int) -> Asked | None:
    """None where the path names what there is none of here."""
    milliseconds, statuses, text, size = list[float](), list[int](), "", 0
    for number_ in range(-2, rounds):  # the first ones make plans and fill caches
        address = addresses.of(path, max(0, number_))
        if address is None:
            return None
        began = time.perf_counter()
        answer = client.get(address, params=query or None)
        if number_ >= 0:
            milliseconds.append((time.perf_counter() - began) * 1000)
            statuses.append(answer.status_code)
            if len(answer.content) > size:
                size, text = len(answer.content), answer.text
    if not path.startswith("/v1/"):
        size += sum(len(client.get(each).content) for each in _loaded(text))
    shown = path + ("?" + "&".join(f"{name}={value}" for name, value in query.items()) if query else "")
    return Asked(shown, "/analytics" in path, statuses, milliseconds, size)


def _loaded(html: str) -> set[str]:
    """Stylesheets and scripts of a page."""
    styles = re.findall(r'<link[^>]+rel="stylesheet"[^>]+href="([^"]+)"', html)
    scripts = re.findall(r'<script[^>]+src="([^"]+)"', html)
    return {each.replace("&amp;", "&") for each in (*styles, *scripts)}


def signed_in(address: str) -> httpx.Client:
    """As an admin, by a one-time link."""
    client = httpx.Client(base_url=address, timeout=120)
    link = console.link(address, ADMIN_TOKEN)
    code = httpx.URL(link).params["code"]
    origin = {"origin": address, "sec-fetch-site": "same-origin"}
    answer = client.post("/console/link", data={"code": code}, headers=origin)
    if answer.is_error:
        raise SystemExit(f"nobody can sign in: {answer.status_code} {answer.text[:300]}")
    # The cookie is for https only; browsers make an exception for loopback, and this client does not.
    client.headers["cookie"] = "; ".join(each.partition(";")[0] for each in answer.headers.get_list("set-cookie"))
    return client


def ask_all(address: str, dsn: str, rounds: int, only: str) -> list[Asked]:
    addresses, asked, twins = Addresses(dsn), list[Asked](), list[str]()
    with closing(signed_in(address)) as client:
        for path, twin in pages():
            for query in PARAMETERS.get(path, ({},)):
                _add(asked, measure(client, addresses, path, query, rounds) if only in path else None)
            if twin is not None and twin not in twins:
                twins.append(twin)
                found = PARAMETERS.get(path, ({},)) if twin == "/v1/organizations" else ({},)
                for query in found:
                    _add(asked, measure(client, addresses, twin, query, rounds) if only in path else None)
    return asked


def _add(asked: list[Asked], measured: Asked | None) -> None:
    if measured is not None:
        asked.append(measured)
        print(" ".join(measured.row()), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.console")
    parser.add_argument("--organizations", type=int, default=100_000)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--days", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--only", default="", help="pages whose path holds this")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        directory = arguments.data or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        directory.mkdir(parents=True, exist_ok=True)
        size = (arguments.organizations, arguments.events, arguments.days)
        dsn, redis = stack.enter_context(stores(directory, *size))
        address = stack.enter_context(control_plane(dsn, redis, directory))
        wait_for_directory(dsn)
        asked = ask_all(address, dsn, arguments.rounds, arguments.only)
    head = ["address", "status", "median ms", "p95 ms", "bound ms", "KB", ""]
    print("\n" + table(head, [each.row() for each in asked]))
    missed = [each for each in asked if not each.met]
    print(f"\n{len(asked) - len(missed)} of {len(asked)} within their bounds.")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
