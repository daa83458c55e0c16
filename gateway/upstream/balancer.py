"""An API behind the gateway: its targets, which of them is next, and what is tried when one fails.

RFC 9110 section 9.2.2 says what may be sent again. Of a request that nothing was sent of, everything; of one that may
have been done, only an idempotent one, and here only with its whole body at hand, once, and if nothing of an answer
came: no byte, or, on a connection that was used before, only what is none.
"""

import asyncio
from collections.abc import Callable

import structlog

from gateway.http.deadlines import DeadlineSweep
from gateway.settings.intervals import DEFAULT_INTERVALS, Intervals
from gateway.settings.upstreams import Health
from gateway.settings.upstreams import Upstream as UpstreamSettings
from gateway.upstream.connection.carried import CarriedRequest
from gateway.upstream.connection.failures import Tripped, UpstreamFailure
from gateway.upstream.ejection import Use
from gateway.upstream.pool import Pool

log = structlog.get_logger()

IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"))  # RFC 9110 section 9.2.2


def _tell_nobody() -> None: ...


class Upstream:
    """The targets of one upstream, in one worker."""

    send: Callable[[CarriedRequest], None]
    """Sends on the next target. Failures reach the exchange. While there is nothing to choose it is the pool's own."""
    on_change: Callable[[], None]
    """Called when a target fails, or is well again."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        deadlines: DeadlineSweep,
        name: str,
        settings: UpstreamSettings,
        intervals: Intervals = DEFAULT_INTERVALS,
    ) -> None:
        self.name = name
        self.settings = settings
        self._loop = loop
        self._deadlines = deadlines
        several = len(settings.urls) > 1
        self.targets = [
            Pool(loop, deadlines, f"{name}[{index}]" if several else name, url, settings, self, intervals)
            for index, url in enumerate(settings.urls)
        ]
        self.authority = self.targets[0].authority
        self._turn = 0
        self._least = settings.balance == "least_connections"
        self.failing = False
        """Some target is not what it should be. Without it `admits` need not be asked."""
        self.on_change = _tell_nobody
        self._reconsider()

    # Before the charge

    def admits(self) -> bool:
        """Whether a request would be sent to anything: false while the circuit breaker is open."""
        if not self.settings.circuit_breaker:
            return True
        now = self._loop.time()
        return any(target.health.use(now) is not Use.NONE for target in self.targets)

    @property
    def retry_after_seconds(self) -> int:
        soonest = min(target.health.until for target in self.targets)
        return max(1, int(soonest - self._loop.time() + 0.999))

    @property
    def state(self) -> str:
        """For people: how many targets are used."""
        now = self._loop.time()
        used = sum(target.health.use(now) is Use.ANY for target in self.targets)
        return "available" if used == len(self.targets) else "degraded" if used else "unavailable"

    # Sending

    def _send(self, exchange: CarriedRequest) -> None:
        if self.settings.total_timeout_seconds is not None:
            exchange.expires = self._deadlines.now + self.settings.total_timeout_seconds
        target = self._next(exchange)
        if target is None:
            exchange.on_upstream_failed(Tripped("all targets are ejected"))
        else:
            target.send(exchange)

    def _next(self, exchange: CarriedRequest) -> Pool | None:
        """The target to use, of those that this exchange has not tried; None if there is none."""
        targets = self.targets
        if exchange.tried:
            targets = [target for target in targets if target.name not in exchange.tried]
        if self.failing:
            targets = self._usable(targets)
        if not targets:
            return None
        if not exchange.tried:
            self._turn += 1
        if not self._least:
            return targets[self._turn % len(targets)]
        first = self._turn % len(targets)  # equals take turns
        return min((targets[first:] + targets[:first]), key=lambda target: target.busy)

    def _usable(self, targets: list[Pool]) -> list[Pool]:
        now = self._loop.time()
        uses: dict[Use, list[Pool]] = {use: [] for use in Use}
        for target in targets:
            uses[target.health.use(now)].append(target)
        if uses[Use.TRIAL] and (not uses[Use.ANY] or not uses[Use.TRIAL][0].health.unhealthy):
            trial = uses[Use.TRIAL][0]
            trial.health.try_once(now)
            return [trial]
        if usable := uses[Use.ANY] or uses[Use.LAST_RESORT]:
            return usable
        return [] if self.settings.circuit_breaker else targets

    # What became of it: the pools and their connections call

    def send_elsewhere(self, target: Pool, exchange: CarriedRequest, failure: UpstreamFailure) -> None:
        """Nothing of the request was sent: any other target may have it, whatever the method."""
        if exchange.over:
            exchange.on_upstream_failed(failure)
            return
        exchange.tried = (*exchange.tried, target.name)
        other = self._next(exchange) if self._deadlines.now < exchange.expires else None
        if other is None:
            exchange.on_upstream_failed(failure)
        else:
            other.send(exchange)

    def send_again(self, target: Pool, exchange: CarriedRequest, reused: bool) -> bool:
        """There was no answer on a connection. Sends the request once more, if it may be, and says whether."""
        if exchange.resent or exchange.method not in IDEMPOTENT or not exchange.body_at_hand:
            return False
        exchange.tried = (*exchange.tried, target.name)
        other = self._next(exchange)
        if other is None and not reused:
            return False
        exchange.resent = True
        exchange.take_back_body()
        if other is not None:
            other.send(exchange)
        else:
            # The upstream closed an idle connection just as it was taken.
            target.send_without_reuse(exchange)
        return True

    def record_failure(self, target: Pool, why: str) -> None:
        target.health.why = why
        if target.health.record_failure(self._loop.time()):
            log.warning("target ejected", upstream=target.name, seconds=target.health.seconds)
            self._reconsider()

    def record_answer(self, target: Pool) -> None:
        """A target that had failed has answered."""
        if target.health.record_answer():
            log.info("target answers again", upstream=target.name)
            self._reconsider()

    def record_probe(self, target: Pool, well: bool, health: Health, why: str) -> None:
        """`why`: what the probe was answered."""
        if not target.health.ejections:
            target.health.why = why
        if target.health.record_probe(well, health.healthy_after, health.unhealthy_after):
            log.warning("target is well" if well else "target is not well", upstream=target.name)
            self._reconsider()

    def _reconsider(self) -> None:
        self.failing = any(target.health.ejections or target.health.unhealthy for target in self.targets)
        plain = len(self.targets) == 1 and not self.failing and self.settings.total_timeout_seconds is None
        self.send = self.targets[0].send if plain else self._send
        self.on_change()

    async def close(self) -> None:
        for target in self.targets:
            await target.close()
