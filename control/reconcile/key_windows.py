"""The windows of API keys' own quotas that are compared with their events."""

from collections.abc import Sequence
from dataclasses import dataclass

from control import sql
from control.db import Database
from control.entitlements.restore_nodes import Window, windows
from control.ledger.streams import Streams
from control.moments import moment
from quota.calls.snapshots import decode_snapshot
from quota.ledger import Ledger

NO_EVENTS = f"{2**64 - 1}-0"
SKEW_SECONDS = 60  # of the clocks of Postgres and Redis


@dataclass(frozen=True, slots=True)
class CurrentWindows:
    windows: tuple[Window, ...] = ()
    changed: frozenset[Window] = frozenset()
    """Those in which the key's quotas were changed: what was charged before may be counted or not."""


async def current_windows(
    db: Database, ledger: Ledger, streams: Streams, shard: int, orgs: Sequence[str]
) -> CurrentWindows:
    """Of published keys of organizations that Redis holds, all of one shard.

    Raises StoreUnavailable, LedgerUnavailable."""
    async with db.connection() as connection:
        limited = await sql.keys.limited(connection, orgs=list(orgs))
    if not limited:
        return CurrentWindows()
    now = await streams.now_ms() / 1000
    owners = sorted({key.org for key in limited})
    hashes = (await ledger.tail(shard, owners, NO_EVENTS, 0)).hashes
    starts = {}
    for org, fields in hashes.items():
        starts[org] = next((period.start for period in decode_snapshot(0, fields).periods if now in period), None)
    found, changed = [], set[Window]()
    for key in limited:
        if key.org in starts:
            current = windows(key, now, starts[key.org])
            found += current
            if key.quotas_changed_at is not None:
                changed_at = key.quotas_changed_at
                changed |= {window for window in current if moment(window.start - SKEW_SECONDS) <= changed_at}
    return CurrentWindows(tuple(found), frozenset(changed))
