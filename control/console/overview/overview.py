"""What the console opens with: where to look first."""

from collections.abc import Awaitable
from typing import Final

from starlette.responses import Response

from control.access.permissions import Permission
from control.api.analytics import read_movements
from control.api.audit import list_journal
from control.api.incidents import list_incidents
from control.api.tiles import get_incident_tiles
from control.attention.kinds import kind_of
from control.billing.history.annual_value import Definition
from control.console.frame.guards import Viewing
from control.console.frame.pages import Pages
from control.console.frame.sections import sections
from control.http.context import Ctx

router = Pages("/console")

INCIDENTS_MAX: Final = 6
ENTRIES_MAX: Final = 8


@router.page("", permission=None, twin=None)
async def show(ctx: Ctx, viewer: Viewing) -> Response:
    """The first page: what the viewer may see of each."""
    loading: dict[str, Awaitable[object]] = {}
    if viewer.can(Permission.ANALYTICS_READ):
        loading["revenue"] = read_movements(ctx, Definition.STRIPE, None)
    if viewer.can(Permission.INCIDENTS_READ):
        loading["tiles"] = get_incident_tiles(ctx)
        loading["incidents"] = list_incidents(ctx, status="open", limit=INCIDENTS_MAX)
    if viewer.can(Permission.AUDIT_READ):
        loading["journal"] = list_journal(ctx, limit=ENTRIES_MAX)
    return viewer.page("overview/overview.html", found=await sections(**loading), kind_of=kind_of)
