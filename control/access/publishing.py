"""A change of who may use an organization is committed: now it comes into force."""

from collections.abc import Iterable
from typing import Protocol

import structlog

from control.db import StoreUnavailable
from quota.ledger import LedgerUnavailable, MemoryLost

log = structlog.get_logger()

ATTEMPTS = 3  # Redis may be recovered between a look at it and the publication


class NotInForce(Exception):
    """What revokes something is stored, and Redis could not be told of it. It is told as soon as it can be.

    `orgs`: of which organizations."""

    def __init__(self, *orgs: str) -> None:
        super().__init__(*orgs)
        self.orgs = orgs


class Publisher(Protocol):
    async def install(self, org: str) -> object:
        """Raises StoreUnavailable, LedgerUnavailable."""


async def enforce(publisher: Publisher, org: str) -> None:
    """When it returns, every request that begins later is decided by what is committed. Raises NotInForce."""
    try:
        await _install(publisher, org)
    except (StoreUnavailable, LedgerUnavailable) as e:
        log.warning("a revocation is not in force yet", org=org, reason=str(e))
        raise NotInForce(org) from e


async def enforce_all(publisher: Publisher, orgs: Iterable[str]) -> None:
    """The same of several, each of which is tried. Raises NotInForce with those that wait."""
    waiting: list[str] = []
    for org in orgs:
        try:
            await enforce(publisher, org)
        except NotInForce:
            waiting.append(org)
    if waiting:
        raise NotInForce(*waiting)


async def announce(publisher: Publisher, org: str) -> bool:
    """The same for what only allows something; False where it comes into force later."""
    try:
        await _install(publisher, org)
    except (StoreUnavailable, LedgerUnavailable) as e:
        log.warning("a change waits to be published", org=org, reason=str(e))
        return False
    return True


async def _install(publisher: Publisher, org: str) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            await publisher.install(org)
        except MemoryLost:
            if attempt == ATTEMPTS:
                raise
        else:
            return
