"""Whom requests may come from: the block `auth` of gateway.yaml and of control.yaml, the same in both."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from jwt import InvalidKeyError, get_algorithm_by_name
from pydantic import AfterValidator, Field, SecretStr, model_validator

from common.settings_file import Location, SettingsConflict, SettingsModel
from common.urls import is_loopback, split_url

Algorithm = Literal[
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]
SECRET_BYTES_MIN: Final = {"HS256": 32, "HS384": 48, "HS512": 64}  # the length of the hash: RFC 7518 section 3.2

Text = Annotated[str, Field(min_length=1)]
Texts = Annotated[tuple[Text, ...], Field(min_length=1)]
ClaimPath = Text | Texts
Algorithms = Annotated[tuple[Algorithm, ...], Field(min_length=1)]
Environment = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]{0,15}$")]
RefreshSeconds = Annotated[float, Field(ge=1, le=86_400)]

Faults = Iterator[tuple[Location, str]]


def _key_set(source: str) -> str:
    if "://" in source or source.startswith("file:"):
        parts = split_url(source, ("https", "http"))
        if parts.username is not None or (parts.scheme == "http" and not is_loopback(parts.hostname or "")):
            raise ValueError(
                "must be an https URL without credentials, or an http URL on this machine: "
                "whoever can change the key set can sign"
            )
    elif not Path(source).is_file():
        raise ValueError("the file does not exist")
    return source


def _is_secret(text: str) -> bool:
    try:
        get_algorithm_by_name("HS256").prepare_key(text)
    except InvalidKeyError:
        return False
    return True


class _OneIssuer(SettingsModel):
    """What may be said of an issuer, but for its name and its algorithms."""

    secret: SecretStr | None = None
    """For HS256 at least 32 bytes, for HS384 48, for HS512 64."""
    jwks: Annotated[Text, AfterValidator(_key_set)] | None = None
    """The issuer's key set: an https URL, or a file (relative to the working directory)."""
    discovery: bool = False
    """Whether the address of the key set is read from `<issuer>/.well-known/openid-configuration` (OpenID Connect
    Discovery 1.0), whenever the keys are read. That document must name the same issuer."""
    jwks_refresh_seconds: RefreshSeconds = 300
    """The key set is read again after so long, unless its answer's `Cache-Control: max-age` says otherwise: a withdrawn
    key is believed for no longer. A token that fits no key has it read at once, at most every 30 seconds."""
    jwks_refresh_seconds_max: RefreshSeconds = 3600
    """A longer `max-age` is cut to this, one below 30 seconds is taken for 30."""
    audience: Text | Texts | None = None
    """`aud` must hold one of these; null: the token must name no audience (RFC 7519 section 4.1.3)."""
    authorized_parties: Texts | None = None
    """A token that names in `azp` who it was issued to must name one of these (Clerk: the origins of your pages); null:
    whoever it is."""
    leeway_seconds: Annotated[float, Field(ge=0, le=300)] = 5
    """How far the issuer's clock may be off, for `exp`, `nbf` and `iat`."""
    org_claim: ClaimPath = "org_id"
    """The claim that names the organization: a claim of just this name, else a dotted path (Clerk: `o.id`), or a list
    of the path's steps."""
    user_claim: ClaimPath = "sub"
    """The claim that names the user, in the same way: usage is counted by it, and access withdrawn."""
    roles_claim: ClaimPath = "roles"
    """The claim that names the user's roles, one or a list, for routes with `require` (Clerk: `o.rol`)."""
    scopes_claim: ClaimPath | None = None
    """The claim that names the token's scopes, with blanks between or a list; null: `scope`, else `scp`."""

    def _faults(self, algorithms: tuple[Algorithm, ...], issuer: str) -> Faults:
        symmetric = [name for name in algorithms if name in SECRET_BYTES_MIN]
        named = ", ".join(algorithms)
        if symmetric and len(symmetric) < len(algorithms):
            yield ("algorithms",), "HS* and public-key algorithms must not be mixed"
        elif symmetric:
            for field in ("jwks", "discovery"):
                if getattr(self, field):
                    yield (field,), f"cannot be used with {named}: set secret instead"
            if self.secret is None and not (self.jwks or self.discovery):
                yield ("secret",), f"is missing: {named} needs it"
        elif self.secret is not None:
            yield ("secret",), f"cannot be used with {named}: set jwks instead"
        elif self.jwks is None and not self.discovery:
            yield ("jwks",), f"is missing: {named} needs it, or discovery: true"
        elif self.jwks is not None and self.discovery:
            yield ("jwks",), "is read by discovery: leave one of the two out"
        if self.secret is not None and symmetric:
            length = max(SECRET_BYTES_MIN[name] for name in symmetric)
            if len(self.secret.get_secret_value().encode()) < length:
                yield ("secret",), f"must be at least {length} bytes for {', '.join(symmetric)}"
            elif not _is_secret(self.secret.get_secret_value()):
                yield ("secret",), "is a key of a key pair, which others may have, and not a secret"
        if self.discovery and not _has_configuration(issuer):
            yield ("issuer",), "must be an https URL without query for discovery, or an http URL on this machine"
        if self.jwks_refresh_seconds_max < self.jwks_refresh_seconds:
            yield (
                ("jwks_refresh_seconds_max",),
                f"must not be less than jwks_refresh_seconds ({self.jwks_refresh_seconds:g})",
            )


