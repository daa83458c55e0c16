"""Refusals from memory: a blocked client that hammers costs no call of Redis.

What is remembered is a decision of `take`, for the same organization and the same charges, for at most a second and
never beyond its period; a published entitlement or a charge given back forgets it at once. A refusal repeated from here
is one that Redis has just given; an admission never comes from here.
"""

import asyncio
from dataclasses import dataclass, replace

from quota.model import Exhausted

REMEMBERED_SECONDS = 1.0
ORGANIZATIONS_MAX = 16_384


@dataclass(slots=True)
class _Memory:
    decision: Exhausted
    since: float
    until: float


class ExhaustedMemory:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._time = loop.time
        self.by_org: dict[str, dict[bytes, _Memory]] = {}

    def remember(self, org: str, charges: bytes, decision: Exhausted) -> None:
        if len(self.by_org) >= ORGANIZATIONS_MAX:
            self.by_org.clear()
        now = self._time()
        period_left = decision.period.end - decision.now_us / 1_000_000
        memory = _Memory(decision, now, now + min(REMEMBERED_SECONDS, period_left))
        self.by_org.setdefault(org, {})[charges] = memory

    def recall(self, org: str, charges: bytes) -> Exhausted | None:
        """The decision as it would be now, or None when Redis must be asked."""
        decisions = self.by_org.get(org)
        memory = decisions.get(charges) if decisions is not None else None
        if memory is None:
            return None
        now = self._time()
        if now >= memory.until:
            self.forget(org)
            return None
        return replace(memory.decision, now_us=memory.decision.now_us + int((now - memory.since) * 1_000_000))

    def forget(self, org: str) -> None:
        self.by_org.pop(org, None)
