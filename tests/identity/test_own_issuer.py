"""The control plane as an issuer, and the gateway that verifies its tokens, while keys are replaced under load."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

import jwt
import pytest
import uvicorn
from httpx import AsyncClient

from control.access.issuing.issuer import Issuer
from control.access.issuing.key_life import MARGIN_SECONDS, overlap_seconds
from control.app import build, opened
from control.http.context import Context
from control.settings.control_plane import Settings
from devstack.ports import free_port
from tests.control.access.issuing.rig import issuing, rotation_of
from tests.control.plane import ADMIN_TOKEN, MovedClock
from tests.gateway.rig import Gateway, MakeOrganization, StartGateway, Until

TOKEN_SECONDS, MAX_AGE_SECONDS = 60, 1
CLIENTS, REQUESTS_A_SECOND = 20, 200


@asynccontextmanager
async def served(context: Context, port: int) -> AsyncIterator[None]:
    config = uvicorn.Config(build(context), host="127.0.0.1", port=port, lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110  uvicorn has no event for it
        await asyncio.sleep(0.01)
    yield
    server.should_exit = True
    await serving


class Load:
    """Clients that send tokens which the control plane mints for each request, and every tenth time an older one."""

    def __init__(self, issuer: Issuer, gateway: Gateway) -> None:
        self._issuer = issuer
        self._gateway = gateway
        self.older: str | None = None
        self.statuses: Counter[int] = Counter()
        self.signed_by: Counter[str] = Counter()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            clients = [group.create_task(self._client()) for _ in range(CLIENTS)]
            yield
            for client in clients:
                client.cancel()

    async def _client(self) -> None:
        connection = await self._gateway.connect()
        due = time.monotonic()
        for number in count():
            fresh = (await self._issuer.mint("acme")).token
            token = self.older if self.older is not None and number % 10 == 0 else fresh
            answer = await connection.ask(
                b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %b\r\n\r\n" % token.encode()
            )
            self.statuses[answer.status] += 1
            self.signed_by[jwt.get_unverified_header(token)["kid"]] += 1
            due += CLIENTS / REQUESTS_A_SECOND
            await asyncio.sleep(max(0.0, due - time.monotonic()))


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


@pytest.fixture
async def plane(redis_url: str, application_dsn: str, clock: MovedClock, port: int) -> AsyncIterator[Context]:
    settings = Settings.model_validate(
        {
            "postgres": {"dsn": application_dsn},
            "redis": {"url": redis_url, "timeout_seconds": 60},
            "admin_token": ADMIN_TOKEN,
            "issuing": issuing(
                issuer=f"http://127.0.0.1:{port}",
                token_seconds=TOKEN_SECONDS,
                jwks_max_age_seconds=MAX_AGE_SECONDS,
            ),
        }
    )
    async with opened(settings, clock) as context, served(context, port):
        yield context


async def test_while_keys_are_replaced_no_request_of_200_a_second_is_refused(
    plane: Context, clock: MovedClock, port: int, start: StartGateway, organization: MakeOrganization, until: Until
) -> None:
    name, issuer = f"http://127.0.0.1:{port}", plane.issuer
    assert issuer is not None
    await organization("acme", 10_000_000)
    trusted = {"issuer": name, "discovery": True, "algorithms": ["EdDSA"], "audience": "quotagate"}
    # The control plane's clock is moved, and the gateway's is not: tokens come from its future.
    trusted |= {"jwks_refresh_seconds": 1, "leeway_seconds": 300}
    gateway = await start(
        auth={"issuer": None, "algorithms": None, "secret": None, "audience": None, "issuers": [trusted]}
    )
    known, load = gateway.worker.issuers.key_sets[name], Load(issuer, gateway)
    admin = AsyncClient(base_url=name, headers={"authorization": f"Bearer {ADMIN_TOKEN}"})
    async with admin, load.running():
        await until(lambda: load.statuses.total() >= 400)
        [old] = load.signed_by
        new = (await admin.post("/v1/signing-keys")).json()["id"]
        await until(lambda: known.find(new))
        assert set(load.signed_by) == {old}, "it is known before it signs"
        load.older = (await issuer.mint("acme")).token
        clock.move(seconds=overlap_seconds(MAX_AGE_SECONDS) + 1)
        await until(lambda: load.signed_by[new] >= 400)
        load.older = None
        clock.move(seconds=TOKEN_SECONDS + MARGIN_SECONDS + 1)
        await rotation_of(plane).round()
        await until(lambda: not known.find(old))
        after = load.signed_by[new]
        await until(lambda: load.signed_by[new] >= after + 400)
    assert load.signed_by[old] > 400
    assert load.statuses == Counter({200: load.statuses.total()}), "refused: 0"
    assert load.statuses.total() >= 1200
