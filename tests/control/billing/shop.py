"""A vendor's shop: the control plane with its services, and the Stripe double, both on real sockets."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
import uvicorn
from httpx import AsyncClient, Response

from common.clock import Clock
from common.settings_file import load
from control.app import build, opened
from control.billing import products
from control.billing.subscriptions.inbox import ATTEMPTS_MAX
from control.entitlements.catalogue import apply_plans
from control.entitlements.plans import PlansFile
from control.http.context import Context
from control.journal import Author
from control.settings.control_plane import Settings
from devstack.ports import free_port
from devstack.stripe.account import Account
from devstack.stripe.app import build as build_double
from devstack.stripe.delivery import Deliveries, add_endpoint, signature
from quota import keys
from quota.events import FIELD, Charge, Kind, UsageEvent
from quota.model import Status
from tests.control.plane import ADMIN_TOKEN
from tests.devstack.stripe.shapes import KINDS, faults_of
from tests.expected import format_event

SECRET = "whsec_of_the_shop"
DAY = 86_400
WAIT_SECONDS = 60.0


class MovingClock:
    """Wall time, moved ahead."""

    def __init__(self) -> None:
        self.ahead_seconds = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead_seconds

    def move(self, **by: float) -> None:
        self.ahead_seconds += timedelta(**by).total_seconds()


@dataclass
class Double:
    url: str
    account: Account
    app: Any

    @property
    def deliveries(self) -> Deliveries:
        deliveries: Deliveries = self.app.state.deliveries
        return deliveries


@asynccontextmanager
async def served(app: Any, port: int) -> AsyncIterator[str]:
    config = uvicorn.Config(
        app, host="127.0.0.1", port=port, log_config=None, access_log=False, timeout_keep_alive=75, http="httptools"
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        assert not task.done()
        await asyncio.sleep(0.005)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    await task


@asynccontextmanager
async def opened_double(account: Account) -> AsyncIterator[Double]:
    port = free_port()
    account.settings["url"] = f"http://127.0.0.1:{port}"
    app = build_double(account)
    async with served(app, port) as url:
        yield Double(url, account, app)


@pytest.fixture
async def double() -> AsyncIterator[Double]:
    async with opened_double(Account()) as opened:
        yield opened
    if opened.app.state.api.ignored:
        pytest.fail("\n".join(opened.app.state.api.ignored))
    kept = [each for kind in KINDS for each in opened.account.objects.get(kind, {}).values()]
    objects = [event["data"]["object"] for event in opened.account.objects.get("event", {}).values()]
    if faults := sorted({fault for each in [*kept, *objects] for fault in faults_of(each)}):
        pytest.fail("\n".join(faults))


@pytest.fixture
def settings(settings: Settings, double: Double) -> Settings:
    stripe = {"secret_key": "sk_test_of_the_tests", "webhook_secret": SECRET, "api_url": double.url}
    return Settings.model_validate({**settings.model_dump(), "stripe": stripe})


@dataclass
class Shop:
    """What a vendor, its customers and Stripe do."""

    context: Context
    admin: AsyncClient
    page: AsyncClient
    """A customer's browser."""
    double: Double
    clock: Clock
    """The control plane's."""

    async def order(self, plan: str, **order: Any) -> tuple[str, str]:
        """An organization, by default a new one, and the page where it pays."""
        org = order.pop("org", None) or f"org-{uuid4().hex[:12]}"
        body = {"org": org, "plan": plan, "success_url": "https://vendor.example/thanks", **order}
        response = await self.admin.post("/v1/checkout-sessions", json=body)
        assert response.status_code == 201, response.text
        return org, response.json()["url"]

    async def signed_up(self, plan: str, **order: Any) -> str:
        org, url = await self.order(plan, **order)
        response = await self.page.post(url, data={"action": "pay"})
        assert response.status_code == 303, response.text
        await self.settled()
        return org

    async def entitlement(self, org: str) -> dict[str, Any]:
        response = await self.admin.get(f"/v1/entitlements/{org}")
        if response.status_code == 404:
            return {"status": "none"}
        assert response.status_code == 200, response.text
        entitlement: dict[str, Any] = response.json()
        return entitlement

    async def enforced(self, org: str) -> Status:
        """What the gateways go by."""
        standing = await self.context.ledger.peek(org)
        return Status.NONE if standing is None else standing.status

    async def settled(self) -> None:
        """Stripe has told everything, and all of it is dealt with."""
        assert self.context.billing is not None
        async with asyncio.timeout(WAIT_SECONDS):
            while True:
                await self.double.deliveries.flush()
                backlog = await self.context.billing.inbox.backlog()
                async with self.context.db.connection() as connection:
                    pending = "SELECT count(*) FROM publication WHERE version > published_version"
                    behind = await connection.fetchval(pending)
                if not backlog.waiting and not behind:
                    return
                await asyncio.sleep(0.02)

    async def post(self, path: str, **body: Any) -> Response:
        response = await self.admin.post(path, json=body)
        await self.settled()
        return response

    async def later(self, **by: float) -> None:
        """Stripe's clock moves on; ours does not."""
        seconds = sum({"days": DAY, "hours": 3600, "seconds": 1}[unit] * n for unit, n in by.items())
        self.double.account.advance_to(self.double.account.clock.now() + int(seconds))
        await self.settled()

    async def usage(self, org: str, period_start: int, units: int, overage: int) -> None:
        """An event of a moment that the test's clock has, so that Redis can be no part of it; negative: given back."""
        charge = Charge("api_calls", units, overage)
        kind = Kind.TAKE if units >= 0 else Kind.SETTLE
        text = format_event(UsageEvent(kind, uuid4().hex, org, period_start, (charge,)))
        ledger = self.context.ledger
        stream = keys.events_key(keys.shard_of(org, ledger.shards))
        redis: Any = ledger.redis
        newest = [int(event_id.split(b"-")[0]) for event_id, _ in await redis.xrevrange(stream, count=1)]
        # A machine's clock may go back by some milliseconds, and a stream's moments may not.
        moment_ms = max([int(min(self.clock(), time.time()) * 1000), *newest])
        await redis.xadd(stream, {FIELD: text}, id=f"{moment_ms}-*")

    async def period_over(self, org: str) -> None:
        """Stripe's clock moves to just after the renewal's invoice is final."""
        subscription = await self.subscription(org)
        ends = subscription["items"]["data"][0]["current_period_end"]
        self.double.account.advance_to(ends)
        await self.settled()
        self.double.account.advance_to(ends + 3700)
        await self.settled()

    async def tell(self, event: dict[str, Any]) -> None:
        """Stripe sends an event, once."""
        body = json.dumps(event)
        header = signature(body, SECRET, int(self.clock()))
        async with asyncio.timeout(WAIT_SECONDS):
            while True:
                response = await self.admin.post(
                    "/api/webhooks/stripe", content=body, headers={"stripe-signature": header}
                )
                if response.status_code != 503:  # a machine that is too slow just now is told again, as by Stripe
                    break
                await asyncio.sleep(0.1)
        assert response.status_code == 200, response.text

    async def subscription(self, org: str) -> dict[str, Any]:
        """As Stripe has it."""
        customer = await self.customer(org)
        return next(self.double.account.find("subscription", customer=customer))

    async def customer(self, org: str) -> str:
        async with self.context.db.connection() as connection:
            query = "SELECT id FROM stripe_customer WHERE org = $1 ORDER BY deleted_at IS NOT NULL, linked_at LIMIT 1"
            return str(await connection.fetchval(query, org))

    async def card(self, org: str, behaviour: str) -> None:
        customer = await self.customer(org)
        await self.page.post(f"{self.double.url}/_double/customers/{customer}/card", json={"card": behaviour})
        await self.settled()

    async def journal(self, org: str, action: str | None = None) -> list[dict[str, Any]]:
        """The oldest first."""
        async with self.context.db.connection() as connection:
            rows = await connection.fetch("SELECT * FROM audit_journal WHERE org = $1 ORDER BY id", org)
        return [dict(row) for row in rows if action is None or row["action"] == action]

    async def incidents(self) -> list[str]:
        async with self.context.db.connection() as connection:
            rows = await connection.fetch("SELECT kind FROM incident WHERE closed_at IS NULL ORDER BY kind")
        # Tests move the clock and write events that Redis has no part of, which the control plane rightly tells.
        return [row["kind"] for row in rows if row["kind"] not in ("clock_skew", "drift")]


