"""What the journal holds goes into the ledger when Redis is back: each entry once, whoever replays it how often.

`lua/replay.lua` marks each request, so an entry whose reply was lost, or whose replayer died, is sent again without
harm. A file is removed when the ledger has confirmed all of it. Entries of organizations that Redis does not know are
kept in a file of their own, and tried again; the organizations are asked of the control plane.
"""

import asyncio
from dataclasses import dataclass
from typing import Any

import structlog

from gateway.ledger.hydration import HydrationClient
from gateway.ledger.ledger_link import LedgerLink
from gateway.ledger.settlements import Settlements
from gateway.outage.journal_file import ClaimedFile, Journal, JournalEntry, claim
from gateway.redis.connection import Lost
from gateway.settings.intervals import DEFAULT_INTERVALS, Intervals
from quota.calls.replay import Replayed, decode_replayed, replay_call
from quota.wire import ReplayOutcome

log = structlog.get_logger()

AT_ONCE_MAX = 64  # entries on their way to Redis, which serves others in between


@dataclass(slots=True)
class _File:
    claimed: ClaimedFile
    not_before: float = 0.0
    """Loop time."""
    attempts: int = 0
    """After which entries were kept."""


class Replay:
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        link: LedgerLink,
        hydrator: HydrationClient,
        settlements: Settlements,
        journal: Journal,
        shards: int,
        intervals: Intervals = DEFAULT_INTERVALS,
    ) -> None:
        self._loop = loop
        self._link = link
        self._hydrator = hydrator
        self._settlements = settlements
        self._journal = journal
        self._shards = shards
        self._again = intervals.journal_again
        self._files: list[_File] = []
        self._void: dict[str, str] = {}  # request id -> organization
        self._unreadable = False
        self.replayed = 0
        """Entries that were charged."""

    @property
    def open(self) -> int:
        """Entries that this worker has claimed, and the ledger has not."""
        return sum(len(file.claimed.entries) for file in self._files)

    def void(self, org: str, request_id: str) -> None:
        """A journaled request got nothing: it is not charged, or its charge is given back."""
        self._void[request_id] = org

    async def step(self) -> None:
        """Replays what can be replayed now. For a Redis that accepts takes."""
        for request_id, org in list(self._void.items()):
            await self._void_one(org, request_id)
        try:
            for claimed in claim(self._journal.directory):
                if claimed.torn:
                    log.warning("journal has torn entries", file=claimed.path.name, torn=claimed.torn)
                self._files.append(_File(claimed))
            self._unreadable = False
        except OSError as e:
            if not self._unreadable:
                log.error("journal cannot be read", reason=str(e))
            self._unreadable = True
        for file in list(self._files):
            if file.not_before <= self._loop.time():
                await self._replay(file)

    def close(self) -> None:
        """What is left is there for whoever comes next."""
        for request_id, org in self._void.items():
            log.error("charge not given back", org=org, request_id=request_id)
        for file in self._files:
            file.claimed.release()
        self._files.clear()

    async def _replay(self, file: _File) -> None:
        claimed, remaining = file.claimed, list[JournalEntry]()
        unknown = 0
        lost: Lost | None = None
        for at in range(0, len(claimed.entries), AT_ONCE_MAX):
            part = claimed.entries[at : at + AT_ONCE_MAX]
            charged = 0
            replies = await asyncio.gather(*[self._send(e.path, e.request_id, e.charges) for e in part])
            for entry, reply in zip(part, replies, strict=True):
                if isinstance(reply, Lost):
                    lost = reply
                    remaining.append(entry)
                elif reply.outcome is ReplayOutcome.UNPUBLISHED:
                    remaining.append(entry)
                    unknown += 1
                else:
                    charged += reply.outcome is ReplayOutcome.CHARGED
            self.replayed += charged
            if not self._link.accepts:
                remaining += claimed.entries[at + AT_ONCE_MAX :]
                break
        if not remaining:
            claimed.remove()
            self._files.remove(file)
            log.info("journal replayed", file=claimed.path.name, entries=len(claimed.entries))
            return
        file.attempts += 1
        file.not_before = self._loop.time() + self._again.seconds(file.attempts)
        if lost is None and (len(remaining) < len(claimed.entries) or not claimed.waits_for_organizations):
            self._shorten(claimed, remaining)
        # The others have their markers, should this process die before the file is shortened.
        claimed.entries = remaining
        reason = "unpublished organizations" if lost is None else str(lost)
        log.warning("journal entries kept", file=claimed.path.name, entries=len(remaining), reason=reason)
        if unknown:
            for org in sorted({entry.org for entry in remaining}):
                self._hydrator.ask(org, lambda published: None)

    def _shorten(self, claimed: ClaimedFile, entries: list[JournalEntry]) -> None:
        try:
            claimed.shorten(entries)
        except OSError as e:
            log.error("journal cannot be shortened", file=claimed.path.name, reason=str(e))

    async def _void_one(self, org: str, request_id: str) -> None:
        reply = await self._send(org, request_id, ())
        if isinstance(reply, Lost):
            return
        del self._void[request_id]
        if reply.outcome is ReplayOutcome.REPLAYED_BEFORE and reply.receipt:
            self._settlements.give_back(org, reply.receipt, "its upstream failed while Redis was away")

    def _send(
        self, path: str, request_id: str, charges: tuple[tuple[str, int], ...]
    ) -> "asyncio.Future[Replayed | Lost]":
        answer: asyncio.Future[Replayed | Lost] = self._loop.create_future()

        def on_reply(reply: Any) -> None:
            if not answer.done():
                answer.set_result(reply if isinstance(reply, Lost) else decode_replayed(reply))

        self._link.run(replay_call(path, request_id, dict(charges), self._shards), on_reply)
        return answer
