"""Money that is given in parts counts together: a bound that parts pass under is none.

What counts is in the journal: credit and refunds of the last hours, of the organization or by the same person,
whichever is more. What a second person has approved does not count, and neither does what Stripe refused.
"""

from datetime import timedelta

from common.clock import Clock
from control import sql
from control.actions.persons import person_behind
from control.aliases import named_actors
from control.billing.failures import SecondPersonNeeded
from control.db import Connection, Database
from control.journal import Author
from control.moments import moment
from control.settings.approvals import Approvals


async def given_lately(connection: Connection, approvals: Approvals, org: str, actor: str, now: float) -> int:
    """Minor units, of whichever currency."""
    since = moment(now) - timedelta(hours=approvals.window_hours)
    rows = await sql.actions.given_since(connection, since=since)
    if not rows:
        return 0
    names = await named_actors(connection, (row.actor for row in rows))
    persons = {stored: await person_behind(connection, name) for stored, name in names.items()}
    person = await person_behind(connection, actor)
    by_person = sum(row.amount_minor for row in rows if persons[row.actor] == person)
    return max(by_person, sum(row.amount_minor for row in rows if row.org == org))


async def needs_second_person(
    connection: Connection,
    approvals: Approvals,
    action: str,
    amount_minor: int | None,
    org: str,
    actor: str,
    now: float,
) -> bool:
    """`amount_minor`: of money that is moved; None: it is not known, or none is."""
    if approvals.need(action, amount_minor):
        return True
    if action not in approvals.actions or amount_minor is None:
        return False
    return approvals.need(action, amount_minor + await given_lately(connection, approvals, org, actor, now))


class GivenBound:
    """Two parts that are given at once see each other here, at the latest: each is in the journal by then."""

    def __init__(self, db: Database, approvals: Approvals, clock: Clock) -> None:
        self._db = db
        self._approvals = approvals
        self._clock = clock

    async def check(self, action: str, org: str, author: Author) -> None:
        if action not in self._approvals.actions:
            return
        async with self._db.connection() as connection:
            given = await given_lately(connection, self._approvals, org, author.actor, self._clock())
        if self._approvals.need(action, given):
            raise SecondPersonNeeded("With what was given lately, this needs a second person.")
