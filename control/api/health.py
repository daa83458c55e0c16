"""`/-/health`: the process runs. `/-/ready`: it can do its work; if not, `faults` names what it lacks.

These two are open to everyone who reaches the port, so reasons are only in the log.
"""

import asyncio
from collections.abc import Awaitable
from typing import Any, Literal

import structlog
from fastapi import APIRouter
from starlette.responses import JSONResponse, PlainTextResponse

from common.exposition import exposition, metric
from control.billing.parts import Billing
from control.db import StoreUnavailable
from control.http.context import Ctx
from control.http.guards import Scraper
from quota.ledger import LedgerError

log = structlog.get_logger()
router = APIRouter(prefix="/-", tags=["health"])

TIMEOUT_SECONDS = 2.0

Figure = tuple[str, Literal["counter", "gauge"], str, float | None]
"""Name, kind, what it is, value; None: nobody knows."""


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
        _answer_of("postgres", ctx.db.ping()),
        _answer_of("redis", ctx.ledger.check_layout()),
        _answer_of("redis", ctx.writer.lag_seconds()),
        _answer_of("redis", ctx.streams.held()),
        _answer_of("postgres", ctx.sealer.waiting()),
    )
    services = ctx.background.summary()
    faults = {fault for fault, _ in answers if fault} | {name for name, state in services.items() if not state["alive"]}
    body = {
        "status": "unready" if faults else "ready",
        "faults": sorted(faults),
        "services": services,
        "writer": ctx.writer.shares(),
        "lag_seconds": answers[2][1],
        "events_in_redis": answers[3][1],
        "journal_unsealed": answers[4][1] and answers[4][1][0],
    }
    return JSONResponse(body, 503 if faults else 200)


@router.get("/metrics", dependencies=[Scraper], response_class=PlainTextResponse)
async def metrics(ctx: Ctx) -> PlainTextResponse:
    """Returns metrics as Prometheus text: the writer's lag, drift and its repair, the journal's seals, Stripe's events,
    and the background services."""
    lag = (await _answer_of("redis", ctx.writer.lag_seconds()))[1]
    entries, seconds = (await _answer_of("postgres", ctx.sealer.waiting()))[1] or (None, None)
    head = (await _answer_of("postgres", ctx.sealer.head()))[1]
    reconciled, shares = ctx.reconciler.totals, ctx.writer.shares()
    figures: list[Figure] = [
        ("lag_seconds", "gauge", "Age of the oldest usage event that is not in Postgres.", lag),
        ("writer_shards", "gauge", "Shards that this process writes.", shares["shards"]),
        ("writers", "gauge", "Processes that share the shards, by this one's last look.", shares["writers"]),
        ("reconcile_rounds_total", "counter", "Looks at all organizations.", reconciled.rounds),
        ("reconcile_ended_seconds", "gauge", "When the last of them ended, seconds since 1970.", reconciled.ended_at),
        ("reconcile_behind", "gauge", "Organizations left out by it, the writer being behind.", reconciled.last.behind),
        ("drift_organizations", "gauge", "Organizations that it found drifted.", reconciled.last.drifted),
        ("drift_units_above", "gauge", "Units that Redis counted and no event says.", reconciled.last.units_above),
        ("drift_units_below", "gauge", "Units that events say and Redis did not count.", reconciled.last.units_below),
        ("drift_ratio_max", "gauge", "The largest drift of a counter, of its events.", reconciled.last.worst_ratio),
        ("drift_repaired_total", "counter", "Organizations that were repaired.", reconciled.repaired),
        ("journal_unsealed_entries", "gauge", "Entries of the audit journal that wait for their seal.", entries),
        ("journal_unsealed_seconds", "gauge", "How long the oldest of them has waited.", seconds),
        ("journal_head_seq", "gauge", "The last seal; it never goes back.", head and head.seq),
    ]
    figures += [
        ("ledger_epoch", "gauge", "How often a Redis was vouched for, as far as is known here.", ctx.recovery.epoch),
        (
            "units_lost_total",
            "counter",
            "Units that Redis lost and nobody had written or remembers, at most.",
            ctx.recovery.units_lost,
        ),
    ]
    if ctx.billing is not None:
        figures += await _billing_figures(ctx.billing)
    shown = [
        metric(f"quotagate_control_{name}", kind, about, [({}, value)])
        for name, kind, about, value in figures
        if value is not None
    ]
    if ctx.clocks.skews:
        skews = [({"clock": key.partition(" ")[0]}, round(ahead, 6)) for key, ahead in ctx.clocks.skews.items()]
        about = "How far a clock is ahead of Redis'."
        shown.append(metric("quotagate_control_clock_skew_seconds", "gauge", about, skews))
    alive = [({"service": name}, int(state["alive"])) for name, state in ctx.background.summary().items()]
    about = "Whether a background service runs."
    shown.append(metric("quotagate_control_service_alive", "gauge", about, alive))
    return PlainTextResponse(exposition(shown), media_type="text/plain; version=0.0.4")


async def _billing_figures(billing: Billing) -> list[Figure]:
    events = (await _answer_of("postgres", billing.inbox.backlog()))[1]
    unsent = (await _answer_of("postgres", billing.overage.unsent_units()))[1]
    return [
        ("stripe_events_waiting", "gauge", "Events of Stripe that are not dealt with.", events and events.waiting),
        ("stripe_events_oldest_seconds", "gauge", "Age of the oldest of them.", events and events.oldest_seconds),
        ("stripe_events_dead", "gauge", "Events of Stripe that were given up.", events and events.dead),
        ("overage_unsent_units", "gauge", "Overage that is frozen, and not at Stripe yet.", unsent),
    ]


async def _answer_of(store: str, question: Awaitable[Any]) -> tuple[str | None, Any]:
    """The store's name if it does not answer well, and the answer if it does."""
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            return None, await question
    except (StoreUnavailable, LedgerError, TimeoutError) as e:
        log.warning("not ready", store=store, reason=str(e) or "no answer in time")
        return store, None
