"""A site's refresh token is replaced by its successor, or the site gives it back."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from common.clock import Clock
from control import incidents, sql
from control.access.activation import refresh_tokens, staging
from control.access.activation.activating import Activating
from control.access.activation.domains import Domain, read_domain
from control.access.activation.refresh_tokens import Family, RefreshToken, Standing, TokenMalformed
from control.access.activation.requests import ActivateAgain, Again, Granted, RefreshRequest
from control.access.activation.rules import RefreshStep, Shown, SiteEvent, SiteKind, SiteState, refresh_step
from control.access.activation.site_keys import Purpose, read_key
from control.access.activation.store import (
    Call,
    Held,
    begin_family,
    change_site,
    end_site,
    family_of,
    locked_site,
    record,
    rotate_family,
    seat_free,
)
from control.access.publishing import Publisher, announce, enforce
from control.db import Connection, Database
from control.journal import Author
from control.moments import moment
from control.settings.activation import Activation as ActivationSettings
from control.sql.activation import ActivationCode, Site

DAY_SECONDS: Final = 86_400
DISPLACED: Final = "rejoin"
"""Why a family ended: another copy of the site showed its own tokens at the site's domain."""


class _Crossing(Exception):
    """More than the site and its tokens changes: all is read again, with the organization locked first."""


@dataclass(frozen=True, slots=True)
class _Look:
    """The site of a token, and what is around it, as the transaction holds it."""

    site: Site
    code: ActivationCode
    family: Family
    ended_by: str | None
    """Of the family."""
    token: RefreshToken
    standing: Standing
    domain: Domain
    """The one that the request says."""
    there: Sequence[Site]
    """Other active sites at that domain."""

    @property
    def same_key_there(self) -> Site | None:
        return next((site for site in self.there if site.key == self.site.key), None)

    @property
    def production_there(self) -> Site | None:
        return next((site for site in self.there if site.kind == SiteKind.PRODUCTION.value), None)

    @property
    def is_plain(self) -> bool:
        """Whether a refresh concerns the site alone."""
        at_home = self.domain.name == self.site.domain and self.site.clone_of is None and self.ended_by is None
        return at_home and self.standing in (Standing.CURRENT, Standing.REPEATED)


