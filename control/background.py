"""The control plane's background services. They are restarted when they fail, and their state is visible."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from common.backoff import Backoff
from control.db import StoreUnavailable
from quota.ledger import LedgerUnavailable

log = structlog.get_logger()

BACKOFF = Backoff(first_seconds=0.1, max_seconds=2)
CANCEL_AGAIN_SECONDS = 0.2
STABLE_SECONDS = 10.0  # after which a failure counts as the first again


class Service(Protocol):
    name: str

    async def run(self) -> None:
        """Does its work until it is cancelled."""


@dataclass(slots=True)
class ServiceState:
    alive: bool = False
    restarts: int = 0


class Background:
    def __init__(self, services: Sequence[Service]) -> None:
        self._services = list(services)
        self.states = {service.name: ServiceState() for service in services}

    def add(self, service: Service) -> None:
        """Before they run."""
        self._services.append(service)
        self.states[service.name] = ServiceState()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self._keep(service), name=service.name) for service in self._services]
        try:
            yield
        finally:
            waiting = set(tasks)
            while waiting:
                for task in waiting:
                    task.cancel()  # more than once: redis-py can swallow it while it connects
                _, waiting = await asyncio.wait(waiting, timeout=CANCEL_AGAIN_SECONDS)

    def summary(self) -> dict[str, dict[str, Any]]:
        """For everyone who reaches the port. The log says why a service is not alive."""
        return {name: {"alive": state.alive, "restarts": state.restarts} for name, state in self.states.items()}

    async def _keep(self, service: Service) -> None:
        loop, state, failures = asyncio.get_running_loop(), self.states[service.name], 0
        while True:
            started = loop.time()
            state.alive = True
            try:
                await service.run()
                log.error("a background service ended by itself", service=service.name)
            except (StoreUnavailable, LedgerUnavailable) as e:
                log.warning("a background service waits for its stores", service=service.name, reason=str(e))
            except Exception:
                log.exception("a background service failed", service=service.name)
            finally:
                state.alive = False
            if loop.time() - started > STABLE_SECONDS:
                failures = 0
            failures += 1
            await asyncio.sleep(BACKOFF.seconds(failures))
            state.restarts += 1
