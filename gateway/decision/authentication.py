"""Whom a request speaks for."""

from collections.abc import Callable

from gateway.decision import refusals
from gateway.decision.refusals import RefusalAnswer
from gateway.http.head import RequestHead
from gateway.routing.destinations import Destination
from identity.claims import Claims
from identity.refusals import Reason, TokenRefused
from identity.tokens import TokenVerifier

RefreshKeys = Callable[[str, Callable[[], None]], None]
"""Asks an issuer for its keys again, then calls back, whatever came of it."""


class Authentication:
    """Verifies the tokens of requests. `claims` and `verified_in` of a head say what is verified already."""

    __slots__ = ("refresh_keys", "verifier")

    def __init__(self, verifier: TokenVerifier, refresh_keys: RefreshKeys) -> None:
        self.verifier = verifier
        self.refresh_keys = refresh_keys

    def claims(self, head: RequestHead, destination: Destination) -> Claims:
        """Raises TokenRefused, or its subclass KeyRefreshDue."""
        verifier = self.verifier
        if (sources := destination.route.tokens) is not None:
            return verifier.verify(sources.token(head, destination.tokens))
        claims = head.claims = verifier.verify_field(head.authorization)
        head.verified_in = verifier.epoch
        return claims

    def refusal(self, refused: TokenRefused) -> RefusalAnswer:
        if refused.reason is Reason.NO_KEYS:
            return refusals.without_keys()
        return refusals.of_token(refused)
