"""The control plane on real stores, with a clock that the test moves. Background services run where a test asks."""

import time
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Protocol
from uuid import uuid4

import pytest
import structlog
from httpx import ASGITransport, AsyncClient
from redis.asyncio import Redis

from control.app import build, opened
from control.entitlements.catalogue import apply_plans, read
from control.entitlements.plans import PlanTerms
from control.http.context import Context
from control.journal import Author
from control.settings.control_plane import Settings
from devstack import demo, token_mint

ADMIN_TOKEN = "admin-token-of-the-tests"
JWT_SECRET = "secret-of-the-tests-with-32-bytes-and-more"


class Entitled(Protocol):
    async def __call__(self, plan: str = "starter", **content: object) -> str: ...


class TokenOf(Protocol):
    def __call__(
        self, org: str, *, now: float | None = None, ttl: timedelta = timedelta(hours=1), **claims: str
    ) -> str: ...


class MovedClock:
    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now

    def move(self, **by: float) -> None:
        self.now += timedelta(**by).total_seconds()


@pytest.fixture(autouse=True)
def plain_logs() -> None:
    """By default structlog draws tracebacks with all variables, which takes seconds."""
    structlog.configure(
        processors=[structlog.processors.format_exc_info, structlog.processors.KeyValueRenderer()],
        logger_factory=structlog.PrintLoggerFactory(),
    )


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


@pytest.fixture
def settings(redis_url: str, application_dsn: str) -> Iterator[Settings]:
    """The control plane has the rights that it has in production; a test that needs more asks for `postgres_dsn`."""
    made = Settings.model_validate(
        {
            "postgres": {"dsn": application_dsn, "connections_max": 6},  # each costs a process of PostgreSQL
            "redis": {"url": redis_url, "timeout_seconds": 60},  # a slow machine is no slow Redis
            "admin_token": ADMIN_TOKEN,
            "expose": {"docs": True, "metrics": True},
            "auth": {
                "algorithms": ["HS256"],
                "secret": JWT_SECRET,
                "issuer": token_mint.ISSUER,
                "audience": token_mint.AUDIENCE,
                "org_claim": token_mint.ORG_CLAIM,
            },
        }
    )
    with pytest.MonkeyPatch.context() as patch:
        # A hundred calls share few connections: on a slow machine, waiting for one is no outage.
        patch.setattr("control.db.ACQUIRE_SECONDS", 60.0)
        yield made


@pytest.fixture
async def context(settings: Settings, clock: MovedClock) -> AsyncIterator[Context]:
    async with opened(settings, clock) as opened_context:
        yield opened_context


@pytest.fixture
async def new_streams(context: Context) -> None:
    """The streams are new for each test, so watermarks of the test before would lie."""
    async with context.db.connection() as connection:
        await connection.execute("DELETE FROM usage_watermark")


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
async def nobody(context: Context) -> AsyncIterator[AsyncClient]:
    """A client without a token."""
    transport = ASGITransport(build(context), raise_app_exceptions=False)
    async with AsyncClient(transport=transport, base_url="http://control") as client:
        yield client


def admin_of(context: Context) -> AsyncClient:
    transport = ASGITransport(build(context), raise_app_exceptions=False)
    headers = {"authorization": f"Bearer {ADMIN_TOKEN}"}
    return AsyncClient(transport=transport, base_url="http://control", headers=headers)


@pytest.fixture
async def admin(context: Context) -> AsyncIterator[AsyncClient]:
    async with admin_of(context) as client:
        yield client


@pytest.fixture
def token_of() -> TokenOf:
    """Mints an organization's token."""

    def mint(org: str, *, now: float | None = None, ttl: timedelta = timedelta(hours=1), **claims: str) -> str:
        return token_mint.mint(org, JWT_SECRET, now=time.time() if now is None else now, ttl=ttl, **claims)

    return mint


@pytest.fixture
async def entitled(admin: AsyncClient, catalogue: None) -> Entitled:
    """Makes an organization with a plan; its id."""

    async def make(plan: str = "starter", **content: object) -> str:
        org = f"org-{uuid4().hex[:12]}"
        assert (await admin.put(f"/v1/organizations/{org}", json={"name": org})).status_code == 201
        response = await admin.put(f"/v1/entitlements/{org}", json={"plan": plan, **content})
        assert response.status_code == 200, response.text
        return org

    return make


def packaged_plans() -> dict[str, PlanTerms]:
    """The packaged plans, those of the demo, and one that has every other meter of the tests."""
    meters = {meter: {"allowance": 1000} for meter in ("free", "images", "tokens")}
    many = {"name": "Many", "policy": "HARD_STOP", "currency": "usd", "demo": True, "meters": meters}
    return read(None, demo.PLANS) | {"many": PlanTerms.model_validate(many)}


@pytest.fixture
async def catalogue(context: Context) -> None:
    """What `packaged_plans` says."""
    await apply_plans(context.db, packaged_plans(), context.clock(), Author("tests", "tests"))
