"""An organization's own token -> the organization: by the gateway's verifier (`quota/identity`), with its settings."""

from quota.clock import Clock, system_clock
from quota.identity.claims import Claims
from quota.identity.keysets import KeySet
from quota.identity.refusals import KeyInDoubt
from quota.identity.settings import Auth
from quota.identity.tokens import TokenVerifier


class OrganizationTokens:
    """A background service, too: it keeps the issuer's keys fresh."""

    name = "keys"

    def __init__(self, settings: Auth, clock: Clock = system_clock) -> None:
        self.keyset = KeySet.of(settings)
        self._verifier = TokenVerifier(settings, self.keyset, clock)

    async def claims(self, token: bytes) -> Claims:
        """Whom the token speaks for; waits only for keys that may be newer than those known. Raises TokenRefused."""
        try:
            return self._verifier.verify(token)
        except KeyInDoubt:
            await self.keyset.refresh_if_due()
        return self._verifier.verify(token)

    async def run(self) -> None:
        await self.keyset.run()

    async def close(self) -> None:
        await self.keyset.close()
