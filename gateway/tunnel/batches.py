"""How much of what waits in a tunnel is taken for at once, and what follows when the ledger refuses it. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from gateway.http import websocket
from quota.model import ConcurrencyLimited, Decision, RateLimited, Unknown

PERMIT_WAIT_SECONDS: Final = 1.0  # until a charge that found no free permit is tried again


class Batch(NamedTuple):
    """The first items of what waits."""

    items: int
    units: int


def first_batch(waiting: Iterable[int], items_max: int, units_max: int) -> Batch:
    """As many of the items as fit into one take, and at least one. `waiting`: the units of each."""
    items, units = 0, 0
    for cost in waiting:
        if items and (items >= items_max or units + cost > units_max):
            break
        items, units = items + 1, units + cost
    return Batch(items, units)


@dataclass(frozen=True, slots=True)
class LetPass:
    """The batch goes on without being paid."""


@dataclass(frozen=True, slots=True)
class TakeFewer:
    items_max: int


@dataclass(frozen=True, slots=True)
class TakeLater:
    seconds: float


@dataclass(frozen=True, slots=True)
class CloseTunnel:
    code: int
    reason: str


NextStep = LetPass | TakeFewer | TakeLater | CloseTunnel


def after_refusal(decision: Decision, items: int, *, in_shadow: bool) -> NextStep:
    """`items`: how many are of the batch that was refused."""
    match decision:
        case RateLimited() | ConcurrencyLimited() | Unknown() if in_shadow:
            return LetPass()
        case RateLimited(retry_after_us=us):
            return TakeLater(us / 1_000_000)
        case ConcurrencyLimited():
            return TakeLater(PERMIT_WAIT_SECONDS)
        case Unknown():
            return CloseTunnel(websocket.TRY_AGAIN_LATER, "the organization's plan is not known now")
        case _ if items > 1:
            return TakeFewer(items // 2)
        case _ if in_shadow:
            return LetPass()
        case _:
            return CloseTunnel(websocket.POLICY_VIOLATION, "the quota does not allow more")
