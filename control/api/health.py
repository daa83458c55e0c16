"""`/-/health`: the process runs. `/-/ready`: it can do its work; if not, `faults` names what it lacks.

These two are open to everyone who reaches the port, so reasons are only in the log.
"""

import asyncio

from fastapi import APIRouter
from starlette.responses import JSONResponse, PlainTextResponse

from common.exposition import exposition
from control.http.context import Ctx
from control.http.guards import Scraper
from control.metrics import reading
from control.metrics.reading import answer_of

router = APIRouter(prefix="/-", tags=["health"])


@router.get("/health")
async def health(ctx: Ctx) -> JSONResponse:
    """Answers 200 while the process runs."""
    return JSONResponse({"status": "ok", "services": ctx.background.summary(), "writer": ctx.writer.shares()})


@router.get(
    "/ready",
    responses={
        503: {"description": "The service is not ready; `faults` says why", "content": {"application/json": {}}}
    },
)
async def ready(ctx: Ctx) -> JSONResponse:
    """200 when both stores answer, Redis has the shard count of the settings, and the background services run.

    `lag_seconds` is the age of the oldest usage event that is not in Postgres, whichever process writes it.
    `events_in_redis` includes events that are written already: they stay for a while. `writer` says how many shards
    this process writes, and how many processes share all shards. `journal_unsealed` is the number of entries of the
    audit journal that are not sealed yet."""
    answers = await asyncio.gather(
        answer_of("postgres", ctx.db.ping()),
        answer_of("redis", ctx.ledger.check_layout()),
        answer_of("redis", ctx.writer.lag_seconds()),
        answer_of("redis", ctx.streams.held()),
        answer_of("postgres", ctx.sealer.waiting()),
    )
    services = ctx.background.summary()
    faults = {each.store for each in answers if not each.up}
    faults |= {name for name, state in services.items() if not state["alive"]}
    body = {
        "status": "unready" if faults else "ready",
        "faults": sorted(faults),
        "services": services,
        "writer": ctx.writer.shares(),
        "lag_seconds": answers[2].content,
        "events_in_redis": answers[3].content,
        "journal_unsealed": answers[4].content and answers[4].content[0],
    }
    return JSONResponse(body, 503 if faults else 200)


@router.get("/metrics", dependencies=[Scraper], response_class=PlainTextResponse)
async def metrics(ctx: Ctx) -> PlainTextResponse:
    """Returns metrics as Prometheus text; docs/metrics.md lists them."""
    return PlainTextResponse(exposition(await reading.read(ctx)), media_type="text/plain; version=0.0.4")
