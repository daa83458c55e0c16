"""Verifies an organization's own token, by the gateway's verifier (`identity`) and with its settings."""

from common.clock import Clock, system_clock
from identity.claims import Claims
from identity.issuers import Issuers
from identity.refusals import KeyRefreshDue
from identity.settings import Auth
from identity.tokens import TokenVerifier


class OrganizationTokens:
    """A background service, too: it keeps the issuers' keys fresh."""

    name = "keys"

    def __init__(self, settings: Auth, clock: Clock = system_clock) -> None:
        self.issuers = Issuers(settings)
        self.keys_change = self.issuers.keys_change
        """Whether there is work for the service: an issuer publishes its keys, and replaces them."""
        self._verifier = TokenVerifier(settings, self.issuers.key_sets, clock)

    async def claims(self, token: bytes) -> Claims:
        """Verifies a token. It waits only for keys that may be newer than the known ones. Raises TokenRefused."""
        try:
            return self._verifier.verify(token)
        except KeyRefreshDue as e:
            await self.issuers.refresh_if_due(e.issuer)
        return self._verifier.verify(token)

    async def run(self) -> None:
        await self.issuers.run()

    async def close(self) -> None:
        await self.issuers.close()
