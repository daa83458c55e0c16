"""The background service that keeps the directory: what organizations are searched, filtered and sorted by.

Where an organization changes, triggers put it on a list (`organization_review`), in the transaction of the change. What
it uses moves too often for that: the writer says here which counters moved, and an organization is read again when it
has used another thousandth of its smallest allowance. What a process knew when it died is found by the next walk over
all organizations, which begins when a process starts, and is slow.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from common.clock import Clock, system_clock
from control import sql
from control.db import Connection, Database
from control.directory.reading import read_summaries
from control.directory.summary import STEPS, Summary, row_of
from control.directory.terms import EMAILS_MAX, terms, trigrams
from control.moments import moment
from control.sql.directory import TermsRow
from quota.model import UNITS_MAX

ROUND_SECONDS: Final = 1.0
WALK_SECONDS: Final = 3600.0
WALK_PAUSE_SECONDS: Final = 0.1
UNREADABLE_SECONDS: Final = 3600.0  # then an organization that could not be read is tried again
ROUND_ORGANIZATIONS: Final = 200
WALK_ORGANIZATIONS: Final = 50
STEPS_KNOWN_MAX: Final = 200_000  # organizations; then all are forgotten, and learned again


@dataclass(slots=True)
class Moves:
    """What organizations have used since their summaries were made."""

    _used: dict[str, int] = field(default_factory=dict)
    _steps: dict[str, int] = field(default_factory=dict)
    """Units that change a summary; of others nothing is known, and each move is looked at."""
    _moved: set[str] = field(default_factory=set)

    def add(self, usage: Mapping[tuple[str, int, str], Sequence[int]]) -> None:
        """Counters that moved, by organization, period and meter: what was used first."""
        for (org, _, _), (units, *_) in usage.items():
            used = self._used.get(org, 0) + abs(units)
            self._used[org] = used
            if used >= self._steps.get(org, 0):
                self._moved.add(org)

    def take(self, orgs_max: int) -> list[str]:
        """Organizations that are to be read again."""
        taken = [self._moved.pop() for _ in range(min(orgs_max, len(self._moved)))]
        for org in taken:
            self._used.pop(org, None)
        return taken

    def put_back(self, orgs: Sequence[str]) -> None:
        self._moved.update(orgs)

    def learn(self, summary: Summary) -> None:
        if len(self._steps) >= STEPS_KNOWN_MAX:
            self._steps.clear()
        limits = [each.allowance + each.granted for each in summary.meters]
        self._steps[summary.org] = min((limit for limit in limits if limit), default=UNITS_MAX * STEPS) // STEPS


class Directory:
    name = "directory"

    def __init__(self, db: Database, clock: Clock = system_clock) -> None:
        self._db = db
        self._clock = clock
        self.moves = Moves()

    async def run(self) -> None:
        """Until it is cancelled. Raises StoreUnavailable; whoever runs it starts it again."""
        loop = asyncio.get_running_loop()
        walk_at, walked = loop.time(), ""
        while True:
            changed = await self.round()
            if changed >= ROUND_ORGANIZATIONS:
                continue
            if loop.time() < walk_at:
                await asyncio.sleep(ROUND_SECONDS)
                continue
            walked = await self.walk_on(walked)
            if not walked:
                walk_at = loop.time() + WALK_SECONDS
            await asyncio.sleep(WALK_PAUSE_SECONDS)

    async def round(self) -> int:
        """Reads organizations again that changed, by an event or by time alone; returns how many."""
        changed = await self._moved()
        async with self._db.connection() as connection:
            # Nothing is due nearly always, and a transaction would be three questions for one.
            if not await sql.directory.is_due(connection, at=moment(self._clock())):
                return changed
        return changed + await self._reviewed() + await self._stale()

    async def walk_on(self, after: str) -> str:
        """Reads some organizations again that come behind `after`; returns the last of them, or '' behind the last."""
        async with self._db.connection() as connection:
            orgs = await sql.directory.walk(connection, after=after, limit_rows=WALK_ORGANIZATIONS)
        if not orgs:
            return ""
        async with self._db.transaction() as connection:
            await self._refresh(connection, orgs, with_terms=True)
        return orgs[-1]

    async def _reviewed(self) -> int:
        async with self._db.transaction() as connection:
            orgs = await sql.directory.take_reviews(connection, limit_rows=ROUND_ORGANIZATIONS)
            await self._refresh(connection, orgs, with_terms=True)
        return len(orgs)

    async def _moved(self) -> int:
        orgs = self.moves.take(ROUND_ORGANIZATIONS)
        if not orgs:
            return 0
        try:
            async with self._db.transaction() as connection:
                await self._refresh(connection, orgs, with_terms=False)
        except BaseException:
            self.moves.put_back(orgs)
            raise
        return len(orgs)

    async def _stale(self) -> int:
        async with self._db.connection() as connection:
            orgs = await sql.directory.stale(connection, at=moment(self._clock()), limit_rows=ROUND_ORGANIZATIONS)
        if orgs:
            async with self._db.transaction() as connection:
                await self._refresh(connection, orgs, with_terms=False)
        return len(orgs)

    async def _refresh(self, connection: Connection, orgs: Sequence[str], *, with_terms: bool) -> None:
        if not orgs:
            return
        # In one order, so that two processes that write the same organizations wait, and do not block each other.
        orgs = sorted(set(orgs))
        await sql.directory.hold(connection, orgs=orgs)
        summaries = await read_summaries(connection, orgs, self._clock())
        for summary in summaries.values():
            self.moves.learn(summary)
        await sql.directory.put_summary(connection, [row_of(summaries[org]) for org in orgs if org in summaries])
        if unread := [org for org in orgs if org not in summaries]:
            until = moment(self._clock() + UNREADABLE_SECONDS)
            await sql.directory.defer(connection, orgs=unread, until=until)
        if with_terms:
            texts = await sql.directory.texts(connection, orgs=orgs, emails_max=EMAILS_MAX)
            words = {each.org: terms(each.org, each.name, each.emails, each.customers) for each in texts}
            rows = [TermsRow(org, words[org], trigrams(words[org])) for org in sorted(words)]
            await sql.directory.put_terms(connection, rows)
