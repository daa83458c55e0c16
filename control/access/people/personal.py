"""What is stored of a person, as one document; and its erasure.

A person is a user (by the id in tokens), somebody of the vendor (by e-mail address or the provider's id), or both.
What is erased, what stays and why is in docs/privacy.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final
from uuid import UUID

from control import aliases, journal, sql
from control.access.people import users
from control.aliases import Told, new_alias, owner_of
from control.cursors import Page, read_page
from control.db import Connection, Database, Joined
from control.journal import Author, Change
from control.sql.journal import Entry
from control.sql.personal import Stored, Used

ROWS_MAX: Final = 1000
"""Of each kind, in an export."""
ENTRIES_MAX: Final = 10_000
SEARCH_SECONDS: Final = 25.0


_DELETED: Final = "deleted"
_ERASURES: Final[Mapping[str, str]] = {
    "admin_role": _DELETED,
    "api_key": "stays, and is refused",
    "app_user": "the id stays, without address and name",
    "audit_journal": "stays, under aliases that stand for nobody",
    "console_link": _DELETED,
    "console_link.created_by": _DELETED,
    "membership": _DELETED,
    "portal_link": _DELETED,
    "portal_link.created_by": _DELETED,
    "portal_session": _DELETED,
    "portal_session.opened_by": _DELETED,
    "refusal": "stays, without the user",
    "session": _DELETED,
    "usage_event": "stays, under the user's id",
}


class PersonUnknown(Exception):
    """Nothing is stored of such a person."""


class PersonAmbiguous(Exception):
    """Several users have the address; the message names them."""


@dataclass(frozen=True, slots=True)
class Named:
    """How somebody names a person: at least one of these."""

    user: str | None = None
    email: str | None = None
    subject: str | None = None
    """provider:subject, as in the list of sessions."""


@dataclass(frozen=True, slots=True)
class Person:
    users: tuple[str, ...]
    emails: tuple[str, ...]
    """In lower case."""
    subjects: tuple[str, ...]

    @property
    def identities(self) -> list[str]:
        """By which tables name who did something."""
        return [*self.emails, *self.subjects]

    @property
    def owners(self) -> list[str]:
        """Whose aliases the journal has."""
        return [*self.identities, *self.users]


@dataclass(frozen=True, slots=True)
class Export:
    person: Person
    organizations: Sequence[str]
    """In which the user was something."""
    rows: Mapping[str, Sequence[Mapping[str, Any]]]
    """By table, or by table and column that names the person."""
    usage: Sequence[Used]
    journal: Sequence[Entry]
    stripe_customers: Sequence[str]
    """Of the person's organizations: what Stripe holds of a person is exported there."""
    is_cut: bool
    """There is more of something than an export has."""


@dataclass(frozen=True, slots=True)
class Erased:
    person: Person
    alias: str
    """By which what the person did is told from what others did."""
    rows: Mapping[str, int]
    """How many were deleted or changed, by table or column."""
    organizations: Sequence[str]
    """To be published, since tokens and keys of the user are refused there from now on."""
    stripe_customers: Sequence[str]


async def look(db: Database, named: Named) -> Export:
    """What is stored. Raises PersonUnknown, PersonAmbiguous, ReadTooLong."""
    async with db.planned_anew(SEARCH_SECONDS) as connection:
        person = await _find(connection, named)
        stored = await _rows(connection, person)
        entries = await _entries(connection, person)
        if not stored and not entries:
            raise PersonUnknown
        orgs = await sql.personal.organizations(connection, users=person.users)
        usage = await sql.personal.usage(connection, orgs=orgs, users=person.users)
        customers = await sql.personal.customers(connection, orgs=orgs)
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for row in stored:
        rows.setdefault(row.place, []).append(row.content)
    is_cut = len(entries) == ENTRIES_MAX or any(len(each) >= ROWS_MAX for each in rows.values())
    return Export(person, orgs, rows, usage, entries, customers, is_cut)


async def export(db: Database, named: Named, now: float, author: Author) -> Export:
    """The same, for somebody who takes it along: the journal has who did. Raises as `look` does."""
    found = await look(db, named)
    async with db.transaction() as connection:
        await journal.record(connection, author, now, [Change("person.exported", None, None, _content(found.person))])
    return found


