"""What gateways remember of the takes that Redis answered, as they report it: asked by a recovery, or by themselves.

gateway/ledger/receipts.py writes the items. In each: `since` and a time of Redis; then a line each, receipts, `void`
and a request, `kept` and what was forgotten, or `end`. They may be read apart, and long after they were written.
"""

import asyncio
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import structlog
from redis.exceptions import RedisError

from control.ledger.nodes import Nodes
from quota import keys
from quota.events import EventMalformed, Kind, UsageEvent, parse
from quota.ledger import LedgerUnavailable
from quota.recovery_message import END, RecoveryMessage

log = structlog.get_logger()

GATHER_SECONDS = 2.0
QUIET_SECONDS = 0.5  # receipts that still come are waited for
POLL_SECONDS = 0.02
POPPED_AT_ONCE = 1_000
_TIME = re.compile(r"[0-9]{1,15}")
_REMEMBERED = re.compile(r"([0-9]{1,15}) ([0-9]{1,15}) ([0-9]{1,15})")


@dataclass(frozen=True, slots=True)
class GatewayReports:
    takes: dict[str, UsageEvent]
    """By their receipts."""
    void: frozenset[str]
    """Requests that were not forwarded, since no reply came to their takes."""
    since_ms: int | None
    """By Redis' clock: none of the takes was answered before; None: there are none."""
    lost_takes: int = 0
    """That are remembered no more, and may not be written."""
    lost_units: int = 0
    """Of these takes."""
    silent: int = 0
    """Workers that were asked and did not report."""
    told: frozenset[str] = frozenset()
    """Workers that did, and have said their names."""

    @classmethod
    def parse(cls, items: Iterable[str]) -> "GatewayReports":
        takes, void, times = dict[str, UsageEvent](), set[str](), list[int]()
        lost_takes = lost_units = 0
        for item in items:
            since_ms, of_item = None, list[UsageEvent]()
            for text in item.split("\n"):
                word, _, content = text.partition(" ")
                if word == "void":
                    void.add(content)
                elif word == "since" and _TIME.fullmatch(content):
                    since_ms = int(content)
                elif word == "kept" and (remembered := _REMEMBERED.fullmatch(content)):
                    _, lost, units = map(int, remembered.groups())
                    lost_takes, lost_units = lost_takes + lost, lost_units + units
                elif word != END and (event := _take(text)):
                    takes[text] = event
                    of_item.append(event)
            if of_item:
                # A gateway that has not heard Redis' time, or is of the release before, does not say it.
                started_ms = min(event.period_start for event in of_item) * 1000
                times.append(started_ms if since_ms is None else since_ms)
        return cls(takes, frozenset(void), min(times, default=None), lost_takes, lost_units)


def _take(receipt: str) -> UsageEvent | None:
    try:
        event = parse(receipt)
    except EventMalformed as e:
        log.error("a gateway told what is no receipt", receipt=receipt[:200], reason=str(e))
        return None
    return event if event.kind is Kind.TAKE else None


def texts_of(items: Sequence[bytes] | None) -> list[str]:
    return [item.decode("ascii", "replace") for item in items or ()]


async def gather(
    redis: Any, nodes: Nodes, before: Sequence[str], message: RecoveryMessage, generations: Mapping[int, str]
) -> GatewayReports:
    """Asks all gateways that listen, by this message. `before`: items that some of them reported by themselves.
    `generations`: of the shards that are put together.

    Raises LedgerUnavailable."""
    loop = asyncio.get_running_loop()
    try:
        listening = await nodes.publish(keys.RECOVER, message.text, generations)
    except RedisError as e:
        raise LedgerUnavailable(f"asking the gateways: {e}") from e
    deadline, items, ended, told = loop.time() + GATHER_SECONDS, [*before], 0, frozenset[str]()
    while True:
        popped = await _pop(redis)
        items += popped
        if popped:
            unnamed, told = message.ended(items)
            ended = unnamed + len(told)
            deadline = max(deadline, loop.time() + QUIET_SECONDS)
        elif ended >= listening or loop.time() >= deadline:
            break
        else:
            await asyncio.sleep(POLL_SECONDS)
    if ended < listening:
        log.warning("a gateway did not tell what it was answered", listening=listening, told=ended)
    return replace(GatewayReports.parse(items), silent=max(0, listening - ended), told=told)


async def _pop(redis: Any) -> list[str]:
    """The items that gateways gave the server in front, for a recovery that asked for them."""
    try:
        return texts_of(await redis.lpop(keys.RECEIPTS, POPPED_AT_ONCE))
    except RedisError as e:
        raise LedgerUnavailable(f"receipts: {e}") from e
