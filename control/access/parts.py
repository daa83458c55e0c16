"""What of the access room endpoints work with, and the services that it runs."""

from contextlib import AsyncExitStack
from dataclasses import dataclass

from common.clock import Clock
from control.access.callers import Callers
from control.access.guesses import Guesses
from control.access.issuing.issuer import Issuer
from control.access.issuing.rotation import Rotation
from control.access.issuing.store import SigningKeys
from control.access.organization_tokens import OrganizationTokens
from control.access.people.service_tokens import ServiceTokens
from control.background import Service
from control.db import Database
from control.settings import Settings
from quota.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Access:
    callers: Callers
    issuer: Issuer | None
    guesses: Guesses
    services: tuple[Service, ...]


async def open_access(
    stack: AsyncExitStack, db: Database, ledger: Ledger, settings: Settings, host_clock: Clock
) -> Access:
    """Raises StoreUnavailable; SigningKeyUnreadable where a signing key does not open."""
    services: list[Service] = []
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
    return Access(Callers(service_tokens, tokens, guesses), issuer, guesses, tuple(services))
