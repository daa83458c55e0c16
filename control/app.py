"""The control plane's composition root: settings in, a running server out."""

import asyncio
import gc
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import cast

import structlog
import uvicorn
import uvloop
from fastapi import FastAPI
from redis.asyncio import Redis
from starlette.middleware import Middleware

from common import redis_connections
from common.clock import Clock, system_clock
from common.listening import address_of, bound
from common.networks import Networks
from common.otlp.lines import logs_sent
from common.redis_keeping import refuse_losses
from common.settings_file import load
from common.telemetry import log_json, running_as
from control import roles, tracing
from control.access.issuing.store import SigningKeyUnreadable
from control.access.parts import open_access
from control.actions.sums import GivenBound
from control.analytics.check_times import CheckTimesDrain
from control.api import tiles
from control.attention.feed import Feed
from control.attention.upkeep import Upkeep
from control.attention.upstreams import UpstreamWatch
from control.attention.views import watches as redis_watches
from control.audit.sealer import Sealer
from control.background import Background, Service
from control.billing.parts import Billing, open_billing
from control.billing.subscriptions.inbox import ATTEMPTS_MAX
from control.bulk.runner import BulkRunner
from control.db import Database, RightsMissing, StoreUnavailable
from control.decisions.drain import RefusalDrain
from control.decisions.explainer import Explainer
from control.directory.projection import Directory
from control.entitlements import region_names
from control.entitlements.hydrate import Hydrator
from control.entitlements.publish import Publisher
from control.garbage import GarbageCollector
from control.http.connections import Connections
from control.http.context import Context
from control.http.embedding import Embedding
from control.http.envelope import Envelope
from control.http.exception_handlers import handle_exceptions
from control.http.request_times import RequestTimes
from control.http.traced import Traced
from control.ledger.clocks import Clocks, LedgerClock
from control.ledger.streams import Streams
from control.ledger.vouched import vouch
from control.metrics.certificates import certificate_files
from control.metrics.reports import reporting
from control.notifications.notifier import Notifier
from control.openapi import described
from control.reconcile.reconciler import Reconciler
from control.reconcile.recovery import Recovery
from control.reconcile.scan import Scan
from control.regions.parts import RegionService, open_region
from control.replica import Reading
from control.settings.control_plane import Redis as RedisSettings
from control.settings.control_plane import Settings
from control.settings.costs import Costs
from control.usage.archive import Archiver
from control.usage.buckets import Buckets
from control.usage.leases import Leases
from control.usage.limits import LimitWatch
from control.usage.reporter import Reporter
from control.usage.thresholds import Thresholds
from control.usage.writer import Writer
from quota.ledger import Ledger, LedgerError, LedgerUnavailable

log = structlog.get_logger()

STOP_SECONDS = 5
BACKLOG = 128  # all of it is accepted at once: it must not take the descriptors that are left
GC_VALUES = 100_000
REDIS_CONNECTIONS_MAX = 32
EXIT_UNUSABLE = 2  # as for wrong settings: another start would end the same way


def run(config_path: Path | None, host: str | None, port: int | None) -> None:
    """Serves until SIGINT or SIGTERM. `host` and `port` are instead of the settings'.

    Raises SettingsError, for an address that cannot be had, too; exits with 2 and one line where a store is away or
    Redis is another installation's, or a signing key does not open."""
    settings = load(config_path, "control.yaml", Settings)
    log_json("control")
    listener = bound(host or settings.listen.host, settings.listen.port if port is None else port)
    try:
        uvloop.run(_serve(settings, listener))
    except (StoreUnavailable, RightsMissing, LedgerError, SigningKeyUnreadable) as e:
        sys.stderr.write(f"quotagate control: {e}\n")
        raise SystemExit(EXIT_UNUSABLE) from None


async def _serve(settings: Settings, listener: socket.socket) -> None:
    # Many a supervisor sends it for new settings, and a terminal when it closes: neither means an end.
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, _log_hang_up)
    async with opened(settings) as context:
        config = uvicorn.Config(
            build(context),
            http=cast("type[asyncio.Protocol]", Connections(settings.limits, context.trusted).protocol),
            ws="none",
            backlog=BACKLOG,
            proxy_headers=False,  # `forwarded.trusted` says whom to believe; uvicorn would believe this machine
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=STOP_SECONDS,
        )
        # The writer makes hundreds of thousands of values a second, none of them in a cycle: looking through them as
        # often as by default took a quarter of its time. Cycles are freed by the clock instead (control/garbage.py).
        gc.freeze()
        gc.set_threshold(GC_VALUES, 10, 10)
        # uvicorn hands the signal on once it has stopped; by default that would end us before the stores are closed.
        for stop in (signal.SIGINT, signal.SIGTERM):
            signal.signal(stop, lambda *_: None)
        log.info("listening", address=address_of(listener), runs=running_as())
        await _Server(config, context.tiles).serve(sockets=[listener])


