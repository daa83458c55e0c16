"""An OpenID provider: where it is, what it is asked, and what its answer says.

Authlib makes the requests of the protocol (RFC 6749, RFC 7636); they are sent by our own client, which follows no
redirect, reads a bounded answer, and has one deadline.
"""

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Generic, TypeVar
from urllib.parse import urlencode, urlsplit

import httpx
import structlog
from authlib.oauth2.auth import ClientAuth
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri
from authlib.oauth2.rfc7636 import create_s256_code_challenge

from common.clock import Clock
from common.urls import is_loopback, split_url
from control.access.signin import id_token
from control.access.signin.attempt import Attempt
from control.access.signin.claims import value_at
from control.settings.signin import IdentityProvider
from identity.keysets.jwk import Key, KeySetUnavailable, parse_key_set

TIMEOUT_SECONDS: Final = 10.0
ANSWER_BYTES_MAX: Final = 256 * 1024
METADATA_SECONDS: Final = 3600.0
KEYS_RETRY_SECONDS: Final = 30.0
AWAY_SECONDS: Final = 5.0
"""A provider that did not answer is not asked again for so long: strangers could have us ask it all the time."""

log = structlog.get_logger()
S = TypeVar("S", bound=IdentityProvider)


class ProviderAway(Exception):
    """The provider does not answer, or with something that is no answer. The message is for the log."""


class SignInRefused(Exception):
    """The provider refused: the code, or the person who was asked."""

    def __init__(self, reason: str, *, cancelled: bool = False) -> None:
        super().__init__(reason)
        self.cancelled = cancelled
        """The person did not want to, or may not use this application there."""


