"""Sites of the demo history: the vendor makes a code, the organization's sites activate with it, and are heard of."""

import hmac
import random
from base64 import urlsafe_b64encode
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from common.clock import Clock
from control.access.activation.administration import NewCode
from control.access.activation.parts import Activation
from control.access.activation.requests import ActivationRefused, ActivationRequest, RefreshRequest
from control.access.activation.site_keys import KeyKind, Purpose, SiteKey, signed_text
from control.access.activation.store import Call
from control.access.publishing import Publisher
from control.db import Database
from control.journal import Author
from control.settings.activation import Activation as ActivationSettings

SHARE: Final = 0.3
"""Of the organizations, those whose software runs at sites."""
SILENT_SHARE: Final = 0.15
"""Of the sites, those that nobody hears of again."""
COPY_SHARE: Final = 0.1
"""Of the others, those of which somebody has made a copy."""
VALID_SECONDS: Final = 3 * 86_400
NAMES: Final = ("", "shop.", "staging.", "blog.")


@dataclass(slots=True)
class _Site:
    org: str
    domain: str
    key: SiteKey
    token: str = ""
    is_silent: bool = False
    is_copied: bool = False

    def proof(self, purpose: Purpose, secret: str, domain: str) -> str:
        signed = hmac.digest(self.key.data, signed_text(purpose, secret, domain), "sha256")
        return urlsafe_b64encode(signed).rstrip(b"=").decode()


class Sites:
    """Those of all organizations."""

    def __init__(self, db: Database, publisher: Publisher, clock: Clock, seed: str) -> None:
        self._activation = Activation.of(db, publisher, ActivationSettings(), clock)
        self._clock = clock
        self._seed = seed
        self._sites: list[_Site] = []

    async def move_in(self, org: str, by: Author) -> None:
        """A new organization's sites, if it has some."""
        draw = random.Random(f"{self._seed}/{org}/sites")  # noqa: S311  # repeatable, not secret
        if draw.random() >= SHARE:
            return
        new = NewCode(draw.choice((2, 3, 5)), VALID_SECONDS, "", (), (), None, "Comes with the plan")
        code = await self._activation.administration.create_code(org, new, Call(self._clock(), by))
        for name in NAMES[: draw.randint(1, len(NAMES))]:
            key = SiteKey(KeyKind.HMAC, sha256(draw.randbytes(32)).digest())
            site = _Site(org, f"{name}{org}.example.com", key)
            site.is_silent = draw.random() < SILENT_SHARE
            site.is_copied = draw.random() < COPY_SHARE
            with suppress(ActivationRefused):  # no seat is left, which the page of the code tells
                await self._activate(site, code.text)

    async def _activate(self, site: _Site, code: str) -> None:
        proof = site.proof(Purpose.ACTIVATE, code, site.domain)
        asked = ActivationRequest(code, site.domain, site.key, proof, "", None, f"history-{site.domain}")
        site.token = (await self._activation.activating.activate(asked)).token.text
        self._sites.append(site)

    async def refresh(self) -> None:
        """Those that are still there are heard of."""
        for site in self._sites:
            if not site.is_silent:
                site.token = await self._refresh(site, site.domain)

    async def copy(self) -> None:
        """Some are copied, and the copies are heard of, too."""
        for site in self._sites:
            if site.is_copied and not site.is_silent:
                await self._refresh(site, f"copy-of-{site.domain}")

    async def _refresh(self, site: _Site, domain: str) -> str:
        proof = site.proof(Purpose.REFRESH, site.token, domain)
        shown = RefreshRequest(site.token, domain, proof, None, f"history-{domain}")
        return (await self._activation.refreshing.refresh(shown)).token.text