class _Server(uvicorn.Server):
    """Streams end when it stops: by themselves they would go on, and uvicorn waits for each answer."""

    def __init__(self, config: uvicorn.Config, feed: Feed) -> None:
        super().__init__(config)
        self._feed = feed

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._feed.stop()
        await super().shutdown(sockets)


def _log_hang_up() -> None:
    log.warning("SIGHUP: the control plane reads its settings at its start only, and goes on with those")


@asynccontextmanager
async def opened(
    settings: Settings,
    clock: Clock | None = None,
    host_clock: Clock | None = None,
    *,
    webhook_attempts_max: int = ATTEMPTS_MAX,
) -> AsyncIterator[Context]:
    """Connections to both stores, and all that works on them. Raises StoreUnavailable, LedgerError.

    `clock`: by what periods begin and end; None: Redis' (control/ledger/clocks.py). `host_clock`: what this machine's
    clock says; None: as `clock`, or the system's. `webhook_attempts_max`: of an event of Stripe's, then it is given
    up."""
    async with AsyncExitStack() as stack:
        stack.enter_context(logs_sent(settings.telemetry, tracing.SERVICE))
        stack.enter_context(tracing.exporting(settings.telemetry))
        stores, ledger_clock = await _connect(stack, settings), LedgerClock()
        scan = Scan(stores.db, stores.ledger, stores.streams, settings.writer.keep_seconds, clock or ledger_clock)
        recovery = await _open_recovery(stores, scan, clock or ledger_clock, ledger_clock)
        context = await _assemble(
            stack,
            stores,
            settings,
            scan,
            recovery,
            clock=clock or ledger_clock,
            host_clock=host_clock or clock or system_clock,
            webhook_attempts_max=webhook_attempts_max,
        )
        context.background.add(BulkRunner(context.actions, context.signin.authors))
        stack.enter_context(reporting(settings.telemetry, context))
        yield context


async def _assemble(
    stack: AsyncExitStack,
    stores: "_Stores",
    settings: Settings,
    scan: Scan,
    recovery: Recovery,
    *,
    clock: Clock,
    host_clock: Clock,
    webhook_attempts_max: int,
) -> Context:
    """The services, and what the endpoints work with."""
    db, ledger, streams = stores.db, stores.ledger, stores.streams
    publisher = _open_publisher(stores, recovery, settings, clock)
    regional = open_region(db, ledger, publisher)
    writing = _open_writer(stack, stores, settings, clock, regional)
    access = await open_access(stack, db, ledger, stores.charges, publisher, settings, clock, host_clock)
    lag, given = writing.writer.lag_seconds, GivenBound(db, settings.approvals, clock)
    billing = await open_billing(stack, settings, db, publisher, lag, clock, webhook_attempts_max, given)
    services: list[Service] = [
        *writing.services,
        *(recovery, Hydrator(stores.blocking, publisher, recovery, regional), publisher),
        reconciler := Reconciler(db, scan, settings.reconcile, clock),
        sealer := Sealer(db, clock),
        archiver := Archiver(db, settings.retention, clock),
        reading := Reading(db, settings.postgres.replica, settings.postgres.timeout_seconds, clock),
        clocks := Clocks(db, ledger, settings.clock_skew_seconds_max, host_clock),
        *chain(access.services, _chosen_services(settings, stores, billing, regional, clock, host_clock)),
    ]
    return Context(
        db=db,
        reading=reading,
        archiver=archiver,
        ledger=ledger,
        streams=streams,
        publisher=publisher,
        writer=writing.writer,
        reporter=Reporter(stores.charges, publisher, regional),
        buckets=Buckets(db, ledger),
        explainer=Explainer(db, ledger, settings.refusals_days, clock),
        background=Background(services),
        recovery=recovery,
        regional=regional,
        reconciler=reconciler,
        scan=scan,
        directory=writing.directory,
        sealer=sealer,
        tiles=Feed(partial(tiles.shown, db)),
        access=access,
        clock=clock,
        host_clock=host_clock,
        clocks=clocks,
        expose=settings.expose,
        trusted=Networks(settings.forwarded.trusted),
        billing=billing,
        approvals=settings.approvals,
        costs=load(settings.costs, "costs.yaml", Costs),
        certificates=list(certificate_files(settings)),
        requests=RequestTimes(),
    )


@dataclass(frozen=True, slots=True)
class _Writing:
    """The writer, and what follows from what it writes."""

    writer: Writer
    thresholds: Thresholds
    directory: Directory

    @property
    def services(self) -> Iterator[Service]:
        yield from (self.writer, self.thresholds, self.directory)


def _open_publisher(stores: "_Stores", recovery: Recovery, settings: Settings, clock: Clock) -> Publisher:
    keep_seconds, leased = settings.writer.keep_seconds, stores.db.region.several
    return Publisher(stores.db, stores.ledger, stores.streams, recovery, keep_seconds, clock, leased=leased)


