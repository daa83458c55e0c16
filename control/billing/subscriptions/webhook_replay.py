"""Replay: events are processed again, from the inbox or, where they never arrived, from Stripe's own list."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import stripe

from control import journal, sql
from control.billing.client import one, pages
from control.billing.failures import StripeMissing
from control.billing.subscriptions.inbox import DEAD, Inbox
from control.db import Database
from control.journal import Author, Change
from control.moments import moment, rfc3339


@dataclass(slots=True)
class ReplayedEvents:
    replayed: int = 0
    fetched: int = 0
    unknown: list[str] = field(default_factory=list)


async def by_id(
    db: Database, client: stripe.StripeClient, inbox: Inbox, ids: Sequence[str], now: float, author: Author
) -> ReplayedEvents:
    """Raises StripeAway, StripeRefused, StoreUnavailable."""
    result = ReplayedEvents()
    async with db.transaction() as connection:
        rows = await sql.webhooks.requeue(connection, ids=list(ids), at=moment(now))
        in_inbox = set(rows)
        await sql.webhooks.close_dead(connection, kind=DEAD, at=moment(now))
        change = Change("webhooks.replayed", None, None, {"events": sorted(ids)})
        await journal.record(connection, author, now, [change])
    for event_id in ids:
        if event_id not in in_inbox:
            try:
                await inbox.file([await one(client, "events", event_id)])
            except StripeMissing:
                result.unknown.append(event_id)
            else:
                result.fetched += 1
    result.replayed = len(in_inbox) + result.fetched
    inbox.wake()
    return result


async def between(
    db: Database,
    client: stripe.StripeClient | None,
    inbox: Inbox,
    since: float,
    until: float,
    now: float,
    author: Author,
) -> ReplayedEvents:
    """Those that Stripe created from `since` until before `until`; `client`: what its list has is fetched, too.

    Raises StripeAway, StripeRefused, StoreUnavailable."""
    result = ReplayedEvents()
    if client is not None:
        created = {"gte": int(since), "lt": int(until)}
        events = await pages(client, "/v1/events", {"created": created})
        if events:
            result.fetched = len(await inbox.file(events))
    async with db.transaction() as connection:
        rows = await sql.webhooks.requeue_between(connection, since=moment(since), until=moment(until), at=moment(now))
        result.replayed = len(rows)
        await sql.webhooks.close_dead(connection, kind=DEAD, at=moment(now))
        content = {"since": rfc3339(since), "until": rfc3339(until), "events": result.replayed}
        await journal.record(connection, author, now, [Change("webhooks.replayed", None, None, content)])
    inbox.wake()
    return result


async def dead(db: Database, inbox: Inbox, now: float, author: Author) -> ReplayedEvents:
    """All that were given up. Raises StoreUnavailable."""
    async with db.transaction() as connection:
        replayed = await sql.webhooks.requeue_dead(connection, at=moment(now))
        if replayed:
            await sql.webhooks.close_dead(connection, kind=DEAD, at=moment(now))
            content = {"state": "dead", "events": replayed}
            await journal.record(connection, author, now, [Change("webhooks.replayed", None, None, content)])
    inbox.wake()
    return ReplayedEvents(replayed)
