"""`/-/health`: the process runs. `/-/ready`: it can do its work, and if not, what keeps it from it.

Open to everyone who reaches the port, so no reason is told here: it is in the log.
"""

import asyncio
from collections.abc import Awaitable
from typing import Any

import structlog
from fastapi import APIRouter
from starlette.responses import JSONResponse

from control.context import Ctx
from control.db import StoreUnavailable
from quota.ledger import LedgerError

log = structlog.get_logger()
router = APIRouter(prefix="/-", tags=["health"])

TIMEOUT_SECONDS = 2.0


@router.get("/health")
async def health(ctx: Ctx) -> JSONResponse:
    """The process answers."""
    return JSONResponse({"status": "ok", "services": ctx.background.summary()})


@router.get("/ready")
async def ready(ctx: Ctx) -> JSONResponse:
    """200 when both stores answer, Redis has the shard count of the settings, and the background services run.

    `lag_seconds` is the age of the oldest usage event that is not in Postgres; `events_in_redis` counts the written
    ones, too, which stay for a while."""
    answers = await asyncio.gather(
        _asked("postgres", ctx.db.ping()),
        _asked("redis", ctx.ledger.check_layout()),
        _asked("redis", ctx.writer.lag_seconds()),
        _asked("redis", ctx.streams.held()),
    )
    services = ctx.background.summary()
    faults = {fault for fault, _ in answers if fault} | {name for name, state in services.items() if not state["alive"]}
    body = {
        "status": "unready" if faults else "ready",
        "faults": sorted(faults),
        "services": services,
        "lag_seconds": answers[2][1],
        "events_in_redis": answers[3][1],
    }
    return JSONResponse(body, 503 if faults else 200)


async def _asked(store: str, question: Awaitable[Any]) -> tuple[str | None, Any]:
    """The store's name if it does not answer well, and the answer if it does."""
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            return None, await question
    except (StoreUnavailable, LedgerError, TimeoutError) as e:
        log.warning("not ready", store=store, reason=str(e) or "no answer in time")
        return store, None
