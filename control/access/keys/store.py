"""API keys in Postgres. Each change locks the organization, draws a version of what is published, and is journaled, all
in one transaction. Publishing comes after the commit."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Protocol

from control import journal, sql
from control.access.keys.terms import (
    Identity,
    State,
    Terms,
    identity_columns,
    journaled,
    journaled_identity,
    new_id,
    rolled,
    term_columns,
    terms_of,
)
from control.cursors import Page, read_page
from control.db import Connection, Transactions
from control.entitlements.stored_state import check_meters
from control.journal import Author, Change
from control.moments import moment
from control.organizations.store import OrganizationUnknown
from control.sql.keys import Key

PUBLISHED_MAX: Final = 100_000  # of one organization: when Redis has lost it, all of them are read at once


class KeyUnknown(Exception):
    """The organization has no such key."""


class KeyOver(Exception):
    """The key was revoked, has expired, or was rolled, so that this cannot be done to it. The message says which."""


class KeyTaken(Exception):
    """A key with this hash exists already."""


class TooManyKeys(Exception):
    """The organization has as many keys as it can."""


class Edit(Protocol):
    def __call__(self, before: Terms) -> Terms:
        """What the key is to be. If it raises, nothing changes."""


@dataclass(frozen=True, slots=True)
class Rolled:
    old: Key
    new: Key


@dataclass(frozen=True, slots=True)
class NewKey:
    identity: Identity
    terms: Terms


async def create(db: Transactions, org: str, new: NewKey, now: float, author: Author) -> Key:
    """Raises OrganizationUnknown, MeterUnknown, TooManyKeys, KeyTaken."""
    async with db.transaction() as connection:
        version = await _begin(connection, org, adding=1)
        await check_meters(connection, {quota.meter for quota in new.terms.quotas})
        key_id = await _insert(connection, org, new, None, version, now)
        if key_id is None:
            raise KeyTaken
        content = journaled(key_id, new.terms, journaled_identity(new.identity.environment, new.identity.user))
        await journal.record(connection, author, now, [Change("key.created", org, None, content)])
        return await _find(connection, org, key_id)


async def find(db: Transactions, org: str, key_id: str) -> Key:
    """Raises KeyUnknown."""
    async with db.connection() as connection:
        return await _find(connection, org, key_id)


async def by_digest(db: Transactions, digest16: bytes) -> Key | None:
    async with db.connection() as connection:
        return await sql.keys.by_digest(connection, digest=digest16)


async def page(
    db: Transactions,
    org: str,
    before: str | None,
    limit: int,
    now: float,
    *,
    state: str | None = None,
    user: str | None = None,
    environment: str | None = None,
) -> Page[Key, str]:
    """The newest first. Raises OrganizationUnknown, CursorUnknown."""
    async with db.connection() as connection:
        if await sql.organizations.find(connection, org=org) is None:
            raise OrganizationUnknown(org)
        return await read_page(
            "before",
            before,
            limit,
            exists=lambda key: sql.keys.find(connection, org=org, id=key),
            read=lambda key, rows_max: sql.keys.page(
                connection,
                org=org,
                before=key,
                state=state,
                user_id=user,
                environment=environment,
                at=moment(now),
                limit_rows=rows_max,
            ),
            cursor_of=lambda key: key.id,
        )


async def change(db: Transactions, org: str, key_id: str, edit: Edit, now: float, author: Author) -> Key:
    """Raises OrganizationUnknown, KeyUnknown, KeyOver, MeterUnknown, and what `edit` raises."""
    async with db.transaction() as connection:
        await _lock(connection, org)
        key = await _find(connection, org, key_id)
        before = terms_of(key)
        after = edit(before)
        if after == before:
            return key
        _check_usable(key, "changed", now, expired=True)
        await check_meters(connection, {quota.meter for quota in after.quotas} - {q.meter for q in before.quotas})
        await _write(connection, key, after, await sql.keys.draw_version(connection, org=org))
        change = Change("key.changed", org, journaled(key_id, before), journaled(key_id, after))
        await journal.record(connection, author, now, [change])
        return await _find(connection, org, key_id)


async def roll(
    db: Transactions, org: str, key_id: str, identity: Identity, grace_seconds: int, now: float, author: Author
) -> Rolled:
    """A successor with all that the key has. Both work until the grace is over; without a grace the old one is revoked.

    `identity` is that of the successor. Raises OrganizationUnknown, KeyUnknown, KeyOver, TooManyKeys, KeyTaken."""
    async with db.transaction() as connection:
        await _lock(connection, org)
        key = await _find(connection, org, key_id)
        if key.rolled_to is not None:
            raise KeyOver(f"The key was rolled already: its successor is {key.rolled_to}.")
        _check_usable(key, "rolled", now)
        version, terms = await _draw(connection, org, adding=1), terms_of(key)
        new_key = NewKey(replace(identity, environment=key.environment, user=key.user_id), terms)
        new_id_ = await _insert(connection, org, new_key, key.id, version, now)
        if new_id_ is None:
            raise KeyTaken
        ends_at = moment(now) + timedelta(seconds=grace_seconds)
        revoked_at = moment(now) if grace_seconds == 0 else None
        await _write(connection, key, rolled(terms, grace_seconds, ends_at), version, revoked_at, new_id_)
        after = {"rolled_to": new_id_, "grace_seconds": grace_seconds}
        await journal.record(connection, author, now, [Change("key.rolled", org, {"id": key_id}, after)])
        return Rolled(await _find(connection, org, key_id), await _find(connection, org, new_id_))


async def revoke(db: Transactions, org: str, key_id: str, now: float, author: Author, reason: str | None = None) -> Key:
    """For good. A second time changes nothing. Raises OrganizationUnknown, KeyUnknown."""
    async with db.transaction() as connection:
        return await revoke_in(connection, org, key_id, now, author, reason)


async def revoke_in(
    connection: Connection, org: str, key_id: str, now: float, author: Author, reason: str | None
) -> Key:
    """As `revoke`, in the caller's transaction."""
    await _lock(connection, org)
    key = await _find(connection, org, key_id)
    if key.state != State.REVOKED.value and key.dropped_at is None:
        version = await sql.keys.draw_version(connection, org=org)
        await _write(connection, key, terms_of(key), version, moment(now))
        after = {"reason": reason} if reason else None
        await journal.record(connection, author, now, [Change("key.revoked", org, {"id": key_id}, after)])
    return await _find(connection, org, key_id)