def _has_configuration(issuer: str) -> bool:
    try:
        parts = split_url(_key_set(issuer) if "://" in issuer else "", ("https", "http"))
    except ValueError:
        return False
    return not (parts.query or parts.fragment)


class IssuerSettings(_OneIssuer):
    """Who signs tokens that are trusted, and what its tokens must say."""

    issuer: Text
    """`iss` must be exactly this. A token is judged by what is said of the issuer that it names, and nothing else."""
    algorithms: Algorithms
    """Either HS* (with `secret`) or RS*, PS*, ES*, EdDSA (with `jwks` or `discovery`). Mixed, a public key could pass
    as a secret."""

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        if faults := list(self._faults(self.algorithms, self.issuer)):
            raise SettingsConflict(faults)
        return self


class ApiKeySettings(SettingsModel):
    """API keys, which customers' code sends instead of a token: `qg_live_…`. The same in both files."""

    enabled: bool = True
    """Whether any are accepted."""
    prefix: Annotated[str, Field(pattern=r"^[a-z](_?[a-z0-9]){0,15}$")] = "qg"
    """How keys begin. Keys of a former prefix are refused, unless `imported`."""
    environments: Annotated[tuple[Environment, ...], Field(min_length=1)] = ("live",)
    """Those whose keys are accepted here: a gateway in front of a test system has [test]."""
    imported: bool = False
    """Whether any other text of 16 to 512 characters may be a key that was imported from elsewhere. Each text that is
    not a token then costs a look-up in Redis."""


class Auth(_OneIssuer):
    """Which tokens and keys are trusted: the same block in gateway.yaml and in control.yaml. It is the one issuer, or
    has a list of them."""

    issuer: Text | None = None
    """`iss` must be exactly this."""
    algorithms: Algorithms | None = None
    """Either HS* (with `secret`) or RS*, PS*, ES*, EdDSA (with `jwks` or `discovery`). Mixed, a public key could pass
    as a secret."""
    issuers: tuple[IssuerSettings, ...] = ()
    """Several, side by side. Then all else that is said of an issuer stands in this list."""
    keys: ApiKeySettings = ApiKeySettings()
    cache_entries_max: Annotated[int, Field(ge=2)] = 65_536
    """Verified tokens remembered until they expire; about 400 to 600 bytes each."""

    @property
    def trusted(self) -> tuple[IssuerSettings, ...]:
        """All issuers, in whichever form they are written; none where only API keys are accepted."""
        if self.issuers or self.issuer is None:
            return self.issuers
        return (IssuerSettings(**{name: getattr(self, name) for name in IssuerSettings.model_fields}),)

    @model_validator(mode="after")
    def _issuers_hold_together(self) -> Self:
        fields = IssuerSettings.model_fields
        own = [name for name in sorted(fields) if getattr(self, name) != Auth.model_fields[name].default]
        faults: list[tuple[Location, str]] = []
        if self.issuers:
            faults += [((name,), "belongs to one issuer: move it into the list `issuers`") for name in own]
            faults += self._issuers_of_one_name()
        elif own or "keys" not in self.model_fields_set:
            faults += [((name,), "is missing") for name in ("issuer", "algorithms") if getattr(self, name) is None]
            if self.issuer is not None and self.algorithms is not None:
                faults += self._faults(self.algorithms, self.issuer)
        elif not self.keys.enabled:
            faults.append((("keys", "enabled"), "without keys and without issuers nobody could call"))
        if faults:
            raise SettingsConflict(faults)
        return self

    def _issuers_of_one_name(self) -> Faults:
        first: dict[str, int] = {}
        for index, issuer in enumerate(self.issuers):
            if first.setdefault(issuer.issuer, index) != index:
                yield ("issuers", index, "issuer"), f"is that of issuers[{first[issuer.issuer]}], too"
