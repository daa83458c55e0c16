"""What of the access room endpoints work with, and the services that it runs."""

from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

from common.clock import Clock
from control.access.activation.parts import Activation
from control.access.callers import Callers
from control.access.cleanup import Cleanup
from control.access.guesses import Guesses
from control.access.issuing.issuer import Issuer
from control.access.issuing.rotation import Rotation
from control.access.issuing.store import SigningKeys
from control.access.keys.index import KeyIndex
from control.access.keys.leak_reports import LeakReporting
from control.access.makers import Makers
from control.access.organization_tokens import OrganizationTokens
from control.access.people import members
from control.access.people.mirror.parts import Mirror, open_mirror
from control.access.people.service_tokens import ServiceTokens
from control.access.portal import parts as portal
from control.access.signin import parts as signin
from control.access.standing import Standings
from control.background import Service
from control.db import Database
from control.entitlements.publish import Publisher
from control.settings.control_plane import Settings
from identity.settings import ApiKeySettings
from quota.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Access:
    callers: Callers
    issuer: Issuer | None
    guesses: Guesses
    keys: ApiKeySettings
    """How API keys look here."""
    leak_reports: LeakReporting | None
    """None: nobody reports leaked keys."""
    signin: signin.SignInParts
    portal: portal.PortalParts
    mirror: Mirror | None
    """None: people are not mirrored."""
    activation: Activation
    services: tuple[Service, ...]


async def open_access(
    stack: AsyncExitStack,
    db: Database,
    ledger: Ledger,
    charging: Ledger,
    publisher: Publisher,
    settings: Settings,
    clock: Clock,
    host_clock: Clock,
) -> Access:
    """`charging` is over connections that are used only where Redis is vouched for.

    Raises StoreUnavailable; SigningKeyUnreadable where a signing key does not open."""
    services: list[Service] = [KeyIndex(db, ledger), Cleanup(db, ledger, publisher, clock)]
    tokens = None
    if settings.auth is not None:
        tokens = OrganizationTokens(settings.auth)
        stack.push_async_callback(tokens.close)
        if tokens.keys_change:
            services.append(tokens)
    issuer = None
    if settings.issuing.enabled:
        issuer = Issuer(settings.issuing, SigningKeys(db, settings.issuing, host_clock), host_clock)
        services.append(rotation := Rotation(db, issuer, host_clock))
        await rotation.start()
    guesses = Guesses(ledger, host_clock)
    service_tokens = ServiceTokens(db, settings.admin_token.get_secret_value(), host_clock)
    await service_tokens.file_bootstrap()
    leak_reports = None
    if settings.leak_reports is not None:
        leak_reports = LeakReporting(settings.leak_reports)
        stack.push_async_callback(leak_reports.public_keys.close)
    mirror = await open_mirror(stack, settings.clerk, db, publisher, clock)
    if mirror is not None:
        services.append(mirror.inbox)
    makers = Makers(frozenset(each.name for each in settings.signin.providers if each.assignments))
    return Access(
        callers=Callers(
            service_tokens, tokens, guesses, partial(members.role_of, db), Standings(db, charging, host_clock)
        ),
        issuer=issuer,
        guesses=guesses,
        keys=settings.auth.keys if settings.auth else ApiKeySettings(),
        leak_reports=leak_reports,
        signin=await stack.enter_async_context(
            signin.opened(settings.signin, db, makers, clock=clock, host_clock=host_clock)
        ),
        portal=await stack.enter_async_context(
            portal.opened(settings.portal, settings.signin.public_url, db, makers, clock=clock, host_clock=host_clock)
        ),
        mirror=mirror,
        activation=Activation.of(db, publisher, settings.activation, clock),
        services=tuple(services),
    )
