"""Activation codes and sites, for those who manage them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from control import journal, sql
from control.access.activation import codes
from control.access.activation.rules import SiteEvent, SiteState
from control.access.activation.store import Call, change_site, end_site, locked_site, record
from control.access.publishing import Publisher, enforce
from control.cursors import Page, read_page
from control.db import Connection, Transactions
from control.entitlements.changes import PlanUnknown
from control.ids import uuid7
from control.journal import Change
from control.moments import moment, rfc3339
from control.sql.activation import Site, UsedCode


@dataclass(frozen=True, slots=True)
class NewCode:
    sites: int
    valid_seconds: int
    product: str
    scopes: Sequence[str]
    uncounted_domains: Sequence[str]
    access_seconds: int | None
    note: str | None


@dataclass(frozen=True, slots=True, repr=False)
class MadeCode:
    code: UsedCode
    text: str
    """Nobody sees it again."""


class TooManySites(Exception):
    """The organization's own people may make codes for so many sites only."""

    def __init__(self, sites_max: int, sites: int) -> None:
        super().__init__(
            f"An organization makes codes for {sites_max} sites in all. It has {sites}, unused seats of codes included."
        )


class Administration:
    def __init__(self, db: Transactions, publisher: Publisher) -> None:
        self._db = db
        self._publisher = publisher

    async def create_code(
        self, org: str, new: NewCode, call: Call, *, plan: str | None = None, sites_max: int | None = None
    ) -> MadeCode:
        """`plan`: the code makes the organization, with this plan. `sites_max`: of the organization, with this code.

        Raises PlanUnknown, TooManySites."""
        text = codes.generate()
        plain, at = codes.read(text), moment(call.now)
        code_id, expires_at = uuid7(), at + timedelta(seconds=new.valid_seconds)
        async with self._db.transaction() as connection:
            if plan is not None:
                version = await sql.plans.newest_of(connection, code=plan)
                if version is None or version.archived_at:
                    raise PlanUnknown(plan)
            if sites_max is not None:
                await sql.organizations.lock(connection, org=org)
                sites = await sql.activation.seats_of(connection, org=org, at=at)
                if sites + new.sites > sites_max:
                    raise TooManySites(sites_max, sites)
            await sql.activation.insert_code(
                connection,
                id=code_id,
                digest=codes.digest(plain),
                handle=codes.handle(plain),
                org=org,
                plan=plan,
                product=new.product,
                sites=new.sites,
                scopes=new.scopes,
                uncounted_domains=new.uncounted_domains,
                access_seconds=new.access_seconds,
                note=new.note,
                created_by=call.author.actor,
                created_at=at,
                expires_at=expires_at,
            )
            content = {"code": str(code_id), "sites": new.sites, "product": new.product, "plan": plan}
            content |= {"scopes": list(new.scopes), "expires_at": rfc3339(expires_at.timestamp())}
            change = Change("activation_code.created", org, None, content)
            await journal.record(connection, call.author, call.now, [change])
            [made] = await sql.activation.codes(connection, org=None, before=None, id=code_id, limit_rows=1)
        return MadeCode(made, text)

    async def codes(self, org: str | None, before: UUID | None, limit: int) -> Page[UsedCode, UUID]:
        """Of the organization, or of all; the newest first. Raises CursorUnknown."""
        async with self._db.connection() as connection:
            return await read_page(
                "before",
                before,
                limit,
                exists=lambda code: sql.activation.is_code(connection, org=org, id=code),
                read=lambda code, rows_max: sql.activation.codes(
                    connection, org=org, before=code, id=None, limit_rows=rows_max
                ),
                cursor_of=lambda code: code.id,
            )

    async def revoke_code(self, org: str | None, code_id: UUID, call: Call) -> bool:
        """From then on the code activates nothing; its sites go on. False where there is no such code."""
        async with self._db.transaction() as connection:
            code = await sql.activation.lock_code(connection, id=code_id)
            if code is None or org not in (None, code.org):
                return False
            if code.revoked_at is None:
                await sql.activation.revoke_code(connection, id=code_id, at=moment(call.now))
                change = Change("activation_code.revoked", code.org, {"code": str(code_id)}, None)
                await journal.record(connection, call.author, call.now, [change])
        return True

    async def sites(self, org: str, state: SiteState | None, before: str | None, limit: int) -> Page[Site, str]:
        """The newest first. Raises CursorUnknown."""
        async with self._db.connection() as connection:
            return await read_page(
                "before",
                before,
                limit,
                exists=lambda site: sql.activation.is_site(connection, org=org, id=site),
                read=lambda site, rows_max: sql.activation.sites(
                    connection, org=org, state=state.value if state else None, before=site, limit_rows=rows_max
                ),
                cursor_of=lambda site: site.id,
            )

    async def rename_site(self, org: str, site_id: str, name: str | None, call: Call) -> Site | None:
        """None where the organization has no such site."""
        async with self._db.transaction() as connection:
            site = await self._locked(connection, org, site_id)
            if site is not None and site.name != name:
                renamed = await change_site(connection, site, name=name)
                await record(connection, call, "site.renamed", renamed, {"name": name, "before": site.name})
                return renamed
        return site

    async def end_site(self, org: str, site_id: str, event: SiteEvent, call: Call) -> Site | None:
        """When it returns, no gateway admits the site. None where the organization has no such site.

        Raises NotInForce: it is committed, and Redis is away."""
        async with self._db.transaction() as connection:
            site = await self._locked(connection, org, site_id)
            if site is None:
                return None
            over = (SiteState.REVOKED,) if event is SiteEvent.REVOKE else (SiteState.REVOKED, SiteState.RELEASED)
            if SiteState(site.state) not in over:
                site = await end_site(connection, site, event, call)
        await enforce(self._publisher, org)
        return site

    async def _locked(self, connection: Connection, org: str, site_id: str) -> Site | None:
        # The organization first, as everywhere: its version is drawn with the mark of the site.
        await sql.organizations.lock(connection, org=org)
        if not await sql.activation.is_site(connection, org=org, id=site_id):
            return None
        return await locked_site(connection, site_id)
