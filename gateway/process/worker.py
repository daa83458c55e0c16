"""Everything one gateway process holds: its routes and pools, its link to the ledger, what it still owes."""

import asyncio
import os
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import structlog
from redis.asyncio import ConnectionPool

from common import redis_connections
from common.clock import system_clock
from gateway.client.head_reader import HeadReader
from gateway.cluster.configured import way_of
from gateway.decision.authentication import Authentication
from gateway.decision.decisions import Decisions
from gateway.decision.exhausted import ExhaustedMemory
from gateway.decision.looks import Looks
from gateway.decision.naming import Naming
from gateway.exchange.exchange import Exchange
from gateway.exchange.forward_auth import ForwardAuth
from gateway.exchange.heads import UpstreamHeads
from gateway.http.cors import Cors
from gateway.http.deadlines import NEVER, DeadlineSweep
from gateway.http.trace import Begin, Record, Recording, TraceRules
from gateway.ledger.hydration import HydrationClient
from gateway.ledger.permits import Permits
from gateway.ledger.settlements import Settlements
from gateway.listener.entrance import Entrance
from gateway.observe.access_log import AccessLog
from gateway.observe.check_times import CheckTimesLog
from gateway.observe.finished import Spans
from gateway.observe.record import Recorder
from gateway.observe.refused import RefusedLog
from gateway.observe.told_routes import RoutesTeller
from gateway.observe.upstream_faults import UpstreamFaultLog
from gateway.outage.degraded import Degraded
from gateway.outage.journal_file import Journal
from gateway.outage.journal_replay import Replay
from gateway.process import local
from gateway.redis.vouching import SeenEpochs
from gateway.routing.destinations import Destinations
from gateway.routing.forwarded import Trust
from gateway.routing.routes import compile_routes
from gateway.settings.intervals import DEFAULT_INTERVALS, Intervals
from gateway.settings.root import GatewaySettings
from gateway.upstream.balancer import Upstream
from identity.issuers import Issuers
from identity.tokens import TokenVerifier
from quota.calls.encoded import books_bulk, idempotency_bulk

if TYPE_CHECKING:
    from gateway.observe.sent_logs import SentLogs

log = structlog.get_logger()

IDENTITIES_MAX = 65_536  # organizations whose wire form is remembered; some 400 bytes each


def _request_ids() -> Callable[[], bytes]:
    """Each call makes an id for a request: 20 characters, unique over all processes, in order within one."""
    prefix = os.urandom(5).hex().encode()  # two processes never share one
    # Joining two texts takes half as long as formatting a number, and a number of three digits has few texts.
    ends = [b"%03x" % end for end in range(4096)]
    return chain.from_iterable(map((b"%b%07x" % (prefix, block)).__add__, ends) for block in count()).__next__


@dataclass(slots=True)
class Identity:
    """An organization as the ledger and the upstream are told of it."""

    keys_bulk: bytes
    """RESP words: its hash and its shard's stream."""
    upstream_fields: bytes
    """Header lines."""


class _Closing(Protocol):
    async def close(self) -> None: ...


class _SpanLog(Spans, Protocol):
    @property
    def dropped(self) -> int: ...
    def close(self) -> None: ...


