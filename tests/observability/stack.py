"""A whole installation whose parts a test may take away: Valkey, PostgreSQL behind an address, Stripe's double, and
both planes as processes; and what Prometheus would scrape of them."""

import json
import os
import signal
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import httpx

from control.commands import plans
from control.entitlements import catalogue
from devstack import demo, postgres, stripe_backend, token_mint
from devstack.child import stopping
from devstack.ports import free_port
from tests.control.plane import ADMIN_TOKEN, JWT_SECRET
from tests.faults.address import Address
from tests.gateway.rig.settings import merged
from tests.gateway.store import Store
from tests.observability.samples import Scrape, Series, down, read
from tests.otlp_receiver import Collector, collecting

WAIT_SECONDS: Final = 60.0
SCRAPE_SECONDS: Final = 10.0
CLIENT: Final = httpx.Client(timeout=WAIT_SECONDS)  # making one takes longer than a hundred requests
STRIPE_KEY: Final = "sk_test_of_the_alerts"
WEBHOOK_SECRET: Final = "whsec_of_the_alerts"
MASTER_KEY: Final = b64encode(b"master key of alerts".ljust(32)).decode()
NOTIFICATIONS_SECRET: Final = f"whsec_{b64encode(b'notifications'.ljust(24)).decode()}"
GATEWAY_JOB, CONTROL_JOB = "quotagate-gateway", "quotagate-control"


def eventually(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not holds():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.05)


@dataclass(frozen=True)
class Gateway:
    url: str
    metrics: str
    process: "subprocess.Popen[bytes]"


