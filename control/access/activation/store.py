"""Sites and families in Postgres: rows to values, and what several steps do to them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from control import journal, sql
from control.access import revocations
from control.access.activation import refresh_tokens
from control.access.activation.refresh_tokens import Family, RefreshToken
from control.access.activation.rules import SiteEvent, SiteKind, SiteState, state_after
from control.db import Connection
from control.ids import uuid7
from control.journal import Action, Author, Change
from control.moments import moment
from control.sql.activation import ActivationCode, RefreshFamily, Site
from quota.access import MarkKind

ACCESS_SECONDS_MAX: Final = 86_400 + 300  # of any access token, with leeway


@dataclass(frozen=True, slots=True)
class Call:
    """One request, as what it changes is filed."""

    now: float
    author: Author
    attempt: str | None = None
    """What the client calls this request and its repetitions."""


@dataclass(frozen=True, slots=True, repr=False)
class Held:
    """What a site has after its request."""

    site: Site
    token: RefreshToken


def family_of(row: RefreshFamily) -> Family:
    return Family(
        id=row.id,
        tag_key=row.tag_key,
        generation=row.generation,
        digest=row.digest,
        salt=row.salt,
        attempt=row.attempt,
        rotated_at=row.rotated_at.timestamp(),
    )


async def insert_site(
    connection: Connection,
    call: Call,
    code: ActivationCode,
    *,
    domain: str,
    key: str,
    kind: SiteKind,
    name: str | None = None,
    clone_of: str | None = None,
) -> Site:
    site_id = f"site_{uuid7().hex}"
    await sql.activation.insert_site(
        connection,
        id=site_id,
        org=code.org,
        code=code.id,
        product=code.product,
        name=name,
        domain=domain,
        key=key,
        kind=kind.value,
        clone_of=clone_of,
        activated_at=moment(call.now),
    )
    return await locked_site(connection, site_id)


async def locked_site(connection: Connection, site: str) -> Site:
    found = await sql.activation.lock_site(connection, id=site)
    if found is None:
        raise LookupError(site)  # nothing deletes one
    return found


async def change_site(connection: Connection, site: Site, **changes: Any) -> Site:
    changed = replace(site, **changes)
    await sql.activation.change_site(
        connection,
        id=changed.id,
        code=changed.code,
        name=changed.name,
        domain=changed.domain,
        former_domain=changed.former_domain,
        key=changed.key,
        kind=changed.kind,
        clone_of=changed.clone_of,
        state=changed.state,
        ended_by=changed.ended_by,
        seen_at=changed.seen_at,
        ended_at=changed.ended_at,
    )
    return changed


async def end_site(connection: Connection, site: Site, event: SiteEvent, call: Call) -> Site:
    """The site is over: its refresh tokens at once, its access tokens when the caller has published it."""
    state = state_after(SiteState(site.state), event)
    ended = await change_site(
        connection, site, state=state.value, ended_by=event.value, ended_at=site.ended_at or moment(call.now)
    )
    await sql.activation.end_family(connection, site=site.id, ended_by=event.value)
    # No access token lives for longer than that, so that the mark need not be there for ever.
    expires_at = moment(call.now) + timedelta(seconds=ACCESS_SECONDS_MAX)
    await revocations.set_mark(
        connection, site.org, MarkKind.SITE, site.id, call.now, call.author, expires_at=expires_at, reason=event.value
    )
    action: Action = "site.revoked" if state is SiteState.REVOKED else "site.released"
    await record(connection, call, action, ended, {"by": event.value})
    return ended


async def begin_family(connection: Connection, site: Site, parent: bytes, call: Call, ends_by: str) -> Held:
    """A new family for the site, made of `parent`. If it has another one, that ends, and `ends_by` says why."""
    await sql.activation.end_family(connection, site=site.id, ended_by=ends_by)
    family = refresh_tokens.begin(parent, call.attempt, call.now)
    await sql.activation.insert_family(
        connection,
        id=family.id,
        site=site.id,
        tag_key=family.tag_key,
        generation=family.generation,
        digest=family.digest,
        salt=family.salt,
        attempt=family.attempt,
        rotated_at=moment(family.rotated_at),
    )
    return Held(site, family.current(parent))


async def rotate_family(
    connection: Connection, site: Site, family: Family, shown: RefreshToken, call: Call, **changes: Any
) -> Held:
    """The successor of the token that was shown. `changes`: of the site."""
    rotated = family.rotate(shown, call.attempt, call.now)
    await sql.activation.rotate_family(
        connection,
        id=rotated.id,
        generation=rotated.generation,
        digest=rotated.digest,
        salt=rotated.salt,
        attempt=rotated.attempt,
        rotated_at=moment(rotated.rotated_at),
    )
    site = await change_site(connection, site, seen_at=moment(call.now), **changes)
    return Held(site, rotated.current(shown.secret))


async def seat_free(connection: Connection, code: UUID, sites: int) -> bool:
    return await sql.activation.seats_taken(connection, code=code) < sites


async def record(
    connection: Connection, call: Call, action: Action, site: Site, more: Mapping[str, Any] | None = None
) -> None:
    content = {"site": site.id, "domain": site.domain, "kind": site.kind, **(more or {})}
    await journal.record(connection, call.author, call.now, [Change(action, site.org, None, content)])
