"""What sign-in is made of, for the composition root and the pages."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from common.clock import Clock
from control.access.makers import Makers
from control.access.permissions import AdminRole
from control.access.signin.authors import Authors
from control.access.signin.claims import person_of
from control.access.signin.links import Links
from control.access.signin.provider import OpenIdProvider
from control.access.signin.sessions import Sessions, SignedIn
from control.db import Database
from control.settings.signin import Provider, SignIn


@dataclass(frozen=True, slots=True)
class SignInParts:
    settings: SignIn
    providers: Mapping[str, OpenIdProvider[Provider]]
    """By their names, in the order of the settings."""
    sessions: Sessions
    links: Links
    authors: Authors


@asynccontextmanager
async def opened(
    settings: SignIn, db: Database, makers: Makers, *, clock: Clock, host_clock: Clock
) -> AsyncIterator[SignInParts]:
    """`clock`: of sessions and links, the same for all processes; `host_clock`: of providers' tokens."""
    async with AsyncExitStack() as stack:
        providers = {}
        if settings.providers:  # only then: reading the system's certificates takes a while
            import httpx

            client = await stack.enter_async_context(httpx.AsyncClient(follow_redirects=False))
            providers = {
                each.name: OpenIdProvider(
                    each, f"{settings.public_url}/console/signed-in/{each.name}", client, host_clock
                )
                for each in settings.providers
            }
        sessions, links = Sessions(db, settings, makers, clock), Links(db, makers, clock)
        yield SignInParts(settings, providers, sessions, links, Authors(db, makers, clock))


def signed_in_by(claims: Mapping[str, Any], provider: Provider) -> SignedIn:
    person = person_of(claims, provider)
    return SignedIn(
        person=f"{provider.name}:{person.subject}",
        provider=provider.name,
        email=person.email,
        name=person.name,
        roles=frozenset(map(AdminRole, person.roles)),
    )
