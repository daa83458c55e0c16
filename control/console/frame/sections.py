"""A part of a page that is loaded on its own: a store that is away costs that part, and the part says so."""

import asyncio
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import structlog

from control.billing.failures import StripeAway, StripeRefused
from control.db import ReadTooLong, StoreUnavailable
from control.http.refusals import Refusal
from control.replica import ReplicaFailed
from quota.ledger import LedgerUnavailable

log = structlog.get_logger()
T = TypeVar("T")

FAULTS: Final[Mapping[type[Exception], str]] = {
    StoreUnavailable: "The database does not answer.",
    LedgerUnavailable: "Redis does not answer, so what is counted there is not known.",
    StripeAway: "Stripe does not answer.",
    StripeRefused: "Stripe does not tell this.",
    TimeoutError: "This took too long.",
    ReadTooLong: "This would take too long to find. Limit it to a time or an organization as well.",
}
SECONDS_MAX: Final = 5.0  # a person who waits longer for one part would rather see the others


@dataclass(frozen=True, slots=True)
class Section(Generic[T]):
    value: T | None
    fault: str | None = None
    """A sentence: why the value is not known."""


async def section(loading: Awaitable[T], seconds_max: float = SECONDS_MAX) -> Section[T]:
    try:
        return Section(await asyncio.wait_for(loading, seconds_max))
    except ReplicaFailed:
        raise  # the whole page is read again, by the primary
    except Refusal as e:
        return Section(None, str(e.detail))
    except tuple(FAULTS) as e:
        fault = next(text for kind, text in FAULTS.items() if isinstance(e, kind))
        log.warning("a part of a page is not known", fault=fault, reason=str(e))
        return Section(None, fault)


async def sections(**loading: Awaitable[object]) -> dict[str, Section[object]]:
    """Several at once, by name."""
    found = await asyncio.gather(*(section(each) for each in loading.values()))
    return dict(zip(loading, found, strict=True))
