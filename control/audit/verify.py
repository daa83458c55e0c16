"""`quotagate audit verify`: checks, from the tables alone, whether the journal is what was sealed."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from control import sql
from control.audit.chain import BEGINNING, ChainBroken, Walk, hash_of
from control.db import Connection, Database

PAGE_SEALS = 5000
UNSEALED_SECONDS = 60.0
LATE_SECONDS = 3600.0  # a transaction can take so long, and its entries may tell the time of its beginning


@dataclass(frozen=True, slots=True)
class Head:
    """A seal in the form in which it is noted elsewhere: `SEQ:HASH`."""

    seq: int
    hash: bytes

    @classmethod
    def parse(cls, text: str) -> "Head":
        """Raises ValueError."""
        seq, _, hash_ = text.partition(":")
        head = cls(int(seq), bytes.fromhex(hash_))
        if head.seq < 0 or len(head.hash) != len(BEGINNING):
            raise ValueError(text)
        return head

    def __str__(self) -> str:
        return f"{self.seq}:{self.hash.hex()}"


@dataclass(frozen=True, slots=True)
class ChainVerdict:
    head: Head
    """The last seal; 0 and zeros where there is none."""
    verified: int
    """Seals that were recomputed and are good."""
    waiting: int
    """Entries that are not sealed yet."""
    broken: ChainBroken | None


async def verify(
    connection: Connection,
    start: int = 1,
    expected: Sequence[Head] = (),
    unsealed_seconds: float = UNSEALED_SECONDS,
    late_seconds: float = LATE_SECONDS,
) -> ChainVerdict:
    """Recomputes the chain from the seal `start` on, believing the one before it, and looks for entries without a seal.

    `connection` reads one moment. Raises ValueError where nothing comes before `start`."""
    last = await sql.audit.head(connection)
    head = Head(last.seq, last.hash) if last else Head(0, BEGINNING)
    waiting = (await sql.audit.waiting(connection)).entries
    broken = None
    for noted in expected:
        broken = broken or await _still_there(connection, noted, head)
    before = await sql.audit.seal_before(connection, seq=start) if start > 1 else None
    if start > 1 and before is None and broken is None:
        raise ValueError(f"there is no seal {start - 1} to go on from; the last one is {head.seq}")
    hash_, latest = (before.hash, before.latest) if before else (BEGINNING, None)
    walk = Walk(start - 1, hash_, latest, late_seconds)
    # A chain that does not hold a noted head is walked all the same: the first broken entry says more.
    broken_entry = await _walked(connection, walk, head) if before or start == 1 else None
    return ChainVerdict(
        head, walk.seq - start + 1, waiting, broken_entry or broken or await _unsealed(connection, unsealed_seconds)
    )


async def verify_part(connection: Connection, after: int, seals_max: int) -> ChainVerdict:
    """Recomputes so many seals behind the seal `after`, believing that one: for a look at a chain that is too long for
    a request. An entry that was inserted afterwards is found where one of the part is much later.

    `connection` reads one moment. Raises ValueError where there is no seal `after`."""
    last = await sql.audit.head(connection)
    head = Head(last.seq, last.hash) if last else Head(0, BEGINNING)
    before = await sql.audit.seal_at(connection, seq=after) if after else None
    if after and before is None:
        raise ValueError(f"there is no seal {after} to go on from; the last one is {head.seq}")
    walk = Walk(after, before.hash if before else BEGINNING, None, LATE_SECONDS)
    broken = None
    for row in await sql.audit.seals(connection, after=after, up_to=after + seals_max):
        broken = walk.step(row)
        if broken is not None:
            break
    waiting = (await sql.audit.waiting(connection)).entries
    return ChainVerdict(head, walk.seq - after, waiting, broken)


async def proved(connection: Connection, entries: Sequence[UUID]) -> Mapping[UUID, bool]:
    """Of those that are sealed, whether each is what was sealed."""
    rows = await sql.audit.seals_of(connection, ids=entries)
    return {UUID(row.id): hash_of(row.previous or BEGINNING, row) == row.hash for row in rows}


async def _walked(connection: Connection, walk: Walk, head: Head) -> ChainBroken | None:
    after = walk.seq
    while after < head.seq:
        page = await sql.audit.seals(connection, after=after, up_to=after + PAGE_SEALS)
        for row in page:
            broken = walk.step(row)
            if broken is not None:
                return broken
        after += PAGE_SEALS
    return None


async def _still_there(connection: Connection, noted: Head, head: Head) -> ChainBroken | None:
    if noted.seq == 0:
        return None
    seal = await sql.audit.seal_at(connection, seq=noted.seq)
    if seal is None and noted.seq > head.seq:
        return ChainBroken(
            noted.seq, None, f"truncated: the chain ends at {head.seq}, and was known to reach {noted.seq}"
        )
    if seal is None:
        return ChainBroken(noted.seq, None, "missing: there is no such seal, and it was noted")
    if seal.hash != noted.hash:
        return ChainBroken(
            noted.seq, None, f"written anew: its hash is {seal.hash.hex()}, noted was {noted.hash.hex()}"
        )
    return None


async def _unsealed(connection: Connection, unsealed_seconds: float) -> ChainBroken | None:
    lost = await sql.audit.lost_before_seal(connection)
    if lost is not None:
        return ChainBroken(None, lost, "missing: it was written, and is gone before it was sealed")
    entry = await sql.audit.without_seal(connection, older_than_seconds=unsealed_seconds)
    if entry is None:
        return None
    if entry.waits:
        return ChainBroken(None, entry.id, f"unsealed for {entry.seconds} s: does the control plane run?")
    return ChainBroken(None, entry.id, "inserted around the seals, or its seal was taken away")


def run(dsn: str, start: int, expected: Sequence[Head], unsealed_seconds: float, late_seconds: float) -> ChainVerdict:
    """For the command line, with an event loop of its own. Raises StoreUnavailable, RightsMissing, ValueError."""

    async def do() -> ChainVerdict:
        async with Database.open(dsn, connections_max=1, timeout_seconds=3600) as db:
            await db.check_schema()
            async with db.snapshot() as connection:
                return await verify(connection, start, expected, unsealed_seconds, late_seconds)

    return asyncio.run(do())