async def erase(db: Database, named: Named, now: float, author: Author, reason: str | None = None) -> Erased:
    """All of it in one transaction. Whoever is erased already may be erased again, and the same organizations are to be
    published: Redis may have been away the first time. `reason`: for the journal.

    Raises PersonUnknown, PersonAmbiguous, UserMirrored, LastOwner."""
    async with db.transaction() as connection:
        person = await _find(connection, named)
        if not await _rows(connection, person) and not await _entries(connection, person):
            raise PersonUnknown
        orgs = await sql.personal.organizations(connection, users=person.users)
        customers = await sql.personal.customers(connection, orgs=orgs)
        published: list[str] = []
        for user in person.users:
            stored = await sql.people.lock_user(connection, id=user)
            if stored is not None and stored.deleted_at is None:
                published += await users.delete(Joined(connection), user, now, author)
        known = await sql.aliases.of_owners(connection, owners=person.owners)
        alias = known[0].alias if known else new_alias()
        rows = await _forget(connection, person, alias)
        content = {**_content(person), "alias": alias, "rows": rows} | ({} if reason is None else {"reason": reason})
        change = Change("person.erased", None, None, content)
        await journal.record(connection, author, now, [change])
        rows["journal_alias"] = len(await sql.aliases.forget(connection, owners=person.owners))
    return Erased(person, alias, rows, sorted({*orgs, *published}), customers)


async def requests(db: Database, before: UUID | None, limit: int) -> Page[Entry, UUID]:
    """Exports and erasures as the journal has them, the newest first. Raises CursorUnknown."""
    async with db.connection() as connection:
        page = await read_page(
            "before",
            before,
            limit,
            exists=lambda id_: sql.journal.time_of(connection, org=None, id=id_),
            read=lambda id_, rows_max: sql.personal.requests(connection, before=id_, limit_rows=rows_max),
            cursor_of=lambda entry: entry.id,
        )
        return Page(await aliases.named(connection, page.rows), page.next)


def erasure_of(place: str) -> str:
    """What an erasure makes of the rows at a place: a table, or a table's column."""
    return _ERASURES.get(place) or ("an alias in place of the person" if "." in place else "stays")


async def _forget(connection: Connection, person: Person, alias: str) -> dict[str, int]:
    one, both = person.identities, {"users": person.users, "identities": person.identities}
    counts = {
        "session": len(await sql.personal.forget_sessions(connection, identities=one)),
        "console_link": len(await sql.personal.forget_links(connection, identities=one)),
        "portal_session": len(await sql.personal.forget_portal_sessions(connection, **both)),
        "portal_link": len(await sql.personal.forget_portal_links(connection, **both)),
        "admin_role": len(await sql.personal.forget_admin_roles(connection, identities=one)),
        "refusal": len(await sql.personal.forget_refusals(connection, users=person.users)),
    }
    for renamed in await sql.personal.rename(connection, identities=one, emails=person.emails, alias=alias):
        counts[renamed.place] = counts.get(renamed.place, 0) + renamed.changed
    return {place: count for place, count in counts.items() if count}


async def _find(connection: Connection, named: Named) -> Person:
    """All names of a person, whichever somebody knows. Raises PersonAmbiguous."""
    ids = {named.user} if named.user else set()
    identities = {owner_of(each) for each in (named.email, named.subject) if each}
    if named.email and not named.user:
        having = await sql.personal.users_with_email(connection, email=named.email)
        if len(having) > 1:
            raise PersonAmbiguous(", ".join(having))
        ids.update(having)
    for id_ in ids:
        user = await sql.people.user(connection, id=id_)
        if user is not None and user.email:
            identities.add(owner_of(user.email))
    identities.update(map(owner_of, await sql.personal.of_sessions(connection, identities=sorted(identities))))
    known = await sql.aliases.of_owners(connection, owners=sorted(identities))
    identities.update(await sql.personal.of_sign_ins(connection, aliases=[row.alias for row in known]))
    emails = sorted(each for each in identities if "@" in each and ":" not in each)
    return Person(tuple(sorted(ids)), tuple(emails), tuple(sorted(identities - set(emails))))


async def _rows(connection: Connection, person: Person) -> Sequence[Stored]:
    return await sql.personal.rows(
        connection, users=person.users, identities=person.identities, emails=person.emails, limit_rows=ROWS_MAX
    )


async def _entries(connection: Connection, person: Person) -> Sequence[Entry]:
    known = [row.alias for row in await sql.aliases.of_owners(connection, owners=person.owners)]
    names = [*known, *person.owners]
    found = await sql.personal.journal(connection, words=names, limit_rows=ENTRIES_MAX)
    # Words are looked up without what is between them: `a-b` is found where `a b` is.
    return await aliases.named(connection, [entry for entry in found if _names_one(entry, names)])


def _names_one(entry: Entry, names: Sequence[str]) -> bool:
    told = repr(Told(entry.actor, entry.before, entry.after))
    return any(name in told for name in names)


def _content(person: Person) -> dict[str, Any]:
    """For the journal, which has aliases in place of what is not the user's id."""
    return {"users": list(person.users), "emails": list(person.emails), "person": list(person.subjects)}


def document(export_: Export) -> dict[str, Any]:
    """As one JSON document."""
    return {
        "users": list(export_.person.users),
        "emails": list(export_.person.emails),
        "subjects": list(export_.person.subjects),
        "rows": export_.rows,
        "usage": [asdict(each) for each in export_.usage],
        "journal": [asdict(each) for each in export_.journal],
        "stripe_customers": list(export_.stripe_customers),
        "is_cut": export_.is_cut,
    }
