"""A code activates a site."""

from dataclasses import dataclass
from datetime import timedelta

from common.clock import Clock
from control import sql
from control.access.activation import codes, staging
from control.access.activation.domains import Domain, Uncounted, packaged, read_domain
from control.access.activation.requests import ActivationRefused, ActivationRequest, Granted, Refused
from control.access.activation.rules import ActivationStep, Asked, SiteEvent, SiteKind, activation_step
from control.access.activation.site_keys import Purpose
from control.access.activation.store import (
    Call,
    Held,
    begin_family,
    change_site,
    end_site,
    family_of,
    insert_site,
    locked_site,
    record,
    seat_free,
)
from control.access.publishing import Publisher, announce
from control.db import Connection, Database
from control.entitlements import stored_state
from control.entitlements.changes import PlanUnknown, Wanted, set_entitlement
from control.journal import Author
from control.moments import moment
from control.organizations import store as organizations
from control.settings.activation import Activation as ActivationSettings
from control.sql.activation import ActivationCode, Site


@dataclass(frozen=True, slots=True)
class _Situation:
    """What is there already."""

    domain: Domain
    known: Site | None
    """At the domain."""
    just_activated: bool
    """That one, within the grace."""
    copies: list[Site]
    """Staging sites at a domain that counts: they were copies."""
    elsewhere: Site | None
    """With this key and a seat of this code, and silent for long."""