def _open_writer(
    stack: AsyncExitStack, stores: "_Stores", settings: Settings, clock: Clock, regional: RegionService | None
) -> _Writing:
    db, shards = stores.db, stores.ledger.shards
    thresholds = Thresholds(db, settings.thresholds_percent, shards, settings.notifications is not None, clock)
    directory, leases = Directory(db, clock), Leases(db, shards)
    told = (directory.moves.add, *(() if regional is None else (regional.moved,)))
    writer = Writer(db, stores.streams, settings.writer, clock, thresholds, leases, told)
    stack.push_async_callback(writer.release)
    return _Writing(writer, thresholds, directory)


def _chosen_services(
    settings: Settings,
    stores: "_Stores",
    billing: Billing | None,
    regional: RegionService | None,
    clock: Clock,
    host_clock: Clock,
) -> Iterator[Service]:
    """Those that the settings ask for, and what keeps or forgets as they say."""
    db = stores.db
    yield GarbageCollector()
    yield LimitWatch(db, stores.ledger, clock)
    yield UpstreamWatch(db, stores.ledger.redis, clock)
    yield from redis_watches(db, stores.ledger.redis, settings.redis, clock)
    yield Upkeep(db, settings.incidents_days, settings.notifications_days, clock)
    yield CheckTimesDrain(db, stores.ledger.redis, clock)
    yield RefusalDrain(db, stores.ledger.redis, settings.refusals_days, clock)
    if settings.notifications is not None:
        yield Notifier(db, settings.notifications, clock, host_clock)
    if billing is not None:
        yield from (billing.inbox, billing.overage)
    if regional is not None:
        yield regional


@dataclass(frozen=True, slots=True)
class _Stores:
    db: Database
    ledger: Ledger
    streams: Streams
    blocking: Redis
    """Waits up to a second for an answer."""
    charging: Redis

    @property
    def charges(self) -> Ledger:
        """For usage that is reported."""
        return Ledger(self.charging, self.ledger.shards)


async def _connect(stack: AsyncExitStack, settings: Settings) -> _Stores:
    """Both stores answer, and are this installation's. Raises StoreUnavailable, LedgerError."""
    timeout_seconds, shards, postgres = settings.redis.timeout_seconds, settings.redis.shards, settings.postgres
    redis = await stack.enter_async_context(_redis(settings.redis, timeout_seconds))
    # Blocking reads wait up to a second for an answer, so they have a client and a timeout of their own.
    blocking = await stack.enter_async_context(_redis(settings.redis, timeout_seconds + 1))
    charging = await stack.enter_async_context(_redis(settings.redis, timeout_seconds))
    ledger = Ledger(redis, shards)
    streams = Streams(redis_connections.twin(redis), shards, blocking)
    await ledger.check_layout()
    await refuse_losses(redis, settings.redis.persistence)
    dsn, session_dsn = postgres.dsn.get_secret_value(), postgres.session_way
    database = Database.open(dsn, postgres.connections_max, postgres.timeout_seconds, session_dsn, settings.own_region)
    db = await stack.enter_async_context(database)
    await db.check_schema()
    await db.check_session(postgres.timeout_seconds)
    await region_names.agree(db, settings.regions)
    rights = await roles.rights_of(db)
    if rights.may_change:
        log.warning("the database role is more than the application needs", reason=str(rights))
    return _Stores(db, ledger, streams, blocking, charging)


async def _open_recovery(stores: _Stores, scan: Scan, clock: Clock, ledger_clock: LedgerClock) -> Recovery:
    db, ledger, streams, leased = stores.db, stores.ledger, stores.streams, stores.db.region.several
    recovery = Recovery(db, ledger, streams, scan, clock, ledger_clock, leased=leased)
    await recovery.look()
    vouch(stores.charging, stores.ledger.shards, recovery.believed)
    recovery.other_clients = (stores.charging,)
    return recovery


def build(context: Context) -> FastAPI:
    """The ASGI app; its lifespan runs the background services."""
    app = described(
        lifespan=_lifespan,
        middleware=[
            *([Middleware(Traced)] if tracing.is_on() else ()),
            Middleware(
                Envelope,
                trusted=context.trusted,
                times=context.requests,
                secured=context.signin.settings.public_url.startswith("https:"),
            ),
            Middleware(Embedding, origins=context.portal.settings.embed_origins),
        ],
    )
    app.state.context = context
    handle_exceptions(app)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    context: Context = app.state.context
    async with context.background.running():
        yield
        context.tiles.stop()
    try:
        await context.writer.drain()
    except (StoreUnavailable, LedgerUnavailable, TimeoutError) as e:
        # They stay in the streams, and the next start writes them.
        log.warning("stopped before all usage events were written", reason=str(e) or "no more time")


@asynccontextmanager
async def _redis(settings: RedisSettings, timeout_seconds: float) -> AsyncIterator[Redis]:
    client = redis_connections.client(
        settings.url.get_secret_value(),
        max_connections=REDIS_CONNECTIONS_MAX,
        timeout=timeout_seconds,  # who finds all of them busy waits for one
        socket_timeout=timeout_seconds,
        socket_connect_timeout=timeout_seconds,
    )
    try:
        yield client
    finally:
        await client.aclose()