class Refreshing:
    def __init__(
        self,
        db: Database,
        publisher: Publisher,
        activating: Activating,
        settings: ActivationSettings,
        clock: Clock,
    ) -> None:
        self._db = db
        self._publisher = publisher
        self._activating = activating
        self._settings = settings
        self._clock = clock

    async def refresh(self, shown: RefreshRequest) -> Granted:
        """Raises ActivateAgain, DomainInvalid."""
        token = _read(shown)
        try:
            return await self._refresh(shown, token, crossing=False)
        except _Crossing:
            return await self._refresh(shown, token, crossing=True)

    async def release(self, shown: RefreshRequest) -> None:
        """The site is over, by its own wish. Raises ActivateAgain, DomainInvalid, NotInForce."""
        token = _read(shown)
        async with self._db.transaction() as connection:
            now = self._clock()
            look = await self._look(connection, shown, token, Purpose.RELEASE, now, crossing=True)
            if look.site.state == SiteState.ACTIVE.value:
                if look.ended_by is not None or look.standing is Standing.REUSED:
                    raise ActivateAgain(Again.REPLACED)
                await end_site(connection, look.site, SiteEvent.RELEASE, _call(look.site, shown, now))
        await enforce(self._publisher, look.site.org)

    async def _refresh(self, shown: RefreshRequest, token: RefreshToken, *, crossing: bool) -> Granted:
        async with self._db.transaction() as connection:
            now = self._clock()
            look = await self._look(connection, shown, token, Purpose.REFRESH, now, crossing=crossing)
            self._require_alive(look, now)
            if not crossing and not look.is_plain:
                raise _Crossing
            held = await self._take(connection, look, _call(look.site, shown, now))
        if held is None:
            # Committed, so the site is over whatever becomes of this: where Redis is away, it is told when it is back.
            await announce(self._publisher, look.site.org)
            raise ActivateAgain(Again.REUSED)
        if crossing:
            await announce(self._publisher, look.site.org)
        access_seconds = look.code.access_seconds or self._settings.access_seconds
        return Granted(held.site, held.token, look.code.scopes, access_seconds)

    async def _look(
        self,
        connection: Connection,
        shown: RefreshRequest,
        token: RefreshToken,
        purpose: Purpose,
        now: float,
        *,
        crossing: bool,
    ) -> _Look:
        """Raises ActivateAgain for what was not proved."""
        row = await sql.activation.find_family(connection, id=token.family)
        site = None if row is None else await sql.activation.find_site(connection, id=row.site)
        if row is None or site is None:
            raise ActivateAgain(Again.UNKNOWN)
        if crossing:
            await sql.organizations.lock(connection, org=site.org)
            row = await sql.activation.find_family(connection, id=token.family) or row
        site = await locked_site(connection, row.site)
        row = await sql.activation.find_family(connection, id=token.family) or row
        if row.site != site.id:
            raise _Crossing
        family = family_of(row)
        standing = family.judge(token, shown.attempt, now, self._settings.grace_seconds)
        proved = read_key(site.key).proves(shown.proof, purpose, shown.token, shown.domain)
        code = await sql.activation.find_code(connection, id=site.code)
        if standing is Standing.FOREIGN or not proved or code is None:
            raise ActivateAgain(Again.UNKNOWN)
        domain = read_domain(shown.domain, self._activating.uncounted(code))
        there = await sql.activation.at_domain(connection, org=site.org, product=site.product, domain=domain.name)
        others = [each for each in there if each.id != site.id]
        return _Look(site, code, family, row.ended_by, token, standing, domain, others)

    def _require_alive(self, look: _Look, now: float) -> None:
        """Raises ActivateAgain."""
        site = look.site
        if site.state == SiteState.RELEASED.value:
            raise ActivateAgain(Again.RELEASED if site.ended_by == SiteEvent.RELEASE.value else Again.REPLACED)
        if site.state == SiteState.REVOKED.value:
            raise ActivateAgain(Again.REUSED if site.ended_by == SiteEvent.REUSE.value else Again.REVOKED)
        if look.ended_by not in (None, DISPLACED):
            raise ActivateAgain(Again.REPLACED)
        if now - look.family.rotated_at > self._settings.refresh_days * DAY_SECONDS:
            raise ActivateAgain(Again.EXPIRED)

    async def _take(self, connection: Connection, look: _Look, call: Call) -> Held | None:
        """None where the site was revoked. Raises ActivateAgain where nothing changes."""
        if (again := await self._born(connection, look, call)) is not None:
            return again
        step = refresh_step(await self._shown(connection, look))
        match step:
            case RefreshStep.ROTATE:
                changes = await self._succession(connection, look, call)
                return await rotate_family(connection, look.site, look.family, look.token, call, **changes)
            case RefreshStep.REPEAT:
                return Held(look.site, look.family.current(look.token.secret))
            case RefreshStep.MOVE:
                return await self._move(connection, look, call)
            case RefreshStep.FORK:
                return await self._fork(connection, look, call)
            case RefreshStep.RECLAIM:
                return await self._reclaim(connection, look, call)
            case RefreshStep.REJOIN:
                return await self._rejoin(connection, look, call)
            case RefreshStep.TAKEN:
                raise ActivateAgain(Again.DOMAIN_TAKEN)
            case RefreshStep.REVOKE:
                await end_site(connection, look.site, SiteEvent.REUSE, call)
                return None

    async def _shown(self, connection: Connection, look: _Look) -> Shown:
        other = look.production_there
        return Shown(
            standing=look.standing,
            kind=SiteKind(look.site.kind),
            at_own_domain=look.domain.name == look.site.domain,
            at_former_domain=look.domain.name == look.site.former_domain,
            counted=look.domain.counted,
            same_key_there=look.same_key_there is not None,
            other_key_there=other is not None and other.key != look.site.key,
            seat_free=await seat_free(connection, look.code.id, look.code.sites),
            displaced=look.ended_by == DISPLACED,
        )

    async def _born(self, connection: Connection, look: _Look, call: Call) -> Held | None:
        """The first tokens of a site that this token made before, for a request whose reply was lost."""
        for site in look.there:
            live = await sql.activation.live_family(connection, site=site.id) if site.key == look.site.key else None
            if live is not None:
                family = family_of(live)
                if family.born_of(look.token.secret, call.attempt, call.now, self._settings.grace_seconds):
                    return Held(site, family.current(look.token.secret))
        return None

    async def _move(self, connection: Connection, look: _Look, call: Call) -> Held:
        site, counted = look.site, look.domain.counted
        kind = SiteKind.PRODUCTION if counted else SiteKind.STAGING
        held = await rotate_family(
            connection,
            site,
            look.family,
            look.token,
            call,
            domain=look.domain.name,
            former_domain=site.domain,
            kind=kind.value,
            clone_of=None if counted else site.clone_of,
        )
        await record(connection, call, "site.moved", held.site, {"from": site.domain})
        return held

    async def _fork(self, connection: Connection, look: _Look, call: Call) -> Held:
        if not await staging.make_room(connection, look.site.org, self._settings.staging_sites_max, call):
            raise ActivateAgain(Again.NO_STAGING_SEAT)
        copy = await staging.insert_copy(
            connection, call, look.site, look.code, look.domain.name, named=look.domain.counted
        )
        return await begin_family(connection, copy, look.token.secret, call, "fork")

    async def _reclaim(self, connection: Connection, look: _Look, call: Call) -> Held:
        moved_to, original = look.site.domain, replace(look.site, domain=look.domain.name)
        copy = await staging.insert_copy(connection, call, original, look.code, moved_to, named=True)
        await sql.activation.hand_over_family(connection, site=look.site.id, to=copy.id)
        site = await change_site(
            connection, look.site, domain=look.domain.name, former_domain=None, seen_at=moment(call.now)
        )
        await record(connection, call, "site.reclaimed", site, {"copy": copy.id, "copy_domain": moved_to})
        return await begin_family(connection, site, look.token.secret, call, DISPLACED)

    async def _rejoin(self, connection: Connection, look: _Look, call: Call) -> Held:
        known = look.same_key_there
        assert known is not None  # noqa: S101  the step says so
        site = await change_site(connection, await locked_site(connection, known.id), seen_at=moment(call.now))
        await record(connection, call, "site.rejoined", site, {"with": look.site.id})
        return await begin_family(connection, site, look.token.secret, call, DISPLACED)

    async def _succession(self, connection: Connection, look: _Look, call: Call) -> dict[str, Any]:
        """What changes where a copy turns out to be the site that has moved: the other one has been silent for long."""
        site = look.site
        if site.clone_of is None or not look.domain.counted or look.production_there is not None:
            return {}
        original = await locked_site(connection, site.clone_of)
        active = original.state == SiteState.ACTIVE.value
        if active and call.now - original.seen_at.timestamp() <= self._settings.silent_days * DAY_SECONDS:
            return {}
        if active:
            await end_site(connection, original, SiteEvent.REPLACE, call)
        elif not await seat_free(connection, look.code.id, look.code.sites):
            return {}
        await incidents.close(connection, call.now, staging.CLONED, staging.incident_key(original.id, site.domain))
        await record(connection, call, "site.promoted", site, {"instead_of": original.id, "of_domain": original.domain})
        code = original.code if active else site.code
        return {"kind": SiteKind.PRODUCTION.value, "clone_of": None, "former_domain": original.domain, "code": code}


def _read(shown: RefreshRequest) -> RefreshToken:
    try:
        return refresh_tokens.read(shown.token)
    except TokenMalformed:
        raise ActivateAgain(Again.UNKNOWN) from None


def _call(site: Site, shown: RefreshRequest, now: float) -> Call:
    return Call(now, Author(f"site:{site.id}", shown.correlation_id), shown.attempt)