class Activating:
    def __init__(self, db: Database, publisher: Publisher, settings: ActivationSettings, clock: Clock) -> None:
        self._db = db
        self._publisher = publisher
        self._settings = settings
        self._clock = clock
        self._uncounted = packaged().add(settings.uncounted_domains)

    def uncounted(self, code: ActivationCode) -> Uncounted:
        return self._uncounted.add(code.uncounted_domains)

    async def activate(self, asked: ActivationRequest) -> Granted:
        """Raises ActivationRefused, DomainInvalid."""
        read_domain(asked.domain, self._uncounted)  # a wrong form is told before anything is looked up
        try:
            text = codes.read(asked.code)
        except codes.CodeMistyped:
            raise ActivationRefused(Refused.MISTYPED) from None
        now = self._clock()
        async with self._db.connection() as connection:
            code = await sql.activation.code_of(connection, digest=codes.digest(text))
        if code is None:
            raise ActivationRefused(Refused.UNKNOWN)
        try:
            return await self._activate(text, code, asked, now)
        except ActivationRefused as e:
            async with self._db.connection() as connection:
                await sql.activation.note_refusal(connection, id=code.id, refused_for=e.reason.value, at=moment(now))
            raise

    async def _activate(self, text: str, code: ActivationCode, asked: ActivationRequest, now: float) -> Granted:
        _require_usable(code, asked, now)
        domain = read_domain(asked.domain, self.uncounted(code))
        call = Call(now, Author(f"code:{code.id}", asked.correlation_id), asked.attempt)
        founded = code.plan is not None and await self._found_organization(code, code.plan, domain, call)
        async with self._db.transaction() as connection:
            # The organization first, as everywhere: whoever takes one of its seats waits for the one before.
            await sql.organizations.lock(connection, org=code.org)
            locked = await sql.activation.lock_code(connection, id=code.id)
            if locked is None:
                raise ActivationRefused(Refused.UNKNOWN)
            _require_usable(locked, asked, self._clock())
            held = await self._apply(
                connection, locked, await self._look(connection, locked, domain, asked, now), asked, text, call
            )
        if founded:
            await announce(self._publisher, code.org)
        return Granted(held.site, held.token, code.scopes, code.access_seconds or self._settings.access_seconds)

    async def _found_organization(self, code: ActivationCode, plan: str, domain: Domain, call: Call) -> bool:
        """The organization that the code is for, with its plan; False where it has one, or had it."""
        async with self._db.connection() as connection:
            state = await stored_state.load_state(connection, code.org, call.now)
        if state is not None and state.version > 0:
            return False
        await organizations.put(self._db, code.org, domain.name, call.now, call.author)
        try:
            return await set_entitlement(
                self._db, code.org, lambda current, _: current or Wanted(plan=plan), None, call.now, call.author
            )
        except PlanUnknown as e:
            raise ActivationRefused(Refused.PLAN_GONE) from e

    async def _look(
        self, connection: Connection, code: ActivationCode, domain: Domain, asked: ActivationRequest, now: float
    ) -> _Situation:
        there = await sql.activation.at_domain(connection, org=code.org, product=code.product, domain=domain.name)
        key = asked.key.text
        if domain.counted:
            known = next((site for site in there if site.kind == SiteKind.PRODUCTION.value), None)
            copies = [site for site in there if site.kind == SiteKind.STAGING.value]
        else:
            # Many a developer has a site at `localhost`: the key tells them apart.
            known, copies = next((site for site in there if site.key == key), None), []
        silent_since = moment(now) - timedelta(days=self._settings.silent_days)
        of_key = await sql.activation.of_key(connection, code=code.id, key=key)
        elsewhere = next((site for site in of_key if site.seen_at < silent_since), None)
        just_activated = known is not None and await self._is_new(connection, known, now)
        return _Situation(domain, known, just_activated, copies, elsewhere)

    async def _is_new(self, connection: Connection, known: Site, now: float) -> bool:
        begun_at = known.activated_at
        live = await sql.activation.live_family(connection, site=known.id)
        if live is not None and live.generation == 1:
            begun_at = max(begun_at, live.rotated_at)  # it was activated again
        return now - begun_at.timestamp() <= self._settings.grace_seconds

    async def _apply(
        self,
        connection: Connection,
        code: ActivationCode,
        situation: _Situation,
        asked: ActivationRequest,
        text: str,
        call: Call,
    ) -> Held:
        known, domain = situation.known, situation.domain
        staging_free = domain.counted or await staging.make_room(
            connection, code.org, self._settings.staging_sites_max, call
        )
        step = activation_step(
            Asked(
                counted=domain.counted,
                known=known is not None,
                same_key=known is not None and known.key == asked.key.text,
                same_code=known is not None and known.code == code.id,
                just_activated=situation.just_activated,
                silent_elsewhere=situation.elsewhere is not None,
                seat_free=await seat_free(connection, code.id, code.sites),
                staging_free=staging_free,
            )
        )
        if step is ActivationStep.REFUSE:
            raise ActivationRefused(Refused.NO_SEAT)
        if step is ActivationStep.RENEW and known is not None:
            return await self._renew(connection, code, known, asked, text, call)
        for copy in situation.copies:
            await end_site(connection, copy, SiteEvent.REPLACE, call)
        if step is ActivationStep.MOVE and situation.elsewhere is not None:
            return await self._move(connection, situation.elsewhere, domain, text, call)
        kind = SiteKind.PRODUCTION if domain.counted else SiteKind.STAGING
        site = await insert_site(connection, call, code, domain=domain.name, key=asked.key.text, kind=kind)
        await record(connection, call, "site.activated", site, {"code": str(code.id)})
        return await begin_family(connection, site, text.encode(), call, "activation")

    async def _renew(
        self,
        connection: Connection,
        code: ActivationCode,
        known: Site,
        asked: ActivationRequest,
        text: str,
        call: Call,
    ) -> Held:
        known = await locked_site(connection, known.id)
        live = await sql.activation.live_family(connection, site=known.id)
        if known.key == asked.key.text and live is not None:
            family = family_of(live)
            if family.born_of(text.encode(), call.attempt, call.now, self._settings.grace_seconds):
                return Held(known, family.current(text.encode()))
        site = await change_site(connection, known, code=code.id, key=asked.key.text, seen_at=moment(call.now))
        await record(
            connection, call, "site.reactivated", site, {"code": str(code.id), "new_key": site.key != known.key}
        )
        return await begin_family(connection, site, text.encode(), call, "activation")

    async def _move(self, connection: Connection, site: Site, domain: Domain, text: str, call: Call) -> Held:
        locked = await locked_site(connection, site.id)
        moved = await change_site(
            connection, locked, domain=domain.name, former_domain=locked.domain, seen_at=moment(call.now)
        )
        await record(connection, call, "site.moved", moved, {"from": locked.domain})
        return await begin_family(connection, moved, text.encode(), call, "activation")


def _require_usable(code: ActivationCode, asked: ActivationRequest, now: float) -> None:
    """Raises ActivationRefused."""
    if not asked.key.proves(asked.proof, Purpose.ACTIVATE, asked.code, asked.domain):
        raise ActivationRefused(Refused.WRONG_PROOF)
    if code.revoked_at is not None:
        raise ActivationRefused(Refused.REVOKED)
    if code.expires_at.timestamp() <= now:
        raise ActivationRefused(Refused.EXPIRED)
    if code.product not in ("", asked.product):
        raise ActivationRefused(Refused.OTHER_PRODUCT)
