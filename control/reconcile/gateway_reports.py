"""What gateways remember of the takes that Redis answered, as they report it: asked by a recovery, or by themselves.

gateway/ledger/receipts.py writes the lines: a receipt each; `void` and a request; `kept` and what was forgotten; `end`.
"""

import asyncio
import re
from collections.abc import Iterable, Sequence
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
_REMEMBERED = re.compile(r"([0-9]{1,15}) ([0-9]{1,15}) ([0-9]{1,15})")


@dataclass(frozen=True, slots=True)
class GatewayReports:
    takes: dict[str, UsageEvent]
    """By their receipts."""
    void: frozenset[str]
    """Requests that were not forwarded, since no reply came to their takes."""
    oldest_seconds: float
    """How long ago the first of the takes was answered."""
    lost_takes: int = 0
    """That are remembered no more, and may not be written."""
    lost_units: int = 0
    """Of these takes."""
    silent: int = 0
    """Workers that were asked and did not report."""
    told: frozenset[str] = frozenset()
    """Workers that did, and have said their names."""

    @classmethod
    def parse(cls, lines: Iterable[str]) -> "GatewayReports":
        takes, void, oldest_seconds = dict[str, UsageEvent](), set[str](), 0.0
        lost_takes = lost_units = 0
        for text in lines:
            word, _, content = text.partition(" ")
            if word == "void":
                void.add(content)
            elif word == "kept" and (remembered := _REMEMBERED.fullmatch(content)):
                ms, lost, units = map(int, remembered.groups())
                oldest_seconds = max(oldest_seconds, ms / 1000)
                lost_takes, lost_units = lost_takes + lost, lost_units + units
            elif word != END:
                try:
                    event = parse(text)
                except EventMalformed as e:
                    log.error("a gateway told what is no receipt", receipt=text[:200], reason=str(e))
                    continue
                if event.kind is Kind.TAKE:
                    takes[text] = event
        return cls(takes, frozenset(void), oldest_seconds, lost_takes, lost_units)


def lines_of(items: Sequence[bytes] | None) -> list[str]:
    return [line for item in items or () for line in item.decode("ascii", "replace").split("\n")]


async def gather(redis: Any, nodes: Nodes, before: Sequence[str], message: RecoveryMessage) -> GatewayReports:
    """Asks all gateways that listen, by this message. `before`: lines that some of them reported by themselves.

    Raises LedgerUnavailable."""
    loop = asyncio.get_running_loop()
    try:
        listening = await nodes.publish(keys.RECOVER, message.text)
    except RedisError as e:
        raise LedgerUnavailable(f"asking the gateways: {e}") from e
    deadline, lines, ended, told = loop.time() + GATHER_SECONDS, [*before], 0, frozenset[str]()
    while True:
        popped = await _pop(redis)
        lines += popped
        if popped:
            unnamed, told = message.ended(lines)
            ended = unnamed + len(told)
            deadline = max(deadline, loop.time() + QUIET_SECONDS)
        elif ended >= listening or loop.time() >= deadline:
            break
        else:
            await asyncio.sleep(POLL_SECONDS)
    if ended < listening:
        log.warning("a gateway did not tell what it was answered", listening=listening, told=ended)
    return replace(GatewayReports.parse(lines), silent=max(0, listening - ended), told=told)


async def _pop(redis: Any) -> list[str]:
    """The lines that gateways gave the server in front, for a recovery that asked for them."""
    try:
        return lines_of(await redis.lpop(keys.RECEIPTS, POPPED_AT_ONCE))
    except RedisError as e:
        raise LedgerUnavailable(f"receipts: {e}") from e