@dataclass
class Installation:
    directory: Path
    store: Store
    database: Address
    database_port: int
    owner_dsn: str
    stripe_url: str
    control_url: str
    settings: dict[str, Any]
    """Of the gateway."""
    control: "subprocess.Popen[bytes]"
    collector: Collector
    """That both planes send all spans to."""
    watched: "list[Gateway]" = field(default_factory=list)
    gateway_url: str = ""
    org: str = ""
    subscription: str = ""
    tokens: dict[str, str] = field(default_factory=dict)
    """By organization."""
    certificate: Path = Path()
    """That the gateway shows to an upstream."""

    # What clients do

    @property
    def admin(self) -> dict[str, str]:
        return {"authorization": f"Bearer {ADMIN_TOKEN}"}

    @property
    def token(self) -> dict[str, str]:
        """The same each time: of a token that it meets first, a gateway without Redis knows nothing."""
        if self.org not in self.tokens:
            self.tokens[self.org] = token_mint.mint(self.org, JWT_SECRET, now=time.time(), ttl=timedelta(hours=1))
        return {"authorization": f"Bearer {self.tokens[self.org]}"}

    def ask(self, times: int, path: str = "/status/200", *, at: str = "") -> list[int]:
        url, token = f"{at or self.gateway_url}{path}", self.token
        return [CLIENT.get(url, headers=token).status_code for _ in range(times)]

    def report(self, times: int) -> list[int]:
        url, token = f"{self.control_url}/v1/usage", self.token
        records = [{"meter": "api_calls", "units": 1, "idempotency_key": uuid4().hex} for _ in range(times)]
        return [CLIENT.post(url, json=record, headers=token).status_code for record in records]

    def issue(self, times: int) -> list[int]:
        """Tokens."""
        path = f"/v1/organizations/{self.org}/tokens"
        return [self.call("POST", path, {}).status_code for _ in range(times)]

    def call(self, method: str, path: str, content: Mapping[str, Any] | None = None) -> httpx.Response:
        """An admin's call of the control API."""
        return CLIENT.request(method, f"{self.control_url}{path}", json=content, headers=self.admin)

    def entitle(self, allowance: int) -> str:
        org = f"org-{uuid4().hex[:12]}"
        assert self.call("PUT", f"/v1/organizations/{org}", {"name": org}).status_code == 201
        content = {"plan": "bulk", "meters": {"api_calls": allowance}}
        answer = self.call("PUT", f"/v1/entitlements/{org}", content)
        assert answer.status_code == 200, answer.text
        return org

    def sign_up(self) -> None:
        """A customer at Stripe, whose subscription can be changed."""
        body = {"org": self.entitle(1000), "plan": "starter", "success_url": "https://vendor.example/"}
        session = self.call("POST", "/v1/checkout-sessions", body).raise_for_status().json()
        CLIENT.post(session["url"], data={"action": "pay"})
        self.subscription = self.stripe("GET", f"/v1/checkout/sessions/{session['id']}")["subscription"]

    def execute(self, statements: str) -> None:
        """In the database, as the owner of its tables."""
        postgres.execute(self.owner_dsn, statements)

    def stripe(self, method: str, path: str, content: Mapping[str, str] | None = None) -> Any:
        headers = {"authorization": f"Bearer {STRIPE_KEY}"}
        answer = CLIENT.request(method, f"{self.stripe_url}{path}", data=content, headers=headers)
        return answer.raise_for_status().json()

    def double(self, path: str, order: Mapping[str, Any]) -> None:
        """What only a double can do."""
        CLIENT.post(f"{self.stripe_url}/_double{path}", json=order).raise_for_status()

    def change_subscription(self, *, paused: bool) -> None:
        content = {"pause_collection[behavior]": "void"} if paused else {"pause_collection": ""}
        self.stripe("POST", f"/v1/subscriptions/{self.subscription}", content)

    # What Prometheus sees

    def scrape(self) -> Scrape:
        values: dict[Series, float] = {}
        for gateway in self.watched:
            values |= _scraped(gateway.metrics, GATEWAY_JOB)
        values |= _scraped(f"{self.control_url}/-/metrics", CONTROL_JOB, self.admin)
        return Scrape(time.time(), values)

    def value(self, name: str, **labels: str) -> float | None:
        """The largest of those that have these labels; None: there is none."""
        found = [
            value
            for (sample, of), value in self.scrape().values.items()
            if sample == name and labels.items() <= dict(of).items()
        ]
        return max(found, default=None)

    def shows(self, name: str, holds: Callable[[float], bool], **labels: str) -> None:
        """Waits until a metric has such a value."""

        def look() -> bool:
            value = self.value(name, **labels)
            return value is not None and holds(value)

        eventually(look, f"{name} {labels}")

    # What is taken away

    @contextmanager
    def without_database(self) -> Iterator[None]:
        self.database.lead(free_port())
        try:
            yield
        finally:
            self.database.lead(self.database_port)

    @contextmanager
    def watching(self, gateway: Gateway) -> Iterator[None]:
        """Prometheus scrapes it, too."""
        self.watched.append(gateway)
        try:
            yield
        finally:
            self.watched.remove(gateway)

    @contextmanager
    def gateway(self, name: str, changes: Mapping[str, Any]) -> Iterator[Gateway]:
        """One more."""
        port, management = free_port(), free_port()
        config = self.directory / f"{name}.yaml"
        config.write_text(json.dumps(merged(self.settings, dict(changes))))
        options = ("--config", str(config), "--port", str(port), "--management-port", str(management))
        metrics, url = f"http://127.0.0.1:{management}/metrics", f"http://127.0.0.1:{port}"
        with _process(self.directory / f"{name}.log", "gateway", *options) as process:
            eventually(lambda: _answers(f"{url}/-/ready") and _answers(metrics), f"{name} is ready")
            yield Gateway(url, metrics, process)


def _scraped(url: str, job: str, headers: Mapping[str, str] | None = None) -> dict[Series, float]:
    instance = url.split("/")[2]
    try:
        answer = CLIENT.get(url, headers=headers, timeout=SCRAPE_SECONDS)
    except httpx.TransportError:
        return down(job, instance)
    assert answer.status_code == 200, answer.text
    return read(answer.text, job, instance)


def _answers(url: str) -> bool:
    try:
        return CLIENT.get(url, timeout=SCRAPE_SECONDS).status_code == 200
    except httpx.TransportError:
        return False


