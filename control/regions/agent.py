"""A region's agent: it asks the home for what the region needs before that is used up, and returns what it does not
need.

It decides nothing about a request. While it is away, or the home is, the region's ledger goes on with what it holds
until the lease ends.
"""

from collections.abc import Callable, Mapping
from time import monotonic
from typing import Protocol

import structlog

from control.regions import region
from control.regions.need import Pace
from control.regions.terms import Account, Lease, Report
from quota import generation, keys
from quota.calls.leases import Holding
from quota.ledger import Ledger, MemoryLost
from quota.model import Entitlement

log = structlog.get_logger()

ATTEMPTS = 3
"""Terms may change, and the ledger may lower, between a report and its answer."""


class AnsweringHome(Protocol):
    async def answer(self, org: str, region: str, report: Report) -> tuple[Entitlement, Lease | None] | None:
        """As control/regions/home.py. Raises StoreUnavailable."""


class Publishing(Protocol):
    """Installs in the region what the home says of an organization, without a lease."""

    async def install(self, org: str) -> object:
        """Raises StoreUnavailable, LedgerUnavailable."""


class Agent:
    def __init__(
        self,
        name: str,
        home: AnsweringHome,
        ledger: Ledger,
        publishing: Publishing,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """`name`: of the region. `clock` only goes forward."""
        self._name = name
        self._home = home
        self._ledger = ledger
        self._publishing = publishing
        self._clock = clock
        self._paces: dict[str, dict[Account, Pace]] = {}
        self._leases: dict[str, Lease] = {}

    async def look(self, org: str, refused: Mapping[str, int] | None = None) -> bool:
        """Returns, asks, and installs the answer; whether the region has a lease now. `refused`: by meter, the cost of
        a request that was refused since, for want of units.

        Raises StoreUnavailable, LedgerUnavailable."""
        holding = await self._ledger.holding(org)
        if holding is None:
            await self._publishing.install(org)
        held_in = await self._ledger.generation(keys.shard_of(org, self._ledger.shards))
        if held_in is None:
            raise MemoryLost("Redis lost its memory")
        for _ in range(ATTEMPTS):
            holding = await self._ledger.holding(org)
            if holding is None:
                return False  # nothing is published here: nobody knows it
            if holding.asked_s > holding.snapshot.now_us // 1_000_000:
                # The clock was set back. The lease would be in force again when it comes to that time once more.
                await self._ledger.lapse([org])
            asked = await self._ask(org, holding, held_in, refused or {})
            if asked is None:
                return False
            entitlement, lease = asked
            if entitlement.version != holding.snapshot.version:
                await self._publishing.install(org)
            if await self._ledger.lease(org, region.terms_of(entitlement, lease), held_in):
                self._leases[org] = lease
                return True
        return False

    async def _ask(
        self, org: str, holding: Holding, held_in: str, refused: Mapping[str, int]
    ) -> tuple[Entitlement, Lease] | None:
        """The home's answer, once what is not needed is given up."""
        last = self._leases.get(org)
        if last is not None and (last.number, last.returns) != (holding.number, holding.returns):
            last = None  # another agent has asked since
        paces = self._paces[org] = region.paces_of(self._paces.get(org, {}), holding, self._clock())
        needs = region.needs_of(paces, holding, last, refused)
        lower = {str(account): n.lower for account, n in needs.items() if n.lower is not None}
        if lower:
            await self._ledger.lower(org, lower, held_in)
            after = await self._ledger.holding(org)
            if after is None:
                return None
            holding = after
        wanted = {account: n.wanted for account, n in needs.items() if n.wanted is not None}
        last_paying = region.last_of(holding.snapshot)
        least = {account: refused[meter] for account, meter in last_paying.items() if meter in refused}
        report = region.report_of(holding, generation.epoch_of(held_in), wanted, least)
        answered = await self._home.answer(org, self._name, report)
        if answered is None or answered[1] is None:
            return None
        return answered[0], answered[1]
