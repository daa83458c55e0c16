"""Refusals from memory: a blocked client that hammers costs no call of Redis.

What is remembered is a decision of `take`, for the same organization and the same charges, for at most a second and
never beyond its period; a published entitlement or a charge given back forgets it at once. A refusal repeated from here
is one that Redis has just given; an admission never comes from here. Its text is made once a second.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace

from gateway.decision.refusals import RefusalText, of_decision
from gateway.settings.intervals import DEFAULT_INTERVALS, Intervals
from quota.model import Exhausted

ORGANIZATIONS_MAX = 16_384
CHARGES_MAX = 64  # of an organization: where clients tell the cost, they can tell many


@dataclass(slots=True)
class Memory:
    decision: Exhausted
    since: float
    until: float
    second: int = 0
    """Redis time that `text` was made for."""
    text: RefusalText | None = None


class ExhaustedMemory:
    def __init__(self, loop: asyncio.AbstractEventLoop, intervals: Intervals = DEFAULT_INTERVALS) -> None:
        self._time = loop.time
        self._remembered_seconds = intervals.exhausted_seconds
        self.by_org: dict[str, dict[bytes, Memory]] = {}

    def remember(self, org: str, charges: bytes, decision: Exhausted) -> None:
        if len(self.by_org) >= ORGANIZATIONS_MAX:
            self.by_org.clear()
        now = self._time()
        period_left = decision.period.end - decision.now_us / 1_000_000
        memory = Memory(decision, now, now + min(self._remembered_seconds, period_left))
        decisions = self.by_org.setdefault(org, {})
        if len(decisions) >= CHARGES_MAX:
            decisions.clear()
        decisions[charges] = memory

    def recall(self, org: str, charges_bulk: bytes, charges: Mapping[str, int]) -> RefusalText | None:
        """The refusal as it would be now, or None when Redis must be asked."""
        decisions = self.by_org.get(org)
        memory = decisions.get(charges_bulk) if decisions is not None else None
        if memory is None:
            return None
        now = self._time()
        if now >= memory.until:
            self.forget(org)
            return None
        now_us = memory.decision.now_us + int((now - memory.since) * 1_000_000)
        if memory.text is None or memory.second != now_us // 1_000_000:
            memory.second = now_us // 1_000_000
            decision = replace(memory.decision, now_us=now_us)
            memory.text = RefusalText.of(of_decision(decision, charges, None))
        return memory.text

    def decision(self, org: str, charges_bulk: bytes) -> Exhausted | None:
        """What `recall` tells of, as it was when the ledger was asked."""
        memory = self.by_org.get(org, {}).get(charges_bulk)
        return None if memory is None else memory.decision

    def forget(self, org: str) -> None:
        self.by_org.pop(org, None)