@contextmanager
def _process(log: Path, *words: str, env: Mapping[str, str] | None = None) -> Iterator["subprocess.Popen[bytes]"]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "quotagate", *words],
            env={**os.environ, **(env or {})},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.wait(WAIT_SECONDS)


@contextmanager
def installed(directory: Path, dsn: str, application_dsn: str, upstream: str) -> Iterator[Installation]:
    with ExitStack() as stack:
        store = Store(directory / "valkey")
        store.directory.mkdir()
        stack.callback(store.end)
        store.start()
        database_port = int(dsn.rpartition(":")[2].partition("/")[0])
        database = Address(database_port)
        stack.callback(database.close)
        control_port, stripe_port = free_port(), free_port()
        control_url, stripe_url = f"http://127.0.0.1:{control_port}", stripe_backend.url(stripe_port)
        double = stack.enter_context(
            stopping(
                stripe_backend.start(
                    stripe_port,
                    directory / "stripe.json",
                    control_url,
                    WEBHOOK_SECRET,
                    log=directory / "stripe.log",
                )
            )
        )
        stripe_backend.wait_ready(double, stripe_port)
        collector = stack.enter_context(collecting())
        telemetry = {"endpoint": collector.url, "ratio": 1.0}
        catalogue.apply(dsn, None, demo.PLANS)
        plans.apply_catalogue(dsn, STRIPE_KEY, stripe_url, dry_run=False)
        config = directory / "control.yaml"
        behind = application_dsn.replace(f":{database_port}/", f":{database.port}/")
        of_control = _control_settings(behind, store.url, stripe_url, control_url)
        config.write_text(json.dumps(of_control | {"telemetry": telemetry}))
        words = ("control", "--config", str(config), "--port", str(control_port))
        control = stack.enter_context(_process(directory / "control.log", *words))
        eventually(lambda: control.poll() is None and _answers(f"{control_url}/-/ready"), "the control plane is ready")
        yield Installation(
            directory,
            store,
            database,
            database_port,
            dsn,
            stripe_url,
            control_url,
            _gateway_settings(store.url, upstream, control_url) | {"telemetry": telemetry},
            control,
            collector,
        )


def _control_settings(dsn: str, redis: str, stripe_url: str, control_url: str) -> dict[str, Any]:
    return {
        "postgres": {"dsn": dsn},
        "redis": {"url": redis},
        "admin_token": ADMIN_TOKEN,
        "auth": _auth(),
        "issuing": {"master_key": MASTER_KEY, "issuer": control_url, "jwks_max_age_seconds": 30},
        "reconcile": {"every_seconds": 1},
        "stripe": {"secret_key": STRIPE_KEY, "webhook_secret": WEBHOOK_SECRET, "api_url": stripe_url},
        # Nobody is there.
        "notifications": {"url": f"http://127.0.0.1:{free_port()}/", "secret": NOTIFICATIONS_SECRET},
    }


def _auth() -> dict[str, Any]:
    return {
        "algorithms": ["HS256"],
        "secret": JWT_SECRET,
        "issuer": token_mint.ISSUER,
        "audience": token_mint.AUDIENCE,
    }


def _gateway_settings(redis: str, upstream: str, control_url: str) -> dict[str, Any]:
    own = {
        "algorithms": ["EdDSA"],
        "issuer": control_url,
        "jwks": f"{control_url}/.well-known/jwks.json",
        "jwks_refresh_seconds": 30,
        "audience": "quotagate",
    }
    return {
        "redis": {"url": redis, "timeout_ms": 10_000, "budget_ms": 1_000},  # a slow machine is no slow Redis
        "auth": {"issuers": [_auth(), own]},
        "upstreams": {"sample": {"url": upstream}, "gone": {"url": f"http://127.0.0.1:{free_port()}"}},
        "routes": [{"path": "/", "upstream": "sample"}, {"path": "/gone", "upstream": "gone"}],
        "standby": False,
    }
