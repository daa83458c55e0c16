"""Scopes and roles that a route asks for. Pure. Source: RFC 6750 section 3.1 (insufficient_scope)."""

from collections.abc import Collection, Iterable

from identity.claims import Claims
from identity.refusals import Reason, TokenRefused


class Requirement:
    """What one route asks for: all of the scopes, and any of the roles."""

    __slots__ = ("_keys", "_named", "_roles", "_route_scope", "_scopes")

    def __init__(self, route: str, scopes: Iterable[str], roles: Iterable[str], *, keys: bool = False) -> None:
        """`keys`: whether API keys that name the route may use it at all."""
        self._keys = keys
        self._route_scope = f"route:{route}"
        self._scopes = frozenset(scopes)
        self._roles = frozenset(roles)
        self._named = " ".join(sorted(self._scopes))

    def refusal(self, claims: Claims, key_scopes: Collection[str] = ()) -> TokenRefused | None:
        """Why who is verified may not use the route; None where it may.

        An API key has neither scopes nor roles of an issuer. Where keys are let in at all, it must have been made for
        the route, so that its own scopes (`key_scopes`) name it."""
        if claims.api_key is not None:
            named = self._keys and self._route_scope in key_scopes
            if named:
                return None
            return TokenRefused(Reason.KEY_SCOPE, self._route_scope if self._keys else "")
        if not self._scopes <= claims.scopes:
            return TokenRefused(Reason.INSUFFICIENT_SCOPE, self._named)
        if self._roles and self._roles.isdisjoint(claims.roles):
            return TokenRefused(Reason.INSUFFICIENT_ROLE)
        return None
