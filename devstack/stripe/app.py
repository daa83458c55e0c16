"""The double's HTTP face: Stripe's API, its pages, and what only a double can do; and its clock, which ticks."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.routing import Mount, Route

from devstack.stripe import pages
from devstack.stripe.account import Account
from devstack.stripe.api import Api
from devstack.stripe.controls import Controls
from devstack.stripe.delivery import Deliveries, add_endpoint

log = logging.getLogger(__name__)

TICK_SECONDS = 0.2
SAVE_EVERY_SECONDS, SAVE_SHARE = 1.0, 0.05


def build(account: Account, file: Path | None = None, endpoint: tuple[str, str] | None = None) -> Starlette:
    """`file`: where the account is saved from one run to the next. `endpoint`: URL and secret of a webhook endpoint
    that exists from the beginning."""
    api = Api(account)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        deliveries = Deliveries(account)
        app.state.deliveries = deliveries
        controls.sending = deliveries
        if file is not None:
            account.load(file)
        if endpoint is not None:
            _have_endpoint(account, *endpoint)
        deliveries.resume()
        ticking = asyncio.create_task(_tick(account, file))
        try:
            yield
        finally:
            ticking.cancel()
            await asyncio.gather(ticking, return_exceptions=True)
            await deliveries.close()
            if file is not None:
                account.save(file)

    controls = Controls(api)
    app = Starlette(
        routes=[
            Route("/v1/{path:path}", api.call, methods=["GET", "POST", "DELETE"]),
            Mount("/_double", routes=controls.routes),
            *pages.routes(account),
        ],
        lifespan=lifespan,
    )
    app.state.account = account
    app.state.api = api
    return app


async def _tick(account: Account, file: Path | None) -> None:
    save_at = 0.0
    while True:
        await asyncio.sleep(TICK_SECONDS)
        try:
            account.run_due()
        except Exception:
            log.exception("what was due could not be done")  # the rest is done with the next tick
        started = time.monotonic()
        if file is not None and account.changed and started >= save_at:
            account.save(file)
            ended = time.monotonic()
            # A long history takes long to save, so it is saved less often.
            save_at = ended + max(SAVE_EVERY_SECONDS, (ended - started) / SAVE_SHARE)


def _have_endpoint(account: Account, url: str, secret: str) -> None:
    for endpoint in list(account.find("webhook_endpoint")):
        note = account.note(endpoint["id"])
        if note.get("own"):
            # It stays the same endpoint, so that events that it has not been sent yet are not lost.
            endpoint["url"], note["secret"] = url, secret
            return
    endpoint = add_endpoint(account, url, ["*"], secret)
    account.note(endpoint["id"])["own"] = True
