"""Sites that take no seat, and copies of sites, which get no more than that."""

from datetime import timedelta
from typing import Final

from control import incidents, sql
from control.access.activation.rules import SiteEvent, SiteKind
from control.access.activation.store import Call, end_site, insert_site, record
from control.db import Connection
from control.moments import moment
from control.sql.activation import ActivationCode, Site

IDLE: Final = timedelta(days=1)
CLONED: Final = "site_cloned"


async def make_room(connection: Connection, org: str, sites_max: int, call: Call) -> bool:
    """Whether the organization may have one more. The one that has been silent for longest is released for it."""
    active = await sql.activation.staging_of(connection, org=org)
    if len(active) < sites_max:
        return True
    if not active or active[0].seen_at > moment(call.now) - IDLE:
        return False
    await end_site(connection, active[0], SiteEvent.REPLACE, call)
    return True


async def insert_copy(
    connection: Connection, call: Call, original: Site, code: ActivationCode, domain: str, *, named: bool
) -> Site:
    """A staging site for a copy of `original`. `named`: an admin is told, since the domain is no staging domain."""
    copy = await insert_site(
        connection, call, code, domain=domain, key=original.key, kind=SiteKind.STAGING, clone_of=original.id
    )
    await record(connection, call, "site.cloned", copy, {"of": original.id, "of_domain": original.domain})
    if named:
        content = {"site": original.id, "domain": original.domain, "copy": copy.id, "copy_domain": domain}
        await incidents.open(connection, call.now, CLONED, incident_key(original.id, domain), original.org, content)
    return copy


def incident_key(original: str, domain: str) -> str:
    return f"{original}:{domain}"
