"""`/-/health`: the process runs. `/-/ready`: it can do its work; if not, `faults` names what it lacks.

These two are open to everyone who reaches the port, so reasons are only in the log.
"""

import asyncio
from typing import Literal

from fastapi import APIRouter
from starlette.responses import JSONResponse, PlainTextResponse

from common.exposition import exposition
from control.documents import View
from control.http.context import Ctx
from control.http.guards import Scraper
from control.http.refusals import DOCUMENTED
from control.metrics import reading
from control.metrics.reading import answer_of

router = APIRouter(prefix="/-", tags=["health"])


class ServiceView(View):
    alive: bool
    restarts: int


class WriterView(View):
    shards: int
    """Those that this process writes."""
    writers: int
    """Processes that share all shards."""


class HealthView(View):
    status: Literal["ok"]
    services: dict[str, ServiceView]
    """The background services, and how they do."""
    writer: WriterView


class ReadinessView(View):
    status: Literal["ready", "unready"]
    faults: list[str]
    """What it lacks."""
    services: dict[str, ServiceView]
    writer: WriterView
    lag_seconds: float | None
    """The age of the oldest usage event that is not in Postgres; null: it is not known."""
    events_in_redis: int | None
    journal_unsealed: int | None
    """Entries of the audit journal that are not sealed yet."""


@router.get("/health", responses={**DOCUMENTED, 200: {"model": HealthView}})
async def get_health(ctx: Ctx) -> JSONResponse:
    """Answers 200 while the process runs."""
    return JSONResponse({"status": "ok", "services": ctx.background.summary(), "writer": ctx.writer.shares()})


@router.get(
    "/ready",
    responses={
        **DOCUMENTED,
        200: {"model": ReadinessView},
        503: {"model": ReadinessView, "description": "The service is not ready; `faults` says why"},
    },
)
async def get_readiness(ctx: Ctx) -> JSONResponse:
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


@router.get("/metrics", dependencies=[Scraper], response_class=PlainTextResponse, responses=DOCUMENTED)
async def get_metrics(ctx: Ctx) -> PlainTextResponse:
    """Returns metrics as Prometheus text; docs/metrics.md lists them."""
    return PlainTextResponse(exposition(await reading.read(ctx)), media_type="text/plain; version=0.0.4")
