"""What the endpoints use of the mirror, and how it is put together."""

from contextlib import AsyncExitStack
from dataclasses import dataclass

from common.clock import Clock
from control.access.people.mirror.client import opened
from control.access.people.mirror.converge import Converger
from control.access.people.mirror.inbox import MirrorInbox
from control.access.permissions import OrganizationRole
from control.access.publishing import Publisher
from control.db import Database
from control.settings.control_plane import Clerk


@dataclass(frozen=True, slots=True)
class Mirror:
    settings: Clerk
    inbox: MirrorInbox


async def open_mirror(
    stack: AsyncExitStack, settings: Clerk, db: Database, publisher: Publisher, clock: Clock
) -> Mirror | None:
    """None where people are not mirrored."""
    if not settings.enabled:
        return None
    client = await stack.enter_async_context(opened(settings))
    roles = {theirs: OrganizationRole(ours) for theirs, ours in settings.roles.items()}
    converger = Converger(db, client, publisher, roles, clock)
    return Mirror(settings, MirrorInbox(db, converger, settings.resync_seconds, clock))
