"""The mirror's inbox: an event is filed and answered, and what it names is looked at afterwards.

Of one object at most one look is under way, and it answers all events that came before it began. Now and then
everything is looked at: that finds what no event told of.
"""

import asyncio
import random
from datetime import datetime
from typing import Protocol

import structlog

from common.backoff import Backoff
from common.clock import Clock
from control import incidents, sql
from control.access.people.mirror.client import ClerkAway, ClerkRefused
from control.access.people.mirror.objects import EVERYTHING, Subject
from control.db import Database, StoreUnavailable
from control.moments import moment
from control.sql.mirror import Look

log = structlog.get_logger()

AT_ONCE = 8
POLL_SECONDS = 1.0
CLAIM_SECONDS = 120.0
WORK_SECONDS = 100.0  # less than a claim lasts
KEPT_SECONDS = 35 * 86_400  # Svix tries for days; after that no delivery comes again
DROP_EVERY_SECONDS = 3600.0
BACKOFF = Backoff(first_seconds=1, max_seconds=600, jitter=0.2)
ATTEMPTS_QUIET = 8  # about four minutes: then an admin is told
FAILED = "mirror_failed"
REFUSED = "mirror_key_refused"


class Converge(Protocol):
    async def __call__(self, look: Look, until: datetime) -> None: ...


class MirrorInbox:
    name = "mirror"

    def __init__(self, db: Database, converge: Converge, resync_seconds: float, clock: Clock) -> None:
        self._db = db
        self._converge = converge
        self._resync_seconds = resync_seconds
        self._clock = clock
        self._arrived = asyncio.Event()

    async def file(self, id_: str, type_: str, subject: Subject | None) -> bool:
        """Files an event; False where it has come before. `subject` None: it means nothing here. Raises
        StoreUnavailable."""
        at = moment(self._clock())
        async with self._db.transaction() as connection:
            is_new = await sql.mirror.file_event(connection, id=id_, type=type_, at=at) is not None
            if is_new and subject is not None:
                await sql.mirror.ask(connection, kind=subject.kind.value, subject=subject.id, at=at)
        self._arrived.set()
        return is_new

    async def ask(self, subject: Subject) -> None:
        """Asks for a look. Raises StoreUnavailable."""
        async with self._db.connection() as connection:
            await sql.mirror.ask(connection, kind=subject.kind.value, subject=subject.id, at=moment(self._clock()))
        self._arrived.set()

    async def waiting(self) -> int:
        async with self._db.connection() as connection:
            return await sql.mirror.waiting(connection)

    async def run(self) -> None:
        """Until it is cancelled. Raises StoreUnavailable; whoever runs it starts it again."""
        loop = asyncio.get_running_loop()
        drop_at = loop.time()
        while True:
            self._arrived.clear()
            await self._ask_for_everything()
            if await self.work():
                continue
            if loop.time() >= drop_at:
                async with self._db.connection() as connection:
                    await sql.mirror.drop_events(connection, before=moment(self._clock() - KEPT_SECONDS))
                drop_at = loop.time() + DROP_EVERY_SECONDS
            try:
                async with asyncio.timeout(POLL_SECONDS):
                    await self._arrived.wait()
            except TimeoutError:
                pass

    async def settle(self) -> None:
        """Does all that is due now: for tests."""
        while await self.work():
            pass

    async def work(self) -> int:
        """Looks at what is due; returns how many looks that were."""
        now = self._clock()
        until = moment(now + CLAIM_SECONDS)
        async with self._db.connection() as connection:
            looks = await sql.mirror.claim(connection, at=moment(now), until=until, limit_rows=AT_ONCE)
        await asyncio.gather(*(self._attempt(look, until) for look in looks))
        return len(looks)

    async def _ask_for_everything(self) -> None:
        now, kind = self._clock(), EVERYTHING.kind.value
        async with self._db.connection() as connection:
            await sql.mirror.ask_again(
                connection, kind=kind, subject="", at=moment(now), before=moment(now - self._resync_seconds)
            )

    async def _attempt(self, look: Look, until: datetime) -> None:
        try:
            async with asyncio.timeout(WORK_SECONDS):
                await self._converge(look, until)
            async with self._db.transaction() as connection:
                for kind, key in ((FAILED, _key(look)), (REFUSED, "clerk")):
                    await incidents.close(connection, self._clock(), kind, key)
        except (ClerkAway, StoreUnavailable, TimeoutError) as e:
            log.warning("a look at Clerk waits", kind=look.kind, subject=look.subject, reason=str(e) or "too slow")
            await self._failed(look, until, str(e) or "it took too long", refused=False)
        except ClerkRefused as e:
            log.error("Clerk refuses a look", kind=look.kind, subject=look.subject, reason=str(e))
            await self._failed(look, until, str(e), refused=True)
        except Exception as e:
            log.exception("a look at Clerk failed", kind=look.kind, subject=look.subject)
            await self._failed(look, until, f"{type(e).__name__}: {e}", refused=False)

    async def _failed(self, look: Look, until: datetime, error: str, *, refused: bool) -> None:
        now, error = self._clock(), error.replace("\x00", "")[:500]
        pause = BACKOFF.seconds(look.attempts, random.uniform(-1, 1))  # noqa: S311  spreads load, guards nothing
        try:
            async with self._db.transaction() as connection:
                await sql.mirror.fail(
                    connection,
                    kind=look.kind,
                    subject=look.subject,
                    until=until,
                    next_attempt_at=moment(now + pause),
                    error=error,
                )
                if refused:
                    await incidents.open(connection, now, REFUSED, "clerk", None, {"reason": error})
                elif look.attempts >= ATTEMPTS_QUIET:
                    content = {"kind": look.kind, "subject": look.subject, "reason": error}
                    await incidents.open(connection, now, FAILED, _key(look), None, content)
        except StoreUnavailable as e:
            log.warning("a look at Clerk stays claimed", reason=str(e))


def _key(look: Look) -> str:
    return f"{look.kind}:{look.subject}"
