"""Where each metric is read, for one scrape. What a store that is away would say is left out."""

import asyncio
from collections.abc import Awaitable, Iterable, Iterator
from typing import Any, Final, NamedTuple

import structlog
from prometheus_client.core import Metric
from redis.exceptions import RedisError

from common.certificate_dates import ends_of
from common.exposition import Family
from common.otlp.counts import dropped
from common.redis_cluster.client import ClusterClient
from control.attention import tiles
from control.attention.kinds import KINDS
from control.attention.tiles import Tiles
from control.billing.parts import Billing
from control.db import StoreUnavailable
from control.http.context import Context
from control.metrics import families as f
from control.metrics.redis_server import metrics_of
from control.regions.service import RegionService
from quota.ledger import Ledger, LedgerError, LedgerUnavailable

log = structlog.get_logger()

TIMEOUT_SECONDS: Final = 2.0


class Answer(NamedTuple):
    store: str
    up: bool
    content: Any
    """None where the store does not answer."""


async def answer_of(store: str, question: Awaitable[Any]) -> Answer:
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            return Answer(store, True, await question)
    except (StoreUnavailable, LedgerError, TimeoutError) as e:
        log.warning("not ready", store=store, reason=str(e) or "no answer in time")
        return Answer(store, False, None)


async def read(ctx: Context) -> list[Metric]:
    """All metrics of this control plane."""
    lag, info, unsealed, head, looked = answers = await asyncio.gather(
        answer_of("redis", ctx.writer.lag_seconds()),
        answer_of("redis", _info(ctx.ledger)),
        answer_of("postgres", ctx.sealer.waiting()),
        answer_of("postgres", ctx.sealer.head()),
        answer_of("postgres", tiles.read(ctx.db)),
    )
    found = list(_of_this_process(ctx))
    if lag.content is not None:
        found.append(f.LAG.one(lag.content))
    if info.content is not None:
        found += metrics_of(*info.content)
    if unsealed.content is not None:
        entries, seconds = unsealed.content
        found += [f.UNSEALED.one(entries), f.UNSEALED_SECONDS.one(seconds)]
    if head.content is not None:
        found.append(f.JOURNAL_HEAD.one(head.content.seq))
    if looked.content is not None:
        found += _messages(looked.content)
    if ctx.billing is not None:
        found += await _of_billing(ctx.billing)
    found += await _of_signing_keys(ctx)
    found.append(_stores(answers))
    return found


def _stores(answers: Iterable[Answer]) -> Metric:
    """A store is up where each question was answered."""
    up: dict[tuple[str, ...], float] = {}
    for answer in answers:
        up[answer.store,] = min(up.get((answer.store,), 1.0), float(answer.up))
    return f.STORE_UP.of(up)


def _of_this_process(ctx: Context) -> Iterator[Metric]:
    reconciled, shares = ctx.reconciler.totals, ctx.writer.shares()
    values: list[tuple[Family, float]] = [
        (f.WRITER_SHARDS, shares["shards"]),
        (f.WRITERS, shares["writers"]),
        (f.RECONCILE_ROUNDS, reconciled.rounds),
        (f.RECONCILE_ENDED, reconciled.ended_at),
        (f.RECONCILE_BEHIND, reconciled.last.behind),
        (f.DRIFTED, reconciled.last.drifted),
        (f.DRIFT_ABOVE, reconciled.last.units_above),
        (f.DRIFT_BELOW, reconciled.last.units_below),
        (f.DRIFT_RATIO, reconciled.last.worst_ratio),
        (f.DRIFT_REPAIRED, reconciled.repaired),
        (f.EPOCH, ctx.recovery.epoch),
        (f.UNITS_LOST, ctx.recovery.units_lost),
    ]
    for family, value in values:
        yield family.one(value)
    yield f.CERTIFICATES.of({(str(file),): ends_of(file, until) for file, until in ctx.certificates})
    yield f.ENFORCEMENT.durations({(): ctx.publisher.enforcement})
    yield f.REQUESTS.durations({(group.value,): each for group, each in ctx.requests.durations.items()})
    answers = {(group.value, f"{digit}xx"): count for (group, digit), count in ctx.requests.answers.items()}
    yield f.RESPONSES.of(answers)
    yield f.TELEMETRY_DROPPED.of({(signal,): count for signal, count in dropped().items()})
    if ctx.archiver.held is not None:
        held = ctx.archiver.held
        yield f.USAGE_DAYS.one(held.days)
        yield f.USAGE_DAYS_OVERDUE.one(held.overdue)
        yield f.USAGE_BYTES.one(held.bytes)
    if ctx.reading.exists:
        if ctx.reading.lag_seconds is not None:
            yield f.REPLICA_LAG.one(ctx.reading.lag_seconds)
        yield f.REPLICA_NEAR.one(ctx.reading.is_near)
        yield f.REPLICA_READS.of({(store,): count for store, count in ctx.reading.reads.items()})
    if ctx.regional is not None:
        yield from _of_region(ctx.regional)
    skews = ctx.clocks.skews.items()
    # Of this host the name would be another one in each container.
    yield f.CLOCK_SKEW.of({(key.partition(" plane on ")[0],): round(ahead, 6) for key, ahead in skews})
    states = ctx.background.states.items()
    yield f.SERVICE_ALIVE.of({(name,): state.alive for name, state in states})
    yield f.SERVICE_RESTARTS.of({(name,): state.restarts for name, state in states})


