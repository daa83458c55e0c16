"""Which tokens are trusted: the block `auth` of gateway.yaml and of control.yaml, the same in both."""

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
Environment = Annotated[str, Field(pattern=r"^[a-z0-9]{1,16}$")]
RefreshSeconds = Annotated[float, Field(ge=1, le=86_400)]


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


class Auth(SettingsModel):
    """Which tokens are trusted: the same block in gateway.yaml and in control.yaml."""

    algorithms: Annotated[tuple[Algorithm, ...], Field(min_length=1)]
    """Either HS* (with `secret`) or RS*, PS*, ES*, EdDSA (with `jwks`). Mixed, a public key could pass as a secret."""
    secret: SecretStr | None = None
    """For HS256 at least 32 bytes, for HS384 48, for HS512 64."""
    jwks: Annotated[Text, AfterValidator(_key_set)] | None = None
    """The issuer's key set: an https URL, or a file (relative to the working directory)."""
    jwks_refresh_seconds: RefreshSeconds = 300
    """The key set is read again after so long, unless its answer's `Cache-Control: max-age` says otherwise: a withdrawn
    key is believed for no longer. A token that fits no key has it read at once, at most every 30 seconds."""
    jwks_refresh_seconds_max: RefreshSeconds = 3600
    """A longer `max-age` is cut to this, one below 30 seconds is taken for 30."""
    issuer: Text
    """`iss` must be exactly this."""
    audience: Text | Texts | None = None
    """`aud` must hold one of these; null: the token must name no audience (RFC 7519 section 4.1.3)."""
    authorized_parties: Texts | None = None
    """A token that names in `azp` who it was issued to must name one of these (Clerk: the origins of your pages); null:
    whoever it is."""
    leeway_seconds: Annotated[float, Field(ge=0, le=300)] = 5
    """How far the issuer's clock may be off, for `exp`, `nbf` and `iat`."""
    org_claim: Text | Texts = "org_id"
    """The claim that names the organization: a claim of just this name, else a dotted path (Clerk: `o.id`), or a list
    of the path's steps."""
    keys: ApiKeySettings = ApiKeySettings()
    cache_entries_max: Annotated[int, Field(ge=2)] = 65_536
    """Verified tokens remembered until they expire; about 310 bytes each."""

    @model_validator(mode="after")
    def _keys_fit_algorithms(self) -> Self:
        faults: list[tuple[Location, str]] = []
        symmetric = [name for name in self.algorithms if name in SECRET_BYTES_MIN]
        needed, other = ("secret", "jwks") if symmetric else ("jwks", "secret")
        if symmetric and len(symmetric) < len(self.algorithms):
            faults.append((("algorithms",), "HS* and public-key algorithms must not be mixed"))
        elif getattr(self, other) is not None:
            faults.append(((other,), f"cannot be used with {', '.join(self.algorithms)}: set {needed} instead"))
        elif getattr(self, needed) is None:
            faults.append(((needed,), f"is missing: {', '.join(self.algorithms)} needs it"))
        if self.secret is not None and symmetric:
            length = max(SECRET_BYTES_MIN[name] for name in symmetric)
            if len(self.secret.get_secret_value().encode()) < length:
                faults.append((("secret",), f"must be at least {length} bytes for {', '.join(symmetric)}"))
            elif not _is_secret(self.secret.get_secret_value()):
                faults.append((("secret",), "is a key of a key pair, which others may have, and not a secret"))
        if faults:
            raise SettingsConflict(faults)
        return self

    @model_validator(mode="after")
    def _refresh_within_its_bound(self) -> Self:
        if self.jwks_refresh_seconds_max < self.jwks_refresh_seconds:
            fault = f"must not be less than jwks_refresh_seconds ({self.jwks_refresh_seconds:g})"
            raise SettingsConflict([(("jwks_refresh_seconds_max",), fault)])
        return self
