"""Which key a text is, and what happens to one that was found in public."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from control import incidents
from control.access.keys import store
from control.access.keys.leak_reports import Leak
from control.access.keys.terms import State
from control.db import Database
from control.journal import Author
from control.sql.keys import Key
from identity.api_key import hash_of, parse

LEAKED: Final = "key_leaked"


@dataclass(frozen=True, slots=True)
class Judged:
    well_formed: bool
    """Whether it has the form and the checksum of our keys."""
    sha256: bytes
    key: Key | None
    """None: it is no key of anybody here."""


@dataclass(frozen=True, slots=True)
class Found:
    leak: Leak
    judged: Judged
    revoked_now: bool
    """Whether it was revoked for this report, and so waits to be published."""


async def judge(db: Database, text: str, prefix: str) -> Judged:
    """Looks a text up by its hash. The text itself is neither stored nor logged. Raises StoreUnavailable."""
    raw = text.encode("utf-8", "surrogateescape")
    well_formed, sha256 = parse(raw, prefix.encode()) is not None, hash_of(raw)
    return Judged(well_formed, sha256, await store.by_digest(db, sha256[:16]))


async def handle(
    db: Database, leaks: Sequence[Leak], prefix: str, now: float, author: Author, *, revoke: bool
) -> list[Found]:
    """Opens an incident for each key of ours that can still be used, and revokes it where the settings say so.

    The caller publishes. Raises StoreUnavailable."""
    found = []
    for leak in leaks:
        judged = await judge(db, leak.token, prefix)
        usable = judged.key is not None and judged.key.state != State.REVOKED.value and judged.key.dropped_at is None
        if judged.key is not None and usable:
            await _report(db, judged.key, leak, now, author, revoke=revoke)
        found.append(Found(leak, judged, revoke and judged.key is not None))
    return found


async def _report(db: Database, key: Key, leak: Leak, now: float, author: Author, *, revoke: bool) -> None:
    content = {
        "key": key.id,
        "name": key.name,
        "starts_with": key.starts_with,
        "url": leak.url,
        "source": leak.source,
        "type": leak.token_type,
        "revoked": revoke,
    }
    async with db.transaction() as connection:
        await incidents.open(connection, now, LEAKED, key.id, key.org, content)
        if revoke:
            await store.revoke_in(connection, key.org, key.id, now, author, "found in public")