def _of_region(region: RegionService) -> Iterator[Metric]:
    totals = region.agent.totals
    yield f.REGION_ORGANIZATIONS.one(len(region))
    yield f.REGION_BEHIND.one(region.behind)
    yield f.REGION_LOOKS.one(totals.looks)
    yield f.REGION_LEASES.one(totals.leased)
    yield f.REGION_RETURNS.one(totals.lowered)
    yield f.REGION_SHORT.one(totals.short)
    yield f.REGION_SET_BACK.one(totals.set_back)
    yield f.REGION_ASKED.durations({(): region.asked})


def _messages(looked: Tiles) -> Iterator[Metric]:
    figures = {figure.name: figure for tile in looked.tiles.values() for figure in tile.figures}
    yield f.INCIDENTS.of({(kind,): figures[kind].number if kind in figures else 0 for kind in KINDS})
    # Those of Stripe's events have metrics of their own.
    queues = [name for names in tiles.QUEUES.values() for name in names if not name.startswith("stripe_")]
    yield f.MESSAGES.of({(name,): figures[name].number if name in figures else 0 for name in queues})
    oldest = {(name,): figures[name].since for name in queues if name in figures}
    yield f.MESSAGES_OLDEST.of({labels: since.timestamp() for labels, since in oldest.items() if since is not None})


async def _of_billing(billing: Billing) -> list[Metric]:
    events = (await answer_of("postgres", billing.inbox.backlog())).content
    unsent = (await answer_of("postgres", billing.overage.backlog())).content
    found = []
    if events is not None:
        found += [
            f.STRIPE_WAITING.one(events.waiting),
            f.STRIPE_OLDEST.one(events.oldest_seconds),
            f.STRIPE_DEAD.one(events.dead),
        ]
    if unsent is not None:
        found += [f.OVERAGE_UNSENT.one(unsent.units), f.OVERAGE_OLDEST.one(unsent.oldest_seconds)]
    return found


async def _of_signing_keys(ctx: Context) -> list[Metric]:
    if ctx.issuer is None:
        return []
    keys = (await answer_of("postgres", ctx.issuer.keys.read())).content
    unreadable = (await answer_of("postgres", ctx.issuer.unreadable_keys())).content
    newest = max((key.signs_from_s for key in keys or () if key.retired_s is None), default=None)
    found = []
    if newest is not None:
        found.append(f.SIGNING_KEY_DUE.one(newest + ctx.issuer.settings.rotate_days * 86_400))
    if unreadable is not None:
        found.append(f.SIGNING_KEYS_UNREADABLE.one(len(unreadable)))
    return found


async def _info(ledger: Ledger) -> Any:
    redis: Any = ledger.redis
    try:
        servers = await redis.servers() if isinstance(redis, ClusterClient) else [redis]
        return [await server.info() for server in servers]
    except RedisError as e:
        raise LedgerUnavailable(f"INFO: {e}") from e