@pytest.fixture
def shop_clock() -> MovingClock:
    """What the control plane goes by."""
    return MovingClock()


@pytest.fixture
def webhook_attempts_max() -> int:
    """Of an event, before it is given up; a test that waits for that has fewer."""
    return ATTEMPTS_MAX


@pytest.fixture
async def shop(
    settings: Settings, double: Double, shop_clock: Clock, webhook_attempts_max: int, plain_logs: None
) -> AsyncIterator[Shop]:
    async with (
        opened(settings, shop_clock, webhook_attempts_max=webhook_attempts_max) as context,
        AsyncClient(follow_redirects=False, timeout=60) as page,
    ):
        plans = load(None, "plans.yaml", PlansFile).plans
        await apply_plans(context.db, plans, shop_clock(), Author("tests", "tests"))
        assert context.billing is not None
        await products.apply(context.db, context.billing.client, shop_clock(), dry_run=False)
        async with context.db.connection() as connection:
            await connection.execute("UPDATE incident SET closed_at = now() WHERE closed_at IS NULL")
            await connection.execute("DELETE FROM webhook_event")
        async with served(build(context), free_port()) as url:
            add_endpoint(double.account, f"{url}/api/webhooks/stripe", ["*"], SECRET)
            headers = {"authorization": f"Bearer {ADMIN_TOKEN}"}
            async with AsyncClient(base_url=url, headers=headers, timeout=30) as admin:
                yield Shop(context, admin, page, double, shop_clock)