class OpenIdProvider(Generic[S]):
    def __init__(
        self,
        settings: S,
        redirect_uri: str,
        client: httpx.AsyncClient,
        clock: Clock,
        elapsed: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self.redirect_uri = redirect_uri
        self._client = client
        self._clock = clock
        self._elapsed = elapsed
        self._metadata: Mapping[str, str] = {}
        self._metadata_at = self._keys_at = self._away_at = float("-inf")
        self._discovering = asyncio.Lock()
        self._keys: Sequence[Key] = ()

    async def authorization_url(self, attempt: Attempt) -> str:
        """Where the browser is sent to. Raises ProviderAway."""
        asked: dict[str, Any] = {"nonce": attempt.nonce}
        if self.settings.prompt is not None:
            asked["prompt"] = self.settings.prompt
        if self.settings.max_age_seconds is not None:
            asked["max_age"] = self.settings.max_age_seconds
        if self.settings.acr_values:
            asked["acr_values"] = " ".join(self.settings.acr_values)
        url: str = prepare_grant_uri(
            (await self._discovered())["authorization_endpoint"],
            client_id=self.settings.client_id,
            response_type="code",
            redirect_uri=self.redirect_uri,
            scope=" ".join(self.settings.scopes),
            state=attempt.state,
            code_challenge=create_s256_code_challenge(attempt.verifier),
            code_challenge_method="S256",
            **asked,
        )
        return url

    async def identify(self, attempt: Attempt, answer: Mapping[str, str]) -> Mapping[str, Any]:
        """The claims of the person. `answer`: the query with which the browser came back, its state checked already.

        Raises SignInRefused, ProviderAway, IdTokenRefused."""
        # RFC 9207: an answer of another provider that was sent here.
        if answer.get("iss", self.settings.issuer) != self.settings.issuer:
            raise SignInRefused("the answer names another issuer")
        if (error := answer.get("error")) is not None:
            raise SignInRefused(f"the provider answered {error[:80]!r}", cancelled=error == "access_denied")
        if not (code := answer.get("code")):
            raise SignInRefused("the answer has no code")
        tokens = await self._exchange(code, attempt.verifier)
        access_token = tokens.get("access_token")
        claims = await self._claims(tokens, attempt.nonce, access_token)
        if isinstance(access_token, str):
            claims = await self._with_user_info(claims, access_token)
        return claims

    async def end_session_url(self, return_to: str) -> str | None:
        """Where the person signs out of the provider, too; None where it has no such page, or does not answer.

        OpenID Connect RP-Initiated Logout 1.0."""
        try:
            endpoint = (await self._discovered()).get("end_session_endpoint")
        except ProviderAway:
            return None
        if endpoint is None:
            return None
        query = urlencode({"client_id": self.settings.client_id, "post_logout_redirect_uri": return_to})
        return f"{endpoint}{'&' if urlsplit(endpoint).query else '?'}{query}"

    async def _exchange(self, code: str, verifier: str) -> Mapping[str, Any]:
        secret = self.settings.client_secret.get_secret_value()
        method = self.settings.client_authentication if secret else "none"
        body = urlencode(
            {
                "grant_type": "authorization_code",
                "code": code,
                "redirect_uri": self.redirect_uri,
                "code_verifier": verifier,
            }
        )
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        endpoint = (await self._discovered())["token_endpoint"]
        uri, headers, body = ClientAuth(self.settings.client_id, secret, method).prepare(
            "POST", endpoint, headers, body
        )
        status, content = await self._call("POST", uri, headers, body)
        if status in (400, 401, 403):
            raise SignInRefused(f"the provider refused the code: {str(content.get('error', status))[:80]}")
        if status != httpx.codes.OK:
            raise ProviderAway(f"its token endpoint answered {status}")
        return content

    async def _claims(self, tokens: Mapping[str, Any], nonce: str, access_token: Any) -> Mapping[str, Any]:
        token = tokens.get("id_token")
        if not isinstance(token, str):
            raise id_token.IdTokenRefused("the provider sent no id token")
        at = access_token if isinstance(access_token, str) else None

        def read() -> Mapping[str, Any]:
            now = self._clock()
            return id_token.read(token, self._keys, self.settings, nonce=nonce, access_token=at, now=now)

        if not self._keys:
            await self._read_keys()
        try:
            return read()
        except id_token.SignatureUnknown:
            if self._elapsed() - self._keys_at < KEYS_RETRY_SECONDS:
                raise
        await self._read_keys()
        return read()

    async def _with_user_info(self, claims: Mapping[str, Any], access_token: str) -> Mapping[str, Any]:
        """Asks for what the id token lacks: some providers keep it short."""
        endpoint = (await self._discovered()).get("userinfo_endpoint")
        lacking = any(value_at(claims, path) is None for path in self.settings.claims_wanted)
        if endpoint is None or not lacking:
            return claims
        headers = {"Authorization": f"Bearer {access_token}", "Accept": "application/json"}
        status, more = await self._call("GET", endpoint, headers)
        if status != httpx.codes.OK:
            raise ProviderAway(f"its userinfo endpoint answered {status}")
        if more.get("sub") != claims["sub"]:  # Core 1.0 section 5.3.2
            raise id_token.IdTokenRefused("the userinfo is of somebody else")
        return {**more, **claims}

    async def _read_keys(self) -> None:
        self._keys_at = self._elapsed()
        status, content = await self._call("GET", (await self._discovered())["jwks_uri"], {})
        if status != httpx.codes.OK:
            raise ProviderAway(f"the address of its keys answered {status}")
        try:
            self._keys = parse_key_set(json.dumps(content).encode(), self.settings.algorithms)
        except KeySetUnavailable as e:
            raise ProviderAway(f"its keys cannot be used: {e}") from e

    async def _discovered(self) -> Mapping[str, str]:
        """OpenID Connect Discovery 1.0."""
        async with self._discovering:
            if self._elapsed() - self._metadata_at > METADATA_SECONDS:
                if self._elapsed() - self._away_at < AWAY_SECONDS:
                    raise ProviderAway("it did not answer a moment ago")
                try:
                    self._metadata = await self._discover()
                except ProviderAway:
                    self._away_at = self._elapsed()
                    raise
                self._metadata_at = self._elapsed()
        return self._metadata

    async def _discover(self) -> Mapping[str, str]:
        url = f"{self.settings.issuer.rstrip('/')}/.well-known/openid-configuration"
        status, content = await self._call("GET", url, {})
        if status != httpx.codes.OK:
            raise ProviderAway(f"its discovery document: {status}")
        return _endpoints(content, self.settings.issuer)

    async def _call(
        self, method: str, url: str, headers: Mapping[str, str], body: str | None = None
    ) -> tuple[int, Mapping[str, Any]]:
        """Status, and the JSON object of the answer. Raises ProviderAway."""
        content = bytearray()
        try:
            async with (
                asyncio.timeout(TIMEOUT_SECONDS),
                self._client.stream(
                    method, url, headers={**headers, "Accept-Encoding": "identity"}, content=body
                ) as answer,
            ):
                async for part in answer.aiter_bytes():
                    content += part
                    if len(content) > ANSWER_BYTES_MAX:
                        raise ProviderAway("its answer is too long")
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as e:  # TimeoutError is an OSError
            raise ProviderAway(f"it cannot be reached: {type(e).__name__}") from e
        try:
            document = json.loads(content)
        except (ValueError, RecursionError):
            document = None
        if isinstance(document, dict):
            return answer.status_code, document
        if answer.status_code == httpx.codes.OK:
            raise ProviderAway("its answer is no JSON object")
        return answer.status_code, {}


def _endpoints(document: Mapping[str, Any], issuer: str) -> Mapping[str, str]:
    """Those that are used. Raises ProviderAway."""
    if document.get("issuer") != issuer:
        raise ProviderAway(f"its discovery document names another issuer: {str(document.get('issuer'))[:200]!r}")
    found = {}
    for name in ("authorization_endpoint", "token_endpoint", "jwks_uri", "userinfo_endpoint", "end_session_endpoint"):
        url = document.get(name)
        if url is None and name in ("userinfo_endpoint", "end_session_endpoint"):
            continue
        try:
            parts = split_url(str(url), ("https", "http"))
        except ValueError as e:
            raise ProviderAway(f"its discovery document: {name} {e}") from e
        if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
            raise ProviderAway(f"its discovery document: {name} is not https")
        found[name] = str(url)
    return found
