"""What a site sends, and why it is refused."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from control.access.activation.refresh_tokens import RefreshToken
from control.access.activation.site_keys import SiteKey
from control.sql.activation import Site


class Refused(Enum):
    """Why a code activates nothing. An admin reads it; the client is told only that it is refused."""

    MISTYPED = "mistyped"
    UNKNOWN = "unknown"
    REVOKED = "revoked"
    EXPIRED = "expired"
    OTHER_PRODUCT = "other_product"
    WRONG_PROOF = "wrong_proof"
    NO_SEAT = "no_seat"
    PLAN_GONE = "plan_gone"


class ActivationRefused(Exception):
    """The code does not activate what asks."""

    def __init__(self, reason: Refused) -> None:
        super().__init__(reason.value)
        self.reason = reason


class Again(Enum):
    """Why a site has to be activated again. It is told so only when it has proved that it is that site."""

    UNKNOWN = "unknown"
    """No such token, or no proof that the site has the key. Which of them, nobody is told."""
    REUSED = "reused"
    """An earlier token was shown: another one may have them, too. All of the site's tokens are revoked."""
    REVOKED = "revoked"
    RELEASED = "released"
    REPLACED = "replaced"
    """The site was activated again with other tokens."""
    EXPIRED = "expired"
    DOMAIN_TAKEN = "domain_taken"
    NO_STAGING_SEAT = "no_staging_seat"


class ActivateAgain(Exception):
    """The refresh token is good for nothing here."""

    def __init__(self, reason: Again) -> None:
        super().__init__(reason.value)
        self.reason = reason


@dataclass(frozen=True, slots=True, repr=False)
class ActivationRequest:
    code: str
    domain: str
    key: SiteKey
    proof: str
    product: str
    attempt: str | None
    correlation_id: str


@dataclass(frozen=True, slots=True, repr=False)
class RefreshRequest:
    """Also for a release."""

    token: str
    domain: str
    proof: str
    attempt: str | None
    correlation_id: str

    @property
    def family(self) -> str:
        """Of the token, by which guesses are counted; whatever is there instead, if it is no token."""
        return self.token.split("_")[1] if self.token.count("_") >= 3 else ""


@dataclass(frozen=True, slots=True, repr=False)
class Granted:
    """What a site gets: its access token is minted of this."""

    site: Site
    token: RefreshToken
    scopes: Sequence[str]
    access_seconds: int