async def import_hashes(
    db: Transactions, org: str, new: Sequence[NewKey], now: float, author: Author
) -> list[str | None]:
    """The ids of the keys that these hashes are from now on, in their order; None: another organization has the hash.
    Those that are here already stay as they are.

    Raises OrganizationUnknown, MeterUnknown, TooManyKeys."""
    async with db.transaction() as connection:
        version = await _begin(connection, org, adding=len(new))
        await check_meters(connection, {quota.meter for each in new for quota in each.terms.quotas})
        ids: list[str | None] = []
        added = []
        for each in new:
            key_id = await _insert(connection, org, each, None, version, now)
            if key_id is not None:
                added.append(key_id)
            else:
                there = await sql.keys.by_digest(connection, digest=each.identity.digest[:16])
                key_id = there.id if there is not None and there.org == org else None
            ids.append(key_id)
        if added:
            await journal.record(connection, author, now, [Change("key.imported", org, None, {"ids": added})])
    return ids


async def _begin(connection: Connection, org: str, adding: int) -> int:
    await _lock(connection, org)
    return await _draw(connection, org, adding)


async def _lock(connection: Connection, org: str) -> None:
    # Held until the end, so that versions grow in the order in which changes commit.
    if await sql.organizations.lock(connection, org=org) is None:
        raise OrganizationUnknown(org)


async def _draw(connection: Connection, org: str, adding: int) -> int:
    if await sql.keys.published_count(connection, org=org) + adding > PUBLISHED_MAX:
        raise TooManyKeys(f"An organization has at most {PUBLISHED_MAX:,} keys; those that are over count for a while.")
    return await sql.keys.draw_version(connection, org=org)


async def _find(connection: Connection, org: str, key_id: str) -> Key:
    key = await sql.keys.find(connection, org=org, id=key_id)
    if key is None:
        raise KeyUnknown
    return key


def _check_usable(key: Key, verb: str, now: float, *, expired: bool = False) -> None:
    """`expired`: one that has only expired will do, as long as it is published."""
    if key.state == State.REVOKED.value:
        raise KeyOver(f"The key is revoked, and cannot be {verb}.")
    if key.dropped_at is not None or (not expired and _is_past(key.expires_at, now)):
        raise KeyOver(f"The key has expired, and cannot be {verb}: create another one.")


def _is_past(at: datetime | None, now: float) -> bool:
    return at is not None and at.timestamp() <= now


async def _insert(
    connection: Connection, org: str, new: NewKey, rolled_from: str | None, version: int, now: float
) -> str | None:
    """The id of the new key; None where its digest is there already."""
    return await sql.keys.insert(
        connection,
        id=new_id(),
        org=org,
        created_at=moment(now),
        rolled_from=rolled_from,
        version=version,
        **identity_columns(new.identity),
        **term_columns(new.terms),
    )


async def _write(
    connection: Connection,
    key: Key,
    terms: Terms,
    version: int,
    revoked_at: datetime | None = None,
    rolled_to: str | None = None,
) -> None:
    columns = term_columns(terms)
    if revoked_at is not None:
        columns["state"] = State.REVOKED.value
    await sql.keys.change(
        connection,
        org=key.org,
        id=key.id,
        revoked_at=revoked_at,
        rolled_to=rolled_to or key.rolled_to,
        version=version,
        **columns,
    )
