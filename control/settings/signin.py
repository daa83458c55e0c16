"""How people sign in to the console: the block `signin` of control.yaml."""

import re
from collections.abc import Mapping
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, model_validator

from common.settings_file import SettingsConflict, SettingsModel
from common.urls import is_loopback, split_url

Text = Annotated[str, Field(min_length=1)]
Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]  # no HS*: an id token that is signed with the client's secret can be made by whoever has the secret
Role = Literal["viewer", "support", "billing", "admin"]

_PATH: Final = re.compile(r"[^.\s]+(?:\.[^.\s]+)*")


def _reachable(url: str) -> str:
    """Passwords and codes go there: in clear text they may not leave this machine."""
    parts = split_url(url, ("https", "http"))
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise ValueError("must begin with https://, unless it is on this machine")
    if parts.query or parts.fragment or parts.username is not None:
        raise ValueError("must have no query, fragment or user name")
    return url


def origin(url: str) -> str:
    """A URL without a path, in lower case. Raises ValueError."""
    if urlsplit(_reachable(url)).path not in ("", "/"):
        raise ValueError("must have no path: those of the pages are fixed")
    return url.rstrip("/").lower()


def claim_path(path: str) -> str:
    if _PATH.fullmatch(path) is None:
        raise ValueError("must be names with dots between them: realm_access.roles")
    return path


class IdentityProvider(SettingsModel):
    """An OpenID provider, by whose word people come in. Its endpoints and keys are found by discovery."""

    issuer: Annotated[str, AfterValidator(_reachable)]
    """As in its tokens, to the letter."""
    client_id: Text
    client_secret: SecretStr = SecretStr("")
    """Empty: a client without a secret, which PKCE alone protects."""
    client_authentication: Literal["client_secret_basic", "client_secret_post"] = "client_secret_basic"
    scopes: tuple[Text, ...] = ("openid", "email", "profile")
    algorithms: Annotated[tuple[Algorithm, ...], Field(min_length=1)] = ("RS256",)
    """With which its id tokens may be signed."""
    leeway_seconds: Annotated[float, Field(ge=0, le=300)] = 30
    """By which its clock may differ from ours."""
    prompt: Literal["login", "select_account", "consent"] | None = None
    """What it asks each time; null: as it likes."""
    max_age_seconds: Annotated[int, Field(ge=0, le=31_536_000)] | None = None
    """A password that was given longer ago is asked for again; null: as it likes."""
    acr_values: tuple[Text, ...] = ()
    """The kinds of authentication that are asked for, such as one with a second factor, best first."""
    require_acr: tuple[Text, ...] = ()
    """One of these must be in `acr`; none: it is not looked at."""
    require_amr: tuple[Text, ...] = ()
    """All of these must be in `amr`, such as mfa; none: it is not looked at."""

    @property
    def claims_wanted(self) -> tuple[str, ...]:
        """Paths of claims. The userinfo endpoint is asked where the id token lacks one."""
        return ()

    @model_validator(mode="after")
    def _speaks_openid(self) -> Self:
        if "openid" not in self.scopes:
            raise SettingsConflict([(("scopes",), "must hold openid")])
        return self


class Provider(IdentityProvider):
    """An OpenID provider of the vendor's own people. Its redirect URI here is `public_url`/console/signed-in/NAME."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,30}$")]
    """Its name in addresses and in the journal."""
    label: Text | None = None
    """What people read on the button; null: the name."""
    roles_claim: Annotated[str, AfterValidator(claim_path)] | None = None
    """The claim that names groups or roles: realm_access.roles; null: only who was given a role here may enter."""
    roles: Mapping[str, Role] = {}
    """Which admin role a value of that claim is. A value that is not here gives none."""
    assignments: bool = True
    """Whether a role that a person was given here counts, by the e-mail address that the provider has verified. Say no
    for a provider at which anybody may choose an address."""

    @property
    def title(self) -> str:
        return self.label or self.name

    @property
    def claims_wanted(self) -> tuple[str, ...]:
        return ("email",) if self.roles_claim is None else ("email", self.roles_claim)

    @model_validator(mode="after")
    def _roles_by_a_claim(self) -> Self:
        if bool(self.roles) != (self.roles_claim is not None):
            raise SettingsConflict([(("roles",), "goes with roles_claim: neither works alone")])
        return self


class SignIn(SettingsModel):
    """Sign-in to the console, and its sessions."""

    public_url: Annotated[str, AfterValidator(origin)] = "http://127.0.0.1:8081"
    """Where browsers reach the control plane. Forms of other origins are refused, and providers send people back
    there."""
    idle_minutes: Annotated[float, Field(gt=0, le=525_600)] = 60
    """A session that was not used for so long has ended."""
    session_hours: Annotated[float, Field(gt=0, le=8_760)] = 12
    """After so long it has ended in any case."""
    providers: Annotated[tuple[Provider, ...], Field(max_length=20)] = ()
    """None: only one-time links open the console."""

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [provider.name for provider in self.providers]
        if len(set(names)) != len(names):
            raise SettingsConflict([(("providers",), "two have the same name")])
        return self
