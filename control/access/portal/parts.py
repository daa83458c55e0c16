"""What the portal's way in is made of, for the composition root and the pages."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from common.clock import Clock
from control.access.makers import Makers
from control.access.portal.sessions import PortalSessions
from control.access.signin.provider import OpenIdProvider
from control.db import Database
from control.settings.portal import CustomerSignIn, Portal


@dataclass(frozen=True, slots=True)
class PortalParts:
    sessions: PortalSessions
    provider: OpenIdProvider[CustomerSignIn] | None
    """None: only links open the portal."""
    url: str
    """Where browsers reach the portal."""


@asynccontextmanager
async def opened(
    settings: Portal, console_url: str, db: Database, makers: Makers, *, clock: Clock, host_clock: Clock
) -> AsyncIterator[PortalParts]:
    """`clock`: of sessions and links, the same for all processes; `host_clock`: of the provider's tokens."""
    url, sessions = settings.public_url or console_url, PortalSessions(db, settings, makers, clock)
    if settings.sign_in is None:
        yield PortalParts(sessions, None, url)
        return
    import httpx  # only here: reading the system's certificates takes a while

    async with httpx.AsyncClient(follow_redirects=False) as client:
        provider = OpenIdProvider(settings.sign_in, f"{url}/portal/signed-in", client, host_clock)
        yield PortalParts(sessions, provider, url)
