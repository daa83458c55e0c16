"""Marks: they refuse tokens by an id that these carry, and API keys by their user and organization.

A mark is published with the organization's entitlement, and so is in force in every gateway when the call that set it
is answered. One with `issued_until` refuses only what was issued until then. An API key does not say when it was
issued, so that keys which such a mark means are revoked with it, in the same version.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from control import journal, sql
from control.cursors import Page, read_page
from control.db import Connection, Database
from control.journal import Author, Change
from control.moments import moment
from control.organizations.store import OrganizationUnknown
from control.sql.revocations import Revocation
from quota.access import MarkKind

PUBLISHED_MAX: Final = 100_000  # of one organization; see keys/store.py


class TooManyMarks(Exception):
    """The organization has as many marks in force as it can."""


@dataclass(frozen=True, slots=True)
class Marked:
    revocation: Revocation
    keys_revoked: int
    """API keys that were revoked with it."""


async def set_mark(
    connection: Connection,
    org: str,
    kind: MarkKind,
    subject: str,
    now: float,
    author: Author,
    *,
    issued_until: datetime | None = None,
    expires_at: datetime | None = None,
    reason: str | None = None,
) -> Marked:
    """Sets a mark, in the caller's transaction. The caller publishes after its commit (`publishing.enforce`).

    `expires_at`: nothing that the mark refuses lives longer. Raises OrganizationUnknown, TooManyMarks."""
    if await sql.organizations.lock(connection, org=org) is None:
        raise OrganizationUnknown(org)
    before = await sql.revocations.find(connection, org=org, kind=kind.value, subject=subject)
    if before is not None:
        kept = _merged(before, issued_until, expires_at)
        if issued_until is None and kept == (before.issued_until, before.expires_at):
            return Marked(before, 0)
        means_keys, (issued_until, expires_at) = issued_until is not None, kept
    else:
        means_keys = issued_until is not None
    # All of an organization can be refused however many marks it has made: there is one such mark.
    bounded = before is None and kind is not MarkKind.ORGANIZATION
    if bounded and await sql.revocations.published_count(connection, org=org) >= PUBLISHED_MAX:
        raise TooManyMarks(f"An organization has at most {PUBLISHED_MAX:,} marks: lift some, or mark a wider subject.")
    version = await sql.keys.draw_version(connection, org=org)
    await sql.revocations.put(
        connection,
        org=org,
        kind=kind.value,
        subject=subject,
        issued_until=issued_until,
        reason=reason,
        at=moment(now),
        expires_at=expires_at,
        version=version,
    )
    revoked = await _revoke_keys(connection, org, kind, subject, version, now) if means_keys else 0
    after = _content(kind.value, subject) | {"reason": reason} if reason else _content(kind.value, subject)
    if issued_until is not None:
        after |= {"issued_until": issued_until.isoformat(), "keys_revoked": revoked}
    await journal.record(connection, author, now, [Change("revocation.set", org, None, after)])
    stored = await sql.revocations.find(connection, org=org, kind=kind.value, subject=subject)
    assert stored is not None  # noqa: S101 - written above, in this transaction
    return Marked(stored, revoked)


async def lift_mark(connection: Connection, org: str, kind: MarkKind, subject: str, now: float, author: Author) -> bool:
    """Lifts a mark, in the caller's transaction; False where there is none. Raises OrganizationUnknown."""
    if await sql.organizations.lock(connection, org=org) is None:
        raise OrganizationUnknown(org)
    if await sql.revocations.find(connection, org=org, kind=kind.value, subject=subject) is None:
        return False
    version = await sql.keys.draw_version(connection, org=org)
    await sql.revocations.lift(connection, org=org, kind=kind.value, subject=subject, at=moment(now), version=version)
    change = Change("revocation.lifted", org, _content(kind.value, subject), None)
    await journal.record(connection, author, now, [change])
    return True


async def page(
    db: Database, org: str, after: tuple[str, str] | None, kind: str | None, limit: int
) -> Page[Revocation, tuple[str, str]]:
    """Those in force, by kind and subject, beginning after `after`. Raises OrganizationUnknown, CursorUnknown."""
    async with db.connection() as connection:
        if await sql.organizations.find(connection, org=org) is None:
            raise OrganizationUnknown(org)
        return await read_page(
            "after",
            after,
            limit,
            exists=lambda place: sql.revocations.find(connection, org=org, kind=place[0], subject=place[1]),
            read=lambda place, rows_max: sql.revocations.page(
                connection,
                org=org,
                after_kind=None if place is None else place[0],
                after_subject=None if place is None else place[1],
                kind=kind,
                limit_rows=rows_max,
            ),
            cursor_of=lambda row: (row.kind, row.subject),
        )


def _merged(
    mark: Revocation, issued_until: datetime | None, expires_at: datetime | None
) -> tuple[datetime | None, datetime | None]:
    """Setting a mark again never lets through what it refused before."""
    until = None if mark.issued_until is None or issued_until is None else max(mark.issued_until, issued_until)
    ends = None if mark.expires_at is None or expires_at is None else max(mark.expires_at, expires_at)
    return until, ends


async def _revoke_keys(connection: Connection, org: str, kind: MarkKind, subject: str, version: int, now: float) -> int:
    """Revokes the keys that a mark with a time means; how many they were."""
    if kind not in (MarkKind.USER, MarkKind.ORGANIZATION):
        return 0
    user = subject if kind is MarkKind.USER else None
    return await sql.keys.revoke_all(connection, org=org, user_id=user, at=moment(now), version=version)


def _content(kind: str, subject: str) -> dict[str, Any]:
    return {"kind": kind, **({"subject": subject} if subject else {})}
