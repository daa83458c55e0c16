"""Verifies an organization's own token, by the gateway's verifier (`identity`) and with its settings."""

from common.clock import Clock, system_clock
from identity.claims import Claims
from identity.keysets import KeySet
from identity.refusals import KeyRefreshDue
from identity.settings import Auth
from identity.tokens import TokenVerifier


class OrganizationTokens:
    """A background service, too: it keeps the issuer's keys fresh."""

    name = "keys"

    def __init__(self, settings: Auth, clock: Clock = system_clock) -> None:
        self.keyset = KeySet.of(settings)
        self.keys_change = settings.jwks is not None
        """Whether there is work for the service: the issuer publishes its keys, and replaces them."""
        self._verifier = TokenVerifier(settings, self.keyset, clock)

    @property
    def usable(self) -> bool:
        """Whether any token can be verified."""
        return self.keyset.usable

    async def claims(self, token: bytes) -> Claims:
        """Verifies a token. It waits only for keys that may be newer than the known ones. Raises TokenRefused."""
        try:
            return self._verifier.verify(token)
        except KeyRefreshDue:
            await self.keyset.refresh_if_due()
        return self._verifier.verify(token)

    async def run(self) -> None:
        await self.keyset.run()

    async def close(self) -> None:
        await self.keyset.close()