class Worker:
    """One process of the gateway. The composition root makes it; `start` and `close` frame its life."""

    def __init__(
        self,
        settings: GatewaySettings,
        loop: asyncio.AbstractEventLoop,
        directory: Path | None = None,
        intervals: Intervals = DEFAULT_INTERVALS,
    ) -> None:
        """`directory`: what the workers of one gateway share."""
        self.settings = settings
        self.intervals = intervals
        self.idle_seconds = settings.timeouts.idle_seconds
        self.deadlines = DeadlineSweep(loop, intervals.tick_seconds)
        redis = settings.redis
        url, self._shards = redis.url.get_secret_value(), redis.shards
        self._seen = SeenEpochs(directory)
        self._redis = redis_connections.client(url, ConnectionPool)
        self.link = way_of(loop, redis, self._redis, self._seen, intervals)
        self.exhausted = ExhaustedMemory(loop, intervals)
        self.settlements = Settlements(loop, self.link, self._shards, self.exhausted.forget)
        self.permits = Permits(loop, self.link, self._shards, intervals)
        self.hydrator = HydrationClient(self.link, self._redis, self.deadlines, settings.hydrate_timeout_ms / 1000)
        self.hydrator.on_published.append(self.exhausted.forget)
        self.issuers = Issuers(settings.auth)
        self.verifier = TokenVerifier(settings.auth, self.issuers.key_sets, system_clock)
        self.upstreams = {
            name: Upstream(loop, self.deadlines, name, s, intervals) for name, s in settings.upstreams.items()
        }
        self.probes: _Closing | None = None
        self._pools = {target.name: target for upstream in self.upstreams.values() for target in upstream.targets}
        self.destinations = Destinations(compile_routes(settings), self.upstreams)
        self.head_reader = HeadReader(self.destinations.token_fields)
        self.degraded = self._degraded(loop, redis.shards)
        self.identities: dict[str, Identity] = {}
        self.cors = Cors(settings.cors.allowed_origins, credentials=settings.cors.allow_credentials)
        self.trust = Trust(settings.forwarded.trusted, rfc7239=settings.forwarded.rfc7239)
        self.traces, self.spans = self._tracing(loop)
        self.entrance = None if settings.listen.plain else Entrance(settings, intervals)
        certified = self.entrance is not None and self.entrance.forwards_certificates
        self.heads = UpstreamHeads(self.trust, self.traces, certified=certified)
        told = settings.identity
        naming = Naming(self, key=told.key, user=told.user)
        self.looks = Looks(self.link, self.hydrator, self.verifier, naming, self._shards)
        self.refused = RefusedLog(loop, self.link, settings.refusals, intervals.refusals_seconds)
        self.check_times = CheckTimesLog(loop, self.link, self.link.take_latency, intervals.check_times_seconds)
        self.told_routes = RoutesTeller(loop, self.link, settings, intervals.routes_seconds)
        upstreams, seconds = self.upstreams.values(), intervals.upstream_faults_seconds
        self.upstream_faults = UpstreamFaultLog(loop, self.link, upstreams, seconds)
        self.decisions = self._decisions()
        self.forward_auth = self._forward_auth()
        self.tunnels_end = NEVER  # loop time at which those that are open are closed
        self.draining = False  # connections that are accepted now are answered once
        self.idle_end = NEVER  # loop time at which connections without a request under way are closed
        self.sent_logs, self.access_log = self._logs(loop)
        query_tokens = self.destinations.query_tokens
        self.recorder = Recorder(settings, self.access_log, self.trust, query_tokens, self.traces, self.spans)
        self.loop = loop
        self.dated: list[tuple[bytes, bytes]] | None = None  # uvicorn's list that `date_field` was made of
        self.date_field = b""
        self._tasks: set[asyncio.Task[None]] = set()
        self.next_id = _request_ids()

    def _tracing(self, loop: asyncio.AbstractEventLoop) -> tuple[TraceRules | None, "_SpanLog | None"]:
        settings, trace = self.settings.telemetry, self.settings.trace
        if not settings.records:
            return Begin(sampled=trace.sampled) if trace.create else None, None
        from gateway.observe.spans import SpanLog  # with httpx, which takes a while to load

        recording = Recording(self.link, settings.ratio)
        rules = Record(recording, follow_clients=settings.follow_clients, begin=trace.create)
        return rules, SpanLog(loop, settings, recording)

    def _logs(self, loop: asyncio.AbstractEventLoop) -> "tuple[SentLogs | None, AccessLog | None]":
        sent, telemetry, logged = None, self.settings.telemetry, self.settings.access_log
        if telemetry.logs or telemetry.access_log:
            from gateway.observe.sent_logs import SentLogs  # as above

            sent = SentLogs(telemetry)
        follower = None if sent is None else sent.follower
        return sent, AccessLog(loop, logged.path, self.intervals, follower) if logged.enabled else None

    def _degraded(self, loop: asyncio.AbstractEventLoop, shards: int) -> Degraded | None:
        settings = self.settings.degraded
        if settings.journal is None:
            return None
        journal = Journal(settings.journal)
        replay = Replay(loop, self.link, self.hydrator, self.settlements, journal, shards, self.intervals)
        degraded = Degraded(
            loop, self.deadlines, self.link, settings, journal, replay, self.destinations.routes, self.intervals
        )
        self.hydrator.on_published.append(degraded.forget)
        self.hydrator.on_missed.append(degraded.forget_all)
        return degraded

    def _decisions(self) -> Decisions:
        return Decisions(
            Authentication(self.verifier, self.refresh_keys),
            self.looks,
            self.idempotency_bulk,
            self.link,
            self.exhausted,
            self.hydrator,
            self.settlements,
            self.permits,
            self.degraded,
            self.deadlines,
            self.trust,
            frozenset(self.settings.shadow.organizations),
            self.settings.upgrade_url,
            self.refused,
        )

    def _forward_auth(self) -> ForwardAuth | None:
        trusted = self.settings.forward_auth.trusted
        return ForwardAuth(trusted, self.destinations) if trusted else None

    async def start(self) -> None:
        self.link.start()
        if self.degraded is not None:
            self.degraded.start()
        self.hydrator.start()
        if any(upstream.settings.health is not None for upstream in self.upstreams.values()):
            from gateway.upstream.probes import Probes  # they bring httpx, which takes a while to load

            self.probes = probes = Probes(self.upstreams.values())
            probes.start()
        await self.issuers.start()
        self.check_times.start()
        # A worker takes connections when it can decide. Without Redis it takes them all the same, and says so in 503s.
        await self.link.wait_open(self.intervals.start_seconds)
        if self.link.asking:
            await self.link.wait_open(self.intervals.start_answer_seconds)
        self.told_routes.start()

    async def close(self) -> None:
        if self.degraded is not None:
            await self.degraded.close()
        await self.settlements.drain(self.intervals.settle_seconds)
        self.refused.flush()
        self.check_times.close()
        self.told_routes.close()
        self.upstream_faults.close()
        await self.permits.drain(self.intervals.settle_seconds)
        for task in self._tasks:
            task.cancel()
        await self.hydrator.close()
        await self.issuers.close()
        if self.probes is not None:
            await self.probes.close()
        for upstream in self.upstreams.values():
            await upstream.close()
        await self.link.close()
        self._seen.close()
        await self._redis.aclose()
        self.deadlines.close()
        if self.spans is not None:
            self.spans.close()
        if self.access_log is not None:
            self.access_log.close()
        if self.sent_logs is not None:
            self.sent_logs.close()

    def faults(self) -> list[str]:
        """Why this worker cannot decide on requests now; empty when it can. Clients can read it: addresses and reasons
        are in the log."""
        faults = [] if (fault := self.link.fault) is None else [fault]
        if not self.issuers.usable:
            faults.append("no key to verify tokens with")
        return faults

    # For the exchange

    def identity(self, org: str) -> Identity:
        identity = self.identities.get(org)
        if identity is None:
            if len(self.identities) >= IDENTITIES_MAX:
                self.identities.clear()
            fields = b"X-Quota-Org: %b\r\n" % org.encode()
            identity = self.identities[org] = Identity(books_bulk(org, self._shards), fields)
        return identity

    def idempotency_bulk(self, org: str, name: str) -> bytes:
        """The key of a take that its idempotency key is kept in, as a RESP word."""
        return idempotency_bulk(org, self._shards, name)

    def refresh_keys(self, issuer: str, then: Callable[[], None]) -> None:
        """Asks the issuer for its keys again, since a token fits none, then goes on, whatever came of it."""

        async def refresh() -> None:
            await self.issuers.refresh_if_due(issuer)
            then()

        self._spawn(refresh(), "refresh-keys")

    def answer_locally(self, exchange: Exchange, target: bytes) -> None:
        """Answers a request for `/-/`."""
        if (refusal := local.refusal(exchange.method, target)) is not None:
            exchange.refuse(refusal)
            return

        async def answer() -> None:
            status, body = await local.answer(self, target)
            exchange.respond(status, b"Content-Type: application/json\r\n", body)

        self._spawn(answer(), "local-endpoint")

    def _spawn(self, step: Coroutine[None, None, None], name: str) -> None:
        task = self.loop.create_task(step, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
