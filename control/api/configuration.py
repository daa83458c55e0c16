"""`/v1/configuration`: what is configured of many organizations at once, for whoever keeps it elsewhere, too."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import Field

from control import sql
from control.access.permissions import Permission
from control.api.entitlement_views import SetView, set_of
from control.api.key_views import KeyView, key_view
from control.api.organization_views import OrganizationView
from control.cursors import read_page
from control.db import Connection
from control.documents import View
from control.entitlements.changes import wanted_of
from control.entitlements.derive import State
from control.entitlements.stored_state import load_states
from control.http.context import Ctx
from control.http.guards import Allowed, Identified, require
from control.http.refusals import DOCUMENTED
from control.moments import moment
from quota.keys import ORG_PATTERN

router = APIRouter(prefix="/v1/configuration", tags=["configuration"], responses=DOCUMENTED)

ORGANIZATIONS_MAX: Final = 200
KEYS_MAX: Final = 100
READ: Final = (
    Permission.ORGANIZATIONS_READ,
    Permission.ENTITLEMENTS_READ,
    Permission.GRANTS_READ,
    Permission.ALERTS_READ,
    Permission.KEYS_READ,
)


class ConfiguredEntitlementView(View):
    set: SetView | None
    """What is set for the organization; null: nothing is in force."""
    version: int
    """Grows with every change: the ETag of the entitlement."""


class ConfiguredGrantView(View):
    id: UUID
    meter: str
    units: int
    expires_at: datetime
    reason: str


class ConfiguredOrganizationView(View):
    """What is configured of an organization. Of a deleted one, nothing but the organization itself is shown."""

    organization: OrganizationView
    follows_payments: bool
    """A subscription decides the status of its entitlement."""
    suspended: bool
    """By an admin, whether it has an entitlement or not."""
    entitlement: ConfiguredEntitlementView | None
    """null: it never had one, and was never suspended."""
    grants: list[ConfiguredGrantView]
    """Those that are in force."""
    caps: dict[str, int]
    """The organization's own caps of overage, by meter."""
    alerts: list[int]
    """The percentages of an allowance that it has chosen."""
    keys: list[KeyView]
    """Keys that were not revoked, without the keys themselves: the newest 100."""
    has_more_keys: bool
    """There are others: GET /v1/organizations/{org}/keys lists all."""


class ConfiguredOrganizationPage(View):
    organizations: list[ConfiguredOrganizationView]
    """In the order of their ids."""
    count: int | None = None
    """How many there are, with the first page."""
    next: str | None
    """`after` of the next page; null on the last."""


@router.get("/organizations", dependencies=[Allowed(Permission.ORGANIZATIONS_READ)])
async def list_configured_organizations(
    ctx: Ctx,
    caller: Identified,
    org: Annotated[
        list[Annotated[str, Field(pattern=ORG_PATTERN)]] | None,
        Query(
            min_length=1,
            max_length=ORGANIZATIONS_MAX,
            description="Only these, with those of them that were deleted, on one page.",
        ),
    ] = None,
    after: Annotated[str | None, Query(pattern=ORG_PATTERN, description="`next` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=ORGANIZATIONS_MAX)] = 100,
) -> ConfiguredOrganizationPage:
    """Lists what is configured of organizations, as it is now: all that configuration as code knows of them. It needs
    the permissions to read entitlements, grants, alerts and keys, too."""
    for permission in READ:
        require(caller, permission)
    now = ctx.clock()
    async with ctx.db.snapshot() as connection:
        if org is not None:
            return ConfiguredOrganizationPage(organizations=await _read(connection, org, now), next=None)
        page = await read_page(
            "after",
            after,
            limit,
            exists=lambda id_: sql.organizations.find_any(connection, org=id_),
            read=lambda id_, rows_max: sql.configuration.page(connection, after=id_, limit_rows=rows_max),
            cursor_of=lambda id_: id_,
        )
        count = await sql.configuration.count(connection) if after is None else None
        read = await _read(connection, page.rows, now)
        return ConfiguredOrganizationPage(organizations=read, count=count, next=page.next)


async def _read(connection: Connection, orgs: Sequence[str], now: float) -> list[ConfiguredOrganizationView]:
    found = await sql.configuration.organizations(connection, orgs=orgs, at=moment(now))
    there = [each.id for each in found if each.deleted_at is None]
    states = await load_states(connection, there, now)
    grants: defaultdict[str, list[ConfiguredGrantView]] = defaultdict(list)
    for grant in await sql.configuration.grants(connection, orgs=there, at=moment(now)):
        grants[grant.org].append(ConfiguredGrantView.model_validate(grant))
    alerts = {each.org: each.percents for each in await sql.configuration.alerts(connection, orgs=there)}
    keys: defaultdict[str, list[KeyView]] = defaultdict(list)
    for key in await sql.configuration.keys(connection, orgs=there, keys_max=KEYS_MAX + 1):
        keys[key.org].append(key_view(key, now))
    return [
        ConfiguredOrganizationView(
            organization=OrganizationView.model_validate(each),
            follows_payments=each.follows_payments,
            suspended=each.suspended,
            entitlement=_entitlement(states.get(each.id)),
            grants=grants[each.id],
            caps=dict(states[each.id].caps) if each.id in states else {},
            alerts=list(alerts.get(each.id, ())),
            keys=keys[each.id][:KEYS_MAX],
            has_more_keys=len(keys[each.id]) > KEYS_MAX,
        )
        for each in found
    ]


def _entitlement(state: State | None) -> ConfiguredEntitlementView | None:
    if state is None or not state.entitled:
        return None
    return ConfiguredEntitlementView(
        set=set_of(wanted_of(state.terms)) if state.terms else None,
        version=state.version,
    )
